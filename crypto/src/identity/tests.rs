//! Published histories, byte for byte; the rules of `wire.md` C.3, each broken by itself; and every changed bit.

use super::*;
use crate::secret::Secret;
use crate::vectors::*;
use proptest::prelude::*;

fn unhex(text: &str) -> Vec<u8> {
    base16ct::lower::decode_vec(text).unwrap()
}

fn key(seed: u8) -> SigningKey {
    SigningKey::new(Secret::new([seed; 32]))
}

fn key_from(seed: &str) -> SigningKey {
    SigningKey::new(Secret::new(unhex(seed).try_into().unwrap()))
}

fn years(from: u64) -> Validity {
    Validity { from, until: from + KEY_LIFETIME_SECS }
}

/// Three changes, made by us.
fn three() -> ChangeHistory {
    let one = ChangeHistory::create(&key(1), years(1000)).unwrap();
    let two = one.rotate(&key(1), &key(2), years(2000)).unwrap();
    two.rotate(&key(2), &key(3), years(2000)).unwrap()
}

/// A change that breaks rules: what it says, and who signs it.
struct Rogue<'k> {
    data_type: DataType,
    previous_change: Option<[u8; 32]>,
    from: u64,
    own: &'k SigningKey,
    signer: &'k SigningKey,
    previous: Option<&'k SigningKey>,
}

impl Rogue<'_> {
    fn behind(&self, history: &ChangeHistory) -> Result<ChangeHistory, HistoryError> {
        let blob = Blob::new(
            self.data_type,
            &ChangeData {
                previous_change: self.previous_change,
                primary_public_key: self.own.public(),
                revoke_all_purpose_keys: false,
                attestations_valid_from: self.from,
                attestations_valid_until: u64::MAX,
            },
        );
        let change = EncodedChange {
            data: blob.bytes(),
            signature: self.signer.sign(&blob),
            previous_signature: self.previous.map(|key| key.sign(&blob)),
        };
        let elements = [history.elements(), &encode(&change)].concat();
        ChangeHistory::verify(&encode_history(history.changes.len() + 1, &elements))
    }
}

/// `wire.md` C.5.
#[test]
fn published_creation_and_rotation() {
    let seeds = [
        "31ff4e1cd55f17735a633fbab4b838cf88d1252d164735cb3185a6e315438c2c",
        "5fb3663df8405379981462babed7507e3d53a8d061188105e3adbd70e0a74b8a",
    ];
    let (first, second) = (key_from(seeds[0]), key_from(seeds[1]));
    let history = ChangeHistory::create(&first, years(1_699_543_438)).unwrap();
    assert_eq!(history.to_hex(), C5_HISTORY);
    let identifier = "Ie70dc5545d64724880257acb32b8851e7dd1dd57076838991bc343165df71bfe";
    assert_eq!(history.identifier().to_string(), identifier);
    let rotated = history.rotate(&first, &second, years(1_699_543_500)).unwrap();
    assert_eq!(rotated.to_hex(), C5_ROTATED);
    assert_eq!(
        base16ct::lower::encode_string(&rotated.latest().hash),
        "99d63bf0b4bb0dc9f6ceb934158aa70acc0f78c09456cdc3d9c60e9da2912e26"
    );
    for made in [&history, &rotated] {
        assert_eq!(ChangeHistory::from_hex(&made.to_hex()).as_ref(), Ok(made));
        assert_eq!(made.identifier().to_string(), identifier);
    }
}

