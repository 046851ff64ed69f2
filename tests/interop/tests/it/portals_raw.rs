//! One end of a portal, and at the other end a peer that speaks the wire itself (`wire.md` F.1, F.2, F.4): what the end
//! sends, to the byte, what it must accept, and what must not harm it. Each check holds a real node and ours.

use ockam_interop::{Client, Kind, PATIENCE, PortalNode, noise, over_tcp};
use ockam_tests::{Carrier, Channel, ClosedPort, Identity, Initiator, Inner, Peer, Received, Responder, addresses};
use ockam_wire::Address;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

/// Runs each named check with an end on a real node and on ours, in a secure channel and without.
macro_rules! ends {
    ($open:ident: $($(#[$attribute:meta])* $check:ident),* $(,)?) => {$(
        $(#[$attribute])*
        mod $check {
            use super::{$check as check, $open as open};
            use ockam_interop::Kind;

            mod real {
                use super::{Kind, check, open};

                #[test]
                fn plain() {
                    check(open(Kind::Real, false));
                }

                #[test]
                fn sealed() {
                    check(open(Kind::Real, true));
                }
            }

            mod ours {
                use super::{Kind, check, open};

                #[test]
                fn plain() {
                    check(open(Kind::Ours, false));
                }

                #[test]
                fn sealed() {
                    check(open(Kind::Ours, true));
                }
            }
        }
    )*};
}

ends!(
    outlet:
    an_outlet_in_full,
    an_outlet_accepts,
    an_outlet_drops,
    an_outlet_refuses_a_hole_between_payloads,
    an_outlet_is_told_of_the_end,
    an_outlet_takes_only_pings,
    an_offer_to_an_outlet,
    an_outlet_of_a_dead_target,
);

ends!(
    inlet:
    an_inlet_in_full,
    an_inlet_accepts,
    an_inlet_drops,
    an_inlet_refuses_a_hole_between_payloads,
    an_inlet_tells_of_the_end,
    an_inlet_tells_of_half_an_end,
    an_inlet_whose_outlet_fails,
);

const PING: u8 = 0;
const PONG: u8 = 1;
const DISCONNECT: u8 = 2;

/// What our ends put behind a Ping, and behind the Pong that answers it (`docs/wire-extensions.md`); then a number follows.
const OFFER: &[u8] = b"flow\x01";

/// The message with this data, as everybody writes it.
fn payload(data: &[u8]) -> Vec<u8> {
    let mut message = vec![3];
    ockam_wire::bare::write_uleb(data.len() as u64, &mut message);
    [&message, data].concat()
}

/// A connection to the node of the other end, and the secure channel on it, if there is one.
struct Road {
    link: Peer,
    channel: Option<Channel>,
    probes: u32,
}

impl Road {
    /// Sends a message.
    fn send(&mut self, onward: &[Address], back: &[Address], payload: &[u8]) {
        match &mut self.channel {
            None => self.link.transmit(onward, back, payload),
            Some(channel) => ockam_tests::Through { carrier: &mut self.link, channel }.transmit(onward, back, payload),
        }
    }

    /// The next message but those that ask whether this end lives, which are answered.
    fn next(&mut self) -> Received {
        let since = Instant::now();
        loop {
            let received = self.link.receive();
            assert!(since.elapsed() < PATIENCE, "nothing but questions whether this end lives");
            let message = match &mut self.channel {
                Some(channel) if received.onward == addresses(&[&channel.decryptor]) => {
                    match channel.open(&received.payload).expect("a genuine record") {
                        Inner::Message(message) => message,
                        other => panic!("{other:?} came out of the channel"),
                    }
                }
                _ => received,
            };
            if message.onward != addresses(&["echo"]) {
                return message;
            }
            self.send(&message.back, &addresses(&["echo"]), &message.payload);
        }
    }

    /// Shows that nothing else is on its way: the node answers an echo over the link, and the answer is the next message.
    #[track_caller]
    fn assert_silent(&mut self) {
        self.probes += 1;
        let question = format!("still there? {}", self.probes);
        self.link.transmit(&addresses(&["echo"]), &addresses(&["probe"]), question.as_bytes());
        let answer = self.next();
        let expected = (addresses(&["probe"]), question.as_str().into());
        assert_eq!((answer.onward, String::from_utf8_lossy(&answer.payload)), expected);
    }
}

/// An outlet of a node, and the road of an inlet that is played here.
struct Outlet {
    kind: Kind,
    node: PortalNode,
    road: Road,
    /// Where it dials.
    target: TcpListener,
}

/// Where the inlet that is played here receives.
const NEAR: &str = "77777777777777777777777777777777";

fn outlet(kind: Kind, sealed: bool) -> Outlet {
    let (node, target) = (PortalNode::start(kind), TcpListener::bind("127.0.0.1:0").expect("bind a free port"));
    node.outlet("outlet", target.local_addr().expect("a bound socket has an address"));
    let mut link = Peer::connect(node.address());
    let channel = sealed.then(|| Initiator::open(&mut link, &["api"], &Identity::new()));
    Outlet { kind, node, road: Road { link, channel, probes: 0 }, target }
}

impl Outlet {
    /// Has it dial, with this behind the Ping. Gives the address of the session, the target's end, and what was behind the
    /// Pong.
    #[track_caller]
    fn connect(&mut self, extension: &[u8]) -> (Vec<Address>, TcpStream, Vec<u8>) {
        self.road.send(&addresses(&["outlet"]), &addresses(&[NEAR]), &[&[PING], extension].concat());
        let (stream, _) = self.target.accept().expect("the outlet dials");
        stream.set_read_timeout(Some(PATIENCE)).expect("set a read timeout");
        let pong = self.road.next();
        assert_eq!((pong.onward, pong.payload[0]), (addresses(&[NEAR]), PONG));
        let [session] = &pong.back[..] else { panic!("{:?} is one address", pong.back) };
        assert_random(session);
        (pong.back, stream, pong.payload[1..].to_vec())
    }

    /// Sends a message to a session.
    fn send(&mut self, session: &[Address], message: &[u8]) {
        self.road.send(session, &addresses(&[NEAR]), message);
    }

    /// The next message is this one, from this session.
    #[track_caller]
    fn expect(&mut self, session: &[Address], message: &[u8]) {
        let received = self.road.next();
        assert_eq!((received.onward, received.back), (addresses(&[NEAR]), session.to_vec()));
        assert_eq!(hex::encode(received.payload), hex::encode(message));
    }
}

/// A.4.
#[track_caller]
fn assert_random(address: &Address) {
    let digits = address.name.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b));
    assert!(address.kind == 0 && address.name.len() == 32 && digits, "{address} is a random address");
}

