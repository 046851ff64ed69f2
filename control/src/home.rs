//! Where state lives: `$OCKAM_HOME`, the directories of nodes, their sockets and locks.
//!
//! ```text
//! $OCKAM_HOME/            0700   default ~/.ockam
//!   ockam.db              0600   nodes, vaults and identities by name, and the defaults (shared by all processes)
//!   vaults/               0700
//!     NAME                0600   secret keys
//!   nodes/                0700
//!     NAME/               0700
//!       node.db           0600   what the node shall be (written by its control only)
//!       authority.db      0600   the members of an authority (written by its control only)
//!       control.sock      0600   HTTP/JSON          control.lock   held by a living control
//!       engine.sock       0600   SOCK_SEQPACKET     engine.lock    held by a living engine
//!       control.log       0600                      engine.log     0600
//! ```
//!
//! Modes hold under any umask. Whether a process lives is asked of its lock and never of a stored pid: an open file
//! description lock ends with its holder, whatever ended it.

use crate::api::NodeStatus;
use crate::error::Error;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Longest name of a node in bytes.
pub const NODE_NAME_BYTES_MAX: usize = 64;

/// Longest path of a Unix socket in bytes, without the zero at its end.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The home directory. It need not exist yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    path: PathBuf,
}

impl Home {
    /// The one that the environment names: `OCKAM_HOME`, else `.ockam` in `HOME`.
    ///
    /// # Errors
    /// [`Error::NoHome`]; [`Error::Storage`] when the current directory, to which it is relative, is gone.
    pub fn locate() -> Result<Home, Error> {
        let set = |name| std::env::var_os(name).filter(|value: &std::ffi::OsString| !value.is_empty());
        let path = match set("OCKAM_HOME") {
            Some(path) => PathBuf::from(path),
            None => Path::new(&set("HOME").ok_or(Error::NoHome)?).join(".ockam"),
        };
        let absolute = std::path::absolute(&path).map_err(|error| Error::storage("find", &path, &error))?;
        Ok(Home { path: absolute })
    }

    /// The one at `path`, which is absolute.
    pub fn at(path: impl Into<PathBuf>) -> Home {
        Home { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The shared database.
    pub fn database(&self) -> PathBuf {
        self.path.join("ockam.db")
    }

    /// The directory of a node, which need not exist.
    pub fn node(&self, name: &NodeName) -> NodeDir {
        NodeDir { path: self.nodes().join(name.as_str()), name: name.clone() }
    }

    /// The file of a vault that has no path of its own. Neither it nor its directory need exist.
    pub fn vault(&self, name: &str) -> PathBuf {
        self.vaults().join(name)
    }

    /// Makes the directory of the vaults, if it does not exist, and checks that it can be trusted.
    ///
    /// # Errors
    /// As [`Home::prepare`].
    pub fn prepare_vaults(&self) -> Result<(), Error> {
        self.prepare()?;
        make_or_check(&self.vaults()).map(drop)
    }

    fn vaults(&self) -> PathBuf {
        self.path.join("vaults")
    }

    fn nodes(&self) -> PathBuf {
        self.path.join("nodes")
    }

    /// Checks that it can be trusted; one that does not exist can.
    ///
    /// # Errors
    /// [`Error::NotOurs`], [`Error::OpenToOthers`], [`Error::WrongKind`], [`Error::Storage`].
    pub fn check(&self) -> Result<(), Error> {
        // The home itself may be a symbolic link: it is the user's choice. Nothing below it may be one.
        match fs::metadata(&self.path) {
            Ok(metadata) => check_directory(&self.path, &metadata)?,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::storage("open", &self.path, &error)),
        }
        match fs::symlink_metadata(self.nodes()) {
            Ok(metadata) => check_directory(&self.nodes(), &metadata),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::storage("open", self.nodes(), &error)),
        }
    }

