//! `ockam tcp-inlet`.

use super::tcp_outlet::guarded;
use super::{Session, policy, texts};
use crate::api::{CreateTcpInlet, ResourceType, TcpInletInfo, WayStatus, path};
use crate::cli::args::tcp_inlet::{TcpInletArg, TcpInletCommand, TcpInletCreate, TcpInletDelete};
use crate::cli::client::item;
use crate::cli::show::{Output, table};
use crate::cli::values::{InletTo, Via};
use crate::cli::{plan, stdin};
use crate::error::Error;
use ockam_wire::{MultiAddr, Protocol};

/// Where an inlet listens when nothing else is said: a free port, for this machine only.
const FROM_DEFAULT: &str = "127.0.0.1:0";

/// Runs a command.
///
/// # Errors
/// What the command says.
pub fn run(command: TcpInletCommand, session: &mut Session) -> Result<(), Error> {
    match command {
        TcpInletCommand::Create(arguments) => create(*arguments, session),
        TcpInletCommand::List(at) => {
            let node = session.existing(at.at)?;
            let inlets: Vec<TcpInletInfo> = session.control(&node)?.get(path::TCP_INLETS)?;
            let plain = || inlets_table(&inlets, &format!("The node {node} has no TCP inlets."));
            session.terminal.print(Output::new(&inlets, plain))
        }
        TcpInletCommand::Show(TcpInletArg { alias, at }) => {
            let node = session.existing(at.at)?;
            let info: TcpInletInfo = session.control(&node)?.get(&item(path::TCP_INLETS, &alias))?;
            session.terminal.print(Output::new(&info, || describe(&info)))
        }
        TcpInletCommand::Delete(arguments) => delete(arguments, session),
    }
}

/// What is asked of the node: names are resolved, and tell who must be met on the way. `argument` names the route in
/// errors.
///
/// # Errors
/// Those of the route, of [`Session::listener_of`] and of [`Session::admitted`].
pub fn request(arguments: TcpInletCreate, session: &mut Session) -> Result<CreateTcpInlet, Error> {
    let typed = route(arguments.to, arguments.via)?;
    let resolved = plan::resolve(&typed, "--to", |name| session.listener_of(name)).map_err(|error| match error {
        // What an inlet leads to is an outlet.
        Error::BadArgument { argument, value, why, fix } => {
            Error::BadArgument { argument, value, why, fix: fix.replace("/service/echo", "/service/outlet") }
        }
        other => other,
    })?;
    let mut ends = resolved.ends;
    // What is at the end is the outlet, on the node that the last channel leads to.
    ends.pop();
    if ends.is_empty() && !arguments.trust.authorized.is_empty() {
        return Err(Error::BadArgument {
            argument: "--authorized".into(),
            value: texts(&arguments.trust.authorized).join(","),
            why: "is for the peer of a secure channel, and the route opens none".into(),
            fix: "Put one in front of the outlet, as in /node/n3/secure/api/service/outlet.".into(),
        });
    }
    let mut admitted = session.admitted(&ends, &arguments.trust.authorized)?;
    Ok(CreateTcpInlet {
        from: arguments.from.map_or_else(|| FROM_DEFAULT.to_owned(), |from| from.to_string()),
        to: resolved.multiaddr.to_string(),
        alias: arguments.alias,
        authorized: texts(&admitted.pop().unwrap_or_default()),
        authorized_on_the_way: admitted.iter().map(|each| texts(each)).collect(),
        identity: arguments.trust.identity,
        connection_wait_ms: arguments.connection_wait.as_millis() as u64,
        retry_wait_ms: arguments.retry_wait.as_millis() as u64,
        // Whether it is to be given up shows only to who waits.
        wait: !arguments.no_connection_wait || arguments.retry_wait.is_zero(),
        timeout_ms: arguments.timeout.as_millis() as u64,
    })
}

