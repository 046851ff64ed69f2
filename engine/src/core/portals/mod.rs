//! Portals: connections of applications, which inlets accept and outlets open (`wire.md` F).
//!
//! ```text
//!   application ── bytes ──► consume_stream ── a message on a way ──► carry ──► link or channel
//!   application ◄─ bytes ─── hear ◄── what the messages say ◄── carry ◄── link or channel
//! ```
//!
//! Such a connection is a link that speaks bytes: what its application sends becomes the payload of a message that is
//! carried like any other, and what messages to its address say is queued and sent like frames. It lives on the core of the
//! link that carries it.
//!
//! * [`ends`]: inlets and outlets, and how a connection comes to be.
//! * [`flow`]: credit between our nodes.
//! * [`room`]: who may have how many of them.

mod ends;
mod flow;
mod room;

pub(super) use ends::Inlet;
pub(super) use room::Room;

use super::carry::{Arrival, Layer, Payload, Source, Stop, decode_way_back};
use super::link::{Link, Origin, Receiving, State};
use super::mesh::Cross;
use super::{Blocker, Core};
use crate::config::{COPY_MAX, PORTAL_HEAD_MAX, PORTAL_PIECE_MAX, PORTAL_QUEUE_MAX, PORTAL_QUEUE_SEGMENTS, SLOTS};
use crate::io::driver::Driver;
use crate::io::pool::{Segment, Slot};
use crate::path::channel::Channel;
use crate::path::tables::{Connection, Outlet, Place, ReplyKey};
use flow::{Broken, Flow};
use ockam_engine_abi::{CloseReason, Counter, DropReason, Guard, LinkId};
use ockam_wire::portal::{PAYLOAD_HEAD_MAX, PortalMessage, payload_counter, payload_head};
use ockam_wire::{AddressRef, FixedHead, Outgoing, RouteParts};
use room::Holder;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// An application that takes nothing for this long, in milliseconds, has stalled.
const STALLED_MS: u64 = 1_000;
/// A connection that nothing was heard of for this long ends when the node drains.
const DRAIN_IDLE_MS: u64 = 1_000;

/// What the connection of an application has beside what every link has.
#[derive(Debug)]
pub struct Portal {
    /// How it came to be.
    end: End,
    /// What stands in front of its payloads; before the other end has answered, the way to there. See `is_sealed`.
    head: FixedHead,
    /// What carries it.
    carrier: Carrier,
    /// Its way begins with the channel that carries it, and `head` is that of the messages inside: they are sealed without
    /// being routed. The channel ends no later than its address, and with it the connection.
    is_sealed: bool,
    /// Whether the other end is one of ours, and what it may send then.
    flow: Option<Flow>,
    /// The number of the next payload that a foreign node counts.
    counted: u16,
    /// Nothing more is said to the other end: it knows that this is over.
    over: bool,
    /// The connection failed: bytes may be missing, so the application must see that.
    broken: bool,
    /// The application sends no more, and the other end knows.
    sent_all: bool,
    /// The other end sends no more.
    got_all: bool,
    /// The application was told that no more comes.
    shut: bool,
    /// What the application sent while what carries it was full. Nobody else waits for that slot then.
    held: Option<Box<[u8]>>,
    /// What waits for the application outside of slots, behind what waits in the queue; for most there is nothing.
    #[expect(clippy::box_collection, reason = "thousands have none: a word each instead of four")]
    kept: Option<Box<VecDeque<u8>>>,
    /// When something was last heard of the application or of the other end.
    active_ms: u64,
}

/// Which end of a portal a connection is.
#[derive(Debug)]
enum End {
    /// An inlet accepted it.
    Inlet {
        /// Control's number.
        number: u32,
        /// Its connections.
        connections: Arc<AtomicU32>,
    },
    /// An outlet opened it.
    Outlet {
        /// The outlet.
        outlet: Arc<Outlet>,
        /// Which of its targets is tried next.
        next: u8,
        /// What the other end takes, if it is one of ours.
        offer: Option<u32>,
    },
}

