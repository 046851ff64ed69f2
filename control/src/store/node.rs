//! `node.db`: what a node shall be. Its control reads it once and writes it before it applies a change.
//!
//! A change is a transaction that stays open until the engine has applied it: [`NodeStore::begin`], the change,
//! [`NodeStore::commit`] or [`NodeStore::roll_back`]. Nobody else writes this file, so nobody waits for that.

use super::database::{self, Format, from_sqlite};
use crate::api::Service;
use crate::authority::AuthoritySettings;
use crate::error::Error;
use crate::home::NodeDir;
use ockam_crypto::Identifier;
use ockam_engine_abi::{FLOW_CONTROL_DIALED, FLOW_CONTROLS_MAX, TransitRule};
use rusqlite::{Connection, params};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;

/// Flow controls of TCP listeners, those of listeners for secure channels, and the one that all channels share which
/// this node opens. The ranges are apart so that what only links may reach says so once, whatever listeners come and go.
const TCP_BITS: Range<u8> = FLOW_CONTROL_DIALED + 1..FLOW_CONTROLS_MAX / 2;
const CHANNEL_BITS: Range<u8> = FLOW_CONTROLS_MAX / 2..FLOW_CONTROL_INITIATED;
/// The flow control of channels that this node opens.
pub const FLOW_CONTROL_INITIATED: u8 = FLOW_CONTROLS_MAX - 1;

/// The flow controls of everything that comes out of channels, as the engine's mask.
pub const CHANNELS_MASK: u64 = u64::MAX << CHANNEL_BITS.start;

/// Most listeners of a node: every one has a flow control of its own.
pub const LISTENERS_MAX: usize = (TCP_BITS.end - TCP_BITS.start) as usize;

/// Most listeners of a node for secure channels.
pub const CHANNEL_LISTENERS_MAX: usize = (CHANNEL_BITS.end - CHANNEL_BITS.start) as usize;

/// Most secure channels that are opened again whenever they end.
pub const CHANNELS_MAX: usize = 1024;

/// Most services of a node.
pub const SERVICES_MAX: usize = 1024;

/// Most outlets of a node.
pub const OUTLETS_MAX: usize = 1024;

/// Most inlets of a node: as many as an engine takes.
pub const INLETS_MAX: usize = 1024;

/// Most relays that a node registers at others.
pub const RELAYS_MAX: usize = 256;

/// Most additions by `flow-control add-consumer`.
pub const CONSUMERS_MAX: usize = 4096;

/// Most transit rules of a node.
pub const TRANSIT_RULES_MAX: usize = 256;

const FORMAT: Format = Format {
    application_id: 0x4f43_4b4e, // OCKN
    migrations: &[
        "
        CREATE TABLE setting (
            one                 INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
            driver              TEXT    NOT NULL,
            threads             INTEGER CHECK (threads BETWEEN 1 AND 255),
            pin                 INTEGER NOT NULL CHECK (pin IN (0, 1)),
            cookie_key          BLOB    NOT NULL CHECK (length(cookie_key) = 32),
            dialed_flow_control TEXT    NOT NULL CHECK (length(dialed_flow_control) = 32),
            last_bit            INTEGER NOT NULL
        ) STRICT;
        CREATE TABLE listener (
            position     INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
            bit          INTEGER NOT NULL UNIQUE CHECK (bit BETWEEN 1 AND 63),
            address      TEXT    NOT NULL UNIQUE,
            flow_control TEXT    NOT NULL UNIQUE CHECK (length(flow_control) = 32)
        ) STRICT;
        CREATE TABLE service (
            address TEXT NOT NULL PRIMARY KEY,
            kind    TEXT NOT NULL
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE consumer (
            bit     INTEGER NOT NULL CHECK (bit BETWEEN 0 AND 63),
            address TEXT    NOT NULL,
            PRIMARY KEY (bit, address)
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE transit (
            rule TEXT NOT NULL PRIMARY KEY
        ) STRICT;
    ",
        "
        ALTER TABLE setting ADD COLUMN initiated_flow_control TEXT    NOT NULL DEFAULT '';
        ALTER TABLE setting ADD COLUMN last_channel_bit       INTEGER NOT NULL DEFAULT 32;
        UPDATE setting SET initiated_flow_control = lower(hex(randomblob(16)));
        CREATE TABLE channel_listener (
            position     INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
            bit          INTEGER NOT NULL UNIQUE CHECK (bit BETWEEN 32 AND 62),
            address      TEXT    NOT NULL UNIQUE,
            flow_control TEXT    NOT NULL UNIQUE CHECK (length(flow_control) = 32),
            identity     TEXT,
            authorized   TEXT    NOT NULL
        ) STRICT;
        INSERT INTO channel_listener (bit, address, flow_control, authorized)
            VALUES (32, 'api', lower(hex(randomblob(16))), '');
        CREATE TABLE channel (
            position   INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
            address    TEXT    NOT NULL UNIQUE CHECK (length(address) = 32),
            route      TEXT    NOT NULL,
            authorized TEXT    NOT NULL,
            on_the_way TEXT    NOT NULL,
            identity   TEXT    NOT NULL,
            peer       TEXT    NOT NULL
        ) STRICT;
    ",
        "
        CREATE TABLE outlet (
            number  INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
            address TEXT    NOT NULL UNIQUE,
            target  TEXT    NOT NULL,
            tls     INTEGER NOT NULL CHECK (tls IN (0, 1)),
            plain   INTEGER NOT NULL CHECK (plain IN (0, 1))
        ) STRICT;
        CREATE TABLE inlet (
            number             INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT CHECK (number BETWEEN 64 AND 4294967295),
            alias              TEXT    NOT NULL UNIQUE,
            listen             TEXT    NOT NULL UNIQUE,
            route              TEXT    NOT NULL,
            session            TEXT    NOT NULL UNIQUE CHECK (length(session) = 32),
            authorized         TEXT    NOT NULL,
            on_the_way         TEXT    NOT NULL,
            identity           TEXT,
            peer               TEXT,
            connection_wait_ms INTEGER NOT NULL CHECK (connection_wait_ms BETWEEN 0 AND 4294967295),
            retry_wait_ms      INTEGER NOT NULL CHECK (retry_wait_ms BETWEEN 0 AND 4294967295)
        ) STRICT;
    ",
        "
        CREATE TABLE relay (
            position      INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
            name          TEXT    NOT NULL UNIQUE,
            at            TEXT    NOT NULL,
            relay_address TEXT,
            authorized    TEXT    NOT NULL,
            on_the_way    TEXT    NOT NULL,
            identity      TEXT,
            peer          TEXT,
            session       TEXT    NOT NULL UNIQUE CHECK (length(session) = 32)
        ) STRICT;
    ",
        "
        ALTER TABLE setting ADD COLUMN portal_memory INTEGER CHECK (portal_memory >= 0);
    ",
        "
        CREATE TABLE authority_node (
            one      INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
            settings TEXT    NOT NULL
        ) STRICT;
    ",
        super::trust::MIGRATION,
    ],
};

/// How the engine of a node is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `auto`, `uring` or `epoll`.
    pub driver: String,
    /// Threads; as many as the process may use, at most 4, when absent.
    pub threads: Option<u8>,
    /// Whether threads are pinned to cores.
    pub pin: bool,
    /// Bytes that may wait, over all portals, for applications that stop taking; 256 MiB when absent.
    pub portal_memory: Option<u64>,
}

/// A listener that shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerRow {
    /// The flow control's bit in the engine, and control's number for the listener.
    pub bit: u8,
    /// Where it listens; the port is never 0.
    pub address: SocketAddr,
    /// The flow control's id, 32 hexadecimal digits.
    pub flow_control: String,
}

