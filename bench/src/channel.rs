//! The load's end of a secure channel: an initiator that speaks the wire by itself, and flows of sealed messages whose
//! every byte is verified. Pure but for the random bytes of keys; sockets belong to the caller.

use crate::flow::{Flow, Frames, PAYLOAD_MIN, wrong};
use ockam_crypto::{
    Attestation, Attributes, CLOSE, ChangeHistory, Claim, Credential, ExpectMessage2, Identifier, Issuer, NO_PADDING,
    NONCE_LEN, Opener, OutgoingPlaintext, PROJECT_MEMBER_SCHEMA, Peer, Plaintext, PurposePublicKey, RECORD_OVERHEAD,
    Sealer, Secret, SigningKey, TAG_LEN, Validity, X25519Key, encode_payload, initiate,
};
use ockam_wire::{Address, AddressRef, FixedHead, Message, Outgoing, RouteParts};
use std::io;
use std::net::TcpStream;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where secure channels are answered.
pub const LISTENER: &str = "api";
/// For how long identities of the load are valid, before and after now, in seconds.
const VALID: u64 = 86_400;

/// A local address of 32 bytes.
pub type Name = [u8; 32];

/// Where answers to what is asked through a channel go, at the load's end.
const BACK: &str = "0123456789abcdef0123456789abcdef";

/// An identity of the load with all that a handshake asks of it, made beforehand.
pub struct Identity {
    history: ChangeHistory,
    attestation: Attestation,
    static_key: X25519Key,
    payload: Vec<u8>,
}

impl Identity {
    /// A new one.
    ///
    /// # Errors
    /// What the system's random numbers say.
    pub fn new() -> io::Result<Identity> {
        let (key, history, validity) = new_history()?;
        let static_key = X25519Key::new(secret()?);
        let purpose = PurposePublicKey::SecureChannel(*static_key.public());
        let attestation =
            Attestation::create(&history, &key, purpose, validity.from, validity.until).map_err(io::Error::other)?;
        let payload = encode_payload(&history, &attestation, &[]);
        Ok(Identity { history, attestation, static_key, payload })
    }

    /// Who it is.
    pub fn identifier(&self) -> Identifier {
        self.history.identifier()
    }

    /// Shows this credential in its handshakes from now on.
    pub fn show(&mut self, credential: &Credential) {
        self.payload = encode_payload(&self.history, &self.attestation, &[credential.encoded()]);
    }
}

fn new_history() -> io::Result<(SigningKey, ChangeHistory, Validity)> {
    let now = now();
    let key = SigningKey::new(secret()?);
    let validity = Validity { from: now - VALID, until: now + VALID };
    let history = ChangeHistory::create(&key, validity).map_err(io::Error::other)?;
    Ok((key, history, validity))
}

/// An authority of the load: a node that believes it believes what it attests of the load's identities.
pub struct Authority {
    history: ChangeHistory,
    issuer: Issuer,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// What the system's random numbers say.
    pub fn new() -> io::Result<Authority> {
        let (identity_key, history, validity) = new_history()?;
        let key = SigningKey::new(secret()?);
        let purpose = PurposePublicKey::CredentialSigning(key.public());
        let attestation = Attestation::create(&history, &identity_key, purpose, validity.from, validity.until);
        let issuer = Issuer::new(&history, attestation.map_err(io::Error::other)?, key).map_err(io::Error::other)?;
        Ok(Authority { history, issuer })
    }

    /// Its identity, as nodes are told it.
    pub fn history(&self) -> &ChangeHistory {
        &self.history
    }

    /// Attests these attributes, for a day.
    ///
    /// # Errors
    /// `Other`: names or values that no credential has.
    pub fn attest(&self, subject: Identifier, attributes: &[(&str, &str)]) -> io::Result<Credential> {
        let mut all = Attributes::new();
        for (name, value) in attributes {
            all.insert(*name, *value).map_err(io::Error::other)?;
        }
        let now = now();
        Credential::issue(&self.issuer, subject, None, PROJECT_MEMBER_SCHEMA, &all, now, now + VALID / 2)
            .map_err(io::Error::other)
    }
}

/// Seconds of Unix time.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn secret() -> io::Result<Secret> {
    let mut bytes = [0; 32];
    random(&mut bytes)?;
    Ok(Secret::take(&mut bytes))
}

/// Fills with random bytes.
fn random(bytes: &mut [u8]) -> io::Result<()> {
    let count = rustix::rand::getrandom(&mut *bytes, rustix::rand::GetRandomFlags::empty())?;
    if count == bytes.len() { Ok(()) } else { Err(io::Error::other("too few random bytes")) }
}

