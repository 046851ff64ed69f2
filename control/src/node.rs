//! A node: what it shall be (its store), what it is (its engine), and the changes that keep both the same.
//!
//! A change is written, applied by the engine, and only then made durable and acknowledged. Who starts, restarts or
//! adopts an engine brings it to the stored state by [`Node::reconcile`]; changes and reconciling take turns by the lock
//! of the store.

use crate::api::Service;
use crate::engine_link::cookie::{Cookie, CookieKey};
use crate::engine_link::{CommandError, Dump, DumpedLink, EngineLink, EngineReady};
use crate::error::{Attempt, AttemptFailure, Error};
use crate::home::NodeDir;
use crate::messages::Waiting;
use crate::resolve::bind_listener;
use crate::store::node::{CONSUMERS_MAX, LISTENERS_MAX, SERVICES_MAX};
use crate::store::{ListenerRow, NodeStore};
use crate::supervisor::EngineProcess;
use ockam_engine_abi::{Command, FLOW_CONTROL_DIALED, LinkId, Notice, Refusal, TransitRule};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, watch};

/// How long a request waits for an engine that is being started again.
const ENGINE_WAIT_LIMIT: Duration = Duration::from_secs(5);

/// Names that are looked up for links at the same time; further ones do not resolve.
const LOOKUPS_MAX: usize = 32;

/// An engine that runs, and how to talk to it.
pub(crate) struct Engine {
    pub(crate) link: EngineLink,
    pub(crate) ready: EngineReady,
    /// The memfd of the counters.
    pub(crate) counters: OwnedFd,
    pub(crate) process: EngineProcess,
    /// When it said how long it runs.
    pub(crate) met: Instant,
}

impl Engine {
    pub(crate) fn uptime_s(&self) -> u64 {
        self.ready.uptime_s + self.met.elapsed().as_secs()
    }
}

/// What the node shall be, read from its store after each change.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Desired {
    /// In the order of their creation.
    pub(crate) listeners: Vec<ListenerRow>,
    pub(crate) services: Vec<(String, Service)>,
    pub(crate) consumers: Vec<(u8, String)>,
    pub(crate) transit: Vec<TransitRule>,
}

impl Desired {
    fn load(store: &NodeStore) -> Result<Desired, Error> {
        Ok(Desired {
            listeners: store.listeners()?,
            services: store.services()?,
            consumers: store.consumers()?,
            transit: store.transit_rules()?,
        })
    }

    /// The flow controls that may reach the service at `address`, as the engine's mask.
    pub(crate) fn reachable(&self, address: &str, service: Service) -> u64 {
        let added = self.consumers.iter().filter(|(_, consumer)| consumer == address);
        added.fold(reachable_by_default(service), |mask, (bit, _)| mask | 1 << bit)
    }
}

/// `wire.md` A.7: every listener admits the services, those made later too; links that this node dialed may not use it
/// as a hop.
fn reachable_by_default(service: Service) -> u64 {
    match service {
        Service::Echo | Service::Uppercase => u64::MAX,
        Service::Hop => !(1 << FLOW_CONTROL_DIALED),
    }
}

/// A listening socket that control keeps, so that a new engine can take it over; or why there is none.
enum Kept {
    Socket(OwnedFd),
    Down(Error),
}

pub(crate) struct Node {
    pub(crate) dir: NodeDir,
    pub(crate) started: Instant,
    pub(crate) cookies: CookieKey,
    pub(crate) dialed_flow_control: String,
    pub(crate) waiting: Waiting,
    pub(crate) restarts: AtomicU32,
    store: tokio::sync::Mutex<NodeStore>,
    desired: Mutex<Desired>,
    /// By the bit of the listener.
    kept: Mutex<BTreeMap<u8, Kept>>,
    engine: watch::Sender<Option<Arc<Engine>>>,
    lookups: Arc<Semaphore>,
}

impl Node {
    pub(crate) fn new(dir: NodeDir, store: NodeStore) -> Result<Arc<Node>, Error> {
        Ok(Arc::new(Node {
            dir,
            started: Instant::now(),
            cookies: CookieKey::new(store.cookie_key()?),
            dialed_flow_control: store.dialed_flow_control()?,
            waiting: Waiting::default(),
            restarts: AtomicU32::new(0),
            desired: Mutex::new(Desired::load(&store)?),
            store: tokio::sync::Mutex::new(store),
            kept: Mutex::default(),
            engine: watch::Sender::new(None),
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
        }))
    }

