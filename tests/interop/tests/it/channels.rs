//! Secure channels between a real node and either kind, in both roles (`wire.md` E).

use ockam::route;
use ockam_interop::{Kind, Pair, Peer, RealNode, Role, Way, noise};
use ockam_wire::{Message, Route};

of_each_kind!(messages_right_behind_the_handshake, the_initiator_closes, a_peer_closes_what_it_opened);

far!(
    frames_on_the_wire,
    a_thousand_messages,
    payloads_of_every_size,
    large_payloads_at_once,
    nothing_can_be_read_on_the_way,
    a_channel_inside_a_channel,
    only_what_is_for_channels_is_reached,
);

/// What anyone can see of a frame.
struct Seen {
    onward: Vec<String>,
    return_route: Vec<String>,
    payload: Vec<u8>,
}

fn seen(pair: &Pair, way: Way) -> Vec<Seen> {
    let names = |route: Route| -> Vec<String> {
        let name = |address: ockam_wire::AddressRef| {
            assert_eq!(address.kind, ockam_wire::LOCAL, "{address}");
            String::from_utf8(address.name.to_vec()).expect("names are text")
        };
        route.iter().map(name).collect()
    };
    let look = |body: &Vec<u8>| {
        let message = Message::parse(body).expect("nodes send messages that parse");
        let (onward, return_route) = (names(message.onward), names(message.return_route));
        Seen { onward, return_route, payload: message.payload.to_vec() }
    };
    pair.middle.seen(way).iter().map(look).collect()
}

/// Handshake (E.2, E.4) and data (E.5), as far as anyone can see them: routes, lengths, nonces.
fn frames_on_the_wire(pair: &Pair) {
    pair.mailbox().assert_alive_and_silent();
    let (to_responder, to_initiator) = (seen(pair, Way::ToTarget), seen(pair, Way::ToDialer));
    let [message_1, message_3, requests @ ..] = &to_responder[..] else { panic!("no handshake") };
    let [message_2, answers @ ..] = &to_initiator[..] else { panic!("no handshake") };
    assert_eq!(message_1.onward, ["api"]);
    // Fresh identities with a key of Ed25519, an attestation and no credential.
    assert_eq!([message_1, message_2, message_3].map(|message| message.payload.len()), [32, 419, 387]);
    let (initiator, responder) = (&message_1.return_route, &message_2.return_route);
    for end in [initiator, responder] {
        let [name] = &end[..] else { panic!("{end:?} is one address") };
        let digits = name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        assert!(name.len() == 32 && digits, "{name} is a random address (A.4)");
    }
    assert_eq!((&message_2.onward, &message_3.onward), (initiator, responder));
    assert_eq!(message_3.return_route, *initiator);
    // The first echo and the one above.
    for (records, recipient) in [(requests, responder), (answers, initiator)] {
        assert_eq!(records.len(), 2);
        for (i, record) in records.iter().enumerate() {
            assert_eq!((&record.onward, &record.return_route[..]), (recipient, &[][..]), "record {i}");
            assert_eq!(record.payload[..8], (i as u64).to_be_bytes(), "nonces count from 0");
        }
    }
}

/// 1,000 answers to 1,000 messages: 31 changes of keys in each direction.
fn a_thousand_messages(pair: &Pair) {
    let payloads: Vec<_> = (0..1000).map(|i| noise(i % 200, i as u64)).collect();
    pair.mailbox().echo_all(&payloads);
    let records = pair.middle.seen(pair.to_far());
    let highest = records.iter().filter_map(|body| ockam_interop::nonce(body)).max();
    assert_eq!(highest, Some(1000));
}

fn payloads_of_every_size(pair: &Pair) {
    let mut mailbox = pair.mailbox();
    for size in [0, 1, 23, 24, 255, 256, 4095, 16 << 10, 32 << 10, 65535, 65536, 65537, 128 << 10, 1 << 20] {
        let payload = noise(size, size as u64);
        mailbox.send(&payload);
        assert!(mailbox.receive() == payload, "{size} bytes come back as they were");
    }
}

/// More than any socket buffer holds, in flight at once.
fn large_payloads_at_once(pair: &Pair) {
    let payloads: Vec<_> = (0..40).map(|i| noise((128 << 10) + i * 31, i as u64)).collect();
    pair.mailbox().echo_all(&payloads);
}

/// What an eavesdropper gets holds no part of a message, a route or an answer.
fn nothing_can_be_read_on_the_way(pair: &Pair) {
    let text = pair.near.ask_text(route![pair.end.clone(), "uppercase"], "hello from the other side");
    assert_eq!(text, "HELLO FROM THE OTHER SIDE");
    for way in [pair.to_far(), pair.to_near()] {
        let frames = pair.middle.seen(way);
        assert!(frames.len() >= 3);
        for needle in [&b"uppercase"[..], b"hello", b"HELLO", b"echo"] {
            let found = frames.iter().any(|body| body.windows(needle.len()).any(|window| window == needle));
            assert!(!found, "{:?} can be read {way:?}", String::from_utf8_lossy(needle));
        }
    }
}

