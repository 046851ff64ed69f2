//! Our own list, byte for byte, each rule on both sides of its boundary, and lists as long as they may be.

use super::*;
use crate::credential::Attributes;
use crate::identity::Validity;
use crate::purpose_key::{AttestationError, PurposePublicKey};
use crate::secret::Secret;
use crate::signature::{SigningKey, encode};
use crate::vectors::*;
use proptest::prelude::*;

fn unhex(text: &str) -> Vec<u8> {
    base16ct::lower::decode_vec(text).unwrap()
}

/// Frozen: the issuer of `wire.md` D.6 revokes the client of C.5 and one more.
#[test]
fn published() {
    let history = ChangeHistory::from_hex(K1_HISTORIES[4].1).unwrap();
    let client = ChangeHistory::from_hex(C5_HISTORY).unwrap().identifier();
    let attestation = Attestation::verify(&unhex(D6_ISSUER_ATTESTATION), &history, 1_750_000_000).unwrap();
    let key = SigningKey::new(Secret::new(std::array::from_fn(|index| 0x80 + index as u8)));
    let issuer = Issuer::new(&history, attestation, key).unwrap();
    let entries = [(client, 1_750_000_100), (Identifier([7; 32]), 1_750_000_050)];
    let made = RevocationList::sign(&issuer, 3, 1_750_000_200, entries).unwrap();
    assert_eq!(base16ct::lower::encode_string(made.encoded()), REVOCATION_LIST);
    let read = RevocationList::verify(made.encoded(), &history, 1_750_000_200).unwrap();
    assert_eq!(read, made);
    assert_eq!((read.issuer(), read.number(), read.created_at()), (history.identifier(), 3, 1_750_000_200));
    assert_eq!(read.entries(), [(Identifier([7; 32]), 1_750_000_050), (client, 1_750_000_100)]);
    assert_eq!(read.revoked_at(&client), Some(1_750_000_100));
    assert_eq!(read.revoked_at(&history.identifier()), None);
    let credential = Credential::verify(&unhex(D6_CREDENTIAL), &client, [&history], 1_750_000_200).unwrap();
    assert!(read.revokes(&credential));

    let shown = RevocationList::inspect(made.encoded()).unwrap();
    assert_eq!((shown.issuer, shown.number, shown.created_at), (read.issuer(), read.number(), read.created_at()));
    assert_eq!(shown.entries, read.entries());
    assert_eq!(shown.attestation.subject, history.identifier());
    assert_eq!(RevocationList::inspect(&unhex(D6_CREDENTIAL)), Err(RevocationError::NotARevocationList));
    assert_eq!(RevocationList::inspect(&made.encoded()[1..]), Err(RevocationError::Malformed));
    assert_eq!(RevocationList::inspect(&vec![0; REVOCATION_LIST_MAX + 1]), Err(RevocationError::TooLarge));
}

#[test]
fn every_changed_bit_is_refused() {
    let history = ChangeHistory::from_hex(K1_HISTORIES[4].1).unwrap();
    let list = unhex(REVOCATION_LIST);
    let verify = |bytes: &[u8]| RevocationList::verify(bytes, &history, 1_750_000_200);
    for bit in 0..list.len() * 8 {
        let mut changed = list.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(verify(&changed).is_err(), "bit {bit}");
    }
    for length in 0..list.len() {
        assert_eq!(verify(&list[..length]), Err(RevocationError::Malformed), "{length} bytes");
    }
    assert_eq!(verify(&[&list[..], &[0]].concat()), Err(RevocationError::Malformed));
    assert!(verify(&list).is_ok());
}

/// An authority whose identity is valid from 1000 to 9000, and its key for credentials from 2000 to 8000.
fn authority(seed: u8) -> (ChangeHistory, Issuer) {
    let (identity_key, key) =
        (SigningKey::new(Secret::new([seed; 32])), SigningKey::new(Secret::new([seed + 100; 32])));
    let history = ChangeHistory::create(&identity_key, Validity { from: 1000, until: 9000 }).unwrap();
    let purpose = PurposePublicKey::CredentialSigning(key.public());
    let attestation = Attestation::create(&history, &identity_key, purpose, 2000, 8000).unwrap();
    let issuer = Issuer::new(&history, attestation, key).unwrap();
    (history, issuer)
}

