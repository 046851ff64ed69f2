//! Load: blocking threads of this process, the same for every system, that verify every byte.

pub mod bytes;
pub mod requests;

use crate::machine::{self, Machine};
use crate::opener::Opener;
use crate::system::{Failed, Setup, System};
use ockam_bench::channel::{Channel, Identity, SealedChecker, echo_texts};
use ockam_bench::flow::{Checker, Flow};
use ockam_wire::{Address, PREAMBLE, TCP};
use rustix::net::SendFlags;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Nothing takes that long on a machine that works.
const PATIENCE: Duration = Duration::from_secs(20);
/// Small frames are sent in batches of about this many bytes.
const BATCH: usize = 64 * 1024;
/// Longest batch of a connection that waits for its answers.
const WINDOW_BATCH: usize = 256 * 1024;

/// Connects and exchanges version bytes (`wire.md` A.1).
pub fn link(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    greet(&stream)?;
    Ok(stream)
}

/// Connects from this loopback address: the ports of one are used up by connections that come and go.
pub fn connect_from(source: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddr::from((source, 0)))?;
    connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

/// Exchanges version bytes on a connection made elsewhere.
pub fn greet(stream: &TcpStream) -> io::Result<()> {
    say_version(stream)?;
    hear_version(stream)
}

fn say_version(mut stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&[PREAMBLE])
}

fn hear_version(mut stream: &TcpStream) -> io::Result<()> {
    let mut theirs = [0];
    stream.read_exact(&mut theirs)?;
    match theirs {
        [PREAMBLE] => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the peer is not a node")),
    }
}

/// Requests to `echo` and the answers they must get.
pub fn echo_flows(payload_len: usize) -> (Flow, Flow) {
    let (onward, back) = ([Address::local("echo")], [Address::local("0123456789abcdef0123456789abcdef")]);
    (Flow::new(&onward, &back, payload_len), Flow::new(&back, &onward, payload_len))
}

