//! Which TCP hops a node dials for whom, on real networks (`docs`: Transit). A stranger is somebody on another machine.

use ockam_tests::{Home, Network, Peer, addresses, frame, is_root, skip, text};
use std::net::{SocketAddr, TcpStream};

/// The network, or none with the reason said.
fn network() -> Option<Network> {
    if !is_root() {
        skip("network namespaces need root");
        return None;
    }
    Network::new().inspect_err(|reason| skip(reason)).ok()
}

/// `gate` listens on all addresses of the right machine, `inner` on loopback and `open` on all addresses there.
struct Machine {
    network: Network,
    home: Home,
}

impl Machine {
    fn new(gate: &[&str]) -> Option<Machine> {
        let (network, home) = (network()?, Home::new());
        let create = |name: &str, address: &str, more: &[&str]| {
            let arguments = [&["node", "create", name, "--tcp-listener-address", address], more].concat();
            network.ockam(network.right(), &home, &arguments).ok();
        };
        create("gate", "0.0.0.0:4000", gate);
        create("inner", "127.0.0.1:4001", &[]);
        create("open", "0.0.0.0:4002", &[]);
        network.ockam(network.right(), &home, &["tcp-listener", "create", "[::]:4006", "--at", "gate"]).ok();
        network.ockam(network.right(), &home, &["service", "start", "hop", "--at", "gate"]).ok();
        Some(Machine { network, home })
    }

    /// A peer on the other machine, connected to `gate` at this address.
    fn stranger(&self, gate: &str) -> Peer {
        let gate: SocketAddr = gate.parse().unwrap();
        self.network.within(self.network.left(), || Peer::on(TcpStream::connect(gate).expect("the gate listens")))
    }

    /// A peer on the machine itself.
    fn local(&self, gate: &str) -> Peer {
        let gate: SocketAddr = gate.parse().unwrap();
        self.network.within(self.network.right(), || Peer::on(TcpStream::connect(gate).expect("the gate listens")))
    }

    fn refusals(&self) -> u64 {
        self.home.counter("gate", "drops", "transit_refused")
    }

    fn dialed(&self) -> u64 {
        self.home.counter("gate", "counters", "links_dialed")
    }

    fn accepted(&self) -> u64 {
        ["inner", "open"].iter().map(|node| self.home.counter(node, "counters", "links_accepted")).sum()
    }

    /// Sends along each route and checks that every message is dropped for this reason and nothing is dialed. The link
    /// lives on.
    fn all_refused(&self, peer: &mut Peer, routes: &[&[&str]]) {
        let (dialed, accepted) = (self.dialed(), self.accepted());
        for route in routes {
            let before = self.refusals();
            peer.send(&frame(route, &["me"], &text("secret")));
            // The next frame that comes is this one's answer: the message above had none, and was handled before.
            peer.echoes(b"alive");
            assert_eq!(self.refusals(), before + 1, "{route:?}");
        }
        assert_eq!((self.dialed(), self.accepted()), (dialed, accepted), "something was dialed");
    }

    /// Sends along each route and checks that each is answered.
    fn all_admitted(&self, peer: &mut Peer, routes: &[&[&str]]) {
        for route in routes {
            peer.send(&frame(&[route, &["uppercase"][..]].concat(), &["me"], &text("hello")));
            let answer = peer.receive();
            assert_eq!((answer.payload, answer.onward), (text("HELLO"), addresses(&["me"])), "{route:?}");
        }
    }
}

#[test]
fn strangers_have_nothing_dialed() {
    let Some(machine) = Machine::new(&[]) else { return };
    let targets: &[&[&str]] = &[
        &["1#127.0.0.1:4001", "uppercase"],
        &["1#127.0.0.2:4001", "uppercase"],
        &["1#[::1]:4001", "uppercase"],
        &["1#[::ffff:127.0.0.1]:4001", "uppercase"],
        &["1#0.0.0.0:4001", "uppercase"],
        &["1#[::]:4001", "uppercase"],
        &["1#[::ffff:0.0.0.0]:4001", "uppercase"],
        &["1#10.77.0.2:4002", "uppercase"],
        &["1#10.77.0.1:4002", "uppercase"],
        &["1#[fd77::2]:4002", "uppercase"],
        &["1#169.254.169.254:80", "uppercase"],
        // A name is not even looked up for a peer that no rule names.
        &["1#localhost:4001", "uppercase"],
        // Behind the forwarder, behind itself, and behind any address at all.
        &["hop", "1#127.0.0.1:4001", "uppercase"],
        &["hop", "hop", "1#127.0.0.1:4001", "uppercase"],
        &["echo", "1#127.0.0.1:4001", "uppercase"],
    ];
    for gate in ["10.77.0.2:4000", "[fd77::2]:4006", "10.77.0.2:4006"] {
        machine.all_refused(&mut machine.stranger(gate), targets);
    }
    // Those who sit on the machine reach its loopback from there, and nothing beyond.
    for gate in ["127.0.0.1:4000", "127.0.0.9:4000", "[::1]:4006", "[::ffff:127.0.0.1]:4006"] {
        let mut local = machine.local(gate);
        machine
            .all_admitted(&mut local, &[&["1#127.0.0.1:4001"], &["1#localhost:4001"], &["1#[::ffff:127.0.0.1]:4001"]]);
        machine.all_refused(
            &mut local,
            &[
                &["1#10.77.0.2:4002", "uppercase"],
                &["1#0.0.0.0:4001", "uppercase"],
                &["hop", "1#127.0.0.1:4001", "echo"],
            ],
        );
    }
    // Who comes to its own machine by its outer address is a stranger as well.
    let mut outer = machine.local("10.77.0.2:4000");
    machine.all_refused(&mut outer, &[&["1#127.0.0.1:4001", "uppercase"]]);
}