/// The route that `--to` and `--via` mean.
fn route(to: InletTo, via: Option<Via>) -> Result<MultiAddr, Error> {
    let service = match (to, &via) {
        (InletTo::Route(route), None) => return route.resolve("--to", stdin::read_line),
        (InletTo::Route(_), Some(via)) => {
            return Err(Error::BadArgument {
                argument: "--via".into(),
                value: via.relay.clone(),
                why: "is for the name of a service, and --to is a whole route".into(),
                fix: "Write --to outlet, or leave out --via.".into(),
            });
        }
        (InletTo::Service(service), _) => service,
    };
    let mut parts = Vec::new();
    if let Some(Via { relay, at }) = via {
        parts.extend(at.iter().flat_map(|at| at.protocols().iter().cloned()));
        parts.push(Protocol::Service(format!("forward_to_{relay}")));
        parts.push(Protocol::Secure("api".into()));
    }
    parts.push(Protocol::Service(service.clone()));
    MultiAddr::try_from(parts).map_err(|error| Error::BadArgument {
        argument: "--to".into(),
        value: service,
        why: format!("makes no route: {error}"),
        fix: "Write the whole route, such as /node/n3/secure/api/service/outlet.".into(),
    })
}

fn create(mut arguments: TcpInletCreate, session: &mut Session) -> Result<(), Error> {
    let (at, timeout, allow) = (arguments.at.at.take(), arguments.timeout, arguments.allow.take());
    // What is wrong with the route shows before a node is made for it.
    let mut request = request(arguments, session)?;
    let node = session.existing_or_created(at)?;
    let mut control = session.control(&node)?;
    let guarding = match allow {
        Some(allow) => {
            let there: Vec<TcpInletInfo> = control.get(path::TCP_INLETS)?;
            let alias =
                request.alias.get_or_insert_with(|| crate::home::NodeName::random().as_str().to_owned()).clone();
            // One that is there keeps its policy: to make it again is refused.
            let is_new = there.iter().all(|inlet| inlet.alias != alias);
            is_new.then(|| policy::guard(&mut control, ResourceType::TcpInlet, &alias, allow)).transpose()?
        }
        None => None,
    };
    let made = control.post_within::<TcpInletInfo>(path::TCP_INLETS, &request, timeout);
    let made = guarded(made, guarding, &mut control, session)?;
    note_down(&made, request.wait, session);
    let plain = || {
        let whom = made.identifier.as_ref().map_or(String::new(), |whom| format!("\nAt the other end is {whom}."));
        format!("{} leads to {}, as the inlet {} of {node}.{whom}", made.from, made.to, made.alias)
    };
    session.terminal.print(Output::new(&made, plain).machine(made.from.clone()))
}

/// Tells that an inlet that was waited for leads nowhere yet.
pub fn note_down(made: &TcpInletInfo, waited: bool, session: &Session) {
    let (alias, why) = (&made.alias, made.error.as_deref());
    match (made.status, why) {
        _ if !waited => {}
        (WayStatus::Down, why) => session.terminal.warn(format_args!(
            "the inlet {alias} does not reach its outlet yet: {}; it is tried again",
            why.unwrap_or("no answer")
        )),
        (WayStatus::Up, Some(why)) => {
            session.terminal.warn(format_args!("connections to the inlet {alias} would end at once: {why}"));
        }
        (WayStatus::Up, None) => {}
    }
}

fn delete(arguments: TcpInletDelete, session: &mut Session) -> Result<(), Error> {
    let TcpInletDelete { alias, at, all, yes } = arguments;
    let node = session.existing(at.at)?;
    let inlets: Vec<TcpInletInfo> = match &alias {
        Some(alias) => vec![session.control(&node)?.get(&item(path::TCP_INLETS, alias))?],
        None => session.control(&node)?.get(path::TCP_INLETS)?,
    };
    let aliases: Vec<&str> = inlets.iter().map(|inlet| inlet.alias.as_str()).collect();
    let connections: u64 = inlets.iter().map(|inlet| inlet.connections).sum();
    let question = format!("Close {} of {node}, and its {connections} connections?", aliases.join(", "));
    if !inlets.is_empty() && !session.terminal.confirm(yes, &question)? {
        return Ok(());
    }
    let mut gone: Vec<TcpInletInfo> = Vec::with_capacity(inlets.len());
    for alias in &aliases {
        gone.push(session.control(&node)?.delete(&item(path::TCP_INLETS, alias))?);
    }
    let plain = || match aliases.is_empty() {
        true => format!("The node {node} has no TCP inlets."),
        false => format!("The node {node} no longer has {}.", aliases.join(", ")),
    };
    let machine = aliases.join("\n");
    match (all, gone.as_slice()) {
        (false, [one]) => session.terminal.print(Output::new(one, plain).machine(machine)),
        (_, gone) => session.terminal.print(Output::new(&gone, plain).machine(machine)),
    }
}

