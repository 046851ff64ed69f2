//! Making TCP sockets and asking them who they are. Options follow `wire.md` A.2: TCP_NODELAY on all links, keepalive on
//! dialed ones.

use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketAddrAny, SocketFlags, SocketType, ipproto};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// A dialed socket that is idle for this long is probed ...
const KEEPALIVE_IDLE: Duration = Duration::from_secs(300);
/// ... this often ...
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(75);
/// ... and is dead after this many probes without an answer.
const KEEPALIVE_PROBES: u32 = 2;

/// A socket to be connected to `target`: close-on-exec, TCP_NODELAY, keepalive (idle 300 s, interval 75 s, 2 probes).
///
/// # Errors
/// What the system says, `EMFILE` and `EAFNOSUPPORT` above all.
pub fn to_dial(target: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(&socket, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(&socket, KEEPALIVE_PROBES)?;
    sockopt::set_socket_keepalive(&socket, true)?;
    Ok(socket)
}

/// Sets the options of an accepted socket: TCP_NODELAY.
///
/// # Errors
/// `EINVAL` when the peer has already reset the connection on some systems; the connection is useless then.
pub fn set_accepted(socket: impl AsFd) -> Result<(), Errno> {
    sockopt::set_tcp_nodelay(socket, true)
}

/// The other side of a connected socket. An IPv4-mapped IPv6 address is given as IPv4, so that rules about networks see
/// what the peer is.
///
/// # Errors
/// `ENOTCONN` when the peer is already gone; `EAFNOSUPPORT` when it is no internet socket.
pub fn peer_addr(socket: impl AsFd) -> Result<SocketAddr, Errno> {
    internet(rustix::net::getpeername(socket)?.ok_or(Errno::NOTCONN)?)
}

/// This side of a socket, IPv4-mapped addresses unwrapped as by [`peer_addr`].
///
/// # Errors
/// `EAFNOSUPPORT` when it is no internet socket.
pub fn local_addr(socket: impl AsFd) -> Result<SocketAddr, Errno> {
    internet(rustix::net::getsockname(socket)?)
}

fn internet(address: SocketAddrAny) -> Result<SocketAddr, Errno> {
    let address = SocketAddr::try_from(address).map_err(|_| Errno::AFNOSUPPORT)?;
    Ok(unmapped(address))
}

/// The IPv4 address inside an IPv4-mapped IPv6 address; any other address as it is.
pub fn unmapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::from((v4, v6.port())),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

/// Whether an error of `accept` is about the one connection that could not be accepted, not about accepting: Linux also
/// reports here what went wrong on a connection while it waited.
pub(super) fn concerns_one_connection(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::CONNABORTED
            | Errno::INTR
            | Errno::PROTO
            | Errno::NOPROTOOPT
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::NONET
    )
}

#[cfg(test)]
mod tests {
    use super::{local_addr, peer_addr, set_accepted, to_dial, unmapped};
    use rustix::net::sockopt;
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::time::Duration;

    #[test]
    fn mapped_addresses_are_unwrapped() {
        for (given, expected) in [
            ("[::ffff:127.0.0.1]:4000", "127.0.0.1:4000"),
            ("[::1]:4000", "[::1]:4000"),
            ("[::127.0.0.1]:1", "[::127.0.0.1]:1"),
            ("10.0.0.1:65535", "10.0.0.1:65535"),
        ] {
            assert_eq!(unmapped(given.parse().unwrap()), expected.parse::<SocketAddr>().unwrap(), "{given}");
        }
    }

    #[test]
    fn a_dialed_socket_has_the_options_of_the_wire() {
        let socket = to_dial("127.0.0.1:1".parse().unwrap()).unwrap();
        assert!(sockopt::tcp_nodelay(&socket).unwrap());
        assert!(sockopt::socket_keepalive(&socket).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&socket).unwrap(), Duration::from_secs(300));
        assert_eq!(sockopt::tcp_keepintvl(&socket).unwrap(), Duration::from_secs(75));
        assert_eq!(sockopt::tcp_keepcnt(&socket).unwrap(), 2);
        let flags = rustix::io::fcntl_getfd(&socket).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn both_sides_agree_who_they_are() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        set_accepted(&server).unwrap();
        assert!(server.nodelay().unwrap());
        assert_eq!(peer_addr(&server).unwrap(), client.local_addr().unwrap());
        assert_eq!(local_addr(&server).unwrap(), client.peer_addr().unwrap());
        assert_eq!(peer_addr(&listener), Err(rustix::io::Errno::NOTCONN));
    }
}
