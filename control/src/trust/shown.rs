//! What peers show: credentials in handshakes, and later ones over channels that live (`wire.md` E.3, E.7, D.4).

use super::Trust;
use crate::channels::Budget;
use crate::node::Node;
use ockam_crypto::{
    AttestationError, Attributes, ChangeHistory, Comparison, Credential, CredentialError, Credentials, Identifier,
    IssuerError, Peer, RevocationList, parse_refresh,
};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many of a peer's credentials are looked at: each costs the verification of two signatures.
const LOOKED_AT_MAX: usize = 4;

/// Channels whose peers showed something that waits to be looked at, and how many bytes that may be.
const WAITING_MAX: usize = 4096;
const WAITING_BYTES_MAX: usize = 8 << 20;

/// Most peers whose credentials wait for the authority's new key.
const DOUBTED_MAX: usize = 1024;

/// How long the authority is not met again to see whether it has another key, at first and when that was in vain again and
/// again: anybody can show what looks like it.
pub(super) const MEET_PAUSE_MIN: Duration = Duration::from_secs(10);
pub(super) const MEET_PAUSE_MAX: Duration = Duration::from_secs(300);

/// A credential that a peer showed, and that was its authority's word then.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// As it came.
    pub(super) encoded: Vec<u8>,
    pub(super) issuer: Identifier,
    pub(super) attributes: Arc<Attributes>,
    /// In Unix time.
    pub(super) created_at: u64,
    /// Its last second.
    pub(super) expires_at: u64,
}

impl From<&Credential> for Shown {
    fn from(credential: &Credential) -> Shown {
        Shown {
            encoded: credential.encoded().to_vec(),
            issuer: credential.issuer(),
            attributes: Arc::new(credential.attributes().clone()),
            created_at: credential.created_at(),
            expires_at: credential.expires_at(),
        }
    }
}

impl Shown {
    /// One that was verified before it was stored.
    pub(super) fn stored(encoded: Vec<u8>) -> Option<Shown> {
        let read = Credential::inspect(&encoded).ok()?;
        let mut attributes = Attributes::new();
        read.attributes.into_iter().try_for_each(|(name, value)| attributes.insert(name, value)).ok()?;
        Some(Shown {
            issuer: read.attestation.subject,
            attributes: Arc::new(attributes),
            created_at: read.created_at,
            expires_at: read.expires_at,
            encoded,
        })
    }

    /// Whether it still counts.
    pub(super) fn holds(&self, subject: &Identifier, revocations: Option<&RevocationList>, now: u64) -> bool {
        self.expires_at >= now && !self.is_revoked(subject, revocations)
    }

    /// Whether its issuer has taken it back.
    pub(super) fn is_revoked(&self, subject: &Identifier, revocations: Option<&RevocationList>) -> bool {
        let revoked_at =
            revocations.filter(|list| list.issuer() == self.issuer).and_then(|list| list.revoked_at(subject));
        revoked_at.is_some_and(|revoked_at| self.created_at <= revoked_at)
    }
}

/// What came over channels, until it is its turn. Of each channel only what came last.
#[derive(Default)]
pub(super) struct Queue(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    turns: VecDeque<u32>,
    texts: HashMap<u32, Vec<u8>>,
    bytes: usize,
    /// Whether the task that looks at it runs.
    works: bool,
}

impl Waiting {
    /// Says whether it waits now.
    fn add(&mut self, channel: u32, text: Vec<u8>) -> bool {
        let before = self.texts.get(&channel).map(Vec::len);
        let bytes = self.bytes - before.unwrap_or(0) + text.len();
        if bytes > WAITING_BYTES_MAX || (before.is_none() && self.texts.len() >= WAITING_MAX) {
            return false;
        }
        self.bytes = bytes;
        if self.texts.insert(channel, text).is_none() {
            self.turns.push_back(channel);
        }
        true
    }

    fn take(&mut self) -> Option<(u32, Vec<u8>)> {
        let channel = self.turns.pop_front()?;
        let text = self.texts.remove(&channel)?;
        self.bytes -= text.len();
        Some((channel, text))
    }
}

