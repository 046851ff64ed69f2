//! A flow: frames that differ in nothing but their sequence number and what follows from it.
//!
//! ```text
//!   | length, routes, payload head |  sequence, u64 LE | noise, from a place that the sequence number chooses |
//!   |<--------- prefix ----------->|<------------------------------- payload ------------------------------->|
//! ```
//!
//! So the whole stream is known beforehand and is compared byte by byte: nothing can be lost, doubled, reordered,
//! or mixed up without being noticed, and noticing costs one comparison of memory.

use ockam_crypto::PAYLOAD_HEAD;
use ockam_wire::{Address, AddressRef, Message, Outgoing, RouteParts};
use std::io::{self, Read};
use std::net::TcpStream;

/// Shortest payload: the sequence number.
pub const PAYLOAD_MIN: usize = 8;
/// Longest payload.
pub const PAYLOAD_MAX: usize = 1024 * 1024;
/// A prime, so that the noise of neighbouring frames has nothing to do with the size of any buffer.
const PLACES: u64 = 4093;
/// What one receive of a [`Checker`] can take.
const RECEIVE: usize = 256 * 1024;

/// See the module.
#[derive(Debug, Clone)]
pub struct Flow {
    prefix: Vec<u8>,
    payload_len: usize,
    noise: Vec<u8>,
}

impl Flow {
    /// Frames with these routes and payloads of this length.
    ///
    /// # Panics
    /// When the length is not within [`PAYLOAD_MIN`] and [`PAYLOAD_MAX`].
    pub fn new(onward: &[Address], back: &[Address], payload_len: usize) -> Flow {
        let onward: Vec<AddressRef<'_>> = onward.iter().map(Address::as_ref).collect();
        let back: Vec<AddressRef<'_>> = back.iter().map(Address::as_ref).collect();
        let outgoing = Outgoing {
            onward: RouteParts::new(&onward),
            return_route: RouteParts::new(&back),
            payload_len,
            tracing: None,
        };
        let mut prefix = vec![0; outgoing.prefix_len()];
        outgoing.write_prefix(&mut prefix);
        Flow::with_prefix(prefix, payload_len)
    }

    /// The same as texts of a secure channel's records, but for their last byte ([`ockam_crypto::NO_PADDING`]): a text
    /// begins with a fixed head where a frame has its length.
    pub fn of_texts(onward: &[Address], back: &[Address], payload_len: usize) -> Flow {
        let mut flow = Flow::new(onward, back, payload_len);
        flow.prefix[..PAYLOAD_HEAD.len()].copy_from_slice(&PAYLOAD_HEAD);
        flow
    }

    fn with_prefix(prefix: Vec<u8>, payload_len: usize) -> Flow {
        assert!((PAYLOAD_MIN..=PAYLOAD_MAX).contains(&payload_len), "a payload of {payload_len} bytes");
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let noise = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        let noise = noise.flatten().take(payload_len + PLACES as usize).collect();
        Flow { prefix, payload_len, noise }
    }

    /// The flow that a received frame (with its length) belongs to: its routes are taken as they are.
    ///
    /// # Errors
    /// The frame is not a message, or its payload is not one of a flow.
    pub fn of_frame(frame: &[u8]) -> Result<Flow, String> {
        let body = frame.get(4..).unwrap_or_default();
        let message = Message::parse(body).map_err(|error| error.to_string())?;
        if !(PAYLOAD_MIN..=PAYLOAD_MAX).contains(&message.payload.len()) || message.tracing.is_some() {
            return Err(format!("a payload of {} bytes is not ours", message.payload.len()));
        }
        let prefix = frame[..frame.len() - message.payload.len()].to_vec();
        Ok(Flow::with_prefix(prefix, message.payload.len()))
    }

    /// Bytes of a frame.
    pub fn frame_len(&self) -> usize {
        self.prefix.len() + self.payload_len
    }

    fn noise(&self, sequence: u64) -> &[u8] {
        let place = (sequence % PLACES) as usize;
        &self.noise[place..place + self.payload_len - PAYLOAD_MIN]
    }

    /// Appends frame `sequence`.
    pub fn write(&self, sequence: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.prefix);
        out.extend_from_slice(&sequence.to_le_bytes());
        out.extend_from_slice(self.noise(sequence));
    }

    /// Frame `sequence` in two pieces: the first is written to `head`, the second is this flow's.
    pub fn parts<'a>(&'a self, sequence: u64, head: &mut Vec<u8>) -> &'a [u8] {
        head.clear();
        head.extend_from_slice(&self.prefix);
        head.extend_from_slice(&sequence.to_le_bytes());
        self.noise(sequence)
    }

    /// Whether `frame` is frame `sequence`, to the last byte.
    pub fn is(&self, sequence: u64, frame: &[u8]) -> bool {
        let (prefix, payload) = frame.split_at(self.prefix.len().min(frame.len()));
        let Some((number, noise)) = payload.split_first_chunk::<PAYLOAD_MIN>() else { return false };
        prefix == self.prefix && u64::from_le_bytes(*number) == sequence && noise == self.noise(sequence)
    }
}

