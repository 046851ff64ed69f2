//! Outlets: what a target's name stands for, kept fresh for the engine.

use super::listening::unix_path;
use super::lock;
use super::tls::{self, Bridge};
use crate::api::{CreateTcpOutlet, ResourceType, TcpOutletInfo};
use crate::cli::values::{HostPort, dial_address};
use crate::engine_link::cookie::Cookie;
use crate::engine_link::{CommandError, EngineLink};
use crate::error::{Error, errno_text};
use crate::node::{Node, check_local_address};
use crate::resolve::lookup;
use crate::store::OutletRow;
use crate::store::node::OUTLETS_MAX;
use ockam_engine_abi::{Command, PortalTarget, Refusal};
use rustls::ClientConfig;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

/// What an outlet is called when it is not said, for the first one.
const DEFAULT_ADDRESS: &str = "outlet";

/// How long it counts what a name stood for.
const FRESH: Duration = Duration::from_secs(30);

/// A name is not looked up more often than this, however often connections fail.
const LOOKUP_PAUSE: Duration = Duration::from_secs(1);

/// How long the names of all outlets may take together while a node starts.
const START_LOOKUP_LIMIT: Duration = Duration::from_secs(1);

/// How long a failure is shown: the engine says nothing of connections that succeed.
const FAILURE_SHOWN: Duration = Duration::from_secs(60);

/// Where an outlet leads, as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Unix(PathBuf),
    Tcp(HostPort),
}

impl Target {
    fn read(text: &str) -> Result<Target, Error> {
        match unix_path("to", text)? {
            Some(path) => Ok(Target::Unix(path)),
            None => dial_address(text).map(Target::Tcp).map_err(|why| Error::BadArgument {
                argument: "to".into(),
                value: crate::text::escape(text.as_bytes(), 300),
                why: format!("is no target: {why}"),
                fix: "Write HOST:PORT, such as 127.0.0.1:5432, or unix:/path.".into(),
            }),
        }
    }
}

/// What runs for an outlet.
pub(crate) struct Outlet {
    row: OutletRow,
    targets: Vec<PortalTarget>,
    /// The name does not resolve.
    unresolved: Option<Error>,
    /// What was wrong with the last connection that failed, and when.
    failed: Option<(Instant, String)>,
    refresh: Arc<Notify>,
    /// Looks the name up, again and again.
    task: Option<AbortHandle>,
    bridge: Option<Bridge>,
    /// Why there is no bridge.
    no_bridge: Option<Error>,
}

