//! AES-256-GCM by AWS-LC: the fastest where VAES or AVX-512 exist.

use super::{BadTag, Nonce, Tag};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce as LibraryNonce, UnboundKey};

/// An expanded key. AWS-LC wipes its memory when it frees it.
pub(crate) struct Key(LessSafeKey);

impl Key {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Key(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("32 bytes are a key of AES-256")))
    }

    /// Encrypts `text` in place and gives its tag.
    #[inline]
    pub(crate) fn seal(&self, nonce: &Nonce, associated: &[u8], text: &mut [u8]) -> Tag {
        let nonce = LibraryNonce::assume_unique_for_key(*nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(associated), text);
        let tag = tag.expect("a text in memory is below the 64 GiB of AES-GCM");
        tag.as_ref().try_into().expect("a tag of AES-GCM has 16 bytes")
    }

    /// Decrypts `text` in place, if `tag` is right; else fills it with zeros.
    #[inline]
    pub(crate) fn open(&self, nonce: &Nonce, associated: &[u8], text: &mut [u8], tag: &Tag) -> Result<(), BadTag> {
        let nonce = LibraryNonce::assume_unique_for_key(*nonce);
        match self.0.open_in_place_separate_tag(nonce, Aad::from(associated), tag, text) {
            Ok(_) => Ok(()),
            // The library decrypts while it computes the tag. It wipes what it wrote today, but does not promise it.
            Err(_) => {
                text.fill(0);
                Err(BadTag)
            }
        }
    }
}
