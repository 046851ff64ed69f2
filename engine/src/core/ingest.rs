//! Bytes of a link become frames, frames meet the path, verdicts are carried out.

use super::egress::Composed;
use super::link::{Link, Partial, Receiving, State, Waiting};
use super::mesh::FromCore;
use super::{Blocker, Core};
use crate::config::{
    ASSEMBLY_BYTES_MAX, COPY_MAX, HELD_PARTIALS_MAX, NOTICE_BURST, NOTICE_QUEUE, NOTICES_PER_SECOND, PUNT_BURST,
    PUNTS_PER_SECOND, SLOT_HEAD,
};
use crate::io::driver::{Driver, ReceiveEnd, SocketId};
use crate::io::pool::Slot;
use crate::path::route::{Body, Ingress, Verdict, route};
use crate::path::tables::{LinkAddress, ReplyKey};
use crate::path::trail::Walk;
use ockam_engine_abi::{CloseReason, Counter, DropReason, LinkId, Notice};
use ockam_wire::undeliverable::{self, Offer};
use ockam_wire::{Measured, Message, Outgoing, PREAMBLE, Route, RouteParts, frame_length};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::atomic::Ordering;

/// An unfinished frame that does not fit a small slot moves to a large one when this much of it has arrived: large slots
/// are few, so a claimed length alone takes none.
const LARGE_AT: usize = 64 * 1024;

/// How long a frame may take besides its minimum rate while others wait for its large slot, in milliseconds.
const LARGE_GRACE_MS: u64 = 1_000;

/// What the frames of one chunk have in common.
struct Source {
    link: LinkId,
    address: LinkAddress,
    flow_control: u8,
    peer: IpAddr,
}

impl Source {
    fn of(link: &Link) -> Self {
        Source { link: link.id, address: link.address, flow_control: link.flow_control, peer: link.peer.ip() }
    }

    fn ingress(&self) -> Ingress<'_> {
        let Source { link, address, flow_control, peer } = self;
        Ingress::Link { link: *link, address, flow_control: *flow_control, peer: *peer }
    }
}

impl<D: Driver> Core<D> {
    /// A receive filled the first `length` bytes of the slot's body.
    pub(super) fn on_received(&mut self, index: u32, slot: Slot, length: usize) {
        let head = self.pool.small().head;
        let link = &mut self.links[index];
        link.traffic.bytes_in += length as u64;
        self.counters.add(Counter::BytesIn, length as u64);
        let range = head..head + length;
        if link.ingest.blocked || !link.ingest.parked.is_empty() {
            link.ingest.parked.push_back((slot, range));
        } else {
            self.consume(index, slot, range);
        }
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
                let reason = match link.ingest.partial {
                    Partial::None => CloseReason::PeerClosed,
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
            State::Up => self.flush_and_close(index, reason),
            State::ExpectPreamble => self.fail_or_close(index, reason, DropReason::NotANode),
            _ => {}
        }
    }

