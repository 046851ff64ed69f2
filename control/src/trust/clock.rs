//! What time it is for what authorities attest. It never goes back: a clock that is set back, or a machine that starts
//! with a wrong one, gives nobody anything again that was over.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The latest time that was seen, here or by a control before this one.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    latest: AtomicU64,
    /// Seconds by which tests set the clock of the machine.
    skew: AtomicI64,
}

impl Clock {
    /// A clock that has shown `latest` before, in Unix time.
    pub(super) fn new(latest: u64) -> Clock {
        Clock { latest: AtomicU64::new(latest), skew: AtomicI64::new(0) }
    }

    /// Seconds since 1970, or the latest that ever were.
    pub(crate) fn now(&self) -> u64 {
        let wall = self.wall();
        self.latest.fetch_max(wall, Ordering::Relaxed).max(wall)
    }

    /// By how many seconds the machine's clock is behind the latest time that was seen.
    pub(super) fn behind(&self) -> u64 {
        self.now().saturating_sub(self.wall())
    }

    fn wall(&self) -> u64 {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        wall.saturating_add_signed(self.skew.load(Ordering::Relaxed))
    }

    /// Sets the machine's clock, as far as this sees it.
    #[cfg(test)]
    pub(crate) fn set(&self, skew: i64) {
        self.skew.store(skew, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_goes_back() {
        let clock = Clock::new(0);
        let began = clock.now();
        clock.set(3600);
        assert!(clock.now() >= began + 3600);
        let late = clock.now();
        for skew in [0, -3600, i64::MIN] {
            clock.set(skew);
            assert!(clock.now() >= late);
            assert!(clock.behind() >= 3600 - 60);
        }
        clock.set(i64::MAX);
        assert!(clock.now() > u64::from(u32::MAX));
        // Another control begins where this one was.
        assert!(Clock::new(late + 5).now() >= late + 5);
        assert_eq!(Clock::new(0).behind(), 0);
    }
}
