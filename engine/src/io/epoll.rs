//! The driver over epoll and ordinary system calls, for kernels and containers without io_uring.
//!
//! Each socket is registered once, edge-triggered for everything; what an edge said is remembered until a call says
//! `EAGAIN`. So pausing, resuming and waiting for room to send cost no system call. A socket that may have more to give
//! stands in `turns`, and each wait gives everyone there one receive (or a few accepts), so that a peer which never
//! stops sending cannot keep the others waiting.

use super::driver::{Answer, Done, Driver, FOREVER, ReceiveEnd, SocketId};
use super::pool::{Geometry, Segment, Slot, Vector};
use super::sockets;
use super::waker::Waker;
use crate::config::{KERNEL_SLOTS_MAX, SEND_SEGMENTS_MAX, STREAM_RECEIVE_MAX};
use ockam_engine_abi::notice::Driver as DriverKind;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown, SocketAddrAny, SocketFlags, sockopt};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Events taken by one wait.
const EVENTS: usize = 256;
/// Connections taken from one listener by one wait.
const ACCEPTS_PER_WAIT: usize = 64;
/// What the waker's events carry; no socket has this index.
const WAKER: u64 = u64::MAX;

#[derive(Debug)]
struct Socket {
    generation: u32,
    fd: OwnedFd,
    role: Role,
    /// Registered with epoll.
    watched: bool,
    /// An edge said that there may be bytes or connections, and no call has said `EAGAIN` since.
    readable: bool,
    /// The peer has finished or the connection failed: there will be no further edge, so only the call itself tells.
    ended: bool,
    /// Accepting or receiving is on.
    wanted: bool,
    /// The next bytes turn receiving off.
    once: bool,
    /// Where the next bytes go instead of a provided slot.
    into: Option<(Slot, Range<usize>)>,
    /// An application's: it is closed with a reset unless that is taken off first.
    stream: bool,
    /// Stands in `turns`.
    in_turns: bool,
    /// A pause whose end was not said yet.
    pausing: bool,
    /// A send that found no room.
    blocked: Option<Box<Vector>>,
}

/// What the core uses a socket for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    New,
    Listener,
    Connecting,
    Stream,
}

/// See the module's documentation.
pub struct EpollDriver {
    epoll: OwnedFd,
    waker: Arc<Waker>,
    sockets: Vec<Option<Socket>>,
    sockets_max: usize,
    body: Range<usize>,
    /// Provided slots; the one that was used last is in the cache.
    slots: Vec<Slot>,
    /// Sockets that are readable and wanted.
    turns: Vec<u32>,
    /// Those whose turn it is, while they are served.
    now_served: Vec<u32>,
    /// Sockets with [`Socket::pausing`], and perhaps some whose pause was revoked.
    pauses: Vec<SocketId>,
    /// What the next wait says first.
    ready: Vec<Done>,
    /// What it says as well, but does not end for.
    sent: Vec<Done>,
    events: Vec<epoll::Event>,
    /// Vectors that no send uses.
    #[expect(clippy::vec_box, reason = "a blocked socket takes the box, so that others stay small")]
    vectors: Vec<Box<Vector>>,
}

