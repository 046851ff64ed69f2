//! What a node costs that does nothing: its own memory, and that of links nobody uses.

use crate::cleanup::Cleanup;
use crate::load;
use crate::machine::{self, Memory};
use crate::report::{Limit, Row, Section, Verdict};
use crate::stats::Summary;
use crate::system::{Failed, Owner, Setup, System, kill};
use ockam_bench::flow::Checker;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Links on one node.
const LINKS: u32 = 10_000;
/// Processes that hold them: descriptors and ports of each are bounded.
const HOLDERS: u32 = 4;
/// Proportional memory of an idle node, both processes.
const NODE_PSS_MAX: f64 = 10e6;

/// Measures.
pub fn run(setup: &Setup) -> Result<Section, Failed> {
    let mut section = Section::new(
        "idle",
        format!(
            "Memory of a node that was just created, and of one with {LINKS} idle links (held by {HOLDERS} processes \
             from as many loopback addresses; each link is up, has answered one 64 B message, and answers one more at \
             the end)."
        ),
    );
    for driver in ["uring", "epoll"] {
        let system = setup.node(driver, 1)?;
        // Whatever start-up left to do is done.
        std::thread::sleep(Duration::from_secs(2));
        let before = engine_memory(&system)?;
        if let Owner::Node(node) = &system.owner {
            let control = machine::memory(node.control_pid)?;
            for (process, memory) in [("engine", before), ("control", control)] {
                section.rows.push(memory_row("a new node", &format!("{}: {process}", system.name), memory));
            }
            section.verdicts.push(Verdict::new(
                format!("{}: PSS of an idle node, both processes, MB", system.name),
                Summary::single((before.pss + control.pss) as f64 / 1e6),
                Limit::AtMost(NODE_PSS_MAX / 1e6),
            ));
        }
        let start = Instant::now();
        let holders: Vec<Holder> = (0..HOLDERS)
            .map(|place| Holder::start(setup, system.address, LINKS / HOLDERS, place))
            .collect::<Result<_, _>>()?;
        for holder in &holders {
            holder.wait_for("up")?;
        }
        let elapsed = start.elapsed().as_secs_f64();
        // Memory that was used only while links came up is given back by then.
        std::thread::sleep(Duration::from_secs(3));
        let after = engine_memory(&system)?;
        for holder in &holders {
            holder.ask()?;
        }
        for holder in &holders {
            holder.wait_for("alive")?;
        }
        let per_link = |after: u64, before: u64| after.saturating_sub(before) as f64 / f64::from(LINKS);
        eprintln!("  {LINKS} links: {}: {:.0} B each", system.name, per_link(after.pss, before.pss));
        let mut row = memory_row(&format!("{LINKS} links"), &format!("{}: engine", system.name), after);
        row.metrics.push(("PSS bytes per link", Summary::single(per_link(after.pss, before.pss))));
        row.metrics.push(("private bytes per link", Summary::single(per_link(after.private, before.private))));
        row.metrics.push(("links/s while opening", Summary::single(f64::from(LINKS) / elapsed)));
        section.rows.push(row);
        section.verdicts.push(Verdict::new(
            format!("{}: links that are up and answer", system.name),
            Summary::single(f64::from(LINKS)),
            Limit::AtLeast(f64::from(LINKS)),
        ));
    }
    Ok(section)
}

fn engine_memory(system: &System) -> Result<Memory, Failed> {
    let pid = system.pids.first().ok_or(Failed::new("a system has a process"))?;
    Ok(machine::memory(*pid)?)
}

fn memory_row(load: &str, system: &str, memory: Memory) -> Row {
    let mib = |bytes: u64| Summary::single(bytes as f64 / 1e6);
    Row {
        load: load.to_owned(),
        system: system.to_owned(),
        metrics: vec![("RSS MB", mib(memory.rss)), ("PSS MB", mib(memory.pss)), ("private MB", mib(memory.private))],
    }
}

/// A process of this program that holds links.
struct Holder {
    child: Arc<Mutex<Child>>,
    lines: Mutex<BufReader<std::process::ChildStdout>>,
    _process: Cleanup,
}

impl Holder {
    fn start(setup: &Setup, to: SocketAddr, count: u32, place: u32) -> Result<Holder, Failed> {
        let source = Ipv4Addr::new(127, 0, 0, 2 + place as u8);
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["hold", "--to", &to.to_string(), "--count", &count.to_string(), "--from", &source.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        machine::run_on(&setup.placement.cpus(&setup.cpus).1)?;
        let mut child = command.spawn()?;
        let lines = child.stdout.take().ok_or(Failed::new("no pipe"))?;
        let child = Arc::new(Mutex::new(child));
        let ending = child.clone();
        let process = Cleanup::new(move || kill(&ending));
        Ok(Holder { child, lines: Mutex::new(BufReader::new(lines)), _process: process })
    }

    /// Waits until it says so.
    fn wait_for(&self, what: &str) -> Result<(), Failed> {
        let mut line = String::new();
        self.lines.lock().expect("no holder panics").read_line(&mut line)?;
        match line.trim() {
            said if said == what => Ok(()),
            said => Err(Failed::new(format!("void: a holder of links said {said:?}, not {what:?}"))),
        }
    }

    /// Has it use every link once more.
    fn ask(&self) -> Result<(), Failed> {
        let mut child = self.child.lock().expect("no holder panics");
        let stdin = child.stdin.as_mut().ok_or(Failed::new("no pipe"))?;
        Ok(stdin.write_all(b"?\n")?)
    }
}

/// The holder's side: opens links, says `up`; for every line on standard input uses each once and says `alive`; ends with
/// its standard input.
pub fn hold(to: SocketAddr, count: u32, from: Ipv4Addr) -> Result<(), Failed> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let all = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, all).map_err(std::io::Error::from)?;
    let links: Vec<TcpStream> = (0..count).map(|_| link_from(to, from)).collect::<std::io::Result<_>>()?;
    use_all(&links)?;
    println!("up");
    for _ in std::io::stdin().lines() {
        use_all(&links)?;
        println!("alive");
    }
    Ok(())
}

fn use_all(links: &[TcpStream]) -> Result<(), Failed> {
    let (request, answer) = load::echo_flows(64);
    let mut frame = Vec::new();
    request.write(0, &mut frame);
    for mut link in links {
        link.write_all(&frame)?;
        let mut checker = Checker::of(answer.clone());
        while checker.verified() < 1 {
            if checker.receive(link)?.is_none() {
                return Err(Failed::new("a link was closed"));
            }
        }
    }
    Ok(())
}

fn link_from(to: SocketAddr, from: Ipv4Addr) -> std::io::Result<TcpStream> {
    let stream = load::connect_from(from, to)?;
    load::greet(&stream)?;
    Ok(stream)
}
