//! The least that can be done to a frame: what every floor and every rival does, whatever its runtime.
//!
//! These read only the shortest encodings, check no rule, know no table and close on whatever they do not understand:
//! they are measures, not nodes.

use std::ops::Range;

/// Frames with more bytes than this leave from where they were received; smaller ones are gathered.
const GATHER_MAX: usize = 4096;
/// So much is gathered for one send.
const GATHERED_MAX: usize = 256 * 1024;
/// Bytes that one receive can fill.
const RECEIVE: usize = 256 * 1024;
/// Room for a prefix that grew.
const HEAD_ROOM: usize = 64;
/// Largest frame taken.
const FRAME_MAX: usize = 4 * 1024 * 1024;

/// Bytes that are not a frame these floors understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotUnderstood;

impl std::fmt::Display for NotUnderstood {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a frame that this floor does not understand")
    }
}

impl std::error::Error for NotUnderstood {}

/// Bytes that were received, cut into frames.
#[derive(Debug, Default)]
pub struct Input {
    /// Taken out while an owning runtime receives into it, and put back.
    pub bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    /// Where to receive next. There is room for at least [`RECEIVE`] bytes.
    pub fn room(&mut self) -> Range<usize> {
        let kept = self.end - self.start;
        if kept == 0 || self.bytes.len() < self.end + RECEIVE {
            let needed = HEAD_ROOM + kept + RECEIVE;
            if self.bytes.len() < needed {
                self.bytes.resize(needed + RECEIVE, 0);
            }
            self.bytes.copy_within(self.start..self.end, HEAD_ROOM);
            (self.start, self.end) = (HEAD_ROOM, HEAD_ROOM + kept);
        }
        self.end..self.end + RECEIVE
    }

    /// So many bytes were received there.
    pub fn received(&mut self, count: usize) {
        self.end += count;
    }

    /// Bytes of the next frame, with its length, if it is complete.
    fn frame_len(&self) -> Result<Option<usize>, NotUnderstood> {
        let unread = &self.bytes[self.start..self.end];
        let Some(head) = unread.first_chunk::<4>() else { return Ok(None) };
        let length = 4 + u32::from_be_bytes(*head) as usize;
        if length > FRAME_MAX {
            return Err(NotUnderstood);
        }
        Ok((unread.len() >= length).then_some(length))
    }
}

/// Where the routes of a frame are: each with the head of its array.
struct Routes {
    /// Address behind the first onward one.
    rest: usize,
    onward: Range<usize>,
    back: Range<usize>,
}

/// `frame` begins with its length.
fn routes(frame: &[u8]) -> Option<Routes> {
    if !matches!(frame.get(4)?, 0x83 | 0x84) {
        return None;
    }
    let (onward_end, rest) = skip_route(frame, 5)?;
    let (back_end, _) = skip_route(frame, onward_end)?;
    Some(Routes { rest, onward: 5..onward_end, back: onward_end..back_end })
}

/// Where the route at `at` ends, and where its first address does.
fn skip_route(frame: &[u8], at: usize) -> Option<(usize, usize)> {
    let count = frame.get(at)?.checked_sub(0x80).filter(|count| *count < 23)?;
    let mut end = at + 1;
    let mut first_end = end;
    for place in 0..count {
        let [0x82, 0..24, head, long, ..] = *frame.get(end..end + 4)? else { return None };
        end += match head {
            0x40..=0x57 => 3 + usize::from(head - 0x40),
            0x58 => 4 + usize::from(long),
            _ => return None,
        };
        if place == 0 {
            first_end = end;
        }
    }
    (end <= frame.len()).then_some((end, first_end))
}

/// An `echo` that only swaps the routes of each frame.
#[derive(Debug, Default)]
pub struct Swap {
    /// What came in.
    pub input: Input,
    /// What is to be sent; the caller clears it.
    pub output: Vec<u8>,
}

impl Swap {
    /// Answers every complete frame.
    ///
    /// # Errors
    /// Not a frame.
    pub fn answer(&mut self) -> Result<(), NotUnderstood> {
        while let Some(length) = self.input.frame_len()? {
            let frame = &self.input.bytes[self.input.start..self.input.start + length];
            let Routes { onward, back, .. } = routes(frame).ok_or(NotUnderstood)?;
            self.output.extend_from_slice(&frame[..onward.start]);
            self.output.extend_from_slice(&frame[back.clone()]);
            self.output.extend_from_slice(&frame[onward]);
            self.output.extend_from_slice(&frame[back.end..]);
            self.input.start += length;
        }
        Ok(())
    }
}

/// What a [`Relay`] wants to have sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// All of `output`, which the caller clears.
    Gathered,
    /// These bytes of `input`.
    InPlace(Range<usize>),
}

/// A relay that takes the first address off the onward route of each frame and puts one on the return route.
#[derive(Debug)]
pub struct Relay {
    /// What came in.
    pub input: Input,
    /// Small frames that are to be sent.
    pub output: Vec<u8>,
    /// Encoded.
    address: [u8; 36],
}

impl Default for Relay {
    fn default() -> Self {
        let mut address = [b'7'; 36];
        address[..4].copy_from_slice(&[0x82, 0x00, 0x58, 0x20]);
        Relay { input: Input::default(), output: Vec::new(), address }
    }
}

