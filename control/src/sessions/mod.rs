//! Ways that shall be open: a link, the secure channels over it, and the nodes behind them. A way is opened again whenever
//! it ends, until nobody wants it any more.
//!
//! ```text
//!   start ──► Down ──opened──► Up ──ended, or three questions without an answer──► Down
//!              │ ▲
//!              └─┘ back-off with jitter
//!              └──another identity than before──► Stopped
//! ```
//!
//! Inlets, relays and the channels of `secure-channel create` each have a session. What ended is known at once when the
//! engine saw it end. What became silent is known by `echo` at the far end (`wire.md` F.6).

mod way;

pub(crate) use way::{Opened, ask, missing};

use crate::engine_link::Dump;
use crate::engine_link::cookie::Cookie;
use crate::error::Error;
use crate::messages::Patience;
use crate::node::Node;
use crate::route::{Route, Step};
use ockam_crypto::Identifier;
use ockam_engine_abi::{CloseReason, DropReason, LinkId};
use ockam_wire::Address;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use way::OpenWay;

/// How long tries to open a way may take while nothing is heard, in turn. The first not long: a real node on the way that has
/// just come back drops in silence what it cannot forward yet. The others longer, since the way may be that slow.
const TRY_LIMITS_MS: [u64; 3] = [1_000, 5_000, 10_000];
/// A way that was opened before is known to take some time: tries may take so many times that, and no less than
/// [`KNOWN_LIMIT_MIN`]. So tries follow one another fast enough that it is open within a second after the far end is back,
/// though a node on the way may not say that it is away.
const KNOWN_TIMES: u32 = 16;
const KNOWN_LIMIT_MIN: Duration = Duration::from_millis(500);
/// One of so many such tries takes the longest time: the way may have become slower.
const KNOWN_TRIES: usize = 64;

/// Pauses between tries; each is between half of this and all of it.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest when the far end says no, which it will say again.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(10);
/// The longest when nothing was heard: the try itself took its time.
const PAUSE_MAX_SILENT: Duration = Duration::from_secs(5);
/// The longest when it was seen that nobody is there: such a try costs little, and shall find the far end within a second
/// after it has come back.
const PAUSE_MAX_GONE: Duration = Duration::from_millis(500);

/// Most lines in the log about one way in such a time.
const LOG_PERIOD: Duration = Duration::from_secs(60);
const LOG_LINES_MAX: u32 = 6;

/// A way that was open this long is opened again at once.
const STEADY: Duration = Duration::from_secs(5);

/// How often the far end is asked whether it is there, which is also how long it may think.
const ASK_PAUSE: Duration = Duration::from_secs(5);
/// Questions without an answer after which a way is down.
const MISSED_MAX: u32 = 3;
/// How long those after the first of them wait: all together, and the new way, stay below 20 s.
const NEXT_ASK_LIMIT: Duration = Duration::from_millis(2_500);
/// Somebody who doubts the way does not make it asked more often than this.
const CHECK_PAUSE: Duration = Duration::from_secs(1);

/// A way that shall be open.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The name of the session, 32 hexadecimal digits, which its owner stores: the address of its last channel, and on the
    /// cookies of what it opens, so that a later control takes over what lives.
    pub(crate) id: String,
    /// The whole route, for people.
    pub(crate) text: String,
    /// The route to each listener of secure channels.
    pub(crate) legs: Vec<Route>,
    /// The route from there on. Its last step is the destination, which is no part of the way.
    pub(crate) rest: Option<Route>,
    /// Of which the peer at the end of the last channel must have one; anyone's when empty.
    pub(crate) authorized: Vec<Identifier>,
    /// The same for each channel before that.
    pub(crate) on_the_way: Vec<Vec<Identifier>>,
    /// Who this node says it is. Needed where there is a channel.
    pub(crate) own: Option<Identifier>,
    /// Who was met at the end of the last channel before, and must be met again.
    pub(crate) peer: Option<Identifier>,
    /// The longest pause between tries, if that shall be shorter than usual.
    pub(crate) pause_max: Duration,
}

