//! A stand-in for the engine process in tests: it speaks `engine/abi` over a socket pair, keeps tables like an engine's,
//! and opens no connection.

use ockam_engine_abi::counter::BLOCK_WORDS;
use ockam_engine_abi::notice::Traffic;
use ockam_engine_abi::record::Bytes;
use ockam_engine_abi::{
    ABI_VERSION, CloseReason, Command, Driver, DropReason, LinkId, LinkOrigin, Notice, Refusal, Target, TransitRule,
    socket,
};
use ockam_wire::{AddressRef, Message, Outgoing, RouteParts};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

/// Two ends of a connection; the first is non-blocking, as control's.
pub(crate) fn pair() -> (OwnedFd, OwnedFd) {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    rustix::io::ioctl_fionbio(&ours, true).unwrap();
    (ours, theirs)
}

/// What the engine has. Tests look into it.
#[derive(Default)]
pub(crate) struct Tables {
    pub(crate) listeners: BTreeMap<u32, (SocketAddr, u8, Vec<u8>, OwnedFd)>,
    pub(crate) addresses: BTreeMap<Vec<u8>, (Target, u64, Vec<u8>)>,
    pub(crate) links: BTreeMap<LinkId, (SocketAddr, Vec<u8>)>,
    pub(crate) transit: Vec<TransitRule>,
    pub(crate) resolved: Vec<Vec<SocketAddr>>,
    /// The next command is refused with this.
    pub(crate) refuse: Option<Refusal>,
    /// What links do with messages: `None` drops them.
    pub(crate) peer: Option<Peer>,
    dialed: u32,
    draining: bool,
    connection: Option<Arc<OwnedFd>>,
}

/// What the peer behind every link does with a message.
#[derive(Clone, Copy)]
pub(crate) enum Peer {
    /// Answers with the payload.
    Echo,
    /// Says that it is undeliverable, with one address left.
    Undeliverable(DropReason),
    /// Closes the link.
    Close,
}

pub(crate) struct FakeEngine {
    pub(crate) tables: Arc<Mutex<Tables>>,
    /// Its other end is closed when the "process" ends.
    life: Arc<Mutex<Option<OwnedFd>>>,
}

impl FakeEngine {
    pub(crate) fn start() -> FakeEngine {
        FakeEngine { tables: Arc::default(), life: Arc::default() }
    }

    /// A connection to it. One at a time.
    pub(crate) fn connect(&self) -> OwnedFd {
        let (ours, theirs) = pair();
        let theirs = Arc::new(theirs);
        self.tables.lock().unwrap().connection = Some(theirs.clone());
        let (tables, life) = (self.tables.clone(), self.life.clone());
        std::thread::spawn(move || {
            while let Ok(Some(received)) = socket::receive(&*theirs) {
                let command = Command::from_bytes(&received.record).unwrap();
                let mut tables = tables.lock().unwrap();
                for (notice, descriptor) in tables.handle(command, received.descriptor) {
                    let _ = socket::send(&*theirs, &notice.to_bytes(), descriptor.as_ref().map(AsFd::as_fd));
                }
                if tables.draining {
                    drop(tables);
                    end(&life, &theirs);
                    return;
                }
            }
        });
        ours
    }

    /// Something that becomes readable when it ends, like a pidfd.
    pub(crate) fn process(&self) -> OwnedFd {
        let (ours, theirs) = pair();
        *self.life.lock().unwrap() = Some(theirs);
        ours
    }

    /// Ends it.
    pub(crate) fn kill(&self) {
        let connection = self.tables.lock().unwrap().connection.take();
        if let Some(connection) = connection {
            end(&self.life, &connection);
        }
    }

    /// Says something unasked.
    pub(crate) fn say(&self, notice: &Notice) {
        let tables = self.tables.lock().unwrap();
        socket::send(&**tables.connection.as_ref().unwrap(), &notice.to_bytes(), None).unwrap();
    }
}

fn end(life: &Mutex<Option<OwnedFd>>, connection: &OwnedFd) {
    let _ = rustix::net::shutdown(connection, rustix::net::Shutdown::Both);
    life.lock().unwrap().take();
}

