//! What the path says about a message is carried out.
//!
//! ```text
//!   on_frame ─► carry ─► carry_out ─► route (pure)
//!                 ▲          │  Send, Dial, Seal, Relay ─► composed ─► dispatch
//!                 │          │  Portal ─► say_to_portal; Outlet ─► on_outlet
//!                 │          │  Punt, Park, Drop
//!                 └── open ◄─┘  Open: the message inside takes the next round
//! ```

use super::egress::Composed;
use super::link::{Link, Waiting};
use super::mesh::FromCore;
use super::portals::{Carrier, Said};
use super::repeat::Forwarded;
use super::{Blocker, Core};
use crate::config::{
    COPY_MAX, LAYERS_MAX, NOTICE_BURST, NOTICES_PER_SECOND, PARKED_BYTES, PARKED_BYTES_MAX, PUNT_BURST, PUNT_SMALL,
    PUNTS_PER_SECOND, PUNTS_WAITING_MAX, RELAY_WAY_MAX,
};
use crate::io::driver::Driver;
use crate::io::pool::Slot;
use crate::path::channel::{Channel, Parked, TooMuch, Way};
use crate::path::route::{Body, Ingress, Verdict, route};
use crate::path::tables::{LinkAddress, Place, ReplyKey};
use crate::path::trail::{FRONT_MAX, Walk};
use arrayvec::ArrayVec;
use ockam_engine_abi::{Counter, DropReason, LinkId, Notice};
use ockam_wire::portal::PortalMessage;
use ockam_wire::undeliverable::{self, Offer};
use ockam_wire::{AddressRef, FRAME_MAX, Measured, Message, Outgoing, ROUTE_MAX, Route, RouteParts};
use std::cell::Cell;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What the frames of one chunk have in common.
pub(super) struct Source {
    pub(super) link: LinkId,
    pub(super) address: LinkAddress,
    flow_control: u8,
    peer: IpAddr,
    /// Whether it is the connection of an application, which is inside this node.
    is_portal: bool,
}

impl Source {
    pub(super) fn of(link: &Link) -> Self {
        Source {
            link: link.id,
            address: link.address,
            flow_control: link.flow_control,
            peer: link.peer.ip(),
            is_portal: link.portal().is_some(),
        }
    }

    /// The link, if it leads to another node.
    fn peer_link(&self) -> Option<LinkId> {
        (!self.is_portal).then_some(self.link)
    }

    /// Whether it is on this machine.
    pub(super) fn is_local(&self) -> bool {
        self.is_portal || self.peer.is_loopback()
    }

    fn ingress(&self) -> Ingress<'_> {
        let Source { link, address, flow_control, peer, is_portal } = self;
        if *is_portal {
            return Ingress::Inside;
        }
        Ingress::Link { link: *link, address, flow_control: *flow_control, peer: *peer }
    }
}

/// How a frame arrived.
pub(super) struct Arrival<'a> {
    /// On a link. What comes from inside, and what waited for an install, does not: it is not held back when a link is
    /// full, since nobody could be stopped.
    pub(super) source: Option<&'a Source>,
    /// Where in its slot the frame begins. From here on the slot is this frame's to change.
    pub(super) start: usize,
    /// The link that it had come on before it waited for an install.
    waited_on: Option<LinkId>,
    /// Whether a frame of the same length follows in the slot.
    is_followed: bool,
    /// See [`Arrival::was_refused`].
    refused: Cell<bool>,
}

impl<'a> Arrival<'a> {
    /// A frame of a link, as it was received.
    pub(super) fn frame(source: &'a Source, start: usize, is_followed: bool) -> Self {
        Arrival { is_followed, ..Arrival::new(Some(source), start) }
    }

    pub(super) fn new(source: Option<&'a Source>, start: usize) -> Self {
        Arrival { source, start, waited_on: None, is_followed: false, refused: Cell::new(false) }
    }