    /// Makes it, if it does not exist, and checks that it can be trusted.
    ///
    /// # Errors
    /// As [`Home::check`].
    pub fn prepare(&self) -> Result<(), Error> {
        if let Err(error) = fs::metadata(&self.path) {
            if error.kind() != ErrorKind::NotFound {
                return Err(Error::storage("open", &self.path, &error));
            }
            if let Some(parent) = self.path.parent() {
                let made = DirBuilder::new().recursive(true).mode(0o700).create(parent);
                made.map_err(|error| Error::storage("create", parent, &error))?;
            }
        }
        match make_private_directory(&self.path) {
            Ok(()) => {}
            // Somebody made it just now, or it is a symbolic link to a directory; `check` looks at what it is.
            Err(Error::Storage { errno, .. }) if errno == libc::EEXIST => {}
            Err(error) => return Err(error),
        }
        self.check()?;
        match make_private_directory(&self.nodes()) {
            Err(Error::Storage { errno, .. }) if errno == libc::EEXIST => self.check(),
            made => made,
        }
    }
}

/// Makes a directory with mode 0700 under any umask.
fn make_private_directory(path: &Path) -> Result<(), Error> {
    let made = DirBuilder::new().mode(0o700).create(path);
    made.map_err(|error| Error::storage("create", path, &error))?;
    let opened = fs::set_permissions(path, Permissions::from_mode(0o700));
    opened.map_err(|error| Error::storage("set the mode of", path, &error))
}

/// Makes a directory of ours, or checks the one that is there. Says whether it was made.
fn make_or_check(path: &Path) -> Result<bool, Error> {
    match make_private_directory(path) {
        Ok(()) => Ok(true),
        Err(Error::Storage { errno, .. }) if errno == libc::EEXIST => {
            let metadata = fs::symlink_metadata(path);
            check_directory(path, &metadata.map_err(|error| Error::storage("open", path, &error))?)?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn check_directory(path: &Path, metadata: &fs::Metadata) -> Result<(), Error> {
    if !metadata.is_dir() {
        return Err(Error::WrongKind { path: path.into(), found: kind_name(metadata), wanted: "a directory" });
    }
    check_owner(path, metadata)?;
    if metadata.mode() & 0o022 != 0 {
        return Err(Error::OpenToOthers { path: path.into(), mode: metadata.mode() & 0o7777 });
    }
    Ok(())
}

fn check_owner(path: &Path, metadata: &fs::Metadata) -> Result<(), Error> {
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() == user { Ok(()) } else { Err(Error::NotOurs { path: path.into(), owner: metadata.uid(), user }) }
}

fn kind_name(metadata: &fs::Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_file() {
        "a file"
    } else {
        "a special file"
    }
}

/// Opens or makes a file with mode 0600 under any umask. A symbolic link is refused.
///
/// # Errors
/// [`Error::NotOurs`], [`Error::WrongKind`], [`Error::Storage`].
pub fn open_private_file(path: &Path, options: &mut OpenOptions) -> Result<File, Error> {
    let opened = options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC).open(path);
    let file = match opened {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(Error::WrongKind { path: path.into(), found: "a symbolic link", wanted: "a file" });
        }
        opened => opened.map_err(|error| Error::storage("open", path, &error))?,
    };
    let metadata = file.metadata().map_err(|error| Error::storage("examine", path, &error))?;
    if !metadata.is_file() {
        return Err(Error::WrongKind { path: path.into(), found: kind_name(&metadata), wanted: "a file" });
    }
    check_owner(path, &metadata)?;
    if metadata.mode() & 0o777 != 0o600 {
        let set = file.set_permissions(Permissions::from_mode(0o600));
        set.map_err(|error| Error::storage("set the mode of", path, &error))?;
    }
    Ok(file)
}

/// The name of a node: letters, digits, `_` and `-`, at most [`NODE_NAME_BYTES_MAX`], beginning with none of `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(String);

impl NodeName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Two random words, such as `quiet-heron`.
    pub fn random() -> NodeName {
        let [a, b] = crate::random::bytes::<2>();
        let word = |words: &'static str, at: u8| words.split(' ').nth(usize::from(at) % 64).expect("64 words");
        NodeName(format!("{}-{}", word(ADJECTIVES, a), word(ANIMALS, b)))
    }
}

const ADJECTIVES: &str = "able airy alert amber ample apt azure bold brave brief bright brisk calm candid careful clear \
clever cosy crisp deft eager early easy exact fair fine firm fleet fond frank free fresh gentle glad golden grand happy \
hardy honest humble jolly keen kind lively loyal lucid lucky mellow merry mild modest neat nimble noble patient polite \
proud quick quiet ready serene silver steady swift";

