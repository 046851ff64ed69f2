//! The one place that reads time.

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since the machine started, suspension included: what expired while the machine slept is expired when it
/// wakes up.
pub fn now_ms() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}
