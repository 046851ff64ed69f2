//! `ockam.db`: which nodes there are, which is the default, and who they are. Vaults and identities are in it, too:
//! [`super::identity`]; and the projects that this home knows: [`super::project`].

use super::database::{self, Format, from_sqlite, make_default};
use super::identity::{self, Tables};
use super::project;
use crate::error::Error;
use crate::home::{Home, NodeName};
use ockam_crypto::Identifier;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

const FORMAT: Format = Format {
    application_id: 0x4f43_4b53, // OCKS
    migrations: &[
        "
        CREATE TABLE node (
            name       TEXT    NOT NULL PRIMARY KEY,
            created_ms INTEGER NOT NULL,
            is_default INTEGER NOT NULL CHECK (is_default IN (0, 1))
        ) STRICT, WITHOUT ROWID;
        CREATE UNIQUE INDEX one_default ON node (is_default) WHERE is_default = 1;
    ",
        identity::MIGRATION,
        identity::ISSUING_KEYS,
        identity::PASSPHRASE_CHANGES,
        project::MIGRATION,
    ],
};

/// How many names an error suggests.
const NEAR_MAX: usize = 3;

/// A node that exists, whether it runs or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRow {
    /// Its name.
    pub name: NodeName,
    /// When it was created, in milliseconds since 1970.
    pub created_ms: u64,
    /// Whether commands mean it when they name none.
    pub is_default: bool,
}

/// The names of nodes. Each call is one transaction.
#[derive(Debug)]
pub struct SharedStore {
    path: PathBuf,
    connection: Connection,
}

impl SharedStore {
    /// Opens the file of a home that was prepared, after it was made if there was none.
    ///
    /// # Errors
    /// As [`database::open`].
    pub fn open(home: &Home) -> Result<SharedStore, Error> {
        let path = home.database();
        let connection = database::open_or_make(&path, &FORMAT, |_| Ok(()))?;
        Ok(SharedStore { path, connection })
    }

    /// Opens the file of a home; `None` when there is none, so that there are no nodes.
    ///
    /// # Errors
    /// As [`database::open`] and [`Home::check`].
    pub fn open_existing(home: &Home) -> Result<Option<SharedStore>, Error> {
        home.check()?;
        let path = home.database();
        Ok(database::open(&path, &FORMAT)?.map(|connection| SharedStore { path, connection }))
    }

