//! Frames on a TCP connection: a big-endian length and a body (`wire.md` A.1, A.2).

/// The one byte that each side sends first: protocol version 1.
pub const PREAMBLE: u8 = 1;

/// Largest body in bytes, inclusive. A larger one makes the receiver close the connection.
pub const FRAME_MAX: usize = 16 * 1024 * 1024;

/// Why the length of a frame ends its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum FrameError {
    /// A body of no bytes, which is not a message.
    #[error("an empty frame")]
    Empty,
    /// More than [`FRAME_MAX`].
    #[error("a frame above 16 MiB")]
    TooLarge,
}

/// Bytes of the body that follows a frame's first four bytes: 1 to [`FRAME_MAX`].
///
/// # Errors
/// Both mean that the connection is to be closed, without reading the body.
pub fn frame_length(head: [u8; 4]) -> Result<usize, FrameError> {
    match u32::from_be_bytes(head) as usize {
        0 => Err(FrameError::Empty),
        length if length > FRAME_MAX => Err(FrameError::TooLarge),
        length => Ok(length),
    }
}

/// Cuts a stream of bytes, arriving in chunks of any size, into the bodies of its frames.
///
/// [`Framer::push`] a chunk, then call [`Framer::next`] until it answers `None`. Then the framer holds at most one
/// unfinished frame: memory follows the bytes received (twice as many at the worst), never the length that a frame
/// claims, and what does not become a frame is let go. The preamble is the caller's.
#[derive(Debug, Default)]
pub struct Framer {
    bytes: Vec<u8>,
    /// Where the first frame not yet given out begins.
    start: usize,
    failed: Option<FrameError>,
}

impl Framer {
    /// A framer at the start of a frame.
    pub fn new() -> Self {
        Framer::default()
    }

    /// Takes the next bytes of the stream. After an error they are ignored.
    pub fn push(&mut self, chunk: &[u8]) {
        if self.failed.is_none() {
            self.bytes.drain(..self.start);
            self.start = 0;
            self.bytes.extend_from_slice(chunk);
        }
    }

    /// The body of the next frame, if it is complete.
    ///
    /// # Errors
    /// The stream is not one of frames; every further call gives the same error.
    // Not `Iterator`: what it gives is borrowed from the framer.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<&[u8]>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let Some((head, rest)) = self.bytes[self.start..].split_first_chunk() else { return Ok(None) };
        let length = match frame_length(*head) {
            Ok(length) => length,
            Err(error) => {
                *self = Framer { failed: Some(error), ..Framer::default() };
                return Err(error);
            }
        };
        if rest.len() < length {
            return Ok(None);
        }
        let body = self.start + head.len();
        self.start = body + length;
        Ok(Some(&self.bytes[body..self.start]))
    }

    /// Bytes held that were not given out; not 0 at the end of a stream means that it ended inside a frame.
    pub fn buffered(&self) -> usize {
        self.bytes.len() - self.start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_follows_what_was_received_and_not_what_was_claimed() {
        let mut framer = Framer::new();
        framer.push(&(FRAME_MAX as u32).to_be_bytes());
        assert_eq!(framer.next(), Ok(None));
        assert!(framer.bytes.capacity() < 64);
        for _ in 0..100 {
            framer.push(&[0; 1000]);
            assert_eq!(framer.next(), Ok(None));
        }
        assert!(framer.bytes.capacity() <= 2 * 100_004);
    }

    #[test]
    fn frames_given_out_and_failed_streams_hold_nothing() {
        let mut framer = Framer::new();
        for _ in 0..100 {
            framer.push(&[0, 0, 0, 4, 0x83, 0x80, 0x80, 0x40].repeat(100));
            while framer.next().expect("frames").is_some() {}
        }
        assert!(framer.bytes.capacity() <= 1600);
        framer.push(&[0; 1000]);
        assert_eq!(framer.next(), Err(FrameError::Empty));
        framer.push(&[1; 1000]);
        assert_eq!(framer.next(), Err(FrameError::Empty));
        assert_eq!(framer.bytes.capacity(), 0);
    }
}
