//! The cores as shipped, under a driver that is not the kernel: completions come in any order, short, failed, late; slots
//! run out at once; tables change under load; time jumps.
//!
//! Everything follows from one seed. `OCKAM_SIM_SEED=n cargo test -p ockam-engine simulation` replays one with a trace;
//! `OCKAM_SIM_SEEDS=n` runs the first n.
//!
//! The world: clients that connect and ask, in order, for echoes through different routes; nodes that answer what is sent
//! to them, behind links that control dialed and behind TCP addresses in routes. The model: a client that is left alone
//! gets every answer, once, unchanged, and per route in order. A client that is reset gets a prefix of that per route.
//!
//! Each client also has a channel to its node, and a network in between that delays, drops, repeats and forges its
//! records, and moves it from one connection to another. What was delivered and genuine is answered once, and nothing else.

mod guards;
mod portals;
mod slots;
mod turns;

use super::mesh::{FromCore, Mesh, ToCore};
use super::*;
use crate::io::driver::{Answer, ReceiveEnd};
use crate::io::pool::Segment;
use crate::path::channel::Channel;
use crate::path::guard::Granted;
use crate::path::tables::Access;
use ockam_crypto::{Opener, OutgoingPlaintext, Plaintext, Sealer, Secret};
use ockam_engine_abi::notice::Driver as DriverKind;
use ockam_engine_abi::{DropReason, Grants, GuardSet, Notice, Target};
use ockam_wire::{AddressRef, Framer, Message, Outgoing, PREAMBLE, RouteParts, TCP};
use rustix::io::Errno;
use rustix::net::SocketAddrAny;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;

/// xorshift64*: the same numbers for the same seed everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 11) as usize % bound
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// One end of a connection between a core and something outside of it.
#[derive(Default)]
struct Wire {
    to_core: VecDeque<u8>,
    from_core: Vec<u8>,
    /// How much of that the other side has read.
    read: usize,
    /// The other side will write no more.
    ended: bool,
    /// The connection is broken.
    reset: bool,
    /// The core said that it sends no more.
    finished: bool,
    /// The core closed its side.
    closed: bool,
    /// It did so by a reset.
    aborted: bool,
}

type Shared<T> = Rc<RefCell<T>>;

/// What a fake socket is doing.
#[derive(Default)]
struct FakeSocket {
    wire: Option<Shared<Wire>>,
    receiving: bool,
    /// The next bytes end that.
    once: bool,
    /// Where they go, if not into a provided slot.
    into: Option<(Slot, Range<usize>)>,
    pausing: bool,
    /// An application's.
    stream: bool,
    connecting: Option<SocketAddr>,
    /// Bytes of the send in flight.
    sending: Option<Vec<u8>>,
    /// When its end is said.
    answer: Answer,
    closing: bool,
    aborting: bool,
}

/// A connection takes no more while this many bytes of it are unread.
const WINDOW: usize = 40_000;

/// See the module.
struct FakeDriver {
    random: Shared<Random>,
    sockets: HashMap<u32, (u32, FakeSocket)>,
    slots: Vec<Slot>,
    /// What no wait ends for.
    sent: Vec<Done>,
    /// Connections that the outside answers: the far end appears here.
    dialed: Shared<Vec<(SocketAddr, Shared<Wire>)>>,
    now_ms: Rc<Cell<u64>>,
    /// The next wait is this long.
    sleep_ms: u64,
    /// The wire that the next adopted socket gets: accepted connections have no real descriptor behind them.
    next_wire: Shared<Option<Shared<Wire>>>,
}

impl FakeDriver {
    fn socket(&mut self, id: SocketId) -> &mut FakeSocket {
        let (generation, socket) = self.sockets.get_mut(&id.index).expect("the core names sockets that it adopted");
        assert_eq!(*generation, id.generation, "the core names the current use of an index");
        assert!(!socket.closing, "the core asks nothing of a socket after it closed it");
        socket
    }
}

impl Driver for FakeDriver {
    fn kind(&self) -> DriverKind {
        DriverKind::Epoll
    }

    fn adopt(&mut self, id: SocketId, _socket: OwnedFd) {
        let wire = self.next_wire.borrow_mut().take();
        let earlier = self.sockets.insert(id.index, (id.generation, FakeSocket { wire, ..FakeSocket::default() }));
        assert!(earlier.is_none(), "an index is used again only after it was closed");
    }

    fn adopt_stream(&mut self, id: SocketId, socket: OwnedFd) {
        self.adopt(id, socket);
        self.socket(id).stream = true;
    }

    fn accept(&mut self, _id: SocketId) {}

    fn connect(&mut self, id: SocketId, target: impl Into<SocketAddrAny>) {
        let target = SocketAddr::try_from(target.into()).expect("the world dials TCP addresses");
        self.socket(id).connecting = Some(target);
    }

    fn receive(&mut self, id: SocketId) {
        let socket = self.socket(id);
        assert!(!socket.receiving, "the core knows that it receives");
        (socket.receiving, socket.once) = (true, false);
    }

