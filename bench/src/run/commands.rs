//! U2 and U3: what a person waits for. Whole processes from their start to their end, warm page cache.

use crate::report::{Limit, Row, Section, Verdict};
use crate::stats::{Summary, quantile};
use crate::system::{Failed, Home, Setup};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Starts a node.
const CREATE_MS: f64 = 50.0;
/// Everything else on this machine.
const COMMAND_MS: f64 = 10.0;

/// An engine that ends sooner than this after its start is taken for a broken one: its node waits before the next.
const STEADY: Duration = Duration::from_millis(700);

/// A command, and what must be done before and after each run of it, unmeasured.
struct Subject {
    name: &'static str,
    arguments: Vec<String>,
    before: Vec<Vec<String>>,
    after: Vec<Vec<String>>,
    /// Unmeasured rest before each run.
    rest: Duration,
    limit_ms: f64,
}

fn words(text: &str) -> Vec<String> {
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

fn subject(name: &'static str, arguments: &str) -> Subject {
    Subject {
        name,
        arguments: words(arguments),
        before: Vec::new(),
        after: Vec::new(),
        rest: Duration::ZERO,
        limit_ms: COMMAND_MS,
    }
}

impl Subject {
    fn before(mut self, command: &str) -> Subject {
        self.before.push(words(command));
        self
    }

    fn after(mut self, command: &str) -> Subject {
        self.after.push(words(command));
        self
    }

    fn rested(mut self, rest: Duration) -> Subject {
        self.rest = rest;
        self
    }

    fn within_ms(mut self, limit_ms: f64) -> Subject {
        self.limit_ms = limit_ms;
        self
    }
}

/// Every local command. `n1` and `n2` run throughout; `peer` is where `n2` listens, `flow_control` is that of `n1`'s listener.
fn subjects(peer: &str, flow_control: &str) -> Vec<Subject> {
    let to_peer = format!("tcp-connection create --from n1 --to {peer}");
    let show_peer = format!("tcp-connection show {peer} --at n1");
    let delete_peer = format!("tcp-connection delete {peer} --at n1 --yes");
    vec![
        subject("node create", "node create extra").after("node delete extra --yes").within_ms(CREATE_MS),
        subject("node start", "node start extra")
            .before("node create extra")
            .before("node stop extra")
            .after("node delete extra --yes")
            .within_ms(CREATE_MS),
        subject("node stop", "node stop extra").before("node create extra").after("node delete extra --yes"),
        subject("node delete", "node delete extra --yes").before("node create extra"),
        subject("node list", "node list"),
        subject("node show", "node show n1"),
        subject("node default", "node default"),
        subject("node logs", "node logs n1"),
        subject("message send", "message send hello --to /node/n1/service/uppercase"),
        subject("message send --from", "message send hello --from n1 --to /node/n2/service/uppercase"),
        subject("message send, two hops", "message send hello --from n1 --to /node/n1/node/n2/service/uppercase"),
        subject("tcp-listener create", "tcp-listener create 127.0.0.1:17999 --at n1")
            .after("tcp-listener delete 127.0.0.1:17999 --at n1 --yes"),
        subject("tcp-listener list", "tcp-listener list --at n1"),
        subject("tcp-listener delete", "tcp-listener delete 127.0.0.1:17999 --at n1 --yes")
            .before("tcp-listener create 127.0.0.1:17999 --at n1"),
        subject("tcp-connection create", &to_peer).after(&delete_peer),
        subject("tcp-connection list", "tcp-connection list --at n1"),
        subject("tcp-connection show", &show_peer).before(&to_peer).after(&delete_peer),
        subject("tcp-connection delete", &delete_peer).before(&to_peer),
        subject("service list", "service list --at n1"),
        subject("worker list", "worker list --at n1"),
        subject(
            "flow-control add-consumer",
            &format!("flow-control add-consumer {flow_control} /service/some --at n1"),
        ),
        subject("engine show", "engine show --at n1"),
        subject("engine stats", "engine stats --at n1"),
        subject("engine restart", "engine restart --at n2").rested(STEADY).within_ms(CREATE_MS),
        subject("environment", "environment"),
        subject("completion", "completion --shell bash"),
        subject("--version", "--version"),
    ]
}

/// Measures `runs` runs of each.
pub fn run(setup: &Setup, runs: usize) -> Result<Section, Failed> {
    let mut section = Section::new(
        "commands",
        format!(
            "Wall time of whole processes, {runs} runs of each, warm page cache, with output to a pipe. Before each run \
             `/bin/true` was started and awaited in the same way: that floor is the machine's. Every command must \
             succeed."
        ),
    );
    let home = Home::new(&setup.ockam)?;
    let made = ["n1", "n2"].map(|name| home.json(&["node", "create", name]));
    let [own, peer] = made;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let flow_control = text(&own?["transports"][0]["flow_control_id"]);
    section.rows.push(synced_file(runs)?);
    for subject in subjects(&text(&peer?["transports"][0]["socket_addr"]), &flow_control) {
        let (mut times, mut floors) = (Vec::new(), Vec::new());
        // The first run is a warm-up.
        let mut failed = None;
        for run in 0..=runs {
            for command in &subject.before {
                home.run(&refs(command))?;
            }
            std::thread::sleep(subject.rest);
            let floor = time(&mut Command::new("/bin/true"))?.0;
            let (elapsed, error) = time(&mut home.command(&refs(&subject.arguments)))?;
            failed = failed.or(error);
            if failed.is_some() {
                break;
            }
            for command in &subject.after {
                home.run(&refs(command))?;
            }
            if run > 0 {
                times.push(elapsed);
                floors.push(floor);
            }
        }
        if let Some(error) = failed {
            section.notes.push(format!("MISSED: `ockam {}` failed: {error}", subject.arguments.join(" ")));
            eprintln!("  {} failed: {error}", subject.name);
            for command in &subject.after {
                let _ = home.run(&refs(command));
            }
            continue;
        }
        let p95 = quantile(times.clone(), 0.95);
        let median = Summary::of(times);
        eprintln!("  {}: median {:.2} ms, p95 {p95:.2} ms", subject.name, median.median);
        section.verdicts.push(Verdict::new(
            format!("`ockam {}` median ms", subject.name),
            median.clone(),
            Limit::AtMost(subject.limit_ms),
        ));
        section.rows.push(Row {
            load: subject.name.to_owned(),
            system: "ockam".to_owned(),
            metrics: vec![
                ("median ms", median),
                ("p95 ms", Summary::single(p95)),
                ("/bin/true ms", Summary::of(floors)),
            ],
        });
    }
    Ok(section)
}

/// What the disk takes to keep a new file: whatever is durable when a command returns waited for that, at least once.
fn synced_file(runs: usize) -> Result<Row, Failed> {
    let dir = tempfile::tempdir()?;
    let mut times = Vec::new();
    for run in 0..runs {
        let start = Instant::now();
        let mut file = std::fs::File::create(dir.path().join(run.to_string()))?;
        file.write_all(&[7; 4096])?;
        file.sync_all()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let p95 = Summary::single(quantile(times.clone(), 0.95));
    let metrics = vec![("median ms", Summary::of(times)), ("p95 ms", p95)];
    Ok(Row { load: "a new file of 4 KiB, written and synced".into(), system: "machine".into(), metrics })
}

fn refs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// Milliseconds of a process, and what it said if it failed.
fn time(command: &mut Command) -> Result<(f64, Option<String>), Failed> {
    command.stdin(Stdio::null());
    let start = Instant::now();
    let output = command.output()?;
    let elapsed = start.elapsed().as_secs_f64() * 1e3;
    let error = (!output.status.success())
        .then(|| format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()));
    Ok((elapsed, error))
}
