//! The path of a frame, pure: no I/O, no clock, no allocation. [`route::route`] looks at one message and the tables and
//! says what is to be done with it; the core does it. So it runs unchanged under either driver, in a test without a
//! kernel, in a fuzz target and in a bench.
//!
//! * [`tables`]: what control and the cores write and the path reads.
//! * [`trail`]: a route while it is being walked: addresses taken off and put on the front.
//! * [`route`]: one message in, one [`route::Verdict`] out.
//! * [`bucket`]: how often a peer may cause something.
//! * [`channel`]: a secure channel: keys, window, addresses, way.
//! * [`guard`]: what the peer of a channel is granted.
//! * [`transit`]: which TCP addresses are dialed for whom.
//! * [`service`]: what the built-in services do to a payload.

pub mod bucket;
pub mod channel;
pub mod guard;
pub mod route;
pub mod service;
pub mod tables;
pub mod trail;
pub mod transit;
