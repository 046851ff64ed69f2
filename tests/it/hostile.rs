//! Peers that mean harm, on both drivers: honest traffic goes on, memory and descriptors come back (D3, D4, D5, D10, D12,
//! and slow readers).

use ockam_tests::{
    Home, Node, PATIENCE, Peer, Traffic, allow_many_connections, finish, frame, noise, on_both_drivers, text,
    wait_until,
};
use ockam_wire::PREAMBLE;
use rustix::net::sockopt::{set_socket_linger, set_socket_recv_buffer_size, set_socket_send_buffer_size};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// What memory may differ by before it is called a leak: allocators and pools keep some.
const SLACK_BYTES: u64 = 8 << 20;

/// A node and what its engine uses while it does nothing.
struct Target {
    home: Home,
    node: Node,
    resident_bytes: u64,
    descriptors: usize,
    /// Slots that hold frames, of which each core keeps one at hand to collect what it sends.
    core_slots: u64,
}

impl Target {
    fn new(driver: &str) -> Target {
        allow_many_connections();
        let home = Home::new();
        let node = home.node("n1", &["--driver", driver]);
        // Warm: both cores have served someone, and some of the pool is in use.
        for _ in 0..8 {
            let mut peer = Peer::connect(node.address);
            peer.echoes(&noise(200_000, 3));
        }
        let mut target = Target { resident_bytes: 0, descriptors: 0, core_slots: 0, home, node };
        target.wait_for_links(0);
        target.resident_bytes = target.node.engine.resident_bytes();
        target.descriptors = target.node.engine.descriptors();
        target.core_slots = target.pool("core");
        let cores = target.home.json(&["engine", "show", "--at", "n1"])["cores"].as_u64();
        assert!(Some(target.core_slots) <= cores, "{} slots hold frames at rest", target.core_slots);
        target
    }

    fn pool(&self, name: &str) -> u64 {
        self.home.json(&["engine", "show", "--at", "n1"])["pool"][name].as_u64().expect("a number")
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.node.address).expect("the node listens");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn closes(&self, reason: &str) -> u64 {
        self.home.counter("n1", "closes", reason)
    }

    fn links(&self) -> u64 {
        self.home.counter("n1", "counters", "links_open")
    }

    #[track_caller]
    fn wait_for_links(&self, count: u64) {
        wait_until(|| self.links() == count, || format!("{} links are open, not {count}", self.links()));
    }

    /// Everything that was taken is given back, and the node is as good as new.
    #[track_caller]
    fn recovers(&self) {
        self.wait_for_links(0);
        Peer::connect(self.node.address).echoes(b"as good as new");
        self.wait_for_links(0);
        let engine = self.node.engine;
        wait_until(
            || engine.descriptors() <= self.descriptors,
            || format!("{} descriptors, {} before", engine.descriptors(), self.descriptors),
        );
        wait_until(
            || engine.resident_bytes() <= self.resident_bytes + SLACK_BYTES,
            || format!("{} bytes in memory, {} before", engine.resident_bytes(), self.resident_bytes),
        );
        wait_until(
            || self.pool("core") <= self.core_slots && self.pool("large_used") == 0 && self.pool("assembly_bytes") == 0,
            || format!("slots are not given back: {}", self.home.json(&["engine", "show", "--at", "n1"])["pool"]),
        );
        assert_eq!(self.home.show("n1").engine, engine, "it is the same engine");
    }
}

