//! Relays of ours: how a node is reached that nobody can dial, by whom, and for how long.

use ockam_tests::{
    Home, Identity, Initiator, Middle, Node, Peer, Talk, Target, addresses, on_both_drivers, text, try_works,
    wait_until, works,
};
use serde_json::{Value, json};
use std::time::Instant;

/// `n1` wants something of `n3`, which nobody dials: it has registered itself at `n2`, through `middle`.
struct Line {
    home: Home,
    relay: Node,
    middle: Middle,
}

impl Line {
    #[track_caller]
    fn new(more: &[&str]) -> Line {
        let home = Home::new();
        home.node("n1", more);
        let relay = home.node("n2", more);
        home.node("n3", more);
        let middle = Middle::before(relay.address);
        Line { home, relay, middle }
    }

    /// Registers `n3` under a name, by a route to `n2`.
    #[track_caller]
    fn register(&self, name: &str, at: &str, more: &[&str]) -> String {
        self.home.ok(&[&["relay", "create", name, "--at", at, "--to", "n3"], more].concat())
    }

    #[track_caller]
    fn shown(&self, name: &str) -> Value {
        self.home.json(&["relay", "show", name, "--to", "n3"])
    }

    /// Waits until a message comes through the relay, and `n3` says that it is registered.
    #[track_caller]
    fn comes_back(&self, name: &str) {
        wait_until(
            || is_reached(&self.home, name) && self.shown(name)["status"] == "up",
            || format!("it does not come back: {}", self.shown(name)),
        );
    }
}

/// A message goes through a relay at `n2`, however long that takes.
#[track_caller]
fn reaches(home: &Home, name: &str) {
    let to = format!("/node/n2/service/forward_to_{name}/service/uppercase");
    assert_eq!(home.send("hello", &to, &["--from", "n1"]), "HELLO", "{name}");
}

/// Whether a message goes through a relay at `n2` now, or soon.
fn is_reached(home: &Home, name: &str) -> bool {
    let to = format!("/node/n2/service/forward_to_{name}/service/uppercase");
    let sent = home.run(&["message", "send", "hello", "--from", "n1", "--to", &to, "--timeout", "2s"]);
    assert!(sent.code != Some(0) || sent.stdout == "HELLO", "{sent:?}");
    sent.code == Some(0)
}

#[test]
fn a_relay_is_made_listed_shown_and_deleted() {
    let line = Line::new(&[]);
    let home = &line.home;
    // Each form of the way to the relay's node, and the name that needs not be said.
    assert_eq!(home.ok(&["relay", "create", "--at", "n2", "--to", "n3"]), "/service/forward_to_default");
    assert_eq!(line.register("one", "/node/n2", &[]), "/service/forward_to_one");
    assert_eq!(line.register("two", &line.relay.route(), &[]), "/service/forward_to_two");
    assert_eq!(line.register("three", "/node/n2/secure/api", &[]), "/service/forward_to_three");
    assert_eq!(line.register("four", "n2", &["--relay-address", "other"]), "/service/forward_to_other");
    for name in ["default", "one", "two", "three", "other"] {
        reaches(home, name);
    }
    let list = home.json(&["relay", "list", "--to", "n3"]);
    let mut names: Vec<&str> = list.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["default", "four", "one", "three", "two"]);
    assert!(list.as_array().unwrap().iter().all(|it| it["status"] == "up"), "{list}");
    let one = line.shown("one");
    assert!(list.as_array().unwrap().contains(&one), "{one}");
    assert_eq!(one["address"], "forward_to_one");
    assert_eq!(home.json(&["node", "show", "n3"])["relays"].as_array().map(Vec::len), Some(5));

    home.fails(73, &["relay", "create", "one", "--at", "n2", "--to", "n3"]);
    home.fails(68, &["relay", "show", "nothing", "--to", "n3"]);
    home.fails(68, &["relay", "delete", "nothing", "--to", "n3", "--yes"]);
    home.fails(68, &["relay", "create", "r", "--at", "n9", "--to", "n3"]);
    home.fails(68, &["relay", "create", "r", "--at", "n2", "--to", "n9"]);
    home.fails(64, &["relay", "create", "a/b", "--at", "n2", "--to", "n3"]);
    home.fails(64, &["relay", "create", "r", "--at", "/nonsense/x", "--to", "n3"]);
    home.fails(66, &["relay", "delete", "one", "--to", "n3"]);

    home.ok(&["relay", "delete", "one", "--to", "n3", "--yes"]);
    assert!(!is_reached(home, "one"), "what is deleted is reached");
    reaches(home, "two");
    home.ok(&["relay", "delete", "--all", "--to", "n3", "--yes"]);
    for name in ["default", "two", "three", "other"] {
        assert!(!is_reached(home, name), "{name} is reached, which is deleted");
    }
    assert_eq!(home.json(&["relay", "list", "--to", "n3"]), json!([]));
    // Nothing keeps a connection for what is not there.
    wait_until(
        || home.json(&["tcp-connection", "list", "--at", "n3"]) == json!([]),
        || "the links to the relay are left".into(),
    );
    assert_eq!(line.register("one", "/node/n2", &[]), "/service/forward_to_one");
    reaches(home, "one");
}

