//! Homes, and the command run in them.

use crate::{PATIENCE, Place, Port, Process, binary, wait_until};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, mpsc};
use std::{fs, thread};

/// What a finished command left.
#[derive(Debug, Clone)]
pub struct Output {
    /// What was run, for messages.
    pub command: String,
    /// Its exit code; absent when a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
}

impl Output {
    /// Checks that it succeeded, and gives what it printed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}\n{}{}", self.command, self.stdout, self.stderr);
        self.stdout
    }

    /// Checks that it failed with this exit code, that stdout is empty, and that it said what is wrong and what to do
    /// next, without a trace of its inside. Gives what it said.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        let Output { command, stdout, stderr, .. } = &self;
        assert_eq!(self.code, Some(code), "{command}\n{stdout}{stderr}");
        assert_eq!(stdout, "", "{command} failed and printed something");
        assert!(stderr.starts_with("error: "), "{command}\n{stderr}");
        let lines = stderr.lines().filter(|line| !line.trim().is_empty()).count();
        assert!(lines >= 2, "{command} does not say what to do next:\n{stderr}");
        for inside in ["panicked", "RUST_BACKTRACE", "Os {", "Error {", "unwrap", "os error"] {
            assert!(!stderr.contains(inside), "{command} shows its inside:\n{stderr}");
        }
        self.stderr
    }
}

/// Runs a command to its end and feeds it `stdin`.
///
/// # Panics
/// It does not end, or something that it left behind holds its output.
#[track_caller]
pub fn finish(command: &mut Command, stdin: &[u8]) -> Output {
    let shown = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
    let process = Process(child.id());
    // A command that does not read its stdin may have closed it already.
    let _ = child.stdin.take().expect("stdin is a pipe").write_all(stdin);
    let (done, finished) = mpsc::channel();
    thread::spawn(move || done.send(child.wait_with_output()));
    let Ok(output) = finished.recv_timeout(PATIENCE) else {
        process.signal(rustix::process::Signal::KILL);
        panic!("{shown} does not end, or something that it left behind holds its output");
    };
    let output = output.unwrap_or_else(|error| panic!("{shown}: {error}"));
    let stdout = String::from_utf8(output.stdout).unwrap_or_else(|_| panic!("{shown} printed what is not UTF-8"));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Output { command: shown, code: output.status.code(), stdout, stderr }
}

/// An `OCKAM_HOME` of its own. At its end its nodes are deleted, also when the test panics, and nothing of them may live.
pub struct Home {
    path: PathBuf,
    _directory: tempfile::TempDir,
    /// Those of its nodes and inlets, which may be away from them for a while.
    ports: Mutex<Vec<Port>>,
}

impl Default for Home {
    fn default() -> Home {
        Home::new()
    }
}

impl Home {
    /// A home that does not exist yet.
    pub fn new() -> Home {
        Home::named("home")
    }

    /// A home that does not exist yet, with this path below a temporary directory.
    pub fn named(path: &str) -> Home {
        let directory = tempfile::Builder::new().prefix("ockam-").tempdir().expect("a temporary directory can be made");
        Home { path: directory.path().join(path), _directory: directory, ports: Mutex::default() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of a node.
    pub fn node_dir(&self, name: &str) -> PathBuf {
        self.path.join("nodes").join(name)
    }

    /// `ockam` with these arguments, in this home and without what the environment of the test would change.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments);
        self.set_environment(&mut command);
        command
    }

    /// A program that will run `ockam`, found by that name, in this home.
    pub fn around(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments);
        self.set_environment(&mut command);
        command
    }

