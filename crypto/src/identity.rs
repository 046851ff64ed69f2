//! Identities: who somebody is, as a history of signed changes of key (`wire.md` C).
//!
//! ```text
//!   change 0 ◄──────── change 1 ◄──────── change 2         each names the hash of the one before
//!   key 0              key 1              key 2            signed by its own key and the one before
//!   └ hash = identifier                   └ the key that may attest now
//! ```
//!
//! A [`ChangeHistory`] is verified when it exists: there is no other way to get one.

use crate::signature::{Blob, DataType, PublicKey, Signature, SigningKey, encode, hash};
use minicbor::data::Type;
use minicbor::{Decode, Decoder, Encode, Encoder};
use std::fmt;
use std::str::FromStr;

/// How many changes a history may have: each costs a reader two verifications. Real nodes have no limit of their own,
/// but a history must fit a handshake message.
pub const CHANGES_MAX: usize = 64;

/// The name of an identity: the hash of its first change. Prints as `I` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identifier(pub [u8; 32]);

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "I{}", base16ct::lower::encode_string(&self.0))
    }
}

impl fmt::Debug for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Identifier {
    type Err = InvalidIdentifier;

    fn from_str(text: &str) -> Result<Self, InvalidIdentifier> {
        let digits = text.strip_prefix('I').ok_or(InvalidIdentifier)?;
        let mut bytes = [0; 32];
        match base16ct::mixed::decode(digits, &mut bytes) {
            Ok(decoded) if decoded.len() == 32 => Ok(Identifier(bytes)),
            _ => Err(InvalidIdentifier),
        }
    }
}

/// The text is not an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an identifier is the letter I and 64 hexadecimal digits")]
pub struct InvalidIdentifier;

/// From when to when a key may attest, in seconds of Unix time, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Its first second.
    pub from: u64,
    /// Its last second.
    pub until: u64,
}

/// Ten years: what an identity's key gets unless somebody says otherwise (`wire.md` C.4).
pub const KEY_LIFETIME_SECS: u64 = 315_360_000;

/// One change of an identity: its key from then on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The hash of what was signed.
    pub hash: [u8; 32],
    /// The key.
    pub key: PublicKey,
    /// When it may attest.
    pub validity: Validity,
}

/// A verified history.
#[derive(Clone, PartialEq, Eq)]
pub struct ChangeHistory {
    encoded: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct EncodedChange<'a> {
    #[cbor(b(0), with = "minicbor::bytes")]
    data: &'a [u8],
    #[n(1)]
    signature: Signature,
    #[n(2)]
    previous_signature: Option<Signature>,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct ChangeData {
    #[cbor(n(0), with = "minicbor::bytes")]
    previous_change: Option<[u8; 32]>,
    #[n(1)]
    primary_public_key: PublicKey,
    #[n(2)]
    revoke_all_purpose_keys: bool,
    #[n(3)]
    attestations_valid_from: u64,
    #[n(4)]
    attestations_valid_until: u64,
}

impl ChangeHistory {
    /// A new identity with this key.
    ///
    /// # Errors
    /// [`ChangeError::EndsBeforeItBegins`].
    pub fn create(key: &SigningKey, validity: Validity) -> Result<Self, ChangeError> {
        let none = ChangeHistory { encoded: encode_history(0, &[]), changes: Vec::new() };
        none.with(key, None, validity)
    }

    /// The same identity with another key from now on. Whoever knows this history accepts the longer one; whoever knows
    /// the longer one no longer accepts this.
    ///
    /// Stricter than what others accept: the old key must not have expired by the time the new one begins, so that an
    /// old key that leaked cannot move an identity for ever; and no key may come back, so that of two signatures over
    /// one change neither can stand for the other.
    ///
    /// # Errors
    /// What is not allowed.
    pub fn rotate(&self, old: &SigningKey, new: &SigningKey, validity: Validity) -> Result<Self, ChangeError> {
        let latest = self.latest();
        if old.public() != latest.key {
            return Err(ChangeError::NotTheKey);
        }
        if self.changes.iter().any(|change| change.key == new.public()) {
            return Err(ChangeError::KeyReused);
        }
        if validity.from > latest.validity.until {
            return Err(ChangeError::OldKeyExpired);
        }
        if validity.from < latest.validity.from {
            return Err(ChangeError::TimeWentBack);
        }
        if self.changes.len() == CHANGES_MAX {
            return Err(ChangeError::TooManyChanges);
        }
        self.with(new, Some(old), validity)
    }

