//! Portals: one local port that leads to a service at another node, beside the tunnels of others, and no tunnel at all.

use super::{Contender, column, driver_notes, interleave};
use crate::load::bytes::{Crowd, Direction, round_trips};
use crate::load::{Load, Measured, Sink};
use crate::machine::{self, Memory, Placement};
use crate::report::{Limit, Row, Section, Verdict};
use crate::stats::Summary;
use crate::system::{Failed, Owner, Setup, System};
use crate::tunnel::{HAPROXY_CONNECTIONS, Kind, Targets, Tunnel};
use clap::ValueEnum;
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

/// Of the unencrypted HAProxy pair.
const CPU_SHARE: f64 = 1.0;
const RATE_SHARE: f64 = 1.0;
const ROUND_TRIP_SHARE: f64 = 0.9;
const CONNECTIONS_SHARE: f64 = 1.2;
/// Efficiency with most connections over that with few.
const SCALING_SHARE: f64 = 0.8;
/// Of direct TCP through the same line.
const LINE_SHARE: f64 = 0.8;
/// User memory of an idle connection at one end.
const IDLE_BYTES_MAX: f64 = 1024.0;

const ROUND_TRIPS: u64 = 20_000;
/// Programs that connect again and again: enough that none of the processes ever waits for the next one.
const CONNECTING: usize = 32;
/// Connections that are active together, and the piece that goes to and fro on each.
const CROWDS: [(usize, &str); 3] =
    [(10, "10 connections"), (1000, "1,000 connections"), (10_000, "10,000 connections")];
const PIECE: usize = 4096;
const IDLE: usize = 10_000;
/// A line's delay each way in milliseconds, and its rates in megabits per second.
const DELAY_MS: u64 = 50;
const RATES: [(u64, &str); 2] = [(100, "100 Mbit/s"), (1000, "1 Gbit/s")];
/// By then every window has grown to what the line holds.
const LINE_WARM_UP_S: f64 = 4.0;

const SEALED: Kind = Kind::Sealed("uring");
const HAPROXY: Kind = Kind::HaproxyTcp;
const ALL: [Kind; 6] = [SEALED, HAPROXY, Kind::Plain("uring"), Kind::Sealed("epoll"), Kind::HaproxyTls, Kind::Stunnel];

/// A part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// One stream
    Stream,
    /// New connections
    Connections,
    /// 10, 1,000 and 10,000 connections
    Crowds,
    /// 10,000 idle connections
    Idle,
    /// One stream over a long line
    Line,
    /// 64 B, one at a time, on one CPU
    RoundTrips,
}

/// What to measure.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Options {
    /// Only these parts
    #[arg(long, value_enum)]
    part: Vec<Part>,
    /// Only tunnels whose name contains one of these
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
}

/// Measures.
pub fn run(setup: &Setup, options: &Options) -> Result<Section, Failed> {
    if let Some(text) = options.only.iter().find(|text| !ALL.iter().any(|kind| kind.name().contains(&**text))) {
        let names: Vec<String> = ALL.iter().map(|kind| kind.name()).collect();
        return Err(Failed::new(format!("no tunnel has {text:?} in its name: {}", names.join("; "))));
    }
    let mut section = Section::new(
        "portals",
        format!(
            "Bytes of applications through two nodes on loopback, compared to the last one, beside pairs of HAProxy and \
             stunnel and beside no tunnel. Processor time of both ends, of all their processes. Streams and connections run \
             where the scheduler puts them; round trips on one CPU. Streams: writes of 128 KiB, one way. New connections: \
             {CONNECTING} programs connect, ask 64 B, get them back, and close. Connections in rounds: {PIECE} B out on all \
             of them, then back on all of them. The line delays by {DELAY_MS} ms each way and has a rate: it lies between \
             the two nodes, or is all there is."
        ),
    );
    crate::run::hostile::allow_descriptors()?;
    let free = setup.placed(Placement::Free)?;
    let sink = Sink::new()?;
    let echo = free.floor("echo", &["echo-bytes"])?;
    let targets = Targets { sink: sink.address, echo: echo.address };
    let stage = Stage { setup: &free, sink: &sink, targets, only: &options.only };
    for part in Part::value_variants() {
        if !options.part.is_empty() && !options.part.contains(part) {
            continue;
        }
        let measured = match part {
            Part::Stream => stage.start(&ALL, &mut section).and_then(|it| streams(&stage, &it, &mut section)),
            Part::Connections => {
                stage.start(&ALL, &mut section).and_then(|it| new_connections(&stage, &it, &mut section))
            }
            Part::Crowds => crowds(&stage, &mut section),
            Part::Idle => idle(&stage, &mut section),
            Part::Line => line(&stage, &mut section),
            Part::RoundTrips => {
                let together = setup.placed(Placement::Together)?;
                let echo = together.floor("echo", &["echo-bytes"])?;
                let targets = Targets { sink: sink.address, echo: echo.address };
                pinned(&Stage { setup: &together, targets, ..stage }, &mut section)
            }
        };
        // The other parts are still worth having.
        if let Err(why) = measured {
            eprintln!("  {part:?}: {why}");
            section.notes.push(format!("{part:?}: {why}"));
            let goal = format!("{part:?}: every byte came as it was sent");
            section.verdicts.push(Verdict::new(goal, Summary::single(0.0), Limit::AtLeast(1.0)));
        }
    }
    Ok(section)
}

