//! Credentials as bytes: what the real library issues is read by our crypto, and the other way round (`wire.md` D.1 to
//! D.6). Nobody believes what the other would refuse.

use ockam::identity::Identifier;
use ockam_crypto::{
    Attributes, ChangeHistory, Credential, CredentialError, Issuer, PROJECT_MEMBER_SCHEMA, PublicKey, PurposePublicKey,
    Secret, SigningKey,
};
use ockam_interop::{Attested, RealNode};
use ockam_tests::{Identity, now};
use std::time::Duration;

const HOUR: u64 = 3600;

/// Somebody of ours who issues credentials.
struct OurIssuer {
    identity: Identity,
    issuer: Issuer,
}

impl OurIssuer {
    fn new() -> OurIssuer {
        let identity = Identity::new();
        let issuer = issuer(&identity, 0x80, now() - HOUR, now() + HOUR);
        OurIssuer { identity, issuer }
    }

    /// Has the real node know it.
    fn introduce(&self, to: &RealNode) -> Identifier {
        to.import(self.identity.history.encoded())
    }

    #[track_caller]
    fn issue(&self, subject: &Identifier, attributes: &[(&str, &str)], from: u64, until: u64) -> Vec<u8> {
        let mut all = Attributes::new();
        for (name, value) in attributes {
            all.insert(*name, *value).expect("an attribute");
        }
        let subject = ours(subject);
        let issued = Credential::issue(&self.issuer, subject, None, PROJECT_MEMBER_SCHEMA, &all, from, until);
        issued.expect("a credential").encoded().to_vec()
    }
}

/// What signs for this identity with this key, vouched for from one second to another.
fn issuer(identity: &Identity, key: u8, from: u64, until: u64) -> Issuer {
    let key = SigningKey::new(Secret::new([key; 32]));
    let attestation = identity.attestation(PurposePublicKey::CredentialSigning(key.public()), from, until);
    Issuer::new(&identity.history, attestation, key).expect("it vouches for this key")
}

fn ours(identifier: &Identifier) -> ockam_crypto::Identifier {
    identifier.to_string().parse().expect("identifiers are the same text")
}

fn history(real: &RealNode, identifier: &Identifier) -> ChangeHistory {
    ChangeHistory::verify(&real.history(identifier)).expect("a history of the real library")
}

fn attested(attributes: &[(&str, &str)], expires_at: u64) -> Attested {
    let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Attested { attributes, expires_at }
}

const MANY: [(&str, &str); 5] =
    [("ockam-role", "enroller"), ("a", ""), ("ab", "x"), ("b", "grün"), ("trust_context_id", "interop")];

#[test]
fn ours_reads_what_a_real_node_issues() {
    let real = RealNode::start();
    let subject = real.new_p256_identity();
    for rotations in 0..2 {
        for attributes in [&MANY[..], &[]] {
            let before = now();
            let encoded = real.issue(&subject, attributes, Duration::from_secs(HOUR));
            let authority = history(&real, &real.identifier());
            let read = Credential::verify(&encoded, &ours(&subject), [&authority], now());
            let read = read.unwrap_or_else(|e| panic!("after {rotations} rotations: {e}"));
            let expected = attested(attributes, read.expires_at());
            let texts = read.attributes().texts().map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(texts.collect::<ockam_interop::Texts>(), expected.attributes);
            assert!((before..=now()).contains(&read.created_at()));
            assert_eq!(read.expires_at(), read.created_at() + HOUR);
            assert_eq!(read.schema(), PROJECT_MEMBER_SCHEMA);
            assert_eq!(real.verify(&encoded, &subject, &real.identifier()), Ok(expected));
        }
        real.rotate();
        real.renew_issuing_key();
    }
}

#[test]
fn a_real_node_reads_what_ours_issues() {
    let (real, issuer) = (RealNode::start(), OurIssuer::new());
    let authority = issuer.introduce(&real);
    let subject = real.identifier();
    for attributes in [&MANY[..], &[]] {
        let until = now() + HOUR / 2;
        let encoded = issuer.issue(&subject, attributes, now(), until);
        assert_eq!(real.verify(&encoded, &subject, &authority), Ok(attested(attributes, until)));
    }
}