/// A listener for secure channels that shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelListenerRow {
    /// The flow control's bit in the engine.
    pub bit: u8,
    /// Its local address.
    pub address: String,
    /// The id of the flow control of what comes out of its channels, 32 hexadecimal digits. One that is made again has
    /// another.
    pub flow_control: String,
    /// Who it says it is; the node's identity when absent.
    pub identity: Option<Identifier>,
    /// Of which the peer must have one; anyone's when empty.
    pub authorized: Vec<Identifier>,
}

/// A secure channel that shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelRow {
    /// The local address of its sending side, 32 hexadecimal digits.
    pub address: String,
    /// The route to the peer's listener, a MultiAddr.
    pub route: String,
    /// Of which the peer must have one; anyone's when empty.
    pub authorized: Vec<Identifier>,
    /// The same for each secure channel on the way.
    pub on_the_way: Vec<Vec<Identifier>>,
    /// Who this node says it is.
    pub identity: Identifier,
    /// Who the peer was when the channel was made.
    pub peer: Identifier,
}

/// An outlet that shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutletRow {
    /// Which no other outlet of the node has had; 0 before it is stored.
    pub number: u32,
    /// Its local address.
    pub address: String,
    /// Its target as given: `HOST:PORT` or `unix:/path`.
    pub target: String,
    /// Whether the target is spoken to with TLS.
    pub tls: bool,
    /// Whether peers may use it that are neither on loopback nor behind a channel.
    pub plain: bool,
}

/// An inlet that shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InletRow {
    /// Control's number for it in the engine, which no listener has.
    pub number: u32,
    /// Its name.
    pub alias: String,
    /// Where it listens: `IP:PORT`, where the port is never 0, or `unix:/path`.
    pub listen: String,
    /// The route to the outlet, a MultiAddr.
    pub route: String,
    /// The name of the session that keeps its way open, 32 hexadecimal digits.
    pub session: String,
    /// Of which the peer at the end of the last channel must have one; anyone's when empty.
    pub authorized: Vec<Identifier>,
    /// The same for each channel before that.
    pub on_the_way: Vec<Vec<Identifier>>,
    /// Who this node says it is, where there is a channel.
    pub identity: Option<Identifier>,
    /// Who was at the end of the last channel when it was opened for the first time.
    pub peer: Option<Identifier>,
    /// Milliseconds that a new connection waits while the way is down.
    pub connection_wait_ms: u32,
    /// Milliseconds between two tries to open the way, at most.
    pub retry_wait_ms: u32,
}

/// A relay that this node shall have at another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayRow {
    /// Its name.
    pub name: String,
    /// The route to the relay's node, a MultiAddr; empty for this node.
    pub at: String,
    /// The name to ask for there, when another than `name`.
    pub relay_address: Option<String>,
    /// Of which the peer at the end of the last channel must have one; anyone's when empty.
    pub authorized: Vec<Identifier>,
    /// The same for each channel before that.
    pub on_the_way: Vec<Vec<Identifier>>,
    /// Who this node says it is, where there is a channel.
    pub identity: Option<Identifier>,
    /// Who was at the end of the last channel when it was opened for the first time.
    pub peer: Option<Identifier>,
    /// The name of the session that keeps its way open, 32 hexadecimal digits.
    pub session: String,
}

