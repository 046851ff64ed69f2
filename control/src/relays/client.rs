//! Relays that this node registers at others.
//!
//! ```text
//!   session Up ──► M = a new address ──► [way.., static_forwarding_service] "blue" ──► reply at M: forward_to_blue
//!                                    ──► M forwards, for relays that put it in front of what they send here ──► Up
//!   session Down ──► Down: the relay ended with the way, or nobody knows
//! ```
//!
//! There is no message that ends a relay: it ends with the connection or the channel that it was registered by.

use super::service;
use super::{ADDRESS_BYTES_MAX, PREFIX, SERVICES, check_name, is_name, lock};
use crate::api::{CreateRelay, RelayInfo, WayStatus};
use crate::channels::{own, read_list, read_lists};
use crate::engine_link::cookie::Cookie;
use crate::engine_link::{DumpedAddress, EngineLink};
use crate::error::{Error, exit};
use crate::messages::{Outcome, Patience, ReplyAddress, Request, read_route};
use crate::node::Node;
use crate::route::{Route, Step};
use crate::sessions::{self, Session, Up};
use crate::store::RelayRow;
use crate::store::node::{FLOW_CONTROL_INITIATED, RELAYS_MAX};
use ockam_crypto::Identifier;
use ockam_engine_abi::{Command, DropReason, FLOW_CONTROL_DIALED, Target};
use ockam_wire::{Address, LOCAL, Message, bare};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// How long the answer to a registration may take.
const REGISTER_LIMIT_MS: u64 = 10_000;

/// How often it is tried whether the relay still leads here, and how long that may take.
const TRIAL_PAUSE: Duration = Duration::from_secs(5);
const TRIAL_LIMIT_MS: u64 = 5_000;

/// Pauses between registrations that fail while the way is open; each is between half of this and all of it.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Who may send to the end of a relay: what comes by the ways that this node opened.
const REACHABLE: u64 = 1 << FLOW_CONTROL_DIALED | 1 << FLOW_CONTROL_INITIATED;

/// A relay that this node registers at another.
pub(super) struct Client {
    row: RelayRow,
    session: Session,
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    status: watch::Sender<Status>,
    /// Where a relay of another make sends what comes for this node.
    end: Mutex<Option<String>>,
}

/// How a relay is.
#[derive(Debug, Clone)]
enum Status {
    /// Not registered, or nobody knows.
    Down(Option<Error>),
    /// Registered at this address.
    Up(String),
    /// Not registered again.
    Stopped(Error),
}

/// The end of a relay in an engine: it says that the registration was complete.
pub(super) struct End {
    /// Its local address.
    pub(super) name: String,
    /// The relay's, at its node.
    address: String,
}

impl Client {
    pub(super) fn has_end(&self, address: &[u8]) -> bool {
        lock(&self.shared.end).as_ref().is_some_and(|end| end.as_bytes() == address)
    }

    fn info(&self) -> RelayInfo {
        let asked_for = || format!("{PREFIX}{}", self.row.asks_for());
        let (address, status, error) = match &*self.shared.status.borrow() {
            Status::Up(address) => (address.clone(), WayStatus::Up, None),
            Status::Down(why) => (asked_for(), WayStatus::Down, why.as_ref().map(Error::to_string)),
            Status::Stopped(why) => (asked_for(), WayStatus::Down, Some(why.to_string())),
        };
        let peer = match self.session.state() {
            sessions::State::Up(up) => up.peer.or(self.row.peer),
            _ => self.row.peer,
        };
        RelayInfo {
            name: self.row.name.clone(),
            address,
            at: self.row.at.clone(),
            status,
            error,
            identifier: peer.map(|peer| peer.to_string()),
        }
    }
}

/// The ends of relays that an engine has, by session.
pub(super) fn ends(node: &Node, shall_be: &[&str], has: &[DumpedAddress]) -> BTreeMap<String, End> {
    let relays = has.iter().filter(|found| found.target == Target::Relay);
    let ends = relays.filter_map(|found| match node.cookies.open(&found.cookie)? {
        Cookie::RelayEnd { session, address } if shall_be.contains(&session.as_str()) => {
            Some((session, End { name: String::from_utf8(found.address.clone()).ok()?, address }))
        }
        _ => None,
    });
    ends.collect()
}

