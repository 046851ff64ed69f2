//! Credit and order of one connection between two of our nodes (`docs/wire-extensions.md`): pure counting.
//!
//! The receiver says up to which byte it takes; the sender stops reading its application there. The window, by which that
//! is ahead of what the receiver's application has taken, doubles while the application keeps up, halves while much waits
//! for it (and then does not grow for a while), and is small again once it takes nothing.

use crate::config::{PORTAL_QUEUE_MAX, PORTAL_WINDOW_MAX, PORTAL_WINDOW_MIN, SLOT_BODY};

/// An application that has taken all within this since it was granted more keeps up.
const KEEPS_UP_MS: u64 = 1_000;

/// For so long a window that was too large does not grow: an application that has taken all for a moment would only be sent
/// too much again.
const SHRUNK_MS: u64 = 1_000;

/// See the module.
#[derive(Debug)]
pub struct Flow {
    /// Bytes read from our application and sent to the other end.
    sent: u64,
    /// Bytes that the other end takes in all.
    limit: u64,
    /// The number of the next payload that is sent.
    next_out: u16,
    /// The number of the next payload that is received.
    next_in: u16,
    /// Bytes received from the other end.
    received: u64,
    /// Bytes that our application has taken.
    taken: u64,
    /// What the other end knows that we take in all.
    granted: u64,
    /// By how much `granted` may be ahead of `taken`.
    window: u64,
    /// When it was granted last, in milliseconds of the clock.
    granted_ms: u64,
    /// Until then the window does not grow.
    grows_ms: u64,
}

/// What the other end did is against what was agreed: a message was lost, or it is no node of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

impl Flow {
    /// A connection of which the other end takes `limit` bytes for a start, and we [`PORTAL_WINDOW_MIN`].
    pub fn new(limit: u32, now_ms: u64) -> Self {
        let window = u64::from(PORTAL_WINDOW_MIN);
        Flow {
            sent: 0,
            limit: limit.into(),
            next_out: 0,
            next_in: 0,
            received: 0,
            taken: 0,
            granted: window,
            window,
            granted_ms: now_ms,
            grows_ms: 0,
        }
    }

    /// Whether the other end takes more. What is read at once may end beyond its limit, by less than a slot.
    pub fn may_send(&self) -> bool {
        self.sent < self.limit
    }

    /// So many bytes are sent in a payload; gives its number.
    pub fn send(&mut self, length: usize) -> u16 {
        self.sent += length as u64;
        let number = self.next_out;
        self.next_out = number.wrapping_add(1);
        number
    }

    /// The number of the next payload.
    pub fn next_number(&self) -> u16 {
        self.next_out
    }

    /// Bytes sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// The other end takes so many bytes in all.
    pub fn extend(&mut self, limit: u64) {
        self.limit = self.limit.max(limit);
    }

    /// A payload came.
    ///
    /// # Errors
    /// One before it did not, or there is more than was granted.
    pub fn receive(&mut self, length: usize, number: Option<u16>) -> Result<(), Broken> {
        if number != Some(self.next_in) {
            return Err(Broken);
        }
        self.next_in = self.next_in.wrapping_add(1);
        self.received += length as u64;
        if self.received > self.granted + SLOT_BODY as u64 { Err(Broken) } else { Ok(()) }
    }

    /// The other end says that it sent `total` bytes and is done.
    ///
    /// # Errors
    /// They are not what came.
    pub fn end(&self, total: u64) -> Result<(), Broken> {
        if total == self.received { Ok(()) } else { Err(Broken) }
    }

    /// Our application took so many bytes.
    pub fn take(&mut self, length: usize) {
        self.taken += length as u64;
    }

    /// Whether it is time to tell the other end a new limit once our application has taken `length` more bytes.
    pub fn grants_after(&self, length: usize) -> bool {
        // Often enough that the sender seldom waits for it, seldom enough that it costs nothing.
        let step = (self.window / 8).max(u64::from(PORTAL_WINDOW_MIN) / 2);
        self.granted.saturating_sub(self.taken + length as u64) <= self.window - step
    }

    /// The new limit to tell the other end, if it is time to. `room` is by how many bytes the window may grow.
    pub fn grant(&mut self, now_ms: u64, room: u64) -> Option<Grant> {
        if !self.grants_after(0) {
            return None;
        }
        let before = self.window;
        let waiting = self.received - self.taken;
        if waiting == 0 && now_ms.saturating_sub(self.granted_ms) < KEEPS_UP_MS && now_ms >= self.grows_ms {
            self.window = (before * 2).min(PORTAL_WINDOW_MAX.into()).min(before.saturating_add(room));
        } else if waiting > PORTAL_QUEUE_MAX as u64 {
            // More would only wait here, and be copied.
            self.window = (before / 2).max(PORTAL_WINDOW_MIN.into());
            self.grows_ms = now_ms + SHRUNK_MS;
        }
        self.granted = self.granted.max(self.taken + self.window);
        self.granted_ms = now_ms;
        Some(Grant { limit: self.granted, window: self.window as i64 - before as i64 })
    }

