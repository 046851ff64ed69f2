//! Who is let pass because of what an authority says: members, tickets, policies, and how soon each change is felt by
//! connections that live. Every member is in a home of its own, as on a machine of its own.

use minicbor::Encoder;
use ockam_tests::{
    Channel, ClosedPort, Home, Identity, Initiator, Inner, Member, Node, Output, Peer, Place, Process, Project, Talk,
    Target, addresses, enroll, finish, now, on_both_drivers, try_works, wait_until, works,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What must not take longer than 5 seconds is failed by this test after so many, which no busy machine needs; what it took
/// is printed.
const LIMIT: Duration = Duration::from_secs(25);

/// How much longer a connection goes on than what admitted it at first, so that this is not for its inertia.
const BEYOND_SECS: u64 = 10;

/// How long a message may take that must be answered, and one that must not.
const LONG: &str = "40s";
const SHORT: &str = "3s";

/// Waits until a connection has ended, which it must within [`LIMIT`] of `since`, and by an error.
#[track_caller]
fn is_cut(talk: Talk, since: Instant, why: &str) {
    wait_until(|| talk.has_ended(), || format!("{why}: the connection goes on"));
    let took = since.elapsed();
    eprintln!("{why}: closed after {took:?}");
    assert!(took < LIMIT, "{why}: it took {took:?}");
    let error = talk.outcome().expect_err("a connection that is cut does not look like one that ended");
    assert_ne!(error.kind(), std::io::ErrorKind::InvalidData, "{error}");
}

/// Waits until a new connection does what it shall.
#[track_caller]
fn comes_back(inlet: &Place) {
    wait_until(|| try_works(inlet).is_ok(), || "no new connection gets through".into());
}

/// No new connection gets through.
#[track_caller]
fn stays_closed(inlet: &Place) {
    assert!(try_works(inlet).is_err(), "a new connection gets through");
}

/// `app` has an inlet to the outlet of `db`, which is for who has the role `app`.
struct Shop {
    project: Project,
    app: Member,
    db: Member,
    of_db: Node,
    inlet: Place,
    _target: Target,
}

impl Shop {
    #[track_caller]
    fn new(of_authority: &[&str], more: &[&str]) -> Shop {
        let project = Project::new(of_authority);
        let (app, db) = (project.join("app", &["role=app"]), project.join("db", &["role=db"]));
        let target = Target::echo();
        let of_db = db.node(more);
        let allow = ["--from", "outlet", "--allow", "(= subject.role \"app\")"];
        let outlet = db.home.outlet("db", target.place(), &allow);
        app.node(more);
        let route = format!("{}/secure/api{outlet}", of_db.route());
        let inlet = app.home.inlet("app", &route, &["--alias", "shop", "--allow", "role=db"]);
        works(&inlet);
        Shop { project, app, db, of_db, inlet, _target: target }
    }

    /// What the node of `app` says of its authority.
    #[track_caller]
    fn authority_of_app(&self) -> Value {
        self.app.home.json(&["node", "show", "app"])["authority"].clone()
    }
}

/// A peer of this test in a channel to a node.
struct Visitor {
    peer: Peer,
    channel: Channel,
}

impl Visitor {
    #[track_caller]
    fn new(node: &Node, identity: &Identity) -> Visitor {
        let mut peer = Peer::connect(node.address);
        let channel = Initiator::open(&mut peer, &["api"], identity);
        Visitor { peer, channel }
    }

    /// Sends something and takes the next message that comes back for it.
    #[track_caller]
    fn ask(&mut self, service: &str, payload: &[u8]) -> Vec<u8> {
        let frame = self.channel.frame_with(&[service], &["me"], payload);
        self.peer.send(&frame);
        loop {
            match self.channel.receive(&mut self.peer) {
                Inner::Message(message) => {
                    assert_eq!(message.onward, addresses(&["me"]));
                    return message.payload;
                }
                Inner::Refresh => {}
                Inner::Close => panic!("the node closed the channel"),
            }
        }
    }

    /// Asks a service of an authority, and gives the status of its answer.
    #[track_caller]
    fn request(&mut self, service: &str, path: &str, body: &[u8]) -> u16 {
        status(&self.ask(service, &request(path, body)))
    }
}

/// A POST to a service of an authority (`wire.md` I.1).
fn request(path: &str, body: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    let written = Encoder::new(&mut all)
        .map(4)
        .and_then(|it| it.u8(1)?.u32(7)?.u8(2)?.str(path)?.u8(3)?.u8(1)?.u8(4)?.bool(true)?.ok());
    written.expect("writing into a vector does not fail");
    all.extend_from_slice(body);
    let mut payload = Vec::new();
    ockam_wire::bare::write_uleb(all.len() as u64, &mut payload);
    payload.extend_from_slice(&all);
    payload
}

#[track_caller]
fn status(answer: &[u8]) -> u16 {
    let (_, header) = ockam_wire::bare::read_uleb(answer).expect("an envelope");
    let mut input = minicbor::Decoder::new(header);
    let fields = input.map().expect("a header").expect("of known length");
    for _ in 0..fields {
        match input.u8().expect("a field") {
            3 => return input.u16().expect("a status"),
            _ => input.skip().expect("a value"),
        }
    }
    panic!("an answer without a status");
}

/// What redeems a ticket.
fn redemption(code: &[u8]) -> Vec<u8> {
    [&[0xa1, 0x01, 0x58, 0x20], code].concat()
}

/// The secret of a ticket.
#[track_caller]
fn code_of(ticket: &Path) -> Vec<u8> {
    let json = from_hex(fs::read_to_string(ticket).expect("a ticket").trim());
    let json: Value = serde_json::from_slice(&json).expect("a ticket is JSON in hexadecimal digits");
    from_hex(json["one_time_code"].as_str().expect("a code"))
}

#[track_caller]
fn from_hex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2) && text.is_ascii(), "{text:?} is not hexadecimal");
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hexadecimal")).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

