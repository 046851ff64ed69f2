//! Published and captured texts, byte for byte, both ways.

use super::*;
use ockam_wire::{AddressRef, LOCAL, RouteParts};
use proptest::prelude::*;

fn unhex(text: &str) -> Vec<u8> {
    base16ct::lower::decode_vec(text).unwrap()
}

fn local(name: &str) -> AddressRef<'_> {
    AddressRef { kind: LOCAL, name: name.as_bytes() }
}

type Published = (&'static [&'static str], &'static [&'static str], &'static str, &'static str);

/// Onward, return, payload and text: `wire.md` E.9 (d), then N.2, captured from a real node, then F.8.
const PUBLISHED: [Published; 7] = [
    (
        &["uppercase"],
        &["55555555555555555555555555555555"],
        "0568656c6c6f",
        "82820081838182004975707065726361736581820058203535353535353535353535353535353535353535353535353535353535353535460568656c6c6f40",
    ),
    (
        &["55555555555555555555555555555555"],
        &["uppercase"],
        "0548454c4c4f",
        "82820081838182005820353535353535353535353535353535353535353535353535353535353535353581820049757070657263617365460548454c4c4f40",
    ),
    (
        &["outlet"],
        &["82ac56457449c905eb8105b8ae83984b"],
        "00",
        "8282008183818200466f75746c657481820058203832616335363435373434396339303565623831303562386165383339383462410040",
    ),
    (
        &["345262eb65e6e0e063951b533c85b68d"],
        &["82ac56457449c905eb8105b8ae83984b"],
        "030c68656c6c6f20706f7274616c",
        "828200818381820058203334353236326562363565366530653036333935316235333363383562363864818200582038326163353634353734343963393035656238313035623861653833393834624e030c68656c6c6f20706f7274616c40",
    ),
    (
        &["echo"],
        &["832a8f67311aa18ac643dba9efa1e55c"],
        "1b0f247aa785f91bab",
        "8282008183818200446563686f81820058203833326138663637333131616131386163363433646261396566613165353563491b0f247aa785f91bab40",
    ),
    (
        &["outlet"],
        &["77777777777777777777777777777777"],
        "00",
        "8282008183818200466f75746c657481820058203737373737373737373737373737373737373737373737373737373737373737410040",
    ),
    (
        &["66666666666666666666666666666666"],
        &["77777777777777777777777777777777"],
        "030568656c6c6f",
        "8282008183818200582036363636363636363636363636363636363636363636363636363636363636368182005820373737373737373737373737373737373737373737373737373737373737373747030568656c6c6f40",
    ),
];

#[test]
fn published() {
    for (onward, return_route, payload, text) in PUBLISHED {
        let (onward, return_route): (Vec<_>, Vec<_>) =
            (onward.iter().map(|name| local(name)).collect(), return_route.iter().map(|name| local(name)).collect());
        let (payload, text) = (unhex(payload), unhex(text));
        let outgoing = OutgoingPlaintext::new(Outgoing {
            onward: RouteParts::new(&onward),
            return_route: RouteParts::new(&return_route),
            payload_len: payload.len(),
            tracing: None,
        });
        assert_eq!(outgoing.to_text(&payload), text);
        let Ok(Plaintext::Payload(message)) = Plaintext::parse(&text) else { panic!("{text:02x?}") };
        assert!(message.onward.iter().eq(onward) && message.return_route.iter().eq(return_route));
        assert_eq!((message.payload, message.tracing), (&payload[..], None));
    }
}

/// `wire.md` E.9 (c) and (d): the frames around a handshake's first message and around a record.
#[test]
fn published_frames() {
    use crate::{Opener, Secret};
    let first = unhex(
        "000000528481820043617069818200582031313131313131313131313131313131313131313131313131313131313131315820358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254627b7d",
    );
    let message = Message::parse(&first[4..]).unwrap();
    assert_eq!(message.payload, unhex("358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254"));
    assert_eq!((message.onward.first(), message.onward.len()), (Some(local("api")), 1));

    let record = unhex(
        "0000008384818200582032323232323232323232323232323232323232323232323232323232323232328058570000000000000000730a7fb64a78d6704df6f121ce790238bdf3809af2f3e3dc5a840efceba11a60a0d7dd988ddd83a6f48915ef7fca2b870c7487904aeebe1b1b1c7d373f87d10c143235ffd10ab14d05f55f3df396e5627b7d",
    );
    let mut message = Message::parse(&record[4..]).unwrap().payload.to_vec();
    let k2 = unhex("831124fa3e1606b97f5cda4d81c3aa04c7c0151666f05f49a09cd0faf63a05d8");
    let mut opener = Opener::new(Secret::new(k2.try_into().unwrap()));
    assert_eq!(*opener.open_in_place(&mut message).unwrap().text, unhex(PUBLISHED[0].3));
}