    /// The link to another node that it came on, be it some time ago.
    fn peer_link(&self) -> Option<LinkId> {
        self.source.map_or(self.waited_on, Source::peer_link)
    }

    /// What brought a message of this arrival: a connection that it makes ends with that.
    pub(super) fn carrier(&self, layer: &Layer) -> Carrier {
        match (&layer.channel, self.peer_link()) {
            (Some(channel), _) => Carrier::Channel(channel.clone()),
            (None, Some(link)) => Carrier::Link(link),
            (None, None) => Carrier::Inside,
        }
    }

    /// Whether what arrived was dropped, as far as this core knows.
    pub(super) fn was_refused(&self) -> bool {
        self.refused.get()
    }

    /// What arrived was dropped.
    pub(super) fn refuse(&self) {
        self.refused.set(true);
    }
}

/// A message in a slot: the frame's own, or one that came out of a channel.
pub(super) struct Layer {
    /// The channel.
    pub(super) channel: Option<Arc<Channel>>,
    /// Where in the slot it is, without a length in front.
    pub(super) range: Range<usize>,
}

/// What became of a message.
pub(super) enum Outcome {
    /// Nothing is left to do.
    Done,
    /// It leaves on a link.
    Leaves { link: LinkId, reply: Option<ReplyKey>, composed: Composed },
    /// It is to be sealed on another core.
    Crosses { channel: Arc<Channel>, link: LinkId, composed: Composed },
    /// It says these bytes to a connection of an application.
    Bytes { link: LinkId, data: Range<usize>, number: Option<u16> },
    /// It is to be sealed where its payload lies.
    InPlace(super::channels::InPlace),
    /// Its payload is a record of this channel; beside it the encoded addresses of the way that it came.
    Record { channel: Arc<Channel>, record: Range<usize>, back: Range<usize> },
}

/// Most addresses in front of what is left of a relayed message's route.
const RELAY_FRONT_MAX: usize = RELAY_WAY_MAX + FRONT_MAX;

/// Why a chunk is not read further.
pub(super) enum Stop {
    /// What the frame feeds is full; the frame is read again later.
    Blocked(Blocker),
    /// The frame is not a transport message.
    Malformed,
}

/// The payload of a message that goes out.
#[derive(Clone, Copy)]
pub(super) enum Payload<'a> {
    /// It lies at `at` of the slot it was received in, which is the frame's from `start` on.
    InSlot { bytes: &'a [u8], at: usize, start: usize, size: usize },
    /// It lies elsewhere.
    Apart(&'a [u8]),
    /// The answer of `uppercase`.
    Uppercase(crate::path::service::Uppercase<'a>),
}

impl Payload<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Payload::InSlot { bytes, .. } | Payload::Apart(bytes) => bytes.len(),
            Payload::Uppercase(upper) => upper.payload_len(),
        }
    }

    pub(super) fn write(&self, out: &mut [u8]) {
        match self {
            Payload::InSlot { bytes, .. } | Payload::Apart(bytes) => out.copy_from_slice(bytes),
            Payload::Uppercase(upper) => upper.write(out),
        }
    }
}

impl<D: Driver> Core<D> {
    /// Does everything that a message in a slot asks for. When something that it feeds is full, gives back what is still
    /// to be done, which the caller keeps.
    pub(super) fn carry(
        &mut self,
        arrival: &Arrival<'_>,
        slot: &mut Slot,
        mut layer: Layer,
    ) -> Result<(), (Stop, Layer)> {
        for _ in 0..LAYERS_MAX {
            let outcome = match self.carry_out(arrival, &layer, slot) {
                Ok(outcome) => outcome,
                Err(stop) => return Err((stop, layer)),
            };
            match outcome {
                Outcome::Bytes { link, data, number } => {
                    if let (Some(source), Some(channel)) = (arrival.source, &layer.channel) {
                        self.get_familiar(source, arrival.start, channel, slot, layer.range, link);
                    }
                    self.say_bytes(link, slot, data, number);
                    return Ok(());
                }
                Outcome::Record { channel, record, back } => {
                    // Inside another channel, the way is that one's matter.
                    let came = layer.channel.is_none().then_some((layer.range, back));
                    let Some(range) = self.open(arrival, &channel, slot, came, record) else { return Ok(()) };
                    layer = Layer { channel: Some(channel), range };
                }
                leaves => return self.let_leave(leaves, slot).map_err(|stop| (stop, layer)),
            }
        }
        self.counters.add(DropReason::RouteTooLong, 1);
        Ok(())
    }

