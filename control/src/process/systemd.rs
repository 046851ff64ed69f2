//! What the control process has to do with a service manager (`systemd.service(5)`, `sd_notify(3)`, `sd_listen_fds(3)`):
//! it takes listening sockets by their names, says when it is ready and when it stops, and answers for the watchdog.
//!
//! Only a node in the foreground does so: it is the unit's main process. Without a manager nothing here does anything.

use crate::api::HealthInfo;
use crate::api_server::health_info;
use crate::error::Error;
use crate::health::ENGINE_ANSWER_LIMIT;
use crate::node::Node;
use listenfd::ListenFd;
use rustix::net::{SocketAddrAny, getsockname, sockopt};
use sd_notify::NotifyState;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The name of the socket that is the node's own listener. Any other name is an inlet's alias.
pub(crate) const LISTENER: &str = "listener";

/// What is meant for the main process of a unit alone. A program that it starts must not inherit them.
pub(crate) const VARIABLES: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// How often what `systemctl status` shows is brought up to date where no watchdog asks for more.
const STATUS_PAUSE: Duration = Duration::from_secs(10);

/// Listening sockets that a service manager opened, by name, until somebody takes them.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    left: Mutex<BTreeMap<String, OwnedFd>>,
    /// The kernel's numbers of all of them, which duplicates share.
    cookies: BTreeSet<u64>,
}

impl Sockets {
    /// Those that were passed to this process; none without a manager. To be called once, and before a program is started,
    /// which would inherit them.
    ///
    /// # Errors
    /// [`Error::BadData`]: a socket that does not listen, has no name or a name that another one has.
    pub(crate) fn passed() -> Result<Sockets, Error> {
        // Which are meant for us, closed on exec from here on.
        let passed = sd_notify::listen_fds_with_names().map_err(|error| bad(error.to_string()))?;
        let names: Vec<String> = passed.map(|(_, name)| name).collect();
        if names.is_empty() {
            return Ok(Sockets::default());
        }
        // The same once more, owned.
        let mut descriptors = ListenFd::from_env();
        let mut left = BTreeMap::new();
        let mut cookies = BTreeSet::new();
        for (index, name) in names.into_iter().enumerate() {
            let shown = crate::text::escape(name.as_bytes(), 255);
            let socket: OwnedFd = match descriptors.take_tcp_listener(index) {
                Ok(Some(socket)) => {
                    // As our own listeners; accepted sockets inherit it.
                    sockopt::set_tcp_nodelay(&socket, true).map_err(|errno| bad(errno.to_string()))?;
                    socket.into()
                }
                _ => match descriptors.take_unix_listener(index) {
                    Ok(Some(socket)) => socket.into(),
                    _ => return Err(bad(format!("{shown:?} is neither a TCP nor a Unix stream socket"))),
                },
            };
            if sockopt::socket_acceptconn(&socket) != Ok(true) {
                return Err(bad(format!("{shown:?} does not listen")));
            }
            cookies.insert(sockopt::socket_cookie(&socket).map_err(|errno| bad(errno.to_string()))?);
            if left.insert(name, socket).is_some() {
                return Err(bad(format!("there are two of the name {shown:?}")));
            }
        }
        Ok(Sockets { left: Mutex::new(left), cookies })
    }

