//! Control's end of the connection to the engine: commands with their answers, and what the engine says unasked.
//!
//! ```text
//!   ask(command) ──► request number ──► socket ──► engine
//!        ▲                                           │
//!        └── pending[request] ◄── reader task ◄──────┘
//!                                      └──► on_notice (punts, links and channels that ended, names to resolve)
//! ```

pub mod cookie;

use ockam_engine_abi::socket::{self, Received};
use ockam_engine_abi::{ABI_VERSION, Command, Driver, Guard, LinkId, Notice, Refusal};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::{oneshot, watch};
use zeroize::Zeroize;

/// How long an engine may take to answer `Hello`.
const HELLO_LIMIT: Duration = Duration::from_secs(10);

/// What an engine says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineReady {
    /// Process id.
    pub pid: u32,
    /// The version of the binary that it runs.
    pub version: String,
    /// Which driver runs.
    pub driver: Driver,
    /// Why that one.
    pub driver_reason: String,
    /// The library that seals and opens.
    pub aead: String,
    /// Features of the processor that matter for sealing and opening.
    pub cpu_features: Vec<String>,
    /// Threads.
    pub cores: u8,
    /// Bytes of a slot that a receive can fill.
    pub slot_bytes: u32,
    /// Slots per core.
    pub slots: u32,
    /// Most links per core.
    pub links_max: u32,
    /// Seconds since it started, when it said so.
    pub uptime_s: u64,
}

/// Why a connection to an engine did not come about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// The engine closed the connection: it ended, or another control has it.
    #[error("the engine closed the connection")]
    Closed,
    /// The engine speaks another version.
    #[error("the engine speaks version {engine}")]
    Version {
        /// Its version; 0 when its answer is none.
        engine: u32,
    },
    /// No answer.
    #[error("the engine does not answer")]
    Silent,
    /// The socket failed.
    #[error("the connection to the engine failed: {0}")]
    Socket(String),
}

/// Why a command was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The engine refused.
    #[error("{}", refusal_text(*why, *errno))]
    Refused {
        /// Why.
        why: Refusal,
        /// The system's number, or 0.
        errno: i32,
    },
    /// The engine is gone; whether the command was done is not known.
    #[error("the engine is gone")]
    Away,
}

fn refusal_text(why: Refusal, errno: i32) -> String {
    match errno {
        0 => why.name().replace('_', " "),
        errno => format!("{}: {}", why.name().replace('_', " "), crate::error::errno_text(errno)),
    }
}

/// Everything that an engine has.
#[derive(Debug, Default)]
pub struct Dump {
    /// Its listeners, with duplicates of their sockets.
    pub listeners: Vec<DumpedListener>,
    /// Its links.
    pub links: Vec<DumpedLink>,
    /// Its local addresses, those of links and channels excepted.
    pub addresses: Vec<DumpedAddress>,
    /// Its secure channels.
    pub channels: Vec<DumpedChannel>,
    /// Its inlets, with duplicates of their sockets.
    pub inlets: Vec<DumpedInlet>,
}

/// See [`Notice::Listener`].
#[derive(Debug)]
pub struct DumpedListener {
    /// Control's number for it.
    pub listener: u32,
    /// Bound address.
    pub local: SocketAddr,
    /// The flow control of its links.
    pub flow_control: u8,
    /// As given.
    pub cookie: Vec<u8>,
    /// A duplicate of its socket.
    pub socket: Option<OwnedFd>,
}

/// See [`Notice::Link`].
#[derive(Debug, Clone)]
pub struct DumpedLink {
    /// Its name.
    pub link: LinkId,
    /// Its local address.
    pub address: Vec<u8>,
    /// The peer.
    pub peer: SocketAddr,
    /// This side.
    pub local: SocketAddr,
    /// How it came to be.
    pub origin: ockam_engine_abi::LinkOrigin,
    /// Its flow control.
    pub flow_control: u8,
    /// What it carried.
    pub traffic: ockam_engine_abi::notice::Traffic,
    /// Bytes that wait to be sent.
    pub queued_bytes: u64,
    /// As given to `Dial`, or that of its listener.
    pub cookie: Vec<u8>,
}

