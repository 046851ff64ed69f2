//! Relays that others register here.
//!
//! ```text
//!   [static_forwarding_service] "blue", way back [link, .., M]
//!     ──► whose name is it? ──► SetRelay forward_to_blue = [link, ..] ──► reply to [link, .., M]
//! ```
//!
//! A relay belongs to who registered it through a secure channel, until that channel ends; nobody else gets its name
//! before. What was registered over a plain connection belongs to nobody: whoever registers that name next has it, as at
//! nodes of other makes, whose clients rely on that when they come back over another connection.

use super::{NAME_BYTES_MAX, PREFIX, REACHABLE, SERVICES, is_name};
use crate::api::RelayServiceInfo;
use crate::engine_link::cookie::Cookie;
use crate::engine_link::{CommandError, DumpedAddress, EngineLink};
use crate::node::{Desired, Node};
use ockam_crypto::Identifier;
use ockam_engine_abi::{Command, DropReason, Refusal, Target};
use ockam_wire::undeliverable::{Notice, Offer};
use ockam_wire::{AddressRef, LOCAL, Message, Outgoing, RouteParts, bare};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Most relays of a node, those among them that came over plain connections, and those that came by one connection or
/// channel. Strangers leave room for those who show who they are.
const RELAYS_MAX: usize = 4096;
const PLAIN_RELAYS_MAX: usize = RELAYS_MAX / 4 * 3;
pub(super) const RELAYS_PER_SOURCE_MAX: usize = 256;

/// Longest way back in bytes, as a message without payload: 32 addresses as nodes make them.
const WAY_BYTES_MAX: usize = 1200;

/// Registrations that wait for their turn.
const WAITING_MAX: usize = 4096;
const WAITING_PER_SOURCE_MAX: usize = RELAYS_PER_SOURCE_MAX;

/// At most so many registrations are worked on in this time: a flood of them leaves control time for others.
const BATCH: u32 = 100;
const BATCH_TIME: Duration = Duration::from_millis(100);

/// How often the log says what others do, who choose how often they do it.
const TELL_PAUSE: Duration = Duration::from_secs(1);

/// The name that asks for a random one.
const RANDOM: &str = "register";

/// How often a relay is set again whose end was told while it was being set.
const SET_TRIES_MAX: u32 = 3;

/// Whose a relay is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// It came over a plain connection.
    Anyone,
    /// The peer of the channel that it came through.
    Peer(Identifier),
    /// This node.
    Here,
}

/// Why a registration was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Refused {
    /// What came is no registration, or has a name that cannot be one.
    Malformed,
    /// There is no way back that begins with the connection or the channel that it came by.
    NoWay,
    /// The name is somebody else's, or the address is taken by something of this node.
    Taken,
    /// There are as many relays, or registrations that wait, as there may be.
    Limit,
    /// What it came by is gone.
    Gone,
    /// No policy permits it, or no authority attests that it may have the name.
    Denied,
}

impl Refused {
    fn name(self) -> &'static str {
        match self {
            Refused::Malformed => "malformed",
            Refused::NoWay => "no way back",
            Refused::Taken => "taken",
            Refused::Limit => "too many",
            Refused::Gone => "gone",
            Refused::Denied => "not permitted",
        }
    }
}

/// A relay that others registered here.
#[derive(Debug, Clone)]
struct Registered {
    name: String,
    by: By,
    /// What its way begins with, which is also what it came by; nothing when it leads to this node.
    source: String,
    /// Unix time in seconds.
    since: u64,
    /// Tells it from those before it at the same address.
    serial: u64,
    /// The engine is being told.
    is_new: bool,
    /// It was told meanwhile that the relay at this address is gone: this one, or the one before.
    is_doubtful: bool,
}

/// A registration that waits.
struct Registration {
    name: String,
    by: By,
    /// The way to who registers; none when that is this node.
    way: Option<Vec<u8>>,
    /// The whole way back, with the address that waits for the reply at its end.
    back: Vec<u8>,
    /// The wish to hear of its failure.
    offer: Option<Offer>,
    engine: EngineLink,
}

#[derive(Default)]
pub(super) struct State {
    /// By address.
    registered: HashMap<String, Registered>,
    serial: u64,
    /// By source. Those of each keep their order.
    waiting: BTreeMap<String, VecDeque<Registration>>,
    /// Whose turn it was last.
    last: String,
    waits: usize,
    /// Whether the task that registers runs.
    works: bool,
    /// Relays that ended before it was known that there are any.
    ended_early: HashSet<String>,
    refused: BTreeMap<Refused, u64>,
    /// What was told of refusals, of registrations, and of relays that ended.
    told: [Told; 3],
}