// ---- what ends what it admitted

on_both_drivers! {
    // Point 1: who is no member any more is cut off, and comes back when it is one again, without a hand on any node.
    who_is_no_member_any_more_is_cut_off(driver) {
        let shop = Shop::new(&[], &["--driver", driver]);
        let talk = Talk::start(&shop.inlet, 1);
        shop.project.member(&["delete", &shop.app.identifier, "--yes"]);
        is_cut(talk, Instant::now(), "a member was deleted");
        stays_closed(&shop.inlet);
        // The channel is there all the same, and it is the policy that denies.
        let check = shop.db.home.run(&["policy", "check", "outlet", "--subject", &shop.app.identifier, "--at", "db"]);
        assert_eq!(check.code, Some(77), "{check:?}");
        shop.project.member(&["add", &shop.app.identifier, "-a", "role=app"]);
        comes_back(&shop.inlet);
    }
}

#[test]
fn credentials_that_were_revoked_let_nobody_pass_and_new_ones_do() {
    let shop = Shop::new(&[], &[]);
    let bystander = shop.project.join("other", &["role=app"]);
    bystander.node(&[]);
    let route = format!("{}/secure/api/service/outlet", shop.of_db.route());
    let of_bystander = bystander.home.inlet("other", &route, &[]);
    let (talk, beside) = (Talk::start(&shop.inlet, 1), Talk::start(&of_bystander, 2));
    let before = shop.authority_of_app()["revocations"]["number"].as_u64().expect("a number");
    shop.project.member(&["revoke", &shop.app.identifier, "--yes"]);
    // It stays a member: what it gets anew counts. Whether its connection lives to see that is a race.
    let number = || shop.authority_of_app()["revocations"]["number"].as_u64().unwrap_or_default();
    wait_until(
        || number() > before,
        || format!("the list of revocations does not arrive: {}", shop.authority_of_app()),
    );
    comes_back(&shop.inlet);
    drop(talk);
    beside.flows();
    beside.stop();
}

/// A node that believes an identity which has no node at all: credentials are made and stored by hand.
struct ByHand {
    issuer: Home,
    app: Home,
    db: Home,
    inlet: Place,
    _target: Target,
    _nobody: ClosedPort,
}

impl ByHand {
    #[track_caller]
    fn new(driver: &str, ttl: &str) -> ByHand {
        let (issuer, nobody, target) = (Home::new(), ClosedPort::new(), Target::echo());
        issuer.ok(&["identity", "create", "issuer"]);
        let history = issuer.ok(&["identity", "export", "issuer"]);
        let route = format!("/ip4/127.0.0.1/tcp/{}/secure/api", nobody.address().port());
        let trust = ["--authority-identity", history.trim(), "--authority-route", &route, "--driver", driver];
        let (app, db) = (Home::new(), Home::new());
        let of_db = db.node("db", &trust);
        app.node("app", &trust);
        let allow = ["--from", "outlet", "--allow", "(= subject.role \"app\")"];
        db.outlet("db", target.place(), &allow);
        let by_hand = ByHand { issuer, app, db, inlet: target.place().clone(), _target: target, _nobody: nobody };
        by_hand.issue(&by_hand.db, "db", "db", "1h");
        // The last, since its time may be short.
        by_hand.issue(&by_hand.app, "app", "app", ttl);
        let route = format!("{}/secure/api/service/outlet", of_db.route());
        let inlet = by_hand.app.inlet("app", &route, &["--alias", "shop"]);
        ByHand { inlet, ..by_hand }
    }

    /// Makes a credential for a node and stores it there. Gives its last second.
    #[track_caller]
    fn issue(&self, of: &Home, node: &str, role: &str, ttl: &str) -> u64 {
        let subject = of.json(&["node", "show", node])["identifier"].as_str().expect("an identifier").to_owned();
        let role = format!("role={role}");
        let credential =
            self.issuer.ok(&["credential", "issue", "--as", "issuer", "--for", &subject, "-a", &role, "--ttl", ttl]);
        let history = self.issuer.ok(&["identity", "export", "issuer"]);
        let store =
            ["credential", "store", "--at", node, "--issuer", history.trim(), "--credential", credential.trim()];
        of.ok(&store);
        let list = of.json(&["credential", "list", "--at", node]);
        let own = list.as_array().expect("an array").iter().find(|it| it["own"] == true);
        own.unwrap_or_else(|| panic!("what was stored is not listed: {list}"))["expires_at"].as_u64().expect("a time")
    }

    /// The last second of what `db` knows of `app`.
    fn known_until(&self) -> Option<u64> {
        let list = self.db.json(&["credential", "list", "--at", "db"]);
        list.as_array()?.iter().find(|it| it["attributes"]["role"] == "app")?["expires_at"].as_u64()
    }
}

