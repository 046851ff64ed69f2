//! A way that is open: how it is opened, asked, and ended.

use super::{Plan, Up};
use crate::channels::{self, OpenChannel};
use crate::engine_link::cookie::{Cookie, Purpose};
use crate::error::Error;
use crate::messages::{Outcome, Patience, ReplyAddress, Request, dial};
use crate::node::{Engine, Node};
use crate::route::{Route, Step};
use ockam_crypto::Identifier;
use ockam_engine_abi::{ChannelEnd, CloseReason, DropReason, LinkId};
use ockam_wire::Address;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// CBOR of an unsigned number of 64 bits: its head.
const CBOR_U64: u8 = 0x1b;

/// What a way begins with.
enum Begins {
    /// A channel that the session opened.
    Own(u32, oneshot::Receiver<ChannelEnd>),
    /// A channel that somebody else keeps open.
    Channel(u32, oneshot::Receiver<ChannelEnd>),
    /// A link that the session dialed.
    Link(LinkId, oneshot::Receiver<CloseReason>),
    /// Something of this node.
    Here,
}

impl Begins {
    /// Returns when it was seen to end, and says why. It is not asked again after that.
    async fn ended(&mut self) -> Error {
        let why = match self {
            Begins::Own(_, told) | Begins::Channel(_, told) => match told.await {
                Ok(reason) => format!("the secure channel ended: {}", reason.name().replace('_', " ")),
                Err(_) => "the secure channel ended".into(),
            },
            Begins::Link(_, told) => match told.await {
                Ok(reason) => format!("the connection closed: {}", reason.name().replace('_', " ")),
                Err(_) => "the connection closed".into(),
            },
            Begins::Here => std::future::pending().await,
        };
        Error::WayLost { why }
    }
}

/// A way that is open. Who has it releases it.
pub(super) struct OpenWay {
    engine: Arc<Engine>,
    way: Vec<Address>,
    peer: Option<Identifier>,
    begins: Begins,
}

/// What it takes to ask the far end.
pub(super) struct Question {
    pub(super) engine: Arc<Engine>,
    way: Vec<Address>,
    channel: Option<u32>,
}

impl OpenWay {
    pub(super) fn up(&self) -> super::Up {
        let (link, channel) = match &self.begins {
            Begins::Own(number, _) | Begins::Channel(number, _) => (None, Some(*number)),
            Begins::Link(link, _) => (Some(*link), None),
            Begins::Here => (None, None),
        };
        super::Up { way: self.way.clone(), peer: self.peer, link, channel }
    }

    pub(super) fn question(&self) -> Question {
        Question { engine: self.engine.clone(), way: self.way.clone(), channel: self.up().channel }
    }

    /// Returns when it was seen to end, and says why. It is not asked again after that.
    pub(super) async fn ended(&mut self) -> Error {
        tokio::select! {
            why = self.begins.ended() => why,
            () = self.engine.link.closed() => Error::WayLost { why: "the engine ended".into() },
        }
    }

    /// Ends what the session opened.
    pub(super) async fn release(self, node: &Arc<Node>) {
        match self.begins {
            Begins::Own(number, _) => node.channels.retire(&self.engine.link, number).await,
            Begins::Link(link, _) => {
                node.sessions.forget(link);
                self.engine.link.close(link).await;
            }
            Begins::Channel(..) | Begins::Here => {}
        }
    }
}

/// A way that was opened just now. What was opened for it ends when this is dropped.
pub(crate) struct Opened {
    engine: Arc<Engine>,
    way: Vec<Address>,
    channels: Vec<OpenChannel>,
    /// None: the last of the channels.
    begins: Option<Begins>,
    link: OpenLink,
}

impl Opened {
    /// Who is at the end of its last channel.
    pub(crate) fn peer(&self) -> Option<Identifier> {
        self.channels.last().map(|channel| channel.peer)
    }

    /// It goes on without this.
    pub(super) fn keep(mut self) -> OpenWay {
        let peer = self.peer();
        self.link.link = None;
        let mut last = None;
        for channel in std::mem::take(&mut self.channels) {
            last = Some((channel.number, channel.keep()));
        }
        let begins = match (self.begins.take(), last) {
            (Some(begins), _) => begins,
            (None, Some((number, told))) => Begins::Own(number, told),
            (None, None) => Begins::Here,
        };
        OpenWay { engine: self.engine, way: self.way, peer, begins }
    }
}

/// A link that is closed when this is dropped, unless it is kept.
struct OpenLink {
    node: Arc<Node>,
    engine: Arc<Engine>,
    link: Option<LinkId>,
}

impl Drop for OpenLink {
    fn drop(&mut self) {
        if let Some(link) = self.link {
            self.node.sessions.forget(link);
            let engine = self.engine.clone();
            tokio::spawn(async move { engine.link.close(link).await });
        }
    }
}