/// What tunnels are started on, and lead to.
struct Stage<'a> {
    setup: &'a Setup,
    sink: &'a Sink,
    targets: Targets,
    /// See [`Options::only`].
    only: &'a [String],
}

impl Stage<'_> {
    /// Starts tunnels; those of others that cannot be are said to be missing.
    fn start(&self, kinds: &[Kind], section: &mut Section) -> Result<Vec<(Kind, Tunnel)>, Failed> {
        let mut tunnels = Vec::new();
        let is_wanted = |kind: &&Kind| self.only.is_empty() || self.only.iter().any(|text| kind.name().contains(text));
        for kind in kinds.iter().filter(is_wanted) {
            match kind.start(self.setup, self.targets, None) {
                Ok(tunnel) => tunnels.push((*kind, tunnel)),
                Err(why) if kind.is_ours() => return Err(Failed::new(format!("{}: {why}", kind.name()))),
                Err(why) => {
                    let what = format!("NOT MEASURED: {}: {why}", kind.name());
                    eprintln!("  {what}");
                    if !section.notes.contains(&what) {
                        section.notes.push(what);
                    }
                }
            }
        }
        Ok(tunnels)
    }

    /// No tunnel at all.
    fn direct(&self) -> Tunnel {
        let owner = Owner::Others;
        let (address, echo) = (self.targets.sink, self.targets.echo);
        let system = System { name: "no tunnel".into(), address, pids: Vec::new(), facts: Vec::new(), owner };
        Tunnel { system, echo }
    }
}

fn systems(tunnels: &[(Kind, Tunnel)]) -> Vec<&System> {
    tunnels.iter().map(|(_, tunnel)| &tunnel.system).collect()
}

/// The measurements of a kind, if it ran.
fn of<'a, T>(tunnels: &[(Kind, Tunnel)], measured: &'a [T], wanted: Kind) -> Option<&'a T> {
    let place = tunnels.iter().position(|(kind, _)| *kind == wanted)?;
    measured.get(place)
}

const GIGABYTE: f64 = 1e9;

fn stream_row(load: &str, system: &System, measured: &[Measured]) -> Row {
    let mut metrics = vec![("Gbit/s", column(measured, |it| it.per_s * 8.0 / GIGABYTE))];
    if !system.pids.is_empty() {
        metrics.push(("CPU-s per GB", column(measured, |it| GIGABYTE / it.per_cpu_s)));
    }
    metrics.push(("load's CPU-s per GB", column(measured, |it| it.load_ns)));
    metrics.push(("GB per busy s of the machine", column(measured, |it| it.per_busy_s / GIGABYTE)));
    metrics.push(("steal %", column(measured, |it| it.steal * 100.0)));
    Row { load: load.to_owned(), system: system.name.clone(), metrics }
}

