//! What a guard costs a message that it lets pass.

use super::{Contender, column, driver_notes, frames_row, interleave};
use crate::engine::Engine;
use crate::load::{self, Load};
use crate::report::{Limit, Section, Verdict};
use crate::stats::Summary;
use crate::system::{Failed, Owner, Setup, System};

/// Payload, and how many are in flight.
const PAYLOAD: usize = 64;
const IN_FLIGHT: u64 = 4096;
/// Of the time without a guard.
const SHARE: f64 = 1.02;

/// Measures.
pub fn run(setup: &Setup) -> Result<Section, Failed> {
    let mut section = Section::new(
        "guards",
        "64 B messages to `echo` of an engine alone, through a channel that is granted a guard, which stands before `echo` or \
         does not; the same over the link, with the guard open. The same process, in turn.",
    );
    let system = Engine::start(setup, "uring", 1)?;
    let Owner::Engine(engine) = &system.owner else { return Err(Failed::new("an engine is an engine")) };
    let kinds = [("sealed", true), ("plain", false)].into_iter();
    for (name, is_sealed) in kinds {
        let contenders = [false, true].map(|is_guarded| Contender {
            system: &system,
            load: Box::new(move |system: &System| {
                engine.serve_echo(is_guarded).map_err(std::io::Error::other)?;
                if !is_sealed {
                    return Load::echo_window(system.address, PAYLOAD, IN_FLIGHT);
                }
                let (stream, channel) = system.channel(load::link(system.address)?).map_err(std::io::Error::other)?;
                Ok(Load::sealed_window(stream, channel, PAYLOAD, IN_FLIGHT))
            }),
        });
        let measured = interleave(setup, name, &contenders)?;
        for (guard, measured) in ["no guard", "a guard"].into_iter().zip(&measured) {
            section.rows.push(frames_row(&format!("{name}, {guard}"), &system, PAYLOAD, measured));
        }
        let cost = |place: usize| column(&measured[place], |it| 1e9 / it.per_cpu_s);
        section.verdicts.push(Verdict::new(
            format!("{name}: CPU per message with a guard over without"),
            Summary::ratio(&cost(1), &cost(0)),
            Limit::AtMost(SHARE),
        ));
    }
    section.notes = driver_notes(&[&system]);
    Ok(section)
}
