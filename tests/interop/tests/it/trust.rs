//! Fleets: an authority, members that enrolled there with tickets, and what their credentials open. Every check runs
//! with a real authority and ours, a real inlet and ours, a real outlet and ours (`wire.md` D.5, E.7, H).

use ockam::identity::Identifier;
use ockam_interop::{Client, Ended, Fleet, Kind, PortalNode, RECOVERY, Target, over_tcp};
use std::net::SocketAddr;
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
            fleets!(@ $check, ours_but_the_authority, Real, Ours, Ours);
            fleets!(@ $check, ours_but_the_inlet, Ours, Real, Ours);
            fleets!(@ $check, ours_but_the_outlet, Ours, Ours, Real);
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

fleets!(
    members_and_strangers,
    the_outlet_may_be_a_strangers,
    credentials_and_keys_are_renewed,
    members_rotate,
    a_deleted_member,
);

/// The authority makes no difference to a relay.
mod relays_have_names {
    fleets!(@ relays_have_names, real_nodes, Real, Real, Real);
    fleets!(@ relays_have_names, our_client, Real, Ours, Real);
    fleets!(@ relays_have_names, our_relay, Real, Real, Ours);
    fleets!(@ relays_have_names, our_nodes, Ours, Ours, Ours);
}

fn to(node: &PortalNode, outlet: &str) -> String {
    format!("{}/secure/api/service/{outlet}", over_tcp(node.address()))
}

/// A client that has begun, and has 500 kB to send and to receive.
#[track_caller]
fn talking(inlet: SocketAddr) -> Client {
    // A node of ours that has just started may have no credential yet: others hear of it a moment later.
    Client::until_it_gets_through(inlet);
    Client::ask(inlet, 500_000, 500_000)
}

/// Waits until an inlet's way is up: a node of ours that has just started and cannot ask its authority lets others wait.
#[track_caller]
fn until_up(node: &PortalNode, inlet: &str) {
    let since = Instant::now();
    while !node.inlet_is_up(inlet) {
        assert!(since.elapsed() < RECOVERY, "{inlet} is not up");
        thread::sleep(Duration::from_millis(20));
    }
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
    let refused = shut.map(Client::knock);
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
    until_up(&near, "hidden");
    let refused = Client::knock(shut);
    let inlet = near.inlet("inlet", &to(&far, "outlet"));
    drop(Client::talk(inlet, 1000, 1000));
    assert!(target.ended().whole);
    drop(refused);
    assert_eq!(hidden.connections(), 0);
}

/// How long credentials live, for nodes of these kinds to refresh them soon: real ones do two minutes before the end, ours
/// at the latest when half of the time is over.
fn short_lived(near: Kind, far: Kind) -> Duration {
    Duration::from_secs(if (near, far) == (Kind::Ours, Kind::Ours) { 20 } else { 122 })
}

/// Waits until a node hears that somebody has a later credential than one that ends then. Gives the end of that one.
#[track_caller]
fn later_than(node: &PortalNode, subject: &Identifier, ends: u64) -> u64 {
    let since = Instant::now();
    loop {
        match node.attested_until(subject) {
            Some(later) if later > ends => return later,
            _ => assert!(since.elapsed() < RECOVERY, "nothing later than {ends} was heard of"),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// What credentials opened stays open while they are refreshed, by an authority that has another key to issue them with, and
/// one of ours another identity key. Both ends hear of the other's, and who enrolls later is admitted.
fn credentials_and_keys_are_renewed(authority: Kind, near: Kind, far: Kind) {
    let mut fleet = Fleet::start(authority, short_lived(near, far));
    let late = near;
    let (near, far) = (fleet.member(near, &[]), fleet.member(far, &[]));
    let target = Target::start();
    far.outlet("outlet", target.address());
    let mut client = talking(near.inlet("inlet", &to(&far, "outlet")));
    fleet.authority.renew_keys();
    let late = fleet.member(late, &[]);
    Client::until_it_gets_through(late.inlet("inlet", &to(&far, "outlet")));
    for (here, there) in [(&near, &far), (&far, &near)] {
        let there = there.identifier();
        let first = later_than(here, &there, 0);
        later_than(here, &there, first);
    }
    client.send_and_receive();
    assert_goes_on(client, &target);
    drop(Client::talk(near.inlet("another", &to(&far, "outlet")), 1000, 1000));
}

/// A client that did all that it wanted was never interrupted.
#[track_caller]
fn assert_goes_on(client: Client, target: &Target) {
    let wanted = Ended { number: client.number(), whole: true };
    drop(client);
    // Others have ended, too.
    while target.ended() != wanted {}
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

/// Both members have another identity key, one after the other. What is open stays open, and what is opened then works.
fn members_rotate(authority: Kind, near: Kind, far: Kind) {
    let fleet = Fleet::start(authority, short_lived(near, far));
    let (near, far) = (fleet.member(near, &[]), fleet.member(far, &[]));
    let target = Target::start();
    far.outlet("outlet", target.address());
    let mut open = talking(near.inlet("inlet", &to(&far, "outlet")));
    let (before, there) = ([near.identifier(), far.identifier()], &far);
    for (round, node) in [&near, there].into_iter().enumerate() {
        node.rotate();
        Client::until_it_gets_through(near.inlet(&format!("after-{round}"), &to(&far, "outlet")));
    }
    assert_eq!([near.identifier(), far.identifier()], before);
    open.send_and_receive();
    assert_goes_on(open, &target);
}

/// Who is no member any more gets no credential, but has one. Our nodes follow the list of revocations of an authority of
/// ours, and end what they admitted; a real authority has no such list, and a real node would not look at one.
fn a_deleted_member(authority: Kind, near: Kind, far: Kind) {
    let fleet = Fleet::start(authority, HOUR);
    let (bad, good) = (fleet.member(near, &[]), fleet.member(near, &[]));
    let is_ended = (authority, far) == (Kind::Ours, Kind::Ours);
    let far = fleet.member(far, &[]);
    let (target, other) = (Target::start(), Target::start());
    far.outlet("outlet", target.address());
    far.outlet("other", other.address());
    let inlet = bad.inlet("inlet", &to(&far, "outlet"));
    let (open, mut stays) =
        (Client::talk(inlet, 10, 10), Client::ask(good.inlet("inlet", &to(&far, "other")), 100_000, 100_000));
    fleet.enroller.delete_member(fleet.anchor(), &bad.identifier()).expect("a member");
    if is_ended {
        assert_eq!(target.ended().number, open.number(), "its connection ends");
        assert!(!Client::gets_through(inlet), "it has no other");
    } else {
        assert!(fleet.enroller.member(fleet.anchor(), &bad.identifier()).is_err(), "it is no member");
        drop(Client::talk(inlet, 1000, 1000));
        assert_ne!(target.ended().number, open.number(), "the other one ended");
    }
    stays.send_and_receive();
    drop(stays);
    assert!(other.ended().whole);
}