    fn with(&self, key: &SigningKey, old: Option<&SigningKey>, validity: Validity) -> Result<Self, ChangeError> {
        if validity.until < validity.from {
            return Err(ChangeError::EndsBeforeItBegins);
        }
        let data = ChangeData {
            previous_change: self.changes.last().map(|change| change.hash),
            primary_public_key: key.public(),
            revoke_all_purpose_keys: false,
            attestations_valid_from: validity.from,
            attestations_valid_until: validity.until,
        };
        let blob = Blob::new(DataType::Change, &data);
        let change = EncodedChange {
            data: blob.bytes(),
            signature: key.sign(&blob),
            previous_signature: old.map(|old| old.sign(&blob)),
        };
        let mut elements = self.elements().to_vec();
        elements.extend_from_slice(&encode(&change));
        let mut changes = self.changes.clone();
        changes.push(Change { hash: blob.hash(), key: key.public(), validity });
        Ok(ChangeHistory { encoded: encode_history(changes.len(), &elements), changes })
    }

    /// Reads and verifies a history. Each change stays in the bytes it came in, since those are signed.
    ///
    /// Stricter than real nodes: bytes behind the history and more than [`CHANGES_MAX`] changes are refused.
    ///
    /// # Errors
    /// The first thing that is wrong (`wire.md` C.3).
    pub fn verify(encoded: &[u8]) -> Result<Self, HistoryError> {
        let mut input = Decoder::new(encoded);
        let claimed = input.array().map_err(|_| HistoryError::Malformed)?;
        let start = input.position();
        let mut end = start;
        let mut changes = Vec::new();
        while !at_end(&mut input, claimed, changes.len() as u64).map_err(|_| HistoryError::Malformed)? {
            if changes.len() == CHANGES_MAX {
                return Err(HistoryError::TooManyChanges);
            }
            let change: EncodedChange = input.decode().map_err(|_| HistoryError::Malformed)?;
            changes.push(verify_change(&change, changes.last())?);
            end = input.position();
        }
        if changes.is_empty() {
            return Err(HistoryError::Empty);
        }
        if input.position() != encoded.len() {
            return Err(HistoryError::TrailingBytes);
        }
        Ok(ChangeHistory { encoded: encode_history(changes.len(), &encoded[start..end]), changes })
    }

    /// Reads and verifies an exported history, in hexadecimal of either case. White space around it is ignored.
    ///
    /// # Errors
    /// As [`ChangeHistory::verify`].
    pub fn from_hex(text: &str) -> Result<Self, HistoryError> {
        let encoded = base16ct::mixed::decode_vec(text.trim()).map_err(|_| HistoryError::NotHexadecimal)?;
        ChangeHistory::verify(&encoded)
    }

    /// For export, in the form that Ockam uses everywhere.
    pub fn to_hex(&self) -> String {
        base16ct::lower::encode_string(&self.encoded)
    }

    /// CBOR, for a handshake or a database.
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// Whose history it is.
    pub fn identifier(&self) -> Identifier {
        Identifier(self.changes[0].hash)
    }

    /// The changes, first to last. Never empty.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The change whose key may attest.
    pub fn latest(&self) -> &Change {
        self.changes.last().expect("a history has at least one change")
    }

    /// What this history is to one that is known of the same identity (`wire.md` C.3, storage rule).
    pub fn compared_to(&self, known: &ChangeHistory) -> Comparison {
        let same = self.changes.iter().zip(&known.changes).take_while(|(ours, theirs)| ours.hash == theirs.hash);
        match (same.count(), self.changes.len(), known.changes.len()) {
            (same, ours, theirs) if same == ours && same == theirs => Comparison::Same,
            (same, _, theirs) if same == theirs => Comparison::Newer,
            (same, ours, _) if same == ours => Comparison::Older,
            _ => Comparison::Diverged,
        }
    }

    /// The encoded changes, without the head of the array around them.
    fn elements(&self) -> &[u8] {
        &self.encoded[encode_history(self.changes.len(), &[]).len()..]
    }
}

impl fmt::Debug for ChangeHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChangeHistory({}, {} changes)", self.identifier(), self.changes.len())
    }
}

