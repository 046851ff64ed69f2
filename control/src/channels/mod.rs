//! Secure channels, as far as control has to do with them: handshakes, who is at the other end, what ends when. What goes
//! through a channel is the engine's.
//!
//! ```text
//!   peers begin    half_open.rs   whose turn it is ──► responder.rs   messages 2 and 3, install ──► engine
//!                  budget.rs      how much work
//!   we begin       initiator.rs   messages 1 to 3, install, "was it accepted?"
//!                  supervised.rs  again and again, under the same address
//!   both           who.rs         identities, keys, what is known of others
//! ```
//!
//! Here: the channels that live. Session keys pass through on their way to the engine and are kept nowhere.

mod budget;
mod half_open;
mod initiator;
mod responder;
mod supervised;
mod who;

pub(crate) use budget::Budget;
pub(crate) use initiator::{OpenChannel, Plan, open};
pub(crate) use responder::cpu_time;
pub(crate) use supervised::{create, delete, resume};

use crate::api::{ChannelRole, ChannelStatus, SecureChannelInfo, SecureChannelListenerInfo};
use crate::engine_link::cookie::{Cookie, Purpose};
use crate::engine_link::{CommandError, Dump, EngineLink};
use crate::error::Error;
use crate::home::NodeDir;
use crate::node::Node;
use crate::store::ChannelListenerRow;
use crate::trust::{Granted, Judged};
use half_open::{End, Gone, HalfOpen, Source};
use ockam_crypto::{ChangeHistory, Identifier};
use ockam_engine_abi::{ChannelEnd, Command, LinkId};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use supervised::Supervised;
use tokio::sync::{Notify, oneshot};

/// Most channels that live. When one more is opened, the oldest of the source that has most gives way.
const LIVING_MAX: usize = 32_768;

/// Longest way to a peer in bytes, as a message without payload: 32 addresses as nodes make them. It is bounded so that
/// the command that carries the keys does not outgrow its buffer and leave a copy of them behind.
const WAY_BYTES_MAX: usize = 1200;

/// How often it is looked whether identities are still there.
const IDENTITIES_PAUSE: Duration = Duration::from_secs(2);

/// Most identifiers in one list of those authorized.
const AUTHORIZED_MAX: usize = 1024;

/// A channel that lives.
struct Living {
    /// The local name of its sending side.
    address: String,
    /// That of its receiving side.
    decryptor: String,
    peer: Identifier,
    own: Identifier,
    expires_at: u64,
    purpose: Purpose,
    /// Where a peer's handshake came from.
    source: Option<Source>,
    /// The link that was made for it.
    link: Option<LinkId>,
    /// Told when it ends.
    ended: Vec<oneshot::Sender<ChannelEnd>>,
    /// What the engine was told that its peer is granted; none before that.
    granted: Option<Granted>,
}

#[derive(Default)]
struct State {
    half_open: HalfOpen,
    living: HashMap<u32, Living>,
    by_source: HashMap<Source, u32>,
    next: u32,
    /// Whether the task that works on handshakes runs.
    works: bool,
    /// Whether the task that looks after identities runs.
    watches: bool,
}

pub(crate) struct Channels {
    who: Arc<who::Who>,
    state: Mutex<State>,
    /// There is something for the task that works on handshakes.
    work: Notify,
    supervised: Mutex<BTreeMap<String, Supervised>>,
}

