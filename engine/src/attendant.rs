//! The attendant: the thread that speaks with control, so that the cores need not.
//!
//! It owns what control wrote (listeners with their sockets, addresses, cookies), hands commands to the cores, gathers
//! their answers, and shows everything to the next control that attaches ([`Command::Dump`]). It blocks in `poll` and
//! does nothing while nothing happens.

mod guards;
mod portals;

use crate::clock::now_ms;
use crate::config::ORPHAN_LIMIT;
use crate::core::mesh::{FromCore, LinkDump, Mesh, ToCore};
use crate::io::sockets;
use crate::path::bucket::Bucket;
use crate::path::channel::{Channel, read_way};
use crate::path::guard::Granted;
use crate::path::tables::{Access, Connection};
use foldhash::{HashMap, HashMapExt};
use ockam_crypto::{Opener, Sealer, Secret};
use ockam_engine_abi::notice::ChannelTraffic;
use ockam_engine_abi::record::Bytes;
use ockam_engine_abi::{
    ABI_VERSION, COOKIE_BYTES_MAX, ChannelEnd, Command, FLOW_CONTROLS_MAX, Notice, Refusal, Target,
    socket as abi_socket,
};
use portals::Inlet;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use zeroize::Zeroize;

/// Records that wait for control to read them; beyond it the cores keep theirs, and then drop punts.
const BACKLOG_MAX: usize = 1024;
/// Room that every core's command queue must have before another record of control is read.
const COMMAND_ROOM: usize = 64;

/// How long one who connects waits for the control that is attached to be gone.
const PARTING_MS: u64 = 500;

/// The number of a request that nobody made; control counts from 1.
const NOBODY: u64 = 0;

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
    inlets: BTreeMap<u32, Inlet>,
    /// What the ways of relays begin with, by the relays' names.
    relays: HashMap<Vec<u8>, Box<[u8]>>,
    channels: BTreeMap<u32, Installed>,
    /// Channels by the names of their encryptor and their decryptor.
    channel_names: HashMap<Box<[u8]>, u32>,
    /// No channel ends before this, by the clock.
    next_end_ms: u64,
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
    backlog: VecDeque<Telling>,
}

/// A notice on its way to control.
struct Telling {
    record: Vec<u8>,
    descriptor: Option<OwnedFd>,
    is_punt: bool,
}

struct Listener {
    socket: OwnedFd,
    local: SocketAddr,
    flow_control: u8,
    cookie: Bytes,
}

struct Address {
    target: Target,
    access: Access,
    serial: u64,
    cookie: Bytes,
}

/// A channel that the cores have.
struct Installed {
    channel: Arc<Channel>,
    /// Stands for its decryptor.
    serial: u64,
    cookie: Bytes,
    expires_ms: Option<u64>,
    /// Whether its way begins with another channel.
    is_carried: bool,
    /// Since when what its way begins with is gone.
    orphaned_ms: Option<u64>,
}

struct Pending {
    /// Control's number of the request.
    request: u64,
    /// Cores that have not answered.
    cores: usize,
    dump: bool,
    /// The channel that is being installed: gone if a core refuses.
    install: Option<u32>,
}

/// Why control is let go of.
enum Parted {
    Gone,
    Misbehaved(&'static str),
}

impl Installed {
    /// When it ends, by the clock.
    fn ends_ms(&self) -> Option<u64> {
        // A peer that came by a link may come by another; one inside a channel cannot.
        let may_move = self.channel.follows_peer && !self.is_carried;
        let patience = if may_move { ORPHAN_LIMIT.as_millis() as u64 } else { 0 };
        let abandoned = self.orphaned_ms.map(|since| since + patience);
        self.expires_ms.into_iter().chain(abandoned).min()
    }
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
            inlets: BTreeMap::new(),
            relays: HashMap::new(),
            channels: BTreeMap::new(),
            channel_names: HashMap::new(),
            next_end_ms: u64::MAX,
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
            self.end_channels();
            self.send_backlog();
            if self.drained == self.mesh.cores.len() || self.abandoned {
                return Ok(());
            }
            self.mesh.attendant.about_to_sleep();
            let wants_more = self.control.as_ref().is_none_or(|control| control.backlog.len() < BACKLOG_MAX);
            let links_closed = self.mesh.links_closed.load(Ordering::SeqCst);
            if links_closed || (wants_more && !self.mesh.notices.is_empty()) {
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
        let deadline = self.next.as_ref().map_or(u64::MAX, |(_, until)| *until).min(self.next_end_ms);
        let limit = (deadline != u64::MAX).then(|| deadline.saturating_sub(now_ms()));
        let limit =
            limit.map(|limit| Timespec { tv_sec: (limit / 1000) as i64, tv_nsec: (limit % 1000) as i64 * 1_000_000 });
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
        if let Some(control) = self.control.take() {
            let punts = control.backlog.iter().filter(|telling| telling.is_punt).count();
            self.mesh.punts_waiting.fetch_sub(punts, Ordering::Relaxed);
        }
        self.pending.clear();
        self.abandoned = !self.known;
    }

