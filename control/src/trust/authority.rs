//! The way to the node of this node's authority: a session that keeps it open, requests along it, and the list of
//! revocations, which is waited for there.

use super::shown::{MEET_PAUSE_MAX, MEET_PAUSE_MIN};
use super::{Trust, authority_route};
use crate::api::{AuthorityInfo, RevocationsInfo};
use crate::authority::bodies::AwaitRevocations;
use crate::authority::envelope::{Method, Request as Envelope, Response};
use crate::error::Error;
use crate::messages::{Outcome, Patience, ReplyAddress, Request};
use crate::node::Node;
use crate::sessions::{self, Session, State, Up};
use crate::store::AuthorityRow;
use ockam_crypto::{AttestationError, Identifier, IssuerError, RevocationError, RevocationList};
use ockam_engine_abi::DropReason;
use ockam_wire::Address;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;

/// How long an answer of the authority may take, in milliseconds.
pub(super) const ANSWER_LIMIT_MS: u64 = 15_000;

/// The same for the list of revocations: the authority answers after 20 s when it has no later one.
const LIST_LIMIT_MS: u64 = 30_000;

/// Pauses after questions for the list that failed. An authority of another make never answers them.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// How long it may take to meet the authority.
const MEET_LIMIT: Duration = Duration::from_secs(20);

/// How long the end of a way may take to be known everywhere.
const LOST_PAUSE: Duration = Duration::from_millis(250);

/// The services of an authority's node, and what they do (`wire.md` D.5; the second is ours alone).
pub(super) const CREDENTIAL_ISSUER: (&str, &str) = ("credential_issuer", "issue a credential");
const REVOCATION_LIST: (&str, &str) = ("revocation_list", "say whose credentials are revoked");

/// The way to the authority as one of our identities.
pub(super) fn plan(row: &AuthorityRow, id: String, own: Identifier) -> Result<sessions::Plan, Error> {
    let route = authority_route(&row.route)?;
    let authorized = vec![row.history.identifier()];
    Ok(sessions::Plan { authorized, own: Some(own), ..sessions::Plan::to(id, &route) })
}

/// Asks a service of the authority's node along a way that is open. Gives the body of the answer, if it has one.
///
/// # Errors
/// [`Error::AuthorityRefused`], [`Error::NoReply`], [`Error::ChannelLost`], [`Error::Undelivered`],
/// [`Error::PeerMisbehaved`], and those of the engine.
pub(super) async fn ask(
    node: &Arc<Node>,
    up: &Up,
    (service, what): (&'static str, &'static str),
    body: Option<&[u8]>,
    limit_ms: u64,
) -> Result<Option<Vec<u8>>, Error> {
    let engine = node.engine().await?;
    let patience = Patience::new(limit_ms, &format!("the authority's service {service}"))?;
    let mut request = Request::begin(node, &engine, ReplyAddress::of_message()).await?;
    if let Some(channel) = up.channel {
        request.follow(channel);
    }
    let onward = [&up.way[..], &[Address::local(service.as_bytes().to_vec())]].concat();
    request.send(&onward, &Envelope::new(Method::Post, "/", body).to_payload(), &patience).await?;
    let encoded = match request.outcome(&patience).await? {
        Outcome::Reply(encoded) => encoded,
        Outcome::Undelivered(reason, _) => {
            let (step, place) = (format!("/service/{service}"), "the authority's node".into());
            return Err(Error::Undelivered { step, place, reason });
        }
        Outcome::LinkDown(reason) => {
            let peer = "the authority's node".into();
            return Err(Error::LinkLost { peer, why: reason.name().replace('_', " ") });
        }
        Outcome::ChannelEnded(reason) => return Err(Error::ChannelLost { why: reason.name().replace('_', " ") }),
    };
    let misbehaved = |why: String| Error::PeerMisbehaved { peer: "the authority".into(), why };
    let message = ockam_wire::Message::parse(&encoded).map_err(|_| misbehaved("sent what is no message".into()))?;
    let response =
        Response::parse(message.payload).map_err(|error| misbehaved(format!("sent what is no answer: {error}")))?;
    match response.success() {
        Ok([]) => Ok(None),
        Ok(body) => Ok(Some(body.to_vec())),
        Err(refusal) => Err(Error::AuthorityRefused {
            what,
            why: refusal.message,
            status: refusal.status.map_or(0, |status| status.0),
        }),
    }
}

