//! Sends one message and waits for its reply from this very process, without a node: one TCP connection, blocking, and
//! over it as many secure channels as the route has (`conversation`).
//!
//! What control does for a node through its engine (`messages.rs`), `message send` without `--from` does here; the demo
//! uses the same link to measure.

mod conversation;

pub use conversation::Party;

use crate::error::{Attempt, AttemptFailure, Error};
use crate::random;
use crate::route::{Hop, Route};
use conversation::Conversation;
use ockam_engine_abi::DropReason;
use ockam_wire::undeliverable::{Notice, Offer};
use ockam_wire::{Address, AddressRef, FRAME_MAX, FrameError, Framer, Message, Outgoing, PREAMBLE, RouteParts, bare};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Longest time that resolving a name, connecting to one address, and the peer's first byte may take, each.
const DIAL_LIMIT: Duration = Duration::from_secs(5);

/// Bytes read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Who sends, as the end of a sentence in errors.
const SENDER: &str = "this command";

/// When something must be over, and how long that was from its start.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    at: Instant,
    within: Duration,
}

impl Deadline {
    /// `within` from now.
    pub fn after(within: Duration) -> Deadline {
        Deadline { at: Instant::now() + within, within }
    }

    /// Time left, if any.
    fn left(self) -> Option<Duration> {
        self.at.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }
}

/// Sends `payload` along `route`, which begins with a TCP hop, and returns the payload of the reply. Secure channels on
/// the way are opened for this message as `party`, and closed after it.
///
/// The message offers to be told of its own failure (`docs/wire-extensions.md`, Undeliverable).
///
/// # Errors
/// The route begins with no TCP hop, the first node cannot be reached, the message is too large, is reported as
/// undeliverable, or no reply comes in time; the end of a channel is not who it must be, or refuses.
pub fn send(route: &Route, payload: &[u8], party: Option<&mut Party>, timeout: Duration) -> Result<Vec<u8>, Error> {
    let deadline = Deadline::after(timeout);
    let no_reply = || Error::NoReply {
        route: route.steps().iter().map(ToString::to_string).collect(),
        timeout_ms: timeout.as_millis() as u64,
    };
    let Some(hop) = route.first_hop() else {
        return Err(Error::BadArgument {
            argument: "--to".into(),
            value: route.steps().iter().map(ToString::to_string).collect(),
            why: "begins inside a node, and without --from there is no node".into(),
            fix: "Name the node: --from NODE, or /node/NODE in front of the route.".into(),
        });
    };
    let legs = route.legs();
    let Some((last, channels)) = legs.split_last() else { return Err(Error::internal("a route without legs")) };
    let onward = last.addresses(usize::from(channels.is_empty()));
    let reply_to = Address::local(random::hex_id());
    let offer = Offer { token: random::bytes() };
    check_length(&onward, &[reply_to.as_ref()], payload, Some(&offer.text()))?;
    let mut conversation = Conversation::over(Link::open(hop, deadline)?);
    let reply = || {
        if let Some(party) = party {
            for (index, leg) in channels.iter().enumerate() {
                let authorized = party.authorized.get(index).cloned().unwrap_or_default();
                // The link that was dialed is the first step of the first leg.
                let opened = conversation.open(leg, usize::from(index == 0), party, &authorized, deadline)?;
                opened.ok_or_else(no_reply)?;
            }
        } else if !channels.is_empty() {
            return Err(Error::internal("a message through secure channels has nobody to be"));
        }
        let sent = conversation.send(&onward, &[reply_to.as_ref()], payload, Some(&offer.text()), deadline)?;
        sent.ok_or_else(no_reply)?;
        loop {
            let message = conversation.receive(deadline)?.ok_or_else(no_reply)?;
            if message.to.as_ref() != Some(&reply_to) {
                continue;
            }
            return match notice_of(message.tracing.as_deref(), &message.payload, offer) {
                Some((reason, left)) => Err(last.undelivered(reason, left, SENDER)),
                None => Ok(message.payload),
            };
        }
    };
    let reply = reply();
    conversation.close();
    reply
}

/// Why a message was not delivered, and how many addresses of its route were left, if this is the notice of that.
fn notice_of(tracing: Option<&str>, payload: &[u8], offer: Offer) -> Option<(DropReason, u8)> {
    let notice = tracing.and_then(Notice::parse)?;
    let is_ours = payload.is_empty() && notice.token == offer.token;
    is_ours.then(|| (DropReason::from_number(notice.reason).unwrap_or(DropReason::NotDelivered), notice.left))
}

fn too_large(bytes: usize) -> Error {
    Error::BadData {
        what: "the message".into(),
        why: format!("{bytes} bytes and its route do not fit the largest frame"),
        fix: format!("Send at most {FRAME_MAX} bytes, the route included."),
    }
}

