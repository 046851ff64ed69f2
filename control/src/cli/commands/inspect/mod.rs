//! `ockam inspect`: what somebody handed over, readable, and whether it is true.
//!
//! What a thing is follows from its first bytes ([`Kind`]). It is verified with what is at hand: the histories that this
//! home knows, or the one of `--verify-with`; and what could not be verified is said, with the reason.

mod credential;
mod handshake_payload;
mod identity;
mod judge;
mod project;
mod purpose_key;
mod revocation_list;
mod ticket;

use super::Session;
use super::credential::{history_of, unix_now};
use crate::cli::args::inspect::Inspect;
use crate::cli::input;
use crate::cli::show::Output;
use crate::error::Error;
use crate::identities::Identities;
use crate::projects::Project;
use crate::text::{escape, from_hex};
use judge::{Judge, Verification, bad};
use minicbor::Decoder;
use minicbor::data::Type;
use ockam_crypto::{ChangeHistory, REVOCATION_LIST_MAX};
use serde::Serialize;
use std::path::Path;
use zeroize::Zeroizing;

/// Room for the largest thing there is, in hexadecimal digits with white space around them.
const INPUT_BYTES_MAX: usize = 2 * REVOCATION_LIST_MAX + 1024;

/// Runs the command.
///
/// # Errors
/// [`Error::BadData`] for what is nothing that can be shown; [`Error::NotVerified`] when it is to be verified with a given
/// history and is not true.
pub fn run(arguments: &Inspect, session: &mut Session) -> Result<(), Error> {
    let with = match &arguments.verify_with {
        Some(identity) => Some(history_of(identity, "--verify-with", session)?),
        None => None,
    };
    let identities = Identities::open_existing(session.home()?)?;
    let judge = Judge { with, identities, now: unix_now(), show_secret: arguments.show_secret };
    let view = match given(&arguments.thing, judge.identities.as_ref())? {
        Given::Bytes(bytes) => inspect(&bytes, &judge)?,
        Given::Identity(history) => View::Identity(judge.identity(history, judge.with.as_ref())?),
    };
    if let (View::Ticket(_), false) = (&view, is_place(&arguments.thing)) {
        session
            .terminal
            .warn("whoever sees the arguments of this command can redeem that ticket; name a file, or pipe it");
    }
    let (what, verification) = (view.what(), view.verification().clone());
    let plain = || view.lines().join("\n");
    session.terminal.print(Output::new(&view, plain))?;
    match verification {
        Verification::Verified { .. } => Ok(()),
        Verification::Refused { why } | Verification::Unknown { why } if judge.with.is_some() => {
            Err(Error::NotVerified { what, why })
        }
        _ => Ok(()),
    }
}

/// What an argument stands for.
enum Given {
    /// As they were given; a ticket is a secret.
    Bytes(Zeroizing<Vec<u8>>),
    Identity(ChangeHistory),
}

/// Whether an argument says where the thing is, and is not itself the thing.
fn is_place(argument: &str) -> bool {
    argument == "-" || Path::new(argument).exists()
}

/// A literal, a file, `-` for stdin, or the name of an identity.
fn given(argument: &str, identities: Option<&Identities>) -> Result<Given, Error> {
    if is_place(argument) {
        let read = input::read(Path::new(argument), "something to inspect", INPUT_BYTES_MAX)?;
        return Ok(Given::Bytes(Zeroizing::new(read)));
    }
    if let Some(identities) = identities
        && let Ok(known) = identities.find(Some(argument))
        && let Some(history) = identities.known(&known.identifier)?
    {
        return Ok(Given::Identity(history));
    }
    // A literal is long, or begins like nothing else.
    if from_hex(argument.trim()).is_some_and(|bytes| !bytes.is_empty()) || argument.contains(['{', ',']) {
        return Ok(Given::Bytes(Zeroizing::new(argument.as_bytes().to_vec())));
    }
    Err(Error::InputMissing {
        what: format!("a file or an identity that is called {:?}", escape(argument.as_bytes(), 100)),
        fix: "Name a file, pipe it into `ockam inspect -`, give hexadecimal digits, or see `ockam identity list`."
            .into(),
    })
}

/// What bytes are, by their beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    History,
    Change,
    Attestation,
    Credential,
    CredentialAlone,
    RevocationList,
    Payload,
}

