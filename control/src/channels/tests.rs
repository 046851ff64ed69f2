//! Against a stand-in for the engine, with real handshakes at the other end.

use super::half_open::HANDSHAKE_LIMIT;
use super::*;
use crate::api::{CreateSecureChannel, MessageBody, SendMessage};
use crate::identities::Identities;
use crate::store::node::{CHANNELS_MASK, FLOW_CONTROL_INITIATED};
use crate::testing::{Manner, Peer, PeerIdentity, World, link_address, run};
use ockam_crypto::{CLOSE, Established, ExpectMessage2, Opener, Secret, initiate};
use ockam_engine_abi::{Notice, Refusal, Target};
use ockam_wire::{AddressRef, Message, Outgoing, RouteParts};

const DIALED: &str = "/ip4/127.0.0.1/tcp/9/service/api";

fn request(route: &str) -> CreateSecureChannel {
    CreateSecureChannel {
        route: route.into(),
        authorized: Vec::new(),
        authorized_on_the_way: Vec::new(),
        identity: None,
        timeout_ms: 60_000,
    }
}

/// Waits for what other tasks do. It is there within the limit of a test run, or the test does not end.
pub(crate) async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A peer that begins a handshake over a link.
pub(crate) struct Initiator {
    link: LinkId,
    decryptor: Vec<u8>,
    expect: Option<ExpectMessage2>,
    way: Vec<u8>,
    /// The credentials that the node showed.
    pub(crate) shown: Vec<Vec<u8>>,
}

impl Initiator {
    /// Sends message 1 to the listener.
    pub(crate) fn begin(world: &World, link: LinkId, listener: &str) -> Initiator {
        let (message_1, expect) = initiate(Secret::new(crate::random::bytes()));
        let decryptor = crate::random::hex_id().into_bytes();
        punt(world, link, listener.as_bytes(), &decryptor, &message_1);
        Initiator { link, decryptor, expect: Some(expect), way: Vec::new(), shown: Vec::new() }
    }

    /// What the node sent to this peer since.
    fn received(&self, world: &World) -> Vec<Vec<u8>> {
        world.tables(0, |tables| {
            let is_mine =
                |message: &Message<'_>| message.onward.iter().last().is_some_and(|to| to.name == self.decryptor);
            tables.sent.retain(|sent| Message::parse(sent).is_ok());
            tables.sent.iter().filter(|sent| is_mine(&Message::parse(sent).unwrap())).cloned().collect()
        })
    }

    /// Waits for message 2 and gives message 3 and the keys.
    pub(crate) async fn answer(
        &mut self,
        world: &World,
        identity: &PeerIdentity,
    ) -> (Vec<u8>, Established, Identifier) {
        let message_2 = until(|| self.received(world).pop()).await;
        let message = Message::parse(&message_2).unwrap();
        let (claimed, ready) = self.expect.take().unwrap().read(message.payload).unwrap();
        self.way = message.return_route.iter().last().unwrap().name.to_vec();
        let claim = ockam_crypto::Claim::parse(&claimed.payload).unwrap();
        self.shown = claim.credentials().iter().map(<[u8]>::to_vec).collect();
        let node = claim.authenticate(&claimed.static_key, None, unix_now()).unwrap().identifier();
        let (message_3, established) = ready.write(&identity.static_key, &identity.payload).unwrap();
        (message_3, established, node)
    }

    pub(crate) fn finish(&self, world: &World, message_3: &[u8]) {
        punt(world, self.link, &self.way, &self.decryptor, message_3);
    }
}

fn punt(world: &World, link: LinkId, to: &[u8], from: &[u8], payload: &[u8]) {
    let link_address = link_address(link);
    let (onward, back) = ([AddressRef::local(to)], [AddressRef::local(&link_address), AddressRef::local(from)]);
    let outgoing = Outgoing {
        onward: RouteParts::new(&onward),
        return_route: RouteParts::new(&back),
        payload_len: payload.len(),
        tracing: None,
    };
    let message = outgoing.to_frame(payload)[4..].to_vec().into();
    lock(&world.engines)[0].say(&Notice::Punt { link: Some(link), channel: None, message });
}

