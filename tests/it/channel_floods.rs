//! Handshakes of those who mean harm: what is half open is bounded and shared fairly, honest ones come through during and
//! after, and nothing of it is felt by what is established (D1, D2, D3).

use ockam_crypto::CLOSE;
use ockam_tests::{
    Channel, Home, Identity, Initiator, Node, Peer, Through, Traffic, addresses, frame, frame_to, noise,
    on_both_drivers, wait_until,
};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Handshakes that may be under way at a node, and of them on one link.
const HALF_OPEN_MAX: u64 = 1024;
const HALF_OPEN_PER_LINK_MAX: u64 = 256;

/// How long a handshake may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// What memory may differ by before it is called a leak.
const SLACK_BYTES: u64 = 16 << 20;

/// A node with honest traffic, plain and sealed.
struct Target {
    home: Home,
    node: Node,
    engine_bytes: u64,
    control_bytes: u64,
    descriptors: (usize, usize),
}

impl Target {
    fn new(driver: &str) -> Target {
        let home = Home::new();
        let node = home.node("n1", &["--driver", driver]);
        // Warm: identities exist, both cores have served someone.
        for _ in 0..8 {
            let mut peer = Peer::connect(node.address);
            let mut channel = Initiator::open(&mut peer, &["api"], &Identity::new());
            channel.echoes(&mut peer, &noise(200_000, 3));
            // Otherwise it would wait for its peer to come by another link.
            let close = channel.seal_text(&CLOSE);
            peer.send(&channel.frame(&close));
            peer.echoes(b"it is closed");
        }
        let mut target = Target { engine_bytes: 0, control_bytes: 0, descriptors: (0, 0), home, node };
        target.comes_to_rest();
        target.engine_bytes = target.node.engine.resident_bytes();
        target.control_bytes = target.node.control.resident_bytes();
        target.descriptors = (target.node.engine.descriptors(), target.node.control.descriptors());
        target
    }

    fn listener(&self) -> Value {
        self.home.json(&["secure-channel-listener", "show", "api", "--at", "n1"])
    }

    fn half_open(&self) -> u64 {
        self.listener()["half_open"].as_u64().expect("a number")
    }

    #[track_caller]
    fn comes_to_rest(&self) {
        wait_until(|| self.half_open() == 0, || format!("handshakes are left: {}", self.listener()));
        let links = || self.home.counter("n1", "counters", "links_open");
        wait_until(|| links() == 0, || format!("{} links are left", links()));
    }

    /// An honest handshake on a link of its own, to its end and into use.
    #[track_caller]
    fn admits(&self) -> (Peer, Channel, Duration) {
        let began = Instant::now();
        let mut peer = Peer::connect(self.node.address);
        let mut channel = Initiator::open(&mut peer, &["api"], &Identity::new());
        channel.echoes(&mut peer, b"it is open");
        (peer, channel, began.elapsed())
    }

    /// Everything that was taken is given back, and the node is as good as new.
    #[track_caller]
    fn recovers(&self) {
        self.comes_to_rest();
        self.admits();
        self.comes_to_rest();
        for (process, bytes) in [(self.node.engine, self.engine_bytes), (self.node.control, self.control_bytes)] {
            wait_until(
                || process.resident_bytes() <= bytes + SLACK_BYTES,
                || format!("{}: {} bytes, {bytes} before", process.command_line(), process.resident_bytes()),
            );
        }
        wait_until(
            || {
                let now = (self.node.engine.descriptors(), self.node.control.descriptors());
                now.0 <= self.descriptors.0 && now.1 <= self.descriptors.1
            },
            || "descriptors are not given back".into(),
        );
        assert_eq!(self.home.show("n1"), self.node, "they are the same processes");
    }
}

/// Honest traffic through a channel: numbered messages to `echo`, each answer compared with what must come next.
struct Sealed {
    round_trips: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sealed {
    fn start(target: &Target) -> Sealed {
        let (mut peer, mut channel, _) = target.admits();
        let (round_trips, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (done, end) = (round_trips.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                let number = done.load(Ordering::Relaxed);
                channel.echoes(&mut peer, &noise(1 + (number as usize * 97) % 3000, number + 1));
                done.store(number + 1, Ordering::Relaxed);
            }
        });
        let sealed = Sealed { round_trips, stop, thread: Some(thread) };
        sealed.flows();
        sealed
    }

