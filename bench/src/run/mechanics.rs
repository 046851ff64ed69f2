//! M14: what a frame costs in things that can be counted exactly, in untimed passes: allocations, copies, passes through
//! the engine's loop, switches. Deterministic on a machine that others use, too.

use crate::engine::Engine;
use crate::load::{Dials, Load, Path, Sink};
use crate::machine;
use crate::report::{Limit, Row, Section, Verdict};
use crate::stats::Summary;
use crate::system::{Failed, Owner, Setup, System};
use ockam_engine_abi::Counter;
use std::time::Duration;

/// Allocations of a whole pass that are nobody's frame: deadlines, the sweep, this program's questions. One per frame,
/// batch or tick would be hundreds at the least.
const ALLOCATIONS_MAX: f64 = 20.0;

/// What was counted up to a moment.
struct Counted {
    frames: u64,
    allocations: u64,
    copied: u64,
    ticks: u64,
    switches: u64,
}

impl Counted {
    fn now(system: &System) -> Result<Counted, Failed> {
        let Owner::Engine(engine) = &system.owner else { return Err(Failed::new("only an engine counts")) };
        // Asked for first: the engine goes on while the rest is read, so allocations are never counted too low.
        let counters = engine.counters()?;
        Ok(Counted {
            frames: counters.total(Counter::FramesIn),
            copied: counters.total(Counter::BytesCopied),
            ticks: counters.total(Counter::Ticks),
            switches: system.pids.iter().map(|&pid| machine::switches(pid)).sum::<std::io::Result<u64>>()?,
            allocations: engine.allocations()?,
        })
    }
}

/// Measures.
pub fn run(setup: &Setup) -> Result<Section, Failed> {
    let mut section = Section::new(
        "mechanics",
        "Counted in the running engine (`ockam-bench-engine`: the engine of the shipped binary with a counting \
         allocator) over the whole measurement, after the warm-up. Copies are those of payload bytes in user space; \
         a tick is one pass through a core's loop, which on uring is one system call.",
    );
    for driver in ["uring", "epoll"] {
        let system = Engine::start(setup, driver, 1)?;
        let sink = Sink::new()?;
        let path = Path { relay: system.address, via: &[], sink: &sink, dials: Dials::OnTheFirstFrame };
        for (label, payload) in [("echo 64 B, 4096 in flight", 64), ("echo 64 B, 64 in flight", 64)] {
            let in_flight = if label.contains("4096") { 4096 } else { 64 };
            let load = Load::echo_window(system.address, payload, in_flight)?;
            count(setup, &mut section, &system, label, payload, load)?;
        }
        for (label, payload) in
            [("relay 64 B", 64), ("relay 4 KiB", 4096), ("relay 64 KiB", 65_536), ("relay 1 MiB", 1 << 20)]
        {
            let load = Load::stream(&path, payload, 1)?;
            count(setup, &mut section, &system, label, payload, load)?;
        }
    }
    Ok(section)
}

fn count(
    setup: &Setup,
    section: &mut Section,
    system: &System,
    label: &str,
    payload: usize,
    load: Load,
) -> Result<(), Failed> {
    std::thread::sleep(Duration::from_secs_f64(setup.warm_up_s));
    let before = Counted::now(system)?;
    std::thread::sleep(Duration::from_secs_f64(setup.seconds));
    let after = Counted::now(system)?;
    load.finish()?;
    let frames = (after.frames - before.frames) as f64;
    if frames == 0.0 {
        return Err(Failed::new(format!("void: nothing came through {}", system.name)));
    }
    let per_frame = |after: u64, before: u64| Summary::single((after - before) as f64 / frames);
    let allocations = per_frame(after.allocations, before.allocations);
    let copies = Summary::single(per_frame(after.copied, before.copied).median / payload as f64);
    eprintln!("  {label}: {}: {:.6} allocations per frame", system.name, allocations.median);
    let total = Summary::single((after.allocations - before.allocations) as f64);
    section.verdicts.push(Verdict::new(
        format!("{label}, {}: allocations in {frames} frames", system.name),
        total.clone(),
        Limit::AtMost(ALLOCATIONS_MAX),
    ));
    section.verdicts.push(Verdict::new(
        format!("{label}, {}: copies of the payload", system.name),
        copies.clone(),
        Limit::AtMost(1.0005),
    ));
    section.rows.push(Row {
        load: label.to_owned(),
        system: system.name.clone(),
        metrics: vec![
            ("frames", Summary::single(frames)),
            ("allocations", total),
            ("allocations per frame", allocations),
            ("payload copies", copies),
            ("ticks per frame", per_frame(after.ticks, before.ticks)),
            ("switches per frame", per_frame(after.switches, before.switches)),
        ],
    });
    Ok(())
}