/// A link of a peer.
pub(crate) fn accepted_link(world: &World, index: u32) -> LinkId {
    let link = LinkId::new(0, index, 1);
    world.tables(0, |tables| tables.links.insert(link, (([127, 0, 0, 1], 9).into(), Vec::new())));
    link
}

/// Enters a channel that no engine has.
pub(crate) fn pretend(node: &Node, peer: Identifier) -> u32 {
    let living = Living {
        address: crate::random::hex_id(),
        decryptor: crate::random::hex_id(),
        peer,
        own: peer,
        expires_at: u64::MAX,
        purpose: Purpose::Message,
        source: None,
        link: None,
        granted: None,
        ended: Vec::new(),
    };
    node.channels.state().admit(living).unwrap().0
}

#[test]
fn a_peer_opens_a_channel_and_the_engine_gets_its_keys() {
    run(async {
        let world = World::new(1);
        let (node, _supervisor) = world.control(false).await;
        let (link, identity) = (accepted_link(&world, 1), PeerIdentity::new());
        let mut peer = Initiator::begin(&world, link, "api");
        let (message_3, established, own) = peer.answer(&world, &identity).await;
        world.tables(0, |tables| assert_eq!(tables.addresses[&peer.way].0, Target::Handshake));
        peer.finish(&world, &message_3);
        let number = until(|| world.tables(0, |tables| tables.channels.keys().next().copied())).await;
        let listener = node.channel_listener("api").unwrap();
        world.tables(0, |tables| {
            let channel = &tables.channels[&number];
            assert_eq!(&channel.opening_key, established.sealing_key.expose());
            assert_eq!(&channel.sealing_key, established.opening_key.expose());
            assert_eq!((channel.flow_control, channel.follows_peer), (listener.bit, true));
            assert_eq!(channel.decryptor, peer.way);
            let way = Message::parse(&channel.way).unwrap();
            let names: Vec<&[u8]> = way.onward.iter().map(|address| address.name).collect();
            assert_eq!(names, [&link_address(link)[..], &peer.decryptor]);
            // The peer's key ends first: in half an hour.
            let expires_in = channel.expires_in_ms.unwrap();
            assert!((1_700_000..=1_801_000).contains(&expires_in), "{expires_in}");
        });
        let dump = node.engine().await.unwrap().link.dump().await.unwrap();
        let infos = node.channels.infos(&node, &dump);
        assert_eq!((infos.len(), infos[0].role, infos[0].status), (1, ChannelRole::Responder, ChannelStatus::Open));
        assert_eq!(
            (&infos[0].identifier, &infos[0].my_identifier),
            (&identity.identifier().to_string(), &own.to_string())
        );
        assert_eq!(node.channels.identifier(), Some(own.to_string()));
        let info = node.channels.listener_info(&listener);
        assert_eq!((info.channels, info.accepted, info.half_open), (1, 1, 0));
        // Who was met is remembered.
        let known = Identities::open(&world.dir.home()).unwrap().known(&identity.identifier()).unwrap();
        assert_eq!(known, Some(identity.history.clone()));
        // With the listener its channels end, and the peer is told.
        node.delete_channel_listener("api").await.unwrap();
        world.tables(0, |tables| {
            assert_eq!(tables.retired, [(number, true)]);
            assert!(!tables.addresses.contains_key(&b"api"[..]));
        });
        assert!(matches!(node.delete_channel_listener("api").await, Err(Error::NoSuchThing { .. })));
    });
}

