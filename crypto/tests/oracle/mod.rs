//! What must hold for any input. The fuzz targets in `tests/fuzz` and the property tests beside this run the same code.

#![allow(dead_code)]

#[path = "../../src/vectors.rs"]
mod vectors;

use ockam_crypto::*;
use std::collections::{BTreeSet, VecDeque};
use std::sync::LazyLock;

/// Takes numbers from the front of the input, zero when there is none left.
pub struct Input<'a>(pub &'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> usize {
        usize::from(self.byte()) << 8 | usize::from(self.byte())
    }

    /// Up to three edits: a place, how many bytes go, which come.
    fn edit(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        for _ in 0..self.byte() % 4 {
            let start = self.number() % (bytes.len() + 1);
            let end = (start + usize::from(self.byte() % 9)).min(bytes.len());
            let count = usize::from(self.byte() % 9).min(self.0.len());
            let (new, rest) = self.0.split_at(count);
            bytes.splice(start..end, new.iter().copied());
            self.0 = rest;
        }
        bytes
    }
}

fn sealer() -> Sealer {
    Sealer::new(Secret::new([7; 32]))
}

fn text_of(nonce: u64) -> Vec<u8> {
    vec![nonce as u8; nonce as usize % 40]
}

/// Ten key blocks of genuine records.
static RECORDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut sealer = sealer();
    let seal = |nonce| {
        let text = text_of(nonce);
        let mut record = [&[0; NONCE_LEN], &text[..], &[0; TAG_LEN]].concat();
        assert_eq!(sealer.seal_in_place(&mut record), Ok(nonce));
        record
    };
    (0..10 * REKEY_INTERVAL).map(seal).collect()
});

/// Records on a living channel, genuine and changed, in the order that the input says. Accepted are those that are
/// genuine, unseen and within the window of the highest one accepted; nothing else moves anything.
pub fn record_open(input: &[u8]) {
    let mut input = Input(input);
    let mut opener = Opener::new(Secret::new([7; 32]));
    let mut accepted = BTreeSet::new();
    while !input.0.is_empty() {
        let highest: u64 = accepted.last().copied().unwrap_or(0);
        let step = i64::from(input.byte() as i8);
        let nonce = highest.saturating_add_signed(step).min(RECORDS.len() as u64 - 1);
        let genuine = &RECORDS[nonce as usize];
        let mut record = input.edit(genuine.clone());
        let is_genuine = record == *genuine;
        let length = record.len();
        // A changed nonce may name another place, but never another genuine record: its tag would be wrong.
        let named = record.first_chunk().map(|head| u64::from_be_bytes(*head));
        let result = opener.open_in_place(&mut record).map(|opened| (opened.nonce, opened.text.to_vec()));
        let expected = match named {
            _ if length < RECORD_OVERHEAD => Err(OpenError::TooShort),
            Some(u64::MAX) => Err(OpenError::ReservedNonce),
            Some(named) if named.abs_diff(highest) > WINDOW => Err(OpenError::OutsideWindow),
            Some(named) if accepted.contains(&named) => Err(OpenError::Replayed),
            _ if !is_genuine => Err(OpenError::BadTag),
            _ => Ok((nonce, text_of(nonce))),
        };
        assert_eq!(result, expected, "nonce {nonce} after {highest}");
        match result {
            Ok((nonce, text)) => {
                accepted.insert(nonce);
                let _ = Plaintext::parse(&text);
            }
            Err(OpenError::BadTag) => {
                let text = &record[NONCE_LEN..length - TAG_LEN];
                assert!(text.iter().all(|byte| *byte == 0), "text is left of a record that is not genuine");
            }
            Err(_) => {}
        }
    }
}

/// A direction of a channel: what was sealed and is still on its way, and what has arrived.
struct Direction {
    sealer: Sealer,
    opener: Opener,
    /// Nonce, record, text.
    under_way: VecDeque<(u64, Vec<u8>, Vec<u8>)>,
    accepted: BTreeSet<u64>,
}