/// The bytes of both are the same where what is said is the same: Ed25519 has one signature for everything.
#[test]
fn both_encode_alike() {
    let real = RealNode::start();
    let subject = real.identifier();
    let encoded = real.issue(&subject, &MANY, Duration::from_secs(HOUR));
    let read = Credential::inspect(&encoded).expect("a credential");
    let again = OurIssuer::new();
    let mut attributes = Attributes::new();
    for (name, value) in &read.attributes {
        attributes.insert(name.clone(), value.clone()).expect("an attribute");
    }
    let hash = read.subject_latest_change;
    let (from, until) = (read.created_at, read.expires_at);
    let issued = Credential::issue(&again.issuer, ours(&subject), hash, read.schema, &attributes, from, until);
    let issued = issued.expect("a credential");
    // 82 82 58 <length> <data>: the head and what was signed.
    let signed = |encoded: &[u8]| encoded[..4 + usize::from(encoded[3])].to_vec();
    assert_eq!((encoded[2], issued.encoded()[2]), (0x58, 0x58), "data of less than 256 bytes");
    assert_eq!(hex::encode(signed(issued.encoded())), hex::encode(signed(&encoded)));
    assert_eq!(issued.encoded().len(), encoded.len());
}

/// Each refuses, for what is wrong with it, what the other would.
#[test]
fn nobody_believes_what_is_wrong() {
    let (real, issuer, stranger) = (RealNode::start(), OurIssuer::new(), OurIssuer::new());
    let (authority, unknown) = (issuer.introduce(&real), stranger.introduce(&real));
    let (subject, another) = (real.identifier(), real.new_p256_identity());
    let good = issuer.issue(&subject, &MANY, now(), now() + HOUR / 2);
    let ours_says = |encoded: &[u8], of: &Identifier| {
        Credential::verify(encoded, &ours(of), [&issuer.identity.history], now()).map(|_| ())
    };
    let both_refuse = |what: &str, encoded: &[u8], of: &Identifier| {
        assert!(real.verify(encoded, of, &authority).is_err(), "a real node believes {what}");
        let refused = ours_says(encoded, of);
        assert!(refused.is_err(), "ours believes {what}");
        refused.expect_err("it was refused")
    };
    assert!(real.verify(&good, &subject, &authority).is_ok());
    assert_eq!(ours_says(&good, &subject), Ok(()));

    let theirs = both_refuse("a credential of somebody else", &good, &another);
    assert_eq!(theirs, CredentialError::AnotherSubject(ours(&subject)));
    let foreign = stranger.issue(&subject, &MANY, now(), now() + HOUR / 2);
    let refused = both_refuse("an authority that is none", &foreign, &subject);
    assert_eq!(refused, CredentialError::UnknownIssuer(ours(&unknown)));
    assert!(real.verify(&foreign, &subject, &unknown).is_ok(), "it is good where that one is an authority");

    // Its last second is over.
    let expired = issuer.issue(&subject, &MANY, now() - HOUR / 2, now() - 1);
    assert_eq!(both_refuse("an expired one", &expired, &subject), CredentialError::Expired);
    // The clock of the issuer may be 60 s ahead, and the test may take some of it.
    let early = issuer.issue(&subject, &MANY, now() + 120, now() + HOUR / 2);
    assert_eq!(both_refuse("one of the future", &early, &subject), CredentialError::FromTheFuture);
    let soon = issuer.issue(&subject, &MANY, now() + 40, now() + HOUR / 2);
    assert!(real.verify(&soon, &subject, &authority).is_ok());
    assert_eq!(ours_says(&soon, &subject), Ok(()));

    // Every bit of it counts, but for lengths that may be written in another way.
    for place in 0..good.len() {
        let mut changed = good.clone();
        changed[place] ^= 1;
        let (really, by_ours) = (real.verify(&changed, &subject, &authority), ours_says(&changed, &subject));
        assert!(really.is_err() && by_ours.is_err(), "byte {place} changed: {really:?}, {by_ours:?}");
    }
    for length in 0..good.len() {
        both_refuse("a part", &good[..length], &subject);
    }
}

