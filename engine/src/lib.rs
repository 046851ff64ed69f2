//! The data plane of an Ockam node: one thread, one driver and one pool of slots per core.
//!
//! * [`path`]: what is to be done with a frame; pure.
//! * `core`: one thread of the engine; carries out what the path says.
//! * [`io`]: the kernel; the only place with `unsafe`.
//! * `attendant`: speaks with the control process.
//! * [`config`]: what an engine is started with, and every limit.
//!
//! `engine/README.md` follows a frame through these, function by function.

mod attendant;
pub mod clock;
pub mod config;
mod core;
pub mod io;
pub mod path;
mod start;

pub use config::{Config, DriverChoice};
pub use start::{StartError, run};
