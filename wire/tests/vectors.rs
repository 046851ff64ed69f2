//! Bytes that real nodes send and what they mean: the worked examples of `wire.md` A.8, B.2, F.8, G.2 and I.4, the
//! frames captured in N.2, the integers of K.6. Each is read, compared, and written again byte for byte.

use ockam_wire::bare::{BareError, read_string, read_uleb, uleb_len, write_string, write_uleb};
use ockam_wire::portal::{PAYLOAD_HEAD_MAX, PortalMessage, payload_head};
use ockam_wire::{
    Address, AddressError, AddressRef, FRAME_MAX, FrameError, Framer, LOCAL, Malformed, Message, MultiAddr, Outgoing,
    Protocol, Route, RouteParts, TCP, UDP, frame_length,
};
use std::fmt::Debug;
use std::str::FromStr;

const REPLY_TO: &[u8] = &[b'a'; 32];

fn hex(text: &str) -> Vec<u8> {
    assert_eq!(text.len() % 2, 0);
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

fn local(name: &str) -> AddressRef<'_> {
    AddressRef::local(name.as_bytes())
}

/// Reads a body, checks what is in it, and writes it again.
fn exactly(body: &[u8], onward: &[AddressRef], return_route: &[AddressRef], payload: &[u8], tracing: Option<&str>) {
    let message = Message::parse(body).expect("a real message");
    assert_eq!(message.onward.iter().collect::<Vec<_>>(), onward);
    assert_eq!(message.return_route.iter().collect::<Vec<_>>(), return_route);
    assert_eq!(message.payload, payload);
    assert_eq!(message.tracing, tracing);

    let made = Outgoing {
        onward: RouteParts::new(onward),
        return_route: RouteParts::new(return_route),
        payload_len: payload.len(),
        tracing,
    };
    assert_eq!(made.to_frame(payload)[4..], *body);
    let passed_on = Outgoing { onward: message.onward.into(), return_route: message.return_route.into(), ..made };
    assert_eq!(passed_on.to_frame(payload)[4..], *body);
}

fn body_of(frame: &[u8]) -> &[u8] {
    let (head, body) = frame.split_first_chunk().expect("a length");
    assert_eq!(frame_length(*head), Ok(body.len()));
    body
}

#[test]
fn a8_echo_request_as_real_nodes_send_it() {
    let frame = hex(
        "0000003884818200446563686f81820058206161616161616161616161616161616161616161616161616161616161616161460568656c6c6f627b7d",
    );
    let to_echo = [local("echo")];
    exactly(body_of(&frame), &to_echo, &[AddressRef::local(REPLY_TO)], b"\x05hello", Some("{}"));
}

#[test]
fn a8_echo_request_without_tracing() {
    let frame = hex(
        "0000003583818200446563686f81820058206161616161616161616161616161616161616161616161616161616161616161460568656c6c6f",
    );
    assert_eq!(frame.len(), 57);
    exactly(body_of(&frame), &[local("echo")], &[AddressRef::local(REPLY_TO)], b"\x05hello", None);
}

#[test]
fn a8_echo_reply() {
    let frame = hex(
        "000000388481820058206161616161616161616161616161616161616161616161616161616161616161818200446563686f460568656c6c6f627b7d",
    );
    exactly(body_of(&frame), &[AddressRef::local(REPLY_TO)], &[local("echo")], b"\x05hello", Some("{}"));
}

#[test]
fn a6_heartbeat() {
    exactly(body_of(&hex("0000000483808040")), &[], &[], b"", None);
    exactly(&hex("84808040627b7d"), &[], &[], b"", Some("{}"));
}

#[test]
fn b2_hop_and_what_it_forwards() {
    let body = hex(
        "8482820043686f708200446563686f81820058206161616161616161616161616161616161616161616161616161616161616161460568656c6c6f627b7d",
    );
    exactly(&body, &[local("hop"), local("echo")], &[AddressRef::local(REPLY_TO)], b"\x05hello", Some("{}"));

    let message = Message::parse(&body).expect("just parsed");
    let (hop, onward) = message.onward.split_first().expect("two addresses");
    assert_eq!(hop, local("hop"));
    let forwarded = Outgoing {
        onward: onward.into(),
        return_route: RouteParts { front: &[hop, local("link")], rest: message.return_route },
        payload_len: message.payload.len(),
        tracing: message.tracing,
    };
    let frame = forwarded.to_frame(message.payload);
    let return_route = [local("hop"), local("link"), AddressRef::local(REPLY_TO)];
    exactly(body_of(&frame), &[local("echo")], &return_route, b"\x05hello", Some("{}"));
    // All that follows the routes is what came in: a relay writes the prefix and nothing else.
    assert!(frame.ends_with(&hex("460568656c6c6f627b7d")));
}