impl Tables {
    fn handle(&mut self, command: Command, descriptor: Option<OwnedFd>) -> Vec<(Notice, Option<OwnedFd>)> {
        let applied = |request| vec![(Notice::Applied { request }, None)];
        let refused = |request, why| vec![(Notice::Refused { request, why, errno: 0 }, None)];
        match command {
            Command::Hello { abi_version } => {
                assert_eq!(abi_version, ABI_VERSION);
                let memfd = rustix::fs::memfd_create("counters", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
                rustix::fs::ftruncate(&memfd, (BLOCK_WORDS * 8) as u64).unwrap();
                let ready = Notice::Ready {
                    abi_version,
                    pid: std::process::id(),
                    version: "0".into(),
                    driver: Driver::Epoll,
                    driver_reason: "a test".into(),
                    aead: "none".into(),
                    cpu_features: Vec::new(),
                    cores: 1,
                    slot_bytes: 4096,
                    slots: 16,
                    links_max: 8,
                    uptime_s: 0,
                };
                vec![(ready, Some(memfd))]
            }
            Command::Resolved { addresses, .. } => {
                self.resolved.push(addresses);
                Vec::new()
            }
            Command::AddListener { request, .. }
            | Command::SetAddress { request, .. }
            | Command::SetTransit { request, .. }
            | Command::RemoveListener { request, .. }
            | Command::Dial { request, .. }
            | Command::Transmit { request, .. }
                if self.refuse.is_some() =>
            {
                refused(request, self.refuse.take().unwrap())
            }
            Command::AddListener { request, listener, flow_control, cookie } => {
                let socket = descriptor.expect("a listening socket");
                let local = rustix::net::getsockname(&socket).unwrap().try_into().unwrap();
                let old = self.listeners.insert(listener, (local, flow_control, cookie.0, socket));
                assert!(old.is_none(), "listener {listener} twice");
                applied(request)
            }
            Command::RemoveListener { request, listener } => match self.listeners.remove(&listener) {
                Some(_) => applied(request),
                None => refused(request, Refusal::Unknown),
            },
            Command::Dial { request, target, cookie } => {
                self.dialed += 1;
                let link = LinkId::new(0, 0, self.dialed);
                self.links.insert(link, (target, cookie.0));
                let address = link_address(link).into();
                let local = ([127, 0, 0, 1], 9).into();
                vec![(Notice::LinkUp { request, link, address, peer: target, local }, None)]
            }
            Command::CloseLink { request, link } => match self.links.remove(&link) {
                Some(_) => applied(request),
                None => refused(request, Refusal::Unknown),
            },
            Command::SetAddress { request, address, target, reachable, cookie } => {
                self.addresses.insert(address.0, (target, reachable, cookie.0));
                applied(request)
            }
            Command::ClearAddress { request, address } => match self.addresses.remove(&address.0) {
                Some(_) => applied(request),
                None => refused(request, Refusal::Unknown),
            },
            Command::SetTransit { request, rules } => {
                self.transit = rules;
                applied(request)
            }
            Command::Transmit { request, message } => {
                let said = self.deliver(request, &message.0);
                let undelivered = matches!(said, Some(Notice::Undelivered { .. }));
                let answer = (!undelivered).then_some(Notice::Applied { request });
                answer.into_iter().chain(said).map(|notice| (notice, None)).collect()
            }
            Command::Dump { request } => self.dump(request),
            Command::Drain { request, .. } => {
                self.draining = true;
                applied(request)
            }
        }
    }

    fn deliver(&mut self, request: u64, message: &[u8]) -> Option<Notice> {
        let message = Message::parse(message).unwrap();
        let first = message.onward.first().unwrap();
        let left = message.onward.len() as u8;
        let link = self.links.keys().copied().find(|link| link_address(*link) == first.name);
        let Some(link) = link else {
            let reason = DropReason::NoSuchAddress;
            return match self.addresses.get(first.name) {
                Some((Target::Echo, ..)) => Some(punt(None, &message, message.payload, None)),
                _ => Some(Notice::Undelivered { request, reason, left }),
            };
        };
        match self.peer? {
            Peer::Echo => Some(punt(Some(link), &message, message.payload, None)),
            Peer::Undeliverable(reason) => {
                let offer = ockam_wire::undeliverable::Offer::parse(message.tracing?)?;
                let notice =
                    ockam_wire::undeliverable::Notice { token: offer.token, reason: reason as u8, left: 1 }.text();
                Some(punt(Some(link), &message, b"", Some(&notice)))
            }
            Peer::Close => {
                self.links.remove(&link);
                Some(Notice::LinkDown { link, reason: CloseReason::PeerClosed })
            }
        }
    }

    fn dump(&self, request: u64) -> Vec<(Notice, Option<OwnedFd>)> {
        let mut notices = Vec::new();
        for (&listener, (local, flow_control, cookie, socket)) in &self.listeners {
            let (local, flow_control, cookie) = (*local, *flow_control, cookie.clone().into());
            let notice = Notice::Listener { request, listener, local, flow_control, cookie };
            notices.push((notice, Some(socket.try_clone().unwrap())));
        }
        for (&link, (peer, cookie)) in &self.links {
            let notice = Notice::Link {
                request,
                link,
                address: link_address(link).into(),
                peer: *peer,
                local: ([127, 0, 0, 1], 9).into(),
                origin: LinkOrigin::Dialed,
                flow_control: 0,
                traffic: Traffic::default(),
                queued_bytes: 0,
                cookie: cookie.clone().into(),
            };
            notices.push((notice, None));
        }
        for (address, (target, reachable, cookie)) in &self.addresses {
            let (address, cookie) = (Bytes(address.clone()), cookie.clone().into());
            notices.push((Notice::Address { request, address, target: *target, reachable: *reachable, cookie }, None));
        }
        notices.push((Notice::DumpEnd { request }, None));
        notices
    }
}

fn link_address(link: LinkId) -> Vec<u8> {
    format!("{:032x}", link.0).into_bytes()
}

fn punt(link: Option<LinkId>, request: &Message<'_>, payload: &[u8], tracing: Option<&str>) -> Notice {
    let onward = RouteParts { front: &[], rest: request.return_route };
    let back = [AddressRef::local(b"from")];
    let outgoing = Outgoing { onward, return_route: RouteParts::new(&back), payload_len: payload.len(), tracing };
    Notice::Punt { link, message: outgoing.to_frame(payload)[4..].to_vec().into() }
}