#[test]
fn who_is_not_welcome_is_told_so_and_garbage_is_not() {
    run(async {
        let world = World::new(1);
        let (node, _supervisor) = world.control(false).await;
        let (link, welcome, other) = (accepted_link(&world, 1), PeerIdentity::new(), PeerIdentity::new());
        node.create_channel_listener("friends", None, vec![welcome.identifier()]).await.unwrap();
        let taken = node.create_channel_listener("echo", None, Vec::new()).await;
        assert!(matches!(taken, Err(Error::AddressTaken { .. })));
        let listener = node.channel_listener("friends").unwrap();
        let info = || node.channels.listener_info(&listener);

        let mut peer = Initiator::begin(&world, link, "friends");
        let (message_3, established, _) = peer.answer(&world, &other).await;
        peer.finish(&world, &message_3);
        let close = until(|| Some(peer.received(&world)).filter(|all| all.len() == 2)).await.pop().unwrap();
        let mut record = Message::parse(&close).unwrap().payload.to_vec();
        let opened = Opener::new(established.opening_key).open_in_place(&mut record).map(|opened| opened.text.to_vec());
        assert_eq!(opened.unwrap(), CLOSE);
        until(|| world.tables(0, |tables| (!tables.addresses.contains_key(&peer.way)).then_some(()))).await;
        assert_eq!(info().refused, BTreeMap::from([("not_authorized".to_owned(), 1)]));

        // A message 3 of somebody else: nothing can be said to it.
        let mut peer = Initiator::begin(&world, link, "friends");
        let (mut message_3, ..) = peer.answer(&world, &welcome).await;
        message_3[100] ^= 1;
        peer.finish(&world, &message_3);
        until(|| (info().refused.get("not_genuine") == Some(&1)).then_some(())).await;
        until(|| world.tables(0, |tables| (!tables.addresses.contains_key(&peer.way)).then_some(()))).await;
        assert_eq!(peer.received(&world).len(), 1);

        // The identity of the one with the key of the other.
        let liar = PeerIdentity {
            history: welcome.history.clone(),
            static_key: ockam_crypto::X25519Key::new(Secret::new([7; 32])),
            payload: welcome.payload.clone(),
        };
        let mut peer = Initiator::begin(&world, link, "friends");
        let (message_3, ..) = peer.answer(&world, &liar).await;
        peer.finish(&world, &message_3);
        until(|| (info().refused.get("not_authentic") == Some(&1)).then_some(())).await;

        for wrong in [&b""[..], &[0; 31], &vec![0; 65_536]] {
            punt(&world, link, b"friends", b"d", wrong);
        }
        until(|| (info().refused.get("malformed") == Some(&3)).then_some(())).await;
        let mut peer = Initiator::begin(&world, link, "friends");
        let (message_3, ..) = peer.answer(&world, &welcome).await;
        peer.finish(&world, &message_3);
        until(|| (info().channels == 1).then_some(())).await;
        assert_eq!((info().accepted, info().half_open), (1, 0));
        // None of the others leaves anything.
        let is_clear =
            || world.tables(0, |tables| tables.addresses.values().all(|(target, ..)| *target != Target::Handshake));
        until(|| is_clear().then_some(())).await;
    });
}

#[test]
fn a_handshake_that_the_engine_refuses_or_that_dawdles_leaves_nothing() {
    run(async {
        let world = World::new(1);
        let (node, _supervisor) = world.control(false).await;
        let (link, identity) = (accepted_link(&world, 1), PeerIdentity::new());
        let listener = node.channel_listener("api").unwrap();
        let mut peer = Initiator::begin(&world, link, "api");
        let (message_3, ..) = peer.answer(&world, &identity).await;
        // More came early than is kept.
        world.tables(0, |tables| tables.refuse = Some(Refusal::Limit));
        peer.finish(&world, &message_3);
        until(|| world.tables(0, |tables| (!tables.addresses.contains_key(&peer.way)).then_some(()))).await;
        let info = node.channels.listener_info(&listener);
        assert_eq!((info.accepted, info.channels, info.refused.get("limit")), (0, 0, Some(&1)));

        let mut slow = Initiator::begin(&world, link, "api");
        slow.answer(&world, &identity).await;
        let expired = node.channels.state().half_open.expire(std::time::Instant::now() + HANDSHAKE_LIMIT);
        assert_eq!(expired.len(), 1);
        clear(&node.engine().await.unwrap().link, expired);
        until(|| world.tables(0, |tables| (!tables.addresses.contains_key(&slow.way)).then_some(()))).await;
    });
}

