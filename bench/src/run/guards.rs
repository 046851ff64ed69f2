//! What a guard costs a message that it lets pass.

use super::{Contender, column, driver_notes, frames_row, interleave};
use crate::engine::{Engine, GRANTED, OPEN};
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
        "64 B messages to `echo` of an engine alone: without a guard, behind one that is open to everybody, and, through a \
         channel, behind one that the channel is granted. The same process, in turn.",
    );
    let system = Engine::start(setup, "uring", 1)?;
    let Owner::Engine(engine) = &system.owner else { return Err(Failed::new("an engine is an engine")) };
    let guards = [("no guard", None), ("an open guard", Some(OPEN)), ("a granted guard", Some(GRANTED))];
    // A link is never granted anything.
    for (name, is_sealed, guards) in [("sealed", true, &guards[..]), ("plain", false, &guards[..2])] {
        let contenders: Vec<Contender<'_>> = guards
            .iter()
            .map(|&(_, guard)| Contender {
                system: &system,
                load: Box::new(move |system: &System| {
                    engine.serve_echo(guard).map_err(std::io::Error::other)?;
                    if !is_sealed {
                        return Load::echo_window(system.address, PAYLOAD, IN_FLIGHT);
                    }
                    let (stream, channel) =
                        system.channel(load::link(system.address)?).map_err(std::io::Error::other)?;
                    Ok(Load::sealed_window(stream, channel, PAYLOAD, IN_FLIGHT))
                }),
            })
            .collect();
        let measured = interleave(setup, name, &contenders)?;
        let cost = |place: usize| column(&measured[place], |it| 1e9 / it.per_cpu_s);
        for (place, (guard, _)) in guards.iter().enumerate() {
            section.rows.push(frames_row(&format!("{name}, {guard}"), &system, PAYLOAD, &measured[place]));
            if place > 0 {
                section.verdicts.push(Verdict::new(
                    format!("{name}: CPU per message with {guard} over without"),
                    Summary::ratio(&cost(place), &cost(0)),
                    Limit::AtMost(SHARE),
                ));
            }
        }
    }
    section.notes = driver_notes(&[&system]);
    Ok(section)
}
