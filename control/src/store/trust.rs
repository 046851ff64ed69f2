//! The part of `node.db` that says whom a node believes and whom it lets pass: its authority, its policies, the numbers of
//! its guards, what its peers and itself showed, and how late it is.

use super::NodeStore;
use crate::api::ResourceType;
use crate::error::Error;
use ockam_crypto::{ChangeHistory, Identifier, RevocationList};
use ockam_engine_abi::Guard;
use rusqlite::params;

/// Most policies of a node.
pub const POLICIES_MAX: usize = 4096;

/// The number of guarded places is bounded by how many guards an engine has. The last one is never granted to anybody and
/// never open: whatever has no guard of its own is closed by it.
pub const GUARD_CLOSED: Guard = (ockam_engine_abi::GUARDS_MAX - 1) as Guard;

pub(super) const MIGRATION: &str = "
    ALTER TABLE setting ADD COLUMN latest_time INTEGER NOT NULL DEFAULT 0 CHECK (latest_time >= 0);
    CREATE TABLE trusted_authority (
        one     INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
        history BLOB    NOT NULL,
        route   TEXT    NOT NULL,
        scope   TEXT    NOT NULL,
        session TEXT    NOT NULL CHECK (length(session) = 32)
    ) STRICT;
    CREATE TABLE policy (
        position      INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        resource_type TEXT    NOT NULL,
        resource      TEXT    NOT NULL,
        expression    TEXT    NOT NULL,
        UNIQUE (resource_type, resource),
        CHECK (resource_type <> '' OR resource <> '')
    ) STRICT;
    CREATE TABLE guard (
        number        INTEGER NOT NULL PRIMARY KEY CHECK (number BETWEEN 0 AND 1022),
        resource_type TEXT    NOT NULL,
        resource      TEXT    NOT NULL,
        UNIQUE (resource_type, resource)
    ) STRICT;
    CREATE TABLE shown_credential (
        subject    BLOB NOT NULL PRIMARY KEY CHECK (length(subject) = 32),
        credential BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE own_credential (
        subject    BLOB    NOT NULL CHECK (length(subject) = 32),
        scope      TEXT    NOT NULL,
        credential BLOB    NOT NULL,
        stored_at  INTEGER NOT NULL,
        PRIMARY KEY (subject, scope)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE revocation_list (
        one         INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
        list        BLOB    NOT NULL,
        history     BLOB    NOT NULL,
        accepted_at INTEGER NOT NULL
    ) STRICT;
";

/// The authority that a node believes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityRow {
    /// Its identity, as far as this node knows it.
    pub history: ChangeHistory,
    /// The route to its node, a MultiAddr.
    pub route: String,
    /// What its credentials are filed under: the project's id.
    pub scope: String,
    /// The name of the session that keeps the way to it open, 32 hexadecimal digits.
    pub session: String,
}

/// A policy of the user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRow {
    /// The type of the resources that it is for; any that has the name when absent.
    pub resource_type: Option<ResourceType>,
    /// The name of the resource that it is for; all of the type when absent.
    pub resource: Option<String>,
    /// What it says, as it was given.
    pub expression: String,
}

/// The number of a guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardRow {
    /// In the engine, below [`GUARD_CLOSED`].
    pub number: Guard,
    /// What it guards.
    pub resource_type: ResourceType,
    /// Its name.
    pub resource: String,
}

/// A credential of one of this home's identities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnCredentialRow {
    /// Whose.
    pub subject: Identifier,
    /// What it is filed under.
    pub scope: String,
    /// With the attestation of the key that signed it, encoded.
    pub credential: Vec<u8>,
    /// When it was stored, in Unix time.
    pub stored_at: u64,
}