    /// Makes sure that [`Core::say_bytes`] has room for so many bytes.
    pub(super) fn room_for_bytes(&mut self, arrival: &Arrival<'_>, link: LinkId, length: usize) -> Result<(), Stop> {
        self.room_on(arrival, link)?;
        let fits = length > COPY_MAX || self.has_scribe_room(length);
        fits.then_some(()).ok_or(Stop::Blocked(Blocker::Slots))
    }

    /// Says bytes at `data` of a slot to a connection. Room was made sure of.
    pub(super) fn say_bytes(&mut self, link: LinkId, slot: &mut Slot, data: Range<usize>, number: Option<u16>) {
        let segment = if data.len() <= COPY_MAX {
            self.counters.add(Counter::BytesCopied, data.len() as u64);
            let copied = self.write(data.len(), |out| out.copy_from_slice(slot.bytes(data)));
            copied.expect("room was made sure of")
        } else {
            self.pool.share(slot, data)
        };
        self.say_to_portal(link, Said::Bytes { segment, number });
    }

    /// Lets a message go that leaves this node, or at least this core.
    pub(super) fn let_leave(&mut self, outcome: Outcome, slot: &mut Slot) -> Result<(), Stop> {
        match outcome {
            Outcome::Leaves { link, reply, composed } => {
                let segments = self.segments(composed, slot);
                self.dispatch(link, reply, segments);
            }
            Outcome::Crosses { channel, link, composed } => {
                let segments = self.segments(composed, slot);
                self.dispatch_to_channel(channel, link, segments);
            }
            Outcome::InPlace(plan) => return self.seal_in_place(plan, slot),
            Outcome::Done => {}
            Outcome::Bytes { .. } | Outcome::Record { .. } => unreachable!("it stays here"),
        }
        Ok(())
    }