/// M1, M2: one stream.
fn streams(stage: &Stage<'_>, tunnels: &[(Kind, Tunnel)], section: &mut Section) -> Result<(), Failed> {
    section.notes.extend(driver_notes(&systems(tunnels)));
    let direct = stage.direct();
    for (direction, name) in [(Direction::Up, "1 stream, up"), (Direction::Down, "1 stream, down")] {
        let systems = systems(tunnels).into_iter().chain([&direct.system]);
        let contenders: Vec<Contender<'_>> = systems
            .map(|system| Contender {
                system,
                load: Box::new(move |system| Load::bytes(system.address, stage.sink, direction)),
            })
            .collect();
        let measured = interleave(stage.setup, name, &contenders)?;
        for (contender, measured) in contenders.iter().zip(&measured) {
            section.rows.push(stream_row(name, contender.system, measured));
        }
        let (Some(ours), Some(theirs)) = (of(tunnels, &measured, SEALED), of(tunnels, &measured, HAPROXY)) else {
            continue;
        };
        let cost = |measured: &[Measured]| column(measured, |it| GIGABYTE / it.per_cpu_s);
        let rate = |measured: &[Measured]| column(measured, |it| it.per_s);
        section.verdicts.push(Verdict::new(
            format!("{name}: CPU of the sealed pair over that of the unencrypted HAProxy pair"),
            Summary::ratio(&cost(ours), &cost(theirs)),
            Limit::AtMost(CPU_SHARE),
        ));
        section.verdicts.push(Verdict::new(
            format!("{name}: rate of the sealed pair over that of the unencrypted HAProxy pair"),
            Summary::ratio(&rate(ours), &rate(theirs)),
            Limit::AtLeast(RATE_SHARE),
        ));
    }
    Ok(())
}

/// M8: connections that come and go.
fn new_connections(stage: &Stage<'_>, tunnels: &[(Kind, Tunnel)], section: &mut Section) -> Result<(), Failed> {
    const NAME: &str = "new connections";
    let direct = stage.direct();
    let all = tunnels.iter().map(|(_, tunnel)| tunnel).chain([&direct]);
    let contenders: Vec<Contender<'_>> = all
        .map(|tunnel| Contender {
            system: &tunnel.system,
            load: Box::new(|_| Load::new_connections(tunnel.echo, CONNECTING)),
        })
        .collect();
    let measured = interleave(stage.setup, NAME, &contenders)?;
    for (contender, measured) in contenders.iter().zip(&measured) {
        let mut metrics = vec![("connections/s", column(measured, |it| it.per_s))];
        if !contender.system.pids.is_empty() {
            metrics.push(("CPU us per connection", column(measured, |it| 1e6 / it.per_cpu_s)));
        }
        metrics.push(("load's CPU us per connection", column(measured, |it| it.load_ns / 1e3)));
        metrics.push(("steal %", column(measured, |it| it.steal * 100.0)));
        section.rows.push(Row { load: NAME.into(), system: contender.system.name.clone(), metrics });
    }
    if let (Some(ours), Some(theirs)) = (of(tunnels, &measured, SEALED), of(tunnels, &measured, HAPROXY)) {
        let rate = |measured: &[Measured]| column(measured, |it| it.per_s);
        section.verdicts.push(Verdict::new(
            "new connections per second: sealed pair over the unencrypted HAProxy pair",
            Summary::ratio(&rate(ours), &rate(theirs)),
            Limit::AtLeast(CONNECTIONS_SHARE),
        ));
        // What the pairs alone would do: on few CPUs the programs that connect cost more than either.
        let efficiency = |measured: &[Measured]| column(measured, |it| it.per_cpu_s);
        section.verdicts.push(Verdict::new(
            "new connections per CPU-second of the pair: sealed over the unencrypted HAProxy pair",
            Summary::ratio(&efficiency(ours), &efficiency(theirs)),
            Limit::AtLeast(CONNECTIONS_SHARE),
        ));
    }
    Ok(())
}

/// As many as a kind can have.
fn at_most(kind: Kind, connections: usize) -> usize {
    if kind == HAPROXY { connections.min(HAPROXY_CONNECTIONS) } else { connections }
}

