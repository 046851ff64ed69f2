//! State on disk: SQLite, one file for all nodes of a home and one per node.
//!
//! * [`database`]: how a file is made, recognised, migrated, and how its errors become ours.
//! * [`shared`]: `ockam.db`. Any process, short transactions.
//! * [`identity`]: its tables of vaults and identities. `project`: those of projects and credentials.
//! * [`vault`]: files with secret keys, which no database has; [`backup`]: the same for another place, with what else is
//!   needed there; [`sealed`]: how such files are encrypted and replaced.
//! * [`node`]: `node.db`. Written by the node's control only.
//! * [`trust`]: its part about authority, policies and credentials.

pub(crate) mod backup;
pub mod database;
pub mod identity;
pub mod node;
pub(crate) mod project;
mod sealed;
pub mod shared;
pub mod trust;
pub mod vault;

pub use node::{ChannelListenerRow, ChannelRow, InletRow, ListenerRow, NodeStore, OutletRow, RelayRow, Settings};
pub use shared::{NodeRow, SharedStore};
pub use trust::{AuthorityRow, GuardRow, OwnCredentialRow, PolicyRow};
