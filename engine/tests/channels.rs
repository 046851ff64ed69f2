//! Channels of an engine process, on both drivers and on two cores: keys are given to both ends, and this side of the
//! wire is made of the crypto crate.

#[macro_use]
mod support;

use ockam_crypto::{CLOSE, Opener, Plaintext, Sealer, Secret};
use ockam_engine_abi::{ChannelEnd, CloseReason, Command, Counter, DropReason, Key, Notice, Refusal, Target};
use ockam_wire::undeliverable::{self, Offer};
use std::net::SocketAddr;
use support::channel::{
    CHANNEL_FLOW, DECRYPTOR, ENCRYPTOR, End, INWARD, OUTWARD, PEERS, address, another, install, installed, link_of,
    name,
};
use support::{Engine, FLOW, Peer, frame, noise, occurrences, text};

/// Not a test by itself: what the others start becomes an engine here.
#[test]
fn engine_process() {
    support::become_engine();
}

/// Services, a peer and a channel to it.
fn channel(engine: &mut Engine) -> (SocketAddr, Peer, End) {
    for (name, target) in [("echo", Target::Echo), ("uppercase", Target::Uppercase), ("hop", Target::Hop)] {
        engine.set(name, target, 1 << FLOW | 1 << CHANNEL_FLOW);
    }
    engine.set("plain", Target::Echo, 1 << FLOW);
    let at = engine.listen(1, FLOW);
    let (peer, end) = another(engine, at, 1);
    (at, peer, end)
}

fn closed(engine: &mut Engine, number: u32) -> ChannelEnd {
    engine.wait(|notice| match notice {
        Notice::ChannelClosed { channel, reason } if *channel == number => Some(*reason),
        _ => None,
    })
}