on_both_drivers! {
    // D3, small: connections that dribble bytes end by a total deadline, whatever they send meanwhile.
    slowloris_is_cut_off(driver) {
        let target = Target::new(driver);
        let traffic = Traffic::start(target.node.address);
        let whole = frame(&["echo"], &["me"], &noise(1000, 1));
        let mut slow: Vec<TcpStream> = (0..200)
            .map(|number| {
                let mut stream = target.connect();
                match number % 4 {
                    0 => {}
                    1 => stream.write_all(&[PREAMBLE, 0, 0]).unwrap(),
                    2 => stream.write_all(&[&[PREAMBLE], &whole[..whole.len() - 1]].concat()).unwrap(),
                    _ => stream.write_all(&[PREAMBLE, 0, 1, 0, 0, 0x84]).unwrap(),
                }
                stream
            })
            .collect();
        traffic.flows();
        // A byte now and then buys no time: all are closed by the engine, without having said anything.
        let open = std::cell::Cell::new(slow.len());
        wait_until(
            || {
                open.set(0);
                for (number, stream) in slow.iter_mut().enumerate() {
                    if number % 4 == 3 {
                        // One that was closed meanwhile says so.
                        let _ = stream.write_all(&[0]);
                    }
                    open.set(open.get() + usize::from(!is_closed(stream)));
                }
                open.get() == 0
            },
            || format!("{} connections are still open", open.get()),
        );
        assert_eq!(target.closes("preamble_timeout"), 50);
        assert_eq!(target.closes("slow_frame"), 150);
        traffic.flows();
        traffic.stop();
        target.recovers();
    }

    // D4: memory follows what was received, never what was claimed.
    claims_cost_no_memory(driver) {
        let target = Target::new(driver);
        let traffic = Traffic::start(target.node.address);
        let claim = [&[PREAMBLE][..], &(16_u32 << 20).to_be_bytes(), &[0x84]].concat();
        let claims: Vec<TcpStream> = (0..2000)
            .map(|_| {
                let mut stream = target.connect();
                stream.write_all(&claim).unwrap();
                stream
            })
            .collect();
        target.wait_for_links(2001);
        traffic.flows();
        let used = target.node.engine.resident_bytes();
        assert!(used <= target.resident_bytes + SLACK_BYTES, "{} bytes, {} before", used, target.resident_bytes);
        drop(claims);
        traffic.flows();
        traffic.stop();
        target.recovers();
    }

    // D5: without descriptors nobody new is served, those who are there are, and it does not spin.
    descriptors_run_out_and_come_back(driver) {
        allow_many_connections();
        let home = Home::new();
        let limited = ["--nofile=200:200", "ockam", "node", "create", "n1", "--driver", driver];
        finish(&mut home.around("prlimit", &limited), b"").ok();
        let node = home.show("n1");
        let traffic = Traffic::start(node.address);
        let before = node.engine.descriptors();
        let mut crowd: Vec<TcpStream> = (0..600)
            .map(|_| {
                let mut stream = TcpStream::connect(node.address).expect("the backlog has room");
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.write_all(&[PREAMBLE]).unwrap();
                stream
            })
            .collect();
        traffic.flows();
        let served = |home: &Home| {
            let stats = home.json(&["engine", "stats", "--at", "n1"]);
            let count = |name: &str| stats["counters"][name].as_u64().unwrap_or_default();
            (count("links_open"), count("accept_errors"))
        };
        // The ring has descriptors of its own, which this limit does not reach; otherwise the limit shows.
        wait_until(
            || matches!(served(&home), (601.., _) | (_, 1..)),
            || format!("links and errors: {:?}", served(&home)),
        );
        traffic.flows();
        traffic.stop();
        let (ticks, start) = (node.engine.cpu_ticks(), std::time::Instant::now());
        std::thread::sleep(Duration::from_secs(2));
        let (ticks, elapsed) = (node.engine.cpu_ticks() - ticks, start.elapsed());
        assert!(u128::from(ticks) * 10 <= elapsed.as_millis() / 5, "{ticks} ticks of CPU time in {elapsed:?} of rest");
        // Room again: all who waited are served.
        let first_half: Vec<TcpStream> = crowd.drain(..crowd.len() / 2).collect();
        drop(first_half);
        drop(crowd.drain(..crowd.len() / 2));
        drop(crowd.drain(..crowd.len() / 2));
        for mut stream in crowd {
            let mut theirs = [0];
            stream.read_exact(&mut theirs).expect("who waited is served");
            assert_eq!(theirs, [PREAMBLE]);
            let mut peer = Peer { stream, framer: Default::default() };
            peer.echoes(b"served");
        }
        wait_until(|| served(&home).0 == 0, || format!("links and errors: {:?}", served(&home)));
        Peer::connect(node.address).echoes(b"as good as new");
        wait_until(|| node.engine.descriptors() <= before, || "descriptors are not given back".into());
    }

    // D10: connections that end in every rude way at every moment.
    resets_leave_nothing_behind(driver) {
        let target = Target::new(driver);
        let traffic = Traffic::start(target.node.address);
        let large = frame(&["echo"], &["me"], &noise(300_000, 7));
        let small = frame(&["echo"], &["me"], b"x");
        for round in 0..2000 {
            let mut stream = target.connect();
            // Errors are what this is about: the other side may have closed first.
            let _ = match round % 8 {
                0 => Ok(()),
                1 => stream.write_all(&[PREAMBLE]),
                2 => stream.write_all(&[&[PREAMBLE], &small[..3]].concat()),
                3 => stream.write_all(&[&[PREAMBLE], &large[..100_000]].concat()),
                4 => stream.write_all(&[&[PREAMBLE], &small[..], &small, &small].concat()),
                // It asks for much and reads nothing.
                5 => stream.write_all(&[&[PREAMBLE], &large[..], &large].concat()),
                6 => stream.write_all(&[PREAMBLE, 0xff, 0xff, 0xff, 0xff]),
                _ => stream.write_all(b"GET / HTTP/1.1\r\n\r\n"),
            };
            if round % 3 == 0 {
                let _ = stream.shutdown(std::net::Shutdown::Write);
            }
            if round % 2 == 0 {
                set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
            }
        }
        traffic.flows();
        traffic.stop();
        target.recovers();
    }

    // D12: nodes that point at each other; the length of the route ends it.
    loops_end(driver) {
        let home = Home::new();
        let (one, two) = (home.node("n1", &["--driver", driver]), home.node("n2", &["--driver", driver]));
        let link = |from: &str, to: &Node| {
            home.ok(&["service", "start", "hop", "--at", from]);
            home.ok(&["tcp-connection", "create", "--from", from, "--to", &to.address.to_string()])
        };
        let (to_two, to_one) = (link("n1", &two), link("n2", &one));
        let (to_two, to_one) = (to_two.trim_start_matches("/worker/"), to_one.trim_start_matches("/worker/"));
        let mut peer = Peer::connect(one.address);
        let again: Vec<&str> = ["hop", to_two, "hop", to_one].into_iter().cycle().take(28).collect();
        for route in [
            [&again[..], &["echo"]].concat(),
            again.clone(),
            ["hop"; 255].to_vec(),
            again.iter().copied().cycle().take(255).collect(),
            vec!["1#127.0.0.1:1"; 255],
        ] {
            for _ in 0..50 {
                peer.send(&frame(&route, &["me"], &text("x")));
            }
        }
        // Itself, again and again, by TCP addresses.
        let itself = format!("1#{}", one.address);
        let other = format!("1#{}", two.address);
        for count in [6, 31, 255] {
            let route: Vec<&str> = [itself.as_str(), &other].into_iter().cycle().take(count).collect();
            peer.send(&frame(&route, &["me"], &text("x")));
        }
        wait_until(
            || home.counter("n1", "drops", "route_too_long") >= 151,
            || "long routes are not dropped".into(),
        );
        // It comes to rest by itself: nothing circles.
        let frames = || ["n1", "n2"].map(|node| home.counter(node, "counters", "frames_in"));
        let mut last = frames();
        wait_until(
            || {
                std::thread::sleep(Duration::from_millis(200));
                let now = frames();
                std::mem::replace(&mut last, now) == now
            },
            || "frames circle".into(),
        );
        drop(peer);
        let mut peer = Peer::connect(one.address);
        peer.echoes(b"still honest");
        peer.send(&frame(&["hop", to_two, "uppercase"], &["me"], &text("hello")));
        assert_eq!(peer.receive().payload, text("HELLO"));
    }

    // Readers that ask for much and take nothing: they stop themselves and nobody else.
    slow_readers_stop_themselves(driver) {
        let target = Target::new(driver);
        let traffic = Traffic::start(target.node.address);
        let body = noise(100_000, 5);
        let ask = frame(&["echo"], &["me"], &body);
        let greedy: Vec<TcpStream> = (0..20)
            .map(|_| {
                let mut stream = target.connect();
                stream.write_all(&[PREAMBLE]).unwrap();
                // Little waits on this side, so that what is written is what the node and its sockets took.
                set_socket_send_buffer_size(&stream, 64 << 10).unwrap();
                set_socket_recv_buffer_size(&stream, 64 << 10).unwrap();
                stream.set_nonblocking(true).unwrap();
                stream
            })
            .collect();
        // Each writes until nothing more is taken from it, which must come: the sockets of the node hold up to 36 MiB
        // (`tcp_rmem`, `tcp_wmem`), the engine one or two.
        let fill = |streams: &[TcpStream]| -> Vec<usize> {
            let (mut written, mut idle) = (vec![0; streams.len()], 0);
            while idle < 50 {
                let before: usize = written.iter().sum();
                for (stream, written) in streams.iter().zip(&mut written) {
                    let mut stream = stream;
                    loop {
                        match stream.write(&ask[*written % ask.len()..]) {
                            Ok(count) => *written += count,
                            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                            // Who takes nothing for half a minute is closed, and this may take longer than that.
                            Err(error) if [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&error.kind()) => break,
                            Err(error) => panic!("{error}"),
                        }
                        assert!(*written < 48 << 20, "the engine takes without end from one that reads nothing");
                    }
                }
                idle = if written.iter().sum::<usize>() == before { idle + 1 } else { 0 };
                std::thread::sleep(Duration::from_millis(10));
            }
            written
        };
        // The one that will read again is the last to be full.
        fill(&greedy[1..]);
        let written = fill(&greedy[..1])[0];
        traffic.flows();
        Peer::connect(target.node.address).echoes(&noise(1 << 20, 8));
        // All of them together take no more than the slots that there are.
        let bound = target.resident_bytes + target.pool("slots") * target.pool("slot_bytes") + SLACK_BYTES;
        let used = target.node.engine.resident_bytes();
        assert!(used <= bound, "{used} bytes in memory, {} before", target.resident_bytes);
        // One of them comes to its senses and gets all that it asked for, in order.
        let whole = written / ask.len();
        let mut peer = Peer { stream: greedy[0].try_clone().unwrap(), framer: Default::default() };
        peer.stream.set_nonblocking(false).unwrap();
        let mut theirs = [0];
        peer.stream.read_exact(&mut theirs).unwrap();
        for _ in 0..whole {
            assert!(peer.receive().payload == body);
        }
        drop((greedy, peer));
        traffic.flows();
        traffic.stop();
        target.recovers();
    }
}

fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut bytes = [0; 16];
    match stream.read(&mut bytes) {
        Ok(0) => true,
        Ok(count) => {
            assert_eq!(&bytes[..count], [PREAMBLE], "only the version was said");
            false
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
        Err(error) => panic!("{error}"),
    }
}