impl Plan {
    /// The way to the last step of `route`: an outlet, a service that makes relays.
    pub(crate) fn to(id: String, route: &Route) -> Plan {
        let mut legs = route.legs();
        let rest = legs.pop();
        Plan::new(id, route, legs, rest)
    }

    /// The channel that is opened at the last step of `route`.
    pub(crate) fn channel(id: String, route: &Route) -> Plan {
        Plan::new(id, route, route.legs(), None)
    }

    fn new(id: String, route: &Route, legs: Vec<Route>, rest: Option<Route>) -> Plan {
        Plan {
            id,
            text: route.steps().iter().map(Step::to_string).collect(),
            legs,
            rest,
            authorized: Vec::new(),
            on_the_way: Vec::new(),
            own: None,
            peer: None,
            pause_max: PAUSE_MAX,
        }
    }

    /// How many secure channels it has.
    pub(crate) fn channels(&self) -> usize {
        self.legs.len()
    }
}

/// How a way is.
#[derive(Debug, Clone)]
pub(crate) enum State {
    /// It is being opened.
    Down {
        /// Why it was not open the last time that it was tried.
        why: Option<Error>,
    },
    /// It is open.
    Up(Up),
    /// It is not opened again.
    Stopped {
        /// Why.
        why: Error,
    },
}

/// A way that is open.
#[derive(Debug, Clone)]
pub(crate) struct Up {
    /// Where to send what shall go along it, in front of the destination. Empty: the destination is at this node.
    pub(crate) way: Vec<Address>,
    /// Who is at the end of its last channel.
    pub(crate) peer: Option<Identifier>,
    /// The link that it begins with, if the session dialed it and it has no channel.
    pub(crate) link: Option<LinkId>,
    /// The channel that it begins with.
    pub(crate) channel: Option<u32>,
}

/// What keeps a way open.
pub(crate) struct Session {
    id: String,
    state: watch::Receiver<State>,
    shared: Arc<Shared>,
    task: AbortHandle,
    /// It began with a way that was open.
    began_open: bool,
}

#[derive(Default)]
struct Shared {
    /// Somebody doubts that the far end is there.
    check: Notify,
    opened: AtomicU64,
}

