//! What the commands do, by noun, and the session that they share.

pub mod apply;
pub mod authority;
pub mod completion;
pub mod credential;
pub mod engine;
pub mod environment;
pub mod health;
pub mod identity;
pub mod inspect;
pub mod message;
pub mod node;
pub mod policy;
pub mod project;
pub mod project_member;
pub mod relay;
pub mod run;
pub mod secure_channel;
pub mod secure_channel_listener;
pub mod service;
pub mod tcp_connection;
pub mod tcp_inlet;
pub mod tcp_listener;
pub mod tcp_outlet;
pub mod ticket;
pub mod vault;

use super::client::Control;
use super::plan;
use super::show::Terminal;
use super::values::NodeRef;
use crate::api::{NodeInfo, NodeStatus, TcpListenerInfo, path};
use crate::error::Error;
use crate::home::{Home, NodeDir, NodeName};
use crate::identities::Identities;
use crate::messenger::Party;
use crate::process::{ControlStart, LogOptions, NodeOptions, spawn};
use crate::projects::Projects;
use crate::store::SharedStore;
use ockam_crypto::{Credential, Identifier};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What one command knows: where it writes, and which home it works in.
pub struct Session {
    /// Where results and notes go.
    pub terminal: Terminal,
    /// How logs of nodes that it starts are written.
    pub log: LogOptions,
    home: Option<Home>,
}

impl Session {
    /// A session that has looked at nothing yet.
    pub fn new(terminal: Terminal, log: LogOptions) -> Session {
        Session { terminal, log, home: None }
    }

    /// The home, located and checked once.
    ///
    /// # Errors
    /// There is none, or it cannot be trusted.
    pub fn home(&mut self) -> Result<&Home, Error> {
        if self.home.is_none() {
            let home = Home::locate()?;
            home.check()?;
            self.home = Some(home);
        }
        Ok(self.home.as_ref().expect("set above"))
    }

    /// The names of nodes, if there are any.
    ///
    /// # Errors
    /// As [`Session::home`], and those of the database.
    pub fn store(&mut self) -> Result<Option<SharedStore>, Error> {
        SharedStore::open_existing(self.home()?)
    }

    /// The node that an argument names, or the default node. A name is not looked up here: that it is unknown shows
    /// where it is used.
    ///
    /// # Errors
    /// None is named and there is no node.
    pub fn existing(&mut self, node: Option<NodeRef>) -> Result<NodeName, Error> {
        match node {
            Some(NodeRef(name)) => Ok(name),
            None => match self.store()? {
                Some(store) => store.default_node()?.ok_or(Error::NoNodes),
                None => Err(Error::NoNodes),
            },
        }
    }

    /// The same, for commands that make something: without any node one is created.
    ///
    /// # Errors
    /// As [`Session::create`].
    pub fn existing_or_created(&mut self, node: Option<NodeRef>) -> Result<NodeName, Error> {
        match self.existing(node) {
            Err(Error::NoNodes) => {
                let name = self.unused_name()?;
                self.create(&name, NodeOptions::default())?;
                self.terminal.note(format_args!("There was no node: created {name}."));
                Ok(name)
            }
            other => other,
        }
    }

    /// The directory of a node that exists.
    ///
    /// # Errors
    /// [`Error::NoSuchNode`].
    pub fn required(&mut self, name: &NodeName) -> Result<NodeDir, Error> {
        match self.store()? {
            Some(store) => store.require(name)?,
            None => return Err(crate::store::shared::no_node_at_all(name)),
        };
        Ok(self.home()?.node(name))
    }

    /// A random name that no node has.
    ///
    /// # Errors
    /// Those of the database.
    pub fn unused_name(&mut self) -> Result<NodeName, Error> {
        let taken = match self.store()? {
            Some(store) => store.nodes()?,
            None => Vec::new(),
        };
        loop {
            let name = NodeName::random();
            if taken.iter().all(|node| node.name != name) {
                return Ok(name);
            }
            if taken.len() >= NODES_WITH_TWO_WORDS_MAX {
                let more = crate::random::hex_id();
                return format!("{name}-{}", &more[..8]).parse();
            }
        }
    }

    /// Creates a node, or starts a stopped one with `options`.
    ///
    /// # Errors
    /// What its control process reports.
    pub fn create(&mut self, name: &NodeName, options: NodeOptions) -> Result<NodeInfo, Error> {
        let start = ControlStart { create: Some(options), log: self.log.clone() };
        spawn::start_control(self.home()?, name, &start)
    }

    /// Starts a node as it is stored.
    ///
    /// # Errors
    /// What its control process reports.
    pub fn start(&mut self, name: &NodeName) -> Result<NodeInfo, Error> {
        let start = ControlStart { create: None, log: self.log.clone() };
        spawn::start_control(self.home()?, name, &start)
    }