impl Queue {
    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Trust {
    /// What the credentials of a peer are worth that proved to be who it is: the last that is the authority's word stands, as at
    /// real nodes. It does the public-key work, and blocks for that.
    pub(crate) fn judge(&self, peer: &Identifier, credentials: Credentials<'_>) -> Option<Judged> {
        let (authority, known, revocations) = {
            let state = self.state();
            (state.authority.clone()?, state.peers.get(peer).cloned(), state.revocations.clone())
        };
        let now = self.clock.now();
        let mut judged = None;
        for encoded in credentials.iter().take(LOOKED_AT_MAX) {
            // What was verified before needs no second look.
            if let Some(known) = known.as_ref().filter(|known| known.encoded == encoded) {
                if known.holds(peer, revocations.as_deref(), now) {
                    judged = Some(Judged(known.clone()));
                }
                continue;
            }
            match Credential::verify(encoded, peer, [&authority.history], now) {
                Ok(credential) => {
                    let shown = Shown::from(&credential);
                    match shown.is_revoked(peer, revocations.as_deref()) {
                        true => tracing::info!(%peer, "a peer shows a credential that was revoked"),
                        false => judged = Some(Judged(Arc::new(shown))),
                    }
                }
                Err(error) => {
                    tracing::debug!(%peer, %error, "a credential counts for nothing");
                    if is_by_another_key(&error) {
                        self.doubt(peer, encoded);
                    }
                }
            }
        }
        judged
    }

    /// A credential is by a key that the authority has not, as far as this node knows: it may have another since. It is judged
    /// again when that is known.
    fn doubt(&self, peer: &Identifier, encoded: &[u8]) {
        let mut state = self.state();
        if state.doubted.len() < DOUBTED_MAX || state.doubted.contains_key(peer) {
            state.doubted.insert(*peer, encoded.to_vec());
        }
        state.wants_to_meet = true;
        self.work.notify_one();
    }

    /// The same for what the authority itself sent: it is met without delay.
    pub(super) fn doubt_own(&self, error: &CredentialError) {
        if is_by_another_key(error) {
            self.meet_soon();
        }
    }

    /// The authority has another key than the one that is known: it is met without delay.
    pub(super) fn meet_soon(&self) {
        let mut state = self.state();
        (state.wants_to_meet, state.meet_pause) = (true, MEET_PAUSE_MIN);
        self.work.notify_one();
    }

    /// Judges again what was by a key that the authority had not, as far as this node knew.
    pub(super) async fn judge_again(&self, node: &Arc<Node>) {
        let doubted = std::mem::take(&mut self.state().doubted);
        let (judging, is_empty) = (node.clone(), doubted.is_empty());
        if is_empty {
            return;
        }
        let judged = tokio::task::spawn_blocking(move || {
            let trust = &judging.trust;
            let Some(authority) = trust.state().authority.clone() else { return Vec::new() };
            let now = trust.clock.now();
            let verified = doubted.into_iter().filter_map(|(peer, encoded)| {
                let credential = Credential::verify(&encoded, &peer, [&authority.history], now).ok()?;
                Some((peer, Judged(Arc::new(Shown::from(&credential)))))
            });
            verified.collect()
        });
        let mut is_news = false;
        for (peer, judged) in judged.await.unwrap_or_default() {
            is_news |= self.hear(&peer, judged);
        }
        if is_news {
            self.decide_anew(node).await;
        }
    }

    /// A peer showed a credential. Says whether that is news.
    pub(crate) fn hear(&self, peer: &Identifier, Judged(shown): Judged) -> bool {
        let mut state = self.state();
        let before = state.peers.insert(*peer, shown.clone());
        let is_news = before != Some(shown);
        if is_news {
            state.unnoted.insert(*peer);
            self.work.notify_one();
        }
        is_news
    }

    /// Somebody proved to be who it is: when it is the authority, its identity may have a later state.
    pub(crate) fn met(&self, peer: &Peer) {
        self.learn(&peer.history);
    }

    /// Takes up a later state of the authority's identity.
    pub(super) fn learn(&self, history: &ChangeHistory) {
        let mut state = self.state();
        let Some(authority) = &state.authority else { return };
        let is_it = authority.history.identifier() == history.identifier();
        if is_it && history.compared_to(&authority.history) == Comparison::Newer {
            state.authority =
                Some(Arc::new(crate::store::AuthorityRow { history: history.clone(), ..(**authority).clone() }));
            (state.is_authority_unnoted, state.is_authority_new) = (true, true);
            self.work.notify_one();
            tracing::info!(authority = %history.identifier(), "the authority has changed its key");
        }
    }

    /// The peer of a channel showed new credentials. They are looked at one after the other, those of each channel in turn.
    pub(crate) fn on_shown(&self, node: &Arc<Node>, channel: u32, text: Vec<u8>) {
        if self.state().authority.is_none() {
            return;
        }
        let mut waiting = self.queue.waiting();
        if !waiting.add(channel, text) {
            tracing::warn!(channel, "what a peer shows is not looked at: there is too much of it");
            return;
        }
        if !std::mem::replace(&mut waiting.works, true) {
            tokio::spawn(look(node.clone()));
        }
    }
}

/// A credential that is the authority's word.
#[derive(Debug, Clone)]
pub(crate) struct Judged(Arc<Shown>);

/// Whether an authority may have said it since it changed its key.
fn is_by_another_key(error: &CredentialError) -> bool {
    matches!(error, CredentialError::Issuer(IssuerError::Attestation(AttestationError::NotByTheLatestKey)))
}

/// Looks at what peers showed until nothing is left.
async fn look(node: Arc<Node>) {
    let mut budget = Budget::new(Instant::now());
    loop {
        let next = {
            let mut waiting = node.trust.queue.waiting();
            let next = waiting.take();
            waiting.works = next.is_some();
            next
        };
        let Some((channel, text)) = next else { return };
        tokio::time::sleep(budget.wait(Instant::now())).await;
        let Some((_, peer)) = node.channels.identity_of(channel) else { continue };
        let judging = node.clone();
        let judged = tokio::task::spawn_blocking(move || {
            let before = crate::channels::cpu_time();
            let judged = judge(&judging, &peer, &text);
            (judged, crate::channels::cpu_time().saturating_sub(before))
        });
        let Ok((judged, took)) = judged.await else { continue };
        budget.spend(took);
        if judged.is_some_and(|judged| node.trust.hear(&peer, judged)) {
            tracing::info!(%peer, "a peer showed a new credential");
            node.trust.decide_anew(&node).await;
        }
    }
}

/// What a peer shows over its channel is worth: its identity as it is now, then its credentials.
fn judge(node: &Node, peer: &Identifier, text: &[u8]) -> Option<Judged> {
    let (history, credentials) = parse_refresh(text).ok()?;
    if let Err(why) = node.channels.hear_history(peer, history) {
        tracing::info!(%peer, why, "what a peer shows is not by itself");
        return None;
    }
    node.trust.judge(peer, credentials)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_and_only_the_last_of_each_counts() {
        let mut waiting = Waiting::default();
        assert!(waiting.add(1, vec![1; 10]) && waiting.add(2, vec![2; 10]) && waiting.add(1, vec![3; 5]));
        assert_eq!(waiting.bytes, 15);
        assert_eq!(waiting.take(), Some((1, vec![3; 5])));
        assert!(!waiting.add(3, vec![0; WAITING_BYTES_MAX]), "there are ten already");
        assert_eq!(waiting.take(), Some((2, vec![2; 10])));
        assert_eq!((waiting.take(), waiting.bytes), (None, 0));
        for channel in 0..WAITING_MAX as u32 {
            assert!(waiting.add(channel, Vec::new()));
        }
        assert!(!waiting.add(u32::MAX, Vec::new()) && waiting.add(0, vec![1]));
    }
}
