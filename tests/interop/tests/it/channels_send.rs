//! Our `message send` and `secure-channel create` with real nodes at the other end (`wire.md` B.3).

use ockam::route;
use ockam_interop::{Home, OurNode, RealNode};
use std::net::SocketAddr;

fn tcp(to: SocketAddr) -> String {
    format!("/ip4/127.0.0.1/tcp/{}", to.port())
}

/// A channel for one message, from a node and without one. It is gone afterwards.
#[test]
fn secure_in_a_route_to_a_real_node() {
    let (real, ours) = (RealNode::start(), OurNode::start());
    real.serve_channels();
    for from in [&[][..], &["--from", ours.name()]] {
        let send = |message: &str, service: &str, more: &[&str]| {
            let to = format!("{}/secure/api/service/{service}", tcp(real.address()));
            let printed = ours.home().ok(&[&["message", "send", message, "--to", &to], from, more].concat());
            real.ends(0);
            printed.trim_end_matches('\n').to_owned()
        };
        assert_eq!(send("hello", "uppercase", &[]), "HELLO");
        assert_eq!(send("", "echo", &[]), "");
        assert_eq!(send("straße 漢字 🦀", "uppercase", &[]), "STRASSE 漢字 🦀");
        assert_eq!(send("00ff10", "echo", &["--hex"]), "00ff10");
        let long = "long ".repeat(20_000);
        assert_eq!(send(&long, "uppercase", &[]), long.to_uppercase());
    }
}

/// One channel through another, and a channel behind the TCP hops of the seed.
#[test]
fn secure_deep_in_a_route() {
    let home = Home::new();
    let (first, second, real) = (home.node("n1"), home.node("n2"), RealNode::start());
    real.serve_channels();
    second.start_hop();
    let (hop, real) = (tcp(second.address()), tcp(real.address()));
    for from in [&[][..], &["--from", first.name()]] {
        for way in [
            format!("{real}/secure/api/secure/api/service/uppercase"),
            format!("{hop}{real}/secure/api/service/uppercase"),
            format!("/node/n2{real}/secure/api/service/uppercase"),
        ] {
            let printed = home.ok(&[&["message", "send", "hello", "--to", &way], from].concat());
            assert_eq!(printed.trim_end(), "HELLO", "{way} {from:?}");
        }
    }
}

/// A channel that stays, for many messages.
#[test]
fn a_channel_to_a_real_node() {
    let (real, ours) = (RealNode::start(), OurNode::start());
    real.serve_channels();
    let channel = ours.open(&format!("{}/service/api", tcp(real.address())), &[]);
    for i in 0..70 {
        let text = format!("message {i}");
        let to = format!("/service/{channel}/service/uppercase");
        assert_eq!(ours.send(&text, &to, &[]).trim_end(), text.to_uppercase());
    }
    assert_eq!(real.ends(1).len(), 1);
}

/// Nobody listens for channels there: a real node drops message 1 without a word.
#[test]
fn no_listener_at_a_real_node() {
    let (real, ours) = (RealNode::start(), OurNode::start());
    let real = tcp(real.address());
    let create = ["secure-channel", "create", "--from", ours.name(), "--timeout", "1s", "--to"];
    let output = ours.home().ockam(&[&create[..], &[&format!("{real}/service/api")]].concat());
    assert_eq!((output.code, output.stdout.as_str()), (Some(75), ""), "{}", output.stderr);
    for from in [&[][..], &["--from", ours.name()]] {
        let to = format!("{real}/secure/api/service/echo");
        let send = ["message", "send", "hello", "--timeout", "1s", "--to", &to];
        let output = ours.home().ockam(&[&send[..], from].concat());
        assert_eq!((output.code, output.stdout.as_str()), (Some(75), ""), "{}", output.stderr);
    }
}

/// Theirs to ours.
#[test]
fn a_real_node_to_ours() {
    let (real, ours) = (RealNode::start(), OurNode::start());
    let connection = real.connect(ours.address());
    let channel = real.open(route![connection.as_str(), "api"]);
    for (text, upper) in [("hello", "HELLO"), ("", ""), ("straße ŉ ﬁ", "STRASSE ʼN FI"), ("漢字 🦀", "漢字 🦀")]
    {
        assert_eq!(real.ask_text(route![channel.clone(), "uppercase"], text), upper);
    }
    let long = "ß".repeat(100_000);
    assert_eq!(real.ask_text(route![channel.clone(), "uppercase"], &long), "SS".repeat(100_000));
    let answer = real.ask_in_full(route![channel.clone(), "echo"], b"any bytes");
    assert_eq!(*answer.return_route(), route![channel, "echo"], "the answer's return route is the way in");
}
