//! What holds for every input, tried on generated ones. The oracles are shared with the fuzz targets.

mod oracle;

use ockam_wire::bare::{BareError, read_string, read_uleb, uleb_len, write_string, write_uleb};
use ockam_wire::undeliverable::{Notice, Offer, TEXT_LEN};
use ockam_wire::{Address, AddressRef, Malformed, Message, MultiAddr, Outgoing, Protocol, RouteParts};
use oracle::SlowMessage;
use proptest::collection::vec;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};

fn address() -> impl Strategy<Value = Address> {
    let name = prop_oneof![
        "[a-z_]{1,12}".prop_map(String::into_bytes),
        "[0-9a-f]{32}".prop_map(String::into_bytes),
        vec(any::<u8>(), 0..300),
        any::<String>().prop_map(String::into_bytes),
    ];
    (prop_oneof![4 => Just(0), 1 => any::<u8>()], name).prop_map(|(kind, name)| Address { kind, name })
}

fn message() -> impl Strategy<Value = SlowMessage> {
    let route = || vec(address(), 0..12);
    let tracing = prop_oneof![
        Just(None),
        Just(Some("{}".to_string())),
        any::<[u8; 16]>().prop_map(|token| Some(Offer { token }.text())),
        any::<Option<String>>(),
    ];
    (route(), route(), vec(any::<u8>(), 0..700), tracing)
        .prop_map(|(onward, return_route, payload, tracing)| SlowMessage { onward, return_route, payload, tracing })
}

fn borrowed(route: &[Address]) -> Vec<AddressRef<'_>> {
    route.iter().map(Address::as_ref).collect()
}

fn frame(message: &SlowMessage) -> Vec<u8> {
    let (onward, return_route) = (borrowed(&message.onward), borrowed(&message.return_route));
    let outgoing = Outgoing {
        onward: RouteParts::new(&onward),
        return_route: RouteParts::new(&return_route),
        payload_len: message.payload.len(),
        tracing: message.tracing.as_deref(),
    };
    outgoing.to_frame(&message.payload)
}

/// Writes the same message in any of the forms that a reader must accept; `choices` says which, and ends in the minimal.
struct Loose {
    choices: std::vec::IntoIter<u8>,
    out: Vec<u8>,
}

impl Loose {
    fn choice(&mut self) -> u8 {
        self.choices.next().unwrap_or(0)
    }

    fn head(&mut self, major: u8, number: u64) {
        let smallest = match number {
            0..24 => 0,
            24..0x100 => 1,
            0x100..0x1_0000 => 2,
            _ => 3,
        };
        let width = smallest.max(usize::from(self.choice() % 5));
        if width == 0 {
            self.out.push(major << 5 | number as u8);
        } else {
            self.out.push(major << 5 | (23 + width) as u8);
            self.out.extend_from_slice(&number.to_be_bytes()[8 - (1 << (width - 1))..]);
        }
    }

    fn array(&mut self, count: usize, elements: impl FnOnce(&mut Self)) {
        let indefinite = self.choice() % 2 == 1;
        if indefinite {
            self.out.push(0x9f);
        } else {
            self.head(4, count as u64);
        }
        elements(self);
        if indefinite {
            self.out.push(0xff);
        }
    }

    fn string(&mut self, major: u8, string: &[u8]) {
        self.head(major, string.len() as u64);
        self.out.extend_from_slice(string);
    }

    fn route(&mut self, route: &[Address]) {
        self.array(route.len(), |out| {
            for address in route {
                out.array(2, |out| {
                    out.head(0, address.kind.into());
                    out.string(2, &address.name);
                });
            }
        });
    }

    fn message(&mut self, message: &SlowMessage) {
        let extra = self.choice() % 3;
        // A further element can only stand behind a tracing field.
        let elements = if extra > 0 || message.tracing.is_some() || self.choice() % 2 == 1 { 4 } else { 3 };
        self.array(elements + usize::from(extra), |out| {
            out.route(&message.onward);
            out.route(&message.return_route);
            out.string(2, &message.payload);
            match &message.tracing {
                Some(text) => out.string(3, text.as_bytes()),
                None if elements == 4 => out.out.push(0xf6),
                None => {}
            }
            (0..extra).for_each(|_| out.out.extend_from_slice(&[0xa1, 1, 2]));
        });
        for _ in 0..self.choice() % 4 {
            let byte = self.choice();
            self.out.push(byte);
        }
    }
}

