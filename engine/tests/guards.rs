//! Guards of an engine process, on both drivers and on two cores: who is let pass, until when, and what ends then.

#[macro_use]
mod support;

use ockam_crypto::{Plaintext, PlaintextKind};
use ockam_engine_abi::record::LIST_MAX;
use ockam_engine_abi::{
    ChannelGrants, CloseReason, Command, Counter, DropReason, Grants, Guard, GuardSet, Notice, Refusal, Target,
    TransitFrom, TransitRule,
};
use ockam_wire::undeliverable::{self, Offer};
use std::net::{SocketAddr, TcpListener};
use support::channel::{
    CHANNEL_FLOW, DECRYPTOR, ENCRYPTOR, End, PEERS, address, another, install, installed, link_of, name,
};
use support::{Engine, FLOW, Peer, frame, traced};

/// Not a test by itself: what the others start becomes an engine here.
#[test]
fn engine_process() {
    support::become_engine();
}

const GUARD: Guard = 5;
const LAST: Guard = 1023;

/// How a text begins that shows credentials (`wire.md` E.7); what follows is for control.
const SHOWN: [u8; 4] = [0x82, 0x82, 1, 0x81];

fn set(engine: &mut Engine, name: &str, target: Target, guard: Option<Guard>) {
    let request = engine.request();
    let (address, cookie) = (name.as_bytes().to_vec().into(), vec![1, 2].into());
    let reachable = 1 << FLOW | 1 << CHANNEL_FLOW;
    engine.send(Command::SetAddress { request, address, target, reachable, guard, cookie }, None);
    engine.applied(request);
}

fn open(engine: &mut Engine, guards: &[Guard]) {
    let request = engine.request();
    engine.send(Command::SetGuards { request, open: guards.iter().copied().collect() }, None);
    engine.applied(request);
}

fn grants(guards: &[Guard], expire_in_ms: Option<u64>) -> Grants {
    Grants { guards: guards.iter().copied().collect(), expire_in_ms }
}

fn grant(engine: &mut Engine, channels: &[(u32, Grants)]) {
    let request = engine.request();
    let channels = channels.iter().map(|(channel, grants)| ChannelGrants { channel: *channel, grants: *grants });
    engine.send(Command::SetGrants { request, channels: channels.collect() }, None);
    engine.applied(request);
}

/// The engine does not do this.
fn refused(engine: &mut Engine, request: u64, command: Command) -> Refusal {
    engine.send(command, None);
    engine.wait(|notice| match notice {
        Notice::Refused { request: of, why, .. } if *of == request => Some(*why),
        Notice::Applied { request: of } if *of == request => panic!("it was done"),
        _ => None,
    })
}

/// A node with a guarded and an unguarded service, and a channel to a peer that is granted nothing.
fn node(engine: &mut Engine) -> (SocketAddr, Peer, End) {
    set(engine, "echo", Target::Echo, None);
    set(engine, "hop", Target::Hop, None);
    set(engine, "guarded", Target::Echo, Some(GUARD));
    let at = engine.listen(1, FLOW);
    let (peer, end) = another(engine, at, 1);
    (at, peer, end)
}

/// Whether a message through the channel is answered. What it asks for is there.
fn passes(engine: &Engine, peer: &mut Peer, end: &mut End, onward: &[&str]) -> bool {
    let denied = engine.counters().total(DropReason::PolicyDenied);
    peer.send(&end.frame(onward, &["me"], b"guarded?"));
    // Whatever comes of that, this is answered behind it.
    peer.send(&end.frame(&["echo"], &["me"], b"behind"));
    let first = end.receive(peer).2;
    let passed = first == b"guarded?";
    if passed {
        assert_eq!(end.receive(peer).2, b"behind");
    } else {
        assert_eq!(first, b"behind");
    }
    assert_eq!(engine.counters().total(DropReason::PolicyDenied), denied + u64::from(!passed));
    passed
}