/// What was received from a socket, cut into frames.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Frames {
    /// Receives once (blocking). Answers with `false` at the end of the stream, which must come between two frames.
    ///
    /// # Errors
    /// What the socket says; `UnexpectedEof` for a frame that is cut off.
    pub fn receive(&mut self, mut stream: &TcpStream) -> io::Result<bool> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.buffer.len() - self.end < RECEIVE {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.buffer.len() - self.end < RECEIVE {
                self.buffer.resize(self.end + 2 * RECEIVE, 0);
            }
        }
        let place = self.end..self.end + RECEIVE;
        let count = stream.read(&mut self.buffer[place])?;
        self.end += count;
        match count {
            0 if self.start == self.end => Ok(false),
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the last frame is cut off")),
            _ => Ok(true),
        }
    }

    /// The next frame that is complete, with its length.
    ///
    /// # Errors
    /// `InvalidData` for a length that no load asks for.
    pub fn take(&mut self) -> io::Result<Option<&mut [u8]>> {
        let Some(head) = self.buffer[self.start..self.end].first_chunk::<4>() else { return Ok(None) };
        let length = 4 + u32::from_be_bytes(*head) as usize;
        if length > 2 * PAYLOAD_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame claims an absurd length"));
        }
        if self.end - self.start < length {
            return Ok(None);
        }
        let place = self.start..self.start + length;
        self.start += length;
        Ok(Some(&mut self.buffer[place]))
    }
}

/// Reads a flow from a socket and verifies it.
#[derive(Debug)]
pub struct Checker {
    flow: Option<Flow>,
    next: u64,
    frames: Frames,
}

impl Checker {
    /// Expects exactly `flow`, from frame 0 on.
    pub fn of(flow: Flow) -> Checker {
        Checker { flow: Some(flow), next: 0, frames: Frames::default() }
    }

    /// Expects some flow, from frame 0 on; its routes are those of the first frame.
    pub fn of_any() -> Checker {
        Checker { flow: None, next: 0, frames: Frames::default() }
    }

    /// Frames verified so far.
    pub fn verified(&self) -> u64 {
        self.next
    }

    /// Receives once (blocking) and verifies every frame that is complete. Answers with how many; `None` at the end of
    /// the stream, which must come between two frames.
    ///
    /// # Errors
    /// What the socket says; `InvalidData` for a frame that is not the expected one.
    pub fn receive(&mut self, stream: &TcpStream) -> io::Result<Option<u64>> {
        if !self.frames.receive(stream)? {
            return Ok(None);
        }
        let before = self.next;
        while let Some(frame) = self.frames.take()? {
            if self.flow.is_none() {
                self.flow = Some(Flow::of_frame(frame).map_err(|what| wrong(self.next, &what))?);
            }
            if !self.flow.as_ref().is_some_and(|flow| flow.is(self.next, frame)) {
                return Err(wrong(self.next, "has other bytes than were sent"));
            }
            self.next += 1;
        }
        Ok(Some(self.next - before))
    }
}

/// A frame is not what it must be.
pub(crate) fn wrong(sequence: u64, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("frame {sequence} {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (ours, listener.accept().unwrap().0)
    }

    fn flow(payload_len: usize) -> Flow {
        Flow::new(&[Address::local("echo")], &[Address::local("back")], payload_len)
    }

    #[test]
    fn frames_are_those_of_the_wire_and_verified() {
        let (mut from, to) = pair();
        for payload_len in [PAYLOAD_MIN, 64, 70_000] {
            let flow = flow(payload_len);
            let mut bytes = Vec::new();
            for sequence in 0..5 {
                flow.write(sequence, &mut bytes);
                let frame = &bytes[bytes.len() - flow.frame_len()..];
                assert_eq!(Message::parse(&frame[4..]).unwrap().payload.len(), payload_len);
                assert!(flow.is(sequence, frame) && !flow.is(sequence + 1, frame));
            }
            from.write_all(&bytes).unwrap();
            let mut checker = Checker::of_any();
            while checker.verified() < 5 {
                checker.receive(&to).unwrap().unwrap();
            }
        }
    }

    #[test]
    fn a_changed_a_repeated_and_a_cut_frame_are_noticed() {
        let flow = flow(64);
        let mut good = Vec::new();
        flow.write(0, &mut good);
        let changed = |place: usize| {
            let mut frame = good.clone();
            frame[place] ^= 1;
            frame
        };
        let repeated = [good.clone(), good.clone()].concat();
        for bytes in [changed(good.len() - 1), changed(good.len() - 60), changed(8), repeated, good[1..].to_vec()] {
            let (mut from, to) = pair();
            from.write_all(&bytes).unwrap();
            drop(from);
            let mut checker = Checker::of(flow.clone());
            let error = loop {
                match checker.receive(&to) {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("nothing was noticed"),
                    Err(error) => break error,
                }
            };
            assert!(matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof), "{error}");
        }
    }
}
