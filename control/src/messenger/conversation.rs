//! Messages over one link, through secure channels that this process opens over it, each inside the one before.
//!
//! ```text
//!   link ──────────────────────────────────────────────────────────────────► first node
//!     channel 1: records in frames ─────────────────────────────► its listener
//!       channel 2: records in messages in records in frames ──────────────────────────► its listener
//! ```
//!
//! What is sent goes through all channels that are open, and what is received came through all of them. This end has
//! no node around it: an address of a channel's end is only where its records are sent to.

use super::{Deadline, Link, SENDER, frame, notice_of, outgoing};
use crate::error::Error;
use crate::identities::{ChannelKeys, Identities};
use crate::random;
use crate::route::Route;
use ockam_crypto::{
    CLOSE, Claim, Claimed, ExpectMessage2, Identifier, Opener, OutgoingPlaintext, Plaintext, RECORD_OVERHEAD,
    ReadyForMessage3, Sealer, Secret, encode_payload, initiate,
};
use ockam_wire::undeliverable::Offer;
use ockam_wire::{Address, AddressRef, FRAME_MAX, Message, ROUTE_MAX};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long the ends of channels may take to be told that it is over.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Whom this command is in secure channels, and whom it wants to meet.
#[derive(Debug)]
pub struct Party {
    /// What is known of others.
    pub identities: Identities,
    /// Who we are.
    pub keys: ChannelKeys,
    /// For each channel of the route, in order: identifiers of which its peer must have one; anyone's when empty or
    /// missing.
    pub authorized: Vec<Vec<Identifier>>,
    /// What authorities attest of it, encoded, to be shown to each peer.
    pub credentials: Vec<Vec<u8>>,
}

/// A link and the channels over it.
pub(super) struct Conversation {
    link: Link,
    channels: Vec<Channel>,
}

/// One end of a channel.
struct Channel {
    sealer: Sealer,
    opener: Opener,
    /// Where its peer is, seen from where the channel before ends.
    remote: Vec<Address>,
    /// Where its records come to.
    here: Address,
    /// The listener of its peer, as a route.
    listener: String,
    peer: Identifier,
    own: Identifier,
    /// Something came out of it, so that the peer has not refused it.
    was_opened: bool,
}

/// A message that came through all channels.
pub(super) struct Incoming {
    pub to: Option<Address>,
    pub return_route: Vec<Address>,
    pub payload: Vec<u8>,
    pub tracing: Option<String>,
}

impl Incoming {
    fn new(message: &Message<'_>) -> Incoming {
        Incoming {
            to: message.onward.first().map(AddressRef::to_address),
            return_route: message.return_route.iter().map(AddressRef::to_address).collect(),
            payload: message.payload.to_vec(),
            tracing: message.tracing.map(str::to_owned),
        }
    }
}

impl Conversation {
    pub(super) fn over(link: Link) -> Conversation {
        Conversation { link, channels: Vec::new() }
    }

    /// Sends a message through all channels. `None` when the deadline passed first.
    ///
    /// # Errors
    /// It would be larger than a frame may be, or the link is lost.
    pub(super) fn send(
        &mut self,
        onward: &[Address],
        reply_to: &[AddressRef<'_>],
        payload: &[u8],
        tracing: Option<&str>,
        deadline: Deadline,
    ) -> Result<Option<()>, Error> {
        let Some((last, before)) = self.channels.split_last_mut() else {
            return self.link.send(&frame(onward, reply_to, payload, tracing)?, deadline);
        };
        let onward: Vec<AddressRef<'_>> = onward.iter().map(Address::as_ref).collect();
        let outgoing = outgoing(&onward, reply_to, payload, tracing);
        if outgoing.body_len() > FRAME_MAX - RECORD_OVERHEAD {
            return Err(super::too_large(payload.len()));
        }
        let record = last.seal(&OutgoingPlaintext::new(outgoing).to_text(payload))?;
        let frame = wrap(before, &last.remote, record)?;
        self.link.send(&frame, deadline)
    }

    /// The next message that came through all channels. `None` when the deadline passed first.
    ///
    /// # Errors
    /// The link is lost, what comes over it is no message, or the peer of a channel refused or ended it.
    pub(super) fn receive(&mut self, deadline: Deadline) -> Result<Option<Incoming>, Error> {
        'next: loop {
            let Some(message) = self.link.receive(deadline)? else { return Ok(None) };
            let mut incoming = Incoming::new(&message);
            for channel in &mut self.channels {
                if incoming.to.as_ref() != Some(&channel.here) {
                    continue 'next;
                }
                match channel.open(&mut incoming.payload)? {
                    Some(inner) => incoming = inner,
                    None => continue 'next,
                }
            }
            return Ok(Some(incoming));
        }
    }

