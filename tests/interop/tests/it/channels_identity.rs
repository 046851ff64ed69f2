//! Who is at the other end of a channel, and who may be (`wire.md` C, D.1, E.3).

use ockam::identity::Identifier;
use ockam::route;
use ockam_interop::{Home, Kind, Middle, OurNode, Output, PATIENCE, Pair, Peer, RealNode, Role, Way};
use std::time::Instant;

of_each_kind!(a_stranger_is_refused, one_of_several_is_accepted, a_rotated_identity, an_identity_of_p256);

/// Somebody who is nowhere.
fn stranger() -> Identifier {
    format!("I{}", "0123456789abcdef".repeat(4)).try_into().expect("an identifier")
}

fn listen_for(peer: &Peer, authorized: &[Identifier]) {
    match peer {
        Peer::Real(node) => {
            node.serve_channels_as(&node.identifier(), "private", Some(authorized));
            node.admit("private");
        }
        Peer::Ours(node) => {
            let authorized: Vec<String> = authorized.iter().map(ToString::to_string).collect();
            let create = ["secure-channel-listener", "create", "private", "--at", node.name(), "--authorized"];
            node.home().ok(&[&create[..], &[&authorized.join(",")]].concat());
        }
    }
}

/// A real responder says nothing to whom it does not want, and forgets him; a real initiator believes that the channel
/// is open. Ours says that it is not, which a real initiator understands.
fn a_stranger_is_refused(kind: Kind) {
    let (near, far) = (RealNode::start(), Peer::start(kind));
    listen_for(&far, &[stranger()]);
    far.serve_channels();
    let middle = Middle::before(far.address());
    let connection = near.connect(middle.address());
    let channel = near.open(route![connection.as_str(), "private"]);
    if kind == Kind::Ours {
        near.ends(0);
        // Message 2, and a Close that is sealed like any record.
        let frames = middle.seen(Way::ToDialer);
        assert_eq!((frames.len(), ockam_interop::nonce(&frames[1])), (2, Some(0)));
    } else {
        near.tell(route![channel, "echo"], b"anyone?");
    }
    // Whom it does want is served, over the same connection.
    let open = near.open(route![connection.as_str(), "api"]);
    near.mailbox(open.encryptor_address()).assert_alive_and_silent();
    if kind == Kind::Real {
        let answers = middle.seen(Way::ToDialer).into_iter().filter(|body| ockam_interop::nonce(body).is_some());
        assert_eq!(answers.count(), 1, "the answer to the one echo");
    }
}

fn one_of_several_is_accepted(kind: Kind) {
    let (near, far) = (RealNode::start(), Peer::start(kind));
    listen_for(&far, &[stranger(), near.identifier()]);
    let connection = near.connect(far.address());
    let channel = near.open(route![connection.as_str(), "private"]);
    near.mailbox(channel.encryptor_address()).assert_alive_and_silent();
}

/// An identity that is known with one key comes back with the next, in both roles.
fn a_rotated_identity(kind: Kind) {
    let (near, far) = (RealNode::start(), Peer::start(kind));
    far.serve_channels();
    near.serve_channels();
    let (to_far, to_near) = (near.connect(far.address()), far.connect(near.address()));
    let open_both = || {
        let channel = near.open(route![to_far.as_str(), "api"]);
        near.mailbox(channel.encryptor_address()).assert_alive_and_silent();
        let met = channel.their_identifier().clone();
        assert_eq!(far.ask(&[&far.open(&[&to_near, "api"]), "echo"], b"here I am"), b"here I am");
        near.close(channel.encryptor_address());
        met
    };
    let met = open_both();
    assert_eq!(near.history(&met).len(), 128, "one key");
    for changes in 1..3 {
        near.rotate();
        match &far {
            Peer::Real(far) => far.rotate(),
            Peer::Ours(far) => drop(far.home().ok(&["identity", "rotate"])),
        }
        // A node of ours may show the old key for some seconds more.
        let since = Instant::now();
        loop {
            assert_eq!(open_both(), met, "the same identity");
            if near.history(&met).len() == 128 + 229 * changes {
                break;
            }
            assert!(since.elapsed() < PATIENCE, "one more key");
        }
    }
}

/// A real node whose identity has a key of P-256, in both roles.
fn an_identity_of_p256(kind: Kind) {
    let (near, far) = (RealNode::start(), Peer::start(kind));
    far.serve_channels();
    let identity = near.new_p256_identity();
    near.serve_channels_as(&identity, "api", None);
    let connection = near.connect(far.address());
    let channel = near.open_as(&identity, route![connection.as_str(), "api"], None).expect("a channel");
    near.mailbox(channel.encryptor_address()).assert_alive_and_silent();
    let back = far.connect(near.address());
    assert_eq!(far.ask(&[&far.open(&[&back, "api"]), "echo"], b"here I am"), b"here I am");
    if let Peer::Ours(far) = &far {
        let identity = identity.to_string();
        let met = far.channels().iter().filter(|channel| channel["identifier"] == identity).count();
        assert_eq!(met, 2, "{:#?}", far.channels());
    }
}

/// Both ends tell the same names.
#[test]
fn each_knows_the_other() {
    for role in [Role::Initiator, Role::Responder] {
        let pair = Pair::open(Kind::Ours, role);
        let Peer::Ours(far) = &pair.far else { unreachable!("ours was asked for") };
        let [channel] = &far.channels()[..] else { panic!("{:#?}", far.channels()) };
        let [(_, identifier)] = &pair.near.ends(1)[..] else { unreachable!("one end was asked for") };
        assert_eq!(channel["identifier"], pair.near.identifier().to_string());
        assert_eq!(channel["my_identifier"], identifier.to_string());
        assert_eq!(far.identifier(), identifier.to_string());
    }
}