impl RelayRow {
    /// The name to ask for at the relay's node.
    pub fn asks_for(&self) -> &str {
        self.relay_address.as_deref().unwrap_or(&self.name)
    }

    /// Whether the relay's node is this one.
    pub fn is_here(&self) -> bool {
        self.at.is_empty()
    }
}

/// The file of one node.
#[derive(Debug)]
pub struct NodeStore {
    path: PathBuf,
    connection: Connection,
}

impl NodeStore {
    /// Opens the file, after it was made with the default services if there was none.
    ///
    /// # Errors
    /// As [`database::open`].
    pub fn open(dir: &NodeDir) -> Result<NodeStore, Error> {
        let path = dir.database();
        let connection = database::open_or_make(&path, &FORMAT, |connection| {
            let sql = "INSERT INTO setting VALUES (1, 'auto', NULL, 0, ?1, ?2, 0, ?3, 32, NULL, 0)";
            let [dialed, initiated] = [crate::random::hex_id(), crate::random::hex_id()];
            connection.execute(sql, params![crate::random::bytes::<32>(), dialed, initiated])?;
            for service in [Service::Echo, Service::Uppercase] {
                connection.execute("INSERT INTO service VALUES (?1, ?1)", [service.name()])?;
            }
            Ok(())
        })?;
        Ok(NodeStore { path, connection })
    }

    /// Begins a change.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::DatabaseBusy`], [`Error::Storage`]; so for all below.
    pub fn begin(&mut self) -> Result<(), Error> {
        if !self.connection.is_autocommit() {
            // A change that panicked before its end.
            self.roll_back();
        }
        self.batch("BEGIN IMMEDIATE")
    }

    /// Whether a change has begun and has not ended. While a node starts, the change that makes it is open until all of it
    /// works.
    pub fn is_changing(&self) -> bool {
        !self.connection.is_autocommit()
    }

    /// Makes a change durable.
    pub fn commit(&mut self) -> Result<(), Error> {
        let committed = self.batch("COMMIT");
        if committed.is_err() {
            self.roll_back();
        }
        committed
    }

    /// Forgets a change.
    pub fn roll_back(&mut self) {
        if let Err(error) = self.batch("ROLLBACK") {
            // SQLite rolls back by itself after errors such as a full disk, and says then that nothing is open.
            tracing::debug!(%error, "nothing to roll back");
        }
    }

    /// How the engine is started.
    pub fn settings(&self) -> Result<Settings, Error> {
        let sql = "SELECT driver, threads, pin, portal_memory FROM setting";
        self.sqlite(self.connection.query_row(sql, [], |row| {
            let portal_memory = row.get::<_, Option<i64>>(3)?.map(i64::unsigned_abs);
            Ok(Settings { driver: row.get(0)?, threads: row.get(1)?, pin: row.get(2)?, portal_memory })
        }))
    }

    /// Replaces how the engine is started.
    pub fn set_settings(&mut self, settings: &Settings) -> Result<(), Error> {
        let sql = "UPDATE setting SET driver = ?1, threads = ?2, pin = ?3, portal_memory = ?4";
        let portal_memory = settings.portal_memory.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        self.execute(sql, params![settings.driver, settings.threads, settings.pin, portal_memory])
    }

    /// What makes the node an authority, if it is one.
    pub fn authority_settings(&self) -> Result<Option<AuthoritySettings>, Error> {
        let rows = self.rows("SELECT settings FROM authority_node", |row| row.get::<_, String>(0))?;
        let damaged = |_| self.damaged("the settings of the authority are none");
        rows.first().map(|text| serde_json::from_str(text).map_err(damaged)).transpose()
    }

    /// Makes the node an authority, or one with other settings.
    pub fn set_authority_settings(&mut self, settings: &AuthoritySettings) -> Result<(), Error> {
        let text = serde_json::to_string(settings).map_err(|error| Error::internal(error.to_string()))?;
        self.execute("INSERT OR REPLACE INTO authority_node VALUES (1, ?1)", [text])
    }

    /// The key that authenticates cookies.
    pub fn cookie_key(&self) -> Result<[u8; 32], Error> {
        self.sqlite(self.connection.query_row("SELECT cookie_key FROM setting", [], |row| row.get(0)))
    }

    /// The id of the flow control of links that this node dials.
    pub fn dialed_flow_control(&self) -> Result<String, Error> {
        self.sqlite(self.connection.query_row("SELECT dialed_flow_control FROM setting", [], |row| row.get(0)))
    }

    /// The id of the flow control of channels that this node opens.
    pub fn initiated_flow_control(&self) -> Result<String, Error> {
        let sql = "SELECT initiated_flow_control FROM setting";
        self.sqlite(self.connection.query_row(sql, [], |row| row.get(0)))
    }

