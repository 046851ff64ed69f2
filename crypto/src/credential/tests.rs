//! Published credentials, byte for byte, each rule of `wire.md` D.4 on both sides of its boundary, and what a hostile
//! issuer may sign.

use super::*;
use crate::identity::Validity;
use crate::peer::{Claim, encode_payload, encode_refresh, parse_refresh};
use crate::purpose_key::{AttestationError, PurposePublicKey};
use crate::secret::Secret;
use crate::signature::{PublicKey, Signed, SigningKey, encode};
use crate::vectors::*;
use proptest::prelude::*;

fn unhex(text: &str) -> Vec<u8> {
    base16ct::lower::decode_vec(text).unwrap()
}

fn key(seed: u8) -> SigningKey {
    SigningKey::new(Secret::new([seed; 32]))
}

fn attributes<const N: usize>(pairs: [(&str, &str); N]) -> Attributes {
    let mut attributes = Attributes::new();
    pairs.into_iter().for_each(|(name, value)| attributes.insert(name, value).unwrap());
    attributes
}

/// `wire.md` D.6 and E.9 (b): the issuer's, the client's, and what the client says in a handshake.
#[test]
fn published() {
    let history = ChangeHistory::from_hex(K1_HISTORIES[4].1).unwrap();
    let client = ChangeHistory::from_hex(C5_HISTORY).unwrap();
    let attestation = Attestation::verify(&unhex(D6_ISSUER_ATTESTATION), &history, 1_750_000_000).unwrap();
    let key = SigningKey::new(Secret::new(std::array::from_fn(|index| 0x80 + index as u8)));
    let issuer = Issuer::new(&history, attestation, key).unwrap();
    let said = attributes([("cluster", "production")]);
    let (created_at, expires_at) = (1_750_000_000, 1_750_000_000 + 30 * 24 * 3600);
    let latest = Some(client.latest().hash);
    let schema = PROJECT_MEMBER_SCHEMA;
    let made = Credential::issue(&issuer, client.identifier(), latest, schema, &said, created_at, expires_at).unwrap();
    assert_eq!(base16ct::lower::encode_string(made.encoded()), D6_CREDENTIAL);

    let attestation = Attestation::verify(&unhex(D6_ATTESTATION), &client, 1_750_000_000).unwrap();
    let payload = encode_payload(&client, &attestation, &[made.encoded()]);
    assert_eq!(base16ct::lower::encode_string(&payload), E9_PAYLOAD_3_CREDENTIAL);
    assert_eq!(payload.len(), 698);
    let claim = Claim::parse(&payload).unwrap();
    let shown = claim.credentials().iter().next().unwrap();
    let read = Credential::verify(shown, &claim.identifier(), [&client, &history], created_at).unwrap();
    assert_eq!(read, made);
    assert_eq!((read.issuer(), read.subject()), (history.identifier(), client.identifier()));
    assert_eq!((read.schema(), read.attributes()), (1, &said));
    assert_eq!((read.created_at(), read.expires_at()), (created_at, expires_at));

    let shown = Credential::inspect(shown).unwrap();
    assert_eq!((shown.subject, shown.subject_latest_change), (Some(client.identifier()), latest));
    assert_eq!(shown.attributes, [(b"cluster".to_vec(), b"production".to_vec())]);
    assert_eq!((shown.schema, shown.created_at, shown.expires_at), (1, created_at, expires_at));
    assert_eq!(shown.attestation.subject, history.identifier());
    assert_eq!(shown.attestation.subject_latest_change, history.latest().hash);
    assert_eq!(&shown.attestation.key, issuer.attestation().key());
    assert_eq!((shown.attestation.created_at, shown.attestation.expires_at), (1_750_000_000, 1_907_680_000));
}

