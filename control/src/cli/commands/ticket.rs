//! `ockam ticket`, and where tickets come from.

use super::Session;
use super::project::{asked, attributes_of};
use crate::authority::bodies::CreateToken;
use crate::cli::args::ticket::{TicketCommand, TicketCreate};
use crate::cli::input;
use crate::cli::show::Output;
use crate::cli::values::TicketArg;
use crate::error::Error;
use crate::projects::client::AuthorityClient;
use crate::projects::{TICKET_BYTES_MAX, Ticket};
use serde::Serialize;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Says where a ticket is, or is one: for containers.
pub const VARIABLE: &str = "ENROLLMENT_TICKET";

/// The attribute that lets a member use the project's certificate for TLS (`wire.md` D.5).
const TLS_ATTRIBUTE: &str = "ockam-tls-certificate";

/// Runs a command.
///
/// # Errors
/// What the command says.
pub fn run(command: TicketCommand, session: &mut Session) -> Result<(), Error> {
    match command {
        TicketCommand::Create(arguments) => create(arguments, session),
    }
}

/// Makes a ticket.
///
/// # Errors
/// What the authority says; a file that is there already.
pub fn create(arguments: TicketCreate, session: &mut Session) -> Result<(), Error> {
    let mut attributes = attributes_of(arguments.attributes)?;
    if arguments.tls {
        attributes.insert(TLS_ATTRIBUTE.into(), "true".into());
    }
    // A code that nobody can be told is not asked for.
    let file = arguments.file.map(|path| create_file(&path).map(|file| (file, path))).transpose()?;
    let made = make(arguments.asking, attributes, arguments.expires_in.as_secs(), arguments.usage_count, session);
    let ticket = match (made, &file) {
        (Ok(ticket), _) => ticket,
        (Err(error), Some((_, path))) => {
            // It is empty and of no use; that it stays is less important than why.
            let _ = std::fs::remove_file(path);
            return Err(error);
        }
        (Err(error), None) => return Err(error),
    };
    let text = ticket.encode();
    let view = TicketView {
        project: &ticket.project.name,
        project_id: &ticket.project.id,
        expires_in_s: arguments.expires_in.as_secs(),
        usage_count: arguments.usage_count,
        file: file.as_ref().map(|(_, path)| path.display().to_string()),
        ticket: file.is_none().then_some(&*text),
    };
    let Some((mut file, path)) = file else {
        let plain = || text.to_string();
        return session.terminal.print(Output::new(&view, plain).machine(text.as_str()));
    };
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.map_err(|error| Error::Io {
        what: format!("cannot write the ticket to {}", path.display()),
        errno: error.raw_os_error().unwrap_or(0),
    })?;
    let shown = path.display().to_string();
    let plain = || {
        let uses = if view.usage_count == 1 { "once".into() } else { format!("{} times", view.usage_count) };
        format!(
            "The ticket in {shown} can be used {uses}, within {} seconds.\nTry: ockam enroll {shown}",
            view.expires_in_s
        )
    };
    session.terminal.print(Output::new(&view, plain).machine(shown.clone()))
}

#[derive(Serialize)]
struct TicketView<'a> {
    project: &'a str,
    project_id: &'a str,
    expires_in_s: u64,
    usage_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ticket: Option<&'a str>,
}

fn create_file(path: &Path) -> Result<std::fs::File, Error> {
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    created.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Error::NameTaken { what: "a file", name: path.display().to_string() },
        _ => Error::Io {
            what: format!("cannot make the file {}", path.display()),
            errno: error.raw_os_error().unwrap_or(0),
        },
    })
}

fn make(
    asking: crate::cli::args::shared::Asking,
    attributes: std::collections::BTreeMap<String, String>,
    ttl_secs: u64,
    ttl_count: u64,
    session: &mut Session,
) -> Result<Ticket, Error> {
    let (project, party, timeout) = asked(asking, session)?;
    let token = CreateToken { attributes, ttl_secs: Some(ttl_secs), ttl_count: Some(ttl_count) };
    let mut client = AuthorityClient::new(project.clone(), party, timeout)?;
    let code = client.create_token(&token)?;
    // Who comes with it shall recognise an authority that has another key by now.
    let authority = client.authority()?;
    Ok(Ticket { code, project: crate::projects::Project { authority, ..project } })
}

/// The ticket that was given, or that the environment has; `None` when there is neither.
///
/// # Errors
/// It cannot be read, or is none.
pub fn given(typed: Option<&TicketArg>, session: &Session) -> Result<Option<Ticket>, Error> {
    if let Some(TicketArg { text, is_typed }) = typed {
        let (ticket, is_literal) = read(text)?;
        if is_literal && *is_typed {
            session.terminal.warn(
                "a ticket on the command line can be seen by everybody on this machine, and stays in the history of the shell; \
                 give a file, or `-` for stdin",
            );
        }
        return Ok(Some(ticket));
    }
    match std::env::var(VARIABLE) {
        Ok(text) if !text.trim().is_empty() => read(&Zeroizing::new(text)).map(|(ticket, _)| Some(ticket)),
        Ok(_) | Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(Error::BadData {
            what: format!("the variable {VARIABLE}"),
            why: "it is not UTF-8".into(),
            fix: "Set it to the name of a file with a ticket, or to the ticket.".into(),
        }),
    }
}

/// Reads a file, stdin, or the text itself. Says whether it was that.
fn read(text: &Zeroizing<String>) -> Result<(Ticket, bool), Error> {
    let text = text.trim();
    let path = PathBuf::from(text);
    if text != "-" && !path.exists() {
        return match Ticket::decode(text) {
            Ok(ticket) => Ok((ticket, true)),
            // What could be a name is one.
            Err(_) if text.len() <= 255 && !text.starts_with('{') => Err(Error::InputMissing {
                what: format!("the file {} with a ticket", crate::text::escape(text.as_bytes(), 255)),
                fix: "Check its path; or pipe the ticket into the command, and write `-` here.".into(),
            }),
            Err(error) => Err(error),
        };
    }
    let bytes = Zeroizing::new(input::read(&path, "a ticket", TICKET_BYTES_MAX)?);
    let content = str::from_utf8(&bytes).map_err(|_| Error::BadData {
        what: "the ticket".into(),
        why: "it is not text".into(),
        fix: "Use all of what `ockam ticket create` prints, on one line.".into(),
    })?;
    Ok((Ticket::decode(content)?, false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::bodies::OneTimeCode;
    use crate::projects::tests::project;

    #[test]
    fn a_ticket_is_a_file_or_itself() {
        let ticket = Ticket { code: OneTimeCode(Zeroizing::new([7; 32])), project: project("1", "one", 1) };
        let text = ticket.encode();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bob.ticket");
        let mut file = create_file(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        assert!(matches!(create_file(&path), Err(Error::NameTaken { .. })));
        let mode = std::os::unix::fs::MetadataExt::mode(&file.metadata().unwrap());
        assert_eq!(mode & 0o7777, 0o600);
        let of = |text: &str| read(&Zeroizing::new(text.to_owned()));
        assert_eq!(of(path.to_str().unwrap()), Ok((ticket.clone(), false)));
        assert_eq!(of(&text), Ok((ticket, true)));
        assert_eq!(of("nowhere.ticket").unwrap_err().exit(), 66);
        assert_eq!(of(&text[2..]).unwrap_err().exit(), 65);
        assert_eq!(of(directory.path().to_str().unwrap()).unwrap_err().exit(), 74);
        std::fs::write(&path, b"\xff\xfe").unwrap();
        assert_eq!(of(path.to_str().unwrap()).unwrap_err().exit(), 65);
    }
}
