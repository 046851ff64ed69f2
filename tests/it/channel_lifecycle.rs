//! How long a channel lives: whose death it survives, what ends it, and what comes back by itself.

use ockam_tests::{
    Channel, Home, Identity, Initiator, Inner, Manner, Middle, Node, PATIENCE, Peer, Responder, now, on_both_drivers,
    wait_for, wait_until,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Whatever a channel depends on, it is over within 5 seconds after that is gone. What takes longer than this is no busy
/// machine.
const LIMIT: Duration = Duration::from_secs(25);

/// The address without `/service/`.
fn name(address: &str) -> &str {
    address.trim_start_matches("/service/")
}

#[track_caller]
fn create(home: &Home, from: &str, to: &str, more: &[&str]) -> String {
    home.ok(&[&["secure-channel", "create", "--from", from, "--to", to], more].concat())
}

/// What `secure-channel show` says of a channel that was made by `create`.
#[track_caller]
fn shown(home: &Home, node: &str, address: &str) -> Value {
    home.json(&["secure-channel", "show", address, "--at", node])
}

/// The channels that peers have open at a node.
#[track_caller]
fn accepted(home: &Home, node: &str) -> Vec<Value> {
    let list = home.json(&["secure-channel", "list", "--at", node]);
    list.as_array().expect("an array").iter().filter(|it| it["role"] == "responder").cloned().collect()
}

/// Whether a message goes through a channel now, or soon.
fn is_passed(home: &Home, from: &str, address: &str) -> bool {
    let to = format!("{address}/service/uppercase");
    let sent = home.run(&["message", "send", "hello", "--from", from, "--to", &to, "--timeout", "2s"]);
    assert!(sent.code != Some(0) || sent.stdout == "HELLO", "{sent:?}");
    sent.code == Some(0)
}

/// A message goes through a channel, however long that takes.
#[track_caller]
fn works(home: &Home, from: &str, address: &str) {
    assert_eq!(home.send("hello", &format!("{address}/service/uppercase"), &["--from", from]), "HELLO");
}

/// Waits until a message goes through a channel, and the node says so.
#[track_caller]
fn wait_until_it_works(home: &Home, from: &str, address: &str) {
    wait_until(
        || is_passed(home, from, address) && shown(home, from, address)["status"] == "open",
        || format!("the channel does not come back: {}", shown(home, from, address)),
    );
}

/// Fields of a channel that stay as they are for as long as it lives.
fn constant(channel: &Value) -> Value {
    let names = ["address", "role", "route", "listener", "identifier", "my_identifier", "authorized", "expires_at"];
    names.iter().map(|name| ((*name).to_owned(), channel[name].clone())).collect::<serde_json::Map<_, _>>().into()
}

/// A test's channel to `api` of a node.
#[track_caller]
fn open(node: &Node, listener: &str, identity: &Identity) -> (Peer, Channel) {
    let mut peer = Peer::connect(node.address);
    let mut channel = Initiator::open(&mut peer, &[listener], identity);
    channel.echoes(&mut peer, b"it is open");
    (peer, channel)
}

/// Waits until a node has closed a channel of a test, which it must say, and which must be forgotten by then.
#[track_caller]
fn is_closed(home: &Home, node: &str, peer: &mut Peer, channel: &mut Channel) {
    peer.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(channel.receive(peer), Inner::Close);
    let gone =
        |home: &Home| ["no_such_address", "channel_closed"].map(|it| home.counter(node, "drops", it)).iter().sum();
    let before: u64 = gone(home);
    peer.send(&channel.frame_with(&["echo"], &["me"], b"is anybody there?"));
    peer.echoes(b"nothing else comes");
    // Others may try the same door meanwhile.
    assert!(gone(home) > before, "what is closed still takes messages");
}

on_both_drivers! {
    // Rule 1: control may die as it likes. What it knew of a channel is with the engine.
    channels_survive_the_death_of_control(driver) {
        let home = Home::new();
        let one = home.node("n1", &["--driver", driver]);
        let two = home.node("n2", &["--driver", driver]);
        home.ok(&["secure-channel-listener", "create", "second", "--at", "n2"]);
        let first = create(&home, "n1", &two.service("api"), &[]);
        let second = create(&home, "n1", &two.service("second"), &[]);
        let (identity, day) = (Identity::new(), Identity::expiring_in(100_000));
        let (mut peer, mut channel) = open(&two, "second", &identity);
        let (_other_peer, _other) = open(&two, "api", &day);
        let state = || {
            let list = |node| home.json(&["secure-channel", "list", "--at", node]);
            let of = |node| list(node).as_array().unwrap().iter().map(constant).collect::<Vec<_>>();
            (of("n1"), of("n2"))
        };
        let sorted = |(mut one, mut two): (Vec<Value>, Vec<Value>)| {
            one.sort_by_key(Value::to_string);
            two.sort_by_key(Value::to_string);
            (one, two)
        };
        let before = sorted(state());
        assert_eq!((before.0.len(), before.1.len()), (2, 4), "{before:?}");
        assert!(before.1.iter().any(|it| it["identifier"] == identity.identifier() && it["listener"] == "second"));
        for round in 0..3 {
            for node in ["n1", "n2"] {
                home.show(node).control.kill();
            }
            // Without any control.
            for number in 0..100_u8 {
                channel.echoes(&mut peer, &[number]);
            }
            for node in ["n1", "n2"] {
                home.ok(&["node", "start", node]);
            }
            channel.echoes(&mut peer, b"with another control");
            assert_eq!(sorted(state()), before, "round {round}");
            works(&home, "n1", &first);
            works(&home, "n1", &second);
        }
        for (node, was) in [("n1", &one), ("n2", &two)] {
            assert_eq!(home.show(node).engine, was.engine);
        }
        assert_eq!(shown(&home, "n1", &first)["reopened"], 0, "it is the same channel");
        // A control that adopted a channel can end it.
        home.ok(&["secure-channel", "delete", &first, "--at", "n1", "--yes"]);
        home.ok(&["secure-channel-listener", "delete", "second", "--at", "n2", "--yes"]);
        is_closed(&home, "n2", &mut peer, &mut channel);
        wait_until(|| accepted(&home, "n2").len() == 1, || format!("{:?}", accepted(&home, "n2")));
    }

    // Rule 2: keys are with the engine and nowhere else. What is supervised comes back under its name.
    what_is_supervised_survives_the_death_of_engines(driver) {
        let home = Home::new();
        home.node("n1", &["--driver", driver]);
        let two = home.node("n2", &["--driver", driver]);
        let channel = create(&home, "n1", &two.service("api"), &[]);
        let (mut peer, mut of_test) = open(&two, "api", &Identity::new());
        let before = shown(&home, "n1", &channel);
        for node in ["n2", "n1", "n2"] {
            home.show(node).engine.kill();
            wait_until_it_works(&home, "n1", &channel);
            let after = shown(&home, "n1", &channel);
            assert_eq!((&after["address"], &after["identifier"]), (&before["address"], &before["identifier"]));
        }
        assert_eq!(shown(&home, "n1", &channel)["reopened"], 3);
        // What a peer had opened ended with its engine, and nothing answers at its addresses.
        assert_eq!(peer.receive_or_end(), None);
        let mut peer = Peer::connect(two.address);
        peer.send(&of_test.frame_with(&["echo"], &["me"], b"is anybody there?"));
        peer.echoes(b"nothing else comes");
        assert_eq!(accepted(&home, "n2").len(), 1);
    }
}

#[test]
fn what_is_supervised_survives_the_death_of_everything() {
    let home = Home::new();
    home.node("n1", &[]);
    let two = home.node("n2", &[]);
    home.node("n3", &[]);
    let direct = create(&home, "n1", "/node/n2/service/api", &[]);
    let far = create(&home, "n1", "/node/n2/node/n3/service/api", &[]);
    let inner = create(&home, "n1", &format!("{direct}/service/api"), &[]);
    let gone = create(&home, "n1", &two.service("api"), &[]);
    home.ok(&["secure-channel", "delete", &gone, "--at", "n1", "--yes"]);
    let all = [&direct, &far, &inner];
    let identifiers = all.map(|it| shown(&home, "n1", it)["identifier"].clone());
    // By a stop, and by death.
    home.ok(&["node", "stop", "n1"]);
    home.ok(&["node", "start", "n1"]);
    all.iter().for_each(|it| wait_until_it_works(&home, "n1", it));
    for node in ["n1", "n2", "n3"] {
        let node = home.show(node);
        node.control.kill();
        node.engine.kill();
    }
    for node in ["n3", "n2", "n1"] {
        home.ok(&["node", "start", node]);
    }
    all.iter().for_each(|it| wait_until_it_works(&home, "n1", it));
    assert_eq!(all.map(|it| shown(&home, "n1", it)["identifier"].clone()), identifiers);
    // What was deleted stays so.
    let list = home.json(&["secure-channel", "list", "--at", "n1"]);
    assert_eq!(list.as_array().map(Vec::len), Some(3), "{list}");
    home.fails(68, &["secure-channel", "show", &gone, "--at", "n1"]);
}

#[test]
fn a_channel_comes_back_when_its_way_does() {
    let home = Home::new();
    home.node("n1", &[]);
    let two = home.node("n2", &[]);
    let middle = Middle::before(two.address);
    let channel = create(&home, "n1", &format!("{}/service/api", middle.route()), &[]);
    for _ in 0..3 {
        middle.cut();
        wait_until_it_works(&home, "n1", &channel);
    }
    // Nobody is there for a while: it says so, and why, and goes on trying.
    home.ok(&["node", "stop", "n2"]);
    let waiting = || shown(&home, "n1", &channel);
    wait_until(
        || waiting()["status"] == "opening" && waiting()["error"].is_string(),
        || format!("it does not say that it is not open: {}", waiting()),
    );
    home.ok(&["node", "start", "n2"]);
    wait_until_it_works(&home, "n1", &channel);
    assert!(waiting()["error"].is_null(), "{}", waiting());
    // Each time the old one was given up at the other side, too, or will be when nobody came back to it.
    wait_until(|| accepted(&home, "n2").len() == 1, || format!("{:?}", accepted(&home, "n2")));
}

/// A peer that ends the channel is met again; somebody else in its place is not.
#[test]
fn somebody_else_at_the_end_of_a_channel_stops_it() {
    let home = Home::new();
    home.node("n1", &[]);
    let (first, second) = (Identity::new(), Identity::new());
    let (was, is) = (first.identifier(), second.identifier());
    let one = Responder::new().start(first, Manner::Serves);
    let two = Responder::new().start(second, Manner::Serves);
    // Who stands in front of both leads to the one, and later to the other.
    let switch = Switch::new(one.address);
    let channel = create(&home, "n1", &switch.route(), &[]);
    one.met();
    switch.cut();
    wait_for(|| one.peers.try_recv().ok(), || "the channel is not opened again".into());
    wait_until(|| shown(&home, "n1", &channel)["status"] == "open", || shown(&home, "n1", &channel).to_string());

    switch.leads_to(two.address);
    switch.cut();
    wait_until(|| shown(&home, "n1", &channel)["status"] == "stopped", || shown(&home, "n1", &channel).to_string());
    let after = shown(&home, "n1", &channel);
    let error = after["error"].as_str().expect("a reason");
    assert!(error.contains("changed") && error.contains(&is), "{after}");
    assert_eq!(after["identifier"], was, "who is expected stays who was met first");
    assert!(two.peers.try_recv().is_err(), "somebody else got a message 3");
    // Nothing goes out to whoever is there, also not after a restart of all.
    assert!(!is_passed(&home, "n1", &channel));
    home.ok(&["node", "stop", "n1"]);
    home.ok(&["node", "start", "n1"]);
    assert!(!is_passed(&home, "n1", &channel));
    assert!(two.peers.try_recv().is_err(), "somebody else got a message 3");
    home.ok(&["secure-channel", "delete", &channel, "--at", "n1", "--yes"]);
    assert_eq!(home.json(&["secure-channel", "list", "--at", "n1"]), json!([]));
}

/// Passes connections to a target that can be changed.
struct Switch {
    address: std::net::SocketAddr,
    target: std::sync::Arc<std::sync::Mutex<(std::net::SocketAddr, Vec<std::net::TcpStream>)>>,
}

impl Switch {
    fn new(target: std::net::SocketAddr) -> Switch {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let target = std::sync::Arc::new(std::sync::Mutex::new((target, Vec::new())));
        let of_thread = target.clone();
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let near = near.unwrap();
                let mut state = of_thread.lock().unwrap();
                let far = std::net::TcpStream::connect(state.0).unwrap();
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || {
                        // It ends with either side, however that ends.
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(std::net::Shutdown::Both);
                    });
                }
                state.1.extend([near, far]);
            }
        });
        Switch { address, target }
    }

    fn route(&self) -> String {
        format!("/ip4/127.0.0.1/tcp/{}/service/api", self.address.port())
    }

    fn leads_to(&self, target: std::net::SocketAddr) {
        self.target.lock().unwrap().0 = target;
    }

    fn cut(&self) {
        for stream in self.target.lock().unwrap().1.drain(..) {
            // One that is closed already is as good.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

#[test]
fn a_peer_that_ends_a_supervised_channel_is_met_again() {
    let home = Home::new();
    home.node("n1", &[]);
    let two = home.node("n2", &[]);
    home.ok(&["secure-channel-listener", "create", "second", "--at", "n2"]);
    let channel = create(&home, "n1", &two.service("second"), &[]);
    home.ok(&["secure-channel-listener", "delete", "second", "--at", "n2", "--yes"]);
    wait_until(|| shown(&home, "n1", &channel)["status"] == "opening", || shown(&home, "n1", &channel).to_string());
    home.ok(&["secure-channel-listener", "create", "second", "--at", "n2"]);
    wait_until_it_works(&home, "n1", &channel);
    // One channel of several that a listener accepted, ended by its node.
    let at_two = accepted(&home, "n2");
    assert_eq!(at_two.len(), 1, "{at_two:?}");
    let address = at_two[0]["address"].as_str().unwrap();
    home.ok(&["secure-channel", "delete", address, "--at", "n2", "--yes"]);
    wait_until(
        || shown(&home, "n1", &channel)["reopened"].as_u64() >= Some(2),
        || shown(&home, "n1", &channel).to_string(),
    );
    wait_until_it_works(&home, "n1", &channel);
}

// ---- what ends a channel

/// T1: a key is good until its last second, and what it opened ends with it. Control is not needed for that.
#[test]
fn a_channel_ends_with_the_key_of_its_peer() {
    let home = Home::new();
    let node = home.node("n1", &[]);
    // Long enough for what comes before its end, also on a busy machine.
    const LIFE_SECS: u64 = 10;
    let (began, last_second) = (Instant::now(), now() + LIFE_SECS);
    let short = Identity::expiring_in(LIFE_SECS);
    let (mut peer, mut channel) = open(&node, "api", &short);
    let (mut long_peer, mut long) = open(&node, "api", &Identity::new());
    let listed = accepted(&home, "n1");
    let of_short = listed.iter().find(|it| it["identifier"] == short.identifier()).expect("it is listed");
    let expires_at = of_short["expires_at"].as_u64().expect("a time");
    assert!(expires_at.abs_diff(last_second) <= 1, "{expires_at} is not {last_second}");
    home.show("n1").control.kill();
    let mut answered = 0_u32;
    loop {
        peer.send(&channel.frame_with(&["echo"], &["me"], b"?"));
        peer.send(&ockam_tests::frame(&["echo"], &["plain"], b"."));
        let received = peer.receive();
        if received.onward == ockam_tests::addresses(&["plain"]) {
            break;
        }
        match channel.open(&received.payload) {
            Ok(Inner::Message(_)) => answered += 1,
            // What follows is the answer to the plain one.
            Ok(Inner::Close) => break,
            other => panic!("{other:?}"),
        }
        peer.receive();
        std::thread::sleep(Duration::from_millis(20));
        assert!(began.elapsed() < Duration::from_secs(LIFE_SECS) + LIMIT, "it lives on");
    }
    assert!(now() >= last_second, "it ended before its time");
    assert!(answered > 10, "it worked until then: {answered}");
    long.echoes(&mut long_peer, b"others live on");
    home.ok(&["node", "start", "n1"]);
    long.echoes(&mut long_peer, b"others live on");
    let listed = accepted(&home, "n1");
    assert!(listed.iter().all(|it| it["identifier"] != short.identifier()) && listed.len() == 1, "{listed:?}");
}

/// A node as the initiator ends what it opened, too, and cannot open it again with that key.
#[test]
fn a_supervised_channel_ends_with_the_key_of_its_peer() {
    let home = Home::new();
    home.node("n1", &[]);
    let served = Responder::new().start(Identity::expiring_in(6), Manner::Serves);
    let channel = create(&home, "n1", &served.route, &[]);
    served.met();
    let began = Instant::now();
    wait_until(|| shown(&home, "n1", &channel)["status"] != "open", || shown(&home, "n1", &channel).to_string());
    assert!(began.elapsed() < Duration::from_secs(6) + LIMIT, "it took {:?}", began.elapsed());
    wait_until(|| shown(&home, "n1", &channel)["error"].is_string(), || shown(&home, "n1", &channel).to_string());
    assert!(!is_passed(&home, "n1", &channel));
    assert!(served.peers.try_recv().is_err(), "who has no valid key got a message 3");
}

/// Who is no longer admitted is out, not only from the next time on.
#[test]
fn a_channel_ends_when_its_peer_is_no_longer_admitted() {
    let home = Home::new();
    let node = home.node("n1", &[]);
    let (friend, other) = (Identity::new(), Identity::new());
    let make = |authorized: &[&Identity]| {
        let mut arguments = vec!["secure-channel-listener".to_owned(), "create".into(), "door".into()];
        arguments.extend(["--at".to_owned(), "n1".into()]);
        arguments.extend(authorized.iter().flat_map(|it| ["--authorized".to_owned(), it.identifier()]));
        home.ok(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    };
    make(&[&friend, &other]);
    let (mut friend_peer, mut of_friend) = open(&node, "door", &friend);
    let (mut other_peer, mut of_other) = open(&node, "door", &other);
    let (mut api_peer, mut of_api) = open(&node, "api", &other);
    home.ok(&["secure-channel-listener", "delete", "door", "--at", "n1", "--yes"]);
    let began = Instant::now();
    // Whether who is admitted again keeps the channel is not said; who is not, has none.
    make(&[&friend]);
    is_closed(&home, "n1", &mut other_peer, &mut of_other);
    assert!(began.elapsed() < LIMIT, "it took {:?}", began.elapsed());
    of_api.echoes(&mut api_peer, b"another door");
    drop((friend_peer, of_friend));
    (friend_peer, of_friend) = open(&node, "door", &friend);
    of_friend.echoes(&mut friend_peer, b"welcome");
    let mut refused = Initiator::open(&mut other_peer, &["door"], &other);
    assert_eq!(refused.receive(&mut other_peer), Inner::Close);
}

/// An identity that is deleted vouches for nothing any more.
#[test]
fn a_channel_ends_with_the_identity_that_opened_it() {
    let home = Home::new();
    home.node("n1", &[]);
    let two = home.node("n2", &[]);
    // The first one is that of the nodes, which keep it.
    home.ok(&["identity", "create", "staying"]);
    home.ok(&["identity", "create", "passing"]);
    let own = home.json(&["identity", "show", "passing"])["identifier"].clone();
    home.ok(&["secure-channel-listener", "create", "door", "--at", "n2", "--identity", "passing"]);
    let (mut peer, mut of_test) = open(&two, "door", &Identity::new());
    assert_eq!(own, of_test.peer);
    let channel = create(&home, "n1", &two.service("api"), &["--identity", "passing"]);
    assert_eq!(shown(&home, "n1", &channel)["my_identifier"], own);
    assert!(accepted(&home, "n2").iter().any(|it| it["identifier"] == own));

    home.ok(&["identity", "delete", "passing", "--yes"]);
    let began = Instant::now();
    is_closed(&home, "n2", &mut peer, &mut of_test);
    wait_until(|| shown(&home, "n1", &channel)["status"] != "open", || shown(&home, "n1", &channel).to_string());
    assert!(began.elapsed() < LIMIT, "it took {:?}", began.elapsed());
    assert!(!is_passed(&home, "n1", &channel));
    wait_until(|| accepted(&home, "n2").is_empty(), || format!("{:?}", accepted(&home, "n2")));
    // What it had opened stays shut, and who uses another identity is served.
    let mut refused = Initiator::new();
    peer.send(&refused.frame(&["door"]));
    peer.echoes(b"nothing else comes");
    refused = Initiator::new();
    let (handshake, message_2) = refused.exchange(&mut peer, &["api"]);
    handshake.finish(message_2, &Identity::new());
    let other = create(&home, "n1", &two.service("api"), &[]);
    works(&home, "n1", &other);
    assert_ne!(name(&other), name(&channel));
}

/// C.3: a rotated identity is the same one; its channels live on, and it is met again with its new key only.
#[test]
fn a_rotated_identity_is_met_again() {
    let home = Home::new();
    home.node("n1", &[]);
    let two = home.node("n2", &[]);
    let channel = create(&home, "n1", &two.service("api"), &[]);
    let before = shown(&home, "n1", &channel);
    home.ok(&["identity", "rotate"]);
    works(&home, "n1", &channel);
    for node in ["n2", "n1"] {
        home.show(node).engine.kill();
        wait_until_it_works(&home, "n1", &channel);
    }
    let after = shown(&home, "n1", &channel);
    assert_eq!(after["identifier"], before["identifier"]);
    let again = create(&home, "n1", &two.service("api"), &["--authorized", before["identifier"].as_str().unwrap()]);
    works(&home, "n1", &again);
}
