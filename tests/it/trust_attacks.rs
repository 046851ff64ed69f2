//! What may be shown instead of an authority's word: in handshakes, over channels that live, by whom it does not concern.
//!
//! The authority is of this test, which signs by hand whatever a hostile one could, and has no node: nothing is revoked
//! here, and nothing is fetched. The peers are of this test, too.

use ockam_crypto::encode_refresh;
use ockam_tests::{
    Authority, Channel, ClosedPort, Home, Identity, Initiator, Inner, Node, PATIENCE, Peer, Statement, Vouching,
    addresses, noise, now, on_both_drivers, wait_until,
};
use serde_json::Value;

/// A node that believes an authority which cannot be reached. `echo` is for who has the role `dba`, `uppercase` for
/// everybody who has a channel.
struct Guarded {
    home: Home,
    node: Node,
    authority: Authority,
    _nobody: ClosedPort,
}

impl Guarded {
    #[track_caller]
    fn new(more: &[&str]) -> Guarded {
        let (home, authority, nobody) = (Home::new(), Authority::new(), ClosedPort::new());
        let (history, route) = (authority.hex(), format!("/ip4/127.0.0.1/tcp/{}/secure/api", nobody.address().port()));
        let trust = ["--authority-identity", &history, "--authority-route", &route, "--credential-scope", "test"];
        let node = home.node("n1", &[&trust, more].concat());
        home.ok(&["policy", "create", "--at", "n1", "--resource", "uppercase", "--allow", "(= 1 1)"]);
        home.ok(&["policy", "create", "--at", "n1", "--resource", "echo", "--allow", "(= subject.role \"dba\")"]);
        Guarded { home, node, authority, _nobody: nobody }
    }

    /// A channel of somebody who shows these credentials.
    #[track_caller]
    fn open(&self, identity: &mut Identity, credentials: &[&[u8]]) -> Visit {
        identity.show(credentials);
        let mut peer = Peer::connect(self.node.address);
        let channel = Initiator::open(&mut peer, &["api"], identity);
        Visit { peer, channel, asked: 0 }
    }

    /// A channel of somebody who has a credential that counts.
    #[track_caller]
    fn admitted(&self) -> (Identity, Visit) {
        let mut identity = Identity::new();
        let credential = self.authority.credential(&identity, &[("role", "dba")]);
        let mut visit = self.open(&mut identity, &[&credential]);
        assert!(visit.passes(), "who has a credential is not let pass");
        (identity, visit)
    }

    /// What the node knows of those who came.
    #[track_caller]
    fn known(&self) -> Vec<Value> {
        self.home.json(&["credential", "list", "--at", "n1"]).as_array().expect("an array").clone()
    }

    /// The attributes that the node knows of somebody.
    #[track_caller]
    fn attributes(&self, identity: &Identity) -> Option<Value> {
        let known = self.known();
        let of = known.iter().find(|it| it["subject"] == identity.identifier());
        of.map(|it| it["attributes"].clone())
    }

    fn denied(&self) -> u64 {
        self.home.counter("n1", "drops", "policy_denied")
    }

    /// What was shown over channels until now has been looked at: the turn of what is shown after it has come.
    #[track_caller]
    fn has_looked(&self) {
        let mut identity = Identity::new();
        let mut visit = self.open(&mut identity, &[]);
        assert!(!visit.passes());
        let credential = self.authority.credential(&identity, &[("role", "dba")]);
        visit.refresh(&encode_refresh(&identity.history, &[&credential]));
        wait_until(|| visit.passes(), || "a credential that is shown later does not count".into());
    }
}

/// Somebody who came through a channel.
struct Visit {
    peer: Peer,
    channel: Channel,
    asked: u64,
}

