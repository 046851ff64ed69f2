//! The command line: what it prints where, and what it says to bad input, which changes nothing.

use ockam_tests::{ClosedPort, Home, Node, Output, finish, is_root, skip};
use serde_json::Value;
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

/// One of every command, in an order in which each has something to show. `LISTENER`, `LINK`, `CHANNEL`, `BACKUP` and
/// `FLOW` stand for what earlier ones made.
const COMMANDS: [&str; 71] = [
    "vault create",
    "vault list",
    "vault show default",
    "identity create alice",
    "identity create bob --vault default",
    "identity list",
    "identity show alice --full",
    "identity export",
    "identity rotate bob",
    "identity default alice",
    "credential issue --as alice --for bob -a role=reader --ttl 1h",
    "credential verify --issuer alice --credential CREDENTIAL",
    "inspect bob",
    "vault passphrase default --plain",
    "vault backup --to BACKUP --plain",
    "vault restore BACKUP",
    "identity delete bob --yes",
    "vault create spare",
    "node create n1",
    "node create n2 --driver epoll --threads 1 --pin --allow-transit 10.0.0.0/8=10.1.0.0/16:4000",
    "node list",
    "node show",
    "node show /node/n2",
    "node default",
    "node default n2",
    "node default n1",
    "credential list --at n1",
    "node logs",
    "tcp-listener create 127.0.0.1:0 --at n1",
    "tcp-listener list",
    "tcp-listener show LISTENER",
    "tcp-connection create --from n1 --to PEER",
    "tcp-connection list --at n1",
    "tcp-connection show LINK --at n1",
    "service list",
    "service start hop --at n1",
    "worker list",
    "flow-control add-consumer FLOW hop --at n1",
    "message send hello --to /node/n1/service/uppercase",
    "message send 00ff --hex --from n1 --to /node/n2/service/echo",
    "secure-channel create --from n1 --to /node/n2/service/api",
    "secure-channel list --at n1",
    "secure-channel show CHANNEL --at n1",
    "secure-channel-listener create friends --at n2",
    "secure-channel-listener list --at n2",
    "secure-channel-listener show friends --at n2",
    "message send hello --from n1 --to /node/n2/secure/friends/service/uppercase",
    "tcp-outlet create --at n2 --from web --to localhost:9",
    "tcp-outlet list --at n2",
    "tcp-outlet show web --at n2",
    "relay create far --at n1 --to n2",
    "relay list --to n2",
    "relay show far --to n2",
    "tcp-inlet create --at n1 --alias site --to /node/n2/secure/api/service/web",
    "tcp-inlet create --at n1 --to web --via far",
    "tcp-inlet create --at n1 --to web --via far@n1 --no-connection-wait --connection-wait 0",
    "tcp-inlet list --at n1",
    "tcp-inlet show site --at n1",
    "node create --configuration {\"name\":\"n1\"}",
    "run --inline {\"nodes\":[\"n1\",\"n2\"]}",
    "engine show",
    "engine stats --at n2 --all",
    "environment",
    "tcp-inlet delete --all --at n1 --yes",
    "relay delete far --to n2 --yes",
    "tcp-outlet delete web --at n2 --yes",
    "secure-channel delete CHANNEL --at n1 --yes",
    "secure-channel-listener delete friends --at n2 --yes",
    "tcp-connection delete LINK --at n1 --yes",
    "tcp-listener delete LISTENER --at n1 --yes",
    "engine restart --at n2",
];

fn filled(line: &str, home: &Home) -> Vec<String> {
    let listeners = || home.json(&["tcp-listener", "list", "--at", "n1"]);
    let last = |name: &str| listeners().as_array().unwrap().last().unwrap()[name].as_str().unwrap().to_owned();
    let fill = |word: &str| match word {
        "LISTENER" => last("address"),
        "FLOW" => last("flow_control_id"),
        "LINK" => home.json(&["tcp-connection", "list", "--at", "n1"])[0]["address"].as_str().unwrap().to_owned(),
        "CHANNEL" => home.json(&["secure-channel", "list", "--at", "n1"])[0]["address"].as_str().unwrap().to_owned(),
        "CREDENTIAL" => home.ok(&["credential", "issue", "--as", "alice", "--for", "bob"]),
        "BACKUP" => home.path().parent().unwrap().join("backup").to_str().unwrap().to_owned(),
        "PEER" => home.show("n2").address.to_string(),
        word => word.to_owned(),
    };
    line.split(' ').map(fill).collect()
}

