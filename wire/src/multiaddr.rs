//! MultiAddrs: routes as people write them, `/ip4/127.0.0.1/tcp/4000/service/echo` (`wire.md` I.4).

use crate::bare;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Longest MultiAddr in bytes, as text and as binary.
pub const MULTIADDR_MAX: usize = 4096;

/// One part of a MultiAddr.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// `/ip4/127.0.0.1`
    Ip4(Ipv4Addr),
    /// `/ip6/::1`
    Ip6(Ipv6Addr),
    /// `/dnsaddr/localhost`
    Dnsaddr(String),
    /// `/tcp/4000`, the port of the host before it.
    Tcp(u16),
    /// `/udp/4000`, the port of the host before it.
    Udp(u16),
    /// `/service/echo`, a local address at that point of the route.
    Service(String),
    /// `/worker/…`, the same as a service.
    Worker(String),
    /// `/node/n1`, a node known by name.
    Node(String),
    /// `/secure/api`, a secure channel to that listener.
    Secure(String),
    /// `/project/default`
    Project(String),
    /// `/space/default`
    Space(String),
}

/// How the value of a part is read, from text and from binary.
#[derive(Clone, Copy)]
enum Make {
    Ip4,
    Ip6,
    Port(fn(u16) -> Protocol),
    Text(fn(String) -> Protocol),
}

