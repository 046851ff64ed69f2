//! Channels of a peer that speaks the wire itself, towards a real node and towards ours: what must be accepted although
//! nobody sends it, what must be dropped without harm, and where answers go.

use ockam_interop::{Peer, RawListener};
use ockam_tests::{Channel, Identity, Initiator, Inner, Peer as Wire, Responder, addresses, frame_to};
use std::thread;

both!(
    a_channel,
    texts_that_must_be_accepted,
    texts_that_must_be_dropped,
    message_1,
    message_3_again,
    message_3_of_garbage,
    closed,
    only_later_records_move_the_responder,
    another_connection_right_behind_the_handshake,
    a_longer_way_back,
    towards_an_initiator,
);

/// Opens a channel to a node that listens at `api`.
fn open(peer: &Peer) -> (Wire, Channel) {
    peer.serve_channels();
    let mut link = Wire::connect(peer.address());
    let channel = Initiator::open(&mut link, &["api"], &Identity::new());
    (link, channel)
}

fn a_channel(peer: &Peer) {
    let (mut link, mut channel) = open(peer);
    for size in 0..200 {
        channel.echoes(&mut link, &ockam_interop::noise(size, size as u64));
    }
    // Behind the end of the channel, a return route goes through it.
    link.send(&channel.frame_with(&["uppercase"], &["one", "two"], b"\x05hello"));
    let answer = channel.receive_message(&mut link);
    assert_eq!(answer.onward, addresses(&["one", "two"]));
    assert_eq!((&answer.back, &answer.payload[..]), (&addresses(&["uppercase"]), &b"\x05HELLO"[..]));
}

/// `82 00 81` and the message of a Payload for `echo`: onward `[echo]`, return `[me]`, "hi".
const PAYLOAD: &str = "820081 83 81820044 6563686f 81820042 6d65 426869";

fn hex(text: &str) -> Vec<u8> {
    hex::decode(text.replace(' ', "")).expect("hexadecimal")
}

/// What decoders must accept (0.1, E.5): padding of any length, longer heads, indefinite arrays, further elements.
fn texts_that_must_be_accepted(peer: &Peer) {
    let (mut link, mut channel) = open(peer);
    for text in [
        format!("82 {PAYLOAD} 40"),
        format!("82 {PAYLOAD} 43010203"),
        format!("82 {PAYLOAD} 58 20 {}", "00".repeat(32)),
        format!("82 {PAYLOAD} 59 ffff {}", "55".repeat(65535)),
        format!("9802 {PAYLOAD} 40"),
        format!("9f {PAYLOAD} 40 ff"),
        format!("83 {PAYLOAD} 40 f6"),
        format!("82 {PAYLOAD} 40 0102030405"),
        "82 820081 84 81820044 6563686f 81820042 6d65 426869 627b7d 40".into(),
        "82 820081 9f 81820044 6563686f 81820042 6d65 426869 ff 40".into(),
        "82 820081 83 9f820044 6563686fff 990001820042 6d65 5a000000026869 40".into(),
        "82 82009b0000000000000001 83 81820044 6563686f 81820042 6d65 426869 40".into(),
    ] {
        let record = channel.seal_text(&hex(&text));
        link.send(&channel.frame(&record));
        let answer = channel.receive_message(&mut link);
        assert_eq!((&answer.onward, &answer.payload[..]), (&addresses(&["me"]), &b"hi"[..]), "{text}");
    }
}

/// Genuine records that say nothing. They are dropped, and the channel lives on.
fn texts_that_must_be_dropped(peer: &Peer) {
    let (mut link, mut channel) = open(peer);
    for text in [
        "",
        "00",
        "80",
        "40",
        "ff",
        "8282008040",
        // Kinds that do not exist.
        "8282038040",
        "82 82 1903e8 80 40",
        // New credentials without any, and of nobody.
        "8282018040",
        "82820181828080 40",
        // Cut off in a route and in a payload.
        "82 820081 83 81820044 6563",
        "82 820081 83 81820044 6563686f 81820042 6d65 4468",
        // No onward route, nobody there, and a TCP address.
        "82 820081 83 80 81820042 6d65 426869 40",
        "82 820081 83 81820046 6e6f626f6479 81820042 6d65 426869 40",
        "82 820081 83 8182014b 3132372e302e302e313a31 81820042 6d65 426869 40",
    ] {
        let record = channel.seal_text(&hex(text));
        link.send(&channel.frame(&record));
        channel.echoes(&mut link, text.as_bytes());
    }
}