#[track_caller]
fn read(stream: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    if let Err(e) = stream.read_exact(&mut bytes) {
        panic!("{len} bytes expected: {e}");
    }
    bytes
}

/// The stream ends, without another byte.
#[track_caller]
fn assert_ended(stream: &mut TcpStream) {
    match stream.read(&mut [0]) {
        Ok(0) => {}
        Ok(_) => panic!("a byte came instead of the end"),
        Err(e) => assert_eq!(e.kind(), ErrorKind::ConnectionReset, "the connection ends"),
    }
}

/// Nothing from behind the hole that follows "ab". Ours resets the connection, which may take what was not read with it: the
/// application shall not think that this was all.
#[track_caller]
fn assert_ended_before_the_hole(stream: &mut TcpStream) {
    let mut got = Vec::new();
    if let Err(e) = stream.read_to_end(&mut got) {
        assert_eq!(e.kind(), ErrorKind::ConnectionReset, "the connection ends");
    }
    assert!(b"ab".starts_with(&got), "{:?}", String::from_utf8_lossy(&got));
}

/// F.8: Ping, Pong, data both ways, the target's end. Nothing else is sent.
fn an_outlet_in_full(mut outlet: Outlet) {
    let (session, mut target, extension) = outlet.connect(b"");
    assert_eq!(extension, b"", "nothing was offered");
    outlet.road.assert_silent();
    outlet.send(&session, b"\x03\x05hello");
    assert_eq!(read(&mut target, 5), b"hello");
    target.write_all(b"answer").expect("the outlet reads");
    outlet.expect(&session, b"\x03\x06answer");
    outlet.road.assert_silent();
    // Another connection beside it.
    let (other, mut second, _) = outlet.connect(b"");
    assert_ne!(session, other);
    outlet.send(&other, &payload(b"two"));
    assert_eq!(read(&mut second, 3), b"two");
    second.write_all(b"second").expect("the outlet reads");
    outlet.expect(&other, &payload(b"second"));
    drop(target);
    outlet.expect(&session, &[DISCONNECT]);
    outlet.road.assert_silent();
    second.write_all(&[7; 200]).expect("the outlet reads");
    outlet.expect(&other, &payload(&[7; 200]));
}

