//! What trust costs at scale: an authority with many members, and a policy that changes under many channels. What a guard
//! costs a message is in [`super::guards`].

use super::{column, driver_notes};
use crate::load::requests::{self, Member};
use crate::load::{self, Load, Measured};
use crate::machine;
use crate::opener::Opener;
use crate::report::{Limit, Row, Section, Verdict};
use crate::stats::{Summary, quantile};
use crate::system::{Failed, Home, NAME, Node, Owner, Setup, System};
use hdrhistogram::Histogram;
use ockam_bench::channel::{self, Authority, Channel, Identity, Name, SealedChecker, echo_texts};
use ockam_crypto::Identifier;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The authority's node, and the id of its project.
const AUTHORITY: &str = "authority";
const PROJECT: &str = "bench";
/// Who add members, and how many requests each has under way: a few less than an authority lets one caller have waiting.
const ENROLLERS: usize = 4;
const ADDS_AT_ONCE: usize = 16;
/// Members that ask for credentials at the same time, their links, and how many requests are under way on each.
const ASKING: usize = 512;
const ASKING_LINKS: usize = 16;
const ASKS_AT_ONCE: usize = 4;
/// Credentials per second of processor time of the authority's node, both processes.
const ISSUES: f64 = 1000.0;
/// To start a node, as everywhere.
const START_MS: f64 = 50.0;
/// What members and their requests may cost in memory: members are in a file.
const MEMORY_MAX: f64 = 16e6;

/// Links that the guarded channels share, and how many are opened on one before the next one's turn.
const LINKS: usize = 50;
const TURN: usize = 10;
/// A policy that lets all pass whom the authority of the load has attested something, and one that lets nearly nobody pass.
const ALL: &str = "(or (= subject.role \"member\") (= subject.role \"witness\"))";
const FEW: &str = "(= subject.role \"witness\")";
/// How long the flow is watched at each change, and without one.
const WINDOW: Duration = Duration::from_secs(1);
/// From the start of `ockam policy create` to its end, when the change is in force.
const CHANGED_MS: f64 = 1000.0;
/// Between two answers of the flow.
const GAP_MS: f64 = 50.0;
const FLOW_PAYLOAD: usize = 64;

/// What to measure.
#[derive(clap::Args, Debug, Clone)]
pub struct Options {
    /// Only these parts
    #[arg(long, value_enum)]
    part: Vec<Part>,
    /// Members of the authority
    #[arg(long, default_value_t = Options::default().members, value_parser = clap::value_parser!(u32).range(1..=900_000))]
    members: u32,
    /// Channels that a policy decides about
    #[arg(long, default_value_t = Options::default().channels, value_parser = clap::value_parser!(u32).range(50..=20_000))]
    channels: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options { part: Vec::new(), members: 100_000, channels: 10_000 }
    }
}

/// A part of the subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Credentials of an authority with many members
    Authority,
    /// A policy that changes under many channels
    Changes,
    /// What a guard costs a message
    Guards,
}

impl Options {
    /// Whether a part is wanted.
    pub fn wants(&self, part: Part) -> bool {
        self.part.is_empty() || self.part.contains(&part)
    }
}

// ---- the authority

