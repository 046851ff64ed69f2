//! Bytes of a link become frames, frames are carried out.

use super::carry::{Arrival, Layer, Source, Stop};
use super::link::{Link, Partial, Receiving, State};
use super::{Blocker, Core};
use crate::config::{ASSEMBLY_BYTES_MAX, COPY_MAX, HELD_PARTIALS_MAX, SENDING_SLOTS_MIN, SLOT_HEAD};
use crate::io::driver::{Driver, ReceiveEnd, SocketId};
use crate::io::pool::Slot;
use ockam_engine_abi::{CloseReason, Counter, DropReason};
use ockam_wire::{PREAMBLE, frame_length};
use std::ops::Range;
use std::sync::atomic::Ordering;

/// An unfinished frame that does not fit a small slot moves to a large one when this much of it has arrived: large slots
/// are few, so a claimed length alone takes none.
const LARGE_AT: usize = 64 * 1024;

/// A link whose frames are this large receives them one after the other into slots of its own, as soon as one of them came
/// in parts: each where its beginning lies already, and no further than to the end of a frame. Smaller ones are cheaper
/// to copy together.
const WHOLE_AT: usize = 16 * 1024;

/// Links that receive large frames take turns in which about this much comes: it is sent while it is in the cache of a core, and
/// what comes next goes into the slots that it leaves there.
const CACHED_BYTES: usize = 256 * 1024;

/// How long a link may wait for its next frame with a slot of its own, in milliseconds.
const WHOLE_IDLE_MS: u64 = 500;

/// While others wait for a large slot, who has one must fill it at [`LARGE_RATE_MIN`] but for so many milliseconds. Frames that
/// portals send need no such slot, and to keep all of them busy takes as much as an honest sender of large frames has.
const LARGE_GRACE_MS: u64 = 1_000;
/// Bytes per second, see [`LARGE_GRACE_MS`].
const LARGE_RATE_MIN: u64 = 1024 * 1024;

impl<D: Driver> Core<D> {
    /// A receive filled the first `length` bytes of the slot's body.
    pub(super) fn on_received(&mut self, index: u32, slot: Slot, length: usize) {
        let head = self.pool.small().head;
        let link = &mut self.links[index];
        link.traffic.bytes_in += length as u64;
        let range = head..head + length;
        if link.portal().is_some() {
            // One receive is over by what it gave.
            link.ingest.receiving = Receiving::Off;
            self.counters.add(Counter::PortalBytesIn, length as u64);
        } else {
            self.counters.add(Counter::BytesIn, length as u64);
        }
        if link.ingest.blocked || !link.ingest.parked.is_empty() {
            link.ingest.parked.push_back((slot, range));
        } else {
            self.consume(index, slot, range);
        }
    }

    /// The driver gives back the slot that [`Core::receive_whole`] lent, with `length` more bytes.
    pub(super) fn on_filled(&mut self, index: u32, slot: Slot, length: usize) {
        let link = &mut self.links[index];
        let Partial::Lent { kept, large } = std::mem::take(&mut link.ingest.partial) else {
            unreachable!("one slot was lent")
        };
        let filled = kept.start..kept.end + length;
        if length > 0 {
            link.ingest.receiving = Receiving::Off;
            link.traffic.bytes_in += length as u64;
            self.counters.add(Counter::BytesIn, length as u64);
        }
        match large {
            Some(total) if filled.len() < total => {
                link.ingest.partial = Partial::Large { slot, filled: filled.len(), total };
                self.mesh.assembly_bytes.fetch_add(length as u64, Ordering::Relaxed);
                self.bound_assembly();
            }
            Some(_) => {
                self.mesh.assembly_bytes.fetch_sub(kept.len() as u64, Ordering::Relaxed);
                self.frames(index, slot, filled, true);
            }
            None if length > 0 => {
                self.held_partials -= 1;
                self.frames(index, slot, filled, !kept.is_empty());
            }
            None if kept.is_empty() => {
                self.held_partials -= 1;
                self.pool.put(slot);
            }
            None => link.ingest.partial = Partial::Held(slot, kept),
        }
        if length > 0
            && let Some(link) = self.links.at_mut(index)
            && link.is_open()
        {
            self.resting.push_back((link.id, length));
        }
    }

