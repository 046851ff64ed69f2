//! Portals in a world of their own: applications on both sides, and between inlet and outlet a link that leads from the
//! engine back into it, over which a network drops frames now and then, or which breaks. In some worlds a channel is on that
//! link; in some a guard is at the inlet or at the outlet, and whom it lets pass changes.
//!
//! The model: whatever happens, an application gets a prefix of what the other one sent. It sees an orderly end only when it
//! got all of it. Connections that are left alone get everything in both directions, and end in order. None lives that its
//! guard does not let pass.

use super::*;
use crate::core::portals::Room;
use crate::path::tables::Outlet;
use ockam_engine_abi::{CloseReason, Guard, PortalTarget};
use std::sync::atomic::{AtomicU32, AtomicU64};

const INLET: u32 = 7;
const GUARD: Guard = 99;

/// Who is let pass by the guard of a world.
struct Gate {
    /// The channel towards the end that is not guarded.
    channel: Option<Arc<Channel>>,
    open: bool,
    granted: bool,
    expires_ms: u64,
}

impl Gate {
    /// Whether it lets pass for as long as nothing is changed.
    fn is_safe(&self) -> bool {
        self.open || (self.granted && self.expires_ms == u64::MAX)
    }

    fn change(&mut self, world: &mut World) {
        let by_grants = !world.random.borrow_mut().chance(30);
        match &self.channel {
            Some(channel) if by_grants => {
                self.granted = world.random.borrow_mut().chance(60);
                let limit = world.random.borrow_mut().chance(60).then_some(10_000);
                let now_ms = world.now_ms.get();
                self.expires_ms = limit.map_or(u64::MAX, |limit| now_ms + limit);
                let guards = self.granted.then_some(GUARD).into_iter().collect();
                channel.granted.replace(&Grants { guards, expire_in_ms: limit }, now_ms);
                world.order_all(|request| ToCore::Granted { request });
            }
            _ => {
                self.open = world.random.borrow_mut().chance(50);
                let open: Arc<GuardSet> = Arc::new(self.open.then_some(GUARD).into_iter().collect());
                world.order_all(|request| ToCore::Guards { request, open: open.clone() });
            }
        }
    }
}

impl World {
    /// Whether a core has a connection that it should have ended.
    fn has_denied(&self) -> bool {
        self.cores.iter().zip(&self.mesh.cores).any(|(core, mailbox)| {
            // What it has not heard of yet is no fault of its own.
            let hears = mailbox.commands.is_empty();
            let denied = |link: &Link| link.is_open() && core.let_pass_until(link) <= core.now_ms;
            hears && core.links.iter().any(|link| link.portal().is_some() && denied(link))
        })
    }

    /// One end of a channel over a link of this engine to itself.
    fn channel_end(&mut self, name: &str, link: LinkId, address: &[u8], other: &str) -> Arc<Channel> {
        let decryptor = |name: &str| format!("{name} decryptor").into_bytes();
        let peer = decryptor(other);
        let onward = [AddressRef::local(address), AddressRef::local(&peer)];
        let (onward, return_route) = (RouteParts::new(&onward), RouteParts::EMPTY);
        let way = Outgoing { onward, return_route, payload_len: 0, tracing: None }.to_frame(&[]);
        let is_far = name == "far";
        let key = |sealing: bool| Secret::new([u8::from(sealing == is_far); 32]);
        let channel = Arc::new(Channel::new(
            1 + u32::from(is_far),
            (format!("{name} encryptor").into_bytes().into(), decryptor(name).into()),
            (2 + u64::from(is_far)) << 32,
            1,
            is_far,
            Granted::new(&Grants::default(), 0),
            (Sealer::new(key(true)), Opener::new(key(false))),
            crate::path::channel::read_way(&way[4..]).expect("it begins inside"),
            Some(link),
            crate::path::bucket::Bucket::new(9, 0),
        ));
        self.order_all(|request| ToCore::Install {
            request,
            channel: channel.clone(),
            reachable: 0b11,
            serial: channel.serial + 1,
        });
        while self.mesh.cores.iter().any(|core| !core.commands.is_empty()) {
            self.tick();
        }
        channel
    }
}