#[test]
fn every_command_has_json() {
    let home = Home::new();
    for line in
        COMMANDS.into_iter().chain(["node stop n2", "node start n2", "node delete n2 --yes", "node delete --all --yes"])
    {
        let line = filled(line, &home);
        let words: Vec<&str> = line.iter().map(String::as_str).collect();
        let value = home.json(&words);
        assert!(value.is_object() || value.is_array(), "{line:?}: {value}");
    }
    // On one line, and the implied format.
    assert_eq!(home.ok(&["node", "list", "--compact-output"]), "[]");
    assert_eq!(home.ok(&["node", "create", "n1", "--compact-output", "--output", "plain"]), "n1");
    let list = home.ok(&["node", "list", "--compact-output"]);
    assert!(!list.contains('\n') && serde_json::from_str::<Value>(&list).is_ok(), "{list}");
}

#[test]
fn the_shape_of_json_is_as_documented() {
    let home = Home::new();
    let identifier = home.ok(&["identity", "create", "alice"]);
    let node = home.node("n1", &["--identity", "alice"]);
    let list = home.json(&["node", "list"]);
    let expected = serde_json::json!([{
        "node_name": "n1", "status": "running", "pid": node.control.0, "is_default": true,
        "identity_name": "alice", "identifier": identifier,
    }]);
    assert_eq!(list, expected);
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let running = home.json(&["node", "show", "n1"]);
    assert_eq!(running["route"]["short"], "/node/n1");
    assert_eq!(
        running["services"],
        serde_json::json!([{"type": "echo", "addr": "echo"}, {"type": "uppercase", "addr": "uppercase"}])
    );
    assert_eq!(running["engine"]["pid"], node.engine.0);
    home.ok(&["node", "stop", "n1"]);
    let stopped = home.json(&["node", "show", "n1"]);
    assert_eq!(keys(&stopped), keys(&running), "a stopped node has the same shape, emptied");
    assert_eq!((&stopped["status"], &stopped["pid"]), (&"stopped".into(), &Value::Null));

    // An error is JSON, too.
    let output = home.run(&["node", "show", "n9", "--output", "json"]);
    let error: Value = serde_json::from_str(&output.stderr).unwrap();
    assert_eq!((output.code, error["error"]["exit"].as_i64(), output.stdout.as_str()), (Some(68), Some(68), ""));
    let output = home.run(&["node", "create", "n/1", "--output", "json"]);
    let error: Value = serde_json::from_str(&output.stderr).unwrap();
    assert_eq!((output.code, error["error"]["exit"].as_i64()), (Some(64), Some(64)));
    assert!(error["error"]["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{error}");
}

#[test]
fn a_pipe_gets_one_bare_value() {
    let home = Home::new();
    for line in COMMANDS {
        let line = filled(line, &home);
        let words: Vec<&str> = line.iter().map(String::as_str).collect();
        let printed = home.ok(&words);
        assert!(!printed.ends_with('\n') && !printed.contains('\x1b'), "{line:?}: {printed:?}");
    }
    let node = home.show("n1");
    let connect = || home.ok(&["tcp-connection", "create", "--from", "n1", "--to", &node.address.to_string()]);
    let (a, b) = (connect(), connect());
    assert!(a != b && a.starts_with("/worker/"), "{a} {b}");
    let log = home.ok(&["node", "logs", "n1"]);
    assert_eq!(Path::new(&log), home.node_dir("n1").join("control.log"));
    assert!(fs::metadata(log).unwrap().len() > 0);
}

/// Runs `ockam` on a terminal and gives what appears there.
fn on_a_terminal(home: &Home, line: &str) -> String {
    // `script` makes the terminal; its own stdin is not one, so nobody can be asked.
    let output = finish(&mut home.around("script", &["-qec", &format!("ockam {line}"), "/dev/null"]), b"");
    assert_eq!(output.code, Some(0), "{line}: {output:?}");
    output.stdout.replace("\r\n", "\n")
}

#[test]
fn a_terminal_gets_text_for_people() {
    let home = Home::new();
    let created = on_a_terminal(&home, "node create n1");
    assert!(created.starts_with("Created n1, the default node.") && created.ends_with('\n'), "{created:?}");
    assert!(created.contains("ockam message send"), "it says what to do next: {created:?}");
    assert_eq!(on_a_terminal(&home, "message send hello --to /node/n1/service/uppercase"), "HELLO\n");
    let list = on_a_terminal(&home, "node list");
    assert!(list.contains("NAME") && list.contains("n1") && list.contains("running"), "{list:?}");
    let shown = on_a_terminal(&home, "node show");
    assert!(shown.starts_with("n1 (default)\n") && shown.contains("driver"), "{shown:?}");
    let engine = on_a_terminal(&home, "engine show");
    assert!(engine.contains("pool") && engine.contains("drops"), "{engine:?}");
    let json = on_a_terminal(&home, "node list --output json");
    assert!(serde_json::from_str::<Value>(&json).is_ok() && json.ends_with("]\n"), "{json:?}");
    for line in
        ["tcp-listener list", "tcp-connection list", "service list", "worker list", "engine stats", "environment"]
            .into_iter()
            .chain(["tcp-outlet list", "tcp-inlet list", "relay list"])
    {
        let text = on_a_terminal(&home, line);
        assert!(text.ends_with('\n') && text.lines().count() >= 1, "{line}: {text:?}");
        assert!(serde_json::from_str::<Value>(&text).is_err(), "{line} shows JSON to people: {text}");
    }
    // What a stranger's service answers does not steer the terminal.
    let answer = on_a_terminal(&home, "message send $'\\x1b[2Jx' --to /node/n1/service/echo");
    assert!(!answer.contains('\x1b') && answer.contains('x'), "{answer:?}");
}

#[test]
fn stdin_is_read_for_routes_only() {
    let home = Home::new();
    home.node("n1", &[]);
    for message in ["a/-b", "-/x", "x/-", "/-/", "-", "--", "-1", "a -/b"] {
        let arguments = ["message", "send", "--to", "/node/n1/service/echo", "--", message];
        // What waits on stdin is not a route and is not read.
        let output = finish(&mut home.command(&arguments), b"nonsense\n");
        assert_eq!(output.ok(), message);
    }
    let send = ["message", "send", "hello", "--to", "-/service/uppercase"];
    assert_eq!(finish(&mut home.command(&send), b"/node/n1\nmore\n").ok(), "HELLO");
    finish(&mut home.command(&send), b"").fails(66);
    finish(&mut home.command(&send), b"\n").fails(66);
    finish(&mut home.command(&send), b"nonsense\n").fails(64);
    finish(&mut home.command(&send), b"\xff\xfe\n").fails(65);
    finish(&mut home.command(&send), &[b'/'; 100_000]).fails(65);
}

/// All that a home remembers and runs: what bad input must leave as it was.
fn state(home: &Home) -> (Value, Vec<Value>, Vec<String>) {
    let list = home.json(&["node", "list"]);
    let names = list.as_array().unwrap().iter().map(|node| node["node_name"].as_str().unwrap());
    let nodes = names.map(|name| {
        let mut node = home.json(&["node", "show", name]);
        for clock in [&["uptime_s"][..], &["engine", "uptime_s"]] {
            let parent = clock[..clock.len() - 1].iter().fold(&mut node, |value, key| &mut value[key]);
            parent[clock[clock.len() - 1]] = Value::Null;
        }
        node
    });
    let nodes = nodes.collect();
    let mut files: Vec<String> = walk(home.path()).into_iter().map(|(path, _)| path).collect();
    // SQLite makes and removes these as it likes.
    files.retain(|path| !path.ends_with("-wal") && !path.ends_with("-shm"));
    (list, nodes, files)
}

/// Every path below a directory with its mode, itself included.
fn walk(directory: &Path) -> Vec<(String, u32)> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        // What SQLite keeps beside its database comes and goes with who has that open.
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        found.push((path.display().to_string(), metadata.permissions().mode() & 0o7777));
        if metadata.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found.sort();
    found
}

