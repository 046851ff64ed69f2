//! Brings the engine up, watches it, and brings it up again.
//!
//! The engine outlives control, so a control that starts looks for a living one first and adopts it. When the engine
//! dies, a new one takes over the listening sockets that control kept: connections wait in their backlog meanwhile.

use crate::engine_link::{Dump, EngineLink, HelloError};
use crate::error::Error;
use crate::home::{Lock, NodeDir, Part};
use crate::node::{Engine, Node};
use crate::process::spawn::spawn_engine;
use crate::process::stop::{DRAIN_LIMIT, DRAIN_MS, ENGINE_SILENCE, hold_process};
use crate::store::Settings;
use ockam_engine_abi::Command;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{Signal, pidfd_send_signal};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::unix::pipe;
use tokio::sync::watch;

/// A living engine lets a second control connection wait no longer than until it noticed the end of the first.
const ADOPT_TRIES_MAX: u32 = 100;
const ADOPT_PAUSE: Duration = Duration::from_millis(10);

/// An engine that lived at least this long is started again at once; one that did not, after a pause. The pauses add up
/// to less than a peer would notice: a control that lets an engine rest for seconds is worse than one that tries.
const STEADY: Duration = Duration::from_millis(500);
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Pauses when none can be started at all.
const FAILED_PAUSE_MIN: Duration = Duration::from_millis(100);
const FAILED_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Listeners that are down are tried again after this time, then ever later.
const LISTENER_PAUSE_MIN: Duration = Duration::from_secs(1);
const LISTENER_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Longest piece of the engine's log in an error.
const LOG_TAIL_BYTES_MAX: u64 = 4096;

/// The process of an engine.
pub(crate) struct EngineProcess {
    /// Readable once the process ended.
    process: OwnedFd,
    /// The same, where tokio waits for it. It is no pipe, and nothing is read from it.
    ended: pipe::Receiver,
    /// Present when this control started it, so that it must collect its status.
    child: Mutex<Option<Child>>,
}

impl EngineProcess {
    fn new(process: OwnedFd, child: Option<Child>) -> Result<EngineProcess, Error> {
        let ended = process.try_clone().and_then(pipe::Receiver::from_owned_fd_unchecked);
        let ended = ended.map_err(|error| Error::internal(format!("cannot watch the engine: {error}")))?;
        Ok(EngineProcess { process, ended, child: Mutex::new(child) })
    }

    /// Returns when the process ended.
    pub(crate) async fn ended(&self) {
        // An error means that the runtime ends, and then this process does.
        let _ = self.ended.readable().await;
        if let Some(mut child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).take() {
            match child.wait() {
                Ok(status) => tracing::debug!(%status, "the engine ended"),
                Err(error) => tracing::warn!(%error, "cannot collect the status of the engine"),
            }
        }
    }

    pub(crate) fn kill(&self) {
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
    }
}

/// A process that is or will be an engine, and a connection to it.
pub(crate) struct Started {
    pub(crate) socket: OwnedFd,
    /// Readable once the process ended.
    pub(crate) process: OwnedFd,
    pub(crate) child: Option<Child>,
    /// It lived before.
    pub(crate) adopted: bool,
}

/// Finds or starts an engine.
pub(crate) type Start = Box<dyn Fn(&NodeDir, &Settings) -> Result<Started, Error> + Send + Sync>;

/// Connects to the living engine, else starts one.
pub(crate) fn adopt_or_spawn(dir: &NodeDir, settings: &Settings) -> Result<Started, Error> {
    let end = Instant::now() + DRAIN_LIMIT;
    loop {
        if let Some((socket, process)) = connect_to_engine(dir) {
            return Ok(Started { socket, process, child: None, adopted: true });
        }
        // An engine that has its lock and does not listen was started by a control that died at once, and is about to
        // listen, or is about to end. A second one would only be refused the lock.
        if !Lock::is_held(&dir.engine_lock(), Part::Life)? || Instant::now() >= end {
            break;
        }
        std::thread::sleep(ENGINE_SILENCE);
    }
    let spawned = spawn_engine(dir, settings)?;
    match hold_process(spawned.child.id()) {
        Some(process) => Ok(Started { socket: spawned.socket, process, child: Some(spawned.child), adopted: false }),
        // Its socket closes with `spawned`, and an engine whose first connection ends before hello is not kept.
        None => Err(Error::internal("cannot watch a process: pidfd_open failed")),
    }
}

