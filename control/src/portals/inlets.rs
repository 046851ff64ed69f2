//! Inlets: a listening socket that stays, and a session that keeps the way to the outlet open.
//!
//! ```text
//!   create ── bind ── store + AddInlet + RouteInlet(nowhere) ──► session Up ──► RouteInlet(way ++ [outlet])
//!                                                                        Down ──► RouteInlet(nowhere): connections wait
//! ```
//!
//! Control keeps a duplicate of the socket for the engine that comes after this one: no connection is refused meanwhile.

use super::listening::Listen;
use super::lock;
use crate::api::{CreateTcpInlet, ResourceType, TIMEOUT_MS_MAX, TcpInletInfo, WayStatus};
use crate::channels::{own, read_list, read_lists};
use crate::engine_link::cookie::Cookie;
use crate::engine_link::{CommandError, Dump, DumpedInlet, EngineLink};
use crate::error::{Error, exit};
use crate::messages::Patience;
use crate::node::{Kept, Node};
use crate::route::Route;
use crate::sessions::{self, Session, State, Up};
use crate::store::InletRow;
use crate::store::node::INLETS_MAX;
use ockam_crypto::Identifier;
use ockam_engine_abi::{Command, Refusal};
use ockam_wire::{Address, MultiAddr, Outgoing, RouteParts};
use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// How long a port may still be held by a ring whose process is gone, and how often that is looked at.
const BUSY_LIMIT: Duration = Duration::from_secs(1);
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// How often a change that is open is looked at, while a node starts.
const CHANGE_PAUSE: Duration = Duration::from_millis(50);

/// How long it is shown that an outlet did not answer: the engine says nothing of connections that succeed.
const UNANSWERED_SHOWN: Duration = Duration::from_secs(60);

/// How long it may take to hear whether the outlet is there.
const MISSING_LIMIT: Duration = Duration::from_secs(1);

/// Longest name of an inlet in bytes.
const ALIAS_BYTES_MAX: usize = 255;

/// What runs for an inlet.
pub(crate) struct Inlet {
    row: InletRow,
    session: Session,
    shown: watch::Receiver<Shown>,
    /// The engine shall be told again.
    again: Arc<Notify>,
    /// When the outlet did not answer a connection, or was not there.
    unanswered: Option<(Instant, String)>,
    /// Tells the engine where connections go.
    task: AbortHandle,
}

/// How an inlet is, once the engine has been told.
#[derive(Debug, Clone, Default)]
struct Shown {
    up: bool,
    /// It was asked whether the outlet is there.
    asked: bool,
    why: Option<Error>,
    peer: Option<Identifier>,
}

