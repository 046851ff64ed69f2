//! The driver over io_uring: multishot accept and receive, a ring of provided buffers, direct descriptors, one vectored
//! send per socket.
//!
//! What is in flight is written down per socket as one bit per kind of operation; a kind is in flight at most once.
//! `user_data` says kind, generation and index, never an address, so a completion that comes late finds nothing to
//! harm. The driver keeps everything that an operation's entry points to ([`Vector`], socket address, the slots that
//! the kernel has) until the completion that ends it.
//!
//! ```text
//!   adopt ─► New ── connect, accept, receive, send ─► Direct (the ring's table holds it; the process does not)
//!                                                  └► Plain  (the table is smaller than the index: RLIMIT_NOFILE)
//!   a stream of an application: Plain ── PLAIN_OPERATIONS ─► Both
//!   close ─► cancel what is in flight ─► nothing in flight ─► close ─► Vacant, Done::Closed
//! ```
//!
//! A stream of an application always has a descriptor. It lingers for zero seconds so that the end of the process resets
//! it, and an orderly end takes that off again, which needs a descriptor within reach: the ring itself sets socket options
//! only since Linux 6.7. Shutting down is a system call for the same reason, as is connecting to a Unix socket: that never
//! waits, and as an operation it would take a thread of the kernel. The table spares each operation the look-up of the
//! descriptor, but costs two calls: what a stream that asks once and closes would not get back.
//!
//! A send whose answer can wait ([`Answer::WithTheNext`]) does not wait itself, and completes only if it could not take all
//! (`MSG_DONTWAIT`, `MSG_WAITALL`, `IOSQE_CQE_SKIP_SUCCESS`). It is over when its submission is: nothing was said, so all
//! was sent. If it found no room, it is submitted again as one that waits.
//!
//! A limit to wait for is a timer in the ring, set again when it is over: a wait that is given one sets it and takes it
//! back each time.
//!
//! Sends that wait are not `MSG_WAITALL`: with it a peer that takes a few bytes per second would look the same as one that takes
//! none until a whole megabyte is gone, and its slots would wait as long.

use super::driver::{Answer, Done, Driver, FOREVER, ReceiveEnd, SocketId};
use super::pool::{Geometry, Segment, Slot, Vector};
use super::sockets;
use super::waker::Waker;
use crate::config::{KERNEL_SLOTS_MAX, SEND_SEGMENTS_MAX, STREAM_RECEIVE_MAX};
use io_uring::types::{BufRingEntry, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, Probe, cqueue, opcode, squeue};
use ockam_engine_abi::notice::Driver as DriverKind;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use rustix::net::{AddressFamily, Shutdown, SocketAddrAny};
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// Entries of the submission and completion queue, largest first. The last one, with the ring of buffers, is three
/// pages: RLIMIT_MEMLOCK counts them, over all processes of a user.
const QUEUES: [(u32, u32); 4] = [(256, 2048), (128, 1024), (64, 512), (16, 128)];
/// With a smaller RLIMIT_MEMLOCK (64 KiB is common) only the smallest queues are tried: rings that are gone count for a
/// while longer, so sizes that fit once may not fit for each core.
const MEMLOCK_AMPLE: u64 = 1024 * 1024;
/// The one group of provided buffers.
const BUFFER_GROUP: u16 = 0;
/// What the driver submits.
const OPCODES: [(u8, &str); 9] = [
    (opcode::AcceptMulti::CODE, "ACCEPT"),
    (opcode::Connect::CODE, "CONNECT"),
    (opcode::RecvMulti::CODE, "RECV"),
    (opcode::Send::CODE, "SEND"),
    (opcode::SendMsg::CODE, "SENDMSG"),
    (opcode::PollAdd::CODE, "POLL_ADD"),
    (opcode::Timeout::CODE, "TIMEOUT"),
    (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
    (opcode::Close::CODE, "CLOSE"),
];

/// A kind of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Op {
    Accept = 0,
    Connect = 1,
    Receive = 2,
    Send = 3,
    Close = 4,
    Wake = 5,
    Time = 6,
}

/// Which operation a completion ends or continues: bit 63 a cancellation of it, 56-62 kind, 32-55 generation, 0-31
/// index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token {
    cancels: bool,
    op: Op,
    generation: u32,
    index: u32,
}

const GENERATION_MASK: u32 = 0x00ff_ffff;

/// After so many operations a stream is put into the ring's table.
const PLAIN_OPERATIONS: u8 = 16;

impl Token {
    fn pack(self) -> u64 {
        u64::from(self.cancels) << 63
            | u64::from(self.op as u8) << 56
            | u64::from(self.generation & GENERATION_MASK) << 32
            | u64::from(self.index)
    }

    fn unpack(data: u64) -> Token {
        let op = match (data >> 56) as u8 & 0x7f {
            0 => Op::Accept,
            1 => Op::Connect,
            2 => Op::Receive,
            3 => Op::Send,
            4 => Op::Close,
            5 => Op::Wake,
            6 => Op::Time,
            other => unreachable!("no entry was submitted with kind {other}"),
        };
        Token { cancels: data >> 63 == 1, op, generation: (data >> 32) as u32 & GENERATION_MASK, index: data as u32 }
    }
}

/// A set of kinds of operations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Ops(u8);

