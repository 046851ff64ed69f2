//! Floods, and the sink that takes the same flood for comparison.

use crate::system::Failed;
use ockam_wire::PREAMBLE;
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_linger, set_socket_recv_buffer_size};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with};
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
    let socket =
        socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    set_socket_linger(&socket, Some(Duration::ZERO))?;
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
