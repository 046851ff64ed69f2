//! Channels that shall be: opened again under the same address whenever they end, until they are deleted.
//!
//! ```text
//!   create ──► Open ──ended, or no answer──► Opening ──opened──► Open
//!                                              │ ▲
//!                                              └─┘ back-off with jitter
//!                                              └──another identity──► Stopped
//! ```

use super::initiator::{self, Plan};
use super::{Channels, lock, own, read_list, read_lists};
use crate::api::{ChannelRole, ChannelStatus, CreateSecureChannel, SecureChannelInfo};
use crate::engine_link::Dump;
use crate::engine_link::cookie::Purpose;
use crate::error::Error;
use crate::messages::{Patience, read_route};
use crate::node::{Engine, Node};
use crate::route::Route;
use crate::store::ChannelRow;
use crate::store::node::CHANNELS_MAX;
use ockam_crypto::Identifier;
use ockam_engine_abi::ChannelEnd;
use ockam_wire::{MultiAddr, Protocol};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// How long one try to open a channel again may take.
const TRY_LIMIT_MS: u64 = 10_000;

/// Pauses between tries; each is between half of this and all of it.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// A channel that was open this long is opened again at once.
const STEADY: Duration = Duration::from_secs(5);

/// How often the peer is asked whether it is still there, and how long it may think. On the way to it a node can lose
/// its link without this one noticing.
const PROBE_PAUSE: Duration = Duration::from_secs(10);
const PROBE_LIMIT_MS: u64 = 5_000;

/// A channel that shall be.
pub(super) struct Supervised {
    row: ChannelRow,
    status: ChannelStatus,
    error: Option<Error>,
    reopened: u64,
    /// Its task.
    task: Option<AbortHandle>,
}

/// Opens a channel and makes it one that shall be.
///
/// # Errors
/// As [`initiator::open`]; [`Error::BadArgument`], [`Error::Limit`], those of the store.
pub(crate) async fn create(node: &Arc<Node>, request: CreateSecureChannel) -> Result<SecureChannelInfo, Error> {
    let route = to_listener(&request.route)?;
    let legs = route.legs();
    let on_the_way = read_lists("authorized_on_the_way", &request.authorized_on_the_way, legs.len() - 1)?;
    let authorized = read_list("authorized", &request.authorized)?;
    let patience = Patience::new(request.timeout_ms, &request.route)?;
    let limit = || Error::Limit { node: node.name(), what: "secure channels", limit: CHANNELS_MAX };
    if lock(&node.channels.supervised).len() >= CHANNELS_MAX {
        return Err(limit());
    }
    let own = own(node, request.identity.as_deref()).await?;
    let engine = node.engine().await?;
    let address = crate::random::hex_id();
    let mut row = ChannelRow { address, route: request.route, authorized, on_the_way, identity: own, peer: own };
    let opened = open(node, &engine, &row, &legs, None, &patience).await?;
    row.peer = opened.last.peer;
    {
        let mut store = node.store().await;
        if store.channels()?.len() >= CHANNELS_MAX {
            return Err(limit());
        }
        store.begin()?;
        if let Err(error) = store.add_channel(&row) {
            store.roll_back();
            return Err(error);
        }
        store.commit()?;
        node.reload(&store)?;
    }
    let ended = opened.keep();
    tracing::info!(channel = row.address, peer = %row.peer, route = row.route, "a secure channel is open");
    let task = tokio::spawn(supervise(Arc::downgrade(node), row.clone(), Some(ended)));
    let status = ChannelStatus::Open;
    let supervised = Supervised { row: row.clone(), status, error: None, reopened: 0, task: Some(task.abort_handle()) };
    lock(&node.channels.supervised).insert(row.address.clone(), supervised);
    infos(&node.channels, node, &Dump::default())
        .into_iter()
        .find(|info| info.address == row.address)
        .ok_or_else(|| Error::internal("a secure channel was forgotten"))
}

/// Takes up the channels that shall be: those that live already and those that are to be opened.
pub(crate) fn resume(node: &Arc<Node>) {
    let rows = node.desired().channels;
    for row in rows {
        let mut all = lock(&node.channels.supervised);
        if all.contains_key(&row.address) {
            // Its task has noticed by itself that the engine is another one.
            continue;
        }
        let mut ended = None;
        {
            let mut state = node.channels.state();
            let living = state.living.values_mut().find(|living| living.address == row.address);
            if let Some(living) = living {
                let (tell, told) = oneshot::channel();
                living.ended = Some(tell);
                ended = Some(told);
            }
        }
        let status = if ended.is_some() { ChannelStatus::Open } else { ChannelStatus::Opening };
        let address = row.address.clone();
        let task = tokio::spawn(supervise(Arc::downgrade(node), row.clone(), ended)).abort_handle();
        all.insert(address, Supervised { row, status, error: None, reopened: 0, task: Some(task) });
    }
    if !node.channels.state().living.is_empty() {
        node.channels.watch_identities(node);
    }
}

