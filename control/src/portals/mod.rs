//! Portals, as far as control has to do with them: where they listen, what their targets' names stand for, and that the
//! ways between their ends are open. Connections of applications live in the engine alone.
//!
//! ```text
//!   inlets.rs    an inlet: listening socket (listening.rs) + session ──AddInlet, RouteInlet──► engine
//!   outlets.rs   an outlet: its target, resolved again and again     ──SetOutlet──────────────► engine
//!   tls.rs       for targets that speak TLS: a Unix socket for the engine, TLS to the target
//! ```

pub(crate) mod inlets;
mod listening;
pub(crate) mod outlets;
mod tls;

#[cfg(test)]
mod tests;

use crate::node::Node;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What runs for the portals of a node.
#[derive(Default)]
pub(crate) struct Portals {
    /// By address.
    outlets: Mutex<BTreeMap<String, outlets::Outlet>>,
    /// By number.
    inlets: Mutex<BTreeMap<u32, inlets::Inlet>>,
}

/// Takes up what shall be, once there is an engine. What runs already has noticed by itself that the engine is another.
pub(crate) fn resume(node: &Arc<Node>) {
    outlets::resume(node);
    inlets::resume(node);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
