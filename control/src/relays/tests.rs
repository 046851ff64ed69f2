//! Against a stand-in for the engine, with stand-ins for those who register, and for the node where we do.

use super::service::Refused;
use super::*;
use crate::api::{CreateRelay, RelayInfo, WayStatus};
use crate::engine_link::cookie::Cookie;
use crate::testing::{Manner, Peer, PeerIdentity, World, link_address, run};
use ockam_engine_abi::{ChannelEnd, CloseReason, DropReason, LinkId, Notice, Refusal, Target};
use ockam_wire::undeliverable::Offer;
use ockam_wire::{AddressRef, Message, Outgoing, RouteParts, bare};
use std::time::Duration;

/// Waits for what other tasks do. It is there within the limit of a test run, or the test does not end.
async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn string(text: &str) -> Vec<u8> {
    let mut payload = Vec::new();
    bare::write_string(text, &mut payload);
    payload
}

/// A link of a peer.
fn accepted_link(world: &World, index: u32) -> LinkId {
    let link = LinkId::new(0, index, 1);
    world.tables(0, |tables| tables.links.insert(link, (([127, 0, 0, 1], 9).into(), Vec::new())));
    link
}

/// A registration as the engine hands it over.
struct Asks<'a> {
    link: Option<LinkId>,
    channel: Option<u32>,
    back: Vec<&'a [u8]>,
    payload: &'a [u8],
    offer: Option<Offer>,
}

impl Asks<'_> {
    fn say(&self, world: &World, engine: usize) {
        let onward = [AddressRef::local(SERVICES[1].as_bytes())];
        let back: Vec<AddressRef<'_>> = self.back.iter().map(|name| AddressRef::local(name)).collect();
        let tracing = self.offer.map(|offer| offer.text());
        let outgoing = Outgoing {
            onward: RouteParts::new(&onward),
            return_route: RouteParts::new(&back),
            payload_len: self.payload.len(),
            tracing: tracing.as_deref(),
        };
        let message = outgoing.to_frame(self.payload)[4..].to_vec().into();
        let (link, channel) = (self.link, self.channel);
        lock(&world.engines)[engine].say(&Notice::Punt { link, channel, message });
    }
}

/// Registers over a link, whose client waits at `client`.
fn register(world: &World, link: LinkId, client: &str, name: &str) {
    let front = link_address(link);
    let payload = string(name);
    let back = vec![&front[..], b"between", client.as_bytes()];
    Asks { link: Some(link), channel: None, back, payload: &payload, offer: None }.say(world, 0);
}

/// Registers through a channel.
fn register_sealed(world: &World, number: u32, encryptor: &str, name: &str) {
    let payload = string(name);
    let back = vec![encryptor.as_bytes(), b"client"];
    Asks { link: None, channel: Some(number), back, payload: &payload, offer: None }.say(world, 0);
}

/// The messages that were sent to this client, from the first on.
fn received(world: &World, client: &str) -> Vec<Vec<u8>> {
    let is_to = |sent: &&Vec<u8>| {
        Message::parse(sent).unwrap().onward.iter().last().is_some_and(|to| to.name == client.as_bytes())
    };
    world.tables(0, |tables| tables.sent.iter().filter(is_to).cloned().collect())
}

fn names(route: ockam_wire::Route<'_>) -> Vec<Vec<u8>> {
    route.iter().map(|address| address.name.to_vec()).collect()
}

/// The way of a relay in the engine.
fn way(world: &World, engine: usize, address: &str) -> Option<Option<Vec<Vec<u8>>>> {
    world.tables(engine, |tables| {
        tables.addresses.get(address.as_bytes()).filter(|it| it.0 == Target::Relay)?;
        let way = tables.relays[address.as_bytes()].as_ref();
        Some(way.map(|way| names(Message::parse(way).unwrap().onward)))
    })
}

fn refused(node: &Node, why: Refused) -> u64 {
    node.relays.service().refused(why)
}

