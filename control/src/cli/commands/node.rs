//! `ockam node`.

use super::apply::{self, Before, Differing, Text};
use super::engine::{brief_lines, duration};
use super::identity::date_time;
use super::{NodeIdentity, Session, relay, secure_channel, tcp_inlet, tcp_outlet};
use crate::api::{
    AuthorityInfo, EngineBrief, NodeInfo, NodeStatus, RelayInfo, SecureChannelInfo, SecureChannelListenerInfo,
    ServiceInfo, TcpInletInfo, TcpOutletInfo, path,
};
use crate::cli::args::LogFormat;
use crate::cli::args::node::{NodeArg, NodeCommand, NodeCreate, NodeDelete};
use crate::cli::client::{Control, control_pid};
use crate::cli::plan::dialable;
use crate::cli::show::{Output, table};
use crate::cli::values::NodeSource;
use crate::error::Error;
use crate::home::{NodeDir, NodeName};
use crate::node_file::{Kind, Plan, Step};
use crate::process::{ControlStart, control_process, stop};
use serde::Serialize;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Runs a command.
///
/// # Errors
/// What the command says.
pub fn run(command: NodeCommand, session: &mut Session) -> Result<(), Error> {
    match command {
        NodeCommand::Create(arguments) => create(*arguments, session),
        NodeCommand::List => list(session),
        NodeCommand::Show(argument) => show(argument, session),
        NodeCommand::Start(argument) => start(argument, session),
        NodeCommand::Stop(argument) => stop(argument, session),
        NodeCommand::Delete(arguments) => delete(arguments, session),
        NodeCommand::Logs(argument) => logs(argument, session),
        NodeCommand::Default(argument) => default(argument, session),
    }
}

fn create(arguments: NodeCreate, session: &mut Session) -> Result<(), Error> {
    let text = match (&arguments.configuration, &arguments.name) {
        (Some(_), Some(NodeSource::File(_) | NodeSource::Stdin)) => {
            return Err(Error::BadArgument {
                argument: "--configuration".into(),
                value: "...".into(),
                why: "is given beside a file".into(),
                fix: "Give one of them; beside --configuration stands the name of the node.".into(),
            });
        }
        (Some(text), _) => Some(Text::of_argument("--configuration", text.clone())),
        (None, Some(source @ (NodeSource::File(_) | NodeSource::Stdin))) => Some(Text::read(source)?),
        (None, _) => None,
    };
    session.log.json = arguments.log_format == Some(LogFormat::Json);
    match text {
        Some(text) => create_from(&text, arguments, session),
        None => create_as_typed(arguments, session),
    }
}

fn create_as_typed(arguments: NodeCreate, session: &mut Session) -> Result<(), Error> {
    if let Some(variable) = arguments.variable.first() {
        return Err(Error::BadArgument {
            argument: "--variable".into(),
            value: variable.name.clone(),
            why: "is for a file, and none is given".into(),
            fix: "Give a file in the place of NAME, or --configuration.".into(),
        });
    }
    let name = match &arguments.name {
        Some(NodeSource::Name(name)) => name.clone(),
        _ => session.unused_name()?,
    };
    let options = apply::options(&name, &arguments, session)?;
    if arguments.foreground {
        let start = ControlStart { create: Some(options), log: session.log.clone() };
        return control_process::run_in_foreground(session.home()?, &name, start, arguments.exit_on_eof, None);
    }
    let info = session.create(&name, options)?;
    print_created(session, &info, "Created")
}

/// Creates a node as a text says, or changes nothing where it is so already. What is typed beside it prevails.
fn create_from(text: &Text, typed: NodeCreate, session: &mut Session) -> Result<(), Error> {
    let mut plan = text.plan(Kind::Node, &typed.variable)?;
    let said = plan.nodes.pop().ok_or_else(|| Error::internal("a node file without a node"))?;
    let renamed = matches!(typed.name, Some(NodeSource::Name(_)));
    let from_stdin = typed.name == Some(NodeSource::Stdin);
    let mut wanted = typed.or(said.arguments);
    if renamed {
        plan.of_the_node();
    }
    let name = match &wanted.name {
        Some(NodeSource::Name(name)) => name.clone(),
        _ => session.unused_name()?,
    };
    wanted.name = Some(NodeSource::Name(name.clone()));
    session.log.json = wanted.log_format == Some(LogFormat::Json);
    if wanted.foreground {
        return stay_with(wanted, name, plan, from_stdin, session);
    }
    let differing = Differing::of(wanted.replace);
    plan.nodes.push(Step { place: said.place, arguments: wanted });
    let done = apply::apply(plan, differing, session)?;
    let done = match done.nodes() {
        [(_, Before::New)] => "Created",
        [(_, Before::Stopped)] => "Started",
        _ => "There is",
    };
    let info: NodeInfo = session.control(&name)?.get(path::NODE)?;
    print_created(session, &info, done)
}