fn inlets_table(inlets: &[TcpInletInfo], none: &str) -> String {
    let rows = inlets
        .iter()
        .map(|it| [it.alias.clone(), it.from.clone(), it.to.clone(), state(it), it.connections.to_string()]);
    table(["NAME", "FROM", "TO", "STATE", "CONNECTIONS"], rows, none)
}

/// How it is, and why not otherwise.
pub fn state(inlet: &TcpInletInfo) -> String {
    match &inlet.error {
        Some(why) => format!("{}: {why}", inlet.status.name()),
        None => inlet.status.name().into(),
    }
}

fn describe(it: &TcpInletInfo) -> String {
    let mut lines = vec![it.alias.clone()];
    let mut line = |name: &str, value: String| lines.push(format!("  {name:<12} {value}"));
    line("from", it.from.clone());
    line("to", it.to.clone());
    line("state", state(it));
    if let Some(identifier) = &it.identifier {
        line("peer", identifier.clone());
    }
    for identifier in &it.authorized {
        line("authorized", identifier.clone());
    }
    line("connections", it.connections.to_string());
    line(
        "while down",
        match it.connection_wait_ms {
            0 => "new connections are closed at once".into(),
            wait => format!("new connections wait up to {wait} ms"),
        },
    );
    line("repaired", format!("{} times", it.repaired));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::values::{inlet_to, via};

    #[test]
    fn a_service_is_of_this_node_or_behind_a_relay() {
        let meant = |to: &str, by: Option<&str>| {
            route(inlet_to(to).unwrap(), by.map(|by| via(by).unwrap())).map(|route| route.to_string())
        };
        for (to, by, want) in [
            ("/node/n2/service/outlet", None, "/node/n2/service/outlet"),
            ("outlet", None, "/service/outlet"),
            ("outlet", Some("far"), "/service/forward_to_far/secure/api/service/outlet"),
            ("outlet", Some("far@n2"), "/node/n2/service/forward_to_far/secure/api/service/outlet"),
            (
                "web",
                Some("far@/dnsaddr/relay.example/tcp/4000/secure/api"),
                "/dnsaddr/relay.example/tcp/4000/secure/api/service/forward_to_far/secure/api/service/web",
            ),
        ] {
            assert_eq!(meant(to, by).as_deref(), Ok(want), "{to} {by:?}");
        }
        assert_eq!(meant("/node/n2/service/outlet", Some("far")).unwrap_err().exit(), 64);
    }

    #[test]
    fn an_inlet_is_shown_with_both_its_ends() {
        let mut inlet = TcpInletInfo {
            alias: "web".into(),
            from: "127.0.0.1:8080".into(),
            to: "/ip4/10.0.0.7/tcp/4000/secure/api/service/outlet".into(),
            status: WayStatus::Down,
            error: Some("no answer".into()),
            identifier: Some("Iaa".into()),
            authorized: vec!["Iaa".into(), "Ibb".into()],
            connection_wait_ms: 5000,
            connections: 3,
            repaired: 2,
        };
        let text = describe(&inlet);
        for part in ["web\n", "127.0.0.1:8080", "/secure/api", "down: no answer", "Ibb", "5000 ms", "2 times"] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        (inlet.status, inlet.error, inlet.connection_wait_ms) = (WayStatus::Up, None, 0);
        assert!(describe(&inlet).contains("closed at once"));
        let table = inlets_table(&[inlet], "none");
        assert!(table.contains("web") && table.contains("up") && table.contains('3'), "{table}");
        assert_eq!(inlets_table(&[], "none"), "none");
    }
}
