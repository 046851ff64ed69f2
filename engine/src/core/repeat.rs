//! Frames that look like the one before.
//!
//! Most small frames of a link come in a row to one address, with heads that are equal to the last byte. What the path
//! said about the first of them holds for those behind it in the same chunk: nothing but this core's own work happens in
//! between. So they are found by comparing bytes, written in one go, and queued as one segment.
//!
//! ```text
//!   received    | head | payload 0 | tail | head | payload 1 | tail | head | payload 2 | tail | other ...
//!                 route, compose            \______ equal ______/     \______ equal ______/
//!   written     | prefix | payload 0 | tail | prefix | payload 1 | tail | prefix | payload 2 | tail |
//! ```

use super::Core;
use super::carry::{Arrival, Layer};
use super::egress::Composed;
use crate::io::driver::Driver;
use crate::io::pool::Slot;
use crate::path::tables::ReplyKey;
use ockam_engine_abi::{Counter, LinkId};
use ockam_wire::Message;
use ockam_wire::undeliverable::Offer;
use std::ops::Range;

/// Longest prefix that is repeated; those of nearly all frames are shorter.
const PREFIX_MAX: usize = 512;

/// Most bytes that are written in one go, so that a link which turned full is not fed much further.
const RUN_BYTES_MAX: usize = 16 * 1024;

/// What was done about a frame that left on a link of this core, its payload unchanged and copied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Repeat {
    /// Where it left.
    pub(super) link: LinkId,
    /// The place that the link may answer to.
    pub(super) reply: Option<ReplyKey>,
    /// What it counted as.
    pub(super) counter: Counter,
    /// Bytes of the received frame in front of its payload, its length included.
    pub(super) head: usize,
    /// Bytes of the payload.
    pub(super) payload: usize,
    /// Bytes in front of the payload in what was written last.
    pub(super) prefix: usize,
}

impl<D: Driver> Core<D> {
    /// Remembers what is done about a message, whose frame's `body` is given, if another frame may be like it: it came in on
    /// a link, leaves on a link of this core, was copied together, and ends as it came.
    pub(super) fn may_repeat(
        &mut self,
        arrival: &Arrival<'_>,
        layer: &Layer,
        repeat: Repeat,
        message: &Message<'_>,
        body: &[u8],
        composed: &Composed,
    ) {
        let Composed::Copied(segment) = composed else { return };
        if !arrival.is_a_frame() || layer.channel.is_some() {
            return;
        }
        // The head counts the frame's length, which the body does not have.
        let tail = &body[repeat.head - 4 + repeat.payload..];
        let is_repeatable = repeat.link.core() == self.index
            && repeat.prefix <= PREFIX_MAX
            && segment.bytes()[repeat.prefix + repeat.payload..] == *tail
            && message.tracing.is_none_or(|text| Offer::parse(text).is_none());
        self.repeatable = is_repeatable.then_some(repeat);
    }

    /// Does with frames at the beginning of `rest` what was done with the one at `first`, as far as they are like it.
    /// Gives how many.
    pub(super) fn repeat(&mut self, repeat: Repeat, slot: &Slot, first: Range<usize>, rest: Range<usize>) -> usize {
        let Repeat { link, reply, counter, head, payload, prefix } = repeat;
        let (total, frame) = (first.len(), slot.bytes(first));
        let rest = slot.bytes(rest);
        let is_alike =
            |other: &&[u8]| other[..head] == frame[..head] && other[head + payload..] == frame[head + payload..];
        let written = prefix + total - head;
        let most = (self.scribe_room() / written).min(RUN_BYTES_MAX / written);
        let count = rest.chunks_exact(total).take(most).take_while(is_alike).count();
        let is_ready = |index: u32| !self.links[index].egress.full;
        if count == 0 || !self.open_link(link).is_some_and(is_ready) {
            return 0;
        }
        let mut template = [0; PREFIX_MAX];
        template[..prefix].copy_from_slice(&self.last_written(written)[..prefix]);
        let segment = self.write(count * written, |out| {
            for (out, frame) in out.chunks_exact_mut(written).zip(rest.chunks_exact(total)) {
                let (front, back) = out.split_at_mut(prefix);
                front.copy_from_slice(&template[..prefix]);
                back.copy_from_slice(&frame[head..]);
            }
        });
        let segment = segment.expect("there is room");
        self.counters.add(counter, count as u64);
        self.counters.add(Counter::BytesCopied, (count * payload) as u64);
        // Queueing counts one.
        self.counters.add(Counter::FramesOut, count as u64 - 1);
        self.links[link.index()].traffic.frames_out += count as u64 - 1;
        self.queue(link, reply, [Some(segment), None, None]);
        count
    }
}