    /// Asks the path about a message and does what it says; what leaves is composed and still to be dispatched.
    fn carry_out(&mut self, arrival: &Arrival<'_>, layer: &Layer, slot: &Slot) -> Result<Outcome, Stop> {
        let body = slot.bytes(layer.range.clone());
        let message = match Message::parse(body) {
            Ok(message) => message,
            Err(_) if layer.channel.is_none() => return Err(Stop::Malformed),
            Err(_) => {
                self.counters.add(DropReason::BadPlaintext, 1);
                return Ok(Outcome::Done);
            }
        };
        let payload_at = layer.range.start + offset_in(body, message.payload);
        let mut walk = Walk::of(&message);
        let (ingress, replies) = match (&layer.channel, arrival.source) {
            (Some(channel), _) => (Ingress::Channel(channel), &self.no_replies),
            (None, Some(source)) => (source.ingress(), &self.links[source.link.index()].replies),
            (None, None) => (Ingress::Inside, &self.no_replies),
        };
        let payload = |answer| match answer {
            Body::Same => {
                Payload::InSlot { bytes: message.payload, at: payload_at, start: arrival.start, size: slot.size() }
            }
            Body::Uppercase(upper) => Payload::Uppercase(upper),
        };
        // Read before the guards are asked: what they say holds while this stays the same.
        let changes = layer.channel.as_ref().map_or(0, |opened| opened.granted.changes());
        match route(&self.tables, ingress, replies, &message, &mut walk, self.now_ms) {
            Verdict::Send { link, body: answer, reply, served } => {
                let payload = payload(answer);
                let outgoing = outgoing(&message, &walk, payload.len());
                match self.send(arrival, link, &outgoing, payload)? {
                    Ok(composed) => {
                        let counter = if served { Counter::FramesServed } else { Counter::FramesRelayed };
                        self.counters.add(counter, 1);
                        if arrival.is_followed && matches!(answer, Body::Same) {
                            let (head, prefix) = (payload_at - arrival.start, outgoing.prefix_len());
                            let payload = message.payload.len();
                            let repeat = Forwarded { link, reply, counter, head, payload, prefix };
                            self.may_forward_more(layer, repeat, &message, body, &composed);
                        }
                        return Ok(Outcome::Leaves { link, reply, composed });
                    }
                    Err(reason) => self.refuse(arrival, layer, &message, reason, 1),
                }
            }
            Verdict::Seal { channel, body: answer, reply, served } => {
                let channel = channel.clone();
                let payload = payload(answer);
                let outgoing = outgoing(&message, &walk, payload.len());
                match self.seal(arrival, &channel, reply, &outgoing, payload)? {
                    Ok(outcome) => {
                        let counter = if served { Counter::FramesServed } else { Counter::FramesRelayed };
                        self.counters.add(counter, 1);
                        if arrival.is_followed
                            && let (Body::Same, Some(opened), Outcome::Leaves { link, .. }) =
                                (answer, &layer.channel, &outcome)
                        {
                            let text = (layer.range.start - arrival.start, body.len(), payload_at - layer.range.start);
                            let way = (opened, changes, &channel, *link);
                            self.may_reseal_more(way, counter, text, &message, &outgoing);
                        }
                        return Ok(outcome);
                    }
                    Err(reason) => self.refuse(arrival, layer, &message, reason, 1),
                }
            }
            Verdict::Relay { way, body: answer, reply } => {
                let way = way.clone();
                return self.relay(arrival, layer, &message, &walk, &way, payload(answer), reply);
            }
            Verdict::Portal { link } => {
                let said = match PortalMessage::parse(message.payload) {
                    Some(PortalMessage::Payload { data: [], .. } | PortalMessage::Ping { .. }) => {
                        return Ok(Outcome::Done);
                    }
                    Some(PortalMessage::Payload { data, counter: number }) => {
                        self.room_for_bytes(arrival, link, data.len())?;
                        let at = layer.range.start + offset_in(body, data);
                        return Ok(Outcome::Bytes { link, data: at..at + data.len(), number });
                    }
                    Some(PortalMessage::Pong { credit }) => {
                        let (onward, carrier) = (encode_way_back(walk.back.parts()), arrival.carrier(layer));
                        Said::Pong { credit, onward, carrier }
                    }
                    Some(PortalMessage::Disconnect { broken }) => Said::Disconnect { broken },
                    Some(PortalMessage::End { total }) => Said::End { total },
                    Some(PortalMessage::Credit { limit }) => Said::Credit { limit },
                    None => match message.tracing.and_then(undeliverable::Notice::parse) {
                        Some(notice) => Said::Undelivered { token: notice.token },
                        None => {
                            self.refuse(arrival, layer, &message, DropReason::BadPayload, 1);
                            return Ok(Outcome::Done);
                        }
                    },
                };
                self.say_to_portal(link, said);
            }
            Verdict::Outlet { name } => {
                if let Err(reason) = self.on_outlet(arrival, layer, name, message.payload, walk.back.parts()) {
                    self.refuse(arrival, layer, &message, reason, 1);
                }
            }
            Verdict::Open { channel } => {
                let record = payload_at..payload_at + message.payload.len();
                let way = message.return_route.encoded();
                let back_at = layer.range.start + offset_in(body, way);
                let back = back_at..back_at + way.len();
                return Ok(Outcome::Record { channel: channel.clone(), record, back });
            }
            Verdict::Dial { name, target } => {
                let left = message.onward.len().clamp(1, 255) as u8;
                let Some(ingress) = arrival.peer_link().filter(|link| self.open_link(*link).is_some()) else {
                    self.refuse(arrival, layer, &message, DropReason::TransitRefused, left);
                    return Ok(Outcome::Done);
                };
                let link = match self.transit_link(ingress, layer.channel.as_ref(), name, target) {
                    Ok(link) => link,
                    Err(reason) => {
                        self.refuse(arrival, layer, &message, reason, left);
                        return Ok(Outcome::Done);
                    }
                };
                let outgoing = outgoing(&message, &walk, message.payload.len());
                let composed = match self.send(arrival, link, &outgoing, payload(Body::Same))? {
                    Ok(composed) => composed,
                    Err(reason) => {
                        self.refuse(arrival, layer, &message, reason, left);
                        return Ok(Outcome::Done);
                    }
                };
                if let Some(offer) = message.tracing.and_then(Offer::parse) {
                    let way_back = RouteParts { front: &[], rest: message.return_route };
                    self.expect_notice(link, Waiting { offer, left, way_back: encode_way_back(way_back) });
                }
                self.counters.add(Counter::FramesRelayed, 1);
                let reply = Some(layer.channel.as_ref().map_or(ReplyKey::Link(ingress), |channel| channel.reply_key()));
                let (head, prefix) = (payload_at - arrival.start, outgoing.prefix_len());
                if arrival.is_followed {
                    let counter = Counter::FramesRelayed;
                    let repeat = Forwarded { link, reply, counter, head, payload: message.payload.len(), prefix };
                    self.may_forward_more(layer, repeat, &message, body, &composed);
                }
                return Ok(Outcome::Leaves { link, reply, composed });
            }
            Verdict::Punt { body: answer } => self.punt(arrival, layer, &message, &walk, answer),
            Verdict::Park { decryptor } => {
                let Some(handshake) = self.tables.handshakes.get(decryptor) else { return Ok(Outcome::Done) };
                if handshake.begins() {
                    self.punt(arrival, layer, &message, &walk, Body::Same);
                } else {
                    // Only what is left of its route: it led here, and shall lead nowhere else when it is carried on.
                    let waiting = punted(&message, &walk, Body::Same).into();
                    let parked = Parked { link: arrival.peer_link(), message: waiting };
                    let parked =
                        handshake.park(self.index, parked, PARKED_BYTES, &self.mesh.parked_bytes, PARKED_BYTES_MAX);
                    match parked {
                        Ok(()) => self.counters.add(Counter::RecordsParked, 1),
                        Err(TooMuch) => self.refuse(arrival, layer, &message, DropReason::ParkedLimit, 1),
                    }
                }
            }
            Verdict::Heartbeat => self.counters.add(Counter::Heartbeats, 1),
            Verdict::Drop { reason, left } => self.refuse(arrival, layer, &message, reason, left),
        }
        Ok(Outcome::Done)
    }