/// M9: the same bytes on few connections and on many.
fn crowds(stage: &Stage<'_>, section: &mut Section) -> Result<(), Failed> {
    let tunnels = stage.start(&[SEALED, HAPROXY], section)?;
    let contenders: Vec<Contender<'_>> = CROWDS
        .iter()
        .flat_map(|(count, _)| {
            tunnels.iter().map(move |(kind, tunnel)| Contender {
                system: &tunnel.system,
                load: Box::new(move |_| Load::bytes_in_rounds(tunnel.echo, at_most(*kind, *count), PIECE)),
            })
        })
        .collect();
    let measured = interleave(stage.setup, "connections in rounds", &contenders)?;
    for (place, (contender, measured)) in contenders.iter().zip(&measured).enumerate() {
        section.rows.push(stream_row(CROWDS[place / tunnels.len()].1, contender.system, measured));
    }
    if let Some(place) = tunnels.iter().position(|(kind, _)| *kind == SEALED) {
        let efficiency = |crowd: usize| column(&measured[crowd * tunnels.len() + place], |it| it.per_cpu_s);
        for (crowd, (_, name)) in CROWDS.iter().enumerate().skip(1) {
            section.verdicts.push(Verdict::new(
                format!("bytes per CPU-second with {name} over that with 10, sealed"),
                Summary::ratio(&efficiency(crowd), &efficiency(0)),
                Limit::AtLeast(SCALING_SHARE),
            ));
        }
    }
    if tunnels.iter().any(|(kind, _)| *kind == HAPROXY) {
        let what = format!("HAProxy has two descriptors per connection, so it gets {HAPROXY_CONNECTIONS} of 10,000");
        section.notes.push(what);
    }
    Ok(())
}

/// M10: what a connection costs that nobody uses.
fn idle(stage: &Stage<'_>, section: &mut Section) -> Result<(), Failed> {
    for kind in [SEALED, HAPROXY] {
        let Some((_, tunnel)) = stage.start(&[kind], section)?.pop() else { continue };
        let void = |error: std::io::Error| Failed::new(format!("void: {}: {error}", tunnel.system.name));
        // Whatever the first connection makes once is there.
        let first = Crowd::open(tunnel.echo, 1).map_err(void)?;
        std::thread::sleep(Duration::from_secs(2));
        let memory = || -> Result<Vec<Memory>, Failed> {
            Ok(tunnel.system.pids.iter().map(|pid| machine::memory(*pid)).collect::<std::io::Result<_>>()?)
        };
        let before = memory()?;
        let count = at_most(kind, IDLE) - 1;
        let start = Instant::now();
        let crowd = Crowd::open(tunnel.echo, count).map_err(void)?;
        let elapsed = start.elapsed().as_secs_f64();
        // Memory that was used only while connections came up is given back by then.
        std::thread::sleep(Duration::from_secs(5));
        let after = memory()?;
        crowd.ask_all().map_err(void)?;
        first.ask_all().map_err(void)?;
        let each = |pick: fn(&Memory) -> u64| -> Vec<f64> {
            let grown = before.iter().zip(&after).map(|(before, after)| pick(after).saturating_sub(pick(before)));
            grown.map(|bytes| bytes as f64 / count as f64).collect()
        };
        let (pss, data) = (each(|it| it.pss), each(|it| it.data));
        // Engine and control of the near node, then of the far one; or one process for each.
        let processes = pss.len() / 2;
        let ends = |values: &[f64]| [values[..processes].iter().sum::<f64>(), values[processes..].iter().sum()];
        // The others' far end was started first.
        let (near, far) = if kind == HAPROXY { (1, 0) } else { (0, 1) };
        let (pss, data) = (ends(&pss), ends(&data));
        eprintln!("  {count} idle connections: {}: {:.0} and {:.0} B each", tunnel.system.name, pss[near], pss[far]);
        section.rows.push(Row {
            load: format!("{} idle connections", count + 1),
            system: tunnel.system.name.clone(),
            metrics: vec![
                ("near: PSS bytes each", Summary::single(pss[near])),
                ("far: PSS bytes each", Summary::single(pss[far])),
                ("near: data bytes each", Summary::single(data[near])),
                ("far: data bytes each", Summary::single(data[far])),
                ("connections/s while opening", Summary::single(count as f64 / elapsed)),
            ],
        });
        if kind == SEALED {
            section.verdicts.push(Verdict::new(
                format!("data of an idle connection at the end where it is more, bytes ({} of them answer)", count + 1),
                Summary::single(data[near].max(data[far])),
                Limit::AtMost(IDLE_BYTES_MAX),
            ));
        }
    }
    Ok(())
}

