//! Against a stand-in for the engine, with real handshakes and real credentials.

use super::*;
use crate::api::{CheckPolicy, CreatePolicy, PolicySource, StoreCredential};
use crate::channels::tests::{Initiator, accepted_link, pretend, until};
use crate::error::exit;
use crate::identities::Identities;
use crate::testing::{FakeAuthority, PeerIdentity, World, run};
use ockam_crypto::encode_refresh;
use ockam_engine_abi::{Notice, Refusal};

/// Opens a channel to the node as somebody. Gives its number, and what the node showed.
async fn open(world: &World, link: u32, identity: &PeerIdentity) -> (u32, Vec<Vec<u8>>) {
    let link = accepted_link(world, link);
    let before: Vec<u32> = world.tables(0, |tables| tables.channels.keys().copied().collect());
    let mut peer = Initiator::begin(world, link, "api");
    let (message_3, ..) = peer.answer(world, identity).await;
    peer.finish(world, &message_3);
    let number =
        until(|| world.tables(0, |tables| tables.channels.keys().find(|number| !before.contains(number)).copied()));
    (number.await, peer.shown)
}

fn policy(resource_type: Option<ResourceType>, resource: Option<&str>, expression: &str) -> CreatePolicy {
    CreatePolicy { resource_type, resource: resource.map(str::to_owned), expression: expression.into() }
}

fn guard(node: &Node, resource_type: ResourceType, resource: &str) -> Guard {
    node.trust.guard(resource_type, resource).unwrap()
}

fn passes(world: &World, node: &Node, channel: u32) -> bool {
    let guard = guard(node, ResourceType::Echoer, "echo");
    world.tables(0, |tables| tables.passes(channel, guard))
}

/// A node that believes an authority which nobody reaches.
fn believe(world: &World, authority: &FakeAuthority) {
    let mut store = NodeStore::open(&world.dir).unwrap();
    store.set_trusted_authority(&authority.history, "/ip4/127.0.0.1/tcp/9/secure/api", "project").unwrap();
}

fn asks(resource: &str, subject: Option<Identifier>) -> CheckPolicy {
    CheckPolicy {
        resource: resource.into(),
        resource_type: None,
        subject: subject.map(|subject| subject.to_string()),
        attributes: None,
    }
}

