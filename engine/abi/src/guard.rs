//! Guards: which places of a node admit whom. Control decides who is granted what; the engine tests bits and times.

use crate::record::{DecodeError, Field};

/// How many places of a node can be guarded, each by itself.
pub const GUARDS_MAX: usize = 1024;

const WORDS: usize = GUARDS_MAX / 64;

/// The number of a guard, below [`GUARDS_MAX`].
pub type Guard = u16;

/// A set of guards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct GuardSet([u64; WORDS]);

impl GuardSet {
    /// No guard.
    pub const NONE: GuardSet = GuardSet([0; WORDS]);
    /// All of them.
    pub const ALL: GuardSet = GuardSet([u64::MAX; WORDS]);

    /// Adds a guard, which is below [`GUARDS_MAX`].
    pub fn insert(&mut self, guard: Guard) {
        self.0[usize::from(guard) / 64] |= 1 << (guard % 64);
    }

    /// Removes a guard, which is below [`GUARDS_MAX`].
    pub fn remove(&mut self, guard: Guard) {
        self.0[usize::from(guard) / 64] &= !(1 << (guard % 64));
    }

    /// Whether a guard is among them; none from [`GUARDS_MAX`] on is.
    pub fn contains(&self, guard: Guard) -> bool {
        self.0.get(usize::from(guard) / 64).is_some_and(|word| word >> (guard % 64) & 1 == 1)
    }

    /// The guards as words of 64 bits, guard 0 in the lowest bit of the first.
    pub fn words(&self) -> &[u64; WORDS] {
        &self.0
    }
}

impl FromIterator<Guard> for GuardSet {
    fn from_iter<I: IntoIterator<Item = Guard>>(guards: I) -> Self {
        let mut set = GuardSet::NONE;
        guards.into_iter().for_each(|guard| set.insert(guard));
        set
    }
}

/// How many words, then the words; empty ones at the end are left out.
impl Field for GuardSet {
    fn put(&self, out: &mut Vec<u8>) {
        let used = WORDS - self.0.iter().rev().take_while(|word| **word == 0).count();
        (used as u8).put(out);
        self.0[..used].iter().for_each(|word| word.put(out));
    }
    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        let used = usize::from(u8::take(input)?);
        if used > WORDS {
            return Err(DecodeError::TooLong);
        }
        let mut set = GuardSet::NONE;
        for word in &mut set.0[..used] {
            *word = u64::take(input)?;
        }
        Ok(set)
    }
}

/// What the peer of a channel is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Grants {
    /// The guards that let it pass.
    pub guards: GuardSet,
    /// Milliseconds from now, after which none of them does. Forever when absent.
    pub expire_in_ms: Option<u64>,
}

impl Field for Grants {
    fn put(&self, out: &mut Vec<u8>) {
        self.guards.put(out);
        self.expire_in_ms.put(out);
    }
    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(Grants { guards: GuardSet::take(input)?, expire_in_ms: Field::take(input)? })
    }
}

/// What the peer of one channel is granted from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelGrants {
    /// Control's number for the channel.
    pub channel: u32,
    /// See [`Grants`].
    pub grants: Grants,
}

impl Field for ChannelGrants {
    fn put(&self, out: &mut Vec<u8>) {
        self.channel.put(out);
        self.grants.put(out);
    }
    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(ChannelGrants { channel: u32::take(input)?, grants: Grants::take(input)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_come_back() {
        let sets: [GuardSet; 5] = [
            GuardSet::NONE,
            GuardSet::ALL,
            [0].into_iter().collect(),
            [1023].into_iter().collect(),
            [63, 64, 700].into_iter().collect(),
        ];
        for set in sets {
            let mut bytes = Vec::new();
            set.put(&mut bytes);
            assert_eq!(GuardSet::take(&mut &bytes[..]), Ok(set));
            for cut in 0..bytes.len() {
                assert!(GuardSet::take(&mut &bytes[..cut]).is_err());
            }
        }
        assert_eq!(GuardSet::take(&mut &[17; 300][..]), Err(DecodeError::TooLong));
    }

    #[test]
    fn guards_come_and_go() {
        let mut set = GuardSet::NONE;
        set.insert(64);
        assert!(set.contains(64) && !set.contains(0) && !set.contains(65));
        set.remove(64);
        assert_eq!(set, GuardSet::NONE);
        assert!(GuardSet::ALL.contains(1023) && !GuardSet::ALL.contains(1024) && !GuardSet::ALL.contains(u16::MAX));
    }
}
