//! `ockam engine`: the data plane of a node.

use super::Session;
use super::tcp_connection::connections_table;
use crate::api::{EngineBrief, EngineInfo, EngineStats, path};
use crate::cli::args;
use crate::cli::args::OutputFormat;
use crate::cli::args::engine::EngineCommand;
use crate::cli::client::Control;
use crate::cli::show::{Output, bytes, table, write_stdout};
use crate::error::Error;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// How often `--watch` shows again.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Runs a command.
///
/// # Errors
/// What the command says.
pub fn run(command: EngineCommand, session: &mut Session) -> Result<(), Error> {
    match command {
        EngineCommand::Show(at) => {
            let node = session.existing(at.at)?;
            let info: EngineInfo = session.control(&node)?.get(path::ENGINE)?;
            session.terminal.print(Output::new(&info, || describe(&info)))
        }
        EngineCommand::Stats(arguments) => stats(arguments, session),
        EngineCommand::Restart(at) => {
            let node = session.existing(at.at)?;
            let info: EngineInfo = session.control(&node)?.post_empty(path::ENGINE_RESTART)?;
            let plain = || {
                let brief = &info.brief;
                format!("The node {node} has a new engine: process {}, driver {}.", brief.pid, brief.driver)
            };
            session.terminal.print(Output::new(&info, plain).machine(info.brief.pid.to_string()))
        }
    }
}

/// An engine for people, without what only `engine show` says.
pub fn brief_lines(brief: &EngineBrief) -> Vec<(&'static str, String)> {
    let process = match brief.running {
        true => format!("{} (up {})", brief.pid, duration(brief.uptime_s)),
        false => "being started again".into(),
    };
    vec![
        ("process", process),
        ("version", brief.version.clone()),
        ("driver", format!("{} ({})", brief.driver, brief.driver_reason)),
        ("cores", brief.cores.to_string()),
        ("restarts", brief.restarts.to_string()),
    ]
}

fn describe(info: &EngineInfo) -> String {
    let mut lines = brief_lines(&info.brief);
    let pool = &info.pool;
    lines.push(("aead", info.aead.clone()));
    lines.push(("cpu features", info.cpu_features.join(" ")));
    lines.push(("links", format!("{} of {} per core", info.links_open, info.links_max_per_core)));
    lines.push((
        "pool",
        format!(
            "{} slots of {}: {} free, {} receiving, {} with frames",
            pool.slots,
            bytes(pool.slot_bytes.into()),
            pool.free,
            pool.kernel,
            pool.core
        ),
    ));
    lines.push(("large frames", format!("{} slots, {}", pool.large_used, bytes(pool.assembly_bytes))));
    lines.push(("drops", reasons(&info.drops)));
    lines.push(("closed links", reasons(&info.closes)));
    let mut text = lines.iter().fold(String::new(), |mut text, (name, value)| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<14}{value}");
        text
    });
    text.push('\n');
    text.push_str(&connections_table(&info.links, "No links are open."));
    text
}

fn reasons(counts: &BTreeMap<String, u64>) -> String {
    let counts: Vec<String> =
        counts.iter().filter(|(_, count)| **count != 0).map(|(name, count)| format!("{name} {count}")).collect();
    if counts.is_empty() { "none".into() } else { counts.join(", ") }
}

/// Seconds as people say them.
pub fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

fn stats(arguments: args::engine::EngineStats, session: &mut Session) -> Result<(), Error> {
    let node = session.existing(arguments.at.at)?;
    let terminal = session.terminal;
    let mut control = session.control(&node)?;
    let mut before: EngineStats = control.get(path::ENGINE_STATS)?;
    if !arguments.watch {
        return terminal.print(Output::new(&before, || stats_table(&before, None, arguments.all)));
    }
    let redraw = terminal.stdout_is_terminal && terminal.format == OutputFormat::Plain;
    let mut now = before.clone();
    loop {
        if redraw {
            // Home and clear, so that the screen is one steady picture.
            let text = stats_table(&now, Some(&before), arguments.all);
            write_stdout(&[b"\x1b[H\x1b[2J", format!("{node}\n\n{text}\n").as_bytes()])?;
        } else if !write_line(&now)? {
            return Ok(());
        }
        std::thread::sleep(WATCH_INTERVAL);
        before = std::mem::replace(&mut now, next(&mut control, session, &node)?);
    }
}