/// The frame of a message to `onward`.
///
/// # Errors
/// It would be larger than a frame may be.
pub fn frame(
    onward: &[Address],
    reply_to: &[AddressRef<'_>],
    payload: &[u8],
    tracing: Option<&str>,
) -> Result<Vec<u8>, Error> {
    check_length(onward, reply_to, payload, tracing)?;
    let onward: Vec<AddressRef<'_>> = onward.iter().map(Address::as_ref).collect();
    Ok(outgoing(&onward, reply_to, payload, tracing).to_frame(payload))
}

/// Refuses what would be larger than a frame may be.
fn check_length(
    onward: &[Address],
    reply_to: &[AddressRef<'_>],
    payload: &[u8],
    tracing: Option<&str>,
) -> Result<(), Error> {
    let onward: Vec<AddressRef<'_>> = onward.iter().map(Address::as_ref).collect();
    match outgoing(&onward, reply_to, payload, tracing).body_len() {
        0..=FRAME_MAX => Ok(()),
        _ => Err(too_large(payload.len())),
    }
}

fn outgoing<'a>(
    onward: &'a [AddressRef<'a>],
    reply_to: &'a [AddressRef<'a>],
    payload: &[u8],
    tracing: Option<&'a str>,
) -> Outgoing<'a> {
    Outgoing {
        onward: RouteParts::new(onward),
        return_route: RouteParts::new(reply_to),
        payload_len: payload.len(),
        tracing,
    }
}

/// A TCP connection on which both sides have sent their preamble (`wire.md` A.1).
pub struct Link {
    stream: TcpStream,
    framer: Framer,
    /// The body of the frame that was received last: what [`Link::receive`] gives out borrows from it.
    body: Vec<u8>,
    chunk: Vec<u8>,
    peer: String,
}

impl Link {
    /// Connects to the first address of `hop` that answers as a node.
    ///
    /// # Errors
    /// The name does not resolve; or none of its addresses accepts or is a node, each with its reason.
    pub fn open(hop: &Hop, deadline: Deadline) -> Result<Link, Error> {
        let mut attempts = Vec::new();
        for address in resolve(hop, deadline)? {
            match Link::to(address, deadline) {
                Ok(stream) => {
                    return Ok(Link {
                        stream,
                        framer: Framer::new(),
                        body: Vec::new(),
                        chunk: vec![0; CHUNK_BYTES],
                        peer: format!("the node at {hop}"),
                    });
                }
                Err(failure) => attempts.push(Attempt { address, failure }),
            }
        }
        Err(Error::ConnectFailed { target: hop.to_string(), attempts })
    }