fn loose(message: &SlowMessage, choices: Vec<u8>) -> Vec<u8> {
    let mut out = Loose { choices: choices.into_iter(), out: Vec::new() };
    out.message(message);
    out.out
}

fn protocol() -> impl Strategy<Value = Protocol> {
    let text = || prop_oneof!["[a-z0-9_.-]{1,20}", "[^/]{1,20}", Just("..".into()), Just("%2f\0".into())];
    prop_oneof![
        any::<[u8; 4]>().prop_map(|octets| Protocol::Ip4(Ipv4Addr::from(octets))),
        any::<[u8; 16]>().prop_map(|octets| Protocol::Ip6(Ipv6Addr::from(octets))),
        any::<u32>().prop_map(|v4| Protocol::Ip6(Ipv4Addr::from(v4).to_ipv6_mapped())),
        any::<u16>().prop_map(Protocol::Tcp),
        any::<u16>().prop_map(Protocol::Udp),
        text().prop_map(Protocol::Dnsaddr),
        text().prop_map(Protocol::Service),
        text().prop_map(Protocol::Worker),
        text().prop_map(Protocol::Node),
        text().prop_map(Protocol::Secure),
        text().prop_map(Protocol::Project),
        text().prop_map(Protocol::Space),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_written_is_read(message in message()) {
        let frame = frame(&message);
        let read = Message::parse(&frame[4..]).map(|message| SlowMessage::from(&message));
        prop_assert_eq!(read, Ok(message));
        oracle::route_message(&frame[4..]);
    }

    #[test]
    fn every_accepted_form_means_the_same(message in message(), choices in vec(any::<u8>(), 0..120)) {
        let minimal = frame(&message);
        let loose = loose(&message, choices);
        prop_assert_eq!(Message::parse(&loose), Message::parse(&minimal[4..]));
        oracle::route_message(&loose);
    }

    #[test]
    fn a_message_cut_anywhere_is_truncated(message in message(), at in any::<prop::sample::Index>()) {
        let frame = frame(&message);
        let body = &frame[4..];
        prop_assert_eq!(Message::parse(&body[..at.index(body.len())]), Err(Malformed::Truncated));
    }

    #[test]
    fn a_received_route_is_written_verbatim(
        message in message(),
        choices in vec(any::<u8>(), 0..120),
        front in vec(address(), 0..4),
    ) {
        let received = loose(&message, choices);
        let received = Message::parse(&received).expect("an accepted form");
        let front = borrowed(&front);
        let parts = RouteParts { front: &front, rest: received.onward };
        let outgoing =
            Outgoing { onward: parts, return_route: RouteParts::EMPTY, payload_len: 0, tracing: None };
        let frame = outgoing.to_frame(&[]);
        let written = Message::parse(&frame[4..]).expect("what is written can be read").onward;
        prop_assert_eq!(written.len(), parts.len());
        prop_assert!(written.iter().eq(parts.iter()));
        prop_assert!(written.encoded().ends_with(received.onward.encoded()));
        prop_assert_eq!(frame.len(), 4 + 1 + parts.encoded_len() + 1 + 1);
    }

    #[test]
    fn any_bytes_are_read_as_the_model_reads_them(bytes in vec(any::<u8>(), 0..200)) {
        oracle::route_message(&bytes);
        oracle::multiaddr(&bytes);
        oracle::portal_message(&bytes);
    }

    /// Of every kind, with lengths that are often almost right.
    #[test]
    fn messages_of_portals_are_read_as_the_model_reads_them(
        kind in 0..7_u8,
        front in prop_oneof![Just(Vec::new()), Just(b"flow\x01".to_vec()), vec(any::<u8>(), 1..3)],
        length in 0..20_u64,
        padding in 0..12_usize,
        rest in vec(any::<u8>(), 0..24),
    ) {
        oracle::portal_message(&[&[kind], &front[..], &rest].concat());
        let mut padded = Vec::new();
        write_uleb(length, &mut padded);
        if let Some((last, zeros)) = padding.checked_sub(1).map(|zeros| (padded.len() - 1, zeros)) {
            padded[last] |= 0x80;
            padded.extend(std::iter::repeat_n(0x80, zeros));
            padded.push(0);
        }
        oracle::portal_message(&[&[3], &padded[..], &rest].concat());
    }

    /// Bytes that get past the first head more often than any bytes do.
    #[test]
    fn damaged_messages_are_read_as_the_model_reads_them(
        message in message(),
        choices in vec(any::<u8>(), 0..60),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = loose(&message, choices);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        oracle::route_message(&bytes);
    }

    #[test]
    fn a_stream_may_be_cut_anywhere(
        messages in vec(message(), 0..4),
        tail in vec(any::<u8>(), 0..12),
        cuts in vec(any::<u8>(), 0..32),
    ) {
        let mut input = vec![cuts.len() as u8];
        input.extend_from_slice(&cuts);
        messages.iter().for_each(|message| input.extend(frame(message)));
        input.extend_from_slice(&tail);
        oracle::frame_stream(&input);
    }

    #[test]
    fn addresses_print_without_loss(address in address()) {
        let text = address.to_string();
        prop_assert!(!text.chars().any(char::is_control));
        prop_assert_eq!(text.parse(), Ok(address));
    }

    #[test]
    fn multiaddrs_round_trip(parts in vec(protocol(), 1..12)) {
        let multiaddr = MultiAddr::try_from(parts.clone()).expect("valid parts");
        prop_assert_eq!(multiaddr.protocols(), parts);
        oracle::multiaddr_round_trips(&multiaddr);
        oracle::multiaddr(multiaddr.to_string().as_bytes());
        oracle::multiaddr(&multiaddr.to_bytes());
    }

    #[test]
    fn any_text_is_a_multiaddr_or_not_as_the_model_says(text in "(/(ip4|ip6|tcp|udp|node|service|x|)/[0-9a-f:.+/-]{0,9}){0,4}/?") {
        oracle::multiaddr(text.as_bytes());
    }

    #[test]
    fn integers_round_trip(value in prop_oneof![any::<u64>(), (0..64_u32).prop_map(|bit| 1 << bit)], rest in vec(any::<u8>(), 0..4)) {
        let mut bytes = Vec::new();
        write_uleb(value, &mut bytes);
        prop_assert_eq!(bytes.len(), uleb_len(value));
        bytes.extend_from_slice(&rest);
        prop_assert_eq!(read_uleb(&bytes), Ok((value, &rest[..])));
        prop_assert_eq!(read_uleb(&bytes[..uleb_len(value) - 1]), Err(BareError::Truncated));
    }

    #[test]
    fn strings_round_trip(text: String) {
        let mut body = Vec::new();
        write_string(&text, &mut body);
        prop_assert_eq!(read_string(&body), Ok(text.as_str()));
    }

    #[test]
    fn notices_round_trip(token: [u8; 16], reason in 0..100_u8, left in 1..=255_u8) {
        let notice = Notice { token, reason, left };
        prop_assert_eq!(Notice::parse(&notice.text()), Some(notice));
        prop_assert_eq!(Offer::parse(&notice.text()), None);
        let offer = Offer { token };
        prop_assert_eq!(Offer::parse(&offer.text()), Some(offer));
        prop_assert_eq!(Notice::parse(&offer.text()), None);
        prop_assert_eq!((offer.text().len(), notice.write().len()), (TEXT_LEN, TEXT_LEN));
    }

    #[test]
    fn a_damaged_notice_is_none_or_another(
        token: [u8; 16],
        at in any::<prop::sample::Index>(),
        byte in 0..128_u8,
    ) {
        let mut text = Notice { token, reason: 7, left: 2 }.write();
        text[at.index(TEXT_LEN)] = byte;
        let text = std::str::from_utf8(&text).expect("ASCII");
        if let Some(notice) = Notice::parse(text) {
            prop_assert_eq!(notice.text(), text);
        }
    }
}