impl Session {
    /// How the way is, now and whenever that changes.
    pub(crate) fn watch(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// How the way is now.
    pub(crate) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// How often the way was opened again.
    pub(crate) fn reopened(&self) -> u64 {
        self.shared.opened.load(Ordering::Relaxed).saturating_sub(u64::from(!self.began_open))
    }

    /// Asks soon whether the far end is there.
    pub(crate) fn check(&self) {
        self.shared.check.notify_one();
    }

    /// Ends it, and what it has opened.
    pub(crate) async fn end(&self, node: &Arc<Node>) {
        // What it was about to open ends with it.
        self.task.abort();
        let Some(engine) = node.engine_now() else { return };
        if let State::Up(Up { link: Some(link), .. }) = self.state() {
            engine.link.close(link).await;
        }
        node.channels.retire_addressed(&engine.link, &self.id).await;
    }
}

/// Takes up a way: one that lives already, or one that is to be opened.
pub(crate) fn start(node: &Arc<Node>, plan: Plan) -> Session {
    let living = way::living(node, &plan);
    begin(node, plan, living, true)
}

/// Takes up a way that was opened just now ([`open`]).
pub(crate) fn take_over(node: &Arc<Node>, plan: Plan, opened: Opened) -> Session {
    begin(node, plan, Some(opened.keep()), false)
}

fn begin(node: &Arc<Node>, plan: Plan, living: Option<OpenWay>, asks_at_once: bool) -> Session {
    let first = match &living {
        Some(open) => State::Up(open.up()),
        None => State::Down { why: None },
    };
    let (tell, state) = watch::channel(first);
    let shared = Arc::new(Shared::default());
    let (id, began_open) = (plan.id.clone(), living.is_some());
    let first_pause = if asks_at_once { Duration::ZERO } else { jittered(ASK_PAUSE) };
    let task = tokio::spawn(supervise(Arc::downgrade(node), plan, living, first_pause, tell, shared.clone()));
    Session { id, state, shared, task: task.abort_handle(), began_open }
}

/// Opens the way of a plan once: it ends when this is dropped, or goes on with [`take_over`].
///
/// # Errors
/// Those of dialing and of secure channels; [`Error::IdentityChanged`].
pub(crate) async fn open(node: &Arc<Node>, plan: &Plan, patience: &Patience) -> Result<Opened, Error> {
    let engine = node.engine().await?;
    way::open(node, &engine, plan, plan.peer, patience).await
}

/// Keeps a way open.
async fn supervise(
    node: Weak<Node>,
    plan: Plan,
    mut living: Option<OpenWay>,
    mut first_pause: Duration,
    tell: watch::Sender<State>,
    shared: Arc<Shared>,
) {
    let mut pause = Duration::ZERO;
    let mut said = None;
    let mut silent_tries = 0;
    let mut took = None;
    let mut peer = plan.peer.or(living.as_ref().and_then(|open| open.up().peer));
    loop {
        if let Some(mut open) = living.take() {
            let since = Instant::now();
            let why = while_open(&node, &plan, &mut open, first_pause, &shared.check).await;
            pause = if since.elapsed() >= STEADY { Duration::ZERO } else { pause };
            if is_news(&mut said) {
                tracing::info!(session = plan.id, route = plan.text, %why, "a way is down");
            }
            tell.send_replace(State::Down { why: Some(why) });
            let Some(node) = node.upgrade() else { return };
            // What has not ended by itself does not answer.
            open.release(&node).await;
        }
        tokio::time::sleep(jittered(pause)).await;
        let limit = try_limit(took, silent_tries);
        let began = Instant::now();
        let opened = {
            let Some(node) = node.upgrade() else { return };
            async {
                let engine = node.engine().await?;
                let patience = Patience::new(limit.as_millis() as u64, &plan.text)?;
                way::open(&node, &engine, &plan, peer, &patience).await
            }
            .await
        };
        match opened {
            Ok(opened) => {
                let open = opened.keep();
                let up = open.up();
                peer = peer.or(up.peer);
                if is_news(&mut said) {
                    tracing::info!(session = plan.id, route = plan.text, "a way is open");
                }
                shared.opened.fetch_add(1, Ordering::Relaxed);
                living = Some(open);
                first_pause = jittered(ASK_PAUSE);
                took = Some(began.elapsed());
                silent_tries = 0;
                pause = (2 * pause).clamp(PAUSE_MIN, PAUSE_MAX_GONE);
                tell.send_replace(State::Up(up));
            }
            Err(why @ Error::IdentityChanged { .. }) => {
                tracing::error!(session = plan.id, route = plan.text, %why, "a way is not opened again");
                tell.send_replace(State::Stopped { why });
                return;
            }
            Err(why) => {
                // Once for each time that it is down, and for each new reason.
                let is_another = match &*tell.borrow() {
                    State::Down { why: Some(before) } => before.code() != why.code(),
                    _ => true,
                };
                if is_another && is_news(&mut said) {
                    tracing::warn!(session = plan.id, route = plan.text, %why, "a way cannot be opened yet");
                }
                let mut longest = pause_limit(&why);
                if longest == PAUSE_MAX_SILENT {
                    silent_tries += 1;
                    // Such a try was short.
                    longest = if took.is_some() { PAUSE_MAX_GONE } else { longest };
                } else {
                    silent_tries = 0;
                }
                pause = (2 * pause).clamp(PAUSE_MIN, longest.min(plan.pause_max).max(PAUSE_MIN));
                tell.send_replace(State::Down { why: Some(why) });
            }
        }
    }
}

/// How long the next try to open a way may take: one that took so long to open before, after so many silent tries.
fn try_limit(took: Option<Duration>, silent_tries: usize) -> Duration {
    let [first, .., longest] = TRY_LIMITS_MS.map(Duration::from_millis);
    match took {
        Some(_) if silent_tries % KNOWN_TRIES == KNOWN_TRIES - 1 => longest,
        Some(took) if silent_tries == 0 => (KNOWN_TIMES * took).clamp(first, longest),
        Some(took) => (KNOWN_TIMES * took).clamp(KNOWN_LIMIT_MIN, longest),
        None => Duration::from_millis(TRY_LIMITS_MS[silent_tries % TRY_LIMITS_MS.len()]),
    }
}

/// Whether what becomes of a way is worth a line in the log: one that comes and goes says so now and then.
fn is_news(said: &mut Option<(Instant, u32)>) -> bool {
    let (since, lines) = said.filter(|(since, _)| since.elapsed() < LOG_PERIOD).unwrap_or((Instant::now(), 0));
    *said = Some((since, lines + 1));
    lines < LOG_LINES_MAX
}

/// Waits until a way is no longer open, and says why.
async fn while_open(
    node: &Weak<Node>,
    plan: &Plan,
    open: &mut OpenWay,
    first_pause: Duration,
    check: &Notify,
) -> Error {
    let mut next = Instant::now() + first_pause;
    let mut missed = 0;
    loop {
        tokio::select! {
            why = open.ended() => return why,
            () = tokio::time::sleep_until(next) => {}
            () = check.notified() => {}
        }
        let asked_at = Instant::now();
        let limit = if missed == 0 { ASK_PAUSE } else { NEXT_ASK_LIMIT };
        let question = open.question();
        let asked = async {
            // The node is not kept for as long as nobody answers.
            let (node, engine) = (node.upgrade()?, question.engine.clone());
            Some(way::ask_far_end(&node, &engine, plan, &question, limit).await)
        };
        let answered = tokio::select! {
            why = open.ended() => return why,
            answered = asked => answered,
        };
        match answered {
            None => return Error::internal("the node ends"),
            Some(Ok(())) => missed = 0,
            Some(Err(Error::NoReply { .. })) => {
                missed += 1;
                if missed == MISSED_MAX {
                    return Error::WayLost { why: format!("the far end does not answer: {missed} questions in a row") };
                }
            }
            // It says nothing of the far end; when the engine is gone, so is the way.
            Some(Err(error @ (Error::Limit { .. } | Error::EngineRefused { .. } | Error::BadData { .. }))) => {
                tracing::debug!(session = plan.id, %error, "the far end of a way cannot be asked");
            }
            Some(Err(why)) => return why,
        }
        next = if missed == 0 { asked_at + ASK_PAUSE } else { Instant::now() };
        // Whoever doubts it now waits a moment.
        let rest = tokio::time::sleep_until(next.min(asked_at + CHECK_PAUSE));
        tokio::select! {
            why = open.ended() => return why,
            () = rest => {}
        }
    }
}

/// How long to wait at most before the next try, after one that failed so.
fn pause_limit(why: &Error) -> Duration {
    use crate::error::AttemptFailure;
    match why {
        Error::ConnectFailed { attempts, .. } => {
            let all_silent = attempts.iter().all(|attempt| attempt.failure == AttemptFailure::TimedOut);
            if all_silent { PAUSE_MAX_SILENT } else { PAUSE_MAX_GONE }
        }
        Error::LinkLost { .. } | Error::ChannelLost { .. } | Error::EngineAway { .. } => PAUSE_MAX_GONE,
        Error::Undelivered { reason, .. } => match reason {
            DropReason::NotDelivered
            | DropReason::NoSuchAddress
            | DropReason::ConnectFailed
            | DropReason::NotANode
            | DropReason::LinkClosed
            | DropReason::ChannelClosed => PAUSE_MAX_GONE,
            DropReason::ConnectTimedOut | DropReason::Unresolved => PAUSE_MAX_SILENT,
            _ => PAUSE_MAX,
        },
        Error::NoReply { .. } | Error::Unresolved { .. } => PAUSE_MAX_SILENT,
        _ => PAUSE_MAX,
    }
}

/// So that many that lost their peer at once do not come back at once.
pub(crate) fn jittered(pause: Duration) -> Duration {
    let [random] = crate::random::bytes::<1>();
    pause / 2 + pause.mul_f64(f64::from(random) / 510.0)
}

/// What sessions have to do with links.
#[derive(Default)]
pub(crate) struct Sessions {
    state: Mutex<Links>,
}

#[derive(Default)]
struct Links {
    /// Who is told of the end of a link.
    ends: HashMap<LinkId, oneshot::Sender<CloseReason>>,
    /// Links that an engine had already, by session.
    adopted: HashMap<String, (LinkId, Vec<u8>)>,
}

impl Sessions {
    fn state(&self) -> MutexGuard<'_, Links> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A link is gone.
    pub(crate) fn on_link_down(&self, link: LinkId, reason: CloseReason) {
        if let Some(ended) = self.state().ends.remove(&link) {
            // Who waited may be gone.
            let _ = ended.send(reason);
        }
    }

