//! Peers that mean harm: what an honest flow loses while they are at it, against what it loses when the same flood goes
//! into a sink, since the generator and the loopback take their share of the machine either way.

mod attacks;
mod flood;
mod honest;

pub use flood::{allow_descriptors, swallow};

use crate::cleanup::Cleanup;
use crate::load;
use crate::machine::{self, Machine};
use crate::report::{Limit, Outcome, Row, Section, Verdict};
use crate::stats::{Summary, median, quantile};
use crate::system::{Failed, Setup, kill};
use attacks::{Attack, Stage};
use flood::Flooding;
use honest::{Each, Honest, NEWCOMER_WAITS, Newcomers, PAYLOADS, Pace, rates_over};
use ockam_bench::flow::{Checker, Flow};
use ockam_wire::Address;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The honest flow runs at this share of its maximum.
const SHARE: f64 = 0.25;
/// How long the maximum is measured.
const MAXIMUM: Duration = Duration::from_millis(700);
/// Before each measurement the honest flow settles.
const SETTLE: Duration = Duration::from_millis(250);
/// Rest before memory and descriptors are compared. The engine gives back at its second sweep without traffic, a second
/// later.
const REST: Duration = Duration::from_millis(1250);
/// The rate is looked at over this long when the end of an attack is awaited.
const GLANCE: Duration = Duration::from_millis(100);
/// A second into every flood someone asks for this much in one frame, on a link that was there before.
const LARGE: usize = 1024 * 1024;
/// When it asks.
const LARGE_AT: Duration = Duration::from_secs(1);
/// And how long it waits.
const LARGE_WAITED: Duration = Duration::from_secs(5);
/// A flow that is not back by then will not come back.
const RECOVERY_WATCHED: Duration = Duration::from_secs(5);
const MIB: f64 = 1024.0 * 1024.0;

/// Of the rate under the same flood into a sink.
const KEPT_MIN: f64 = 0.95;
const RECOVERY_MAX_S: f64 = 1.0;

/// Beside attacks on handshakes the honest flow of small messages goes at this pace, and such an attack lasts at least so
/// long: there must be enough newcomers for a share of 99 %.
const SMALL_PER_S: f64 = 100.0;
const ON_HANDSHAKES_AT_LEAST: Duration = Duration::from_secs(8);
/// Of the newcomers, so many are through within the time of [`RECOVERY_MAX_S`].
const NEWCOMERS_MIN: f64 = 0.99;

/// How long, how often, and which.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Interleaved repetitions of each attack and of its flood into a sink
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Seconds of each attack
    #[arg(long, default_value_t = 3.0, value_parser = crate::seconds)]
    attack_time: f64,
    /// Only attacks whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Only this driver
    #[arg(long, value_parser = ["uring", "epoll"])]
    only_driver: Option<String>,
}

/// Measures. It is always the shipped binary with its control process.
pub fn run(setup: &Setup, options: &Options) -> Result<Section, Failed> {
    if !attacks::ALL.iter().any(|attack| attack.name.contains(&options.only)) {
        let names: Vec<&str> = attacks::ALL.iter().map(|attack| attack.name).collect();
        return Err(Failed::new(format!("no attack is named so; there are: {}", names.join("; "))));
    }
    allow_descriptors()?;
    let mut section = Section::new(
        "hostile",
        format!(
            "An honest flow (64 B and 64 KiB to `echo` on a link each, every answer verified) at {:.0} % of the maximum \
             of both together, while an attack goes on for {} s, against the same flow while the same flood goes into a \
             sink process. What the flow cannot send within 50 ms is given up. `kept`: rate under attack over rate under \
             the flood into the sink, per repetition. Where handshakes are attacked the flow goes through secure \
             channels, 100 of the small messages per second, for {} s at least, and 20 newcomers per second open a \
             channel each. Memory of engine and control: peaks under attack less the peak under \
             the first flood into the sink: what of the flow waits meanwhile is in it, up to 50 ms of all that it sends; \
             then after all repetitions and {} s of rest less before; then the peak of the same attack `alone`, less \
             that. `others' CPUs`: what \
             was busy meanwhile with something else than nodes and load. `flood`: connections opened and writes taken by \
             the node over those taken by the sink. `1 MiB`: an \
             honest frame of that size, there and back, sent a second into the attack on a link of its own (5: not \
             within 5 s). Recovery: after the attack stopped, until both rates are back and a new \
             link is served. {} repetitions.",
            SHARE * 100.0,
            options.attack_time,
            ON_HANDSHAKES_AT_LEAST.as_secs(),
            REST.as_secs_f64(),
            options.rounds,
        ),
    );
    let (sink, _sink) = start_sink(setup)?;
    for driver in ["uring", "epoll"] {
        if options.only_driver.as_deref().is_some_and(|only| only != driver) {
            continue;
        }
        for attack in attacks::ALL.iter().filter(|attack| attack.name.contains(&options.only)) {
            let outcome = measure(setup, options, driver, attack, sink, &mut section.notes)?;
            section.rows.push(outcome);
        }
    }
    judge(&mut section);
    Ok(section)
}

