//! The relay service and its clients, towards a peer that speaks the wire itself (`wire.md` G). Each check holds a real node
//! and ours.

use ockam_interop::{Kind, PortalNode, RawPeer, assert_body, over_tcp};
use ockam_tests::{Carrier, Peer, Responder, addresses, text};
use ockam_wire::Address;
use std::thread;

/// Runs each named check with the service, or the client, on a real node and on ours.
macro_rules! kinds {
    ($($(#[$attribute:meta])* $check:ident),* $(,)?) => {$(
        $(#[$attribute])*
        mod $check {
            #[test]
            fn real() {
                super::$check(ockam_interop::Kind::Real);
            }

            #[test]
            fn ours() {
                super::$check(ockam_interop::Kind::Ours);
            }
        }
    )*};
}

kinds!(
    a_registration_in_full,
    a_registration_with_any_name,
    what_a_relay_forwards,
    the_last_registration_wins,
    a_relay_whose_client_left,
    what_registers_nothing,
    a_client_in_full,
);

/// Registers, and gives the whole answer.
fn register(link: &mut Peer, service: &str, name: &str) -> (Vec<Address>, Vec<u8>) {
    link.transmit(&addresses(&[service]), &addresses(&["client"]), &text(name));
    let answer = link.receive();
    assert_eq!(answer.onward, addresses(&["client"]));
    (answer.back, answer.payload)
}

/// G.2, to the byte.
fn a_registration_in_full(kind: Kind) {
    let node = PortalNode::start(kind);
    let mut link = RawPeer::connect(node.address());
    for _ in 0..2 {
        link.write(
            &hex::decode(
                "0000004b8481820058197374617469635f666f7277617264696e675f736572766963658182005820383838383838383838383838383838383838383838383838383838383838383843026e32627b7d",
            )
            .expect("hexadecimal"),
        );
        assert_body(
            kind,
            &link.receive(),
            "84818200582038383838383838383838383838383838383838383838383838383838383838388182004d666f72776172645f746f5f6e324e0d666f72776172645f746f5f6e32627b7d",
        );
    }
    link.assert_serving_and_silent();
}

/// Either service, a name of the client's, or one that the service makes up.
fn a_registration_with_any_name(kind: Kind) {
    let node = PortalNode::start(kind);
    let mut link = Peer::connect(node.address());
    for service in ["forwarding_service", "static_forwarding_service"] {
        let (back, payload) = register(&mut link, service, "green");
        assert_eq!((back, payload), (addresses(&["forward_to_green"]), text("forward_to_green")));
        let (back, payload) = register(&mut link, service, "register");
        let [relay] = &back[..] else { panic!("{back:?} is one address") };
        let name = std::str::from_utf8(&relay.name).expect("a text");
        let random = name.strip_prefix("forward_to_").expect("the prefix of relays");
        assert!(
            random.len() == 32 && random.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
            "{name}"
        );
        assert_eq!(payload, text(name));
    }
}

/// The relay takes its own address off, puts the way to the client in front, and leaves the return route alone; the answer
/// comes back the same way.
fn what_a_relay_forwards(kind: Kind) {
    let node = PortalNode::start(kind);
    let (mut client, mut asking) = (Peer::connect(node.address()), Peer::connect(node.address()));
    register(&mut client, "static_forwarding_service", "green");
    let payload = ockam_interop::noise(200_000, 1);
    asking.transmit(&addresses(&["forward_to_green", "service", "beyond"]), &addresses(&["me", "and me"]), &payload);
    let arrived = client.receive();
    assert_eq!(arrived.onward, addresses(&["service", "beyond"]));
    let [entry, behind @ ..] = &arrived.back[..] else { panic!("no way back") };
    assert_eq!(entry.name.len(), 32, "{entry}");
    assert_eq!(behind, addresses(&["me", "and me"]));
    assert!(arrived.payload == payload);
    client.transmit(&arrived.back, &addresses(&["service"]), b"answer");
    let answer = asking.receive();
    assert_eq!((answer.onward, &answer.payload[..]), (addresses(&["me", "and me"]), &b"answer"[..]));
    let [entry, behind @ ..] = &answer.back[..] else { panic!("no way back") };
    assert_eq!((entry.name.len(), behind), (32, &addresses(&["service"])[..]));
    // Nothing behind the relay: nothing is forwarded that a client would have to look at.
    for link in [&mut client, &mut asking] {
        link.echoes(b"still there?");
    }
}

/// Whoever registers a name gets what comes for it, until the next one does.
fn the_last_registration_wins(kind: Kind) {
    let node = PortalNode::start(kind);
    let mut clients = [(); 3].map(|()| Peer::connect(node.address()));
    let mut asking = Peer::connect(node.address());
    for i in [0, 1, 2, 0] {
        register(&mut clients[i], "static_forwarding_service", "green");
        asking.transmit(&addresses(&["forward_to_green", "service"]), &addresses(&["me"]), &[i as u8]);
        let arrived = clients[i].receive();
        assert_eq!((arrived.onward, arrived.payload), (addresses(&["service"]), vec![i as u8]));
    }
    for client in &mut clients {
        client.echoes(b"and nothing else");
    }
}

/// What comes for a client that is gone is dropped, and nobody is harmed. It may register again.
fn a_relay_whose_client_left(kind: Kind) {
    let node = PortalNode::start(kind);
    let mut asking = Peer::connect(node.address());
    let mut client = Peer::connect(node.address());
    register(&mut client, "static_forwarding_service", "green");
    drop(client);
    for _ in 0..3 {
        asking.transmit(&addresses(&["forward_to_green", "service"]), &addresses(&["me"]), b"hello?");
        asking.echoes(b"still there?");
    }
    let mut client = Peer::connect(node.address());
    register(&mut client, "static_forwarding_service", "green");
    asking.transmit(&addresses(&["forward_to_green", "service"]), &addresses(&["me"]), b"hello");
    // What was sent before it came back does not come.
    assert_eq!(client.receive().payload, b"hello");
}

/// What is no text has no answer, and registers nothing.
fn what_registers_nothing(kind: Kind) {
    let node = PortalNode::start(kind);
    let mut link = Peer::connect(node.address());
    for payload in [&b""[..], b"\x05gree", b"\x02\xff\xfe", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02a"] {
        link.transmit(&addresses(&["static_forwarding_service"]), &addresses(&["client"]), payload);
        link.echoes(b"no answer");
    }
}

/// What a client of a relay sends, and what reaches it by the relay: with its own address in front, as relays of another
/// make have it, or without.
fn a_client_in_full(kind: Kind) {
    let (node, responder) = (PortalNode::start(kind), Responder::new());
    let at = over_tcp(responder.address);
    thread::scope(|scope| {
        let registered = scope.spawn(|| node.relay("green", &at));
        let mut link = responder.link();
        let next = |link: &mut Peer| loop {
            let message = link.receive();
            if message.onward != addresses(&["echo"]) {
                return message;
            }
            link.transmit(&message.back, &addresses(&["echo"]), &message.payload);
        };
        let request = next(&mut link);
        assert_eq!(request.onward, addresses(&["static_forwarding_service"]));
        assert_eq!(request.payload, text("green"));
        let [client] = &request.back[..] else { panic!("{:?} is one address", request.back) };
        assert!(client.kind == 0 && client.name.len() == 32, "{client}");
        link.transmit(&request.back, &addresses(&["forward_to_green"]), &text("forward_to_green"));
        registered.join().expect("it is registered");
        let ask = |link: &mut Peer, onward: &[Address]| {
            let payload = ockam_interop::noise(1000, 7);
            link.transmit(onward, &addresses(&["somebody", "beyond"]), &payload);
            let answer = next(link);
            assert_eq!(answer.onward, addresses(&["somebody", "beyond"]));
            assert_eq!(answer.back.last(), addresses(&["echo"]).last());
            assert!(answer.payload == payload);
        };
        ask(&mut link, &addresses(&["echo"]));
        ask(&mut link, &[client.clone(), addresses(&["echo"]).remove(0)]);
        ask(&mut link, &addresses(&["echo"]));
    });
}
