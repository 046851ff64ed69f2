//! A peer on the wire, and honest traffic.

use crate::{PATIENCE, wait_until};
use ockam_wire::{Address, AddressRef, Framer, Message, Outgoing, PREAMBLE, RouteParts};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// A connection to a node on which the version bytes are exchanged.
pub struct Peer {
    /// The connection.
    pub stream: TcpStream,
    /// What was received and is not a whole frame yet.
    pub framer: Framer,
}

/// A message that a peer received.
#[derive(Debug, PartialEq)]
pub struct Received {
    /// Where it goes.
    pub onward: Vec<Address>,
    /// Where an answer goes.
    pub back: Vec<Address>,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Peer {
    /// Connects to a node.
    ///
    /// # Panics
    /// The node is not there, or is not a node.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Peer {
        Peer::on(TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}")))
    }

    /// Exchanges the version bytes on a connection.
    #[track_caller]
    pub fn on(mut stream: TcpStream) -> Peer {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_nodelay(true).expect("delays can be switched off");
        stream.write_all(&[PREAMBLE]).expect("the node reads");
        let mut theirs = [0];
        stream.read_exact(&mut theirs).expect("the node says its version");
        assert_eq!(theirs, [PREAMBLE]);
        Peer { stream, framer: Framer::new() }
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the node reads");
    }

    /// The next message; `None` when the node closed the connection.
    #[track_caller]
    pub fn receive_or_end(&mut self) -> Option<Received> {
        let mut chunk = vec![0; 64 * 1024];
        loop {
            if let Some(frame) = self.framer.next().expect("the node sends frames") {
                let message = Message::parse(frame).expect("the node sends messages");
                return Some(Received {
                    onward: message.onward.iter().map(|address| address.to_address()).collect(),
                    back: message.return_route.iter().map(|address| address.to_address()).collect(),
                    payload: message.payload.to_vec(),
                });
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(count) => self.framer.push(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("no answer: {error}"),
            }
        }
    }

    /// The next message, which must come.
    #[track_caller]
    pub fn receive(&mut self) -> Received {
        self.receive_or_end().expect("a message, not the end of the connection")
    }

    /// Sends a payload to `echo`, behind everything sent before, and checks that it comes back next. Because a link keeps
    /// the order of its frames, this also proves that nothing else was answered before.
    #[track_caller]
    pub fn echoes(&mut self, payload: &[u8]) {
        self.send(&frame(&["echo"], &["me"], payload));
        let answer = self.receive();
        assert!(answer.payload == payload, "{} bytes went out, {} came back", payload.len(), answer.payload.len());
    }
}

/// A port of 127.0.0.1 at which nobody listens, and nobody can as long as this lives.
pub struct ClosedPort {
    address: SocketAddr,
    _socket: OwnedFd,
}

impl Default for ClosedPort {
    fn default() -> ClosedPort {
        ClosedPort::new()
    }
}

impl ClosedPort {
    /// Takes a free port, without listening.
    pub fn new() -> ClosedPort {
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let socket = socket.expect("a socket");
        rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let address = rustix::net::getsockname(&socket).expect("a bound socket has an address");
        ClosedPort { address: address.try_into().expect("an internet address"), _socket: socket }
    }

    /// The address that refuses.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Addresses from their text, such as `echo` or `1#127.0.0.1:6002`.
///
/// # Panics
/// One of them is none.
#[track_caller]
pub fn addresses(texts: &[&str]) -> Vec<Address> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

/// A frame with these routes and this payload.
#[track_caller]
pub fn frame(onward: &[&str], back: &[&str], payload: &[u8]) -> Vec<u8> {
    frame_to(&addresses(onward), &addresses(back), payload)
}

/// The same for addresses that were received.
pub fn frame_to(onward: &[Address], back: &[Address], payload: &[u8]) -> Vec<u8> {
    let onward: Vec<AddressRef<'_>> = onward.iter().map(Address::as_ref).collect();
    let back: Vec<AddressRef<'_>> = back.iter().map(Address::as_ref).collect();
    let (onward, return_route) = (RouteParts::new(&onward), RouteParts::new(&back));
    Outgoing { onward, return_route, payload_len: payload.len(), tracing: None }.to_frame(payload)
}

/// A text as `uppercase` reads it (`wire.md` 0.2).
pub fn text(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    ockam_wire::bare::write_string(text, &mut bytes);
    bytes
}

/// Bytes that repeat only after a long while.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(step).collect()
}

/// Honest traffic over one link: numbered messages to `echo`, a few under way at a time, each answer compared with what
/// must come next. A lost, doubled, reordered or changed frame, and a reset, fail the test.
pub struct Traffic {
    round_trips: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Traffic {
    /// Starts it on a link of its own.
    #[track_caller]
    pub fn start(node: SocketAddr) -> Traffic {
        const UNDER_WAY: u64 = 8;
        let mut peer = Peer::connect(node);
        let (round_trips, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (done, end) = (round_trips.clone(), stop.clone());
        let payload = |number: u64| noise(1 + (number as usize * 97) % 3000, number + 1);
        let run = move || {
            let (mut sent, mut received) = (0, 0);
            loop {
                let go_on = !end.load(Ordering::Relaxed);
                while go_on && sent < received + UNDER_WAY {
                    peer.send(&frame(&["echo"], &["me"], &payload(sent)));
                    sent += 1;
                }
                if received == sent {
                    return received;
                }
                let answer = peer.receive_or_end().expect("the link lives");
                assert!(answer.payload == payload(received), "message {received} did not come back as it was");
                received += 1;
                done.store(received, Ordering::Relaxed);
            }
        };
        let thread = std::thread::Builder::new().name("honest traffic".into()).spawn(run).expect("a thread");
        let traffic = Traffic { round_trips, stop, thread: Some(thread) };
        traffic.flows();
        traffic
    }

    /// Waits until some hundred more messages came back.
    #[track_caller]
    pub fn flows(&self) {
        let aim = self.round_trips.load(Ordering::Relaxed) + 300;
        let failed = || self.thread.as_ref().is_some_and(JoinHandle::is_finished);
        wait_until(
            || failed() || self.round_trips.load(Ordering::Relaxed) >= aim,
            || "honest traffic does not flow".into(),
        );
        assert!(!failed(), "honest traffic failed");
    }

    /// Ends it. All that was sent must have come back.
    #[track_caller]
    pub fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("it is stopped once").join().expect("every message came back as it was")
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
