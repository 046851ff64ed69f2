//! TCP addresses inside a route. A real node dials only for its own messages; ours dials for a peer on loopback too
//! (decision 1 of the command line; the default transit rule).

use ockam::route;
use ockam::tcp::TCP;
use ockam_interop::{Home, Kind, OurNode, Peer, REPLY, RawListener, RawPeer, RealNode, local, tcp};
use ockam_wire::{AddressRef, Message};
use std::net::SocketAddr;

/// The remaining TCP address of a real node's route arrives at ours, which dials.
#[test]
fn a_real_node_asks_another_through_ours() {
    let (asking, ours, answering) = (RealNode::start(), OurNode::start(), RealNode::start());
    let connection = asking.connect(ours.address());
    let target = answering.address();
    for target in [target.to_string(), format!("localhost:{}", target.port())] {
        let answer = asking.ask_in_full(route![connection.as_str(), (TCP, target.as_str()), "echo"], b"any bytes");
        assert_eq!(answer.payload(), b"any bytes", "{target}");
        let upper = asking.ask_text(route![connection.as_str(), (TCP, target.as_str()), "uppercase"], "hello");
        assert_eq!(upper, "HELLO", "{target}");
        // The answer names the link that was dialed, and that can be used again like an address inside our node.
        let back = answer.return_route().clone();
        assert_eq!(back.len(), 3);
        assert!(back.is_local(), "{back}");
        assert_eq!(asking.ask(back, b"once more"), b"once more");
    }
}

#[test]
fn over_ipv6() {
    let (asking, ours) = (RealNode::start(), Home::new().node_at("six", "[::1]:0"));
    let answering = RealNode::start_at("[::1]:0");
    assert!(ours.address().is_ipv6() && answering.address().is_ipv6());
    let connection = asking.connect(ours.address());
    let target = answering.address().to_string();
    assert_eq!(asking.ask_text(route![connection.as_str(), (TCP, target.as_str()), "uppercase"], "six"), "SIX");
}

/// Two of ours in a row, between real ones.
#[test]
fn two_in_a_row() {
    let (asking, answering) = (RealNode::start(), RealNode::start());
    let home = Home::new();
    let (first, second) = (home.node("first"), home.node("second"));
    let connection = asking.connect(first.address());
    let [second, last] = [second.address(), answering.address()].map(|address| address.to_string());
    let way = route![connection.as_str(), (TCP, second.as_str()), (TCP, last.as_str()), "uppercase"];
    assert_eq!(asking.ask_text(way, "hello"), "HELLO");
}

/// The frame that comes out at the target is the one a real node would have sent over a connection of its own: a local
/// onward route, and the address of the way back in front of the return route.
#[test]
fn what_arrives_at_the_target() {
    let (ours, target) = (OurNode::start(), RawListener::new());
    let to = target.address().to_string();
    let mut link = RawPeer::connect(ours.address());
    link.request(&[tcp(&to), local("service"), tcp("10.0.0.1:1")], b"payload");
    let mut beyond = target.accept_link();
    let body = beyond.receive();
    let message = Message::parse(&body).expect("a message");
    assert_eq!(message.onward.iter().collect::<Vec<_>>(), [local("service"), tcp("10.0.0.1:1")]);
    assert_eq!(message.payload, b"payload");
    assert_eq!(message.tracing, None);
    let back: Vec<AddressRef> = message.return_route.iter().collect();
    let [entry, reply] = back[..] else { panic!("{back:?}") };
    assert_eq!(reply, local(REPLY));
    assert_eq!((entry.kind, entry.name.len()), (0, 32));
    // The way back is open for the answer, and for nothing else than that and what any dialed link reaches.
    beyond.request(&[entry, reply], b"answer");
    assert_eq!(link.reply(), b"answer");
    beyond.assert_serving_and_silent();
    link.assert_serving_and_silent();
}

/// Nothing but the preamble is sent to what does not answer as a node.
#[test]
fn what_is_no_node_hears_nothing() {
    let (ours, target) = (OurNode::start(), RawListener::new());
    let to = target.address().to_string();
    let mut link = RawPeer::connect(ours.address());
    link.request(&[tcp(&to), local("echo")], b"a secret");
    let mut beyond = target.accept();
    assert_eq!(beyond.read(1), [1]);
    beyond.write(b"SSH-2.0-");
    beyond.assert_closed();
    link.assert_serving_and_silent();
}

/// A real node looks a TCP address up like any other, and drops the message (A.4).
#[test]
fn a_real_node_refuses() {
    let (real, target) = (RealNode::start(), RawListener::new());
    let to = target.address().to_string();
    let mut link = RawPeer::connect(real.address());
    link.request(&[tcp(&to), local("echo")], b"anyone?");
    link.assert_serving_and_silent();
    assert_not_dialed(&target);
}

/// Ours refuses what does not come straight from a link, and what is no address, without an answer to a peer that did
/// not ask for one.
#[test]
fn ours_refuses() {
    let (peer, target) = (Peer::start_with_hop(Kind::Ours), RawListener::new());
    let to = target.address().to_string();
    let port = target.address().port();
    let mut link = peer.link();
    link.request(&[local("hop"), tcp(&to), local("echo")], b"out of a hop");
    link.assert_serving_and_silent();
    // Two thirds of these name the target in a way that must not count, the others name nothing at all.
    for bad in [
        format!("0.0.0.0:{port}"),
        format!("[::]:{port}"),
        format!("127.0.0.1:{port} "),
        format!("127.0.0.1:0{port}0"),
        "127.0.0.1".into(),
        "127.0.0.1:".into(),
        ":1".into(),
        "127.0.0.1:0".into(),
        "127.0.0.1:65536".into(),
        String::new(),
        "\0".into(),
        "a".repeat(5000),
    ] {
        link.request(&[tcp(&bad), local("echo")], b"anyone?");
        link.assert_serving_and_silent();
    }
    assert_not_dialed(&target);
}

/// Shows that nobody dialed: the first connection to arrive is one made here.
fn assert_not_dialed(target: &RawListener) {
    let mut probe = RawPeer::dial(target.address());
    probe.write(b"probe");
    assert_eq!(target.accept().read(5), *b"probe", "nobody dialed before");
}

/// The seed's transcript with a real node at the end.
#[test]
fn two_tcp_hops_in_a_multiaddr() {
    let home = Home::new();
    let (first, second, real) = (home.node("n1"), home.node("n2"), RealNode::start());
    let hop = |address: SocketAddr| format!("/ip4/127.0.0.1/tcp/{}", address.port());
    let real = hop(real.address());
    let to = format!("{}{real}/service/uppercase", hop(second.address()));
    assert_eq!(first.send("hello", &to, &[]).trim_end(), "HELLO");
    assert_eq!(home.ok(&["message", "send", "hello", "--to", &to]).trim_end(), "HELLO");
    let by_name = format!("/node/n2{real}/service/uppercase");
    assert_eq!(first.send("hello", &by_name, &[]).trim_end(), "HELLO");
}
