//! An authority node with a stand-in for the engine: who reaches what, and where answers go.

use super::bodies::{AddMember, AwaitRevocations, read as read_body, write};
use super::envelope::{Method, Request, Response};
use super::*;
use crate::engine_link::cookie::Cookie;
use crate::store::NodeStore;
use crate::testing::{Peer, PeerIdentity, World, run};
use ockam_crypto::{Identifier, RevocationList};
use ockam_engine_abi::Notice;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Waits for what other tasks do. It is there within the limit of a test run, or the test does not end.
async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn authority(world: &World, enroller: Identifier) {
    let mut settings = AuthoritySettings::new("p1");
    let role = BTreeMap::from([(ROLE.to_owned(), ENROLLER.to_owned())]);
    settings.trusted_identities.insert(enroller.to_string(), role);
    NodeStore::open(&world.dir).unwrap().set_authority_settings(&settings).unwrap();
}

/// A request as the engine hands it over.
fn punt(channel: Option<u32>, service: &str, back: &[&str], payload: &[u8]) -> Notice {
    let onward = [AddressRef::local(service.as_bytes())];
    let back: Vec<AddressRef<'_>> = back.iter().map(|name| AddressRef::local(name.as_bytes())).collect();
    let outgoing = Outgoing {
        onward: RouteParts::new(&onward),
        return_route: RouteParts::new(&back),
        payload_len: payload.len(),
        tracing: None,
    };
    Notice::Punt { link: None, channel, message: outgoing.to_frame(payload)[4..].to_vec().into() }
}

fn say(world: &World, notice: &Notice) {
    world.engines.lock().unwrap()[0].say(notice);
}

/// What was sent to this client: where it came from, and the payload.
fn received(world: &World, client: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let read = |sent: &Vec<u8>| {
        let message = Message::parse(sent).unwrap();
        let to = message.onward.iter().last()?;
        let from = message.return_route.first()?;
        (to.name == client.as_bytes()).then(|| (from.name.to_vec(), message.payload.to_vec()))
    };
    world.tables(0, |tables| tables.sent_into.iter().filter_map(read).collect())
}

#[test]
fn an_authority_has_its_services_for_channels_and_nothing_for_strangers() {
    run(async {
        let world = World::new(1);
        authority(&world, Identifier([1; 32]));
        let (node, supervisor) = world.control(false).await;
        let look = || {
            world.tables(0, |tables| {
                let names = tables.addresses.keys().map(|name| String::from_utf8_lossy(name).into_owned());
                let strangers = !(CHANNELS_MASK | 1 << FLOW_CONTROL_INITIATED);
                let reached = tables.addresses.iter().filter(|(_, it)| it.1 & strangers != 0);
                let reached: Vec<String> =
                    reached.map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect();
                (names.collect::<Vec<_>>(), reached)
            })
        };
        let (names, reached) = look();
        let services = Service::ALL.map(Service::address);
        assert!(services.iter().all(|service| names.iter().any(|name| name == service)), "{names:?}");
        assert!(!names.iter().any(|name| name.contains("forward")), "{names:?}");
        assert_eq!(reached, ["api"]);
        let taken = node.start_service(crate::api::Service::Hop, "credential_issuer").await;
        assert!(matches!(taken, Err(Error::AddressTaken { .. })), "{taken:?}");

        // The next control finds it all, and sets what was somebody else's.
        drop((node, supervisor));
        world.tables(0, |tables| tables.addresses.get_mut(&b"revocation_list"[..]).unwrap().1 = u64::MAX);
        let (node, _supervisor) = world.control(true).await;
        assert_eq!(look(), (names, reached));
        world.tables(0, |tables| {
            let (target, reachable, cookie) = &tables.addresses[&b"revocation_list"[..]];
            assert_eq!((*target, *reachable), (Target::Control, REACHABLE));
            assert_eq!(node.cookies.open(cookie), Some(Cookie::AuthorityService));
        });
    });
}

#[test]
fn an_ordinary_node_is_no_authority() {
    run(async {
        let world = World::new(1);
        let (node, _supervisor) = world.control(false).await;
        assert!(node.authority.is_none() && !world.dir.authority_database().exists());
        world.tables(0, |tables| {
            assert!(Service::ALL.iter().all(|it| !tables.addresses.contains_key(it.address().as_bytes())));
        });
    });
}