const ANIMALS: &str = "adder alpaca badger bat bear beaver bee bison bittern boar bream buffalo bustard camel carp cat \
chamois cod condor crane cricket crow curlew deer dingo dipper dove duck eagle egret eland elk falcon ferret finch fox \
gannet gecko gibbon goose grouse gull hare hawk heron hornet horse ibex ibis jay kestrel kite koala lark lemur linnet \
lion lynx magpie marten mole moose moth newt";

impl FromStr for NodeName {
    type Err = Error;

    fn from_str(text: &str) -> Result<NodeName, Error> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let why = if text.is_empty() {
            "is empty"
        } else if text.len() > NODE_NAME_BYTES_MAX {
            "is longer than 64 characters"
        } else if text.starts_with('-') {
            "begins with a dash"
        } else if !text.bytes().all(allowed) {
            "has characters that a name cannot have"
        } else {
            return Ok(NodeName(text.into()));
        };
        let shown = crate::text::escape(text.as_bytes(), NODE_NAME_BYTES_MAX);
        Err(Error::BadArgument {
            argument: "the name of a node".into(),
            value: shown,
            why: why.into(),
            fix: "Use up to 64 letters, digits, '_' and '-', such as n1.".into(),
        })
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The directory of a node. It need not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeDir {
    path: PathBuf,
    name: NodeName,
}

impl NodeDir {
    /// The home that it is in.
    pub fn home(&self) -> Home {
        let home = self.path.ancestors().nth(2).unwrap_or(&self.path);
        Home { path: home.to_owned() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The node.
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// The node's own database.
    pub fn database(&self) -> PathBuf {
        self.path.join("node.db")
    }

    /// `authority.db`.
    pub fn authority_database(&self) -> PathBuf {
        self.path.join("authority.db")
    }

    /// The log of control.
    pub fn control_log(&self) -> PathBuf {
        self.path.join("control.log")
    }

    /// The log of the engine.
    pub fn engine_log(&self) -> PathBuf {
        self.path.join("engine.log")
    }

    /// The lock that a living control holds.
    pub fn control_lock(&self) -> PathBuf {
        self.path.join("control.lock")
    }

    /// The lock that a living engine holds.
    pub fn engine_lock(&self) -> PathBuf {
        self.path.join("engine.lock")
    }

    /// The socket of the API.
    ///
    /// # Errors
    /// [`Error::Storage`] when the directory cannot be opened.
    pub fn control_socket(&self) -> Result<SocketPath, Error> {
        SocketPath::new(&self.path, "control.sock")
    }

    /// The socket of the engine.
    ///
    /// # Errors
    /// [`Error::Storage`] when the directory cannot be opened.
    pub fn engine_socket(&self) -> Result<SocketPath, Error> {
        SocketPath::new(&self.path, "engine.sock")
    }

    /// Makes it, if it does not exist, and checks that it can be trusted. Says whether it was made.
    ///
    /// # Errors
    /// [`Error::NotOurs`], [`Error::OpenToOthers`], [`Error::WrongKind`], [`Error::Storage`].
    pub fn prepare(&self) -> Result<bool, Error> {
        make_or_check(&self.path)
    }

    /// Removes it with all that is in it; symbolic links are removed, never followed.
    ///
    /// # Errors
    /// [`Error::Storage`]; that it does not exist is none.
    pub fn remove(&self) -> Result<(), Error> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::storage("remove", &self.path, &error)),
            _ => Ok(()),
        }
    }

    /// Whether its processes live.
    ///
    /// # Errors
    /// [`Error::Storage`] when a lock cannot be examined.
    pub fn status(&self) -> Result<NodeStatus, Error> {
        Ok(if Lock::is_held(&self.control_lock(), Part::Life)? {
            NodeStatus::Running
        } else if Lock::is_held(&self.engine_lock(), Part::Life)? {
            NodeStatus::Headless
        } else {
            NodeStatus::Stopped
        })
    }

    /// Waits until nobody else starts, stops or deletes the node, and keeps others from it until the lock is dropped.
    ///
    /// # Errors
    /// [`Error::Storage`]; when the directory does not exist, too.
    pub fn lock_change(&self) -> Result<Lock, Error> {
        Lock::take(&self.control_lock(), Part::Change)
    }
}

