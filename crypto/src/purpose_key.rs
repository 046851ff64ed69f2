//! Purpose keys: what an identity signs so that its own key can stay in the vault (`wire.md` D.1, D.2).

use crate::identity::{ChangeHistory, Identifier, KEY_LIFETIME_SECS};
use crate::signature::{Blob, DataType, PublicKey, Signed, SigningKey, encode};
use minicbor::{Decode, Decoder, Encode};

/// Five years: what a purpose key gets unless somebody says otherwise.
pub const PURPOSE_KEY_LIFETIME_SECS: u64 = KEY_LIFETIME_SECS / 2;

/// How far ahead another's clock may be, in seconds.
pub const CLOCK_SKEW_SECS: u64 = 60;

/// A key with a purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum PurposePublicKey {
    /// X25519: the static key of secure channels.
    #[n(0)]
    SecureChannel(#[cbor(n(0), with = "minicbor::bytes")] [u8; 32]),
    /// Signs credentials.
    #[n(1)]
    CredentialSigning(#[n(0)] PublicKey),
}

/// An identity's word that a purpose key is its own. Verified when it exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attestation {
    encoded: Vec<u8>,
    subject: Identifier,
    key: PurposePublicKey,
    created_at: u64,
    expires_at: u64,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct AttestationData {
    #[cbor(n(0), with = "minicbor::bytes")]
    subject: [u8; 32],
    #[cbor(n(1), with = "minicbor::bytes")]
    subject_latest_change_hash: [u8; 32],
    #[n(2)]
    public_key: PurposePublicKey,
    #[n(3)]
    created_at: u64,
    #[n(4)]
    expires_at: u64,
}

impl Attestation {
    /// Signs a purpose key for the time from `created_at` to `expires_at`, in seconds of Unix time.
    ///
    /// # Errors
    /// What a reader would refuse anyway.
    pub fn create(
        subject: &ChangeHistory,
        identity_key: &SigningKey,
        key: PurposePublicKey,
        created_at: u64,
        expires_at: u64,
    ) -> Result<Self, AttestationError> {
        let latest = subject.latest();
        if identity_key.public() != latest.key {
            return Err(AttestationError::BadSignature);
        }
        let data = AttestationData {
            subject: subject.identifier().0,
            subject_latest_change_hash: latest.hash,
            public_key: key,
            created_at,
            expires_at,
        };
        check(&data, subject, created_at)?;
        let blob = Blob::new(DataType::PurposeKeyAttestation, &data);
        let encoded = encode(&Signed { data: blob.bytes(), signature: identity_key.sign(&blob) });
        Ok(Attestation { encoded, subject: subject.identifier(), key, created_at, expires_at })
    }

    /// Reads and verifies an attestation by an identity whose history is known. `now` is in seconds of Unix time.
    /// Stricter than real nodes: bytes behind it are refused.
    ///
    /// # Errors
    /// The first thing that is wrong (`wire.md` D.2).
    pub fn verify(encoded: &[u8], subject: &ChangeHistory, now: u64) -> Result<Self, AttestationError> {
        let (signed, blob, data) = parse(encoded)?;
        check(&data, subject, now)?;
        if !subject.latest().key.verifies(&blob, &signed.signature) {
            return Err(AttestationError::BadSignature);
        }
        Ok(Attestation {
            encoded: encoded.to_vec(),
            subject: subject.identifier(),
            key: data.public_key,
            created_at: data.created_at,
            expires_at: data.expires_at,
        })
    }

    /// Reads an attestation without believing it.
    ///
    /// # Errors
    /// It is not the CBOR of an attestation.
    pub fn inspect(encoded: &[u8]) -> Result<UnverifiedAttestation, AttestationError> {
        let (_, _, data) = parse(encoded)?;
        Ok(UnverifiedAttestation {
            subject: Identifier(data.subject),
            subject_latest_change: data.subject_latest_change_hash,
            key: data.public_key,
            created_at: data.created_at,
            expires_at: data.expires_at,
        })
    }

    /// Looks once more whether it is in force, for one that was verified at another time. `now` is in seconds of Unix time.
    ///
    /// # Errors
    /// [`AttestationError::FromTheFuture`], [`AttestationError::Expired`].
    pub(crate) fn check_in_force(&self, now: u64) -> Result<(), AttestationError> {
        check_time(self.created_at, self.expires_at, now)
    }

    /// CBOR, as it was received or made.
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// Whose key it is.
    pub fn subject(&self) -> Identifier {
        self.subject
    }

    /// The key.
    pub fn key(&self) -> &PurposePublicKey {
        &self.key
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

/// What an attestation says, true or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnverifiedAttestation {
    /// Whose key it is said to be.
    pub subject: Identifier,
    /// The hash of the change whose key is said to have signed it.
    pub subject_latest_change: [u8; 32],
    /// The key.
    pub key: PurposePublicKey,
    /// Since when, in seconds of Unix time.
    pub created_at: u64,
    /// Its last second.
    pub expires_at: u64,
}

fn parse(encoded: &[u8]) -> Result<(Signed<'_>, Blob<'_>, AttestationData), AttestationError> {
    let mut input = Decoder::new(encoded);
    let signed: Signed = input.decode().map_err(|_| AttestationError::Malformed)?;
    if input.position() != encoded.len() {
        return Err(AttestationError::Malformed);
    }
    let (blob, data) =
        Blob::parse(DataType::PurposeKeyAttestation, signed.data).ok_or(AttestationError::NotAnAttestation)?;
    Ok((signed, blob, data))
}

/// Everything but the signature.
fn check(data: &AttestationData, subject: &ChangeHistory, now: u64) -> Result<(), AttestationError> {
    let latest = subject.latest();
    if data.subject != subject.identifier().0 {
        return Err(AttestationError::WrongSubject);
    }
    if data.subject_latest_change_hash != latest.hash {
        return Err(AttestationError::NotByTheLatestKey);
    }
    if data.created_at < latest.validity.from {
        return Err(AttestationError::OlderThanItsIdentity);
    }
    if data.expires_at > latest.validity.until {
        return Err(AttestationError::OutlivesItsIdentity);
    }
    check_time(data.created_at, data.expires_at, now)
}

fn check_time(created_at: u64, expires_at: u64, now: u64) -> Result<(), AttestationError> {
    if created_at > now.saturating_add(CLOCK_SKEW_SECS) {
        return Err(AttestationError::FromTheFuture);
    }
    if expires_at < now {
        return Err(AttestationError::Expired);
    }
    Ok(())
}

/// Why an attestation was refused, or not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AttestationError {
    /// Not the CBOR of an attestation.
    #[error("the attestation of the key is malformed or cut off")]
    Malformed,
    /// Signed data of another type or version, or not what an attestation has.
    #[error("the attestation of the key is of an unknown kind")]
    NotAnAttestation,
    /// It is about somebody else.
    #[error("the attestation is of another identity's key")]
    WrongSubject,
    /// The identity has changed its key since, or we do not know its latest change.
    #[error("the attestation is not by the latest key of the identity")]
    NotByTheLatestKey,
    /// Created before the identity's key was valid.
    #[error("the attestation is older than the identity's key")]
    OlderThanItsIdentity,
    /// Expires after the identity's key.
    #[error("the attestation outlives the identity's key")]
    OutlivesItsIdentity,
    /// Created more than [`CLOCK_SKEW_SECS`] from now.
    #[error("the attestation was created in the future; are the clocks right?")]
    FromTheFuture,
    /// No longer valid.
    #[error("the attestation has expired")]
    Expired,
    /// Not signed by the identity's key.
    #[error("the attestation is not signed by the identity's key")]
    BadSignature,
}

#[cfg(test)]
mod tests;