/// Ends a channel for good; one that a peer opened, too.
///
/// # Errors
/// [`Error::NoSuchThing`], [`Error::EngineAway`], those of the store.
pub(crate) async fn delete(node: &Arc<Node>, address: &str) -> Result<(), Error> {
    let channels = &node.channels;
    let is_supervised = lock(&channels.supervised).contains_key(address);
    let number = channels.numbered(address.as_bytes());
    if !is_supervised && number.is_none() {
        return Err(node.no_such("secure channel", address, "ockam secure-channel list"));
    }
    if is_supervised {
        let mut store = node.store().await;
        store.begin()?;
        if let Err(error) = store.remove_channel(address) {
            store.roll_back();
            return Err(error);
        }
        store.commit()?;
        node.reload(&store)?;
        drop(store);
        if let Some(task) = lock(&channels.supervised).remove(address).and_then(|supervised| supervised.task) {
            // What it was about to open ends with it.
            task.abort();
        }
    }
    let engine = node.engine().await?;
    if let Some(number) = channels.numbered(address.as_bytes()) {
        channels.retire(&engine.link, number).await;
    }
    Ok(())
}

/// What is known of the channels that shall be.
pub(super) fn infos(channels: &Channels, node: &Node, dump: &Dump) -> Vec<SecureChannelInfo> {
    let all = lock(&channels.supervised);
    let rows = node.desired().channels;
    let state = channels.state();
    let mut infos = Vec::new();
    for supervised in rows.iter().filter_map(|row| all.get(&row.address)) {
        let row = &supervised.row;
        let living = state.living.iter().find(|(_, living)| living.address == row.address);
        let number = living.map(|(number, _)| *number);
        let found = dump.channels.iter().find(|found| Some(found.channel) == number);
        let traffic = found.map(|found| found.traffic).unwrap_or_default();
        infos.push(SecureChannelInfo {
            address: row.address.clone(),
            role: ChannelRole::Initiator,
            status: supervised.status,
            route: Some(row.route.clone()),
            listener: None,
            identifier: row.peer.to_string(),
            my_identifier: row.identity.to_string(),
            authorized: row.authorized.iter().map(Identifier::to_string).collect(),
            flow_control_id: node.initiated_flow_control.clone(),
            expires_at: living.map_or(0, |(_, living)| living.expires_at),
            reopened: supervised.reopened,
            error: supervised.error.as_ref().map(Error::to_string),
            sealed: traffic.sealed,
            opened: traffic.opened,
            refused: traffic.refused,
        });
    }
    infos
}

/// A channel and those on its way.
struct Opened {
    ways: Vec<initiator::OpenChannel>,
    last: initiator::OpenChannel,
}

impl Opened {
    fn keep(self) -> oneshot::Receiver<ChannelEnd> {
        self.ways.into_iter().for_each(|way| drop(way.keep()));
        self.last.keep()
    }
}

/// Opens the channels on the way, then the one at its end. `before` is who it must be.
async fn open(
    node: &Arc<Node>,
    engine: &Arc<Engine>,
    row: &ChannelRow,
    legs: &[Route],
    before: Option<Identifier>,
    patience: &Patience,
) -> Result<Opened, Error> {
    let mut ways: Vec<initiator::OpenChannel> = Vec::new();
    let (last, on_the_way) = legs.split_last().ok_or_else(|| Error::internal("a route without a leg"))?;
    for (index, leg) in on_the_way.iter().enumerate() {
        let plan = Plan {
            address: crate::random::hex_id(),
            behind: ways.last().map(|way| (way.number, way.address.clone())),
            leg,
            authorized: row.on_the_way.get(index).map_or(&[], Vec::as_slice),
            own: row.identity,
            purpose: Purpose::Way(row.address.clone()),
        };
        ways.push(initiator::open(node, engine, plan, patience).await?);
    }
    let only = before.map(|before| [before]);
    let plan = Plan {
        address: row.address.clone(),
        behind: ways.last().map(|way| (way.number, way.address.clone())),
        leg: last,
        authorized: only.as_ref().map_or(&row.authorized, |only| only.as_slice()),
        own: row.identity,
        purpose: Purpose::Desired,
    };
    let last = match (initiator::open(node, engine, plan, patience).await, before) {
        (Err(Error::PeerNotAuthorized { listener, identifier }), Some(before)) => {
            return Err(Error::IdentityChanged { listener, identifier, before: before.to_string() });
        }
        (opened, _) => opened?,
    };
    Ok(Opened { ways, last })
}

