//! The notice that a message could not be delivered: an extension between our own nodes that real ones ignore
//! (`docs/wire-extensions.md`, Undeliverable).
//!
//! Offer and notice are the same text, 59 bytes, in the tracing field, so a notice is never longer than its request:
//!
//! ```text
//!   {"undeliverable":"00112233445566778899aabbccddeeff 00 000"}     the offer, in a request
//!   {"undeliverable":"00112233445566778899aabbccddeeff 07 002"}     a notice: reason 7, two addresses left
//!                     token                            reason left
//! ```

/// Bytes of an offer and of a notice.
pub const TEXT_LEN: usize = OPEN.len() + 2 * TOKEN_LEN + " 00 000".len() + CLOSE.len();

const TOKEN_LEN: usize = 16;
const OPEN: &[u8] = b"{\"undeliverable\":\"";
const CLOSE: &[u8] = b"\"}";

/// A request's wish to hear of its own failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Offer {
    /// Random; what tells a notice about this request from one that a stranger made up.
    pub token: [u8; 16],
}

impl Offer {
    /// The tracing text of the request.
    pub fn text(&self) -> String {
        to_string(write(self.token, 0, 0))
    }

    /// Reads a tracing text; `None` for any other text, a notice included.
    pub fn parse(tracing: &str) -> Option<Offer> {
        match parse(tracing)? {
            (token, 0, 0) => Some(Offer { token }),
            _ => None,
        }
    }
}

/// What became of a request that carried an [`Offer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Notice {
    /// The token of the offer.
    pub token: [u8; 16],
    /// Why, 0 to 99: the numbers of the engine's drop reasons; 0 means that the reason is not for this peer to know.
    pub reason: u8,
    /// How many addresses of the onward route were left, from 1: the failing one is among them.
    pub left: u8,
}

impl Notice {
    /// The tracing text of the notice, in ASCII. A reason above 99 is written as 0 and 0 left as 1: whatever its fields,
    /// what is written is a notice and can never be taken for an offer.
    pub fn write(&self) -> [u8; TEXT_LEN] {
        let reason = if self.reason > 99 { 0 } else { self.reason };
        write(self.token, reason, self.left.max(1))
    }

    /// The same, as text.
    pub fn text(&self) -> String {
        to_string(self.write())
    }

    /// Reads a tracing text; `None` for any other text, an offer included.
    pub fn parse(tracing: &str) -> Option<Notice> {
        match parse(tracing)? {
            (_, _, 0) => None,
            (token, reason, left) => Some(Notice { token, reason, left }),
        }
    }
}

fn to_string(text: [u8; TEXT_LEN]) -> String {
    text.map(char::from).iter().collect()
}

fn write(token: [u8; TOKEN_LEN], reason: u8, left: u8) -> [u8; TEXT_LEN] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b' '; TEXT_LEN];
    let (open, rest) = text.split_at_mut(OPEN.len());
    open.copy_from_slice(OPEN);
    let (hex, rest) = rest.split_at_mut(2 * TOKEN_LEN);
    for (digits, byte) in hex.chunks_exact_mut(2).zip(token) {
        digits.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
    let digit = |number: u8| b'0' + number % 10;
    rest[1..3].copy_from_slice(&[digit(reason / 10), digit(reason)]);
    rest[4..7].copy_from_slice(&[digit(left / 100), digit(left / 10), digit(left)]);
    rest[7..].copy_from_slice(CLOSE);
    text
}

/// Only the exact form: nobody else's tracing text is taken for one of ours.
fn parse(tracing: &str) -> Option<([u8; TOKEN_LEN], u8, u8)> {
    let text: &[u8; TEXT_LEN] = tracing.as_bytes().try_into().ok()?;
    let inner = text.strip_prefix(OPEN)?.strip_suffix(CLOSE)?;
    let (hex, numbers) = inner.split_at(2 * TOKEN_LEN);
    let mut token = [0; TOKEN_LEN];
    for (byte, digits) in token.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = lower_hex(digits[0])? << 4 | lower_hex(digits[1])?;
    }
    let [b' ', r1, r0, b' ', l2, l1, l0] = numbers else { return None };
    Some((token, number(&[*r1, *r0])?, number(&[*l2, *l1, *l0])?))
}

fn lower_hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

fn number(digits: &[u8]) -> Option<u8> {
    digits.iter().try_fold(0_u8, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| digit - b'0')?;
        value.checked_mul(10)?.checked_add(digit)
    })
}