/// What a sender may do although none does (F.1): lengths in a longer form, nothing as data, bytes behind it that are no
/// counter or the right one, and much in one message. Ping and Pong of later are nothing.
fn an_outlet_accepts(mut outlet: Outlet) {
    let (session, mut target, _) = outlet.connect(b"");
    let mut send = |message: &[u8]| outlet.send(&session, message);
    send(b"\x03\x85\x80\x00hello");
    send(b"\x03\x00");
    send(b"\x03\x01a\x00");
    send(b"\x03\x01b\x01\x07");
    send(b"\x03\x01c\x00\x07\x00");
    send(b"\x03\x01d\x02\x07\x00\x00");
    send(&[PING]);
    send(&[PONG]);
    send(b"\x03\x01e");
    let much = noise(200_000, 1);
    send(&payload(&much));
    assert_eq!(read(&mut target, 10), b"helloabcde");
    assert!(read(&mut target, much.len()) == much);
    outlet.road.assert_silent();
    let (counted, mut target, _) = outlet.connect(b"");
    for n in 0..300u16 {
        let number = n.to_le_bytes();
        outlet.send(&counted, &[3, 2, number[0], number[1], 1, number[0], number[1]]);
        assert_eq!(read(&mut target, 2), number);
    }
    outlet.road.assert_silent();
}

/// What says nothing is dropped, and harms neither the session nor others.
fn an_outlet_drops(mut outlet: Outlet) {
    let (session, mut target, _) = outlet.connect(b"");
    for message in [
        &b""[..],
        b"\x07",
        b"\xff",
        b"\x03",
        b"\x03\x05hell",
        b"\x03\x85\x80",
        b"\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02a",
    ] {
        outlet.send(&session, message);
    }
    // Behind the session's own address there is nothing to go to.
    let beyond = [&session[..], &addresses(&["echo"])].concat();
    outlet.send(&beyond, b"\x03\x01x");
    outlet.send(&session, b"\x03\x02ok");
    assert_eq!(read(&mut target, 2), b"ok");
    outlet.road.assert_silent();
}

/// F.1: payloads that are counted must be all there.
fn an_outlet_refuses_a_hole_between_payloads(mut outlet: Outlet) {
    let (session, mut target, _) = outlet.connect(b"");
    outlet.send(&session, b"\x03\x01a\x01\x00\x00");
    outlet.send(&session, b"\x03\x01b\x01\x01\x00");
    outlet.send(&session, b"\x03\x01d\x01\x03\x00");
    outlet.send(&session, b"\x03\x01e\x01\x04\x00");
    outlet.expect(&session, &[DISCONNECT]);
    assert_ended_before_the_hole(&mut target);
    outlet.road.assert_silent();
}

