//! Floods, and the sink that takes the same flood for comparison.

use crate::system::Failed;
use ockam_bench::channel;
use ockam_wire::{AddressRef, Message, PREAMBLE, RouteParts};
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_linger, set_socket_recv_buffer_size};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, recv, send, socket_with,
};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What hostile peers do. The same into a node and into the sink.
#[derive(Debug, Clone)]
pub enum Flood {
    /// Connections that are held, by plan; one that the other side closes is opened again.
    Crowd {
        /// Connection n follows plan n modulo their number.
        plans: Vec<Plan>,
        /// How many.
        connections: usize,
        /// Whether answers are read.
        reads: bool,
    },
    /// Connections that end with a reset as soon as they said their bytes.
    Resets {
        /// Connection n says words n modulo their number.
        words: Vec<Vec<u8>>,
        /// So many per second, if the machine can.
        per_s: f64,
    },
    /// Links that begin handshakes at `api`, another one with each message, and read what comes back.
    Handshakes {
        /// How many links, each from a loopback address of its own.
        links: u8,
        /// Messages 1 per second, if the machine can and the links take them; all they take if there is no limit.
        per_s: f64,
        /// Whether what is answered goes on, with junk for message 3.
        with_junk: bool,
    },
}

/// What one connection of a crowd sends.
#[derive(Debug, Clone)]
pub struct Plan {
    /// At once.
    pub first: Vec<u8>,
    /// Then this, again and again.
    pub then: Arc<Vec<u8>>,
    /// So many bytes of it at a time.
    pub step: usize,
    /// That often.
    pub every: Duration,
    /// Nothing more after so many bytes.
    pub most: usize,
}

impl Plan {
    /// Says this and no more.
    pub fn once(first: Vec<u8>) -> Plan {
        Plan { first, then: Arc::default(), step: 0, every: Duration::from_secs(1), most: 0 }
    }

    /// Greets and sends this, `step` bytes at a time.
    pub fn steady(then: Vec<u8>, step: usize, every: Duration) -> Plan {
        Plan { first: vec![PREAMBLE], then: Arc::new(then), step, every, most: usize::MAX }
    }
}

/// A flood that goes on.
pub struct Flooding {
    done: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<()>>,
}

impl Flooding {
    /// Starts it.
    pub fn start(flood: &Flood, to: SocketAddr) -> Flooding {
        let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (flood, told, end) = (flood.clone(), done.clone(), stop.clone());
        let thread = std::thread::spawn(move || match &flood {
            Flood::Crowd { plans, connections, reads } => crowd(to, plans, *connections, *reads, &told, &end),
            Flood::Resets { words, per_s } => resets(to, words, *per_s, &told, &end),
            Flood::Handshakes { links, per_s, with_junk } => handshakes(to, *links, *per_s, *with_junk, &told, &end),
        });
        Flooding { done, stop, thread }
    }

    /// Ends it: every connection is reset. Answers with the connections opened and writes taken.
    pub fn stop(self) -> Result<u64, Failed> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| Failed::new("a flood panicked"))??;
        Ok(self.done.load(Ordering::Relaxed))
    }
}

/// A connection on its way. Dropped, it is reset, and leaves no port behind that waits for a minute.
fn open(to: SocketAddr, reads: bool) -> io::Result<OwnedFd> {
    open_from(None, to, reads)
}

fn open_from(source: Option<Ipv4Addr>, to: SocketAddr, reads: bool) -> io::Result<OwnedFd> {
    let socket =
        socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    set_socket_linger(&socket, Some(Duration::ZERO))?;
    if let Some(source) = source {
        bind(&socket, &SocketAddr::from((source, 0)))?;
    }
    if !reads {
        set_socket_recv_buffer_size(&socket, 16 * 1024)?;
    }
    match connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(errno) => Err(errno.into()),
    }
}

/// Bytes taken; none when there is no room, or the connection is not there yet.
///
/// # Errors
/// The connection is gone.
fn offer(socket: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
    match send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Err(Errno::AGAIN) => Ok(0),
        other => other,
    }
}

struct Member {
    socket: OwnedFd,
    /// Bytes sent, those at once included.
    sent: usize,
    next: Instant,
}

impl Member {
    fn open(to: SocketAddr, reads: bool) -> io::Result<Member> {
        Ok(Member { socket: open(to, reads)?, sent: 0, next: Instant::now() })
    }