impl Ops {
    fn has(self, op: Op) -> bool {
        self.0 & 1 << op as u8 != 0
    }
    fn add(&mut self, op: Op) {
        self.0 |= 1 << op as u8;
    }
    /// Returns whether it was there.
    fn remove(&mut self, op: Op) -> bool {
        let had = self.has(op);
        self.0 &= !(1 << op as u8);
        had
    }
    fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Where a socket's descriptor is.
#[derive(Debug, Default)]
enum Place {
    /// No socket.
    #[default]
    Vacant,
    /// With this process; it moves to the table when it is first used for more than connecting.
    New(OwnedFd),
    /// In the ring's table, at the socket's index.
    Direct,
    /// With this process for good.
    Plain(OwnedFd),
    /// With this process for good, and in the ring's table, at the socket's index.
    Both(OwnedFd),
}

#[derive(Debug, Default)]
struct Socket {
    generation: u32,
    place: Place,
    /// What the kernel has not ended yet.
    in_flight: Ops,
    /// Of those: what a cancellation was submitted for.
    cancelled: Ops,
    /// Which multishots the core wants on.
    wanted: Ops,
    closing: bool,
    /// Slots filled since receiving was last started.
    slots_taken: u32,
    /// Receives one slot at a time, see [`UringDriver`].
    greedy: bool,
    /// The next bytes end receiving.
    once: bool,
    /// The last receive left nothing, so the next one waits before it tries.
    emptied: bool,
    /// The send in flight is one of `UringDriver::unsaid`.
    unsaid: bool,
    /// An application's: Plain or Both, and closed with a reset unless that is taken off first.
    stream: bool,
    /// Operations that a Plain stream had, up to [`PLAIN_OPERATIONS`].
    operations: u8,
    /// What the send in flight points to.
    outgoing: Option<Box<Vector>>,
    /// What the receive in flight fills instead of a provided slot.
    into: Option<(Slot, Range<usize>)>,
    /// What the connect in flight points to.
    target: Option<Box<SocketAddrAny>>,
}

/// See the module's documentation. It stays in the thread that made it (the ring has a single issuer).
///
/// A multishot receive goes on until its socket is empty or no slot is left (up to 32 in one go). A peer that sends as
/// fast as it can would so take every slot, and take them all again as soon as there are new ones, while the bytes of
/// all others wait. So a socket that used the slots up receives one at a time, in turn with the others, until it was
/// once found empty.
pub struct UringDriver {
    ring: Ring,
    buffers: Buffers,
    waker: Arc<Waker>,
    sockets: Vec<Socket>,
    sockets_max: usize,
    /// Indices below this can be direct descriptors.
    table: usize,
    /// Vectors that no send uses.
    #[expect(clippy::vec_box, reason = "the kernel reads a vector, so it must not move")]
    vectors: Vec<Box<Vector>>,
    /// What can be said without the kernel.
    ready: Vec<Done>,
    /// Completions taken from the queue, being handled; kept for its memory.
    batch: Vec<cqueue::Entry>,
    /// Sockets with a send of which nothing is said if it takes all.
    unsaid: Vec<SocketId>,
    /// When the timer in the ring is over, in milliseconds of the clock.
    timer_ms: Option<u64>,
    /// What the timer's entry points to.
    timer: Box<Timespec>,
    /// Operations in flight over all sockets, and the poll of the waker.
    in_flight: usize,
}

impl UringDriver {
    /// Sets up a ring for sockets with indices below `sockets_max` and slots of `geometry`.
    ///
    /// # Errors
    /// Whatever the kernel does not allow or does not have; the epoll driver runs everywhere.
    pub fn new(waker: Arc<Waker>, sockets_max: usize, geometry: Geometry) -> io::Result<Self> {
        let memlock = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
        let ample = memlock.is_none_or(|limit| limit >= MEMLOCK_AMPLE);
        let (smallest, larger) = QUEUES.split_last().expect("there are sizes");
        for &queues in larger.iter().filter(|_| ample) {
            match Self::with_queues(Arc::clone(&waker), sockets_max, geometry, queues) {
                Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {}
                other => return other,
            }
        }
        Self::with_queues(waker, sockets_max, geometry, *smallest)
    }

    /// As [`Self::new`], with queues of the given lengths: a test makes them overflow.
    ///
    /// # Errors
    /// As there.
    pub fn with_queues(
        waker: Arc<Waker>,
        sockets_max: usize,
        geometry: Geometry,
        (entries, completions): (u32, u32),
    ) -> io::Result<Self> {
        let ring = Ring::new(entries, completions).map_err(|e| said("setting up a ring", e))?;
        let open_files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let table = sockets_max.min(open_files.map_or(usize::MAX, |limit| limit as usize));
        let submitter = ring.io.submitter();
        submitter.register_files_sparse(table as u32).map_err(|e| said("registering a file table", e))?;
        let buffers = Buffers::new(&ring, geometry)?;
        let mut driver = UringDriver {
            ring,
            buffers,
            waker,
            // Address space only, until it is used.
            sockets: Vec::with_capacity(sockets_max),
            sockets_max,
            table,
            vectors: Vec::new(),
            ready: Vec::new(),
            batch: Vec::new(),
            unsaid: Vec::new(),
            timer_ms: None,
            timer: Box::default(),
            in_flight: 0,
        };
        driver.watch_waker();
        Ok(driver)
    }

    /// Entries of the submission and completion queue.
    pub fn queues(&self) -> (u32, u32) {
        (self.ring.io.params().sq_entries(), self.ring.io.params().cq_entries())
    }

    /// Sockets that can be direct descriptors.
    pub fn table(&self) -> usize {
        self.table
    }

    fn watch_waker(&mut self) {
        let fd = Fd(self.waker.fd().as_raw_fd());
        let entry = opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(true).build();
        let token = Token { cancels: false, op: Op::Wake, generation: 0, index: 0 };
        self.in_flight += 1;
        // SAFETY: the entry points to nothing. The waker outlives the poll: `drop` ends it first.
        unsafe { self.ring.push(entry.user_data(token.pack())) };
    }

    /// Sees to it that a wait ends at `until_ms`. Gives the limit that it is to have for that: none, if there is a timer.
    fn limit(&mut self, now_ms: u64, until_ms: u64) -> Option<Duration> {
        if until_ms == FOREVER || self.timer_ms.is_some_and(|over_ms| over_ms <= until_ms) {
            return None;
        }
        let limit = Duration::from_millis(until_ms.saturating_sub(now_ms));
        if self.timer_ms.is_some() || limit.is_zero() {
            return Some(limit);
        }
        self.timer_ms = Some(until_ms);
        *self.timer = Timespec::from(limit);
        let entry = opcode::Timeout::new(&raw const *self.timer).build();
        self.in_flight += 1;
        // SAFETY: the time is boxed and stays what it is until the timer is over.
        unsafe {
            self.ring.push(entry.user_data(Token { cancels: false, op: Op::Time, generation: 0, index: 0 }.pack()))
        };
        None
    }