    /// Receives on links that rested since what they received was sent, or at least offered to the kernel.
    pub(super) fn receive_rested(&mut self) {
        let mut bytes = 0;
        for _ in 0..std::mem::take(&mut self.rested) {
            if bytes >= CACHED_BYTES {
                break;
            }
            let Some((link, length)) = self.resting.pop_front() else { break };
            bytes += length;
            if let Some(index) = self.open_link(link) {
                self.receive(index);
            }
        }
        // The wait that comes submits what the others received.
        self.rested = self.resting.len();
    }

    pub(super) fn on_receive_ended(&mut self, socket: SocketId, end: ReceiveEnd) {
        let index = socket.index;
        let Some(link) = self.links.get_mut(index, socket.generation) else { return };
        link.ingest.receiving = Receiving::Off;
        if !link.is_open() {
            return;
        }
        match end {
            ReceiveEnd::NoSlots => self.on_no_slots(index),
            ReceiveEnd::Paused => self.receive(index),
            ReceiveEnd::Failed(_) => self.close(index, CloseReason::Reset),
            ReceiveEnd::Eof => {
                let reason = match link.ingest.partial_len() {
                    0 => CloseReason::PeerClosed,
                    _ => CloseReason::Reset,
                };
                link.ingest.ended = Some(reason);
                self.end_if_all_read(index);
            }
        }
    }

    /// The peer sends no more: once everything was looked at, what waits for it is sent and the link closes.
    fn end_if_all_read(&mut self, index: u32) {
        let link = &mut self.links[index];
        let Some(reason) = link.ingest.ended else { return };
        if link.ingest.blocked || !link.ingest.parked.is_empty() {
            return;
        }
        match link.state {
            State::Up if link.portal().is_some() => self.end_of_stream(index),
            State::Up => self.flush_and_close(index, reason),
            State::ExpectPreamble => self.fail_or_close(index, reason, DropReason::NotANode),
            _ => {}
        }
    }

    /// Links that may go on reading do.
    pub(super) fn resume_links(&mut self) {
        self.catch_up();
        if !self.blocked.is_empty() {
            self.resume.extend(self.blocked.drain(..));
        }
        for _ in 0..self.resume.len() {
            let Some(link) = self.resume.pop_front() else { break };
            let Some(index) = self.open_link(link) else { continue };
            let ingest = &mut self.links[index].ingest;
            ingest.blocked = false;
            // The time that the link was not read is not the peer's.
            ingest.frame_began_ms = self.now_ms;
            if self.links[index].portal().is_some() && !self.resume_stream(index) {
                continue;
            }
            while let Some(ingest) = self.links.at_mut(index).map(|link| &mut link.ingest)
                && !ingest.blocked
                && let Some((slot, range)) = ingest.parked.pop_front()
            {
                self.consume(index, slot, range);
            }
            if self.open_link(link).is_some() {
                self.end_if_all_read(index);
                self.receive(index);
            }
        }
    }

    /// The link stops reading until what blocks it does no longer. `unread` is the first thing to read then.
    fn block(&mut self, index: u32, blocker: Blocker, unread: (Slot, Range<usize>)) {
        self.links[index].ingest.parked.push_front(unread);
        self.stop(index, blocker);
    }

