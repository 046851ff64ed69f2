//! Whom a node believes, and whom it lets pass.
//!
//! ```text
//!   policies, authority ── rules.rs ──► which guards are open, which a peer is granted ──► engine
//!   what peers show     ── shown.rs ──► attributes of peers, until they expire or are revoked (revocations.rs)
//!   what we show        ── own.rs   ──► asked of the authority, shown in handshakes, shown again when it is renewed
//!   what is asked of us ── api.rs       policies, credentials, the authority
//! ```
//!
//! Decisions are made here: when a channel is installed, when its peer shows something, when policies or the list of
//! revocations change, when something expires. The engine only compares bits. What a channel is granted is computed and
//! given to the engine by one at a time ([`Trust::passing`]), so that nothing older overtakes anything newer.

mod authority;
mod clock;
pub(crate) mod own;
pub(crate) mod policies;
mod rules;
mod shown;

pub(crate) use rules::{Rules, service_type};
pub(crate) use shown::Judged;

use crate::api::ResourceType;
use crate::engine_link::{CommandError, EngineLink};
use crate::error::Error;
use crate::node::{Desired, Node};
use crate::process::TrustOptions;
use crate::route::Route;
use crate::store::trust::GUARD_CLOSED;
use crate::store::{AuthorityRow, GuardRow, NodeStore};
use authority::Authority;
use clock::Clock;
use ockam_crypto::{ChangeHistory, Identifier, RevocationList};
use ockam_engine_abi::{ChannelGrants, Command, Grants, Guard, GuardSet, TransitRule};
use ockam_wire::{MultiAddr, Protocol};
use own::Own;
use rules::Subject;
use shown::{Queue, Shown};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, RwLock, RwLockReadGuard, watch};

/// Channels whose grants go to the engine in one record.
const BATCH: usize = 512;

/// From so many peers on, what they are granted is computed where it keeps nobody waiting.
const MANY_PEERS: usize = 256;

/// How much longer than a credential the engine lets its peer pass when control is to decide anew about it: what does not
/// depend on the credential shall not be interrupted. Without a control that is the end.
const GRACE_MS: u64 = 2_000;

/// Longest scope in bytes.
const SCOPE_BYTES_MAX: usize = 255;

/// Reads what a node was told of its authority.
///
/// # Errors
/// [`Error::BadArgument`].
pub(crate) fn check(options: &TrustOptions) -> Result<ChangeHistory, Error> {
    let bad = |argument: &str, value: &str, why: String, fix: &str| Error::BadArgument {
        argument: argument.into(),
        value: crate::text::escape(value.as_bytes(), 100),
        why,
        fix: fix.into(),
    };
    let identity = "--authority-identity";
    let export = "`ockam identity show --full --encoding hex` prints the authority's change history.";
    let encoded = crate::text::from_hex(&options.history)
        .ok_or_else(|| bad(identity, &options.history, "is not hexadecimal".into(), export))?;
    let history = ChangeHistory::verify(&encoded)
        .map_err(|error| bad(identity, &options.history, format!("is no identity: {error}"), export))?;
    // Without a route nobody is asked: what peers show is verified, until it expires.
    if !options.route.is_empty() {
        authority_route(&options.route)?;
    }
    let scope = &options.scope;
    if scope.is_empty() || scope.len() > SCOPE_BYTES_MAX || scope.chars().any(char::is_control) {
        let why = format!("is empty, or longer than {SCOPE_BYTES_MAX} bytes, or has characters that cannot be shown");
        return Err(bad("--credential-scope", scope, why, "Use the id of the project."));
    }
    Ok(history)
}

/// Reads the route to an authority's node: it ends with the listener for secure channels, written `/secure/api` or
/// `/service/api`, or with the node, whose listener is `api` then.
///
/// # Errors
/// [`Error::BadArgument`].
pub(crate) fn authority_route(text: &str) -> Result<Route, Error> {
    let bad = |why: String| Error::BadArgument {
        argument: "--authority-route".into(),
        value: crate::text::escape(text.as_bytes(), 300),
        why,
        fix: "Write a route like /ip4/127.0.0.1/tcp/4000/secure/api.".into(),
    };
    let multiaddr: MultiAddr =
        text.parse().map_err(|error: ockam_wire::MultiAddrError| bad(format!("is not a route: {error}")))?;
    let mut parts = multiaddr.protocols().to_vec();
    match parts.pop() {
        Some(Protocol::Secure(name) | Protocol::Service(name)) => parts.push(Protocol::Secure(name)),
        Some(other) => parts.extend([other, Protocol::Secure("api".into())]),
        None => return Err(bad("is empty".into())),
    }
    // A service behind it, so that it is a whole route.
    parts.push(Protocol::Service("echo".into()));
    let multiaddr = MultiAddr::try_from(parts).map_err(|error| bad(format!("is not a route: {error}")))?;
    Route::new(&multiaddr, "--authority-route")
}

