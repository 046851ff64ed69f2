//! `authority.db`: the members of an authority, the codes of its tickets as hashes, and whose credentials it has taken
//! back.
//!
//! The thread that serves requests ([`super::desk`]) is the only one that writes it. All the same a ticket is redeemed
//! by comparing and changing in one statement, so that a second connection would not make two of one use.

use super::settings::is_enroller;
use crate::error::Error;
use crate::store::database::{self, Format, from_sqlite};
use ockam_crypto::{Identifier, REVOCATION_LIST_MAX};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Most members of an authority.
pub(super) const MEMBERS_MAX: u64 = 1_000_000;

/// Most codes of tickets, redeemed ones included, until they are forgotten.
pub(super) const TOKENS_MAX: u64 = 100_000;

/// How long a code is kept behind its end, in seconds, so that who comes with it is told what is wrong with it: a week.
const TOKEN_KEPT_SECS: u64 = 7 * 86_400;

/// Most subjects in the list of revocations: it is sent whole, and one of them has at most this many bytes in it.
const REVOCATIONS_MAX: u64 = (REVOCATION_LIST_MAX / 48) as u64;

/// Up to this many revocations none is forgotten. A clock that is wrong for a moment must not give anybody a credential
/// back, and a short list costs nobody anything.
const REVOCATIONS_KEPT: u64 = 4096;

/// By how much the time of the newest credential may be ahead of the one that is noted, in seconds: issuing does not
/// wait for the disk.
const NOTED_SECS: u64 = 60;

/// How far ahead of a reader's clock the clock of an issuer may be (`wire.md` D.4).
const SKEW_SECS: u64 = ockam_crypto::CLOCK_SKEW_SECS;

const FORMAT: Format = Format {
    application_id: 0x4f43_4b41, // OCKA
    migrations: &[
        "
        CREATE TABLE state (
            one         INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
            list_number INTEGER NOT NULL,
            newest      INTEGER NOT NULL,
            longest_ttl INTEGER NOT NULL,
            signed_by   BLOB             CHECK (length(signed_by) = 32)
        ) STRICT;
        CREATE TABLE member (
            identifier BLOB    NOT NULL PRIMARY KEY CHECK (length(identifier) = 32),
            attributes TEXT    NOT NULL,
            added_at   INTEGER NOT NULL,
            added_by   BLOB             CHECK (length(added_by) = 32),
            is_trusted INTEGER NOT NULL CHECK (is_trusted IN (0, 1))
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE token (
            hash       BLOB    NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
            reference  TEXT    NOT NULL,
            attributes TEXT    NOT NULL,
            created_by BLOB    NOT NULL CHECK (length(created_by) = 32),
            created_at INTEGER NOT NULL,
            expires_at INTEGER NOT NULL,
            is_expired INTEGER NOT NULL CHECK (is_expired IN (0, 1)),
            uses_left  INTEGER NOT NULL CHECK (uses_left >= 0)
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX token_end ON token (is_expired, expires_at);
        CREATE TABLE redemption (
            hash   BLOB NOT NULL REFERENCES token ON DELETE CASCADE,
            member BLOB NOT NULL CHECK (length(member) = 32),
            PRIMARY KEY (hash, member)
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE revocation (
            subject    BLOB    NOT NULL PRIMARY KEY CHECK (length(subject) = 32),
            revoked_at INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;
    ",
        MEMBERS_COUNTED,
    ],
};

/// An authority starts as fast with a hundred thousand members as with ten: their number is kept with them, and who is
/// trusted from the start is found without reading the others.
const MEMBERS_COUNTED: &str = "
    ALTER TABLE state ADD COLUMN members INTEGER NOT NULL DEFAULT 0;
    UPDATE state SET members = (SELECT count(*) FROM member);
    CREATE TRIGGER member_added AFTER INSERT ON member BEGIN UPDATE state SET members = members + 1; END;
    CREATE TRIGGER member_removed AFTER DELETE ON member BEGIN UPDATE state SET members = members - 1; END;
    CREATE INDEX trusted_member ON member (identifier) WHERE is_trusted = 1;
";

const TRUSTED_MEMBERS: &str = "SELECT * FROM member WHERE is_trusted = 1";

/// Values of attributes by their names.
pub(super) type Texts = BTreeMap<String, String>;

/// A member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) identifier: Identifier,
    pub(super) attributes: Texts,
    /// In seconds of Unix time.
    pub(super) added_at: u64,
    /// None for those who were there from the start.
    pub(super) added_by: Option<Identifier>,
    /// Whether it was there from the start, so that nobody can change or remove it.
    pub(super) is_trusted: bool,
}

/// A code that was made: never the code itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) hash: [u8; 32],
    /// A name for it that is no secret.
    pub(super) reference: String,
    pub(super) attributes: Texts,
    pub(super) created_by: Identifier,
    /// In seconds of Unix time, as the next.
    pub(super) created_at: u64,
    /// The first second at which it is of no use.
    pub(super) expires_at: u64,
    pub(super) uses: u64,
}

/// What became of an attempt to redeem a code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Redeemed {
    /// The caller is a member now. With the code's reference.
    Now(String),
    /// It has become one with this code before.
    Before,
    /// It was a member already: the code was not used.
    Member,
    /// It became a member with this code and was removed since.
    Removed,
    /// There is no such code.
    Unknown,
    /// Its time is over.
    Expired,
    /// The clock is at a time before it was made, so that nobody can say whether its time is over.
    NotYet,
    /// It was used as often as it may be.
    UsedUp,
    /// Who made it may not add members any more.
    Withdrawn,
    /// There are as many members as there may be.
    Full,
}

#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    connection: Connection,
    list_number: u64,
    /// When the newest credential was issued that is known of, and what of that is noted.
    newest: u64,
    noted: u64,
}

