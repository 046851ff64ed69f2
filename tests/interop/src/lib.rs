//! Real Ockam 0.150 nodes against ours: the harness.
//!
//! * [`RealNode`]: a node of the real library in this process.
//! * [`ManagedNode`]: the same with all that the real command starts in it, portals, relays and their sessions.
//! * [`OurNode`]: a node of the `ockam` command of this project, as processes in a home of their own.
//! * [`Peer`]: either of them, for what must hold for both.
//! * [`PortalNode`]: either of the last two, with inlets, outlets and relays.
//! * [`Portal`]: an inlet and an outlet on nodes of any kind, with a [`Middle`] between them, a [`Target`] behind, and
//!   [`Client`]s in front.
//! * [`Middle`]: between two nodes, and hostile.
//! * [`Pair`]: a secure channel between a real node and either of them, with a [`Middle`] between them.
//! * [`Fleet`]: an authority of either kind, who enrolls at it, and its members.
//! * [`Wallet`]: what a [`RealNode`] shows in its channels, and [`Attested`]: what one believes of a peer.
//! * [`RealAuthority`]: the node of a real authority, and [`Anchor`]: what others know of one.
//! * [`RawPeer`] and [`RawListener`]: a plain TCP socket, for what must hold to the byte.
//!
//! Everything here blocks: a test is a plain function, and a real node brings its own runtime. Nothing waits for time
//! to pass. What must *not* arrive is shown by something sent later that does arrive; [`PATIENCE`] only bounds how long
//! a broken test hangs.

// The futures of the real library are nested deeper than the compiler likes.
#![recursion_limit = "512"]

mod authority;
mod bytes;
mod credential;
mod fleet;
mod managed;
mod middle;
mod ours;
mod pair;
mod peer;
mod portal;
mod raw;
mod real;

pub use authority::{Anchor, RealAuthority};
pub use bytes::{assert_body, body, local, noise, tcp};
pub use credential::{Attested, Texts, Wallet};
pub use fleet::{Authority, Fleet, OurAuthority};
pub use managed::ManagedNode;
pub use middle::{Middle, Way, nonce, with_payload};
pub use ours::{Home, OurNode, Output};
pub use pair::{Pair, Role};
pub use peer::{Kind, Peer};
pub use portal::{Client, Ended, Portal, PortalNode, RECOVERY, Target, over_tcp};
pub use raw::{REPLY, RawListener, RawPeer};
pub use real::{Mailbox, RealNode};

use std::time::Duration;

/// How long anything may take before the test that waits for it fails.
pub const PATIENCE: Duration = Duration::from_secs(60);
