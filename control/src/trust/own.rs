//! What this node shows of itself: a credential of its authority for each of its identities that it uses, asked for when
//! it is needed first, again before it ends, and shown over channels that live when there is another one (`wire.md` D.5,
//! E.7).

use super::authority::{ANSWER_LIMIT_MS, CREDENTIAL_ISSUER, ask, plan};
use super::shown::Shown;
use super::{Trust, escaped};
use crate::api::{CredentialInfo, StoreCredential};
use crate::error::Error;
use crate::node::Node;
use crate::sessions::{self, State, Up};
use crate::store::{AuthorityRow, OwnCredentialRow, SharedStore};
use ockam_crypto::{ChangeHistory, Credential, Identifier};
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;

/// A credential is not shown any more so many seconds before its end, and another one is asked for as long before that
/// (`wire.md` D.5). Of one that lives shorter than four minutes it is the fourth part.
const MARGIN_SECS: u64 = 60;

/// How long to wait after an answer that is none before it is asked again.
const PAUSE_MIN: Duration = Duration::from_secs(10);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How long after an answer it is asked again at the earliest, if what was answered is to be renewed already.
const AGAIN_MIN: Duration = Duration::from_secs(1);

/// The clock of the machine may be set: it is looked at so often.
const LOOK: Duration = Duration::from_secs(30);

/// How long somebody who opens a channel waits for the first credential of an identity. It is shown later when it comes
/// later.
const WAIT: Duration = Duration::from_secs(5);

/// The same for who answers: less than the five seconds after which commands of real nodes give a handshake up.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// Most credentials that are stored of this home's identities.
const OWN_MAX: usize = 256;

/// A credential of one of our identities.
struct Filed {
    scope: String,
    stored_at: u64,
    shown: Arc<Shown>,
}

/// What an identity has.
#[derive(Default)]
struct Has {
    filed: Vec<Filed>,
    /// The one that handshakes show.
    shows: Option<Arc<Shown>>,
    /// The authority has another key since: it does not count for those who know.
    is_stale: bool,
    /// Why there is no other.
    error: Option<String>,
    /// The task that looks after it runs.
    is_kept: bool,
}

/// What this node shows.
#[derive(Default)]
pub(super) struct Own {
    all: HashMap<Identifier, Has>,
}

impl Own {
    pub(super) fn new(rows: Vec<OwnCredentialRow>) -> Own {
        let mut own = Own::default();
        for row in rows {
            let Some(shown) = Shown::stored(row.credential) else { continue };
            let filed = Filed { scope: row.scope, stored_at: row.stored_at, shown: Arc::new(shown) };
            own.all.entry(row.subject).or_default().filed.push(filed);
        }
        own
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whose they are.
    pub(super) fn subjects(&self) -> Vec<Identifier> {
        self.all.keys().copied().collect()
    }
}

impl Shown {
    fn margin(&self) -> u64 {
        MARGIN_SECS.min(self.expires_at.saturating_sub(self.created_at) / 4)
    }

    /// From when on it is not shown any more.
    fn shown_until(&self) -> u64 {
        self.expires_at.saturating_sub(self.margin())
    }

    /// From when on there should be another one.
    fn renew_at(&self) -> u64 {
        self.expires_at.saturating_sub(2 * self.margin())
    }
}

impl Trust {
    /// What an identity of ours would show now: the authority's word, where there is an authority.
    fn best(&self, own: &Identifier) -> Option<Arc<Shown>> {
        let now = self.clock.now();
        let (authority, revocations) = {
            let state = self.state();
            (state.authority.clone(), state.revocations.clone())
        };
        let issuer = authority.map(|row| row.history.identifier());
        let all = self.own();
        let filed = all.all.get(own)?.filed.iter().filter(|filed| {
            let shown = &filed.shown;
            issuer.is_none_or(|issuer| shown.issuer == issuer)
                && now < shown.shown_until()
                && shown.holds(own, revocations.as_deref(), now)
        });
        filed.max_by_key(|filed| (filed.shown.created_at, filed.stored_at)).map(|filed| filed.shown.clone())
    }