impl Store {
    /// Opens the file, after it was made if there was none, and makes those members who are trusted from the start, and
    /// nobody else who was so before. `now` is in seconds of Unix time, here and below.
    ///
    /// # Errors
    /// As [`database::open`]; here and below [`Error::Database`], [`Error::DatabaseBusy`], [`Error::Storage`].
    pub(super) fn open(
        path: &Path,
        trusted: &BTreeMap<Identifier, Texts>,
        credential_ttl: u64,
        now: u64,
    ) -> Result<Store, Error> {
        let connection = database::open_or_make(path, &FORMAT, |connection| {
            // Not 0: the first list says that nobody is revoked. And ahead of a file that an old copy replaces.
            connection
                .execute(
                    "INSERT INTO state (one, list_number, newest, longest_ttl) VALUES (1, ?1, 0, 0)",
                    [signed(now.max(1))],
                )
                .map(drop)
        })?;
        let sql = "SELECT list_number, newest FROM state";
        let read = connection.query_row(sql, [], |row| Ok((unsigned(row, 0)?, unsigned(row, 1)?)));
        let (list_number, newest) = read.map_err(|error| from_sqlite(path, &error))?;
        // A clock that was set back while this was closed: some credentials may be newer than the one that is noted.
        let behind = if now < newest { NOTED_SECS } else { 0 };
        let mut store = Store {
            path: path.to_owned(),
            connection,
            list_number,
            newest: newest.saturating_add(behind),
            noted: newest,
        };
        store.write(|it| {
            it.execute("UPDATE state SET longest_ttl = max(longest_ttl, ?1)", [signed(credential_ttl)]).map(drop)
        })?;
        store.trust(trusted, now)?;
        store.expire(now)?;
        Ok(store)
    }