#[test]
fn a_channel_is_opened_stored_and_opened_again_under_its_address() {
    run(async {
        let world = World::new(2);
        let (node, supervisor) = world.control(false).await;
        let peer = PeerIdentity::new();
        world.tables(0, |tables| tables.peer = Some(Peer::Node(peer.clone(), Manner::Accepts)));
        let info = create(&node, request(DIALED)).await.unwrap();
        assert_eq!((info.role, info.status, info.reopened), (ChannelRole::Initiator, ChannelStatus::Open, 0));
        assert_eq!(info.identifier, peer.identifier().to_string());
        let row = node.desired().channels[0].clone();
        assert_eq!((&row.address, row.peer), (&info.address, peer.identifier()));
        world.tables(0, |tables| {
            let channel = tables.channels.values().next().unwrap();
            assert_eq!(channel.encryptor, info.address.as_bytes());
            assert_eq!((channel.flow_control, channel.follows_peer), (FLOW_CONTROL_INITIATED, false));
            let (_, seals, payload) = tables.established.as_ref().unwrap();
            assert_eq!(&channel.opening_key, seals);
            let claim = ockam_crypto::Claim::parse(payload).unwrap();
            assert_eq!(claim.identifier().to_string(), info.my_identifier);
        });
        let message = |to: &str| SendMessage {
            route: to.into(),
            authorized: Vec::new(),
            identity: None,
            message: MessageBody::Text("hi".into()),
            timeout_ms: 60_000,
        };
        let through = format!("/service/{}/service/uppercase", info.address);
        assert_eq!(crate::messages::send(&node, message(&through)).await.unwrap().text.as_deref(), Some("hi"));

        // The peer ends it.
        let number = world.tables(0, |tables| tables.channels.pop_first().unwrap().0);
        lock(&world.engines)[0].say(&Notice::ChannelClosed { channel: number, reason: ChannelEnd::ByPeer });
        until(|| world.tables(0, |tables| tables.channels.values().next().map(|it| it.encryptor.clone())))
            .await
            .eq(info.address.as_bytes())
            .then_some(())
            .expect("the same address");
        let status = || infos_of(&node).into_iter().find(|it| it.address == info.address).unwrap();
        until(|| (status().status == ChannelStatus::Open && status().reopened == 1).then_some(())).await;
        // Its old link is closed.
        until(|| world.tables(0, |tables| (tables.links.len() == 1).then_some(()))).await;

        // The engine dies.
        world.tables(1, |tables| tables.peer = Some(Peer::Node(peer.clone(), Manner::Accepts)));
        let watching = tokio::spawn(async move { supervisor.watch().await });
        lock(&world.engines)[0].kill();
        until(|| world.tables(1, |tables| tables.channels.values().next().map(|it| it.encryptor.clone()))).await;
        until(|| (status().status == ChannelStatus::Open && status().reopened == 2).then_some(())).await;

        // Deleted, nothing is left of it.
        delete(&node, &info.address).await.unwrap();
        assert!(node.desired().channels.is_empty() && infos_of(&node).is_empty());
        world.tables(1, |tables| {
            assert!(tables.channels.is_empty() && tables.links.is_empty());
            assert!(tables.retired.iter().all(|(_, told)| *told));
        });
        assert!(matches!(delete(&node, &info.address).await, Err(Error::NoSuchThing { .. })));
        watching.abort();
    });
}

fn infos_of(node: &Node) -> Vec<SecureChannelInfo> {
    node.channels.infos(node, &Dump::default())
}

