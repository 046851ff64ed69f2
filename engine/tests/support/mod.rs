//! An engine process to test against, and peers that speak its wire.
//!
//! The process is this test binary itself: the test named by [`ENTRY`] becomes an engine when [`DIR`] is set.

#![allow(dead_code, reason = "each test binary uses what it needs")]

pub mod channel;

use ockam_engine_abi::socket as abi_socket;
use ockam_engine_abi::{ABI_VERSION, Command, Counters, Driver, Notice, Target};
use ockam_wire::{Address, AddressRef, Framer, Message, Outgoing, PREAMBLE, RouteParts};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

/// The same test for both drivers, on one core and on two.
macro_rules! on_both_drivers {
    ($($name:ident($engine:ident) $body:block)*) => {$(
        mod $name {
            use super::*;
            fn run(driver: &str, threads: u8) {
                #[allow(unused_mut, reason = "not every test speaks as control")]
                let mut $engine = Engine::start(driver, threads);
                $body
                assert!($engine.child.try_wait().unwrap().is_none(), "the engine lives");
            }
            #[test]
            fn uring() { run("uring", 1) }
            #[test]
            fn uring_on_two_cores() { run("uring", 2) }
            #[test]
            fn epoll() { run("epoll", 1) }
            #[test]
            fn epoll_on_two_cores() { run("epoll", 2) }
        }
    )*};
}

/// The test that becomes an engine.
pub const ENTRY: &str = "engine_process";
const DIR: &str = "OCKAM_TEST_ENGINE_DIR";
const DRIVER: &str = "OCKAM_TEST_ENGINE_DRIVER";
const THREADS: &str = "OCKAM_TEST_ENGINE_THREADS";

/// Long enough for a loaded machine, short enough to notice what hangs. No test is decided by it.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What the test named [`ENTRY`] does.
pub fn become_engine() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let config = ockam_engine::Config {
        node_dir: dir.into(),
        driver: std::env::var(DRIVER).unwrap().parse().unwrap(),
        threads: Some(std::env::var(THREADS).unwrap().parse().unwrap()),
        pin: false,
        portal_memory: None,
    };
    ockam_engine::run(config).unwrap();
    std::process::exit(0);
}

/// Flow control of the first listener.
pub const FLOW: u8 = 1;

pub struct Engine {
    pub child: Child,
    pub control: OwnedFd,
    pub counters: OwnedFd,
    pub cores: usize,
    pub dir: tempfile::TempDir,
    pub driver: String,
    next: u64,
    /// Notices that came while something else was waited for.
    pub seen: Vec<Notice>,
}

impl Engine {
    pub fn start(driver: &str, threads: u8) -> Engine {
        let (child, control, dir) = spawn(driver, threads);
        let (counters, cores, kind) = hello(&control);
        assert_eq!(kind.name(), driver, "the driver that was asked for runs");
        Engine { child, control, counters, cores, dir, driver: driver.to_owned(), next: 0, seen: Vec::new() }
    }

    pub fn request(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub fn send(&self, command: Command, descriptor: Option<&OwnedFd>) {
        abi_socket::send(&self.control, &command.to_bytes(), descriptor.map(AsFd::as_fd)).unwrap();
    }

    /// The next notice, whatever it is.
    pub fn notice(&mut self) -> (Notice, Option<OwnedFd>) {
        let received = abi_socket::receive(&self.control).unwrap().expect("the engine lives");
        (Notice::from_bytes(&received.record).unwrap(), received.descriptor)
    }

    /// The next notice that `pick` takes; others are kept in `seen`.
    pub fn wait<T>(&mut self, mut pick: impl FnMut(&Notice) -> Option<T>) -> T {
        for (place, notice) in self.seen.iter().enumerate() {
            if let Some(picked) = pick(notice) {
                self.seen.remove(place);
                return picked;
            }
        }
        loop {
            let (notice, _) = self.notice();
            match pick(&notice) {
                Some(picked) => return picked,
                None => self.seen.push(notice),
            }
        }
    }

    pub fn applied(&mut self, request: u64) {
        self.wait(|notice| match notice {
            Notice::Applied { request: done } if *done == request => Some(()),
            Notice::Refused { request: done, why, errno } if *done == request => {
                panic!("refused: {why:?}, errno {errno}")
            }
            _ => None,
        });
    }

    /// Listens on a free loopback port.
    pub fn listen(&mut self, number: u32, flow_control: u8) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let request = self.request();
        let command = Command::AddListener { request, listener: number, flow_control, cookie: vec![7; 5].into() };
        self.send(command, Some(&listener.into()));
        self.applied(request);
        address
    }

