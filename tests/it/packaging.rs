//! Nodes as sidecars: probes, service managers, sandboxes, and what `packaging/` and `docs/sidecar.md` say about them.

use clap::Parser;
use ockam_tests::{Home, PATIENCE, Place, Process, Target, finish, skip, uring_refusal, wait_until, works};
use rustix::process::Signal;
use saphyr::{LoadableYamlNode, Yaml};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

#[track_caller]
fn read(path: &str) -> String {
    let path = workspace().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

// ---- probes

/// What a probe has time for: longer than it needs on a busy machine, since it says at once what is well. Where it finds out
/// that something hangs it needs all of it.
const WITHIN: &str = "10s";

/// What `ockam health` says, whatever it thinks of it.
#[track_caller]
fn health(home: &Home, more: &[&str]) -> (Option<i32>, Value) {
    let output = home.run(&[&["health", "--output", "json", "--timeout", WITHIN], more].concat());
    let health = serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.code, health)
}

#[test]
fn a_probe_tells_what_is_wrong() {
    let home = Home::new();
    home.fails(68, &["health", "n1"]);
    let node = home.node("n1", &[]);
    assert_eq!(home.ok(&["health", "--timeout", WITHIN]), "ready");
    assert_eq!(home.ok(&["health", "n1", "--live", "--timeout", WITHIN]), "ready");
    let (code, ready) = health(&home, &[]);
    assert_eq!((code, &ready["status"], &ready["control"]), (Some(0), &json!("ready"), &json!(true)));
    assert_eq!((&ready["engine"]["answers"], &ready["engine"]["pid"]), (&json!(true), &json!(node.engine.0)));
    for (key, kind) in [("driver", "uring epoll"), ("driver_reason", "")] {
        let said = ready["engine"][key].as_str().unwrap_or_default();
        assert!(!said.is_empty() && (kind.is_empty() || kind.contains(said)), "{ready}");
    }
    assert_eq!(ready["listeners"][0]["address"], node.address.to_string());
    assert!(["inlets", "outlets", "relays", "problems"].iter().all(|key| ready[key] == json!([])), "{ready}");

    // An inlet whose way is not there: a restart would not help, but nobody shall be sent here.
    let nowhere = ockam_tests::ClosedPort::new();
    let to = format!("/ip4/127.0.0.1/tcp/{}/secure/api/service/outlet", nowhere.address().port());
    home.ok(&["tcp-inlet", "create", "--alias", "db", "--to", &to, "--no-connection-wait"]);
    let (code, degraded) = health(&home, &[]);
    assert_eq!((code, &degraded["status"]), (Some(69), &json!("degraded")), "{degraded}");
    assert_eq!(degraded["inlets"][0]["alias"], "db");
    assert!(degraded["problems"][0].as_str().unwrap().contains("the inlet db"), "{degraded}");
    assert!(home.fails(69, &["health", "--timeout", WITHIN]).contains("the inlet db"));
    assert_eq!(health(&home, &["--live"]).0, Some(0));
    assert_eq!(home.ok(&["health", "--live", "--timeout", WITHIN]), "degraded");
    home.ok(&["tcp-inlet", "delete", "db", "--yes"]);
    assert_eq!(home.ok(&["health", "--timeout", WITHIN]), "ready");

    // Neither of the two may hang, and the answer says which it is.
    node.engine.signal(Signal::STOP);
    let (code, silent) = health(&home, &["--live"]);
    assert_eq!((code, &silent["status"]), (Some(69), &json!("silent")), "{silent}");
    assert!(silent["problems"][0].as_str().unwrap().contains("engine"), "{silent}");
    node.engine.signal(Signal::CONT);
    wait_until(|| home.run(&["health"]).code == Some(0), || "the engine does not answer again".into());

    node.control.signal(Signal::STOP);
    // Far more often than its backlog holds callers.
    let began = Instant::now();
    let probes: Vec<Child> = (0..150)
        .map(|_| {
            let mut probe = home.command(&["health", "--live", "--timeout", "100ms"]);
            probe.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut probe in probes {
        assert_eq!(probe.wait().unwrap().code(), Some(69));
    }
    assert!(began.elapsed() < PATIENCE, "probes waited for a control that hangs");
    assert!(home.fails(69, &["health", "--timeout", "100ms"]).contains("100 ms"));
    node.control.kill();
    wait_until(|| home.status("n1") == "headless", || home.status("n1"));
    let (code, headless) = health(&home, &[]);
    assert_eq!((code, &headless["status"], &headless["control"]), (Some(69), &json!("headless"), &json!(false)));
    // A probe starts nothing.
    assert_eq!(home.status("n1"), "headless");
    home.ok(&["node", "stop", "n1"]);
    let (code, stopped) = health(&home, &["n1"]);
    assert_eq!((code, &stopped["status"], stopped.get("engine")), (Some(69), &json!("stopped"), None));
}

// ---- service managers

/// A service manager, as far as a unit's main process sees one.
struct Manager {
    directory: tempfile::TempDir,
    socket: UnixDatagram,
    said: String,
}

impl Manager {
    fn new() -> Manager {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        Manager { directory, socket, said: String::new() }
    }

    /// Starts a unit's main process with sockets of these names.
    fn start(&self, home: &Home, arguments: &str, sockets: &[(&str, OwnedFd)], watchdog: Duration) -> Child {
        self.start_with(home, arguments, sockets, watchdog, &[])
    }

    fn start_with(
        &self,
        home: &Home,
        arguments: &str,
        sockets: &[(&str, OwnedFd)],
        watchdog: Duration,
        environment: &[(&str, &str)],
    ) -> Child {
        assert!(sockets.len() <= 2, "this manager passes them by standard input and output");
        let names: Vec<&str> = sockets.iter().map(|(name, _)| *name).collect();
        let moves = ["3<&0", "4<&1"][..sockets.len()].join(" ");
        let passed = match sockets.len() {
            0 => String::new(),
            count => format!("export LISTEN_PID=$$ LISTEN_FDS={count} LISTEN_FDNAMES={}", names.join(":")),
        };
        // Only the process itself can know its number before it is there.
        let script = format!(
            "exec {moves} 0</dev/null 1>/dev/null
            {passed}
            export WATCHDOG_PID=$$
            exec ockam {arguments}"
        );
        let mut command = home.around("bash", &["-euc", &script]);
        command.env("NOTIFY_SOCKET", self.directory.path().join("notify"));
        command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        command.envs(environment.iter().copied());
        let stdio = |index: usize| match sockets.get(index) {
            Some((_, socket)) => Stdio::from(socket.try_clone().unwrap()),
            None => Stdio::null(),
        };
        command.stdin(stdio(0)).stdout(stdio(1)).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Forgets what was said, and waits until this is said.
    #[track_caller]
    fn hears(&mut self, what: &str) {
        self.said.clear();
        let mut buffer = [0; 4096];
        let end = Instant::now() + PATIENCE;
        while !self.said.contains(what) {
            assert!(Instant::now() < end, "{what:?} is not said: {}", self.said);
            if let Ok(length) = self.socket.recv(&mut buffer) {
                self.said.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
            }
        }
    }
}

/// Waits for the end of a main process and gives its exit code and what it said.
#[track_caller]
fn ended(main: Child) -> (Option<i32>, String) {
    let process = Process(main.id());
    let waiting = thread::spawn(move || main.wait_with_output().unwrap());
    wait_until(|| waiting.is_finished(), || format!("{} lives on", process.command_line()));
    let output = waiting.join().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_service_manager_is_told_and_obeyed() {
    let home = Home::new();
    let mut manager = Manager::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let passed = [("listener", OwnedFd::from(listener))];
    let watchdog = Duration::from_secs(10);
    let line = "node create n1 --foreground";
    let main = manager.start(&home, line, &passed, watchdog);
    manager.hears("READY=1\nSTATUS=ready");
    assert_eq!(home.ok(&["health", "--timeout", WITHIN]), "ready");
    let node = home.show("n1");
    assert_eq!((node.address, node.control), (address, Process(main.id())));
    assert_eq!(home.send("hello", &node.service("uppercase"), &[]), "HELLO");
    // The engine is not the main process, and must not be taken for it.
    if ockam_tests::is_root() {
        let environment = fs::read(format!("/proc/{}/environ", node.engine.0)).unwrap();
        let environment = String::from_utf8_lossy(&environment);
        assert!(environment.contains("OCKAM_HOME="), "{environment}");
        for variable in ["NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_"] {
            assert!(!environment.contains(variable), "{environment}");
        }
    }
    manager.hears("WATCHDOG=1");
    manager.hears("WATCHDOG=1");

    // An engine that hangs is replaced before the watchdog bites.
    node.engine.signal(Signal::STOP);
    manager.hears("STATUS=silent");
    node.engine.wait();
    manager.hears("WATCHDOG=1");
    assert_eq!(home.show("n1").control, node.control);

    // A control that hangs says nothing. That is what the watchdog is for; then it is killed, and started again.
    node.control.signal(Signal::STOP);
    let engine = {
        let mut processes = home.processes();
        processes.retain(|process| *process != node.control);
        assert_eq!(processes.len(), 1, "{processes:?}");
        processes[0]
    };
    node.control.kill();
    assert_eq!(ended(main).0, None);
    assert_eq!(home.status("n1"), "headless");
    let main = manager.start(&home, line, &passed, watchdog);
    manager.hears("READY=1");
    let adopted = home.show("n1");
    assert_eq!((adopted.engine, adopted.address), (engine, address));
    assert_eq!(home.send("again", &adopted.service("uppercase"), &[]), "AGAIN");

    // A stop: the socket is the manager's, and goes on listening.
    adopted.control.signal(Signal::TERM);
    manager.hears("STOPPING=1");
    assert_eq!(ended(main).0, Some(0));
    home.wait_for_no_process();
    let waits = TcpStream::connect(address).expect("the socket of the manager was shut down");
    let main = manager.start(&home, line, &passed, watchdog);
    manager.hears("READY=1");
    assert_eq!(home.send("woken", &adopted.service("uppercase"), &[]), "WOKEN");
    drop(waits);
    home.ok(&["node", "stop", "n1"]);
    assert_eq!(ended(main).0, Some(0));
    assert!(TcpStream::connect(address).is_ok());
}

#[test]
fn inlets_listen_where_the_service_manager_says() {
    let home = Home::new();
    let mut manager = Manager::new();
    let target = Target::echo();
    home.node("n2", &[]);
    home.ok(&["tcp-outlet", "create", "--at", "n2", "--to", &target.place().to_string()]);
    let path = manager.directory.path().join("db.sock");
    let passed = [
        ("db", OwnedFd::from(UnixListener::bind(&path).unwrap())),
        ("listener", OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap())),
    ];
    let file = manager.directory.path().join("n1.yaml");
    let place = Place::Unix(path.clone());
    let to = "/node/n2/secure/api/service/outlet";
    let text = format!("name: n1\ntcp-inlet:\n  db:\n    from: {place}\n    to: {to}\n    connection-wait: 1m\n");
    fs::write(&file, text).unwrap();
    for _ in 0..2 {
        // Whoever is there before the node waits for it.
        let early = place.connect();
        let line = format!("node create {} --foreground", file.display());
        let main = manager.start(&home, &line, &passed, Duration::from_secs(30));
        // When it is ready, all that its file says is there. Whether the other end is, too, shows a moment later.
        manager.hears("READY=1");
        let inlets = home.json(&["tcp-inlet", "list", "--at", "n1"]);
        let found = (&inlets[0]["alias"], &inlets[0]["from"]);
        assert_eq!(found, (&json!("db"), &json!(place.to_string())));
        ockam_tests::echoes(&early, &mut ockam_tests::Sequence::new(1), 100_000).unwrap();
        works(&place);
        wait_until(|| home.run(&["health", "n1"]).code == Some(0), || "the inlet is not up".into());
        Process(main.id()).signal(Signal::TERM);
        assert_eq!(ended(main).0, Some(0));
    }
}

#[test]
fn sockets_that_are_of_no_use_are_refused() {
    let home = Home::new();
    let manager = Manager::new();
    let connected = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        OwnedFd::from(TcpStream::connect(listener.local_addr().unwrap()).unwrap())
    };
    let tcp = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
    let unix = || OwnedFd::from(UnixListener::bind(manager.directory.path().join("unix")).unwrap());
    let datagrams = || OwnedFd::from(UnixDatagram::unbound().unwrap());
    for (sockets, why) in [
        (vec![("listener", connected())], "does not listen"),
        (vec![("listener", datagrams())], "stream socket"),
        (vec![("listener", unix())], "TCP"),
        (vec![("db", tcp()), ("db", tcp())], "two of the name"),
    ] {
        let main = manager.start(&home, "node create n1 --foreground", &sockets, Duration::from_secs(30));
        let (code, said) = ended(main);
        assert_eq!(code, Some(65), "{said}");
        assert!(said.contains("service manager") && said.contains(why), "{said}");
        home.fails(68, &["node", "show", "n1"]);
    }
}

// ---- units

/// A copy of the units, with the command where it is here.
fn units() -> (tempfile::TempDir, Vec<PathBuf>) {
    let directory = tempfile::tempdir().unwrap();
    let command = ockam_tests::binary().display().to_string();
    let mut units = Vec::new();
    for entry in fs::read_dir(workspace().join("packaging/systemd")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "service" || extension == "socket") {
            let copy = directory.path().join(path.file_name().unwrap());
            fs::write(&copy, fs::read_to_string(&path).unwrap().replace("/usr/bin/ockam", &command)).unwrap();
            units.push(copy);
        }
    }
    assert_eq!(units.len(), 3);
    (directory, units)
}

/// What `systemd-analyze security` may say at most, in tenths.
const EXPOSURE_MAX: &str = "13";

#[test]
fn the_units_are_valid_and_locked_down() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return skip("systemd-analyze is missing (package systemd)");
    }
    let (_directory, units) = units();
    let verified = finish(Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&units), b"");
    let complaints: Vec<&str> = verified.stderr.lines().filter(|line| line.contains("ockam")).collect();
    assert_eq!((verified.code, complaints), (Some(0), vec![]));
    let service = units.iter().find(|path| path.extension().is_some_and(|it| it == "service")).unwrap();
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["security", "--offline=true", "--no-pager", "--threshold", EXPOSURE_MAX]).arg(service);
    let scored = finish(&mut analyze, b"");
    assert_eq!(scored.code, Some(0), "{}", scored.stdout);
    assert!(scored.stdout.contains("Overall exposure level"), "{}", scored.stdout);
}

