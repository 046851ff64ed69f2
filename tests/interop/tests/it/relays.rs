//! Portals over a relay, on every mixture of three nodes (`wire.md` G): an outlet's node registers at a relay node, an
//! inlet's node reaches it there, and a secure channel goes from one end to the other.

use ockam_interop::{Client, Ended, Kind, PortalNode, Target, over_tcp};
use std::thread;

/// The kinds of the inlet's node, of the relay node, and of the outlet's node; each once with a plain connection to the
/// relay node at either side, and once with a secure channel.
macro_rules! mixtures {
    ($($mixture:ident: $near:ident $relay:ident $far:ident),* $(,)?) => {$(
        mod $mixture {
            use super::portal;
            use ockam_interop::Kind;

            #[test]
            fn plain_legs() {
                portal([Kind::$near, Kind::$relay, Kind::$far], false);
            }

            #[test]
            fn sealed_legs() {
                portal([Kind::$near, Kind::$relay, Kind::$far], true);
            }
        }
    )*};
}

mixtures! {
    real_nodes: Real Real Real,
    our_outlet: Real Real Ours,
    our_relay: Real Ours Real,
    our_relay_and_outlet: Real Ours Ours,
    our_inlet: Ours Real Real,
    our_inlet_and_outlet: Ours Real Ours,
    our_inlet_and_relay: Ours Ours Real,
    our_nodes: Ours Ours Ours,
}

/// Little and much, both at once, many connections, and ends, with two outlets behind one relay.
fn portal(kinds: [Kind; 3], sealed_legs: bool) {
    let [near, relay, far] = kinds.map(PortalNode::start);
    let (target, other) = (Target::start(), Target::start());
    far.outlet("outlet", target.address());
    far.outlet("another", other.address());
    let leg = format!("{}{}", over_tcp(relay.address()), if sealed_legs { "/secure/api" } else { "" });
    far.relay("blue", &leg);
    let inlet = near.inlet("inlet", &format!("{leg}/service/forward_to_blue/secure/api/service/outlet"));
    let beside = near.inlet("beside", &format!("{leg}/service/forward_to_blue/secure/api/service/another"));
    for (inlet, target) in [(inlet, &target), (beside, &other)] {
        let whole = |number| Ended { number, whole: true };
        for (up, down) in [(0, 0), (1, 1), (300, 70_000), (131_073, 131_072), (3_000_000, 3_000_000)] {
            let client = Client::talk(inlet, up, down);
            let number = client.number();
            drop(client);
            assert_eq!(target.ended(), whole(number), "{up} bytes up, {down} bytes down");
        }
        let many = (0..32).map(|i| thread::spawn(move || Client::talk(inlet, i * 701, (31 - i) * 997).number()));
        for talked in many.collect::<Vec<_>>() {
            talked.join().expect("it talks");
            assert!(target.ended().whole);
        }
        for size in [0, 131_073, 1 << 20] {
            let number = Client::send_and_leave(inlet, size);
            assert_eq!(target.ended(), whole(number), "{size} bytes from the client");
            let number = Client::receive_to_the_end(inlet, size);
            assert_eq!(target.ended(), whole(number), "{size} bytes from the target");
        }
    }
}