    pub fn set(&mut self, address: &str, target: Target, reachable: u64) {
        let request = self.request();
        let (address, cookie) = (address.as_bytes().to_vec().into(), vec![1, 2].into());
        self.send(Command::SetAddress { request, address, target, reachable, guard: None, cookie }, None);
        self.applied(request);
    }

    /// A listener and the usual services.
    pub fn serve(&mut self) -> SocketAddr {
        for (name, target) in [("echo", Target::Echo), ("uppercase", Target::Uppercase), ("hop", Target::Hop)] {
            self.set(name, target, 1 << FLOW);
        }
        self.listen(1, FLOW)
    }

    pub fn counters(&self) -> Counters {
        Counters::read(&self.counters, self.cores).unwrap()
    }

    /// Does something again and again until a counter has reached a value: for what a core does from when it has taken
    /// new tables, which is some time after control has heard of them.
    pub fn at_last(&self, place: impl ockam_engine_abi::counter::Place + std::fmt::Debug, mut act: impl FnMut()) {
        let (before, end) = (self.counters().total(place), std::time::Instant::now() + PATIENCE);
        while self.counters().total(place) == before {
            assert!(std::time::Instant::now() < end, "{place:?} stays {before}");
            act();
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until a counter has reached a value.
    pub fn reaches(&self, place: impl ockam_engine_abi::counter::Place + std::fmt::Debug, value: u64) {
        let end = std::time::Instant::now() + PATIENCE;
        while self.counters().total(place) < value {
            assert!(std::time::Instant::now() < end, "{place:?} is {}", self.counters().total(place));
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The node's directory.
    pub fn node_dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port of 127.0.0.1 at which nobody listens, and nobody can as long as this lives. Its socket never listens: one that
/// did, and was closed, may live on in a process that is being started beside this test.
pub struct ClosedPort(OwnedFd);

impl ClosedPort {
    pub fn new() -> ClosedPort {
        let socket =
            rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        ClosedPort(socket)
    }

    pub fn address(&self) -> SocketAddr {
        rustix::net::getsockname(&self.0).unwrap().try_into().unwrap()
    }
}

/// An engine process, the control connection that it was started with, and its node's directory.
pub fn spawn(driver: &str, threads: u8) -> (Child, OwnedFd, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let flags = SocketFlags::CLOEXEC;
    let (control, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    rustix::net::sockopt::set_socket_timeout(&control, rustix::net::sockopt::Timeout::Recv, Some(PATIENCE)).unwrap();
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", ENTRY, "--nocapture"])
        .env(DIR, dir.path())
        .env(DRIVER, driver)
        .env(THREADS, threads.to_string())
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    (child, control, dir)
}

/// The greeting of a control.
pub fn hello(control: &OwnedFd) -> (OwnedFd, usize, Driver) {
    abi_socket::send(control, &Command::Hello { abi_version: ABI_VERSION }.to_bytes(), None).unwrap();
    let received = abi_socket::receive(control).unwrap().expect("the engine answers");
    match Notice::from_bytes(&received.record).unwrap() {
        Notice::Ready { cores, driver, .. } => (received.descriptor.expect("counters"), cores.into(), driver),
        other => panic!("{other:?}"),
    }
}

/// A peer that has exchanged version bytes.
pub struct Peer {
    pub stream: TcpStream,
    framer: Framer,
}

impl Peer {
    pub fn connect(address: SocketAddr) -> Peer {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(&[PREAMBLE]).unwrap();
        let mut theirs = [0];
        stream.read_exact(&mut theirs).unwrap();
        assert_eq!(theirs, [PREAMBLE]);
        Peer { stream, framer: Framer::new() }
    }

    /// A peer that was dialed by the engine.
    pub fn accept(listener: &TcpListener) -> Peer {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&[PREAMBLE]).unwrap();
        let mut theirs = [0];
        stream.read_exact(&mut theirs).unwrap();
        assert_eq!(theirs, [PREAMBLE]);
        Peer { stream, framer: Framer::new() }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends as much as there is room for; the engine may have closed the connection.
    pub fn send_some(&mut self, bytes: &[u8]) {
        self.stream.set_nonblocking(true).unwrap();
        let _ = self.stream.write(bytes);
    }

    /// The next frame without its length; `None` at the end of the stream.
    pub fn next(&mut self) -> Option<Vec<u8>> {
        let mut chunk = vec![0; 256 * 1024];
        loop {
            if let Some(frame) = self.framer.next().unwrap() {
                return Some(frame.to_vec());
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(count) => self.framer.push(&chunk[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub fn receive(&mut self) -> Received {
        let frame = self.next().expect("a frame, not the end of the stream");
        let message = Message::parse(&frame).unwrap();
        Received {
            onward: message.onward.iter().map(|address| address.to_address()).collect(),
            back: message.return_route.iter().map(|address| address.to_address()).collect(),
            payload: message.payload.to_vec(),
            tracing: message.tracing.map(str::to_owned),
        }
    }

    /// Whether the engine has closed the connection, after whatever it still sent.
    pub fn is_closed(&mut self) -> bool {
        while self.next().is_some() {}
        true
    }
}

#[derive(Debug, PartialEq)]
pub struct Received {
    pub onward: Vec<Address>,
    pub back: Vec<Address>,
    pub payload: Vec<u8>,
    pub tracing: Option<String>,
}

/// A frame with these routes, as text, and this payload.
pub fn frame(onward: &[&str], back: &[&str], payload: &[u8]) -> Vec<u8> {
    traced(onward, back, payload, None)
}

pub fn traced(onward: &[&str], back: &[&str], payload: &[u8], tracing: Option<&str>) -> Vec<u8> {
    let parse = |route: &[&str]| route.iter().map(|text| text.parse().unwrap()).collect::<Vec<Address>>();
    let (onward, back) = (parse(onward), parse(back));
    let onward: Vec<AddressRef<'_>> = onward.iter().map(Address::as_ref).collect();
    let back: Vec<AddressRef<'_>> = back.iter().map(Address::as_ref).collect();
    Outgoing {
        onward: RouteParts::new(&onward),
        return_route: RouteParts::new(&back),
        payload_len: payload.len(),
        tracing,
    }
    .to_frame(payload)
}

/// A text as `wire.md` 0.2 has it.
pub fn text(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    ockam_wire::bare::write_string(text, &mut bytes);
    bytes
}

/// Bytes that repeat only after a long while.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

/// How often a needle is in the memory that a process can write.
pub fn occurrences(pid: u32, needle: &[u8]) -> usize {
    use std::os::unix::fs::FileExt;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut found = 0;
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw"))) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|end| u64::from_str_radix(end, 16).unwrap());
        // The pools of slots are gigabytes of address space, in which nothing but frames ever is.
        if to - from > 64 << 20 {
            continue;
        }
        let mut chunk = vec![0; 1 << 20];
        let mut at = from;
        while at < to {
            let wanted = chunk.len().min((to - at) as usize);
            let Ok(count) = memory.read_at(&mut chunk[..wanted], at) else { break };
            // A needle that lies across two chunks is found in the second, which begins before the end of the first.
            found += chunk[..count].windows(needle.len()).filter(|window| *window == needle).count();
            if count <= needle.len() || at + count as u64 >= to {
                break;
            }
            at += (count - needle.len() + 1) as u64;
        }
    }
    found
}
