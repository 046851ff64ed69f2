//! Who this node is and who others are, for as long as its control lives: one connection to the shared database, keys
//! kept once they were read. Everything here blocks.

use super::unix_now;
use crate::error::Error;
use crate::home::{Home, NodeName};
use crate::identities::Identities;
use crate::store::SharedStore;
use hashlink::LruCache;
use ockam_crypto::{ChangeHistory, Claim, Identifier, Peer, X25519Key, encode_payload, encode_refresh};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// How long before the end of a key it is looked at anew, in seconds: by then there may be another one.
const RENEW_BEFORE_SECS: u64 = 86_400;

/// How many peers are kept as they were authenticated last: those who come again cost no verification. Below a kilobyte
/// each, unless they have changed their key often.
const ACQUAINTANCES_MAX: usize = 1024;

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
    /// The credentials that identities show, encoded, and since when.
    credentials: Mutex<HashMap<Identifier, (Vec<u8>, Instant)>>,
    own: Mutex<Option<Identifier>>,
    /// Peers that were known already when they came, the latest ones.
    acquaintances: Mutex<LruCache<Identifier, Peer>>,
    /// Peers with one key each that are not in the database yet.
    strangers: Mutex<Vec<ChangeHistory>>,
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
            acquaintances: Mutex::new(LruCache::new(ACQUAINTANCES_MAX)),
            strangers: Mutex::default(),
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
            let credential = credentials.get(&identifier).map(|(credential, _)| credential.as_slice());
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
            match credential {
                Some(credential) => lock(&self.credentials).insert(own, (credential, Instant::now())),
                None => lock(&self.credentials).remove(&own),
            };
            Ok(())
        })?;
        self.refresh(own)
    }

    /// Whether the identity shows another credential than at `since`.
    pub(super) fn shows_other_since(&self, own: &Identifier, since: Instant) -> bool {
        lock(&self.credentials).get(own).is_some_and(|(_, shown_since)| *shown_since >= since)
    }

    /// What tells a peer of the credential that the identity shows, if it shows one.
    ///
    /// # Errors
    /// As [`Who::keys`].
    pub(super) fn refresh(&self, own: Identifier) -> Result<Option<Vec<u8>>, Error> {
        let Some((credential, _)) = lock(&self.credentials).get(&own).cloned() else { return Ok(None) };
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

    /// Decides whether a peer is who it says it is: it holds the secret of `static_key`. What it showed is remembered
    /// (`wire.md` E.3, C.3), of a stranger when [`Who::note_strangers`] is called.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn judge(&self, claim: &Claim<'_>, static_key: &[u8; 32]) -> Result<Peer, Doubt> {
        let (identifier, now) = (claim.identifier(), unix_now());
        let judged = self.with(|identities, _| {
            let mut acquaintances = lock(&self.acquaintances);
            let before = match acquaintances.get(&identifier) {
                // Something else was learned of it since, perhaps by another process.
                Some(before) if !identities.is_known(&before.history)? => None,
                before => before,
            };
            let authenticated = match before {
                Some(before) => claim.authenticate_again(static_key, before, now),
                None => claim.authenticate(static_key, identities.known(&identifier)?.as_ref(), now),
            };
            let peer = match authenticated {
                Ok(peer) => peer,
                Err(why) => return Ok(Err(why.to_string())),
            };
            if !peer.is_news {
                if before.is_none_or(|before| before.attestation != peer.attestation) {
                    acquaintances.insert(identifier, peer.clone());
                }
            } else if peer.history.changes().len() == 1 {
                lock(&self.strangers).push(peer.history.clone());
            } else {
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

    /// Writes down the strangers that were judged: several together, since a transaction costs as much as a handshake.
    /// One that is lost is a stranger once more.
    pub(super) fn note_strangers(&self) {
        let strangers = std::mem::take(&mut *lock(&self.strangers));
        if strangers.is_empty() {
            return;
        }
        if let Err(error) = self.with(|identities, _| identities.remember_strangers(&strangers)) {
            tracing::warn!(%error, peers = strangers.len(), "cannot remember who was met");
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use ockam_crypto::{Attestation, PurposePublicKey, Secret, SigningKey, Validity};

    fn who() -> (tempfile::TempDir, Who) {
        let directory = tempfile::tempdir().unwrap();
        let who = Who::new(Home::at(directory.path().join("home")), "n1".parse().unwrap());
        (directory, who)
    }

    fn key(number: u8) -> SigningKey {
        SigningKey::new(Secret::new([number; 32]))
    }

    fn validity() -> Validity {
        Validity { from: unix_now(), until: unix_now() + 3600 }
    }

    /// What an identity with this key shows for the static key `[number; 32]`.
    fn payload(history: &ChangeHistory, identity_key: u8, number: u8) -> Vec<u8> {
        let purpose = PurposePublicKey::SecureChannel([number; 32]);
        let (from, until) = (unix_now(), unix_now() + 1800);
        let attestation = Attestation::create(history, &key(identity_key), purpose, from, until).unwrap();
        encode_payload(history, &attestation, &[])
    }

    fn judge(who: &Who, payload: &[u8], number: u8) -> Result<Peer, String> {
        who.judge(&Claim::parse(payload).unwrap(), &[number; 32]).map_err(|doubt| match doubt {
            Doubt::Untrue(why) => why,
            Doubt::Unreadable(error) => panic!("{error}"),
        })
    }

    #[test]
    fn who_comes_again_is_an_acquaintance_and_who_came_once_is_not() {
        let (_directory, who) = who();
        let kept = |who: &Who| lock(&who.acquaintances).len();
        let history = ChangeHistory::create(&key(1), validity()).unwrap();
        let shown = payload(&history, 1, 9);
        assert!(judge(&who, &shown, 9).unwrap().is_news);
        assert_eq!(kept(&who), 0, "strangers come as fast as they like");
        // It is not written down yet.
        assert!(judge(&who, &shown, 9).unwrap().is_news);
        who.note_strangers();
        assert!(lock(&who.strangers).is_empty());
        assert_eq!(who.known(&history.identifier()).unwrap(), Some(history.clone()));
        for _ in 0..3 {
            assert!(!judge(&who, &shown, 9).unwrap().is_news);
            assert_eq!(kept(&who), 1);
        }
        // Another key of the same identity takes the place of the one before; somebody else's does not.
        let before = judge(&who, &shown, 9).unwrap();
        assert!(judge(&who, &shown, 8).unwrap_err().contains("another key"));
        let after = judge(&who, &payload(&history, 1, 8), 8).unwrap();
        assert_ne!(after.attestation, before.attestation);
        assert_eq!(lock(&who.acquaintances).get(&history.identifier()), Some(&after));
        assert!(judge(&who, &payload(&history, 1, 7), 8).is_err());
        assert_eq!(lock(&who.acquaintances).get(&history.identifier()), Some(&after));
    }

    #[test]
    fn an_acquaintance_is_judged_by_what_others_have_learned_since() {
        let (_directory, who) = who();
        let before = ChangeHistory::create(&key(1), validity()).unwrap();
        let shown = payload(&before, 1, 9);
        judge(&who, &shown, 9).unwrap();
        who.note_strangers();
        assert!(!judge(&who, &shown, 9).unwrap().is_news);
        // Another process meets it with its next key.
        let after = before.rotate(&key(1), &key(2), validity()).unwrap();
        Identities::open(&who.home).unwrap().remember(&after).unwrap();
        assert!(judge(&who, &shown, 9).unwrap_err().contains("older"));
        let shown = payload(&after, 2, 9);
        for _ in 0..2 {
            assert_eq!(judge(&who, &shown, 9).unwrap().history, after);
        }
        // And this one with the one after that.
        let latest = after.rotate(&key(2), &key(3), validity()).unwrap();
        assert!(judge(&who, &payload(&latest, 3, 9), 9).unwrap().is_news);
        assert_eq!(who.known(&latest.identifier()).unwrap(), Some(latest));
        assert!(judge(&who, &shown, 9).unwrap_err().contains("older"));
    }

    #[test]
    fn the_latest_acquaintances_are_kept_and_no_more() {
        let (_directory, who) = who();
        let history = ChangeHistory::create(&key(1), validity()).unwrap();
        let shown = payload(&history, 1, 9);
        judge(&who, &shown, 9).unwrap();
        who.note_strangers();
        let peer = judge(&who, &shown, 9).unwrap();
        for number in 0..ACQUAINTANCES_MAX as u32 {
            let mut identifier = [0; 32];
            identifier[..4].copy_from_slice(&number.to_be_bytes());
            lock(&who.acquaintances).insert(Identifier(identifier), peer.clone());
        }
        let acquaintances = lock(&who.acquaintances);
        assert_eq!(acquaintances.len(), ACQUAINTANCES_MAX);
        assert!(!acquaintances.contains_key(&history.identifier()));
    }
}
