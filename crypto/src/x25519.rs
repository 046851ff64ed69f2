//! X25519 (RFC 7748), refusing the public keys that force a known result.
//!
//! Two backends have the same three names, `PrivateKey::new`, `public` and `agree`, as the AEAD has its two. Builds for
//! tests hold both, and each is the other's oracle.

#[cfg(any(test, feature = "aws-lc"))]
mod aws_lc;
#[cfg(any(test, all(feature = "portable", not(feature = "aws-lc"))))]
mod portable;

#[cfg(feature = "aws-lc")]
use aws_lc::PrivateKey;
#[cfg(all(feature = "portable", not(feature = "aws-lc")))]
use portable::PrivateKey;

use crate::secret::Secret;
use std::fmt;
use zeroize::Zeroizing;

/// An X25519 key pair: a secure channel's static key (`wire.md` D.1).
pub struct X25519Key {
    secret: Secret,
    private: PrivateKey,
    public: [u8; 32],
}

impl X25519Key {
    /// Computes the public key. Any 32 random bytes are a secret.
    pub fn new(secret: Secret) -> Self {
        let private = PrivateKey::new(secret.expose());
        X25519Key { public: private.public(), private, secret }
    }

    /// The half that may be seen.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// The half that may not: for whoever stores the key in a vault.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// What both ends compute.
    pub(crate) fn agree(&self, public: &[u8; 32]) -> Result<Zeroizing<[u8; 32]>, LowOrderKey> {
        self.private.agree(public)
    }
}

impl fmt::Debug for X25519Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The public key is one of those that make the shared secret zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LowOrderKey;

#[cfg(test)]
mod tests;