    /// Listeners, in the order of their creation.
    pub fn listeners(&self) -> Result<Vec<ListenerRow>, Error> {
        let rows = self.rows("SELECT bit, address, flow_control FROM listener ORDER BY position", |row| {
            Ok((row.get::<_, u8>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
        })?;
        rows.into_iter()
            .map(|(bit, address, flow_control)| {
                let address = address.parse().map_err(|_| self.damaged("a listener has an address that is none"))?;
                Ok(ListenerRow { bit, address, flow_control })
            })
            .collect()
    }

    /// A bit for a new listener: the first free one after the one given last, so that a bit comes back as late as
    /// possible (links of a listener that is gone keep it). `None` when all that are neither taken nor in `avoid` are out.
    pub fn free_bit(&self, avoid: u64) -> Result<Option<u8>, Error> {
        let last: u8 = self.sqlite(self.connection.query_row("SELECT last_bit FROM setting", [], |row| row.get(0)))?;
        let taken = self.listeners()?.iter().fold(avoid, |taken, row| taken | 1 << row.bit);
        Ok(free_after(last, TCP_BITS, taken))
    }

    /// Adds a listener; what the links of the first one may reach, its links may, too.
    pub fn add_listener(&mut self, row: &ListenerRow) -> Result<(), Error> {
        let sql = "INSERT INTO consumer SELECT ?1, address FROM consumer
                   WHERE bit = (SELECT bit FROM listener ORDER BY position LIMIT 1)";
        self.execute(sql, params![row.bit])?;
        let sql = "INSERT INTO listener (bit, address, flow_control) VALUES (?1, ?2, ?3)";
        self.execute(sql, params![row.bit, row.address.to_string(), row.flow_control])?;
        self.execute("UPDATE setting SET last_bit = ?1", params![row.bit])
    }

    /// Moves a listener to another address.
    pub fn set_listener_address(&mut self, bit: u8, address: SocketAddr) -> Result<(), Error> {
        self.execute("UPDATE listener SET address = ?2 WHERE bit = ?1", params![bit, address.to_string()])
    }

    /// Removes a listener and what was added for its links.
    pub fn remove_listener(&mut self, bit: u8) -> Result<(), Error> {
        self.execute("DELETE FROM consumer WHERE bit = ?1", params![bit])?;
        self.execute("DELETE FROM listener WHERE bit = ?1", params![bit])
    }

    /// Listeners for secure channels, in the order of their creation.
    pub fn channel_listeners(&self) -> Result<Vec<ChannelListenerRow>, Error> {
        let sql = "SELECT bit, address, flow_control, identity, authorized FROM channel_listener ORDER BY position";
        let rows = self.rows(sql, |row| {
            let texts = (row.get::<_, Option<String>>(3)?, row.get::<_, String>(4)?);
            Ok((row.get::<_, u8>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?, texts))
        })?;
        rows.into_iter()
            .map(|(bit, address, flow_control, (identity, authorized))| {
                let identity = identity.map(|text| self.identifier(&text)).transpose()?;
                let authorized = self.identifiers(&authorized)?;
                Ok(ChannelListenerRow { bit, address, flow_control, identity, authorized })
            })
            .collect()
    }

    /// A bit for a new listener for secure channels, as [`NodeStore::free_bit`].
    pub fn free_channel_bit(&self, avoid: u64) -> Result<Option<u8>, Error> {
        let sql = "SELECT last_channel_bit FROM setting";
        let last: u8 = self.sqlite(self.connection.query_row(sql, [], |row| row.get(0)))?;
        let taken = self.channel_listeners()?.iter().fold(avoid, |taken, row| taken | 1 << row.bit);
        Ok(free_after(last, CHANNEL_BITS, taken))
    }

    /// Adds a listener for secure channels.
    pub fn add_channel_listener(&mut self, row: &ChannelListenerRow) -> Result<(), Error> {
        let sql = "INSERT INTO channel_listener (bit, address, flow_control, identity, authorized)
                   VALUES (?1, ?2, ?3, ?4, ?5)";
        let identity = row.identity.as_ref().map(Identifier::to_string);
        self.execute(sql, params![row.bit, row.address, row.flow_control, identity, joined(&row.authorized)])?;
        self.execute("UPDATE setting SET last_channel_bit = ?1", params![row.bit])
    }

    /// Removes a listener for secure channels and what was added for its channels.
    pub fn remove_channel_listener(&mut self, bit: u8) -> Result<(), Error> {
        self.execute("DELETE FROM consumer WHERE bit = ?1", params![bit])?;
        self.execute("DELETE FROM channel_listener WHERE bit = ?1", params![bit])
    }

    /// Secure channels, in the order of their creation.
    pub fn channels(&self) -> Result<Vec<ChannelRow>, Error> {
        let sql = "SELECT address, route, authorized, on_the_way, identity, peer FROM channel ORDER BY position";
        let rows = self.rows(sql, |row| {
            let texts: [String; 4] = [row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?];
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, texts))
        })?;
        rows.into_iter()
            .map(|(address, route, [authorized, on_the_way, identity, peer])| {
                Ok(ChannelRow {
                    address,
                    route,
                    authorized: self.identifiers(&authorized)?,
                    on_the_way: self.lists(&on_the_way)?,
                    identity: self.identifier(&identity)?,
                    peer: self.identifier(&peer)?,
                })
            })
            .collect()
    }