#[test]
fn n2_frames_captured_from_real_nodes() {
    exactly(
        &hex(
            "848182004975707065726361736581820058203739393639416637616338663364396336613165313233373765666534643162460568656c6c6f627b7d",
        ),
        &[local("uppercase")],
        &[local("79969Af7ac8f3d9c6a1e12377efe4d1b")],
        b"\x05hello",
        Some("{}"),
    );
    exactly(
        &hex(
            "84818200446563686f8182005820613232303962643937346437393137343966363261396263663864383161653543000102627b7d",
        ),
        &[local("echo")],
        &[local("a2209bd974d791749f62a9bcf8d81ae5")],
        &[0, 1, 2],
        Some("{}"),
    );
    exactly(
        &hex(
            "84818200436170698182005820373866653161316135343364333764303466386264326330333630653039633858200b41c3cd42e22ec50094b1e0f2e6e1644e5a2235c7da16cb3716782cc188fd01627b7d",
        ),
        &[local("api")],
        &[local("78fe1a1a543d37d04f8bd2c0360e09c8")],
        &hex("0b41c3cd42e22ec50094b1e0f2e6e1644e5a2235c7da16cb3716782cc188fd01"),
        Some("{}"),
    );
    exactly(
        &hex(
            "8481820058197374617469635f666f7277617264696e675f736572766963658182005820656331613966633736623937343738393334653661353761656333613635303943027231627b7d",
        ),
        &[local("static_forwarding_service")],
        &[local("ec1a9fc76b97478934e6a57aec3a6509")],
        b"\x02r1",
        Some("{}"),
    );
}

/// The frames of a portal without a channel.
#[test]
fn f8_ping_and_pong() {
    let (inlet, outlet) = (AddressRef::local(&[b'7'; 32]), AddressRef::local(&[b'6'; 32]));
    for (frame, onward, return_route, said) in [
        (
            "0000003584818200466f75746c6574818200582037373737373737373737373737373737373737373737373737373737373737374100627b7d",
            local("outlet"),
            inlet,
            PortalMessage::Ping { credit: None },
        ),
        (
            "000000508481820058203737373737373737373737373737373737373737373737373737373737373737818200582036363636363636363636363636363636363636363636363636363636363636364101627b7d",
            inlet,
            outlet,
            PortalMessage::Pong { credit: None },
        ),
    ] {
        exactly(body_of(&hex(frame)), &[onward], &[return_route], &said.encode(), Some("{}"));
        assert_eq!(PortalMessage::parse(&said.encode()), Some(said));
    }
}

/// M.1: what the messages of a portal and the frames around them add to the data.
#[test]
fn m1_bytes_around_a_portals_data() {
    let (from, to) = ([AddressRef::local(&[b'7'; 32])], [AddressRef::local(&[b'6'; 32])]);
    for (data, of_the_portal, in_all) in [(1000, 3, 88), (16 << 10, 4, 89), (128 << 10, 4, 91)] {
        let head = payload_head(data, &mut [0; PAYLOAD_HEAD_MAX]);
        assert_eq!(head, of_the_portal);
        let outgoing = Outgoing {
            onward: RouteParts::new(&to),
            return_route: RouteParts::new(&from),
            payload_len: head + data,
            tracing: Some("{}"),
        };
        assert_eq!(outgoing.frame_len() - data, in_all, "{data} bytes");
    }
}