/// `wire.md` K.3: by an issuer whose history was not published, so that its attestation cannot be verified. The rest can.
#[test]
fn published_refresh() {
    let text = unhex(K3_REFRESH);
    let (history, credentials) = parse_refresh(&text).unwrap();
    let subject = ChangeHistory::verify(history).unwrap();
    let credentials: Vec<_> = credentials.iter().collect();
    assert_eq!(encode_refresh(&subject, &credentials), text);
    let [encoded] = credentials[..] else { panic!("{} credentials", credentials.len()) };

    let shown = Credential::inspect(encoded).unwrap();
    assert_eq!(shown.subject.unwrap().to_string(), "I904192e6e480915e0d1256d3abf9c3c9c67bc2b4c41ffca77550d8a3f12fbb1e");
    assert_eq!((shown.subject, shown.subject_latest_change), (Some(subject.identifier()), Some(subject.latest().hash)));
    let project = b"767d461c-9851-4c0b-bfc6-6d3334b5bcc2";
    let expected: [(&[u8], &[u8]); 4] = [
        (b"ockam-relay", b"*"),
        (b"ockam-role", b"enroller"),
        (b"project_id", project),
        (b"trust_context_id", project),
    ];
    assert_eq!(shown.attributes, expected.map(|(name, value)| (name.to_vec(), value.to_vec())));
    assert_eq!((shown.schema, shown.created_at, shown.expires_at), (1, 1_704_764_367, 1_704_764_397));
    assert!(shown.attestation.created_at <= shown.created_at && shown.attestation.expires_at >= shown.expires_at);

    let (statement, blob, _) = parse(encoded).unwrap();
    let PurposePublicKey::CredentialSigning(key) = shown.attestation.key else { panic!("another purpose") };
    assert!(key.verifies(&blob, &statement.signed.signature));
    let verified = Credential::verify(encoded, &subject.identifier(), [&subject], 1_704_764_367);
    assert_eq!(verified, Err(CredentialError::UnknownIssuer(shown.attestation.subject)));
}

/// An authority whose identity is valid from 1000 to 9000, and its key for credentials from 2000 to 8000.
struct Authority {
    history: ChangeHistory,
    identity_key: SigningKey,
    issuer: Issuer,
}

impl Authority {
    fn new(seed: u8) -> Self {
        let identity_key = key(seed);
        let history = ChangeHistory::create(&identity_key, Validity { from: 1000, until: 9000 }).unwrap();
        let issuer = issuer(&history, &identity_key, key(seed + 100));
        Authority { history, identity_key, issuer }
    }

    /// Signs anything, as a careless or hostile issuer would.
    fn signed(&self, data: &impl Encode<()>) -> Vec<u8> {
        self.issuer.sign(&Blob::new(DataType::Credential, data))
    }
}

fn issuer(history: &ChangeHistory, identity_key: &SigningKey, key: SigningKey) -> Issuer {
    let purpose = PurposePublicKey::CredentialSigning(key.public());
    Issuer::new(history, Attestation::create(history, identity_key, purpose, 2000, 8000).unwrap(), key).unwrap()
}

const SUBJECT: Identifier = Identifier([5; 32]);

fn data(pairs: &[(&'static [u8], &'static [u8])]) -> CredentialData<'static> {
    CredentialData {
        subject: Some(SUBJECT.0),
        subject_latest_change: None,
        attributes: SubjectAttributes { schema: 1, pairs: Pairs(pairs.to_vec()) },
        created_at: 3000,
        expires_at: 4000,
    }
}

#[test]
fn every_changed_bit_is_refused() {
    let history = ChangeHistory::from_hex(K1_HISTORIES[4].1).unwrap();
    let subject = ChangeHistory::from_hex(C5_HISTORY).unwrap().identifier();
    let credential = unhex(D6_CREDENTIAL);
    let verify = |bytes: &[u8]| Credential::verify(bytes, &subject, [&history], 1_750_000_000);
    for bit in 0..credential.len() * 8 {
        let mut changed = credential.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(verify(&changed).is_err(), "bit {bit}");
    }
    for length in 0..credential.len() {
        assert_eq!(verify(&credential[..length]), Err(CredentialError::Malformed), "{length} bytes");
    }
    assert_eq!(verify(&[&credential[..], &[0]].concat()), Err(CredentialError::Malformed));
    assert!(verify(&credential).is_ok());
}

