//! `ockam tcp-listener`.

use super::Session;
use crate::api::{CreateTcpListener, TcpListenerInfo, path};
use crate::cli::args::tcp_listener::{TcpListenerArg, TcpListenerCommand};
use crate::cli::client::item;
use crate::cli::show::{Output, table};
use crate::error::Error;

/// Runs a command.
///
/// # Errors
/// What the command says.
pub fn run(command: TcpListenerCommand, session: &mut Session) -> Result<(), Error> {
    match command {
        TcpListenerCommand::Create(arguments) => {
            let node = session.existing_or_created(arguments.at.at)?;
            let request = CreateTcpListener { address: arguments.address.to_string() };
            let made: TcpListenerInfo = session.control(&node)?.post(path::TCP_LISTENERS, &request)?;
            let address = made.address.clone();
            let plain = || format!("The node {node} listens on {address} (flow control {}).", made.flow_control_id);
            session.terminal.print(Output::new(&made, plain).machine(made.address.clone()))
        }
        TcpListenerCommand::List(at) => {
            let node = session.existing(at.at)?;
            let listeners: Vec<TcpListenerInfo> = session.control(&node)?.get(path::TCP_LISTENERS)?;
            let plain = || {
                let rows = listeners.iter().map(|it| [it.address.clone(), state(it), it.flow_control_id.clone()]);
                table(["ADDRESS", "STATE", "FLOW CONTROL"], rows, &format!("The node {node} has no TCP listeners."))
            };
            session.terminal.print(Output::new(&listeners, plain))
        }
        TcpListenerCommand::Show(arguments) => {
            let (_, info) = find(arguments, session)?;
            session.terminal.print(Output::new(&info, || describe(&info)))
        }
        TcpListenerCommand::Delete(arguments) => {
            let (node, info) = find(arguments.what, session)?;
            if !session.terminal.confirm(arguments.yes, &format!("Stop listening on {} at {node}?", info.address))? {
                return Ok(());
            }
            let path = item(path::TCP_LISTENERS, &info.address);
            let gone: TcpListenerInfo = session.control(&node)?.delete(&path)?;
            let plain = || format!("The node {node} no longer listens on {}.", gone.address);
            session.terminal.print(Output::new(&gone, plain).machine(gone.address.clone()))
        }
    }
}

fn find(arguments: TcpListenerArg, session: &mut Session) -> Result<(crate::home::NodeName, TcpListenerInfo), Error> {
    let node = session.existing(arguments.at.at)?;
    let info = session.control(&node)?.get(&item(path::TCP_LISTENERS, &arguments.listener))?;
    Ok((node, info))
}

fn state(listener: &TcpListenerInfo) -> String {
    match &listener.error {
        _ if listener.up => "up".into(),
        Some(why) => format!("down: {why}"),
        None => "down".into(),
    }
}

fn describe(listener: &TcpListenerInfo) -> String {
    format!("{}\n  state         {}\n  flow control  {}", listener.address, state(listener), listener.flow_control_id)
}