impl EpollDriver {
    /// A driver for sockets with indices below `sockets_max` and slots of `geometry`.
    ///
    /// # Errors
    /// What the system says to `epoll_create1`, `EMFILE` above all.
    pub fn new(waker: Arc<Waker>, sockets_max: usize, geometry: Geometry) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, waker.fd(), EventData::new_u64(WAKER), EventFlags::IN)?;
        Ok(EpollDriver {
            epoll,
            waker,
            sockets: Vec::new(),
            sockets_max,
            body: geometry.head..geometry.head + geometry.body,
            slots: Vec::new(),
            turns: Vec::new(),
            now_served: Vec::new(),
            pauses: Vec::new(),
            ready: Vec::new(),
            sent: Vec::new(),
            events: Vec::with_capacity(EVENTS),
            vectors: Vec::new(),
        })
    }

    fn socket(&mut self, id: SocketId) -> &mut Socket {
        match self.sockets.get_mut(id.index as usize) {
            Some(Some(socket)) if socket.generation == id.generation => socket,
            _ => panic!("{id:?} is not open"),
        }
    }

    /// Registers a socket, after which its state comes as the first edge. Not before it is used: an unconnected socket
    /// would say that it hung up.
    fn watch(&mut self, id: SocketId) -> Result<(), Errno> {
        let data = EventData::new_u64(u64::from(id.generation) << 32 | u64::from(id.index));
        let edges = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        let Some(Some(socket)) = self.sockets.get_mut(id.index as usize) else { unreachable!("it is open") };
        if !socket.watched {
            epoll::add(&self.epoll, &socket.fd, data, edges)?;
            socket.watched = true;
        }
        Ok(())
    }

    /// Turns accepting or receiving on.
    fn want(&mut self, id: SocketId, once: bool) {
        if let Err(errno) = self.watch(id) {
            // No memory, or no more watches for this user.
            let done = self.stopped(id, errno);
            self.ready.push(done);
            return;
        }
        let socket = self.socket(id);
        socket.pausing = false;
        socket.wanted = true;
        socket.once = once;
        self.take_turn(id.index);
    }

    fn take_turn(&mut self, index: u32) {
        if let Some(Some(socket)) = self.sockets.get_mut(index as usize)
            && socket.readable
            && socket.wanted
            && !socket.in_turns
        {
            socket.in_turns = true;
            self.turns.push(index);
        }
    }

    fn stopped(&mut self, id: SocketId, errno: Errno) -> Done {
        self.give_back(id);
        let socket = self.socket(id);
        socket.wanted = false;
        match socket.role {
            Role::Listener => Done::AcceptFailed { listener: id, errno },
            Role::New | Role::Connecting | Role::Stream => {
                Done::ReceiveEnded { socket: id, end: ReceiveEnd::Failed(errno) }
            }
        }
    }

    /// Handles what an edge says about a socket.
    fn edge(&mut self, id: SocketId, flags: EventFlags, burst: &mut Vec<Done>) {
        // An event of this very wait may be about a socket that is closed by now.
        let Some(Some(socket)) = self.sockets.get_mut(id.index as usize) else { return };
        if socket.generation != id.generation {
            return;
        }
        let ended = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        if socket.role == Role::Connecting && (ended || flags.contains(EventFlags::OUT)) {
            socket.role = Role::Stream;
            let result = match sockopt::socket_error(&socket.fd) {
                Ok(Ok(())) => sockets::local_addr(&socket.fd),
                Ok(Err(errno)) | Err(errno) => Err(errno),
            };
            burst.push(Done::Connected { socket: id, result });
        }
        socket.ended |= ended;
        socket.readable |= ended || flags.contains(EventFlags::IN);
        if (ended || flags.contains(EventFlags::OUT))
            && let Some(vector) = socket.blocked.take()
        {
            match send_now(socket.fd.as_fd(), &vector) {
                Err(Errno::AGAIN) => socket.blocked = Some(vector),
                result => {
                    self.vectors.push(vector);
                    burst.push(Done::Sent { socket: id, result });
                }
            }
        }
        self.take_turn(id.index);
    }

    /// Gives every socket in `turns` one receive, or a few accepts.
    fn turns(&mut self, burst: &mut Vec<Done>) {
        // Who takes another turn takes it at the next wait. Two lists in turn keep their memory.
        std::mem::swap(&mut self.turns, &mut self.now_served);
        for place in 0..self.now_served.len() {
            let index = self.now_served[place];
            let Some(Some(socket)) = self.sockets.get_mut(index as usize) else { continue };
            socket.in_turns = false;
            if socket.wanted && socket.readable {
                match socket.role {
                    Role::Listener => self.accept_some(index, burst),
                    Role::New | Role::Connecting | Role::Stream => self.receive_some(index, burst),
                }
                self.take_turn(index);
            }
        }
        self.now_served.clear();
    }

    fn accept_some(&mut self, index: u32, burst: &mut Vec<Done>) {
        let Some(Some(socket)) = self.sockets.get_mut(index as usize) else { return };
        let listener = SocketId { index, generation: socket.generation };
        for _ in 0..ACCEPTS_PER_WAIT {
            match rustix::net::accept_with(&socket.fd, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(accepted) => burst.push(Done::Accepted { listener, socket: accepted }),
                Err(Errno::AGAIN) => {
                    socket.readable = false;
                    return;
                }
                Err(errno) if sockets::concerns_one_connection(errno) => {}
                Err(errno) => {
                    let done = self.stopped(listener, errno);
                    burst.push(done);
                    return;
                }
            }
        }
    }

    fn receive_some(&mut self, index: u32, burst: &mut Vec<Done>) {
        let Some(Some(socket)) = self.sockets.get_mut(index as usize) else { return };
        let id = SocketId { index, generation: socket.generation };
        let given = socket.into.is_some();
        let most = if socket.stream { self.body.len().min(STREAM_RECEIVE_MAX) } else { self.body.len() };
        let body = self.body.start..self.body.start + most;
        let taken = socket.into.take().or_else(|| Some((self.slots.pop()?, body)));
        let Some((mut slot, room)) = taken else {
            socket.wanted = false;
            burst.push(Done::ReceiveEnded { socket: id, end: ReceiveEnd::NoSlots });
            return;
        };
        let end = match rustix::net::recv(&socket.fd, slot.bytes_mut(room.clone()), RecvFlags::empty()) {
            Ok((length, _)) if length > 0 => {
                // Less than there was room for: the socket is empty, and what comes next is a new edge. But a receive
                // also stops at an urgent byte (TCP) or behind passed descriptors (Unix), which links do not send.
                socket.readable = length == room.len() || socket.ended || socket.stream;
                socket.wanted = !socket.once;
                burst.push(match given {
                    true => Done::Filled { socket: id, slot, length },
                    false => Done::Received { socket: id, slot, length },
                });
                return;
            }
            Ok(_) => Some(ReceiveEnd::Eof),
            Err(Errno::AGAIN) => {
                socket.readable = false;
                None
            }
            Err(Errno::INTR) => None,
            Err(errno) => Some(ReceiveEnd::Failed(errno)),
        };
        match (given, end) {
            (false, _) => self.slots.push(slot),
            (true, None) => socket.into = Some((slot, room)),
            (true, Some(_)) => burst.push(Done::Filled { socket: id, slot, length: 0 }),
        }
        if let Some(end) = end {
            socket.wanted = false;
            burst.push(Done::ReceiveEnded { socket: id, end });
        }
    }

    /// Takes the socket out and closes it.
    fn end(&mut self, id: SocketId) {
        self.give_back(id);
        // What was not said yet about it will not be, but for the end of a send.
        self.ready.retain(|done| match done {
            Done::Connected { socket, .. } | Done::ReceiveEnded { socket, .. } => *socket != id,
            Done::AcceptFailed { listener, .. } => *listener != id,
            Done::Accepted { .. }
            | Done::Received { .. }
            | Done::Filled { .. }
            | Done::Sent { .. }
            | Done::Closed { .. }
            | Done::Woken => true,
        });
        let Some(socket) = self.sockets[id.index as usize].take() else { unreachable!("it is open") };
        if socket.watched {
            // Others may hold the same listening socket, so closing it here would not unregister it.
            let _ = epoll::delete(&self.epoll, &socket.fd);
        }
        if let Some(vector) = socket.blocked {
            self.vectors.push(vector);
            self.ready.push(Done::Sent { socket: id, result: Err(Errno::CANCELED) });
        }
        self.ready.push(Done::Closed { socket: id });
    }

    /// Gives the slot of [`Driver::receive_into`] back without bytes.
    fn give_back(&mut self, id: SocketId) {
        if let Some((slot, _)) = self.socket(id).into.take() {
            self.ready.push(Done::Filled { socket: id, slot, length: 0 });
        }
    }

    fn end_pauses(&mut self, burst: &mut Vec<Done>) {
        let mut pauses = std::mem::take(&mut self.pauses);
        for id in pauses.drain(..) {
            let Some(Some(socket)) = self.sockets.get_mut(id.index as usize) else { continue };
            if socket.generation == id.generation && std::mem::take(&mut socket.pausing) {
                if let Some((slot, _)) = socket.into.take() {
                    burst.push(Done::Filled { socket: id, slot, length: 0 });
                }
                burst.push(match socket.role {
                    Role::Listener => Done::AcceptFailed { listener: id, errno: Errno::CANCELED },
                    Role::New | Role::Connecting | Role::Stream => {
                        Done::ReceiveEnded { socket: id, end: ReceiveEnd::Paused }
                    }
                });
            }
        }
        // It keeps its memory.
        self.pauses = pauses;
    }
}

