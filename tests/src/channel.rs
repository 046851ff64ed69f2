//! Secure channels as a peer speaks them: identities, both roles of the handshake, and each record as bytes, so that a
//! test can hold it back, repeat it, change it, or send it by another way.

use crate::{Peer, Received, addresses, frame_to};
use ockam_crypto::{
    Attestation, ChangeHistory, Claim, Claimed, Established, ExpectMessage2, ExpectMessage3, KEY_LIFETIME_SECS,
    OpenError, Opener, OutgoingPlaintext, Plaintext, PurposePublicKey, Sealer, Secret, SigningKey, Validity, X25519Key,
    accept, encode_payload, initiate,
};
use ockam_wire::{Address, AddressRef, Outgoing, RouteParts};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds of Unix time.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right").as_secs()
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    assert_eq!(filled, Ok(N), "the kernel has random bytes");
    bytes
}

/// A name like those that nodes make up: 32 hexadecimal digits.
pub fn random_name() -> String {
    random::<16>().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Somebody, with the key and the payload of their handshakes. Both can be replaced by what is somebody else's.
pub struct Identity {
    /// Who it is.
    pub history: ChangeHistory,
    /// What signs for it.
    pub signing_key: SigningKey,
    /// The key of its channels.
    pub static_key: X25519Key,
    /// What it says about itself (`wire.md` E.3).
    pub payload: Vec<u8>,
}

impl Default for Identity {
    fn default() -> Identity {
        Identity::new()
    }
}

impl Identity {
    /// A new one, whose key is attested for a day.
    pub fn new() -> Identity {
        Identity::expiring_in(24 * 3600)
    }

    /// A new one, whose key is attested for that many seconds from now.
    pub fn expiring_in(seconds: u64) -> Identity {
        let signing_key = SigningKey::new(Secret::new(random()));
        let from = now() - 3600;
        let validity = Validity { from, until: from + KEY_LIFETIME_SECS };
        let history = ChangeHistory::create(&signing_key, validity).expect("a validity that ends after it begins");
        let static_key = X25519Key::new(Secret::new(random()));
        let mut identity = Identity { history, signing_key, static_key, payload: Vec::new() };
        let key = PurposePublicKey::SecureChannel(*identity.static_key.public());
        identity.payload = identity.payload_for(key, from, now() + seconds);
        identity
    }

    /// The same one with another key. Whoever knows this knows that `self` is outdated.
    pub fn rotated(&self) -> Identity {
        let signing_key = SigningKey::new(Secret::new(random()));
        let validity = Validity { from: now() - 1800, until: now() + KEY_LIFETIME_SECS };
        let history = self.history.rotate(&self.signing_key, &signing_key, validity).expect("a rotation");
        let static_key = X25519Key::new(Secret::new(random()));
        let mut identity = Identity { history, signing_key, static_key, payload: Vec::new() };
        let key = PurposePublicKey::SecureChannel(*identity.static_key.public());
        identity.payload = identity.payload_for(key, now() - 60, now() + 3600);
        identity
    }

    /// A payload in which this identity vouches for any key, for the seconds of Unix time from `from` to `until`.
    #[track_caller]
    pub fn payload_for(&self, key: PurposePublicKey, from: u64, until: u64) -> Vec<u8> {
        encode_payload(&self.history, &self.attestation(key, from, until), &[])
    }

    /// From now on it shows these credentials in its handshakes.
    #[track_caller]
    pub fn show(&mut self, credentials: &[&[u8]]) {
        let key = PurposePublicKey::SecureChannel(*self.static_key.public());
        let attestation = self.attestation(key, now() - 60, now() + 24 * 3600);
        self.payload = encode_payload(&self.history, &attestation, credentials);
    }

    /// This identity's word for any key.
    #[track_caller]
    pub fn attestation(&self, key: PurposePublicKey, from: u64, until: u64) -> Attestation {
        Attestation::create(&self.history, &self.signing_key, key, from, until).expect("an attestation")
    }

    /// The text of its identifier.
    pub fn identifier(&self) -> String {
        self.history.identifier().to_string()
    }
}

/// What takes messages somewhere and brings others back: a connection, or a channel inside of one.
pub trait Carrier {
    /// Sends a message.
    fn transmit(&mut self, onward: &[Address], back: &[Address], payload: &[u8]);
    /// The next message, which must come.
    fn receive(&mut self) -> Received;
}

impl Carrier for Peer {
    #[track_caller]
    fn transmit(&mut self, onward: &[Address], back: &[Address], payload: &[u8]) {
        self.send(&frame_to(onward, back, payload));
    }

    #[track_caller]
    fn receive(&mut self) -> Received {
        Peer::receive(self)
    }
}

/// A channel as the carrier of others.
pub struct Through<'a, C> {
    /// What carries the channel.
    pub carrier: &'a mut C,
    /// The channel.
    pub channel: &'a mut Channel,
}