/// When something was told, and how often it has happened unsaid.
#[derive(Default)]
struct Told {
    at: Option<Instant>,
    unsaid: u64,
}

impl Told {
    /// Whether it is told now, and how often it has happened since it was told last.
    fn now(&mut self) -> Option<u64> {
        self.unsaid += 1;
        if self.at.is_some_and(|at| at.elapsed() < TELL_PAUSE) {
            return None;
        }
        self.at = Some(Instant::now());
        Some(std::mem::take(&mut self.unsaid))
    }
}

impl State {
    pub(super) fn has(&self, address: &str) -> bool {
        self.registered.contains_key(address)
    }

    /// How many registrations were refused so.
    #[cfg(test)]
    pub(super) fn refused(&self, why: Refused) -> u64 {
        self.refused.get(&why).copied().unwrap_or(0)
    }

    pub(super) fn infos(&self) -> Vec<RelayServiceInfo> {
        let mut infos: Vec<RelayServiceInfo> = self
            .registered
            .iter()
            .filter(|(_, relay)| !relay.is_new)
            .map(|(address, relay)| RelayServiceInfo {
                name: relay.name.clone(),
                address: address.clone(),
                since: relay.since,
                identifier: match relay.by {
                    By::Peer(peer) => Some(peer.to_string()),
                    By::Anyone | By::Here => None,
                },
            })
            .collect();
        infos.sort_by(|a, b| a.address.cmp(&b.address));
        infos
    }

    pub(super) fn adopt(&mut self, node: &Node, desired: &Desired, has: &[DumpedAddress]) {
        let ended_early = std::mem::take(&mut self.ended_early);
        self.registered.clear();
        for found in has.iter().filter(|found| found.target == Target::Relay) {
            let Some(Cookie::Relay { name, peer, source, since }) = node.cookies.open(&found.cookie) else { continue };
            let Ok(address) = String::from_utf8(found.address.clone()) else { continue };
            let by = match peer.map(|peer| peer.parse()) {
                Some(Ok(peer)) => By::Peer(peer),
                Some(Err(_)) => continue,
                None if source.is_empty() => By::Here,
                None => By::Anyone,
            };
            let is_wanted = by != By::Here || desired.relays.iter().any(|row| row.is_here() && row.asks_for() == name);
            if ended_early.contains(&address) || !is_wanted {
                continue;
            }
            self.serial += 1;
            let (serial, is_new, is_doubtful) = (self.serial, false, false);
            let relay = Registered { name, by, source, since, serial, is_new, is_doubtful };
            self.registered.insert(address, relay);
        }
    }

    pub(super) fn on_gone(&mut self, address: &str) {
        match self.registered.get_mut(address) {
            Some(relay) if relay.is_new => relay.is_doubtful = true,
            Some(relay) => {
                if let Some(relays) = self.told[2].now() {
                    tracing::info!(relay = relay.name, relays, "a relay ended with what it came by");
                }
                self.registered.remove(address);
            }
            None if self.ended_early.len() < RELAYS_MAX => {
                self.ended_early.insert(address.to_owned());
            }
            None => {}
        }
    }

    /// Forgets those who may not have their relay any more. Gives their addresses.
    pub(super) fn review(&mut self, may: impl Fn(By, &str) -> bool) -> Vec<String> {
        let denied = self.registered.iter().filter(|(_, relay)| !may(relay.by, &relay.name));
        let denied: Vec<String> = denied.map(|(address, _)| address.clone()).collect();
        for address in &denied {
            if let Some(relay) = self.registered.remove(address) {
                tracing::info!(relay = relay.name, "a relay is not permitted any more");
            }
        }
        denied
    }

    fn refuse(&mut self, why: Refused) {
        *self.refused.entry(why).or_default() += 1;
        if self.told[0].now().is_some() {
            let all: Vec<String> = self.refused.iter().map(|(why, count)| format!("{}: {count}", why.name())).collect();
            tracing::info!(why = why.name(), so_far = all.join(", "), "a registration of a relay was refused");
        }
    }

