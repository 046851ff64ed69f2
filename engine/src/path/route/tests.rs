//! Who passes a guard, and who has addresses dialed: every way a message can come in and be carried on here, against a
//! model of two lines.

use super::*;
use crate::path::bucket::Bucket;
use crate::path::guard::Granted;
use crate::path::tables::{Connection, Directory, LinkAddress};
use ockam_crypto::{Opener, Sealer, Secret};
use ockam_engine_abi::{Grants, Guard, GuardSet, TransitFrom, TransitRule};
use ockam_wire::{Address, Outgoing, RouteParts};
use std::net::Ipv4Addr;

const FLOW_CONTROL: u8 = 3;
const NOW_MS: u64 = 50_000;
const GUARD: Guard = 700;
const OTHER: Guard = 701;
const LINK: LinkAddress = *b"00000000000000000000000000000001";
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

/// What there is of a guard, beside the channel's peer.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    /// Nothing.
    Shut,
    /// It is open.
    Open,
    /// The peer is granted it.
    Granted,
    /// The peer is granted it for another millisecond.
    GrantedForNow,
    /// The peer was granted it until this very millisecond.
    Expired,
    /// The peer is granted another one, and another one is open.
    Others,
}

const STATES: [State; 6] =
    [State::Shut, State::Open, State::Granted, State::GrantedForNow, State::Expired, State::Others];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Came {
    Inside,
    Link,
    Channel,
}

fn channel(grants: &Grants, since_ms: u64) -> Arc<Channel> {
    let secret = || Secret::new([1; 32]);
    let onward = [AddressRef::local(&LINK), AddressRef::local(b"peer")];
    let way =
        Outgoing { onward: RouteParts::new(&onward), return_route: RouteParts::EMPTY, payload_len: 0, tracing: None };
    Arc::new(Channel::new(
        1,
        (b"encryptor"[..].into(), b"decryptor"[..].into()),
        77,
        FLOW_CONTROL,
        true,
        Granted::new(grants, since_ms),
        (Sealer::new(secret()), Opener::new(secret())),
        crate::path::channel::read_way(&way.to_frame(&[])[4..]).expect("it begins inside"),
        None,
        Bucket::new(9, 0),
    ))
}

fn grants(guard: Guard, expire_in_ms: Option<u64>) -> Grants {
    Grants { guards: [guard].into_iter().collect(), expire_in_ms }
}

/// A node with a link and a channel, whose guarded and other places are reachable by both.
fn node(state: State) -> (Tables, Arc<Channel>) {
    let channel = match state {
        State::Shut | State::Open => channel(&Grants::default(), NOW_MS),
        State::Granted => channel(&grants(GUARD, None), NOW_MS),
        State::GrantedForNow => channel(&grants(GUARD, Some(10)), NOW_MS - 9),
        State::Expired => channel(&grants(GUARD, Some(10)), NOW_MS - 10),
        State::Others => channel(&grants(OTHER, None), NOW_MS),
    };
    let mut tables = Tables::new(Arc::new(Directory::default()), true);
    tables.open = match state {
        State::Open => [GUARD].into_iter().collect(),
        State::Others => [OTHER].into_iter().collect(),
        _ => GuardSet::NONE,
    };
    tables.add_connection(LINK, Connection::Link(LinkId::new(0, 1, 1)));
    let reachable = 1 << FLOW_CONTROL;
    let targets = [
        ("echo", Target::Echo),
        ("uppercase", Target::Uppercase),
        ("hop", Target::Hop),
        ("control", Target::Control),
        ("outlet", Target::Outlet),
    ];
    for (serial, (name, target)) in targets.into_iter().enumerate() {
        let access = |guard| Access { reachable, guard };
        tables.set(name.as_bytes(), target, access(None), serial as u64);
        tables.set(format!("guarded {name}").as_bytes(), target, access(Some(GUARD)), serial as u64 + 100);
    }
    tables.set_relay(b"relay", None, reachable, 1000);
    tables.install(&channel, reachable, 1001);
    (tables, channel)
}

/// What becomes of a message, by its verdict: why it was refused, or that it was not.
fn outcome(tables: &Tables, channel: &Arc<Channel>, from: Came, onward: &[Address]) -> Result<(), DropReason> {
    let refs: Vec<AddressRef<'_>> = onward.iter().map(Address::as_ref).collect();
    let payload = b"\x02hi";
    let return_route = [AddressRef::local(b"asker")];
    let frame = Outgoing {
        onward: RouteParts::new(&refs),
        return_route: RouteParts::new(&return_route),
        payload_len: payload.len(),
        tracing: None,
    }
    .to_frame(payload);
    let message = Message::parse(&frame[4..]).expect("a message");
    let ingress = match from {
        Came::Inside => Ingress::Inside,
        Came::Link => {
            Ingress::Link { link: LinkId::new(0, 1, 1), address: &LINK, flow_control: FLOW_CONTROL, peer: PEER }
        }
        Came::Channel => Ingress::Channel(channel),
    };
    match route(tables, ingress, &Replies::new(), &message, &mut Walk::of(&message), NOW_MS) {
        Verdict::Drop { reason, .. } => Err(reason),
        _ => Ok(()),
    }
}