#[test]
fn somebody_else_is_not_met_again() {
    run(async {
        let world = World::new(1);
        let (node, supervisor) = world.control(false).await;
        let (first, second) = (PeerIdentity::new(), PeerIdentity::new());
        world.tables(0, |tables| tables.peer = Some(Peer::Node(first.clone(), Manner::Accepts)));
        let info = create(&node, request(DIALED)).await.unwrap();
        let number = world.tables(0, |tables| {
            tables.peer = Some(Peer::Node(second.clone(), Manner::Accepts));
            tables.channels.pop_first().unwrap().0
        });
        lock(&world.engines)[0].say(&Notice::ChannelClosed { channel: number, reason: ChannelEnd::LinkGone });
        let stopped = until(|| infos_of(&node).into_iter().find(|it| it.status == ChannelStatus::Stopped)).await;
        let error = stopped.error.unwrap();
        assert!(error.contains("changed") && error.contains(&second.identifier().to_string()), "{error}");
        assert_eq!((&stopped.address, stopped.identifier), (&info.address, first.identifier().to_string()));
        until(|| world.tables(0, |tables| tables.links.is_empty().then_some(()))).await;
        world.tables(0, |tables| assert!(tables.channels.is_empty()));

        // A control that restarts knows whom it met first: that is stored.
        drop((node, supervisor));
        {
            let (node, _supervisor) = world.control(true).await;
            let stopped = until(|| infos_of(&node).into_iter().find(|it| it.status == ChannelStatus::Stopped)).await;
            assert_eq!((&stopped.address, stopped.identifier), (&info.address, first.identifier().to_string()));
            until(|| world.tables(0, |tables| tables.links.is_empty().then_some(()))).await;
            world.tables(0, |tables| assert!(tables.channels.is_empty()));
        }
        // The one that it met first is welcome again.
        world.tables(0, |tables| tables.peer = Some(Peer::Node(first.clone(), Manner::Accepts)));
        let (node, _supervisor) = world.control(true).await;
        let open = until(|| infos_of(&node).into_iter().find(|it| it.status == ChannelStatus::Open)).await;
        assert_eq!((open.address, open.identifier), (info.address, first.identifier().to_string()));
    });
}

#[test]
fn handshakes_done_in_one_go_are_not_mixed_up() {
    run(async {
        let world = World::new(1);
        let (node, _supervisor) = world.control(false).await;
        let link = accepted_link(&world, 1);
        // More than are done in one go; every third knows the node already.
        let acquaintance = PeerIdentity::new();
        let somebody =
            |number: usize| if number.is_multiple_of(3) { acquaintance.clone() } else { PeerIdentity::new() };
        let peers: Vec<_> = (0..50).map(|number| (Initiator::begin(&world, link, "api"), somebody(number))).collect();
        let mut expected = BTreeMap::new();
        for (mut peer, identity) in peers {
            let (mut message_3, established, _) = peer.answer(&world, &identity).await;
            // One in five is garbage.
            if expected.len() % 5 == 4 {
                message_3[100] ^= 1;
                expected.insert(peer.way.clone(), None);
            } else {
                let keys = [established.sealing_key, established.opening_key].map(|key| *key.expose());
                expected.insert(peer.way.clone(), Some((keys, identity.identifier())));
            }
            peer.finish(&world, &message_3);
        }
        let listener = node.channel_listener("api").unwrap();
        let info = || node.channels.listener_info(&listener);
        until(|| (info().half_open == 0).then_some(())).await;
        until(|| world.tables(0, |tables| (tables.channels.len() == 40).then_some(()))).await;
        assert_eq!((info().accepted, info().refused.get("not_genuine")), (40, Some(&10)));
        let channels: Vec<_> = world.tables(0, |tables| tables.channels.clone().into_iter().collect());
        for (number, channel) in channels {
            let (keys, peer) = expected[&channel.decryptor].unwrap();
            assert_eq!([channel.opening_key, channel.sealing_key], keys);
            assert_eq!(node.channels.identity_of(number).unwrap().1, peer);
        }
        // Everybody is remembered who is who they say.
        let identities = Identities::open(&world.dir.home()).unwrap();
        for (_, identifier) in expected.values().flatten() {
            assert!(identities.known(identifier).unwrap().is_some(), "{identifier}");
        }
    });
}

