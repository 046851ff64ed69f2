//! What comes through a channel for the connection that was spoken to before, on both drivers and on two cores: it is told
//! from everything else that comes on the same link.

#[macro_use]
mod support;

use ockam_crypto::RECORD_OVERHEAD;
use ockam_engine_abi::{Command, Counter, DropReason, PortalTarget, Target};
use ockam_wire::portal::{PAYLOAD_HEAD_MAX, PortalMessage, payload_head};
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use support::channel::{CHANNEL_FLOW, End, INWARD, OUTWARD, PEERS, another, install, installed, link_of};
use support::{Engine, FLOW, PATIENCE, Peer, frame, noise, occurrences};

/// Not a test by itself: what the others start becomes an engine here.
#[test]
fn engine_process() {
    support::become_engine();
}

const OUTLET: &str = "outlet";

/// An outlet that the peers of channels may use, and what it leads to.
fn outlet(engine: &mut Engine) -> TcpListener {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let request = engine.request();
    let targets = vec![PortalTarget::Tcp(target.local_addr().unwrap())];
    let (address, cookie) = (OUTLET.as_bytes().to_vec().into(), vec![1].into());
    let reachable = 1 << CHANNEL_FLOW;
    engine.send(Command::SetOutlet { request, address, targets, reachable, plain: false, guard: None, cookie }, None);
    engine.applied(request);
    engine.set("echo", Target::Echo, 1 << FLOW | 1 << CHANNEL_FLOW);
    target
}

/// A connection through a channel: its address, and the application's socket.
fn connection(peer: &mut Peer, end: &mut End, target: &TcpListener) -> (String, TcpStream) {
    peer.send(&end.frame(&[OUTLET], &["me"], &PortalMessage::Ping { credit: None }.encode()));
    let (stream, _) = target.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (_, back, payload) = end.receive(peer);
    assert_eq!(PortalMessage::parse(&payload), Some(PortalMessage::Pong { credit: None }));
    (back[0].to_string(), stream)
}

fn payload(data: &[u8]) -> Vec<u8> {
    let mut head = [0; PAYLOAD_HEAD_MAX];
    let length = payload_head(data.len(), &mut head);
    [&head[PAYLOAD_HEAD_MAX - length..], data].concat()
}

/// Says something to a connection through a channel, as one record.
fn say(end: &mut End, to: &str, data: &[u8]) -> Vec<u8> {
    end.frame(&[to], &["me"], &payload(data))
}

fn hears(stream: &mut TcpStream, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    stream.read_exact(&mut bytes).unwrap();
    assert!(bytes == expected, "{} bytes", expected.len());
}

/// Says something to a connection several times, so that it is known.
fn get_familiar(peer: &mut Peer, end: &mut End, (to, stream): (&str, &mut TcpStream)) {
    for round in 0..5 {
        peer.send(&say(end, to, &[round; 20]));
        hears(stream, &[round; 20]);
    }
}

