//! The attacks: what each sends, and what it needs around the node.

use super::flood::{Flood, Plan, SlowPeer};
use super::honest::Route;
use crate::machine;
use crate::system::{Failed, Home, Node, Owner, Setup, System};
use ockam_wire::{Address, AddressRef, Outgoing, PREAMBLE, RouteParts};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Memory that an attack may cost, by default and for claims of memory (reliability goals D1 and D4).
const MEMORY_MAX_MIB: f64 = 16.0;
const CLAIMS_MEMORY_MAX_MIB: f64 = 8.0;
/// Descriptors of an engine that is to run out of them.
const DESCRIPTORS: u64 = 1024;
const CLAIMS: &str = "claims of 16 MiB";

/// One attack.
pub struct Attack {
    /// Stable.
    pub name: &'static str,
    threads: u8,
    prepare: fn(&Scene<'_>) -> Result<Prepared, Failed>,
    /// Whether it is aimed at handshakes: then the honest flow goes through secure channels, and newcomers open more.
    pub on_handshakes: bool,
}

/// All of them.
pub const ALL: [Attack; 12] = [
    Attack::new("slowloris", 1, slowloris),
    Attack::new(CLAIMS, 1, claims),
    Attack::new("descriptors run out", 1, descriptors),
    Attack::new("slow readers", 1, slow_readers),
    Attack::new("resets", 1, resets),
    Attack::new("routes of 255", 1, long_routes),
    Attack::new("loops", 1, loops),
    Attack::new("trickle on a relay link", 1, trickle),
    Attack::new("full cross-core queues", 2, cross_core),
    Attack { on_handshakes: true, ..Attack::new("50,000 messages 1 per s, 250 links", 1, messages_1) },
    Attack { on_handshakes: true, ..Attack::new("messages 1, all that 24 links take", 1, messages_1_unlimited) },
    Attack { on_handshakes: true, ..Attack::new("junk for message 3, 250 links", 1, junk_for_message_3) },
];

/// What an attack may cost, in MiB.
pub fn memory_max_mib(attack: &str) -> f64 {
    if attack == CLAIMS { CLAIMS_MEMORY_MAX_MIB } else { MEMORY_MAX_MIB }
}

/// A node under attack, and everything around it.
pub struct Stage {
    system: System,
    /// Where honest messages go.
    pub honest: Route,
    /// What comes.
    pub flood: Flood,
    slow: Option<SlowPeer>,
    /// Processes of the second node.
    others: Vec<u32>,
}

/// What an attack is prepared with.
struct Scene<'a> {
    setup: &'a Setup,
    driver: &'a str,
    node: &'a System,
    home: &'a Home,
}

struct Prepared {
    flood: Flood,
    /// Where honest messages go, if not to `echo` directly.
    honest: Vec<Address>,
    slow: Option<SlowPeer>,
    /// Processes of a second node.
    others: Vec<u32>,
}

impl From<Flood> for Prepared {
    fn from(flood: Flood) -> Prepared {
        Prepared { flood, honest: addresses(&["echo"]), slow: None, others: Vec::new() }
    }
}

impl Attack {
    const fn new(name: &'static str, threads: u8, prepare: fn(&Scene<'_>) -> Result<Prepared, Failed>) -> Attack {
        Attack { name, threads, prepare, on_handshakes: false }
    }

    /// A fresh node, ready to be attacked.
    pub fn stage(&self, setup: &Setup, driver: &str) -> Result<Stage, Failed> {
        let system = Node::start(setup, driver, self.threads, &[])?;
        let Owner::Node(Node { home, .. }) = &system.owner else { return Err(Failed::new("a node is a node")) };
        let prepared = (self.prepare)(&Scene { setup, driver, node: &system, home })?;
        let honest = Route { node: system.address, onward: prepared.honest, is_sealed: self.on_handshakes };
        Ok(Stage { honest, flood: prepared.flood, slow: prepared.slow, others: prepared.others, system })
    }
}

impl Stage {
    /// The processes under attack: engine, control.
    pub fn pids(&self) -> Result<[u32; 2], Failed> {
        self.system.pids[..].try_into().map_err(|_| Failed::new("a node is two processes"))
    }

    /// Links that the engine has now.
    pub fn links_open(&self) -> Result<u64, Failed> {
        let Owner::Node(node) = &self.system.owner else { return Err(Failed::new("a node is a node")) };
        let stats = node.home.json(&["engine", "stats"])?;
        stats["counters"]["links_open"].as_u64().ok_or(Failed::new("`engine stats` said no counters.links_open"))
    }

    /// Processor time of all its nodes so far, in nanoseconds.
    pub fn cpu_ns(&self) -> Result<u64, Failed> {
        let mut total = self.system.cpu_ns()?;
        for pid in &self.others {
            total += machine::cpu_ns(*pid)?;
        }
        Ok(total)
    }

    /// Slows the peer that others wait for, if this attack has one.
    pub fn set_slow(&self, slow: bool) {
        if let Some(peer) = &self.slow {
            peer.slow.store(slow, Ordering::Relaxed);
        }
    }
}

