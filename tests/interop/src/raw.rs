//! Plain sockets that speak frames.

use crate::{PATIENCE, bytes};
use ockam_wire::{AddressRef, Message};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

/// The reply address of requests made here: 32 times `a`, as in the worked examples of `wire.md` A.8.
pub const REPLY: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// One end of a TCP connection to a node.
pub struct RawPeer {
    stream: TcpStream,
    echoes: u32,
}

impl RawPeer {
    /// A connection on which both preambles have been exchanged.
    pub fn connect(to: SocketAddr) -> RawPeer {
        let mut peer = RawPeer::dial(to);
        peer.write(&[1]);
        assert_eq!(peer.read(1), [1], "the preamble");
        peer
    }

    /// A connection on which nothing has been sent or read.
    pub fn dial(to: SocketAddr) -> RawPeer {
        RawPeer::over(TcpStream::connect(to).expect("connect to a node"))
    }

    /// A connection that somebody else made.
    pub(crate) fn over(stream: TcpStream) -> RawPeer {
        stream.set_read_timeout(Some(PATIENCE)).expect("set a read timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("set a write timeout");
        stream.set_nodelay(true).expect("set TCP_NODELAY");
        RawPeer { stream, echoes: 0 }
    }

    /// A second handle on the same connection, for a thread that only writes.
    pub fn writer(&self) -> RawPeer {
        RawPeer { stream: self.stream.try_clone().expect("duplicate a socket"), echoes: 0 }
    }

    /// Writes bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("write to a node");
    }

    /// Writes a frame: the length of `body` and `body`.
    pub fn send(&mut self, body: &[u8]) {
        let length = u32::try_from(body.len()).expect("a body of less than 4 GiB");
        self.write(&[&length.to_be_bytes(), body].concat());
    }

    /// Writes a frame that asks for a reply to [`REPLY`].
    pub fn request(&mut self, onward: &[AddressRef], payload: &[u8]) {
        self.send(&bytes::body(onward, &[bytes::local(REPLY)], payload, None));
    }

    /// Says that nothing more will be written.
    pub fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("shut down the writing side");
    }

    /// Writes bytes as they are; `false` when the node ended the connection.
    pub(crate) fn write_or_end(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Reads exactly `len` bytes, without a limit of time; `None` when the node ended the connection.
    pub(crate) fn read_or_end(&mut self, len: usize) -> Option<Vec<u8>> {
        self.stream.set_read_timeout(None).expect("lift the read timeout");
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).ok().map(|()| bytes)
    }

    /// Reads one frame, without a limit of time, and gives its body; `None` when the node ended the connection.
    pub(crate) fn receive_or_end(&mut self) -> Option<Vec<u8>> {
        let head = self.read_or_end(4)?;
        let length = u32::from_be_bytes(head.try_into().expect("four bytes")) as usize;
        assert!((1..=ockam_wire::FRAME_MAX).contains(&length), "a frame of {length} bytes");
        self.read_or_end(length)
    }

    /// Says that nothing more will be written. The connection may have ended before.
    pub(crate) fn no_more(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Reads exactly `len` bytes.
    #[track_caller]
    pub fn read(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        if let Err(e) = self.stream.read_exact(&mut bytes) {
            panic!("{len} bytes expected from the node: {e}");
        }
        bytes
    }

    /// Reads one frame and gives its body.
    #[track_caller]
    pub fn receive(&mut self) -> Vec<u8> {
        let head = self.read(4);
        let length = u32::from_be_bytes(head.try_into().expect("four bytes")) as usize;
        assert!((1..=ockam_wire::FRAME_MAX).contains(&length), "a frame of {length} bytes");
        self.read(length)
    }

    /// Reads one frame, which must be for [`REPLY`], and gives its payload.
    #[track_caller]
    pub fn reply(&mut self) -> Vec<u8> {
        let body = self.receive();
        let message = Message::parse(&body).expect("a node sends messages that parse");
        let onward: Vec<_> = message.onward.iter().collect();
        assert_eq!(onward, [bytes::local(REPLY)], "the onward route of a reply");
        message.payload.to_vec()
    }

    /// Shows that the node still serves this link, and that it has sent nothing that was not read: it answers an echo,
    /// and the answer is the next frame. Nodes work through a link in order, so whatever came before had no answer.
    #[track_caller]
    pub fn assert_serving_and_silent(&mut self) {
        self.echoes += 1;
        let payload = format!("still there? {}", self.echoes);
        self.request(&[bytes::local("echo")], payload.as_bytes());
        let got = self.reply();
        assert_eq!(String::from_utf8_lossy(&got), payload, "the next frame is the answer to this echo");
    }

    /// Shows that the node closes the connection without another byte.
    #[track_caller]
    pub fn assert_closed(&mut self) {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(0) => {}
            Ok(_) => panic!("the node sent {byte:02x?}... where it should have closed the connection"),
            // What the node had not read when it closed turns the end into a reset.
            Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
            Err(e) => panic!("the node should have closed the connection: {e}"),
        }
    }
}

/// A socket that waits for a node to dial it.
pub struct RawListener(TcpListener);

impl RawListener {
    /// On a free port of 127.0.0.1.
    #[expect(clippy::new_without_default, reason = "it opens a socket")]
    pub fn new() -> RawListener {
        RawListener(TcpListener::bind("127.0.0.1:0").expect("bind a free port"))
    }

    /// Where to dial.
    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("a bound socket has an address")
    }

    /// The next connection, on which nothing has been sent or read.
    pub fn accept(&self) -> RawPeer {
        RawPeer::over(self.0.accept().expect("accept a connection").0)
    }

    /// The next connection, after both preambles, for a peer that speaks channels.
    pub fn accept_wire(&self) -> ockam_tests::Peer {
        ockam_tests::Peer::on(self.0.accept().expect("accept a connection").0)
    }

    /// The next connection, after both preambles. The node's must come without waiting for ours.
    pub fn accept_link(&self) -> RawPeer {
        let mut peer = self.accept();
        assert_eq!(peer.read(1), [1], "the preamble of a dialing node");
        peer.write(&[1]);
        peer
    }
}
