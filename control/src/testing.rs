//! Stand-ins for tests. For the engine process: it speaks `engine/abi` over a socket pair, keeps tables like an engine's,
//! and opens no connection. For the node at the other end of every link: it answers as it is told to, and is a real end of
//! secure channels, keys and all. And a node around them.

use crate::api::CreateSecureChannel;
use crate::home::{Home, NodeDir};
use crate::node::Node;
use crate::resolve::bind_listener;
use crate::store::{ListenerRow, NodeStore, SharedStore};
use crate::supervisor::{Start, Started, Supervisor};
use ockam_crypto::{
    Attestation, Attributes, ChangeHistory, Credential, ExpectMessage3, Identifier, Issuer, PurposePublicKey, Secret,
    SigningKey, Validity, X25519Key, accept, encode_payload,
};
use ockam_engine_abi::ChannelEnd;
use ockam_engine_abi::notice::ChannelTraffic;

use ockam_engine_abi::counter::BLOCK_WORDS;
use ockam_engine_abi::notice::Traffic;
use ockam_engine_abi::record::Bytes;
use ockam_engine_abi::{
    ABI_VERSION, CloseReason, Command, Driver, DropReason, Grants, Guard, GuardSet, LinkId, LinkOrigin, Notice,
    PortalTarget, Refusal, Target, TransitRule, socket,
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
    /// Targets of outlets, and whether strangers reach them; what else there is to them is in `addresses`.
    pub(crate) outlets: BTreeMap<Vec<u8>, (Vec<PortalTarget>, bool)>,
    pub(crate) inlets: BTreeMap<u32, Inlet>,
    /// Ways of relays; what else there is to them is in `addresses`.
    pub(crate) relays: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    pub(crate) links: BTreeMap<LinkId, (SocketAddr, Vec<u8>)>,
    pub(crate) transit: Vec<TransitRule>,
    /// Guards of addresses.
    pub(crate) guards: BTreeMap<Vec<u8>, Guard>,
    /// The guards that let everybody pass.
    pub(crate) open: GuardSet,
    /// What the peers of channels are granted.
    pub(crate) grants: BTreeMap<u32, Grants>,
    /// Everybody who could pass a guard at some time, since a test cleared this: guard and channel, or nobody's when open.
    pub(crate) passed: Vec<(GuardSet, BTreeMap<u32, GuardSet>)>,
    /// Credentials that were shown over channels.
    pub(crate) shown: Vec<(u32, Vec<u8>)>,
    pub(crate) resolved: Vec<Vec<SocketAddr>>,
    /// The next command is refused with this.
    pub(crate) refuse: Option<Refusal>,
    /// What links do with messages: `None` drops them.
    pub(crate) peer: Option<Peer>,
    pub(crate) channels: BTreeMap<u32, Channel>,
    /// Channels that were retired, whether the peer was told.
    pub(crate) retired: Vec<(u32, bool)>,
    /// Messages that control sent over links.
    pub(crate) sent: Vec<Vec<u8>>,
    /// Messages that control sent into channels.
    pub(crate) sent_into: Vec<Vec<u8>>,
    /// The handshake at the other end: the address of its receiving side, and where it stands.
    handshake: Option<(Vec<u8>, ExpectMessage3)>,
    /// What the other end of the last handshake has: its keys for opening and sealing, and who is here.
    pub(crate) established: Option<([u8; 32], [u8; 32], Vec<u8>)>,
    dialed: u32,
    draining: bool,
    connection: Option<Arc<OwnedFd>>,
}

/// An inlet.
pub(crate) struct Inlet {
    pub(crate) guard: Option<Guard>,
    pub(crate) cookie: Vec<u8>,
    pub(crate) socket: OwnedFd,
    pub(crate) way: Option<Vec<u8>>,
    pub(crate) wait_ms: u32,
}