/// One reading as one line of JSON. `false` when nobody reads any more.
fn write_line(stats: &EngineStats) -> Result<bool, Error> {
    use std::io::{ErrorKind, Write};
    let line = serde_json::to_string(stats).expect("API types have string keys") + "\n";
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => {
            Err(Error::Io { what: "cannot write to stdout".into(), errno: error.raw_os_error().unwrap_or(0) })
        }
    }
}

/// The next reading; a control that was restarted meanwhile is found again.
fn next(control: &mut Control, session: &mut Session, node: &crate::home::NodeName) -> Result<EngineStats, Error> {
    match control.get(path::ENGINE_STATS) {
        Err(Error::ControlSilent { .. }) => {
            *control = session.control(node)?;
            control.get(path::ENGINE_STATS)
        }
        answer => answer,
    }
}

fn stats_table(now: &EngineStats, before: Option<&EngineStats>, all: bool) -> String {
    let seconds = before.map(|before| now.time_ms.saturating_sub(before.time_ms) as f64 / 1000.0);
    let groups = [("", &now.counters), ("drop ", &now.drops), ("close ", &now.closes)];
    let then = before.filter(|before| before.pid == now.pid).map(|it| [&it.counters, &it.drops, &it.closes]);
    let mut rows = Vec::new();
    for (group, (prefix, counts)) in groups.into_iter().enumerate() {
        for (name, &count) in counts.iter().filter(|(_, count)| all || **count != 0) {
            let rate = match (&then, seconds) {
                (Some(then), Some(seconds)) if seconds > 0.0 && !now.gauges.contains(name) => {
                    let grown = count.saturating_sub(then[group].get(name).copied().unwrap_or(0));
                    format!("{:.0}/s", grown as f64 / seconds)
                }
                _ => String::new(),
            };
            let cores: Vec<String> = match group {
                0 => now.cores.iter().map(|core| core.get(name).copied().unwrap_or(0).to_string()).collect(),
                _ => Vec::new(),
            };
            rows.push([format!("{prefix}{name}"), count.to_string(), rate, cores.join(" ")]);
        }
    }
    table(["COUNTER", "TOTAL", "RATE", "PER CORE"], rows, "Nothing was counted yet.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(pid: u32, time_ms: u64, frames: u64) -> EngineStats {
        let counters: BTreeMap<String, u64> =
            [("frames_in".to_owned(), frames), ("links_open".to_owned(), 2), ("ticks".to_owned(), 0)].into();
        EngineStats {
            pid,
            time_ms,
            cores: vec![counters.clone()],
            counters,
            gauges: vec!["links_open".into()],
            drops: [("no_such_address".to_owned(), 1)].into(),
            closes: BTreeMap::new(),
        }
    }

    #[test]
    fn rates_are_of_sums_and_of_the_same_engine() {
        let text = stats_table(&stats(1, 3000, 300), Some(&stats(1, 1000, 100)), false);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["frames_in", "300", "100/s", "300"]);
        assert_eq!(lines[2], ["links_open", "2", "2"]);
        assert_eq!(lines[3], ["drop", "no_such_address", "1", "0/s"]);
        assert_eq!(lines.len(), 4);
        let other = stats_table(&stats(2, 3000, 300), Some(&stats(1, 1000, 100)), true);
        assert!(!other.contains("/s") && other.contains("ticks"), "{other}");
    }

    #[test]
    fn durations() {
        for (seconds, want) in [(0, "0 s"), (61, "1 min 1 s"), (7260, "2 h 1 min"), (90_000, "1 d 1 h")] {
            assert_eq!(duration(seconds), want);
        }
    }
}