    fn trust(&mut self, trusted: &BTreeMap<Identifier, Texts>, now: u64) -> Result<(), Error> {
        let before: BTreeMap<Identifier, Texts> = self
            .rows(TRUSTED_MEMBERS, [], member)?
            .into_iter()
            .map(|member| (member.identifier, member.attributes))
            .collect();
        if before == *trusted {
            return Ok(());
        }
        let gone: Vec<Identifier> = before.keys().filter(|it| !trusted.contains_key(it)).copied().collect();
        let newest = self.newest;
        let list_number = self.next_number(now);
        self.write(|it| {
            for identifier in &gone {
                it.execute("DELETE FROM member WHERE identifier = ?1", [identifier.0])?;
                revoke(it, identifier, now.max(newest))?;
            }
            if !gone.is_empty() {
                it.execute("UPDATE state SET list_number = ?1", [signed(list_number)])?;
            }
            for (identifier, attributes) in trusted.iter().filter(|(it, attributes)| before.get(it) != Some(attributes))
            {
                // Not REPLACE: no trigger hears of what that removes.
                let sql = "INSERT INTO member VALUES (?1, ?2, ?3, NULL, 1) ON CONFLICT (identifier)
                           DO UPDATE SET attributes = ?2, added_at = ?3, added_by = NULL, is_trusted = 1";
                it.execute(sql, params![identifier.0, json(attributes), signed(now)])?;
            }
            Ok(())
        })?;
        if !gone.is_empty() {
            self.list_number = list_number;
        }
        Ok(())
    }

    // ---- members

    /// A member.
    pub(super) fn member(&self, identifier: &Identifier) -> Result<Option<Member>, Error> {
        self.query("SELECT * FROM member WHERE identifier = ?1", [identifier.0], member)
    }

    /// How many members there are.
    pub(super) fn members(&self) -> Result<u64, Error> {
        Ok(self.query("SELECT members FROM state", [], |row| unsigned(row, 0))?.unwrap_or(0))
    }

    /// The next members behind one, in the order of their identifiers.
    pub(super) fn page(&self, after: Option<Identifier>, count: u64) -> Result<Vec<Member>, Error> {
        self.behind("SELECT * FROM member", after, count, member)
    }

    /// The same, their identifiers alone.
    pub(super) fn identifiers(&self, after: Option<Identifier>, count: u64) -> Result<Vec<Identifier>, Error> {
        self.behind("SELECT identifier FROM member", after, count, |row| row.get(0).map(Identifier))
    }

