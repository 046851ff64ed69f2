//! Starts the two processes of a node from this very program.
//!
//! ```text
//!   ockam node create ── stdin: ControlStart, stdout: Readiness ──► ockam control-process --node NAME
//!                                                                     └─ stdin: SEQPACKET ──► ockam engine-process ...
//! ```
//!
//! Readiness comes back through a pipe: who waits reads until the line or the end of the file, whichever comes.

use super::{ControlStart, Readiness, systemd};
use crate::api::NodeInfo;
use crate::error::Error;
use crate::home::{Home, NodeDir, NodeName, open_private_file};
use crate::store::Settings;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The hidden subcommand of the control process; `--node NAME` follows.
pub const CONTROL_SUBCOMMAND: &str = "control-process";

/// The hidden subcommand of the engine; `--node-dir`, `--driver`, and if they are set `--threads`, `--pin` and `--portal-memory`
/// follow.
pub const ENGINE_SUBCOMMAND: &str = "engine-process";

/// Longest readiness line in bytes.
const READINESS_BYTES_MAX: u64 = 4 << 20;

/// Starts the control process of a node in the background and waits until it serves. It starts the engine, or adopts
/// the living one of a headless node.
///
/// # Errors
/// What the control process reports; [`Error::CannotStart`]; [`Error::ControlDied`].
pub fn start_control(home: &Home, name: &NodeName, start: &ControlStart) -> Result<NodeInfo, Error> {
    let program = program();
    let spawned = command(&program)
        .args([CONTROL_SUBCOMMAND, "--node", name.as_str(), "--home"])
        .arg(home.path())
        .env("OCKAM_HOME", home.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn();
    let mut child = spawned.map_err(|error| cannot_start(program, &error))?;

    let mut line = serde_json::to_vec(start).map_err(|error| Error::internal(error.to_string()))?;
    line.push(b'\n');
    // A control that died already says why, or that it died, below.
    let _ = child.stdin.take().expect("stdin is a pipe").write_all(&line);
    let mut answer = Vec::new();
    let mut stdout = child.stdout.take().expect("stdout is a pipe").take(READINESS_BYTES_MAX);
    let read = stdout.read_to_end(&mut answer);
    match read.ok().and_then(|_| serde_json::from_slice(&answer).ok()) {
        Some(Readiness::Ready(node)) => Ok(*node),
        Some(Readiness::Error(report)) => {
            // It ends now. Its locks are free when the caller goes on.
            let _ = child.wait();
            Err(Error::Reported(report))
        }
        None => {
            let _ = child.wait();
            Err(Error::ControlDied { node: name.to_string(), log: home.node(name).control_log() })
        }
    }
}

/// An engine that was started, and this end of its first control connection.
#[derive(Debug)]
pub(crate) struct SpawnedEngine {
    pub(crate) child: Child,
    pub(crate) socket: OwnedFd,
}

/// Starts the engine of a node. What it says on its standard error goes to its log.
///
/// # Errors
/// [`Error::CannotStart`], [`Error::Storage`].
pub(crate) fn spawn_engine(dir: &NodeDir, settings: &Settings) -> Result<SpawnedEngine, Error> {
    let log = open_private_file(&dir.engine_log(), OpenOptions::new().append(true).create(true))?;
    let program = program();
    let pair = || {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        Ok((ours, theirs))
    };
    let (ours, theirs) = pair().map_err(|errno: rustix::io::Errno| cannot_start(program.clone(), &errno.into()))?;

    let mut command = command(&program);
    command
        // It would let whoever sets it have AES computed without the processor's instructions.
        .env_remove("OPENSSL_ia32cap")
        .arg(ENGINE_SUBCOMMAND)
        .arg("--node-dir")
        .arg(dir.path())
        .arg("--driver")
        .arg(&settings.driver);
    if let Some(threads) = settings.threads {
        command.arg("--threads").arg(threads.to_string());
    }
    if settings.pin {
        command.arg("--pin");
    }
    if let Some(bytes) = settings.portal_memory {
        command.arg("--portal-memory").arg(bytes.to_string());
    }
    let spawned = command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::from(log)).spawn();
    Ok(SpawnedEngine { child: spawned.map_err(|error| cannot_start(program, &error))?, socket: ours })
}

/// A process of a node. It is not the main process of a service, whatever this one is.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg0("ockam");
    for variable in systemd::VARIABLES {
        command.env_remove(variable);
    }
    // What is secret in it is used up, and need not stay in an environment that others of this user can read.
    command.env_remove(crate::cli::commands::ticket::VARIABLE);
    command
}

/// This program. When its file was replaced by an upgrade, the kernel still has the image that runs.
fn program() -> PathBuf {
    match std::env::current_exe() {
        Ok(path) if path.exists() => path,
        _ => PathBuf::from("/proc/self/exe"),
    }
}

fn cannot_start(path: PathBuf, error: &std::io::Error) -> Error {
    Error::CannotStart { path, errno: error.raw_os_error().unwrap_or(0) }
}
