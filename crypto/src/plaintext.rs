//! What a record of a channel says (`wire.md` E.5):
//!
//! ```text
//!   82            message and padding
//!   82 00 81      message 0, with one field          82 01 81: new credentials      82 02 80: close
//!   83            onward | return | payload          the same as the body of a frame
//!   40            no padding
//! ```
//!
//! The inner message has the form of a transport message, and the four bytes in front of it take the place of that
//! one's length, so both are read and written by the same code. Like a frame's, its payload stays where it is.

use ockam_wire::{Malformed, Measured, Message, Outgoing};

/// The whole text that ends a channel.
pub const CLOSE: [u8; 5] = [0x82, 0x82, 0x02, 0x80, NO_PADDING];

/// What a text with a message begins with, instead of the length that a frame begins with.
pub const PAYLOAD_HEAD: [u8; 4] = [0x82, 0x82, 0x00, 0x81];
/// What a text ends with: no padding.
pub const NO_PADDING: u8 = 0x40;

/// A text that was opened, and is still where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plaintext<'a> {
    /// A message for somebody behind this end. A tracing text is what stands behind the payload inside the message.
    Payload(Message<'a>),
    /// New credentials of the peer. Control reads them.
    RefreshCredentials,
    /// The peer ends the channel.
    Close,
}

impl<'a> Plaintext<'a> {
    /// Reads a text. Allocates nothing. Accepts what real decoders accept (`wire.md` 0.1); padding, of whatever length,
    /// is not read at all.
    ///
    /// # Errors
    /// [`MalformedPlaintext`]. The record was genuine, so the peer itself is at fault; the text is dropped.
    pub fn parse(text: &'a [u8]) -> Result<Self, MalformedPlaintext> {
        match PlaintextKind::of(text)? {
            PlaintextKind::Payload { at } => Ok(Plaintext::Payload(Message::parse(&text[at..])?)),
            PlaintextKind::RefreshCredentials => Ok(Plaintext::RefreshCredentials),
            PlaintextKind::Close => Ok(Plaintext::Close),
        }
    }
}

/// What kind of text it is: as far as a look at its first bytes tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaintextKind {
    /// As [`Plaintext::Payload`].
    Payload {
        /// Where in the text the message inside begins. Whether it is one, [`Message::parse`] says.
        at: usize,
    },
    /// As [`Plaintext::RefreshCredentials`].
    RefreshCredentials,
    /// As [`Plaintext::Close`].
    Close,
}

impl PlaintextKind {
    /// Looks at a text.
    ///
    /// # Errors
    /// [`MalformedPlaintext`].
    pub fn of(text: &[u8]) -> Result<Self, MalformedPlaintext> {
        if text.starts_with(&PAYLOAD_HEAD) {
            return Ok(PlaintextKind::Payload { at: PAYLOAD_HEAD.len() });
        }
        let (outer, rest) = array(text)?;
        let (message, rest) = array(rest)?;
        let (variant, rest) = head(rest, 0)?;
        let (fields, rest) = array(rest)?;
        if outer.is_some_and(|count| count < 2) || message != Some(2) {
            return Err(MalformedPlaintext::WrongForm);
        }
        let has_a_field = fields != Some(0);
        match variant {
            Some(0) if has_a_field => Ok(PlaintextKind::Payload { at: text.len() - rest.len() }),
            Some(1) if has_a_field => Ok(PlaintextKind::RefreshCredentials),
            Some(2) => Ok(PlaintextKind::Close),
            Some(0 | 1) => Err(MalformedPlaintext::WrongForm),
            _ => Err(MalformedPlaintext::UnknownMessage),
        }
    }
}

/// Why a text is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum MalformedPlaintext {
    /// Cut off, or not the arrays that belong there.
    #[error("the text is not a message of a secure channel")]
    WrongForm,
    /// A message of a kind that does not exist.
    #[error("the text is a message of an unknown kind")]
    UnknownMessage,
    /// The message inside is none.
    #[error(transparent)]
    Message(#[from] Malformed),
}

fn array(bytes: &[u8]) -> Result<(Option<u64>, &[u8]), MalformedPlaintext> {
    head(bytes, 4)
}

/// The number in a CBOR head of type `major`, `None` when it is indefinite, and what follows.
fn head(bytes: &[u8], major: u8) -> Result<(Option<u64>, &[u8]), MalformedPlaintext> {
    let (first, rest) = bytes.split_first().ok_or(MalformedPlaintext::WrongForm)?;
    let width = match first & 0x1f {
        _ if first >> 5 != major => return Err(MalformedPlaintext::WrongForm),
        value @ 0..24 => return Ok((Some(u64::from(value)), rest)),
        width @ 24..28 => 1 << (width - 24),
        31 if major == 4 => return Ok((None, rest)),
        _ => return Err(MalformedPlaintext::WrongForm),
    };
    let (number, rest) = rest.split_at_checked(width).ok_or(MalformedPlaintext::WrongForm)?;
    Ok((Some(number.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))), rest))
}

/// A message to be sealed, except for its payload, which stays where it is:
///
/// ```text
///   | 82 82 00 81 | 83 or 84 | onward | return | payload head |  payload  | tracing | 40 |
///   |<----------------------- prefix ------------------------>|           |<-- suffix -->|
/// ```
///
/// A tracing text makes the message inside one element longer, which real peers skip.
#[derive(Clone, Copy, Debug)]
pub struct OutgoingPlaintext<'a>(pub Measured<'a>);

impl<'a> OutgoingPlaintext<'a> {
    /// The text of a message that was not measured yet.
    pub fn new(message: Outgoing<'a>) -> Self {
        OutgoingPlaintext(message.measure())
    }

    /// Bytes in front of the payload.
    pub fn prefix_len(&self) -> usize {
        self.0.prefix_len()
    }

    /// Bytes behind the payload.
    pub fn suffix_len(&self) -> usize {
        self.0.suffix_len() + 1
    }

    /// Bytes of the whole text.
    pub fn text_len(&self) -> usize {
        self.prefix_len() + self.0.payload_len() + self.suffix_len()
    }

    /// Writes what stands in front of the payload.
    ///
    /// # Panics
    /// When `out` is not [`OutgoingPlaintext::prefix_len`] bytes long, or the message is too long for a frame.
    pub fn write_prefix(&self, out: &mut [u8]) {
        self.0.write_prefix(out);
        out[..PAYLOAD_HEAD.len()].copy_from_slice(&PAYLOAD_HEAD);
    }

    /// Writes what stands behind the payload.
    ///
    /// # Panics
    /// When `out` is not [`OutgoingPlaintext::suffix_len`] bytes long.
    pub fn write_suffix(&self, out: &mut [u8]) {
        let (padding, tracing) = out.split_last_mut().expect("room for the padding");
        self.0.write_suffix(tracing);
        *padding = NO_PADDING;
    }

    /// The whole text, for those who have no buffer of their own.
    ///
    /// # Panics
    /// When `payload` is not as long as the message says, or the message is too long for a frame.
    pub fn to_text(&self, payload: &[u8]) -> Vec<u8> {
        let prefix_len = self.prefix_len();
        let mut text = vec![0; self.text_len()];
        self.write_prefix(&mut text[..prefix_len]);
        text[prefix_len..][..self.0.payload_len()].copy_from_slice(payload);
        self.write_suffix(&mut text[prefix_len + payload.len()..]);
        text
    }
}

#[cfg(test)]
mod tests;
