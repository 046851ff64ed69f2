//! Sends a message of control through the engine and waits for what becomes of it: its reply, or why there is none.
//!
//! ```text
//!   reply address ── SetAddress(control, reachable by nobody) ──► engine   replies over the link it left by are admitted
//!   first TCP hop ── Dial ──────────────────────────────────────► engine   a link for this message alone
//!   message       ── Transmit ──────────────────────────────────► engine
//!   wait for: Punt on the reply address (the reply, or a notice with our token) | Undelivered | LinkDown | ChannelClosed
//!             | the deadline
//! ```
//!
//! That is a [`Request`]. `message send` is one of them; the handshake of a secure channel and the question whether it was
//! accepted are others (`channels/`).

use crate::api::{MessageBody, MessageReply, SendMessage, TIMEOUT_MS_MAX};
use crate::channels::{self, OpenChannel};
use crate::engine_link::cookie::{Cookie, Purpose};
use crate::engine_link::{CommandError, DialedLink};
use crate::error::{Attempt, AttemptFailure, Error};
use crate::messenger;
use crate::node::{Engine, Node};
use crate::resolve::lookup;
use crate::route::{Hop, Route};
use crate::store::node::CHANNELS_MASK;
use ockam_engine_abi::{ChannelEnd, CloseReason, Command, DropReason, LinkId, Target};
use ockam_wire::undeliverable::{Notice, Offer};
use ockam_wire::{Address, FRAME_MAX, Message, MultiAddr, bare};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Most messages that wait for their reply at the same time.
const WAITING_MAX: usize = 2048;

/// Who waits for what. A request is known by its reply address.
#[derive(Default)]
pub(crate) struct Waiting {
    requests: Mutex<HashMap<String, Waiter>>,
}

struct Waiter {
    outcome: Option<oneshot::Sender<Outcome>>,
    token: [u8; 16],
    transmit: Option<u64>,
    link: Option<LinkId>,
    channel: Option<u32>,
}

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// A message came: encoded, with the way back to who sent it.
    Reply(Vec<u8>),
    /// Why, and how many addresses of the onward route were left.
    Undelivered(DropReason, u8),
    /// The link that it left by is gone.
    LinkDown(CloseReason),
    /// The channel that it went through is gone.
    ChannelEnded(ChannelEnd),
}

impl Waiting {
    fn requests(&self) -> MutexGuard<'_, HashMap<String, Waiter>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message arrived at an address of control.
    pub(crate) fn on_punt(&self, encoded: Vec<u8>) {
        let Ok(message) = Message::parse(&encoded) else {
            tracing::debug!("a punt that is no message");
            return;
        };
        let address = message.onward.first().and_then(|address| std::str::from_utf8(address.name).ok());
        let mut requests = self.requests();
        let Some(waiter) = address.and_then(|address| requests.get_mut(address)) else {
            tracing::debug!("a message for nobody");
            return;
        };
        let notice = message.tracing.and_then(Notice::parse).filter(|notice| notice.token == waiter.token);
        let outcome = match notice {
            Some(notice) if message.payload.is_empty() => {
                let reason = DropReason::from_number(notice.reason).unwrap_or(DropReason::NotDelivered);
                Outcome::Undelivered(reason, notice.left)
            }
            _ => Outcome::Reply(encoded),
        };
        waiter.tell(outcome);
    }

    /// A message did not leave this node.
    pub(crate) fn on_undelivered(&self, transmit: u64, reason: DropReason, left: u8) {
        if let Some(waiter) = self.requests().values_mut().find(|waiter| waiter.transmit == Some(transmit)) {
            waiter.tell(Outcome::Undelivered(reason, left));
        }
    }

    /// A link is gone.
    pub(crate) fn on_link_down(&self, link: LinkId, reason: CloseReason) {
        let mut requests = self.requests();
        let waiting = requests.values_mut().filter(|waiter| waiter.link == Some(link));
        waiting.for_each(|waiter| waiter.tell(Outcome::LinkDown(reason)));
    }

    /// A channel is gone.
    pub(crate) fn on_channel_closed(&self, channel: u32, reason: ChannelEnd) {
        let mut requests = self.requests();
        let waiting = requests.values_mut().filter(|waiter| waiter.channel == Some(channel));
        waiting.for_each(|waiter| waiter.tell(Outcome::ChannelEnded(reason)));
    }
}

impl Waiter {
    /// The first outcome counts.
    fn tell(&mut self, outcome: Outcome) {
        if let Some(sender) = self.outcome.take() {
            // Who waited may be gone.
            let _ = sender.send(outcome);
        }
    }
}

/// How long to wait, and for what.
#[derive(Debug, Clone)]
pub(crate) struct Patience {
    /// When it ends.
    pub(crate) deadline: Instant,
    /// How long it was at first, in milliseconds.
    pub(crate) timeout_ms: u64,
    /// The whole route, as typed.
    pub(crate) route: String,
}