/// One direction of a connection, as its applications see it.
struct Direction {
    bytes: Vec<u8>,
    /// Written to the core so far.
    written: usize,
}

impl Direction {
    fn new(length: usize, seed: u64) -> Self {
        let bytes = (0..length).map(|place| (place as u64 * 131 + seed * 17) as u8).collect();
        Direction { bytes, written: 0 }
    }

    /// The sender writes some more, and ends when that is all.
    fn write(&mut self, wire: &Shared<Wire>, random: &mut Random) {
        let mut wire = wire.borrow_mut();
        let left = self.bytes.len() - self.written;
        if wire.to_core.len() < WINDOW {
            let length = if left == 0 { 0 } else { 1 + random.below(left.min(60_000)) };
            wire.to_core.extend(&self.bytes[self.written..self.written + length]);
            self.written += length;
        }
        wire.ended |= self.written == self.bytes.len();
    }

    /// What the receiver has is checked. True when it got everything and an orderly end.
    fn check(&self, wire: &Shared<Wire>, what: &str) -> bool {
        let wire = wire.borrow();
        assert!(self.bytes.starts_with(&wire.from_core), "{what}: bytes were changed, lost in the middle, or invented");
        let ended = wire.finished || (wire.closed && !wire.aborted);
        let complete = wire.from_core.len() == self.bytes.len();
        // One that is reset by its own application is closed without a look at what it lacks.
        assert!(
            complete || !ended || wire.reset,
            "{what}: {} of {} bytes, and an orderly end",
            wire.from_core.len(),
            self.bytes.len()
        );
        complete && ended
    }
}

struct Connection {
    client: Shared<Wire>,
    server: Option<Shared<Wire>>,
    question: Direction,
    answer: Direction,
    /// How many steps of a hundred its applications take; one that stalls takes none for long.
    pace: usize,
    disturbed: bool,
    /// The step that it was made in.
    since: usize,
}

impl Connection {
    fn is_over(&self) -> bool {
        let server = self.server.as_ref().is_none_or(|wire| wire.borrow().closed);
        self.client.borrow().closed && server
    }
}

/// A link of the engine to itself: what leaves on one side arrives on the other.
struct Loop {
    sides: [Shared<Wire>; 2],
    framers: [Framer; 2],
    greeted: [bool; 2],
    drops: bool,
    dropped: bool,
}

impl Loop {
    fn act(&mut self, random: &mut Random) {
        for (from, to) in [(0, 1), (1, 0)] {
            let mut wire = self.sides[from].borrow_mut();
            if self.sides[to].borrow().to_core.len() > WINDOW {
                continue;
            }
            let fresh = wire.from_core[wire.read..].to_vec();
            wire.read += fresh.len();
            let skip = usize::from(!self.greeted[from] && !fresh.is_empty());
            self.greeted[from] |= skip == 1;
            self.sides[to].borrow_mut().to_core.extend(&fresh[..skip]);
            self.framers[from].push(&fresh[skip..]);
            while let Some(frame) = self.framers[from].next().expect("the core sends frames") {
                if self.drops && random.chance(1) {
                    self.dropped = true;
                    continue;
                }
                let mut to = self.sides[to].borrow_mut();
                to.to_core.extend((frame.len() as u32).to_be_bytes());
                to.to_core.extend(frame);
            }
        }
    }
}