    fn socket(&mut self, id: SocketId) -> &mut Socket {
        let socket = &mut self.sockets[id.index as usize];
        assert!(
            socket.generation == id.generation && !matches!(socket.place, Place::Vacant) && !socket.closing,
            "{id:?} is not open"
        );
        socket
    }

    /// Submits `entry`, which was built for descriptor [`Self::descriptor`], as the operation `op` of the socket.
    ///
    /// # Safety
    /// What `entry` points to must stay valid and unmoved until the completion that ends it.
    unsafe fn start(&mut self, index: u32, op: Op, entry: squeue::Entry) {
        let socket = &mut self.sockets[index as usize];
        debug_assert!(!socket.in_flight.has(op), "one {op:?} at a time");
        socket.in_flight.add(op);
        self.in_flight += 1;
        let token = Token { cancels: false, op, generation: socket.generation, index };
        let entry = match socket.place {
            Place::Direct | Place::Both(_) if op != Op::Close => entry.flags(squeue::Flags::FIXED_FILE),
            _ => entry,
        };
        // SAFETY: passed on to the caller.
        unsafe { self.ring.push(entry.user_data(token.pack())) };
    }

    /// What an entry names the socket by; [`Self::start`] adds the flag that tells the two kinds apart. Puts a new
    /// socket, and a stream that is used more often, into the ring's table if it fits there.
    fn descriptor(&mut self, index: u32) -> Fd {
        let socket = &mut self.sockets[index as usize];
        let registers = match &socket.place {
            Place::New(fd) => Some(fd),
            Place::Plain(fd) if socket.stream && socket.operations < PLAIN_OPERATIONS => {
                socket.operations += 1;
                (socket.operations == PLAIN_OPERATIONS).then_some(fd)
            }
            _ => None,
        };
        if let Some(fd) = registers {
            let fits = (index as usize) < self.table;
            let moved = fits && self.ring.io.submitter().register_files_update(index, &[fd.as_raw_fd()]).is_ok();
            socket.place = match std::mem::take(&mut socket.place) {
                Place::New(_) if moved => Place::Direct,
                Place::Plain(fd) if moved => Place::Both(fd),
                Place::New(fd) | Place::Plain(fd) => Place::Plain(fd),
                Place::Vacant | Place::Direct | Place::Both(_) => unreachable!("it is not in the table"),
            };
        }
        match &socket.place {
            Place::Direct | Place::Both(_) => Fd(index as i32),
            Place::New(fd) | Place::Plain(fd) => Fd(fd.as_raw_fd()),
            Place::Vacant => unreachable!("an operation on no socket"),
        }
    }

    fn start_accept(&mut self, index: u32) {
        let fd = self.descriptor(index);
        let entry = opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build();
        // SAFETY: the entry points to nothing.
        unsafe { self.start(index, Op::Accept, entry) };
    }

    fn start_receive(&mut self, index: u32) {
        let fd = self.descriptor(index);
        let socket = &mut self.sockets[index as usize];
        socket.slots_taken = 0;
        let how = if socket.emptied { POLL_FIRST } else { 0 };
        let entry = if let Some((slot, room)) = &socket.into {
            opcode::Recv::new(fd, slot.room_to_lend(room.clone()).as_ptr(), room.len() as u32).ioprio(how).build()
        } else if socket.greedy || socket.once {
            let most = if socket.stream { self.buffers.body.min(STREAM_RECEIVE_MAX) } else { self.buffers.body };
            let one = opcode::Recv::new(fd, std::ptr::null_mut(), most as u32).ioprio(how);
            one.buf_group(BUFFER_GROUP).build().flags(squeue::Flags::BUFFER_SELECT)
        } else {
            opcode::RecvMulti::new(fd, BUFFER_GROUP).build()
        };
        // SAFETY: the kernel writes to slots that it was given by `provide`, or to the one in `into`, which stays there
        // until the completion.
        unsafe { self.start(index, Op::Receive, entry) };
    }

    /// Submits a send of what is in `outgoing`.
    fn start_send(&mut self, index: u32, answer: Answer) {
        let fd = self.descriptor(index);
        let socket = &mut self.sockets[index as usize];
        let vector = socket.outgoing.as_ref().expect("the caller put it there");
        let flags = match answer {
            Answer::AtOnce => libc::MSG_NOSIGNAL,
            Answer::WithTheNext => libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | libc::MSG_WAITALL,
        };
        let entry = match vector.single() {
            Some(part) => opcode::Send::new(fd, part.iov_base.cast(), part.iov_len as u32).flags(flags).build(),
            None => opcode::SendMsg::new(fd, vector.header()).flags(flags as u32).build(),
        };
        let entry = match answer {
            Answer::AtOnce => entry,
            Answer::WithTheNext => {
                socket.unsaid = true;
                self.unsaid.push(SocketId { index, generation: socket.generation });
                entry.flags(squeue::Flags::SKIP_SUCCESS)
            }
        };
        // SAFETY: header and parts are boxed and kept in the socket until the completion; the segments' memory is
        // never unmapped, and the core keeps them until `Done::Sent`.
        unsafe { self.start(index, Op::Send, entry) };
    }

    fn want_bytes(&mut self, id: SocketId, once: bool) {
        let socket = self.socket(id);
        debug_assert!(socket.once == once || !socket.in_flight.has(Op::Receive), "{id:?} receives the other way");
        socket.once = once;
        socket.wanted.add(Op::Receive);
        if !socket.in_flight.has(Op::Receive) {
            self.start_receive(id.index);
        }
    }

