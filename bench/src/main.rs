//! Measures the shipped `ockam` binary, as processes, beside floors and other runtimes in the same run.
//!
//! * [`run`]: the subjects. [`report`]: what comes out, with a verdict per goal. [`stats`]: medians and intervals.
//! * [`system`], [`engine`], [`tunnel`]: processes under test. [`floor`]: the least that their task costs.
//! * [`load`]: blocking load that verifies every byte; [`opener`]: its secure channels. [`machine`]: CPUs, memory, what the kernel counts.
//! * [`cleanup`]: whatever ends the run, the machine is left as it was.
#![forbid(unsafe_code)]

mod cleanup;
mod engine;
mod floor;
mod load;
mod machine;
mod opener;
mod report;
mod run;
mod stats;
mod system;
mod tunnel;

use clap::{Parser, Subcommand};
use cleanup::Cleanup;
use floor::Floor;
use machine::{Cubic, Environment, Placement};
use report::{Report, Section};
use run::trust::Part;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use system::{Failed, Setup};

/// Measure the shipped `ockam` binary against floors and goals
#[derive(Parser, Debug)]
#[command(name = "ockam-bench", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    subject: Subject,
    /// The binary under test [default: the `ockam` beside this program]
    #[arg(long, global = true, value_name = "PATH")]
    ockam: Option<PathBuf>,
    /// Measure the engine alone (`ockam-bench-engine`), without a control process
    #[arg(long, global = true)]
    bare: bool,
    /// Where system and load run
    #[arg(long, global = true, value_enum, default_value_t = Placement::Split)]
    placement: Placement,
    /// Seconds of each measurement
    #[arg(short = 't', long, global = true, default_value_t = 5.0, value_parser = seconds)]
    time: f64,
    /// Seconds of warm-up before each
    #[arg(long, global = true, default_value_t = 2.0, value_parser = seconds)]
    omit: f64,
    /// Interleaved repetitions
    #[arg(short, long, global = true, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=1000))]
    repetitions: u16,
    /// Runs of each command, for `commands`; kills, for `lifecycle`; starts and changes, for `trust`
    #[arg(long, global = true, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: u16,
    /// JSON on stdout instead of tables
    #[arg(long, global = true)]
    json: bool,
    /// Write the JSON to a file, too
    #[arg(long, global = true, value_name = "FILE")]
    save: Option<PathBuf>,
}

/// Up to a day.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (0.01..=86_400.0).contains(&value) => Ok(value),
        _ => Err("a number of seconds from 0.01 to 86400".into()),
    }
}

#[derive(Subcommand, Debug)]
enum Subject {
    /// What the machine gives: TCP hops, memcpy, system calls, wake-ups, page faults
    Calibrate,
    /// Wall time of every local command
    Commands,
    /// What the death of control, of the engine, or of both costs (not part of `all`)
    Lifecycle,
    /// Routed 64 B messages, pipelined: 4,096 and 64 in flight
    Messages,
    /// Round trips of 64 B, one at a time, on one CPU
    RoundTrips,
    /// Frames through a node, against plain relays
    Relay,
    /// 64 links on one and on two engine threads
    Cores,
    /// Memory of an idle node and of 10,000 idle links
    Idle,
    /// Sealed messages through a secure channel, small and large, beside plain ones and the bare cipher
    Channels,
    /// Messages with and without a guard before their service
    Guards,
    /// An authority with many members, a policy that changes under many channels, and what a guard costs
    Trust(run::trust::Options),
    /// Secure channels opened per CPU-second, both ends counted
    Handshakes,
    /// Memory of 10,000 idle secure channels
    IdleChannels,
    /// Frames through 1 to 8 nodes in a row, against plain relays
    Hops,
    /// Applications' bytes through two nodes, beside HAProxy, stunnel and no tunnel
    Portals(run::portals::Options),
    /// The same relay on our drivers, blocking sockets, tokio, tokio-uring and glommio
    Runtimes,
    /// Allocations, copies and loop passes per frame, counted in a running engine
    Mechanics,
    /// Honest traffic beside floods, slow peers and endless routes (not part of `all`)
    Hostile(run::hostile::Options),
    /// Everything, with calibration before and after
    All,
    /// A floor, as a process of its own
    #[command(hide = true)]
    Floor {
        #[command(subcommand)]
        floor: Floor,
    },
    /// Takes every connection and discards what comes
    #[command(hide = true)]
    Swallow,
    /// Holds idle links
    #[command(hide = true)]
    Hold {
        /// Where to
        #[arg(long)]
        to: SocketAddr,
        /// How many
        #[arg(long)]
        count: u32,
        /// From which address
        #[arg(long)]
        from: Ipv4Addr,
    },
}

