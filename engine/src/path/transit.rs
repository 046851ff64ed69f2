//! Which TCP addresses are dialed for whom (`architecture.md`, Transit).
//!
//! The default rule admits loopback peers to loopback targets. Everything else needs a rule of the user: for the networks
//! that links come from, or for the peers of channels that a guard lets pass. What is tested is always a resolved address;
//! IPv4-mapped ones are unwrapped, unspecified ones never pass.

use ockam_engine_abi::{DropReason, Guard, TransitFrom, TransitRule};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

/// The user's rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransitRules(pub Vec<TransitRule>);

/// A TCP address of a route: `host:port`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialTarget<'a> {
    /// Nothing to resolve.
    Address(SocketAddr),
    /// A name that control must resolve.
    Name {
        /// At most 253 bytes of letters, digits, `.`, `-` and `_`.
        host: &'a str,
        /// Not zero.
        port: u16,
    },
}

impl<'a> DialTarget<'a> {
    /// Reads the text of a TCP address (`wire.md` A.4); `None` when it is not one.
    pub fn parse(name: &'a [u8]) -> Option<Self> {
        if let Some(address) = plain_v4(name) {
            return (address.port() != 0).then_some(DialTarget::Address(address.into()));
        }
        let text = std::str::from_utf8(name).ok()?;
        if let Ok(address) = text.parse::<SocketAddr>() {
            let address = SocketAddr::new(address.ip().to_canonical(), address.port());
            return (address.port() != 0).then_some(DialTarget::Address(address));
        }
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|&port| port != 0)?;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let valid = !host.is_empty() && host.len() <= 253 && host.bytes().all(is_name) && !host.starts_with('-');
        valid.then_some(DialTarget::Name { host, port })
    }
}

/// An IPv4 address and port as nearly every route writes them: decimal, without a zero in front. Each frame of a transit
/// hop names its target, and reading it by `SocketAddr::from_str` was an eighth of what a small frame cost.
fn plain_v4(text: &[u8]) -> Option<SocketAddrV4> {
    let (mut numbers, mut place, mut digits) = ([0u32; 5], 0, 0);
    for &byte in text {
        match byte {
            b'0'..=b'9' if digits < 5 && (digits == 0 || numbers[place] > 0) => {
                numbers[place] = numbers[place] * 10 + u32::from(byte - b'0');
                digits += 1;
            }
            b'.' | b':' if digits > 0 && place < 4 && (byte == b':') == (place == 3) => {
                place += 1;
                digits = 0;
            }
            _ => return None,
        }
    }
    let [a, b, c, d, port] = numbers;
    let whole = place == 4 && digits > 0 && (a | b | c | d) <= 0xff && port <= 0xffff;
    whole.then(|| SocketAddrV4::new([a as u8, b as u8, c as u8, d as u8].into(), port as u16))
}

impl TransitRules {
    /// Whether a peer at `from` may have `to` dialed.
    pub fn admit(&self, from: IpAddr, to: SocketAddr) -> bool {
        let (from, to_ip) = (from.to_canonical(), to.ip().to_canonical());
        if !is_one_host(to) {
            return false;
        }
        if from.is_loopback() && to_ip.is_loopback() {
            return true;
        }
        self.0.iter().any(|rule| {
            comes_from(from, rule.from) && within(to_ip, rule.to) && rule.port.is_none_or(|port| port == to.port())
        })
    }

    /// Whether any rule speaks of a peer at `from`: for others not even a name is looked up.
    pub fn concern(&self, from: IpAddr) -> bool {
        let from = from.to_canonical();
        from.is_loopback() || self.0.iter().any(|rule| comes_from(from, rule.from))
    }

    /// Whether a peer at `from` may have a TCP address dialed that another node will resolve: only if every target with
    /// that port is admitted, in both address families.
    pub fn admit_unresolved(&self, from: IpAddr, port: u16) -> bool {
        let from = from.to_canonical();
        let everything = |is_v4: bool| {
            self.0.iter().any(|rule| {
                comes_from(from, rule.from)
                    && rule.to.0.is_ipv4() == is_v4
                    && rule.to.1 == 0
                    && rule.port.is_none_or(|rule_port| rule_port == port)
            })
        };
        everything(true) && everything(false)
    }