on_both_drivers! {
    // Messages, channels and portals through a relay, which sees none of what is sealed.
    everything_goes_through_a_relay(driver) {
        let line = Line::new(&["--driver", driver]);
        let home = &line.home;
        let behind = Middle::before(line.relay.address);
        line.register("r", &line.middle.route(), &[]);
        let to = |rest: &str| format!("{}/service/forward_to_r{rest}", behind.route());
        assert_eq!(home.send("hello", &to("/service/uppercase"), &["--from", "n1"]), "HELLO");
        assert!(line.middle.saw(b"hello") && behind.saw(b"HELLO"), "what is not sealed is seen");
        line.middle.forget();
        behind.forget();
        assert_eq!(home.send("hello", &to("/secure/api/service/uppercase"), &["--from", "n1"]), "HELLO");
        let channel = home.ok(&["secure-channel", "create", "--from", "n1", "--to", &to("/service/api")]);
        assert_eq!(home.send("hello", &format!("{channel}/service/uppercase"), &["--from", "n1"]), "HELLO");
        let target = Target::echo();
        let outlet = home.outlet("n3", target.place(), &[]);
        let places = [to(&format!("/secure/api{outlet}")), format!("{channel}{outlet}")].map(|it| home.inlet("n1", &it, &[]));
        places.iter().for_each(works);
        let talks = [1, 2].map(|seed| Talk::start(&places[seed as usize - 1], seed));
        talks.iter().for_each(Talk::flows);
        talks.into_iter().for_each(|talk| assert!(talk.stop() > 0));
        assert!(!line.middle.saw(b"hello") && !behind.saw(b"HELLO") && !behind.captured().is_empty());
        // The short form: the service at the other end, and by whom it is reached.
        let name = outlet.trim_start_matches("/service/");
        let printed = home.ok(&["tcp-inlet", "create", "--at", "n1", "--to", name, "--via", "r@n2"]);
        works(&printed.parse().unwrap());
        // Plain, too, between those who are on this machine.
        works(&home.inlet("n1", &to(&outlet), &[]));
    }
}

/// Who is registered is so again after anything that ends it, by itself.
#[test]
fn a_relay_is_registered_again() {
    let line = Line::new(&[]);
    let home = &line.home;
    let target = Target::echo();
    let outlet = home.outlet("n3", target.place(), &[]);
    line.register("plain", &line.middle.route(), &[]);
    line.register("sealed", &format!("{}/secure/api", line.middle.route()), &[]);
    let to = format!("/node/n2/service/forward_to_sealed/secure/api{outlet}");
    let place = home.inlet("n1", &to, &[]);
    works(&place);
    let mut took = Vec::new();
    let mut all = |after: &'static str| {
        let began = Instant::now();
        line.comes_back("plain");
        line.comes_back("sealed");
        took.push((after, began.elapsed()));
    };
    all("nothing");
    for _ in 0..2 {
        line.middle.cut();
        all("a cut");
    }
    home.ok(&["node", "stop", "n2"]);
    wait_until(
        || line.shown("plain")["status"] == "down" && line.shown("plain")["error"].is_string(),
        || format!("it does not say that it is not registered: {}", line.shown("plain")),
    );
    home.ok(&["node", "start", "n2"]);
    all("a stop of the relay's node");
    for (node, after) in [("n2", "the death of the relay's engine"), ("n3", "the death of its engine")] {
        home.show(node).engine.kill();
        all(after);
    }
    home.ok(&["node", "stop", "n3"]);
    home.ok(&["node", "start", "n3"]);
    all("a stop");
    let three = home.show("n3");
    three.control.kill();
    three.engine.kill();
    home.ok(&["node", "start", "n3"]);
    all("its death");
    assert_eq!(home.json(&["relay", "list", "--to", "n3"]).as_array().map(Vec::len), Some(2));
    // Who goes through it sees nothing of all that, and finds it out.
    let began = Instant::now();
    wait_until(|| try_works(&place).is_ok(), || "the portal through the relay does not come back".into());
    // Times decide nothing here; they are there to be looked at.
    eprintln!("back after {took:?}, and the portal after {:?}", began.elapsed());
}

