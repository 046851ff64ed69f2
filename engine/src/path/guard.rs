//! What the peer of a channel is granted: one thread writes it, all cores read it, and nobody waits for anybody.
//!
//! For each guard alone, whoever reads while something else is written sees what was granted, what is granted from now on,
//! or less. A bit and a time are read, so their order is what makes that so:
//!
//! ```text
//!   writer   count │ bits: those of before and after │ time │ bits: those of after │ count
//!   reader   count │ time │ bit │ time again │ count again
//! ```
//!
//! A bit that only the old grants have is not seen behind the new time, and one that only the new ones have is seen with
//! the new time behind it. That holds for one change; a reader whom the counts tell that another began or ended meanwhile
//! reads again. A writer that stops half-way holds nobody up.

use ockam_engine_abi::{GUARDS_MAX, Grants, Guard};
use std::sync::atomic::{AtomicU64, Ordering};

/// See the module.
#[derive(Debug)]
pub struct Granted {
    /// As [`ockam_engine_abi::GuardSet::words`].
    words: [AtomicU64; GUARDS_MAX / 64],
    /// From when on nothing is granted, in milliseconds of the clock.
    expires_ms: AtomicU64,
    /// Counted up when something else begins to be granted, and when that is done.
    changes: AtomicU64,
}

impl Granted {
    /// What control grants at `now_ms` of the clock.
    pub fn new(grants: &Grants, now_ms: u64) -> Self {
        Granted {
            words: grants.guards.words().map(AtomicU64::new),
            expires_ms: AtomicU64::new(expires_ms(grants, now_ms)),
            changes: AtomicU64::new(0),
        }
    }

    /// What control grants from now on, which is `now_ms` of the clock. Only one thread does this.
    pub fn replace(&self, grants: &Grants, now_ms: u64) {
        let new = grants.guards.words();
        self.changes.fetch_add(1, Ordering::Release);
        for (word, new) in self.words.iter().zip(new) {
            word.fetch_and(*new, Ordering::Release);
        }
        self.expires_ms.store(expires_ms(grants, now_ms), Ordering::Release);
        for (word, new) in self.words.iter().zip(new) {
            word.store(*new, Ordering::Release);
        }
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Moves with each change: what passed a guard after this was read passes it still while this stays the same.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Whether the peer is granted a guard at `now_ms` of the clock.
    pub fn has(&self, guard: Guard, now_ms: u64) -> bool {
        let Some(word) = self.words.get(usize::from(guard) / 64) else { return false };
        loop {
            let changes = self.changes();
            let before = self.expires_ms.load(Ordering::Acquire);
            let is_granted = word.load(Ordering::Acquire) >> (guard % 64) & 1 == 1;
            let after = self.expires_ms.load(Ordering::Acquire);
            if changes == self.changes.load(Ordering::Relaxed) {
                return is_granted && now_ms < before.min(after);
            }
        }
    }

    /// From when on nothing is granted, in milliseconds of the clock; `u64::MAX` if that never comes.
    pub fn expires_ms(&self) -> u64 {
        self.expires_ms.load(Ordering::Relaxed)
    }
}

fn expires_ms(grants: &Grants, now_ms: u64) -> u64 {
    grants.expire_in_ms.map_or(u64::MAX, |limit| now_ms.saturating_add(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often a test of what happens at the same time tries: Miri is ten thousand times slower, and interleaves by itself.
    const ROUNDS: u32 = if cfg!(miri) { 20 } else { 200_000 };

    fn grants(guards: &[Guard], expire_in_ms: Option<u64>) -> Grants {
        Grants { guards: guards.iter().copied().collect(), expire_in_ms }
    }

    #[test]
    fn grants_last_until_their_time() {
        let granted = Granted::new(&grants(&[0, 64, 1023], Some(100)), 1_000);
        for (guard, now_ms, has) in [
            (0, 1_000, true),
            (0, 1_099, true),
            (0, 1_100, false),
            (64, 1_099, true),
            (65, 1_000, false),
            (1023, 1_000, true),
            (1024, 1_000, false),
            (u16::MAX, 1_000, false),
        ] {
            assert_eq!(granted.has(guard, now_ms), has, "guard {guard} at {now_ms}");
        }
        granted.replace(&grants(&[1], None), 1_050);
        assert!(!granted.has(0, 1_050) && granted.has(1, u64::MAX - 1));
        assert_eq!(granted.expires_ms(), u64::MAX);
        granted.replace(&grants(&[1], Some(0)), 2_000);
        assert!(!granted.has(1, 2_000), "what expires at once was never granted");
    }

    /// Guard 0 is granted until 10, guard 1 until 20, by turns: guard 0 is never seen to have 20.
    #[test]
    fn half_of_a_change_grants_nothing_more() {
        let (short, long) = (grants(&[0], Some(10)), grants(&[1], Some(20)));
        let granted = Granted::new(&short, 0);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for _ in 0..ROUNDS {
                    granted.replace(&long, 0);
                    granted.replace(&short, 0);
                }
            });
            while !writer.is_finished() {
                assert!(!granted.has(0, 15), "guard 0 with the time of guard 1");
            }
        });
    }

    /// A guard that both grant is never missing while one takes the place of the other.
    #[test]
    fn what_stays_granted_is_granted_all_the_time() {
        let (few, many) = (grants(&[3], Some(50)), grants(&[2, 3, 70], None));
        let granted = Granted::new(&few, 0);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for _ in 0..ROUNDS / 2 {
                    granted.replace(&many, 0);
                    granted.replace(&few, 0);
                }
            });
            while !writer.is_finished() {
                assert!(granted.has(3, 40));
            }
        });
    }
}
