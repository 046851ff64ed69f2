//! With what an authority signs: read once, and anew when another process has rotated the identity, or time has brought a
//! key near its end. Everything here blocks.

use crate::error::Error;
use crate::home::{Home, NodeName};
use crate::identities::{Identities, IssuingKeys, RENEW_ISSUING_BEFORE_SECS};
use crate::store::SharedStore;
use ockam_crypto::Identifier;

pub(super) struct Keys {
    home: Home,
    node: NodeName,
    opened: Option<(SharedStore, Identities)>,
    /// And the generation of what they were read from.
    keys: Option<(IssuingKeys, u32)>,
}

impl Keys {
    pub(super) fn new(home: Home, node: NodeName) -> Keys {
        Keys { home, node, opened: None, keys: None }
    }

    /// The keys for what is issued at `now`, in seconds of Unix time.
    ///
    /// # Errors
    /// As [`Identities::issuing_keys`]; [`Error::NoIdentities`] when it is not decided who the node is.
    pub(super) fn at(&mut self, now: u64) -> Result<&IssuingKeys, Error> {
        if let Err(error) = self.look(now) {
            // The files may have been replaced: the next one opens what is there then.
            self.opened = None;
            self.keys = None;
            return Err(error);
        }
        self.keys.as_ref().map(|(keys, _)| keys).ok_or_else(|| Error::internal("keys that were looked at are gone"))
    }

    /// What the latest change of this identity hashes to, as far as anybody told.
    ///
    /// # Errors
    /// Those of the database.
    pub(super) fn latest_change(&mut self, identifier: &Identifier) -> Result<Option<[u8; 32]>, Error> {
        let (_, identities) = self.open()?;
        Ok(identities.known(identifier)?.map(|history| history.latest().hash))
    }

    fn look(&mut self, now: u64) -> Result<(), Error> {
        let node = self.node.clone();
        let (_, identities) = self.open()?;
        let generation = identities.generation()?;
        if self.keys.as_ref().is_some_and(|(keys, read)| *read == generation && is_long(keys, now)) {
            return Ok(());
        }
        let (store, identities) = self.open()?;
        let identifier = store.node_identity(&node)?.ok_or(Error::NoIdentities)?;
        let history = identities.known(&identifier)?;
        let same = self.keys.take().filter(|(keys, _)| Some(&keys.history) == history.as_ref() && is_long(keys, now));
        let keys = match same {
            // Something else has changed, such as what is known of others.
            Some((keys, _)) => keys,
            None => self.open()?.1.issuing_keys(&identifier, now)?,
        };
        self.keys = Some((keys, generation));
        Ok(())
    }

    fn open(&mut self) -> Result<&mut (SharedStore, Identities), Error> {
        if self.opened.is_none() {
            self.opened = Some((SharedStore::open(&self.home)?, Identities::open(&self.home)?));
        }
        self.opened.as_mut().ok_or_else(|| Error::internal("what was opened is gone"))
    }
}

/// Whether a key is far from its end, or ends with its identity's, so that a new one would end then, too.
fn is_long(keys: &IssuingKeys, now: u64) -> bool {
    let is_last = keys.expires_at >= keys.history.latest().validity.until && keys.expires_at >= now;
    is_last || keys.expires_at >= now.saturating_add(RENEW_ISSUING_BEFORE_SECS)
}
