//! Nodes of this project, run by its `ockam` command.

use crate::PATIENCE;
use ockam_tests::Port;
use serde_json::Value;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

/// What a finished command left.
#[derive(Debug)]
pub struct Output {
    /// Its exit code; absent when a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
}

/// An `OCKAM_HOME` of its own. Its nodes are deleted with it, also when the test panics.
pub struct Home {
    binary: &'static Path,
    directory: tempfile::TempDir,
    /// Processes of its nodes, in case that deleting them fails.
    processes: Mutex<Vec<u64>>,
    /// Where its nodes listen, also after a stop.
    ports: Mutex<Vec<Port>>,
}

impl Home {
    /// An empty home.
    pub fn new() -> Arc<Home> {
        // First, so that there is nothing to clean up yet when it is missing.
        let binary = binary();
        let directory = tempfile::Builder::new().prefix("ockam-interop-").tempdir().expect("a temporary directory");
        Arc::new(Home { binary, directory, processes: Mutex::default(), ports: Mutex::default() })
    }

    /// A place of 127.0.0.1 at which nobody else listens as long as this home is there.
    #[track_caller]
    pub(crate) fn free(&self) -> String {
        let port = Port::take();
        let address = port.address().to_string();
        self.ports.lock().expect("no test thread died with this lock").push(port);
        address
    }

    /// Creates a node that listens on a port of its own.
    #[track_caller]
    pub fn node(self: &Arc<Home>, name: &str) -> OurNode {
        self.node_at(name, &self.free())
    }

    /// Creates a node that listens on `address`.
    #[track_caller]
    pub fn node_at(self: &Arc<Home>, name: &str, address: &str) -> OurNode {
        self.create("node", name, address, &[])
    }

    /// Creates a node that listens on a port of its own, with more options.
    #[track_caller]
    pub fn node_with(self: &Arc<Home>, name: &str, more: &[&str]) -> OurNode {
        self.create("node", name, &self.free(), more)
    }

    /// Creates a node of this sort, `node` or `authority`, with these options, and a `node` with those in
    /// `OCKAM_NODE_OPTIONS`.
    #[track_caller]
    pub(crate) fn create(self: &Arc<Home>, sort: &str, name: &str, address: &str, more: &[&str]) -> OurNode {
        let mut create = vec![sort, "create", name, "--tcp-listener-address", address];
        create.extend(more);
        let options = env::var("OCKAM_NODE_OPTIONS").unwrap_or_default();
        create.extend(options.split_whitespace().filter(|_| sort == "node"));
        self.ok(&create);
        let address = self.running_at(name);
        OurNode { home: self.clone(), name: name.to_owned(), address }
    }

    /// Where a running node listens. Keeps its processes in mind.
    #[track_caller]
    fn running_at(&self, name: &str) -> SocketAddr {
        let shown = self.ok(&["node", "show", name, "--output", "json"]);
        let shown: Value = serde_json::from_str(&shown).expect("`node show --output json` prints JSON");
        collect_pids(&shown, &mut self.processes.lock().expect("no test thread died with this lock"));
        listener(&shown).unwrap_or_else(|| panic!("no listener in {shown:#}"))
    }

    /// Runs the command to its end.
    #[track_caller]
    pub fn ockam(&self, arguments: &[&str]) -> Output {
        self.ockam_with(arguments, "")
    }

    /// Runs the command to its end, with something to read.
    #[track_caller]
    pub fn ockam_with(&self, arguments: &[&str], input: &str) -> Output {
        self.run(arguments, input).unwrap_or_else(|problem| panic!("`ockam {}`: {problem}", arguments.join(" ")))
    }

    fn run(&self, arguments: &[&str], input: &str) -> Result<Output, String> {
        let mut child = Command::new(self.binary)
            .args(arguments)
            .env("OCKAM_HOME", self.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{}: {e}", self.binary.display()))?;
        let pid = child.id();
        // What a command does not want to read it need not take.
        let _ = child.stdin.take().expect("it is a pipe").write_all(input.as_bytes());
        let (done, finished) = mpsc::channel();
        thread::spawn(move || done.send(child.wait_with_output()));
        let Ok(output) = finished.recv_timeout(PATIENCE) else {
            kill(u64::from(pid));
            return Err("it did not end, or a process it left holds its output".into());
        };
        let output = output.map_err(|e| e.to_string())?;
        Ok(Output {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).map_err(|_| "it printed what is not UTF-8")?,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs the command, which must succeed, and gives what it printed.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.ockam(arguments);
        assert_eq!(output.code, Some(0), "`ockam {}`: {}", arguments.join(" "), output.stderr);
        output.stdout
    }

    /// The logs of its nodes, for the message of a failing test.
    fn logs(&self) -> String {
        let nodes = fs::read_dir(self.directory.path().join("nodes")).into_iter().flatten().flatten();
        let logs = nodes.flat_map(|node| ["control.log", "engine.log"].map(|log| node.path().join(log)));
        logs.filter_map(|log| Some(format!("{}:\n{}\n", log.display(), fs::read_to_string(&log).ok()?))).collect()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.logs());
        }
        let problem = match self.run(&["node", "delete", "--all", "--yes"], "") {
            Ok(output) if output.code == Some(0) => return,
            Ok(output) => output.stderr,
            Err(problem) => problem,
        };
        for pid in self.processes.lock().expect("no test thread died with this lock").iter() {
            kill(*pid);
        }
        if !thread::panicking() {
            panic!("`ockam node delete --all --yes` failed, so its nodes were killed: {problem}");
        }
    }
}

