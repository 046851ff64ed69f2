//! Records are opened where they were received, and messages are sealed: where their payload lies, if there is room
//! around it, else on their way into the scribe's slot.
//!
//! ```text
//!   copied     scribe | outer prefix | nonce | inner prefix  payload  suffix | tag |
//!
//!   in place   scribe | outer prefix | nonce |    slot | inner prefix  payload |    scribe | suffix | tag |
//! ```
//!
//! In place, the text's last bytes (its padding) would lie where the next frame begins. They are sealed there all the
//! same, moved to the scribe's slot, and what had been there is put back.

use super::carry::{Arrival, Outcome, Payload, Stop};
use super::mesh::{FrameSegments, FromCore};
use super::{Blocker, Core};
use crate::config::{
    COPY_MAX, CREDENTIALS_BYTES_MAX, FORGED_RECORDS_MAX, HEAD_BYTES_MAX, LAYERS_MAX, PUNT_BURST, PUNTS_PER_SECOND,
    PUNTS_WAITING_MAX,
};
use crate::io::driver::Driver;
use crate::io::pool::{Segment, Slot};
use crate::path::channel::{Channel, Opening, Sealing};
use crate::path::tables::{Place, ReplyKey};
use ockam_crypto::{
    CLOSE, NO_PADDING, NONCE_LEN, OpenError, OutgoingPlaintext, PAYLOAD_HEAD, PlaintextKind, RECORD_OVERHEAD, TAG_LEN,
};
use ockam_engine_abi::{ChannelEnd, Counter, DropReason, LinkId, Notice, Refusal};
use ockam_wire::{AddressRef, FRAME_MAX, Measured, Message, Outgoing, RouteParts};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Longest prefix of a text that is sealed in place; others are copied.
pub(super) const PREFIX_MAX: usize = 1024;
/// Longest suffix of such a text: an offer and the padding.
pub(super) const SUFFIX_MAX: usize = 128;

/// A text to be sealed where its payload lies. Prefix and suffix are in [`Core::scratch`], because they are written from
/// a message whose place they take.
pub(super) struct InPlace {
    channel: Arc<Channel>,
    link: LinkId,
    prefix: usize,
    payload: Range<usize>,
    suffix: usize,
}

impl<D: Driver> Core<D> {
    /// Opens a record. Gives where in the slot the message inside is, unless there is none, or nothing is to be done with
    /// it. `came` is where the message around the record is, and the addresses that it came by, if it came on a link.
    pub(super) fn open(
        &mut self,
        arrival: &Arrival<'_>,
        channel: &Arc<Channel>,
        slot: &mut Slot,
        came: Option<(Range<usize>, Range<usize>)>,
        record: Range<usize>,
    ) -> Option<Range<usize>> {
        self.open_with(&mut channel.opening(), arrival, channel, slot, came, record)
    }

    /// The same for who has the lock, which is as expensive as opening a small record.
    pub(super) fn open_with(
        &mut self,
        opening: &mut Opening,
        arrival: &Arrival<'_>,
        channel: &Arc<Channel>,
        slot: &mut Slot,
        came: Option<(Range<usize>, Range<usize>)>,
        record: Range<usize>,
    ) -> Option<Range<usize>> {
        if channel.has_ended() {
            self.counters.add(DropReason::ChannelClosed, 1);
            return None;
        }
        let (nonce, kind) = match opening.opener.open_in_place(slot.bytes_mut(record.clone())) {
            Ok(opened) => (opened.nonce, PlaintextKind::of(opened.text)),
            Err(error) => {
                self.counters.add(refusal(error), 1);
                opening.refused += 1;
                // Honest networks repeat and delay; they do not forge.
                opening.forged += u64::from(error == OpenError::BadTag);
                if opening.forged >= FORGED_RECORDS_MAX {
                    self.end_channel(channel, ChannelEnd::TooManyForged);
                }
                return None;
            }
        };
        opening.opened += 1;
        self.counters.add(Counter::RecordsOpened, 1);
        match kind {
            Ok(PlaintextKind::Payload { at }) => {
                if channel.follows_peer
                    && let (Some(source), Some((outer, back))) = (arrival.source, came)
                    && opening.is_news(nonce, source.link, slot.bytes(back))
                    && let Ok(message) = Message::parse(slot.bytes(outer))
                {
                    channel.follow(opening, source.link, &source.address, message.return_route);
                }
                return Some(record.start + NONCE_LEN + at..record.end - TAG_LEN);
            }
            Ok(PlaintextKind::Close) => self.end_channel(channel, ChannelEnd::ByPeer),
            Ok(PlaintextKind::RefreshCredentials) => {
                self.pass_credentials(channel, opening, slot.bytes(record.start + NONCE_LEN..record.end - TAG_LEN));
            }
            Err(_) => self.counters.add(DropReason::BadPlaintext, 1),
        }
        None
    }