    /// Sends what is due; whether something was taken.
    fn go_on(&mut self, plan: &Plan, now: Instant) -> Result<bool, Errno> {
        if self.sent < plan.first.len() {
            let taken = offer(&self.socket, &plan.first[self.sent..])?;
            self.sent += taken;
            return Ok(taken > 0);
        }
        if plan.then.is_empty() || now < self.next || self.sent >= plan.most {
            return Ok(false);
        }
        self.next += plan.every;
        if self.next < now {
            // What was missed is not made up for at once: the pace is the same into a node and into the sink.
            self.next = now;
        }
        let mut left = plan.step;
        while left > 0 {
            let place = (self.sent - plan.first.len()) % plan.then.len();
            let bytes = &plan.then[place..plan.then.len().min(place + left)];
            let taken = offer(&self.socket, bytes)?;
            self.sent += taken;
            left -= taken;
            if taken < bytes.len() {
                break;
            }
        }
        Ok(left < plan.step)
    }
}

fn crowd(
    to: SocketAddr,
    plans: &[Plan],
    connections: usize,
    reads: bool,
    done: &AtomicU64,
    stop: &AtomicBool,
) -> io::Result<()> {
    let fastest = plans.iter().map(|plan| plan.every).min().unwrap_or_default();
    let tick = fastest.clamp(Duration::from_millis(1), Duration::from_millis(20));
    let mut members: Vec<Member> = Vec::with_capacity(connections);
    let mut discarded = vec![0; 64 * 1024];
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        while members.len() < connections && start.elapsed() < tick {
            members.push(Member::open(to, reads)?);
            done.fetch_add(1, Ordering::Relaxed);
        }
        for (number, member) in members.iter_mut().enumerate() {
            match member.go_on(&plans[number % plans.len()], start) {
                Ok(taken) => done.fetch_add(u64::from(taken), Ordering::Relaxed),
                Err(_) => {
                    *member = Member::open(to, reads)?;
                    done.fetch_add(1, Ordering::Relaxed)
                }
            };
            // One receive at a time is enough: answers are fewer than that.
            if reads {
                let _ = recv(&member.socket, &mut discarded[..], RecvFlags::DONTWAIT);
            }
        }
        std::thread::sleep(tick.saturating_sub(start.elapsed()));
    }
    Ok(())
}

fn resets(to: SocketAddr, words: &[Vec<u8>], per_s: f64, done: &AtomicU64, stop: &AtomicBool) -> io::Result<()> {
    const TICK: Duration = Duration::from_millis(2);
    let per_tick = (per_s * TICK.as_secs_f64()).ceil() as usize;
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        for _ in 0..per_tick {
            let socket = open(to, true)?;
            // It may be closed by the other side before everything is said.
            let _ = offer(&socket, &words[number % words.len()]);
            number += 1;
            done.fetch_add(1, Ordering::Relaxed);
        }
        std::thread::sleep(TICK.saturating_sub(start.elapsed()));
    }
    Ok(())
}

/// Bytes of messages 1 that wait for one link to take them.
const BEGINNINGS_WAITING: usize = 64 * 1024;
/// What stands in the place of a message 3: as long as one.
const JUNK: [u8; 387] = [0x4a; 387];

/// A link that begins handshakes.
struct Caller {
    socket: OwnedFd,
    source: Ipv4Addr,
    /// What it has to say, and how much of that was taken.
    unsent: Vec<u8>,
    taken: usize,
    /// The beginning of an answer.
    received: Vec<u8>,
}

impl Caller {
    fn open(source: Ipv4Addr, to: SocketAddr) -> io::Result<Caller> {
        let socket = open_from(Some(source), to, true)?;
        Ok(Caller { socket, source, unsent: vec![PREAMBLE], taken: 0, received: Vec::new() })
    }

    /// Says what there is room for.
    fn say(&mut self) -> Result<(), Errno> {
        if self.taken < self.unsent.len() {
            self.taken += offer(&self.socket, &self.unsent[self.taken..])?;
        }
        if self.taken == self.unsent.len() {
            self.unsent.clear();
            self.taken = 0;
        }
        Ok(())
    }

