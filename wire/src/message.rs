//! The transport message: two routes, a payload and a tracing text (`wire.md` A.3).

use crate::cbor::{self, Number, Reader, Writer};
use crate::frame::FRAME_MAX;
use crate::malformed::Malformed;
use crate::route::{Route, RouteParts};
use std::ops::Range;

/// A received message. Everything in it is borrowed from the frame's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Where the message goes. Empty in a heartbeat (`wire.md` A.6).
    pub onward: Route<'a>,
    /// Where an answer goes.
    pub return_route: Route<'a>,
    /// What the last address of the onward route is to read.
    pub payload: &'a [u8],
    /// The tracing text, without interpretation.
    pub tracing: Option<&'a str>,
}

impl<'a> Message<'a> {
    /// Reads the body of a frame, without its four bytes of length. Allocates nothing.
    ///
    /// Accepts what real decoders accept (`wire.md` 0.1): heads longer than needed, arrays of indefinite length, bytes
    /// behind the message. What follows the tracing text inside the outer array is not read at all: it is cut off when
    /// the message is forwarded. A route has at most 255 addresses here, and an address exactly two elements.
    ///
    /// # Errors
    /// What is wrong with the first thing that is wrong; the connection is closed then (`wire.md` A.6).
    #[inline]
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut input = Reader { rest: body };
        let count = input.head(cbor::ARRAY, Malformed::NotAnArray)?;
        if let Number::Definite(0..3) = count {
            return Err(Malformed::TooFewElements);
        }
        let onward = Route::decode(&mut input)?;
        let return_route = Route::decode(&mut input)?;
        let payload = input.string(cbor::BYTES, Malformed::PayloadNotBytes)?;
        let tracing = match count {
            Number::Definite(3) => None,
            Number::Definite(_) => decode_tracing(&mut input)?,
            Number::Indefinite if input.peek()? == cbor::BREAK => None,
            Number::Indefinite => decode_tracing(&mut input)?,
        };
        Ok(Message { onward, return_route, payload, tracing })
    }
}

fn decode_tracing<'a>(input: &mut Reader<'a>) -> Result<Option<&'a str>, Malformed> {
    if input.peek()? == cbor::NULL {
        return Ok(None);
    }
    let text = input.string(cbor::TEXT, Malformed::TracingNotText)?;
    std::str::from_utf8(text).map(Some).map_err(|_| Malformed::TracingNotText)
}

/// A message to be sent, except for its payload, which stays where it is:
///
/// ```text
///   | u32 length | 83 or 84 | onward | return | payload head |  payload  | tracing |
///   |<------------------- prefix ------------------------->|             |< suffix >|
///   |<-------------------------------- frame ------------------------------------->|
///                |<----------------------------- body ---------------------------->|
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Where the message goes.
    pub onward: RouteParts<'a>,
    /// Where an answer goes.
    pub return_route: RouteParts<'a>,
    /// Bytes of the payload.
    pub payload_len: usize,
    /// The tracing text; the message has three elements without it.
    pub tracing: Option<&'a str>,
}

impl<'a> Outgoing<'a> {
    /// Computes the lengths, once for all that needs them.
    #[inline]
    pub fn measure(self) -> Measured<'a> {
        let routes = self.onward.encoded_len() + self.return_route.encoded_len();
        let prefix = 4 + 1 + routes + cbor::head_len(self.payload_len);
        let suffix = self.tracing.map_or(0, |text| cbor::head_len(text.len()) + text.len());
        Measured { head: Head::Routes(self), payload_len: self.payload_len, prefix, suffix }
    }

    /// As [`Measured::prefix_len`].
    pub fn prefix_len(&self) -> usize {
        self.measure().prefix_len()
    }

    /// As [`Measured::suffix_len`].
    pub fn suffix_len(&self) -> usize {
        self.measure().suffix_len()
    }

    /// As [`Measured::frame_len`].
    pub fn frame_len(&self) -> usize {
        self.measure().frame_len()
    }

    /// As [`Measured::body_len`].
    pub fn body_len(&self) -> usize {
        self.measure().body_len()
    }

    /// As [`Measured::write_prefix`].
    ///
    /// # Panics
    /// As there.
    pub fn write_prefix(&self, out: &mut [u8]) {
        self.measure().write_prefix(out);
    }

    /// As [`Measured::write_suffix`].
    ///
    /// # Panics
    /// As there.
    pub fn write_suffix(&self, out: &mut [u8]) {
        self.measure().write_suffix(out);
    }

    /// The whole frame, for those who have no buffer of their own.
    ///
    /// # Panics
    /// When `payload` is not `payload_len` bytes long, or [`Outgoing::body_len`] is above [`FRAME_MAX`].
    pub fn to_frame(&self, payload: &[u8]) -> Vec<u8> {
        let prefix_len = self.prefix_len();
        let mut frame = vec![0; self.frame_len()];
        self.write_prefix(&mut frame[..prefix_len]);
        frame[prefix_len..prefix_len + self.payload_len].copy_from_slice(payload);
        self.write_suffix(&mut frame[prefix_len + self.payload_len..]);
        frame
    }
}

/// A message to be written, and how long its parts are.
#[derive(Clone, Copy, Debug)]
pub struct Measured<'a> {
    head: Head<'a>,
    payload_len: usize,
    prefix: usize,
    suffix: usize,
}