impl<C: Carrier> Carrier for Through<'_, C> {
    #[track_caller]
    fn transmit(&mut self, onward: &[Address], back: &[Address], payload: &[u8]) {
        let record = self.channel.seal_to(onward, back, payload);
        self.carrier.transmit(&self.channel.way, &[], &record);
    }

    #[track_caller]
    fn receive(&mut self) -> Received {
        let received = self.carrier.receive();
        match self.channel.open(&received.payload) {
            Ok(Inner::Message(message)) => message,
            other => panic!("no message came out of the channel: {other:?}"),
        }
    }
}

/// What a record said.
#[derive(Debug, PartialEq)]
pub enum Inner {
    /// A message.
    Message(Received),
    /// New credentials.
    Refresh,
    /// The other end is done.
    Close,
}

/// This end of a channel.
pub struct Channel {
    /// The name at which this end receives.
    pub decryptor: String,
    /// Where the other end receives, as this end's carrier gets there.
    pub way: Vec<Address>,
    /// Who is at the other end; verified.
    pub peer: String,
    /// The same on both ends and on no other channel.
    pub hash: [u8; 32],
    sealer: Sealer,
    opener: Opener,
}

impl Channel {
    #[track_caller]
    fn new(decryptor: String, way: Vec<Address>, claimed: &Claimed, established: Established) -> Channel {
        let claim = Claim::parse(&claimed.payload).expect("the node says who it is");
        let peer = claim.authenticate(&claimed.static_key, None, now()).expect("the node is who it says");
        Channel {
            decryptor,
            way,
            peer: peer.identifier().to_string(),
            hash: established.hash,
            sealer: Sealer::new(established.sealing_key),
            opener: Opener::new(established.opening_key),
        }
    }

    /// The next record, with this text.
    #[track_caller]
    pub fn seal_text(&mut self, text: &[u8]) -> Vec<u8> {
        self.sealer.seal(text).expect("a channel of a test does not live that long")
    }

    /// The next record, with this message.
    #[track_caller]
    pub fn seal(&mut self, onward: &[&str], back: &[&str], payload: &[u8]) -> Vec<u8> {
        self.seal_to(&addresses(onward), &addresses(back), payload)
    }

    #[track_caller]
    fn seal_to(&mut self, onward: &[Address], back: &[Address], payload: &[u8]) -> Vec<u8> {
        let onward: Vec<AddressRef<'_>> = onward.iter().map(Address::as_ref).collect();
        let back: Vec<AddressRef<'_>> = back.iter().map(Address::as_ref).collect();
        let (onward, return_route) = (RouteParts::new(&onward), RouteParts::new(&back));
        let message = Outgoing { onward, return_route, payload_len: payload.len(), tracing: None };
        self.seal_text(&OutgoingPlaintext::new(message).to_text(payload))
    }

    /// A frame that carries a record to the other end, by the way that is known.
    pub fn frame(&self, record: &[u8]) -> Vec<u8> {
        frame_to(&self.way, &[], record)
    }

