//! From what was typed to what is meant: names of nodes in a route become addresses, and tell who must be at the end of
//! its secure channels.

use crate::error::Error;
use crate::home::NodeName;
use crate::route::Route;
use ockam_crypto::Identifier;
use ockam_wire::{MultiAddr, Protocol};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A route without names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// As it is given to a node.
    pub multiaddr: MultiAddr,
    /// The same, checked.
    pub route: Route,
    /// Of each of its legs ([`Route::legs`]) the node at whose door it ends, as far as a name says so: `/node/NAME` right
    /// in front of the last address. Behind another service or worker there may be anybody, such as the owner of a relay.
    pub ends: Vec<Option<NodeName>>,
}

/// Puts the address that `lookup` finds in place of each `/node/NAME` and checks the route as a whole. `argument` names
/// it in errors.
///
/// # Errors
/// A name that cannot be one, what `lookup` says, and what [`Route::new`] refuses.
pub fn resolve(
    typed: &MultiAddr,
    argument: &str,
    mut lookup: impl FnMut(&NodeName) -> Result<SocketAddr, Error>,
) -> Result<Resolved, Error> {
    let mut parts = Vec::new();
    let mut ends = Vec::new();
    let mut here = None;
    for (index, part) in typed.protocols().iter().enumerate() {
        let Protocol::Node(name) = part else {
            let is_last = index + 1 == typed.protocols().len();
            match part {
                // The node behind a channel is the one in front of it.
                Protocol::Secure(_) => ends.push(here.clone()),
                Protocol::Service(_) | Protocol::Worker(_) if is_last => ends.push(here.take()),
                _ => here = None,
            }
            parts.push(part.clone());
            continue;
        };
        let name = name.parse().map_err(|error| match error {
            Error::BadArgument { value, why, fix, .. } => {
                Error::BadArgument { argument: format!("{argument}: the name of a node"), value, why, fix }
            }
            other => other,
        })?;
        let address = dialable(lookup(&name)?);
        parts.push(match address.ip() {
            IpAddr::V4(ip) => Protocol::Ip4(ip),
            IpAddr::V6(ip) => Protocol::Ip6(ip),
        });
        parts.push(Protocol::Tcp(address.port()));
        here = Some(name);
    }
    let refuse = |error: ockam_wire::MultiAddrError| Error::BadArgument {
        argument: argument.to_owned(),
        value: typed.to_string(),
        why: format!("is no route: {error}"),
        fix: "Write a route like /node/n1/service/echo.".into(),
    };
    let resolved = MultiAddr::try_from(parts).map_err(refuse)?;
    // A mistake in the route is named in the words that were typed.
    let route = Route::new(&resolved, argument).map_err(|error| match error {
        Error::BadArgument { argument, why, fix, .. } => Error::BadArgument {
            argument,
            value: typed.to_string(),
            why,
            fix: fix.replace(&resolved.to_string(), &typed.to_string()),
        },
        other => other,
    })?;
    Ok(Resolved { multiaddr: resolved, route, ends })
}

/// Who may be met at one end of a route: the identity `recorded` for the node that the route names there, and those that
/// were `authorized`; anybody when neither says so.
///
/// # Errors
/// [`Error::NodeNotAuthorized`]: nobody could be both.
pub fn admitted(
    recorded: Option<(&NodeName, Identifier)>,
    authorized: &[Identifier],
) -> Result<Vec<Identifier>, Error> {
    match recorded {
        None => Ok(authorized.to_vec()),
        Some((_, identifier)) if authorized.is_empty() || authorized.contains(&identifier) => Ok(vec![identifier]),
        Some((node, identifier)) => {
            Err(Error::NodeNotAuthorized { node: node.to_string(), identifier: identifier.to_string() })
        }
    }
}