/// Where the head of a message comes from.
#[derive(Clone, Copy, Debug)]
enum Head<'a> {
    Routes(Outgoing<'a>),
    Fixed(&'a FixedHead),
}

impl Measured<'_> {
    /// Bytes in front of the payload, the frame's length included.
    pub fn prefix_len(&self) -> usize {
        self.prefix
    }

    /// Bytes behind the payload: the tracing text, or none.
    pub fn suffix_len(&self) -> usize {
        self.suffix
    }

    /// Bytes of the payload.
    pub fn payload_len(&self) -> usize {
        self.payload_len
    }

    /// Bytes of the whole frame.
    pub fn frame_len(&self) -> usize {
        self.prefix + self.payload_len + self.suffix
    }

    /// What the frame's length says: all but itself. Compare it with [`FRAME_MAX`] before writing.
    pub fn body_len(&self) -> usize {
        self.frame_len() - 4
    }

    /// Writes what is in front of the payload.
    ///
    /// # Panics
    /// When `out` is not [`Self::prefix_len`] bytes long, or [`Self::body_len`] is above [`FRAME_MAX`].
    pub fn write_prefix(&self, out: &mut [u8]) {
        let body_len = self.body_len();
        assert!(body_len <= FRAME_MAX, "a message of {body_len} bytes does not fit a frame");
        let mut out = Writer::new(out);
        out.bytes(&(body_len as u32).to_be_bytes());
        match &self.head {
            Head::Routes(outgoing) => {
                out.head(cbor::ARRAY, if outgoing.tracing.is_some() { 4 } else { 3 });
                outgoing.onward.encode(&mut out);
                outgoing.return_route.encode(&mut out);
            }
            Head::Fixed(head) => out.bytes(&head.encoded),
        }
        out.head(cbor::BYTES, self.payload_len);
        out.finish();
    }

    /// Writes what is behind the payload.
    ///
    /// # Panics
    /// When `out` is not [`Self::suffix_len`] bytes long.
    pub fn write_suffix(&self, out: &mut [u8]) {
        let mut out = Writer::new(out);
        if let Head::Routes(Outgoing { tracing: Some(text), .. }) = self.head {
            out.head(cbor::TEXT, text.len());
            out.bytes(text.as_bytes());
        }
        out.finish();
    }
}

/// The head of messages that all take the same way, have the same return route and no tracing text, encoded once: records
/// of a secure channel (`wire.md` E.5), messages of a portal (F.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FixedHead {
    /// `83 | onward | return`
    encoded: Box<[u8]>,
}

impl FixedHead {
    /// The head of messages to `onward` that are answered along `return_route`.
    pub fn new(onward: RouteParts<'_>, return_route: RouteParts<'_>) -> Self {
        let mut encoded = vec![0; 1 + onward.encoded_len() + return_route.encoded_len()];
        let mut out = Writer::new(&mut encoded);
        out.head(cbor::ARRAY, 3);
        onward.encode(&mut out);
        return_route.encode(&mut out);
        out.finish();
        FixedHead { encoded: encoded.into() }
    }

    /// Where in the body of a message its payload is, if it has this head, to the last byte.
    #[inline]
    pub fn payload_in(&self, body: &[u8]) -> Option<Range<usize>> {
        let rest = body.strip_prefix(&*self.encoded)?;
        let mut input = Reader { rest };
        let payload = input.string(cbor::BYTES, Malformed::PayloadNotBytes).ok()?;
        let end = body.len() - input.rest.len();
        Some(end - payload.len()..end)
    }

    /// Where the messages go.
    pub fn onward(&self) -> Route<'_> {
        Route::decode(&mut Reader { rest: &self.encoded[1..] }).expect("it was encoded here")
    }

    /// A message with this head, around a payload of `payload_len` bytes.
    #[inline]
    pub fn measure(&self, payload_len: usize) -> Measured<'_> {
        Measured { head: Head::Fixed(self), payload_len, prefix: self.prefix_len(payload_len), suffix: 0 }
    }

    /// Bytes in front of a payload of `payload_len` bytes, the frame's length included.
    #[inline]
    pub fn prefix_len(&self, payload_len: usize) -> usize {
        4 + self.encoded.len() + cbor::head_len(payload_len)
    }

    /// Writes what is in front of a payload of `payload_len` bytes; behind it there is nothing.
    ///
    /// # Panics
    /// When `out` is not [`Self::prefix_len`] bytes long, or the frame would be above [`FRAME_MAX`].
    pub fn write_prefix(&self, payload_len: usize, out: &mut [u8]) {
        self.measure(payload_len).write_prefix(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::AddressRef;

    #[test]
    fn a_fixed_head_writes_what_the_ordinary_way_writes() {
        let addresses = [AddressRef::local(b"hop"), AddressRef::local(&[b'2'; 32])];
        for (count, back) in [(0, 0), (1, 0), (2, 0), (2, 1), (1, 2)] {
            let (onward, return_route) = (RouteParts::new(&addresses[..count]), RouteParts::new(&addresses[..back]));
            let head = FixedHead::new(onward, return_route);
            assert!(head.onward().iter().eq(onward.iter()));
            for payload_len in [0, 23, 24, 300, 70_000] {
                let outgoing = Outgoing { onward, return_route, payload_len, tracing: None };
                let mut prefix = vec![0; head.prefix_len(payload_len)];
                head.write_prefix(payload_len, &mut prefix);
                assert_eq!(prefix, outgoing.to_frame(&vec![7; payload_len])[..outgoing.prefix_len()]);
            }
        }
    }
}
