//! How often a peer may cause something.

/// Tokens for what a peer may cause.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    tokens: u32,
    filled_ms: u64,
}

impl Bucket {
    /// A full bucket.
    pub fn new(burst: u32, now_ms: u64) -> Self {
        Bucket { tokens: burst, filled_ms: now_ms }
    }

    /// Takes a token if there is one.
    pub fn take(&mut self, burst: u32, per_second: u32, now_ms: u64) -> bool {
        let due = now_ms.saturating_sub(self.filled_ms) * u64::from(per_second) / 1000;
        if due > 0 {
            self.tokens = burst.min(self.tokens.saturating_add(due.min(u64::from(burst)) as u32));
            self.filled_ms = now_ms;
        }
        let taken = self.tokens > 0;
        self.tokens -= u32::from(taken);
        taken
    }
}