/// A new local address.
///
/// # Errors
/// What the system's random numbers say.
pub fn name() -> io::Result<Name> {
    let mut bytes = [0; 16];
    random(&mut bytes)?;
    let digit = |value: u8| char::from_digit(value.into(), 16).map_or(b'0', |digit| digit as u8);
    Ok(std::array::from_fn(|place| digit(bytes[place / 2] >> (4 * (place % 2)) & 15)))
}

/// A handshake behind message 1.
pub struct Handshake {
    decryptor: Name,
    state: ExpectMessage2,
}

impl Handshake {
    /// Begins one: gives the frame of message 1.
    ///
    /// # Errors
    /// What the system's random numbers say.
    pub fn begin() -> io::Result<(Vec<u8>, Handshake)> {
        let decryptor = name()?;
        let (message_1, state) = initiate(secret()?);
        let frame = frame(RouteParts::new(&[AddressRef::local(LISTENER.as_bytes())]), &decryptor, &message_1);
        Ok((frame, Handshake { decryptor, state }))
    }

    /// The address that answers come to.
    pub fn decryptor(&self) -> Name {
        self.decryptor
    }

    /// Reads the frame of message 2 and authenticates who sent it, as initiators do; `before` is who answered the last time.
    /// Gives the frame of message 3, the channel, and who is at its other end.
    ///
    /// # Errors
    /// `InvalidData`: not a responder's answer.
    pub fn finish(
        self,
        identity: &Identity,
        before: Option<&Peer>,
        frame_2: &[u8],
    ) -> io::Result<(Vec<u8>, Channel, Peer)> {
        let message_2 = Message::parse(&frame_2[4..]).map_err(invalid)?;
        let (claimed, state) = self.state.read(message_2.payload).map_err(|rejected| invalid(rejected.error))?;
        let claim = Claim::parse(&claimed.payload).map_err(invalid)?;
        let peer = match before.filter(|before| before.identifier() == claim.identifier()) {
            Some(before) => claim.authenticate_again(&claimed.static_key, before, now()),
            None => claim.authenticate(&claimed.static_key, None, now()),
        };
        let peer = peer.map_err(invalid)?;
        let (message_3, keys) = state.write(&identity.static_key, &identity.payload).map_err(invalid)?;
        let way = RouteParts { front: &[], rest: message_2.return_route };
        let channel = Channel {
            sending: Sending { head: FixedHead::new(way, RouteParts::EMPTY), sealer: Sealer::new(keys.sealing_key) },
            receiving: Receiving { decryptor: self.decryptor, opener: Opener::new(keys.opening_key) },
            asked: 0,
            answered: 0,
        };
        Ok((frame(way, &self.decryptor, &message_3), channel, peer))
    }
}

fn invalid(why: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}

/// The frame of a handshake message.
pub fn frame(onward: RouteParts<'_>, back: &Name, payload: &[u8]) -> Vec<u8> {
    let return_route = [AddressRef::local(back)];
    let return_route = RouteParts::new(&return_route);
    Outgoing { onward, return_route, payload_len: payload.len(), tracing: None }.to_frame(payload)
}

/// Whom a frame is for: the first onward address, if it is one of ours.
pub fn addressee(frame: &[u8]) -> Option<Name> {
    let message = Message::parse(frame.get(4..)?).ok()?;
    message.onward.first()?.name.try_into().ok()
}

/// An end of a channel.
pub struct Channel {
    /// What it sends.
    pub sending: Sending,
    /// What it receives.
    pub receiving: Receiving,
    /// How many questions were asked, and answered.
    asked: u64,
    answered: u64,
}

impl Channel {
    /// The end of a channel whose keys were agreed on elsewhere: `peer` is the other decryptor on the same link.
    pub fn with_keys(peer: &Name, decryptor: Name, sealing: Secret, opening: Secret) -> Channel {
        let head = FixedHead::new(RouteParts::new(&[AddressRef::local(peer)]), RouteParts::EMPTY);
        Channel {
            sending: Sending { head, sealer: Sealer::new(sealing) },
            receiving: Receiving { decryptor, opener: Opener::new(opening) },
            asked: 0,
            answered: 0,
        }
    }

    /// Has the other end answer a message: appends the request.
    pub fn ask(&mut self, out: &mut Vec<u8>) {
        self.sending.write(&QUESTIONS.0, self.asked, out);
        self.asked += 1;
    }

    /// Whether `frame` is the answer to the first question that has none.
    ///
    /// # Errors
    /// `InvalidData`: what it is instead.
    pub fn answered(&mut self, frame: &mut [u8]) -> io::Result<()> {
        self.receiving.verify(&QUESTIONS.1, self.answered, frame)?;
        self.answered += 1;
        Ok(())
    }

    /// Takes it that no question that was asked so far gets an answer any more.
    pub fn give_up(&mut self) {
        self.answered = self.asked;
    }