/// The places, and what the model says when the guard lets pass: from inside `asker` is no address of this node.
const PLACES: [&str; 5] = ["echo", "uppercase", "hop", "control", "outlet"];

fn locals(names: &[&str]) -> Vec<Address> {
    names.iter().map(|name| Address::local(*name)).collect()
}

#[test]
fn a_guard_lets_pass_whom_it_is_open_for_by_whatever_way() {
    let detours: [&[&str]; 6] =
        [&[], &["hop"], &["relay"], &["hop", "relay"], &["relay", "hop"], &["hop", "hop", "relay", "hop"]];
    let mut passed = 0;
    for state in STATES {
        let (tables, channel) = node(state);
        for from in [Came::Inside, Came::Link, Came::Channel] {
            let by_grant = matches!(state, State::Granted | State::GrantedForNow);
            let passes = from == Came::Inside || state == State::Open || (from == Came::Channel && by_grant);
            for (detour, place) in detours.iter().flat_map(|detour| PLACES.map(|place| (detour, place))) {
                let onward = |last: &str| {
                    let mut names = detour.to_vec();
                    names.push(last);
                    // What only forwards leads back out.
                    if place == "hop" {
                        names.push(if from == Came::Channel {
                            "encryptor"
                        } else {
                            "00000000000000000000000000000001"
                        });
                    }
                    locals(&names)
                };
                let free = outcome(&tables, &channel, from, &onward(place));
                let guarded = outcome(&tables, &channel, from, &onward(&format!("guarded {place}")));
                assert_ne!(free, Err(DropReason::PolicyDenied), "{from:?} {place}: it has no guard");
                // A service that answers what came from inside has nowhere to answer to.
                let expected = if passes { free } else { Err(DropReason::PolicyDenied) };
                assert_eq!(guarded, expected, "{state:?}, {from:?}, {detour:?}, {place}");
                passed += usize::from(guarded.is_ok());
            }
        }
    }
    assert!(passed > 100, "{passed}: nearly nothing passed, the table says little");
}

/// A guard that is passed leads to the next one.
#[test]
fn each_guard_on_the_way_is_asked() {
    let (tables, channel) = node(State::Others);
    for detour in [&["guarded hop", "echo"][..], &["hop", "guarded hop", "echo"], &["relay", "guarded hop", "echo"]] {
        for from in [Came::Link, Came::Channel] {
            let outcome = outcome(&tables, &channel, from, &locals(detour));
            assert_eq!(outcome, Err(DropReason::PolicyDenied), "{from:?} {detour:?}");
        }
    }
}

/// Cores have tables of their own, and the same channels.
#[test]
fn all_cores_see_what_is_granted_at_once() {
    let (one, channel) = node(State::Shut);
    let (other, _) = node(State::Shut);
    let echo = locals(&["guarded echo"]);
    let both = || [&one, &other].map(|tables| outcome(tables, &channel, Came::Channel, &echo).is_ok());
    assert_eq!(both(), [false; 2]);
    channel.granted.replace(&grants(GUARD, None), NOW_MS);
    assert_eq!(both(), [true; 2]);
    channel.granted.replace(&grants(OTHER, None), NOW_MS);
    assert_eq!(both(), [false; 2]);
}

/// What a flow control does not admit is not reached by a grant.
#[test]
fn a_grant_does_not_admit() {
    let (mut tables, channel) = node(State::Granted);
    tables.set(b"elsewhere", Target::Echo, Access { reachable: 0, guard: Some(GUARD) }, 5);
    let outcome = outcome(&tables, &channel, Came::Channel, &locals(&["elsewhere"]));
    assert_eq!(outcome, Err(DropReason::NotAdmitted));
}

fn to(text: &str) -> (IpAddr, u8) {
    let (ip, bits) = text.split_once('/').unwrap();
    (ip.parse().unwrap(), bits.parse().unwrap())
}