/// A process of this program, where systems run: like the node it costs what receiving costs.
fn start_sink(setup: &Setup) -> Result<(SocketAddr, Cleanup), Failed> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("swallow").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = setup.on_system_cpus(1, || command.spawn())?;
    let stdout = child.stdout.take().ok_or(Failed::new("no pipe"))?;
    let child = Arc::new(Mutex::new(child));
    let process = Cleanup::new(move || kill(&child));
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let address = line.trim().parse().map_err(|_| Failed::new("the sink did not say its address"))?;
    Ok((address, process))
}

/// One repetition.
struct Round {
    kept: Each<f64>,
    rates: Each<f64>,
    p99_sink_ms: f64,
    p99_ms: f64,
    calm_peak: u64,
    peak: u64,
    flood: f64,
    flood_per_s: f64,
    recovery_s: f64,
    large_s: f64,
    others: f64,
    /// CPUs that engine and control used under attack.
    cpus: [f64; 2],
    /// Seconds that newcomers took, under the flood into the sink and under attack.
    newcomers: [Vec<f64>; 2],
}

/// What the node uses at rest.
#[derive(Clone, Copy)]
struct Usage {
    resident: u64,
    descriptors: usize,
    links: u64,
}

impl Usage {
    fn now(stage: &Stage) -> Result<Usage, Failed> {
        let (mut resident, mut descriptors) = (0, 0);
        for pid in stage.pids()? {
            resident += machine::memory(pid)?.rss;
            descriptors += std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
        }
        Ok(Usage { resident, descriptors, links: stage.links_open()? })
    }
}