    /// All nodes, by name.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::DatabaseBusy`], [`Error::Storage`]; so for all below.
    pub fn nodes(&self) -> Result<Vec<NodeRow>, Error> {
        let read = || {
            let mut rows = self.connection.prepare("SELECT name, created_ms, is_default FROM node ORDER BY name")?;
            let rows = rows.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get(2)?)))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        let rows = read().map_err(|error| self.failed(&error))?;
        rows.into_iter()
            .map(|(name, created_ms, is_default)| {
                let name = name.parse().map_err(|_| self.damaged("it has a node whose name is none"))?;
                Ok(NodeRow { name, created_ms: created_ms.unsigned_abs(), is_default })
            })
            .collect()
    }

    /// The node of this name.
    ///
    /// # Errors
    /// [`Error::NoSuchNode`], which knows similar names.
    pub fn require(&self, name: &NodeName) -> Result<NodeRow, Error> {
        let nodes = self.nodes()?;
        match nodes.iter().find(|node| node.name == *name) {
            Some(node) => Ok(node.clone()),
            None => Err(no_such_node(name, &nodes)),
        }
    }

    /// The default node, if there is any node.
    pub fn default_node(&self) -> Result<Option<NodeName>, Error> {
        Ok(self.nodes()?.into_iter().find(|node| node.is_default).map(|node| node.name))
    }

    /// Adds a node. The first one is the default. Says whether it was added; it was not when it exists.
    pub fn add(&mut self, name: &NodeName) -> Result<bool, Error> {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        let sql =
            "INSERT OR IGNORE INTO node (name, created_ms, is_default) SELECT ?1, ?2, NOT EXISTS (SELECT 1 FROM node)";
        let added = self.connection.execute(sql, params![name.as_str(), now_ms]);
        added.map(|rows| rows == 1).map_err(|error| self.failed(&error))
    }

    /// Makes a node the default.
    ///
    /// # Errors
    /// [`Error::NoSuchNode`].
    pub fn set_default(&mut self, name: &NodeName) -> Result<(), Error> {
        let mut set = || {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let rows = make_default(&transaction, "node", "name", &name.as_str())?;
            if rows == 1 {
                transaction.commit()?;
            }
            Ok(rows)
        };
        match set().map_err(|error: rusqlite::Error| from_sqlite(&self.path, &error))? {
            0 => Err(no_such_node(name, &self.nodes()?)),
            _ => Ok(()),
        }
    }

    /// Removes a node. When it was the default, the oldest of the others is. Says whether it existed.
    pub fn remove(&mut self, name: &NodeName) -> Result<bool, Error> {
        let mut remove = || {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let sql = "DELETE FROM node WHERE name = ?1 RETURNING is_default";
            let was_default: Option<bool> = transaction.query_row(sql, [name.as_str()], |row| row.get(0)).optional()?;
            if was_default == Some(true) {
                let sql = "UPDATE node SET is_default = 1
                           WHERE name = (SELECT name FROM node ORDER BY created_ms, name LIMIT 1)";
                transaction.execute(sql, [])?;
            }
            transaction.commit()?;
            Ok(was_default.is_some())
        };
        remove().map_err(|error: rusqlite::Error| from_sqlite(&self.path, &error))
    }

    /// Who a node is, once that is decided.
    ///
    /// # Errors
    /// [`Error::NoSuchNode`].
    pub fn node_identity(&self, name: &NodeName) -> Result<Option<Identifier>, Error> {
        let sql = "SELECT identity FROM node WHERE name = ?1";
        let read = self.connection.query_row(sql, [name.as_str()], |row| row.get::<_, Option<[u8; 32]>>(0)).optional();
        match read.map_err(|error| self.failed(&error))? {
            Some(identity) => Ok(identity.map(Identifier)),
            None => Err(no_such_node(name, &self.nodes()?)),
        }
    }

    /// Decides who a node is. The identity must be known.
    ///
    /// # Errors
    /// [`Error::NoSuchNode`]; [`Error::Database`] when the identity is not known.
    pub fn set_node_identity(&mut self, name: &NodeName, identity: &Identifier) -> Result<(), Error> {
        let sql = "UPDATE node SET identity = ?2 WHERE name = ?1";
        match self.connection.execute(sql, params![name.as_str(), identity.0]).map_err(|error| self.failed(&error))? {
            0 => Err(no_such_node(name, &self.nodes()?)),
            _ => Ok(()),
        }
    }

    /// The tables of vaults and identities, to read.
    pub(crate) fn identities(&self) -> Tables<'_> {
        Tables::new(&self.connection, &self.path)
    }

    /// Changes vaults and identities in one transaction, which no other process interrupts; nothing is changed when
    /// `change` fails.
    pub(crate) fn change_identities<T>(
        &mut self,
        change: impl FnOnce(&Tables<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let failed = |error: rusqlite::Error| from_sqlite(&self.path, &error);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let changed = change(&Tables::new(&transaction, &self.path))?;
        transaction.commit().map_err(failed)?;
        Ok(changed)
    }

    /// The same, without waiting for the disk: for what may be forgotten when the machine loses power.
    pub(crate) fn note_identities(
        &mut self,
        change: impl FnOnce(&Tables<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.set_synchronous("NORMAL")?;
        let changed = self.change_identities(change);
        self.set_synchronous("FULL")?;
        changed
    }

    /// The tables of projects and credentials, to read.
    pub(crate) fn projects(&self) -> project::Tables<'_> {
        project::Tables::new(&self.connection, &self.path)
    }

    /// Changes projects and credentials in one transaction, as [`SharedStore::change_identities`].
    pub(crate) fn change_projects<T>(
        &mut self,
        change: impl FnOnce(&project::Tables<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let failed = |error: rusqlite::Error| from_sqlite(&self.path, &error);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let changed = change(&project::Tables::new(&transaction, &self.path))?;
        transaction.commit().map_err(failed)?;
        Ok(changed)
    }

    #[cfg(test)]
    pub(crate) fn synchronous(&self) -> u8 {
        self.connection.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap()
    }

    fn set_synchronous(&self, mode: &str) -> Result<(), Error> {
        self.connection.pragma_update(None, "synchronous", mode).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &rusqlite::Error) -> Error {
        from_sqlite(&self.path, error)
    }

    fn damaged(&self, why: &str) -> Error {
        Error::Database { path: self.path.clone(), why: why.into() }
    }
}

fn no_such_node(name: &NodeName, nodes: &[NodeRow]) -> Error {
    Error::NoSuchNode { name: name.to_string(), near: near(name.as_str(), nodes.iter().map(|node| node.name.as_str())) }
}

/// Those of `names` that resemble one that does not exist.
pub(crate) fn near<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let likeness = |other: &'a str| (strsim::jaro_winkler(name, other), other);
    let mut near: Vec<(f64, &str)> = names.map(likeness).filter(|(likeness, _)| *likeness > 0.8).collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    near.into_iter().take(NEAR_MAX).map(|(_, name)| name.to_owned()).collect()
}