#[test]
fn every_way_not_to_open_a_channel_has_its_error_and_leaves_nothing() {
    run(async {
        let world = World::new(1);
        let (node, _supervisor) = world.control(false).await;
        let before = world.tables(0, |tables| tables.addresses.len());
        let identity = PeerIdentity::new();
        let identifier = identity.identifier().to_string();
        let manner = |manner| world.tables(0, |tables| tables.peer = Some(Peer::Node(identity.clone(), manner)));

        manner(Manner::Accepts);
        let stranger = format!("I{}", "0".repeat(64));
        let wanted = CreateSecureChannel { authorized: vec![stranger], ..request(DIALED) };
        let failed = create(&node, wanted).await.unwrap_err();
        let listener = DIALED.to_owned();
        assert_eq!(failed, Error::PeerNotAuthorized { listener: listener.clone(), identifier: identifier.clone() });
        // It learned nothing of us.
        world.tables(0, |tables| assert!(tables.established.is_none()));

        manner(Manner::Refuses);
        let failed = create(&node, request(DIALED)).await.unwrap_err();
        let own = node.channels.identifier().unwrap();
        assert_eq!(failed, Error::ChannelRefused { listener, identifier, own });
        manner(Manner::Silent);
        let failed = create(&node, CreateSecureChannel { timeout_ms: 300, ..request(DIALED) }).await.unwrap_err();
        assert!(matches!(failed, Error::NoReply { .. }) && failed.exit() == 75, "{failed}");
        manner(Manner::Garbage);
        let failed = create(&node, request(DIALED)).await.unwrap_err();
        assert!(matches!(failed, Error::PeerMisbehaved { .. }) && failed.exit() == 76, "{failed}");
        world.tables(0, |tables| tables.peer = Some(Peer::Close));
        assert!(matches!(create(&node, request(DIALED)).await, Err(Error::LinkLost { .. })));
        let not_there = create(&node, request("/service/missing")).await.unwrap_err();
        assert!(matches!(not_there, Error::Undelivered { .. }), "{not_there}");
        for bad in ["", "/ip4/127.0.0.1/tcp/9", "/node/n2/service/api"] {
            assert_eq!(create(&node, request(bad)).await.unwrap_err().exit(), 64, "{bad}");
        }
        let bad = CreateSecureChannel { authorized: vec!["alice".into()], ..request(DIALED) };
        assert_eq!(create(&node, bad).await.unwrap_err().exit(), 64);
        let unknown = CreateSecureChannel { identity: Some("nobody".into()), ..request(DIALED) };
        assert!(matches!(create(&node, unknown).await, Err(Error::NoSuchIdentity { .. })));

        assert!(node.desired().channels.is_empty() && infos_of(&node).is_empty());
        until(|| world.tables(0, |tables| tables.links.is_empty().then_some(()))).await;
        until(|| {
            world.tables(0, |tables| (tables.channels.is_empty() && tables.addresses.len() == before).then_some(()))
        })
        .await;
        assert!(node.channels.state().living.is_empty());
    });
}

#[test]
fn a_message_opens_channels_on_its_way_and_ends_them() {
    run(async {
        let world = World::new(1);
        let (node, _supervisor) = world.control(false).await;
        let identity = PeerIdentity::new();
        world.tables(0, |tables| tables.peer = Some(Peer::Node(identity.clone(), Manner::Accepts)));
        let send = |authorized: Vec<Vec<String>>| {
            let route = "/ip4/127.0.0.1/tcp/9/secure/api/service/uppercase".into();
            let message = MessageBody::Text("hi".into());
            crate::messages::send(&node, SendMessage { route, authorized, identity: None, message, timeout_ms: 60_000 })
        };
        assert_eq!(send(Vec::new()).await.unwrap().text.as_deref(), Some("hi"));
        assert!(send(vec![vec![identity.identifier().to_string()]]).await.is_ok());
        let refused = send(vec![vec![format!("I{}", "0".repeat(64))]]).await;
        assert!(matches!(refused, Err(Error::PeerNotAuthorized { .. })));
        assert_eq!(send(vec![Vec::new(), Vec::new()]).await.unwrap_err().exit(), 64);
        until(|| world.tables(0, |tables| (tables.channels.is_empty() && tables.links.is_empty()).then_some(()))).await;
        world.tables(0, |tables| {
            assert_eq!(tables.retired.len(), 2);
            assert!(tables.retired.iter().all(|(_, told)| *told));
        });
        assert!(infos_of(&node).is_empty());
    });
}