impl Drop for Inlet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Makes an inlet. When its way cannot be opened in time it stays, and its way is tried again, unless it was said that
/// it shall not.
///
/// # Errors
/// [`Error::BadArgument`], [`Error::NameTaken`], [`Error::Limit`], those of listening, of the store and the engine. When
/// `wait` is set, that the identity at the other end is not the right one, or refuses; with a `retry_wait_ms` of 0, whatever
/// keeps the way from being opened. Nothing is left then.
pub(crate) async fn create(node: &Arc<Node>, request: CreateTcpInlet) -> Result<TcpInletInfo, Error> {
    let route = read_route(&request.to)?;
    let plan = sessions::Plan::to(crate::random::hex_id(), &route);
    let channels = plan.channels();
    let authorized = read_list("authorized", &request.authorized)?;
    if channels == 0 && !authorized.is_empty() {
        return Err(Error::BadArgument {
            argument: "authorized".into(),
            value: request.authorized.join(" "),
            why: "says who may be at the end of a secure channel, and the route has none".into(),
            fix: "Put /secure/api in front of the outlet, or leave it out.".into(),
        });
    }
    let on_the_way = read_lists("authorized_on_the_way", &request.authorized_on_the_way, channels.saturating_sub(1))?;
    let connection_wait_ms = milliseconds("connection_wait_ms", request.connection_wait_ms)?;
    let retry_wait_ms = milliseconds("retry_wait_ms", request.retry_wait_ms)?;
    let patience = Patience::new(request.timeout_ms, &request.to)?;
    let alias = match request.alias {
        Some(alias) => check_alias(alias)?,
        None => crate::random::hex_id()[..8].to_owned(),
    };
    let listen = Listen::read(&request.from).await?;
    let identity = match channels {
        0 => None,
        _ => Some(own(node, request.identity.as_deref()).await?),
    };

    let engine = node.engine().await?;
    let number = {
        let mut store = node.store().await;
        let desired = node.desired();
        if desired.inlets.iter().any(|row| row.alias == alias) {
            return Err(Error::NameTaken { what: "an inlet", name: alias });
        }
        if desired.inlets.len() >= INLETS_MAX {
            return Err(Error::Limit { node: node.name(), what: "inlets", limit: INLETS_MAX });
        }
        let number = store.next_inlet()?;
        // One that is down at the moment keeps its place.
        if desired.inlets.iter().any(|row| row.listen == listen.to_string()) {
            return Err(Error::ListenerExists { node: node.name(), address: listen.to_string() });
        }
        let (kept, listen) = match activated(node, &alias)? {
            Some(passed) => passed,
            None => listen.bind().map(|(socket, listen)| (Kept::Socket { socket, ours: true }, listen))?,
        };
        let row = InletRow {
            number,
            alias,
            listen: listen.to_string(),
            route: request.to,
            session: plan.id.clone(),
            authorized,
            on_the_way,
            identity,
            peer: None,
            connection_wait_ms,
            retry_wait_ms,
        };
        let Kept::Socket { socket, .. } = &kept else { return Err(Error::internal("an inlet without a socket")) };
        let made = node.change(
            &mut store,
            "listen for applications",
            |store| store.add_inlet(&row),
            add(node, &engine.link, &row, socket),
            engine.link.apply(|request| Command::RemoveInlet { request, inlet: row.number }),
        );
        if let Err(error) = made.await {
            kept.release();
            if kept.is_ours() {
                remove_file(&listen);
            }
            return Err(error);
        }
        tracing::info!(inlet = row.alias, from = row.listen, to = row.route, "an inlet listens");
        node.keep_as(number, kept);
        begin(node, row, &route);
        number
    };
    if request.wait || retry_wait_ms == 0 {
        wait(node, number, retry_wait_ms == 0, &patience).await?;
    }
    let found = infos(node, &dump(node).await).into_iter().find(|(found, _)| *found == number);
    found.map(|(_, info)| info).ok_or_else(|| Error::internal("an inlet was forgotten"))
}

/// Waits until an inlet's way is open. One that shall not stay as it is is removed.
async fn wait(node: &Arc<Node>, number: u32, once: bool, patience: &Patience) -> Result<(), Error> {
    let Some(mut shown) = lock(&node.portals.inlets).get(&number).map(|inlet| inlet.shown.clone()) else {
        return Ok(());
    };
    let decided = |shown: &Shown| match &shown.why {
        _ if shown.up => shown.asked.then_some(Ok(())),
        Some(why) if once || why.exit() == exit::DENIED => Some(Err(why.clone())),
        _ => None,
    };
    let waited = async { shown.wait_for(|shown| decided(shown).is_some()).await.map(|shown| shown.clone()) };
    let waited = tokio::time::timeout_at(patience.deadline, waited).await;
    let error = match waited {
        Ok(Ok(shown)) => match decided(&shown) {
            Some(Err(error)) => error,
            _ => return Ok(()),
        },
        // It was removed meanwhile.
        Ok(Err(_)) => return Ok(()),
        Err(_) if once => patience.over(),
        Err(_) => return Ok(()),
    };
    let alias = node.desired().inlets.into_iter().find(|row| row.number == number).map(|row| row.alias);
    if let Some(alias) = alias {
        delete(node, &alias).await?;
    }
    Err(error)
}

