//! One SQLite file of ours: made whole or not at all, recognised by its application id, migrated by its version.

use crate::error::Error;
use crate::home::open_private_file;
use rusqlite::{Connection, ErrorCode, OpenFlags, ToSql};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// How long one process waits for another that writes.
const BUSY_LIMIT: Duration = Duration::from_secs(5);

/// At least what SQLite allocates at once: a piece of its index of the log.
const PROBE_BYTES: usize = 64 * 1024;

/// The files whose header this process has read and found right: device, inode, application id, and when it was made,
/// since another file may have the inode of one that is gone.
static LOOKED_AT: Mutex<BTreeSet<LookedAt>> = Mutex::new(BTreeSet::new());

type LookedAt = (u64, u64, u32, Option<SystemTime>);

/// What tells a kind of file from others.
#[derive(Debug)]
pub struct Format {
    /// In the file's header.
    pub application_id: u32,
    /// `migrations[n]` brings a file from version `n` to `n + 1`.
    pub migrations: &'static [&'static str],
}

impl Format {
    fn version(&self) -> u32 {
        self.migrations.len() as u32
    }
}

/// Opens a file that exists; `None` when there is none.
///
/// The file's header is read before SQLite sees it, so that a file of somebody else is not touched, not even by a
/// recovery. That happens once in a process: closing that descriptor later would release the locks of connections that
/// the process has by then, and another process could take the log away from under them.
///
/// # Errors
/// [`Error::ForeignDatabase`], [`Error::NewerDatabase`], [`Error::Database`], [`Error::OpenToOthers`],
/// [`Error::NotOurs`], [`Error::WrongKind`], [`Error::Storage`].
pub fn open(path: &Path, format: &Format) -> Result<Option<Connection>, Error> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::storage("open", path, &error)),
        Ok(metadata) if metadata.is_file() && metadata.mode() & 0o077 != 0 => {
            return Err(Error::OpenToOthers { path: path.into(), mode: metadata.mode() & 0o7777 });
        }
        Ok(metadata) => metadata,
    };
    let looked_at = (metadata.dev(), metadata.ino(), format.application_id, metadata.created().ok());
    let mut all = LOOKED_AT.lock().unwrap_or_else(PoisonError::into_inner);
    if !all.contains(&looked_at) {
        check_header(path, format)?;
        all.insert(looked_at);
    }
    drop(all);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(|error| from_sqlite(path, &error))?;
    configure(&connection).map_err(|error| from_sqlite(path, &error))?;
    migrate(&mut connection, path, format)?;
    Ok(Some(connection))
}

/// Opens a file, after it was made if there was none. `fill` completes a new one; it is visible to nobody before that.
///
/// # Errors
/// As [`open`].
pub fn open_or_make(
    path: &Path,
    format: &Format,
    fill: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> Result<Connection, Error> {
    if let Some(connection) = open(path, format)? {
        return Ok(connection);
    }
    make(path, format, fill)?;
    open(path, format)?.ok_or_else(|| Error::storage("open", path, &ErrorKind::NotFound.into()))
}

/// Makes a file under another name, then gives it its own, unless another process was faster.
fn make(path: &Path, format: &Format, fill: impl FnOnce(&Connection) -> rusqlite::Result<()>) -> Result<(), Error> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::internal("a database needs a directory and a name"));
    };
    let draft = directory.join(format!(".{}.{}", name.to_string_lossy(), crate::random::hex_id()));
    let made = write_draft(&draft, path, format, fill).and_then(|()| match fs::hard_link(&draft, path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(Error::storage("create", path, &error)),
        _ => Ok(()),
    });
    let removed = fs::remove_file(&draft);
    if made.is_err() {
        // What SQLite keeps beside a file is left when the file could not be completed. Most often there is none.
        for suffix in ["-wal", "-shm"] {
            let mut beside = draft.clone().into_os_string();
            beside.push(suffix);
            let _ = fs::remove_file(beside);
        }
    }
    made?;
    removed.map_err(|error| Error::storage("remove", &draft, &error))?;
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| Error::storage("write", directory, &error))
}