#[test]
fn what_lives_is_adopted_and_what_nobody_wants_ends() {
    run(async {
        let world = World::new(1);
        let (node, supervisor) = world.control(false).await;
        let identity = PeerIdentity::new();
        world.tables(0, |tables| tables.peer = Some(Peer::Node(identity.clone(), Manner::Accepts)));
        let kept = create(&node, request(DIALED)).await.unwrap();
        let forgotten = create(&node, request(DIALED)).await.unwrap();
        let friends = node.create_channel_listener("friends", None, Vec::new()).await.unwrap();
        let mut numbers = Vec::new();
        for listener in ["api", "friends"] {
            let mut peer = Initiator::begin(&world, accepted_link(&world, 9), listener);
            let (message_3, ..) = peer.answer(&world, &PeerIdentity::new()).await;
            let before = world.tables(0, |tables| tables.channels.len());
            peer.finish(&world, &message_3);
            until(|| world.tables(0, |tables| (tables.channels.len() > before).then_some(()))).await;
            let number = |tables: &mut crate::testing::Tables| tables.channels.last_key_value().map(|(it, _)| *it);
            numbers.extend(world.tables(0, number));
        }
        // As if they were deleted by a control that died before the engine heard of it.
        {
            let mut store = node.store().await;
            store.begin().unwrap();
            store.remove_channel(&forgotten.address).unwrap();
            store.remove_channel_listener(friends.bit).unwrap();
            store.commit().unwrap();
        }
        let before = node.channels.infos(&node, &node.engine().await.unwrap().link.dump().await.unwrap());
        drop((node, supervisor));
        world.tables(0, |tables| {
            // A handshake under way, and a channel that nobody here made.
            tables.addresses.insert(b"d".to_vec(), (Target::Handshake, 0, Vec::new()));
            let mut stranger = tables.channels[&numbers[0]].clone();
            (stranger.cookie, stranger.encryptor) = (b"?".to_vec(), b"e".to_vec());
            tables.channels.insert(1000, stranger);
        });

        let (node, _supervisor) = world.control(true).await;
        let dump = node.engine().await.unwrap().link.dump().await.unwrap();
        let after = node.channels.infos(&node, &dump);
        let mut alive: Vec<&[u8]> = dump.channels.iter().map(|channel| channel.encryptor.as_slice()).collect();
        alive.sort_unstable();
        let stays = |info: &&SecureChannelInfo| info.listener.as_deref() == Some("api") || info.address == kept.address;
        let mut expected: Vec<&SecureChannelInfo> = before.iter().filter(stays).collect();
        expected.sort_by(|a, b| a.address.cmp(&b.address));
        assert_eq!(after.len(), 2);
        assert!(expected.iter().all(|info| after.contains(info)), "{after:#?} {expected:#?}");
        assert_eq!(alive, expected.iter().map(|info| info.address.as_bytes()).collect::<Vec<_>>());
        world.tables(0, |tables| {
            assert!(!tables.addresses.contains_key(&b"d"[..]));
            assert!(tables.retired.contains(&(1000, true)) && tables.retired.contains(&(numbers[1], true)));
            // That of the accepted peers, and that of the channel that stays.
            assert_eq!(tables.links.len(), 2);
        });
        // A control that adopted a channel ends it, with its link.
        delete(&node, &kept.address).await.unwrap();
        world.tables(0, |tables| assert_eq!((tables.channels.len(), tables.links.len()), (1, 1)));
    });
}