    fn wait(&mut self, source: String, registration: Registration) -> Result<(), Refused> {
        let mine = self.waiting.get(&source).map_or(0, VecDeque::len);
        if mine >= WAITING_PER_SOURCE_MAX {
            return Err(Refused::Limit);
        }
        if self.waits >= WAITING_MAX {
            // Of all sources the one with most gives way.
            let longest = self.waiting.values_mut().max_by_key(|queue| queue.len());
            longest.filter(|queue| queue.len() > mine + 1).and_then(VecDeque::pop_back).ok_or(Refused::Limit)?;
            self.waits -= 1;
            self.refuse(Refused::Limit);
        }
        self.waiting.entry(source).or_default().push_back(registration);
        self.waits += 1;
        Ok(())
    }

    /// The next registration: each source in turn.
    fn take(&mut self) -> Option<(String, Registration)> {
        self.waiting.retain(|_, queue| !queue.is_empty());
        let next = self.waiting.range(self.last.clone()..).find(|(source, _)| **source != self.last);
        let source = next.or_else(|| self.waiting.first_key_value()).map(|(source, _)| source.clone())?;
        let registration = self.waiting.get_mut(&source)?.pop_front()?;
        self.waits -= 1;
        self.last.clone_from(&source);
        Some((source, registration))
    }

    /// Enters a relay that the engine is about to be told of. Gives its number, and the one that it replaces.
    fn enter(
        &mut self,
        address: &str,
        source: &str,
        registration: &Registration,
    ) -> Result<(u64, Option<Registered>), Refused> {
        match self.registered.get(address) {
            Some(before) if before.by != By::Anyone && before.by != registration.by => return Err(Refused::Taken),
            _ => {}
        }
        let (mut all, mut plain, mut of_source) = (0, 0, 0);
        for (_, relay) in self.registered.iter().filter(|(other, _)| *other != address) {
            all += 1;
            plain += usize::from(relay.by == By::Anyone);
            of_source += usize::from(relay.source == source);
        }
        let is_plain = registration.by == By::Anyone;
        if all >= RELAYS_MAX || (is_plain && plain >= PLAIN_RELAYS_MAX) || of_source >= RELAYS_PER_SOURCE_MAX {
            return Err(Refused::Limit);
        }
        self.serial += 1;
        let relay = Registered {
            name: registration.name.clone(),
            by: registration.by,
            source: source.to_owned(),
            since: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            serial: self.serial,
            is_new: true,
            is_doubtful: false,
        };
        Ok((self.serial, self.registered.insert(address.to_owned(), relay)))
    }

    /// Whether the relay that was entered under this number is still what shall be at the address.
    fn own(&mut self, address: &str, serial: u64) -> Option<&mut Registered> {
        self.registered.get_mut(address).filter(|relay| relay.serial == serial)
    }

    /// Takes back what was entered.
    fn leave(&mut self, address: &str, serial: u64, before: Option<Registered>) {
        if self.own(address, serial).is_some() {
            match before {
                Some(before) => self.registered.insert(address.to_owned(), before),
                None => self.registered.remove(address),
            };
        }
    }
}

/// A message came for an address of control. Says whether it was for a service that makes relays.
pub(super) fn on_punt(
    node: &Arc<Node>,
    engine: &EngineLink,
    is_from_link: bool,
    channel: Option<u32>,
    encoded: &[u8],
) -> bool {
    let Ok(message) = Message::parse(encoded) else { return false };
    let is_ours = |address: AddressRef<'_>| SERVICES.iter().any(|service| service.as_bytes() == address.name);
    if !message.onward.first().is_some_and(is_ours) {
        return false;
    }
    let read = read(node, engine, is_from_link, channel, &message);
    let mut state = node.relays.service();
    let waits = read.and_then(|(source, registration)| state.wait(source, registration));
    if let Err(why) = waits {
        state.refuse(why);
        return true;
    }
    if !std::mem::replace(&mut state.works, true) {
        tokio::spawn(work(node.clone()));
    }
    true
}