/// What carries the messages of a connection: when it ends, the connection does, and by it guards know who is at the other
/// end.
#[derive(Debug)]
pub enum Carrier {
    /// A link of this core.
    Link(LinkId),
    /// A channel.
    Channel(Arc<Channel>),
    /// This node: the other end is here, too.
    Inside,
}

/// What a message says to a connection.
#[derive(Debug)]
pub enum Said {
    /// Bytes for the application.
    Bytes { segment: Segment, number: Option<u16> },
    /// The outlet has reached its target. `onward` is the way there, as [`super::carry::encode_way_back`] writes it, and
    /// `carrier` what brought this.
    Pong { credit: Option<u32>, onward: Box<[u8]>, carrier: Carrier },
    /// It is over.
    Disconnect { broken: bool },
    /// No more bytes come.
    End { total: u64 },
    /// More is taken.
    Credit { limit: u64 },
    /// What the connection said was not delivered.
    Undelivered { token: [u8; 16] },
}

impl Portal {
    /// Whether bytes of the application are taken now.
    pub(super) fn may_read(&self) -> bool {
        !self.sent_all && self.flow.as_ref().is_none_or(Flow::may_send)
    }

    /// Whether the application may take its time: the other end is not held back by it, but by its credit.
    pub(super) fn is_patient(&self) -> bool {
        self.flow.is_some()
    }

    /// Whether there is something to do as soon as the application has taken the `length` bytes that wait for it.
    pub(super) fn awaits(&self, length: usize) -> bool {
        self.got_all || self.kept.is_some() || self.flow.as_ref().is_some_and(|flow| flow.grants_after(length))
    }

    /// What carries it.
    pub(super) fn carrier(&self) -> &Carrier {
        &self.carrier
    }

    /// The link that carries it. What is on its way over that is lost with it, wherever a channel leads next.
    fn carrying_link(&self) -> Option<LinkId> {
        match &self.carrier {
            Carrier::Link(link) => Some(*link),
            Carrier::Channel(channel) => channel.egress(),
            Carrier::Inside => None,
        }
    }
}

impl Link {
    /// What stands for it in the tables.
    pub(super) fn connection(&self) -> Connection {
        if self.portal().is_some() { Connection::Portal(self.id) } else { Connection::Link(self.id) }
    }

    /// What it has if it is the connection of an application.
    pub(super) fn portal(&self) -> Option<&Portal> {
        match &self.origin {
            Origin::Portal(portal) => Some(portal),
            _ => None,
        }
    }

    pub(super) fn portal_mut(&mut self) -> Option<&mut Portal> {
        match &mut self.origin {
            Origin::Portal(portal) => Some(portal),
            _ => None,
        }
    }
}

impl<D: Driver> Core<D> {
    fn portal(&mut self, index: u32) -> &mut Portal {
        self.links[index].portal_mut().expect("the caller knows that it is one")
    }

