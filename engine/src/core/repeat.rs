//! Frames that look like the one before.
//!
//! Most small frames of a link come in a row to one address, with heads that are equal to the last byte. What the path
//! said about the first of them holds for those behind it in the same chunk: nothing but this core's own work happens in
//! between. So they are found by comparing bytes.
//!
//! ```text
//!   received    | head | payload 0 | tail | head | payload 1 | tail | head | payload 2 | tail | other ...
//!                 route, compose            \______ equal ______/     \______ equal ______/
//!   written     | prefix | payload 0 | tail | prefix | payload 1 | tail | prefix | payload 2 | tail |
//! ```
//!
//! Those that only pass are written in one go and queued as one segment. Payloads too large for that stay where they lie, each
//! behind the one prefix, which is sent again. Of records some are opened; what is inside and looks alike, too, is sealed
//! again behind the same prefix.

use super::Core;
use super::carry::{Arrival, Layer, Source, offset_in};
use super::channels::{PREFIX_MAX, SUFFIX_MAX};
use super::egress::Composed;
use crate::io::driver::Driver;
use crate::io::pool::Slot;
use crate::path::channel::Channel;
use crate::path::tables::ReplyKey;
use ockam_crypto::{NONCE_LEN, OutgoingPlaintext, PAYLOAD_HEAD, RECORD_OVERHEAD};
use ockam_engine_abi::{Counter, DropReason, LinkId};
use ockam_wire::undeliverable::Offer;
use ockam_wire::{Measured, Message};
use std::ops::Range;
use std::sync::Arc;

/// Longest prefix of a frame that is forwarded again; those of nearly all frames are shorter.
const FRONT_MAX: usize = 512;

/// Most records that are opened before what was in them is sealed.
const RESEALED_MAX: usize = 64;

/// Most bytes that are written in one go, so that a link which turned full is not fed much further.
const RUN_BYTES_MAX: usize = 16 * 1024;

/// What was done about a frame, and may be done about the next.
#[derive(Debug)]
pub(super) enum Repeat {
    /// Its payload was copied.
    Forwarded(Forwarded),
    /// Its payload stays where it was received, and nothing comes behind it.
    Shared(Forwarded),
    Resealed(Resealed),
}

/// A frame left on a link of this core, its payload unchanged.
#[derive(Debug)]
pub(super) struct Forwarded {
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

/// A frame was a record, and the payload inside was sealed again and left on a link of this core. What it was sealed
/// between is in [`Core::scratch`], as for [`super::channels::InPlace`].
#[derive(Debug)]
pub(super) struct Resealed {
    opened: Arc<Channel>,
    sealed: Arc<Channel>,
    link: LinkId,
    counter: Counter,
    /// See [`crate::path::guard::Granted::changes`].
    changes: u64,
    /// Where in the frame the message inside begins, how long it is with what follows it, and where in it the payload is.
    inner: Range<usize>,
    payload: Range<usize>,
    prefix: usize,
    suffix: usize,
}

impl Resealed {
    /// Bytes that are sealed of each.
    fn text_len(&self) -> usize {
        self.prefix + self.payload.len() + self.suffix
    }
}

/// What the frame of a record was like.
struct Like {
    /// Where in the slot it begins, and how long it is.
    first: usize,
    total: usize,
    /// Bytes in front of the record.
    head: usize,
    /// Where in the frame its return route is.
    back: Range<usize>,
}

impl<D: Driver> Core<D> {
    /// Remembers what is done about a message, whose frame's `body` is given, if another frame may be like it: it is in no
    /// channel, leaves on a link of this core, and ends as it came.
    pub(super) fn may_forward_more(
        &mut self,
        layer: &Layer,
        done: Forwarded,
        message: &Message<'_>,
        body: &[u8],
        composed: &Composed,
    ) {
        // What came out of a channel has a body of its own, which lies somewhere in the frame.
        if layer.channel.is_some() {
            return;
        }
        // The head counts the frame's length, which the body does not have.
        let tail = &body[done.head - 4 + done.payload..];
        let ends_alike = match composed {
            Composed::Copied(segment) => segment.bytes()[done.prefix + done.payload..] == *tail,
            Composed::Shared { suffix, .. } => suffix.is_none() && tail.is_empty(),
        };
        let is_repeatable =
            done.link.core() == self.index && done.prefix <= FRONT_MAX && ends_alike && !offers(message);
        self.repeatable = is_repeatable.then(|| match composed {
            Composed::Copied(_) => Repeat::Forwarded(done),
            Composed::Shared { .. } => Repeat::Shared(done),
        });
    }

