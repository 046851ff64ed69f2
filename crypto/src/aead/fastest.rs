//! AES-256-GCM by whichever of two libraries is faster on the processor that it runs on (decision 18).

use super::{BadTag, Nonce, Tag, aws_lc, ring};

/// An expanded key.
pub(crate) enum Key {
    AwsLc(aws_lc::Key),
    Ring(ring::Key),
}

impl Key {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        if ring_is_faster() { Key::Ring(ring::Key::new(key)) } else { Key::AwsLc(aws_lc::Key::new(key)) }
    }

    /// Encrypts `text` in place and gives its tag.
    #[inline]
    pub(crate) fn seal(&self, nonce: &Nonce, associated: &[u8], text: &mut [u8]) -> Tag {
        match self {
            Key::AwsLc(key) => key.seal(nonce, associated, text),
            Key::Ring(key) => key.seal(nonce, associated, text),
        }
    }

    /// Decrypts `text` in place, if `tag` is right; else fills it with zeros.
    #[inline]
    pub(crate) fn open(&self, nonce: &Nonce, associated: &[u8], text: &mut [u8], tag: &Tag) -> Result<(), BadTag> {
        match self {
            Key::AwsLc(key) => key.open(nonce, associated, text, tag),
            Key::Ring(key) => key.open(nonce, associated, text, tag),
        }
    }
}

/// Whether this processor computes two blocks of AES at once, but not four: AWS-LC then computes one.
fn ring_is_faster() -> bool {
    let has_pairs =
        is_x86_feature_detected!("vaes") && is_x86_feature_detected!("vpclmulqdq") && is_x86_feature_detected!("avx2");
    let has_quads = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    has_pairs && !has_quads
}

/// See [`super::backend`].
pub(super) fn name() -> &'static str {
    if ring_is_faster() { "ring" } else { "aws-lc" }
}