impl Direction {
    fn new(key: u8) -> Self {
        let (sealer, opener) = (Sealer::new(Secret::new([key; 32])), Opener::new(Secret::new([key; 32])));
        Direction { sealer, opener, under_way: VecDeque::new(), accepted: BTreeSet::new() }
    }

    /// By either of the two ways to seal.
    fn seal(&mut self, text: Vec<u8>, detached: bool) {
        let nonce = self.sealer.sealed();
        let record = if detached {
            let mut sealed = text.clone();
            let (head, tag) = self.sealer.seal_detached(&mut sealed).expect("nonces are left");
            [&head[..], &sealed, &tag].concat()
        } else {
            let mut record = [&[0; NONCE_LEN], &text[..], &[0; TAG_LEN]].concat();
            assert_eq!(self.sealer.seal_in_place(&mut record), Ok(nonce));
            record
        };
        assert_eq!(record[..NONCE_LEN], nonce.to_be_bytes());
        assert!(text.len() < 16 || record[NONCE_LEN..][..text.len()] != text, "the text lies open");
        self.under_way.push_back((nonce, record, text));
    }

    /// Opens what arrived. `genuine` is the text if nobody touched the record on its way.
    fn deliver(&mut self, mut record: Vec<u8>, genuine: Option<&[u8]>) {
        let highest = self.accepted.last().copied().unwrap_or(0);
        let named = record.first_chunk().map_or(0, |head| u64::from_be_bytes(*head));
        let expected = match genuine {
            _ if record.len() < RECORD_OVERHEAD => Err(OpenError::TooShort),
            _ if named == u64::MAX => Err(OpenError::ReservedNonce),
            _ if named.abs_diff(highest) > WINDOW => Err(OpenError::OutsideWindow),
            _ if self.accepted.contains(&named) => Err(OpenError::Replayed),
            Some(text) => Ok((named, text.to_vec())),
            None => Err(OpenError::BadTag),
        };
        let result = self.opener.open_in_place(&mut record).map(|opened| (opened.nonce, opened.text.to_vec()));
        assert_eq!(result, expected, "nonce {named} after {highest}");
        if result.is_ok() {
            self.accepted.insert(named);
        }
    }
}