    fn set_environment(&self, command: &mut Command) {
        for name in ["QUIET", "NO_COLOR", "NO_INPUT", "RUST_LOG", "OCKAM_SKIPS_FILE"] {
            command.env_remove(name);
        }
        let directory = binary().parent().expect("the command lies in a directory");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let paths = std::iter::once(directory.to_owned()).chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(paths).expect("no directory has a colon in its name"));
        command.env("OCKAM_HOME", &self.path);
    }

    /// Runs `ockam` to its end.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Output {
        finish(&mut self.command(arguments), b"")
    }

    /// Runs `ockam`, which must succeed, and gives what it printed.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        self.run(arguments).ok()
    }

    /// Runs `ockam`, which must fail with this exit code, and gives what it said.
    #[track_caller]
    pub fn fails(&self, code: i32, arguments: &[&str]) -> String {
        self.run(arguments).fails(code)
    }

    /// Runs `ockam ARGUMENTS --output json`, which must succeed, and reads what it printed.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let printed = self.ok(&[arguments, &["--output", "json"]].concat());
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {printed:?}"))
    }

    /// Runs a script of bash with `set -euo pipefail`, in which `ockam` is the command under test.
    #[track_caller]
    pub fn bash(&self, script: &str) -> Output {
        finish(&mut self.around("bash", &["-euo", "pipefail", "-c", script]), b"")
    }

    /// A place of 127.0.0.1 at which nobody else listens as long as this home is there.
    #[track_caller]
    pub fn free(&self) -> SocketAddr {
        let port = Port::take();
        let address = port.address();
        self.ports.lock().expect("nobody panics with it").push(port);
        address
    }

    /// Creates a node that listens on a port of its own, also after a stop, unless `more` says otherwise; one that there
    /// is already keeps where it listens.
    #[track_caller]
    pub fn node(&self, name: &str, more: &[&str]) -> Node {
        let mut arguments = [&["node", "create", name], more].concat();
        let address = self.free().to_string();
        if !more.contains(&"--tcp-listener-address") && !self.node_dir(name).exists() {
            arguments.extend(["--tcp-listener-address", &address]);
        }
        Node::of(&self.json(&arguments))
    }

    /// The node as `node show` has it now.
    #[track_caller]
    pub fn show(&self, name: &str) -> Node {
        Node::of(&self.json(&["node", "show", name]))
    }

    /// `running`, `headless` or `stopped`, as `node list` says.
    #[track_caller]
    pub fn status(&self, name: &str) -> String {
        let list = self.json(&["node", "list"]);
        let node = list.as_array().expect("an array").iter().find(|node| node["node_name"] == name);
        node.unwrap_or_else(|| panic!("no {name} in {list}"))["status"].as_str().expect("a status").to_owned()
    }

    /// The reply to a message, which must come.
    #[track_caller]
    pub fn send(&self, message: &str, to: &str, more: &[&str]) -> String {
        self.ok(&[&["message", "send", message, "--to", to], more].concat())
    }

    /// Creates an outlet for who serves there, and gives its address: `/service/` and its name.
    #[track_caller]
    pub fn outlet(&self, at: &str, to: &Place, more: &[&str]) -> String {
        let address = self.ok(&[&["tcp-outlet", "create", "--at", at, "--to", &to.to_string()], more].concat());
        assert!(address.starts_with("/service/"), "{address:?} is no address of an outlet");
        address
    }

    /// Creates an inlet, which must be up then, and gives the place at which applications find it: a port of its own, also
    /// after a stop of its node, unless `more` says otherwise.
    #[track_caller]
    pub fn inlet(&self, at: &str, to: &str, more: &[&str]) -> Place {
        let mut arguments = [&["tcp-inlet", "create", "--at", at, "--to", to], more].concat();
        let from = self.free().to_string();
        if !more.contains(&"--from") {
            arguments.extend(["--from", &from]);
        }
        let printed = self.ok(&arguments);
        printed.parse().unwrap_or_else(|error| panic!("an inlet at no place: {error}"))
    }

    /// A counter of a node's engine, all cores together.
    #[track_caller]
    pub fn counter(&self, node: &str, group: &str, name: &str) -> u64 {
        let stats = self.json(&["engine", "stats", "--at", node]);
        // Reasons that never happened may be left out.
        stats[group][name].as_u64().unwrap_or_default()
    }

    /// All processes of this home.
    pub fn processes(&self) -> Vec<Process> {
        Process::of_home(&self.path)
    }

    /// Waits until there are none.
    #[track_caller]
    pub fn wait_for_no_process(&self) {
        wait_until(|| self.processes().is_empty(), || format!("still there: {:?}", self.command_lines()));
    }

    fn command_lines(&self) -> Vec<String> {
        self.processes().into_iter().map(|process| process.command_line()).collect()
    }

    fn logs(&self) -> String {
        let nodes = fs::read_dir(self.path.join("nodes")).into_iter().flatten().flatten();
        let logs = nodes.flat_map(|node| ["control.log", "engine.log"].map(|log| node.path().join(log)));
        logs.fold(String::new(), |mut text, log| {
            let lines = fs::read_to_string(&log).unwrap_or_default();
            // Writing to a string does not fail.
            let _ = writeln!(text, "--- {}\n{lines}", log.display());
            text
        })
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.logs());
        }
        if self.processes().is_empty() {
            return;
        }
        let deleted = self.command(&["node", "delete", "--all", "--yes"]).stdin(Stdio::null()).output();
        let left = self.command_lines();
        if left.is_empty() {
            return;
        }
        self.processes().into_iter().for_each(|process| process.signal(rustix::process::Signal::KILL));
        if !thread::panicking() {
            panic!("`ockam node delete --all --yes` ({deleted:?}) left {left:?}, which were killed");
        }
    }
}

/// A running node, as it was when somebody looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Where it listens first.
    pub address: SocketAddr,
    /// Its control process.
    pub control: Process,
    /// Its engine.
    pub engine: Process,
}

impl Node {
    #[track_caller]
    fn of(view: &Value) -> Node {
        let process = |value: &Value| Process(value.as_u64().and_then(|pid| pid.try_into().ok()).unwrap_or_default());
        let listener = view["transports"].as_array().into_iter().flatten().find(|it| it["mode"] == "listening");
        let address = listener.and_then(|it| it["socket_addr"].as_str()).and_then(|it| it.parse().ok());
        let node = Node {
            name: view["name"].as_str().unwrap_or_default().to_owned(),
            address: address.unwrap_or_else(|| panic!("the node does not listen: {view:#}")),
            control: process(&view["pid"]),
            engine: process(&view["engine"]["pid"]),
        };
        assert!(node.control.0 != 0 && node.engine.0 != 0, "the node does not run: {view:#}");
        node
    }

    /// A route to a service of this node, by its address.
    pub fn service(&self, name: &str) -> String {
        format!("{}/service/{name}", self.route())
    }

    /// A route to this node, by its address.
    pub fn route(&self) -> String {
        let family = if self.address.is_ipv4() { "ip4" } else { "ip6" };
        format!("/{family}/{}/tcp/{}", self.address.ip(), self.address.port())
    }
}