    /// A connection to the control process of a node. Where only the engine lives, control is started.
    ///
    /// # Errors
    /// The node is unknown, stopped, or just changing.
    pub fn control(&mut self, name: &NodeName) -> Result<Control, Error> {
        let dir = self.home()?.node(name);
        if let Some(control) = Control::connect(&dir)? {
            return Ok(control);
        }
        let dir = self.required(name)?;
        let end = Instant::now() + CHANGE_WAIT;
        loop {
            match dir.status()? {
                NodeStatus::Stopped => return Err(Error::NodeStopped { name: name.to_string() }),
                // Another process starts it: its lock is free once control listens. Or control was killed, and not all
                // that it had is given back yet.
                NodeStatus::Running => drop(dir.lock_change()?),
                NodeStatus::Headless => match self.start(name) {
                    // Another process was faster.
                    Err(error) if error.code() == NODE_RUNNING => {}
                    started => drop(started?),
                },
            }
            if let Some(control) = Control::connect(&dir)? {
                return Ok(control);
            }
            if Instant::now() >= end {
                return Err(Error::NodeBusy { name: name.to_string() });
            }
            std::thread::sleep(CHANGE_PAUSE);
        }
    }

    /// Who this command is in secure channels of its own, with what the default project's authority attests of it: the identity of this name, or the default one, which is made
    /// when there is none. `authorized` is who may be met in each of them.
    ///
    /// # Errors
    /// As [`Identities::named`] and [`Identities::channel_keys`].
    pub fn party(&mut self, identity: Option<&str>, authorized: Vec<Vec<Identifier>>) -> Result<Party, Error> {
        let mut identities = Identities::open(self.home()?)?;
        let row = match identity {
            Some(name) => identities.named(Some(name))?,
            None => identities.named_or_created(None)?,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let keys = identities.channel_keys(&row.identifier, now)?;
        let credentials = self.credential_of(&row.identifier, now)?.into_iter().collect();
        Ok(Party { identities, keys, authorized, credentials })
    }

    /// What the authority of the default project attests of an identity of this home, as far as that was asked for, while it
    /// is valid.
    fn credential_of(&mut self, identifier: &Identifier, now: u64) -> Result<Option<Vec<u8>>, Error> {
        let Some(projects) = Projects::open_existing(self.home()?)? else { return Ok(None) };
        let Some(known) = projects.default_project()? else { return Ok(None) };
        let stored = projects.credential(identifier, &known.project)?;
        Ok(stored.filter(|encoded| Credential::inspect(encoded).is_ok_and(|credential| credential.expires_at >= now)))
    }

    /// The identity of a node; `None` before it has one.
    ///
    /// # Errors
    /// Those of the database.
    pub fn identity_of(&mut self, name: &NodeName) -> Result<Option<NodeIdentity>, Error> {
        let Some(store) = self.store()? else { return Ok(None) };
        let Some(identifier) = store.node_identity(name)? else { return Ok(None) };
        let identities = Identities::open_existing(self.home()?)?;
        let found = identities.map(|identities| identities.find(Some(&identifier.to_string()))).transpose();
        let name = match found {
            Ok(found) => found.and_then(|found| found.name),
            // It was deleted.
            Err(Error::NoSuchIdentity { .. }) => None,
            Err(error) => return Err(error),
        };
        Ok(Some(NodeIdentity { name, identifier: identifier.to_string() }))
    }

    /// Who may be met at each end of a route, `ends` as [`plan::resolve`] gives them: the identity recorded for the node
    /// that is named there, if one is; at the last end also only those `authorized`. Anybody where it is empty.
    ///
    /// # Errors
    /// Those of the database, and [`plan::admitted`].
    pub fn admitted(
        &mut self,
        ends: &[Option<NodeName>],
        authorized: &[Identifier],
    ) -> Result<Vec<Vec<Identifier>>, Error> {
        let store = match ends.iter().any(Option::is_some) {
            true => self.store()?,
            false => None,
        };
        let mut admitted = Vec::with_capacity(ends.len());
        for (index, end) in ends.iter().enumerate() {
            let recorded = match (end, &store) {
                (Some(name), Some(store)) => store.node_identity(name)?.map(|identifier| (name, identifier)),
                _ => None,
            };
            let authorized = if index + 1 == ends.len() { authorized } else { &[] };
            admitted.push(plan::admitted(recorded, authorized)?);
        }
        Ok(admitted)
    }

    /// The address to dial for `/node/NAME` in a route.
    ///
    /// # Errors
    /// As [`Session::control`]; [`Error::NoListenerOfNode`].
    pub fn listener_of(&mut self, name: &NodeName) -> Result<SocketAddr, Error> {
        let listeners: Vec<TcpListenerInfo> = self.control(name)?.get(path::TCP_LISTENERS)?;
        let addresses = listeners.iter().filter(|it| it.up).filter_map(|it| it.address.parse().ok());
        addresses.into_iter().next().ok_or_else(|| Error::NoListenerOfNode { name: name.to_string() })
    }
}

/// Who a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    /// The name of its identity, if that has one.
    pub name: Option<String>,
    /// Its identifier.
    pub identifier: String,
}

/// Identifiers as the API has them.
pub fn texts(identifiers: &[Identifier]) -> Vec<String> {
    identifiers.iter().map(ToString::to_string).collect()
}

/// How long to wait for a control that neither answers nor is gone.
const CHANGE_WAIT: Duration = Duration::from_secs(2);

/// How long to wait before looking at it again.
const CHANGE_PAUSE: Duration = Duration::from_millis(2);

/// The code of [`Error::NodeRunning`], as control reports it.
const NODE_RUNNING: &str = "E_NODE_RUNNING";

/// Above this many nodes another pair of words that is free may take long to find.
const NODES_WITH_TWO_WORDS_MAX: usize = 2048;