    /// Hears once, and has junk to say to every answer.
    fn hear(&mut self, scratch: &mut [u8], with_junk: bool) -> Result<(), Errno> {
        let count = match recv(&self.socket, &mut *scratch, RecvFlags::DONTWAIT) {
            // Not there yet, or nothing to hear.
            Err(Errno::AGAIN | Errno::NOTCONN) => return Ok(()),
            received => received?.0,
        };
        if count == 0 {
            return Err(Errno::CONNRESET);
        }
        if !with_junk {
            return Ok(());
        }
        self.received.extend_from_slice(&scratch[..count]);
        if self.received.first() == Some(&PREAMBLE) {
            self.received.remove(0);
        }
        let mut rest = &self.received[..];
        while let Some((head, behind)) = rest.split_first_chunk::<4>()
            && let Some((body, behind)) = behind.split_at_checked(u32::from_be_bytes(*head) as usize)
        {
            rest = behind;
            if let Ok(message) = Message::parse(body) {
                let way = RouteParts { front: &[], rest: message.return_route };
                self.unsent.extend_from_slice(&channel::frame(way, &[b'0'; 32], &JUNK));
            }
        }
        self.received.drain(..self.received.len() - rest.len());
        Ok(())
    }
}

fn handshakes(
    to: SocketAddr,
    links: u8,
    per_s: f64,
    with_junk: bool,
    done: &AtomicU64,
    stop: &AtomicBool,
) -> io::Result<()> {
    const TICK: Duration = Duration::from_millis(1);
    /// Every so many ticks a link is heard: to ask costs as much as to say something.
    const HEARD: usize = 8;
    let source = |number: u8| Ipv4Addr::new(127, 0, 1, number);
    let mut callers =
        (1..=links).map(|number| Caller::open(source(number), to)).collect::<io::Result<Vec<Caller>>>()?;
    let api = [AddressRef::local(channel::LISTENER.as_bytes())];
    // Any bytes are a key, and nobody looks whether another handshake has the same.
    let key = |number: u64| std::array::from_fn::<u8, 32, _>(|place| (number >> (place % 8 * 8)) as u8 | 1);
    let mut scratch = vec![0; 64 * 1024];
    let (mut number, mut turn, start) = (0_u64, 0, Instant::now());
    let mut offered = 0;
    for tick in 0_usize.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let now = Instant::now();
        let mut count = u64::MAX;
        if per_s.is_finite() {
            let due = ((now - start).as_secs_f64() * per_s) as u64;
            // What was missed is not made up for.
            count = (due - std::mem::replace(&mut offered, due)).min((per_s / 20.0) as u64);
        }
        // As many as that, or none of the links has room.
        let mut full = 0;
        while count > 0 && full < callers.len() {
            turn = (turn + 1) % callers.len();
            let caller = &mut callers[turn];
            if caller.unsent.len() - caller.taken > BEGINNINGS_WAITING {
                full += 1;
                continue;
            }
            number += 1;
            let back = format!("{number:032x}").into_bytes().try_into().expect("32 digits");
            caller.unsent.extend_from_slice(&channel::frame(RouteParts::new(&api), &back, &key(number)));
            (count, full) = (count - 1, 0);
        }
        done.store(number, Ordering::Relaxed);
        for (place, caller) in callers.iter_mut().enumerate() {
            let heard = if place % HEARD == tick % HEARD { caller.hear(&mut scratch, with_junk) } else { Ok(()) };
            if heard.and_then(|()| caller.say()).is_err() {
                *caller = Caller::open(caller.source, to)?;
            }
        }
        std::thread::sleep(TICK.saturating_sub(now.elapsed()));
    }
    Ok(())
}

/// Lifts the limit of descriptors of this process as far as it may.
pub fn allow_descriptors() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// The sink, as a process of its own: prints its address, takes every connection, says the version byte, discards what
/// comes.
pub fn swallow() -> Result<(), Failed> {
    allow_descriptors()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    println!("{}", listener.local_addr()?);
    let ring = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(io::Error::from)?;
    let watch = |socket: &dyn std::os::fd::AsFd, key: i32| {
        let data = epoll::EventData::new_u64(key as u64);
        epoll::add(&ring, socket.as_fd(), data, epoll::EventFlags::IN).map_err(io::Error::from)
    };
    watch(&listener, listener.as_raw_fd())?;
    let mut streams: HashMap<u64, TcpStream> = HashMap::new();
    let mut discarded = vec![0; 128 * 1024];
    let mut events = Vec::with_capacity(256);
    loop {
        events.clear();
        match epoll::wait(&ring, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(io::Error::from(errno).into()),
        }
        for event in &events {
            let key = event.data.u64();
            if key == listener.as_raw_fd() as u64 {
                while let Ok((mut stream, _)) = listener.accept() {
                    // One that is gone already says so when it is read.
                    let _ = stream.set_nonblocking(true).and_then(|()| stream.write_all(&[PREAMBLE]));
                    watch(&stream, stream.as_raw_fd())?;
                    streams.insert(stream.as_raw_fd() as u64, stream);
                }
            } else if let Some(mut stream) = streams.get(&key) {
                match stream.read(&mut discarded) {
                    Ok(1..) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Ok(0) | Err(_) => drop(streams.remove(&key)),
                }
            }
        }
    }
}