fn write_draft(
    draft: &Path,
    path: &Path,
    format: &Format,
    fill: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> Result<(), Error> {
    let file = open_private_file(draft, OpenOptions::new().read(true).write(true).create_new(true))?;
    let mut connection = Connection::open(draft).map_err(|error| from_sqlite(path, &error))?;
    let built = (|| {
        // Nobody else knows the file yet: one fsync at its end is enough.
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        connection.pragma_update(None, "application_id", format.application_id)?;
        let transaction = connection.transaction()?;
        for migration in format.migrations {
            transaction.execute_batch(migration)?;
        }
        transaction.pragma_update(None, "user_version", format.version())?;
        fill(&transaction)?;
        transaction.commit()?;
        // The log is left behind, so all of it must be in the file; closing would keep quiet about a disk that is full.
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0))
    })();
    let busy = built.map_err(|error| from_sqlite(path, &error))?;
    assert!(!busy, "nobody else knows the draft");
    connection.close().map_err(|(_, error)| from_sqlite(path, &error))?;
    file.sync_all().map_err(|error| Error::storage("write", path, &error))
}

/// The 100 bytes at the front of every SQLite file: magic, version at 60, application id at 68, both big-endian.
fn check_header(path: &Path, format: &Format) -> Result<(), Error> {
    let mut file = open_private_file(path, OpenOptions::new().read(true))?;
    let mut header = [0; 100];
    match file.read_exact(&mut header) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            return Err(Error::Database { path: path.into(), why: "it is too short to be a database".into() });
        }
        read => read.map_err(|error| Error::storage("read", path, &error))?,
    }
    let number = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("4 bytes"));
    if !header.starts_with(b"SQLite format 3\0") {
        return Err(Error::Database { path: path.into(), why: "it is not an SQLite database".into() });
    }
    if number(68) != format.application_id {
        return Err(Error::ForeignDatabase { path: path.into(), found: number(68) });
    }
    Ok(())
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_LIMIT)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "secure_delete", true)
}

fn migrate(connection: &mut Connection, path: &Path, format: &Format) -> Result<(), Error> {
    let version =
        |connection: &Connection| connection.pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0));
    let found = version(connection).map_err(|error| from_sqlite(path, &error))?;
    if found > format.version() {
        return Err(Error::NewerDatabase { path: path.into(), found, known: format.version() });
    }
    if found == format.version() {
        return Ok(());
    }
    let migrated = (|| {
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        // Another process may have been faster.
        for migration in format.migrations.iter().skip(version(&transaction)? as usize) {
            transaction.execute_batch(migration)?;
        }
        transaction.pragma_update(None, "user_version", format.version())?;
        transaction.commit()
    })();
    migrated.map_err(|error| from_sqlite(path, &error))
}

/// Makes the rows with this value of `column` the default of a table, and no others. Gives how many there are.
pub(super) fn make_default(
    connection: &Connection,
    table: &str,
    column: &str,
    value: &dyn ToSql,
) -> rusqlite::Result<usize> {
    connection.execute(&format!("UPDATE {table} SET is_default = 0 WHERE is_default = 1"), [])?;
    connection.execute(&format!("UPDATE {table} SET is_default = 1 WHERE {column} = ?1"), [value])
}

/// After a row was removed from a table: when it was the default, the oldest is that `may_be` it.
pub(super) fn pass_default_on(connection: &Connection, table: &str, may_be: &str) -> rusqlite::Result<()> {
    let sql = format!(
        "UPDATE {table} SET is_default = 1
         WHERE rowid = (SELECT rowid FROM {table} WHERE {may_be} ORDER BY rowid LIMIT 1)
           AND NOT EXISTS (SELECT 1 FROM {table} WHERE is_default = 1)"
    );
    connection.execute(&sql, []).map(drop)
}

/// What SQLite says, as an error of ours.
pub fn from_sqlite(path: &Path, error: &rusqlite::Error) -> Error {
    let storage = |what, errno: Errno| Error::Storage { what, path: path.into(), errno: errno.raw_os_error() };
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => storage("write", Errno::NOSPC),
        Some(ErrorCode::ReadOnly) => storage("write", Errno::ROFS),
        Some(ErrorCode::PermissionDenied) => storage("open", Errno::ACCESS),
        Some(ErrorCode::SystemIoFailure) => storage("read or write", why_io_fails(path)),
        Some(ErrorCode::OutOfMemory) => storage("read", Errno::NOMEM),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::DatabaseBusy { path: path.into() },
        _ => Error::Database { path: path.into(), why: error.to_string() },
    }
}