    /// Hands a message to control, as far as whoever sent it may still have that done.
    fn punt(&mut self, arrival: &Arrival<'_>, layer: &Layer, message: &Message<'_>, walk: &Walk<'_>, body: Body<'_>) {
        let now_ms = self.now_ms;
        let link = arrival.source.map(|source| source.link);
        // When many want something of control at once, each still gets a word in.
        let is_first = link.is_some_and(|link| self.links[link.index()].demands().punts_waiting == 0);
        let has_room = self.mesh.punts_waiting.load(Ordering::Relaxed) < PUNTS_WAITING_MAX
            || (is_first && message.payload.len() <= PUNT_SMALL);
        let admitted = has_room
            && match (&layer.channel, link) {
                (Some(channel), _) => channel.opening().punts.take(PUNT_BURST, PUNTS_PER_SECOND, now_ms),
                (None, Some(link)) => {
                    self.links[link.index()].demands().punts.take(PUNT_BURST, PUNTS_PER_SECOND, now_ms)
                }
                (None, None) => true,
            };
        if !admitted {
            return self.refuse(arrival, layer, message, DropReason::PuntLimit, 1);
        }
        self.counters.add(Counter::Punts, 1);
        self.mesh.punts_waiting.fetch_add(1, Ordering::Relaxed);
        if let Some(link) = link {
            self.links[link.index()].demands().punts_waiting += 1;
        }
        let channel = layer.channel.as_ref().map(|channel| channel.number);
        let message = punted(message, walk, body);
        self.say(FromCore::Notice(Notice::Punt { link, channel, message: message.into() }));
    }