    /// Shows what is best now, in handshakes and over the channels that live, if that is another one than before.
    async fn show(&self, node: &Arc<Node>, own: Identifier) {
        let best = self.best(&own);
        {
            let mut all = self.own();
            let has = all.all.entry(own).or_default();
            if has.shows == best {
                return;
            }
            has.shows.clone_from(&best);
        }
        let encoded = best.as_ref().map(|shown| shown.encoded.clone());
        let text = match node.channels.show(own, encoded).await {
            Ok(text) => text,
            Err(error) => return tracing::warn!(%own, %error, "a credential cannot be shown"),
        };
        let (Some(text), Some(engine)) = (text, node.engine_now()) else { return };
        tracing::info!(%own, "a credential is shown from now on");
        for channel in node.channels.of_own(&own) {
            node.channels.show_to(&engine.link, channel, text.clone()).await;
        }
    }

    /// An identity of ours is used: it shall have a credential of the authority, and show it.
    pub(crate) fn need(&self, node: &Arc<Node>, own: Identifier) {
        let has_authority = self.asked().is_some();
        let mut all = self.own();
        let has = all.all.entry(own).or_default();
        if (has_authority || !has.filed.is_empty()) && !std::mem::replace(&mut has.is_kept, true) {
            tokio::spawn(keep(Arc::downgrade(node), own));
        }
    }

    /// The same for who is about to open a channel, and waits a moment for what there is to show. `authorized` is who may be at
    /// the other end: the authority itself is asked without.
    pub(crate) async fn ready(&self, node: &Arc<Node>, own: Identifier, authorized: &[Identifier]) {
        let Some(authority) = self.asked() else { return self.need(node, own) };
        if authorized == [authority.history.identifier()] {
            return;
        }
        self.need(node, own);
        self.decided(own, WAIT).await;
    }

    /// Waits until it is known what an identity has to show.
    async fn decided(&self, own: Identifier, limit: Duration) {
        let mut changes = self.own_changes();
        let is_decided =
            |_: &u64| self.own().all.get(&own).is_none_or(|has| has.shows.is_some() || has.error.is_some());
        let waited = tokio::time::timeout(limit, changes.wait_for(is_decided)).await;
        if waited.is_err() {
            self.own_failed(&own, "the authority has not answered yet".into());
        }
    }

    /// The same for who is about to answer the first handshakes of peers, who go by what they are shown there.
    pub(crate) async fn ready_to_answer(&self, node: &Arc<Node>) {
        if self.asked().is_none() {
            return;
        }
        if let Ok(own) = crate::channels::own(node, None).await {
            self.need(node, own);
            self.decided(own, ANSWER_WAIT).await;
        }
    }

    /// Begins with the credential that the identity got when it enrolled in this home, if the node has none: the authority may
    /// not be there when the node starts.
    pub(super) async fn begin_with_enrolled(&self, node: &Arc<Node>, row: &AuthorityRow, own: Identifier) {
        if self.best(&own).is_some() {
            return;
        }
        let (home, history, scope, now) = (node.dir.home(), row.history.clone(), row.scope.clone(), self.clock.now());
        let kept = tokio::task::spawn_blocking(move || {
            let store = SharedStore::open_existing(&home).ok()??;
            let encoded = store.projects().credential(&own, &history.identifier(), &scope).ok()??;
            Credential::verify(&encoded, &own, [&history], now).ok()
        });
        if let Ok(Some(credential)) = kept.await
            && let Err(error) = self.file(node, row.scope.clone(), &credential).await
        {
            tracing::warn!(%error, "the credential from enrolling cannot be stored");
        }
    }

    /// Why an identity has no other credential.
    fn own_failed(&self, own: &Identifier, why: String) {
        self.own().all.entry(*own).or_default().error = Some(why);
        self.own_changed();
    }

    /// The authority has another key: what it said before does not count for those who know, and is asked for again.
    pub(super) fn own_is_stale(&self) {
        self.own().all.values_mut().for_each(|has| has.is_stale = true);
        self.own_changed();
    }

    /// The list of revocations is another: what an identity of ours shows may be void.
    pub(super) fn own_revoked(&self) {
        self.own_changed();
    }

