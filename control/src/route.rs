//! A route as the nodes along it see it: TCP hops to dial, local addresses to deliver to, secure channels to open on
//! the way. Made from a MultiAddr in which names are resolved already.

use crate::error::Error;
use ockam_engine_abi::DropReason;
use ockam_wire::{Address, MultiAddr, Protocol, ROUTE_MAX, TCP};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Longest name of a local address in bytes (`engine/abi`, `SetAddress`).
const LOCAL_NAME_BYTES_MAX: usize = 255;

/// What a node must dial to get on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hop {
    /// An address.
    Socket(SocketAddr),
    /// A name that the node before it resolves, and a port.
    Name(String, u16),
}

impl fmt::Display for Hop {
    /// `host:port`, which is also its form on the wire (`wire.md` A.4).
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hop::Socket(address) => address.fmt(formatter),
            Hop::Name(host, port) => write!(formatter, "{host}:{port}"),
        }
    }
}

/// One address of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A TCP hop to the next node.
    Dial(Hop),
    /// A service of the node that was reached.
    Service(String),
    /// A worker of the node that was reached: most often a link to the next node.
    Worker(String),
    /// A listener of secure channels at the node that was reached: a channel to it is opened over everything before, and
    /// what follows goes through that channel (`wire.md` I.4).
    Secure(String),
}

impl Step {
    fn address(&self) -> Address {
        match self {
            Step::Dial(hop) => Address { kind: TCP, name: hop.to_string().into_bytes() },
            Step::Service(name) | Step::Worker(name) | Step::Secure(name) => Address::local(name.as_bytes()),
        }
    }
}

impl fmt::Display for Step {
    /// As in a MultiAddr.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Dial(Hop::Socket(SocketAddr::V4(address))) => {
                write!(formatter, "/ip4/{}/tcp/{}", address.ip(), address.port())
            }
            Step::Dial(Hop::Socket(SocketAddr::V6(address))) => {
                write!(formatter, "/ip6/{}/tcp/{}", address.ip(), address.port())
            }
            Step::Dial(Hop::Name(host, port)) => write!(formatter, "/dnsaddr/{host}/tcp/{port}"),
            Step::Service(name) => write!(formatter, "/service/{name}"),
            Step::Worker(name) => write!(formatter, "/worker/{name}"),
            Step::Secure(name) => write!(formatter, "/secure/{name}"),
        }
    }
}

/// A route that ends at a service or a worker, or, as a leg, at a listener of secure channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    steps: Vec<Step>,
    /// Whose node it begins at, when that is not the sender's: the channel that leads there.
    behind: Option<Step>,
}

