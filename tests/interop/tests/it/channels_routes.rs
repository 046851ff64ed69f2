//! Where the records of a channel go: over several nodes, and over another connection than before (`wire.md` E.4, E.5).

use ockam::route;
use ockam_interop::{Home, Kind, Middle, OurNode, Peer, RealNode, Way, nonce};

of_each_kind!(
    the_responder_follows,
    the_responder_follows_when_the_connection_is_gone,
    only_what_is_newest_moves_the_responder
);

/// Every mixture of three nodes: the first opens a channel with the last through `hop` on the second, which sees
/// nothing.
#[test]
fn every_mixture_with_a_hop() {
    for kinds in Kind::MIXTURES_OF_THREE {
        eprintln!("{kinds:?}");
        let [first, second, third] = kinds.map(Peer::start_with_hop);
        third.serve_channels();
        let middle = Middle::before(second.address());
        let (to_second, to_third) = (first.connect(middle.address()), second.connect(third.address()));
        let channel = first.open(&[&to_second, "hop", &to_third, "api"]);
        assert_eq!(first.ask(&[&channel, "uppercase"], b"\x05hello"), b"\x05HELLO");
        for i in 0..40u8 {
            assert_eq!(first.ask(&[&channel, "echo"], &[i; 100]), [i; 100]);
        }
        for way in [Way::ToTarget, Way::ToDialer] {
            let frames = middle.seen(way);
            assert!(frames.iter().filter(|body| nonce(body).is_some()).count() >= 41, "sealed, over {kinds:?}");
            let read = frames.iter().any(|body| body.windows(5).any(|window| window.eq_ignore_ascii_case(b"hello")));
            assert!(!read, "nothing can be read {way:?} over {kinds:?}");
        }
    }
}

/// Thousands of records through our node in the middle, in both directions.
#[test]
fn many_records_through_our_hop() {
    let (first, ours, last) = (RealNode::start(), Peer::start_with_hop(Kind::Ours), RealNode::start());
    last.serve_channels();
    let (to_ours, to_last) = (first.connect(ours.address()), ours.connect(last.address()));
    let channel = first.open(route![to_ours.as_str(), "hop", to_last.as_str(), "api"]);
    let payloads: Vec<_> = (0..1000).map(|i| ockam_interop::noise(i * 13 % 5000, i as u64)).collect();
    first.mailbox(channel.encryptor_address()).echo_all(&payloads);
    let [(end, _)] = &last.ends(1)[..] else { unreachable!("one end was asked for") };
    last.mailbox(end).echo_all(&payloads);
}

/// The seed's route with real nodes: our node dials the second TCP address for its peer.
#[test]
fn over_a_tcp_address_inside_the_route() {
    let home = Home::new();
    let (first, second, real) = (home.node("n1"), home.node("n2"), RealNode::start());
    real.serve_channels();
    let (second, real) = (second.address().port(), real.address().port());
    let channel = first.open(&format!("/ip4/127.0.0.1/tcp/{second}/ip4/127.0.0.1/tcp/{real}/service/api"), &[]);
    assert_eq!(first.send("hello", &format!("/service/{channel}/service/uppercase"), &[]).trim_end(), "HELLO");
}

/// The other way around: a real node's route ends in a TCP address that ours dials.
#[test]
fn a_real_node_over_a_tcp_address_inside_the_route() {
    for last in [Kind::Real, Kind::Ours] {
        let (first, ours, last) = (RealNode::start(), OurNode::start(), Peer::start(last));
        last.serve_channels();
        let (connection, target) = (first.connect(ours.address()), last.address().to_string());
        let channel = first.open(route![connection.as_str(), (ockam::tcp::TCP, target.as_str()), "api"]);
        first.mailbox(channel.encryptor_address()).echo_all(&(0..100).map(|i| vec![i; 50]).collect::<Vec<_>>());
    }
}

/// A responder, and two ways to it from a real node.
struct TwoWays {
    near: RealNode,
    _far: Peer,
    middles: [Middle; 2],
    connections: [String; 2],
}

impl TwoWays {
    fn to(kind: Kind) -> TwoWays {
        let (near, far) = (RealNode::start(), Peer::start(kind));
        far.serve_channels();
        let middles = [(); 2].map(|()| Middle::before(far.address()));
        let connections = [0, 1].map(|i: usize| near.connect(middles[i].address()));
        TwoWays { near, _far: far, middles, connections }
    }

    /// Answers that came over each of them.
    fn answers(&self) -> [usize; 2] {
        let answers = |middle: &Middle| middle.seen(Way::ToDialer).iter().filter(|body| nonce(body).is_some()).count();
        [0, 1].map(|i: usize| answers(&self.middles[i]))
    }
}

/// A real initiator sends over another connection, and the responder answers there; then back again.
fn the_responder_follows(kind: Kind) {
    let ways = TwoWays::to(kind);
    let channel = ways.near.open(route![ways.connections[0].as_str(), "api"]);
    let mut mailbox = ways.near.mailbox(channel.encryptor_address());
    let mut expected = [0; 2];
    for way in [0, 1, 1, 0, 1, 0, 0, 1] {
        channel.update_remote_node_route(route![ways.connections[way].as_str()]).expect("another route");
        for _ in 0..20 {
            mailbox.assert_alive_and_silent();
        }
        expected[way] += 20;
        assert_eq!(ways.answers(), expected);
    }
}

/// The connection ends first, and the channel goes on over another one.
fn the_responder_follows_when_the_connection_is_gone(kind: Kind) {
    let ways = TwoWays::to(kind);
    let channel = ways.near.open(route![ways.connections[0].as_str(), "api"]);
    let mut mailbox = ways.near.mailbox(channel.encryptor_address());
    mailbox.assert_alive_and_silent();
    ways.near.disconnect(&ways.connections[0]);
    ways.middles[0].wait_for_end();
    channel.update_remote_node_route(route![ways.connections[1].as_str()]).expect("another route");
    for _ in 0..40 {
        mailbox.assert_alive_and_silent();
    }
    assert_eq!(ways.answers(), [1, 40]);
}

/// What was late, what is repeated and what is forged moves nothing: only a record that is newer than all before does.
fn only_what_is_newest_moves_the_responder(kind: Kind) {
    let ways = TwoWays::to(kind);
    let channel = ways.near.open(route![ways.connections[0].as_str(), "api"]);
    let mut mailbox = ways.near.mailbox(channel.encryptor_address());
    mailbox.assert_alive_and_silent();
    // Kept on the first way, while a newer one moves the channel to the second.
    ways.middles[0].hold(Way::ToTarget);
    mailbox.send(b"late");
    let late = ways.middles[0].held(Way::ToTarget, 1).remove(0);
    channel.update_remote_node_route(route![ways.connections[1].as_str()]).expect("another route");
    mailbox.assert_alive_and_silent();
    assert_eq!(ways.answers(), [1, 1]);
    let newest = ways.middles[1].record(Way::ToTarget, 2);
    let forged = ockam_interop::with_payload(&newest, |record| record[7] += 1);
    ways.middles[0].send(Way::ToTarget, &late);
    assert_eq!(mailbox.receive(), b"late");
    for record in [&late, &newest, &forged] {
        ways.middles[0].send(Way::ToTarget, record);
    }
    // Behind them on their way, so that they have been seen when this is answered.
    let echo = ways.near.ask(route![ways.connections[0].as_str(), "echo"], b"a fence");
    assert_eq!(echo, b"a fence");
    mailbox.assert_alive_and_silent();
    assert_eq!(ways.answers(), [1, 3]);
}
