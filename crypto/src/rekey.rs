//! Which key a nonce has (`wire.md` E.6): a new one every 32 messages, derived from the one before.
//!
//! ```text
//!   nonce   0 .. 31 | 32 .. 63  | 64 .. 95    | ...
//!   block   0       | 1         | 2           |
//!   key     k       | Rekey(k)  | Rekey^2(k)  |
//! ```

use crate::aead::{self, Key};
use zeroize::Zeroizing;

/// Messages that one key seals.
pub const REKEY_INTERVAL: u64 = 32;

/// The nonce of `Rekey`, which therefore no message has.
pub(crate) const REKEY_NONCE: u64 = u64::MAX;

/// Which key a nonce has, counted from the one that the handshake gave.
pub(crate) const fn block(nonce: u64) -> u64 {
    nonce / REKEY_INTERVAL
}

/// The key of the block behind: `Rekey(k)` is what 32 zero bytes encrypt to under `k` and the reserved nonce. The tag
/// is not used, and the expanded `k` is enough, so no raw key is kept.
pub(crate) fn next(key: &Key) -> Key {
    let mut bytes = Zeroizing::new([0; 32]);
    key.seal(&aead::nonce(REKEY_NONCE), &[], bytes.as_mut_slice());
    Key::new(&bytes)
}
