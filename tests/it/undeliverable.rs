//! A message that cannot arrive fails by itself, long before its time is over, and says what, where and why.
//!
//! Every message here may take a minute; a command that waits for that long ends with another code and fails its test.

use ockam_tests::{ClosedPort, Home, wait_until};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

/// What waits at a TCP port and is no node. It answers like a web server, or not at all.
struct Stranger {
    address: SocketAddr,
    received: std::sync::mpsc::Receiver<Vec<u8>>,
}

impl Stranger {
    fn start(greeting: &'static [u8]) -> Stranger {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, received) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                // One that closed already has heard enough.
                let _ = stream.write_all(greeting);
                let mut bytes = Vec::new();
                let _ = stream.read_to_end(&mut bytes);
                if tell.send(bytes).is_err() {
                    return;
                }
            }
        });
        Stranger { address, received }
    }
}

fn send_fails(home: &Home, code: i32, message: &[&str], to: &str, said: &[&str]) {
    let arguments = [&["message", "send", "--timeout", "60s", "--to", to], message].concat();
    let error = home.fails(code, &arguments);
    for part in said {
        assert!(error.contains(part), "{arguments:?} does not say {part:?}:\n{error}");
    }
}

#[test]
fn it_says_what_where_and_why() {
    let home = Home::new();
    let (_one, two, three) = (home.node("n1", &[]), home.node("n2", &[]), home.node("n3", &[]));
    home.ok(&["node", "create", "stopped"]);
    home.ok(&["node", "stop", "stopped"]);
    home.ok(&["service", "start", "hop", "--at", "n3"]);
    let (at_two, at_three) = (two.address.to_string(), three.address.to_string());
    let nobody = ClosedPort::new();
    let closed = nobody.address().port();
    let closed_hop = format!("/ip4/127.0.0.1/tcp/{closed}");
    let (closed_port, two_hop) = (closed.to_string(), two.route());

    let cases: Vec<(i32, String, Vec<&str>)> = vec![
        // A service that is missing, on the first node and on the second.
        (68, "/node/n2/service/upercase".into(), vec!["/service/upercase", &at_two, "nothing has the address"]),
        (68, "/node/n2/node/n3/service/nothing".into(), vec!["/service/nothing", &at_three]),
        (68, "/node/n2/worker/00000000000000000000000000000000".into(), vec!["/worker/0000", &at_two]),
        // A forwarder that was not started, and one that may not dial.
        (68, "/node/n2/service/hop/service/echo".into(), vec!["/service/hop", &at_two]),
        (77, "/node/n3/service/hop/node/n2/service/echo".into(), vec![&two_hop, &at_three, "may not dial"]),
        (65, "/node/n3/service/hop".into(), vec!["/service/hop", &at_three, "only forwards"]),
        // Addresses where nobody is, at the first hop and past it.
        (69, format!("{closed_hop}/service/echo"), vec![&closed_port, "refused"]),
        (69, format!("/node/n2{closed_hop}/service/echo"), vec![&closed_port, &at_two, "refused"]),
        (69, format!("/node/n2/node/n3{closed_hop}/service/echo"), vec![&closed_port, &at_three, "refused"]),
        // Names.
        (68, "/node/n9/service/echo".into(), vec!["\"n9\"", "ockam node list"]),
        (69, "/node/stopped/service/echo".into(), vec!["\"stopped\"", "not running", "ockam node start stopped"]),
        (69, "/node/n2/node/stopped/service/echo".into(), vec!["\"stopped\"", "ockam node start stopped"]),
        (68, "/dnsaddr/no-such-host.invalid/tcp/4000/service/echo".into(), vec!["no-such-host.invalid", "resolve"]),
        (
            68,
            "/node/n2/dnsaddr/no-such-host.invalid/tcp/4000/service/echo".into(),
            vec!["no-such-host.invalid", &at_two],
        ),
    ];
    for (code, to, said) in &cases {
        send_fails(&home, *code, &["hello"], to, said);
        send_fails(&home, *code, &["hello", "--from", "n1"], to, said);
    }
    // A payload that the service cannot read.
    for from in [&["ffff", "--hex"][..], &["ffff", "--hex", "--from", "n1"]] {
        send_fails(&home, 65, from, "/node/n2/service/uppercase", &["/service/uppercase", &at_two]);
    }
    // Of the sending node itself.
    send_fails(&home, 68, &["hello", "--from", "n1"], "/service/nothing", &["/service/nothing", "n1"]);
    send_fails(&home, 68, &["hello", "--from", "n9"], "/service/echo", &["\"n9\""]);
    send_fails(&home, 69, &["hello", "--from", "stopped"], "/service/echo", &["ockam node start stopped"]);

    // Nothing of this is left behind.
    for node in ["n1", "n2", "n3"] {
        wait_until(
            || home.json(&["tcp-connection", "list", "--at", node]) == serde_json::json!([]),
            || format!("{node} has connections left"),
        );
    }
}