impl Patience {
    /// From now on.
    ///
    /// # Errors
    /// [`Error::BadArgument`] when that is no time.
    pub(crate) fn new(timeout_ms: u64, route: &str) -> Result<Patience, Error> {
        if timeout_ms == 0 || timeout_ms > TIMEOUT_MS_MAX {
            return Err(Error::BadArgument {
                argument: "timeout_ms".into(),
                value: timeout_ms.to_string(),
                why: "is no time to wait".into(),
                fix: format!("Use 1 to {TIMEOUT_MS_MAX} milliseconds."),
            });
        }
        let deadline = Instant::now() + Duration::from_millis(timeout_ms);
        Ok(Patience { deadline, timeout_ms, route: route.to_owned() })
    }

    /// Its end.
    pub(crate) fn over(&self) -> Error {
        Error::NoReply { route: self.route.clone(), timeout_ms: self.timeout_ms }
    }
}

/// Where the reply of a request comes.
pub(crate) struct ReplyAddress {
    pub(crate) target: Target,
    /// Which flow controls may reach it, beside the link that the request leaves by.
    pub(crate) reachable: u64,
    pub(crate) cookie: Cookie,
}

impl ReplyAddress {
    /// That of a message. A random name is all that who comes out of a channel needs to answer.
    pub(crate) fn of_message() -> ReplyAddress {
        ReplyAddress { target: Target::Control, reachable: CHANNELS_MASK, cookie: Cookie::Reply }
    }
}

/// A message under way and the address where its reply comes. Whatever ends it, what was made for it is removed.
pub(crate) struct Request {
    node: Arc<Node>,
    engine: Arc<Engine>,
    reply_to: String,
    link: Option<LinkId>,
    token: [u8; 16],
    outcome: oneshot::Receiver<Outcome>,
    kept: bool,
}

impl Drop for Request {
    fn drop(&mut self) {
        self.node.waiting.requests().remove(&self.reply_to);
        if self.kept {
            return;
        }
        let (engine, reply_to, link) = (self.engine.clone(), std::mem::take(&mut self.reply_to), self.link);
        tokio::spawn(async move {
            let cleared = engine
                .link
                .apply(|request| Command::ClearAddress { request, address: reply_to.into_bytes().into() })
                .await;
            if let Err(error) = cleared {
                tracing::debug!(%error, "a reply address stays");
            }
            if let Some(link) = link {
                engine.link.close(link).await;
            }
        });
    }
}

impl Request {
    /// Makes the address to which the reply will come.
    ///
    /// # Errors
    /// [`Error::Limit`], [`Error::EngineAway`], [`Error::EngineRefused`].
    pub(crate) async fn begin(node: &Arc<Node>, engine: &Arc<Engine>, at: ReplyAddress) -> Result<Request, Error> {
        let (tell, outcome) = oneshot::channel();
        let reply_to = crate::random::hex_id();
        let token = crate::random::bytes();
        {
            let mut requests = node.waiting.requests();
            if requests.len() >= WAITING_MAX {
                return Err(Error::Limit { node: node.name(), what: "messages under way", limit: WAITING_MAX });
            }
            let waiter = Waiter { outcome: Some(tell), token, transmit: None, link: None, channel: None };
            requests.insert(reply_to.clone(), waiter);
        }
        let request =
            Request { node: node.clone(), engine: engine.clone(), reply_to, link: None, token, outcome, kept: false };
        let set = engine.link.apply(|number| Command::SetAddress {
            request: number,
            address: request.reply_to.clone().into_bytes().into(),
            target: at.target,
            reachable: at.reachable,
            guard: None,
            cookie: node.cookies.seal(&at.cookie).into(),
        });
        set.await.map_err(|error| node.command_failed("set a reply address", error))?;
        Ok(request)
    }

    /// The address where the reply comes.
    pub(crate) fn reply_to(&self) -> &str {
        &self.reply_to
    }

    /// Opens a link for it. Its end is an outcome.
    ///
    /// # Errors
    /// [`Error::Unresolved`], and as [`Node::dial`].
    pub(crate) async fn dial(&mut self, hop: &Hop, cookie: &Cookie, deadline: Instant) -> Result<DialedLink, Error> {
        let link = dial(&self.node, &self.engine, hop, cookie, deadline).await?;
        self.link = Some(link.link);
        if let Some(waiter) = self.node.waiting.requests().get_mut(&self.reply_to) {
            waiter.link = Some(link.link);
        }
        Ok(link)
    }

    /// The end of this channel is an outcome.
    pub(crate) fn follow(&self, channel: u32) {
        if let Some(waiter) = self.node.waiting.requests().get_mut(&self.reply_to) {
            waiter.channel = Some(channel);
        }
    }