impl Visit {
    /// Whether `echo` answers. What is behind it in the channel, and for everybody, must.
    #[track_caller]
    fn passes(&mut self) -> bool {
        self.asked += 1;
        let (asked, fence) = (format!("ask {}", self.asked), format!("fence {}", self.asked));
        for (service, payload) in [("echo", &asked), ("uppercase", &fence)] {
            let text = match service {
                // A string has its length in front (`wire.md` B.2).
                "uppercase" => ockam_tests::text(payload),
                _ => payload.clone().into_bytes(),
            };
            let frame = self.channel.frame_with(&[service], &[service], &text);
            self.peer.send(&frame);
        }
        let mut passed = false;
        loop {
            match self.channel.receive(&mut self.peer) {
                Inner::Message(message) if message.onward == addresses(&["uppercase"]) => {
                    assert_eq!(message.payload, ockam_tests::text(&fence.to_uppercase()));
                    return passed;
                }
                Inner::Message(message) => {
                    assert_eq!((message.onward, message.payload), (addresses(&["echo"]), asked.clone().into_bytes()));
                    assert!(!std::mem::replace(&mut passed, true), "one message is answered twice");
                }
                // The node shows what it has itself.
                Inner::Refresh => {}
                Inner::Close => panic!("the node closed the channel"),
            }
        }
    }

    /// Says something over the channel that is no message.
    #[track_caller]
    fn refresh(&mut self, text: &[u8]) {
        let record = self.channel.seal_text(text);
        self.peer.send(&self.channel.frame(&record));
    }
}

/// One change of an honest statement.
type Change = fn(&mut Statement, &mut Vouching);

/// What makes an honest statement one that must not be believed.
const CHANGES: &[(&str, Change)] = &[
    ("about nobody", |said, _| said.subject = None),
    ("about another identity", |said, _| said.subject = Some([7; 32])),
    ("expired", |said, _| (said.created_at, said.expires_at) = (now() - 60, now() - 1)),
    ("expired before it began", |said, _| said.expires_at = said.created_at - 1),
    ("from the future", |said, _| said.created_at = now() + 120),
    ("at the end of time", |said, _| (said.created_at, said.expires_at) = (u64::MAX, u64::MAX)),
    ("older than its key", |said, word| said.created_at = word.created_at - 1),
    ("outlives its key", |said, word| said.expires_at = word.expires_at + 1),
    ("a key that has expired", |said, word| {
        (said.created_at, said.expires_at) = (now() - 60, now() - 10);
        word.expires_at = now() - 5;
    }),
    ("a key that has expired, and not the credential", |_, word| word.expires_at = now() - 5),
    ("a key from the future", |said, word| {
        said.created_at = now() + 120;
        word.created_at = now() + 120;
    }),
    ("a key for channels", |_, word| word.is_for_channels = true),
    ("a key of somebody else", |_, word| word.subject = [9; 32]),
    ("a key of another state of the identity", |_, word| word.latest_change = [9; 32]),
    ("a change of an identity", |said, _| said.kind = 1),
    ("an attestation", |said, _| said.kind = 2),
    ("a list of revocations", |said, _| said.kind = 64),
    ("another version", |said, _| said.version = 2),
    ("two attributes of one name", |said, _| said.attributes.push((b"role".into(), b"dba".into()))),
    ("two attributes of one name, one of them harmless", |said, _| {
        said.attributes.insert(0, (b"role".into(), b"guest".into()));
    }),
    ("an attribute named identifier", |said, _| said.attributes.push((b"identifier".into(), b"I".into()))),
    ("an attribute named has_credential", |said, _| said.attributes.push((b"has_credential".into(), b"true".into()))),
    ("an attribute without a name", |said, _| said.attributes.push((Vec::new(), b"x".into()))),
    ("a name of 129 bytes", |said, _| said.attributes.push((vec![b'a'; 129], b"x".into()))),
    ("a value of 4097 bytes", |said, _| said.attributes.push((b"large".into(), vec![b'a'; 4097]))),
    ("more than 64 attributes", |said, _| {
        said.attributes.extend((0..64).map(|number| (format!("a{number}").into_bytes(), b"x".to_vec())));
    }),
    ("more than 16 KiB", |said, _| {
        said.attributes.extend((0..5).map(|number| (format!("a{number}").into_bytes(), vec![b'x'; 4000])));
    }),
];

