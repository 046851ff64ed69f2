//! `ockam secure-channel`.

use super::engine::duration;
use super::{Session, texts};
use crate::api::{ChannelRole, ChannelStatus, CreateSecureChannel, SecureChannelInfo, path};
use crate::cli::args::secure_channel::{SecureChannelArg, SecureChannelCommand, SecureChannelCreate};
use crate::cli::args::shared::Confirmed;
use crate::cli::client::item;
use crate::cli::show::{Output, table};
use crate::cli::{plan, stdin};
use crate::error::Error;
use crate::home::NodeName;
use std::time::{SystemTime, UNIX_EPOCH};

/// Runs a command.
///
/// # Errors
/// What the command says.
pub fn run(command: SecureChannelCommand, session: &mut Session) -> Result<(), Error> {
    match command {
        SecureChannelCommand::Create(arguments) => create(arguments, session),
        SecureChannelCommand::List(at) => {
            let node = session.existing(at.at)?;
            let channels: Vec<SecureChannelInfo> = session.control(&node)?.get(path::SECURE_CHANNELS)?;
            let channels: Vec<SecureChannelInfo> = channels.into_iter().map(as_route).collect();
            let plain = || channels_table(&channels, &format!("The node {node} has no secure channels."));
            session.terminal.print(Output::new(&channels, plain))
        }
        SecureChannelCommand::Show(arguments) => {
            let (_, info) = find(arguments, session)?;
            session.terminal.print(Output::new(&info, || describe(&info)))
        }
        SecureChannelCommand::Delete(arguments) => delete(arguments, session),
    }
}

fn create(arguments: SecureChannelCreate, session: &mut Session) -> Result<(), Error> {
    let SecureChannelCreate { from, to, trust, timeout } = arguments;
    // What is wrong with the route shows before a node is made for it.
    let typed = to.resolve("--to", stdin::read_line)?;
    let planned = plan::resolve(&typed, "--to", |name| session.listener_of(name)).map_err(|error| match error {
        // What answers to a channel is a listener.
        Error::BadArgument { argument, value, why, fix } => {
            Error::BadArgument { argument, value, why, fix: fix.replace("/service/echo", "/service/api") }
        }
        other => other,
    })?;
    let mut admitted = session.admitted(&planned.ends, &trust.authorized)?;
    let request = CreateSecureChannel {
        route: planned.multiaddr.to_string(),
        authorized: texts(&admitted.pop().unwrap_or_default()),
        authorized_on_the_way: admitted.iter().map(|each| texts(each)).collect(),
        identity: trust.identity,
        timeout_ms: timeout.as_millis() as u64,
    };
    let node = session.existing_or_created(from)?;
    let made: SecureChannelInfo = session.control(&node)?.post_within(path::SECURE_CHANNELS, &request, timeout)?;
    let made = as_route(made);
    let plain = || {
        format!(
            "The node {node} has a secure channel to {}.\nSend through it with {}/service/NAME.",
            made.identifier, made.address
        )
    };
    session.terminal.print(Output::new(&[&made], plain).machine(made.address.clone()))
}

fn delete(Confirmed { what, yes }: Confirmed<SecureChannelArg>, session: &mut Session) -> Result<(), Error> {
    let id = what.channel.clone();
    let (node, info) = find(what, session)?;
    let question = format!("Close the secure channel of {node} to {}?", info.identifier);
    if !session.terminal.confirm(yes, &question)? {
        return Ok(());
    }
    let gone: SecureChannelInfo = session.control(&node)?.delete(&item(path::SECURE_CHANNELS, &id))?;
    let gone = as_route(gone);
    let plain = || format!("The secure channel of {node} to {} is closed.", gone.identifier);
    session.terminal.print(Output::new(&gone, plain).machine(gone.address.clone()))
}

fn find(arguments: SecureChannelArg, session: &mut Session) -> Result<(NodeName, SecureChannelInfo), Error> {
    let node = session.existing(arguments.at.at)?;
    let info = session.control(&node)?.get(&item(path::SECURE_CHANNELS, &arguments.channel))?;
    Ok((node, as_route(info)))
}

/// Writes the address as routes have it: what is printed is typed again.
pub fn as_route(mut channel: SecureChannelInfo) -> SecureChannelInfo {
    channel.address.insert_str(0, "/service/");
    channel
}

/// Channels for people.
fn channels_table(channels: &[SecureChannelInfo], none: &str) -> String {
    let rows = channels.iter().map(|it| {
        [it.address.clone(), it.identifier.clone(), by(it), state(it), format!("{} / {}", it.opened, it.sealed)]
    });
    table(["ADDRESS", "PEER", "BY", "STATE", "MESSAGES IN / OUT"], rows, none)
}

/// How it came to be.
fn by(channel: &SecureChannelInfo) -> String {
    match (channel.role, &channel.route, &channel.listener) {
        (ChannelRole::Initiator, Some(route), _) => route.clone(),
        (ChannelRole::Responder, _, Some(listener)) => format!("peer, at {listener}"),
        (ChannelRole::Initiator, ..) => "this node".into(),
        (ChannelRole::Responder, ..) => "peer".into(),
    }
}

/// How it is, and why not otherwise.
pub fn state(channel: &SecureChannelInfo) -> String {
    let state = match channel.status {
        ChannelStatus::Open => "open",
        ChannelStatus::Opening => "opening again",
        ChannelStatus::Stopped => "stopped",
    };
    match &channel.error {
        Some(why) => format!("{state}: {why}"),
        None => state.into(),
    }
}

fn describe(it: &SecureChannelInfo) -> String {
    let mut lines = vec![it.address.clone()];
    let mut line = |name: &str, value: String| lines.push(format!("  {name:<13} {value}"));
    line("peer", it.identifier.clone());
    line("this end", it.my_identifier.clone());
    match it.role {
        ChannelRole::Initiator => line("route", it.route.clone().unwrap_or_default()),
        ChannelRole::Responder => line("listener", it.listener.clone().unwrap_or_default()),
    }
    line("state", state(it));
    for identifier in &it.authorized {
        line("authorized", identifier.clone());
    }
    line("flow control", it.flow_control_id.clone());
    if it.expires_at != 0 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        line("ends in", duration(it.expires_at.saturating_sub(now)));
    }
    line("received", format!("{} messages, {} refused", it.opened, it.refused));
    line("sent", format!("{} messages", it.sealed));
    line("opened again", format!("{} times", it.reopened));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_shown_by_the_address_that_routes_have() {
        let channel = as_route(SecureChannelInfo {
            address: "0123456789abcdef0123456789abcdef".into(),
            role: ChannelRole::Initiator,
            status: ChannelStatus::Stopped,
            route: Some("/ip4/127.0.0.1/tcp/6003/service/api".into()),
            listener: None,
            identifier: "Iaa".into(),
            my_identifier: "Ibb".into(),
            authorized: vec!["Iaa".into()],
            flow_control_id: "00".into(),
            expires_at: 0,
            reopened: 3,
            error: Some("identity changed".into()),
            sealed: 5,
            opened: 4,
            refused: 1,
        });
        let text = describe(&channel);
        assert!(text.starts_with("/service/0123456789abcdef0123456789abcdef\n"), "{text}");
        for part in ["Iaa", "Ibb", "/tcp/6003/service/api", "stopped: identity changed", "1 refused", "3 times"] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(!text.contains("ends in"), "{text}");
        let table = channels_table(&[channel], "none");
        assert!(table.contains("/service/0123456789abcdef") && table.contains("4 / 5"), "{table}");
        assert_eq!(channels_table(&[], "none"), "none");
    }
}
