//! Who this node is and who others are, for as long as its control lives: one connection to the shared database, keys
//! kept once they were read. Everything here blocks.

use super::unix_now;
use crate::error::Error;
use crate::home::{Home, NodeName};
use crate::identities::Identities;
use crate::store::SharedStore;
use ockam_crypto::{ChangeHistory, Claim, Claimed, Identifier, Peer, X25519Key, encode_payload, encode_refresh};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How long before the end of a key it is looked at anew, in seconds: by then there may be another one.
const RENEW_BEFORE_SECS: u64 = 86_400;

/// What this node shows of one of its identities.
pub(super) struct Keys {
    pub(super) identifier: Identifier,
    pub(super) static_key: X25519Key,
    /// The payload of its handshake messages.
    pub(super) payload: Vec<u8>,
    /// The last second for which the identity vouches for the key, in Unix time.
    pub(super) expires_at: u64,
    history: ChangeHistory,
}

/// Why a claim is not believed.
pub(super) enum Doubt {
    /// It is not well-formed.
    Malformed,
    /// It is not true, as the end of a sentence.
    Untrue(String),
    /// What is known could not be read or written.
    Unreadable(Error),
}

pub(crate) struct Who {
    home: Home,
    node: NodeName,
    /// Opened when first needed, and its generation for which `keys` is right. One connection: closing a second one would
    /// take away the locks of the first.
    identities: Mutex<Option<(Identities, Option<u32>)>>,
    keys: Mutex<HashMap<Identifier, Arc<Keys>>>,
    /// The credentials that identities show.
    credentials: Mutex<HashMap<Identifier, Vec<u8>>>,
    own: Mutex<Option<Identifier>>,
}

impl Who {
    pub(super) fn new(home: Home, node: NodeName) -> Who {
        Who {
            home,
            node,
            identities: Mutex::default(),
            keys: Mutex::default(),
            credentials: Mutex::default(),
            own: Mutex::default(),
        }
    }

    /// The node's identity, as far as it is known.
    pub(super) fn own_if_known(&self) -> Option<Identifier> {
        *lock(&self.own)
    }

    /// The node's identity. It is the home's default one from the first time on that it is needed, unless another was
    /// decided on before; the default one is made if there is none.
    ///
    /// # Errors
    /// Those of the store and the vaults.
    pub(super) fn own(&self) -> Result<Identifier, Error> {
        if let Some(own) = self.own_if_known() {
            return Ok(own);
        }
        let mut identities = lock(&self.identities);
        *identities = None;
        let decided = SharedStore::open(&self.home)?.node_identity(&self.node)?;
        let own = match decided {
            Some(identifier) => identifier,
            None => {
                let identifier = Identities::open(&self.home)?.named_or_created(None)?.identifier;
                SharedStore::open(&self.home)?.set_node_identity(&self.node, &identifier)?;
                identifier
            }
        };
        *lock(&self.own) = Some(own);
        Ok(own)
    }

    /// The identity of ours with this name, or the node's.
    ///
    /// # Errors
    /// [`Error::NoSuchIdentity`], and as [`Who::own`].
    pub(super) fn named(&self, name: Option<&str>) -> Result<Identifier, Error> {
        match name {
            Some(name) => self.with(|identities, _| identities.named(Some(name)).map(|row| row.identifier)),
            None => self.own(),
        }
    }

    /// What the identity shows; the node's when absent.
    ///
    /// # Errors
    /// As [`Identities::channel_keys`] and [`Who::own`].
    pub(super) fn keys(&self, identity: Option<Identifier>) -> Result<Arc<Keys>, Error> {
        let identifier = identity.map_or_else(|| self.own(), Ok)?;
        self.with(|identities, checked| {
            let mut all = lock(&self.keys);
            // Another process may have changed the identity since.
            let generation = Some(identities.generation()?);
            if *checked != generation {
                forget_stale(&mut all, identities)?;
                *checked = generation;
            }
            if let Some(keys) = all.get(&identifier) {
                return Ok(keys.clone());
            }
            let read = identities.channel_keys(&identifier, unix_now())?;
            let credentials = lock(&self.credentials);
            let credential = credentials.get(&identifier).map(Vec::as_slice);
            let keys = Arc::new(Keys {
                identifier,
                payload: encode_payload(&read.history, &read.attestation, credential.as_slice()),
                static_key: read.static_key,
                expires_at: read.expires_at,
                history: read.history,
            });
            all.insert(identifier, keys.clone());
            Ok(keys)
        })
    }

    /// The identity shows this credential from now on, encoded, or none. Gives what tells peers so over channels that live.
    ///
    /// # Errors
    /// As [`Who::keys`].
    pub(super) fn show(&self, own: Identifier, credential: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, Error> {
        self.with(|_, _| {
            // Nobody reads keys meanwhile.
            lock(&self.keys).remove(&own);
            match &credential {
                Some(credential) => lock(&self.credentials).insert(own, credential.clone()),
                None => lock(&self.credentials).remove(&own),
            };
            Ok(())
        })?;
        let Some(credential) = credential else { return Ok(None) };
        Ok(Some(encode_refresh(&self.keys(Some(own))?.history, &[&credential])))
    }

    /// What is known of an identity, ours or not.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) fn known(&self, identifier: &Identifier) -> Result<Option<ChangeHistory>, Error> {
        self.with(|identities, _| identities.known(identifier))
    }

