//! What the ends of a handshake say about themselves, and whether it is true (`wire.md` E.3).

use crate::identity::{ChangeHistory, Comparison, HistoryError, Identifier, at_end, claimed_identifier};
use crate::purpose_key::{Attestation, AttestationError, PurposePublicKey};
use minicbor::{Decoder, Encoder};

/// How many credentials of a peer are looked at: each costs two verifications. Real nodes show one at most.
pub const CREDENTIALS_MAX: usize = 8;

/// The payload of this end's handshake message. `credentials` are encoded already, each with the attestation of the
/// key that signed it.
pub fn encode_payload(history: &ChangeHistory, attestation: &Attestation, credentials: &[&[u8]]) -> Vec<u8> {
    let mut payload = vec![0x83];
    payload.extend_from_slice(history.encoded());
    payload.extend_from_slice(attestation.encoded());
    append_credentials(&mut payload, credentials);
    payload
}

/// What tells a peer of this end's new credentials: the text of a record (`wire.md` E.5, E.7). [`parse_refresh`] reads it.
pub fn encode_refresh(history: &ChangeHistory, credentials: &[&[u8]]) -> Vec<u8> {
    // A padded message of the second kind, with one field of two elements.
    let mut text = vec![0x82, 0x82, 0x01, 0x81, 0x82];
    text.extend_from_slice(history.encoded());
    append_credentials(&mut text, credentials);
    // The padding, empty.
    text.push(0x40);
    text
}

fn append_credentials(encoded: &mut Vec<u8>, credentials: &[&[u8]]) {
    let mut output = Encoder::new(&mut *encoded);
    output.array(credentials.len() as u64).expect("writing into a vector does not fail");
    credentials.iter().for_each(|credential| encoded.extend_from_slice(credential));
}

/// A payload that is well-formed. Nothing in it is known to be true.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    identifier: Identifier,
    history: &'a [u8],
    attestation: &'a [u8],
    credentials: Credentials<'a>,
}

/// A handshake payload or refresh message is not well-formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer's identity and credentials are malformed or cut off")]
pub struct MalformedClaim;

impl<'a> Claim<'a> {
    /// Finds the parts of a payload. Bytes behind it are ignored.
    ///
    /// # Errors
    /// [`MalformedClaim`].
    pub fn parse(payload: &'a [u8]) -> Result<Self, MalformedClaim> {
        Self::parse_parts(payload).ok_or(MalformedClaim)
    }

    fn parse_parts(payload: &'a [u8]) -> Option<Self> {
        let mut input = Decoder::new(payload);
        if input.array().ok()?.is_some_and(|count| count < 3) {
            return None;
        }
        let history = item(&mut input)?;
        let attestation = item(&mut input)?;
        let credentials = Credentials::parse(&mut input)?;
        Some(Claim { identifier: claimed_identifier(history)?, history, attestation, credentials })
    }

    /// Who the peer says it is: for looking up what is known of it.
    pub fn identifier(&self) -> Identifier {
        self.identifier
    }

    /// Its credentials, each with the attestation of the key that signed it, encoded.
    pub fn credentials(&self) -> Credentials<'a> {
        self.credentials
    }

    /// Decides whether the peer is who it says it is: it must have proved to hold the secret of `static_key`, by the
    /// handshake. `known` is what was stored of this identifier before, `now` in seconds of Unix time.
    ///
    /// Whether that identity is welcome, and what its credentials are worth, is another question.
    ///
    /// # Errors
    /// The first thing that is wrong, in the order of `wire.md` E.3.
    pub fn authenticate(
        &self,
        static_key: &[u8; 32],
        known: Option<&ChangeHistory>,
        now: u64,
    ) -> Result<Peer, AuthenticationError> {
        let (history, comparison) = match known {
            // What was verified when it was stored needs no second look.
            Some(known) if known.encoded() == self.history => (known.clone(), Some(Comparison::Same)),
            Some(known) => {
                let history = ChangeHistory::verify(self.history)?;
                let comparison = history.compared_to(known);
                (history, Some(comparison))
            }
            None => (ChangeHistory::verify(self.history)?, None),
        };
        let is_news = match comparison {
            Some(Comparison::Same) => false,
            Some(Comparison::Newer) | None => true,
            Some(Comparison::Older) => return Err(AuthenticationError::OlderHistory),
            Some(Comparison::Diverged) => return Err(AuthenticationError::DivergedHistory),
        };
        let attestation = Attestation::verify(self.attestation, &history, now)?;
        check_key(&attestation, static_key)?;
        Ok(Peer { expires_at: attestation.expires_at(), history, attestation, is_news })
    }

    /// The same for somebody who was authenticated before, as long as nothing else is known of that identity: what it shows
    /// again, to the byte, needs no second look but for the time.
    ///
    /// # Errors
    /// As [`Claim::authenticate`].
    pub fn authenticate_again(
        &self,
        static_key: &[u8; 32],
        before: &Peer,
        now: u64,
    ) -> Result<Peer, AuthenticationError> {
        if self.history != before.history.encoded() || self.attestation != before.attestation.encoded() {
            return self.authenticate(static_key, Some(&before.history), now);
        }
        before.attestation.check_in_force(now)?;
        check_key(&before.attestation, static_key)?;
        Ok(Peer { is_news: false, ..before.clone() })
    }
}

