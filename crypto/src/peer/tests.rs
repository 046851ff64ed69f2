//! Published payloads, byte for byte, and each check of `wire.md` E.3.

use super::*;
use crate::identity::Validity;
use crate::secret::Secret;
use crate::signature::SigningKey;
use crate::vectors::*;
use crate::x25519::X25519Key;
use proptest::prelude::*;

fn unhex(text: &str) -> Vec<u8> {
    base16ct::lower::decode_vec(text).unwrap()
}

/// `wire.md` E.9 (b): the responder's payload, and the initiator's with a credential.
#[test]
fn published() {
    let bytes = unhex(E9_PAYLOAD_2);
    let claim = Claim::parse(&bytes).unwrap();
    let static_key = unhex("07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c").try_into().unwrap();
    let peer = claim.authenticate(&static_key, None, 1_750_000_000).unwrap();
    assert_eq!(peer.identifier().to_string(), K1_HISTORIES[5].0);
    assert_eq!((claim.identifier(), peer.is_news, peer.expires_at), (peer.identifier(), true, 1_907_680_000));
    assert!(claim.credentials().is_empty());

    let bytes = unhex(E9_PAYLOAD_3_CREDENTIAL);
    let claim = Claim::parse(&bytes).unwrap();
    let static_key = *X25519Key::new(Secret::new(std::array::from_fn(|index| index as u8))).public();
    let peer = claim.authenticate(&static_key, None, 1_750_000_000).unwrap();
    let credentials: Vec<_> = claim.credentials().iter().collect();
    assert_eq!(credentials, [unhex(D6_CREDENTIAL)]);

    let attestation = Attestation::verify(&unhex(D6_ATTESTATION), &peer.history, 1_750_000_000).unwrap();
    assert_eq!(encode_payload(&peer.history, &attestation, &credentials), bytes);
    // Without a credential it has the 323 bytes of `wire.md` E.3.
    assert_eq!(encode_payload(&peer.history, &attestation, &[]).len(), 323);
}

/// `wire.md` K.3.
#[test]
fn published_refresh() {
    let text = unhex(K3_REFRESH);
    let (history, credentials) = parse_refresh(&text).unwrap();
    assert!(ChangeHistory::verify(history).is_ok());
    assert_eq!(credentials.len(), 1);
    let credential = credentials.iter().next().unwrap();
    assert_eq!(5 + history.len() + 1 + credential.len() + 1, text.len());
    assert_eq!(parse_refresh(&unhex("8282028040")).unwrap_err(), MalformedClaim);
    for length in 0..text.len() - 1 {
        assert_eq!(parse_refresh(&text[..length]).unwrap_err(), MalformedClaim, "{length} bytes");
    }
}

/// More than anybody looks at: the first ones stay, and what is behind them is found where it is.
#[test]
fn many_credentials() {
    let alice = Someone::new(1);
    let attestation = alice.attest(PurposePublicKey::SecureChannel(alice.static_key));
    let shown: Vec<_> = (0..20_000u32).map(|number| [&[0x1a], &number.to_be_bytes()[..]].concat()).collect();
    let shown: Vec<_> = shown.iter().map(Vec::as_slice).collect();
    for count in [0, 1, CREDENTIALS_MAX - 1, CREDENTIALS_MAX, CREDENTIALS_MAX + 1, shown.len()] {
        let looked_at = &shown[..count.min(CREDENTIALS_MAX)];
        let payload = encode_payload(&alice.history, &attestation, &shown[..count]);
        let claim = Claim::parse(&payload).unwrap();
        assert!(claim.credentials().iter().eq(looked_at.iter().copied()), "{count} shown");
        assert_eq!((claim.credentials().len(), claim.credentials().is_empty()), (looked_at.len(), count == 0));
        assert!(claim.authenticate(&alice.static_key, None, 2500).is_ok());
        let text = encode_refresh(&alice.history, &shown[..count]);
        let (history, credentials) = parse_refresh(&text).unwrap();
        assert_eq!(history, alice.history.encoded());
        assert!(credentials.iter().eq(looked_at.iter().copied()), "{count} refreshed");
        assert_eq!(parse_refresh(&text[..text.len() - 2]).unwrap_err(), MalformedClaim);
    }
}