    /// The last second of what the node's identity shows, and what is wrong.
    pub(super) fn own_info(&self, node: &Node) -> (Option<u64>, Option<String>) {
        let Some(own) = node.channels.own_if_known() else { return (None, None) };
        let all = self.own();
        let Some(has) = all.all.get(&own) else { return (None, None) };
        let error = has.error.as_ref().map(|why| format!("the node has no fresh credential: {why}"));
        (has.shows.as_ref().map(|shown| shown.expires_at), error)
    }

    /// Takes up a credential of an identity of ours: it is stored, and shown when it is the best.
    async fn file(&self, node: &Arc<Node>, scope: String, credential: &Credential) -> Result<(), Error> {
        let shown = Arc::new(Shown::from(credential));
        let subject = credential.subject();
        let stored_at = self.clock.now();
        {
            let mut store = node.store().await;
            let is_new = {
                let all = self.own();
                let count: usize = all.all.values().map(|has| has.filed.len()).sum();
                let is_there = all.all.get(&subject).is_some_and(|has| has.filed.iter().any(|it| it.scope == scope));
                if !is_there && count >= OWN_MAX {
                    let what = "credentials of its own";
                    return Err(Error::Limit { node: node.name(), what, limit: OWN_MAX });
                }
                !is_there
            };
            let credential = shown.encoded.clone();
            store.set_own_credential(&OwnCredentialRow { subject, scope: scope.clone(), credential, stored_at })?;
            let mut all = self.own();
            let has = all.all.entry(subject).or_default();
            if !is_new {
                has.filed.retain(|filed| filed.scope != scope);
            }
            has.filed.push(Filed { scope, stored_at, shown });
            (has.error, has.is_stale) = (None, false);
        }
        self.show(node, subject).await;
        self.own_changed();
        Ok(())
    }