/// See [`Notice::Address`].
#[derive(Debug, Clone)]
pub struct DumpedAddress {
    /// The name.
    pub address: Vec<u8>,
    /// What is there.
    pub target: ockam_engine_abi::Target,
    /// Which flow controls may reach it.
    pub reachable: u64,
    /// Its guard.
    pub guard: Option<Guard>,
    /// As given.
    pub cookie: Vec<u8>,
}

/// See [`Notice::Channel`].
#[derive(Debug, Clone)]
pub struct DumpedChannel {
    /// Control's number for it.
    pub channel: u32,
    /// The local name of its receiving side.
    pub decryptor: Vec<u8>,
    /// The local name of its sending side.
    pub encryptor: Vec<u8>,
    /// The way to the peer, as a message without payload.
    pub way: Vec<u8>,
    /// The flow control of what comes out of it.
    pub flow_control: u8,
    /// Milliseconds until it ends.
    pub expires_in_ms: Option<u64>,
    /// What it carried.
    pub traffic: ockam_engine_abi::notice::ChannelTraffic,
    /// As given.
    pub cookie: Vec<u8>,
}

/// See [`Notice::Inlet`].
#[derive(Debug)]
pub struct DumpedInlet {
    /// Control's number for it.
    pub inlet: u32,
    /// Where its new connections go, as a message without payload.
    pub way: Option<Vec<u8>>,
    /// Connections that it has now.
    pub connections: u32,
    /// Its guard.
    pub guard: Option<Guard>,
    /// As given.
    pub cookie: Vec<u8>,
    /// A duplicate of its socket.
    pub socket: Option<OwnedFd>,
}

/// A link that control asked for.
#[derive(Debug, Clone)]
pub struct DialedLink {
    /// Its name.
    pub link: LinkId,
    /// The local address to send to.
    pub address: Vec<u8>,
    /// The peer.
    pub peer: SocketAddr,
    /// This side.
    pub local: SocketAddr,
}

/// A command on its way. One with keys is wiped, whatever becomes of it.
struct Record {
    bytes: Vec<u8>,
    secret: bool,
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.secret {
            self.bytes.zeroize();
        }
    }
}

enum Pending {
    Answer(oneshot::Sender<Notice>),
    Dump(Dump, oneshot::Sender<Dump>),
}

struct Shared {
    socket: UnixDatagram,
    next_request: AtomicU64,
    /// `None` once the connection is over.
    pending: Mutex<Option<HashMap<u64, Pending>>>,
    closed: watch::Sender<bool>,
}

/// A connection to an engine. Clones are the same connection.
#[derive(Clone)]
pub struct EngineLink {
    shared: Arc<Shared>,
}

