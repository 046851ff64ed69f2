//! What watches over the ways of inlets and relays, at either side (`wire.md` F.6): it leaves a way alone for as long as that
//! works, and repairs one that does not. A real node asks every 10 s and needs 40 s to find a way broken, so the cases of a
//! test run at once.

use Kind::{Ours, Real};
use ockam_interop::{Client, Kind, Portal, PortalNode, Target, Way, nonce, over_tcp};
use ockam_wire::Message;
use std::fmt::Debug;
use std::thread;

/// Checks all cases at once, and says which of them failed.
fn at_once<C: Copy + Debug + Send>(cases: impl IntoIterator<Item = C>, check: fn(C)) {
    thread::scope(|scope| {
        let start = |case: C| (case, scope.spawn(move || check(case)));
        let running: Vec<_> = cases.into_iter().map(start).collect();
        let failed = running.into_iter().filter_map(|(case, check)| check.join().is_err().then_some(case));
        let failed: Vec<_> = failed.collect();
        assert!(failed.is_empty(), "failed: {failed:?}");
    });
}

/// A question whether the other side lives, or its answer, as anyone can see them.
fn is_liveness(body: &[u8], sealed: bool) -> bool {
    let payload = Message::parse(body).expect("nodes send messages that parse").payload;
    if sealed { nonce(body).is_some() } else { payload.len() == 9 && payload[0] == 0x1b }
}

/// An inlet whose way works stays as it is: every question is answered, for longer than a real node needs to give up, and
/// nothing is dialed or opened again.
#[test]
fn what_works_is_left_alone() {
    let cases = [(Real, Real, true), (Real, Ours, true), (Real, Ours, false), (Ours, Real, true), (Ours, Real, false)];
    at_once(cases, |(near, far, sealed)| {
        let portal = Portal::open(near, far, sealed);
        // A real node asks at once and then every 10 s, ours every 5 s.
        let enough = if near == Real { 6 } else { 11 };
        portal.middle.seen_of(Way::ToDialer, enough, |body| is_liveness(body, sealed));
        let questions = portal.middle.seen(Way::ToTarget).iter().filter(|body| is_liveness(body, sealed)).count();
        assert!(questions >= enough, "{questions} questions");
        assert_eq!(portal.middle.connections(), 1, "it dialed once");
        assert!(portal.near.inlet_is_up("inlet"));
        drop(Client::talk(portal.inlet, 1000, 1000));
        assert!(portal.target.ended().whole);
    });
}

/// The outlet's node ends and comes back: new connections work again, by themselves.
#[test]
fn an_inlet_finds_an_outlet_again() {
    let cases = [(Real, Real, true), (Real, Ours, true), (Real, Ours, false), (Ours, Real, true), (Ours, Real, false)];
    at_once(cases, |(near, far, sealed)| {
        let mut portal = Portal::open(near, far, sealed);
        drop(Client::talk(portal.inlet, 1000, 1000));
        assert!(portal.target.ended().whole);
        portal.far.stop();
        portal.middle.wait_for_end();
        portal.far.start_again();
        if far == Real {
            portal.far.outlet("outlet", portal.target.address());
        }
        let needed = Client::until_it_gets_through(portal.inlet);
        println!("{near:?} inlet, {far:?} outlet, sealed {sealed}: back after {needed:?}");
        drop(Client::talk(portal.inlet, 100_000, 100_000));
    });
}

/// The relay node ends and comes back: whoever had registered there registers again, and who comes by it gets through.
#[test]
fn a_relay_is_registered_again() {
    let cases = [
        ([Real, Real, Real], true),
        ([Real, Ours, Real], true),
        ([Ours, Ours, Real], false),
        ([Ours, Real, Ours], true),
        ([Real, Real, Ours], false),
    ];
    at_once(cases, |(kinds, sealed)| {
        let [near, mut relay, far] = kinds.map(PortalNode::start);
        let target = Target::start();
        far.outlet("outlet", target.address());
        let leg = format!("{}{}", over_tcp(relay.address()), if sealed { "/secure/api" } else { "" });
        far.relay("blue", &leg);
        let inlet = near.inlet("inlet", &format!("{leg}/service/forward_to_blue/secure/api/service/outlet"));
        drop(Client::talk(inlet, 1000, 1000));
        assert!(target.ended().whole);
        relay.stop();
        relay.start_again();
        let needed = Client::until_it_gets_through(inlet);
        println!("{kinds:?}, sealed {sealed}: back after {needed:?}");
        drop(Client::talk(inlet, 100_000, 100_000));
    });
}
