//! Secure channels over real processes: what somebody in the middle sees and can do, what a peer can do, who may open one.
//!
//! The peers are of this test and speak the wire themselves, so that each record can be repeated, changed and withheld.

use ockam_crypto::{CLOSE, PurposePublicKey};
use ockam_tests::{
    Channel, Direction, Home, Identity, Initiator, Inner, Manner, Middle, Node, PATIENCE, Peer, Process, Received,
    Responder, Through, addresses, flipped, frame, frame_to, noise, now, on_both_drivers, payload_of, text, wait_until,
};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Write;

/// A node, and a channel of a test's peer to it.
struct Met {
    home: Home,
    node: Node,
    peer: Peer,
    channel: Channel,
}

impl Met {
    #[track_caller]
    fn new(driver: &str) -> Met {
        let home = Home::new();
        let node = home.node("n1", &["--driver", driver]);
        let mut peer = Peer::connect(node.address);
        let mut channel = Initiator::open(&mut peer, &["api"], &Identity::new());
        channel.echoes(&mut peer, b"it is open");
        Met { home, node, peer, channel }
    }

    /// Frames that the engine dropped so far, for whatever reason.
    fn dropped(&self) -> u64 {
        dropped(&self.home, "n1")
    }

    /// How often these were the reasons.
    fn reasons(&self, reasons: &[&str]) -> u64 {
        reasons.iter().map(|reason| self.home.counter("n1", "drops", reason)).sum()
    }

    /// The channel works, and nothing that was sent before is still answered.
    #[track_caller]
    fn lives(&mut self) {
        self.channel.echoes(&mut self.peer, b"it lives on");
    }
}

fn dropped(home: &Home, node: &str) -> u64 {
    let stats = home.json(&["engine", "stats", "--at", node]);
    stats["drops"].as_object().expect("reasons").values().filter_map(Value::as_u64).sum()
}

/// Sends records into a channel whose handshake the node refuses, until they reach nothing. Gives whether the node said
/// that it refuses; any other answer fails the test.
#[track_caller]
fn is_refused(home: &Home, node: &str, peer: &mut Peer, channel: &mut Channel) -> bool {
    let unknown = || home.counter(node, "drops", "no_such_address");
    let before = unknown();
    wait_until(
        || {
            peer.send(&channel.frame_with(&["echo"], &["me"], b"is anybody there?"));
            unknown() > before
        },
        || "the node keeps the end of a channel that it must refuse".into(),
    );
    peer.send(&frame(&["echo"], &["plain"], b"the end"));
    let mut closed = false;
    loop {
        let received = peer.receive();
        if received.onward == addresses(&["plain"]) {
            return closed;
        }
        assert_eq!(received.onward, addresses(&[&channel.decryptor]));
        let said = channel.open(&received.payload);
        assert!(matches!(said, Ok(Inner::Close)) && !closed, "not refused, but answered: {said:?}");
        closed = true;
    }
}

/// Opens a channel by the command line and gives its address, `/service/` and 32 digits.
#[track_caller]
fn create(home: &Home, from: &str, to: &str, more: &[&str]) -> String {
    let address = home.ok(&[&["secure-channel", "create", "--from", from, "--to", to], more].concat());
    let name = address.strip_prefix("/service/").unwrap_or_else(|| panic!("{address:?} is no address"));
    assert!(name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit()), "{address:?}");
    address
}

/// Fails to open a channel, with this exit code. Gives what was said.
#[track_caller]
fn cannot_create(home: &Home, code: i32, from: &str, to: &str, more: &[&str]) -> String {
    home.fails(code, &[&["secure-channel", "create", "--from", from, "--to", to], more].concat())
}

// ---- in the middle

/// n1 -> middle -> n2 -> middle -> n3, and a channel from n1 to n3.
struct Line {
    home: Home,
    before_n2: Middle,
    before_n3: Middle,
    channel: String,
}

impl Line {
    fn new() -> Line {
        let home = Home::new();
        home.node("n1", &[]);
        let (two, three) = (home.node("n2", &[]), home.node("n3", &[]));
        let (before_n2, before_n3) = (Middle::before(two.address), Middle::before(three.address));
        let route = format!("{}{}", before_n2.route(), before_n3.route());
        // That what the middle sees can be looked through is shown with a message that is not sealed.
        assert_eq!(home.send("hello", &format!("{route}/service/uppercase"), &["--from", "n1"]), "HELLO");
        for middle in [&before_n2, &before_n3] {
            assert!(middle.saw(b"hello") && middle.saw(b"HELLO"), "what is not sealed is seen");
            middle.forget();
        }
        let channel = create(&home, "n1", &format!("{route}/service/api"), &[]);
        Line { home, before_n2, before_n3, channel }
    }

    #[track_caller]
    fn works(&self) {
        let to = format!("{}/service/uppercase", self.channel);
        assert_eq!(self.home.send("hello", &to, &["--from", "n1"]), "HELLO");
    }
}

#[test]
fn what_n2_forwards_says_nothing() {
    let line = Line::new();
    for _ in 0..40 {
        line.works();
    }
    for middle in [&line.before_n2, &line.before_n3] {
        let captured = middle.captured();
        for direction in [Direction::Onward, Direction::Back] {
            let count = captured.iter().filter(|(it, _)| *it == direction).count();
            assert!(count >= 40, "{count} frames were seen {direction:?}");
        }
        for word in ["hello", "HELLO", "uppercase", "echo"] {
            assert!(!middle.saw(word.as_bytes()), "n2 sees {word:?}");
        }
    }
}

#[test]
fn a_bit_that_n2_changes_is_rejected_at_the_end_and_the_channel_lives_on() {
    let line = Line::new();
    line.works();
    let to = format!("{}/service/uppercase", line.channel);
    // Between n2 and n3, so that it is n2 who seems to have done it; then on the way back, between n1 and n2.
    for (middle, direction, rejecting, bit) in [
        (&line.before_n3, Direction::Onward, "n3", 8 * 8 + 3),
        (&line.before_n2, Direction::Back, "n1", 8 * 8 + 100),
        (&line.before_n3, Direction::Onward, "n3", 8 * 40),
    ] {
        let before = line.home.counter(rejecting, "drops", "not_genuine");
        middle.rule(move |it, frame| vec![if it == direction { flipped(frame, bit) } else { frame }]);
        line.home.fails(75, &["message", "send", "hello", "--from", "n1", "--to", &to, "--timeout", "500ms"]);
        // It may arrive after the command has given up.
        wait_until(
            || line.home.counter(rejecting, "drops", "not_genuine") > before,
            || format!("{rejecting} does not count it"),
        );
        middle.pass_on();
        line.works();
    }
    let channels = line.home.json(&["secure-channel", "list", "--at", "n1"]);
    assert_eq!(channels.as_array().map(Vec::len), Some(1), "{channels}");
    assert!(channels[0].to_string().contains(line.channel.trim_start_matches("/service/")), "{channels}");
}