struct Someone {
    identity_key: SigningKey,
    history: ChangeHistory,
    static_key: [u8; 32],
}

impl Someone {
    fn new(seed: u8) -> Self {
        let identity_key = SigningKey::new(Secret::new([seed; 32]));
        let history = ChangeHistory::create(&identity_key, Validity { from: 1000, until: 9000 }).unwrap();
        Someone { identity_key, history, static_key: [seed; 32] }
    }

    fn rotated(&self, seed: u8) -> Self {
        let identity_key = SigningKey::new(Secret::new([seed; 32]));
        let validity = Validity { from: 2000, until: 9000 };
        let history = self.history.rotate(&self.identity_key, &identity_key, validity).unwrap();
        Someone { identity_key, history, static_key: self.static_key }
    }

    fn attest(&self, key: PurposePublicKey) -> Attestation {
        Attestation::create(&self.history, &self.identity_key, key, 2000, 3000).unwrap()
    }

    fn payload(&self) -> Vec<u8> {
        encode_payload(&self.history, &self.attest(PurposePublicKey::SecureChannel(self.static_key)), &[])
    }
}

fn authenticate(
    payload: &[u8],
    static_key: &[u8; 32],
    known: Option<&ChangeHistory>,
) -> Result<Peer, AuthenticationError> {
    Claim::parse(payload).unwrap().authenticate(static_key, known, 2500)
}

/// The storage rule: what is known decides what is news and what is refused.
#[test]
fn what_is_known() {
    let before = Someone::new(1);
    let (after, thief) = (before.rotated(2), before.rotated(3));
    let claim = |who: &Someone, known| {
        let peer = authenticate(&who.payload(), &who.static_key, known)?;
        assert_eq!(peer.history, who.history);
        Ok(peer.is_news)
    };
    assert_eq!(claim(&before, None), Ok(true));
    assert_eq!(claim(&before, Some(&before.history)), Ok(false));
    assert_eq!(claim(&after, Some(&before.history)), Ok(true));
    assert_eq!(claim(&after, Some(&after.history)), Ok(false));
    assert_eq!(claim(&before, Some(&after.history)), Err(AuthenticationError::OlderHistory));
    assert_eq!(claim(&thief, Some(&after.history)), Err(AuthenticationError::DivergedHistory));
}

/// What was authenticated once is believed again as it was, and only for as long as it is in force and as it was.
#[test]
fn what_was_authenticated_before() {
    let (alice, mallory) = (Someone::new(1), Someone::new(2));
    let payload = alice.payload();
    let claim = Claim::parse(&payload).unwrap();
    let first = claim.authenticate(&alice.static_key, None, 2500).unwrap();
    assert!(first.is_news);
    let again = claim.authenticate_again(&alice.static_key, &first, 2500).unwrap();
    assert_eq!(again, Peer { is_news: false, ..first.clone() });
    // Everything that is not a signature still counts.
    let again = |payload: &[u8], static_key, now| {
        Claim::parse(payload).unwrap().authenticate_again(static_key, &first, now).map(|peer| peer.is_news)
    };
    assert_eq!(again(&payload, &mallory.static_key, 2500), Err(AuthenticationError::AnotherKey));
    assert_eq!(again(&payload, &alice.static_key, 3000), Ok(false));
    assert_eq!(again(&payload, &alice.static_key, 3001), Err(AttestationError::Expired.into()));
    let early = 2000 - crate::purpose_key::CLOCK_SKEW_SECS;
    assert_eq!(again(&payload, &alice.static_key, early), Ok(false));
    assert_eq!(again(&payload, &alice.static_key, early - 1), Err(AttestationError::FromTheFuture.into()));
    // Every byte that is another one is looked at.
    for place in 0..payload.len() - 1 {
        let mut changed = payload.clone();
        changed[place] ^= 1;
        if let Ok(claim) = Claim::parse(&changed) {
            let refused = claim.authenticate_again(&alice.static_key, &first, 2500);
            assert!(refused.is_err(), "byte {place}: {refused:?}");
        }
    }
    // Another key of the same identity, a longer history, and one that is older than that.
    let other_key = alice.attest(PurposePublicKey::SecureChannel([9; 32]));
    let payload = encode_payload(&alice.history, &other_key, &[]);
    assert_eq!(again(&payload, &[9; 32], 2500), Ok(false));
    let (after, thief) = (alice.rotated(3), alice.rotated(4));
    assert_eq!(again(&after.payload(), &alice.static_key, 2500), Ok(true));
    assert_eq!(again(&mallory.payload(), &mallory.static_key, 2500), Err(AuthenticationError::DivergedHistory));
    let payload = after.payload();
    let later = Claim::parse(&payload).unwrap().authenticate(&after.static_key, None, 2500).unwrap();
    for (payload, error) in
        [(alice.payload(), AuthenticationError::OlderHistory), (thief.payload(), AuthenticationError::DivergedHistory)]
    {
        let claim = Claim::parse(&payload).unwrap();
        assert_eq!(claim.authenticate_again(&alice.static_key, &later, 2500), Err(error));
    }
}

