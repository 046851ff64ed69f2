//! Making sockets and asking them who they are. Options of TCP follow `wire.md` A.2: TCP_NODELAY on all, keepalive on
//! dialed links and on both kinds of streams. Unix sockets need none.

use ockam_engine_abi::{PortalTarget, UNIX_PATH_MAX};
use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, ipproto};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// A socket with keepalive that is idle for this long is probed ...
const KEEPALIVE_IDLE: Duration = Duration::from_secs(300);
/// ... this often ...
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(75);
/// ... and is dead after this many probes without an answer.
const KEEPALIVE_PROBES: u32 = 2;

/// What stands for the address of a Unix socket: `0.0.0.0:0`, which no connected socket has.
pub const UNIX: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));

/// The address that [`to_dial`] and [`super::driver::Driver::connect`] take.
///
/// # Errors
/// `EINVAL` for a path that is empty or holds a zero byte (sockets without a name in the file system are not dialed),
/// `ENAMETOOLONG` for one of more than [`UNIX_PATH_MAX`] bytes.
pub fn address_of(target: &PortalTarget) -> Result<SocketAddrAny, Errno> {
    match target {
        PortalTarget::Tcp(address) => Ok((*address).into()),
        PortalTarget::Unix(path) if path.is_empty() => Err(Errno::INVAL),
        PortalTarget::Unix(path) if path.len() > UNIX_PATH_MAX => Err(Errno::NAMETOOLONG),
        PortalTarget::Unix(path) => Ok(SocketAddrUnix::new(&**path)?.into()),
    }
}

/// A socket to be connected to `target`: close-on-exec; for TCP also TCP_NODELAY and keepalive (idle 300 s, interval
/// 75 s, 2 probes).
///
/// # Errors
/// What the system says, `EMFILE` and `EAFNOSUPPORT` above all.
pub fn to_dial(target: impl Into<SocketAddrAny>) -> Result<OwnedFd, Errno> {
    let family = target.into().address_family();
    let protocol = (family != AddressFamily::UNIX).then_some(ipproto::TCP);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, protocol)?;
    if protocol.is_some() {
        sockopt::set_tcp_nodelay(&socket, true)?;
        set_keepalive(&socket)?;
    }
    Ok(socket)
}

/// Connects a Unix socket without waiting, and leaves it in blocking mode. Gives what [`local_addr`] does.
///
/// # Errors
/// What the system says; `EAGAIN` when the backlog is full.
pub(super) fn connect_unix(socket: impl AsFd, target: &SocketAddrAny) -> Result<SocketAddr, Errno> {
    rustix::io::ioctl_fionbio(&socket, true)?;
    rustix::net::connect(&socket, target)?;
    rustix::io::ioctl_fionbio(&socket, false)?;
    Ok(UNIX)
}

fn set_keepalive(socket: impl AsFd) -> Result<(), Errno> {
    sockopt::set_tcp_keepidle(&socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(&socket, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(&socket, KEEPALIVE_PROBES)?;
    sockopt::set_socket_keepalive(&socket, true)
}

/// Sets the options of the accepted socket of a link: TCP_NODELAY.
///
/// # Errors
/// `EINVAL` when the peer has already reset the connection on some systems; the connection is useless then.
pub fn set_accepted(socket: impl AsFd) -> Result<(), Errno> {
    sockopt::set_tcp_nodelay(socket, true)
}

/// Sets the options of a socket that was accepted from an application: TCP_NODELAY and keepalive as by [`to_dial`] for
/// TCP, none for Unix.
///
/// # Errors
/// As [`set_accepted`].
pub fn set_accepted_stream(socket: impl AsFd) -> Result<(), Errno> {
    if sockopt::socket_domain(&socket)? == AddressFamily::UNIX {
        return Ok(());
    }
    sockopt::set_tcp_nodelay(&socket, true)?;
    set_keepalive(socket)
}

/// Whether the socket is reset when its last descriptor is closed, by whoever or whatever closes it. Without effect on
/// Unix sockets.
///
/// # Errors
/// None on an open socket.
pub fn set_abortive(socket: impl AsFd, abortive: bool) -> Result<(), Errno> {
    sockopt::set_socket_linger(socket, abortive.then_some(Duration::ZERO))
}

/// The other side of a connected socket: [`UNIX`] for a Unix socket. An IPv4-mapped IPv6 address is given as IPv4, so
/// that rules about networks see what the peer is.
///
/// # Errors
/// `ENOTCONN` when the peer is already gone; `EAFNOSUPPORT` when it is neither an internet nor a Unix socket.
pub fn peer_addr(socket: impl AsFd) -> Result<SocketAddr, Errno> {
    internet(rustix::net::getpeername(socket)?.ok_or(Errno::NOTCONN)?)
}

/// This side of a socket, as [`peer_addr`] gives the other.
///
/// # Errors
/// `EAFNOSUPPORT` when it is neither an internet nor a Unix socket.
pub fn local_addr(socket: impl AsFd) -> Result<SocketAddr, Errno> {
    internet(rustix::net::getsockname(socket)?)
}

fn internet(address: SocketAddrAny) -> Result<SocketAddr, Errno> {
    if address.address_family() == AddressFamily::UNIX {
        return Ok(UNIX);
    }
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
    use super::{UNIX, address_of, local_addr, peer_addr, set_accepted, set_accepted_stream, to_dial, unmapped};
    use ockam_engine_abi::{PortalTarget, UNIX_PATH_MAX};
    use rustix::io::Errno;
    use rustix::net::{AddressFamily, sockopt};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
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
        let socket = to_dial("127.0.0.1:1".parse::<SocketAddr>().unwrap()).unwrap();
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

    #[test]
    fn a_unix_socket_has_no_options_and_no_address() {
        let (one, _other) = UnixStream::pair().unwrap();
        set_accepted_stream(&one).unwrap();
        assert_eq!((peer_addr(&one), local_addr(&one)), (Ok(UNIX), Ok(UNIX)));
        let target = address_of(&PortalTarget::Unix((*b"/nowhere").into())).unwrap();
        let socket = to_dial(target).unwrap();
        assert_eq!(sockopt::socket_domain(&socket), Ok(AddressFamily::UNIX));
    }

    #[test]
    fn paths_that_are_none_are_refused() {
        let longest = vec![b'p'; UNIX_PATH_MAX];
        assert!(address_of(&PortalTarget::Unix(longest.into())).is_ok());
        let too_long = vec![b'p'; UNIX_PATH_MAX + 1];
        assert_eq!(address_of(&PortalTarget::Unix(too_long.into())), Err(Errno::NAMETOOLONG));
        for path in [&b""[..], b"\0abstract", b"/a\0b"] {
            assert_eq!(address_of(&PortalTarget::Unix(path.into())), Err(Errno::INVAL), "{path:?}");
        }
    }

    #[test]
    fn an_accepted_stream_has_keepalive() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        set_accepted_stream(&server).unwrap();
        assert!(server.nodelay().unwrap() && sockopt::socket_keepalive(&server).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&server).unwrap(), Duration::from_secs(300));
    }
}