#[test]
fn a_stranger_cannot_be_laundered_by_a_second_node() {
    let Some(machine) = Machine::new(&[]) else { return };
    // `gate` has a link to `inner` over loopback: what comes out of it there has a loopback peer.
    let connect = ["tcp-connection", "create", "--from", "gate", "--to", "127.0.0.1:4001"];
    let link = machine.network.ockam(machine.network.right(), &machine.home, &connect).ok();
    let link = link.trim_start_matches("/worker/");
    let mut stranger = machine.stranger("10.77.0.2:4000");
    let before = machine.home.counter("inner", "counters", "frames_in");
    machine.all_refused(
        &mut stranger,
        &[
            &["hop", link, "1#127.0.0.1:4002", "uppercase"],
            &["hop", link, "hop", "1#127.0.0.1:4002", "uppercase"],
            &["hop", link, "echo", "hop", "hop", "1#127.0.0.1:4002"],
        ],
    );
    assert_eq!(machine.home.counter("inner", "counters", "frames_in"), before, "a frame came through");
    // Without a TCP address in it the same way is open: `hop` was started to forward.
    machine.all_admitted(&mut stranger, &[&["hop", link]]);
}

#[test]
fn allow_transit_opens_what_it_names() {
    let allow = ["--allow-transit", "10.77.0.0/24=127.0.0.1/32:4001", "--allow-transit", "fd77::/64=10.77.0.2:4002"];
    let Some(machine) = Machine::new(&allow) else { return };
    let loopback = "1#127.0.0.1:4001";
    let mut named = machine.stranger("10.77.0.2:4000");
    machine.all_admitted(&mut named, &[&[loopback], &["1#[::ffff:127.0.0.1]:4001"]]);
    machine.all_refused(
        &mut named,
        &[
            &["1#127.0.0.1:4002", "uppercase"],
            &["1#127.0.0.2:4001", "uppercase"],
            &["1#[::1]:4001", "uppercase"],
            &["1#10.77.0.2:4002", "uppercase"],
            &["hop", loopback, "uppercase"],
            &[loopback, "1#127.0.0.1:4002", "uppercase"],
        ],
    );
    let mut other_network = machine.stranger("10.88.0.2:4000");
    machine.all_refused(&mut other_network, &[&[loopback, "uppercase"], &["1#10.77.0.2:4002", "uppercase"]]);
    let mut by_six = machine.stranger("[fd77::2]:4006");
    machine.all_admitted(&mut by_six, &[&["1#10.77.0.2:4002"]]);
    machine.all_refused(&mut by_six, &[&[loopback, "uppercase"], &["1#10.77.0.2:4001", "uppercase"]]);

    // Rules come back with the node, and go when it is made without them.
    let (home, network) = (&machine.home, &machine.network);
    let rules = || home.json(&["node", "show", "gate"])["transit_rules"].clone();
    let before = rules();
    assert_eq!(before.as_array().map(Vec::len), Some(2), "{before}");
    network.ockam(network.right(), home, &["node", "stop", "gate"]).ok();
    network.ockam(network.right(), home, &["node", "start", "gate"]).ok();
    assert_eq!(rules(), before);
    machine.all_admitted(&mut machine.stranger("10.77.0.2:4000"), &[&[loopback]]);
}

#[test]
fn a_stranger_is_told_no_more_than_that_it_failed() {
    let Some(machine) = Machine::new(&[]) else { return };
    let (home, network) = (Home::new(), &machine.network);
    network.ockam(network.left(), &home, &["node", "create", "far"]).ok();
    let mut said = Vec::new();
    for route in [
        "/ip4/10.77.0.2/tcp/4000/service/nothing",
        "/ip4/10.77.0.2/tcp/4000/ip4/127.0.0.1/tcp/4001/service/uppercase",
        "/ip4/10.77.0.2/tcp/4000/ip4/127.0.0.1/tcp/9/service/uppercase",
    ] {
        for from in [&[][..], &["--from", "far"]] {
            let arguments = [&["message", "send", "hello", "--timeout", "60s", "--to", route], from].concat();
            let error = network.ockam(network.left(), &home, &arguments).fails(69);
            assert!(error.contains("10.77.0.2:4000"), "{error}");
            said.push(error.split(": ").last().unwrap_or_default().replace(char::is_numeric, ""));
        }
    }
    // Open and closed ports behind the gate look the same from outside.
    assert_eq!(said[2], said[4], "{said:?}");
    assert_eq!(
        network
            .ockam(
                network.left(),
                &home,
                &["message", "send", "hello", "--to", "/ip4/10.77.0.2/tcp/4000/service/uppercase"]
            )
            .ok(),
        "HELLO"
    );
}
