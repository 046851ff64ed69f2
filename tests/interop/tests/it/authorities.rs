//! What an authority does for a real node that asks it (`wire.md` D.5, I.1): members, one-time codes and credentials, to
//! the attribute. The same of a real authority and of ours.

use ockam::identity::Identifier;
use ockam_crypto::{ChangeHistory, Credential, PROJECT_MEMBER_SCHEMA};
use ockam_interop::{Fleet, Kind, ManagedNode, PATIENCE, RealAuthority, RealNode, Texts};
use ockam_tests::now;
use std::time::{Duration, Instant};

of_each_kind!(members, who_may_enroll, codes, codes_expire, credentials, tickets);

const HOUR: Duration = Duration::from_secs(3600);

fn texts(attributes: &[(&str, &str)]) -> Texts {
    attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// People who are nowhere.
fn people<const N: usize>() -> [Identifier; N] {
    let real = RealNode::start();
    std::array::from_fn(|_| real.new_p256_identity())
}

fn members(kind: Kind) {
    let fleet = Fleet::start(kind, HOUR);
    let (enroller, authority) = (&fleet.enroller, fleet.anchor());
    let itself = enroller.identifier().clone();
    let [alice, bob] = people();
    assert_eq!(enroller.member_ids(authority).as_deref(), Ok(&[itself.clone()][..]));
    assert!(enroller.member(authority, &alice).is_err());
    for attributes in [&[("component", "web"), ("ü", "grün")][..], &[("cluster", "")], &[]] {
        // The later ones replace the earlier ones.
        assert_eq!(enroller.add_member(authority, &alice, attributes), Ok(()));
        assert_eq!(enroller.member(authority, &alice), Ok(texts(attributes)));
    }
    assert_eq!(enroller.add_member(authority, &bob, &[("component", "db")]), Ok(()));
    let mut ids = vec![itself.clone(), alice.clone(), bob.clone()];
    ids.sort();
    assert_eq!(enroller.member_ids(authority), Ok(ids));
    let all = enroller.members(authority).expect("members");
    assert_eq!(all.len(), 3);
    assert_eq!(all[&alice], texts(&[]));
    assert_eq!(all[&bob], texts(&[("component", "db")]));
    assert_eq!(all[&itself], texts(&[("ockam-role", "enroller")]));

    assert_eq!(enroller.delete_member(authority, &alice), Ok(()));
    assert!(enroller.member(authority, &alice).is_err());
    assert!(enroller.delete_member(authority, &itself).is_err(), "it is trusted from the start");
    assert_eq!(enroller.add_member(authority, &alice, &[]), Ok(()));
    assert_eq!(enroller.delete_members(authority), Ok(()));
    assert_eq!(enroller.member_ids(authority), Ok(vec![itself]));
}

fn who_may_enroll(kind: Kind) {
    let fleet = Fleet::start(kind, HOUR);
    let (enroller, authority) = (&fleet.enroller, fleet.anchor());
    let (other, [alice]) = (ManagedNode::start(), people());
    let refused = |other: &ManagedNode, what: &str| {
        assert!(other.add_member(authority, &alice, &[]).is_err(), "{what} adds");
        assert!(other.member(authority, enroller.identifier()).is_err(), "{what} looks");
        assert!(other.members(authority).is_err(), "{what} lists");
        assert!(other.member_ids(authority).is_err(), "{what} lists who they are");
        assert!(other.delete_member(authority, &alice).is_err(), "{what} deletes");
        assert!(other.delete_members(authority).is_err(), "{what} deletes all");
        assert!(other.create_code(authority, &[], None, None).is_err(), "{what} makes codes");
    };
    refused(&other, "a stranger");
    assert_eq!(enroller.add_member(authority, other.identifier(), &[("ockam-role", "member")]), Ok(()));
    refused(&other, "a member");
    assert_eq!(enroller.add_member(authority, other.identifier(), &[("ockam-role", "enroller")]), Ok(()));
    assert_eq!(other.add_member(authority, &alice, &[]), Ok(()));
    assert!(other.create_code(authority, &[], None, None).is_ok());
}

fn codes(kind: Kind) {
    let fleet = Fleet::start(kind, HOUR);
    let (enroller, authority) = (&fleet.enroller, fleet.anchor());
    let [alice, bob, carol, dave] = std::array::from_fn(|_| ManagedNode::start());
    let once = enroller.create_code(authority, &[("component", "web")], None, None).expect("a code");
    let again = enroller.create_code(authority, &[("component", "web")], None, None).expect("a code");
    assert_ne!(once, again);
    assert_eq!(alice.redeem(authority, &once), Ok(()));
    assert_eq!(enroller.member(authority, alice.identifier()), Ok(texts(&[("component", "web")])));
    // Ours believes that the answer to the first attempt may have been lost.
    assert_eq!(alice.redeem(authority, &once).is_ok(), kind == Kind::Ours);
    assert!(bob.redeem(authority, &once).is_err(), "it is for one");
    assert!(bob.redeem(authority, &"5a".repeat(32)).is_err(), "nobody made it");
    assert!(enroller.member(authority, bob.identifier()).is_err());
    // A member keeps its attributes.
    let other = enroller.create_code(authority, &[("component", "db")], None, Some(2)).expect("a code");
    assert!(alice.redeem(authority, &other).is_err());
    assert_eq!(enroller.member(authority, alice.identifier()), Ok(texts(&[("component", "web")])));
    assert_eq!(bob.redeem(authority, &other), Ok(()));
    assert_eq!(carol.redeem(authority, &other), Ok(()));
    assert!(dave.redeem(authority, &other).is_err(), "it is for two");
    assert_eq!(enroller.member_ids(authority).map(|ids| ids.len()), Ok(4));
    // Who was deleted may come again.
    assert_eq!(enroller.delete_member(authority, alice.identifier()), Ok(()));
    assert_eq!(alice.redeem(authority, &again), Ok(()));
}

fn codes_expire(kind: Kind) {
    let fleet = Fleet::start(kind, HOUR);
    let (enroller, authority, alice) = (&fleet.enroller, fleet.anchor(), ManagedNode::start());
    let code = enroller.create_code(authority, &[], Some(Duration::from_secs(1)), Some(100)).expect("a code");
    let (made, since) = (now(), Instant::now());
    // The clock has whole seconds.
    while now() <= made + 1 {
        assert!(since.elapsed() < PATIENCE, "the clock stands still");
        std::thread::yield_now();
    }
    assert!(alice.redeem(authority, &code).is_err());
    let code = enroller.create_code(authority, &[], Some(HOUR), None).expect("a code");
    assert_eq!(alice.redeem(authority, &code), Ok(()));
}

/// What is in a credential, read by ours and by the real library.
fn credentials(kind: Kind) {
    let fleet = Fleet::start(kind, HOUR);
    let (enroller, authority, alice) = (&fleet.enroller, fleet.anchor(), ManagedNode::start());
    assert!(alice.fetch_credential(authority).is_err(), "a stranger has none");
    assert_eq!(enroller.add_member(authority, alice.identifier(), &[("component", "web")]), Ok(()));
    let reader = RealNode::start();
    assert_eq!(reader.import(&authority.history), authority.identifier);
    let history = ChangeHistory::verify(&authority.history).expect("a history");
    for node in [&alice, enroller] {
        let before = now();
        let encoded = node.fetch_credential(authority).expect("a member has one");
        let read = reader.verify(&encoded, node.identifier(), &authority.identifier).expect("a real node believes it");
        let mut expected = texts(&[("trust_context_id", RealAuthority::PROJECT)]);
        expected.extend(enroller.member(authority, node.identifier()).expect("a member"));
        assert_eq!(read.attributes, expected);
        let subject = node.identifier().to_string().parse().expect("the same text");
        let ours = Credential::verify(&encoded, &subject, [&history], now()).expect("ours believes it");
        assert_eq!(ours.schema(), PROJECT_MEMBER_SCHEMA);
        assert!((before..=now()).contains(&ours.created_at()));
        assert_eq!(ours.expires_at() - ours.created_at(), HOUR.as_secs());
        // Real nodes look at it one day (D.4): the state of the subject's identity.
        let said = Credential::inspect(&encoded).expect("a credential").subject_latest_change;
        assert_eq!(said, Some(subject.0), "the hash of its only change");
    }
    assert_eq!(enroller.delete_member(authority, alice.identifier()), Ok(()));
    assert!(alice.fetch_credential(authority).is_err(), "it is a stranger again");
}

/// A ticket from one real node to the other.
fn tickets(kind: Kind) {
    let fleet = Fleet::start(kind, HOUR);
    let member = ManagedNode::enrolled(&fleet.ticket(&[("component", "web")]));
    let attributes = fleet.enroller.member(fleet.anchor(), member.identifier());
    assert_eq!(attributes, Ok(texts(&[("component", "web")])));
    assert!(member.fetch_credential(fleet.anchor()).is_ok());
}
