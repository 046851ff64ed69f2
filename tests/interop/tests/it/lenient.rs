//! What both kinds of node accept although neither would write it (0.1, A.3, N.1, open question 6). Each request must
//! be answered exactly as its plain form is.

use ockam_interop::{Peer, RawPeer};
use ockam_wire::undeliverable::Offer;

both!(
    tracing_texts,
    bytes_behind_the_message,
    elements_behind_the_tracing_text,
    longer_heads_than_needed,
    arrays_of_indefinite_length,
    padded_lengths_of_strings,
    names_of_any_bytes,
    a_return_route_of_several_addresses,
    addresses_behind_the_last_worker,
    an_empty_return_route,
);

/// `82 00 44 "echo"`, and the route of that.
const ECHO: &str = "8200446563686f";
const TO_ECHO: &str = "818200446563686f";
/// The return route with the reply address of `wire.md` A.8.
const FROM_A: &str = "8182005820 6161616161616161616161616161616161616161616161616161616161616161";
const HELLO: &str = "460568656c6c6f";

/// Hexadecimal in parts that a reader can tell apart.
fn bytes(parts: &[&str]) -> Vec<u8> {
    hex::decode(parts.concat().replace(' ', "")).expect("hexadecimal")
}

#[track_caller]
fn assert_hello(link: &mut RawPeer, what: &str, request: &[u8]) {
    link.send(request);
    assert_eq!(link.reply(), b"\x05hello", "{what}");
}