/// Everything that is no word of `authority` about `whom`, by name.
fn not_its_word(authority: &Authority, whom: &Identity) -> Vec<(String, Vec<u8>)> {
    let honest = || (authority.says(whom, &[("role", "dba")]), authority.vouches());
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    for (name, change) in CHANGES {
        let (mut said, mut word) = honest();
        change(&mut said, &mut word);
        all.push(((*name).into(), authority.sign_with(&said, &word)));
    }
    let (said, word) = honest();
    let stranger = Authority::new();
    let mut add = |name: &str, credential: Vec<u8>| all.push((name.into(), credential));
    add("another issuer", stranger.sign(&said));
    // The stranger's signature and key, under the authority's name.
    add("another issuer by this name", stranger.sign_with(&said, &word));
    let mixed = |by: &Authority, key_of: &Authority| {
        by.with_attestation(&by.signed(&said), &key_of.attestation(&key_of.vouches()))
    };
    add("another issuer with this one's key", mixed(&stranger, authority));
    add("this issuer with another one's key", mixed(authority, &stranger));
    let good = authority.sign(&said);
    add("bytes behind it", [&good[..], &[0]].concat());
    add("cut off", good[..good.len() - 1].to_vec());
    add("without its key", authority.signed(&said));
    let attestation = authority.attestation(&word);
    add("the key instead of the statement", authority.with_attestation(&attestation, &attestation));
    add(
        "the statement instead of the key",
        authority.with_attestation(&authority.signed(&said), &authority.signed(&said)),
    );
    add("an identity", authority.history.encoded().to_vec());
    // Each bit is signed, or says what is signed; a bit of each byte will do.
    for (index, bit) in (0..good.len()).step_by(5).zip((0..8).cycle()) {
        let mut changed = good.clone();
        changed[index] ^= 1 << bit;
        add(&format!("bit {bit} of byte {index} changed"), changed);
    }
    all
}

/// Whether CBOR that reads these bytes comes to their end, so that they can stand in a list.
fn is_one_item(bytes: &[u8]) -> bool {
    let mut input = minicbor::Decoder::new(bytes);
    input.skip().is_ok() && input.position() == bytes.len()
}

on_both_drivers! {
    // `reliability.md` 13, Credentials; P5, P6: whatever is shown, a channel opens, and nothing follows from it.
    only_the_word_of_the_authority_lets_anybody_pass(driver) {
        let guarded = Guarded::new(&["--driver", driver]);
        // What is honest is believed, whatever stands beside it.
        let mut whom = Identity::new();
        let good = guarded.authority.credential(&whom, &[("role", "dba"), ("team", "b\u{e4}r")]);
        assert!(guarded.open(&mut whom, &[&good]).passes());
        assert_eq!(guarded.attributes(&whom).unwrap()["role"], "dba");
        let mut beside = Identity::new();
        let good = guarded.authority.credential(&beside, &[("role", "dba")]);
        let bad = Authority::new().credential(&beside, &[("role", "dba")]);
        assert!(guarded.open(&mut beside, &[&bad, &good]).passes(), "one that counts for nothing hides one that does");
        let mut guest = Identity::new();
        let other = guarded.authority.credential(&guest, &[("role", "guest")]);
        assert!(!guarded.open(&mut guest, &[&other]).passes());

        let (before, denied) = (guarded.known().len(), guarded.denied());
        let mut tried = 0;
        for index in 0..not_its_word(&guarded.authority, &whom).len() {
            // Another identity each time: nothing that was said of one before helps it.
            let mut identity = Identity::new();
            let (name, credential) = not_its_word(&guarded.authority, &identity).swap_remove(index);
            // What is no CBOR is no list of credentials, either.
            if is_one_item(&credential) {
                assert!(!guarded.open(&mut identity, &[&credential]).passes(), "{name}: it was let pass");
                tried += 1;
            }
        }
        assert!(tried > 60, "only {tried} of them can be shown");
        assert_eq!(guarded.known().len(), before, "something of it was kept: {:?}", guarded.known());
        assert!(guarded.denied() >= denied + tried, "what was denied is not counted");
    }
}

#[test]
fn what_is_no_cbor_opens_no_channel_and_hurts_nobody() {
    let guarded = Guarded::new(&[]);
    let whom = Identity::new();
    let (_, mut bystander) = guarded.admitted();
    let broken: Vec<_> =
        not_its_word(&guarded.authority, &whom).into_iter().filter(|(_, it)| !is_one_item(it)).collect();
    assert!(!broken.is_empty());
    let deep = [vec![0x81; 30_000], vec![0]].concat();
    let endless = vec![0x9f; 1000];
    let huge_claims = [&[0x9b][..], &[0xff; 8], &[0; 100]].concat();
    let more = [("deep", deep), ("endless", endless), ("huge claims", huge_claims)];
    for (name, bytes) in broken.into_iter().chain(more.map(|(name, bytes)| (name.to_owned(), bytes))) {
        let mut identity = Identity::new();
        identity.show(&[&bytes]);
        let mut peer = Peer::connect(guarded.node.address);
        let mut channel = Initiator::open(&mut peer, &["api"], &identity);
        // Either there is no channel, or one without attributes. The link tells: it answers in order.
        peer.send(&channel.frame_with(&["echo"], &["me"], b"is anybody there?"));
        peer.send(&channel.frame_with(&["uppercase"], &["up"], &ockam_tests::text("is anybody there?")));
        assert!(bystander.passes(), "{name}: others are not let pass any more");
        drop(peer);
    }
    assert!(guarded.attributes(&whom).is_none());
    assert_eq!(guarded.known().len(), 1, "{:?}", guarded.known());
    guarded.admitted();
}

