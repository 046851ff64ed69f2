//! X25519 in Rust: for machines where AWS-LC cannot be built, and the oracle of the other backend.

use super::LowOrderKey;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// A secret, wiped when it is dropped. Boxed, so that moving it leaves no copy behind.
pub(super) struct PrivateKey(Box<StaticSecret>);

impl PrivateKey {
    pub(super) fn new(secret: &[u8; 32]) -> Self {
        PrivateKey(Box::new(StaticSecret::from(*secret)))
    }

    pub(super) fn public(&self) -> [u8; 32] {
        PublicKey::from(&*self.0).to_bytes()
    }

    pub(super) fn agree(&self, public: &[u8; 32]) -> Result<Zeroizing<[u8; 32]>, LowOrderKey> {
        let shared = self.0.diffie_hellman(&PublicKey::from(*public));
        // All zeros, whatever the secret is, is what every point of low order gives.
        if shared.was_contributory() { Ok(Zeroizing::new(shared.to_bytes())) } else { Err(LowOrderKey) }
    }
}