/// Runs one seed and says how many connections were denied.
fn simulate(seed: u64, trace: bool) -> u64 {
    let mut world = World::new(seed, trace);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let connections = Arc::new(AtomicU32::new(0));
    let (dial, accept) = (0, world.cores.len() - 1);
    // A link from the first core to the last.
    world.order(dial, |request| ToCore::Dial {
        request,
        target: "127.0.0.1:7000".parse().unwrap(),
        cookie: Box::default(),
    });
    while world.dialed.borrow().is_empty() {
        world.tick();
    }
    let (_, outward) = world.dialed.borrow_mut().pop().expect("it was just seen");
    let inward = Shared::<Wire>::default();
    *world.next_wires[accept].borrow_mut() = Some(inward.clone());
    let outside = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let earlier: Vec<LinkId> = world.cores[accept].links.iter().map(|link| link.id).collect();
    world.cores[accept].adopt_accepted(listener.accept().unwrap().0.into(), 1, 1);
    drop(outside);
    let added = world.cores[accept].links.iter().find(|link| !earlier.contains(&link.id));
    let (far_link, far_address) = added.map(|link| (link.id, link.address)).expect("it was just added");
    let drops = world.random.borrow_mut().chance(30);
    let mut link = Loop {
        sides: [outward, inward],
        framers: [Framer::new(), Framer::new()],
        greeted: [false; 2],
        drops,
        dropped: false,
    };
    while world.workers.is_empty() {
        world.tick();
        link.act(&mut world.random.borrow_mut());
    }
    // Some of the worlds have no link between inlet and outlet, and some have a channel on it.
    let local = world.random.borrow_mut().chance(30);
    let sealed = !local && world.random.borrow_mut().chance(50);
    let mut first = if local { "outlet".to_owned() } else { world.workers[0].clone() };
    let mut channels = None;
    if sealed {
        let near_link = world.cores[dial].links.iter().find(|link| link.address == *first.as_bytes());
        let near_link = near_link.expect("it is up").id;
        let near = world.channel_end("near", near_link, first.as_bytes(), "far");
        let far = world.channel_end("far", far_link, &far_address, "near");
        first = "near encryptor".to_owned();
        channels = Some([near, far]);
    }
    let guarded_inlet = world.random.borrow_mut().chance(50);
    let mut gate = world.random.borrow_mut().chance(50).then(|| Gate {
        channel: channels.map(|[near, far]| if guarded_inlet { near } else { far }),
        open: false,
        granted: false,
        expires_ms: u64::MAX,
    });
    let guard_at = |inlet: bool| gate.as_ref().map(|_| GUARD).filter(|_| guarded_inlet == inlet);
    let guards = [guard_at(true), guard_at(false)];
    if let Some(gate) = &mut gate {
        gate.change(&mut world);
    }
    let way: Vec<AddressRef<'_>> = if local {
        vec![AddressRef::local(b"outlet")]
    } else {
        vec![AddressRef::local(first.as_bytes()), AddressRef::local(b"outlet")]
    };
    let message =
        Outgoing { onward: RouteParts::new(&way), return_route: RouteParts::EMPTY, payload_len: 0, tracing: None };
    let way = Arc::new(crate::path::channel::read_way(&message.to_frame(&[])[4..]).expect("it begins inside"));
    let targets = ["127.0.0.1:9001", "127.0.0.1:9000"].map(|target| PortalTarget::Tcp(target.parse().unwrap()));
    let outlet = Arc::new(Outlet {
        name: b"outlet"[..].into(),
        targets: targets.into(),
        plain: false,
        guard: guards[1],
        serial: 1 << 40,
        failed_ms: AtomicU64::new(0),
    });
    for core in 0..world.cores.len() {
        let (outlet, way, connections) = (outlet.clone(), way.clone(), connections.clone());
        world.order(core, |request| ToCore::SetOutlet { request, outlet, reachable: 0b10 });
        world.order(core, |request| ToCore::AddInlet {
            request,
            inlet: INLET,
            guard: guards[0],
            socket: None,
            connections,
        });
        world.order(core, |request| ToCore::RouteInlet { request, inlet: INLET, way: Some(way), wait_ms: 0 });
        while !world.mesh.cores[core].commands.is_empty() {
            world.tick();
        }
    }

    let mut open: Vec<Connection> = Vec::new();
    let wanted = 1 + world.random.borrow_mut().below(12);
    let mut accepted = 0;
    let mut broken = false;
    let mut steps = 0;
    loop {
        world.tick();
        assert!(!world.has_denied(), "seed {seed}, step {steps}: it was not ended");
        link.act(&mut world.random.borrow_mut());
        // One at a time, so that the target's connection is known to be its.
        // What is denied may still be on its way to the outlet for a while.
        let waits = |connection: &Connection| gate.is_some() && steps < connection.since + 4_000;
        let settled = open.iter().all(|connection| {
            let is_known = connection.server.is_some();
            is_known || ((connection.disturbed || connection.is_over()) && !waits(connection))
        });
        if accepted < wanted && settled && world.random.borrow_mut().chance(2) {
            accepted += 1;
            let wire = Shared::<Wire>::default();
            *world.next_wires[dial].borrow_mut() = Some(wire.clone());
            let outside = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            world.cores[dial].adopt_connection(INLET, listener.accept().unwrap().0.into());
            drop(outside);
            // Without a way to the outlet there is no connection.
            let taken = world.next_wires[dial].borrow_mut().take().is_none();
            let mut random = world.random.borrow_mut();
            let sizes = [0, 1, 100, 5_000, 200_000, 700_000];
            let mut direction = |which| Direction::new(sizes[random.below(sizes.len())], seed + which);
            let (question, answer) = (direction(1), direction(2));
            let pace = if random.chance(20) { 1 } else { 60 };
            if taken {
                // Inside of one node all are let pass.
                let disturbed = !local && gate.as_ref().is_some_and(|gate| !gate.is_safe());
                let (server, since) = (None, steps);
                open.push(Connection { client: wire, server, question, answer, pace, disturbed, since });
            }
        }
        for (target, wire) in world.dialed.take() {
            assert_eq!(target.port(), 9000, "the first target refuses");
            let asking = open.iter_mut().rev().find(|connection| connection.server.is_none());
            match asking {
                Some(connection) => connection.server = Some(wire),
                // Its client is gone already.
                None => wire.borrow_mut().reset = true,
            }
        }
        if let Some(gate) = &mut gate
            && world.random.borrow_mut().below(3_000) == 0
        {
            gate.change(&mut world);
            let denies = !local && !gate.is_safe();
            open.iter_mut().for_each(|connection| connection.disturbed |= denies && !connection.is_over());
        }
        let mut random = world.random.borrow_mut();
        for (number, connection) in open.iter_mut().enumerate() {
            if random.chance(100 - connection.pace) {
                continue;
            }
            if !connection.client.borrow().closed {
                connection.question.write(&connection.client, &mut random);
            }
            if let Some(server) = &connection.server {
                if !server.borrow().closed {
                    connection.answer.write(server, &mut random);
                }
                let unread = server.borrow().from_core.len();
                server.borrow_mut().read = unread;
                connection.question.check(server, &format!("seed {seed}, question {number}"));
            }
            let unread = connection.client.borrow().from_core.len();
            connection.client.borrow_mut().read = unread;
            connection.answer.check(&connection.client, &format!("seed {seed}, answer {number}"));
        }
        let event = random.below(4_000);
        if event == 0 && !open.is_empty() {
            let number = random.below(open.len());
            let connection = &mut open[number];
            // Before its target is connected it could not be told whose target that is.
            if let Some(server) = &connection.server {
                connection.disturbed = true;
                let side = if random.chance(50) { server } else { &connection.client };
                side.borrow_mut().reset = true;
            }
        } else if event == 1 && random.chance(10) {
            broken = true;
            link.sides.iter().for_each(|side| side.borrow_mut().reset = true);
        }
        drop(random);
        // A message that is lost may be the one that says that a connection is over.
        broken |= link.dropped;
        steps += 1;
        let is_done = |connection: &Connection| connection.is_over() || connection.disturbed || broken && !local;
        if accepted == wanted && open.iter().all(is_done) {
            break;
        }
        assert!(
            steps < 600_000,
            "seed {seed}: {} of {wanted} connections are not over",
            open.iter().filter(|c| !is_done(c)).count()
        );
    }
    for (number, connection) in open.iter().enumerate() {
        let whole = connection.disturbed || (broken && !local);
        let what = format!("seed {seed}, connection {number}");
        let got_answer = connection.answer.check(&connection.client, &what);
        let got_question = connection.server.as_ref().is_some_and(|wire| connection.question.check(wire, &what));
        assert!(whole || (got_answer && got_question), "{what}: it was left alone, and is not complete");
    }
    for connection in &open {
        connection.client.borrow_mut().reset = true;
        connection.server.iter().for_each(|wire| wire.borrow_mut().reset = true);
    }
    link.sides.iter().for_each(|side| side.borrow_mut().reset = true);
    world.ends_well(seed);
    assert_eq!(connections.load(std::sync::atomic::Ordering::Relaxed), 0, "seed {seed}");
    world.cores.iter().map(|core| core.counters.get(CloseReason::PortalDenied)).sum()
}