    /// Adds a secure channel.
    pub fn add_channel(&mut self, row: &ChannelRow) -> Result<(), Error> {
        let sql = "INSERT INTO channel (address, route, authorized, on_the_way, identity, peer)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let (authorized, on_the_way) = (joined(&row.authorized), joined_lists(&row.on_the_way));
        let (identity, peer) = (row.identity.to_string(), row.peer.to_string());
        self.execute(sql, params![row.address, row.route, authorized, on_the_way, identity, peer])
    }

    /// Removes a secure channel.
    pub fn remove_channel(&mut self, address: &str) -> Result<(), Error> {
        self.execute("DELETE FROM channel WHERE address = ?1", params![address])
    }

    /// Outlets, in the order of their creation.
    pub fn outlets(&self) -> Result<Vec<OutletRow>, Error> {
        self.rows("SELECT number, address, target, tls, plain FROM outlet ORDER BY number", |row| {
            Ok(OutletRow {
                number: row.get(0)?,
                address: row.get(1)?,
                target: row.get(2)?,
                tls: row.get(3)?,
                plain: row.get(4)?,
            })
        })
    }

    /// The number of the next outlet.
    pub fn next_outlet(&self) -> Result<u32, Error> {
        self.next_number("outlet", 1)
    }

    /// Adds an outlet.
    pub fn add_outlet(&mut self, row: &OutletRow) -> Result<(), Error> {
        let sql = "INSERT INTO outlet (number, address, target, tls, plain) VALUES (?1, ?2, ?3, ?4, ?5)";
        self.execute(sql, params![row.number, row.address, row.target, row.tls, row.plain])
    }

    /// Removes an outlet.
    pub fn remove_outlet(&mut self, address: &str) -> Result<(), Error> {
        self.execute("DELETE FROM outlet WHERE address = ?1", params![address])
    }

    /// Inlets, in the order of their creation.
    pub fn inlets(&self) -> Result<Vec<InletRow>, Error> {
        let sql =
            "SELECT number, connection_wait_ms, retry_wait_ms, alias, listen, route, session, authorized, on_the_way,
                   identity, peer FROM inlet ORDER BY number";
        let rows = self.rows(sql, |row| {
            let numbers: [u32; 3] = [row.get(0)?, row.get(1)?, row.get(2)?];
            let texts: [String; 6] = [row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?, row.get(7)?, row.get(8)?];
            let who: [Option<String>; 2] = [row.get(9)?, row.get(10)?];
            Ok((numbers, texts, who))
        })?;
        rows.into_iter()
            .map(|([number, connection_wait_ms, retry_wait_ms], texts, [identity, peer])| {
                let [alias, listen, route, session, authorized, on_the_way] = texts;
                Ok(InletRow {
                    number,
                    alias,
                    listen,
                    route,
                    session,
                    authorized: self.identifiers(&authorized)?,
                    on_the_way: self.lists(&on_the_way)?,
                    identity: identity.map(|text| self.identifier(&text)).transpose()?,
                    peer: peer.map(|text| self.identifier(&text)).transpose()?,
                    connection_wait_ms,
                    retry_wait_ms,
                })
            })
            .collect()
    }

    /// The number of the next inlet.
    pub fn next_inlet(&self) -> Result<u32, Error> {
        self.next_number("inlet", u32::from(FLOW_CONTROLS_MAX))
    }

    /// Adds an inlet.
    pub fn add_inlet(&mut self, row: &InletRow) -> Result<(), Error> {
        let sql = "INSERT INTO inlet (number, alias, listen, route, session, authorized, on_the_way, identity, peer,
                   connection_wait_ms, retry_wait_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
        let values = params![
            row.number,
            row.alias,
            row.listen,
            row.route,
            row.session,
            joined(&row.authorized),
            joined_lists(&row.on_the_way),
            row.identity.as_ref().map(Identifier::to_string),
            row.peer.as_ref().map(Identifier::to_string),
            row.connection_wait_ms,
            row.retry_wait_ms
        ];
        self.execute(sql, values)
    }

    /// Notes who was met at the other end of an inlet's way.
    pub fn set_inlet_peer(&mut self, number: u32, peer: &Identifier) -> Result<(), Error> {
        self.execute("UPDATE inlet SET peer = ?2 WHERE number = ?1", params![number, peer.to_string()])
    }

    /// Removes an inlet.
    pub fn remove_inlet(&mut self, number: u32) -> Result<(), Error> {
        self.execute("DELETE FROM inlet WHERE number = ?1", params![number])
    }

    /// Relays, in the order of their creation.
    pub fn relays(&self) -> Result<Vec<RelayRow>, Error> {
        let sql = "SELECT name, at, authorized, on_the_way, session, relay_address, identity, peer
                   FROM relay ORDER BY position";
        let rows = self.rows(sql, |row| {
            let texts: [String; 5] = [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?];
            let others: [Option<String>; 3] = [row.get(5)?, row.get(6)?, row.get(7)?];
            Ok((texts, others))
        })?;
        rows.into_iter()
            .map(|([name, at, authorized, on_the_way, session], [relay_address, identity, peer])| {
                Ok(RelayRow {
                    name,
                    at,
                    relay_address,
                    authorized: self.identifiers(&authorized)?,
                    on_the_way: self.lists(&on_the_way)?,
                    identity: identity.map(|text| self.identifier(&text)).transpose()?,
                    peer: peer.map(|text| self.identifier(&text)).transpose()?,
                    session,
                })
            })
            .collect()
    }