/// Two living ends with a network between them that loses, doubles, reorders, changes and reflects what they seal.
/// Exactly what is genuine, unseen and within the window is accepted, in whatever order it comes.
pub fn channel_records(input: &[u8]) {
    let mut input = Input(input);
    let mut directions = [Direction::new(1), Direction::new(2)];
    while !input.0.is_empty() {
        let action = input.byte();
        let from = usize::from(action >> 7);
        let there = &mut directions[from];
        let chosen = |input: &mut Input<'_>, there: &Direction| match there.under_way.len() {
            0 => None,
            count => Some(usize::from(input.byte()) % count),
        };
        match action & 7 {
            0 | 1 => {
                let (count, length) = (input.byte() % 40, usize::from(input.byte()));
                (0..count).for_each(|number| there.seal(vec![number; length], action & 1 == 1));
            }
            2 => {
                for _ in 0..input.byte() {
                    let Some((_, record, text)) = there.under_way.pop_front() else { break };
                    there.deliver(record, Some(&text));
                }
            }
            3 => {
                if let Some((_, record, text)) =
                    chosen(&mut input, there).and_then(|place| there.under_way.remove(place))
                {
                    there.deliver(record, Some(&text));
                }
            }
            4 => {
                if let Some(place) = chosen(&mut input, there) {
                    let (_, record, text) = there.under_way[place].clone();
                    there.deliver(record, Some(&text));
                }
            }
            5 => {
                let lost = usize::from(input.byte()).min(there.under_way.len());
                there.under_way.drain(..lost);
            }
            6 => {
                if let Some(place) = chosen(&mut input, there) {
                    let (_, record, text) = there.under_way[place].clone();
                    let changed = input.edit(record.clone());
                    let untouched = changed == record;
                    there.deliver(changed, untouched.then_some(&text[..]));
                }
            }
            _ => {
                if let Some(place) = chosen(&mut input, there) {
                    let (_, record, _) = there.under_way[place].clone();
                    directions[1 - from].deliver(record, None);
                }
            }
        }
    }
    for there in &mut directions {
        while let Some((_, record, text)) = there.under_way.pop_front() {
            there.deliver(record, Some(&text));
        }
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |digit: u8| (digit as char).to_digit(16).expect("a hexadecimal digit") as u8;
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// The published histories, one of ours, and none.
static HISTORIES: LazyLock<Vec<ChangeHistory>> = LazyLock::new(|| {
    let published = vectors::K1_HISTORIES.iter().map(|(_, history)| *history);
    let published = published.chain([vectors::C5_HISTORY, vectors::C5_ROTATED]);
    let verified = published.map(|history| ChangeHistory::from_hex(history).expect("a published history"));
    verified.chain([SOMEONE.history.clone()]).collect()
});

/// Any bytes, and any edit of published histories. Nobody can sign here, so what is accepted is a published one or the
/// beginning of one, and is the same again when it is written and read.
pub fn change_history(input: &[u8]) {
    let mut input = Input(input);
    let chosen = usize::from(input.byte());
    let bytes = match HISTORIES.get(chosen % (HISTORIES.len() + 1)) {
        Some(history) => input.edit(history.encoded().to_vec()),
        None => input.0.to_vec(),
    };
    let Ok(history) = ChangeHistory::verify(&bytes) else { return };
    assert_eq!(history.encoded(), bytes);
    let known: Vec<_> = HISTORIES.iter().filter(|known| known.identifier() == history.identifier()).collect();
    assert!(!known.is_empty(), "an identity that nobody made");
    let count = history.changes().len();
    assert!(known.iter().any(|known| known.changes().get(..count) == Some(history.changes())));
    for known in known {
        let expected = match count.cmp(&known.changes().len()) {
            std::cmp::Ordering::Less => Comparison::Older,
            std::cmp::Ordering::Equal => Comparison::Same,
            std::cmp::Ordering::Greater => Comparison::Newer,
        };
        assert_eq!(history.compared_to(known), expected);
    }
    assert_eq!(ChangeHistory::verify(history.encoded()).as_ref(), Ok(&history));
    assert_eq!(ChangeHistory::from_hex(&history.to_hex()).as_ref(), Ok(&history));
}

/// Attestations with the histories that they are by: a published one and one of ours.
static ATTESTATIONS: LazyLock<[(ChangeHistory, Attestation); 2]> = LazyLock::new(|| {
    let client = ChangeHistory::from_hex(vectors::C5_HISTORY).expect("a published history");
    let published = Attestation::verify(&unhex(vectors::D6_ATTESTATION), &client, 1_750_000_000);
    [(client, published.expect("a published attestation")), (SOMEONE.history.clone(), SOMEONE.attestation.clone())]
});

/// Any bytes, and any edit of a genuine attestation, read at any time and for any identity. What is accepted is by that
/// identity, says what was signed, and is valid at that time.
pub fn attestation(input: &[u8]) {
    let mut input = Input(input);
    let (chosen, moment) = (usize::from(input.byte()), u64::from(input.byte()));
    let genuine = ATTESTATIONS.get(chosen % (ATTESTATIONS.len() + 1));
    // Around both ends of its time, far from both, and in the middle.
    let (from, until) = genuine.map_or((0, 200), |(_, genuine)| (genuine.created_at(), genuine.expires_at()));
    let now = match moment {
        0..100 => (from + moment).saturating_sub(CLOCK_SKEW_SECS + 50),
        100..200 => (until + moment) - 150,
        200..228 => from + (until - from) / 28 * (moment - 200),
        228..255 => moment << (moment - 200),
        _ => u64::MAX,
    };
    let bytes = match genuine {
        Some((_, genuine)) => input.edit(genuine.encoded().to_vec()),
        None => input.0.to_vec(),
    };
    for subject in HISTORIES.iter() {
        let result = Attestation::verify(&bytes, subject, now);
        let Some((by, genuine)) = genuine else {
            assert!(result.is_err(), "an attestation that nobody made");
            continue;
        };
        let valid = now.saturating_add(CLOCK_SKEW_SECS) >= from && now <= until;
        if bytes == genuine.encoded() && subject == by {
            assert_eq!(result.is_ok(), valid, "{result:?} at {now} of {from} to {until}");
        }
        if let Ok(accepted) = result {
            assert!(valid && subject == by);
            assert_eq!((accepted.subject(), accepted.key()), (genuine.subject(), genuine.key()));
            assert_eq!((accepted.created_at(), accepted.expires_at()), (from, until));
            assert_eq!(Attestation::verify(accepted.encoded(), subject, now).as_ref(), Ok(&accepted));
        }
    }
}

/// What is published by an issuer and what one of ours issued, with the histories that they are by.
struct Statements {
    issuer: Issuer,
    issuer_history: ChangeHistory,
    published_issuer: ChangeHistory,
    published: Credential,
    published_list: RevocationList,
    ours: Credential,
    our_list: RevocationList,
}

static STATEMENTS: LazyLock<Statements> = LazyLock::new(|| {
    let published_issuer = ChangeHistory::from_hex(vectors::K1_HISTORIES[4].1).expect("a published history");
    let client = ChangeHistory::from_hex(vectors::C5_HISTORY).expect("a published history").identifier();
    let published = Credential::verify(&unhex(vectors::D6_CREDENTIAL), &client, [&published_issuer], 1_750_000_000);
    let published_list = RevocationList::verify(&unhex(vectors::REVOCATION_LIST), &published_issuer, 1_750_000_200);

    let key = |seed| SigningKey::new(Secret::new([seed; 32]));
    let history = ChangeHistory::create(&key(11), Validity { from: 1000, until: 90_000 }).expect("a first change");
    let purpose = PurposePublicKey::CredentialSigning(key(12).public());
    let attestation = Attestation::create(&history, &key(11), purpose, 2000, 8000).expect("an attestation");
    let issuer = Issuer::new(&history, attestation, key(12)).expect("an issuer");
    let mut attributes = Attributes::new();
    for (name, value) in [("ockam-role", "enroller"), ("b", ""), ("aa", "\u{1b}[2J"), ("ockam-relay", "*")] {
        attributes.insert(name, value).expect("an attribute that may be");
    }
    attributes.insert(*b"\xff", *b"\xc3\x28").expect("bytes may be attributes");
    let latest = Some(SOMEONE.history.latest().hash);
    let subject = SOMEONE.history.identifier();
    let ours = Credential::issue(&issuer, subject, latest, 7, &attributes, 3000, 7000);
    let our_list = RevocationList::sign(&issuer, 9, 3000, (0..6).map(|number| (Identifier([number; 32]), 2998)));
    Statements {
        issuer,
        issuer_history: history,
        published_issuer,
        published: published.expect("a published credential"),
        published_list: published_list.expect("a frozen list"),
        ours: ours.expect("a credential"),
        our_list: our_list.expect("a list"),
    }
});

/// Any bytes, and any edit of genuine credentials and revocation lists, read at any time, for any subject and by any
/// authority; and any attributes, issued. What is accepted is by that authority, about that subject, says what was signed
/// in the very bytes that came, and is valid at that time.
pub fn credential(input: &[u8]) {
    let mut input = Input(input);
    let (chosen, moment) = (input.byte() % 6, u64::from(input.byte()));
    let all = &*STATEMENTS;
    if chosen == 5 {
        return issued(&mut input);
    }
    // Around both ends of the credentials' times and of the keys'.
    let near = [2000, 3000, 7000, 8000, 1_750_000_000, 1_752_592_000, 1_907_680_000][moment as usize / 32 % 7];
    let now = match moment {
        0..224 => match moment % 32 {
            step @ 0..11 => near - CLOCK_SKEW_SECS - 5 + step,
            step @ 11..22 => near - 16 + step,
            step => near + (step - 22) * 100,
        },
        224..255 => moment << (moment - 200),
        _ => u64::MAX,
    };
    let genuine = match chosen {
        0 => all.published.encoded(),
        1 => all.ours.encoded(),
        2 => all.published_list.encoded(),
        3 => all.our_list.encoded(),
        _ => &[],
    };
    let bytes = if chosen == 4 { input.0.to_vec() } else { input.edit(genuine.to_vec()) };

    let authorities = [&all.published_issuer, &all.issuer_history];
    let shown = Credential::inspect(&bytes);
    for subject in [all.published.subject(), all.ours.subject(), all.published.issuer(), Identifier([0; 32])] {
        // Each authority alone, both, none.
        for authorities in [&authorities[..], &authorities[..1], &authorities[1..], &[]] {
            let verify = |bytes: &[u8]| Credential::verify(bytes, &subject, authorities.iter().copied(), now);
            let verified = verify(&bytes);
            let original = [&all.published, &all.ours].into_iter().find(|original| {
                let key_until = if original.issuer() == all.issuer.identifier() { 8000 } else { 1_907_680_000 };
                let key_from = if key_until == 8000 { 2000 } else { 1_750_000_000 };
                original.subject() == subject
                    && authorities.iter().any(|authority| authority.identifier() == original.issuer())
                    && now.saturating_add(CLOCK_SKEW_SECS) >= original.created_at().max(key_from)
                    && now <= original.expires_at().min(key_until)
            });
            match (&verified, original) {
                (Ok(accepted), Some(original)) => {
                    assert_eq!(accepted.encoded(), bytes);
                    assert_eq!((accepted.issuer(), accepted.subject()), (original.issuer(), original.subject()));
                    assert_eq!((accepted.schema(), accepted.attributes()), (original.schema(), original.attributes()));
                    let times = (accepted.created_at(), accepted.expires_at());
                    assert_eq!(times, (original.created_at(), original.expires_at()));
                    assert_eq!(verify(accepted.encoded()).as_ref(), Ok(accepted));
                    let shown = shown.as_ref().expect("what is accepted can be shown");
                    assert_eq!((shown.subject, shown.attestation.subject), (Some(subject), accepted.issuer()));
                    let attributes = shown.attributes.iter().map(|(name, value)| (&name[..], &value[..]));
                    assert!(accepted.attributes().iter().eq(attributes));
                }
                (Ok(accepted), None) => panic!("a credential that nobody issued, or at {now}: {accepted:?}"),
                (Err(error), Some(original)) => assert_ne!(original.encoded(), bytes, "{error} at {now}"),
                (Err(_), None) => {}
            }
        }
    }

    for (authority, original, key_from, key_until) in [
        (&all.published_issuer, &all.published_list, 1_750_000_000, 1_907_680_000),
        (&all.issuer_history, &all.our_list, 2000, 8000),
    ] {
        let result = RevocationList::verify(&bytes, authority, now);
        let in_time = now.saturating_add(CLOCK_SKEW_SECS) >= original.created_at().max(key_from) && now <= key_until;
        if bytes == original.encoded() {
            assert_eq!(result.is_ok(), in_time, "{result:?} at {now}");
        }
        if let Ok(accepted) = result {
            assert!(in_time && accepted.encoded() == bytes);
            assert_eq!((accepted.issuer(), accepted.number()), (original.issuer(), original.number()));
            assert_eq!((accepted.created_at(), accepted.entries()), (original.created_at(), original.entries()));
            assert_eq!(RevocationList::verify(accepted.encoded(), authority, now).as_ref(), Ok(&accepted));
            assert!(shown.is_err(), "a list is no credential");
        }
    }
}

/// Attributes from the input: refused by the rules, or issued, read again the same, and void when a list says so.
fn issued(input: &mut Input) {
    let all = &*STATEMENTS;
    let mut expected = std::collections::BTreeMap::new();
    let mut attributes = Attributes::new();
    while !input.0.is_empty() {
        let mut take = |scale: usize| {
            let head = input.byte();
            let count = (usize::from(head) % 64).min(input.0.len());
            let (taken, rest) = input.0.split_at(count);
            input.0 = rest;
            match head {
                254 => b"identifier".to_vec(),
                255 => b"has_credential".to_vec(),
                _ => taken.repeat(scale),
            }
        };
        let (name, value) = (take(3), take(70));
        let allowed = (1..=ATTRIBUTE_NAME_MAX).contains(&name.len())
            && value.len() <= ATTRIBUTE_VALUE_MAX
            && name != b"identifier"
            && name != b"has_credential"
            && !expected.contains_key(&name)
            && expected.len() < ATTRIBUTES_MAX;
        assert_eq!(attributes.insert(&name[..], &value[..]).is_ok(), allowed);
        if allowed {
            expected.insert(name, value);
        }
    }
    assert!(attributes.iter().eq(expected.iter().map(|(name, value)| (&name[..], &value[..]))));
    let subject = Identifier([expected.len() as u8; 32]);
    let result = Credential::issue(&all.issuer, subject, None, 1, &attributes, 3000, 7000);
    let said: usize = expected.iter().map(|(name, value)| name.len() + value.len()).sum();
    match result {
        // The heads of the parts, two signatures and the attestation are far less than 1 KiB and 6 per attribute.
        Err(error) => assert!(error == CredentialError::TooLarge && said + 1024 + 6 * expected.len() > CREDENTIAL_MAX),
        Ok(credential) => {
            assert!(said < credential.encoded().len() && credential.encoded().len() <= CREDENTIAL_MAX);
            let read = Credential::verify(credential.encoded(), &subject, [&all.issuer_history], 7000);
            assert_eq!(read.as_ref(), Ok(&credential));
            for (revoked_at, expected) in [(2999, false), (3000, true)] {
                let list = RevocationList::sign(&all.issuer, 1, 3000, [(subject, revoked_at)]).expect("a list");
                assert_eq!(list.revokes(&credential), expected);
            }
        }
    }
}

/// What records say: published texts and one of ours.
static TEXTS: LazyLock<[Vec<u8>; 4]> = LazyLock::new(|| {
    let message = |payload_len, tracing| {
        OutgoingPlaintext::new(ockam_wire::Outgoing {
            onward: ockam_wire::RouteParts::new(&const { [ockam_wire::AddressRef::local(b"echo")] }),
            return_route: ockam_wire::RouteParts::new(&const { [ockam_wire::AddressRef::local(&[b'5'; 32])] }),
            payload_len,
            tracing,
        })
    };
    [
        message(6, None).to_text(b"\x05hello"),
        message(300, Some("{}")).to_text(&[0x40; 300]),
        unhex(vectors::K3_REFRESH),
        CLOSE.to_vec(),
    ]
});

/// Any bytes, and any edit of genuine texts, as what a record says. The quick look and the whole reading agree, and a
/// message is the same again when it is written and read.
pub fn channel_plaintext(input: &[u8]) {
    let mut input = Input(input);
    let chosen = usize::from(input.byte());
    let genuine = TEXTS.get(chosen % (TEXTS.len() + 1));
    let bytes = match genuine {
        Some(genuine) => input.edit(genuine.clone()),
        None => input.0.to_vec(),
    };
    let kind = PlaintextKind::of(&bytes);
    match Plaintext::parse(&bytes) {
        Ok(Plaintext::Payload(message)) => {
            let Ok(PlaintextKind::Payload { at }) = kind else { panic!("{kind:?} of a message") };
            assert_eq!(ockam_wire::Message::parse(&bytes[at..]), Ok(message));
        }
        Ok(Plaintext::RefreshCredentials) => assert_eq!(kind, Ok(PlaintextKind::RefreshCredentials)),
        Ok(Plaintext::Close) => assert_eq!(kind, Ok(PlaintextKind::Close)),
        // The quick look does not reach what is wrong with the message inside.
        Err(MalformedPlaintext::Message(_)) => assert!(matches!(kind, Ok(PlaintextKind::Payload { .. }))),
        Err(error) => assert_eq!(kind, Err(error)),
    }
    if let Ok((history, credentials)) = parse_refresh(&bytes) {
        assert_eq!(kind, Ok(PlaintextKind::RefreshCredentials));
        assert!(history.len() + credentials.iter().map(<[u8]>::len).sum::<usize>() < bytes.len());
    }
    if genuine.is_some_and(|genuine| *genuine == bytes) {
        assert!(kind.is_ok());
    }
    plaintext(&bytes);
}

/// Any bytes as what a record says.
pub fn plaintext(input: &[u8]) {
    if let Ok(Plaintext::Payload(message)) = Plaintext::parse(input) {
        let (onward, return_route): (Vec<_>, Vec<_>) =
            (message.onward.iter().collect(), message.return_route.iter().collect());
        let outgoing = OutgoingPlaintext::new(ockam_wire::Outgoing {
            onward: ockam_wire::RouteParts::new(&onward),
            return_route: ockam_wire::RouteParts::new(&return_route),
            payload_len: message.payload.len(),
            tracing: message.tracing,
        });
        let text = outgoing.to_text(message.payload);
        assert_eq!(Plaintext::parse(&text), Ok(Plaintext::Payload(message)));
    }
}

/// The messages of a handshake, changed on their way, in the wrong place, or from another handshake. Every one that is
/// not the genuine next one is rejected and changes nothing: the genuine ones still end in the same keys on both ends.
pub fn handshake_xx(input: &[u8]) {
    let mut input = Input(input);
    let (static_i, static_r) = (X25519Key::new(Secret::new([1; 32])), X25519Key::new(Secret::new([2; 32])));
    let (message_1, mut initiator) = initiate(Secret::new([3; 32]));

    let changed = input.edit(message_1.to_vec());
    if changed[..] != message_1[..] {
        // Anything can be message 1, but what it leads to is no answer to the genuine one.
        let answer = accept(&changed).and_then(|state| state.write(&static_r, Secret::new([4; 32]), b"responder"));
        assert_eq!(changed.len() < 32, matches!(answer, Err(HandshakeError::TooShort)));
        if let Ok((message_2, responder)) = answer {
            let same_key = changed[..32] == message_1;
            let rejected = initiator.read(&message_2).expect_err("an answer to another message");
            assert!(!same_key || rejected.error == HandshakeError::NotGenuine);
            initiator = rejected.state;
            assert!(responder.read(&message_2).is_err());
        }
    }
    let responder = accept(&message_1).expect("a genuine message 1");
    let (message_2, mut responder) =
        responder.write(&static_r, Secret::new([4; 32]), b"responder").expect("a short payload");

    let changed = input.edit(message_2.clone());
    if changed != message_2 {
        initiator = initiator.read(&changed).expect_err("a changed message 2").state;
    }
    responder = responder.read(&changed).expect_err("no message 3").state;
    let (claimed, initiator) = initiator.read(&message_2).expect("a genuine message 2");
    assert_eq!((&claimed.payload[..], &claimed.static_key), (&b"responder"[..], static_r.public()));
    let (message_3, initiator) = initiator.write(&static_i, b"initiator").expect("a short payload");

    let changed = input.edit(message_3.clone());
    if changed != message_3 {
        responder = responder.read(&changed).expect_err("a changed message 3").state;
    }
    let (claimed, responder) = responder.read(&message_3).expect("a genuine message 3");
    assert_eq!((&claimed.payload[..], &claimed.static_key), (&b"initiator"[..], static_i.public()));
    assert_eq!(initiator.hash, responder.hash);
    assert_eq!(initiator.sealing_key.expose(), responder.opening_key.expose());
    assert_eq!(initiator.opening_key.expose(), responder.sealing_key.expose());
}

struct Someone {
    history: ChangeHistory,
    attestation: Attestation,
    payload: Vec<u8>,
}

const STATIC_KEY: [u8; 32] = [5; 32];
const NOW: u64 = 2500;

static SOMEONE: LazyLock<Someone> = LazyLock::new(|| {
    let key = |seed| SigningKey::new(Secret::new([seed; 32]));
    let validity = |from| Validity { from, until: 9000 };
    let history = ChangeHistory::create(&key(1), validity(1000)).expect("a first change");
    let history = history.rotate(&key(1), &key(2), validity(2000)).expect("a second change");
    let purpose = PurposePublicKey::SecureChannel(STATIC_KEY);
    let attestation = Attestation::create(&history, &key(2), purpose, 2000, 3000).expect("an attestation");
    let payload = encode_payload(&history, &attestation, &[&[0x01], &[0x80]]);
    Someone { history, attestation, payload }
});

/// Any bytes, and any edit of genuine ones, as a history, an attestation, a handshake payload and a refresh message. What
/// is accepted says what the genuine one said, and is the same again when it is written and read.
pub fn cbor_identity(input: &[u8]) {
    let mut input = Input(input);
    let someone = &*SOMEONE;
    let kind = input.byte();
    let genuine = match kind % 4 {
        0 => someone.history.encoded(),
        1 => someone.attestation.encoded(),
        2 => &someone.payload,
        _ => input.0,
    };
    let bytes = if kind % 4 == 3 { genuine.to_vec() } else { input.edit(genuine.to_vec()) };

    if let Ok(history) = ChangeHistory::verify(&bytes) {
        // Whoever can sign is not in this test, so that it can only be the one that is known.
        assert_eq!(history.changes(), &someone.history.changes()[..history.changes().len()]);
        assert_eq!(ChangeHistory::verify(history.encoded()).as_ref(), Ok(&history));
        assert_eq!(ChangeHistory::from_hex(&history.to_hex()).as_ref(), Ok(&history));
        assert_ne!(history.compared_to(&someone.history), Comparison::Diverged);
    }
    if let Ok(attestation) = Attestation::verify(&bytes, &someone.history, NOW) {
        assert_eq!(attestation.key(), someone.attestation.key());
        assert_eq!(attestation.expires_at(), someone.attestation.expires_at());
    }
    if let Ok(claim) = Claim::parse(&bytes) {
        assert_eq!(claim.credentials().iter().count(), claim.credentials().len());
        for known in [None, Some(&someone.history)] {
            if let Ok(peer) = claim.authenticate(&STATIC_KEY, known, NOW) {
                assert_eq!(peer.history.changes(), someone.history.changes());
                assert_eq!((peer.identifier(), peer.is_news), (claim.identifier(), known.is_none()));
                let again = claim.authenticate_again(&STATIC_KEY, &peer, NOW);
                assert_eq!(again.map(|again| (again.history, again.is_news)), Ok((peer.history, false)));
            }
        }
    }
    if let Ok((history, credentials)) = parse_refresh(&bytes) {
        let inside: usize = credentials.iter().map(<[u8]>::len).sum();
        assert!(history.len() + inside < bytes.len());
    }
    plaintext(&bytes);
}