/// Runs a node of a file inside this process. What the file adds is there before the node says that it is ready; if that
/// fails, the node ends, and one that is new is deleted.
fn stay_with(
    wanted: NodeCreate,
    name: NodeName,
    mut plan: Plan,
    from_stdin: bool,
    session: &mut Session,
) -> Result<(), Error> {
    if from_stdin && wanted.exit_on_eof {
        return Err(Error::BadArgument {
            argument: "--exit-on-eof".into(),
            value: "-".into(),
            why: "is the end of standard input, from which the file was read to its end".into(),
            fix: "Give the file by its name, or leave out --exit-on-eof.".into(),
        });
    }
    let was = apply::before(&name, session)?;
    // The engine of a headless one is adopted.
    if was == Before::Running && session.home()?.node(&name).status()? == NodeStatus::Running {
        return Err(Error::NodeRunning { name: name.to_string() });
    }
    apply::vaults_and_identities(&mut plan, session)?;
    let options = apply::options(&name, &wanted, session)?;
    let start = ControlStart { create: Some(options), log: session.log.clone() };
    let (terminal, log, added_to) = (session.terminal, session.log.clone(), name.clone());
    let differing = Differing::of(wanted.replace);
    // Until the node runs, what fails takes away by itself what it made; the name may be that of somebody else's node by now.
    let runs = Arc::new(AtomicBool::new(false));
    let begun = Arc::clone(&runs);
    let add = move || {
        begun.store(true, Ordering::Relaxed);
        apply::add(added_to, plan, differing, &mut Session::new(terminal, log))
    };
    let home = session.home()?.clone();
    let ran = control_process::run_in_foreground(&home, &name, start, wanted.exit_on_eof, Some(Box::new(add)));
    if ran.is_err()
        && runs.load(Ordering::Relaxed)
        && was == Before::New
        && let Err(error) = stop::delete(&home, &name)
    {
        session.terminal.warn(format_args!("the node {name} is left as it was made: {error}"));
    }
    ran
}

fn start(argument: NodeArg, session: &mut Session) -> Result<(), Error> {
    let name = session.existing(argument.node)?;
    let dir = session.required(&name)?;
    if let Some(mut control) = Control::connect(&dir)? {
        match control.get::<NodeInfo>(path::NODE) {
            Ok(info) => {
                session.terminal.note(format_args!("The node {name} is running already."));
                return print_created(session, &info, "There is");
            }
            // It was killed a moment ago, and took the connection down with it.
            Err(Error::ControlSilent { .. }) if ends_within(&dir, DYING_LIMIT)? => {}
            Err(error) => return Err(error),
        }
    }
    let info = session.start(&name)?;
    print_created(session, &info, "Started")
}

/// How long the end of a control that was killed may take.
const DYING_LIMIT: Duration = Duration::from_secs(2);

/// Whether the control of a node is gone, or is within `limit`.
fn ends_within(dir: &NodeDir, limit: Duration) -> Result<bool, Error> {
    let deadline = Instant::now() + limit;
    loop {
        match dir.status()? {
            NodeStatus::Running if Instant::now() >= deadline => return Ok(false),
            NodeStatus::Running => std::thread::sleep(Duration::from_millis(5)),
            _ => return Ok(true),
        }
    }
}

fn print_created(session: &mut Session, info: &NodeInfo, done: &str) -> Result<(), Error> {
    let terminal = session.terminal;
    // Only people and JSON are told whether it is the default node; a script that wants the name does not wait for it.
    let wants_all = terminal.stdout_is_terminal || terminal.is_json();
    let is_default = wants_all
        && session.store()?.map_or(Ok(None), |store| store.default_node())?.is_some_and(|it| it.as_str() == info.name);
    let identity = if wants_all { session.identity_of(&info.name.parse()?)? } else { None };
    let view = NodeView::running(info, is_default, identity);
    let plain = || {
        let default = if is_default { ", the default node" } else { "" };
        let addresses: Vec<&str> = info.tcp_listeners.iter().map(|it| it.address.as_str()).collect();
        format!(
            "{done} {}{default}. It listens on {}.\nTry: ockam message send hello --to /node/{}/service/uppercase",
            info.name,
            if addresses.is_empty() { "no TCP address".into() } else { addresses.join(", ") },
            info.name
        )
    };
    terminal.print(Output::new(&view, plain).machine(info.name.clone()))
}