    /// Sends a payload to a service at the other end: appends the frame.
    pub fn request(&mut self, service: &str, payload: &[u8], out: &mut Vec<u8>) {
        let (onward, back) = ([AddressRef::local(service.as_bytes())], [AddressRef::local(BACK.as_bytes())]);
        let message = Outgoing {
            onward: RouteParts::new(&onward),
            return_route: RouteParts::new(&back),
            payload_len: payload.len(),
            tracing: None,
        };
        let text = OutgoingPlaintext::new(message).to_text(payload);
        self.sending.seal(text.len(), out, |out| out.extend_from_slice(&text));
    }

    /// The payload of an answer to [`Channel::request`].
    ///
    /// # Errors
    /// `InvalidData`: what it is instead.
    pub fn response(&mut self, frame: &mut [u8]) -> io::Result<Vec<u8>> {
        let text = self.receiving.open(frame).map_err(|what| invalid(format!("an answer {what}")))?;
        match Plaintext::parse(text).map_err(invalid)? {
            Plaintext::Payload(message) if message.onward.first() == Some(AddressRef::local(BACK.as_bytes())) => {
                Ok(message.payload.to_vec())
            }
            other => Err(invalid(format!("instead of an answer there came {other:?}"))),
        }
    }
}

/// What [`Channel::ask`] sends, and what comes back.
static QUESTIONS: LazyLock<(Flow, Flow)> = LazyLock::new(|| echo_texts(PAYLOAD_MIN));

/// Requests to `echo` through a channel, and the answers they must get.
pub fn echo_texts(payload_len: usize) -> (Flow, Flow) {
    let (onward, back) = ([Address::local("echo")], [Address::local(BACK)]);
    (Flow::of_texts(&onward, &back, payload_len), Flow::of_texts(&back, &onward, payload_len))
}

/// The sending half of a channel.
pub struct Sending {
    head: FixedHead,
    sealer: Sealer,
}

impl Sending {
    /// Appends the frame of message `sequence` of a flow of texts.
    pub fn write(&mut self, flow: &Flow, sequence: u64, out: &mut Vec<u8>) {
        self.seal(flow.frame_len() + 1, out, |out| {
            flow.write(sequence, out);
            out.push(NO_PADDING);
        });
    }

    /// Appends the frame that ends the channel.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        self.seal(CLOSE.len(), out, |out| out.extend_from_slice(&CLOSE));
    }

    fn seal(&mut self, text_len: usize, out: &mut Vec<u8>, text: impl FnOnce(&mut Vec<u8>)) {
        let record_len = text_len + RECORD_OVERHEAD;
        let start = out.len();
        let record = start + self.head.prefix_len(record_len);
        out.resize(record + NONCE_LEN, 0);
        self.head.write_prefix(record_len, &mut out[start..record]);
        text(out);
        out.extend_from_slice(&[0; TAG_LEN]);
        self.sealer.seal_in_place(&mut out[record..]).expect("no load sends 2^64 messages");
    }
}

/// The receiving half of a channel.
pub struct Receiving {
    decryptor: Name,
    opener: Opener,
}

impl Receiving {
    /// The text of a frame; or else what is wrong with the frame.
    fn open<'a>(&mut self, frame: &'a mut [u8]) -> Result<&'a [u8], String> {
        let message = Message::parse(frame.get(4..).unwrap_or_default()).map_err(|error| error.to_string())?;
        let ours = message.onward.first() == Some(AddressRef::local(&self.decryptor)) && message.onward.len() == 1;
        if !ours || message.tracing.is_some() {
            return Err("is not for this channel".into());
        }
        let record = frame.len() - message.payload.len();
        let opened = self.opener.open_in_place(&mut frame[record..]).map_err(|error| error.to_string())?;
        Ok(opened.text)
    }

    /// Opens a frame and compares what it says with message `sequence` of a flow of texts.
    fn verify(&mut self, flow: &Flow, sequence: u64, frame: &mut [u8]) -> io::Result<()> {
        let text = self.open(frame).map_err(|what| wrong(sequence, &what))?;
        match text.split_last() {
            Some((&NO_PADDING, text)) if flow.is(sequence, text) => Ok(()),
            _ if *text == CLOSE => Err(wrong(sequence, "did not come: the peer closed the channel")),
            _ => Err(wrong(sequence, "has other bytes than were sent")),
        }
    }
}

/// Reads a flow from a channel and verifies it.
pub struct SealedChecker {
    flow: Flow,
    receiving: Receiving,
    next: u64,
    frames: Frames,
}

impl SealedChecker {
    /// Expects exactly this flow of texts, from message 0 on, and nothing else on its link.
    pub fn of(flow: Flow, receiving: Receiving) -> SealedChecker {
        SealedChecker { flow, receiving, next: 0, frames: Frames::default() }
    }

    /// Messages verified so far.
    pub fn verified(&self) -> u64 {
        self.next
    }

