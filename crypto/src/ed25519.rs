//! Ed25519 signatures (RFC 8032), verified strictly: neither keys nor nonces of low order, one encoding of each key and
//! each signature, and the equation itself, not a multiple of it.
//!
//! Two backends have the same function, `verifies`, as the AEAD and X25519 have theirs. What is strict beyond the
//! equation is said here, in terms of bytes, for both. Builds for tests hold both, and each is the other's oracle.

#[cfg(any(test, feature = "aws-lc"))]
mod aws_lc;
#[cfg(any(test, not(feature = "aws-lc")))]
mod portable;

#[cfg(feature = "aws-lc")]
use aws_lc as backend;
#[cfg(not(feature = "aws-lc"))]
use portable as backend;

/// The `y` of the eight points of low order, least byte first.
const LOW_ORDER: [[u8; 32]; 5] = [
    number(0, 0, 0),
    number(1, 0, 0),
    // Below zero by one: 2^255 - 20.
    number(0xec, 0xff, 0x7f),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
        0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
        0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
];

/// 2^255 - 19: an encoding whose `y` is not below it is another one of a smaller `y`.
const MODULUS: [u8; 32] = number(0xed, 0xff, 0x7f);

const fn number(least: u8, between: u8, most: u8) -> [u8; 32] {
    let mut bytes = [between; 32];
    (bytes[0], bytes[31]) = (least, most);
    bytes
}

/// Whether `signature` is one of `message` by `key`.
pub(crate) fn verifies(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    let (nonce, _) = signature.split_first_chunk().expect("a signature is two times 32 bytes");
    is_strict(key) && is_strict(nonce) && backend::verifies(key, message, signature)
}

/// Whether a point is neither of low order nor written in another way than the usual. Whether it is on the curve is not
/// asked.
fn is_strict(point: &[u8; 32]) -> bool {
    let mut y = *point;
    // The sign of `x`: of each low order `y` both points are of low order, or there is one only.
    y[31] &= 0x7f;
    !LOW_ORDER.contains(&y) && y.iter().rev().lt(MODULUS.iter().rev())
}

#[cfg(test)]
mod tests;