    /// The link reads no more until what blocks it does no longer; the caller keeps what it has not read.
    pub(super) fn stop(&mut self, index: u32, blocker: Blocker) {
        self.counters.add(Counter::Pauses, 1);
        let link = &mut self.links[index];
        let (id, socket) = (link.id, link.socket);
        link.ingest.blocked = true;
        if link.ingest.receiving == Receiving::On {
            link.ingest.receiving = Receiving::Stopping;
            self.driver.pause(socket);
        }
        match blocker {
            Blocker::Egress(full) => self.links[full.index()].egress.waiters.push(id),
            Blocker::Elsewhere | Blocker::Slots => self.blocked.push(id),
        }
    }

    /// Takes bytes that follow what the link sent before.
    fn consume(&mut self, index: u32, slot: Slot, mut range: Range<usize>) {
        if self.links[index].portal().is_some() {
            return self.consume_stream(index, slot, range);
        }
        if self.links[index].state == State::ExpectPreamble {
            if slot.bytes(range.start..range.start + 1) != [PREAMBLE] {
                self.pool.put(slot);
                return self.fail_or_close(index, CloseReason::BadVersion, DropReason::NotANode);
            }
            range.start += 1;
            self.on_preamble(index);
            if !self.links[index].is_open() {
                return self.pool.put(slot);
            }
        }
        let began = self.links[index].ingest.partial_len() > 0;
        if let Some((slot, range)) = self.join(index, slot, range) {
            self.frames(index, slot, range, began);
        }
    }

    /// Carries out the whole frames at `range` of the slot and keeps the rest. `began` when the first one did earlier.
    fn frames(&mut self, index: u32, mut slot: Slot, mut range: Range<usize>, began: bool) {
        let source = Source::of(&self.links[index]);
        let (mut frames, mut largest) = (0, 0);
        loop {
            let bytes = slot.bytes(range.clone());
            let Some(head) = bytes.first_chunk::<4>() else { break };
            let length = match frame_length(*head) {
                Ok(length) => length,
                Err(error) => {
                    let reason = match error {
                        ockam_wire::FrameError::TooLarge => CloseReason::FrameTooLarge,
                        _ => CloseReason::Malformed,
                    };
                    self.pool.put(slot);
                    return self.close(index, reason);
                }
            };
            let end = range.start + 4 + length;
            if end > range.end {
                // What came of it counts, not what it claims.
                largest = largest.max(bytes.len());
                break;
            }
            largest = largest.max(4 + length);
            self.repeatable = None;
            let is_followed =
                bytes.get(4 + length..).is_some_and(|next| next.len() >= 4 + length && next[..4] == *head);
            match self.on_frame(&source, &mut slot, range.start + 4..end, is_followed) {
                Ok(()) => {}
                Err(Stop::Malformed) => {
                    self.pool.put(slot);
                    return self.close(index, CloseReason::Malformed);
                }
                Err(Stop::Blocked(blocker)) => {
                    self.count_in(index, frames);
                    return self.block(index, blocker, (slot, range));
                }
            }
            frames += 1;
            if let Some(repeat) = self.repeatable.take() {
                let more = self.repeat(repeat, &source, &mut slot, range.start..end, end..range.end);
                frames += more as u64;
                range.start = end + more * (4 + length);
            } else {
                range.start = end;
            }
        }
        self.count_in(index, frames);
        if frames > 0 || !began {
            self.links[index].ingest.frame_began_ms = self.now_ms;
        }
        let ingest = &mut self.links[index].ingest;
        ingest.frame_bytes = if frames > 0 { largest } else { largest.max(ingest.frame_bytes) };
        self.keep_rest(index, slot, range);
        // What the driver has received by itself until it stops is put together as it comes.
        if let Some(link) = self.links.at_mut(index)
            && link.is_open()
            && link.ingest.receiving == Receiving::On
            && link.ingest.frame_bytes >= WHOLE_AT
            && match link.ingest.partial {
                Partial::Held(..) | Partial::Large { .. } => true,
                Partial::Copied => self.held_partials < HELD_PARTIALS_MAX,
                Partial::None | Partial::Lent { .. } => false,
            }
        {
            link.ingest.receiving = Receiving::Stopping;
            self.driver.pause(link.socket);
        }
    }

