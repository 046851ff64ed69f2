//! Our end of handshakes that we begin.
//!
//! ```text
//!   D = an address (handshake)       message 1 ──► the peer's listener
//!   message 2 at D: who is it, is it whom we want?
//!   install the channel at D and E   message 3 ──► the peer
//!   echo through E                   ◄── anything: it was accepted; Close: it was refused; silence: who knows
//! ```

use super::who::Doubt;
use super::{Channels, Living, WAY_BYTES_MAX, blocking, lifetime_ms};
use crate::engine_link::EngineLink;
use crate::engine_link::cookie::{Cookie, Purpose};
use crate::error::Error;
use crate::messages::{Outcome, Patience, ReplyAddress, Request};
use crate::node::{Engine, Node};
use crate::route::{Route, Step};
use crate::sessions;
use crate::store::node::FLOW_CONTROL_INITIATED;
use ockam_crypto::{Claim, Established, ExpectMessage2, Identifier, Secret, initiate};
use ockam_engine_abi::{ChannelEnd, Command, FLOW_CONTROL_DIALED, Key, Target};
use ockam_wire::{Address, Message, Outgoing, RouteParts};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

/// A channel to be opened.
pub(crate) struct Plan<'a> {
    /// The local name of its sending side, 32 hexadecimal digits.
    pub(crate) address: String,
    /// The channel that the way goes through: its number and the local name of its sending side.
    pub(crate) behind: Option<(u32, String)>,
    /// The route from there, which ends at the peer's listener.
    pub(crate) leg: &'a Route,
    /// Of which the peer must have one; anyone's when empty.
    pub(crate) authorized: &'a [Identifier],
    /// Who this node says it is.
    pub(crate) own: Identifier,
    pub(crate) purpose: Purpose,
}

/// A channel that this node opened. It ends when this is dropped, unless it is kept.
pub(crate) struct OpenChannel {
    node: Arc<Node>,
    engine: EngineLink,
    /// Control's number for it.
    pub(crate) number: u32,
    /// The local name of its sending side.
    pub(crate) address: String,
    /// Who is at its other end.
    pub(crate) peer: Identifier,
    ended: Option<oneshot::Receiver<ChannelEnd>>,
    kept: bool,
}

impl OpenChannel {
    /// It goes on without this. Gives what says that it ended; an error of that says so, too.
    pub(crate) fn keep(mut self) -> oneshot::Receiver<ChannelEnd> {
        self.kept = true;
        self.ended.take().expect("it is taken once")
    }
}

impl Drop for OpenChannel {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let (node, engine, number) = (self.node.clone(), self.engine.clone(), self.number);
        tokio::spawn(async move { node.channels.retire(&engine, number).await });
    }
}

/// What message 2 came to.
struct Judged {
    message_3: Vec<u8>,
    established: Established,
    peer: Identifier,
    expires_at: u64,
    /// What it showed that is worth something.
    credential: Option<crate::trust::Judged>,
}

