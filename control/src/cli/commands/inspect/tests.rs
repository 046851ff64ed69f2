//! Things of each kind, as they are, changed, and cut off.

use super::*;
use crate::authority::bodies::OneTimeCode;
use crate::projects::Ticket;
use crate::text::to_hex;
use ockam_crypto::{
    Attestation, Attributes, Credential, Issuer, PurposePublicKey, RevocationList, Secret, SigningKey, Validity,
    X25519Key, encode_payload,
};
use proptest::prelude::*;

const NOW: u64 = 1_750_000_000;

/// An identity with both of its purpose keys, and what it says of `subject`.
struct Things {
    history: ChangeHistory,
    channel: Attestation,
    issuing: Attestation,
    credential: Credential,
    list: RevocationList,
    payload: Vec<u8>,
}

fn identity(seed: u8) -> (SigningKey, ChangeHistory) {
    let key = SigningKey::new(Secret::new([seed; 32]));
    let history = ChangeHistory::create(&key, Validity { from: NOW - 100, until: NOW + 1000 }).unwrap();
    (key, history)
}

fn things(seed: u8, subject: &ChangeHistory) -> Things {
    let (key, history) = identity(seed);
    let static_key = X25519Key::new(Secret::new([seed + 1; 32]));
    let signing_key = SigningKey::new(Secret::new([seed + 2; 32]));
    let attest = |key_of| Attestation::create(&history, &key, key_of, NOW - 50, NOW + 500).unwrap();
    let channel = attest(PurposePublicKey::SecureChannel(*static_key.public()));
    let issuing = attest(PurposePublicKey::CredentialSigning(signing_key.public()));
    let issuer = Issuer::new(&history, issuing.clone(), signing_key).unwrap();
    let mut attributes = Attributes::new();
    attributes.insert("role", "reader").unwrap();
    attributes.insert("odd\x1b[31m", "\u{202e}x").unwrap();
    let subject = subject.identifier();
    let credential = Credential::issue(&issuer, subject, None, 1, &attributes, NOW - 10, NOW + 100).unwrap();
    let list = RevocationList::sign(&issuer, 7, NOW - 5, [(subject, NOW - 20)]).unwrap();
    let payload = encode_payload(&history, &channel, &[credential.encoded(), credential.encoded()]);
    Things { history, channel, issuing, credential, list, payload }
}

fn judge(with: Option<&ChangeHistory>, now: u64) -> Judge {
    Judge { with: with.cloned(), identities: None, now, show_secret: false }
}

fn result(bytes: &[u8], with: Option<&ChangeHistory>, now: u64) -> String {
    let view = inspect(bytes, &judge(with, now)).unwrap();
    assert!(view.lines().iter().all(|line| !line.contains(char::is_control) && !line.contains('\u{202e}')));
    let json = serde_json::to_value(&view).unwrap();
    format!("{} {}", json["kind"].as_str().unwrap(), json["verification"]["result"].as_str().unwrap())
}

#[test]
fn things_are_told_apart_and_verified_with_what_is_at_hand() {
    let (_, bob) = identity(9);
    let alice = things(1, &bob);
    let everything = [
        (alice.channel.encoded(), "purpose_key"),
        (alice.issuing.encoded(), "purpose_key"),
        (alice.credential.encoded(), "credential"),
        (alice.list.encoded(), "revocation_list"),
    ];
    for (bytes, kind) in everything {
        for form in [bytes.to_vec(), to_hex(bytes).into_bytes(), format!(" {}\n", to_hex(bytes)).into_bytes()] {
            assert_eq!(result(&form, None, NOW), format!("{kind} not_verified"));
            assert_eq!(result(&form, Some(&alice.history), NOW), format!("{kind} verified"));
            assert_eq!(result(&form, Some(&bob), NOW), format!("{kind} refused"));
        }
        // One bit of the last signature, which is that of an attestation.
        let mut changed = bytes.to_vec();
        *changed.last_mut().unwrap() ^= 1;
        assert_eq!(result(&changed, Some(&alice.history), NOW), format!("{kind} refused"));
        assert_eq!(result(bytes, Some(&alice.history), NOW + 501), format!("{kind} refused"), "expired");
    }
    // An identity proves itself; with another one it is not whom it was to be.
    for (with, want) in [(None, "verified"), (Some(&alice.history), "verified"), (Some(&bob), "refused")] {
        assert_eq!(result(alice.history.encoded(), with, NOW), format!("identity {want}"));
    }
    // What came along proves the key, and nothing about who issued what it shows.
    let mallory = things(20, &alice.history);
    let stranger = encode_payload(&alice.history, &alice.channel, &[mallory.credential.encoded()]);
    assert_eq!(result(&alice.payload, Some(&alice.history), NOW), "handshake_payload verified");
    assert_eq!(result(&stranger, None, NOW), "handshake_payload not_verified");
    assert_eq!(result(&stranger, Some(&bob), NOW), "handshake_payload refused");
    let mixed = encode_payload(&bob, &alice.channel, &[]);
    assert_eq!(result(&mixed, None, NOW), "handshake_payload not_verified");
}

