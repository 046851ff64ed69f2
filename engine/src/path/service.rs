//! What the built-in services do to a payload (`wire.md` B.2). `echo` and `hop` leave it alone.

use ockam_wire::bare::{read_string, uleb_len};

/// A payload of `uppercase`, read: a text and how long the answer is.
#[derive(Debug, Clone, Copy)]
pub struct Uppercase<'a> {
    text: &'a str,
    answer: usize,
}

impl<'a> Uppercase<'a> {
    /// Reads a payload; `None` when it is not a string.
    pub fn read(payload: &'a [u8]) -> Option<Self> {
        let text = read_string(payload).ok()?;
        let answer = if text.is_ascii() {
            text.len()
        } else {
            text.chars().flat_map(char::to_uppercase).map(char::len_utf8).sum()
        };
        Some(Uppercase { text, answer })
    }

    /// Bytes of the answering payload.
    pub fn payload_len(&self) -> usize {
        uleb_len(self.answer as u64) + self.answer
    }

    /// Writes the answering payload.
    ///
    /// # Panics
    /// When `out` does not have [`Self::payload_len`] bytes.
    pub fn write(&self, out: &mut [u8]) {
        let (length, text) = out.split_at_mut(uleb_len(self.answer as u64));
        let (last, first) = length.split_last_mut().expect("a length has a byte");
        let mut value = self.answer;
        for byte in first {
            *byte = value as u8 | 0x80;
            value >>= 7;
        }
        *last = value as u8;
        if self.text.is_ascii() {
            text.copy_from_slice(self.text.as_bytes());
            text.make_ascii_uppercase();
            return;
        }
        let mut at = 0;
        for upper in self.text.chars().flat_map(char::to_uppercase) {
            at += upper.encode_utf8(&mut text[at..]).len();
        }
        assert!(at == text.len(), "the length was computed from the same text");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn payload(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        ockam_wire::bare::write_string(text, &mut bytes);
        bytes
    }

    fn answer(request: &[u8]) -> Vec<u8> {
        let upper = Uppercase::read(request).unwrap();
        let mut out = vec![0; upper.payload_len()];
        upper.write(&mut out);
        out
    }

    #[test]
    fn unicode_grows_and_shrinks() {
        for text in ["hello", "", "straße", "ǆ", "ŉ", "ﬃ", "ΐ", "ı", "日本"] {
            assert_eq!(answer(&payload(text)), payload(&text.to_uppercase()), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_string_is_refused() {
        for bytes in [&[][..], &[5, b'a'], &[1, 0xff], &[0xff; 11]] {
            assert!(Uppercase::read(bytes).is_none(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn like_the_library(text in "\\PC{0,300}") {
            prop_assert_eq!(answer(&payload(&text)), payload(&text.to_uppercase()));
        }
    }
}