/// F.4: a Disconnect ends the target's connection, behind what came before. It has no answer.
fn an_outlet_is_told_of_the_end(mut outlet: Outlet) {
    let (session, mut target, _) = outlet.connect(b"");
    let much = noise(1 << 20, 2);
    for part in much.chunks(100_000) {
        outlet.send(&session, &payload(part));
    }
    outlet.send(&session, &[DISCONNECT]);
    assert!(read(&mut target, much.len()) == much);
    assert_ended(&mut target);
    outlet.road.assert_silent();
    // Nobody is left at this address, and the outlet connects again.
    outlet.send(&session, b"\x03\x01x");
    outlet.road.assert_silent();
    let (session, mut target, _) = outlet.connect(b"");
    outlet.send(&session, b"\x03\x02ok");
    assert_eq!(read(&mut target, 2), b"ok");
}

/// The address of the outlet itself is for Pings (F.2).
fn an_outlet_takes_only_pings(mut outlet: Outlet) {
    for message in [&[PONG][..], &[DISCONNECT], b"\x03\x05hello", b"", b"\x07"] {
        outlet.send(&addresses(&["outlet"]), message);
        outlet.road.assert_silent();
    }
    let (session, mut target, _) = outlet.connect(b"");
    outlet.send(&session, b"\x03\x02ok");
    assert_eq!(read(&mut target, 2), b"ok", "the first connection is the one that was asked for");
}

/// An extension behind a Ping changes nothing for a real node (N.1) and for ours when it is not ours. Ours answers its own
/// kind of offer, and then speaks accordingly.
fn an_offer_to_an_outlet(mut outlet: Outlet) {
    for extension in [&b"\0EXT"[..], b"flow\x02\0\x01\0\0", b"flow\x01\0\x01", b"flow"] {
        let (session, mut target, behind) = outlet.connect(extension);
        assert_eq!(behind, b"", "behind the Pong that answers {extension:?}");
        outlet.send(&session, b"\x03\x05hello");
        assert_eq!(read(&mut target, 5), b"hello");
        target.write_all(b"answer").expect("the outlet reads");
        outlet.expect(&session, b"\x03\x06answer");
        // An end of half the connection is the end of all.
        target.shutdown(Shutdown::Write).expect("shut down the writing side");
        outlet.expect(&session, &[DISCONNECT]);
        assert_ended(&mut target);
        outlet.road.assert_silent();
    }
    let (_session, _target, behind) = outlet.connect(b"flow\x01\0\x01\0\0");
    match outlet.kind {
        Kind::Real => assert_eq!(behind, b""),
        Kind::Ours => assert!(behind.starts_with(OFFER) && behind.len() == OFFER.len() + 4, "{behind:?}"),
    }
}

/// A real outlet says nothing when nobody is at its target (F.2), so nobody can tell from a slow one. Ours answers, and ends
/// the session (decision of ours): every kind of inlet understands that.
fn an_outlet_of_a_dead_target(mut outlet: Outlet) {
    let dead = ClosedPort::new();
    outlet.node.outlet("dead", dead.address());
    outlet.road.send(&addresses(&["dead"]), &addresses(&[NEAR]), &[PING]);
    if outlet.kind == Kind::Ours {
        let pong = outlet.road.next();
        assert_eq!((pong.onward, &pong.payload[..]), (addresses(&[NEAR]), &[PONG][..]));
        outlet.expect(&pong.back, &[DISCONNECT]);
        // It serves others.
        let (session, mut target, _) = outlet.connect(b"");
        outlet.send(&session, b"\x03\x02ok");
        assert_eq!(read(&mut target, 2), b"ok");
        outlet.road.assert_silent();
    } else {
        outlet.road.assert_silent();
    }
}

/// An inlet of a node, the road of an outlet that is played here, and a client of the inlet that has asked for something.
struct Inlet {
    // Lives as long as its inlet is looked at.
    _node: PortalNode,
    road: Road,
    /// Where it listens.
    address: SocketAddr,
    client: TcpStream,
    /// Other clients of it.
    others: Vec<TcpStream>,
    /// Where the inlet receives what is for this client.
    connection: Vec<Address>,
}

/// Where the outlet that is played here receives what is for its session.
const FAR: &str = "66666666666666666666666666666666";

