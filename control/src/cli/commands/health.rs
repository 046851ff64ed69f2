//! `ockam health`: one question, one exit code, in bounded time.

use super::Session;
use super::engine::duration;
use crate::api::{HealthInfo, HealthStatus, NodeStatus, WayStatus, path};
use crate::cli::args::health::Health;
use crate::cli::client::Control;
use crate::cli::show::Output;
use crate::error::Error;
use crate::home::{NodeDir, NodeName};

/// Asks the node, and shows what it says. What is asked changes nothing: a control that is missing stays missing.
///
/// # Errors
/// [`Error::Unhealthy`] when the node is not ready, or with `--live` not alive; [`Error::NoSuchNode`],
/// [`Error::NoNodes`].
pub fn run(arguments: Health, session: &mut Session) -> Result<(), Error> {
    let name = session.existing(arguments.of.node)?;
    let dir = session.required(&name)?;
    let health = match Control::connect_within(&dir, arguments.timeout) {
        Ok(Some(mut control)) => control.get(path::HEALTH),
        Ok(None) => absent(&dir),
        Err(error) => Err(error),
    };
    let health = match health {
        Ok(health) => health,
        Err(error) => nobody(&name, HealthStatus::Silent, error.to_string()),
    };
    let terminal = session.terminal;
    let is_well = health.status == HealthStatus::Ready || arguments.live && health.status.is_live();
    // Who asks for JSON gets it either way; a person is told once.
    if is_well || terminal.is_json() {
        terminal.print(Output::new(&health, || describe(&health)).machine(health.status.name()))?;
    }
    if is_well {
        return Ok(());
    }
    let why = health.problems.join("; ");
    Err(Error::Unhealthy { name: health.node, status: health.status.name(), why })
}

/// What a node is whose control does not listen.
fn absent(dir: &NodeDir) -> Result<HealthInfo, Error> {
    Ok(match dir.status()? {
        NodeStatus::Running => {
            nobody(dir.name(), HealthStatus::Silent, "its control is just starting or ending".into())
        }
        NodeStatus::Headless => nobody(dir.name(), HealthStatus::Headless, "its control does not run".into()),
        NodeStatus::Stopped => nobody(dir.name(), HealthStatus::Stopped, "it does not run".into()),
    })
}

/// A node that could not be asked.
fn nobody(name: &NodeName, status: HealthStatus, problem: String) -> HealthInfo {
    HealthInfo {
        node: name.to_string(),
        status,
        control: false,
        engine: None,
        listeners: Vec::new(),
        inlets: Vec::new(),
        outlets: Vec::new(),
        relays: Vec::new(),
        authority: None,
        problems: vec![problem],
    }
}

fn describe(health: &HealthInfo) -> String {
    let mut lines = vec![format!("{} is {}", health.node, health.status.name())];
    if let Some(engine) = &health.engine {
        let up = duration(engine.brief.uptime_s);
        lines.push(format!("  engine    {} ({}), up {up}", engine.brief.driver, engine.brief.driver_reason));
    }
    let mut line = |kind: &str, name: &str, status: &str, error: &Option<String>| {
        let why = error.as_ref().map_or(String::new(), |why| format!(": {why}"));
        lines.push(format!("  {kind:<10}{name} {status}{why}"));
    };
    let word = |up: bool| if up { WayStatus::Up.name() } else { WayStatus::Down.name() };
    for it in &health.listeners {
        line("listener", &it.address, word(it.up), &it.error);
    }
    for it in &health.inlets {
        line("inlet", &format!("{} {}", it.alias, it.from), it.status.name(), &it.error);
    }
    for it in &health.outlets {
        line("outlet", &it.address, &format!("to {}", it.to), &it.error);
    }
    for it in &health.relays {
        line("relay", &it.name, it.status.name(), &it.error);
    }
    lines.join("\n")
}