#[test]
fn what_n2_repeats_exchanges_or_keeps_arrives_once_or_not_at_all() {
    let line = Line::new();
    let (mut kept, mut count) = (None, 0_usize);
    // Each frame twice, now and then one later than the next, now and then one never.
    line.before_n3.rule(move |direction, frame| {
        count += 1;
        match count % 7 {
            _ if direction == Direction::Back => vec![frame.clone(), frame],
            3 => {
                kept = Some(frame);
                vec![]
            }
            5 => vec![],
            _ => kept.take().into_iter().chain([frame.clone(), frame]).collect(),
        }
    });
    let to = format!("{}/service/uppercase", line.channel);
    let (mut arrived, mut lost, mut timeout_ms) = (0, 0, 400);
    // On a machine that is too busy for an answer within the timeout all seem lost: those who wait longer see that not all
    // are.
    while arrived == 0 || lost == 0 {
        assert!(timeout_ms < 30_000, "{arrived} arrived, {lost} were lost");
        let timeout = format!("{timeout_ms}ms");
        for _ in 0..20 {
            let send = ["message", "send", "hello", "--from", "n1", "--to", &to, "--timeout", &timeout];
            let outcome = line.home.run(&send);
            match (outcome.code, &*outcome.stdout) {
                (Some(0), "HELLO") => arrived += 1,
                (Some(75), "") => lost += 1,
                _ => panic!("{outcome:?}"),
            }
        }
        timeout_ms *= 4;
    }
    assert!(line.home.counter("n3", "drops", "replayed") > 0 && line.home.counter("n1", "drops", "replayed") > 0);
    line.before_n3.pass_on();
    line.works();
}

// ---- records