    /// Bytes of an application: they become the payload of a message.
    pub(super) fn consume_stream(&mut self, index: u32, mut slot: Slot, range: Range<usize>) {
        let now_ms = self.now_ms;
        let link = &mut self.links[index];
        if link.state != State::Up {
            return self.pool.put(slot);
        }
        let source = Source::of(link);
        let portal = link.portal_mut().expect("the caller looked");
        portal.active_ms = now_ms;
        // In front of the bytes there is head room, behind them the tail.
        let mut end = range.end;
        if let Some(flow) = &portal.flow {
            let counter = payload_counter(flow.next_number());
            slot.bytes_mut(end..end + counter.len()).copy_from_slice(&counter);
            end += counter.len();
        }
        let mut head = [0; PAYLOAD_HEAD_MAX];
        let head_len = payload_head(range.len(), &mut head);
        let payload = range.start - head_len..end;
        slot.bytes_mut(payload.start..range.start).copy_from_slice(&head[PAYLOAD_HEAD_MAX - head_len..]);

        let arrival = Arrival::new(Some(&source), 0);
        let carried = match &portal.carrier {
            Carrier::Channel(channel) if portal.is_sealed => {
                let channel = channel.clone();
                self.seal_stream(index, &channel, &arrival, &mut slot, payload)
            }
            _ => {
                let start = payload.start - portal.head.prefix_len(payload.len());
                portal.head.write_prefix(payload.len(), slot.bytes_mut(start..payload.start));
                let layer = Layer { channel: None, range: start + 4..end };
                self.carry(&arrival, &mut slot, layer).map_err(|(stop, _)| stop)
            }
        };
        match carried {
            Ok(()) => {}
            Err(Stop::Blocked(blocker)) => {
                self.counters.add(Counter::BytesCopied, range.len() as u64);
                self.portal(index).held = Some(slot.bytes(range).into());
                self.pool.put(slot);
                return self.stop(index, blocker);
            }
            Err(Stop::Malformed) => unreachable!("a message that was written here is one"),
        }
        self.pool.put(slot);
        if arrival.was_refused() {
            return self.close(index, CloseReason::CarrierGone);
        }
        let portal = self.portal(index);
        if let Some(flow) = &mut portal.flow {
            flow.send(range.len());
            if !flow.may_send() {
                self.counters.add(Counter::PortalsWaited, 1);
            }
        }
        self.receive(index);
    }

    /// Seals a payload of a connection for the channel that carries it.
    fn seal_stream(
        &mut self,
        index: u32,
        channel: &Arc<Channel>,
        arrival: &Arrival<'_>,
        slot: &mut Slot,
        payload: Range<usize>,
    ) -> Result<(), Stop> {
        let reply = ReplyKey::Link(self.links[index].id);
        let head = std::mem::take(&mut self.portal(index).head);
        let bytes = slot.bytes(payload.clone());
        let in_slot = Payload::InSlot { bytes, at: payload.start, start: arrival.start, size: slot.size() };
        let sealed = self.seal(arrival, channel, Some(reply), &head.measure(payload.len()), in_slot);
        self.portal(index).head = head;
        match sealed? {
            Ok(outcome) => {
                self.counters.add(Counter::FramesRelayed, 1);
                self.let_leave(outcome, slot)
            }
            Err(reason) => {
                self.counters.add(reason, 1);
                arrival.refuse();
                Ok(())
            }
        }
    }

    /// Carries what was held. False when that is still to wait.
    pub(super) fn resume_stream(&mut self, index: u32) -> bool {
        if self.portal(index).held.is_none() {
            return true;
        }
        // Thousands may wait for the same link, and it takes a few of them at a time.
        if let Some(link) = self.portal(index).carrying_link()
            && link.core() == self.index
            && self.links.get(link.index(), link.generation()).is_some_and(|link| link.egress.full)
        {
            self.stop(index, Blocker::Egress(link));
            return false;
        }
        let Some(held) = self.portal(index).held.take() else { return true };
        let Some(mut slot) = self.pool.take() else {
            self.portal(index).held = Some(held);
            self.stop(index, Blocker::Slots);
            return false;
        };
        let start = self.pool.small().head;
        let range = start..start + held.len();
        slot.bytes_mut(range.clone()).copy_from_slice(&held);
        self.consume_stream(index, slot, range);
        self.links.at_mut(index).is_some_and(|link| link.is_open() && !link.ingest.blocked)
    }

    /// The application sends no more, and all that it sent was carried.
    pub(super) fn end_of_stream(&mut self, index: u32) {
        let Some(portal) = self.links[index].portal_mut() else { return };
        if portal.sent_all || portal.over {
            return;
        }
        portal.sent_all = true;
        match portal.flow.as_ref().map(Flow::sent) {
            Some(total) => {
                self.tell_other_end(index, PortalMessage::End { total });
                self.end_if_both_did(index);
            }
            None => {
                self.tell_other_end(index, PortalMessage::Disconnect { broken: false });
                self.portal(index).over = true;
                self.flush_and_close(index, CloseReason::PortalDone);
            }
        }
    }

