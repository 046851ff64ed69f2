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
        echo
        ockam secure-channel create --from n1 --to /ip4/127.0.0.1/tcp/6002/ip4/127.0.0.1/tcp/6003/service/api | ockam message send "hello" --from n1 --to -/service/uppercase
        echo
        ockam secure-channel create --from n1 --to /node/n2/node/n3/service/api | ockam message send "hello" --from n1 --to -/service/uppercase
        echo
        ockam message send "hello" --from n1 --to $(ockam secure-channel create --from n1 --to /node/n2/node/n3/service/api)/service/uppercase
    "#;
    let enter = format!("--net=/run/netns/{}", network.left());
    let arguments = [enter.as_str(), "bash", "-euo", "pipefail", "-c", script];
    let output = ockam_tests::finish(&mut home.around("nsenter", &arguments), b"");
    assert_eq!(output.ok(), "n1n2n3\nHELLO\nHELLO\nHELLO\nHELLO\nHELLO");
}

/// The same without ports of its own: for those who may not have a network to themselves.
#[test]
fn secure_channels_come_through_pipes_and_in_routes() {
    let home = Home::new();
    let (_, two, three) = (home.node("n1", &[]), home.node("n2", &[]), home.node("n3", &[]));
    let by_address = format!("{}{}", two.route(), three.route());
    for to in
        [format!("{by_address}/service/api"), "/node/n2/node/n3/service/api".into(), "/node/n3/service/api".into()]
    {
        for script in [
            format!(
                "ockam secure-channel create --from n1 --to {to} |
                     ockam message send hello --from n1 --to -/service/uppercase"
            ),
            format!(
                "ockam message send hello --from n1 \
                     --to $(ockam secure-channel create --from n1 --to {to})/service/uppercase"
            ),
        ] {
            assert_eq!(home.bash(&script).ok(), "HELLO", "{script}");
        }
    }
    // The dash stands anywhere in the route of a channel, too, and a channel goes through a channel.
    for script in [
        "printf '/node/n3\\n' | ockam secure-channel create --from n1 --to /node/n2/-/service/api |
             ockam message send hello --from n1 --to -/service/uppercase",
        "ockam secure-channel create --from n1 --to /node/n2/service/api |
             ockam secure-channel create --from n1 --to -/service/api |
             ockam message send hello --from n1 --to -/service/uppercase",
    ] {
        assert_eq!(home.bash(script).ok(), "HELLO", "{script}");
    }
    for route in [
        "/node/n3/secure/api/service/uppercase".to_owned(),
        "/node/n2/node/n3/secure/api/service/uppercase".into(),
        format!("{by_address}/secure/api/service/uppercase"),
        "/node/n3/secure/api/secure/api/service/uppercase".into(),
    ] {
        for from in [&[][..], &["--from", "n1"]] {
            assert_eq!(home.send("hello ünï", &route, from), "HELLO ÜNÏ", "{route} {from:?}");
        }
    }
    // Channels of messages end with them; those of `secure-channel create` stay.
    let kept = home.json(&["secure-channel", "list", "--at", "n1"]);
    let kept = kept.as_array().expect("an array");
    let made: Vec<_> = kept.iter().filter(|it| it["role"] == "initiator").collect();
    assert_eq!(made.len(), 9, "{kept:?}");
}

#[test]
fn a_secure_channel_is_made_listed_shown_and_deleted() {
    let home = Home::new();
    let (_, three) = (home.node("n1", &[]), home.node("n3", &[]));
    let create = ["secure-channel", "create", "--from", "n1", "--to", "/node/n3/service/api"];
    let address = home.ok(&create);
    let name = address.strip_prefix("/service/").expect("a service");
    assert!(name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit()), "{address:?} ends with nothing");

    let made = home.json(&create);
    let [made] = made.as_array().expect("an array").as_slice() else { panic!("{made}") };
    let second = made["address"].as_str().expect("an address").to_owned();
    assert!(second.starts_with("/service/") && second != address, "{made}");
    assert_eq!(home.send("hello", &format!("{second}/service/uppercase"), &["--from", "n1"]), "HELLO");

    // Both nodes say who they are, and the channel says the same.
    let one = home.json(&["node", "show", "n1"]);
    let other = home.json(&["node", "show", "n3"]);
    let (me, peer) = (made["my_identifier"].as_str().unwrap(), made["identifier"].as_str().unwrap());
    assert_eq!((one["identifier"].as_str(), other["identifier"].as_str()), (Some(me), Some(peer)));
    assert!(peer.starts_with('I') && peer.len() == 65, "{peer}");
    assert_eq!(one["secure_channels"].as_array().map(Vec::len), Some(2), "{one}");
    assert_eq!(other["secure_channels_accepted"], 2, "{other}");
    assert_eq!(other["secure_channel_listeners"][0]["address"], "api", "{other}");
    let listed = home.json(&["node", "list"]);
    assert_eq!(listed[0]["identifier"], me, "{listed}");

    let list = home.json(&["secure-channel", "list", "--at", "n1"]);
    let addresses: Vec<&str> = list.as_array().unwrap().iter().filter_map(|it| it["address"].as_str()).collect();
    assert!(addresses.contains(&address.as_str()) && addresses.contains(&second.as_str()), "{list}");
    let shown = home.json(&["secure-channel", "show", &address, "--at", "n1"]);
    assert_eq!((shown["identifier"].as_str(), shown["status"].as_str()), (Some(peer), Some("open")), "{shown}");
    assert_eq!(shown["route"], format!("{}/service/api", three.route()), "{shown}");
    assert_eq!(home.json(&["secure-channel", "show", name, "--at", "n1"])["address"], address.as_str());

    assert_eq!(home.ok(&["secure-channel", "delete", &address, "--at", "n1", "--yes"]), address);
    home.fails(68, &["secure-channel", "show", &address, "--at", "n1"]);
    home.fails(68, &["secure-channel", "delete", &address, "--at", "n1", "--yes"]);
    home.fails(66, &["secure-channel", "delete", &second, "--at", "n1"]);
    home.fails(68, &["message", "send", "hello", "--from", "n1", "--to", &format!("{address}/service/echo")]);
    assert_eq!(home.send("hello", &format!("{second}/service/echo"), &["--from", "n1"]), "hello");
}