#[test]
fn the_other_messages() {
    assert_eq!(Plaintext::parse(&CLOSE), Ok(Plaintext::Close));
    // `wire.md` K.3.
    #[cfg(feature = "identity")]
    assert_eq!(Plaintext::parse(&unhex(crate::vectors::K3_REFRESH)), Ok(Plaintext::RefreshCredentials));
    for (text, error) in [
        ("", MalformedPlaintext::WrongForm),
        ("818202", MalformedPlaintext::WrongForm),
        ("81820280", MalformedPlaintext::WrongForm),
        ("8281028040", MalformedPlaintext::WrongForm),
        ("828302804040", MalformedPlaintext::WrongForm),
        ("829f0280ff40", MalformedPlaintext::WrongForm),
        ("8282008040", MalformedPlaintext::WrongForm),
        ("8282018040", MalformedPlaintext::WrongForm),
        ("8282038040", MalformedPlaintext::UnknownMessage),
        ("82821b01000000000000028040", MalformedPlaintext::UnknownMessage),
        ("82821f8040", MalformedPlaintext::WrongForm),
        ("8282008140", MalformedPlaintext::Message(Malformed::NotAnArray)),
        ("a2820280", MalformedPlaintext::WrongForm),
    ] {
        assert_eq!(Plaintext::parse(&unhex(text)), Err(error), "{text}");
    }
}

/// `wire.md` 0.1, N.1: longer heads, indefinite arrays, padding, elements behind.
#[test]
fn lenient_encodings() {
    let text = unhex(PUBLISHED[0].3);
    let expected = Plaintext::parse(&text).unwrap();
    let inner = &text[4..text.len() - 1];
    for lenient in [
        [&[0x82, 0x82, 0x00, 0x81], inner, &[0x43, 1, 2, 3]].concat(),
        [&[0x9f, 0x82, 0x18, 0x00, 0x9f], inner, &[0xff, 0x40, 0xff]].concat(),
        [&[0x98, 0x02, 0x98, 0x02, 0x19, 0x00, 0x00, 0x9a, 0, 0, 0, 1], inner, &[0x40]].concat(),
        [&[0x83, 0x82, 0x00, 0x82], inner, &[0xf6, 0x40, 0xf6]].concat(),
        [&[0x82, 0x82, 0x00, 0x81, 0x9f], &inner[1..], &[0xff, 0x40]].concat(),
    ] {
        assert_eq!(Plaintext::parse(&lenient), Ok(expected), "{lenient:02x?}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        onward in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 0..6),
        return_route in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 0..6),
        payload in prop::collection::vec(any::<u8>(), 0..400),
        tracing in prop::option::of(".{0,40}"),
    ) {
        fn refs(route: &[(u8, Vec<u8>)]) -> Vec<AddressRef<'_>> {
            route.iter().map(|(kind, name)| AddressRef { kind: *kind, name }).collect()
        }
        let (onward, return_route) = (refs(&onward), refs(&return_route));
        let outgoing = OutgoingPlaintext::new(Outgoing {
            onward: RouteParts::new(&onward),
            return_route: RouteParts::new(&return_route),
            payload_len: payload.len(),
            tracing: tracing.as_deref(),
        });
        let text = outgoing.to_text(&payload);
        prop_assert_eq!(text.len(), outgoing.text_len());
        let Ok(Plaintext::Payload(message)) = Plaintext::parse(&text) else { return Err(TestCaseError::fail("lost")) };
        prop_assert!(message.onward.iter().eq(onward.iter().copied()) && message.return_route.iter().eq(return_route.iter().copied()));
        prop_assert_eq!((message.payload, message.tracing), (&payload[..], tracing.as_deref()));
        // Cut anywhere before the payload's end, it is no message.
        for length in 0..outgoing.prefix_len() + payload.len() {
            prop_assert!(Plaintext::parse(&text[..length]).is_err());
        }
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = Plaintext::parse(&bytes);
        let _ = Plaintext::parse(&[&PAYLOAD_HEAD, &bytes[..]].concat());
    }
}