#[test]
fn of_many_credentials_a_few_are_looked_at() {
    let guarded = Guarded::new(&[]);
    let stranger = Authority::new();
    let mut identity = Identity::new();
    let good = guarded.authority.credential(&identity, &[("role", "dba")]);
    let junk: Vec<Vec<u8>> = (0..100).map(|_| stranger.credential(&identity, &[("role", "dba")])).collect();
    let with = |before: usize| -> Vec<&[u8]> {
        junk[..before].iter().map(Vec::as_slice).chain(std::iter::once(&good[..])).collect()
    };
    // As many as a handshake has room for: each would cost two verifications.
    assert!(!guarded.open(&mut identity, &with(100)).passes(), "the 101st of a peer's credentials was looked at");
    assert!(guarded.open(&mut identity, &with(1)).passes());
}

#[test]
fn nobody_borrows_what_was_said_of_another() {
    let guarded = Guarded::new(&[]);
    let (honest, mut visit) = guarded.admitted();
    let credential = guarded.authority.credential(&honest, &[("role", "dba")]);
    // By showing it, by showing the identity that it is about, and by showing both.
    let mut mallory = Identity::new();
    let mut of_mallory = guarded.open(&mut mallory, &[&credential]);
    assert!(!of_mallory.passes());
    of_mallory.refresh(&encode_refresh(&honest.history, &[&credential]));
    guarded.has_looked();
    assert!(!of_mallory.passes(), "an identity was taken over a channel of somebody else's");
    assert!(guarded.attributes(&mallory).is_none());
    assert!(visit.passes(), "who it was said of is not let pass any more");
}

on_both_drivers! {
    // E.7: what is shown later counts as what is shown at first; nothing else changes anything.
    what_is_shown_over_a_channel_counts_if_it_is_the_authoritys_word(driver) {
        let guarded = Guarded::new(&["--driver", driver]);
        let mut identity = Identity::new();
        let mut without = guarded.open(&mut identity, &[]);
        let (admitted, mut with) = guarded.admitted();
        let history = identity.history.clone();
        let list = not_its_word(&guarded.authority, &identity);
        // What is more than one item is a good credential with something else behind it.
        let list = list.iter().filter(|(name, credential)| !name.starts_with("bit ") && is_one_item(credential));
        for (name, credential) in list {
            without.refresh(&encode_refresh(&history, &[credential]));
            with.refresh(&encode_refresh(&admitted.history, &[credential]));
            guarded.has_looked();
            assert!(!without.passes(), "{name}: it was let pass");
            assert!(with.passes(), "{name}: it took away what there was");
        }
        let good = guarded.authority.credential(&identity, &[("role", "dba")]);
        let good_text = encode_refresh(&history, &[&good]);
        let rotated = identity.rotated();
        let texts: Vec<(&str, Vec<u8>)> = vec![
            ("nothing shown", encode_refresh(&history, &[])),
            ("another identity's history", encode_refresh(&Identity::new().history, &[&good])),
            ("the authority's history", encode_refresh(&guarded.authority.history, &[&good])),
            ("half a text", good_text[..good_text.len() / 2].to_vec()),
            ("no history", [&[0x82, 0x82, 0x01, 0x81, 0x82, 0xf6, 0x81], &good[..], &[0x40]].concat()),
            ("noise", [&[0x82, 0x82, 0x01, 0x81][..], &noise(1000, 1)].concat()),
            ("nothing at all", vec![0x82, 0x82, 0x01, 0x81]),
            ("as large as can be", encode_refresh(&history, &[&vec![0x58; 60_000]])),
        ];
        for (name, text) in texts {
            without.refresh(&text);
            guarded.has_looked();
            assert!(!without.passes(), "{name}: it was let pass");
        }
        // Somebody else's later state is no later state of this one's.
        without.refresh(&encode_refresh(&rotated.history, &[]));
        guarded.has_looked();
        without.refresh(&good_text);
        guarded.has_looked();
        assert!(!without.passes(), "an outdated history was believed after a newer one was shown");
        without.refresh(&encode_refresh(&rotated.history, &[&good]));
        wait_until(|| without.passes(), || "what is shown with the newest history does not count".into());
        assert!(with.passes());
    }
}