on_both_drivers! {
    messages_are_opened_and_answers_sealed(engine) {
        let (_, mut peer, mut end) = channel(&mut engine);
        for round in 0..200 {
            let said = text(&format!("hello {round}"));
            peer.send(&end.frame(&["uppercase"], &["back"], &said));
            let sealed = peer.receive();
            assert_eq!((sealed.onward, sealed.back.len()), (vec![address(PEERS)], 0));
            let (onward, back, payload) = end.open(&sealed.payload);
            assert_eq!((onward, back), (vec![address("back")], vec![address("uppercase")]));
            assert_eq!(payload, text(&format!("HELLO {round}")));
        }
        assert_eq!(engine.counters().total(Counter::RecordsOpened), 200);
        assert_eq!(engine.counters().total(Counter::RecordsSealed), 200);
    }

    payloads_of_every_size_and_many_at_once(engine) {
        let (_, mut peer, mut end) = channel(&mut engine);
        let sizes = [0, 1, 100, 4096, 4097, 4200, 65_536, 131_072, 135_000, 140_000, 1 << 20, 60_000];
        let frames: Vec<Vec<u8>> = sizes.iter().cycle().take(72).enumerate()
            .map(|(round, size)| noise(*size, round as u64 + 7)).collect();
        let sealed: Vec<u8> = frames.iter().flat_map(|payload| end.frame(&["echo"], &["me"], payload)).collect();
        let mut sender = peer.stream.try_clone().unwrap();
        let writer = std::thread::spawn(move || std::io::Write::write_all(&mut sender, &sealed).unwrap());
        for (round, payload) in frames.iter().enumerate() {
            assert!(end.receive(&mut peer).2 == *payload, "message {round} of {} bytes changed", payload.len());
        }
        writer.join().unwrap();
    }

    records_that_look_alike_are_still_told_apart(engine) {
        let (_, mut peer, mut end) = channel(&mut engine);
        let (mut sent, mut expected) = (Vec::new(), Vec::new());
        let (mut unknown, mut replayed, mut forged) = (0, 0, 0);
        let before = engine.counters().total(Counter::FramesServed);
        // Runs of equal heads, inside and outside, in which now and then one differs in one thing.
        for (number, random) in noise(6000, 5).chunks_exact(2).enumerate() {
            let run = number / 40;
            let mut like = [run, run / 2, run / 3, run / 5];
            if random[0] > 220 {
                like[usize::from(random[1]) % 4] += 1;
            }
            let to = ["echo", "uppercase", "echo", "nothing"][like[0] % 4];
            let back = ["me", "he"][like[1] % 2];
            let tracing = [Some("{}"), Some("[]"), None][like[2] % 3];
            let length = [64, 8, 300, 1][like[3] % 4];
            let payload = if to == "uppercase" { text(&"x".repeat(length)) } else { noise(length, number as u64) };
            let record = end.record(&[to], &[back], &payload, tracing);
            let framed = frame(&[&end.decryptor], &[], &record);
            if random[0] == 7 {
                forged += 1;
                let mut framed = framed;
                let last = framed.len() - 1 - usize::from(random[1]) % 16;
                framed[last] ^= 1;
                sent.extend(framed);
                continue;
            }
            sent.extend_from_slice(&framed);
            if random[0] == 8 {
                replayed += 1;
                sent.extend_from_slice(&framed);
            }
            match to {
                "nothing" => unknown += 1,
                "uppercase" => expected.push((back, to, text(&"X".repeat(length)), tracing)),
                _ => expected.push((back, to, payload, tracing)),
            }
        }
        assert!(unknown > 0 && replayed > 0 && forged > 0);
        let mut sender = peer.stream.try_clone().unwrap();
        let writer = std::thread::spawn(move || std::io::Write::write_all(&mut sender, &sent).unwrap());
        for (number, (back, from, payload, tracing)) in expected.iter().enumerate() {
            let mut record = peer.receive().payload;
            let text = end.opener.open_in_place(&mut record).unwrap().text;
            let Ok(Plaintext::Payload(answer)) = Plaintext::parse(text) else { panic!("{text:02x?}") };
            let routes = (answer.onward.to_string(), answer.return_route.to_string());
            let is_right = routes == (format!("0#{back}"), format!("0#{from}")) && answer.tracing == *tracing;
            assert!(is_right && answer.payload == payload, "answer {number}: {answer:?}");
        }
        writer.join().unwrap();
        engine.reaches(DropReason::NoSuchAddress, unknown);
        engine.reaches(DropReason::Replayed, replayed);
        engine.reaches(DropReason::NotGenuine, forged);
        let counters = engine.counters();
        let dropped = [DropReason::NoSuchAddress, DropReason::Replayed, DropReason::NotGenuine];
        assert_eq!(dropped.map(|reason| counters.total(reason)), [unknown, replayed, forged]);
        assert_eq!(counters.total(Counter::FramesServed) - before, expected.len() as u64);
    }

    runs_of_records_leave_by_a_link(engine) {
        let (at, mut peer, mut end) = channel(&mut engine);
        let mut other = Peer::connect(at);
        other.send(&frame(&["echo"], &["me"], b"up"));
        other.receive();
        let (_, link) = link_of(&mut engine, other.stream.local_addr().unwrap());
        // Payloads that are copied and payloads that are not, in frames of one length behind one another.
        for size in [10, 300, 5000] {
            let payload = |number: u8| vec![number; size];
            let records: Vec<u8> =
                (0..20).flat_map(|number| end.frame(&["hop", &link, "x"], &["me"], &payload(number))).collect();
            peer.send(&records);
            for number in 0..20 {
                assert!(other.receive().payload == payload(number), "message {number} of {size} bytes");
            }
        }
    }

    what_is_not_genuine_new_and_near_is_dropped_and_counted(engine) {
        let (_, mut peer, mut end) = channel(&mut engine);
        let whole = end.frame(&["echo"], &["me"], b"first");
        peer.send(&whole);
        assert_eq!(end.receive(&mut peer).2, b"first");
        peer.send(&whole);
        engine.reaches(DropReason::Replayed, 1);
        let mut changed = end.frame(&["echo"], &["me"], b"second");
        let last = changed.len() - 20;
        changed[last] ^= 1;
        peer.send(&changed);
        peer.send(&frame(&[&end.decryptor], &[], b"short"));
        peer.send(&frame(&[&end.decryptor], &[], &[0xff; 40]));
        engine.reaches(DropReason::NotGenuine, 3);
        (0..33).for_each(|_| drop(end.seal(b"lost")));
        let far = end.frame(&["echo"], &["me"], b"too far");
        peer.send(&far);
        engine.reaches(DropReason::OutsideWindow, 1);
        let junk = end_at(3).seal(b"no message");
        peer.send(&frame(&[&end.decryptor], &[], &junk));
        engine.reaches(DropReason::BadPlaintext, 1);
        // The channel lives on.
        let mut next = end_at(5);
        peer.send(&next.frame(&["echo"], &["me"], b"alive"));
        assert_eq!(end.receive(&mut peer).2, b"alive");
    }

    what_comes_out_reaches_what_its_flow_control_admits(engine) {
        let (at, mut peer, mut end) = channel(&mut engine);
        peer.send(&end.frame(&["plain"], &["me"], b"x"));
        engine.reaches(DropReason::NotAdmitted, 1);
        peer.send(&end.frame(&["1#127.0.0.1:9", "echo"], &["me"], b"x"));
        engine.reaches(DropReason::TransitRefused, 1);
        // The encryptor is for those who were written to through the channel.
        let mut stranger = Peer::connect(at);
        stranger.send(&frame(&[&name(ENCRYPTOR, 1), "me"], &["x"], b"x"));
        engine.reaches(DropReason::NotAdmitted, 2);
        // Its peer is told why, since it is authenticated.
        let offer = Offer { token: [7; 16] };
        let record = end.record(&["nothing", "x"], &["me"], b"", Some(&offer.text()));
        peer.send(&frame(&[&end.decryptor], &[], &record));
        let mut sealed = peer.receive().payload;
        let text = end.opener.open_in_place(&mut sealed).unwrap().text;
        let Ok(Plaintext::Payload(message)) = Plaintext::parse(text) else { panic!() };
        let notice = undeliverable::Notice::parse(message.tracing.unwrap()).unwrap();
        assert_eq!((notice.reason, notice.left), (DropReason::NoSuchAddress as u8, 2));
        assert_eq!(message.onward.first().unwrap().name, b"me");
    }

    data_before_the_install_waits_and_comes_first(engine) {
        let (at, ..) = channel(&mut engine);
        let mut peer = Peer::connect(at);
        engine.set(&name(DECRYPTOR, 2), Target::Handshake, 1 << FLOW);
        let mut end = End::new(2);
        peer.send(&frame(&[&end.decryptor], &["me"], b"message 3"));
        for number in 0..20u8 {
            peer.send(&end.frame(&["echo"], &["me"], &[number; 3000]));
        }
        let link = engine.wait(|notice| match notice {
            Notice::Punt { link, channel: None, message } => {
                let message = ockam_wire::Message::parse(&message.0).unwrap();
                assert_eq!(message.payload, b"message 3");
                assert_eq!(message.onward.first().unwrap().name, name(DECRYPTOR, 2).as_bytes());
                let first = message.return_route.first().unwrap();
                assert!(link.is_some());
                Some(String::from_utf8(first.name.to_vec()).unwrap())
            }
            _ => None,
        });
        engine.reaches(Counter::RecordsParked, 20);
        let command = install(&mut engine, 2, &[&link, PEERS], None);
        installed(&mut engine, command);
        for number in 20..40u8 {
            peer.send(&end.frame(&["echo"], &["me"], &[number; 3000]));
        }
        for number in 0..40u8 {
            assert_eq!(end.receive(&mut peer).2, [number; 3000]);
        }
    }

    too_much_before_the_install_ends_the_handshake_and_not_the_link(engine) {
        let (at, ..) = channel(&mut engine);
        let mut peer = Peer::connect(at);
        engine.set(&name(DECRYPTOR, 2), Target::Handshake, 1 << FLOW);
        let mut end = End::new(2);
        for _ in 0..20 {
            peer.send(&end.frame(&["echo"], &["me"], &[1; 16_000]));
        }
        engine.reaches(DropReason::ParkedLimit, 1);
        peer.send(&frame(&["echo"], &["me"], b"alive"));
        assert_eq!(peer.receive().payload, b"alive");
        let command = install(&mut engine, 2, &["x", PEERS], None);
        let Command::InstallChannel { request, .. } = command else { unreachable!() };
        engine.send(command, None);
        engine.wait(|notice| match notice {
            Notice::Refused { request: of, why, .. } if *of == request => {
                assert_eq!(*why, Refusal::Limit);
                Some(())
            }
            _ => None,
        });
        engine.at_last(DropReason::NoSuchAddress, || peer.send(&end.frame(&["echo"], &["me"], b"x")));
    }

    a_channel_ends_by_its_peer_by_control_or_by_its_time(engine) {
        let (at, mut peer, mut end) = channel(&mut engine);
        let record = end.seal(&CLOSE);
        peer.send(&frame(&[&end.decryptor], &[], &record));
        assert_eq!(closed(&mut engine, 1), ChannelEnd::ByPeer);
        // The cores may not have let go of it yet, but nothing comes through.
        peer.send(&end.frame(&["echo"], &["me"], b"x"));
        peer.send(&frame(&["echo"], &["me"], b"plain"));
        assert_eq!(peer.receive().payload, b"plain");
        assert_eq!(engine.counters().total(Counter::RecordsOpened), 1);

        let (mut peer, mut end) = another(&mut engine, at, 2);
        let request = engine.request();
        engine.send(Command::RetireChannel { request, channel: 2, close: true }, None);
        engine.applied(request);
        let mut sealed = peer.receive().payload;
        assert_eq!(Plaintext::parse(end.opener.open_in_place(&mut sealed).unwrap().text), Ok(Plaintext::Close));

        let mut peer = Peer::connect(at);
        peer.send(&frame(&["echo"], &["me"], b"up"));
        peer.receive();
        let (_, link) = link_of(&mut engine, peer.stream.local_addr().unwrap());
        let command = install(&mut engine, 3, &[&link, PEERS], Some(50));
        installed(&mut engine, command);
        assert_eq!(closed(&mut engine, 3), ChannelEnd::Expired);
        let mut sealed = peer.receive().payload;
        let mut end = End::new(3);
        assert_eq!(Plaintext::parse(end.opener.open_in_place(&mut sealed).unwrap().text), Ok(Plaintext::Close));
    }

    the_way_follows_the_peer(engine) {
        let (at, mut peer, mut end) = channel(&mut engine);
        peer.send(&end.frame(&["echo"], &["me"], b"one"));
        assert_eq!(end.receive(&mut peer).2, b"one");
        // Nonce 0 never moves it, later ones do; the return route that they came by is kept.
        let mut other = Peer::connect(at);
        let record = end.record(&["echo"], &["me"], b"two", None);
        other.send(&frame(&[&end.decryptor], &["through"], &record));
        let sealed = other.receive();
        assert_eq!(sealed.onward, [address("through"), address(PEERS)]);
        assert_eq!(end.open(&sealed.payload).2, b"two");
        drop(peer);
        let large = noise(100_000, 3);
        let record = end.record(&["echo"], &["me"], &large, None);
        other.send(&frame(&[&end.decryptor], &["through"], &record));
        let sealed = other.receive();
        assert!(end.open(&sealed.payload).2 == large);
    }

    an_initiators_channel_ends_with_its_link(engine) {
        let (at, ..) = channel(&mut engine);
        let mut peer = Peer::connect(at);
        peer.send(&frame(&["echo"], &["me"], b"up"));
        peer.receive();
        let (_, link) = link_of(&mut engine, peer.stream.local_addr().unwrap());
        let mut command = install(&mut engine, 2, &[&link, PEERS], None);
        if let Command::InstallChannel { follows_peer, .. } = &mut command {
            *follows_peer = false;
        }
        installed(&mut engine, command);
        drop(peer);
        assert_eq!(closed(&mut engine, 2), ChannelEnd::LinkGone);
    }

    a_channel_whose_way_is_gone_before_its_install_ends(engine) {
        let (at, ..) = channel(&mut engine);
        let mut peer = Peer::connect(at);
        peer.send(&frame(&["echo"], &["me"], b"up"));
        peer.receive();
        let (_, link) = link_of(&mut engine, peer.stream.local_addr().unwrap());
        peer.stream.shutdown(std::net::Shutdown::Both).unwrap();
        engine.reaches(CloseReason::PeerClosed, 1);
        let mut command = install(&mut engine, 2, &[&link, PEERS], None);
        if let Command::InstallChannel { follows_peer, .. } = &mut command {
            *follows_peer = false;
        }
        installed(&mut engine, command);
        assert_eq!(closed(&mut engine, 2), ChannelEnd::LinkGone);
    }

    what_a_channel_carries_ends_with_it(engine) {
        let (_, mut peer, mut end) = channel(&mut engine);
        for number in [2, 3] {
            let carrier = name(ENCRYPTOR, number - 1);
            let command = install(&mut engine, number, &[&carrier, PEERS], None);
            installed(&mut engine, command);
        }
        let record = end.seal(&CLOSE);
        peer.send(&frame(&[&end.decryptor], &[], &record));
        assert_eq!(closed(&mut engine, 1), ChannelEnd::ByPeer);
        assert_eq!(closed(&mut engine, 2), ChannelEnd::LinkGone);
        assert_eq!(closed(&mut engine, 3), ChannelEnd::LinkGone);
    }

    records_that_come_by_another_link_wait_for_the_install_too(engine) {
        let (at, ..) = channel(&mut engine);
        engine.set(&name(DECRYPTOR, 2), Target::Handshake, 1 << FLOW);
        let mut end = End::new(2);
        let mut first = Peer::connect(at);
        first.send(&frame(&[&end.decryptor], &["me"], b"message 3"));
        engine.reaches(Counter::Punts, 1);
        // On two cores one of these is on the other one.
        let mut others: Vec<Peer> = (0..2).map(|_| Peer::connect(at)).collect();
        for (number, other) in others.iter_mut().enumerate() {
            other.send(&end.frame(&["echo"], &["me"], &[number as u8; 9]));
            engine.reaches(Counter::RecordsParked, number as u64 + 1);
        }
        first.send(&frame(&["echo"], &["me"], b"up"));
        first.receive();
        let (_, link) = link_of(&mut engine, first.stream.local_addr().unwrap());
        let command = install(&mut engine, 2, &[&link, PEERS], None);
        installed(&mut engine, command);
        let mut answers: Vec<Vec<u8>> = (0..2).map(|_| end.receive(&mut first).2).collect();
        answers.sort();
        assert_eq!(answers, [vec![0; 9], vec![1; 9]]);
    }

    messages_pass_through_from_one_channel_into_another(engine) {
        let (at, mut peer, mut end) = channel(&mut engine);
        let (mut far, mut far_end) = another(&mut engine, at, 2);
        // The far peer has written to somebody behind the first channel, who may answer now.
        engine.set("out", Target::Hop, 1 << CHANNEL_FLOW);
        for payload in [noise(10, 1), noise(100_000, 2), noise(1 << 20, 3)] {
            peer.send(&end.frame(&["out", &name(ENCRYPTOR, 2), "there"], &["me"], &payload));
            let (onward, back, received) = far_end.receive(&mut far);
            assert!(received == payload);
            assert_eq!(onward, [address("there")]);
            assert_eq!(back, [address("out"), address(&name(ENCRYPTOR, 1)), address("me")]);
            far.send(&far_end.frame(&["out", &name(ENCRYPTOR, 1), "me"], &["there"], &payload));
            assert!(end.receive(&mut peer).2 == payload);
        }
    }

    plain_messages_enter_a_channel_one_behind_the_other(engine) {
        let (at, mut peer, mut end) = channel(&mut engine);
        engine.set("out", Target::Hop, 1 << CHANNEL_FLOW | 1 << FLOW);
        let mut plain = Peer::connect(at);
        // Without a tracing text nothing lies between a payload and the next frame, and all arrive at once.
        let payloads: Vec<Vec<u8>> = (0..60).map(|round| noise([9, 5000, 9000, 40_000][round % 4], round as u64 + 1)).collect();
        let out = name(ENCRYPTOR, 1);
        let frames: Vec<u8> = payloads.iter().flat_map(|payload| frame(&["out", &out, "in"], &["me"], payload)).collect();
        let mut sender = plain.stream.try_clone().unwrap();
        let writer = std::thread::spawn(move || std::io::Write::write_all(&mut sender, &frames).unwrap());
        for (round, payload) in payloads.iter().enumerate() {
            let (onward, back, received) = end.receive(&mut peer);
            assert!(received == *payload, "message {round} changed");
            assert_eq!((onward, back.len()), (vec![address("in")], 3));
        }
        writer.join().unwrap();
        plain.send(&frame(&["echo"], &["me"], b"alive"));
        assert_eq!(plain.receive().payload, b"alive");
    }

    a_channel_inside_a_channel(engine) {
        let (_, mut peer, mut end) = channel(&mut engine);
        let mut command = install(&mut engine, 2, &[&name(ENCRYPTOR, 1), PEERS], None);
        if let Command::InstallChannel { reachable, .. } = &mut command {
            *reachable = 1 << CHANNEL_FLOW;
        }
        installed(&mut engine, command);
        let mut inner = End::new(2);
        for payload in [noise(10, 1), noise(100_000, 2), noise(1 << 20, 3)] {
            let record = inner.record(&["echo"], &["me"], &payload, None);
            peer.send(&end.frame(&[&inner.decryptor], &[], &record));
            let (onward, back, sealed) = end.receive(&mut peer);
            assert_eq!((onward, back.len()), (vec![address(PEERS)], 0));
            let (onward, _, received) = inner.open(&sealed);
            assert!(onward == [address("me")] && received == payload);
        }
    }

    channels_that_lead_into_each_other_go_nowhere(engine) {
        let (_, mut peer, mut end) = channel(&mut engine);
        for (number, next) in [(2, 3), (3, 2)] {
            let command = install(&mut engine, number, &[&name(ENCRYPTOR, next), PEERS], None);
            installed(&mut engine, command);
        }
        engine.set("out", Target::Hop, 1 << CHANNEL_FLOW);
        peer.send(&end.frame(&["out", &name(ENCRYPTOR, 2), "x"], &["me"], b"x"));
        engine.reaches(DropReason::RouteTooLong, 1);
        peer.send(&end.frame(&["echo"], &["me"], b"alive"));
        assert_eq!(end.receive(&mut peer).2, b"alive");
    }

    control_speaks_through_a_channel(engine) {
        let (_, mut peer, mut end) = channel(&mut engine);
        engine.set("answer", Target::Control, 0);
        peer.send(&end.frame(&["answer"], &["x"], b"early"));
        engine.reaches(DropReason::NotAdmitted, 1);
        let request = engine.request();
        let message = frame(&[&name(ENCRYPTOR, 1), "echo"], &["answer"], b"ping")[4..].to_vec().into();
        engine.send(Command::Transmit { request, message }, None);
        engine.applied(request);
        let (onward, back, payload) = end.receive(&mut peer);
        assert_eq!((onward, back, payload), (vec![address("echo")], vec![address("answer")], b"ping".to_vec()));
        peer.send(&end.frame(&["answer"], &["echo"], b"pong"));
        engine.wait(|notice| match notice {
            Notice::Punt { channel: Some(1), message, .. } => {
                let message = ockam_wire::Message::parse(&message.0).unwrap();
                assert_eq!(message.payload, b"pong");
                assert_eq!(message.return_route.first().unwrap().name, name(ENCRYPTOR, 1).as_bytes());
                Some(())
            }
            _ => None,
        });
    }

    a_dump_says_everything_but_keys(engine) {
        let (_, mut peer, mut end) = channel(&mut engine);
        peer.send(&end.frame(&["echo"], &["me"], b"x"));
        end.receive(&mut peer);
        let request = engine.request();
        engine.send(Command::Dump { request }, None);
        let mut channels = 0;
        loop {
            let notice = engine.notice().0;
            match &notice {
                Notice::Channel { channel, decryptor, encryptor, way, flow_control, cookie, traffic, .. } => {
                    assert_eq!((*channel, *flow_control, &cookie.0[..]), (1, CHANNEL_FLOW, &[4, 4][..]));
                    assert_eq!(decryptor.0, name(DECRYPTOR, 1).as_bytes());
                    assert_eq!(encryptor.0, name(ENCRYPTOR, 1).as_bytes());
                    let way = ockam_wire::Message::parse(&way.0).unwrap().onward;
                    assert_eq!((way.len(), way.iter().last().unwrap().name), (2, PEERS.as_bytes()));
                    assert_eq!((traffic.sealed, traffic.opened, traffic.refused), (1, 1, 0));
                    channels += 1;
                }
                Notice::DumpEnd { .. } => break,
                _ => {}
            }
            let bytes = notice.to_bytes();
            let holds = |key: &[u8; 32]| bytes.windows(31).any(|window| *window == key[..31]);
            assert!(!holds(&INWARD) && !holds(&OUTWARD));
        }
        assert_eq!(channels, 1);
    }

    names_and_numbers_are_taken_once(engine) {
        let (..) = channel(&mut engine);
        let again = install(&mut engine, 1, &["x", PEERS], None);
        let on_a_service = |engine: &mut Engine| {
            let mut command = install(engine, 2, &["x", PEERS], None);
            if let Command::InstallChannel { decryptor, .. } = &mut command {
                *decryptor = b"echo".to_vec().into();
            }
            command
        };
        let on_a_service = on_a_service(&mut engine);
        for command in [again, on_a_service] {
            let Command::InstallChannel { request, .. } = command else { unreachable!() };
            engine.send(command, None);
            engine.wait(|notice| match notice {
                Notice::Refused { request: of, why, .. } if *of == request => {
                    assert_eq!(*why, Refusal::Exists);
                    Some(())
                }
                _ => None,
            });
        }
    }
}

