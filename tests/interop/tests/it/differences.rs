//! Where our node differs from a real one on purpose, each with what a real node does. Nothing here breaks a peer that
//! keeps to the protocol.

use ockam_interop::{Kind, OurNode, Peer, REPLY, RawPeer, RealNode, body, local};
use ockam_wire::{AddressRef, Message, ROUTE_MAX};

both!(an_address_of_three_elements, a_return_route_over_our_limit, tracing_of_answers);

/// A real node skips the third element. Ours refuses the message: it would have to pass the address on with less than
/// it came with.
fn an_address_of_three_elements(peer: &Peer) {
    let mut link = peer.link();
    link.send(&hex::decode("8381830044 6563686f 07 8182004161 426869".replace(' ', "")).expect("hexadecimal"));
    match peer.kind() {
        Kind::Real => {
            let body = link.receive();
            assert_eq!(Message::parse(&body).expect("a message").payload, b"hi");
        }
        Kind::Ours => link.assert_closed(),
    }
}

/// A real node has no limit; ours is the guard against loops.
fn a_return_route_over_our_limit(peer: &Peer) {
    let mut link = peer.link();
    for (count, answered) in [(24, true), (ROUTE_MAX - 1, true), (200, peer.kind() == Kind::Real)] {
        let route: Vec<AddressRef> = std::iter::repeat_n(local("x"), count).collect();
        link.send(&body(&[local("echo")], &route, b"hi", None));
        if answered {
            let body = link.receive();
            let message = Message::parse(&body).expect("a message");
            assert_eq!((message.onward.len(), message.payload), (count, &b"hi"[..]));
        }
        link.assert_serving_and_silent();
    }
}

/// A real node that does not export traces says `{}` in everything it sends. What ours says there is what it was asked
/// with, or nothing: it has no traces of its own.
fn tracing_of_answers(peer: &Peer) {
    let mut link = peer.link();
    for asked in [None, Some("{}"), Some("something else")] {
        link.send(&body(&[local("echo")], &[local(REPLY)], b"hi", asked));
        let body = link.receive();
        let answered = Message::parse(&body).expect("a message").tracing;
        match peer.kind() {
            Kind::Real => assert_eq!(answered, Some("{}")),
            Kind::Ours => assert!(answered.is_none() || answered == asked, "{answered:?} to {asked:?}"),
        }
    }
}

/// The control API of a node is a Unix socket of ours and never on the wire (decision 2 of the command line). A real
/// node that its command started answers this request (I.5) with its state, to anyone.
#[test]
fn the_control_api_is_not_on_the_wire() {
    let ours = OurNode::start();
    let mut link = RawPeer::connect(ours.address());
    let get_node = hex::decode("12a4011a0102030402652f6e6f6465030004f4").expect("hexadecimal");
    link.request(&[local("_internal.nodemanager")], &get_node);
    link.assert_serving_and_silent();
}

/// Requests that offer to hear of their failure are the same to a real node as any other.
#[test]
fn a_real_node_answers_no_offer() {
    let real = RealNode::start();
    let mut link = RawPeer::connect(real.address());
    let offer = ockam_wire::undeliverable::Offer { token: [7; 16] }.text();
    link.send(&body(&[local("nobody")], &[local(REPLY)], b"anyone?", Some(&offer)));
    link.assert_serving_and_silent();
}

/// Without an offer ours is as silent as a real node; with one it says what became of the message, to the sender of it
/// and in no more bytes than it took.
#[test]
fn ours_answers_an_offer() {
    let ours = OurNode::start();
    let mut link = RawPeer::connect(ours.address());
    let token = *b"0123456789abcdef";
    let offer = ockam_wire::undeliverable::Offer { token }.text();
    let request = body(&[local("nobody"), local("echo")], &[local(REPLY)], b"anyone?", Some(&offer));
    link.send(&request);
    let answer = link.receive();
    assert!(answer.len() <= request.len());
    let message = Message::parse(&answer).expect("a message");
    assert_eq!(message.onward.iter().collect::<Vec<_>>(), [local(REPLY)]);
    assert_eq!((message.return_route.len(), message.payload), (0, &b""[..]));
    let notice = ockam_wire::undeliverable::Notice::parse(message.tracing.expect("a text")).expect("a notice");
    assert_eq!((notice.token, notice.left), (token, 2));
    link.assert_serving_and_silent();
}
