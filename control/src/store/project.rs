//! The tables of `ockam.db` that say which projects this home knows, and the credentials of its identities.

use super::database::{from_sqlite, make_default, pass_default_on};
use crate::error::Error;
use ockam_crypto::Identifier;
use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension, Row};
use std::path::Path;

/// A document is verified whenever it is read: it holds nothing but what a project says of itself.
pub(super) const MIGRATION: &str = "
    CREATE TABLE project (
        name       TEXT    NOT NULL PRIMARY KEY,
        id         TEXT    NOT NULL UNIQUE,
        document   TEXT    NOT NULL,
        is_default INTEGER NOT NULL CHECK (is_default IN (0, 1))
    ) STRICT;
    CREATE UNIQUE INDEX one_default_project ON project (is_default) WHERE is_default = 1;

    CREATE TABLE credential (
        subject    BLOB    NOT NULL REFERENCES identity (identifier) ON DELETE CASCADE,
        issuer     BLOB    NOT NULL CHECK (length(issuer) = 32),
        scope      TEXT    NOT NULL,
        credential BLOB    NOT NULL,
        expires_at INTEGER NOT NULL,
        PRIMARY KEY (subject, issuer, scope)
    ) STRICT, WITHOUT ROWID;
";

/// A project as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProjectRow {
    /// Its name here.
    pub(crate) name: String,
    /// Its id.
    pub(crate) id: String,
    /// What it says of itself, JSON; not verified.
    pub(crate) document: String,
    /// Whether commands mean it when they name none.
    pub(crate) is_default: bool,
}

/// The tables, inside a transaction or not. Every method may end in [`Error::Database`], [`Error::DatabaseBusy`] and
/// [`Error::Storage`].
pub(crate) struct Tables<'a> {
    connection: &'a Connection,
    path: &'a Path,
}

const PROJECT: &str = "SELECT name, id, document, is_default FROM project";

impl<'a> Tables<'a> {
    pub(super) fn new(connection: &'a Connection, path: &'a Path) -> Tables<'a> {
        Tables { connection, path }
    }

    /// By name.
    pub(crate) fn projects(&self) -> Result<Vec<ProjectRow>, Error> {
        let rows = || {
            let mut statement = self.connection.prepare(&format!("{PROJECT} ORDER BY name"))?;
            statement.query_map([], row)?.collect::<rusqlite::Result<Vec<_>>>()
        };
        rows().map_err(|error| from_sqlite(self.path, &error))
    }

    pub(crate) fn project_named(&self, name: &str) -> Result<Option<ProjectRow>, Error> {
        self.one(&format!("{PROJECT} WHERE name = ?1"), &[&name], row)
    }

    pub(crate) fn project_with(&self, id: &str) -> Result<Option<ProjectRow>, Error> {
        self.one(&format!("{PROJECT} WHERE id = ?1"), &[&id], row)
    }

    pub(crate) fn default_project(&self) -> Result<Option<ProjectRow>, Error> {
        self.one(&format!("{PROJECT} WHERE is_default = 1"), &[], row)
    }

    /// Adds a project, or replaces the one of this id. The first one is the default.
    pub(crate) fn put_project(&self, name: &str, id: &str, document: &str) -> Result<(), Error> {
        let sql = "INSERT INTO project VALUES (?1, ?2, ?3, NOT EXISTS (SELECT 1 FROM project))
                   ON CONFLICT (id) DO UPDATE SET name = ?1, document = ?3";
        self.run(sql, &[&name, &id, &document]).map(drop)
    }

    pub(crate) fn set_default_project(&self, name: &str) -> Result<(), Error> {
        let made = make_default(self.connection, "project", "name", &name);
        made.map(drop).map_err(|error| from_sqlite(self.path, &error))
    }

    /// When it was the default, the oldest of the others is.
    pub(crate) fn remove_project(&self, name: &str) -> Result<(), Error> {
        self.run("DELETE FROM project WHERE name = ?1", &[&name])?;
        pass_default_on(self.connection, "project", "TRUE").map_err(|error| from_sqlite(self.path, &error))
    }

    /// Encoded; not verified.
    pub(crate) fn credential(
        &self,
        subject: &Identifier,
        issuer: &Identifier,
        scope: &str,
    ) -> Result<Option<Vec<u8>>, Error> {
        let sql = "SELECT credential FROM credential WHERE subject = ?1 AND issuer = ?2 AND scope = ?3";
        self.one(sql, &[&subject.0, &issuer.0, &scope], |row| row.get(0))
    }

    /// `expires_at` is in seconds of Unix time.
    pub(crate) fn put_credential(
        &self,
        subject: &Identifier,
        issuer: &Identifier,
        scope: &str,
        credential: &[u8],
        expires_at: u64,
    ) -> Result<(), Error> {
        let expires_at = i64::try_from(expires_at).unwrap_or(i64::MAX);
        let sql = "INSERT OR REPLACE INTO credential VALUES (?1, ?2, ?3, ?4, ?5)";
        self.run(sql, &[&subject.0, &issuer.0, &scope, &credential, &expires_at]).map(drop)
    }

    fn run(&self, sql: &str, values: &[&dyn ToSql]) -> Result<usize, Error> {
        self.connection.execute(sql, values).map_err(|error| from_sqlite(self.path, &error))
    }

    fn one<T>(
        &self,
        sql: &str,
        values: &[&dyn ToSql],
        read: impl FnOnce(&Row) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, Error> {
        let found = self.connection.query_row(sql, values, read).optional();
        found.map_err(|error| from_sqlite(self.path, &error))
    }
}

fn row(row: &Row) -> rusqlite::Result<ProjectRow> {
    Ok(ProjectRow { name: row.get(0)?, id: row.get(1)?, document: row.get(2)?, is_default: row.get(3)? })
}
