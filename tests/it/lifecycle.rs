//! How nodes come and go, and what survives whom. A node is two processes; either may be killed at any time.

use ockam_tests::{Home, Node, PATIENCE, Peer, Process, Traffic, finish, noise, on_both_drivers, wait_for, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, thread};

/// Waits for the end of a child that should end by itself, and gives its exit code.
#[track_caller]
fn exit_code(mut child: Child) -> Option<i32> {
    let process = Process(child.id());
    let code = wait_for(|| child.try_wait().unwrap(), || format!("{} does not end", process.command_line())).code();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(!said.contains("panicked"), "{said}");
    code
}

/// A node in the foreground, once it is ready.
fn foreground(home: &Home, more: &[&str]) -> (Child, Node) {
    let address = home.free().to_string();
    let create = ["node", "create", "n1", "--foreground", "--tcp-listener-address", &address];
    let mut command = home.command(&[&create, more].concat());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let ready = || {
        let ended = child.try_wait().unwrap();
        assert_eq!(ended, None, "it ended before it was ready");
        home.run(&["worker", "list", "--at", "n1"]).code == Some(0)
    };
    let mut ready = ready;
    wait_until(&mut ready, || "the node does not start".into());
    let node = home.show("n1");
    assert_eq!(node.control, Process(child.id()), "the command itself is the control process");
    (child, node)
}

#[test]
fn a_node_in_the_foreground_ends_with_a_signal() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let home = Home::new();
        let (child, node) = foreground(&home, &[]);
        assert_eq!(home.send("hello", "/node/n1/service/uppercase", &["--from", "n1"]), "HELLO");
        node.control.signal(signal);
        assert_eq!(exit_code(child), Some(0), "{signal:?}");
        node.engine.wait();
        assert_eq!(home.status("n1"), "stopped");
        home.ok(&["node", "start", "n1"]);
        assert_eq!(home.show("n1").address, node.address);
    }
}

#[test]
fn a_node_in_the_foreground_ends_with_its_stdin_only_if_told() {
    let home = Home::new();
    let (mut child, node) = foreground(&home, &["--exit-on-eof"]);
    drop(child.stdin.take());
    assert_eq!(exit_code(child), Some(0));
    node.engine.wait();

    let (mut child, node) = foreground(&home, &[]);
    drop(child.stdin.take());
    assert_eq!(home.send("hello", "/node/n1/service/uppercase", &["--from", "n1"]), "HELLO");
    home.ok(&["node", "stop", "n1"]);
    assert_eq!(exit_code(child), Some(0));
    assert!(!node.engine.is_alive());
}

#[test]
fn a_second_create_of_a_running_node_is_refused() {
    let home = Home::new();
    let node = home.node("n1", &[]);
    for more in [&[][..], &["--foreground"], &["--skip-is-running-check"], &["--tcp-listener-address", "127.0.0.1:0"]] {
        let said = home.fails(73, &[&["node", "create", "n1"], more].concat());
        assert!(said.contains("n1") && said.contains("running"), "{said}");
    }
    // Nor does a control process of its own get hold of it.
    let second = finish(
        &mut home.command(&["control-process", "--node", "n1"]),
        b"{\"create\":null,\"log\":{\"json\":false,\"verbosity\":0}}\n",
    );
    assert_ne!(second.code, Some(0), "{second:?}");
    assert_eq!(home.show("n1"), node);
    assert_eq!(home.processes().len(), 2);
}

