use super::*;
use crate::home::Home;
use crate::messenger::{self, frame};
use ockam_crypto::{Established, ExpectMessage3, accept};
use ockam_engine_abi::DropReason;
use ockam_wire::undeliverable::Notice;
use ockam_wire::{Framer, PREAMBLE, bare};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

/// Somebody: a home with one identity.
fn somebody(name: &str) -> (tempfile::TempDir, Party) {
    let directory = tempfile::tempdir().unwrap();
    let mut identities = Identities::open(&Home::at(directory.path().join("home"))).unwrap();
    let row = identities.named_or_created(Some(name)).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let keys = identities.channel_keys(&row.identifier, now).unwrap();
    (directory, Party { identities, keys, authorized: vec![], credentials: vec![] })
}

/// What the peer does with handshakes.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Accept,
    /// Message 3 is answered with a sealed Close.
    Refuse,
    /// Message 3 is not answered, and what comes later neither.
    Ignore,
    /// Message 1 meets no such address.
    Absent,
}

/// The end of a channel at the peer.
struct End {
    sealer: Sealer,
    opener: Opener,
    remote: Vec<Address>,
    /// The channel that it is in.
    within: Option<usize>,
}

/// A node that accepts channels at `api`, also inside channels, and echoes everything else.
struct Peer {
    stream: TcpStream,
    party: Party,
    manner: Manner,
    waiting: HashMap<Vec<u8>, (ExpectMessage3, Vec<Address>, Option<usize>)>,
    ends: Vec<(Vec<u8>, End)>,
    seen: Seen,
}

/// What the peer saw.
#[derive(Default)]
struct Seen {
    frames: Vec<u8>,
    channels: usize,
    closes: usize,
    messages_3: usize,
}