fn subject(number: u32) -> Identifier {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    Identifier(bytes)
}

/// Signs anything, as a careless or hostile issuer would.
fn signed(issuer: &Issuer, number: u64, created_at: u64, entries: Vec<(Identifier, u64)>) -> Vec<u8> {
    let data = ListData { issuer: issuer.identifier().0, number, created_at, entries: Entries(entries) };
    issuer.sign(&Blob::new(DataType::RevocationList, &data))
}

/// What a list takes back: credentials of its issuer, of its subjects, until its time.
#[test]
fn what_is_revoked() {
    let ((_, issuer), (_, other)) = (authority(1), authority(2));
    let list = RevocationList::sign(&issuer, 1, 3000, [(subject(1), 2500), (subject(3), 7000)]).unwrap();
    let revoked = |issuer: &Issuer, of: u32, created_at| {
        let credential = Credential::issue(issuer, subject(of), None, 1, &Attributes::new(), created_at, 8000);
        list.revokes(&credential.unwrap())
    };
    for (created_at, expected) in [(2000, true), (2499, true), (2500, true), (2501, false), (3000, false)] {
        assert_eq!(revoked(&issuer, 1, created_at), expected, "created at {created_at}");
        assert!(!revoked(&other, 1, created_at), "another authority's");
        assert!(!revoked(&issuer, 2, created_at), "another subject's");
    }
    assert!(revoked(&issuer, 3, 7000), "a clock that was ahead");
    assert!(!revoked(&issuer, 3, 7001));
    let none = RevocationList::sign(&issuer, 2, 3000, []).unwrap();
    assert_eq!((none.entries().len(), none.revoked_at(&subject(1))), (0, None));
}

/// T1, T2: each boundary, from both of its sides. A list does not expire, its issuer's key does.
#[test]
fn times() {
    let (history, issuer) = authority(1);
    let verify = |created_at, now| {
        let bytes = signed(&issuer, 1, created_at, vec![(subject(1), 5)]);
        RevocationList::verify(&bytes, &history, now).map(|_| ())
    };
    assert_eq!(verify(2000, 2000), Ok(()));
    assert_eq!(verify(1999, 2000), Err(RevocationError::OlderThanItsKey));
    assert_eq!(verify(3060, 3000), Ok(()));
    assert_eq!(verify(3061, 3000), Err(RevocationError::FromTheFuture));
    assert_eq!(verify(8000, 8000), Ok(()));
    assert_eq!(verify(8001, 8000), Err(RevocationError::NewerThanItsKey));
    assert_eq!(verify(2000, 8000), Ok(()));
    let expired = Err(IssuerError::from(AttestationError::Expired).into());
    assert_eq!(verify(2000, 8001), expired);
    assert_eq!(verify(2000, u64::MAX), expired);
    assert_eq!(verify(2000, 0), Err(IssuerError::from(AttestationError::FromTheFuture).into()));

    // Nothing is made that a reader would refuse.
    let sign = |created_at| RevocationList::sign(&issuer, u64::MAX, created_at, []).map(|list| list.number());
    assert_eq!(sign(1999), Err(RevocationError::OlderThanItsKey));
    assert_eq!(sign(2000), Ok(u64::MAX));
    assert_eq!(sign(8000), Ok(u64::MAX));
    assert_eq!(sign(8001), Err(RevocationError::NewerThanItsKey));
}