    /// Sends it, with an offer to be told of its failure.
    ///
    /// # Errors
    /// [`Error::BadData`] when it is too large, [`Error::NoReply`], [`Error::EngineAway`], [`Error::EngineRefused`].
    pub(crate) async fn send(&self, onward: &[Address], payload: &[u8], patience: &Patience) -> Result<(), Error> {
        self.transmit(onward, payload, Some(&Offer { token: self.token }.text()), patience).await
    }

    /// Sends it without an offer: whoever is on the way shall not answer in the peer's place.
    ///
    /// # Errors
    /// As [`Request::send`].
    pub(crate) async fn send_plainly(
        &self,
        onward: &[Address],
        payload: &[u8],
        patience: &Patience,
    ) -> Result<(), Error> {
        self.transmit(onward, payload, None, patience).await
    }

    async fn transmit(
        &self,
        onward: &[Address],
        payload: &[u8],
        tracing: Option<&str>,
        patience: &Patience,
    ) -> Result<(), Error> {
        let reply_to = Address::local(self.reply_to.clone());
        let frame = messenger::frame(onward, &[reply_to.as_ref()], payload, tracing)?;
        let transmit = self.engine.link.new_request();
        if let Some(waiter) = self.node.waiting.requests().get_mut(&self.reply_to) {
            waiter.transmit = Some(transmit);
        }
        let sent = self.engine.link.transmit(transmit, frame[4..].to_vec());
        drop(frame);
        match tokio::time::timeout_at(patience.deadline, sent).await {
            Ok(sent) => sent.map_err(|error| self.node.command_failed("send the message", error)),
            Err(_) => Err(patience.over()),
        }
    }

    /// Waits for what becomes of it.
    ///
    /// # Errors
    /// [`Error::NoReply`], [`Error::EngineAway`].
    pub(crate) async fn outcome(&mut self, patience: &Patience) -> Result<Outcome, Error> {
        tokio::select! {
            outcome = &mut self.outcome => outcome.map_err(|_| Error::internal("a message was forgotten")),
            () = tokio::time::sleep_until(patience.deadline) => Err(patience.over()),
            () = self.engine.link.closed() => Err(self.node.command_failed("send the message", CommandError::Away)),
        }
    }

    /// Whether a reply has the offer in it: each node on the way there and back, and who answered, is one of ours, which
    /// would say what they cannot deliver.
    pub(crate) fn has_offer(&self, reply: &[u8]) -> bool {
        let tracing = Message::parse(reply).ok().and_then(|reply| reply.tracing);
        tracing.and_then(Offer::parse).is_some_and(|offer| offer.token == self.token)
    }

    /// What became of it, if that is known.
    pub(crate) fn outcome_so_far(&mut self) -> Option<Outcome> {
        self.outcome.try_recv().ok()
    }