    fn behind<T>(
        &self,
        select: &str,
        after: Option<Identifier>,
        count: u64,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, Error> {
        match after {
            Some(after) => {
                let sql = format!("{select} WHERE identifier > ?2 ORDER BY identifier LIMIT ?1");
                self.rows(&sql, params![signed(count), after.0], read)
            }
            None => self.rows(&format!("{select} ORDER BY identifier LIMIT ?1"), [signed(count)], read),
        }
    }

    /// Adds a member, or replaces its attributes. Says whether there was room.
    pub(super) fn add(&mut self, member: &Member) -> Result<bool, Error> {
        if self.member(&member.identifier)?.is_none() && self.members()? >= MEMBERS_MAX {
            return Ok(false);
        }
        self.write(|it| put(it, member))?;
        Ok(true)
    }

    /// Removes those of the members that `which` names, and revokes their credentials. Who was there from the start stays.
    /// Says how many there were; none when there is no room for so many revocations.
    pub(super) fn remove(&mut self, which: &Which<'_>, now: u64) -> Result<Option<u64>, Error> {
        let chosen: Vec<Identifier> = match which {
            Which::One(identifier) => {
                self.member(identifier)?.filter(|it| !it.is_trusted).map(|it| it.identifier).into_iter().collect()
            }
            Which::AllBut { caller, enrollers_too } => self
                .rows("SELECT * FROM member WHERE is_trusted = 0", [], member)?
                .into_iter()
                .filter(|it| it.identifier != **caller && (*enrollers_too || !is_enroller(&it.attributes)))
                .map(|it| it.identifier)
                .collect(),
        };
        if chosen.is_empty() {
            return Ok(Some(0));
        }
        if !self.has_room(chosen.len() as u64, now)? {
            return Ok(None);
        }
        let (list_number, revoked_at) = (self.next_number(now), now.max(self.newest));
        self.write(|it| {
            for identifier in &chosen {
                it.prepare_cached("DELETE FROM member WHERE identifier = ?1")?.execute([identifier.0])?;
                revoke(it, identifier, revoked_at)?;
            }
            it.execute("UPDATE state SET list_number = ?1", [signed(list_number)]).map(drop)
        })?;
        self.list_number = list_number;
        Ok(Some(chosen.len() as u64))
    }

    /// Adds many at once.
    #[cfg(test)]
    pub(super) fn fill(&mut self, mut members: impl Iterator<Item = Member>) {
        self.write(|it| members.try_for_each(|member| put(it, &member))).unwrap()
    }

    // ---- tokens

    /// Keeps the hash of a new code. Says whether there was room.
    pub(super) fn add_token(&mut self, token: &Token) -> Result<bool, Error> {
        self.expire(token.created_at)?;
        let count = self.query("SELECT count(*) FROM token", [], |row| unsigned(row, 0))?;
        if count.is_none_or(|count| count >= TOKENS_MAX) {
            return Ok(false);
        }
        self.write(|it| {
            it.execute(
                "INSERT INTO token VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7)",
                params![
                    token.hash,
                    token.reference,
                    json(&token.attributes),
                    token.created_by.0,
                    signed(token.created_at),
                    signed(token.expires_at),
                    signed(token.uses)
                ],
            )
            .map(drop)
        })?;
        Ok(true)
    }

    /// Makes `caller` a member if the code is good. That and the use of the code are one change.
    pub(super) fn redeem(&mut self, hash: &[u8; 32], caller: &Identifier, now: u64) -> Result<Redeemed, Error> {
        self.expire(now)?;
        let is_full = self.members()? >= MEMBERS_MAX;
        self.write(|it| {
            let Some(token) = it
                .prepare_cached("SELECT * FROM token WHERE hash = ?1")?
                .query_row([hash], |row| Ok((token(row)?, row.get::<_, bool>(6)?)))
                .optional()?
            else {
                return Ok(Redeemed::Unknown);
            };
            let (token, is_expired) = token;
            let is_member = |it: &Transaction<'_>, identifier: &Identifier| {
                let sql = "SELECT * FROM member WHERE identifier = ?1";
                it.prepare_cached(sql)?.query_row([identifier.0], member).optional()
            };
            let sql = "SELECT 1 FROM redemption WHERE hash = ?1 AND member = ?2";
            let before = it.prepare_cached(sql)?.exists(params![hash, caller.0])?;
            match (before, is_member(it, caller)?) {
                (true, Some(_)) => return Ok(Redeemed::Before),
                (true, None) => return Ok(Redeemed::Removed),
                (false, Some(_)) => return Ok(Redeemed::Member),
                (false, None) => {}
            }
            if is_expired {
                return Ok(Redeemed::Expired);
            }
            if token.created_at > now.saturating_add(SKEW_SECS) {
                return Ok(Redeemed::NotYet);
            }
            if !is_member(it, &token.created_by)?.is_some_and(|by| is_enroller(&by.attributes)) {
                return Ok(Redeemed::Withdrawn);
            }
            if is_full {
                return Ok(Redeemed::Full);
            }
            let sql = "UPDATE token SET uses_left = uses_left - 1 WHERE hash = ?1 AND is_expired = 0 AND uses_left > 0";
            if it.prepare_cached(sql)?.execute([hash])? == 0 {
                return Ok(Redeemed::UsedUp);
            }
            it.prepare_cached("INSERT INTO redemption VALUES (?1, ?2)")?.execute(params![hash, caller.0])?;
            let new = Member {
                identifier: *caller,
                attributes: token.attributes,
                added_at: now,
                added_by: Some(token.created_by),
                is_trusted: false,
            };
            put(it, &new)?;
            Ok(Redeemed::Now(token.reference))
        })
    }