/// Waits until a connection has ended, which it must be with its credential: not before its last second has begun, and
/// within [`LIMIT`] after it.
#[track_caller]
fn ends_with(talk: Talk, expires_at: u64, why: &str) {
    wait_until(|| talk.has_ended(), || format!("{why}: the connection goes on"));
    let ended = now();
    eprintln!("{why}: closed {} s after the credential's last second began", ended.saturating_sub(expires_at));
    assert!(ended >= expires_at, "{why}: it ended before its credential did");
    assert!(ended - expires_at < LIMIT.as_secs(), "{why}: it ended {} s too late", ended - expires_at);
    talk.outcome().expect_err("a connection that is cut does not look like one that ended");
}

on_both_drivers! {
    a_credential_that_expires_closes_what_it_admitted(driver) {
        let by_hand = ByHand::new(driver, "30s");
        let talk = Talk::start(&by_hand.inlet, 1);
        let until = by_hand.known_until().expect("a credential was shown");
        ends_with(talk, until, "expired");
        stays_closed(&by_hand.inlet);
        // A new one is shown over the channel that is there.
        by_hand.issue(&by_hand.app, "app", "app", "1h");
        comes_back(&by_hand.inlet);
    }

    // The engine keeps the time by itself.
    a_credential_expires_without_control(driver) {
        let by_hand = ByHand::new(driver, "30s");
        let talk = Talk::start(&by_hand.inlet, 1);
        let until = by_hand.known_until().expect("a credential was shown");
        by_hand.db.show("db").control.kill();
        talk.flows();
        ends_with(talk, until, "expired without control");
        by_hand.db.ok(&["node", "start", "db"]);
        stays_closed(&by_hand.inlet);
    }

    // E.7: who shows a later credential in time goes on, and the connection does not notice.
    a_credential_is_renewed_under_a_connection_that_lives(driver) {
        let by_hand = ByHand::new(driver, "30s");
        let talk = Talk::start(&by_hand.inlet, 1);
        let first = by_hand.known_until().expect("a credential was shown");
        let second = by_hand.issue(&by_hand.app, "app", "app", "1h");
        wait_until(
            || by_hand.known_until() == Some(second),
            || format!("the new credential is not shown: {:?}, not {second}", by_hand.known_until()),
        );
        assert!(now() < first, "this machine is too slow for this test: the first credential is over");
        // Longer than a connection may outlive what admitted it.
        let end = first + BEYOND_SECS;
        wait_until(
            || {
                talk.flows();
                now() > end
            },
            || "time stands still".into(),
        );
        talk.stop();
    }
}

#[test]
fn an_authority_renews_credentials_under_connections_that_live() {
    // One is renewed when half of its life is over.
    let shop = Shop::new(&["--credential-ttl", "20s"], &[]);
    let talk = Talk::start(&shop.inlet, 1);
    let known = || {
        let list = shop.db.home.json(&["credential", "list", "--at", "db"]);
        let of_app = list.as_array().expect("an array").iter().find(|it| it["subject"] == shop.app.identifier.as_str());
        of_app.and_then(|it| it["expires_at"].as_u64()).unwrap_or_default()
    };
    // Longer than a connection may outlive what admitted it.
    let (mut last, end) = (known(), now() + 20 + BEYOND_SECS);
    while now() < end {
        let before = last;
        wait_until(
            || {
                last = known();
                last > before
            },
            || format!("what the peer knows is not renewed: {before}; {}", shop.authority_of_app()),
        );
        talk.flows();
    }
    talk.stop();
}

// ---- tickets

#[test]
fn a_ticket_admits_as_many_as_it_says_however_many_come_at_once() {
    let project = Project::new(&[]);
    for (uses, comers) in [(1, 100), (5, 30)] {
        let before: BTreeSet<String> = members(&project);
        let ticket = project.ticket(&["--usage-count", &uses.to_string(), "-a", "role=guest"]);
        let body = redemption(&code_of(&ticket));
        let barrier = Barrier::new(comers);
        let admitted: Vec<(Identity, bool)> = std::thread::scope(|scope| {
            let comers: Vec<_> = (0..comers)
                .map(|_| {
                    scope.spawn(|| {
                        let identity = Identity::new();
                        let mut visitor = Visitor::new(&project.node, &identity);
                        barrier.wait();
                        let status = visitor.request("enrollment_token_acceptor", "/", &body);
                        assert!([200, 403].contains(&status), "status {status}");
                        (identity, status == 200)
                    })
                })
                .collect();
            comers.into_iter().map(|it| it.join().expect("everybody is answered")).collect()
        });
        let winners: BTreeSet<String> =
            admitted.iter().filter(|(_, won)| *won).map(|(identity, _)| identity.identifier()).collect();
        assert_eq!(winners.len(), uses, "of {comers} who came at once");
        let new: BTreeSet<String> = members(&project).difference(&before).cloned().collect();
        assert_eq!(new, winners, "who is a member is not who was told so");
        // Who did not hear the answer asks again; nobody else gets in that way.
        for (identity, won) in admitted.iter().take(20) {
            let status = Visitor::new(&project.node, identity).request("enrollment_token_acceptor", "/", &body);
            assert_eq!(status == 200, *won, "status {status}");
        }
        assert_eq!(members(&project).len(), before.len() + uses);
    }
}

#[track_caller]
fn members(project: &Project) -> BTreeSet<String> {
    let list = project.home.json(&["project-member", "list-ids", "--identity", "admin"]);
    list.as_array().expect("an array").iter().map(|it| it.as_str().expect("an identifier").to_owned()).collect()
}

