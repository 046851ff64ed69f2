//! The control process of an Ockam node, and the `ockam` command line.
//!
//! * [`api`], [`error`], [`home`]: what both sides of the API agree on: types, errors, places.
//! * [`process`]: the processes of a node. [`store`]: SQLite, one file for all nodes and one per node.
//! * `node`: desired state and changes; `supervisor`: the engine's life; [`engine_link`]: the engine's socket;
//!   `messages`: a message sent by a node; `channels`: secure channels; `portals`: inlets and outlets; `relays`: relays here and elsewhere; `trust`: policies, credentials, authorities; `sessions`: ways that are kept open; `api_server`: the Unix socket.
//! * [`identities`]: vaults and identities. [`authority`]: nodes that say who is a member. [`projects`]: authorities as those know
//!   them who are members.
//! * [`random`], [`text`]: small tools. [`route`], [`transit`]: routes and transit rules as nodes see them.
//! * [`cli`]: the commands. [`node_file`]: what a file says that they shall do. [`messenger`]: a message sent without a node. [`demo`]: all of it on a stage.
#![forbid(unsafe_code)]

pub mod api;
mod api_server;
pub mod authority;
mod channels;
pub mod cli;
pub mod demo;
pub mod engine_link;
pub mod error;
mod health;
pub mod home;
pub mod identities;
mod logging;
mod messages;
pub mod messenger;
mod node;
pub mod node_file;
mod portals;
pub mod process;
pub mod projects;
pub mod random;
mod relays;
mod resolve;
pub mod route;
mod sessions;
pub mod store;
mod supervisor;
#[cfg(test)]
mod testing;
pub mod text;
pub mod transit;
mod trust;