/// Members added, credentials issued, memory, starts.
pub fn authority(setup: &Setup, options: &Options, runs: usize) -> Result<Section, Failed> {
    let members = options.members as usize;
    let mut section = Section::new(
        "authority",
        format!(
            "An authority's node. {members} members are added one by one over the wire by {ENROLLERS} enrollers, \
             {ADDS_AT_ONCE} requests of each under way, and all are listed. Then {ASKING} of them at a time, others in \
             each repetition, ask for credentials in turn through channels of their own over {ASKING_LINKS} links, \
             {ASKS_AT_ONCE} requests under way on each; every credential is verified by the load and compared with what \
             its member has. Then the node is stopped and started, {runs} times, as it was before there were members: \
             until the command ends, and until one more member has opened a channel and got its credential. Processor \
             time and memory of engine and control."
        ),
    );
    let enrollers = (0..=ENROLLERS).map(|_| Identity::new()).collect::<io::Result<Vec<_>>>()?;
    let mut system = create_authority(setup, &enrollers)?;
    let empty = restart(setup, &mut system, runs, |_| Ok(()))?.0;
    let void = |error: io::Error| Failed::new(format!("void: the authority: {error}"));
    // Those that ask have keys; of the others an authority knows no more than who they are.
    let asking = ASKING * setup.repetitions + runs;
    let mut keyed = Vec::with_capacity(asking);
    for number in 0..asking {
        keyed.push(Member { identity: Identity::new()?, attributes: attributes(number) });
    }
    let mut list: Vec<(Identifier, Vec<(&'static str, String)>)> =
        keyed.iter().map(|it| (it.identity.identifier(), it.attributes.clone())).collect();
    for number in asking..members.max(asking) {
        list.push((Identifier(channel::name()?), attributes(number)));
    }
    let mut expected: BTreeSet<Identifier> = list.iter().map(|(member, _)| *member).collect();
    expected.extend(enrollers.iter().map(Identity::identifier));
    let before = memory(&mut section, "without members", &system)?;

    let count = list.len();
    let (start, cpu) = (Instant::now(), system.cpu_ns()?);
    let mut enrollers = enrollers.into_iter();
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for left in (1..=ENROLLERS).rev() {
            let share = list.split_off(list.len() - list.len() / left).into_iter();
            let enroller = enrollers.next().ok_or(Failed::new("there are enough enrollers"))?;
            let address = system.address;
            threads.push(scope.spawn(move || requests::add_members(address, enroller, ADDS_AT_ONCE, share)));
        }
        for thread in threads {
            thread.join().map_err(|_| Failed::new("a load thread panicked"))?.map_err(void)?;
        }
        Ok::<(), Failed>(())
    })?;
    let (elapsed, cpu) = (start.elapsed().as_secs_f64(), (system.cpu_ns()? - cpu) as f64);
    eprintln!("  {count} members added in {elapsed:.1} s");
    section.rows.push(Row {
        load: format!("{count} members added"),
        system: system.name.clone(),
        metrics: vec![
            ("per CPU-s", Summary::single(count as f64 / (cpu / 1e9))),
            ("CPU us each", Summary::single(cpu / 1e3 / count as f64)),
            ("per s", Summary::single(count as f64 / elapsed)),
        ],
    });
    let enroller = enrollers.next().ok_or(Failed::new("there are enough enrollers"))?;
    let start = Instant::now();
    let listed = requests::member_ids(system.address, enroller).map_err(void)?;
    let elapsed = start.elapsed().as_secs_f64();
    if !expected.iter().eq(&listed) {
        return Err(Failed::new(format!(
            "void: {} members listed, and not those {count} that were added",
            listed.len()
        )));
    }
    section.rows.push(Row {
        load: format!("{} members listed", listed.len()),
        system: system.name.clone(),
        metrics: vec![("per s", Summary::single(listed.len() as f64 / elapsed))],
    });
    section.verdicts.push(Verdict::new(
        "members, each of them listed",
        Summary::single(listed.len() as f64),
        Limit::AtLeast(members as f64),
    ));

    let mut measured = Vec::new();
    for repetition in 0..setup.repetitions {
        let members = keyed.split_off(keyed.len() - ASKING);
        let load = Load::credentials(system.address, PROJECT, members, ASKING_LINKS, ASKS_AT_ONCE).map_err(void)?;
        let one = Measured::take(setup, &system, load)?;
        let (of, per_s, per_cpu_s) = (setup.repetitions, one.per_s, one.per_cpu_s);
        eprintln!("  credentials, {} of {of}: {per_s:.0} /s, {per_cpu_s:.0} per CPU-s", repetition + 1);
        measured.push(one);
    }
    let issues = column(&measured, |it| it.per_cpu_s);
    section.rows.push(Row {
        load: "credentials issued".into(),
        system: system.name.clone(),
        metrics: vec![
            ("per CPU-s", issues.clone()),
            ("CPU us each", column(&measured, |it| 1e6 / it.per_cpu_s)),
            ("per s", column(&measured, |it| it.per_s)),
            ("load's CPU us each", column(&measured, |it| it.load_ns / 1e3)),
        ],
    });
    section.verdicts.push(Verdict::new(
        format!("credentials per CPU-second, engine and control, {count} members"),
        issues,
        Limit::AtLeast(ISSUES),
    ));
    let after = memory(&mut section, "after all that", &system)?;
    section.verdicts.push(Verdict::new(
        format!("PSS MB of both processes, after {count} members and their credentials less before"),
        Summary::single((after - before) / 1e6),
        Limit::AtMost(MEMORY_MAX / 1e6),
    ));

    let mut members = keyed.into_iter();
    let (started, issued) = restart(setup, &mut system, runs, |address| {
        let member = members.next().ok_or(Failed::new("there is a member for each start"))?;
        requests::credential(address, PROJECT, member).map_err(void)
    })?;
    let ratio = Summary::single(started.median / empty.median);
    for (load, metrics) in [
        ("started, without members".to_owned(), vec![("node start ms", empty)]),
        (
            format!("started, {count} members"),
            vec![("node start ms", started.clone()), ("first credential after ms", issued), ("over without", ratio)],
        ),
    ] {
        section.rows.push(Row { load, system: system.name.clone(), metrics });
    }
    section.verdicts.push(Verdict::new(
        format!("`ockam node start` median ms, {count} members"),
        started,
        Limit::AtMost(START_MS),
    ));
    memory(&mut section, "started again", &system)?;
    section.notes = driver_notes(&[&system]);
    Ok(section)
}