    /// Adds a relay.
    pub fn add_relay(&mut self, row: &RelayRow) -> Result<(), Error> {
        let sql = "INSERT INTO relay (name, at, relay_address, authorized, on_the_way, identity, peer, session)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let values = params![
            row.name,
            row.at,
            row.relay_address,
            joined(&row.authorized),
            joined_lists(&row.on_the_way),
            row.identity.as_ref().map(Identifier::to_string),
            row.peer.as_ref().map(Identifier::to_string),
            row.session
        ];
        self.execute(sql, values)
    }

    /// Notes who was met at the other end of a relay's way.
    pub fn set_relay_peer(&mut self, name: &str, peer: &Identifier) -> Result<(), Error> {
        self.execute("UPDATE relay SET peer = ?2 WHERE name = ?1", params![name, peer.to_string()])
    }

    /// Removes a relay.
    pub fn remove_relay(&mut self, name: &str) -> Result<(), Error> {
        self.execute("DELETE FROM relay WHERE name = ?1", params![name])
    }

    /// One more than the greatest number that a row of `table` ever had, and at least `first`.
    fn next_number(&self, table: &str, first: u32) -> Result<u32, Error> {
        let sql = "SELECT max(?2, 1 + coalesce((SELECT seq FROM sqlite_sequence WHERE name = ?1), 0))";
        self.sqlite(self.connection.query_row(sql, params![table, first], |row| row.get(0)))
    }

    fn lists(&self, text: &str) -> Result<Vec<Vec<Identifier>>, Error> {
        match text {
            "" => Ok(Vec::new()),
            lists => lists.split(',').map(|each| self.identifiers(each)).collect(),
        }
    }

    fn identifier(&self, text: &str) -> Result<Identifier, Error> {
        text.parse().map_err(|_| self.damaged("an identifier is none"))
    }

    fn identifiers(&self, text: &str) -> Result<Vec<Identifier>, Error> {
        text.split_whitespace().map(|each| self.identifier(each)).collect()
    }

    /// Services by address.
    pub fn services(&self) -> Result<Vec<(String, Service)>, Error> {
        let rows = self.rows("SELECT address, kind FROM service ORDER BY address", |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })?;
        rows.into_iter()
            .map(|(address, kind)| {
                let service = Service::from_name(&kind).ok_or_else(|| self.damaged("a service has an unknown kind"))?;
                Ok((address, service))
            })
            .collect()
    }

    /// Adds a service.
    pub fn add_service(&mut self, address: &str, service: Service) -> Result<(), Error> {
        self.execute("INSERT INTO service VALUES (?1, ?2)", params![address, service.name()])
    }

    /// Additions by `flow-control add-consumer`: bit and address.
    pub fn consumers(&self) -> Result<Vec<(u8, String)>, Error> {
        self.rows("SELECT bit, address FROM consumer ORDER BY address, bit", |row| Ok((row.get(0)?, row.get(1)?)))
    }

    /// Adds a consumer; one that is there stays.
    pub fn add_consumer(&mut self, bit: u8, address: &str) -> Result<(), Error> {
        self.execute("INSERT OR IGNORE INTO consumer VALUES (?1, ?2)", params![bit, address])
    }

    /// Transit rules beside the default.
    pub fn transit_rules(&self) -> Result<Vec<TransitRule>, Error> {
        let rows = self.rows("SELECT rule FROM transit ORDER BY rowid", |row| row.get::<_, String>(0))?;
        let damaged = |_| self.damaged("a transit rule is none");
        rows.iter().map(|text| crate::transit::parse(text).map_err(damaged)).collect()
    }

    /// Replaces the transit rules.
    pub fn set_transit_rules(&mut self, rules: &[TransitRule]) -> Result<(), Error> {
        self.execute("DELETE FROM transit", [])?;
        for rule in rules {
            self.execute("INSERT OR IGNORE INTO transit VALUES (?1)", [crate::transit::text(rule)])?;
        }
        Ok(())
    }

    pub(super) fn batch(&self, sql: &str) -> Result<(), Error> {
        self.sqlite(self.connection.execute_batch(sql))
    }

    pub(super) fn execute(&mut self, sql: &str, values: impl rusqlite::Params) -> Result<(), Error> {
        self.sqlite(self.connection.execute(sql, values).map(drop))
    }

    pub(super) fn rows<T>(
        &self,
        sql: &str,
        read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, Error> {
        let mut statement = self.sqlite(self.connection.prepare(sql))?;
        let rows = self.sqlite(statement.query_map([], read))?;
        self.sqlite(rows.collect())
    }

    fn sqlite<T>(&self, result: rusqlite::Result<T>) -> Result<T, Error> {
        result.map_err(|error| from_sqlite(&self.path, &error))
    }

    pub(super) fn damaged(&self, why: &str) -> Error {
        Error::Database { path: self.path.clone(), why: why.into() }
    }
}

/// The first bit of `range` after `last` that is not in `taken`.
fn free_after(last: u8, range: Range<u8>, taken: u64) -> Option<u8> {
    let count = range.end - range.start;
    let last = if range.contains(&last) { last - range.start } else { count - 1 };
    let candidates = (1..=count).map(|step| range.start + (last + step) % count);
    candidates.into_iter().find(|bit| taken & (1 << bit) == 0)
}

fn joined(identifiers: &[Identifier]) -> String {
    identifiers.iter().map(Identifier::to_string).collect::<Vec<_>>().join(" ")
}