    /// As if the manager had passed it.
    #[cfg(test)]
    pub(crate) fn put(&self, name: &str, socket: OwnedFd) {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).insert(name.into(), socket);
    }

    /// The socket of this name, for whoever comes first.
    pub(crate) fn take(&self, name: &str) -> Option<OwnedFd> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).remove(name)
    }

    /// The socket of the node's own listener, and where it listens.
    ///
    /// # Errors
    /// [`Error::BadData`]: it is a Unix socket.
    pub(crate) fn take_listener(&self) -> Result<Option<(OwnedFd, SocketAddr)>, Error> {
        let Some(socket) = self.take(LISTENER) else { return Ok(None) };
        let local = getsockname(&socket).map(SocketAddrAny::try_into);
        match local {
            Ok(Ok(local)) => Ok(Some((socket, local))),
            _ => Err(bad(format!("{LISTENER:?} is the node's own listener, which is TCP"))),
        }
    }

    /// Whether this is a socket of the service manager, which shall go on listening when the node ends: whoever connects
    /// meanwhile waits, or starts it again. Also of a duplicate that comes back from an engine which lived on.
    pub(crate) fn is_passed(&self, socket: impl AsFd) -> bool {
        sockopt::socket_cookie(socket).is_ok_and(|cookie| self.cookies.contains(&cookie))
    }

    /// Names that nobody has taken.
    fn left(&self) -> Vec<String> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }
}

fn bad(why: String) -> Error {
    Error::BadData {
        what: "the sockets of the service manager".into(),
        why,
        fix: format!("Give each ListenStream= a FileDescriptorName=: {LISTENER}, or the alias of an inlet."),
    }
}

/// Says that the node is what it shall be, as far as it lies with this machine.
pub(crate) async fn ready(node: &Arc<Node>) {
    for name in node.activated.left() {
        tracing::warn!(name, "the service manager opened a socket for an inlet that there is not (yet)");
    }
    if is_managed() {
        tell(&[NotifyState::Ready, NotifyState::Status(&status(&health_info(node, ENGINE_ANSWER_LIMIT).await))]);
    }
}

/// Says that the node ends.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// Tells how the node is, and pings the watchdog for as long as this event loop runs and every core of the engine
/// answers. An engine that hangs is replaced in time for the unit not to fail. Does not return.
pub(crate) async fn watch(node: &Arc<Node>) {
    if !is_managed() {
        return std::future::pending().await;
    }
    let watchdog = sd_notify::watchdog_enabled();
    // sd_watchdog_enabled(3) asks for half of the period. A quarter is for the engine: on a machine that has too much to do
    // it may need long, and to kill it would make that worse.
    let pause = watchdog.map_or(STATUS_PAUSE, |period| (period / 4).min(STATUS_PAUSE));
    let limit = watchdog.map_or(ENGINE_ANSWER_LIMIT, |period| period / 4);
    let mut answered = Instant::now();
    let mut told = String::new();
    loop {
        tokio::time::sleep(pause).await;
        let health = health_info(node, limit).await;
        if health.engine.as_ref().is_some_and(|engine| engine.answers) {
            answered = Instant::now();
            if watchdog.is_some() {
                tell(&[NotifyState::Watchdog]);
            }
        } else if watchdog.is_some_and(|period| answered.elapsed() >= period / 2)
            && let Some(engine) = node.engine_now()
        {
            // The unit's next control would adopt it, and it would hang again.
            tracing::error!(pid = engine.ready.pid, "the engine does not answer; killing it");
            engine.process.kill();
        }
        let status = status(&health);
        if status != told {
            tell(&[NotifyState::Status(&status)]);
            told = status;
        }
    }
}

/// One line for `systemctl status`.
fn status(health: &HealthInfo) -> String {
    let driver = health.engine.as_ref().map_or("no engine", |engine| engine.brief.driver.as_str());
    let mut line = format!(
        "{}: {driver}; listeners {}, inlets {}, outlets {}, relays {}",
        health.status.name(),
        health.listeners.len(),
        health.inlets.len(),
        health.outlets.len(),
        health.relays.len()
    );
    for problem in &health.problems {
        line.push_str("; ");
        line.push_str(problem);
    }
    // A newline would begin another assignment.
    crate::text::escape(line.as_bytes(), STATUS_BYTES_MAX)
}

/// Longest status in bytes.
const STATUS_BYTES_MAX: usize = 1000;

fn is_managed() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

fn tell(states: &[NotifyState<'_>]) {
    // A manager that does not listen notices in its own way; the node lives all the same.
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
