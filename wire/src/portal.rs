//! What the two ends of a portal say to each other (`wire.md` F.1), as payloads of messages.
//!
//! Between our own nodes a portal has credit and half-close: offered in the bytes behind Ping, accepted in those behind
//! Pong, which real nodes ignore (`docs/wire-extensions.md`). [`PortalMessage::Credit`] and [`PortalMessage::End`], and the
//! reason behind Disconnect, are said only after that.

use crate::bare;

/// Longest head of a payload: its kind and its length.
pub const PAYLOAD_HEAD_MAX: usize = 5;

/// What says that the bytes behind a Ping or Pong are ours, and which version of them.
const MARK: [u8; 5] = *b"flow\x01";

const PING: u8 = 0;
const PONG: u8 = 1;
const DISCONNECT: u8 = 2;
const PAYLOAD: u8 = 3;
const END: u8 = 4;
const CREDIT: u8 = 5;

/// Behind a Disconnect: the connection failed, so bytes may be missing.
const BROKEN: u8 = 1;

/// One message of a portal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortalMessage<'a> {
    /// The inlet has a connection; to the outlet's address.
    Ping {
        /// How many bytes the inlet takes before it says more, if it offers credit and half-close.
        credit: Option<u32>,
    },
    /// The outlet has reached its target.
    Pong {
        /// The same of the outlet, if it accepts.
        credit: Option<u32>,
    },
    /// Both directions are over.
    Disconnect {
        /// The connection failed: what was received may not be all. Only between our nodes.
        broken: bool,
    },
    /// Bytes of the connection.
    Payload {
        /// They.
        data: &'a [u8],
        /// Which payload this is, modulo 2^16, if the sender counts.
        counter: Option<u16>,
    },
    /// No more bytes come in this direction. Only between our nodes.
    End {
        /// Bytes that were sent in it, since the beginning.
        total: u64,
    },
    /// So many bytes in all, since the beginning, are taken. Only between our nodes.
    Credit {
        /// Bytes.
        limit: u64,
    },
}

impl<'a> PortalMessage<'a> {
    /// Reads a message. `None` when it is none.
    pub fn parse(payload: &'a [u8]) -> Option<Self> {
        let (&kind, rest) = payload.split_first()?;
        Some(match kind {
            PING => PortalMessage::Ping { credit: credit_in(rest) },
            PONG => PortalMessage::Pong { credit: credit_in(rest) },
            DISCONNECT => PortalMessage::Disconnect { broken: rest.first() == Some(&BROKEN) },
            PAYLOAD => {
                let (length, rest) = bare::read_uleb(rest).ok()?;
                let (data, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                // Fewer than three bytes are no counter; nor are those that do not begin with 1.
                let counter = match rest {
                    [1, low, high, ..] => Some(u16::from_le_bytes([*low, *high])),
                    _ => None,
                };
                PortalMessage::Payload { data, counter }
            }
            END => PortalMessage::End { total: u64::from_be_bytes(*rest.first_chunk()?) },
            CREDIT => PortalMessage::Credit { limit: u64::from_be_bytes(*rest.first_chunk()?) },
            _ => return None,
        })
    }

    /// The bytes of every message but a payload, for which see [`payload_head`].
    ///
    /// # Panics
    /// For a payload.
    pub fn encode(&self) -> Encoded {
        let mut encoded = Encoded { bytes: [0; ENCODED_MAX], length: 0 };
        match *self {
            PortalMessage::Ping { credit } => encoded.offer(PING, credit),
            PortalMessage::Pong { credit } => encoded.offer(PONG, credit),
            PortalMessage::Disconnect { broken: false } => encoded.push(&[DISCONNECT]),
            PortalMessage::Disconnect { broken: true } => encoded.push(&[DISCONNECT, BROKEN]),
            PortalMessage::End { total } => encoded.number(END, total),
            PortalMessage::Credit { limit } => encoded.number(CREDIT, limit),
            PortalMessage::Payload { .. } => panic!("a payload is written around its data"),
        }
        encoded
    }
}

/// Longest message that is no payload: a Ping with an offer.
const ENCODED_MAX: usize = 1 + MARK.len() + 4;

/// The bytes of a short message.
#[derive(Debug, Clone, Copy)]
pub struct Encoded {
    bytes: [u8; ENCODED_MAX],
    length: u8,
}

impl Encoded {
    fn push(&mut self, bytes: &[u8]) {
        let at = usize::from(self.length);
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len() as u8;
    }

    fn number(&mut self, kind: u8, number: u64) {
        self.push(&[kind]);
        self.push(&number.to_be_bytes());
    }

