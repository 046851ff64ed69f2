//! Thirty-two bytes that nobody may see.

use std::fmt;
use zeroize::{Zeroize, Zeroizing};

/// A secret of 32 bytes: a session key, an X25519 secret, an Ed25519 seed.
///
/// It is wiped when it is dropped, prints as `[redacted]`, and can be neither cloned nor compared. The bytes live on
/// the heap so that moving the value leaves no copy behind.
///
/// ```compile_fail
/// let secret = ockam_crypto::Secret::new([7; 32]);
/// let copy = secret.clone();
/// ```
pub struct Secret(Box<Zeroizing<[u8; 32]>>);

impl Secret {
    /// Takes the bytes. The caller's own copy is the caller's to wipe; [`Secret::take`] does that.
    pub fn new(mut bytes: [u8; 32]) -> Self {
        Secret::take(&mut bytes)
    }

    /// Moves the bytes out of `source` and wipes it.
    pub fn take(source: &mut [u8; 32]) -> Self {
        let secret = Secret::copy_of(source);
        source.zeroize();
        secret
    }

    /// Copies the bytes to where they stay, without another copy on the way. `source` is its owner's to wipe.
    pub fn copy_of(source: &[u8; 32]) -> Self {
        let mut bytes = Box::new(Zeroizing::new([0; 32]));
        bytes.copy_from_slice(source);
        Secret(bytes)
    }

    /// The bytes, for whoever must write them down: into a vault, or into the command that installs a channel.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taking_wipes_the_source() {
        let mut source = [7; 32];
        let secret = Secret::take(&mut source);
        assert_eq!(source, [0; 32]);
        assert_eq!(secret.expose(), &[7; 32]);
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::new([0x41; 32])), "[redacted]");
    }
}
