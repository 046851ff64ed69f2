//! Where inlets listen.

use crate::cli::values::listen_address;
use crate::error::Error;
use crate::resolve::{bind_listener, to_listen};
use ockam_engine_abi::UNIX_PATH_MAX;
use rustix::fs::{Mode, fchmod};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, bind, connect, getsockname, listen,
    socket_with,
};
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// What a Unix socket is written with in front of its path.
const UNIX: &str = "unix:";

/// By what a path is taken.
const LISTENED_ON: &str = "another process listens there";

/// Connections that wait to be accepted, on a Unix socket.
const UNIX_BACKLOG: i32 = 4096;

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Listen {
    /// On a TCP address.
    Tcp(SocketAddr),
    /// On a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => address.fmt(formatter),
            Listen::Unix(path) => write!(formatter, "{UNIX}{}", path.display()),
        }
    }
}

impl Listen {
    /// Reads what came over the API. A host name is resolved.
    ///
    /// # Errors
    /// [`Error::BadArgument`], [`Error::Unresolved`].
    pub(super) async fn read(text: &str) -> Result<Listen, Error> {
        match unix_path("from", text)? {
            Some(path) => Ok(Listen::Unix(path)),
            None if listen_address(text).is_err() => Err(Error::BadArgument {
                argument: "from".into(),
                value: crate::text::escape(text.as_bytes(), 300),
                why: "is no place to listen".into(),
                fix: "Write IP:PORT, such as 127.0.0.1:5432, or unix:/path.".into(),
            }),
            None => to_listen(text).await.map(Listen::Tcp),
        }
    }

    /// Reads what was stored.
    pub(super) fn stored(text: &str) -> Option<Listen> {
        match text.strip_prefix(UNIX) {
            Some(path) => Some(Listen::Unix(path.into())),
            None => text.parse().ok().map(Listen::Tcp),
        }
    }

    /// Where a socket listens that somebody else bound.
    pub(super) fn of(socket: impl AsFd) -> Option<Listen> {
        let local: SocketAddrAny = getsockname(socket).ok()?;
        if let Ok(address) = SocketAddr::try_from(local.clone()) {
            return Some(Listen::Tcp(address));
        }
        let path = SocketAddrUnix::try_from(local).ok()?.path()?.to_str().ok()?.to_owned();
        Some(Listen::Unix(path.into()))
    }

    /// A listening socket, and where it listens: port 0 has become one that was free. Only this user reaches a Unix socket.
    /// One that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// [`Error::AddressBusy`], [`Error::PathBusy`], and what else keeps it from listening.
    pub(super) fn bind(&self) -> Result<(OwnedFd, Listen), Error> {
        match self {
            Listen::Tcp(address) => bind_listener(*address).map(|(socket, local)| (socket, Listen::Tcp(local))),
            Listen::Unix(path) => bind_unix(path).map(|socket| (socket, self.clone())),
        }
    }
}

/// The path of a Unix socket, if `text` means one. `argument` names it in errors.
///
/// # Errors
/// [`Error::BadArgument`].
pub(super) fn unix_path(argument: &str, text: &str) -> Result<Option<PathBuf>, Error> {
    let Some(path) = text.strip_prefix(UNIX) else { return Ok(None) };
    let why = if !path.starts_with('/') {
        "has no absolute path".to_owned()
    } else if path.len() > UNIX_PATH_MAX {
        format!("has a path of {} bytes, and the path of a socket has at most {UNIX_PATH_MAX}", path.len())
    } else if path.contains('\0') {
        "has a path that cannot be".to_owned()
    } else {
        return Ok(Some(path.into()));
    };
    Err(Error::BadArgument {
        argument: argument.into(),
        value: crate::text::escape(text.as_bytes(), 300),
        why,
        fix: "Write unix: and a path that begins with /.".into(),
    })
}

/// Listens on a Unix socket that only this user reaches.
///
/// # Errors
/// [`Error::PathBusy`], [`Error::Storage`].
pub(super) fn bind_unix(path: &Path) -> Result<OwnedFd, Error> {
    let try_once = || -> Result<OwnedFd, Errno> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // The file gets the mode of the socket: at no time can others connect.
        fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        listen(&socket, UNIX_BACKLOG)?;
        Ok(socket)
    };
    let failed = |errno: Errno| Error::storage("listen on", path, &errno.into());
    match try_once() {
        Err(Errno::ADDRINUSE) => {}
        bound => return bound.map_err(failed),
    }
    let busy = |by| Err(Error::PathBusy { path: path.to_owned(), by });
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => return busy("something is there that is no socket"),
        _ if is_listened_on(path) => return busy(LISTENED_ON),
        _ => {}
    }
    // It was left by a process that was killed.
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::storage("remove", path, &error));
        }
        _ => {}
    }
    match try_once() {
        Err(Errno::ADDRINUSE) => busy(LISTENED_ON),
        bound => bound.map_err(failed),
    }
}

/// Whether a process listens on a Unix socket. When that cannot be said, it does.
fn is_listened_on(path: &Path) -> bool {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let connected = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .and_then(|socket| connect(&socket, &SocketAddrUnix::new(path)?));
    !matches!(connected, Err(Errno::CONNREFUSED | Errno::NOENT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn a_unix_socket_is_private_and_only_a_dead_one_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listen = Listen::Unix(path.clone());
        let (socket, local) = listen.bind().unwrap();
        assert_eq!((&local, Listen::of(&socket)), (&listen, Some(listen.clone())));
        assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        // It lives: another one is refused, and this one goes on.
        assert!(matches!(listen.bind(), Err(Error::PathBusy { by: "another process listens there", .. })));
        UnixStream::connect(&path).unwrap();
        drop(socket);
        // What is left of it is replaced.
        let (socket, _) = listen.bind().unwrap();
        UnixStream::connect(&path).unwrap();
        drop(socket);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(matches!(listen.bind(), Err(Error::PathBusy { by: "something is there that is no socket", .. })));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        let missing = Listen::Unix(directory.path().join("no/s")).bind();
        assert!(matches!(missing, Err(Error::Storage { .. })));
        drop(UnixListener::bind(directory.path().join("other")).unwrap());
    }

    #[test]
    fn places_are_read_as_they_are_written() {
        crate::testing::run(async {
            for text in ["127.0.0.1:5432", "[::1]:0", "unix:/tmp/a b"] {
                let listen = Listen::read(text).await.unwrap();
                assert_eq!((listen.to_string(), Listen::stored(text)), (text.into(), Some(listen)));
            }
            for bad in ["", "unix:", "unix:s", "unix:./s", "a b", &format!("unix:/{}", "x".repeat(107))] {
                assert!(matches!(Listen::read(bad).await, Err(Error::BadArgument { .. })), "{bad:?}");
            }
            assert!(unix_path("to", &format!("unix:/{}", "x".repeat(106))).unwrap().is_some());
        });
    }
}
