//! Starting an engine process: lock, door, driver, threads.

use crate::attendant::{Attendant, Engine};
use crate::config::{Config, DriverChoice, PORTAL_MEMORY, SOCKETS_MAX, THREADS_DEFAULT_MAX, THREADS_MAX};
use crate::core::mesh::Mesh;
use crate::core::{Core, SMALL};
use crate::io::code;
use crate::io::counters::{CoreCounters, CounterPage};
use crate::io::driver::Driver;
use crate::io::epoll::EpollDriver;
use crate::io::probe;
use crate::io::uring::UringDriver;
use ockam_engine_abi::notice::Driver as DriverKind;
use rustix::fs::{FlockOperation, Mode, OFlags, fcntl_lock, open, unlink};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The node has one.
    #[error("the node in {0} has a running engine already")]
    AlreadyRunning(String),
    /// A file or socket of the node's directory cannot be used.
    #[error("{what} in {dir}: {error}")]
    Directory {
        /// Which.
        what: &'static str,
        /// The directory.
        dir: String,
        /// Why.
        error: io::Error,
    },
    /// io_uring was asked for and cannot be used.
    #[error("io_uring cannot be used here: {0}; start the node with `--driver epoll` or `--driver auto`")]
    NoRing(String),
    /// What seals and opens does not give what it must: nothing may be sent with it.
    #[error("the self-test of {0} failed; this build or this processor cannot be trusted with secrets")]
    Crypto(&'static str),
    /// A thread, memory or descriptor is not to be had.
    #[error("{what}: {error}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        error: io::Error,
    },
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |error| StartError::System { what, error }
}

/// Runs the engine of the node in `config.node_dir` until it is told to drain. The first control process is on standard
/// input, a `SOCK_SEQPACKET` socket; later ones connect to `engine.sock`.
///
/// # Errors
/// Why it did not start, or cannot go on.
pub fn run(config: Config) -> Result<(), StartError> {
    // Half an engine is worse than none: control restarts a whole one.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    // Signals of control's terminal are not for the engine, which outlives it.
    let _ = rustix::process::setsid();
    rustix::process::umask(Mode::from_raw_mode(0o077));
    let started_ms = crate::clock::now_ms();
    ockam_crypto::self_test().map_err(|_| StartError::Crypto(ockam_crypto::backend()))?;

    let dir = NodeDir::open(&config.node_dir)?;
    let _lock = dir.lock()?;
    let first = first_control().map_err(system("standard input"))?;
    raise_descriptor_limit();
    let threads = threads(&config).map_err(system("the number of CPUs"))?;
    let (kind, reason) = probe::choose(config.driver).map_err(|error| StartError::NoRing(error.to_string()))?;

    let portal_memory = config.portal_memory.unwrap_or(PORTAL_MEMORY);
    let mesh = Arc::new(Mesh::new(usize::from(threads), portal_memory).map_err(system("shared queues"))?);
    let (page, counters) = CounterPage::create(usize::from(threads)).map_err(system("counters"))?;
    let (kind, reason) = start_cores(&config, threads, kind, reason, &mesh, page)?;
    let door = dir.door()?;
    let engine = Engine { driver: kind, driver_reason: reason, started_ms };
    code::give_back();
    Attendant::new(mesh, engine, door, counters, first).run().map_err(system("waiting for events"))?;
    dir.remove_door();
    Ok(())
}

/// Starts one thread per core. When a ring cannot be made after all, and epoll will do, all cores use epoll.
fn start_cores(
    config: &Config,
    threads: u8,
    kind: DriverKind,
    reason: String,
    mesh: &Arc<Mesh>,
    mut page: CounterPage,
) -> Result<(DriverKind, String), StartError> {
    let mut counters: Vec<CoreCounters> = (0..usize::from(threads)).map(|core| page.core(core)).collect();
    if kind == DriverKind::Uring {
        match spawn(config, mesh, &mut counters, |mesh, core| {
            UringDriver::new(mesh.cores[usize::from(core)].waker.clone(), SOCKETS_MAX, SMALL)
        }) {
            Ok(()) => return Ok((kind, reason)),
            Err(error) if config.driver == DriverChoice::Uring => return Err(StartError::NoRing(error.to_string())),
            Err(error) => {
                let reason = format!("a ring for each of {threads} threads failed: {error}");
                spawn_epoll(config, mesh, &mut counters)?;
                return Ok((DriverKind::Epoll, reason));
            }
        }
    }
    spawn_epoll(config, mesh, &mut counters)?;
    Ok((kind, reason))
}

fn spawn_epoll(config: &Config, mesh: &Arc<Mesh>, counters: &mut Vec<CoreCounters>) -> Result<(), StartError> {
    spawn(config, mesh, counters, |mesh, core| {
        EpollDriver::new(mesh.cores[usize::from(core)].waker.clone(), SOCKETS_MAX, SMALL)
    })
    .map_err(system("starting the epoll driver"))
}

