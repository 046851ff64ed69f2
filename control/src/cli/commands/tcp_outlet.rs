//! `ockam tcp-outlet`.

use super::Session;
use super::policy::{self, Guarding};
use crate::api::{CreateTcpOutlet, ResourceType, TcpOutletInfo, path};
use crate::cli::args::tcp_outlet::{TcpOutletArg, TcpOutletCommand, TcpOutletCreate, TcpOutletDelete};
use crate::cli::client::{Control, item};
use crate::cli::show::{Output, table};
use crate::error::Error;

/// The address of the first outlet of a node that is given none.
pub(super) const FIRST: &str = "outlet";

/// Runs a command.
///
/// # Errors
/// What the command says.
pub fn run(command: TcpOutletCommand, session: &mut Session) -> Result<(), Error> {
    match command {
        TcpOutletCommand::Create(arguments) => create(arguments, session),
        TcpOutletCommand::List(at) => {
            let node = session.existing(at.at)?;
            let outlets: Vec<TcpOutletInfo> = session.control(&node)?.get(path::TCP_OUTLETS)?;
            let plain = || outlets_table(&outlets, &format!("The node {node} has no TCP outlets."));
            session.terminal.print(Output::new(&outlets, plain))
        }
        TcpOutletCommand::Show(TcpOutletArg { address, at }) => {
            let node = session.existing(at.at)?;
            let info: TcpOutletInfo = session.control(&node)?.get(&item(path::TCP_OUTLETS, &address))?;
            session.terminal.print(Output::new(&info, || describe(&info)))
        }
        TcpOutletCommand::Delete(arguments) => delete(arguments, session),
    }
}

/// What is asked of the node.
pub fn request(arguments: TcpOutletCreate) -> CreateTcpOutlet {
    CreateTcpOutlet {
        to: arguments.to.to_string(),
        address: arguments.from,
        tls: arguments.tls,
        allow_plain: arguments.allow_plain,
    }
}

fn create(mut arguments: TcpOutletCreate, session: &mut Session) -> Result<(), Error> {
    let node = session.existing_or_created(arguments.at.at.take())?;
    let mut control = session.control(&node)?;
    let allow = arguments.allow.take();
    let mut request = request(arguments);
    let guarding = match allow {
        Some(allow) => {
            let there: Vec<TcpOutletInfo> = control.get(path::TCP_OUTLETS)?;
            let address = request.address.get_or_insert_with(|| free_address(&there)).clone();
            // One that is there keeps its policy: to make it again is refused.
            let is_new = there.iter().all(|outlet| outlet.address != address);
            is_new.then(|| policy::guard(&mut control, ResourceType::TcpOutlet, &address, allow)).transpose()?
        }
        None => None,
    };
    let made = control.post::<TcpOutletInfo>(path::TCP_OUTLETS, &request);
    let made = guarded(made, guarding, &mut control, session)?;
    note_unresolved(&made, session);
    let address = route_part(&made);
    let plain = || {
        format!(
            "The node {node} lets inlets reach {} at {address}.\n\
             Try, where it shall be used: ockam tcp-inlet create --to /node/{node}/secure/api{address}",
            made.to
        )
    };
    session.terminal.print(Output::new(&made, plain).machine(address.clone()))
}

/// The address that the node itself would choose: a policy needs it before there is an outlet.
fn free_address(there: &[TcpOutletInfo]) -> String {
    match there.iter().any(|outlet| outlet.address == FIRST) {
        false => FIRST.to_owned(),
        true => crate::random::hex_id(),
    }
}

/// What came of making something that was given a policy before: without it, that policy is taken away again.
///
/// # Errors
/// Why it was not made.
pub(super) fn guarded<T>(
    made: Result<T, Error>,
    guarding: Option<Guarding>,
    control: &mut Control,
    session: &Session,
) -> Result<T, Error> {
    if let (Err(_), Some(guarding)) = (&made, guarding)
        && let Err(error) = guarding.undo(control)
    {
        session.terminal.warn(format_args!("its policy is left as it was made: {error}"));
    }
    made
}

