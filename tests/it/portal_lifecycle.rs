//! How long a portal lives: what it survives, what comes back by itself, and how those end who were in the middle of it.

use ockam_tests::{
    Home, Middle, PATIENCE, Pair, Place, Process, Sequence, Stream, Talk, Target, echoes, on_both_drivers, try_works,
    wait_until, works,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// What stays of an inlet or outlet whatever happens to its node.
fn constant(view: &Value) -> Value {
    let names = ["alias", "address", "from", "to", "identifier", "tls", "allow_plain"];
    names.iter().map(|name| ((*name).to_owned(), view[name].clone())).collect::<serde_json::Map<_, _>>().into()
}

/// The portals of a node.
#[track_caller]
fn portals(home: &Home, node: &str) -> Vec<Value> {
    let list = |kind: &str| home.json(&[kind, "list", "--at", node]);
    let (inlets, outlets) = (list("tcp-inlet"), list("tcp-outlet"));
    let mut all: Vec<Value> =
        [inlets, outlets].iter().flat_map(|it| it.as_array().expect("an array")).map(constant).collect();
    all.sort_by_key(Value::to_string);
    all
}

/// Waits until a portal works. Gives how long that took, which decides nothing.
#[track_caller]
fn comes_back(place: &Place) -> Duration {
    let began = Instant::now();
    let mut last = None;
    let mut works = || match try_works(place) {
        Ok(()) => true,
        Err(error) => {
            // The way is not there yet, or just going; a wrong byte is wrong at any time.
            assert_ne!(error.kind(), ErrorKind::InvalidData, "{place}: {error}");
            assert_ne!(error.kind(), ErrorKind::ConnectionRefused, "{place}: {error}");
            last = Some(error);
            false
        }
    };
    let end = Instant::now() + PATIENCE;
    while !works() {
        assert!(Instant::now() < end, "{place} does not come back: {last:?}");
        thread::sleep(Duration::from_millis(20));
    }
    began.elapsed()
}

/// Connects all the time until told to stop. Nobody may be refused, whatever comes of the connection.
struct Knocker {
    over: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: Option<thread::JoinHandle<io::Result<()>>>,
}

impl Knocker {
    fn start(place: &Place) -> Knocker {
        let (over, count, place) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), place.clone());
        let (end, knocked) = (over.clone(), count.clone());
        let thread = thread::spawn(move || {
            // They stay for a while: one that is given up at once may never have been looked at.
            let mut open: Vec<Stream> = Vec::new();
            while !end.load(Ordering::Relaxed) {
                open.push(place.try_connect()?);
                knocked.fetch_add(1, Ordering::Relaxed);
                if open.len() > 20 {
                    open.remove(0);
                }
                thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        });
        Knocker { over, count, thread: Some(thread) }
    }

    /// Waits until it has knocked some more.
    #[track_caller]
    fn knocks(&self) {
        let aim = self.count.load(Ordering::Relaxed) + 20;
        let over = || self.thread.as_ref().is_some_and(thread::JoinHandle::is_finished);
        wait_until(|| over() || self.count.load(Ordering::Relaxed) >= aim, || "nobody knocks".into());
    }

    #[track_caller]
    fn stop(mut self) {
        self.over.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it is stopped once");
        thread.join().expect("it does not panic").expect("nobody is refused");
    }
}