/// The value of a part.
enum Value<'a> {
    Ip4(&'a Ipv4Addr),
    Ip6(&'a Ipv6Addr),
    Port(u16),
    Text(&'a str),
}

/// Name in text, code in binary.
const TABLE: [(&str, u64, Make); 11] = [
    ("ip4", 4, Make::Ip4),
    ("ip6", 41, Make::Ip6),
    ("dnsaddr", 56, Make::Text(Protocol::Dnsaddr)),
    ("tcp", 6, Make::Port(Protocol::Tcp)),
    ("udp", 273, Make::Port(Protocol::Udp)),
    ("service", 62526, Make::Text(Protocol::Service)),
    ("worker", 102_526, Make::Text(Protocol::Worker)),
    ("node", 72526, Make::Text(Protocol::Node)),
    ("secure", 99526, Make::Text(Protocol::Secure)),
    ("project", 82526, Make::Text(Protocol::Project)),
    ("space", 92526, Make::Text(Protocol::Space)),
];

impl Protocol {
    /// The name in text: `tcp`, `service`, ...
    pub fn name(&self) -> &'static str {
        TABLE[self.row()].0
    }

    /// The number in binary.
    pub fn code(&self) -> u64 {
        TABLE[self.row()].1
    }

    /// Where in `TABLE`, whose order is that of the variants.
    fn row(&self) -> usize {
        match self {
            Protocol::Ip4(_) => 0,
            Protocol::Ip6(_) => 1,
            Protocol::Dnsaddr(_) => 2,
            Protocol::Tcp(_) => 3,
            Protocol::Udp(_) => 4,
            Protocol::Service(_) => 5,
            Protocol::Worker(_) => 6,
            Protocol::Node(_) => 7,
            Protocol::Secure(_) => 8,
            Protocol::Project(_) => 9,
            Protocol::Space(_) => 10,
        }
    }

    fn value(&self) -> Value<'_> {
        match self {
            Protocol::Ip4(address) => Value::Ip4(address),
            Protocol::Ip6(address) => Value::Ip6(address),
            Protocol::Tcp(port) | Protocol::Udp(port) => Value::Port(*port),
            Protocol::Dnsaddr(text)
            | Protocol::Service(text)
            | Protocol::Worker(text)
            | Protocol::Node(text)
            | Protocol::Secure(text)
            | Protocol::Project(text)
            | Protocol::Space(text) => Value::Text(text),
        }
    }

    /// The value, where it is a text.
    pub fn text(&self) -> Option<&str> {
        match self.value() {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn parse(name: &str, value: &str) -> Result<Protocol, MultiAddrError> {
        let bad = |expected| MultiAddrError::BadValue { part: format!("/{name}/{value}"), expected };
        match TABLE.iter().find(|row| row.0 == name).map(|row| row.2) {
            None => Err(MultiAddrError::UnknownProtocol { name: name.into() }),
            Some(Make::Ip4) => {
                value.parse().map(Protocol::Ip4).map_err(|_| bad("an IPv4 address, like /ip4/127.0.0.1"))
            }
            Some(Make::Ip6) => value.parse().map(Protocol::Ip6).map_err(|_| bad("an IPv6 address, like /ip6/::1")),
            Some(Make::Port(make)) => parse_port(value).map(make).ok_or_else(|| bad("a port number from 0 to 65535")),
            Some(Make::Text(make)) => Ok(make(value.into())),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        bare::write_uleb(self.code(), out);
        match self.value() {
            Value::Ip4(address) => out.extend_from_slice(&address.octets()),
            Value::Ip6(address) => out.extend_from_slice(&address.octets()),
            Value::Port(port) => out.extend_from_slice(&port.to_be_bytes()),
            Value::Text(text) => bare::write_string(text, out),
        }
    }

    fn read(input: &mut &[u8]) -> Result<Protocol, MultiAddrError> {
        let (code, rest) = bare::read_uleb(input).map_err(MultiAddrError::Binary)?;
        *input = rest;
        let row = TABLE.iter().find(|row| row.1 == code).ok_or(MultiAddrError::UnknownCode { code })?;
        Ok(match row.2 {
            Make::Ip4 => Protocol::Ip4(take::<4>(input)?.into()),
            Make::Ip6 => Protocol::Ip6(take::<16>(input)?.into()),
            Make::Port(make) => make(u16::from_be_bytes(take(input)?)),
            Make::Text(make) => {
                let (text, rest) = bare::split_string(input).map_err(MultiAddrError::Binary)?;
                *input = rest;
                make(text.into())
            }
        })
    }
}

fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], MultiAddrError> {
    let (value, rest) = input.split_first_chunk().ok_or(MultiAddrError::Binary(bare::BareError::Truncated))?;
    *input = rest;
    Ok(*value)
}

/// Digits only and no leading zero, so that a port has one spelling.
fn parse_port(text: &str) -> Option<u16> {
    let canonical = text == "0" || (!text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()));
    canonical.then(|| text.parse().ok()).flatten()
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.name())?;
        match self.value() {
            Value::Ip4(address) => address.fmt(f),
            Value::Ip6(address) => address.fmt(f),
            Value::Port(port) => port.fmt(f),
            Value::Text(text) => f.write_str(text),
        }
    }
}

/// One part or more. Texts in it are never empty and have no `/`, and are kept as they came, without normalisation:
/// printing and parsing give the same MultiAddr. What its parts mean together is for the resolver to say.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MultiAddr(Vec<Protocol>);

impl MultiAddr {
    /// Its parts, in order; at least one.
    pub fn protocols(&self) -> &[Protocol] {
        &self.0
    }

    /// The binary form, in shortest integers.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.0.iter().for_each(|protocol| protocol.write(&mut out));
        out
    }

    /// Reads the binary form.
    ///
    /// # Errors
    /// Too long, an unknown code, a value that does not end, or what no text could say (nothing at all, an empty text, a
    /// `/` inside one).
    pub fn from_bytes(mut bytes: &[u8]) -> Result<Self, MultiAddrError> {
        check_length(bytes.len())?;
        let mut protocols = Vec::new();
        while !bytes.is_empty() {
            protocols.push(Protocol::read(&mut bytes)?);
        }
        MultiAddr::try_from(protocols)
    }
}

fn check_length(bytes: usize) -> Result<(), MultiAddrError> {
    if bytes > MULTIADDR_MAX { Err(MultiAddrError::TooLong { bytes }) } else { Ok(()) }
}