/// Reads a registration: what it came by, and what it wants.
fn read(
    node: &Arc<Node>,
    engine: &EngineLink,
    is_from_link: bool,
    channel: Option<u32>,
    message: &Message<'_>,
) -> Result<(String, Registration), Refused> {
    let asked = bare::read_string(message.payload).map_err(|_| Refused::Malformed)?;
    if !is_name(asked, NAME_BYTES_MAX) {
        return Err(Refused::Malformed);
    }
    let name = if asked == RANDOM { crate::random::hex_id() } else { asked.to_owned() };
    let addresses: Vec<AddressRef<'_>> = message.return_route.iter().collect();
    let (by, source) = match (channel, is_from_link) {
        (Some(channel), _) => {
            let (address, peer) = node.channels.identity_of(channel).ok_or(Refused::Gone)?;
            (By::Peer(peer), address)
        }
        (None, true) => {
            let front = addresses.first().and_then(|front| std::str::from_utf8(front.name).ok());
            // Links have such names. What came by a hop of this node has that one's in front.
            let front = front.filter(|front| crate::text::is_hex_id(front)).ok_or(Refused::NoWay)?;
            (By::Anyone, front.to_owned())
        }
        (None, false) => (By::Here, String::new()),
    };
    let way = match (by, addresses.as_slice()) {
        (By::Here, [_]) => None,
        (By::Here, _) => return Err(Refused::NoWay),
        (_, [front, .., _]) if addresses.len() >= 2 && front.kind == LOCAL && front.name == source.as_bytes() => {
            Some(addresses.get(..addresses.len() - 1).ok_or(Refused::NoWay)?)
        }
        _ => return Err(Refused::NoWay),
    };
    let encode = |onward: &[AddressRef<'_>]| {
        let outgoing = Outgoing {
            onward: RouteParts::new(onward),
            return_route: RouteParts::EMPTY,
            payload_len: 0,
            tracing: None,
        };
        if outgoing.body_len() > WAY_BYTES_MAX {
            return Err(Refused::NoWay);
        }
        Ok(outgoing.to_frame(&[]).split_off(4))
    };
    let registration = Registration {
        name,
        by,
        way: way.map(encode).transpose()?,
        back: encode(&addresses)?,
        offer: message.tracing.and_then(Offer::parse),
        engine: engine.clone(),
    };
    Ok((source, registration))
}

/// Registers until nobody waits.
async fn work(node: Arc<Node>) {
    let (mut done, mut since) = (0, Instant::now());
    loop {
        let next = {
            let mut state = node.relays.service();
            let next = state.take();
            state.works = next.is_some();
            next
        };
        let Some((source, registration)) = next else { return };
        register(&node, &source, registration).await;
        done += 1;
        if done >= BATCH {
            tokio::time::sleep(BATCH_TIME.saturating_sub(since.elapsed())).await;
            (done, since) = (0, Instant::now());
        }
    }
}

/// Whether somebody may have a relay of this name.
pub(super) fn may(node: &Node, by: By, name: &str) -> bool {
    match by {
        By::Here => true,
        By::Peer(peer) => node.trust.admits_relay(name, Some(&peer)),
        By::Anyone => node.trust.admits_relay(name, None),
    }
}

/// Makes a relay, and tells who asked for it.
async fn register(node: &Arc<Node>, source: &str, registration: Registration) {
    let address = format!("{PREFIX}{}", registration.name);
    // What is permitted is so until it is done.
    let passing = node.trust.passing().await;
    let made = match node.relays.service().has(&address) || node.check_free(&node.desired(), &address).is_ok() {
        _ if !may(node, registration.by, &registration.name) => Err(Refused::Denied),
        true => set(node, &address, source, &registration).await,
        false => Err(Refused::Taken),
    };
    drop(passing);
    let engine = &registration.engine;
    let message = match made {
        Ok(()) => {
            if let Some(relays) = node.relays.service().told[1].now() {
                let by = match registration.by {
                    By::Anyone => "a plain connection".to_owned(),
                    By::Peer(peer) => peer.to_string(),
                    By::Here => "this node".to_owned(),
                };
                tracing::info!(relay = registration.name, by, relays, "a relay was registered");
            }
            let mut payload = Vec::with_capacity(address.len() + 2);
            bare::write_string(&address, &mut payload);
            along(&registration.back, &[AddressRef::local(address.as_bytes())], &payload, None)
        }
        Err(why) => {
            node.relays.service().refuse(why);
            let Some(offer) = registration.offer else { return };
            // Strangers are not told who has which name.
            let reason = match (registration.by, why) {
                (By::Anyone, _) => DropReason::NotDelivered,
                (_, Refused::Limit) => DropReason::PuntLimit,
                (_, Refused::Gone) => return,
                (_, Refused::Denied) => DropReason::PolicyDenied,
                _ => DropReason::NotAdmitted,
            };
            let notice = Notice { token: offer.token, reason: reason as u8, left: 1 };
            along(&registration.back, &[], &[], Some(&notice.text()))
        }
    };
    if let Err(error) = engine.transmit(engine.new_request(), message).await {
        tracing::debug!(%error, "who registered a relay cannot be told");
    }
}

