//! `ockam inspect`: what somebody handed over, readable, and whether it is true.
//!
//! What a thing is follows from its first bytes ([`Kind`]). It is verified with what is at hand: the histories that this
//! home knows, or the one of `--verify-with`; and what could not be verified is said, with the reason.

use super::Session;
use super::credential::{attribute_lines, history_of, shown_attributes, unix_now};
use super::identity::{ChangeView, date_time, ordinal};
use crate::cli::args::inspect::Inspect;
use crate::cli::input;
use crate::cli::show::Output;
use crate::error::Error;
use crate::identities::Identities;
use crate::projects::{Project, Ticket};
use crate::text::{escape, from_hex, to_hex};
use minicbor::Decoder;
use minicbor::data::Type;
use ockam_crypto::{
    Attestation, ChangeHistory, Comparison, Credential, CredentialError, Identifier, PublicKey, PurposePublicKey,
    REVOCATION_LIST_MAX, RevocationList, UnverifiedAttestation, UnverifiedCredential,
};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use zeroize::Zeroizing;

/// How many entries of a revocation list a person is shown; JSON has all.
const ENTRIES_SHOWN: usize = 20;

/// How many bytes of a stranger's text are shown.
const TEXT_SHOWN_MAX: usize = 200;

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
        Given::Identity(history) => judge.history(history)?,
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

fn bad(what: &str, why: impl std::fmt::Display) -> Error {
    Error::BadData {
        what: what.to_owned(),
        why: why.to_string(),
        fix: "Ask whoever gave it to you for all of it.".into(),
    }
}