    /// The peer of a channel shows new credentials: control sees what they are worth.
    fn pass_credentials(&mut self, channel: &Channel, opening: &mut Opening, text: &[u8]) {
        if text.len() > CREDENTIALS_BYTES_MAX {
            return self.counters.add(DropReason::BadPlaintext, 1);
        }
        // They have places of their own, so that a flood of punts does not take from honest peers what they are granted.
        let has_room = self.mesh.punts_waiting.load(Ordering::Relaxed) < 2 * PUNTS_WAITING_MAX;
        if !has_room || !opening.punts.take(PUNT_BURST, PUNTS_PER_SECOND, self.now_ms) {
            return self.counters.add(DropReason::PuntLimit, 1);
        }
        self.counters.add(Counter::RefreshesPassed, 1);
        self.mesh.punts_waiting.fetch_add(1, Ordering::Relaxed);
        let (channel, text) = (channel.number, text.to_vec().into());
        self.say(FromCore::Notice(Notice::CredentialsShown { channel, text }));
    }

    /// Seals a message for a channel, or prepares that. `reply` is what the peer may answer to from now on.
    pub(super) fn seal(
        &mut self,
        arrival: &Arrival<'_>,
        channel: &Arc<Channel>,
        reply: Option<ReplyKey>,
        inner: &Measured<'_>,
        payload: Payload<'_>,
    ) -> Result<Result<Outcome, DropReason>, Stop> {
        if channel.has_ended() {
            return Ok(Err(DropReason::ChannelClosed));
        }
        let plaintext = OutgoingPlaintext(*inner);
        let text = plaintext.text_len();
        if text > FRAME_MAX - HEAD_BYTES_MAX {
            let outer = channel.sealing().way.rest.prefix_len(RECORD_OVERHEAD + text);
            if outer - 4 + RECORD_OVERHEAD + text > FRAME_MAX {
                return Ok(Err(DropReason::GrewTooLarge));
            }
        }
        let Some(link) = channel.egress() else {
            return self.seal_for_inside(arrival, channel, reply, inner, payload);
        };
        self.room_on(arrival, link)?;
        if link.core() != self.index {
            let composed = self.compose(link, inner, payload).ok_or(Stop::Blocked(Blocker::Slots))?;
            self.admit(channel, reply);
            return Ok(Ok(Outcome::Crosses { channel: channel.clone(), link, composed }));
        }
        if self.open_link(link).is_none() {
            return Ok(Err(DropReason::LinkClosed));
        }
        if let Payload::InSlot { bytes, at, start, size } = payload
            && bytes.len() > COPY_MAX
            && let (prefix, suffix) = (plaintext.prefix_len(), plaintext.suffix_len())
            && at >= start + prefix
            && at + bytes.len() + suffix <= size
            && prefix <= PREFIX_MAX
            && suffix <= SUFFIX_MAX
            && !(text <= self.pool.small().body && self.is_crowded(link))
        {
            let scratch = &mut *self.scratch;
            plaintext.write_prefix(&mut scratch[..prefix]);
            plaintext.write_suffix(&mut scratch[prefix..prefix + suffix]);
            self.admit(channel, reply);
            let (channel, payload) = (channel.clone(), at..at + bytes.len());
            return Ok(Ok(Outcome::InPlace(InPlace { channel, link, prefix, payload, suffix })));
        }
        self.counters.add(Counter::BytesCopied, payload.len() as u64);
        let sealed = self.compose_sealed(channel, text, |text| write_text(plaintext, payload, text));
        match sealed.ok_or(Stop::Blocked(Blocker::Slots))? {
            Ok(segment) => {
                self.admit(channel, reply);
                Ok(Ok(Outcome::Leaves { link, reply: None, composed: super::egress::Composed::Copied(segment) }))
            }
            Err(reason) => Ok(Err(reason)),
        }
    }

