//! `ockam tcp-connection`.

use super::Session;
use crate::api::{CreateTcpConnection, TcpConnectionInfo, path};
use crate::cli::args::tcp_connection::{TcpConnectionArg, TcpConnectionCommand};
use crate::cli::client::item;
use crate::cli::show::{Output, bytes, table};
use crate::error::Error;
use crate::home::NodeName;

/// Runs a command.
///
/// # Errors
/// What the command says.
pub fn run(command: TcpConnectionCommand, session: &mut Session) -> Result<(), Error> {
    match command {
        TcpConnectionCommand::Create(arguments) => {
            let node = session.existing_or_created(arguments.from)?;
            let request = CreateTcpConnection { to: arguments.to.to_string() };
            let made: TcpConnectionInfo = session.control(&node)?.post(path::TCP_CONNECTIONS, &request)?;
            let plain = || {
                format!(
                    "The node {node} is connected to {}.\nSend over it with {}/service/NAME.",
                    made.to, made.address
                )
            };
            session.terminal.print(Output::new(&made, plain).machine(made.address.clone()))
        }
        TcpConnectionCommand::List(at) => {
            let node = session.existing(at.at)?;
            let connections: Vec<TcpConnectionInfo> = session.control(&node)?.get(path::TCP_CONNECTIONS)?;
            let plain = || connections_table(&connections, &format!("The node {node} has no TCP connections."));
            session.terminal.print(Output::new(&connections, plain))
        }
        TcpConnectionCommand::Show(arguments) => {
            let (_, info) = find(arguments, session)?;
            session.terminal.print(Output::new(&info, || describe(&info)))
        }
        TcpConnectionCommand::Delete(arguments) => {
            let (node, info) = find(arguments.what, session)?;
            if !session.terminal.confirm(arguments.yes, &format!("Close the connection of {node} to {}?", info.to))? {
                return Ok(());
            }
            let path = item(path::TCP_CONNECTIONS, &info.address);
            let gone: TcpConnectionInfo = session.control(&node)?.delete(&path)?;
            let plain = || format!("The connection of {node} to {} is closed.", gone.to);
            session.terminal.print(Output::new(&gone, plain).machine(gone.address.clone()))
        }
    }
}

fn find(arguments: TcpConnectionArg, session: &mut Session) -> Result<(NodeName, TcpConnectionInfo), Error> {
    let node = session.existing(arguments.at.at)?;
    let info = session.control(&node)?.get(&item(path::TCP_CONNECTIONS, &arguments.connection))?;
    Ok((node, info))
}

/// Connections for people.
pub fn connections_table(connections: &[TcpConnectionInfo], none: &str) -> String {
    let rows = connections.iter().map(|it| {
        [
            it.address.clone(),
            it.to.clone(),
            format!("{:?}", it.origin).to_lowercase(),
            format!("{} / {}", it.frames_in, it.frames_out),
            format!("{} / {}", bytes(it.bytes_in), bytes(it.bytes_out)),
        ]
    });
    table(["ADDRESS", "PEER", "ORIGIN", "FRAMES IN / OUT", "BYTES IN / OUT"], rows, none)
}

fn describe(it: &TcpConnectionInfo) -> String {
    let mut lines = vec![it.address.clone()];
    for (name, value) in [
        ("peer", it.to.clone()),
        ("local", it.local.clone()),
        ("origin", format!("{:?}", it.origin).to_lowercase()),
        ("flow control", it.flow_control_id.clone()),
        ("received", format!("{} frames, {}", it.frames_in, bytes(it.bytes_in))),
        ("sent", format!("{} frames, {}", it.frames_out, bytes(it.bytes_out))),
        ("waiting", bytes(it.queued_bytes)),
    ] {
        lines.push(format!("  {name:<13} {value}"));
    }
    lines.join("\n")
}