/// What is known of the way to the authority.
#[derive(Default)]
pub(super) struct Authority {
    session: Option<Session>,
    /// When the authority last said that there is no later list, in Unix time.
    checked_at: u64,
    /// What was wrong with the last list, or the question for it.
    error: Option<String>,
}

impl Trust {
    /// Keeps the way to the authority open, and waits there for revocations.
    pub(super) fn follow_authority(&self, node: &Arc<Node>, row: &AuthorityRow, own: Identifier) {
        let plan = match plan(row, row.session.clone(), own) {
            Ok(plan) => plan,
            // It was read when it was stored.
            Err(error) => return tracing::error!(%error, "the route to the authority is none"),
        };
        let mut way = self.way();
        if way.session.is_none() {
            let session = sessions::start(node, plan);
            tokio::spawn(follow(Arc::downgrade(node), session.watch()));
            way.session = Some(session);
        }
    }

    /// How the way to the authority is, while somebody keeps it open.
    pub(super) fn authority_way(&self) -> Option<watch::Receiver<State>> {
        self.way().session.as_ref().map(Session::watch)
    }

    /// What people want to know of the node's authority.
    pub(crate) fn authority_info(&self, node: &Node) -> Option<AuthorityInfo> {
        let (row, list) = {
            let state = self.state();
            (state.authority.clone()?, state.revocations.clone())
        };
        let (own, credential_error) = self.own_info(node);
        let way = self.way();
        let state = way.session.as_ref().map(Session::state);
        let unreachable = match &state {
            Some(State::Up(_)) => None,
            Some(State::Down { why: Some(why) } | State::Stopped { why }) => Some(why.to_string()),
            _ if row.route.is_empty() => None,
            Some(State::Down { why: None }) | None => Some("its node has not answered yet".into()),
        };
        let behind = self.clock.behind();
        let clock = (behind > 60).then(|| {
            format!("this machine's clock is {behind} s behind the latest time that the node has seen; that one counts")
        });
        Some(AuthorityInfo {
            identifier: row.history.identifier().to_string(),
            route: row.route.clone(),
            scope: row.scope.clone(),
            reachable: matches!(state, Some(State::Up(_))),
            revocations: (list.is_some() || way.checked_at != 0).then(|| RevocationsInfo {
                number: list.as_ref().map_or(0, |list| list.number()),
                revoked: list.as_ref().map_or(0, |list| list.entries().len() as u64),
                checked_at: way.checked_at,
            }),
            credential_expires_at: own,
            error: clock.or(credential_error).or(unreachable).or_else(|| way.error.clone()),
        })
    }

    /// Takes up a list of revocations if it is later than the one that is known. Says whether it is.
    ///
    /// # Errors
    /// Why it is none, as the end of a sentence; those of the store.
    pub(super) async fn take_up(&self, node: &Arc<Node>, encoded: Vec<u8>) -> Result<bool, String> {
        let now = self.clock.now();
        let (history, known) = {
            let state = self.state();
            let Some(authority) = &state.authority else { return Ok(false) };
            (authority.history.clone(), state.revocations.as_ref().map_or(0, |list| list.number()))
        };
        let issuer = history.clone();
        let verified = tokio::task::spawn_blocking(move || RevocationList::verify(&encoded, &issuer, now)).await;
        let list = match verified {
            Ok(Ok(list)) => list,
            Ok(Err(error)) => {
                let by_another = IssuerError::Attestation(AttestationError::NotByTheLatestKey);
                if error == RevocationError::Issuer(by_another) {
                    self.meet_soon();
                }
                return Err(error.to_string());
            }
            Err(error) => return Err(error.to_string()),
        };
        if list.number() <= known {
            return Ok(false);
        }
        {
            let mut store = node.store().await;
            // Durable before it is in force: what was revoked once stays so.
            store.set_revocation_list(&list, &history, now).map_err(|error| error.to_string())?;
        }
        tracing::info!(number = list.number(), revoked = list.entries().len(), "the authority has revoked credentials");
        self.state().revocations = Some(Arc::new(list));
        Ok(true)
    }
}

