//! What must hold for any input, each with a slow model beside the real code. Property tests (`properties.rs`), kept cases
//! (`fuzz_cases.rs`) and the fuzz targets (`tests/fuzz`) run the same functions on inputs of their own making.

// Each fuzz target is a program of its own that uses one of these.
#![allow(dead_code)]

use ockam_wire::portal::{PAYLOAD_HEAD_MAX, PortalMessage, payload_head};
use ockam_wire::undeliverable::{Notice, Offer};
use ockam_wire::{
    Address, AddressRef, FRAME_MAX, FrameError, Framer, MULTIADDR_MAX, Message, MultiAddr, Outgoing, Protocol, Route,
    RouteParts, frame_length,
};
use std::collections::VecDeque;

/// A stream of frames split anywhere. The first byte says how many cuts, the next bytes how long the chunks between them.
pub fn frame_stream(input: &[u8]) {
    let Some((cuts, rest)) = input.split_first() else { return };
    let (cuts, stream) = rest.split_at(rest.len().min(usize::from(*cuts % 32)));
    let (expected_bodies, expected_error) = frames_at_once(stream);

    let mut framer = Framer::new();
    let mut bodies: Vec<Vec<u8>> = Vec::new();
    let mut error = None;
    let mut pushed = 0;
    for chunk in chunks(stream, cuts) {
        framer.push(chunk);
        pushed += chunk.len();
        while error.is_none() {
            match framer.next() {
                Ok(Some(body)) => bodies.push(body.to_vec()),
                Ok(None) => break,
                Err(first) => error = Some(first),
            }
        }
        let given: usize = bodies.iter().map(|body| 4 + body.len()).sum();
        let held = if error.is_none() { pushed - given } else { 0 };
        assert_eq!(framer.buffered(), held, "everything received is given out, held, or gone with the error");
        assert!(held < 4 + FRAME_MAX, "more held than one unfinished frame");
    }
    assert_eq!((&bodies, error), (&expected_bodies, expected_error));
    if let Some(error) = error {
        assert_eq!(framer.next(), Err(error), "an error stays");
    }
    for body in &bodies {
        route_message(body);
    }
}

fn chunks<'a>(mut stream: &'a [u8], lengths: &[u8]) -> Vec<&'a [u8]> {
    let mut chunks = Vec::new();
    for length in lengths {
        let (chunk, rest) = stream.split_at(stream.len().min(usize::from(*length)));
        chunks.push(chunk);
        stream = rest;
    }
    chunks.push(stream);
    chunks
}

/// The model of the framer: the whole stream at once.
fn frames_at_once(mut stream: &[u8]) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let mut bodies = Vec::new();
    while let [a, b, c, d, rest @ ..] = stream {
        let length = match frame_length([*a, *b, *c, *d]) {
            Ok(length) => length,
            Err(error) => return (bodies, Some(error)),
        };
        let Some(body) = rest.get(..length) else { break };
        bodies.push(body.to_vec());
        stream = &rest[length..];
    }
    (bodies, None)
}

/// Any bytes as the body of a frame; then, if they are a message, one step of forwarding it.
pub fn route_message(body: &[u8]) {
    let parsed = Message::parse(body);
    let model = SlowMessage::parse(body);
    let Some(model) = model else {
        assert!(parsed.is_err(), "accepted what the model refuses: {parsed:?}");
        return;
    };
    let message = parsed.expect("the model accepts it");
    assert_eq!(SlowMessage::from(&message), model);
    inside(body, message.payload);
    inside(body, message.onward.encoded());
    inside(body, message.return_route.encoded());
    message.tracing.iter().for_each(|text| inside(body, text.as_bytes()));

    for route in [message.onward, message.return_route] {
        assert!(route.len() <= 255);
        assert_eq!(route.iter().count(), route.len());
        assert_eq!(route.first(), route.iter().next());
        route.iter().for_each(|address| address_text(address));
    }
    if let Some(text) = message.tracing {
        undeliverable_text(text);
    }
    forward(&message, &model);
}

fn inside(body: &[u8], part: &[u8]) {
    let (body, part) = (body.as_ptr_range(), part.as_ptr_range());
    let empty = part.start == part.end;
    assert!(empty || (body.start <= part.start && part.end <= body.end), "read outside of the frame");
}

fn address_text(address: AddressRef) {
    let text = address.to_string();
    assert!(!text.chars().any(char::is_control), "{text:?} is not fit for a terminal");
    assert_eq!(text.parse::<Address>(), Ok(address.to_address()));
}

fn undeliverable_text(text: &str) {
    let (offer, notice) = (Offer::parse(text), Notice::parse(text));
    assert!(offer.is_none() || notice.is_none(), "one text is both offer and notice");
    offer.iter().for_each(|offer| assert_eq!(offer.text(), text));
    notice.iter().for_each(|notice| assert_eq!(notice.text(), text));
}