#[test]
fn a_policy_is_in_force_for_channels_that_live_and_interrupts_nobody_it_permits() {
    run(async {
        let world = World::new(1);
        let (node, supervisor) = world.control(false).await;
        let (welcome, other) = (PeerIdentity::new(), PeerIdentity::new());
        let (a, _) = open(&world, 1, &welcome).await;
        let (b, _) = open(&world, 2, &other).await;
        let echo = guard(&node, ResourceType::Echoer, "echo");
        world.tables(0, |tables| {
            assert_eq!(tables.guards[&b"echo"[..]], echo);
            assert!(tables.open.contains(echo) && tables.passes(a, echo));
            tables.passed.clear();
        });
        let expression = format!("(= subject.identifier \"{}\")", welcome.identifier());
        let made = policies::create(&node, policy(None, Some("echo"), &expression)).await.unwrap();
        assert_eq!((made.source, made.expression.as_str()), (PolicySource::User, expression.as_str()));
        world.tables(0, |tables| {
            assert!(!tables.open.contains(echo));
            assert!(tables.passes(a, echo) && !tables.passes(b, echo));
            // Whom it permits passed all the time.
            let always = tables.passed.iter().all(|(open, grants)| open.contains(echo) || grants[&a].contains(echo));
            assert!(always && !tables.passed.is_empty());
        });
        // Who comes later is looked at when it comes.
        let (c, _) = open(&world, 3, &welcome).await;
        let (d, _) = open(&world, 4, &other).await;
        assert!(passes(&world, &node, c) && !passes(&world, &node, d));
        let asked = policies::check(&node, asks("echo", Some(other.identifier()))).unwrap();
        assert!(!asked.allowed && asked.channels == 2, "{asked:?}");
        assert!(policies::check(&node, asks("echo", Some(welcome.identifier()))).unwrap().allowed);
        assert!(!policies::check(&node, asks("echo", None)).unwrap().allowed);
        assert!(policies::check(&node, asks("uppercase", None)).unwrap().allowed);
        assert!(matches!(policies::check(&node, asks("nothing", None)), Err(Error::BadArgument { .. })));

        // The engine refuses: all is as before.
        let before = node.desired();
        world.tables(0, |tables| tables.refuse = Some(Refusal::Limit));
        let refused = policies::create(&node, policy(None, Some("echo"), "nobody")).await;
        assert!(matches!(refused, Err(Error::EngineRefused { .. })));
        assert_eq!((node.desired(), passes(&world, &node, a)), (before, true));
        assert!(policies::check(&node, asks("echo", Some(welcome.identifier()))).unwrap().allowed);

        // The next control has it, and the numbers.
        drop((node, supervisor));
        let (node, _supervisor) = world.control(true).await;
        assert_eq!(guard(&node, ResourceType::Echoer, "echo"), echo);
        assert!(passes(&world, &node, a) && !passes(&world, &node, b));
        assert_eq!(policies::list(&node, None, None).len(), 1);
        // Another one instead, then none.
        let expression = format!("{}", other.identifier());
        policies::create(&node, policy(None, Some("echo"), &expression)).await.unwrap();
        assert!(!passes(&world, &node, a) && passes(&world, &node, b));
        world.tables(0, |tables| tables.passed.clear());
        policies::delete(&node, None, Some("echo".into())).await.unwrap();
        assert!(passes(&world, &node, a) && passes(&world, &node, b));
        world.tables(0, |tables| {
            assert!(tables.passed.iter().all(|(open, grants)| open.contains(echo) || grants[&b].contains(echo)));
        });
        let gone = policies::delete(&node, None, Some("echo".into())).await;
        assert!(matches!(gone, Err(Error::NoSuchThing { .. })));
    });
}

#[test]
fn a_name_alone_means_the_policy_that_decides_about_it() {
    run(async {
        let world = World::new(1);
        let (node, _supervisor) = world.control(false).await;
        let echoer = Some(ResourceType::Echoer);
        let all = |node: &Node| -> Vec<_> {
            let infos = policies::list(node, None, None);
            infos.into_iter().map(|info| (info.resource_type, info.expression)).collect()
        };
        policies::create(&node, policy(echoer, Some("echo"), "a")).await.unwrap();
        let made = policies::create(&node, policy(None, Some("echo"), "b")).await.unwrap();
        assert_eq!((made.resource_type, all(&node)), (echoer, vec![(echoer, "b".into())]));
        // Now something else has the name, too.
        policies::create(&node, policy(Some(ResourceType::TcpInlet), Some("echo"), "c")).await.unwrap();
        let unclear = policies::create(&node, policy(None, Some("echo"), "d")).await.unwrap_err();
        assert_eq!(unclear.exit(), exit::USAGE);
        assert_eq!(policies::delete(&node, None, Some("echo".into())).await.unwrap_err().exit(), exit::USAGE);
        policies::delete(&node, Some(ResourceType::TcpInlet), Some("echo".into())).await.unwrap();
        let gone = policies::delete(&node, None, Some("echo".into())).await.unwrap();
        assert_eq!((gone.resource_type, all(&node)), (echoer, vec![]));
        // Where nothing else is said of the name, it means all that have it.
        let made = policies::create(&node, policy(None, Some("echo"), "e")).await.unwrap();
        assert_eq!(made.resource_type, None);
        let unknown = policies::check(&node, asks("ecco", None)).unwrap_err();
        assert!(unknown.hint().contains("echo"), "{}", unknown.hint());
    });
}

