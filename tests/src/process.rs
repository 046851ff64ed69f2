//! Processes as the kernel shows them.

use crate::wait_until;
use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, setrlimit};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

/// Lets this test have thousands of connections: many systems let a process have a thousand descriptors unasked, which the
/// tests of one process share.
///
/// # Panics
/// The hard limit is another one than it was.
pub fn allow_many_connections() {
    // Some programs that tests start go through all descriptors that they may have.
    const ENOUGH: u64 = 65_536;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < ENOUGH) {
        limit.current = Some(limit.maximum.map_or(ENOUGH, |maximum| maximum.min(ENOUGH)));
        setrlimit(Resource::Nofile, limit).expect("a process may have as many as its hard limit says");
    }
}

/// A process, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process(pub u32);

impl Process {
    /// All that live for this home, whoever their parents are: by the environment that they were started with, or, where
    /// only root may read that of processes which leave no core dump, by a path in their arguments. A test has its home
    /// for itself, so these are its own processes and nobody else's.
    pub fn of_home(home: &Path) -> Vec<Process> {
        let variable = [b"OCKAM_HOME=", home.as_os_str().as_encoded_bytes()].concat();
        let path = home.as_os_str().as_encoded_bytes();
        Process::all(|number| {
            let texts = |file: &str| fs::read(format!("/proc/{number}/{file}")).unwrap_or_default();
            // Both are empty for a process that has ended.
            texts("environ").split(|byte| *byte == 0).any(|text| text == variable)
                || texts("cmdline").split(|byte| *byte == 0).skip(1).any(|text| {
                    text.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/nodes/"))
                })
        })
    }

    /// All that live with this variable in the environment that they were started with.
    pub fn with_variable(name: &str, value: &OsStr) -> Vec<Process> {
        let wanted = [name.as_bytes(), b"=", value.as_encoded_bytes()].concat();
        Process::all(|number| {
            let environment = fs::read(format!("/proc/{number}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == wanted)
        })
    }

    fn all(which: impl Fn(u32) -> bool) -> Vec<Process> {
        let this = std::process::id();
        let numbers = fs::read_dir("/proc").expect("/proc is mounted");
        let numbers = numbers.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        numbers.filter(|number| *number != this && which(*number)).map(Process).collect()
    }

    /// Its arguments, for messages.
    pub fn command_line(self) -> String {
        let bytes = fs::read(format!("/proc/{}/cmdline", self.0)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\0', " ").trim().to_owned()
    }

    /// Whether it runs; one that has ended and is not waited for does not. A thread that is still ending keeps the locks of
    /// all, also when the first one has ended.
    pub fn is_alive(self) -> bool {
        let Ok(threads) = fs::read_dir(format!("/proc/{}/task", self.0)) else { return false };
        threads.flatten().any(|thread| {
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
            state.is_some_and(|state| state != 'Z' && state != 'X')
        })
    }

    /// Sends a signal; that it is gone already is no mistake.
    pub fn signal(self, signal: Signal) {
        let number = self.0.try_into().ok().and_then(Pid::from_raw).expect("a process has a positive number");
        match kill_process(number, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(errno) => panic!("cannot send {signal:?} to {}: {errno}", self.0),
        }
    }

    /// Kills it and waits until it is gone.
    #[track_caller]
    pub fn kill(self) {
        self.signal(Signal::KILL);
        self.wait();
    }

    /// Waits until it is gone.
    #[track_caller]
    pub fn wait(self) {
        wait_until(|| !self.is_alive(), || format!("{} ({}) lives on", self.0, self.command_line()));
    }

    /// Memory in pages of its own, in bytes.
    pub fn resident_bytes(self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).expect("the process lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has a size");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of KiB") * 1024
    }

    /// How many descriptors it has open; 0, and a skip, where only root may see that.
    pub fn descriptors(self) -> usize {
        match fs::read_dir(format!("/proc/{}/fd", self.0)) {
            Ok(open) => open.count(),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                crate::skip("the descriptors of a process that leaves no core dump are for root to see");
                0
            }
            Err(error) => panic!("{} does not live: {error}", self.0),
        }
    }

    /// CPU time that it has used, in clock ticks of which a second has 100.
    pub fn cpu_ticks(self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).expect("the process lives");
        let (_, rest) = stat.rsplit_once(") ").expect("the name of a process is in parentheses");
        rest.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number of ticks")).sum()
    }
}
