//! What the threads of an engine share: bounded queues, one per pair and direction, and a few words.
//!
//! The aim is that almost no frame crosses from one core to another. Those that do move as segments: the slot stays with
//! the core that received it, and the sending core gives the segment back by [`Cross::Release`].

use super::portals::Said;
use crate::config::{CROSS_QUEUE, NOTICE_QUEUE, SOCKETS_MAX};
use crate::io::pool::Segment;
use crate::io::waker::Waker;
use crate::path::channel::{Channel, Handshake, Way};
use crate::path::tables::{Access, Directory, Outlet, ReplyKey};
use crossbeam_queue::ArrayQueue;
use foldhash::{HashMap, HashMapExt};
use ockam_engine_abi::{ChannelEnd, Guard, GuardSet, LinkId, Notice, Target, TransitRule};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};

/// Segments of one frame: head and small payloads, a payload left where it was received, what follows it.
pub type FrameSegments = [Option<Segment>; 3];

/// From one core to another.
#[derive(Debug)]
pub enum Cross {
    /// A frame to send on a link of the other core.
    Frame {
        /// Which link.
        link: LinkId,
        /// The place that the link may answer to from now on.
        reply: Option<ReplyKey>,
        /// The frame.
        segments: FrameSegments,
    },
    /// A message to seal for a channel whose way begins with a link of the other core.
    Seal {
        /// Which.
        channel: Arc<Channel>,
        /// The message, as a frame.
        segments: FrameSegments,
    },
    /// A segment of the other core's pool was sent.
    Release(Segment),
    /// A new connection for the other core.
    Adopt {
        /// The connection.
        socket: OwnedFd,
        /// Control's number of the listener.
        listener: u32,
        /// The flow control of its links.
        flow_control: u8,
    },
    /// A new connection of an application for the other core.
    AdoptStream {
        /// The connection.
        socket: OwnedFd,
        /// Control's number of the inlet.
        inlet: u32,
    },
    /// Something is said to a connection of an application.
    Said {
        /// Which.
        link: LinkId,
        /// What.
        said: Said,
    },
}

/// From the attendant to a core.
#[derive(Debug)]
pub enum ToCore {
    /// Accept on this socket.
    Listen { request: u64, listener: u32, socket: OwnedFd, flow_control: u8 },
    /// Accept no more.
    Unlisten { request: u64, listener: u32 },
    /// Open a link.
    Dial { request: u64, target: SocketAddr, cookie: Box<[u8]> },
    /// Close a link.
    Close { request: u64, link: LinkId },
    /// A name is resolved.
    Resolved { link: LinkId, addresses: Vec<SocketAddr> },
    /// An inlet; on one core with the socket to accept on.
    AddInlet { request: u64, inlet: u32, guard: Option<Guard>, socket: Option<OwnedFd>, connections: Arc<AtomicU32> },
    /// Where an inlet's new connections go.
    RouteInlet { request: u64, inlet: u32, way: Option<Arc<Way>>, wait_ms: u32 },
    /// Accept no more, and end its connections.
    RemoveInlet { request: u64, inlet: u32 },
    /// Set an outlet.
    SetOutlet { request: u64, outlet: Arc<Outlet>, reachable: u64 },
    /// Set a relay.
    SetRelay { request: u64, address: Arc<[u8]>, way: Option<Arc<Way>>, reachable: u64, serial: u64 },
    /// Set an address. With it, if it is a handshake's, where what comes for it waits.
    Set {
        request: u64,
        address: Arc<[u8]>,
        target: Target,
        access: Access,
        serial: u64,
        handshake: Option<Arc<Handshake>>,
    },
    /// Clear an address.
    Clear { request: u64, address: Arc<[u8]>, serial: u64 },
    /// A channel is ready. `serial` stands for its decryptor.
    Install { request: u64, channel: Arc<Channel>, reachable: u64, serial: u64 },
    /// Which guards are open from now on.
    Guards { request: u64, open: Arc<GuardSet> },
    /// The grants of channels were replaced.
    Granted { request: u64 },
    /// Show the peer of a channel new credentials.
    ShowCredentials { request: u64, channel: Arc<Channel>, text: Box<[u8]> },
    /// Tell the peer that a channel ends.
    SealClose { channel: Arc<Channel> },
    /// A channel is gone.
    Uninstall { request: u64, channel: Arc<Channel>, serial: u64 },
    /// Replace the transit rules.
    Transit { request: u64, rules: Arc<[TransitRule]> },
    /// Send a message of control.
    Transmit { request: u64, message: Vec<u8> },
    /// Describe all links.
    Dump { request: u64 },
    /// End.
    Drain { limit_ms: u32 },
}