/// The clients of one inlet take all that they can: another one still has connections.
#[test]
fn one_inlet_does_not_take_all() {
    const LIMIT: usize = 8;
    let mut world = World::new(1, false);
    world.cores[0].portals = Room::new(LIMIT);
    world.order(0, |request| ToCore::Dial {
        request,
        target: "127.0.0.1:7000".parse().unwrap(),
        cookie: Box::default(),
    });
    while world.dialed.borrow().is_empty() {
        world.tick();
    }
    let (_, outward) = world.dialed.borrow_mut().pop().expect("it was just seen");
    outward.borrow_mut().to_core.push_back(ockam_wire::PREAMBLE);
    while world.workers.is_empty() {
        world.tick();
    }
    // Nobody answers there, so that connections wait.
    let way = [AddressRef::local(world.workers[0].as_bytes()), AddressRef::local(b"outlet")];
    let onward = RouteParts::new(&way);
    let message = Outgoing { onward, return_route: RouteParts::EMPTY, payload_len: 0, tracing: None }.to_frame(&[]);
    let way = Arc::new(crate::path::channel::read_way(&message[4..]).expect("it begins inside"));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let has_taken = |world: &mut World, inlet: u32| {
        let (way, connections) = (way.clone(), Arc::new(AtomicU32::new(0)));
        let taken = connections.clone();
        world.order(0, |request| ToCore::AddInlet { request, inlet, guard: None, socket: None, connections });
        world.order(0, |request| ToCore::RouteInlet { request, inlet, way: Some(way), wait_ms: 0 });
        while !world.mesh.cores[0].commands.is_empty() {
            world.tick();
        }
        for _ in 0..2 * LIMIT {
            *world.next_wires[0].borrow_mut() = Some(Shared::<Wire>::default());
            let outside = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            world.cores[0].adopt_connection(inlet, listener.accept().unwrap().0.into());
            drop(outside);
        }
        world.next_wires[0].borrow_mut().take();
        taken.load(std::sync::atomic::Ordering::Relaxed)
    };
    assert_eq!(has_taken(&mut world, INLET), 6);
    assert_eq!(has_taken(&mut world, INLET + 1), 2);
    outward.borrow_mut().reset = true;
    world.ends_well(1);
}

#[test]
fn simulation_of_portals() {
    let denied = run_seeds(simulate);
    let replays_one = std::env::var_os("OCKAM_SIM_SEED").is_some();
    assert!(denied > 0 || replays_one, "no guard ended a connection: the worlds say nothing of them");
}