    fn receive_once(&mut self, id: SocketId) {
        let socket = self.socket(id);
        assert!(!socket.receiving, "the core knows that it receives");
        (socket.receiving, socket.once) = (true, true);
    }

    fn receive_into(&mut self, id: SocketId, slot: Slot, room: Range<usize>) {
        let socket = self.socket(id);
        assert!(!socket.receiving, "the core knows that it receives");
        (socket.receiving, socket.once) = (true, true);
        socket.into = Some((slot, room));
    }

    fn pause(&mut self, id: SocketId) {
        let socket = self.socket(id);
        assert!(socket.receiving && !socket.pausing);
        socket.pausing = true;
    }

    fn send<'a>(&mut self, id: SocketId, segments: impl Iterator<Item = &'a Segment>, answer: Answer) {
        let most = 1 + self.random.borrow_mut().below(8);
        let bytes: Vec<u8> = segments.take(most).flat_map(|segment| segment.bytes().to_vec()).collect();
        let socket = self.socket(id);
        assert!(socket.sending.is_none(), "one send per socket");
        socket.sending = Some(bytes);
        socket.answer = answer;
    }

    fn shutdown(&mut self, id: SocketId) {
        let socket = self.socket(id);
        assert!(socket.stream && socket.sending.is_none(), "a stream without a send in flight is shut down");
        let wire = socket.wire.as_ref().expect("only connected sockets are shut down");
        wire.borrow_mut().finished = true;
    }

    fn close(&mut self, id: SocketId) {
        self.socket(id).closing = true;
    }

    fn abort(&mut self, id: SocketId) {
        let socket = self.socket(id);
        assert!(socket.stream, "only streams are aborted");
        (socket.closing, socket.aborting) = (true, true);
    }

    fn provide(&mut self, slot: Slot) {
        self.slots.push(slot);
    }

    fn withdraw(&mut self) -> Option<Slot> {
        self.slots.pop()
    }

    fn provided(&self) -> usize {
        self.slots.len()
    }

    fn wait(&mut self, _now_ms: u64, _until_ms: u64, burst: &mut Vec<Done>) -> io::Result<()> {
        self.now_ms.set(self.now_ms.get() + std::mem::take(&mut self.sleep_ms));
        let mut indexes: Vec<u32> = self.sockets.keys().copied().collect();
        indexes.sort_unstable();
        let mut random = self.random.borrow_mut();
        for turn in (1..indexes.len()).rev() {
            indexes.swap(turn, random.below(turn + 1));
        }
        for index in indexes {
            // Anything may take any time.
            if random.chance(40) {
                continue;
            }
            let (generation, socket) = self.sockets.get_mut(&index).expect("it is listed");
            let id = SocketId { index, generation: *generation };
            if let Some(bytes) = &socket.sending {
                let wire = socket.wire.clone().expect("only connected sockets send");
                let mut wire = wire.borrow_mut();
                // A send in flight of a closed socket still ends, some way or other.
                let waits = wire.from_core.len() - wire.read > WINDOW && !socket.closing && !wire.reset;
                let result = if waits {
                    None
                } else if wire.reset {
                    Some(Err(Errno::CONNRESET))
                } else if socket.closing && random.chance(50) {
                    Some(Err(Errno::CANCELED))
                } else {
                    let short = random.chance(30) && !bytes.is_empty();
                    let count = if short { 1 + random.below(bytes.len()) } else { bytes.len() };
                    wire.from_core.extend_from_slice(&bytes[..count]);
                    Some(Ok(count))
                };
                if let Some(result) = result {
                    let all = result == Ok(bytes.len());
                    socket.sending = None;
                    let said = if all && socket.answer == Answer::WithTheNext { &mut self.sent } else { &mut *burst };
                    said.push(Done::Sent { socket: id, result });
                    continue;
                }
            }
            if socket.closing {
                if let Some(wire) = &socket.wire {
                    let mut wire = wire.borrow_mut();
                    (wire.closed, wire.aborted) = (true, socket.aborting);
                }
                if let Some((slot, _)) = socket.into.take() {
                    burst.push(Done::Filled { socket: id, slot, length: 0 });
                }
                self.sockets.remove(&index);
                burst.push(Done::Closed { socket: id });
                continue;
            }
            if let Some(target) = socket.connecting.take() {
                let result = if target.port() % 2 == 1 {
                    Err(Errno::CONNREFUSED)
                } else {
                    let wire = Shared::<Wire>::default();
                    socket.wire = Some(wire.clone());
                    self.dialed.borrow_mut().push((target, wire));
                    Ok("127.0.0.1:1".parse().expect("an address"))
                };
                burst.push(Done::Connected { socket: id, result });
                continue;
            }
            if !socket.receiving {
                continue;
            }
            let wire = socket.wire.clone().expect("only connected sockets receive");
            let mut wire = wire.borrow_mut();
            let end = if wire.reset {
                Some(ReceiveEnd::Failed(Errno::CONNRESET))
            } else if !wire.to_core.is_empty() && random.chance(80) {
                let given = socket.into.is_some();
                let body = SLOT_HEAD..SLOT_HEAD + SLOT_BODY;
                match socket.into.take().or_else(|| Some((self.slots.pop()?, body))) {
                    None => Some(ReceiveEnd::NoSlots),
                    Some((mut slot, room)) => {
                        let most = wire.to_core.len().min(room.len());
                        let length = if random.chance(50) { 1 + random.below(most) } else { most };
                        let body = slot.bytes_mut(room.start..room.start + length);
                        body.iter_mut().zip(wire.to_core.drain(..length)).for_each(|(to, from)| *to = from);
                        burst.push(match given {
                            true => Done::Filled { socket: id, slot, length },
                            false => Done::Received { socket: id, slot, length },
                        });
                        if socket.once {
                            (socket.receiving, socket.pausing) = (false, false);
                        }
                        None
                    }
                }
            } else if socket.pausing {
                Some(ReceiveEnd::Paused)
            } else if wire.to_core.is_empty() && wire.ended {
                Some(ReceiveEnd::Eof)
            } else if self.slots.is_empty() && socket.into.is_none() && random.chance(20) {
                // A multishot ends for want of slots even with nothing to receive.
                Some(ReceiveEnd::NoSlots)
            } else {
                None
            };
            if let Some(end) = end {
                let (_, socket) = self.sockets.get_mut(&index).expect("it is listed");
                socket.receiving = false;
                socket.pausing = false;
                if let Some((slot, _)) = socket.into.take() {
                    burst.push(Done::Filled { socket: id, slot, length: 0 });
                }
                burst.push(Done::ReceiveEnded { socket: id, end });
            }
        }
        // With the next thing, or with the end of the wait.
        if !burst.is_empty() || random.chance(20) {
            burst.splice(0..0, self.sent.drain(..));
        }
        Ok(())
    }
}