fn measure(
    setup: &Setup,
    options: &Options,
    driver: &str,
    attack: &Attack,
    sink: SocketAddr,
    notes: &mut Vec<String>,
) -> Result<Row, Failed> {
    let stage = attack.stage(setup, driver)?;
    let honest = Honest::at_maximum(&stage.honest)?;
    std::thread::sleep(SETTLE);
    let maxima = rates_over(&honest, MAXIMUM);
    honest.finish().map_err(|why| Failed::new(format!("void: {}, without any attack: {why}", attack.name)))?;
    let mut paces = maxima.map(|maximum| Pace::Steady(maximum * SHARE));
    let mut duration = Duration::from_secs_f64(options.attack_time);
    if attack.on_handshakes {
        paces[0] = Pace::Steady(SMALL_PER_S);
        duration = duration.max(ON_HANDSHAKES_AT_LEAST);
    }
    std::thread::sleep(REST);
    let before = Usage::now(&stage)?;

    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        let (round, wrong) = round(&stage, attack, paces, sink, duration)?;
        eprintln!(
            "  {}, {driver}, {number} of {}: kept {:.3} and {:.3}, p99 {:.2} ms (sink {:.2}), {:.1} MiB at the peak (sink \
             {:.1}), back in {:.2} s{}",
            attack.name,
            options.rounds,
            round.kept[0],
            round.kept[1],
            round.p99_ms,
            round.p99_sink_ms,
            round.peak as f64 / MIB,
            round.calm_peak as f64 / MIB,
            round.recovery_s,
            if wrong.is_empty() { "" } else { "; HONEST TRAFFIC BROKE" },
        );
        notes.extend(wrong.into_iter().map(|why| format!("{}, {driver}, repetition {number}: {why}", attack.name)));
        rounds.push(round);
    }
    std::thread::sleep(REST);
    let after = Usage::now(&stage)?;
    stage.set_slow(true);
    let flooding = Flooding::start(&stage.flood, stage.honest.node);
    let alone_peak = peak_over(stage.pids()?, duration)?;
    flooding.stop()?;
    stage.set_slow(false);
    let flow_peak = rounds.first().map_or(0.0, |round| round.calm_peak as f64);
    let grown = |after: u64, before: u64| Summary::single(after as f64 - before as f64);
    let column = |pick: &dyn Fn(&Round) -> f64| Summary::of(rounds.iter().map(pick).collect());
    let middle = |pick: &dyn Fn(&Round) -> f64| Summary::single(median(rounds.iter().map(pick).collect()));
    let mut metrics = vec![
        ("64 B kept", column(&|it| it.kept[0])),
        ("64 KiB kept", column(&|it| it.kept[1])),
        ("p99 ms, sink", middle(&|it| it.p99_sink_ms)),
        ("p99 ms", middle(&|it| it.p99_ms)),
        ("peak MiB, sink", Summary::single(flow_peak / MIB)),
        ("peak MiB +", column(&|it| (it.peak as f64 - flow_peak) / MIB)),
        ("alone MiB +", Summary::single((alone_peak as f64 - after.resident as f64) / MIB)),
        ("after MiB +", Summary::single((after.resident as f64 - before.resident as f64) / MIB)),
        ("fds +", grown(after.descriptors as u64, before.descriptors as u64)),
        ("links +", grown(after.links, before.links)),
        ("recovery s", column(&|it| it.recovery_s)),
        ("1 MiB s", column(&|it| it.large_s)),
        ("flood", middle(&|it| it.flood)),
        ("flood/s", middle(&|it| it.flood_per_s)),
        ("64 B/s", middle(&|it| it.rates[0])),
        ("64 KiB/s", middle(&|it| it.rates[1])),
        ("others' CPUs", column(&|it| it.others)),
        ("engine's CPUs", middle(&|it| it.cpus[0])),
        ("control's CPUs", middle(&|it| it.cpus[1])),
    ];
    if attack.on_handshakes {
        let of = |place: usize| -> Vec<f64> { rounds.iter().flat_map(|it| it.newcomers[place].clone()).collect() };
        let p99 = |mut took: Vec<f64>| {
            took.iter_mut().for_each(|took| *took = took.min(NEWCOMER_WAITS.as_secs_f64()));
            Summary::single(quantile(took, 0.99))
        };
        let in_time = |took: &[f64]| {
            took.iter().filter(|took| **took <= RECOVERY_MAX_S).count() as f64 / took.len().max(1) as f64
        };
        metrics.push(("newcomers in 1 s", column(&|it| in_time(&it.newcomers[1]))));
        metrics.push(("newcomers p99 s, sink", p99(of(0))));
        metrics.push(("newcomers p99 s", p99(of(1))));
        metrics.push(("newcomers p50 s", Summary::single(median(of(1)))));
    }
    Ok(Row { load: attack.name.to_owned(), system: driver.to_owned(), metrics })
}

fn round(
    stage: &Stage,
    attack: &Attack,
    paces: Each<Pace>,
    sink: SocketAddr,
    duration: Duration,
) -> Result<(Round, Vec<String>), Failed> {
    let pids = stage.pids()?;
    let honest = Honest::start(&stage.honest, paces)?;
    let newcomers = attack.on_handshakes.then(|| Newcomers::start(stage.honest.node));
    let took = || newcomers.as_ref().map(Newcomers::take).unwrap_or_default();
    std::thread::sleep(SETTLE);
    took();

    honest.take_p99_ms();
    let large = LargeFrame::prepare(stage)?;
    let flooding = Flooding::start(&stage.flood, sink);
    let (calm, calm_peak) = watch(&honest, pids, duration)?;
    let p99_sink_ms = honest.take_p99_ms()[0];
    let took_with_sink = took();
    large.answered_s()?;
    let into_sink = flooding.stop()?;
    std::thread::sleep(SETTLE);

    honest.take_p99_ms();
    stage.set_slow(true);
    let large = LargeFrame::prepare(stage)?;
    let flooding = Flooding::start(&stage.flood, stage.honest.node);
    let others = Others::now(stage)?;
    let cpu_before = [machine::cpu_ns(pids[0])?, machine::cpu_ns(pids[1])?];
    let (attacked, peak) = watch(&honest, pids, duration)?;
    let cpu_after = [machine::cpu_ns(pids[0])?, machine::cpu_ns(pids[1])?];
    let others = others.until_now(stage)?;
    let p99_ms = honest.take_p99_ms()[0];
    // While the flood goes on: it would be answered soon enough after it.
    let large_s = large.answered_s()?;
    let into_node = flooding.stop()?;
    stage.set_slow(false);
    let recovery_s = recovery(&honest, stage, calm)?;

    let mut wrong = Vec::new();
    if let Err(why) = honest.finish() {
        wrong.push(why);
    }
    // Those who came during the attack and are through after it count, too.
    let took = newcomers.map(Newcomers::finish).transpose()?.unwrap_or_default();
    let round = Round {
        kept: std::array::from_fn(|place| attacked[place] / calm[place]),
        rates: attacked,
        p99_sink_ms,
        p99_ms,
        calm_peak,
        peak,
        flood: into_node as f64 / into_sink as f64,
        flood_per_s: into_node as f64 / duration.as_secs_f64(),
        recovery_s,
        large_s,
        others,
        cpus: std::array::from_fn(|place| (cpu_after[place] - cpu_before[place]) as f64 / 1e9 / duration.as_secs_f64()),
        newcomers: [took_with_sink, took],
    };
    Ok((round, wrong))
}

