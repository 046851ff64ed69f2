//! `ockam relay`.

use super::{Session, texts};
use crate::api::{CreateRelay, RelayInfo, WayStatus, path};
use crate::cli::args::relay::{RelayArg, RelayCommand, RelayCreate, RelayDelete};
use crate::cli::client::item;
use crate::cli::show::{Output, table};
use crate::cli::{plan, stdin};
use crate::error::Error;
use crate::relays::{SERVICES, check_name};
use ockam_wire::{MultiAddr, Protocol};

/// Runs a command.
///
/// # Errors
/// What the command says.
pub fn run(command: RelayCommand, session: &mut Session) -> Result<(), Error> {
    match command {
        RelayCommand::Create(arguments) => create(arguments, session),
        RelayCommand::List(of) => {
            let node = session.existing(of.to)?;
            let relays: Vec<RelayInfo> = session.control(&node)?.get(path::RELAYS)?;
            let plain = || relays_table(&relays, &format!("The node {node} has no relays."));
            session.terminal.print(Output::new(&relays, plain))
        }
        RelayCommand::Show(RelayArg { name, of }) => {
            let node = session.existing(of.to)?;
            let info: RelayInfo = session.control(&node)?.get(&item(path::RELAYS, &name))?;
            session.terminal.print(Output::new(&info, || describe(&info)).machine(address(&info)))
        }
        RelayCommand::Delete(arguments) => delete(arguments, session),
    }
}

/// What is asked of the node that is reached: names are resolved, and tell who must be met on the way.
///
/// # Errors
/// Those of the route, of [`Session::listener_of`] and of [`Session::admitted`].
pub fn request(arguments: RelayCreate, session: &mut Session) -> Result<CreateRelay, Error> {
    let RelayCreate { name, at, of: _, relay_address, trust, timeout, no_connection_wait } = arguments;
    check_name("NAME", &name)?;
    if let Some(address) = &relay_address {
        check_name("--relay-address", address)?;
    }
    let mut parts = at.resolve("--at", stdin::read_line)?.protocols().to_vec();
    let typed = MultiAddr::try_from(parts.clone()).map_or_else(|_| String::new(), |typed| typed.to_string());
    parts.push(Protocol::Service(SERVICES[1].into()));
    let bad = |why: String, fix: String| Error::BadArgument {
        argument: "--at".into(),
        value: typed.clone(),
        why,
        fix: fix.replace(&format!("/service/{}", SERVICES[1]), ""),
    };
    let fix = || "Give a node, or a route to one, such as /node/n2/secure/api.".to_owned();
    let to_service = MultiAddr::try_from(parts).map_err(|error| bad(format!("is no route: {error}"), fix()))?;
    let planned =
        plan::resolve(&to_service, "--at", |name| session.listener_of(name)).map_err(|error| match error {
            Error::BadArgument { why, fix, .. } => bad(why, fix),
            other => other,
        })?;
    let mut ends = planned.ends;
    // What answers at the end need not be who the channels on the way lead to.
    ends.pop();
    if ends.is_empty() && !trust.authorized.is_empty() {
        return Err(bad("has no secure channel whose peer could be --authorized".into(), fix()));
    }
    let mut admitted = session.admitted(&ends, &trust.authorized)?;
    let mut way = planned.multiaddr.protocols().to_vec();
    way.pop();
    Ok(CreateRelay {
        name,
        at: MultiAddr::try_from(way).map_or_else(|_| String::new(), |at| at.to_string()),
        relay_address,
        authorized: texts(&admitted.pop().unwrap_or_default()),
        authorized_on_the_way: admitted.iter().map(|each| texts(each)).collect(),
        identity: trust.identity,
        wait: !no_connection_wait,
        timeout_ms: timeout.as_millis() as u64,
    })
}

fn create(mut arguments: RelayCreate, session: &mut Session) -> Result<(), Error> {
    let (of, timeout) = (arguments.of.to.take(), arguments.timeout);
    // What is wrong with the route shows before a node is made for it.
    let request = request(arguments, session)?;
    let node = session.existing_or_created(of)?;
    let made: RelayInfo = session.control(&node)?.post_within(path::RELAYS, &request, timeout)?;
    note_down(&made, request.wait, session);
    let plain = || match made.status {
        WayStatus::Up => format!("The node {node} is reached at {} as {}.", place(&made), address(&made)),
        WayStatus::Down => format!("The node {node} will be reached at {} as {}.", place(&made), address(&made)),
    };
    session.terminal.print(Output::new(&made, plain).machine(address(&made)))
}