#[test]
fn bad_input_names_its_argument_and_changes_nothing() {
    let home = Home::new();
    let node = home.node("n1", &[]);
    home.ok(&["node", "create", "stopped"]);
    home.ok(&["node", "stop", "stopped"]);
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let (busy, own) = (busy.local_addr().unwrap().to_string(), node.address.to_string());
    let nobody = ClosedPort::new();
    let closed = nobody.address().to_string();
    let long = "x".repeat(256);
    let longer = "x".repeat(10_000);
    let deep = format!("{}/service/echo", "/service/hop".repeat(40));
    let flow = "0".repeat(32);

    let mut cases: Vec<(i32, Vec<&str>, &str)> = Vec::new();
    // Names.
    for name in [
        "",
        ".",
        "..",
        "a/b",
        "%2f",
        "n2 ",
        " n2",
        &long,
        &longer,
        "n\n2",
        "\x1b[2J",
        "\u{202e}n2",
        "n\u{430}",
        "\u{1f600}",
        "-rf",
        "a.b",
        "n:2",
        "/node/n2",
    ] {
        let arguments = if name == "-rf" { vec!["node", "create", "--", name] } else { vec!["node", "create", name] };
        cases.push((64, arguments, "NAME"));
    }
    for command in [["node", "show"], ["node", "start"], ["node", "stop"], ["node", "logs"], ["node", "default"]] {
        cases.push((68, [&command[..], &["n9"]].concat(), "n9"));
        cases.push((64, [&command[..], &["a/b"]].concat(), "NODE"));
    }
    cases.push((68, vec!["node", "delete", "n9", "--yes"], "n9"));
    cases.push((64, vec!["node", "delete", "n1", "--all", "--yes"], "--all"));
    cases.push((66, vec!["node", "delete", "n1"], "--yes"));
    cases.push((66, vec!["node", "delete", "--all", "--no-input"], "--yes"));
    cases.push((73, vec!["node", "create", "n1"], "n1"));
    // Addresses to listen at.
    for address in [
        "nowhere",
        "127.0.0.1",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "127.0.0.1:x",
        "300.0.0.1:1",
        "::1:5",
        "[::1]",
        "[::1%lo]:0",
        "a b:1",
        "",
    ] {
        cases.push((64, vec!["node", "create", "n2", "--tcp-listener-address", address], "--tcp-listener-address"));
        cases.push((64, vec!["tcp-listener", "create", address, "--at", "n1"], "HOST:PORT"));
    }
    for address in [&busy, &own] {
        cases.push((73, vec!["node", "create", "n2", "--tcp-listener-address", address], address));
        cases.push((73, vec!["tcp-listener", "create", address, "--at", "n1"], address));
        cases.push((73, vec!["node", "create", "stopped", "--tcp-listener-address", address], address));
    }
    for (code, address, said) in
        [(73, "203.0.113.7:0", "203.0.113.7"), (68, "no-such-host.invalid:0", "no-such-host.invalid")]
    {
        cases.push((code, vec!["node", "create", "n2", "--tcp-listener-address", address], said));
        cases.push((code, vec!["tcp-listener", "create", address, "--at", "n1"], said));
    }
    // Addresses to dial.
    for address in ["127.0.0.1:0", "nowhere", "127.0.0.1:65536", ""] {
        cases.push((64, vec!["tcp-connection", "create", "--from", "n1", "--to", address], "--to"));
    }
    cases.push((69, vec!["tcp-connection", "create", "--from", "n1", "--to", &closed], &closed));
    cases.push((
        68,
        vec!["tcp-connection", "create", "--from", "n1", "--to", "no-such-host.invalid:1"],
        "no-such-host.invalid",
    ));
    // Other options of a node.
    for (option, value) in [
        ("--driver", "kqueue"),
        ("--threads", "0"),
        ("--threads", "65"),
        ("--threads", "two"),
        ("--log-format", "xml"),
        ("--allow-transit", "10.0.0.0/8"),
        ("--allow-transit", "10.0.0.0/33=10.0.0.0/8"),
        ("--allow-transit", "10.0.0.0/8=0.0.0.0/0:70000"),
        ("--allow-transit", "here=there"),
    ] {
        cases.push((64, vec!["node", "create", "n2", option, value], option));
    }
    cases.push((64, vec!["node", "create", "n2", "--exit-on-eof"], "--foreground"));
    // Routes.
    for route in [
        "",
        "/",
        "hello",
        "n1",
        "/node",
        "/nod/n1",
        "/node//service/echo",
        "/service/",
        "/ip4/300.0.0.1/tcp/1/service/echo",
        "/ip4/127.0.0.1/tcp/65536/service/echo",
        "/ip4/127.0.0.1/tcp/0/service/echo",
        "/ip4/127.0.0.1/udp/1/service/echo",
        "/ip4/0.0.0.0/tcp/1/service/echo",
        "/ip6/::/tcp/1/service/echo",
        "/ip4/127.0.0.1/service/echo",
        "/tcp/1/service/echo",
        "/node/n1",
        "/node/a b/service/echo",
        "/node/../service/echo",
        "/project/default/service/echo",
        "/node/n1/secure/api",
        "/secure/api/node/n1",
        "-/-",
        &deep,
        &longer,
    ] {
        cases.push((64, vec!["message", "send", "hello", "--to", route], "--to"));
        cases.push((64, vec!["message", "send", "hello", "--from", "n1", "--to", route], "--to"));
    }
    cases.push((64, vec!["message", "send", "hello"], "--to"));
    cases.push((64, vec!["message", "send", "--to", "/service/echo"], "MESSAGE"));
    cases.push((64, vec!["message", "send", "xyz", "--hex", "--to", "/node/n1/service/echo"], "MESSAGE"));
    cases.push((64, vec!["message", "send", "abc", "--hex", "--to", "/node/n1/service/echo"], "MESSAGE"));
    for timeout in ["soon", "0", "0s", "2d", "99999999999999999999"] {
        let send = ["message", "send", "hello", "--to", "/node/n1/service/echo", "--timeout", timeout];
        cases.push((64, send.to_vec(), "--timeout"));
    }
    for to in ["/node/n1", "/node/n1/secure/api", "api", "-/-"] {
        cases.push((64, vec!["secure-channel", "create", "--from", "n1", "--to", to], "--to"));
    }
    let create = ["secure-channel", "create", "--from", "n1", "--to", "/node/n1/service/api"];
    cases.push((64, [&create[..], &["--authorized", "alice"]].concat(), "--authorized"));
    cases.push((64, [&create[..], &["--timeout", "0"]].concat(), "--timeout"));
    cases.push((68, [&create[..], &["--identity", "nobody"]].concat(), "nobody"));
    let nowhere = ["secure-channel", "create", "--from", "n1", "--to", "/node/n1/service/nowhere"];
    cases.push((68, nowhere.to_vec(), "/service/nowhere"));
    cases.push((64, vec!["secure-channel", "show", "api", "--at", "n1"], "CHANNEL"));
    cases.push((68, vec!["secure-channel", "show", &flow, "--at", "n1"], &flow));
    cases.push((68, vec!["secure-channel", "delete", &flow, "--at", "n1", "--yes"], &flow));
    cases.push((64, vec!["secure-channel-listener", "create", "a/b", "--at", "n1"], "ADDRESS"));
    cases.push((64, vec!["secure-channel-listener", "create", "a", "-a", "I00", "--at", "n1"], "--authorized"));
    cases.push((68, vec!["secure-channel-listener", "create", "a", "--identity", "nobody", "--at", "n1"], "nobody"));
    for taken in ["api", "echo"] {
        cases.push((73, vec!["secure-channel-listener", "create", taken, "--at", "n1"], taken));
    }
    cases.push((68, vec!["secure-channel-listener", "show", "friends", "--at", "n1"], "friends"));
    cases.push((68, vec!["secure-channel-listener", "delete", "friends", "--at", "n1", "--yes"], "friends"));
    // Files: what is wrong shows before anything is made, and what was made before it failed is taken away again.
    let busy_inlet = |name: &str| {
        format!("name: {name}\ntcp-outlet: {{ a: {{ to: 80 }} }}\ntcp-inlet: {{ b: {{ from: '{busy}', to: a }} }}\n")
    };
    let files = ["n1", "n2", "stopped"].map(busy_inlet);
    for file in &files {
        cases.push((73, vec!["node", "create", "--configuration", file], &busy));
    }
    let recipe = format!("nodes: [n2, n3, n1]\ntcp-inlet: {{ b: {{ from: '{busy}', to: a, at: n3 }} }}\n");
    cases.push((73, vec!["run", "--inline", &recipe], &busy));
    cases.push((65, vec!["node", "create", "--configuration", "name: n2\nnam: x"], "line 2, column 1"));
    cases.push((65, vec!["node", "create", "--configuration", "name: n2\nlaunch-config: x"], "launch"));
    cases.push((65, vec!["node", "create", "n2", "--configuration", "node.yaml"], "line 1, column 1"));
    cases.push((65, vec!["run", "--inline", "node: n/2"], "line 1, column 7"));
    let elsewhere = "name: n1\ntcp-listener-address: 127.0.0.1:1";
    cases.push((73, vec!["node", "create", "--configuration", elsewhere], &own));
    cases.push((64, vec!["node", "create", "--configuration", "name: n2", "missing.yaml"], "--configuration"));
    cases.push((66, vec!["node", "create", "missing.yaml"], "missing.yaml"));
    cases.push((66, vec!["run", "missing"], "missing"));
    cases.push((66, vec!["run"], "ockam.yml"));
    cases.push((64, vec!["node", "create", "https://example.org/node.yaml"], "NAME"));
    cases.push((64, vec!["node", "create", "n2", "--variable", "A=b"], "--variable"));
    cases.push((64, vec!["node", "create", "-", "--variable", "A"], "--variable"));
    cases.push((65, vec!["node", "create", "-", "--foreground"], "line 1, column 1"));
    // A local route has nowhere to start without a node.
    cases.push((64, vec!["message", "send", "hello", "--to", "/service/echo"], "--from"));
    // The rest.
    cases.push((64, vec!["service", "start", "shell", "--at", "n1"], "SERVICE"));
    cases.push((73, vec!["service", "start", "hop", "--addr", "echo", "--at", "n1"], "echo"));
    cases.push((73, vec!["service", "start", "echo", "--at", "n1"], "echo"));
    for address in ["", "a/b", "a b", "a\nb", "a#b", &long] {
        cases.push((64, vec!["service", "start", "hop", "--addr", address, "--at", "n1"], "--addr"));
    }
    cases.push((64, vec!["flow-control", "add-consumer", "12", "echo", "--at", "n1"], "FLOW_CONTROL_ID"));
    cases.push((68, vec!["flow-control", "add-consumer", &flow, "echo", "--at", "n1"], &flow));
    cases.push((68, vec!["tcp-listener", "show", "127.0.0.1:1", "--at", "n1"], "127.0.0.1:1"));
    cases.push((68, vec!["tcp-listener", "delete", "127.0.0.1:1", "--at", "n1", "--yes"], "127.0.0.1:1"));
    cases.push((66, vec!["tcp-listener", "delete", &own, "--at", "n1"], "--yes"));
    cases.push((68, vec!["tcp-connection", "show", "127.0.0.1:1", "--at", "n1"], "127.0.0.1:1"));
    cases.push((68, vec!["tcp-connection", "delete", "127.0.0.1:1", "--at", "n1", "--yes"], "127.0.0.1:1"));
    for command in
        [["service", "list"], ["worker", "list"], ["tcp-listener", "list"], ["engine", "show"], ["engine", "restart"]]
    {
        cases.push((69, [&command[..], &["--at", "stopped"]].concat(), "ockam node start stopped"));
        cases.push((68, [&command[..], &["--at", "n9"]].concat(), "n9"));
    }
    for arguments in [vec!["nod", "list"], vec!["node", "lst"], vec!["node", "list", "--verbos"], vec!["node"], vec![]]
    {
        cases.push((64, arguments, ""));
    }
    cases.push((64, vec!["node", "list", "--output", "yaml"], "--output"));
    cases.push((64, vec!["completion", "--shell", "cmd"], "--shell"));
    cases.push((64, vec!["completion"], "--shell"));

    let before = state(&home);
    for (code, arguments, said) in &cases {
        let output = home.run(arguments);
        let shown = &output.stderr;
        assert_eq!(output.code, Some(*code), "{arguments:?}: {shown}");
        assert_eq!(output.stdout, "", "{arguments:?}");
        assert!(shown.contains(said), "{arguments:?} does not say {said:?}: {shown}");
        assert!(!shown.contains('\x1b') && !shown.contains("panicked"), "{arguments:?}: {shown:?}");
        let typed: usize = arguments.iter().map(|argument| argument.len()).sum();
        assert!(shown.len() < 4096 + 2 * typed, "{arguments:?} says {} bytes", shown.len());
    }
    let odd = std::ffi::OsStr::from_bytes(b"n\xff");
    let output = finish(home.command(&["node", "create"]).arg(odd), b"");
    assert_eq!(output.code, Some(64), "{output:?}");
    assert_eq!(state(&home), before);
    assert_eq!(home.processes().len(), 2, "only the processes of n1 live");
}