    /// Forgets keys that are no longer what the identity shows, and says which of `used` are no longer ours.
    ///
    /// # Errors
    /// Those of the store: nothing is known then.
    pub(super) fn deleted(&self, used: impl IntoIterator<Item = Identifier>) -> Result<Vec<Identifier>, Error> {
        let deleted = self.with(|identities, _| {
            let mut deleted = forget_stale(&mut lock(&self.keys), identities)?;
            for identifier in used {
                if !deleted.contains(&identifier) && !is_ours(identities, &identifier)? {
                    deleted.push(identifier);
                }
            }
            Ok(deleted)
        })?;
        let mut own = lock(&self.own);
        if own.is_some_and(|own| deleted.contains(&own)) {
            *own = None;
        }
        Ok(deleted)
    }

    /// Whether there are keys in memory.
    pub(super) fn has_keys(&self) -> bool {
        !lock(&self.keys).is_empty()
    }

    /// Decides whether a peer is who it says it is, and remembers what it showed (`wire.md` E.3, C.3).
    ///
    /// # Errors
    /// Why not.
    pub(super) fn judge(&self, claimed: &Claimed) -> Result<Peer, Doubt> {
        let claim = Claim::parse(&claimed.payload).map_err(|_| Doubt::Malformed)?;
        let judged = self.with(|identities, _| {
            let known = identities.known(&claim.identifier())?;
            let peer = match claim.authenticate(&claimed.static_key, known.as_ref(), unix_now()) {
                Ok(peer) => peer,
                Err(why) => return Ok(Err(why.to_string())),
            };
            if peer.is_news {
                match identities.remember(&peer.history) {
                    // Another process of this home learned more since.
                    Err(error @ Error::HistoryRefused { .. }) => return Ok(Err(error.to_string())),
                    remembered => remembered?,
                }
            }
            Ok(Ok(peer))
        });
        judged.map_err(Doubt::Unreadable)?.map_err(Doubt::Untrue)
    }

    /// The peer of a channel shows its identity as it is now (`wire.md` E.7, C.3). It is remembered when it is news.
    ///
    /// # Errors
    /// Why it is not believed, as the end of a sentence.
    pub(super) fn hear_history(&self, peer: &Identifier, encoded: &[u8]) -> Result<(), String> {
        let heard = self.with(|identities, _| {
            let known = identities.known(peer)?;
            // What was verified when it was stored needs no second look.
            if known.as_ref().is_some_and(|known| known.encoded() == encoded) {
                return Ok(Ok(()));
            }
            let history = match ChangeHistory::verify(encoded) {
                Ok(history) if history.identifier() == *peer => history,
                Ok(_) => return Ok(Err("it is another identity's".to_owned())),
                Err(error) => return Ok(Err(error.to_string())),
            };
            match identities.remember(&history) {
                Err(error @ Error::HistoryRefused { .. }) => Ok(Err(error.to_string())),
                remembered => remembered.map(|_| Ok(())),
            }
        });
        heard.unwrap_or_else(|error| Err(error.to_string()))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Identities, &mut Option<u32>) -> Result<T, Error>) -> Result<T, Error> {
        let mut opened = lock(&self.identities);
        if opened.is_none() {
            *opened = Some((Identities::open(&self.home)?, None));
        }
        let (identities, checked) = opened.as_mut().expect("it was opened");
        let worked = work(identities, checked);
        if matches!(worked, Err(Error::Database { .. } | Error::Storage { .. })) {
            // The file may have been replaced: the next one opens what is there then.
            *opened = None;
        }
        worked
    }
}

/// Forgets keys that are not what their identity shows now. Gives those whose identity is gone.
fn forget_stale(keys: &mut HashMap<Identifier, Arc<Keys>>, identities: &Identities) -> Result<Vec<Identifier>, Error> {
    let mut gone = Vec::new();
    let mut stale = Vec::new();
    for (identifier, keys) in keys.iter() {
        if !is_ours(identities, identifier)? {
            gone.push(*identifier);
        } else if identities.known(identifier)?.as_ref() != Some(&keys.history)
            || unix_now() + RENEW_BEFORE_SECS >= keys.expires_at
        {
            stale.push(*identifier);
        }
    }
    keys.retain(|identifier, _| !gone.contains(identifier) && !stale.contains(identifier));
    Ok(gone)
}

fn is_ours(identities: &Identities, identifier: &Identifier) -> Result<bool, Error> {
    match identities.named(Some(&identifier.to_string())) {
        Ok(_) => Ok(true),
        Err(Error::NoSuchIdentity { .. } | Error::NoIdentities) => Ok(false),
        Err(error) => Err(error),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