/// Another authority's list, one that only says it is ours, and one by a key for something else.
#[test]
fn issuers() {
    let ((history, issuer), (other_history, other)) = (authority(1), authority(2));
    let list = RevocationList::sign(&issuer, 1, 3000, []).unwrap();
    let wrong_subject = IssuerError::from(AttestationError::WrongSubject);
    assert_eq!(RevocationList::verify(list.encoded(), &other_history, 3000), Err(wrong_subject.into()));
    // The other says that it is this one.
    let data = ListData { issuer: issuer.identifier().0, number: 9, created_at: 3000, entries: Entries(Vec::new()) };
    let blob = Blob::new(DataType::RevocationList, &data);
    let forged = other.sign(&blob);
    assert_eq!(RevocationList::verify(&forged, &other_history, 3000), Err(RevocationError::AnotherIssuer));
    assert_eq!(RevocationList::verify(&forged, &history, 3000), Err(wrong_subject.into()));
    // And shows this one's attestation.
    let attestation = other.attestation().encoded();
    let forged = [&forged[..forged.len() - attestation.len()], issuer.attestation().encoded()].concat();
    let refused = Err(IssuerError::BadSignature.into());
    assert_eq!(RevocationList::verify(&forged, &history, 3000), refused);
    assert!(RevocationList::verify(&issuer.sign(&blob), &history, 3000).is_ok());
}

/// Ordered, each subject once: what a search in halves relies on.
#[test]
fn order() {
    let (history, issuer) = authority(1);
    let verify = |entries: &[(u32, u64)]| {
        let entries = entries.iter().map(|(number, time)| (subject(*number), *time)).collect();
        RevocationList::verify(&signed(&issuer, 1, 3000, entries), &history, 3000).map(|list| list.entries().len())
    };
    assert_eq!(verify(&[(1, 9), (2, 8), (300, 7)]), Ok(3));
    assert_eq!(verify(&[(2, 9), (1, 8)]), Err(RevocationError::NotARevocationList));
    assert_eq!(verify(&[(1, 9), (1, 9)]), Err(RevocationError::NotARevocationList));
    assert_eq!(verify(&[(1, 9), (3, 8), (1, 7)]), Err(RevocationError::NotARevocationList));
    // Signed in any order; the later time holds.
    let entries = [(300, 1), (2, 9), (1, 5), (2, 3), (2, 10)].map(|(number, time)| (subject(number), time));
    let list = RevocationList::sign(&issuer, 1, 3000, entries).unwrap();
    assert_eq!(list.entries(), [(subject(1), 5), (subject(2), 10), (subject(300), 1)]);
}

/// As many subjects as the documentation says, all found; and too many.
#[test]
fn long_lists() {
    let (history, issuer) = authority(1);
    // Every second number, so that there are some between them to look for. The longest encoding of a time.
    let entries = |count: u32| (0..count).rev().map(|number| (subject(2 * number + 1), u64::MAX - u64::from(number)));
    let list = RevocationList::sign(&issuer, 1, 3000, entries(190_000)).unwrap();
    assert!(list.encoded().len() <= REVOCATION_LIST_MAX);
    let read = RevocationList::verify(list.encoded(), &history, 3000).unwrap();
    assert_eq!(read.entries().len(), 190_000);
    for number in (0..190_000).step_by(37).chain([189_999]) {
        assert_eq!(read.revoked_at(&subject(2 * number + 1)), Some(u64::MAX - u64::from(number)));
        assert_eq!(read.revoked_at(&subject(2 * number)), None);
    }
    assert_eq!(read.revoked_at(&Identifier([0xff; 32])), None);
    assert_eq!(RevocationList::sign(&issuer, 1, 3000, entries(191_000)), Err(RevocationError::TooLarge));
    let too_large = signed(&issuer, 1, 3000, entries(191_000).collect());
    assert_eq!(RevocationList::verify(&too_large, &history, 3000), Err(RevocationError::TooLarge));
    // A person who prints one sees how many it has.
    assert!(format!("{read:?}").ends_with("190000 subjects)"), "{read:?}");
}