#[test]
fn no_byte_of_a_message_reaches_what_is_not_a_node() {
    let home = Home::new();
    let two = home.node("n2", &[]);
    home.node("n1", &[]);
    let stranger = Stranger::start(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let hop = format!("/ip4/127.0.0.1/tcp/{}", stranger.address.port());
    let (port, at_two) = (stranger.address.port().to_string(), two.address.to_string());
    for (from, route) in [
        (&["secret"][..], format!("{hop}/service/echo")),
        (&["secret", "--from", "n1"], format!("{hop}/service/echo")),
        (&["secret"], format!("/node/n2{hop}/service/echo")),
        (&["secret", "--from", "n1"], format!("/node/n2{hop}/service/echo")),
    ] {
        let place = if route.starts_with("/node") { &at_two } else { "127.0.0.1" };
        send_fails(&home, 76, from, &route, &[&port, place, "not a node"]);
        let received = stranger.received.recv_timeout(ockam_tests::PATIENCE).expect("somebody connected");
        assert!(received.is_empty() || received == [1], "more than the version byte went out: {received:?}");
    }
}

#[test]
fn what_accepts_and_keeps_silent_is_given_up() {
    let home = Home::new();
    let two = home.node("n2", &[]);
    home.node("n1", &[]);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let hop = format!("/ip4/127.0.0.1/tcp/{}", address.port());
    std::thread::scope(|scope| {
        for from in [&["hello"][..], &["hello", "--from", "n1"]] {
            let (home, hop, port, two) = (&home, &hop, address.port().to_string(), two.address.to_string());
            scope.spawn(move || {
                // Whoever says nothing is no node: the version byte comes first.
                send_fails(home, 76, from, &format!("{hop}/service/echo"), &[&port, "not a node"]);
                send_fails(home, 76, from, &format!("/node/n2{hop}/service/echo"), &[&port, &two, "not a node"]);
            });
        }
    });
}

#[test]
fn a_connection_that_is_gone_is_no_address() {
    let home = Home::new();
    let two = home.node("n2", &[]);
    home.node("n1", &[]);
    let connect = || home.ok(&["tcp-connection", "create", "--from", "n1", "--to", &two.address.to_string()]);
    let link = connect();
    let route = format!("{link}/service/uppercase");
    assert_eq!(home.send("hello", &route, &["--from", "n1"]), "HELLO");
    home.ok(&["tcp-connection", "delete", &link, "--at", "n1", "--yes"]);
    send_fails(&home, 68, &["hello", "--from", "n1"], &route, &[&link, "n1"]);
}

#[test]
fn a_timeout_is_an_answer_too() {
    let home = Home::new();
    home.node("n1", &[]);
    // A node of another make that drops what it does not know: it says its version and nothing else.
    let quiet = Stranger::start(&[1]);
    let route = format!("/ip4/127.0.0.1/tcp/{}/service/echo", quiet.address.port());
    for from in [&["hello"][..], &["hello", "--from", "n1"]] {
        let arguments = [&["message", "send", "--timeout", "300ms", "--to", &route], from].concat();
        let said = home.fails(75, &arguments);
        assert!(said.contains(&route) && said.contains("300 ms") && said.contains("--timeout"), "{said}");
    }
}