#[test]
fn a_listener_of_secure_channels_is_made_listed_shown_and_deleted() {
    let home = Home::new();
    // The first identity is the default one, which nodes have when they are given no other.
    assert_eq!(home.ok(&["identity", "create", "host"]).len(), 65);
    home.ok(&["identity", "create", "alice"]);
    home.node("n1", &[]);
    home.node("n3", &[]);
    let alice = home.json(&["identity", "show", "alice"])["identifier"].as_str().expect("an identifier").to_owned();
    let create = ["secure-channel-listener", "create", "friends", "--at", "n3", "--authorized", &alice];
    assert_eq!(home.ok(&create), "/service/friends");
    home.fails(73, &create);

    let list = home.json(&["secure-channel-listener", "list", "--at", "n3"]);
    let mut addresses: Vec<&str> = list.as_array().unwrap().iter().filter_map(|it| it["address"].as_str()).collect();
    addresses.sort_unstable();
    assert_eq!(addresses, ["api", "friends"]);
    let shown = home.json(&["secure-channel-listener", "show", "/service/friends", "--at", "n3"]);
    assert_eq!(shown["authorized"][0], alice.as_str(), "{shown}");

    // Neither the node nor the command is alice when nobody says so.
    let said = home.fails(77, &["secure-channel", "create", "--from", "n1", "--to", "/node/n3/service/friends"]);
    let node = home.json(&["node", "show", "n3"])["identifier"].as_str().expect("an identifier").to_owned();
    assert!(said.contains(&node), "{said} does not name {node}");
    let as_alice =
        ["secure-channel", "create", "--from", "n1", "--to", "/node/n3/service/friends", "--identity", "alice"];
    let channel = home.ok(&as_alice);
    assert_eq!(home.send("hello", &format!("{channel}/service/uppercase"), &["--from", "n1"]), "HELLO");
    let secure = "/node/n3/secure/friends/service/uppercase";
    for from in [&[][..], &["--from", "n1"]] {
        let send = [&["message", "send", "hello", "--to", secure], from].concat();
        home.fails(77, &send);
        assert_eq!(home.ok(&[&send[..], &["--identity", "alice"]].concat()), "HELLO", "{from:?}");
    }

    assert_eq!(home.ok(&["secure-channel-listener", "delete", "friends", "--at", "n3", "--yes"]), "/service/friends");
    home.fails(68, &["secure-channel-listener", "show", "friends", "--at", "n3"]);
    home.fails(68, &as_alice);
}

#[test]
fn a_name_in_the_route_of_a_channel_is_a_promise() {
    let home = Home::new();
    home.ok(&["identity", "create", "alice"]);
    home.ok(&["identity", "create", "bob"]);
    let identifier =
        |name: &str| home.json(&["identity", "show", name])["identifier"].as_str().expect("text").to_owned();
    let (alice, bob) = (identifier("alice"), identifier("bob"));
    home.node("n1", &["--identity", "alice"]);
    let three = home.node("n3", &["--identity", "bob"]);
    assert_eq!(home.json(&["node", "show", "n3"])["identity_name"], "bob");
    assert_eq!(home.json(&["node", "show", "n1"])["identifier"], alice.as_str());
    // One that does not exist is made, and a node that cannot be leaves nothing behind.
    home.ok(&["node", "create", "n4", "--identity", "carol"]);
    assert_eq!(home.json(&["node", "show", "n4"])["identifier"], identifier("carol").as_str());
    home.fails(64, &["node", "create", "n5", "--identity", "no/body"]);
    assert_eq!(home.json(&["node", "list"]).as_array().map(Vec::len), Some(3));

    let create = ["secure-channel", "create", "--from", "n1", "--to"];
    let made = home.json(&[&create[..], &["/node/n3/service/api"]].concat());
    assert_eq!((made[0]["identifier"].as_str(), made[0]["authorized"][0].as_str()), (Some(&*bob), Some(&*bob)));
    home.ok(&[&create[..], &["/node/n3/service/api", "-a", &alice, "-a", &bob]].concat());
    // What the name promises and what is authorized must agree; that needs no handshake to see.
    let by_address = format!("{}/service/api", three.route());
    let said = home.fails(77, &[&create[..], &["/node/n3/service/api", "--authorized", &alice]].concat());
    assert!(said.contains("\"n3\"") && said.contains(&bob), "{said}");
    // An address promises nothing, and whoever is there is named.
    let said = home.fails(77, &[&create[..], &[&by_address, "--authorized", &alice]].concat());
    assert!(said.contains(&bob) && !said.contains("\"n3\""), "{said}");
    home.ok(&[&create[..], &[&by_address, "--authorized", &bob]].concat());
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