    fn admit(&mut self, channel: &Channel, reply: Option<ReplyKey>) {
        if let Some(reply) = reply {
            channel.opening().replies.admit(reply);
        }
    }

    /// Seals what [`Core::seal`] prepared, and queues it.
    pub(super) fn seal_in_place(&mut self, plan: InPlace, slot: &mut Slot) -> Result<(), Stop> {
        let InPlace { channel, link, prefix, payload, suffix } = plan;
        let mut sealing = channel.sealing();
        let Sealing { sealer, way } = &mut *sealing;
        let record = RECORD_OVERHEAD + prefix + payload.len() + suffix;
        let outer = way.rest.prefix_len(record);
        // Nothing is sealed that could not leave.
        if !self.has_scribe_room(outer + NONCE_LEN + suffix + TAG_LEN) {
            return Err(Stop::Blocked(Blocker::Slots));
        }
        let start = payload.start - prefix;
        let text = slot.bytes_mut(start..payload.end + suffix);
        let tail = text.len() - suffix;
        let mut kept = [0; SUFFIX_MAX];
        kept[..suffix].copy_from_slice(&text[tail..]);
        text[..prefix].copy_from_slice(&self.scratch[..prefix]);
        text[tail..].copy_from_slice(&self.scratch[prefix..prefix + suffix]);
        let sealed = sealer.seal_detached(text);
        let mut sealed_tail = [0; SUFFIX_MAX];
        sealed_tail[..suffix].copy_from_slice(&text[tail..]);
        text[tail..].copy_from_slice(&kept[..suffix]);
        let Ok((nonce, tag)) = sealed else {
            drop(sealing);
            self.counters.add(DropReason::ChannelClosed, 1);
            self.end_channel(&channel, ChannelEnd::Exhausted);
            return Ok(());
        };
        let front = self.write(outer + NONCE_LEN, |out| {
            let (prefix, place) = out.split_at_mut(outer);
            way.rest.write_prefix(record, prefix);
            place.copy_from_slice(&nonce);
        });
        let back = self.write(suffix + TAG_LEN, |out| {
            let (end, place) = out.split_at_mut(suffix);
            end.copy_from_slice(&sealed_tail[..suffix]);
            place.copy_from_slice(&tag);
        });
        drop(sealing);
        self.counters.add(Counter::RecordsSealed, 1);
        let middle = self.pool.share(slot, start..payload.end);
        self.dispatch(link, None, [front, Some(middle), back]);
        Ok(())
    }

    /// Seals a text of `length` bytes, which `fill` writes, in the scribe's slot. `None` when no slot is free; nothing is
    /// sealed then.
    fn compose_sealed(
        &mut self,
        channel: &Arc<Channel>,
        length: usize,
        mut fill: impl FnMut(&mut [u8]),
    ) -> Option<Result<Segment, DropReason>> {
        self.compose_sealed_run(channel, 1, length, |_, text| fill(text))
    }

    /// The same for `count` texts, each of which `fill` is told the number of: one frame lies behind the other.
    pub(super) fn compose_sealed_run(
        &mut self,
        channel: &Arc<Channel>,
        count: usize,
        length: usize,
        mut fill: impl FnMut(usize, &mut [u8]),
    ) -> Option<Result<Segment, DropReason>> {
        let mut sealing = channel.sealing();
        let Sealing { sealer, way } = &mut *sealing;
        let record = RECORD_OVERHEAD + length;
        let outer = way.rest.prefix_len(record);
        let mut sealed = Ok(0);
        let segment = self.write(count * (outer + record), |out| {
            for (number, frame) in out.chunks_exact_mut(outer + record).enumerate() {
                let (prefix, place) = frame.split_at_mut(outer);
                way.rest.write_prefix(record, prefix);
                fill(number, &mut place[NONCE_LEN..NONCE_LEN + length]);
                sealed = sealed.and_then(|_| sealer.seal_in_place(place));
            }
        })?;
        drop(sealing);
        match sealed {
            Ok(_) => {
                self.counters.add(Counter::RecordsSealed, count as u64);
                Some(Ok(segment))
            }
            Err(_) => {
                self.release(segment);
                self.end_channel(channel, ChannelEnd::Exhausted);
                Some(Err(DropReason::ChannelClosed))
            }
        }
    }

