//! The data plane of an Ockam node.
pub mod config;
pub mod io;
