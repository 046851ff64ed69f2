//! Fleets: an authority, members that enrolled there with tickets, and what their credentials open. Every check runs
//! with a real authority and ours, a real inlet and ours, a real outlet and ours (`wire.md` D.5, E.7, H).

use ockam_interop::{Client, Ended, Fleet, Kind, PATIENCE, PortalNode, Target, over_tcp};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than any test.
const HOUR: Duration = Duration::from_secs(3600);

/// Runs each named check with an authority, an inlet's node and an outlet's node of every kind.
macro_rules! fleets {
    ($($check:ident),* $(,)?) => {$(
        mod $check {
            fleets!(@ $check, real_nodes, Real, Real, Real);
            fleets!(@ $check, our_authority, Ours, Real, Real);
            fleets!(@ $check, our_inlet, Real, Ours, Real);
            fleets!(@ $check, our_outlet, Real, Real, Ours);
            fleets!(@ $check, real_authority, Real, Ours, Ours);
            fleets!(@ $check, real_inlet, Ours, Real, Ours);
            fleets!(@ $check, real_outlet, Ours, Ours, Real);
            fleets!(@ $check, our_nodes, Ours, Ours, Ours);
        }
    )*};
    (@ $check:ident, $name:ident, $authority:ident, $near:ident, $far:ident) => {
        #[test]
        fn $name() {
            use ockam_interop::Kind;
            super::$check(Kind::$authority, Kind::$near, Kind::$far);
        }
    };
}

fleets!(members_and_strangers, the_outlet_may_be_a_strangers, credentials_are_refreshed, relays_have_names);

fn to(node: &PortalNode, outlet: &str) -> String {
    format!("{}/secure/api/service/{outlet}", over_tcp(node.address()))
}

/// What the authority says of a member decides which outlets it opens. It opens none for a stranger.
fn members_and_strangers(authority: Kind, near: Kind, far: Kind) {
    let fleet = Fleet::start(authority, HOUR);
    let (member, far) = (fleet.member(near, &[("component", "web")]), fleet.member(far, &[]));
    let stranger = fleet.stranger(near);
    let target = Target::start();
    far.outlet("outlet", target.address());
    far.outlet_for("web", target.address(), Some("component=web"));
    far.outlet_for("db", target.address(), Some("(= subject.component \"db\")"));
    far.outlet_for("project", target.address(), Some("(= subject.trust_context_id \"interop\")"));
    // Nothing comes through these.
    let shut = [member.inlet("db", &to(&far, "db")), stranger.inlet("outlet", &to(&far, "outlet"))];
    let refused: Vec<Client> = shut.into_iter().map(|inlet| Client::ask(inlet, 10, 10)).collect();
    for outlet in ["outlet", "web", "project"] {
        let inlet = member.inlet(outlet, &to(&far, outlet));
        let client = Client::talk(inlet, 100_000, 100_000);
        let number = client.number();
        drop(client);
        assert_eq!(target.ended(), Ended { number, whole: true }, "{outlet}");
    }
    drop(refused);
    assert_eq!(target.connections(), 3, "only what is admitted reaches the target");
}

/// An inlet is guarded, too: what a stranger's outlet would answer does not come through.
fn the_outlet_may_be_a_strangers(authority: Kind, near: Kind, far: Kind) {
    let fleet = Fleet::start(authority, HOUR);
    let (near, far, stranger) = (fleet.member(near, &[]), fleet.member(far, &[]), fleet.stranger(far));
    let (target, hidden) = (Target::start(), Target::start());
    far.outlet("outlet", target.address());
    stranger.outlet_for("outlet", hidden.address(), Some("(= 1 1)"));
    let shut = near.inlet("hidden", &to(&stranger, "outlet"));
    let refused = Client::ask(shut, 10, 10);
    let inlet = near.inlet("inlet", &to(&far, "outlet"));
    drop(Client::talk(inlet, 1000, 1000));
    assert!(target.ended().whole);
    drop(refused);
    assert_eq!(hidden.connections(), 0);
}

/// Real nodes refresh two minutes before the end: credentials of a little more are refreshed all the time, and what they
/// opened stays open. Both ends hear of the other's.
fn credentials_are_refreshed(authority: Kind, near: Kind, far: Kind) {
    let fleet = Fleet::start(authority, Duration::from_secs(122));
    let (near, far) = (fleet.member(near, &[]), fleet.member(far, &[]));
    let target = Target::start();
    far.outlet("outlet", target.address());
    let inlet = near.inlet("inlet", &to(&far, "outlet"));
    let mut client = Client::ask(inlet, 500_000, 500_000);
    let ends = [(&near, &far), (&far, &near)];
    let first = ends.map(|(here, there)| here.attested_until(&there.identifier()).expect("it showed a credential"));
    for (end, (here, there)) in ends.into_iter().enumerate() {
        let since = Instant::now();
        // At least two later ones, over the channel that is open.
        let mut heard = vec![first[end]];
        while heard.len() < 3 {
            assert!(since.elapsed() < PATIENCE, "end {end} heard of {heard:?}");
            let until = here.attested_until(&there.identifier()).expect("there is always one");
            if until > heard[heard.len() - 1] {
                heard.push(until);
            }
        }
    }
    client.send_and_receive();
    let number = client.number();
    drop(client);
    assert_eq!(target.ended(), Ended { number, whole: true });
    assert_eq!(target.connections(), 1);
}

/// A member has the relays that its attribute `ockam-relay` names (G.1). The far node has the relays.
fn relays_have_names(authority: Kind, near: Kind, far: Kind) {
    let fleet = Fleet::start(authority, HOUR);
    let far = fleet.member(far, &[]);
    let at = format!("{}/secure/api", over_tcp(far.address()));
    let (named, any) = (fleet.member(near, &[("ockam-relay", "web")]), fleet.member(near, &[("ockam-relay", "*")]));
    named.relay("web", &at);
    any.relay("anything", &at);
    // A real node keeps silent to whom it refuses, and a real one waits for 30 s.
    let (nameless, stranger) = (fleet.member(near, &[]), fleet.stranger(near));
    let refused = [(&named, "other"), (&nameless, "web"), (&stranger, "web")];
    thread::scope(|scope| {
        let tries = refused.map(|(node, name)| scope.spawn(|| node.tries_relay(name, &at)));
        for (registered, (_, name)) in tries.into_iter().zip(refused) {
            assert!(!registered.join().expect("it does not panic"), "{name}");
        }
    });
}
