//! Issuers: identities that state something about others, with a key that they vouch for (`wire.md` D.3, D.4).
//!
//! ```text
//!   statement = [ [ data, signature ], attestation ]       the identity signs the attestation, its key the data
//! ```

use crate::identity::{ChangeHistory, Identifier, at_end};
use crate::purpose_key::{Attestation, AttestationError, PurposePublicKey};
use crate::signature::{Blob, Signed, SigningKey, encode};
use minicbor::Decoder;

/// An identity that issues credentials and revocation lists, with the key for it.
#[derive(Debug)]
pub struct Issuer {
    attestation: Attestation,
    key: SigningKey,
}

impl Issuer {
    /// An issuer whose identity vouches for `key`. When is not looked at here: what is issued must fit into the time of
    /// the attestation.
    ///
    /// # Errors
    /// What a reader would refuse anyway.
    pub fn new(history: &ChangeHistory, attestation: Attestation, key: SigningKey) -> Result<Self, IssuerError> {
        // It may have been made with a key that the identity has given up since.
        Attestation::verify(attestation.encoded(), history, attestation.created_at())?;
        match attestation.key() {
            PurposePublicKey::CredentialSigning(public) if *public == key.public() => Ok(Issuer { attestation, key }),
            PurposePublicKey::CredentialSigning(_) => Err(IssuerError::AnotherKey),
            PurposePublicKey::SecureChannel(_) => Err(IssuerError::AnotherPurpose),
        }
    }

    /// Who it is.
    pub fn identifier(&self) -> Identifier {
        self.attestation.subject()
    }

    /// Its identity's word for its key.
    pub fn attestation(&self) -> &Attestation {
        &self.attestation
    }

    /// The encoded statement.
    pub(crate) fn sign(&self, blob: &Blob) -> Vec<u8> {
        let mut encoded = vec![0x82];
        encoded.extend_from_slice(&encode(&Signed { data: blob.bytes(), signature: self.key.sign(blob) }));
        encoded.extend_from_slice(self.attestation.encoded());
        encoded
    }
}

/// What somebody sent as an issuer's. Nothing in it is known to be true.
pub(crate) struct Statement<'a> {
    pub(crate) signed: Signed<'a>,
    pub(crate) attestation: &'a [u8],
}

impl<'a> Statement<'a> {
    /// Stricter than real nodes: bytes behind it are refused.
    pub(crate) fn parse(encoded: &'a [u8]) -> Option<Self> {
        let mut input = Decoder::new(encoded);
        let claimed = input.array().ok()?;
        let signed = input.decode().ok()?;
        let start = input.position();
        input.skip().ok()?;
        let attestation = &encoded[start..input.position()];
        // An array that claims fewer than these two does not come to its end.
        let mut read = 2;
        while !at_end(&mut input, claimed, read).ok()? {
            input.skip().ok()?;
            read += 1;
        }
        (input.position() == encoded.len()).then_some(Statement { signed, attestation })
    }

    /// Whether the issuer signed it; `blob` is the data. Says with which key.
    pub(crate) fn verify(&self, blob: &Blob, issuer: &ChangeHistory, now: u64) -> Result<Attestation, IssuerError> {
        let attestation = Attestation::verify(self.attestation, issuer, now)?;
        match attestation.key() {
            PurposePublicKey::CredentialSigning(key) if key.verifies(blob, &self.signed.signature) => Ok(attestation),
            PurposePublicKey::CredentialSigning(_) => Err(IssuerError::BadSignature),
            PurposePublicKey::SecureChannel(_) => Err(IssuerError::AnotherPurpose),
        }
    }
}

/// Why something is not an issuer's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum IssuerError {
    /// The attestation of the issuer's key does not verify.
    #[error("the issuer's key is not its own: {0}")]
    Attestation(#[from] AttestationError),
    /// The attested key is not for credentials.
    #[error("the issuer's identity vouches for its key, but not for credentials")]
    AnotherPurpose,
    /// The key to sign with is not the attested one.
    #[error("the issuer's identity vouches for another key than the one to sign with")]
    AnotherKey,
    /// Not signed by the attested key.
    #[error("it is not signed by the issuer's key")]
    BadSignature,
}