fn connect_to_engine(dir: &NodeDir) -> Option<(OwnedFd, OwnedFd)> {
    let path = dir.engine_socket().ok()?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).ok()?;
    connect(&socket, &SocketAddrUnix::new(path.as_path()).ok()?).ok()?;
    let process = hold_process(u32::try_from(socket_peercred(&socket).ok()?.pid.as_raw_nonzero().get()).ok()?)?;
    Some((socket, process))
}

pub(crate) struct Supervisor {
    node: Arc<Node>,
    start: Start,
    /// Set once the node ends, so that its engine is not started again.
    stopping: AtomicBool,
    /// Incremented by whoever wants another engine.
    replaced: watch::Sender<u64>,
}

impl Supervisor {
    pub(crate) fn new(node: Arc<Node>, start: Start) -> Arc<Supervisor> {
        Arc::new(Supervisor { node, start, stopping: AtomicBool::new(false), replaced: watch::Sender::new(0) })
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Adopts or starts an engine and brings it to the stored state. It is the node's engine when this returns.
    ///
    /// # Errors
    /// [`Error::EngineDied`], [`Error::EngineVersion`], those of [`Node::reconcile`]. An engine that was started for
    /// this is gone then.
    pub(crate) async fn bring_up(&self) -> Result<(), Error> {
        let settings = self.node.store().await.settings()?;
        let log_end = std::fs::metadata(self.node.dir.engine_log()).map_or(0, |metadata| metadata.len());
        let mut tries = 0;
        let (started, opened) = loop {
            let Started { socket, process, child, adopted } = (self.start)(&self.node.dir, &settings)?;
            let process = EngineProcess::new(process, child)?;
            // The reader task is given what the engine says unasked before this function has the link itself.
            let (tell_link, link_told) = watch::channel::<Option<EngineLink>>(None);
            let node = self.node.clone();
            let on_notice = move |notice| {
                if let Some(link) = link_told.borrow().as_ref() {
                    node.on_notice(link, notice);
                }
            };
            match EngineLink::open(socket, on_notice).await {
                Ok((link, ready, counters)) => {
                    tell_link.send_replace(Some(link.clone()));
                    break ((process, adopted), (link, ready, counters));
                }
                Err(HelloError::Closed) if adopted && tries < ADOPT_TRIES_MAX => {
                    tries += 1;
                    tokio::time::sleep(ADOPT_PAUSE).await;
                }
                Err(HelloError::Version { engine }) => {
                    let node = self.node.name();
                    return Err(Error::EngineVersion { node, engine, control: ockam_engine_abi::ABI_VERSION });
                }
                Err(error) => {
                    tracing::error!(%error, adopted, "no engine");
                    if !adopted {
                        process.kill();
                        process.ended().await;
                    }
                    return Err(self.engine_died(log_end));
                }
            }
        };
        let (process, adopted) = started;
        let (link, ready, counters) = opened;
        if let Err(error) = self.reconcile(&link, adopted).await {
            if !adopted {
                process.kill();
                process.ended().await;
            }
            return Err(error);
        }
        tracing::info!(
            pid = ready.pid,
            driver = ready.driver.name(),
            reason = ready.driver_reason,
            cores = ready.cores,
            adopted,
            "the engine runs"
        );
        self.node.set_engine(Some(Arc::new(Engine { link, ready, counters, process, met: Instant::now() })));
        crate::trust::resume(&self.node);
        crate::channels::resume(&self.node);
        crate::portals::resume(&self.node);
        crate::relays::resume(&self.node);
        Ok(())
    }

    async fn reconcile(&self, link: &EngineLink, adopted: bool) -> Result<(), Error> {
        let has = match adopted {
            true => link.dump().await.map_err(|error| self.node.command_failed("say what it has", error))?,
            false => Dump::default(),
        };
        let is_start = *self.replaced.borrow() == 0 && self.node.restarts.load(Ordering::Relaxed) == 0;
        self.node.reconcile(link, has, is_start).await
    }

    fn engine_died(&self, log_from: u64) -> Error {
        let log = self.node.dir.engine_log();
        let tail = File::open(&log).and_then(|mut file| {
            let mut text = Vec::new();
            file.seek(SeekFrom::Start(log_from))?;
            file.take(LOG_TAIL_BYTES_MAX).read_to_end(&mut text)?;
            Ok(text)
        });
        let tail = tail.unwrap_or_default();
        let line = tail.split(|byte| *byte == b'\n').rfind(|line| !line.trim_ascii().is_empty()).unwrap_or_default();
        Error::EngineDied { node: self.node.name(), why: crate::text::escape(line.trim_ascii(), 300), log }
    }

    /// Watches the engine, and brings up another one whenever it is gone. Returns when the node ends.
    pub(crate) async fn watch(&self) {
        let mut pause = Duration::ZERO;
        let mut listener_pause = LISTENER_PAUSE_MIN;
        loop {
            if let Some(engine) = self.node.engine_now() {
                if self.node.has_listener_down() {
                    tokio::select! {
                        () = engine.process.ended() => {}
                        () = engine.link.closed() => {}
                        () = tokio::time::sleep(listener_pause) => {
                            let all_up = self.node.retry_listeners().await;
                            listener_pause =
                                if all_up { LISTENER_PAUSE_MIN } else { (2 * listener_pause).min(LISTENER_PAUSE_MAX) };
                            continue;
                        }
                    }
                } else {
                    tokio::select! {
                        () = engine.process.ended() => {}
                        () = engine.link.closed() => {}
                    }
                }
                self.node.set_engine(None);
                if self.stopping.load(Ordering::Acquire) {
                    // It says good-bye before it has tidied up; who told it to end waits for that.
                    return;
                }
                // Its connection may have failed while it lives, and then it is of no use.
                engine.process.kill();
                engine.process.ended().await;
                let restarts = self.node.count_restart();
                tracing::warn!(pid = engine.ready.pid, restarts, "the engine ended; starting another one");
                let steady = engine.met.elapsed() >= STEADY;
                pause = if steady { Duration::ZERO } else { (2 * pause).clamp(PAUSE_MIN, PAUSE_MAX) };
            }
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
            tokio::time::sleep(pause).await;
            match self.bring_up().await {
                Ok(()) => {
                    self.replaced.send_modify(|count| *count += 1);
                }
                Err(error) => {
                    tracing::error!(%error, "the engine cannot be started");
                    pause = (2 * pause).clamp(FAILED_PAUSE_MIN, FAILED_PAUSE_MAX);
                }
            }
        }
    }

    /// Ends the engine and waits for its successor.
    ///
    /// # Errors
    /// [`Error::EngineAway`] when none came.
    pub(crate) async fn restart(&self) -> Result<(), Error> {
        let mut replaced = self.replaced.subscribe();
        let before = *replaced.borrow_and_update();
        let engine = self.node.engine().await?;
        self.end(&engine).await;
        let came = replaced.wait_for(|count| *count > before);
        match tokio::time::timeout(Duration::from_secs(20), came).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Error::EngineAway { node: self.node.name() }),
        }
    }

    /// Ends the engine for good. Says whether it had to be killed.
    pub(crate) async fn stop(&self) -> bool {
        self.stopping.store(true, Ordering::Release);
        let killed = match self.node.engine_now() {
            Some(engine) => self.end(&engine).await,
            None => false,
        };
        self.node.release_listeners();
        killed
    }

    async fn end(&self, engine: &Engine) -> bool {
        let drained = tokio::time::timeout(DRAIN_LIMIT, async {
            let drain = |request| Command::Drain { request, limit_ms: DRAIN_MS, release_ports: false };
            if let Err(error) = engine.link.apply(drain).await {
                tracing::debug!(%error, "the engine did not say that it drains");
            }
            engine.process.ended().await;
        });
        let killed = drained.await.is_err();
        if killed {
            tracing::warn!("the engine does not end; killing it");
            engine.process.kill();
            engine.process.ended().await;
        }
        killed
    }
}