    /// Says something to the other end of a connection. False when that cannot be said: nothing carries it.
    fn tell_other_end(&mut self, index: u32, message: PortalMessage<'_>) -> bool {
        let encoded = message.encode();
        let frame = self.frame_for_other_end(index, &encoded, None);
        self.say_frame(frame)
    }

    /// A frame from a connection to its other end.
    fn frame_for_other_end(&self, index: u32, payload: &[u8], tracing: Option<&str>) -> Vec<u8> {
        let link = &self.links[index];
        let portal = link.portal().expect("the caller knows that it is one");
        let own = [AddressRef::local(&link.address)];
        let first = match &portal.carrier {
            Carrier::Channel(channel) if portal.is_sealed => Some(AddressRef::local(&channel.encryptor)),
            _ => None,
        };
        let onward = RouteParts { front: first.as_slice(), rest: portal.head.onward() };
        let return_route = RouteParts::new(&own);
        Outgoing { onward, return_route, payload_len: payload.len(), tracing }.to_frame(payload)
    }

    /// From now on messages of a connection go along `onward`, which `carrier` carries. False when that is too long to keep.
    fn set_way(&mut self, index: u32, onward: RouteParts<'_>, carrier: Carrier) -> bool {
        let address = self.links[index].address;
        let own = [AddressRef::local(&address)];
        let addresses: Vec<AddressRef<'_>> = onward.iter().collect();
        let is_sealed = match (&carrier, addresses.first()) {
            (Carrier::Channel(channel), Some(first)) => *first == AddressRef::local(&channel.encryptor),
            _ => false,
        };
        let inside = &addresses[usize::from(is_sealed)..];
        let head = FixedHead::new(RouteParts::new(inside), RouteParts::new(&own));
        let is_kept = head.prefix_len(0) <= PORTAL_HEAD_MAX;
        let portal = self.portal(index);
        (portal.head, portal.carrier, portal.is_sealed) = (head, carrier, is_sealed);
        is_kept
    }

    /// The same for a whole frame.
    fn say_frame(&mut self, frame: Vec<u8>) -> bool {
        match self.carry_copy(&frame[4..]) {
            Some(delivered) => delivered,
            // No slot is free. It is short, and must not be lost.
            None => {
                self.unsaid.push_back(frame.into());
                true
            }
        }
    }

    /// Says what found no slot before, and refills queues that found none.
    pub(super) fn catch_up(&mut self) {
        for _ in 0..self.unsaid.len() {
            let Some(frame) = self.unsaid.pop_front() else { break };
            if self.carry_copy(&frame[4..]).is_none() {
                self.unsaid.push_front(frame);
                break;
            }
        }
        for index in std::mem::take(&mut self.unfilled) {
            if self.links.at_mut(index).is_some_and(|link| link.portal().is_some() && link.is_open()) {
                self.refill(index);
            }
        }
    }

    /// A message says something to a connection, of this or of another core.
    pub(super) fn say_to_portal(&mut self, link: LinkId, said: Said) {
        if link.core() == self.index {
            self.hear(link, said);
        } else {
            self.counters.add(Counter::CrossCoreFrames, 1);
            self.cross(link.core(), Cross::Said { link, said });
        }
    }

    /// What was said to a connection of this core.
    pub(super) fn hear(&mut self, link: LinkId, said: Said) {
        let Some(index) = self.open_link(link) else {
            self.counters.add(DropReason::LinkClosed, 1);
            if let Said::Bytes { segment, .. } = said {
                self.release(segment);
            }
            return;
        };
        let now_ms = self.now_ms;
        let portal = self.portal(index);
        portal.active_ms = now_ms;
        match said {
            Said::Bytes { segment, number } => self.take_bytes(index, segment, number),
            Said::Pong { credit, onward, carrier } => self.on_pong(index, credit, &onward, carrier),
            Said::Disconnect { broken } => self.on_disconnect(index, broken),
            Said::Undelivered { token } => self.on_undelivered(index, token),
            Said::Credit { limit } => {
                if let Some(flow) = &mut portal.flow {
                    flow.extend(limit);
                    self.receive(index);
                }
            }
            Said::End { total } => match portal.flow.as_ref().map(|flow| flow.end(total)) {
                Some(Ok(())) => {
                    portal.got_all = true;
                    self.shut_if_all_sent(index);
                }
                _ => self.break_off(index),
            },
        }
    }