/// Opens a channel, and knows afterwards that the peer accepted it.
///
/// # Errors
/// [`Error::PeerNotAuthorized`], [`Error::PeerNotAuthentic`], [`Error::ChannelRefused`], [`Error::PeerMisbehaved`];
/// [`Error::NoReply`] when the peer is silent; [`Error::Unresolved`], [`Error::ConnectFailed`], [`Error::Undelivered`],
/// [`Error::LinkLost`] for what did not arrive; those of keys and of the engine.
pub(crate) async fn open(
    node: &Arc<Node>,
    engine: &Arc<Engine>,
    plan: Plan<'_>,
    patience: &Patience,
) -> Result<OpenChannel, Error> {
    let listener: String = plan.leg.steps().iter().map(Step::to_string).collect();
    let sender = format!("the node {}", node.name());
    let who = node.channels.who.clone();
    let own = plan.own;
    let ready = node.trust.ready(node, own, plan.authorized);
    tokio::time::timeout_at(patience.deadline, ready).await.map_err(|_| patience.over())?;
    let since = Instant::now();
    let keys = blocking(move || who.keys(Some(own))).await?;

    let is_dialed = plan.behind.is_none() && plan.leg.first_hop().is_some();
    let reachable = if is_dialed { 1 << FLOW_CONTROL_DIALED } else { u64::MAX };
    let at = ReplyAddress { target: Target::Handshake, reachable, cookie: Cookie::Handshake };
    let mut request = Request::begin(node, engine, at).await?;
    let mut onward = plan.leg.addresses(0);
    let mut link = None;
    match (&plan.behind, plan.leg.first_hop()) {
        (Some((channel, address)), _) => {
            request.follow(*channel);
            onward.insert(0, Address::local(address.clone()));
        }
        (None, Some(hop)) => {
            let cookie = match &plan.purpose {
                Purpose::Message => Cookie::Message,
                _ => Cookie::ChannelLink { channel: plan.address.clone() },
            };
            let dialed = request.dial(hop, &cookie, patience.deadline).await?;
            onward[0] = Address::local(dialed.address);
            link = Some(dialed.link);
        }
        (None, None) => {
            if let Some(channel) = node.channels.numbered(&onward[0].name) {
                request.follow(channel);
            }
        }
    }

    let (message_1, expect) = initiate(Secret::new(crate::random::bytes()));
    request.send(&onward, &message_1, patience).await?;
    let failed = |outcome| match outcome {
        Outcome::Reply(_) => Error::internal("a reply is no failure"),
        Outcome::Undelivered(reason, left) => plan.leg.undelivered(reason, left, &sender),
        Outcome::LinkDown(reason) => {
            let peer = plan.leg.first_hop().map_or_else(|| sender.clone(), |hop| format!("the node at {hop}"));
            Error::LinkLost { peer, why: reason.name().replace('_', " ") }
        }
        Outcome::ChannelEnded(reason) => Error::ChannelLost { why: reason.name().replace('_', " ") },
    };
    let encoded = match request.outcome(patience).await? {
        Outcome::Reply(encoded) => encoded,
        other => return Err(failed(other)),
    };
    let misbehaved = |why: &str| Error::PeerMisbehaved { peer: format!("what answers at {listener}"), why: why.into() };
    let message = Message::parse(&encoded).map_err(|_| misbehaved("sent what is no message"))?;
    let way = Outgoing {
        onward: RouteParts { front: &[], rest: message.return_route },
        return_route: RouteParts::EMPTY,
        payload_len: 0,
        tracing: None,
    };
    if message.return_route.first().is_none() || way.body_len() > WAY_BYTES_MAX {
        return Err(misbehaved("gave no way back, or one that is too long"));
    }
    let onward: Vec<Address> = message.return_route.iter().map(|address| address.to_address()).collect();
    let way = way.to_frame(&[]).split_off(4);
    let message_2 = message.payload.to_vec();
    let judge = {
        let (judging, authorized, listener) = (node.clone(), plan.authorized.to_vec(), listener.clone());
        let keys = keys.clone();
        blocking(move || judge(&judging, &keys, expect, &message_2, &authorized, listener))
    };
    let judged = tokio::time::timeout_at(patience.deadline, judge).await.map_err(|_| patience.over())??;
    let Judged { message_3, established, peer, expires_at, credential } = judged;

    // First the channel, so that what the peer says at once finds it.
    let (tell, ended) = oneshot::channel();
    let living = Living {
        address: plan.address.clone(),
        decryptor: request.reply_to().to_owned(),
        peer,
        own,
        expires_at,
        purpose: plan.purpose.clone(),
        source: None,
        link,
        ended: vec![tell],
        granted: None,
    };
    let limit = || Error::Limit { node: node.name(), what: "secure channels", limit: super::LIVING_MAX };
    let (number, shed) = node.channels.state().admit(living).ok_or_else(limit)?;
    if let Some(shed) = shed {
        Channels::shed(node, &engine.link, shed);
    }
    node.channels.watch_identities(node);
    // From here on whatever ends this ends the channel.
    let mut channel = OpenChannel {
        node: node.clone(),
        engine: engine.link.clone(),
        number,
        address: plan.address.clone(),
        peer,
        ended: Some(ended),
        kept: false,
    };
    let cookie =
        Cookie::Channel { peer: peer.to_string(), own: own.to_string(), expires_at, purpose: plan.purpose.clone() };
    let install = Command::InstallChannel {
        request: engine.link.new_request(),
        channel: number,
        decryptor: request.reply_to().as_bytes().to_vec().into(),
        encryptor: plan.address.clone().into_bytes().into(),
        sealing_key: Key::new(established.sealing_key.expose()),
        opening_key: Key::new(established.opening_key.expose()),
        way: way.into(),
        follows_peer: false,
        reachable,
        flow_control: FLOW_CONTROL_INITIATED,
        expires_in_ms: Some(lifetime_ms(expires_at)),
        grants: ockam_engine_abi::Grants::default(),
        cookie: node.cookies.seal(&cookie).into(),
    };
    drop(established);
    let installed = node.channels.install(node, &engine.link, install, peer, credential).await;
    installed.map_err(|error| node.command_failed("open a secure channel", error))?;
    request.send_plainly(&onward, &message_3, patience).await?;
    // The address is the channel's now, and so is the link.
    request.keep();
    match confirm(node, engine, &mut channel, patience).await? {
        Ok(()) => {
            node.channels.show_what_changed(&engine.link, number, own, since).await;
            Ok(channel)
        }
        Err(Outcome::ChannelEnded(ChannelEnd::ByPeer)) => {
            Err(Error::ChannelRefused { listener, identifier: peer.to_string(), own: own.to_string() })
        }
        Err(other) => Err(failed(other)),
    }
}