/// E.2 and N.1: too short is ignored, a payload behind the key is not; and each message 1 gets an answer of its own.
fn message_1(peer: &Peer) {
    peer.serve_channels();
    let mut link = Wire::connect(peer.address());
    for len in [0, 1, 31] {
        let short = vec![7; len];
        link.send(&frame_to(&addresses(&["api"]), &addresses(&["me"]), &short));
    }
    let first = Initiator::new();
    let message = first.message_1.to_vec();
    for _ in 0..2 {
        link.send(&first.frame(&["api"]));
    }
    let (one, other) = (link.receive(), link.receive());
    assert_ne!(one.back, other.back, "two responders");
    assert_ne!(one.payload[..32], other.payload[..32], "with keys of their own");
    assert_eq!((&one.onward, &other.onward), (&addresses(&[&first.decryptor]), &addresses(&[&first.decryptor])));
    assert_eq!(message.len(), 32);
    let (message_3, mut channel) = first.finish(other, &Identity::new());
    link.send(&frame_to(&channel.way, &addresses(&[&channel.decryptor]), &message_3));
    channel.echoes(&mut link, b"the second answer was finished");
}

/// A message 3 that comes again is a record that is not genuine.
fn message_3_again(peer: &Peer) {
    peer.serve_channels();
    let mut link = Wire::connect(peer.address());
    let (handshake, message_2) = Initiator::new().exchange(&mut link, &["api"]);
    let (message_3, mut channel) = handshake.finish(message_2, &Identity::new());
    let frame = frame_to(&channel.way, &addresses(&[&channel.decryptor]), &message_3);
    for _ in 0..3 {
        link.send(&frame);
        channel.echoes(&mut link, b"nothing happened");
    }
}

/// Whatever comes instead of message 3 has no answer, and others open channels.
fn message_3_of_garbage(peer: &Peer) {
    peer.serve_channels();
    let mut link = Wire::connect(peer.address());
    for change in [0, 20, 47, 48, 60, 386] {
        let (handshake, message_2) = Initiator::new().exchange(&mut link, &["api"]);
        let (mut message_3, channel) = handshake.finish(message_2, &Identity::new());
        message_3[change] ^= 1;
        link.send(&frame_to(&channel.way, &addresses(&[&channel.decryptor]), &message_3));
    }
    for len in [0, 31, 64, 400] {
        let (_, message_2) = Initiator::new().exchange(&mut link, &["api"]);
        link.send(&frame_to(&message_2.back, &addresses(&["me"]), &vec![0x5a; len]));
    }
    let mut channel = Initiator::open(&mut link, &["api"], &Identity::new());
    channel.echoes(&mut link, b"still there");
}

/// Behind a Close there is nobody (E.7), and no answer to it.
fn closed(peer: &Peer) {
    let (mut link, mut channel) = open(peer);
    channel.echoes(&mut link, b"before");
    let close = channel.seal_text(&hex("8282028040"));
    let late = channel.seal(&["echo"], &["me"], b"anyone?");
    link.send(&channel.frame(&close));
    link.send(&channel.frame(&late));
    let mut another = Initiator::open(&mut link, &["api"], &Identity::new());
    link.send(&channel.frame(&late));
    another.echoes(&mut link, b"somebody else");
}

