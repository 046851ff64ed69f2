//! Portals and relays of engine processes, on both drivers and on two cores: applications are sockets of these tests, and
//! what carries the portal is a link, a channel, or nothing at all.

#[macro_use]
mod support;

use ockam_engine_abi::{
    ChannelGrants, CloseReason, Command, Counter, DropReason, Grants, Guard, Key, Notice, PortalTarget, Target,
};
use ockam_wire::portal::{PAYLOAD_HEAD_MAX, PortalMessage, payload_counter, payload_head};
use ockam_wire::undeliverable::{self, Offer};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use support::{ClosedPort, Engine, FLOW, PATIENCE, Peer, frame, noise, traced};

/// Not a test by itself: what the others start becomes an engine here.
#[test]
fn engine_process() {
    support::become_engine();
}

const CHANNEL_FLOW: u8 = 9;
const INLET: u32 = 100;
const OUTLET: &str = "outlet";
const GUARD: Guard = 70;
/// The client's offer, and the engine's.
const CREDIT: u32 = 128 * 1024;

/// What is between inlet and outlet.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Between {
    /// They are on one node.
    Nothing,
    Link,
    Channel,
}

const ALL: [Between; 3] = [Between::Nothing, Between::Link, Between::Channel];

/// A portal from an inlet of the test's engine to a listener of the test.
struct Portal {
    far: Option<Engine>,
    inlet: SocketAddr,
    target: TcpListener,
}

impl Portal {
    fn new(near: &mut Engine, between: Between) -> Portal {
        Portal::guarded(near, between, [None; 2])
    }

    /// The same with guards at the inlet and at the outlet.
    fn guarded(near: &mut Engine, between: Between, [at_inlet, at_outlet]: [Option<Guard>; 2]) -> Portal {
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = [PortalTarget::Tcp(target.local_addr().unwrap())];
        let (far, way) = match between {
            Between::Nothing => {
                set_guarded_outlet(near, &to, at_outlet);
                (None, vec![OUTLET.to_owned()])
            }
            Between::Link | Between::Channel => {
                let mut far = Engine::start(&near.driver, near.cores as u8);
                set_guarded_outlet(&mut far, &to, at_outlet);
                let (near_link, far_link) = connect(near, &mut far);
                let first = if between == Between::Channel {
                    install(near, "n", &near_link, "f", [1, 2]);
                    install(&mut far, "f", &far_link, "n", [2, 1]);
                    end("n", 'e')
                } else {
                    near_link
                };
                (Some(far), vec![first, OUTLET.to_owned()])
            }
        };
        let inlet = add_inlet(near, at_inlet);
        route_inlet(near, &way.iter().map(String::as_str).collect::<Vec<_>>());
        Portal { far, inlet, target }
    }

    /// A connection of both applications.
    fn open(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.inlet).unwrap();
        (patient(client), patient(self.target.accept().unwrap().0))
    }
}

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn set_outlet(engine: &mut Engine, targets: &[PortalTarget]) {
    set_guarded_outlet(engine, targets, None);
}

fn set_guarded_outlet(engine: &mut Engine, targets: &[PortalTarget], guard: Option<Guard>) {
    let request = engine.request();
    let (address, targets) = (OUTLET.as_bytes().to_vec().into(), targets.to_vec());
    let reachable = 1 << FLOW | 1 << CHANNEL_FLOW;
    let command =
        Command::SetOutlet { request, address, targets, reachable, plain: false, guard, cookie: vec![1].into() };
    engine.send(command, None);
    engine.applied(request);
}

fn add_inlet(engine: &mut Engine, guard: Option<Guard>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let request = engine.request();
    let command = Command::AddInlet { request, inlet: INLET, guard, cookie: vec![5; 3].into() };
    engine.send(command, Some(&OwnedFd::from(listener)));
    engine.applied(request);
    address
}

fn route_inlet(engine: &mut Engine, way: &[&str]) {
    let request = engine.request();
    let way = Some(frame(way, &[], &[])[4..].to_vec().into());
    engine.send(Command::RouteInlet { request, inlet: INLET, way, wait_ms: 300 }, None);
    engine.applied(request);
}

/// The inlet has no way, and its connections wait so long for one.
fn unroute_inlet(engine: &mut Engine, wait_ms: u32) {
    let request = engine.request();
    engine.send(Command::RouteInlet { request, inlet: INLET, way: None, wait_ms }, None);
    engine.applied(request);
}

/// Dials from `near` to `far`: the addresses of the link on either.
fn connect(near: &mut Engine, far: &mut Engine) -> (String, String) {
    let target = far.listen(1, FLOW);
    let request = near.request();
    near.send(Command::Dial { request, target, cookie: vec![].into() }, None);
    let (address, local) = near.wait(|notice| match notice {
        Notice::LinkUp { request: of, address, local, .. } if *of == request => {
            Some((String::from_utf8(address.0.clone()).unwrap(), *local))
        }
        _ => None,
    });
    // It is up here before the far engine may have seen the preamble; its address is there from the beginning.
    let far = std::iter::repeat_with(|| link_from(far, local)).flatten().next().expect("it never ends");
    (address, far)
}