/// Whether an attestation is of the key that the handshake used.
fn check_key(attestation: &Attestation, static_key: &[u8; 32]) -> Result<(), AuthenticationError> {
    match attestation.key() {
        PurposePublicKey::SecureChannel(key) if key == static_key => Ok(()),
        PurposePublicKey::SecureChannel(_) => Err(AuthenticationError::AnotherKey),
        PurposePublicKey::CredentialSigning(_) => Err(AuthenticationError::AnotherPurpose),
    }
}

/// A peer that is who it says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its identity.
    pub history: ChangeHistory,
    /// Its identity's word for the key that it used.
    pub attestation: Attestation,
    /// Whether `history` must be stored: nothing, or less, was known of it.
    pub is_news: bool,
    /// The last second for which its identity vouches for its key, in Unix time.
    pub expires_at: u64,
}

impl Peer {
    /// Who it is.
    pub fn identifier(&self) -> Identifier {
        self.history.identifier()
    }
}

/// Why a peer is not who it says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AuthenticationError {
    /// Its history does not verify.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// It shows less than what is known of it: a key that it no longer has, or a stolen one.
    #[error("the peer shows an older state of its identity than the one that is known")]
    OlderHistory,
    /// It has another key than the one that is known, after the same beginning.
    #[error("the peer's identity contradicts the one that is known")]
    DivergedHistory,
    /// The attestation of its key does not verify.
    #[error(transparent)]
    Attestation(#[from] AttestationError),
    /// The attested key is not the one that the handshake used.
    #[error("the peer's identity vouches for another key than the one that the peer has")]
    AnotherKey,
    /// The attested key is not for secure channels.
    #[error("the peer's identity vouches for its key, but not for secure channels")]
    AnotherPurpose,
}

/// Credentials in the bytes they came in: the first [`CREDENTIALS_MAX`] of them.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    count: usize,
    elements: &'a [u8],
}

impl<'a> Credentials<'a> {
    fn parse(input: &mut Decoder<'a>) -> Option<Self> {
        let claimed = input.array().ok()?;
        let start = input.position();
        let mut end = start;
        let mut read = 0;
        while !at_end(input, claimed, read).ok()? {
            input.skip().ok()?;
            read += 1;
            if read <= CREDENTIALS_MAX as u64 {
                end = input.position();
            }
        }
        let count = CREDENTIALS_MAX.min(read as usize);
        Some(Credentials { count, elements: &input.input()[start..end] })
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Each by itself, encoded.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        let mut input = Decoder::new(self.elements);
        (0..self.count).map(move |_| item(&mut input).expect("the elements were counted"))
    }
}

/// The next item, encoded.
fn item<'a>(input: &mut Decoder<'a>) -> Option<&'a [u8]> {
    let start = input.position();
    input.skip().ok()?;
    Some(&input.input()[start..input.position()])
}

/// The history and the new credentials of a RefreshCredentials message (`wire.md` E.5, E.7), encoded.
///
/// # Errors
/// [`MalformedClaim`] when the text of the record is anything else.
pub fn parse_refresh(text: &[u8]) -> Result<(&[u8], Credentials<'_>), MalformedClaim> {
    let parse = || {
        let mut input = Decoder::new(text);
        let padded = input.array().ok()?.is_none_or(|count| count >= 2);
        let message = input.array().ok()? == Some(2) && input.u8().ok()? == 1;
        let fields = input.array().ok()?.is_none_or(|count| count >= 1);
        let refresh = input.array().ok()?.is_none_or(|count| count >= 2);
        let history = item(&mut input)?;
        let credentials = Credentials::parse(&mut input)?;
        (padded && message && fields && refresh).then_some((history, credentials))
    };
    parse().ok_or(MalformedClaim)
}

#[cfg(test)]
mod tests;
