//! The engine as a process, on both drivers: what peers see, and what control sees.

#[macro_use]
mod support;

use ockam_engine_abi::{CloseReason, Command, Counter, DropReason, LinkOrigin, Notice, Target};
use ockam_wire::Address;
use ockam_wire::undeliverable::{self, Offer};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::{ClosedPort, Engine, FLOW, Peer, frame, noise, text, traced};

/// Not a test by itself: what the others start becomes an engine here.
#[test]
fn engine_process() {
    support::become_engine();
}

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

/// The beginning of a frame that claims to be as large as frames may be.
fn claim() -> Vec<u8> {
    [&(ockam_wire::FRAME_MAX as u32).to_be_bytes()[..], &frame(&["echo"], &["me"], &[])[4..]].concat()
}

/// Says that something is over, also when a test fails.
struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A control that is killed between starting an engine and greeting it leaves nothing behind.
#[test]
fn an_engine_that_nobody_greets_ends() {
    let (mut child, control, dir) = support::spawn("epoll", 1);
    drop(control);
    assert!(child.wait().unwrap().success());
    assert!(!dir.path().join("engine.sock").exists());
}

on_both_drivers! {
    the_worked_examples_of_the_wire(engine) {
        let at = engine.serve();
        let mut peer = Peer::connect(at);
        // wire.md A.8, with and without tracing.
        let reply = "a".repeat(32);
        peer.send(&traced(&["echo"], &[&reply], &text("hello"), Some("{}")));
        let answer = peer.receive();
        assert_eq!(answer.onward, [address(&reply)]);
        assert_eq!(answer.back, [address("echo")]);
        assert_eq!(answer.payload, text("hello"));
        assert_eq!(answer.tracing.as_deref(), Some("{}"));
        peer.send(&frame(&["uppercase"], &[&reply], &text("straße")));
        assert_eq!(peer.receive().payload, text("STRASSE"));
        // wire.md B.2: through the forwarder, which puts itself on the way back.
        peer.send(&frame(&["hop", "hop", "echo"], &[&reply], b"raw"));
        let answer = peer.receive();
        assert_eq!(answer.onward, [address(&reply)]);
        assert_eq!(answer.back, [address("hop"), address("hop"), address("echo")]);
    }

    frames_of_every_size_come_back_whole(engine) {
        let at = engine.serve();
        let sizes = [0, 1, 23, 24, 255, 256, 4096, 4097, 65_535, 65_536, 131_072, 139_000, 140_000, 1 << 20, 3 << 20];
        let mut peer = Peer::connect(at);
        for size in sizes {
            let payload = noise(size, size as u64 + 1);
            peer.send(&frame(&["echo"], &["me"], &payload));
            assert!(peer.receive().payload == payload, "{size} bytes changed");
        }
        // All at once, the other direction read only afterwards: backpressure, and no loss.
        let sender = peer.stream.try_clone().unwrap();
        let frames: Vec<Vec<u8>> = sizes.iter().rev().cycle().take(60).enumerate()
            .map(|(round, size)| noise(*size, round as u64 + 99)).collect();
        let writer = std::thread::spawn({
            let frames = frames.clone();
            move || {
                let mut sender = sender;
                for payload in frames {
                    std::io::Write::write_all(&mut sender, &frame(&["echo"], &["me"], &payload)).unwrap();
                }
            }
        });
        for (round, payload) in frames.iter().enumerate() {
            assert!(peer.receive().payload == *payload, "frame {round} of {} bytes changed", payload.len());
        }
        writer.join().unwrap();
    }

    frames_that_look_alike_are_still_told_apart(engine) {
        let at = engine.serve();
        let mut peer = Peer::connect(at);
        let seeds = noise(6000, 77);
        let (mut sent, mut expected) = (Vec::new(), Vec::new());
        let mut dropped = 0;
        // Runs of equal heads, in which now and then one differs in one thing.
        for (number, random) in seeds.chunks_exact(2).enumerate() {
            let run = number / 50;
            let mut like = [run, run / 2, run / 3, run / 5, run / 7];
            if random[0] > 220 {
                like[usize::from(random[1]) % 5] += 1;
            }
            let onward: &[&str] = [&["echo"][..], &["hop", "echo"], &["echo"], &["nothing"], &["uppercase"]][like[0] % 5];
            let back = ["me", "he"][like[1] % 2];
            let tracing = [Some("{}"), Some("[]"), None][like[2] % 3];
            let mut payload = noise([64, 8, 5000, 0, 8][like[3] % 5], number as u64);
            if onward == ["uppercase"] {
                payload = text("x");
            }
            let mut frame = traced(onward, &[back], &payload, tracing);
            if like[4] % 3 == 1 && tracing.is_some() {
                // Behind the message: not passed on.
                frame.push(number as u8);
                let length = frame.len() as u32 - 4;
                frame[..4].copy_from_slice(&length.to_be_bytes());
            }
            sent.extend(frame);
            let from: &[&str] = match onward {
                ["hop", _] => &["hop", "echo"],
                ["uppercase"] => {
                    payload = text("X");
                    &["uppercase"]
                }
                ["nothing"] => {
                    dropped += 1;
                    continue;
                }
                _ => &["echo"],
            };
            expected.push(traced(&[back], from, &payload, tracing));
        }
        let mut sender = peer.stream.try_clone().unwrap();
        let writer = std::thread::spawn(move || std::io::Write::write_all(&mut sender, &sent).unwrap());
        for (number, expected) in expected.iter().enumerate() {
            let answer = peer.next().expect("an answer");
            assert!(answer == expected[4..], "answer {number}: {answer:?} and not {expected:?}");
        }
        writer.join().unwrap();
        engine.reaches(DropReason::NoSuchAddress, dropped);
        engine.reaches(Counter::FramesIn, expected.len() as u64 + dropped);
        assert_eq!(engine.counters().total(Counter::FramesOut), expected.len() as u64);
        assert_eq!(engine.counters().total(Counter::FramesServed), expected.len() as u64);
        // What looks alike up to its end and is no message there ends the link.
        let good = traced(&["echo"], &["me"], b"12345678", Some("{}"));
        let mut bad = good.clone();
        bad.splice(good.len() - 2.., [0xff, 0xff]);
        peer.send(&[&good[..], &good, &bad, &good].concat());
        // What was not sent yet goes with it.
        assert!(std::iter::from_fn(|| peer.next()).count() <= 2);
        engine.reaches(CloseReason::Malformed, 1);
    }

    the_largest_frame_passes_and_a_larger_one_closes(engine) {
        let at = engine.serve();
        let mut peer = Peer::connect(at);
        let overhead = frame(&["echo"], &["me"], &noise(16 << 20, 3)[..15 << 20]).len() - 4 - (15 << 20);
        let payload = noise(ockam_wire::FRAME_MAX - overhead, 5);
        peer.send(&frame(&["echo"], &["me"], &payload));
        assert!(peer.receive().payload == payload);
        let text_overhead = frame(&["uppercase"], &["me"], &[0; 1 << 20]).len() - 4 - (1 << 20);
        let long = text(&"é".repeat((ockam_wire::FRAME_MAX - text_overhead - 8) / 2));
        peer.send(&frame(&["uppercase"], &["me"], &long));
        assert!(peer.receive().payload == text(&"É".repeat((ockam_wire::FRAME_MAX - text_overhead - 8) / 2)));
        peer.send(&(ockam_wire::FRAME_MAX as u32 + 1).to_be_bytes());
        assert!(peer.is_closed());
        engine.reaches(CloseReason::FrameTooLarge, 1);
    }

    what_is_not_a_frame_closes_its_link_only(engine) {
        let at = engine.serve();
        let mut honest = Peer::connect(at);
        for (bytes, reason) in [
            (vec![0, 0, 0, 0], CloseReason::Malformed),
            (vec![0, 0, 0, 3, 1, 2, 3], CloseReason::Malformed),
            (vec![0, 0, 0, 1, 0xff], CloseReason::Malformed),
            (vec![0xff; 64], CloseReason::FrameTooLarge),
        ] {
            let before = engine.counters().total(reason);
            let mut peer = Peer::connect(at);
            peer.send(&bytes);
            assert!(peer.is_closed(), "{bytes:?}");
            engine.reaches(reason, before + 1);
        }
        let mut wrong = std::net::TcpStream::connect(at).unwrap();
        std::io::Write::write_all(&mut wrong, &[2]).unwrap();
        engine.reaches(CloseReason::BadVersion, 1);
        honest.send(&frame(&["echo"], &["me"], b"still here"));
        assert_eq!(honest.receive().payload, b"still here");
    }

    what_goes_nowhere_is_counted_and_the_link_lives(engine) {
        let at = engine.serve();
        let mut peer = Peer::connect(at);
        engine.set("hidden", Target::Echo, 0);
        let routes: [(&[&str], DropReason); 7] = [
            (&["nothing"], DropReason::NoSuchAddress),
            (&["hidden"], DropReason::NotAdmitted),
            (&["2#127.0.0.1:9"], DropReason::UnsupportedTransport),
            (&["1#nonsense"], DropReason::BadAddress),
            (&["1#10.0.0.1:9"], DropReason::TransitRefused),
            (&["hop", "1#127.0.0.1:9"], DropReason::TransitRefused),
            (&["hop"], DropReason::RouteEnded),
        ];
        for (place, (route, reason)) in routes.iter().enumerate() {
            peer.send(&frame(route, &["me"], b"x"));
            let sofar = routes[..=place].iter().filter(|(_, earlier)| earlier == reason).count() as u64;
            engine.reaches(*reason, sofar);
        }
        let long: Vec<&str> = std::iter::repeat_n("hop", 255).collect();
        peer.send(&frame(&long, &["me"], b"x"));
        engine.reaches(DropReason::RouteTooLong, 1);
        peer.send(&frame(&["uppercase"], &["me"], b"\xff\xff"));
        engine.reaches(DropReason::BadPayload, 1);
        peer.send(&frame(&[], &["me"], b"x"));
        engine.reaches(Counter::Heartbeats, 1);
        peer.send(&frame(&["echo"], &["me"], b"alive"));
        assert_eq!(peer.receive().payload, b"alive");
    }

    a_message_is_dialed_on_and_answered(engine) {
        let at = engine.serve();
        let next = TcpListener::bind("127.0.0.1:0").unwrap();
        let hop = format!("1#{}", next.local_addr().unwrap());
        let mut peer = Peer::connect(at);
        peer.send(&frame(&[&hop, "uppercase"], &["me"], &text("hello")));
        let mut far = Peer::accept(&next);
        let asked = far.receive();
        assert_eq!(asked.onward, [address("uppercase")]);
        assert_eq!(asked.back.len(), 2);
        assert_eq!(asked.back[1], address("me"));
        // The way back is admitted; nothing else on the first link's side is.
        let back = asked.back[0].to_string();
        far.send(&frame(&[&back, "me"], &["uppercase"], &text("HELLO")));
        let answer = peer.receive();
        assert_eq!(answer.payload, text("HELLO"));
        assert_eq!(answer.onward, [address("me")]);
        assert_eq!(answer.back[1], address("uppercase"));
        // The same link serves the next message, with a payload that is not copied.
        let large = noise(100_000, 4);
        peer.send(&frame(&[&hop, "x"], &["me"], &large));
        assert!(far.receive().payload == large);
        // It goes with the link that asked for it.
        drop(peer);
        assert!(far.is_closed());
        engine.reaches(CloseReason::IngressGone, 1);
    }

    what_a_peer_sent_before_it_ended_still_arrives(engine) {
        let at = engine.serve();
        for round in 0..5 {
            let far = TcpListener::bind("127.0.0.1:0").unwrap();
            let hop = format!("1#{}", far.local_addr().unwrap());
            let mut peer = Peer::connect(at);
            let frames: Vec<u8> = (0..3_000u32)
                .flat_map(|number| frame(&[&hop, "x"], &["me"], &number.to_be_bytes())).collect();
            // The first time even before the other side has said its version byte.
            let mut node = if round == 0 { None } else {
                peer.send(&frame(&[&hop, "x"], &["me"], b"up"));
                let mut node = Peer::accept(&far);
                assert_eq!(node.receive().payload, b"up");
                Some(node)
            };
            peer.send(&frames);
            peer.stream.shutdown(std::net::Shutdown::Write).unwrap();
            let node = node.get_or_insert_with(|| Peer::accept(&far));
            for number in 0..3_000u32 {
                assert_eq!(node.receive().payload, number.to_be_bytes(), "round {round}");
            }
            assert!(node.is_closed());
        }
    }

    nothing_but_a_version_byte_reaches_what_is_not_a_node(engine) {
        let at = engine.serve();
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = Peer::connect(at);
        peer.send(&frame(&[&format!("1#{}", other.local_addr().unwrap()), "x"], &["me"], b"secret"));
        let (mut stream, _) = other.accept().unwrap();
        std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n").unwrap();
        let mut received = Vec::new();
        let _ = std::io::Read::read_to_end(&mut stream, &mut received);
        assert_eq!(received, [1]);
        engine.reaches(DropReason::NotANode, 1);
    }

    large_slots_are_not_for_those_who_do_not_use_them(engine) {
        let at = engine.serve();
        // More than there are, each claiming the most and sending just enough to get one.
        let mut idle: Vec<Peer> = (0..80).map(|_| Peer::connect(at)).collect();
        let claim = claim();
        for peer in &mut idle {
            peer.send(&claim);
            peer.send(&vec![0; 70_000]);
        }
        engine.reaches(Counter::LargeSlotsUsed, 32);
        let mut honest = Peer::connect(at);
        let payload = noise(1 << 20, 6);
        honest.send(&frame(&["echo"], &["me"], &payload));
        assert!(honest.receive().payload == payload);
        engine.reaches(CloseReason::SlowFrame, 1);
    }

    a_claim_takes_no_slot(engine) {
        let at = engine.serve();
        let claim = claim();
        let mut peers: Vec<Peer> = (0..100).map(|_| Peer::connect(at)).collect();
        // In two parts: links that wait for the rest of a large frame receive it into a slot of their own.
        for part in [&claim[..6], &claim[6..]] {
            let heard = engine.counters().total(Counter::BytesIn) + 100 * part.len() as u64;
            peers.iter_mut().for_each(|peer| peer.send(part));
            engine.reaches(Counter::BytesIn, heard);
        }
        let mut honest = Peer::connect(at);
        for round in 0..10 {
            let payload = noise(60_000, round);
            honest.send(&frame(&["echo"], &["me"], &payload));
            assert!(honest.receive().payload == payload);
        }
        let held = engine.counters().total(Counter::SlotsCore);
        assert!(held < 10, "{held} slots are with the core");
    }

    large_slots_are_not_for_those_who_trickle(engine) {
        let at = engine.serve();
        let claim = claim();
        let mut slow: Vec<Peer> = (0..80).map(|_| Peer::connect(at)).collect();
        for peer in &mut slow {
            peer.send(&claim);
            peer.send(&vec![0; 70_000]);
        }
        engine.reaches(Counter::LargeSlotsUsed, 32);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Also when the answer does not come.
            let _over = AtEnd(&over);
            // Twice the rate that no frame may fall below.
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    slow.iter_mut().for_each(|peer| peer.send_some(&[0; 13_000]));
                    std::thread::sleep(Duration::from_millis(100));
                }
            });
            let mut honest = Peer::connect(at);
            let payload = noise(1 << 20, 6);
            honest.send(&frame(&["echo"], &["me"], &payload));
            assert!(honest.receive().payload == payload);
        });
        engine.reaches(CloseReason::SlowFrame, 1);
        let made_room = engine.counters().total(CloseReason::AssemblyLimit);
        assert_eq!(made_room, 0, "it waited until all that is kept of unfinished frames was too much");
    }

    who_offers_is_told_why(engine) {
        let at = engine.serve();
        let closed = ClosedPort::new();
        let mut peer = Peer::connect(at);
        let offer = Offer { token: [0xab; 16] };
        let refused = format!("1#{}", closed.address());
        let cases: [(&[&str], DropReason, u8); 4] = [
            (&["nothing"], DropReason::NoSuchAddress, 1),
            (&["hop", "nothing", "x"], DropReason::NoSuchAddress, 2),
            (&[&refused, "echo"], DropReason::ConnectFailed, 2),
            (&["1#10.1.2.3:4", "echo", "x"], DropReason::TransitRefused, 3),
        ];
        for (route, reason, left) in cases {
            let request = traced(route, &["me"], b"", Some(&offer.text()));
            peer.send(&request);
            let frame = peer.next().unwrap();
            assert!(frame.len() + 4 <= request.len(), "a notice is no longer than its request");
            let message = ockam_wire::Message::parse(&frame).unwrap();
            let notice = undeliverable::Notice::parse(message.tracing.unwrap()).unwrap();
            assert_eq!((notice.token, notice.reason, notice.left), (offer.token, reason as u8, left), "{route:?}");
            assert!(message.payload.is_empty() && message.return_route.is_empty());
            assert_eq!(message.onward.first().unwrap().name, b"me");
        }
        // A notice is never answered, and an offer is not a notice.
        let notice = undeliverable::Notice { token: [1; 16], reason: 1, left: 1 }.text();
        peer.send(&traced(&["nothing"], &["me"], b"", Some(&notice)));
        peer.send(&frame(&["echo"], &["me"], b"end"));
        assert_eq!(peer.receive().payload, b"end");
    }

    control_dials_sends_and_hears(engine) {
        engine.serve();
        let far = TcpListener::bind("127.0.0.1:0").unwrap();
        let request = engine.request();
        let target = far.local_addr().unwrap();
        engine.send(Command::Dial { request, target, cookie: vec![9].into() }, None);
        let mut node = Peer::accept(&far);
        let (link, worker) = engine.wait(|notice| match notice {
            Notice::LinkUp { request: up, link, address, peer, .. } if *up == request => {
                assert_eq!(*peer, target);
                Some((*link, String::from_utf8(address.0.clone()).unwrap()))
            }
            _ => None,
        });
        engine.set("answer", Target::Control, 0);
        let transmit = |engine: &mut Engine, bytes: Vec<u8>| {
            let request = engine.request();
            engine.send(Command::Transmit { request, message: bytes[4..].to_vec().into() }, None);
            request
        };
        // Nothing was sent from `answer` yet, so the peer cannot reach it.
        node.send(&frame(&["answer"], &["x"], b"early"));
        engine.reaches(DropReason::NotAdmitted, 1);
        let request = transmit(&mut engine, frame(&[&worker, "echo"], &["answer"], b"ping"));
        engine.applied(request);
        let asked = node.receive();
        assert_eq!((asked.onward, asked.back), (vec![address("echo")], vec![address("answer")]));
        let long = noise(300_000, 8);
        node.send(&frame(&["answer"], &["echo"], &long));
        engine.wait(|notice| match notice {
            Notice::Punt { link: Some(from), message, .. } if *from == link => {
                let message = ockam_wire::Message::parse(&message.0).unwrap();
                assert!(message.payload == long);
                assert_eq!(message.onward.first().unwrap().name, b"answer");
                assert_eq!(message.return_route.first().unwrap().name, worker.as_bytes());
                Some(())
            }
            _ => None,
        });
        // A local service answers control directly.
        let request = transmit(&mut engine, frame(&["hop", "uppercase"], &["answer"], &text("local")));
        engine.wait(|notice| match notice {
            Notice::Punt { link: None, message, .. } => {
                assert_eq!(ockam_wire::Message::parse(&message.0).unwrap().payload, text("LOCAL"));
                Some(())
            }
            _ => None,
        });
        engine.applied(request);
        // What does not leave is said at once.
        let request = transmit(&mut engine, frame(&["nothing", "x"], &["answer"], b""));
        engine.wait(|notice| match notice {
            Notice::Undelivered { request: of, reason, left } if *of == request => {
                assert_eq!((*reason, *left), (DropReason::NoSuchAddress, 2));
                Some(())
            }
            _ => None,
        });
        drop(node);
        engine.wait(|notice| match notice {
            Notice::LinkDown { link: down, .. } if *down == link => Some(()),
            _ => None,
        });
    }

    control_that_attaches_later_finds_everything(engine) {
        let at = engine.serve();
        let mut peer = Peer::connect(at);
        peer.send(&frame(&["echo"], &["me"], b"before"));
        assert_eq!(peer.receive().payload, b"before");
        let door = engine.node_dir().join("engine.sock");
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&door).unwrap()) & 0o777;
        assert_eq!(mode, 0o600);
        use rustix::net::{AddressFamily, SocketFlags, SocketType};
        let next = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::connect(&next, &rustix::net::SocketAddrUnix::new(&door).unwrap()).unwrap();
        // Only one at a time: it waits for the first to be gone.
        drop(std::mem::replace(&mut engine.control, next));
        support::hello(&engine.control);
        let request = engine.request();
        engine.send(Command::Dump { request }, None);
        let (mut listeners, mut links, mut addresses) = (0, 0, Vec::new());
        loop {
            let (notice, descriptor) = engine.notice();
            match notice {
                Notice::Listener { listener, local, flow_control, cookie, .. } => {
                    assert_eq!((listener, local, flow_control, cookie.0), (1, at, FLOW, vec![7; 5]));
                    let socket = TcpListener::from(descriptor.expect("a listener comes with its socket"));
                    assert_eq!(socket.local_addr().unwrap(), at);
                    listeners += 1;
                }
                Notice::Link { peer: far, local, origin, cookie, traffic, .. } => {
                    assert_eq!((far, local), (peer.stream.local_addr().unwrap(), at));
                    assert_eq!((origin, cookie.0), (LinkOrigin::Accepted, vec![7; 5]));
                    assert_eq!((traffic.frames_in, traffic.frames_out), (1, 1));
                    links += 1;
                }
                Notice::Address { address, cookie, .. } => {
                    assert_eq!(cookie.0, [1, 2]);
                    addresses.push(String::from_utf8(address.0).unwrap());
                }
                Notice::DumpEnd { .. } => break,
                other => panic!("{other:?}"),
            }
        }
        addresses.sort();
        assert_eq!((listeners, links, addresses), (1, 1, ["echo", "hop", "uppercase"].map(str::to_owned).to_vec()));
        peer.send(&frame(&["echo"], &["me"], b"after"));
        assert_eq!(peer.receive().payload, b"after");
    }

    what_happens_before_a_control_greets_does_not_answer_its_greeting(engine) {
        let at = engine.serve();
        engine.set("answer", Target::Control, 1 << FLOW);
        let mut peer = Peer::connect(at);
        let mut knock = || {
            peer.send(&frame(&["answer"], &["me"], b"knock"));
            peer.send(&frame(&["echo"], &["me"], b"behind"));
            assert_eq!(peer.receive().payload, b"behind");
        };
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
        let door = SocketAddrUnix::new(engine.node_dir().join("engine.sock")).unwrap();
        for _ in 0..3 {
            let next = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
            let next = next.unwrap();
            rustix::net::connect(&next, &door).unwrap();
            drop(std::mem::replace(&mut engine.control, next));
            // It takes its time, and somebody always wants something.
            (0..50).for_each(|_| knock());
            support::hello(&engine.control);
            knock();
            engine.wait(|notice| matches!(notice, Notice::Punt { .. }).then_some(()));
            engine.seen.clear();
        }
    }

    a_name_is_resolved_by_control(engine) {
        let at = engine.serve();
        let far = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = far.local_addr().unwrap().port();
        let closed = ClosedPort::new();
        let mut peer = Peer::connect(at);
        let name = format!("1#node.example:{port}");
        peer.send(&frame(&[&name, "echo"], &["me"], b"first"));
        let link = engine.wait(|notice| match notice {
            Notice::Resolve { link, host, port: asked } => {
                assert_eq!((host.as_str(), *asked), ("node.example", port));
                Some(*link)
            }
            _ => None,
        });
        // The first address refuses, the second would be laundering, the third is the node.
        let outside = "192.0.2.1:80".parse().unwrap();
        let addresses = vec![closed.address(), outside, far.local_addr().unwrap()];
        engine.send(Command::Resolved { link, addresses }, None);
        let mut node = Peer::accept(&far);
        assert_eq!(node.receive().payload, b"first");
        let offer = Offer { token: [3; 16] };
        peer.send(&traced(&["1#nowhere.example:9", "echo"], &["me"], b"", Some(&offer.text())));
        let link = engine.wait(|notice| match notice {
            Notice::Resolve { link, .. } => Some(*link),
            _ => None,
        });
        engine.send(Command::Resolved { link, addresses: vec![] }, None);
        let told = peer.receive().tracing.unwrap();
        assert_eq!(undeliverable::Notice::parse(&told).unwrap().reason, DropReason::Unresolved as u8);
    }

    a_full_link_stops_what_feeds_it_and_nothing_is_lost(engine) {
        let at = engine.serve();
        let slow = TcpListener::bind("127.0.0.1:0").unwrap();
        // So that it is not the kernel that takes everything, however much this machine lets it.
        rustix::net::sockopt::set_socket_recv_buffer_size(&slow, 64 * 1024).unwrap();
        let hop = format!("1#{}", slow.local_addr().unwrap());
        let mut peer = Peer::connect(at);
        const FRAMES: u64 = 2_000;
        let mut sender = peer.stream.try_clone().unwrap();
        let writer = std::thread::spawn(move || {
            for number in 0..FRAMES {
                let size = if number % 7 == 0 { 20_000 } else { 900 };
                let mut payload = noise(size, number + 1);
                payload[..8].copy_from_slice(&number.to_be_bytes());
                std::io::Write::write_all(&mut sender, &frame(&[&hop, "x"], &["me"], &payload)).unwrap();
            }
        });
        let mut far = Peer::accept(&slow);
        // Nothing is read until the engine has stopped reading, which it counts.
        engine.reaches(Counter::Pauses, 1);
        // Others are not held up.
        let mut other = Peer::connect(at);
        other.send(&frame(&["echo"], &["me"], b"others go on"));
        assert_eq!(other.receive().payload, b"others go on");
        for number in 0..FRAMES {
            let payload = far.receive().payload;
            assert_eq!(payload[..8], number.to_be_bytes());
            assert!(payload[8..] == noise(payload.len(), number + 1)[8..], "frame {number} changed");
        }
        writer.join().unwrap();
        peer.send(&frame(&["echo"], &["me"], b"and on"));
        assert_eq!(peer.receive().payload, b"and on");
    }

    draining_ends_the_process(engine) {
        let at = engine.serve();
        let mut peer = Peer::connect(at);
        peer.send(&frame(&["echo"], &["me"], b"x"));
        peer.receive();
        let request = engine.request();
        engine.send(Command::Drain { request, limit_ms: 5_000, release_ports: true }, None);
        engine.applied(request);
        assert!(peer.is_closed());
        assert!(engine.child.wait().unwrap().success());
        assert!(!engine.node_dir().join("engine.sock").exists());
        // The port is free although the ring may still be going.
        TcpListener::bind(at).unwrap();
        engine = Engine::start("epoll", 1);
    }
}