/// The local address of the link that comes from `peer`.
fn link_from(engine: &mut Engine, peer: SocketAddr) -> Option<String> {
    let request = engine.request();
    engine.send(Command::Dump { request }, None);
    let mut found = None;
    loop {
        match engine.notice().0 {
            Notice::Link { address, peer: from, .. } if from == peer => {
                found = Some(String::from_utf8(address.0).unwrap());
            }
            Notice::DumpEnd { request: of } if of == request => return found,
            _ => {}
        }
    }
}

/// A channel's local names: of node `n` or `f`, encryptor `e` or decryptor `d`.
fn end(node: &str, side: char) -> String {
    format!("{node}{}", side.to_string().repeat(31))
}

fn install(engine: &mut Engine, node: &str, link: &str, peer: &str, [sealing, opening]: [u8; 2]) {
    let request = engine.request();
    let command = Command::InstallChannel {
        request,
        channel: 1,
        decryptor: end(node, 'd').into_bytes().into(),
        encryptor: end(node, 'e').into_bytes().into(),
        sealing_key: Key::new(&[sealing; 32]),
        opening_key: Key::new(&[opening; 32]),
        way: frame(&[link, &end(peer, 'd')], &[], &[])[4..].to_vec().into(),
        follows_peer: node == "f",
        reachable: 1 << FLOW | 1 << ockam_engine_abi::FLOW_CONTROL_DIALED,
        flow_control: CHANNEL_FLOW,
        expires_in_ms: None,
        grants: ockam_engine_abi::Grants::default(),
        cookie: vec![].into(),
    };
    engine.send(command, None);
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

/// What the peer of the channel is granted.
fn grant(engine: &mut Engine, grants: Grants) {
    let request = engine.request();
    engine.send(Command::SetGrants { request, channels: vec![ChannelGrants { channel: 1, grants }] }, None);
    engine.applied(request);
}

/// Connections that guards did not let pass, before they were made or later.
fn denials(engine: &Engine) -> u64 {
    let counters = engine.counters();
    counters.total(CloseReason::PortalDenied) + counters.total(DropReason::PolicyDenied)
}

/// How a connection is no longer let pass.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Shrink {
    Grants,
    Time,
    Open,
}

fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Whether a stream ends with a reset, after whatever still came.
fn is_reset(stream: &mut TcpStream) -> bool {
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

fn payload(data: &[u8], counter: Option<u16>) -> Vec<u8> {
    let mut head = [0; PAYLOAD_HEAD_MAX];
    let length = payload_head(data.len(), &mut head);
    let counter = counter.map(payload_counter);
    [&head[PAYLOAD_HEAD_MAX - length..], data, counter.as_ref().map_or(&[], |bytes| &bytes[..])].concat()
}

/// A node that is none of ours and has an outlet: the inlet's Ping came, and is answered so.
fn foreign_outlet(engine: &mut Engine, credit: Option<u32>) -> (TcpStream, Peer, String) {
    let (mut peer, to, client) = foreign_ping(engine, None);
    peer.send(&frame(&[&to], &["me"], &PortalMessage::Pong { credit }.encode()));
    (client, peer, to)
}

/// The same before that answers: the address of the inlet's connection.
fn foreign_ping(engine: &mut Engine, guard: Option<Guard>) -> (Peer, String, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let request = engine.request();
    let target = listener.local_addr().unwrap();
    engine.send(Command::Dial { request, target, cookie: vec![].into() }, None);
    let mut peer = Peer::accept(&listener);
    let link = engine.wait(|notice| match notice {
        Notice::LinkUp { request: of, address, .. } if *of == request => {
            Some(String::from_utf8(address.0.clone()).unwrap())
        }
        _ => None,
    });
    let inlet = add_inlet(engine, guard);
    route_inlet(engine, &[&link, OUTLET]);
    let client = patient(TcpStream::connect(inlet).unwrap());
    let ping = peer.receive();
    assert_eq!(ping.onward, [OUTLET.parse().unwrap()]);
    assert_eq!(PortalMessage::parse(&ping.payload), Some(PortalMessage::Ping { credit: Some(CREDIT) }));
    let [to] = &ping.back[..] else { panic!("{:?}", ping.back) };
    let to = to.to_string();
    (peer, to, client)
}

/// An inlet of a node that is none of ours has a connection to a target of the test.
fn foreign_inlet(engine: &mut Engine, credit: Option<u32>) -> (Peer, TcpStream, String) {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    set_outlet(engine, &[PortalTarget::Tcp(target.local_addr().unwrap())]);
    let mut peer = Peer::connect(engine.listen(1, FLOW));
    peer.send(&frame(&[OUTLET], &["me"], &PortalMessage::Ping { credit }.encode()));
    let server = patient(target.accept().unwrap().0);
    let pong = peer.receive();
    let expected = PortalMessage::Pong { credit: credit.map(|_| CREDIT) };
    assert_eq!(PortalMessage::parse(&pong.payload), Some(expected));
    assert_eq!(pong.onward, ["me".parse().unwrap()]);
    let [to] = &pong.back[..] else { panic!("{:?}", pong.back) };
    let to = to.to_string();
    (peer, server, to)
}

on_both_drivers! {
    bytes_go_both_ways_at_once(engine) {
        for between in ALL {
            let portal = Portal::new(&mut engine, between);
            for length in [1, 64, 4096, 4097, 131_072, 10_000_000] {
                let (mut client, mut server) = portal.open();
                let (there, back) = (noise(length, 1), noise(length, 2));
                let mut writer = (client.try_clone().unwrap(), there.clone());
                let client_writes = std::thread::spawn(move || writer.0.write_all(&writer.1).unwrap());
                let mut writer = (server.try_clone().unwrap(), back.clone());
                let server_writes = std::thread::spawn(move || writer.0.write_all(&writer.1).unwrap());
                let client_reads = {
                    let mut client = client.try_clone().unwrap();
                    std::thread::spawn(move || {
                        let mut bytes = vec![0; length];
                        client.read_exact(&mut bytes).unwrap();
                        bytes
                    })
                };
                let mut bytes = vec![0; length];
                server.read_exact(&mut bytes).unwrap();
                assert!(bytes == there, "{between:?} {length}");
                assert!(client_reads.join().unwrap() == back, "{between:?} {length}");
                client_writes.join().unwrap();
                server_writes.join().unwrap();
                // Either side ends its own direction, and the whole connection is over.
                client.shutdown(Shutdown::Write).unwrap();
                assert_eq!(read_all(&mut server), b"");
                server.shutdown(Shutdown::Write).unwrap();
                assert_eq!(read_all(&mut client), b"");
            }
            remove_inlet(&mut engine);
        }
        engine.reaches(CloseReason::PortalDone, 18);
        assert_eq!(engine.counters().total(CloseReason::Reset), 0);
    }

    a_side_that_is_done_still_gets_the_whole_answer(engine) {
        for between in ALL {
            let portal = Portal::new(&mut engine, between);
            let (mut client, mut server) = portal.open();
            let (question, answer) = (noise(3_000_000, 3), noise(5_000_000, 4));
            let asked = question.clone();
            let asker = std::thread::spawn(move || {
                client.write_all(&asked).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
                read_all(&mut client)
            });
            assert!(read_all(&mut server) == question);
            server.write_all(&answer).unwrap();
            drop(server);
            assert!(asker.join().unwrap() == answer, "{between:?}");
            remove_inlet(&mut engine);
        }
    }

    what_was_sent_before_the_end_arrives(engine) {
        for between in ALL {
            let portal = Portal::new(&mut engine, between);
            let all = noise(10_000_000, 5);
            // The server is done and gone before the client has read anything.
            let (mut client, mut server) = portal.open();
            let sent = all.clone();
            let done = std::thread::spawn(move || {
                server.write_all(&sent).unwrap();
                drop(server);
            });
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(read_all(&mut client) == all, "{between:?}");
            done.join().unwrap();
            remove_inlet(&mut engine);
        }
    }

    a_reset_goes_through(engine) {
        for between in ALL {
            let portal = Portal::new(&mut engine, between);
            let (client, mut server) = portal.open();
            rustix::net::sockopt::set_socket_linger(&client, Some(std::time::Duration::ZERO)).unwrap();
            drop(client);
            assert!(is_reset(&mut server), "{between:?}");
            let (mut client, server) = portal.open();
            rustix::net::sockopt::set_socket_linger(&server, Some(std::time::Duration::ZERO)).unwrap();
            drop(server);
            assert!(is_reset(&mut client), "{between:?}");
            remove_inlet(&mut engine);
        }
    }

    a_target_that_is_not_there_ends_the_client_at_once(engine) {
        for between in ALL {
            let mut portal = Portal::new(&mut engine, between);
            let closed = ClosedPort::new();
            let far = portal.far.as_mut().unwrap_or(&mut engine);
            set_outlet(far, &[PortalTarget::Tcp(closed.address()), PortalTarget::Unix((*b"/nowhere/at/all").into())]);
            let mut client = patient(TcpStream::connect(portal.inlet).unwrap());
            assert!(is_reset(&mut client), "{between:?}");
            let far = portal.far.as_mut().unwrap_or(&mut engine);
            let errno = far.wait(|notice| match notice {
                Notice::OutletFailed { address, errno } if address.0 == OUTLET.as_bytes() => Some(*errno),
                _ => None,
            });
            assert_eq!(errno, rustix::io::Errno::NOENT.raw_os_error());
            // The next one is tried when the first does not answer.
            let there = PortalTarget::Tcp(portal.target.local_addr().unwrap());
            set_outlet(far, &[PortalTarget::Tcp(closed.address()), there]);
            let (mut client, mut server) = portal.open();
            client.write_all(b"second").unwrap();
            let mut bytes = [0; 6];
            server.read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"second");
            remove_inlet(&mut engine);
        }
    }

    an_outlet_that_is_not_there_ends_the_client_at_once(engine) {
        for (round, between) in [Between::Link, Between::Channel].into_iter().enumerate() {
            let mut portal = Portal::new(&mut engine, between);
            let far = portal.far.as_mut().unwrap();
            let request = far.request();
            far.send(Command::ClearAddress { request, address: OUTLET.as_bytes().to_vec().into() }, None);
            far.applied(request);
            let began = std::time::Instant::now();
            let mut client = patient(TcpStream::connect(portal.inlet).unwrap());
            assert!(is_reset(&mut client), "{between:?}");
            engine.reaches(CloseReason::PortalUnanswered, round as u64 + 1);
            // What is not said by a notice ends after 20 s.
            assert!(began.elapsed().as_secs() < 15, "{between:?}: nobody said so");
            engine.wait(|notice| matches!(notice, Notice::InletUnanswered { inlet: INLET }).then_some(()));
            remove_inlet(&mut engine);
        }
    }

    a_lost_link_resets_both_ends(engine) {
        for between in [Between::Link, Between::Channel] {
            let mut portal = Portal::new(&mut engine, between);
            let (mut client, mut server) = portal.open();
            client.write_all(b"x").unwrap();
            server.read_exact(&mut [0]).unwrap();
            let far = portal.far.as_mut().unwrap();
            let request = far.request();
            far.send(Command::Dump { request }, None);
            let link = far.wait(|notice| match notice {
                Notice::Link { link, .. } => Some(*link),
                _ => None,
            });
            let request = far.request();
            far.send(Command::CloseLink { request, link }, None);
            far.applied(request);
            assert!(is_reset(&mut server), "{between:?}");
            assert!(is_reset(&mut client), "{between:?}");
            remove_inlet(&mut engine);
            if between == Between::Channel {
                retire(&mut engine);
            }
        }
    }

    a_stalled_reader_holds_only_itself(engine) {
        for between in ALL {
            let portal = Portal::new(&mut engine, between);
            // Buffers of the kernel are for all tests together.
            let small = 64 * 1024;
            rustix::net::sockopt::set_socket_recv_buffer_size(&portal.target, small).unwrap();
            let stalled: Vec<_> = (0..30).map(|_| portal.open()).collect();
            for (client, _) in &stalled {
                rustix::net::sockopt::set_socket_send_buffer_size(client, small).unwrap();
                client.set_nonblocking(true).unwrap();
                let chunk = noise(1 << 20, 6);
                let mut client = client;
                // Until neither the sockets nor the engines take more.
                while client.write(&chunk).is_ok() {}
            }
            for _ in 0..20 {
                let (mut client, mut server) = portal.open();
                let all = noise(2_000_000, 7);
                let sent = all.clone();
                let writer = std::thread::spawn(move || {
                    client.write_all(&sent).unwrap();
                    client.shutdown(Shutdown::Write).unwrap();
                    client
                });
                assert!(read_all(&mut server) == all, "{between:?}");
                drop(writer.join().unwrap());
            }
            assert_eq!(engine.counters().total(CloseReason::SlowPeer), 0);
            drop(stalled);
            remove_inlet(&mut engine);
        }
    }

    connections_wait_for_a_way(engine) {
        let mut portal = Portal::new(&mut engine, Between::Nothing);
        unroute_inlet(&mut engine, 300);
        let mut early = patient(TcpStream::connect(portal.inlet).unwrap());
        // It may be over before that is said.
        let _ = early.write(b"early");
        // Closed when the time is over ...
        let _ = early.read(&mut [0]);
        engine.reaches(CloseReason::PortalUnanswered, 1);
        // ... and established when a way is there in time, which is as long as this may take.
        unroute_inlet(&mut engine, 10 * 60 * 1000);
        let mut client = patient(TcpStream::connect(portal.inlet).unwrap());
        client.write_all(b"in time").unwrap();
        route_inlet(&mut engine, &[OUTLET]);
        portal.target.set_nonblocking(false).unwrap();
        let mut server = patient(portal.target.accept().unwrap().0);
        let mut bytes = [0; 7];
        server.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"in time");
        assert!(portal.far.take().is_none());
    }

    a_foreign_outlet_gets_what_foreign_nodes_understand(engine) {
        let (mut client, mut peer, own) = foreign_outlet(&mut engine, None);
        client.write_all(b"hello").unwrap();
        let message = peer.receive();
        assert_eq!(message.onward, ["me".parse().unwrap()]);
        assert_eq!(message.back, [own.parse().unwrap()]);
        assert_eq!(message.payload, b"\x03\x05hello");
        peer.send(&frame(&[&own], &["me"], b"\x03\x03wor"));
        peer.send(&frame(&[&own], &["me"], b"\x03\x82\x00ld"));
        let mut bytes = [0; 5];
        client.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"world");
        // There is no half-close: all is over with the first end, and nothing follows.
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(peer.receive().payload, b"\x02");
        assert_eq!(read_all(&mut client), b"");
        engine.reaches(CloseReason::PortalDone, 1);
        peer.send(&frame(&[&own], &["me"], b"\x03\x03wor"));
        engine.reaches(DropReason::NoSuchAddress, 1);
    }

    a_foreign_outlet_that_is_done_has_delivered_all(engine) {
        let (mut client, mut peer, own) = foreign_outlet(&mut engine, None);
        let all = noise(3_000_000, 8);
        for part in all.chunks(100_000) {
            peer.send(&frame(&[&own], &["me"], &payload(part, None)));
        }
        peer.send(&frame(&[&own], &["me"], &[2]));
        assert!(read_all(&mut client) == all);
    }

    a_foreign_inlet_is_served(engine) {
        let (mut peer, mut server, own) = foreign_inlet(&mut engine, None);
        peer.send(&frame(&[&own], &["me"], &payload(b"question", None)));
        let mut bytes = [0; 8];
        server.read_exact(&mut bytes).unwrap();
        server.write_all(b"answer").unwrap();
        assert_eq!(peer.receive().payload, b"\x03\x06answer");
        drop(server);
        assert_eq!(peer.receive().payload, b"\x02");
        // A target that is not there: Pong, then Disconnect.
        let closed = ClosedPort::new();
        set_outlet(&mut engine, &[PortalTarget::Tcp(closed.address())]);
        peer.send(&frame(&[OUTLET], &["me"], &[0]));
        assert_eq!(peer.receive().payload, b"\x01");
        assert_eq!(peer.receive().payload, b"\x02");
        // Nothing but a Ping opens a connection.
        peer.send(&frame(&[OUTLET], &["me"], &[1]));
        peer.send(&frame(&[OUTLET], &["me"], &[3, 1, 1]));
        engine.reaches(DropReason::BadPayload, 2);
    }

    a_payload_that_is_missing_ends_the_connection(engine) {
        let (mut peer, mut server, own) = foreign_inlet(&mut engine, Some(CREDIT));
        peer.send(&frame(&[&own], &["me"], &payload(b"one", Some(0))));
        let mut bytes = [0; 3];
        server.read_exact(&mut bytes).unwrap();
        peer.send(&frame(&[&own], &["me"], &payload(b"three", Some(2))));
        assert!(is_reset(&mut server));
        let broken = PortalMessage::parse(&peer.receive().payload).map(|said| said == PortalMessage::Disconnect { broken: true });
        assert_eq!(broken, Some(true));
    }

    what_a_foreign_node_counts_has_no_holes(engine) {
        let (mut peer, mut server, own) = foreign_inlet(&mut engine, None);
        for (number, data) in [(None, b"a"), (Some(0), b"b"), (None, b"c"), (Some(1), b"d"), (Some(3), b"x")] {
            peer.send(&frame(&[&own], &["me"], &payload(data, number)));
        }
        assert_eq!(peer.receive().payload, [2]);
        // It was all that there was, or less: what is in the socket may go with the reset.
        let mut bytes = Vec::new();
        assert_eq!(server.read_to_end(&mut bytes).map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
        assert!(b"abcd".starts_with(&bytes));
    }

    an_end_that_came_too_early_is_none(engine) {
        let (mut peer, mut server, own) = foreign_inlet(&mut engine, Some(CREDIT));
        peer.send(&frame(&[&own], &["me"], &payload(b"one", Some(0))));
        peer.send(&frame(&[&own], &["me"], &PortalMessage::End { total: 4 }.encode()));
        assert!(is_reset(&mut server));
    }

    credit_bounds_what_is_sent(engine) {
        let (mut peer, mut server, own) = foreign_inlet(&mut engine, Some(1000));
        let all = noise(1_000_000, 9);
        let sent = all.clone();
        let writer = std::thread::spawn(move || {
            server.write_all(&sent).unwrap();
            server.shutdown(Shutdown::Write).unwrap();
            server
        });
        let mut got = Vec::new();
        let mut counter = 0;
        let mut limit = 1000;
        loop {
            let message = peer.receive();
            match PortalMessage::parse(&message.payload) {
                Some(PortalMessage::Payload { data, counter: number }) => {
                    assert_eq!(number, Some(counter));
                    counter += 1;
                    assert!((got.len() as u64) < limit, "it was sent beyond its credit");
                    got.extend_from_slice(data);
                    limit = got.len() as u64 + 1000;
                    peer.send(&frame(&[&own], &["me"], &PortalMessage::Credit { limit }.encode()));
                }
                Some(PortalMessage::End { total }) => {
                    assert_eq!(total, all.len() as u64);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(got == all);
        drop(writer.join().unwrap());
        assert!(engine.counters().total(Counter::PortalsWaited) > 0);
    }

    a_way_back_that_is_too_long_is_not_kept(engine) {
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        set_outlet(&mut engine, &[PortalTarget::Tcp(target.local_addr().unwrap())]);
        let mut peer = Peer::connect(engine.listen(1, FLOW));
        let name = "x".repeat(200);
        peer.send(&frame(&[OUTLET], &[&*name; 30], &[0]));
        engine.reaches(DropReason::RouteTooLong, 1);
        peer.send(&frame(&[OUTLET], &[&*name; 10], &[0]));
        drop(target.accept().unwrap());
        assert_eq!(peer.receive().onward.len(), 10);
    }

    strangers_do_not_reach_a_connection(engine) {
        let (mut peer, mut server, own) = foreign_inlet(&mut engine, None);
        let at = engine.listen(2, FLOW);
        let mut stranger = Peer::connect(at);
        engine.set("hop", Target::Hop, 1 << FLOW);
        stranger.send(&frame(&[&own], &["me"], &payload(b"no", None)));
        stranger.send(&frame(&["hop", &own], &["me"], &payload(b"no", None)));
        engine.reaches(DropReason::NotAdmitted, 2);
        peer.send(&frame(&[&own], &["me"], &payload(b"yes", None)));
        let mut bytes = [0; 3];
        server.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"yes");
    }

    relays_forward_along_their_way(engine) {
        engine.set("echo", Target::Echo, 1 << FLOW);
        let at = engine.listen(1, FLOW);
        let (mut origin, mut client) = (Peer::connect(at), Peer::connect(at));
        client.send(&frame(&["echo"], &["x"], b"up"));
        client.receive();
        let link = loop {
            if let Some(link) = link_from(&mut engine, client.stream.local_addr().unwrap()) {
                break link;
            }
        };
        let request = engine.request();
        let way = Some(frame(&[&link, "beyond"], &[], &[])[4..].to_vec().into());
        let (address, reachable) = (b"forward_to_x".to_vec(), 1 << FLOW);
        let command = Command::SetRelay {
            request,
            address: address.clone().into(),
            way,
            reachable,
            cookie: vec![8].into(),
        };
        engine.send(command, None);
        engine.applied(request);
        let large = noise(100_000, 10);
        for body in [&b"small"[..], &large] {
            origin.send(&frame(&["forward_to_x", "echo"], &["me"], body));
            let relayed = client.receive();
            assert_eq!(relayed.onward, ["beyond".parse().unwrap(), "echo".parse().unwrap()]);
            assert_eq!(relayed.back.len(), 2);
            assert_eq!(relayed.back[1], "me".parse().unwrap());
            assert_eq!(relayed.payload, body);
            // The answer goes back over the links.
            let back: Vec<String> = relayed.back.iter().map(ToString::to_string).collect();
            client.send(&frame(&back.iter().map(String::as_str).collect::<Vec<_>>(), &[], b"answer"));
            assert_eq!(origin.receive().payload, b"answer");
        }
        drop(client);
        engine.wait(|notice| match notice {
            Notice::RelayGone { address: gone } => (gone.0 == address).then_some(()),
            _ => None,
        });
        engine.at_last(DropReason::NoSuchAddress, || origin.send(&frame(&["forward_to_x", "echo"], &["me"], b"x")));
    }

    a_relay_without_a_way_goes_on_along_the_route(engine) {
        engine.set("open", Target::Echo, 1 << FLOW);
        engine.set("closed", Target::Echo, 1 << 5);
        let request = engine.request();
        let (address, reachable) = (b"mmmm".to_vec().into(), 1 << FLOW);
        engine.send(Command::SetRelay { request, address, way: None, reachable, cookie: vec![].into() }, None);
        engine.applied(request);
        let mut peer = Peer::connect(engine.listen(1, FLOW));
        peer.send(&frame(&["mmmm", "open"], &["me"], b"on"));
        assert_eq!(peer.receive().payload, b"on");
        // It lends nobody its own reach.
        peer.send(&frame(&["mmmm", "closed"], &["me"], b"on"));
        engine.reaches(DropReason::NotAdmitted, 1);
        peer.send(&frame(&["mmmm"], &["me"], b"reply"));
        engine.wait(|notice| match notice {
            Notice::Punt { message, .. } => {
                let message = ockam_wire::Message::parse(&message.0).unwrap();
                (message.payload == b"reply").then_some(())
            }
            _ => None,
        });
    }

    connections_live_for_as_long_as_their_guard_lets_them_pass(engine) {
        for at_inlet in [true, false] {
            let guards = if at_inlet { [Some(GUARD), None] } else { [None, Some(GUARD)] };
            let mut portal = Portal::guarded(&mut engine, Between::Channel, guards);
            let mut far = portal.far.take().unwrap();
            for (granted, shrink) in [
                (grants(&[GUARD], None), Shrink::Grants),
                (grants(&[GUARD, 900], Some(1 << 40)), Shrink::Time),
                (grants(&[900], None), Shrink::Open),
                (grants(&[GUARD], None), Shrink::Grants),
            ] {
                let what = format!("guarded at the inlet: {at_inlet}, {shrink:?}");
                let guarded = if at_inlet { &mut engine } else { &mut far };
                let denied = denials(guarded);
                let mut client = patient(TcpStream::connect(portal.inlet).unwrap());
                assert!(is_reset(&mut client), "{what}: nobody may yet");
                assert_eq!(denials(guarded), denied + 1, "{what}");

                grant(guarded, granted);
                open(guarded, if shrink == Shrink::Open { &[GUARD] } else { &[] });
                let (mut client, mut server) = portal.open();
                client.write_all(b"question").unwrap();
                let mut bytes = [0; 8];
                server.read_exact(&mut bytes).unwrap();
                server.write_all(b"the rest").unwrap();
                client.read_exact(&mut bytes).unwrap();
                match shrink {
                    Shrink::Grants => grant(guarded, grants(&[900], None)),
                    Shrink::Open => open(guarded, &[900]),
                    Shrink::Time => grant(guarded, grants(&[GUARD], Some(200))),
                }
                assert!(is_reset(&mut client) && is_reset(&mut server), "{what}");
                assert_eq!(denials(guarded), denied + 2, "{what}");
            }
            remove_inlet(&mut engine);
            retire(&mut engine);
        }
    }

    what_an_open_guard_let_pass_over_a_link_ends_when_it_shuts(engine) {
        for at_inlet in [true, false] {
            let guards = if at_inlet { [Some(GUARD), None] } else { [None, Some(GUARD)] };
            let mut portal = Portal::guarded(&mut engine, Between::Link, guards);
            let mut far = portal.far.take().unwrap();
            let guarded = if at_inlet { &mut engine } else { &mut far };
            open(guarded, &[GUARD]);
            let (mut client, mut server) = portal.open();
            open(guarded, &[GUARD, 3]);
            client.write_all(b"x").unwrap();
            server.read_exact(&mut [0]).unwrap();
            open(guarded, &[3]);
            assert!(is_reset(&mut client) && is_reset(&mut server), "{at_inlet}");
            assert!(is_reset(&mut patient(TcpStream::connect(portal.inlet).unwrap())), "{at_inlet}");
            remove_inlet(&mut engine);
        }
    }

    a_portal_inside_one_node_passes_every_guard(engine) {
        let portal = Portal::guarded(&mut engine, Between::Nothing, [Some(GUARD), Some(GUARD)]);
        let (mut client, mut server) = portal.open();
        open(&mut engine, &[1]);
        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0]).unwrap();
        server.write_all(b"y").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }

    an_outlet_that_gets_another_guard_keeps_whom_that_lets_pass(engine) {
        let mut portal = Portal::guarded(&mut engine, Between::Channel, [None, Some(GUARD)]);
        let mut far = portal.far.take().unwrap();
        let to = [PortalTarget::Tcp(portal.target.local_addr().unwrap())];
        grant(&mut far, grants(&[GUARD, 900], None));
        let (mut client, mut server) = portal.open();
        set_guarded_outlet(&mut far, &to, Some(900));
        grant(&mut far, grants(&[900], None));
        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0]).unwrap();
        set_guarded_outlet(&mut far, &to, Some(901));
        assert!(is_reset(&mut client) && is_reset(&mut server));
        set_guarded_outlet(&mut far, &to, None);
        drop(portal.open());
    }

    a_way_through_a_forwarder_is_guarded_as_the_one_around_it(engine) {
        engine.set("hop", Target::Hop, 1 << FLOW);
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        set_guarded_outlet(&mut engine, &[PortalTarget::Tcp(target.local_addr().unwrap())], Some(GUARD));
        let mut peer = Peer::connect(engine.listen(1, FLOW));
        let ping = PortalMessage::Ping { credit: None }.encode();
        peer.send(&frame(&["hop", OUTLET], &["me"], &ping));
        engine.reaches(DropReason::PolicyDenied, 1);
        open(&mut engine, &[GUARD]);
        peer.send(&frame(&["hop", OUTLET], &["me"], &ping));
        let mut server = patient(target.accept().unwrap().0);
        assert_eq!(PortalMessage::parse(&peer.receive().payload), Some(PortalMessage::Pong { credit: None }));
        open(&mut engine, &[]);
        assert!(is_reset(&mut server));
        assert_eq!(PortalMessage::parse(&peer.receive().payload), Some(PortalMessage::Disconnect { broken: false }));
    }

    an_answer_through_a_forwarder_is_guarded_as_the_one_around_it(engine) {
        engine.set("hop", Target::Hop, 1 << ockam_engine_abi::FLOW_CONTROL_DIALED);
        open(&mut engine, &[GUARD]);
        let (mut peer, to, mut client) = foreign_ping(&mut engine, Some(GUARD));
        peer.send(&frame(&["hop", &to], &["me"], &PortalMessage::Pong { credit: None }.encode()));
        client.write_all(b"x").unwrap();
        assert_eq!(peer.receive().payload, payload(b"x", None));
        open(&mut engine, &[]);
        assert!(is_reset(&mut client));
        assert_eq!(PortalMessage::parse(&peer.receive().payload), Some(PortalMessage::Disconnect { broken: false }));
    }

    an_answer_that_comes_when_nobody_is_let_pass_any_more_is_the_end(engine) {
        open(&mut engine, &[GUARD]);
        let (mut peer, to, mut client) = foreign_ping(&mut engine, Some(GUARD));
        open(&mut engine, &[]);
        assert!(is_reset(&mut client));
        let offer = Offer { token: [1; 16] };
        let pong = PortalMessage::Pong { credit: None }.encode();
        peer.send(&traced(&[&to], &["me"], &pong, Some(&offer.text())));
        engine.reaches(CloseReason::PortalDenied, 1);
        let told = undeliverable::Notice::parse(&peer.receive().tracing.unwrap()).unwrap();
        assert_eq!((told.token, told.reason), (offer.token, DropReason::NoSuchAddress as u8));
    }

    a_target_is_let_go_of_when_the_inlet_is_gone_before_its_answer(engine) {
        for credit in [None, Some(CREDIT)] {
            let target = TcpListener::bind("127.0.0.1:0").unwrap();
            set_outlet(&mut engine, &[PortalTarget::Tcp(target.local_addr().unwrap())]);
            let listener = if credit.is_none() { 1 } else { 2 };
            let mut peer = Peer::connect(engine.listen(listener, FLOW));
            peer.send(&frame(&[OUTLET], &["me"], &PortalMessage::Ping { credit }.encode()));
            let mut server = patient(target.accept().unwrap().0);
            let pong = peer.receive();
            let [to] = &pong.back[..] else { panic!("{:?}", pong.back) };
            let offer = Offer::parse(&pong.tracing.unwrap()).expect("it offers to be told");
            // Of something else it is not.
            let notice = |token| undeliverable::Notice { token, reason: DropReason::NoSuchAddress as u8, left: 1 }.text();
            peer.send(&traced(&[&to.to_string()], &[], &[], Some(&notice([9; 16]))));
            peer.send(&frame(&[&to.to_string()], &["me"], &payload(b"x", credit.map(|_| 0))));
            server.read_exact(&mut [0]).unwrap();
            peer.send(&traced(&[&to.to_string()], &[], &[], Some(&notice(offer.token))));
            assert!(is_reset(&mut server));
        }
    }

    a_dump_shows_inlets_with_their_sockets(engine) {
        let portal = Portal::guarded(&mut engine, Between::Nothing, [Some(6), Some(7)]);
        let open = portal.open();
        let request = engine.request();
        engine.send(Command::Dump { request }, None);
        let (mut inlets, mut outlets, mut links) = (0, 0, 0);
        loop {
            match engine.notice() {
                (Notice::Inlet { inlet, way, connections, guard, cookie, .. }, socket) => {
                    assert_eq!((inlet, connections, guard, cookie.0), (INLET, 1, Some(6), vec![5; 3]));
                    assert_eq!(way.unwrap().0, frame(&[OUTLET], &[], &[])[4..]);
                    let socket = TcpListener::from(socket.expect("its socket"));
                    assert_eq!(socket.local_addr().unwrap(), portal.inlet);
                    inlets += 1;
                }
                (Notice::Address { target: Target::Outlet, address, guard, .. }, _) => {
                    assert_eq!((&*address.0, guard), (OUTLET.as_bytes(), Some(7)));
                    outlets += 1;
                }
                (Notice::Link { .. }, _) => links += 1,
                (Notice::DumpEnd { .. }, _) => break,
                _ => {}
            }
        }
        assert_eq!((inlets, outlets, links), (1, 1, 0));
        // An outlet that is removed takes its connections along.
        let request = engine.request();
        engine.send(Command::ClearAddress { request, address: OUTLET.as_bytes().to_vec().into() }, None);
        engine.applied(request);
        let (mut client, mut server) = open;
        assert!(is_reset(&mut client));
        assert!(is_reset(&mut server));
    }
}

fn remove_inlet(engine: &mut Engine) {
    let request = engine.request();
    engine.send(Command::RemoveInlet { request, inlet: INLET }, None);
    engine.applied(request);
}

fn retire(engine: &mut Engine) {
    let request = engine.request();
    engine.send(Command::RetireChannel { request, channel: 1, close: false }, None);
}