/// Threads that load a system.
pub struct Load {
    /// Frames verified so far.
    frames: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Load {
    fn new() -> Load {
        Load { frames: Arc::default(), stop: Arc::default(), threads: Vec::new() }
    }

    fn thread(&mut self, work: impl FnOnce(&AtomicU64, &AtomicBool) -> io::Result<()> + Send + 'static) {
        let (frames, stop) = (self.frames.clone(), self.stop.clone());
        self.threads.push(std::thread::spawn(move || {
            let result = work(&frames, &stop);
            stop.store(true, Ordering::Relaxed);
            result
        }));
    }

    /// One connection to `echo` with so many requests in flight.
    pub fn echo_window(address: SocketAddr, payload_len: usize, in_flight: u64) -> io::Result<Load> {
        let stream = link(address)?;
        let mut load = Load::new();
        load.thread(move |frames, stop| {
            let (requests, answers) = echo_flows(payload_len);
            let mut checker = Checker::of(answers);
            let write = |sequence, out: &mut Vec<u8>| requests.write(sequence, out);
            echo_window(&stream, in_flight, frames, stop, write, |stream| checker.receive(stream))
        });
        Ok(load)
    }

    /// The same through a channel on that connection, on which nothing else comes.
    pub fn sealed_window(stream: TcpStream, channel: Channel, payload_len: usize, in_flight: u64) -> Load {
        let mut load = Load::new();
        load.thread(move |frames, stop| {
            let (requests, answers) = echo_texts(payload_len);
            let Channel { mut sending, receiving, .. } = channel;
            let mut checker = SealedChecker::of(answers, receiving);
            let write = |sequence, out: &mut Vec<u8>| sending.write(&requests, sequence, out);
            echo_window(&stream, in_flight, frames, stop, write, |stream| checker.receive(stream))?;
            let mut close = Vec::new();
            sending.close(&mut close);
            (&stream).write_all(&close)
        });
        load
    }

    /// Handshakes on so many connections, so many at once on each. Each channel answers one message and is closed. The
    /// identities are dealt out to the connections.
    pub fn handshakes(
        address: SocketAddr,
        mut identities: Vec<Identity>,
        links: usize,
        at_once: usize,
    ) -> io::Result<Load> {
        let mut load = Load::new();
        for left in (1..=links).rev() {
            let dealt = identities.split_off(identities.len() - identities.len() / left);
            let mut opener = Opener::new(link(address)?, dealt);
            load.thread(move |frames, stop| {
                loop {
                    while !stop.load(Ordering::Relaxed) && opener.under_way() < at_once {
                        opener.begin()?;
                    }
                    if opener.under_way() == 0 {
                        return opener.flush();
                    }
                    for (_, channel) in opener.receive()? {
                        opener.close(channel);
                        frames.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        Ok(load)
    }

    /// Many connections to `echo`, shared among threads, in rounds: so many requests on each, then all their answers.
    pub fn echo_rounds(
        address: SocketAddr,
        payload_len: usize,
        links: usize,
        per_link: u64,
        threads: usize,
    ) -> io::Result<Load> {
        let mut load = Load::new();
        for thread in 0..threads {
            let count = (links - thread).div_ceil(threads);
            let streams: Vec<TcpStream> = (0..count).map(|_| link(address)).collect::<io::Result<_>>()?;
            load.thread(move |frames, stop| echo_rounds(&streams, payload_len, per_link, frames, stop));
        }
        Ok(load)
    }

    /// `flows` connections that send one way through a relay to a sink each.
    pub fn stream(path: &Path, payload_len: usize, flows: usize) -> io::Result<Load> {
        let mut load = Load::new();
        for _ in 0..flows {
            let flow = path.flow(payload_len);
            let (stream, sink) = path.open(&flow)?;
            let sent = Arc::new(AtomicU64::new(u64::MAX));
            let told = sent.clone();
            let begun = u64::from(path.dials == Dials::OnTheFirstFrame);
            // The connection stays open until everything has arrived: what a relay does with frames of a link that has
            // ended is not what is measured.
            let (arrived, all_arrived) = std::sync::mpsc::channel::<()>();
            load.thread(move |_, stop| {
                let next = send_stream(&stream, &flow, begun, stop)?;
                told.store(next + 1, Ordering::Release);
                // Known to be the last one when it arrives.
                let mut last = Vec::new();
                flow.write(next, &mut last);
                (&stream).write_all(&last)?;
                let _ = all_arrived.recv();
                Ok(())
            });
            load.thread(move |frames, _| {
                let _arrived = arrived;
                drain(&sink, &sent, frames)
            });
        }
        Ok(load)
    }

    /// Ends it.
    ///
    /// # Errors
    /// What was wrong on the way: this repetition is void.
    pub fn finish(self) -> Result<(), Failed> {
        self.stop.store(true, Ordering::Relaxed);
        let mut first = Ok(());
        for thread in self.threads {
            let result = thread.join().map_err(|_| Failed::new("a load thread panicked"))?;
            if let Err(error) = result
                && first.is_ok()
            {
                first = Err(Failed::new(format!("void: {error}")));
            }
        }
        first
    }

    fn ended_early(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// How a relay comes to its sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dials {
    /// It was told where the sink is and connects when it is connected to.
    AtOnce,
    /// The route says where the sink is.
    OnTheFirstFrame,
}

/// From the load through a relay to a sink.
pub struct Path<'a> {
    /// The relay.
    pub relay: SocketAddr,
    /// Nodes behind it, in the order of the route; relays of bytes were told theirs when they started.
    pub via: &'a [SocketAddr],
    /// Where it must arrive.
    pub sink: &'a Sink,
    /// See there.
    pub dials: Dials,
}

impl Path<'_> {
    fn flow(&self, payload_len: usize) -> Flow {
        let hops = self.via.iter().chain([&self.sink.address]);
        let hops = hops.map(|address| Address { kind: TCP, name: address.to_string().into_bytes() });
        let onward: Vec<Address> = hops.chain([Address::local("sink")]).collect();
        Flow::new(&onward, &[Address::local("0123456789abcdef0123456789abcdef")], payload_len)
    }

    /// Both ends, after their version bytes.
    fn open(&self, flow: &Flow) -> io::Result<(TcpStream, TcpStream)> {
        let stream = TcpStream::connect(self.relay)?;
        say_version(&stream)?;
        if self.dials == Dials::OnTheFirstFrame {
            hear_version(&stream)?;
            let mut first = Vec::new();
            flow.write(0, &mut first);
            (&stream).write_all(&first)?;
        }
        let sink = self.sink.accept()?;
        if self.dials == Dials::AtOnce {
            hear_version(&stream)?;
        }
        Ok((stream, sink))
    }
}

/// A listener at the end of a relayed route.
pub struct Sink {
    listener: TcpListener,
    /// Its address.
    pub address: SocketAddr,
}

impl Sink {
    /// On a free loopback port.
    pub fn new() -> io::Result<Sink> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        Ok(Sink { listener, address })
    }

    /// The next connection as it is.
    pub fn accept_silent(&self) -> io::Result<TcpStream> {
        let (stream, _) = self.listener.accept()?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// The same, if it comes in time.
    pub fn accept_within(&self, limit: Duration) -> io::Result<TcpStream> {
        rustix::net::sockopt::set_socket_timeout(&self.listener, rustix::net::sockopt::Timeout::Recv, Some(limit))?;
        self.accept_silent()
    }

    /// The next connection, after version bytes; a relay of bytes passes those of both ends on.
    fn accept(&self) -> io::Result<TcpStream> {
        let stream = self.accept_within(PATIENCE)?;
        greet(&stream)?;
        Ok(stream)
    }
}

fn echo_window(
    stream: &TcpStream,
    in_flight: u64,
    frames: &AtomicU64,
    stop: &AtomicBool,
    mut write: impl FnMut(u64, &mut Vec<u8>),
    mut receive: impl FnMut(&TcpStream) -> io::Result<Option<u64>>,
) -> io::Result<()> {
    let mut unsent = Vec::with_capacity(2 * WINDOW_BATCH);
    let mut unsent_from = 0;
    let (mut written, mut verified) = (0, 0);
    loop {
        if !stop.load(Ordering::Relaxed) {
            while written < verified + in_flight && unsent.len() < WINDOW_BATCH {
                write(written, &mut unsent);
                written += 1;
            }
        }
        send_what_fits(stream, &mut unsent, &mut unsent_from)?;
        if written == verified {
            return Ok(());
        }
        match receive(stream)? {
            Some(count) => {
                verified += count;
                frames.fetch_add(count, Ordering::Relaxed);
            }
            None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the system closed the connection")),
        }
    }
}

/// Sends what the socket takes of `unsent` from `from` on, without waiting: a system may have to wait for us to read
/// before it can read on. When all was taken, both begin anew.
pub fn send_what_fits(stream: &TcpStream, unsent: &mut Vec<u8>, from: &mut usize) -> io::Result<()> {
    while *from < unsent.len() {
        match rustix::net::send(stream, &unsent[*from..], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(count) => *from += count,
            Err(rustix::io::Errno::AGAIN) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    if *from == unsent.len() {
        unsent.clear();
        *from = 0;
    }
    Ok(())
}

fn echo_rounds(
    streams: &[TcpStream],
    payload_len: usize,
    per_link: u64,
    frames: &AtomicU64,
    stop: &AtomicBool,
) -> io::Result<()> {
    let (requests, answers) = echo_flows(payload_len);
    let mut checkers: Vec<Checker> = streams.iter().map(|_| Checker::of(answers.clone())).collect();
    let mut batch = Vec::new();
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        batch.clear();
        (written..written + per_link).for_each(|sequence| requests.write(sequence, &mut batch));
        written += per_link;
        for mut stream in streams {
            stream.write_all(&batch)?;
        }
        for (checker, stream) in checkers.iter_mut().zip(streams) {
            while checker.verified() < written {
                let Some(count) = checker.receive(stream)? else {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the system closed a connection"));
                };
                frames.fetch_add(count, Ordering::Relaxed);
            }
        }
    }
    Ok(())
}

/// Sends frames from `next` on until it is told to stop; answers with the number of the frame that is next then.
fn send_stream(mut stream: &TcpStream, flow: &Flow, mut next: u64, stop: &AtomicBool) -> io::Result<u64> {
    let mut batch = Vec::with_capacity(2 * BATCH);
    while !stop.load(Ordering::Relaxed) {
        if flow.frame_len() >= BATCH / 8 {
            let noise = flow.parts(next, &mut batch);
            let (mut head, mut rest) = (&batch[..], noise);
            while !head.is_empty() || !rest.is_empty() {
                let sent = stream.write_vectored(&[IoSlice::new(head), IoSlice::new(rest)])?;
                let of_head = sent.min(head.len());
                head = &head[of_head..];
                rest = &rest[sent - of_head..];
            }
            next += 1;
        } else {
            batch.clear();
            while batch.len() < BATCH {
                flow.write(next, &mut batch);
                next += 1;
            }
            stream.write_all(&batch)?;
        }
    }
    Ok(next)
}

/// Receives until everything that was sent has come.
fn drain(stream: &TcpStream, sent: &AtomicU64, frames: &AtomicU64) -> io::Result<()> {
    let mut checker = Checker::of_any();
    loop {
        match checker.receive(stream)? {
            Some(count) => frames.fetch_add(count, Ordering::Relaxed),
            None if checker.verified() == sent.load(Ordering::Acquire) => return Ok(()),
            None => {
                let what = format!("{} of {} frames arrived", checker.verified(), sent.load(Ordering::Acquire));
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
            }
        };
        if checker.verified() == sent.load(Ordering::Acquire) {
            return Ok(());
        }
    }
}

/// One measurement of one system under one load.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Verified frames per second of wall time.
    pub per_s: f64,
    /// Verified frames per second of processor time of the system.
    pub per_cpu_s: f64,
    /// Verified frames per second that any CPU of the machine was busy, the load's own included.
    pub per_busy_s: f64,
    /// Processor time of the load per frame, in nanoseconds.
    pub load_ns: f64,
    /// Share of the machine's time that its hypervisor took.
    pub steal: f64,
}

impl Measured {
    /// Warms up, measures, ends the load; only then the numbers count.
    pub fn take(setup: &Setup, system: &System, load: Load) -> Result<Measured, Failed> {
        let own = std::process::id();
        let wait = |seconds: f64| {
            let end = Instant::now() + Duration::from_secs_f64(seconds);
            while Instant::now() < end && !load.ended_early() {
                let left = end.saturating_duration_since(Instant::now());
                std::thread::sleep(left.min(Duration::from_millis(100)));
            }
        };
        wait(setup.warm_up_s);
        let (machine, load_ns, system_ns) = (Machine::now()?, machine::cpu_ns(own)?, system.cpu_ns()?);
        let (frames, start) = (load.frames.load(Ordering::Relaxed), Instant::now());
        wait(setup.seconds);
        let (elapsed, frames) = (start.elapsed().as_secs_f64(), load.frames.load(Ordering::Relaxed) - frames);
        let (system_ns, load_ns) = (system.cpu_ns()? - system_ns, machine::cpu_ns(own)? - load_ns);
        let machine = Machine::now()?.since(machine);
        load.finish().map_err(|error| Failed::new(format!("{}: {error}", system.name)))?;
        if frames == 0 {
            return Err(Failed::new(format!("void: nothing came through {}", system.name)));
        }
        let frames = frames as f64;
        Ok(Measured {
            per_s: frames / elapsed,
            per_cpu_s: frames / (system_ns as f64 / 1e9),
            per_busy_s: frames / machine.busy_s,
            load_ns: load_ns as f64 / frames,
            steal: machine.steal_s / machine.total_s,
        })
    }
}
