//! What our nodes and real Ockam 0.150 nodes do to each other. `README.md` says how to run this; numbers like A.7 are
//! sections of the wire specification that the tests hold both to.
//!
//! A module per theme. Where a theme is about one node and a plain socket, each check runs twice, against a real node
//! and against ours, so that the expectation itself is tested: a check that a real node fails is wrong.

/// Runs each named check against a real node and against one of ours.
macro_rules! both {
    ($($(#[$attribute:meta])* $check:ident),* $(,)?) => {$(
        $(#[$attribute])*
        mod $check {
            use ockam_interop::{Kind, Peer};

            #[test]
            fn real() {
                super::$check(&Peer::start(Kind::Real));
            }

            #[test]
            fn ours() {
                super::$check(&Peer::start(Kind::Ours));
            }
        }
    )*};
}

mod differences;
mod lenient;
mod message_send;
mod preamble;
mod rejected;
mod routes;
mod silent;
mod sizes;
mod transit;
mod vectors;