    /// Whether the peer of a channel may have `to` dialed; `passes` says which guards let it pass. This machine itself and
    /// what is on its wire is for rules that name nothing else.
    ///
    /// # Errors
    /// [`DropReason::TransitRefused`] when no rule speaks of `to`, [`DropReason::PolicyDenied`] when one does and its guard
    /// does not let the peer pass.
    pub fn admit_guarded(&self, to: SocketAddr, passes: impl Fn(Guard) -> bool) -> Result<(), DropReason> {
        let to_ip = to.ip().to_canonical();
        self.any_guarded(passes, |rule| {
            is_one_host(to)
                && within(to_ip, rule.to)
                && rule.port.is_none_or(|port| port == to.port())
                && NEAR.iter().filter(|near| within(to_ip, **near)).all(|near| is_part_of(rule.to, *near))
        })
    }

    /// Whether any rule might admit the peer of a channel to a name with this port: for others it is not looked up.
    ///
    /// # Errors
    /// As [`Self::admit_guarded`].
    pub fn concern_guarded(&self, port: u16, passes: impl Fn(Guard) -> bool) -> Result<(), DropReason> {
        self.any_guarded(passes, |rule| rule.port.is_none_or(|rule_port| rule_port == port))
    }

    fn any_guarded(
        &self,
        passes: impl Fn(Guard) -> bool,
        speaks: impl Fn(&TransitRule) -> bool,
    ) -> Result<(), DropReason> {
        let mut refused = DropReason::TransitRefused;
        for rule in &self.0 {
            if let TransitFrom::Guard(guard) = rule.from
                && speaks(rule)
            {
                if passes(guard) {
                    return Ok(());
                }
                refused = DropReason::PolicyDenied;
            }
        }
        Err(refused)
    }
}