/// A relay that is registered and its answer.
#[test]
fn g2_registration() {
    let client = AddressRef::local(&[b'8'; 32]);
    exactly(
        body_of(&hex(
            "0000004b8481820058197374617469635f666f7277617264696e675f736572766963658182005820383838383838383838383838383838383838383838383838383838383838383843026e32627b7d",
        )),
        &[local("static_forwarding_service")],
        &[client],
        b"\x02n2",
        Some("{}"),
    );
    exactly(
        body_of(&hex(
            "0000004984818200582038383838383838383838383838383838383838383838383838383838383838388182004d666f72776172645f746f5f6e324e0d666f72776172645f746f5f6e32627b7d",
        )),
        &[client],
        &[local("forward_to_n2")],
        b"\x0dforward_to_n2",
        Some("{}"),
    );
    for (text, body) in
        [("register", "087265676973746572"), ("n2", "026e32"), ("forward_to_n2", "0d666f72776172645f746f5f6e32")]
    {
        let mut written = Vec::new();
        write_string(text, &mut written);
        assert_eq!((written, read_string(&hex(body))), (hex(body), Ok(text)));
    }
}

#[test]
fn i5_api_request_frame() {
    let frame = hex(
        "0000005684818200555f696e7465726e616c2e6e6f64656d616e61676572818200582061616161616161616161616161616161616161616161616161616161616161615312a4011a0102030402652f6e6f6465030004f4627b7d",
    );
    exactly(
        body_of(&frame),
        &[local("_internal.nodemanager")],
        &[AddressRef::local(REPLY_TO)],
        &hex("12a4011a0102030402652f6e6f6465030004f4"),
        Some("{}"),
    );
}

/// N.1: what a real node accepted although it does not write it so.
#[test]
fn lenient_where_real_nodes_are() {
    let minimal = hex("83818200446563686f8040");
    let expected = Message::parse(&minimal).expect("minimal");
    for (name, body) in [
        ("payload head of four bytes", "83818200446563686f805a00000000"),
        ("payload head of eight bytes", "83818200446563686f805b0000000000000000"),
        ("wide transport type", "8381821800446563686f8040"),
        ("transport type of eight bytes", "8381821b0000000000000000446563686f8040"),
        ("wide name head", "8381820058046563686f8040"),
        ("wide counts", "98039801980200446563686f980040"),
        ("indefinite message", "9f818200446563686f8040ff"),
        ("indefinite route", "839f8200446563686fff8040"),
        ("indefinite address", "83819f00446563686fff8040"),
        ("indefinite empty route", "83818200446563686f9fff40"),
        ("null tracing", "84818200446563686f8040f6"),
        ("indefinite with null tracing", "9f818200446563686f8040f6ff"),
        ("bytes behind the message", "83818200446563686f8040deadbeef"),
        ("a fifth element", "85818200446563686f8040f6a10102"),
        ("a fifth element that is not CBOR", "85818200446563686f8040f6fc"),
    ] {
        assert_eq!(Message::parse(&hex(body)), Ok(expected), "{name}");
    }
    let traced = hex("9f818200446563686f8040627b7dff");
    assert_eq!(Message::parse(&traced).map(|message| message.tracing), Ok(Some("{}")));
}

#[test]
fn each_way_to_be_malformed_has_its_name() {
    for (body, expected) in [
        ("", Malformed::Truncated),
        ("83", Malformed::Truncated),
        ("8380", Malformed::Truncated),
        ("838080", Malformed::Truncated),
        ("83808041", Malformed::Truncated),
        ("83818200446563", Malformed::Truncated),
        ("84808040", Malformed::Truncated),
        ("9f808040", Malformed::Truncated),
        ("839f", Malformed::Truncated),
        ("8380805bffffffffffffffff00", Malformed::Truncated),
        ("9b00", Malformed::Truncated),
        ("00", Malformed::NotAnArray),
        ("a3808040", Malformed::NotAnArray),
        ("c183808040", Malformed::NotAnArray),
        ("ff", Malformed::NotAnArray),
        ("80", Malformed::TooFewElements),
        ("828080", Malformed::TooFewElements),
        ("83a08040", Malformed::RouteNotAnArray),
        ("83f68040", Malformed::RouteNotAnArray),
        ("9f80ff", Malformed::RouteNotAnArray),
        ("8380a040", Malformed::RouteNotAnArray),
        ("839901008040", Malformed::RouteTooLong),
        ("839bffffffffffffffff8040", Malformed::RouteTooLong),
        ("83810080", Malformed::AddressNotAPair),
        ("838180", Malformed::AddressNotAPair),
        ("83818100", Malformed::AddressNotAPair),
        ("8381830041618040", Malformed::AddressNotAPair),
        ("83819f00416100ff8040", Malformed::AddressNotAPair),
        ("839f00ff8040", Malformed::AddressNotAPair),
        ("83818181820041618040", Malformed::AddressNotAPair),
        ("8381821901008040", Malformed::BadTransportType),
        ("838182208040", Malformed::BadTransportType),
        ("838182f64161", Malformed::BadTransportType),
        ("8381820061618040", Malformed::NameNotBytes),
        ("8380806161", Malformed::PayloadNotBytes),
        ("838080f6", Malformed::PayloadNotBytes),
        ("8480804000", Malformed::TracingNotText),
        ("848080404161", Malformed::TracingNotText),
        ("84808040f7", Malformed::TracingNotText),
        ("8480804061ff", Malformed::TracingNotText),
        ("848080407f6161ff", Malformed::IndefiniteString),
        ("8380805f4161ff", Malformed::IndefiniteString),
        ("838182005f4161ff8040", Malformed::IndefiniteString),
        ("9c", Malformed::ReservedHead),
        ("839d", Malformed::ReservedHead),
        ("8381821f4161", Malformed::ReservedHead),
        ("8380805e", Malformed::ReservedHead),
    ] {
        assert_eq!(Message::parse(&hex(body)), Err(expected), "{body}");
    }
}