/// A secure channel.
#[derive(Clone)]
pub(crate) struct Channel {
    pub(crate) decryptor: Vec<u8>,
    pub(crate) encryptor: Vec<u8>,
    pub(crate) sealing_key: [u8; 32],
    pub(crate) opening_key: [u8; 32],
    pub(crate) way: Vec<u8>,
    pub(crate) follows_peer: bool,
    pub(crate) flow_control: u8,
    pub(crate) expires_in_ms: Option<u64>,
    pub(crate) cookie: Vec<u8>,
}

/// What the peer behind every link does with a message.
#[derive(Clone)]
pub(crate) enum Peer {
    /// Is a node with this identity and a listener for secure channels. What comes through a channel is echoed, unless it
    /// refuses channels.
    Node(Arc<PeerIdentity>, Manner),
    /// Answers with the payload.
    Echo,
    /// Answers with the payload, and makes relays, whose addresses begin so.
    Relays(&'static str),
    /// Makes no relay of anybody's, and says so.
    NoRelays,
    /// Says that it is undeliverable, with one address left.
    Undeliverable(DropReason),
    /// Closes the link.
    Close,
}

/// How a node takes secure channels.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// All of them.
    Accepts,
    /// None, and says so.
    Refuses,
    /// None, and says nothing.
    Silent,
    /// Answers message 1 with something else.
    Garbage,
}

/// An identity of somebody else.
pub(crate) struct PeerIdentity {
    pub(crate) history: ChangeHistory,
    pub(crate) static_key: X25519Key,
    pub(crate) payload: Vec<u8>,
}

impl PeerIdentity {
    pub(crate) fn new() -> Arc<PeerIdentity> {
        PeerIdentity::showing(|_| Vec::new())
    }

    /// One that shows credentials.
    pub(crate) fn showing(credentials: impl FnOnce(Identifier) -> Vec<Vec<u8>>) -> Arc<PeerIdentity> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let key = SigningKey::new(Secret::new(crate::random::bytes()));
        let history = ChangeHistory::create(&key, Validity { from: now, until: now + 3600 }).unwrap();
        let static_key = X25519Key::new(Secret::new(crate::random::bytes()));
        let purpose = PurposePublicKey::SecureChannel(*static_key.public());
        let attestation = Attestation::create(&history, &key, purpose, now, now + 1800).unwrap();
        let credentials = credentials(history.identifier());
        let credentials: Vec<&[u8]> = credentials.iter().map(Vec::as_slice).collect();
        let payload = encode_payload(&history, &attestation, &credentials);
        Arc::new(PeerIdentity { history, static_key, payload })
    }

    pub(crate) fn identifier(&self) -> Identifier {
        self.history.identifier()
    }
}

/// An authority of somebody else.
pub(crate) struct FakeAuthority {
    pub(crate) history: ChangeHistory,
    pub(crate) issuer: Issuer,
    /// When it was made, in Unix time.
    pub(crate) now: u64,
}

impl FakeAuthority {
    pub(crate) fn new() -> FakeAuthority {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let [key, issuing] = [(); 2].map(|()| SigningKey::new(Secret::new(crate::random::bytes())));
        let history = ChangeHistory::create(&key, Validity { from: now - 10_000, until: now + 1_000_000 }).unwrap();
        let purpose = PurposePublicKey::CredentialSigning(issuing.public());
        let attestation = Attestation::create(&history, &key, purpose, now - 10_000, now + 100_000).unwrap();
        let issuer = Issuer::new(&history, attestation, issuing).unwrap();
        FakeAuthority { history, issuer, now }
    }