/// Keeps a channel open. `ended` says when the one that lives ends.
async fn supervise(node: Weak<Node>, row: ChannelRow, mut ended: Option<oneshot::Receiver<ChannelEnd>>) {
    let legs = match to_listener(&row.route) {
        Ok(route) => route.legs(),
        Err(error) => {
            if let Some(node) = node.upgrade() {
                note(&node, &row.address, ChannelStatus::Stopped, Some(error));
            }
            return;
        }
    };
    let mut pause = Duration::ZERO;
    loop {
        if let Some(mut living) = ended.take() {
            let since = Instant::now();
            while is_there(&node, &row.address, &mut living).await {}
            pause = if since.elapsed() >= STEADY { Duration::ZERO } else { pause };
            let Some(node) = node.upgrade() else { return };
            note(&node, &row.address, ChannelStatus::Opening, None);
            // What has not ended by itself does not answer.
            if let (Some(engine), Some(number)) = (node.engine_now(), node.channels.numbered(row.address.as_bytes())) {
                node.channels.retire(&engine.link, number).await;
            }
        }
        tokio::time::sleep(jittered(pause)).await;
        pause = (2 * pause).clamp(PAUSE_MIN, PAUSE_MAX);
        let Some(node) = node.upgrade() else { return };
        let reopened = async {
            let engine = node.engine().await?;
            let patience = Patience::new(TRY_LIMIT_MS, &row.route)?;
            open(&node, &engine, &row, &legs, Some(row.peer), &patience).await
        };
        match reopened.await {
            Ok(opened) => {
                tracing::info!(channel = row.address, "a secure channel is open again");
                ended = Some(opened.keep());
                note(&node, &row.address, ChannelStatus::Open, None);
            }
            Err(error @ Error::IdentityChanged { .. }) => {
                tracing::error!(channel = row.address, %error, "a secure channel is not opened again");
                return note(&node, &row.address, ChannelStatus::Stopped, Some(error));
            }
            Err(error) => {
                tracing::debug!(channel = row.address, %error, "a secure channel cannot be opened yet");
                note(&node, &row.address, ChannelStatus::Opening, Some(error));
            }
        }
    }
}

/// Waits for the next look at a channel. Says whether it is still there then.
async fn is_there(node: &Weak<Node>, address: &str, ended: &mut oneshot::Receiver<ChannelEnd>) -> bool {
    tokio::select! {
        _ = &mut *ended => return false,
        () = tokio::time::sleep(PROBE_PAUSE) => {}
    }
    let Some(node) = node.upgrade() else { return false };
    let Some(number) = node.channels.numbered(address.as_bytes()) else { return false };
    let Some(engine) = node.engine_now() else { return false };
    let Ok(patience) = Patience::new(PROBE_LIMIT_MS, address) else { return false };
    match initiator::ask(&node, &engine, number, address, &patience).await {
        Ok(answered) => answered.is_ok(),
        Err(Error::NoReply { .. }) => false,
        Err(error) => {
            // It says nothing of the peer; when the engine is gone, so is the channel.
            tracing::debug!(channel = address, %error, "a peer cannot be asked");
            true
        }
    }
}

fn note(node: &Node, address: &str, status: ChannelStatus, error: Option<Error>) {
    if let Some(supervised) = lock(&node.channels.supervised).get_mut(address) {
        supervised.reopened += u64::from(status == ChannelStatus::Open);
        supervised.status = status;
        supervised.error = error;
    }
}

/// So that many that lost their peer at once do not come back at once.
fn jittered(pause: Duration) -> Duration {
    let [random] = crate::random::bytes::<1>();
    pause / 2 + pause.mul_f64(f64::from(random) / 510.0)
}

/// Reads a route whose last part is a listener for secure channels.
fn to_listener(text: &str) -> Result<Route, Error> {
    // `/secure/api` at the end says the same as `/service/api`.
    let multiaddr: Option<MultiAddr> = text.parse().ok();
    if let Some(mut parts) = multiaddr.map(|multiaddr| multiaddr.protocols().to_vec())
        && let Some(Protocol::Secure(name)) = parts.last().cloned()
    {
        parts.pop();
        parts.push(Protocol::Service(name));
        if let Ok(multiaddr) = MultiAddr::try_from(parts) {
            return Route::new(&multiaddr, "route");
        }
    }
    read_route(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_spread() {
        assert_eq!(jittered(Duration::ZERO), Duration::ZERO);
        let pauses: Vec<Duration> = (0..100).map(|_| jittered(PAUSE_MAX)).collect();
        assert!(pauses.iter().all(|pause| (PAUSE_MAX / 2..=PAUSE_MAX).contains(pause)));
        assert!(pauses.iter().any(|pause| *pause != pauses[0]));
    }

    #[test]
    fn a_channel_is_opened_to_a_listener_however_that_is_written() {
        for text in ["/ip4/127.0.0.1/tcp/1/secure/api", "/ip4/127.0.0.1/tcp/1/service/api"] {
            let steps: String = to_listener(text).unwrap().steps().iter().map(ToString::to_string).collect();
            assert_eq!(steps, "/ip4/127.0.0.1/tcp/1/service/api");
        }
        assert_eq!(to_listener("/secure/a/secure/b/service/c").unwrap().legs().len(), 3);
        assert!(to_listener("/ip4/127.0.0.1/tcp/1").is_err());
    }
}
