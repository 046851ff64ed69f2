//! The attendant: the thread that speaks with control, so that the cores need not.
//!
//! It owns what control wrote (listeners with their sockets, addresses, cookies), hands commands to the cores, gathers
//! their answers, and shows everything to the next control that attaches ([`Command::Dump`]). It blocks in `poll` and
//! does nothing while nothing happens.

use crate::clock::now_ms;
use crate::core::mesh::{FromCore, LinkDump, Mesh, ToCore};
use crate::io::sockets;
use foldhash::{HashMap, HashMapExt};
use ockam_engine_abi::record::Bytes;
use ockam_engine_abi::{
    ABI_VERSION, COOKIE_BYTES_MAX, Command, FLOW_CONTROLS_MAX, Notice, Refusal, Target, socket as abi_socket,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Records that wait for control to read them; beyond it the cores keep theirs, and then drop punts.
const BACKLOG_MAX: usize = 1024;
/// Room that every core's command queue must have before another record of control is read.
const COMMAND_ROOM: usize = 64;

/// How long one who connects waits for the control that is attached to be gone.
const PARTING_MS: u64 = 500;

/// What `Ready` says of this engine.
#[derive(Debug, Clone)]
pub struct Engine {
    /// Which driver runs.
    pub driver: ockam_engine_abi::notice::Driver,
    /// Why that one.
    pub driver_reason: String,
    /// When it started, by the clock.
    pub started_ms: u64,
}

/// See the module.
pub struct Attendant {
    mesh: Arc<Mesh>,
    engine: Engine,
    /// Where the next control attaches.
    door: OwnedFd,
    counters: OwnedFd,
    control: Option<Control>,
    /// Who connected while a control is attached, and until when (by the clock) it may wait for that one to be gone.
    next: Option<(OwnedFd, u64)>,
    listeners: BTreeMap<u32, Listener>,
    addresses: BTreeMap<Vec<u8>, Address>,
    /// What control waits for, by the number that the cores know it by.
    pending: HashMap<u64, Pending>,
    next_number: u64,
    drained: usize,
    /// Some control has greeted, so somebody knows of this engine.
    known: bool,
    /// The control that started this engine was gone before it greeted: nobody knows of it.
    abandoned: bool,
}

/// The control that is attached.
struct Control {
    socket: OwnedFd,
    greeted: bool,
    backlog: VecDeque<(Vec<u8>, Option<OwnedFd>)>,
}

struct Listener {
    socket: OwnedFd,
    local: SocketAddr,
    flow_control: u8,
    cookie: Bytes,
}

struct Address {
    target: Target,
    reachable: u64,
    serial: u64,
    cookie: Bytes,
}

struct Pending {
    /// Control's number of the request.
    request: u64,
    /// Cores that have not answered.
    cores: usize,
    dump: bool,
}

/// Why control is let go of.
enum Parted {
    Gone,
    Misbehaved(&'static str),
}

impl Attendant {
    /// An attendant with nothing set; `first` is the control that started this engine.
    pub fn new(mesh: Arc<Mesh>, engine: Engine, door: OwnedFd, counters: OwnedFd, first: Option<OwnedFd>) -> Self {
        let mut attendant = Attendant {
            mesh,
            engine,
            door,
            counters,
            control: None,
            next: None,
            listeners: BTreeMap::new(),
            addresses: BTreeMap::new(),
            pending: HashMap::new(),
            next_number: 0,
            drained: 0,
            known: false,
            abandoned: false,
        };
        if let Some(socket) = first {
            attendant.attach(socket);
        }
        attendant
    }

    /// Runs until all cores have drained, or the control that started this engine is gone before it said a word.
    ///
    /// # Errors
    /// What `poll` says.
    pub fn run(mut self) -> io::Result<()> {
        loop {
            self.let_in_next();
            self.hear_cores();
            self.send_backlog();
            if self.drained == self.mesh.cores.len() || self.abandoned {
                return Ok(());
            }
            self.mesh.attendant.about_to_sleep();
            let wants_more = self.control.as_ref().is_none_or(|control| control.backlog.len() < BACKLOG_MAX);
            if wants_more && !self.mesh.notices.is_empty() {
                continue;
            }
            let (control_ready, door_ready) = self.sleep()?;
            self.mesh.attendant.awake();
            self.mesh.attendant.drain();
            if control_ready {
                self.hear_control();
            }
            if door_ready {
                self.open_door();
            }
        }
    }

    /// Waits until control or a core has something to say, or someone is at the door.
    fn sleep(&self) -> io::Result<(bool, bool)> {
        let hears_commands = self.has_command_room();
        let waker = self.mesh.attendant.fd();
        let mut fds = vec![PollFd::new(&self.door, PollFlags::IN), PollFd::from_borrowed_fd(waker, PollFlags::IN)];
        if let Some(control) = &self.control {
            let mut wanted = PollFlags::empty();
            wanted.set(PollFlags::IN, hears_commands);
            wanted.set(PollFlags::OUT, !control.backlog.is_empty());
            fds.push(PollFd::new(&control.socket, wanted));
        }
        let limit = self.next.as_ref().map(|(_, until)| until.saturating_sub(now_ms()));
        let limit = limit.map(|limit| Timespec { tv_sec: 0, tv_nsec: limit.min(PARTING_MS) as i64 * 1_000_000 });
        match poll(&mut fds, limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok((fds.get(2).is_some_and(|fd| !fd.revents().is_empty()), !fds[0].revents().is_empty()))
    }

    fn has_command_room(&self) -> bool {
        self.mesh.cores.iter().all(|core| core.commands.len() + COMMAND_ROOM <= core.commands.capacity())
    }

    /// Someone connected. Only the same user (or root) is let in, and only one at a time. When a control is killed its
    /// lock may be free an instant before its socket is closed, so the next one is given a moment.
    fn open_door(&mut self) {
        let Ok(socket) = accept_with(&self.door, SocketFlags::CLOEXEC) else { return };
        let Ok(peer) = rustix::net::sockopt::socket_peercred(&socket) else { return };
        if peer.uid != rustix::process::geteuid() && !peer.uid.is_root() {
            return;
        }
        if self.control.is_none() {
            self.attach(socket);
        } else if self.next.is_none() {
            self.next = Some((socket, now_ms() + PARTING_MS));
        }
    }

    /// Lets in who waits, once it may; sends it away when the time is over.
    fn let_in_next(&mut self) {
        if let Some((_, until)) = &self.next {
            let over = now_ms() >= *until;
            if self.control.is_none() {
                let (socket, _) = self.next.take().expect("it was just looked at");
                self.attach(socket);
            } else if over {
                self.next = None;
            }
        }
    }

    fn attach(&mut self, socket: OwnedFd) {
        if rustix::io::ioctl_fionbio(&socket, true).is_ok() {
            self.pending.clear();
            self.control = Some(Control { socket, greeted: false, backlog: VecDeque::new() });
        }
    }

    fn part(&mut self, parted: Parted) {
        if let Parted::Misbehaved(how) = parted {
            eprintln!("engine: the control process {how}; it is let go of");
        }
        self.control = None;
        self.pending.clear();
        self.abandoned = !self.known;
    }

    fn tell(&mut self, notice: &Notice, descriptor: Option<OwnedFd>) {
        if let Some(control) = &mut self.control {
            control.backlog.push_back((notice.to_bytes(), descriptor));
        }
    }

    fn send_backlog(&mut self) {
        let Some(control) = &mut self.control else { return };
        while let Some((record, descriptor)) = control.backlog.front() {
            match abi_socket::send(&control.socket, record, descriptor.as_ref().map(AsFd::as_fd)) {
                Ok(()) => drop(control.backlog.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.part(Parted::Gone),
            }
        }
    }

    fn hear_control(&mut self) {
        while self.has_command_room()
            && let Some(control) = &self.control
        {
            let received = match abi_socket::receive(&control.socket) {
                Ok(Some(received)) => received,
                Ok(None) => return self.part(Parted::Gone),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return self.part(Parted::Misbehaved("sent what is no record"));
                }
                Err(_) => return self.part(Parted::Gone),
            };
            let Ok(command) = Command::from_bytes(&received.record) else {
                return self.part(Parted::Misbehaved("sent a record that this engine does not know"));
            };
            let outcome = if control.greeted || matches!(command, Command::Hello { .. }) {
                self.obey(command, received.descriptor)
            } else {
                Err(Parted::Misbehaved("did not begin with Hello"))
            };
            if let Err(parted) = outcome {
                return self.part(parted);
            }
        }
    }

    fn obey(&mut self, command: Command, descriptor: Option<OwnedFd>) -> Result<(), Parted> {
        match command {
            Command::Hello { abi_version } => return self.greet(abi_version),
            Command::AddListener { request, listener, flow_control, cookie } => {
                let added = self.add_listener(request, listener, flow_control, cookie, descriptor);
                self.refuse_on_error(request, added);
            }
            Command::RemoveListener { request, listener } => match self.listeners.remove(&listener) {
                Some(_) => {
                    let core = self.core_of_listener(listener);
                    let request = self.expect(request, 1);
                    self.order(core, ToCore::Unlisten { request, listener });
                }
                None => self.refuse(request, Refusal::Unknown),
            },
            Command::Dial { request, target, cookie } => {
                if cookie.0.len() > COOKIE_BYTES_MAX {
                    self.refuse(request, Refusal::Invalid);
                } else {
                    let core = self.mesh.least_loaded();
                    let request = self.expect(request, 1);
                    self.order(core, ToCore::Dial { request, target, cookie: cookie.0.into() });
                }
            }
            Command::CloseLink { request, link } => {
                if usize::from(link.core()) < self.mesh.cores.len() {
                    let request = self.expect(request, 1);
                    self.order(link.core(), ToCore::Close { request, link });
                } else {
                    self.refuse(request, Refusal::Unknown);
                }
            }
            Command::Resolved { link, addresses } => {
                if usize::from(link.core()) < self.mesh.cores.len() {
                    self.order(link.core(), ToCore::Resolved { link, addresses });
                }
            }
            Command::SetAddress { request, address, target, reachable, cookie } => {
                let valid = !address.0.is_empty() && address.0.len() <= 255 && cookie.0.len() <= COOKIE_BYTES_MAX;
                if !valid {
                    self.refuse(request, Refusal::Invalid);
                } else if self.addresses.len() >= crate::config::ADDRESSES_MAX {
                    self.refuse(request, Refusal::Limit);
                } else {
                    let serial = self.number();
                    self.addresses.insert(address.0.clone(), Address { target, reachable, serial, cookie });
                    let address: Arc<[u8]> = address.0.into();
                    self.order_all(request, |request| {
                        let address = address.clone();
                        ToCore::Set { request, address, target, reachable, serial }
                    });
                }
            }
            Command::ClearAddress { request, address } => match self.addresses.remove(&address.0) {
                Some(Address { serial, .. }) => {
                    let address: Arc<[u8]> = address.0.into();
                    self.order_all(request, |request| ToCore::Clear { request, address: address.clone(), serial });
                }
                None => self.refuse(request, Refusal::Unknown),
            },
            Command::SetTransit { request, rules } => {
                let rules: Arc<[_]> = rules.into();
                self.order_all(request, |request| ToCore::Transit { request, rules: rules.clone() });
            }
            Command::Transmit { request, message } => {
                let core = self.core_of_message(&message.0);
                let request = self.expect(request, 1);
                self.order(core, ToCore::Transmit { request, message: message.0 });
            }
            Command::Dump { request } => self.dump(request),
            Command::Drain { request, limit_ms, release_ports } => {
                if release_ports {
                    // A ring lets go of its sockets some time after its process has ended.
                    for listener in self.listeners.values() {
                        let _ = rustix::net::shutdown(&listener.socket, rustix::net::Shutdown::Both);
                    }
                }
                self.expect(request, usize::MAX);
                for core in 0..self.mesh.cores.len() as u8 {
                    self.order(core, ToCore::Drain { limit_ms });
                }
            }
        }
        Ok(())
    }

    fn greet(&mut self, theirs: u32) -> Result<(), Parted> {
        if theirs != ABI_VERSION {
            self.tell(&Notice::VersionMismatch { ours: ABI_VERSION, theirs }, None);
            self.send_backlog();
            return Err(Parted::Misbehaved("speaks another version"));
        }
        let ready = Notice::Ready {
            abi_version: ABI_VERSION,
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            driver: self.engine.driver,
            driver_reason: self.engine.driver_reason.clone(),
            aead: ockam_crypto::backend().to_owned(),
            cpu_features: ockam_crypto::cpu_features().into_iter().map(str::to_owned).collect(),
            cores: self.mesh.cores.len() as u8,
            slot_bytes: crate::config::SLOT_BODY as u32,
            slots: crate::config::SLOTS as u32,
            links_max: crate::config::LINKS_MAX as u32,
            uptime_s: now_ms().saturating_sub(self.engine.started_ms) / 1000,
        };
        let counters = self.counters.try_clone().map_err(|_| Parted::Misbehaved("cannot be given the counters"))?;
        self.tell(&ready, Some(counters));
        if let Some(control) = &mut self.control {
            control.greeted = true;
        }
        self.known = true;
        Ok(())
    }

    fn add_listener(
        &mut self,
        request: u64,
        number: u32,
        flow_control: u8,
        cookie: Bytes,
        descriptor: Option<OwnedFd>,
    ) -> Result<(), (Refusal, i32)> {
        let socket = descriptor.ok_or((Refusal::Invalid, 0))?;
        if flow_control >= FLOW_CONTROLS_MAX || cookie.0.len() > COOKIE_BYTES_MAX {
            return Err((Refusal::Invalid, 0));
        }
        if self.listeners.contains_key(&number) {
            return Err((Refusal::Exists, 0));
        }
        if self.listeners.len() >= crate::config::LISTENERS_MAX {
            return Err((Refusal::Limit, 0));
        }
        let system = |errno: i32| (Refusal::System, errno);
        let local = sockets::local_addr(&socket).map_err(|errno| system(errno.raw_os_error()))?;
        let kept = socket.try_clone().map_err(|error| system(error.raw_os_error().unwrap_or(0)))?;
        self.listeners.insert(number, Listener { socket: kept, local, flow_control, cookie });
        let core = self.core_of_listener(number);
        let request = self.expect(request, 1);
        self.order(core, ToCore::Listen { request, listener: number, socket, flow_control });
        Ok(())
    }

    fn refuse_on_error(&mut self, request: u64, outcome: Result<(), (Refusal, i32)>) {
        if let Err((why, errno)) = outcome {
            self.tell(&Notice::Refused { request, why, errno }, None);
        }
    }

    fn refuse(&mut self, request: u64, why: Refusal) {
        self.tell(&Notice::Refused { request, why, errno: 0 }, None);
    }

    fn core_of_listener(&self, listener: u32) -> u8 {
        (listener as usize % self.mesh.cores.len()) as u8
    }

    /// The core that owns the link which a message of control leaves on; any core serves it otherwise.
    fn core_of_message(&self, message: &[u8]) -> u8 {
        let first = ockam_wire::Message::parse(message).ok().and_then(|message| message.onward.first());
        let address = first.and_then(|first| first.name.try_into().ok());
        let directory = self.mesh.directory.read().expect("no writer panics");
        address.and_then(|address: [u8; 32]| directory.get(&address)).map_or(0, |link| link.core())
    }

    fn dump(&mut self, request: u64) {
        let listeners: Vec<_> = self
            .listeners
            .iter()
            .map(|(&listener, it)| {
                let (local, flow_control, cookie) = (it.local, it.flow_control, it.cookie.clone());
                (Notice::Listener { request, listener, local, flow_control, cookie }, it.socket.try_clone().ok())
            })
            .collect();
        for (notice, socket) in listeners {
            self.tell(&notice, socket);
        }
        let addresses: Vec<_> = self
            .addresses
            .iter()
            .map(|(address, it)| Notice::Address {
                request,
                address: address.clone().into(),
                target: it.target,
                reachable: it.reachable,
                cookie: it.cookie.clone(),
            })
            .collect();
        for notice in addresses {
            self.tell(&notice, None);
        }
        let number = self.expect(request, self.mesh.cores.len());
        self.pending.get_mut(&number).expect("it was just put there").dump = true;
        for core in 0..self.mesh.cores.len() as u8 {
            self.order(core, ToCore::Dump { request: number });
        }
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// Remembers a request of control that so many cores will answer; the cores know it by the number returned, which
    /// no other control has used.
    fn expect(&mut self, request: u64, cores: usize) -> u64 {
        let number = self.number();
        self.pending.insert(number, Pending { request, cores, dump: false });
        number
    }

    fn order(&self, core: u8, command: ToCore) {
        let mailbox = &self.mesh.cores[usize::from(core)];
        let pushed = mailbox.commands.push(command);
        assert!(pushed.is_ok(), "control is heard only while there is room");
        mailbox.waker.wake();
    }

    fn order_all(&mut self, request: u64, make: impl Fn(u64) -> ToCore) {
        let number = self.expect(request, self.mesh.cores.len());
        for core in 0..self.mesh.cores.len() as u8 {
            self.order(core, make(number));
        }
    }

    fn hear_cores(&mut self) {
        while self.control.as_ref().is_none_or(|control| control.backlog.len() < BACKLOG_MAX) {
            let Some(said) = self.mesh.notices.pop() else { return };
            match said {
                FromCore::Applied { request } => self.answered(request),
                FromCore::Links { request, links } => self.dumped(request, links),
                FromCore::Drained => {
                    self.drained += 1;
                    if self.drained == self.mesh.cores.len() {
                        self.last_word();
                    }
                }
                FromCore::Notice(notice) => self.pass_on(notice),
            }
        }
    }

    /// A core did its part of a request.
    fn answered(&mut self, number: u64) {
        let Some(pending) = self.pending.get_mut(&number) else { return };
        pending.cores -= 1;
        if pending.cores == 0 {
            let Pending { request, dump, .. } = self.pending.remove(&number).expect("it was just there");
            let notice = if dump { Notice::DumpEnd { request } } else { Notice::Applied { request } };
            self.tell(&notice, None);
        }
    }

    fn dumped(&mut self, number: u64, links: Vec<LinkDump>) {
        let Some(asked) = self.pending.get(&number).map(|pending| pending.request) else { return };
        for LinkDump { mut notice, listener } in links {
            if let Notice::Link { request, cookie, .. } = &mut notice {
                *request = asked;
                if let Some(listener) = listener.and_then(|number| self.listeners.get(&number)) {
                    *cookie = listener.cookie.clone();
                }
            }
            self.tell(&notice, None);
        }
        self.answered(number);
    }

    /// A notice of a core; what answers a request gets control's number of it back.
    fn pass_on(&mut self, mut notice: Notice) {
        match &mut notice {
            Notice::LinkUp { request, .. } | Notice::Refused { request, .. } | Notice::Undelivered { request, .. } => {
                // Asked by a control that is gone.
                let Some(pending) = self.pending.remove(request) else { return };
                *request = pending.request;
            }
            _ => {}
        }
        self.tell(&notice, None);
    }

    /// Everything is closed: control is told, as far as it listens, and the engine ends.
    fn last_word(&mut self) {
        let drains: Vec<u64> =
            self.pending.values().filter(|pending| pending.cores == usize::MAX).map(|drain| drain.request).collect();
        for request in drains {
            self.tell(&Notice::Applied { request }, None);
        }
        self.send_backlog();
    }
}
