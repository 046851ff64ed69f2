//! The same relay on our two drivers and on other ways to do I/O.

use super::{Contender, column, driver_notes, frames_row, interleave};
use crate::load::{Dials, Load, Path, Sink};
use crate::report::{Row, Section};
use crate::stats::Summary;
use crate::system::{Failed, Setup, System};

const RIVALS: [&str; 3] = ["tokio", "tokio-uring", "glommio"];

/// Measures.
pub fn run(setup: &Setup) -> Result<Section, Failed> {
    let mut section = Section::new(
        "runtimes",
        "One flow of frames through one thread. Ours are whole nodes: tables, rules, deadlines, counters. The others do \
         the same bare thing to each frame (parse two routes, move one address) with shared code, the same buffers \
         (256 KiB) and one send per large frame or batch of small ones; only the I/O differs.",
    );
    let sink = Sink::new()?;
    let to = sink.address.to_string();
    for (payload, label) in [(64, "64 B"), (64 * 1024, "64 KiB")] {
        let mut systems = vec![
            (setup.node("uring", 1)?, Dials::OnTheFirstFrame),
            (setup.node("epoll", 1)?, Dials::OnTheFirstFrame),
            (setup.floor("blocking", &["frames", "--to", &to])?, Dials::AtOnce),
        ];
        for runtime in RIVALS {
            systems.push((setup.rival(runtime, &["--to", &to])?, Dials::AtOnce));
        }
        let contenders: Vec<Contender<'_>> = systems
            .iter()
            .map(|(system, dials)| {
                let (sink, dials) = (&sink, *dials);
                let load = move |system: &System| {
                    Load::stream(&Path { relay: system.address, via: &[], sink, dials }, payload, 1)
                };
                Contender { system, load: Box::new(load) }
            })
            .collect();
        let measured = interleave(setup, label, &contenders)?;
        let blocking = column(&measured[2], |it| it.per_cpu_s);
        for ((system, _), measured) in systems.iter().zip(&measured) {
            let mut row: Row = frames_row(label, system, payload, measured);
            let cost = Summary::ratio(&blocking, &column(measured, |it| it.per_cpu_s));
            row.metrics.push(("CPU over blocking", cost));
            section.rows.push(row);
        }
        section.notes = driver_notes(&[&systems[0].0, &systems[1].0]);
    }
    Ok(section)
}