#[test]
fn a_free_port_is_taken_once() {
    let home = Home::new();
    let create = ["node", "create", "n1", "--tcp-listener-address", "127.0.0.1:0"];
    home.ok(&create);
    let first = home.show("n1").address;
    home.ok(&["node", "stop", "n1"]);
    home.ok(&create);
    assert_eq!(home.show("n1").address, first);
    // Another place to listen is another listener.
    home.ok(&["node", "stop", "n1"]);
    home.ok(&["node", "create", "n1", "--tcp-listener-address", "127.0.0.2:0"]);
    assert_eq!(home.show("n1").address.ip().to_string(), "127.0.0.2");
}

#[test]
fn help_and_version_are_no_errors() {
    let home = Home::new();
    assert!(home.ok(&["--version"]).starts_with("ockam "));
    for arguments in [&["--help"][..], &["node", "--help"], &["node", "create", "-h"], &["help", "message"]] {
        let help = home.ok(arguments);
        assert!(help.contains("Usage:"), "{help}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = home.ok(&["completion", "--shell", shell]);
        assert!(["tcp-connection", "tcp-inlet", "tcp-outlet", "relay"].iter().all(|it| script.contains(it)), "{shell}");
    }
    let typo = home.run(&["nod", "list"]);
    assert!(typo.stderr.contains("'node'"), "{}", typo.stderr);
    assert!(!home.path().exists(), "asking for help makes nothing");
}

#[test]
fn a_home_may_be_anywhere_and_may_be_nowhere() {
    // Longer than the path of a Unix socket may be.
    let home = Home::named(&format!("{}/{}", "long".repeat(30), "x".repeat(100)));
    home.node("n1", &[]);
    home.node("n2", &[]);
    assert_eq!(home.send("hello", "/node/n2/service/uppercase", &["--from", "n1"]), "HELLO");
    home.show("n1").control.kill();
    home.ok(&["service", "start", "hop", "--at", "n1"]);
    home.ok(&["node", "stop", "n2"]);

    // Relative, and by a link of the user's own.
    let other = Home::new();
    fs::create_dir(other.path().with_extension("real")).unwrap();
    fs::set_permissions(other.path().with_extension("real"), Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::symlink(other.path().with_extension("real"), other.path()).unwrap();
    other.node("n1", &[]);
    let mut relative = other.command(&["node", "list", "--output", "json"]);
    relative.env("OCKAM_HOME", "home").current_dir(other.path().parent().unwrap());
    assert!(finish(&mut relative, b"").ok().contains("\"running\""));

    // Without OCKAM_HOME it is .ockam of HOME; without HOME it is nowhere.
    let mut nowhere = other.command(&["node", "list"]);
    let said = finish(nowhere.env_remove("OCKAM_HOME").env_remove("HOME"), b"").fails(78);
    assert!(said.contains("OCKAM_HOME"), "{said}");
    let mut by_default = other.command(&["node", "list"]);
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(finish(by_default.env_remove("OCKAM_HOME").env("HOME", empty.path()), b"").ok(), "[]");
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0, "looking makes nothing");
}

#[test]
fn a_home_that_others_can_change_is_refused() {
    let home = Home::new();
    fs::create_dir(home.path()).unwrap();
    for mode in [0o777, 0o770, 0o702] {
        fs::set_permissions(home.path(), Permissions::from_mode(mode)).unwrap();
        let said = home.fails(77, &["node", "create", "n1"]);
        assert!(said.contains("chmod") && said.contains(home.path().to_str().unwrap()), "{said}");
    }
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    fs::remove_dir(home.path()).unwrap();
    fs::write(home.path(), "").unwrap();
    home.fails(78, &["node", "create", "n1"]);
    fs::remove_file(home.path()).unwrap();
    home.node("n1", &[]);
}

#[test]
fn a_home_of_somebody_else_is_refused() {
    if !is_root() {
        return skip("to be another user needs root");
    }
    let home = Home::new();
    fs::create_dir(home.path()).unwrap();
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups", "ockam", "node", "create", "n1"];
    // The way to it is open, its entry is not.
    fs::set_permissions(home.path().parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(home.path(), Permissions::from_mode(0o755)).unwrap();
    let said = finish(&mut home.around("setpriv", &user), b"").fails(77);
    assert!(said.contains(home.path().to_str().unwrap()), "{said}");
    fs::set_permissions(home.path(), Permissions::from_mode(0o700)).unwrap();
    finish(&mut home.around("setpriv", &user), b"").fails(77);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);

    // Root does not use what belongs to another user, who could change it meanwhile.
    std::os::unix::fs::chown(home.path(), Some(65534), Some(65534)).unwrap();
    let said = home.fails(77, &["node", "create", "n1"]);
    assert!(said.contains("65534"), "{said}");
}

/// Runs a script in which `$OCKAM_HOME` is a file system of its own.
fn on_a_file_system(home: &Home, options: &str, script: &str) -> Output {
    fs::create_dir(home.path()).unwrap();
    let script = format!("mount -t tmpfs -o mode=0700,{options} none \"$OCKAM_HOME\"\n{script}");
    finish(&mut home.around("unshare", &["--mount", "bash", "-euo", "pipefail", "-c", &script]), b"")
}

#[test]
fn a_home_that_cannot_be_written_is_named() {
    if !is_root() {
        return skip("to mount needs root");
    }
    let home = Home::new();
    let script = "ockam node create n1 && exit 1 || echo -n $?; ls \"$OCKAM_HOME\" | wc -l";
    let output = on_a_file_system(&home, "size=1m,ro", script);
    assert_eq!(output.stdout, "740\n", "{output:?}");
    assert!(output.stderr.contains("read-only") && output.stderr.contains("OCKAM_HOME"), "{output:?}");
    assert!(home.processes().is_empty());
}

#[test]
fn a_full_disk_leaves_nothing_half_made() {
    if !is_root() {
        return skip("to mount needs root");
    }
    let home = Home::new();
    // From no room at all to enough, in steps of a page: every write on the way is the one that fails.
    let script = r#"
        # The file of errors lies on another disk.
        error=$(dirname "$OCKAM_HOME")/error
        cd "$OCKAM_HOME"
        made=0
        for free in $(seq 0 4 1000); do
            head -c $((1048576 - free * 1024)) /dev/zero > fill 2> /dev/null || true
            if ockam node create n1 > /dev/null 2> "$error"; then
                made=1
                rm fill
                ockam message send hello --to /node/n1/service/uppercase
                ockam node delete n1 --yes > /dev/null
                break
            else
                code=$?
                grep -qi "no space\|full" "$error" || { echo "free $free KiB:"; cat "$error"; exit 1; }
                test $code = 74 || { echo "free $free KiB: exit $code"; cat "$error"; exit 1; }
                rm fill
                list=$(ockam node list --compact-output)
                test "$list" = "[]" || { echo "free $free KiB: left $list"; exit 1; }
                left=$(ls -A nodes 2> /dev/null || true)$(ls -A | grep -v '^nodes$\|^ockam.db' || true)
                test -z "$left" || { echo "free $free KiB: left $left"; exit 1; }
            fi
        done
        test $made = 1
    "#;
    let output = on_a_file_system(&home, "size=1m", script);
    assert_eq!(output.ok(), "HELLO");
    home.wait_for_no_process();
}

#[test]
fn a_disk_that_fills_up_stops_changes_and_no_traffic() {
    if !is_root() {
        return skip("to mount needs root");
    }
    let home = Home::new();
    let script = r#"
        ockam node create n1 > /dev/null
        cd "$OCKAM_HOME"
        head -c 20000000 /dev/zero > fill 2> /dev/null || true
        failed=0
        for number in $(seq 100); do
            ockam service start echo --addr "e$number" --at n1 > /dev/null 2> /dev/null || { failed=$?; break; }
        done
        echo "exit $failed"
        ockam message send hello --to /node/n1/service/uppercase; echo
        ockam message send hello --from n1 --to /service/uppercase; echo
        rm fill
        before=$(ockam service list --at n1 --compact-output)
        ockam service start echo --addr again --at n1 > /dev/null
        ockam node stop n1 > /dev/null
        ockam node start n1 > /dev/null
        after=$(ockam service list --at n1 --compact-output)
        # All that was acknowledged, and nothing that was refused.
        jq --null-input --argjson before "$before" --argjson after "$after" '
            ($after - $before | map(.addr)) == ["again"] and ($before - $after) == []'
        ockam node delete n1 --yes > /dev/null
    "#;
    let output = on_a_file_system(&home, "size=2m", script);
    assert_eq!(output.ok(), "exit 74\nHELLO\nHELLO\ntrue\n");
}

#[test]
fn databases_of_others_are_left_alone() {
    // One of the program that we can stand beside, under its name: never looked at.
    let home = Home::new();
    fs::create_dir(home.path()).unwrap();
    fs::set_permissions(home.path(), Permissions::from_mode(0o700)).unwrap();
    let theirs = home.path().join("database.sqlite3");
    fs::write(&theirs, b"somebody else's").unwrap();
    home.node("n1", &[]);
    home.ok(&["node", "delete", "n1", "--yes"]);
    assert_eq!(fs::read(&theirs).unwrap(), b"somebody else's");

    // One under our name that is not ours, newer than we are, or damaged: named and not touched.
    let ours = home.path().join("ockam.db");
    let good = fs::read(&ours).unwrap();
    let changed = |at: usize, bytes: &[u8]| {
        let mut database = good.clone();
        database[at..at + bytes.len()].copy_from_slice(bytes);
        database
    };
    // Of the header of SQLite: 60 user version, 68 application id.
    for (code, bytes) in [
        (78, changed(68, b"elsa")),
        (78, changed(60, &[0x7f, 0, 0, 0])),
        (
            74,
            b"this is not a database, whatever its name says; it only is as long as a header of one. ............"
                .to_vec(),
        ),
    ] {
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{suffix}", ours.display()));
        }
        fs::write(&ours, &bytes).unwrap();
        for arguments in [&["node", "create", "n2"][..], &["node", "list"], &["node", "delete", "--all", "--yes"]] {
            let said = home.fails(code, arguments);
            assert!(said.contains("ockam.db"), "{said}");
            assert!(fs::read(&ours).unwrap() == bytes, "{arguments:?} changed it");
        }
        assert!(home.processes().is_empty());
    }
}