    /// Notes which codes are of no use any more, so that no clock makes them good again, and forgets those that are of
    /// none for long. Gives when the next one ends.
    pub(super) fn expire(&mut self, now: u64) -> Result<Option<u64>, Error> {
        let sql = "SELECT min(expires_at) FROM token WHERE is_expired = 0";
        let next = |it: &Store| it.query(sql, [], |row| Ok(row.get::<_, Option<i64>>(0)?.map(i64::unsigned_abs)));
        let first = next(self)?.flatten();
        let sql = "SELECT EXISTS (SELECT 1 FROM token WHERE is_expired = 1 AND expires_at < ?1)";
        let forgotten = signed(now.saturating_sub(TOKEN_KEPT_SECS));
        let has_old = self.query(sql, [forgotten], |row| row.get(0))?.unwrap_or(false);
        if first.is_none_or(|first| first > now) && !has_old {
            return Ok(first);
        }
        self.write(|it| {
            it.execute("DELETE FROM token WHERE is_expired = 1 AND expires_at < ?1", [forgotten])?;
            it.execute("UPDATE token SET is_expired = 1 WHERE is_expired = 0 AND expires_at <= ?1", [signed(now)])
                .map(drop)
        })?;
        Ok(next(self)?.flatten())
    }

    // ---- revocations

    /// Takes back the credentials that were issued to a subject until now. Says whether there was room.
    pub(super) fn revoke(&mut self, subject: &Identifier, now: u64) -> Result<bool, Error> {
        if !self.has_room(1, now)? {
            return Ok(false);
        }
        let (list_number, revoked_at) = (self.next_number(now), now.max(self.newest));
        self.write(|it| {
            revoke(it, subject, revoked_at)?;
            it.execute("UPDATE state SET list_number = ?1", [signed(list_number)]).map(drop)
        })?;
        self.list_number = list_number;
        Ok(true)
    }

    /// Until when the credentials of a subject were taken back.
    pub(super) fn revoked_at(&self, subject: &Identifier) -> Result<Option<u64>, Error> {
        self.query("SELECT revoked_at FROM revocation WHERE subject = ?1", [subject.0], |row| unsigned(row, 0))
    }

    /// All of that.
    pub(super) fn revocations(&self) -> Result<Vec<(Identifier, u64)>, Error> {
        let sql = "SELECT subject, revoked_at FROM revocation ORDER BY subject";
        self.rows(sql, [], |row| Ok((row.get(0).map(Identifier)?, unsigned(row, 1)?)))
    }

    /// The number of the list that they are. It grows with each change.
    pub(super) fn list_number(&self) -> u64 {
        self.list_number
    }

    /// The identity has this latest change now. After another one its list is a new one: what was signed before is not
    /// believed any more, and those who wait for news hear of it.
    pub(super) fn signs_with(&mut self, change: &[u8; 32], now: u64) -> Result<(), Error> {
        let before = self.query("SELECT signed_by FROM state", [], |row| row.get::<_, Option<[u8; 32]>>(0))?.flatten();
        if before.as_ref() == Some(change) {
            return Ok(());
        }
        let list_number = if before.is_some() { self.next_number(now) } else { self.list_number };
        let sql = "UPDATE state SET signed_by = ?1, list_number = ?2";
        self.write(|it| it.execute(sql, params![change, signed(list_number)]).map(drop))?;
        self.list_number = list_number;
        Ok(())
    }

    /// A credential was issued that says so of itself.
    pub(super) fn issued(&mut self, created_at: u64) -> Result<(), Error> {
        self.newest = self.newest.max(created_at);
        if self.newest >= self.noted.saturating_add(NOTED_SECS) {
            let newest = self.newest;
            self.write(|it| it.execute("UPDATE state SET newest = ?1", [signed(newest)]).map(drop))?;
            self.noted = newest;
        }
        Ok(())
    }