    fn follow(&self, link: LinkId) -> oneshot::Receiver<CloseReason> {
        let (tell, told) = oneshot::channel();
        self.state().ends.insert(link, tell);
        told
    }

    fn forget(&self, link: LinkId) {
        self.state().ends.remove(&link);
    }

    fn take_adopted(&self, session: &str) -> Option<(LinkId, Vec<u8>)> {
        self.state().adopted.remove(session)
    }

    /// Takes over the links that an engine has: nothing, when it is new. Gives those that belong to sessions that shall be.
    pub(crate) fn adopt(&self, node: &Node, has: &Dump, shall_be: &BTreeSet<&str>) -> BTreeSet<LinkId> {
        let mut state = self.state();
        *state = Links::default();
        for found in &has.links {
            if let Some(Cookie::SessionLink { session }) = node.cookies.open(&found.cookie)
                && shall_be.contains(session.as_str())
            {
                // Of two the later one was to replace the other.
                state.adopted.insert(session, (found.link, found.address.clone()));
            }
        }
        state.adopted.values().map(|(link, _)| *link).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_that_comes_and_goes_says_so_now_and_then() {
        let mut said = None;
        assert_eq!((0..100).filter(|_| is_news(&mut said)).count(), LOG_LINES_MAX as usize);
        said = said.and_then(|(since, lines)| Some((since.checked_sub(LOG_PERIOD)?, lines)));
        assert!(is_news(&mut said));
    }

    #[test]
    fn a_known_way_is_tried_again_and_again_within_a_second() {
        let ms = Duration::from_millis;
        let unknown: Vec<Duration> = (0..4).map(|tries| try_limit(None, tries)).collect();
        assert_eq!(unknown, [ms(1_000), ms(5_000), ms(10_000), ms(1_000)]);
        let limits: Vec<Duration> = (0..2 * KNOWN_TRIES).map(|tries| try_limit(Some(ms(20)), tries)).collect();
        assert_eq!(limits[0], ms(1_000));
        // The one of which the far end heard nothing, the pause before the next.
        let quick = limits.iter().filter(|limit| **limit + PAUSE_MAX_GONE <= ms(1_000)).count();
        assert_eq!(quick, limits.len() - 3);
        assert_eq!(limits[KNOWN_TRIES - 1], ms(10_000), "it may have become slower");
        // A slow one has its time.
        assert_eq!(try_limit(Some(ms(200)), 1), ms(3_200));
        assert_eq!(try_limit(Some(ms(3_000)), 1), ms(10_000));
    }

    #[test]
    fn pauses_grow_to_a_limit_and_spread() {
        assert_eq!(jittered(Duration::ZERO), Duration::ZERO);
        let pauses: Vec<Duration> = (0..100).map(|_| jittered(PAUSE_MAX)).collect();
        assert!(pauses.iter().all(|pause| (PAUSE_MAX / 2..=PAUSE_MAX).contains(pause)));
        assert!(pauses.iter().any(|pause| *pause != pauses[0]));
    }
}