    fn to(address: SocketAddr, deadline: Deadline) -> Result<TcpStream, AttemptFailure> {
        let failure = |error: std::io::Error| match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => AttemptFailure::TimedOut,
            _ => AttemptFailure::Errno(error.raw_os_error().unwrap_or(0)),
        };
        let limit = || deadline.left().map(|left| left.min(DIAL_LIMIT)).ok_or(AttemptFailure::TimedOut);
        let mut stream = TcpStream::connect_timeout(&address, limit()?).map_err(failure)?;
        stream.set_nodelay(true).map_err(failure)?;
        stream.set_read_timeout(Some(limit()?)).map_err(failure)?;
        let mut first = [0];
        // Nothing but the preamble goes out before the peer's has come in: what listens there may not be a node.
        match stream.write_all(&[PREAMBLE]).and_then(|()| stream.read_exact(&mut first)) {
            Ok(()) if first == [PREAMBLE] => Ok(stream),
            _ => Err(AttemptFailure::NotANode),
        }
    }

    /// Sends a frame. `None` when the deadline passed first; the link is of no use then.
    ///
    /// # Errors
    /// The connection ended.
    pub fn send(&mut self, mut frame: &[u8], deadline: Deadline) -> Result<Option<()>, Error> {
        while !frame.is_empty() {
            let Some(left) = deadline.left() else { return Ok(None) };
            self.stream.set_write_timeout(Some(left)).map_err(|error| self.lost(&error))?;
            match self.stream.write(frame) {
                Ok(0) => return Err(self.lost(&ErrorKind::WriteZero.into())),
                Ok(count) => frame = &frame[count..],
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(self.lost(&error)),
            }
        }
        Ok(Some(()))
    }

    /// The next message. `None` when the deadline passed first.
    ///
    /// # Errors
    /// The connection ended, or what came is no message.
    pub fn receive(&mut self, deadline: Deadline) -> Result<Option<Message<'_>>, Error> {
        while !self.take_body()? {
            let Some(left) = deadline.left() else { return Ok(None) };
            self.stream.set_read_timeout(Some(left)).map_err(|error| self.lost(&error))?;
            match self.stream.read(&mut self.chunk) {
                Ok(0) => return Err(self.lost(&ErrorKind::UnexpectedEof.into())),
                Ok(count) => self.framer.push(&self.chunk[..count]),
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(self.lost(&error)),
            }
        }
        let peer = &self.peer;
        Message::parse(&self.body).map(Some).map_err(|malformed| Error::PeerMisbehaved {
            peer: peer.clone(),
            why: format!("sent a frame that is no message: {malformed}"),
        })
    }

    /// A second handle of the same connection, to send from another thread.
    ///
    /// # Errors
    /// The system has no more descriptors.
    pub fn sender(&self) -> Result<TcpStream, Error> {
        self.stream.try_clone().map_err(|error| self.lost(&error))
    }

    /// Moves the next whole frame out of the framer, if there is one.
    fn take_body(&mut self) -> Result<bool, Error> {
        let peer = &self.peer;
        let frame = self
            .framer
            .next()
            .map_err(|error: FrameError| Error::PeerMisbehaved { peer: peer.clone(), why: format!("sent {error}") })?;
        let Some(frame) = frame else { return Ok(false) };
        self.body.clear();
        self.body.extend_from_slice(frame);
        Ok(true)
    }

    fn lost(&self, error: &std::io::Error) -> Error {
        let why = match error.kind() {
            ErrorKind::UnexpectedEof => "the peer closed it".to_owned(),
            _ => crate::error::errno_text(error.raw_os_error().unwrap_or(0)),
        };
        Error::LinkLost { peer: self.peer.clone(), why }
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// All addresses of a hop, in the order that the resolver prefers.
fn resolve(hop: &Hop, deadline: Deadline) -> Result<Vec<SocketAddr>, Error> {
    let (host, port) = match hop {
        Hop::Socket(address) => return Ok(vec![*address]),
        Hop::Name(host, port) => (host.clone(), *port),
    };
    let unresolved = |why: String| Error::Unresolved { host: host.clone(), why };
    // The resolver of the system cannot be given a limit, so it has a thread that may outlive the answer.
    let (answer, answered) = mpsc::channel();
    let asked = host.clone();
    std::thread::spawn(move || {
        // Nobody listens any more when the limit has passed.
        let _ = answer.send((asked.as_str(), port).to_socket_addrs().map(Vec::from_iter));
    });
    let limit = deadline.left().unwrap_or_default().min(DIAL_LIMIT);
    match answered.recv_timeout(limit) {
        Ok(Ok(addresses)) if addresses.is_empty() => Err(unresolved("it has no address".into())),
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(error)) => Err(unresolved(resolver_text(&error))),
        Err(_) => Err(unresolved(format!(
            "no answer within {} ms (the limit is 5 s)",
            limit.min(deadline.within).as_millis()
        ))),
    }
}

fn resolver_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.rsplit(": ").next().unwrap_or(&text).to_lowercase()
}