    /// Opens one more channel, through those that are open, to the listener at the end of `leg`. The first `skipped`
    /// steps of it were made otherwise. `None` when the deadline passed first.
    ///
    /// That the peer has accepted shows in the first thing that comes out of the channel: there is no message 4.
    ///
    /// # Errors
    /// The listener cannot be reached, or who is there does not prove who it is, or is not one of `authorized`.
    pub(super) fn open(
        &mut self,
        leg: &Route,
        skipped: usize,
        party: &mut Party,
        authorized: &[Identifier],
        deadline: Deadline,
    ) -> Result<Option<()>, Error> {
        let listener: String = leg.steps().iter().map(ToString::to_string).collect();
        let here = Address::local(random::hex_id());
        let offer = Offer { token: random::bytes() };
        let (message_1, waiting) = initiate(Secret::new(random::bytes()));
        let sent = self.send(&leg.addresses(skipped), &[here.as_ref()], &message_1, Some(&offer.text()), deadline)?;
        if sent.is_none() {
            return Ok(None);
        }
        let Some((claimed, ready, remote)) = self.message_2(waiting, leg, &here, offer, deadline)? else {
            return Ok(None);
        };
        let peer = meet(&claimed, &listener, party, authorized)?;

        let not_authentic = |error: ockam_crypto::HandshakeError| Error::PeerNotAuthentic {
            listener: listener.clone(),
            why: error.to_string(),
        };
        let keys = &party.keys;
        let credentials: Vec<&[u8]> = party.credentials.iter().map(Vec::as_slice).collect();
        let payload = encode_payload(&keys.history, &keys.attestation, &credentials);
        let (message_3, established) = ready.write(&keys.static_key, &payload).map_err(not_authentic)?;
        let sent = self.send(&remote, &[here.as_ref()], &message_3, None, deadline)?;
        self.channels.push(Channel {
            sealer: Sealer::new(established.sealing_key),
            opener: Opener::new(established.opening_key),
            remote,
            here,
            listener,
            peer,
            own: keys.history.identifier(),
            was_opened: false,
        });
        Ok(sent)
    }

    /// Waits for message 2: what the peer claims, the state that it leads to, and the way back to the peer.
    fn message_2(
        &mut self,
        mut waiting: ExpectMessage2,
        leg: &Route,
        here: &Address,
        offer: Offer,
        deadline: Deadline,
    ) -> Result<Option<(Claimed, ReadyForMessage3, Vec<Address>)>, Error> {
        loop {
            let Some(incoming) = self.receive(deadline)? else { return Ok(None) };
            if incoming.to.as_ref() != Some(here) {
                continue;
            }
            if let Some((reason, left)) = notice_of(incoming.tracing.as_deref(), &incoming.payload, offer) {
                return Err(leg.undelivered(reason, left, SENDER));
            }
            match waiting.read(&incoming.payload) {
                Ok((claimed, ready)) if (1..=ROUTE_MAX).contains(&incoming.return_route.len()) => {
                    return Ok(Some((claimed, ready, incoming.return_route)));
                }
                Ok(_) => {
                    let peer = leg.steps().iter().map(ToString::to_string).collect();
                    let why = format!("gave a way back of {} addresses", incoming.return_route.len());
                    return Err(Error::PeerMisbehaved { peer, why });
                }
                // Whoever can send to this address cannot end the handshake with it.
                Err(rejected) => waiting = rejected.state,
            }
        }
    }