/// One line of `node list`.
#[derive(Serialize)]
struct Listed {
    node_name: String,
    status: NodeStatus,
    pid: Option<u32>,
    is_default: bool,
    identity_name: Option<String>,
    identifier: Option<String>,
}

fn list(session: &mut Session) -> Result<(), Error> {
    let rows = match session.store()? {
        Some(store) => store.nodes()?,
        None => Vec::new(),
    };
    let mut nodes = Vec::with_capacity(rows.len());
    for row in rows {
        let dir = session.home()?.node(&row.name);
        let status = dir.status()?;
        let pid = if status == NodeStatus::Running { control_pid(&dir).unwrap_or(None) } else { None };
        let (identity_name, identifier) = match session.identity_of(&row.name) {
            Ok(identity) => split(identity),
            // It was deleted since the list was read.
            Err(Error::NoSuchNode { .. }) => continue,
            Err(error) => return Err(error),
        };
        nodes.push(Listed {
            node_name: row.name.to_string(),
            status,
            pid,
            is_default: row.is_default,
            identity_name,
            identifier,
        });
    }
    let plain = || {
        let rows = nodes.iter().map(|it| {
            let pid = it.pid.map_or("-".into(), |pid| pid.to_string());
            [
                it.node_name.clone(),
                it.status.name().into(),
                pid,
                if it.is_default { "yes".into() } else { String::new() },
                it.identity_name.clone().or_else(|| it.identifier.clone()).unwrap_or_else(|| "-".into()),
            ]
        });
        table(
            ["NAME", "STATUS", "PID", "DEFAULT", "IDENTITY"],
            rows,
            "There are no nodes. Make one with `ockam node create`.",
        )
    };
    session.terminal.print(Output::new(&nodes, plain))
}

/// A node under `--output json`: the shape of `node show`, whether the node runs or not.
#[derive(Serialize)]
struct NodeView<'a> {
    name: &'a str,
    is_default: bool,
    identity_name: Option<String>,
    identifier: Option<String>,
    status: NodeStatus,
    pid: Option<u32>,
    uptime_s: Option<u64>,
    version: Option<&'a str>,
    route: RouteView,
    transports: Vec<TransportView<'a>>,
    services: &'a [ServiceInfo],
    secure_channel_listeners: &'a [SecureChannelListenerInfo],
    secure_channels: Vec<SecureChannelInfo>,
    secure_channels_accepted: u64,
    inlets: &'a [TcpInletInfo],
    outlets: &'a [TcpOutletInfo],
    relays: &'a [RelayInfo],
    transit_rules: &'a [String],
    authority: Option<&'a AuthorityInfo>,
    engine: Option<&'a EngineBrief>,
    control_log: String,
    engine_log: String,
}

/// How routes name the node.
#[derive(Serialize)]
struct RouteView {
    /// By name, for commands of this home.
    short: String,
    /// By address, for everybody who can reach it.
    verbose: Option<String>,
}

/// A listener or a connection.
#[derive(Serialize)]
struct TransportView<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    mode: &'static str,
    socket_addr: &'a str,
    worker_addr: Option<&'a str>,
    flow_control_id: &'a str,
}