/// What the credential of a member says.
fn attributes(number: usize) -> Vec<(&'static str, String)> {
    vec![("role", "web".into()), ("site", format!("site-{}", number % 1000)), ("machine", number.to_string())]
}

fn create_authority(setup: &Setup, enrollers: &[Identity]) -> Result<System, Failed> {
    let home = Home::new(&setup.ockam)?;
    let enrollers: Vec<String> = enrollers.iter().map(|it| it.identifier().to_string()).collect();
    let mut arguments = vec!["authority", "create", AUTHORITY, "--tcp-listener-address", "127.0.0.1:0"];
    arguments.extend(["--project-identifier", PROJECT]);
    arguments.extend(enrollers.iter().flat_map(|it| ["--enroller", it]));
    setup.on_system_cpus(1, || home.run(&arguments).map_err(io::Error::other))?;
    let told = home.json(&["node", "show", AUTHORITY])?;
    Node::found(home, &told)
}

/// Stops the authority's node and starts it, again and again: milliseconds of `node start`, and from its begin until
/// `then`, which is told where it listens, was done.
fn restart(
    setup: &Setup,
    system: &mut System,
    runs: usize,
    mut then: impl FnMut(SocketAddr) -> Result<(), Failed>,
) -> Result<(Summary, Summary), Failed> {
    let Owner::Node(node) = &system.owner else { return Err(Failed::new("an authority is a node")) };
    let (mut started, mut done) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        // An engine that ends sooner than this after its start is taken for a broken one.
        std::thread::sleep(Duration::from_millis(700));
        node.home.run(&["node", "stop", AUTHORITY])?;
        let start = Instant::now();
        setup.on_system_cpus(1, || node.home.run(&["node", "start", AUTHORITY]).map_err(io::Error::other))?;
        started.push(start.elapsed().as_secs_f64() * 1e3);
        then(system.address)?;
        done.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let told = node.home.json(&["node", "show", AUTHORITY])?;
    let pid = |value: &serde_json::Value| value.as_u64().and_then(|pid| u32::try_from(pid).ok());
    let both = pid(&told["engine"]["pid"]).zip(pid(&told["pid"]));
    let (engine, control) = both.ok_or_else(|| Failed::new(format!("`node show` said no process: {told}")))?;
    system.pids = vec![engine, control];
    Ok((Summary::of(started), Summary::of(done)))
}

/// Adds a row about the memory of engine and control; the proportional bytes of both.
fn memory(section: &mut Section, load: &str, system: &System) -> Result<f64, Failed> {
    let names = [("engine: PSS MB", "engine: private MB"), ("control: PSS MB", "control: private MB")];
    let (mut metrics, mut total) = (Vec::new(), 0.0);
    for (pid, (pss, private)) in system.pids.iter().zip(names) {
        let memory = machine::memory(*pid)?;
        total += memory.pss as f64;
        metrics.push((pss, Summary::single(memory.pss as f64 / 1e6)));
        metrics.push((private, Summary::single(memory.private as f64 / 1e6)));
    }
    section.rows.push(Row { load: format!("memory, {load}"), system: system.name.clone(), metrics });
    Ok(total)
}

