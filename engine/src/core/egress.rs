//! Frames become segments, segments are sent: one vectored send per link at a time.

use super::carry::Payload;
use super::link::State;
use super::mesh::{Cross, FrameSegments};
use super::portals::Portal;
use super::{Core, Scribe};
use crate::config::{ANSWER_WAITS_BYTES, COPY_MAX, SEGMENTS_SHARED_MAX, SEND_SEGMENTS_MAX};
use crate::io::driver::{Answer, Driver, SocketId};
use crate::io::pool::{Segment, Slot};
use crate::path::channel::Channel;
use crate::path::tables::ReplyKey;
use ockam_engine_abi::{CloseReason, Counter, DropReason, LinkId};
use ockam_wire::{Measured, PREAMBLE};
use rustix::io::Errno;
use std::ops::Range;
use std::sync::Arc;

/// A frame ready to be queued.
pub(super) enum Composed {
    /// All of it was written.
    Copied(Segment),
    /// Its payload stays where it was received.
    Shared {
        /// What comes before the payload.
        prefix: Segment,
        /// The payload, in the slot of the received frame.
        payload: Range<usize>,
        /// What comes after it.
        suffix: Option<Segment>,
    },
}

impl<D: Driver> Core<D> {
    /// Composes a frame. `None` when no slot is free.
    pub(super) fn compose(&mut self, link: LinkId, outgoing: &Measured<'_>, payload: Payload<'_>) -> Option<Composed> {
        let fits = outgoing.frame_len() <= self.pool.small().body;
        let (payload, payload_at) = match payload {
            Payload::InSlot { bytes, at, .. } if bytes.len() > COPY_MAX && !(fits && self.is_crowded(link)) => {
                (bytes, at)
            }
            Payload::InSlot { .. } | Payload::Apart(_) => {
                self.counters.add(Counter::BytesCopied, payload.len() as u64);
                return self.compose_with(outgoing, |out| payload.write(out)).map(Composed::Copied);
            }
            Payload::Uppercase(_) => {
                return self.compose_with(outgoing, |out| payload.write(out)).map(Composed::Copied);
            }
        };
        let prefix = self.write(outgoing.prefix_len(), |out| outgoing.write_prefix(out))?;
        let suffix = match outgoing.suffix_len() {
            0 => None,
            length => match self.write(length, |out| outgoing.write_suffix(out)) {
                Some(suffix) => Some(suffix),
                None => {
                    self.pool.release(prefix);
                    return None;
                }
            },
        };
        Some(Composed::Shared { prefix, payload: payload_at..payload_at + payload.len(), suffix })
    }

    /// Whether so many segments wait on a link that another should not keep a slot of its own.
    pub(super) fn is_crowded(&self, link: LinkId) -> bool {
        link.core() == self.index
            && self
                .links
                .get(link.index(), link.generation())
                .is_some_and(|link| link.egress.queue.len() >= SEGMENTS_SHARED_MAX)
    }

    /// Composes a frame whose payload is written in place. `None` when no slot is free.
    pub(super) fn compose_with(&mut self, outgoing: &Measured<'_>, payload: impl FnOnce(&mut [u8])) -> Option<Segment> {
        self.write(outgoing.frame_len(), |out| {
            let (prefix, rest) = out.split_at_mut(outgoing.prefix_len());
            let (body, suffix) = rest.split_at_mut(outgoing.payload_len());
            outgoing.write_prefix(prefix);
            payload(body);
            outgoing.write_suffix(suffix);
        })
    }

    /// The segments of a composed frame; the received slot is shared if its payload stays there.
    pub(super) fn segments(&mut self, composed: Composed, received: &mut Slot) -> FrameSegments {
        match composed {
            Composed::Copied(segment) => [Some(segment), None, None],
            Composed::Shared { prefix, payload, suffix } => {
                [Some(prefix), Some(self.pool.share(received, payload)), suffix]
            }
        }
    }

    /// Makes sure that the next `length` bytes, which are few, find room in the scribe's slot.
    pub(super) fn has_scribe_room(&mut self, length: usize) -> bool {
        if self.scribe.slot.as_ref().is_none_or(|slot| self.scribe.end + length > slot.size()) {
            let Some(fresh) = self.pool.take() else { return false };
            if let Some(old) = self.scribe.slot.replace(fresh) {
                self.pool.put(old);
            }
            self.scribe.end = 0;
        }
        true
    }