on_both_drivers! {
    // P3: every bit of a small record, and of each other kind; the genuine one is accepted after all of that.
    no_changed_record_is_accepted(driver) {
        let mut met = Met::new(driver);
        let small = met.channel.seal(&["echo"], &["me"], &noise(32, 5));
        let refresh = met.channel.seal_text(&[&[0x82, 0x82, 0x01, 0x81, 0x82, 0x80, 0x80][..], &[0x40]].concat());
        let close = met.channel.seal_text(&CLOSE);
        let large = met.channel.seal(&["echo"], &["me"], &noise(100_000, 6));
        let before = met.dropped();
        let mut sent = 0;
        for record in [&small, &refresh, &close] {
            let whole = met.channel.frame(record);
            for bit in 0..8 * record.len() {
                met.peer.send(&flipped(whole.clone(), bit));
                sent += 1;
            }
        }
        let whole = met.channel.frame(&large);
        for bit in (0..8 * large.len()).step_by(8 * 1000 + 1) {
            met.peer.send(&flipped(whole.clone(), bit));
            sent += 1;
        }
        met.peer.send(&met.channel.frame(&large));
        assert!(met.channel.receive_message(&mut met.peer).payload == noise(100_000, 6));
        met.peer.send(&met.channel.frame(&small));
        assert_eq!(met.channel.receive_message(&mut met.peer).payload, noise(32, 5));
        met.lives();
        assert_eq!(met.dropped() - before, sent, "each of them was counted once");
        // But for those whose number was changed, and is too far away or known.
        assert!(met.reasons(&["not_genuine"]) >= sent - 3 * 64 - 1);
    }

    // P4: every length but the right one.
    no_cut_or_extended_record_is_accepted(driver) {
        let mut met = Met::new(driver);
        let record = met.channel.seal(&["echo"], &["me"], &noise(64, 5));
        let next = met.channel.seal(&["echo"], &["me"], b"next");
        let before = met.dropped();
        let mut wrong: Vec<Vec<u8>> = (0..record.len()).map(|length| record[..length].to_vec()).collect();
        wrong.extend((1..record.len()).map(|start| record[start..].to_vec()));
        wrong.extend((1..64).map(|more| [&record[..], &vec![0; more]].concat()));
        wrong.extend([[&record[..], &next].concat(), [&next[..], &record].concat()]);
        for record in &wrong {
            met.peer.send(&met.channel.frame(record));
        }
        met.peer.send(&[met.channel.frame(&next), met.channel.frame(&record)].concat());
        assert_eq!(met.channel.receive_message(&mut met.peer).payload, b"next");
        assert_eq!(met.channel.receive_message(&mut met.peer).payload, noise(64, 5));
        met.lives();
        assert_eq!(met.dropped() - before, wrong.len() as u64, "each of them was counted once");
    }

    // P1: a whole trace again, ten times, in the other direction, into another channel, and to another engine.
    nothing_is_accepted_twice(driver) {
        const TRACE: usize = 2000;
        let mut met = Met::new(driver);
        let (message_1, message_3);
        (message_1, message_3, met.channel) = {
            let (handshake, message_2) = Initiator::new().exchange(&mut met.peer, &["api"]);
            let message_1 = handshake.message_1;
            let decryptor = handshake.decryptor.clone();
            let (message_3, channel) = handshake.finish(message_2, &Identity::new());
            met.peer.send(&frame_to(&channel.way, &addresses(&[&decryptor]), &message_3));
            (message_1, message_3, channel)
        };
        let (mut trace, mut answers) = (Vec::new(), Vec::new());
        while trace.len() < TRACE {
            let start = trace.len();
            for number in start..start + 100 {
                let record = met.channel.seal(&["echo"], &["me"], &noise(number % 300, number as u64));
                met.peer.send(&met.channel.frame(&record));
                trace.push(record);
            }
            for number in start..start + 100 {
                let received = met.peer.receive();
                let Ok(Inner::Message(message)) = met.channel.open(&received.payload) else { panic!("an answer") };
                assert_eq!(message.payload, noise(number % 300, number as u64));
                answers.push(received.payload);
            }
        }
        let before = met.dropped();
        let mut sent = 0;
        let mut again = |met: &mut Met, way: &Channel, records: &[Vec<u8>]| {
            for record in records {
                met.peer.send(&way.frame(record));
                sent += 1;
            }
            // Nothing of it was answered, neither in this channel nor beside it.
            met.peer.echoes(b"nothing else comes");
        };
        let other = Initiator::open(&mut met.peer, &["api"], &Identity::new());
        let mut other = { let mut other = other; other.echoes(&mut met.peer, b"another"); other };
        let channel = std::mem::replace(&mut met.channel, other);
        for _ in 0..10 {
            again(&mut met, &channel, &trace);
        }
        // Its own records, and those of one channel in the other.
        again(&mut met, &channel, &answers);
        other = std::mem::replace(&mut met.channel, channel);
        again(&mut met, &other, &trace);
        again(&mut met, &other, &answers);
        met.lives();
        other.echoes(&mut met.peer, b"that one, too");
        assert_eq!(met.dropped() - before, sent, "each of them was counted once");
        assert!(met.reasons(&["replayed", "outside_window"]) >= 10 * TRACE as u64);

        // Another engine has nobody at these addresses, and the same first message leads to another channel.
        met.home.ok(&["engine", "restart", "--at", "n1"]);
        met.peer = Peer::connect(met.node.address);
        for record in &trace[..100] {
            met.peer.send(&met.channel.frame(record));
        }
        met.peer.send(&frame(&["api"], &[&met.channel.decryptor], &message_1));
        let message_2 = met.peer.receive();
        assert_ne!(message_2.back, met.channel.way);
        met.peer.send(&frame_to(&message_2.back, &addresses(&[&met.channel.decryptor]), &message_3));
        met.channel.way = message_2.back;
        let unknown = met.reasons(&["no_such_address"]);
        wait_until(
            || {
                trace.iter().take(50).for_each(|record| met.peer.send(&met.channel.frame(record)));
                met.peer.echoes(b"nothing else comes");
                met.reasons(&["no_such_address"]) > unknown
            },
            || "a handshake that was recorded is not given up".into(),
        );
    }

    // P2, P8: any order, inside and outside of the window and across changes of the key, against the rule itself.
    any_order_is_accepted_as_far_as_the_window_goes(driver) {
        const LAST: i64 = 2000;
        let mut met = Met::new(driver);
        for seed in 1..=5_u64 {
            let mut channel = Initiator::open(&mut met.peer, &["api"], &Identity::new());
            let number = |nonce: u64| nonce.to_be_bytes();
            let records: Vec<Vec<u8>> =
                (0..=LAST as u64 + 1).map(|nonce| channel.seal(&["echo"], &["me"], &number(nonce))).collect();
            let mut window = Window::default();
            let mut choices = noise(100_000, seed).into_iter();
            let mut accepted_in_all = 0;
            while window.highest < 1500 {
                let mut accepted = Vec::new();
                let mut frames = Vec::new();
                for _ in 0..100 {
                    let choice = choices.by_ref().take(2).fold(0, |choice, byte| choice << 8 | i64::from(byte));
                    // Mostly near, forward a little more often than back, and over the edge on both sides.
                    let step = match choice % 4 {
                        0 => choice / 4 % 81 - 40,
                        1 => -(choice / 4 % 8),
                        _ => choice / 4 % 5,
                    };
                    let nonce = (window.highest as i64 + step).clamp(0, LAST) as u64;
                    frames.extend(channel.frame(&records[nonce as usize]));
                    if window.accepts(nonce) {
                        accepted.push(nonce);
                    }
                }
                met.peer.send(&frames);
                for nonce in &accepted {
                    assert_eq!(channel.receive_message(&mut met.peer).payload, number(*nonce), "seed {seed}");
                }
                accepted_in_all += accepted.len();
            }
            met.peer.send(&channel.frame(&records[window.highest as usize + 1]));
            assert_eq!(channel.receive_message(&mut met.peer).payload, number(window.highest + 1), "seed {seed}");
            assert!((200..1500).contains(&accepted_in_all), "{accepted_in_all} were accepted: that tells little");
        }
        assert!(met.reasons(&["replayed"]) > 100 && met.reasons(&["outside_window"]) > 100);
    }

    // K.4, with the edges one by one.
    the_window_has_its_published_edges(driver) {
        let mut met = Met::new(driver);
        let mut channel = Initiator::open(&mut met.peer, &["api"], &Identity::new());
        let records: Vec<Vec<u8>> = (0..200_u64).map(|it| channel.seal(&["echo"], &["me"], &it.to_be_bytes())).collect();
        let mut script: Vec<(u64, bool)> = vec![
            (0, true), (1, true), (0, false), (34, false), (33, true), (1, false), (34, true), (35, true), (33, false),
            (34, false), (64, true), (31, false), (96, true), (128, true),
        ];
        script.extend((97..=127).chain(129..=160).map(|nonce| (nonce, true)));
        for (nonce, accepted) in script {
            met.peer.send(&channel.frame(&records[nonce as usize]));
            if accepted {
                assert_eq!(channel.receive_message(&mut met.peer).payload, nonce.to_be_bytes());
            } else {
                met.peer.echoes(b"nothing else comes");
            }
        }
    }

    // P7: the nonce that derives keys numbers no message, whatever it seals.
    the_last_nonce_is_never_accepted(driver) {
        let mut met = Met::new(driver);
        let record = met.channel.seal(&["echo"], &["me"], b"x");
        let before = met.dropped();
        for nonce in [u64::MAX, u64::MAX - 1, 1 << 63, 1 << 32] {
            let forged = [&nonce.to_be_bytes(), &record[8..]].concat();
            met.peer.send(&met.channel.frame(&forged));
        }
        met.lives();
        assert_eq!(met.dropped() - before, 4);
    }

    // What a genuine peer says may still be nonsense.
    nonsense_of_a_genuine_peer_is_dropped(driver) {
        let mut met = Met::new(driver);
        let before = met.dropped();
        let texts: [&[u8]; 9] = [
            b"",
            b"\x00",
            b"no CBOR at all",
            &[0x82, 0x82, 0x00, 0x81],
            &[0x82, 0x82, 0x00, 0x80, 0x40],
            &[0x82, 0x82, 0x03, 0x80, 0x40],
            &[0x82, 0x82, 0x00, 0x81, 0x83, 0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x82, 0x82, 0x00, 0x81, 0x83, 0x80, 0x80, 0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x9f; 64],
        ];
        for text in texts {
            let record = met.channel.seal_text(text);
            met.peer.send(&met.channel.frame(&record));
        }
        met.lives();
        assert_eq!(met.reasons(&["bad_plaintext"]), texts.len() as u64);
        assert_eq!(met.dropped() - before, texts.len() as u64);
        // Credentials are for control to look at, and are no nonsense for the engine.
        let record = met.channel.seal_text(&[0x82, 0x82, 0x01, 0x81, 0x82, 0x80, 0x80, 0x40]);
        met.peer.send(&met.channel.frame(&record));
        met.lives();
        assert_eq!(met.home.counter("n1", "counters", "refreshes_passed"), 1);
    }

    payloads_of_every_size_come_back(driver) {
        let mut met = Met::new(driver);
        for length in [0, 1, 15, 16, 17, 255, 256, 4095, 4096, 65_535, 131_072, 139_000, 140_000, 300_000, 1 << 20, 5 << 20] {
            met.channel.echoes(&mut met.peer, &noise(length, 3));
        }
        // Many at once, across changes of the key.
        for _ in 0..10 {
            let frames: Vec<u8> = (0..100_u8).flat_map(|it| met.channel.frame_with(&["echo"], &["me"], &[it])).collect();
            met.peer.send(&frames);
            for number in 0..100_u8 {
                assert_eq!(met.channel.receive_message(&mut met.peer).payload, [number]);
            }
        }
    }
}