/// A node pops the first onward address and pushes the link that the message came in on.
fn forward(message: &Message, model: &SlowMessage) {
    let Some((_, onward)) = message.onward.split_first() else { return };
    let ingress = [AddressRef::local(b"ingress")];
    let outgoing = Outgoing {
        onward: onward.into(),
        return_route: RouteParts { front: &ingress, rest: message.return_route },
        payload_len: message.payload.len(),
        tracing: message.tracing,
    };
    let frame = outgoing.to_frame(message.payload);
    assert_eq!(frame.len(), outgoing.frame_len());
    let (head, body) = frame.split_first_chunk().expect("a frame has a length");
    assert_eq!(frame_length(*head), Ok(body.len()));
    assert_eq!(outgoing.body_len(), body.len());

    let mut expected = model.clone();
    expected.onward.remove(0);
    expected.return_route.insert(0, Address::local("ingress"));
    if expected.return_route.len() > 255 {
        assert!(Message::parse(body).is_err());
        return;
    }
    let forwarded = Message::parse(body).expect("what is written can be read");
    assert_eq!(SlowMessage::from(&forwarded), expected);
    assert_eq!(forwarded.onward.encoded(), onward.encoded(), "the rest of the route is verbatim");
    assert!(forwarded.return_route.encoded().ends_with(message.return_route.encoded()));
}

/// The model of the message: owns everything, reads byte by byte.
#[derive(Clone, Debug, PartialEq)]
pub struct SlowMessage {
    pub onward: Vec<Address>,
    pub return_route: Vec<Address>,
    pub payload: Vec<u8>,
    pub tracing: Option<String>,
}

impl From<&Message<'_>> for SlowMessage {
    fn from(message: &Message) -> Self {
        let owned = |route: Route| route.iter().map(AddressRef::to_address).collect();
        SlowMessage {
            onward: owned(message.onward),
            return_route: owned(message.return_route),
            payload: message.payload.to_vec(),
            tracing: message.tracing.map(String::from),
        }
    }
}

type Input = VecDeque<u8>;

impl SlowMessage {
    /// `None` when a node must close the connection (`wire.md` A.6).
    pub fn parse(body: &[u8]) -> Option<Self> {
        let mut input: Input = body.iter().copied().collect();
        let (4, count) = slow_head(&mut input)? else { return None };
        if count.is_some_and(|count| count < 3) {
            return None;
        }
        let onward = slow_route(&mut input)?;
        let return_route = slow_route(&mut input)?;
        let payload = slow_string(&mut input, 2)?;
        let ends = match count {
            Some(count) => count == 3,
            None => *input.front()? == 0xff,
        };
        let tracing = if ends || *input.front()? == 0xf6 {
            None
        } else {
            Some(String::from_utf8(slow_string(&mut input, 3)?).ok()?)
        };
        Some(SlowMessage { onward, return_route, payload, tracing })
    }
}

/// Major type, and the number unless it is indefinite.
fn slow_head(input: &mut Input) -> Option<(u8, Option<u64>)> {
    let first = input.pop_front()?;
    let number = match first % 32 {
        31 => return Some((first / 32, None)),
        28..=30 => return None,
        small @ 0..24 => u64::from(small),
        wide => {
            let mut number = 0;
            for _ in 0..1 << (wide - 24) {
                number = number * 256 + u64::from(input.pop_front()?);
            }
            number
        }
    };
    Some((first / 32, Some(number)))
}

fn slow_string(input: &mut Input, major: u8) -> Option<Vec<u8>> {
    let (found, Some(length)) = slow_head(input)? else { return None };
    if found != major {
        return None;
    }
    let mut string = Vec::new();
    for _ in 0..length {
        string.push(input.pop_front()?);
    }
    Some(string)
}

fn slow_route(input: &mut Input) -> Option<Vec<Address>> {
    let (4, count) = slow_head(input)? else { return None };
    if count.is_some_and(|count| count > 255) {
        return None;
    }
    let mut route = Vec::new();
    loop {
        if count == Some(route.len() as u64) {
            return Some(route);
        }
        if count.is_none() && *input.front()? == 0xff {
            input.pop_front();
            return Some(route);
        }
        if route.len() == 255 {
            return None;
        }
        let (4, pair) = slow_head(input)? else { return None };
        if pair.is_some_and(|count| count != 2) {
            return None;
        }
        let (0, Some(kind)) = slow_head(input)? else { return None };
        let kind = u8::try_from(kind).ok()?;
        let name = slow_string(input, 2)?;
        if pair.is_none() && input.pop_front()? != 0xff {
            return None;
        }
        route.push(Address { kind, name });
    }
}

