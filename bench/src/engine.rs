//! An engine without a control process, driven through the ABI: `ockam-bench-engine`, which counts its allocations.

use crate::cleanup::Cleanup;
use crate::system::{Failed, Owner, Setup, System, kill};
use crate::tunnel::{Line, Targets, Tunnel};
use ockam_bench::channel::{self, Channel};
use ockam_crypto::Secret;
use ockam_engine_abi::record::Bytes;
use ockam_engine_abi::{ABI_VERSION, Command, Counters, Grants, Guard, Key, Notice, PortalTarget, Target, socket};
use ockam_wire::{AddressRef, Message, Outgoing, RouteParts};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command as Process, Stdio};
use std::sync::{Arc, Mutex};

/// The flow control of its listener.
const FLOW_CONTROL: u8 = 1;
/// The guard that lets everybody pass; and the one that the peers of channels are granted, and for how many milliseconds.
pub const OPEN: Guard = 701;
pub const GRANTED: Guard = 700;
const GRANTED_MS: u64 = 24 * 60 * 60 * 1000;

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
        engine.serve_echo(None)?;
        let request = engine.next_request();
        engine.ask(request, Command::SetGuards { request, open: [OPEN].into_iter().collect() }, None)?;
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

    /// Serves `echo`, behind this guard.
    pub fn serve_echo(&self, guard: Option<Guard>) -> Result<(), Failed> {
        let request = self.next_request();
        let (address, cookie) = (b"echo".to_vec().into(), Vec::new().into());
        let (target, reachable) = (Target::Echo, 1 << FLOW_CONTROL);
        self.ask(request, Command::SetAddress { request, address, target, reachable, guard, cookie }, None)
    }

    /// Installs a channel for a peer at the other end of this link, with keys that nobody had to agree on.
    pub fn channel(&self, mut stream: &TcpStream) -> Result<Channel, Failed> {
        let (theirs, ours, encryptor) = (channel::name()?, channel::name()?, channel::name()?);
        self.expect_handshake(&theirs)?;
        // Comes back to us with the way to the peer.
        let onward = [AddressRef::local(&theirs)];
        stream.write_all(&channel::frame(RouteParts::new(&onward), &ours, b"message 1"))?;
        let (there, back) = ([1; 32], [2; 32]);
        self.install(&theirs, &encryptor, self.way_back()?, back, there, true)?;
        Ok(Channel::with_keys(&theirs, ours, Secret::new(there), Secret::new(back)))
    }

    /// Two engines with portals to the targets, and a channel with keys that nobody had to agree on if it is sealed.
    pub fn tunnel(
        setup: &Setup,
        driver: &str,
        is_sealed: bool,
        targets: Targets,
        line: Option<Line<'_>>,
    ) -> Result<Tunnel, Failed> {
        let mut ends = Vec::new();
        for _ in 0..2 {
            let System { owner: Owner::Engine(engine), address, pids, facts, .. } = Engine::start(setup, driver, 1)?
            else {
                return Err(Failed::new("an engine is an engine"));
            };
            ends.push((engine, address, pids, facts));
        }
        let [(near, _, near_pids, facts), (far, far_address, far_pids, _)] =
            <[_; 2]>::try_from(ends).map_err(|_| Failed::new("two engines were started"))?;
        let link = near.dial(line.map_or(Ok(far_address), |line| line(far_address))?)?;
        let first = if is_sealed { near.channel_with(&far, &link)? } else { link };
        let mut inlets = Vec::new();
        for (number, (name, target)) in [("sink", targets.sink), ("echo", targets.echo)].into_iter().enumerate() {
            let request = far.next_request();
            let outlet = Command::SetOutlet {
                request,
                address: name.as_bytes().to_vec().into(),
                targets: vec![PortalTarget::Tcp(target)],
                reachable: u64::MAX,
                plain: false,
                guard: None,
                cookie: Vec::new().into(),
            };
            far.ask(request, outlet, None)?;
            let listener = TcpListener::bind("127.0.0.1:0")?;
            inlets.push(listener.local_addr()?);
            let (request, inlet) = (near.next_request(), 100 + number as u32);
            let cookie = Vec::new().into();
            near.ask(request, Command::AddInlet { request, inlet, guard: None, cookie }, Some(&listener.into()))?;
            let request = near.next_request();
            let way = Some(encoded(&[AddressRef::local(&first), AddressRef::local(name.as_bytes())]));
            near.ask(request, Command::RouteInlet { request, inlet, way, wait_ms: 5000 }, None)?;
        }
        let pids = [near_pids, far_pids].concat();
        let system = System {
            name: String::new(),
            address: inlets[0],
            pids,
            facts,
            owner: Owner::Engines { _ends: [near, far] },
        };
        Ok(Tunnel { system, echo: inlets[1] })
    }

    /// The address of a new link.
    fn dial(&self, target: SocketAddr) -> Result<Vec<u8>, Failed> {
        let request = self.next_request();
        socket::send(&self.control, &Command::Dial { request, target, cookie: Vec::new().into() }.to_bytes(), None)?;
        loop {
            match self.notice()? {
                Notice::LinkUp { request: done, address, .. } if done == request => return Ok(address.0),
                Notice::Refused { request: done, why, errno } if done == request => {
                    return Err(Failed::new(format!("the engine did not connect: {}, errno {errno}", why.name())));
                }
                _ => {}
            }
        }
    }

    /// Installs a channel along a link, at both ends; the address of its sending side here.
    fn channel_with(&self, far: &Engine, link: &[u8]) -> Result<Vec<u8>, Failed> {
        let (theirs, ours, encryptor) = (channel::name()?, channel::name()?, channel::name()?);
        for (engine, name) in [(self, &ours), (far, &theirs)] {
            engine.expect_handshake(name)?;
        }
        // Comes out at the far end with the way back.
        let request = self.next_request();
        let (onward, back) = ([AddressRef::local(link), AddressRef::local(&theirs)], [AddressRef::local(&ours)]);
        let message = Outgoing {
            onward: RouteParts::new(&onward),
            return_route: RouteParts::new(&back),
            payload_len: 9,
            tracing: None,
        };
        let message = message.to_frame(b"message 1").split_off(4);
        self.ask(request, Command::Transmit { request, message: message.into() }, None)?;
        let way_back = far.way_back()?;
        let (there, back) = ([1; 32], [2; 32]);
        let way = encoded(&onward);
        self.install(&ours, &encryptor, way, there, back, false)?;
        far.install(&theirs, &channel::name()?, way_back, back, there, true)?;
        Ok(encryptor.to_vec())
    }

    fn expect_handshake(&self, name: &[u8]) -> Result<(), Failed> {
        let request = self.next_request();
        let (address, cookie) = (name.to_vec().into(), Vec::new().into());
        let target = Target::Handshake;
        self.ask(
            request,
            Command::SetAddress { request, address, target, reachable: u64::MAX, guard: None, cookie },
            None,
        )
    }

    /// The way back of the next message that comes to control.
    fn way_back(&self) -> Result<Bytes, Failed> {
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
        Ok(way.to_frame(&[]).split_off(4).into())
    }

    fn install(
        &self,
        decryptor: &[u8],
        encryptor: &[u8],
        way: Bytes,
        sealing: [u8; 32],
        opening: [u8; 32],
        follows_peer: bool,
    ) -> Result<(), Failed> {
        let request = self.next_request();
        let command = Command::InstallChannel {
            request,
            channel: request as u32,
            decryptor: decryptor.to_vec().into(),
            encryptor: encryptor.to_vec().into(),
            sealing_key: Key::new(&sealing),
            opening_key: Key::new(&opening),
            way,
            follows_peer,
            reachable: u64::MAX,
            flow_control: FLOW_CONTROL,
            expires_in_ms: None,
            grants: Grants { guards: [GRANTED].into_iter().collect(), expire_in_ms: Some(GRANTED_MS) },
            cookie: Vec::new().into(),
        };
        self.ask(request, command, None)
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

/// A way, as commands have it.
fn encoded(onward: &[AddressRef<'_>]) -> Bytes {
    let (onward, return_route) = (RouteParts::new(onward), RouteParts::EMPTY);
    Outgoing { onward, return_route, payload_len: 0, tracing: None }.to_frame(&[]).split_off(4).into()
}

/// Where `ockam-bench-engine` answers with its count: eight bytes, little-endian, per connection.
fn allocations_socket(dir: PathBuf) -> PathBuf {
    dir.join("allocations.sock")
}