    /// As [`crate::flow::Checker::receive`].
    ///
    /// # Errors
    /// As there.
    pub fn receive(&mut self, stream: &TcpStream) -> io::Result<Option<u64>> {
        if !self.frames.receive(stream)? {
            return Ok(None);
        }
        let before = self.next;
        while let Some(frame) = self.frames.take()? {
            self.receiving.verify(&self.flow, self.next, frame)?;
            self.next += 1;
        }
        Ok(Some(self.next - before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ockam_crypto::{OutgoingPlaintext, accept};
    use std::io::Write;
    use std::net::TcpListener;

    /// The responder's end of a channel that came about by a handshake with `identity`.
    fn established(initiator: &Identity, responder: &Identity) -> (Channel, Channel) {
        let (frame_1, handshake) = Handshake::begin().unwrap();
        let message_1 = Message::parse(&frame_1[4..]).unwrap();
        assert_eq!(message_1.onward.first(), Some(AddressRef::local(b"api")));
        let state = accept(message_1.payload).unwrap();
        let (message_2, state) = state.write(&responder.static_key, secret().unwrap(), &responder.payload).unwrap();
        let back = RouteParts { front: &[], rest: message_1.return_route };
        let decryptor = name().unwrap();
        let (theirs, frame_2) = (handshake.decryptor(), frame(back, &decryptor, &message_2));
        assert_eq!(addressee(&frame_2), Some(theirs));
        let (frame_3, ours, _) = handshake.finish(initiator, None, &frame_2).unwrap();
        assert_eq!(addressee(&frame_3), Some(decryptor));
        let (_, keys) = state.read(Message::parse(&frame_3[4..]).unwrap().payload).unwrap();
        (ours, Channel::with_keys(&theirs, decryptor, keys.sealing_key, keys.opening_key))
    }

    #[test]
    fn a_handshake_ends_in_a_channel_that_is_verified_to_the_byte() {
        let (mut ours, mut theirs) = established(&Identity::new().unwrap(), &Identity::new().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut from = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let to = listener.accept().unwrap().0;
        let (requests, answers) = echo_texts(64);
        let mut bytes = Vec::new();
        for sequence in 0..100 {
            ours.sending.write(&requests, sequence, &mut bytes);
            let frame_len = bytes.len() / (sequence as usize + 1);
            theirs.receiving.verify(&requests, sequence, &mut bytes.clone()[frame_len * sequence as usize..]).unwrap();
        }
        let mut bytes = Vec::new();
        (0..100).for_each(|sequence| theirs.sending.write(&answers, sequence, &mut bytes));
        from.write_all(&bytes).unwrap();
        let mut checker = SealedChecker::of(answers, ours.receiving);
        while checker.verified() < 100 {
            checker.receive(&to).unwrap().unwrap();
        }
        // The next one is message 101, and says so.
        let (_, answers) = echo_texts(64);
        let mut bytes = Vec::new();
        theirs.sending.write(&answers, 101, &mut bytes);
        from.write_all(&bytes).unwrap();
        assert_eq!(checker.receive(&to).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn texts_of_flows_are_those_of_the_wire() {
        let (requests, _) = echo_texts(300);
        let mut text = Vec::new();
        requests.write(7, &mut text);
        text.push(NO_PADDING);
        let payload = &text[text.len() - 301..text.len() - 1];
        let (onward, back) = ([AddressRef::local(b"echo")], [AddressRef::local(b"0123456789abcdef0123456789abcdef")]);
        let outgoing = OutgoingPlaintext::new(Outgoing {
            onward: RouteParts::new(&onward),
            return_route: RouteParts::new(&back),
            payload_len: 300,
            tracing: None,
        });
        assert_eq!(outgoing.to_text(payload), text);
    }

    #[test]
    fn questions_are_answered_once_and_in_order() {
        let (mut ours, mut theirs) = established(&Identity::new().unwrap(), &Identity::new().unwrap());
        let (requests, answers) = echo_texts(PAYLOAD_MIN);
        for sequence in 0..3 {
            let (mut request, mut answer) = (Vec::new(), Vec::new());
            ours.ask(&mut request);
            theirs.receiving.verify(&requests, sequence, &mut request).unwrap();
            theirs.sending.write(&answers, sequence, &mut answer);
            ours.answered(&mut answer.clone()).unwrap();
            assert!(ours.answered(&mut answer).is_err());
        }
        let mut another = Vec::new();
        theirs.sending.write(&answers, 7, &mut another);
        assert!(ours.answered(&mut another).is_err());
        let mut closing = Vec::new();
        theirs.sending.close(&mut closing);
        let closed = ours.answered(&mut closing).unwrap_err();
        assert!(closed.to_string().contains("closed the channel"), "{closed}");
    }
}
