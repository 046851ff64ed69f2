//! The control process, from its first line to its last.

use super::systemd::{self, Sockets};
use super::{ControlStart, NodeOptions, Readiness};
use crate::api::NodeStatus;
use crate::error::Error;
use crate::home::{Home, Lock, NodeDir, NodeName, Part, open_private_file};
use crate::identities::Identities;
use crate::node::Node;
use crate::resolve::{bind_listener, to_listen};
use crate::store::{ListenerRow, NodeStore, SharedStore};
use crate::supervisor::{Supervisor, adopt_or_spawn};
use crate::{api_server, logging};
use ockam_engine::io::code;
use ockam_engine_abi::TransitRule;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{BufRead, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};

/// Where a new node listens when nothing else is asked for.
const LISTENER_ADDRESS_DEFAULT: &str = "127.0.0.1:0";

/// Longest line on standard input in bytes.
const START_LINE_BYTES_MAX: u64 = 1 << 20;

/// Threads for what blocks: names to look up.
const BLOCKING_THREADS_MAX: usize = 8;

/// After this long a start is over, and what ran once need not stay in memory.
const SETTLED: Duration = Duration::from_secs(1);

/// Runs the control process of a node in the background: reads a [`ControlStart`] from standard input, says on standard
/// output when it serves or why it does not, and returns when the node has ended.
///
/// # Errors
/// What goes wrong before anybody can be told. What goes wrong after that is told, and ends the process with its code.
pub fn run(home: &Home, name: &NodeName) -> Result<(), Error> {
    let start = read_start()?;
    // So that neither a terminal's signals nor the end of a session reach it. Only a process group's leader cannot do
    // this, and nobody who is that starts us.
    let _ = rustix::process::setsid();
    if let Ok(null) = fs::File::open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
    }
    let _ = std::env::set_current_dir("/");
    let outcome = live(home, name, start, Place::Background, Sockets::default(), None);
    if let Err(error) = outcome {
        tracing::error!(%error, "the control process ends");
        tell(&Readiness::Error(error.report()));
        std::process::exit(error.exit().into());
    }
    Ok(())
}

/// What makes a node in the foreground complete, through its API, before it is ready. It may block.
pub type Prepare = Box<dyn FnOnce() -> Result<(), Error> + Send>;

/// Runs the control process of a node inside this one, with its log on standard error, until a signal ends it, or the
/// end of standard input if `exit_on_eof` says so. It may be the main process of a service ([`super::systemd`]).
///
/// # Errors
/// Those of starting a node, and that of `prepare`, with which the node ends.
pub fn run_in_foreground(
    home: &Home,
    name: &NodeName,
    start: ControlStart,
    exit_on_eof: bool,
    prepare: Option<Prepare>,
) -> Result<(), Error> {
    let activated = Sockets::passed()?;
    live(home, name, start, Place::Foreground { exit_on_eof }, activated, prepare)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Background,
    Foreground { exit_on_eof: bool },
}

fn read_start() -> Result<ControlStart, Error> {
    let mut line = String::new();
    let read = std::io::stdin().lock().take(START_LINE_BYTES_MAX).read_line(&mut line);
    read.map_err(|error| Error::Io {
        what: "reading standard input".into(),
        errno: error.raw_os_error().unwrap_or(0),
    })?;
    serde_json::from_str(&line).map_err(|error| Error::BadData {
        what: "the line on standard input".into(),
        why: error.to_string(),
        fix: "This subcommand is for `ockam node create` and `ockam node start`.".into(),
    })
}

/// Writes the readiness line and closes standard output, so that who waits goes on.
fn tell(readiness: &Readiness) {
    let mut line = serde_json::to_vec(readiness).expect("API types have string keys");
    line.push(b'\n');
    let mut stdout = std::io::stdout().lock();
    // Who started us may be gone; the node lives all the same.
    let _ = stdout.write_all(&line).and_then(|()| stdout.flush());
    drop(stdout);
    if let Ok(null) = OpenOptions::new().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}

