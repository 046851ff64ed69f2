//! Relays (`wire.md` G): a node that nobody can dial registers at one that everybody can, and is reached there under a
//! name.
//!
//! ```text
//!   service.rs   others register here    ──► SetRelay forward_to_NAME ──► engine, which forwards without control
//!   client.rs    we register elsewhere   ──► a session keeps the way there; registered anew whenever it came up again
//! ```

mod client;
mod service;

pub(crate) use client::{create, delete, find, infos, resume};

use crate::api::RelayServiceInfo;
use crate::engine_link::{DumpedAddress, EngineLink};
use crate::error::Error;
use crate::node::{Desired, Node};
use crate::store::node::FLOW_CONTROL_INITIATED;
use ockam_engine_abi::{Command, FLOW_CONTROL_DIALED};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where relays are registered. A node has both from the start; what they do is the same (`wire.md` G.1).
pub(crate) const SERVICES: [&str; 2] = ["forwarding_service", "static_forwarding_service"];

/// What stands in front of a relay's name in its address.
pub(crate) const PREFIX: &str = "forward_to_";

/// Longest name of a relay in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 128;

/// Longest address of a relay at another node in bytes: nodes of other makes may have another prefix.
const ADDRESS_BYTES_MAX: usize = 160;

/// Which flow controls reach relays and the services that make them: those of all listeners, for TCP and for secure
/// channels (`wire.md` A.7). What comes by ways that this node opened may not.
pub(crate) const REACHABLE: u64 = !(1 << FLOW_CONTROL_DIALED | 1 << FLOW_CONTROL_INITIATED);

/// What a node has to do with relays.
#[derive(Default)]
pub(crate) struct Relays {
    /// Those that others registered here.
    service: Mutex<service::State>,
    /// Those that this node registered elsewhere.
    clients: Mutex<BTreeMap<String, client::Client>>,
    /// Ends of relays that an engine had already, by session.
    ends: Mutex<BTreeMap<String, client::End>>,
}

impl Relays {
    fn service(&self) -> MutexGuard<'_, service::State> {
        lock(&self.service)
    }

    /// Whether a local address belongs to a relay, or to a service that makes them.
    pub(crate) fn has_address(&self, address: &[u8]) -> bool {
        SERVICES.iter().any(|service| service.as_bytes() == address)
            || std::str::from_utf8(address).is_ok_and(|address| self.service().has(address))
            || lock(&self.ends).values().any(|end| end.name.as_bytes() == address)
            || lock(&self.clients).values().any(|client| client.has_end(address))
    }

    /// Takes over what an engine has: nothing, when it is new. Relays that others registered live on in an engine that
    /// does, and are registered anew by who wants them in a new one.
    pub(crate) fn adopt(&self, node: &Node, desired: &Desired, has: &[DumpedAddress]) {
        self.service().adopt(node, desired, has);
        let sessions: Vec<&str> = desired.relays.iter().map(|row| row.session.as_str()).collect();
        *lock(&self.ends) = client::ends(node, &sessions, has);
    }

    /// Ends the relays of those who may not have them any more.
    pub(crate) async fn review(&self, node: &Node, link: &EngineLink) {
        let denied = self.service().review(|by, name| service::may(node, by, name));
        for address in denied {
            let address = address.into_bytes();
            if let Err(error) = link.apply(|request| Command::ClearAddress { request, address: address.into() }).await {
                tracing::debug!(%error, "no relay to end");
            }
        }
    }

    /// The relay at this address ended with what its way begins with.
    pub(crate) fn on_gone(&self, address: &[u8]) {
        if let Ok(address) = std::str::from_utf8(address) {
            self.service().on_gone(address);
        }
    }

    /// A message came for an address of control. Says whether it was for a service that makes relays.
    pub(crate) fn on_punt(
        &self,
        node: &Arc<Node>,
        engine: &EngineLink,
        is_from_link: bool,
        channel: Option<u32>,
        message: &[u8],
    ) -> bool {
        service::on_punt(node, engine, is_from_link, channel, message)
    }

    /// Relays that others registered here, by address.
    pub(crate) fn registered(&self) -> Vec<RelayServiceInfo> {
        self.service().infos()
    }
}

/// Checks the name of a relay. `argument` says which in errors.
///
/// # Errors
/// [`Error::BadArgument`].
pub(crate) fn check_name(argument: &str, name: &str) -> Result<(), Error> {
    if is_name(name, NAME_BYTES_MAX) {
        return Ok(());
    }
    Err(Error::BadArgument {
        argument: argument.into(),
        value: crate::text::escape(name.as_bytes(), 200),
        why: "is no name of a relay".into(),
        fix: format!(
            "Use 1 to {NAME_BYTES_MAX} bytes of letters, digits and other printable characters, but no spaces, quotes, '/', '#' and '\\'."
        ),
    })
}

/// Whether `text` can be part of an address that people type and read, and stands in a cookie as it is.
fn is_name(text: &str, bytes_max: usize) -> bool {
    let is_plain = |character: char| {
        !character.is_control() && !character.is_whitespace() && !matches!(character, '/' | '#' | '\\' | '"')
    };
    !text.is_empty()
        && text.len() <= bytes_max
        && text.chars().all(is_plain)
        // Characters that change how the text around them is shown.
        && crate::text::escape(text.as_bytes(), bytes_max) == text
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
