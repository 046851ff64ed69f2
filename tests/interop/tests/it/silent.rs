//! What both kinds of node drop without an answer while the link lives on (A.6).

use ockam_interop::{Peer, RawListener, body, local};
use ockam_wire::AddressRef;
use std::thread;

both!(
    unknown_destinations,
    empty_onward_routes,
    transport_types_nobody_serves,
    a_hop_to_nowhere,
    malformed_strings,
    connections_of_others,
);

fn unknown_destinations(peer: &Peer) {
    let mut link = peer.link();
    let long = "n".repeat(300);
    for name in ["nobody", "", "Echo", "echo ", "echo\0", "0#echo", "hop2", long.as_str()] {
        link.request(&[local(name)], b"anyone?");
        link.assert_serving_and_silent();
    }
    link.request(&[local("nobody"), local("echo")], b"anyone?");
    link.request(&[AddressRef { kind: 0, name: &[0xff, 0, 0xc3] }], b"anyone?");
    link.assert_serving_and_silent();
}

fn empty_onward_routes(peer: &Peer) {
    let mut link = peer.link();
    link.request(&[], b"");
    link.request(&[], b"with a payload");
    link.send(&body(&[], &[], &[7; 70_000], Some("{}")));
    link.assert_serving_and_silent();
}

/// UDP, WebSocket and the like. Type 1 is another matter (`transit`).
fn transport_types_nobody_serves(peer: &Peer) {
    let mut link = peer.link();
    for kind in [2, 3, 5, 23, 24, 255] {
        link.request(&[AddressRef { kind, name: b"127.0.0.1:1" }, local("echo")], b"anyone?");
        link.request(&[AddressRef { kind, name: b"echo" }], b"anyone?");
        link.assert_serving_and_silent();
    }
}

fn a_hop_to_nowhere(peer: &Peer) {
    if let Peer::Ours(node) = peer {
        node.start_hop();
    }
    let mut link = peer.link();
    link.request(&[local("hop"), local("nobody"), local("echo")], b"anyone?");
    link.request(&[local("hop"), local("hop"), local("nobody")], b"anyone?");
    link.request(&[local("hop")], b"and then?");
    link.assert_serving_and_silent();
}

/// `uppercase` reads a String (B.2).
fn malformed_strings(peer: &Peer) {
    let mut link = peer.link();
    for payload in [
        &b""[..],
        b"\x05hell",
        b"\x02\xc3\x28",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01hello",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x03",
        b"\x80",
        b"\x85\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00hello",
    ] {
        link.request(&[local("uppercase")], payload);
        link.assert_serving_and_silent();
    }
}

/// The address of a connection is not for everybody on another one: only what runs inside the node, like `hop`, may
/// send through it (A.7).
fn connections_of_others(peer: &Peer) {
    let target = RawListener::new();
    let (connection, mut beyond) = thread::scope(|threads| {
        let dialed = threads.spawn(|| peer.connect(target.address()));
        let beyond = target.accept_link();
        (dialed.join().expect("the node dials"), beyond)
    });
    let mut link = peer.link();
    link.request(&[local(&connection), local("echo")], b"let me through");
    link.assert_serving_and_silent();
    beyond.assert_serving_and_silent();
}
