//! Sends a message of control through the engine and waits for what becomes of it: its reply, or why there is none.
//!
//! ```text
//!   reply address ── SetAddress(control, reachable by nobody) ──► engine   replies over the link it left by are admitted
//!   first TCP hop ── Dial ──────────────────────────────────────► engine   a link for this message alone
//!   message       ── Transmit ──────────────────────────────────► engine
//!   wait for: Punt on the reply address (the reply, or a notice with our token) | Undelivered | LinkDown | the deadline
//! ```

use crate::api::{MessageBody, MessageReply, SendMessage, TIMEOUT_MS_MAX};
use crate::engine_link::CommandError;
use crate::engine_link::cookie::Cookie;
use crate::error::{Attempt, AttemptFailure, Error};
use crate::messenger;
use crate::node::{Engine, Node};
use crate::resolve::lookup;
use crate::route::{Hop, Route};
use ockam_engine_abi::{CloseReason, Command, DropReason, LinkId, Target};
use ockam_wire::undeliverable::{Notice, Offer};
use ockam_wire::{Address, FRAME_MAX, Message, MultiAddr, bare};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Most messages that wait for their reply at the same time.
const WAITING_MAX: usize = 1024;

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
}

enum Outcome {
    Reply(Vec<u8>),
    /// Why, and how many addresses of the onward route were left.
    Undelivered(DropReason, u8),
    LinkDown(CloseReason),
}