impl Channels {
    pub(crate) fn new(dir: &NodeDir) -> Channels {
        Channels {
            who: Arc::new(who::Who::new(dir.home(), dir.name().clone())),
            state: Mutex::default(),
            work: Notify::new(),
            supervised: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The number of the living channel with this local name.
    pub(crate) fn numbered(&self, name: &[u8]) -> Option<u32> {
        let state = self.state();
        state.living.iter().find(|(_, living)| living.address.as_bytes() == name).map(|(number, _)| *number)
    }

    /// The living channel with this local name: its number, who is at its other end, and what says that it ended; an error
    /// of that says so, too.
    pub(crate) fn follow(&self, name: &[u8]) -> Option<(u32, Identifier, oneshot::Receiver<ChannelEnd>)> {
        let mut state = self.state();
        let (number, living) = state.living.iter_mut().find(|(_, living)| living.address.as_bytes() == name)?;
        let (tell, told) = oneshot::channel();
        // Those who have stopped to follow.
        living.ended.retain(|ended| !ended.is_closed());
        living.ended.push(tell);
        Some((*number, living.peer, told))
    }

    /// The local name of a living channel's sending side, and who is at its other end.
    pub(crate) fn identity_of(&self, number: u32) -> Option<(String, Identifier)> {
        self.state().living.get(&number).map(|living| (living.address.clone(), living.peer))
    }

    /// The living channels, who is at their other ends, and what these are granted.
    pub(crate) fn granted(&self) -> Vec<(u32, Identifier, Option<Granted>)> {
        self.state().living.iter().map(|(number, living)| (*number, living.peer, living.granted)).collect()
    }

    /// Whether a channel is granted something that was to hold only until before `now`, in Unix time.
    pub(crate) fn has_lapsed(&self, now: u64) -> bool {
        let until = |living: &Living| living.granted.and_then(|granted| granted.until);
        self.state().living.values().filter_map(until).any(|until| until < now)
    }

    /// The engine was told what the peers of channels are granted.
    pub(crate) fn set_granted(&self, told: &[(u32, Granted)]) {
        let mut state = self.state();
        for (number, granted) in told {
            if let Some(living) = state.living.get_mut(number) {
                living.granted = Some(*granted);
            }
        }
    }

    /// An identity of ours shows this credential from now on, encoded, or none. Gives what tells peers so over channels that
    /// live.
    ///
    /// # Errors
    /// Those of the store and the vaults.
    pub(crate) async fn show(&self, own: Identifier, credential: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, Error> {
        let who = self.who.clone();
        blocking(move || who.show(own, credential)).await
    }

    /// What is known of an identity, ours or not.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn known(&self, identifier: Identifier) -> Result<Option<ChangeHistory>, Error> {
        let who = self.who.clone();
        blocking(move || who.known(&identifier)).await
    }

    /// The node's identity, if it has been needed.
    pub(crate) fn own_if_known(&self) -> Option<Identifier> {
        self.who.own_if_known()
    }

    /// The living channels in which this node is this identity.
    pub(crate) fn of_own(&self, own: &Identifier) -> Vec<u32> {
        self.state().those(|living| living.own == *own)
    }

    /// The peer of a channel shows its identity as it is now, encoded. It is remembered when it is news. This blocks.
    ///
    /// # Errors
    /// Why it is not the peer's, or not believed, as the end of a sentence.
    pub(crate) fn hear_history(&self, peer: &Identifier, encoded: &[u8]) -> Result<(), String> {
        self.who.hear_history(peer, encoded)
    }

    fn has_decryptor(&self, decryptor: &str) -> bool {
        self.state().living.values().any(|living| living.decryptor == decryptor)
    }

    /// Whether an address is that of a channel, alive or not.
    pub(crate) fn has_address(&self, address: &str) -> bool {
        lock(&self.supervised).contains_key(address) || self.numbered(address.as_bytes()).is_some()
    }

    /// The node's identity, if it has been needed.
    pub(crate) fn identifier(&self) -> Option<String> {
        self.who.own_if_known().map(|identifier| identifier.to_string())
    }

    /// Decides who the node is, if nobody has yet. When that cannot be done now, the first handshake tries again.
    pub(crate) async fn introduce(&self) {
        let who = self.who.clone();
        if let Err(error) = blocking(move || who.own()).await {
            tracing::warn!(%error, "the node has no identity yet");
        }
    }

    /// Why the node cannot prove who it is: its vault does not open, or its key is gone.
    pub(crate) async fn identity_problem(&self) -> Option<Error> {
        let who = self.who.clone();
        blocking(move || who.keys(None)).await.err()
    }

    // ---- what the engine says

    /// A message came for an address of control. Says whether it belongs to a handshake that a peer began.
    pub(crate) fn on_punt(
        &self,
        node: &Arc<Node>,
        engine: &EngineLink,
        link: Option<LinkId>,
        channel: Option<u32>,
        message: &[u8],
    ) -> bool {
        let source = match (link, channel) {
            (_, Some(channel)) => Source::Channel(channel),
            (Some(link), None) => Source::Link(link),
            (None, None) => Source::Inside,
        };
        responder::on_punt(node, engine, source, message)
    }

    /// A channel ended in the engine.
    pub(crate) fn on_closed(&self, engine: &EngineLink, number: u32, reason: ChannelEnd) {
        let Some(living) = self.state().remove(number) else { return };
        if reason != ChannelEnd::ByControl {
            tracing::info!(channel = living.address, peer = %living.peer, reason = reason.name(), "a secure channel ended");
        }
        for ended in living.ended {
            // Who supervises it may be gone.
            let _ = ended.send(reason);
        }
        if let Some(link) = living.link {
            let engine = engine.clone();
            tokio::spawn(async move { engine.close(link).await });
        }
        self.end_ways(engine, &living.address);
    }

    // ---- changes of what there is

    /// Takes over what an engine has: nothing, when it is new. Handshakes under way are over with the engine or the control
    /// that they were with. Gives the links that belong to living channels.
    pub(crate) async fn adopt(&self, node: &Arc<Node>, engine: &EngineLink, has: &Dump) -> BTreeSet<LinkId> {
        let desired = node.desired();
        let sessions = desired.sessions();
        let mut ending = Vec::new();
        let mut links = BTreeSet::new();
        {
            let mut state = self.state();
            let watches = state.watches;
            let works = state.works;
            *state = State { works, watches, half_open: std::mem::take(&mut state.half_open), ..State::default() };
            state.half_open.withdraw(|_| false);
            state.next = has.channels.iter().map(|found| found.channel).max().unwrap_or(0);
            for found in &has.channels {
                let address = String::from_utf8(found.encryptor.clone()).unwrap_or_default();
                let known = match node.cookies.open(&found.cookie) {
                    Some(Cookie::Channel { peer, own, expires_at, purpose }) => {
                        let stays = match &purpose {
                            Purpose::Listener(flow_control) => {
                                desired.channel_listeners.iter().any(|row| row.flow_control == *flow_control)
                            }
                            Purpose::Desired => sessions.contains(address.as_str()),
                            Purpose::Way(session) => sessions.contains(session.as_str()),
                            Purpose::Message => false,
                        };
                        let identifiers = peer.parse().ok().zip(own.parse().ok());
                        identifiers.filter(|_| stays).map(|(peer, own)| (peer, own, expires_at, purpose))
                    }
                    _ => None,
                };
                let Some((peer, own, expires_at, purpose)) = known else {
                    ending.push(found.channel);
                    continue;
                };
                let link = has.links.iter().find(|link| {
                    node.cookies.open(&link.cookie) == Some(Cookie::ChannelLink { channel: address.clone() })
                });
                links.extend(link.map(|link| link.link));
                let link = link.map(|link| link.link);
                let decryptor = String::from_utf8(found.decryptor.clone()).unwrap_or_default();
                let living = Living {
                    address,
                    decryptor,
                    peer,
                    own,
                    expires_at,
                    purpose,
                    source: None,
                    link,
                    ended: Vec::new(),
                    granted: None,
                };
                state.living.insert(found.channel, living);
            }
        }
        for channel in ending {
            tracing::warn!(channel, "ending a secure channel that this node does not have");
            retire_in(engine, channel).await;
        }
        links
    }

    /// The listeners are others now: what depended on one that is gone ends.
    pub(crate) async fn listeners_changed(&self, node: &Node, engine: &EngineLink) {
        let listeners = node.desired().channel_listeners;
        let stays = |flow_control: &str| listeners.iter().any(|row| row.flow_control == flow_control);
        let (gone, ending) = {
            let mut state = self.state();
            let gone = state.half_open.withdraw(|row| stays(&row.flow_control));
            state.half_open.keep_counts(stays);
            let ending = state.those(|living| matches!(&living.purpose, Purpose::Listener(it) if !stays(it)));
            (gone, ending)
        };
        clear(engine, gone);
        for number in ending {
            self.retire(engine, number).await;
        }
    }

    /// Installs a channel with what its peer is granted: `command` is complete but for that.
    async fn install(
        &self,
        node: &Arc<Node>,
        engine: &EngineLink,
        mut command: Command,
        peer: Identifier,
        judged: Option<Judged>,
    ) -> Result<(), CommandError> {
        // What is changed meanwhile is changed after it is there.
        let _passing = node.trust.passing().await;
        let is_news = judged.is_some_and(|judged| node.trust.hear(&peer, judged));
        if is_news && self.state().living.values().filter(|living| living.peer == peer).count() > 1 {
            // The other channels of this peer.
            let node = node.clone();
            tokio::spawn(async move { node.trust.decide_anew(&node).await });
        }
        let granted = node.trust.granted(&peer);
        if let Command::InstallChannel { channel, grants, .. } = &mut command {
            *grants = granted.grants(node.trust.clock.now());
            self.set_granted(&[(*channel, granted)]);
        }
        engine.install(command).await
    }

    /// Shows the peer of a channel whose handshake began at `since` what our identity shows by now: the credential in that handshake
    /// may be an older one, and the channel was not there when the others were shown the new one.
    async fn show_what_changed(&self, engine: &EngineLink, channel: u32, own: Identifier, since: Instant) {
        if !self.who.shows_other_since(&own, since) {
            return;
        }
        let who = self.who.clone();
        match blocking(move || who.refresh(own)).await {
            Ok(Some(text)) => self.show_to(engine, channel, text).await,
            Ok(None) => {}
            Err(error) => tracing::warn!(%own, %error, "a credential cannot be shown"),
        }
    }

    /// Shows the peer of a channel a credential: `text` is what tells it so.
    pub(crate) async fn show_to(&self, engine: &EngineLink, channel: u32, text: Vec<u8>) {
        let text = text.into();
        if let Err(error) = engine.apply(|request| Command::ShowCredentials { request, channel, text }).await {
            tracing::debug!(channel, %error, "a peer is not shown a credential");
        }
    }

    /// Ends a channel, tells the peer, and closes the link that was made for it.
    pub(crate) async fn retire(&self, engine: &EngineLink, number: u32) {
        let Some(living) = self.state().remove(number) else { return };
        retire_in(engine, number).await;
        if let Some(link) = living.link {
            engine.close(link).await;
        }
        self.end_ways(engine, &living.address);
    }

    /// Ends the channel with this local name, if it lives.
    pub(crate) async fn retire_addressed(&self, engine: &EngineLink, name: &str) {
        if let Some(number) = self.numbered(name.as_bytes()) {
            self.retire(engine, number).await;
        }
    }

    /// Ends a channel that gives way to another.
    fn shed(node: &Arc<Node>, engine: &EngineLink, number: u32) {
        tracing::warn!(number, "ending a secure channel: there are too many, and its peer has most of them");
        let (node, engine) = (node.clone(), engine.clone());
        tokio::spawn(async move { node.channels.retire(&engine, number).await });
    }

    /// Ends the channels through which the one with this address went.
    fn end_ways(&self, engine: &EngineLink, address: &str) {
        let ways: Vec<(u32, Living)> = {
            let mut state = self.state();
            // The far ones were made last, and end first.
            let mut ways = state.those(|living| matches!(&living.purpose, Purpose::Way(owner) if owner == address));
            ways.sort_unstable_by(|a, b| b.cmp(a));
            ways.into_iter().filter_map(|number| state.remove(number).map(|living| (number, living))).collect()
        };
        if ways.is_empty() {
            return;
        }
        let engine = engine.clone();
        tokio::spawn(async move {
            for (number, living) in ways {
                retire_in(&engine, number).await;
                if let Some(link) = living.link {
                    engine.close(link).await;
                }
            }
        });
    }

    /// Looks after identities for as long as anything depends on one.
    fn watch_identities(&self, node: &Arc<Node>) {
        if std::mem::replace(&mut self.state().watches, true) {
            return;
        }
        let node = Arc::downgrade(node);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(IDENTITIES_PAUSE).await;
                let Some(node) = node.upgrade() else { return };
                let channels = &node.channels;
                let used: HashSet<Identifier> = {
                    let mut state = channels.state();
                    if state.living.is_empty() && state.half_open.is_empty() && !channels.who.has_keys() {
                        state.watches = false;
                        return;
                    }
                    state.living.values().map(|living| living.own).collect()
                };
                if let Err(error) = node.channels.check_identities(&node, used).await {
                    tracing::warn!(%error, "cannot look whether identities are still there");
                }
            }
        });
    }

    /// Ends what depended on identities that are gone.
    async fn check_identities(&self, node: &Node, used: HashSet<Identifier>) -> Result<(), Error> {
        let who = self.who.clone();
        let deleted = blocking(move || who.deleted(used)).await?;
        let Some(engine) = node.engine_now().filter(|_| !deleted.is_empty()) else { return Ok(()) };
        let (ending, gone) = {
            let mut state = self.state();
            let gone = state.half_open.withdraw(|row| row.identity.is_none_or(|own| !deleted.contains(&own)));
            (state.those(|living| deleted.contains(&living.own)), gone)
        };
        clear(&engine.link, gone);
        for number in ending {
            tracing::warn!(number, "ending a secure channel whose identity was deleted");
            self.retire(&engine.link, number).await;
        }
        Ok(())
    }

    // ---- what there is

    /// Every channel; those that shall be first.
    pub(crate) fn infos(&self, node: &Node, dump: &Dump) -> Vec<SecureChannelInfo> {
        let mut infos = supervised::infos(self, node, dump);
        let desired = node.desired();
        let state = self.state();
        for found in &dump.channels {
            let Some(living) = state.living.get(&found.channel) else { continue };
            let Purpose::Listener(flow_control) = &living.purpose else { continue };
            let Some(listener) = desired.channel_listeners.iter().find(|row| row.flow_control == *flow_control) else {
                continue;
            };
            infos.push(SecureChannelInfo {
                address: living.address.clone(),
                role: ChannelRole::Responder,
                status: ChannelStatus::Open,
                route: None,
                listener: Some(listener.address.clone()),
                identifier: living.peer.to_string(),
                my_identifier: living.own.to_string(),
                authorized: Vec::new(),
                flow_control_id: flow_control.clone(),
                expires_at: living.expires_at,
                reopened: 0,
                error: None,
                sealed: found.traffic.sealed,
                opened: found.traffic.opened,
                refused: found.traffic.refused,
            });
        }
        infos
    }

    /// How many channels peers have open.
    pub(crate) fn accepted(&self) -> u64 {
        let state = self.state();
        state.living.values().filter(|living| matches!(living.purpose, Purpose::Listener(_))).count() as u64
    }

    /// A listener and what became of the handshakes there.
    pub(crate) fn listener_info(&self, row: &ChannelListenerRow) -> SecureChannelListenerInfo {
        let identifier = row.identity.or_else(|| self.who.own_if_known());
        let state = self.state();
        let (mut counts, half_open) = state.half_open.of_listener(row);
        let shed = counts.ended.remove(&End::Shed).unwrap_or(0);
        let own = |living: &&Living| matches!(&living.purpose, Purpose::Listener(it) if *it == row.flow_control);
        SecureChannelListenerInfo {
            address: row.address.clone(),
            flow_control_id: row.flow_control.clone(),
            identifier: identifier.map(|identifier| identifier.to_string()),
            authorized: row.authorized.iter().map(Identifier::to_string).collect(),
            channels: state.living.values().filter(own).count() as u64,
            half_open,
            accepted: counts.accepted,
            shed,
            refused: counts.ended.iter().map(|(why, count)| (why.name().to_owned(), *count)).collect(),
        }
    }
}

