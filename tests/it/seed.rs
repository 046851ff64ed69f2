//! What a newcomer types first, exactly as typed, and every other form of a route.

use ockam_tests::{Home, Network, is_root, skip};

/// The transcript. The ports are part of it, so it has a network of its own in which they are free.
#[test]
fn the_transcript_works_as_typed() {
    if !is_root() {
        return skip("a network namespace, in which ports 6001 to 6003 are free, needs root");
    }
    let network = match Network::new() {
        Ok(network) => network,
        Err(reason) => return skip(&reason),
    };
    let home = Home::new();
    let script = r#"
        for i in {1..3}; do ockam node create "n$i" --tcp-listener-address "127.0.0.1:600$i"; done
        echo
        ockam message send "hello" --from n1 --to /ip4/127.0.0.1/tcp/6002/ip4/127.0.0.1/tcp/6003/service/uppercase
        echo
        ockam message send "hello" --from n1 --to /node/n2/node/n3/service/uppercase
    "#;
    let enter = format!("--net=/run/netns/{}", network.left());
    let arguments = [enter.as_str(), "bash", "-euo", "pipefail", "-c", script];
    let output = ockam_tests::finish(&mut home.around("nsenter", &arguments), b"");
    assert_eq!(output.ok(), "n1n2n3\nHELLO\nHELLO");
}

#[test]
fn every_form_of_a_route_reaches_its_service() {
    let home = Home::new();
    let (one, two, three) = (home.node("n1", &[]), home.node("n2", &[]), home.node("n3", &[]));
    let six = home.json(&["tcp-listener", "create", "[::1]:0", "--at", "n2"]);
    let six = six["address"].as_str().expect("an address").rsplit_once(':').expect("a port").1.to_owned();
    let link = home.ok(&["tcp-connection", "create", "--from", "n1", "--to", &two.address.to_string()]);
    assert!(link.starts_with("/worker/") && link.len() == "/worker/".len() + 32, "{link:?}");

    let (two_route, three_route) = (two.route(), three.route());
    let (two_port, three_port) = (two.address.port(), three.address.port());
    let from_anywhere = [
        one.service("uppercase"),
        "/node/n1/service/uppercase".into(),
        "/node/n2/service/uppercase".into(),
        "/node/n2/node/n3/service/uppercase".into(),
        "/node/n3/node/n2/node/n1/service/uppercase".into(),
        format!("{two_route}{three_route}/service/uppercase"),
        format!("{two_route}/node/n3/service/uppercase"),
        format!("/ip6/::1/tcp/{six}/service/uppercase"),
        format!("/ip6/::1/tcp/{six}/ip6/::1/tcp/{six}/service/uppercase"),
        format!("/dnsaddr/localhost/tcp/{two_port}/service/uppercase"),
        format!("/dnsaddr/localhost/tcp/{two_port}/dnsaddr/localhost/tcp/{three_port}/service/uppercase"),
    ];
    for route in &from_anywhere {
        for from in [&[][..], &["--from", "n1"], &["--from", "/node/n1"], &["--from", "/node/n3"]] {
            assert_eq!(home.send("hello ünï", route, from), "HELLO ÜNÏ", "{route} {from:?}");
        }
    }
    for route in
        ["/service/uppercase", &format!("{link}/service/uppercase"), &format!("{link}/node/n3/service/uppercase")]
    {
        assert_eq!(home.send("hello", route, &["--from", "n1"]), "HELLO", "{route}");
    }
    assert_eq!(home.send("Hello", "/node/n2/service/echo", &[]), "Hello");
    assert_eq!(home.send("Hello", "/node/n2/service/echo", &["--from", "n1"]), "Hello");
    assert_eq!(home.send("", "/node/n2/service/echo", &["--from", "n1"]), "");

    for from in [&["--hex"][..], &["--hex", "--from", "n1"]] {
        assert_eq!(home.send("00ff80", "/node/n2/service/echo", from), "00ff80");
        assert_eq!(home.send("0568656C6c6f", "/node/n2/service/uppercase", from), "0548454c4c4f");
        assert_eq!(home.send("", "/node/n2/service/echo", from), "");
    }
}

#[test]
fn nodes_need_no_names_and_no_addresses() {
    let home = Home::new();
    let name = home.ok(&["node", "create"]);
    assert_eq!(name.split('-').count(), 2, "{name:?} is two words");
    assert_eq!(home.ok(&["node", "default"]), name);
    assert_eq!(home.send("hello", &format!("/node/{name}/service/uppercase"), &[]), "HELLO");
    assert_eq!(home.ok(&["node", "create", "second"]), "second");
    assert_eq!(home.ok(&["node", "default"]), name, "the first node stays the default");
    // What makes something uses the default node, and makes one when there is none.
    let fresh = Home::new();
    let made = fresh.json(&["tcp-listener", "create", "127.0.0.1:0"]);
    assert!(made["address"].as_str().is_some_and(|it| it.starts_with("127.0.0.1:")), "{made}");
    assert_eq!(fresh.json(&["node", "list"]).as_array().map(Vec::len), Some(1));
}

#[test]
fn a_message_crosses_eight_nodes() {
    let home = Home::new();
    let nodes: Vec<_> = (1..=8).map(|number| home.node(&format!("n{number}"), &["--threads", "1"])).collect();

    // By TCP hops: each node dials the next one for the message.
    let by_name: String = nodes[1..].iter().map(|node| format!("/node/{}", node.name)).collect();
    assert_eq!(home.send("hello", &format!("{by_name}/service/uppercase"), &["--from", "n1"]), "HELLO");

    // By links that exist and a forwarder on each node.
    let mut route = String::new();
    for pair in nodes.windows(2) {
        let link =
            home.ok(&["tcp-connection", "create", "--from", &pair[0].name, "--to", &pair[1].address.to_string()]);
        if !route.is_empty() {
            home.ok(&["service", "start", "hop", "--at", &pair[0].name]);
            route += "/service/hop";
        }
        route += &link;
    }
    assert_eq!(home.send("hello", &format!("{route}/service/uppercase"), &["--from", "n1"]), "HELLO");
}

#[test]
fn a_route_comes_through_a_pipe() {
    let home = Home::new();
    let (one, two, _) = (home.node("n1", &[]), home.node("n2", &[]), home.node("n3", &[]));
    let (to_one, to_two) = (one.address, two.address);
    for script in [
        format!(
            "ockam tcp-connection create --from n1 --to {to_two} |
                ockam message send hello --from n1 --to -/service/uppercase"
        ),
        format!(
            "ockam message send hello --from n1 \
                --to \"$(ockam tcp-connection create --from n1 --to {to_two})/service/uppercase\""
        ),
        "echo /node/n2 | ockam message send hello --to -/service/uppercase".into(),
        "printf '  /node/n3/ \\r\\n' | ockam message send hello --from n1 --to /node/n2/-/service/uppercase".into(),
        "printf /node/n2/node/n3/service/uppercase | ockam message send hello --to -".into(),
        format!(
            "ockam service start hop --at n2 > /dev/null
             ockam tcp-connection create --from n2 --to {to_one} |
                 ockam message send hello --from n1 --to /node/n2/service/hop/-/service/uppercase"
        ),
    ] {
        assert_eq!(home.bash(&script).ok(), "HELLO", "{script}");
    }
}