    /// A message of control. It meets the same path, as if it came from inside.
    pub(super) fn on_transmit(&mut self, request: u64, bytes: &[u8]) {
        let Ok(message) = Message::parse(bytes) else {
            return self.undelivered(request, DropReason::BadPayload, 1);
        };
        let all_left = message.onward.len().clamp(1, 255) as u8;
        let inside = Arrival::new(None, 0);
        let mut walk = Walk::of(&message);
        let payload = |body| match body {
            Body::Same => Payload::Apart(message.payload),
            Body::Uppercase(upper) => Payload::Uppercase(upper),
        };
        // Control waits for its own link to take what it asked for: a link that is full gets it all the same, bounded by what
        // control has asked for at once.
        let sent = match route(&self.tables, Ingress::Inside, &self.no_replies, &message, &mut walk, self.now_ms) {
            Verdict::Send { link, body, reply, .. } => {
                let payload = payload(body);
                let sent = self.send(&inside, link, &outgoing(&message, &walk, payload.len()), payload);
                sent.map(|sent| sent.map(|composed| Outcome::Leaves { link, reply, composed }))
            }
            Verdict::Seal { channel, body, reply, .. } => {
                let (channel, payload) = (channel.clone(), payload(body));
                self.seal(&inside, &channel, reply, &outgoing(&message, &walk, payload.len()), payload)
            }
            Verdict::Open { .. }
            | Verdict::Park { .. }
            | Verdict::Relay { .. }
            | Verdict::Portal { .. }
            | Verdict::Outlet { .. } => {
                self.carry_copy_or_drop(bytes);
                return self.say(FromCore::Applied { request });
            }
            Verdict::Punt { body } => {
                let message = punted(&message, &walk, body);
                self.mesh.punts_waiting.fetch_add(1, Ordering::Relaxed);
                self.say(FromCore::Notice(Notice::Punt { link: None, channel: None, message: message.into() }));
                return self.say(FromCore::Applied { request });
            }
            Verdict::Drop { reason, left } => return self.undelivered(request, reason, left),
            Verdict::Heartbeat => return self.undelivered(request, DropReason::RouteEnded, 1),
            Verdict::Dial { .. } => Ok(Err(DropReason::TransitRefused)),
        };
        match sent {
            Ok(Ok(outcome)) => {
                self.send_apart(outcome);
                self.say(FromCore::Applied { request });
            }
            Ok(Err(reason)) => self.undelivered(request, reason, all_left),
            Err(_) => self.undelivered(request, DropReason::PuntLimit, all_left),
        }
    }