// ---- filters of system calls

/// `packaging/kubernetes/seccomp-io-uring.json` as filters for this machine, with or without the calls of io_uring.
fn filters(with_io_uring: bool) -> Vec<seccompiler::BpfProgram> {
    let profile: Value = serde_json::from_str(&read("packaging/kubernetes/seccomp-io-uring.json")).unwrap();
    assert_eq!((&profile["defaultAction"], &profile["defaultErrnoRet"]), (&json!("SCMP_ACT_ERRNO"), &json!(1)));
    // One filter has one answer for what it names: a list of what is allowed, and one of what there is not.
    let (mut allowed, mut absent) = (Vec::new(), Vec::new());
    for rule in profile["syscalls"].as_array().unwrap() {
        let arguments: Vec<Value> = rule["args"].as_array().into_iter().flatten().map(condition).collect();
        for name in rule["names"].as_array().unwrap() {
            let entry = match arguments.is_empty() {
                true => json!({ "syscall": name }),
                false => json!({ "syscall": name, "args": arguments }),
            };
            match rule["action"].as_str().unwrap() {
                "SCMP_ACT_ALLOW" if with_io_uring || !name.as_str().unwrap().starts_with("io_uring_") => {
                    allowed.push(entry);
                }
                "SCMP_ACT_ALLOW" => {}
                "SCMP_ACT_ERRNO" if rule["errnoRet"] == rustix::io::Errno::NOSYS.raw_os_error() => absent.push(entry),
                other => panic!("an action that this test does not know: {other}"),
            }
        }
    }
    assert!(allowed.len() > 100 && absent.len() == 1, "{} {absent:?}", allowed.len());
    let nosys = rustix::io::Errno::NOSYS.raw_os_error();
    vec![
        compile(json!({ "errno": 1 }), json!("allow"), allowed),
        compile(json!("allow"), json!({ "errno": nosys }), absent),
    ]
}