impl NodeStore {
    /// The authority that the node believes, if it has one.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::DatabaseBusy`], [`Error::Storage`]; so for all below.
    pub fn trusted_authority(&self) -> Result<Option<AuthorityRow>, Error> {
        let rows = self.rows("SELECT history, route, scope, session FROM trusted_authority", |row| {
            Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?;
        let Some((history, route, scope, session)) = rows.into_iter().next() else { return Ok(None) };
        let history = ChangeHistory::verify(&history).map_err(|_| self.damaged("the authority is no identity"))?;
        Ok(Some(AuthorityRow { history, route, scope, session }))
    }

    /// Replaces the authority. When it is another identity, what the one before attested is forgotten.
    pub fn set_trusted_authority(&mut self, history: &ChangeHistory, route: &str, scope: &str) -> Result<(), Error> {
        let before = self.trusted_authority()?;
        let is_same = before.as_ref().is_some_and(|it| it.history.identifier() == history.identifier());
        if !is_same {
            self.execute("DELETE FROM shown_credential", [])?;
            self.execute("DELETE FROM revocation_list", [])?;
        }
        let session = before.filter(|_| is_same).map_or_else(crate::random::hex_id, |it| it.session);
        let sql = "INSERT OR REPLACE INTO trusted_authority VALUES (1, ?1, ?2, ?3, ?4)";
        self.execute(sql, params![history.encoded(), route, scope, session])
    }

    /// The authority's identity has a later state.
    pub fn set_authority_history(&mut self, history: &ChangeHistory) -> Result<(), Error> {
        self.execute("UPDATE trusted_authority SET history = ?1", [history.encoded()])
    }

    /// Policies, in the order of their creation.
    pub fn policies(&self) -> Result<Vec<PolicyRow>, Error> {
        let rows = self.rows("SELECT resource_type, resource, expression FROM policy ORDER BY position", |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get(2)?))
        })?;
        rows.into_iter()
            .map(|(resource_type, resource, expression)| {
                let resource_type = match resource_type.as_str() {
                    "" => None,
                    name => Some(self.resource_type(name)?),
                };
                Ok(PolicyRow { resource_type, resource: Some(resource).filter(|name| !name.is_empty()), expression })
            })
            .collect()
    }

    /// Adds a policy, or replaces the one for the same resources, which keeps its place.
    pub fn set_policy(&mut self, row: &PolicyRow) -> Result<(), Error> {
        let sql = "INSERT INTO policy (resource_type, resource, expression) VALUES (?1, ?2, ?3)
                   ON CONFLICT (resource_type, resource) DO UPDATE SET expression = excluded.expression";
        let (resource_type, resource) = key(row.resource_type, row.resource.as_deref());
        self.execute(sql, params![resource_type, resource, row.expression])
    }

    /// Removes a policy.
    pub fn remove_policy(&mut self, resource_type: Option<ResourceType>, resource: Option<&str>) -> Result<(), Error> {
        let (resource_type, resource) = key(resource_type, resource);
        self.execute("DELETE FROM policy WHERE resource_type = ?1 AND resource = ?2", params![resource_type, resource])
    }

    /// Guards, by number.
    pub fn guards(&self) -> Result<Vec<GuardRow>, Error> {
        let rows = self.rows("SELECT number, resource_type, resource FROM guard ORDER BY number", |row| {
            Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?))
        })?;
        rows.into_iter()
            .map(|(number, resource_type, resource)| {
                Ok(GuardRow { number, resource_type: self.resource_type(&resource_type)?, resource })
            })
            .collect()
    }

    /// Adds a guard.
    pub fn add_guard(&mut self, row: &GuardRow) -> Result<(), Error> {
        let sql = "INSERT INTO guard VALUES (?1, ?2, ?3)";
        self.execute(sql, params![row.number, row.resource_type.name(), row.resource])
    }

    /// Frees the number of a guard.
    pub fn remove_guard(&mut self, number: Guard) -> Result<(), Error> {
        self.execute("DELETE FROM guard WHERE number = ?1", [number])
    }

    /// What peers showed and the authority had attested, when it was looked at: subject and credential.
    pub fn shown_credentials(&self) -> Result<Vec<(Identifier, Vec<u8>)>, Error> {
        self.rows("SELECT subject, credential FROM shown_credential", |row| Ok((Identifier(row.get(0)?), row.get(1)?)))
    }

    /// Notes what peers showed, or that it counts no more, in one transaction, or in the one that is open. It is not waited for
    /// the disk: what is lost with the power is lost with the channels.
    pub fn note_shown(&mut self, changed: &[(Identifier, Option<Vec<u8>>)]) -> Result<(), Error> {
        let is_open = self.is_changing();
        if !is_open {
            self.batch("PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE")?;
        }
        let noted = changed.iter().try_for_each(|(subject, credential)| match credential {
            Some(credential) => {
                let sql = "INSERT OR REPLACE INTO shown_credential VALUES (?1, ?2)";
                self.execute(sql, params![subject.0, credential])
            }
            None => self.execute("DELETE FROM shown_credential WHERE subject = ?1", [subject.0]),
        });
        if is_open {
            return noted;
        }
        let ended = match &noted {
            Ok(()) => self.commit(),
            Err(_) => {
                self.roll_back();
                Ok(())
            }
        };
        self.batch("PRAGMA synchronous = FULL")?;
        noted.and(ended)
    }

    /// Credentials of this home's identities, the one stored last in front.
    pub fn own_credentials(&self) -> Result<Vec<OwnCredentialRow>, Error> {
        let sql = "SELECT subject, scope, credential, stored_at FROM own_credential ORDER BY stored_at DESC, scope";
        self.rows(sql, |row| {
            Ok(OwnCredentialRow {
                subject: Identifier(row.get(0)?),
                scope: row.get(1)?,
                credential: row.get(2)?,
                stored_at: row.get::<_, i64>(3)?.unsigned_abs(),
            })
        })
    }

    /// Stores a credential, instead of the one of the same subject and scope.
    pub fn set_own_credential(&mut self, row: &OwnCredentialRow) -> Result<(), Error> {
        let sql = "INSERT OR REPLACE INTO own_credential VALUES (?1, ?2, ?3, ?4)";
        self.execute(sql, params![row.subject.0, row.scope, row.credential, seconds(row.stored_at)])
    }

    /// Forgets a credential.
    pub fn remove_own_credential(&mut self, subject: &Identifier, scope: &str) -> Result<(), Error> {
        self.execute("DELETE FROM own_credential WHERE subject = ?1 AND scope = ?2", params![subject.0, scope])
    }

    /// The revocation list that was accepted last. It stays in force whatever became of the authority's keys since: it is
    /// read as it was when it was accepted.
    pub fn revocation_list(&self) -> Result<Option<RevocationList>, Error> {
        let rows = self.rows("SELECT list, history, accepted_at FROM revocation_list", |row| {
            Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, i64>(2)?))
        })?;
        let Some((list, history, accepted_at)) = rows.into_iter().next() else { return Ok(None) };
        let damaged = || self.damaged("the revocation list is none");
        let history = ChangeHistory::verify(&history).map_err(|_| damaged())?;
        RevocationList::verify(&list, &history, accepted_at.unsigned_abs()).map(Some).map_err(|_| damaged())
    }

    /// Replaces the revocation list, which was verified with this history at this time.
    pub fn set_revocation_list(
        &mut self,
        list: &RevocationList,
        history: &ChangeHistory,
        accepted_at: u64,
    ) -> Result<(), Error> {
        let sql = "INSERT OR REPLACE INTO revocation_list VALUES (1, ?1, ?2, ?3)";
        self.execute(sql, params![list.encoded(), history.encoded(), seconds(accepted_at)])
    }

    /// The latest time that the node has known it to be, in Unix time.
    pub fn latest_time(&self) -> Result<u64, Error> {
        let rows = self.rows("SELECT latest_time FROM setting", |row| row.get::<_, i64>(0))?;
        Ok(rows.first().map_or(0, |time| time.unsigned_abs()))
    }

    /// It is later than it was known to be.
    pub fn set_latest_time(&mut self, time: u64) -> Result<(), Error> {
        self.execute("UPDATE setting SET latest_time = max(latest_time, ?1)", [seconds(time)])
    }

    fn resource_type(&self, name: &str) -> Result<ResourceType, Error> {
        ResourceType::from_name(name).ok_or_else(|| self.damaged("a resource has an unknown type"))
    }
}