#[test]
fn a_policy_reaches_ten_thousand_channels_in_few_records() {
    run(async {
        let world = World::new(1);
        let authority = FakeAuthority::new();
        believe(&world, &authority);
        let (node, _supervisor) = world.control(false).await;
        let identifier = |index: usize| {
            let mut bytes = [7; 32];
            bytes[..8].copy_from_slice(&index.to_le_bytes());
            Identifier(bytes)
        };
        // Every second one has a credential.
        let attested = authority.issue(identifier(0), &[("role", "dba")], 5000);
        let shown = Arc::new(Shown::stored(attested).unwrap());
        for index in 0..10_000 {
            pretend(&node, identifier(index));
            if index % 2 == 0 {
                node.trust.state().peers.insert(identifier(index), shown.clone());
            }
        }
        let granted = |node: &Node| {
            let guard = guard(node, ResourceType::Echoer, "echo");
            let all = node.channels.granted();
            all.iter().filter(|(.., it)| it.is_some_and(|it| it.guards.contains(guard))).count()
        };
        node.trust.decide_anew(&node).await;
        assert_eq!(granted(&node), 5000);
        for (expression, count) in [("role=no", 0), ("role=dba", 5000), ("(!= subject.identifier \"\")", 10_000)] {
            world.tables(0, |tables| tables.passed.clear());
            let began = Instant::now();
            policies::create(&node, policy(None, Some("echo"), expression)).await.unwrap();
            println!("{expression}: {:?}", began.elapsed());
            assert_eq!(granted(&node), count, "{expression}");
            // One record for each batch of those for whom something changes.
            world.tables(0, |tables| assert!(tables.passed.len() <= 10_000_usize.div_ceil(BATCH), "{expression}"));
        }
        world.tables(0, |tables| tables.passed.clear());
        node.trust.decide_anew(&node).await;
        world.tables(0, |tables| assert_eq!(tables.passed.len(), 0, "nothing has changed"));
    });
}

#[test]
fn what_is_no_policy_is_refused() {
    run(async {
        let world = World::new(1);
        let (node, _supervisor) = world.control(false).await;
        let transit = Some(ResourceType::Transit);
        for (request, code) in [
            (policy(None, None, "admin"), exit::NO_INPUT),
            (policy(None, Some(""), "admin"), exit::USAGE),
            (policy(None, Some("a\n"), "admin"), exit::USAGE),
            (policy(None, Some("echo"), ""), exit::USAGE),
            (policy(None, Some("echo"), "(= subject.role"), exit::USAGE),
            (policy(transit, Some("somewhere"), "admin"), exit::USAGE),
            (policy(Some(ResourceType::Relay), Some("blue"), "admin"), exit::USAGE),
        ] {
            let refused = policies::create(&node, request.clone()).await.unwrap_err();
            assert_eq!(refused.exit(), code, "{request:?}: {refused}");
        }
        assert_eq!(node.desired().policies, []);
        // A transit rule with its guard, under the name in which networks are written.
        let made = policies::create(&node, policy(transit, Some("10.0.0.1:80"), "admin")).await.unwrap();
        assert_eq!(made.resource.as_deref(), Some("10.0.0.1/32:80"));
        let number = guard(&node, ResourceType::Transit, "10.0.0.1/32:80");
        let rule = |rule: &TransitRule| crate::transit::text(rule);
        world.tables(0, |tables| {
            let rules: Vec<String> = tables.transit.iter().map(rule).collect();
            assert_eq!(rules, [format!("guard {number}=10.0.0.1/32:80")]);
        });
        policies::delete(&node, transit, Some("10.0.0.1:80".into())).await.unwrap();
        world.tables(0, |tables| assert_eq!(tables.transit, []));
    });
}