#[test]
fn routes_end_at_255_addresses() {
    let address = hex("82004161");
    for (head, tail) in [("98ff", ""), ("9900ff", ""), ("9f", "ff")] {
        let body = [hex("83"), hex(head), address.repeat(255), hex(tail), hex("8040")].concat();
        let message = Message::parse(&body).expect("255 addresses");
        assert_eq!(message.onward.len(), 255);
        assert!(message.onward.iter().all(|address| address == local("a")));
        assert_eq!(message.onward.encoded(), address.repeat(255));
    }
    let body = [hex("839f"), address.repeat(256), hex("ff8040")].concat();
    assert_eq!(Message::parse(&body), Err(Malformed::RouteTooLong));
}

#[test]
fn names_are_any_bytes_and_types_any_octet() {
    let body = hex("83838218ff41808200408202463a3a3a3132338040");
    let message = Message::parse(&body).expect("three addresses");
    let expected = [
        AddressRef { kind: 255, name: &[0x80] },
        AddressRef { kind: LOCAL, name: &[] },
        AddressRef { kind: UDP, name: b":::123" },
    ];
    assert_eq!(message.onward.iter().collect::<Vec<_>>(), expected);
    assert_eq!(message.onward.to_string(), "255#\\x80 => 0# => 2#:::123");
}

#[test]
fn an_empty_route_has_nothing() {
    assert_eq!(Route::EMPTY.len(), 0);
    assert!(Route::EMPTY.is_empty());
    assert_eq!(Route::EMPTY.first(), None);
    assert_eq!(Route::EMPTY.split_first(), None);
    assert_eq!(Route::EMPTY.iter().next(), None);
    assert_eq!(Route::EMPTY.encoded(), b"");
    assert!(RouteParts::EMPTY.is_empty());
    assert_eq!(RouteParts::EMPTY.encoded_len(), 1);
}

#[test]
fn every_head_takes_its_shortest_form() {
    for (payload_len, head) in [
        (0, "40"),
        (23, "57"),
        (24, "5818"),
        (255, "58ff"),
        (256, "590100"),
        (65535, "59ffff"),
        (65536, "5a00010000"),
        (FRAME_MAX - 8, "5a00fffff8"),
    ] {
        let outgoing =
            Outgoing { onward: RouteParts::EMPTY, return_route: RouteParts::EMPTY, payload_len, tracing: None };
        let mut prefix = vec![0; outgoing.prefix_len()];
        outgoing.write_prefix(&mut prefix);
        assert_eq!(prefix[4..], [hex("838080"), hex(head)].concat(), "{payload_len}");
        assert_eq!(frame_length(prefix[..4].try_into().expect("four")), Ok(outgoing.body_len()));
    }
}