/// Where to dial a listener of this machine: one that is bound to all addresses is dialed as loopback.
pub fn dialable(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listener.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(typed: &str) -> Result<Resolved, Error> {
        resolve(&typed.parse().unwrap(), "--to", |name| match name.as_str() {
            "n1" => Ok("127.0.0.1:6001".parse().unwrap()),
            "n2" => Ok("[::]:6002".parse().unwrap()),
            "n3" => Ok("0.0.0.0:6003".parse().unwrap()),
            other => Err(Error::NoSuchNode { name: other.into(), near: vec![] }),
        })
    }

    fn resolved(typed: &str) -> Result<String, Error> {
        planned(typed).map(|planned| planned.multiaddr.to_string())
    }

    #[test]
    fn names_become_addresses_that_can_be_dialed() {
        for (typed, want) in [
            ("/node/n1/service/echo", "/ip4/127.0.0.1/tcp/6001/service/echo"),
            ("/node/n2/node/n3/service/a", "/ip6/::1/tcp/6002/ip4/127.0.0.1/tcp/6003/service/a"),
            (
                "/dnsaddr/h/tcp/1/service/hop/node/n1/worker/b",
                "/dnsaddr/h/tcp/1/service/hop/ip4/127.0.0.1/tcp/6001/worker/b",
            ),
            ("/service/echo", "/service/echo"),
            ("/secure/a/node/n1/secure/api/service/echo", "/secure/a/ip4/127.0.0.1/tcp/6001/secure/api/service/echo"),
        ] {
            assert_eq!(resolved(typed).as_deref(), Ok(want));
        }
    }

    #[test]
    fn errors_speak_of_what_was_typed() {
        assert!(matches!(resolved("/node/n9/service/echo"), Err(Error::NoSuchNode { .. })));
        let Err(Error::BadArgument { argument, .. }) = resolved("/node/a b/service/echo") else { panic!("taken") };
        assert_eq!(argument, "--to: the name of a node");
        let Err(Error::BadArgument { value, fix, .. }) = resolved("/node/n1") else { panic!("taken") };
        assert_eq!((value.as_str(), fix.contains("/node/n1/service/echo")), ("/node/n1", true));
    }

    #[test]
    fn a_name_says_who_is_at_the_end_of_a_channel() {
        for (typed, want) in [
            ("/service/api", &[""][..]),
            ("/node/n1/service/api", &["n1"]),
            ("/node/n2/node/n3/service/api", &["n3"]),
            ("/node/n2/ip4/127.0.0.1/tcp/1/service/api", &[""]),
            ("/node/n1/secure/api/service/echo", &["n1", "n1"]),
            ("/node/n1/secure/api/secure/other/service/api", &["n1", "n1", "n1"]),
            ("/node/n1/secure/api/node/n2/secure/api/service/echo", &["n1", "n2", "n2"]),
            // Who is behind a relay or a link is not the node in front of it.
            ("/node/n1/service/forward_to_x/secure/api/service/echo", &["", ""]),
            ("/node/n1/worker/ab/service/api", &[""]),
            ("/node/n1/service/hop/node/n2/service/api", &["n2"]),
        ] {
            let ends = planned(typed).unwrap().ends;
            let ends: Vec<&str> = ends.iter().map(|end| end.as_ref().map_or("", NodeName::as_str)).collect();
            assert_eq!(ends, want, "{typed}");
            assert_eq!(ends.len(), planned(typed).unwrap().route.legs().len(), "{typed}");
        }
    }

    #[test]
    fn what_is_recorded_narrows_what_is_authorized() {
        let (one, two, three) = (Identifier([1; 32]), Identifier([2; 32]), Identifier([3; 32]));
        let node: NodeName = "n3".parse().unwrap();
        assert_eq!(admitted(None, &[]), Ok(vec![]));
        assert_eq!(admitted(None, &[one, two]), Ok(vec![one, two]));
        assert_eq!(admitted(Some((&node, one)), &[]), Ok(vec![one]));
        assert_eq!(admitted(Some((&node, one)), &[two, one]), Ok(vec![one]));
        let contradiction = admitted(Some((&node, one)), &[two, three]).unwrap_err();
        assert_eq!(contradiction, Error::NodeNotAuthorized { node: "n3".into(), identifier: one.to_string() });
        assert_eq!(contradiction.exit(), 77);
    }
}