/// What a client asks for, and through what; one sequence of answers each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Via {
    /// The service of this node.
    Echo,
    /// The service, behind local forwarders.
    Hops,
    /// A node behind a TCP address.
    Transit,
    /// A node behind a link that control dialed, maybe of another core.
    Worker,
    /// A service that comes and goes: answers may be missing.
    Flickering,
    /// Nothing: no answer.
    Nowhere,
    /// The service, through the client's channel.
    Sealed,
}

const VIAS: [Via; 9] = [
    Via::Echo,
    Via::Hops,
    Via::Transit,
    Via::Worker,
    Via::Flickering,
    Via::Nowhere,
    Via::Sealed,
    Via::Sealed,
    Via::Sealed,
];

/// A client's end of its channel, and what the network does to its records.
struct End {
    sealer: Sealer,
    opener: Opener,
    decryptor: String,
    /// The second connection, once the channel is installed.
    other: Option<Shared<Wire>>,
    other_framer: Framer,
    /// Taken by the engine: what it answers must be one of these.
    unanswered: Vec<Vec<u8>>,
    /// Frames that the network holds back.
    held: Vec<Vec<u8>>,
    /// What makes the engine's end, until it is made.
    install: Option<Arc<Channel>>,
}

/// Records on their way at the same time: fewer than the window is wide, whatever their order.
const RECORDS_MAX: usize = 12;

struct Client {
    wire: Shared<Wire>,
    framer: Framer,
    asked: BTreeMap<Via, Vec<Vec<u8>>>,
    answered: BTreeMap<Via, usize>,
    disturbed: bool,
    questions: usize,
    end: End,
}

/// Something outside that answers every message along its return route.
struct Node {
    wire: Shared<Wire>,
    framer: Framer,
    greeted: bool,
}

struct World {
    random: Shared<Random>,
    trace: bool,
    mesh: Arc<Mesh>,
    cores: Vec<Core<FakeDriver>>,
    /// Keeps the counters mapped.
    _page: crate::io::counters::CounterPage,
    dialed: Shared<Vec<(SocketAddr, Shared<Wire>)>>,
    next_wires: Vec<Shared<Option<Shared<Wire>>>>,
    clients: Vec<Client>,
    nodes: Vec<Node>,
    workers: Vec<String>,
    /// What the core said in the last tick, and the time that it took for now when that began.
    said: Vec<FromCore>,
    tick_began_ms: u64,
    now_ms: Rc<Cell<u64>>,
    requests: u64,
    /// Whether the first client asks much and reads little.
    greedy: bool,
}