/// T1, T2: each boundary, from both of its sides.
#[test]
fn times() {
    let authority = Authority::new(1);
    let verify = |created_at, expires_at, now| {
        let bytes = authority.signed(&CredentialData { created_at, expires_at, ..data(&[]) });
        Credential::verify(&bytes, &SUBJECT, [&authority.history], now).map(|_| ())
    };
    assert_eq!(verify(3000, 4000, 3500), Ok(()));
    assert_eq!(verify(2000, 4000, 3500), Ok(()));
    assert_eq!(verify(1999, 4000, 3500), Err(CredentialError::OlderThanItsKey));
    assert_eq!(verify(3000, 8000, 3500), Ok(()));
    assert_eq!(verify(3000, 8001, 3500), Err(CredentialError::OutlivesItsKey));
    assert_eq!(verify(3000, u64::MAX, 3500), Err(CredentialError::OutlivesItsKey));
    assert_eq!(verify(3060, 4000, 3000), Ok(()));
    assert_eq!(verify(3061, 4000, 3000), Err(CredentialError::FromTheFuture));
    for (now, expected) in [(3999, Ok(())), (4000, Ok(())), (4001, Err(CredentialError::Expired))] {
        assert_eq!(verify(3000, 4000, now), expected, "at {now}");
    }
    // It would never have been valid.
    assert_eq!(verify(4000, 3999, 3999), Ok(()), "real nodes do not compare the two");
    assert_eq!(verify(4000, 3999, 4000), Err(CredentialError::Expired));
    // The key's own time ends it all, and so does a clock at either of its ends.
    let future = IssuerError::from(AttestationError::FromTheFuture).into();
    let expired = IssuerError::from(AttestationError::Expired).into();
    assert_eq!(verify(3000, 8000, 8000), Ok(()));
    assert_eq!(verify(3000, 8000, 8001), Err(expired));
    assert_eq!(verify(2000, 8000, 1940), Ok(()));
    assert_eq!(verify(2000, 8000, 1939), Err(future));
    assert_eq!(verify(2000, 8000, 0), Err(future));
    assert_eq!(verify(2000, 8000, u64::MAX), Err(expired));
}

/// An authority for ever, and a clock at the end of its numbers: nothing wraps.
#[test]
fn the_end_of_time() {
    let validity = Validity { from: 0, until: u64::MAX };
    let history = ChangeHistory::create(&key(1), validity).unwrap();
    let purpose = PurposePublicKey::CredentialSigning(key(2).public());
    let attestation = Attestation::create(&history, &key(1), purpose, 0, u64::MAX).unwrap();
    let issuer = Issuer::new(&history, attestation, key(2)).unwrap();
    for (created_at, now) in [(0, 0), (0, u64::MAX), (u64::MAX, u64::MAX - 60), (u64::MAX, u64::MAX)] {
        let made = Credential::issue(&issuer, SUBJECT, None, 1, &Attributes::new(), created_at, u64::MAX).unwrap();
        assert_eq!(Credential::verify(made.encoded(), &SUBJECT, [&history], now), Ok(made));
    }
}

/// Whose word it is, and about whom.
#[test]
fn subjects_and_issuers() {
    let (authority, other) = (Authority::new(1), Authority::new(2));
    let bytes = authority.signed(&data(&[]));
    let verify = |bytes: &[u8], subject, authorities: &[&ChangeHistory]| {
        Credential::verify(bytes, subject, authorities.iter().copied(), 3500).map(|credential| credential.issuer())
    };
    let (ours, theirs) = (authority.history.identifier(), other.history.identifier());
    assert_eq!(verify(&bytes, &SUBJECT, &[&authority.history]), Ok(ours));
    assert_eq!(verify(&bytes, &SUBJECT, &[&other.history, &authority.history]), Ok(ours));
    assert_eq!(verify(&bytes, &SUBJECT, &[&other.history]), Err(CredentialError::UnknownIssuer(ours)));
    assert_eq!(verify(&bytes, &SUBJECT, &[]), Err(CredentialError::UnknownIssuer(ours)));
    assert_eq!(verify(&bytes, &theirs, &[&authority.history]), Err(CredentialError::AnotherSubject(SUBJECT)));
    let nobody = authority.signed(&CredentialData { subject: None, ..data(&[]) });
    assert_eq!(verify(&nobody, &SUBJECT, &[&authority.history]), Err(CredentialError::NoSubject));
    // An authority may speak of itself.
    let itself = authority.signed(&CredentialData { subject: Some(ours.0), ..data(&[]) });
    assert_eq!(verify(&itself, &ours, &[&authority.history]), Ok(ours));
}