impl EngineLink {
    /// Says hello on a connected non-blocking socket. `on_notice` is called with what is no answer, in order, and must
    /// not wait. Gives the memfd of the counters, too.
    ///
    /// # Errors
    /// [`HelloError`].
    pub async fn open(
        socket: OwnedFd,
        on_notice: impl Fn(Notice) + Send + 'static,
    ) -> Result<(EngineLink, EngineReady, OwnedFd), HelloError> {
        let failed = |error: io::Error| HelloError::Socket(error.to_string());
        // Tokio has no type for seqpacket sockets; this one waits for readiness and reads and writes nothing itself.
        let socket = UnixDatagram::from_std(std::os::unix::net::UnixDatagram::from(socket)).map_err(failed)?;
        let hello = Command::Hello { abi_version: ABI_VERSION }.to_bytes();
        let answer = tokio::time::timeout(HELLO_LIMIT, async {
            match socket.async_io(Interest::WRITABLE, || socket::send(&socket, &hello, None)).await {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(None),
                sent => sent?,
            }
            match socket.async_io(Interest::READABLE, || socket::receive(&socket)).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
                received => received,
            }
        });
        let answer = answer.await.map_err(|_| HelloError::Silent)?.map_err(failed)?;
        let Received { record, descriptor } = answer.ok_or(HelloError::Closed)?;
        let (ready, counters) = match (Notice::from_bytes(&record), descriptor) {
            (
                Ok(Notice::Ready {
                    abi_version: ABI_VERSION,
                    pid,
                    version,
                    driver,
                    driver_reason,
                    aead,
                    cpu_features,
                    cores,
                    slot_bytes,
                    slots,
                    links_max,
                    uptime_s,
                }),
                Some(counters),
            ) => {
                let ready = EngineReady {
                    pid,
                    version,
                    driver,
                    driver_reason,
                    aead,
                    cpu_features,
                    cores,
                    slot_bytes,
                    slots,
                    links_max,
                    uptime_s,
                };
                (ready, counters)
            }
            (Ok(Notice::VersionMismatch { ours, .. }), _) => return Err(HelloError::Version { engine: ours }),
            _ => return Err(HelloError::Version { engine: 0 }),
        };
        let (closed, _) = watch::channel(false);
        let pending = Mutex::new(Some(HashMap::new()));
        let shared = Arc::new(Shared { socket, next_request: AtomicU64::new(1), pending, closed });
        tokio::spawn(read(shared.clone(), on_notice));
        Ok((EngineLink { shared }, ready, counters))
    }

    /// A number for a request that nobody else has.
    pub fn new_request(&self) -> u64 {
        self.shared.next_request.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends a command that is answered by `Applied`, and waits for that.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn apply(&self, make: impl FnOnce(u64) -> Command) -> Result<(), CommandError> {
        let request = self.new_request();
        self.ask(request, make(request), None).await.map(drop)
    }

    /// The same with a descriptor beside it.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn apply_with(
        &self,
        descriptor: BorrowedFd<'_>,
        make: impl FnOnce(u64) -> Command,
    ) -> Result<(), CommandError> {
        let request = self.new_request();
        self.ask(request, make(request), Some(descriptor)).await.map(drop)
    }

    /// Sends a message of control; that it did not leave this node is no error here but a notice. `request` comes from [`EngineLink::new_request`], so that the caller can be waiting
    /// for `Undelivered` before it sends.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn transmit(&self, request: u64, message: Vec<u8>) -> Result<(), CommandError> {
        self.ask(request, Command::Transmit { request, message: message.into() }, None).await.map(drop)
    }

    /// Installs a channel: `command` is that, with a number of [`EngineLink::new_request`].
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn install(&self, command: Command) -> Result<(), CommandError> {
        let Command::InstallChannel { request, .. } = command else {
            return Err(CommandError::Refused { why: Refusal::Invalid, errno: 0 });
        };
        self.ask(request, command, None).await.map(drop)
    }

    /// Opens a link. One that comes up after the caller stopped waiting is closed again.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn dial(&self, target: SocketAddr, cookie: Vec<u8>) -> Result<DialedLink, CommandError> {
        let (answer, answered) = oneshot::channel();
        let engine = self.clone();
        tokio::spawn(async move {
            let request = engine.new_request();
            let command = Command::Dial { request, target, cookie: cookie.into() };
            let dialed = engine.ask(request, command, None).await.map(|notice| match notice {
                Notice::LinkUp { link, address, peer, local, .. } => {
                    Some(DialedLink { link, address: address.0, peer, local })
                }
                _ => None,
            });
            let late = answer.send(dialed);
            if let Err(Ok(Some(dialed))) = late {
                engine.close(dialed.link).await;
            }
        });
        match answered.await {
            Ok(Ok(Some(dialed))) => Ok(dialed),
            Ok(Err(error)) => Err(error),
            // An engine that answers `Applied` to `Dial` is none.
            Ok(Ok(None)) | Err(_) => Err(CommandError::Away),
        }
    }

    /// Closes a link; one that is gone already stays so.
    pub async fn close(&self, link: LinkId) {
        if let Err(error) = self.apply(|request| Command::CloseLink { request, link }).await {
            tracing::debug!(?link, %error, "nothing to close");
        }
    }

    /// Answers `Resolve`. It has no answer itself.
    pub async fn resolved(&self, link: LinkId, addresses: Vec<SocketAddr>) {
        if let Err(error) = self.send(&Command::Resolved { link, addresses }, None).await {
            tracing::debug!(?link, %error, "nobody to tell what a name stands for");
        }
    }

    /// Asks for everything that the engine has.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn dump(&self) -> Result<Dump, CommandError> {
        let request = self.new_request();
        let (answer, answered) = oneshot::channel();
        self.expect(request, Pending::Dump(Dump::default(), answer))?;
        if self.send(&Command::Dump { request }, None).await.is_err() {
            self.shared.close();
            return Err(CommandError::Away);
        }
        answered.await.map_err(|_| CommandError::Away)
    }

    /// Whether the connection is over.
    pub fn is_closed(&self) -> bool {
        *self.shared.closed.borrow()
    }

    /// Returns when the connection is over.
    pub async fn closed(&self) {
        // The sender lives as long as `self`.
        let _ = self.shared.closed.subscribe().wait_for(|closed| *closed).await;
    }

    async fn ask(
        &self,
        request: u64,
        command: Command,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<Notice, CommandError> {
        let (answer, answered) = oneshot::channel();
        self.expect(request, Pending::Answer(answer))?;
        if let Err(error) = self.send(&command, descriptor).await {
            tracing::debug!(%error, "cannot send to the engine");
            self.shared.close();
            return Err(CommandError::Away);
        }
        // Keys in it do not wait for the answer.
        drop(command);
        match answered.await {
            Ok(Notice::Refused { why, errno, .. }) => Err(CommandError::Refused { why, errno }),
            Ok(notice) => Ok(notice),
            Err(_) => Err(CommandError::Away),
        }
    }

    async fn send(&self, command: &Command, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let record = Record { bytes: command.to_bytes(), secret: matches!(command, Command::InstallChannel { .. }) };
        let socket = &self.shared.socket;
        socket.async_io(Interest::WRITABLE, || socket::send(socket, &record.bytes, descriptor)).await
    }

    fn expect(&self, request: u64, pending: Pending) -> Result<(), CommandError> {
        let mut all = self.shared.pending();
        all.as_mut().ok_or(CommandError::Away)?.insert(request, pending);
        Ok(())
    }
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Option<HashMap<u64, Pending>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who waits for an answer gets none: that is how they learn that the engine is gone.
    fn close(&self) {
        self.closed.send_replace(true);
        *self.pending() = None;
    }

    /// Gives a notice to who waits for it; gives back what nobody asked for.
    fn answer(&self, notice: Notice, descriptor: Option<OwnedFd>) -> Option<Notice> {
        let mut all = self.pending();
        let all = all.as_mut()?;
        match notice {
            Notice::Applied { request } | Notice::Refused { request, .. } | Notice::LinkUp { request, .. } => {
                match all.remove(&request) {
                    Some(Pending::Answer(answer)) => {
                        // Who asked may have stopped waiting.
                        if let Err(Notice::LinkUp { .. }) = answer.send(notice) {
                            tracing::warn!(request, "a link came up that nobody waits for");
                        }
                    }
                    // A dump is refused.
                    Some(Pending::Dump(..)) => {}
                    None => tracing::debug!(request, "an answer that nobody waits for"),
                }
            }
            Notice::Listener { request, listener, local, flow_control, cookie } => {
                if let Some(Pending::Dump(dump, _)) = all.get_mut(&request) {
                    let cookie = cookie.0;
                    dump.listeners.push(DumpedListener { listener, local, flow_control, cookie, socket: descriptor });
                }
            }
            Notice::Link {
                request,
                link,
                address,
                peer,
                local,
                origin,
                flow_control,
                traffic,
                queued_bytes,
                cookie,
            } => {
                if let Some(Pending::Dump(dump, _)) = all.get_mut(&request) {
                    let (address, cookie) = (address.0, cookie.0);
                    dump.links.push(DumpedLink {
                        link,
                        address,
                        peer,
                        local,
                        origin,
                        flow_control,
                        traffic,
                        queued_bytes,
                        cookie,
                    });
                }
            }
            Notice::Address { request, address, target, reachable, guard, cookie } => {
                if let Some(Pending::Dump(dump, _)) = all.get_mut(&request) {
                    let (address, cookie) = (address.0, cookie.0);
                    dump.addresses.push(DumpedAddress { address, target, reachable, guard, cookie });
                }
            }
            Notice::Channel {
                request,
                channel,
                decryptor,
                encryptor,
                way,
                flow_control,
                expires_in_ms,
                traffic,
                cookie,
            } => {
                if let Some(Pending::Dump(dump, _)) = all.get_mut(&request) {
                    let (decryptor, encryptor, way, cookie) = (decryptor.0, encryptor.0, way.0, cookie.0);
                    dump.channels.push(DumpedChannel {
                        channel,
                        decryptor,
                        encryptor,
                        way,
                        flow_control,
                        expires_in_ms,
                        traffic,
                        cookie,
                    });
                }
            }
            Notice::DumpEnd { request } => {
                if let Some(Pending::Dump(dump, answer)) = all.remove(&request) {
                    let _ = answer.send(dump);
                }
            }
            Notice::Ready { .. } | Notice::VersionMismatch { .. } => tracing::warn!("a second answer to hello"),
            // It may be the only answer to `Transmit`, or come after `Applied`: either way it is for who waits for a reply.
            undelivered @ Notice::Undelivered { request, .. } => {
                if let Some(Pending::Answer(answer)) = all.remove(&request) {
                    let _ = answer.send(Notice::Applied { request });
                }
                return Some(undelivered);
            }
            unasked @ (Notice::LinkDown { .. }
            | Notice::Resolve { .. }
            | Notice::Punt { .. }
            | Notice::ChannelClosed { .. }
            | Notice::CredentialsShown { .. }
            | Notice::RelayGone { .. }
            | Notice::OutletFailed { .. }
            | Notice::InletUnanswered { .. }) => return Some(unasked),
            Notice::Inlet { request, inlet, way, connections, guard, cookie } => {
                if let Some(Pending::Dump(dump, _)) = all.get_mut(&request) {
                    let (way, cookie) = (way.map(|way| way.0), cookie.0);
                    dump.inlets.push(DumpedInlet { inlet, way, connections, guard, cookie, socket: descriptor });
                }
            }
        }
        None
    }
}