impl Relay {
    /// Rewrites frames until something is to be sent; `None` when more must be received first.
    ///
    /// # Errors
    /// Not a frame.
    pub fn next_piece(&mut self) -> Result<Option<Piece>, NotUnderstood> {
        loop {
            let length = self.input.frame_len()?;
            let small = length.is_some_and(|length| length <= GATHER_MAX);
            if !self.output.is_empty() && (!small || self.output.len() >= GATHERED_MAX) {
                return Ok(Some(Piece::Gathered));
            }
            let Some(length) = length else { return Ok(None) };
            let start = self.input.start;
            let frame = &self.input.bytes[start..start + length];
            let Routes { rest, onward, back } = routes(frame).ok_or(NotUnderstood)?;
            if rest == onward.start + 1 {
                return Err(NotUnderstood);
            }
            self.input.start += length;

            let mut prefix = [0; 512];
            let mut at = 0;
            let mut put = |bytes: &[u8]| -> Result<(), NotUnderstood> {
                prefix.get_mut(at..at + bytes.len()).ok_or(NotUnderstood)?.copy_from_slice(bytes);
                at += bytes.len();
                Ok(())
            };
            let tail = back.start + 1;
            let grown = length - (rest - onward.start - 1) + self.address.len();
            put(&(grown as u32 - 4).to_be_bytes())?;
            put(&[frame[4], frame[onward.start] - 1])?;
            put(&frame[rest..onward.end])?;
            put(&[frame[back.start] + 1])?;
            put(&self.address)?;
            let prefix = &prefix[..at];
            if small {
                self.output.extend_from_slice(prefix);
                self.output.extend_from_slice(&frame[tail..]);
            } else {
                // What stood there was sent: this frame's prefix may grow into it.
                let prefix_at = (start + tail).checked_sub(prefix.len()).ok_or(NotUnderstood)?;
                self.input.bytes[prefix_at..start + tail].copy_from_slice(prefix);
                return Ok(Some(Piece::InPlace(prefix_at..start + length)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Flow;
    use ockam_wire::{Address, Framer, Message};

    fn feed(input: &mut Input, bytes: &[u8]) {
        let room = input.room();
        input.bytes[room][..bytes.len()].copy_from_slice(bytes);
        input.received(bytes.len());
    }

    fn names(route: ockam_wire::Route<'_>) -> Vec<Address> {
        route.iter().map(|address| address.to_address()).collect()
    }

    #[test]
    fn an_answer_has_its_routes_swapped_and_nothing_else() {
        let (onward, back) = ([Address::local("echo")], [Address::local([b'a'; 32]), Address::local("b")]);
        let (there, here) = (Flow::new(&onward, &back, 64), Flow::new(&back, &onward, 64));
        let mut swap = Swap::default();
        for sequence in 0..1000 {
            let mut frame = Vec::new();
            there.write(sequence, &mut frame);
            let (first, second) = frame.split_at(sequence as usize % frame.len());
            feed(&mut swap.input, first);
            swap.answer().unwrap();
            feed(&mut swap.input, second);
            swap.answer().unwrap();
            assert!(here.is(sequence, &swap.output));
            swap.output.clear();
        }
    }

    #[test]
    fn a_relay_moves_one_address_and_leaves_the_rest() {
        let onward = [Address { kind: 1, name: b"127.0.0.1:4000".to_vec() }, Address::local("sink")];
        let back = [Address::local([b'a'; 32])];
        let mut bytes = Vec::new();
        let sizes = [64, 70_000, 64, 64, 300_000, 70_000, 5_000, 64];
        for (sequence, size) in sizes.iter().enumerate() {
            Flow::new(&onward, &back, *size).write(sequence as u64, &mut bytes);
        }
        let (mut relay, mut sent) = (Relay::default(), Vec::new());
        for chunk in bytes.chunks(100_000) {
            feed(&mut relay.input, chunk);
            while let Some(piece) = relay.next_piece().unwrap() {
                match piece {
                    Piece::Gathered => sent.append(&mut relay.output),
                    Piece::InPlace(range) => sent.extend_from_slice(&relay.input.bytes[range]),
                }
            }
        }
        let mut framer = Framer::new();
        framer.push(&sent);
        for (sequence, size) in sizes.iter().enumerate() {
            let frame = framer.next().unwrap().unwrap();
            let message = Message::parse(frame).unwrap();
            assert_eq!(names(message.onward), [Address::local("sink")]);
            assert_eq!(names(message.return_route), [Address::local([b'7'; 32]), Address::local([b'a'; 32])]);
            let whole = [&(frame.len() as u32).to_be_bytes()[..], frame].concat();
            assert!(Flow::of_frame(&whole).unwrap().is(sequence as u64, &whole), "frame {sequence} of {size} bytes");
        }
        assert_eq!(framer.buffered(), 0);
    }

    #[test]
    fn what_is_not_understood_is_said() {
        for bytes in [&[0, 0, 0, 4, 0x40, 1, 2, 3][..], &[0xff; 8], &[0, 0, 0, 3, 0x83, 0x9f, 0xff]] {
            let mut relay = Relay::default();
            feed(&mut relay.input, bytes);
            assert_eq!(relay.next_piece(), Err(NotUnderstood));
        }
    }
}