impl std::fmt::Debug for EpollDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EpollDriver").field("provided", &self.slots.len()).finish_non_exhaustive()
    }
}

/// One `sendmsg` that does not wait.
fn send_now(fd: BorrowedFd<'_>, vector: &Vector) -> Result<usize, Errno> {
    loop {
        // SAFETY: the header points to the vector's parts and they to segments, which the core keeps until
        // `Done::Sent`; the call only reads them.
        let sent = unsafe { libc::sendmsg(fd.as_raw_fd(), vector.header(), libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) };
        match usize::try_from(sent) {
            Ok(sent) => return Ok(sent),
            Err(_) => match Errno::from_io_error(&io::Error::last_os_error()) {
                Some(Errno::INTR) => {}
                Some(errno) => return Err(errno),
                None => unreachable!("a failed call has a number"),
            },
        }
    }
}

impl Driver for EpollDriver {
    fn kind(&self) -> DriverKind {
        DriverKind::Epoll
    }

    fn adopt(&mut self, id: SocketId, socket: OwnedFd) {
        let index = id.index as usize;
        assert!(index < self.sockets_max, "{id:?} is beyond the driver's sockets");
        if index >= self.sockets.len() {
            self.sockets.resize_with(index + 1, || None);
        }
        assert!(self.sockets[index].is_none(), "{id:?} is taken");
        // This fails on no socket.
        let _ = rustix::io::ioctl_fionbio(&socket, true);
        self.sockets[index] = Some(Socket {
            generation: id.generation,
            fd: socket,
            role: Role::New,
            watched: false,
            readable: false,
            ended: false,
            wanted: false,
            once: false,
            into: None,
            stream: false,
            in_turns: false,
            pausing: false,
            blocked: None,
        });
    }