impl World {
    fn new(seed: u64, trace: bool) -> World {
        let random = Rc::new(RefCell::new(Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)));
        let count = 1 + random.borrow_mut().below(2);
        let greedy = random.borrow_mut().chance(40);
        let mesh = Arc::new(Mesh::new(count, crate::config::PORTAL_MEMORY).unwrap());
        let (mut page, _) = crate::io::counters::CounterPage::create(count).unwrap();
        let dialed = Shared::<Vec<(SocketAddr, Shared<Wire>)>>::default();
        let now_ms = Rc::new(Cell::new(crate::clock::now_ms()));
        let next_wires: Vec<Shared<Option<Shared<Wire>>>> = (0..count).map(|_| Shared::default()).collect();
        let cores = (0..count)
            .map(|index| {
                let driver = FakeDriver {
                    sent: Vec::new(),
                    random: random.clone(),
                    sockets: HashMap::new(),
                    slots: Vec::new(),
                    dialed: dialed.clone(),
                    now_ms: now_ms.clone(),
                    sleep_ms: 0,
                    next_wire: next_wires[index].clone(),
                };
                Core::new(index as u8, driver, mesh.clone(), page.core(index)).unwrap()
            })
            .collect();
        World {
            random,
            trace,
            mesh,
            cores,
            _page: page,
            dialed,
            next_wires,
            clients: Vec::new(),
            nodes: Vec::new(),
            workers: Vec::new(),
            said: Vec::new(),
            tick_began_ms: 0,
            now_ms,
            requests: 0,
            greedy,
        }
    }

    fn say(&self, what: std::fmt::Arguments<'_>) {
        if self.trace {
            eprintln!("{:>9} {what}", self.now_ms.get());
        }
    }

    fn order(&mut self, core: usize, command: impl FnOnce(u64) -> ToCore) {
        self.requests += 1;
        self.mesh.cores[core].commands.push(command(self.requests)).expect("the queue has room");
    }

    fn set(&mut self, name: &str, target: Target) {
        let handshake = (target == Target::Handshake).then(Arc::default);
        for core in 0..self.cores.len() {
            let address: Arc<[u8]> = name.as_bytes().into();
            let handshake = handshake.clone();
            self.order(core, |serial| ToCore::Set {
                request: serial,
                address,
                target,
                access: Access { reachable: 0b10, guard: None },
                serial,
                handshake,
            });
        }
    }

    fn clear(&mut self, name: &str) {
        for core in 0..self.cores.len() {
            let address: Arc<[u8]> = name.as_bytes().into();
            self.order(core, |request| ToCore::Clear { request, address, serial: 0 });
        }
    }

    /// A client whose descriptor is real enough to have addresses, and whose bytes are the world's.
    fn connect(&mut self, core: usize, listener: &std::net::TcpListener, questions: usize) {
        let outside = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (inside, _) = listener.accept().unwrap();
        let wire = Shared::<Wire>::default();
        wire.borrow_mut().to_core.push_back(PREAMBLE);
        *self.next_wires[core].borrow_mut() = Some(wire.clone());
        self.cores[core].adopt_accepted(inside.into(), 1, 1);
        drop(outside);
        let link = self.cores[core].links.iter().map(|link| (link.id, link.address)).max().expect("it was just added");
        let end = self.handshake(link, &wire);
        self.clients.push(Client {
            wire,
            framer: Framer::new(),
            asked: BTreeMap::new(),
            answered: BTreeMap::new(),
            disturbed: false,
            questions,
            end,
        });
    }

    /// The last message of a handshake is on its way; the engine's end is still to be installed.
    fn handshake(&mut self, (link, address): (LinkId, [u8; 32]), wire: &Shared<Wire>) -> End {
        let number = self.clients.len() as u32 + 1;
        let keys = |which: u8| Secret::new([number as u8 * 2 + which; 32]);
        let decryptor = format!("decryptor {number}");
        self.set(&decryptor, Target::Handshake);
        let local = |name| AddressRef { kind: ockam_wire::LOCAL, name };
        let message = |onward: &[AddressRef<'_>], payload: &[u8]| {
            let (onward, return_route) = (RouteParts::new(onward), RouteParts::EMPTY);
            Outgoing { onward, return_route, payload_len: payload.len(), tracing: None }.to_frame(payload)
        };
        wire.borrow_mut().to_core.extend(message(&[local(decryptor.as_bytes())], b"message 3"));
        let way = message(&[local(&address), local(b"p")], b"");
        let channel = Channel::new(
            number,
            (format!("encryptor {number}").into_bytes().into(), decryptor.as_bytes().into()),
            u64::from(number) << 32,
            1,
            true,
            Granted::new(&Grants::default(), 0),
            (Sealer::new(keys(0)), Opener::new(keys(1))),
            crate::path::channel::read_way(&way[4..]).expect("it begins inside"),
            Some(link),
            crate::path::bucket::Bucket::new(9, 0),
        );
        End {
            sealer: Sealer::new(keys(1)),
            opener: Opener::new(keys(0)),
            decryptor,
            other: None,
            other_framer: Framer::new(),
            unanswered: Vec::new(),
            held: Vec::new(),
            install: Some(Arc::new(channel)),
        }
    }

    /// Control has done its part: the engine gets its end, and the client may come by another connection, too.
    fn install(&mut self, number: usize, listener: &std::net::TcpListener) {
        let Some(channel) = self.clients[number].end.install.take() else { return };
        self.say(format_args!("channel {number} is installed"));
        for core in 0..self.cores.len() {
            let channel = channel.clone();
            self.order(core, |request| ToCore::Install { request, channel, reachable: 0b10, serial: request });
        }
        if self.random.borrow_mut().chance(50) {
            let core = self.random.borrow_mut().below(self.cores.len());
            let outside = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (inside, _) = listener.accept().unwrap();
            let wire = Shared::<Wire>::default();
            wire.borrow_mut().to_core.push_back(PREAMBLE);
            *self.next_wires[core].borrow_mut() = Some(wire.clone());
            self.cores[core].adopt_accepted(inside.into(), 1, 1);
            drop(outside);
            self.clients[number].end.other = Some(wire);
        }
    }

    /// Asks through the client's channel, over a network that is not to be trusted.
    fn ask_sealed(&mut self, number: usize) {
        let mut random = self.random.borrow_mut();
        let client = &mut self.clients[number];
        let end = &mut client.end;
        if end.unanswered.len() + end.held.len() >= RECORDS_MAX {
            return;
        }
        let size = match (random.below(10), &end.install) {
            (0, None) => 100_000 + random.below(200_000),
            (1..4, None) => COPY_LIKE + random.below(60_000),
            _ => random.below(300),
        };
        let sequence = client.asked.get(&Via::Sealed).map_or(0, Vec::len);
        let mut payload: Vec<u8> = (0..size).map(|place| (place as u64 * 37 + sequence as u64) as u8).collect();
        payload.extend_from_slice(&(sequence as u64).to_be_bytes());
        let (echo, back) = ([AddressRef::local(b"echo")], [AddressRef::local(b"s")]);
        let (onward, return_route) = (RouteParts::new(&echo), RouteParts::new(&back));
        let text = OutgoingPlaintext::new(Outgoing { onward, return_route, payload_len: payload.len(), tracing: None });
        let text = text.to_text(&payload);
        let record = end.sealer.seal(&text).expect("nonces are left");
        let to = [AddressRef::local(end.decryptor.as_bytes())];
        let frame = |record: &[u8]| {
            let (onward, return_route) = (RouteParts::new(&to), RouteParts::EMPTY);
            Outgoing { onward, return_route, payload_len: record.len(), tracing: None }.to_frame(record)
        };
        client.questions -= 1;
        let wire = match &end.other {
            Some(other) if random.chance(40) => other.clone(),
            _ => client.wire.clone(),
        };
        if random.chance(5) {
            let place = random.below(record.len());
            let mut forged = record.clone();
            forged[place] ^= 1 << random.below(8);
            wire.borrow_mut().to_core.extend(frame(&forged));
        }
        let frame = frame(&record);
        match random.below(20) {
            // Lost.
            0 => return,
            1..4 if end.held.len() < 3 => end.held.push(frame.clone()),
            4 => {
                wire.borrow_mut().to_core.extend(&frame);
                wire.borrow_mut().to_core.extend(&frame);
            }
            _ => wire.borrow_mut().to_core.extend(&frame),
        }
        end.unanswered.push(payload.clone());
        client.asked.entry(Via::Sealed).or_default().push(payload);
        // What was held back comes late, and in another order.
        if random.chance(40)
            && let Some(late) = end.held.pop()
        {
            wire.borrow_mut().to_core.extend(late);
        }
    }

    fn tick(&mut self) {
        let core = self.random.borrow_mut().below(self.cores.len());
        let elapsed = if self.random.borrow_mut().chance(5) { 700 } else { 1 };
        self.cores[core].driver.sleep_ms += elapsed;
        let mut burst = Vec::new();
        // The memory is checked before the completions of this tick are handled and after those of the last.
        let census = &self.cores[core];
        census.pool.assert_conserved(census.driver.provided());
        let now_ms = self.now_ms.clone();
        self.tick_began_ms = self.cores[core].now_ms;
        self.said.clear();
        self.cores[core].tick(|| now_ms.get(), &mut burst).unwrap();
        while let Some(said) = self.mesh.notices.pop() {
            match &said {
                FromCore::Notice(Notice::LinkUp { address, .. }) => {
                    self.workers.push(String::from_utf8(address.0.clone()).unwrap());
                }
                FromCore::Notice(Notice::Punt { .. }) => {
                    self.mesh.punts_waiting.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
                }
                _ => {}
            }
            self.said.push(said);
        }
    }

    /// Everybody has left: every slot comes home, every index is free.
    fn ends_well(&mut self, seed: u64) {
        for _ in 0..20_000 {
            self.tick();
            for (_, wire) in self.dialed.take() {
                wire.borrow_mut().reset = true;
            }
            if self.cores.iter().all(|core| core.links.is_empty() && core.overflow.is_empty())
                && self.mesh.cores.iter().all(|core| core.crossing.iter().all(|queue| queue.is_empty()))
            {
                break;
            }
        }
        for core in &self.cores {
            assert!(core.links.is_empty(), "seed {seed}: a link or a connection is left");
            assert_eq!((core.held_partials, core.portals.taken()), (0, 0), "seed {seed}");
            assert!(core.unsaid.is_empty(), "seed {seed}: something was not said");
            let (free, kernel, held) = core.pool.census();
            let scribe = usize::from(core.scribe.slot.is_some());
            assert_eq!(held, scribe, "seed {seed}: slots are lost ({free} free, {kernel} in the kernel)");
            assert_eq!(core.pool.large_used(), 0, "seed {seed}: large slots are lost");
        }
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        assert_eq!(self.mesh.assembly_bytes.load(relaxed), 0, "seed {seed}");
        let waiting: usize = self.cores[0].tables.handshakes.values().map(|handshake| handshake.bytes()).sum();
        assert_eq!(self.mesh.parked_bytes.load(relaxed), waiting, "seed {seed}");
        assert_eq!(self.mesh.portal_bytes_kept.load(relaxed), 0, "seed {seed}: bytes are kept for nobody");
        assert_eq!(self.mesh.portal_windows.load(relaxed), 0, "seed {seed}: windows are left open");
    }

    /// The outside does something.
    fn act(&mut self) {
        for (target, wire) in self.dialed.take() {
            self.say(format_args!("{target} is dialed"));
            self.nodes.push(Node { wire, framer: Framer::new(), greeted: false });
        }
        for node in &mut self.nodes {
            node.act(&mut self.random.borrow_mut());
        }
        for number in 0..self.clients.len() {
            self.act_as(number);
        }
    }

    fn act_as(&mut self, number: usize) {
        let ask = self.clients[number].questions > 0 && self.random.borrow_mut().chance(30);
        if ask {
            self.ask(number);
        }
        let reads = self.random.borrow_mut().chance(if number == 0 && self.greedy { 3 } else { 70 });
        let client = &mut self.clients[number];
        if reads {
            client.hear(number);
        }
    }

    fn ask(&mut self, number: usize) {
        let via = VIAS[self.random.borrow_mut().below(VIAS.len())];
        if via == Via::Sealed {
            return self.ask_sealed(number);
        }
        let mut random = self.random.borrow_mut();
        let size = match random.below(20) {
            0 => 150_000 + random.below(300_000),
            1..4 => COPY_LIKE + random.below(60_000),
            _ => random.below(300),
        };
        // Now and then somebody is in a hurry.
        let size = if number == 0 && self.greedy { size.max(60_000) } else { size };
        let worker = match self.workers.len() {
            0 => None,
            count => Some(self.workers[random.below(count)].clone()),
        };
        let client = &mut self.clients[number];
        let sequence = client.asked.get(&via).map_or(0, Vec::len);
        let mut payload: Vec<u8> = (0..size).map(|place| (place as u64 * 31 + sequence as u64) as u8).collect();
        payload.extend_from_slice(&(sequence as u64).to_be_bytes());
        let transit = AddressRef {
            kind: TCP,
            name: if number.is_multiple_of(2) { b"127.0.0.1:6000" } else { b"127.0.0.1:6002" },
        };
        let local = |name| AddressRef { kind: ockam_wire::LOCAL, name };
        let onward: Vec<AddressRef<'_>> = match (via, &worker) {
            (Via::Echo, _) => vec![local(b"echo")],
            (Via::Hops, _) => vec![local(b"hop"), local(b"hop"), local(b"echo")],
            (Via::Transit, _) => vec![transit, local(b"far")],
            (Via::Worker, Some(worker)) => vec![local(b"hop"), local(worker.as_bytes()), local(b"far")],
            (Via::Worker, None) => return,
            (Via::Flickering, _) => vec![local(b"flicker")],
            (Via::Nowhere, _) => match random.below(3) {
                0 => vec![local(b"nothing")],
                1 => vec![AddressRef { kind: TCP, name: b"127.0.0.1:6001" }, local(b"far")],
                _ => vec![AddressRef { kind: TCP, name: b"10.0.0.1:6000" }, local(b"far")],
            },
            (Via::Sealed, _) => unreachable!("that is asked elsewhere"),
        };
        // The route tells the answers of one kind from those of another.
        let back = [local(match via {
            Via::Echo => b"a".as_slice(),
            Via::Hops => b"b",
            Via::Transit => b"c",
            Via::Worker => b"d",
            Via::Flickering => b"e",
            Via::Nowhere | Via::Sealed => b"f",
        })];
        let frame = Outgoing {
            onward: RouteParts::new(&onward),
            return_route: RouteParts::new(&back),
            payload_len: payload.len(),
            tracing: random.chance(50).then_some("{}"),
        }
        .to_frame(&payload);
        client.wire.borrow_mut().to_core.extend(frame);
        client.asked.entry(via).or_default().push(payload);
        client.questions -= 1;
    }

    fn reset(&mut self, number: usize) {
        self.clients[number].disturbed = true;
        self.clients[number].questions = 0;
        let wire = self.clients[number].wire.clone();
        if let Some(other) = &self.clients[number].end.other {
            other.borrow_mut().ended = true;
        }
        if self.random.borrow_mut().chance(50) {
            wire.borrow_mut().reset = true;
        } else {
            wire.borrow_mut().ended = true;
        }
        self.say(format_args!("client {number} goes"));
    }
}

