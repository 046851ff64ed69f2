//! Bytes as text and back: hexadecimal digits, and bytes of strangers made fit for a terminal, a log or JSON.

use std::fmt::Write;

/// Lower-case hexadecimal digits.
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// The bytes that hexadecimal digits of either case stand for; `None` for an odd number of them or another character.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes().chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

/// Whether `text` is exactly 32 hexadecimal digits.
pub fn is_hex_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Text that shows `bytes` without loss: what is not printable becomes `\xNN` or `\u{N}`, a backslash becomes `\\`. After
/// `bytes_max` bytes it is cut off with `...`.
pub fn escape(bytes: &[u8], bytes_max: usize) -> String {
    let (shown, cut) = if bytes.len() > bytes_max { (&bytes[..bytes_max], true) } else { (bytes, false) };
    let mut text = String::with_capacity(shown.len());
    for chunk in shown.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character == '\\' {
                text.push_str("\\\\");
            } else if is_printable(character) {
                text.push(character);
            } else if character.is_ascii() {
                let _ = write!(text, "\\x{:02x}", u32::from(character));
            } else {
                let _ = write!(text, "\\u{{{:x}}}", u32::from(character));
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    if cut {
        text.push_str("...");
    }
    text
}

/// False for control characters and for those that change how the text around them is shown.
fn is_printable(character: char) -> bool {
    let reorders =
        matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    !character.is_control() && !reorders
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn strange_bytes_are_shown_without_effect() {
        assert_eq!(escape(b"echo", 10), "echo");
        assert_eq!(escape(b"a\x1b[31m\n\xff\\", 99), "a\\x1b[31m\\x0a\\xff\\\\");
        assert_eq!(escape("é\u{202e}x".as_bytes(), 99), "é\\u{202e}x");
        assert_eq!(escape(b"abcdef", 3), "abc...");
    }

    #[test]
    fn hexadecimal_digits_are_checked() {
        assert_eq!(from_hex("00fFa0"), Some(vec![0, 255, 160]));
        for bad in ["0", "0g", "é", "+1", " 1"] {
            assert_eq!(from_hex(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn hexadecimal_digits_come_back(bytes: Vec<u8>) {
            prop_assert_eq!(from_hex(&to_hex(&bytes)), Some(bytes));
        }

        #[test]
        fn escaped_text_is_printable(bytes: Vec<u8>) {
            prop_assert!(escape(&bytes, 1000).chars().all(is_printable));
        }
    }
}
