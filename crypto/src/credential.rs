//! Credentials: what an authority attests about an identity, and for how long (`wire.md` D.3 to D.5).
//!
//! A [`Credential`] is verified, or was made here, when it exists. What somebody only claims is an
//! [`UnverifiedCredential`].

use crate::identity::{ChangeHistory, Identifier, at_end};
use crate::issuer::{Issuer, IssuerError, Statement};
use crate::purpose_key::{Attestation, CLOCK_SKEW_SECS, UnverifiedAttestation};
use crate::signature::{Blob, DataType};
use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};
use std::collections::BTreeMap;
use std::fmt;

/// How many bytes an encoded credential may have, the attestation of the issuer's key included. Real nodes have no
/// limit, but it must fit a handshake message of 64 KiB beside an identity, and is kept for each peer that shows one.
pub const CREDENTIAL_MAX: usize = 16 * 1024;

/// How many attributes a credential may have: each is a row in a table and a name in a policy.
pub const ATTRIBUTES_MAX: usize = 64;

/// How many bytes the name of an attribute may have. At least one.
pub const ATTRIBUTE_NAME_MAX: usize = 128;

/// How many bytes the value of an attribute may have.
pub const ATTRIBUTE_VALUE_MAX: usize = 4096;

/// The schema of credentials of a project's members, which is the only one in use.
pub const PROJECT_MEMBER_SCHEMA: u64 = 1;

/// Names that policies give a meaning of their own. An authority must not be able to say them (`wire.md` H.3).
const RESERVED_NAMES: [&str; 2] = ["identifier", "has_credential"];

/// What is said of a subject: values by name. Both are bytes, in the order of the names' bytes; policies see only those
/// that are UTF-8.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Attributes(BTreeMap<Vec<u8>, Vec<u8>>);

impl Attributes {
    /// None.
    pub fn new() -> Self {
        Attributes::default()
    }

    /// Adds one.
    ///
    /// # Errors
    /// Why it may not be there: it is not added then.
    pub fn insert(&mut self, name: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Result<(), AttributeError> {
        let (name, value) = (name.into(), value.into());
        if name.is_empty() {
            return Err(AttributeError::EmptyName);
        }
        if name.len() > ATTRIBUTE_NAME_MAX {
            return Err(AttributeError::NameTooLong);
        }
        if let Some(reserved) = RESERVED_NAMES.into_iter().find(|reserved| reserved.as_bytes() == name) {
            return Err(AttributeError::Reserved(reserved));
        }
        if value.len() > ATTRIBUTE_VALUE_MAX {
            return Err(AttributeError::ValueTooLong);
        }
        if self.0.contains_key(&name) {
            return Err(AttributeError::Duplicate);
        }
        if self.0.len() == ATTRIBUTES_MAX {
            return Err(AttributeError::TooMany);
        }
        self.0.insert(name, value);
        Ok(())
    }

    /// The value of one.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// Name and value of each, in the order of the names' bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))
    }

    /// Those that are UTF-8, which is what policies see.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.iter().filter_map(|(name, value)| Some((str::from_utf8(name).ok()?, str::from_utf8(value).ok()?)))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn from_pairs(pairs: &[(&[u8], &[u8])]) -> Result<Self, AttributeError> {
        let mut attributes = Attributes::new();
        pairs.iter().try_for_each(|(name, value)| attributes.insert(*name, *value))?;
        Ok(attributes)
    }
}

/// Names and values are somebody else's bytes: a terminal gets them escaped.
impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escaped = self.iter().map(|(name, value)| (name.escape_ascii(), value.escape_ascii()));
        f.debug_map().entries(escaped.map(|(name, value)| (format!("{name}"), format!("{value}")))).finish()
    }
}

/// Why an attribute may not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AttributeError {
    /// It has no name.
    #[error("an attribute has no name")]
    EmptyName,
    /// Its name has more than [`ATTRIBUTE_NAME_MAX`] bytes.
    #[error("the name of an attribute has more than {ATTRIBUTE_NAME_MAX} bytes")]
    NameTooLong,
    /// Its value has more than [`ATTRIBUTE_VALUE_MAX`] bytes.
    #[error("the value of an attribute has more than {ATTRIBUTE_VALUE_MAX} bytes")]
    ValueTooLong,
    /// Its name means something else in policies.
    #[error("no attribute may have the name `{0}`, which means something else in policies")]
    Reserved(&'static str),
    /// Its name is there already.
    #[error("two attributes have the same name")]
    Duplicate,
    /// There are more than [`ATTRIBUTES_MAX`].
    #[error("there are more than {ATTRIBUTES_MAX} attributes")]
    TooMany,
}