    #[track_caller]
    fn flows(&self) {
        let aim = self.round_trips.load(Ordering::Relaxed) + 100;
        let failed = || self.thread.as_ref().is_some_and(JoinHandle::is_finished);
        wait_until(
            || failed() || self.round_trips.load(Ordering::Relaxed) >= aim,
            || "sealed traffic does not flow".into(),
        );
        assert!(!failed(), "sealed traffic failed");
    }

    #[track_caller]
    fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("it is stopped once").join().expect("every message came back as it was");
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A link that begins handshakes without end, as fast as it is let, and reads what comes back.
struct Flood {
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    fn start(node: &Node) -> Flood {
        let Peer { mut stream, .. } = Peer::connect(node.address);
        stream.set_nonblocking(true).unwrap();
        let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (done, end) = (sent.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut chunk = vec![0; 64 * 1024];
            let mut number = 0_u64;
            let mut waiting = Vec::new();
            while !end.load(Ordering::Relaxed) {
                if waiting.is_empty() {
                    number += 1;
                    // Any bytes are a key; each message is another handshake.
                    let back = format!("{number:032x}");
                    waiting = frame(&["api"], &[&back], &noise(32, number));
                    done.store(number, Ordering::Relaxed);
                }
                match stream.write(&waiting) {
                    Ok(count) => drop(waiting.drain(..count)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
                match stream.read(&mut chunk) {
                    Ok(0) => return,
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
                // A flood of thousands per second is enough; the machine has other things to do.
                if number.is_multiple_of(10) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        Flood { sent, stop, thread: Some(thread) }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // One that panicked says so on stderr.
            let _ = thread.join();
        }
    }
}

on_both_drivers! {
    // D1: first messages without end, on several links. What is half open is bounded in all and per link.
    first_messages_without_end_stop_nobody(driver) {
        let target = Target::new(driver);
        let (traffic, sealed) = (Traffic::start(target.node.address), Sealed::start(&target));
        let floods: Vec<Flood> = (0..6).map(|_| Flood::start(&target.node)).collect();
        let sent = || floods.iter().map(|flood| flood.sent.load(Ordering::Relaxed)).sum::<u64>();
        wait_until(|| sent() > 6000, || format!("{} were sent", sent()));
        // More than one of them may have: otherwise this is no flood.
        wait_until(|| target.half_open() > HALF_OPEN_PER_LINK_MAX, || target.listener().to_string());
        for _ in 0..10 {
            let listener = target.listener();
            let half_open = listener["half_open"].as_u64().expect("a number");
            assert!(half_open <= HALF_OPEN_MAX, "{listener}");
            // Honest ones come through, and each comes to its end.
            let (.., took) = target.admits();
            assert!(took < DEADLINE, "an honest handshake took {took:?}");
            traffic.flows();
            sealed.flows();
        }
        for (process, bytes) in
            [(target.node.engine, target.engine_bytes), (target.node.control, target.control_bytes)]
        {
            let used = process.resident_bytes();
            assert!(used <= bytes + SLACK_BYTES, "{}: {used} bytes, {bytes} before", process.command_line());
        }
        // The API answers its owner.
        assert_eq!(target.home.status("n1"), "running");
        drop(floods);
        let (.., took) = target.admits();
        assert!(took < DEADLINE, "after the flood it took {took:?}");
        traffic.stop();
        sealed.stop();
        target.recovers();
    }

    // One link takes what one link may have; the others have the rest.
    half_open_handshakes_are_shared_fairly(driver) {
        let target = Target::new(driver);
        let honest = Identity::new();
        let mut patient = Peer::connect(target.node.address);
        let (handshake, message_2) = Initiator::new().exchange(&mut patient, &["api"]);
        let flood = Flood::start(&target.node);
        wait_until(|| flood.sent.load(Ordering::Relaxed) > 3000, || "the flood does not flow".into());
        // What was sent may take its time to be heard.
        wait_until(|| target.listener()["shed"].as_u64() > Some(0), || target.listener().to_string());
        let listener = target.listener();
        let half_open = listener["half_open"].as_u64().expect("a number");
        assert!(half_open <= HALF_OPEN_PER_LINK_MAX + 1, "{listener}");
        // One that began before the flood has lost nothing to it.
        let decryptor = handshake.decryptor.clone();
        let (message_3, mut channel) = handshake.finish(message_2, &honest);
        patient.send(&frame_to(&channel.way, &addresses(&[&decryptor]), &message_3));
        channel.echoes(&mut patient, b"it is open");
        drop(flood);
        drop((patient, channel));
        target.recovers();
    }
}

on_both_drivers! {
    // A channel is a source like a link, and what comes out of it is limited in the same way.
    a_flood_out_of_a_channel_is_bounded(driver) {
        let target = Target::new(driver);
        let sealed = Sealed::start(&target);
        let (mut peer, mut channel, _) = target.admits();
        for number in 0..3000_u64 {
            let back = format!("{number:032x}");
            peer.send(&channel.frame_with(&["api"], &[&back], &noise(32, number)));
        }
        wait_until(|| target.half_open() > 100, || target.listener().to_string());
        assert!(target.half_open() <= HALF_OPEN_PER_LINK_MAX, "{}", target.listener());
        target.admits();
        sealed.flows();
        drop(peer);
        sealed.stop();
        target.recovers();
    }

    // D7: who asks for much through a channel and takes nothing stops itself, and gets all of it when it reads again.
    who_reads_nothing_of_its_channel_stops_itself(driver) {
        let target = Target::new(driver);
        let sealed = Sealed::start(&target);
        let (mut peer, mut channel, _) = target.admits();
        set_socket_send_buffer_size(&peer.stream, 64 << 10).unwrap();
        set_socket_recv_buffer_size(&peer.stream, 64 << 10).unwrap();
        peer.stream.set_nonblocking(true).unwrap();
        let (mut asked, mut written, mut idle) = (0_u64, 0, 0);
        let mut frame = Vec::new();
        // Nothing more is taken from it for half a second: the sockets of the node hold up to 36 MiB, the engine some.
        while idle < 50 {
            if written == frame.len() {
                frame = channel.frame_with(&["echo"], &["me"], &noise(100_000, asked));
                asked += 1;
                written = 0;
                assert!(asked < 480, "the engine takes without end from one that reads nothing");
            }
            match peer.stream.write(&frame[written..]) {
                Ok(count) => {
                    written += count;
                    idle = 0;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    idle += 1;
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(error) => panic!("{error}"),
            }
        }
        sealed.flows();
        target.admits();
        peer.stream.set_nonblocking(false).unwrap();
        let rest = frame[written..].to_vec();
        let mut writing = peer.stream.try_clone().unwrap();
        let writing = std::thread::spawn(move || writing.write_all(&rest));
        for number in 0..asked {
            assert!(channel.receive_message(&mut peer).payload == noise(100_000, number), "answer {number}");
        }
        writing.join().unwrap().expect("the node reads again");
        channel.echoes(&mut peer, b"as good as new");
        drop(peer);
        sealed.flows();
        sealed.stop();
        target.recovers();
    }
}

/// D2: a good beginning and junk at the end costs the node what it costs the peer, once.
#[test]
fn garbage_instead_of_message_3_frees_its_place() {
    let target = Target::new("epoll");
    let traffic = Traffic::start(target.node.address);
    let before = target.listener();
    // Several, so that none of them has more to say to control than a link may.
    let mut peers: Vec<Peer> = (0..10).map(|_| Peer::connect(target.node.address)).collect();
    for round in 0..300_u64 {
        let peer = &mut peers[round as usize % 10];
        let (handshake, message_2) = Initiator::new().exchange(peer, &["api"]);
        let junk = noise(if round % 3 == 0 { 10 } else { 387 }, round);
        peer.send(&frame_to(&message_2.back, &addresses(&[&handshake.decryptor]), &junk));
        // And again, to what is no longer there.
        peer.send(&frame_to(&message_2.back, &addresses(&[&handshake.decryptor]), &junk));
    }
    // All of them are over long before their deadline, counted, and none is a channel.
    wait_until(|| target.half_open() == 0, || target.listener().to_string());
    let after = target.listener();
    let refused = |listener: &Value| -> u64 {
        listener["refused"].as_object().expect("reasons").values().filter_map(Value::as_u64).sum()
    };
    assert_eq!(refused(&after) - refused(&before), 300, "{after}");
    assert_eq!(after["accepted"], before["accepted"]);
    assert_eq!(after["channels"], 0);
    traffic.flows();
    traffic.stop();
    drop(peers);
    target.recovers();
}

/// D3 in the handshake: who begins one and dawdles has ten seconds in all, whatever it sends meanwhile.
#[test]
fn dawdling_in_a_handshake_ends_with_its_deadline() {
    let target = Target::new("epoll");
    let traffic = Traffic::start(target.node.address);
    let identity = Identity::new();
    let mut peers: Vec<Peer> = (0..100).map(|_| Peer::connect(target.node.address)).collect();
    let began = Instant::now();
    let mut slow: Vec<_> = peers
        .iter_mut()
        .map(|peer| {
            let (handshake, message_2) = Initiator::new().exchange(peer, &["api"]);
            let decryptor = handshake.decryptor.clone();
            let (message_3, channel) = handshake.finish(message_2, &identity);
            (frame_to(&channel.way, &addresses(&[&decryptor]), &message_3), channel)
        })
        .collect();
    assert!(target.half_open() <= 100);
    // A byte of message 3 now and then buys no time; nor does traffic beside it.
    let mut written = 0;
    while target.half_open() > 0 {
        for (peer, (message_3, _)) in peers.iter_mut().zip(&slow) {
            if written + 1 < message_3.len() {
                // The engine may have closed a link whose frame is too slow.
                let _ = peer.stream.write_all(&message_3[written..=written]);
            }
        }
        written += 1;
        traffic.flows();
        std::thread::sleep(Duration::from_millis(100));
        assert!(began.elapsed() < DEADLINE * 3, "{}", target.listener());
    }
    assert!(began.elapsed() >= DEADLINE, "they were given up after {:?}", began.elapsed());
    assert_eq!(target.listener()["accepted"].as_u64(), Some(8), "{}", target.listener());
    // Who has all of message 3 too late has no channel.
    let mut late = Peer::connect(target.node.address);
    let (message_3, channel) = &mut slow[0];
    late.send(message_3);
    late.send(&channel.frame_with(&["echo"], &["me"], b"too late"));
    late.echoes(b"nothing else comes");
    assert_eq!(target.listener()["channels"], 0);
    drop((peers, late));
    traffic.flows();
    traffic.stop();
    target.recovers();
}

/// What begins and leaves again, in every rude way.
#[test]
fn handshakes_of_links_that_leave_are_forgotten() {
    let target = Target::new("uring");
    for round in 0..300 {
        let mut peer = Peer::connect(target.node.address);
        match round % 4 {
            0 => peer.send(&Initiator::new().frame(&["api"])),
            1 => drop(Initiator::new().exchange(&mut peer, &["api"])),
            2 => {
                let (handshake, message_2) = Initiator::new().exchange(&mut peer, &["api"]);
                let decryptor = handshake.decryptor.clone();
                let (message_3, channel) = handshake.finish(message_2, &Identity::new());
                peer.send(&frame_to(&channel.way, &addresses(&[&decryptor]), &message_3));
            }
            _ => drop(Initiator::open(&mut peer, &["api"], &Identity::new())),
        }
        let _: TcpStream = peer.stream;
    }
    assert!(target.half_open() <= HALF_OPEN_MAX);
    target.admits();
    // Channels whose link is gone wait for their peer for a while, and end then.
    wait_until(|| target.listener()["channels"] == 0, || target.listener().to_string());
    target.recovers();
}

/// What a peer opened inside of a channel has no way once that one is gone, however it went.
#[test]
fn channels_in_a_channel_end_with_it() {
    let target = Target::new("uring");
    let identity = Identity::new();
    for number in 0..20 {
        let mut peer = Peer::connect(target.node.address);
        let mut outer = Initiator::open(&mut peer, &["api"], &identity);
        let mut through = Through { carrier: &mut peer, channel: &mut outer };
        let mut inner = Initiator::open(&mut through, &["api"], &identity);
        let mut innermost = Through { carrier: &mut through, channel: &mut inner };
        Initiator::open(&mut innermost, &["api"], &identity).echoes(&mut innermost, b"three deep");
        if number % 2 == 0 {
            let close = outer.seal_text(&CLOSE);
            peer.send(&outer.frame(&close));
            peer.echoes(b"it is closed");
        }
    }
    // The others wait for their peer for a while before that.
    wait_until(|| target.listener()["channels"] == 0, || target.listener().to_string());
    target.recovers();
}
