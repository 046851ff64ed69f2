//! The control process of an Ockam node, and the `ockam` command line.
//!
//! * [`api`], [`error`], [`home`]: what both sides of the API agree on: types, errors, places.
//! * [`random`], [`text`]: small tools.
#![forbid(unsafe_code)]

pub mod api;
pub mod error;
pub mod home;
pub mod random;
pub mod text;