/// The rules with a name, the route, and what becomes of it when the guard lets pass.
type Case<'a> = (&'a str, &'a [TransitRule], &'a [&'a str], Result<(), DropReason>);

#[test]
fn addresses_are_dialed_for_whom_a_rule_lets_pass() {
    use DropReason::{PolicyDenied, TransitRefused};
    let rule = |guard, network, port| TransitRule { from: TransitFrom::Guard(guard), to: to(network), port };
    let everywhere = vec![rule(GUARD, "0.0.0.0/0", None), rule(GUARD, "::/0", None)];
    let some = vec![rule(GUARD, "10.1.0.0/16", Some(4000)), rule(OTHER, "10.2.0.0/16", None)];
    let near = vec![
        rule(GUARD, "127.0.0.0/8", Some(4000)),
        rule(GUARD, "::1/128", None),
        rule(GUARD, "169.254.7.0/24", None),
        rule(GUARD, "0.0.0.0/1", None),
    ];
    let by_network = vec![TransitRule { from: TransitFrom::Network(to("0.0.0.0/0")), to: to("0.0.0.0/0"), port: None }];
    let cases: [Case<'_>; 36] = [
        ("none", &[], &["10.1.2.3:4000"], Err(TransitRefused)),
        ("none", &[], &["127.0.0.1:4000"], Err(TransitRefused)),
        ("by network", &by_network, &["10.1.2.3:4000"], Err(TransitRefused)),
        ("everywhere", &everywhere, &["10.1.2.3:4000"], Ok(())),
        ("everywhere", &everywhere, &["[::ffff:10.1.2.3]:4000"], Ok(())),
        ("everywhere", &everywhere, &["[2001:db8::1]:4000"], Ok(())),
        ("everywhere", &everywhere, &["db.example:5432"], Ok(())),
        ("everywhere", &everywhere, &["127.0.0.1:4000"], Err(TransitRefused)),
        ("everywhere", &everywhere, &["127.9.9.9:4000"], Err(TransitRefused)),
        ("everywhere", &everywhere, &["[::ffff:127.0.0.1]:4000"], Err(TransitRefused)),
        ("everywhere", &everywhere, &["[::1]:4000"], Err(TransitRefused)),
        ("everywhere", &everywhere, &["169.254.169.254:80"], Err(TransitRefused)),
        ("everywhere", &everywhere, &["[fe80::1]:80"], Err(TransitRefused)),
        ("everywhere", &everywhere, &["0.0.0.0:80"], Err(TransitRefused)),
        ("everywhere", &everywhere, &["[::]:80"], Err(TransitRefused)),
        ("everywhere", &everywhere, &["224.0.0.1:80"], Err(TransitRefused)),
        ("some", &some, &["10.1.2.3:4000"], Ok(())),
        ("some", &some, &["10.1.2.3:4001"], Err(TransitRefused)),
        ("some", &some, &["10.2.2.3:4001"], Err(PolicyDenied)),
        ("some", &some, &["10.3.2.3:4000"], Err(TransitRefused)),
        ("some", &some, &["db.example:4000"], Ok(())),
        ("some", &some, &["db.example:4001"], Err(PolicyDenied)),
        ("near", &near, &["127.0.0.1:4000"], Ok(())),
        ("near", &near, &["127.0.0.1:4001"], Err(TransitRefused)),
        ("near", &near, &["[::1]:4001"], Ok(())),
        ("near", &near, &["169.254.7.1:1"], Ok(())),
        ("near", &near, &["169.254.8.1:1"], Err(TransitRefused)),
        ("near", &near, &["10.1.2.3:1"], Ok(())),
        // What is dialed sees this node as the one that asks for the next.
        ("everywhere", &everywhere, &["10.1.2.3:4000", "10.1.2.4:4000"], Ok(())),
        ("everywhere", &everywhere, &["10.1.2.3:4000", "127.0.0.1:4000"], Err(TransitRefused)),
        ("everywhere", &everywhere, &["10.1.2.3:4000", "db.example:4000"], Err(TransitRefused)),
        ("some", &some, &["10.1.2.3:4000", "10.2.2.3:4000"], Err(PolicyDenied)),
        ("everywhere", &everywhere, &["10.1.2.3"], Err(DropReason::BadAddress)),
        ("everywhere", &everywhere, &["relay", "10.1.2.3:4000"], Ok(())),
        // Behind a forwarder the message is this node's own, and that dials nothing.
        ("everywhere", &everywhere, &["hop", "10.1.2.3:4000"], Err(TransitRefused)),
        ("everywhere", &everywhere, &["guarded hop", "10.1.2.3:4000"], Err(TransitRefused)),
    ];
    for (rules_name, rules, route, expected) in cases {
        let onward: Vec<Address> =
            route
                .iter()
                .map(|text| {
                    if text.contains(['.', ':']) { format!("1#{text}").parse().unwrap() } else { Address::local(*text) }
                })
                .collect();
        for (state, passes) in [(State::Granted, true), (State::GrantedForNow, true), (State::Expired, false)] {
            let (mut tables, channel) = node(state);
            tables.transit.0 = rules.to_vec();
            let expected = match expected {
                Ok(()) if !passes => Err(PolicyDenied),
                Err(_) if !passes => continue,
                expected => expected,
            };
            let what = format!("{rules_name}: {route:?}, {state:?}");
            assert_eq!(outcome(&tables, &channel, Came::Channel, &onward), expected, "{what}");
            // Rules of guards say nothing of links, and nothing is dialed for what comes from inside.
            if rules_name != "by network" {
                assert_ne!(outcome(&tables, &channel, Came::Link, &onward), Ok(()), "{what}, from a link");
            }
            assert_ne!(outcome(&tables, &channel, Came::Inside, &onward), Ok(()), "{what}, from inside");
        }
    }
}