fn condition(argument: &Value) -> Value {
    let (operator, value) = match argument["op"].as_str().unwrap() {
        "SCMP_CMP_EQ" => (json!("eq"), argument["value"].clone()),
        "SCMP_CMP_MASKED_EQ" => (json!({ "masked_eq": argument["value"] }), argument["valueTwo"].clone()),
        other => panic!("a comparison that this test does not know: {other}"),
    };
    json!({ "index": argument["index"], "type": "qword", "op": operator, "val": value })
}

fn compile(otherwise: Value, named: Value, mut entries: Vec<Value>) -> seccompiler::BpfProgram {
    loop {
        let filter = json!({ "all": { "mismatch_action": otherwise, "match_action": named, "filter": entries } });
        let target = std::env::consts::ARCH.try_into().unwrap();
        match seccompiler::compile_from_json(filter.to_string().as_bytes(), target) {
            Ok(mut programs) => return programs.remove("all").unwrap(),
            // The list is for every processor; runtimes leave out what one does not have, too.
            Err(error) => {
                let text = error.to_string();
                let name =
                    text.split_once("Invalid syscall name: ").and_then(|(_, rest)| rest.split_whitespace().next());
                let name = name.unwrap_or_else(|| panic!("{text}")).to_owned();
                let before = entries.len();
                entries.retain(|entry| entry["syscall"] != name.as_str());
                assert!(entries.len() < before, "{text}");
            }
        }
    }
}