/// The error for a node that a home without any database cannot have.
pub fn no_node_at_all(name: &NodeName) -> Error {
    no_such_node(name, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_node_is_the_default_and_another_takes_over() {
        let temporary = tempfile::tempdir().unwrap();
        let home = Home::at(temporary.path().join("home"));
        assert!(SharedStore::open_existing(&home).unwrap().is_none());
        home.prepare().unwrap();
        let mut store = SharedStore::open(&home).unwrap();
        assert_eq!(store.default_node().unwrap(), None);
        for each in ["n2", "n1", "n3"] {
            assert!(store.add(&name(each)).unwrap());
        }
        assert!(!store.add(&name("n1")).unwrap());
        assert_eq!(store.default_node().unwrap(), Some(name("n2")));
        store.set_default(&name("n3")).unwrap();
        assert!(matches!(store.set_default(&name("n33")), Err(Error::NoSuchNode { near, .. }) if near == ["n3"]));
        assert_eq!(store.default_node().unwrap(), Some(name("n3")));
        drop(store);

        let mut store = SharedStore::open_existing(&home).unwrap().unwrap();
        assert!(store.remove(&name("n3")).unwrap());
        assert!(!store.remove(&name("n3")).unwrap());
        let left: Vec<(String, bool)> =
            store.nodes().unwrap().into_iter().map(|node| (node.name.to_string(), node.is_default)).collect();
        assert_eq!(left.iter().filter(|(_, is_default)| *is_default).count(), 1);
        assert_eq!(left.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["n1", "n2"]);
        assert_eq!(store.require(&name("n1")).unwrap().name, name("n1"));
        assert!(matches!(store.require(&name("zz")), Err(Error::NoSuchNode { near, .. }) if near.is_empty()));
    }

    #[test]
    fn many_processes_can_add_at_once() {
        let temporary = tempfile::tempdir().unwrap();
        let home = Home::at(temporary.path().join("home"));
        home.prepare().unwrap();
        drop(SharedStore::open(&home).unwrap());
        let stores: Vec<SharedStore> = (0..8).map(|_| SharedStore::open(&home).unwrap()).collect();
        std::thread::scope(|scope| {
            for (index, mut store) in stores.into_iter().enumerate() {
                scope.spawn(move || assert!(store.add(&name(&format!("n{index}"))).unwrap()));
            }
        });
        let nodes = SharedStore::open(&home).unwrap().nodes().unwrap();
        assert_eq!(nodes.len(), 8);
        assert_eq!(nodes.iter().filter(|node| node.is_default).count(), 1);
    }
}
