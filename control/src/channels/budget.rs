//! How much processor time may go into public-key work that peers ask for: a quarter of one core.

use std::time::{Duration, Instant};

/// Of each second. What is left is for the API, and on a machine with one core for the engine.
const SHARE: f64 = 0.25;

/// How much may be saved up: a burst of some hundred handshakes.
const SAVED_MAX: Duration = Duration::from_millis(100);

/// A bucket of processor time.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Seconds; below zero when the last piece of work took longer than there was.
    saved: f64,
    at: Instant,
}

impl Budget {
    /// A full one.
    pub(crate) fn new(now: Instant) -> Budget {
        Budget { saved: SAVED_MAX.as_secs_f64(), at: now }
    }

    /// How long to wait before the next piece of work.
    pub(crate) fn wait(&mut self, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now.max(self.at);
        self.saved = (self.saved + passed * SHARE).min(SAVED_MAX.as_secs_f64());
        Duration::from_secs_f64((-self.saved / SHARE).max(0.0))
    }

    /// A piece of work took this much processor time.
    pub(crate) fn spend(&mut self, time: Duration) {
        self.saved -= time.as_secs_f64();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_a_quarter_of_the_time() {
        let start = Instant::now();
        let mut now = start;
        let mut budget = Budget::new(now);
        let mut worked = Duration::ZERO;
        let piece = Duration::from_micros(400);
        while now < start + Duration::from_secs(10) {
            now += budget.wait(now);
            budget.spend(piece);
            now += piece;
            worked += piece;
        }
        let expected = Duration::from_secs(10) / 4 + SAVED_MAX;
        assert!(worked.abs_diff(expected) < Duration::from_millis(5), "{worked:?}");
        // What was not used is saved up to the limit and no further.
        now += Duration::from_secs(3600);
        assert_eq!(budget.wait(now), Duration::ZERO);
        budget.spend(SAVED_MAX + piece);
        assert!(budget.wait(now).abs_diff(4 * piece) < Duration::from_micros(1));
    }
}