    fn on_pong(&mut self, index: u32, credit: Option<u32>, onward: &[u8], carrier: Carrier) {
        let now_ms = self.now_ms;
        if self.links[index].state != State::ExpectPong {
            return;
        }
        if !self.set_way(index, decode_way_back(onward).into(), carrier) {
            return self.close(index, CloseReason::PortalUnanswered);
        }
        let portal = self.portal(index);
        portal.flow = credit.map(|limit| Flow::new(limit, now_ms));
        self.links[index].state = State::Up;
        if self.let_pass_until(&self.links[index]) <= now_ms {
            return self.close(index, CloseReason::PortalDenied);
        }
        self.watch(index);
        self.receive(index);
    }

    fn on_disconnect(&mut self, index: u32, broken: bool) {
        let link = &mut self.links[index];
        let state = link.state;
        let portal = link.portal_mut().expect("the caller knows that it is one");
        portal.over = true;
        // An end that is orderly between our nodes needs no Disconnect.
        portal.broken |= broken || portal.flow.is_some() || state == State::ExpectPong;
        if portal.broken {
            return self.close(index, CloseReason::PortalDisconnected);
        }
        if link.ingest.receiving == Receiving::On {
            link.ingest.receiving = Receiving::Stopping;
            let socket = link.socket;
            self.driver.pause(socket);
        }
        self.flush_and_close(index, CloseReason::PortalDisconnected);
    }

    /// Something is missing, or wrong: neither side must take what it got for all.
    fn break_off(&mut self, index: u32) {
        self.portal(index).broken = true;
        self.close(index, CloseReason::Malformed);
    }

    /// Bytes for the application.
    fn take_bytes(&mut self, index: u32, segment: Segment, number: Option<u16>) {
        let now_ms = self.now_ms;
        let free = self.pool.census().0;
        let link = &mut self.links[index];
        if link.state != State::Up {
            return self.release(segment);
        }
        link.traffic.frames_in += 1;
        let was_idle = link.egress.bytes == 0;
        let (waiting, bytes) = (link.egress.queue.len(), link.egress.bytes);
        link.egress.bytes += segment.len();
        let portal = link.portal_mut().expect("the caller knows that it is one");
        let received = match (&mut portal.flow, number) {
            (Some(flow), number) => flow.receive(segment.len(), number),
            // A foreign node need not count, but what it counts has no holes (`wire.md` F.1).
            (None, Some(number)) if number != portal.counted => Err(Broken),
            (None, Some(_)) => {
                portal.counted = portal.counted.wrapping_add(1);
                Ok(())
            }
            (None, None) => Ok(()),
        };
        if received == Err(Broken) {
            link.egress.bytes -= segment.len();
            self.release(segment);
            return self.break_off(index);
        }
        // An application that does not keep up must not keep slots from others.
        let is_shared = portal.kept.is_none()
            && (free > SLOTS * 3 / 4 && waiting < PORTAL_QUEUE_SEGMENTS && bytes < PORTAL_QUEUE_MAX
                || free > SLOTS / 2 && was_idle);
        let mut segment = segment;
        if !is_shared {
            self.counters.add(Counter::BytesCopied, segment.len() as u64);
            self.keep(index, segment);
        } else if link.egress.queue.back_mut().is_some_and(|last| last.take_in(&mut segment)) {
            self.release(segment);
        } else {
            link.egress.queue.push_back(segment);
        }
        if was_idle {
            self.links[index].egress.progress_ms = now_ms;
            self.unsent.push(index);
            self.attend(index);
        }
        if self.links[index].egress.queue.is_empty() {
            self.refill(index);
        }
        self.tell_if_full(index);
    }

