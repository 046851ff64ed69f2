//! Names of hosts to addresses, and addresses to listening sockets.

use crate::cli::values::{HostPort, dial_address, listen_address};
use crate::error::Error;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with, sockopt};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// How long the resolver may take.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);

/// Most addresses of a name that are used.
pub(crate) const ADDRESSES_MAX: usize = 8;

/// Longest host name in bytes.
const HOST_BYTES_MAX: usize = 253;

/// Connections that wait to be accepted; the kernel may allow fewer (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// Where `text` says to listen.
///
/// # Errors
/// [`Error::BadArgument`], [`Error::Unresolved`].
pub(crate) async fn to_listen(text: &str) -> Result<SocketAddr, Error> {
    let target = parse("address", text, listen_address)?;
    let addresses = lookup(&target.host, target.port).await?;
    addresses.first().copied().ok_or_else(|| no_address(&target.host))
}

/// Where `text` says to connect to, best first.
///
/// # Errors
/// [`Error::BadArgument`], [`Error::Unresolved`].
pub(crate) async fn to_dial(text: &str) -> Result<Vec<SocketAddr>, Error> {
    let target = parse("to", text, dial_address)?;
    lookup(&target.host, target.port).await
}

fn parse(field: &str, text: &str, read: fn(&str) -> Result<HostPort, String>) -> Result<HostPort, Error> {
    read(text).map_err(|why| Error::BadArgument {
        argument: field.into(),
        value: crate::text::escape(text.as_bytes(), HOST_BYTES_MAX),
        why: format!("is not an address: {why}"),
        fix: "Write host:port, such as 127.0.0.1:6001 or [::1]:6001.".into(),
    })
}

/// The addresses of a host, in the order of the resolver, at most [`ADDRESSES_MAX`] and at least one.
///
/// # Errors
/// [`Error::Unresolved`]: no such name, no answer in time, or nothing that could be a name.
pub(crate) async fn lookup(host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let unresolved =
        |why: String| Error::Unresolved { host: crate::text::escape(host.as_bytes(), HOST_BYTES_MAX), why };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if host.is_empty() || host.len() > HOST_BYTES_MAX || !host.bytes().all(is_name) {
        return Err(unresolved("it is not a host name".into()));
    }
    let addresses = match tokio::time::timeout(RESOLVE_LIMIT, tokio::net::lookup_host((host, port))).await {
        Err(_) => return Err(unresolved("the resolver does not answer".into())),
        Ok(Err(error)) => {
            // "failed to lookup address information: Name or service not known"
            let text = error.to_string();
            return Err(unresolved(text.rsplit(": ").next().unwrap_or(&text).to_lowercase()));
        }
        Ok(Ok(addresses)) => addresses,
    };
    let mut distinct: Vec<SocketAddr> = Vec::new();
    for address in addresses {
        if !distinct.contains(&address) {
            distinct.push(address);
        }
    }
    distinct.truncate(ADDRESSES_MAX);
    if distinct.is_empty() { Err(no_address(host)) } else { Ok(distinct) }
}

fn no_address(host: &str) -> Error {
    Error::Unresolved { host: host.into(), why: "it has no address".into() }
}

/// A listening socket, and where it listens. `SO_REUSEADDR` lets it bind beside connections that are closing; without
/// `SO_REUSEPORT` a port that somebody listens on stays busy (`architecture.md`).
///
/// # Errors
/// [`Error::AddressBusy`], [`Error::AddressNotLocal`], [`Error::ListenDenied`], [`Error::ListenFailed`].
pub(crate) fn bind_listener(address: SocketAddr) -> Result<(OwnedFd, SocketAddr), Error> {
    let bound = || {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        // Accepted sockets inherit it.
        sockopt::set_tcp_nodelay(&socket, true)?;
        bind(&socket, &address)?;
        listen(&socket, BACKLOG)?;
        let local = getsockname(&socket)?.try_into()?;
        Ok((socket, local))
    };
    bound().map_err(|errno: Errno| match errno {
        Errno::ADDRINUSE => Error::AddressBusy { address },
        Errno::ADDRNOTAVAIL => Error::AddressNotLocal { address },
        Errno::ACCESS | Errno::PERM => Error::ListenDenied { address },
        other => Error::ListenFailed { address, errno: other.raw_os_error() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_port_and_a_strange_address_are_named() {
        let (_socket, local) = bind_listener("127.0.0.1:0".parse().unwrap()).unwrap();
        assert_ne!(local.port(), 0);
        assert_eq!(bind_listener(local).unwrap_err(), Error::AddressBusy { address: local });
        let strange: SocketAddr = "192.0.2.1:4000".parse().unwrap();
        assert_eq!(bind_listener(strange).unwrap_err(), Error::AddressNotLocal { address: strange });
    }

    #[test]
    fn names_of_strangers_are_checked_before_they_are_looked_up() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            assert_eq!(lookup("::1", 5).await.unwrap(), ["[::1]:5".parse().unwrap()]);
            assert!(lookup("localhost", 5).await.unwrap().iter().all(|address| address.ip().is_loopback()));
            for bad in ["", "a b", "a\0", "a/b", "\x1b[2J", &"a".repeat(254)] {
                assert!(matches!(lookup(bad, 5).await, Err(Error::Unresolved { .. })), "{bad:?}");
            }
        });
    }
}