/// Connections that dribble: silent ones, frame heads byte by byte, frames without their last byte, and large frames a
/// byte per second.
fn slowloris(_: &Scene<'_>) -> Result<Prepared, Failed> {
    let second = Duration::from_secs(1);
    let whole = frame(&["echo"], &["me"], &[7; 1000]);
    let head = Plan::steady(whole.clone(), 1, second);
    let cut = Plan::once([&[PREAMBLE], &whole[..whole.len() - 1]].concat());
    let mut large = Plan::steady(vec![0], 1, second);
    large.first = vec![PREAMBLE, 0, 1, 0, 0, 0x84];
    Ok(Flood::Crowd { plans: vec![Plan::once(Vec::new()), head, cut, large], connections: 2000, reads: false }.into())
}

/// Lengths of 16 MiB and one byte.
fn claims(_: &Scene<'_>) -> Result<Prepared, Failed> {
    let claim = [&[PREAMBLE][..], &(16_u32 << 20).to_be_bytes(), &[0x84]].concat();
    Ok(Flood::Crowd { plans: vec![Plan::once(claim)], connections: 2000, reads: false }.into())
}

/// More connections than the engine has descriptors.
fn descriptors(scene: &Scene<'_>) -> Result<Prepared, Failed> {
    let engine = scene.node.pids.first().and_then(|pid| Pid::from_raw(*pid as i32));
    let limit = Rlimit { current: Some(DESCRIPTORS), maximum: Some(DESCRIPTORS) };
    prlimit(engine, Resource::Nofile, limit).map_err(std::io::Error::from)?;
    Ok(Flood::Crowd { plans: vec![Plan::once(vec![PREAMBLE])], connections: 5000, reads: false }.into())
}

/// Links that ask for 2 MiB each, in frames of 16 KiB, and read nothing.
fn slow_readers(_: &Scene<'_>) -> Result<Prepared, Failed> {
    let ask = frame(&["echo"], &["me"], &[5; 16 * 1024]);
    let plan = Plan { most: 2 << 20, ..Plan::steady(ask, 64 * 1024, Duration::from_millis(50)) };
    Ok(Flood::Crowd { plans: vec![plan], connections: 200, reads: false }.into())
}

/// Connections that end with a reset at every moment of their life.
fn resets(_: &Scene<'_>) -> Result<Prepared, Failed> {
    let small = frame(&["echo"], &["me"], b"x");
    let large = frame(&["echo"], &["me"], &[3; 300_000]);
    let words = vec![
        Vec::new(),
        vec![PREAMBLE],
        [&[PREAMBLE], &small[..3]].concat(),
        [&[PREAMBLE], &large[..100_000]].concat(),
        [&[PREAMBLE], &small[..], &small, &small].concat(),
        vec![PREAMBLE, 0xff, 0xff, 0xff, 0xff],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ];
    Ok(Flood::Resets { words, per_s: 4000.0 }.into())
}

/// Frames whose routes have 255 addresses.
fn long_routes(_: &Scene<'_>) -> Result<Prepared, Failed> {
    let hops = ["hop"; 255];
    let dials = ["1#127.0.0.1:1"; 255];
    let names = ["echo"; 255];
    let frames = [
        frame(&hops, &["me"], b"x"),
        frame(&dials, &["me"], b"x"),
        frame(&["echo"], &names, b"x"),
        frame(&hops, &dials, b"x"),
    ];
    let plan = Plan::steady(frames.concat(), 40 * 1024, Duration::from_millis(1));
    Ok(Flood::Crowd { plans: vec![plan], connections: 4, reads: true }.into())
}

/// Frames that go to and fro between two nodes that point at each other, as long as a route may be.
fn loops(scene: &Scene<'_>) -> Result<Prepared, Failed> {
    let pair = Pair::new(scene)?;
    let again: Vec<&str> = ["hop", &pair.to_other, "hop", &pair.to_first].into_iter().cycle().take(28).collect();
    let (first, other) = (format!("1#{}", scene.node.address), format!("1#{}", pair.other));
    let dials: Vec<&str> = [other.as_str(), &first].into_iter().cycle().take(28).collect();
    let mut frames = vec![frame(&dials, &["me"], b"x")];
    for _ in 0..10 {
        frames.push(frame(&[&again[..], &["echo"]].concat(), &["me"], b"x"));
        frames.push(frame(&again, &["me"], b"x"));
    }
    let bytes = frames.concat();
    // About 2,000 frames a second, each of which crosses 14 links.
    let step = bytes.len() / frames.len() * 20;
    let plan = Plan::steady(bytes, step, Duration::from_millis(10));
    let flood = Flood::Crowd { plans: vec![plan], connections: 1, reads: true };
    Ok(Prepared { others: pair.pids, ..flood.into() })
}