/// `wire.md` K.1: eight histories, one of them with P-256; three of them can be made again.
#[test]
fn published_histories() {
    for (identifier, history) in K1_HISTORIES {
        let verified = ChangeHistory::verify(&unhex(history)).unwrap();
        assert_eq!(verified.identifier().to_string(), identifier);
        assert_eq!(verified.to_hex(), history);
        let Validity { from, until } = verified.latest().validity;
        assert_eq!(until - from, KEY_LIFETIME_SECS);
    }
    let remade = [
        ("0127359911708ef4de9adaaf27c357501473c4a10a5326a69c1f7f874a0cd82e", 1_699_543_421),
        ("5fb3663df8405379981462babed7507e3d53a8d061188105e3adbd70e0a74b8a", 1_699_543_400),
        ("31ff4e1cd55f17735a633fbab4b838cf88d1252d164735cb3185a6e315438c2c", 1_699_543_438),
    ];
    for ((seed, from), (_, history)) in remade.into_iter().zip(&K1_HISTORIES[4..7]) {
        assert_eq!(ChangeHistory::create(&key_from(seed), years(from)).unwrap().to_hex(), *history);
    }
    let p256 = ChangeHistory::verify(&unhex(K1_HISTORIES[3].1)).unwrap();
    assert!(matches!(p256.latest().key, PublicKey::P256(_)));
}

/// No bit of a history can be changed, in its head, its data or its signatures; not even in one of P-256.
#[test]
fn every_changed_bit_is_refused() {
    for history in [unhex(C5_ROTATED), unhex(K1_HISTORIES[3].1), three().encoded().to_vec()] {
        let known = ChangeHistory::verify(&history).unwrap();
        for bit in 0..history.len() * 8 {
            let mut changed = history.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(ChangeHistory::verify(&changed).is_err(), "bit {bit} of {known:?}");
        }
        for length in 0..history.len() {
            assert!(ChangeHistory::verify(&history[..length]).is_err(), "{length} bytes of {known:?}");
        }
        assert_eq!(ChangeHistory::verify(&[&history[..], &[0xf6]].concat()), Err(HistoryError::TrailingBytes));
    }
}

/// `wire.md` C.3, rule by rule.
#[test]
fn each_rule() {
    let history = three();
    let hash = history.latest().hash;
    let (own, old, stranger) = (key(4), key(3), key(9));
    let good = || Rogue {
        data_type: DataType::Change,
        previous_change: Some(hash),
        from: 2000,
        own: &own,
        signer: &own,
        previous: Some(&old),
    };
    assert_eq!(good().behind(&history).unwrap().changes().len(), 4);
    let refused = |rogue: Rogue, error| assert_eq!(rogue.behind(&history), Err(error));
    refused(Rogue { data_type: DataType::PurposeKeyAttestation, ..good() }, HistoryError::NotAChange);
    refused(Rogue { data_type: DataType::Credential, ..good() }, HistoryError::NotAChange);
    refused(Rogue { previous_change: None, ..good() }, HistoryError::BrokenChain);
    refused(Rogue { previous_change: Some(history.changes()[1].hash), ..good() }, HistoryError::BrokenChain);
    refused(Rogue { from: 1999, ..good() }, HistoryError::TimeWentBack);
    refused(Rogue { signer: &stranger, ..good() }, HistoryError::BadSignature);
    refused(Rogue { previous: None, ..good() }, HistoryError::MissingPreviousSignature);
    refused(Rogue { previous: Some(&stranger), ..good() }, HistoryError::BadPreviousSignature);
    // The two signatures of a change, exchanged (P5).
    refused(Rogue { signer: &old, previous: Some(&own), ..good() }, HistoryError::BadSignature);
    // A gap after the previous key's last second is allowed to others.
    assert!(Rogue { from: 2001 + KEY_LIFETIME_SECS, ..good() }.behind(&history).is_ok());
    // A first change that claims to have one before it.
    let none = ChangeHistory { encoded: vec![0x80], changes: Vec::new() };
    let first = Rogue { previous: None, ..good() };
    assert_eq!(first.behind(&none), Err(HistoryError::BrokenChain));
    assert_eq!(ChangeHistory::verify(&[0x80]), Err(HistoryError::Empty));
    assert_eq!(ChangeHistory::verify(&[0x9f, 0xff]), Err(HistoryError::Empty));
    assert_eq!(ChangeHistory::from_hex("no"), Err(HistoryError::NotHexadecimal));
}