    fn cancel(&mut self, index: u32, op: Op) {
        let socket = &mut self.sockets[index as usize];
        if !socket.in_flight.has(op) || socket.cancelled.has(op) {
            return;
        }
        socket.cancelled.add(op);
        let target = Token { cancels: false, op, generation: socket.generation, index };
        let entry = opcode::AsyncCancel::new(target.pack()).build().flags(squeue::Flags::SKIP_SUCCESS);
        // SAFETY: the entry points to nothing. Its completion is not waited for: it names an operation of this
        // generation, and entries are taken in order, so it cannot reach a later one.
        unsafe { self.ring.push(entry.user_data(Token { cancels: true, ..target }.pack())) };
    }

    /// Ends what is in flight and closes the socket, in whichever way its options say.
    fn end(&mut self, id: SocketId) {
        // A connection that was not spoken of yet will not be.
        self.ready.retain(|done| !matches!(done, Done::Connected { socket, .. } if *socket == id));
        let socket = self.socket(id);
        socket.closing = true;
        socket.wanted = Ops::default();
        for op in [Op::Accept, Op::Connect, Op::Receive, Op::Send] {
            self.cancel(id.index, op);
        }
        self.finish_close(id.index);
    }

    /// Closes a closing socket once nothing is in flight.
    fn finish_close(&mut self, index: u32) {
        let socket = &mut self.sockets[index as usize];
        debug_assert!(socket.closing);
        if !socket.in_flight.is_empty() {
            return;
        }
        if matches!(socket.place, Place::Direct | Place::Both(_)) {
            let entry = opcode::Close::new(Fixed(index)).build();
            // SAFETY: the entry points to nothing.
            unsafe { self.start(index, Op::Close, entry) };
        } else {
            let done = self.vacate(index);
            self.ready.push(done);
        }
    }

    fn vacate(&mut self, index: u32) -> Done {
        let generation = std::mem::take(&mut self.sockets[index as usize]).generation;
        Done::Closed { socket: SocketId { index, generation } }
    }

    /// Handles one completion.
    fn complete(&mut self, entry: &cqueue::Entry, burst: &mut Vec<Done>) {
        let token = Token::unpack(entry.user_data());
        let result = match entry.result() {
            negative if negative < 0 => Err(Errno::from_raw_os_error(-negative)),
            positive => Ok(positive as usize),
        };
        let more = cqueue::more(entry.flags());
        match token.op {
            Op::Wake => return self.woken(token, more, burst),
            Op::Time => return self.timer_over(),
            _ => {}
        }
        let known = self.sockets.get(token.index as usize).is_some_and(|socket| {
            socket.generation & GENERATION_MASK == token.generation && socket.in_flight.has(token.op)
        });
        if token.cancels {
            // The kernel could not interrupt it at that moment; everything else means that it has ended or will.
            if known && result == Err(Errno::ALREADY) {
                self.sockets[token.index as usize].cancelled.remove(token.op);
                self.cancel(token.index, token.op);
            }
            return;
        }
        if !known {
            self.give_up(token.op, result, entry.flags());
            return;
        }
        let index = token.index;
        let socket = &mut self.sockets[index as usize];
        if !more {
            socket.in_flight.remove(token.op);
            socket.cancelled.remove(token.op);
            self.in_flight -= 1;
        }
        if token.op == Op::Send {
            socket.unsaid = false;
        }
        let id = SocketId { index, generation: socket.generation };
        match token.op {
            Op::Accept => self.accepted(id, result, more, burst),
            Op::Connect => self.connected(id, result, burst),
            Op::Receive => self.received(id, result, entry.flags(), more, burst),
            Op::Send if result == Err(Errno::AGAIN) && !socket.closing => self.start_send(index, Answer::AtOnce),
            Op::Send => {
                self.vectors.extend(socket.outgoing.take());
                burst.push(Done::Sent { socket: id, result });
            }
            Op::Close => {
                let done = self.vacate(index);
                burst.push(done);
                return;
            }
            Op::Wake | Op::Time => unreachable!("handled above"),
        }
        if self.sockets[index as usize].closing {
            self.finish_close(index);
        }
    }

    fn woken(&mut self, token: Token, more: bool, burst: &mut Vec<Done>) {
        if token.cancels {
            return;
        }
        self.waker.drain();
        if !burst.iter().any(|done| matches!(done, Done::Woken)) {
            burst.push(Done::Woken);
        }
        if !more {
            self.in_flight -= 1;
            self.watch_waker();
        }
    }

    fn timer_over(&mut self) {
        self.timer_ms = None;
        self.in_flight -= 1;
    }

    /// Ends the sends that were submitted and of which `said` says nothing: they took all.
    fn end_unsaid(&mut self, said: &[cqueue::Entry], burst: &mut Vec<Done>) {
        if self.unsaid.is_empty() || !self.ring.said_all() {
            return;
        }
        for entry in said {
            let token = Token::unpack(entry.user_data());
            if token.op == Op::Send
                && !token.cancels
                && let Some(socket) = self.sockets.get_mut(token.index as usize)
                && socket.generation & GENERATION_MASK == token.generation
            {
                socket.unsaid = false;
            }
        }
        for place in 0..self.unsaid.len() {
            let id = self.unsaid[place];
            let socket = &mut self.sockets[id.index as usize];
            // It may have said something before all had, and even be another socket's index since.
            if socket.generation != id.generation || !std::mem::take(&mut socket.unsaid) {
                continue;
            }
            socket.in_flight.remove(Op::Send);
            socket.cancelled.remove(Op::Send);
            self.in_flight -= 1;
            let vector = socket.outgoing.take().expect("a send in flight has one");
            burst.push(Done::Sent { socket: id, result: Ok(vector.total()) });
            self.vectors.push(vector);
            if socket.closing {
                self.finish_close(id.index);
            }
        }
        self.unsaid.clear();
    }