/// A node's idea of a peer that takes little: greets, then reads [`SlowPeer::PER_S`] bytes a second while it is told to be
/// slow, and everything otherwise.
pub struct SlowPeer {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it is slow now.
    pub slow: Arc<AtomicBool>,
}

impl SlowPeer {
    /// Enough that a node keeps the link.
    const PER_S: usize = 1024 * 1024;

    /// Listens for as long as this process lives: a link that is closed may come back.
    pub fn start() -> io::Result<SlowPeer> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        // Inherited by what it accepts: little waits in the sockets, so that the node feels it soon.
        set_socket_recv_buffer_size(&listener, 64 * 1024)?;
        let (address, slow) = (listener.local_addr()?, Arc::new(AtomicBool::new(false)));
        let told = slow.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let slow = told.clone();
                std::thread::spawn(move || SlowPeer::read(stream, &slow));
            }
        });
        Ok(SlowPeer { address, slow })
    }

    fn read(mut stream: TcpStream, slow: &AtomicBool) -> io::Result<()> {
        const PAUSE: Duration = Duration::from_millis(20);
        stream.write_all(&[PREAMBLE])?;
        let mut discarded = vec![0; 128 * 1024];
        loop {
            let room = if slow.load(Ordering::Relaxed) { Self::PER_S / 50 } else { discarded.len() };
            if stream.read(&mut discarded[..room])? == 0 {
                return Ok(());
            }
            if room < discarded.len() {
                std::thread::sleep(PAUSE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_says_what_was_planned_and_comes_back_when_closed() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let plan = Plan::steady(vec![1, 2, 3], 4, Duration::from_millis(1));
        let flood = Flood::Crowd { plans: vec![plan], connections: 1, reads: true };
        let flooding = Flooding::start(&flood, listener.local_addr().unwrap());
        let mut said = [0; 9];
        let (mut first, _) = listener.accept().unwrap();
        first.read_exact(&mut said).unwrap();
        assert_eq!(said, [PREAMBLE, 1, 2, 3, 1, 2, 3, 1, 2]);
        drop(first);
        drop(listener.accept().unwrap());
        assert!(flooding.stop().unwrap() >= 4, "two connections, a greeting and two steps at least");
    }

    #[test]
    fn callers_begin_handshakes_and_answer_with_junk() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let flood = Flood::Handshakes { links: 2, per_s: 10_000.0, with_junk: true };
        let flooding = Flooding::start(&flood, listener.local_addr().unwrap());
        let (mut first, _) = listener.accept().unwrap();
        let (_second, from) = listener.accept().unwrap();
        assert_ne!(first.peer_addr().unwrap().ip(), from.ip());
        first.read_exact(&mut [0]).unwrap();
        first.write_all(&[PREAMBLE]).unwrap();
        let mut frames = ockam_bench::flow::Frames::default();
        let mut way_back: Option<[u8; 32]> = None;
        let (mut beginnings, mut junk) = (0, 0);
        while junk == 0 {
            assert!(frames.receive(&first).unwrap());
            while let Some(frame) = frames.take().unwrap() {
                let message = Message::parse(&frame[4..]).unwrap();
                if message.onward.first() == Some(AddressRef::local(b"api")) {
                    beginnings += 1;
                    assert_eq!(message.payload.len(), 32);
                    if way_back.is_none() {
                        way_back = message.return_route.first().map(|address| address.name.try_into().unwrap());
                        let back = way_back.unwrap();
                        let onward = [AddressRef::local(&back)];
                        first.write_all(&channel::frame(RouteParts::new(&onward), &[b'7'; 32], b"message 2")).unwrap();
                    }
                } else {
                    assert_eq!(message.onward.first(), Some(AddressRef::local(&[b'7'; 32])));
                    assert_eq!(message.payload, JUNK);
                    junk += 1;
                }
            }
        }
        assert!(beginnings > 1);
        assert!(flooding.stop().unwrap() >= beginnings);
    }

    #[test]
    fn resets_are_resets() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let flood = Flood::Resets { words: vec![vec![PREAMBLE; 3]], per_s: 1000.0 };
        let flooding = Flooding::start(&flood, listener.local_addr().unwrap());
        let (mut stream, _) = listener.accept().unwrap();
        let error = stream.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(flooding.stop().unwrap() >= 1);
    }
}