/// Histories are the same text here and there (C.4).
#[test]
fn histories_are_exchanged_as_hexadecimal() {
    let (real, home) = (RealNode::start(), Home::new());
    let created = home.ok(&["identity", "create", "alice"]);
    let p256 = real.new_p256_identity();
    for rotations in 0..3 {
        for identifier in [real.identifier(), p256.clone()] {
            let history = hex::encode(real.history(&identifier));
            assert_eq!(home.ok(&["identity", "import", &history]).trim_end(), identifier.to_string());
        }
        let exported = home.ok(&["identity", "export", "alice"]);
        let imported = real.import(&hex::decode(exported.trim_end()).expect("hexadecimal"));
        assert_eq!(imported.to_string(), created.trim_end(), "after {rotations} rotations");
        home.ok(&["identity", "rotate", "alice"]);
        real.rotate();
    }
}

fn create(ours: &OurNode, middle: &Middle, more: &[&str]) -> Output {
    let to = format!("/ip4/127.0.0.1/tcp/{}/service/api", middle.address().port());
    ours.home().ockam(&[&["secure-channel", "create", "--from", ours.name(), "--to", &to], more].concat())
}

/// Whom our initiator does not want learns nothing about it: there is no message 3.
#[test]
fn our_initiator_refuses_a_real_responder() {
    let (real, ours) = (RealNode::start(), OurNode::start());
    real.serve_channels();
    let middle = Middle::before(real.address());
    let output = create(&ours, &middle, &["--authorized", &stranger().to_string()]);
    assert_eq!((output.code, output.stdout.as_str()), (Some(77), ""), "{}", output.stderr);
    assert!(output.stderr.contains(&real.identifier().to_string()), "{}", output.stderr);
    assert_eq!(middle.seen(Way::ToTarget).len(), 1, "message 1");
    assert_eq!(middle.seen(Way::ToDialer).len(), 1, "message 2");
    assert_eq!(ours.channels(), [] as [serde_json::Value; 0]);
    let both = format!("{},{}", stranger(), real.identifier());
    let output = create(&ours, &middle, &["--authorized", &both]);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
}

/// A real responder refuses in silence, so that all that is left is the timeout.
#[test]
fn a_real_responder_refuses_our_initiator() {
    let (real, ours) = (RealNode::start(), OurNode::start());
    real.serve_channels_as(&real.identifier(), "api", Some(&[stranger()]));
    let middle = Middle::before(real.address());
    // Long enough for message 3 to be sent.
    let output = create(&ours, &middle, &["--timeout", "5s"]);
    assert_eq!((output.code, output.stdout.as_str()), (Some(75), ""), "{}", output.stderr);
    assert!(middle.seen(Way::ToTarget).len() >= 2, "message 3 was sent");
    assert_eq!(ours.channels(), [] as [serde_json::Value; 0]);
}

/// A real initiator that meets somebody else than it wants.
#[test]
fn a_real_initiator_refuses_our_responder() {
    let (real, ours) = (RealNode::start(), OurNode::start());
    let middle = Middle::before(ours.address());
    let connection = real.connect(middle.address());
    let way = || route![connection.as_str(), "api"];
    assert!(real.open_briefly(way(), &[stranger()]).is_err());
    let identifier = real.open(way()).their_identifier().clone();
    real.open_as(&real.identifier(), way(), Some(&[stranger(), identifier])).expect("a channel");
}

/// A real node closes a channel that ours opened and supervises: it is opened again, at the same address.
#[test]
fn what_a_real_node_closes_is_opened_again() {
    let pair = Pair::open(Kind::Ours, Role::Initiator);
    let Peer::Ours(far) = &pair.far else { unreachable!("ours was asked for") };
    let address = pair.far_end.as_deref().expect("it opened the channel");
    for reopened in 1..=3u64 {
        let [(end, identifier)] = &pair.near.ends(1)[..] else { unreachable!("one end was asked for") };
        pair.near.close(end);
        let is_open =
            |channels: &[serde_json::Value]| channels[0]["reopened"] == reopened && channels[0]["status"] == "open";
        let channels = far.channels_when(is_open);
        assert_eq!((channels.len(), &channels[0]["address"]), (1, &format!("/service/{address}").into()));
        let now = &pair.near.ends(1)[0];
        assert_ne!(now.0, *end);
        assert_eq!(now.1, *identifier);
        assert_eq!(pair.far.ask(&[address, "echo"], b"again"), b"again");
        // The same identity with another key is the same.
        pair.near.rotate();
    }
}

/// What supervision opens again must meet whom it met first.
#[test]
fn somebody_else_is_not_met_again() {
    let pair = Pair::open(Kind::Ours, Role::Initiator);
    let Peer::Ours(far) = &pair.far else { unreachable!("ours was asked for") };
    let first = pair.near.identifier();
    let another = pair.near.new_p256_identity();
    pair.near.stop("api");
    pair.near.serve_channels_as(&another, "api", None);
    pair.near.close(&pair.end);
    let channels = far.channels_when(|channels| channels[0]["status"] == "stopped");
    assert_eq!(channels[0]["identifier"], first.to_string());
    let error = channels[0]["error"].as_str().expect("a reason");
    assert!(error.contains(&another.to_string()), "{error}");
    pair.near.ends(0);
}
