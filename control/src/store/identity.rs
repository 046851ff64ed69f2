//! The tables of `ockam.db` that say which vaults there are, which identities are known, and which of them are ours.

use super::database::{from_sqlite, make_default, pass_default_on};
use super::vault::{Becomes, Place};
use crate::error::Error;
use ockam_crypto::{ChangeHistory, Identifier};
use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension, Row};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// An identity with a vault is ours; one without is somebody else's, and need not have a name.
pub(super) const MIGRATION: &str = "
    CREATE TABLE vault (
        name            TEXT    NOT NULL PRIMARY KEY,
        path            BLOB    NOT NULL UNIQUE,
        passphrase_file BLOB,
        created_ms      INTEGER NOT NULL,
        is_default      INTEGER NOT NULL CHECK (is_default IN (0, 1))
    ) STRICT;
    CREATE UNIQUE INDEX one_default_vault ON vault (is_default) WHERE is_default = 1;

    CREATE TABLE identity (
        identifier BLOB    NOT NULL PRIMARY KEY CHECK (length(identifier) = 32),
        history    BLOB    NOT NULL,
        changes    INTEGER NOT NULL,
        name       TEXT    UNIQUE,
        vault      TEXT    REFERENCES vault (name),
        stored_ms  INTEGER NOT NULL,
        is_default INTEGER NOT NULL CHECK (is_default IN (0, 1)),
        CHECK (vault IS NULL OR name IS NOT NULL),
        CHECK (is_default = 0 OR vault IS NOT NULL)
    ) STRICT;
    CREATE UNIQUE INDEX one_default_identity ON identity (is_default) WHERE is_default = 1;
    CREATE INDEX identity_of_vault ON identity (vault) WHERE vault IS NOT NULL;
    CREATE INDEX stranger ON identity (changes > 1, stored_ms) WHERE name IS NULL;

    CREATE TABLE purpose_key (
        identifier  BLOB NOT NULL PRIMARY KEY REFERENCES identity (identifier) ON DELETE CASCADE,
        public      BLOB NOT NULL CHECK (length(public) = 32),
        attestation BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;

    ALTER TABLE node ADD COLUMN identity BLOB REFERENCES identity (identifier);
    CREATE INDEX identity_of_node ON node (identity) WHERE identity IS NOT NULL;
";

/// The keys with which identities of ours sign credentials, beside those for channels in `purpose_key`.
pub(super) const ISSUING_KEYS: &str = "
    CREATE TABLE issuing_key (
        identifier  BLOB NOT NULL PRIMARY KEY REFERENCES identity (identifier) ON DELETE CASCADE,
        public      BLOB NOT NULL CHECK (length(public) = 32),
        attestation BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
";

/// What a vault becomes while its passphrase is changed: NULL nothing else, empty plain, else the new passphrase file.
pub(super) const PASSPHRASE_CHANGES: &str = "ALTER TABLE vault ADD COLUMN becomes BLOB";

/// How many identities without a name are kept: anybody who may begin a handshake can show another one each time.
const STRANGERS_MAX: u32 = 10_000;

/// After so many new ones they are counted, and those above the limit are forgotten: counting at each would make
/// handshakes dearer the more strangers are known.
const STRANGERS_COUNTED_EVERY: i64 = 256;

/// A vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultRow {
    /// Its name.
    pub name: String,
    /// Its file, and that of its passphrase.
    pub place: Place,
    /// Whether commands mean it when they name none.
    pub is_default: bool,
}

/// An identity that is known: one of ours, or somebody else's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownIdentity {
    /// Its identifier.
    pub identifier: Identifier,
    /// Its name here. Ours always have one.
    pub name: Option<String>,
    /// The vault with its key; `None` for somebody else's.
    pub vault: Option<String>,
    /// Whether commands mean it when they name none.
    pub is_default: bool,
}

/// What an identity of ours has a purpose key for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Secure channels: the static key of handshakes.
    Channels,
    /// Credentials and revocation lists: the key that signs them.
    Issuing,
}

