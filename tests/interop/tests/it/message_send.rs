//! Our `message send` towards real nodes (B.3).

use ockam_interop::{Home, OurNode, RawListener, RawPeer, RealNode};
use ockam_wire::Message;
use ockam_wire::undeliverable::Offer;
use std::net::SocketAddr;
use std::thread;

fn route(to: SocketAddr, service: &str) -> String {
    format!("/ip4/127.0.0.1/tcp/{}/service/{service}", to.port())
}

#[test]
fn to_a_real_node() {
    let real = RealNode::start();
    let ours = OurNode::start();
    for from in [&[][..], &["--from", ours.name()]] {
        let send = |message: &str, to: &str, more: &[&str]| {
            let printed = ours.home().ok(&[&["message", "send", message, "--to", to], from, more].concat());
            printed.trim_end_matches('\n').to_owned()
        };
        let [echo, uppercase] = ["echo", "uppercase"].map(|service| route(real.address(), service));
        assert_eq!(send("hello", &uppercase, &[]), "HELLO");
        assert_eq!(send("hello", &echo, &[]), "hello");
        assert_eq!(send("", &echo, &[]), "");
        assert_eq!(send("straße 漢字 🦀", &uppercase, &[]), "STRASSE 漢字 🦀");
        assert_eq!(send("00ff10", &echo, &["--hex"]), "00ff10");
        assert_eq!(send("0568656c6c6f", &uppercase, &["--hex"]), "0548454c4c4f");
        let long = "long ".repeat(20_000);
        assert_eq!(send(&long, &uppercase, &[]), long.to_uppercase());
        let name = format!("/dnsaddr/localhost/tcp/{}/service/uppercase", real.address().port());
        assert_eq!(send("by name", &name, &[]), "BY NAME");
    }
}

/// Through a connection made beforehand.
#[test]
fn through_a_connection_to_a_real_node() {
    let (real, ours) = (RealNode::start(), OurNode::start());
    let connection = ours.connect(real.address());
    let to = format!("/worker/{connection}/service/uppercase");
    assert_eq!(ours.send("hello", &to, &[]).trim_end(), "HELLO");
    assert_eq!(ours.send("again", &to, &[]).trim_end(), "AGAIN");
}

/// The real node's `hop` forwards to a connection of its own, back to ours.
#[test]
fn through_a_real_node_and_back() {
    let (real, ours) = (RealNode::start(), OurNode::start());
    let back = real.connect(ours.address());
    let to = format!("/ip4/127.0.0.1/tcp/{}/service/hop/worker/{back}/service/uppercase", real.address().port());
    assert_eq!(ours.send("hello", &to, &[]).trim_end(), "HELLO");
}

/// A real node says nothing about a service that it does not have, so all that is left is the timeout (decision 11 of
/// the command line), which is an outcome of its own.
#[test]
fn to_a_service_that_a_real_node_lacks() {
    let real = RealNode::start();
    let ours = OurNode::start();
    for from in [&[][..], &["--from", ours.name()]] {
        let to = route(real.address(), "nobody");
        let arguments = ["message", "send", "hello", "--to", &to, "--timeout", "500ms"];
        let output = ours.home().ockam(&[&arguments[..], from].concat());
        assert_eq!((output.code, output.stdout.as_str()), (Some(75), ""), "{}", output.stderr);
    }
    RawPeer::connect(real.address()).assert_serving_and_silent();
}

/// The frames on the wire are those of a real `message send` (N.2) to the byte, except for the random reply address
/// and the tracing text.
#[test]
fn sends_the_frames_that_a_real_one_sends() {
    let ours = OurNode::start();
    for from in [&[][..], &["--from", ours.name()]] {
        check_frame(ours.home(), from, "hello", "uppercase", "460568656c6c6f", b"\x05HELLO", "HELLO");
        let hex = [from, &["--hex"]].concat();
        check_frame(ours.home(), &hex, "000102", "echo", "43000102", b"\x03\x02\x01", "030201");
    }
}

/// Has the command send `message` here, compares what arrives, answers with `reply` and compares what it prints.
fn check_frame(home: &Home, more: &[&str], message: &str, service: &str, item: &str, reply: &[u8], printed: &str) {
    let listener = RawListener::new();
    let to = route(listener.address(), service);
    thread::scope(|threads| {
        let send = threads.spawn(|| home.ok(&[&["message", "send", message, "--to", &to], more].concat()));
        let mut link = listener.accept_link();
        let body = link.receive();
        let request = Message::parse(&body).expect("a message");
        let address = request.return_route.first().expect("a return route");
        assert!(
            address.name.len() == 32 && address.name.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b)),
            "{address} is a random address (A.4)"
        );
        let elements = if request.tracing.is_some() { "84" } else { "83" };
        let service_item = format!("{:02x}{}", 0x40 + service.len(), hex::encode(service));
        let expected = format!("{elements}818200{service_item}8182005820{}{item}", hex::encode(address.name));
        let got = hex::encode(&body);
        let rest = got.strip_prefix(&expected).unwrap_or_else(|| panic!("{got} begins with {expected}"));
        match request.tracing {
            None => assert_eq!(rest, ""),
            // Nothing else is ever said there: no trace, no name, no version.
            Some(text) => {
                assert!(text == "{}" || Offer::parse(text).is_some(), "{text:?} as tracing text");
                let head = if text.len() < 24 {
                    format!("{:02x}", 0x60 + text.len())
                } else {
                    format!("78{:02x}", text.len())
                };
                assert_eq!(rest, head + &hex::encode(text));
            }
        }
        link.send(&ockam_interop::body(&[address], &[ockam_interop::local(service)], reply, Some("{}")));
        assert_eq!(send.join().expect("the command ends").trim_end_matches('\n'), printed);
        // One message, then the end.
        link.assert_closed();
    });
}
