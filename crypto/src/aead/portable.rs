//! AES-256-GCM in Rust: for machines where AWS-LC cannot be built, and the oracle of the other backend.

use super::{BadTag, Nonce, Tag};
use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};

/// An expanded key, wiped when it is dropped. Boxed, so that moving it leaves no copy behind.
pub(crate) struct Key(Box<Aes256Gcm>);

impl Key {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Key(Box::new(Aes256Gcm::new(key.into())))
    }

    /// Encrypts `text` in place and gives its tag.
    #[inline]
    pub(crate) fn seal(&self, nonce: &Nonce, associated: &[u8], text: &mut [u8]) -> Tag {
        let tag = self.0.encrypt_inout_detached(nonce.into(), associated, text.into());
        tag.expect("a text in memory is below the 64 GiB of AES-GCM").into()
    }

    /// Decrypts `text` in place, if `tag` is right; else fills it with zeros.
    #[inline]
    pub(crate) fn open(&self, nonce: &Nonce, associated: &[u8], text: &mut [u8], tag: &Tag) -> Result<(), BadTag> {
        self.0.decrypt_inout_detached(nonce.into(), associated, (&mut *text).into(), tag.into()).map_err(|_| {
            text.fill(0);
            BadTag
        })
    }
}