#[test]
fn what_registers_gets_a_relay_and_the_address_of_it() {
    run(async {
        let world = World::new(1);
        let (node, _supervisor) = world.control(false).await;
        let link = accepted_link(&world, 1);
        register(&world, link, "c1", "blue");
        let reply = until(|| received(&world, "c1").pop()).await;
        let message = Message::parse(&reply).unwrap();
        let front = link_address(link);
        assert_eq!(names(message.onward), [&front[..], b"between", b"c1"]);
        assert_eq!(names(message.return_route), [b"forward_to_blue"]);
        assert_eq!(message.payload, string("forward_to_blue"));
        // What comes later goes to the client's node, not to where it waited for the reply.
        assert_eq!(way(&world, 0, "forward_to_blue"), Some(Some(vec![front, b"between".to_vec()])));
        world.tables(0, |tables| {
            let (_, reachable, cookie) = &tables.addresses[&b"forward_to_blue"[..]];
            assert_eq!(*reachable, REACHABLE);
            let Some(Cookie::Relay { name, peer: None, .. }) = node.cookies.open(cookie) else { panic!("no cookie") };
            assert_eq!(name, "blue");
            for service in SERVICES {
                assert_eq!(tables.addresses[service.as_bytes()].0, Target::Control);
            }
        });
        let registered = node.relays.registered();
        assert_eq!((registered.len(), registered[0].name.as_str()), (1, "blue"));
        assert_eq!((registered[0].address.as_str(), &registered[0].identifier), ("forward_to_blue", &None));

        // A name of the node's choice.
        register(&world, link, "c2", "register");
        let reply = until(|| received(&world, "c2").pop()).await;
        let address = bare::read_string(Message::parse(&reply).unwrap().payload).unwrap().to_owned();
        let name = address.strip_prefix("forward_to_").unwrap();
        assert!(crate::text::is_hex_id(name), "{address}");
        assert!(way(&world, 0, &address).is_some());

        // Nothing else of the node gets such an address.
        for taken in ["forward_to_blue", SERVICES[0]] {
            let started = node.start_service(crate::api::Service::Hop, taken).await;
            assert!(matches!(started, Err(Error::AddressTaken { .. })), "{taken}");
        }
        // The relay ends with its link, and its name is free.
        lock(&world.engines)[0].say(&Notice::RelayGone { address: b"forward_to_blue".to_vec().into() });
        until(|| (node.relays.registered().len() == 1).then_some(())).await;
    });
}

