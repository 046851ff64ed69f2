//! M13: a node that passes frames from one link to another, against plain relays; and many links on several cores.

use super::{Contender, column, driver_notes, frames_row, interleave};
use crate::load::{Dials, Load, Path, Sink};
use crate::report::{Limit, Row, Section, Verdict};
use crate::stats::Summary;
use crate::system::{Failed, Setup, System};

/// Payloads and, for each, which floor decides and how.
const SIZES: [(usize, &str); 2] = [(64, "64 B"), (64 * 1024, "64 KiB")];
/// Share of the bare frame relay's efficiency, 64 B.
const FRAMES_SHARE: f64 = 0.6;
/// Cost over the plain relay of the same bytes, 64 KiB.
const BYTES_COST: f64 = 1.3;
/// Links of the comparison of cores.
const LINKS: usize = 64;
const PER_LINK: u64 = 64;
/// Least share of a core, and least share of one thread's efficiency that N threads keep.
const CORE_SHARE: f64 = 0.2;
const THREADS_SHARE: f64 = 0.9;

/// A system and how it comes to the sink.
fn contender<'a>(system: &'a System, sink: &'a Sink, dials: Dials, payload: usize, flows: usize) -> Contender<'a> {
    let load =
        move |system: &System| Load::stream(&Path { relay: system.address, via: &[], sink, dials }, payload, flows);
    Contender { system, load: Box::new(load) }
}

/// One flow through one thread, and eight flows through one and two.
pub fn run(setup: &Setup) -> Result<Section, Failed> {
    let mut section = Section::new(
        "relay",
        "Frames from one link to another, every byte compared at the sink. The node finds the target in the route and \
         dials it; the floors are told where it is. `floor: frames` parses and rewrites the routes of each frame and \
         nothing else, `floor: bytes` copies the stream through a 256 KiB buffer; both block, a thread per flow.",
    );
    let sink = Sink::new()?;
    let to = sink.address.to_string();
    for (payload, name) in SIZES {
        for flows in [1, 8] {
            let uring = setup.node("uring", 1)?;
            let other = if flows == 1 { setup.node("epoll", 1)? } else { setup.node("uring", 2)? };
            let frames = setup.floor("floor: frames", &["frames", "--to", &to])?;
            let bytes = setup.floor("floor: bytes", &["bytes", "--to", &to])?;
            let systems = [
                (&uring, Dials::OnTheFirstFrame),
                (&frames, Dials::AtOnce),
                (&bytes, Dials::AtOnce),
                (&other, Dials::OnTheFirstFrame),
            ];
            let label = format!("{name}, {flows} flow{}", if flows == 1 { "" } else { "s" });
            let contenders = systems.map(|(system, dials)| contender(system, &sink, dials, payload, flows));
            let measured = interleave(setup, &label, &contenders)?;
            for ((system, _), measured) in systems.iter().zip(&measured) {
                let mut row = frames_row(&label, system, payload, measured);
                if flows > 1 && std::ptr::eq(*system, &other) {
                    row.system = format!("{}, 2 threads", row.system);
                }
                section.rows.push(row);
            }
            let per_cpu = |place: usize| column(&measured[place], |it| it.per_cpu_s);
            section.verdicts.push(match payload {
                64 => Verdict::new(
                    format!("{label}: share of the bare frame relay (uring)"),
                    Summary::ratio(&per_cpu(0), &per_cpu(1)),
                    Limit::AtLeast(FRAMES_SHARE),
                ),
                _ => Verdict::new(
                    format!("{label}: CPU over the plain relay of the same bytes (uring)"),
                    Summary::ratio(&per_cpu(2), &per_cpu(0)),
                    Limit::AtMost(BYTES_COST),
                ),
            });
            if payload == 64 {
                section.notes.extend(driver_notes(&[&uring, &other]));
            }
        }
    }
    Ok(section)
}

/// Many links: how evenly cores share them, and what a second thread costs.
pub fn cores(setup: &Setup) -> Result<Section, Failed> {
    let mut section = Section::new(
        "cores",
        format!(
            "{LINKS} links to `echo` (64 B, rounds of {PER_LINK} messages on each link), one engine thread against two; \
             frames received per core from `engine stats`."
        ),
    );
    let (one, two) = (setup.node("uring", 1)?, setup.node("uring", 2)?);
    let systems = [&one, &two];
    let before = two.frames_per_core()?;
    let contenders = systems.map(|system| Contender {
        system,
        load: Box::new(|system: &System| Load::echo_rounds(system.address, 64, LINKS, PER_LINK, 2)),
    });
    let measured = interleave(setup, "64 links", &contenders)?;
    let after = two.frames_per_core()?;
    for ((system, measured), threads) in systems.iter().zip(&measured).zip(["1 thread", "2 threads"]) {
        let mut row = frames_row("64 links, 64 B", system, 64, measured);
        row.system = format!("{}, {threads}", row.system);
        section.rows.push(row);
    }
    let frames: Vec<f64> = after.iter().zip(&before).map(|(after, before)| (after - before) as f64).collect();
    let total: f64 = frames.iter().sum();
    for (core, frames) in frames.iter().enumerate() {
        section.rows.push(Row {
            load: "64 links, 64 B".into(),
            system: format!("core {core} of 2"),
            metrics: vec![("share of frames %", Summary::single(frames / total * 100.0))],
        });
    }
    let least = frames.iter().copied().fold(f64::INFINITY, f64::min) / total;
    section.verdicts.push(Verdict::new(
        "least share of a core among 2, 64 links",
        Summary::single(least),
        Limit::AtLeast(CORE_SHARE),
    ));
    let per_cpu = |place: usize| column(&measured[place], |it| it.per_cpu_s);
    section.verdicts.push(Verdict::new(
        "efficiency of 2 threads over that of 1, 64 links",
        Summary::ratio(&per_cpu(1), &per_cpu(0)),
        Limit::AtLeast(THREADS_SHARE),
    ));
    section.notes = driver_notes(&systems);
    Ok(section)
}