    /// Bytes that still fit the scribe's slot.
    pub(super) fn scribe_room(&self) -> usize {
        self.scribe.slot.as_ref().map_or(0, |slot| slot.size() - self.scribe.end)
    }

    /// What was written last into the scribe's slot.
    pub(super) fn last_written(&self, length: usize) -> &[u8] {
        let end = self.scribe.end;
        self.scribe.slot.as_ref().map_or(&[], |slot| slot.bytes(end - length..end))
    }

    /// Writes `length` bytes into the scribe's slot, or into a large one.
    pub(super) fn write(&mut self, length: usize, fill: impl FnOnce(&mut [u8])) -> Option<Segment> {
        let small = self.pool.small();
        if length > small.head + small.body {
            let mut large = self.pool.take_large()?;
            fill(large.bytes_mut(0..length));
            let segment = self.pool.share(&mut large, 0..length);
            self.pool.put(large);
            return Some(segment);
        }
        if !self.has_scribe_room(length) {
            return None;
        }
        let Scribe { slot, end } = &mut self.scribe;
        let slot = slot.as_mut().expect("it was just put there");
        let range = *end..*end + length;
        *end = range.end;
        fill(slot.bytes_mut(range.clone()));
        Some(self.pool.share(slot, range))
    }

    /// Queues a frame on a link of this or another core.
    pub(super) fn dispatch(&mut self, link: LinkId, reply: Option<ReplyKey>, segments: FrameSegments) {
        if link.core() == self.index {
            return self.queue(link, reply, segments);
        }
        self.counters.add(Counter::CrossCoreFrames, 1);
        let frame = Cross::Frame { link, reply, segments };
        if let Err(frame) = self.mesh.cross(self.index, link.core(), frame) {
            // There was room before it was composed, and this core is the only one that fills the queue; releases
            // of the same tick may have taken it.
            self.overflow.push_back((link.core(), frame));
        }
    }

    /// Has another core seal a message for a channel whose records leave there.
    pub(super) fn dispatch_to_channel(&mut self, channel: Arc<Channel>, link: LinkId, segments: FrameSegments) {
        self.counters.add(Counter::CrossCoreFrames, 1);
        self.cross(link.core(), Cross::Seal { channel, segments });
    }

    /// Queues a frame, composed here or by another core, on a link of this core.
    pub(super) fn queue(&mut self, id: LinkId, reply: Option<ReplyKey>, segments: FrameSegments) {
        let Some(index) = self.open_link(id) else {
            self.counters.add(DropReason::LinkClosed, 1);
            return segments.into_iter().flatten().for_each(|segment| self.release(segment));
        };
        self.counters.add(Counter::FramesOut, 1);
        let link = &mut self.links[index];
        link.traffic.frames_out += 1;
        if let Some(reply) = reply {
            link.replies.admit(reply);
        }
        let was_empty = link.egress.queue.is_empty();
        for mut segment in segments.into_iter().flatten() {
            let egress = &mut self.links[index].egress;
            egress.bytes += segment.len();
            // Also while a send is in flight: it covers the bytes it was given, and what it took is counted in bytes.
            if egress.queue.back_mut().is_some_and(|last| last.take_in(&mut segment)) {
                self.release(segment);
            } else {
                egress.queue.push_back(segment);
            }
        }
        if was_empty {
            self.links[index].egress.progress_ms = self.now_ms;
            self.unsent.push(index);
            self.attend(index);
        }
        self.tell_if_full(index);
    }

    /// Sends what waits on links that have no send in flight.
    pub(super) fn send_queued(&mut self) {
        for place in 0..self.unsent.len() {
            self.send_on(self.unsent[place]);
        }
        self.unsent.clear();
    }

    pub(super) fn send_on(&mut self, index: u32) {
        let Some(link) = self.links.at_mut(index) else { return };
        if link.egress.sending || link.egress.queue.is_empty() {
            return;
        }
        // Before the peer's version byte nothing is sent but ours.
        let ready = match link.state {
            State::Up | State::Flushing(_) => link.egress.queue.len(),
            State::ExpectPreamble if link.egress.preamble_unsent => 1,
            _ => return,
        };
        link.egress.sending = true;
        let answer = if self.awaits(index) { Answer::AtOnce } else { Answer::WithTheNext };
        let link = &self.links[index];
        self.driver.send(link.socket, link.egress.queue.iter().take(ready), answer);
    }