// ---- a policy that changes

/// Changes the policy of `echo` to and fro, `runs` times in all.
pub fn changes(setup: &Setup, options: &Options, runs: usize) -> Result<Section, Failed> {
    let count = options.channels as usize;
    let mut section = Section::new(
        "policy-changes",
        format!(
            "{count} secure channels over {LINKS} links, each of an identity of its own that has shown a credential in its \
             handshake. `ockam policy create` says {runs} times who may use `echo`: nearly nobody, all, nearly nobody. \
             As soon as the command has ended, every channel asks once, and behind those of a link a channel that may: \
             what it gets no answer to before that one has its answer was denied. So the command's time is that of the \
             last channel, too. An honest flow, 64 B through a channel of its own, one in flight, which both policies \
             admit, goes on all the time; the longest time between two answers of it within {} s from the command on is \
             set beside that from an `ockam policy list` on, which changes nothing. Every answer is compared.",
            WINDOW.as_secs_f64()
        ),
    );
    let authority = Authority::new()?;
    let history = authority.history().to_hex();
    let system = Node::start(setup, "uring", 1, &["--authority-identity", &history, "--credential-scope", PROJECT])?;
    let Owner::Node(node) = &system.owner else { return Err(Failed::new("a node was started")) };
    let void = |error: io::Error| Failed::new(format!("void: {}: {error}", system.name));
    set_policy(&node.home, ALL)?;

    let start = Instant::now();
    let mut lines = Vec::new();
    for place in 0..LINKS {
        let members = (count - place).div_ceil(LINKS);
        lines.push(Line::open(load::link(system.address)?, &authority, members).map_err(void)?);
    }
    while lines.iter().any(|line| line.members.len() < line.wanted) {
        for line in &mut lines {
            line.grow().map_err(void)?;
        }
    }
    eprintln!("  {count} channels open after {:.1} s", start.elapsed().as_secs_f64());
    let before = probe(&mut lines).map_err(void)?;
    if before != count {
        return Err(Failed::new(format!("void: {before} of {count} channels answer before anything is changed")));
    }

    let mut witness = Opener::new(load::link(system.address)?, vec![attested(&authority, "witness")?]);
    let (_, channel) = witness.open(1, 1).map_err(void)?.pop().ok_or(Failed::new("one channel was asked for"))?;
    let flow = Watched::start(witness.into_link(), channel);
    let (mut times, mut wrong) = (Vec::new(), 0);
    let mut spent = [Vec::new(), Vec::new()];
    for run in 0..runs {
        // What was asked before is done.
        std::thread::sleep(Duration::from_millis(100));
        flow.watch(Kind::Quiet, || node.home.run(&["policy", "list", "--at", NAME]).map(drop))?;
        let (policy, admitted) = if run % 2 == 0 { (FEW, 0) } else { (ALL, count) };
        let before = [machine::cpu_ns(system.pids[0])?, machine::cpu_ns(node.control_pid)?];
        let mut elapsed = Duration::ZERO;
        flow.watch(Kind::Change, || {
            let start = Instant::now();
            set_policy(&node.home, policy)?;
            elapsed = start.elapsed();
            Ok(())
        })?;
        let after = [machine::cpu_ns(system.pids[0])?, machine::cpu_ns(node.control_pid)?];
        for ((spent, before), after) in spent.iter_mut().zip(before).zip(after) {
            spent.push((after - before) as f64 / 1e6);
        }
        let answered = probe(&mut lines).map_err(void)?;
        wrong += answered.abs_diff(admitted);
        eprintln!(
            "  change {} of {runs}: {:.1} ms, {answered} of {count} answer",
            run + 1,
            elapsed.as_secs_f64() * 1e3
        );
        times.push(elapsed.as_secs_f64() * 1e3);
    }
    let gaps = flow.finish().map_err(void)?;

    let slowest = Summary::single(quantile(times.clone(), 1.0));
    let [_, control] = spent;
    section.rows.push(Row {
        load: format!("`policy create`, {count} channels"),
        system: system.name.clone(),
        metrics: vec![
            ("median ms", Summary::of(times)),
            ("slowest ms", slowest.clone()),
            ("control's CPU ms", Summary::of(control)),
        ],
    });
    section.verdicts.push(Verdict::new(
        format!("`ockam policy create` until it is in force for {count} channels, slowest ms"),
        slowest,
        Limit::AtMost(CHANGED_MS),
    ));
    section.verdicts.push(Verdict::new(
        "channels that were admitted or denied wrongly behind a change, all changes",
        Summary::single(wrong as f64),
        Limit::AtMost(0.0),
    ));
    for (name, gaps) in ["the flow, no change", "the flow, policy changed"].into_iter().zip(&gaps) {
        let us = |quantile: f64| Summary::single(gaps.all.value_at_quantile(quantile) as f64 / 1e3);
        section.rows.push(Row {
            load: name.to_owned(),
            system: system.name.clone(),
            metrics: vec![
                ("answers", Summary::single(gaps.all.len() as f64)),
                ("p50 us", us(0.5)),
                ("p99 us", us(0.99)),
                ("p99.9 us", us(0.999)),
                ("longest ms of each window", Summary::of(gaps.longest_ms.clone())),
                ("longest ms", Summary::single(quantile(gaps.longest_ms.clone(), 1.0))),
            ],
        });
    }
    let [quiet, changed] = gaps;
    // Paired, so that what else the machine did at that time counts on both sides.
    let added = changed.longest_ms.iter().zip(&quiet.longest_ms).map(|(changed, quiet)| changed - quiet).collect();
    section.verdicts.push(Verdict::new(
        "the flow: longest ms without an answer around a change less that just before it",
        Summary::of(added),
        Limit::AtMost(GAP_MS),
    ));
    section.verdicts.push(Verdict::new(
        "the flow: longest ms without an answer around a change, of all changes",
        Summary::single(quantile(changed.longest_ms, 1.0)),
        Limit::AtMost(GAP_MS),
    ));
    let own = quantile(quiet.longest_ms, 1.0);
    if own > GAP_MS {
        section.notes.push(format!("the machine was busy: without any change the flow waited up to {own:.0} ms"));
    }
    section.notes.extend(driver_notes(&[&system]));
    Ok(section)
}