fn live(
    home: &Home,
    name: &NodeName,
    start: ControlStart,
    place: Place,
    activated: Sockets,
    prepare: Option<Prepare>,
) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_keep_alive(Duration::from_secs(1))
        .build();
    let runtime = runtime.map_err(|error| Error::CannotStart {
        path: "the control process".into(),
        errno: error.raw_os_error().unwrap_or(0),
    })?;
    let lived = runtime.block_on(async {
        let mut control = begin(home, name, start, place, activated).await?;
        if place == Place::Background {
            let info = api_server::node_info(&control.supervisor).await?;
            tell(&Readiness::Ready(Box::new(info)));
        }
        // Nobody shall find it ready before what is added.
        control.supervisor.node().is_preparing.store(prepare.is_some(), Ordering::Relaxed);
        // Who waited to start, stop or delete the node may do so now.
        control.change.take();
        control.live(place, prepare).await
    });
    // A lookup that hangs does not keep the process.
    runtime.shutdown_background();
    lived
}

struct Control {
    supervisor: Arc<Supervisor>,
    listener: UnixListener,
    /// Held for as long as this process lives.
    _life: Lock,
    change: Option<Lock>,
    /// Its engine lived before this process did, and carries connections.
    is_adopted: bool,
}

/// Everything up to the moment at which the node is what was asked for. What fails leaves nothing behind.
async fn begin(
    home: &Home,
    name: &NodeName,
    mut start: ControlStart,
    place: Place,
    activated: Sockets,
) -> Result<Control, Error> {
    let rules = match &start.create {
        Some(options) => options.check()?,
        None => None,
    };
    let known = match SharedStore::open_existing(home)? {
        Some(store) => store.require(name),
        None => Err(crate::store::shared::no_node_at_all(name)),
    };
    let is_new = match (known, &start.create) {
        (Ok(_), _) => false,
        (Err(Error::NoSuchNode { .. }), Some(_)) => true,
        (Err(error), _) => return Err(error),
    };
    let dir = home.node(name);
    let status = dir.status()?;
    if start.create.is_some() && !is_new {
        match (status, place) {
            (NodeStatus::Stopped, _) => {}
            // A service manager starts a control that died again as it was started first. What it was told then is
            // stored, and the engine that lived on has it.
            (NodeStatus::Headless, Place::Foreground { .. }) => {
                start.create = None;
                drop(activated.take(systemd::LISTENER));
            }
            _ => return Err(Error::NodeRunning { name: name.to_string() }),
        }
    }
    // Before anything is written: a listener that cannot be is the likeliest reason to fail.
    let bound = match &start.create {
        Some(options) => match activated.take_listener()? {
            Some(bound) => Some(bound),
            None => bind_first(options, is_new, &dir).await?,
        },
        None => None,
    };

    home.prepare()?;
    let made = dir.prepare()?;
    let change = dir.lock_change()?;
    let Some(life) = Lock::try_take(&dir.control_lock(), Part::Life)? else {
        return Err(Error::NodeRunning { name: name.to_string() });
    };
    if is_new {
        match SharedStore::open(home).and_then(|store| store.nodes()) {
            Ok(nodes) if nodes.iter().any(|node| node.name == *name) => {
                // Somebody created it since, and stopped it again.
                return Err(Error::NodeBusy { name: name.to_string() });
            }
            Ok(_) => {}
            Err(error) => {
                if made && let Err(error) = dir.remove() {
                    tracing::warn!(%error, "something is left of a node that could not be created");
                }
                return Err(error);
            }
        }
    }
    let begun = begin_locked(home, &dir, start, Prepared { rules, bound, activated }, is_new, place).await;
    match begun {
        Ok((supervisor, listener)) => {
            let is_adopted = status == NodeStatus::Headless;
            Ok(Control { supervisor, listener, _life: life, change: Some(change), is_adopted })
        }
        Err(error) => {
            if is_new && let Err(error) = forget(home, &dir, made) {
                tracing::warn!(%error, "something is left of a node that could not be created");
            }
            Err(error)
        }
    }
}

fn forget(home: &Home, dir: &NodeDir, made: bool) -> Result<(), Error> {
    // The files first: on a full disk they make the room that it takes to remove a name.
    let files = if made { dir.remove() } else { Ok(()) };
    let name = SharedStore::open_existing(home).and_then(|store| match store {
        Some(mut store) => store.remove(dir.name()).map(drop),
        None => Ok(()),
    });
    files.and(name)
}