impl<'a> NodeView<'a> {
    fn running(info: &'a NodeInfo, is_default: bool, identity: Option<NodeIdentity>) -> NodeView<'a> {
        let (identity_name, identifier) = split(identity);
        let listeners = info.tcp_listeners.iter().map(|it| TransportView {
            kind: "TCP",
            mode: if it.up { "listening" } else { "down" },
            socket_addr: &it.address,
            worker_addr: None,
            flow_control_id: &it.flow_control_id,
        });
        let connections = info.tcp_connections.iter().map(|it| TransportView {
            kind: "TCP",
            mode: match it.origin {
                crate::api::ConnectionOrigin::Accepted => "accepted",
                crate::api::ConnectionOrigin::Dialed => "dialed",
                crate::api::ConnectionOrigin::Transit => "transit",
            },
            socket_addr: &it.to,
            worker_addr: Some(&it.address),
            flow_control_id: &it.flow_control_id,
        });
        NodeView {
            name: &info.name,
            is_default,
            identity_name,
            identifier: identifier.or_else(|| info.identifier.clone()),
            status: info.status,
            pid: Some(info.pid),
            uptime_s: Some(info.uptime_s),
            version: Some(&info.version),
            route: RouteView { short: format!("/node/{}", info.name), verbose: verbose_route(info) },
            transports: listeners.chain(connections).collect(),
            services: &info.services,
            secure_channel_listeners: &info.secure_channel_listeners,
            secure_channels: info.secure_channels.iter().cloned().map(secure_channel::as_route).collect(),
            secure_channels_accepted: info.secure_channels_accepted,
            inlets: &info.inlets,
            outlets: &info.outlets,
            relays: &info.relays,
            transit_rules: &info.transit_rules,
            authority: info.authority.as_ref(),
            engine: Some(&info.engine),
            control_log: info.control_log.clone(),
            engine_log: info.engine_log.clone(),
        }
    }

    fn without_control(
        dir: &'a NodeDir,
        is_default: bool,
        identity: Option<NodeIdentity>,
        status: NodeStatus,
    ) -> NodeView<'a> {
        let (identity_name, identifier) = split(identity);
        NodeView {
            name: dir.name().as_str(),
            is_default,
            identity_name,
            identifier,
            status,
            pid: None,
            uptime_s: None,
            version: None,
            route: RouteView { short: format!("/node/{}", dir.name()), verbose: None },
            transports: Vec::new(),
            services: &[],
            secure_channel_listeners: &[],
            secure_channels: Vec::new(),
            secure_channels_accepted: 0,
            inlets: &[],
            outlets: &[],
            relays: &[],
            transit_rules: &[],
            authority: None,
            engine: None,
            control_log: dir.control_log().display().to_string(),
            engine_log: dir.engine_log().display().to_string(),
        }
    }
}

/// Name and identifier, as far as they are known.
fn split(identity: Option<NodeIdentity>) -> (Option<String>, Option<String>) {
    identity.map_or((None, None), |identity| (identity.name, Some(identity.identifier)))
}

fn verbose_route(info: &NodeInfo) -> Option<String> {
    let listener: SocketAddr = info.tcp_listeners.iter().find(|it| it.up)?.address.parse().ok()?;
    let address = dialable(listener);
    let family = if address.is_ipv4() { "ip4" } else { "ip6" };
    Some(format!("/{family}/{}/tcp/{}", address.ip(), address.port()))
}

fn show(argument: NodeArg, session: &mut Session) -> Result<(), Error> {
    let name = session.existing(argument.node)?;
    let dir = session.required(&name)?;
    let is_default = session.store()?.map_or(Ok(None), |store| store.default_node())?.as_ref() == Some(&name);
    // To show a node changes nothing: a control that is missing stays missing.
    let info: Option<NodeInfo> = match Control::connect(&dir)? {
        Some(mut control) => Some(control.get(path::NODE)?),
        None => None,
    };
    let identity = session.identity_of(&name)?;
    match info {
        Some(info) => {
            let view = NodeView::running(&info, is_default, identity);
            session.terminal.print(Output::new(&view, || describe(&info, &view)))
        }
        None => {
            let view = NodeView::without_control(&dir, is_default, identity, dir.status()?);
            let plain = || {
                format!(
                    "{name}{}\n  status           {}\n  logs             {}\n\nStart it with `ockam node start {name}`.",
                    if is_default { " (default)" } else { "" },
                    view.status.name(),
                    dir.control_log().display()
                )
            };
            session.terminal.print(Output::new(&view, plain))
        }
    }
}

