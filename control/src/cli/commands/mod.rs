//! What the commands do, by noun, and the session that they share.

pub mod completion;
pub mod engine;
pub mod environment;
pub mod message;
pub mod node;
pub mod service;
pub mod tcp_connection;
pub mod tcp_listener;

use super::client::Control;
use super::show::Terminal;
use super::values::NodeRef;
use crate::api::{NodeInfo, NodeStatus, TcpListenerInfo, path};
use crate::error::Error;
use crate::home::{Home, NodeDir, NodeName};
use crate::process::{ControlStart, LogOptions, NodeOptions, spawn};
use crate::store::SharedStore;
use std::net::SocketAddr;

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
        match dir.status()? {
            NodeStatus::Stopped => return Err(Error::NodeStopped { name: name.to_string() }),
            // Another process starts it: its lock is free once control listens.
            NodeStatus::Running => drop(dir.lock_change()?),
            NodeStatus::Headless => match self.start(name) {
                // Another process was faster.
                Err(error) if error.code() == NODE_RUNNING => {}
                started => drop(started?),
            },
        }
        Control::connect(&dir)?.ok_or_else(|| Error::NodeBusy { name: name.to_string() })
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

/// The code of [`Error::NodeRunning`], as control reports it.
const NODE_RUNNING: &str = "E_NODE_RUNNING";

/// Above this many nodes another pair of words that is free may take long to find.
const NODES_WITH_TWO_WORDS_MAX: usize = 2048;
