//! One suite for both drivers: what a core may rely on. Peers are ordinary blocking sockets in this process.
//!
//! Where there is no io_uring its half fails; that is meant. No assertion depends on time: a wait that finds nothing for
//! [`PATIENCE`] is a hang.

use ockam_engine::config::{DriverChoice, KERNEL_SLOTS_MAX};
use ockam_engine::io::driver::{Answer, Done, Driver, FOREVER, ReceiveEnd, SocketId};
use ockam_engine::io::epoll::EpollDriver;
use ockam_engine::io::pool::{Geometry, Pool, Segment, Slot};
use ockam_engine::io::uring::UringDriver;
use ockam_engine::io::waker::Waker;
use ockam_engine::io::{probe, sockets};
use ockam_engine_abi::PortalTarget;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrAny, sockopt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long nothing may happen before it is a hang.
const PATIENCE: Duration = Duration::from_secs(120);
const SOCKETS: usize = 1024;
const HEAD: usize = 512;
const BODY: usize = 16 * 1024;

/// The drivers under test.
trait Make: Driver + Sized {
    fn make(waker: Arc<Waker>, geometry: Geometry) -> Self;
}

impl Make for UringDriver {
    fn make(waker: Arc<Waker>, geometry: Geometry) -> Self {
        UringDriver::new(waker, SOCKETS, geometry).expect("io_uring works here")
    }
}

impl Make for EpollDriver {
    fn make(waker: Arc<Waker>, geometry: Geometry) -> Self {
        EpollDriver::new(waker, SOCKETS, geometry).expect("epoll works here")
    }
}

/// A driver with small queues, so that both overflow all the time.
struct Overflowing(UringDriver);