impl State {
    /// Enters a channel that is about to be installed. Gives its number, and that of a channel to be ended for it. `None`:
    /// there are as many as there may be, and no source has more than the one that asks.
    fn admit(&mut self, living: Living) -> Option<(u32, Option<u32>)> {
        let mut shed = None;
        if self.living.len() >= LIVING_MAX {
            let mine = living.source.and_then(|source| self.by_source.get(&source)).copied().unwrap_or(0);
            let (&biggest, _) =
                self.by_source.iter().filter(|(_, count)| **count > mine + 1).max_by_key(|(_, it)| **it)?;
            let theirs = self.living.iter().filter(|(_, other)| other.source == Some(biggest));
            // Numbers grow, as far as this is concerned.
            shed = Some(theirs.map(|(number, _)| *number).min()?);
        }
        // Numbers come round after four thousand million channels.
        loop {
            self.next = self.next.wrapping_add(1);
            if !self.living.contains_key(&self.next) {
                break;
            }
        }
        if let Some(source) = living.source {
            *self.by_source.entry(source).or_default() += 1;
        }
        self.living.insert(self.next, living);
        Some((self.next, shed))
    }

    fn remove(&mut self, number: u32) -> Option<Living> {
        let living = self.living.remove(&number)?;
        if let Some(source) = living.source
            && let Some(count) = self.by_source.get_mut(&source)
        {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(&source);
            }
        }
        Some(living)
    }

    fn those(&self, which: impl Fn(&Living) -> bool) -> Vec<u32> {
        self.living.iter().filter(|(_, living)| which(living)).map(|(number, _)| *number).collect()
    }
}