fn key(resource_type: Option<ResourceType>, resource: Option<&str>) -> (&'static str, &str) {
    (resource_type.map_or("", ResourceType::name), resource.unwrap_or_default())
}

/// SQLite has signed numbers.
fn seconds(time: u64) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Home;
    use ockam_crypto::{Secret, SigningKey, Validity};

    fn policy(resource_type: Option<ResourceType>, resource: Option<&str>, expression: &str) -> PolicyRow {
        PolicyRow { resource_type, resource: resource.map(str::to_owned), expression: expression.into() }
    }

    fn identity() -> ChangeHistory {
        let key = SigningKey::new(Secret::new(crate::random::bytes()));
        ChangeHistory::create(&key, Validity { from: 1, until: 1 << 33 }).unwrap()
    }

    #[test]
    fn what_a_node_believes_comes_back() {
        let temporary = tempfile::tempdir().unwrap();
        let home = Home::at(temporary.path().join("home"));
        home.prepare().unwrap();
        let dir = home.node(&"n1".parse().unwrap());
        dir.prepare().unwrap();
        let mut store = NodeStore::open(&dir).unwrap();
        let (authority, other) = (identity(), identity());
        let subject = Identifier([1; 32]);
        let own = OwnCredentialRow { subject, scope: "p".into(), credential: vec![1], stored_at: 5 };
        let rows = [
            policy(Some(ResourceType::TcpOutlet), None, "a"),
            policy(None, Some("db"), "b"),
            policy(Some(ResourceType::Transit), Some("10.0.0.0/8:1"), "c"),
        ];
        let guard = |number, resource: &str| GuardRow {
            number,
            resource_type: ResourceType::Echoer,
            resource: resource.into(),
        };
        assert_eq!((store.trusted_authority().unwrap(), store.latest_time().unwrap()), (None, 0));

        store.begin().unwrap();
        store.set_trusted_authority(&authority, "/service/api", "p").unwrap();
        rows.iter().for_each(|row| store.set_policy(row).unwrap());
        store.set_policy(&policy(None, Some("db"), "d")).unwrap();
        store.add_guard(&guard(0, "echo")).unwrap();
        store.add_guard(&guard(GUARD_CLOSED - 1, "other")).unwrap();
        assert!(store.add_guard(&guard(7, "echo")).is_err(), "a resource has one guard");
        assert!(store.add_guard(&guard(GUARD_CLOSED, "x")).is_err(), "that one is for nothing");
        // In the change that is open.
        store.note_shown(&[(subject, Some(vec![7]))]).unwrap();
        store.set_own_credential(&own).unwrap();
        store.set_latest_time(9).unwrap();
        store.set_latest_time(8).unwrap();
        store.commit().unwrap();
        drop(store);

        let mut store = NodeStore::open(&dir).unwrap();
        let row = store.trusted_authority().unwrap().unwrap();
        assert_eq!((&row.history, row.route.as_str(), row.scope.as_str()), (&authority, "/service/api", "p"));
        assert_eq!(store.latest_time().unwrap(), 9);
        let changed = policy(None, Some("db"), "d");
        assert_eq!(store.policies().unwrap(), [rows[0].clone(), changed, rows[2].clone()]);
        store.remove_policy(None, Some("db")).unwrap();
        store.remove_policy(Some(ResourceType::TcpOutlet), None).unwrap();
        assert_eq!(store.policies().unwrap(), rows[2..]);
        assert_eq!(store.guards().unwrap(), [guard(0, "echo"), guard(GUARD_CLOSED - 1, "other")]);
        store.remove_guard(0).unwrap();
        assert_eq!(store.guards().unwrap().len(), 1);
        assert_eq!(store.own_credentials().unwrap(), std::slice::from_ref(&own));
        assert_eq!(store.shown_credentials().unwrap(), [(subject, vec![7])]);
        store.note_shown(&[(subject, None), (Identifier([2; 32]), Some(vec![8]))]).unwrap();
        assert_eq!(store.shown_credentials().unwrap(), [(Identifier([2; 32]), vec![8])]);

        // The same authority by another way is the same; another one attested nothing yet.
        store.set_trusted_authority(&authority, "/service/b", "q").unwrap();
        assert_eq!(store.trusted_authority().unwrap().unwrap().session, row.session);
        assert_eq!(store.shown_credentials().unwrap().len(), 1);
        store.set_trusted_authority(&other, "/service/b", "q").unwrap();
        assert_ne!(store.trusted_authority().unwrap().unwrap().session, row.session);
        assert_eq!((store.shown_credentials().unwrap(), store.revocation_list().unwrap()), (Vec::new(), None));
        store.remove_own_credential(&subject, "p").unwrap();
        assert_eq!(store.own_credentials().unwrap(), []);
    }
}