/// Makes a relay, and waits for it if that is asked for.
///
/// # Errors
/// [`Error::BadArgument`], [`Error::NameTaken`], [`Error::Limit`], those of the store; when it waits, whatever says that
/// this node may not have the relay: nothing is left then.
pub(crate) async fn create(node: &Arc<Node>, request: CreateRelay) -> Result<RelayInfo, Error> {
    check_name("name", &request.name)?;
    if let Some(address) = &request.relay_address {
        check_name("relay_address", address)?;
    }
    let route = to_service(&request.at)?;
    let channels = route.legs().len() - 1;
    let on_the_way = read_lists("authorized_on_the_way", &request.authorized_on_the_way, channels.saturating_sub(1))?;
    let authorized = read_list("authorized", &request.authorized)?;
    if channels == 0 && !authorized.is_empty() {
        return Err(Error::BadArgument {
            argument: "authorized".into(),
            value: request.authorized.join(","),
            why: "is for the peer of a secure channel, and the route has none".into(),
            fix: "End the route to the relay's node with /secure/api.".into(),
        });
    }
    let patience = Patience::new(request.timeout_ms, &request.at)?;
    let identity = match (channels, request.identity.as_deref()) {
        (0, None) => None,
        (_, name) => Some(own(node, name).await?),
    };
    let row = RelayRow {
        name: request.name,
        at: request.at,
        relay_address: request.relay_address,
        authorized,
        on_the_way,
        identity,
        peer: None,
        session: crate::random::hex_id(),
    };
    {
        let mut store = node.store().await;
        let relays = store.relays()?;
        if relays.iter().any(|other| other.name == row.name) {
            return Err(Error::NameTaken { what: "a relay", name: row.name });
        }
        if relays.len() >= RELAYS_MAX {
            return Err(Error::Limit { node: node.name(), what: "relays", limit: RELAYS_MAX });
        }
        store.begin()?;
        if let Err(error) = store.add_relay(&row) {
            store.roll_back();
            return Err(error);
        }
        store.commit()?;
        node.reload(&store)?;
    }
    let name = row.name.clone();
    let mut status = start(node, row, &route);
    if request.wait {
        let decided = status.wait_for(|status| match status {
            Status::Up(_) | Status::Stopped(_) => true,
            Status::Down(why) => why.as_ref().is_some_and(is_final),
        });
        let decided = match tokio::time::timeout_at(patience.deadline, decided).await {
            Ok(Ok(status)) => Some(status.clone()),
            _ => None,
        };
        if let Some(Status::Stopped(why) | Status::Down(Some(why))) = decided {
            delete(node, &name).await?;
            return Err(why);
        }
    }
    find(node, &name)
}

/// Whether trying again would not help.
fn is_final(why: &Error) -> bool {
    why.exit() == exit::DENIED
}

/// Takes up the relays that shall be.
pub(crate) fn resume(node: &Arc<Node>) {
    for row in node.desired().relays {
        // One that is taken up has noticed by itself that the engine is another one.
        if lock(&node.relays.clients).contains_key(&row.name) {
            continue;
        }
        match to_service(&row.at) {
            Ok(route) => drop(start(node, row, &route)),
            // It was read when it was stored.
            Err(error) => tracing::error!(relay = row.name, %error, "a stored route is none"),
        }
    }
}

/// Ends a relay for good.
///
/// # Errors
/// [`Error::NoSuchThing`], those of the store.
pub(crate) async fn delete(node: &Arc<Node>, name: &str) -> Result<(), Error> {
    {
        let mut store = node.store().await;
        if store.relays()?.iter().all(|row| row.name != name) {
            return Err(no_such(node, name));
        }
        store.begin()?;
        if let Err(error) = store.remove_relay(name) {
            store.roll_back();
            return Err(error);
        }
        store.commit()?;
        node.reload(&store)?;
    }
    let Some(client) = lock(&node.relays.clients).remove(name) else { return Ok(()) };
    client.task.abort();
    client.session.end(node).await;
    end_before(node, &client.shared).await;
    if let Some(engine) = node.engine_now().filter(|_| client.row.is_here()) {
        service::end_here(node, &engine.link, client.row.asks_for()).await;
    }
    tracing::info!(relay = name, "a relay was deleted");
    Ok(())
}

