//! The two pieces of BARE that message bodies and multiaddrs use: variable-length integers and text (`wire.md` 0.2).

/// Why bytes are not what was to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BareError {
    /// They end too early.
    #[error("the bytes end inside a value")]
    Truncated,
    /// An integer is above 64 bits, or padded beyond ten bytes.
    #[error("an integer does not fit 64 bits")]
    TooLarge,
    /// Text is not UTF-8.
    #[error("a text is not UTF-8")]
    NotUtf8,
}

/// Reads an unsigned LEB128 integer; gives it and what follows it. Accepts zero padding up to ten bytes, as real
/// readers do.
///
/// # Errors
/// [`BareError::Truncated`], or [`BareError::TooLarge`] when a tenth byte is neither 00 nor 01.
pub fn read_uleb(input: &[u8]) -> Result<(u64, &[u8]), BareError> {
    let mut value = 0;
    for (index, byte) in input.iter().enumerate() {
        if index == 9 && *byte > 1 {
            return Err(BareError::TooLarge);
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((value, &input[index + 1..]));
        }
    }
    Err(BareError::Truncated)
}

/// Appends an unsigned LEB128 integer in its shortest form.
pub fn write_uleb(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes that [`write_uleb`] appends: 1 to 10.
pub const fn uleb_len(value: u64) -> usize {
    match value {
        0 => 1,
        _ => value.ilog2() as usize / 7 + 1,
    }
}

/// Reads the body of a `String` message: a length and that much UTF-8. What follows is ignored, as real readers do.
///
/// # Errors
/// The length is not an integer, longer than the rest, or the text is not UTF-8.
pub fn read_string(input: &[u8]) -> Result<&str, BareError> {
    split_string(input).map(|(text, _)| text)
}

/// Appends a text as the body of a `String` message.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    write_uleb(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

pub(crate) fn split_string(input: &[u8]) -> Result<(&str, &[u8]), BareError> {
    let (length, rest) = read_uleb(input)?;
    if length > rest.len() as u64 {
        return Err(BareError::Truncated);
    }
    let (text, rest) = rest.split_at(length as usize);
    Ok((std::str::from_utf8(text).map_err(|_| BareError::NotUtf8)?, rest))
}
