//! Channels that shall be: opened again under the same address whenever they end, until they are deleted. Each is a
//! session (`sessions/`) whose way ends with the channel.

use super::{Channels, lock, own, read_list, read_lists};
use crate::api::{ChannelRole, ChannelStatus, CreateSecureChannel, SecureChannelInfo};
use crate::engine_link::Dump;
use crate::error::Error;
use crate::messages::{Patience, read_route};
use crate::node::Node;
use crate::route::Route;
use crate::sessions::{self, Session, State};
use crate::store::ChannelRow;
use crate::store::node::CHANNELS_MAX;
use ockam_crypto::Identifier;
use ockam_wire::{MultiAddr, Protocol};
use std::sync::Arc;

/// A channel that shall be.
pub(super) struct Supervised {
    row: ChannelRow,
    session: Session,
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
    let address = crate::random::hex_id();
    let mut row = ChannelRow { address, route: request.route, authorized, on_the_way, identity: own, peer: own };
    let first = sessions::Plan { peer: None, ..plan(&row, &route) };
    let opened = sessions::open(node, &first, &patience).await?;
    row.peer = opened.peer().ok_or_else(|| Error::internal("a secure channel without a peer"))?;
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
    tracing::info!(channel = row.address, peer = %row.peer, route = row.route, "a secure channel is open");
    let session = sessions::take_over(node, plan(&row, &route), opened);
    lock(&node.channels.supervised).insert(row.address.clone(), Supervised { row: row.clone(), session });
    infos(&node.channels, node, &Dump::default())
        .into_iter()
        .find(|info| info.address == row.address)
        .ok_or_else(|| Error::internal("a secure channel was forgotten"))
}

fn plan(row: &ChannelRow, route: &Route) -> sessions::Plan {
    sessions::Plan {
        authorized: row.authorized.clone(),
        on_the_way: row.on_the_way.clone(),
        own: Some(row.identity),
        peer: Some(row.peer),
        ..sessions::Plan::channel(row.address.clone(), route)
    }
}

/// Takes up the channels that shall be: those that live already and those that are to be opened.
pub(crate) fn resume(node: &Arc<Node>) {
    for row in node.desired().channels {
        let mut all = lock(&node.channels.supervised);
        if all.contains_key(&row.address) {
            // Its session has noticed by itself that the engine is another one.
            continue;
        }
        match to_listener(&row.route) {
            Ok(route) => {
                let session = sessions::start(node, plan(&row, &route));
                all.insert(row.address.clone(), Supervised { row, session });
            }
            // It was read when it was stored.
            Err(error) => tracing::error!(channel = row.address, %error, "a stored route is none"),
        }
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
        let removed = lock(&channels.supervised).remove(address);
        if let Some(supervised) = removed {
            supervised.session.end(node).await;
        }
    }
    let engine = node.engine().await?;
    channels.retire_addressed(&engine.link, address).await;
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
        let (status, error) = match supervised.session.state() {
            State::Up(_) => (ChannelStatus::Open, None),
            State::Down { why } => (ChannelStatus::Opening, why),
            State::Stopped { why } => (ChannelStatus::Stopped, Some(why)),
        };
        infos.push(SecureChannelInfo {
            address: row.address.clone(),
            role: ChannelRole::Initiator,
            status,
            route: Some(row.route.clone()),
            listener: None,
            identifier: row.peer.to_string(),
            my_identifier: row.identity.to_string(),
            authorized: row.authorized.iter().map(Identifier::to_string).collect(),
            flow_control_id: node.initiated_flow_control.clone(),
            expires_at: living.map_or(0, |(_, living)| living.expires_at),
            reopened: supervised.session.reopened(),
            error: error.as_ref().map(Error::to_string),
            sealed: traffic.sealed,
            opened: traffic.opened,
            refused: traffic.refused,
        });
    }
    infos
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
    fn a_channel_is_opened_to_a_listener_however_that_is_written() {
        for text in ["/ip4/127.0.0.1/tcp/1/secure/api", "/ip4/127.0.0.1/tcp/1/service/api"] {
            let steps: String = to_listener(text).unwrap().steps().iter().map(ToString::to_string).collect();
            assert_eq!(steps, "/ip4/127.0.0.1/tcp/1/service/api");
        }
        assert_eq!(to_listener("/secure/a/secure/b/service/c").unwrap().legs().len(), 3);
        assert!(to_listener("/ip4/127.0.0.1/tcp/1").is_err());
    }
}