/// What a receiver accepts (`wire.md` E.6), in the plainest form.
#[derive(Default)]
struct Window {
    highest: u64,
    seen: BTreeSet<u64>,
}

impl Window {
    fn accepts(&mut self, nonce: u64) -> bool {
        let accepted = nonce.abs_diff(self.highest) <= 32 && self.seen.insert(nonce);
        self.highest = if accepted { self.highest.max(nonce) } else { self.highest };
        accepted
    }
}

// ---- handshakes

/// A process that does nothing until this is dropped.
struct Stopped(Process);

impl Stopped {
    fn new(process: Process) -> Stopped {
        process.signal(Signal::STOP);
        Stopped(process)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.signal(Signal::CONT);
    }
}

on_both_drivers! {
    // Who needs no answer to message 3 sends at once. It waits in the engine until control has decided.
    what_comes_right_behind_message_3_arrives_in_order(driver) {
        let met = Met::new(driver);
        let mut peer = Peer::connect(met.node.address);
        let (handshake, message_2) = Initiator::new().exchange(&mut peer, &["api"]);
        let decryptor = handshake.decryptor.clone();
        let (message_3, mut channel) = handshake.finish(message_2, &Identity::new());
        let before = met.home.counter("n1", "counters", "records_parked");
        let control = Stopped::new(met.node.control);
        let mut bytes = frame_to(&channel.way, &addresses(&[&decryptor]), &message_3);
        for number in 0..100_u8 {
            bytes.extend(channel.frame_with(&["echo"], &["me"], &noise(1 + usize::from(number) * 20, number.into())));
        }
        peer.send(&bytes);
        // The engine has seen all of it when it answers this, and control has done nothing.
        peer.echoes(b"all of it has arrived");
        drop(control);
        for number in 0..100_u8 {
            let message = channel.receive_message(&mut peer);
            assert!(message.payload == noise(1 + usize::from(number) * 20, number.into()), "message {number}");
        }
        channel.echoes(&mut peer, b"and so on");
        assert_eq!(met.home.counter("n1", "counters", "records_parked") - before, 100);
        assert_eq!(met.reasons(&["parked_limit"]), 0);
    }

    // More than waits for a handshake ends that handshake. The link, and the other channel on it, stay.
    too_much_behind_message_3_ends_the_handshake_and_nothing_else(driver) {
        let mut met = Met::new(driver);
        let (handshake, message_2) = Initiator::new().exchange(&mut met.peer, &["api"]);
        let decryptor = handshake.decryptor.clone();
        let (message_3, mut channel) = handshake.finish(message_2, &Identity::new());
        let control = Stopped::new(met.node.control);
        met.peer.send(&frame_to(&channel.way, &addresses(&[&decryptor]), &message_3));
        for _ in 0..5 {
            met.peer.send(&channel.frame_with(&["echo"], &["me"], &noise(60 << 10, 1)));
        }
        met.peer.echoes(b"all of it has arrived");
        met.lives();
        drop(control);
        is_refused(&met.home, "n1", &mut met.peer, &mut channel);
        assert!(met.reasons(&["parked_limit"]) >= 1);
        met.lives();
        let mut again = Initiator::open(&mut met.peer, &["api"], &Identity::new());
        again.echoes(&mut met.peer, b"the next handshake is welcome");
    }

    // 16 MiB in all: many handshakes that wait cannot take more than that, and take nothing from channels that live.
    what_waits_for_handshakes_is_bounded(driver) {
        let mut met = Met::new(driver);
        let before = met.node.engine.resident_bytes();
        let mut waiting: Vec<(Peer, Channel, Vec<u8>)> = (0..100)
            .map(|_| {
                let mut peer = Peer::connect(met.node.address);
                let (handshake, message_2) = Initiator::new().exchange(&mut peer, &["api"]);
                let decryptor = handshake.decryptor.clone();
                let (message_3, channel) = handshake.finish(message_2, &Identity::new());
                let message_3 = frame_to(&channel.way, &addresses(&[&decryptor]), &message_3);
                (peer, channel, message_3)
            })
            .collect();
        let control = Stopped::new(met.node.control);
        for (peer, channel, message_3) in &mut waiting {
            peer.send(message_3);
            for _ in 0..4 {
                peer.send(&channel.frame_with(&["echo"], &["me"], &noise(60 << 10, 1)));
            }
            peer.echoes(b"all of it has arrived");
        }
        let used = met.node.engine.resident_bytes();
        assert!(used < before + (16 << 20) + (24 << 20), "{used} bytes in memory, {before} before");
        met.lives();
        drop(control);
        assert!(met.reasons(&["parked_limit"]) >= 1);
        met.lives();
        drop(waiting);
        let mut again = Initiator::open(&mut met.peer, &["api"], &Identity::new());
        again.echoes(&mut met.peer, b"the next handshake is welcome");
    }
}