/// Starts the threads; each makes its own driver, since a ring belongs to the thread that made it. Either all run, or
/// none does and `counters` are whole again.
fn spawn<D: Driver + 'static>(
    config: &Config,
    mesh: &Arc<Mesh>,
    counters: &mut Vec<CoreCounters>,
    make: fn(&Mesh, u8) -> io::Result<D>,
) -> io::Result<()> {
    let (made, making) = mpsc::channel::<io::Result<()>>();
    let count = counters.len();
    let mut starts = Vec::with_capacity(count);
    for index in 0..count as u8 {
        let (start, started) = mpsc::channel::<CoreCounters>();
        let (mesh, made, pin) = (mesh.clone(), made.clone(), config.pin);
        std::thread::Builder::new().name(format!("core-{index}")).spawn(move || {
            if pin && let Err(error) = pin_to(index) {
                eprintln!("engine: core {index} is not pinned: {error}");
            }
            let driver = make(&mesh, index);
            let _ = made.send(driver.as_ref().map(|_| ()).map_err(clone_error));
            // Without a go the driver is dropped: another core could not make its own.
            let (Ok(driver), Ok(counters)) = (driver, started.recv()) else { return };
            if let Err(error) = Core::new(index, driver, mesh, counters).and_then(Core::run) {
                eprintln!("engine: core {index} cannot go on: {error}");
                std::process::abort();
            }
        })?;
        starts.push(start);
    }
    for _ in 0..count {
        making.recv().map_err(io::Error::other)??;
    }
    for (start, counters) in starts.into_iter().zip(counters.drain(..)) {
        start.send(counters).map_err(|_| io::Error::other("a core ended before it began"))?;
    }
    Ok(())
}

fn clone_error(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// Number of cores: as configured, else what the process may really use (affinity and cgroup quota), at most
/// [`THREADS_DEFAULT_MAX`].
fn threads(config: &Config) -> io::Result<u8> {
    match config.threads {
        Some(threads) => Ok(threads.clamp(1, THREADS_MAX)),
        None => {
            let usable = std::thread::available_parallelism()?.get();
            Ok(usable.min(usize::from(THREADS_DEFAULT_MAX)) as u8)
        }
    }
}

/// Pins the calling thread to the `index`-th CPU of its affinity mask.
fn pin_to(index: u8) -> io::Result<()> {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let allowed = sched_getaffinity(None)?;
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect();
    let cpu = cpus.get(usize::from(index) % cpus.len().max(1)).ok_or(io::ErrorKind::NotFound)?;
    let mut one = CpuSet::new();
    one.set(*cpu);
    sched_setaffinity(None, &one)?;
    Ok(())
}

/// As many descriptors as the process may have: each link is one until the ring holds it.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// The control that started this process, if standard input is its socket. The descriptor is moved away from standard
/// input, so that nothing else reads it.
fn first_control() -> io::Result<Option<OwnedFd>> {
    let stdin = io::stdin();
    let is_control = rustix::net::sockopt::socket_type(&stdin).is_ok_and(|kind| kind == SocketType::SEQPACKET);
    if !is_control {
        return Ok(None);
    }
    let control = stdin.as_fd().try_clone_to_owned()?;
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(Some(control))
}

/// The node's directory, held open so that its files are reached however long its path is.
struct NodeDir {
    dir: OwnedFd,
    name: String,
}

impl NodeDir {
    fn open(path: &Path) -> Result<Self, StartError> {
        let name = path.display().to_string();
        match open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(dir) => Ok(NodeDir { dir, name }),
            Err(errno) => Err(StartError::Directory { what: "opening it", dir: name, error: errno.into() }),
        }
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(rustix::io::Errno) -> StartError {
        let dir = self.name.clone();
        move |errno| StartError::Directory { what, dir, error: errno.into() }
    }

    /// Takes `engine.lock` for as long as the process lives.
    fn lock(&self) -> Result<OwnedFd, StartError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let lock = rustix::fs::openat(&self.dir, "engine.lock", flags, Mode::from_raw_mode(0o600))
            .map_err(self.failed("engine.lock"))?;
        match fcntl_lock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(lock),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => {
                Err(StartError::AlreadyRunning(self.name.clone()))
            }
            Err(errno) => Err(self.failed("engine.lock")(errno)),
        }
    }

    /// A path of a file in the directory that is short enough for a Unix socket.
    fn short(&self, file: &str) -> String {
        format!("/proc/self/fd/{}/{file}", self.dir.as_raw_fd())
    }

    /// `engine.sock`, listening. A stale one is in nobody's use, since this process has the lock.
    fn door(&self) -> Result<OwnedFd, StartError> {
        let path = self.short("engine.sock");
        self.remove_door();
        let make = || -> Result<OwnedFd, rustix::io::Errno> {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let door = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
            bind(&door, &SocketAddrUnix::new(&*path)?)?;
            rustix::fs::chmod(&*path, Mode::from_raw_mode(0o600))?;
            listen(&door, 8)?;
            Ok(door)
        };
        make().map_err(self.failed("engine.sock"))
    }

    fn remove_door(&self) {
        let _ = unlink(self.short("engine.sock"));
    }
}