    /// The address and the link are somebody else's from now on.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

/// Sends a message and waits for its reply. Secure channels of its route are opened first, and ended after it.
///
/// # Errors
/// [`Error::BadArgument`] and [`Error::BadData`] for what cannot be sent; [`Error::Unresolved`],
/// [`Error::ConnectFailed`], [`Error::Undelivered`], [`Error::LinkLost`], [`Error::NoReply`] for what did not arrive; those
/// of [`channels::open`].
pub(crate) async fn send(node: &Arc<Node>, request: SendMessage) -> Result<MessageReply, Error> {
    let route = read_route(&request.route)?;
    let payload = read_body(request.message)?;
    let patience = Patience::new(request.timeout_ms, &request.route)?;
    let mut legs = route.legs();
    let last = legs.pop().ok_or_else(|| Error::internal("a route without a leg"))?;
    let authorized = channels::read_lists("authorized", &request.authorized, legs.len())?;

    let engine = node.engine().await?;
    let mut begun = Request::begin(node, &engine, ReplyAddress::of_message()).await;
    let mut engine = engine;
    if let Err(Error::EngineAway { .. }) = begun {
        // The engine died just now, and nothing was sent: the next one can send it.
        engine = node.engine().await?;
        begun = Request::begin(node, &engine, ReplyAddress::of_message()).await;
    }
    let mut under_way = begun?;

    let mut way = Way::default();
    if !legs.is_empty() {
        let own = channels::own(node, request.identity.as_deref()).await?;
        for (leg, authorized) in legs.iter().zip(&authorized) {
            let address = crate::random::hex_id();
            let plan = channels::Plan { address, behind: way.end(), leg, authorized, own, purpose: Purpose::Message };
            way.0.push(channels::open(node, &engine, plan, &patience).await?);
        }
    }
    let outcome = exchange(node, &mut under_way, &last, way.end(), &payload, &patience).await;
    drop(payload);
    outcome.map(|encoded| reply(Message::parse(&encoded).map_or(&[][..], |message| message.payload)))
}

/// Secure channels on the way of a message. They end from the far end on, since what is said of an end goes through the
/// others.
#[derive(Default)]
struct Way(Vec<OpenChannel>);

impl Way {
    fn end(&self) -> Option<(u32, String)> {
        self.0.last().map(|channel| (channel.number, channel.address.clone()))
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        while self.0.pop().is_some() {}
    }
}

/// Sends a request along the last leg of a route, behind the channel that leads there, and gives the reply, encoded.
async fn exchange(
    node: &Arc<Node>,
    request: &mut Request,
    leg: &Route,
    behind: Option<(u32, String)>,
    payload: &[u8],
    patience: &Patience,
) -> Result<Vec<u8>, Error> {
    let sender = format!("the node {}", node.name());
    let mut onward = leg.addresses(0);
    let mut peer = sender.clone();
    match (&behind, leg.first_hop()) {
        (Some((channel, address)), _) => {
            request.follow(*channel);
            onward.insert(0, Address::local(address.clone()));
        }
        (None, Some(hop)) => {
            let link = request.dial(hop, &Cookie::Message, patience.deadline).await?;
            onward[0] = Address::local(link.address);
            peer = format!("the node at {hop}");
        }
        (None, None) => {
            if let Some(channel) = node.channels.numbered(&onward[0].name) {
                request.follow(channel);
            }
        }
    }
    request.send(&onward, payload, patience).await?;
    match request.outcome(patience).await? {
        Outcome::Reply(encoded) => Ok(encoded),
        Outcome::Undelivered(reason, left) => Err(leg.undelivered(reason, left, &sender)),
        Outcome::LinkDown(reason) => Err(Error::LinkLost { peer, why: reason.name().replace('_', " ") }),
        Outcome::ChannelEnded(reason) => Err(Error::ChannelLost { why: reason.name().replace('_', " ") }),
    }
}

/// Opens a link to a TCP hop.
///
/// # Errors
/// [`Error::Unresolved`], and as [`Node::dial`].
pub(crate) async fn dial(
    node: &Node,
    engine: &Engine,
    hop: &Hop,
    cookie: &Cookie,
    deadline: Instant,
) -> Result<DialedLink, Error> {
    let target = hop.to_string();
    let addresses = match hop {
        Hop::Socket(address) => vec![*address],
        Hop::Name(host, port) => match tokio::time::timeout_at(deadline, lookup(host, *port)).await {
            Ok(addresses) => addresses?,
            Err(_) => return Err(Error::Unresolved { host: host.clone(), why: "the time was over".into() }),
        },
    };
    let dialed = tokio::time::timeout_at(deadline, node.dial(engine, &target, &addresses, cookie));
    dialed.await.unwrap_or_else(|_| {
        let attempts =
            addresses.iter().map(|&address| Attempt { address, failure: AttemptFailure::TimedOut }).collect();
        Err(Error::ConnectFailed { target, attempts })
    })
}

/// Reads a route that came over the API.
///
/// # Errors
/// [`Error::BadArgument`].
pub(crate) fn read_route(text: &str) -> Result<Route, Error> {
    let multiaddr: MultiAddr = text.parse().map_err(|error: ockam_wire::MultiAddrError| Error::BadArgument {
        argument: "route".into(),
        value: crate::text::escape(text.as_bytes(), 300),
        why: format!("is not a route: {error}"),
        fix: "Write a route like /ip4/127.0.0.1/tcp/6002/service/echo.".into(),
    })?;
    Route::new(&multiaddr, "route")
}

fn read_body(body: MessageBody) -> Result<Vec<u8>, Error> {
    let payload = match body {
        MessageBody::Text(text) => {
            let mut payload = Vec::with_capacity(text.len() + 10);
            bare::write_string(&text, &mut payload);
            payload
        }
        MessageBody::Hex(digits) => crate::text::from_hex(&digits).ok_or_else(|| Error::BadArgument {
            argument: "message".into(),
            value: crate::text::escape(digits.as_bytes(), 64),
            why: "is not hexadecimal".into(),
            fix: "Give an even number of the digits 0-9 and a-f.".into(),
        })?,
    };
    if payload.len() > FRAME_MAX {
        return Err(Error::BadData {
            what: "the message".into(),
            why: format!("its {} bytes do not fit the largest frame", payload.len()),
            fix: format!("Send at most {FRAME_MAX} bytes, the route included."),
        });
    }
    Ok(payload)
}

fn reply(payload: &[u8]) -> MessageReply {
    let whole = bare::read_uleb(payload).ok().filter(|(length, rest)| *length == rest.len() as u64);
    let text = whole.and_then(|(_, rest)| std::str::from_utf8(rest).ok()).map(str::to_owned);
    MessageReply { hex: crate::text::to_hex(payload), text }
}