/// One stream over a long line.
fn line(stage: &Stage<'_>, section: &mut Section) -> Result<(), Failed> {
    let setup = &Setup { warm_up_s: stage.setup.warm_up_s.max(LINE_WARM_UP_S), ..stage.setup.clone() };
    for (rate, name) in RATES {
        let name = format!("{} ms each way, {name}", DELAY_MS);
        let lines = std::cell::RefCell::new(Vec::new());
        let through = |to: std::net::SocketAddr| {
            let arguments =
                ["line", "--to", &to.to_string(), "--delay", &DELAY_MS.to_string(), "--rate", &rate.to_string()];
            let line = setup.floor("line", &arguments)?;
            let address = line.address;
            lines.borrow_mut().push(line);
            Ok(address)
        };
        let ours = SEALED.start(setup, stage.targets, Some(&through))?;
        let direct = stage.direct();
        let direct = System { name: "no tunnel".into(), address: through(direct.system.address)?, ..direct.system };
        let contenders = [&ours.system, &direct].map(|system| Contender {
            system,
            load: Box::new(|system: &System| Load::bytes(system.address, stage.sink, Direction::Up)),
        });
        let measured = interleave(setup, &name, &contenders)?;
        for (contender, measured) in contenders.iter().zip(&measured) {
            section.rows.push(stream_row(&name, contender.system, measured));
        }
        let rate = |measured: &[Measured]| column(measured, |it| it.per_s);
        section.verdicts.push(Verdict::new(
            format!("{name}: goodput of the sealed pair over that of TCP alone"),
            Summary::ratio(&rate(&measured[0]), &rate(&measured[1])),
            Limit::AtLeast(LINE_SHARE),
        ));
    }
    Ok(())
}

/// M5: round trips on one CPU.
fn pinned(stage: &Stage<'_>, section: &mut Section) -> Result<(), Failed> {
    let tunnels = stage.start(&ALL, section)?;
    let direct = stage.direct();
    let all: Vec<&Tunnel> = tunnels.iter().map(|(_, tunnel)| tunnel).chain([&direct]).collect();
    let histogram =
        || Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).map_err(|error| Failed::new(error.to_string()));
    let mut medians: Vec<Vec<f64>> = vec![Vec::new(); all.len()];
    let mut totals = all.iter().map(|_| histogram()).collect::<Result<Vec<_>, _>>()?;
    for repetition in 0..stage.setup.repetitions {
        for ((tunnel, medians), total) in all.iter().zip(&mut medians).zip(&mut totals) {
            let mut one = histogram()?;
            let void = |error: std::io::Error| Failed::new(format!("void: {}: {error}", tunnel.system.name));
            round_trips(tunnel.echo, ROUND_TRIPS, &mut one).map_err(void)?;
            let p50 = one.value_at_quantile(0.5) as f64 / 1000.0;
            medians.push(p50);
            total.add(&one).map_err(|error| Failed::new(error.to_string()))?;
            let (name, repetitions) = (&tunnel.system.name, stage.setup.repetitions);
            eprintln!("  round trips: {name}, {} of {repetitions}: p50 {p50} us", repetition + 1);
        }
    }
    let medians: Vec<Summary> = medians.into_iter().map(Summary::of).collect();
    for ((tunnel, p50), total) in all.iter().zip(&medians).zip(&totals) {
        let at = |quantile: f64| Summary::single(total.value_at_quantile(quantile) as f64 / 1000.0);
        section.rows.push(Row {
            load: "64 B, round trips".into(),
            system: tunnel.system.name.clone(),
            metrics: vec![("p50 us", p50.clone()), ("p99 us", at(0.99)), ("p99.9 us", at(0.999))],
        });
    }
    if let (Some(ours), Some(theirs)) = (of(&tunnels, &medians, SEALED), of(&tunnels, &medians, HAPROXY)) {
        section.verdicts.push(Verdict::new(
            "64 B round trip on one CPU: p50 of the sealed pair over that of the unencrypted HAProxy pair",
            Summary::ratio(ours, theirs),
            Limit::AtMost(ROUND_TRIP_SHARE),
        ));
    }
    Ok(())
}