/// The listener that was asked for, bound; `None` when it is the one that the node has.
async fn bind_first(
    options: &NodeOptions,
    is_new: bool,
    dir: &NodeDir,
) -> Result<Option<(OwnedFd, std::net::SocketAddr)>, Error> {
    let address = match (&options.tcp_listener_address, is_new) {
        (Some(address), _) => address,
        (None, true) => LISTENER_ADDRESS_DEFAULT,
        (None, false) => return Ok(None),
    };
    let address = to_listen(address).await?;
    // A free port is taken once and kept: a file that asks for one is applied at each start.
    if address.port() == 0
        && !is_new
        && NodeStore::open(dir)?.listeners()?.first().is_some_and(|row| row.address.ip() == address.ip())
    {
        return Ok(None);
    }
    bind_listener(address).map(Some)
}

/// What was checked and opened before anything is written.
struct Prepared {
    rules: Option<Vec<TransitRule>>,
    /// The node's own listener.
    bound: Option<(OwnedFd, std::net::SocketAddr)>,
    activated: Sockets,
}

async fn begin_locked(
    home: &Home,
    dir: &NodeDir,
    start: ControlStart,
    prepared: Prepared,
    is_new: bool,
    place: Place,
) -> Result<(Arc<Supervisor>, UnixListener), Error> {
    if is_new {
        forget_what_was_left(dir)?;
    }
    if place == Place::Background {
        let log = open_private_file(&dir.control_log(), OpenOptions::new().append(true).create(true))?;
        let moved = rustix::stdio::dup2_stderr(&log);
        moved.map_err(|errno| Error::storage("write to", dir.control_log(), &errno.into()))?;
    }
    logging::start(&start.log);
    tracing::info!(node = %dir.name(), pid = std::process::id(), version = env!("CARGO_PKG_VERSION"), "control starts");

    let mut store = NodeStore::open(dir)?;
    store.begin()?;
    let mut kept = None;
    if let Some(options) = &start.create {
        kept = apply_options(&mut store, options, prepared.rules, prepared.bound)?;
    }
    if is_new {
        // Known before it has an engine: no engine ever runs for a node that nobody can see, wherever this is cut off.
        store.commit()?;
        SharedStore::open(home)?.add(dir.name())?;
    }
    if let Some(identity) = start.create.as_ref().and_then(|options| options.identity.as_deref()) {
        let identity = Identities::open(home)?.named_or_created(Some(identity))?;
        SharedStore::open(home)?.set_node_identity(dir.name(), &identity.identifier)?;
    }
    let node = Node::new(dir.clone(), store, prepared.activated)?;
    if let Some((bit, socket)) = kept {
        node.keep(bit, socket);
    }
    let supervisor = Supervisor::new(node.clone(), Box::new(adopt_or_spawn));
    supervisor.bring_up().await?;
    let finished = match listen(dir) {
        Ok(listener) if is_new => Ok(listener),
        // New options of a node that was there before count once they work.
        Ok(listener) => node.store().await.commit().map(|()| listener),
        Err(error) => Err(error),
    };
    match &finished {
        // So that others can say by its name whom they want to meet.
        Ok(_) => node.channels.introduce().await,
        Err(_) => drop(supervisor.stop().await),
    }
    finished.map(|listener| (supervisor, listener))
}