    /// Seals for a channel whose way begins inside this node: with another channel, most often. What is sealed is a
    /// message from inside then.
    fn seal_for_inside(
        &mut self,
        arrival: &Arrival<'_>,
        channel: &Arc<Channel>,
        reply: Option<ReplyKey>,
        inner: &Measured<'_>,
        payload: Payload<'_>,
    ) -> Result<Result<Outcome, DropReason>, Stop> {
        if let Some(link) = self.last_egress(channel) {
            self.room_on(arrival, link)?;
        }
        let plaintext = OutgoingPlaintext(*inner);
        let mut text = vec![0; plaintext.text_len()];
        write_text(plaintext, payload, &mut text);
        self.admit(channel, reply);
        Ok(self.seal_apart(channel, &text).map(|()| Outcome::Done))
    }

    /// Seals a text and carries the message around it as one from inside.
    fn seal_apart(&mut self, channel: &Arc<Channel>, text: &[u8]) -> Result<(), DropReason> {
        if self.layers == LAYERS_MAX {
            return Err(DropReason::RouteTooLong);
        }
        let mut sealing = channel.sealing();
        let Ok(record) = sealing.sealer.seal(text) else {
            drop(sealing);
            self.end_channel(channel, ChannelEnd::Exhausted);
            return Err(DropReason::ChannelClosed);
        };
        let first = sealing.way.first.clone();
        let onward = RouteParts { front: &[AddressRef::local(&first)], rest: sealing.way.rest.onward() };
        let outer = Outgoing { onward, return_route: RouteParts::EMPTY, payload_len: record.len(), tracing: None };
        if outer.body_len() > FRAME_MAX {
            return Err(DropReason::GrewTooLarge);
        }
        let frame = outer.to_frame(&record);
        drop(sealing);
        self.counters.add(Counter::RecordsSealed, 1);
        self.layers += 1;
        self.carry_copy_or_drop(&frame[4..]);
        self.layers -= 1;
        Ok(())
    }

    /// The link by which the records of a channel leave at last, through the channels that its way begins with.
    pub(super) fn last_egress(&self, channel: &Arc<Channel>) -> Option<LinkId> {
        let mut first = channel.sealing().way.first.clone();
        for _ in 0..LAYERS_MAX {
            match self.tables.find(&first)? {
                Place::Link(link) => return Some(link),
                Place::Encryptor(next) => match next.egress() {
                    Some(link) => return Some(link),
                    None => first = next.sealing().way.first.clone(),
                },
                _ => return None,
            }
        }
        None
    }

    /// A message, as a frame, that another core has for a channel whose records leave from here.
    pub(super) fn seal_crossed(&mut self, channel: &Arc<Channel>, segments: FrameSegments) {
        let length: usize = segments.iter().flatten().map(Segment::len).sum();
        let fill = |text: &mut [u8]| {
            let (padding, mut room) = text.split_last_mut().expect("room for the padding");
            *padding = NO_PADDING;
            for segment in segments.iter().flatten() {
                let (place, rest) = std::mem::take(&mut room).split_at_mut(segment.len());
                place.copy_from_slice(segment.bytes());
                room = rest;
            }
            text[..PAYLOAD_HEAD.len()].copy_from_slice(&PAYLOAD_HEAD);
        };
        self.counters.add(Counter::BytesCopied, length as u64);
        match channel.egress() {
            _ if channel.has_ended() => self.counters.add(DropReason::ChannelClosed, 1),
            // The way has changed meanwhile.
            Some(link) if link.core() != self.index => {
                return self.dispatch_to_channel(channel.clone(), link, segments);
            }
            Some(link) => match self.compose_sealed(channel, length + 1, fill) {
                Some(Ok(segment)) => self.dispatch(link, None, [Some(segment), None, None]),
                Some(Err(reason)) => self.counters.add(reason, 1),
                None => self.counters.add(DropReason::PuntLimit, 1),
            },
            None => {
                let mut text = vec![0; length + 1];
                fill(&mut text);
                if let Err(reason) = self.seal_apart(channel, &text) {
                    self.counters.add(reason, 1);
                }
            }
        }
        segments.into_iter().flatten().for_each(|segment| self.release(segment));
    }