/// Tells that an outlet that was made leads nowhere yet.
pub fn note_unresolved(made: &TcpOutletInfo, session: &Session) {
    if let Some(why) = &made.error {
        session.terminal.warn(format_args!("the target of the outlet {} cannot be used yet: {why}", made.address));
    }
}

fn delete(arguments: TcpOutletDelete, session: &mut Session) -> Result<(), Error> {
    let TcpOutletDelete { address, at, all, yes } = arguments;
    let node = session.existing(at.at)?;
    let outlets: Vec<TcpOutletInfo> = match &address {
        Some(address) => vec![session.control(&node)?.get(&item(path::TCP_OUTLETS, address))?],
        None => session.control(&node)?.get(path::TCP_OUTLETS)?,
    };
    let list = outlets.iter().map(route_part).collect::<Vec<_>>().join(", ");
    let question = format!("Remove {list} of {node}, and end its connections?");
    if !outlets.is_empty() && !session.terminal.confirm(yes, &question)? {
        return Ok(());
    }
    let mut gone: Vec<TcpOutletInfo> = Vec::with_capacity(outlets.len());
    for outlet in &outlets {
        gone.push(session.control(&node)?.delete(&item(path::TCP_OUTLETS, &outlet.address))?);
    }
    let plain = || match outlets.is_empty() {
        true => format!("The node {node} has no TCP outlets."),
        false => format!("The node {node} no longer has {list}."),
    };
    let machine = outlets.iter().map(route_part).collect::<Vec<_>>().join("\n");
    match (all, gone.as_slice()) {
        (false, [one]) => session.terminal.print(Output::new(one, plain).machine(machine)),
        (_, gone) => session.terminal.print(Output::new(&gone, plain).machine(machine)),
    }
}

/// Its address as routes have it: what is printed is typed again.
fn route_part(outlet: &TcpOutletInfo) -> String {
    format!("/service/{}", outlet.address)
}

fn outlets_table(outlets: &[TcpOutletInfo], none: &str) -> String {
    let rows = outlets.iter().map(|it| [route_part(it), target(it), who(it).into(), state(it)]);
    table(["ADDRESS", "TO", "FOR", "STATE"], rows, none)
}

/// Where it leads, for people.
fn target(outlet: &TcpOutletInfo) -> String {
    if outlet.tls { format!("{} (TLS)", outlet.to) } else { outlet.to.clone() }
}

/// Who may use it.
fn who(outlet: &TcpOutletInfo) -> &'static str {
    if outlet.allow_plain { "anyone" } else { "this machine, secure channels" }
}

/// How it is, and why not otherwise.
pub fn state(outlet: &TcpOutletInfo) -> String {
    outlet.error.clone().unwrap_or_else(|| "ready".into())
}

fn describe(outlet: &TcpOutletInfo) -> String {
    let mut lines = vec![route_part(outlet)];
    let mut line = |name: &str, value: &str| lines.push(format!("  {name:<8} {value}"));
    line("to", &target(outlet));
    for target in outlet.targets.iter().filter(|target| **target != outlet.to) {
        line("", target);
    }
    line("for", who(outlet));
    line("state", &state(outlet));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outlet_is_shown_by_the_address_that_routes_have() {
        let mut outlet = TcpOutletInfo {
            address: "db".into(),
            to: "db.example:5432".into(),
            tls: true,
            allow_plain: false,
            targets: vec!["10.0.0.7:5432".into()],
            error: None,
        };
        let text = describe(&outlet);
        assert!(text.starts_with("/service/db\n"), "{text}");
        for part in ["db.example:5432 (TLS)", "10.0.0.7:5432", "this machine", "ready"] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        (outlet.error, outlet.allow_plain) = (Some("it does not resolve".into()), true);
        let table = outlets_table(&[outlet], "none");
        assert!(table.contains("/service/db") && table.contains("anyone") && table.contains("resolve"), "{table}");
        assert_eq!(outlets_table(&[], "none"), "none");
    }
}