#[test]
fn nobody_reading_is_no_error() {
    let home = Home::new();
    home.node("n1", &[]);
    let mut child = home.command(&["engine", "stats", "--watch", "--at", "n1"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = home.command(&["node", "list"]).stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(74), "{output:?}");
}

#[test]
fn many_at_once_agree() {
    let home = Home::new();
    let create = |name: &str| {
        home.command(&["node", "create", name])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    // Of one name: one makes it, the others are told.
    let at_once: Vec<_> = (0..6).map(|_| create("n1")).collect();
    let codes: Vec<_> = at_once.into_iter().map(|mut child| child.wait().unwrap().code()).collect();
    assert_eq!(codes.iter().filter(|code| **code == Some(0)).count(), 1, "{codes:?}");
    assert!(codes.iter().all(|code| matches!(code, Some(0 | 73 | 75))), "{codes:?}");
    // Of different names: all are made, one is the default.
    let at_once: Vec<_> = (2..9).map(|number| create(&format!("n{number}"))).collect();
    for mut child in at_once {
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
    let list = home.json(&["node", "list"]);
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), 8);
    assert!(list.iter().all(|node| node["status"] == "running"), "{list:?}");
    assert_eq!(list.iter().filter(|node| node["is_default"] == true).count(), 1);
    let nodes: Vec<Node> = (1..9).map(|number| home.show(&format!("n{number}"))).collect();
    let ports: std::collections::BTreeSet<u16> = nodes.iter().map(|node| node.address.port()).collect();
    assert_eq!((ports.len(), home.processes().len()), (8, 16));
    assert_eq!(home.send("hello", "/node/n1/node/n8/service/uppercase", &["--from", "n4"]), "HELLO");
}

#[test]
fn modes_hold_under_any_umask() {
    for umask in ["000", "077", "777"] {
        let home = Home::new();
        home.bash(&format!("umask {umask}; ockam node create n1 && ockam tcp-listener create 127.0.0.1:0 > /dev/null"))
            .ok();
        let found = walk(home.path());
        assert!(found.len() > 8, "{found:?}");
        for (path, mode) in found {
            let expected = if Path::new(&path).is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode, expected, "umask {umask}: {path} has mode {mode:o}");
        }
        assert_eq!(home.send("hello", "/node/n1/service/uppercase", &["--from", "n1"]), "HELLO");
    }
}