    /// Sends what was sealed for a message that lies in no slot.
    pub(super) fn send_apart(&mut self, outcome: Outcome) {
        use super::egress::Composed;
        match outcome {
            Outcome::Leaves { link, reply, composed: Composed::Copied(segment) } => {
                self.dispatch(link, reply, [Some(segment), None, None]);
            }
            Outcome::Crosses { channel, link, composed: Composed::Copied(segment) } => {
                self.dispatch_to_channel(channel, link, [Some(segment), None, None]);
            }
            Outcome::Done => {}
            _ => unreachable!("what lies in no slot is copied"),
        }
    }

    /// Tells the peer that the channel ends (`wire.md` E.7). Nothing is sealed afterwards.
    pub(super) fn seal_close(&mut self, channel: &Arc<Channel>) {
        channel.end();
        // A channel that ends needs not know whether its peer heard of it.
        let _ = self.seal_text(channel, &CLOSE);
    }

    /// Shows new credentials of this node to the peer of a channel (`wire.md` E.7).
    ///
    /// # Errors
    /// [`Refusal::Unknown`] when the channel has ended, [`Refusal::ConnectFailed`] when nothing carries it now,
    /// [`Refusal::Limit`] when no slot is free.
    pub(super) fn show_credentials(&mut self, channel: &Arc<Channel>, text: &[u8]) -> Result<(), Refusal> {
        if channel.has_ended() { Err(Refusal::Unknown) } else { self.seal_text(channel, text) }
    }

    /// Seals what is no message and sends it, whether or not its link is full: control says such things now and then.
    fn seal_text(&mut self, channel: &Arc<Channel>, text: &[u8]) -> Result<(), Refusal> {
        match channel.egress() {
            Some(link) if link.core() == self.index && self.open_link(link).is_none() => Err(Refusal::ConnectFailed),
            Some(link) => match self.compose_sealed(channel, text.len(), |out| out.copy_from_slice(text)) {
                Some(Ok(segment)) => {
                    self.dispatch(link, None, [Some(segment), None, None]);
                    Ok(())
                }
                Some(Err(_)) => Err(Refusal::Unknown),
                None => Err(Refusal::Limit),
            },
            None => self.seal_apart(channel, text).map_err(|_| Refusal::ConnectFailed),
        }
    }

    /// A channel takes its addresses; what waited for it comes first. False when too much had waited.
    pub(super) fn install(&mut self, channel: &Arc<Channel>, reachable: u64, serial: u64) -> bool {
        let Some(handshake) = self.tables.install(channel, reachable, serial) else { return true };
        match handshake.take(self.index, &self.mesh.parked_bytes) {
            Ok(parked) => {
                parked.iter().for_each(|parked| self.carry_parked(parked));
                true
            }
            Err(_) => {
                self.tables.clear(&channel.decryptor);
                self.tables.clear(&channel.encryptor);
                false
            }
        }
    }

    pub(super) fn end_channel(&mut self, channel: &Channel, reason: ChannelEnd) {
        if channel.end() {
            self.say(FromCore::ChannelEnded { channel: channel.number, reason });
        }
    }
}

/// Writes the text of a message: what a record says.
fn write_text(plaintext: OutgoingPlaintext<'_>, payload: Payload<'_>, text: &mut [u8]) {
    let (prefix, rest) = text.split_at_mut(plaintext.prefix_len());
    let (body, suffix) = rest.split_at_mut(payload.len());
    plaintext.write_prefix(prefix);
    payload.write(body);
    plaintext.write_suffix(suffix);
}

fn refusal(error: OpenError) -> DropReason {
    match error {
        OpenError::TooShort | OpenError::ReservedNonce | OpenError::BadTag => DropReason::NotGenuine,
        OpenError::OutsideWindow => DropReason::OutsideWindow,
        OpenError::Replayed => DropReason::Replayed,
    }
}

/// Bytes of [`Core::scratch`].
pub(super) const SCRATCH_BYTES: usize = PREFIX_MAX + SUFFIX_MAX;