/// The addresses between the last channel, or the beginning, and the destination.
fn rest(plan: &Plan) -> Vec<Address> {
    let mut rest = plan.rest.as_ref().map_or(Vec::new(), |rest| rest.addresses(0));
    rest.pop();
    rest
}

/// The way of a plan that lives already: an engine was adopted that has it, or it was opened just now.
pub(super) fn living(node: &Arc<Node>, plan: &Plan) -> Option<OpenWay> {
    let engine = node.engine_now()?;
    let mut way = rest(plan);
    if plan.legs.is_empty() {
        let (link, address) = node.sessions.take_adopted(&plan.id)?;
        *way.first_mut()? = Address::local(address);
        let told = node.sessions.follow(link);
        return Some(OpenWay { engine, way, peer: None, begins: Begins::Link(link, told) });
    }
    let (number, peer, told) = node.channels.follow(plan.id.as_bytes())?;
    way.insert(0, Address::local(plan.id.clone()));
    Some(OpenWay { engine, way, peer: Some(peer), begins: Begins::Own(number, told) })
}

/// Opens the way of a plan. `before` is who must be at the end of its last channel.
///
/// # Errors
/// Those of dialing and of secure channels; [`Error::IdentityChanged`]; why the far end cannot be reached.
pub(super) async fn open(
    node: &Arc<Node>,
    engine: &Arc<Engine>,
    plan: &Plan,
    before: Option<Identifier>,
    patience: &Patience,
) -> Result<Opened, Error> {
    let opened = open_channels(node, engine, plan, before, patience).await?;
    let mut way = rest(plan);
    let mut link = OpenLink { node: node.clone(), engine: engine.clone(), link: None };
    let mut begins = match (opened.last(), plan.rest.as_ref().and_then(Route::first_hop)) {
        (Some(channel), _) => {
            way.insert(0, Address::local(channel.address.clone()));
            None
        }
        (None, Some(hop)) => {
            let cookie = Cookie::SessionLink { session: plan.id.clone() };
            let dialed = dial(node, engine, hop, &cookie, patience.deadline).await?;
            link.link = Some(dialed.link);
            way[0] = Address::local(dialed.address);
            Some(Begins::Link(dialed.link, node.sessions.follow(dialed.link)))
        }
        (None, None) => Some(match way.first().and_then(|first| node.channels.follow(&first.name)) {
            Some((number, _, told)) => Begins::Channel(number, told),
            None => Begins::Here,
        }),
    };
    // A channel's end was asked when it was opened.
    if opened.is_empty() || way.len() > 1 {
        let channel = match &begins {
            None => opened.last().map(|channel| channel.number),
            Some(Begins::Channel(number, _)) => Some(*number),
            Some(_) => None,
        };
        let question = Question { engine: engine.clone(), way: way.clone(), channel };
        let limit = patience.deadline.saturating_duration_since(Instant::now());
        let ended = async {
            match &mut begins {
                Some(begins) => begins.ended().await,
                // The question follows the channel.
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            why = ended => return Err(why),
            answered = ask_far_end(node, engine, plan, &question, limit) => match answered {
                Err(Error::NoReply { .. }) => return Err(patience.over()),
                answered => answered?,
            },
        }
    }
    Ok(Opened { engine: engine.clone(), way, channels: opened, begins, link })
}

/// Opens the channels of a plan, from here on.
async fn open_channels(
    node: &Arc<Node>,
    engine: &Arc<Engine>,
    plan: &Plan,
    before: Option<Identifier>,
    patience: &Patience,
) -> Result<Vec<OpenChannel>, Error> {
    let mut opened: Vec<OpenChannel> = Vec::new();
    let only = before.map(|before| [before]);
    for (index, leg) in plan.legs.iter().enumerate() {
        let is_last = index + 1 == plan.legs.len();
        let own = plan.own.ok_or_else(|| Error::internal("a way with a secure channel and no identity"))?;
        let behind = opened.last().map(|channel| (channel.number, channel.address.clone()));
        let channel = if is_last {
            let authorized = only.as_ref().map_or(plan.authorized.as_slice(), |only| only.as_slice());
            let (address, purpose) = (plan.id.clone(), Purpose::Desired);
            channels::Plan { address, behind, leg, authorized, own, purpose }
        } else {
            let authorized = plan.on_the_way.get(index).map_or(&[][..], Vec::as_slice);
            let (address, purpose) = (crate::random::hex_id(), Purpose::Way(plan.id.clone()));
            channels::Plan { address, behind, leg, authorized, own, purpose }
        };
        match (channels::open(node, engine, channel, patience).await, before) {
            (Err(Error::PeerNotAuthorized { listener, identifier }), Some(before)) if is_last => {
                return Err(Error::IdentityChanged { listener, identifier, before: before.to_string() });
            }
            (channel, _) => opened.push(channel?),
        }
    }
    Ok(opened)
}

/// Asks the far end of a way whether it is there.
///
/// # Errors
/// [`Error::NoReply`] when it is silent for that long; another one when it is known why it cannot be reached; those of
/// the engine.
pub(super) async fn ask_far_end(
    node: &Arc<Node>,
    engine: &Arc<Engine>,
    plan: &Plan,
    question: &Question,
    limit: Duration,
) -> Result<(), Error> {
    if question.way.is_empty() {
        return Ok(());
    }
    let patience =
        Patience { deadline: Instant::now() + limit, timeout_ms: limit.as_millis() as u64, route: plan.text.clone() };
    let lost = |why: String| Err(Error::WayLost { why });
    match ask(node, engine, &question.way, question.channel, &patience).await? {
        Ok(_) => Ok(()),
        Err(Outcome::Undelivered(reason, left)) => match &plan.rest {
            // What failed is behind the channel or the link that the way begins with.
            Some(rest) if usize::from(left) < question.way.len() + 1 => {
                let sender = format!("the node {}", node.name());
                Err(rest.with_end(Step::Service("echo".into())).undelivered(reason, left, &sender))
            }
            _ => lost(format!("what it begins with cannot be reached: {}", reason.name().replace('_', " "))),
        },
        Err(Outcome::LinkDown(reason)) => lost(format!("the connection closed: {}", reason.name().replace('_', " "))),
        Err(Outcome::ChannelEnded(reason)) => {
            lost(format!("the secure channel ended: {}", reason.name().replace('_', " ")))
        }
        Err(Outcome::Reply(_)) => Err(Error::internal("a reply is no failure")),
    }
}

/// Asks at the end of a way whether somebody is there: `echo`, as `wire.md` F.6 has it. `channel` is the one that the way
/// begins with. Gives whether notices come back this way, or what became of the question if it was not answered.
///
/// # Errors
/// [`Error::NoReply`], and those of the engine.
pub(crate) async fn ask(
    node: &Arc<Node>,
    engine: &Arc<Engine>,
    way: &[Address],
    channel: Option<u32>,
    patience: &Patience,
) -> Result<Result<bool, Outcome>, Error> {
    let mut question = Request::begin(node, engine, ReplyAddress::of_message()).await?;
    if let Some(channel) = channel {
        question.follow(channel);
    }
    let onward = [way, &[Address::local(&b"echo"[..])]].concat();
    let number = crate::random::bytes::<8>();
    question.send(&onward, &[&[CBOR_U64][..], &number].concat(), patience).await?;
    match question.outcome(patience).await? {
        // Whatever it is, somebody sent it who has seen the question: its reply address is random.
        Outcome::Reply(reply) => Ok(Ok(question.has_offer(&reply))),
        // Of the whole route the last address was left: it was the far end who looked for it.
        Outcome::Undelivered(
            DropReason::NoSuchAddress | DropReason::NotAdmitted | DropReason::NotDelivered | DropReason::PolicyDenied,
            0 | 1,
        ) => Ok(Ok(true)),
        other => Ok(Err(other)),
    }
}

/// Asks whether there is an outlet at `destination`, behind a way that is open, with a message of nothing: what one of our
/// nodes cannot deliver comes back (`docs/wire-extensions.md`, Is the outlet there), and an outlet keeps silent. Gives why
/// not, and how many addresses were left; nothing when that is unknown, as with a real node on the way.
pub(crate) async fn missing(
    node: &Arc<Node>,
    engine: &Arc<Engine>,
    up: &Up,
    destination: &Address,
    patience: &Patience,
) -> Option<(DropReason, u8)> {
    if !up.way.is_empty() && !matches!(ask(node, engine, &up.way, up.channel, patience).await, Ok(Ok(true))) {
        return None;
    }
    let mut question = Request::begin(node, engine, ReplyAddress::of_message()).await.ok()?;
    if let Some(channel) = up.channel {
        question.follow(channel);
    }
    let onward = [&up.way[..], std::slice::from_ref(destination)].concat();
    question.send(&onward, &[], patience).await.ok()?;
    let outcome = tokio::select! {
        outcome = question.outcome(patience) => outcome.ok(),
        // It was sent later and takes the same way: what there is to say of the first was said before.
        _ = ask(node, engine, &up.way, up.channel, patience) => question.outcome_so_far(),
    };
    match outcome {
        Some(Outcome::Undelivered(reason, left)) => Some((reason, left)),
        _ => None,
    }
}