    /// A frame with the next message.
    #[track_caller]
    pub fn frame_with(&mut self, onward: &[&str], back: &[&str], payload: &[u8]) -> Vec<u8> {
        let record = self.seal(onward, back, payload);
        self.frame(&record)
    }

    /// How many records this end has sealed.
    pub fn sealed(&self) -> u64 {
        self.sealer.sealed()
    }

    /// Opens a record.
    ///
    /// # Errors
    /// When it is not genuine, not new or too far away.
    #[track_caller]
    pub fn open(&mut self, record: &[u8]) -> Result<Inner, OpenError> {
        let mut record = record.to_vec();
        let opened = self.opener.open_in_place(&mut record)?;
        Ok(match Plaintext::parse(opened.text).expect("the node seals messages") {
            Plaintext::Payload(message) => Inner::Message(Received {
                onward: message.onward.iter().map(AddressRef::to_address).collect(),
                back: message.return_route.iter().map(AddressRef::to_address).collect(),
                payload: message.payload.to_vec(),
            }),
            Plaintext::RefreshCredentials => Inner::Refresh,
            Plaintext::Close => Inner::Close,
        })
    }

    /// The next thing that comes out of this channel. It must be the next thing on the carrier.
    #[track_caller]
    pub fn receive(&mut self, carrier: &mut impl Carrier) -> Inner {
        let received = carrier.receive();
        assert_eq!(received.onward, addresses(&[&self.decryptor]), "this is not for this channel");
        let inner = self.open(&received.payload);
        let inner = inner.unwrap_or_else(|error| panic!("the node sealed what does not open: {error}"));
        // The way back is inside. A Close may say where it came from, as those of real nodes do (`wire.md` E.5).
        assert!(received.back.is_empty() || inner == Inner::Close, "a sealed frame shows a return route");
        inner
    }

    /// The next message that comes out of this channel.
    #[track_caller]
    pub fn receive_message(&mut self, carrier: &mut impl Carrier) -> Received {
        match self.receive(carrier) {
            Inner::Message(message) => message,
            other => panic!("no message came out of the channel: {other:?}"),
        }
    }

    /// Sends a payload to `echo` behind the other end, and checks that it comes back next.
    #[track_caller]
    pub fn echoes(&mut self, carrier: &mut impl Carrier, payload: &[u8]) {
        let record = self.seal(&["echo"], &["me"], payload);
        carrier.transmit(&self.way, &[], &record);
        let answer = self.receive_message(carrier);
        assert_eq!(answer.onward, addresses(&["me"]));
        assert!(answer.payload == payload, "{} bytes went out, {} came back", payload.len(), answer.payload.len());
    }
}

/// The initiator of a handshake, behind message 1.
pub struct Initiator {
    /// The name at which it receives.
    pub decryptor: String,
    /// Message 1.
    pub message_1: [u8; 32],
    state: ExpectMessage2,
}

impl Default for Initiator {
    fn default() -> Initiator {
        Initiator::new()
    }
}

impl Initiator {
    /// Begins a handshake. Nothing is sent.
    pub fn new() -> Initiator {
        let (message_1, state) = initiate(Secret::new(random()));
        Initiator { decryptor: random_name(), message_1, state }
    }

    /// A frame with message 1 to a listener.
    pub fn frame(&self, listener: &[&str]) -> Vec<u8> {
        crate::frame(listener, &[&self.decryptor], &self.message_1)
    }

    /// Sends message 1 and takes message 2.
    #[track_caller]
    pub fn exchange(self, carrier: &mut impl Carrier, listener: &[&str]) -> (Initiator, Received) {
        carrier.transmit(&addresses(listener), &addresses(&[&self.decryptor]), &self.message_1);
        let received = carrier.receive();
        assert_eq!(received.onward, addresses(&[&self.decryptor]), "message 2 comes to where message 1 came from");
        (self, received)
    }