/// Removes an inlet; its connections end.
///
/// # Errors
/// [`Error::NoSuchThing`], those of the store and the engine.
pub(crate) async fn delete(node: &Arc<Node>, alias: &str) -> Result<(), Error> {
    let engine = node.engine().await?;
    let mut store = node.store().await;
    let row = row(node, alias)?;
    let socket = node.kept_socket(row.number);
    let remove = async {
        match engine.link.apply(|request| Command::RemoveInlet { request, inlet: row.number }).await {
            // One that is down was never there.
            Err(CommandError::Refused { why: Refusal::Unknown, .. }) => Ok(()),
            removed => removed,
        }
    };
    let undo = async {
        match &socket {
            Some(socket) => add(node, &engine.link, &row, socket).await,
            None => Ok(()),
        }
    };
    node.change(&mut store, "remove an inlet", |store| store.remove_inlet(row.number), remove, undo).await?;
    if let Some(kept) = node.forget_kept(row.number) {
        kept.release();
        if let Some(listen) = Listen::stored(&row.listen).filter(|_| kept.is_ours()) {
            remove_file(&listen);
        }
    }
    let removed = lock(&node.portals.inlets).remove(&row.number);
    drop(store);
    if let Some(inlet) = removed {
        inlet.session.end(node).await;
    }
    tracing::info!(inlet = row.alias, from = row.listen, "an inlet is removed");
    Ok(())
}

/// The inlet with this name.
///
/// # Errors
/// [`Error::NoSuchThing`].
fn row(node: &Node, alias: &str) -> Result<InletRow, Error> {
    let found = node.desired().inlets.into_iter().find(|row| row.alias == alias);
    found.ok_or_else(|| node.no_such("inlet", alias, "ockam tcp-inlet list"))
}

async fn dump(node: &Node) -> Dump {
    match node.engine_now() {
        // An engine that ends just now has no connections.
        Some(engine) => engine.link.dump().await.unwrap_or_default(),
        None => Dump::default(),
    }
}

/// Every inlet.
pub(crate) async fn all(node: &Node) -> Vec<TcpInletInfo> {
    // Nothing is asked of the engine for nodes that have none.
    let dump = if node.desired().inlets.is_empty() { Dump::default() } else { dump(node).await };
    infos(node, &dump).into_iter().map(|(_, info)| info).collect()
}

/// One inlet.
///
/// # Errors
/// [`Error::NoSuchThing`].
pub(crate) async fn info(node: &Node, alias: &str) -> Result<TcpInletInfo, Error> {
    let number = row(node, alias)?.number;
    let found = infos(node, &dump(node).await).into_iter().find(|(found, _)| *found == number);
    found.map(|(_, info)| info).ok_or_else(|| node.no_such("inlet", alias, "ockam tcp-inlet list"))
}

/// Every inlet, with its number.
pub(crate) fn infos(node: &Node, dump: &Dump) -> Vec<(u32, TcpInletInfo)> {
    let all = lock(&node.portals.inlets);
    let info = |row: InletRow| {
        let inlet = all.get(&row.number);
        let shown = inlet.map(|inlet| inlet.shown.borrow().clone()).unwrap_or_default();
        let not_listening = node.listener_error(row.number);
        let up = shown.up && not_listening.is_none();
        let unanswered = inlet.and_then(|inlet| inlet.unanswered.as_ref());
        let error = match not_listening.or(shown.why) {
            Some(error) => Some(error.to_string()),
            None => unanswered.filter(|(when, _)| when.elapsed() < UNANSWERED_SHOWN).map(|(_, why)| why.clone()),
        };
        let found = dump.inlets.iter().find(|found| found.inlet == row.number);
        let info = TcpInletInfo {
            alias: row.alias,
            from: row.listen,
            to: row.route,
            status: if up { WayStatus::Up } else { WayStatus::Down },
            error,
            identifier: shown.peer.or(row.peer).map(|peer| peer.to_string()),
            authorized: row.authorized.iter().map(Identifier::to_string).collect(),
            connection_wait_ms: row.connection_wait_ms.into(),
            connections: found.map_or(0, |found| found.connections.into()),
            repaired: inlet.map_or(0, |inlet| inlet.session.reopened()),
        };
        (row.number, info)
    };
    node.desired().inlets.into_iter().map(info).collect()
}