/// Payloads from about here on are not copied.
const COPY_LIKE: usize = crate::config::COPY_MAX - 100;

impl Node {
    fn act(&mut self, random: &mut Random) {
        let mut wire = self.wire.borrow_mut();
        if !self.greeted && random.chance(50) {
            self.greeted = true;
            wire.to_core.push_back(PREAMBLE);
        }
        if random.chance(30) {
            return;
        }
        let fresh = wire.from_core[wire.read..].to_vec();
        let skip = usize::from(wire.read == 0 && !fresh.is_empty());
        if skip == 1 {
            assert_eq!(fresh[0], PREAMBLE);
        }
        assert!(self.greeted || fresh.len() <= skip, "nothing but a version byte before the node's own");
        wire.read += fresh.len();
        self.framer.push(&fresh[skip..]);
        while let Some(frame) = self.framer.next().expect("the core sends frames") {
            let message = Message::parse(frame).expect("the core sends messages");
            let own = [message.onward.first().expect("it is for someone")];
            let answer = Outgoing {
                onward: message.return_route.into(),
                return_route: RouteParts::new(&own),
                payload_len: message.payload.len(),
                tracing: message.tracing,
            };
            wire.to_core.extend(answer.to_frame(message.payload));
        }
    }
}

impl End {
    /// A record of the engine: the answer to something that was asked and not answered yet.
    fn hear(&mut self, outer: &Message<'_>, number: usize) {
        let mut record = outer.payload.to_vec();
        let opened = self.opener.open_in_place(&mut record);
        let text = opened.unwrap_or_else(|error| panic!("client {number}: {error}")).text;
        let Ok(Plaintext::Payload(message)) = Plaintext::parse(text) else { panic!("client {number}: no message") };
        assert_eq!(message.onward.first().expect("it is for the client").name, b"s");
        let found = self.unanswered.iter().position(|payload| payload == message.payload);
        self.unanswered.remove(found.unwrap_or_else(|| panic!("client {number}: changed, or answered twice")));
    }
}