    /// Remembers what is done about a message that came out of the channel `opened`, was sealed for `sealed` and leaves on
    /// `link`, if another frame may be like its frame. `at`, of so many bytes, is where in the frame it begins, and its payload
    /// where in it; `changes` is what the grants of `opened` counted before its guards were asked.
    pub(super) fn may_reseal_more(
        &mut self,
        (opened, changes, sealed, link): (&Arc<Channel>, u64, &Arc<Channel>, LinkId),
        counter: Counter,
        (at, length, payload): (usize, usize, usize),
        message: &Message<'_>,
        outgoing: &Measured<'_>,
    ) {
        let text = OutgoingPlaintext(*outgoing);
        let (prefix, suffix) = (text.prefix_len(), text.suffix_len());
        if link.core() != self.index || prefix > PREFIX_MAX || suffix > SUFFIX_MAX || offers(message) {
            return;
        }
        text.write_prefix(&mut self.scratch[..prefix]);
        text.write_suffix(&mut self.scratch[prefix..prefix + suffix]);
        self.repeatable = Some(Repeat::Resealed(Resealed {
            opened: opened.clone(),
            sealed: sealed.clone(),
            link,
            counter,
            changes,
            inner: at..at + length,
            payload: payload..payload + message.payload.len(),
            prefix,
            suffix,
        }));
    }

    /// Does with frames at the beginning of `rest` what was done with the one at `first`, as far as they are like it.
    /// Gives how many.
    pub(super) fn repeat(
        &mut self,
        done: Repeat,
        source: &Source,
        slot: &mut Slot,
        first: Range<usize>,
        rest: Range<usize>,
    ) -> usize {
        match done {
            Repeat::Forwarded(done) => self.forward_more(done, slot, first, rest),
            Repeat::Shared(done) => self.share_more(done, slot, first, rest),
            Repeat::Resealed(done) => self.reseal_more(&done, source, slot, first, rest),
        }
    }