    /// Returns what a completion that belongs to no operation brought.
    fn give_up(&mut self, op: Op, result: Result<usize, Errno>, flags: u32) {
        if let Some(buffer) = cqueue::buffer_select(flags) {
            self.buffers.publish(buffer);
        }
        if let (Op::Accept, Ok(fd)) = (op, result) {
            // SAFETY: the kernel made this descriptor for this completion; nobody else has it.
            drop(unsafe { OwnedFd::from_raw_fd(fd as i32) });
        }
    }

    fn accepted(&mut self, id: SocketId, result: Result<usize, Errno>, more: bool, burst: &mut Vec<Done>) {
        let socket = &mut self.sockets[id.index as usize];
        if let Ok(fd) = result {
            // SAFETY: the kernel made this descriptor for this completion; nobody else has it.
            let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
            if !socket.closing {
                burst.push(Done::Accepted { listener: id, socket: fd });
            }
        }
        if more || socket.closing {
            return;
        }
        let wanted = socket.wanted.has(Op::Accept);
        match result {
            // `ECANCELED` though it is wanted: the pause was revoked.
            Ok(_) | Err(Errno::CANCELED) if wanted => self.start_accept(id.index),
            Err(errno) if wanted && sockets::concerns_one_connection(errno) => self.start_accept(id.index),
            Err(errno) if wanted => {
                socket.wanted.remove(Op::Accept);
                burst.push(Done::AcceptFailed { listener: id, errno });
            }
            Ok(_) | Err(_) => burst.push(Done::AcceptFailed { listener: id, errno: Errno::CANCELED }),
        }
    }

    fn connected(&mut self, id: SocketId, result: Result<usize, Errno>, burst: &mut Vec<Done>) {
        let socket = &mut self.sockets[id.index as usize];
        socket.target = None;
        if socket.closing {
            return;
        }
        let result = match &socket.place {
            Place::New(fd) | Place::Plain(fd) => result.and_then(|_| sockets::local_addr(fd)),
            Place::Vacant | Place::Direct | Place::Both(_) => unreachable!("it had no other operation"),
        };
        burst.push(Done::Connected { socket: id, result });
    }

    fn received(&mut self, id: SocketId, result: Result<usize, Errno>, flags: u32, more: bool, burst: &mut Vec<Done>) {
        let socket = &mut self.sockets[id.index as usize];
        socket.emptied = result.is_ok() && !cqueue::sock_nonempty(flags);
        if let Some(buffer) = cqueue::buffer_select(flags) {
            match result {
                Ok(length) if length > 0 && !socket.closing => {
                    let slot = self.buffers.take(buffer);
                    socket.slots_taken += 1;
                    socket.greedy &= length == self.buffers.body;
                    burst.push(Done::Received { socket: id, slot, length });
                    if socket.once {
                        socket.wanted.remove(Op::Receive);
                        return;
                    }
                }
                // No bytes, or nobody wants them.
                Ok(_) | Err(_) => self.buffers.publish(buffer),
            }
        }
        let wanted = socket.wanted.has(Op::Receive);
        let interrupted = wanted && result == Err(Errno::INTR);
        if let Some((slot, _)) = socket.into.take_if(|_| !interrupted) {
            let length = if socket.closing { 0 } else { result.unwrap_or(0) };
            burst.push(Done::Filled { socket: id, slot, length });
            if length > 0 {
                socket.wanted.remove(Op::Receive);
                return;
            }
        }
        if more || socket.closing {
            return;
        }
        let end = match result {
            Ok(0) => ReceiveEnd::Eof,
            // A multishot may end for reasons of the kernel. `ECANCELED` though it is wanted: the pause was revoked.
            Ok(_) | Err(Errno::CANCELED | Errno::INTR) if wanted => {
                self.start_receive(id.index);
                return;
            }
            Err(Errno::NOBUFS) if wanted => {
                // One slot may have been the last one by chance.
                socket.greedy |= socket.slots_taken > 1;
                ReceiveEnd::NoSlots
            }
            Ok(_) | Err(Errno::CANCELED | Errno::INTR | Errno::NOBUFS) => ReceiveEnd::Paused,
            Err(errno) => ReceiveEnd::Failed(errno),
        };
        socket.wanted.remove(Op::Receive);
        burst.push(Done::ReceiveEnded { socket: id, end });
    }

    /// Takes all completions that there are.
    fn reap(&mut self, burst: &mut Vec<Done>) {
        let mut batch = std::mem::take(&mut self.batch);
        batch.extend(self.ring.io.completion());
        // First: what was sent may be what the answer to it is received into.
        self.end_unsaid(&batch, burst);
        for entry in batch.drain(..) {
            self.complete(&entry, burst);
        }
        self.batch = batch;
    }
}

impl Driver for UringDriver {
    fn kind(&self) -> DriverKind {
        DriverKind::Uring
    }

    fn adopt(&mut self, id: SocketId, socket: OwnedFd) {
        let index = id.index as usize;
        assert!(index < self.sockets_max, "{id:?} is beyond the driver's sockets");
        if index >= self.sockets.len() {
            self.sockets.resize_with(index + 1, Socket::default);
        }
        let vacant = &mut self.sockets[index];
        assert!(matches!(vacant.place, Place::Vacant), "{id:?} is taken");
        // The ring waits by itself on blocking sockets only; on others it reports EAGAIN. This fails on no socket.
        let _ = rustix::io::ioctl_fionbio(&socket, false);
        *vacant = Socket { generation: id.generation, place: Place::New(socket), ..Socket::default() };
    }

    fn adopt_stream(&mut self, id: SocketId, socket: OwnedFd) {
        // This fails on no socket.
        let _ = sockets::set_abortive(&socket, true);
        self.adopt(id, socket);
        let socket = self.socket(id);
        socket.stream = true;
        if let Place::New(fd) = std::mem::take(&mut socket.place) {
            socket.place = Place::Plain(fd);
        }
    }

