//! An authority by hand: it signs whatever a test wants to be said, true or not, as a hostile one would. Nothing of the
//! program's own signing is used, so that nothing that it would refuse to sign is out of reach.

use crate::{Identity, now};
use ed25519_dalek::Signer;
use minicbor::Encoder;
use ockam_crypto::{ChangeHistory, KEY_LIFETIME_SECS, Secret, SigningKey, Validity};
use sha2::{Digest, Sha256};

/// What a signed blob says to be (`wire.md` C.2, D.1, D.3).
const ATTESTATION: u8 = 2;
const CREDENTIAL: u8 = 3;

/// An identity that attests things about others.
pub struct Authority {
    /// Who it is.
    pub history: ChangeHistory,
    identity: ed25519_dalek::SigningKey,
    key: ed25519_dalek::SigningKey,
}

/// What is said of a subject (`wire.md` D.3). Each part can be changed before it is signed.
#[derive(Debug, Clone)]
pub struct Statement {
    /// What the blob says to be: 3 is a credential.
    pub kind: u8,
    /// The version of that: 1.
    pub version: u8,
    /// About whom.
    pub subject: Option<[u8; 32]>,
    /// What, in this order.
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// Since when, in seconds of Unix time.
    pub created_at: u64,
    /// Its last second.
    pub expires_at: u64,
}

/// What an identity says of its key for credentials (`wire.md` D.1). Each part can be changed before it is signed.
#[derive(Debug, Clone)]
pub struct Vouching {
    /// Whose key it is said to be.
    pub subject: [u8; 32],
    /// The hash of that identity's latest change.
    pub latest_change: [u8; 32],
    /// It is said to be a key for secure channels, and not one for credentials.
    pub is_for_channels: bool,
    /// Since when, in seconds of Unix time.
    pub created_at: u64,
    /// Its last second.
    pub expires_at: u64,
}

impl Default for Authority {
    fn default() -> Authority {
        Authority::new()
    }
}

impl Authority {
    /// A new one.
    pub fn new() -> Authority {
        let [identity, key] = [(); 2].map(|()| crate::channel::random::<32>());
        let from = now() - 24 * 3600;
        let validity = Validity { from, until: from + KEY_LIFETIME_SECS };
        let history = ChangeHistory::create(&SigningKey::new(Secret::new(identity)), validity);
        Authority {
            history: history.expect("a validity that ends after it begins"),
            identity: ed25519_dalek::SigningKey::from_bytes(&identity),
            key: ed25519_dalek::SigningKey::from_bytes(&key),
        }
    }

    /// Its history, as a command takes it.
    pub fn hex(&self) -> String {
        self.history.to_hex()
    }

    /// What an honest authority would say of somebody now, for an hour.
    pub fn says(&self, of: &Identity, attributes: &[(&str, &str)]) -> Statement {
        let attributes = attributes.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        Statement {
            kind: CREDENTIAL,
            version: 1,
            subject: Some(of.history.identifier().0),
            attributes: attributes.collect(),
            created_at: now(),
            expires_at: now() + 3600,
        }
    }

    /// What an honest authority would say of its key: valid since an hour, and for another day.
    pub fn vouches(&self) -> Vouching {
        Vouching {
            subject: self.history.identifier().0,
            latest_change: self.history.latest().hash,
            is_for_channels: false,
            created_at: now() - 3600,
            expires_at: now() + 24 * 3600,
        }
    }

    /// A credential, signed as one has to be.
    pub fn sign(&self, statement: &Statement) -> Vec<u8> {
        self.sign_with(statement, &self.vouches())
    }

    /// A credential with this word for its key. The key's identity signs that word, whosever it says to be.
    pub fn sign_with(&self, statement: &Statement, vouching: &Vouching) -> Vec<u8> {
        self.with_attestation(&self.signed(statement), &self.attestation(vouching))
    }

    /// The honest credential of somebody.
    pub fn credential(&self, of: &Identity, attributes: &[(&str, &str)]) -> Vec<u8> {
        self.sign(&self.says(of, attributes))
    }

    /// A statement with the signature of the key for credentials.
    pub fn signed(&self, statement: &Statement) -> Vec<u8> {
        let mut data = Vec::new();
        let mut output = Encoder::new(&mut data);
        let written = (|| {
            output.array(5)?;
            match &statement.subject {
                Some(subject) => output.bytes(subject)?,
                None => output.null()?,
            };
            output.null()?.array(2)?.u8(1)?.map(statement.attributes.len() as u64)?;
            for (name, value) in &statement.attributes {
                output.bytes(name)?.bytes(value)?;
            }
            output.u64(statement.created_at)?.u64(statement.expires_at)?.ok()
        })();
        written.expect("writing into a vector does not fail");
        signed(&self.key, statement.version, statement.kind, &data)
    }

    /// A word for the key for credentials, with the signature of the identity.
    pub fn attestation(&self, vouching: &Vouching) -> Vec<u8> {
        let mut data = Vec::new();
        let mut output = Encoder::new(&mut data);
        let key = self.key.verifying_key().to_bytes();
        let written = (|| {
            output.array(5)?.bytes(&vouching.subject)?.bytes(&vouching.latest_change)?;
            match vouching.is_for_channels {
                true => output.array(2)?.u8(0)?.array(1)?.bytes(&key)?,
                false => output.array(2)?.u8(1)?.array(1)?.array(2)?.u8(0)?.array(1)?.bytes(&key)?,
            };
            output.u64(vouching.created_at)?.u64(vouching.expires_at)?.ok()
        })();
        written.expect("writing into a vector does not fail");
        signed(&self.identity, 1, ATTESTATION, &data)
    }

    /// Something signed and the word for the key that signed it, as they are shown.
    pub fn with_attestation(&self, signed: &[u8], attestation: &[u8]) -> Vec<u8> {
        [&[0x82], signed, attestation].concat()
    }
}

fn signed(key: &ed25519_dalek::SigningKey, version: u8, kind: u8, data: &[u8]) -> Vec<u8> {
    let (mut blob, mut signed) = (Vec::new(), Vec::new());
    let written = Encoder::new(&mut blob).array(3).and_then(|it| it.u8(version)?.u8(kind)?.bytes(data)?.ok());
    written.expect("writing into a vector does not fail");
    let signature = key.sign(&Sha256::digest(&blob)).to_bytes();
    let mut output = Encoder::new(&mut signed);
    let written = output.array(2).and_then(|it| it.bytes(&blob)?.array(2)?.u8(0)?.array(1)?.bytes(&signature)?.ok());
    written.expect("writing into a vector does not fail");
    signed
}

#[cfg(test)]
mod tests {
    use super::*;
    use ockam_crypto::{Credential, CredentialError, IssuerError};

    /// What is honest is believed, so that what is not believed is not for the hand that wrote it.
    #[test]
    fn an_honest_statement_verifies() {
        let (authority, somebody) = (Authority::new(), Identity::new());
        let verify =
            |encoded: &[u8]| Credential::verify(encoded, &somebody.history.identifier(), [&authority.history], now());
        let read = verify(&authority.credential(&somebody, &[("role", "dba")])).unwrap();
        assert_eq!(read.attributes().get(b"role"), Some(&b"dba"[..]));
        let vouching = Vouching { is_for_channels: true, ..authority.vouches() };
        let confused = authority.sign_with(&authority.says(&somebody, &[]), &vouching);
        assert_eq!(verify(&confused), Err(CredentialError::Issuer(IssuerError::AnotherPurpose)));
    }
}