    /// What it attests, for so many seconds from the time on when it was made.
    pub(crate) fn issue(&self, subject: Identifier, attributes: &[(&str, &str)], seconds: u64) -> Vec<u8> {
        let mut all = Attributes::new();
        attributes.iter().for_each(|(name, value)| all.insert(*name, *value).unwrap());
        let (from, until) = (self.now, self.now + seconds);
        Credential::issue(&self.issuer, subject, None, 1, &all, from, until).unwrap().encoded().to_vec()
    }
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
            | Command::SetRelay { request, .. }
            | Command::SetOutlet { request, .. }
            | Command::AddInlet { request, .. }
            | Command::RemoveInlet { request, .. }
            | Command::SetTransit { request, .. }
            | Command::SetGuards { request, .. }
            | Command::SetGrants { request, .. }
            | Command::ShowCredentials { request, .. }
            | Command::RemoveListener { request, .. }
            | Command::Dial { request, .. }
            | Command::Transmit { request, .. }
            | Command::InstallChannel { request, .. }
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
            Command::SetGuards { request, open } => {
                self.open = open;
                self.note_passes();
                applied(request)
            }
            Command::SetGrants { request, channels } => {
                for told in channels {
                    if self.channels.contains_key(&told.channel) {
                        self.grants.insert(told.channel, told.grants);
                    }
                }
                self.note_passes();
                applied(request)
            }
            Command::ShowCredentials { request, channel, text } => match self.channels.contains_key(&channel) {
                true => {
                    self.shown.push((channel, text.0));
                    applied(request)
                }
                false => refused(request, Refusal::Unknown),
            },
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
            Command::SetAddress { request, address, target, reachable, guard, cookie } => {
                self.set_guard(&address.0, guard);
                self.addresses.insert(address.0, (target, reachable, cookie.0));
                applied(request)
            }
            Command::SetRelay { request, address, way, reachable, cookie } => {
                self.relays.insert(address.0.clone(), way.map(|way| way.0));
                self.addresses.insert(address.0, (Target::Relay, reachable, cookie.0));
                applied(request)
            }
            Command::ClearAddress { request, address } => match self.addresses.remove(&address.0) {
                Some(_) => {
                    self.set_guard(&address.0, None);
                    applied(request)
                }
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
            Command::InstallChannel {
                request,
                channel,
                decryptor,
                encryptor,
                sealing_key,
                opening_key,
                way,
                follows_peer,
                flow_control,
                expires_in_ms,
                grants,
                cookie,
                ..
            } => {
                self.grants.insert(channel, grants);
                assert_eq!(self.addresses.remove(&decryptor.0).map(|found| found.0), Some(Target::Handshake));
                assert!(self.channels.values().all(|other| other.encryptor != encryptor.0));
                let installed = Channel {
                    decryptor: decryptor.0,
                    encryptor: encryptor.0,
                    sealing_key: *sealing_key.expose(),
                    opening_key: *opening_key.expose(),
                    way: way.0,
                    follows_peer,
                    flow_control,
                    expires_in_ms,
                    cookie: cookie.0,
                };
                assert!(self.channels.insert(channel, installed).is_none(), "channel {channel} twice");
                applied(request)
            }
            Command::RetireChannel { request, channel, close } => match self.channels.remove(&channel) {
                Some(_) => {
                    self.retired.push((channel, close));
                    applied(request)
                }
                None => refused(request, Refusal::Unknown),
            },
            Command::SetOutlet { request, address, targets, reachable, plain, guard, cookie } => {
                self.set_guard(&address.0, guard);
                self.outlets.insert(address.0.clone(), (targets, plain));
                self.addresses.insert(address.0, (Target::Outlet, reachable, cookie.0));
                applied(request)
            }
            Command::AddInlet { request, inlet, guard, cookie } => {
                let socket = descriptor.expect("a listening socket");
                assert!(!self.listeners.contains_key(&inlet), "a listener has the number {inlet}");
                let added = Inlet { guard, cookie: cookie.0, socket, way: None, wait_ms: 0 };
                assert!(self.inlets.insert(inlet, added).is_none(), "inlet {inlet} twice");
                applied(request)
            }
            Command::RouteInlet { request, inlet, way, wait_ms } => match self.inlets.get_mut(&inlet) {
                Some(inlet) => {
                    (inlet.way, inlet.wait_ms) = (way.map(|way| way.0), wait_ms);
                    applied(request)
                }
                None => refused(request, Refusal::Unknown),
            },
            Command::RemoveInlet { request, inlet } => match self.inlets.remove(&inlet) {
                Some(_) => applied(request),
                None => refused(request, Refusal::Unknown),
            },
            Command::Dump { request } => self.dump(request),
            Command::Drain { request, .. } => {
                self.draining = true;
                applied(request)
            }
        }
    }

    fn set_guard(&mut self, address: &[u8], guard: Option<Guard>) {
        match guard {
            Some(guard) => self.guards.insert(address.to_vec(), guard),
            None => self.guards.remove(address),
        };
    }

    fn note_passes(&mut self) {
        let grants = self.grants.iter().map(|(channel, grants)| (*channel, grants.guards)).collect();
        self.passed.push((self.open, grants));
    }

    /// Whether a channel passes a guard now.
    pub(crate) fn passes(&self, channel: u32, guard: Guard) -> bool {
        self.open.contains(guard) || self.grants.get(&channel).is_some_and(|grants| grants.guards.contains(guard))
    }

    fn deliver(&mut self, request: u64, encoded: &[u8]) -> Option<Notice> {
        let message = Message::parse(encoded).unwrap();
        let first = message.onward.first().unwrap();
        let left = message.onward.len() as u8;
        let link = self.links.keys().copied().find(|link| link_address(*link) == first.name);
        let channel = self.channels.iter().find(|(_, channel)| channel.encryptor == first.name);
        if let Some((&number, channel)) = channel {
            self.sent_into.push(encoded.to_vec());
            return match &self.peer {
                Some(Peer::Node(_, Manner::Accepts)) => {
                    let (opens, seals, _) = self.established.as_ref().expect("a handshake at the other end");
                    assert_eq!((&channel.sealing_key, &channel.opening_key), (opens, seals));
                    Some(punt(None, Some(number), &message, message.payload, None))
                }
                Some(Peer::Node(_, Manner::Refuses)) => {
                    self.channels.remove(&number);
                    Some(Notice::ChannelClosed { channel: number, reason: ChannelEnd::ByPeer })
                }
                _ => None,
            };
        }
        let Some(link) = link else {
            let reason = DropReason::NoSuchAddress;
            return match self.addresses.get(first.name) {
                Some((Target::Echo, ..)) => Some(punt(None, None, &message, message.payload, None)),
                Some((Target::Control, ..)) => {
                    let message = encoded.to_vec().into();
                    Some(Notice::Punt { link: None, channel: None, message })
                }
                _ => Some(Notice::Undelivered { request, reason, left }),
            };
        };
        self.sent.push(encoded.to_vec());
        match self.peer.clone()? {
            Peer::Node(identity, manner) => self.peer_node(link, &message, &identity, manner),
            Peer::Echo => Some(punt(Some(link), None, &message, message.payload, None)),
            Peer::Relays(prefix) => {
                let to = message.onward.iter().last().unwrap();
                if to.name != b"static_forwarding_service" {
                    return Some(punt(Some(link), None, &message, message.payload, None));
                }
                let address = format!("{prefix}{}", ockam_wire::bare::read_string(message.payload).unwrap());
                let mut payload = Vec::new();
                ockam_wire::bare::write_string(&address, &mut payload);
                Some(punt_from(address.as_bytes(), Some(link), None, &message, &payload, None))
            }
            Peer::NoRelays if message.onward.iter().last().unwrap().name == b"echo" => {
                Some(punt(Some(link), None, &message, message.payload, None))
            }
            Peer::NoRelays => undeliverable(link, &message, DropReason::NotDelivered),
            Peer::Undeliverable(reason) => undeliverable(link, &message, reason),
            Peer::Close => {
                self.links.remove(&link);
                Some(Notice::LinkDown { link, reason: CloseReason::PeerClosed })
            }
        }
    }

    /// The node behind a link: its end of a handshake.
    fn peer_node(
        &mut self,
        link: LinkId,
        message: &Message<'_>,
        identity: &PeerIdentity,
        manner: Manner,
    ) -> Option<Notice> {
        let (_, onward) = message.onward.split_first().unwrap();
        let to = onward.iter().last().unwrap();
        if to.name == b"api" {
            if manner == Manner::Garbage {
                return Some(punt(Some(link), None, message, b"what is this?", None));
            }
            let ready = accept(message.payload).unwrap();
            let ephemeral = Secret::new(crate::random::bytes());
            let (message_2, expect) = ready.write(&identity.static_key, ephemeral, &identity.payload).unwrap();
            let decryptor = crate::random::hex_id().into_bytes();
            let back =
                [AddressRef::local(&link_address(link)), AddressRef::local(&decryptor)].map(AddressRef::to_address);
            self.handshake = Some((decryptor, expect));
            let back = back.each_ref().map(ockam_wire::Address::as_ref);
            let outgoing = Outgoing {
                onward: RouteParts { front: &[], rest: message.return_route },
                return_route: RouteParts::new(&back),
                payload_len: message_2.len(),
                tracing: None,
            };
            let message = outgoing.to_frame(&message_2)[4..].to_vec().into();
            return Some(Notice::Punt { link: Some(link), channel: None, message });
        }
        // Messages 2 of the node are for who asked for them.
        let (_, expect) = self.handshake.take_if(|(decryptor, _)| *decryptor == to.name)?;
        let (claimed, established) = expect.read(message.payload).expect("message 3 is genuine");
        let keys = (*established.opening_key.expose(), *established.sealing_key.expose());
        self.established = Some((keys.0, keys.1, claimed.payload));
        None
    }

    fn dump(&self, request: u64) -> Vec<(Notice, Option<OwnedFd>)> {
        let mut notices = Vec::new();
        for (&listener, (local, flow_control, cookie, socket)) in &self.listeners {
            let (local, flow_control, cookie) = (*local, *flow_control, cookie.clone().into());
            let notice = Notice::Listener { request, listener, local, flow_control, cookie };
            notices.push((notice, Some(socket.try_clone().unwrap())));
        }
        for (&inlet, Inlet { guard, cookie, socket, way, .. }) in &self.inlets {
            let (guard, way, cookie) = (*guard, way.clone().map(Bytes), cookie.clone().into());
            let notice = Notice::Inlet { request, inlet, way, connections: 1, guard, cookie };
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
            let guard = self.guards.get(address).copied();
            let (address, cookie) = (Bytes(address.clone()), cookie.clone().into());
            notices.push((
                Notice::Address { request, address, target: *target, reachable: *reachable, guard, cookie },
                None,
            ));
        }
        for (&number, channel) in &self.channels {
            let notice = Notice::Channel {
                request,
                channel: number,
                decryptor: channel.decryptor.clone().into(),
                encryptor: channel.encryptor.clone().into(),
                way: channel.way.clone().into(),
                flow_control: channel.flow_control,
                expires_in_ms: channel.expires_in_ms,
                traffic: ChannelTraffic::default(),
                cookie: channel.cookie.clone().into(),
            };
            notices.push((notice, None));
        }
        notices.push((Notice::DumpEnd { request }, None));
        notices
    }
}

