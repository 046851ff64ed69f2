//! Programs of the system that a test runs: servers that live as long as the test wants, clients to their end.

use crate::{PATIENCE, skip, wait_for};
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Finds a program of the system, also where those of its keeper lie. Where there is none, the test is skipped.
pub fn program(name: &str) -> Option<PathBuf> {
    let found = find(name);
    if found.is_none() {
        skip(&format!("{name} is not installed"));
    }
    found
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    // Debian keeps each version of PostgreSQL apart.
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    usual.chain(versions.map(|version| version.path().join("bin"))).map(|it| it.join(name)).find(|it| it.is_file())
}

/// A server. It ends with this value, and so does all that it started.
pub struct Server {
    child: Child,
    name: String,
    said: File,
}

impl Server {
    /// Starts it in a process group of its own.
    #[track_caller]
    pub fn start(command: &mut Command) -> Server {
        let name = format!("{command:?}");
        let said = tempfile::tempfile().expect("a temporary file can be made");
        let clone = || said.try_clone().expect("a descriptor");
        command.stdin(Stdio::null()).stdout(clone()).stderr(clone()).process_group(0);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        Server { child, name, said }
    }

    /// Waits until `ready` is true, which it must become before the server ends.
    #[track_caller]
    pub fn wait_until(&mut self, mut ready: impl FnMut() -> bool) {
        wait_for(
            || {
                let ended = self.child.try_wait().expect("a child can be waited for");
                assert!(ended.is_none(), "{} ended: {ended:?}\n{}", self.name, said(&self.said));
                ready().then_some(())
            },
            || format!("{} is not ready\n{}", self.name, said(&self.said)),
        );
    }

    fn signal(&self, signal: Signal) {
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a positive number");
        // What has ended by itself needs none.
        let _ = kill_process_group(group, signal);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.name, said(&self.said));
        }
        // Those of PostgreSQL that lead groups of their own end with their parent, when it is let.
        self.signal(Signal::QUIT);
        let end = std::time::Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) && std::time::Instant::now() < end {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

/// What it said so far. The place in the file is that of the server, which goes on writing there.
fn said(file: &File) -> String {
    let length = file.metadata().map_or(0, |metadata| metadata.len()) as usize;
    let mut text = vec![0; length];
    // It is for a message only.
    let read = file.read_at(&mut text, 0).unwrap_or_default();
    String::from_utf8_lossy(&text[..read]).into_owned()
}

/// A command that runs a program as somebody who may do nothing: itself, unless this is root. Such a user may have no way
/// into the directories of this test, so the program starts in `directory`.
pub fn unprivileged(program: &Path, directory: &Path) -> Command {
    let mut command = if crate::is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir(directory);
    command
}

/// The number of the user, and of the group, that own nothing.
const NOBODY: &str = "65534";

/// Gives a directory to the user that [`unprivileged`] runs programs as.
pub fn give_to_unprivileged(directory: &Path) {
    if crate::is_root() {
        let nobody = Some(NOBODY.parse().expect("a number"));
        std::os::unix::fs::chown(directory, nobody, nobody).expect("root may give directories away");
    }
}