fn inlet(kind: Kind, sealed: bool) -> Inlet {
    let (node, responder) = (PortalNode::start(kind), Responder::new());
    let secure = if sealed { "/secure/api" } else { "" };
    let to = format!("{}{secure}/service/outlet", over_tcp(responder.address));
    let (road, ping, (address, client)) = thread::scope(|scope| {
        let client = scope.spawn(|| {
            let address = node.inlet("inlet", &to);
            let mut client = Client::connect(address);
            client.write_all(b"early").expect("the inlet accepts");
            (address, client)
        });
        let mut link = responder.link();
        let channel = sealed.then(|| Responder::accept(&mut link, &Identity::new()).expect("a channel"));
        let mut road = Road { link, channel, probes: 0 };
        let ping = road.next();
        (road, ping, client.join().expect("an inlet"))
    });
    assert_eq!((&ping.onward, ping.payload[0]), (&addresses(&["outlet"]), PING));
    match kind {
        Kind::Real => assert_eq!(ping.payload.len(), 1),
        Kind::Ours => assert!(
            ping.payload[1..].starts_with(OFFER) && ping.payload.len() == 1 + OFFER.len() + 4,
            "{:?}",
            ping.payload
        ),
    }
    let [connection] = &ping.back[..] else { panic!("{:?} is one address", ping.back) };
    assert_random(connection);
    let mut inlet = Inlet { _node: node, road, address, client, others: Vec::new(), connection: ping.back };
    inlet.assert_silent();
    inlet
}

impl Inlet {
    /// Sends a message to the connection.
    fn send(&mut self, message: &[u8]) {
        self.road.send(&self.connection, &addresses(&[FAR]), message);
    }

    /// The next message is this one, to the session.
    #[track_caller]
    fn expect(&mut self, message: &[u8]) {
        let received = self.road.next();
        assert_eq!((received.onward, received.back), (addresses(&[FAR]), self.connection.clone()));
        assert_eq!(hex::encode(received.payload), hex::encode(message));
    }

    /// Shows that nothing else is on its way: another client comes, and the Ping for it is the next message. A real node that
    /// opened a channel answers no echo on either side of it.
    #[track_caller]
    fn assert_silent(&mut self) {
        self.others.push(Client::connect(self.address));
        let ping = self.road.next();
        assert_eq!((ping.onward, ping.payload.first()), (addresses(&["outlet"]), Some(&PING)));
        assert_ne!(ping.back, self.connection);
    }

    /// Answers the Ping, and takes what the client had sent before.
    #[track_caller]
    fn answer(&mut self, behind: &[u8]) {
        self.send(&[&[PONG], behind].concat());
        self.expect(b"\x03\x05early");
    }
}

/// What the client sends waits for the Pong, and goes where that came from. The outlet's end is the client's.
fn an_inlet_in_full(mut inlet: Inlet) {
    inlet.client.write_all(b"").expect("the inlet reads");
    inlet.answer(b"");
    inlet.send(b"\x03\x05hello");
    assert_eq!(read(&mut inlet.client, 5), b"hello");
    for size in [1, 127, 128, 5000] {
        let data = noise(size, 3);
        inlet.client.write_all(&data).expect("the inlet reads");
        inlet.expect(&payload(&data));
        inlet.send(&payload(&data));
        assert!(read(&mut inlet.client, size) == data);
    }
    let much = noise(1 << 20, 4);
    for part in much.chunks(100_000) {
        inlet.send(&payload(part));
    }
    inlet.send(&[DISCONNECT]);
    assert!(read(&mut inlet.client, much.len()) == much);
    assert_ended(&mut inlet.client);
    inlet.assert_silent();
}