fn main() -> ExitCode {
    match start(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ockam-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: Arguments) -> Result<(), Failed> {
    match arguments.subject {
        Subject::Floor { floor } => return floor::serve(&floor),
        Subject::Swallow => return run::hostile::swallow(),
        Subject::Hold { to, count, from } => return run::idle::hold(to, count, from),
        _ => {}
    }
    cleanup::on_signals()?;
    let beside = std::env::current_exe()?.with_file_name("ockam");
    let setup = Setup {
        ockam: arguments.ockam.clone().unwrap_or(beside),
        bare: arguments.bare,
        placement: arguments.placement,
        cpus: machine::cpus(),
        warm_up_s: arguments.omit,
        seconds: arguments.time,
        repetitions: arguments.repetitions.into(),
    };
    let cubic = Cubic::set();
    let _restore = Cleanup::new(Cubic::restore);
    let environment = Environment::look(system::identify(&setup.ockam), &cubic, setup.placement);
    let mut report = Report { format: 1, environment, sections: Vec::new() };
    let outcome = measure(&arguments, &setup, &mut report.sections);

    // What was measured before something failed is still worth having.
    let json = serde_json::to_string_pretty(&report).map_err(|error| Failed::new(error.to_string()))?;
    if let Some(path) = &arguments.save {
        std::fs::write(path, &json).map_err(|error| Failed::new(format!("{}: {error}", path.display())))?;
    }
    if arguments.json {
        println!("{json}");
    } else {
        print!("{}", report.tables());
    }
    outcome
}

fn measure(arguments: &Arguments, setup: &Setup, sections: &mut Vec<Section>) -> Result<(), Failed> {
    let runs = usize::from(arguments.runs);
    let mut say = |name: &str, measure: &mut dyn FnMut() -> Result<Section, Failed>| -> Result<(), Failed> {
        eprintln!("{name}");
        machine::run_on(&setup.placement.cpus(&setup.cpus).1)?;
        sections.push(measure()?);
        Ok(())
    };
    let everything = matches!(arguments.subject, Subject::All);
    let wanted =
        |subject: &Subject| everything || std::mem::discriminant(subject) == std::mem::discriminant(&arguments.subject);
    if wanted(&Subject::Calibrate) {
        say("calibrate", &mut || run::calibrate::run(setup, "calibration"))?;
    }
    if wanted(&Subject::Commands) {
        say("commands", &mut || run::commands::run(setup, runs))?;
    }
    if matches!(arguments.subject, Subject::Lifecycle) {
        say("lifecycle", &mut || run::lifecycle::run(setup, runs))?;
    }
    if wanted(&Subject::Messages) {
        say("messages", &mut || run::messages::run(setup))?;
    }
    if wanted(&Subject::RoundTrips) {
        say("round trips", &mut || run::messages::round_trips(setup))?;
    }
    if wanted(&Subject::Relay) {
        say("relay", &mut || run::relay::run(setup))?;
    }
    if wanted(&Subject::Cores) {
        say("cores", &mut || run::relay::cores(setup))?;
    }
    if wanted(&Subject::Runtimes) {
        say("runtimes", &mut || run::runtimes::run(setup))?;
    }
    if wanted(&Subject::Channels) {
        say("channels", &mut || run::channels::run(setup))?;
    }
    let trust = match &arguments.subject {
        Subject::Trust(options) => Some(options.clone()),
        _ => everything.then(run::trust::Options::default),
    };
    let trusts = |part| trust.as_ref().filter(|options| options.wants(part));
    if let Some(options) = trusts(Part::Authority) {
        say("authority", &mut || run::trust::authority(setup, options, runs))?;
    }
    if let Some(options) = trusts(Part::Changes) {
        say("policy changes", &mut || run::trust::changes(setup, options, runs))?;
    }
    if wanted(&Subject::Guards) || trusts(Part::Guards).is_some() {
        say("guards", &mut || run::guards::run(setup))?;
    }
    if wanted(&Subject::Handshakes) {
        say("handshakes", &mut || run::channels::handshakes(setup))?;
    }
    if wanted(&Subject::IdleChannels) {
        say("idle channels", &mut || run::channels::idle(setup))?;
    }
    if wanted(&Subject::Hops) {
        say("hops", &mut || run::hops::run(setup))?;
    }
    let portals = match &arguments.subject {
        Subject::Portals(options) => Some(options.clone()),
        _ => everything.then(run::portals::Options::default),
    };
    if let Some(options) = portals {
        say("portals", &mut || run::portals::run(setup, &options))?;
    }
    if wanted(&Subject::Mechanics) {
        say("mechanics", &mut || run::mechanics::run(setup))?;
    }
    if wanted(&Subject::Idle) {
        say("idle", &mut || run::idle::run(setup))?;
    }
    if let Subject::Hostile(options) = &arguments.subject {
        say("hostile", &mut || run::hostile::run(setup, options))?;
    }
    if everything {
        say("calibrate again", &mut || run::calibrate::run(setup, "calibration after"))?;
        if let (Some(before), Some(after)) = (sections.first(), sections.last()) {
            let drift = run::calibrate::drift(before, after);
            sections.push(drift);
        }
    }
    Ok(())
}