#[test]
fn a_ticket_that_is_over_admits_nobody() {
    let project = Project::new(&[]);
    let home = Home::new();
    home.ok(&["identity", "create", "late"]);
    let redeem = |ticket: &Path, code: i32| home.fails(code, &["enroll", &ticket.display().to_string()]);
    let short = project.ticket(&["--expires-in", "1s"]);
    let over = now() + 2;
    wait_until(|| now() > over, || "time stands still".into());
    assert!(redeem(&short, 77).contains("expired"));
    let used = project.ticket(&[]);
    let first = Home::new();
    enroll(&first, &used);
    enroll(&first, &used);
    redeem(&used, 77);
    // Somebody who may not make tickets makes none.
    let refused = first.run(&["ticket", "create"]);
    assert_eq!(refused.code, Some(77), "{refused:?}");
    // A ticket that was changed, and one that is none.
    let good = fs::read_to_string(project.ticket(&[])).expect("a ticket");
    let code = to_hex(&code_of(&used));
    let invented =
        String::from_utf8(from_hex(good.trim())).expect("JSON").replace(&to_hex(&code_of_text(&good)), &code);
    let path = used.with_extension("other");
    fs::write(&path, to_hex(invented.as_bytes())).expect("the directory is ours");
    redeem(&path, 77);
    fs::write(&path, "no ticket").expect("the directory is ours");
    redeem(&path, 65);
    redeem(Path::new("/nowhere/ticket"), 66);
    assert_eq!(members(&project).len(), 2, "admin, and who used a ticket in time");
}

#[track_caller]
fn code_of_text(ticket: &str) -> Vec<u8> {
    let json: Value = serde_json::from_slice(&from_hex(ticket.trim())).expect("JSON in hexadecimal digits");
    from_hex(json["one_time_code"].as_str().expect("a code"))
}

/// K8, K3: a ticket is nowhere but in its own file; an authority knows it when it sees it, and cannot show it.
#[test]
fn the_secret_of_a_ticket_is_kept_nowhere() {
    let project = Project::new(&[]);
    let tickets = [project.ticket(&["--usage-count", "5"]), project.ticket(&[])];
    let codes = tickets.each_ref().map(|it| code_of(it));
    let member = Home::new();
    enroll(&member, &tickets[0]);
    let of_node = Home::new();
    let literal = fs::read_to_string(&tickets[0]).expect("a ticket");
    let created =
        finish(of_node.command(&["node", "create", "n1", "-vv"]).env("ENROLLMENT_TICKET", literal.trim()), b"");
    created.ok();
    assert_eq!(of_node.status("n1"), "running");
    for (home, what) in [(&project.home, "the authority's"), (&member, "a member's"), (&of_node, "a container's")] {
        let mut seen = 0;
        let places = files_below(home.path()).into_iter().map(|path| {
            let bytes = fs::read(&path).unwrap_or_default();
            (path.display().to_string(), bytes)
        });
        let of_processes = home.processes().into_iter().flat_map(|Process(pid)| {
            ["cmdline", "environ"].map(|file| {
                let path = format!("/proc/{pid}/{file}");
                let bytes = fs::read(&path).unwrap_or_default();
                (path, bytes)
            })
        });
        for (place, bytes) in places.chain(of_processes) {
            seen += bytes.len();
            for code in &codes {
                for shape in shapes(code) {
                    let shows = bytes.windows(shape.len()).any(|window| window == shape);
                    assert!(!shows, "{what} {place} shows a ticket");
                }
            }
        }
        assert!(seen > 10_000, "{what} home has nothing to look through");
    }
}

/// A secret as it might be written.
fn shapes(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex = to_hex(secret);
    let decimal: Vec<String> = secret.iter().map(u8::to_string).collect();
    // As the hexadecimal digits of a whole ticket have it.
    let twice = to_hex(hex.as_bytes());
    vec![
        secret.to_vec(),
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
        twice.into_bytes(),
        decimal.join(", ").into_bytes(),
        decimal.join(",").into_bytes(),
    ]
}

