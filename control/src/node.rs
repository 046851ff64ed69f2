//! A node: what it shall be (its store), what it is (its engine), and the changes that keep both the same.
//!
//! A change is written, applied by the engine, and only then made durable and acknowledged. Who starts, restarts or
//! adopts an engine brings it to the stored state by [`Node::reconcile`]; changes and reconciling take turns by the lock
//! of the store.

use crate::api::Service;
use crate::authority::{self, Authority};
use crate::channels::Channels;
use crate::engine_link::cookie::{Cookie, CookieKey};
use crate::engine_link::{CommandError, Dump, DumpedLink, EngineLink, EngineReady};
use crate::error::{Attempt, AttemptFailure, Error};
use crate::home::NodeDir;
use crate::messages::Waiting;
use crate::portals::{Portals, inlets, outlets};
use crate::process::systemd::Sockets;
use crate::relays::Relays;
use crate::resolve::bind_listener;
use crate::sessions::Sessions;
use crate::store::node::{
    CHANNEL_LISTENERS_MAX, CHANNELS_MASK, CONSUMERS_MAX, FLOW_CONTROL_INITIATED, LISTENERS_MAX, SERVICES_MAX,
};
use crate::store::{
    AuthorityRow, ChannelListenerRow, ChannelRow, GuardRow, InletRow, ListenerRow, NodeStore, OutletRow, PolicyRow,
    RelayRow,
};
use crate::supervisor::EngineProcess;
use crate::trust::{self, Rules, Trust, service_type};
use ockam_crypto::Identifier;
use ockam_engine_abi::{CloseReason, Command, FLOW_CONTROL_DIALED, LinkId, Notice, Refusal, Target, TransitRule};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, watch};

/// How long a request waits for an engine that is being started again.
const ENGINE_WAIT_LIMIT: Duration = Duration::from_secs(5);

/// How long a port may still be held by a ring whose process is gone, and how often that is looked at.
const BUSY_LIMIT: Duration = Duration::from_secs(1);
const BUSY_PAUSE: Duration = Duration::from_millis(10);

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
    /// In the order of their creation.
    pub(crate) channel_listeners: Vec<Arc<ChannelListenerRow>>,
    /// In the order of their creation.
    pub(crate) channels: Vec<ChannelRow>,
    /// In the order of their creation.
    pub(crate) outlets: Vec<OutletRow>,
    /// In the order of their creation.
    pub(crate) inlets: Vec<InletRow>,
    /// In the order of their creation.
    pub(crate) relays: Vec<RelayRow>,
    /// Whether the node is an authority.
    pub(crate) is_authority: bool,
    /// In the order of their creation.
    pub(crate) policies: Vec<PolicyRow>,
    /// By number.
    pub(crate) guards: Vec<GuardRow>,
    pub(crate) authority: Option<Arc<AuthorityRow>>,
}

impl Desired {
    fn load(store: &NodeStore) -> Result<Desired, Error> {
        Ok(Desired {
            listeners: store.listeners()?,
            services: store.services()?,
            consumers: store.consumers()?,
            transit: store.transit_rules()?,
            channel_listeners: store.channel_listeners()?.into_iter().map(Arc::new).collect(),
            channels: store.channels()?,
            outlets: store.outlets()?,
            inlets: store.inlets()?,
            relays: store.relays()?,
            is_authority: store.authority_settings()?.is_some(),
            policies: store.policies()?,
            guards: store.guards()?,
            authority: store.trusted_authority()?.map(Arc::new),
        })
    }

    /// The names of the sessions that shall be.
    pub(crate) fn sessions(&self) -> BTreeSet<&str> {
        let channels = self.channels.iter().map(|row| row.address.as_str());
        let inlets = self.inlets.iter().map(|row| row.session.as_str());
        let relays = self.relays.iter().map(|row| row.session.as_str());
        channels.chain(inlets).chain(relays).chain(self.authority.iter().map(|row| row.session.as_str())).collect()
    }

    /// The flow controls that may reach the service at `address`, as the engine's mask.
    pub(crate) fn reachable(&self, address: &str, service: Service) -> u64 {
        let by_default = reachable_by_default(service);
        // Strangers reach nothing of an authority but its listener for secure channels.
        self.widened(address, if self.is_authority { by_default & authority::REACHABLE } else { by_default })
    }

    /// `mask`, and the flow controls that were added for `address`.
    pub(crate) fn widened(&self, address: &str, mask: u64) -> u64 {
        let added = self.consumers.iter().filter(|(_, consumer)| consumer == address);
        added.fold(mask, |mask, (bit, _)| mask | 1 << bit)
    }
}

/// `wire.md` A.7: every listener admits the services, those made later too; what comes over links that this node dialed
/// or out of secure channels may not use it as a hop.
fn reachable_by_default(service: Service) -> u64 {
    match service {
        Service::Echo | Service::Uppercase => u64::MAX,
        Service::Hop => !(1 << FLOW_CONTROL_DIALED | CHANNELS_MASK),
    }
}

