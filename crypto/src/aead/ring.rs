//! AES-256-GCM by ring: the fastest where VAES comes without AVX-512, since AWS-LC has no code for that.

use super::{BadTag, Nonce, Tag};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce as LibraryNonce, UnboundKey};
use std::hint::black_box;
use std::sync::LazyLock;
use zeroize::zeroize_stack;

/// Stack that an expanded key may pass through before it lies where it stays. What is not optimised moves it more often.
const STACK_BYTES: usize = if cfg!(debug_assertions) { 16384 } else { 4096 };

/// What is written over a key that is no longer used: the library does not wipe keys.
static BLANK: LazyLock<Box<LessSafeKey>> = LazyLock::new(|| expand(&[0; 32]));

/// An expanded key. Boxed, so that moving it leaves no copy behind, and wiped when it is dropped.
pub(crate) struct Key(Box<LessSafeKey>);

#[inline(never)]
fn expand(key: &[u8; 32]) -> Box<LessSafeKey> {
    Box::new(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("32 bytes are a key of AES-256")))
}

impl Key {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let key = Key(expand(key));
        zeroize_stack::<STACK_BYTES>();
        key
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
        match self.0.open_in_place_separate_tag(nonce, Aad::from(associated), (*tag).into(), text, 0..) {
            Ok(_) => Ok(()),
            // The library decrypts while it computes the tag, and does not promise to wipe what it wrote.
            Err(_) => {
                text.fill(0);
                Err(BadTag)
            }
        }
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.clone_from(&BLANK);
        // Seen by something that the compiler does not know, it has to be written before it is freed.
        black_box(&*self.0);
    }
}