/// What a handshake can be told instead of its message 3.
#[test]
fn only_the_genuine_message_3_opens_a_channel() {
    let mut met = Met::new("epoll");
    let identity = Identity::new();
    let handshake = |met: &mut Met| {
        let (handshake, message_2) = Initiator::new().exchange(&mut met.peer, &["api"]);
        let (message_1, decryptor, second) =
            (handshake.message_1, handshake.decryptor.clone(), message_2.payload.clone());
        let (message_3, channel) = handshake.finish(message_2, &identity);
        (message_1.to_vec(), second, message_3, channel, decryptor)
    };
    let (.., earlier, _, _) = handshake(&mut met);
    let (_, _, genuine, ..) = handshake(&mut met);
    // Each makes something else of the three messages.
    type Wrong = Box<dyn Fn(&[u8], &[u8], &[u8]) -> Vec<u8>>;
    let mut wrong: Vec<Wrong> = vec![
        Box::new(|_, _, _| Vec::new()),
        Box::new(|_, _, _| noise(387, 4)),
        Box::new(|_, _, _| noise(70_000, 4)),
        Box::new(|message_1, _, _| message_1.to_vec()),
        Box::new(|_, message_2, _| message_2.to_vec()),
        Box::new(move |_, _, _| earlier.clone()),
        Box::new(|_, _, message_3| [message_3, b"x"].concat()),
    ];
    for length in (0..genuine.len()).step_by(40) {
        wrong.push(Box::new(move |_, _, message_3| message_3[..length].to_vec()));
    }
    for bit in (0..8 * genuine.len()).step_by(8 * 24 + 5) {
        wrong.push(Box::new(move |_, _, message_3| {
            let mut message = message_3.to_vec();
            message[bit / 8] ^= 1 << (bit % 8);
            message
        }));
    }
    for wrong in wrong {
        let (message_1, message_2, message_3, mut channel, decryptor) = handshake(&mut met);
        let back = addresses(&[&decryptor]);
        met.peer.send(&frame_to(&channel.way, &back, &wrong(&message_1, &message_2, &message_3)));
        // The genuine one comes too late, and what it would have opened is not there.
        met.peer.send(&frame_to(&channel.way, &back, &message_3));
        assert!(!is_refused(&met.home, "n1", &mut met.peer, &mut channel), "who proved nothing is told nothing");
    }
    // A second one is no record; the channel that the first one opened does not mind.
    let (_, _, message_3, mut channel, decryptor) = handshake(&mut met);
    let message_3 = frame_to(&channel.way, &addresses(&[&decryptor]), &message_3);
    met.peer.send(&message_3);
    channel.echoes(&mut met.peer, b"open");
    let before = met.dropped();
    met.peer.send(&message_3);
    channel.echoes(&mut met.peer, b"still open");
    assert_eq!(met.dropped() - before, 1);
    met.lives();
}

#[test]
fn only_message_1_begins_a_handshake() {
    let mut met = Met::new("epoll");
    let record = met.channel.seal(&["echo"], &["me"], b"x");
    for wrong in [&b""[..], b"x", &noise(31, 1), &noise(65_536, 1), &noise(200_000, 1)] {
        met.peer.send(&frame(&["api"], &["me"], wrong));
    }
    // A key that would make a secret that everybody knows.
    met.peer.send(&frame(&["api"], &["me"], &[0; 32]));
    met.peer.send(&frame(&["api"], &["me"], &[&[1], &[0; 31][..]].concat()));
    // Nowhere to answer to.
    met.peer.send(&frame(&["api"], &[], &noise(32, 1)));
    met.peer.echoes(b"nothing else comes");
    met.lives();
    // Any 32 bytes are a key, and what follows them is ignored, as real nodes do; it opens nothing by itself.
    met.peer.send(&frame(&["api"], &["me"], &record[..40]));
    assert_eq!(met.peer.receive().onward, addresses(&["me"]));
    met.lives();
    let mut again = Initiator::open(&mut met.peer, &["api"], &Identity::new());
    again.echoes(&mut met.peer, b"the next handshake is welcome");
}

/// Who does not prove to be who they say they are, each in its own way (P5, P6). `victim` is honest.
fn liars(victim: &Identity) -> Vec<(&'static str, Identity)> {
    let key_of = |identity: &Identity| PurposePublicKey::SecureChannel(*identity.static_key.public());
    let (hour_ago, in_an_hour) = (now() - 3600 + 60, now() + 3600);
    let with = |why: &'static str, make: &dyn Fn(&Identity) -> Vec<u8>| {
        let mut liar = Identity::new();
        liar.payload = make(&liar);
        (why, liar)
    };
    // The parts of a payload, to be put together wrongly.
    let join = |history: &[u8], attestation: &[u8]| [&[0x83], history, attestation, &[0x80]].concat();
    let word = |identity: &Identity, key| identity.attestation(key, hour_ago, in_an_hour).encoded().to_vec();
    let mut liars = vec![
        with("somebody else's identity and key", &|_| victim.payload.clone()),
        with("the own identity for somebody else's key", &|liar| {
            liar.payload_for(key_of(victim), hour_ago, in_an_hour)
        }),
        with("somebody else's identity, the own word for it", &|liar| {
            join(victim.history.encoded(), &word(liar, key_of(liar)))
        }),
        with("the own identity, somebody else's word for it", &|liar| {
            join(liar.history.encoded(), &word(victim, key_of(liar)))
        }),
        with("a key for credentials", &|liar| {
            let key = PurposePublicKey::CredentialSigning(liar.signing_key.public());
            liar.payload_for(key, hour_ago, in_an_hour)
        }),
        with("an attestation that has expired", &|liar| liar.payload_for(key_of(liar), hour_ago, now() - 10)),
        with("an attestation from the future", &|liar| liar.payload_for(key_of(liar), now() + 600, now() + 3600)),
        with("a change instead of an attestation", &|liar| join(liar.history.encoded(), &liar.history.encoded()[1..])),
        with("an attestation instead of a history", &|liar| {
            let word = word(liar, key_of(liar));
            join(&[&[0x81], &word[..]].concat(), &word)
        }),
        with("no history", &|liar| join(&[0x80], &word(liar, key_of(liar)))),
        with("nothing", &|_| Vec::new()),
        with("no CBOR", &|_| noise(300, 9)),
        with("an array without end", &|_| vec![0x9b; 300]),
        with("deep arrays", &|_| vec![0x81; 60_000]),
        with("half of the payload", &|liar| liar.payload[..liar.payload.len() / 2].to_vec()),
    ];
    // Signatures and what they sign.
    for at in [20, 60, 100, 150, 200, 280] {
        liars.push(with("a changed byte", &|liar| {
            let mut payload = liar.payload.clone();
            payload[at] ^= 1;
            payload
        }));
    }
    liars
}