/// The identity of ours with this name, or the node's.
///
/// # Errors
/// [`Error::NoSuchIdentity`], and those of the store and the vaults.
pub(crate) async fn own(node: &Node, name: Option<&str>) -> Result<Identifier, Error> {
    let (who, name) = (node.channels.who.clone(), name.map(str::to_owned));
    blocking(move || who.named(name.as_deref())).await
}

/// Reads identifiers that came over the API. `argument` names the field in errors.
///
/// # Errors
/// [`Error::BadArgument`].
pub(crate) fn read_list(argument: &str, texts: &[String]) -> Result<Vec<Identifier>, Error> {
    if texts.len() > AUTHORIZED_MAX {
        return Err(Error::BadArgument {
            argument: argument.into(),
            value: format!("{} identifiers", texts.len()),
            why: "are too many".into(),
            fix: format!("Give at most {AUTHORIZED_MAX}."),
        });
    }
    let read = |text: &String| {
        text.parse().map_err(|error: ockam_crypto::InvalidIdentifier| Error::BadArgument {
            argument: argument.into(),
            value: crate::text::escape(text.as_bytes(), 100),
            why: format!("is no identifier: {error}"),
            fix: "`ockam identity show` prints identifiers.".into(),
        })
    };
    texts.iter().map(read).collect()
}