/// How often it is looked whether something has expired: the machine's clock may be set.
const LOOK: Duration = Duration::from_secs(1);

/// How often it is looked whose channels are gone, and how often the time is stored.
const TIDY_PAUSE: Duration = Duration::from_secs(10);
const TIME_PAUSE: Duration = Duration::from_secs(60);

/// How long to wait for an identity that cannot be had.
const IDENTITY_PAUSE: Duration = Duration::from_secs(5);

/// What a channel is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Granted {
    pub(crate) guards: GuardSet,
    /// The last second for which that holds, in Unix time.
    pub(crate) until: Option<u64>,
    /// Whether something remains after that.
    remains: bool,
}

impl Granted {
    /// As the engine is told at this time.
    pub(crate) fn grants(&self, now: u64) -> Grants {
        let grace = if self.remains { GRACE_MS } else { 0 };
        let expire_in_ms = self
            .until
            .map(|until| until.saturating_add(1).saturating_sub(now).saturating_mul(1000).saturating_add(grace));
        Grants { guards: self.guards, expire_in_ms }
    }
}

#[derive(Default)]
struct State {
    /// Those in force.
    rules: Arc<Rules>,
    /// Those that are about to be: whoever sets places takes the guards from here.
    coming: Option<Arc<Rules>>,
    authority: Option<Arc<AuthorityRow>>,
    revocations: Option<Arc<RevocationList>>,
    /// What peers showed last that was worth something then.
    peers: HashMap<Identifier, Arc<Shown>>,
    /// Peers of whom the store is to learn something.
    unnoted: HashSet<Identifier>,
    /// The store is to learn of the authority's identity.
    is_authority_unnoted: bool,
    /// The authority has another key than before.
    is_authority_new: bool,
    /// Credentials of peers by a key that the authority has not, as far as is known.
    doubted: HashMap<Identifier, Vec<u8>>,
    /// Whether the authority is to be met to see what its key is, and how long after it was met last.
    wants_to_meet: bool,
    meet_pause: Duration,
}

/// What a node has to do with trust.
pub(crate) struct Trust {
    pub(crate) clock: Clock,
    state: Mutex<State>,
    /// Who gives the engine grants has it: to read for a channel of its own, to write for all of them.
    gate: RwLock<()>,
    /// What was shown over channels and is to be looked at.
    queue: Queue,
    own: Mutex<Own>,
    /// Counts changes of what our identities have.
    own_changes: watch::Sender<u64>,
    way: Mutex<Authority>,
    /// There is something for the task that looks after all this.
    work: Arc<Notify>,
    /// That task runs.
    is_kept: AtomicBool,
}