/// What an issuer attests about a subject. Verified, or made here, when it exists; whether its time has come to its end
/// since, or it was revoked, is to be asked again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    encoded: Vec<u8>,
    issuer: Identifier,
    subject: Identifier,
    schema: u64,
    attributes: Attributes,
    created_at: u64,
    expires_at: u64,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct CredentialData<'a> {
    #[cbor(n(0), with = "minicbor::bytes")]
    subject: Option<[u8; 32]>,
    #[cbor(n(1), with = "minicbor::bytes")]
    subject_latest_change: Option<[u8; 32]>,
    #[b(2)]
    attributes: SubjectAttributes<'a>,
    #[n(3)]
    created_at: u64,
    #[n(4)]
    expires_at: u64,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct SubjectAttributes<'a> {
    #[n(0)]
    schema: u64,
    #[b(1)]
    pairs: Pairs<'a>,
}

/// A map of byte strings, in the order in which it was sent.
struct Pairs<'a>(Vec<(&'a [u8], &'a [u8])>);

impl<C> Encode<C> for Pairs<'_> {
    fn encode<W: Write>(&self, output: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        output.map(self.0.len() as u64)?;
        self.0.iter().try_for_each(|(name, value)| output.bytes(name)?.bytes(value).map(|_| ()))
    }
}

impl<'a, C> Decode<'a, C> for Pairs<'a> {
    fn decode(input: &mut Decoder<'a>, _: &mut C) -> Result<Self, DecodeError> {
        let claimed = input.map()?;
        let mut pairs = Vec::new();
        while !at_end(input, claimed, pairs.len() as u64)? {
            pairs.push((input.bytes()?, input.bytes()?));
        }
        Ok(Pairs(pairs))
    }
}

impl Credential {
    /// Attests `attributes` of `subject` for the time from `created_at` to `expires_at`, in seconds of Unix time. Real
    /// nodes say the hash of the subject's latest change, where they know it, and never look at it.
    ///
    /// # Errors
    /// What a reader would refuse anyway.
    pub fn issue(
        issuer: &Issuer,
        subject: Identifier,
        subject_latest_change: Option<[u8; 32]>,
        schema: u64,
        attributes: &Attributes,
        created_at: u64,
        expires_at: u64,
    ) -> Result<Self, CredentialError> {
        let data = CredentialData {
            subject: Some(subject.0),
            subject_latest_change,
            attributes: SubjectAttributes { schema, pairs: Pairs(attributes.iter().collect()) },
            created_at,
            expires_at,
        };
        check(&data, issuer.attestation(), created_at)?;
        let encoded = issuer.sign(&Blob::new(DataType::Credential, &data));
        if encoded.len() > CREDENTIAL_MAX {
            return Err(CredentialError::TooLarge);
        }
        let (issuer, attributes) = (issuer.identifier(), attributes.clone());
        Ok(Credential { encoded, issuer, subject, schema, attributes, created_at, expires_at })
    }

    /// Reads and verifies what was shown as a credential of `subject` by one of `authorities`, whose latest histories
    /// these are. `now` is in seconds of Unix time.
    ///
    /// Stricter than real nodes: bytes behind it, what is too large or too many, two attributes of one name and reserved
    /// names are refused.
    ///
    /// # Errors
    /// The first thing that is wrong (`wire.md` D.4).
    pub fn verify<'a>(
        encoded: &[u8],
        subject: &Identifier,
        authorities: impl IntoIterator<Item = &'a ChangeHistory>,
        now: u64,
    ) -> Result<Self, CredentialError> {
        let (statement, blob, data) = parse(encoded)?;
        let issuer = Attestation::inspect(statement.attestation).map_err(IssuerError::from)?.subject;
        let history = authorities.into_iter().find(|authority| authority.identifier() == issuer);
        let attestation = statement.verify(&blob, history.ok_or(CredentialError::UnknownIssuer(issuer))?, now)?;
        let shown = Identifier(data.subject.ok_or(CredentialError::NoSubject)?);
        if shown != *subject {
            return Err(CredentialError::AnotherSubject(shown));
        }
        check(&data, &attestation, now)?;
        Ok(Credential {
            encoded: encoded.to_vec(),
            issuer,
            subject: shown,
            schema: data.attributes.schema,
            attributes: Attributes::from_pairs(&data.attributes.pairs.0)?,
            created_at: data.created_at,
            expires_at: data.expires_at,
        })
    }

    /// Reads a credential without believing it: to be shown to a person, whatever is wrong with it.
    ///
    /// # Errors
    /// It is too large, or not the CBOR of a credential.
    pub fn inspect(encoded: &[u8]) -> Result<UnverifiedCredential, CredentialError> {
        let (statement, _, data) = parse(encoded)?;
        Ok(UnverifiedCredential {
            subject: data.subject.map(Identifier),
            subject_latest_change: data.subject_latest_change,
            schema: data.attributes.schema,
            attributes: data.attributes.pairs.0.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
            created_at: data.created_at,
            expires_at: data.expires_at,
            attestation: Attestation::inspect(statement.attestation).map_err(IssuerError::from)?,
        })
    }

    /// CBOR, with the attestation of the issuer's key, as it was received or made: for a peer, a file or a database. No
    /// name for the credential: others may write the same one in other bytes.
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// Who attests.
    pub fn issuer(&self) -> Identifier {
        self.issuer
    }

    /// About whom.
    pub fn subject(&self) -> Identifier {
        self.subject
    }

    /// Which attributes there should be, as the issuer understands it. Nothing follows from it.
    pub fn schema(&self) -> u64 {
        self.schema
    }

    /// What.
    pub fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    /// Since when, in seconds of Unix time.
    pub fn created_at(&self) -> u64 {
        self.created_at
    }

    /// Its last second.
    pub fn expires_at(&self) -> u64 {
        self.expires_at
    }
}