/// The identifier that a history claims, without verifying anything: for looking up what is known of it.
pub(crate) fn claimed_identifier(history: &[u8]) -> Option<Identifier> {
    let mut input = Decoder::new(history);
    input.array().ok()?;
    let first: EncodedChange = input.decode().ok()?;
    Some(Identifier(hash(first.data)))
}

/// Whether an array of `claimed` elements ends behind `read` of them. Consumes the end of an indefinite one.
pub(crate) fn at_end(input: &mut Decoder, claimed: Option<u64>, read: u64) -> Result<bool, minicbor::decode::Error> {
    match claimed {
        Some(claimed) => Ok(read == claimed),
        None if input.datatype()? == Type::Break => input.skip().map(|()| true),
        None => Ok(false),
    }
}

fn encode_history(count: usize, elements: &[u8]) -> Vec<u8> {
    let mut output = Encoder::new(Vec::with_capacity(elements.len() + 2));
    output.array(count as u64).expect("writing into a vector does not fail");
    let mut encoded = output.into_writer();
    encoded.extend_from_slice(elements);
    encoded
}

fn verify_change(change: &EncodedChange, previous: Option<&Change>) -> Result<Change, HistoryError> {
    let (blob, data) = Blob::parse::<ChangeData>(DataType::Change, change.data).ok_or(HistoryError::NotAChange)?;
    if data.previous_change != previous.map(|previous| previous.hash) {
        return Err(HistoryError::BrokenChain);
    }
    if previous.is_some_and(|previous| data.attestations_valid_from < previous.validity.from) {
        return Err(HistoryError::TimeWentBack);
    }
    let key = data.primary_public_key;
    if !key.verifies(&blob, &change.signature) {
        return Err(HistoryError::BadSignature);
    }
    if let Some(previous) = previous {
        let signature = change.previous_signature.as_ref().ok_or(HistoryError::MissingPreviousSignature)?;
        if !previous.key.verifies(&blob, signature) {
            return Err(HistoryError::BadPreviousSignature);
        }
    }
    let validity = Validity { from: data.attestations_valid_from, until: data.attestations_valid_until };
    Ok(Change { hash: blob.hash(), key, validity })
}

/// What a history is to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The same changes.
    Same,
    /// All changes of the other one, and more.
    Newer,
    /// Fewer changes, the same so far.
    Older,
    /// Two different changes after the same one, or two identities.
    Diverged,
}

/// Why a change was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The last second of the new key is before its first.
    #[error("the key would expire before it becomes valid")]
    EndsBeforeItBegins,
    /// The key given as the old one is another.
    #[error("the key is not the current key of the identity")]
    NotTheKey,
    /// The identity had this key before.
    #[error("the identity had this key before; make a new one")]
    KeyReused,
    /// The old key may no longer sign.
    #[error("the current key of the identity has expired and cannot sign its successor; create a new identity")]
    OldKeyExpired,
    /// The new key would be valid before the old one.
    #[error("the new key would become valid before the current one did; is the clock right?")]
    TimeWentBack,
    /// The history has [`CHANGES_MAX`] changes.
    #[error("the identity has changed its key {CHANGES_MAX} times; create a new identity")]
    TooManyChanges,
}

/// Why a history was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum HistoryError {
    /// An exported history has something else than hexadecimal digits.
    #[error("the identity is not hexadecimal")]
    NotHexadecimal,
    /// Not the CBOR of a history.
    #[error("the identity is malformed or cut off")]
    Malformed,
    /// Something follows behind.
    #[error("bytes follow behind the identity")]
    TrailingBytes,
    /// No change.
    #[error("the identity has no key")]
    Empty,
    /// More than [`CHANGES_MAX`].
    #[error("the identity has more than {CHANGES_MAX} changes")]
    TooManyChanges,
    /// Signed data of another type or version, or not what a change has.
    #[error("a change of the identity is of an unknown kind")]
    NotAChange,
    /// A change does not name the one before it.
    #[error("a change of the identity does not follow the one before it")]
    BrokenChain,
    /// A key would be valid before the one before it.
    #[error("a key of the identity is valid before the one before it")]
    TimeWentBack,
    /// Not signed by its own key.
    #[error("a change of the identity is not signed by its key")]
    BadSignature,
    /// Not signed by the key before it.
    #[error("a change of the identity lacks the signature of the key before it")]
    MissingPreviousSignature,
    /// The signature by the key before it is wrong.
    #[error("a change of the identity is not signed by the key before it")]
    BadPreviousSignature,
}

#[cfg(test)]
mod tests;
