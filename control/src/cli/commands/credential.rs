//! `ockam credential`.

use super::Session;
use super::identity::date_time;
use crate::api::{CredentialInfo, StoreCredential, path};
use crate::cli::args::credential::{
    CredentialBy, CredentialCommand, CredentialDelete, CredentialEncoding, CredentialIssue, CredentialList,
    CredentialShow, CredentialSource, CredentialStore, CredentialVerify,
};
use crate::cli::client::query;
use crate::cli::input;
use crate::cli::show::{Output, table};
use crate::cli::values::IdentityOrHistory;
use crate::error::Error;
use crate::identities::Identities;
use crate::text::{escape, from_hex, to_hex};
use ockam_crypto::{
    ATTRIBUTE_VALUE_MAX, Attributes, CREDENTIAL_MAX, ChangeHistory, Credential, CredentialError, Identifier,
    PROJECT_MEMBER_SCHEMA,
};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// Runs a command.
///
/// # Errors
/// What the command says.
pub fn run(command: CredentialCommand, session: &mut Session) -> Result<(), Error> {
    match command {
        CredentialCommand::Issue(arguments) => issue(&arguments, session),
        CredentialCommand::Verify(arguments) => verify(&arguments, session),
        CredentialCommand::Store(arguments) => store(arguments, session),
        CredentialCommand::List(arguments) => list(arguments, session),
        CredentialCommand::Show(arguments) => show(arguments, session),
        CredentialCommand::Delete(arguments) => delete(arguments, session),
    }
}

fn issue(arguments: &CredentialIssue, session: &mut Session) -> Result<(), Error> {
    let mut identities = Identities::open_existing(session.home()?)?.ok_or(Error::NoIdentities)?;
    let issuer = identities.named(arguments.issuer.as_deref())?;
    if let Some(vault) = arguments.vault.as_ref().filter(|vault| **vault != issuer.vault) {
        return Err(Error::BadArgument {
            argument: "--vault".into(),
            value: vault.clone(),
            why: format!("is not where the key of the identity {} is", issuer.name),
            fix: format!("Leave it out: the key is in the vault {}.", issuer.vault),
        });
    }
    let subject = subject(&identities, &arguments.subject)?;
    let mut attributes = Attributes::new();
    for attribute in &arguments.attributes {
        let added = attributes.insert(attribute.name.as_str(), attribute.value.as_str());
        added.map_err(|error| Error::BadArgument {
            argument: "--attribute".into(),
            value: attribute.name.clone(),
            why: format!("cannot be added: {error}"),
            fix: "Give each attribute once, and fewer of them.".into(),
        })?;
    }
    let now = unix_now();
    let keys = identities.issuing_keys(&issuer.identifier, now)?;
    let latest_change = identities.known(&subject)?.map(|history| history.latest().hash);
    let expires_at = now + arguments.ttl.as_secs();
    let credential =
        Credential::issue(&keys.issuer, subject, latest_change, PROJECT_MEMBER_SCHEMA, &attributes, now, expires_at)
            .map_err(Error::Credential)?;
    let view = CredentialView::of(&credential);
    let hex = to_hex(credential.encoded());
    let plain = || match arguments.encoding {
        CredentialEncoding::Plain => view.lines().join("\n"),
        CredentialEncoding::Hex => hex.clone(),
    };
    session.terminal.print(Output::new(&view, plain).machine(hex.clone()))
}

fn verify(arguments: &CredentialVerify, session: &mut Session) -> Result<(), Error> {
    let (encoded, issuer) = read(&arguments.credential, session)?;
    let expected = match &arguments.subject {
        Some(name) => Some(match name.parse() {
            Ok(identifier) => identifier,
            Err(_) => subject(&existing(session)?, name)?,
        }),
        None => None,
    };
    match verified(&encoded, expected, &issuer, unix_now()) {
        Ok(credential) => {
            let view = Verified { is_valid: true, why: None, credential: Some(CredentialView::of(&credential)) };
            let plain = || {
                let mut lines = vec!["The credential is valid.".to_owned()];
                lines.extend(view.credential.iter().flat_map(CredentialView::lines));
                lines.join("\n")
            };
            session.terminal.print(Output::new(&view, plain).machine("true"))
        }
        Err(why) => {
            let error = Error::Credential(why);
            let view = Verified { is_valid: false, why: Some(error.to_string()), credential: None };
            let plain = || "The credential is not valid.".to_owned();
            session.terminal.print(Output::new(&view, plain).machine("false"))?;
            Err(error)
        }
    }
}