impl Kind {
    /// Every signed thing begins with an array and, some arrays deeper, the bytes that were signed, which say their type
    /// (`wire.md` C.1).
    fn of(bytes: &[u8]) -> Option<Kind> {
        let mut input = Decoder::new(bytes);
        let mut depth = 0;
        while matches!(input.datatype().ok()?, Type::Array | Type::ArrayIndef) && depth < 4 {
            input.array().ok()?;
            depth += 1;
        }
        let mut signed = Decoder::new(input.bytes().ok()?);
        signed.array().ok()?;
        signed.u8().ok()?;
        match (depth, signed.u8().ok()?) {
            (1, 1) => Some(Kind::Change),
            (2, 1) => Some(Kind::History),
            (3, 1) => Some(Kind::Payload),
            (1, 2) => Some(Kind::Attestation),
            (1, 3) => Some(Kind::CredentialAlone),
            (2, 3) => Some(Kind::Credential),
            (2, 64) => Some(Kind::RevocationList),
            _ => None,
        }
    }
}

/// Bytes as they are or as hexadecimal digits; text of a ticket or a project.
fn inspect(given: &[u8], judge: &Judge) -> Result<View, Error> {
    let text = str::from_utf8(given).map(str::trim).ok();
    let digits = text.and_then(from_hex).map(Zeroizing::new);
    let bytes = digits.as_ref().map_or(given, |digits| digits.as_slice());
    if let (None, Some(text), Ok(content)) = (Kind::of(bytes), text, str::from_utf8(bytes).map(str::trim)) {
        return match content {
            json if json.starts_with('{') && !json.contains("\"one_time_code\"") => {
                Ok(View::Project(judge.project(&Project::from_json(json)?)))
            }
            ticket if ticket.starts_with('{') || (ticket.starts_with('/') && ticket.contains(',')) => {
                Ok(View::Ticket(judge.ticket(text)?))
            }
            _ => Err(nothing_known()),
        };
    }
    match Kind::of(bytes) {
        Some(Kind::History) => {
            let history = ChangeHistory::verify(bytes).map_err(|error| bad("the history of an identity", error))?;
            Ok(View::Identity(judge.identity(history, judge.with.as_ref())?))
        }
        Some(Kind::Attestation) => Ok(View::PurposeKey(judge.purpose_key(bytes, None)?)),
        Some(Kind::Credential) => Ok(View::Credential(judge.credential(bytes)?)),
        Some(Kind::RevocationList) => Ok(View::RevocationList(judge.revocation_list(bytes)?)),
        Some(Kind::Payload) => Ok(View::HandshakePayload(judge.handshake_payload(bytes)?)),
        Some(Kind::Change) => Err(bad("one change of an identity", "it says nothing without the changes before it")),
        Some(Kind::CredentialAlone) => Err(bad(
            "the credential",
            "the attestation of its issuer's key is missing, without which nobody believes it",
        )),
        None => Err(nothing_known()),
    }
}

fn nothing_known() -> Error {
    Error::BadData {
        what: "what was given".into(),
        why: "it is no identity, purpose key, credential, revocation list, ticket or project".into(),
        fix: "Give what another command prints, in hexadecimal or as it is.".into(),
    }
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum View {
    Identity(identity::IdentityView),
    PurposeKey(purpose_key::PurposeKeyView),
    Credential(credential::CredentialView),
    RevocationList(revocation_list::RevocationListView),
    HandshakePayload(handshake_payload::PayloadView),
    Ticket(ticket::TicketView),
    Project(project::ProjectView),
}

impl View {
    fn what(&self) -> &'static str {
        match self {
            View::Identity(_) => "identity",
            View::PurposeKey(_) => "purpose key",
            View::Credential(_) => "credential",
            View::RevocationList(_) => "revocation list",
            View::HandshakePayload(_) => "handshake payload",
            View::Ticket(_) => "ticket",
            View::Project(_) => "project",
        }
    }

    fn verification(&self) -> &Verification {
        match self {
            View::Identity(view) => &view.verification,
            View::PurposeKey(view) => &view.verification,
            View::Credential(view) => &view.verification,
            View::RevocationList(view) => &view.verification,
            View::HandshakePayload(view) => &view.verification,
            View::Ticket(view) => &view.verification,
            View::Project(view) => &view.verification,
        }
    }

    fn lines(&self) -> Vec<String> {
        match self {
            View::Identity(view) => view.lines(),
            View::PurposeKey(view) => view.lines(),
            View::Credential(view) => view.lines(),
            View::RevocationList(view) => view.lines(),
            View::HandshakePayload(view) => view.lines(),
            View::Ticket(view) => view.lines(),
            View::Project(view) => view.lines("A project"),
        }
    }
}

#[cfg(test)]
mod tests;