/// A listening socket that control keeps, so that a new engine can take it over; or why there is none.
pub(crate) enum Kept {
    Socket {
        socket: OwnedFd,
        /// False for one of the service manager, which goes on with it when this node ends.
        ours: bool,
    },
    Down(Error),
}

impl Kept {
    pub(crate) fn is_ours(&self) -> bool {
        matches!(self, Kept::Socket { ours: true, .. })
    }

    /// Stops listening. A ring lets go of its sockets only some time after it was told to, or after its process ended, and
    /// until then a socket that is merely closed here would keep its port busy.
    pub(crate) fn release(&self) {
        if let Kept::Socket { socket, ours: true } = self
            && let Err(error) = rustix::net::shutdown(socket, rustix::net::Shutdown::Both)
        {
            tracing::debug!(%error, "a listener was shut down already");
        }
    }
}

pub(crate) struct Node {
    pub(crate) dir: NodeDir,
    pub(crate) started: Instant,
    pub(crate) cookies: CookieKey,
    pub(crate) dialed_flow_control: String,
    pub(crate) initiated_flow_control: String,
    pub(crate) waiting: Waiting,
    pub(crate) channels: Channels,
    pub(crate) sessions: Sessions,
    pub(crate) relays: Relays,
    pub(crate) portals: Portals,
    /// Present when the node is one.
    pub(crate) authority: Option<Authority>,
    pub(crate) trust: Trust,
    pub(crate) restarts: AtomicU32,
    /// Listening sockets that the service manager opened.
    pub(crate) activated: Sockets,
    /// What its file says is being added.
    pub(crate) is_preparing: AtomicBool,
    store: tokio::sync::Mutex<NodeStore>,
    desired: Mutex<Desired>,
    /// By the number of the listener or the inlet.
    kept: Mutex<BTreeMap<u32, Kept>>,
    engine: watch::Sender<Option<Arc<Engine>>>,
    lookups: Arc<Semaphore>,
}