/// Lives a node's life under filters, and gives what it says of its engine.
#[track_caller]
fn confined(filters: Vec<seccompiler::BpfProgram>) -> Value {
    let living = thread::Builder::new().name("confined".into()).spawn(move || {
        // They hold for this thread and all that it starts.
        filters.iter().for_each(|filter| seccompiler::apply_filter(filter).unwrap());
        let home = Home::new();
        let target = Target::echo();
        home.node("n1", &["--threads", "2"]);
        home.node("n2", &[]);
        assert_eq!(home.send("hello", "/node/n1/node/n2/secure/api/service/uppercase", &[]), "HELLO");
        home.ok(&["tcp-outlet", "create", "--at", "n2", "--to", &target.place().to_string()]);
        let inlet = home.ok(&["tcp-inlet", "create", "--at", "n1", "--to", "/node/n2/secure/api/service/outlet"]);
        works(&inlet.parse().unwrap());
        home.ok(&["engine", "restart", "--at", "n1"]);
        wait_until(|| home.run(&["health", "n1"]).code == Some(0), || "the node is not ready again".into());
        works(&inlet.parse().unwrap());
        let engine = home.json(&["engine", "show", "--at", "n1"]);
        home.ok(&["node", "delete", "--all", "--yes"]);
        engine
    });
    living.unwrap().join().expect("the node lives under the filter")
}