    fn adopt_stream(&mut self, id: SocketId, socket: OwnedFd) {
        // This fails on no socket.
        let _ = sockets::set_abortive(&socket, true);
        self.adopt(id, socket);
        self.socket(id).stream = true;
    }

    fn accept(&mut self, id: SocketId) {
        self.socket(id).role = Role::Listener;
        self.want(id, false);
    }

    fn connect(&mut self, id: SocketId, target: impl Into<SocketAddrAny>) {
        let socket = self.socket(id);
        assert!(socket.role == Role::New, "{id:?} was used before it is connected");
        socket.role = Role::Stream;
        let result = match rustix::net::connect(&socket.fd, &target.into()) {
            Ok(()) => sockets::local_addr(&socket.fd),
            Err(Errno::INPROGRESS | Errno::INTR) => {
                socket.role = Role::Connecting;
                match self.watch(id) {
                    Ok(()) => return,
                    Err(errno) => Err(errno),
                }
            }
            Err(errno) => Err(errno),
        };
        self.ready.push(Done::Connected { socket: id, result });
    }

    fn receive(&mut self, id: SocketId) {
        self.want(id, false);
    }

    fn receive_once(&mut self, id: SocketId) {
        self.want(id, true);
    }

    fn receive_into(&mut self, id: SocketId, slot: Slot, room: Range<usize>) {
        slot.room_to_lend(room.clone());
        let socket = self.socket(id);
        assert!(!socket.wanted && !socket.pausing, "{id:?} receives");
        socket.into = Some((slot, room));
        self.want(id, true);
    }