    /// Whether there is something to do as soon as all that is queued on the link is sent.
    fn awaits(&self, index: u32) -> bool {
        let link = &self.links[index];
        let egress = &link.egress;
        link.state != State::Up
            || self.drain_ms.is_some()
            || egress.bytes > ANSWER_WAITS_BYTES
            || egress.queue.len() > SEND_SEGMENTS_MAX
            || egress.full
            || !egress.waiters.is_empty()
            || link.portal().is_some_and(|portal| portal.awaits(egress.bytes))
            // Slots are short.
            || !self.blocked.is_empty()
            || !self.unarmed.is_empty()
            || !self.unsaid.is_empty()
            || !self.unfilled.is_empty()
            // Another core may wait for its slots.
            || egress.queue.iter().any(|segment| segment.slot().core != self.index)
    }

    pub(super) fn on_sent(&mut self, socket: SocketId, result: Result<usize, Errno>) {
        let index = socket.index;
        let Some(link) = self.links.get_mut(index, socket.generation) else { return };
        link.egress.sending = false;
        let mut left = match result {
            Ok(count) => count,
            Err(errno) => {
                let reset = matches!(errno, Errno::CONNRESET | Errno::PIPE);
                return self.close(index, if reset { CloseReason::Reset } else { CloseReason::SendFailed });
            }
        };
        let length = left;
        link.traffic.bytes_out += left as u64;
        link.egress.bytes -= left;
        link.egress.window_bytes += left as u64;
        if left > 0 {
            link.egress.progress_ms = self.now_ms;
            link.egress.preamble_unsent = false;
        }
        while left > 0 {
            let egress = &mut self.links[index].egress;
            let front = egress.queue.front_mut().expect("no more is sent than was queued");
            if left < front.len() {
                front.advance(left);
                break;
            }
            left -= front.len();
            let segment = egress.queue.pop_front().expect("it was just looked at");
            self.release(segment);
        }
        if self.links[index].portal().is_some() {
            self.stream_sent(index, length);
        } else {
            self.counters.add(Counter::BytesOut, length as u64);
        }
        // What is said by that may have ended it.
        let Some(link) = self.links.get_mut(index, socket.generation).filter(|link| link.is_open()) else { return };
        if !link.egress.queue.is_empty() {
            self.unsent.push(index);
        } else if link.egress.bytes > 0 {
            // It is refilled when there is a slot.
        } else if let State::Flushing(reason) = link.state {
            return self.close(index, reason);
        }
        self.tell_if_full(index);
    }

    /// A segment was sent or dropped; it may be another core's.
    pub(super) fn release(&mut self, segment: Segment) {
        let core = segment.slot().core;
        if core == self.index {
            self.pool.release(segment);
        } else {
            self.cross(core, Cross::Release(segment));
        }
    }

    /// A link that became full stops its sources; one that is no longer lets them go on.
    pub(super) fn tell_if_full(&mut self, index: u32) {
        let link = &mut self.links[index];
        // One that has credit holds back its own other end, and nobody else.
        if link.portal().is_some_and(Portal::is_patient) {
            return;
        }
        match link.egress.turned_full() {
            Some(true) => self.mesh.set_full(self.index, index, true),
            Some(false) => {
                self.resume.extend(link.egress.waiters.drain(..));
                self.mesh.set_full(self.index, index, false);
            }
            None => {}
        }
    }

    /// The slot of a preamble byte.
    pub(super) fn queue_preamble(&mut self, index: u32) -> bool {
        let Some(segment) = self.write(1, |out| out[0] = PREAMBLE) else { return false };
        let egress = &mut self.links[index].egress;
        egress.bytes += 1;
        egress.queue.push_front(segment);
        egress.preamble_unsent = true;
        egress.progress_ms = self.now_ms;
        self.unsent.push(index);
        true
    }

    /// Writes from the beginning of the scribe's slot again if everything in it was sent: that memory is in the cache.
    pub(super) fn rewind_scribe(&mut self) {
        if let Some(slot) = &mut self.scribe.slot
            && self.pool.thaw(slot)
        {
            self.scribe.end = 0;
        }
    }
}
