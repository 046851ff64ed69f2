//! Systems under test: processes with an address, started by this program and ended by it.

use crate::cleanup::Cleanup;
use crate::engine::Engine;
use crate::machine::{self, Placement};
use crate::opener::Opener;
use ockam_bench::channel::{Channel, Identity};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// Why a run cannot go on.
#[derive(Debug)]
pub struct Failed(String);

impl Failed {
    /// In words, with what to do where that is known.
    pub fn new(what: impl Into<String>) -> Failed {
        Failed(what.into())
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        Failed(error.to_string())
    }
}

/// What every measurement of a run has in common.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The binary under test.
    pub ockam: PathBuf,
    /// Measure the engine without its control process.
    pub bare: bool,
    /// Who runs where.
    pub placement: Placement,
    /// CPUs of this process, before anything was placed.
    pub cpus: Vec<usize>,
    /// Seconds before each measurement.
    pub warm_up_s: f64,
    /// Seconds of each measurement.
    pub seconds: f64,
    /// Interleaved repetitions.
    pub repetitions: usize,
}

impl Setup {
    /// A program that is built together with this one.
    pub fn beside(&self, name: &str) -> Result<PathBuf, Failed> {
        let path = std::env::current_exe()?.with_file_name(name);
        if path.exists() {
            return Ok(path);
        }
        let package = if name.ends_with("rivals") { "ockam-bench-rivals" } else { "ockam-bench" };
        Err(Failed::new(format!("{} is missing: cargo build --release -p {package}", path.display())))
    }

    /// Starts something where systems run. A system of several threads gets all CPUs.
    pub fn on_system_cpus<T>(&self, threads: u8, start: impl FnOnce() -> std::io::Result<T>) -> std::io::Result<T> {
        let (system, load) = self.placement.cpus(&self.cpus);
        machine::run_on(if threads > 1 { &self.cpus } else { &system })?;
        let started = start();
        machine::run_on(&load)?;
        started
    }

    /// The same with another placement; the calling thread moves to where load runs.
    pub fn placed(&self, placement: Placement) -> std::io::Result<Setup> {
        machine::run_on(&placement.cpus(&self.cpus).1)?;
        Ok(Setup { placement, ..self.clone() })
    }

    /// A node of the binary under test, or its engine alone.
    pub fn node(&self, driver: &str, threads: u8) -> Result<System, Failed> {
        if self.bare { Engine::start(self, driver, threads) } else { Node::start(self, driver, threads, &[]) }
    }

    /// A floor of this program, by its hidden subcommand.
    pub fn floor(&self, name: &str, arguments: &[&str]) -> Result<System, Failed> {
        let program = std::env::current_exe()?;
        self.helper(name, Command::new(program).arg("floor").args(arguments))
    }

    /// A relay of another runtime.
    pub fn rival(&self, runtime: &str, arguments: &[&str]) -> Result<System, Failed> {
        let program = self.beside("ockam-bench-rivals")?;
        self.helper(runtime, Command::new(program).arg("relay").arg(runtime).args(arguments))
    }

    /// A process that prints its address on its first line.
    fn helper(&self, name: &str, command: &mut Command) -> Result<System, Failed> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = self.on_system_cpus(1, || command.spawn())?;
        let stdout = child.stdout.take().ok_or(Failed::new("no pipe"))?;
        let pid = child.id();
        let child = Arc::new(Mutex::new(child));
        let process = Cleanup::new(move || kill(&child));
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().parse().map_err(|_| Failed::new(format!("{name} did not say its address")))?;
        Ok(System {
            name: name.to_owned(),
            address,
            pids: vec![pid],
            facts: Vec::new(),
            owner: Owner::Helper { _process: process },
        })
    }
}

/// Ends a child, unless it ended before.
pub fn kill(child: &Mutex<Child>) {
    let mut child = child.lock().expect("no holder panics");
    let _ = child.kill();
    let _ = child.wait();
}

/// A running system.
pub struct System {
    /// For tables.
    pub name: String,
    /// Where it accepts links.
    pub address: SocketAddr,
    /// The processes whose time counts.
    pub pids: Vec<u32>,
    /// What else is known: driver and why.
    pub facts: Vec<(&'static str, String)>,
    /// What it is.
    pub owner: Owner,
}

/// What a system is; ends it when dropped.
pub enum Owner {
    /// A node of the binary under test.
    Node(Node),
    /// Its engine alone.
    Engine(Engine),
    /// Two nodes of the binary under test.
    Nodes {
        /// Ends them.
        _home: Home,
    },
    /// Two engines alone.
    Engines {
        /// Ends them.
        _ends: [Engine; 2],
    },
    /// Processes of others, and their files.
    Processes {
        /// Ends them.
        _processes: Vec<Cleanup>,
        /// Removes them.
        _dir: tempfile::TempDir,
    },
    /// Others, which are shown as one.
    Others,
    /// A floor or a rival.
    Helper {
        /// Ends it.
        _process: Cleanup,
    },
}

impl System {
    /// Processor time of all its processes so far, in nanoseconds.
    pub fn cpu_ns(&self) -> Result<u64, Failed> {
        let mut total = 0;
        for pid in &self.pids {
            total += machine::cpu_ns(*pid)
                .map_err(|error| Failed::new(format!("{} (process {pid}) is gone: {error}", self.name)))?;
        }
        Ok(total)
    }