impl Trust {
    /// Of a node with this store.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) fn new(store: &NodeStore, desired: &Desired) -> Result<Trust, Error> {
        let rules = Arc::new(Rules::new(desired));
        let (authority, revocations) = (desired.authority.clone(), store.revocation_list()?.map(Arc::new));
        let mut peers = HashMap::new();
        if let Some(authority) = &authority {
            let shown = store.shown_credentials()?.into_iter();
            let shown = shown.filter_map(|(peer, encoded)| Some((peer, Arc::new(Shown::stored(encoded)?))));
            peers.extend(shown.filter(|(_, shown)| shown.issuer == authority.history.identifier()));
        }
        Ok(Trust {
            clock: Clock::new(store.latest_time()?),
            state: Mutex::new(State { rules, authority, revocations, peers, ..State::default() }),
            gate: RwLock::default(),
            queue: Queue::default(),
            own: Mutex::new(Own::new(store.own_credentials()?)),
            own_changes: watch::Sender::new(0),
            way: Mutex::default(),
            work: Arc::default(),
            is_kept: AtomicBool::new(false),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own_changes(&self) -> watch::Receiver<u64> {
        self.own_changes.subscribe()
    }

    fn own_changed(&self) {
        self.own_changes.send_modify(|count| *count += 1);
    }

    fn way(&self) -> MutexGuard<'_, Authority> {
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The authority, if there is a way to ask it.
    fn asked(&self) -> Option<Arc<AuthorityRow>> {
        self.state().authority.clone().filter(|row| !row.route.is_empty())
    }

    fn rules(&self) -> Arc<Rules> {
        self.state().rules.clone()
    }

    // ---- who passes

    /// Nobody is granted anything else, and no policy changes, until this is dropped: for who computes grants, or asks whether
    /// somebody is admitted, and acts on it.
    pub(crate) async fn passing(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().await
    }

    /// What the channels of a peer are granted now.
    pub(crate) fn granted(&self, peer: &Identifier) -> Granted {
        let (rules, subject, until) = {
            let state = self.state();
            let (subject, until) = state.subject(peer, self.clock.now());
            (state.rules.clone(), subject, until)
        };
        granted(&rules, subject, until)
    }

    /// Who a peer is to policies.
    fn subject(&self, peer: &Identifier) -> Subject {
        self.state().subject(peer, self.clock.now()).0
    }

    /// Whether a peer, or somebody without an identity, may register a relay of this name here.
    pub(crate) fn admits_relay(&self, name: &str, peer: Option<&Identifier>) -> bool {
        let (rules, subject) = {
            let state = self.state();
            (state.rules.clone(), peer.map(|peer| state.subject(peer, self.clock.now()).0))
        };
        rules.admits_relay(name, subject.as_ref())
    }

    /// The guard of a resource, which is set in the engine with it.
    pub(crate) fn guard(&self, resource_type: ResourceType, resource: &str) -> Option<Guard> {
        let state = self.state();
        Some(state.coming.as_ref().unwrap_or(&state.rules).guard(resource_type, resource))
    }

    /// What policies let peers have dialed.
    pub(crate) fn transit(&self) -> Vec<TransitRule> {
        let state = self.state();
        state.coming.as_ref().unwrap_or(&state.rules).transit().to_vec()
    }

    // ---- changes

    /// Says which rules come, so that what they guard can be set. Gives those that are in force, unless they are the same.
    pub(crate) fn announce(&self, rules: &Arc<Rules>) -> Option<Arc<Rules>> {
        let mut state = self.state();
        if state.rules == *rules {
            return None;
        }
        state.coming = Some(rules.clone());
        Some(state.rules.clone())
    }

    /// Goes back to rules that were in force before others were announced, whatever the engine has.
    pub(crate) fn retract(&self, rules: Arc<Rules>) {
        let mut state = self.state();
        (state.rules, state.coming) = (rules, None);
    }

    /// Puts rules in force, also in the engine. Whom they still let pass is let pass all the time; whom they do not let pass any
    /// more does not when this returns.
    ///
    /// # Errors
    /// The engine refuses or ends.
    pub(crate) async fn put_in_force(
        &self,
        node: &Node,
        link: &EngineLink,
        rules: Arc<Rules>,
    ) -> Result<(), CommandError> {
        let _gate = self.gate.write().await;
        let (before, now) = {
            let mut state = self.state();
            state.coming = None;
            let before = std::mem::replace(&mut state.rules, rules.clone());
            (before.open(), rules.open())
        };
        let both = rules::union(&before, &now);
        if both != before {
            link.apply(|request| Command::SetGuards { request, open: both }).await?;
        }
        self.grant(node, link).await?;
        if now != both {
            link.apply(|request| Command::SetGuards { request, open: now }).await?;
        }
        Ok(())
    }

    /// Gives an engine, new or adopted, the rules that shall be: before anything that they guard.
    ///
    /// # Errors
    /// The engine refuses or ends.
    pub(crate) async fn reconcile(
        &self,
        node: &Node,
        link: &EngineLink,
        rules: Arc<Rules>,
    ) -> Result<(), CommandError> {
        let _gate = self.gate.write().await;
        let open = rules.open();
        self.retract(rules);
        // An adopted engine has open what was open: whom a policy admits shall have been granted that before it is closed.
        self.grant(node, link).await?;
        link.apply(|request| Command::SetGuards { request, open }).await
    }

    /// Decides anew about all channels that live.
    pub(crate) async fn decide_anew(&self, node: &Node) {
        let _gate = self.gate.write().await;
        // A new engine is told when it comes.
        let Some(engine) = node.engine_now() else { return };
        if let Err(error) = self.grant(node, &engine.link).await {
            tracing::warn!(%error, "the engine does not take what peers are granted");
        }
    }

    /// Forgets what peers showed that have no channel any more.
    async fn forget_gone(&self, node: &Node) {
        // No channel is installed meanwhile.
        let _gate = self.gate.write().await;
        let there: HashSet<Identifier> = node.channels.granted().into_iter().map(|(_, peer, _)| peer).collect();
        let mut state = self.state();
        let gone: Vec<Identifier> = state.peers.keys().filter(|peer| !there.contains(peer)).copied().collect();
        for peer in gone {
            state.peers.remove(&peer);
            state.unnoted.insert(peer);
        }
        state.doubted.retain(|peer, _| there.contains(peer));
    }

    /// Tells the store what peers showed and what the authority's identity is, for a control that comes after this one; and
    /// what time it is, now and then.
    async fn note(&self, node: &Node, time: Option<u64>) -> Result<(), Error> {
        let (shown, authority) = {
            let mut state = self.state();
            let unnoted = std::mem::take(&mut state.unnoted);
            let shown =
                unnoted.into_iter().map(|peer| (peer, state.peers.get(&peer).map(|shown| shown.encoded.clone())));
            let shown: Vec<_> = shown.collect();
            let is_unnoted = std::mem::take(&mut state.is_authority_unnoted);
            (shown, state.authority.clone().filter(|_| is_unnoted))
        };
        if shown.is_empty() && authority.is_none() && time.is_none() {
            return Ok(());
        }
        let mut store = node.store().await;
        let noted = store.note_shown(&shown).and_then(|()| match &authority {
            Some(authority) => store.set_authority_history(&authority.history),
            None => Ok(()),
        });
        if noted.is_err() {
            let mut state = self.state();
            state.unnoted.extend(shown.iter().map(|(peer, _)| *peer));
            state.is_authority_unnoted |= authority.is_some();
        }
        match time {
            Some(time) => noted.and(store.set_latest_time(time)),
            None => noted,
        }
    }

    /// Tells the engine what channels are granted, those for which that is something else than before. The gate is closed.
    async fn grant(&self, node: &Node, link: &EngineLink) -> Result<(), CommandError> {
        let channels = node.channels.granted();
        let now = self.clock.now();
        let (rules, subjects) = {
            let state = self.state();
            let peers: BTreeSet<Identifier> = channels.iter().map(|(_, peer, _)| *peer).collect();
            let subjects: Vec<_> = peers.into_iter().map(|peer| (peer, state.subject(&peer, now))).collect();
            (state.rules.clone(), subjects)
        };
        let is_long = subjects.len() >= MANY_PEERS;
        let decide = move || -> HashMap<Identifier, Granted> {
            let decide = |(peer, (subject, until))| (peer, granted(&rules, subject, until));
            subjects.into_iter().map(decide).collect()
        };
        let decided = match is_long {
            true => tokio::task::spawn_blocking(decide).await.map_err(|_| CommandError::Away)?,
            false => decide(),
        };
        let changes: Vec<(u32, Granted)> = channels
            .into_iter()
            .filter_map(|(number, peer, before)| {
                let now = *decided.get(&peer)?;
                (before != Some(now)).then_some((number, now))
            })
            .collect();
        for batch in changes.chunks(BATCH) {
            let channels =
                batch.iter().map(|(channel, it)| ChannelGrants { channel: *channel, grants: it.grants(now) });
            let channels = channels.collect();
            link.apply(|request| Command::SetGrants { request, channels }).await?;
            node.channels.set_granted(batch);
        }
        node.relays.review(node, link).await;
        Ok(())
    }
}

impl State {
    /// Who a peer is to policies, and the last second for which that holds.
    fn subject(&self, peer: &Identifier, now: u64) -> (Subject, Option<u64>) {
        let shown = self.peers.get(peer).filter(|shown| shown.holds(peer, self.revocations.as_deref(), now));
        let attributes = shown.map(|shown| shown.attributes.clone());
        (Subject { identifier: Some(peer.to_string()), attributes }, shown.map(|shown| shown.expires_at))
    }
}

/// Begins to look after what a node believes and shows, once it has an engine.
pub(crate) fn resume(node: &Arc<Node>) {
    let trust = &node.trust;
    let has_own = !trust.own().is_empty();
    let authority = trust.state().authority.clone();
    if (authority.is_some() || has_own) && !trust.is_kept.swap(true, Ordering::Relaxed) {
        tokio::spawn(begin(node.clone(), authority));
    }
}

async fn begin(node: Arc<Node>, authority: Option<Arc<AuthorityRow>>) {
    let own = loop {
        match crate::channels::own(&node, None).await {
            Ok(own) => break own,
            Err(error) => {
                tracing::warn!(%error, "the node has no identity to show a credential of");
                tokio::time::sleep(IDENTITY_PAUSE).await;
            }
        }
    };
    let listeners = node.desired().channel_listeners;
    let used = listeners.iter().filter_map(|row| row.identity).chain(node.trust.own().subjects());
    let used: BTreeSet<Identifier> = used.chain([own]).collect();
    if let Some(row) = authority {
        match node.channels.known(row.history.identifier()).await {
            Ok(Some(known)) => node.trust.learn(&known),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "what else is known of the authority cannot be read"),
        }
        if node.trust.asked().is_some() {
            node.trust.begin_with_enrolled(&node, &row, own).await;
            node.trust.follow_authority(&node, &row, own);
        }
        tokio::spawn(keep(Arc::downgrade(&node), node.trust.work.clone()));
    }
    used.into_iter().for_each(|own| node.trust.need(&node, own));
}

/// Looks after what peers showed, for as long as the node lives: what expires, what the store is to know, what nobody needs.
async fn keep(node: Weak<Node>, work: Arc<Notify>) {
    let mut tidied = Instant::now();
    let mut timed = Instant::now();
    let mut met: Option<Instant> = None;
    loop {
        let _ = tokio::time::timeout(LOOK, work.notified()).await;
        let Some(node) = node.upgrade() else { return };
        let trust = &node.trust;
        let now = trust.clock.now();
        let has_lapsed = node.channels.has_lapsed(now);
        if has_lapsed {
            tracing::info!("a credential has expired; deciding anew who passes");
            trust.decide_anew(&node).await;
        }
        let (is_new, pause) = {
            let mut state = trust.state();
            let is_new = std::mem::take(&mut state.is_authority_new);
            if is_new {
                state.meet_pause = shown::MEET_PAUSE_MIN;
            }
            (is_new, state.wants_to_meet.then_some(state.meet_pause))
        };
        if is_new {
            trust.judge_again(&node).await;
            trust.own_is_stale();
        }
        if pause.is_some_and(|pause| met.is_none_or(|met| met.elapsed() >= pause)) {
            met = Some(Instant::now());
            tokio::spawn(authority::meet(node.clone()));
        }
        if tidied.elapsed() >= TIDY_PAUSE {
            trust.forget_gone(&node).await;
            tidied = Instant::now();
        }
        let is_time = has_lapsed || timed.elapsed() >= TIME_PAUSE;
        if let Err(error) = trust.note(&node, is_time.then_some(now)).await {
            tracing::warn!(%error, "what peers showed cannot be stored");
        }
        if is_time {
            timed = Instant::now();
        }
    }
}

/// Bytes of somebody else, fit to be shown.
fn escaped(bytes: &[u8]) -> String {
    crate::text::escape(bytes, ockam_crypto::ATTRIBUTE_VALUE_MAX)
}

/// What somebody is granted who is this until then.
fn granted(rules: &Rules, subject: Subject, until: Option<u64>) -> Granted {
    let guards = rules.grants(&subject);
    let Some(until) = until else { return Granted { guards, until: None, remains: false } };
    let without = rules.grants(&Subject { attributes: None, ..subject });
    match without == guards {
        // The credential makes no difference.
        true => Granted { guards, until: None, remains: false },
        false => Granted { guards, until: Some(until), remains: without != GuardSet::NONE },
    }
}

/// Brings the guards of a store to what there is: each place has one, and the numbers of those that are gone are free.
/// Places beyond what an engine can guard have none, and are closed.
///
/// # Errors
/// Those of the store. [`Error::Limit`] when `all` shall have one.
pub(crate) fn settle(store: &mut NodeStore, desired: &mut Desired, node: &str, all: bool) -> Result<(), Error> {
    let places = rules::places(desired);
    let mut kept: Vec<GuardRow> = Vec::new();
    // What was given up just now is not given again in the same change.
    let taken: BTreeSet<Guard> = desired.guards.iter().map(|row| row.number).collect();
    for row in std::mem::take(&mut desired.guards) {
        match places.contains(&(row.resource_type, row.resource.clone())) {
            true => kept.push(row),
            false => store.remove_guard(row.number)?,
        }
    }
    let has: BTreeSet<_> = kept.iter().map(|row| (row.resource_type, row.resource.clone())).collect();
    let mut free = (0..GUARD_CLOSED).filter(|number| !taken.contains(number));
    for (resource_type, resource) in places.difference(&has).cloned() {
        let Some(number) = free.next() else {
            if all {
                let what = "services, outlets, inlets and transit policies together";
                return Err(Error::Limit { node: node.into(), what, limit: GUARD_CLOSED.into() });
            }
            tracing::error!(of = resource_type.name(), resource, "no guard is left: nobody passes there");
            continue;
        };
        let row = GuardRow { number, resource_type, resource };
        store.add_guard(&row)?;
        kept.push(row);
    }
    kept.sort_by_key(|row| row.number);
    desired.guards = kept;
    Ok(())
}

#[cfg(test)]
mod tests;
