//! Published attestations, byte for byte, and each rule of `wire.md` D.2 on both sides of its boundary.

use super::*;
use crate::identity::Validity;
use crate::secret::Secret;
use crate::vectors::*;
use crate::x25519::X25519Key;

fn unhex(text: &str) -> Vec<u8> {
    base16ct::lower::decode_vec(text).unwrap()
}

fn secret(text: &str) -> Secret {
    Secret::new(unhex(text).try_into().unwrap())
}

fn counting_from(first: u8) -> Secret {
    Secret::new(std::array::from_fn(|index| first + index as u8))
}

/// `wire.md` D.6.
#[test]
fn published() {
    let client = ChangeHistory::from_hex(C5_HISTORY).unwrap();
    let key = SigningKey::new(secret("31ff4e1cd55f17735a633fbab4b838cf88d1252d164735cb3185a6e315438c2c"));
    let x25519 = PurposePublicKey::SecureChannel(*X25519Key::new(counting_from(0)).public());
    let made = Attestation::create(&client, &key, x25519, 1_750_000_000, 1_907_680_000).unwrap();
    assert_eq!(base16ct::lower::encode_string(made.encoded()), D6_ATTESTATION);
    assert_eq!(Attestation::verify(made.encoded(), &client, 1_750_000_000), Ok(made));

    let issuer = ChangeHistory::from_hex(K1_HISTORIES[4].1).unwrap();
    let key = SigningKey::new(secret("0127359911708ef4de9adaaf27c357501473c4a10a5326a69c1f7f874a0cd82e"));
    let signing = PurposePublicKey::CredentialSigning(SigningKey::new(counting_from(0x80)).public());
    let made = Attestation::create(&issuer, &key, signing, 1_750_000_000, 1_907_680_000).unwrap();
    assert_eq!(base16ct::lower::encode_string(made.encoded()), D6_ISSUER_ATTESTATION);
    let read = Attestation::verify(made.encoded(), &issuer, 1_800_000_000).unwrap();
    assert_eq!((read.subject(), read.key()), (issuer.identifier(), &signing));
    assert_eq!((read.created_at(), read.expires_at()), (1_750_000_000, 1_907_680_000));
}

#[test]
fn every_changed_bit_is_refused() {
    let client = ChangeHistory::from_hex(C5_HISTORY).unwrap();
    let attestation = unhex(D6_ATTESTATION);
    let verify = |bytes: &[u8]| Attestation::verify(bytes, &client, 1_750_000_000);
    for bit in 0..attestation.len() * 8 {
        let mut changed = attestation.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(verify(&changed).is_err(), "bit {bit}");
    }
    for length in 0..attestation.len() {
        assert_eq!(verify(&attestation[..length]), Err(AttestationError::Malformed), "{length} bytes");
    }
    assert_eq!(verify(&[&attestation[..], &[0]].concat()), Err(AttestationError::Malformed));
    assert!(verify(&attestation).is_ok());
}

/// An identity valid from 1000 to 2000, by the key of 7s.
fn identity() -> (ChangeHistory, SigningKey) {
    let key = SigningKey::new(Secret::new([7; 32]));
    (ChangeHistory::create(&key, Validity { from: 1000, until: 2000 }).unwrap(), key)
}

const KEY: PurposePublicKey = PurposePublicKey::SecureChannel([5; 32]);

/// Signs anything, as a careless or hostile identity would.
fn signed(key: &SigningKey, data: AttestationData, data_type: DataType) -> Vec<u8> {
    let blob = Blob::new(data_type, &data);
    encode(&Signed { data: blob.bytes(), signature: key.sign(&blob) })
}

#[test]
fn each_rule() {
    let (history, key) = identity();
    let stranger = SigningKey::new(Secret::new([8; 32]));
    let good = || AttestationData {
        subject: history.identifier().0,
        subject_latest_change_hash: history.latest().hash,
        public_key: KEY,
        created_at: 1000,
        expires_at: 2000,
    };
    let verify = |data, now| {
        let bytes = signed(&key, data, DataType::PurposeKeyAttestation);
        Attestation::verify(&bytes, &history, now).map(|attestation| *attestation.key())
    };
    assert_eq!(verify(good(), 1500), Ok(KEY));
    assert_eq!(verify(AttestationData { subject: [1; 32], ..good() }, 1500), Err(AttestationError::WrongSubject));
    let stale = AttestationData { subject_latest_change_hash: [1; 32], ..good() };
    assert_eq!(verify(stale, 1500), Err(AttestationError::NotByTheLatestKey));
    let early = AttestationData { created_at: 999, ..good() };
    assert_eq!(verify(early, 1500), Err(AttestationError::OlderThanItsIdentity));
    let long = AttestationData { expires_at: 2001, ..good() };
    assert_eq!(verify(long, 1500), Err(AttestationError::OutlivesItsIdentity));
    assert_eq!(verify(AttestationData { created_at: 1560, ..good() }, 1500), Ok(KEY));
    let future = AttestationData { created_at: 1561, ..good() };
    assert_eq!(verify(future, 1500), Err(AttestationError::FromTheFuture));
    assert_eq!(verify(AttestationData { expires_at: 1500, ..good() }, 1500), Ok(KEY));
    assert_eq!(verify(AttestationData { expires_at: 1499, ..good() }, 1500), Err(AttestationError::Expired));
    // A clock at its end does not wrap.
    assert_eq!(verify(good(), u64::MAX), Err(AttestationError::Expired));

    let by_another = signed(&stranger, good(), DataType::PurposeKeyAttestation);
    assert_eq!(Attestation::verify(&by_another, &history, 1500), Err(AttestationError::BadSignature));
    for data_type in [DataType::Change, DataType::Credential] {
        let other_type = signed(&key, good(), data_type);
        assert_eq!(Attestation::verify(&other_type, &history, 1500), Err(AttestationError::NotAnAttestation));
    }
}

/// A key that an identity has given up attests nothing, and neither does its latest key to who has not seen it.
#[test]
fn rotation_ends_attestations() {
    let (old, key) = identity();
    let next = SigningKey::new(Secret::new([9; 32]));
    let new = old.rotate(&key, &next, Validity { from: 1500, until: 3000 }).unwrap();
    let by_old = Attestation::create(&old, &key, KEY, 1500, 2000).unwrap();
    let by_new = Attestation::create(&new, &next, KEY, 1500, 3000).unwrap();
    let refused = Err(AttestationError::NotByTheLatestKey);
    assert_eq!(Attestation::verify(by_old.encoded(), &new, 1500), refused);
    assert_eq!(Attestation::verify(by_new.encoded(), &old, 1500), refused);
    assert!(Attestation::verify(by_new.encoded(), &new, 1500).is_ok());
}

/// Nothing is made that a reader would refuse.
#[test]
fn creation_rules() {
    let (history, key) = identity();
    let create = |from, until| Attestation::create(&history, &key, KEY, from, until).map(|made| made.expires_at());
    assert_eq!(create(1000, 2000), Ok(2000));
    assert_eq!(create(999, 2000), Err(AttestationError::OlderThanItsIdentity));
    assert_eq!(create(1000, 2001), Err(AttestationError::OutlivesItsIdentity));
    assert_eq!(create(1500, 1499), Err(AttestationError::Expired));
    let stranger = SigningKey::new(Secret::new([8; 32]));
    let by_another = Attestation::create(&history, &stranger, KEY, 1000, 2000);
    assert_eq!(by_another, Err(AttestationError::BadSignature));
}