/// The public-key work.
fn judge(
    node: &Node,
    keys: &super::who::Keys,
    expect: ExpectMessage2,
    message: &[u8],
    authorized: &[Identifier],
    listener: String,
) -> Result<Judged, Error> {
    let misbehaved = |why: String| Error::PeerMisbehaved { peer: format!("what answers at {listener}"), why };
    let (claimed, ready) = expect.read(message).map_err(|rejected| {
        misbehaved(format!("did not answer as a listener of secure channels does: {}", rejected.error))
    })?;
    let malformed = |_| misbehaved("sent an identity that is malformed".into());
    let claim = Claim::parse(&claimed.payload).map_err(malformed)?;
    let who = &node.channels.who;
    let peer = who.judge(&claim, &claimed.static_key).map_err(|doubt| match doubt {
        Doubt::Untrue(why) => Error::PeerNotAuthentic { listener: listener.clone(), why },
        Doubt::Unreadable(error) => error,
    })?;
    let identifier = peer.identifier();
    if !authorized.is_empty() && !authorized.contains(&identifier) {
        return Err(Error::PeerNotAuthorized { listener, identifier: identifier.to_string() });
    }
    let written = ready.write(&keys.static_key, &keys.payload);
    let (message_3, established) =
        written.map_err(|error| misbehaved(format!("sent keys that are no keys: {error}")))?;
    who.note_strangers();
    let credential = super::responder::judge(node, &peer, &claim);
    let expires_at = peer.expires_at.min(keys.expires_at);
    Ok(Judged { message_3, established, peer: identifier, expires_at, credential })
}

/// Waits until it is known that a channel was accepted. Whatever is said through it says so, even that there is no `echo`.
async fn confirm(
    node: &Arc<Node>,
    engine: &Arc<Engine>,
    channel: &mut OpenChannel,
    patience: &Patience,
) -> Result<Result<(), Outcome>, Error> {
    let way = [Address::local(channel.address.clone())];
    let asked = sessions::ask(node, engine, &way, Some(channel.number), patience).await?;
    match (asked, &mut channel.ended) {
        // The channel is not there any more: why, its end says.
        (Err(Outcome::Undelivered(..)), Some(ended)) => match tokio::time::timeout_at(patience.deadline, ended).await {
            Ok(Ok(reason)) => Ok(Err(Outcome::ChannelEnded(reason))),
            Ok(Err(_)) => Ok(Err(Outcome::ChannelEnded(ChannelEnd::ByControl))),
            Err(_) => Err(patience.over()),
        },
        (asked, _) => Ok(asked.map(drop)),
    }
}