/// P5, P6: genuine parts of several credentials in one.
#[test]
fn confused_parts() {
    let (authority, other) = (Authority::new(1), Authority::new(2));
    let bytes = authority.signed(&data(&[]));
    let verify = |bytes: &[u8]| {
        let authorities = [&authority.history, &other.history];
        Credential::verify(bytes, &SUBJECT, authorities, 3500).map(|credential| credential.issuer())
    };
    let attested_by = |attestation: &Attestation| {
        let (statement, ..) = parse(&bytes).unwrap();
        [&[0x82], &encode(&statement.signed)[..], attestation.encoded()].concat()
    };
    assert_eq!(attested_by(authority.issuer.attestation()), bytes);
    assert_eq!(verify(&attested_by(other.issuer.attestation())), Err(IssuerError::BadSignature.into()));
    // The same authority, another key.
    let renewed = issuer(&authority.history, &authority.identity_key, key(50));
    assert_eq!(verify(&attested_by(renewed.attestation())), Err(IssuerError::BadSignature.into()));
    // A key of the same bytes for secure channels.
    let PublicKey::Ed25519(public) = key(101).public() else { unreachable!("our keys are Ed25519") };
    let purpose = PurposePublicKey::SecureChannel(public);
    let channel = Attestation::create(&authority.history, &authority.identity_key, purpose, 2000, 8000).unwrap();
    assert_eq!(verify(&attested_by(&channel)), Err(IssuerError::AnotherPurpose.into()));
    assert_eq!(Issuer::new(&authority.history, channel, key(101)).unwrap_err(), IssuerError::AnotherPurpose);
    // Another identity vouches for the same key, and says so as if it were the authority.
    let taken = issuer(&other.history, &other.identity_key, key(101));
    assert_eq!(verify(&attested_by(taken.attestation())), Ok(other.history.identifier()), "it gave away its name");
    let mut forged = taken.attestation().encoded().to_vec();
    let (from, to) = (other.history.identifier().0, authority.history.identifier().0);
    for at in 0..forged.len() - 32 {
        if forged[at..at + 32] == from {
            forged[at..at + 32].copy_from_slice(&to);
        }
    }
    let forged = [&bytes[..bytes.len() - authority.issuer.attestation().encoded().len()], &forged].concat();
    let refused = IssuerError::from(AttestationError::BadSignature).into();
    assert_eq!(verify(&forged), Err(refused));
    // The authority's identity key in place of the attested one.
    let blob = Blob::new(DataType::Credential, &data(&[]));
    let signed = Signed { data: blob.bytes(), signature: authority.identity_key.sign(&blob) };
    let by_identity = [&[0x82], &encode(&signed)[..], authority.issuer.attestation().encoded()].concat();
    assert_eq!(verify(&by_identity), Err(IssuerError::BadSignature.into()));
}

/// Issuers of long ago: what they issued is void once their identity has another key.
#[test]
fn rotation_ends_credentials() {
    let Authority { history, identity_key, issuer: before } = Authority::new(1);
    let rotated = history.rotate(&identity_key, &key(3), Validity { from: 1500, until: 9000 }).unwrap();
    let credential = Credential::issue(&before, SUBJECT, None, 1, &Attributes::new(), 3000, 4000).unwrap();
    let refused = IssuerError::from(AttestationError::NotByTheLatestKey);
    assert_eq!(Credential::verify(credential.encoded(), &SUBJECT, [&rotated], 3500), Err(refused.into()));
    assert_eq!(Issuer::new(&rotated, before.attestation().clone(), key(101)).unwrap_err(), refused);
    assert_eq!(Credential::verify(credential.encoded(), &SUBJECT, [&history], 3500), Ok(credential));

    let after = issuer(&rotated, &key(3), key(101));
    let credential = Credential::issue(&after, SUBJECT, None, 1, &Attributes::new(), 3000, 4000).unwrap();
    assert_eq!(Credential::verify(credential.encoded(), &SUBJECT, [&rotated], 3500), Ok(credential.clone()));
    assert_eq!(Credential::verify(credential.encoded(), &SUBJECT, [&history], 3500), Err(refused.into()));
}

/// Nothing is made that a reader would refuse.
#[test]
fn issuing_rules() {
    let Authority { history, identity_key, issuer } = Authority::new(1);
    let issue = |attributes: &Attributes, from, until| {
        let credential = Credential::issue(&issuer, SUBJECT, None, 1, attributes, from, until)?;
        // In the first of its seconds, and in the last.
        for now in [from, until] {
            assert_eq!(Credential::verify(credential.encoded(), &SUBJECT, [&history], now).as_ref(), Ok(&credential));
        }
        Ok(())
    };
    let none = Attributes::new();
    assert_eq!(issue(&none, 2000, 8000), Ok(()));
    assert_eq!(issue(&none, 3000, 3000), Ok(()));
    assert_eq!(issue(&none, 1999, 8000), Err(CredentialError::OlderThanItsKey));
    assert_eq!(issue(&none, 2000, 8001), Err(CredentialError::OutlivesItsKey));
    assert_eq!(issue(&none, 3000, 2999), Err(CredentialError::Expired));

    let mut large = Attributes::new();
    (0..3).for_each(|name| large.insert([name], vec![0; ATTRIBUTE_VALUE_MAX]).unwrap());
    assert_eq!(issue(&large, 3000, 4000), Ok(()));
    large.insert([3], vec![0; ATTRIBUTE_VALUE_MAX]).unwrap();
    assert_eq!(issue(&large, 3000, 4000), Err(CredentialError::TooLarge));

    let purpose = PurposePublicKey::CredentialSigning(key(7).public());
    let attestation = Attestation::create(&history, &identity_key, purpose, 2000, 8000).unwrap();
    assert_eq!(Issuer::new(&history, attestation.clone(), key(8)).unwrap_err(), IssuerError::AnotherKey);
    let stranger = Authority::new(2).history;
    let refused = IssuerError::from(AttestationError::WrongSubject);
    assert_eq!(Issuer::new(&stranger, attestation.clone(), key(7)).unwrap_err(), refused);
    let issuer = Issuer::new(&history, attestation, key(7)).unwrap();
    assert_eq!(issuer.identifier(), history.identifier());
    assert!(!format!("{issuer:?}").contains("07, 07"), "{issuer:?}");
}