    fn tell(&mut self, notice: &Notice, descriptor: Option<OwnedFd>) {
        let is_punt = matches!(notice, Notice::Punt { .. } | Notice::CredentialsShown { .. });
        match &mut self.control {
            // The first that it hears answers its greeting. What happened before that is in the dump that it asks for.
            Some(control) if control.greeted => {
                control.backlog.push_back(Telling { record: notice.to_bytes(), descriptor, is_punt });
            }
            _ if is_punt => drop(self.mesh.punts_waiting.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
    }

    fn send_backlog(&mut self) {
        let Some(control) = &mut self.control else { return };
        while let Some(Telling { record, descriptor, is_punt }) = control.backlog.front() {
            match abi_socket::send(&control.socket, record, descriptor.as_ref().map(AsFd::as_fd)) {
                Ok(()) => {
                    self.mesh.punts_waiting.fetch_sub(usize::from(*is_punt), Ordering::Relaxed);
                    control.backlog.pop_front();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.part(Parted::Gone),
            }
        }
    }

    fn hear_control(&mut self) {
        while self.has_command_room()
            && let Some(control) = &self.control
        {
            let mut received = match abi_socket::receive(&control.socket) {
                Ok(Some(received)) => received,
                Ok(None) => return self.part(Parted::Gone),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return self.part(Parted::Misbehaved("sent what is no record"));
                }
                Err(_) => return self.part(Parted::Gone),
            };
            let command = Command::from_bytes(&received.record);
            if let Ok(Command::InstallChannel { .. }) = command {
                received.record.zeroize();
            }
            let Ok(command) = command else {
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
            Command::SetAddress { request, address, target, reachable, guard, cookie } => {
                let set = self.set_address(request, address, target, Access { reachable, guard }, cookie);
                self.refuse_on_error(request, set);
            }
            Command::ClearAddress { request, address } => match self.addresses.remove(&address.0) {
                Some(Address { serial, .. }) => {
                    self.forget_relay(&address.0);
                    let address: Arc<[u8]> = address.0.into();
                    self.order_all(request, |request| ToCore::Clear { request, address: address.clone(), serial });
                }
                None => self.refuse(request, Refusal::Unknown),
            },
            Command::Transmit { request, message } => {
                let core = self.core_of_message(&message.0);
                let request = self.expect(request, 1);
                self.order(core, ToCore::Transmit { request, message: message.0 });
            }
            Command::InstallChannel { .. } => self.install(command),
            Command::RetireChannel { request, channel, close } => match self.channels.get(&channel) {
                Some(_) => self.retire(request, channel, close),
                None => self.refuse(request, Refusal::Unknown),
            },
            command @ (Command::SetOutlet { .. }
            | Command::SetRelay { .. }
            | Command::AddInlet { .. }
            | Command::RouteInlet { .. }
            | Command::RemoveInlet { .. }) => self.obey_about_portals(command, descriptor),
            command @ (Command::SetGuards { .. }
            | Command::SetGrants { .. }
            | Command::SetTransit { .. }
            | Command::ShowCredentials { .. }) => self.obey_about_guards(command),
            Command::Dump { request } => self.dump(request),
            Command::Drain { request, limit_ms, release_ports } => {
                if release_ports {
                    // A ring lets go of its sockets some time after its process has ended.
                    for listener in self.listeners.values() {
                        let _ = rustix::net::shutdown(&listener.socket, rustix::net::Shutdown::Both);
                    }
                    self.release_inlet_ports();
                }
                self.expect(request, usize::MAX);
                for core in 0..self.mesh.cores.len() as u8 {
                    self.order(core, ToCore::Drain { limit_ms });
                }
            }
        }
        Ok(())
    }

    fn set_address(
        &mut self,
        request: u64,
        address: Bytes,
        target: Target,
        access: Access,
        cookie: Bytes,
    ) -> Result<(), (Refusal, i32)> {
        self.check_address(&address, access.guard, &cookie)?;
        // These have commands of their own; and what passed the guard of a handshake would be a channel without one.
        let is_special = matches!(target, Target::Outlet | Target::Relay);
        if is_special || (target == Target::Handshake && access.guard.is_some()) {
            return Err((Refusal::Invalid, 0));
        }
        let serial = self.number();
        self.forget_relay(&address.0);
        self.addresses.insert(address.0.clone(), Address { target, access, serial, cookie });
        let address: Arc<[u8]> = address.0.into();
        let handshake = (target == Target::Handshake).then(Arc::default);
        self.order_all(request, |request| {
            let (address, handshake) = (address.clone(), handshake.clone());
            ToCore::Set { request, address, target, access, serial, handshake }
        });
        Ok(())
    }

    fn install(&mut self, command: Command) {
        let Command::InstallChannel {
            request,
            channel: number,
            decryptor,
            encryptor,
            sealing_key,
            opening_key,
            way,
            follows_peer,
            reachable,
            flow_control,
            expires_in_ms,
            grants,
            cookie,
        } = command
        else {
            unreachable!("the caller looked");
        };
        let name_is_valid = |name: &Bytes| !name.0.is_empty() && name.0.len() <= 32;
        let valid = name_is_valid(&decryptor)
            && name_is_valid(&encryptor)
            && decryptor != encryptor
            && flow_control < FLOW_CONTROLS_MAX
            && cookie.0.len() <= COOKIE_BYTES_MAX;
        let Some(way) = read_way(&way.0).filter(|_| valid) else { return self.refuse(request, Refusal::Invalid) };
        if self.channels.len() >= crate::config::CHANNELS_MAX {
            return self.refuse(request, Refusal::Limit);
        }
        let is_taken = self.channels.contains_key(&number)
            || self.channel_names.contains_key(&*encryptor.0)
            || self.channel_names.contains_key(&*decryptor.0)
            || self.addresses.contains_key(&encryptor.0)
            || self.addresses.get(&decryptor.0).is_some_and(|address| address.target != Target::Handshake);
        if is_taken {
            return self.refuse(request, Refusal::Exists);
        }
        let egress = self.link_at(&way.first);
        // What the handshake was admitted to, its channel is.
        let serial = self.addresses.remove(&decryptor.0).map_or_else(|| self.number(), |address| address.serial);
        let secret = |key: &ockam_engine_abi::Key| Secret::copy_of(key.expose());
        let channel = Arc::new(Channel::new(
            number,
            (encryptor.0.into(), decryptor.0.into()),
            self.number(),
            flow_control,
            follows_peer,
            Granted::new(&grants, now_ms()),
            (Sealer::new(secret(&sealing_key)), Opener::new(secret(&opening_key))),
            way,
            egress,
            Bucket::new(crate::config::PUNT_BURST, now_ms()),
        ));
        let expires_ms = expires_in_ms.map(|limit| now_ms().saturating_add(limit));
        self.channel_names.insert(channel.encryptor.clone(), number);
        self.channel_names.insert(channel.decryptor.clone(), number);
        self.next_end_ms = self.next_end_ms.min(expires_ms.unwrap_or(u64::MAX));
        let is_carried = self.channel_names.contains_key(&channel.sealing().way.first);
        let installed =
            Installed { channel: channel.clone(), serial, cookie, expires_ms, is_carried, orphaned_ms: None };
        self.channels.insert(number, installed);
        self.mesh.carried.fetch_add(1, Ordering::SeqCst);
        // What its way begins with may have gone before anybody looked for this channel.
        self.mesh.link_closed();
        let asked = self.expect(request, self.mesh.cores.len());
        self.pending.get_mut(&asked).expect("it was just put there").install = Some(number);
        for core in 0..self.mesh.cores.len() as u8 {
            self.order(core, ToCore::Install { request: asked, channel: channel.clone(), reachable, serial });
        }
    }

    /// Takes a channel from the cores. `request` is control's, or [`NOBODY`].
    fn retire(&mut self, request: u64, number: u32, close: bool) {
        let Some(Installed { channel, serial, .. }) = self.channels.remove(&number) else { return };
        self.channel_names.remove(&channel.encryptor);
        self.channel_names.remove(&channel.decryptor);
        // Those that it carried end with it.
        self.mesh.link_closed();
        self.mesh.carried.fetch_sub(1, Ordering::SeqCst);
        if close {
            let core = channel.egress().map_or(0, |link| link.core());
            self.order(core, ToCore::SealClose { channel: channel.clone() });
        }
        self.order_all(request, |request| ToCore::Uninstall { request, channel: channel.clone(), serial });
    }

    /// Ends channels whose time is over, and those whose link is gone for good.
    fn end_channels(&mut self) {
        let now_ms = now_ms();
        let links_closed = self.mesh.links_closed.swap(false, Ordering::SeqCst);
        if !links_closed && now_ms < self.next_end_ms {
            return;
        }
        if links_closed {
            self.end_relays();
            let gone: Vec<u32> = self
                .channels
                .values()
                .filter(|installed| !self.leads_on(&installed.channel))
                .map(|installed| installed.channel.number)
                .collect();
            for installed in self.channels.values_mut() {
                let is_gone = gone.binary_search(&installed.channel.number).is_ok();
                installed.orphaned_ms = is_gone.then(|| installed.orphaned_ms.unwrap_or(now_ms));
            }
        }
        let over: Vec<(u32, ChannelEnd)> = self
            .channels
            .values()
            .filter(|installed| installed.ends_ms().is_some_and(|at| at <= now_ms))
            .map(|installed| {
                let expired = installed.expires_ms.is_some_and(|at| at <= now_ms);
                (installed.channel.number, if expired { ChannelEnd::Expired } else { ChannelEnd::LinkGone })
            })
            .collect();
        for (number, reason) in over {
            // It may lead on by another link since it was looked at.
            let channel = self.channels[&number].channel.clone();
            if reason == ChannelEnd::LinkGone && self.leads_on(&channel) {
                self.channels.get_mut(&number).expect("it was just looked at").orphaned_ms = None;
                continue;
            }
            self.end_channel(number, reason);
        }
        self.next_end_ms = self.channels.values().filter_map(Installed::ends_ms).min().unwrap_or(u64::MAX);
    }

    /// A channel ended by itself.
    fn end_channel(&mut self, number: u32, reason: ChannelEnd) {
        if self.channels.contains_key(&number) {
            self.retire(NOBODY, number, reason == ChannelEnd::Expired);
            self.tell(&Notice::ChannelClosed { channel: number, reason }, None);
        }
    }

    /// Whether there is something at the address that a channel's way begins with.
    fn leads_on(&self, channel: &Channel) -> bool {
        let sealing = channel.sealing();
        let first = &*sealing.way.first;
        self.link_at(first).is_some() || self.channel_names.contains_key(first) || self.addresses.contains_key(first)
    }

    /// The link with this local address.
    fn link_at(&self, name: &[u8]) -> Option<ockam_engine_abi::LinkId> {
        let address: [u8; 32] = name.try_into().ok()?;
        match self.mesh.directory.read().expect("no writer panics").get(&address)? {
            Connection::Link(link) => Some(*link),
            Connection::Portal(_) => None,
        }
    }

    fn greet(&mut self, theirs: u32) -> Result<(), Parted> {
        if let Some(control) = &mut self.control {
            control.greeted = true;
        }
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
        if self.listeners.contains_key(&number) || self.inlets.contains_key(&number) {
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
        let Some(name) = first.map(|first| first.name) else { return 0 };
        let channel = self.channel_names.get(name).and_then(|number| self.channels.get(number));
        let link = channel.map_or_else(|| self.link_at(name), |installed| installed.channel.egress());
        link.map_or(0, |link| link.core())
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
        self.dump_inlets(request);
        let addresses: Vec<_> = self
            .addresses
            .iter()
            .map(|(address, it)| Notice::Address {
                request,
                address: address.clone().into(),
                target: it.target,
                reachable: it.access.reachable,
                guard: it.access.guard,
                cookie: it.cookie.clone(),
            })
            .collect();
        for notice in addresses {
            self.tell(&notice, None);
        }
        let now_ms = now_ms();
        let channels: Vec<_> = self
            .channels
            .values()
            .map(|installed| {
                let Installed { channel, cookie, expires_ms, .. } = installed;
                let (way, sealed) = {
                    let sealing = channel.sealing();
                    (sealing.way.to_message(), sealing.sealer.sealed())
                };
                let opening = channel.opening();
                let traffic = ChannelTraffic { sealed, opened: opening.opened, refused: opening.refused };
                Notice::Channel {
                    request,
                    channel: channel.number,
                    decryptor: channel.decryptor.to_vec().into(),
                    encryptor: channel.encryptor.to_vec().into(),
                    way: way.into(),
                    flow_control: channel.flow_control,
                    expires_in_ms: expires_ms.map(|at| at.saturating_sub(now_ms)),
                    traffic,
                    cookie: cookie.clone(),
                }
            })
            .collect();
        for notice in channels {
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
        self.pending.insert(number, Pending { request, cores, dump: false, install: None });
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
                FromCore::ChannelEnded { channel, reason } => self.end_channel(channel, reason),
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
            if request == NOBODY {
                return;
            }
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
                if let Some(number) = pending.install {
                    self.retire(NOBODY, number, false);
                }
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
