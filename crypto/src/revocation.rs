//! Revocation lists: whose credentials an authority has taken back. Ours alone: real nodes know only expiry.
//!
//! ```text
//!   list = [ [ data, signature ], attestation ]      a statement as a credential is one, with a data type of its own
//!   data = [ issuer, number, created_at, [ [ subject, revoked_at ], ... ] ]      ordered by subject, each once
//! ```
//!
//! A list is complete: the one with the higher number replaces the other. It does not expire, because a subject that keeps
//! a newer list from arriving must not get its credential back by waiting.

use crate::credential::Credential;
use crate::identity::{ChangeHistory, Identifier, at_end};
use crate::issuer::{Issuer, IssuerError, Statement};
use crate::purpose_key::{Attestation, CLOCK_SKEW_SECS, UnverifiedAttestation};
use crate::signature::{Blob, DataType};
use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};
use std::collections::BTreeMap;
use std::fmt;

/// How many bytes an encoded list may have: room for 190,000 subjects, and what a node can keep of each authority.
pub const REVOCATION_LIST_MAX: usize = 8 * 1024 * 1024;

/// Whose credentials an issuer has revoked. Verified, or made here, when it exists.
#[derive(Clone, PartialEq, Eq)]
pub struct RevocationList {
    encoded: Vec<u8>,
    issuer: Identifier,
    number: u64,
    created_at: u64,
    entries: Vec<(Identifier, u64)>,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct ListData {
    #[cbor(n(0), with = "minicbor::bytes")]
    issuer: [u8; 32],
    #[n(1)]
    number: u64,
    #[n(2)]
    created_at: u64,
    #[n(3)]
    entries: Entries,
}

/// Strictly ascending by subject.
struct Entries(Vec<(Identifier, u64)>);

#[derive(Encode, Decode)]
#[cbor(array)]
struct Entry {
    #[cbor(n(0), with = "minicbor::bytes")]
    subject: [u8; 32],
    #[n(1)]
    revoked_at: u64,
}

impl<C> Encode<C> for Entries {
    fn encode<W: Write>(&self, output: &mut Encoder<W>, context: &mut C) -> Result<(), EncodeError<W::Error>> {
        output.array(self.0.len() as u64)?;
        let mut entries =
            self.0.iter().map(|(subject, revoked_at)| Entry { subject: subject.0, revoked_at: *revoked_at });
        entries.try_for_each(|entry| entry.encode(output, context))
    }
}

impl<'a, C> Decode<'a, C> for Entries {
    fn decode(input: &mut Decoder<'a>, context: &mut C) -> Result<Self, DecodeError> {
        let claimed = input.array()?;
        let mut entries: Vec<(Identifier, u64)> = Vec::new();
        while !at_end(input, claimed, entries.len() as u64)? {
            let Entry { subject, revoked_at } = Entry::decode(input, context)?;
            if entries.last().is_some_and(|(last, _)| last.0 >= subject) {
                return Err(DecodeError::message("subjects out of order"));
            }
            entries.push((Identifier(subject), revoked_at));
        }
        Ok(Entries(entries))
    }
}

impl RevocationList {
    /// Signs a list. `number` must be higher than that of each list before it; `entries` say of each subject until when
    /// its credentials are void, in seconds of Unix time. Where a subject comes twice, the later time holds.
    ///
    /// A time may lie after `created_at`: an issuer whose clock was set back must still be able to revoke.
    ///
    /// # Errors
    /// What a reader would refuse anyway.
    pub fn sign(
        issuer: &Issuer,
        number: u64,
        created_at: u64,
        entries: impl IntoIterator<Item = (Identifier, u64)>,
    ) -> Result<Self, RevocationError> {
        let mut latest = BTreeMap::new();
        for (subject, revoked_at) in entries {
            let time = latest.entry(subject).or_insert(revoked_at);
            *time = revoked_at.max(*time);
        }
        let entries = Entries(latest.into_iter().collect());
        let data = ListData { issuer: issuer.identifier().0, number, created_at, entries };
        check(&data, issuer.attestation(), created_at)?;
        let encoded = issuer.sign(&Blob::new(DataType::RevocationList, &data));
        if encoded.len() > REVOCATION_LIST_MAX {
            return Err(RevocationError::TooLarge);
        }
        Ok(RevocationList { encoded, issuer: issuer.identifier(), number, created_at, entries: data.entries.0 })
    }

    /// Reads and verifies a list by an authority whose latest history this is. `now` is in seconds of Unix time.
    ///
    /// To be asked when a list arrives. One that was accepted stays in force when the authority's key expires or changes.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn verify(encoded: &[u8], issuer: &ChangeHistory, now: u64) -> Result<Self, RevocationError> {
        if encoded.len() > REVOCATION_LIST_MAX {
            return Err(RevocationError::TooLarge);
        }
        let statement = Statement::parse(encoded).ok_or(RevocationError::Malformed)?;
        let (blob, data) = Blob::parse::<ListData>(DataType::RevocationList, statement.signed.data)
            .ok_or(RevocationError::NotARevocationList)?;
        let attestation = statement.verify(&blob, issuer, now)?;
        check(&data, &attestation, now)?;
        Ok(RevocationList {
            encoded: encoded.to_vec(),
            issuer: issuer.identifier(),
            number: data.number,
            created_at: data.created_at,
            entries: data.entries.0,
        })
    }