    pub(crate) fn name(&self) -> String {
        self.dir.name().to_string()
    }

    pub(crate) fn desired(&self) -> Desired {
        lock(&self.desired).clone()
    }

    pub(crate) async fn store(&self) -> tokio::sync::MutexGuard<'_, NodeStore> {
        self.store.lock().await
    }

    /// A socket that was bound before the engine came.
    pub(crate) fn keep(&self, bit: u8, socket: OwnedFd) {
        lock(&self.kept).insert(bit, Kept::Socket(socket));
    }

    /// Why the listener is not up.
    pub(crate) fn listener_error(&self, bit: u8) -> Option<Error> {
        match lock(&self.kept).get(&bit) {
            Some(Kept::Socket(_)) => None,
            Some(Kept::Down(error)) => Some(error.clone()),
            None => Some(Error::EngineAway { node: self.name() }),
        }
    }

    // ---- the engine

    /// The engine, at once or not at all.
    pub(crate) fn engine_now(&self) -> Option<Arc<Engine>> {
        self.engine.borrow().clone()
    }

    /// The engine, after a moment if it is being started again.
    pub(crate) async fn engine(&self) -> Result<Arc<Engine>, Error> {
        let mut watched = self.engine.subscribe();
        let there = tokio::time::timeout(ENGINE_WAIT_LIMIT, watched.wait_for(Option::is_some)).await;
        match there {
            Ok(Ok(engine)) => Ok(engine.clone().expect("it was waited for")),
            _ => Err(Error::EngineAway { node: self.name() }),
        }
    }

    pub(crate) fn set_engine(&self, engine: Option<Arc<Engine>>) {
        self.engine.send_replace(engine);
    }

    pub(crate) fn command_failed(&self, what: &'static str, error: CommandError) -> Error {
        match error {
            CommandError::Away => Error::EngineAway { node: self.name() },
            refused @ CommandError::Refused { .. } => Error::EngineRefused { what, why: refused.to_string() },
        }
    }

    /// Brings an engine, new or adopted, to what the store says. `has` is what it has already.
    ///
    /// # Errors
    /// The first listener cannot listen, the engine refuses or ends. Listeners after the first are noted as down.
    pub(crate) async fn reconcile(&self, link: &EngineLink, has: Dump) -> Result<(), Error> {
        let store = self.store.lock().await;
        let desired = Desired::load(&store)?;
        self.reconcile_listeners(link, has.listeners, &desired).await?;
        self.reconcile_addresses(link, &has.addresses, &desired).await?;
        let rules = desired.transit.clone();
        let set = link.apply(|request| Command::SetTransit { request, rules }).await;
        set.map_err(|error| self.command_failed("set the transit rules", error))?;
        for left in has.links.iter().filter(|left| self.cookies.open(&left.cookie) == Some(Cookie::Message)) {
            link.close(left.link).await;
        }
        *lock(&self.desired) = desired;
        Ok(())
    }

    async fn reconcile_listeners(
        &self,
        link: &EngineLink,
        has: Vec<crate::engine_link::DumpedListener>,
        desired: &Desired,
    ) -> Result<(), Error> {
        let mut there = BTreeSet::new();
        for found in has {
            let row = desired.listeners.iter().find(|row| u32::from(row.bit) == found.listener);
            let cookie = self.cookies.open(&found.cookie);
            match (row, found.socket) {
                (Some(row), Some(socket))
                    if row.address == found.local
                        && row.bit == found.flow_control
                        && cookie == Some(Cookie::Listener { flow_control: row.flow_control.clone() }) =>
                {
                    self.keep(row.bit, socket);
                    there.insert(row.bit);
                }
                _ => {
                    let listener = found.listener;
                    tracing::warn!(listener, local = %found.local, "removing a listener that this node does not have");
                    let removed = link.apply(|request| Command::RemoveListener { request, listener }).await;
                    removed.map_err(|error| self.command_failed("remove a listener", error))?;
                }
            }
        }
        for (index, row) in desired.listeners.iter().enumerate().filter(|(_, row)| !there.contains(&row.bit)) {
            match self.hand_over(link, row).await {
                Err(error @ (Error::EngineAway { .. } | Error::EngineRefused { .. })) => return Err(error),
                // Without its own listener a node is not what was asked for; the others come up when they can.
                Err(error) if index == 0 && self.engine_now().is_none() && there.is_empty() => return Err(error),
                Err(error) => tracing::warn!(address = %row.address, %error, "a listener is down"),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Gives a listener's socket to the engine: the one that is kept, or a new one.
    async fn hand_over(&self, link: &EngineLink, row: &ListenerRow) -> Result<(), Error> {
        let kept = match lock(&self.kept).get(&row.bit) {
            Some(Kept::Socket(socket)) => Some(socket.try_clone()),
            _ => None,
        };
        let socket = match kept {
            Some(cloned) => cloned.map_err(|error| Error::ListenFailed {
                address: row.address,
                errno: error.raw_os_error().unwrap_or(0),
            })?,
            None => match bind_listener(row.address) {
                Ok((socket, _)) => socket,
                Err(error) => {
                    lock(&self.kept).insert(row.bit, Kept::Down(error.clone()));
                    return Err(error);
                }
            },
        };
        let added = self.add_listener(link, row, &socket).await;
        self.keep(row.bit, socket);
        added.map_err(|error| self.command_failed("listen", error))
    }

    async fn add_listener(&self, link: &EngineLink, row: &ListenerRow, socket: &OwnedFd) -> Result<(), CommandError> {
        let cookie = self.cookies.seal(&Cookie::Listener { flow_control: row.flow_control.clone() });
        let (listener, flow_control) = (u32::from(row.bit), row.bit);
        link.apply_with(socket.as_fd(), |request| Command::AddListener {
            request,
            listener,
            flow_control,
            cookie: cookie.into(),
        })
        .await
    }

    async fn reconcile_addresses(
        &self,
        link: &EngineLink,
        has: &[crate::engine_link::DumpedAddress],
        desired: &Desired,
    ) -> Result<(), Error> {
        for found in has {
            let is_desired = desired.services.iter().any(|(address, _)| address.as_bytes() == found.address);
            if !is_desired {
                let cleared = link
                    .apply(|request| Command::ClearAddress { request, address: found.address.clone().into() })
                    .await;
                cleared.map_err(|error| self.command_failed("clear an address", error))?;
            }
        }
        for (address, service) in &desired.services {
            let reachable = desired.reachable(address, *service);
            let is_there = has.iter().any(|found| {
                found.address == address.as_bytes()
                    && found.target == service.target()
                    && found.reachable == reachable
                    && self.cookies.open(&found.cookie) == Some(Cookie::Service)
            });
            if !is_there {
                let set = self.set_service(link, address, *service, reachable).await;
                set.map_err(|error| self.command_failed("set an address", error))?;
            }
        }
        Ok(())
    }

    async fn set_service(
        &self,
        link: &EngineLink,
        address: &str,
        service: Service,
        reachable: u64,
    ) -> Result<(), CommandError> {
        let cookie = self.cookies.seal(&Cookie::Service);
        link.apply(|request| Command::SetAddress {
            request,
            address: address.as_bytes().to_vec().into(),
            target: service.target(),
            reachable,
            cookie: cookie.into(),
        })
        .await
    }

    /// Tries again to bring up listeners that are down. Says whether all are up.
    pub(crate) async fn retry_listeners(&self) -> bool {
        let _store = self.store.lock().await;
        let Some(engine) = self.engine_now() else { return false };
        let mut all_up = true;
        for row in self.desired().listeners {
            if matches!(lock(&self.kept).get(&row.bit), Some(Kept::Socket(_))) {
                continue;
            }
            match self.hand_over(&engine.link, &row).await {
                Ok(()) => tracing::info!(address = %row.address, "a listener is up again"),
                Err(error) => {
                    tracing::debug!(address = %row.address, %error, "a listener is still down");
                    all_up = false;
                }
            }
        }
        all_up
    }

    pub(crate) fn has_listener_down(&self) -> bool {
        lock(&self.kept).values().any(|kept| matches!(kept, Kept::Down(_)))
    }

    // ---- changes

    /// Writes a change, lets the engine apply it, then makes it durable. When the engine refuses, nothing is changed; when
    /// it cannot be made durable, `undo` takes it back from the engine.
    async fn change(
        &self,
        store: &mut NodeStore,
        what: &'static str,
        write: impl FnOnce(&mut NodeStore) -> Result<(), Error> + Send,
        apply: impl Future<Output = Result<(), CommandError>> + Send,
        undo: impl Future<Output = Result<(), CommandError>> + Send,
    ) -> Result<(), Error> {
        store.begin()?;
        if let Err(error) = write(store) {
            store.roll_back();
            return Err(error);
        }
        if let Err(error) = apply.await {
            store.roll_back();
            return Err(self.command_failed(what, error));
        }
        if let Err(error) = store.commit() {
            if let Err(refused) = undo.await {
                tracing::error!(what, error = %refused, "the engine keeps a change that could not be stored");
            }
            return Err(error);
        }
        *lock(&self.desired) = Desired::load(store)?;
        Ok(())
    }

    /// Makes a listener. Its port is chosen now if it is 0.
    ///
    /// # Errors
    /// [`Error::ListenerExists`], [`Error::Limit`], those of [`bind_listener`], of the store and the engine.
    pub(crate) async fn create_listener(&self, address: SocketAddr) -> Result<ListenerRow, Error> {
        let engine = self.engine().await?;
        let mut store = self.store.lock().await;
        let desired = self.desired();
        if desired.listeners.iter().any(|row| row.address == address) {
            return Err(Error::ListenerExists { node: self.name(), address: address.to_string() });
        }
        // Links of a listener that is gone keep its bit: a new listener's rights must not become theirs.
        let links = engine.link.dump().await.map_err(|error| self.command_failed("say what it has", error))?.links;
        let in_use = links.iter().fold(0, |mask, link| mask | 1_u64 << (link.flow_control % 64));
        let limit = Error::Limit { node: self.name(), what: "TCP listeners", limit: LISTENERS_MAX };
        let bit = store.free_bit(in_use)?.ok_or(limit)?;
        let (socket, address) = bind_listener(address)?;
        let row = ListenerRow { bit, address, flow_control: crate::random::hex_id() };
        self.change(
            &mut store,
            "listen",
            |store| store.add_listener(&row),
            self.add_listener(&engine.link, &row, &socket),
            engine.link.apply(|request| Command::RemoveListener { request, listener: u32::from(row.bit) }),
        )
        .await?;
        self.keep(bit, socket);
        Ok(row)
    }

    /// Removes a listener; links that it accepted stay.
    ///
    /// # Errors
    /// Those of the store and the engine.
    pub(crate) async fn delete_listener(&self, row: &ListenerRow) -> Result<(), Error> {
        let engine = self.engine().await?;
        let mut store = self.store.lock().await;
        if !self.desired().listeners.contains(row) {
            return Err(self.no_such_listener(&row.address.to_string()));
        }
        let kept = match lock(&self.kept).get(&row.bit) {
            Some(Kept::Socket(socket)) => socket.try_clone().ok(),
            _ => None,
        };
        let remove = async {
            match engine.link.apply(|request| Command::RemoveListener { request, listener: row.bit.into() }).await {
                // One that is down was never there.
                Err(CommandError::Refused { why: Refusal::Unknown, .. }) => Ok(()),
                removed => removed,
            }
        };
        let undo = async {
            match &kept {
                Some(socket) => self.add_listener(&engine.link, row, socket).await,
                None => Ok(()),
            }
        };
        self.change(&mut store, "stop listening", |store| store.remove_listener(row.bit), remove, undo).await?;
        lock(&self.kept).remove(&row.bit);
        Ok(())
    }

    /// The listener with this address or flow-control id.
    ///
    /// # Errors
    /// [`Error::NoSuchThing`].
    pub(crate) fn listener(&self, id: &str) -> Result<ListenerRow, Error> {
        let address: Option<SocketAddr> = id.parse().ok();
        let matches = |row: &ListenerRow| Some(row.address) == address || row.flow_control.eq_ignore_ascii_case(id);
        self.desired().listeners.into_iter().find(matches).ok_or_else(|| self.no_such_listener(id))
    }

    fn no_such_listener(&self, id: &str) -> Error {
        self.no_such("TCP listener", id, "ockam tcp-listener list")
    }

    pub(crate) fn no_such(&self, what: &'static str, id: &str, list: &'static str) -> Error {
        Error::NoSuchThing { node: self.name(), what, id: crate::text::escape(id.as_bytes(), 300), list }
    }

    /// Starts a service.
    ///
    /// # Errors
    /// [`Error::AddressTaken`], [`Error::Limit`], [`Error::BadArgument`], those of the store and the engine.
    pub(crate) async fn start_service(&self, service: Service, address: &str) -> Result<(), Error> {
        check_local_address(address)?;
        let engine = self.engine().await?;
        let mut store = self.store.lock().await;
        let desired = self.desired();
        if let Some((_, by)) = desired.services.iter().find(|(taken, _)| taken == address) {
            let by = format!("the service {}", by.name());
            return Err(Error::AddressTaken { node: self.name(), address: address.into(), by });
        }
        if desired.services.len() >= SERVICES_MAX {
            return Err(Error::Limit { node: self.name(), what: "services", limit: SERVICES_MAX });
        }
        self.check_not_a_link(&engine, address).await?;
        let reachable = desired.reachable(address, service);
        self.change(
            &mut store,
            "start a service",
            |store| store.add_service(address, service),
            self.set_service(&engine.link, address, service, reachable),
            engine.link.apply(|request| Command::ClearAddress { request, address: address.as_bytes().to_vec().into() }),
        )
        .await
    }

    /// Lets the links of a flow control reach an address.
    ///
    /// # Errors
    /// [`Error::NoSuchThing`], [`Error::Limit`], [`Error::BadArgument`], those of the store and the engine.
    pub(crate) async fn add_consumer(&self, flow_control: &str, address: &str) -> Result<(), Error> {
        check_local_address(address)?;
        let engine = self.engine().await?;
        let mut store = self.store.lock().await;
        let desired = self.desired();
        let bit = if flow_control.eq_ignore_ascii_case(&self.dialed_flow_control) {
            FLOW_CONTROL_DIALED
        } else {
            let row = desired.listeners.iter().find(|row| row.flow_control.eq_ignore_ascii_case(flow_control));
            row.ok_or_else(|| self.no_such("flow control", flow_control, "ockam tcp-listener list"))?.bit
        };
        if desired.consumers.len() >= CONSUMERS_MAX {
            return Err(Error::Limit { node: self.name(), what: "additional consumers", limit: CONSUMERS_MAX });
        }
        self.check_not_a_link(&engine, address).await?;
        let service = desired.services.iter().find(|(taken, _)| taken == address).map(|(_, service)| *service);
        let set = |mask: u64| {
            let link = &engine.link;
            async move {
                match service {
                    Some(service) => self.set_service(link, address, service, mask).await,
                    // It takes effect when something gets the address.
                    None => Ok(()),
                }
            }
        };
        let before = service.map_or(0, |service| desired.reachable(address, service));
        let write = |store: &mut NodeStore| store.add_consumer(bit, address);
        self.change(&mut store, "admit a consumer", write, set(before | 1 << bit), set(before)).await
    }

    async fn check_not_a_link(&self, engine: &Engine, address: &str) -> Result<(), Error> {
        if !crate::text::is_hex_id(address) {
            return Ok(());
        }
        let dump = engine.link.dump().await.map_err(|error| self.command_failed("say what it has", error))?;
        if dump.links.iter().any(|link| link.address == address.as_bytes()) {
            return Err(Error::BadArgument {
                argument: "address".into(),
                value: address.into(),
                why: "is the address of a TCP connection".into(),
                fix: "Let peers forward by a hop service in front of it: `ockam service start hop`.".into(),
            });
        }
        Ok(())
    }

    /// Opens a link to the first address that is a node.
    ///
    /// # Errors
    /// [`Error::ConnectFailed`] with what each address said; [`Error::EngineRefused`], [`Error::EngineAway`].
    pub(crate) async fn dial(
        &self,
        engine: &Engine,
        target: &str,
        addresses: &[SocketAddr],
        cookie: &Cookie,
    ) -> Result<crate::engine_link::DialedLink, Error> {
        let mut attempts = Vec::new();
        for &address in addresses {
            match engine.link.dial(address, self.cookies.seal(cookie)).await {
                Ok(link) => return Ok(link),
                Err(error) => {
                    let failure = match error {
                        CommandError::Refused { why: Refusal::ConnectFailed, errno } => AttemptFailure::Errno(errno),
                        CommandError::Refused { why: Refusal::ConnectTimedOut, .. } => AttemptFailure::TimedOut,
                        CommandError::Refused { why: Refusal::NotANode, .. } => AttemptFailure::NotANode,
                        other => return Err(self.command_failed("connect", other)),
                    };
                    attempts.push(Attempt { address, failure });
                }
            }
        }
        Err(Error::ConnectFailed { target: target.into(), attempts })
    }

    /// The link with this worker address or peer address.
    ///
    /// # Errors
    /// [`Error::NoSuchThing`]; [`Error::BadArgument`] when a peer address means more than one.
    pub(crate) async fn connection(&self, engine: &Engine, id: &str) -> Result<DumpedLink, Error> {
        let dump = engine.link.dump().await.map_err(|error| self.command_failed("say what it has", error))?;
        let name = ["/worker/", "/service/", "0#"].iter().find_map(|front| id.strip_prefix(front)).unwrap_or(id);
        let peer: Option<SocketAddr> = id.parse().ok();
        let mut found =
            dump.links.into_iter().filter(|link| link.address == name.as_bytes() || Some(link.peer) == peer);
        let first = found.next().ok_or_else(|| self.no_such("TCP connection", id, "ockam tcp-connection list"))?;
        if found.next().is_some() {
            return Err(Error::BadArgument {
                argument: "the TCP connection".into(),
                value: id.into(),
                why: "is the peer of more than one".into(),
                fix: "Name it by its /worker/ address; see `ockam tcp-connection list`.".into(),
            });
        }
        Ok(first)
    }

    // ---- what the engine says unasked

    pub(crate) fn on_notice(&self, link: &EngineLink, notice: Notice) {
        match notice {
            Notice::Punt { message, .. } => self.waiting.on_punt(&message.0),
            Notice::Undelivered { request, reason, left } => self.waiting.on_undelivered(request, reason, left),
            Notice::LinkDown { link, reason } => {
                tracing::info!(?link, reason = reason.name(), "a connection closed");
                self.waiting.on_link_down(link, reason);
            }
            Notice::Resolve { link: asks, host, port } => self.resolve(link.clone(), asks, host, port),
            other => tracing::debug!(?other, "a notice that nobody waits for"),
        }
    }

    /// Looks up a name that a route brought. Peers choose these names: their number is bounded, nothing is logged loudly.
    fn resolve(&self, engine: EngineLink, link: LinkId, host: String, port: u16) {
        let permit = self.lookups.clone().try_acquire_owned();
        tokio::spawn(async move {
            let addresses = match permit {
                Ok(_permit) => crate::resolve::lookup(&host, port).await.unwrap_or_else(|error| {
                    tracing::debug!(%error, "a name in a route does not resolve");
                    Vec::new()
                }),
                Err(_) => Vec::new(),
            };
            engine.resolved(link, addresses).await;
        });
    }

    pub(crate) fn count_restart(&self) -> u32 {
        self.restarts.fetch_add(1, Ordering::Relaxed) + 1
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An address that can be typed in a route and shown in a list.
fn check_local_address(address: &str) -> Result<(), Error> {
    let why = if address.is_empty() {
        "is empty"
    } else if address.len() > 255 {
        "is longer than 255 bytes"
    } else if address.contains(['/', '#', '\\']) || address.chars().any(char::is_control) {
        "has characters that an address cannot have"
    } else {
        return Ok(());
    };
    Err(Error::BadArgument {
        argument: "address".into(),
        value: crate::text::escape(address.as_bytes(), 255),
        why: why.into(),
        fix: "Use up to 255 letters, digits and other characters, but no '/', '#' and '\\'.".into(),
    })
}