    fn accept(&mut self, id: SocketId) {
        let socket = self.socket(id);
        socket.wanted.add(Op::Accept);
        if !socket.in_flight.has(Op::Accept) {
            self.start_accept(id.index);
        }
    }

    fn connect(&mut self, id: SocketId, target: impl Into<SocketAddrAny>) {
        let target = Box::new(target.into());
        let socket = self.socket(id);
        let fd = match &socket.place {
            Place::New(fd) => fd,
            Place::Plain(fd) if socket.stream && socket.in_flight.is_empty() => fd,
            _ => panic!("{id:?} was used before it is connected"),
        };
        if target.address_family() == AddressFamily::UNIX {
            let result = sockets::connect_unix(fd, &target);
            self.ready.push(Done::Connected { socket: id, result });
            return;
        }
        let entry = opcode::Connect::new(Fd(fd.as_raw_fd()), target.as_ptr().cast(), target.addr_len()).build();
        socket.target = Some(target);
        // SAFETY: the address is boxed and kept in the socket until the completion.
        unsafe { self.start(id.index, Op::Connect, entry) };
    }

    fn receive(&mut self, id: SocketId) {
        self.want_bytes(id, false);
    }

    fn receive_once(&mut self, id: SocketId) {
        self.want_bytes(id, true);
    }

    fn receive_into(&mut self, id: SocketId, slot: Slot, room: Range<usize>) {
        let socket = self.socket(id);
        assert!(!socket.in_flight.has(Op::Receive), "{id:?} receives");
        socket.into = Some((slot, room));
        self.want_bytes(id, true);
    }

    fn pause(&mut self, id: SocketId) {
        for op in [Op::Receive, Op::Accept] {
            if self.socket(id).wanted.remove(op) {
                self.cancel(id.index, op);
            }
        }
    }

    fn send<'a>(&mut self, id: SocketId, segments: impl Iterator<Item = &'a Segment>, answer: Answer) {
        let mut vector = self.vectors.pop().unwrap_or_else(|| Box::new(Vector::new(SEND_SEGMENTS_MAX)));
        vector.fill(segments);
        let socket = self.socket(id);
        assert!(!socket.in_flight.has(Op::Send), "{id:?} has a send in flight");
        socket.outgoing = Some(vector);
        self.start_send(id.index, answer);
    }

    fn shutdown(&mut self, id: SocketId) {
        let socket = self.socket(id);
        let (Place::Plain(fd) | Place::Both(fd)) = &socket.place else { panic!("{id:?} is no stream") };
        assert!(socket.stream && !socket.in_flight.has(Op::Send), "{id:?} is no stream or has a send in flight");
        let _ = rustix::net::shutdown(fd, Shutdown::Write);
    }

    fn close(&mut self, id: SocketId) {
        let socket = self.socket(id);
        if let (true, Place::Plain(fd) | Place::Both(fd)) = (socket.stream, &socket.place) {
            let _ = sockets::set_abortive(fd, false);
        }
        self.end(id);
    }

    fn abort(&mut self, id: SocketId) {
        assert!(self.socket(id).stream, "{id:?} is no stream");
        self.end(id);
    }

    fn provide(&mut self, slot: Slot) {
        self.buffers.give(slot);
    }

    fn withdraw(&mut self) -> Option<Slot> {
        // What the kernel has used but not said yet is not to be taken back: everything it said must have been heard.
        // It uses slots only inside of calls of this thread (deferred task-run), so that stays so until the next.
        let heard = !self.ring.io.submission().cq_overflow() && self.ring.io.completion().is_empty();
        if heard { self.buffers.withdraw() } else { None }
    }

    fn provided(&self) -> usize {
        self.buffers.lent
    }

    fn wait(&mut self, now_ms: u64, until_ms: u64, burst: &mut Vec<Done>) -> io::Result<()> {
        burst.append(&mut self.ready);
        let limit = if burst.is_empty() { self.limit(now_ms, until_ms) } else { Some(Duration::ZERO) };
        self.ring.enter(limit)?;
        self.reap(burst);
        burst.append(&mut self.ready);
        Ok(())
    }
}

impl Drop for UringDriver {
    /// Ends what is in flight before the memory that it uses goes.
    fn drop(&mut self) {
        while self.in_flight > 0 {
            let all = opcode::AsyncCancel2::new(io_uring::types::CancelBuilder::any()).build();
            let token = Token { cancels: true, op: Op::Wake, generation: 0, index: 0 };
            // SAFETY: the entry points to nothing.
            unsafe { self.ring.push(all.user_data(token.pack())) };
            // The limit only means to ask again: the loop ends when the kernel has ended everything and not before.
            if self.ring.enter(Some(Duration::from_millis(20))).is_err() {
                // The kernel cannot be asked any more, so what it may still read must stay where it is.
                std::mem::forget(std::mem::take(&mut self.sockets));
                return;
            }
            let mut batch = std::mem::take(&mut self.batch);
            batch.extend(self.ring.io.completion());
            self.end_unsaid(&batch, &mut Vec::new());
            for entry in batch.drain(..) {
                let token = Token::unpack(entry.user_data());
                if token.cancels {
                    continue;
                }
                if !cqueue::more(entry.flags()) {
                    self.in_flight -= 1;
                }
                let result = usize::try_from(entry.result()).map_err(|_| Errno::CANCELED);
                self.give_up(token.op, result, entry.flags());
            }
            self.batch = batch;
        }
    }
}

impl std::fmt::Debug for UringDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UringDriver")
            .field("queues", &self.queues())
            .field("in_flight", &self.in_flight)
            .field("provided", &self.buffers.lent)
            .finish_non_exhaustive()
    }
}

/// The two queues and the call that moves them.
struct Ring {
    io: IoUring,
    /// What `io_uring_enter` is called with: the index of the registered ring, which spares the kernel a look-up, or
    /// its descriptor.
    enter_fd: i32,
    enter_flags: EnterFlags,
    /// Entries that found the submission queue full.
    backlog: VecDeque<squeue::Entry>,
}