fn tracing_texts(peer: &Peer) {
    let mut link = peer.link();
    let text = |text: &str| match u8::try_from(text.len()).expect("a short text") {
        len @ 0..24 => format!("{:02x}{}", 0x60 + len, hex::encode(text)),
        len => format!("78{len:02x}{}", hex::encode(text)),
    };
    let trace = r#"{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","tracestate":""}"#;
    let offer = Offer { token: *b"0123456789abcdef" }.text();
    assert_hello(&mut link, "none", &bytes(&["83", TO_ECHO, FROM_A, HELLO]));
    for (what, item) in [
        ("null", "f6".to_owned()),
        ("an empty object", text("{}")),
        ("an empty text", text("")),
        ("a trace, as real nodes send it when they export", text(trace)),
        ("not JSON", text("{nonsense")),
        ("JSON of another shape", text("[1,2,3]")),
        ("not ASCII", text("ünïcode → 漢字")),
        ("our offer, which real nodes do not know", text(&offer)),
        ("a trace of another version", text(r#"{"traceparent":"ff-zz"}"#)),
    ] {
        assert_hello(&mut link, what, &bytes(&["84", TO_ECHO, FROM_A, HELLO, &item]));
    }
}

fn bytes_behind_the_message(peer: &Peer) {
    let mut link = peer.link();
    assert_hello(&mut link, "a second message", &bytes(&["83", TO_ECHO, FROM_A, HELLO, "83808040"]));
    assert_hello(&mut link, "no CBOR", &bytes(&["84", TO_ECHO, FROM_A, HELLO, "627b7d", "ffffffff"]));
}

fn elements_behind_the_tracing_text(peer: &Peer) {
    let mut link = peer.link();
    assert_hello(&mut link, "an integer", &bytes(&["85", TO_ECHO, FROM_A, HELLO, "627b7d", "07"]));
    assert_hello(&mut link, "a map and a text", &bytes(&["86", TO_ECHO, FROM_A, HELLO, "f6", "a10102", "6161"]));
}

fn longer_heads_than_needed(peer: &Peer) {
    let mut link = peer.link();
    let name = "6563686f";
    let hello = "0568656c6c6f";
    for head in ["5806", "590006", "5a00000006", "5b0000000000000006"] {
        assert_hello(&mut link, head, &bytes(&["83", TO_ECHO, FROM_A, head, hello]));
    }
    for head in ["9803", "990003", "9a00000003", "9b0000000000000003"] {
        assert_hello(&mut link, head, &bytes(&[head, TO_ECHO, FROM_A, HELLO]));
    }
    for head in ["9801", "990001", "9a00000001", "9b0000000000000001"] {
        assert_hello(&mut link, head, &bytes(&["83", head, ECHO, FROM_A, HELLO]));
    }
    for head in ["9802", "990002", "9a00000002", "9b0000000000000002"] {
        assert_hello(&mut link, head, &bytes(&["83", "81", head, "0044", name, FROM_A, HELLO]));
    }
    for transport_type in ["1800", "190000", "1a00000000", "1b0000000000000000"] {
        assert_hello(&mut link, transport_type, &bytes(&["83", "8182", transport_type, "44", name, FROM_A, HELLO]));
    }
    for head in ["5804", "590004", "5a00000004", "5b0000000000000004"] {
        assert_hello(&mut link, head, &bytes(&["83", "818200", head, name, FROM_A, HELLO]));
    }
    for head in ["7802", "790002", "7a00000002", "7b0000000000000002"] {
        assert_hello(&mut link, head, &bytes(&["84", TO_ECHO, FROM_A, HELLO, head, "7b7d"]));
    }
}

fn arrays_of_indefinite_length(peer: &Peer) {
    let mut link = peer.link();
    assert_hello(&mut link, "the message", &bytes(&["9f", TO_ECHO, FROM_A, HELLO, "ff"]));
    assert_hello(&mut link, "with tracing", &bytes(&["9f", TO_ECHO, FROM_A, HELLO, "627b7d", "ff"]));
    assert_hello(&mut link, "the onward route", &bytes(&["83", "9f", ECHO, "ff", FROM_A, HELLO]));
    assert_hello(&mut link, "an address", &bytes(&["83", "81", "9f00446563686fff", FROM_A, HELLO]));
    let from = FROM_A.strip_prefix("81").expect("a route of one");
    assert_hello(&mut link, "the return route", &bytes(&["83", TO_ECHO, "9f", from, "ff", HELLO]));
    let address = from.strip_prefix("82").expect("a pair");
    assert_hello(&mut link, "its address", &bytes(&["83", TO_ECHO, "819f", address, "ff", HELLO]));
}

/// The ULEB length of a String may have zero groups behind it, up to ten bytes.
fn padded_lengths_of_strings(peer: &Peer) {
    let mut link = peer.link();
    let to_uppercase = "81820049757070657263617365";
    for (length, head) in
        [("05", "46"), ("8500", "47"), ("858000", "48"), ("85808000", "49"), ("85808080808080808000", "4f")]
    {
        link.send(&bytes(&["83", to_uppercase, FROM_A, head, length, "68656c6c6f"]));
        assert_eq!(link.reply(), b"\x05HELLO", "a length written as {length}");
    }
}

fn names_of_any_bytes(peer: &Peer) {
    let mut link = peer.link();
    for name in ["00", "ff", "c328", "230a0d1b", "e6bca2"] {
        let address = format!("8200{:02x}{name}", 0x40 + name.len() / 2);
        link.send(&bytes(&["83", TO_ECHO, "81", &address, HELLO]));
        let body = link.receive();
        let expected = bytes(&["81", &address, TO_ECHO, HELLO]);
        assert!(body[1..].starts_with(&expected), "{} for the name {name}", hex::encode(&body));
    }
}

/// A return route is replayed as it is, whatever is in it: also addresses that this node could not reach.
fn a_return_route_of_several_addresses(peer: &Peer) {
    let mut link = peer.link();
    let route = "84 820043787878 82004179 8201 4b 31302e302e302e313a3830 8202 40";
    link.send(&bytes(&["83", TO_ECHO, route, HELLO]));
    let body = link.receive();
    assert!(body[1..].starts_with(&bytes(&[route, TO_ECHO, HELLO])), "{}", hex::encode(&body));
}

/// Only the first onward address counts for a service; the others are ignored (B.1).
fn addresses_behind_the_last_worker(peer: &Peer) {
    let mut link = peer.link();
    assert_hello(&mut link, "echo, nobody", &bytes(&["83", "82", ECHO, "8200466e6f626f6479", FROM_A, HELLO]));
}

/// A request that names no way back is answered to the link itself, which makes the answer a heartbeat with a payload.
fn an_empty_return_route(peer: &Peer) {
    let mut link = peer.link();
    link.send(&bytes(&["83", TO_ECHO, "80", HELLO]));
    let body = link.receive();
    assert!(body[1..].starts_with(&bytes(&["80", TO_ECHO, HELLO])), "{}", hex::encode(&body));
    link.assert_serving_and_silent();
}