impl Drop for Knocker {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// A target that talks without end. It says how each of its connections ended.
fn endless() -> (Target, mpsc::Receiver<io::Result<()>>) {
    let (say, heard) = mpsc::channel();
    let say = std::sync::Mutex::new(say);
    let target = Target::tcp(move |stream| {
        let sent = Sequence::new(11).send(&stream, u64::MAX);
        // The test may be over.
        let _ = say.lock().expect("nobody panics with it").send(sent);
    });
    (target, heard)
}

/// The connection is broken off: right bytes, then a reset.
#[track_caller]
fn is_broken_off(outcome: io::Result<()>) {
    let kind = outcome.expect_err("a connection without end has ended").kind();
    assert!(matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "it ended with {kind:?}");
}

on_both_drivers! {
    // What is open loses no byte, and who is new is served: all without control.
    portals_work_while_control_is_dead(driver) {
        let pair = Pair::new(&["--driver", driver]);
        let target = Target::echo();
        let place = pair.portal(target.place(), &["--alias", "p"]);
        let before = ["n1", "n2"].map(|node| portals(&pair.home, node));
        let talk = Talk::start(&place, 1);
        let idle = place.connect();
        let mut of_idle = Sequence::new(2);
        echoes(&idle, &mut of_idle, 1).unwrap();
        for _ in 0..3 {
            for node in ["n1", "n2"] {
                pair.home.show(node).control.kill();
            }
            talk.flows();
            (0..20).for_each(|_| works(&place));
            echoes(&idle, &mut of_idle, 1000).unwrap();
            // Nothing of that has started one.
            assert_eq!(["n1", "n2"].map(|node| pair.home.status(node)), ["headless", "headless"]);
            for node in ["n1", "n2"] {
                pair.home.ok(&["node", "start", node]);
            }
            pair.wait_for_status("p", "up");
            talk.flows();
            works(&place);
            assert_eq!(["n1", "n2"].map(|node| portals(&pair.home, node)), before);
            let engines = ["n1", "n2"].map(|node| pair.home.show(node).engine);
            assert_eq!(engines, [pair.near.engine, pair.far.engine]);
        }
        echoes(&idle, &mut of_idle, 1000).unwrap();
        drop(idle);
        assert!(talk.stop() > 0);
        pair.comes_to_rest();
    }

    // Nobody is refused, nobody is told that a half is the whole, and the port stays.
    a_dead_engine_refuses_nobody_and_cuts_nothing_short(driver) {
        let pair = Pair::new(&["--driver", driver]);
        let (target, (without_end, ended)) = (Target::echo(), endless());
        let place = pair.portal(target.place(), &["--alias", "p"]);
        let downloads = pair.portal(without_end.place(), &["--alias", "d"]);
        let knocker = Knocker::start(&place);
        for node in ["n1", "n2", "n1", "n2"] {
            let download = downloads.connect();
            let mut sequence = Sequence::new(11);
            sequence.receive(&download, 1_000_000).unwrap();
            let talk = Talk::start(&place, 3);
            knocker.knocks();
            pair.home.show(node).engine.kill();
            is_broken_off(sequence.receive(&download, u64::MAX / 2));
            is_broken_off(ended.recv_timeout(PATIENCE).expect("the target is told"));
            is_broken_off(talk.outcome());
            comes_back(&place);
            comes_back_from(&downloads);
            knocker.knocks();
            // That one ended, too, and so did its other end.
            assert!(ended.recv_timeout(PATIENCE).is_ok(), "the target is not told");
        }
        knocker.stop();
    }
}

/// The same as [`comes_back`] for a target that talks without end.
#[track_caller]
fn comes_back_from(place: &Place) {
    wait_until(
        || {
            let stream = place.try_connect().expect("nobody is refused");
            Sequence::new(11).receive(&stream, 100_000).is_ok()
        },
        || format!("{place} does not come back"),
    );
}

#[test]
fn portals_are_restored() {
    let pair = Pair::new(&[]);
    let home = &pair.home;
    let directory = tempfile::tempdir().unwrap();
    let path = format!("unix:{}", directory.path().join("inlet").display());
    let target = Target::echo();
    let sealed = pair.portal(target.place(), &["--alias", "sealed"]);
    let plain = home.inlet("n1", "/node/n2/service/outlet", &["--alias", "plain"]);
    let unix = home.inlet("n1", "/node/n2/secure/api/service/outlet", &["--from", &path]);
    let own = home.outlet("n1", target.place(), &["--from", "own"]);
    let local = home.inlet("n1", &own, &[]);
    let gone = home.inlet("n1", "/node/n2/service/outlet", &["--alias", "gone"]);
    home.outlet("n2", target.place(), &["--from", "gone"]);
    home.ok(&["tcp-inlet", "delete", "gone", "--at", "n1", "--yes"]);
    home.ok(&["tcp-outlet", "delete", "gone", "--at", "n2", "--yes"]);
    let before = ["n1", "n2"].map(|node| portals(home, node));
    let all = [&sealed, &plain, &unix, &local];
    all.iter().for_each(|place| works(place));

    // By a stop, by the death of everything, and of one.
    let deaths: [fn(&Home); 3] = [
        |home| ["n1", "n2"].iter().for_each(|node| drop(home.ok(&["node", "stop", node]))),
        |home| {
            for node in ["n1", "n2"] {
                let node = home.show(node);
                node.control.kill();
                node.engine.kill();
            }
        },
        |home| {
            let node = home.show("n1");
            node.engine.signal(Signal::KILL);
            node.control.kill();
            node.engine.wait();
        },
    ];
    for death in deaths {
        death(home);
        // The near one first: the far one is not there then.
        home.ok(&["node", "start", "n1"]);
        home.ok(&["node", "start", "n2"]);
        let took: Vec<Duration> = all.iter().map(|place| comes_back(place)).collect();
        assert_eq!(["n1", "n2"].map(|node| portals(home, node)), before, "back after {took:?}");
        assert!(gone.try_connect().is_err(), "what was deleted is back");
    }
}

/// While the far end is away, who comes waits as long as the inlet says, and is served when it comes back meanwhile.
#[test]
fn connections_wait_for_the_far_end() {
    let pair = Pair::new(&[]);
    let target = Target::echo();
    let patient = pair.portal(target.place(), &["--alias", "patient", "--connection-wait", "60s"]);
    let to = "/node/n2/secure/api/service/outlet";
    let hasty = pair.home.inlet("n1", to, &["--alias", "hasty", "--connection-wait", "1s"]);
    for _ in 0..2 {
        works(&patient);
        works(&hasty);
        pair.home.ok(&["node", "stop", "n2"]);
        pair.wait_for_status("patient", "down");
        pair.wait_for_status("hasty", "down");
        assert!(pair.inlet("hasty")["error"].is_string(), "it does not say why: {}", pair.inlet("hasty"));
        let began = Instant::now();
        let waiting: Vec<Stream> = (0..10).map(|_| patient.connect()).collect();
        // Some say something before they are served, some nothing.
        for stream in &waiting[..5] {
            Sequence::new(1).send(stream, 10_000).unwrap();
        }
        let given_up = hasty.connect();
        Sequence::new(1).send(&given_up, 10).unwrap();
        given_up.is_at_end().expect("it is closed");
        assert!(began.elapsed() >= Duration::from_millis(900), "it was closed after {:?}", began.elapsed());
        let accepted = target.accepted();
        pair.home.ok(&["node", "start", "n2"]);
        for (number, stream) in waiting.iter().enumerate() {
            let mut sequence = Sequence::new(1);
            let sent = if number < 5 { 10_000 } else { 0 };
            sequence.receive(stream, sent).unwrap_or_else(|error| panic!("{number}: {error}"));
            echoes(stream, &mut sequence, 10_000).unwrap_or_else(|error| panic!("{number}: {error}"));
        }
        assert_eq!(target.accepted() - accepted, 10, "who was given up is not dialed for");
        drop(waiting);
        // The other one goes by itself, too.
        pair.wait_for_status("patient", "up");
        pair.wait_for_status("hasty", "up");
    }
}

/// An inlet can be made before its far end is there.
#[test]
fn the_far_end_may_come_later() {
    let pair = Pair::new(&[]);
    let target = Target::echo();
    pair.home.outlet("n2", target.place(), &[]);
    let to = format!("{}/secure/api/service/outlet", pair.far.route());
    pair.home.ok(&["node", "stop", "n2"]);
    let more = ["--alias", "early", "--no-connection-wait"];
    let early = pair.home.inlet("n1", &to, &more);
    let inlet = pair.inlet("early");
    assert_eq!((&inlet["status"], &inlet["identifier"]), (&json!("down"), &Value::Null), "{inlet}");
    // Who does not want to try again is told, and nothing is left.
    let create = ["tcp-inlet", "create", "--at", "n1", "--to", &to, "--retry-wait", "0", "--timeout", "5s"];
    let failed = pair.home.run(&create);
    assert!(matches!(failed.code, Some(69 | 75)), "{failed:?}");
    assert_eq!(pair.home.json(&["tcp-inlet", "list", "--at", "n1"]).as_array().map(Vec::len), Some(1));
    pair.home.ok(&["node", "start", "n2"]);
    pair.wait_for_status("early", "up");
    works(&early);
}

/// What is lost with a sign is mended at once: links that are cut, nodes in the middle, channels that end.
#[test]
fn what_is_lost_with_a_sign_is_mended_at_once() {
    let home = Home::new();
    home.node("n1", &[]);
    home.node("n2", &[]);
    let three = home.node("n3", &[]);
    let middle = Middle::before(three.address);
    let (target, mut took) = (Target::echo(), Vec::new());
    let outlet = home.outlet("n3", target.place(), &[]);
    let cut = home.inlet("n1", &format!("{}/secure/api{outlet}", middle.route()), &[]);
    let over = home.inlet("n1", &format!("/node/n2/node/n3/secure/api{outlet}"), &[]);
    let channel = home.ok(&["secure-channel", "create", "--from", "n1", "--to", "/node/n3/service/api"]);
    let given = home.inlet("n1", &format!("{channel}{outlet}"), &[]);
    for _ in 0..3 {
        let talk = Talk::start(&cut, 5);
        middle.cut();
        let outcome = talk.outcome().expect_err("it is cut off").kind();
        assert!(matches!(outcome, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{outcome:?}");
        took.push(("link", comes_back(&cut)));
    }
    for node in ["n2", "n3"] {
        home.show(node).engine.kill();
        for place in [&over, &given, &cut] {
            took.push((node, comes_back(place)));
        }
    }
    home.ok(&["node", "stop", "n2"]);
    works(&given);
    home.ok(&["node", "start", "n2"]);
    took.push(("stopped", comes_back(&over)));
    let accepted = home.json(&["secure-channel", "list", "--at", "n3"]);
    for channel in accepted.as_array().unwrap() {
        home.ok(&["secure-channel", "delete", channel["address"].as_str().unwrap(), "--at", "n3", "--yes"]);
    }
    for place in [&over, &given, &cut] {
        took.push(("channel", comes_back(place)));
    }
    eprintln!("back after {took:?}");
}

/// What is lost without a sign is found out: nothing comes any more, and no connection says so.
#[test]
fn what_is_lost_without_a_sign_is_found_out() {
    let home = Home::new();
    home.node("n1", &[]);
    let (two, three) = (home.node("n2", &[]), home.node("n3", &[]));
    let (middle, target) = (Middle::before(two.address), Target::echo());
    let outlet = home.outlet("n2", target.place(), &[]);
    home.outlet("n3", target.place(), &[]);
    let swallowed = home.inlet("n1", &format!("{}/secure/api{outlet}", middle.route()), &["--alias", "swallowed"]);
    let stopped = home.inlet("n1", &format!("/node/n3/secure/api{outlet}"), &["--alias", "stopped"]);
    let both = [("swallowed", &swallowed), ("stopped", &stopped)];
    let becomes = |alias: &str, status: &str| {
        let shown = || home.json(&["tcp-inlet", "show", alias, "--at", "n1"]);
        wait_until(|| shown()["status"] == status, || format!("it does not become {status}: {}", shown()));
    };
    let talks = [Talk::start(&stopped, 1), Talk::start(&swallowed, 2)];
    let began = Instant::now();
    // Who is in the middle keeps the connections and lets nothing through; an engine keeps its links and says nothing.
    middle.rule(|_, _| Vec::new());
    let asleep = Asleep::new(three.engine);
    both.iter().for_each(|(alias, _)| becomes(alias, "down"));
    let found = began.elapsed();
    let began = Instant::now();
    middle.pass_on();
    drop(asleep);
    for (alias, place) in both {
        becomes(alias, "up");
        comes_back(place);
    }
    for talk in talks {
        // Whether it was given up or went on: no byte of it was wrong, and no half was taken for the whole.
        if talk.has_ended() {
            is_broken_off(talk.outcome());
        } else {
            talk.flows();
        }
    }
    eprintln!("found out after {found:?}, mended after {:?}", began.elapsed());
}

/// A process that is stopped, and goes on when this ends.
struct Asleep(Process);

impl Asleep {
    fn new(process: Process) -> Asleep {
        process.signal(Signal::STOP);
        Asleep(process)
    }
}

impl Drop for Asleep {
    fn drop(&mut self) {
        self.0.signal(Signal::CONT);
    }
}

/// Somebody else in the place of the far end gets nothing.
#[test]
fn somebody_else_at_the_far_end_is_not_spoken_to() {
    let home = Home::new();
    home.node("n1", &[]);
    home.ok(&["identity", "create", "other"]);
    let two = home.node("n2", &[]);
    let target = Target::echo();
    home.outlet("n2", target.place(), &[]);
    let to = format!("{}/secure/api/service/outlet", two.route());
    let place = home.inlet("n1", &to, &["--alias", "p", "--connection-wait", "1s"]);
    works(&place);
    let shown = || home.json(&["tcp-inlet", "show", "p", "--at", "n1"]);
    let met = shown()["identifier"].clone();
    home.ok(&["node", "delete", "n2", "--yes"]);
    let accepted = target.accepted();
    let address = two.address.to_string();
    home.node("n3", &["--identity", "other", "--tcp-listener-address", &address]);
    home.outlet("n3", target.place(), &[]);
    let other = home.json(&["identity", "show", "other"])["identifier"].as_str().unwrap().to_owned();
    wait_until(
        || shown()["error"].as_str().is_some_and(|error| error.contains(&other)),
        || format!("it does not say who is there now: {}", shown()),
    );
    assert_eq!((&shown()["status"], &shown()["identifier"]), (&json!("down"), &met), "{}", shown());
    let stream = place.connect();
    // It may be over before that is said.
    let _ = (&stream).write(b"secret");
    assert!(stream.is_at_end().is_ok());
    assert_eq!(target.accepted(), accepted, "somebody else was spoken to");
}

/// Nothing works hard for what cannot be had, nor for what nobody uses, and nothing fills the disk.
#[test]
fn nothing_spins_while_there_is_nothing_to_do() {
    const LOOK: Duration = Duration::from_secs(3);
    let pair = Pair::new(&[]);
    let target = Target::echo();
    let place = pair.portal(target.place(), &["--alias", "up"]);
    let idle: Vec<Stream> = (0..100).map(|_| place.connect()).collect();
    for stream in &idle {
        echoes(stream, &mut Sequence::new(1), 100).unwrap();
    }
    let nodes = |names: &[&str]| -> Vec<Process> {
        names.iter().map(|name| pair.home.show(name)).flat_map(|node| [node.control, node.engine]).collect()
    };
    let logs = || -> u64 {
        let files =
            ["n1", "n2"].map(|node| ["control.log", "engine.log"].map(|log| pair.home.node_dir(node).join(log)));
        files.iter().flatten().filter_map(|log| fs::metadata(log).ok()).map(|it| it.len()).sum()
    };
    let is_quiet = |processes: &[Process], when: &str| {
        let (ticks, bytes) = (|| -> u64 { processes.iter().map(|it| it.cpu_ticks()).sum() }, logs());
        let (before, began) = (ticks(), Instant::now());
        thread::sleep(LOOK);
        let (used, took) = (ticks() - before, began.elapsed());
        // One that spins uses a hundred per second.
        assert!(used < took.as_secs() * 25, "{when}: {used} ticks in {took:?}");
        let written = logs() - bytes;
        assert!(written < 64 << 10, "{when}: {written} bytes of logs in {took:?}");
    };
    is_quiet(&nodes(&["n1", "n2"]), "a hundred idle connections");
    drop(idle);
    // Fifty ways that are not there, and those who wait for them.
    let lost = ["n2", "n9"].map(|_| pair.home.inlet("n1", "/node/n2/service/outlet", &[]));
    let many: Vec<Place> = (0..20).map(|_| pair.home.inlet("n1", "/node/n2/secure/api/service/outlet", &[])).collect();
    pair.home.ok(&["node", "stop", "n2"]);
    pair.wait_for_status("up", "down");
    let waiting: Vec<Stream> = many.iter().chain(&lost).map(Place::connect).collect();
    is_quiet(&nodes(&["n1"]), "a far end that is away");
    drop(waiting);
    pair.home.ok(&["node", "start", "n2"]);
    for place in many.iter().chain(&lost) {
        comes_back(place);
    }
}