pub(crate) fn link_address(link: LinkId) -> Vec<u8> {
    format!("{:032x}", link.0).into_bytes()
}

/// The notice that a message was not delivered, if it asked for one.
fn undeliverable(link: LinkId, message: &Message<'_>, reason: DropReason) -> Option<Notice> {
    let offer = ockam_wire::undeliverable::Offer::parse(message.tracing?)?;
    let notice = ockam_wire::undeliverable::Notice { token: offer.token, reason: reason as u8, left: 1 }.text();
    Some(punt(Some(link), None, message, b"", Some(&notice)))
}

fn punt(
    link: Option<LinkId>,
    channel: Option<u32>,
    request: &Message<'_>,
    payload: &[u8],
    tracing: Option<&str>,
) -> Notice {
    punt_from(b"from", link, channel, request, payload, tracing)
}

fn punt_from(
    from: &[u8],
    link: Option<LinkId>,
    channel: Option<u32>,
    request: &Message<'_>,
    payload: &[u8],
    tracing: Option<&str>,
) -> Notice {
    let onward = RouteParts { front: &[], rest: request.return_route };
    let back = [AddressRef::local(from)];
    let outgoing = Outgoing { onward, return_route: RouteParts::new(&back), payload_len: payload.len(), tracing };
    Notice::Punt { link, channel, message: outgoing.to_frame(payload)[4..].to_vec().into() }
}

