//! X25519 by AWS-LC: the faster one, which decides how many handshakes a core can do (decision 7).

use super::LowOrderKey;
use aws_lc_rs::agreement::{self, UnparsedPublicKey, X25519};
use zeroize::Zeroizing;

/// A key in the library's form. AWS-LC wipes its memory when it frees it.
pub(super) struct PrivateKey(agreement::PrivateKey);

impl PrivateKey {
    pub(super) fn new(secret: &[u8; 32]) -> Self {
        let key = agreement::PrivateKey::from_private_key(&X25519, secret);
        PrivateKey(key.expect("any 32 bytes are a secret of X25519"))
    }

    pub(super) fn public(&self) -> [u8; 32] {
        let public = self.0.compute_public_key().expect("the library computed it with the key");
        public.as_ref().try_into().expect("a public key of X25519 has 32 bytes")
    }

    pub(super) fn agree(&self, public: &[u8; 32]) -> Result<Zeroizing<[u8; 32]>, LowOrderKey> {
        // Any 32 bytes are a public key, so what the library refuses is a shared secret of zeros.
        agreement::agree(&self.0, UnparsedPublicKey::new(&X25519, public), LowOrderKey, |shared| {
            let mut bytes = Zeroizing::new([0; 32]);
            bytes.copy_from_slice(shared);
            Ok(bytes)
        })
    }
}