#[test]
fn nobody_is_taken_for_somebody_else_by_a_listener() {
    let mut met = Met::new("epoll");
    let victim = Identity::new();
    for (why, liar) in liars(&victim) {
        let mut channel = Initiator::open(&mut met.peer, &["api"], &liar);
        eprintln!("{why}");
        is_refused(&met.home, "n1", &mut met.peer, &mut channel);
    }
    // Who is met once with a newer key is not met with the older one again.
    let newer = victim.rotated();
    for identity in [&victim, &newer, &newer] {
        Initiator::open(&mut met.peer, &["api"], identity).echoes(&mut met.peer, b"honest");
    }
    let mut outdated = Initiator::open(&mut met.peer, &["api"], &victim);
    is_refused(&met.home, "n1", &mut met.peer, &mut outdated);
    Initiator::open(&mut met.peer, &["api"], &newer).echoes(&mut met.peer, b"honest");
    met.lives();
}

#[test]
fn nobody_is_taken_for_somebody_else_by_who_opens_a_channel() {
    let home = Home::new();
    home.node("n1", &[]);
    let victim = Identity::new();
    for (why, liar) in liars(&victim) {
        let served = Responder::new();
        let route = served.route();
        let served = std::thread::spawn(move || {
            // It need not come to message 3, so that a whole handshake cannot be waited for.
            let mut peer = served.link();
            let message_1 = peer.receive();
            Responder::answer(&mut peer, message_1, &liar);
            let more = peer.receive_or_end();
            assert_eq!(more, None, "a liar gets no message 3");
        });
        // 77 is for lies, 76 for what is no claim at all.
        let failed = home.run(&["secure-channel", "create", "--from", "n1", "--to", &route]);
        let code = failed.code.filter(|code| [76, 77].contains(code)).unwrap_or(77);
        let said = failed.fails(code);
        assert!(said.contains("malformed") || code == 77, "{why}: {said}");
        served.join().expect("the handshake ends there");
    }
    let served = Responder::new().start(victim, Manner::Serves);
    create(&home, "n1", &served.route, &[]);
    let channels = home.json(&["secure-channel", "list", "--at", "n1"]);
    assert_eq!(channels.as_array().map(Vec::len), Some(1), "{channels}");
}

// ---- channels as a whole

on_both_drivers! {
    a_channel_that_the_peer_closes_is_gone(driver) {
        let mut met = Met::new(driver);
        let mut other = Initiator::open(&mut met.peer, &["api"], &Identity::new());
        other.echoes(&mut met.peer, b"another");
        let before = met.reasons(&["no_such_address", "channel_closed"]);
        let (close, after) = (other.seal_text(&CLOSE), other.seal(&["echo"], &["me"], b"after the end"));
        met.peer.send(&[other.frame(&close), other.frame(&after), other.frame(&after)].concat());
        met.peer.echoes(b"nothing else comes");
        assert_eq!(met.reasons(&["no_such_address", "channel_closed"]) - before, 2);
        met.lives();
    }

    two_channels_share_a_link(driver) {
        let mut met = Met::new(driver);
        let mut others: Vec<Channel> = (0..20)
            .map(|_| Initiator::open(&mut met.peer, &["api"], &Identity::new()))
            .collect();
        let ends: BTreeSet<String> = others.iter().map(|it| format!("{:?}", it.way)).collect();
        assert_eq!(ends.len(), others.len(), "each has an end of its own");
        for round in 0..70_u8 {
            for channel in &mut others {
                met.peer.send(&channel.frame_with(&["echo"], &["me"], &[round]));
            }
            for channel in &mut others {
                assert_eq!(channel.receive_message(&mut met.peer).payload, [round]);
            }
        }
        met.lives();
    }

    // Three, one in the other: the wire, the outer ones and the inner ones all count by themselves.
    channels_go_through_channels(driver) {
        let mut met = Met::new(driver);
        let identity = Identity::new();
        let mut outer = Through { carrier: &mut met.peer, channel: &mut met.channel };
        let mut second = Initiator::open(&mut outer, &["api"], &identity);
        second.echoes(&mut outer, b"two deep");
        let mut middle = Through { carrier: &mut outer, channel: &mut second };
        let mut third = Initiator::open(&mut middle, &["api"], &identity);
        for length in [0, 1, 100, 10_000, 200_000] {
            third.echoes(&mut middle, &noise(length, 2));
        }
        for number in 0..100_u8 {
            third.echoes(&mut middle, &[number]);
        }
        // What carries the others ends: they have no way then.
        second.echoes(&mut outer, b"still two deep");
        met.lives();
    }

    // An initiator comes by another way, and the answers follow (`wire.md` E.5). Nobody else can make them.
    the_way_follows_the_initiator_and_nobody_else(driver) {
        let mut met = Met::new(driver);
        met.lives();
        let mut second = Peer::connect(met.node.address);
        met.channel.echoes(&mut second, b"by another way");
        // Late ones of the old way are answered, and change nothing.
        let late = met.channel.seal(&["echo"], &["me"], b"late");
        met.channel.echoes(&mut second, b"newer");
        met.peer.send(&met.channel.frame(&late));
        assert_eq!(met.channel.receive_message(&mut second).payload, b"late");
        // An attacker has what was sent, and a way of his own.
        let mut attacker = Peer::connect(met.node.address);
        let heard = met.channel.seal(&["echo"], &["me"], b"heard by others");
        second.send(&met.channel.frame(&heard));
        assert_eq!(met.channel.receive_message(&mut second).payload, b"heard by others");
        attacker.send(&met.channel.frame(&heard));
        let next = met.channel.seal(&["echo"], &["me"], b"forged");
        attacker.send(&flipped(met.channel.frame(&next), 8 * 8 + 1));
        attacker.echoes(b"the node has seen all of that");
        met.channel.echoes(&mut second, b"still here");
        attacker.echoes(b"nothing else comes");
        // The return route of the sealed frame is honoured.
        let record = met.channel.seal(&["echo"], &["me"], b"with a hop");
        second.send(&frame_to(&met.channel.way, &addresses(&["xhop"]), &record));
        let received = second.receive();
        assert_eq!(received.onward, addresses(&["xhop", &met.channel.decryptor]));
        assert!(matches!(met.channel.open(&received.payload), Ok(Inner::Message(message)) if message.payload == b"with a hop"));
        // A responder whose link is gone waits for the initiator to come by another.
        drop((second, std::mem::replace(&mut met.peer, Peer::connect(met.node.address))));
        met.home.json(&["engine", "stats", "--at", "n1"]);
        met.lives();
    }

    // An initiator that uses eight connections at once, on all cores: everything comes back once, by one of them.
    records_may_come_by_many_connections(driver) {
        let Met { home, node, peer, mut channel } = Met::new(driver);
        let mut peers = vec![peer];
        peers.extend((0..7).map(|_| Peer::connect(node.address)));
        let mut writers: Vec<_> = peers.iter().map(|peer| peer.stream.try_clone().unwrap()).collect();
        let (tell, received) = std::sync::mpsc::channel();
        for mut peer in peers {
            let tell = tell.clone();
            std::thread::spawn(move || {
                peer.stream.set_read_timeout(None).unwrap();
                // The test may have had enough.
                while let Some(received) = peer.receive_or_end() && tell.send(received).is_ok() {}
            });
        }
        let payload = |number: u64| {
            let length = if number.is_multiple_of(50) { 60_000 } else { number as usize % 3000 };
            [&number.to_be_bytes()[..], &noise(length, number)].concat()
        };
        for round in 0..200_u64 {
            // Half of the window: however they overtake each other, none is too late.
            let numbers = round * 16..round * 16 + 16;
            for number in numbers.clone() {
                let frame = channel.frame_with(&["echo"], &["me"], &payload(number));
                writers[number as usize * 7 % 8].write_all(&frame).unwrap();
            }
            let mut missing: BTreeSet<u64> = numbers.collect();
            while !missing.is_empty() {
                let answer = received.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{missing:?} are lost"));
                let Ok(Inner::Message(message)) = channel.open(&answer.payload) else { panic!("an answer") };
                let number = u64::from_be_bytes(message.payload[..8].try_into().unwrap());
                assert!(missing.remove(&number) && message.payload == payload(number), "{number}");
            }
        }
        drop(writers);
        assert_eq!(dropped(&home, "n1"), 0);
    }

    // What comes out of a channel reaches what a peer may reach, and nothing else.
    a_peer_reaches_what_it_may_and_nothing_else(driver) {
        let mut met = Met::new(driver);
        met.home.ok(&["service", "start", "hop", "--at", "n1"]);
        met.home.node("n2", &[]);
        let itself = format!("1#{}", met.node.address);
        let other = format!("1#{}", met.home.show("n2").address);
        let link = met.home.ok(&["tcp-connection", "create", "--from", "n1", "--to", &other[2..]]);
        let link = link.trim_start_matches("/worker/").to_owned();
        met.peer.send(&met.channel.frame_with(&["uppercase"], &["me"], &text("hello")));
        assert_eq!(met.channel.receive_message(&mut met.peer).payload, text("HELLO"));
        let before = met.dropped();
        let routes: Vec<Vec<&str>> = vec![
            vec!["hop", "echo"],
            vec![&link, "echo"],
            vec![&itself, "echo"],
            vec![&other, "echo"],
            vec!["_internal.nodemanager"],
            vec!["nothing"],
            vec![],
        ];
        for route in &routes {
            met.peer.send(&met.channel.frame_with(route, &["me"], b"x"));
        }
        met.lives();
        // An empty route is a heartbeat on a link; here it may be either.
        assert!(met.dropped() - before >= routes.len() as u64 - 1, "{}", met.dropped() - before);
        assert!(met.reasons(&["transit_refused"]) >= 2 && met.reasons(&["not_admitted"]) >= 2);
        // Nor is anything else there to be reached from outside: the ends of channels open what is sealed for them.
        let plain = frame_to(&met.channel.way, &addresses(&["me"]), &frame(&["echo"], &["me"], b"x"));
        met.peer.send(&plain);
        met.peer.echoes(b"nothing else comes");
        met.lives();
    }
}