    /// A message that goes on along a relay's way (`wire.md` G.1).
    #[allow(clippy::too_many_arguments, reason = "all of them are of the one message")]
    fn relay(
        &mut self,
        arrival: &Arrival<'_>,
        layer: &Layer,
        message: &Message<'_>,
        walk: &Walk<'_>,
        way: &Way,
        payload: Payload<'_>,
        reply: Option<ReplyKey>,
    ) -> Result<Outcome, Stop> {
        let rest = walk.onward.parts();
        let mut front: ArrayVec<AddressRef<'_>, RELAY_FRONT_MAX> = ArrayVec::new();
        let way_on = way.rest.onward();
        let fits = way_on.iter().chain(rest.front.iter().copied()).all(|address| front.try_push(address).is_ok());
        let onward = RouteParts { front: &front, rest: rest.rest };
        if !fits || way_on.len() + walk.onward.len() > ROUTE_MAX {
            self.refuse(arrival, layer, message, DropReason::RouteTooLong, walk.left());
            return Ok(Outcome::Done);
        }
        let return_route = walk.back.parts();
        let outgoing =
            Outgoing { onward, return_route, payload_len: payload.len(), tracing: message.tracing }.measure();
        let sent = match self.tables.find(&way.first) {
            Some(Place::Link(link)) => {
                let reply = reply.filter(|key| *key != ReplyKey::Link(link));
                self.send(arrival, link, &outgoing, payload)?.map(|composed| Outcome::Leaves { link, reply, composed })
            }
            Some(Place::Encryptor(channel)) => {
                let channel = channel.clone();
                self.seal(arrival, &channel, reply, &outgoing, payload)?
            }
            _ => Err(DropReason::LinkClosed),
        };
        match sent {
            Ok(outcome) => {
                self.counters.add(Counter::FramesRelayed, 1);
                Ok(outcome)
            }
            Err(reason) => {
                self.refuse(arrival, layer, message, reason, walk.left());
                Ok(Outcome::Done)
            }
        }
    }

    /// Composes a message for a link, if that takes it now.
    fn send(
        &mut self,
        arrival: &Arrival<'_>,
        link: LinkId,
        outgoing: &Measured<'_>,
        payload: Payload<'_>,
    ) -> Result<Result<Composed, DropReason>, Stop> {
        self.room_on(arrival, link)?;
        if outgoing.body_len() > FRAME_MAX {
            return Ok(Err(DropReason::GrewTooLarge));
        }
        self.compose(link, outgoing, payload).map(Ok).ok_or(Stop::Blocked(Blocker::Slots))
    }

    /// Carries a message that lies in no slot, as if it came from inside. Gives whether it was not refused, as far as this
    /// core knows; `None` when there was no slot for it.
    pub(super) fn carry_copy(&mut self, message: &[u8]) -> Option<bool> {
        self.carry_copy_as(&Arrival::new(None, 0), message)
    }

    fn carry_copy_as(&mut self, arrival: &Arrival<'_>, message: &[u8]) -> Option<bool> {
        let small = self.pool.small();
        let slot = if message.len() <= small.head + small.body { self.pool.take() } else { self.pool.take_large() };
        let mut slot = slot?;
        self.counters.add(Counter::BytesCopied, message.len() as u64);
        slot.bytes_mut(0..message.len()).copy_from_slice(message);
        let layer = Layer { channel: None, range: 0..message.len() };
        let carried = self.carry(arrival, &mut slot, layer);
        self.pool.put(slot);
        carried.is_ok().then(|| !arrival.was_refused())
    }

    /// The same for what is lost when there is no slot for it.
    pub(super) fn carry_copy_or_drop(&mut self, message: &[u8]) {
        if self.carry_copy(message).is_none() {
            self.counters.add(DropReason::PuntLimit, 1);
        }
    }

    /// Carries what waited for an install.
    pub(super) fn carry_parked(&mut self, parked: &Parked) {
        let arrival = Arrival { waited_on: parked.link, ..Arrival::new(None, 0) };
        if self.carry_copy_as(&arrival, &parked.message).is_none() {
            self.counters.add(DropReason::PuntLimit, 1);
        }
    }

    fn undelivered(&mut self, request: u64, reason: DropReason, left: u8) {
        self.counters.add(reason, 1);
        self.say(FromCore::Notice(Notice::Undelivered { request, reason, left }));
    }