/// From a core to the attendant.
#[derive(Debug)]
pub enum FromCore {
    /// This core has done its part of a request.
    Applied { request: u64 },
    /// To control, as it is.
    Notice(Notice),
    /// The links of one core, as notices that lack only their listener's cookie.
    Links { request: u64, links: Vec<LinkDump> },
    /// A channel is to end.
    ChannelEnded { channel: u32, reason: ChannelEnd },
    /// No link is left.
    Drained,
}

/// A link in a dump.
#[derive(Debug)]
pub struct LinkDump {
    /// The notice.
    pub notice: Notice,
    /// The listener that accepted it: its cookie is the attendant's to add.
    pub listener: Option<u32>,
}

/// What others put in front of a core.
#[derive(Debug)]
pub struct Mailbox {
    /// Wakes the core.
    pub waker: Arc<Waker>,
    /// From the attendant.
    pub commands: ArrayQueue<ToCore>,
    /// From each core.
    pub crossing: Vec<ArrayQueue<Cross>>,
    /// Per core: whether it waits for room in its queue.
    waiting_for_room: Vec<AtomicBool>,
    /// Per link: whether it is full.
    full: Box<[AtomicBool]>,
    /// Cores (bits) that wait for a full link.
    waiting_for_link: AtomicU64,
    /// Links now open, to choose the core of a new one.
    pub load: AtomicU32,
}

/// See the module.
#[derive(Debug)]
pub struct Mesh {
    /// Per core.
    pub cores: Vec<Mailbox>,
    /// The links of all cores by address.
    pub directory: Arc<Directory>,
    /// From the cores to the attendant.
    pub notices: ArrayQueue<FromCore>,
    /// Wakes the attendant.
    pub attendant: Waker,
    /// Bytes of unfinished frames, over all cores.
    pub assembly_bytes: AtomicU64,
    /// Bytes of messages that wait for their channel's install, over all cores.
    pub parked_bytes: AtomicUsize,
    /// Channels that are installed, and relays: what ends with what its way begins with.
    pub carried: AtomicUsize,
    /// Punts that were not given to control yet, over all cores. Answers to control wait behind them, so they are few.
    pub punts_waiting: AtomicUsize,
    /// Portal connections.
    pub portals: AtomicUsize,
    /// Bytes that wait for applications outside of slots.
    pub portal_bytes_kept: AtomicU64,
    /// Bytes by which the windows of portal connections are larger than the smallest, over all cores.
    pub portal_windows: AtomicI64,
    /// The most that those may be.
    portal_memory: u64,
    /// A link closed since the attendant looked.
    pub links_closed: AtomicBool,
}

/// Takes from a queue that is empty most of the time: to look costs less than to take, which is a fence.
pub(super) fn take<T>(queue: &ArrayQueue<T>) -> Option<T> {
    if queue.is_empty() { None } else { queue.pop() }
}

impl Mesh {
    /// The shared state of an engine with that many cores; `portal_memory` as in [`crate::config::Config`].
    ///
    /// # Errors
    /// What `eventfd` says.
    pub fn new(cores: usize, portal_memory: u64) -> std::io::Result<Self> {
        let mailbox = |_| {
            Ok(Mailbox {
                waker: Arc::new(Waker::new()?),
                commands: ArrayQueue::new(NOTICE_QUEUE),
                crossing: (0..cores).map(|_| ArrayQueue::new(CROSS_QUEUE)).collect(),
                waiting_for_room: (0..cores).map(|_| AtomicBool::new(false)).collect(),
                full: (0..SOCKETS_MAX).map(|_| AtomicBool::new(false)).collect(),
                waiting_for_link: AtomicU64::new(0),
                load: AtomicU32::new(0),
            })
        };
        Ok(Mesh {
            cores: (0..cores).map(mailbox).collect::<std::io::Result<_>>()?,
            directory: Arc::new(RwLock::new(HashMap::new())),
            notices: ArrayQueue::new(NOTICE_QUEUE * cores),
            attendant: Waker::new()?,
            assembly_bytes: AtomicU64::new(0),
            parked_bytes: AtomicUsize::new(0),
            carried: AtomicUsize::new(0),
            punts_waiting: AtomicUsize::new(0),
            portals: AtomicUsize::new(0),
            portal_bytes_kept: AtomicU64::new(0),
            portal_windows: AtomicI64::new(0),
            portal_memory,
            links_closed: AtomicBool::new(false),
        })
    }