impl Route {
    /// Reads a MultiAddr. `argument` names it in errors.
    ///
    /// # Errors
    /// [`Error::BadArgument`]: a part that makes no sense where it stands, one that is not resolved, a route that ends at
    /// a TCP hop or has more addresses than [`ROUTE_MAX`].
    pub fn new(multiaddr: &MultiAddr, argument: &str) -> Result<Route, Error> {
        let refuse = |why: String, fix: &str| Error::BadArgument {
            argument: argument.to_owned(),
            value: multiaddr.to_string(),
            why,
            fix: fix.to_owned(),
        };
        let mut steps = Vec::new();
        let mut parts = multiaddr.protocols().iter().peekable();
        while let Some(part) = parts.next() {
            let step = match part {
                Protocol::Ip4(_) | Protocol::Ip6(_) | Protocol::Dnsaddr(_) => {
                    let port = match parts.next() {
                        Some(Protocol::Tcp(port)) => *port,
                        Some(Protocol::Udp(_)) => {
                            return Err(refuse("goes over UDP, which nodes do not speak".into(), "Use /tcp/PORT."));
                        }
                        _ => {
                            return Err(refuse(
                                format!("has no port after {part}"),
                                &format!("Write {part}/tcp/PORT."),
                            ));
                        }
                    };
                    if port == 0 {
                        let fix = "Give the port where the node listens; `ockam tcp-listener list` shows it.";
                        return Err(refuse(format!("has port 0 after {part}"), fix));
                    }
                    let hop = match part {
                        Protocol::Ip4(ip) => Hop::Socket(SocketAddr::new(IpAddr::V4(*ip), port)),
                        Protocol::Ip6(ip) => Hop::Socket(SocketAddr::new(IpAddr::V6(*ip), port)),
                        _ => Hop::Name(part.text().unwrap_or_default().to_owned(), port),
                    };
                    if matches!(&hop, Hop::Socket(address) if address.ip().is_unspecified()) {
                        let fix = "Name one address, such as /ip4/127.0.0.1.";
                        return Err(refuse(format!("has {part}, which means any address"), fix));
                    }
                    Step::Dial(hop)
                }
                Protocol::Tcp(_) | Protocol::Udp(_) => {
                    let fix = format!("Write /ip4/127.0.0.1{part}, or another host.");
                    return Err(refuse(format!("has no host before {part}"), &fix));
                }
                Protocol::Service(name) | Protocol::Worker(name) | Protocol::Secure(name)
                    if name.len() > LOCAL_NAME_BYTES_MAX =>
                {
                    let fix = format!("Use at most {LOCAL_NAME_BYTES_MAX} bytes.");
                    return Err(refuse(format!("has a name of {} bytes", name.len()), &fix));
                }
                Protocol::Service(name) => Step::Service(name.clone()),
                Protocol::Worker(name) => Step::Worker(name.clone()),
                Protocol::Secure(name) => Step::Secure(name.clone()),
                Protocol::Node(_) => {
                    let fix = "Give its address; names of nodes are known to the ockam command of their home only.";
                    return Err(refuse(format!("has {part}, a name that is not resolved"), fix));
                }
                Protocol::Project(_) | Protocol::Space(_) => {
                    let fix = "Use /node, /ip4, /ip6, /dnsaddr with /tcp, /secure, /service and /worker.";
                    return Err(refuse(format!("has {part}, which this version does not know"), fix));
                }
            };
            steps.push(step);
        }
        if steps.len() > ROUTE_MAX {
            let fix = format!("Use at most {ROUTE_MAX}.");
            return Err(refuse(format!("has {} addresses", steps.len()), &fix));
        }
        let end = match steps.last() {
            Some(Step::Service(_) | Step::Worker(_)) => return Ok(Route { steps, behind: None }),
            Some(Step::Secure(_)) => "ends at a secure channel",
            Some(Step::Dial(_)) | None => "ends at a node",
        };
        let fix = format!("Say what answers there: {multiaddr}/service/echo.");
        Err(refuse(end.into(), &fix))
    }

    /// The route cut behind each secure channel. Every leg but the last ends at the listener of a channel that must be
    /// opened first; the next leg begins at the node of that listener.
    pub fn legs(&self) -> Vec<Route> {
        let mut legs = Vec::new();
        let mut behind = self.behind.clone();
        for steps in self.steps.split_inclusive(|step| matches!(step, Step::Secure(_))) {
            let leg = Route { steps: steps.to_vec(), behind };
            behind = steps.last().cloned();
            legs.push(leg);
        }
        legs
    }

    /// The same route to another last step.
    pub fn with_end(&self, end: Step) -> Route {
        let mut route = self.clone();
        route.steps.pop();
        route.steps.push(end);
        route
    }

    /// All of it.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The TCP hop at its front, if it begins with one.
    pub fn first_hop(&self) -> Option<&Hop> {
        match self.steps.first() {
            Some(Step::Dial(hop)) => Some(hop),
            _ => None,
        }
    }

    /// The addresses on the wire, from the step with number `from` on. Those of one leg: addresses behind a channel are
    /// sealed in what goes to those before it.
    pub fn addresses(&self, from: usize) -> Vec<Address> {
        self.steps[from..].iter().map(Step::address).collect()
    }