/// The relays of this node, by name.
pub(crate) fn infos(node: &Node) -> Vec<RelayInfo> {
    lock(&node.relays.clients).values().map(Client::info).collect()
}

/// The relay of this node with this name.
///
/// # Errors
/// [`Error::NoSuchThing`].
pub(crate) fn find(node: &Node, name: &str) -> Result<RelayInfo, Error> {
    let found = lock(&node.relays.clients).get(name).map(Client::info);
    found.ok_or_else(|| no_such(node, name))
}

fn no_such(node: &Node, name: &str) -> Error {
    node.no_such("relay", name, "ockam relay list")
}

/// The route to the service that makes relays at the node where `at` ends.
fn to_service(at: &str) -> Result<Route, Error> {
    let to = at.trim_end_matches('/');
    read_route(&format!("{to}/service/{}", SERVICES[1])).map_err(|error| match error {
        Error::BadArgument { why, fix, .. } => {
            let value = crate::text::escape(at.as_bytes(), 300);
            Error::BadArgument { argument: "at".into(), value, why, fix }
        }
        other => other,
    })
}

fn start(node: &Arc<Node>, row: RelayRow, route: &Route) -> watch::Receiver<Status> {
    let plan = sessions::Plan {
        authorized: row.authorized.clone(),
        on_the_way: row.on_the_way.clone(),
        own: row.identity,
        peer: row.peer,
        ..sessions::Plan::to(row.session.clone(), route)
    };
    let session = sessions::start(node, plan);
    // An end is there only once the relay is; that it is there still, the way says, which lives.
    let adopted = lock(&node.relays.ends).remove(&row.session);
    let shared = Arc::new(Shared {
        status: watch::Sender::new(Status::Down(None)),
        end: Mutex::new(adopted.as_ref().map(|end| end.name.clone())),
    });
    let adopted = adopted.map(|end| end.address);
    let place = place(route);
    let task = keep_registered(Arc::downgrade(node), row.clone(), place, session.watch(), shared.clone(), adopted);
    let task = tokio::spawn(task).abort_handle();
    let status = shared.status.subscribe();
    lock(&node.relays.clients).insert(row.name.clone(), Client { row, session, shared, task });
    status
}

/// Where the relay is, as the end of a sentence.
fn place(route: &Route) -> String {
    let steps = route.steps();
    match &steps[..steps.len() - 1] {
        [] => "this node".into(),
        steps => format!("the node at {}", steps.iter().map(Step::to_string).collect::<String>()),
    }
}

