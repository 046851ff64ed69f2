//! Frames of every size (A.2), with their content checked.

use ockam_interop::{OurNode, Peer, REPLY, RawPeer, RealNode, body, local, noise, tcp};
use ockam_wire::{FRAME_MAX, Message};
use std::thread;

both!(payloads_of_every_size, a_frame_at_the_limit, many_frames_at_once, large_frames_one_after_another);

/// Around each change in the form of a length, and of our buffers.
const SIZES: [usize; 14] = [0, 1, 23, 24, 255, 256, 4095, 16 << 10, 32 << 10, 65535, 65536, 65537, 128 << 10, 1 << 20];

fn payloads_of_every_size(peer: &Peer) {
    let mut link = peer.link();
    for size in SIZES {
        let payload = noise(size, size as u64);
        link.request(&[local("echo")], &payload);
        assert!(link.reply() == payload, "{size} bytes come back as they were");
    }
}

/// The request has a tracing text, because real nodes add one to the answer, which may be no longer than this.
fn a_frame_at_the_limit(peer: &Peer) {
    let empty = body(&[local("echo")], &[local(REPLY)], &[], Some("{}")).len();
    // The head of a payload of this size is four bytes longer than that of none.
    let payload = noise(FRAME_MAX - empty - 4, 16);
    let request = body(&[local("echo")], &[local(REPLY)], &payload, Some("{}"));
    assert_eq!(request.len(), FRAME_MAX);
    let mut link = peer.link();
    for _ in 0..2 {
        link.send(&request);
        assert!(link.reply() == payload, "16 MiB come back as they were");
    }
    link.assert_serving_and_silent();
}

/// In one write where the socket takes it, and in order.
fn many_frames_at_once(peer: &Peer) {
    let mut link = peer.link();
    let payloads: Vec<_> = (0..500).map(|i| noise(i * 7 % 3000, i as u64)).collect();
    let mut frames = Vec::new();
    for payload in &payloads {
        let body = body(&[local("echo")], &[local(REPLY)], payload, None);
        frames.extend((body.len() as u32).to_be_bytes());
        frames.extend(body);
    }
    let mut writer = link.writer();
    thread::scope(|threads| {
        threads.spawn(move || writer.write(&frames));
        for (i, payload) in payloads.iter().enumerate() {
            assert!(link.reply() == *payload, "frame {i} comes back as it was");
        }
    });
    link.assert_serving_and_silent();
}

fn large_frames_one_after_another(peer: &Peer) {
    let mut link = peer.link();
    let payloads: Vec<_> = (0..12).map(|i| noise((1 << 20) + i * 99_991, i as u64)).collect();
    let mut writer = link.writer();
    thread::scope(|threads| {
        let payloads = &payloads;
        threads.spawn(move || payloads.iter().for_each(|payload| writer.request(&[local("echo")], payload)));
        for (i, payload) in payloads.iter().enumerate() {
            assert!(link.reply() == *payload, "frame {i} comes back as it was");
        }
    });
    link.assert_serving_and_silent();
}

/// A real node asks ours, up to the largest message that a real node can send.
#[test]
fn from_a_real_node_to_ours() {
    let (real, ours) = (RealNode::start(), OurNode::start());
    let connection = real.connect(ours.address());
    // 84, the onward route to `echo`, a return route of one address of 32 digits, the head of the payload, `{}`.
    let largest = FRAME_MAX - (1 + 8 + 37 + 5 + 3);
    for size in SIZES.into_iter().chain([largest]) {
        let payload = noise(size, size as u64);
        let got = real.ask(ockam::route![connection.as_str(), "echo"], &payload);
        assert!(got == payload, "{size} bytes come back as they were");
    }
}

/// Through our `hop` over a connection that our node dialed. On the way through, an address moves from one route to the
/// other, so a frame at the limit stays at the limit.
#[test]
fn through_ours_to_a_real_node() {
    let (real, ours) = (RealNode::start(), OurNode::start());
    ours.start_hop();
    let connection = ours.connect(real.address());
    let route = [local("hop"), local(&connection), local("echo")];
    let mut link = RawPeer::connect(ours.address());
    let at_the_limit = FRAME_MAX - body(&route, &[local(REPLY)], &[], Some("{}")).len() - 4;
    for size in SIZES.into_iter().chain([at_the_limit]) {
        let payload = noise(size, size as u64);
        let request = body(&route, &[local(REPLY)], &payload, Some("{}"));
        link.send(&request);
        assert!(link.reply() == payload, "{size} bytes come back as they were");
    }
    link.assert_serving_and_silent();
}

/// The other way around: through a real node's `hop` to ours.
#[test]
fn through_a_real_node_to_ours() {
    let (real, ours) = (RealNode::start(), OurNode::start());
    let connection = real.connect(ours.address());
    let route = [local("hop"), local(&connection), local("echo")];
    let mut link = RawPeer::connect(real.address());
    let at_the_limit = FRAME_MAX - body(&route, &[local(REPLY)], &[], Some("{}")).len() - 4;
    for size in SIZES.into_iter().chain([at_the_limit]) {
        let payload = noise(size, size as u64);
        link.send(&body(&route, &[local(REPLY)], &payload, Some("{}")));
        let reply = link.receive();
        let message = Message::parse(&reply).expect("a message");
        assert!(message.payload == payload, "{size} bytes come back as they were");
    }
    link.assert_serving_and_silent();
}

/// A frame that would be longer than the limit on its way out is dropped; the links on both sides live on. Here a TCP
/// address of 18 bytes goes and the address of a connection of 36 bytes comes.
#[test]
fn what_would_grow_over_the_limit_is_dropped() {
    let (front, back) = (OurNode::start(), RealNode::start());
    let back_address = back.address().to_string();
    let route = [tcp(&back_address), local("echo")];
    let payload = noise(FRAME_MAX - body(&route, &[local(REPLY)], &[], None).len() - 4, 3);
    let mut link = RawPeer::connect(front.address());
    // The transit link is there before the large frame comes, so that nothing overtakes it.
    link.request(&route, b"small");
    assert_eq!(link.reply(), b"small");
    link.request(&route, &payload);
    link.assert_serving_and_silent();
    link.request(&route, b"small");
    assert_eq!(link.reply(), b"small");
}