macro_rules! suite {
    ($($name:ident),* $(,)?) => {
        mod uring { $(#[test] fn $name() { super::$name::<super::UringDriver>(); })* }
        mod epoll { $(#[test] fn $name() { super::$name::<super::EpollDriver>(); })* }
        mod overflowing_uring { $(#[test] fn $name() { super::$name::<super::Overflowing>(); })* }
    };
}

suite!(
    accepts_until_closed,
    accepting_pauses,
    connects,
    reports_a_refused_connection,
    close_ends_a_connect,
    echoes_64_mib_in_order,
    loses_nothing_when_slots_run_out,
    slots_are_taken_back,
    a_pause_holds_bytes_back,
    a_revoked_pause_never_ends,
    eof_leaves_sending_open,
    a_reset_is_a_failure,
    close_ends_what_is_in_flight,
    an_index_is_used_again,
    a_slow_reader_gets_everything_in_order,
    an_answer_comes_with_the_next,
    what_finds_no_room_is_answered_at_once,
    many_that_find_no_room_are_told_apart,
    closing_ends_a_send_whose_answer_waits,
    one_that_never_stops_leaves_room_for_others,
    many_sockets_at_once,
    another_thread_wakes,
    waits_no_longer_than_asked,
    a_dropped_driver_closes_its_sockets,
    descriptors_run_out,
    receives_once,
    receiving_once_ends_once,
    a_pause_ends_receiving_once,
    what_parts_a_stream_does_not_stall_it,
    shutting_down_leaves_receiving_open,
    a_closed_stream_delivers_what_was_sent,
    an_aborted_stream_is_reset,
    whatever_ends_the_process_resets_streams,
    connects_to_unix_sockets,
    a_full_unix_backlog_is_said_at_once,
    accepts_on_unix_sockets,
    a_dialed_stream_ends_like_an_accepted_one,
    receives_into_a_slot_that_is_given,
    a_given_slot_always_comes_back,
    what_was_shared_is_not_written_again,
);

impl Make for Overflowing {
    fn make(waker: Arc<Waker>, geometry: Geometry) -> Self {
        Overflowing(UringDriver::with_queues(waker, SOCKETS, geometry, (2, 4)).expect("io_uring works here"))
    }
}

impl Driver for Overflowing {
    fn kind(&self) -> ockam_engine_abi::Driver {
        self.0.kind()
    }
    fn adopt(&mut self, id: SocketId, socket: OwnedFd) {
        self.0.adopt(id, socket);
    }
    fn accept(&mut self, id: SocketId) {
        self.0.accept(id);
    }
    fn adopt_stream(&mut self, id: SocketId, socket: OwnedFd) {
        self.0.adopt_stream(id, socket);
    }
    fn connect(&mut self, id: SocketId, target: impl Into<SocketAddrAny>) {
        self.0.connect(id, target);
    }
    fn receive(&mut self, id: SocketId) {
        self.0.receive(id);
    }
    fn receive_once(&mut self, id: SocketId) {
        self.0.receive_once(id);
    }
    fn receive_into(&mut self, id: SocketId, slot: Slot, room: Range<usize>) {
        self.0.receive_into(id, slot, room);
    }
    fn pause(&mut self, id: SocketId) {
        self.0.pause(id);
    }
    fn send<'a>(&mut self, id: SocketId, segments: impl Iterator<Item = &'a Segment>, answer: Answer) {
        self.0.send(id, segments, answer);
    }
    fn shutdown(&mut self, id: SocketId) {
        self.0.shutdown(id);
    }
    fn close(&mut self, id: SocketId) {
        self.0.close(id);
    }
    fn abort(&mut self, id: SocketId) {
        self.0.abort(id);
    }
    fn provide(&mut self, slot: Slot) {
        self.0.provide(slot);
    }
    fn withdraw(&mut self) -> Option<Slot> {
        self.0.withdraw()
    }
    fn provided(&self) -> usize {
        self.0.provided()
    }
    fn wait(&mut self, now_ms: u64, until_ms: u64, burst: &mut Vec<Done>) -> std::io::Result<()> {
        self.0.wait(now_ms, until_ms, burst)
    }
}

/// A driver, its pool, and what it said that no test has asked for yet.
struct World<D> {
    driver: D,
    waker: Arc<Waker>,
    pool: Pool,
    said: VecDeque<Done>,
    next: u32,
}

impl<D: Make> World<D> {
    /// With `count` slots, of which `provided` are lent.
    fn new(count: usize, provided: usize) -> Self {
        let geometry = Geometry { head: HEAD, body: BODY, tail: 0, count };
        let pool = Pool::new(0, geometry, Geometry { count: 1, ..geometry }).unwrap();
        let waker = Arc::new(Waker::new().unwrap());
        let driver = D::make(Arc::clone(&waker), geometry);
        let mut world = World { driver, waker, pool, said: VecDeque::new(), next: 0 };
        world.provide(provided);
        world
    }

    fn provide(&mut self, count: usize) {
        for _ in 0..count {
            let slot = self.pool.lend().expect("a free slot");
            self.driver.provide(slot);
        }
    }

    /// The core's part when bytes come: takes them out of the slot and lends it again.
    fn bytes_of(&mut self, slot: Slot, length: usize) -> Vec<u8> {
        let bytes = slot.bytes(HEAD..HEAD + length).to_vec();
        self.pool.returned(&slot);
        self.pool.put(slot);
        bytes
    }

    fn adopt(&mut self, socket: impl Into<OwnedFd>) -> SocketId {
        let id = SocketId { index: self.next, generation: 7 };
        self.next += 1;
        self.driver.adopt(id, socket.into());
        id
    }

    fn adopt_stream(&mut self, socket: impl Into<OwnedFd>) -> SocketId {
        let id = SocketId { index: self.next, generation: 7 };
        self.next += 1;
        self.driver.adopt_stream(id, socket.into());
        id
    }

    /// A connected pair: the driver's stream and the application.
    fn stream(&mut self) -> (SocketId, TcpStream) {
        let (ours, theirs) = stream_pair();
        (self.adopt_stream(ours), theirs)
    }

    /// The same over a Unix socket.
    fn unix_stream(&mut self) -> (SocketId, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (self.adopt_stream(ours), theirs)
    }

    /// Receives exactly `count` bytes, each slot asked for by itself.
    fn receive_one_by_one(&mut self, id: SocketId, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            self.driver.receive_once(id);
            bytes.extend(self.until_received(id));
            self.provide(1);
        }
        assert_eq!(bytes.len(), count);
        bytes
    }

    /// What comes back of the slot that was given for one receive.
    fn until_filled(&mut self, id: SocketId) -> (Slot, usize) {
        match self.until(|done| matches!(done, Done::Filled { socket, .. } if *socket == id)) {
            Done::Filled { slot, length, .. } => (slot, length),
            _ => unreachable!(),
        }
    }

    /// What one receive ends with, when no bytes are there.
    fn receive_nothing(&mut self, id: SocketId) -> ReceiveEnd {
        self.driver.receive_once(id);
        self.until_ended(id)
    }

    fn assert_quiet(&mut self) {
        self.settle();
        assert!(self.said.is_empty(), "{:?}", self.said);
    }

    /// A connected pair: the driver's socket and the peer's.
    fn pair(&mut self) -> (SocketId, TcpStream) {
        let (ours, theirs) = stream_pair();
        (self.adopt(ours), theirs)
    }

    fn wait(&mut self) {
        let mut burst = Vec::new();
        self.driver.wait(0, PATIENCE.as_millis() as u64, &mut burst).unwrap();
        self.said.extend(burst);
    }

    /// The first thing said for which `wanted` holds; what else was said stays.
    fn until(&mut self, wanted: impl Fn(&Done) -> bool) -> Done {
        loop {
            if let Some(place) = self.said.iter().position(&wanted) {
                return self.said.remove(place).unwrap();
            }
            // A wait may find nothing: a signal came, or a completion that means nothing to a core.
            let (before, since) = (self.said.len(), Instant::now());
            while self.said.len() == before {
                self.wait();
                assert!(since.elapsed() < PATIENCE, "hangs; said: {:?}", self.said);
            }
        }
    }

    fn until_received(&mut self, id: SocketId) -> Vec<u8> {
        match self.until(|done| matches!(done, Done::Received { socket, .. } if *socket == id)) {
            Done::Received { slot, length, .. } => self.bytes_of(slot, length),
            _ => unreachable!(),
        }
    }

    fn until_ended(&mut self, id: SocketId) -> ReceiveEnd {
        match self.until(|done| matches!(done, Done::ReceiveEnded { socket, .. } if *socket == id)) {
            Done::ReceiveEnded { end, .. } => end,
            _ => unreachable!(),
        }
    }

    fn until_sent(&mut self, id: SocketId) -> Result<usize, Errno> {
        match self.until(|done| matches!(done, Done::Sent { socket, .. } if *socket == id)) {
            Done::Sent { result, .. } => result,
            _ => unreachable!(),
        }
    }

    fn until_connected(&mut self, id: SocketId) -> Result<SocketAddr, Errno> {
        match self.until(|done| matches!(done, Done::Connected { socket, .. } if *socket == id)) {
            Done::Connected { result, .. } => result,
            _ => unreachable!(),
        }
    }

    fn until_accepted(&mut self, id: SocketId) -> OwnedFd {
        match self.until(|done| matches!(done, Done::Accepted { listener, .. } if *listener == id)) {
            Done::Accepted { socket, .. } => socket,
            _ => unreachable!(),
        }
    }

    fn until_accept_failed(&mut self, id: SocketId) -> Errno {
        match self.until(|done| matches!(done, Done::AcceptFailed { listener, .. } if *listener == id)) {
            Done::AcceptFailed { errno, .. } => errno,
            _ => unreachable!(),
        }
    }

    /// Receives exactly `count` bytes, lending each slot again.
    fn receive_exactly(&mut self, id: SocketId, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            bytes.extend(self.until_received(id));
            self.provide(1);
        }
        assert_eq!(bytes.len(), count);
        bytes
    }

    /// Closes and waits for the end; returns what else was said about the socket after the call.
    fn close(&mut self, id: SocketId) -> Vec<Done> {
        self.driver.close(id);
        let before = self.said.len();
        self.until(|done| matches!(done, Done::Closed { socket } if *socket == id));
        let about = |done: &Done| match done {
            Done::Accepted { listener, .. } | Done::AcceptFailed { listener, .. } => *listener == id,
            Done::Connected { socket, .. }
            | Done::Received { socket, .. }
            | Done::Filled { socket, .. }
            | Done::ReceiveEnded { socket, .. }
            | Done::Sent { socket, .. }
            | Done::Closed { socket } => *socket == id,
            Done::Woken => false,
        };
        let (about, others) = self.said.drain(before..).partition(about);
        let others: Vec<Done> = others;
        self.said.extend(others);
        about
    }

    /// Lets the driver say whatever it has left to say.
    fn settle(&mut self) {
        for _ in 0..20 {
            let mut burst = Vec::new();
            self.driver.wait(0, 0, &mut burst).unwrap();
            self.said.extend(burst);
        }
    }

    /// Every slot has one owner, and nothing was said that nobody asked for.
    fn finish(mut self) {
        self.settle();
        assert!(self.said.is_empty(), "left: {:?}", self.said);
        self.pool.assert_conserved(self.driver.provided());
        let (free, kernel, core) = self.pool.census();
        assert_eq!((kernel, core), (self.driver.provided(), 0), "{free} free");
    }

    /// A slot full of `bytes` as one segment; the handle is put back, so the segment alone keeps the slot.
    fn segment(&mut self, bytes: &[u8]) -> Segment {
        let mut slot = self.pool.take().expect("a free slot");
        slot.bytes_mut(0..bytes.len()).copy_from_slice(bytes);
        let segment = self.pool.share(&mut slot, 0..bytes.len());
        self.pool.put(slot);
        segment
    }

    /// Sends all of `segments`, however short the sends are, and releases them.
    fn send_all(&mut self, id: SocketId, segments: Vec<Segment>) {
        let mut queue = VecDeque::from(segments);
        while !queue.is_empty() {
            self.driver.send(id, queue.iter(), Answer::AtOnce);
            let sent = self.until_sent(id).unwrap();
            self.advance(&mut queue, sent);
        }
    }

    /// The core's part when a send ends.
    fn advance(&mut self, queue: &mut VecDeque<Segment>, mut sent: usize) {
        while let Some(front) = queue.front_mut() {
            if sent < front.len() {
                front.advance(sent);
                return;
            }
            sent -= front.len();
            self.pool.release(queue.pop_front().unwrap());
        }
        assert_eq!(sent, 0, "more sent than there was");
    }
}

fn listening() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A port at which nobody listens, and nobody can as long as the socket lives. It never listened: a socket that did may live
/// on, for a moment, in a process that is being started beside this test.
fn not_listening() -> (OwnedFd, SocketAddr) {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = sockets::local_addr(&socket).unwrap();
    (socket, address)
}

fn stream_pair() -> (TcpStream, TcpStream) {
    let (listener, address) = listening();
    let ours = TcpStream::connect(address).unwrap();
    let (theirs, _) = listener.accept().unwrap();
    (ours, theirs)
}

/// A pair with the smallest buffers, so that a few hundred KiB fill them.
fn narrow_pair() -> (TcpStream, TcpStream) {
    let (listener, address) = listening();
    sockopt::set_socket_recv_buffer_size(&listener, 4096).unwrap();
    let ours = TcpStream::connect(address).unwrap();
    sockopt::set_socket_send_buffer_size(&ours, 4096).unwrap();
    let (theirs, _) = listener.accept().unwrap();
    (ours, theirs)
}

/// Bytes of which each eight say where in the stream they are, so that any loss, repetition or exchange shows.
fn pattern(from: usize, length: usize) -> Vec<u8> {
    (from..from + length).map(|at| ((at / 8).wrapping_mul(0x9e37_79b9) >> (at % 8 * 8)) as u8).collect()
}

fn assert_pattern(bytes: &[u8], from: usize) {
    assert!(bytes == pattern(from, bytes.len()), "wrong bytes in {} after {from}", bytes.len());
}

fn accepts_until_closed<D: Make>() {
    let mut world = World::<D>::new(4, 0);
    let (listener, address) = listening();
    let shared = listener.try_clone().unwrap();
    let id = world.adopt(listener);
    world.driver.accept(id);
    world.driver.accept(id);
    for _ in 0..3 {
        let clients: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut expected: Vec<_> = clients.iter().map(|client| client.local_addr().unwrap()).collect();
        let mut peers: Vec<_> = (0..20)
            .map(|_| {
                let socket = world.until_accepted(id);
                assert!(rustix::io::fcntl_getfd(&socket).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
                assert_eq!(sockets::local_addr(&socket), Ok(address));
                sockets::peer_addr(&socket).unwrap()
            })
            .collect();
        peers.sort();
        expected.sort();
        assert_eq!(peers, expected);
    }
    assert!(world.close(id).is_empty());
    // Others who hold the listening socket are not disturbed, and the driver takes no connection any more.
    shared.set_nonblocking(false).unwrap();
    let client = TcpStream::connect(address).unwrap();
    let (_, peer) = shared.accept().unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
    world.finish();
}

fn accepting_pauses<D: Make>() {
    let mut world = World::<D>::new(4, 0);
    let (listener, address) = listening();
    let id = world.adopt(listener);
    world.driver.accept(id);
    let _first = TcpStream::connect(address).unwrap();
    world.until_accepted(id);
    world.driver.pause(id);
    assert_eq!(world.until_accept_failed(id), Errno::CANCELED);
    let second = TcpStream::connect(address).unwrap();
    world.settle();
    assert!(world.said.is_empty(), "accepted while paused");
    world.driver.accept(id);
    let socket = world.until_accepted(id);
    assert_eq!(sockets::peer_addr(&socket), Ok(second.local_addr().unwrap()));
    world.close(id);
    world.finish();
}

fn connects<D: Make>() {
    let mut world = World::<D>::new(4, 2);
    for family in ["127.0.0.1:0", "[::1]:0"] {
        // Machines without IPv6 cannot bind its loopback address.
        let Ok(listener) = TcpListener::bind(family) else { continue };
        let address = listener.local_addr().unwrap();
        let id = world.adopt(sockets::to_dial(address).unwrap());
        world.driver.connect(id, address);
        let local = world.until_connected(id).unwrap();
        let (mut peer, from) = listener.accept().unwrap();
        assert_eq!(local, from);
        world.driver.receive(id);
        peer.write_all(b"hello").unwrap();
        assert_eq!(world.until_received(id), b"hello");
        world.provide(1);
        let segments = vec![world.segment(b"good"), world.segment(b"bye")];
        world.send_all(id, segments);
        let mut answer = [0; 7];
        peer.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"goodbye");
        assert!(world.close(id).is_empty());
        assert_eq!(peer.read(&mut answer).unwrap(), 0);
    }
    world.finish();
}

fn reports_a_refused_connection<D: Make>() {
    let mut world = World::<D>::new(4, 0);
    let (_closed, address) = not_listening();
    let id = world.adopt(sockets::to_dial(address).unwrap());
    world.driver.connect(id, address);
    assert_eq!(world.until_connected(id), Err(Errno::CONNREFUSED));
    assert!(world.close(id).is_empty());
    world.finish();
}

/// A backlog that is full answers no connect, so this one stays in flight until the close.
fn close_ends_a_connect<D: Make>() {
    let mut world = World::<D>::new(4, 0);
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    rustix::net::bind(&socket, &any).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let address = sockets::local_addr(&socket).unwrap();
    // The backlog takes one more than its length; beyond it the kernel drops what arrives.
    let _waiting = TcpStream::connect(address).unwrap();
    let ids: Vec<_> = (0..3).map(|_| world.adopt(sockets::to_dial(address).unwrap())).collect();
    for &id in &ids {
        world.driver.connect(id, address);
    }
    world.settle();
    assert!(world.said.is_empty(), "connected beyond the backlog: {:?}", world.said);
    for id in ids {
        assert!(world.close(id).is_empty());
    }
    world.finish();
}

fn echoes_64_mib_in_order<D: Make>() {
    const TOTAL: usize = 64 * 1024 * 1024;
    const CHUNK: usize = 100_003;
    let mut world = World::<D>::new(24, 12);
    let (id, peer) = world.pair();
    let mut writing = peer.try_clone().unwrap();
    let writer = thread::spawn(move || {
        let mut at = 0;
        while at < TOTAL {
            let length = CHUNK.min(TOTAL - at);
            writing.write_all(&pattern(at, length)).unwrap();
            at += length;
        }
        writing.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let reader = thread::spawn(move || {
        let mut reading = peer;
        let (mut at, mut buffer) = (0, vec![0; 256 * 1024]);
        loop {
            match reading.read(&mut buffer).unwrap() {
                0 => return at,
                length => {
                    assert_pattern(&buffer[..length], at);
                    at += length;
                }
            }
        }
    });

    // What a core does for one link, in small: slots go out as they came in, and are lent again when they were sent.
    let (mut egress, mut sending, mut receiving, mut eof) = (VecDeque::new(), false, true, false);
    world.driver.receive(id);
    while !(eof && egress.is_empty()) {
        world.wait();
        while let Some(done) = world.said.pop_front() {
            match done {
                Done::Received { mut slot, length, .. } => {
                    world.pool.returned(&slot);
                    egress.push_back(world.pool.share(&mut slot, HEAD..HEAD + length));
                    world.pool.put(slot);
                }
                Done::ReceiveEnded { end: ReceiveEnd::NoSlots, .. } => receiving = false,
                Done::ReceiveEnded { end: ReceiveEnd::Eof, .. } => eof = true,
                Done::Sent { result, .. } => {
                    world.advance(&mut egress, result.unwrap());
                    sending = false;
                }
                other => panic!("{other:?}"),
            }
        }
        let free = world.pool.census().0;
        world.provide(free.min(12 - world.driver.provided()));
        if !receiving && world.driver.provided() > 0 {
            world.driver.receive(id);
            receiving = true;
        }
        if !sending && !egress.is_empty() {
            world.driver.send(id, egress.iter(), Answer::AtOnce);
            sending = true;
        }
        world.pool.assert_conserved(world.driver.provided());
    }
    world.close(id);
    writer.join().unwrap();
    assert_eq!(reader.join().unwrap(), TOTAL);
    world.finish();
}

fn loses_nothing_when_slots_run_out<D: Make>() {
    const TOTAL: usize = 1024 * 1024;
    let mut world = World::<D>::new(2, 0);
    let (id, mut peer) = world.pair();
    let writer = thread::spawn(move || peer.write_all(&pattern(0, TOTAL)).map(|()| peer).unwrap());
    let (mut at, mut received, mut ended) = (0, 0, 0);
    world.driver.receive(id);
    while at < TOTAL {
        // None is lent at first, then one each time that they ran out.
        match world.until(|_| true) {
            Done::Received { slot, length, .. } => {
                let bytes = world.bytes_of(slot, length);
                assert_pattern(&bytes, at);
                at += bytes.len();
                received += 1;
            }
            Done::ReceiveEnded { end: ReceiveEnd::NoSlots, .. } => {
                assert_eq!(world.driver.provided(), 0);
                world.provide(1);
                world.driver.receive(id);
                ended += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(received >= TOTAL / BODY && ended >= received, "{received} received, ended {ended} times");
    drop(writer.join().unwrap());
    if world.driver.provided() == 0 {
        // The end needs a slot as well: there might have been bytes.
        assert_eq!(world.until_ended(id), ReceiveEnd::NoSlots);
        world.provide(1);
        world.driver.receive(id);
    }
    assert_eq!(world.until_ended(id), ReceiveEnd::Eof);
    assert_eq!(world.driver.provided(), 1);
    world.close(id);
    world.finish();
}

fn slots_are_taken_back<D: Make>() {
    let mut world = World::<D>::new(64, 0);
    let (id, mut peer) = world.pair();
    let mut at = 0;
    world.driver.receive(id);
    for round in 0..40 {
        world.provide(1 + round % 37);
        // Some are used before the others are taken back, and used ones are lent again.
        for _ in 0..round % 5 {
            peer.write_all(&pattern(at, 100)).unwrap();
            let bytes = world.receive_exactly(id, 100);
            assert_pattern(&bytes, at);
            at += 100;
        }
        while world.driver.provided() > 0 {
            match world.driver.withdraw() {
                Some(slot) => {
                    world.pool.returned(&slot);
                    world.pool.put(slot);
                }
                None => world.settle(),
            }
        }
        assert!(world.driver.withdraw().is_none());
        // What comes now is not lost, and lands in no slot that was taken back.
        peer.write_all(&pattern(at, 10)).unwrap();
        assert_eq!(world.until_ended(id), ReceiveEnd::NoSlots);
        world.pool.assert_conserved(0);
        world.provide(1);
        world.driver.receive(id);
        let bytes = world.until_received(id);
        assert_pattern(&bytes, at);
        at += bytes.len();
    }
    world.close(id);
    world.finish();
}

fn a_pause_holds_bytes_back<D: Make>() {
    let mut world = World::<D>::new(8, 4);
    let (paused, mut peer) = world.pair();
    let (other, mut other_peer) = world.pair();
    world.driver.pause(paused);
    world.driver.receive(other);
    world.driver.receive(paused);
    for round in 0..50u8 {
        peer.write_all(&[round]).unwrap();
        assert_eq!(world.receive_exactly(paused, 1), [round]);
        world.driver.pause(paused);
        world.driver.pause(paused);
        assert_eq!(world.until_ended(paused), ReceiveEnd::Paused);
        // These arrive in this order on the loopback interface; the second is said, the first is not.
        peer.write_all(&[round, 1]).unwrap();
        other_peer.write_all(&[round, 2]).unwrap();
        assert_eq!(world.receive_exactly(other, 2), [round, 2]);
        assert!(world.said.is_empty(), "{:?}", world.said);
        world.driver.receive(paused);
        assert_eq!(world.receive_exactly(paused, 2), [round, 1]);
    }
    // The end of the peer while paused is said after the pause.
    world.driver.pause(paused);
    assert_eq!(world.until_ended(paused), ReceiveEnd::Paused);
    peer.write_all(b"last").unwrap();
    drop(peer);
    world.driver.receive(paused);
    assert_eq!(world.receive_exactly(paused, 4), b"last");
    assert_eq!(world.until_ended(paused), ReceiveEnd::Eof);
    assert!(world.close(paused).is_empty());
    assert!(world.close(other).is_empty());
    world.finish();
}

fn a_revoked_pause_never_ends<D: Make>() {
    let mut world = World::<D>::new(8, 4);
    let (id, mut peer) = world.pair();
    world.driver.receive(id);
    for round in 0..50u8 {
        for _ in 0..round % 4 {
            world.driver.pause(id);
            world.driver.receive(id);
        }
        peer.write_all(&[round; 3]).unwrap();
        assert_eq!(world.receive_exactly(id, 3), [round; 3]);
        world.driver.pause(id);
        world.driver.receive(id);
    }
    drop(peer);
    assert_eq!(world.until_ended(id), ReceiveEnd::Eof);
    world.settle();
    assert!(world.said.is_empty(), "{:?}", world.said);
    world.close(id);
    world.finish();
}

fn eof_leaves_sending_open<D: Make>() {
    let mut world = World::<D>::new(8, 4);
    let (id, mut peer) = world.pair();
    world.driver.receive(id);
    peer.write_all(b"before").unwrap();
    peer.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(world.receive_exactly(id, 6), b"before");
    assert_eq!(world.until_ended(id), ReceiveEnd::Eof);
    let segments = vec![world.segment(b"after")];
    world.send_all(id, segments);
    assert!(world.close(id).is_empty());
    let mut rest = Vec::new();
    peer.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"after");
    world.finish();
}

fn a_reset_is_a_failure<D: Make>() {
    let mut world = World::<D>::new(8, 4);
    let (armed, peer) = world.pair();
    world.driver.receive(armed);
    world.settle();
    sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).unwrap();
    drop(peer);
    assert_eq!(world.until_ended(armed), ReceiveEnd::Failed(Errno::CONNRESET));
    let segment = world.segment(b"too late");
    world.driver.send(armed, std::iter::once(&segment), Answer::AtOnce);
    assert_eq!(world.until_sent(armed), Err(Errno::PIPE));
    world.pool.release(segment);
    assert!(world.close(armed).is_empty());
    assert_eq!(world.driver.provided(), 4);
    world.finish();
}

fn close_ends_what_is_in_flight<D: Make>() {
    let mut world = World::<D>::new(8, 4);
    for round in 0..20 {
        let (ours, mut peer) = narrow_pair();
        let id = world.adopt(ours);
        world.driver.receive(id);
        // The same range 40 times is more than the buffers take.
        let mut slot = world.pool.take().unwrap();
        slot.bytes_mut(0..BODY).fill(round);
        let mut queue: VecDeque<Segment> = (0..40).map(|_| world.pool.share(&mut slot, 0..BODY)).collect();
        world.pool.put(slot);
        world.driver.send(id, queue.iter(), Answer::AtOnce);
        let sent = world.until_sent(id).unwrap();
        assert!(sent > 0 && sent < 40 * BODY, "sent {sent}");
        world.advance(&mut queue, sent);
        world.driver.send(id, queue.iter(), Answer::AtOnce);
        if round % 2 == 0 {
            world.settle();
        }
        if round % 3 == 0 {
            peer.write_all(&[round; 100]).unwrap();
        }
        let about = world.close(id);
        // Bytes may have come in before the close; after it there is the end of the send only.
        let mut sends = 0;
        let before: Vec<Done> = world.said.drain(..).collect();
        for done in about.into_iter().chain(before) {
            match done {
                Done::Sent { result, .. } => {
                    assert!(result.is_ok() || result == Err(Errno::CANCELED), "{result:?}");
                    sends += 1;
                }
                Done::Received { slot, length, .. } => {
                    assert_eq!(world.bytes_of(slot, length), vec![round; length]);
                    world.provide(1);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(sends, 1);
        world.settle();
        assert!(world.said.is_empty(), "said after the close: {:?}", world.said);
        for segment in queue {
            world.pool.release(segment);
        }
        assert_eq!(world.driver.provided(), 4);
        // The peer sees the end: a reset if it sent what nobody took.
        let mut rest = Vec::new();
        match peer.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
        assert!(rest.iter().all(|&byte| byte == round));
    }
    world.finish();
}

fn an_index_is_used_again<D: Make>() {
    let mut world = World::<D>::new(8, 4);
    // Across the end of the 24 bits that a driver may keep.
    for generation in 0x00ff_ff00..0x0100_0100 {
        let (ours, mut peer) = stream_pair();
        let id = SocketId { index: 3, generation };
        world.driver.adopt(id, ours.into());
        world.driver.receive(id);
        peer.write_all(&generation.to_be_bytes()).unwrap();
        if generation % 2 == 0 {
            assert_eq!(world.receive_exactly(id, 4), generation.to_be_bytes());
            peer.write_all(b"more").unwrap();
        }
        assert!(world.close(id).is_empty(), "something was said after the close");
        assert!(world.said.is_empty(), "{:?}", world.said);
        assert_eq!(world.driver.provided(), 4);
    }
    world.finish();
}

fn a_slow_reader_gets_everything_in_order<D: Make>() {
    const TOTAL: usize = 200 * BODY;
    let mut world = World::<D>::new(240, 0);
    let (ours, mut peer) = narrow_pair();
    let id = world.adopt(ours);
    let segments: Vec<_> = (0..TOTAL / BODY).map(|part| world.segment(&pattern(part * BODY, BODY))).collect();
    let mut queue = VecDeque::from(segments);
    world.driver.send(id, queue.iter(), Answer::AtOnce);
    // Nobody reads yet, and the first send does not wait for room for all of it.
    let sent = world.until_sent(id).unwrap();
    assert!(sent > 0 && sent < 64 * BODY, "sent {sent}");
    world.advance(&mut queue, sent);
    let reader = thread::spawn(move || {
        let (mut at, mut buffer) = (0, [0; 1999]);
        loop {
            match peer.read(&mut buffer).unwrap() {
                0 => return at,
                length => {
                    assert_pattern(&buffer[..length], at);
                    at += length;
                }
            }
        }
    });
    world.send_all(id, queue.into());
    world.close(id);
    assert_eq!(reader.join().unwrap(), TOTAL);
    world.finish();
}

fn an_answer_comes_with_the_next<D: Make>() {
    let mut world = World::<D>::new(8, 4);
    let (id, mut peer) = world.pair();
    world.driver.receive(id);
    let echo = thread::spawn(move || {
        let mut byte = [0];
        while peer.read_exact(&mut byte).and_then(|()| peer.write_all(&byte)).is_ok() {}
    });
    // The first event of epoll is about no bytes.
    world.settle();
    for round in 0..200u8 {
        let segment = world.segment(&[round]);
        world.driver.send(id, std::iter::once(&segment), Answer::WithTheNext);
        let mut burst = Vec::new();
        while burst.is_empty() {
            world.driver.wait(0, FOREVER, &mut burst).unwrap();
        }
        // The wait that ended had bytes to give; the answer came with them.
        let mut burst = burst.into_iter();
        assert!(matches!(burst.next(), Some(Done::Sent { result: Ok(1), .. })));
        let Some(Done::Received { slot, length, .. }) = burst.next() else { panic!("the answer came alone") };
        assert_eq!(world.bytes_of(slot, length), [round]);
        world.pool.release(segment);
        world.provide(1);
    }
    // Nothing else happens, and it is said.
    let segment = world.segment(b"last");
    world.driver.send(id, std::iter::once(&segment), Answer::WithTheNext);
    let mut burst = Vec::new();
    world.driver.wait(0, 0, &mut burst).unwrap();
    assert!(matches!(burst[0], Done::Sent { result: Ok(4), .. }), "{burst:?}");
    world.pool.release(segment);
    world.close(id);
    echo.join().unwrap();
}

fn what_finds_no_room_is_answered_at_once<D: Make>() {
    let mut world = World::<D>::new(8, 0);
    let (ours, mut peer) = narrow_pair();
    let id = world.adopt(ours);
    let mut slot = world.pool.take().unwrap();
    (0..BODY).for_each(|at| slot.bytes_mut(at..at + 1)[0] = (at % 251) as u8);
    const PARTS: usize = 60;
    let mut queue: VecDeque<_> = (0..PARTS).map(|_| world.pool.share(&mut slot, 0..BODY)).collect();
    world.pool.put(slot);
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        // After the first sends have found no room.
        thread::sleep(Duration::from_millis(20));
        peer.read_to_end(&mut bytes).unwrap();
        bytes
    });
    // Nothing else can end the wait but the answer of a send that could not be sent at once.
    while !queue.is_empty() {
        world.driver.send(id, queue.iter(), Answer::WithTheNext);
        let mut burst = Vec::new();
        world.driver.wait(0, 5, &mut burst).unwrap();
        world.said.extend(burst);
        let sent = world.until_sent(id).unwrap();
        world.advance(&mut queue, sent);
    }
    world.close(id);
    let bytes = reader.join().unwrap();
    assert_eq!(bytes.len(), PARTS * BODY);
    assert!(bytes.iter().enumerate().all(|(at, &byte)| byte == (at % BODY % 251) as u8));
    world.finish();
}

fn many_that_find_no_room_are_told_apart<D: Make>() {
    const PARTS: usize = 20;
    let mut world = World::<D>::new(16, 0);
    let mut slot = world.pool.take().unwrap();
    slot.bytes_mut(0..BODY).copy_from_slice(&pattern(0, BODY));
    let mut readers = Vec::new();
    let mut links: Vec<_> = (0..12)
        .map(|_| {
            let (ours, mut peer) = narrow_pair();
            readers.push(thread::spawn(move || {
                let mut bytes = Vec::new();
                peer.read_to_end(&mut bytes).unwrap();
                bytes
            }));
            let queue: VecDeque<_> = (0..PARTS).map(|_| world.pool.share(&mut slot, 0..BODY)).collect();
            (world.adopt(ours), queue, false)
        })
        .collect();
    world.pool.put(slot);
    // Both kinds in turn, so that what is said late of one would be taken for the other.
    let mut answers = [Answer::WithTheNext, Answer::AtOnce].into_iter().cycle();
    while links.iter().any(|(_, queue, _)| !queue.is_empty()) {
        for (id, queue, sending) in links.iter_mut().filter(|(_, queue, sending)| !sending && !queue.is_empty()) {
            world.driver.send(*id, queue.iter(), answers.next().unwrap());
            *sending = true;
        }
        let mut burst = Vec::new();
        world.driver.wait(0, 1, &mut burst).unwrap();
        for done in burst {
            let Done::Sent { socket, result } = done else { panic!("{done:?}") };
            let (_, queue, sending) = links.iter_mut().find(|(id, ..)| *id == socket).unwrap();
            assert!(std::mem::take(sending), "{socket:?} has no send in flight");
            world.advance(queue, result.unwrap());
        }
    }
    links.iter().for_each(|(id, ..)| drop(world.close(*id)));
    let expected = pattern(0, BODY).repeat(PARTS);
    assert!(readers.into_iter().all(|reader| reader.join().unwrap() == expected));
    world.finish();
}

fn closing_ends_a_send_whose_answer_waits<D: Make>() {
    let mut world = World::<D>::new(8, 0);
    for round in 0..50 {
        let (id, mut peer) = world.pair();
        let segment = world.segment(b"the last word");
        world.driver.send(id, std::iter::once(&segment), Answer::WithTheNext);
        if round % 2 == 0 {
            world.driver.wait(0, 1, &mut Vec::new()).unwrap();
        }
        let about = world.close(id);
        assert!(round % 2 == 0 || about.iter().any(|done| matches!(done, Done::Sent { .. })), "{about:?}");
        world.pool.release(segment);
        let mut heard = Vec::new();
        peer.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"the last word");
    }
    world.finish();
}

fn one_that_never_stops_leaves_room_for_others<D: Make>() {
    let mut world = World::<D>::new(16, 8);
    let (ours, mut peer) = stream_pair();
    sockopt::set_socket_send_buffer_size(&peer, 1 << 20).unwrap();
    sockopt::set_socket_recv_buffer_size(&ours, 1 << 20).unwrap();
    peer.set_nonblocking(true).unwrap();
    let firehose = world.adopt(ours);
    let (quiet, mut quiet_peer) = world.pair();
    let block = vec![1; 64 * 1024];
    // More than all slots hold is waiting before each wait.
    let mut keep_full = || while peer.write(&block).is_ok() {};
    world.driver.receive(firehose);
    world.driver.receive(quiet);
    for round in 0..100u8 {
        quiet_peer.write_all(&[round]).unwrap();
        // The bytes of the other one are waiting, too, so they come within a few bursts, whatever the firehose does.
        let mut bursts = 0;
        let mut heard = false;
        while !heard {
            keep_full();
            world.wait();
            bursts += 1;
            // On a busy machine the kernel may take its time with the bytes of the quiet one, too.
            assert!(bursts <= 1000, "{bursts} bursts and the quiet one was not heard");
            for done in std::mem::take(&mut world.said) {
                match done {
                    Done::Received { socket, slot, length } => {
                        let bytes = world.bytes_of(slot, length);
                        if socket == quiet {
                            assert_eq!(bytes, [round]);
                            heard = true;
                        }
                        world.provide(1);
                    }
                    Done::ReceiveEnded { socket, end } => {
                        assert_eq!(end, ReceiveEnd::NoSlots);
                        world.driver.receive(socket);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    for id in [firehose, quiet] {
        world.driver.close(id);
        loop {
            match world.until(|_| true) {
                Done::Closed { socket } => break assert_eq!(socket, id),
                Done::Received { slot, length, .. } => drop(world.bytes_of(slot, length)),
                other => panic!("{other:?}"),
            }
        }
    }
    world.finish();
}

/// More of everything at once than any queue holds.
fn many_sockets_at_once<D: Make>() {
    const COUNT: usize = 400;
    // Three of these at once have more than a process may have unasked on many systems.
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let mut world = World::<D>::new(2 * KERNEL_SLOTS_MAX, KERNEL_SLOTS_MAX);
    let mut pairs: Vec<_> = (0..COUNT).map(|_| world.pair()).collect();
    for round in 0..5usize {
        for (place, (id, peer)) in pairs.iter_mut().enumerate() {
            world.driver.receive(*id);
            peer.write_all(&pattern(place * 1000 + round, 100)).unwrap();
        }
        let mut heard = vec![Vec::new(); COUNT];
        while heard.iter().any(|bytes| bytes.len() < 100) {
            match world.until(|_| true) {
                Done::Received { socket, slot, length } => {
                    heard[socket.index as usize].extend(world.bytes_of(slot, length));
                    world.provide(1);
                }
                Done::ReceiveEnded { socket, end: ReceiveEnd::NoSlots } => world.driver.receive(socket),
                other => panic!("{other:?}"),
            }
        }
        for (place, bytes) in heard.iter().enumerate() {
            assert!(*bytes == pattern(place * 1000 + round, 100), "socket {place}");
        }
        let segment = world.segment(&pattern(round, 50));
        for (id, _) in &pairs {
            world.driver.send(*id, std::iter::once(&segment), Answer::AtOnce);
        }
        for (id, _) in &pairs {
            assert_eq!(world.until_sent(*id), Ok(50));
        }
        world.pool.release(segment);
        for (_, peer) in &mut pairs {
            let mut bytes = [0; 50];
            peer.read_exact(&mut bytes).unwrap();
            assert_pattern(&bytes, round);
        }
    }
    for (id, _) in &pairs {
        world.driver.close(*id);
    }
    for (id, _) in &pairs {
        world.until(|done| matches!(done, Done::Closed { socket } if socket == id));
    }
    world.finish();
}

fn another_thread_wakes<D: Make>() {
    let mut world = World::<D>::new(1, 0);
    let waker = Arc::clone(&world.waker);
    let (ask, asked) = mpsc::channel::<()>();
    let other = thread::spawn(move || {
        while asked.recv().is_ok() {
            waker.wake();
        }
    });
    for _ in 0..1000 {
        world.waker.about_to_sleep();
        ask.send(()).unwrap();
        world.until(|done| matches!(done, Done::Woken));
        world.waker.awake();
    }
    drop(ask);
    other.join().unwrap();
    // One that is awake is not woken.
    world.waker.wake();
    world.finish();
}

fn waits_no_longer_than_asked<D: Make>() {
    let mut world = World::<D>::new(2, 1);
    let (id, _peer) = world.pair();
    world.driver.receive(id);
    // The second one is sooner than the limit of the first, the third may end with that.
    for (now_ms, until_ms) in [(1_000, 1_100), (1_000, 1_003), (1_100, 1_200), (1_300, 1_200), (0, 0)] {
        let mut burst = Vec::new();
        // It returns at all, and with nothing.
        world.driver.wait(now_ms, until_ms, &mut burst).unwrap();
        assert!(burst.is_empty());
    }
    world.close(id);
    world.finish();
}

fn a_dropped_driver_closes_its_sockets<D: Make>() {
    let mut world = World::<D>::new(8, 4);
    let (listener, address) = listening();
    let listener = world.adopt(listener);
    world.driver.accept(listener);
    let (receiving, peer) = world.pair();
    world.driver.receive(receiving);
    let (ours, blocked_peer) = narrow_pair();
    let blocked = world.adopt(ours);
    let mut slot = world.pool.take().unwrap();
    let segments: Vec<_> = (0..60).map(|_| world.pool.share(&mut slot, 0..BODY)).collect();
    world.driver.send(blocked, segments.iter(), Answer::AtOnce);
    world.until_sent(blocked).unwrap();
    world.driver.send(blocked, segments.iter(), Answer::AtOnce);
    world.settle();
    let (_new, mut unused) = world.pair();
    let World { driver, .. } = world;
    drop(driver);
    for mut peer in [peer, blocked_peer] {
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).unwrap();
    }
    assert_eq!(unused.read(&mut [0]).unwrap(), 0);
    // A process that is being started beside this test has a copy of the socket for a moment.
    let end = Instant::now() + PATIENCE;
    while let Ok(_accepted) = TcpStream::connect(address) {
        assert!(Instant::now() < end, "it still listens");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Runs in a process of its own, since it takes every descriptor there is.
fn descriptors_run_out<D: Make>() {
    const CHILD: &str = "OCKAM_TEST_CHILD";
    if std::env::var_os(CHILD).is_none() {
        let name = thread::current().name().expect("tests have names").to_owned();
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &name, "--test-threads=1", "--nocapture"])
            .env(CHILD, "1")
            .status()
            .unwrap();
        assert!(status.success(), "{status}");
        return;
    }
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(100), maximum }).unwrap();
    let mut world = World::<D>::new(8, 4);
    let (listener, address) = listening();
    let listener = world.adopt(listener);
    let clients: Vec<_> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut hoard = Vec::new();
    while let Ok(more) = rustix::io::fcntl_dupfd_cloexec(&clients[0], 0) {
        hoard.push(more);
    }

    world.driver.accept(listener);
    assert_eq!(world.until_accept_failed(listener), Errno::MFILE);
    let mut accepted = Vec::new();
    for _ in 0..2 {
        hoard.pop();
        world.driver.accept(listener);
        accepted.push(world.until_accepted(listener));
        assert_eq!(world.until_accept_failed(listener), Errno::MFILE);
    }
    // Nor is there a ring to be had, and whoever asks for one is told.
    let (kind, why) = probe::choose(DriverChoice::Auto).unwrap();
    assert_eq!(kind, ockam_engine_abi::Driver::Epoll, "{why}");
    assert!(why.starts_with("no io_uring: "), "{why}");
    let refused = probe::choose(DriverChoice::Uring).unwrap_err().to_string();
    assert!(refused.contains("Too many open files") && refused.contains("epoll"), "{refused}");

    hoard.clear();
    world.driver.accept(listener);
    while accepted.len() < clients.len() {
        accepted.push(world.until_accepted(listener));
    }
    let mut peers: Vec<_> = accepted.iter().map(|socket| sockets::peer_addr(socket).unwrap()).collect();
    let mut expected: Vec<_> = clients.iter().map(|client| client.local_addr().unwrap()).collect();
    peers.sort();
    expected.sort();
    assert_eq!(peers, expected);

    // The ring's table has no more places than the limit allows; sockets beyond it work all the same.
    let beyond = SocketId { index: 500, generation: 1 };
    let (ours, mut peer) = stream_pair();
    world.driver.adopt(beyond, ours.into());
    world.driver.receive(beyond);
    peer.write_all(b"far out").unwrap();
    assert_eq!(world.receive_exactly(beyond, 7), b"far out");
    let segments = vec![world.segment(b"heard"), world.segment(b" you")];
    world.send_all(beyond, segments);
    world.driver.pause(beyond);
    assert_eq!(world.until_ended(beyond), ReceiveEnd::Paused);
    world.driver.receive(beyond);
    assert!(world.close(beyond).is_empty());
    let mut answer = Vec::new();
    peer.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"heard you");
    world.close(listener);
    world.finish();
}

fn receives_once<D: Make>() {
    let mut world = World::<D>::new(8, 4);
    let (id, mut peer) = world.stream();
    // Asked before bytes are there, and after.
    world.driver.receive_once(id);
    world.assert_quiet();
    peer.write_all(b"first").unwrap();
    assert_eq!(world.until_received(id), b"first");
    world.provide(1);
    peer.write_all(b"second").unwrap();
    world.assert_quiet();
    assert_eq!(world.receive_one_by_one(id, 6), b"second");
    world.assert_quiet();
    // More than a slot holds comes in as many pieces as were asked for, and all slots but one stay provided.
    let writer = thread::spawn(move || {
        peer.write_all(&pattern(0, 20 * BODY)).unwrap();
        peer
    });
    let mut bytes = Vec::new();
    while bytes.len() < 20 * BODY {
        world.driver.receive_once(id);
        let more = world.until_received(id);
        assert!(more.len() <= BODY);
        assert_eq!(world.driver.provided(), 3);
        bytes.extend(more);
        world.provide(1);
        world.assert_quiet();
    }
    assert_pattern(&bytes, 0);
    drop(writer.join().unwrap());
    assert_eq!(world.receive_nothing(id), ReceiveEnd::Eof);
    assert!(world.close(id).is_empty());
    world.finish();
}

fn receiving_once_ends_once<D: Make>() {
    let mut world = World::<D>::new(8, 0);
    let (id, mut peer) = world.stream();
    peer.write_all(b"waits").unwrap();
    for _ in 0..3 {
        assert_eq!(world.receive_nothing(id), ReceiveEnd::NoSlots);
        world.assert_quiet();
    }
    world.provide(1);
    assert_eq!(world.receive_one_by_one(id, 5), b"waits");
    world.driver.receive_once(id);
    world.settle();
    sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).unwrap();
    drop(peer);
    assert_eq!(world.until_ended(id), ReceiveEnd::Failed(Errno::CONNRESET));
    world.assert_quiet();
    assert!(world.close(id).is_empty());
    // A socket that is closed while it waits for bytes, of which some come.
    for round in 0..10 {
        let (id, mut peer) = world.stream();
        world.driver.receive_once(id);
        if round % 2 == 0 {
            world.settle();
        }
        peer.write_all(b"late").unwrap();
        assert!(world.close(id).is_empty());
        assert_eq!(world.driver.provided(), 1);
    }
    world.finish();
}

fn a_pause_ends_receiving_once<D: Make>() {
    let mut world = World::<D>::new(8, 4);
    let (id, mut peer) = world.stream();
    for round in 0..50u8 {
        world.driver.receive_once(id);
        if round % 2 == 0 {
            world.settle();
        }
        world.driver.pause(id);
        assert_eq!(world.until_ended(id), ReceiveEnd::Paused);
        peer.write_all(&[round; 2]).unwrap();
        // Nothing is on, so nothing is paused.
        world.driver.pause(id);
        world.assert_quiet();
        assert_eq!(world.receive_one_by_one(id, 2), [round; 2]);
        world.driver.pause(id);
        world.assert_quiet();
        // One that was revoked leaves the one receive that was asked for.
        for _ in 0..1 + round % 3 {
            world.driver.receive_once(id);
            world.driver.pause(id);
        }
        world.driver.receive_once(id);
        peer.write_all(&[round; 3]).unwrap();
        assert_eq!(world.until_received(id), [round; 3]);
        world.provide(1);
        world.assert_quiet();
        // Bytes and pause at once: either is said, and nothing is lost.
        world.driver.receive_once(id);
        peer.write_all(&[round; 4]).unwrap();
        world.driver.pause(id);
        match world.until(|_| true) {
            Done::Received { slot, length, .. } => {
                assert_eq!(world.bytes_of(slot, length), [round; 4]);
                world.provide(1);
            }
            Done::ReceiveEnded { end: ReceiveEnd::Paused, .. } => {
                assert_eq!(world.receive_one_by_one(id, 4), [round; 4]);
            }
            other => panic!("{other:?}"),
        }
        world.assert_quiet();
    }
    world.close(id);
    world.finish();
}

/// A receive stops short at an urgent byte and behind a passed descriptor, though more is there.
fn what_parts_a_stream_does_not_stall_it<D: Make>() {
    let mut world = World::<D>::new(8, 4);
    let (tcp, mut peer) = world.stream();
    peer.write_all(b"before").unwrap();
    rustix::net::send(&peer, b"u", SendFlags::OOB).unwrap();
    peer.write_all(b"after").unwrap();
    // Urgent bytes are not part of the stream.
    assert_eq!(world.receive_one_by_one(tcp, 11), b"beforeafter");
    let (unix, mut peer) = world.unix_stream();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut passed = SendAncillaryBuffer::new(&mut space);
    let shown = [world.waker.fd()];
    assert!(passed.push(SendAncillaryMessage::ScmRights(&shown)));
    let with = [std::io::IoSlice::new(b"with")];
    rustix::net::sendmsg(peer.as_fd(), &with, &mut passed, SendFlags::empty()).unwrap();
    peer.write_all(b"without").unwrap();
    assert_eq!(world.receive_one_by_one(unix, 11), b"withwithout");
    world.close(tcp);
    world.close(unix);
    world.finish();
}

fn shutting_down_leaves_receiving_open<D: Make>() {
    let mut world = World::<D>::new(8, 4);
    let (tcp, tcp_peer) = world.stream();
    let (unix, unix_peer) = world.unix_stream();
    let mut peers: [(SocketId, Box<dyn ReadWrite>); 2] = [(tcp, Box::new(tcp_peer)), (unix, Box::new(unix_peer))];
    for (id, peer) in &mut peers {
        let id = *id;
        world.driver.receive_once(id);
        let segments = vec![world.segment(b"all")];
        world.send_all(id, segments);
        world.driver.shutdown(id);
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"all");
        peer.write_all(b"answer").unwrap();
        assert_eq!(world.until_received(id), b"answer");
        world.provide(1);
    }
    for (id, peer) in peers {
        drop(peer);
        assert_eq!(world.receive_nothing(id), ReceiveEnd::Eof);
        // On what has ended both ways it is without effect.
        world.driver.shutdown(id);
        assert!(world.close(id).is_empty());
    }
    // Nor is it an error that the peer is gone.
    let (id, peer) = world.stream();
    sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).unwrap();
    drop(peer);
    world.driver.shutdown(id);
    assert_eq!(world.receive_nothing(id), ReceiveEnd::Failed(Errno::CONNRESET));
    world.close(id);
    world.finish();
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// Fills the buffers between `id` and its peer, which does not read; returns how many bytes of the pattern they took.
fn fill<D: Make>(world: &mut World<D>, id: SocketId) -> usize {
    let segments: Vec<_> = (0..40).map(|part| world.segment(&pattern(part * BODY, BODY))).collect();
    world.driver.send(id, segments.iter(), Answer::AtOnce);
    let sent = world.until_sent(id).unwrap();
    assert!(sent > 0 && sent < 40 * BODY, "sent {sent}");
    for segment in segments {
        world.pool.release(segment);
    }
    sent
}

fn a_closed_stream_delivers_what_was_sent<D: Make>() {
    let mut world = World::<D>::new(64, 4);
    let (ours, mut peer) = narrow_pair();
    let id = world.adopt_stream(ours);
    // What the peer has no room for waits on this side while the socket is closed.
    let sent = fill(&mut world, id);
    assert!(world.close(id).is_empty());
    let mut all = Vec::new();
    peer.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), sent);
    assert_pattern(&all, 0);
    let (id, mut peer) = world.unix_stream();
    let sent = fill(&mut world, id);
    assert!(world.close(id).is_empty());
    let mut all = Vec::new();
    peer.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), sent);
    world.finish();
}

fn an_aborted_stream_is_reset<D: Make>() {
    let mut world = World::<D>::new(64, 4);
    // Used for nothing, waiting for bytes, half-closed by the peer.
    for round in 0..3 {
        let (id, mut peer) = world.stream();
        match round {
            0 => {}
            1 => world.driver.receive_once(id),
            _ => {
                peer.shutdown(std::net::Shutdown::Write).unwrap();
                assert_eq!(world.receive_nothing(id), ReceiveEnd::Eof);
            }
        }
        world.driver.abort(id);
        world.until(|done| matches!(done, Done::Closed { socket } if *socket == id));
        assert_eq!(peer.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    // While a send is in flight, which is ended as by `close`.
    let (ours, mut peer) = narrow_pair();
    let id = world.adopt_stream(ours);
    fill(&mut world, id);
    let segment = world.segment(&[1; BODY]);
    world.driver.send(id, std::iter::once(&segment), Answer::AtOnce);
    world.settle();
    world.driver.abort(id);
    let result = world.until_sent(id);
    assert!(result.is_ok() || result == Err(Errno::CANCELED), "{result:?}");
    world.until(|done| matches!(done, Done::Closed { socket } if *socket == id));
    world.pool.release(segment);
    let error = peer.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    // A Unix socket only ends.
    let (id, mut peer) = world.unix_stream();
    world.driver.abort(id);
    world.until(|done| matches!(done, Done::Closed { socket } if *socket == id));
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    world.finish();
}

fn whatever_ends_the_process_resets_streams<D: Make>() {
    const CHILD: &str = "OCKAM_TEST_TARGET";
    if let Some(target) = std::env::var_os(CHILD) {
        let target: SocketAddr = target.to_str().unwrap().parse().unwrap();
        let mut world = World::<D>::new(8, 4);
        let idle = world.adopt_stream(TcpStream::connect(target).unwrap());
        world.driver.receive_once(idle);
        let dialed = world.adopt_stream(sockets::to_dial(target).unwrap());
        world.driver.connect(dialed, target);
        world.until_connected(dialed).unwrap();
        world.driver.receive_once(dialed);
        for id in [idle, dialed] {
            let segments = vec![world.segment(b"up")];
            world.send_all(id, segments);
        }
        // Until it is killed.
        loop {
            world.wait();
        }
    }
    let (listener, address) = listening();
    let name = thread::current().name().expect("tests have names").to_owned();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--test-threads=1", "--nocapture"])
        .env(CHILD, address.to_string())
        .spawn()
        .unwrap();
    let mut peers = [listener.accept().unwrap().0, listener.accept().unwrap().0];
    for peer in &mut peers {
        peer.read_exact(&mut [0; 2]).unwrap();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for peer in &mut peers {
        assert_eq!(peer.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    // So does a driver that goes.
    let mut world = World::<D>::new(8, 4);
    let (id, mut peer) = world.stream();
    world.driver.receive_once(id);
    world.settle();
    let World { driver, .. } = world;
    drop(driver);
    assert_eq!(peer.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// A path that nothing is at, and what removes it.
fn unix_path() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    (folder, path)
}

fn unix_target(path: &std::path::Path) -> SocketAddrAny {
    let path = path.as_os_str().as_encoded_bytes();
    sockets::address_of(&PortalTarget::Unix(path.into())).unwrap()
}

fn connects_to_unix_sockets<D: Make>() {
    let mut world = World::<D>::new(64, 4);
    let (_folder, path) = unix_path();
    let target = unix_target(&path);
    let dial = |world: &mut World<D>| {
        let id = world.adopt_stream(sockets::to_dial(target.clone()).unwrap());
        world.driver.connect(id, target.clone());
        (id, world.until_connected(id))
    };
    let (id, result) = dial(&mut world);
    assert_eq!(result, Err(Errno::NOENT));
    assert!(world.close(id).is_empty());
    let listener = UnixListener::bind(&path).unwrap();
    let (id, result) = dial(&mut world);
    assert_eq!(result, Ok(sockets::UNIX));
    let (mut peer, _) = listener.accept().unwrap();
    peer.write_all(b"hello").unwrap();
    assert_eq!(world.receive_one_by_one(id, 5), b"hello");
    // Both ways wait for the other side when the buffers are full.
    let sent = fill(&mut world, id);
    let segment = world.segment(&pattern(sent, BODY));
    world.driver.send(id, std::iter::once(&segment), Answer::AtOnce);
    world.assert_quiet();
    let mut all = vec![0; sent];
    peer.read_exact(&mut all).unwrap();
    let more = world.until_sent(id).unwrap();
    all.resize(sent + more, 0);
    peer.read_exact(&mut all[sent..]).unwrap();
    assert_pattern(&all, 0);
    world.pool.release(segment);
    let writer = thread::spawn(move || peer.write_all(&pattern(0, 100 * BODY)).unwrap());
    assert_pattern(&world.receive_one_by_one(id, 100 * BODY), 0);
    writer.join().unwrap();
    assert_eq!(world.receive_nothing(id), ReceiveEnd::Eof);
    assert!(world.close(id).is_empty());
    // One that was there, and one that never listened: nobody can have a copy that does.
    std::fs::remove_file(&path).unwrap();
    let closed = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&closed, &target).unwrap();
    let (id, result) = dial(&mut world);
    assert_eq!(result, Err(Errno::CONNREFUSED));
    assert!(world.close(id).is_empty());
    // Closed before its end was said.
    let id = world.adopt_stream(sockets::to_dial(target.clone()).unwrap());
    world.driver.connect(id, target.clone());
    assert!(world.close(id).is_empty());
    world.finish();
}

fn a_full_unix_backlog_is_said_at_once<D: Make>() {
    let mut world = World::<D>::new(4, 0);
    let (_folder, path) = unix_path();
    let target = unix_target(&path);
    let socket = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &target).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let _waiting = UnixStream::connect(&path).unwrap();
    let id = world.adopt_stream(sockets::to_dial(target.clone()).unwrap());
    world.driver.connect(id, target);
    assert_eq!(world.until_connected(id), Err(Errno::AGAIN));
    assert!(world.close(id).is_empty());
    world.finish();
}

fn accepts_on_unix_sockets<D: Make>() {
    let mut world = World::<D>::new(8, 4);
    let (_folder, path) = unix_path();
    let listener = world.adopt(UnixListener::bind(&path).unwrap());
    world.driver.accept(listener);
    for _ in 0..3 {
        let mut peer = UnixStream::connect(&path).unwrap();
        let socket = world.until_accepted(listener);
        sockets::set_accepted_stream(&socket).unwrap();
        assert_eq!((sockets::peer_addr(&socket), sockets::local_addr(&socket)), (Ok(sockets::UNIX), Ok(sockets::UNIX)));
        let id = world.adopt_stream(socket);
        peer.write_all(b"question").unwrap();
        assert_eq!(world.receive_one_by_one(id, 8), b"question");
        let segments = vec![world.segment(b"ans"), world.segment(b"wer")];
        world.send_all(id, segments);
        world.close(id);
        let mut answer = Vec::new();
        peer.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"answer");
    }
    world.driver.pause(listener);
    assert_eq!(world.until_accept_failed(listener), Errno::CANCELED);
    let _peer = UnixStream::connect(&path).unwrap();
    world.assert_quiet();
    world.driver.accept(listener);
    world.until_accepted(listener);
    assert!(world.close(listener).is_empty());
    world.finish();
}

fn a_dialed_stream_ends_like_an_accepted_one<D: Make>() {
    let mut world = World::<D>::new(8, 4);
    let (listener, address) = listening();
    for abort in [false, true] {
        let id = world.adopt_stream(sockets::to_dial(address).unwrap());
        world.driver.connect(id, address);
        let local = world.until_connected(id).unwrap();
        let (mut peer, from) = listener.accept().unwrap();
        assert_eq!(local, from);
        peer.write_all(b"hello").unwrap();
        assert_eq!(world.receive_one_by_one(id, 5), b"hello");
        if abort {
            world.driver.abort(id);
            world.until(|done| matches!(done, Done::Closed { socket } if *socket == id));
            assert_eq!(peer.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        } else {
            assert!(world.close(id).is_empty());
            assert_eq!(peer.read(&mut [0]).unwrap(), 0);
        }
    }
    let (_closed, address) = not_listening();
    let id = world.adopt_stream(sockets::to_dial(address).unwrap());
    world.driver.connect(id, address);
    assert_eq!(world.until_connected(id), Err(Errno::CONNREFUSED));
    assert!(world.close(id).is_empty());
    world.finish();
}

fn receives_into_a_slot_that_is_given<D: Make>() {
    // None is provided, and none is needed.
    let mut world = World::<D>::new(4, 0);
    for stream in [false, true] {
        let (ours, mut peer) = stream_pair();
        let id = if stream { world.adopt_stream(ours) } else { world.adopt(ours) };
        let mut slot = world.pool.take().unwrap();
        slot.bytes_mut(0..100).fill(0);
        slot.bytes_mut(0..10).copy_from_slice(b"beginning ");
        // Asked before bytes are there, and after.
        world.driver.receive_into(id, slot, 10..100);
        world.assert_quiet();
        peer.write_all(b"and ").unwrap();
        let (slot, length) = world.until_filled(id);
        assert_eq!(slot.bytes(0..10 + length), b"beginning and ");
        peer.write_all(b"rest").unwrap();
        world.assert_quiet();
        world.driver.receive_into(id, slot, 14..16);
        let (slot, length) = world.until_filled(id);
        assert_eq!(slot.bytes(0..14 + length), b"beginning and re");
        // No more than there is room for, and nothing beyond it.
        assert!(slot.bytes(16..100).iter().all(|&byte| byte == 0));
        world.driver.receive_into(id, slot, 0..2);
        let (slot, length) = world.until_filled(id);
        assert_eq!((length, slot.bytes(0..2)), (2, &b"st"[..]));
        // In turn with the other ways.
        peer.write_all(b"other").unwrap();
        assert_eq!(world.receive_nothing(id), ReceiveEnd::NoSlots);
        world.provide(1);
        world.driver.receive_once(id);
        assert_eq!(world.until_received(id), b"other");
        world.provide(1);
        world.driver.receive(id);
        world.driver.pause(id);
        assert_eq!(world.until_ended(id), ReceiveEnd::Paused);
        // More than any slot holds, piece by piece.
        let writer = thread::spawn(move || peer.write_all(&pattern(0, 50 * BODY)).unwrap());
        let (mut slot, mut at) = (slot, 0);
        while at < 50 * BODY {
            world.driver.receive_into(id, slot, 0..HEAD + BODY);
            let (filled, length) = world.until_filled(id);
            assert_pattern(filled.bytes(0..length), at);
            (slot, at) = (filled, at + length);
        }
        writer.join().unwrap();
        world.driver.receive_into(id, slot, 0..1);
        let (slot, length) = world.until_filled(id);
        assert_eq!((length, world.until_ended(id)), (0, ReceiveEnd::Eof));
        world.pool.put(slot);
        assert!(world.close(id).is_empty());
        let slot = world.driver.withdraw().unwrap();
        world.pool.returned(&slot);
        world.pool.put(slot);
    }
    world.finish();
}

fn a_given_slot_always_comes_back<D: Make>() {
    let mut world = World::<D>::new(4, 0);
    for round in 0..20u8 {
        let (id, mut peer) = world.stream();
        // By a pause, unless bytes are faster.
        let slot = world.pool.take().unwrap();
        world.driver.receive_into(id, slot, 0..100);
        if round % 2 == 0 {
            world.settle();
        }
        if round % 3 == 0 {
            peer.write_all(&[round; 5]).unwrap();
        }
        world.driver.pause(id);
        let (slot, length) = world.until_filled(id);
        match length {
            0 => assert_eq!(world.until_ended(id), ReceiveEnd::Paused),
            5 => assert_eq!(slot.bytes(0..5), [round; 5]),
            other => panic!("{other} bytes"),
        }
        world.assert_quiet();
        // By the end of the connection, or of the socket.
        world.driver.receive_into(id, slot, 0..3);
        if round % 3 == 0 && length == 0 {
            let (slot, length) = world.until_filled(id);
            assert_eq!(slot.bytes(0..length), [round; 3]);
            world.driver.receive_into(id, slot, 0..100);
            let (slot, length) = world.until_filled(id);
            assert_eq!(slot.bytes(0..length), [round; 2]);
            world.driver.receive_into(id, slot, 0..100);
        }
        if round % 4 == 0 {
            sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).unwrap();
            drop(peer);
            let (slot, length) = world.until_filled(id);
            assert_eq!((length, world.until_ended(id)), (0, ReceiveEnd::Failed(Errno::CONNRESET)));
            world.pool.put(slot);
            assert!(world.close(id).is_empty());
            continue;
        }
        if round % 2 == 0 {
            world.settle();
        }
        peer.write_all(&[round; 7]).unwrap();
        match <[Done; 1]>::try_from(world.close(id)) {
            Ok([Done::Filled { slot, length: 0, .. }]) => world.pool.put(slot),
            other => panic!("{other:?}"),
        }
    }
    world.finish();
}

fn what_was_shared_is_not_written_again<D: Make>() {
    let mut world = World::<D>::new(4, 0);
    let (id, _peer) = world.pair();
    for (room, may) in [(50..100, true), (49..100, false), (100..100, false), (60..HEAD + BODY + 4097, false)] {
        let mut slot = world.pool.take().unwrap();
        let segment = world.pool.share(&mut slot, 10..50);
        let asked = std::panic::AssertUnwindSafe(|| world.driver.receive_into(id, slot, room));
        assert_eq!(std::panic::catch_unwind(asked).is_ok(), may);
        world.pool.release(segment);
        if may {
            world.driver.pause(id);
            let (slot, _) = world.until_filled(id);
            world.until_ended(id);
            world.pool.put(slot);
        }
    }
    world.close(id);
}
