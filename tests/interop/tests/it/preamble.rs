//! The preamble, byte for byte, of nodes that accept and of nodes that dial (A.1).

use ockam_interop::{Kind, Peer, RawListener, RawPeer, local};
use std::thread;

both!(
    comes_first_and_alone,
    comes_even_to_a_peer_that_leaves,
    another_version_closes,
    a_dialing_node_sends_it_first,
    may_share_a_segment_with_frames,
    may_come_in_a_segment_of_its_own_with_a_torn_frame,
);

fn comes_first_and_alone(peer: &Peer) {
    let mut link = RawPeer::dial(peer.address());
    assert_eq!(link.read(1), [1], "before a byte of ours");
    link.write(&[1]);
    link.assert_serving_and_silent();
}

fn comes_even_to_a_peer_that_leaves(peer: &Peer) {
    let mut link = RawPeer::dial(peer.address());
    link.finish();
    assert_eq!(link.read(1), [1]);
    link.assert_closed();
}

fn another_version_closes(peer: &Peer) {
    for version in [0, 2, b'G', 0x80, 0xff] {
        let mut link = RawPeer::dial(peer.address());
        link.write(&[version]);
        assert_eq!(link.read(1), [1], "a node says its version whatever the other one says, here {version:#04x}");
        link.assert_closed();
    }
    peer.link().assert_serving_and_silent();
}

fn a_dialing_node_sends_it_first(peer: &Peer) {
    let listener = RawListener::new();
    thread::scope(|threads| {
        // Ours reports success only when the other side is a node; a real one as soon as TCP is connected.
        let dialed = threads.spawn(|| peer.connect(listener.address()));
        let mut link = listener.accept();
        assert_eq!(link.read(1), [1], "before a byte of ours");
        link.write(&[1]);
        let address = dialed.join().expect("the node dials");
        assert_eq!(address.len(), 32, "the address of the connection");
        // A dialed link serves as an accepted one does (A.7).
        link.assert_serving_and_silent();
    });
}

fn may_share_a_segment_with_frames(peer: &Peer) {
    let mut link = RawPeer::dial(peer.address());
    let frame = hex::decode(ECHO_FRAME).expect("hexadecimal");
    link.write(&[&[1], &frame[..], &frame[..]].concat());
    assert_eq!(link.read(1), [1]);
    assert_eq!(link.reply(), b"\x05hello");
    assert_eq!(link.reply(), b"\x05hello");
}

fn may_come_in_a_segment_of_its_own_with_a_torn_frame(peer: &Peer) {
    let mut link = RawPeer::dial(peer.address());
    let frame = hex::decode(ECHO_FRAME).expect("hexadecimal");
    link.write(&[1]);
    assert_eq!(link.read(1), [1]);
    for byte in frame.chunks(1) {
        link.write(byte);
    }
    assert_eq!(link.reply(), b"\x05hello");
}

/// A.8, without tracing.
const ECHO_FRAME: &str = "0000003583818200446563686f81820058206161616161616161616161616161616161616161616161616161616161616161460568656c6c6f";

#[test]
fn ours_refuses_to_dial_what_answers_with_another_version() {
    let Peer::Ours(node) = Peer::start(Kind::Ours) else { unreachable!("started as ours") };
    let listener = RawListener::new();
    let to = listener.address().to_string();
    thread::scope(|threads| {
        let create =
            threads.spawn(|| node.home().ockam(&["tcp-connection", "create", "--from", node.name(), "--to", &to]));
        let mut link = listener.accept();
        assert_eq!(link.read(1), [1]);
        link.write(&[2]);
        link.assert_closed();
        let output = create.join().expect("the command ends");
        assert_ne!(output.code, Some(0), "{output:?}");
        assert!(output.stderr.contains(&to), "names the culprit: {}", output.stderr);
        assert_eq!(output.stdout, "");
    });
    // And is none the worse for it.
    let mut link = RawPeer::connect(node.address());
    link.request(&[local("echo")], b"still here");
    assert_eq!(link.reply(), b"still here");
}