    /// Opens a secure channel over a link that nobody else uses. An engine alone gets the keys from here; a node agrees on
    /// them, and has answered a message through the channel.
    pub fn channel(&self, stream: TcpStream) -> Result<(TcpStream, Channel), Failed> {
        if let Owner::Engine(engine) = &self.owner {
            let channel = engine.channel(&stream)?;
            return Ok((stream, channel));
        }
        let mut opener = Opener::new(stream, vec![Identity::new()?]);
        let open = opener.open(1, 1).map_err(|error| Failed::new(format!("{}: {error}", self.name)))?.pop();
        let (_, channel) = open.ok_or(Failed::new("one channel was asked for"))?;
        Ok((opener.into_link(), channel))
    }

    /// Frames received by each of its cores so far, if it is ours.
    pub fn frames_per_core(&self) -> Result<Vec<u64>, Failed> {
        match &self.owner {
            Owner::Node(node) => {
                let stats = node.home.json(&["engine", "stats", "--at", NAME])?;
                let cores = stats["cores"].as_array().map(Vec::as_slice).unwrap_or_default();
                Ok(cores.iter().filter_map(|core| core["frames_in"].as_u64()).collect())
            }
            Owner::Engine(engine) => {
                let counters = engine.counters()?;
                let frames = |core| counters.of_core(core, ockam_engine_abi::Counter::FramesIn);
                Ok((0..counters.cores()).map(frames).collect())
            }
            _ => Ok(Vec::new()),
        }
    }
}

/// The name of the node under test.
pub const NAME: &str = "bench";

/// A home of the binary under test, in a temporary directory.
pub struct Home {
    ockam: PathBuf,
    dir: Arc<tempfile::TempDir>,
    _nodes: Cleanup,
}

impl Home {
    /// An empty one. All its nodes end with it.
    pub fn new(ockam: &Path) -> Result<Home, Failed> {
        if !ockam.exists() {
            let what =
                format!("{} is missing: cargo build --release -p ockam, or name one by --ockam", ockam.display());
            return Err(Failed::new(what));
        }
        let dir = Arc::new(tempfile::Builder::new().prefix("ockam-bench-").tempdir()?);
        let (binary, place) = (ockam.to_owned(), dir.clone());
        let nodes = Cleanup::new(move || {
            let _ = command(&binary, place.path(), &["node", "delete", "--all", "--yes"]).output();
        });
        Ok(Home { ockam: ockam.to_owned(), dir, _nodes: nodes })
    }

    /// A command of the binary in this home.
    pub fn command(&self, arguments: &[&str]) -> Command {
        command(&self.ockam, self.dir.path(), arguments)
    }

    /// Runs a command that must succeed; what it printed.
    pub fn run(&self, arguments: &[&str]) -> Result<String, Failed> {
        let output = self.command(arguments).output()?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(Failed::new(format!("ockam {}: {}: {}", arguments.join(" "), output.status, why.trim())));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a command under `--output json`.
    pub fn json(&self, arguments: &[&str]) -> Result<serde_json::Value, Failed> {
        let text = self.run(&[arguments, &["--output", "json"]].concat())?;
        serde_json::from_str(&text)
            .map_err(|error| Failed::new(format!("ockam {} did not answer with JSON: {error}", arguments.join(" "))))
    }
}

fn command(ockam: &Path, home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(ockam);
    command.args(arguments).env("OCKAM_HOME", home).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// A node of the binary under test.
pub struct Node {
    /// Its home.
    pub home: Home,
    /// Its control process.
    pub control_pid: u32,
}

impl Node {
    /// Creates one in a home of its own, listening on loopback, with these options besides.
    pub fn start(setup: &Setup, driver: &str, threads: u8, options: &[&str]) -> Result<System, Failed> {
        let home = Home::new(&setup.ockam)?;
        let threads_text = threads.to_string();
        let arguments = ["node", "create", NAME, "--tcp-listener-address", "127.0.0.1:0", "--threads", &threads_text];
        let made = setup.on_system_cpus(threads, || {
            home.json(&[&arguments[..], &["--driver", driver], options].concat()).map_err(std::io::Error::other)
        })?;
        Node::found(home, &made)
    }

    /// One that an `ockam` command has made in a home that is its own, as `node create` and `node show` tell of it.
    pub fn found(home: Home, told: &serde_json::Value) -> Result<System, Failed> {
        let missing = |what: &str| Failed::new(format!("a node was told of without {what}: {told}"));
        let pid = |value: &serde_json::Value| value.as_u64().and_then(|pid| u32::try_from(pid).ok());
        let control_pid = pid(&told["pid"]).ok_or_else(|| missing("pid"))?;
        let engine_pid = pid(&told["engine"]["pid"]).ok_or_else(|| missing("engine.pid"))?;
        let address = told["transports"][0]["socket_addr"].as_str().and_then(|text| text.parse().ok());
        let address = address.ok_or_else(|| missing("transports[0].socket_addr"))?;
        let text = |value: &serde_json::Value| value.as_str().unwrap_or("?").to_owned();
        let running = text(&told["engine"]["driver"]);
        let facts = vec![("driver", running.clone()), ("driver_reason", text(&told["engine"]["driver_reason"]))];
        Ok(System {
            name: format!("ockam, {running}"),
            address,
            pids: vec![engine_pid, control_pid],
            facts,
            owner: Owner::Node(Node { home, control_pid }),
        })
    }
}

/// What the binary under test says of itself.
pub fn identify(ockam: &Path) -> BTreeMap<String, String> {
    let version = Command::new(ockam).arg("--version").output().map_or_else(
        |error| format!("not available: {error}"),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    );
    [("path".to_owned(), ockam.display().to_string()), ("version".to_owned(), version)].into()
}