/// Exactly as large as may be, and a byte more.
#[test]
fn the_largest() {
    let Authority { history, issuer, .. } = Authority::new(1);
    let with = |last: usize| {
        let mut large = Attributes::new();
        (0..3).for_each(|name| large.insert([name], vec![0; ATTRIBUTE_VALUE_MAX]).unwrap());
        large.insert([3], vec![0; last]).unwrap();
        Credential::issue(&issuer, SUBJECT, None, 1, &large, 3000, 4000)
    };
    let fits = CREDENTIAL_MAX - with(1000).unwrap().encoded().len() + 1000;
    let largest = with(fits).unwrap();
    assert_eq!(largest.encoded().len(), CREDENTIAL_MAX);
    assert_eq!(Credential::verify(largest.encoded(), &SUBJECT, [&history], 3500).as_ref(), Ok(&largest));
    assert_eq!(with(fits + 1), Err(CredentialError::TooLarge));
    let longer = [largest.encoded(), &[0]].concat();
    assert_eq!(Credential::verify(&longer, &SUBJECT, [&history], 3500), Err(CredentialError::TooLarge));
    assert_eq!(Credential::inspect(&longer), Err(CredentialError::TooLarge));
}

/// What an issuer may say of a subject, and what it may not, whoever made it.
#[test]
fn attribute_rules() {
    let authority = Authority::new(1);
    let long = |length: usize| -> &'static [u8] { vec![b'x'; length].leak() };
    let check = |pairs: &[(&'static [u8], &'static [u8])], expected: Result<(), AttributeError>| {
        let mut attributes = Attributes::new();
        let inserted = pairs.iter().try_for_each(|(name, value)| attributes.insert(*name, *value));
        assert_eq!(inserted, expected);
        let bytes = authority.signed(&data(pairs));
        let verified = Credential::verify(&bytes, &SUBJECT, [&authority.history], 3500);
        match expected {
            Ok(()) => assert_eq!(verified.unwrap().attributes(), &attributes),
            Err(error) => assert_eq!(verified, Err(error.into())),
        }
        // A person may look at all of them.
        let shown = Credential::inspect(&bytes).unwrap().attributes;
        assert!(shown.iter().map(|(name, value)| (&name[..], &value[..])).eq(pairs.iter().copied()));
    };
    check(&[], Ok(()));
    check(&[(b"ockam-relay", b"*"), (b"empty", b"")], Ok(()));
    check(&[(b"", b"value")], Err(AttributeError::EmptyName));
    check(&[(long(ATTRIBUTE_NAME_MAX), b"")], Ok(()));
    check(&[(long(ATTRIBUTE_NAME_MAX + 1), b"")], Err(AttributeError::NameTooLong));
    check(&[(b"name", long(ATTRIBUTE_VALUE_MAX))], Ok(()));
    check(&[(b"name", long(ATTRIBUTE_VALUE_MAX + 1))], Err(AttributeError::ValueTooLong));
    check(&[(b"role", b"user"), (b"role", b"admin")], Err(AttributeError::Duplicate));
    check(&[(b"role", b"user"), (b"other", b""), (b"role", b"user")], Err(AttributeError::Duplicate));
    check(&[(b"identifier", b"I00")], Err(AttributeError::Reserved("identifier")));
    check(&[(b"a", b""), (b"has_credential", b"true")], Err(AttributeError::Reserved("has_credential")));
    check(&[(b"Identifier", b""), (b"identifier ", b""), (b"identifier\0", b"")], Ok(()));
    // Quotes, control characters, no UTF-8 at all: bytes, no more.
    check(&[(b"\"'); drop table--", b"\x1b[2J"), (b"\xff", b"\xc3\x28"), (b"name", b"\xff")], Ok(()));
    let many = |count: usize| -> Vec<(&'static [u8], &'static [u8])> {
        (0..count).map(|name| (&*format!("{name}").into_bytes().leak(), &b""[..])).collect()
    };
    check(&many(ATTRIBUTES_MAX), Ok(()));
    check(&many(ATTRIBUTES_MAX + 1), Err(AttributeError::TooMany));
    check(&many(1000), Err(AttributeError::TooMany));
}

