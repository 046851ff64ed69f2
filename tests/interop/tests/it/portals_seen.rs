//! What goes over the wire between the ends of a portal: nothing that a real node does not know is sent to one, whatever
//! happens (`docs/wire-extensions.md`).

use ockam_interop::{Client, Kind, Portal, Way};
use ockam_wire::portal::PortalMessage;
use ockam_wire::{Message, bare};
use std::io::{Read, Write};
use std::net::Shutdown;

/// Everything that may happen to connections: data, ends of either side, ends of half a connection, and a client that does
/// not read while much is on its way.
fn exercise(portal: &Portal) {
    for (up, down) in [(0, 0), (1, 1), (300_000, 500_000)] {
        drop(Client::talk(portal.inlet, up, down));
        assert!(portal.target.ended().whole);
    }
    Client::send_and_leave(portal.inlet, 100_000);
    assert!(portal.target.ended().whole);
    Client::receive_to_the_end(portal.inlet, 100_000);
    assert!(portal.target.ended().whole);
    let mut half = Client::connect(portal.inlet);
    half.shutdown(Shutdown::Write).expect("shut down the writing side");
    assert!(portal.target.ended().whole);
    assert_eq!(half.read(&mut [0]).expect("an orderly end"), 0);
    let mut slow = Client::ask(portal.inlet, 10, 1_000_000);
    // Others get through meanwhile.
    drop(Client::talk(portal.inlet, 10_000, 10_000));
    assert!(portal.target.ended().whole);
    slow.send_and_receive();
    drop(slow);
    assert!(portal.target.ended().whole);
    // Refused before it has said a word.
    let mut nothing = Client::connect(portal.inlet);
    nothing.write_all(b"x").expect("the inlet reads");
    drop(nothing);
    portal.target.ended();
}

/// The messages of portals that went this way, with their bytes. The rest are questions whether the other side lives and
/// their answers (F.6): 9 bytes that are a number in CBOR.
fn portal_messages(portal: &Portal, way: Way) -> Vec<Vec<u8>> {
    let payload = |body: Vec<u8>| Message::parse(&body).expect("nodes send messages that parse").payload.to_vec();
    let liveness = |payload: &Vec<u8>| payload.len() == 9 && payload[0] == 0x1b;
    portal.middle.seen(way).into_iter().map(payload).filter(|payload| !liveness(payload)).collect()
}

/// Nothing but what a real node would have sent itself, except for what is behind a Ping.
fn assert_plain(messages: &[Vec<u8>], offers: bool) {
    let mut seen = [0; 4];
    for message in messages {
        let said = PortalMessage::parse(message).unwrap_or_else(|| panic!("{message:02x?}"));
        match said {
            PortalMessage::Ping { credit } => {
                assert_eq!((credit.is_some(), message.len() > 1), (offers, offers), "{message:02x?}");
                seen[0] += 1;
            }
            PortalMessage::Pong { .. } => {
                assert_eq!(message, &[1]);
                seen[1] += 1;
            }
            PortalMessage::Disconnect { .. } => {
                assert_eq!(message, &[2]);
                seen[2] += 1;
            }
            PortalMessage::Payload { data, .. } => {
                let head = 1 + bare::uleb_len(data.len() as u64);
                assert_eq!(message.len(), head + data.len(), "no counter, no padding, nothing behind");
                assert!(!data.is_empty() && data.len() <= 128 << 10, "F.3: {} bytes at once", data.len());
                seen[3] += 1;
            }
            PortalMessage::End { .. } | PortalMessage::Credit { .. } => panic!("{said:?}"),
        }
    }
    assert!((seen[0] == 0) != (seen[1] == 0), "Pings go one way, Pongs the other: {seen:?}");
    assert!(seen[2] > 0 && seen[3] > 0, "not all of it was seen: {seen:?}");
}

#[test]
fn real_nodes() {
    let portal = Portal::open(Kind::Real, Kind::Real, false);
    exercise(&portal);
    assert_plain(&portal_messages(&portal, Way::ToTarget), false);
    assert_plain(&portal_messages(&portal, Way::ToDialer), false);
}

#[test]
fn our_inlet() {
    let portal = Portal::open(Kind::Ours, Kind::Real, false);
    exercise(&portal);
    assert_plain(&portal_messages(&portal, Way::ToTarget), true);
    assert_plain(&portal_messages(&portal, Way::ToDialer), false);
}

#[test]
fn our_outlet() {
    let portal = Portal::open(Kind::Real, Kind::Ours, false);
    exercise(&portal);
    assert_plain(&portal_messages(&portal, Way::ToTarget), false);
    assert_plain(&portal_messages(&portal, Way::ToDialer), false);
}

/// Between our own nodes the same reading finds what they say more: it could find it above.
#[test]
fn our_nodes() {
    let portal = Portal::open(Kind::Ours, Kind::Ours, false);
    exercise(&portal);
    for way in [Way::ToTarget, Way::ToDialer] {
        let mut messages = portal_messages(&portal, way);
        // What asks whether the outlet is there, and the notice if it is not.
        messages.retain(|message| !message.is_empty());
        let said: Vec<_> = messages.iter().map(|message| PortalMessage::parse(message).expect("a message")).collect();
        let found = |kind: fn(&PortalMessage) -> bool| said.iter().any(kind);
        assert!(found(|said| matches!(said, PortalMessage::Credit { .. })), "credit {way:?}");
        assert!(found(|said| matches!(said, PortalMessage::End { .. })), "an end of half a connection {way:?}");
        assert!(
            found(|said| matches!(
                said,
                PortalMessage::Ping { credit: Some(_) } | PortalMessage::Pong { credit: Some(_) }
            )),
            "an offer or its answer {way:?}"
        );
    }
}