    /// Reads message 2 and gives message 3 and the channel that it opens.
    #[track_caller]
    pub fn finish(self, message_2: Received, identity: &Identity) -> (Vec<u8>, Channel) {
        let (claimed, ready) = self.state.read(&message_2.payload).expect("message 2 answers message 1");
        let (message_3, established) = ready.write(&identity.static_key, &identity.payload).expect("message 3");
        (message_3, Channel::new(self.decryptor, message_2.back, &claimed, established))
    }

    /// Opens a channel to a listener. That the node accepted it is known with the first answer.
    #[track_caller]
    pub fn open(carrier: &mut impl Carrier, listener: &[&str], identity: &Identity) -> Channel {
        let (handshake, message_2) = Initiator::new().exchange(carrier, listener);
        let (message_3, channel) = handshake.finish(message_2, identity);
        carrier.transmit(&channel.way, &addresses(&[&channel.decryptor]), &message_3);
        channel
    }
}

/// How a [`Responder`] ends a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Opens the channel and answers what is sent to `echo` through it.
    Serves,
    /// Answers the handshake, then one sealed Close.
    Refuses,
    /// Answers the handshake and nothing more.
    KeepsSilent,
    /// Reads and answers nothing at all.
    IsDead,
}

/// A peer that waits for channels at a TCP port.
pub struct Responder {
    /// Where.
    pub address: SocketAddr,
    listener: TcpListener,
}

impl Default for Responder {
    fn default() -> Responder {
        Responder::new()
    }
}

impl Responder {
    /// Takes a free port of 127.0.0.1.
    pub fn new() -> Responder {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        Responder { address: listener.local_addr().expect("a bound socket has an address"), listener }
    }

    /// The route of its listener for channels.
    pub fn route(&self) -> String {
        format!("/ip4/127.0.0.1/tcp/{}/service/api", self.address.port())
    }

    /// The next connection.
    #[track_caller]
    pub fn link(&self) -> Peer {
        Peer::on(self.listener.accept().expect("a connection").0)
    }

    /// Answers message 1: what waits for message 3, this end's name, and the way back.
    #[track_caller]
    pub fn answer(
        carrier: &mut impl Carrier,
        message_1: Received,
        identity: &Identity,
    ) -> (ExpectMessage3, String, Vec<Address>) {
        assert_eq!(message_1.onward.last(), addresses(&["api"]).last(), "message 1 goes to the listener");
        let ready = accept(&message_1.payload).expect("message 1");
        let payload = &identity.payload;
        let (message_2, state) = ready.write(&identity.static_key, Secret::new(random()), payload).expect("message 2");
        let decryptor = random_name();
        carrier.transmit(&message_1.back, &addresses(&[&decryptor]), &message_2);
        (state, decryptor, message_1.back)
    }

    /// Answers a whole handshake and gives this end of the channel; `None` when the initiator left before its end.
    #[track_caller]
    pub fn accept(peer: &mut Peer, identity: &Identity) -> Option<Channel> {
        let message_1 = peer.receive_or_end()?;
        let (state, decryptor, way) = Responder::answer(peer, message_1, identity);
        let message_3 = peer.receive_or_end()?;
        assert_eq!(message_3.onward, addresses(&[&decryptor]), "message 3 goes to where message 2 came from");
        let (claimed, established) = state.read(&message_3.payload).expect("message 3 answers message 2");
        Some(Channel::new(decryptor, way, &claimed, established))
    }

    /// Serves each connection in a thread of its own, one channel on each. Says the identifier of each peer whose
    /// channel it opened.
    pub fn start(self, identity: Identity, manner: Manner) -> Served {
        let (tell, peers) = mpsc::channel();
        let (address, route) = (self.address, self.route());
        let identity = Arc::new(identity);
        std::thread::spawn(move || {
            for stream in self.listener.incoming() {
                let Ok(stream) = stream else { return };
                let (identity, tell) = (identity.clone(), tell.clone());
                std::thread::spawn(move || serve(stream, &identity, manner, &tell));
            }
        });
        Served { address, route, peers }
    }
}