/// A key for channels signs no credentials, and a key that its identity no longer has vouches for nothing.
#[test]
fn nobody_believes_another_key() {
    let (real, first) = (RealNode::start(), OurIssuer::new());
    let authority = first.introduce(&real);
    let subject = real.identifier();
    let good = first.issue(&subject, &MANY, now(), now() + HOUR / 2);
    let credential = real.verify(&good, &subject, &authority);
    assert!(credential.is_ok());
    // The same credential, under the attestation of another key of the same identity.
    let head = good.len() - first.issuer.attestation().encoded().len();
    let for_channels = PurposePublicKey::SecureChannel(*first.identity.static_key.public());
    let channels = first.identity.attestation(for_channels, now() - HOUR, now() + HOUR);
    let other = issuer(&first.identity, 0x81, now() - HOUR, now() + HOUR);
    for attestation in [&channels, other.attestation()] {
        let mixed = [&good[..head], attestation.encoded()].concat();
        assert!(real.verify(&mixed, &subject, &authority).is_err());
        assert!(Credential::verify(&mixed, &ours(&subject), [&first.identity.history], now()).is_err());
    }
    // A rotated identity has to vouch for its keys anew.
    let rotated = first.identity.rotated();
    real.import(rotated.history.encoded());
    assert!(real.verify(&good, &subject, &authority).is_err());
    let refused = Credential::verify(&good, &ours(&subject), [&rotated.history], now());
    assert!(matches!(refused, Err(CredentialError::Issuer(_))), "{refused:?}");
    let renewed = OurIssuer { issuer: issuer(&rotated, 0x82, now() - 60, now() + HOUR), identity: rotated };
    let anew = renewed.issue(&subject, &MANY, now(), now() + HOUR / 2);
    assert!(real.verify(&anew, &subject, &authority).is_ok());
    assert!(Credential::verify(&anew, &ours(&subject), [&renewed.identity.history], now()).is_ok());
}

/// What ours refuses and a real node does not: names with a meaning of their own (H.3), two values of one name, and bytes
/// behind the end.
#[test]
fn ours_is_stricter() {
    let real = RealNode::start();
    let subject = real.identifier();
    let authority = history(&real, &subject);
    for name in ["identifier", "has_credential"] {
        let encoded = real.issue(&subject, &[(name, "Ideadbeef")], Duration::from_secs(HOUR));
        assert!(real.verify(&encoded, &subject, &subject).is_ok());
        let refused = Credential::verify(&encoded, &ours(&subject), [&authority], now());
        assert!(matches!(refused, Err(CredentialError::Attribute(_))), "{refused:?}");
    }
    let mut longer = real.issue(&subject, &MANY, Duration::from_secs(HOUR));
    assert!(Credential::verify(&longer, &ours(&subject), [&authority], now()).is_ok());
    longer.push(0);
    assert!(real.verify(&longer, &subject, &subject).is_ok());
    let refused = Credential::verify(&longer, &ours(&subject), [&authority], now());
    assert_eq!(refused.map(|_| ()), Err(CredentialError::Malformed));
}

/// Identities and issuing keys of P-256, of a real node.
#[test]
fn an_authority_of_p256() {
    let real = RealNode::start();
    let (ed25519, p256) = (real.identifier(), real.new_p256_identity());
    let mut kinds = Vec::new();
    for issuer in [&ed25519, &p256] {
        for renewed in [false, true] {
            if renewed {
                real.new_p256_issuing_key(issuer);
            }
            let encoded = real.issue_as(issuer, &ed25519, &MANY, Duration::from_secs(HOUR));
            assert!(real.verify(&encoded, &ed25519, issuer).is_ok());
            let read = Credential::verify(&encoded, &ours(&ed25519), [&history(&real, issuer)], now());
            assert_eq!(read.map(|read| read.attributes().len()), Ok(MANY.len()), "{issuer}, {renewed}");
            kinds.push(Credential::inspect(&encoded).expect("a credential").attestation.key);
        }
    }
    let is_p256 = |key: &PurposePublicKey| matches!(key, PurposePublicKey::CredentialSigning(PublicKey::P256(_)));
    assert_eq!(kinds.iter().map(is_p256).collect::<Vec<_>>(), [false, true, false, true]);
}

/// Attestations of keys that issue, alone.
#[test]
fn a_real_attestation_is_read() {
    let real = RealNode::start();
    let encoded = real.issue(&real.identifier(), &[], Duration::from_secs(HOUR));
    let read = Credential::inspect(&encoded).expect("a credential").attestation;
    assert_eq!(read.subject, ours(&real.identifier()));
    assert_eq!(read.expires_at - read.created_at, ockam_crypto::PURPOSE_KEY_LIFETIME_SECS);
    assert!(matches!(read.key, PurposePublicKey::CredentialSigning(_)), "{read:?}");
}