fn parse(encoded: &[u8]) -> Result<(Statement<'_>, Blob<'_>, CredentialData<'_>), CredentialError> {
    if encoded.len() > CREDENTIAL_MAX {
        return Err(CredentialError::TooLarge);
    }
    let statement = Statement::parse(encoded).ok_or(CredentialError::Malformed)?;
    let (blob, data) =
        Blob::parse(DataType::Credential, statement.signed.data).ok_or(CredentialError::NotACredential)?;
    Ok((statement, blob, data))
}

/// Its times.
fn check(data: &CredentialData, attestation: &Attestation, now: u64) -> Result<(), CredentialError> {
    if data.created_at < attestation.created_at() {
        return Err(CredentialError::OlderThanItsKey);
    }
    if data.expires_at > attestation.expires_at() {
        return Err(CredentialError::OutlivesItsKey);
    }
    if data.created_at > now.saturating_add(CLOCK_SKEW_SECS) {
        return Err(CredentialError::FromTheFuture);
    }
    if data.expires_at < now {
        return Err(CredentialError::Expired);
    }
    Ok(())
}

/// What a credential says, true or not. Attributes are in the order in which they came, with all that may not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnverifiedCredential {
    /// About whom.
    pub subject: Option<Identifier>,
    /// The hash of the subject's latest change that the issuer knew.
    pub subject_latest_change: Option<[u8; 32]>,
    /// Which attributes there should be.
    pub schema: u64,
    /// Name and value of each.
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// Since when, in seconds of Unix time.
    pub created_at: u64,
    /// Its last second.
    pub expires_at: u64,
    /// What is said of the key that signed it; its subject is the issuer.
    pub attestation: UnverifiedAttestation,
}

/// Why a credential was refused, or not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CredentialError {
    /// More than [`CREDENTIAL_MAX`] bytes.
    #[error("the credential has more than {CREDENTIAL_MAX} bytes")]
    TooLarge,
    /// Not the CBOR of a credential.
    #[error("the credential is malformed or cut off")]
    Malformed,
    /// Signed data of another type or version, or not what a credential has.
    #[error("the credential is of an unknown kind")]
    NotACredential,
    /// By an identity that is no authority here.
    #[error("the credential is by {0}, which is no authority here")]
    UnknownIssuer(Identifier),
    /// Not the issuer's word.
    #[error("the credential is not by its issuer: {0}")]
    Issuer(#[from] IssuerError),
    /// It does not say about whom it is.
    #[error("the credential is about nobody")]
    NoSubject,
    /// It is about somebody else.
    #[error("the credential is about another identity, {0}")]
    AnotherSubject(Identifier),
    /// Created before its issuer's key.
    #[error("the credential is older than the key that signed it")]
    OlderThanItsKey,
    /// Expires after its issuer's key.
    #[error("the credential outlives the key that signed it")]
    OutlivesItsKey,
    /// Created more than [`CLOCK_SKEW_SECS`] from now.
    #[error("the credential was created in the future; are the clocks right?")]
    FromTheFuture,
    /// No longer valid; or it would never be.
    #[error("the credential has expired")]
    Expired,
    /// An attribute may not be there.
    #[error("the credential is refused for its attributes: {0}")]
    Attribute(#[from] AttributeError),
}

#[cfg(test)]
mod tests;