/// A node whose engines are stand-ins: each start takes the next one.
pub(crate) struct World {
    _temporary: tempfile::TempDir,
    pub(crate) dir: NodeDir,
    pub(crate) loopback: SocketAddr,
    pub(crate) engines: Arc<Mutex<Vec<FakeEngine>>>,
    started: Arc<Mutex<usize>>,
}

impl World {
    pub(crate) fn new(engines: usize) -> World {
        let temporary = tempfile::tempdir().unwrap();
        let home = Home::at(temporary.path().join("home"));
        home.prepare().unwrap();
        let dir = home.node(&"n1".parse().unwrap());
        dir.prepare().unwrap();
        SharedStore::open(&home).unwrap().add(dir.name()).unwrap();
        let mut store = NodeStore::open(&dir).unwrap();
        let [a, b] = crate::random::bytes::<2>();
        // Its own loopback address: no other test can take a port that is free for a moment.
        let loopback: SocketAddr = ([127, 100, a, b], 0).into();
        let address = bind_listener(loopback).unwrap().1;
        store.add_listener(&ListenerRow { bit: 1, address, flow_control: crate::random::hex_id() }).unwrap();
        let engines = (0..engines).map(|_| FakeEngine::start()).collect();
        World { _temporary: temporary, dir, loopback, engines: Arc::new(Mutex::new(engines)), started: Arc::default() }
    }