/// 10,000 attributes, and one of 1 MiB: refused for their size before anything is read.
#[test]
fn monsters() {
    let authority = Authority::new(1);
    let names: Vec<_> = (0..10_000).map(|name: u32| name.to_be_bytes()).collect();
    let mut many = data(&[]);
    many.attributes.pairs = Pairs(names.iter().map(|name| (&name[..], &b""[..])).collect());
    let value = vec![0; 1 << 20];
    let mut long = data(&[]);
    long.attributes.pairs = Pairs(vec![(b"name", &value)]);
    for bytes in [authority.signed(&many), authority.signed(&long)] {
        let verified = Credential::verify(&bytes, &SUBJECT, [&authority.history], 3500);
        assert_eq!(verified, Err(CredentialError::TooLarge));
    }
}

/// The order of the names' bytes, neither that of their lengths nor that in which they were said.
#[test]
fn order() {
    let pairs = [("b", "1"), ("aa", "2"), ("B", "3"), ("a", "4")];
    let Authority { history, issuer, .. } = Authority::new(1);
    let made = Credential::issue(&issuer, SUBJECT, None, 1, &attributes(pairs), 3000, 4000).unwrap();
    let names: Vec<_> = made.attributes().texts().map(|(name, _)| name).collect();
    assert_eq!(names, ["B", "a", "aa", "b"]);
    let map = b"\xa4\x41B\x413\x41a\x414\x42aa\x412\x41b\x411";
    assert!(made.encoded().windows(map.len()).any(|part| part == map));
    // Read in any order.
    let unsorted = Authority::new(1).signed(&data(&[(b"b", b"1"), (b"aa", b"2"), (b"B", b"3"), (b"a", b"4")]));
    let read = Credential::verify(&unsorted, &SUBJECT, [&history], 3500).unwrap();
    assert_eq!(read.attributes(), made.attributes());
}

/// Policies see text; a terminal sees nothing that moves its cursor.
#[test]
fn bytes_and_text() {
    let mut attributes = attributes([("name", "välue")]);
    attributes.insert(b"\xff".to_vec(), "value").unwrap();
    attributes.insert("bytes", b"\xff\x1b[2J".to_vec()).unwrap();
    assert_eq!(attributes.texts().collect::<Vec<_>>(), [("name", "välue")]);
    assert_eq!((attributes.len(), attributes.is_empty()), (3, false));
    assert_eq!(attributes.get(b"bytes"), Some(&b"\xff\x1b[2J"[..]));
    assert_eq!(attributes.get(b"byte"), None);
    let shown = format!("{attributes:?}");
    assert!(shown.is_ascii() && !shown.contains('\x1b'), "{shown}");
}

/// Anything as the signed data of a credential.
struct Raw<'a>(&'a [u8]);

impl Encode<()> for Raw<'_> {
    fn encode<W: Write>(&self, output: &mut Encoder<W>, _: &mut ()) -> Result<(), EncodeError<W::Error>> {
        output.writer_mut().write_all(self.0).map_err(EncodeError::write)
    }
}