#[track_caller]
fn files_below(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        match entry.file_type().expect("a type") {
            kind if kind.is_dir() => found.extend(files_below(&entry.path())),
            kind if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

#[test]
fn a_container_enrols_by_its_environment_and_again_when_it_comes_back() {
    let project = Project::new(&[]);
    let ticket = project.ticket(&["-a", "role=web"]);
    let path = ticket.display().to_string();
    let literal = fs::read_to_string(&ticket).expect("a ticket");
    let home = Home::new();
    let yaml = &format!("name: sidecar\ntcp-listener-address: {}\n", home.free());
    let create = |ticket: &str, yaml: &str| -> Output {
        let mut command = home.command(&["node", "create", "-"]);
        finish(command.env("ENROLLMENT_TICKET", ticket), yaml.as_bytes())
    };
    create(&path, yaml).ok();
    let shown = || home.json(&["node", "show", "sidecar"]);
    let authority = shown()["authority"].clone();
    assert_eq!(authority["identifier"], project.home.json(&["identity", "show", "authority"])["identifier"]);
    wait_until(|| shown()["authority"]["credential_expires_at"].is_u64(), || format!("{}", shown()["authority"]));
    // The one use is used. Who is a member already needs no other.
    home.ok(&["node", "stop", "sidecar"]);
    create(literal.trim(), yaml).ok();
    home.ok(&["node", "delete", "sidecar", "--yes"]);
    let with_key = format!("{yaml}ticket: {path}\n");
    finish(&mut home.command(&["node", "create", "-"]), with_key.as_bytes()).ok();
    assert_eq!(shown()["authority"]["identifier"], authority["identifier"]);
    assert_eq!(members(&project).len(), 2);
}

#[test]
fn an_authority_does_nothing_for_who_may_not_ask() {
    let project = Project::new(&[]);
    let before = members(&project);
    let somebody = Identity::new();
    let new_member = [&[0xa2, 0x01, 0x58, 0x20][..], &somebody.history.identifier().0, &[0x02, 0xa0]].concat();
    let add = |visitor: &mut Visitor| visitor.request("direct_authenticator", "/", &new_member);
    let make = |visitor: &mut Visitor| visitor.request("enrollment_token_issuer", "/", &[0xa1, 0x01, 0xa0]);
    let mut stranger = Visitor::new(&project.node, &Identity::new());
    assert_eq!((add(&mut stranger), make(&mut stranger)), (403, 403));
    assert_eq!(stranger.request("credential_issuer", "/credential", &[]), 403);
    let code = redemption(&[7; 32]);
    assert_eq!(stranger.request("enrollment_token_acceptor", "/", &code), 403);
    // A member gets its own credential, and that is all.
    let member = Identity::new();
    project.member(&["add", &member.identifier(), "-a", "role=web"]);
    let mut visitor = Visitor::new(&project.node, &member);
    assert_eq!(visitor.request("credential_issuer", "/credential", &[]), 200);
    assert_eq!((add(&mut visitor), make(&mut visitor)), (403, 403));
    let path = format!("/members/{}/revoke", member.identifier());
    assert_eq!(visitor.request("direct_authenticator", &path, &[]), 403);
    // Without a channel nobody is answered at all; what comes behind it on the link is.
    let mut peer = Peer::connect(project.node.address);
    for service in ["enrollment_token_acceptor", "credential_issuer", "direct_authenticator", "enrollment_token_issuer"]
    {
        peer.send(&ockam_tests::frame(&[service], &["me"], &request("/", &code)));
    }
    let mut enroller = Identity::new();
    project.member(&["add", &enroller.identifier(), "--enroller"]);
    enroller.show(&[]);
    let channel = Initiator::open(&mut peer, &["api"], &enroller);
    let mut enroller = Visitor { peer, channel };
    assert_eq!((make(&mut enroller), add(&mut enroller)), (200, 200));
    assert_eq!(members(&project).len(), before.len() + 3);
}

// ---- policies

#[test]
fn an_inlet_says_who_may_be_at_its_other_end() {
    let shop = Shop::new(&[], &[]);
    let talk = Talk::start(&shop.inlet, 1);
    let set = |allow: &str| {
        shop.app.home.ok(&[
            "policy",
            "create",
            "--at",
            "app",
            "--resource-type",
            "tcp-inlet",
            "--resource",
            "shop",
            "--allow",
            allow,
        ]);
    };
    set("role=somebody");
    is_cut(talk, Instant::now(), "what may be at the other end of an inlet changed");
    stays_closed(&shop.inlet);
    set("role=db");
    comes_back(&shop.inlet);
    // So it is when the other end is taken out.
    let talk = Talk::start(&shop.inlet, 2);
    shop.project.member(&["delete", &shop.db.identifier, "--yes"]);
    is_cut(talk, Instant::now(), "the other end of an inlet was deleted");
    stays_closed(&shop.inlet);
}

/// A policy is a rule for transit: whom it admits has this node dial its target, and nobody else has.
#[test]
fn a_policy_lets_members_have_something_dialed() {
    let project = Project::new(&[]);
    let (gate, guest) = (project.join("gate", &[]), project.join("guest", &["role=guest"]));
    let behind = Home::new();
    let (inner, other) = (behind.node("inner", &[]), behind.node("other", &[]));
    let of_gate = gate.node(&["--allow-transit", "127.0.0.9/32=127.0.0.9/32"]);
    guest.node(&[]);
    let through = |target: &Node, from: &Home, node: &str, timeout: &str| {
        let to = format!("{}/secure/api{}/service/uppercase", of_gate.route(), target.route());
        from.run(&["message", "send", "hello", "--from", node, "--to", &to, "--timeout", timeout])
    };
    assert_ne!(through(&inner, &guest.home, "guest", SHORT).code, Some(0), "dialed without a rule");
    let target = format!("127.0.0.1/32:{}", inner.address.port());
    let set = |allow: &str| {
        let of = ["policy", "create", "--at", "gate", "--resource-type", "transit", "--resource", &target];
        gate.home.ok(&[&of[..], &["--allow", allow]].concat());
    };
    set("role=guest");
    assert_eq!(through(&inner, &guest.home, "guest", LONG).ok(), "HELLO");
    assert_ne!(through(&other, &guest.home, "guest", SHORT).code, Some(0), "another target");
    let stranger = Home::new();
    stranger.node("stranger", &[]);
    assert_ne!(through(&inner, &stranger, "stranger", SHORT).code, Some(0), "a stranger");
    set("role=admin");
    assert_ne!(through(&inner, &guest.home, "guest", SHORT).code, Some(0), "after the policy changed");
}

#[test]
fn a_change_of_policies_is_felt_by_connections_that_live() {
    let home = Home::new();
    let (target, other) = (Target::echo(), Target::echo());
    home.node("n1", &[]);
    let far = home.node("n2", &[]);
    let near = home.json(&["node", "show", "n1"])["identifier"].as_str().expect("an identifier").to_owned();
    let outlet = home.outlet("n2", target.place(), &["--from", "one"]);
    home.outlet("n2", other.place(), &["--from", "two"]);
    let inlet = home.inlet("n1", &format!("{}/secure/api{outlet}", far.route()), &["--alias", "one"]);
    let beside = home.inlet("n1", &format!("{}/secure/api/service/two", far.route()), &["--alias", "two"]);
    let set = |of: &[&str], allow: &str| {
        home.ok(&[&["policy", "create", "--at", "n2"], of, &["--allow", allow]].concat());
    };
    let nobody = format!("I{}", "0".repeat(64));
    let stays = Talk::start(&beside, 9);
    for (round, of) in [["--resource", "one"], ["--resource-type", "tcp-outlet"]].into_iter().enumerate() {
        // What admits who is there already is not felt.
        set(&["--resource", "two"], &near);
        set(&of, &near);
        let talk = Talk::start(&inlet, round as u64);
        talk.flows();
        set(&of, &format!("{near} or {nobody}"));
        talk.flows();
        let since = Instant::now();
        set(&of, &nobody);
        is_cut(talk, since, "a policy changed");
        stays_closed(&inlet);
        stays.flows();
        home.ok(&[&["policy", "delete", "--at", "n2", "--yes"], &of[..]].concat());
        comes_back(&inlet);
    }
    // The name goes before the type, whichever was said last.
    set(&["--resource", "one"], &near);
    set(&["--resource-type", "tcp-outlet"], &nobody);
    comes_back(&inlet);
    home.ok(&["policy", "delete", "--at", "n2", "--resource", "one", "--yes"]);
    stays_closed(&inlet);
    stays.flows();
    stays.stop();
}

#[test]
fn a_policy_of_a_user_stays_as_it_is() {
    let project = Project::new(&[]);
    let member = project.join("m1", &["role=web"]);
    let home = &member.home;
    let target = Target::echo();
    member.node(&[]);
    home.ok(&["policy", "create", "--at", "m1", "--resource-type", "echoer", "--allow", "role=nobody"]);
    home.ok(&["policy", "create", "--at", "m1", "--resource-type", "tcp-outlet", "--allow", "role=web"]);
    home.outlet("m1", target.place(), &["--from", "db", "--allow", "(= subject.role \"db\")"]);
    let policies = || {
        let mut all = home.json(&["policy", "list", "--at", "m1"]).as_array().expect("an array").clone();
        all.sort_by_key(Value::to_string);
        all
    };
    let before = policies();
    let of = |name: &str| before.iter().filter(|it| it["source"] == name).count();
    assert_eq!(of("user"), 3, "{before:?}");
    // Upstream's default for each type where the user said nothing, and for no other.
    let built_in: BTreeSet<&str> =
        before.iter().filter(|it| it["source"] == "built-in").filter_map(|it| it["resource_type"].as_str()).collect();
    assert_eq!(built_in, BTreeSet::from(["relay", "service", "tcp-inlet"]), "{before:?}");
    assert!(
        before
            .iter()
            .filter(|it| it["source"] == "built-in")
            .all(|it| it["expression"] == "(= subject.has_credential true)")
    );
    // By a stop, by deaths, and by being created again.
    home.ok(&["node", "stop", "m1"]);
    home.ok(&["node", "start", "m1"]);
    assert_eq!(policies(), before);
    let node = home.show("m1");
    node.control.kill();
    node.engine.kill();
    home.ok(&["node", "start", "m1"]);
    assert_eq!(policies(), before);
    home.ok(&["node", "stop", "m1"]);
    home.ok(&["node", "create", "m1"]);
    assert_eq!(policies(), before);
    // What names nothing that exists, or says nothing, is refused and changes nothing.
    for bad in ["", "(= subject.role", "(frob 1 2)", "(and)", "role=", "not"] {
        home.fails(64, &["policy", "create", "--at", "m1", "--resource", "db", "--allow", bad]);
    }
    assert_eq!(policies(), before);
}

#[test]
fn with_an_authority_nobody_passes_but_its_members() {
    let project = Project::new(&[]);
    let member = project.join("m1", &["role=web"]);
    let node = member.node(&[]);
    let home = &member.home;
    let target = Target::echo();
    home.outlet("m1", target.place(), &["--from", "db"]);
    home.ok(&["service", "start", "hop", "--at", "m1"]);
    let other = project.join("m2", &["ockam-relay=blue"]);
    other.node(&[]);
    let through = |from: &Home, at: &str, service: &str, timeout: &str| {
        let to = format!("{}/secure/api/service/{service}", node.route());
        from.run(&["message", "send", "hello", "--from", at, "--to", &to, "--timeout", timeout])
    };
    assert_eq!(through(&other.home, "m2", "uppercase", LONG).ok(), "HELLO");
    assert_eq!(through(&other.home, "m2", "echo", LONG).ok(), "hello");
    let stranger = Home::new();
    stranger.node("s1", &[]);
    for service in ["uppercase", "echo", "db", "hop/service/echo"] {
        let refused = through(&stranger, "s1", service, SHORT);
        assert!([Some(69), Some(75), Some(77)].contains(&refused.code), "{service}: {refused:?}");
        let plain = format!("{}/service/{service}", node.route());
        let refused = stranger.run(&["message", "send", "hello", "--to", &plain, "--timeout", SHORT]);
        assert_ne!(refused.code, Some(0), "{service} without a channel: {refused:?}");
    }
    // Relays: who may register one says the authority.
    let at = format!("{}/secure/api", node.route());
    let relay = |from: &Home, node: &str, name: &str, timeout: &str| {
        from.run(&["relay", "create", name, "--at", &at, "--to", node, "--timeout", timeout])
    };
    relay(&other.home, "m2", "blue", LONG).ok();
    assert_ne!(relay(&other.home, "m2", "red", SHORT).code, Some(0), "a relay of another name");
    assert_ne!(relay(&stranger, "s1", "green", SHORT).code, Some(0), "a relay of a stranger");
    // A member itself gets out to others that believe nobody.
    let outside = stranger.show("s1");
    assert_eq!(member.home.send("hello", &outside.service("uppercase"), &["--from", "m1"]), "HELLO");
}

#[test]
fn decisions_are_explained() {
    let shop = Shop::new(&[], &[]);
    let home = &shop.db.home;
    let check = |more: &[&str]| {
        let output = home.run(&[&["policy", "check", "outlet", "--at", "db", "--output", "json"], more].concat());
        let view: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        assert_eq!(output.code, Some(if view["allowed"] == true { 0 } else { 77 }), "{output:?}");
        view
    };
    let of_app = check(&["--subject", &shop.app.identifier]);
    assert_eq!((&of_app["allowed"], &of_app["attributes"]["role"]), (&json!(true), &json!("app")));
    assert_eq!(of_app["policy"]["source"], "user");
    assert!(of_app["channels"].as_u64().is_some_and(|count| count >= 1), "{of_app}");
    let why = |view: &Value| view["why"].as_array().expect("lines").iter().map(|it| it.to_string()).collect::<String>();
    assert!(why(&of_app).contains("subject.role"), "{of_app}");
    let of_guest = check(&["-a", "role=guest"]);
    assert_eq!(of_guest["allowed"], false);
    assert!(why(&of_guest).contains("guest"), "{of_guest}");
    assert_eq!(check(&["-a", "role=app"])["allowed"], true);
    let without = check(&["-a", "team=app"]);
    assert_eq!(without["allowed"], false, "{without}");
    assert!(why(&without).contains("subject.role"), "{without}");
    assert_eq!(check(&[])["allowed"], false, "somebody without a channel");
    // In a pipe the bare answer is on stdout, and why is on stderr.
    let said = home.run(&["policy", "check", "outlet", "--at", "db", "-a", "role=guest"]);
    assert_eq!(said.code, Some(77), "{said:?}");
    assert!(said.stderr.contains("subject.role") && said.stderr.contains("guest"), "{said:?}");
}

/// Nothing that was said before, at whatever occasion, goes before what is said of a name now.
#[test]
fn the_last_word_about_a_name_holds() {
    let shop = Shop::new(&[], &[]);
    let talk = Talk::start(&shop.inlet, 1);
    let set = |allow: &str| {
        shop.db.home.ok(&["policy", "create", "--at", "db", "--resource", "outlet", "--allow", allow]);
    };
    // The outlet was made with `--allow`.
    set("role=nobody");
    is_cut(talk, Instant::now(), "a policy replaced what `--allow` had said");
    stays_closed(&shop.inlet);
    set("role=app or role=other");
    comes_back(&shop.inlet);
    let of = ["policy", "delete", "--at", "db", "--resource", "outlet", "--yes"];
    shop.db.home.ok(&of);
    // What is left is the built-in one, for all members.
    let list = shop.db.home.json(&["policy", "list", "--at", "db"]);
    assert!(list.as_array().expect("an array").iter().all(|it| it["source"] == "built-in"), "{list}");
    works(&shop.inlet);
}

// ---- deaths

on_both_drivers! {
    guards_hold_when_processes_die(driver) {
        let shop = Shop::new(&[], &["--driver", driver]);
        let talk = Talk::start(&shop.inlet, 1);
        // Strangers who never stop trying, with a channel and without one.
        let (over, answered, tried) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        let address = shop.of_db.address;
        let ended = std::thread::scope(|scope| {
            let _over = SetAtEnd(&over);
            scope.spawn(|| {
                let identity = Identity::new();
                while !over.load(Ordering::Relaxed) {
                    if try_echo(address, &identity).is_some_and(|it| it) {
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    tried.fetch_add(1, Ordering::Relaxed);
                }
            });
            let more_tries = || {
                let aim = tried.load(Ordering::Relaxed) + 3;
                wait_until(|| tried.load(Ordering::Relaxed) >= aim, || "strangers give up".into());
            };
            for _ in 0..3 {
                shop.db.home.show("db").control.kill();
                talk.flows();
                more_tries();
                shop.db.home.ok(&["node", "start", "db"]);
                talk.flows();
                more_tries();
            }
            for _ in 0..3 {
                shop.db.home.show("db").engine.kill();
                more_tries();
                comes_back(&shop.inlet);
                more_tries();
            }
            let node = shop.db.home.show("db");
            node.control.kill();
            node.engine.kill();
            shop.db.home.ok(&["node", "start", "db"]);
            comes_back(&shop.inlet);
            more_tries();
            talk.has_ended()
        });
        assert!(ended, "a connection outlived its engine");
        assert_eq!(answered.load(Ordering::Relaxed), 0, "a stranger was let pass");
    }
}

/// Sets what it has when it is dropped: what waits for that must not wait for a test that has failed.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether `echo` of a node answers a stranger, out of a channel or without one. `None` when the node was not there.
fn try_echo(address: std::net::SocketAddr, identity: &Identity) -> Option<bool> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_millis(300))).ok()?;
    stream.write_all(&[ockam_wire::PREAMBLE]).ok()?;
    stream.read_exact(&mut [0]).ok()?;
    let mut framer = ockam_wire::Framer::new();
    let mut chunk = vec![0; 64 * 1024];
    let mut receive =
        |stream: &mut std::net::TcpStream| -> Option<(Vec<ockam_wire::Address>, Vec<u8>, Vec<ockam_wire::Address>)> {
            loop {
                if let Some(body) = framer.next().ok()? {
                    let message = ockam_wire::Message::parse(body).ok()?;
                    let all = |route: ockam_wire::Route<'_>| route.iter().map(|it| it.to_address()).collect();
                    return Some((all(message.onward), message.payload.to_vec(), all(message.return_route)));
                }
                match stream.read(&mut chunk) {
                    Ok(count @ 1..) => framer.push(&chunk[..count]),
                    _ => return None,
                }
            }
        };
    stream.write_all(&ockam_tests::frame(&["echo"], &["plain"], b"without a channel")).ok()?;
    let handshake = Initiator::new();
    stream.write_all(&handshake.frame(&["api"])).ok()?;
    let Some((onward, payload, back)) = receive(&mut stream) else { return Some(false) };
    if onward == addresses(&["plain"]) {
        return Some(true);
    }
    let message_2 = ockam_tests::Received { onward, back, payload };
    let (message_3, mut channel) = handshake.finish(message_2, identity);
    stream.write_all(&ockam_tests::frame_to(&channel.way, &addresses(&[&channel.decryptor]), &message_3)).ok()?;
    stream.write_all(&channel.frame_with(&["echo"], &["me"], b"through a channel")).ok()?;
    while let Some((onward, payload, _)) = receive(&mut stream) {
        if onward == addresses(&["plain"]) || matches!(channel.open(&payload), Ok(Inner::Message(_))) {
            return Some(true);
        }
    }
    Some(false)
}