    fn forward_more(&mut self, done: Forwarded, slot: &Slot, first: Range<usize>, rest: Range<usize>) -> usize {
        let Forwarded { link, reply, counter, head, payload, prefix } = done;
        let (total, frame) = (first.len(), slot.bytes(first));
        let rest = slot.bytes(rest);
        let is_alike =
            |other: &&[u8]| other[..head] == frame[..head] && other[head + payload..] == frame[head + payload..];
        let written = prefix + total - head;
        let most = (self.scribe_room() / written).min(RUN_BYTES_MAX / written);
        let count = rest.chunks_exact(total).take(most).take_while(is_alike).count();
        if count == 0 || !self.has_room_now(link) {
            return 0;
        }
        let mut template = [0; FRONT_MAX];
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

    fn share_more(&mut self, done: Forwarded, slot: &mut Slot, first: Range<usize>, rest: Range<usize>) -> usize {
        let Forwarded { link, reply, counter, head, payload: _, prefix } = done;
        let total = first.len();
        let mut count = 0;
        for at in rest.clone().step_by(total).take(rest.len() / total) {
            let is_alike = slot.bytes(at..at + head) == slot.bytes(first.start..first.start + head);
            // On a crowded link it is copied, as the ordinary path does.
            if !is_alike || self.is_crowded(link) || !self.has_room_now(link) {
                break;
            }
            let written = self.scribe.end - prefix..self.scribe.end;
            let scribe = self.scribe.slot.as_mut().expect("the first one's prefix is there");
            let front = self.pool.share(scribe, written);
            let payload = self.pool.share(slot, at + head..at + total);
            self.counters.add(counter, 1);
            self.queue(link, reply, [Some(front), Some(payload), None]);
            count += 1;
        }
        count
    }

    fn reseal_more(
        &mut self,
        done: &Resealed,
        source: &Source,
        slot: &mut Slot,
        first: Range<usize>,
        rest: Range<usize>,
    ) -> usize {
        let total = first.len();
        // The record, with its nonce in front and its tag behind, is all that is behind the head.
        let head = done.inner.start - PAYLOAD_HEAD.len() - NONCE_LEN;
        let frame = slot.bytes(first.clone());
        let Ok(outer) = Message::parse(&frame[4..]) else { return 0 };
        if offset_in(frame, outer.payload) != head || head + outer.payload.len() != total {
            return 0;
        }
        let back = offset_in(frame, outer.return_route.encoded());
        let like = Like { first: first.start, total, head, back: back..back + outer.return_route.encoded().len() };
        let mut at = rest.start;
        while rest.end - at >= total {
            let (count, goes_on) = self.reseal_some(done, &like, source, slot, at..rest.end);
            at += count * total;
            if !goes_on {
                break;
            }
        }
        (at - rest.start) / total
    }

    /// First opens some frames at the beginning of `rest`, then seals what was in them: a lock takes as long as a small
    /// record. Gives how many frames that were, and whether there may be more.
    fn reseal_some(
        &mut self,
        done: &Resealed,
        like: &Like,
        source: &Source,
        slot: &mut Slot,
        rest: Range<usize>,
    ) -> (usize, bool) {
        let Like { first, total, head, back } = like;
        if done.sealed.egress() != Some(done.link) || done.sealed.has_ended() || !self.has_room_now(done.link) {
            return (0, false);
        }
        let written = {
            let record = RECORD_OVERHEAD + done.text_len();
            done.sealed.sealing().way.rest.prefix_len(record) + record
        };
        let most = RESEALED_MAX.min(self.scribe_room() / written).min(RUN_BYTES_MAX / written).min(rest.len() / total);
        let mut alike = [0; RESEALED_MAX];
        let (mut count, mut found, mut differs) = (0, 0, None);
        let mut opening = done.opened.opening();
        for at in rest.step_by(*total).take(most) {
            let goes_on = slot.bytes(at..at + head) == slot.bytes(*first..first + head)
                && done.opened.granted.changes() == done.changes;
            if !goes_on {
                break;
            }
            let arrival = Arrival::frame(source, at, false);
            let came = (at + 4..at + total, at + back.start..at + back.end);
            let record = at + head..at + total;
            let Some(message) = self.open_with(&mut opening, &arrival, &done.opened, slot, Some(came), record) else {
                count += 1;
                continue;
            };
            let before = slot.bytes(first + done.inner.start..first + done.inner.end);
            let (now, payload) = (slot.bytes(message.clone()), &done.payload);
            if now.len() != before.len()
                || now[..payload.start] != before[..payload.start]
                || now[payload.end..] != before[payload.end..]
            {
                differs = Some(message);
                break;
            }
            alike[found] = message.start + payload.start;
            found += 1;
            count += 1;
        }
        drop(opening);
        if found > 0 {
            self.reseal(done, slot, &alike[..found]);
        }
        let goes_on = count == most && count > 0;
        if let Some(message) = differs {
            // That is for the ordinary path, which goes on with what was opened.
            let ingest = &mut self.links[source.link.index()].ingest;
            ingest.opened = Some(Box::new((done.opened.clone(), message)));
        }
        (count, goes_on)
    }

    /// Seals the payloads that begin at `places` of the slot, each with what is around it, and queues them. There is room
    /// for all.
    fn reseal(&mut self, done: &Resealed, slot: &Slot, places: &[usize]) {
        let Resealed { sealed, link, prefix, suffix, payload, .. } = done;
        let count = places.len() as u64;
        let scratch = std::mem::take(&mut self.scratch);
        let (front, end) = scratch[..prefix + suffix].split_at(*prefix);
        let fill = |number: usize, text: &mut [u8]| {
            let (start, rest) = text.split_at_mut(*prefix);
            let (middle, tail) = rest.split_at_mut(payload.len());
            let at = places[number];
            start.copy_from_slice(front);
            middle.copy_from_slice(slot.bytes(at..at + payload.len()));
            tail.copy_from_slice(end);
        };
        let composed = self.compose_sealed_run(sealed, places.len(), done.text_len(), fill);
        self.scratch = scratch;
        match composed {
            Some(Ok(segment)) => {
                self.counters.add(done.counter, count);
                self.counters.add(Counter::BytesCopied, count * payload.len() as u64);
                // Queueing counts one.
                self.counters.add(Counter::FramesOut, count - 1);
                self.links[link.index()].traffic.frames_out += count - 1;
                self.queue(*link, None, [Some(segment), None, None]);
            }
            Some(Err(reason)) => self.counters.add(reason, count),
            // Another core had the channel follow its peer, by a longer way, since there was room.
            None => self.counters.add(DropReason::LinkClosed, count),
        }
    }

    /// Whether a link of this core takes more.
    fn has_room_now(&self, link: LinkId) -> bool {
        self.open_link(link).is_some_and(|index| !self.links[index].egress.full)
    }
}

/// Whether the sender wants to know if it does not arrive: that is said of each message by itself.
fn offers(message: &Message<'_>) -> bool {
    message.tracing.is_some_and(|text| Offer::parse(text).is_some())
}
