//! Nodes that are made from a file: what it may say, what is changed by saying it again, and what it says of mistakes.

use ockam_tests::{Home, Output, Process, Target, finish, wait_until, works};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

/// A home and a directory for files.
struct Place {
    home: Home,
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        Place { home: Home::new(), directory: tempfile::tempdir().unwrap() }
    }

    #[track_caller]
    fn write(&self, name: &str, text: &str) -> String {
        let path: PathBuf = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

/// Where the first inlet of a node listens.
#[track_caller]
fn inlet(home: &Home, node: &str) -> ockam_tests::Place {
    let inlets = home.json(&["tcp-inlet", "list", "--at", node]);
    inlets[0]["from"].as_str().unwrap_or_else(|| panic!("no inlet: {inlets}")).parse().unwrap()
}

/// What a node is: everything that `node show` says but for what goes on by itself.
#[track_caller]
fn state(home: &Home, node: &str) -> Value {
    let mut view = home.json(&["node", "show", node]);
    view["uptime_s"] = Value::Null;
    view["engine"]["uptime_s"] = Value::Null;
    for inlet in view["inlets"].as_array_mut().into_iter().flatten() {
        inlet["connections"] = Value::Null;
    }
    view
}

/// Both ends of a portal by way of a relay, from files, and nothing else: `n1` -> `n2` -> `n3`.
#[test]
fn both_ends_of_a_portal_come_from_files() {
    let place = Place::new();
    let home = &place.home;
    let target = Target::echo();
    home.node("n2", &[]);
    let far = place.write(
        "far.yaml",
        &format!(
            "version: 1
variables:
  TARGET: {}
name: n3
identity: keeper
relays:
  far:
    at: /node/n2
tcp-outlets:
  db:
    to: $TARGET
  spare:
    to: 127.0.0.1:${{SPARE_PORT:-9}}
",
            target.place()
        ),
    );
    assert_eq!(home.ok(&["node", "create", &far]), "n3");
    let keeper = home.json(&["identity", "show", "keeper"])["identifier"].as_str().unwrap().to_owned();
    let near = format!(
        "name: n1
tcp-inlet:
  local:
    from: 127.0.0.1:0
    to: /node/n2/service/forward_to_far/secure/api/service/db
    authorized: {keeper}
"
    );
    // Inline, and the same again by a file and by stdin.
    assert_eq!(home.ok(&["node", "create", "--configuration", &near]), "n1");
    works(&inlet(home, "n1"));
    let outlets = home.json(&["tcp-outlet", "list", "--at", "n3"]);
    let named: Vec<_> =
        outlets.as_array().unwrap().iter().map(|it| (it["address"].clone(), it["to"].clone())).collect();
    assert!(named.contains(&("spare".into(), "127.0.0.1:9".into())) && named.len() == 2, "{outlets}");
    let inlets = home.json(&["tcp-inlet", "list", "--at", "n1"]);
    assert_eq!((&inlets[0]["alias"], &inlets[0]["identifier"]), (&"local".into(), &keeper.into()), "{inlets}");

    // Said again, it changes nothing: not a process, not a port, not a connection.
    let talk = ockam_tests::Talk::start(&inlet(home, "n1"), 1);
    let before = ["n1", "n3"].map(|node| state(home, node));
    for _ in 0..2 {
        assert_eq!(home.ok(&["node", "create", &far]), "n3");
        assert_eq!(home.ok(&["node", "create", "--configuration", &near]), "n1");
        assert_eq!(home.ok(&["node", "create", &place.write("near.yaml", &near)]), "n1");
        assert_eq!(finish(&mut home.command(&["node", "create", "-"]), near.as_bytes()).ok(), "n1");
        assert_eq!(["n1", "n3"].map(|node| state(home, node)), before);
        talk.flows();
    }
    assert!(talk.stop() > 0);
    // After a restart it is what it was. The near end is the last, so that it need not find out that the other is gone.
    for (node, file) in [("n3", &far), ("n1", &place.write("near.yaml", &near))] {
        home.ok(&["node", "stop", node]);
        home.ok(&["node", "create", file]);
    }
    wait_until(|| ockam_tests::try_works(&inlet(home, "n1")).is_ok(), || "the portal does not come back".into());
}

#[test]
fn a_variable_has_its_value_from_the_nearest() {
    let place = Place::new();
    let home = &place.home;
    let file = place.write(
        "node.yaml",
        "variables:\n  NAME: from-the-file\n  PORT: 7\nname: $NAME\ntcp-outlet:\n  to: 127.0.0.1:${PORT}\n",
    );
    let with = |environment: Option<&str>, more: &[&str]| {
        let mut command = home.command(&[&["node", "create", &file], more].concat());
        command.env_remove("NAME").env_remove("PORT");
        if let Some(name) = environment {
            command.env("NAME", name);
        }
        finish(&mut command, b"").ok()
    };
    assert_eq!(with(None, &[]), "from-the-file");
    assert_eq!(with(Some("from-outside"), &[]), "from-outside");
    assert_eq!(with(Some("from-outside"), &["--variable", "NAME=typed", "--variable", "PORT=8"]), "typed");
    let to = |node: &str| home.json(&["tcp-outlet", "list", "--at", node])[0]["to"].clone();
    assert_eq!([to("from-the-file"), to("typed")], ["127.0.0.1:7", "127.0.0.1:8"]);
    home.fails(64, &["node", "create", &file, "--variable", "NAME"]);
    home.fails(64, &["node", "create", &file, "--variable", "NAME=a", "--variable", "NAME=b"]);
}

#[test]
fn mistakes_in_a_file_have_a_place() {
    let place = Place::new();
    let home = &place.home;
    for (place_said, text, about) in [
        ("line 2, column 1", "name: n1\nfoo: bar\n", "foo"),
        ("line 4, column 5", "name: n1\ntcp-outlets:\n  db:\n    too: 127.0.0.1:80\n", "too"),
        ("line 3, column 1", "name: n1\n\nname: n2\n", "name"),
        ("line 2, column 12", "name: n1\ntcp-inlet: 7\n", "tcp-inlet"),
        ("line 1, column 1", "", ""),
        ("line 2, column 1", "name: [n1\n", "YAML"),
        ("line 2, column 1", "name: n1\nkafka-inlets:\n  k:\n    from: 127.0.0.1:4000\n", "kafka"),
        ("line 2, column 9", "name: n1\nticket: [00ff]\n", "ticket"),
        ("line 1, column 7", "name: $NOBODY_KNOWS_THIS\n", "NOBODY_KNOWS_THIS"),
        ("line 4, column 9", "name: n1\ntcp-outlets:\n  db:\n    to: nonsense\n", "nonsense"),
    ] {
        let file = place.write("node.yaml", text);
        let said = home.fails(65, &["node", "create", &file]);
        assert!(said.contains(about) && said.contains(place_said), "{text:?}: {said}");
        assert_eq!(home.ok(&["node", "list", "--output", "json", "--compact-output"]), "[]", "{text:?} made a node");
    }
    home.fails(66, &["node", "create", "./missing.yaml"]);
}

/// As the main process of a container or service.
#[test]
fn a_node_of_a_file_in_the_foreground_ends_with_a_signal() {
    let place = Place::new();
    let home = &place.home;
    let target = Target::echo();
    let file = place.write(
        "node.yaml",
        &format!(
            "name: n1\ntcp-outlet:\n  mine:\n    to: {}\ntcp-inlet:\n  local:\n    from: 127.0.0.1:0\n    to: /service/mine\n",
            target.place()
        ),
    );
    let mut first = None;
    for _ in 0..2 {
        let mut command = home.command(&["node", "create", &file, "--foreground"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let listed = || home.run(&["tcp-inlet", "list", "--at", "n1", "--output", "json"]);
        let is_there = |output: &Output| output.code == Some(0) && output.stdout.contains("local");
        wait_until(|| is_there(&listed()), || format!("it does not start: {:?}", listed()));
        let at = inlet(home, "n1");
        works(&at);
        assert_eq!(*first.get_or_insert_with(|| at.clone()), at, "the port stays");
        let control = Process(child.id());
        assert_eq!(home.show("n1").control, control);
        control.signal(Signal::TERM);
        wait_until(|| child.try_wait().unwrap().is_some(), || "it does not end".into());
        assert_eq!(child.wait().unwrap().code(), Some(0));
        assert_eq!(home.status("n1"), "stopped");
    }
}

/// What a file says otherwise than before is refused, unless it is to replace what is there. One that is not named is the
/// one that it was.
#[test]
fn a_changed_file_is_applied_where_it_may_replace() {
    let place = Place::new();
    let home = &place.home;
    let (one, other) = (Target::echo(), Target::echo());
    let write = |target: &Target, wait: &str, allow: &str| {
        place.write(
            "node.yaml",
            &format!(
                "name: n1
tcp-outlet:
  to: {}
policies:
  echo: {{ allow: {allow} }}
tcp-inlet:
  from: 127.0.0.1:0
  alias: local
  to: /service/outlet
  connection-wait: {wait}
",
                target.place()
            ),
        )
    };
    let outlets = || home.json(&["tcp-outlet", "list", "--at", "n1"]);
    let allowed = || {
        let policies = home.json(&["policy", "list", "--at", "n1"]);
        let of = policies.as_array().unwrap().iter().find(|it| it["resource"] == "echo");
        of.unwrap_or_else(|| panic!("no policy: {policies}"))["expression"].clone()
    };
    home.ok(&["node", "create", &write(&one, "5s", "role=a")]);
    works(&inlet(home, "n1"));
    let before = (state(home, "n1"), allowed());
    for (target, wait, allow, about) in
        [(&other, "5s", "role=a", "tcp-outlet"), (&one, "6s", "role=a", "tcp-inlet"), (&one, "5s", "role=b", "policy")]
    {
        let said = home.fails(73, &["node", "create", &write(target, wait, allow)]);
        assert!(said.contains(about) && said.contains("--replace"), "{said}");
        assert_eq!((state(home, "n1"), allowed()), before, "{about}");
    }
    let file = write(&other, "6s", "role=b");
    for _ in 0..2 {
        home.ok(&["node", "create", &file, "--replace"]);
        works(&inlet(home, "n1"));
        let there = outlets();
        assert_eq!((&there[0]["to"], there.as_array().map(Vec::len)), (&other.place().to_string().into(), Some(1)));
        assert_ne!(allowed(), before.1);
    }
    // What the node itself is, as well, though it runs.
    let file =
        place.write("node.yaml", &fs::read_to_string(&file).unwrap().replace("name: n1", "name: n1\nidentity: i"));
    home.fails(73, &["node", "create", &file]);
    home.ok(&["node", "create", &file, "--replace"]);
    works(&inlet(home, "n1"));
    assert_eq!(home.json(&["node", "show", "n1"])["identity_name"], "i");

    // A service whose control died and whose file was changed meanwhile: the engine goes on with what it carries.
    let control = home.show("n1").control;
    let talk = ockam_tests::Talk::start(&inlet(home, "n1"), 1);
    control.signal(Signal::KILL);
    wait_until(|| home.status("n1") == "headless", || "control lives".into());
    let changed = write(&one, "6s", "role=b");
    let refused = home.run(&["node", "create", &changed, "--foreground"]);
    assert_eq!(refused.code, Some(73), "{refused:?}");
    assert_eq!(home.status("n1"), "headless");
    talk.flows();
    talk.stop();
    let mut command = home.command(&["node", "create", &changed, "--foreground", "--replace"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let leads_to_one = || home.run(&["tcp-outlet", "list", "--at", "n1"]).stdout.contains(&one.place().to_string());
    wait_until(leads_to_one, || "nothing was replaced".into());
    Process(child.id()).signal(Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn one_file_makes_several_nodes() {
    let place = Place::new();
    let home = &place.home;
    let target = Target::echo();
    let file = place.write(
        "ockam.yaml",
        &format!(
            "nodes:
  - n1
  - n2
tcp-outlets:
  db:
    to: {}
    at: n2
tcp-inlets:
  local:
    from: 127.0.0.1:0
    to: /node/n2/secure/api/service/db
    at: n1
",
            target.place()
        ),
    );
    for _ in 0..2 {
        home.ok(&["run", &file]);
        works(&inlet(home, "n1"));
        assert_eq!(home.json(&["node", "list"]).as_array().map(Vec::len), Some(2));
        assert_eq!(home.json(&["tcp-outlet", "list", "--at", "n2"]).as_array().map(Vec::len), Some(1));
    }
    // By its usual name, in the directory where one is.
    let mut command = home.command(&["run"]);
    finish(command.current_dir(place.directory.path()), b"").ok();
}