async fn read(shared: Arc<Shared>, on_notice: impl Fn(Notice) + Send + 'static) {
    loop {
        let received = match shared.socket.async_io(Interest::READABLE, || socket::receive(&shared.socket)).await {
            Ok(Some(received)) => received,
            Ok(None) => break,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
            Err(error) => {
                tracing::error!(%error, "the connection to the engine failed");
                break;
            }
        };
        match Notice::from_bytes(&received.record) {
            Ok(notice) => {
                if let Some(unasked) = shared.answer(notice, received.descriptor) {
                    on_notice(unasked);
                }
            }
            Err(error) => {
                tracing::error!(%error, "the engine sent what is no notice");
                break;
            }
        }
    }
    shared.close();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeEngine, pair};
    use ockam_engine_abi::Target;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn commands_are_answered_and_the_end_is_noticed() {
        runtime().block_on(async {
            let engine = FakeEngine::start();
            let (link, ready, counters) = EngineLink::open(engine.connect(), |_| ()).await.unwrap();
            assert_eq!((ready.driver, ready.cores), (Driver::Epoll, 1));
            assert_eq!(ockam_engine_abi::Counters::read(&counters, 1).unwrap().cores(), 1);

            let set = |request| Command::SetAddress {
                request,
                address: b"echo".to_vec().into(),
                target: Target::Echo,
                reachable: 3,
                guard: None,
                cookie: vec![7].into(),
            };
            link.apply(set).await.unwrap();
            let unknown = link.apply(|request| Command::ClearAddress { request, address: b"x".to_vec().into() }).await;
            assert_eq!(unknown, Err(CommandError::Refused { why: Refusal::Unknown, errno: 0 }));
            let dump = link.dump().await.unwrap();
            assert_eq!(dump.addresses.len(), 1);
            assert_eq!((dump.addresses[0].reachable, dump.addresses[0].cookie.as_slice()), (3, &[7][..]));

            engine.kill();
            link.closed().await;
            assert_eq!(link.apply(set).await, Err(CommandError::Away));
            assert_eq!(link.dump().await.err(), Some(CommandError::Away));
        });
    }

    #[test]
    fn another_version_and_a_closed_connection_are_told_apart() {
        runtime().block_on(async {
            let (ours, theirs) = pair();
            let answer = Notice::VersionMismatch { ours: 9, theirs: ABI_VERSION };
            socket::send(&theirs, &answer.to_bytes(), None).unwrap();
            assert_eq!(EngineLink::open(ours, |_| ()).await.err(), Some(HelloError::Version { engine: 9 }));

            let (ours, theirs) = pair();
            drop(theirs);
            assert_eq!(EngineLink::open(ours, |_| ()).await.err(), Some(HelloError::Closed));
        });
    }
}