/// `wire.md` 0.1: what real nodes read, and what they do not.
#[test]
fn lenient_encodings() {
    let authority = Authority::new(1);
    let verify = |bytes: &[u8]| {
        let credential = Credential::verify(bytes, &SUBJECT, [&authority.history], 3500)?;
        assert_eq!(credential.encoded(), bytes);
        assert_eq!(credential.attributes(), &attributes([("a", "b"), ("c", "d")]));
        Ok((credential.created_at(), credential.expires_at()))
    };
    let inner = |head: &[u8], attributes: &[u8], times: &[u8]| {
        let subject = [&[0x58, 32], &SUBJECT.0[..]].concat();
        authority.signed(&Raw(&[head, &subject, &[0xf6], attributes, times].concat()))
    };
    let (map, times) = (b"\x82\x01\xa2\x41a\x41b\x41c\x41d", b"\x19\x0b\xb8\x19\x0f\xa0");
    let ordinary = inner(&[0x85], map, times);
    assert_eq!(ordinary, authority.signed(&data(&[(b"a", b"b"), (b"c", b"d")])));
    let accepted: [(&str, Vec<u8>); 8] = [
        ("as it is made", ordinary.clone()),
        ("arrays without a length", inner(&[0x9f], map, b"\x19\x0b\xb8\x19\x0f\xa0\xff")),
        ("a map without a length", inner(&[0x85], b"\x82\x01\xbf\x41a\x41b\x41c\x41d\xff", times)),
        ("numbers in more bytes than they need", inner(&[0x98, 5], map, b"\x1a\0\0\x0b\xb8\x1b\0\0\0\0\0\0\x0f\xa0")),
        (
            "lengths in more bytes than they need",
            inner(&[0x85], b"\x82\x01\xb8\x02\x58\x01a\x41b\x41c\x59\0\x01d", times),
        ),
        ("fields of a later version", inner(&[0x86], map, b"\x19\x0b\xb8\x19\x0f\xa0\x82\x01\x02")),
        ("an array around it without a length", [&[0x9f], &ordinary[1..], &[0xff]].concat()),
        ("something behind the attestation", [&[0x83], &ordinary[1..], &[0xf6]].concat()),
    ];
    for (sentence, bytes) in accepted {
        assert_eq!(verify(&bytes), Ok((3000, 4000)), "{sentence}");
    }
    let refused: [(&str, [&[u8]; 3]); 13] = [
        ("no times", [&[0x83], map, b""]),
        ("one time", [&[0x84], map, b"\x19\x0b\xb8"]),
        ("no attributes", [&[0x85], b"\xf6", times]),
        ("no map", [&[0x85], b"\x81\x01", times]),
        ("a name in pieces", [&[0x85], b"\x82\x01\xa1\x5f\x41a\xff\x41b", times]),
        ("a name that is text", [&[0x85], b"\x82\x01\xa1\x61a\x41b", times]),
        ("a value that is text", [&[0x85], b"\x82\x01\xa1\x41a\x61b", times]),
        ("a map with a name and no value", [&[0x85], b"\x82\x01\xbf\x41a\xff", times]),
        (
            "a map that is longer than it all",
            [&[0x85], b"\x82\x01\xbb\xff\xff\xff\xff\xff\xff\xff\xff\x41a\x41b", times],
        ),
        ("a name that is longer than it all", [&[0x85], b"\x82\x01\xa1\x5b\xff\xff\xff\xff\xff\xff\xff\xff", times]),
        ("a schema below zero", [&[0x85], b"\x82\x20\xa0", times]),
        ("a time beyond all numbers", [&[0x85], map, b"\x19\x0b\xb8\xc2\x49\x01\0\0\0\0\0\0\0\0"]),
        ("a time with a fraction", [&[0x85], map, b"\xfb\x7f\xf8\0\0\0\0\0\0\x19\x0f\xa0"]),
    ];
    for (sentence, [head, attributes, times]) in refused {
        assert_eq!(verify(&inner(head, attributes, times)), Err(CredentialError::NotACredential), "{sentence}");
    }
    for (sentence, bytes) in [
        ("half of it", [&[0x81], &ordinary[1..]].concat()),
        ("an end that does not come", [&[0x9f], &ordinary[1..]].concat()),
        ("two ends", [&[0x9f], &ordinary[1..], &[0xff, 0xff]].concat()),
        ("something behind it", [&ordinary[..], &[0xf6]].concat()),
        ("a tag before it", [&[0xc1], &ordinary[..]].concat()),
        ("nothing", vec![]),
    ] {
        assert_eq!(verify(&bytes), Err(CredentialError::Malformed), "{sentence}");
    }
}

/// As deep as it is long, everywhere: neither the stack nor much memory is used.
#[test]
fn nesting() {
    let authority = Authority::new(1);
    let ordinary = authority.signed(&data(&[]));
    for nested in [0x81, 0x9f, 0xa1, 0xbf, 0xc1, 0xd8] {
        let deep = |length: usize| vec![nested; length];
        for bytes in [
            deep(CREDENTIAL_MAX),
            [&[0x82], &deep(CREDENTIAL_MAX - 1)[..]].concat(),
            [&[0x83], &ordinary[1..], &deep(CREDENTIAL_MAX - ordinary.len())].concat(),
            authority.signed(&Raw(&deep(CREDENTIAL_MAX - 1000))),
            authority.signed(&Raw(&[&[0x86][..], &encode(&data(&[]))[1..], &deep(CREDENTIAL_MAX - 1000)].concat())),
        ] {
            assert!(bytes.len() <= CREDENTIAL_MAX);
            assert!(Credential::inspect(&bytes).is_err());
            assert!(Credential::verify(&bytes, &SUBJECT, [&authority.history], 3500).is_err());
        }
    }
}

