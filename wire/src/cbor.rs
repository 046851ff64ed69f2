//! The CBOR that transport messages are made of: heads of integers, strings and arrays (`wire.md` 0.1).

use crate::malformed::Malformed;

pub(crate) const UNSIGNED: u8 = 0;
pub(crate) const BYTES: u8 = 2;
pub(crate) const TEXT: u8 = 3;
pub(crate) const ARRAY: u8 = 4;
pub(crate) const NULL: u8 = 0xf6;
pub(crate) const BREAK: u8 = 0xff;

/// The number in a head: a value, a length in bytes, or a count of elements.
#[derive(Clone, Copy)]
pub(crate) enum Number {
    Definite(u64),
    Indefinite,
}

/// What is left to read. Non-shortest heads are accepted, as real decoders do.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub(crate) rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn peek(&self) -> Result<u8, Malformed> {
        self.rest.first().copied().ok_or(Malformed::Truncated)
    }

    pub(crate) fn take(&mut self, count: u64) -> Result<&'a [u8], Malformed> {
        // The claim is compared before it becomes an index: it may be larger than any slice.
        if count > self.rest.len() as u64 {
            return Err(Malformed::Truncated);
        }
        let (taken, rest) = self.rest.split_at(count as usize);
        self.rest = rest;
        Ok(taken)
    }

    /// Reads a head of type `major`; any other type is `otherwise`.
    pub(crate) fn head(&mut self, major: u8, otherwise: Malformed) -> Result<Number, Malformed> {
        let first = self.peek()?;
        if first >> 5 != major {
            return Err(otherwise);
        }
        self.rest = &self.rest[1..];
        let width = match first & 0x1f {
            value @ 0..24 => return Ok(Number::Definite(u64::from(value))),
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            31 => return Ok(Number::Indefinite),
            _ => return Err(Malformed::ReservedHead),
        };
        let value = self.take(width)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        Ok(Number::Definite(value))
    }

    /// Reads a byte or text string, which must say its length.
    pub(crate) fn string(&mut self, major: u8, otherwise: Malformed) -> Result<&'a [u8], Malformed> {
        match self.head(major, otherwise)? {
            Number::Definite(length) => self.take(length),
            Number::Indefinite => Err(Malformed::IndefiniteString),
        }
    }
}

/// Bytes of the shortest head for `number`.
pub(crate) const fn head_len(number: usize) -> usize {
    match number {
        0..24 => 1,
        24..0x100 => 2,
        0x100..0x1_0000 => 3,
        0x1_0000..0x1_0000_0000 => 5,
        _ => 9,
    }
}

/// Writes into a slice from its start, panicking at its end: whoever reserved the room computed it with `*_len`.
pub(crate) struct Writer<'a> {
    room: &'a mut [u8],
}

impl<'a> Writer<'a> {
    pub(crate) fn new(room: &'a mut [u8]) -> Self {
        Writer { room }
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let (place, room) = std::mem::take(&mut self.room).split_at_mut(bytes.len());
        place.copy_from_slice(bytes);
        self.room = room;
    }

    pub(crate) fn head(&mut self, major: u8, number: usize) {
        let bytes = (number as u64).to_be_bytes();
        match head_len(number) {
            1 => self.bytes(&[major << 5 | bytes[7]]),
            2 => self.bytes(&[major << 5 | 24, bytes[7]]),
            3 => self.bytes(&[major << 5 | 25, bytes[6], bytes[7]]),
            5 => self.bytes(&[major << 5 | 26, bytes[4], bytes[5], bytes[6], bytes[7]]),
            _ => {
                self.bytes(&[major << 5 | 27]);
                self.bytes(&bytes);
            }
        }
    }

    /// Ends the writing; what was reserved must be full.
    pub(crate) fn finish(self) {
        assert!(self.room.is_empty(), "{} bytes reserved beyond what was written", self.room.len());
    }
}