    /// Puts something in front of another core; gives it back when the queue is full, and then wakes `from` once there
    /// is room.
    #[allow(clippy::result_large_err, reason = "what was not taken must go back whole")]
    pub fn cross(&self, from: u8, to: u8, item: Cross) -> Result<(), Cross> {
        let mailbox = &self.cores[usize::from(to)];
        let queue = &mailbox.crossing[usize::from(from)];
        let item = match queue.push(item) {
            Ok(()) => {
                mailbox.waker.wake();
                return Ok(());
            }
            Err(item) => item,
        };
        mailbox.waiting_for_room[usize::from(from)].store(true, Ordering::SeqCst);
        // The other core may have made room between the two lines above, before it could see the flag.
        queue.push(item)
    }

    /// Whether a queue has room for a frame.
    pub fn has_room(&self, from: u8, to: u8) -> bool {
        let mailbox = &self.cores[usize::from(to)];
        let queue = &mailbox.crossing[usize::from(from)];
        // Some places are kept for what must not wait: releases and connections.
        let room = |queue: &ArrayQueue<Cross>| queue.len() < queue.capacity() * 3 / 4;
        if room(queue) {
            return true;
        }
        mailbox.waiting_for_room[usize::from(from)].store(true, Ordering::SeqCst);
        room(queue)
    }

    /// Core `to` has emptied its queue from `from`.
    pub fn made_room(&self, from: usize, to: usize) {
        if self.cores[to].waiting_for_room[from].swap(false, Ordering::SeqCst) {
            self.cores[from].waker.wake();
        }
    }

    /// Whether a link is full; if so, core `asking` is woken when it is no longer.
    pub fn is_full(&self, link: LinkId, asking: u8) -> bool {
        let mailbox = &self.cores[usize::from(link.core())];
        let full = &mailbox.full[link.index() as usize];
        if !full.load(Ordering::Relaxed) {
            return false;
        }
        mailbox.waiting_for_link.fetch_or(1 << asking, Ordering::SeqCst);
        full.load(Ordering::SeqCst)
    }

    /// Says whether a link of core `core` is full.
    pub fn set_full(&self, core: u8, index: u32, full: bool) {
        let mailbox = &self.cores[usize::from(core)];
        if mailbox.full[index as usize].swap(full, Ordering::SeqCst) && !full {
            let mut waiting = mailbox.waiting_for_link.swap(0, Ordering::SeqCst);
            while waiting != 0 {
                let asking = waiting.trailing_zeros();
                self.cores[asking as usize].waker.wake();
                waiting &= waiting - 1;
            }
        }
    }

    /// By how many bytes the windows of portal connections may grow.
    pub fn portal_room(&self) -> u64 {
        self.portal_memory.saturating_sub(self.portal_windows.load(Ordering::Relaxed).max(0) as u64)
    }

    /// A link closed: if anything may end with it, the attendant looks whose way began with it.
    pub fn link_closed(&self) {
        if self.carried.load(Ordering::Relaxed) > 0 && !self.links_closed.swap(true, Ordering::SeqCst) {
            self.attendant.wake();
        }
    }

    /// The core with the fewest links.
    pub fn least_loaded(&self) -> u8 {
        let load = |core: &u8| self.cores[usize::from(*core)].load.load(Ordering::Relaxed);
        (0..self.cores.len() as u8).min_by_key(load).expect("an engine has a core")
    }
}