impl Node {
    pub(crate) fn new(dir: NodeDir, store: NodeStore, activated: Sockets) -> Result<Arc<Node>, Error> {
        let desired = Desired::load(&store)?;
        Ok(Arc::new(Node {
            trust: Trust::new(&store, &desired)?,
            channels: Channels::new(&dir),
            sessions: Sessions::default(),
            relays: Relays::default(),
            portals: Portals::default(),
            authority: store.authority_settings()?.map(|settings| Authority::new(&dir, settings)).transpose()?,
            dir,
            started: Instant::now(),
            cookies: CookieKey::new(store.cookie_key()?),
            dialed_flow_control: store.dialed_flow_control()?,
            initiated_flow_control: store.initiated_flow_control()?,
            waiting: Waiting::default(),
            restarts: AtomicU32::new(0),
            activated,
            is_preparing: AtomicBool::new(false),
            desired: Mutex::new(desired),
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

    /// What the store says has changed, and nothing in the engine depends on it.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) fn reload(&self, store: &NodeStore) -> Result<(), Error> {
        *lock(&self.desired) = Desired::load(store)?;
        Ok(())
    }

    /// The listener for secure channels with this address.
    pub(crate) fn channel_listener(&self, address: &str) -> Option<Arc<ChannelListenerRow>> {
        lock(&self.desired).channel_listeners.iter().find(|row| row.address == address).cloned()
    }

    /// A socket that was bound before the engine came.
    pub(crate) fn keep(&self, bit: u8, socket: OwnedFd) {
        let ours = !self.activated.is_passed(&socket);
        self.keep_as(bit.into(), Kept::Socket { socket, ours });
    }

    pub(crate) fn keep_as(&self, number: u32, kept: Kept) {
        lock(&self.kept).insert(number, kept);
    }

    /// A duplicate of the socket of a listener or an inlet that is up.
    pub(crate) fn kept_socket(&self, number: u32) -> Option<OwnedFd> {
        match lock(&self.kept).get(&number) {
            Some(Kept::Socket { socket, .. }) => socket.try_clone().ok(),
            _ => None,
        }
    }

    pub(crate) fn forget_kept(&self, number: u32) -> Option<Kept> {
        lock(&self.kept).remove(&number)
    }

    /// Why the listener or the inlet is not up.
    pub(crate) fn listener_error(&self, number: u32) -> Option<Error> {
        match lock(&self.kept).get(&number) {
            Some(Kept::Socket { .. }) => None,
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
        let lives = |engine: &Option<Arc<Engine>>| engine.as_ref().is_some_and(|engine| !engine.link.is_closed());
        let there = tokio::time::timeout(ENGINE_WAIT_LIMIT, watched.wait_for(lives)).await;
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
    /// The engine refuses or ends; on the node's start its first listener cannot listen. Other listeners that cannot are
    /// noted as down.
    pub(crate) async fn reconcile(self: &Arc<Self>, link: &EngineLink, has: Dump, is_start: bool) -> Result<(), Error> {
        let mut store = self.store.lock().await;
        let desired = self.settled(&mut store)?;
        let channel_links = self.channels.adopt(self, link, &has).await;
        let rules = Arc::new(Rules::new(&desired));
        let reconciled = self.trust.reconcile(self, link, rules).await;
        reconciled.map_err(|error| self.command_failed("set who may pass", error))?;
        let session_links = self.sessions.adopt(self, &has, &desired.sessions());
        self.relays.adopt(self, &desired, &has.addresses);
        self.relays.review(self, link).await;
        for left in &has.links {
            let is_over = match self.cookies.open(&left.cookie) {
                Some(Cookie::Message) => true,
                Some(Cookie::ChannelLink { .. }) => !channel_links.contains(&left.link),
                Some(Cookie::SessionLink { .. }) => !session_links.contains(&left.link),
                _ => false,
            };
            if is_over {
                link.close(left.link).await;
            }
        }
        // First what peers come for, then the doors: who waited for this engine shall find it all.
        self.reconcile_addresses(link, &has.addresses, &desired).await?;
        let services = self.set_relay_services(link, &desired, &has.addresses).await;
        services.map_err(|error| self.command_failed("set an address", error))?;
        if let Some(authority) = &self.authority {
            let services = authority.set_services(self, link, &desired, &has.addresses).await;
            services.map_err(|error| self.command_failed("set an address", error))?;
        }
        let set = self.set_transit(link, &desired).await;
        set.map_err(|error| self.command_failed("set the transit rules", error))?;
        self.reconcile_listeners(link, has.listeners, &desired, is_start).await?;
        inlets::reconcile(self, link, has.inlets, &desired.inlets, is_start).await?;
        *lock(&self.desired) = desired;
        Ok(())
    }

    /// What the store says, after each place has a guard that can have one.
    fn settled(&self, store: &mut NodeStore) -> Result<Desired, Error> {
        let mut desired = Desired::load(store)?;
        // The change that makes the node may be open.
        let is_ours = !store.is_changing();
        if is_ours {
            store.begin()?;
        }
        let settled = trust::settle(store, &mut desired, &self.name(), false);
        match settled {
            Ok(()) if is_ours => store.commit()?,
            Err(_) if is_ours => store.roll_back(),
            _ => {}
        }
        settled.map(|()| desired)
    }

    /// The rules by which addresses are dialed: those that the node was given, and those of policies.
    pub(crate) fn transit_rules(&self, desired: &Desired) -> Vec<TransitRule> {
        [desired.transit.clone(), self.trust.transit()].concat()
    }

    pub(crate) async fn set_transit(&self, link: &EngineLink, desired: &Desired) -> Result<(), CommandError> {
        let rules = self.transit_rules(desired);
        link.apply(|request| Command::SetTransit { request, rules }).await
    }

    async fn reconcile_listeners(
        &self,
        link: &EngineLink,
        has: Vec<crate::engine_link::DumpedListener>,
        desired: &Desired,
        is_start: bool,
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
            match self.hand_over(link, row, is_start).await {
                Err(error @ (Error::EngineAway { .. } | Error::EngineRefused { .. })) => return Err(error),
                // Without its own listener a node is not what was asked for; the others come up when they can.
                Err(error) if index == 0 && is_start => return Err(error),
                Err(error) => tracing::warn!(address = %row.address, %error, "a listener is down"),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Gives a listener's socket to the engine: the one that is kept, or a new one. The ring of an engine that was killed
    /// may hold the old one for a moment after its process is gone, which nothing announces: `wait` is for that.
    async fn hand_over(&self, link: &EngineLink, row: &ListenerRow, wait: bool) -> Result<(), Error> {
        let kept = match lock(&self.kept).get(&row.bit.into()) {
            Some(Kept::Socket { socket, .. }) => Some(socket.try_clone()),
            _ => None,
        };
        let socket = match kept {
            Some(cloned) => cloned.map_err(|error| Error::ListenFailed {
                address: row.address,
                errno: error.raw_os_error().unwrap_or(0),
            })?,
            None => match bind_within(row.address, if wait { BUSY_LIMIT } else { Duration::ZERO }).await {
                Ok(socket) => socket,
                Err(error) => {
                    self.keep_as(row.bit.into(), Kept::Down(error.clone()));
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
            let is_desired = desired.services.iter().any(|(address, _)| address.as_bytes() == found.address)
                || desired.channel_listeners.iter().any(|row| row.address.as_bytes() == found.address)
                || desired.outlets.iter().any(|row| row.address.as_bytes() == found.address)
                || self.relays.has_address(&found.address)
                || self.authority.as_ref().is_some_and(|authority| authority.has_address(&found.address));
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
                    && found.guard == self.trust.guard(service_type(*service), address)
                    && self.cookies.open(&found.cookie) == Some(Cookie::Service)
            });
            if !is_there {
                let set = self.set_service(link, address, *service, reachable).await;
                set.map_err(|error| self.command_failed("set an address", error))?;
            }
        }
        for row in &desired.channel_listeners {
            let cookie = Cookie::ChannelListener { flow_control: row.flow_control.clone() };
            let is_there = has.iter().any(|found| {
                found.address == row.address.as_bytes()
                    && found.target == Target::Control
                    && found.reachable == u64::MAX
                    && self.cookies.open(&found.cookie).as_ref() == Some(&cookie)
            });
            if !is_there {
                let set = self.set_channel_listener(link, row).await;
                set.map_err(|error| self.command_failed("set an address", error))?;
            }
        }
        let set = outlets::reconcile(self, link, &desired.outlets, has).await;
        set.map_err(|error| self.command_failed("set an outlet", error))
    }

    /// Every flow control reaches a listener for secure channels: who comes must show who it is.
    async fn set_channel_listener(&self, link: &EngineLink, row: &ChannelListenerRow) -> Result<(), CommandError> {
        let cookie = self.cookies.seal(&Cookie::ChannelListener { flow_control: row.flow_control.clone() });
        link.apply(|request| Command::SetAddress {
            request,
            address: row.address.as_bytes().to_vec().into(),
            target: Target::Control,
            reachable: u64::MAX,
            guard: None,
            cookie: cookie.into(),
        })
        .await
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
            guard: self.trust.guard(service_type(service), address),
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
            if self.listener_error(row.bit.into()).is_none() {
                continue;
            }
            match self.hand_over(&engine.link, &row, false).await {
                Ok(()) => tracing::info!(address = %row.address, "a listener is up again"),
                Err(error) => {
                    tracing::debug!(address = %row.address, %error, "a listener is still down");
                    all_up = false;
                }
            }
        }
        inlets::retry(self, &engine.link).await && all_up
    }

    /// Frees the ports of all listeners.
    pub(crate) fn release_listeners(&self) {
        inlets::release(self);
        std::mem::take(&mut *lock(&self.kept)).values().for_each(Kept::release);
    }

    pub(crate) fn has_listener_down(&self) -> bool {
        lock(&self.kept).values().any(|kept| matches!(kept, Kept::Down(_)))
    }

    // ---- changes

    /// Writes a change, lets the engine apply it, then makes it durable. When the engine refuses, nothing is changed; when
    /// it cannot be made durable, `undo` takes it back from the engine.
    pub(crate) async fn change(
        &self,
        store: &mut NodeStore,
        what: &'static str,
        write: impl FnOnce(&mut NodeStore) -> Result<(), Error> + Send,
        apply: impl Future<Output = Result<(), CommandError>> + Send,
        undo: impl Future<Output = Result<(), CommandError>> + Send,
    ) -> Result<(), Error> {
        store.begin()?;
        let written = write(store).and_then(|()| {
            let mut desired = Desired::load(store)?;
            trust::settle(store, &mut desired, &self.name(), true)?;
            Ok(desired)
        });
        let desired = match written {
            Ok(desired) => desired,
            Err(error) => {
                store.roll_back();
                return Err(error);
            }
        };
        // What is set has its guard by that.
        let rules = Arc::new(Rules::new(&desired));
        let before = self.trust.announce(&rules);
        let mut applied = apply.await;
        let is_set = applied.is_ok();
        if is_set && before.is_some() {
            applied = match self.engine_now() {
                Some(engine) => self.trust.put_in_force(self, &engine.link, rules).await,
                None => Err(CommandError::Away),
            };
        }
        let done = match applied {
            Ok(()) => store.commit(),
            Err(error) => {
                store.roll_back();
                Err(self.command_failed(what, error))
            }
        };
        if let Err(error) = done {
            if is_set {
                self.take_back(what, undo, before.clone()).await;
            }
            if let Some(before) = before {
                self.trust.retract(before);
            }
            return Err(error);
        }
        *lock(&self.desired) = desired;
        Ok(())
    }

    /// Takes a change back from the engine that could not be completed.
    async fn take_back(
        &self,
        what: &'static str,
        undo: impl Future<Output = Result<(), CommandError>> + Send,
        rules: Option<Arc<Rules>>,
    ) {
        let mut undone = Ok(());
        if let (Some(rules), Some(engine)) = (rules, self.engine_now()) {
            self.trust.announce(&rules);
            undone = self.trust.put_in_force(self, &engine.link, rules).await;
        }
        if let Err(refused) = undone.and(undo.await) {
            tracing::error!(what, error = %refused, "the engine keeps a change that could not be stored");
        }
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
        let kept = self.kept_socket(row.bit.into());
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
        if let Some(kept) = self.forget_kept(row.bit.into()) {
            kept.release();
        }
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
        self.check_free(&desired, address)?;
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

    pub(crate) fn check_free(&self, desired: &Desired, address: &str) -> Result<(), Error> {
        let service = desired.services.iter().find(|(taken, _)| taken == address);
        let by = if let Some((_, service)) = service {
            format!("the service {}", service.name())
        } else if desired.channel_listeners.iter().any(|row| row.address == address) {
            "a listener for secure channels".into()
        } else if self.channels.has_address(address) {
            "a secure channel".into()
        } else if desired.outlets.iter().any(|row| row.address == address) {
            "an outlet".into()
        } else if self.relays.has_address(address.as_bytes()) {
            "a relay, or a service that makes relays".into()
        } else if self.authority.as_ref().is_some_and(|authority| authority.has_address(address.as_bytes())) {
            "a service of the authority".into()
        } else {
            return Ok(());
        };
        Err(Error::AddressTaken { node: self.name(), address: address.into(), by })
    }

    /// Makes a listener for secure channels.
    ///
    /// # Errors
    /// [`Error::AddressTaken`], [`Error::Limit`], [`Error::BadArgument`], those of the store and the engine.
    pub(crate) async fn create_channel_listener(
        &self,
        address: &str,
        identity: Option<Identifier>,
        authorized: Vec<Identifier>,
    ) -> Result<ChannelListenerRow, Error> {
        check_local_address(address)?;
        let engine = self.engine().await?;
        let mut store = self.store.lock().await;
        self.check_free(&self.desired(), address)?;
        self.check_not_a_link(&engine, address).await?;
        // Channels of a listener that is gone keep its bit until they have ended.
        let dump = engine.link.dump().await.map_err(|error| self.command_failed("say what it has", error))?;
        let in_use = dump.channels.iter().fold(0, |mask, channel| mask | 1_u64 << (channel.flow_control % 64));
        let what = "listeners for secure channels";
        let limit = Error::Limit { node: self.name(), what, limit: CHANNEL_LISTENERS_MAX };
        let bit = store.free_channel_bit(in_use)?.ok_or(limit)?;
        let flow_control = crate::random::hex_id();
        let row = ChannelListenerRow { bit, address: address.into(), flow_control, identity, authorized };
        self.change(
            &mut store,
            "listen for secure channels",
            |store| store.add_channel_listener(&row),
            self.set_channel_listener(&engine.link, &row),
            engine.link.apply(|request| Command::ClearAddress { request, address: address.as_bytes().to_vec().into() }),
        )
        .await?;
        Ok(row)
    }

    /// Removes a listener for secure channels, and ends the channels that were opened there.
    ///
    /// # Errors
    /// [`Error::NoSuchThing`], those of the store and the engine.
    pub(crate) async fn delete_channel_listener(&self, address: &str) -> Result<(), Error> {
        let engine = self.engine().await?;
        let mut store = self.store.lock().await;
        let row = self.channel_listener_named(address)?;
        let clear = async {
            let address = row.address.as_bytes().to_vec().into();
            match engine.link.apply(|request| Command::ClearAddress { request, address }).await {
                Err(CommandError::Refused { why: Refusal::Unknown, .. }) => Ok(()),
                cleared => cleared,
            }
        };
        self.change(
            &mut store,
            "stop listening for secure channels",
            |store| store.remove_channel_listener(row.bit),
            clear,
            self.set_channel_listener(&engine.link, &row),
        )
        .await?;
        drop(store);
        self.channels.listeners_changed(self, &engine.link).await;
        Ok(())
    }

    /// The listener for secure channels with this address.
    ///
    /// # Errors
    /// [`Error::NoSuchThing`].
    pub(crate) fn channel_listener_named(&self, address: &str) -> Result<Arc<ChannelListenerRow>, Error> {
        let list = "ockam secure-channel-listener list";
        self.channel_listener(address).ok_or_else(|| self.no_such("listener for secure channels", address, list))
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
        } else if flow_control.eq_ignore_ascii_case(&self.initiated_flow_control) {
            FLOW_CONTROL_INITIATED
        } else {
            let links = desired.listeners.iter().map(|row| (&row.flow_control, row.bit));
            let channels = desired.channel_listeners.iter().map(|row| (&row.flow_control, row.bit));
            let found = links.chain(channels).find(|(id, _)| id.eq_ignore_ascii_case(flow_control));
            found.ok_or_else(|| self.no_such("flow control", flow_control, "ockam tcp-listener list"))?.1
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
                    None if crate::relays::SERVICES.contains(&address) => {
                        self.set_relay_service(link, address, mask).await
                    }
                    // It takes effect when something gets the address.
                    None => Ok(()),
                }
            }
        };
        let before = match service {
            Some(service) => desired.reachable(address, service),
            None => desired.widened(address, crate::relays::REACHABLE),
        };
        let write = |store: &mut NodeStore| store.add_consumer(bit, address);
        self.change(&mut store, "admit a consumer", write, set(before | 1 << bit), set(before)).await
    }

    pub(crate) async fn check_not_a_link(&self, engine: &Engine, address: &str) -> Result<(), Error> {
        if !crate::text::is_hex_id(address) {
            return Ok(());
        }
        if self.channels.has_address(address) {
            return Err(Error::BadArgument {
                argument: "address".into(),
                value: address.into(),
                why: "is the address of a secure channel".into(),
                fix: "Let peers forward by a hop service in front of it: `ockam service start hop`.".into(),
            });
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

    pub(crate) fn on_notice(self: &Arc<Self>, engine: &EngineLink, notice: Notice) {
        match notice {
            Notice::Punt { link, channel, message } => {
                let is_taken = self.channels.on_punt(self, engine, link, channel, &message.0)
                    || self.relays.on_punt(self, engine, link.is_some(), channel, &message.0)
                    || self.authority.as_ref().is_some_and(|it| it.on_punt(self, engine, channel, &message.0));
                if !is_taken {
                    self.waiting.on_punt(message.0);
                }
            }
            Notice::ChannelClosed { channel, reason } => {
                self.waiting.on_channel_closed(channel, reason);
                self.channels.on_closed(engine, channel, reason);
            }
            Notice::Undelivered { request, reason, left } => self.waiting.on_undelivered(request, reason, left),
            Notice::OutletFailed { address, errno } => outlets::on_failed(self, &address.0, errno),
            Notice::InletUnanswered { inlet } => inlets::on_unanswered(self, inlet),
            Notice::CredentialsShown { channel, text } => self.trust.on_shown(self, channel, text.0),
            Notice::RelayGone { address } => self.relays.on_gone(&address.0),
            Notice::LinkDown { link, reason } => {
                // Who dialed one in vain says so, if that is worth a word.
                if !matches!(reason, CloseReason::ByControl | CloseReason::DialFailed) {
                    tracing::info!(?link, reason = reason.name(), "a connection closed");
                }
                self.waiting.on_link_down(link, reason);
                self.sessions.on_link_down(link, reason);
            }
            Notice::Resolve { link: asks, host, port } => self.resolve(engine.clone(), asks, host, port),
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

async fn bind_within(address: SocketAddr, limit: Duration) -> Result<OwnedFd, Error> {
    let end = Instant::now() + limit;
    loop {
        match bind_listener(address) {
            Err(Error::AddressBusy { .. }) if Instant::now() < end => tokio::time::sleep(BUSY_PAUSE).await,
            bound => return bound.map(|(socket, _)| socket),
        }
    }
}

/// An address that can be typed in a route and shown in a list.
pub(crate) fn check_local_address(address: &str) -> Result<(), Error> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{MessageBody, NodeInfo, SendMessage};
    use crate::testing::{Peer, World, run};
    use ockam_engine_abi::{DropReason, Target};
    use std::net::TcpStream;

    fn text(route: &str) -> SendMessage {
        SendMessage {
            route: route.into(),
            authorized: Vec::new(),
            identity: None,
            message: MessageBody::Text("hi".into()),
            timeout_ms: 60_000,
        }
    }

    #[test]
    fn a_change_is_in_the_engine_and_in_the_store_or_in_neither() {
        run(async {
            let world = World::new(1);
            let (node, _supervisor) = world.control(false).await;
            let second = node.create_listener(world.loopback).await.unwrap();
            node.start_service(Service::Hop, "hop").await.unwrap();
            node.add_consumer(&node.dialed_flow_control.clone(), "hop").await.unwrap();
            let before = node.desired();
            assert_eq!(before, Desired::load(&*node.store().await).unwrap());
            world.tables(0, |tables| {
                assert_eq!(tables.listeners.keys().copied().collect::<Vec<_>>(), [1, u32::from(second.bit)]);
                let (target, reachable, _) = &tables.addresses[&b"hop"[..]];
                assert_eq!((*target, *reachable), (Target::Hop, !CHANNELS_MASK));
            });

            // The engine refuses: nothing changed, and the port is free again.
            world.tables(0, |tables| tables.refuse = Some(Refusal::Limit));
            assert!(matches!(node.create_listener(world.loopback).await, Err(Error::EngineRefused { .. })));
            world.tables(0, |tables| tables.refuse = Some(Refusal::Limit));
            assert!(matches!(node.start_service(Service::Hop, "hop2").await, Err(Error::EngineRefused { .. })));
            world.tables(0, |tables| tables.refuse = Some(Refusal::Limit));
            assert!(matches!(node.delete_listener(&second).await, Err(Error::EngineRefused { .. })));
            assert_eq!(node.desired(), before);
            assert_eq!(before, Desired::load(&*node.store().await).unwrap());

            assert!(matches!(node.start_service(Service::Echo, "hop").await, Err(Error::AddressTaken { .. })));
            assert!(matches!(node.create_listener(second.address).await, Err(Error::ListenerExists { .. })));
            for bad in ["", "a/b", "a#b", "a\n", &"x".repeat(256)] {
                assert!(matches!(node.start_service(Service::Hop, bad).await, Err(Error::BadArgument { .. })));
            }
            let unknown = node.add_consumer(&"0".repeat(32), "hop").await;
            assert!(matches!(unknown, Err(Error::NoSuchThing { .. })));

            node.delete_listener(&second).await.unwrap();
            bind_listener(second.address).unwrap();
            world.tables(0, |tables| assert_eq!(tables.listeners.len(), 1));
            assert!(matches!(node.listener(&second.address.to_string()), Err(Error::NoSuchThing { .. })));
        });
    }

    #[test]
    fn a_new_engine_gets_what_the_dead_one_had_and_no_connection_is_refused() {
        run(async {
            let world = World::new(2);
            let (node, supervisor) = world.control(false).await;
            node.start_service(Service::Hop, "hop").await.unwrap();
            let listener = node.create_listener(world.loopback).await.unwrap();
            let watching = tokio::spawn({
                let supervisor = supervisor.clone();
                async move { supervisor.watch().await }
            });
            let first = node.engine_now().unwrap();
            lock(&world.engines)[0].kill();
            TcpStream::connect(listener.address).unwrap();
            first.link.closed().await;
            TcpStream::connect(listener.address).unwrap();
            // `None` is in between, or was.
            let mut watched = node.engine.subscribe();
            watched
                .wait_for(|engine| engine.as_ref().is_some_and(|engine| !Arc::ptr_eq(engine, &first)))
                .await
                .unwrap();
            assert_eq!(node.restarts.load(Ordering::Relaxed), 1);
            let had = world.tables(0, |tables| {
                let listeners: Vec<_> = tables.listeners.iter().map(|(number, it)| (*number, it.0, it.1)).collect();
                (listeners, tables.addresses.clone())
            });
            let has = world.tables(1, |tables| {
                let listeners: Vec<_> = tables.listeners.iter().map(|(number, it)| (*number, it.0, it.1)).collect();
                (listeners, tables.addresses.clone())
            });
            assert_eq!(has, had);
            assert_eq!(has.0.len(), 2);
            watching.abort();
        });
    }

    #[test]
    fn a_living_engine_is_adopted_and_rid_of_what_nobody_asked_for() {
        run(async {
            let world = World::new(1);
            let (node, supervisor) = world.control(false).await;
            let second = node.create_listener(world.loopback).await.unwrap();
            let peer: SocketAddr = "127.0.0.1:9".parse().unwrap();
            let engine = node.engine().await.unwrap();
            let kept = node.dial(&engine, "x", &[peer], &Cookie::Connection).await.unwrap();
            let message = node.dial(&engine, "x", &[peer], &Cookie::Message).await.unwrap();
            drop((node, supervisor, engine));
            // What a control that died left, and what none of this node's controls made.
            world.tables(0, |tables| {
                tables.addresses.insert(b"reply".to_vec(), (Target::Control, 0, vec![1, 2, 3]));
                tables.addresses.get_mut(&b"echo"[..]).unwrap().2 = vec![9; 40];
                let (stranger, address) = bind_listener(world.loopback).unwrap();
                tables.listeners.insert(40, (address, 40, Vec::new(), stranger));
            });

            let (node, _supervisor) = world.control(true).await;
            world.tables(0, |tables| {
                assert_eq!(tables.listeners.keys().copied().collect::<Vec<_>>(), [1, u32::from(second.bit)]);
                assert_eq!(
                    tables.addresses.keys().map(Vec::as_slice).collect::<Vec<_>>(),
                    [&b"api"[..], b"echo", b"forwarding_service", b"static_forwarding_service", b"uppercase"]
                );
                let echo = &tables.addresses[&b"echo"[..]];
                assert_eq!(node.cookies.open(&echo.2), Some(Cookie::Service));
                assert!(tables.links.contains_key(&kept.link) && !tables.links.contains_key(&message.link));
            });
            // The sockets came with the dump: a later engine can take them over.
            assert!(node.desired().listeners.iter().all(|row| node.listener_error(row.bit.into()).is_none()));
        });
    }

    #[test]
    fn every_fate_of_a_message_is_told() {
        run(async {
            let world = World::new(1);
            let (node, _supervisor) = world.control(false).await;
            let peer = |peer| world.tables(0, |tables| tables.peer = peer);
            let send = |request| crate::messages::send(&node, request);
            let dialed = "/ip4/127.0.0.1/tcp/9/service/echo";

            assert_eq!(send(text("/service/echo")).await.unwrap().text.as_deref(), Some("hi"));
            let missing = send(text("/service/missing")).await.unwrap_err();
            let step = "/service/missing".to_owned();
            let place = "the node n1".to_owned();
            assert_eq!(missing, Error::Undelivered { step, place, reason: DropReason::NoSuchAddress });

            peer(Some(Peer::Echo));
            assert_eq!(send(text(dialed)).await.unwrap().hex, "026869");
            peer(Some(Peer::Undeliverable(DropReason::NotAdmitted)));
            let refused = send(text(dialed)).await.unwrap_err();
            let place = "the node at 127.0.0.1:9".to_owned();
            let step = "/service/echo".to_owned();
            assert_eq!(refused, Error::Undelivered { step, place, reason: DropReason::NotAdmitted });
            assert_eq!(refused.exit(), 77);
            peer(Some(Peer::Close));
            assert!(matches!(send(text(dialed)).await, Err(Error::LinkLost { .. })));
            peer(None);
            let mut impatient = text(dialed);
            impatient.timeout_ms = 1;
            let late = send(impatient).await.unwrap_err();
            assert!(matches!(late, Error::NoReply { .. } | Error::ConnectFailed { .. }), "{late:?}");

            for bad in ["", "echo", "/node/n2/service/echo", "/ip4/127.0.0.1/tcp/9"] {
                assert_eq!(send(text(bad)).await.unwrap_err().exit(), 64, "{bad}");
            }
            for (digits, timeout_ms) in [("0", 1), ("zz", 1), ("00", 0), ("00", u64::MAX)] {
                let message = MessageBody::Hex(digits.into());
                let bad = SendMessage { message, timeout_ms, ..text("/service/echo") };
                assert_eq!(send(bad).await.unwrap_err().exit(), 64);
            }
            let large = SendMessage { message: MessageBody::Text("x".repeat(17 << 20)), ..text("/service/echo") };
            assert_eq!(send(large).await.unwrap_err().exit(), 65);

            // Nothing is left of any of them, once the engine has done what it was told last.
            let engine = node.engine().await.unwrap();
            while !engine.link.dump().await.unwrap().links.is_empty() {}
            let left = engine.link.dump().await.unwrap();
            let is_control = |found: &&crate::engine_link::DumpedAddress| found.target == Target::Control;
            let left: Vec<&[u8]> = left.addresses.iter().filter(is_control).map(|it| it.address.as_slice()).collect();
            assert_eq!(left, [&b"api"[..], b"forwarding_service", b"static_forwarding_service"]);
        });
    }

    #[test]
    fn a_name_in_a_route_is_looked_up_for_the_engine() {
        run(async {
            let world = World::new(1);
            let (node, _supervisor) = world.control(false).await;
            let engine = node.engine().await.unwrap();
            for (host, resolves) in [("localhost", true), ("not a name", false)] {
                let link = LinkId::new(0, 1, 1);
                lock(&world.engines)[0].say(&Notice::Resolve { link, host: host.into(), port: 5 });
                let resolved = loop {
                    engine.link.dump().await.unwrap();
                    if let Some(resolved) = world.tables(0, |tables| tables.resolved.pop()) {
                        break resolved;
                    }
                    tokio::task::yield_now().await;
                };
                assert_eq!(!resolved.is_empty(), resolves, "{host}");
                assert!(resolved.iter().all(|address| address.port() == 5));
            }
        });
    }

    #[test]
    fn the_api_serves_json_and_ends_with_the_node() {
        run(async {
            let world = World::new(1);
            let (_node, supervisor) = world.control(false).await;
            let path = world.dir.path().join("control.sock");
            let listener = tokio::net::UnixListener::bind(&path).unwrap();
            let ended = watch::Sender::new(false);
            let serving = tokio::spawn(crate::api_server::serve(listener, supervisor, ended));

            let (status, body) = call(&path, "GET /node", "").await;
            assert_eq!(status, 200);
            let info: NodeInfo = serde_json::from_str(&body).unwrap();
            assert_eq!((info.name.as_str(), info.engine.driver.as_str()), ("n1", "epoll"));
            for (request, body, want) in [
                ("GET /nowhere", "", 404),
                ("PUT /node", "", 405),
                ("POST /services", "{", 400),
                ("POST /services", r#"{"service":"hop","x":1}"#, 400),
                ("POST /services", r#"{"service":"hop"}"#, 200),
                ("POST /services", r#"{"service":"hop"}"#, 409),
                ("POST /services", &" ".repeat(crate::api::BODY_BYTES_MAX + 1), 413),
                ("GET /tcp-listeners/127.0.0.1%3A1", "", 404),
                ("GET /workers", "", 200),
                ("GET /engine", "", 200),
                ("GET /engine/stats", "", 200),
                ("POST /node/stop", "", 200),
            ] {
                let (status, answer) = call(&path, request, body).await;
                assert_eq!(status, want, "{request}: {answer}");
                if want != 200 {
                    let error: crate::api::ErrorBody = serde_json::from_str(&answer).unwrap();
                    assert!(!error.error.hint.is_empty());
                }
            }
            serving.await.unwrap();
        });
    }

    async fn call(path: &std::path::Path, request: &str, body: &str) -> (u16, String) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::UnixStream::connect(path).await.unwrap();
        let head = format!("{request} HTTP/1.1\r\nhost: node\r\nconnection: close\r\ncontent-length: {}", body.len());
        stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }
}