impl Peer {
    fn start(party: Party, manner: Manner) -> (String, JoinHandle<Seen>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let node = format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port());
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&[PREAMBLE]).unwrap();
            stream.read_exact(&mut [0]).unwrap();
            let mut peer =
                Peer { stream, party, manner, waiting: HashMap::new(), ends: Vec::new(), seen: Seen::default() };
            let mut framer = Framer::new();
            let mut chunk = vec![0; 65_536];
            loop {
                // The other side may close with or without having read everything.
                let Ok(count @ 1..) = peer.stream.read(&mut chunk) else { return peer.seen };
                peer.seen.frames.extend_from_slice(&chunk[..count]);
                framer.push(&chunk[..count]);
                while let Some(body) = framer.next().unwrap() {
                    let body = body.to_vec();
                    peer.deliver(Incoming::new(&Message::parse(&body).unwrap()), None);
                }
            }
        });
        (node, serving)
    }

    fn deliver(&mut self, mut message: Incoming, within: Option<usize>) {
        let to = message.to.take().expect("nobody sends heartbeats").name;
        if to == b"api" {
            return self.accept(&message, within);
        }
        if let Some((waiting, remote, within)) = self.waiting.remove(&to) {
            return self.finish(waiting, &message.payload, Finishing { to, remote, within });
        }
        if let Some(index) = self.ends.iter().position(|(here, _)| *here == to) {
            if self.manner == Manner::Ignore {
                return;
            }
            let opened = self.ends[index].1.opener.open_in_place(&mut message.payload).unwrap();
            match Plaintext::parse(opened.text).unwrap() {
                Plaintext::Payload(inner) => self.deliver(Incoming::new(&inner), Some(index)),
                Plaintext::Close => self.seen.closes += 1,
                Plaintext::RefreshCredentials => panic!("nobody refreshes"),
            }
            return;
        }
        assert_eq!(to, b"echo");
        self.say(within, &message.return_route, &[Address::local("echo")], &message.payload, None);
    }

    fn accept(&mut self, message: &Incoming, within: Option<usize>) {
        let remote = message.return_route.clone();
        if self.manner == Manner::Absent {
            let token = Offer::parse(message.tracing.as_deref().unwrap()).unwrap().token;
            let notice = Notice { token, reason: DropReason::NoSuchAddress as u8, left: 1 }.text();
            return self.say(within, &remote, &[], b"", Some(&notice));
        }
        let keys = &self.party.keys;
        let payload = encode_payload(&keys.history, &keys.attestation, &[]);
        let here = Address::local(random::hex_id());
        let ephemeral = Secret::new(random::bytes());
        let (message_2, waiting) =
            accept(&message.payload).unwrap().write(&keys.static_key, ephemeral, &payload).unwrap();
        self.waiting.insert(here.name.clone(), (waiting, remote.clone(), within));
        // Garbage in front of the genuine message changes nothing.
        self.say(within, &remote, std::slice::from_ref(&here), b"garbage", None);
        self.say(within, &remote, &[here], &message_2, None);
    }

    fn finish(&mut self, waiting: ExpectMessage3, message_3: &[u8], end: Finishing) {
        self.seen.messages_3 += 1;
        let (claimed, Established { sealing_key, opening_key, .. }) = waiting.read(message_3).unwrap();
        meet(&claimed, "the initiator", &mut self.party, &[]).unwrap();
        let opened = End {
            sealer: Sealer::new(sealing_key),
            opener: Opener::new(opening_key),
            remote: end.remote,
            within: end.within,
        };
        self.ends.push((end.to, opened));
        self.seen.channels += 1;
        if self.manner == Manner::Refuse {
            self.seal(self.ends.len() - 1, &CLOSE);
        }
    }

    /// Sends a message out of a channel, or over the link.
    fn say(&mut self, within: Option<usize>, to: &[Address], from: &[Address], payload: &[u8], tracing: Option<&str>) {
        let from: Vec<AddressRef<'_>> = from.iter().map(Address::as_ref).collect();
        let Some(index) = within else {
            return self.stream.write_all(&frame(to, &from, payload, tracing).unwrap()).unwrap();
        };
        let onward: Vec<AddressRef<'_>> = to.iter().map(Address::as_ref).collect();
        let text = OutgoingPlaintext::new(outgoing(&onward, &from, payload, tracing)).to_text(payload);
        self.seal(index, &text);
    }

    fn seal(&mut self, index: usize, text: &[u8]) {
        let end = &mut self.ends[index].1;
        let record = end.sealer.seal(text).unwrap();
        let (remote, within) = (end.remote.clone(), end.within);
        self.say(within, &remote, &[], &record, None);
    }
}

struct Finishing {
    to: Vec<u8>,
    remote: Vec<Address>,
    within: Option<usize>,
}