/// A channel through a channel, to the same node, which ends without the outer one.
fn a_channel_inside_a_channel(pair: &Pair) {
    if let Some(outer) = &pair.far_end {
        let inner = pair.far.open(&[outer, "api"]);
        assert_eq!(pair.far.ask(&[&inner, "echo"], b"twice sealed"), b"twice sealed");
        let ends = pair.near.ends(2);
        let (end, _) = ends.iter().find(|(end, _)| *end != pair.end).expect("another end");
        pair.near.mailbox(end).echo_all(&(0..100).map(|i| noise(i, i as u64)).collect::<Vec<_>>());
        if let Peer::Real(far) = &pair.far {
            far.close(&inner.as_str().into());
            pair.near.ends(1);
        }
    } else {
        let inner = pair.near.open(route![pair.end.clone(), "api"]);
        let mut mailbox = pair.near.mailbox(inner.encryptor_address());
        // Ours keeps no more than 256 KiB for a channel that is not set up yet.
        mailbox.assert_alive_and_silent();
        mailbox.echo_all(&(0..100).map(|i| noise(i * 700, i as u64)).collect::<Vec<_>>());
        drop(mailbox);
        pair.near.close(inner.encryptor_address());
        pair.near.ends(1);
    }
    pair.mailbox().assert_alive_and_silent();
}

/// `hop` is for those who reach the node itself (A.7).
fn only_what_is_for_channels_is_reached(pair: &Pair) {
    if let Peer::Ours(far) = &pair.far {
        far.start_hop();
    }
    let mut mailbox = pair.mailbox();
    for first in ["hop", "nobody", "_internal.nodemanager"] {
        mailbox.send_to(route![pair.end.clone(), first, "echo"], b"let me through");
        mailbox.assert_alive_and_silent();
    }
}

/// What a real node sends right behind message 3, while ours still looks at that, arrives, and in order.
fn messages_right_behind_the_handshake(kind: Kind) {
    let (real, peer) = (RealNode::start(), Peer::start(kind));
    peer.serve_channels();
    let connection = real.connect(peer.address());
    for _ in 0..5 {
        let channel = real.open(route![connection.as_str(), "api"]);
        let payloads: Vec<_> = (0..100).map(|i| noise(i * 10, i as u64)).collect();
        real.mailbox(channel.encryptor_address()).echo_all(&payloads);
    }
}

/// Two channels over one connection have nothing to do with each other.
#[test]
fn two_channels_on_one_connection() {
    for (near, far) in [(Kind::Real, Kind::Real), (Kind::Real, Kind::Ours), (Kind::Ours, Kind::Real)] {
        eprintln!("{near:?} to {far:?}");
        let (near, far) = (Peer::start(near), Peer::start(far));
        far.serve_channels();
        let connection = near.connect(far.address());
        let [first, second] = [(); 2].map(|()| near.open(&[&connection, "api"]));
        assert_ne!(first, second);
        for i in 0..40u8 {
            for channel in [&first, &second] {
                assert_eq!(near.ask(&[channel, "echo"], &[i]), [i]);
            }
        }
        match &near {
            Peer::Real(near) => near.close(&first.as_str().into()),
            Peer::Ours(near) => {
                near.home().ok(&["secure-channel", "delete", &first, "--at", near.name(), "--yes"]);
            }
        }
        if let Peer::Real(far) = &far {
            far.ends(1);
        }
        assert_eq!(near.ask(&[&second, "echo"], b"still here"), b"still here");
    }
}

/// The side that opened it ends it: the other side hears of it.
fn the_initiator_closes(kind: Kind) {
    let pair = Pair::open(kind, Role::Initiator);
    let far_end = pair.far_end.as_deref().expect("it opened the channel");
    match &pair.far {
        Peer::Real(far) => far.close(&far_end.into()),
        Peer::Ours(far) => {
            far.home().ok(&["secure-channel", "delete", far_end, "--at", far.name(), "--yes"]);
        }
    }
    pair.near.ends(0);
}

/// A real node ends the channel that it opened: ours forgets its end, and what a thief of the record sends again finds
/// nobody.
fn a_peer_closes_what_it_opened(kind: Kind) {
    let pair = Pair::open(kind, Role::Responder);
    let before = pair.middle.seen(pair.to_far()).len();
    pair.near.close(&pair.end);
    pair.near.ends(0);
    let frames = pair.middle.seen_at_least(pair.to_far(), before + 1);
    let close = Message::parse(frames.last().expect("a frame")).expect("a message").payload.to_vec();
    assert_eq!((&close[..8], close.len()), (&1u64.to_be_bytes()[..], 8 + 5 + 16), "a Close");
    match &pair.far {
        Peer::Real(far) => assert_eq!(far.ends(0), []),
        Peer::Ours(far) => assert_eq!(far.channels_when(<[_]>::is_empty), [] as [serde_json::Value; 0]),
    }
    // The node serves the connection and opens another channel over it.
    let again = pair.near.open(route![pair.connection.as_str(), "api"]);
    pair.near.mailbox(again.encryptor_address()).assert_alive_and_silent();
}