#[test]
fn a_place_gets_a_guard_and_gives_it_back() {
    run(async {
        let world = World::new(1);
        let (node, _supervisor) = world.control(false).await;
        let identity = PeerIdentity::new();
        let (channel, _) = open(&world, 1, &identity).await;
        let mine = format!("{}", identity.identifier());
        policies::create(&node, policy(Some(ResourceType::TcpOutlet), None, &mine)).await.unwrap();
        let outlet = |address: &str| crate::api::CreateTcpOutlet {
            to: "127.0.0.1:9".into(),
            address: Some(address.into()),
            tls: false,
            allow_plain: false,
        };
        crate::portals::outlets::create(&node, outlet("a")).await.unwrap();
        let first = guard(&node, ResourceType::TcpOutlet, "a");
        world.tables(0, |tables| {
            assert_eq!(tables.guards[&b"a"[..]], first);
            assert!(tables.passes(channel, first) && !tables.open.contains(first));
        });
        crate::portals::outlets::delete(&node, "a").await.unwrap();
        assert_eq!(guard(&node, ResourceType::TcpOutlet, "a"), crate::store::trust::GUARD_CLOSED);
        world.tables(0, |tables| assert!(!tables.passes(channel, first), "the number is nobody's"));
        // An open place may have the number: nobody is granted it for what was there before.
        node.start_service(crate::api::Service::Hop, "hop").await.unwrap();
        let hop = guard(&node, ResourceType::Service, "hop");
        world.tables(0, |tables| {
            assert_eq!(tables.guards[&b"hop"[..]], hop);
            assert!(tables.open.contains(hop) && !tables.grants[&channel].guards.contains(hop));
        });
        // What an engine has under another number is set again.
        world.tables(0, |tables| tables.guards.insert(b"hop".to_vec(), 1000));
        drop((node, _supervisor));
        let (node, _supervisor) = world.control(true).await;
        world.tables(0, |tables| assert_eq!(tables.guards[&b"hop"[..]], hop));
        drop(node);
    });
}

#[test]
fn only_the_authoritys_word_about_the_peer_counts_and_only_in_its_time() {
    run(async {
        let world = World::new(1);
        let (authority, other) = (FakeAuthority::new(), FakeAuthority::new());
        believe(&world, &authority);
        let revoked = PeerIdentity::showing(|me| vec![authority.issue(me, &[], 5000)]);
        let list = RevocationList::sign(&authority.issuer, 3, authority.now, [(revoked.identifier(), authority.now)]);
        NodeStore::open(&world.dir)
            .unwrap()
            .set_revocation_list(&list.unwrap(), &authority.history, authority.now)
            .unwrap();
        let (node, _supervisor) = world.control(false).await;
        let somebody = PeerIdentity::new().identifier();
        let expired = |me| {
            let all = ockam_crypto::Attributes::new();
            let (from, until) = (authority.now - 100, authority.now - 1);
            let made = ockam_crypto::Credential::issue(&authority.issuer, me, None, 1, &all, from, until);
            vec![made.unwrap().encoded().to_vec()]
        };
        let cases: Vec<(&str, Arc<PeerIdentity>, bool)> = vec![
            ("none", PeerIdentity::new(), false),
            ("good", PeerIdentity::showing(|me| vec![authority.issue(me, &[("a", "b")], 5000)]), true),
            ("of another authority", PeerIdentity::showing(|me| vec![other.issue(me, &[], 5000)]), false),
            ("about another", PeerIdentity::showing(|_| vec![authority.issue(somebody, &[], 5000)]), false),
            ("by itself", PeerIdentity::showing(|_| vec![vec![0x80]]), false),
            ("expired", PeerIdentity::showing(expired), false),
            ("revoked", revoked, false),
            (
                "behind others",
                PeerIdentity::showing(|me| vec![other.issue(me, &[], 5000), authority.issue(me, &[], 5000)]),
                true,
            ),
            (
                "behind too many",
                PeerIdentity::showing(|me| {
                    let mut all = vec![other.issue(me, &[], 5000); 4];
                    all.push(authority.issue(me, &[], 5000));
                    all
                }),
                false,
            ),
        ];
        for (index, (case, identity, admitted)) in cases.into_iter().enumerate() {
            let (channel, _) = open(&world, 1 + index as u32, &identity).await;
            assert_eq!(passes(&world, &node, channel), admitted, "{case}");
            let grants = world.tables(0, |tables| tables.grants[&channel]);
            if admitted {
                let expire_in = grants.expire_in_ms.unwrap();
                assert!((4_000_000..=5_001_000).contains(&expire_in), "{case}: {expire_in}");
            } else {
                assert_eq!(grants, Grants::default(), "{case}");
            }
            let asked = policies::check(&node, asks("echo", Some(identity.identifier()))).unwrap();
            assert_eq!(asked.allowed, admitted, "{case}: {asked:?}");
            assert_eq!(asked.policy.unwrap().source, PolicySource::BuiltIn);
        }
        // Of several the last one that is good stands.
        let several = PeerIdentity::showing(|me| {
            let [a, b] = ["a", "b"].map(|role| authority.issue(me, &[("role", role)], 5000));
            vec![a, b, other.issue(me, &[], 5000)]
        });
        open(&world, 99, &several).await;
        let asked = policies::check(&node, asks("echo", Some(several.identifier()))).unwrap();
        assert_eq!(asked.attributes["role"], "b");
        let infos = node.trust.credential_infos();
        assert_eq!(infos.len(), 3);
        assert!(infos.iter().all(|info| !info.own && !info.revoked && info.scope == "project"));
        let info = node.trust.authority_info(&node).unwrap();
        assert_eq!((info.identifier, info.reachable), (authority.history.identifier().to_string(), false));
        assert_eq!(info.revocations.unwrap().number, 3);
    });
}