impl Client {
    fn hear(&mut self, number: usize) {
        if let Some(other) = self.end.other.clone() {
            let mut wire = other.borrow_mut();
            let fresh = wire.from_core[wire.read..].to_vec();
            let skip = usize::from(wire.read == 0 && !fresh.is_empty());
            wire.read += fresh.len();
            self.end.other_framer.push(&fresh[skip..]);
            let mut bodies = Vec::new();
            while let Some(frame) = self.end.other_framer.next().expect("the core sends frames") {
                bodies.push(frame.to_vec());
            }
            for body in bodies {
                self.end.hear(&Message::parse(&body).expect("the core sends messages"), number);
                *self.answered.entry(Via::Sealed).or_default() += 1;
            }
        }
        if self.questions == 0
            && let Some(late) = self.end.held.pop()
        {
            self.wire.borrow_mut().to_core.extend(late);
        }
        let mut wire = self.wire.borrow_mut();
        let fresh = wire.from_core[wire.read..].to_vec();
        let skip = usize::from(wire.read == 0 && !fresh.is_empty());
        wire.read += fresh.len();
        self.framer.push(&fresh[skip..]);
        while let Some(frame) = self.framer.next().expect("the core sends frames") {
            let message = Message::parse(frame).expect("the core sends messages");
            let via = match message.onward.first().expect("it is for the client").name {
                b"a" => Via::Echo,
                b"b" => Via::Hops,
                b"c" => Via::Transit,
                b"d" => Via::Worker,
                b"e" => Via::Flickering,
                b"p" => {
                    self.end.hear(&message, number);
                    *self.answered.entry(Via::Sealed).or_default() += 1;
                    continue;
                }
                name => panic!("client {number} got an answer for {name:?}"),
            };
            let asked = &self.asked[&via];
            let answered = self.answered.entry(via).or_default();
            // Through workers of different links answers may overtake each other; elsewhere they may not.
            if matches!(via, Via::Worker | Via::Flickering) {
                assert!(asked.iter().any(|payload| payload == message.payload), "client {number}: changed, {via:?}");
            } else {
                assert!(asked[*answered] == message.payload, "client {number}: answer {answered} of {via:?} changed");
            }
            *answered += 1;
        }
    }