fn set_policy(home: &Home, expression: &str) -> Result<(), Failed> {
    home.run(&["policy", "create", "--at", NAME, "--resource", "echo", "--allow", expression]).map(drop)
}

/// An identity that shows a credential.
fn attested(authority: &Authority, role: &str) -> io::Result<Identity> {
    let mut identity = Identity::new()?;
    identity.show(&authority.attest(identity.identifier(), &[("role", role)])?);
    Ok(identity)
}

/// A link with channels of members, and with one of a witness, which may at all times.
struct Line {
    opener: Opener,
    /// How many members it shall have.
    wanted: usize,
    members: Vec<(Name, Channel)>,
    witness: Vec<(Name, Channel)>,
}

impl Line {
    fn open(stream: TcpStream, authority: &Authority, wanted: usize) -> io::Result<Line> {
        let witness = std::iter::once("witness");
        let identities = witness.chain(std::iter::repeat_n("member", wanted)).map(|role| attested(authority, role));
        let mut opener = Opener::new(stream, identities.collect::<io::Result<_>>()?);
        let witness = opener.open(1, 1)?;
        Ok(Line { opener, wanted, members: Vec::new(), witness })
    }

    /// Opens some more.
    fn grow(&mut self) -> io::Result<()> {
        let count = TURN.min(self.wanted - self.members.len());
        self.members.extend(self.opener.open(count, count)?);
        Ok(())
    }

    /// Has all of them ask, the witness last.
    fn ask(&mut self) -> io::Result<()> {
        for (name, channel) in self.members.drain(..).chain(self.witness.drain(..)) {
            self.opener.ask(name, channel);
        }
        self.opener.flush()
    }