/// An attestation that came with a longer history than it knows is not by the latest key.
#[test]
fn what_an_old_key_signed_is_refused_with_the_new_history() {
    let (_, bob) = identity(9);
    let alice = things(1, &bob);
    let (key, history) = identity(1);
    let new = SigningKey::new(Secret::new([77; 32]));
    let rotated = history.rotate(&key, &new, Validity { from: NOW, until: NOW + 1000 }).unwrap();
    for bytes in [alice.channel.encoded(), alice.credential.encoded(), alice.list.encoded()] {
        assert!(result(bytes, Some(&rotated), NOW).ends_with("refused"));
    }
    assert_eq!(result(rotated.encoded(), Some(&history), NOW), "identity verified");
    let other = history.rotate(&key, &SigningKey::new(Secret::new([78; 32])), rotated.latest().validity).unwrap();
    assert_eq!(result(rotated.encoded(), Some(&other), NOW), "identity refused", "one of the keys was stolen");
}

#[test]
fn what_is_cut_off_or_something_else_is_bad_data() {
    let (_, bob) = identity(9);
    let alice = things(1, &bob);
    let all = [
        alice.history.encoded(),
        alice.channel.encoded(),
        alice.credential.encoded(),
        alice.list.encoded(),
        &alice.payload,
    ];
    for bytes in all {
        for length in 0..bytes.len() {
            let error = inspect(&bytes[..length], &judge(None, NOW)).err().expect("less than all was taken");
            assert!(matches!(error, Error::BadData { .. }), "{error}");
        }
        let longer = [bytes, &[0]].concat();
        assert!(matches!(inspect(&longer, &judge(None, NOW)), Err(Error::BadData { .. })));
    }
    // Parts that say nothing by themselves are named.
    let change = &alice.history.encoded()[1..];
    let alone = &alice.credential.encoded()[1..alice.credential.encoded().len() - alice.issuing.encoded().len()];
    for (part, named) in [(change, "one change"), (alone, "attestation of its issuer's key is missing")] {
        let said = inspect(part, &judge(None, NOW)).err().unwrap().to_string();
        assert!(said.contains(named), "{said}");
    }
    for odd in ["", "x", "00", "root:x:0,0", "{}", "{\"one_time_code\": 1}", "/a,b,c", "f6"] {
        assert!(matches!(inspect(odd.as_bytes(), &judge(None, NOW)), Err(Error::BadData { .. })), "{odd}");
    }
}

#[test]
fn a_ticket_does_not_show_its_code_unasked() {
    let (_, authority) = identity(1);
    let (_, bob) = identity(9);
    let project = Project {
        id: "p1".into(),
        name: "demo".into(),
        authority: authority.clone(),
        authority_route: "/ip4/127.0.0.1/tcp/4000/service/api".parse().unwrap(),
        node_route: None,
        node: None,
        space_name: String::new(),
        space_id: String::new(),
    };
    let code = OneTimeCode(Zeroizing::new([0xc5; 32]));
    let text = Ticket { code, project: project.clone() }.encode();
    let shown = |show_secret| {
        let judge = Judge { show_secret, ..judge(Some(&authority), NOW) };
        let view = inspect(text.as_bytes(), &judge).unwrap();
        assert!(matches!(view, View::Ticket(_)) && view.verification().is_verified());
        format!("{} {}", view.lines().join("\n"), serde_json::to_string(&view).unwrap())
    };
    assert!(!shown(false).contains("c5c5") && shown(true).matches(&"c5".repeat(32)).count() == 2);
    assert_eq!(result(text.as_bytes(), None, NOW), "ticket not_verified");
    assert_eq!(result(text.as_bytes(), Some(&bob), NOW), "ticket refused");
    let json = project.to_json().to_string();
    assert_eq!(result(json.as_bytes(), Some(&authority), NOW), "project verified");
    assert_eq!(result(json.as_bytes(), Some(&bob), NOW), "project refused");
}

proptest! {
    /// Whatever it is, it is shown or refused.
    #[test]
    fn anything_may_be_given(bytes in proptest::collection::vec(any::<u8>(), 0..200), head in 0..8usize) {
        let heads: [&[u8]; 8] = [b"", &[0x81, 0x82], &[0x82, 0x58], &[0x82, 0x82], &[0x83], &[0x9f], b"{", &[0xff]];
        let given = [heads[head], &bytes].concat();
        let _ = inspect(&given, &judge(None, NOW));
        let _ = inspect(to_hex(&given).as_bytes(), &judge(None, NOW));
    }
}