    /// Whether a link takes a frame now.
    pub(super) fn room_on(&mut self, arrival: &Arrival<'_>, link: LinkId) -> Result<(), Stop> {
        if arrival.source.is_none() {
            return Ok(());
        }
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
    fn refuse(&mut self, arrival: &Arrival<'_>, layer: &Layer, message: &Message<'_>, reason: DropReason, left: u8) {
        self.counters.add(reason, 1);
        arrival.refuse();
        let Some(offer) = message.tracing.and_then(Offer::parse) else { return };
        let way_back = RouteParts { front: &[], rest: message.return_route };
        match (&layer.channel, arrival.source) {
            (Some(channel), _) => self.notify_through(channel.clone(), offer, way_back, reason, left),
            (None, Some(source)) => self.notify(source.link, offer, way_back, reason, left),
            (None, None) => {}
        }
    }

    /// Sends an undeliverable notice (`docs/wire-extensions.md`) back over the link that the message came in on.
    pub(super) fn notify(&mut self, to: LinkId, offer: Offer, onward: RouteParts<'_>, reason: DropReason, left: u8) {
        let Some(index) = self.open_link(to) else { return };
        let link = &mut self.links[index];
        let told = link.state == super::link::State::Up
            && !onward.is_empty()
            && !link.egress.full
            && link.demands().notices.take(NOTICE_BURST, NOTICES_PER_SECOND, self.now_ms);
        if !told {
            return self.counters.add(Counter::NoticesWithheld, 1);
        }
        // Why and where is for this machine only, and for authenticated peers.
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

    /// The same for a message that came out of a channel: its peer is authenticated, so it is told why.
    pub(super) fn notify_through(
        &mut self,
        channel: Arc<Channel>,
        offer: Offer,
        onward: RouteParts<'_>,
        reason: DropReason,
        left: u8,
    ) {
        let told = !onward.is_empty() && channel.opening().notices.take(NOTICE_BURST, NOTICES_PER_SECOND, self.now_ms);
        let notice = undeliverable::Notice { token: offer.token, reason: reason as u8, left };
        let text = notice.text();
        let outgoing = Outgoing { onward, return_route: RouteParts::EMPTY, payload_len: 0, tracing: Some(&text) };
        let inside = Arrival::new(None, 0);
        let sealed = told.then(|| self.seal(&inside, &channel, None, &outgoing.measure(), Payload::Apart(&[])));
        match sealed {
            Some(Ok(Ok(outcome))) => {
                self.counters.add(Counter::NoticesSent, 1);
                self.send_apart(outcome);
            }
            _ => self.counters.add(Counter::NoticesWithheld, 1),
        }
    }
}

/// Where `part` begins in `whole`, of which it is a part.
pub(super) fn offset_in(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr() - whole.as_ptr().addr()
}

/// A message that goes nowhere but holds a route, for later.
pub(super) fn encode_way_back(route: RouteParts<'_>) -> Box<[u8]> {
    let message = Outgoing { onward: route, return_route: RouteParts::EMPTY, payload_len: 0, tracing: None };
    message.to_frame(&[]).into()
}

/// The route that [`encode_way_back`] kept.
pub(super) fn decode_way_back(frame: &[u8]) -> Route<'_> {
    Message::parse(&frame[4..]).map_or(Route::EMPTY, |message| message.onward)
}

/// The message that goes out after the walk.
fn outgoing<'a>(message: &Message<'a>, walk: &'a Walk<'a>, payload_len: usize) -> Measured<'a> {
    let (onward, return_route) = (walk.onward.parts(), walk.back.parts());
    Outgoing { onward, return_route, payload_len, tracing: message.tracing }.measure()
}

/// The message that control gets, without its length.
fn punted(message: &Message<'_>, walk: &Walk<'_>, body: Body<'_>) -> Vec<u8> {
    let mut answer = Vec::new();
    let payload = match body {
        Body::Same => message.payload,
        Body::Uppercase(upper) => {
            answer.resize(upper.payload_len(), 0);
            upper.write(&mut answer);
            &answer
        }
    };
    let outgoing = Outgoing {
        onward: walk.onward.parts(),
        return_route: walk.back.parts(),
        payload_len: payload.len(),
        tracing: message.tracing,
    };
    let mut frame = outgoing.to_frame(payload);
    frame.drain(..4);
    frame
}