/// Tells that a relay that was waited for is not there yet.
pub fn note_down(made: &RelayInfo, waited: bool, session: &Session) {
    if made.status == WayStatus::Down && waited {
        let why = made.error.as_deref().unwrap_or("the way to its node is not open");
        session.terminal.note(format_args!("The relay {} is not registered yet: {why}. It is tried again.", made.name));
    }
}

fn delete(arguments: RelayDelete, session: &mut Session) -> Result<(), Error> {
    let RelayDelete { name, all, of, yes } = arguments;
    let node = session.existing(of.to)?;
    let names = match all {
        false => {
            let info: RelayInfo = session.control(&node)?.get(&item(path::RELAYS, &name))?;
            vec![info.name]
        }
        true => {
            let relays: Vec<RelayInfo> = session.control(&node)?.get(path::RELAYS)?;
            relays.into_iter().map(|relay| relay.name).collect()
        }
    };
    let question = match names.as_slice() {
        [] => {
            let plain = || format!("The node {node} has no relays.");
            return session.terminal.print(Output::new(&Vec::<RelayInfo>::new(), plain).machine(String::new()));
        }
        [name] => format!("End the relay {name} of {node}?"),
        names => format!("End the {} relays of {node}?", names.len()),
    };
    if !session.terminal.confirm(yes, &question)? {
        return Ok(());
    }
    let mut gone: Vec<RelayInfo> = Vec::new();
    for name in &names {
        gone.push(session.control(&node)?.delete(&item(path::RELAYS, name))?);
    }
    let plain = || format!("The node {node} is no longer reached by {}.", names.join(", "));
    let machine = names.join("\n");
    match (all, gone.as_slice()) {
        (false, [gone]) => session.terminal.print(Output::new(gone, plain).machine(machine)),
        _ => session.terminal.print(Output::new(&gone, plain).machine(machine)),
    }
}

/// As routes have it: what is printed is typed again.
fn address(relay: &RelayInfo) -> String {
    format!("/service/{}", relay.address)
}

fn relays_table(relays: &[RelayInfo], none: &str) -> String {
    let rows = relays.iter().map(|it| [it.name.clone(), address(it), place(it).to_owned(), state(it)]);
    table(["NAME", "ADDRESS", "AT", "STATE"], rows, none)
}

fn place(relay: &RelayInfo) -> &str {
    if relay.at.is_empty() { "this node" } else { &relay.at }
}

/// How it is, and why not otherwise.
pub fn state(relay: &RelayInfo) -> String {
    match &relay.error {
        Some(why) => format!("{}: {why}", relay.status.name()),
        None => relay.status.name().into(),
    }
}

fn describe(relay: &RelayInfo) -> String {
    let mut lines = vec![relay.name.clone()];
    let mut line = |name: &str, value: &str| lines.push(format!("  {name:<8} {value}"));
    line("address", &address(relay));
    line("at", place(relay));
    line("state", &state(relay));
    if let Some(peer) = &relay.identifier {
        line("peer", peer);
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_shown_by_the_address_that_routes_have() {
        let relay = RelayInfo {
            name: "blue".into(),
            address: "forward_to_blue".into(),
            at: "/ip4/127.0.0.1/tcp/6002/secure/api".into(),
            status: WayStatus::Down,
            error: Some("no answer".into()),
            identifier: Some("Iaa".into()),
        };
        let text = describe(&relay);
        assert!(text.starts_with("blue\n"), "{text}");
        for part in ["/service/forward_to_blue", "/tcp/6002/secure/api", "down: no answer", "Iaa"] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        let here = RelayInfo { at: String::new(), status: WayStatus::Up, error: None, identifier: None, ..relay };
        assert!(describe(&here).contains("this node") && describe(&here).ends_with("up"));
        let table = relays_table(&[here], "none");
        assert!(
            table.contains("blue") && table.contains("/service/forward_to_blue") && table.contains("up"),
            "{table}"
        );
        assert_eq!(relays_table(&[], "none"), "none");
    }
}