impl Drop for Outlet {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

fn unix_target(path: &Path) -> PortalTarget {
    PortalTarget::Unix(path.as_os_str().as_bytes().into())
}

fn tcp_targets(addresses: Vec<SocketAddr>) -> Vec<PortalTarget> {
    addresses.into_iter().map(PortalTarget::Tcp).collect()
}

fn target_text(target: &PortalTarget) -> String {
    match target {
        PortalTarget::Tcp(address) => address.to_string(),
        PortalTarget::Unix(path) => format!("unix:{}", crate::text::escape(path, 300)),
    }
}

/// Where the bridge of an outlet listens.
fn bridge_path(node: &Node, row: &OutletRow) -> PathBuf {
    node.dir.path().join(format!("tls-{}.sock", row.number))
}

/// Makes an outlet. One whose name does not resolve is made all the same: its name may get an address later.
///
/// # Errors
/// [`Error::BadArgument`], [`Error::AddressTaken`], [`Error::Limit`], [`Error::NoCertificates`], those of the store and the
/// engine.
pub(crate) async fn create(node: &Arc<Node>, request: CreateTcpOutlet) -> Result<TcpOutletInfo, Error> {
    let target = Target::read(&request.to)?;
    if let Some(address) = &request.address {
        check_local_address(address)?;
    }
    let config = match (&target, request.tls) {
        (Target::Unix(_), true) => {
            return Err(Error::BadArgument {
                argument: "tls".into(),
                value: request.to,
                why: "is a Unix socket, which has no name that a certificate could prove".into(),
                fix: "Name the target by its host and port.".into(),
            });
        }
        (Target::Tcp(target), true) => {
            tls::server_name(&target.host)?;
            Some(tls::trusted()?)
        }
        (_, false) => None,
    };
    let (targets, unresolved) = resolve(&target).await;
    let engine = node.engine().await?;
    let mut store = node.store().await;
    let desired = node.desired();
    let address = match request.address {
        Some(address) => {
            node.check_free(&desired, &address)?;
            address
        }
        None if node.check_free(&desired, DEFAULT_ADDRESS).is_ok() => DEFAULT_ADDRESS.into(),
        None => crate::random::hex_id(),
    };
    if desired.outlets.len() >= OUTLETS_MAX {
        return Err(Error::Limit { node: node.name(), what: "outlets", limit: OUTLETS_MAX });
    }
    node.check_not_a_link(&engine, &address).await?;
    let number = store.next_outlet()?;
    let row = OutletRow { number, address, target: request.to, tls: request.tls, plain: request.allow_plain };
    let mut outlet = Outlet {
        row: row.clone(),
        targets,
        unresolved,
        failed: None,
        refresh: Arc::default(),
        task: None,
        bridge: None,
        no_bridge: None,
    };
    if let Some(config) = config {
        outlet.open_bridge(node, &target, config)?;
    }
    node.change(
        &mut store,
        "make an outlet",
        |store| store.add_outlet(&row),
        set(node, &engine.link, &row, outlet.engine_targets()),
        engine
            .link
            .apply(|request| Command::ClearAddress { request, address: row.address.clone().into_bytes().into() }),
    )
    .await?;
    outlet.begin(node, &target, false);
    let info = outlet.info();
    lock(&node.portals.outlets).insert(row.address, outlet);
    Ok(info)
}

/// Removes an outlet; its connections end.
///
/// # Errors
/// [`Error::NoSuchThing`], those of the store and the engine.
pub(crate) async fn delete(node: &Arc<Node>, address: &str) -> Result<(), Error> {
    let engine = node.engine().await?;
    let mut store = node.store().await;
    let row = row(node, address)?;
    let targets = lock(&node.portals.outlets).get(address).map_or(Vec::new(), Outlet::engine_targets);
    let clear = async {
        let address = row.address.as_bytes().to_vec().into();
        match engine.link.apply(|request| Command::ClearAddress { request, address }).await {
            Err(CommandError::Refused { why: Refusal::Unknown, .. }) => Ok(()),
            cleared => cleared,
        }
    };
    node.change(
        &mut store,
        "remove an outlet",
        |store| store.remove_outlet(address),
        clear,
        set(node, &engine.link, &row, targets),
    )
    .await?;
    lock(&node.portals.outlets).remove(address);
    Ok(())
}

/// The outlet with this address.
///
/// # Errors
/// [`Error::NoSuchThing`].
fn row(node: &Node, address: &str) -> Result<OutletRow, Error> {
    let found = node.desired().outlets.into_iter().find(|row| row.address == address);
    found.ok_or_else(|| node.no_such("outlet", address, "ockam tcp-outlet list"))
}

/// Every outlet.
pub(crate) fn infos(node: &Node) -> Vec<TcpOutletInfo> {
    let all = lock(&node.portals.outlets);
    let info = |row: &OutletRow| match all.get(&row.address) {
        Some(outlet) => outlet.info(),
        None => row_info(row),
    };
    node.desired().outlets.iter().map(info).collect()
}

/// One outlet.
///
/// # Errors
/// [`Error::NoSuchThing`].
pub(crate) fn info(node: &Node, address: &str) -> Result<TcpOutletInfo, Error> {
    let row = row(node, address)?;
    Ok(lock(&node.portals.outlets).get(address).map_or_else(|| row_info(&row), Outlet::info))
}

fn row_info(row: &OutletRow) -> TcpOutletInfo {
    TcpOutletInfo {
        address: row.address.clone(),
        to: row.target.clone(),
        tls: row.tls,
        allow_plain: row.plain,
        targets: Vec::new(),
        error: None,
    }
}

/// Gives an engine, new or adopted, the outlets that shall be.
///
/// # Errors
/// The engine refuses or ends.
pub(crate) async fn reconcile(
    node: &Node,
    link: &EngineLink,
    rows: &[OutletRow],
    has: &[crate::engine_link::DumpedAddress],
) -> Result<(), CommandError> {
    let mut lookups = JoinSet::new();
    let mut targets: Vec<Vec<PortalTarget>> = vec![Vec::new(); rows.len()];
    let mut stay = BTreeSet::new();
    for (index, row) in rows.iter().enumerate() {
        if let Some(outlet) = lock(&node.portals.outlets).get(&row.address) {
            targets[index] = outlet.engine_targets();
            continue;
        }
        if has.iter().any(|found| is_same(node, row, found)) {
            // An engine that lives knows its targets, until the name is looked up again.
            stay.insert(index);
            continue;
        }
        match Target::read(&row.target) {
            Ok(_) if row.tls => targets[index] = vec![unix_target(&bridge_path(node, row))],
            Ok(target) => drop(lookups.spawn(async move { (index, resolve(&target).await.0) })),
            Err(_) => {}
        }
    }
    // A node that has started knows where its outlets lead, if the resolver answers. One that does not keeps nobody.
    let looked_up = async {
        while let Some(found) = lookups.join_next().await {
            if let Ok((index, found)) = found {
                targets[index] = found;
            }
        }
    };
    let _ = tokio::time::timeout(START_LOOKUP_LIMIT, looked_up).await;
    for (index, row) in rows.iter().enumerate().filter(|(index, _)| !stay.contains(index)) {
        set(node, link, row, std::mem::take(&mut targets[index])).await?;
    }
    Ok(())
}

fn is_same(node: &Node, row: &OutletRow, found: &crate::engine_link::DumpedAddress) -> bool {
    found.address == row.address.as_bytes()
        && found.target == ockam_engine_abi::Target::Outlet
        && found.guard == node.trust.guard(ResourceType::TcpOutlet, &row.address)
        && node.cookies.open(&found.cookie) == Some(Cookie::Outlet { number: row.number })
}

/// Every flow control reaches an outlet: the engine itself refuses peers that came neither over loopback nor through a
/// channel, unless they are admitted.
async fn set(node: &Node, link: &EngineLink, row: &OutletRow, targets: Vec<PortalTarget>) -> Result<(), CommandError> {
    let cookie = node.cookies.seal(&Cookie::Outlet { number: row.number });
    link.apply(|request| Command::SetOutlet {
        request,
        address: row.address.as_bytes().to_vec().into(),
        targets,
        reachable: u64::MAX,
        plain: row.plain,
        guard: node.trust.guard(ResourceType::TcpOutlet, &row.address),
        cookie: cookie.into(),
    })
    .await
}

/// Begins to look after the outlets that shall be.
pub(super) fn resume(node: &Arc<Node>) {
    let mut config: Option<Result<Arc<ClientConfig>, Error>> = None;
    for row in node.desired().outlets {
        let mut all = lock(&node.portals.outlets);
        if all.contains_key(&row.address) {
            continue;
        }
        let address = row.address.clone();
        let target = Target::read(&row.target);
        let mut outlet = Outlet {
            row,
            targets: Vec::new(),
            unresolved: None,
            failed: None,
            refresh: Arc::default(),
            task: None,
            bridge: None,
            no_bridge: None,
        };
        match target {
            Ok(target) => {
                if let Target::Unix(path) = &target {
                    outlet.targets = vec![unix_target(path)];
                }
                if outlet.row.tls {
                    let opened = config.get_or_insert_with(tls::trusted).clone();
                    let opened = opened.and_then(|config| outlet.open_bridge(node, &target, config));
                    if let Err(error) = opened {
                        tracing::error!(outlet = address, %error, "an outlet cannot reach its target");
                        outlet.no_bridge = Some(error);
                    }
                }
                outlet.begin(node, &target, true);
            }
            Err(error) => outlet.unresolved = Some(error),
        }
        all.insert(address, outlet);
    }
}

/// None of an outlet's targets could be reached.
pub(crate) fn on_failed(node: &Node, address: &[u8], errno: i32) {
    let Ok(address) = std::str::from_utf8(address) else { return };
    if let Some(outlet) = lock(&node.portals.outlets).get_mut(address) {
        let why = match errno {
            0 => "its target does not answer".to_owned(),
            errno => format!("its target cannot be reached: {}", errno_text(errno)),
        };
        let is_news = outlet.failed.as_ref().is_none_or(|(when, _)| when.elapsed() >= FAILURE_SHOWN);
        if is_news {
            tracing::warn!(outlet = address, to = outlet.row.target, why, "a connection of an outlet failed");
        }
        outlet.failed = Some((Instant::now(), why));
        outlet.refresh.notify_one();
    }
}

async fn resolve(target: &Target) -> (Vec<PortalTarget>, Option<Error>) {
    match target {
        Target::Unix(path) => (vec![unix_target(path)], None),
        Target::Tcp(target) => match lookup(&target.host, target.port).await {
            Ok(addresses) => (tcp_targets(addresses), None),
            Err(error) => (Vec::new(), Some(error)),
        },
    }
}

impl Outlet {
    fn info(&self) -> TcpOutletInfo {
        let unresolved = self.no_bridge.as_ref().or(self.unresolved.as_ref()).map(Error::to_string);
        let failed = self.failed.as_ref().filter(|(when, _)| when.elapsed() < FAILURE_SHOWN);
        let bridged = self.bridge.as_ref().and_then(|bridge| bridge.failure(FAILURE_SHOWN));
        TcpOutletInfo {
            targets: self.targets.iter().map(target_text).collect(),
            error: unresolved.or_else(|| failed.map(|(_, why)| why.clone())).or(bridged),
            ..row_info(&self.row)
        }
    }

