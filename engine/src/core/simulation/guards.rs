//! Guards in a world where what is granted changes under load, by control and by time.
//!
//! The model is what control may rely on: once every core has answered a change, or the clock has reached the time that
//! grants end at, nobody is seen to have passed who is not let pass from then on.

use super::*;
use ockam_engine_abi::Guard;

const GUARD: Guard = 321;

/// Until when someone may have passed.
#[derive(Default)]
struct Permission {
    until_ms: u64,
    /// The same once all cores have answered.
    next_ms: u64,
    /// The cores' requests that are not answered.
    waiting: Vec<u64>,
}

impl Permission {
    fn change(&mut self, until_ms: u64, waiting: Vec<u64>) {
        self.until_ms = self.until_ms.max(until_ms);
        (self.next_ms, self.waiting) = (until_ms, waiting);
    }

    fn answered(&mut self, request: u64) {
        let before = self.waiting.len();
        self.waiting.retain(|waits| *waits != request);
        if before > 0 && self.waiting.is_empty() {
            self.until_ms = self.next_ms;
        }
    }
}

impl World {
    /// The same order for all cores; gives their requests.
    pub(super) fn order_all(&mut self, make: impl Fn(u64) -> ToCore) -> Vec<u64> {
        let cores = 0..self.cores.len();
        let order = |core| {
            self.order(core, &make);
            self.requests
        };
        cores.map(order).collect()
    }
}

/// Runs one seed and says how many messages passed, and how many were denied.
fn simulate(seed: u64, trace: bool) -> [u64; 2] {
    let mut world = World::new(seed, trace);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    world.set("hop", Target::Hop);
    let access = Access { reachable: 0b10, guard: Some(GUARD) };
    world.order_all(|serial| ToCore::Set {
        request: serial,
        address: b"guarded"[..].into(),
        target: Target::Control,
        access,
        serial,
        handshake: None,
    });
    let clients = 1 + world.random.borrow_mut().below(3);
    let mut channels = Vec::new();
    for number in 0..clients {
        let core = number % world.cores.len();
        world.connect(core, &listener, 0);
        channels.push(world.clients[number].end.install.clone().expect("it is not installed yet"));
    }
    // Of the channels' peers, and of everybody.
    let mut permissions: Vec<Permission> = (0..=clients).map(|_| Permission::default()).collect();
    let mut passed = 0;
    for _ in 0..8_000 {
        world.tick();
        for said in std::mem::take(&mut world.said) {
            match said {
                FromCore::Applied { request } => {
                    permissions.iter_mut().for_each(|permission| permission.answered(request));
                }
                FromCore::Notice(Notice::Punt { channel, message, .. }) => {
                    let message = Message::parse(&message.0).expect("the core hands over messages");
                    if message.onward.first().is_some_and(|first| first.name == b"guarded") {
                        let may = |which: usize| world.tick_began_ms < permissions[which].until_ms;
                        let by_grant = channel.is_some_and(|channel| may(channel as usize - 1));
                        assert!(by_grant || may(clients), "seed {seed}: {channel:?} passed");
                        passed += 1;
                    }
                }
                _ => {}
            }
        }
        let number = world.random.borrow_mut().below(clients);
        let event = world.random.borrow_mut().below(100);
        match event {
            0..30 => world.ask_guarded(number),
            30 => world.install(number, &listener),
            31..35 => {
                let (guards, limit) = match world.random.borrow_mut().below(4) {
                    0 => (None, None),
                    1 => (Some(GUARD), None),
                    2 => (Some(GUARD), Some(300)),
                    _ => (Some(GUARD + 1), None),
                };
                let grants = Grants { guards: guards.into_iter().collect(), expire_in_ms: limit };
                let now_ms = world.now_ms.get();
                channels[number].granted.replace(&grants, now_ms);
                let requests = world.order_all(|request| ToCore::Granted { request });
                let is_granted = guards == Some(GUARD);
                let until_ms = if is_granted { limit.map_or(u64::MAX, |limit| now_ms + limit) } else { 0 };
                permissions[number].change(until_ms, requests);
            }
            35 => {
                let is_open = world.random.borrow_mut().chance(20);
                let open: Arc<GuardSet> = Arc::new(is_open.then_some(GUARD).into_iter().collect());
                let requests = world.order_all(|request| ToCore::Guards { request, open: open.clone() });
                permissions[clients].change(if is_open { u64::MAX } else { 0 }, requests);
            }
            _ => {}
        }
    }
    for number in 0..clients {
        world.reset(number);
    }
    world.ends_well(seed);
    let denied = world.cores.iter().map(|core| core.counters.get(DropReason::PolicyDenied)).sum();
    [passed, denied]
}

impl World {
    /// The client asks for what is guarded, through its channel or over the link itself, by one way or another.
    fn ask_guarded(&mut self, number: usize) {
        let mut random = self.random.borrow_mut();
        let Client { wire, end, .. } = &mut self.clients[number];
        // What is not taken yet would only wait here.
        if wire.borrow().to_core.len() > WINDOW {
            return;
        }
        let onward = [AddressRef::local(b"hop"), AddressRef::local(b"guarded")];
        let outgoing = Outgoing {
            onward: RouteParts::new(&onward[random.below(2)..]),
            return_route: RouteParts::EMPTY,
            payload_len: 1,
            tracing: None,
        };
        if random.chance(20) {
            return wire.borrow_mut().to_core.extend(outgoing.to_frame(&[0]));
        }
        let record = end.sealer.seal(&OutgoingPlaintext::new(outgoing).to_text(&[1])).expect("nonces are left");
        let to = [AddressRef::local(end.decryptor.as_bytes())];
        let (onward, return_route) = (RouteParts::new(&to), RouteParts::EMPTY);
        let frame = Outgoing { onward, return_route, payload_len: record.len(), tracing: None }.to_frame(&record);
        wire.borrow_mut().to_core.extend(frame);
    }
}

#[test]
fn simulation_of_guards() {
    // Both in one number: far fewer messages than that are asked for.
    let sum = run_seeds(|seed, trace| {
        let [passed, denied] = simulate(seed, trace);
        (passed << 32) + denied
    });
    let (passed, denied) = (sum >> 32, sum & 0xffff_ffff);
    let replays_one = std::env::var_os("OCKAM_SIM_SEED").is_some();
    assert!(
        passed > 0 && denied > 0 || replays_one,
        "{passed} passed and {denied} were denied: the worlds say nothing"
    );
}