#[test]
fn a_filter_without_io_uring_is_said_to_be_the_reason() {
    let engine = confined(filters(false));
    assert_eq!(engine["driver"], "epoll");
    let reason = engine["driver_reason"].as_str().unwrap();
    assert!(reason.contains("io_uring") && reason.contains("Operation not permitted"), "{reason}");
}

#[test]
fn the_fast_profile_has_all_that_io_uring_takes() {
    match uring_refusal() {
        Some(reason) => skip(&reason),
        None => assert_eq!(confined(filters(true))["driver"], "uring"),
    }
}

// ---- what is written about it

fn value(yaml: &Yaml<'_>) -> Value {
    if let Some(sequence) = yaml.as_sequence() {
        return sequence.iter().map(value).collect();
    }
    if let Some(mapping) = yaml.as_mapping() {
        let text = |key: &Yaml<'_>| key.as_str().expect("keys are text").to_owned();
        return mapping.iter().map(|(key, it)| (text(key), value(it))).collect::<serde_json::Map<_, _>>().into();
    }
    match (yaml.as_str(), yaml.as_integer(), yaml.as_bool()) {
        (Some(text), ..) => text.into(),
        (_, Some(number), _) => number.into(),
        (.., Some(flag)) => flag.into(),
        _ => Value::Null,
    }
}

