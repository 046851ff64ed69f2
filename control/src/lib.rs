//! The control process of an Ockam node, and the `ockam` command line.
//!
//! * [`api`], [`error`], [`home`]: what both sides of the API agree on: types, errors, places.
//! * [`random`], [`text`]: small tools. [`route`], [`transit`]: routes and transit rules as nodes see them.
//! * [`cli`]: the commands. [`messenger`]: a message sent without a node.
#![forbid(unsafe_code)]

pub mod api;
pub mod cli;
pub mod error;
pub mod home;
pub mod messenger;
pub mod random;
pub mod route;
pub mod text;
pub mod transit;