    /// Links that may go on reading do.
    pub(super) fn resume_links(&mut self) {
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
        self.counters.add(Counter::Pauses, 1);
        let link = &mut self.links[index];
        let (id, socket) = (link.id, link.socket);
        link.ingest.blocked = true;
        link.ingest.parked.push_front(unread);
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
        let began = !matches!(self.links[index].ingest.partial, Partial::None);
        let Some((mut slot, mut range)) = self.join(index, slot, range) else { return };

        let source = Source::of(&self.links[index]);
        let mut frames = 0;
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
                break;
            }
            match self.on_frame(&source, &mut slot, range.start + 4..end) {
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
            range.start = end;
        }
        self.count_in(index, frames);
        if frames > 0 || !began {
            self.links[index].ingest.frame_began_ms = self.now_ms;
        }
        self.keep_rest(index, slot, range);
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
            matches!(link.ingest.partial, Partial::Large { .. }) && link.ingest.is_late(self.now_ms, LARGE_GRACE_MS)
        };
        let slowest = self.links.iter().filter(slow).min_by_key(|link| link.ingest.frame_began_ms)?;
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
        let assembles = |link: &&Link| matches!(link.ingest.partial, Partial::Copied | Partial::Large { .. });
        let oldest = self.links.iter().filter(assembles).min_by_key(|link| link.ingest.frame_began_ms);
        if let Some(index) = oldest.map(|link| link.socket.index) {
            self.close(index, CloseReason::AssemblyLimit);
        }
    }

    /// One whole frame, without its length, at `range` of the slot.
    fn on_frame(&mut self, source: &Source, slot: &mut Slot, range: Range<usize>) -> Result<(), Stop> {
        if let Some(Leaving { link, reply, composed }) = self.carry_out(source, slot, range)? {
            let segments = self.segments(composed, slot);
            self.dispatch(link, reply, segments);
        }
        Ok(())
    }

    /// Asks the path about a frame and does what it says; what leaves on a link is composed and still to be dispatched.
    fn carry_out(&mut self, source: &Source, slot: &Slot, range: Range<usize>) -> Result<Option<Leaving>, Stop> {
        let body = slot.bytes(range.clone());
        let message = Message::parse(body).map_err(|_| Stop::Malformed)?;
        let payload_at = range.start + offset_in(body, message.payload);
        let replies = &self.links[source.link.index()].replies;
        let mut walk = Walk::of(&message);
        let verdict = route(&self.tables, source.ingress(), replies, &message, &mut walk);
        match verdict {
            Verdict::Send { link, body: answer, reply, served } => {
                self.room_on(link)?;
                let outgoing = outgoing(&message, &walk, answer_len(&message, answer));
                if outgoing.body_len() > ockam_wire::FRAME_MAX {
                    self.refuse(source, &message, DropReason::GrewTooLarge, 1);
                    return Ok(None);
                }
                let composed = match answer {
                    Body::Same => self.compose(link, &outgoing, message.payload, payload_at),
                    Body::Uppercase(upper) => {
                        self.compose_with(&outgoing, |out| upper.write(out)).map(Composed::Copied)
                    }
                };
                let composed = composed.ok_or(Stop::Blocked(Blocker::Slots))?;
                self.counters.add(if served { Counter::FramesServed } else { Counter::FramesRelayed }, 1);
                return Ok(Some(Leaving { link, reply, composed }));
            }
            Verdict::Dial { name, target } => {
                let left = message.onward.len().clamp(1, 255) as u8;
                let link = match self.transit_link(source.link, name, target) {
                    Ok(link) => link,
                    Err(reason) => {
                        self.refuse(source, &message, reason, left);
                        return Ok(None);
                    }
                };
                self.room_on(link)?;
                let outgoing = outgoing(&message, &walk, message.payload.len());
                if outgoing.body_len() > ockam_wire::FRAME_MAX {
                    self.refuse(source, &message, DropReason::GrewTooLarge, left);
                    return Ok(None);
                }
                let composed = self.compose(link, &outgoing, message.payload, payload_at);
                let composed = composed.ok_or(Stop::Blocked(Blocker::Slots))?;
                if let Some(offer) = message.tracing.and_then(Offer::parse) {
                    let way_back = RouteParts { front: &[], rest: message.return_route };
                    self.expect_notice(link, Waiting { offer, left, way_back: encode_way_back(way_back) });
                }
                self.counters.add(Counter::FramesRelayed, 1);
                return Ok(Some(Leaving { link, reply: Some(ReplyKey::Link(source.link)), composed }));
            }
            Verdict::Punt { body: answer } => {
                let link = &mut self.links[source.link.index()];
                if self.outbox.len() > NOTICE_QUEUE || !link.punts.take(PUNT_BURST, PUNTS_PER_SECOND, self.now_ms) {
                    self.refuse(source, &message, DropReason::PuntLimit, 1);
                    return Ok(None);
                }
                self.counters.add(Counter::Punts, 1);
                let message = punted(&message, &walk, answer);
                let notice = Notice::Punt { link: Some(source.link), message: message.into() };
                self.say(FromCore::Notice(notice));
            }
            Verdict::Heartbeat => self.counters.add(Counter::Heartbeats, 1),
            Verdict::Drop { reason, left } => self.refuse(source, &message, reason, left),
        }
        Ok(None)
    }

    /// A message of control. It meets the same path, as if it came from inside.
    pub(super) fn on_transmit(&mut self, request: u64, bytes: &[u8]) {
        let Ok(message) = Message::parse(bytes) else {
            return self.undelivered(request, DropReason::BadPayload, 1);
        };
        let none = crate::path::tables::Replies::new();
        let all_left = message.onward.len().clamp(1, 255) as u8;
        let mut walk = Walk::of(&message);
        match route(&self.tables, Ingress::Control, &none, &message, &mut walk) {
            Verdict::Send { link, body, reply, .. } => {
                let payload = answered(&message, body);
                let outgoing = outgoing(&message, &walk, payload.len());
                if outgoing.body_len() > ockam_wire::FRAME_MAX {
                    return self.undelivered(request, DropReason::GrewTooLarge, all_left);
                }
                // Control waits for its own link to take what it asked for: a link that is full gets it all the same,
                // bounded by what control has asked for at once.
                let segment = self.compose_with(&outgoing, |out| out.copy_from_slice(&payload));
                match segment {
                    Some(segment) => {
                        self.dispatch(link, reply, [Some(segment), None, None]);
                        self.say(FromCore::Applied { request });
                    }
                    None => self.undelivered(request, DropReason::PuntLimit, all_left),
                }
            }
            Verdict::Punt { body } => {
                let message = punted(&message, &walk, body);
                self.say(FromCore::Notice(Notice::Punt { link: None, message: message.into() }));
                self.say(FromCore::Applied { request });
            }
            Verdict::Drop { reason, left } => self.undelivered(request, reason, left),
            Verdict::Heartbeat => self.undelivered(request, DropReason::RouteEnded, 1),
            Verdict::Dial { .. } => self.undelivered(request, DropReason::TransitRefused, all_left),
        }
    }

    fn undelivered(&mut self, request: u64, reason: DropReason, left: u8) {
        self.counters.add(reason, 1);
        self.say(FromCore::Notice(Notice::Undelivered { request, reason, left }));
    }

    /// Whether a link takes a frame now.
    fn room_on(&mut self, link: LinkId) -> Result<(), Stop> {
        if link.core() == self.index {
            match self.links.get(link.index(), link.generation()) {
                Some(found) if found.egress.full && found.is_open() => Err(Stop::Blocked(Blocker::Egress(link))),
                _ => Ok(()),
            }
        } else if self.mesh.is_full(link, self.index) || !self.mesh.has_room(self.index, link.core()) {
            Err(Stop::Blocked(Blocker::Elsewhere))
        } else {
            Ok(())
        }
    }

    /// Counts a message that is dropped, and tells its sender if it offered to be told.
    fn refuse(&mut self, source: &Source, message: &Message<'_>, reason: DropReason, left: u8) {
        self.counters.add(reason, 1);
        if let Some(offer) = message.tracing.and_then(Offer::parse) {
            let way_back = RouteParts { front: &[], rest: message.return_route };
            self.notify(source.link, offer, way_back, reason, left);
        }
    }

    /// Sends an undeliverable notice (`docs/wire-extensions.md`) back over the link that the message came in on.
    pub(super) fn notify(&mut self, to: LinkId, offer: Offer, onward: RouteParts<'_>, reason: DropReason, left: u8) {
        let Some(index) = self.open_link(to) else { return };
        let link = &mut self.links[index];
        let told = link.state == State::Up
            && !onward.is_empty()
            && !link.egress.full
            && link.notices.take(NOTICE_BURST, NOTICES_PER_SECOND, self.now_ms);
        if !told {
            return self.counters.add(Counter::NoticesWithheld, 1);
        }
        // Why and where is for this machine only, as long as no peer is authenticated.
        let reason = if link.peer.ip().is_loopback() { reason } else { DropReason::NotDelivered };
        let notice = undeliverable::Notice { token: offer.token, reason: reason as u8, left };
        let text = notice.text();
        let outgoing = Outgoing { onward, return_route: RouteParts::EMPTY, payload_len: 0, tracing: Some(&text) };
        match self.compose_with(&outgoing.measure(), |_| {}) {
            Some(segment) => {
                self.counters.add(Counter::NoticesSent, 1);
                self.dispatch(to, None, [Some(segment), None, None]);
            }
            None => self.counters.add(Counter::NoticesWithheld, 1),
        }
    }
}