// ---- what the engine has

/// Brings the inlets of an engine, new or adopted, to what shall be. One that cannot listen is noted as down.
///
/// # Errors
/// The engine refuses or ends.
pub(crate) async fn reconcile(
    node: &Node,
    link: &EngineLink,
    has: Vec<DumpedInlet>,
    desired: &[InletRow],
    is_start: bool,
) -> Result<(), Error> {
    let failed = |error| node.command_failed("listen for applications", error);
    let mut there = BTreeSet::new();
    for found in has {
        let row = desired.iter().find(|row| row.number == found.inlet);
        let cookie = node.cookies.open(&found.cookie);
        match (row, found.socket) {
            (Some(row), Some(socket))
                if cookie == Some(Cookie::Inlet { session: row.session.clone() })
                    && Listen::of(&socket).is_some_and(|listen| listen.to_string() == row.listen) =>
            {
                let ours = !node.activated.is_passed(&socket);
                // The same one, if the service manager gave it once more.
                drop(node.activated.take(&row.alias));
                node.keep_as(row.number, Kept::Socket { socket, ours });
                if found.guard == node.trust.guard(ResourceType::TcpInlet, &row.alias) {
                    there.insert(row.number);
                    continue;
                }
                // It is added again with the socket that is kept.
                let inlet = row.number;
                link.apply(|request| Command::RemoveInlet { request, inlet }).await.map_err(failed)?;
            }
            _ => {
                let inlet = found.inlet;
                tracing::warn!(inlet, "removing an inlet that this node does not have");
                link.apply(|request| Command::RemoveInlet { request, inlet }).await.map_err(failed)?;
            }
        }
    }
    let patience = Instant::now() + if is_start { BUSY_LIMIT } else { Duration::ZERO };
    for row in desired.iter().filter(|row| !there.contains(&row.number)) {
        match hand_over(node, link, row, patience).await {
            Err(error @ (Error::EngineAway { .. } | Error::EngineRefused { .. })) => return Err(error),
            Err(error) => tracing::warn!(inlet = row.alias, from = row.listen, %error, "an inlet is down"),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Gives an inlet's socket to the engine: the one that is kept, one of the service manager, or a new one.
/// `patience` is when a place that is busy is given up.
async fn hand_over(node: &Node, link: &EngineLink, row: &InletRow, patience: Instant) -> Result<(), Error> {
    let socket = match node.kept_socket(row.number) {
        Some(socket) => socket,
        None => {
            let kept = match open(node, row, patience).await {
                Ok(kept) => kept,
                Err(error) => {
                    node.keep_as(row.number, Kept::Down(error.clone()));
                    return Err(error);
                }
            };
            node.keep_as(row.number, kept);
            node.kept_socket(row.number).ok_or_else(|| Error::internal("no descriptor is left for an inlet"))?
        }
    };
    let added = add(node, link, row, &socket).await;
    added.map_err(|error| node.command_failed("listen for applications", error))
}

async fn open(node: &Node, row: &InletRow, patience: Instant) -> Result<Kept, Error> {
    if let Some((kept, _)) = activated(node, &row.alias)? {
        return Ok(kept);
    }
    let listen = Listen::stored(&row.listen).ok_or_else(|| Error::internal("an inlet listens nowhere"))?;
    loop {
        match listen.bind() {
            Err(Error::AddressBusy { .. } | Error::PathBusy { .. }) if Instant::now() < patience => {
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            bound => return bound.map(|(socket, _)| Kept::Socket { socket, ours: true }),
        }
    }
}

/// The socket that the service manager opened for this inlet.
fn activated(node: &Node, alias: &str) -> Result<Option<(Kept, Listen)>, Error> {
    let Some(socket) = node.activated.take(alias) else { return Ok(None) };
    let listen = Listen::of(&socket).ok_or_else(|| Error::BadData {
        what: "the sockets of the service manager".into(),
        why: format!("{alias:?} is neither a TCP socket nor a Unix socket with a path"),
        fix: "Give its unit a ListenStream= with a port or a path.".into(),
    })?;
    Ok(Some((Kept::Socket { socket, ours: false }, listen)))
}

/// Adds an inlet whose connections wait for a way.
async fn add(node: &Node, link: &EngineLink, row: &InletRow, socket: &OwnedFd) -> Result<(), CommandError> {
    let cookie = node.cookies.seal(&Cookie::Inlet { session: row.session.clone() });
    link.apply_with(socket.as_fd(), |request| Command::AddInlet {
        request,
        inlet: row.number,
        guard: node.trust.guard(ResourceType::TcpInlet, &row.alias),
        cookie: cookie.into(),
    })
    .await?;
    let routed = set_way(link, row, None).await;
    if routed.is_err() {
        // What fails leaves nothing behind.
        let _ = link.apply(|request| Command::RemoveInlet { request, inlet: row.number }).await;
    }
    routed
}

async fn set_way(link: &EngineLink, row: &InletRow, way: Option<&[Address]>) -> Result<(), CommandError> {
    let way = way.map(|way| {
        let onward: Vec<_> = way.iter().map(Address::as_ref).collect();
        let message = Outgoing {
            onward: RouteParts::new(&onward),
            return_route: RouteParts::EMPTY,
            payload_len: 0,
            tracing: None,
        };
        message.to_frame(&[]).split_off(4).into()
    });
    let wait_ms = row.connection_wait_ms;
    link.apply(|request| Command::RouteInlet { request, inlet: row.number, way, wait_ms }).await
}

/// Tries again to bring up inlets that are down. Says whether all are up. The store is locked.
pub(crate) async fn retry(node: &Node, link: &EngineLink) -> bool {
    let mut all_up = true;
    for row in node.desired().inlets.iter().filter(|row| node.listener_error(row.number).is_some()) {
        match hand_over(node, link, row, Instant::now()).await {
            Ok(()) => {
                tracing::info!(inlet = row.alias, from = row.listen, "an inlet is up again");
                // Its way may have been open all the time.
                if let Some(inlet) = lock(&node.portals.inlets).get(&row.number) {
                    inlet.again.notify_one();
                }
            }
            Err(error) => {
                tracing::debug!(inlet = row.alias, %error, "an inlet is still down");
                all_up = false;
            }
        }
    }
    all_up
}

/// Removes the files of sockets that nobody listens on any more: the node ends.
pub(crate) fn release(node: &Node) {
    for row in node.desired().inlets {
        let kept = node.forget_kept(row.number);
        if let (Some(kept), Some(listen)) = (kept, Listen::stored(&row.listen)) {
            kept.release();
            if kept.is_ours() {
                remove_file(&listen);
            }
        }
    }
}

fn remove_file(listen: &Listen) {
    if let Listen::Unix(path) = listen
        && let Err(error) = std::fs::remove_file(path)
    {
        tracing::debug!(path = %path.display(), %error, "a socket is gone already");
    }
}

// ---- what keeps an inlet going

/// Begins to look after the inlets that shall be.
pub(super) fn resume(node: &Arc<Node>) {
    for row in node.desired().inlets {
        if lock(&node.portals.inlets).contains_key(&row.number) {
            continue;
        }
        match read_route(&row.route) {
            Ok(route) => begin(node, row, &route),
            // It was read when it was stored.
            Err(error) => tracing::error!(inlet = row.alias, %error, "a stored route is none"),
        }
    }
}

fn begin(node: &Arc<Node>, row: InletRow, route: &Route) {
    let pause_max = match row.retry_wait_ms {
        0 => sessions::PAUSE_MAX,
        pause => sessions::PAUSE_MAX.min(Duration::from_millis(pause.into())),
    };
    let plan = sessions::Plan {
        authorized: row.authorized.clone(),
        on_the_way: row.on_the_way.clone(),
        own: row.identity,
        peer: row.peer,
        pause_max,
        ..sessions::Plan::to(row.session.clone(), route)
    };
    let session = sessions::start(node, plan);
    let (tell, shown) = watch::channel(Shown::default());
    let again = Arc::new(Notify::new());
    let follows = follow(Arc::downgrade(node), row.clone(), route.clone(), session.watch(), again.clone(), tell);
    let task = tokio::spawn(follows).abort_handle();
    let number = row.number;
    lock(&node.portals.inlets).insert(number, Inlet { row, session, shown, again, unanswered: None, task });
}

/// Tells the engine where the connections of an inlet go, whenever that changes.
async fn follow(
    node: Weak<Node>,
    row: InletRow,
    route: Route,
    mut session: watch::Receiver<State>,
    again: Arc<Notify>,
    tell: watch::Sender<Shown>,
) {
    let Some(outlet) = route.addresses(0).pop() else { return };
    let mut peer = row.peer;
    loop {
        let state = session.borrow_and_update().clone();
        let open = match &state {
            State::Up(up) => Some(up.clone()),
            State::Down { .. } | State::Stopped { .. } => None,
        };
        {
            let Some(node) = node.upgrade() else { return };
            let engine = node.engine_now();
            let shown = match state {
                State::Up(up) => {
                    if peer.is_none() && up.peer.is_some() {
                        peer = up.peer;
                    }
                    if let Some(met) = up.peer.filter(|_| row.peer.is_none()) {
                        remember(&node, &row, &met).await;
                    }
                    let way = [&up.way[..], std::slice::from_ref(&outlet)].concat();
                    let routed = match &engine {
                        Some(engine) => set_way(&engine.link, &row, Some(&way)).await,
                        None => Err(CommandError::Away),
                    };
                    match routed {
                        Ok(()) => Shown { up: true, asked: false, why: None, peer },
                        Err(error) => {
                            tracing::warn!(inlet = row.alias, %error, "the engine does not take the way of an inlet");
                            let why = node.command_failed("send connections along the way", error);
                            Shown { up: false, asked: false, why: Some(why), peer }
                        }
                    }
                }
                State::Down { .. } | State::Stopped { .. } => {
                    if let Some(engine) = &engine
                        && let Err(error) = set_way(&engine.link, &row, None).await
                    {
                        // One that does not listen is not there; a new engine's inlets have no way at first.
                        tracing::debug!(inlet = row.alias, %error, "the way of an inlet stays as it is");
                    }
                    let why = match state {
                        State::Stopped { why } => Some(why),
                        State::Down { why } => why,
                        State::Up(_) => None,
                    };
                    Shown { up: false, asked: false, why, peer }
                }
            };
            tell.send_replace(shown);
        }
        let asked = async {
            if let Some(open) = open {
                look_for_outlet(&node, &row, &route, &open, &outlet).await;
                tell.send_modify(|shown| shown.asked = true);
            }
            // There is nothing else to do until something changes.
            std::future::pending::<()>().await
        };
        tokio::select! {
            changed = session.changed() => match changed {
                Ok(()) => {}
                Err(_) => return,
            },
            () = again.notified() => {}
            () = asked => {}
        }
    }
}

/// Notes when the outlet of an inlet is not at the end of its way: it may have another name, or come later.
async fn look_for_outlet(node: &Weak<Node>, row: &InletRow, route: &Route, open: &Up, outlet: &Address) {
    let Some(node) = node.upgrade() else { return };
    let Some(engine) = node.engine_now() else { return };
    let patience = Patience {
        deadline: Instant::now() + MISSING_LIMIT,
        timeout_ms: MISSING_LIMIT.as_millis() as u64,
        route: row.route.clone(),
    };
    let missing = sessions::missing(&node, &engine, open, outlet, &patience).await;
    // What failed before the end is for the session to see.
    let missing = missing.filter(|(_, left)| *left <= 1).map(|(reason, left)| {
        let sender = format!("the node {}", node.name());
        (Instant::now(), route.undelivered(reason, left, &sender).to_string())
    });
    if let Some((_, why)) = &missing {
        tracing::warn!(inlet = row.alias, to = row.route, why, "an inlet leads to no outlet");
    }
    if let Some(inlet) = lock(&node.portals.inlets).get_mut(&row.number) {
        inlet.unanswered = missing;
    }
}

/// Stores who was met at the other end, who must be met again from now on.
async fn remember(node: &Arc<Node>, row: &InletRow, peer: &Identifier) {
    loop {
        let mut store = node.store().await;
        if store.is_changing() {
            // The change that makes the node is still open, and is not ours.
            drop(store);
            tokio::time::sleep(CHANGE_PAUSE).await;
            continue;
        }
        let Some(now) = node.desired().inlets.into_iter().find(|now| now.number == row.number) else { return };
        if now.peer.is_some() {
            return;
        }
        let stored = store.begin().and_then(|()| store.set_inlet_peer(row.number, peer)).and_then(|()| store.commit());
        let stored = stored.and_then(|()| node.reload(&store));
        if let Err(error) = stored {
            tracing::error!(inlet = row.alias, %peer, %error, "who is at the other end of an inlet cannot be stored");
            store.roll_back();
        }
        return;
    }
}

/// A connection got no answer: the way may be gone, or the outlet.
pub(crate) fn on_unanswered(node: &Node, number: u32) {
    if let Some(inlet) = lock(&node.portals.inlets).get_mut(&number) {
        let shown = inlet.unanswered.take().filter(|(when, _)| when.elapsed() < UNANSWERED_SHOWN);
        if shown.is_none() {
            tracing::warn!(inlet = inlet.row.alias, to = inlet.row.route, "an outlet did not answer a connection");
        }
        let why = shown.map(|(_, why)| why);
        let why = why.unwrap_or_else(|| "the outlet did not answer a connection: it may not exist".to_owned());
        inlet.unanswered = Some((Instant::now(), why));
        inlet.session.check();
    }
}

// ---- what was asked for

fn read_route(text: &str) -> Result<Route, Error> {
    let multiaddr: MultiAddr = text.parse().map_err(|error: ockam_wire::MultiAddrError| Error::BadArgument {
        argument: "to".into(),
        value: crate::text::escape(text.as_bytes(), 300),
        why: format!("is not a route: {error}"),
        fix: "Write a route like /ip4/127.0.0.1/tcp/6002/secure/api/service/outlet.".into(),
    })?;
    Route::new(&multiaddr, "to")
}

fn milliseconds(argument: &str, value: u64) -> Result<u32, Error> {
    u32::try_from(value).ok().filter(|_| value <= TIMEOUT_MS_MAX).ok_or_else(|| Error::BadArgument {
        argument: argument.into(),
        value: value.to_string(),
        why: "is longer than a day".into(),
        fix: format!("Use 0 to {TIMEOUT_MS_MAX} milliseconds."),
    })
}

fn check_alias(alias: String) -> Result<String, Error> {
    let why = if alias.is_empty() {
        "is empty"
    } else if alias.len() > ALIAS_BYTES_MAX {
        "is longer than 255 bytes"
    } else if alias.contains(['/', ':', '\\']) || alias.chars().any(|it| it.is_control() || it.is_whitespace()) {
        "has characters that a name cannot have"
    } else {
        return Ok(alias);
    };
    Err(Error::BadArgument {
        argument: "alias".into(),
        value: crate::text::escape(alias.as_bytes(), ALIAS_BYTES_MAX),
        why: why.into(),
        fix: "Use up to 255 letters, digits and other characters, but no space, '/', ':' and '\\'.".into(),
    })
}
