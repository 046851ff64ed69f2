//! Ends the processes of a node, whatever state they are in, and removes a node. Blocking, for the command line.

use crate::api::NodeStatus;
use crate::error::Error;
use crate::home::{Home, Lock, NodeDir, NodeName, Part};
use crate::store::SharedStore;
use ockam_engine_abi::{ABI_VERSION, Command, socket};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long control may take to end the node, its engine included, before it is killed.
const CONTROL_LIMIT: Duration = Duration::from_secs(10);

/// How long links may go on after they are told to end.
pub(crate) const DRAIN_MS: u32 = 1000;

/// How long an engine may take to end after it was told so, before it is killed.
pub(crate) const DRAIN_LIMIT: Duration = Duration::from_secs(3);

/// How soon an engine that has its lock and does not listen is asked again.
pub(crate) const ENGINE_SILENCE: Duration = Duration::from_millis(2);

/// How long a killed process may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// Stops a node. Says what it was before.
///
/// # Errors
/// [`Error::DoesNotEnd`], [`Error::Storage`].
pub fn stop(dir: &NodeDir) -> Result<NodeStatus, Error> {
    if !dir.path().exists() {
        return Ok(NodeStatus::Stopped);
    }
    let _change = dir.lock_change()?;
    stop_locked(dir)
}

/// Stops a node, then removes it.
///
/// # Errors
/// [`Error::NoSuchNode`], [`Error::DoesNotEnd`], [`Error::Storage`].
pub fn delete(home: &Home, name: &NodeName) -> Result<(), Error> {
    let Some(mut store) = SharedStore::open_existing(home)? else {
        return Err(crate::store::shared::no_node_at_all(name));
    };
    store.require(name)?;
    let dir = home.node(name);
    let _change = if dir.path().exists() {
        let change = dir.lock_change()?;
        stop_locked(&dir)?;
        Some(change)
    } else {
        None
    };
    // The name goes first: a directory without a name is nobody's and is cleared by the next node of that name.
    store.remove(name)?;
    dir.remove()
}

fn stop_locked(dir: &NodeDir) -> Result<NodeStatus, Error> {
    let before = dir.status()?;
    if before == NodeStatus::Running {
        end_control(dir)?;
    }
    if dir.status()? == NodeStatus::Headless {
        end_engine(dir)?;
    }
    Ok(before)
}

fn end_control(dir: &NodeDir) -> Result<(), Error> {
    let Some((_connection, process)) = peer_of(dir.control_socket()?.as_path(), SocketType::STREAM) else {
        // It holds its lock and does not listen: it is between its last answer and its end.
        return wait_for_lock(dir);
    };
    // The pid was read before the process was held: only if control lived after that is it the same process.
    if dir.status()? == NodeStatus::Running {
        let _ = pidfd_send_signal(&process, Signal::TERM);
        if !ends_within(&process, CONTROL_LIMIT) {
            let _ = pidfd_send_signal(&process, Signal::KILL);
            if !ends_within(&process, KILL_LIMIT) {
                return Err(Error::DoesNotEnd { node: dir.name().to_string(), process: "control process" });
            }
        }
    }
    Ok(())
}

fn wait_for_lock(dir: &NodeDir) -> Result<(), Error> {
    Lock::take(&dir.control_lock(), Part::Life).map(drop)
}

fn end_engine(dir: &NodeDir) -> Result<(), Error> {
    let Some((connection, process)) = engine_of(dir)? else { return Ok(()) };
    if dir.status()? != NodeStatus::Headless {
        return Ok(());
    }
    let hello = Command::Hello { abi_version: ABI_VERSION };
    let drain = Command::Drain { request: 1, limit_ms: DRAIN_MS, release_ports: true };
    let told = [hello, drain].iter().try_for_each(|command| socket::send(&connection, &command.to_bytes(), None));
    // An engine that cannot be told (another version, a full socket) is ended like one that does not listen.
    if told.is_err() || !ends_within(&process, DRAIN_LIMIT) {
        let _ = pidfd_send_signal(&process, Signal::KILL);
        if !ends_within(&process, KILL_LIMIT) {
            return Err(Error::DoesNotEnd { node: dir.name().to_string(), process: "engine" });
        }
    }
    Ok(())
}

/// The engine of a node, if it has one. An engine that has its lock and does not listen is about to do so, or about to
/// end. Neither is an event that could be waited for, so it is asked again.
fn engine_of(dir: &NodeDir) -> Result<Option<(OwnedFd, OwnedFd)>, Error> {
    let end = Instant::now() + DRAIN_LIMIT;
    loop {
        let peer = peer_of(dir.engine_socket()?.as_path(), SocketType::SEQPACKET);
        if peer.is_some() || !Lock::is_held(&dir.engine_lock(), Part::Life)? {
            return Ok(peer);
        }
        if Instant::now() >= end {
            return Err(Error::DoesNotEnd { node: dir.name().to_string(), process: "engine" });
        }
        std::thread::sleep(ENGINE_SILENCE);
    }
}

/// Connects to the socket of a process and takes hold of the process.
fn peer_of(path: &Path, kind: SocketType) -> Option<(OwnedFd, OwnedFd)> {
    let connection = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).ok()?;
    connect(&connection, &SocketAddrUnix::new(path).ok()?).ok()?;
    let process = pidfd_open(socket_peercred(&connection).ok()?.pid, PidfdFlags::empty()).ok()?;
    Some((connection, process))
}

/// Waits for the end of a process.
fn ends_within(process: &OwnedFd, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&left)) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// A process by its number, as long as it is sure that the number is still its own.
pub(crate) fn hold_process(pid: u32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid.try_into().ok()?)?, PidfdFlags::empty()).ok()
}