#[test]
fn what_is_no_registration_is_refused_in_silence() {
    run(async {
        let world = World::new(1);
        let (node, _supervisor) = world.control(false).await;
        let link = accepted_link(&world, 1);
        let front = link_address(link);
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        let names = ["", "a b", "a/b", "a#b", "a\\b", "a\"b", "a\nb", "a\u{202e}b", &long];
        let mut payloads: Vec<Vec<u8>> = names.iter().map(|name| string(name)).collect();
        payloads.extend([Vec::new(), b"blue".to_vec(), b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01".to_vec()]);
        payloads.push(b"\x02\xff\xfe".to_vec());
        for payload in &payloads {
            let back = vec![&front[..], b"client"];
            Asks { link: Some(link), channel: None, back, payload, offer: None }.say(&world, 0);
        }
        until(|| (refused(&node, Refused::Malformed) == payloads.len() as u64).then_some(())).await;

        // No way back, one that does not begin with the link, one that is far too long, one that came out of nothing.
        let payload = string("blue");
        let far = "y".repeat(250);
        let backs: [Vec<&[u8]>; 5] = [
            vec![],
            vec![&front[..]],
            vec![b"hop", &front[..], b"client"],
            [&[&front[..]][..], &[far.as_bytes(); 6], &[&b"client"[..]]].concat(),
            vec![&front[..32], b"client"],
        ];
        for back in backs.into_iter().take(4) {
            Asks { link: Some(link), channel: None, back, payload: &payload, offer: None }.say(&world, 0);
        }
        until(|| (refused(&node, Refused::NoWay) == 4).then_some(())).await;
        let back = vec![&front[..], b"client"];
        Asks { link: Some(link), channel: Some(77), back, payload: &payload, offer: None }.say(&world, 0);
        until(|| (refused(&node, Refused::Gone) == 1).then_some(())).await;
        // One that takes the address of something else.
        node.start_service(crate::api::Service::Hop, "forward_to_here").await.unwrap();
        register(&world, link, "client", "here");
        until(|| (refused(&node, Refused::Taken) == 1).then_some(())).await;

        world.tables(0, |tables| assert_eq!((tables.relays.len(), tables.sent.len()), (0, 0)));
        // The engine may have no room.
        world.tables(0, |tables| tables.refuse = Some(Refusal::Limit));
        register(&world, link, "client", "blue");
        until(|| (refused(&node, Refused::Limit) == 1).then_some(())).await;
        assert!(node.relays.registered().is_empty());
        register(&world, link, "client", "blue");
        until(|| received(&world, "client").pop()).await;
        assert_eq!(node.relays.registered().len(), 1);
    });
}

#[test]
fn a_name_belongs_to_who_proved_to_be_somebody() {
    run(async {
        let world = World::new(1);
        let (node, _supervisor) = world.control(false).await;
        let [link, other] = [1, 2].map(|index| accepted_link(&world, index));
        let (alice, bob) = (PeerIdentity::new(), PeerIdentity::new());
        let at_link = |link| Some(Some(vec![link_address(link), b"between".to_vec()]));
        let at_channel = |name: &str| Some(Some(vec![name.as_bytes().to_vec()]));
        let world_ref = &world;
        let is_at = |want: Option<_>| until(move || (way(world_ref, 0, "forward_to_blue") == want).then_some(()));

        // Over plain connections whoever comes last has it.
        register(&world, link, "c", "blue");
        is_at(at_link(link)).await;
        register(&world, other, "c", "blue");
        is_at(at_link(other)).await;
        // Who is somebody takes it from nobody, and keeps it.
        let (number, address) = world.channel(&node, &alice, None).await;
        register_sealed(&world, number, &address, "blue");
        is_at(at_channel(&address)).await;
        register(&world, link, "c", "blue");
        until(|| (refused(&node, Refused::Taken) == 1).then_some(())).await;
        let (theirs, their_address) = world.channel(&node, &bob, None).await;
        register_sealed(&world, theirs, &their_address, "blue");
        until(|| (refused(&node, Refused::Taken) == 2).then_some(())).await;
        is_at(at_channel(&address)).await;
        let identifier = Some(alice.identifier().to_string());
        until(|| (node.relays.registered()[0].identifier == identifier).then_some(())).await;
        // The same comes by another channel.
        let (again, new_address) = world.channel(&node, &alice, None).await;
        register_sealed(&world, again, &new_address, "blue");
        is_at(at_channel(&new_address)).await;
        // A way back that is not the channel's.
        register_sealed(&world, again, &address, "blue");
        until(|| (refused(&node, Refused::NoWay) == 1).then_some(())).await;

        // Who asks to be told is told, once.
        let offer = Offer { token: [7; 16] };
        let (front, payload) = (link_address(link), string("blue"));
        let back = vec![&front[..], b"asks"];
        Asks { link: Some(link), channel: None, back, payload: &payload, offer: Some(offer) }.say(&world, 0);
        let told = until(|| received(&world, "asks").pop()).await;
        let told = Message::parse(&told).unwrap();
        let notice = ockam_wire::undeliverable::Notice::parse(told.tracing.unwrap()).unwrap();
        assert_eq!((notice.token, notice.reason, notice.left), ([7; 16], DropReason::NotDelivered as u8, 1));
        assert!(told.payload.is_empty() && told.return_route.is_empty());

        // Once it is gone, anybody may have it.
        lock(&world.engines)[0].say(&Notice::ChannelClosed { channel: again, reason: ChannelEnd::ByPeer });
        lock(&world.engines)[0].say(&Notice::RelayGone { address: b"forward_to_blue".to_vec().into() });
        register(&world, link, "c", "blue");
        is_at(at_link(link)).await;
    });
}

#[test]
fn relays_live_on_with_their_engine_and_end_with_it() {
    run(async {
        let world = World::new(2);
        let (node, supervisor) = world.control(false).await;
        let link = accepted_link(&world, 1);
        let alice = PeerIdentity::new();
        let (number, address) = world.channel(&node, &alice, None).await;
        register_sealed(&world, number, &address, "blue");
        register(&world, link, "c", "green");
        until(|| (node.relays.registered().len() == 2).then_some(())).await;
        let before = node.relays.registered();
        drop((node, supervisor));
        // What nobody of this node made is not a relay.
        world.tables(0, |tables| {
            tables.addresses.insert(b"forward_to_x".to_vec(), (Target::Relay, 1, vec![0; 40]));
        });

        let (node, supervisor) = world.control(true).await;
        assert_eq!(node.relays.registered(), before);
        world.tables(0, |tables| {
            assert!(tables.addresses.contains_key(&b"forward_to_blue"[..]));
            assert!(!tables.addresses.contains_key(&b"forward_to_x"[..]));
        });
        // Whose they are is known still.
        register(&world, link, "c", "blue");
        until(|| (refused(&node, Refused::Taken) == 1).then_some(())).await;
        lock(&world.engines)[0].say(&Notice::RelayGone { address: b"forward_to_green".to_vec().into() });
        until(|| (node.relays.registered().len() == 1).then_some(())).await;

        let watching = tokio::spawn({
            let supervisor = supervisor.clone();
            async move { supervisor.watch().await }
        });
        lock(&world.engines)[0].kill();
        until(|| node.relays.registered().is_empty().then_some(())).await;
        until(|| world.tables(1, |tables| tables.addresses.contains_key(SERVICES[1].as_bytes())).then_some(())).await;
        world.tables(1, |tables| assert!(tables.relays.is_empty()));
        watching.abort();
    });
}

#[test]
fn no_source_has_all_relays_and_each_has_its_turn() {
    run(async {
        let world = World::new(1);
        let (node, _supervisor) = world.control(false).await;
        let [greedy, modest] = [1, 2].map(|index| accepted_link(&world, index));
        for index in 0..=service::RELAYS_PER_SOURCE_MAX {
            register(&world, greedy, "c", &format!("g{index}"));
        }
        register(&world, modest, "m", "one");
        until(|| received(&world, "m").pop()).await;
        // One too many, whether it waited or not.
        until(|| (refused(&node, Refused::Limit) == 1).then_some(())).await;
        let of_greedy = || node.relays.registered().iter().filter(|it| it.name.starts_with('g')).count();
        until(|| (of_greedy() == service::RELAYS_PER_SOURCE_MAX).then_some(())).await;
        assert!(received(&world, "c").len() <= service::RELAYS_PER_SOURCE_MAX);
        // One that it has it may register again.
        register(&world, greedy, "again", "g0");
        until(|| received(&world, "again").pop()).await;
        register(&world, greedy, "more", "h");
        until(|| (refused(&node, Refused::Limit) == 2).then_some(())).await;
        assert!(received(&world, "more").is_empty());
    });
}

fn wanted(name: &str, at: &str) -> CreateRelay {
    CreateRelay {
        name: name.into(),
        at: at.into(),
        relay_address: None,
        authorized: Vec::new(),
        authorized_on_the_way: Vec::new(),
        identity: None,
        wait: true,
        timeout_ms: 60_000,
    }
}

const AT: &str = "/ip4/127.0.0.1/tcp/9";

/// How many registrations went out.
fn registrations(world: &World, engine: usize) -> usize {
    let is_one = |sent: &&Vec<u8>| {
        let message = Message::parse(sent).unwrap();
        message.onward.iter().last().is_some_and(|to| to.name == SERVICES[1].as_bytes())
    };
    world.tables(engine, |tables| tables.sent.iter().filter(is_one).count())
}

/// The ends of relays in an engine.
fn ends_in(world: &World, engine: usize, node: &Node) -> Vec<Vec<u8>> {
    world.tables(engine, |tables| {
        let is_end = |cookie: &[u8]| matches!(node.cookies.open(cookie), Some(Cookie::RelayEnd { .. }));
        let ends =
            tables.addresses.iter().filter(|(_, (target, _, cookie))| *target == Target::Relay && is_end(cookie));
        ends.map(|(name, _)| name.clone()).collect()
    })
}

async fn comes_up(node: &Arc<Node>, name: &str) -> RelayInfo {
    until(|| find(node, name).ok().filter(|info| info.status == WayStatus::Up)).await
}

#[test]
fn a_relay_is_registered_and_again_whenever_its_way_came_back() {
    run(async {
        let world = World::new(2);
        let (node, supervisor) = world.control(false).await;
        world.tables(0, |tables| tables.peer = Some(Peer::Relays("forward_to_")));
        let made = create(&node, wanted("blue", AT)).await.unwrap();
        assert_eq!((made.name.as_str(), made.address.as_str(), made.at.as_str()), ("blue", "forward_to_blue", AT));
        assert_eq!((made.status, &made.error, &made.identifier), (WayStatus::Up, &None, &None));
        assert_eq!((registrations(&world, 0), infos(&node)), (1, vec![made.clone()]));
        // A relay that keeps the address that waited for the reply reaches what is behind it, and nothing else.
        let ends = ends_in(&world, 0, &node);
        assert_eq!(ends.len(), 1);
        world.tables(0, |tables| {
            assert_eq!(tables.relays[&ends[0]], None);
            assert_eq!(tables.addresses[&ends[0]].1, 1 << FLOW_CONTROL_DIALED | 1 << FLOW_CONTROL_INITIATED);
        });
        let twice = create(&node, wanted("blue", AT)).await;
        assert!(matches!(twice, Err(Error::NameTaken { .. })), "{twice:?}");

        // The link ends.
        let link = world.tables(0, |tables| {
            let link = *tables.links.keys().next().unwrap();
            tables.links.remove(&link);
            link
        });
        lock(&world.engines)[0].say(&Notice::LinkDown { link, reason: CloseReason::Reset });
        until(|| (registrations(&world, 0) == 2).then_some(())).await;
        comes_up(&node, "blue").await;
        let again = ends_in(&world, 0, &node);
        assert!(again.len() == 1 && again != ends, "the end before is cleared");

        // Another control finds all of it.
        drop((node, supervisor));
        let (node, supervisor) = world.control(true).await;
        assert_eq!(comes_up(&node, "blue").await, made);
        assert_eq!((registrations(&world, 0), ends_in(&world, 0, &node)), (2, again));

        // Another engine has nothing of it.
        world.tables(1, |tables| tables.peer = Some(Peer::Relays("forward_to_")));
        let watching = tokio::spawn({
            let supervisor = supervisor.clone();
            async move { supervisor.watch().await }
        });
        lock(&world.engines)[0].kill();
        until(|| (ends_in(&world, 1, &node).len() == 1).then_some(())).await;
        comes_up(&node, "blue").await;
        assert_eq!(registrations(&world, 1), 1);

        delete(&node, "blue").await.unwrap();
        until(|| world.tables(1, |tables| tables.links.is_empty()).then_some(())).await;
        assert!(ends_in(&world, 1, &node).is_empty() && infos(&node).is_empty() && node.desired().relays.is_empty());
        assert!(matches!(delete(&node, "blue").await, Err(Error::NoSuchThing { .. })));
        watching.abort();
    });
}

#[test]
fn a_relay_says_why_it_is_not_there() {
    run(async {
        let world = World::new(1);
        let (node, _supervisor) = world.control(false).await;
        let peer = |peer| world.tables(0, |tables| tables.peer = peer);
        // Refused for good: nothing is left.
        peer(Some(Peer::NoRelays));
        let refused = create(&node, wanted("blue", AT)).await.unwrap_err();
        let want = Error::RelayRefused { name: "blue".into(), place: format!("the node at {AT}") };
        assert_eq!((&refused, refused.exit()), (&want, 77));
        assert!(infos(&node).is_empty() && node.desired().relays.is_empty());
        until(|| world.tables(0, |tables| tables.links.is_empty()).then_some(())).await;

        // Not there yet: it stays, and comes.
        peer(Some(Peer::Close));
        let patient = CreateRelay { timeout_ms: 1, ..wanted("blue", AT) };
        let waits = create(&node, patient).await.unwrap();
        assert_eq!((waits.status, waits.address.as_str()), (WayStatus::Down, "forward_to_blue"));
        until(|| find(&node, "blue").unwrap().error).await;
        peer(Some(Peer::Relays("elsewhere_")));
        assert_eq!(comes_up(&node, "blue").await.address, "elsewhere_blue");

        // A relay of a name that was not asked for is none.
        let asks = CreateRelay { relay_address: Some("other".into()), wait: false, ..wanted("green", AT) };
        create(&node, asks).await.unwrap();
        assert_eq!(comes_up(&node, "green").await.address, "elsewhere_other");
        peer(Some(Peer::Echo));
        let wrong = create(&node, CreateRelay { wait: false, ..wanted("red", AT) }).await.unwrap();
        assert_eq!(wrong.status, WayStatus::Down);
        let why = until(|| find(&node, "red").unwrap().error).await;
        assert!(why.contains("another name"), "{why}");

        for bad in [
            CreateRelay { name: "a b".into(), ..wanted("x", AT) },
            CreateRelay { relay_address: Some(String::new()), ..wanted("x", AT) },
            CreateRelay { authorized: vec![format!("I{}", "0".repeat(64))], ..wanted("x", AT) },
            CreateRelay { timeout_ms: 0, ..wanted("x", AT) },
            wanted("x", "/node/n2"),
            wanted("x", "nonsense"),
        ] {
            assert_eq!(create(&node, bad).await.unwrap_err().exit(), 64);
        }
        assert_eq!(infos(&node).len(), 3);
    });
}

#[test]
fn who_is_met_first_is_met_again() {
    run(async {
        let world = World::new(1);
        let (node, supervisor) = world.control(false).await;
        let (alice, bob) = (PeerIdentity::new(), PeerIdentity::new());
        let at = format!("{AT}/secure/api");
        world.tables(0, |tables| tables.peer = Some(Peer::Node(alice.clone(), Manner::Accepts)));
        // The stand-in answers a registration with what was asked, which names no relay: who it is, is known all the same.
        create(&node, CreateRelay { wait: false, ..wanted("blue", &at) }).await.unwrap();
        let peer = Some(alice.identifier());
        until(|| (node.desired().relays[0].peer == peer).then_some(())).await;
        let info = find(&node, "blue").unwrap();
        assert_eq!(info.identifier, Some(alice.identifier().to_string()));
        assert!(node.desired().relays[0].identity.is_some());

        let wrong = vec![bob.identifier().to_string()];
        let refused = create(&node, CreateRelay { authorized: wrong, ..wanted("green", &at) }).await.unwrap_err();
        assert!(matches!(refused, Error::PeerNotAuthorized { .. }), "{refused:?}");
        assert_eq!(infos(&node).len(), 1);

        // A later control meets another one there.
        drop((node, supervisor));
        world.tables(0, |tables| {
            tables.channels.clear();
            tables.links.clear();
            tables.peer = Some(Peer::Node(bob.clone(), Manner::Accepts));
        });
        let (node, _supervisor) = world.control(true).await;
        let why =
            until(|| find(&node, "blue").unwrap().error.filter(|why| why.contains(&bob.identifier().to_string())));
        why.await;
        assert_eq!(find(&node, "blue").unwrap().status, WayStatus::Down);
    });
}

#[test]
fn a_node_is_its_own_relay() {
    run(async {
        let world = World::new(1);
        let (node, supervisor) = world.control(false).await;
        let made = create(&node, wanted("me", "")).await.unwrap();
        assert_eq!((made.status, made.address.as_str()), (WayStatus::Up, "forward_to_me"));
        assert_eq!(way(&world, 0, "forward_to_me"), Some(None));
        // Nobody else gets the name, by whatever way.
        register(&world, accepted_link(&world, 1), "c", "me");
        until(|| (refused(&node, Refused::Taken) == 1).then_some(())).await;
        drop((node, supervisor));
        let (node, _supervisor) = world.control(true).await;
        comes_up(&node, "me").await;
        assert_eq!(way(&world, 0, "forward_to_me"), Some(None));
        delete(&node, "me").await.unwrap();
        assert_eq!(way(&world, 0, "forward_to_me"), None);
        assert!(node.relays.registered().is_empty() && ends_in(&world, 0, &node).is_empty());
    });
}

#[test]
fn the_longest_names_fit_a_cookie() {
    let name = "\u{e9}".repeat(NAME_BYTES_MAX / 2);
    assert!(check_name("name", &name).is_ok());
    let key = crate::engine_link::cookie::CookieKey::new([1; 32]);
    let source = "0".repeat(32);
    let cookie = Cookie::Relay { name, peer: Some(format!("I{}", "0".repeat(64))), source, since: u64::MAX };
    assert_eq!(key.open(&key.seal(&cookie)), Some(cookie));
}

#[test]
fn a_relay_ends_when_no_policy_permits_it_any_more() {
    run(async {
        let world = World::new(1);
        let (node, _supervisor) = world.control(false).await;
        let link = accepted_link(&world, 1);
        let front = link_address(link);
        let asks = |name: &str| {
            let payload = string(name);
            Asks { link: Some(link), channel: None, back: vec![&front, b"from"], payload: &payload, offer: None }
                .say(&world, 0);
        };
        let has = |address: &str| world.tables(0, |tables| tables.relays.contains_key(address.as_bytes()));
        let is_there = |address: &[u8]| world.tables(0, |tables| tables.addresses.contains_key(address));
        asks("blue");
        until(|| (node.relays.registered().len() == 1).then_some(())).await;
        // Who comes by no channel has no identity that a policy could permit.
        let policy = crate::api::CreatePolicy {
            resource_type: Some(crate::api::ResourceType::Relay),
            resource: None,
            expression: "admin".into(),
        };
        crate::trust::policies::create(&node, policy).await.unwrap();
        assert_eq!(node.relays.registered(), []);
        assert!(has("forward_to_blue") && !is_there(b"forward_to_blue"), "it was there and is cleared");
        let denied = node.relays.service().refused(Refused::Denied);
        asks("green");
        until(|| (node.relays.service().refused(Refused::Denied) > denied).then_some(())).await;
        assert!(!has("forward_to_green"));
        crate::trust::policies::delete(&node, Some(crate::api::ResourceType::Relay), None).await.unwrap();
        asks("green");
        until(|| (node.relays.registered().len() == 1).then_some(())).await;
    });
}