/// Opens a channel to the authority, to see what its key is: a channel that lives does not say.
pub(super) async fn meet(node: Arc<Node>) {
    {
        let mut state = node.trust.state();
        state.wants_to_meet = false;
        // In vain, unless it is another one.
        state.meet_pause = (2 * state.meet_pause).clamp(MEET_PAUSE_MIN, MEET_PAUSE_MAX);
    }
    let (Some(row), Some(own)) = (node.trust.asked(), node.channels.own_if_known()) else { return };
    let Ok(plan) = plan(&row, crate::random::hex_id(), own) else { return };
    let session = sessions::start(&node, plan);
    let mut way = session.watch();
    let opened = tokio::time::timeout(MEET_LIMIT, way.wait_for(|state| matches!(state, State::Up(_)))).await.is_ok();
    if !opened {
        tracing::debug!("the authority cannot be met");
        node.trust.state().wants_to_meet = true;
    }
    session.end(&node).await;
}

/// Waits for lists of revocations for as long as the node lives.
async fn follow(node: Weak<Node>, mut way: watch::Receiver<State>) {
    let mut pause = PAUSE_MIN;
    loop {
        let opened = way.wait_for(|state| matches!(state, State::Up(_))).await.map(|state| state.clone());
        let up = match opened {
            Ok(State::Up(up)) => up,
            Ok(_) => continue,
            Err(_) => return,
        };
        let Some(node) = node.upgrade() else { return };
        let number = node.trust.state().revocations.as_ref().map_or(0, |list| list.number());
        let body = crate::authority::bodies::write(&AwaitRevocations { number });
        let asked = ask(&node, &up, REVOCATION_LIST, Some(&body), LIST_LIMIT_MS).await;
        let error = match asked {
            Ok(None) => None,
            Ok(Some(encoded)) => match node.trust.take_up(&node, encoded).await {
                Ok(true) => {
                    node.trust.decide_anew(&node).await;
                    node.trust.own_revoked();
                    None
                }
                // It was asked for a later one.
                Ok(false) => {
                    Some("the authority sent a list of revocations that is not later than the known one".into())
                }
                Err(why) => Some(format!("the authority's list of revocations is not believed: {why}")),
            },
            // The session sees to it, or the next engine.
            Err(Error::ChannelLost { .. } | Error::LinkLost { .. } | Error::EngineAway { .. }) => {
                drop(node);
                tokio::time::sleep(LOST_PAUSE).await;
                continue;
            }
            Err(Error::NoReply { .. }) => Some("the authority offers no list of revocations".into()),
            Err(Error::Undelivered { reason: DropReason::NoSuchAddress | DropReason::NotDelivered, .. }) => {
                Some("the authority offers no list of revocations".into())
            }
            Err(error) => Some(format!("the authority's list of revocations cannot be had: {error}")),
        };
        pause = match &error {
            None => PAUSE_MIN,
            Some(_) => (2 * pause).min(PAUSE_MAX),
        };
        let is_well = error.is_none();
        {
            let mut way = node.trust.way();
            if is_well {
                way.checked_at = node.trust.clock.now();
            }
            if let Some(why) = error.as_ref().filter(|_| way.error != error) {
                tracing::warn!(why, "revocations are not followed; credentials end when they expire");
            }
            way.error = error;
        }
        drop(node);
        if !is_well {
            tokio::time::sleep(pause).await;
        }
    }
}