fn describe(info: &NodeInfo, view: &NodeView<'_>) -> String {
    let mut lines = vec![format!("{}{}", info.name, if view.is_default { " (default)" } else { "" })];
    let mut line = |name: &str, value: String| lines.push(format!("  {name:<17}{value}"));
    line("status", info.status.name().into());
    line("process", format!("{} (up {})", info.pid, duration(info.uptime_s)));
    line("version", info.version.clone());
    if let Some(identifier) = &view.identifier {
        let name = view.identity_name.as_ref().map_or(String::new(), |name| format!(" ({name})"));
        line("identity", format!("{identifier}{name}"));
    }
    line("route", verbose_route(info).unwrap_or_else(|| "none: it listens nowhere".into()));
    for listener in &info.tcp_listeners {
        let state = match &listener.error {
            _ if listener.up => String::new(),
            Some(why) => format!(" (down: {why})"),
            None => " (down)".into(),
        };
        line("listener", format!("{}{state}, flow control {}", listener.address, listener.flow_control_id));
    }
    for connection in &info.tcp_connections {
        line(
            "connection",
            format!("{} {} ({:?})", connection.address, connection.to, connection.origin).to_lowercase(),
        );
    }
    for service in &info.services {
        line("service", format!("/service/{} ({})", service.address, service.service.name()));
    }
    for listener in &info.secure_channel_listeners {
        let whom = if listener.authorized.is_empty() { "anyone".into() } else { listener.authorized.join(", ") };
        line("channel listener", format!("/service/{} for {whom}, {} open", listener.address, listener.channels));
    }
    for channel in &view.secure_channels {
        let state = secure_channel::state(channel);
        line("secure channel", format!("{} to {} ({state})", channel.address, channel.identifier));
    }
    for outlet in &info.outlets {
        line("outlet", format!("/service/{} to {} ({})", outlet.address, outlet.to, tcp_outlet::state(outlet)));
    }
    for inlet in &info.inlets {
        line("inlet", format!("{} at {} to {} ({})", inlet.alias, inlet.from, inlet.to, tcp_inlet::state(inlet)));
    }
    for it in &info.relays {
        line("relay", format!("{} as /service/{} ({})", it.name, it.address, relay::state(it)));
    }
    for rule in &info.transit_rules {
        line("transit", rule.clone());
    }
    if let Some(authority) = &info.authority {
        let state = match (&authority.error, authority.reachable) {
            (Some(why), _) => format!(" ({why})"),
            (None, true) => String::new(),
            (None, false) => " (not reached yet)".into(),
        };
        line("authority", format!("{} at {}{state}", authority.identifier, authority.route));
        line(
            "credential",
            match authority.credential_expires_at {
                Some(at) => format!("for {}, until {}", authority.scope, date_time(at)),
                None => format!("none yet for {}", authority.scope),
            },
        );
    }
    for (name, value) in brief_lines(&info.engine) {
        line(&format!("engine {name}"), value);
    }
    line("logs", info.control_log.clone());
    line("", info.engine_log.clone());
    lines.join("\n")
}

fn stop(argument: NodeArg, session: &mut Session) -> Result<(), Error> {
    let name = session.existing(argument.node)?;
    let dir = session.required(&name)?;
    let was = dir.status()?;
    stop::stop(&dir)?;
    let plain = || match was {
        NodeStatus::Stopped => format!("The node {name} was stopped already."),
        _ => format!("Stopped {name}."),
    };
    session.terminal.print(Output::new(&NameView { name: name.as_str() }, plain).machine(name.to_string()))
}

#[derive(Serialize)]
struct NameView<'a> {
    name: &'a str,
}

fn delete(arguments: NodeDelete, session: &mut Session) -> Result<(), Error> {
    let names: Vec<NodeName> = if arguments.all {
        session.store()?.map_or(Ok(Vec::new()), |store| store.nodes())?.into_iter().map(|node| node.name).collect()
    } else {
        let name = session.existing(arguments.node)?;
        session.required(&name)?;
        vec![name]
    };
    let list = names.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ");
    if !names.is_empty()
        && !session.terminal.confirm(arguments.yes, &format!("Delete {list} and all that is stored?"))?
    {
        return Ok(());
    }
    for name in &names {
        stop::delete(session.home()?, name)?;
    }
    let plain = || if names.is_empty() { "There are no nodes.".into() } else { format!("Deleted {list}.") };
    let views: Vec<NameView> = names.iter().map(|name| NameView { name: name.as_str() }).collect();
    let machine = names.iter().map(NodeName::as_str).collect::<Vec<_>>().join("\n");
    match (arguments.all, views.as_slice()) {
        (false, [view]) => session.terminal.print(Output::new(view, plain).machine(machine)),
        (_, views) => session.terminal.print(Output::new(&views, plain).machine(machine)),
    }
}

fn logs(argument: NodeArg, session: &mut Session) -> Result<(), Error> {
    #[derive(Serialize)]
    struct Logs {
        path: String,
        engine_path: String,
    }
    let name = session.existing(argument.node)?;
    let dir = session.required(&name)?;
    let path = |path: PathBuf| path.display().to_string();
    let logs = Logs { path: path(dir.control_log()), engine_path: path(dir.engine_log()) };
    session.terminal.print(Output::new(&logs, || logs.path.clone()).machine(logs.path.clone()))
}

fn default(argument: NodeArg, session: &mut Session) -> Result<(), Error> {
    let chosen = argument.node.is_some();
    let name = session.existing(argument.node)?;
    session.required(&name)?;
    if chosen && let Some(mut store) = session.store()? {
        store.set_default(&name)?;
    }
    let plain = || if chosen { format!("The default node is now {name}.") } else { name.to_string() };
    session.terminal.print(Output::new(&NameView { name: name.as_str() }, plain).machine(name.to_string()))
}
