//! Which nonces a receiver accepts (`wire.md` E.6). With `c` the highest accepted one, 0 at first:
//!
//! ```text
//!        c - 32 ................ c ................ c + 32
//!   old |  accepted unless seen  |     accepted     | too far ahead
//! ```
//!
//! Nothing moves before a message has been authenticated: [`Window::admit`] only looks and gives a proof, which
//! [`Window::record`] wants back.

/// How far a nonce may be from the highest accepted one, in either direction.
pub const WINDOW: u64 = 32;

/// The bits of `c` and of the 32 nonces below it.
const MASK: u64 = (1 << (WINDOW + 1)) - 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Outside,
    Replayed,
}

/// A nonce that the window would accept.
#[must_use]
#[derive(Debug)]
pub(crate) struct Admitted(u64);

/// Bit `i` of `seen` says whether `highest - i` was accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Window {
    highest: u64,
    seen: u64,
}

impl Window {
    /// A window that accepted `highest` and nothing else.
    #[cfg(test)]
    pub(crate) fn at(highest: u64) -> Self {
        Window { highest, seen: 1 }
    }

    pub(crate) fn admit(&self, nonce: u64) -> Result<Admitted, Refused> {
        if nonce.abs_diff(self.highest) > WINDOW {
            return Err(Refused::Outside);
        }
        match self.highest.checked_sub(nonce) {
            Some(behind) if self.seen >> behind & 1 == 1 => Err(Refused::Replayed),
            _ => Ok(Admitted(nonce)),
        }
    }

    pub(crate) fn record(&mut self, Admitted(nonce): Admitted) {
        match self.highest.checked_sub(nonce) {
            Some(behind) => self.seen |= 1 << behind,
            None => {
                self.seen = (self.seen << (nonce - self.highest) | 1) & MASK;
                self.highest = nonce;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn accept(window: &mut Window, nonce: u64) -> bool {
        match window.admit(nonce) {
            Ok(admitted) => {
                window.record(admitted);
                true
            }
            Err(_) => false,
        }
    }

    /// The rule by the book: every accepted nonce is remembered for ever.
    #[derive(Default)]
    struct Model(BTreeSet<u64>);

    impl Model {
        fn accept(&mut self, nonce: u64) -> bool {
            let highest = self.0.last().copied().unwrap_or(0);
            let near = if nonce > highest { nonce - highest <= 32 } else { highest - nonce <= 32 };
            near && self.0.insert(nonce)
        }
    }

    /// `wire.md` K.4.
    #[test]
    fn the_published_sequence() {
        let mut window = Window::default();
        let mut step = |nonce, expected| assert_eq!(accept(&mut window, nonce), expected, "nonce {nonce}");
        for (nonce, expected) in [(0, true), (1, true), (0, false), (34, false), (33, true), (1, false), (34, true)] {
            step(nonce, expected);
        }
        for (nonce, expected) in [(35, true), (33, false), (34, false), (64, true), (31, false), (96, true)] {
            step(nonce, expected);
        }
        step(128, true);
        (97..=127).for_each(|nonce| step(nonce, true));
        (129..=160).for_each(|nonce| step(nonce, true));
    }

    /// `wire.md` N.1: a fresh channel accepts 32 and not 33; later h + 32, not h + 33; h - 32, not h - 33.
    #[test]
    fn the_edges() {
        assert_eq!(Window::default().admit(33).unwrap_err(), Refused::Outside);
        let mut window = Window::default();
        assert!(accept(&mut window, 32));
        assert_eq!(window.admit(65).unwrap_err(), Refused::Outside);
        assert!(accept(&mut window, 64));
        assert_eq!(window.admit(31).unwrap_err(), Refused::Outside);
        assert_eq!(window.admit(32).unwrap_err(), Refused::Replayed);
        let mut late = Window::at(64);
        assert!(accept(&mut late, 32));
        assert_eq!(late.admit(32).unwrap_err(), Refused::Replayed);
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let mut window = Window::at(u64::MAX - 3);
        assert!(accept(&mut window, u64::MAX));
        assert!(accept(&mut window, u64::MAX - 32));
        assert!(!accept(&mut window, u64::MAX - 33));
        assert!(!accept(&mut window, 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// Steps relative to the highest nonce, so that most of them fall on and around the edges.
        #[test]
        fn agrees_with_the_model(start in 0u64..100, steps in prop::collection::vec(-40i64..=40, 0..200)) {
            let (mut window, mut model) = (Window::default(), Model::default());
            let mut nonces = vec![start];
            for step in steps {
                let highest = model.0.last().copied().unwrap_or(0);
                nonces.push(highest.saturating_add_signed(step));
                let nonce = nonces[nonces.len() - 1];
                prop_assert_eq!(accept(&mut window, nonce), model.accept(nonce), "nonce {} at {}", nonce, highest);
            }
        }

        /// Any order of any nonces: none twice.
        #[test]
        fn accepts_a_nonce_at_most_once(nonces in prop::collection::vec(0u64..96, 0..400)) {
            let mut window = Window::default();
            let mut accepted = BTreeSet::new();
            for nonce in nonces {
                if accept(&mut window, nonce) {
                    prop_assert!(accepted.insert(nonce), "{} was accepted twice", nonce);
                }
            }
        }
    }
}