/// Whether a message over the link itself is.
fn passes_plain(engine: &Engine, peer: &mut Peer, onward: &[&str]) -> bool {
    let denied = engine.counters().total(DropReason::PolicyDenied);
    peer.send(&frame(onward, &["me"], b"guarded?"));
    peer.send(&frame(&["echo"], &["me"], b"behind"));
    let passed = peer.receive().payload == b"guarded?";
    if passed {
        peer.receive();
    }
    assert_eq!(engine.counters().total(DropReason::PolicyDenied), denied + u64::from(!passed));
    passed
}

on_both_drivers! {
    a_guard_lets_pass_who_is_granted_it_and_everybody_while_it_is_open(engine) {
        let (at, mut peer, mut end) = node(&mut engine);
        let (mut second, mut other) = another(&mut engine, at, 2);
        let detours = [&["guarded"][..], &["hop", "guarded"], &["hop", "hop", "guarded"]];
        for (open_now, granted) in [(false, false), (false, true), (true, false), (false, false), (true, true), (false, true)] {
            open(&mut engine, if open_now { &[GUARD] } else { &[GUARD + 1] });
            let guards: &[Guard] = if granted { &[GUARD] } else { &[LAST] };
            grant(&mut engine, &[(1, grants(guards, None)), (99, grants(&[GUARD], None))]);
            for onward in detours {
                let what = format!("{open_now} {granted} {onward:?}");
                assert_eq!(passes(&engine, &mut peer, &mut end, onward), open_now || granted, "{what}");
                assert_eq!(passes(&engine, &mut second, &mut other, onward), open_now, "another channel, {what}");
                assert_eq!(passes_plain(&engine, &mut peer, onward), open_now, "a link, {what}");
            }
        }
        // Whose sender is on this machine, or in a channel, is told why.
        open(&mut engine, &[]);
        let offer = Offer { token: [7; 16] };
        peer.send(&traced(&["guarded"], &["me"], b"", Some(&offer.text())));
        let told = peer.receive().tracing.unwrap();
        assert_eq!(undeliverable::Notice::parse(&told).unwrap().reason, DropReason::PolicyDenied as u8);
        let record = other.record(&["guarded"], &["me"], b"", Some(&offer.text()));
        second.send(&frame(&[&other.decryptor], &[], &record));
        let mut sealed = second.receive().payload;
        let text = other.opener.open_in_place(&mut sealed).unwrap().text;
        let Ok(Plaintext::Payload(message)) = Plaintext::parse(text) else { panic!() };
        let told = undeliverable::Notice::parse(message.tracing.unwrap()).unwrap();
        assert_eq!(told.reason, DropReason::PolicyDenied as u8);
    }

    many_are_granted_something_at_once(engine) {
        let (_, mut peer, mut end) = node(&mut engine);
        let all: Vec<Guard> = (0..1024).collect();
        let mut channels: Vec<(u32, Grants)> = (2..=LIST_MAX as u32).map(|channel| (channel, grants(&all, Some(9)))).collect();
        channels.push((1, grants(&[GUARD], None)));
        grant(&mut engine, &channels);
        assert!(passes(&engine, &mut peer, &mut end, &["guarded"]));
        // The last word counts.
        channels[0] = (1, grants(&[GUARD, LAST], None));
        channels[LIST_MAX - 1] = (1, grants(&[LAST], None));
        grant(&mut engine, &channels);
        assert!(!passes(&engine, &mut peer, &mut end, &["guarded"]));
    }

    what_this_node_sends_itself_passes(engine) {
        node(&mut engine);
        set(&mut engine, "answer", Target::Control, None);
        let request = engine.request();
        let message = frame(&["guarded"], &["answer"], b"ping")[4..].to_vec().into();
        engine.send(Command::Transmit { request, message }, None);
        engine.wait(|notice| match notice {
            Notice::Punt { message, .. } => {
                assert_eq!(ockam_wire::Message::parse(&message.0).unwrap().payload, b"ping");
                Some(())
            },
            Notice::Undelivered { reason, .. } => panic!("{reason:?}"),
            _ => None,
        });
    }

    grants_end_by_themselves(engine) {
        let (at, mut peer, mut end) = node(&mut engine);
        let (mut second, mut other) = another(&mut engine, at, 2);
        grant(&mut engine, &[(1, grants(&[GUARD], Some(400))), (2, grants(&[GUARD], None))]);
        assert!(passes(&engine, &mut second, &mut other, &["guarded"]));
        engine.at_last(DropReason::PolicyDenied, || {
            passes(&engine, &mut peer, &mut end, &["guarded"]);
        });
        assert!(!passes(&engine, &mut peer, &mut end, &["guarded"]), "what has expired stays so");
        assert!(passes(&engine, &mut second, &mut other, &["guarded"]));
        grant(&mut engine, &[(1, grants(&[GUARD], Some(1 << 40)))]);
        assert!(passes(&engine, &mut peer, &mut end, &["guarded"]));
        grant(&mut engine, &[(1, grants(&[GUARD], Some(0)))]);
        assert!(!passes(&engine, &mut peer, &mut end, &["guarded"]));
        grant(&mut engine, &[(1, grants(&[GUARD], Some(u64::MAX)))]);
        assert!(passes(&engine, &mut peer, &mut end, &["guarded"]));
    }

    grants_of_an_install_hold_for_what_waited(engine) {
        let (at, ..) = node(&mut engine);
        for (number, granted) in [(2, true), (3, false)] {
            let mut peer = Peer::connect(at);
            engine.set(&name(DECRYPTOR, number), Target::Handshake, 1 << FLOW);
            let mut end = End::new(number);
            peer.send(&frame(&[&end.decryptor], &["me"], b"message 3"));
            peer.send(&end.frame(&["guarded"], &["me"], b"guarded?"));
            peer.send(&end.frame(&["echo"], &["me"], b"behind"));
            engine.reaches(Counter::RecordsParked, 2 * (u64::from(number) - 1));
            let (_, link) = link_of(&mut engine, peer.stream.local_addr().unwrap());
            let mut command = install(&mut engine, number, &[&link, PEERS], None);
            if let Command::InstallChannel { grants: given, .. } = &mut command {
                *given = grants(if granted { &[GUARD] } else { &[] }, None);
            }
            installed(&mut engine, command);
            let first = end.receive(&mut peer).2;
            assert_eq!(first == b"guarded?", granted);
            if granted {
                end.receive(&mut peer);
            }
            assert_eq!(passes(&engine, &mut peer, &mut end, &["guarded"]), granted);
        }
    }

    another_control_finds_the_guards_and_leaves_what_is_granted(engine) {
        let (_, mut peer, mut end) = node(&mut engine);
        grant(&mut engine, &[(1, grants(&[GUARD], None))]);
        open(&mut engine, &[LAST]);
        set(&mut engine, "open", Target::Echo, Some(LAST));
        use rustix::net::{AddressFamily, SocketFlags, SocketType};
        let next = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let door = rustix::net::SocketAddrUnix::new(engine.node_dir().join("engine.sock")).unwrap();
        rustix::net::connect(&next, &door).unwrap();
        drop(std::mem::replace(&mut engine.control, next));
        support::hello(&engine.control);
        let request = engine.request();
        engine.send(Command::Dump { request }, None);
        let mut guards = Vec::new();
        loop {
            match engine.notice().0 {
                Notice::Address { address, guard, .. } => guards.push((String::from_utf8(address.0).unwrap(), guard)),
                Notice::DumpEnd { .. } => break,
                _ => {}
            }
        }
        let expected = [("echo", None), ("guarded", Some(GUARD)), ("hop", None), ("open", Some(LAST))];
        assert_eq!(guards, expected.map(|(name, guard)| (name.to_owned(), guard)));
        assert!(passes(&engine, &mut peer, &mut end, &["guarded"]));
        assert!(passes_plain(&engine, &mut peer, &["open"]));
        assert!(!passes_plain(&engine, &mut peer, &["guarded"]));
    }

    credentials_go_both_ways(engine) {
        let (_, mut peer, mut end) = node(&mut engine);
        let shown = |length: usize| [&SHOWN[..], &vec![9; length - SHOWN.len()]].concat();
        assert_eq!(PlaintextKind::of(&shown(100)), Ok(PlaintextKind::RefreshCredentials));
        for length in [4, 100, 64 * 1024] {
            let record = end.seal(&shown(length));
            peer.send(&frame(&[&end.decryptor], &[], &record));
            engine.wait(|notice| match notice {
                Notice::CredentialsShown { channel: 1, text } => {
                    assert!(text.0 == shown(length), "{length}");
                    Some(())
                },
                _ => None,
            });
            let request = engine.request();
            engine.send(Command::ShowCredentials { request, channel: 1, text: shown(length).into() }, None);
            engine.applied(request);
            let mut sealed = peer.receive().payload;
            assert!(end.opener.open_in_place(&mut sealed).unwrap().text == shown(length), "{length}");
        }
        assert_eq!(engine.counters().total(Counter::RefreshesPassed), 3);
        let record = end.seal(&shown(64 * 1024 + 1));
        peer.send(&frame(&[&end.decryptor], &[], &record));
        engine.reaches(DropReason::BadPlaintext, 1);
        // A peer that shows too many is not heard out, and loses nothing else by it.
        let mut sent = 0;
        while engine.counters().total(DropReason::PuntLimit) == 0 {
            sent += 1;
            assert!(sent < 10_000, "all of them are passed on");
            let record = end.seal(&shown(100));
            peer.send(&frame(&[&end.decryptor], &[], &record));
        }
        peer.send(&end.frame(&["echo"], &["me"], b"alive"));
        assert_eq!(end.receive(&mut peer).2, b"alive");

        for (channel, text, why) in [
            (1, shown(64 * 1024 + 1), Refusal::Invalid),
            (1, Vec::new(), Refusal::Invalid),
            (1, ockam_crypto::CLOSE.to_vec(), Refusal::Invalid),
            (1, vec![0; 30], Refusal::Invalid),
            (2, shown(100), Refusal::Unknown),
        ] {
            let request = engine.request();
            let command = Command::ShowCredentials { request, channel, text: text.into() };
            assert_eq!(refused(&mut engine, request, command), why);
        }
        drop(peer);
        engine.reaches(CloseReason::PeerClosed, 1);
        let request = engine.request();
        let command = Command::ShowCredentials { request, channel: 1, text: shown(100).into() };
        assert_eq!(refused(&mut engine, request, command), Refusal::ConnectFailed);
    }

    credentials_are_shown_through_a_channel_inside_another(engine) {
        let (_, mut peer, mut end) = node(&mut engine);
        let command = install(&mut engine, 2, &[&name(ENCRYPTOR, 1), PEERS], None);
        installed(&mut engine, command);
        let mut inner = End::new(2);
        let request = engine.request();
        engine.send(Command::ShowCredentials { request, channel: 2, text: SHOWN.to_vec().into() }, None);
        engine.applied(request);
        let mut record = end.receive(&mut peer).2;
        assert_eq!(inner.opener.open_in_place(&mut record).unwrap().text, SHOWN);
        let record = inner.seal(&SHOWN);
        peer.send(&end.frame(&[&inner.decryptor], &[], &record));
        // The outer channel's flow control may not reach the decryptor of the inner one here.
        engine.reaches(DropReason::NotAdmitted, 1);
    }

    addresses_are_dialed_for_peers_of_channels_that_a_guard_lets_pass(engine) {
        let (at, mut peer, mut end) = node(&mut engine);
        let (mut second, mut other) = another(&mut engine, at, 2);
        let far = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = format!("1#{}", far.local_addr().unwrap());
        let denied = |engine: &Engine, peer: &mut Peer, end: &mut End, reason| {
            engine.at_last(reason, || peer.send(&end.frame(&[&to, "far"], &["me"], b"x")));
        };
        denied(&engine, &mut peer, &mut end, DropReason::TransitRefused);
        let request = engine.request();
        let rule = |bits| TransitRule {
            from: TransitFrom::Guard(GUARD),
            to: (far.local_addr().unwrap().ip(), bits),
            port: Some(far.local_addr().unwrap().port()),
        };
        // A rule for more than loopback says nothing of loopback.
        engine.send(Command::SetTransit { request, rules: vec![rule(1)] }, None);
        engine.applied(request);
        denied(&engine, &mut peer, &mut end, DropReason::TransitRefused);
        let request = engine.request();
        engine.send(Command::SetTransit { request, rules: vec![rule(32)] }, None);
        engine.applied(request);
        denied(&engine, &mut peer, &mut end, DropReason::PolicyDenied);
        grant(&mut engine, &[(1, grants(&[GUARD], None)), (2, grants(&[LAST], None))]);
        peer.send(&end.frame(&[&to, "far"], &["me"], b"question"));
        let mut node = Peer::accept(&far);
        let asked = node.receive();
        assert_eq!((asked.onward, asked.payload), (vec![address("far")], b"question".to_vec()));
        assert_eq!(asked.back, [address(&name(ENCRYPTOR, 1)), address("me")]);
        node.send(&frame(&[&name(ENCRYPTOR, 1), "me"], &["far"], b"answer"));
        assert_eq!(end.receive(&mut peer).2, b"answer");
        // What was dialed for one peer answers no other, and is there for no other.
        node.send(&frame(&[&name(ENCRYPTOR, 2), "me"], &["far"], b"answer"));
        engine.reaches(DropReason::NotAdmitted, 1);
        denied(&engine, &mut second, &mut other, DropReason::PolicyDenied);
        // Its end is that of the grant.
        grant(&mut engine, &[(1, grants(&[], None))]);
        assert!(node.is_closed());
        denied(&engine, &mut peer, &mut end, DropReason::PolicyDenied);
        grant(&mut engine, &[(1, grants(&[GUARD], None))]);
        peer.send(&end.frame(&[&to, "far"], &["me"], b"x"));
        let mut node = Peer::accept(&far);
        assert_eq!(node.receive().payload, b"x");
        grant(&mut engine, &[(1, grants(&[GUARD], Some(200)))]);
        assert!(node.is_closed(), "it ends when the grants do");
    }

    a_name_is_resolved_for_whom_a_guard_lets_pass(engine) {
        let (at, mut peer, mut end) = node(&mut engine);
        let (mut second, mut other) = another(&mut engine, at, 2);
        let far = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = far.local_addr().unwrap();
        let name = format!("1#node.example:{}", address.port());
        let rule = |guard, to: &str, bits| TransitRule {
            from: TransitFrom::Guard(guard),
            to: (to.parse().unwrap(), bits),
            port: Some(address.port()),
        };
        let request = engine.request();
        let rules = vec![rule(GUARD, "127.0.0.0", 8), rule(LAST, "10.0.0.0", 8), rule(GUARD, "0.0.0.0", 0)];
        engine.send(Command::SetTransit { request, rules }, None);
        engine.applied(request);
        peer.send(&end.frame(&[&name, "far"], &["me"], b"x"));
        engine.reaches(DropReason::PolicyDenied, 1);
        grant(&mut engine, &[(1, grants(&[GUARD], None)), (2, grants(&[LAST], None))]);
        let resolve = |engine: &mut Engine, addresses: Vec<SocketAddr>| {
            let link = engine.wait(|notice| match notice {
                Notice::Resolve { link, .. } => Some(*link),
                _ => None,
            });
            engine.send(Command::Resolved { link, addresses }, None);
        };
        // One that is granted something else may ask for the name, and is told what it stands for is not for it.
        let offer = Offer { token: [3; 16] };
        let record = other.record(&[&name, "far"], &["me"], b"", Some(&offer.text()));
        second.send(&frame(&[&other.decryptor], &[], &record));
        resolve(&mut engine, vec!["169.254.169.254:80".parse().unwrap(), address]);
        let mut sealed = second.receive().payload;
        let text = other.opener.open_in_place(&mut sealed).unwrap().text;
        let Ok(Plaintext::Payload(message)) = Plaintext::parse(text) else { panic!() };
        let told = undeliverable::Notice::parse(message.tracing.unwrap()).unwrap();
        assert_eq!(told.reason, DropReason::PolicyDenied as u8);
        peer.send(&end.frame(&[&name, "far"], &["me"], b"first"));
        resolve(&mut engine, vec!["169.254.169.254:80".parse().unwrap(), address]);
        let mut node = Peer::accept(&far);
        assert_eq!(node.receive().payload, b"first");
        grant(&mut engine, &[(1, grants(&[LAST], None))]);
        assert!(node.is_closed());
    }

    a_message_that_waited_for_its_channel_is_dialed_for(engine) {
        let (at, ..) = node(&mut engine);
        let far = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = format!("1#{}", far.local_addr().unwrap());
        let request = engine.request();
        let rule = TransitRule { from: TransitFrom::Guard(GUARD), to: (far.local_addr().unwrap().ip(), 32), port: None };
        engine.send(Command::SetTransit { request, rules: vec![rule] }, None);
        engine.applied(request);
        let mut peer = Peer::connect(at);
        engine.set(&name(DECRYPTOR, 2), Target::Handshake, 1 << FLOW);
        let mut end = End::new(2);
        peer.send(&frame(&[&end.decryptor], &["me"], b"message 3"));
        peer.send(&end.frame(&[&to, "far"], &["me"], b"first"));
        engine.reaches(Counter::RecordsParked, 1);
        let (_, link) = link_of(&mut engine, peer.stream.local_addr().unwrap());
        let mut command = install(&mut engine, 2, &[&link, PEERS], None);
        if let Command::InstallChannel { grants: given, .. } = &mut command {
            *given = grants(&[GUARD], None);
        }
        installed(&mut engine, command);
        assert_eq!(Peer::accept(&far).receive().payload, b"first");
    }

    guards_that_there_are_not_are_refused(engine) {
        node(&mut engine);
        let request = engine.request();
        let (address, cookie) = (|| b"new".to_vec().into(), || vec![].into());
        let guard = Some(1024);
        let command = Command::SetAddress {
            request, address: address(), target: Target::Echo, reachable: 0, guard, cookie: cookie(),
        };
        assert_eq!(refused(&mut engine, request, command), Refusal::Invalid);
        let request = engine.request();
        let command = Command::SetAddress {
            request, address: address(), target: Target::Handshake, reachable: 0, guard: Some(1), cookie: cookie(),
        };
        assert_eq!(refused(&mut engine, request, command), Refusal::Invalid);
        let request = engine.request();
        let command = Command::SetOutlet {
            request, address: address(), targets: vec![], reachable: 0, plain: false, guard, cookie: cookie(),
        };
        assert_eq!(refused(&mut engine, request, command), Refusal::Invalid);
        let request = engine.request();
        let rule = TransitRule { from: TransitFrom::Guard(1024), to: ("10.0.0.0".parse().unwrap(), 8), port: None };
        let command = Command::SetTransit { request, rules: vec![rule] };
        assert_eq!(refused(&mut engine, request, command), Refusal::Invalid);
        let request = engine.request();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap().into();
        engine.send(Command::AddInlet { request, inlet: 3, guard, cookie: cookie() }, Some(&listener));
        let why = engine.wait(|notice| match notice {
            Notice::Refused { request: of, why, .. } if *of == request => Some(*why),
            _ => None,
        });
        assert_eq!(why, Refusal::Invalid);
        // All of those that there are at once.
        let request = engine.request();
        engine.send(Command::SetGuards { request, open: GuardSet::ALL }, None);
        engine.applied(request);
    }
}
