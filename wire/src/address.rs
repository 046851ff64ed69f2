//! Addresses: a transport type and a name of any bytes (`wire.md` A.4).

use crate::cbor::{self, Number, Reader, Writer};
use crate::malformed::Malformed;
use std::fmt::{self, Write as _};
use std::str::FromStr;

/// Transport type of addresses inside a node.
pub const LOCAL: u8 = 0;
/// Transport type of TCP addresses; the name is ASCII `host:port`.
pub const TCP: u8 = 1;
/// Transport type of UDP addresses; the name is ASCII `host:port`.
pub const UDP: u8 = 2;

/// An address that borrows its name, as it stands in a frame.
///
/// Prints as `type#name`. What a terminal or the text form could not carry back (control characters, bytes that are not
/// UTF-8, `#`, `\`) prints as `\xNN`, and [`Address::from_str`] reads that back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct AddressRef<'a> {
    /// Transport type: [`LOCAL`], [`TCP`], [`UDP`] or another that is passed on unread.
    pub kind: u8,
    /// Any bytes, by convention UTF-8. Matching is exact equality.
    pub name: &'a [u8],
}

impl<'a> AddressRef<'a> {
    /// An address inside a node.
    pub const fn local(name: &'a [u8]) -> Self {
        AddressRef { kind: LOCAL, name }
    }

    /// An owned copy.
    pub fn to_address(self) -> Address {
        Address { kind: self.kind, name: self.name.to_vec() }
    }

    /// Bytes of this address in a route.
    pub const fn encoded_len(self) -> usize {
        1 + cbor::head_len(self.kind as usize) + cbor::head_len(self.name.len()) + self.name.len()
    }

    pub(crate) fn encode(self, out: &mut Writer) {
        // What nearly all addresses are: a small number and a name of up to 255 bytes.
        match u8::try_from(self.name.len()) {
            Ok(length @ 24..) if self.kind < 24 => {
                out.bytes(&[0x82, self.kind, 0x58, length]);
                out.bytes(self.name);
                return;
            }
            Ok(length @ ..24) if self.kind < 24 => {
                out.bytes(&[0x82, self.kind, 0x40 | length]);
                out.bytes(self.name);
                return;
            }
            _ => {}
        }
        out.head(cbor::ARRAY, 2);
        out.head(cbor::UNSIGNED, usize::from(self.kind));
        out.head(cbor::BYTES, self.name.len());
        out.bytes(self.name);
    }

    /// The shortest form is what nearly all addresses have, and what the forwarding path is made of, so it is read where
    /// it is asked for, without a call.
    #[inline(always)]
    pub(crate) fn decode(input: &mut Reader<'a>) -> Result<Self, Malformed> {
        let (kind, length, rest) = match *input.rest {
            [0x82, kind @ ..24, 0x58, length @ 24..=255, ref rest @ ..] => (kind, length, rest),
            [0x82, kind @ ..24, head @ 0x40..0x58, ref rest @ ..] => (kind, head & 0x1f, rest),
            _ => return Self::decode_any(input),
        };
        let (name, rest) = rest.split_at_checked(usize::from(length)).ok_or(Malformed::Truncated)?;
        input.rest = rest;
        Ok(AddressRef { kind, name })
    }

    /// Exactly two elements: an address with more would reach the next node with less than it came with, so it is
    /// refused rather than cut, although `wire.md` 0.1 would let it pass.
    #[cold]
    fn decode_any(input: &mut Reader<'a>) -> Result<Self, Malformed> {
        let count = input.head(cbor::ARRAY, Malformed::AddressNotAPair)?;
        if let Number::Definite(count) = count
            && count != 2
        {
            return Err(Malformed::AddressNotAPair);
        }
        let kind = match input.head(cbor::UNSIGNED, Malformed::BadTransportType)? {
            Number::Definite(kind) => u8::try_from(kind).map_err(|_| Malformed::BadTransportType)?,
            Number::Indefinite => return Err(Malformed::ReservedHead),
        };
        let name = input.string(cbor::BYTES, Malformed::NameNotBytes)?;
        if let Number::Indefinite = count {
            if input.peek()? != cbor::BREAK {
                return Err(Malformed::AddressNotAPair);
            }
            input.take(1)?;
        }
        Ok(AddressRef { kind, name })
    }
}

impl fmt::Display for AddressRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#", self.kind)?;
        for chunk in self.name.utf8_chunks() {
            for char in chunk.valid().chars() {
                if prints_as_itself(char) {
                    f.write_char(char)?;
                } else {
                    escape(f, char.encode_utf8(&mut [0; 4]).as_bytes())?;
                }
            }
            escape(f, chunk.invalid())?;
        }
        Ok(())
    }
}

/// `escape_debug` knows which characters a terminal shows, and escapes `\`. It also escapes quotes, which need no escape
/// here, and not `#`, which does.
fn prints_as_itself(char: char) -> bool {
    matches!(char, '\'' | '"') || (char != '#' && char.escape_debug().len() == 1)
}

fn escape(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))
}

/// An address that owns its name.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Address {
    /// Transport type: [`LOCAL`], [`TCP`], [`UDP`] or another that is passed on unread.
    pub kind: u8,
    /// Any bytes, by convention UTF-8.
    pub name: Vec<u8>,
}

impl Address {
    /// An address inside a node.
    pub fn local(name: impl Into<Vec<u8>>) -> Self {
        Address { kind: LOCAL, name: name.into() }
    }

    /// The same address, borrowed.
    // Not `AsRef`: that could only give a reference, and an `AddressRef` is a value.
    #[allow(clippy::should_implement_trait)]
    pub fn as_ref(&self) -> AddressRef<'_> {
        AddressRef { kind: self.kind, name: &self.name }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().fmt(f)
    }
}

/// Why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is nothing.
    #[error("an address cannot be empty; write a name like `echo`, or `type#name` like `0#echo`")]
    Empty,
    /// What stands before `#` is not a transport type.
    #[error("{0:?} is not a transport type; write a number from 0 to 255 before `#`, like `0#echo`")]
    BadTransportType(String),
    /// More than one `#`.
    #[error("{0:?} has more than one `#`; write one between type and name, and `\\x23` for a `#` in a name")]
    TwoSeparators(String),
    /// A backslash that is not the start of an escape.
    #[error("{0:?} has a `\\` that is not followed by `xNN`; write `\\x5c` for a `\\` in a name")]
    BadEscape(String),
}

impl FromStr for Address {
    type Err = AddressError;

    /// Reads `type#name`, or `name` for type 0 (`wire.md` A.4), with `\xNN` for bytes that do not print.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (kind, name) = match text.split_once('#') {
            _ if text.is_empty() => return Err(AddressError::Empty),
            None => (LOCAL, text),
            Some((_, name)) if name.contains('#') => return Err(AddressError::TwoSeparators(text.into())),
            Some((kind, name)) => (parse_kind(kind).ok_or_else(|| AddressError::BadTransportType(kind.into()))?, name),
        };
        Ok(Address { kind, name: unescape(name).ok_or_else(|| AddressError::BadEscape(text.into()))? })
    }
}

fn parse_kind(text: &str) -> Option<u8> {
    // `parse` alone would let a `+` pass.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'\\' {
            name.push(byte);
            rest = after;
            continue;
        }
        let [b'x', high, low, after @ ..] = after else { return None };
        name.push((hex_digit(*high)? << 4) | hex_digit(*low)?);
        rest = after;
    }
    Some(name)
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}
