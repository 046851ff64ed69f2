//! M4 and M5: small routed messages to `echo`, pipelined and one at a time.

use super::{Contender, column, driver_notes, frames_row, interleave};
use crate::load::{self, Load};
use crate::machine::Placement;
use crate::report::{Limit, Row, Section, Verdict};
use crate::stats::Summary;
use crate::system::{Failed, Setup, System};
use hdrhistogram::Histogram;
use ockam_bench::flow::Checker;
use std::io::Write;
use std::time::Instant;

const PAYLOAD: usize = 64;
/// In flight, and the goal per CPU-second on the reference class.
const WINDOWS: [(u64, f64); 2] = [(4096, 8.0e6), (64, 1.2e6)];
/// Of the floor in the same run.
const FLOOR_SHARE: f64 = 0.6;
/// Round trips of one repetition.
const ROUND_TRIPS: u64 = 30_000;

/// Measures.
pub fn run(setup: &Setup) -> Result<Section, Failed> {
    let mut section = Section::new(
        "messages",
        "Routed 64 B messages to `echo` over one link, every answer compared byte by byte in sequence. The floor is a \
         blocking loop that swaps the routes of each frame and does nothing else. Frames per CPU-second of all the \
         system's processes, kernel included.",
    );
    let uring = setup.node("uring", 1)?;
    let epoll = setup.node("epoll", 1)?;
    let floor = setup.floor("floor: blocking swap loop", &["echo"])?;
    let systems = [&uring, &floor, &epoll];
    for (in_flight, goal) in WINDOWS {
        let label = format!("{in_flight} in flight");
        let contenders = systems.map(|system| Contender {
            system,
            load: Box::new(move |system| Load::echo_window(system.address, PAYLOAD, in_flight)),
        });
        let measured = interleave(setup, &label, &contenders)?;
        for (system, measured) in systems.iter().zip(&measured) {
            section.rows.push(frames_row(&label, system, PAYLOAD, measured));
        }
        let per_cpu = |place: usize| column(&measured[place], |it| it.per_cpu_s);
        section.verdicts.push(Verdict::new(
            format!("{label}: messages per CPU-second (uring)"),
            per_cpu(0),
            Limit::AtLeast(goal),
        ));
        section.verdicts.push(Verdict::new(
            format!("{label}: share of the floor (uring)"),
            Summary::ratio(&per_cpu(0), &per_cpu(1)),
            Limit::AtLeast(FLOOR_SHARE),
        ));
    }
    section.notes = driver_notes(&systems);
    Ok(section)
}

/// One message at a time, everything on one CPU: a latency that the machine's wake-ups across CPUs do not drown.
pub fn round_trips(setup: &Setup) -> Result<Section, Failed> {
    let setup = &setup.placed(Placement::Together)?;
    let mut section = Section::new(
        "round-trips",
        format!(
            "64 B to `echo` and back, one at a time, closed loop, system and load pinned to one CPU, {ROUND_TRIPS} \
             round trips per repetition."
        ),
    );
    let uring = setup.node("uring", 1)?;
    let epoll = setup.node("epoll", 1)?;
    let floor = setup.floor("floor: blocking swap loop", &["echo"])?;
    let systems = [&uring, &floor, &epoll];
    let mut medians: Vec<Vec<f64>> = vec![Vec::new(); systems.len()];
    let mut all: Vec<Histogram<u64>> = Vec::new();
    for _ in systems {
        all.push(histogram()?);
    }
    for repetition in 0..setup.repetitions {
        for ((system, medians), all) in systems.iter().zip(&mut medians).zip(&mut all) {
            let histogram = closed_loop(system)?;
            medians.push(histogram.value_at_quantile(0.5) as f64 / 1000.0);
            all.add(&histogram).map_err(|error| Failed::new(error.to_string()))?;
            let p50 = medians.last().copied().unwrap_or_default();
            eprintln!("  round trips: {}, {} of {}: p50 {p50} us", system.name, repetition + 1, setup.repetitions);
        }
    }
    for ((system, medians), all) in systems.iter().zip(&medians).zip(&all) {
        let at = |quantile: f64| Summary::single(all.value_at_quantile(quantile) as f64 / 1000.0);
        section.rows.push(Row {
            load: "1 in flight".into(),
            system: system.name.clone(),
            metrics: vec![
                ("p50 us", Summary::of(medians.clone())),
                ("p99 us", at(0.99)),
                ("p99.9 us", at(0.999)),
                ("max us", at(1.0)),
            ],
        });
    }
    section.notes = driver_notes(&systems);
    Ok(section)
}

/// Nanoseconds, up to a minute, three digits.
fn histogram() -> Result<Histogram<u64>, Failed> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(|error| Failed::new(error.to_string()))
}

fn closed_loop(system: &System) -> Result<Histogram<u64>, Failed> {
    let mut stream = load::link(system.address)?;
    let (requests, answers) = load::echo_flows(PAYLOAD);
    let mut checker = Checker::of(answers);
    let mut histogram = histogram()?;
    let mut frame = Vec::new();
    let warm_up = ROUND_TRIPS / 10;
    for sequence in 0..ROUND_TRIPS + warm_up {
        frame.clear();
        requests.write(sequence, &mut frame);
        let start = Instant::now();
        stream.write_all(&frame)?;
        while checker.verified() <= sequence {
            if checker.receive(&stream)?.is_none() {
                return Err(Failed::new(format!("void: {} closed the connection", system.name)));
            }
        }
        let elapsed = start.elapsed().as_nanos() as u64;
        if sequence >= warm_up {
            histogram.saturating_record(elapsed);
        }
    }
    Ok(histogram)
}