    fn pause(&mut self, id: SocketId) {
        let socket = self.socket(id);
        if std::mem::take(&mut socket.wanted) {
            socket.pausing = true;
            self.pauses.push(id);
        }
    }

    fn send<'a>(&mut self, id: SocketId, segments: impl Iterator<Item = &'a Segment>, answer: Answer) {
        let mut vector = self.vectors.pop().unwrap_or_else(|| Box::new(Vector::new(SEND_SEGMENTS_MAX)));
        vector.fill(segments);
        let socket = self.socket(id);
        assert!(socket.blocked.is_none(), "{id:?} has a send in flight");
        let mut result = send_now(socket.fd.as_fd(), &vector);
        if result == Err(Errno::AGAIN) {
            socket.blocked = Some(vector);
            match self.watch(id) {
                Ok(()) => return,
                Err(errno) => result = Err(errno),
            }
            vector = self.socket(id).blocked.take().expect("put there above");
        }
        let all = result == Ok(vector.total());
        self.vectors.push(vector);
        let said = if all && answer == Answer::WithTheNext { &mut self.sent } else { &mut self.ready };
        said.push(Done::Sent { socket: id, result });
    }

    fn shutdown(&mut self, id: SocketId) {
        let socket = self.socket(id);
        assert!(socket.stream && socket.blocked.is_none(), "{id:?} is no stream or has a send in flight");
        let _ = rustix::net::shutdown(&socket.fd, Shutdown::Write);
    }

    fn close(&mut self, id: SocketId) {
        let socket = self.socket(id);
        if socket.stream {
            let _ = sockets::set_abortive(&socket.fd, false);
        }
        self.end(id);
    }

    fn abort(&mut self, id: SocketId) {
        assert!(self.socket(id).stream, "{id:?} is no stream");
        self.end(id);
    }

    fn provide(&mut self, slot: Slot) {
        assert!(self.slots.len() < KERNEL_SLOTS_MAX, "the driver has as many slots as it takes");
        assert!(slot.size() >= self.body.end, "a slot of another geometry");
        slot.base_to_lend();
        self.slots.push(slot);
    }

    fn withdraw(&mut self) -> Option<Slot> {
        self.slots.pop()
    }

    fn provided(&self) -> usize {
        self.slots.len()
    }

    fn wait(&mut self, now_ms: u64, until_ms: u64, burst: &mut Vec<Done>) -> io::Result<()> {
        burst.append(&mut self.ready);
        self.end_pauses(burst);
        let until_ms = if burst.is_empty() && self.turns.is_empty() { until_ms } else { 0 };
        burst.append(&mut self.sent);
        let limit_ms = until_ms.saturating_sub(now_ms);
        let timeout = (until_ms != FOREVER).then(|| rustix::event::Timespec {
            tv_sec: (limit_ms / 1000) as i64,
            tv_nsec: (limit_ms % 1000 * 1_000_000) as i64,
        });
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        for event in events.drain(..) {
            match event.data.u64() {
                WAKER => {
                    self.waker.drain();
                    burst.push(Done::Woken);
                }
                data => {
                    let id = SocketId { index: data as u32, generation: (data >> 32) as u32 };
                    self.edge(id, event.flags, burst);
                }
            }
        }
        self.events = events;
        self.turns(burst);
        Ok(())
    }
}