/// What everybody else on the machine does meanwhile: who reads the numbers must know it.
struct Others {
    machine: Machine,
    ours_ns: u64,
    start: Instant,
}

impl Others {
    fn now(stage: &Stage) -> Result<Others, Failed> {
        Ok(Others { machine: Machine::now()?, ours_ns: ours_ns(stage)?, start: Instant::now() })
    }

    /// CPUs that were busy with something else, on average.
    fn until_now(self, stage: &Stage) -> Result<f64, Failed> {
        let busy_s = Machine::now()?.since(self.machine).busy_s;
        let ours_s = (ours_ns(stage)? - self.ours_ns) as f64 / 1e9;
        Ok((busy_s - ours_s).max(0.0) / self.start.elapsed().as_secs_f64())
    }
}

/// Processor time of this process and of all the nodes so far.
fn ours_ns(stage: &Stage) -> Result<u64, Failed> {
    Ok(machine::cpu_ns(std::process::id())? + stage.cpu_ns()?)
}

/// Rates of the honest flow over a while, and the most memory that the node had meanwhile, in bytes.
fn watch(honest: &Honest, pids: [u32; 2], duration: Duration) -> Result<(Each<f64>, u64), Failed> {
    let (before, start) = (honest.frames(), Instant::now());
    let peak = peak_over(pids, duration)?;
    let (after, elapsed) = (honest.frames(), start.elapsed().as_secs_f64());
    Ok((std::array::from_fn(|place| (after[place] - before[place]) as f64 / elapsed), peak))
}

/// The most memory that the node had over a while, in bytes.
fn peak_over(pids: [u32; 2], duration: Duration) -> Result<u64, Failed> {
    let start = Instant::now();
    let mut peak = 0;
    while start.elapsed() < duration {
        std::thread::sleep(Duration::from_millis(20));
        // Cheap for the watched process, unlike a sum over its mappings.
        let mut resident = 0;
        for pid in pids {
            let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("");
            resident += line.split_ascii_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0) * 1024;
        }
        peak = peak.max(resident);
    }
    Ok(peak)
}

/// Seconds until the honest flow has its rates again, and until a new link is served.
fn recovery(honest: &Honest, stage: &Stage, calm: Each<f64>) -> Result<f64, Failed> {
    let start = Instant::now();
    let node = stage.honest.node;
    let newcomer = std::thread::spawn(move || newcomer(node).map(|()| start.elapsed().as_secs_f64()));
    let mut back_s = f64::INFINITY;
    while start.elapsed() < RECOVERY_WATCHED && back_s.is_infinite() {
        let since = start.elapsed().as_secs_f64();
        let rates = rates_over(honest, GLANCE);
        if (0..PAYLOADS.len()).all(|place| rates[place] >= KEPT_MIN * calm[place]) {
            back_s = since;
        }
    }
    let served_s = newcomer.join().map_err(|_| Failed::new("the new link's thread panicked"))?;
    Ok(back_s.max(served_s.unwrap_or(f64::INFINITY)).min(RECOVERY_WATCHED.as_secs_f64()))
}