/// What we refuse to make, each side of each boundary.
#[test]
fn rotation_rules() {
    let one = ChangeHistory::create(&key(1), Validity { from: 100, until: 200 }).unwrap();
    let rotate = |from| one.rotate(&key(1), &key(2), Validity { from, until: 1000 });
    assert_eq!(rotate(99), Err(ChangeError::TimeWentBack));
    assert!(rotate(100).is_ok() && rotate(200).is_ok());
    assert_eq!(rotate(201), Err(ChangeError::OldKeyExpired));
    let two = rotate(150).unwrap();
    let valid = Validity { from: 150, until: 150 };
    assert_eq!(two.rotate(&key(1), &key(3), valid), Err(ChangeError::NotTheKey));
    assert_eq!(two.rotate(&key(2), &key(2), valid), Err(ChangeError::KeyReused));
    assert_eq!(two.rotate(&key(2), &key(1), valid), Err(ChangeError::KeyReused));
    assert!(two.rotate(&key(2), &key(3), valid).is_ok());
    let backwards = Validity { from: 160, until: 159 };
    assert_eq!(two.rotate(&key(2), &key(3), backwards), Err(ChangeError::EndsBeforeItBegins));
    assert_eq!(ChangeHistory::create(&key(1), backwards), Err(ChangeError::EndsBeforeItBegins));
}