/// Frames of 16 MiB at 100 kB/s and whole ones of 1 MiB in a second, onto the link that honest messages take as well.
fn trickle(scene: &Scene<'_>) -> Result<Prepared, Failed> {
    let pair = Pair::new(scene)?;
    let onward = ["hop", &pair.to_other, "nobody"];
    let pause = Duration::from_millis(20);
    let mut plans = vec![Plan::steady(frame(&onward, &["me"], &vec![1; 1 << 20]), 20 * 1024, pause)];
    // The first part at once, so that the node takes it for the large frame that it says it is.
    let mut bytes = frame(&onward, &["me"], &vec![2; (16 << 20) - 4096]);
    let rest = bytes.split_off(70_000);
    bytes.insert(0, PREAMBLE);
    let large = Plan { first: bytes, ..Plan::steady(rest, 2 * 1024, pause) };
    plans.resize(8, large);
    let honest = addresses(&["hop", &pair.to_other, "echo"]);
    Ok(Prepared { flood: Flood::Crowd { plans, connections: 40, reads: false }, honest, slow: None, others: pair.pids })
}

/// Links on both cores that send to one link whose peer takes 1 MiB/s.
fn cross_core(scene: &Scene<'_>) -> Result<Prepared, Failed> {
    let peer = SlowPeer::start()?;
    let link = connect(scene.home, &[], peer.address)?;
    let plan = Plan::steady(frame(&[&link, "x"], &["me"], &[4; 16 * 1024]), 64 * 1024, Duration::from_millis(16));
    let flood = Flood::Crowd { plans: vec![plan], connections: 8, reads: false };
    Ok(Prepared { slow: Some(peer), ..flood.into() })
}

/// First messages of handshakes, as many as are asked of a generator (reliability goal D1).
fn messages_1(_: &Scene<'_>) -> Result<Prepared, Failed> {
    Ok(Flood::Handshakes { links: 250, per_s: 50_000.0, with_junk: false }.into())
}

/// The same, as fast as the node takes them from a few links.
fn messages_1_unlimited(_: &Scene<'_>) -> Result<Prepared, Failed> {
    Ok(Flood::Handshakes { links: 24, per_s: f64::INFINITY, with_junk: false }.into())
}

/// Handshakes that begin well and go on with junk (reliability goal D2), more than the node answers.
fn junk_for_message_3(_: &Scene<'_>) -> Result<Prepared, Failed> {
    Ok(Flood::Handshakes { links: 250, per_s: 5000.0, with_junk: true }.into())
}

/// A second node in the same home, `hop` on both, and a link from each to the other.
struct Pair {
    other: SocketAddr,
    to_other: String,
    to_first: String,
    pids: Vec<u32>,
}

impl Pair {
    fn new(scene: &Scene<'_>) -> Result<Pair, Failed> {
        const OTHER: &str = "other";
        let create = ["node", "create", OTHER, "--tcp-listener-address", "127.0.0.1:0", "--driver", scene.driver];
        let made = scene.setup.on_system_cpus(1, || {
            scene.home.json(&[&create[..], &["--threads", "1"]].concat()).map_err(std::io::Error::other)
        })?;
        let other = made["transports"][0]["socket_addr"].as_str().and_then(|text| text.parse().ok());
        let other: SocketAddr = other.ok_or(Failed::new("`node create` said no address"))?;
        scene.home.run(&["service", "start", "hop"])?;
        scene.home.run(&["service", "start", "hop", "--at", OTHER])?;
        let to_other = connect(scene.home, &[], other)?;
        let to_first = connect(scene.home, &["--from", OTHER], scene.node.address)?;
        machine::run_on(&scene.setup.placement.cpus(&scene.setup.cpus).1)?;
        let pids = [&made["pid"], &made["engine"]["pid"]];
        let pids = pids.iter().filter_map(|pid| u32::try_from(pid.as_u64()?).ok()).collect();
        Ok(Pair { other, to_other, to_first, pids })
    }
}

/// The local address of a new link.
fn connect(home: &Home, from: &[&str], to: SocketAddr) -> Result<String, Failed> {
    let to = to.to_string();
    let said = home.run(&[&["tcp-connection", "create", "--to", &to][..], from].concat())?;
    Ok(said.trim().trim_start_matches("/worker/").to_owned())
}

fn addresses(texts: &[&str]) -> Vec<Address> {
    let address = |text: &&str| match text.strip_prefix("1#") {
        Some(target) => Address { kind: ockam_wire::TCP, name: target.as_bytes().to_vec() },
        None => Address::local(*text),
    };
    texts.iter().map(address).collect()
}

fn frame(onward: &[&str], back: &[&str], payload: &[u8]) -> Vec<u8> {
    let (onward, back) = (addresses(onward), addresses(back));
    let onward: Vec<AddressRef<'_>> = onward.iter().map(Address::as_ref).collect();
    let back: Vec<AddressRef<'_>> = back.iter().map(Address::as_ref).collect();
    let (onward, return_route) = (RouteParts::new(&onward), RouteParts::new(&back));
    Outgoing { onward, return_route, payload_len: payload.len(), tracing: None }.to_frame(payload)
}
