//! What a death costs (`reliability.md` C1 to C3): each process of a node is killed again and again while an established
//! link carries verified messages and new connections are tried.

use crate::load::{self, Load};
use crate::report::{Limit, Row, Section, Verdict};
use crate::stats::{Summary, quantile};
use crate::system::{Failed, Home, NAME, Owner, Setup, System};
use ockam_bench::flow::{Checker, Flow};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// From the start of a new control to its first answer.
const ADOPTED_MS: f64 = 1000.0;
/// From the death of an engine to the answer of a service over a new connection.
const REPAIRED_MS: f64 = 250.0;
/// From `node start` to that answer, when both are dead.
const BACK_MS: f64 = 2000.0;

/// An engine that ends sooner than this after its start is taken for a broken one: its node waits before the next.
const STEADY: Duration = Duration::from_millis(700);
/// A system that is not back by then is not coming back.
const PATIENCE: Duration = Duration::from_secs(20);

/// Kills each process `runs` times, on both drivers.
pub fn run(setup: &Setup, runs: usize) -> Result<Section, Failed> {
    let mut section = Section::new(
        "lifecycle",
        format!(
            "kill -9, {runs} times each. Control: one link carries echo messages of 64 B, 64 in flight, through all of \
             its deaths, and every answer is compared; time from `ockam node start` to its end, when the new control has \
             adopted the engine and answered. Engine: time from its death to the answer of echo over a new connection, \
             and how many connections were refused on the way. Both: time from `ockam node start` to that answer."
        ),
    );
    for driver in ["uring", "epoll"] {
        let system = setup.node(driver, 1)?;
        let Owner::Node(node) = &system.owner else {
            return Err(Failed::new("an engine alone has no lifecycle: leave out --bare"));
        };
        control_dies(&mut section, &system, &node.home, runs)?;
        engine_dies(&mut section, &system, &node.home, runs)?;
        both_die(&mut section, &system, &node.home, runs)?;
    }
    Ok(section)
}

fn control_dies(section: &mut Section, system: &System, home: &Home, runs: usize) -> Result<(), Failed> {
    let engine = pids(home)?.1;
    let load = Load::echo_window(system.address, 64, 64)?;
    let mut times = Vec::new();
    for _ in 0..runs {
        kill(pids(home)?.0)?;
        let start = Instant::now();
        home.run(&["node", "start", NAME])?;
        times.push(milliseconds(start));
        if pids(home)?.1 != engine {
            return Err(Failed::new("a new control did not adopt the engine, but started another"));
        }
    }
    load.finish()?;
    say(section, system, "control is killed", times, ADOPTED_MS, Vec::new());
    Ok(())
}

fn engine_dies(section: &mut Section, system: &System, home: &Home, runs: usize) -> Result<(), Failed> {
    let (mut times, mut refused) = (Vec::new(), 0);
    for _ in 0..runs {
        std::thread::sleep(STEADY);
        let engine = pids(home)?.1;
        kill(engine)?;
        let (elapsed, refusals) = until_answered(system.address)?;
        times.push(elapsed);
        refused += refusals;
    }
    let refused = Summary::single(refused as f64);
    say(section, system, "the engine is killed", times, REPAIRED_MS, vec![("connections refused", refused.clone())]);
    let goal = format!("{}: connections refused while engines die", system.name);
    section.verdicts.push(Verdict::new(goal, refused, Limit::AtMost(0.0)));
    Ok(())
}

fn both_die(section: &mut Section, system: &System, home: &Home, runs: usize) -> Result<(), Failed> {
    let mut times = Vec::new();
    for _ in 0..runs {
        let (control, engine) = pids(home)?;
        kill(control)?;
        kill(engine)?;
        let start = Instant::now();
        home.run(&["node", "start", NAME])?;
        until_answered(system.address)?;
        times.push(milliseconds(start));
    }
    say(section, system, "both are killed", times, BACK_MS, Vec::new());
    Ok(())
}

/// Tries until `echo` answers over a new connection: after how many milliseconds, and how many connections were refused.
fn until_answered(address: SocketAddr) -> Result<(f64, usize), Failed> {
    let start = Instant::now();
    let mut refused = 0;
    let (requests, answers) = load::echo_flows(64);
    while start.elapsed() < PATIENCE {
        match ask(address, &requests, answers.clone()) {
            Ok(()) => return Ok((milliseconds(start), refused)),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => refused += 1,
            // The engine that accepted it died.
            Err(_) => {}
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(Failed::new(format!("nothing answers at {address} any more")))
}

fn ask(address: SocketAddr, requests: &Flow, answers: Flow) -> std::io::Result<()> {
    let stream = load::link(address)?;
    let mut frame = Vec::new();
    requests.write(0, &mut frame);
    (&stream).write_all(&frame)?;
    let mut checker = Checker::of(answers);
    while checker.verified() == 0 {
        if checker.receive(&stream)?.is_none() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// Of control and the engine.
fn pids(home: &Home) -> Result<(Pid, Pid), Failed> {
    let shown = home.json(&["node", "show", NAME])?;
    let pid = |value: &serde_json::Value| value.as_i64().and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
    let both = pid(&shown["pid"]).zip(pid(&shown["engine"]["pid"]));
    both.ok_or_else(|| Failed::new(format!("`node show` said no process: {shown}")))
}

fn kill(pid: Pid) -> Result<(), Failed> {
    kill_process(pid, Signal::KILL).map_err(|error| Failed::new(format!("cannot kill process {pid:?}: {error}")))
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// A row and a verdict about its slowest case: a bar holds always, or it does not hold.
fn say(
    section: &mut Section,
    system: &System,
    load: &str,
    times: Vec<f64>,
    limit_ms: f64,
    more: Vec<(&'static str, Summary)>,
) {
    let slowest = Summary::single(quantile(times.clone(), 1.0));
    let mut metrics = vec![("median ms", Summary::of(times)), ("slowest ms", slowest.clone())];
    metrics.extend(more);
    eprintln!("  {}: {load}: slowest {:.1} ms", system.name, slowest.median);
    let goal = format!("{}: {load}: slowest ms", system.name);
    section.verdicts.push(Verdict::new(goal, slowest, Limit::AtMost(limit_ms)));
    section.rows.push(Row { load: load.to_owned(), system: system.name.clone(), metrics });
}