fn store(arguments: CredentialStore, session: &mut Session) -> Result<(), Error> {
    let (encoded, issuer) = read(&arguments.credential, session)?;
    // The node verifies it, too; what is wrong with it shows here without one.
    verified(&encoded, None, &issuer, unix_now()).map_err(Error::Credential)?;
    let node = session.existing(arguments.at.at)?;
    let (issuer, credential) = (Some(issuer.to_hex()), to_hex(&encoded));
    let request = StoreCredential { issuer, scope: arguments.scope, credential };
    let stored: CredentialInfo = session.control(&node)?.post(path::CREDENTIALS, &request)?;
    let plain = || {
        let mut lines = vec![format!("The node {node} shows this credential from now on.")];
        lines.extend(info_lines(&stored));
        lines.join("\n")
    };
    session.terminal.print(Output::new(&stored, plain).machine(stored.subject.clone()))
}

fn list(arguments: CredentialList, session: &mut Session) -> Result<(), Error> {
    let subject = identifier_of(arguments.subject.as_deref(), session)?;
    let issuer = identifier_of(arguments.issuer.as_deref(), session)?;
    let node = session.existing(arguments.at.at)?;
    let mut known: Vec<CredentialInfo> = session.control(&node)?.get(path::CREDENTIALS)?;
    known.retain(|it| {
        let is = |wanted: &Option<String>, found: &String| wanted.as_ref().is_none_or(|wanted| wanted == found);
        is(&subject, &it.subject) && is(&issuer, &it.issuer) && is(&arguments.scope, &it.scope)
    });
    let now = unix_now();
    let plain = || {
        let rows = known.iter().map(|it| {
            let attributes: Vec<String> = it.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let whose = if it.own { "this node" } else { "" };
            [it.subject.clone(), whose.into(), state(it, now).into(), date_time(it.expires_at), attributes.join(" ")]
        });
        let none = format!("The node {node} knows no such credentials.");
        table(["SUBJECT", "", "STATE", "EXPIRES", "ATTRIBUTES"], rows, &none)
    };
    session.terminal.print(Output::new(&known, plain))
}

fn show(arguments: CredentialShow, session: &mut Session) -> Result<(), Error> {
    let subject = identifier_of(arguments.subject.as_deref(), session)?;
    let node = session.existing(arguments.at.at)?;
    let mut known: Vec<CredentialInfo> = session.control(&node)?.get(path::CREDENTIALS)?;
    known.retain(|it| subject.as_ref().map_or(it.own, |subject| it.subject == *subject));
    if known.is_empty() {
        let id = arguments.subject.unwrap_or_else(|| "of its own".into());
        let (node, list) = (node.to_string(), "ockam credential list");
        return Err(Error::NoSuchThing { node, what: "credential", id, list });
    }
    let plain = || known.iter().flat_map(info_lines).collect::<Vec<_>>().join("\n");
    session.terminal.print(Output::new(&known, plain))
}

fn delete(arguments: CredentialDelete, session: &mut Session) -> Result<(), Error> {
    let subject = identifier_of(arguments.subject.as_deref(), session)?;
    let node = session.existing(arguments.at.at)?;
    let mut control = session.control(&node)?;
    let about = arguments.subject.as_ref().map_or(String::new(), |subject| format!(" about {subject}"));
    let under = arguments.scope.as_ref().map_or(String::new(), |scope| format!(" filed under {scope}"));
    if !session
        .terminal
        .confirm(arguments.yes, &format!("Let the node {node} forget all credentials{about}{under}?"))?
    {
        return Ok(());
    }
    let parts = [("scope", arguments.scope.as_deref()), ("subject", subject.as_deref())];
    let forgotten: Vec<CredentialInfo> = control.delete(&query(path::CREDENTIALS, &parts))?;
    let plain = || match forgotten.len() {
        0 => format!("The node {node} knows no such credentials."),
        1 => format!("The node {node} forgot one credential."),
        count => format!("The node {node} forgot {count} credentials."),
    };
    session.terminal.print(Output::new(&forgotten, plain))
}

/// The identifier that an argument gives or names, as the API has it.
fn identifier_of(name: Option<&str>, session: &mut Session) -> Result<Option<String>, Error> {
    let Some(name) = name else { return Ok(None) };
    if name.parse::<Identifier>().is_ok() {
        return Ok(Some(name.to_owned()));
    }
    Ok(Some(existing(session)?.find(Some(name))?.identifier.to_string()))
}

fn state(credential: &CredentialInfo, now: u64) -> &'static str {
    match credential {
        it if it.revoked => "revoked",
        it if it.expires_at < now => "expired",
        _ => "valid",
    }
}

fn info_lines(credential: &CredentialInfo) -> Vec<String> {
    let whose = if credential.own { " (this node)" } else { "" };
    let mut lines = vec![
        format!("  subject     {}{whose}", credential.subject),
        format!("  issuer      {}", credential.issuer),
        format!("  scope       {}", escape(credential.scope.as_bytes(), 255)),
        format!("  state       {}", state(credential, unix_now())),
        format!("  created     {}", date_time(credential.created_at)),
        format!("  expires     {}", date_time(credential.expires_at)),
    ];
    lines.extend(attribute_lines(&credential.attributes));
    lines
}

