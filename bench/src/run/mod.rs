//! The measurements, one module per subject. Each gives a [`Section`](crate::report::Section).

pub mod calibrate;
pub mod channels;
pub mod commands;
pub mod guards;
pub mod hops;
pub mod hostile;
pub mod idle;
pub mod lifecycle;
pub mod mechanics;
pub mod messages;
pub mod portals;
pub mod relay;
pub mod runtimes;
pub mod trust;

use crate::load::{Load, Measured};
use crate::report::Row;
use crate::stats::Summary;
use crate::system::{Failed, Setup, System};

/// How a repetition of one system is loaded.
type Loader<'a> = Box<dyn Fn(&System) -> std::io::Result<Load> + 'a>;

/// One line of a comparison.
struct Contender<'a> {
    system: &'a System,
    load: Loader<'a>,
}

/// Measures contenders in turn, again and again: what disturbs the machine disturbs all of them.
fn interleave(setup: &Setup, label: &str, contenders: &[Contender<'_>]) -> Result<Vec<Vec<Measured>>, Failed> {
    let mut all: Vec<Vec<Measured>> = contenders.iter().map(|_| Vec::new()).collect();
    for repetition in 0..setup.repetitions {
        for (contender, measured) in contenders.iter().zip(&mut all) {
            let name = &contender.system.name;
            let load = (contender.load)(contender.system)
                .map_err(|error| Failed::new(format!("{label}: no connection through {name}: {error}")))?;
            let one = Measured::take(setup, contender.system, load)?;
            eprintln!(
                "  {label}: {name}, {} of {}: {:.0} /s, {:.0} per CPU-s",
                repetition + 1,
                setup.repetitions,
                one.per_s,
                one.per_cpu_s
            );
            measured.push(one);
        }
    }
    Ok(all)
}

/// A column of the measurements.
fn column(measured: &[Measured], pick: impl Fn(&Measured) -> f64) -> Summary {
    Summary::of(measured.iter().map(pick).collect())
}

/// What is said of frames, whatever their size.
fn frames_row(load: &str, system: &System, payload_len: usize, measured: &[Measured]) -> Row {
    let gigabytes = payload_len as f64 / 1e9;
    let mut metrics = vec![
        ("frames per CPU-s", column(measured, |it| it.per_cpu_s)),
        ("CPU ns per frame", column(measured, |it| 1e9 / it.per_cpu_s)),
    ];
    if payload_len >= 4096 {
        metrics.push(("CPU-s per GB", column(measured, |it| 1.0 / (it.per_cpu_s * gigabytes))));
        metrics.push(("Gbit/s", column(measured, |it| it.per_s * gigabytes * 8.0)));
    } else {
        metrics.push(("frames/s", column(measured, |it| it.per_s)));
    }
    metrics.push(("frames per busy s of the machine", column(measured, |it| it.per_busy_s)));
    metrics.push(("load's CPU ns per frame", column(measured, |it| it.load_ns)));
    metrics.push(("steal %", column(measured, |it| it.steal * 100.0)));
    Row { load: load.to_owned(), system: system.name.clone(), metrics }
}

/// What drivers a table has, and why.
fn driver_notes(systems: &[&System]) -> Vec<String> {
    systems
        .iter()
        .filter(|system| !system.facts.is_empty())
        .map(|system| {
            let facts: Vec<String> = system.facts.iter().map(|(name, value)| format!("{name} {value}")).collect();
            format!("{}: {}", system.name, facts.join(", "))
        })
        .collect()
}