#[test]
fn what_expired_closes_and_no_clock_opens_it_again() {
    run(async {
        let world = World::new(1);
        let authority = FakeAuthority::new();
        believe(&world, &authority);
        let (node, supervisor) = world.control(false).await;
        let identity = PeerIdentity::showing(|me| vec![authority.issue(me, &[], 1000)]);
        // Who is named needs no credential, and keeps what that gives.
        let mine = format!("{}", identity.identifier());
        policies::create(&node, policy(None, Some("uppercase"), &mine)).await.unwrap();
        let (channel, _) = open(&world, 1, &identity).await;
        let upper = guard(&node, ResourceType::Service, "uppercase");
        assert!(passes(&world, &node, channel));
        world.tables(0, |tables| assert!(tables.passes(channel, upper)));
        // Shortly before its last second: the clock goes on.
        node.trust.clock.set((authority.now + 1000) as i64 - node.trust.clock.now() as i64 - 60);
        node.trust.decide_anew(&node).await;
        assert!(passes(&world, &node, channel));
        node.trust.clock.set(1100);
        until(|| (!passes(&world, &node, channel)).then_some(())).await;
        world.tables(0, |tables| {
            assert!(tables.passes(channel, upper));
            assert_eq!(tables.grants[&channel].expire_in_ms, None);
        });
        // Back in time, and back by years.
        for skew in [0, -100_000_000] {
            node.trust.clock.set(skew);
            node.trust.decide_anew(&node).await;
            assert!(!passes(&world, &node, channel));
            let (again, _) = open(&world, 2, &identity).await;
            assert!(!passes(&world, &node, again));
            node.channels.retire(&node.engine().await.unwrap().link, again).await;
        }
        // Neither does another control.
        until(|| NodeStore::open(&world.dir).ok()?.latest_time().ok().filter(|time| *time > authority.now + 1000))
            .await;
        drop((node, supervisor));
        let (node, _supervisor) = world.control(true).await;
        assert!(!passes(&world, &node, channel));
        world.tables(0, |tables| assert!(tables.passes(channel, guard(&node, ResourceType::Service, "uppercase"))));
    });
}