/// The same for an inlet as for an outlet, and bytes behind Pong and Disconnect, too.
fn an_inlet_accepts(mut inlet: Inlet) {
    inlet.answer(b"\0EXT");
    inlet.send(b"\x03\x85\x80\x00hello");
    inlet.send(b"\x03\x00");
    inlet.send(b"\x03\x01a\x00");
    inlet.send(b"\x03\x01b\x01\x07");
    inlet.send(b"\x03\x01c\x00\x07\x00");
    inlet.send(&[PING]);
    inlet.send(&[PONG]);
    for n in 0..300u16 {
        let number = n.to_le_bytes();
        inlet.send(&[3, 2, number[0], number[1], 1, number[0], number[1]]);
    }
    let much = noise(200_000, 5);
    inlet.send(&payload(&much));
    assert_eq!(read(&mut inlet.client, 8), b"helloabc");
    let numbers: Vec<_> = (0..300u16).flat_map(u16::to_le_bytes).collect();
    assert_eq!(read(&mut inlet.client, 600), numbers);
    assert!(read(&mut inlet.client, much.len()) == much);
    inlet.assert_silent();
    inlet.send(&[DISCONNECT, 9, 9]);
    assert_ended(&mut inlet.client);
    inlet.assert_silent();
}

/// What says nothing, and what comes before the Pong, is dropped.
fn an_inlet_drops(mut inlet: Inlet) {
    for message in [&b""[..], b"\x07", b"\x03\x05hello", b"\x03\x05hell", &[PING]] {
        inlet.send(message);
    }
    inlet.assert_silent();
    inlet.answer(b"");
    for message in [&b""[..], b"\x07", b"\x03", b"\x03\x05hell", b"\x03\x85\x80"] {
        inlet.send(message);
    }
    inlet.send(b"\x03\x02ok");
    assert_eq!(read(&mut inlet.client, 2), b"ok");
    inlet.assert_silent();
}

fn an_inlet_refuses_a_hole_between_payloads(mut inlet: Inlet) {
    inlet.answer(b"");
    inlet.send(b"\x03\x01a\x01\x00\x00");
    inlet.send(b"\x03\x01b\x01\x01\x00");
    inlet.send(b"\x03\x01d\x01\x03\x00");
    inlet.send(b"\x03\x01e\x01\x04\x00");
    inlet.expect(&[DISCONNECT]);
    assert_ended_before_the_hole(&mut inlet.client);
    inlet.assert_silent();
}

/// F.4: Disconnect, behind everything else.
fn an_inlet_tells_of_the_end(mut inlet: Inlet) {
    inlet.answer(b"");
    let much = noise(1 << 20, 6);
    inlet.client.write_all(&much).expect("the inlet reads");
    inlet.client.shutdown(Shutdown::Both).expect("the inlet is there");
    let mut received = Vec::new();
    loop {
        let message = inlet.road.next();
        if message.payload == [DISCONNECT] {
            break;
        }
        let said = ockam_wire::portal::PortalMessage::parse(&message.payload);
        let Some(ockam_wire::portal::PortalMessage::Payload { data, counter: None }) = said else {
            panic!("{said:?}");
        };
        assert!(data.len() <= 128 << 10, "F.3: {} bytes at once", data.len());
        assert_eq!(message.payload, payload(data));
        received.extend_from_slice(data);
    }
    assert!(received == much);
    inlet.assert_silent();
}

/// A real peer knows no end of half a connection: it hears of an end, and the client gets its own (F.4).
fn an_inlet_tells_of_half_an_end(mut inlet: Inlet) {
    inlet.answer(b"");
    inlet.client.shutdown(Shutdown::Write).expect("the inlet is there");
    inlet.expect(&[DISCONNECT]);
    assert_ended(&mut inlet.client);
    inlet.assert_silent();
}

/// An outlet of ours that does not reach its target answers and ends: so does the client's connection, at once.
fn an_inlet_whose_outlet_fails(mut inlet: Inlet) {
    inlet.send(&[PONG]);
    inlet.send(&[DISCONNECT]);
    // What the client had sent may or may not have left before.
    assert_ended(&mut inlet.client);
    // The next but that is the Ping for another client.
    inlet.others.push(Client::connect(inlet.address));
    loop {
        let message = inlet.road.next();
        if message.payload.first() == Some(&PING) {
            break;
        }
        assert_eq!(message.payload, b"\x03\x05early");
    }
}