#[test]
fn what_was_shown_once_is_not_shown_again_by_repeating_the_record() {
    let guarded = Guarded::new(&[]);
    let mut identity = Identity::new();
    let mut visit = guarded.open(&mut identity, &[]);
    let dba = guarded.authority.credential(&identity, &[("role", "dba")]);
    let guest = guarded.authority.credential(&identity, &[("role", "guest")]);
    let record = visit.channel.seal_text(&encode_refresh(&identity.history, &[&dba]));
    let frame = visit.channel.frame(&record);
    visit.peer.send(&frame);
    wait_until(|| visit.passes(), || "a credential that is shown later does not count".into());
    visit.refresh(&encode_refresh(&identity.history, &[&guest]));
    wait_until(|| !visit.passes(), || "the credential before the last one counts".into());
    let before = guarded.home.counter("n1", "drops", "replayed");
    visit.peer.send(&frame);
    guarded.has_looked();
    assert!(!visit.passes(), "a repeated record shows a credential again");
    assert!(guarded.home.counter("n1", "drops", "replayed") > before, "it was not counted");
}

#[test]
fn a_flood_of_what_is_shown_holds_nobody_up() {
    let guarded = Guarded::new(&[]);
    let mut identity = Identity::new();
    let mut flooder = guarded.open(&mut identity, &[]);
    let stranger = Authority::new();
    let junk: Vec<Vec<u8>> = (0..8).map(|_| stranger.credential(&identity, &[("role", "dba")])).collect();
    let junk: Vec<&[u8]> = junk.iter().map(Vec::as_slice).collect();
    let text = encode_refresh(&identity.history, &junk);
    let (honest, mut visit) = guarded.admitted();
    let before = guarded.node.control.resident_bytes();
    for round in 0..20_u32 {
        for _ in 0..200 {
            flooder.refresh(&text);
        }
        assert!(visit.passes());
        // And what others show is looked at meanwhile.
        let role = if round % 2 == 0 { "guest" } else { "dba" };
        let credential = guarded.authority.credential(&honest, &[("role", role)]);
        visit.refresh(&encode_refresh(&honest.history, &[&credential]));
        wait_until(|| visit.passes() == (role == "dba"), || format!("round {round}: {role} is not heard"));
        if role == "guest" {
            let credential = guarded.authority.credential(&honest, &[("role", "dba")]);
            visit.refresh(&encode_refresh(&honest.history, &[&credential]));
            wait_until(|| visit.passes(), || format!("round {round}: dba is not heard"));
        }
    }
    assert!(!flooder.passes());
    let grown = guarded.node.control.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "control has grown by {grown} bytes");
}

#[test]
fn nothing_is_taken_from_who_comes_without_a_channel() {
    let guarded = Guarded::new(&[]);
    let mut peer = Peer::connect(guarded.node.address);
    let before = guarded.denied();
    peer.send(&ockam_tests::frame(&["echo"], &["me"], b"without a channel"));
    peer.send(&ockam_tests::frame(&["uppercase"], &["me"], &ockam_tests::text("without a channel")));
    wait_until(|| guarded.denied() >= before + 2, || "links are let pass".into());
    peer.stream.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
    let mut byte = [0];
    let read = std::io::Read::read(&mut peer.stream, &mut byte);
    assert!(read.is_err(), "somebody answers a link: {read:?}");
    peer.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // With one, at the same time, on the same connection.
    let mut identity = Identity::new();
    identity.show(&[&guarded.authority.credential(&identity, &[("role", "dba")])]);
    let channel = Initiator::open(&mut peer, &["api"], &identity);
    assert!(Visit { peer, channel, asked: 0 }.passes());
}