/// The documents of a YAML file.
#[track_caller]
fn yaml(path: &str) -> Vec<Value> {
    let text = read(path);
    let documents = Yaml::load_from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
    documents.iter().map(value).collect()
}

/// Every value under this key, wherever it is.
fn under<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get(key));
            map.values().for_each(|value| under(value, key, found));
        }
        Value::Array(values) => values.iter().for_each(|value| under(value, key, found)),
        _ => {}
    }
}

fn words(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned)).collect()
}

/// Splits a line as a shell does: quotes hold words together.
fn split(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for char in line.chars() {
        match (char, quote) {
            ('\'' | '"', None) => quote = Some(char),
            (_, Some(open)) if char == open => quote = None,
            (' ', None) => words.push(String::new()),
            _ => words.last_mut().expect("there is one").push(char),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The `ockam` commands of a shell line: from that word to what ends a command.
fn of_shell(line: &str) -> Vec<Vec<String>> {
    let mut commands = Vec::new();
    // What a shell would run for another command is looked at by itself.
    for part in line.split(['|', ';', '(', ')', '"', '>']) {
        let words = split(part);
        // The last one: before it stand a user, a container or a package of that name.
        let is_ockam = |word: &String| word == "ockam" || word.ends_with("/bin/ockam");
        let Some(at) = words.iter().rposition(is_ockam) else { continue };
        if words.get(at + 1).is_some_and(|next| next.starts_with(|char: char| char.is_ascii_lowercase())) {
            commands.push(words[at..].to_vec());
        }
    }
    commands
}

/// Every command line of this project's packaging, and where it is.
fn command_lines() -> BTreeMap<&'static str, Vec<Vec<String>>> {
    let mut lines: BTreeMap<&str, Vec<Vec<String>>> = BTreeMap::new();
    let page = read("docs/sidecar.md").replace("\\\n", " ");
    for (index, part) in page.split("```").enumerate() {
        let found = match index % 2 {
            0 => part.split('`').skip(1).step_by(2).flat_map(|code| of_shell(&code.replace('\n', " "))).collect(),
            _ => part.lines().flat_map(of_shell).collect::<Vec<_>>(),
        };
        lines.entry("docs/sidecar.md").or_default().extend(found);
    }
    for path in ["packaging/systemd/ockam@.service"] {
        for line in read(path).lines().filter(|line| line.starts_with("Exec")) {
            let command = line.split_once('=').unwrap().1.replace("%i", "n1");
            lines.entry(path).or_default().extend(of_shell(&command));
        }
    }
    for line in read("packaging/docker/Dockerfile").lines() {
        let Some(at) = line.find('[').filter(|_| line.contains("CMD") || line.starts_with("ENTRYPOINT")) else {
            continue;
        };
        let mut command: Vec<String> = serde_json::from_str(&line[at..]).unwrap();
        match line {
            _ if line.starts_with("ENTRYPOINT") => assert_eq!(command, ["ockam"]),
            _ => {
                if line.starts_with("CMD") {
                    command.insert(0, "ockam".into());
                }
                lines.entry("packaging/docker/Dockerfile").or_default().push(command);
            }
        }
    }
    let path = "packaging/docker/compose.yaml";
    let compose = &yaml(path)[0];
    for service in ["db", "app"] {
        let command = [vec!["ockam".into()], words(&compose["services"][service]["command"])].concat();
        lines.entry(path).or_default().push(command);
    }
    for line in read(path).lines().filter(|line| line.starts_with('#')) {
        lines.entry(path).or_default().extend(of_shell(line));
    }
    for path in ["packaging/kubernetes/restricted/db.yaml", "packaging/kubernetes/restricted/app.yaml"] {
        for document in yaml(path) {
            let mut sidecars = Vec::new();
            under(&document, "initContainers", &mut sidecars);
            for sidecar in sidecars.into_iter().flat_map(|it| it.as_array().unwrap()) {
                lines.entry(path).or_default().push([vec!["ockam".into()], words(&sidecar["args"])].concat());
                let mut probes = Vec::new();
                under(sidecar, "exec", &mut probes);
                assert_eq!(probes.len(), 3, "{path}");
                lines.entry(path).or_default().extend(probes.iter().map(|probe| words(&probe["command"])));
            }
        }
    }
    lines
}

#[test]
fn every_command_that_is_written_down_exists() {
    let lines = command_lines();
    let counts: BTreeMap<_, _> = lines.iter().map(|(path, lines)| (*path, lines.len())).collect();
    for (path, least) in [
        ("docs/sidecar.md", 15),
        ("packaging/systemd/ockam@.service", 2),
        ("packaging/docker/Dockerfile", 2),
        ("packaging/docker/compose.yaml", 3),
        ("packaging/kubernetes/restricted/db.yaml", 4),
        ("packaging/kubernetes/restricted/app.yaml", 4),
    ] {
        assert!(counts.get(path).is_some_and(|count| *count >= least), "{path}: {counts:?}");
    }
    for (path, line) in lines.iter().flat_map(|(path, lines)| lines.iter().map(move |line| (path, line))) {
        // `[NODE]` stands for a name, as in a help page.
        let line = line.iter().filter(|word| !word.starts_with('['));
        if let Err(error) = ockam::cli::Cli::try_parse_from(line.clone()) {
            let is_group = error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
            assert!(is_group, "{path}: {:?}\n{error}", line.collect::<Vec<_>>());
        }
    }
}

#[test]
fn the_manifests_are_restricted_and_say_what_the_page_says() {
    let page = read("docs/sidecar.md");
    for name in ["db", "app"] {
        let node = read(&format!("packaging/nodes/{name}.yaml"));
        assert!(page.contains(&format!("```yaml\n{node}```")), "the page has another {name}.yaml");
        let documents = yaml(&format!("packaging/kubernetes/restricted/{name}.yaml"));
        let config = documents.iter().find(|it| it["kind"] == "ConfigMap").unwrap();
        assert_eq!(config["data"]["node.yaml"], node);
        let pod = documents.iter().find_map(|it| it.pointer("/spec/template/spec")).unwrap();
        let of_pod = &pod["securityContext"];
        assert_eq!(
            (&of_pod["runAsNonRoot"], &of_pod["seccompProfile"]["type"]),
            (&json!(true), &json!("RuntimeDefault"))
        );
        let sidecar = &pod["initContainers"][0];
        assert_eq!((&sidecar["name"], &sidecar["restartPolicy"]), (&json!("ockam"), &json!("Always")));
        for probe in ["startupProbe", "readinessProbe"] {
            assert_eq!(sidecar[probe]["exec"]["command"], json!(["ockam", "health"]));
        }
        assert_eq!(sidecar["livenessProbe"]["exec"]["command"], json!(["ockam", "health", "--live"]));
        let containers = ["initContainers", "containers"].iter().flat_map(|it| pod[it].as_array().unwrap());
        for container in containers {
            let security = &container["securityContext"];
            assert_eq!(
                security,
                &json!({
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": { "drop": ["ALL"] },
                })
            );
        }
    }
    let namespace = &yaml("packaging/kubernetes/restricted/namespace.yaml")[0];
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
    for (kustomization, key) in [("restricted", "resources"), ("fast", "patches")] {
        let directory = format!("packaging/kubernetes/{kustomization}");
        let kustomization = &yaml(&format!("{directory}/kustomization.yaml"))[0];
        for entry in kustomization[key].as_array().unwrap() {
            let file = entry.as_str().or(entry["path"].as_str()).unwrap();
            assert!(!yaml(&format!("{directory}/{file}")).is_empty(), "{file}");
        }
    }
    let patch = &yaml("packaging/kubernetes/fast/sidecar.yaml")[0][0];
    assert_eq!(patch["path"], "/spec/template/spec/initContainers/0/securityContext/seccompProfile");
    assert_eq!(patch["value"]["type"], "Localhost");
}

/// The worked example, on this machine.
#[test]
fn the_nodes_of_the_page_carry_connections() {
    let (far, near) = (Home::new(), Home::new());
    let target = Target::echo();
    let file = |name: &str| workspace().join(format!("packaging/nodes/{name}.yaml")).display().to_string();
    let mut create = far.command(&["node", "create", &file("db")]);
    create.env("LISTEN", "127.0.0.1:0").env("TARGET", target.place().to_string());
    assert_eq!(finish(&mut create, b"").ok(), "db");
    let identifier = far.ok(&["identity", "show", "db"]);
    let address = far.show("db").address;
    let mut manager = Manager::new();
    let start = |manager: &Manager, identifier: &str| {
        let db = format!("/ip4/127.0.0.1/tcp/{}", address.port());
        let variables = [("FROM", "127.0.0.1:0"), ("DB", &*db), ("DB_IDENTIFIER", identifier)];
        let line = format!("node create {} --foreground", file("app"));
        manager.start_with(&near, &line, &[], Duration::from_secs(30), &variables)
    };
    let main = start(&manager, &identifier);
    manager.hears("READY=1\nSTATUS=ready");
    let inlets = near.json(&["tcp-inlet", "list"]);
    assert_eq!((&inlets[0]["alias"], &inlets[0]["identifier"]), (&json!("db"), &json!(identifier)));
    let inlet: Place = inlets[0]["from"].as_str().unwrap().parse().unwrap();
    works(&inlet);
    assert_eq!(near.ok(&["health", "app", "--timeout", WITHIN]), "ready");

    // Control is killed: connections do not notice, and the same line goes on with them.
    let talk = ockam_tests::Talk::start(&inlet, 1);
    let engine = near.show("app").engine;
    Process(main.id()).kill();
    assert_eq!(ended(main).0, None);
    works(&inlet);
    let main = start(&manager, &identifier);
    manager.hears("READY=1\nSTATUS=");
    assert_eq!(near.show("app").engine, engine);
    wait_until(|| near.run(&["health", "app"]).code == Some(0), || "the node is not ready again".into());
    talk.flows();
    works(&inlet);
    assert!(talk.stop() > 0);
    Process(main.id()).signal(Signal::TERM);
    assert_eq!(ended(main).0, Some(0));

    // Somebody else at that address is not the database.
    near.ok(&["node", "delete", "app", "--yes"]);
    let other = near.ok(&["identity", "create", "other"]);
    let main = start(&manager, &other);
    let (code, said) = ended(main);
    assert_eq!(code, Some(77), "{said}");
}

/// No handshake works then, so nobody shall think that the node does.
#[test]
fn a_vault_that_does_not_open_shows_in_the_health() {
    let home = Home::new();
    let passphrase = home.path().parent().unwrap().join("passphrase").display().to_string();
    fs::write(&passphrase, "right\n").unwrap();
    fs::set_permissions(&passphrase, fs::Permissions::from_mode(0o600)).unwrap();
    home.ok(&["vault", "create", "safe", "--passphrase-file", &passphrase]);
    home.ok(&["identity", "create", "keeper", "--vault", "safe"]);
    home.node("n1", &["--identity", "keeper"]);
    assert_eq!(home.ok(&["health", "--timeout", WITHIN]), "ready");
    fs::write(&passphrase, "wrong\n").unwrap();
    home.ok(&["node", "stop", "n1"]);
    home.ok(&["node", "start", "n1"]);
    let said = home.fails(69, &["health", "--timeout", WITHIN]);
    assert!(said.contains("cannot prove who it is") && said.contains("passphrase"), "{said}");
    fs::write(&passphrase, "right\n").unwrap();
    assert_eq!(home.ok(&["health", "--timeout", WITHIN]), "ready");
}