/// Names that are the same, reserved, empty and too long often enough.
fn pairs() -> impl Strategy<Value = Vec<(Vec<u8>, Vec<u8>)>> {
    let name = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..3),
        1 => prop::sample::select(vec!["identifier", "has_credential"]).prop_map(|name| name.as_bytes().to_vec()),
        1 => (126usize..131).prop_map(|length| vec![b'n'; length]),
    ];
    let value = prop_oneof![8 => prop::collection::vec(any::<u8>(), 0..20), 1 => (4094usize..4099).prop_map(|length| vec![0; length])];
    prop::collection::vec((name, value), 0..80)
}

proptest! {
    /// Whatever an issuer signs: what is accepted keeps every rule, and what keeps them is accepted.
    #[test]
    fn any_attributes(pairs in pairs(), schema: u64, created_at in 1900u64..2200, lifetime in 0u64..7000, now in 1800u64..8200) {
        let authority = Authority::new(1);
        let borrowed: Vec<_> = pairs.iter().map(|(name, value)| (&name[..], &value[..])).collect();
        let expires_at = created_at + lifetime;
        let bytes = authority.signed(&CredentialData {
            attributes: SubjectAttributes { schema, pairs: Pairs(borrowed.clone()) },
            created_at,
            expires_at,
            ..data(&[])
        });
        let names: std::collections::BTreeSet<_> = borrowed.iter().map(|(name, _)| *name).collect();
        let allowed = names.len() == pairs.len()
            && pairs.len() <= 64
            && borrowed.iter().all(|(name, value)| (1..=128).contains(&name.len()) && value.len() <= 4096)
            && !names.contains(&b"identifier"[..])
            && !names.contains(&b"has_credential"[..]);
        let in_time = created_at >= 2000 && expires_at <= 8000 && created_at <= now + 60 && expires_at >= now;
        let key_in_time = (1940..=8000).contains(&now);
        let verified = Credential::verify(&bytes, &SUBJECT, [&authority.history], now);
        prop_assert_eq!(verified.is_ok(), allowed && in_time && key_in_time && bytes.len() <= CREDENTIAL_MAX, "{:?}", verified);
        if let Ok(credential) = verified {
            let read: Vec<_> = credential.attributes().iter().collect();
            let mut expected = borrowed.clone();
            expected.sort();
            prop_assert_eq!(read, expected);
            prop_assert_eq!((credential.schema(), credential.encoded()), (schema, &bytes[..]));
            let attributes = credential.attributes().clone();
            let made = Credential::issue(&authority.issuer, SUBJECT, None, schema, &attributes, created_at, expires_at);
            let again = Credential::verify(made.clone().unwrap().encoded(), &SUBJECT, [&authority.history], now);
            prop_assert_eq!(again, made);
        }
        if bytes.len() <= CREDENTIAL_MAX {
            let shown = Credential::inspect(&bytes).unwrap();
            prop_assert_eq!((shown.attributes, shown.created_at, shown.expires_at), (pairs, created_at, expires_at));
        }
    }

    /// Whatever an issuer signs as data, near to what it should: accepted is what keeps the rules, whoever looks.
    #[test]
    fn any_data(at: prop::sample::Index, length in 0usize..8, with in prop::collection::vec(any::<u8>(), 0..8)) {
        let authority = Authority::new(1);
        let mut edited = encode(&data(&[(b"a", b"b"), (b"cluster", b"production")]));
        let start = at.index(edited.len());
        let end = (start + length).min(edited.len());
        edited.splice(start..end, with);
        let signed = authority.signed(&Raw(&edited));
        let shown = Credential::inspect(&signed);
        let verified = Credential::verify(&signed, &SUBJECT, [&authority.history], 3500);
        let Ok(shown) = shown else {
            prop_assert_eq!(shown.unwrap_err(), verified.unwrap_err());
            return Ok(());
        };
        if let Ok(credential) = verified {
            prop_assert_eq!((credential.encoded(), shown.subject), (&signed[..], Some(SUBJECT)));
            prop_assert_eq!((credential.created_at(), credential.expires_at()), (shown.created_at, shown.expires_at));
            prop_assert!(credential.created_at() <= 3560 && credential.expires_at() >= 3500);
            let mut attributes = shown.attributes;
            attributes.sort();
            prop_assert!(credential.attributes().iter().eq(attributes.iter().map(|(name, value)| (&name[..], &value[..]))));
        }
    }
}
