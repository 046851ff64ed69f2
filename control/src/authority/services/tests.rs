use super::super::envelope::Response;
use super::super::settings::{ENROLLER, ROLE, TRUST_CONTEXT_ID};
use super::*;
use crate::home::Home;
use crate::identities::Identities;
use crate::store::SharedStore;
use ockam_crypto::ChangeHistory;
use proptest::prelude::*;
use std::collections::BTreeMap;

const ADMIN: Identifier = Identifier([1; 32]);
const ENROLLS: Identifier = Identifier([2; 32]);
const MEMBER: Identifier = Identifier([3; 32]);
const STRANGER: Identifier = Identifier([4; 32]);

fn of(pairs: &[(&str, &str)]) -> Texts {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// An authority with a trusted enroller, another one, and a member.
struct Place {
    temporary: tempfile::TempDir,
    home: Home,
    services: Services,
    now: u64,
}

impl Place {
    fn new(change: impl FnOnce(&mut AuthoritySettings)) -> Place {
        let temporary = tempfile::tempdir().unwrap();
        let home = Home::at(temporary.path().join("home"));
        home.prepare().unwrap();
        let node = "n1".parse().unwrap();
        let identity = Identities::open(&home).unwrap().named_or_created(None).unwrap();
        let mut shared = SharedStore::open(&home).unwrap();
        shared.add(&node).unwrap();
        shared.set_node_identity(&node, &identity.identifier).unwrap();
        let mut settings = AuthoritySettings::new("p1");
        settings.trusted_identities = BTreeMap::from([(ADMIN.to_string(), of(&[(ROLE, ENROLLER)]))]);
        change(&mut settings);
        let now = now();
        let path = temporary.path().join("authority.db");
        let mut store = Store::open(&path, &settings.check().unwrap(), settings.credential_ttl_secs, now).unwrap();
        for (identifier, attributes) in [(ENROLLS, of(&[(ROLE, ENROLLER)])), (MEMBER, of(&[("role", "web")]))] {
            let added_by = Some(ADMIN);
            store.add(&Member { identifier, attributes, added_at: now, added_by, is_trusted: false }).unwrap();
        }
        let services = Services::new(settings, store, Keys::new(home.clone(), node));
        Place { temporary, home, services, now }
    }

    /// The authority's history as of now.
    fn history(&self) -> ChangeHistory {
        let identities = Identities::open(&self.home).unwrap();
        identities.known(&identities.named(None).unwrap().identifier).unwrap().unwrap()
    }

    fn ask(
        &mut self,
        service: Service,
        caller: Identifier,
        method: Method,
        path: &str,
        body: Option<&[u8]>,
    ) -> Result<Vec<u8>, u16> {
        let request = Request::new(method, path, body);
        let Answer::Now(answer) = self.services.answer(service, &caller, &request.to_payload(), self.now) else {
            panic!("{service:?} waits");
        };
        let response = Response::parse(&answer).unwrap();
        assert_eq!(response.re, request.id);
        response.success().map(<[u8]>::to_vec).map_err(|refusal| refusal.status.unwrap().0)
    }

    fn issue(&mut self, caller: Identifier) -> Result<Credential, u16> {
        let encoded = self.ask(Service::Issuer, caller, Method::Post, "/credential", None)?;
        Ok(Credential::verify(&encoded, &caller, [&self.history()], self.now).unwrap())
    }

    fn add(&mut self, caller: Identifier, member: Identifier, pairs: &[(&str, &str)]) -> Result<(), u16> {
        let body = write(&AddMember { member, attributes: of(pairs) });
        self.ask(Service::Members, caller, Method::Post, "/", Some(&body)).map(drop)
    }

    fn revoke(&mut self, caller: Identifier, member: Identifier) -> Result<(), u16> {
        let path = format!("/members/{member}/revoke");
        self.ask(Service::Members, caller, Method::Post, &path, None).map(drop)
    }

    fn delete(&mut self, caller: Identifier, member: Identifier) -> Result<(), u16> {
        self.ask(Service::Members, caller, Method::Delete, &format!("/{member}"), None).map(drop)
    }

    fn token(&mut self, caller: Identifier, create: &CreateToken) -> Result<OneTimeCode, u16> {
        let made = self.ask(Service::TokenIssuer, caller, Method::Post, "/tokens", Some(&write(create)))?;
        Ok(read(&made).unwrap())
    }

    fn accept(&mut self, caller: Identifier, code: &OneTimeCode) -> Result<(), u16> {
        let answered = self.ask(Service::TokenAcceptor, caller, Method::Post, "/", Some(&write(code)));
        answered.map(|body| assert!(body.is_empty()))
    }

    fn list(&mut self) -> RevocationList {
        let answer = self.services.list_answer(7, self.now);
        let body = Response::parse(&answer).unwrap().success().unwrap().to_vec();
        RevocationList::verify(&body, &self.history(), self.now).unwrap()
    }
}

#[test]
fn a_credential_says_what_the_authority_knows_of_a_member() {
    let mut place = Place::new(|_| ());
    let credential = place.issue(MEMBER).unwrap();
    assert_eq!(credential.subject(), MEMBER);
    assert_eq!(credential.issuer(), place.history().identifier());
    assert_eq!(credential.schema(), 1);
    let texts: Vec<_> = credential.attributes().texts().collect();
    assert_eq!(texts, [("role", "web"), (TRUST_CONTEXT_ID, "p1")]);
    assert_eq!((credential.created_at(), credential.expires_at()), (place.now, place.now + 30 * 86_400));
    // Nobody has shaken hands as this member, so that its latest change is not known.
    assert_eq!(Credential::inspect(credential.encoded()).unwrap().subject_latest_change, None);
    assert_eq!(place.issue(STRANGER), Err(403));
    assert_eq!(place.ask(Service::Issuer, MEMBER, Method::Get, "/", None), Err(400));
    assert_eq!(place.ask(Service::Issuer, MEMBER, Method::Post, "/x", None), Err(400));
    // New attributes are in the next one.
    place.add(ADMIN, MEMBER, &[("role", "db")]).unwrap();
    assert_eq!(place.issue(MEMBER).unwrap().attributes().get(b"role"), Some(&b"db"[..]));
}

#[test]
fn the_latest_change_of_who_is_known_is_in_its_credential() {
    let mut place = Place::new(|_| ());
    let peer = crate::testing::PeerIdentity::new();
    Identities::open(&place.home).unwrap().remember(&peer.history).unwrap();
    place.add(ADMIN, peer.identifier(), &[]).unwrap();
    let credential = place.issue(peer.identifier()).unwrap();
    let said = Credential::inspect(credential.encoded()).unwrap().subject_latest_change;
    assert_eq!(said, Some(peer.history.latest().hash));
}

#[test]
fn credentials_go_on_when_the_identity_changes_its_key_and_when_a_key_comes_to_its_end() {
    let mut place = Place::new(|_| ());
    let first = place.issue(MEMBER).unwrap();
    let number = place.list().number();
    Identities::open(&place.home).unwrap().rotate(None).unwrap();
    // The new key is good from now on, which may be another second than that of the beginning.
    place.now = now();
    // The next one is of the new key.
    let history = place.history();
    let second = place.issue(MEMBER).unwrap();
    assert!(Credential::verify(first.encoded(), &MEMBER, [&history], place.now).is_err());
    // Who waits for a newer list hears of the new key.
    let renewed = place.list();
    assert!(renewed.entries().is_empty() && renewed.number() > number);
    place.services.look(place.now).unwrap();
    assert_eq!(place.services.list_number(), renewed.number());
    // Years later, over and over, until the identity itself ends.
    let mut keys = vec![attestation(&second)];
    for _ in 0..5 {
        place.now += 360 * 86_400 + 86_400;
        let credential = place.issue(MEMBER).unwrap();
        assert_eq!(credential.expires_at(), place.now + 30 * 86_400);
        keys.push(attestation(&credential));
    }
    keys.dedup();
    assert_eq!(keys.len(), 2, "the key is renewed once in five years");
    place.now = history.latest().validity.until - 86_400;
    assert_eq!(place.issue(MEMBER).unwrap().expires_at(), history.latest().validity.until);
}

fn attestation(credential: &Credential) -> u64 {
    Credential::inspect(credential.encoded()).unwrap().attestation.created_at
}

#[test]
fn who_was_removed_or_revoked_has_nothing_and_gets_something_new_only_as_a_member() {
    let mut place = Place::new(|_| ());
    assert_eq!(place.list().entries(), []);
    place.now += 10_000;
    let (first, number) = (place.issue(MEMBER).unwrap(), place.list().number());
    place.revoke(ENROLLS, MEMBER).unwrap();
    let list = place.list();
    assert!(list.revokes(&first) && list.number() > number);
    // In the same second.
    let second = place.issue(MEMBER).unwrap();
    assert!(second.created_at() > place.now && !list.revokes(&second));
    place.delete(ENROLLS, MEMBER).unwrap();
    let list = place.list();
    assert!(list.revokes(&first) && list.revokes(&second));
    assert_eq!(place.issue(MEMBER), Err(403));
    place.add(ENROLLS, MEMBER, &[]).unwrap();
    let third = place.issue(MEMBER).unwrap();
    assert!(!list.revokes(&third) && list.revokes(&second));
    // The clock is set back: what would be void is not issued.
    place.now -= 3600;
    assert_eq!(place.issue(MEMBER), Err(409));
    assert!(place.issue(ENROLLS).is_ok_and(|it| it.created_at() == place.now));
    // Revoking works all the same.
    place.revoke(ENROLLS, ENROLLS).unwrap();
    place.now += 3600;
    assert!(place.list().revoked_at(&ENROLLS).unwrap() >= place.now);
}

#[test]
fn a_credential_ends_when_the_settings_say() {
    let mut place = Place::new(|settings| {
        settings.credential_ttl_secs = 5;
        settings.disable_trust_context_id = true;
    });
    let credential = place.issue(MEMBER).unwrap();
    assert_eq!(credential.expires_at(), place.now + 5);
    assert_eq!(credential.attributes().texts().collect::<Vec<_>>(), [("role", "web")]);
}

#[test]
fn who_may_do_what() {
    let new = Identifier([9; 32]);
    for enforced in [false, true] {
        // Whether an enroller that is not trusted may do it, and what a trusted one gets.
        let admins_only = if enforced { Err(403) } else { Ok(()) };
        type Deed = (&'static str, fn(&mut Place, Identifier) -> Result<(), u16>, Result<(), u16>, Result<(), u16>);
        let deeds: [Deed; 13] = [
            ("adds", |it, by| it.add(by, Identifier([9; 32]), &[("a", "b")]), Ok(()), Ok(())),
            ("adds an enroller", |it, by| it.add(by, Identifier([9; 32]), &[(ROLE, ENROLLER)]), admins_only, Ok(())),
            ("promotes", |it, by| it.add(by, MEMBER, &[(ROLE, ENROLLER)]), admins_only, Ok(())),
            ("demotes", |it, by| it.add(by, ENROLLS, &[]), admins_only, Ok(())),
            ("changes a trusted one", |it, by| it.add(by, ADMIN, &[]), Err(403), Err(403)),
            ("removes", |it, by| it.delete(by, MEMBER), Ok(()), Ok(())),
            ("removes an enroller", |it, by| it.delete(by, ENROLLS), admins_only, Ok(())),
            ("removes a trusted one", |it, by| it.delete(by, ADMIN), Err(403), Err(403)),
            ("revokes", |it, by| it.revoke(by, MEMBER), Ok(()), Ok(())),
            ("revokes an enroller", |it, by| it.revoke(by, ENROLLS), admins_only, Ok(())),
            ("makes a ticket", |it, by| it.token(by, &CreateToken::default()).map(drop), Ok(()), Ok(())),
            (
                "makes a ticket for an enroller",
                |it, by| {
                    let attributes = of(&[(ROLE, ENROLLER)]);
                    it.token(by, &CreateToken { attributes, ..CreateToken::default() }).map(drop)
                },
                admins_only,
                Ok(()),
            ),
            ("lists", |it, by| it.ask(Service::Members, by, Method::Get, "/", None).map(drop), Ok(()), Ok(())),
        ];
        for (deed, try_it, by_enroller, by_admin) in deeds {
            let mut place = Place::new(|settings| settings.enforce_admin_checks = enforced);
            for (caller, expected) in
                [(STRANGER, Err(403)), (MEMBER, Err(403)), (ENROLLS, by_enroller), (ADMIN, by_admin)]
            {
                let before = (place.services.store.page(None, 100).unwrap(), place.list().number());
                assert_eq!(try_it(&mut place, caller), expected, "{caller:?} {deed}, enforced: {enforced}");
                if expected.is_err() {
                    let after = (place.services.store.page(None, 100).unwrap(), place.list().number());
                    assert_eq!(after, before);
                }
            }
        }
    }
    let mut place = Place::new(|settings| settings.enforce_admin_checks = true);
    place.add(ENROLLS, new, &[]).unwrap();
    place.ask(Service::Members, ENROLLS, Method::Delete, "/members", None).unwrap();
    assert_eq!(place.services.store.identifiers(None, 100).unwrap(), [ADMIN, ENROLLS]);
    place.ask(Service::Members, ADMIN, Method::Delete, "/members", None).unwrap();
    assert_eq!(place.services.store.identifiers(None, 100).unwrap(), [ADMIN]);
}

#[test]
fn attributes_that_no_credential_may_have_are_refused_when_they_come() {
    let mut place = Place::new(|_| ());
    let long = "x".repeat(4097);
    for bad in
        [("identifier", "x"), ("has_credential", "true"), (TRUST_CONTEXT_ID, "p2"), ("", "x"), ("a", long.as_str())]
    {
        assert_eq!(place.add(ADMIN, STRANGER, &[bad]), Err(400));
        let create = CreateToken { attributes: of(&[bad]), ..CreateToken::default() };
        assert_eq!(place.token(ADMIN, &create).err(), Some(400));
    }
    let many: Vec<(String, String)> = (0..65).map(|number| (number.to_string(), String::new())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(place.add(ADMIN, STRANGER, &many), Err(400));
    assert_eq!(place.issue(STRANGER), Err(403));
    // The largest that is accepted fits a credential.
    let large: Vec<(String, String)> = (0..63).map(|number| (format!("{number:02}"), "y".repeat(190))).collect();
    let large: Vec<(&str, &str)> = large.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    place.add(ADMIN, STRANGER, &large).unwrap();
    assert_eq!(place.issue(STRANGER).unwrap().attributes().len(), 64);
}

#[test]
fn members_are_shown_whole_one_by_one_and_in_pages() {
    let mut place = Place::new(|_| ());
    let by = ENROLLS;
    let all: MemberList = read(&place.ask(Service::Members, by, Method::Get, "/members", None).unwrap()).unwrap();
    let entry = |list: &MemberList, index: usize| list.0[index].clone();
    assert_eq!(all.0.iter().map(|it| it.0).collect::<Vec<_>>(), [ADMIN, ENROLLS, MEMBER]);
    assert_eq!(entry(&all, 0).1.attested_by, None);
    assert_eq!(entry(&all, 2).1.attributes, BTreeMap::from([(b"role".to_vec(), b"web".to_vec())]));
    let ids: IdentifierList =
        read(&place.ask(Service::Members, by, Method::Get, "/member_ids", None).unwrap()).unwrap();
    assert_eq!(ids.0, [ADMIN, ENROLLS, MEMBER]);

    let mut seen = Vec::new();
    loop {
        let body = write(&Page { after: seen.last().copied(), count: 2 });
        let page = place.ask(Service::Members, by, Method::Get, "members", Some(&body)).unwrap();
        let page: MemberList = read(&page).unwrap();
        seen.extend(page.0.iter().map(|it| it.0));
        if page.0.len() < 2 {
            break;
        }
    }
    assert_eq!(seen, [ADMIN, ENROLLS, MEMBER]);
    let body = write(&Page { after: Some(ADMIN), count: u64::MAX });
    let page = place.ask(Service::Members, by, Method::Get, "member_ids", Some(&body)).unwrap();
    assert_eq!(read::<IdentifierList>(&page).unwrap().0, [ENROLLS, MEMBER]);

    for path in [format!("/{MEMBER}"), format!("/members/{MEMBER}")] {
        let shown: AttributesEntry = read(&place.ask(Service::Members, by, Method::Get, &path, None).unwrap()).unwrap();
        assert_eq!(shown, entry(&all, 2).1);
    }
    assert_eq!(place.ask(Service::Members, by, Method::Get, &format!("/{STRANGER}"), None), Err(404));
    assert_eq!(place.ask(Service::Members, by, Method::Get, "/I12", None), Err(400));
    assert_eq!(place.ask(Service::Members, by, Method::Put, "/", None), Err(400));
}

#[test]
fn a_ticket_makes_members_and_is_kept_as_a_hash() {
    let mut place = Place::new(|_| ());
    let attributes = of(&[("role", "guest")]);
    let code = place.token(ENROLLS, &CreateToken { attributes, ttl_secs: Some(60), ttl_count: Some(1) }).unwrap();
    let other = OneTimeCode(Zeroizing::new([0; 32]));
    assert_eq!(place.accept(STRANGER, &other), Err(403));
    assert_eq!(place.accept(MEMBER, &code), Err(403));
    place.accept(STRANGER, &code).unwrap();
    place.accept(STRANGER, &code).unwrap();
    assert_eq!(place.accept(Identifier([9; 32]), &code), Err(403));
    assert_eq!(place.issue(STRANGER).unwrap().attributes().get(b"role"), Some(&b"guest"[..]));

    // Neither the database nor its log has the code in any form.
    let hex = crate::text::to_hex(&*code.0);
    let mut files = 0;
    for entry in std::fs::read_dir(place.temporary.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            let has = |what: &[u8]| bytes.windows(what.len()).any(|it| it == what);
            assert!(!has(&*code.0) && !has(hex.as_bytes()) && !has(hex.to_uppercase().as_bytes()), "{path:?}");
            files += usize::from(has(&Sha256::digest(*code.0)));
        }
    }
    assert!(files > 0, "the hash is in one of the files");
}

#[test]
fn a_ticket_is_good_for_as_long_and_as_many_as_was_asked_for() {
    let mut place = Place::new(|_| ());
    let code = place.token(ADMIN, &CreateToken::default()).unwrap();
    place.now += 599;
    place.accept(Identifier([20; 32]), &code).unwrap();
    assert_eq!(place.accept(Identifier([21; 32]), &code), Err(403));
    let code =
        place.token(ADMIN, &CreateToken { ttl_secs: Some(10), ttl_count: Some(2), ..Default::default() }).unwrap();
    place.accept(Identifier([21; 32]), &code).unwrap();
    place.now += 10;
    assert_eq!(place.accept(Identifier([22; 32]), &code), Err(403));
    place.now -= 5;
    assert_eq!(place.accept(Identifier([22; 32]), &code), Err(403));
    for (ttl_secs, ttl_count) in [(Some(0), None), (Some(u64::MAX), None), (None, Some(0)), (None, Some(u64::MAX))] {
        let create = CreateToken { attributes: Texts::new(), ttl_secs, ttl_count };
        assert_eq!(place.token(ADMIN, &create).err(), Some(400));
    }
}

#[test]
fn what_is_switched_off_is_not_there() {
    let on = AuthoritySettings::new("p1");
    assert!(Service::ALL.iter().all(|it| it.is_offered(&on)));
    let off = AuthoritySettings { no_direct_authentication: true, no_token_enrollment: true, ..on };
    let left: Vec<Service> = Service::ALL.into_iter().filter(|it| it.is_offered(&off)).collect();
    assert_eq!(left, [Service::Issuer, Service::Revocations]);
}

#[test]
fn any_bytes_get_an_answer_and_change_nothing() {
    let place = Place::new(|_| ());
    let services = Service::ALL.to_vec();
    let paths = ["", "/", "members", "/members/", "/credential", "tokens", "member_ids", "a/b/c/d/e/f", "/\u{0}"];
    let strategy = (
        proptest::sample::select(services),
        proptest::sample::select(vec![STRANGER, MEMBER, ENROLLS]),
        any::<bool>(),
        any::<u8>(),
        proptest::sample::select(paths.to_vec()),
        any::<Option<Vec<u8>>>(),
    );
    let before = place.services.store.page(None, 100).unwrap();
    let place = std::cell::RefCell::new(place);
    let mut runner = proptest::test_runner::TestRunner::default();
    runner
        .run(&strategy, |(service, caller, whole, method, path, body)| {
            let methods = [Method::Get, Method::Post, Method::Put, Method::Delete, Method::Patch];
            let method = methods.get(usize::from(method % 6)).copied();
            // Removing all is what it says.
            prop_assume!(!(method == Some(Method::Delete) && caller == ENROLLS));
            let request = Request { id: 7, method, path, body: body.as_deref() };
            let payload = if whole { request.to_payload() } else { body.clone().unwrap_or_default() };
            let mut place = place.borrow_mut();
            match place.services.answer(service, &caller, &payload, now()) {
                Answer::Now(answer) => {
                    let response = Response::parse(&answer).unwrap();
                    prop_assert!(response.success().is_ok() || response.status >= Some(Status(400)));
                }
                Answer::Await { .. } => prop_assert_eq!(service, Service::Revocations),
            }
            prop_assert_eq!(place.services.store.members().unwrap(), before.len() as u64);
            Ok(())
        })
        .unwrap();
    assert_eq!(place.into_inner().services.store.page(None, 100).unwrap(), before);
}

#[test]
fn a_hundred_thousand_members_are_found_listed_and_given_credentials() {
    let mut place = Place::new(|_| ());
    let member = |number: u64| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_be_bytes());
        bytes[31] = 0xff;
        Identifier(bytes)
    };
    place.services.store.fill((0..100_000).map(|number| Member {
        identifier: member(number),
        attributes: of(&[("role", "web")]),
        added_at: place.now,
        added_by: Some(ADMIN),
        is_trusted: false,
    }));
    for number in (0..100_000).step_by(10_007) {
        assert_eq!(place.issue(member(number)).unwrap().subject(), member(number));
    }
    assert_eq!(place.issue(member(100_000)), Err(403));
    let ids = place.ask(Service::Members, ADMIN, Method::Get, "/member_ids", None).unwrap();
    assert_eq!(read::<IdentifierList>(&ids).unwrap().0.len(), 100_003);
    let all = place.ask(Service::Members, ADMIN, Method::Get, "/", None).unwrap();
    assert!(all.len() < ANSWER_MAX);
    assert_eq!(read::<MemberList>(&all).unwrap().0.len(), 100_003);
    let (mut count, mut after) = (0, None);
    loop {
        let body = write(&Page { after, count: PAGE_MAX });
        let page = place.ask(Service::Members, ADMIN, Method::Get, "/member_ids", Some(&body)).unwrap();
        let page = read::<IdentifierList>(&page).unwrap().0;
        assert!(page.is_sorted() && page.first() > after.as_ref());
        count += page.len();
        after = page.last().copied();
        if (page.len() as u64) < PAGE_MAX {
            break;
        }
    }
    assert_eq!(count, 100_003);
    place.ask(Service::Members, ADMIN, Method::Delete, "/members", None).unwrap();
    assert_eq!(place.services.store.members().unwrap(), 1);
    assert_eq!(place.list().entries().len(), 100_002);
}