    /// Tells the peers of all channels that it is over, the innermost first. They need not hear it: channels end without
    /// it, later.
    pub(super) fn close(mut self) {
        let deadline = Deadline::after(CLOSE_LIMIT);
        while let Some(mut channel) = self.channels.pop() {
            let Ok(record) = channel.seal(&CLOSE) else { return };
            let Ok(frame) = wrap(&mut self.channels, &channel.remote, record) else { return };
            if !matches!(self.link.send(&frame, deadline), Ok(Some(()))) {
                return;
            }
        }
    }
}

/// The frame with `record` for the end of a channel at `remote`, through the channels before it. Its return route is
/// empty, as real ends have it (`wire.md` E.5).
fn wrap(channels: &mut [Channel], remote: &[Address], record: Vec<u8>) -> Result<Vec<u8>, Error> {
    let Some((last, before)) = channels.split_last_mut() else { return frame(remote, &[], &record, None) };
    let onward: Vec<AddressRef<'_>> = remote.iter().map(Address::as_ref).collect();
    let outgoing = outgoing(&onward, &[], &record, None);
    if outgoing.body_len() > FRAME_MAX - RECORD_OVERHEAD {
        return Err(super::too_large(record.len()));
    }
    let record = last.seal(&OutgoingPlaintext::new(outgoing).to_text(&record))?;
    wrap(before, &last.remote, record)
}

impl Channel {
    fn seal(&mut self, text: &[u8]) -> Result<Vec<u8>, Error> {
        self.sealer.seal(text).map_err(|error| Error::internal(error.to_string()))
    }

    /// The message in a record. `None` for what is no message: a record that is not genuine or not new is dropped, and
    /// the channel lives on.
    ///
    /// # Errors
    /// The peer refused the channel, or ended it.
    fn open(&mut self, record: &mut [u8]) -> Result<Option<Incoming>, Error> {
        let Ok(opened) = self.opener.open_in_place(record) else { return Ok(None) };
        match Plaintext::parse(opened.text) {
            Ok(Plaintext::Payload(message)) => {
                self.was_opened = true;
                Ok(Some(Incoming::new(&message)))
            }
            Ok(Plaintext::Close) if self.was_opened => Err(Error::LinkLost {
                peer: format!("the identity at {}", self.listener),
                why: "the peer closed the secure channel".into(),
            }),
            Ok(Plaintext::Close) => Err(Error::ChannelRefused {
                listener: self.listener.clone(),
                identifier: self.peer.to_string(),
                own: self.own.to_string(),
            }),
            Ok(Plaintext::RefreshCredentials) | Err(_) => Ok(None),
        }
    }
}

/// Decides whether the peer of a handshake is who it says it is, and wanted (`wire.md` E.3).
fn meet(claimed: &Claimed, listener: &str, party: &mut Party, authorized: &[Identifier]) -> Result<Identifier, Error> {
    let not_authentic = |why: String| Error::PeerNotAuthentic { listener: listener.to_owned(), why };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let claim = Claim::parse(&claimed.payload).map_err(|error| not_authentic(error.to_string()))?;
    let known = party.identities.known(&claim.identifier())?;
    let peer = claim.authenticate(&claimed.static_key, known.as_ref(), now);
    let peer = peer.map_err(|error| not_authentic(error.to_string()))?;
    let identifier = peer.identifier();
    if !authorized.is_empty() && !authorized.contains(&identifier) {
        return Err(Error::PeerNotAuthorized { listener: listener.to_owned(), identifier: identifier.to_string() });
    }
    if peer.is_news {
        party.identities.remember(&peer.history)?;
    }
    Ok(identifier)
}

#[cfg(test)]
mod tests;
