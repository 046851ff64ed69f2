//! Nodes that believe an authority, and a member that speaks the wire itself: which credentials open `echo` and outlets,
//! for how long, and what is heard in a channel that is open (`wire.md` D.4, E.7, H.2).
//!
//! That nothing is answered is shown by somebody else who is answered later, over the same connection.

use ockam::route;
use ockam_crypto::{
    Attributes, Credential, Issuer, PROJECT_MEMBER_SCHEMA, PurposePublicKey, Secret, SigningKey, encode_payload,
    encode_refresh,
};
use ockam_interop::{Kind, PATIENCE, PortalNode, RawPeer, RealNode, Target, Wallet, local};
use ockam_tests::{Channel, Identity, Initiator, Inner, Peer as Wire, addresses, now};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::time::Instant;

of_each_kind!(
    whose_credentials_count,
    services_without_a_guard,
    several_credentials,
    a_policy_of_an_outlet,
    a_refresh_admits,
    a_refresh_that_is_worth_nothing,
    a_refresh_with_other_attributes,
    an_expired_credential_admits_no_more,
    an_expired_credential_ends_portals,
    a_renewed_issuing_key,
    a_rotated_member,
    a_real_member,
);

const HOUR: u64 = 3600;

/// Somebody who attests what others are.
struct Authority {
    identity: Identity,
    issuer: Issuer,
}

impl Authority {
    fn new() -> Authority {
        let identity = Identity::new();
        let issuer = Authority::issuer(&identity, 1);
        Authority { identity, issuer }
    }

    fn issuer(identity: &Identity, key: u8) -> Issuer {
        let key = SigningKey::new(Secret::new([key; 32]));
        let public = PurposePublicKey::CredentialSigning(key.public());
        let attestation = identity.attestation(public, now() - HOUR, now() + HOUR);
        Issuer::new(&identity.history, attestation, key).expect("it vouches for this key")
    }

    /// A node that believes it.
    #[track_caller]
    fn guard(&self, kind: Kind) -> PortalNode {
        PortalNode::believing(kind, self.identity.history.encoded())
    }

    /// Says this of somebody, from one second to another.
    #[track_caller]
    fn attest(&self, subject: &Identity, attributes: &[(&str, &str)], from: u64, until: u64) -> Vec<u8> {
        let mut all = Attributes::new();
        for (name, value) in attributes {
            all.insert(*name, *value).expect("an attribute");
        }
        let subject = subject.history.identifier();
        let issued = Credential::issue(&self.issuer, subject, None, PROJECT_MEMBER_SCHEMA, &all, from, until);
        issued.expect("a credential").encoded().to_vec()
    }

    /// Says for an hour that somebody is a member, with these attributes.
    #[track_caller]
    fn member(&self, subject: &Identity, attributes: &[(&str, &str)]) -> Vec<u8> {
        self.attest(subject, attributes, now() - 10, now() + HOUR / 2)
    }
}

/// Has somebody show these credentials in its handshakes.
fn show(identity: &mut Identity, credentials: &[&[u8]]) {
    let key = PurposePublicKey::SecureChannel(*identity.static_key.public());
    let attestation = identity.attestation(key, now() - 30, now() + HOUR);
    identity.payload = encode_payload(&identity.history, &attestation, credentials);
}

/// Channels to a guard, over one connection.
struct Link<'g> {
    guard: &'g PortalNode,
    wire: Wire,
    /// A member, whose questions are always answered.
    marker: Channel,
    asked: u64,
}

