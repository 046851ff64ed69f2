//! The records of a secure channel, sealed and opened where they lie (`wire.md` E.5, E.6):
//!
//! ```text
//!   | nonce, u64 big-endian |  text  | tag |
//!   |<-------- 8 --------->|        |<16->|
//! ```
//!
//! A channel end has a [`Sealer`] for what it sends and an [`Opener`] for what it receives, each made from its own
//! key. The sealer counts by itself, so that no nonce can have two messages.

use crate::aead::{self, Key, TAG_LEN};
use crate::rekey::{self, REKEY_INTERVAL, REKEY_NONCE};
use crate::secret::Secret;
use crate::window::{Refused, Window};

/// Bytes of the nonce in front of a record's text.
pub const NONCE_LEN: usize = 8;

/// Bytes that a record has beside its text.
pub const RECORD_OVERHEAD: usize = NONCE_LEN + TAG_LEN;

/// The sending half of a channel end. Neither cloned nor rewound.
///
/// ```compile_fail
/// let sealer = ockam_crypto::Sealer::new(ockam_crypto::Secret::new([7; 32]));
/// let twin = sealer.clone();
/// ```
#[derive(Debug)]
pub struct Sealer {
    key: Key,
    next: u64,
}

impl Sealer {
    /// Starts at nonce 0. The key is wiped.
    pub fn new(key: Secret) -> Self {
        Sealer { key: Key::new(key.expose()), next: 0 }
    }

    /// Seals the text that lies between the first 8 and the last 16 bytes of `record`, and writes those; gives the
    /// nonce. Every 32nd message first derives the next key.
    ///
    /// # Errors
    /// [`Exhausted`] when no nonce is left; `record` is untouched, and the channel must end.
    ///
    /// # Panics
    /// When `record` is shorter than [`RECORD_OVERHEAD`].
    pub fn seal_in_place(&mut self, record: &mut [u8]) -> Result<u64, Exhausted> {
        let (head, text, tag) = split(record).expect("a record has room for its nonce and its tag");
        let nonce = self.next;
        (*head, *tag) = self.seal_detached(text)?;
        Ok(nonce)
    }

    /// The record of a text, for those who have no buffer of their own.
    ///
    /// # Errors
    /// As [`Sealer::seal_in_place`].
    pub fn seal(&mut self, text: &[u8]) -> Result<Vec<u8>, Exhausted> {
        let mut record = vec![0; RECORD_OVERHEAD + text.len()];
        record[NONCE_LEN..][..text.len()].copy_from_slice(text);
        self.seal_in_place(&mut record)?;
        Ok(record)
    }

    /// As [`Sealer::seal_in_place`], for a text whose nonce and tag lie elsewhere: gives both.
    ///
    /// # Errors
    /// [`Exhausted`] when no nonce is left; `text` is untouched, and the channel must end.
    pub fn seal_detached(&mut self, text: &mut [u8]) -> Result<([u8; NONCE_LEN], [u8; TAG_LEN]), Exhausted> {
        let nonce = self.next;
        if nonce == REKEY_NONCE {
            return Err(Exhausted);
        }
        if nonce.is_multiple_of(REKEY_INTERVAL) && nonce != 0 {
            self.key = rekey::next(&self.key);
        }
        self.next = nonce + 1;
        Ok((nonce.to_be_bytes(), self.key.seal(&aead::nonce(nonce), &[], text)))
    }

    /// How many messages have been sealed; the nonce of the next one.
    pub fn sealed(&self) -> u64 {
        self.next
    }
}

/// Every nonce of a direction has been used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the channel has sealed as many messages as it can")]
pub struct Exhausted;

/// The receiving half of a channel end: keys of up to three neighbouring blocks, and the replay window.
#[derive(Debug)]
pub struct Opener {
    /// The block of the highest nonce accepted, and its key.
    block: u64,
    current: Key,
    /// For messages that arrive late. `None` in block 0.
    previous: Option<Key>,
    /// Derived for a message of the next block that turned out not to be genuine, and kept, so that a flood of such
    /// messages costs one derivation.
    next: Option<Key>,
    window: Window,
}

impl Opener {
    /// Has seen nothing yet. The key is wiped.
    pub fn new(key: Secret) -> Self {
        let current = Key::new(key.expose());
        Opener { block: 0, current, previous: None, next: None, window: Window::default() }
    }

    /// Opens a record where it lies. Exactly one key is tried, the one of the nonce's block.
    ///
    /// # Errors
    /// When the record is not genuine, not new or too far away; window, keys and counters are as before then. After
    /// [`OpenError::BadTag`] the text in `record` has been overwritten with zeros.
    pub fn open_in_place<'r>(&mut self, record: &'r mut [u8]) -> Result<Opened<'r>, OpenError> {
        let (head, text, tag) = split(record).ok_or(OpenError::TooShort)?;
        let nonce = u64::from_be_bytes(*head);
        if nonce == REKEY_NONCE {
            return Err(OpenError::ReservedNonce);
        }
        let admitted = self.window.admit(nonce).map_err(|refused| match refused {
            Refused::Outside => OpenError::OutsideWindow,
            Refused::Replayed => OpenError::Replayed,
        })?;
        // The window is one block wide, so that what it admits is at most one block away from its highest nonce.
        let ahead = rekey::block(nonce).wrapping_sub(self.block) as i64;
        let key = match ahead {
            0 => &self.current,
            1 => self.next.get_or_insert_with(|| rekey::next(&self.current)),
            -1 => self.previous.as_ref().expect("every block but the first has a previous one"),
            _ => unreachable!("nonce {nonce} was admitted in block {}", self.block),
        };
        key.open(&aead::nonce(nonce), &[], text, tag).map_err(|_| OpenError::BadTag)?;
        if ahead == 1 {
            let next = self.next.take().expect("the key that opened the record");
            self.previous = Some(std::mem::replace(&mut self.current, next));
            self.block += 1;
        }
        self.window.record(admitted);
        Ok(Opened { nonce, text })
    }
}

/// What a record held.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'r> {
    /// The number of the message in its direction.
    pub nonce: u64,
    /// The text, where it lay sealed.
    pub text: &'r mut [u8],
}

/// Why a record was dropped. None of them ends the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum OpenError {
    /// Shorter than [`RECORD_OVERHEAD`].
    #[error("the record is too short to hold a nonce and a tag")]
    TooShort,
    /// The nonce is 2^64 - 1, which derives keys and numbers no message.
    #[error("the record has the reserved nonce")]
    ReservedNonce,
    /// The nonce is more than [`WINDOW`](crate::WINDOW) away from the highest one accepted.
    #[error("the record is too old or too far ahead")]
    OutsideWindow,
    /// A record with this nonce was accepted before.
    #[error("the record was received before")]
    Replayed,
    /// Not sealed by the peer with this nonce, or changed on its way.
    #[error("the record is not genuine")]
    BadTag,
}

type Parts<'r> = (&'r mut [u8; NONCE_LEN], &'r mut [u8], &'r mut [u8; TAG_LEN]);

fn split(record: &mut [u8]) -> Option<Parts<'_>> {
    let (head, rest) = record.split_first_chunk_mut()?;
    let (text, tag) = rest.split_last_chunk_mut()?;
    Some((head, text, tag))
}

#[cfg(test)]
mod tests;
