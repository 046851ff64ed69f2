//! From what was typed to what is meant: names of nodes in a route become addresses.

use crate::error::Error;
use crate::home::NodeName;
use crate::route::Route;
use ockam_wire::{MultiAddr, Protocol};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Puts the address that `lookup` finds in place of each `/node/NAME` and checks the route as a whole. `argument` names
/// it in errors.
///
/// # Errors
/// A name that cannot be one, what `lookup` says, and what [`Route::new`] refuses.
pub fn resolve(
    typed: &MultiAddr,
    argument: &str,
    mut lookup: impl FnMut(&NodeName) -> Result<SocketAddr, Error>,
) -> Result<(MultiAddr, Route), Error> {
    let mut parts = Vec::new();
    for part in typed.protocols() {
        let Protocol::Node(name) = part else {
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
    Ok((resolved, route))
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

    fn resolved(typed: &str) -> Result<String, Error> {
        resolve(&typed.parse().unwrap(), "--to", |name| match name.as_str() {
            "n1" => Ok("127.0.0.1:6001".parse().unwrap()),
            "n2" => Ok("[::]:6002".parse().unwrap()),
            "n3" => Ok("0.0.0.0:6003".parse().unwrap()),
            other => Err(Error::NoSuchNode { name: other.into(), near: vec![] }),
        })
        .map(|(multiaddr, _)| multiaddr.to_string())
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
}