// ---- who may open one

#[test]
fn a_listener_admits_whom_it_names() {
    let home = Home::new();
    home.node("n1", &[]);
    let node = home.node("n2", &[]);
    let (friend, stranger) = (Identity::new(), Identity::new());
    home.ok(&[
        "secure-channel-listener",
        "create",
        "friends",
        "--at",
        "n2",
        "--authorized",
        &friend.identifier(),
        "--authorized",
        &Identity::new().identifier(),
    ]);
    let mut peer = Peer::connect(node.address);
    Initiator::open(&mut peer, &["friends"], &friend).echoes(&mut peer, b"welcome");
    // The stranger is told, under the seal of the channel that it does not get, and nothing more.
    let mut refused = Initiator::open(&mut peer, &["friends"], &stranger);
    assert!(is_refused(&home, "n2", &mut peer, &mut refused), "who proved to be somebody is told");
    // The other listener admits anybody.
    Initiator::open(&mut peer, &["api"], &stranger).echoes(&mut peer, b"welcome");
    // By the command line: it says who refused.
    let said = cannot_create(&home, 77, "n1", &format!("{}/service/friends", node.route()), &[]);
    assert!(said.contains(&refused.peer) && said.contains("refused"), "{said}");
    assert_eq!(home.json(&["secure-channel", "list", "--at", "n1"]), serde_json::json!([]));
}

#[test]
fn who_opens_a_channel_says_who_must_be_there() {
    let home = Home::new();
    home.node("n1", &[]);
    let identity = Identity::new();
    let (there, other) = (identity.identifier(), Identity::new().identifier());
    let served = Responder::new().start(identity, Manner::Serves);
    let said = cannot_create(&home, 77, "n1", &served.route, &["--authorized", &other]);
    assert!(said.contains(&there), "it does not say who was met: {said}");
    let channel = create(&home, "n1", &served.route, &["--authorized", &other, "--authorized", &there]);
    assert_eq!(home.send("hello", &format!("{channel}/service/echo"), &["--from", "n1"]), "hello");
    assert!(served.met().starts_with('I'));
    assert!(served.peers.try_recv().is_err(), "who is not authorized gets no message 3");
}

#[test]
fn a_refusal_is_told_from_silence() {
    let home = Home::new();
    home.node("n1", &[]);
    let identity = Identity::new();
    let there = identity.identifier();
    let refuses = Responder::new().start(identity, Manner::Refuses);
    let said = cannot_create(&home, 77, "n1", &refuses.route, &[]);
    assert!(said.contains(&there) && said.contains("refused") && said.contains(&refuses.met()), "{said}");
    for manner in [Manner::KeepsSilent, Manner::IsDead] {
        let silent = Responder::new().start(Identity::new(), manner);
        let said = cannot_create(&home, 75, "n1", &silent.route, &["--timeout", "700ms"]);
        assert!(said.contains("--timeout"), "{said}");
    }
    // Nothing of this is left behind.
    assert_eq!(home.json(&["secure-channel", "list", "--at", "n1"]), serde_json::json!([]));
    wait_until(
        || home.json(&["tcp-connection", "list", "--at", "n1"]) == serde_json::json!([]),
        || "connections of handshakes that failed are left".into(),
    );
}