    /// The error for a message that failed when `left` addresses of its route were left, the failing one included.
    /// `sender` is who sent it, as the end of a sentence: `the node n1`. Of a leg behind a channel it is at the node where
    /// the channel ends that its first address is looked up.
    pub fn undelivered(&self, reason: DropReason, left: u8, sender: &str) -> Error {
        let at = self.steps.len().saturating_sub(usize::from(left)).min(self.steps.len() - 1);
        let before = self.steps[..at].iter().rev();
        let place = before.clone().find_map(|step| match step {
            Step::Dial(hop) => Some(format!("the node at {hop}")),
            Step::Worker(_) | Step::Secure(_) => Some(format!("the node behind {step}")),
            Step::Service(_) => None,
        });
        let place = place.or_else(|| self.behind.as_ref().map(|channel| format!("the node behind {channel}")));
        Error::Undelivered {
            step: self.steps[at].to_string(),
            place: place.unwrap_or_else(|| sender.to_owned()),
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(text: &str) -> Result<Route, Error> {
        Route::new(&text.parse().unwrap(), "--to")
    }

    #[test]
    fn steps_become_addresses_of_the_wire() {
        let text = "/ip4/127.0.0.1/tcp/6002/ip6/::1/tcp/6003/dnsaddr/localhost/tcp/6004/worker/ab/service/uppercase";
        let route = route(text).unwrap();
        let addresses: Vec<String> = route.addresses(0).iter().map(Address::to_string).collect();
        assert_eq!(addresses, ["1#127.0.0.1:6002", "1#[::1]:6003", "1#localhost:6004", "0#ab", "0#uppercase"]);
        assert_eq!(route.first_hop().map(Hop::to_string).as_deref(), Some("127.0.0.1:6002"));
        assert_eq!(route.steps().iter().map(Step::to_string).collect::<String>(), text);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let many = "/service/hop".repeat(33);
        for text in [
            "/ip4/127.0.0.1/tcp/6002",
            "/ip4/127.0.0.1/service/echo",
            "/ip4/127.0.0.1",
            "/tcp/6002/service/echo",
            "/ip4/127.0.0.1/udp/6002/service/echo",
            "/ip4/127.0.0.1/tcp/0/service/echo",
            "/ip4/0.0.0.0/tcp/6002/service/echo",
            "/ip6/::/tcp/6002/service/echo",
            "/node/n1/service/echo",
            "/service/hop/secure/api",
            "/ip4/127.0.0.1/tcp/1/secure/api",
            "/project/default/service/echo",
            &many,
        ] {
            assert!(matches!(route(text), Err(Error::BadArgument { .. })), "{text} was taken");
        }
        assert!(route(&"/service/hop".repeat(32)).is_ok());
    }

    #[test]
    fn legs_are_cut_behind_each_channel() {
        let legs_of = |text: &str| -> Vec<String> {
            let show = |leg: &Route| leg.steps().iter().map(Step::to_string).collect();
            route(text).unwrap().legs().iter().map(show).collect()
        };
        for (text, want) in [
            ("/service/echo", &["/service/echo"][..]),
            ("/secure/api/service/echo", &["/secure/api", "/service/echo"]),
            (
                "/ip4/127.0.0.1/tcp/1/ip4/127.0.0.1/tcp/2/secure/api/service/hop/secure/other/worker/ab",
                &["/ip4/127.0.0.1/tcp/1/ip4/127.0.0.1/tcp/2/secure/api", "/service/hop/secure/other", "/worker/ab"],
            ),
            ("/secure/a/secure/b/service/echo", &["/secure/a", "/secure/b", "/service/echo"]),
        ] {
            assert_eq!(legs_of(text), want, "{text}");
        }
        let legs = route("/ip4/127.0.0.1/tcp/1/secure/api/service/echo").unwrap().legs();
        let addresses: Vec<String> = legs[0].addresses(0).iter().map(Address::to_string).collect();
        assert_eq!(addresses, ["1#127.0.0.1:1", "0#api"]);
        let Error::Undelivered { step, place, .. } = legs[1].undelivered(DropReason::NoSuchAddress, 1, "me") else {
            panic!("another error");
        };
        assert_eq!((step.as_str(), place.as_str()), ("/service/echo", "the node behind /secure/api"));
        let Error::Undelivered { step, place, .. } = legs[0].undelivered(DropReason::NoSuchAddress, 1, "me") else {
            panic!("another error");
        };
        assert_eq!((step.as_str(), place.as_str()), ("/secure/api", "the node at 127.0.0.1:1"));
    }

    #[test]
    fn a_notice_names_the_step_and_the_node() {
        let route = route("/ip4/127.0.0.1/tcp/1/ip4/127.0.0.1/tcp/2/service/hop/worker/ab/service/echo").unwrap();
        let cases = [
            (5, "/ip4/127.0.0.1/tcp/1", "me"),
            (4, "/ip4/127.0.0.1/tcp/2", "the node at 127.0.0.1:1"),
            (3, "/service/hop", "the node at 127.0.0.1:2"),
            (2, "/worker/ab", "the node at 127.0.0.1:2"),
            (1, "/service/echo", "the node behind /worker/ab"),
            // Numbers that no honest peer sends.
            (0, "/service/echo", "the node behind /worker/ab"),
            (255, "/ip4/127.0.0.1/tcp/1", "me"),
        ];
        for (left, want_step, want_place) in cases {
            let Error::Undelivered { step, place, reason } = route.undelivered(DropReason::NoSuchAddress, left, "me")
            else {
                panic!("another error");
            };
            assert_eq!((step.as_str(), place.as_str(), reason), (want_step, want_place, DropReason::NoSuchAddress));
        }
    }
}
