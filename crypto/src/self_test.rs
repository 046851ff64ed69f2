//! A known answer, asked of the backend that is in use on the machine that it runs on.

use crate::aead::{self, Key, TAG_LEN};

/// The cipher computes wrong results on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("AES-256-GCM of {} gives wrong results on this machine", aead::backend())]
pub struct SelfTestFailed;

/// Key, nonce and text are patterns; long enough that the widest vector code runs, and odd, so that its ends do too.
const TEXT_LEN: usize = 1037;
const NUMBER: u64 = 0x0102_0304_0506_0708;
const TAG: [u8; TAG_LEN] =
    [0x7a, 0x75, 0x8f, 0xc0, 0x11, 0xb4, 0x3b, 0x96, 0x92, 0x8f, 0xd6, 0xc8, 0x8c, 0x17, 0x37, 0x84];

/// Seals and opens a text with a known tag, and checks that a wrong tag is refused and leaves nothing behind. Takes
/// microseconds; the engine runs it before its first channel.
///
/// # Errors
/// [`SelfTestFailed`]: nothing must be sealed or opened then.
pub fn self_test() -> Result<(), SelfTestFailed> {
    let key = Key::new(&std::array::from_fn(|index| index as u8));
    let nonce = aead::nonce(NUMBER);
    let text: Vec<u8> = (0..TEXT_LEN).map(|index| index as u8).collect();

    let mut sealed = text.clone();
    let tag = key.seal(&nonce, b"ockam", &mut sealed);
    let mut opened = sealed.clone();
    let genuine = key.open(&nonce, b"ockam", &mut opened, &TAG);
    let mut garbled = sealed;
    let refused = key.open(&nonce, b"ockam", &mut garbled, &TAG.map(|byte| byte ^ 1));
    let wiped = garbled.iter().all(|byte| *byte == 0);
    let right = tag == TAG && genuine.is_ok() && opened == text && refused.is_err() && wiped;
    right.then_some(()).ok_or(SelfTestFailed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backend_in_use_passes() {
        assert_eq!(self_test(), Ok(()));
    }
}