    /// How the credentials are of which people want to know: ours, then those that peers showed.
    pub(crate) fn credential_infos(&self) -> Vec<CredentialInfo> {
        let (scope, peers, revocations) = {
            let state = self.state();
            let scope = state.authority.as_ref().map_or(String::new(), |row| row.scope.clone());
            let peers: Vec<_> = state.peers.iter().map(|(peer, shown)| (*peer, shown.clone())).collect();
            (scope, peers, state.revocations.clone())
        };
        let info = |subject: &Identifier, shown: &Shown, scope: &str, own| CredentialInfo {
            subject: subject.to_string(),
            issuer: shown.issuer.to_string(),
            scope: scope.to_owned(),
            attributes: shown.attributes.iter().map(|(name, value)| (escaped(name), escaped(value))).collect(),
            created_at: shown.created_at,
            expires_at: shown.expires_at,
            own,
            revoked: shown.is_revoked(subject, revocations.as_deref()),
        };
        let mut infos: Vec<CredentialInfo> = Vec::new();
        for (subject, has) in &self.own().all {
            infos.extend(has.filed.iter().map(|filed| info(subject, &filed.shown, &filed.scope, true)));
        }
        infos.extend(peers.iter().map(|(peer, shown)| info(peer, shown, &scope, false)));
        infos.sort_by(|a, b| (!a.own, &a.subject, &a.scope).cmp(&(!b.own, &b.subject, &b.scope)));
        infos
    }
}

/// Stores a credential of an identity of this home, which shows it from then on.
///
/// # Errors
/// [`Error::BadArgument`], [`Error::Credential`], [`Error::NoSuchIdentity`], [`Error::Limit`], those of the store.
pub(crate) async fn store(node: &Arc<Node>, request: StoreCredential) -> Result<CredentialInfo, Error> {
    let hexadecimal = |argument: &str, text: &str| {
        crate::text::from_hex(text).ok_or_else(|| Error::BadArgument {
            argument: argument.into(),
            value: crate::text::escape(text.as_bytes(), 64),
            why: "is not hexadecimal".into(),
            fix: "Give an even number of the digits 0-9 and a-f.".into(),
        })
    };
    let encoded = hexadecimal("credential", &request.credential)?;
    if request.scope.is_empty() || request.scope.len() > super::SCOPE_BYTES_MAX {
        return Err(Error::BadArgument {
            argument: "scope".into(),
            value: crate::text::escape(request.scope.as_bytes(), 64),
            why: format!("is empty or longer than {} bytes", super::SCOPE_BYTES_MAX),
            fix: "Use the id of a project, or any name.".into(),
        });
    }
    let issuer = match &request.issuer {
        Some(text) => Some(hexadecimal("issuer", text)?),
        None => None,
    };
    let claimed = Credential::inspect(&encoded).map_err(Error::Credential)?;
    let subject = claimed.subject.ok_or(Error::Credential(ockam_crypto::CredentialError::NoSubject))?;
    crate::channels::own(node, Some(&subject.to_string())).await?;
    let authority = node.trust.state().authority.clone();
    let now = node.trust.clock.now();
    let verified = tokio::task::spawn_blocking(move || {
        let issuer = match (issuer, authority) {
            (Some(encoded), _) => Some(ChangeHistory::verify(&encoded).map_err(|error| Error::BadArgument {
                argument: "issuer".into(),
                value: crate::text::to_hex(&encoded[..encoded.len().min(32)]),
                why: format!("is no identity: {error}"),
                fix: "`ockam identity show --full --encoding hex` prints a change history.".into(),
            })?),
            (None, authority) => authority.map(|row| row.history.clone()),
        };
        Credential::verify(&encoded, &subject, issuer.iter(), now).map_err(Error::Credential)
    });
    let credential = verified.await.map_err(|error| Error::internal(error.to_string()))??;
    node.trust.file(node, request.scope.clone(), &credential).await?;
    node.trust.need(node, subject);
    let (subject, scope) = (subject.to_string(), request.scope);
    let found =
        node.trust.credential_infos().into_iter().find(|it| it.own && it.subject == subject && it.scope == scope);
    found.ok_or_else(|| Error::internal("a credential was forgotten"))
}

/// Forgets credentials of this home's identities. Gives what they were.
///
/// # Errors
/// [`Error::InputMissing`], [`Error::NoSuchThing`], those of the store.
pub(crate) async fn forget(
    node: &Arc<Node>,
    scope: Option<String>,
    subject: Option<String>,
) -> Result<Vec<CredentialInfo>, Error> {
    if scope.is_none() && subject.is_none() {
        return Err(Error::InputMissing {
            what: "which credential to forget".into(),
            fix: "Give its scope, its subject, or both.".into(),
        });
    }
    let is_meant = |its_subject: &str, its_scope: &str| {
        scope.as_deref().is_none_or(|scope| scope == its_scope)
            && subject.as_deref().is_none_or(|subject| subject == its_subject)
    };
    let mut infos = node.trust.credential_infos();
    infos.retain(|info| info.own && is_meant(&info.subject, &info.scope));
    if infos.is_empty() {
        let name = scope.as_deref().or(subject.as_deref()).unwrap_or_default();
        return Err(node.no_such("credential", name, "ockam credential list"));
    }
    let mut changed = Vec::new();
    {
        let mut store = node.store().await;
        for info in &infos {
            let Ok(subject) = info.subject.parse::<Identifier>() else { continue };
            store.remove_own_credential(&subject, &info.scope)?;
            if let Some(has) = node.trust.own().all.get_mut(&subject) {
                has.filed.retain(|filed| filed.scope != info.scope);
            }
            changed.push(subject);
        }
    }
    for subject in changed {
        node.trust.show(node, subject).await;
    }
    // An authority is asked for another one.
    node.trust.own_changed();
    Ok(infos)
}

/// Looks after what an identity of ours shows, for as long as the node lives.
async fn keep(node: Weak<Node>, own: Identifier) {
    let mut changes = match node.upgrade() {
        Some(node) => node.trust.own_changes(),
        None => return,
    };
    let mut pause = PAUSE_MIN;
    let mut again = AGAIN_MIN;
    loop {
        let wait = {
            let Some(node) = node.upgrade() else { return };
            let trust = &node.trust;
            trust.show(&node, own).await;
            let now = trust.clock.now();
            let best = trust.best(&own);
            let has_authority = trust.asked().is_some();
            let is_stale = trust.own().all.get(&own).is_some_and(|has| has.is_stale);
            match best {
                Some(shown) if !has_authority => shown.shown_until().saturating_sub(now).max(1),
                None if !has_authority => u64::MAX,
                Some(shown) if now < shown.renew_at() && !is_stale => shown.renew_at() - now,
                _ => 0,
            }
        };
        if wait > 0 {
            let wait = LOOK.min(Duration::from_secs(wait));
            let _ = tokio::time::timeout(wait, changes.changed()).await;
            again = AGAIN_MIN;
            continue;
        }
        match renew(&node, own).await {
            Some(Ok(())) => {
                pause = PAUSE_MIN;
                // One that is to be renewed already, by this clock: there would be no end of it.
                tokio::time::sleep(again).await;
                again = (2 * again).min(PAUSE_MAX);
            }
            Some(Err(error)) => {
                let Some(node) = node.upgrade() else { return };
                tracing::warn!(%own, %error, "the authority gives no credential");
                node.trust.own_failed(&own, error.to_string());
                // What ends meanwhile is not shown any more.
                node.trust.show(&node, own).await;
                drop(node);
                let half = pause.as_millis() as u64 / 2;
                let jitter = u64::from_le_bytes(crate::random::bytes()) % half.max(1);
                tokio::time::sleep(pause + Duration::from_millis(jitter)).await;
                pause = (2 * pause).min(PAUSE_MAX);
            }
            None => return,
        }
    }
}

/// Asks the authority for a credential, once it answers. `None` when the node ends.
async fn renew(node: &Weak<Node>, own: Identifier) -> Option<Result<(), Error>> {
    let (mut way, session) = {
        let node = node.upgrade()?;
        let row = node.trust.asked()?;
        match node.trust.authority_way().filter(|_| node.channels.own_if_known() == Some(own)) {
            Some(way) => (way, None),
            // Another identity has a way of its own, for as long as that takes.
            None => match plan(&row, crate::random::hex_id(), own) {
                Ok(plan) => {
                    let session = sessions::start(&node, plan);
                    (session.watch(), Some(session))
                }
                Err(error) => return Some(Err(error)),
            },
        }
    };
    let answered = match wait_for_way(node, &mut way, own).await {
        Some(up) => {
            let node = node.upgrade()?;
            Some(ask_for(&node, &up, own).await)
        }
        None => None,
    };
    if let (Some(session), Some(node)) = (session, node.upgrade()) {
        session.end(&node).await;
    }
    answered
}

/// Waits until the way to the authority is open. Who waits for a credential learns at once that it is not; what is shown ends
/// in its time meanwhile.
async fn wait_for_way(node: &Weak<Node>, way: &mut watch::Receiver<State>, own: Identifier) -> Option<Up> {
    loop {
        let why = match way.borrow_and_update().clone() {
            State::Up(up) => return Some(up),
            State::Down { why } => why,
            State::Stopped { why } => Some(why),
        };
        if let Some(why) = why {
            let node = node.upgrade()?;
            node.trust.own_failed(&own, format!("the authority cannot be reached: {why}"));
            node.trust.show(&node, own).await;
        }
        // After that time it is looked again at what is shown.
        if let Ok(Err(_)) = tokio::time::timeout(LOOK, way.changed()).await {
            return None;
        }
    }
}

async fn ask_for(node: &Arc<Node>, up: &Up, own: Identifier) -> Result<(), Error> {
    let misbehaved = |why: String| Error::PeerMisbehaved { peer: "the authority".into(), why };
    let encoded = ask(node, up, CREDENTIAL_ISSUER, None, ANSWER_LIMIT_MS).await?;
    let encoded = encoded.ok_or_else(|| misbehaved("sent an empty answer instead of a credential".into()))?;
    let Some(authority) = node.trust.state().authority.clone() else { return Ok(()) };
    let now = node.trust.clock.now();
    let history = authority.history.clone();
    let verified = tokio::task::spawn_blocking(move || Credential::verify(&encoded, &own, [&history], now));
    let credential = verified.await.map_err(|error| Error::internal(error.to_string()))?;
    let credential = credential.map_err(|why| {
        node.trust.doubt_own(&why);
        misbehaved(format!("issued what is not believed: {why}"))
    })?;
    tracing::info!(%own, expires_at = credential.expires_at(), "the authority has issued a credential");
    node.trust.file(node, authority.scope.clone(), &credential).await
}