/// Verifies a credential by one issuer, about `expected` or else whoever it names (`wire.md` D.4).
fn verified(
    encoded: &[u8],
    expected: Option<Identifier>,
    issuer: &ChangeHistory,
    now: u64,
) -> Result<Credential, CredentialError> {
    let subject = match expected {
        Some(subject) => subject,
        None => Credential::inspect(encoded)?.subject.ok_or(CredentialError::NoSubject)?,
    };
    Credential::verify(encoded, &subject, [issuer], now)
}

/// The credential of an argument and the history of who is said to have issued it.
fn read(arguments: &CredentialBy, session: &mut Session) -> Result<(Vec<u8>, ChangeHistory), Error> {
    // What is wrong with the names shows before stdin is waited for.
    let issuer = history_of(&arguments.issuer, "--issuer", session)?;
    Ok((read_credential(&arguments.credential)?, issuer))
}

fn read_credential(source: &CredentialSource) -> Result<Vec<u8>, Error> {
    let text = match (&source.credential, &source.credential_path) {
        (Some(text), _) => text.clone().into_bytes(),
        // Room for white space around the digits.
        (None, Some(path)) => input::read(path, "a credential", 2 * CREDENTIAL_MAX + 1024)?,
        (None, None) => return Err(Error::internal("a credential that is required was not given")),
    };
    let digits = str::from_utf8(&text).ok().map(str::trim).and_then(from_hex);
    digits.filter(|bytes| !bytes.is_empty()).ok_or_else(|| Error::BadData {
        what: "the credential".into(),
        why: "it is not hexadecimal".into(),
        fix: "Give what `ockam credential issue` prints into a pipe.".into(),
    })
}

/// The history that an argument gives or names.
///
/// # Errors
/// [`Error::NoSuchIdentity`]; [`Error::InputMissing`] when nothing but its identifier is known.
pub(super) fn history_of(
    identity: &IdentityOrHistory,
    argument: &str,
    session: &mut Session,
) -> Result<ChangeHistory, Error> {
    let name = match identity {
        IdentityOrHistory::Given(history) => return Ok(history.clone()),
        IdentityOrHistory::Known(name) => name,
    };
    let identities = existing(session)?;
    let known = match identities.find(Some(name)) {
        Ok(known) => identities.known(&known.identifier)?,
        Err(Error::NoSuchIdentity { .. }) if name.parse::<Identifier>().is_ok() => None,
        Err(error) => return Err(error),
    };
    known.ok_or_else(|| Error::NoSuchHistory { identifier: name.clone(), argument: argument.into() })
}

fn existing(session: &mut Session) -> Result<Identities, Error> {
    Identities::open(session.home()?)
}

/// About whom: an identifier need not be known here.
fn subject(identities: &Identities, name: &str) -> Result<Identifier, Error> {
    match name.parse() {
        Ok(identifier) => Ok(identifier),
        Err(_) => Ok(identities.find(Some(name))?.identifier),
    }
}

pub(super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[derive(Serialize)]
struct Verified {
    is_valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(flatten)]
    credential: Option<CredentialView>,
}

/// A credential that was verified, or made here.
#[derive(Serialize)]
struct CredentialView {
    subject: String,
    issuer: String,
    schema: u64,
    attributes: BTreeMap<String, String>,
    /// Seconds of Unix time, as the next.
    created_at: u64,
    expires_at: u64,
    credential: String,
}

impl CredentialView {
    fn of(credential: &Credential) -> CredentialView {
        CredentialView {
            subject: credential.subject().to_string(),
            issuer: credential.issuer().to_string(),
            schema: credential.schema(),
            attributes: shown_attributes(credential.attributes().iter()),
            created_at: credential.created_at(),
            expires_at: credential.expires_at(),
            credential: to_hex(credential.encoded()),
        }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!("  subject     {}", self.subject),
            format!("  issuer      {}", self.issuer),
            format!("  created     {}", date_time(self.created_at)),
            format!("  expires     {}", date_time(self.expires_at)),
        ];
        lines.extend(attribute_lines(&self.attributes));
        lines
    }
}

/// As people and JSON get them: what is not printable is escaped.
pub(super) fn shown_attributes<'a>(attributes: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> BTreeMap<String, String> {
    let shown = |bytes: &[u8]| escape(bytes, ATTRIBUTE_VALUE_MAX);
    attributes.map(|(name, value)| (shown(name), shown(value))).collect()
}

pub(super) fn attribute_lines(attributes: &BTreeMap<String, String>) -> Vec<String> {
    let label = |index| if index == 0 { "attributes" } else { "" };
    let lines = attributes.iter().enumerate();
    lines.map(|(index, (name, value))| format!("  {:<12}{name}={value}", label(index))).collect()
}
