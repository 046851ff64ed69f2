//! With what an authority signs: read once, and looked at anew every second, because another process may rotate the
//! identity and time may bring a key near its end. Everything here blocks.

use crate::error::Error;
use crate::home::{Home, NodeName};
use crate::identities::{Identities, IssuingKeys, RENEW_ISSUING_BEFORE_SECS};
use crate::store::SharedStore;
use ockam_crypto::Identifier;
use std::time::{Duration, Instant};

/// For how long nothing is looked at.
const TRUSTED: Duration = Duration::from_secs(1);

pub(super) struct Keys {
    home: Home,
    node: NodeName,
    opened: Option<(SharedStore, Identities)>,
    keys: Option<IssuingKeys>,
    checked: Option<Instant>,
}

impl Keys {
    pub(super) fn new(home: Home, node: NodeName) -> Keys {
        Keys { home, node, opened: None, keys: None, checked: None }
    }

    /// The keys for what is issued at `now`, in seconds of Unix time.
    ///
    /// # Errors
    /// As [`Identities::issuing_keys`]; [`Error::NoIdentities`] when it is not decided who the node is.
    pub(super) fn at(&mut self, now: u64) -> Result<&IssuingKeys, Error> {
        if self.keys.is_none() || self.checked.is_none_or(|checked| checked.elapsed() >= TRUSTED) {
            if let Err(error) = self.look(now) {
                // The files may have been replaced: the next one opens what is there then.
                self.opened = None;
                self.keys = None;
                return Err(error);
            }
            self.checked = Some(Instant::now());
        }
        self.keys.as_ref().ok_or_else(|| Error::internal("keys that were looked at are gone"))
    }

    /// What the latest change of this identity hashes to, as far as anybody told.
    ///
    /// # Errors
    /// Those of the database.
    pub(super) fn latest_change(&mut self, identifier: &Identifier) -> Result<Option<[u8; 32]>, Error> {
        let (_, identities) = self.open()?;
        Ok(identities.known(identifier)?.map(|history| history.latest().hash))
    }

    /// What was read is looked at anew.
    #[cfg(test)]
    pub(super) fn forget(&mut self) {
        self.checked = None;
    }

    fn look(&mut self, now: u64) -> Result<(), Error> {
        let node = self.node.clone();
        let (store, identities) = self.open()?;
        let identifier = store.node_identity(&node)?.ok_or(Error::NoIdentities)?;
        let history = identities.known(&identifier)?;
        let is_right = |keys: &IssuingKeys| {
            // A new one would end with the identity's key, too.
            let is_last = keys.expires_at >= keys.history.latest().validity.until && keys.expires_at >= now;
            let is_long = keys.expires_at >= now.saturating_add(RENEW_ISSUING_BEFORE_SECS);
            history.as_ref() == Some(&keys.history) && (is_last || is_long)
        };
        if !self.keys.as_ref().is_some_and(is_right) {
            let (_, identities) = self.open()?;
            self.keys = Some(identities.issuing_keys(&identifier, now)?);
        }
        Ok(())
    }

    fn open(&mut self) -> Result<&mut (SharedStore, Identities), Error> {
        if self.opened.is_none() {
            self.opened = Some((SharedStore::open(&self.home)?, Identities::open(&self.home)?));
        }
        self.opened.as_mut().ok_or_else(|| Error::internal("what was opened is gone"))
    }
}