    /// Receives the rest of the unfinished frame where its beginning lies, and as many frames of the same size as fit
    /// behind it. Says whether it does: the frames are large, and there is a slot.
    pub(super) fn receive_whole(&mut self, index: u32) -> bool {
        let end = self.pool.small().head + self.pool.small().body;
        let has_spare = self.held_partials < HELD_PARTIALS_MAX && self.pool.census().0 > SENDING_SLOTS_MIN;
        let link = &mut self.links[index];
        let socket = link.socket;
        let frame = link.ingest.frame_bytes;
        if link.state != State::Up || frame < WHOLE_AT {
            return false;
        }
        let (slot, kept) = match std::mem::take(&mut link.ingest.partial) {
            Partial::Large { slot, filled, total } => {
                link.ingest.partial = Partial::Lent { kept: 0..filled, large: Some(total) };
                self.driver.receive_into(socket, slot, filled..total);
                return true;
            }
            Partial::Held(slot, kept) if kept.end + missing(slot.bytes(kept.clone())) <= end => (slot, kept),
            Partial::Held(slot, kept) => {
                let Some(mut fresh) = self.pool.take() else {
                    link.ingest.partial = Partial::Held(slot, kept);
                    return false;
                };
                self.counters.add(Counter::BytesCopied, kept.len() as u64);
                fresh.bytes_mut(0..kept.len()).copy_from_slice(slot.bytes(kept.clone()));
                self.pool.put(slot);
                (fresh, 0..kept.len())
            }
            partial @ (Partial::None | Partial::Copied) => {
                let Some(mut fresh) = has_spare.then(|| self.pool.take()).flatten() else {
                    link.ingest.partial = partial;
                    return false;
                };
                self.held_partials += 1;
                let kept = link.ingest.copied.len();
                self.mesh.assembly_bytes.fetch_sub(kept as u64, Ordering::Relaxed);
                self.counters.add(Counter::BytesCopied, kept as u64);
                fresh.bytes_mut(0..kept).copy_from_slice(&link.ingest.copied);
                link.ingest.copied.clear();
                (fresh, 0..kept)
            }
            Partial::Lent { .. } => unreachable!("the driver receives already"),
        };
        let missing = if kept.is_empty() { 0 } else { missing(slot.bytes(kept.clone())) };
        let room = end - kept.end;
        let wanted = match missing + room.saturating_sub(missing) / frame * frame {
            whole if (1..=room).contains(&whole) => whole,
            // What is too large for this slot moves to a large one once so much of it is there.
            _ => LARGE_AT.saturating_sub(kept.len()).clamp(1, room),
        };
        let at = kept.end;
        link.ingest.partial = Partial::Lent { kept, large: None };
        self.driver.receive_into(socket, slot, at..at + wanted);
        self.attend(index);
        true
    }

    /// A link that waits for its next frame with a slot of its own does not wait so for long.
    pub(super) fn stop_waiting_with_a_slot(&mut self, index: u32) {
        let now_ms = self.now_ms;
        let link = &mut self.links[index];
        if let Partial::Lent { kept, .. } = &link.ingest.partial
            && kept.is_empty()
            && link.ingest.receiving == Receiving::On
            && now_ms >= link.ingest.frame_began_ms + WHOLE_IDLE_MS
        {
            link.ingest.frame_bytes = 0;
            link.ingest.receiving = Receiving::Stopping;
            self.driver.pause(link.socket);
        }
    }

    fn count_in(&mut self, index: u32, frames: u64) {
        self.links[index].traffic.frames_in += frames;
        self.counters.add(Counter::FramesIn, frames);
    }