/// What goes through a relay needs no control anywhere.
/// The node of a relay forgets it while everything that it was made by lives: somebody else took the name, and gave it back.
#[test]
fn a_relay_that_is_forgotten_is_registered_again() {
    let line = Line::new(&[]);
    let home = &line.home;
    line.register("far", "/node/n2", &[]);
    reaches(home, "far");
    home.ok(&["relay", "create", "far", "--at", "n2", "--to", "n1"]);
    home.ok(&["relay", "delete", "far", "--to", "n1", "--yes"]);
    assert!(!is_reached(home, "far"), "it is not forgotten");
    line.comes_back("far");
}

#[test]
fn a_relay_works_while_control_is_dead() {
    let line = Line::new(&[]);
    let home = &line.home;
    let target = Target::echo();
    let outlet = home.outlet("n3", target.place(), &[]);
    line.register("r", "/node/n2/secure/api", &[]);
    let place = home.inlet("n1", &format!("/node/n2/service/forward_to_r/secure/api{outlet}"), &[]);
    let talk = Talk::start(&place, 1);
    for _ in 0..2 {
        for node in ["n1", "n2", "n3"] {
            home.show(node).control.kill();
        }
        talk.flows();
        works(&place);
        let mut peer = Peer::connect(line.relay.address);
        peer.send(&ockam_tests::frame(&["forward_to_r", "uppercase"], &["me"], &text("hello")));
        let answer = peer.receive();
        assert_eq!((answer.onward, answer.payload), (addresses(&["me"]), text("HELLO")));
        for node in ["n1", "n2", "n3"] {
            assert_eq!(home.status(node), "headless");
            home.ok(&["node", "start", node]);
        }
        line.comes_back("r");
        talk.flows();
        works(&place);
    }
    assert!(talk.stop() > 0);
    assert_eq!(home.json(&["relay", "list", "--to", "n3"]).as_array().map(Vec::len), Some(1));
}

/// A name belongs to who proved to be somebody when taking it.
#[test]
fn a_name_that_somebody_else_has_is_refused() {
    let line = Line::new(&[]);
    let home = &line.home;
    // The first identity is that of n1 to n3.
    home.ok(&["identity", "create", "other"]);
    home.node("n4", &["--identity", "other"]);
    line.register("mine", "/node/n2/secure/api", &[]);
    let said = home.fails(77, &["relay", "create", "mine", "--at", "/node/n2/secure/api", "--to", "n4"]);
    assert!(said.contains("mine"), "{said}");
    // Nor is it had by who proves nothing.
    let mut stranger = Peer::connect(line.relay.address);
    stranger.send(&ockam_tests::frame(&["static_forwarding_service"], &["me"], &text("mine")));
    stranger.echoes(b"the next thing that comes");
    home.run(&["relay", "create", "mine", "--at", "/node/n2", "--to", "n4", "--timeout", "3s"])
        .code
        .filter(|code| *code != 0)
        .expect("a name that is taken");
    let mut impostor = Initiator::open(&mut stranger, &["api"], &Identity::new());
    stranger.send(&impostor.frame_with(&["static_forwarding_service"], &["me"], &text("mine")));
    impostor.echoes(&mut stranger, b"the next thing that comes");
    // It leads where it led.
    let channel =
        home.ok(&["secure-channel", "create", "--from", "n1", "--to", "/node/n2/service/forward_to_mine/service/api"]);
    let met = home.json(&["secure-channel", "show", &channel, "--at", "n1"])["identifier"].clone();
    assert_eq!(met, home.json(&["node", "show", "n3"])["identifier"]);
    assert_eq!(line.shown("mine")["status"], "up");
    // Who is the same may come from elsewhere, and has the name then.
    home.ok(&["relay", "delete", "mine", "--to", "n3", "--yes"]);
    home.ok(&["relay", "create", "mine", "--at", "/node/n2/secure/api", "--to", "n1"]);
    reaches(home, "mine");
}
