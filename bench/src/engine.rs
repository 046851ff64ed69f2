//! An engine without a control process, driven through the ABI: `ockam-bench-engine`, which counts its allocations.

use crate::cleanup::Cleanup;
use crate::system::{Failed, Owner, Setup, System, kill};
use ockam_engine_abi::{ABI_VERSION, Command, Counters, Notice, Target, socket};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::io::Read;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command as Process, Stdio};
use std::sync::{Arc, Mutex};

/// The flow control of its listener.
const FLOW_CONTROL: u8 = 1;

/// The process's other ends.
pub struct Engine {
    control: OwnedFd,
    counters: OwnedFd,
    cores: usize,
    request: u64,
    dir: tempfile::TempDir,
    _process: Cleanup,
}

impl Engine {
    /// Starts one that listens on loopback and serves `echo`.
    pub fn start(setup: &Setup, driver: &str, threads: u8) -> Result<System, Failed> {
        let dir = tempfile::tempdir()?;
        let (control, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(std::io::Error::from)?;
        let binary = setup.beside("ockam-bench-engine")?;
        let mut command = Process::new(&binary);
        command.arg(dir.path()).arg(driver).arg(threads.to_string());
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::inherit());
        let child = setup.on_system_cpus(threads, || command.spawn())?;
        let pid = child.id();
        let child = Arc::new(Mutex::new(child));
        let process = Cleanup::new(move || kill(&child));

        socket::send(&control, &Command::Hello { abi_version: ABI_VERSION }.to_bytes(), None)?;
        let received = socket::receive(&control)?.ok_or(Failed::new("the engine ended at once"))?;
        let (cores, why, kind) = match Notice::from_bytes(&received.record) {
            Ok(Notice::Ready { cores, driver, driver_reason, .. }) => (cores, driver_reason, driver),
            other => return Err(Failed::new(format!("the engine answered {other:?}"))),
        };
        let counters = received.descriptor.ok_or(Failed::new("the engine gave no counters"))?;
        let mut engine = Engine { control, counters, cores: cores.into(), request: 0, dir, _process: process };

        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let target = Target::Echo;
        let reachable = 1 << FLOW_CONTROL;
        let request = engine.next_request();
        let name = b"echo".to_vec().into();
        let cookie = Vec::new().into();
        engine.ask(request, Command::SetAddress { request, address: name, target, reachable, cookie }, None)?;
        let request = engine.next_request();
        let cookie = Vec::new().into();
        let command = Command::AddListener { request, listener: 1, flow_control: FLOW_CONTROL, cookie };
        engine.ask(request, command, Some(&listener.into()))?;
        Ok(System {
            name: format!("engine alone, {}", kind.name()),
            address,
            pids: vec![pid],
            facts: vec![("driver", kind.name().to_owned()), ("driver_reason", why)],
            owner: Owner::Engine(engine),
        })
    }

    fn next_request(&mut self) -> u64 {
        self.request += 1;
        self.request
    }

    fn ask(&self, request: u64, command: Command, descriptor: Option<&OwnedFd>) -> Result<(), Failed> {
        socket::send(&self.control, &command.to_bytes(), descriptor.map(AsFd::as_fd))?;
        loop {
            let received = socket::receive(&self.control)?.ok_or(Failed::new("the engine ended"))?;
            match Notice::from_bytes(&received.record) {
                Ok(Notice::Applied { request: done }) if done == request => return Ok(()),
                Ok(Notice::Refused { request: done, why, errno }) if done == request => {
                    return Err(Failed::new(format!("the engine refused: {}, errno {errno}", why.name())));
                }
                Ok(_) => {}
                Err(error) => return Err(Failed::new(format!("the engine's record: {error}"))),
            }
        }
    }

    /// Its counters now.
    pub fn counters(&self) -> Result<Counters, Failed> {
        Ok(Counters::read(&self.counters, self.cores)?)
    }

    /// Heap allocations of the whole process so far.
    pub fn allocations(&self) -> Result<u64, Failed> {
        let mut answer = [0; 8];
        UnixStream::connect(allocations_socket(self.dir.path().to_owned()))?.read_exact(&mut answer)?;
        Ok(u64::from_le_bytes(answer))
    }
}

/// Where `ockam-bench-engine` answers with its count: eight bytes, little-endian, per connection.
fn allocations_socket(dir: PathBuf) -> PathBuf {
    dir.join("allocations.sock")
}
