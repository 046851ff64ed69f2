//! Ed25519 in Rust: for machines where AWS-LC cannot be built, and the oracle of the other backend.

use ed25519_dalek::{Signature, VerifyingKey};

/// Takes keys in unusual encodings: the caller refuses them.
pub(super) fn verifies(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    let key = VerifyingKey::from_bytes(key);
    key.is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
}
