//! What the load generators, the floors and the other runtimes of this bench have in common: the frames that travel, how
//! every one of them is verified, and the least that a relay can do to a frame.
//!
//! The program `ockam-bench` measures processes, never library calls. So that they all move the same bytes and do the
//! same work, these modules know nothing of sockets' owners or of runtimes.
#![forbid(unsafe_code)]

pub mod channel;
pub mod flow;
pub mod relay;
pub mod request;