/// The longest history that is read is the longest that is made.
#[test]
fn the_limit() {
    let mut history = ChangeHistory::create(&key(0), years(0)).unwrap();
    for number in 1..CHANGES_MAX as u8 {
        history = history.rotate(&key(number - 1), &key(number), years(0)).unwrap();
    }
    assert_eq!(ChangeHistory::verify(history.encoded()).as_ref(), Ok(&history));
    let (last, next) = (key(CHANGES_MAX as u8 - 1), key(CHANGES_MAX as u8));
    assert_eq!(history.rotate(&last, &next, years(0)), Err(ChangeError::TooManyChanges));
    let longer = Rogue {
        data_type: DataType::Change,
        previous_change: Some(history.latest().hash),
        from: 0,
        own: &next,
        signer: &next,
        previous: Some(&last),
    };
    assert_eq!(longer.behind(&history), Err(HistoryError::TooManyChanges));
    // A claim of 2^64 - 1 changes costs nothing.
    let mut claim = vec![0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    claim.extend_from_slice(history.elements());
    assert_eq!(ChangeHistory::verify(&claim), Err(HistoryError::TooManyChanges));
}

/// `wire.md` C.3, the storage rule.
#[test]
fn comparisons() {
    let three = three();
    let one = ChangeHistory::create(&key(1), years(1000)).unwrap();
    let other_two = one.rotate(&key(1), &key(5), years(2000)).unwrap();
    let stranger = ChangeHistory::create(&key(9), years(1000)).unwrap();
    for (history, known, expected) in [
        (&one, &one, Comparison::Same),
        (&three, &three, Comparison::Same),
        (&three, &one, Comparison::Newer),
        (&one, &three, Comparison::Older),
        (&other_two, &three, Comparison::Diverged),
        (&three, &other_two, Comparison::Diverged),
        (&stranger, &one, Comparison::Diverged),
    ] {
        assert_eq!(history.compared_to(known), expected, "{history:?} to {known:?}");
    }
    let identifiers: Vec<_> = [&one, &three, &other_two].iter().map(|history| history.identifier()).collect();
    assert!(identifiers.iter().all(|identifier| *identifier == identifiers[0]));
}

/// `wire.md` 0.1: what real decoders accept. The signed bytes stay as they came.
#[test]
fn lenient_encodings() {
    let history = ChangeHistory::from_hex(C5_ROTATED).unwrap();
    let head = encode_history(2, &[]).len();
    let elements = &history.encoded()[head..];
    let indefinite = [&[0x9f], elements, &[0xff]].concat();
    let wide = [&[0x9a, 0, 0, 0, 2], elements].concat();
    // The first change as an array of four, with an element that nobody knows.
    let first_length = 127;
    let extended = [&[0x82, 0x84], &elements[1..first_length], &[0xf6, 0x01], &elements[first_length..]].concat();
    // And as one of indefinite length.
    let open = [&[0x82, 0x9f], &elements[1..first_length], &[0xff], &elements[first_length..]].concat();
    for lenient in [indefinite, wide, extended, open] {
        let read = ChangeHistory::verify(&lenient).unwrap();
        assert_eq!(read.changes(), history.changes());
        assert_eq!(read.compared_to(&history), Comparison::Same);
        assert_eq!(ChangeHistory::verify(read.encoded()).as_ref(), Ok(&read));
    }
}

/// A P-256 key between two of Ed25519: kinds may change.
#[test]
fn kinds_of_keys_may_change() {
    use p256::ecdsa::signature::Signer;
    let first = ChangeHistory::create(&key(1), years(1000)).unwrap();
    let secret = p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
    let public = secret.verifying_key().to_sec1_point(false);
    let data = |previous: &ChangeHistory, key| {
        let data = ChangeData {
            previous_change: Some(previous.latest().hash),
            primary_public_key: key,
            revoke_all_purpose_keys: true,
            attestations_valid_from: 1000,
            attestations_valid_until: 2000,
        };
        Blob::new(DataType::Change, &data)
    };
    let sign = |blob: &Blob| {
        let signature: p256::ecdsa::Signature = secret.sign(&blob.hash());
        Signature::P256(signature.to_bytes().into())
    };
    let append = |history: &ChangeHistory, blob: &Blob, signature, previous| {
        let change = EncodedChange { data: blob.bytes(), signature, previous_signature: Some(previous) };
        let elements = [history.elements(), &encode(&change)].concat();
        ChangeHistory::verify(&encode_history(history.changes().len() + 1, &elements))
    };
    let blob = data(&first, PublicKey::P256(public.as_bytes().try_into().unwrap()));
    let second = append(&first, &blob, sign(&blob), key(1).sign(&blob)).unwrap();
    let blob = data(&second, key(3).public());
    let third = append(&second, &blob, key(3).sign(&blob), sign(&blob)).unwrap();
    assert_eq!(third.identifier(), first.identifier());
    assert_eq!(append(&second, &blob, key(3).sign(&blob), key(1).sign(&blob)), Err(HistoryError::BadPreviousSignature));
    assert_eq!(append(&second, &blob, sign(&blob), sign(&blob)), Err(HistoryError::BadSignature));
}

#[test]
fn identifiers_as_text() {
    let text = K1_HISTORIES[0].0;
    let identifier: Identifier = text.parse().unwrap();
    assert_eq!(identifier.to_string(), text);
    assert_eq!(text[1..].to_uppercase().replacen("", "I", 1).parse(), Ok(identifier));
    for wrong in ["", "I", &text[1..], &text[..64], &format!("{text}0"), &format!("i{}", &text[1..])] {
        assert_eq!(wrong.parse::<Identifier>(), Err(InvalidIdentifier), "{wrong:?}");
    }
    assert!(format!("I{}", "g".repeat(64)).parse::<Identifier>().is_err());
}

proptest! {
    /// F5: any bytes, and any edit of a genuine history: refused, or the same identity with the same changes.
    #[test]
    fn edits(start in 0usize..357, length in 0usize..8, with in prop::collection::vec(any::<u8>(), 0..8)) {
        let mut edited = unhex(C5_ROTATED);
        let end = (start + length).min(edited.len());
        edited.splice(start..end, with);
        if let Ok(history) = ChangeHistory::verify(&edited) {
            let known = ChangeHistory::from_hex(C5_ROTATED).unwrap();
            prop_assert_eq!(history.changes(), known.changes());
        }
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(ChangeHistory::verify(&bytes).is_err());
    }
}
