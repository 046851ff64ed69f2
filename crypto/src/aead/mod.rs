//! AES-256-GCM in place, with a 96-bit nonce and a tag beside the text.
//!
//! Backends have the same two names, `Key::seal` and `Key::open`. Builds for tests hold all of them, and each is the
//! others' oracle. Nothing here knows about counters: whoever calls `seal` guarantees that a nonce never repeats.

#[cfg(any(test, feature = "aws-lc"))]
mod aws_lc;
#[cfg(all(feature = "aws-lc", target_arch = "x86_64"))]
mod fastest;
#[cfg(any(test, all(feature = "portable", not(feature = "aws-lc"))))]
mod portable;
#[cfg(any(test, all(feature = "aws-lc", target_arch = "x86_64")))]
mod ring;

#[cfg(all(feature = "aws-lc", not(target_arch = "x86_64")))]
pub(crate) use aws_lc::Key;
#[cfg(all(feature = "aws-lc", target_arch = "x86_64"))]
pub(crate) use fastest::Key;
#[cfg(all(feature = "portable", not(feature = "aws-lc")))]
pub(crate) use portable::Key;

#[cfg(not(any(feature = "aws-lc", feature = "portable")))]
compile_error!("ockam-crypto needs a backend: enable the feature `aws-lc` or `portable`");

use std::fmt;

/// Bytes of an authentication tag.
pub const TAG_LEN: usize = 16;

pub(crate) type Nonce = [u8; 12];
pub(crate) type Tag = [u8; TAG_LEN];

/// The text is not what was sealed with this key, nonce and associated data. The buffer holds zeros now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadTag;

/// The nonce of message `number`: four zero bytes, then the number, big-endian (`wire.md` E.1, E.5).
pub(crate) fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    nonce
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Which implementation seals and opens on this machine: `aws-lc`, `ring` or `portable`.
pub fn backend() -> &'static str {
    #[cfg(all(feature = "aws-lc", target_arch = "x86_64"))]
    return fastest::name();
    #[cfg(all(feature = "aws-lc", not(target_arch = "x86_64")))]
    return "aws-lc";
    #[cfg(not(feature = "aws-lc"))]
    return "portable";
}

/// The instructions for AES-GCM that this machine has, by the names of the compiler's target features. Backends
/// choose by them when they run; a machine without the first two computes AES in software, many times slower.
pub fn cpu_features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    let known = [
        ("aes", std::arch::is_x86_feature_detected!("aes")),
        ("pclmulqdq", std::arch::is_x86_feature_detected!("pclmulqdq")),
        ("avx", std::arch::is_x86_feature_detected!("avx")),
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        ("vaes", std::arch::is_x86_feature_detected!("vaes")),
        ("vpclmulqdq", std::arch::is_x86_feature_detected!("vpclmulqdq")),
    ];
    #[cfg(target_arch = "aarch64")]
    let known = [
        ("aes", std::arch::is_aarch64_feature_detected!("aes")),
        ("pmull", std::arch::is_aarch64_feature_detected!("pmull")),
        ("sha3", std::arch::is_aarch64_feature_detected!("sha3")),
    ];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let known: [(&'static str, bool); 0] = [];
    known.into_iter().filter_map(|(name, present)| present.then_some(name)).collect()
}

#[cfg(test)]
mod tests;