/// Networks of this machine alone, and of whoever is on the same wire.
const NEAR: [(IpAddr, u8); 4] = [
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16),
    (IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
    (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
];

/// Whether an address is one that a connection can be opened to, and stands for no other.
fn is_one_host(to: SocketAddr) -> bool {
    let ip = to.ip().to_canonical();
    !ip.is_unspecified() && !ip.is_multicast() && to.port() != 0
}

/// Whether all of a network lies in another.
fn is_part_of((prefix, bits): (IpAddr, u8), whole: (IpAddr, u8)) -> bool {
    bits >= whole.1 && within(prefix.to_canonical(), whole)
}

/// Whether a rule speaks of links of a peer at `ip`.
fn comes_from(ip: IpAddr, from: TransitFrom) -> bool {
    matches!(from, TransitFrom::Network(network) if within(ip, network))
}

/// Whether `ip` lies in the network `prefix`/`bits`.
fn within(ip: IpAddr, (prefix, bits): (IpAddr, u8)) -> bool {
    fn common(a: u128, b: u128, bits: u8, width: u8) -> bool {
        bits <= width && (bits == 0 || (a ^ b) >> (width - bits) == 0)
    }
    match (ip, prefix.to_canonical()) {
        (IpAddr::V4(ip), IpAddr::V4(prefix)) => common(ip.to_bits().into(), prefix.to_bits().into(), bits, 32),
        (IpAddr::V6(ip), IpAddr::V6(prefix)) => common(ip.to_bits(), prefix.to_bits(), bits, 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(from: &str, to: &str, port: Option<u16>) -> TransitRule {
        let network = |text: &str| {
            let (ip, bits) = text.split_once('/').unwrap();
            (ip.parse().unwrap(), bits.parse().unwrap())
        };
        TransitRule { from: TransitFrom::Network(network(from)), to: network(to), port }
    }

    #[test]
    fn loopback_reaches_loopback_and_nothing_else_without_a_rule() {
        let none = TransitRules::default();
        for (from, to, admitted) in [
            ("127.0.0.1", "127.0.0.1:6003", true),
            ("127.0.0.1", "127.8.9.10:1", true),
            ("::1", "127.0.0.1:6003", true),
            ("::1", "[::1]:6003", true),
            ("::ffff:127.0.0.1", "[::ffff:127.0.0.1]:6003", true),
            ("127.0.0.1", "0.0.0.0:6003", false),
            ("127.0.0.1", "[::]:6003", false),
            ("127.0.0.1", "[::ffff:0.0.0.0]:6003", false),
            ("127.0.0.1", "10.0.0.1:6003", false),
            ("127.0.0.1", "[::ffff:10.0.0.1]:6003", false),
            ("127.0.0.1", "169.254.169.254:80", false),
            ("127.0.0.1", "224.0.0.1:80", false),
            ("10.0.0.1", "127.0.0.1:6003", false),
            ("10.0.0.1", "[::1]:6003", false),
            ("::ffff:10.0.0.1", "127.0.0.1:6003", false),
            ("10.0.0.1", "10.0.0.1:6003", false),
        ] {
            assert_eq!(none.admit(from.parse().unwrap(), to.parse().unwrap()), admitted, "{from} -> {to}");
        }
    }

    proptest! {
        /// What is read the quick way is what the standard library reads.
        #[test]
        fn addresses_are_read_as_by_the_library(text in "[0-9]{0,4}(\\.[0-9]{0,4}){2,4}:?[0-9]{0,6}:?") {
            if let Some(quick) = plain_v4(text.as_bytes()) {
                prop_assert_eq!(text.parse(), Ok(quick));
            }
        }

        #[test]
        fn every_v4_address_is_read_the_quick_way(address: SocketAddrV4) {
            prop_assert_eq!(plain_v4(address.to_string().as_bytes()), Some(address));
        }
    }

    #[test]
    fn numbers_that_are_none_are_left_to_the_library() {
        for text in [
            "1.2.3.4",
            "1.2.3:4",
            "1.2.3.4:",
            "1.2.3.4:65536",
            "256.2.3.4:1",
            "01.2.3.4:1",
            "1.2.3.4:1 ",
            "",
            "1.2.3.4:01",
        ] {
            assert_eq!(plain_v4(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn rules_admit_what_they_name() {
        let rules = TransitRules(vec![
            rule("10.0.0.0/8", "192.168.1.0/24", Some(4000)),
            rule("fd00::/8", "fd00::/8", None),
            rule("10.9.0.0/16", "127.0.0.1/32", Some(5000)),
        ]);
        for (from, to, admitted) in [
            ("10.1.2.3", "192.168.1.7:4000", true),
            ("10.1.2.3", "[::ffff:192.168.1.7]:4000", true),
            ("10.1.2.3", "192.168.1.7:4001", false),
            ("10.1.2.3", "192.168.2.7:4000", false),
            ("11.1.2.3", "192.168.1.7:4000", false),
            ("fd00::1", "[fd12::1]:9", true),
            ("fd00::1", "192.168.1.7:4000", false),
            ("10.9.1.1", "127.0.0.1:5000", true),
            ("10.9.1.1", "127.0.0.2:5000", false),
            ("127.0.0.1", "192.168.1.7:4000", false),
        ] {
            assert_eq!(rules.admit(from.parse().unwrap(), to.parse().unwrap()), admitted, "{from} -> {to}");
        }
    }

    #[test]
    fn names_are_looked_up_for_whom_a_rule_names() {
        let none = TransitRules::default();
        assert!(none.concern("127.0.0.1".parse().unwrap()) && none.concern("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!none.concern("10.0.0.1".parse().unwrap()));
        let rules = TransitRules(vec![rule("10.0.0.0/8", "192.168.1.0/24", None)]);
        assert!(rules.concern("10.0.0.1".parse().unwrap()) && !rules.concern("11.0.0.1".parse().unwrap()));
    }

    #[test]
    fn a_name_that_another_node_resolves_needs_rules_for_everything() {
        let from = "10.0.0.1".parse().unwrap();
        assert!(!TransitRules::default().admit_unresolved(from, 4000));
        let v4 = rule("10.0.0.0/8", "0.0.0.0/0", None);
        assert!(!TransitRules(vec![v4]).admit_unresolved(from, 4000));
        let v6 = rule("0.0.0.0/0", "::/0", Some(4000));
        assert!(TransitRules(vec![v4, v6]).admit_unresolved(from, 4000));
        assert!(!TransitRules(vec![v4, v6]).admit_unresolved(from, 4001));
    }

    #[test]
    fn texts_of_tcp_addresses() {
        for (text, target) in [
            ("127.0.0.1:6003", Some(DialTarget::Address("127.0.0.1:6003".parse().unwrap()))),
            ("[::ffff:10.0.0.1]:1", Some(DialTarget::Address("10.0.0.1:1".parse().unwrap()))),
            ("[::1]:6003", Some(DialTarget::Address("[::1]:6003".parse().unwrap()))),
            ("localhost:6003", Some(DialTarget::Name { host: "localhost", port: 6003 })),
            ("localhost:0", None),
            ("127.0.0.1:0", None),
            ("localhost:65536", None),
            ("localhost", None),
            (":6003", None),
            ("-rf:1", None),
            ("a/b:1", None),
            ("::1:6003", None),
            ("a b:1", None),
            ("", None),
        ] {
            assert_eq!(DialTarget::parse(text.as_bytes()), target, "{text}");
        }
        assert_eq!(DialTarget::parse(&[b'a'; 300]), None);
        assert_eq!(DialTarget::parse(b"\xff\xfe:1"), None);
    }
}