/// A directory without a name in the shared database is what a create that was killed, or a delete, left.
fn forget_what_was_left(dir: &NodeDir) -> Result<(), Error> {
    for (database, suffix) in [dir.database(), dir.authority_database()]
        .iter()
        .flat_map(|database| ["", "-wal", "-shm"].map(|suffix| (database, suffix)))
    {
        let mut path = database.clone().into_os_string();
        path.push(suffix);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::storage("remove", path, &error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Writes what was asked for. Gives back the socket of the listener that was bound, and its bit.
fn apply_options(
    store: &mut NodeStore,
    options: &NodeOptions,
    rules: Option<Vec<TransitRule>>,
    bound: Option<(OwnedFd, std::net::SocketAddr)>,
) -> Result<Option<(u8, OwnedFd)>, Error> {
    let mut settings = store.settings()?;
    if let Some(driver) = &options.driver {
        settings.driver.clone_from(driver);
    }
    settings.threads = options.threads.or(settings.threads);
    settings.pin = options.pin.unwrap_or(settings.pin);
    settings.portal_memory = options.portal_memory.or(settings.portal_memory);
    store.set_settings(&settings)?;
    if let Some(rules) = rules {
        store.set_transit_rules(&rules)?;
    }
    if let Some(authority) = &options.authority {
        store.set_authority_settings(authority)?;
    }
    if let Some(trust) = &options.trust {
        store.set_trusted_authority(&crate::trust::check(trust)?, &trust.route, &trust.scope)?;
    }
    let Some((socket, address)) = bound else { return Ok(None) };
    let bit = match store.listeners()?.first() {
        Some(first) => {
            store.set_listener_address(first.bit, address)?;
            first.bit
        }
        None => {
            let bit = store.free_bit(0)?.ok_or_else(|| Error::internal("a node without listeners has no free bit"))?;
            store.add_listener(&ListenerRow { bit, address, flow_control: crate::random::hex_id() })?;
            bit
        }
    };
    Ok(Some((bit, socket)))
}

/// The socket of the API. One that a dead control left is replaced: we hold its lock.
fn listen(dir: &NodeDir) -> Result<UnixListener, Error> {
    let path = dir.control_socket()?;
    let failed = |error: std::io::Error| Error::storage("listen on", dir.path().join("control.sock"), &error);
    match fs::remove_file(path.as_path()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = std::os::unix::net::UnixListener::bind(path.as_path()).map_err(failed)?;
    // Until here the directory's mode kept others out.
    fs::set_permissions(path.as_path(), Permissions::from_mode(0o600)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    UnixListener::from_std(listener).map_err(failed)
}

impl Control {
    async fn live(self, place: Place, prepare: Option<Prepare>) -> Result<(), Error> {
        let ended = watch::Sender::new(false);
        let watching = self.supervisor.clone();
        let watching = tokio::spawn(async move { watching.watch().await });
        let serving = tokio::spawn(api_server::serve(self.listener, self.supervisor.clone(), ended.clone()));
        let mut end = ended.subscribe();
        let managed = self.supervisor.node().clone();
        let managing = matches!(place, Place::Foreground { .. })
            .then(|| tokio::spawn(async move { systemd::watch(&managed).await }));
        let preparing = async {
            match (place, prepare) {
                (Place::Background, _) => {}
                (Place::Foreground { .. }, prepare) => {
                    if let Err(error) = on_a_thread(prepare).await {
                        return error;
                    }
                    self.supervisor.node().is_preparing.store(false, Ordering::Relaxed);
                    systemd::ready(self.supervisor.node()).await;
                }
            }
            std::future::pending().await
        };
        tokio::spawn(async {
            tokio::time::sleep(SETTLED).await;
            code::give_back();
        });
        let mut lived = Ok(());
        tokio::select! {
            error = preparing => {
                // What an engine that was adopted carries does not end because a file is wrong.
                tracing::error!(%error, engine_goes_on = self.is_adopted, "the node cannot be made complete; control ends");
                lived = Err(error);
                if !self.is_adopted {
                    self.supervisor.stop().await;
                }
                ended.send_replace(true);
            }
            why = told_to_end(place) => {
                tracing::info!(why, "the node ends");
                if managing.is_some() {
                    systemd::stopping();
                }
                self.supervisor.stop().await;
                ended.send_replace(true);
            }
            _ = end.wait_for(|ended| *ended) => {}
        }
        if let Err(error) = serving.await {
            tracing::error!(%error, "the API failed");
        }
        watching.abort();
        if let Some(managing) = managing {
            managing.abort();
        }
        tracing::info!("control ends");
        lived
    }
}

/// Does what blocks beside everything else.
async fn on_a_thread(prepare: Option<Prepare>) -> Result<(), Error> {
    let Some(prepare) = prepare else { return Ok(()) };
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || {
        // Nobody listens any more when the node was told to end meanwhile.
        let _ = tell.send(prepare());
    });
    told.await.unwrap_or_else(|_| Err(Error::internal("what was to be added to the node panicked")))
}

/// Returns when a signal or the end of standard input ends the node.
async fn told_to_end(place: Place) -> &'static str {
    let signal = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(error) => {
                tracing::warn!(%error, "a signal cannot be watched");
                std::future::pending::<()>().await;
            }
        }
    };
    let end_of_input = async {
        match place {
            Place::Foreground { exit_on_eof: true } => wait_for_end_of_input().await,
            _ => std::future::pending().await,
        }
    };
    tokio::select! {
        () = signal(SignalKind::terminate()) => "SIGTERM",
        () = signal(SignalKind::interrupt()) => "SIGINT",
        () = signal(SignalKind::hangup()) => "SIGHUP",
        () = end_of_input => "the end of standard input",
    }
}

/// Reads standard input to its end, on a thread of its own: it may be a file, a pipe or a terminal.
async fn wait_for_end_of_input() {
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = tell.send(());
    });
    let _ = told.await;
}
