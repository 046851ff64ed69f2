//! Records for the connection that the one before was for.
//!
//! ```text
//!   before   | outer | record head | nonce | inner | payload head | payload | tag |
//!   now      | equal |             |       | equal |                  \___ to the same connection
//! ```
//!
//! An application that asks and waits gets its answers one by one, each as a record of the same channel for the same
//! connection. What the path said of the routes of one holds for the next as long as nothing was put into the tables or taken
//! out: so routes that are equal to the last byte are not walked again. A link knows one connection so, the one that was
//! spoken to twice in a row.

use super::Core;
use super::carry::{Arrival, Layer, Source, Stop, offset_in};
use crate::config::COPY_MAX;
use crate::io::driver::Driver;
use crate::io::pool::Slot;
use crate::path::channel::Channel;
use crate::path::tables::ReplyKey;
use ockam_crypto::{NONCE_LEN, PAYLOAD_HEAD};
use ockam_engine_abi::LinkId;
use ockam_wire::portal::PortalMessage;
use ockam_wire::{FixedHead, Message};
use std::ops::Range;
use std::sync::Arc;

/// The connection that a link's records were for.
#[derive(Debug, Default)]
pub(super) enum Familiar {
    /// None yet.
    #[default]
    None,
    /// The last record was for this one.
    Once(LinkId),
    /// The last ones were.
    Well(Box<Heads>),
}

/// What stood in front of a record and of what was in it.
#[derive(Debug)]
pub(super) struct Heads {
    outer: FixedHead,
    /// Where in it the addresses of the return route are.
    back: Range<usize>,
    channel: Arc<Channel>,
    inner: FixedHead,
    connection: LinkId,
    /// See [`crate::path::tables::Tables::changes`].
    changes: u64,
}

impl Familiar {
    /// A channel is gone, and with it its keys.
    pub(super) fn forget(&mut self, channel: &Arc<Channel>) {
        if matches!(self, Familiar::Well(heads) if Arc::ptr_eq(&heads.channel, channel)) {
            *self = Familiar::None;
        }
    }
}

impl<D: Driver> Core<D> {
    /// A record of `channel` that came on a link, in the frame that begins at `frame` of the slot, said something to a
    /// connection of this core: `inner` is where the message inside is.
    pub(super) fn get_familiar(
        &mut self,
        source: &Source,
        frame: usize,
        channel: &Arc<Channel>,
        slot: &Slot,
        inner: Range<usize>,
        connection: LinkId,
    ) {
        if connection.core() != self.index {
            return;
        }
        let changes = self.tables.changes();
        let familiar = &mut self.links[source.link.index()].ingest.familiar;
        let knows = match familiar {
            Familiar::None => false,
            Familiar::Once(last) => *last == connection,
            Familiar::Well(heads) => heads.connection == connection,
        };
        if !knows {
            *familiar = Familiar::Once(connection);
            return;
        }
        let heads = || {
            let (body, text) = (slot.bytes(frame + 4..slot.size()), slot.bytes(inner.clone()));
            let (outer, said) = (Message::parse(body).ok()?, Message::parse(text).ok()?);
            let head_of = |message: &Message<'_>| {
                let is_only = message.onward.len() == 1;
                is_only.then(|| FixedHead::new(message.onward.into(), message.return_route.into()))
            };
            let heads = Heads {
                outer: head_of(&outer)?,
                back: {
                    let back = outer.return_route.encoded();
                    let at = offset_in(body, back);
                    at..at + back.len()
                },
                channel: channel.clone(),
                inner: head_of(&said)?,
                connection,
                changes,
            };
            // The frame's own record, not one inside of it; and both heads in the form that is written.
            let record = inner.start - PAYLOAD_HEAD.len() - NONCE_LEN;
            let is_own = heads.outer.payload_in(body)?.start + frame + 4 == record;
            (is_own && heads.inner.payload_in(text).is_some()).then(|| Familiar::Well(Box::new(heads)))
        };
        *familiar = heads().unwrap_or_default();
    }

    /// Opens the record in a frame and says what is in it, if all that is as the last time. Otherwise nothing was done with
    /// it, which the caller does, or it was opened, which is carried on.
    pub(super) fn hear_familiar(
        &mut self,
        source: &Source,
        arrival: &Arrival<'_>,
        slot: &mut Slot,
        body: Range<usize>,
    ) -> Option<Result<(), (Stop, Layer)>> {
        let index = source.link.index();
        let Familiar::Well(heads) = &self.links[index].ingest.familiar else { return None };
        let record = heads.outer.payload_in(slot.bytes(body.clone()))?;
        let record = body.start + record.start..body.start + record.end;
        let connection = heads.connection;
        if heads.changes != self.tables.changes()
            || self.open_link(connection).is_none()
            || self.room_for_bytes(arrival, connection, record.len().min(COPY_MAX)).is_err()
        {
            return None;
        }
        let Familiar::Well(heads) = std::mem::take(&mut self.links[index].ingest.familiar) else {
            unreachable!("it was just looked at")
        };
        let heard = self.hear_from(&heads, arrival, slot, body, record);
        self.links[index].ingest.familiar = Familiar::Well(heads);
        heard
    }

    fn hear_from(
        &mut self,
        heads: &Heads,
        arrival: &Arrival<'_>,
        slot: &mut Slot,
        body: Range<usize>,
        record: Range<usize>,
    ) -> Option<Result<(), (Stop, Layer)>> {
        let Heads { back, channel, inner, connection, .. } = heads;
        let mut opening = channel.opening();
        if !opening.replies.admits(ReplyKey::Link(*connection)) {
            return None;
        }
        let came = (body.clone(), body.start + back.start..body.start + back.end);
        let Some(text) = self.open_with(&mut opening, arrival, channel, slot, Some(came), record) else {
            return Some(Ok(()));
        };
        drop(opening);
        let said = slot.bytes(text.clone());
        let payload = inner.payload_in(said).map(|payload| &said[payload]);
        if let Some(PortalMessage::Payload { data, counter }) = payload.and_then(PortalMessage::parse)
            && !data.is_empty()
        {
            let at = text.start + offset_in(said, data);
            let data = at..at + data.len();
            self.say_bytes(*connection, slot, data, counter);
            return Some(Ok(()));
        }
        Some(self.carry(arrival, slot, Layer { channel: Some(channel.clone()), range: text }))
    }
}