impl Purpose {
    pub(crate) const ALL: [Purpose; 2] = [Purpose::Channels, Purpose::Issuing];

    fn table(self) -> &'static str {
        match self {
            Purpose::Channels => "purpose_key",
            Purpose::Issuing => "issuing_key",
        }
    }
}

/// A purpose key of an identity of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PurposeKeyRow {
    /// Its public half.
    pub(crate) public: [u8; 32],
    /// Encoded; not verified.
    pub(crate) attestation: Vec<u8>,
}

/// The tables, inside a transaction or not. Every method may end in [`Error::Database`], [`Error::DatabaseBusy`] and
/// [`Error::Storage`].
pub(crate) struct Tables<'a> {
    connection: &'a Connection,
    path: &'a Path,
}

const IDENTITY: &str = "SELECT identifier, name, vault, is_default FROM identity";
const VAULT: &str = "SELECT name, path, passphrase_file, becomes, is_default FROM vault";

impl<'a> Tables<'a> {
    pub(super) fn new(connection: &'a Connection, path: &'a Path) -> Tables<'a> {
        Tables { connection, path }
    }

    // ---- vaults

    pub(crate) fn vaults(&self) -> Result<Vec<VaultRow>, Error> {
        self.all(&format!("{VAULT} ORDER BY name"), [].as_slice(), vault_row)
    }

    pub(crate) fn vault(&self, name: &str) -> Result<Option<VaultRow>, Error> {
        self.one(&format!("{VAULT} WHERE name = ?1"), &[&name], vault_row)
    }

    pub(crate) fn default_vault(&self) -> Result<Option<VaultRow>, Error> {
        self.one(&format!("{VAULT} WHERE is_default = 1"), &[], vault_row)
    }

    /// The first one is the default.
    pub(crate) fn add_vault(&self, name: &str, place: &Place) -> Result<(), Error> {
        let sql = "INSERT INTO vault SELECT ?1, ?2, ?3, ?4, NOT EXISTS (SELECT 1 FROM vault), NULL";
        self.run(sql, &[&name, &bytes(&place.path), &place.passphrase_file.as_deref().map(bytes), &now_ms()]).map(drop)
    }

    pub(crate) fn place_vault(&self, name: &str, place: &Place) -> Result<(), Error> {
        let sql = "UPDATE vault SET path = ?2, passphrase_file = ?3, becomes = ?4 WHERE name = ?1";
        let becomes = place.becomes.as_ref().map(|becomes| becomes.passphrase_file().map_or(&[][..], bytes));
        let passphrase_file = place.passphrase_file.as_deref().map(bytes);
        self.run(sql, &[&name, &bytes(&place.path), &passphrase_file, &becomes]).map(drop)
    }

    /// When it was the default, the oldest of the others is.
    pub(crate) fn remove_vault(&self, name: &str) -> Result<(), Error> {
        self.run("DELETE FROM vault WHERE name = ?1", &[&name])?;
        pass_default_on(self.connection, "vault", "TRUE").map_err(|error| from_sqlite(self.path, &error))
    }

    /// The name of an identity with its key in a vault.
    pub(crate) fn user_of_vault(&self, name: &str) -> Result<Option<String>, Error> {
        self.one("SELECT name FROM identity WHERE vault = ?1 ORDER BY name LIMIT 1", &[&name], |row| row.get(0))
    }

    // ---- identities

    /// Those with a name, by name.
    pub(crate) fn named_identities(&self) -> Result<Vec<KnownIdentity>, Error> {
        self.all(&format!("{IDENTITY} WHERE name IS NOT NULL ORDER BY name"), &[], identity_row)
    }

    pub(crate) fn identity(&self, identifier: &Identifier) -> Result<Option<KnownIdentity>, Error> {
        self.one(&format!("{IDENTITY} WHERE identifier = ?1"), &[&identifier.0], identity_row)
    }

    pub(crate) fn identity_named(&self, name: &str) -> Result<Option<KnownIdentity>, Error> {
        self.one(&format!("{IDENTITY} WHERE name = ?1"), &[&name], identity_row)
    }

    pub(crate) fn default_identity(&self) -> Result<Option<KnownIdentity>, Error> {
        self.one(&format!("{IDENTITY} WHERE is_default = 1"), &[], identity_row)
    }

    /// What is known of an identity. It is verified anew, since histories exist in no other way.
    pub(crate) fn history(&self, identifier: &Identifier) -> Result<Option<ChangeHistory>, Error> {
        let sql = "SELECT history FROM identity WHERE identifier = ?1";
        let Some(encoded) = self.one(sql, &[&identifier.0], |row| row.get::<_, Vec<u8>>(0))? else { return Ok(None) };
        let damaged = |why: String| Error::Database { path: self.path.into(), why };
        let history = ChangeHistory::verify(&encoded).map_err(|error| damaged(format!("{identifier}: {error}")))?;
        if history.identifier() != *identifier {
            return Err(damaged(format!("it has the history of another identity for {identifier}")));
        }
        Ok(Some(history))
    }

    /// Whether exactly this is what is known of an identity.
    pub(crate) fn has_history(&self, history: &ChangeHistory) -> Result<bool, Error> {
        let sql = "SELECT 1 FROM identity WHERE identifier = ?1 AND history = ?2";
        Ok(self.one(sql, &[&history.identifier().0, &history.encoded()], |_| Ok(()))?.is_some())
    }

    /// Adds a history or replaces it. Strangers that came long ago make room, first those with one key: their
    /// identifier alone says as much as the history.
    pub(crate) fn put_history(&self, history: &ChangeHistory) -> Result<(), Error> {
        let (identifier, changes) = (history.identifier().0, history.changes().len() as i64);
        let sql = "INSERT INTO identity VALUES (?1, ?2, ?3, NULL, NULL, ?4, 0)
                   ON CONFLICT (identifier) DO UPDATE SET history = ?2, changes = ?3, stored_ms = ?4";
        self.run(sql, &[&identifier, &history.encoded(), &changes, &now_ms()])?;
        if self.connection.last_insert_rowid() % STRANGERS_COUNTED_EVERY != 0 {
            return Ok(());
        }
        let sql = "DELETE FROM identity WHERE identifier IN
                   (SELECT identifier FROM identity WHERE name IS NULL AND identifier <> ?2
                      AND identifier NOT IN (SELECT identity FROM node WHERE identity IS NOT NULL)
                    ORDER BY changes > 1, stored_ms
                    LIMIT max(0, (SELECT count(*) FROM identity WHERE name IS NULL) - ?1))";
        self.run(sql, &[&STRANGERS_MAX, &identifier]).map(drop)
    }

    pub(crate) fn name_identity(&self, identifier: &Identifier, name: &str) -> Result<(), Error> {
        self.run("UPDATE identity SET name = ?2 WHERE identifier = ?1", &[&identifier.0, &name]).map(drop)
    }

    /// Makes an identity with a name ours. The first one is the default.
    pub(crate) fn own_identity(&self, identifier: &Identifier, vault: &str) -> Result<(), Error> {
        let sql = "UPDATE identity
                   SET vault = ?2, is_default = NOT EXISTS (SELECT 1 FROM identity WHERE is_default = 1)
                   WHERE identifier = ?1";
        self.run(sql, &[&identifier.0, &vault]).map(drop)
    }

    /// Says that the key of an identity of ours is in another vault now.
    pub(crate) fn move_identity(&self, identifier: &Identifier, vault: &str) -> Result<(), Error> {
        self.run("UPDATE identity SET vault = ?2 WHERE identifier = ?1", &[&identifier.0, &vault]).map(drop)
    }

    pub(crate) fn set_default_identity(&self, identifier: &Identifier) -> Result<(), Error> {
        let made = make_default(self.connection, "identity", "identifier", &identifier.0);
        made.map(drop).map_err(|error| from_sqlite(self.path, &error))
    }

    /// When it was the default, the oldest of the others of ours is.
    pub(crate) fn remove_identity(&self, identifier: &Identifier) -> Result<(), Error> {
        self.run("DELETE FROM identity WHERE identifier = ?1", &[&identifier.0])?;
        let passed_on = pass_default_on(self.connection, "identity", "vault IS NOT NULL");
        passed_on.map_err(|error| from_sqlite(self.path, &error))
    }

    /// The name of a node that is somebody.
    pub(crate) fn node_of_identity(&self, identifier: &Identifier) -> Result<Option<String>, Error> {
        self.one("SELECT name FROM node WHERE identity = ?1 ORDER BY name LIMIT 1", &[&identifier.0], |row| row.get(0))
    }

    /// Changes when another connection has committed something.
    pub(crate) fn generation(&self) -> Result<u32, Error> {
        let version = self.one("PRAGMA data_version", &[], |row| row.get(0))?;
        version.ok_or_else(|| Error::Database { path: self.path.into(), why: "it has no version of its data".into() })
    }

    // ---- purpose keys

    pub(crate) fn purpose_key(
        &self,
        identifier: &Identifier,
        purpose: Purpose,
    ) -> Result<Option<PurposeKeyRow>, Error> {
        let sql = format!("SELECT public, attestation FROM {} WHERE identifier = ?1", purpose.table());
        self.one(&sql, &[&identifier.0], |row| Ok(PurposeKeyRow { public: row.get(0)?, attestation: row.get(1)? }))
    }

    pub(crate) fn put_purpose_key(
        &self,
        identifier: &Identifier,
        purpose: Purpose,
        key: &PurposeKeyRow,
    ) -> Result<(), Error> {
        let sql = format!("INSERT OR REPLACE INTO {} VALUES (?1, ?2, ?3)", purpose.table());
        self.run(&sql, &[&identifier.0, &key.public, &key.attestation]).map(drop)
    }

    // ---- all of them

    fn run(&self, sql: &str, values: &[&dyn ToSql]) -> Result<usize, Error> {
        let run = || self.connection.prepare_cached(sql)?.execute(values);
        run().map_err(|error| from_sqlite(self.path, &error))
    }

    fn one<T>(
        &self,
        sql: &str,
        values: &[&dyn ToSql],
        read: impl FnOnce(&Row) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, Error> {
        // Handshakes ask the same again and again, and to read a statement costs more than to carry it out.
        let row = || self.connection.prepare_cached(sql)?.query_row(values, read);
        row().optional().map_err(|error| from_sqlite(self.path, &error))
    }

    fn all<T>(
        &self,
        sql: &str,
        values: &[&dyn ToSql],
        read: impl FnMut(&Row) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, Error> {
        let rows = || self.connection.prepare(sql)?.query_map(values, read)?.collect::<rusqlite::Result<Vec<T>>>();
        rows().map_err(|error| from_sqlite(self.path, &error))
    }
}

fn vault_row(row: &Row) -> rusqlite::Result<VaultRow> {
    let path = |bytes: Vec<u8>| PathBuf::from(OsString::from_vec(bytes));
    let becomes = |bytes: Vec<u8>| if bytes.is_empty() { Becomes::Plain } else { Becomes::Sealed(path(bytes)) };
    Ok(VaultRow {
        name: row.get(0)?,
        place: Place {
            path: path(row.get(1)?),
            passphrase_file: row.get::<_, Option<Vec<u8>>>(2)?.map(path),
            becomes: row.get::<_, Option<Vec<u8>>>(3)?.map(becomes),
        },
        is_default: row.get(4)?,
    })
}

fn identity_row(row: &Row) -> rusqlite::Result<KnownIdentity> {
    Ok(KnownIdentity {
        identifier: Identifier(row.get(0)?),
        name: row.get(1)?,
        vault: row.get(2)?,
        is_default: row.get(3)?,
    })
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