/// Counts that no memory can hold, arrays in arrays, and the encodings that real nodes read of everything else.
#[test]
fn encodings() {
    let (history, issuer) = authority(1);
    let verify = |data: &[u8]| {
        let signed = issuer.sign(&Blob::new(DataType::RevocationList, &Raw(data)));
        RevocationList::verify(&signed, &history, 3000).map(|list| list.entries().to_vec())
    };
    let head = [&[0x84, 0x58, 32], &issuer.identifier().0[..], b"\x01\x19\x0b\xb8"].concat();
    let entry = [&[0x82, 0x58, 32], &subject(1).0[..], &[5]].concat();
    let with = |entries: &[u8]| [&head[..], entries].concat();
    let one = vec![(subject(1), 5)];
    assert_eq!(verify(&with(&[0x80])), Ok(vec![]));
    assert_eq!(verify(&with(&[&[0x81], &entry[..]].concat())), Ok(one.clone()));
    assert_eq!(verify(&with(&[&[0x9f], &entry[..], &[0xff]].concat())), Ok(one.clone()));
    assert_eq!(verify(&with(&[&[0x81, 0x83], &entry[1..], &[0xf6]].concat())), Ok(one));
    for refused in [
        with(&[]),
        with(&[0x81]),
        with(&[0xf6]),
        with(&[0xa0]),
        with(b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff"),
        with(&[&[0x82], &entry[..]].concat()),
        with(&[&[0x9f], &entry[..]].concat()),
        with(&[&[0x81, 0x81], &entry[1..35]].concat()),
        with(&[&[0x81, 0x82, 0x58, 31], &entry[4..]].concat()),
        with(&vec![0x81; 1 << 20]),
        with(&vec![0x9f; 1 << 20]),
        head[..head.len() - 3].to_vec(),
    ] {
        assert_eq!(verify(&refused), Err(RevocationError::NotARevocationList), "{:02x?}", &refused[..40]);
    }
}

/// Anything as the signed data of a list.
struct Raw<'a>(&'a [u8]);

impl Encode<()> for Raw<'_> {
    fn encode<W: Write>(&self, output: &mut Encoder<W>, _: &mut ()) -> Result<(), EncodeError<W::Error>> {
        output.writer_mut().write_all(self.0).map_err(EncodeError::write)
    }
}

proptest! {
    /// What is signed is read, and a slow search finds the same.
    #[test]
    fn round_trip(entries in prop::collection::vec((0u32..40, 0u64..6000), 0..60), number: u64, created_at in 2000u64..8000) {
        let (history, issuer) = authority(1);
        let named = entries.iter().map(|(number, time)| (subject(*number), *time));
        let list = RevocationList::sign(&issuer, number, created_at, named).unwrap();
        let read = RevocationList::verify(list.encoded(), &history, created_at).unwrap();
        prop_assert_eq!(&read, &list);
        for looked_for in 0..41 {
            let times = entries.iter().filter(|(number, _)| *number == looked_for).map(|(_, time)| *time);
            prop_assert_eq!(read.revoked_at(&subject(looked_for)), times.max());
        }
    }

    /// Whatever an issuer signs, near to what it should.
    #[test]
    fn edits(at: prop::sample::Index, length in 0usize..8, with in prop::collection::vec(any::<u8>(), 0..8)) {
        let (history, issuer) = authority(1);
        let entries = vec![(subject(1), 5), (subject(2), 3000), (subject(9), 70_000)];
        let mut edited =
            encode(&ListData { issuer: issuer.identifier().0, number: 7, created_at: 3000, entries: Entries(entries) });
        let start = at.index(edited.len());
        let end = (start + length).min(edited.len());
        edited.splice(start..end, with);
        let bytes = issuer.sign(&Blob::new(DataType::RevocationList, &Raw(&edited)));
        if let Ok(list) = RevocationList::verify(&bytes, &history, 3000) {
            prop_assert_eq!((list.issuer(), list.encoded()), (history.identifier(), &bytes[..]));
            prop_assert!(list.created_at() <= 3060);
            prop_assert!(list.entries().windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
    }
}