    /// Brings what was kept of an unfinished frame together with the bytes that follow it. `None` when there is nothing
    /// to look at: the frame is still not complete, or the link closed.
    fn join(&mut self, index: u32, mut slot: Slot, mut range: Range<usize>) -> Option<(Slot, Range<usize>)> {
        let ingest = &mut self.links[index].ingest;
        match std::mem::take(&mut ingest.partial) {
            Partial::None => Some((slot, range)),
            Partial::Lent { .. } => unreachable!("bytes come into the slot that was lent"),
            Partial::Copied => {
                let kept = ingest.copied.len();
                self.mesh.assembly_bytes.fetch_sub(kept as u64, Ordering::Relaxed);
                // Whichever is shorter moves, so that a peer that trickles cannot make this core copy the rest over
                // and over.
                if range.len() < kept && missing(&ingest.copied) > range.len() {
                    self.counters.add(Counter::BytesCopied, range.len() as u64);
                    ingest.copied.extend_from_slice(slot.bytes(range));
                    self.pool.put(slot);
                    self.keep_copied(index);
                    return None;
                }
                self.counters.add(Counter::BytesCopied, kept as u64);
                range.start -= kept;
                slot.bytes_mut(range.start..range.start + kept).copy_from_slice(&ingest.copied);
                ingest.copied.clear();
                Some((slot, range))
            }
            Partial::Held(mut held, kept) => {
                self.held_partials -= 1;
                self.counters.add(Counter::BytesCopied, range.len().min(kept.len()) as u64);
                if range.len() <= kept.len() && kept.end + range.len() <= held.size() {
                    held.bytes_mut(kept.end..kept.end + range.len()).copy_from_slice(slot.bytes(range.clone()));
                    self.pool.put(slot);
                    Some((held, kept.start..kept.end + range.len()))
                } else {
                    range.start -= kept.len();
                    slot.bytes_mut(range.start..range.start + kept.len()).copy_from_slice(held.bytes(kept));
                    self.pool.put(held);
                    Some((slot, range))
                }
            }
            Partial::Large { slot: mut large, filled, total } => {
                let taken = range.len().min(total - filled);
                large.bytes_mut(filled..filled + taken).copy_from_slice(slot.bytes(range.start..range.start + taken));
                self.counters.add(Counter::BytesCopied, taken as u64);
                if filled + taken < total {
                    self.mesh.assembly_bytes.fetch_add(taken as u64, Ordering::Relaxed);
                    self.links[index].ingest.partial = Partial::Large { slot: large, filled: filled + taken, total };
                    self.pool.put(slot);
                    self.bound_assembly();
                    return None;
                }
                self.mesh.assembly_bytes.fetch_sub(filled as u64, Ordering::Relaxed);
                range.start += taken;
                self.consume(index, large, 0..total);
                // What follows is looked at after the large frame, in whatever state that left the link.
                match self.links.at_mut(index) {
                    Some(link) if !link.is_open() => self.pool.put(slot),
                    Some(link) if link.ingest.blocked => link.ingest.parked.insert(1, (slot, range)),
                    Some(_) => return Some((slot, range)),
                    None => self.pool.put(slot),
                }
                None
            }
        }
    }

    /// Keeps the beginning of a frame that is not complete.
    fn keep_rest(&mut self, index: u32, slot: Slot, range: Range<usize>) {
        if range.is_empty() || !self.links[index].is_open() {
            return self.pool.put(slot);
        }
        let length = slot.bytes(range.clone()).first_chunk::<4>().map_or(0, |head| u32::from_be_bytes(*head));
        let total = 4 + length as usize;
        let ingest = &mut self.links[index].ingest;
        if total > SLOT_HEAD && range.len() >= LARGE_AT {
            let Some(mut large) = self.take_large() else {
                return self.block(index, Blocker::Slots, (slot, range));
            };
            let filled = range.len();
            large.bytes_mut(0..filled).copy_from_slice(slot.bytes(range));
            self.counters.add(Counter::BytesCopied, filled as u64);
            self.mesh.assembly_bytes.fetch_add(filled as u64, Ordering::Relaxed);
            self.pool.put(slot);
            self.links[index].ingest.partial = Partial::Large { slot: large, filled, total };
            self.attend(index);
            self.bound_assembly();
        } else if range.len() > COPY_MAX && self.held_partials < HELD_PARTIALS_MAX {
            self.held_partials += 1;
            ingest.partial = Partial::Held(slot, range);
            self.attend(index);
        } else {
            self.counters.add(Counter::BytesCopied, range.len() as u64);
            ingest.copied.extend_from_slice(slot.bytes(range));
            self.pool.put(slot);
            self.keep_copied(index);
        }
    }