    fn is_content(&self) -> bool {
        self.questions == 0
            && self.asked.iter().all(|(via, asked)| match via {
                Via::Nowhere | Via::Flickering => true,
                _ => self.answered.get(via) == Some(&asked.len()),
            })
    }
}

/// Runs one seed and says how often a link was paused.
fn simulate(seed: u64, trace: bool) -> u64 {
    let mut world = World::new(seed, trace);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for (name, target) in [("echo", Target::Echo), ("hop", Target::Hop), ("flicker", Target::Echo)] {
        world.set(name, target);
    }
    for core in 0..world.cores.len() {
        let target = "127.0.0.1:7000".parse().unwrap();
        world.order(core, |request| ToCore::Dial { request, target, cookie: Box::default() });
    }
    let clients = 1 + world.random.borrow_mut().below(4);
    for number in 0..clients {
        let core = number % world.cores.len();
        let questions = 5 + world.random.borrow_mut().below(160);
        world.connect(core, &listener, questions);
    }
    let (mut content, mut steps) = (false, 0);
    while !content {
        world.tick();
        world.act();
        let event = world.random.borrow_mut().below(2_000);
        match event {
            0 => world.set("flicker", Target::Echo),
            1 => world.clear("flicker"),
            2 => {
                let number = world.random.borrow_mut().below(world.clients.len());
                world.reset(number);
            }
            // What a peer could cause at worst: the kernel has no slot for a while.
            3 => {
                let core = world.random.borrow_mut().below(world.cores.len());
                let core = &mut world.cores[core];
                for slot in std::mem::take(&mut core.driver.slots) {
                    core.pool.returned(&slot);
                    core.pool.put(slot);
                }
                core.kernel_slots = 1;
            }
            4..40 => {
                let number = world.random.borrow_mut().below(world.clients.len());
                world.install(number, &listener);
            }
            _ => {}
        }
        steps += 1;
        content = world.clients.iter().all(|client| client.disturbed || client.is_content());
        if steps == 400_000 {
            for client in &world.clients {
                let asked: BTreeMap<_, _> = client.asked.iter().map(|(via, asked)| (via, asked.len())).collect();
                eprintln!("asked {asked:?}, answered {:?}, disturbed {}", client.answered, client.disturbed);
            }
            panic!("seed {seed}: answers are missing after {steps} steps");
        }
    }
    for number in 0..world.clients.len() {
        world.reset(number);
    }
    for node in &world.nodes {
        node.wire.borrow_mut().ended = true;
    }
    world.ends_well(seed);
    world.cores.iter().map(|core| core.counters.get(Counter::Pauses)).sum()
}