    /// What the engine connects to.
    fn engine_targets(&self) -> Vec<PortalTarget> {
        match &self.bridge {
            Some(bridge) => vec![unix_target(bridge.path())],
            None if self.row.tls => Vec::new(),
            None => self.targets.clone(),
        }
    }

    fn open_bridge(&mut self, node: &Node, target: &Target, config: Arc<ClientConfig>) -> Result<(), Error> {
        let Target::Tcp(target) = target else { return Err(Error::internal("TLS to a Unix socket")) };
        let path = bridge_path(node, &self.row);
        self.bridge = Some(tls::open(&path, &target.host, target.port, config)?);
        Ok(())
    }

    /// Looks its name up whenever that may stand for something else, if it has one.
    fn begin(&mut self, node: &Arc<Node>, target: &Target, at_once: bool) {
        let Target::Tcp(target) = target else { return };
        if let Ok(ip) = target.host.parse() {
            self.targets = tcp_targets(vec![SocketAddr::new(ip, target.port)]);
            return;
        }
        let (node, row, target, refresh) =
            (Arc::downgrade(node), self.row.clone(), target.clone(), self.refresh.clone());
        self.task = Some(tokio::spawn(keep_fresh(node, row, target, refresh, at_once)).abort_handle());
    }
}

/// Gives the engine what a name stands for, whenever that changes.
async fn keep_fresh(node: Weak<Node>, row: OutletRow, target: HostPort, refresh: Arc<Notify>, at_once: bool) {
    let mut looks = at_once;
    loop {
        if !looks {
            let _ = tokio::time::timeout(FRESH, refresh.notified()).await;
        }
        looks = false;
        let (targets, unresolved) = resolve(&Target::Tcp(target.clone())).await;
        let Some(node) = node.upgrade() else { return };
        if let Some(error) = &unresolved {
            tracing::debug!(outlet = row.address, %error, "the name of an outlet's target does not resolve");
        }
        give(&node, &row, targets, unresolved).await;
        drop(node);
        tokio::time::sleep(LOOKUP_PAUSE).await;
    }
}

/// When a name does not resolve any more, what it stood for stays: a resolver that fails shall not end what works.
async fn give(node: &Arc<Node>, row: &OutletRow, targets: Vec<PortalTarget>, unresolved: Option<Error>) {
    // Whoever removes the outlet waits until this is done.
    let _store = node.store().await;
    if !node.desired().outlets.contains(row) {
        return;
    }
    let changed = {
        let mut all = lock(&node.portals.outlets);
        let Some(outlet) = all.get_mut(&row.address) else { return };
        let changed = unresolved.is_none() && outlet.targets != targets;
        outlet.unresolved = unresolved;
        if changed {
            outlet.targets = targets;
        }
        // Of a bridge the engine sees only its socket.
        (changed && outlet.bridge.is_none()).then(|| outlet.engine_targets())
    };
    let (Some(targets), Some(engine)) = (changed, node.engine_now()) else { return };
    tracing::info!(outlet = row.address, to = row.target, "the target of an outlet has other addresses now");
    if let Err(error) = set(node, &engine.link, row, targets).await {
        // A new engine gets them when it comes.
        tracing::debug!(outlet = row.address, %error, "the engine does not know the addresses of an outlet's target");
    }
}