/// Reads one list for each of `count` channels; missing ones admit anybody.
///
/// # Errors
/// [`Error::BadArgument`].
pub(crate) fn read_lists(argument: &str, lists: &[Vec<String>], count: usize) -> Result<Vec<Vec<Identifier>>, Error> {
    if lists.len() > count {
        return Err(Error::BadArgument {
            argument: argument.into(),
            value: format!("{} lists", lists.len()),
            why: format!("are more than the {count} secure channels on the way"),
            fix: "Give one list for each /secure part of the route.".into(),
        });
    }
    let mut read = lists.iter().map(|list| read_list(argument, list)).collect::<Result<Vec<_>, _>>()?;
    read.resize(count, Vec::new());
    Ok(read)
}

/// Ends a channel in the engine; one that is gone already stays so.
async fn retire_in(engine: &EngineLink, channel: u32) {
    if let Err(error) = engine.apply(|request| Command::RetireChannel { request, channel, close: true }).await {
        tracing::debug!(channel, %error, "no secure channel to end");
    }
}

/// Clears the addresses of handshakes that are over.
fn clear(engine: &EngineLink, gone: Vec<Gone>) {
    if gone.is_empty() {
        return;
    }
    let engine = engine.clone();
    tokio::spawn(async move {
        for Gone { decryptor } in gone {
            let address = decryptor.into_bytes();
            // One for which message 2 was never written has no address yet.
            if let Err(error) = engine.apply(|request| Command::ClearAddress { request, address: address.into() }).await
            {
                tracing::trace!(%error, "no address to clear");
            }
        }
    });
}

/// Runs what blocks where it disturbs nobody.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::internal(format!("work on identities failed: {error}"))))
}

/// Seconds since 1970.
fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Milliseconds from now until the last second of both keys is over.
fn lifetime_ms(expires_at: u64) -> u64 {
    expires_at.saturating_add(1).saturating_sub(unix_now()).saturating_mul(1000)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(crate) mod tests;