/// P6: who stands between two and is honest about who it is, is met by both; who is not, by none.
#[test]
fn who_stands_between_is_seen() {
    let home = Home::new();
    home.node("n1", &[]);
    // The first one is that of n1.
    home.ok(&["identity", "create", "first"]);
    home.ok(&["identity", "create", "third"]);
    let three = home.node("n3", &["--identity", "third"]);
    let genuine = create(&home, "n1", "/node/n3/service/api", &[]);
    let list = home.json(&["secure-channel", "list", "--at", "n1"]).to_string();
    let mut direct = Peer::connect(three.address);
    let at_n3 = Initiator::open(&mut direct, &["api"], &Identity::new()).peer;
    assert!(list.contains(&at_n3), "{genuine}: {list}");

    let mallory = Identity::new();
    let her = mallory.identifier();
    let between = Responder::new().start(mallory, Manner::Serves);
    let hop = format!("/ip4/127.0.0.1/tcp/{}", between.address.port());
    // By the name of the node, or by the identifier itself, she is not who is wanted. So she gets nothing.
    let said = cannot_create(&home, 77, "n1", &format!("{hop}/node/n3/service/api"), &[]);
    assert!(said.contains(&her), "it does not say who was met: {said}");
    let said = cannot_create(&home, 77, "n1", &format!("{hop}/service/api"), &["--authorized", &at_n3]);
    assert!(said.contains(&her), "{said}");
    assert!(between.peers.try_recv().is_err(), "she got a message 3");
    // Where nobody in particular is wanted she is met, and seen.
    let channel = create(&home, "n1", &format!("{hop}/service/api"), &[]);
    let shown = home.json(&["secure-channel", "show", &channel, "--at", "n1"]).to_string();
    assert!(shown.contains(&her) && !shown.contains(&at_n3), "{shown}");
}

/// A node as the initiator: its end is as strict as a listener's.
#[test]
fn an_initiator_accepts_what_is_genuine_and_new() {
    let home = Home::new();
    home.node("n1", &[]);
    let identity = Identity::new();
    let responder = Responder::new();
    let route = responder.route();
    let (mut peer, mut channel) = std::thread::scope(|scope| {
        let responder = scope.spawn(|| {
            let mut peer = responder.link();
            let mut channel = Responder::accept(&mut peer, &identity).expect("a handshake to its end");
            // It asks whether it is welcome.
            let asked = channel.receive_message(&mut peer);
            assert_eq!(asked.onward, addresses(&["echo"]));
            let back: Vec<String> = asked.back.iter().map(ToString::to_string).collect();
            let back: Vec<&str> = back.iter().map(String::as_str).collect();
            peer.send(&channel.frame_with(&back, &["echo"], &asked.payload));
            (peer, channel)
        });
        create(&home, "n1", &route, &[]);
        responder.join().expect("a handshake")
    });
    channel.echoes(&mut peer, b"the other way round");
    let before = dropped(&home, "n1");
    let record = channel.seal(&["echo"], &["me"], &noise(16, 1));
    for bit in 0..8 * record.len() {
        peer.send(&flipped(channel.frame(&record), bit));
    }
    peer.send(&channel.frame(&record));
    assert_eq!(channel.receive_message(&mut peer).payload, noise(16, 1));
    for _ in 0..100 {
        peer.send(&channel.frame(&record));
    }
    channel.echoes(&mut peer, b"nothing else comes");
    assert_eq!(dropped(&home, "n1") - before, 8 * record.len() as u64 + 100);
    // Its way is the one that it chose: a responder that comes by another changes nothing.
    let node = home.show("n1");
    let mut other = Peer::connect(node.address);
    let elsewhere = channel.seal(&["echo"], &["me"], b"from elsewhere");
    other.send(&channel.frame(&elsewhere));
    other.echoes(b"nothing else comes");
    // It may be admitted there or not. What is answered is answered by the way that was chosen.
    let next = channel.seal(&["echo"], &["me"], b"by the way");
    peer.send(&channel.frame(&next));
    loop {
        let message = channel.receive_message(&mut peer);
        if message.payload == b"by the way" {
            break;
        }
        assert_eq!(message.payload, b"from elsewhere");
    }
    // The node ends it, and says so.
    let list = home.json(&["secure-channel", "list", "--at", "n1"]);
    let address = list[0]["address"].as_str().expect("an address").to_owned();
    home.ok(&["secure-channel", "delete", &address, "--at", "n1", "--yes"]);
    peer.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(channel.receive(&mut peer), Inner::Close);
    assert_eq!(peer.receive_or_end(), None, "the link that was opened for it is closed");
}

/// The forms of a route in which a channel is made on the way, and one through another by the command line.
#[test]
fn channels_of_the_command_line_go_through_channels() {
    let home = Home::new();
    home.node("n1", &[]);
    let (two, three) = (home.node("n2", &[]), home.node("n3", &[]));
    let middle = Middle::before(three.address);
    let outer = create(&home, "n1", &two.service("api"), &[]);
    let to_inner = format!("{outer}/service/api");
    let inner = create(&home, "n1", &to_inner, &[]);
    assert_eq!(home.send("hello", &format!("{inner}/service/uppercase"), &["--from", "n1"]), "HELLO");
    assert_eq!(home.send("hello", &format!("{outer}/service/uppercase"), &["--from", "n1"]), "HELLO");
    for from in [&[][..], &["--from", "n1"]] {
        let route = format!("{}/secure/api/service/uppercase", middle.route());
        assert_eq!(home.send("hello", &route, from), "HELLO", "{from:?}");
    }
    assert!(!middle.saw(b"hello") && !middle.saw(b"HELLO") && middle.captured().len() >= 8);
}

#[test]
fn frames_of_the_middle_have_their_record_where_it_is_looked_for() {
    // What the tests above change is the record, and nothing but it.
    let sealed = frame(&["a"], &["b"], b"0123456789");
    assert_eq!(&sealed[payload_of(&sealed)], b"0123456789");
    let changed = flipped(sealed.clone(), 8);
    assert_eq!(changed.iter().zip(&sealed).filter(|(one, other)| one != other).count(), 1);
    let received = Received { onward: addresses(&["a"]), back: addresses(&["b"]), payload: b"0023456789".to_vec() };
    let mut framer = ockam_wire::Framer::new();
    framer.push(&changed);
    let message = ockam_wire::Message::parse(framer.next().unwrap().unwrap()).unwrap();
    assert_eq!(message.payload, received.payload);
}