impl Ring {
    fn new(entries: u32, completions: u32) -> io::Result<Self> {
        let build = |no_sqarray: bool| {
            let mut builder = IoUring::builder();
            builder.setup_single_issuer().setup_defer_taskrun().setup_submit_all().setup_clamp();
            builder.setup_cqsize(completions).dontfork();
            if no_sqarray {
                builder.setup_no_sqarray();
            }
            builder.build(entries)
        };
        // NO_SQARRAY spares one indirection; kernels before 6.6 do not know it.
        let io = match build(true) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => build(false)?,
            other => other?,
        };
        let mut probe = Probe::new();
        io.submitter().register_probe(&mut probe)?;
        if let Some((_, name)) = OPCODES.iter().find(|(code, _)| !probe.is_supported(*code)) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, format!("the kernel does not have {name}")));
        }
        let (nodrop, ext_arg) = (io.params().is_feature_nodrop(), io.params().is_feature_ext_arg());
        let (fast_poll, stable) = (io.params().is_feature_fast_poll(), io.params().is_feature_submit_stable());
        let skip = io.params().is_feature_skip_cqe_on_success();
        if !(nodrop && ext_arg && fast_poll && stable && skip) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the kernel's io_uring is too old"));
        }
        let no_iowait = io.params().is_feature_no_iowait();
        let mut enter_flags = EnterFlags::empty();
        // A core that waits for the network is idle, not waiting for a disk.
        enter_flags.set(EnterFlags::NO_IOWAIT, no_iowait);
        let mut ring = Ring { enter_fd: io.as_raw_fd(), enter_flags, io, backlog: VecDeque::new() };
        ring.register_itself();
        Ok(ring)
    }

    /// Registers the ring with this thread. It works as well without.
    fn register_itself(&mut self) {
        let mut update = RingUpdate { offset: u32::MAX, reserved: 0, data: self.io.as_raw_fd() as u64 };
        // SAFETY: the call reads and writes the one structure, which outlives it.
        let registered = unsafe {
            let fd = self.io.as_raw_fd();
            libc::syscall(libc::SYS_io_uring_register, fd, REGISTER_RING_FDS, &raw mut update, 1)
        };
        if registered == 1 {
            self.enter_fd = update.offset as i32;
            self.enter_flags |= EnterFlags::REGISTERED_RING;
        }
    }

    /// Queues an entry; it is submitted by the next [`Self::enter`] at the latest.
    ///
    /// # Safety
    /// What the entry points to must stay valid and unmoved until the completion that ends it.
    unsafe fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: the caller's promise. Entries are submitted in order, so those of the backlog come first.
        if self.backlog.is_empty() && unsafe { self.io.submission().push(&entry) }.is_ok() {
            return;
        }
        self.backlog.push_back(entry);
        self.refill();
        if !self.backlog.is_empty() {
            // The queue is full. An error here is met again by `enter`, which reports it.
            let _ = self.call(0, EnterFlags::empty(), &SubmitArgs::new());
            self.refill();
        }
    }

    /// Moves entries from the backlog to the submission queue, in order, as far as there is room.
    fn refill(&mut self) {
        let mut queue = self.io.submission();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: `push` had the caller's promise.
            if unsafe { queue.push(entry) }.is_err() {
                break;
            }
            self.backlog.pop_front();
        }
    }

    /// Submits everything, runs what the kernel deferred to this thread, and waits for one completion unless some wait
    /// already: for ever, or up to `timeout`.
    fn enter(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        while !self.backlog.is_empty() {
            let before = self.backlog.len();
            self.call(0, EnterFlags::empty(), &SubmitArgs::new())?;
            self.refill();
            if self.backlog.len() == before {
                // The kernel takes no more before completions are taken from it.
                return self.call(0, EnterFlags::GETEVENTS, &SubmitArgs::new());
            }
        }
        match timeout {
            None => self.call(1, EnterFlags::GETEVENTS, &SubmitArgs::new()),
            Some(Duration::ZERO) => self.call(0, EnterFlags::GETEVENTS, &SubmitArgs::new()),
            Some(limit) => {
                let limit = Timespec::from(limit);
                self.call(1, EnterFlags::GETEVENTS, &SubmitArgs::new().timespec(&limit))
            }
        }
    }

    /// Whether everything was submitted, and every completion of that is in the queue or was taken from it.
    fn said_all(&mut self) -> bool {
        let queue = self.io.submission();
        self.backlog.is_empty() && queue.is_empty() && !queue.cq_overflow()
    }

    fn call(&mut self, want: u32, flags: EnterFlags, args: &SubmitArgs<'_, '_>) -> io::Result<()> {
        let submit = self.io.submission().len();
        let flags = flags | self.enter_flags | EnterFlags::EXT_ARG;
        // SAFETY: the entries keep the promise given to `push`; `args` and its time outlive the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.enter_fd,
                submit as u32,
                want,
                flags.bits(),
                std::ptr::from_ref(args),
                size_of::<SubmitArgs<'_, '_>>(),
            )
        };
        if result >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // The time is over; a signal came; completions must be taken first; no memory for requests at the moment.
            // Entries that were not taken are still in the queue.
            Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(error),
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.enter_flags.contains(EnterFlags::REGISTERED_RING) {
            // Otherwise the ring would live as long as the thread.
            let update = RingUpdate { offset: self.enter_fd as u32, reserved: 0, data: 0 };
            // SAFETY: the call reads the one structure, which outlives it.
            unsafe {
                let fd = self.io.as_raw_fd();
                libc::syscall(libc::SYS_io_uring_register, fd, UNREGISTER_RING_FDS, &raw const update, 1);
            }
        }
    }
}