#[test]
fn a_message_may_fill_a_frame_and_no_more() {
    let outgoing = |payload_len| Outgoing {
        onward: RouteParts::EMPTY,
        return_route: RouteParts::EMPTY,
        payload_len,
        tracing: None,
    };
    let payload = vec![7; FRAME_MAX - 8];
    let frame = outgoing(payload.len()).to_frame(&payload);
    assert_eq!(outgoing(payload.len()).body_len(), FRAME_MAX);
    assert_eq!(Message::parse(body_of(&frame)).map(|message| message.payload == payload), Ok(true));

    let above = outgoing(payload.len() + 1);
    assert_eq!(above.body_len(), FRAME_MAX + 1);
    let mut prefix = vec![0; above.prefix_len()];
    assert!(std::panic::catch_unwind(move || above.write_prefix(&mut prefix)).is_err());
}

#[test]
fn a_buffer_of_another_length_is_the_callers_mistake() {
    let outgoing =
        Outgoing { onward: RouteParts::EMPTY, return_route: RouteParts::EMPTY, payload_len: 0, tracing: Some("{}") };
    for wrong in [-1, 1] {
        let mut prefix = vec![0; outgoing.prefix_len().strict_add_signed(wrong)];
        assert!(std::panic::catch_unwind(move || outgoing.write_prefix(&mut prefix)).is_err());
        let mut suffix = vec![0; outgoing.suffix_len().strict_add_signed(wrong)];
        assert!(std::panic::catch_unwind(move || outgoing.write_suffix(&mut suffix)).is_err());
    }
}

#[test]
fn frame_lengths() {
    for (head, expected) in [
        ("00000000", Err(FrameError::Empty)),
        ("00000001", Ok(1)),
        ("01000000", Ok(FRAME_MAX)),
        ("01000001", Err(FrameError::TooLarge)),
        ("ffffffff", Err(FrameError::TooLarge)),
    ] {
        assert_eq!(frame_length(hex(head).try_into().expect("four")), expected, "{head}");
    }
}

#[test]
fn the_framer_takes_the_largest_frame_byte_by_byte_at_its_ends() {
    let body = vec![9; FRAME_MAX];
    let mut framer = Framer::new();
    for byte in [1, 0, 0, 0] {
        framer.push(&[byte]);
        assert_eq!(framer.next(), Ok(None));
    }
    framer.push(&body[1..]);
    assert_eq!(framer.next(), Ok(None));
    assert_eq!(framer.buffered(), 4 + FRAME_MAX - 1);
    framer.push(&[9, 0]);
    assert_eq!(framer.next().map(|frame| frame.map(|frame| frame == body)), Ok(Some(true)));
    assert_eq!(framer.next(), Ok(None));
    assert_eq!(framer.buffered(), 1);
}

#[test]
fn k6_variable_length_integers() {
    let max = hex("ffffffffffffffffff01");
    assert_eq!(read_uleb(&max), Ok((u64::MAX, &[][..])));
    let mut written = Vec::new();
    write_uleb(u64::MAX, &mut written);
    assert_eq!(written, max);
    for bad in ["ffffffffffffffffff03", "ffffffffffffffffff02", "ffffffffffffffffffff"] {
        assert_eq!(read_uleb(&hex(bad)), Err(BareError::TooLarge), "{bad}");
    }
    // Zero padding up to ten bytes, and no further (`wire.md`, open question 6).
    assert_eq!(read_uleb(&hex("85808080808080808000ab")), Ok((5, &[0xab][..])));
    assert_eq!(read_uleb(&hex("8580808080808080808000")), Err(BareError::TooLarge));
    assert_eq!(read_uleb(&hex("8580")), Err(BareError::Truncated));
    assert_eq!(read_uleb(&[]), Err(BareError::Truncated));
    for (value, length) in [(0, 1), (127, 1), (128, 2), (16383, 2), (16384, 3), (u64::MAX >> 1, 9), (u64::MAX, 10)] {
        assert_eq!(uleb_len(value), length, "{value}");
    }
}