#[test]
fn without_its_authority_a_project_goes_on() {
    let shop = Shop::new(&[], &[]);
    let talk = Talk::start(&shop.inlet, 1);
    for process in shop.project.home.processes() {
        process.kill();
    }
    wait_until(|| shop.authority_of_app()["reachable"] == false, || format!("{}", shop.authority_of_app()));
    talk.flows();
    works(&shop.inlet);
    // What each knows lasts as long as it is valid, over deaths as well.
    shop.db.home.show("db").engine.kill();
    comes_back(&shop.inlet);
    let node = shop.app.home.show("app");
    node.control.kill();
    node.engine.kill();
    shop.app.home.ok(&["node", "start", "app"]);
    comes_back(&shop.inlet);
    // And what it says when it is back is heard.
    shop.project.home.ok(&["node", "start", "authority"]);
    wait_until(|| shop.authority_of_app()["reachable"] == true, || format!("{}", shop.authority_of_app()));
    let talk = Talk::start(&shop.inlet, 2);
    shop.project.member(&["delete", &shop.app.identifier, "--yes"]);
    let at_db = || shop.db.home.json(&["node", "show", "db"])["authority"].clone();
    wait_until(|| at_db()["reachable"] == true, || format!("{}", at_db()));
    is_cut(talk, Instant::now(), "a member was deleted by an authority that had been away");
}