#[test]
fn a_peer_shows_another_credential_and_the_authority_takes_it_back() {
    run(async {
        let world = World::new(1);
        let authority = FakeAuthority::new();
        believe(&world, &authority);
        let (node, supervisor) = world.control(false).await;
        policies::create(&node, policy(None, Some("echo"), "role=dba")).await.unwrap();
        let (identity, other) = (PeerIdentity::new(), PeerIdentity::new());
        let (channel, _) = open(&world, 1, &identity).await;
        assert!(!passes(&world, &node, channel));
        let show = |text: Vec<u8>| {
            let notice = Notice::CredentialsShown { channel, text: text.into() };
            world.engines.lock().unwrap()[0].say(&notice);
        };
        let good = authority.issue(identity.identifier(), &[("role", "dba")], 5000);
        // Of somebody else, by somebody else, and garbage: the channel stays as it is.
        show(b"garbage".to_vec());
        show(encode_refresh(&other.history, &[&good]));
        show(encode_refresh(&identity.history, &[&authority.issue(other.identifier(), &[("role", "dba")], 5000)]));
        show(encode_refresh(&identity.history, &[&good]));
        until(|| passes(&world, &node, channel).then_some(())).await;
        // Another one with less, and the better one again.
        show(encode_refresh(&identity.history, &[&authority.issue(identity.identifier(), &[("role", "no")], 5000)]));
        until(|| (!passes(&world, &node, channel)).then_some(())).await;
        show(encode_refresh(&identity.history, &[&good]));
        until(|| passes(&world, &node, channel).then_some(())).await;
        // Another control knows it.
        until(|| {
            let stored = NodeStore::open(&world.dir).ok()?.shown_credentials().ok()?;
            stored.iter().any(|(_, encoded)| *encoded == good).then_some(())
        })
        .await;
        drop((node, supervisor));
        let (node, supervisor) = world.control(true).await;
        assert!(passes(&world, &node, channel));

        let revoke = |number, at| {
            RevocationList::sign(&authority.issuer, number, authority.now, [(identity.identifier(), at)]).unwrap()
        };
        let refused = FakeAuthority::new();
        let foreign = RevocationList::sign(&refused.issuer, 9, refused.now, []).unwrap();
        assert!(node.trust.take_up(&node, foreign.encoded().to_vec()).await.is_err());
        // What it takes back is older.
        assert_eq!(node.trust.take_up(&node, revoke(1, authority.now - 1).encoded().to_vec()).await, Ok(true));
        node.trust.decide_anew(&node).await;
        assert!(passes(&world, &node, channel));
        assert_eq!(node.trust.take_up(&node, revoke(2, authority.now).encoded().to_vec()).await, Ok(true));
        node.trust.decide_anew(&node).await;
        assert!(!passes(&world, &node, channel));
        // An older list takes nothing back.
        assert_eq!(node.trust.take_up(&node, revoke(1, 1).encoded().to_vec()).await, Ok(false));
        drop((node, supervisor));
        let (node, _supervisor) = world.control(true).await;
        assert!(!passes(&world, &node, channel));
        assert!(node.trust.credential_infos().iter().any(|info| info.revoked));
    });
}

#[test]
fn what_is_stored_is_shown_in_handshakes_and_over_channels_that_live() {
    run(async {
        let world = World::new(1);
        let authority = FakeAuthority::new();
        let (node, _supervisor) = world.control(false).await;
        let own = Identities::open(&world.dir.home()).unwrap().named_or_created(None).unwrap().identifier;
        let (channel, shown) = open(&world, 1, &PeerIdentity::new()).await;
        assert_eq!(shown, [] as [Vec<u8>; 0]);
        let request = |credential: &[u8]| StoreCredential {
            issuer: Some(crate::text::to_hex(authority.history.encoded())),
            scope: "project".into(),
            credential: crate::text::to_hex(credential),
        };
        let stranger = authority.issue(Identifier([9; 32]), &[], 5000);
        assert!(own::store(&node, request(&stranger)).await.is_err());
        let foreign = StoreCredential {
            issuer: Some(crate::text::to_hex(FakeAuthority::new().history.encoded())),
            ..request(&authority.issue(own, &[], 5000))
        };
        assert!(matches!(own::store(&node, foreign).await, Err(Error::Credential(_))));
        let good = authority.issue(own, &[("role", "dba")], 5000);
        let info = own::store(&node, request(&good)).await.unwrap();
        assert!(info.own && info.attributes["role"] == "dba" && info.subject == own.to_string());
        world.tables(0, |tables| {
            let (told, text) = tables.shown.last().unwrap();
            let (_, credentials) = ockam_crypto::parse_refresh(text).unwrap();
            assert_eq!((*told, credentials.iter().collect::<Vec<_>>()), (channel, vec![&good[..]]));
        });
        assert_eq!(open(&world, 2, &PeerIdentity::new()).await.1, [good]);
        // Shortly before its end it is shown no more: real peers end channels for that.
        node.trust.clock.set(4950);
        node.trust.own_changed();
        let mut link = 2;
        loop {
            link += 1;
            if open(&world, link, &PeerIdentity::new()).await.1.is_empty() {
                break;
            }
        }
        assert_eq!(own::forget(&node, Some("project".into()), None).await.unwrap().len(), 1);
        assert_eq!(node.trust.credential_infos(), []);
        assert!(matches!(own::forget(&node, Some("project".into()), None).await, Err(Error::NoSuchThing { .. })));
    });
}