/// E.5: record 0 moves nothing; a later one does, and one that is older than that does not.
fn only_later_records_move_the_responder(peer: &Peer) {
    let (mut first, mut channel) = open(peer);
    match peer {
        Peer::Real(node) => drop(node.ends(1)),
        Peer::Ours(node) => drop(node.channels_when(|channels| channels.len() == 1)),
    }
    let mut second = Wire::connect(peer.address());
    let mut request = |payload: &[u8]| channel.seal(&["echo"], &["me"], payload);
    let records: Vec<_> = (0..6u8).map(|n| request(&[n])).collect();
    let frames: Vec<_> = records.iter().map(|record| channel.frame(record)).collect();
    for (n, by_second, answered_by_second) in
        [(0, true, false), (2, true, true), (1, false, true), (3, false, false), (5, true, true), (4, false, true)]
    {
        let (sent, answered) = (if by_second { &mut second } else { &mut first }, answered_by_second);
        sent.send(&frames[n]);
        let link = if answered { &mut second } else { &mut first };
        assert_eq!(channel.receive_message(link).payload, [n as u8]);
    }
}

/// A record by another connection, right behind message 3: it has to wait like one that comes by the same. Several
/// connections, because a node may serve each of them elsewhere.
fn another_connection_right_behind_the_handshake(peer: &Peer) {
    peer.serve_channels();
    let mut first = Wire::connect(peer.address());
    let mut others = [(); 6].map(|()| Wire::connect(peer.address()));
    for _ in 0..4 {
        for other in &mut others {
            let mut channel = Initiator::open(&mut first, &["api"], &Identity::new());
            // Until this is answered, message 3 may be behind what another connection brings.
            first.send(&frame_to(&addresses(&["echo"]), &addresses(&["me"]), b"a fence"));
            assert_eq!(first.receive().payload, b"a fence");
            let records = [0, 1].map(|n: u8| channel.seal(&["echo"], &["me"], &[n]));
            other.send(&channel.frame(&records[0]));
            assert_eq!(channel.receive_message(&mut first).payload, [0], "record 0 moves nothing");
            other.send(&channel.frame(&records[1]));
            assert_eq!(channel.receive_message(other).payload, [1]);
        }
    }
}

/// The way back is the whole outer return route (N.1).
fn a_longer_way_back(peer: &Peer) {
    let (mut link, mut channel) = open(peer);
    channel.echoes(&mut link, b"straight");
    let record = channel.seal(&["echo"], &["me"], b"around");
    link.send(&frame_to(&channel.way, &addresses(&["near", "far"]), &record));
    let answer = link.receive();
    assert_eq!(answer.onward, addresses(&["near", "far", &channel.decryptor]));
    match channel.open(&answer.payload) {
        Ok(Inner::Message(message)) => assert_eq!(message.payload, b"around"),
        other => panic!("{other:?}"),
    }
    // And so it stays until something newer comes by another one.
    let record = channel.seal(&["echo"], &["me"], b"straight again");
    link.send(&channel.frame(&record));
    assert_eq!(channel.receive_message(&mut link).payload, b"straight again");
}

/// A node that opens a channel to this peer, which then uses it: E.9 with the roles changed.
fn towards_an_initiator(peer: &Peer) {
    let listener = RawListener::new();
    let (mut link, mut channel) = thread::scope(|threads| {
        let opened = threads.spawn(|| {
            let connection = peer.connect(listener.address());
            peer.open(&[&connection, "api"])
        });
        let mut link = listener.accept_wire();
        let mut channel = Responder::accept(&mut link, &Identity::new()).expect("a whole handshake");
        // The question of whoever opened it, whether anybody is there.
        let question = channel.receive_message(&mut link);
        assert_eq!(question.onward, addresses(&["echo"]));
        let back: Vec<_> = question.back.iter().map(|address| address.to_string()).collect();
        let back: Vec<&str> = back.iter().map(|name| name.trim_start_matches("0#")).collect();
        link.send(&channel.frame_with(&back, &["echo"], &question.payload));
        opened.join().expect("the node opens a channel");
        (link, channel)
    });
    for i in 0..100 {
        channel.echoes(&mut link, &ockam_interop::noise(i * 10, i as u64));
    }
    link.send(&channel.frame_with(&["uppercase"], &["me"], b"\x05hello"));
    assert_eq!(channel.receive_message(&mut link).payload, b"\x05HELLO");
}