    /// How many members were answered before the witness was.
    fn answered(&mut self, witness: Name) -> io::Result<usize> {
        while self.witness.is_empty() {
            for (name, channel) in self.opener.receive()? {
                let place = if name == witness { &mut self.witness } else { &mut self.members };
                place.push((name, channel));
            }
        }
        let answered = self.members.len();
        self.members.extend(self.opener.give_up());
        Ok(answered)
    }
}

/// Has every channel ask: how many are answered.
fn probe(lines: &mut [Line]) -> io::Result<usize> {
    let witnesses: Vec<Name> = lines.iter().flat_map(|line| line.witness.iter().map(|(name, _)| *name)).collect();
    lines.iter_mut().try_for_each(Line::ask)?;
    lines.iter_mut().zip(witnesses).map(|(line, witness)| line.answered(witness)).sum()
}

/// What happens meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Quiet,
    Change,
}

/// Times between two answers of a flow.
struct Gaps {
    /// In nanoseconds.
    all: Histogram<u64>,
    /// Of each window.
    longest_ms: Vec<f64>,
}

/// A flow that is watched in windows of time.
struct Watched {
    /// The number of the window that is on, from 1; 0 outside of one. Odd ones are [`Kind::Quiet`].
    window: Arc<AtomicUsize>,
    next: std::cell::Cell<usize>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<[Gaps; 2]>>,
}

impl Watched {
    /// Messages of a flow to `echo` through a channel, each behind the answer to the one before.
    fn start(stream: TcpStream, channel: Channel) -> Watched {
        let (window, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (current, stopped) = (window.clone(), stop.clone());
        let thread = std::thread::spawn(move || keep_asking(&stream, channel, &current, &stopped));
        Watched { window, next: std::cell::Cell::new(1), stop, thread }
    }

    /// Watches it while something is done, and until the window is over. They take turns, beginning with quiet ones.
    fn watch(&self, kind: Kind, act: impl FnOnce() -> Result<(), Failed>) -> Result<(), Failed> {
        let number = self.next.replace(self.next.get() + 1);
        assert_eq!(kind == Kind::Quiet, number % 2 == 1, "windows take turns");
        let end = Instant::now() + WINDOW;
        self.window.store(number, Ordering::Relaxed);
        let done = act();
        std::thread::sleep(end.saturating_duration_since(Instant::now()));
        self.window.store(0, Ordering::Relaxed);
        if self.thread.is_finished() {
            return Err(Failed::new("the flow ended while it was watched"));
        }
        done
    }

    fn finish(self) -> io::Result<[Gaps; 2]> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| io::Error::other("the flow's thread panicked"))?
    }
}

fn keep_asking(
    mut stream: &TcpStream,
    channel: Channel,
    window: &AtomicUsize,
    stop: &AtomicBool,
) -> io::Result<[Gaps; 2]> {
    let new = || {
        let all = Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(io::Error::other)?;
        Ok::<Gaps, io::Error>(Gaps { all, longest_ms: Vec::new() })
    };
    let mut gaps = [new()?, new()?];
    let (requests, answers) = echo_texts(FLOW_PAYLOAD);
    let Channel { mut sending, receiving, .. } = channel;
    let mut checker = SealedChecker::of(answers, receiving);
    let (mut last, mut before, mut watched) = (Instant::now(), 0, 0);
    let mut out = Vec::new();
    for sequence in 0.. {
        out.clear();
        sending.write(&requests, sequence, &mut out);
        stream.write_all(&out)?;
        while checker.verified() <= sequence {
            if checker.receive(stream)?.is_none() {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the system closed the connection"));
            }
        }
        let (now, current) = (Instant::now(), window.load(Ordering::Relaxed));
        let gap = now - last;
        // One that begins or ends within a window belongs to it.
        let number = current.max(before);
        if number > 0 {
            let gaps = &mut gaps[(number - 1) % 2];
            gaps.all.saturating_record(gap.as_nanos() as u64);
            if number != watched {
                watched = number;
                gaps.longest_ms.push(0.0);
            }
            if let Some(longest) = gaps.longest_ms.last_mut() {
                *longest = longest.max(gap.as_secs_f64() * 1e3);
            }
        }
        (last, before) = (now, current);
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    out.clear();
    sending.close(&mut out);
    stream.write_all(&out)?;
    Ok(gaps)
}