fn route(text: &str) -> Route {
    Route::new(&text.parse().unwrap(), "--to").unwrap()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn a_message_goes_through_channels_inside_channels() {
    let mut text = Vec::new();
    bare::write_string("a secret that nobody on the way reads", &mut text);
    for (channels, parts) in
        [(1, "/secure/api"), (2, "/secure/api/secure/api"), (3, "/secure/api/secure/api/secure/api")]
    {
        let (_theirs, them) = somebody("them");
        let who = them.keys.history.identifier();
        let (_ours, mut us) = somebody("us");
        us.authorized = vec![vec![who]; channels];
        let (node, peer) = Peer::start(them, Manner::Accept);
        let got = messenger::send(&route(&format!("{node}{parts}/service/echo")), &text, Some(&mut us), LONG);
        assert_eq!(got.as_deref(), Ok(text.as_slice()));
        let seen = peer.join().unwrap();
        // Each was told of its end.
        assert_eq!((seen.channels, seen.closes), (channels, channels));
        assert!(!contains(&seen.frames, &text[1..]), "it can be read on the way");
        // Who was met is remembered.
        assert_eq!(us.identities.known(&who).unwrap().map(|history| history.identifier()), Some(who));
    }
    // The search above would find it.
    let (_theirs, them) = somebody("them");
    let (node, peer) = Peer::start(them, Manner::Accept);
    assert_eq!(messenger::send(&route(&format!("{node}/service/echo")), &text, None, LONG), Ok(text.clone()));
    assert!(contains(&peer.join().unwrap().frames, &text[1..]));
}

#[test]
fn who_is_not_authorized_is_named_and_learns_nothing() {
    let (_theirs, them) = somebody("them");
    let who = them.keys.history.identifier();
    let (_ours, mut us) = somebody("us");
    us.authorized = vec![vec![Identifier([7; 32])]];
    let (node, peer) = Peer::start(them, Manner::Accept);
    let got = messenger::send(&route(&format!("{node}/secure/api/service/echo")), b"x", Some(&mut us), LONG);
    let listener = format!("{node}/secure/api");
    assert_eq!(got, Err(Error::PeerNotAuthorized { listener, identifier: who.to_string() }));
    let seen = peer.join().unwrap();
    assert_eq!(seen.messages_3, 0, "it was told who we are");
    assert_eq!(us.identities.known(&who), Ok(None));
}

#[test]
fn a_refusal_names_both_ends() {
    let (_theirs, them) = somebody("them");
    let who = them.keys.history.identifier();
    let (_ours, mut us) = somebody("us");
    let own = us.keys.history.identifier();
    let (node, peer) = Peer::start(them, Manner::Refuse);
    let got = messenger::send(&route(&format!("{node}/secure/api/service/echo")), b"x", Some(&mut us), LONG);
    let listener = format!("{node}/secure/api");
    assert_eq!(got, Err(Error::ChannelRefused { listener, identifier: who.to_string(), own: own.to_string() }));
    assert_eq!(got.unwrap_err().exit(), 77);
    peer.join().unwrap();
}

#[test]
fn silence_ends_at_the_deadline_and_what_is_missing_is_named() {
    let (_theirs, them) = somebody("them");
    let (_ours, mut us) = somebody("us");
    let (node, peer) = Peer::start(them, Manner::Ignore);
    // Long enough for the handshake.
    let short = Duration::from_secs(3);
    let got = messenger::send(&route(&format!("{node}/secure/api/service/echo")), b"x", Some(&mut us), short);
    assert!(matches!(got, Err(Error::NoReply { timeout_ms: 3000, .. })), "{got:?}");
    peer.join().unwrap();

    let (_theirs, them) = somebody("them");
    let (node, peer) = Peer::start(them, Manner::Absent);
    let got = messenger::send(&route(&format!("{node}/secure/api/service/echo")), b"x", Some(&mut us), LONG);
    let Err(Error::Undelivered { step, reason, .. }) = got else { panic!("{got:?}") };
    assert_eq!((step.as_str(), reason), ("/secure/api", DropReason::NoSuchAddress));
    peer.join().unwrap();
}

#[test]
fn a_message_as_large_as_it_can_be_comes_back() {
    let (_theirs, them) = somebody("them");
    let (_ours, mut us) = somebody("us");
    let (node, peer) = Peer::start(them, Manner::Accept);
    let to = route(&format!("{node}/secure/api/service/echo"));
    let payload: Vec<u8> = (0..4_000_000u32).map(|index| index as u8).collect();
    assert_eq!(messenger::send(&to, &payload, Some(&mut us), LONG).as_deref(), Ok(payload.as_slice()));
    peer.join().unwrap();
    let (_theirs, them) = somebody("them");
    let (node, peer) = Peer::start(them, Manner::Accept);
    let to = route(&format!("{node}/secure/api/service/echo"));
    // It fits a frame, but not one that also has to hold a record around it.
    let payload = vec![0; FRAME_MAX - 140];
    assert!(matches!(messenger::send(&to, &payload, Some(&mut us), LONG), Err(Error::BadData { .. })));
    peer.join().unwrap();
}