/// Sets a relay in the engine.
async fn set(node: &Node, address: &str, source: &str, registration: &Registration) -> Result<(), Refused> {
    let (serial, mut before) = node.relays.service().enter(address, source, registration)?;
    let since = node.relays.service().own(address, serial).map_or(0, |relay| relay.since);
    let cookie = node.cookies.seal(&Cookie::Relay {
        name: registration.name.clone(),
        peer: match registration.by {
            By::Peer(peer) => Some(peer.to_string()),
            By::Anyone | By::Here => None,
        },
        source: source.to_owned(),
        since,
    });
    let reachable = node.desired().widened(address, REACHABLE);
    for _ in 0..SET_TRIES_MAX {
        let command = |request| Command::SetRelay {
            request,
            address: address.as_bytes().to_vec().into(),
            way: registration.way.clone().map(Into::into),
            reachable,
            cookie: cookie.clone().into(),
        };
        let applied = registration.engine.apply(command).await;
        let mut state = node.relays.service();
        if let Err(error) = applied {
            tracing::debug!(relay = registration.name, %error, "a relay cannot be set");
            // What was there before is there still, unless it was told that it is gone.
            let is_doubtful = state.own(address, serial).is_some_and(|relay| relay.is_doubtful);
            state.leave(address, serial, before.take().filter(|_| !is_doubtful));
            return Err(match error {
                CommandError::Refused { why: Refusal::Limit, .. } => Refused::Limit,
                _ => Refused::Gone,
            });
        }
        // An engine that died has taken it along.
        let Some(relay) = state.own(address, serial) else { return Err(Refused::Gone) };
        if !std::mem::take(&mut relay.is_doubtful) {
            relay.is_new = false;
            return Ok(());
        }
        // The engine says again that this one is gone, if it is.
        before = None;
    }
    node.relays.service().leave(address, serial, None);
    Err(Refused::Gone)
}

/// Ends a relay that leads to this node itself.
pub(super) async fn end_here(node: &Node, engine: &EngineLink, name: &str) {
    let address = format!("{PREFIX}{name}");
    {
        let mut state = node.relays.service();
        if state.registered.get(&address).is_none_or(|relay| relay.by != By::Here) {
            return;
        }
        state.registered.remove(&address);
    }
    if let Err(error) =
        engine.apply(|request| Command::ClearAddress { request, address: address.into_bytes().into() }).await
    {
        tracing::debug!(%error, "no relay to end");
    }
}