/// `struct io_uring_rsrc_update` of `linux/io_uring.h`.
#[repr(C)]
struct RingUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// `IORING_RECVSEND_POLL_FIRST`.
const POLL_FIRST: u16 = 1;
/// `IORING_REGISTER_RING_FDS`. The crate's own call forgets the index with each `Submitter`.
const REGISTER_RING_FDS: u32 = 20;
/// `IORING_UNREGISTER_RING_FDS`.
const UNREGISTER_RING_FDS: u32 = 21;

/// The ring of provided buffers: which slots the kernel may receive into.
#[derive(Debug)]
struct Buffers {
    /// [`KERNEL_SLOTS_MAX`] entries; the tail lies in the reserved part of the first one.
    entries: NonNull<BufRingEntry>,
    tail: u16,
    /// What the kernel has, by the slot's index, which is also the buffer's id.
    slots: Box<[Option<Slot>]>,
    lent: usize,
    head: usize,
    body: usize,
}

const BUFFER_RING_BYTES: usize = (KERNEL_SLOTS_MAX * size_of::<BufRingEntry>()).next_multiple_of(4096);

impl Buffers {
    fn new(ring: &Ring, geometry: Geometry) -> io::Result<Self> {
        // SAFETY: a new anonymous mapping aliases nothing; `drop` unmaps it.
        let base = unsafe {
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), BUFFER_RING_BYTES, protection, MapFlags::PRIVATE)?
        };
        let buffers = Buffers {
            entries: NonNull::new(base.cast()).expect("mmap does not return null"),
            tail: 0,
            slots: (0..geometry.count).map(|_| None).collect(),
            lent: 0,
            head: geometry.head,
            body: geometry.body,
        };
        // SAFETY: page-aligned and of the length that the number of entries needs. The kernel pins the pages, so it
        // does not matter whether they are unmapped before the ring ends.
        unsafe {
            let address = buffers.entries.as_ptr() as u64;
            let entries = KERNEL_SLOTS_MAX as u16;
            let submitter = ring.io.submitter();
            submitter
                .register_buf_ring_with_flags(address, entries, BUFFER_GROUP, 0)
                .map_err(|e| said("registering a buffer ring", e))?;
        }
        Ok(buffers)
    }

    fn give(&mut self, slot: Slot) {
        assert!(self.lent < KERNEL_SLOTS_MAX, "the ring of buffers is full");
        assert!(slot.size() >= self.head + self.body, "a slot of another geometry");
        let place = &mut self.slots[usize::from(slot.id().index)];
        assert!(place.is_none(), "the kernel has this slot");
        let buffer = slot.id().index;
        *place = Some(slot);
        self.lent += 1;
        self.publish(buffer);
    }

    /// Lets the kernel use the slot that `buffer` stands for: for the first time, or again, since it gave it back
    /// without bytes that anyone wants.
    fn publish(&mut self, buffer: u16) {
        let slot = self.slots[usize::from(buffer)].as_ref().expect("the kernel names a slot that it has");
        let place = usize::from(self.tail) & (KERNEL_SLOTS_MAX - 1);
        // SAFETY: `place` is below the number of entries. The kernel does not read it before the tail says so: at most
        // KERNEL_SLOTS_MAX are lent, so it has taken what was here. The body lies in the slot by the assertion in
        // `give`, and `base_to_lend` made sure that nobody else refers to it.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(place);
            entry.set_addr(slot.base_to_lend().as_ptr() as u64 + self.head as u64);
            entry.set_len(self.body as u32);
            entry.set_bid(buffer);
        }
        self.set_tail(self.tail.wrapping_add(1));
    }

    /// Entries before the tail are the kernel's.
    fn set_tail(&mut self, tail: u16) {
        self.tail = tail;
        // SAFETY: the address of the first entry of a page-aligned ring, as `tail` asks; the kernel reads it as an
        // atomic, and so must this be. Release: the entry is written before the tail that covers it.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }

    /// Takes back the slot that was published last. The kernel must not have used any that it has not said.
    fn withdraw(&mut self) -> Option<Slot> {
        if self.lent == 0 {
            return None;
        }
        // What the kernel has is the last `lent` entries: it uses them from the front.
        let tail = self.tail.wrapping_sub(1);
        let place = usize::from(tail) & (KERNEL_SLOTS_MAX - 1);
        // SAFETY: `place` is below the number of entries; this side wrote the entry and the kernel only reads it.
        let buffer = unsafe { (*self.entries.as_ptr().add(place)).bid() };
        self.set_tail(tail);
        Some(self.take(buffer))
    }

    /// The kernel filled this one.
    fn take(&mut self, buffer: u16) -> Slot {
        self.lent -= 1;
        self.slots[usize::from(buffer)].take().expect("the kernel names a slot that it has")
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length; nothing else points there but the kernel's own pins.
        let _ = unsafe { rustix::mm::munmap(self.entries.as_ptr().cast(), BUFFER_RING_BYTES) };
    }
}

/// Adds what was being done to an error.
fn said(what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::{GENERATION_MASK, Op, Ops, Token};
    use proptest::prelude::*;

    const ALL: [Op; 7] = [Op::Accept, Op::Connect, Op::Receive, Op::Send, Op::Close, Op::Wake, Op::Time];

    proptest! {
        #[test]
        fn tokens_come_back(index: u32, generation: u32, kind in 0usize..7, cancels: bool) {
            let token = Token { cancels, op: ALL[kind], generation: generation & GENERATION_MASK, index };
            prop_assert_eq!(Token::unpack(token.pack()), token);
            prop_assert_eq!(Token::unpack(Token { generation, ..token }.pack()), token);
        }
    }

    #[test]
    fn a_set_of_operations_holds_each_kind_alone() {
        for op in ALL {
            let mut ops = Ops::default();
            ops.add(op);
            assert_eq!(ALL.iter().filter(|&&other| ops.has(other)).count(), 1, "{op:?}");
            assert!(ops.remove(op) && !ops.remove(op) && ops.is_empty());
        }
    }
}