/// A frame that leaves on a link.
struct Leaving {
    link: LinkId,
    reply: Option<ReplyKey>,
    composed: Composed,
}

/// Why a chunk is not read further.
enum Stop {
    /// What the frame feeds is full; the frame is read again later.
    Blocked(Blocker),
    /// The frame is not a transport message.
    Malformed,
}

/// Bytes that an unfinished frame lacks, or its head.
fn missing(partial: &[u8]) -> usize {
    let total = partial.first_chunk::<4>().map_or(4, |head| 4 + u32::from_be_bytes(*head) as usize);
    total.saturating_sub(partial.len())
}

/// Where `part` begins in `whole`, of which it is a part.
fn offset_in(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr() - whole.as_ptr().addr()
}

/// A message that goes nowhere but holds a route, for later.
fn encode_way_back(route: RouteParts<'_>) -> Box<[u8]> {
    let message = Outgoing { onward: route, return_route: RouteParts::EMPTY, payload_len: 0, tracing: None };
    message.to_frame(&[]).into()
}

/// The route that [`encode_way_back`] kept.
pub(super) fn decode_way_back(frame: &[u8]) -> Route<'_> {
    Message::parse(&frame[4..]).map_or(Route::EMPTY, |message| message.onward)
}

fn answered<'a>(message: &Message<'a>, body: Body<'_>) -> std::borrow::Cow<'a, [u8]> {
    match body {
        Body::Same => message.payload.into(),
        Body::Uppercase(upper) => {
            let mut payload = vec![0; upper.payload_len()];
            upper.write(&mut payload);
            payload.into()
        }
    }
}

/// The message that goes out after the walk.
fn outgoing<'a>(message: &Message<'a>, walk: &'a Walk<'a>, payload_len: usize) -> Measured<'a> {
    let (onward, return_route) = (walk.onward.parts(), walk.back.parts());
    Outgoing { onward, return_route, payload_len, tracing: message.tracing }.measure()
}

/// Bytes of the payload that goes out.
fn answer_len(message: &Message<'_>, body: Body<'_>) -> usize {
    match body {
        Body::Same => message.payload.len(),
        Body::Uppercase(upper) => upper.payload_len(),
    }
}

/// The message that control gets, without its length.
fn punted(message: &Message<'_>, walk: &Walk<'_>, body: Body<'_>) -> Vec<u8> {
    let payload = answered(message, body);
    let outgoing = Outgoing {
        onward: walk.onward.parts(),
        return_route: walk.back.parts(),
        payload_len: payload.len(),
        tracing: message.tracing,
    };
    let mut frame = outgoing.to_frame(&payload);
    frame.drain(..4);
    frame
}
