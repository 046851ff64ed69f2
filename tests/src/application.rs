//! The applications at both ends of a portal. What they say is known to both, so that each byte is checked where it arrives.

use crate::{PATIENCE, noise, wait_until};
use rustix::net::sockopt::set_socket_linger;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use std::{fmt, thread};

/// Where an application listens or connects: `127.0.0.1:5000` or `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// An internet address.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Place, String> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Place::Unix(path.into())),
            None => text.parse().map(Place::Tcp).map_err(|error| format!("{text:?}: {error}")),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Tcp(address) => address.fmt(f),
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Place {
    /// Connects, as an application does.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn try_connect(&self) -> io::Result<Stream> {
        match self {
            Place::Tcp(address) => TcpStream::connect(address).map(Stream::tcp),
            Place::Unix(path) => UnixStream::connect(path).map(Stream::unix),
        }
    }

    /// Connects, which must succeed.
    #[track_caller]
    pub fn connect(&self) -> Stream {
        self.try_connect().unwrap_or_else(|error| panic!("{self}: {error}"))
    }

    /// The internet address that it is.
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        match self {
            Place::Tcp(address) => *address,
            Place::Unix(path) => panic!("{} is no internet address", path.display()),
        }
    }
}

/// A connection of an application. Nothing that it waits for takes longer than [`PATIENCE`].
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl Stream {
    fn tcp(stream: TcpStream) -> Stream {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_nodelay(true).expect("delays can be switched off");
        Stream::Tcp(stream)
    }

    fn unix(stream: UnixStream) -> Stream {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout can be set");
        Stream::Unix(stream)
    }

    /// Says that this side has no more to say, and goes on listening.
    ///
    /// # Errors
    /// The connection is over.
    pub fn end(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    /// Ends the connection with a reset.
    ///
    /// # Panics
    /// It is one over a Unix socket, which knows no reset.
    pub fn reset(self) {
        let Stream::Tcp(stream) = self else { panic!("a Unix socket cannot be reset") };
        set_socket_linger(&stream, Some(Duration::ZERO)).expect("what happens at a close can be set");
    }

    /// Whether reads and writes wait.
    pub fn set_nonblocking(&self, nonblocking: bool) {
        match self {
            Stream::Tcp(stream) => stream.set_nonblocking(nonblocking),
            Stream::Unix(stream) => stream.set_nonblocking(nonblocking),
        }
        .expect("a mode can be set");
    }

    /// That the connection is over, as this side is told: `true` when everything was said, `false` after a reset.
    ///
    /// # Errors
    /// More bytes come instead, or nothing at all.
    pub fn is_at_end(&self) -> io::Result<bool> {
        let mut more = [0; 1];
        loop {
            return match { self }.read(&mut more) {
                Ok(0) => Ok(true),
                Ok(_) => Err(wrong("a byte came instead of the end".into())),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => { stream }.read(buffer),
            Stream::Unix(stream) => { stream }.read(buffer),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => { stream }.write(bytes),
            Stream::Unix(stream) => { stream }.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The bytes of one direction of a connection, without end, of which both ends know each: others for every seed.
#[derive(Debug, Clone)]
pub struct Sequence {
    seed: usize,
    at: u64,
}

/// The sequences are this, from somewhere on, again and again. Its length is a prime, so that nothing that a buffer, a
/// frame or a window could lose, double or exchange leaves the sequence as it was.
static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| noise(1_048_583, 0x5eed));

impl Sequence {
    /// The sequence of a seed, from its beginning.
    pub fn new(seed: u64) -> Sequence {
        Sequence { seed: (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) as usize % BYTES.len(), at: 0 }
    }

    /// The same one, of which nothing has gone by.
    pub fn from_the_beginning(&self) -> Sequence {
        Sequence { seed: self.seed, at: 0 }
    }

    /// How many bytes of it have gone by.
    pub fn count(&self) -> u64 {
        self.at
    }

    /// The next bytes, at least one and at most `most`.
    pub fn next(&self, most: u64) -> &'static [u8] {
        let from = (self.seed + (self.at % BYTES.len() as u64) as usize) % BYTES.len();
        let rest = &BYTES[from..];
        &rest[..rest.len().min(most.min(64 * 1024) as usize)]
    }

    /// Goes on by so many bytes.
    pub fn skip(&mut self, count: usize) {
        self.at += count as u64;
    }

    /// Sends the next `count` bytes.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn send(&mut self, mut to: &Stream, count: u64) -> io::Result<()> {
        let end = self.at + count;
        while self.at < end {
            match to.write(self.next(end - self.at)) {
                Ok(written) => self.skip(written),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends as much as is taken without waiting; the connection must not block. Gives how much that was.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn send_some(&mut self, mut to: &Stream) -> io::Result<u64> {
        let from = self.at;
        loop {
            match to.write(self.next(u64::MAX)) {
                Ok(written) => self.skip(written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(self.at - from),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes the next `count` bytes, each of which must be the right one.
    ///
    /// # Errors
    /// `InvalidData`: a wrong byte came. `UnexpectedEof`: the other side ended before. Those of the connection, of which
    /// `WouldBlock` means that nothing came for [`PATIENCE`].
    pub fn receive(&mut self, mut from: &Stream, count: u64) -> io::Result<()> {
        let end = self.at + count;
        let mut buffer = vec![0; 64 * 1024];
        while self.at < end {
            let most = buffer.len().min((end - self.at) as usize);
            match from.read(&mut buffer[..most]) {
                Ok(0) => {
                    let why = format!("the end came after {} bytes of {end}", self.at);
                    return Err(io::Error::new(ErrorKind::UnexpectedEof, why));
                }
                Ok(read) => self.check(&buffer[..read])?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn check(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let expected = self.next(bytes.len() as u64);
            let (these, rest) = bytes.split_at(expected.len());
            if these != expected {
                let place = these.iter().zip(expected).take_while(|(one, other)| one == other).count();
                return Err(wrong(format!("byte {} is wrong", self.at + place as u64)));
            }
            self.skip(these.len());
            bytes = rest;
        }
        Ok(())
    }
}

fn wrong(what: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// A server behind an outlet. Each connection is served by a thread.
pub struct Target {
    place: Place,
    accepted: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Target {
    /// Listens at a free port of 127.0.0.1.
    pub fn tcp(serve: impl Fn(Stream) + Send + Sync + 'static) -> Target {
        Target::at(TcpListener::bind("127.0.0.1:0").expect("a free port"), serve)
    }

    /// Serves who comes to a socket that listens.
    pub fn at(listener: TcpListener, serve: impl Fn(Stream) + Send + Sync + 'static) -> Target {
        // With a short queue of connections that wait to be accepted the kernel answers with SYN cookies, and then the first
        // bytes of a connection may be lost: those of a segment that was dropped in front of the one that proves the cookie.
        rustix::net::listen(&listener, 4096).expect("a listening socket may listen");
        let place = Place::Tcp(listener.local_addr().expect("a bound socket has an address"));
        Target::start(place, move || listener.accept().map(|(stream, _)| Stream::tcp(stream)), serve)
    }

    /// Listens at a path.
    pub fn unix(path: &Path, serve: impl Fn(Stream) + Send + Sync + 'static) -> Target {
        let listener = UnixListener::bind(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Target::start(
            Place::Unix(path.into()),
            move || listener.accept().map(|(stream, _)| Stream::unix(stream)),
            serve,
        )
    }

    /// Sends back what it gets, and ends when its client does.
    pub fn echo() -> Target {
        Target::tcp(echo)
    }

    fn start(
        place: Place,
        accept: impl Fn() -> io::Result<Stream> + Send + 'static,
        serve: impl Fn(Stream) + Send + Sync + 'static,
    ) -> Target {
        let (accepted, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end, serve) = (accepted.clone(), over.clone(), Arc::new(serve));
        thread::spawn(move || {
            loop {
                let stream = accept();
                if end.load(Ordering::Relaxed) {
                    return;
                }
                // What a client gave up before it was accepted is not served.
                let Ok(stream) = stream else { continue };
                count.fetch_add(1, Ordering::Relaxed);
                let serve = serve.clone();
                // There may be a thousand of them, none of which goes deep.
                let thread = thread::Builder::new().name("target".into()).stack_size(256 << 10);
                thread.spawn(move || serve(stream)).expect("a thread");
            }
        });
        Target { place, accepted, over }
    }

    /// Where it listens.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// How many came so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // So that who waits for the next one looks.
        drop(self.place.try_connect());
    }
}

/// Sends back what comes, and ends when that does: what [`Target::echo`] does.
pub fn echo(stream: Stream) {
    // A client may leave as it likes.
    let _ = io::copy(&mut { &stream }, &mut { &stream }).and_then(|_| stream.end());
}

/// Sends `count` bytes through a connection whose far end is [`echo`], and checks what comes back.
///
/// # Errors
/// Those of [`Sequence::receive`].
pub fn echoes(stream: &Stream, sequence: &mut Sequence, count: u64) -> io::Result<()> {
    let mut back = sequence.clone();
    thread::scope(|scope| {
        let sending = scope.spawn(|| sequence.send(stream, count));
        let received = back.receive(stream, count);
        if received.is_err() {
            // So that who sends does not wait for who no longer reads; it may be over.
            let _ = match stream {
                Stream::Tcp(stream) => stream.shutdown(Shutdown::Both),
                Stream::Unix(stream) => stream.shutdown(Shutdown::Both),
            };
        }
        match (received, sending.join().expect("sending does not panic")) {
            // A reset is told once, to who asks first; the other sees an end. After a real end it would not be a reset
            // that who sends is told of.
            (Err(end), Err(reset))
                if end.kind() == ErrorKind::UnexpectedEof && reset.kind() == ErrorKind::ConnectionReset =>
            {
                Err(reset)
            }
            (received, sent) => received.and(sent),
        }
    })
}

/// Sends a good deal through a connection of its own, whose far end is [`echo`], and ends it in good order.
///
/// # Errors
/// Why that was not possible.
pub fn try_works(place: &Place) -> io::Result<()> {
    let stream = place.try_connect()?;
    echoes(&stream, &mut Sequence::new(u64::from(std::process::id())), 200_000)?;
    stream.end()?;
    if stream.is_at_end()? { Ok(()) } else { Err(ErrorKind::ConnectionReset.into()) }
}

/// The same, which must be possible.
#[track_caller]
pub fn works(place: &Place) {
    try_works(place).unwrap_or_else(|error| panic!("{place}: {error}"));
}

/// An application that uses a connection to [`echo`] without a pause. A byte that is lost, doubled or changed, and a
/// connection that ends, fail the test.
pub struct Talk {
    count: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<io::Result<()>>>,
}

impl Talk {
    /// Starts on a connection of its own.
    #[track_caller]
    pub fn start(place: &Place, seed: u64) -> Talk {
        let stream = place.connect();
        let (count, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (done, end) = (count.clone(), over.clone());
        let thread = thread::spawn(move || {
            let mut sequence = Sequence::new(seed);
            let mut round = seed;
            while !end.load(Ordering::Relaxed) {
                round += 1;
                echoes(&stream, &mut sequence, 1 + round * 7919 % 50_000)?;
                done.store(sequence.count(), Ordering::Relaxed);
                // What it goes through gets its turn, also where there is one core for all.
                thread::sleep(Duration::from_millis(1));
            }
            stream.end()?;
            if stream.is_at_end()? { Ok(()) } else { Err(ErrorKind::ConnectionReset.into()) }
        });
        let talk = Talk { count, over, thread: Some(thread) };
        talk.flows();
        talk
    }

    /// Whether it has failed, which the death of an engine is a reason for.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(thread::JoinHandle::is_finished)
    }

    /// Waits until some more has gone there and back.
    #[track_caller]
    pub fn flows(&self) {
        let aim = self.count.load(Ordering::Relaxed) + 300_000;
        wait_until(
            || self.has_ended() || self.count.load(Ordering::Relaxed) >= aim,
            || "nothing flows through the portal".into(),
        );
        assert!(!self.has_ended(), "the connection through the portal failed");
    }

    /// Ends it in good order, and gives how many bytes went there and back.
    #[track_caller]
    pub fn stop(self) -> u64 {
        let count = self.count.clone();
        self.over.store(true, Ordering::Relaxed);
        self.outcome().expect("every byte came back as it was");
        count.load(Ordering::Relaxed)
    }

    /// How it ended.
    ///
    /// # Errors
    /// The error that ended it.
    #[track_caller]
    pub fn outcome(mut self) -> io::Result<()> {
        let thread = self.thread.take().expect("it ends once");
        wait_until(|| thread.is_finished(), || "the connection through the portal hangs".into());
        thread.join().expect("who talks does not panic")
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{Place, Sequence, Stream, Talk, Target, echo, echoes};
    use std::io::{ErrorKind, Write};

    #[test]
    fn what_is_wrong_is_seen() {
        let sent = |bytes: Vec<u8>| {
            let target = Target::tcp(move |stream| (&stream).write_all(&bytes).unwrap());
            let stream = target.place().connect();
            let received = Sequence::new(7).receive(&stream, 3_000_000);
            received.map_err(|error| (error.kind(), error.to_string()))
        };
        let mut sequence = Sequence::new(7);
        let mut right = Vec::new();
        while right.len() < 3_000_000 {
            let next = sequence.next(3_000_000 - right.len() as u64);
            right.extend(next);
            sequence.skip(next.len());
        }
        assert_eq!(sent(right.clone()), Ok(()));
        for at in [0, 1_048_583, 2_999_999] {
            let mut wrong = right.clone();
            wrong[at] ^= 4;
            assert_eq!(sent(wrong), Err((ErrorKind::InvalidData, format!("byte {at} is wrong"))));
        }
        // A block that is lost, and one that comes twice.
        assert_eq!(sent([&right[..65_536], &right[131_072..]].concat()).unwrap_err().0, ErrorKind::InvalidData);
        assert_eq!(sent([&right[..65_536], &right].concat()).unwrap_err().0, ErrorKind::InvalidData);
        assert_eq!(sent(right[1..].to_vec()).unwrap_err().0, ErrorKind::InvalidData);
        assert_eq!(sent(right[..2_999_999].to_vec()).unwrap_err().0, ErrorKind::UnexpectedEof);
        assert_ne!(Sequence::new(1).next(100), Sequence::new(2).next(100));
    }

    #[test]
    fn an_end_is_told_from_a_reset() {
        let resets = Target::tcp(Stream::reset);
        assert!(!resets.place().connect().is_at_end().unwrap());
        let ends = Target::tcp(drop);
        assert!(ends.place().connect().is_at_end().unwrap());
        let says_more = Target::tcp(|stream| drop((&stream).write(b"x")));
        assert!(says_more.place().connect().is_at_end().is_err());
        assert_eq!((resets.accepted(), ends.accepted(), says_more.accepted()), (1, 1, 1));
    }

    #[test]
    fn applications_talk_over_both_kinds_of_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        for target in [Target::echo(), Target::unix(&path, echo)] {
            let place: Place = target.place().to_string().parse().unwrap();
            assert_eq!(&place, target.place());
            let stream = place.connect();
            echoes(&stream, &mut Sequence::new(3), 2_000_000).unwrap();
            stream.end().unwrap();
            assert!(stream.is_at_end().unwrap());
            let talk = Talk::start(&place, 9);
            talk.flows();
            assert!(talk.stop() >= 600_000);
        }
        // One that is cut off does not go unnoticed.
        let cut = Target::tcp(|stream| Sequence::new(9).send(&stream, 1).unwrap());
        assert!(echoes(&cut.place().connect(), &mut Sequence::new(9), 1_000_000).is_err());
    }
}
