//! `ockam message send`.

use super::{Session, texts};
use crate::api::{MessageBody, MessageReply, SendMessage, path};
use crate::cli::args::message::{MessageCommand, MessageSend};
use crate::cli::show::Output;
use crate::cli::{plan, stdin};
use crate::error::Error;
use crate::messenger;
use crate::text::{escape, from_hex, to_hex};
use ockam_wire::bare;
use serde::Serialize;

/// Runs a command.
///
/// # Errors
/// What the command says.
pub fn run(command: MessageCommand, session: &mut Session) -> Result<(), Error> {
    match command {
        MessageCommand::Send(arguments) => send(arguments, session),
    }
}

/// The result under `--output json`.
#[derive(Serialize)]
struct Reply {
    /// The route with names resolved.
    route: String,
    /// The payload as text; absent when it is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// The payload.
    hex: String,
}

fn send(arguments: MessageSend, session: &mut Session) -> Result<(), Error> {
    let MessageSend { message, to, from, identity, hex, timeout } = arguments;
    let bytes = match hex {
        true => Some(from_hex(&message).ok_or_else(|| Error::BadArgument {
            argument: "MESSAGE".into(),
            value: escape(message.as_bytes(), 64),
            why: "is not hexadecimal".into(),
            fix: "Write two digits from 0 to f for each byte, such as 00ff, or leave out --hex to send text.".into(),
        })?),
        false => None,
    };
    let from = from.map(|node| session.existing(Some(node))).transpose()?;
    let typed = to.resolve("--to", stdin::read_line)?;
    let plan::Resolved { multiaddr, route, mut ends } =
        plan::resolve(&typed, "--to", |name| session.listener_of(name))?;
    // What answers at the end need not be who the channels on the way lead to.
    ends.pop();
    let authorized = session.admitted(&ends, &[])?;

    let reply = match from {
        Some(node) => {
            let request = SendMessage {
                route: multiaddr.to_string(),
                authorized: authorized.iter().map(|each| texts(each)).collect(),
                identity,
                message: if hex { MessageBody::Hex(message) } else { MessageBody::Text(message) },
                timeout_ms: timeout.as_millis() as u64,
            };
            session.control(&node)?.post_within(path::MESSAGES, &request, timeout)?
        }
        None => {
            let payload = bytes.unwrap_or_else(|| {
                let mut string = Vec::with_capacity(message.len() + 10);
                bare::write_string(&message, &mut string);
                string
            });
            let mut party = match ends.is_empty() {
                true => None,
                false => Some(session.party(identity.as_deref(), authorized)?),
            };
            let payload = messenger::send(&route, &payload, party.as_mut(), timeout)?;
            MessageReply { text: messenger::text_of(&payload).map(str::to_owned), hex: to_hex(&payload) }
        }
    };

    let json = Reply { route: multiaddr.to_string(), text: reply.text.clone(), hex: reply.hex.clone() };
    let value = match reply.text {
        _ if hex => reply.hex,
        Some(text) => text,
        None if session.terminal.is_json() => String::new(),
        None => {
            return Err(Error::BadData {
                what: format!("the reply from {multiaddr}"),
                why: format!("it is not text: {}", escape(&from_hex(&reply.hex).unwrap_or_default(), 200)),
                fix: "Send again with --hex to see its bytes.".into(),
            });
        }
    };
    // What a stranger answered must not steer the terminal; a pipe gets it as it is.
    let shown = value.split('\n').map(printable).collect::<Vec<_>>().join("\n");
    session.terminal.print(Output::new(&json, move || shown).machine(value))
}

/// A line without characters that a terminal obeys.
fn printable(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    for part in line.split_inclusive(['\t', '\\']) {
        match part.strip_suffix(['\t', '\\']) {
            Some(text) => {
                shown.push_str(&escape(text.as_bytes(), usize::MAX));
                shown.push_str(&part[text.len()..]);
            }
            None => shown.push_str(&escape(part.as_bytes(), usize::MAX)),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn a_reply_does_not_steer_the_terminal() {
        assert_eq!(printable("a\tb\\c \u{e9}"), "a\tb\\c \u{e9}");
        assert_eq!(printable("\u{1b}[2J\r\u{7f}"), "\\x1b[2J\\x0d\\x7f");
    }
}