/// What was revoked stays so, whoever dies and comes back.
#[test]
fn what_was_revoked_stays_so() {
    let shop = Shop::new(&[], &[]);
    let talk = Talk::start(&shop.inlet, 1);
    shop.project.member(&["delete", &shop.app.identifier, "--yes"]);
    is_cut(talk, Instant::now(), "a member was deleted");
    // From here on nobody can ask the authority.
    for process in shop.project.home.processes() {
        process.kill();
    }
    for home in [(&shop.db.home, "db"), (&shop.app.home, "app"), (&shop.db.home, "db")] {
        let node = home.0.show(home.1);
        node.control.kill();
        node.engine.kill();
        home.0.ok(&["node", "start", home.1]);
    }
    wait_until(
        || shop.app.home.json(&["tcp-inlet", "show", "shop", "--at", "app"])["connections"] == 0,
        || "a connection is left".into(),
    );
    stays_closed(&shop.inlet);
}

// ---- other keys

#[test]
fn members_and_authorities_change_their_keys_under_connections_that_live() {
    let shop = Shop::new(&[], &[]);
    let talk = Talk::start(&shop.inlet, 1);
    let step = |what: &str| {
        talk.flows();
        wait_until(|| try_works(&shop.inlet).is_ok(), || format!("{what}: no new connection gets through"));
        eprintln!("{what}: the connection lives");
    };
    shop.app.home.ok(&["identity", "rotate", "app"]);
    step("who has the inlet has another key");
    shop.db.home.ok(&["identity", "rotate", "db"]);
    step("who has the outlet has another key");
    shop.project.home.ok(&["identity", "rotate", "authority"]);
    step("the authority has another key");
    // Who comes now is vouched for with it, and let pass by who knew the first one.
    let new = shop.project.join("new", &["role=app"]);
    new.node(&[]);
    let route = format!("{}/secure/api/service/outlet", shop.of_db.route());
    let of_new = new.home.inlet("new", &route, &[]);
    comes_back(&of_new);
    step("somebody came who is vouched for with it");
    // New channels of everybody, with all the new keys.
    shop.app.home.show("app").engine.kill();
    comes_back(&shop.inlet);
    shop.db.home.show("db").engine.kill();
    comes_back(&shop.inlet);
    drop(talk);
    let talk = Talk::start(&shop.inlet, 2);
    shop.project.member(&["delete", &shop.app.identifier, "--yes"]);
    is_cut(talk, Instant::now(), "revoked with the new key");
    comes_back(&of_new);
}
