//! Our command as the enroller at an authority of either kind, and the texts that travel between its command and the real
//! one: tickets and projects.

use ockam_interop::{Anchor, Authority, Fleet, Home, Kind, ManagedNode, Texts, over_tcp};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Runs each named check with an authority of either kind.
macro_rules! at_each {
    ($($check:ident),* $(,)?) => {$(
        mod $check {
            use ockam_interop::Kind;

            #[test]
            fn at_a_real_authority() {
                super::$check(Kind::Real);
            }

            #[test]
            fn at_ours() {
                super::$check(Kind::Ours);
            }
        }
    )*};
}

at_each!(tickets, members, tickets_of_every_form, commands_show_credentials);

const HOUR: Duration = Duration::from_secs(3600);

/// A home of ours that may enroll others at an authority of this kind, and knows it from the JSON that the real command
/// exports.
fn enroller(kind: Kind) -> (Arc<Home>, Authority) {
    let home = Home::new();
    let identifier = home.ok(&["identity", "create", "admin"]);
    let identifier = identifier.trim_end().try_into().expect("an identifier");
    let authority = Authority::start(kind, &[identifier], HOUR);
    home.import(&authority.anchor().project());
    (home, authority)
}

fn json(printed: &str) -> Value {
    serde_json::from_str(printed).unwrap_or_else(|e| panic!("not JSON: {printed:?}: {e}"))
}

fn attributes(home: &Home, member: &str) -> Texts {
    let shown = json(&home.ok(&["project-member", "show", member, "--output", "json"]));
    serde_json::from_value(shown["attributes"].clone()).expect("attributes")
}

fn texts(pairs: &[(&str, &str)]) -> Texts {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A real node enrolls with a ticket of ours.
fn tickets(kind: Kind) {
    let (home, authority) = enroller(kind);
    let ticket = home.ok(&["project", "ticket", "--attribute", "component=web", "--relay", "web"]);
    let (anchor, code) = Anchor::read_ticket(&ticket);
    assert_eq!(anchor.identifier, authority.anchor().identifier);
    assert_eq!(anchor.history, authority.anchor().history);
    let (member, other) = (ManagedNode::enrolled(&ticket), ManagedNode::start());
    assert!(other.redeem(&anchor, &code).is_err(), "it is for one");
    let member = member.identifier().to_string();
    assert_eq!(attributes(&home, &member), texts(&[("component", "web"), ("ockam-relay", "web")]));
    let ticket = home.ok(&["ticket", "create", "--usage-count", "2", "--expires-in", "1h", "--enroller"]);
    let (anchor, code) = Anchor::read_ticket(&ticket);
    for again in [true, true, false] {
        assert_eq!(ManagedNode::start().redeem(&anchor, &code).is_ok(), again);
    }
}

fn members(kind: Kind) {
    let (home, _authority) = enroller(kind);
    let [alice, bob] = std::array::from_fn(|_| ManagedNode::start().identifier().to_string());
    home.ok(&["project-member", "add", &alice, "--attribute", "component=web", "--attribute", "ü=grün"]);
    home.ok(&["project-member", "add", &bob]);
    assert_eq!(attributes(&home, &alice), texts(&[("component", "web"), ("ü", "grün")]));
    assert_eq!(attributes(&home, &bob), texts(&[]));
    let listed = json(&home.ok(&["project-member", "list", "--output", "json"]));
    let listed = listed.as_array().expect("an array").iter();
    let mut listed: Vec<&str> = listed.map(|member| member["identifier"].as_str().expect("an identifier")).collect();
    listed.sort_unstable();
    let itself = home.ok(&["identity", "show", "admin", "--output", "json"]);
    let itself = json(&itself)["identifier"].as_str().expect("an identifier").to_owned();
    let mut expected = [&itself[..], &alice, &bob];
    expected.sort_unstable();
    assert_eq!(listed, expected);
    home.ok(&["project-member", "delete", &alice, "--yes"]);
    let ids = home.ok(&["project-member", "list-ids", "--output", "json"]);
    assert!(!ids.contains(&alice) && ids.contains(&bob) && ids.contains(&itself), "{ids}");
    assert_ne!(home.ockam(&["project-member", "show", &alice]).code, Some(0));
}

/// Ours enrolls with what the real command makes: hexadecimal, the plain text in it, and the older form.
fn tickets_of_every_form(kind: Kind) {
    let fleet = Fleet::start(kind, HOUR);
    let code = || fleet.enroller.create_code(fleet.anchor(), &[("component", "web")], None, None).expect("a code");
    let anchor = fleet.anchor();
    let plain = |ticket: String| String::from_utf8(hex::decode(ticket).expect("hexadecimal")).expect("text");
    for ticket in [
        anchor.ticket(&code()),
        plain(anchor.ticket(&code())),
        anchor.old_ticket(&code()),
        plain(anchor.old_ticket(&code())),
    ] {
        let home = Home::new();
        let printed = home.enroll(&ticket);
        let node = home.node("member");
        let member = node.identifier().as_str().try_into().expect("an identifier");
        let known = fleet.enroller.member(anchor, &member);
        assert_eq!(known, Ok(texts(&[("component", "web")])), "{printed}");
    }
}

/// The JSON that our authority prints is a project to the real library, and the route in it leads there.
#[test]
fn a_project_of_ours_is_read() {
    let member = ManagedNode::start();
    let authority = Authority::start(Kind::Ours, &[member.identifier().clone()], HOUR);
    let Authority::Ours(authority) = authority else { unreachable!("ours was asked for") };
    let printed = authority.node.home().ok(&["authority", "show", "--output", "json"]);
    let read = Anchor::read_project(&printed);
    assert_eq!(read.identifier.to_string(), authority.node.identifier());
    assert!(member.fetch_credential(&read).is_ok());
}

/// A ticket that was made before the authority had another key. Real nodes keep to the one in the ticket.
#[test]
fn a_ticket_of_before_a_rotation() {
    let mut fleet = Fleet::start(Kind::Ours, HOUR);
    let ticket = fleet.ticket(&[("component", "web")]);
    fleet.authority.renew_keys();
    let home = Home::new();
    home.enroll(&ticket);
    let node = home.node("member");
    let member = node.identifier().as_str().try_into().expect("an identifier");
    assert_eq!(fleet.enroller.member(fleet.anchor(), &member), Ok(texts(&[("component", "web")])));
}

/// A home that enrolled sends messages as a member, without a node of its own, to guarded services of either kind.
fn commands_show_credentials(kind: Kind) {
    let fleet = Fleet::start(kind, HOUR);
    let (member, stranger) = (Home::new(), Home::new());
    member.enroll(&fleet.ticket(&[("component", "web")]));
    for guard in [Kind::Real, Kind::Ours] {
        let guard = fleet.stranger(guard);
        guard.allow("echo", "(= subject.component \"web\")");
        let to = format!("{}/secure/api/service/echo", over_tcp(guard.address()));
        assert_eq!(member.ok(&["message", "send", "hello", "--to", &to]).trim_end(), "hello");
        let refused = stranger.ockam(&["message", "send", "hello", "--to", &to, "--timeout", "2s"]);
        assert_ne!(refused.code, Some(0), "{}", refused.stdout);
    }
}