    /// A large slot; when none is free, that of a link which sends its frame too slowly.
    fn take_large(&mut self) -> Option<Slot> {
        if let Some(slot) = self.pool.take_large() {
            return Some(slot);
        }
        let slow = |link: &&Link| {
            let large = matches!(link.ingest.partial, Partial::Large { .. } | Partial::Lent { large: Some(_), .. });
            large && link.ingest.is_late(self.now_ms, LARGE_GRACE_MS, LARGE_RATE_MIN)
        };
        let slowest = self.links.iter().filter(slow).min_by_key(|link| link.ingest.rate(self.now_ms))?;
        let index = slowest.socket.index;
        self.close(index, CloseReason::SlowFrame);
        self.pool.take_large()
    }

    fn keep_copied(&mut self, index: u32) {
        let ingest = &mut self.links[index].ingest;
        ingest.partial = Partial::Copied;
        self.mesh.assembly_bytes.fetch_add(ingest.copied.len() as u64, Ordering::Relaxed);
        self.attend(index);
        self.bound_assembly();
    }

    /// Memory for unfinished frames is bounded over all cores: beyond it the link that has waited longest goes, here the
    /// one whose frame must be complete soonest.
    fn bound_assembly(&mut self) {
        if self.mesh.assembly_bytes.load(Ordering::Relaxed) <= ASSEMBLY_BYTES_MAX {
            return;
        }
        let assembles = |link: &&Link| match link.ingest.partial {
            Partial::Copied | Partial::Large { .. } | Partial::Lent { large: Some(_), .. } => true,
            Partial::None | Partial::Held(..) | Partial::Lent { large: None, .. } => false,
        };
        let oldest = self.links.iter().filter(assembles).min_by_key(|link| link.ingest.frame_began_ms);
        if let Some(index) = oldest.map(|link| link.socket.index) {
            self.close(index, CloseReason::AssemblyLimit);
        }
    }

    /// One whole frame, without its length, at `range` of the slot.
    fn on_frame(
        &mut self,
        source: &Source,
        slot: &mut Slot,
        range: Range<usize>,
        is_followed: bool,
    ) -> Result<(), Stop> {
        let start = range.start - 4;
        let index = source.link.index();
        let arrival = Arrival::frame(source, start, is_followed);
        let carried = match self.links[index].ingest.opened.take() {
            Some(opened) => self.carry(&arrival, slot, Layer { channel: Some(opened.0), range: opened.1 }),
            None => match self.hear_familiar(source, &arrival, slot, range.clone()) {
                Some(heard) => heard,
                None => self.carry(&arrival, slot, Layer { channel: None, range }),
            },
        };
        carried.map_err(|(stop, layer)| {
            if let (Stop::Blocked(_), Layer { channel: Some(channel), range }) = (&stop, layer) {
                self.links[index].ingest.opened = Some(Box::new((channel, range)));
            }
            stop
        })
    }
}

/// Bytes that an unfinished frame lacks, or its head.
fn missing(partial: &[u8]) -> usize {
    let total = partial.first_chunk::<4>().map_or(4, |head| 4 + u32::from_be_bytes(*head) as usize);
    total.saturating_sub(partial.len())
}