/// The channel is not there when others are shown the new credential, and its handshake carried none.
#[test]
fn what_is_stored_while_a_handshake_is_under_way_is_shown_when_the_channel_is_there() {
    run(async {
        let world = World::new(1);
        let authority = FakeAuthority::new();
        let (node, _supervisor) = world.control(false).await;
        let own = Identities::open(&world.dir.home()).unwrap().named_or_created(None).unwrap().identifier;
        let link = accepted_link(&world, 1);
        let mut peer = Initiator::begin(&world, link, "api");
        let (message_3, ..) = peer.answer(&world, &PeerIdentity::new()).await;
        assert_eq!(peer.shown, [] as [Vec<u8>; 0]);
        let credential = authority.issue(own, &[("role", "dba")], 5000);
        let request = StoreCredential {
            issuer: Some(crate::text::to_hex(authority.history.encoded())),
            scope: "project".into(),
            credential: crate::text::to_hex(&credential),
        };
        own::store(&node, request).await.unwrap();
        world.tables(0, |tables| assert_eq!(tables.shown, []));
        peer.finish(&world, &message_3);
        let (told, text) = until(|| world.tables(0, |tables| tables.shown.first().cloned())).await;
        assert!(world.tables(0, |tables| tables.channels.contains_key(&told)));
        let (_, credentials) = ockam_crypto::parse_refresh(&text).unwrap();
        assert_eq!(credentials.iter().collect::<Vec<_>>(), [&credential[..]]);
        // The next handshake carries it.
        assert_eq!(open(&world, 2, &PeerIdentity::new()).await.1, [credential]);
    });
}

#[test]
fn routes_to_authorities_end_with_their_listener_however_they_are_written() {
    for text in ["/ip4/127.0.0.1/tcp/1/secure/api", "/ip4/127.0.0.1/tcp/1/service/api", "/ip4/127.0.0.1/tcp/1"] {
        let steps: String = authority_route(text).unwrap().steps().iter().map(ToString::to_string).collect();
        assert_eq!(steps, "/ip4/127.0.0.1/tcp/1/secure/api/service/echo", "{text}");
    }
    for bad in ["", "api", "/tcp"] {
        assert!(authority_route(bad).is_err(), "{bad}");
    }
}

#[test]
fn grants_end_with_the_credential_and_a_moment_later_when_something_remains() {
    let guards: GuardSet = [1].into_iter().collect();
    let granted = |until, remains| Granted { guards, until, remains };
    for (granted, now, expire_in_ms) in [
        (granted(None, false), 100, None),
        // Its last second is whole.
        (granted(Some(100), false), 100, Some(1000)),
        (granted(Some(100), false), 90, Some(11_000)),
        (granted(Some(100), false), 101, Some(0)),
        (granted(Some(100), false), u64::MAX, Some(0)),
        (granted(Some(100), true), 100, Some(1000 + GRACE_MS)),
        (granted(Some(u64::MAX), true), 0, Some(u64::MAX)),
    ] {
        assert_eq!(granted.grants(now), Grants { guards, expire_in_ms }, "{granted:?} at {now}");
    }
}