/// Bytes as they are or as hexadecimal digits; text of a ticket or a project.
fn inspect(given: &[u8], judge: &Judge) -> Result<View, Error> {
    let text = str::from_utf8(given).map(str::trim).ok();
    let digits = text.and_then(from_hex).map(Zeroizing::new);
    let bytes = digits.as_ref().map_or(given, |digits| digits.as_slice());
    if let (None, Some(text), Ok(content)) = (Kind::of(bytes), text, str::from_utf8(bytes).map(str::trim)) {
        return match content {
            json if json.starts_with('{') && !json.contains("\"one_time_code\"") => judge.project(json),
            ticket if ticket.starts_with('{') || (ticket.starts_with('/') && ticket.contains(',')) => {
                judge.ticket(text)
            }
            _ => Err(nothing_known()),
        };
    }
    match Kind::of(bytes) {
        Some(Kind::History) => {
            let history = ChangeHistory::verify(bytes).map_err(|error| bad("the history of an identity", error))?;
            judge.history(history)
        }
        Some(Kind::Attestation) => Ok(View::PurposeKey(judge.attestation(bytes, None)?)),
        Some(Kind::Credential) => Ok(View::Credential(judge.credential(bytes)?)),
        Some(Kind::RevocationList) => Ok(View::RevocationList(judge.revocation_list(bytes)?)),
        Some(Kind::Payload) => judge.payload(bytes),
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

/// What things are verified with.
struct Judge {
    /// Of `--verify-with`.
    with: Option<ChangeHistory>,
    identities: Option<Identities>,
    now: u64,
    show_secret: bool,
}

impl Judge {
    /// The history to verify with what `identifier` signed, or why there is none.
    fn known(&self, identifier: &Identifier) -> Result<Result<ChangeHistory, String>, Error> {
        if let Some(with) = &self.with {
            return Ok(match with.identifier() == *identifier {
                true => Ok(with.clone()),
                false => Err(format!("it is by {identifier}, and not by {}", with.identifier())),
            });
        }
        let known = match &self.identities {
            Some(identities) => identities.known(identifier)?,
            None => None,
        };
        Ok(known.ok_or_else(|| {
            format!("the history of {identifier} is not known here; name it with --verify-with, or import it")
        }))
    }

    fn history(&self, history: ChangeHistory) -> Result<View, Error> {
        self.identity(history, self.with.as_ref()).map(View::Identity)
    }

    /// `expected` is whose it must be.
    fn identity(&self, history: ChangeHistory, expected: Option<&ChangeHistory>) -> Result<IdentityView, Error> {
        let identifier = history.identifier();
        let known = match &self.identities {
            Some(identities) => identities.known(&identifier)?.map(|known| (identities, known)),
            None => None,
        };
        let known_here = match &known {
            Some((identities, known)) => {
                let name = identities.find(Some(&identifier.to_string()))?.name;
                let name = name
                    .map_or_else(|| "this home knows it".to_owned(), |name| format!("this home knows it as {name}"));
                Some(match history.compared_to(known) {
                    Comparison::Same => name,
                    Comparison::Newer => format!("{name}, with fewer keys"),
                    Comparison::Older => format!("{name}, with more keys: this one is out of date"),
                    Comparison::Diverged => format!("{name}, with another key: one of the two is from a stolen key"),
                })
            }
            None => None,
        };
        let verification = match expected {
            Some(with) if with.identifier() != identifier => {
                Verification::Refused { why: format!("it is of {identifier}, and not of {}", with.identifier()) }
            }
            Some(with) if history.compared_to(with) == Comparison::Diverged => {
                Verification::Refused { why: "it contradicts the history that it is to be verified with".into() }
            }
            _ => Verification::Verified { by: "each key is signed by itself and by the one before it".into() },
        };
        Ok(IdentityView {
            identifier: identifier.to_string(),
            known_here,
            changes: history.changes().iter().map(ChangeView::of).collect(),
            change_history: history.to_hex(),
            verification,
        })
    }

    /// `shown` is the history that came with it, which proves nothing about anybody but its own identity.
    fn attestation(&self, bytes: &[u8], shown: Option<&ChangeHistory>) -> Result<PurposeKeyView, Error> {
        let unverified = Attestation::inspect(bytes).map_err(|error| bad("the attestation of a purpose key", error))?;
        let known = match shown.filter(|shown| shown.identifier() == unverified.subject) {
            Some(shown) => Ok(shown.clone()),
            None => self.known(&unverified.subject)?,
        };
        let verification = match known {
            Err(why) => self.unknown(why),
            Ok(history) => match Attestation::verify(bytes, &history, self.now) {
                Ok(_) => Verification::Verified { by: "its identity signed it, with its latest key".into() },
                Err(error) => Verification::Refused { why: error.to_string() },
            },
        };
        Ok(PurposeKeyView::of(&unverified, verification))
    }

    fn credential(&self, bytes: &[u8]) -> Result<CredentialView, Error> {
        let unverified = Credential::inspect(bytes).map_err(|error| bad("the credential", error))?;
        let issuer = unverified.attestation.subject;
        let verification = match self.known(&issuer)? {
            Err(why) => self.unknown(why),
            Ok(history) => {
                let subject = unverified.subject.ok_or(CredentialError::NoSubject);
                let verified = subject.and_then(|subject| Credential::verify(bytes, &subject, [&history], self.now));
                match verified {
                    Ok(_) => Verification::Verified { by: "its issuer signed it, and it is valid now".into() },
                    Err(error) => Verification::Refused { why: error.to_string() },
                }
            }
        };
        Ok(CredentialView::of(&unverified, verification))
    }

    fn revocation_list(&self, bytes: &[u8]) -> Result<RevocationListView, Error> {
        let unverified = RevocationList::inspect(bytes).map_err(|error| bad("the revocation list", error))?;
        let verification = match self.known(&unverified.issuer)? {
            Err(why) => self.unknown(why),
            Ok(history) => match RevocationList::verify(bytes, &history, self.now) {
                Ok(_) => Verification::Verified { by: "its issuer signed it".into() },
                Err(error) => Verification::Refused { why: error.to_string() },
            },
        };
        let entries = unverified
            .entries
            .iter()
            .map(|(subject, revoked_at)| RevokedView { subject: subject.to_string(), revoked_at: *revoked_at });
        Ok(RevocationListView {
            issuer: unverified.issuer.to_string(),
            number: unverified.number,
            created_at: unverified.created_at,
            revoked: entries.collect(),
            signed_with: SigningKeyView::of(&unverified.attestation),
            verification,
        })
    }

    /// What an end of a handshake shows of itself (`wire.md` E.3).
    fn payload(&self, bytes: &[u8]) -> Result<View, Error> {
        let bad = |why: &str| bad("what an end of a handshake shows", why);
        let mut input = Decoder::new(bytes);
        let part = |input: &mut Decoder| {
            let start = input.position();
            input.skip().ok()?;
            bytes.get(start..input.position())
        };
        let mut parts = || {
            input.array().ok()?;
            let (history, attestation) = (part(&mut input)?, part(&mut input)?);
            let count = input.array().ok()??;
            // Each has at least a byte, so that no more are counted than there are bytes.
            let mut credentials = Vec::new();
            for _ in 0..count {
                credentials.push(part(&mut input)?);
            }
            (input.position() == bytes.len()).then_some((history, attestation, credentials))
        };
        let (history, attestation, credentials) = parts().ok_or_else(|| bad("it is malformed or cut off"))?;
        let history = ChangeHistory::verify(history).map_err(|error| bad(&error.to_string()))?;
        let purpose_key = self.attestation(attestation, Some(&history))?;
        let credentials = credentials.iter().map(|credential| self.credential(credential));
        let credentials = credentials.collect::<Result<Vec<_>, Error>>()?;
        let identity = self.identity(history, None)?;
        let parts = [&identity.verification, &purpose_key.verification].into_iter();
        let verification = all_of(parts.chain(credentials.iter().map(|it| &it.verification)));
        Ok(View::HandshakePayload(PayloadView { identity, purpose_key, credentials, verification }))
    }

    fn project(&self, json: &str) -> Result<View, Error> {
        Ok(View::Project(self.of_project(&Project::from_json(json)?)))
    }

    fn ticket(&self, text: &str) -> Result<View, Error> {
        let ticket = Ticket::decode(text)?;
        let project = self.of_project(&ticket.project);
        let verification = match &project.verification {
            Verification::Verified { by } => {
                Verification::Verified { by: format!("{by}; whether its code is good, only the authority can say") }
            }
            Verification::Unknown { .. } => Verification::Unknown {
                why: "nobody signs a ticket, and whether its code is good, only the authority can say".into(),
            },
            refused => refused.clone(),
        };
        let code = self.show_secret.then(|| Zeroizing::new(to_hex(&ticket.code.0[..])));
        Ok(View::Ticket(TicketView { project, one_time_code: code.map(|code| code.to_string()), verification }))
    }

    fn of_project(&self, project: &Project) -> ProjectView {
        let authority = project.authority.identifier();
        let verification = match &self.with {
            None => Verification::Unknown { why: "nobody signs what a home knows of a project".into() },
            Some(with) if with.identifier() == authority => {
                Verification::Verified { by: "its authority is the one that was named".into() }
            }
            Some(with) => {
                Verification::Refused { why: format!("its authority is {authority}, and not {}", with.identifier()) }
            }
        };
        ProjectView {
            id: escape(project.id.as_bytes(), TEXT_SHOWN_MAX),
            name: project.name.clone(),
            authority: authority.to_string(),
            authority_route: project.authority_route.to_string(),
            authority_changes: project.authority.changes().iter().map(ChangeView::of).collect(),
            verification,
        }
    }

    /// With a history that it is to be verified with, what somebody else signed is not what was wanted.
    fn unknown(&self, why: String) -> Verification {
        if self.with.is_some() { Verification::Refused { why } } else { Verification::Unknown { why } }
    }
}

/// The first part that is not known to be true decides.
fn all_of<'a>(mut parts: impl Iterator<Item = &'a Verification>) -> Verification {
    parts.find(|it| !it.is_verified()).cloned().unwrap_or_else(|| Verification::Verified {
        by: "all its parts are true; that whoever shows it has the key, only a handshake can prove".into(),
    })
}

/// Whether something is true.
#[derive(Serialize, Debug, Clone, PartialEq, Eq)]
#[serde(tag = "result", rename_all = "snake_case")]
enum Verification {
    Verified {
        by: String,
    },
    Refused {
        why: String,
    },
    #[serde(rename = "not_verified")]
    Unknown {
        why: String,
    },
}

impl Verification {
    fn is_verified(&self) -> bool {
        matches!(self, Verification::Verified { .. })
    }

    fn line(&self) -> String {
        match self {
            Verification::Verified { by } => format!("  verified    yes: {by}"),
            Verification::Refused { why } => format!("  verified    NO, do not believe it: {why}"),
            Verification::Unknown { why } => format!("  verified    not yet: {why}"),
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum View {
    Identity(IdentityView),
    PurposeKey(PurposeKeyView),
    Credential(CredentialView),
    RevocationList(RevocationListView),
    HandshakePayload(PayloadView),
    Ticket(TicketView),
    Project(ProjectView),
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

#[derive(Serialize)]
struct IdentityView {
    identifier: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    known_here: Option<String>,
    changes: Vec<ChangeView>,
    change_history: String,
    verification: Verification,
}

impl IdentityView {
    fn lines(&self) -> Vec<String> {
        let mut lines = vec!["The history of an identity".to_owned(), format!("  identifier  {}", self.identifier)];
        lines.extend(self.known_here.iter().map(|known| format!("  here        {known}")));
        for (number, change) in self.changes.iter().enumerate() {
            lines.extend(change.lines(&format!("{} key", ordinal(number + 1))));
        }
        lines.push(self.verification.line());
        lines
    }
}

#[derive(Serialize)]
struct PurposeKeyView {
    subject: String,
    subject_latest_change: String,
    /// `secure_channel` or `credential_signing`.
    purpose: &'static str,
    key: String,
    /// Seconds of Unix time, as the next.
    created_at: u64,
    expires_at: u64,
    verification: Verification,
}

impl PurposeKeyView {
    fn of(attestation: &UnverifiedAttestation, verification: Verification) -> PurposeKeyView {
        let (purpose, key) = named(&attestation.key);
        PurposeKeyView {
            subject: attestation.subject.to_string(),
            subject_latest_change: to_hex(&attestation.subject_latest_change),
            purpose,
            key,
            created_at: attestation.created_at,
            expires_at: attestation.expires_at,
            verification,
        }
    }

    fn lines(&self) -> Vec<String> {
        let purpose = match self.purpose {
            "secure_channel" => "secure channels",
            _ => "signing credentials",
        };
        vec![
            format!("A key for {purpose}, as an identity attests it"),
            format!("  identity    {}", self.subject),
            format!("  key         {}", self.key),
            format!("  created     {}", date_time(self.created_at)),
            format!("  expires     {}", date_time(self.expires_at)),
            self.verification.line(),
        ]
    }
}

#[derive(Serialize)]
struct CredentialView {
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject_latest_change: Option<String>,
    issuer: String,
    schema: u64,
    attributes: BTreeMap<String, String>,
    /// Seconds of Unix time, as the next.
    created_at: u64,
    expires_at: u64,
    signed_with: SigningKeyView,
    verification: Verification,
}

/// The key that signed something. Its attestation is verified with what it signed.
#[derive(Serialize)]
struct SigningKeyView {
    key: String,
    /// Seconds of Unix time, as the next.
    created_at: u64,
    expires_at: u64,
}

impl SigningKeyView {
    fn of(attestation: &UnverifiedAttestation) -> SigningKeyView {
        let UnverifiedAttestation { created_at, expires_at, .. } = *attestation;
        SigningKeyView { key: named(&attestation.key).1, created_at, expires_at }
    }
}

/// What a purpose key is for, and itself.
fn named(key: &PurposePublicKey) -> (&'static str, String) {
    match key {
        PurposePublicKey::SecureChannel(key) => ("secure_channel", to_hex(key)),
        PurposePublicKey::CredentialSigning(PublicKey::Ed25519(key)) => ("credential_signing", to_hex(key)),
        PurposePublicKey::CredentialSigning(PublicKey::P256(key)) => ("credential_signing", to_hex(key)),
    }
}

impl CredentialView {
    fn of(credential: &UnverifiedCredential, verification: Verification) -> CredentialView {
        let attributes = credential.attributes.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
        CredentialView {
            subject: credential.subject.map(|subject| subject.to_string()),
            subject_latest_change: credential.subject_latest_change.map(|hash| to_hex(&hash)),
            issuer: credential.attestation.subject.to_string(),
            schema: credential.schema,
            attributes: shown_attributes(attributes),
            created_at: credential.created_at,
            expires_at: credential.expires_at,
            signed_with: SigningKeyView::of(&credential.attestation),
            verification,
        }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            "A credential".to_owned(),
            format!("  subject     {}", self.subject.as_deref().unwrap_or("nobody")),
            format!("  issuer      {}", self.issuer),
            format!("  created     {}", date_time(self.created_at)),
            format!("  expires     {}", date_time(self.expires_at)),
        ];
        lines.extend(attribute_lines(&self.attributes));
        lines.push(format!("  signed with {}, until {}", self.signed_with.key, date_time(self.signed_with.expires_at)));
        lines.push(self.verification.line());
        lines
    }
}

#[derive(Serialize)]
struct RevocationListView {
    issuer: String,
    number: u64,
    /// Seconds of Unix time.
    created_at: u64,
    revoked: Vec<RevokedView>,
    signed_with: SigningKeyView,
    verification: Verification,
}

#[derive(Serialize)]
struct RevokedView {
    subject: String,
    /// Credentials that were created then or before are void. Seconds of Unix time.
    revoked_at: u64,
}

impl RevocationListView {
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            "A revocation list".to_owned(),
            format!("  issuer      {}", self.issuer),
            format!("  number      {}", self.number),
            format!("  created     {}", date_time(self.created_at)),
            format!("  revoked     the credentials of {} identities", self.revoked.len()),
        ];
        let shown = self.revoked.iter().take(ENTRIES_SHOWN);
        lines.extend(shown.map(|it| format!("    {} until {}", it.subject, date_time(it.revoked_at))));
        if self.revoked.len() > ENTRIES_SHOWN {
            lines.push(format!("    and {} more; --output json has all", self.revoked.len() - ENTRIES_SHOWN));
        }
        lines.push(self.verification.line());
        lines
    }
}

#[derive(Serialize)]
struct PayloadView {
    identity: IdentityView,
    purpose_key: PurposeKeyView,
    credentials: Vec<CredentialView>,
    verification: Verification,
}

impl PayloadView {
    fn lines(&self) -> Vec<String> {
        let mut lines = vec!["What an end of a secure channel shows of itself".to_owned(), self.verification.line()];
        lines.extend(self.identity.lines());
        lines.extend(self.purpose_key.lines());
        lines.extend(self.credentials.iter().flat_map(CredentialView::lines));
        lines
    }
}

#[derive(Serialize)]
struct ProjectView {
    id: String,
    name: String,
    authority: String,
    authority_route: String,
    authority_changes: Vec<ChangeView>,
    verification: Verification,
}

impl ProjectView {
    fn lines(&self, title: &str) -> Vec<String> {
        let mut lines = vec![
            title.to_owned(),
            format!("  project     {} ({})", self.name, self.id),
            format!("  authority   {}", self.authority),
            format!("  at          {}", self.authority_route),
        ];
        for (number, change) in self.authority_changes.iter().enumerate() {
            lines.extend(change.lines(&format!("{} key", ordinal(number + 1))));
        }
        lines.push(self.verification.line());
        lines
    }
}

#[derive(Serialize)]
struct TicketView {
    project: ProjectView,
    /// Absent unless it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    one_time_code: Option<String>,
    verification: Verification,
}

impl TicketView {
    fn lines(&self) -> Vec<String> {
        let mut lines = self.project.lines("A ticket: whoever has it can become a member");
        lines.pop();
        let code = self.one_time_code.as_deref().unwrap_or("not shown; --show-secret shows it");
        lines.push(format!("  code        {code}"));
        lines.push(self.verification.line());
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::bodies::OneTimeCode;
    use ockam_crypto::{Attributes, Issuer, Secret, SigningKey, Validity, X25519Key, encode_payload};
    use proptest::prelude::*;

    const NOW: u64 = 1_750_000_000;

    /// An identity with both of its purpose keys, and what it says of `subject`.
    struct Things {
        history: ChangeHistory,
        channel: Attestation,
        issuing: Attestation,
        credential: Credential,
        list: RevocationList,
        payload: Vec<u8>,
    }

    fn identity(seed: u8) -> (SigningKey, ChangeHistory) {
        let key = SigningKey::new(Secret::new([seed; 32]));
        let history = ChangeHistory::create(&key, Validity { from: NOW - 100, until: NOW + 1000 }).unwrap();
        (key, history)
    }

    fn things(seed: u8, subject: &ChangeHistory) -> Things {
        let (key, history) = identity(seed);
        let static_key = X25519Key::new(Secret::new([seed + 1; 32]));
        let signing_key = SigningKey::new(Secret::new([seed + 2; 32]));
        let attest = |key_of| Attestation::create(&history, &key, key_of, NOW - 50, NOW + 500).unwrap();
        let channel = attest(PurposePublicKey::SecureChannel(*static_key.public()));
        let issuing = attest(PurposePublicKey::CredentialSigning(signing_key.public()));
        let issuer = Issuer::new(&history, issuing.clone(), signing_key).unwrap();
        let mut attributes = Attributes::new();
        attributes.insert("role", "reader").unwrap();
        attributes.insert("odd\x1b[31m", "\u{202e}x").unwrap();
        let subject = subject.identifier();
        let credential = Credential::issue(&issuer, subject, None, 1, &attributes, NOW - 10, NOW + 100).unwrap();
        let list = RevocationList::sign(&issuer, 7, NOW - 5, [(subject, NOW - 20)]).unwrap();
        let payload = encode_payload(&history, &channel, &[credential.encoded(), credential.encoded()]);
        Things { history, channel, issuing, credential, list, payload }
    }

    fn judge(with: Option<&ChangeHistory>, now: u64) -> Judge {
        Judge { with: with.cloned(), identities: None, now, show_secret: false }
    }

    fn result(bytes: &[u8], with: Option<&ChangeHistory>, now: u64) -> String {
        let view = inspect(bytes, &judge(with, now)).unwrap();
        assert!(view.lines().iter().all(|line| !line.contains(char::is_control) && !line.contains('\u{202e}')));
        let json = serde_json::to_value(&view).unwrap();
        format!("{} {}", json["kind"].as_str().unwrap(), json["verification"]["result"].as_str().unwrap())
    }

    #[test]
    fn things_are_told_apart_and_verified_with_what_is_at_hand() {
        let (_, bob) = identity(9);
        let alice = things(1, &bob);
        let everything = [
            (alice.channel.encoded(), "purpose_key"),
            (alice.issuing.encoded(), "purpose_key"),
            (alice.credential.encoded(), "credential"),
            (alice.list.encoded(), "revocation_list"),
        ];
        for (bytes, kind) in everything {
            for form in [bytes.to_vec(), to_hex(bytes).into_bytes(), format!(" {}\n", to_hex(bytes)).into_bytes()] {
                assert_eq!(result(&form, None, NOW), format!("{kind} not_verified"));
                assert_eq!(result(&form, Some(&alice.history), NOW), format!("{kind} verified"));
                assert_eq!(result(&form, Some(&bob), NOW), format!("{kind} refused"));
            }
            // One bit of the last signature, which is that of an attestation.
            let mut changed = bytes.to_vec();
            *changed.last_mut().unwrap() ^= 1;
            assert_eq!(result(&changed, Some(&alice.history), NOW), format!("{kind} refused"));
            assert_eq!(result(bytes, Some(&alice.history), NOW + 501), format!("{kind} refused"), "expired");
        }
        // An identity proves itself; with another one it is not whom it was to be.
        for (with, want) in [(None, "verified"), (Some(&alice.history), "verified"), (Some(&bob), "refused")] {
            assert_eq!(result(alice.history.encoded(), with, NOW), format!("identity {want}"));
        }
        // What came along proves the key, and nothing about who issued what it shows.
        let mallory = things(20, &alice.history);
        let stranger = encode_payload(&alice.history, &alice.channel, &[mallory.credential.encoded()]);
        assert_eq!(result(&alice.payload, Some(&alice.history), NOW), "handshake_payload verified");
        assert_eq!(result(&stranger, None, NOW), "handshake_payload not_verified");
        assert_eq!(result(&stranger, Some(&bob), NOW), "handshake_payload refused");
        let mixed = encode_payload(&bob, &alice.channel, &[]);
        assert_eq!(result(&mixed, None, NOW), "handshake_payload not_verified");
    }

    /// An attestation that came with a longer history than it knows is not by the latest key.
    #[test]
    fn what_an_old_key_signed_is_refused_with_the_new_history() {
        let (_, bob) = identity(9);
        let alice = things(1, &bob);
        let (key, history) = identity(1);
        let new = SigningKey::new(Secret::new([77; 32]));
        let rotated = history.rotate(&key, &new, Validity { from: NOW, until: NOW + 1000 }).unwrap();
        for bytes in [alice.channel.encoded(), alice.credential.encoded(), alice.list.encoded()] {
            assert!(result(bytes, Some(&rotated), NOW).ends_with("refused"));
        }
        assert_eq!(result(rotated.encoded(), Some(&history), NOW), "identity verified");
        let other = history.rotate(&key, &SigningKey::new(Secret::new([78; 32])), rotated.latest().validity).unwrap();
        assert_eq!(result(rotated.encoded(), Some(&other), NOW), "identity refused", "one of the keys was stolen");
    }

    #[test]
    fn what_is_cut_off_or_something_else_is_bad_data() {
        let (_, bob) = identity(9);
        let alice = things(1, &bob);
        let all = [
            alice.history.encoded(),
            alice.channel.encoded(),
            alice.credential.encoded(),
            alice.list.encoded(),
            &alice.payload,
        ];
        for bytes in all {
            for length in 0..bytes.len() {
                let error = inspect(&bytes[..length], &judge(None, NOW)).err().expect("less than all was taken");
                assert!(matches!(error, Error::BadData { .. }), "{error}");
            }
            let longer = [bytes, &[0]].concat();
            assert!(matches!(inspect(&longer, &judge(None, NOW)), Err(Error::BadData { .. })));
        }
        // Parts that say nothing by themselves are named.
        let change = &alice.history.encoded()[1..];
        let alone = &alice.credential.encoded()[1..alice.credential.encoded().len() - alice.issuing.encoded().len()];
        for (part, named) in [(change, "one change"), (alone, "attestation of its issuer's key is missing")] {
            let said = inspect(part, &judge(None, NOW)).err().unwrap().to_string();
            assert!(said.contains(named), "{said}");
        }
        for odd in ["", "x", "00", "root:x:0,0", "{}", "{\"one_time_code\": 1}", "/a,b,c", "f6"] {
            assert!(matches!(inspect(odd.as_bytes(), &judge(None, NOW)), Err(Error::BadData { .. })), "{odd}");
        }
    }

    #[test]
    fn a_ticket_does_not_show_its_code_unasked() {
        let (_, authority) = identity(1);
        let (_, bob) = identity(9);
        let project = Project {
            id: "p1".into(),
            name: "demo".into(),
            authority: authority.clone(),
            authority_route: "/ip4/127.0.0.1/tcp/4000/service/api".parse().unwrap(),
            node_route: None,
            node: None,
            space_name: String::new(),
            space_id: String::new(),
        };
        let code = OneTimeCode(Zeroizing::new([0xc5; 32]));
        let text = Ticket { code, project: project.clone() }.encode();
        let shown = |show_secret| {
            let judge = Judge { show_secret, ..judge(Some(&authority), NOW) };
            let view = inspect(text.as_bytes(), &judge).unwrap();
            assert!(matches!(view, View::Ticket(_)) && view.verification().is_verified());
            format!("{} {}", view.lines().join("\n"), serde_json::to_string(&view).unwrap())
        };
        assert!(!shown(false).contains("c5c5") && shown(true).matches(&"c5".repeat(32)).count() == 2);
        assert_eq!(result(text.as_bytes(), None, NOW), "ticket not_verified");
        assert_eq!(result(text.as_bytes(), Some(&bob), NOW), "ticket refused");
        let json = project.to_json().to_string();
        assert_eq!(result(json.as_bytes(), Some(&authority), NOW), "project verified");
        assert_eq!(result(json.as_bytes(), Some(&bob), NOW), "project refused");
    }

    proptest! {
        /// Whatever it is, it is shown or refused.
        #[test]
        fn anything_may_be_given(bytes in proptest::collection::vec(any::<u8>(), 0..200), head in 0..8usize) {
            let heads: [&[u8]; 8] = [b"", &[0x81, 0x82], &[0x82, 0x58], &[0x82, 0x82], &[0x83], &[0x9f], b"{", &[0xff]];
            let given = [heads[head], &bytes].concat();
            let _ = inspect(&given, &judge(None, NOW));
            let _ = inspect(to_hex(&given).as_bytes(), &judge(None, NOW));
        }
    }
}
