//! Routes of several nodes of both kinds (B.1): workers, connections, return routes.

use ockam::route;
use ockam_interop::{Kind, OurNode, Peer, REPLY, RawListener, RawPeer, RealNode, local};
use ockam_wire::{AddressRef, Message};
use std::thread;

/// Every mixture of three nodes, in a row. The request goes through `hop` on the first two to the service on the last;
/// each node adds what B.1 says to the return route, and the answer comes back the same way.
#[test]
fn every_mixture_of_three_nodes() {
    for kinds in Kind::MIXTURES_OF_THREE {
        eprintln!("{kinds:?}");
        let [first, second, third] = kinds.map(Peer::start_with_hop);
        let to_second = first.connect(second.address());
        let to_third = second.connect(third.address());
        let way = |service| [local("hop"), local(&to_second), local("hop"), local(&to_third), local(service)];
        let mut link = first.link();
        link.request(&way("uppercase"), b"\x05hello");
        assert_eq!(link.reply(), b"\x05HELLO");
        link.request(&way("echo"), b"any bytes");
        let body = link.receive();
        let answer = Message::parse(&body).expect("a message");
        assert_eq!(answer.payload, b"any bytes");
        assert_eq!(answer.onward.iter().collect::<Vec<_>>(), [local(REPLY)]);
        // The way in, from here: the same workers and connections, then the service that answered.
        assert_eq!(answer.return_route.iter().collect::<Vec<_>>(), way("echo"));
        // So it can be used as it is.
        let again: Vec<AddressRef> = answer.return_route.iter().collect();
        link.request(&again, b"once more");
        assert_eq!(link.reply(), b"once more");
        link.assert_serving_and_silent();
    }
}

#[test]
fn a_real_node_asks_ours() {
    let (real, ours) = (RealNode::start(), Peer::start(Kind::Ours));
    let connection = real.connect(ours.address());
    let answer = real.ask_in_full(route![connection.as_str(), "echo"], b"\0\xff any bytes");
    assert_eq!(*answer.return_route(), route![connection.as_str(), "echo"]);
    assert_eq!(answer.payload(), b"\0\xff any bytes");
    assert_eq!(real.ask_text(route![connection.as_str(), "echo"], "hello"), "hello");
    // The rules of Unicode (B.2): one letter may become several.
    for (text, upper) in
        [("hello", "HELLO"), ("", ""), ("straße ŉ ﬁ", "STRASSE ʼN FI"), ("Ελλάς", "ΕΛΛΆΣ"), ("漢字 🦀", "漢字 🦀")]
    {
        assert_eq!(real.ask_text(route![connection.as_str(), "uppercase"], text), upper);
    }
    let long = "ß".repeat(100_000);
    assert_eq!(real.ask_text(route![connection.as_str(), "uppercase"], &long), "SS".repeat(100_000));
}

/// Many requests of one real node in flight over one connection: each finds its own way back.
#[test]
fn a_real_node_asks_ours_from_many_threads() {
    let (real, ours) = (RealNode::start(), Peer::start(Kind::Ours));
    let connection = real.connect(ours.address());
    thread::scope(|threads| {
        for thread in 0..8 {
            let (real, connection) = (&real, connection.as_str());
            threads.spawn(move || {
                for i in 0..50 {
                    let text = format!("{thread} asks {i}");
                    assert_eq!(real.ask_text(route![connection, "uppercase"], &text), text.to_uppercase());
                }
            });
        }
    });
}

/// A real node, ours in the middle, a real node at the end: what the real ones see of ours is a real node.
#[test]
fn a_real_node_asks_another_through_ours() {
    let (asking, answering) = (RealNode::start(), RealNode::start());
    let ours = Peer::start_with_hop(Kind::Ours);
    let (to_ours, onward) = (asking.connect(ours.address()), ours.connect(answering.address()));
    let way = route![to_ours.as_str(), "hop", onward.as_str(), "echo"];
    let answer = asking.ask_in_full(way.clone(), b"through");
    assert_eq!(*answer.return_route(), way);
    assert_eq!(answer.payload(), b"through");
    let service = route![to_ours.as_str(), "hop", onward.as_str(), "uppercase"];
    assert_eq!(asking.ask_text(service, "through"), "THROUGH");
}

/// Eight nodes of alternating kinds.
#[test]
fn a_long_chain() {
    let kinds = [Kind::Ours, Kind::Real].repeat(4);
    let peers: Vec<Peer> = kinds.into_iter().map(Peer::start_with_hop).collect();
    let connections: Vec<String> = peers.windows(2).map(|pair| pair[0].connect(pair[1].address())).collect();
    let mut way: Vec<AddressRef> = connections.iter().flat_map(|next| [local("hop"), local(next)]).collect();
    way.push(local("uppercase"));
    let mut link = peers[0].link();
    link.request(&way, b"\x05hello");
    assert_eq!(link.reply(), b"\x05HELLO");
}

/// Over a connection that our node dialed, its peer reaches `echo` and `uppercase`, and nothing that only the listener
/// admits (A.7).
#[test]
fn what_the_peer_of_a_dialed_connection_reaches() {
    let ours = Peer::start_with_hop(Kind::Ours);
    let listener = RawListener::new();
    thread::scope(|threads| {
        let dialed = threads.spawn(|| ours.connect(listener.address()));
        let mut link = listener.accept_link();
        dialed.join().expect("our node dials");
        link.request(&[local("uppercase")], b"\x05hello");
        assert_eq!(link.reply(), b"\x05HELLO");
        link.request(&[local("hop"), local("echo")], b"let me through");
        link.assert_serving_and_silent();
    });
}

/// A connection that the other side closed is gone; the node and its other connections are not.
#[test]
fn a_peer_that_goes_away() {
    for kind in [Kind::Real, Kind::Ours] {
        let peer = Peer::start_with_hop(kind);
        let listener = RawListener::new();
        let connection = thread::scope(|threads| {
            let dialed = threads.spawn(|| peer.connect(listener.address()));
            let mut link = listener.accept_link();
            let connection = dialed.join().expect("the node dials");
            link.finish();
            link.assert_closed();
            connection
        });
        let mut link = peer.link();
        link.request(&[local("hop"), local(&connection), local("echo")], b"anyone?");
        link.assert_serving_and_silent();
        RawPeer::connect(peer.address()).assert_serving_and_silent();
    }
}

/// `hop` is not there until it is started (N.1), and may follow itself.
#[test]
fn hop_runs_only_when_started() {
    let node = OurNode::start();
    let mut link = RawPeer::connect(node.address());
    let way = [local("hop"), local("hop"), local("echo")];
    link.request(&way, b"too early");
    link.assert_serving_and_silent();
    node.start_hop();
    link.request(&way, b"now");
    assert_eq!(link.reply(), b"now");
}