/// Registers a relay whenever the way to its node has come up. `adopted` is its address if it is registered already.
async fn keep_registered(
    node: Weak<Node>,
    mut row: RelayRow,
    place: String,
    mut session: watch::Receiver<sessions::State>,
    shared: Arc<Shared>,
    mut adopted: Option<String>,
) {
    let mut is_believed = true;
    loop {
        let state = session.borrow_and_update().clone();
        let up = match &state {
            sessions::State::Up(up) => Some(up.clone()),
            _ => None,
        };
        match (state, adopted.take()) {
            (sessions::State::Up(up), Some(address)) => {
                tracing::info!(relay = row.name, address, "a relay is still registered");
                note_peer(&node, &mut row, up.peer).await;
                shared.status.send_replace(Status::Up(address));
            }
            (sessions::State::Up(up), None) => {
                note_peer(&node, &mut row, up.peer).await;
                tokio::select! {
                    () = until_registered(&node, &row, &place, &up, &shared) => {}
                    changed = session.changed() => match changed {
                        Ok(()) => continue,
                        Err(_) => return,
                    },
                }
            }
            (sessions::State::Down { why }, _) => {
                shared.status.send_replace(Status::Down(why));
                if let Some(node) = node.upgrade() {
                    end_before(&node, &shared).await;
                }
            }
            (sessions::State::Stopped { why }, _) => {
                shared.status.send_replace(Status::Stopped(why));
            }
        }
        let registered = match &*shared.status.borrow() {
            Status::Up(address) => Some(address.clone()),
            _ => None,
        };
        let lost = async {
            match (&up, &registered) {
                (Some(up), Some(address)) => {
                    until_lost(&node, &row, &place, up, address, &shared, &mut is_believed).await
                }
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = session.changed() => if changed.is_err() {
                return;
            },
            () = lost => {}
        }
    }
}

/// Waits until a relay is gone though the way to its node lives: that forgot it, or was told to. One whose name leads to
/// another node now is shown as down and left to that, until it is gone there, too. Only nodes of ours say so.
///
/// `is_believed`: a relay that was made again for that reason is not made again once more before it was seen to lead here.
async fn until_lost(
    node: &Weak<Node>,
    row: &RelayRow,
    place: &str,
    up: &Up,
    address: &str,
    shared: &Shared,
    is_believed: &mut bool,
) {
    loop {
        tokio::time::sleep(sessions::jittered(TRIAL_PAUSE)).await;
        let tried = match node.upgrade() {
            Some(node) => try_relay(&node, row, up, address).await,
            None => return,
        };
        let is_up = matches!(&*shared.status.borrow(), Status::Up(_));
        // Of the onward route this node's own address is left when another node looked for it; the relay's, too, when that
        // is gone.
        let (why, is_gone) = match tried {
            Ok(Outcome::Reply(_)) => {
                *is_believed = true;
                if !is_up {
                    shared.status.send_replace(Status::Up(address.to_owned()));
                }
                continue;
            }
            Ok(Outcome::Undelivered(DropReason::NoSuchAddress | DropReason::NotDelivered, left)) if *is_believed => {
                match left {
                    1 => ("the relay leads to another node", false),
                    2 => ("it does not have the relay any more", true),
                    _ => continue,
                }
            }
            // It says nothing of the relay.
            _ => continue,
        };
        let why = Error::WayLost { why: format!("{place}: {why}") };
        if is_up {
            tracing::warn!(relay = row.name, %why, "a relay is lost");
        }
        shared.status.send_replace(Status::Down(Some(why)));
        if is_gone {
            *is_believed = false;
            return;
        }
    }
}

/// Sends this node a message through its relay.
async fn try_relay(node: &Arc<Node>, row: &RelayRow, up: &Up, address: &str) -> Result<Outcome, Error> {
    let engine = node.engine().await?;
    let at = ReplyAddress { target: Target::Control, reachable: REACHABLE, cookie: Cookie::Reply };
    let mut request = Request::begin(node, &engine, at).await?;
    if let Some(channel) = up.channel {
        request.follow(channel);
    }
    let here = [Address::local(address.to_owned()), Address::local(request.reply_to().to_owned())];
    let patience = Patience::new(TRIAL_LIMIT_MS, &row.at)?;
    request.send(&[&up.way[..], &here].concat(), &[0], &patience).await?;
    request.outcome(&patience).await
}

/// Who was met first must be met again, by a later control, too.
async fn note_peer(node: &Weak<Node>, row: &mut RelayRow, peer: Option<Identifier>) {
    let (Some(node), Some(peer), None) = (node.upgrade(), peer, row.peer) else { return };
    let noted = async {
        let mut store = node.store().await;
        while store.is_changing() {
            drop(store);
            tokio::time::sleep(PAUSE_MIN).await;
            store = node.store().await;
        }
        store.begin()?;
        if let Err(error) = store.set_relay_peer(&row.name, &peer) {
            store.roll_back();
            return Err(error);
        }
        store.commit()?;
        node.reload(&store)
    };
    match noted.await {
        Ok(()) => row.peer = Some(peer),
        Err(error) => tracing::warn!(relay = row.name, %error, "cannot note who is at the end of a relay's way"),
    }
}

/// Registers a relay over a way that is open, again and again until it succeeds.
async fn until_registered(node: &Weak<Node>, row: &RelayRow, place: &str, up: &Up, shared: &Shared) {
    let mut pause = PAUSE_MIN;
    loop {
        let registered = match node.upgrade() {
            Some(node) => register(&node, row, place, up, shared).await,
            None => return,
        };
        match registered {
            Ok(address) => {
                tracing::info!(relay = row.name, address, place, "a relay is registered");
                shared.status.send_replace(Status::Up(address));
                return;
            }
            Err(why) => {
                tracing::info!(relay = row.name, place, %why, "a relay cannot be registered");
                shared.status.send_replace(Status::Down(Some(why)));
            }
        }
        tokio::time::sleep(sessions::jittered(pause)).await;
        pause = (2 * pause).min(PAUSE_MAX);
    }
}

/// Registers a relay. Gives its address at its node.
async fn register(node: &Arc<Node>, row: &RelayRow, place: &str, up: &Up, shared: &Shared) -> Result<String, Error> {
    end_before(node, shared).await;
    let engine = node.engine().await?;
    let at = ReplyAddress { target: Target::Control, reachable: REACHABLE, cookie: Cookie::Reply };
    let mut request = Request::begin(node, &engine, at).await?;
    if let Some(channel) = up.channel {
        request.follow(channel);
    }
    let onward = [&up.way[..], &[Address::local(SERVICES[1])]].concat();
    let mut payload = Vec::with_capacity(row.asks_for().len() + 2);
    bare::write_string(row.asks_for(), &mut payload);
    let patience = Patience::new(REGISTER_LIMIT_MS, &row.at)?;
    request.send(&onward, &payload, &patience).await?;
    let lost = |why: &str| Error::WayLost { why: why.replace('_', " ") };
    let encoded = match request.outcome(&patience).await {
        Ok(Outcome::Reply(encoded)) => encoded,
        Ok(Outcome::Undelivered(reason, 0 | 1)) => {
            return Err(match reason {
                DropReason::NotAdmitted | DropReason::NotDelivered => {
                    let (name, place) = (row.asks_for().to_owned(), place.to_owned());
                    Error::RelayRefused { name, place }
                }
                reason => Error::Undelivered { step: format!("/service/{}", SERVICES[1]), place: place.into(), reason },
            });
        }
        Ok(Outcome::Undelivered(reason, _)) => return Err(lost(reason.name())),
        Ok(Outcome::LinkDown(reason)) => return Err(lost(reason.name())),
        Ok(Outcome::ChannelEnded(reason)) => return Err(lost(reason.name())),
        // Whoever refuses a relay need not say so.
        Err(Error::NoReply { timeout_ms, .. }) => {
            return Err(Error::NoReply { route: format!("{}/service/{}", row.at, SERVICES[1]), timeout_ms });
        }
        Err(error) => return Err(error),
    };
    let misbehaved = |why: &str| Error::PeerMisbehaved { peer: place.to_owned(), why: why.into() };
    let message = Message::parse(&encoded).map_err(|_| misbehaved("sent what is no message"))?;
    let address = bare::read_string(message.payload).map_err(|_| misbehaved("answered with what is no text"))?;
    let remote = message.return_route.iter().last();
    let is_there = remote.is_some_and(|remote| remote.kind == LOCAL && remote.name == address.as_bytes());
    if !is_there || !address.ends_with(row.asks_for()) || !is_name(address, ADDRESS_BYTES_MAX) {
        return Err(misbehaved("made a relay of another name"));
    }
    // From here on what comes for this node with its address in front goes on to what is behind it.
    let end = request.reply_to().to_owned();
    let cookie = Cookie::RelayEnd { session: row.session.clone(), address: address.to_owned() };
    let set = engine.link.apply(|number| Command::SetRelay {
        request: number,
        address: end.clone().into_bytes().into(),
        way: None,
        reachable: REACHABLE,
        cookie: node.cookies.seal(&cookie).into(),
    });
    set.await.map_err(|error| node.command_failed("set the end of a relay", error))?;
    request.keep();
    *lock(&shared.end) = Some(end);
    Ok(address.to_owned())
}

/// Clears the end of the registration before: a control that finds one takes it for a relay that is there.
async fn end_before(node: &Node, shared: &Shared) {
    let before = lock(&shared.end).take();
    if let (Some(before), Some(engine)) = (before, node.engine_now()) {
        clear(&engine.link, before).await;
    }
}

/// Clears an end; one that is gone already stays so.
async fn clear(engine: &EngineLink, end: String) {
    if let Err(error) =
        engine.apply(|request| Command::ClearAddress { request, address: end.into_bytes().into() }).await
    {
        tracing::debug!(%error, "no end of a relay to clear");
    }
}