/// Reliability K2: a channel that is gone leaves none of its keys in the engine's memory.
#[test]
fn keys_are_wiped() {
    for driver in ["uring", "epoll"] {
        let mut engine = Engine::start(driver, 2);
        let at = engine.listen(1, FLOW);
        engine.set("echo", Target::Echo, 1 << FLOW | 1 << CHANNEL_FLOW);
        let mut peer = Peer::connect(at);
        peer.send(&frame(&["echo"], &["me"], b"up"));
        peer.receive();
        let (_, link) = link_of(&mut engine, peer.stream.local_addr().unwrap());
        let key = |seed| <[u8; 32]>::try_from(noise(32, seed)).unwrap();
        let (inward, outward) = (key(77), key(99));
        let mut command = install(&mut engine, 1, &[&link, PEERS], None);
        if let Command::InstallChannel { sealing_key, opening_key, .. } = &mut command {
            (*sealing_key, *opening_key) = (Key::new(&outward), Key::new(&inward));
        }
        installed(&mut engine, command);
        let pid = engine.child.id();
        // An expanded key begins with the key; nothing else has it.
        assert_eq!([occurrences(pid, &inward), occurrences(pid, &outward)], [1, 1], "{driver}");
        let mut end =
            End { sealer: Sealer::new(Secret::new(inward)), opener: Opener::new(Secret::new(outward)), ..End::new(1) };
        // Over the first change of keys and the second, so that the first are used and gone.
        for round in 0..70 {
            peer.send(&end.frame(&["echo"], &["me"], &[round; 10]));
            assert_eq!(end.receive(&mut peer).2, [round; 10]);
        }
        assert_eq!([occurrences(pid, &inward), occurrences(pid, &outward)], [0, 0], "{driver}");

        let mut command = install(&mut engine, 2, &[&link, PEERS], None);
        if let Command::InstallChannel { sealing_key, opening_key, .. } = &mut command {
            (*sealing_key, *opening_key) = (Key::new(&outward), Key::new(&inward));
        }
        installed(&mut engine, command);
        let request = engine.request();
        engine.send(Command::RetireChannel { request, channel: 2, close: true }, None);
        engine.applied(request);
        // The close comes from the keys, so they were there; a core may still hold the channel for this tick.
        peer.receive();
        peer.send(&frame(&["echo"], &["me"], b"later"));
        peer.receive();
        engine.set("other", Target::Echo, 0);
        assert_eq!([occurrences(pid, &inward), occurrences(pid, &outward)], [0, 0], "{driver}");
    }
}

/// A peer's end of channel 1 that has sealed `count` messages.
fn end_at(count: u32) -> End {
    let mut end = End::new(1);
    (0..count).for_each(|_| drop(end.seal(b"")));
    end
}