    /// The application does not take what waits for it: what it is granted from now on is little. Gives by how much the
    /// window shrank.
    pub fn stall(&mut self) -> i64 {
        let shrunk = self.window - u64::from(PORTAL_WINDOW_MIN);
        self.window = PORTAL_WINDOW_MIN.into();
        shrunk as i64
    }
}

/// What [`Flow::grant`] gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// To tell the other end.
    pub limit: u64,
    /// By how many bytes the window grew or shrank.
    pub window: i64,
}

#[cfg(test)]
mod tests {
    use super::{Broken, Flow, Grant};
    use crate::config::{PORTAL_QUEUE_MAX, PORTAL_WINDOW_MAX, PORTAL_WINDOW_MIN, SLOT_BODY};

    const MIN: u64 = PORTAL_WINDOW_MIN as u64;

    #[test]
    fn a_sender_stops_at_the_limit() {
        let mut flow = Flow::new(10, 0);
        assert_eq!(flow.send(9), 0);
        assert!(flow.may_send());
        assert_eq!(flow.send(9), 1);
        assert!(!flow.may_send());
        flow.extend(18);
        assert!(!flow.may_send());
        flow.extend(19);
        flow.extend(3);
        assert!(flow.may_send());
        assert_eq!(flow.sent(), 18);
    }

    #[test]
    fn a_payload_that_is_missing_breaks_it() {
        let mut flow = Flow::new(0, 0);
        for number in (0..=u16::MAX).chain([0]) {
            assert_eq!(flow.receive(1, Some(number)), Ok(()));
        }
        assert_eq!(flow.receive(1, Some(2)), Err(Broken));
        assert_eq!(Flow::new(0, 0).receive(1, None), Err(Broken));
        assert_eq!(flow.end(65_537), Ok(()));
        assert_eq!(flow.end(65_538), Err(Broken));
    }

    #[test]
    fn more_than_was_granted_breaks_it() {
        let mut flow = Flow::new(0, 0);
        assert_eq!(flow.receive(MIN as usize + SLOT_BODY, Some(0)), Ok(()));
        assert_eq!(flow.receive(1, Some(1)), Err(Broken));
    }

    #[test]
    fn the_window_follows_the_application() {
        let mut flow = Flow::new(0, 0);
        let mut number = 0;
        let mut all = |flow: &mut Flow, length: u64| {
            flow.receive(length as usize, Some(number)).unwrap();
            number += 1;
            flow.take(length as usize);
        };
        assert_eq!(flow.grant(0, u64::MAX), None);
        all(&mut flow, MIN / 2);
        assert_eq!(flow.grant(10, u64::MAX), Some(Grant { limit: MIN / 2 + 2 * MIN, window: MIN as i64 }));
        // Without room it stays.
        all(&mut flow, MIN);
        assert_eq!(flow.grant(20, 0), Some(Grant { limit: MIN + MIN / 2 + 2 * MIN, window: 0 }));
        // One who is slow gets no more than before.
        all(&mut flow, MIN);
        assert_eq!(flow.grant(5_000, u64::MAX).unwrap().window, 0);
        for round in 0..20 {
            all(&mut flow, MIN);
            flow.grant(5_000 + round, u64::MAX);
            let ahead = flow.granted - flow.taken;
            assert!(ahead <= PORTAL_WINDOW_MAX.into());
        }
        // What only waits is not asked for again.
        flow.receive(PORTAL_QUEUE_MAX + 1, Some(number)).unwrap();
        flow.taken = flow.granted - PORTAL_QUEUE_MAX as u64;
        flow.received = flow.taken + PORTAL_QUEUE_MAX as u64 + 1;
        let before = flow.window as i64;
        assert_eq!(flow.grant(6_000, u64::MAX).unwrap().window, -before / 2);
        // Even when it has taken all of that, it is not sent more at once for a while.
        for (now_ms, grows) in [(6_500, false), (6_999, false), (7_000, true)] {
            flow.taken = flow.granted;
            flow.received = flow.taken;
            assert_eq!(flow.grant(now_ms, u64::MAX).unwrap().window > 0, grows);
        }
        // One who does not keep up falls back, but what was granted stands.
        let granted = flow.granted;
        assert!(flow.stall() > 0);
        assert_eq!(flow.granted, granted);
        assert_eq!(flow.window, MIN);
    }
}