#[test]
fn what_depends_on_a_deleted_identity_ends() {
    run(async {
        let world = World::new(1);
        let (node, _supervisor) = world.control(false).await;
        let peer = PeerIdentity::new();
        world.tables(0, |tables| tables.peer = Some(Peer::Node(peer.clone(), Manner::Accepts)));
        let home = world.dir.home();
        let mut identities = Identities::open(&home).unwrap();
        // The first one is the default, and the node's.
        identities.create(Some("first"), None).unwrap();
        let other = identities.create(Some("other"), None).unwrap();
        create(&node, request(DIALED)).await.unwrap();
        let with_other = CreateSecureChannel { identity: Some("other".into()), ..request(DIALED) };
        let ends = create(&node, with_other).await.unwrap();
        assert_eq!(ends.my_identifier, other.identifier.to_string());
        let used = || node.channels.state().living.values().map(|living| living.own).collect::<HashSet<_>>();
        node.channels.check_identities(&node, used()).await.unwrap();
        world.tables(0, |tables| assert_eq!(tables.channels.len(), 2));
        identities.delete(Some("other")).unwrap();
        node.channels.check_identities(&node, used()).await.unwrap();
        world.tables(0, |tables| assert_eq!((tables.channels.len(), tables.retired.len()), (1, 1)));
        // It is tried again in vain, and says why.
        let says_so = |info: &SecureChannelInfo| info.error.as_ref().is_some_and(|why| why.contains("identity"));
        let info = until(|| infos_of(&node).into_iter().find(says_so)).await;
        assert_eq!((info.address, info.status), (ends.address, ChannelStatus::Opening));
    });
}

#[test]
fn the_bits_of_channels_reach_services_and_no_forwarder() {
    run(async {
        let world = World::new(1);
        let (node, _supervisor) = world.control(false).await;
        node.start_service(crate::api::Service::Hop, "hop").await.unwrap();
        let api = node.channel_listener("api").unwrap();
        assert!(CHANNELS_MASK & 1 << api.bit != 0 && CHANNELS_MASK & 1 << FLOW_CONTROL_INITIATED != 0);
        let reachable = |name: &[u8]| world.tables(0, |tables| tables.addresses[name].1);
        for open in [&b"echo"[..], b"uppercase", b"api"] {
            assert_eq!(reachable(open), u64::MAX);
        }
        assert_eq!(reachable(b"hop") & CHANNELS_MASK, 0);
        // Unless somebody says so.
        node.add_consumer(&api.flow_control, "hop").await.unwrap();
        assert_eq!(reachable(b"hop") & CHANNELS_MASK, 1 << api.bit);
        node.add_consumer(&node.initiated_flow_control.clone(), "hop").await.unwrap();
        assert_eq!(reachable(b"hop") & CHANNELS_MASK, 1 << api.bit | 1 << FLOW_CONTROL_INITIATED);
    });
}

#[test]
fn a_source_that_holds_most_channels_gives_way_to_others() {
    let identifier = Identifier([0; 32]);
    let mut state = State::default();
    let mut open = |index: Option<u32>| {
        let living = Living {
            address: String::new(),
            decryptor: String::new(),
            peer: identifier,
            own: identifier,
            expires_at: 0,
            purpose: Purpose::Message,
            source: index.map(|index| Source::Link(LinkId::new(0, index, 1))),
            link: None,
            granted: None,
            ended: Vec::new(),
        };
        let admitted = state.admit(living);
        if let Some((_, Some(shed))) = admitted {
            assert!(state.remove(shed).is_some());
        }
        (admitted, state.living.len())
    };
    let honest = open(Some(1)).0.unwrap().0;
    for at in 1..LIVING_MAX {
        assert_eq!(open(Some(2 + at as u32 % 2)).1, at + 1);
    }
    // Whoever has fewer gets room, the newcomer and the one that this node opens itself; who has most gets none.
    for newcomer in [Some(9), None, Some(1)] {
        let (admitted, count) = open(newcomer);
        let shed = admitted.unwrap().1.unwrap();
        assert!(shed != honest && count == LIVING_MAX);
    }
    assert_eq!([2, 3].map(|index| open(Some(index)).0.is_none()).iter().filter(|refused| **refused).count(), 2);
}
