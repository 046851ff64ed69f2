//! The exact texts of `docs/wire-extensions.md`, Undeliverable.

use ockam_wire::undeliverable::{Notice, Offer, TEXT_LEN};
use ockam_wire::{AddressRef, Message, Outgoing, RouteParts};

const TOKEN: [u8; 16] = *b"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff";
const OFFER: &str = r#"{"undeliverable":"00112233445566778899aabbccddeeff 00 000"}"#;
const NOTICE: &str = r#"{"undeliverable":"00112233445566778899aabbccddeeff 07 002"}"#;
const UNSAID: &str = r#"{"undeliverable":"00112233445566778899aabbccddeeff 00 255"}"#;

#[test]
fn texts() {
    assert_eq!((OFFER.len(), NOTICE.len(), TEXT_LEN), (59, 59, 59));
    assert_eq!(Offer { token: TOKEN }.text(), OFFER);
    assert_eq!(Offer::parse(OFFER), Some(Offer { token: TOKEN }));
    let notice = Notice { token: TOKEN, reason: 7, left: 2 };
    assert_eq!(notice.write(), *NOTICE.as_bytes());
    assert_eq!(notice.text(), NOTICE);
    assert_eq!(Notice::parse(NOTICE), Some(notice));
}

#[test]
fn an_offer_is_not_a_notice_even_with_the_same_reason() {
    assert_eq!(Notice::parse(OFFER), None);
    assert_eq!(Offer::parse(NOTICE), None);
    assert_eq!(Offer::parse(UNSAID), None);
    assert_eq!(Notice::parse(UNSAID), Some(Notice { token: TOKEN, reason: 0, left: 255 }));
    // Fields that no notice has still do not make an offer.
    assert_eq!(Notice { token: TOKEN, reason: 123, left: 0 }.text(), UNSAID.replace("255", "001"));
}

#[test]
fn other_texts_are_neither() {
    for text in [
        "",
        "{}",
        r#"{"traceparent":"00-00112233445566778899aabbccddeeff-0011223344556677-01","tracestate":""}"#,
        r#"{"undeliverable":"00112233445566778899AABBCCDDEEFF 07 002"}"#,
        r#"{"undeliverable":"00112233445566778899aabbccddeefg 07 002"}"#,
        r#"{"undeliverable":"00112233445566778899aabbccddeeff 07 256"}"#,
        r#"{"undeliverable":"00112233445566778899aabbccddeeff 07 999"}"#,
        r#"{"undeliverable":"00112233445566778899aabbccddeeff 07  02"}"#,
        r#"{"undeliverable":"00112233445566778899aabbccddeeff +7 002"}"#,
        r#"{"undeliverable":"00112233445566778899aabbccddeeff_07 002"}"#,
        r#"{"undeliverable":"00112233445566778899aabbccddeeff 07_002"}"#,
        r#"{"undeliverable":"00112233445566778899aabbccddeeff 07 0020}"#,
        r#"{"undeliverablE":"00112233445566778899aabbccddeeff 07 002"}"#,
        r#"{ "undeliverable":"00112233445566778899aabbccddeeff 07 002"}"#,
        r#" {"undeliverable":"00112233445566778899aabbccddeeff 07 002"}"#,
        r#"{"undeliverable":"00112233445566778899aabbccddeeff 07 002"} "#,
    ] {
        assert_eq!((Offer::parse(text), Notice::parse(text)), (None, None), "{text}");
    }
}

#[test]
fn a_notice_is_never_longer_than_its_request() {
    let to = [AddressRef::local(b"e")];
    let reply_to = [AddressRef::local(&[b'a'; 32])];
    let request = Outgoing {
        onward: RouteParts::new(&to),
        return_route: RouteParts::new(&reply_to),
        payload_len: 0,
        tracing: Some(OFFER),
    };
    let frame = request.to_frame(&[]);
    let received = Message::parse(&frame[4..]).expect("a request");
    let notice = Outgoing {
        onward: received.return_route.into(),
        return_route: RouteParts::EMPTY,
        payload_len: 0,
        tracing: Some(NOTICE),
    };
    assert!(notice.frame_len() < frame.len());
}