impl TryFrom<Vec<Protocol>> for MultiAddr {
    type Error = MultiAddrError;

    fn try_from(protocols: Vec<Protocol>) -> Result<Self, MultiAddrError> {
        if protocols.is_empty() {
            return Err(MultiAddrError::Empty);
        }
        for protocol in &protocols {
            match protocol.text() {
                Some("") => return Err(MultiAddrError::NoValue { name: protocol.name().into() }),
                Some(text) if text.contains('/') => {
                    let expected = "a name without `/`";
                    return Err(MultiAddrError::BadValue { part: protocol.to_string(), expected });
                }
                _ => {}
            }
        }
        let multiaddr = MultiAddr(protocols);
        // Text can be longer than binary (an IPv6 address) and binary longer than text, so one limit needs both.
        check_length(multiaddr.to_string().len().max(multiaddr.to_bytes().len()))?;
        Ok(multiaddr)
    }
}

impl FromStr for MultiAddr {
    type Err = MultiAddrError;

    fn from_str(text: &str) -> Result<Self, MultiAddrError> {
        check_length(text.len())?;
        let parts = match text.strip_prefix('/') {
            None if text.is_empty() => return Err(MultiAddrError::Empty),
            None => return Err(MultiAddrError::NoSlash { text: text.into() }),
            Some("") => return Err(MultiAddrError::Empty),
            Some(parts) => parts,
        };
        let mut pieces = parts.split('/');
        let mut protocols = Vec::new();
        while let Some(name) = pieces.next() {
            match pieces.next() {
                _ if name.is_empty() => return Err(MultiAddrError::EmptyPart { text: text.into() }),
                None | Some("") if TABLE.iter().all(|row| row.0 != name) => {
                    return Err(MultiAddrError::UnknownProtocol { name: name.into() });
                }
                None | Some("") => return Err(MultiAddrError::NoValue { name: name.into() }),
                Some(value) => protocols.push(Protocol::parse(name, value)?),
            }
        }
        MultiAddr::try_from(protocols)
    }
}

impl fmt::Display for MultiAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|protocol| protocol.fmt(f))
    }
}

/// Why something is not a MultiAddr.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MultiAddrError {
    /// There is no part.
    #[error("a MultiAddr cannot be empty; write one like /node/n1/service/echo")]
    Empty,
    /// The text begins with something else than `/`.
    #[error("{text:?} does not begin with `/`; write a MultiAddr like /node/n1/service/echo")]
    NoSlash {
        /// The whole text.
        text: String,
    },
    /// A `/` where a protocol should stand: doubled, or at the end.
    #[error("{text:?} has a `/` at its end or two in a row; write /protocol/value/protocol/value")]
    EmptyPart {
        /// The whole text.
        text: String,
    },
    /// A protocol that does not exist.
    #[error(
        "{name:?} is not a protocol; use ip4, ip6, dnsaddr, tcp, udp, service, worker, node, secure, project or space"
    )]
    UnknownProtocol {
        /// What stands where its name should.
        name: String,
    },
    /// A protocol without a value.
    #[error("/{name} has no value; write /{name}/VALUE")]
    NoValue {
        /// The protocol.
        name: String,
    },
    /// A value that its protocol does not have.
    #[error("{part:?} is not valid; it needs {expected}")]
    BadValue {
        /// Protocol and value.
        part: String,
        /// What would be right.
        expected: &'static str,
    },
    /// Longer than [`MULTIADDR_MAX`].
    #[error("a MultiAddr of {bytes} bytes is too long; the limit is 4096")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A binary MultiAddr has a protocol that does not exist.
    #[error("a binary MultiAddr has the unknown protocol code {code}")]
    UnknownCode {
        /// The code.
        code: u64,
    },
    /// A binary MultiAddr is cut off or has a bad integer or text.
    #[error("a binary MultiAddr is broken: {0}")]
    Binary(bare::BareError),
}