    /// Bytes that wait for the application leave their slot.
    fn keep(&mut self, index: u32, segment: Segment) {
        self.portal(index).kept.get_or_insert_default().extend(segment.bytes());
        self.mesh.portal_bytes_kept.fetch_add(segment.len() as u64, Ordering::Relaxed);
        self.release(segment);
    }

    /// What is kept goes into the queue once that is empty.
    pub(super) fn refill(&mut self, index: u32) {
        let link = &mut self.links[index];
        if !link.egress.queue.is_empty() {
            return;
        }
        let Some(mut kept) = link.portal_mut().and_then(|portal| portal.kept.take()) else { return };
        // What a send that waits for the application covers stays in its slot meanwhile.
        let most = if self.pool.census().0 > SLOTS / 2 { PORTAL_PIECE_MAX } else { COPY_MAX };
        let length = kept.len().min(most);
        if length > 0 {
            let segment = self.write(length, |out| {
                let (first, second) = kept.as_slices();
                let split = first.len().min(length);
                out[..split].copy_from_slice(&first[..split]);
                out[split..].copy_from_slice(&second[..length - split]);
            });
            match segment {
                Some(segment) => {
                    kept.drain(..length);
                    self.mesh.portal_bytes_kept.fetch_sub(length as u64, Ordering::Relaxed);
                    self.links[index].egress.queue.push_back(segment);
                    self.unsent.push(index);
                }
                None => self.unfilled.push(index),
            }
        }
        // Its memory goes with the last of it.
        self.portal(index).kept = (!kept.is_empty()).then_some(kept);
    }

    /// The application took so many bytes.
    pub(super) fn stream_sent(&mut self, index: u32, length: usize) {
        let now_ms = self.now_ms;
        self.counters.add(Counter::PortalBytesOut, length as u64);
        // A send that was in flight when the connection was closed ends, too.
        if !self.links[index].is_open() {
            return;
        }
        self.refill(index);
        let room = self.mesh.portal_room();
        let portal = self.portal(index);
        portal.active_ms = now_ms;
        if let Some(flow) = &mut portal.flow {
            flow.take(length);
            if !portal.got_all
                && let Some(grant) = flow.grant(now_ms, room)
            {
                self.mesh.portal_windows.fetch_add(grant.window, Ordering::Relaxed);
                self.tell_other_end(index, PortalMessage::Credit { limit: grant.limit });
            }
        }
        self.shut_if_all_sent(index);
    }

    /// The application learns that no more comes, once it took all that came.
    fn shut_if_all_sent(&mut self, index: u32) {
        let link = &mut self.links[index];
        if link.state != State::Up || link.egress.bytes > 0 || link.egress.sending {
            return;
        }
        let socket = link.socket;
        let portal = link.portal_mut().expect("the caller knows that it is one");
        if portal.got_all && !portal.shut {
            portal.shut = true;
            self.driver.shutdown(socket);
            self.end_if_both_did(index);
        }
    }

    fn end_if_both_did(&mut self, index: u32) {
        let portal = self.portal(index);
        if portal.sent_all && portal.shut {
            portal.over = true;
            self.close(index, CloseReason::PortalDone);
        }
    }

