//! Session keys on their way from control to the engine.

use crate::record::{DecodeError, Field};
use std::fmt;
use zeroize::Zeroizing;

/// A key of 32 bytes. It is wiped when it is dropped, lies on the heap so that moving a record leaves no copy behind, and
/// prints as `[redacted]`. The record that carries it is wiped by
/// whoever made or received it.
#[derive(PartialEq, Eq)]
pub struct Key(Box<Zeroizing<[u8; 32]>>);

impl Key {
    /// A copy of `bytes`.
    pub fn new(bytes: &[u8; 32]) -> Self {
        let mut key = Box::new(Zeroizing::new([0; 32]));
        key.copy_from_slice(bytes);
        Key(key)
    }

    /// The bytes.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Field for Key {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.expose());
    }
    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        let (key, rest) = input.split_first_chunk().ok_or(DecodeError::Truncated)?;
        *input = rest;
        Ok(Key::new(key))
    }
}