/// A message along a way that was encoded here.
fn along(way: &[u8], return_route: &[AddressRef<'_>], payload: &[u8], tracing: Option<&str>) -> Vec<u8> {
    let way = Message::parse(way).expect("it was encoded here");
    let outgoing = Outgoing {
        onward: RouteParts { front: &[], rest: way.onward },
        return_route: RouteParts::new(return_route),
        payload_len: payload.len(),
        tracing,
    };
    outgoing.to_frame(payload).split_off(4)
}

impl Node {
    /// Puts the services that make relays at their addresses, unless they are there.
    ///
    /// # Errors
    /// Those of the engine.
    pub(crate) async fn set_relay_services(
        &self,
        engine: &EngineLink,
        desired: &Desired,
        has: &[DumpedAddress],
    ) -> Result<(), CommandError> {
        // An authority forwards for nobody.
        let services = SERVICES.into_iter().filter(|_| !desired.is_authority);
        for service in services {
            let reachable = desired.widened(service, REACHABLE);
            let is_there = has.iter().any(|found| {
                found.address == service.as_bytes()
                    && found.target == Target::Control
                    && found.reachable == reachable
                    && self.cookies.open(&found.cookie) == Some(Cookie::RelayService)
            });
            if !is_there {
                self.set_relay_service(engine, service, reachable).await?;
            }
        }
        Ok(())
    }

    /// Puts one of them at its address.
    ///
    /// # Errors
    /// Those of the engine.
    pub(crate) async fn set_relay_service(
        &self,
        engine: &EngineLink,
        service: &str,
        reachable: u64,
    ) -> Result<(), CommandError> {
        engine
            .apply(|request| Command::SetAddress {
                request,
                address: service.as_bytes().to_vec().into(),
                target: Target::Control,
                reachable,
                guard: None,
                cookie: self.cookies.seal(&Cookie::RelayService).into(),
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeEngine, run};

    async fn engine() -> EngineLink {
        EngineLink::open(FakeEngine::start().connect(), |_| ()).await.unwrap().0
    }

    fn registration(engine: &EngineLink, name: &str, by: By) -> Registration {
        let (way, back) = (Some(Vec::new()), Vec::new());
        Registration { name: name.into(), by, way, back, offer: None, engine: engine.clone() }
    }

    fn enter(state: &mut State, engine: &EngineLink, index: usize, by: By) -> Result<(), Refused> {
        let registration = registration(engine, &format!("r{index}"), by);
        let source = format!("s{}", index / RELAYS_PER_SOURCE_MAX);
        let (serial, _) = state.enter(&format!("a{index}"), &source, &registration)?;
        state.own(&format!("a{index}"), serial).unwrap().is_new = false;
        Ok(())
    }

    #[test]
    fn strangers_leave_room_for_those_who_show_who_they_are() {
        run(async {
            let engine = engine().await;
            let mut state = State::default();
            for index in 0..PLAIN_RELAYS_MAX {
                assert_eq!(enter(&mut state, &engine, index, By::Anyone), Ok(()));
            }
            assert_eq!(enter(&mut state, &engine, PLAIN_RELAYS_MAX, By::Anyone), Err(Refused::Limit));
            let peer = By::Peer(Identifier([1; 32]));
            for index in PLAIN_RELAYS_MAX..RELAYS_MAX {
                assert_eq!(enter(&mut state, &engine, index, peer), Ok(()));
            }
            assert_eq!(enter(&mut state, &engine, RELAYS_MAX, peer), Err(Refused::Limit));
            // What is there may be registered again, and what is gone leaves room.
            assert_eq!(enter(&mut state, &engine, 7, By::Anyone), Ok(()));
            state.on_gone("a8");
            assert_eq!(enter(&mut state, &engine, RELAYS_MAX, peer), Ok(()));
            assert_eq!(state.infos().len(), RELAYS_MAX);
        });
    }

    #[test]
    fn sources_take_turns_and_the_one_with_most_gives_way() {
        run(async {
            let engine = engine().await;
            let mut state = State::default();
            let wait = |state: &mut State, source: &str, name: &str| {
                state.wait(source.into(), registration(&engine, name, By::Anyone))
            };
            for (source, name) in [("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("c", "c1")] {
                wait(&mut state, source, name).unwrap();
            }
            let order: Vec<String> = std::iter::from_fn(|| state.take()).map(|(_, next)| next.name).collect();
            assert_eq!(order, ["a1", "b1", "c1", "a2", "a3"]);

            for index in 0..WAITING_MAX {
                wait(&mut state, &format!("s{}", index / WAITING_PER_SOURCE_MAX), "x").unwrap();
            }
            assert_eq!(wait(&mut state, "s3", "x"), Err(Refused::Limit));
            assert_eq!((wait(&mut state, "late", "l1"), state.refused(Refused::Limit)), (Ok(()), 1));
            assert_eq!(state.waits, WAITING_MAX);
            assert_eq!(state.waits, state.waiting.values().map(VecDeque::len).sum::<usize>());
        });
    }

    #[test]
    fn who_does_something_often_does_not_fill_the_log() {
        let mut told = Told::default();
        assert_eq!(told.now(), Some(1));
        // As if no time went by, however long this takes here.
        told.at = Some(Instant::now() + 1000 * TELL_PAUSE);
        assert_eq!(std::iter::repeat_with(|| told.now()).take(100).flatten().count(), 0);
        told.at = Instant::now().checked_sub(TELL_PAUSE);
        assert_eq!(told.now(), Some(101));
    }

    #[test]
    fn what_was_said_of_the_relay_before_is_not_said_of_this_one() {
        run(async {
            let engine = engine().await;
            let mut state = State::default();
            let enter = |state: &mut State, source: &str| {
                state.enter("a", source, &registration(&engine, "n", By::Anyone)).unwrap()
            };
            let (first, before) = enter(&mut state, "s1");
            assert!(before.is_none());
            state.own("a", first).unwrap().is_new = false;
            let (second, before) = enter(&mut state, "s2");
            assert!(state.own("a", first).is_none());
            state.on_gone("a");
            assert!(state.own("a", second).unwrap().is_doubtful);
            // The engine did not take it: what was there before is there still.
            state.leave("a", second, before);
            assert!(state.own("a", first).is_some());
            state.leave("a", second, None);
            assert!(state.has("a"));
            state.on_gone("a");
            assert!(!state.has("a"));
        });
    }
}