    /// Reads a list without believing it: to be shown to a person, whatever is wrong with it.
    ///
    /// # Errors
    /// It is too large, or not the CBOR of a list.
    pub fn inspect(encoded: &[u8]) -> Result<UnverifiedRevocationList, RevocationError> {
        if encoded.len() > REVOCATION_LIST_MAX {
            return Err(RevocationError::TooLarge);
        }
        let statement = Statement::parse(encoded).ok_or(RevocationError::Malformed)?;
        let (_, data) = Blob::parse::<ListData>(DataType::RevocationList, statement.signed.data)
            .ok_or(RevocationError::NotARevocationList)?;
        Ok(UnverifiedRevocationList {
            issuer: Identifier(data.issuer),
            number: data.number,
            created_at: data.created_at,
            entries: data.entries.0,
            attestation: Attestation::inspect(statement.attestation).map_err(IssuerError::from)?,
        })
    }

    /// Whether a credential is void. Says nothing about those of other issuers.
    pub fn revokes(&self, credential: &Credential) -> bool {
        credential.issuer() == self.issuer
            && self.revoked_at(&credential.subject()).is_some_and(|revoked_at| credential.created_at() <= revoked_at)
    }

    /// Until when the credentials of a subject are void: those that were created then or before. In seconds of Unix time.
    pub fn revoked_at(&self, subject: &Identifier) -> Option<u64> {
        let found = self.entries.binary_search_by_key(subject, |(subject, _)| *subject).ok()?;
        Some(self.entries[found].1)
    }

    /// All subjects with their times, ordered by subject.
    pub fn entries(&self) -> &[(Identifier, u64)] {
        &self.entries
    }

    /// CBOR, as it was received or made.
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// Whose it is.
    pub fn issuer(&self) -> Identifier {
        self.issuer
    }

    /// Which list of the issuer's it is: a higher number replaces a lower one, and nothing else does.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// When it was made, in seconds of Unix time.
    pub fn created_at(&self) -> u64 {
        self.created_at
    }
}

/// What a list says, if it is genuine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnverifiedRevocationList {
    /// Whose it claims to be.
    pub issuer: Identifier,
    /// Which of the issuer's lists.
    pub number: u64,
    /// In seconds of Unix time.
    pub created_at: u64,
    /// Subjects, and until when their credentials are void.
    pub entries: Vec<(Identifier, u64)>,
    /// That of the key that signed it.
    pub attestation: UnverifiedAttestation,
}

impl fmt::Debug for RevocationList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RevocationList({} by {}, {} subjects)", self.number, self.issuer, self.entries.len())
    }
}

/// Everything but the signature.
fn check(data: &ListData, attestation: &Attestation, now: u64) -> Result<(), RevocationError> {
    if data.issuer != attestation.subject().0 {
        return Err(RevocationError::AnotherIssuer);
    }
    if data.created_at < attestation.created_at() {
        return Err(RevocationError::OlderThanItsKey);
    }
    if data.created_at > attestation.expires_at() {
        return Err(RevocationError::NewerThanItsKey);
    }
    if data.created_at > now.saturating_add(CLOCK_SKEW_SECS) {
        return Err(RevocationError::FromTheFuture);
    }
    Ok(())
}

/// Why a revocation list was refused, or not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum RevocationError {
    /// More than [`REVOCATION_LIST_MAX`] bytes.
    #[error("the revocation list has more than {REVOCATION_LIST_MAX} bytes")]
    TooLarge,
    /// Not the CBOR of a list.
    #[error("the revocation list is malformed or cut off")]
    Malformed,
    /// Signed data of another type or version, not what a list has, or subjects out of order.
    #[error("the revocation list is of an unknown kind")]
    NotARevocationList,
    /// Not the issuer's word.
    #[error("the revocation list is not by its issuer: {0}")]
    Issuer(#[from] IssuerError),
    /// It names another issuer than the one that signed it.
    #[error("the revocation list names another issuer than the one that signed it")]
    AnotherIssuer,
    /// Created before its issuer's key.
    #[error("the revocation list is older than the key that signed it")]
    OlderThanItsKey,
    /// Created after its issuer's key had expired.
    #[error("the revocation list is newer than the key that signed it may be")]
    NewerThanItsKey,
    /// Created more than [`CLOCK_SKEW_SECS`] from now.
    #[error("the revocation list was created in the future; are the clocks right?")]
    FromTheFuture,
}

#[cfg(test)]
mod tests;
