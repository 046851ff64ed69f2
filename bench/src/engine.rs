//! An engine without a control process, driven through the ABI: `ockam-bench-engine`, which counts its allocations.

use crate::cleanup::Cleanup;
use crate::system::{Failed, Owner, Setup, System, kill};
use ockam_bench::channel::{self, Channel};
use ockam_crypto::Secret;
use ockam_engine_abi::{ABI_VERSION, Command, Counters, Key, Notice, Target, socket};
use ockam_wire::{AddressRef, Message, Outgoing, RouteParts};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
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
    request: Cell<u64>,
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
        let engine = Engine { control, counters, cores: cores.into(), request: Cell::new(0), dir, _process: process };

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

    fn next_request(&self) -> u64 {
        self.request.set(self.request.get() + 1);
        self.request.get()
    }

    /// Installs a channel for a peer at the other end of this link, with keys that nobody had to agree on.
    pub fn channel(&self, mut stream: &TcpStream) -> Result<Channel, Failed> {
        let (theirs, ours, encryptor) = (channel::name()?, channel::name()?, channel::name()?);
        let (request, reachable) = (self.next_request(), 1 << FLOW_CONTROL);
        let bytes = |name: &[u8]| name.to_vec().into();
        let cookie = || Vec::new().into();
        let address = bytes(&theirs);
        let command = Command::SetAddress { request, address, target: Target::Handshake, reachable, cookie: cookie() };
        self.ask(request, command, None)?;
        // Comes back to us with the way to the peer.
        let onward = [AddressRef::local(&theirs)];
        stream.write_all(&channel::frame(RouteParts::new(&onward), &ours, b"message 1"))?;
        let message = loop {
            match self.notice()? {
                Notice::Punt { message, .. } => break message,
                _ => continue,
            }
        };
        let message = Message::parse(&message.0).map_err(|error| Failed::new(format!("a punt: {error}")))?;
        let way = Outgoing {
            onward: RouteParts { front: &[], rest: message.return_route },
            return_route: RouteParts::EMPTY,
            payload_len: 0,
            tracing: None,
        };
        let (there, back) = ([1; 32], [2; 32]);
        let request = self.next_request();
        let command = Command::InstallChannel {
            request,
            channel: request as u32,
            decryptor: bytes(&theirs),
            encryptor: bytes(&encryptor),
            sealing_key: Key::new(&back),
            opening_key: Key::new(&there),
            way: bytes(&way.to_frame(&[])[4..]),
            follows_peer: true,
            reachable,
            flow_control: FLOW_CONTROL,
            expires_in_ms: None,
            cookie: cookie(),
        };
        self.ask(request, command, None)?;
        Ok(Channel::with_keys(&theirs, ours, Secret::new(there), Secret::new(back)))
    }

    fn notice(&self) -> Result<Notice, Failed> {
        let received = socket::receive(&self.control)?.ok_or(Failed::new("the engine ended"))?;
        Notice::from_bytes(&received.record).map_err(|error| Failed::new(format!("the engine's record: {error}")))
    }

    fn ask(&self, request: u64, command: Command, descriptor: Option<&OwnedFd>) -> Result<(), Failed> {
        socket::send(&self.control, &command.to_bytes(), descriptor.map(AsFd::as_fd))?;
        loop {
            match self.notice()? {
                Notice::Applied { request: done } if done == request => return Ok(()),
                Notice::Refused { request: done, why, errno } if done == request => {
                    return Err(Failed::new(format!("the engine refused: {}, errno {errno}", why.name())));
                }
                _ => {}
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