/// The text in a payload, when the payload is exactly one string of the wire (`wire.md` 0.2).
pub fn text_of(payload: &[u8]) -> Option<&str> {
    let text = bare::read_string(payload).ok()?;
    (bare::uleb_len(text.len() as u64) + text.len() == payload.len()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    use std::net::TcpListener;

    fn route_to(listener: &TcpListener) -> Route {
        route_to_port(listener.local_addr().unwrap().port())
    }

    fn route_to_port(port: u16) -> Route {
        Route::new(&format!("/ip4/127.0.0.1/tcp/{port}/service/hop/service/echo").parse().unwrap(), "--to").unwrap()
    }

    /// A peer that sends its preamble, reads one message, answers with what `answer` makes of it, and closes.
    fn peer(listener: TcpListener, answer: impl FnOnce(&Message<'_>) -> Vec<u8> + Send + 'static) {
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&[PREAMBLE]).unwrap();
            stream.read_exact(&mut [0]).unwrap();
            let mut head = [0; 4];
            stream.read_exact(&mut head).unwrap();
            let mut body = vec![0; ockam_wire::frame_length(head).unwrap()];
            stream.read_exact(&mut body).unwrap();
            stream.write_all(&answer(&Message::parse(&body).unwrap())).unwrap();
        });
    }

    fn answered(answer: impl FnOnce(&Message<'_>) -> Vec<u8> + Send + 'static) -> Result<Vec<u8>, Error> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let route = route_to(&listener);
        peer(listener, answer);
        send(&route, b"payload", None, Duration::from_secs(20))
    }

    fn reply(message: &Message<'_>, payload: &[u8], tracing: Option<&str>) -> Vec<u8> {
        let onward: Vec<Address> = message.return_route.iter().map(AddressRef::to_address).collect();
        frame(&onward, &[AddressRef::local(b"x")], payload, tracing).unwrap()
    }

    #[test]
    fn the_reply_is_the_first_message_to_the_reply_address() {
        let got = answered(|message| {
            let onward: Vec<Vec<u8>> = message.onward.iter().map(|address| address.name.to_vec()).collect();
            assert_eq!(onward, [b"hop".to_vec(), b"echo".to_vec()]);
            assert_eq!(message.return_route.first().map(|address| address.name.len()), Some(32));
            assert!(Offer::parse(message.tracing.unwrap()).is_some());
            // A heartbeat and a message for somebody else come first.
            let mut frames = frame(&[], &[], b"", None).unwrap();
            frames.extend(frame(&[Address::local("somebody")], &[], b"no", None).unwrap());
            frames.extend(reply(message, message.payload, message.tracing));
            frames
        });
        assert_eq!(got.as_deref(), Ok(&b"payload"[..]));
    }

    #[test]
    fn a_notice_is_an_error_and_a_foreign_one_is_a_reply() {
        let notice = |message: &Message<'_>, flip: u8| {
            let mut token = Offer::parse(message.tracing.unwrap()).unwrap().token;
            token[0] ^= flip;
            reply(message, b"", Some(&Notice { token, reason: DropReason::NoSuchAddress as u8, left: 1 }.text()))
        };
        let got = answered(move |message| notice(message, 0));
        let Err(Error::Undelivered { step, place, reason }) = got else { panic!("{got:?}") };
        assert_eq!((step.as_str(), reason), ("/service/echo", DropReason::NoSuchAddress));
        assert!(place.starts_with("the node at 127.0.0.1:"), "{place}");
        assert_eq!(answered(move |message| notice(message, 1)), Ok(vec![]));
    }

    #[test]
    fn a_peer_that_closes_or_talks_nonsense_is_named() {
        assert!(matches!(answered(|_| vec![]), Err(Error::LinkLost { .. })));
        assert!(matches!(answered(|_| vec![0, 0, 0, 0]), Err(Error::PeerMisbehaved { .. })));
        assert!(matches!(answered(|_| vec![0xff; 4]), Err(Error::PeerMisbehaved { .. })));
        assert!(matches!(answered(|_| vec![0, 0, 0, 1, 0xff]), Err(Error::PeerMisbehaved { .. })));
    }

    #[test]
    fn what_is_not_a_node_gets_the_preamble_only() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let route = route_to(&listener);
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"SSH-2.0-x\r\n").unwrap();
            // It may be over by then.
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut got = Vec::new();
            // Bytes that were not read when the other side closed make this end with a reset instead.
            let _ = stream.read_to_end(&mut got);
            got
        });
        let Err(Error::ConnectFailed { attempts, .. }) = send(&route, b"secret", None, Duration::from_secs(20)) else {
            panic!("it was taken for a node");
        };
        assert_eq!(attempts[0].failure, AttemptFailure::NotANode);
        assert!(matches!(server.join().unwrap().as_slice(), [] | [PREAMBLE]));
    }

    #[test]
    fn a_refused_connection_names_the_address() {
        // A socket that never listens, so that nobody else can at its port, nor is there a copy of one that does.
        let socket =
            rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address: SocketAddr = rustix::net::getsockname(&socket).unwrap().try_into().unwrap();
        let route = route_to_port(address.port());
        let refused = rustix::io::Errno::CONNREFUSED.raw_os_error();
        assert_eq!(
            send(&route, b"", None, Duration::from_secs(20)),
            Err(Error::ConnectFailed {
                target: address.to_string(),
                attempts: vec![Attempt { address, failure: AttemptFailure::Errno(refused) }],
            })
        );
    }

    #[test]
    fn silence_ends_at_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let route = route_to(&listener);
        let silent = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&[PREAMBLE]).unwrap();
            stream.read_to_end(&mut Vec::new()).unwrap();
        });
        assert!(matches!(
            // Long enough for the version byte to come.
            send(&route, b"x", None, Duration::from_secs(3)),
            Err(Error::NoReply { timeout_ms: 3000, .. })
        ));
        silent.join().unwrap();
    }

    #[test]
    fn a_message_above_a_frame_is_refused_before_anything_is_dialed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let route = route_to(&listener);
        let payload = vec![0; FRAME_MAX];
        assert!(matches!(send(&route, &payload, None, Duration::from_secs(20)), Err(Error::BadData { .. })));
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn text_is_exactly_one_string() {
        assert_eq!(text_of(b"\x05hello"), Some("hello"));
        assert_eq!(text_of(b"\x00"), Some(""));
        for payload in [&b""[..], b"hello", b"\x04hello", b"\x06hello", b"\x01\xff"] {
            assert_eq!(text_of(payload), None, "{payload:?}");
        }
    }
}