/// Serves one connection to its end.
fn serve(stream: TcpStream, identity: &Identity, manner: Manner, tell: &mpsc::Sender<String>) {
    let mut peer = Peer::on(stream);
    // It waits for as long as the other side likes.
    peer.stream.set_read_timeout(None).expect("a timeout can be removed");
    if manner != Manner::IsDead
        && let Some(mut channel) = Responder::accept(&mut peer, identity)
    {
        // Nobody may want to know.
        let _ = tell.send(channel.peer.clone());
        match manner {
            Manner::Refuses => {
                let close = channel.seal_text(&ockam_crypto::CLOSE);
                peer.send(&channel.frame(&close));
            }
            Manner::Serves => serve_echo(&mut peer, &mut channel),
            Manner::KeepsSilent | Manner::IsDead => {}
        }
    }
    while peer.receive_or_end().is_some() {}
}

/// Answers what comes to `echo` through a channel, until the connection or the channel ends.
fn serve_echo(peer: &mut Peer, channel: &mut Channel) {
    while let Some(received) = peer.receive_or_end() {
        match channel.open(&received.payload) {
            Ok(Inner::Message(message)) if message.onward == addresses(&["echo"]) => {
                let answer = channel.seal_to(&message.back, &addresses(&["echo"]), &message.payload);
                // Who asked may be gone meanwhile.
                let _ = peer.stream.write_all(&channel.frame(&answer));
            }
            Ok(Inner::Close) => return,
            _ => {}
        }
    }
}

/// A [`Responder`] at work.
pub struct Served {
    /// Where it listens.
    pub address: SocketAddr,
    /// The route of its listener for channels.
    pub route: String,
    /// The identifier of each peer whose handshake came to its end.
    pub peers: mpsc::Receiver<String>,
}

impl Served {
    /// Whom it met next.
    #[track_caller]
    pub fn met(&self) -> String {
        self.peers.recv_timeout(crate::PATIENCE).expect("somebody opens a channel")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Direction, Middle, flipped};

    #[test]
    fn the_peers_of_tests_understand_each_other() {
        let (one, two) = (Identity::new(), Identity::new());
        let names = (one.identifier(), two.identifier());
        let served = Responder::new().start(two, Manner::Serves);
        let mut peer = Peer::connect(served.address);
        let mut channel = Initiator::open(&mut peer, &["api"], &one);
        assert_eq!((served.met(), channel.peer.clone()), names);
        for length in [0, 1, 15, 16, 4096, 300_000] {
            channel.echoes(&mut peer, &crate::noise(length, 1));
        }
        for number in 0..100_u8 {
            channel.echoes(&mut peer, &[number]);
        }
    }

    #[test]
    fn the_middle_sees_and_changes_frames() {
        let served = Responder::new().start(Identity::new(), Manner::Serves);
        let middle = Middle::before(served.address);
        let mut peer = middle.connect();
        let mut channel = Initiator::open(&mut peer, &["api"], &Identity::new());
        channel.echoes(&mut peer, b"one");
        assert_eq!(middle.captured().len(), 5, "three messages, one to echo, and its answer");
        assert!(middle.saw(channel.decryptor.as_bytes()) && !middle.saw(b"one"));
        let mut left = 1;
        middle.rule(move |direction, frame| match direction {
            Direction::Onward if std::mem::take(&mut left) == 1 => vec![flipped(frame, 100)],
            _ => vec![frame.clone(), frame],
        });
        peer.send(&channel.frame_with(&["echo"], &["me"], b"changed on its way"));
        // It comes twice, and is answered once, twice.
        channel.echoes(&mut peer, b"as it was");
        let again = Carrier::receive(&mut peer);
        assert_eq!(channel.open(&again.payload), Err(OpenError::Replayed));
    }
}
