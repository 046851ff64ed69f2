//! `ockam secure-channel-listener`.

use super::{Session, texts};
use crate::api::{CreateSecureChannelListener, SecureChannelListenerInfo, path};
use crate::cli::args::secure_channel_listener::{SecureChannelListenerArg, SecureChannelListenerCommand};
use crate::cli::client::item;
use crate::cli::show::{Output, table};
use crate::error::Error;
use crate::home::NodeName;

/// Runs a command.
///
/// # Errors
/// What the command says.
pub fn run(command: SecureChannelListenerCommand, session: &mut Session) -> Result<(), Error> {
    match command {
        SecureChannelListenerCommand::Create(arguments) => {
            let node = session.existing_or_created(arguments.at.at)?;
            let request = CreateSecureChannelListener {
                address: arguments.address,
                authorized: texts(&arguments.trust.authorized),
                identity: arguments.trust.identity,
            };
            let made: SecureChannelListenerInfo =
                session.control(&node)?.post(path::SECURE_CHANNEL_LISTENERS, &request)?;
            let address = format!("/service/{}", made.address);
            let plain = || format!("The node {node} accepts secure channels of {} at {address}.", who(&made));
            session.terminal.print(Output::new(&made, plain).machine(address.clone()))
        }
        SecureChannelListenerCommand::List(at) => {
            let node = session.existing(at.at)?;
            let listeners: Vec<SecureChannelListenerInfo> =
                session.control(&node)?.get(path::SECURE_CHANNEL_LISTENERS)?;
            let plain = || {
                let rows = listeners.iter().map(|it| {
                    [format!("/service/{}", it.address), who(it), it.channels.to_string(), it.half_open.to_string()]
                });
                let none = format!("The node {node} accepts no secure channels.");
                table(["ADDRESS", "AUTHORIZED", "CHANNELS", "HALF OPEN"], rows, &none)
            };
            session.terminal.print(Output::new(&listeners, plain))
        }
        SecureChannelListenerCommand::Show(arguments) => {
            let (_, info) = find(arguments, session)?;
            session.terminal.print(Output::new(&info, || describe(&info)))
        }
        SecureChannelListenerCommand::Delete(arguments) => {
            let (node, info) = find(arguments.what, session)?;
            let question = format!(
                "Accept no more secure channels at /service/{} of {node}, and close the {} accepted there?",
                info.address, info.channels
            );
            if !session.terminal.confirm(arguments.yes, &question)? {
                return Ok(());
            }
            let path = item(path::SECURE_CHANNEL_LISTENERS, &info.address);
            let gone: SecureChannelListenerInfo = session.control(&node)?.delete(&path)?;
            let address = format!("/service/{}", gone.address);
            let plain = || format!("The node {node} no longer accepts secure channels at {address}.");
            session.terminal.print(Output::new(&gone, plain).machine(address.clone()))
        }
    }
}

fn find(
    arguments: SecureChannelListenerArg,
    session: &mut Session,
) -> Result<(NodeName, SecureChannelListenerInfo), Error> {
    let node = session.existing(arguments.at.at)?;
    let info = session.control(&node)?.get(&item(path::SECURE_CHANNEL_LISTENERS, &arguments.address))?;
    Ok((node, info))
}

/// Whom it accepts.
fn who(listener: &SecureChannelListenerInfo) -> String {
    match listener.authorized.as_slice() {
        [] => "anyone".into(),
        [one] => one.clone(),
        many => format!("{} identities", many.len()),
    }
}

fn describe(it: &SecureChannelListenerInfo) -> String {
    let mut lines = vec![format!("/service/{}", it.address)];
    let mut line = |name: &str, value: String| lines.push(format!("  {name:<13} {value}"));
    line("identity", it.identifier.clone().unwrap_or_else(|| "that of the node, not needed yet".into()));
    if it.authorized.is_empty() {
        line("authorized", "anyone".into());
    }
    for identifier in &it.authorized {
        line("authorized", identifier.clone());
    }
    line("flow control", it.flow_control_id.clone());
    line("channels", format!("{} open, {} accepted", it.channels, it.accepted));
    line("handshakes", format!("{} under way, {} given up for others", it.half_open, it.shed));
    for (reason, count) in &it.refused {
        line("refused", format!("{count} {}", reason.replace('_', " ")));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_shown_with_whom_it_accepts() {
        let mut listener = SecureChannelListenerInfo {
            address: "friends".into(),
            flow_control_id: "00".into(),
            identifier: Some("Iaa".into()),
            authorized: vec![],
            channels: 2,
            half_open: 1,
            accepted: 7,
            shed: 3,
            refused: [("not_authorized".to_owned(), 4)].into(),
        };
        let text = describe(&listener);
        for part in ["/service/friends\n", "Iaa", "anyone", "2 open, 7 accepted", "3 given up", "4 not authorized"] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        listener.authorized = vec!["Ibb".into(), "Icc".into()];
        let text = describe(&listener);
        assert!(text.contains("Ibb") && text.contains("Icc") && !text.contains("anyone"), "{text}");
        assert_eq!(who(&listener), "2 identities");
    }
}