#[test]
fn create_starts_a_stopped_node_with_what_is_given() {
    let home = Home::new();
    let node = home.node("n1", &["--driver", "epoll", "--threads", "1"]);
    home.ok(&["service", "start", "hop", "--at", "n1"]);
    home.ok(&["node", "stop", "n1"]);
    assert_eq!(home.status("n1"), "stopped");
    home.ok(&["node", "stop", "n1"]);
    let again = home.node("n1", &["--threads", "2"]);
    assert_eq!(again.address, node.address, "the port that was chosen is kept");
    let engine = home.json(&["engine", "show", "--at", "n1"]);
    assert_eq!((&engine["driver"], &engine["cores"]), (&json!("epoll"), &json!(2)));
    assert!(home.json(&["service", "list", "--at", "n1"]).as_array().unwrap().iter().any(|it| it["addr"] == "hop"));
    assert_eq!(home.ok(&["node", "start", "n1"]), "n1", "to start a running node is no mistake");
    assert_eq!(home.show("n1"), again);
}

#[test]
fn a_node_is_started_while_its_control_dies() {
    let home = Home::new();
    let node = home.node("n1", &[]);
    // It accepts, and does not answer.
    node.control.signal(Signal::STOP);
    let mut command = home.command(&["node", "start", "n1"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let descriptors = format!("/proc/{}/fd", child.id());
    let connected = || {
        let links = fs::read_dir(&descriptors).unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        links.filter(|link| link.to_string_lossy().starts_with("socket:")).count() > 0
    };
    wait_until(connected, || "the command asks nobody".into());
    node.control.kill();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let started = home.show("n1");
    assert!(started.control != node.control && started.engine == node.engine);
    assert_eq!(home.send("hello", "/node/n1/service/uppercase", &["--from", "n1"]), "HELLO");
}

on_both_drivers! {
    control_dies_and_flows_go_on(driver) {
        let home = Home::new();
        let node = home.node("n1", &["--driver", driver]);
        let other = home.node("n2", &[]);
        home.ok(&["service", "start", "hop", "--at", "n1"]);
        let second = home.json(&["tcp-listener", "create", "127.0.0.1:0", "--at", "n1"]);
        let link = home.ok(&["tcp-connection", "create", "--from", "n1", "--to", &other.address.to_string()]);
        let traffic = Traffic::start(node.address);

        for round in 0..3 {
            let control = home.show("n1").control;
            control.kill();
            assert_eq!(home.status("n1"), "headless");
            traffic.flows();
            // Who is new is served, too.
            Peer::connect(node.address).echoes(&noise(5000, round));
            // What needs a control starts one, which adopts the engine with all it has.
            let workers = home.json(&["worker", "list", "--at", "n1"]);
            assert!(workers.as_array().is_some_and(|it| it.iter().any(|worker| worker["address"] == "hop")), "{workers}");
            let adopted = home.show("n1");
            assert_eq!((adopted.engine, adopted.address), (node.engine, node.address));
            assert_ne!(adopted.control, control);
            assert_eq!(home.status("n1"), "running");
            let listeners = home.json(&["tcp-listener", "list", "--at", "n1"]);
            assert!(listeners.as_array().unwrap().contains(&second), "{listeners}");
            let connection = home.json(&["tcp-connection", "show", &link, "--at", "n1"]);
            assert_eq!((&connection["address"], &connection["origin"]), (&json!(link), &json!("dialed")));
            assert_eq!(home.send("hello", &format!("{link}/service/uppercase"), &["--from", "n1"]), "HELLO");
            traffic.flows();
        }
        assert!(traffic.stop() > 0);
        home.ok(&["node", "stop", "n1"]);
        assert!(!node.engine.is_alive());
    }

    an_engine_that_dies_refuses_nobody(driver) {
        let home = Home::new();
        let node = home.node("n1", &["--driver", driver]);
        let second = home.json(&["tcp-listener", "create", "127.0.0.1:0", "--at", "n1"]);
        let addresses = [node.address, second["address"].as_str().unwrap().parse().unwrap()];
        let end = AtomicBool::new(false);
        thread::scope(|scope| {
            let knockers: Vec<_> = addresses.map(|address| scope.spawn({ let end = &end; move || knock(address, end) })).into();
            for round in 0..4 {
                let before = home.show("n1");
                if round == 2 {
                    // A control that was not there when the engine was started has the sockets as well.
                    before.control.kill();
                    home.ok(&["node", "start", "n1"]);
                }
                before.engine.kill();
                let after = wait_for(
                    || {
                        // For a moment there is no engine, and a command that needs it may say so.
                        let engine = home.run(&["engine", "show", "--at", "n1", "--output", "json"]);
                        let engine: Value = serde_json::from_str(&engine.stdout).ok()?;
                        (engine["running"] == true && engine["pid"] != before.engine.0).then_some(engine)
                    },
                    || "the engine does not come back".into(),
                );
                assert_eq!(after["driver"], driver);
                for address in addresses {
                    Peer::connect(address).echoes(b"served");
                }
                assert_eq!(home.show("n1").address, node.address);
            }
            end.store(true, Ordering::Relaxed);
            for knocker in knockers {
                let (accepted, refused) = knocker.join().unwrap();
                assert!(accepted > 0);
                assert_eq!(refused, 0, "{refused} connections were refused, {accepted} were not");
            }
        });
    }
}

/// Connects again and again until the end. Says how many connections were accepted and how many refused.
fn knock(address: SocketAddr, end: &AtomicBool) -> (u64, u64) {
    let (mut accepted, mut refused) = (0, 0);
    while !end.load(Ordering::Relaxed) {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(_) => accepted += 1,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => refused += 1,
            // A connection that waited in a socket that went with its process.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => accepted += 1,
            Err(error) => panic!("{error}"),
        }
        // Ports for connections would run out otherwise.
        thread::sleep(std::time::Duration::from_micros(500));
    }
    (accepted, refused)
}

#[test]
fn both_die_and_all_that_was_stored_comes_back() {
    let home = Home::new();
    let rules = ["--allow-transit", "10.0.0.0/8=10.1.0.0/16:4000"];
    let node = home.node("n1", &[&rules[..], &["--driver", "epoll", "--threads", "1"]].concat());
    let listener = home.json(&["tcp-listener", "create", "127.0.0.1:0", "--at", "n1"]);
    home.ok(&["service", "start", "hop", "--at", "n1"]);
    home.ok(&["service", "start", "echo", "--addr", "mine", "--at", "n1"]);
    let flow = listener["flow_control_id"].as_str().unwrap();
    home.ok(&["flow-control", "add-consumer", flow, "later", "--at", "n1"]);
    let remembered = || {
        let shown = home.json(&["node", "show", "n1"]);
        let engine = home.json(&["engine", "show", "--at", "n1"]);
        json!([
            home.json(&["tcp-listener", "list", "--at", "n1"]),
            home.json(&["service", "list", "--at", "n1"]),
            home.json(&["worker", "list", "--at", "n1"]),
            shown["transit_rules"],
            shown["route"],
            engine["driver"],
            engine["cores"]
        ])
    };
    let before = remembered();
    for round in 0..3 {
        let now = home.show("n1");
        // Control first, or the engine first: control would start another one.
        match round % 2 {
            0 => {
                now.control.kill();
                now.engine.kill();
            }
            _ => {
                now.control.signal(Signal::STOP);
                now.engine.kill();
                now.control.kill();
            }
        }
        home.wait_for_no_process();
        assert_eq!(home.status("n1"), "stopped");
        // Their sockets and locks still lie there, and mean nothing.
        for file in ["control.sock", "engine.sock", "control.lock", "engine.lock"] {
            assert!(home.node_dir("n1").join(file).exists(), "{file}");
        }
        assert_eq!(home.ok(&["node", "start", "n1"]), "n1");
        assert_eq!(home.show("n1").address, node.address);
        assert_eq!(remembered(), before);
        assert_eq!(home.send("hello", "/node/n1/service/uppercase", &["--from", "n1"]), "HELLO");
    }
}

#[test]
fn a_headless_node_is_shown_stopped_and_deleted() {
    let home = Home::new();
    for verb in ["stop", "delete"] {
        let node = home.node("n1", &[]);
        node.control.kill();
        assert_eq!(home.status("n1"), "headless");
        let shown = home.json(&["node", "show", "n1"]);
        assert_eq!((&shown["status"], &shown["pid"]), (&json!("headless"), &Value::Null));
        assert!(node.engine.is_alive(), "to look changes nothing");
        home.ok(&[&["node", verb, "n1"][..], if verb == "delete" { &["--yes"] } else { &[] }].concat());
        assert!(!node.engine.is_alive());
        home.wait_for_no_process();
    }
    assert_eq!(home.json(&["node", "list"]), json!([]));
}

#[test]
fn a_node_whose_port_was_taken_meanwhile_does_not_start_and_says_so() {
    let home = Home::new();
    let node = home.node("n1", &[]);
    home.ok(&["node", "stop", "n1"]);
    let thief = std::net::TcpListener::bind(node.address).unwrap();
    let said = home.fails(73, &["node", "start", "n1"]);
    assert!(said.contains(&node.address.to_string()), "{said}");
    assert_eq!(home.status("n1"), "stopped");
    home.wait_for_no_process();
    drop(thief);
    home.ok(&["node", "start", "n1"]);
    Peer::connect(node.address).echoes(b"back");
}

#[test]
fn the_engine_is_replaced_on_request() {
    let home = Home::new();
    let node = home.node("n1", &[]);
    let mut peer = Peer::connect(node.address);
    let said = home.json(&["engine", "restart", "--at", "n1"]);
    assert_ne!(said["pid"], json!(node.engine.0));
    assert_eq!(peer.receive_or_end(), None, "links of the old engine are closed, not left hanging");
    node.engine.wait();
    let now = home.show("n1");
    assert_eq!((now.control, now.address), (node.control, node.address));
    Peer::connect(node.address).echoes(b"served");
    assert_eq!(home.processes().len(), 2);
}

#[test]
fn delete_leaves_nothing_and_follows_no_link() {
    let home = Home::new();
    let kept = home.path().with_extension("kept");
    fs::create_dir(&kept).unwrap();
    fs::write(kept.join("file"), "x").unwrap();
    let node = home.node("n1", &[]);
    home.node("n2", &[]);
    std::os::unix::fs::symlink(&kept, home.node_dir("n1").join("link")).unwrap();
    assert_eq!(home.ok(&["node", "delete", "n1", "--yes"]), "n1");
    assert!(!node.control.is_alive() && !node.engine.is_alive());
    assert!(!home.node_dir("n1").exists() && kept.join("file").exists());
    assert_eq!(home.ok(&["node", "default"]), "n2", "another node becomes the default");
    assert!(TcpStream::connect(node.address).is_err());
    // A node of that name is a new node.
    let again = home.node("n1", &[]);
    assert_eq!(home.json(&["service", "list", "--at", "n1"]).as_array().map(Vec::len), Some(2));
    home.ok(&["node", "delete", "--all", "--yes"]);
    assert!(!again.engine.is_alive());
    assert_eq!(names(&home.path().join("nodes")), Vec::<String>::new());
    home.wait_for_no_process();
}

fn names(directory: &Path) -> Vec<String> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_node_survives_any_kill_at_any_time() {
    let rounds = if std::env::var_os("OCKAM_TEST_LONG").is_some() { 200 } else { 20 };
    let home = Home::new();
    let node = home.node("n1", &[]);
    let mut acknowledged = vec!["echo".to_owned(), "uppercase".to_owned()];
    // The victims are noise, but the same noise in each run.
    for (round, choice) in noise(rounds, 4711).into_iter().enumerate() {
        let now = home.show("n1");
        let victims: &[Process] = match choice % 3 {
            0 => &[now.control],
            1 => &[now.engine],
            _ => &[now.control, now.engine],
        };
        // Something is being changed while it happens. What was acknowledged must hold.
        let address = format!("e{round}");
        let mut change = home.command(&["service", "start", "echo", "--addr", &address, "--at", "n1"]);
        let change = change.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(std::time::Duration::from_micros(u64::from(choice) * 60));
        victims.iter().for_each(|victim| victim.signal(Signal::KILL));
        let change = change.wait_with_output().unwrap();
        victims.iter().for_each(|victim| victim.wait());
        if change.status.success() {
            acknowledged.push(address);
        } else {
            assert!(matches!(change.status.code(), Some(69..=75)), "{change:?}");
        }

        home.ok(&["node", "start", "n1"]);
        assert_eq!(home.send("hello", "/node/n1/service/uppercase", &["--from", "n1"]), "HELLO", "round {round}");
        let services = home.json(&["service", "list", "--at", "n1"]);
        let running: Vec<&str> = services.as_array().unwrap().iter().map(|it| it["addr"].as_str().unwrap()).collect();
        let lost: Vec<_> = acknowledged.iter().filter(|it| !running.contains(&it.as_str())).collect();
        assert!(lost.is_empty(), "round {round}: acknowledged and lost: {lost:?}");
        // Neither more nor less than was stored is in the engine.
        for address in &running {
            assert_eq!(home.send("hello", &format!("/service/{address}"), &["--from", "n1"]).to_lowercase(), "hello");
            if running.len() > 10 && *address != "echo" {
                break;
            }
        }
        let after = home.show("n1");
        assert_eq!(after.address, node.address);
        if victims == [now.control] {
            assert_eq!(after.engine, now.engine, "round {round}: the engine outlives control");
        }
    }
    wait_until(|| home.processes().len() == 2, || format!("{} processes are left", home.processes().len()));
}

#[test]
fn a_create_that_is_cut_off_is_no_obstacle() {
    let home = Home::new();
    for delay_ms in 0..40 {
        let mut create = home.command(&["node", "create", "n1"]);
        let mut create = create.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(std::time::Duration::from_millis(delay_ms));
        create.kill().unwrap();
        // Everything but an engine that may run already; who is killed may have started another one just before.
        loop {
            let mut victims = home.processes();
            victims.retain(|it| !it.command_line().contains("engine-process"));
            if victims.is_empty() {
                break;
            }
            victims.iter().for_each(|victim| victim.kill());
        }
        create.wait_with_output().unwrap();
        if delay_ms % 2 == 0 {
            // An engine that is just being started is met by this, too.
            home.ok(&["node", "delete", "--all", "--yes"]);
            home.wait_for_no_process();
        } else {
            // What still runs can be seen, once it runs.
            wait_until(
                || home.processes().is_empty() || home.status("n1") == "headless",
                || format!("after {delay_ms} ms something runs that cannot be seen"),
            );
        }
        let known = home.json(&["node", "list"]) != json!([]);
        home.ok(&["node", if known { "start" } else { "create" }, "n1"]);
        assert_eq!(home.send("hello", "/node/n1/service/uppercase", &["--from", "n1"]), "HELLO");
        home.ok(&["node", "delete", "n1", "--yes"]);
        assert_eq!(names(&home.path().join("nodes")), Vec::<String>::new());
    }
}

#[test]
fn stopping_lets_what_is_under_way_arrive() {
    let home = Home::new();
    let node = home.node("n1", &[]);
    let mut peer = Peer::connect(node.address);
    let payload = noise(3 << 20, 9);
    // The answer is larger than what the sockets hold, so that it is still being sent when the node is stopped.
    peer.send(&ockam_tests::frame(&["echo"], &["me"], &payload));
    wait_until(|| home.counter("n1", "counters", "frames_served") == 1, || "the message does not arrive".into());
    let stopping = home.command(&["node", "stop", "n1"]).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    assert!(peer.receive().payload == payload);
    assert_eq!(peer.receive_or_end(), None);
    assert!(stopping.wait_with_output().unwrap().status.success());
    assert!(!node.engine.is_alive());
}