impl Waiting {
    fn requests(&self) -> MutexGuard<'_, HashMap<String, Waiter>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message arrived at an address of control.
    pub(crate) fn on_punt(&self, message: &[u8]) {
        let Ok(message) = Message::parse(message) else {
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
        waiter.tell(match notice {
            Some(notice) if message.payload.is_empty() => {
                let reason = DropReason::from_number(notice.reason).unwrap_or(DropReason::NotDelivered);
                Outcome::Undelivered(reason, notice.left)
            }
            _ => Outcome::Reply(message.payload.to_vec()),
        });
    }

    /// A message did not leave this node.
    pub(crate) fn on_undelivered(&self, transmit: u64, reason: DropReason, left: u8) {
        if let Some(waiter) = self.requests().values_mut().find(|waiter| waiter.transmit == Some(transmit)) {
            waiter.tell(Outcome::Undelivered(reason, left));
        }
    }

    /// A link is gone.
    pub(crate) fn on_link_down(&self, link: LinkId, reason: CloseReason) {
        if let Some(waiter) = self.requests().values_mut().find(|waiter| waiter.link == Some(link)) {
            waiter.tell(Outcome::LinkDown(reason));
        }
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

/// A message under way. Whatever ends it, what was made for it is removed.
struct UnderWay {
    node: Arc<Node>,
    engine: Arc<Engine>,
    reply_to: String,
    link: Option<LinkId>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.node.waiting.requests().remove(&self.reply_to);
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

/// Sends a message and waits for its reply.
///
/// # Errors
/// [`Error::BadArgument`] and [`Error::BadData`] for what cannot be sent; [`Error::Unresolved`],
/// [`Error::ConnectFailed`], [`Error::Undelivered`], [`Error::LinkLost`], [`Error::NoReply`] for what did not arrive.
pub(crate) async fn send(node: &Arc<Node>, request: SendMessage) -> Result<MessageReply, Error> {
    let route = read_route(&request.route)?;
    let payload = read_body(request.message)?;
    if request.timeout_ms == 0 || request.timeout_ms > TIMEOUT_MS_MAX {
        return Err(Error::BadArgument {
            argument: "timeout_ms".into(),
            value: request.timeout_ms.to_string(),
            why: "is no time to wait".into(),
            fix: format!("Use 1 to {TIMEOUT_MS_MAX} milliseconds."),
        });
    }
    let deadline = Instant::now() + Duration::from_millis(request.timeout_ms);
    let no_reply = || Error::NoReply { route: request.route.clone(), timeout_ms: request.timeout_ms };

    let offer = Offer { token: crate::random::bytes() };
    let (outcome, mut under_way) = match begin(node, offer).await {
        // The engine died just now, and nothing was sent: the next one can send it.
        Err(Error::EngineAway { .. }) => begin(node, offer).await?,
        begun => begun?,
    };
    let engine = under_way.engine.clone();

    let mut onward = route.addresses(0);
    let mut peer = format!("the node {}", node.name());
    if let Some(hop) = route.first_hop() {
        let link = dial(node, &engine, hop, deadline).await?;
        under_way.link = Some(link.link);
        if let Some(waiter) = node.waiting.requests().get_mut(&under_way.reply_to) {
            waiter.link = Some(link.link);
        }
        onward[0] = Address::local(link.address);
        peer = format!("the node at {hop}");
    }
    let reply_to = Address::local(under_way.reply_to.clone());
    let frame = messenger::frame(&onward, &[reply_to.as_ref()], &payload, Some(&offer.text()))?;
    drop(payload);

    let transmit = engine.link.new_request();
    if let Some(waiter) = node.waiting.requests().get_mut(&under_way.reply_to) {
        waiter.transmit = Some(transmit);
    }
    let sent = engine.link.transmit(transmit, frame[4..].to_vec());
    drop(frame);
    match tokio::time::timeout_at(deadline, sent).await {
        Ok(sent) => sent.map_err(|error| node.command_failed("send the message", error))?,
        Err(_) => return Err(no_reply()),
    }
    let outcome = tokio::select! {
        outcome = outcome => outcome.map_err(|_| Error::internal("a message was forgotten"))?,
        () = tokio::time::sleep_until(deadline) => return Err(no_reply()),
        () = engine.link.closed() => return Err(node.command_failed("send the message", CommandError::Away)),
    };
    match outcome {
        Outcome::Reply(payload) => Ok(reply(&payload)),
        Outcome::Undelivered(reason, left) => {
            Err(route.undelivered(reason, left, &format!("the node {}", node.name())))
        }
        Outcome::LinkDown(reason) => Err(Error::LinkLost { peer, why: reason.name().replace('_', " ") }),
    }
}

/// Makes the address to which the reply will come.
async fn begin(node: &Arc<Node>, offer: Offer) -> Result<(oneshot::Receiver<Outcome>, UnderWay), Error> {
    let engine = node.engine().await?;
    let (tell, outcome) = oneshot::channel();
    let reply_to = crate::random::hex_id();
    {
        let mut requests = node.waiting.requests();
        if requests.len() >= WAITING_MAX {
            return Err(Error::Limit { node: node.name(), what: "messages under way", limit: WAITING_MAX });
        }
        let waiter = Waiter { outcome: Some(tell), token: offer.token, transmit: None, link: None };
        requests.insert(reply_to.clone(), waiter);
    }
    let under_way = UnderWay { node: node.clone(), engine, reply_to, link: None };
    let set = under_way.engine.link.apply(|request| Command::SetAddress {
        request,
        address: under_way.reply_to.clone().into_bytes().into(),
        target: Target::Control,
        reachable: 0,
        cookie: node.cookies.seal(&Cookie::Reply).into(),
    });
    set.await.map_err(|error| node.command_failed("set a reply address", error))?;
    Ok((outcome, under_way))
}

async fn dial(
    node: &Node,
    engine: &Engine,
    hop: &Hop,
    deadline: Instant,
) -> Result<crate::engine_link::DialedLink, Error> {
    let target = hop.to_string();
    let addresses = match hop {
        Hop::Socket(address) => vec![*address],
        Hop::Name(host, port) => match tokio::time::timeout_at(deadline, lookup(host, *port)).await {
            Ok(addresses) => addresses?,
            Err(_) => return Err(Error::Unresolved { host: host.clone(), why: "the time was over".into() }),
        },
    };
    let dialed = tokio::time::timeout_at(deadline, node.dial(engine, &target, &addresses, &Cookie::Message));
    dialed.await.unwrap_or_else(|_| {
        let attempts =
            addresses.iter().map(|&address| Attempt { address, failure: AttemptFailure::TimedOut }).collect();
        Err(Error::ConnectFailed { target, attempts })
    })
}

fn read_route(text: &str) -> Result<Route, Error> {
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