/// SQLite says "input/output error" for a full disk when it is not the file itself that cannot grow, and keeps the
/// system's number to itself: another write in the same place gets the same answer.
fn why_io_fails(path: &Path) -> Errno {
    let probe = path.with_extension(format!("probe-{}", crate::random::hex_id()));
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&probe).and_then(|mut file| {
        file.write_all(&[0; PROBE_BYTES])?;
        file.sync_all()
    });
    // What was never made cannot be removed.
    let _ = fs::remove_file(&probe);
    written.err().and_then(|error| Errno::from_io_error(&error)).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::os::unix::fs::PermissionsExt;

    const ONE: Format = Format { application_id: 0x4142_4344, migrations: &["CREATE TABLE a (x INTEGER) STRICT"] };
    const TWO: Format = Format {
        application_id: 0x4142_4344,
        migrations: &["CREATE TABLE a (x INTEGER) STRICT", "ALTER TABLE a ADD COLUMN y INTEGER"],
    };
    const OTHER: Format = Format { application_id: 7, migrations: &[] };

    #[test]
    fn files_are_made_once_and_migrated() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("a.db");
        assert!(open(&path, &ONE).unwrap().is_none());
        let connection =
            open_or_make(&path, &ONE, |connection| connection.execute("INSERT INTO a VALUES (1)", []).map(drop))
                .unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
        drop(connection);
        let connection = open_or_make(&path, &TWO, |_| panic!("it exists")).unwrap();
        connection.execute("UPDATE a SET y = 5 WHERE x = 1", []).unwrap();
        drop(connection);
        assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 1, "a draft was left");
        assert!(matches!(open(&path, &ONE), Err(Error::NewerDatabase { found: 2, known: 1, .. })));
    }

    /// As the kernel sees them: the locks of the first connection are still there.
    #[test]
    fn a_second_connection_takes_no_lock_away_from_the_first() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("a.db");
        let first = open_or_make(&path, &ONE, |_| Ok(())).unwrap();
        first.query_row("SELECT count(*) FROM a", [], |row| row.get::<_, i64>(0)).unwrap();
        let inode = format!(":{} ", fs::metadata(&path).unwrap().ino());
        // Each line without its number: while other tests lock and unlock, one look may miss a lock that is there all the time, or
        // show it twice.
        let look = || fs::read_to_string("/proc/locks").unwrap();
        let of_file = |all: String| -> Vec<String> {
            let lines = all.lines().filter(|line| line.contains(&inode)).filter_map(|line| line.split_once(": "));
            lines.map(|(_, lock)| lock.to_owned()).collect()
        };
        let locks = || (0..20).flat_map(|_| of_file(look())).collect::<BTreeSet<_>>();
        let before = locks();
        assert!(!before.is_empty(), "the kernel shows no lock of the file");
        drop(open(&path, &ONE).unwrap().unwrap());
        assert_eq!(locks(), before);
    }

    #[test]
    fn what_is_not_ours_is_refused_and_left_as_it_is() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("a.db");
        drop(open_or_make(&path, &OTHER, |_| Ok(())).unwrap());
        let before = fs::read(&path).unwrap();
        assert!(matches!(open(&path, &ONE), Err(Error::ForeignDatabase { found: 7, .. })));
        assert_eq!(fs::read(&path).unwrap(), before);
        for content in [&b""[..], b"x", &[b'x'; 4096]] {
            fs::write(&path, content).unwrap();
            assert!(matches!(open_or_make(&path, &ONE, |_| Ok(())), Err(Error::Database { .. })));
            assert_eq!(fs::read(&path).unwrap(), content);
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(open(&path, &ONE), Err(Error::OpenToOthers { mode: 0o644, .. })));
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(matches!(open(&path, &ONE), Err(Error::WrongKind { .. })));
    }

    #[test]
    fn a_flipped_page_is_an_error_and_not_a_panic() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("a.db");
        let fill = |connection: &Connection| connection.execute("INSERT INTO a VALUES (1)", []).map(drop);
        drop(open_or_make(&path, &ONE, fill).unwrap());
        let good = fs::read(&path).unwrap();
        let mut refused = 0;
        for at in (100..good.len()).step_by(7) {
            let mut bad = good.clone();
            bad[at] ^= 0xff;
            fs::write(&path, &bad).unwrap();
            match open(&path, &ONE) {
                Ok(connection) => {
                    let read = connection.unwrap().query_row("SELECT x FROM a", [], |row| row.get::<_, i64>(0));
                    refused += usize::from(read.is_err());
                }
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 0);
    }
}