/// A node of ours.
pub struct OurNode {
    home: Arc<Home>,
    name: String,
    address: SocketAddr,
}

impl OurNode {
    /// A node in a home of its own.
    #[track_caller]
    pub fn start() -> OurNode {
        Home::new().node("ours")
    }

    /// Where it lives.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it.
    #[track_caller]
    pub fn stop(&self) {
        self.home.ok(&["node", "stop", &self.name]);
    }

    /// Starts it again, where it listened.
    #[track_caller]
    pub fn start_again(&self) {
        self.home.ok(&["node", "start", &self.name]);
        assert_eq!(self.home.running_at(&self.name), self.address);
    }

    /// Starts its `hop` service.
    #[track_caller]
    pub fn start_hop(&self) {
        self.home.ok(&["service", "start", "hop", "--at", &self.name]);
    }

    /// Dials a node. Gives the local address of the connection.
    #[track_caller]
    pub fn connect(&self, to: SocketAddr) -> String {
        let printed = self.home.ok(&["tcp-connection", "create", "--from", &self.name, "--to", &to.to_string()]);
        let address = printed.trim_end().strip_prefix("/worker/").unwrap_or_else(|| panic!("printed {printed:?}"));
        assert!(
            address.len() == 32 && address.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
            "{address:?} is not an address of 32 lower-case hexadecimal digits"
        );
        address.to_owned()
    }

    /// Opens a channel to the listener at the end of a route. Gives the local address of the channel.
    #[track_caller]
    pub fn open(&self, to: &str, more: &[&str]) -> String {
        let create = ["secure-channel", "create", "--from", &self.name, "--to", to];
        let printed = self.home.ok(&[&create[..], more].concat());
        let address = printed.strip_prefix("/service/").unwrap_or_else(|| panic!("printed {printed:?}"));
        assert!(
            address.len() == 32 && address.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
            "{address:?} is not an address of 32 lower-case hexadecimal digits and nothing else"
        );
        address.to_owned()
    }

    /// Its channels, as `secure-channel list` tells them.
    #[track_caller]
    pub fn channels(&self) -> Vec<Value> {
        let printed = self.home.ok(&["secure-channel", "list", "--at", &self.name, "--output", "json"]);
        serde_json::from_str(&printed).expect("`secure-channel list --output json` prints an array")
    }

    /// Waits until its channels are as wanted, and gives them.
    #[track_caller]
    pub fn channels_when(&self, ready: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let since = Instant::now();
        loop {
            let channels = self.channels();
            if ready(&channels) {
                return channels;
            }
            assert!(since.elapsed() < PATIENCE, "channels that should be others: {channels:#?}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Its identifier.
    #[track_caller]
    pub fn identifier(&self) -> String {
        let printed = self.home.ok(&["node", "show", &self.name, "--output", "json"]);
        let shown: Value = serde_json::from_str(&printed).expect("`node show --output json` prints JSON");
        let identifier = shown["identifier"].as_str().unwrap_or_else(|| panic!("no identifier in {shown:#}"));
        identifier.to_owned()
    }

    /// What it believes that the authority says of somebody.
    #[track_caller]
    pub fn attested(&self, subject: &str) -> Option<Value> {
        let printed = self.home.ok(&["credential", "list", "--at", &self.name, "--output", "json"]);
        let known: Vec<Value> =
            serde_json::from_str(&printed).expect("`credential list --output json` prints an array");
        known.into_iter().find(|credential| credential["subject"] == subject)
    }

    /// Sends a message from this node, which must be answered, and gives what the command printed.
    #[track_caller]
    pub fn send(&self, message: &str, to: &str, more: &[&str]) -> String {
        self.home.ok(&[&["message", "send", message, "--from", &self.name, "--to", to], more].concat())
    }
}

/// The command under test: `OCKAM_BIN`, else what cargo builds from this workspace.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match env::var_os("OCKAM_BIN") {
        Some(path) => {
            let path = PathBuf::from(path);
            assert!(path.is_file(), "OCKAM_BIN names no file: {}", path.display());
            path
        }
        None => build(),
    })
}

fn build() -> PathBuf {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args([
            "build",
            "--package",
            "ockam",
            "--bin",
            "ockam",
            "--message-format",
            "json",
            "--manifest-path",
            manifest,
        ])
        .stderr(Stdio::inherit())
        .output()
        .expect("run cargo");
    assert!(output.status.success(), "the `ockam` command does not build; set OCKAM_BIN to use another one");
    let messages = String::from_utf8(output.stdout).expect("cargo prints UTF-8");
    let executable = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back();
    executable.expect("cargo names the executable it built")
}

/// The first listener that `node show` names.
fn listener(shown: &Value) -> Option<SocketAddr> {
    let transports = shown["transports"].as_array()?;
    transports.iter().find(|transport| transport["mode"] == "listening")?["socket_addr"].as_str()?.parse().ok()
}

/// Every process that `node show` names, wherever it does.
fn collect_pids(shown: &Value, pids: &mut Vec<u64>) {
    match shown {
        Value::Object(fields) => {
            for (name, value) in fields {
                if name == "pid" || name.ends_with("_pid") {
                    pids.extend(value.as_u64());
                }
                collect_pids(value, pids);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect_pids(value, pids)),
        _ => {}
    }
}

/// Only for what did not end by itself. A process that is already gone is what was wanted.
fn kill(pid: u64) {
    let _ = Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
}