/// Any bytes as a message of a portal; if they are one, it is written again.
pub fn portal_message(input: &[u8]) {
    let message = PortalMessage::parse(input);
    assert_eq!(message, slow_portal_message(input));
    match message {
        None => {}
        Some(PortalMessage::Payload { data, .. }) => {
            inside(input, data);
            let mut head = [0; PAYLOAD_HEAD_MAX];
            let length = payload_head(data.len(), &mut head);
            let written = [&head[PAYLOAD_HEAD_MAX - length..], data].concat();
            assert!(written.len() <= input.len(), "nobody wrote a shorter one");
            assert_eq!(PortalMessage::parse(&written), Some(PortalMessage::Payload { data, counter: None }));
        }
        Some(message) => {
            assert!(input.starts_with(&message.encode()), "what it says begins with what we would have said");
            assert_eq!(PortalMessage::parse(&message.encode()), Some(message));
        }
    }
}

fn slow_portal_message(input: &[u8]) -> Option<PortalMessage<'_>> {
    let (kind, rest) = (*input.first()?, &input[1..]);
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
    // What is behind a Ping or Pong is ours, or nobody's.
    let credit = || (rest.len() >= 9 && rest.starts_with(b"flow\x01")).then(|| number(&rest[5..9]) as u32);
    match kind {
        0 => Some(PortalMessage::Ping { credit: credit() }),
        1 => Some(PortalMessage::Pong { credit: credit() }),
        2 => Some(PortalMessage::Disconnect { broken: rest.first() == Some(&1) }),
        3 => {
            let (length, rest) = ockam_wire::bare::read_uleb(rest).ok()?;
            if length > rest.len() as u64 {
                return None;
            }
            let (data, trailer) = rest.split_at(length as usize);
            let counted = trailer.len() >= 3 && trailer[0] == 1;
            let counter = counted.then(|| u16::from(trailer[1]) + 256 * u16::from(trailer[2]));
            Some(PortalMessage::Payload { data, counter })
        }
        4 if rest.len() >= 8 => Some(PortalMessage::End { total: number(&rest[..8]) }),
        5 if rest.len() >= 8 => Some(PortalMessage::Credit { limit: number(&rest[..8]) }),
        _ => None,
    }
}

/// Any bytes as the text and as the binary of a MultiAddr.
pub fn multiaddr(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        let parsed: Result<MultiAddr, _> = text.parse();
        assert_eq!(parsed.as_ref().ok().map(MultiAddr::protocols), slow_multiaddr(text).as_deref(), "{text:?}");
        if let Ok(multiaddr) = parsed {
            let has_ip6 = multiaddr.protocols().iter().any(|part| matches!(part, Protocol::Ip6(_)));
            assert!(has_ip6 || multiaddr.to_string() == text, "{text:?} was normalised to {multiaddr}");
            multiaddr_round_trips(&multiaddr);
        }
    }
    if let Ok(multiaddr) = MultiAddr::from_bytes(input) {
        assert!(multiaddr.to_bytes().len() <= input.len());
        multiaddr_round_trips(&multiaddr);
    }
}

pub fn multiaddr_round_trips(multiaddr: &MultiAddr) {
    assert!(!multiaddr.protocols().is_empty());
    assert_eq!(multiaddr.to_string().parse().as_ref(), Ok(multiaddr));
    assert_eq!(MultiAddr::from_bytes(&multiaddr.to_bytes()).as_ref(), Ok(multiaddr));
}

fn slow_multiaddr(text: &str) -> Option<Vec<Protocol>> {
    let pieces: Vec<&str> = text.split('/').collect();
    if !pieces[0].is_empty() || pieces.len() < 3 || pieces.len().is_multiple_of(2) {
        return None;
    }
    let parts: Vec<Protocol> = pieces[1..].chunks(2).map(|pair| slow_part(pair[0], pair[1])).collect::<Option<_>>()?;
    let printed: usize = parts.iter().map(|part| part.to_string().len()).sum();
    (text.len() <= MULTIADDR_MAX && printed <= MULTIADDR_MAX).then_some(parts)
}

fn slow_part(name: &str, value: &str) -> Option<Protocol> {
    let port = || value.parse().ok().filter(|port: &u16| port.to_string() == value);
    let make = match name {
        "ip4" => return value.parse().ok().map(Protocol::Ip4),
        "ip6" => return value.parse().ok().map(Protocol::Ip6),
        "tcp" => return port().map(Protocol::Tcp),
        "udp" => return port().map(Protocol::Udp),
        "dnsaddr" => Protocol::Dnsaddr,
        "service" => Protocol::Service,
        "worker" => Protocol::Worker,
        "node" => Protocol::Node,
        "secure" => Protocol::Secure,
        "project" => Protocol::Project,
        "space" => Protocol::Space,
        _ => return None,
    };
    (!value.is_empty()).then(|| make(value.into()))
}