#[test]
fn answers_go_back_through_the_channel_and_news_to_all_who_wait() {
    run(async {
        let world = World::new(1);
        let enroller = PeerIdentity::new();
        authority(&world, enroller.identifier());
        let (node, _supervisor) = world.control(false).await;
        let (number, address) = world.channel(&node, &enroller, Some(Peer::Echo)).await;
        let (other, other_address) = world.channel(&node, &PeerIdentity::new(), Some(Peer::Echo)).await;

        let member = Identifier([7; 32]);
        let body = write(&AddMember { member, attributes: BTreeMap::new() });
        let add = Request::new(Method::Post, "/", Some(&body)).to_payload();
        // Not through a channel, not along the channel that it came by, or without a way at all: no answer, no deed.
        say(&world, &punt(None, "direct_authenticator", &["client-0"], &add));
        say(&world, &punt(Some(number), "direct_authenticator", &[&other_address, "client-0"], &add));
        say(&world, &punt(Some(number), "direct_authenticator", &[&address], &add));
        say(&world, &punt(Some(number), "direct_authenticator", &[], &add));
        say(&world, &punt(Some(4711), "direct_authenticator", &[&address, "client-0"], &add));
        // Who asks is the peer of the channel.
        say(&world, &punt(Some(other), "direct_authenticator", &[&other_address, "client-1"], &add));
        let answer = until(|| received(&world, "client-1").pop()).await;
        assert_eq!(answer.0, b"direct_authenticator");
        assert_eq!(Response::parse(&answer.1).unwrap().status.unwrap().0, 403);
        assert!(received(&world, "client-0").is_empty());
        let long = [&add[..], &vec![0; REQUEST_MAX]].concat();
        say(&world, &punt(Some(number), "direct_authenticator", &[&address, "long"], &long));
        let answer = until(|| received(&world, "long").pop()).await;
        assert_eq!(Response::parse(&answer.1).unwrap().status.unwrap().0, 400);

        // Both know the list of now, and wait.
        let ask = |number: u64| {
            let body = write(&AwaitRevocations { number });
            Request::new(Method::Post, "/", Some(&body)).to_payload()
        };
        say(&world, &punt(Some(other), "revocation_list", &[&other_address, "first"], &ask(0)));
        let first = until(|| received(&world, "first").pop()).await.1;
        let history = {
            let own = node.channels.identifier().unwrap().parse().unwrap();
            crate::identities::Identities::open(&world.dir.home()).unwrap().known(&own).unwrap().unwrap()
        };
        let list = |payload: &[u8]| {
            let body = Response::parse(payload).unwrap().success().unwrap().to_vec();
            RevocationList::verify(&body, &history, unix_now()).unwrap()
        };
        let known = list(&first).number();
        say(&world, &punt(Some(other), "revocation_list", &[&other_address, "waits-1"], &ask(known)));
        say(&world, &punt(Some(number), "revocation_list", &[&address, "waits-2"], &ask(known)));
        say(&world, &punt(Some(number), "direct_authenticator", &[&address, "client-2"], &add));
        let answer = until(|| received(&world, "client-2").pop()).await;
        assert!(Response::parse(&answer.1).unwrap().success().unwrap().is_empty());
        assert!(received(&world, "waits-1").is_empty() && received(&world, "waits-2").is_empty());
        let path = format!("/{member}");
        let delete = Request::new(Method::Delete, &path, None).to_payload();
        say(&world, &punt(Some(number), "direct_authenticator", &[&address, "client-3"], &delete));
        for client in ["waits-1", "waits-2"] {
            let news = list(&until(|| received(&world, client).pop()).await.1);
            assert!(news.number() > known && news.revoked_at(&member).is_some());
        }

        let ids = Request::new(Method::Get, "/member_ids", None).to_payload();
        say(&world, &punt(Some(number), "direct_authenticator", &[&address, "client-4"], &ids));
        let answer = until(|| received(&world, "client-4").pop()).await.1;
        let body = Response::parse(&answer).unwrap().success().unwrap().to_vec();
        assert_eq!(read_body::<bodies::IdentifierList>(&body).unwrap().0, [enroller.identifier()]);
    });
}