fn joined_lists(lists: &[Vec<Identifier>]) -> String {
    lists.iter().map(|each| joined(each)).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Home;

    fn store() -> (tempfile::TempDir, NodeDir, NodeStore) {
        let temporary = tempfile::tempdir().unwrap();
        let home = Home::at(temporary.path().join("home"));
        home.prepare().unwrap();
        let dir = home.node(&"n1".parse().unwrap());
        dir.prepare().unwrap();
        let store = NodeStore::open(&dir).unwrap();
        (temporary, dir, store)
    }

    fn row(bit: u8, port: u16) -> ListenerRow {
        ListenerRow { bit, address: ([127, 0, 0, 1], port).into(), flow_control: crate::random::hex_id() }
    }

    #[test]
    fn what_was_committed_comes_back_and_what_was_not_does_not() {
        let (_temporary, dir, mut store) = store();
        let key = store.cookie_key().unwrap();
        assert_eq!(
            store.services().unwrap(),
            [("echo".into(), Service::Echo), ("uppercase".into(), Service::Uppercase)]
        );
        let settings = Settings { driver: "epoll".into(), threads: Some(2), pin: true, portal_memory: Some(1 << 33) };
        let rules = [crate::transit::parse("10.0.0.0/8=[fd00::/8]:4000").unwrap()];
        let first = row(1, 4000);

        store.begin().unwrap();
        store.set_settings(&settings).unwrap();
        store.add_listener(&first).unwrap();
        store.add_service("hop", Service::Hop).unwrap();
        store.add_consumer(1, "hop").unwrap();
        store.set_transit_rules(&rules).unwrap();
        store.commit().unwrap();
        store.begin().unwrap();
        store.add_listener(&row(2, 4001)).unwrap();
        store.roll_back();
        drop(store);

        let mut store = NodeStore::open(&dir).unwrap();
        assert_eq!(store.cookie_key().unwrap(), key);
        assert_eq!(store.settings().unwrap(), settings);
        assert_eq!(store.listeners().unwrap(), std::slice::from_ref(&first));
        assert_eq!(store.services().unwrap()[1], ("hop".into(), Service::Hop));
        assert_eq!(store.transit_rules().unwrap(), rules);

        // A later listener admits what the first one admits.
        store.begin().unwrap();
        store.add_listener(&row(9, 4001)).unwrap();
        assert_eq!(store.consumers().unwrap(), [(1, "hop".into()), (9, "hop".into())]);
        store.remove_listener(1).unwrap();
        assert_eq!(store.consumers().unwrap(), [(9, "hop".into())]);
        store.commit().unwrap();
        assert_eq!(store.listeners().unwrap().len(), 1);
    }

    #[test]
    fn bits_come_back_late_and_run_out_exactly() {
        let (_temporary, _dir, mut store) = store();
        assert_eq!(store.free_bit(0).unwrap(), Some(1));
        store.add_listener(&row(1, 1)).unwrap();
        store.remove_listener(1).unwrap();
        assert_eq!(store.free_bit(0).unwrap(), Some(2));
        assert_eq!(store.free_bit(1 << 2).unwrap(), Some(3));
        for port in 0..LISTENERS_MAX as u16 {
            let bit = store.free_bit(0).unwrap().expect("a bit is free");
            assert_ne!(bit, FLOW_CONTROL_DIALED);
            store.add_listener(&row(bit, 1000 + port)).unwrap();
        }
        assert_eq!(store.free_bit(0).unwrap(), None);
    }

    #[test]
    fn channels_and_their_listeners_come_back() {
        let (_temporary, dir, mut store) = store();
        let ids = [Identifier([1; 32]), Identifier([2; 32])];
        let api = store.channel_listeners().unwrap();
        assert_eq!((api.len(), api[0].address.as_str(), api[0].bit), (1, "api", CHANNEL_BITS.start));
        assert_eq!(store.free_channel_bit(0).unwrap(), Some(CHANNEL_BITS.start + 1));
        let listener = ChannelListenerRow {
            bit: CHANNEL_BITS.start + 1,
            address: "other".into(),
            flow_control: crate::random::hex_id(),
            identity: Some(ids[0]),
            authorized: ids.to_vec(),
        };
        let channel = ChannelRow {
            address: crate::random::hex_id(),
            route: "/service/api".into(),
            authorized: vec![ids[1]],
            on_the_way: vec![Vec::new(), ids.to_vec()],
            identity: ids[0],
            peer: ids[1],
        };
        let plain = ChannelRow { address: crate::random::hex_id(), on_the_way: Vec::new(), ..channel.clone() };
        store.begin().unwrap();
        store.add_channel_listener(&listener).unwrap();
        store.add_consumer(listener.bit, "hop").unwrap();
        store.add_channel(&channel).unwrap();
        store.add_channel(&plain).unwrap();
        store.commit().unwrap();
        drop(store);

        let mut store = NodeStore::open(&dir).unwrap();
        assert_eq!(store.channel_listeners().unwrap()[1..], *std::slice::from_ref(&listener));
        assert_eq!(store.channels().unwrap(), [channel.clone(), plain.clone()]);
        assert_eq!(store.initiated_flow_control().unwrap().len(), 32);
        store.remove_channel_listener(listener.bit).unwrap();
        store.remove_channel(&channel.address).unwrap();
        assert_eq!(store.channel_listeners().unwrap(), api);
        assert_eq!((store.channels().unwrap(), store.consumers().unwrap()), (vec![plain], Vec::new()));
        // The bit of one that is gone comes back as late as can be.
        assert_eq!(store.free_channel_bit(0).unwrap(), Some(listener.bit + 1));
    }

    #[test]
    fn inlets_and_outlets_come_back_and_their_numbers_do_not() {
        let (_temporary, dir, mut store) = store();
        let ids = [Identifier([1; 32]), Identifier([2; 32])];
        let outlet = |number, address: &str| OutletRow {
            number,
            address: address.into(),
            target: "db:5432".into(),
            tls: true,
            plain: false,
        };
        let inlet = InletRow {
            number: store.next_inlet().unwrap(),
            alias: "db".into(),
            listen: "127.0.0.1:5432".into(),
            route: "/secure/a/secure/b/service/outlet".into(),
            session: crate::random::hex_id(),
            authorized: ids.to_vec(),
            on_the_way: vec![vec![ids[0]]],
            identity: Some(ids[0]),
            peer: None,
            connection_wait_ms: 5_000,
            retry_wait_ms: u32::MAX,
        };
        // Below it are the numbers of listeners.
        assert_eq!(inlet.number, 64);
        let plain = InletRow {
            number: 65,
            alias: "other".into(),
            listen: "unix:/tmp/s".into(),
            session: crate::random::hex_id(),
            authorized: Vec::new(),
            on_the_way: Vec::new(),
            identity: None,
            ..inlet.clone()
        };
        store.begin().unwrap();
        assert!(store.is_changing());
        store.add_inlet(&inlet).unwrap();
        store.add_inlet(&plain).unwrap();
        store.set_inlet_peer(64, &ids[1]).unwrap();
        for (number, address) in [(1, "outlet"), (2, "second")] {
            assert_eq!(store.next_outlet().unwrap(), number);
            store.add_outlet(&outlet(number, address)).unwrap();
        }
        // Each of these belongs to one inlet.
        for twice in [
            InletRow { number: 66, ..inlet.clone() },
            InletRow { number: 66, session: crate::random::hex_id(), alias: "x".into(), ..inlet.clone() },
        ] {
            assert!(store.add_inlet(&twice).is_err());
        }
        store.commit().unwrap();
        drop(store);

        let mut store = NodeStore::open(&dir).unwrap();
        assert_eq!(store.inlets().unwrap(), [InletRow { peer: Some(ids[1]), ..inlet }, plain.clone()]);
        assert_eq!(store.outlets().unwrap(), [outlet(1, "outlet"), outlet(2, "second")]);
        store.remove_inlet(65).unwrap();
        store.remove_outlet("second").unwrap();
        assert_eq!((store.inlets().unwrap().len(), store.outlets().unwrap().len()), (1, 1));
        assert_eq!((store.next_inlet().unwrap(), store.next_outlet().unwrap()), (66, 3));
    }

    #[test]
    fn relays_come_back_with_who_was_met() {
        let (_temporary, dir, mut store) = store();
        let ids = [Identifier([1; 32]), Identifier([2; 32])];
        let plain = RelayRow {
            name: "blue".into(),
            at: "/ip4/127.0.0.1/tcp/1".into(),
            relay_address: None,
            authorized: Vec::new(),
            on_the_way: Vec::new(),
            identity: None,
            peer: None,
            session: crate::random::hex_id(),
        };
        let sealed = RelayRow {
            name: "green".into(),
            relay_address: Some("other".into()),
            authorized: ids.to_vec(),
            on_the_way: vec![Vec::new(), ids.to_vec()],
            identity: Some(ids[0]),
            session: crate::random::hex_id(),
            ..plain.clone()
        };
        store.begin().unwrap();
        store.add_relay(&plain).unwrap();
        store.add_relay(&sealed).unwrap();
        store.set_relay_peer("green", &ids[1]).unwrap();
        store.commit().unwrap();
        let mut store = NodeStore::open(&dir).unwrap();
        assert_eq!(store.relays().unwrap(), [plain.clone(), RelayRow { peer: Some(ids[1]), ..sealed.clone() }]);
        assert_eq!((plain.asks_for(), sealed.asks_for()), ("blue", "other"));
        assert!(store.add_relay(&plain).is_err());
        store.remove_relay("green").unwrap();
        assert_eq!(store.relays().unwrap(), [plain]);
    }

    #[test]
    fn a_file_of_the_version_before_gets_a_listener_for_channels() {
        let (_temporary, dir, store) = store();
        drop(store);
        std::fs::remove_file(dir.database()).unwrap();
        let before = Format { application_id: FORMAT.application_id, migrations: &FORMAT.migrations[..1] };
        let made = database::open_or_make(&dir.database(), &before, |connection| {
            let sql = "INSERT INTO setting VALUES (1, 'auto', NULL, 0, ?1, ?2, 0)";
            connection.execute(sql, params![[7_u8; 32], crate::random::hex_id()]).map(drop)
        });
        drop(made.unwrap());
        let store = NodeStore::open(&dir).unwrap();
        assert_eq!(store.channel_listeners().unwrap()[0].address, "api");
        assert_eq!(store.initiated_flow_control().unwrap().len(), 32);
        assert_eq!(store.cookie_key().unwrap(), [7; 32]);
    }
}
