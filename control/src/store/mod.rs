//! State on disk: SQLite, one file for all nodes of a home and one per node.
//!
//! * [`database`]: how a file is made, recognised, migrated, and how its errors become ours.
//! * [`shared`]: `ockam.db`. Any process, short transactions.
//! * [`node`]: `node.db`. Written by the node's control only.

pub mod database;
pub mod node;
pub mod shared;

pub use node::{ListenerRow, NodeStore, Settings};
pub use shared::{NodeRow, SharedStore};