/// A path by which a Unix socket can be bound or reached, whatever the length of its directory's path.
#[derive(Debug)]
pub struct SocketPath {
    path: PathBuf,
    /// Open as long as `path` goes through it.
    _directory: Option<OwnedFd>,
}

impl SocketPath {
    fn new(directory: &Path, file: &str) -> Result<SocketPath, Error> {
        let path = directory.join(file);
        if OsStr::as_bytes(path.as_os_str()).len() <= SOCKET_PATH_BYTES_MAX {
            return Ok(SocketPath { path, _directory: None });
        }
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(directory);
        let opened = opened.map_err(|error| Error::storage("open", directory, &error))?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{file}", opened.as_raw_fd()));
        Ok(SocketPath { path, _directory: Some(opened.into()) })
    }

    /// Valid as long as `self` lives, in this process.
    pub fn as_path(&self) -> &Path {
        &self.path
    }
}

/// What a lock is about; each is a byte of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The process lives.
    Life = 0,
    /// The node is being started, stopped or deleted.
    Change = 1,
}

/// An exclusive lock, held until it is dropped. The file is close-on-exec, so that the holder is this process alone.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, or says with `None` that another process has it.
    ///
    /// # Errors
    /// As [`open_private_file`].
    pub fn try_take(path: &Path, part: Part) -> Result<Option<Lock>, Error> {
        let file = Lock::open(path)?;
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&range(part))) {
            Ok(_) => Ok(Some(Lock { _file: file })),
            Err(nix::Error::EAGAIN | nix::Error::EACCES) => Ok(None),
            Err(errno) => Err(Error::Storage { what: "lock", path: path.into(), errno: errno as i32 }),
        }
    }

    /// Waits until the lock is free and takes it.
    ///
    /// # Errors
    /// As [`open_private_file`].
    pub fn take(path: &Path, part: Part) -> Result<Lock, Error> {
        loop {
            let file = Lock::open(path)?;
            match fcntl(&file, FcntlArg::F_OFD_SETLKW(&range(part))) {
                // Who held it may have deleted the file, and the next one would lock another.
                Ok(_) if is_at(&file, path) => return Ok(Lock { _file: file }),
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(errno) => return Err(Error::Storage { what: "lock", path: path.into(), errno: errno as i32 }),
            }
        }
    }

    fn open(path: &Path) -> Result<File, Error> {
        open_private_file(path, OpenOptions::new().read(true).write(true).create(true).truncate(false))
    }

    /// Whether a process holds the lock. Takes nothing, so that asking disturbs nobody.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub fn is_held(path: &Path, part: Part) -> Result<bool, Error> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Error::storage("open", path, &error)),
        };
        let mut asked = range(part);
        fcntl(&file, FcntlArg::F_OFD_GETLK(&mut asked)).map_err(|errno| Error::Storage {
            what: "examine the lock",
            path: path.into(),
            errno: errno as i32,
        })?;
        Ok(i32::from(asked.l_type) != libc::F_UNLCK)
    }
}