on_both_drivers! {
    each_connection_hears_what_was_said_to_it(engine) {
        let target = outlet(&mut engine);
        let at = engine.listen(1, FLOW);
        let (mut peer, mut end) = another(&mut engine, at, 1);
        let mut connections = [connection(&mut peer, &mut end, &target), connection(&mut peer, &mut end, &target)];
        let mut frames = Vec::new();
        let mut said = [Vec::new(), Vec::new()];
        // Runs to one, a change in between, one by one in turn; small ones, large ones, and those of other kinds.
        for (round, to) in [0, 0, 0, 1, 0, 1, 1, 1, 0, 0, 0, 0, 1, 0].into_iter().enumerate() {
            for length in [1, 64, 64, 4096, 4097, 70_000] {
                let data = noise(length, (round * 100 + length) as u64);
                frames.extend(say(&mut end, &connections[to].0, &data));
                said[to].extend(data);
                if length == 64 {
                    frames.extend(end.frame(&["echo"], &["me"], b"asked in between"));
                    frames.extend(end.frame(&[&connections[to].0], &["me"], &PortalMessage::Ping { credit: None }.encode()));
                    frames.extend(end.frame(&[&connections[to].0], &["me"], &payload(b"")));
                }
            }
        }
        // All at once, and then one by one.
        for chunk in [frames.len(), 1_000] {
            if chunk < frames.len() {
                frames = (0..9).flat_map(|round| say(&mut end, &connections[0].0, &noise(300 + round, 7))).collect();
                said = [(0..9).flat_map(|round| noise(300 + round, 7)).collect(), Vec::new()];
            }
            let mut writer = peer.stream.try_clone().unwrap();
            let all = frames.clone();
            let sends = std::thread::spawn(move || {
                use std::io::Write;
                all.chunks(chunk).for_each(|chunk| writer.write_all(chunk).unwrap());
            });
            for (connection, said) in connections.iter_mut().zip(&said) {
                hears(&mut connection.1, said);
            }
            sends.join().unwrap();
        }
        for _ in 0..28 {
            assert_eq!(end.receive(&mut peer).2, b"asked in between");
        }
        assert_eq!(engine.counters().total(DropReason::NoSuchAddress), 0);
        assert_eq!(engine.counters().total(DropReason::BadPayload), 0);
    }

    what_is_no_longer_there_hears_nothing(engine) {
        let target = outlet(&mut engine);
        let at = engine.listen(1, FLOW);
        let (mut peer, mut end) = another(&mut engine, at, 1);
        let (first, mut stream) = connection(&mut peer, &mut end, &target);
        get_familiar(&mut peer, &mut end, (&first, &mut stream));
        // Something else takes its address: what was known of it does not hold any more.
        engine.set(first.strip_prefix("0#").unwrap_or(&first), Target::Echo, 1 << CHANNEL_FLOW);
        peer.send(&say(&mut end, &first, b"who is it"));
        assert_eq!(end.receive(&mut peer).2, payload(b"who is it"));
        drop(stream);
        assert_eq!(PortalMessage::parse(&end.receive(&mut peer).2), Some(PortalMessage::Disconnect { broken: false }));

        // One after the other on the same place of the core.
        for _ in 0..3 {
            let (address, mut stream) = connection(&mut peer, &mut end, &target);
            get_familiar(&mut peer, &mut end, (&address, &mut stream));
            drop(stream);
            let said = end.receive(&mut peer).2;
            assert_eq!(PortalMessage::parse(&said), Some(PortalMessage::Disconnect { broken: false }));
            let dropped = engine.counters().total(DropReason::NoSuchAddress);
            peer.send(&say(&mut end, &address, b"are you there"));
            engine.reaches(DropReason::NoSuchAddress, dropped + 1);
        }
    }

    nobody_else_is_taken_for_the_peer(engine) {
        let target = outlet(&mut engine);
        let at = engine.listen(1, FLOW);
        let (mut peer, mut end) = another(&mut engine, at, 1);
        // A second channel over the same link.
        let (_, link) = link_of(&mut engine, peer.stream.local_addr().unwrap());
        let second = install(&mut engine, 2, &[&link, PEERS], None);
        installed(&mut engine, second);
        let mut other = End::new(2);
        let (address, mut stream) = connection(&mut peer, &mut end, &target);
        get_familiar(&mut peer, &mut end, (&address, &mut stream));
        peer.send(&say(&mut other, &address, b"mine"));
        engine.reaches(DropReason::NotAdmitted, 1);
        // The same routes in front of a record that is not genuine, of one that was opened before, and of none.
        let genuine = say(&mut end, &address, b"once");
        let mut forged = say(&mut end, &address, b"changed");
        *forged.last_mut().unwrap() ^= 1;
        let short = frame(&[&end.decryptor], &[], &[0; RECORD_OVERHEAD - 1]);
        for bytes in [&genuine, &forged, &genuine, &short] {
            peer.send(bytes);
        }
        hears(&mut stream, b"once");
        engine.reaches(DropReason::NotGenuine, 2);
        engine.reaches(DropReason::Replayed, 1);
        peer.send(&say(&mut end, &address, b"still here"));
        hears(&mut stream, b"still here");
        // As long as the way is that of the channel's encryptor, what the application says is sealed for the peer alone.
        use std::io::Write;
        stream.write_all(b"answer").unwrap();
        let (onward, back, said) = end.receive(&mut peer);
        assert_eq!((onward, back[0].to_string()), (vec!["me".parse().unwrap()], address));
        assert_eq!(said, payload(b"answer"));
        assert!(engine.counters().total(Counter::RecordsSealed) > 0);
    }

    a_channel_that_is_gone_leaves_no_key_with_the_link(engine) {
        let target = outlet(&mut engine);
        let at = engine.listen(1, FLOW);
        let (mut peer, mut end) = another(&mut engine, at, 1);
        let (address, mut stream) = connection(&mut peer, &mut end, &target);
        get_familiar(&mut peer, &mut end, (&address, &mut stream));
        let [mut inward, mut outward] = [INWARD, OUTWARD];
        (inward[31], outward[31]) = (1, 1);
        let pid = engine.child.id();
        assert_eq!([occurrences(pid, &inward), occurrences(pid, &outward)], [1, 1]);
        let request = engine.request();
        engine.send(Command::RetireChannel { request, channel: 1, close: false }, None);
        engine.applied(request);
        assert_eq!(stream.read(&mut [0; 8]).map_err(|error| error.kind()), Err(std::io::ErrorKind::ConnectionReset));
        let dropped = engine.counters().total(DropReason::NoSuchAddress);
        peer.send(&say(&mut end, &address, b"are you there"));
        engine.reaches(DropReason::NoSuchAddress, dropped + 1);
        // A core may still hold the channel for a tick.
        peer.send(&frame(&["echo"], &["me"], b"later"));
        peer.receive();
        engine.set("other", Target::Echo, 0);
        assert_eq!([occurrences(pid, &inward), occurrences(pid, &outward)], [0, 0]);
    }
}