    fn offer(&mut self, kind: u8, credit: Option<u32>) {
        self.push(&[kind]);
        if let Some(credit) = credit {
            self.push(&MARK);
            self.push(&credit.to_be_bytes());
        }
    }
}

impl std::ops::Deref for Encoded {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// What comes behind the data of a payload whose sender counts (`wire.md` F.1): between our nodes, so that a message that was
/// lost on the way ends the connection instead of leaving a hole in it. Real senders of 0.150 write nothing.
pub fn payload_counter(counter: u16) -> [u8; 3] {
    let [low, high] = counter.to_le_bytes();
    [1, low, high]
}

/// What comes in front of `length` bytes of data to make them a payload: it is written at the end of `out`, whose last byte
/// is the one before the data. Gives how many bytes it is.
///
/// # Panics
/// When `length` does not fit 32 bits.
pub fn payload_head(length: usize, out: &mut [u8; PAYLOAD_HEAD_MAX]) -> usize {
    let mut left = u32::try_from(length).expect("a payload is shorter than a frame");
    assert!(left < 1 << 28, "a payload is shorter than a frame");
    let mut head = [PAYLOAD, 0, 0, 0, 0];
    let mut used = 1;
    loop {
        let low = left as u8 & 0x7f;
        left >>= 7;
        head[used] = if left > 0 { low | 0x80 } else { low };
        used += 1;
        if left == 0 {
            break;
        }
    }
    out[PAYLOAD_HEAD_MAX - used..].copy_from_slice(&head[..used]);
    used
}

fn credit_in(extension: &[u8]) -> Option<u32> {
    let credit = extension.strip_prefix(&MARK)?;
    credit.first_chunk().map(|credit| u32::from_be_bytes(*credit))
}

#[cfg(test)]
mod tests {
    use super::{PAYLOAD_HEAD_MAX, PortalMessage, payload_head};

    fn payload(data: &[u8]) -> Vec<u8> {
        let mut head = [0; PAYLOAD_HEAD_MAX];
        let length = payload_head(data.len(), &mut head);
        [&head[PAYLOAD_HEAD_MAX - length..], data].concat()
    }

    #[test]
    fn examples_of_the_wire() {
        // wire.md F.1 and F.8.
        assert_eq!(payload(b"hello"), [3, 5, b'h', b'e', b'l', b'l', b'o']);
        assert_eq!(*PortalMessage::Ping { credit: None }.encode(), [0]);
        assert_eq!(*PortalMessage::Pong { credit: None }.encode(), [1]);
        assert_eq!(*PortalMessage::Disconnect { broken: false }.encode(), [2]);
        let counted = [3, 5, b'h', b'e', b'l', b'l', b'o', 1, 7, 0];
        assert_eq!(PortalMessage::parse(&counted), Some(PortalMessage::Payload { data: b"hello", counter: Some(7) }));
        for trailer in [&[][..], &[0], &[1, 7], &[0, 7, 0], &[2, 7, 0, 0]] {
            let bytes = [&payload(b"hello"), trailer].concat();
            let expected = PortalMessage::Payload { data: b"hello", counter: None };
            assert_eq!(PortalMessage::parse(&bytes), Some(expected), "{trailer:?}");
        }
        // A real outlet took these for a Ping (wire.md N.1).
        assert_eq!(PortalMessage::parse(&[0, b'E', b'X', b'T']), Some(PortalMessage::Ping { credit: None }));
        // Lengths need not be minimal.
        let padded = [3, 0x85, 0x80, 0, b'h', b'e', b'l', b'l', b'o'];
        assert_eq!(PortalMessage::parse(&padded), Some(PortalMessage::Payload { data: b"hello", counter: None }));
    }

    #[test]
    fn what_is_written_is_read() {
        for message in [
            PortalMessage::Ping { credit: Some(0x0102_0304) },
            PortalMessage::Pong { credit: Some(u32::MAX) },
            PortalMessage::Disconnect { broken: true },
            PortalMessage::End { total: 1 << 40 },
            PortalMessage::Credit { limit: u64::MAX },
        ] {
            assert_eq!(PortalMessage::parse(&message.encode()), Some(message));
        }
        for length in [0, 1, 127, 128, 16_383, 16_384, 131_072, 2_097_151, 2_097_152] {
            let data = vec![7; length];
            let expected = PortalMessage::Payload { data: &data, counter: None };
            assert_eq!(PortalMessage::parse(&payload(&data)), Some(expected));
        }
    }

    #[test]
    fn what_is_none_is_none() {
        for bytes in [
            &[][..],
            &[6],
            &[3],
            &[3, 5, 1],
            &[3, 0x80],
            &[3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
            &[3, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0],
            &[4, 0, 0, 0, 0, 0, 0, 0],
            &[5, 0, 0, 0],
        ] {
            assert_eq!(PortalMessage::parse(bytes), None, "{bytes:?}");
        }
    }
}