    /// A control process; `adopts` the engine that was started last.
    pub(crate) async fn control(&self, adopts: bool) -> (Arc<Node>, Arc<Supervisor>) {
        let node = Node::new(self.dir.clone(), NodeStore::open(&self.dir).unwrap(), Default::default()).unwrap();
        let (engines, started) = (self.engines.clone(), self.started.clone());
        let adopt = Mutex::new(adopts);
        let start: Start = Box::new(move |_, _| {
            let adopted = std::mem::take(&mut *adopt.lock().unwrap());
            let mut started = started.lock().unwrap();
            *started += usize::from(!adopted);
            let engine = &engines.lock().unwrap()[*started - 1];
            Ok(Started { socket: engine.connect(), process: engine.process(), child: None, adopted })
        });
        let supervisor = Supervisor::new(node.clone(), start);
        supervisor.bring_up().await.unwrap();
        (node, supervisor)
    }

    pub(crate) fn tables<T>(&self, engine: usize, look: impl FnOnce(&mut Tables) -> T) -> T {
        look(&mut self.engines.lock().unwrap()[engine].tables.lock().unwrap())
    }

    /// A channel of the first engine to somebody: its number and the local name of its sending side. `then` is who answers
    /// there once it is open.
    pub(crate) async fn channel(
        &self,
        node: &Arc<Node>,
        peer: &Arc<PeerIdentity>,
        then: Option<Peer>,
    ) -> (u32, String) {
        self.tables(0, |tables| tables.peer = Some(Peer::Node(peer.clone(), Manner::Accepts)));
        let request = CreateSecureChannel {
            route: "/ip4/127.0.0.1/tcp/9/service/api".into(),
            authorized: Vec::new(),
            authorized_on_the_way: Vec::new(),
            identity: None,
            timeout_ms: 60_000,
        };
        let address = crate::channels::create(node, request).await.unwrap().address;
        self.tables(0, |tables| tables.peer = then);
        (node.channels.numbered(address.as_bytes()).unwrap(), address)
    }
}

pub(crate) fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}