    /// Whether there is room for more revocations, once those are forgotten that matter no more, if there are many.
    fn has_room(&mut self, more: u64, now: u64) -> Result<bool, Error> {
        let count = |it: &Store| it.query("SELECT count(*) FROM revocation", [], |row| unsigned(row, 0));
        let before = count(self)?.unwrap_or(0);
        if before + more > REVOCATIONS_KEPT {
            // The clock may have been set ahead, so what was issued since must say the same.
            let certain = now.min(self.noted).saturating_sub(SKEW_SECS);
            let sql = "DELETE FROM revocation WHERE revoked_at + (SELECT longest_ttl FROM state) < ?1";
            self.write(|it| it.execute(sql, [signed(certain)]).map(drop))?;
        }
        Ok(count(self)?.unwrap_or(0) + more <= REVOCATIONS_MAX)
    }

    /// Higher than before, and also than in a copy of the file that is older.
    fn next_number(&self, now: u64) -> u64 {
        self.list_number.saturating_add(1).max(now)
    }

    // ---- how

    /// All of it, or nothing.
    fn write<T>(&mut self, change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, Error> {
        let written = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).and_then(|it| {
            let changed = change(&it)?;
            it.commit()?;
            Ok(changed)
        });
        written.map_err(|error| from_sqlite(&self.path, &error))
    }

    fn query<T>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, Error> {
        let found = self.connection.prepare_cached(sql).and_then(|mut it| it.query_row(values, read).optional());
        found.map_err(|error| from_sqlite(&self.path, &error))
    }

    fn rows<T>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, Error> {
        let rows = self.connection.prepare_cached(sql).and_then(|mut it| it.query_map(values, read)?.collect());
        rows.map_err(|error| from_sqlite(&self.path, &error))
    }
}

/// Which members are to be removed.
pub(super) enum Which<'a> {
    One(&'a Identifier),
    AllBut { caller: &'a Identifier, enrollers_too: bool },
}

fn put(it: &Transaction<'_>, member: &Member) -> rusqlite::Result<()> {
    let sql = "INSERT INTO member VALUES (?1, ?2, ?3, ?4, 0)
               ON CONFLICT (identifier) DO UPDATE SET attributes = ?2, added_at = ?3, added_by = ?4
               WHERE is_trusted = 0";
    let added_by = member.added_by.map(|by| by.0);
    let values = params![member.identifier.0, json(&member.attributes), signed(member.added_at), added_by];
    it.prepare_cached(sql)?.execute(values).map(drop)
}

fn revoke(it: &Transaction<'_>, subject: &Identifier, revoked_at: u64) -> rusqlite::Result<()> {
    let sql = "INSERT INTO revocation VALUES (?1, ?2)
               ON CONFLICT (subject) DO UPDATE SET revoked_at = max(revoked_at, ?2)";
    it.prepare_cached(sql)?.execute(params![subject.0, signed(revoked_at)]).map(drop)
}

fn member(row: &Row<'_>) -> rusqlite::Result<Member> {
    Ok(Member {
        identifier: Identifier(row.get(0)?),
        attributes: texts(row, 1)?,
        added_at: unsigned(row, 2)?,
        added_by: row.get::<_, Option<[u8; 32]>>(3)?.map(Identifier),
        is_trusted: row.get(4)?,
    })
}

fn token(row: &Row<'_>) -> rusqlite::Result<Token> {
    Ok(Token {
        hash: row.get(0)?,
        reference: row.get(1)?,
        attributes: texts(row, 2)?,
        created_by: Identifier(row.get(3)?),
        created_at: unsigned(row, 4)?,
        expires_at: unsigned(row, 5)?,
        uses: unsigned(row, 7)?,
    })
}

fn json(texts: &Texts) -> String {
    serde_json::to_string(texts).expect("a map of texts")
}

fn texts(row: &Row<'_>, index: usize) -> rusqlite::Result<Texts> {
    let text = row.get_ref(index)?.as_str()?;
    serde_json::from_str(text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, Box::new(error)))
}

/// SQLite has no larger ones, and no time is that late.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(index).map(|number| number.max(0).unsigned_abs())
}

#[cfg(test)]
mod tests;
