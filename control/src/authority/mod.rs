//! Authority nodes: who is a member, with which attributes, and the credentials that say so (`wire.md` D.5, I.1).
//!
//! ```text
//!   a message to one of five addresses, out of a channel ──► desk.rs      whose turn it is; one thread
//!                                                            services.rs  who may do what, what comes of it
//!                                                            store.rs     authority.db
//!                                                            keys.rs      with what is signed
//!   envelope.rs, bodies.rs   what travels, for those who ask, too
//!   settings.rs              what makes a node an authority
//! ```
//!
//! Who asks is the peer of the channel: nothing in a request says so, and nothing is answered that came otherwise.

pub mod bodies;
mod desk;
pub mod envelope;
mod keys;
mod services;
mod settings;
mod store;

pub use settings::{
    AuthoritySettings, CREDENTIAL_TTL_SECS, CREDENTIAL_TTL_SECS_MAX, ENROLLER, ROLE, TRUST_CONTEXT_ID, TRUSTED_MAX,
    is_enroller,
};

use crate::engine_link::cookie::Cookie;
use crate::engine_link::{CommandError, DumpedAddress, EngineLink};
use crate::error::Error;
use crate::home::NodeDir;
use crate::node::{Desired, Node};
use crate::store::node::{CHANNELS_MASK, FLOW_CONTROL_INITIATED};
use desk::{Asked, Back, Desk};
use keys::Keys;
use ockam_engine_abi::{Command, Target};
use ockam_wire::{AddressRef, LOCAL, Message, Outgoing, RouteParts};
use services::{Service, Services};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use store::Store;

/// Which flow controls reach what an authority offers: those of the channels that peers open. Who comes without a channel
/// has not said who it is.
pub(crate) const REACHABLE: u64 = CHANNELS_MASK & !(1 << FLOW_CONTROL_INITIATED);

/// Longest request in bytes: all the attributes that a member may have, and something around them.
pub(crate) const REQUEST_MAX: usize = 16 * 1024;

/// Longest way back in bytes, as a message without payload: 32 addresses as nodes make them.
const WAY_BYTES_MAX: usize = 1200;

/// What makes a node an authority.
pub(crate) struct Authority {
    settings: AuthoritySettings,
    state: Mutex<State>,
}

enum State {
    /// Nobody can ask yet.
    Closed(Box<Services>),
    Open(Desk),
    /// It cannot be opened.
    Failed,
}

impl Authority {
    /// The authority of this node. Its file is made if there is none.
    ///
    /// # Errors
    /// Those of the store; [`Error::BadArgument`] for settings that make no sense.
    pub(crate) fn new(dir: &NodeDir, settings: AuthoritySettings) -> Result<Authority, Error> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let store = Store::open(&dir.authority_database(), &settings.check()?, settings.credential_ttl_secs, now)?;
        let keys = Keys::new(dir.home(), dir.name().clone());
        let services = Box::new(Services::new(settings.clone(), store, keys));
        Ok(Authority { settings, state: Mutex::new(State::Closed(services)) })
    }

    /// Whether a local address is one of its services.
    pub(crate) fn has_address(&self, address: &[u8]) -> bool {
        self.service(address).is_some()
    }

    fn service(&self, address: &[u8]) -> Option<Service> {
        Service::ALL.into_iter().find(|it| it.address().as_bytes() == address && it.is_offered(&self.settings))
    }

    /// Begins to answer.
    fn open(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = match std::mem::replace(&mut *state, State::Failed) {
            State::Closed(services) => match Desk::open(*services) {
                Ok(desk) => State::Open(desk),
                Err(error) => {
                    tracing::error!(%error, "the authority cannot start its thread");
                    State::Failed
                }
            },
            other => other,
        };
    }

    /// A message came for an address of control. Says whether it was for a service of the authority.
    pub(crate) fn on_punt(&self, node: &Node, engine: &EngineLink, channel: Option<u32>, encoded: &[u8]) -> bool {
        let Ok(message) = Message::parse(encoded) else { return false };
        let Some(service) = message.onward.first().and_then(|address| self.service(address.name)) else { return false };
        // What this node sends itself has no channel, either.
        let Some(asked) = channel.and_then(|channel| read(node, engine, service, channel, &message)) else {
            tracing::debug!(service = service.address(), "a request that did not come through a channel");
            return true;
        };
        match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Open(desk) => desk.put(asked),
            State::Closed(_) | State::Failed => tracing::warn!("the authority does not answer yet"),
        }
        true
    }

    /// Puts its services at their addresses, unless they are there.
    ///
    /// # Errors
    /// Those of the engine.
    pub(crate) async fn set_services(
        &self,
        node: &Node,
        engine: &EngineLink,
        desired: &Desired,
        has: &[DumpedAddress],
    ) -> Result<(), CommandError> {
        self.open();
        for service in Service::ALL.into_iter().filter(|it| it.is_offered(&self.settings)) {
            let address = service.address();
            let reachable = desired.widened(address, REACHABLE);
            let is_there = has.iter().any(|found| {
                found.address == address.as_bytes()
                    && found.target == Target::Control
                    && found.reachable == reachable
                    && node.cookies.open(&found.cookie) == Some(Cookie::AuthorityService)
            });
            if !is_there {
                let cookie = node.cookies.seal(&Cookie::AuthorityService);
                let set = engine.apply(|request| Command::SetAddress {
                    request,
                    address: address.as_bytes().to_vec().into(),
                    target: Target::Control,
                    reachable,
                    // Who comes for a credential has none.
                    guard: None,
                    cookie: cookie.into(),
                });
                set.await?;
            }
        }
        Ok(())
    }
}

/// Reads a request: who asks, and where the answer goes. `None` when it must not be answered.
fn read(node: &Node, engine: &EngineLink, service: Service, channel: u32, message: &Message<'_>) -> Option<Asked> {
    let (source, caller) = node.channels.identity_of(channel)?;
    let addresses: Vec<AddressRef<'_>> = message.return_route.iter().collect();
    let [front, _, ..] = addresses.as_slice() else { return None };
    // Answers go back through the channel that the request came by, and nowhere else.
    if front.kind != LOCAL || front.name != source.as_bytes() {
        return None;
    }
    let way = Outgoing {
        onward: RouteParts::new(&addresses),
        return_route: RouteParts::EMPTY,
        payload_len: 0,
        tracing: None,
    };
    if way.body_len() > WAY_BYTES_MAX {
        return None;
    }
    let back = Back { engine: engine.clone(), way: way.to_frame(&[]).split_off(4), service };
    // One that is too long is answered like one that cannot be read.
    let payload = if message.payload.len() > REQUEST_MAX { &[][..] } else { message.payload };
    Some(Asked { service, caller, channel, payload: payload.to_vec(), back })
}

/// A message along a way that was encoded here, from a service.
fn along(way: &[u8], from: &str, payload: &[u8]) -> Vec<u8> {
    let way = Message::parse(way).expect("it was encoded here");
    let from = [AddressRef::local(from.as_bytes())];
    let outgoing = Outgoing {
        onward: RouteParts { front: &[], rest: way.onward },
        return_route: RouteParts::new(&from),
        payload_len: payload.len(),
        tracing: None,
    };
    outgoing.to_frame(payload).split_off(4)
}

#[cfg(test)]
mod tests;
