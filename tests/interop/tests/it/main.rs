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

/// Runs each named check for either kind of node.
macro_rules! of_each_kind {
    ($($(#[$attribute:meta])* $check:ident),* $(,)?) => {$(
        $(#[$attribute])*
        mod $check {
            use ockam_interop::Kind;

            #[test]
            fn real() {
                super::$check(Kind::Real);
            }

            #[test]
            fn ours() {
                super::$check(Kind::Ours);
            }
        }
    )*};
}

/// Runs each named check against a secure channel whose far end is a real node or ours, and opened it or accepted it.
macro_rules! far {
    ($($(#[$attribute:meta])* $check:ident),* $(,)?) => {$(
        $(#[$attribute])*
        mod $check {
            use ockam_interop::{Kind, Pair, Role};

            #[test]
            fn real_responder() {
                super::$check(&Pair::open(Kind::Real, Role::Responder));
            }

            #[test]
            fn real_initiator() {
                super::$check(&Pair::open(Kind::Real, Role::Initiator));
            }

            #[test]
            fn our_responder() {
                super::$check(&Pair::open(Kind::Ours, Role::Responder));
            }

            #[test]
            fn our_initiator() {
                super::$check(&Pair::open(Kind::Ours, Role::Initiator));
            }
        }
    )*};
}

/// Runs each named check in both directions of such channels: what the far end receives, and what it sends.
macro_rules! both_ways {
    ($($(#[$attribute:meta])* $check:ident),* $(,)?) => {$(
        $(#[$attribute])*
        mod $check {
            mod far_receives {
                use super::super::{$check as check, Pair};
                far!(to_far);

                fn to_far(pair: &Pair) {
                    check(pair, pair.to_far());
                }
            }

            mod far_sends {
                use super::super::{$check as check, Pair};
                far!(to_near);

                fn to_near(pair: &Pair) {
                    check(pair, pair.to_near());
                }
            }
        }
    )*};
}

/// Runs each named check with a portal between every two kinds of node, through a secure channel and without.
macro_rules! portals {
    // All but those without a node of ours.
    (ours: $($(#[$attribute:meta])* $check:ident),* $(,)?) => {$(
        $(#[$attribute])*
        mod $check {
            portals!(ours $check);
        }
    )*};
    (ours $check:ident) => {
        mod our_inlet {
            portals!(@ $check, Ours, Real);
        }

        mod our_outlet {
            portals!(@ $check, Real, Ours);
        }

        mod our_nodes {
            portals!(@ $check, Ours, Ours);
        }
    };
    (@ $check:ident, $near:ident, $far:ident) => {
        use super::super::$check as check;
        use ockam_interop::{Kind, Portal};

        #[test]
        fn sealed() {
            check(&Portal::open(Kind::$near, Kind::$far, true));
        }

        #[test]
        fn plain() {
            check(&Portal::open(Kind::$near, Kind::$far, false));
        }
    };
    ($($(#[$attribute:meta])* $check:ident),* $(,)?) => {$(
        $(#[$attribute])*
        mod $check {
            mod real_nodes {
                portals!(@ $check, Real, Real);
            }

            portals!(ours $check);
        }
    )*};
}

mod authorities;
mod channels;
mod channels_identity;
mod channels_middle;
mod channels_raw;
mod channels_routes;
mod channels_send;
mod credentials_raw;
mod differences;
mod enrollers;
mod guarded;
mod lenient;
mod message_send;
mod policies;
mod portals;
mod portals_raw;
mod portals_seen;
mod preamble;
mod rejected;
mod relays;
mod relays_raw;
mod routes;
mod sessions;
mod silent;
mod sizes;
mod transit;
mod trust;
mod vectors;