/// P5, P6: parts of several genuine payloads in one, and a genuine payload with another's key.
#[test]
fn confused_parts() {
    let (alice, mallory) = (Someone::new(1), Someone::new(2));
    let refused = |payload: Vec<u8>, static_key, error| {
        assert_eq!(authenticate(&payload, static_key, None), Err(error));
    };
    // Mallory relays what Alice says about herself, over a channel with Mallory's key.
    refused(alice.payload(), &mallory.static_key, AuthenticationError::AnotherKey);
    // Alice's history with Mallory's attestation, and the other way round.
    let attestation = mallory.attest(PurposePublicKey::SecureChannel(mallory.static_key));
    let mixed = encode_payload(&alice.history, &attestation, &[]);
    refused(mixed, &mallory.static_key, AttestationError::WrongSubject.into());
    // A key for credentials with the bytes of the static key.
    let wrong_purpose = alice.attest(PurposePublicKey::CredentialSigning(alice.identity_key.public()));
    let payload = encode_payload(&alice.history, &wrong_purpose, &[]);
    refused(payload, &alice.static_key, AuthenticationError::AnotherPurpose);
    // A history that somebody changed.
    let mut payload = alice.payload();
    payload[30] ^= 1;
    refused(payload, &alice.static_key, HistoryError::BadSignature.into());
    // Too late.
    let payload = alice.payload();
    let claim = Claim::parse(&payload).unwrap();
    let late = claim.authenticate(&alice.static_key, None, 3001);
    assert_eq!(late, Err(AttestationError::Expired.into()));
    assert!(claim.authenticate(&alice.static_key, None, 3000).is_ok());
}

/// `wire.md` 0.1: arrays of indefinite length, unknown elements behind the known ones, bytes behind it all.
#[test]
fn lenient_encodings() {
    let alice = Someone::new(1);
    let payload = alice.payload();
    let body = &payload[1..];
    for lenient in [
        [&[0x9f], body, &[0xff]].concat(),
        [&[0x84], body, &[0xf6]].concat(),
        [&payload[..], &[1, 2, 3]].concat(),
        [&payload[..payload.len() - 1], &[0x9f, 0x01, 0xff]].concat(),
    ] {
        assert!(authenticate(&lenient, &alice.static_key, None).is_ok());
    }
    for length in 0..payload.len() {
        assert_eq!(Claim::parse(&payload[..length]).unwrap_err(), MalformedClaim, "{length} bytes");
    }
}

proptest! {
    /// F5: whatever comes behind a genuine handshake, nobody becomes Alice but Alice.
    #[test]
    fn edits(at: prop::sample::Index, length in 0usize..8, with in prop::collection::vec(any::<u8>(), 0..8)) {
        let alice = Someone::new(1);
        let mut payload = alice.payload();
        let start = at.index(payload.len());
        payload.splice(start..(start + length).min(payload.len()), with);
        if let Ok(claim) = Claim::parse(&payload) {
            let credentials = claim.credentials();
            prop_assert_eq!(credentials.iter().count(), credentials.len());
            if let Ok(peer) = claim.authenticate(&alice.static_key, Some(&alice.history), 2500) {
                prop_assert_eq!(peer.identifier(), alice.history.identifier());
                prop_assert_eq!(peer.history.changes(), alice.history.changes());
            }
        }
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_refresh(&bytes);
        if let Ok(claim) = Claim::parse(&bytes) {
            prop_assert!(claim.authenticate(&[0; 32], None, 0).is_err());
        }
    }
}