/// Half a question after a long silence: the time that the core slept is not the peer's.
#[test]
fn a_core_that_slept_is_not_late() {
    for seed in 0..20 {
        let mut world = World::new(seed, false);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        world.set("echo", Target::Echo);
        world.connect(0, &listener, 0);
        (0..200).for_each(|_| world.tick());
        let echo = [AddressRef { kind: ockam_wire::LOCAL, name: b"echo" }];
        let back = [AddressRef { kind: ockam_wire::LOCAL, name: b"a" }];
        let (onward, return_route) = (RouteParts::new(&echo), RouteParts::new(&back));
        let frame = Outgoing { onward, return_route, payload_len: 4, tracing: None }.to_frame(b"late");
        world.cores[0].driver.sleep_ms = 60_000;
        let (first, second) = frame.split_at(10);
        let client = world.clients[0].wire.clone();
        client.borrow_mut().to_core.extend(first);
        // Long enough to be received, much shorter than a frame may take.
        (0..30).for_each(|_| world.tick());
        assert!(!client.borrow().closed, "seed {seed}");
        client.borrow_mut().to_core.extend(second);
        (0..200).for_each(|_| world.tick());
        assert!(client.borrow().from_core.len() > 20, "seed {seed}: no answer");
    }
}

/// Runs the seed, or as many seeds, as the environment says; gives the sum of what they gave.
fn run_seeds(simulate: impl Fn(u64, bool) -> u64 + std::panic::RefUnwindSafe) -> u64 {
    if let Ok(seed) = std::env::var("OCKAM_SIM_SEED") {
        return simulate(seed.parse().expect("OCKAM_SIM_SEED is a number"), true);
    }
    let seeds = std::env::var("OCKAM_SIM_SEEDS").map_or(60, |count| count.parse().expect("a number"));
    let mut sum = 0;
    for seed in 0..seeds {
        // The seed of a failure is in the output even when the core panics.
        match std::panic::catch_unwind(|| simulate(seed, false)) {
            Ok(given) => sum += given,
            Err(panic) => {
                eprintln!("OCKAM_SIM_SEED={seed} replays this");
                std::panic::resume_unwind(panic);
            }
        }
    }
    sum
}

#[test]
fn simulation() {
    let pauses = run_seeds(simulate);
    let replays_one = std::env::var_os("OCKAM_SIM_SEED").is_some();
    assert!(pauses > 0 || replays_one, "the worlds are too gentle: nothing was ever full");
}