fn range(part: Part) -> libc::flock {
    let (l_type, l_whence) = (libc::F_WRLCK as i16, libc::SEEK_SET as i16);
    libc::flock { l_type, l_whence, l_start: part as i64, l_len: 1, l_pid: 0 }
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(held), Ok(found)) => (held.dev(), held.ino()) == (found.dev(), found.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["n1", "a", "A_b-9", "quiet-heron", "9", "_x", &"x".repeat(64)] {
            assert_eq!(good.parse::<NodeName>().unwrap().as_str(), good);
        }
        for bad in ["", "-n", ".", "..", "a/b", "a b", "ä", "n1\n", "a\0", "n.db", &"x".repeat(65)] {
            assert_eq!(bad.parse::<NodeName>().unwrap_err().exit(), 64, "{bad:?}");
        }
    }

    #[test]
    fn random_names_are_names() {
        for words in [ADJECTIVES, ANIMALS] {
            let words: Vec<&str> = words.split(' ').collect();
            assert_eq!(words.len(), 64);
            let distinct: std::collections::BTreeSet<_> = words.iter().collect();
            assert_eq!(distinct.len(), 64);
        }
        let name = NodeName::random();
        assert_eq!(name.as_str().parse::<NodeName>().unwrap(), name);
    }

    #[test]
    fn a_home_is_private_and_refused_when_others_may_write() {
        let temporary = tempfile::tempdir().unwrap();
        let home = Home::at(temporary.path().join("a/b"));
        home.check().unwrap();
        home.prepare().unwrap();
        home.prepare().unwrap();
        for path in [home.path().to_owned(), home.nodes()] {
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        }
        let node = home.node(&"n1".parse().unwrap());
        assert!(node.prepare().unwrap());
        assert!(!node.prepare().unwrap());

        fs::set_permissions(node.path(), Permissions::from_mode(0o770)).unwrap();
        assert!(matches!(node.prepare(), Err(Error::OpenToOthers { mode: 0o770, .. })));
        fs::set_permissions(home.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(home.prepare(), Err(Error::OpenToOthers { .. })));
    }

    #[test]
    fn a_file_or_a_link_in_the_place_of_a_directory_is_named() {
        let temporary = tempfile::tempdir().unwrap();
        let home = Home::at(temporary.path().join("home"));
        fs::write(home.path(), "").unwrap();
        assert!(matches!(home.prepare(), Err(Error::WrongKind { found: "a file", .. })));
        fs::remove_file(home.path()).unwrap();

        home.prepare().unwrap();
        let node = home.node(&"n1".parse().unwrap());
        std::os::unix::fs::symlink(temporary.path(), node.path()).unwrap();
        assert!(matches!(node.prepare(), Err(Error::WrongKind { found: "a symbolic link", .. })));
        std::os::unix::fs::symlink("/etc/passwd", home.path().join("x.lock")).unwrap();
        let refused = Lock::try_take(&home.path().join("x.lock"), Part::Life);
        assert!(matches!(refused, Err(Error::WrongKind { found: "a symbolic link", .. })));
    }

    #[test]
    fn removing_a_node_follows_no_link() {
        let temporary = tempfile::tempdir().unwrap();
        let home = Home::at(temporary.path().join("home"));
        home.prepare().unwrap();
        let kept = temporary.path().join("kept");
        fs::write(&kept, "x").unwrap();
        let node = home.node(&"n1".parse().unwrap());
        node.prepare().unwrap();
        std::os::unix::fs::symlink(temporary.path(), node.path().join("link")).unwrap();
        node.remove().unwrap();
        node.remove().unwrap();
        assert!(kept.exists() && !node.path().exists());
    }

    #[test]
    fn a_lock_is_held_until_it_is_dropped() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("a.lock");
        assert!(!Lock::is_held(&path, Part::Life).unwrap());
        let lock = Lock::try_take(&path, Part::Life).unwrap().unwrap();
        assert!(Lock::is_held(&path, Part::Life).unwrap());
        assert!(!Lock::is_held(&path, Part::Change).unwrap());
        assert!(Lock::try_take(&path, Part::Life).unwrap().is_none());
        drop(Lock::take(&path, Part::Change).unwrap());
        drop(lock);
        assert!(!Lock::is_held(&path, Part::Life).unwrap());
        drop(Lock::take(&path, Part::Life).unwrap());
    }

    #[test]
    fn who_waits_for_a_deleted_lock_gets_the_new_one() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("a.lock");
        let first = Lock::take(&path, Part::Change).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| Lock::take(&path, Part::Change).unwrap());
            fs::remove_file(&path).unwrap();
            drop(first);
            let lock = waiting.join().unwrap();
            assert!(Lock::is_held(&path, Part::Change).unwrap());
            drop(lock);
        });
    }

    #[test]
    fn sockets_are_reached_below_long_paths() {
        let temporary = tempfile::tempdir().unwrap();
        let home = Home::at(temporary.path().join("x".repeat(200)));
        home.prepare().unwrap();
        let node = home.node(&"n1".parse().unwrap());
        node.prepare().unwrap();
        let socket = node.control_socket().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(socket.as_path()).unwrap();
        let _client = std::os::unix::net::UnixStream::connect(node.control_socket().unwrap().as_path()).unwrap();
        listener.accept().unwrap();
        assert!(node.path().join("control.sock").exists());
    }
}