impl<'g> Link<'g> {
    #[track_caller]
    fn to(guard: &'g PortalNode, authority: &Authority) -> Link<'g> {
        let mut wire = Wire::connect(guard.address());
        let mut member = Identity::new();
        let credential = authority.member(&member, &[("marker", "true"), ("component", "none")]);
        show(&mut member, &[&credential]);
        let mut marker = Initiator::open(&mut wire, &["api"], &member);
        marker.echoes(&mut wire, b"a member is answered");
        Link { guard, wire, marker, asked: 0 }
    }

    /// Opens a channel as somebody who shows these credentials, and waits until the guard has looked at them.
    #[track_caller]
    fn open(&mut self, identity: &mut Identity, credentials: &[&[u8]]) -> Channel {
        show(identity, credentials);
        let before = match self.guard {
            PortalNode::Ours(node) => node.channels().len(),
            PortalNode::Real(_) => 0,
        };
        let mut channel = Initiator::open(&mut self.wire, &["api"], identity);
        match self.guard {
            PortalNode::Ours(node) => drop(node.channels_when(|channels| channels.len() == before + 1)),
            PortalNode::Real(_) => self.settle(&mut channel),
        }
        channel
    }

    /// Sends a message to a service through a channel. Gives the name to which the answer comes.
    fn send(&mut self, channel: &mut Channel, service: &str, payload: &[u8]) -> String {
        self.asked += 1;
        let name = format!("question {}", self.asked);
        let frame = channel.frame_with(&[service], &[&name], payload);
        self.wire.send(&frame);
        name
    }

    fn ask_marker(&mut self) {
        let frame = self.marker.frame_with(&["echo"], &["marker"], b"the marker");
        self.wire.send(&frame);
    }

    /// What comes next, out of a channel or of the marker's: for which name, from which, and the payload.
    #[track_caller]
    fn receive(&mut self, channel: &mut Channel) -> (String, String, Vec<u8>) {
        let received = self.wire.receive();
        let from = if received.onward == addresses(&[&channel.decryptor]) { channel } else { &mut self.marker };
        match from.open(&received.payload) {
            Ok(Inner::Message(message)) => {
                let [to] = &message.onward[..] else { panic!("an answer for {:?}", message.onward) };
                let [from] = &message.back[..] else { panic!("an answer from {:?}", message.back) };
                let text = |name: &[u8]| String::from_utf8(name.to_vec()).expect("names are UTF-8");
                (text(&to.name), text(&from.name), message.payload)
            }
            other => panic!("no message came out of a channel: {other:?}"),
        }
    }

    /// The payload of what comes out of a channel next, for whatever name.
    #[track_caller]
    fn next(&mut self, channel: &mut Channel) -> Vec<u8> {
        self.receive(channel).2
    }

    /// The payload of the answer that a service must give to a message through a channel.
    #[track_caller]
    fn ask(&mut self, channel: &mut Channel, service: &str, payload: &[u8]) -> Vec<u8> {
        self.ask_in_full(channel, service, payload).1
    }

    /// The same, and before it the name that answered.
    #[track_caller]
    fn ask_in_full(&mut self, channel: &mut Channel, service: &str, payload: &[u8]) -> (String, Vec<u8>) {
        let question = self.send(channel, service, payload);
        loop {
            let (name, from, payload) = self.receive(channel);
            if name == question {
                return (from, payload);
            }
        }
    }

    /// Waits until a real node has worked through what came out of a channel: `uppercase` has no guard there, and ours
    /// works through a connection in order.
    #[track_caller]
    fn settle(&mut self, channel: &mut Channel) {
        if self.guard.kind() == Kind::Real {
            assert_eq!(self.ask(channel, "uppercase", b"\x01u"), b"\x01U");
        }
    }

    /// The answer of a service to a message through a channel, if there is one: what is asked later has been answered.
    #[track_caller]
    fn answer(&mut self, channel: &mut Channel, service: &str, payload: &[u8]) -> Option<Vec<u8>> {
        // A worker of a real node answers in order, and so does a channel. So: the message reached the service before
        // the marker's question does, and its answer reached the channel before the last one does.
        let question = self.send(channel, service, payload);
        let mut steps = match self.guard.kind() {
            Kind::Real => vec!["uppercase", "marker", "uppercase"],
            Kind::Ours => vec!["marker"],
        };
        let mut answer = None;
        while let Some(step) = steps.pop() {
            let awaited = match step {
                "marker" => {
                    self.ask_marker();
                    step.to_owned()
                }
                service => self.send(channel, service, b"\x01u"),
            };
            loop {
                let (name, _, payload) = self.receive(channel);
                if name == awaited {
                    break;
                }
                if name == question {
                    assert!(answer.replace(payload).is_none(), "one answer to one message");
                }
            }
        }
        answer
    }

    /// Whether `echo` answers.
    #[track_caller]
    fn is_admitted(&mut self, channel: &mut Channel) -> bool {
        let answer = self.answer(channel, "echo", b"am I in?");
        assert!(answer.as_ref().is_none_or(|answer| answer == b"am I in?"), "{answer:?}");
        answer.is_some()
    }

    /// Waits until `echo` answers, or no longer does.
    #[track_caller]
    fn until_admitted(&mut self, channel: &mut Channel, admitted: bool) {
        let since = Instant::now();
        while self.is_admitted(channel) != admitted {
            assert!(since.elapsed() < PATIENCE, "it should be {admitted} that the channel is admitted");
        }
    }

    /// Shows other credentials in a channel (E.7).
    fn refresh(&mut self, channel: &mut Channel, identity: &Identity, credentials: &[&[u8]]) {
        let record = channel.seal_text(&encode_refresh(&identity.history, credentials));
        self.wire.send(&channel.frame(&record));
    }
}

/// What is known of somebody is known in all the channels, so everybody comes once.
fn whose_credentials_count(kind: Kind) {
    let (authority, stranger, another) = (Authority::new(), Authority::new(), Identity::new());
    let guard = authority.guard(kind);
    let mut link = Link::to(&guard, &authority);
    type Make<'a> = &'a dyn Fn(&Identity) -> Vec<u8>;
    let changed = |subject: &Identity| {
        let mut credential = authority.member(subject, &[]);
        *credential.last_mut().expect("it has bytes") ^= 1;
        credential
    };
    let makes: [(&str, Make, bool); 9] = [
        ("good", &|subject| authority.member(subject, &[]), true),
        ("of another", &|_| authority.member(&another, &[]), false),
        ("by a stranger", &|subject| stranger.member(subject, &[]), false),
        ("expired", &|subject| authority.attest(subject, &[], now() - 60, now() - 2), false),
        ("of the future", &|subject| authority.attest(subject, &[], now() + 200, now() + HOUR / 2), false),
        (
            "of a clock that is a little fast",
            &|subject| authority.attest(subject, &[], now() + 30, now() + HOUR / 2),
            true,
        ),
        ("changed", &changed, false),
        ("with many attributes", &|subject| authority.member(subject, &[("a", ""), ("b", "\n"), ("ü", "ü")]), true),
        ("good again", &|subject| authority.member(subject, &[]), true),
    ];
    for (what, make, is_admitted) in makes {
        let mut somebody = Identity::new();
        let credential = make(&somebody);
        let mut channel = link.open(&mut somebody, &[&credential]);
        assert_eq!(link.is_admitted(&mut channel), is_admitted, "{what}");
    }
    let mut channel = link.open(&mut Identity::new(), &[]);
    assert!(!link.is_admitted(&mut channel), "without a credential");
}

/// `echo` has a guard at either, and links have no identity. A real node's `uppercase` is for everyone; ours guards every
/// service, but not the listener for channels.
fn services_without_a_guard(kind: Kind) {
    let authority = Authority::new();
    let guard = authority.guard(kind);
    let mut link = Link::to(&guard, &authority);
    let mut channel = link.open(&mut Identity::new(), &[]);
    assert_eq!(link.answer(&mut channel, "echo", b"anyone?"), None);
    let expected = (kind == Kind::Real).then_some(b"\x01U".to_vec());
    let question = link.send(&mut channel, "uppercase", b"\x01u");
    let mut answer = None;
    link.ask_marker();
    loop {
        match link.receive(&mut channel) {
            (name, _, payload) if name == question => answer = Some(payload),
            (name, ..) if name == "marker" && (kind == Kind::Ours || answer.is_some()) => break,
            // The marker may be first at a real node.
            _ => link.ask_marker(),
        }
    }
    assert_eq!(answer, expected);
    let mut plain = RawPeer::connect(guard.address());
    plain.request(&[local("echo")], b"anyone?");
    // A handshake is answered over the same connection, and nothing before it.
    plain.request(&[local("api")], &Initiator::new().message_1);
    assert!(plain.reply().len() > 300, "message 2");
}

/// Those that are worth nothing do not stand in the way of others, and the last one counts.
fn several_credentials(kind: Kind) {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (guard, target) = (authority.guard(kind), Target::start());
    guard.outlet_for("db", target.address(), Some("component=db"));
    let mut link = Link::to(&guard, &authority);
    for bad_first in [true, false] {
        let mut somebody = Identity::new();
        let (bad, good) = (stranger.member(&somebody, &[]), authority.member(&somebody, &[]));
        let both: [&[u8]; 2] = if bad_first { [&bad, &good] } else { [&good, &bad] };
        let mut channel = link.open(&mut somebody, &both);
        assert!(link.is_admitted(&mut channel), "the bad one first: {bad_first}");
    }
    for db_last in [true, false] {
        let mut somebody = Identity::new();
        let web = authority.member(&somebody, &[("component", "web")]);
        let db = authority.member(&somebody, &[("component", "db")]);
        let both: [&[u8]; 2] = if db_last { [&web, &db] } else { [&db, &web] };
        let mut channel = link.open(&mut somebody, &both);
        assert_opens(&mut link, &mut channel, "db", db_last);
    }
}

/// Whether an outlet answers a Ping with a Pong (F.2).
#[track_caller]
fn assert_opens(link: &mut Link, channel: &mut Channel, outlet: &str, opens: bool) {
    if opens {
        assert_eq!(link.ask(channel, outlet, &[0]), [1], "a Pong of {outlet}");
    } else {
        assert_eq!(link.answer(channel, outlet, &[0]), None, "nothing of {outlet}");
    }
}

/// Policies of an outlet's own, in both forms, instead of the one of all outlets.
fn a_policy_of_an_outlet(kind: Kind) {
    let authority = Authority::new();
    let (guard, target) = (authority.guard(kind), Target::start());
    let member = Identity::new();
    let named = format!("{} or admin", member.identifier());
    let outlets = [
        ("everyone", None),
        ("db", Some("(= subject.component \"db\")")),
        ("caches", Some("(and (= subject.has_credential true) (member? subject.component [\"db\" \"cache\"]))")),
        ("admins", Some("admin and not guest")),
        ("named", Some(&named[..])),
        ("nobody", Some("(= 1 2)")),
        ("itself", Some("(= resource.id \"itself\")")),
    ];
    for (outlet, policy) in outlets {
        guard.outlet_for(outlet, target.address(), policy);
    }
    let mut link = Link::to(&guard, &authority);
    // Each attribute that a policy names is there: to know nothing of it is an error, and denies.
    for (mut somebody, attributes, opens) in [
        (
            Identity::new(),
            &[("component", "db"), ("admin", "false"), ("guest", "false")][..],
            "everyone db caches itself",
        ),
        (
            Identity::new(),
            &[("component", "cache"), ("admin", "true"), ("guest", "false")],
            "everyone caches admins named itself",
        ),
        (Identity::new(), &[("component", "web"), ("admin", "true"), ("guest", "true")], "everyone named itself"),
        (Identity::new(), &[], "everyone itself"),
        (member, &[], "everyone named itself"),
    ] {
        let credential = authority.member(&somebody, attributes);
        let mut channel = link.open(&mut somebody, &[&credential]);
        for (outlet, _) in outlets {
            assert_opens(&mut link, &mut channel, outlet, opens.split(' ').any(|open| open == outlet));
        }
    }
    // Without a credential only what does not ask for one. Links have no identity at all.
    let mut channel = link.open(&mut Identity::new(), &[]);
    for (outlet, _) in outlets {
        assert_opens(&mut link, &mut channel, outlet, outlet == "itself");
    }
}

fn a_refresh_admits(kind: Kind) {
    let authority = Authority::new();
    let guard = authority.guard(kind);
    let mut link = Link::to(&guard, &authority);
    let mut somebody = Identity::new();
    let mut channel = link.open(&mut somebody, &[]);
    assert!(!link.is_admitted(&mut channel));
    let credential = authority.member(&somebody, &[]);
    link.refresh(&mut channel, &somebody, &[&credential]);
    link.until_admitted(&mut channel, true);
    // None is not less than one.
    link.refresh(&mut channel, &somebody, &[]);
    assert!(link.is_admitted(&mut channel));
}

fn a_refresh_that_is_worth_nothing(kind: Kind) {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let guard = authority.guard(kind);
    let mut link = Link::to(&guard, &authority);
    let (mut somebody, another) = (Identity::new(), Identity::new());
    let mut channel = link.open(&mut somebody, &[]);
    let theirs = authority.member(&another, &[]);
    let by_stranger = stranger.member(&somebody, &[]);
    let expired = authority.attest(&somebody, &[], now() - 60, now() - 2);
    link.refresh(&mut channel, &somebody, &[&theirs]);
    link.refresh(&mut channel, &another, &[&theirs]);
    link.refresh(&mut channel, &somebody, &[&by_stranger]);
    link.refresh(&mut channel, &somebody, &[&expired]);
    // The captured one of K.3, by an authority that nobody here knows.
    let captured = channel.seal_text(&hex::decode(K3).expect("hexadecimal"));
    link.wire.send(&channel.frame(&captured));
    for _ in 0..20 {
        assert!(!link.is_admitted(&mut channel));
    }
    let mut other = another;
    let mut others = link.open(&mut other, &[]);
    assert!(!link.is_admitted(&mut others), "what one showed is not another's");
    let credential = authority.member(&somebody, &[]);
    link.refresh(&mut channel, &somebody, &[&credential]);
    link.until_admitted(&mut channel, true);
}

/// The later one replaces the earlier one, for all that is asked through a channel that is open.
fn a_refresh_with_other_attributes(kind: Kind) {
    let authority = Authority::new();
    let guard = authority.guard(kind);
    guard.allow("echo", "marker or component=db");
    let mut link = Link::to(&guard, &authority);
    let mut somebody = Identity::new();
    let of = |component| [("marker", "false"), ("component", component)];
    let credential = authority.member(&somebody, &of("web"));
    let mut channel = link.open(&mut somebody, &[&credential]);
    assert!(!link.is_admitted(&mut channel));
    for component in ["db", "web", "db"] {
        let credential = authority.member(&somebody, &of(component));
        link.refresh(&mut channel, &somebody, &[&credential]);
        link.until_admitted(&mut channel, component == "db");
    }
}

fn an_expired_credential_admits_no_more(kind: Kind) {
    let authority = Authority::new();
    let guard = authority.guard(kind);
    let mut link = Link::to(&guard, &authority);
    let mut somebody = Identity::new();
    let until = now() + 4;
    let credential = authority.attest(&somebody, &[], now() - 10, until);
    let mut channel = link.open(&mut somebody, &[&credential]);
    assert!(link.is_admitted(&mut channel));
    link.until_admitted(&mut channel, false);
    assert!(now() >= until, "it had time left");
    // Neither does it in another channel; the next one does in both.
    let mut another = link.open(&mut somebody, &[&credential]);
    assert!(!link.is_admitted(&mut another));
    let credential = authority.member(&somebody, &[]);
    link.refresh(&mut channel, &somebody, &[&credential]);
    link.until_admitted(&mut channel, true);
    link.until_admitted(&mut another, true);
}

/// What a credential opened: a real node drops what is sent when it has expired, in both directions, and keeps the target's
/// connection. Ours ends it.
fn an_expired_credential_ends_portals(kind: Kind) {
    let authority = Authority::new();
    let guard = authority.guard(kind);
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind a free port");
    guard.outlet("outlet", listener.local_addr().expect("a bound socket has an address"));
    let mut link = Link::to(&guard, &authority);
    let mut somebody = Identity::new();
    let until = now() + 4;
    let credential = authority.attest(&somebody, &[], now() - 10, until);
    let mut channel = link.open(&mut somebody, &[&credential]);
    let (outlet, pong) = link.ask_in_full(&mut channel, "outlet", &[0]);
    assert_eq!(pong, [1]);
    let mut target = listener.accept().expect("the outlet dials").0;
    target.set_read_timeout(Some(PATIENCE)).expect("set a read timeout");
    link.send(&mut channel, &outlet, b"\x03\x05hello");
    let mut hello = [0; 5];
    target.read_exact(&mut hello).expect("it passes");
    assert_eq!(&hello, b"hello");
    target.write_all(b"hi").expect("write to an outlet");
    assert_eq!(link.next(&mut channel), b"\x03\x02hi");
    link.until_admitted(&mut channel, false);
    assert!(now() >= until, "it had time left");
    match kind {
        Kind::Ours => {
            let ended = target.read(&mut [0]);
            let is_over = match &ended {
                Ok(0) => true,
                Err(e) => e.kind() == ErrorKind::ConnectionReset,
                Ok(_) => false,
            };
            assert!(is_over, "{ended:?}");
        }
        Kind::Real => {
            target.write_all(b"dropped").expect("write to an outlet");
            link.send(&mut channel, &outlet, b"\x03\x07dropped");
            for _ in 0..10 {
                assert!(!link.is_admitted(&mut channel));
            }
            let credential = authority.member(&somebody, &[]);
            link.refresh(&mut channel, &somebody, &[&credential]);
            link.until_admitted(&mut channel, true);
            link.send(&mut channel, &outlet, b"\x03\x05again");
            target.read_exact(&mut hello).expect("it passes again");
            assert_eq!(&hello, b"again", "what was sent in between is lost");
        }
    }
}

/// A real node as the member: what it shows in a handshake, and what it shows later (E.7).
fn a_real_member(kind: Kind) {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let guard = authority.guard(kind);
    guard.allow("echo", "component=db");
    let real = RealNode::start();
    let attest = |by: &Authority, component| {
        let mut attributes = Attributes::new();
        attributes.insert("component", component).expect("an attribute");
        let (from, until, schema) = (now() - 10, now() + HOUR / 2, PROJECT_MEMBER_SCHEMA);
        let subject = real.identifier().to_string().parse().expect("the same text");
        let issued = Credential::issue(&by.issuer, subject, None, schema, &attributes, from, until);
        issued.expect("a credential").encoded().to_vec()
    };
    let wallet = Wallet::with(&attest(&authority, "db"));
    let connection = real.connect(guard.address());
    let channel = real.open_showing(route![connection.as_str(), "api"], &wallet, None);
    let encryptor = channel.encryptor_address().clone();
    let mut mailbox = real.mailbox(&encryptor);
    mailbox.assert_alive_and_silent();
    // A later one, that admits no more: another node is asked until then, so that nothing is on its way.
    real.show(&wallet, &attest(&authority, "web"));
    let since = Instant::now();
    while guard.attested(&real.identifier(), "component").as_deref() != Some("web") {
        assert!(since.elapsed() < PATIENCE, "it heard of another credential");
    }
    // One that is worth nothing changes nothing, and one that admits is heard of again.
    real.show(&wallet, &attest(&stranger, "cache"));
    real.show(&wallet, &attest(&authority, "db"));
    while guard.attested(&real.identifier(), "component").as_deref() != Some("db") {
        assert!(since.elapsed() < PATIENCE, "it heard of the third credential");
    }
    mailbox.assert_alive_and_silent();
}

/// An authority has another key for credentials. What the earlier one signed stays good.
fn a_renewed_issuing_key(kind: Kind) {
    let mut authority = Authority::new();
    let guard = authority.guard(kind);
    let mut link = Link::to(&guard, &authority);
    let mut before = Identity::new();
    let earlier = authority.member(&before, &[]);
    let mut channel = link.open(&mut before, &[&earlier]);
    assert!(link.is_admitted(&mut channel));
    authority.issuer = Authority::issuer(&authority.identity, 2);
    for credential in [&earlier, &authority.member(&before, &[])] {
        link.refresh(&mut channel, &before, &[credential]);
        assert!(link.is_admitted(&mut channel));
    }
    let mut after = Identity::new();
    let credential = authority.member(&after, &[]);
    let mut channel = link.open(&mut after, &[&credential]);
    assert!(link.is_admitted(&mut channel));
}

/// A member has another key. Its credential is about the identity and not the key, and the channel that it has stays open.
fn a_rotated_member(kind: Kind) {
    let authority = Authority::new();
    let guard = authority.guard(kind);
    let mut link = Link::to(&guard, &authority);
    let mut member = Identity::new();
    let credential = authority.member(&member, &[]);
    let mut channel = link.open(&mut member, &[&credential]);
    assert!(link.is_admitted(&mut channel));
    let mut rotated = member.rotated();
    // Heard of in a refresh first, then in a handshake.
    link.refresh(&mut channel, &rotated, &[&credential]);
    assert!(link.is_admitted(&mut channel));
    let mut again = link.open(&mut rotated, &[&credential]);
    assert!(link.is_admitted(&mut again));
    assert!(link.is_admitted(&mut channel));
    // A refresh with less than what is known says nothing.
    link.refresh(&mut channel, &member, &[&credential]);
    assert!(link.is_admitted(&mut channel));
}

/// A captured RefreshCredentials (K.3).
const K3: &str = "828201818281825837830101583285f682008158208bd01513a019c95d96553015b1b0a3014e7bd67c7f3c8e6223e839111041f8d6f41a659c99fd1a78689cfd820081584067118992d037593809f8b217641aed54dc983f2847f95b2068207c3647beb73a60b0e14012c14bfee487c880f0f74d9f8a7d7abd3ef333f2f90f097ef366900c81828258e183010358dc855820904192e6e480915e0d1256d3abf9c3c9c67bc2b4c41ffca77550d8a3f12fbb1e5820904192e6e480915e0d1256d3abf9c3c9c67bc2b4c41ffca77550d8a3f12fbb1e8201a44b6f636b616d2d72656c6179412a4a6f636b616d2d726f6c6548656e726f6c6c65724a70726f6a6563745f6964582437363764343631632d393835312d346330622d626663362d3664333333346235626363325074727573745f636f6e746578745f6964582437363764343631632d393835312d346330622d626663362d3664333333346235626363321a659ca3cf1a659ca3ed8200815840cf27a0a3052c53b1f27bf7776ca95c7dcdd7a0f493cc5b1e30f9d35712bb8fde16f69065aa9f70b3689a8f1b7b05fc13e6e807efa719031d1a415d25b61c360b82587c8301025877855820b1fea1775d75079abdb1e78b96921fa9ec340bc2b5aa70f37e65342d859cf5505820b1fea1775d75079abdb1e78b96921fa9ec340bc2b5aa70f37e65342d859cf5508201818200815820389852b0f4fee7b6b962442a924d1672c56b8813fb846a50da80db7e1bbe41591a659c9a2f1a6f029baf8200815840adf4a66e097de839d3539694a6c6a82a978ff009205df8bf7eb03b9990958b7c4e7037fd9d365cf220a2757ed60f0542f47965d8b9f354fd950841ce6630460640";