#[test]
fn string_bodies() {
    let mut body = Vec::new();
    write_string("hello", &mut body);
    assert_eq!(body, b"\x05hello");
    assert_eq!(read_string(&body), Ok("hello"));
    assert_eq!(read_string(b"\x85\x00hello"), Ok("hello"));
    assert_eq!(read_string(b"\x05hello, and more"), Ok("hello"));
    assert_eq!(read_string(b"\x05hell"), Err(BareError::Truncated));
    assert_eq!(read_string(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01hello"), Err(BareError::Truncated));
    assert_eq!(read_string(b""), Err(BareError::Truncated));
    assert_eq!(read_string(b"\x01\xff"), Err(BareError::NotUtf8));
}

#[test]
fn i4_multiaddrs() {
    for (text, binary) in [
        ("/ip4/127.0.0.1/tcp/4000/service/api", "047f000001060fa0bee80303617069"),
        (
            "/ip4/127.0.0.1/tcp/4000/secure/api/service/uppercase",
            "047f000001060fa0c6890603617069bee80309757070657263617365",
        ),
        // From I.5: the secure channel, inlet and relay requests.
        ("/ip4/127.0.0.1/tcp/4000/secure/api/service/outlet", "047f000001060fa0c6890603617069bee803066f75746c6574"),
        ("/ip4/127.0.0.1/tcp/4000", "047f000001060fa0"),
        // The codes no example shows.
        ("/ip6/::1/udp/1", "290000000000000000000000000000000191020001"),
        ("/dnsaddr/localhost", "38096c6f63616c686f7374"),
        ("/node/n1", "ceb604026e31"),
        ("/project/p", "de84050170"),
        ("/space/s", "eed2050173"),
        ("/worker/w", "fea0060177"),
    ] {
        let multiaddr: MultiAddr = text.parse().expect(text);
        assert_eq!(multiaddr.to_bytes(), hex(binary), "{text}");
        assert_eq!(MultiAddr::from_bytes(&hex(binary)).as_ref(), Ok(&multiaddr));
        assert_eq!(multiaddr.to_string(), text);
    }
    let two_hops: MultiAddr = "/ip4/127.0.0.1/tcp/6002/ip4/127.0.0.1/tcp/6003/service/uppercase".parse().expect("two");
    let host = Protocol::Ip4([127, 0, 0, 1].into());
    let service = Protocol::Service("uppercase".into());
    let expected = [host.clone(), Protocol::Tcp(6002), host, Protocol::Tcp(6003), service];
    assert_eq!(two_hops.protocols(), expected);
}

fn says<T: FromStr<Err: ToString> + Debug>(text: &str, expected: &str) {
    let error = text.parse::<T>().expect_err(text).to_string();
    assert_eq!(error, expected, "{text:?}");
}

#[test]
fn a_bad_multiaddr_is_told_what_would_be_right() {
    let protocols = "use ip4, ip6, dnsaddr, tcp, udp, service, worker, node, secure, project or space";
    for (text, expected) in [
        ("", "a MultiAddr cannot be empty; write one like /node/n1/service/echo"),
        ("/", "a MultiAddr cannot be empty; write one like /node/n1/service/echo"),
        ("node/n1", "\"node/n1\" does not begin with `/`; write a MultiAddr like /node/n1/service/echo"),
        ("/node/n1/", "\"/node/n1/\" has a `/` at its end or two in a row; write /protocol/value/protocol/value"),
        ("//node/n1", "\"//node/n1\" has a `/` at its end or two in a row; write /protocol/value/protocol/value"),
        ("/node//service/echo", "/node has no value; write /node/VALUE"),
        ("/node", "/node has no value; write /node/VALUE"),
        ("/nodes/n1", &format!("\"nodes\" is not a protocol; {protocols}")),
        ("/nodes", &format!("\"nodes\" is not a protocol; {protocols}")),
        ("/Node/n1", &format!("\"Node\" is not a protocol; {protocols}")),
        ("/ip4/localhost", "\"/ip4/localhost\" is not valid; it needs an IPv4 address, like /ip4/127.0.0.1"),
        ("/ip4/127.0.0.01", "\"/ip4/127.0.0.01\" is not valid; it needs an IPv4 address, like /ip4/127.0.0.1"),
        ("/ip6/127.0.0.1", "\"/ip6/127.0.0.1\" is not valid; it needs an IPv6 address, like /ip6/::1"),
        ("/tcp/65536", "\"/tcp/65536\" is not valid; it needs a port number from 0 to 65535"),
        ("/tcp/+1", "\"/tcp/+1\" is not valid; it needs a port number from 0 to 65535"),
        ("/tcp/-", "\"/tcp/-\" is not valid; it needs a port number from 0 to 65535"),
        ("/udp/01", "\"/udp/01\" is not valid; it needs a port number from 0 to 65535"),
        ("/tcp/\u{1b}[31m", "\"/tcp/\\u{1b}[31m\" is not valid; it needs a port number from 0 to 65535"),
    ] {
        says::<MultiAddr>(text, expected);
    }
    says::<MultiAddr>(
        &format!("/service/{}", "x".repeat(4088)),
        "a MultiAddr of 4097 bytes is too long; the limit is 4096",
    );
    assert!(format!("/service/{}", "x".repeat(4087)).parse::<MultiAddr>().is_ok());
}

#[test]
fn a_bad_binary_multiaddr_is_refused() {
    for (binary, expected) in [
        ("", "a MultiAddr cannot be empty; write one like /node/n1/service/echo"),
        ("05", "a binary MultiAddr has the unknown protocol code 5"),
        ("80", "a binary MultiAddr is broken: the bytes end inside a value"),
        ("047f0000", "a binary MultiAddr is broken: the bytes end inside a value"),
        ("0601", "a binary MultiAddr is broken: the bytes end inside a value"),
        ("bee8030461", "a binary MultiAddr is broken: the bytes end inside a value"),
        ("bee803ffffffffffffffffff0161", "a binary MultiAddr is broken: the bytes end inside a value"),
        ("bee803ffffffffffffffffff0261", "a binary MultiAddr is broken: an integer does not fit 64 bits"),
        ("bee80301ff", "a binary MultiAddr is broken: a text is not UTF-8"),
        ("bee80300", "/service has no value; write /service/VALUE"),
        ("bee80303612f62", "\"/service/a/b\" is not valid; it needs a name without `/`"),
    ] {
        assert_eq!(MultiAddr::from_bytes(&hex(binary)).map_err(|error| error.to_string()), Err(expected.into()));
    }
}

#[test]
fn a_multiaddr_whose_text_would_be_too_long_is_refused_in_binary_too() {
    // 17 bytes in binary, 44 in text.
    let host = Protocol::Ip6("1111:2222:3333:4444:5555:6666:7777:8888".parse().expect("IPv6"));
    assert_eq!(host.to_string().len(), 44);
    let fits = MultiAddr::try_from(vec![host.clone(); 93]).expect("4092 bytes of text");
    assert_eq!(MultiAddr::from_bytes(&fits.to_bytes()), Ok(fits.clone()));
    let above = [fits.to_bytes(), fits.to_bytes()[..17].to_vec()].concat();
    assert!(above.len() < 4096);
    let error = MultiAddr::from_bytes(&above).map_err(|error| error.to_string());
    assert_eq!(error, Err("a MultiAddr of 4136 bytes is too long; the limit is 4096".into()));
}

#[test]
fn a4_address_text() {
    for (text, kind, name) in [
        ("echo", LOCAL, &b"echo"[..]),
        ("0#echo", LOCAL, b"echo"),
        ("1#127.0.0.1:4000", TCP, b"127.0.0.1:4000"),
        ("255#", 255, b""),
        ("0#a\\x00\\x23\\x5c\\xFF", LOCAL, b"a\0#\\\xff"),
    ] {
        assert_eq!(text.parse(), Ok(Address { kind, name: name.to_vec() }), "{text}");
    }
    assert_eq!(Address::local("a\0#\\\n\"'é\u{202e}").to_string(), "0#a\\x00\\x23\\x5c\\x0a\"'é\\xe2\\x80\\xae");
    assert_eq!("".parse::<Address>(), Err(AddressError::Empty));
    says::<Address>(
        "a#b#c",
        "\"a#b#c\" has more than one `#`; write one between type and name, and `\\x23` for a `#` in a name",
    );
    for kind in ["", "256", "+1", "-1", "a", " 1"] {
        let error = format!("{kind}#b").parse::<Address>();
        assert_eq!(error, Err(AddressError::BadTransportType(kind.into())));
    }
    for name in ["\\", "\\x", "\\x1", "\\xzz", "\\n", "\\x+1"] {
        assert_eq!(name.parse::<Address>(), Err(AddressError::BadEscape(name.into())));
    }
}