/// Someone who comes after the attack.
fn newcomer(node: SocketAddr) -> std::io::Result<()> {
    let (request, _) = load::echo_flows(64);
    ask(&load::link(node)?, &request)
}

/// One frame there and back.
fn ask(mut stream: &TcpStream, request: &Flow) -> std::io::Result<()> {
    let mut frame = Vec::new();
    request.write(0, &mut frame);
    stream.write_all(&frame)?;
    let mut checker = Checker::of_any();
    while checker.verified() < 1 {
        if checker.receive(stream)?.is_none() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// Someone who asks for much in one frame while the flood goes on.
struct LargeFrame(JoinHandle<std::io::Result<f64>>);

impl LargeFrame {
    fn prepare(stage: &Stage) -> Result<LargeFrame, Failed> {
        let stream = load::link(stage.honest.node)?;
        stream.set_read_timeout(Some(LARGE_WAITED))?;
        let request = Flow::new(&stage.honest.onward, &[Address::local("back")], LARGE);
        Ok(LargeFrame(std::thread::spawn(move || {
            std::thread::sleep(LARGE_AT);
            let start = Instant::now();
            ask(&stream, &request).map(|()| start.elapsed().as_secs_f64())
        })))
    }

    /// How long it took; [`LARGE_WAITED`] when nothing came.
    fn answered_s(self) -> Result<f64, Failed> {
        let answered = self.0.join().map_err(|_| Failed::new("the thread of the large frame panicked"))?;
        Ok(answered.unwrap_or(LARGE_WAITED.as_secs_f64()))
    }
}

/// What a metric must keep to under an attack.
fn limit(metric: &str, attack: &str) -> Limit {
    match metric {
        "64 B kept" | "64 KiB kept" => Limit::AtLeast(KEPT_MIN),
        "peak MiB +" | "alone MiB +" | "after MiB +" => Limit::AtMost(attacks::memory_max_mib(attack)),
        "newcomers in 1 s" => Limit::AtLeast(NEWCOMERS_MIN),
        "recovery s" | "1 MiB s" => Limit::AtMost(RECOVERY_MAX_S),
        _ => Limit::AtMost(0.0),
    }
}

/// A verdict per goal and driver on its worst attack, and one for every other attack that misses it.
fn judge(section: &mut Section) {
    let goals = [
        ("64 B kept", "share of the honest 64 B rate"),
        ("64 KiB kept", "share of the honest 64 KiB rate"),
        ("peak MiB +", "memory at the peak, MiB"),
        ("alone MiB +", "memory at the peak without the honest flow, MiB"),
        ("after MiB +", "memory after rest, MiB"),
        ("fds +", "descriptors after rest"),
        ("links +", "links after rest"),
        ("recovery s", "recovery, s"),
        ("newcomers in 1 s", "share of newcomers' handshakes within 1 s"),
        ("1 MiB s", "a frame of 1 MiB there and back meanwhile, s"),
    ];
    for driver in ["uring", "epoll"] {
        for (metric, goal) in goals {
            let mut verdicts: Vec<Verdict> = Vec::new();
            for row in section.rows.iter().filter(|row| row.system == driver) {
                let Some((_, value)) = row.metrics.iter().find(|(name, _)| *name == metric) else { continue };
                verdicts.push(Verdict::new(
                    format!("{driver}, {goal}: {}", row.load),
                    value.clone(),
                    limit(metric, &row.load),
                ));
            }
            let count = verdicts.len();
            let met = verdicts.iter().filter(|verdict| verdict.outcome == Outcome::Met).count();
            verdicts.sort_by(|one, other| badness(one).total_cmp(&badness(other)));
            let Some(mut worst) = verdicts.pop() else { continue };
            worst.goal = format!("{} (worst; {met} of {count} met)", worst.goal);
            // All that are missed are shown, not only the worst.
            section.verdicts.extend(verdicts.into_iter().filter(|verdict| verdict.outcome == Outcome::Missed));
            section.verdicts.push(worst);
        }
    }
}

/// How far a median is beyond its limit; larger is worse.
fn badness(verdict: &Verdict) -> f64 {
    match verdict.limit {
        Limit::AtLeast(bound) => bound - verdict.measured.median,
        Limit::AtMost(bound) => verdict.measured.median - bound,
    }
}