    /// A connection is being closed: the other end is told, what it had is given back. True when the application is to see
    /// an orderly end.
    pub(super) fn close_stream(&mut self, index: u32, state: State, reason: CloseReason) -> bool {
        let link = &mut self.links[index];
        let (id, all_sent) = (link.id, link.egress.bytes == 0);
        let portal = link.portal_mut().expect("the caller looked");
        let told = portal.over || state == State::ExpectPong || reason == CloseReason::CarrierGone;
        let broken = portal.flow.is_some();
        portal.over = true;
        let orderly =
            !portal.broken && all_sent && matches!(reason, CloseReason::PortalDone | CloseReason::PortalDisconnected);
        let kept = portal.kept.take().map_or(0, |kept| kept.len());
        self.mesh.portal_bytes_kept.fetch_sub(kept as u64, Ordering::Relaxed);
        portal.held = None;
        let shrunk = portal.flow.as_mut().map_or(0, Flow::stall);
        self.mesh.portal_windows.fetch_sub(shrunk, Ordering::Relaxed);
        if let End::Inlet { connections, .. } = &portal.end {
            connections.fetch_sub(1, Ordering::Relaxed);
        }
        self.mesh.portals.fetch_sub(1, Ordering::Relaxed);
        let holder = Holder::of(&portal.end, &portal.carrier);
        self.portals.give_back(holder);
        if !told {
            self.tell_other_end(index, PortalMessage::Disconnect { broken });
        }
        let key = ReplyKey::Link(id);
        match &self.portal(index).carrier {
            Carrier::Channel(channel) => channel.opening().replies.forget(key),
            Carrier::Link(link) => {
                let (index, generation) = (link.index(), link.generation());
                if link.core() == self.index
                    && let Some(link) = self.links.get_mut(index, generation)
                {
                    link.replies.forget(key);
                }
            }
            Carrier::Inside => {}
        }
        orderly
    }

    /// What is at the beginning of a way, as far as a connection ends with it.
    fn carrier(&self, first: &[u8]) -> Carrier {
        match self.tables.find(first) {
            Some(Place::Link(link)) => Carrier::Link(link),
            Some(Place::Encryptor(channel)) => Carrier::Channel(channel.clone()),
            _ => Carrier::Inside,
        }
    }

    /// The guard of a connection's inlet or outlet, as it is now.
    pub(super) fn guard_of(&self, portal: &Portal) -> Option<Guard> {
        match &portal.end {
            End::Inlet { number, .. } => self.inlets.get(number)?.guard(),
            End::Outlet { outlet, .. } => {
                let now = self.tables.outlets.get(&outlet.name).filter(|now| now.serial == outlet.serial);
                now.unwrap_or(outlet).guard
            }
        }
    }

    fn close_portals(&mut self, reason: CloseReason, which: impl Fn(&Portal) -> bool) {
        if self.portals.taken() == 0 {
            return;
        }
        let chosen = |link: &&Link| link.is_open() && link.portal().is_some_and(&which);
        let indices: Vec<u32> = self.links.iter().filter(chosen).map(|link| link.socket.index).collect();
        for index in indices {
            self.close(index, reason);
        }
    }

    /// A link of this core is gone, and with it what it carried.
    pub(super) fn carrier_link_gone(&mut self, link: LinkId) {
        self.close_portals(CloseReason::CarrierGone, |portal| portal.carrying_link() == Some(link));
    }

    /// A channel is gone, and with it what it carried.
    pub(super) fn carrier_channel_gone(&mut self, channel: &Arc<Channel>) {
        self.close_portals(
            CloseReason::CarrierGone,
            |portal| matches!(&portal.carrier, Carrier::Channel(carrier) if Arc::ptr_eq(carrier, channel)),
        );
    }

    /// Looks at a connection that is up or ends, and at whose egress something waits.
    pub(super) fn sweep_stream(&mut self, index: u32, silent_ms: u64) {
        let link = &mut self.links[index];
        let sending = link.egress.sending;
        let Origin::Portal(portal) = &mut link.origin else { return };
        if silent_ms < STALLED_MS {
            return;
        }
        let shrunk = portal.flow.as_mut().map_or(0, Flow::stall);
        self.mesh.portal_windows.fetch_sub(shrunk, Ordering::Relaxed);
        // What a send in flight does not cover needs no slot; how much it covers only the driver knows.
        if !sending && portal.kept.is_none() {
            let waiting: Vec<Segment> = link.egress.queue.drain(..).collect();
            for segment in waiting {
                self.keep(index, segment);
            }
            self.refill(index);
        }
    }

    /// Whether a connection is at rest, so that a node which drains may end it.
    pub(super) fn is_at_rest(&self, link: &Link) -> bool {
        link.portal().is_none_or(|portal| self.now_ms.saturating_sub(portal.active_ms) >= DRAIN_IDLE_MS)
    }
}
