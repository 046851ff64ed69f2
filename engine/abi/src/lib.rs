//! What the control process and the engine of a node say to each other.
//!
//! Both sides are the same binary most of the time, but an engine outlives its control: after an upgrade a new control
//! may meet an older engine. So the first record carries [`ABI_VERSION`], and every number is checked before it becomes
//! an enum.
//!
//! * [`command`]: control -> engine. Commands are answered by [`Notice::Applied`] or [`Notice::Refused`], which name
//!   their request.
//! * [`notice`]: engine -> control.
//! * [`guard`]: who may reach which guarded place.
//! * [`key`]: session keys on their way.
//! * [`counter`]: one sealed memfd of plain `u64` counters, one block per core, read with `pread`.
//! * [`reason`]: why a frame was dropped or a link closed; one counter each.
//! * [`record`]: how all of that becomes bytes.
//! * [`socket`]: one record per `SOCK_SEQPACKET` message, file descriptors beside it, large bodies in a memfd.
#![forbid(unsafe_code)]

pub mod command;
pub mod counter;
pub mod guard;
pub mod key;
pub mod link_id;
pub mod notice;
pub mod reason;
pub mod record;
pub mod socket;

pub use command::{Command, PortalTarget, Target, TransitFrom, TransitRule, UNIX_PATH_MAX};
pub use counter::{Counter, Counters};
pub use guard::{ChannelGrants, GUARDS_MAX, Grants, Guard, GuardSet};
pub use key::Key;
pub use link_id::LinkId;
pub use notice::{ChannelEnd, Driver, LinkOrigin, Notice, Refusal};
pub use reason::{CloseReason, DropReason};

/// Version of everything in this crate. Any change of a record, a counter or a number increments it.
pub const ABI_VERSION: u32 = 4;

/// Longest cookie in bytes. Cookies are opaque to the engine: control authenticates its own.
pub const COOKIE_BYTES_MAX: usize = 512;

/// How many flow controls (classes of ingress) a node can tell apart; they are the bits of a `u64` mask.
pub const FLOW_CONTROLS_MAX: u8 = 64;

/// The flow control of links that this node dialed; listeners have the others (`wire.md` A.7).
pub const FLOW_CONTROL_DIALED: u8 = 0;
