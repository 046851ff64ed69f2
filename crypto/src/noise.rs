//! The handshake of a secure channel: Noise XX over X25519, AES-256-GCM and SHA-256 (`wire.md` E.1-E.3).
//!
//! ```text
//!   initiator                                                     responder
//!   initiate() ──────────── 1: e ──────────────────────────────► accept()
//!   ExpectMessage2 ◄─────── 2: e, ee, s, es, {payload} ───────── ReadyForMessage2::write
//!   ReadyForMessage3::write ─ 3: s, se, {payload} ─────────────► ExpectMessage3
//!   Established                                                   Established
//! ```
//!
//! Two things are not stock Noise: the protocol's name, and that the initiator seals with the second key of the split.
//!
//! Each state is used up by the step that leaves it, so that no ephemeral key serves twice and no key exists before
//! the end. A message that is not accepted gives the state back as it was ([`Rejected`]): whoever can inject bytes
//! cannot end a handshake with them. How often that may happen, and for how long, is the caller's to limit.

use crate::aead::{self, Key, TAG_LEN};
use crate::secret::Secret;
use crate::x25519::{LowOrderKey, X25519Key};
use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use std::fmt;
use zeroize::Zeroizing;

/// No handshake message is longer.
pub const HANDSHAKE_MESSAGE_MAX: usize = 65_535;

/// The longest payload of message 2: the message less two keys and two tags.
pub const PAYLOAD_2_MAX: usize = HANDSHAKE_MESSAGE_MAX - KEY_LEN - SEALED_KEY_LEN - TAG_LEN;

/// The longest payload of message 3.
pub const PAYLOAD_3_MAX: usize = HANDSHAKE_MESSAGE_MAX - SEALED_KEY_LEN - TAG_LEN;

type Name = [u8; 32];

const PROTOCOL_NAME: Name = *b"OCKAM_XX_25519_AES256_GCM_SHA256";
const KEY_LEN: usize = 32;
const SEALED_KEY_LEN: usize = KEY_LEN + TAG_LEN;

/// Begins a handshake: gives message 1 and waits for message 2. `ephemeral` is fresh random bytes.
pub fn initiate(ephemeral: Secret) -> ([u8; 32], ExpectMessage2) {
    initiate_as(&PROTOCOL_NAME, ephemeral, &[])
}

/// The payload is for published vectors only: message 1 cannot protect one.
fn initiate_as(name: &Name, ephemeral: Secret, payload: &[u8]) -> ([u8; 32], ExpectMessage2) {
    let ephemeral = X25519Key::new(ephemeral);
    let mut symmetric = Symmetric::new(name);
    symmetric.mix_hash(ephemeral.public());
    symmetric.mix_hash(payload);
    (*ephemeral.public(), ExpectMessage2(Box::new(Message2Secrets { symmetric, ephemeral })))
}

/// The initiator behind message 1.
#[derive(Debug)]
pub struct ExpectMessage2(Box<Message2Secrets>);

struct Message2Secrets {
    symmetric: Symmetric,
    ephemeral: X25519Key,
}

impl ExpectMessage2 {
    /// Reads message 2 and gives what the responder claims. Whether that is true, and whether it is welcome, must be
    /// decided before message 3 is written.
    ///
    /// # Errors
    /// The state as it was, and why.
    pub fn read(self, message: &[u8]) -> Result<(Claimed, ReadyForMessage3), Rejected<Self>> {
        let mut symmetric = self.0.symmetric.clone();
        match read_message_2(&mut symmetric, &self.0.ephemeral, message) {
            Ok((claimed, key, remote_ephemeral)) => {
                let secrets = Message3Secrets { symmetric, key, remote_ephemeral };
                Ok((claimed, ReadyForMessage3(Box::new(secrets))))
            }
            Err(error) => Err(Rejected { state: self, error }),
        }
    }
}

fn read_message_2(
    symmetric: &mut Symmetric,
    ephemeral: &X25519Key,
    message: &[u8],
) -> Result<(Claimed, Key, [u8; 32]), HandshakeError> {
    check_length(message, KEY_LEN + SEALED_KEY_LEN + TAG_LEN)?;
    let (remote_ephemeral, rest) = message.split_first_chunk::<KEY_LEN>().expect("the length was checked");
    let (sealed_static, sealed_payload) = rest.split_at(SEALED_KEY_LEN);
    symmetric.mix_hash(remote_ephemeral);
    let key = symmetric.mix_key(&*ephemeral.agree(remote_ephemeral)?);
    let remote_static = symmetric.open_key(&key, 0, sealed_static)?;
    let key = symmetric.mix_key(&*ephemeral.agree(&remote_static)?);
    let payload = symmetric.open(&key, 0, sealed_payload)?;
    Ok((Claimed { payload, static_key: remote_static }, key, *remote_ephemeral))
}

/// The initiator behind message 2.
#[derive(Debug)]
pub struct ReadyForMessage3(Box<Message3Secrets>);

struct Message3Secrets {
    symmetric: Symmetric,
    key: Key,
    remote_ephemeral: [u8; 32],
}

impl ReadyForMessage3 {
    /// Writes message 3; the channel is open then, as far as the initiator can know.
    ///
    /// # Errors
    /// [`HandshakeError::TooLong`] when `payload` exceeds [`PAYLOAD_3_MAX`], [`HandshakeError::LowOrderKey`] when the
    /// responder's ephemeral key is one. The handshake is over then.
    pub fn write(self, static_key: &X25519Key, payload: &[u8]) -> Result<(Vec<u8>, Established), HandshakeError> {
        let Message3Secrets { mut symmetric, key, remote_ephemeral } = *self.0;
        if payload.len() > PAYLOAD_3_MAX {
            return Err(HandshakeError::TooLong);
        }
        let mut message = Vec::with_capacity(SEALED_KEY_LEN + payload.len() + TAG_LEN);
        // The key has sealed the responder's payload with nonce 0.
        symmetric.seal(&key, 1, static_key.public(), &mut message);
        let key = symmetric.mix_key(&*static_key.agree(&remote_ephemeral)?);
        symmetric.seal(&key, 0, payload, &mut message);
        let (k1, k2) = symmetric.split();
        Ok((message, Established { sealing_key: k2, opening_key: k1, hash: symmetric.hash }))
    }
}

/// Begins the other end of a handshake with message 1. Costs two hashes: what is expensive is the answer. A payload
/// behind the key is hashed and otherwise ignored, as real responders do.
///
/// # Errors
/// [`HandshakeError::TooShort`] or [`HandshakeError::TooLong`].
pub fn accept(message: &[u8]) -> Result<ReadyForMessage2, HandshakeError> {
    accept_as(&PROTOCOL_NAME, message)
}

fn accept_as(name: &Name, message: &[u8]) -> Result<ReadyForMessage2, HandshakeError> {
    check_length(message, KEY_LEN)?;
    let (remote_ephemeral, payload) = message.split_first_chunk().expect("the length was checked");
    let mut symmetric = Symmetric::new(name);
    symmetric.mix_hash(remote_ephemeral);
    symmetric.mix_hash(payload);
    Ok(ReadyForMessage2 { symmetric, remote_ephemeral: *remote_ephemeral })
}

/// The responder behind message 1.
#[derive(Debug)]
pub struct ReadyForMessage2 {
    symmetric: Symmetric,
    remote_ephemeral: [u8; 32],
}

impl ReadyForMessage2 {
    /// Writes message 2 and waits for message 3. `ephemeral` is fresh random bytes.
    ///
    /// # Errors
    /// [`HandshakeError::TooLong`] when `payload` exceeds [`PAYLOAD_2_MAX`], [`HandshakeError::LowOrderKey`] when the
    /// initiator's ephemeral key is one. The handshake is over then.
    pub fn write(
        self,
        static_key: &X25519Key,
        ephemeral: Secret,
        payload: &[u8],
    ) -> Result<(Vec<u8>, ExpectMessage3), HandshakeError> {
        let ReadyForMessage2 { mut symmetric, remote_ephemeral } = self;
        if payload.len() > PAYLOAD_2_MAX {
            return Err(HandshakeError::TooLong);
        }
        let ephemeral = X25519Key::new(ephemeral);
        let mut message = Vec::with_capacity(KEY_LEN + SEALED_KEY_LEN + payload.len() + TAG_LEN);
        message.extend_from_slice(ephemeral.public());
        symmetric.mix_hash(ephemeral.public());
        let key = symmetric.mix_key(&*ephemeral.agree(&remote_ephemeral)?);
        symmetric.seal(&key, 0, static_key.public(), &mut message);
        let key = symmetric.mix_key(&*static_key.agree(&remote_ephemeral)?);
        symmetric.seal(&key, 0, payload, &mut message);
        Ok((message, ExpectMessage3(Box::new(ResponderSecrets { symmetric, key, ephemeral }))))
    }
}

/// The responder behind message 2.
#[derive(Debug)]
pub struct ExpectMessage3(Box<ResponderSecrets>);

struct ResponderSecrets {
    symmetric: Symmetric,
    key: Key,
    ephemeral: X25519Key,
}

impl ExpectMessage3 {
    /// Reads message 3 and gives what the initiator claims, and the channel's keys. They must not be used before the
    /// claim has been decided upon.
    ///
    /// # Errors
    /// The state as it was, and why. Garbage costs one short decryption; only who knows the keys so far can make it
    /// cost a key agreement.
    pub fn read(self, message: &[u8]) -> Result<(Claimed, Established), Rejected<Self>> {
        let mut symmetric = self.0.symmetric.clone();
        match read_message_3(&mut symmetric, &self.0.key, &self.0.ephemeral, message) {
            Ok(claimed) => {
                let (k1, k2) = symmetric.split();
                Ok((claimed, Established { sealing_key: k1, opening_key: k2, hash: symmetric.hash }))
            }
            Err(error) => Err(Rejected { state: self, error }),
        }
    }
}

fn read_message_3(
    symmetric: &mut Symmetric,
    key: &Key,
    ephemeral: &X25519Key,
    message: &[u8],
) -> Result<Claimed, HandshakeError> {
    check_length(message, SEALED_KEY_LEN + TAG_LEN)?;
    let (sealed_static, sealed_payload) = message.split_at(SEALED_KEY_LEN);
    let static_key = symmetric.open_key(key, 1, sealed_static)?;
    let key = symmetric.mix_key(&*ephemeral.agree(&static_key)?);
    let payload = symmetric.open(&key, 0, sealed_payload)?;
    Ok(Claimed { payload, static_key })
}

/// What the other end says about itself. It holds the secret of `static_key`; nothing else is known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The payload of its message: an identity and its attestation of `static_key` (`wire.md` E.3).
    pub payload: Vec<u8>,
    /// Its X25519 key.
    pub static_key: [u8; 32],
}

/// A finished handshake.
#[derive(Debug)]
pub struct Established {
    /// For the [`Sealer`](crate::Sealer) of this end: the other end opens with it.
    pub sealing_key: Secret,
    /// For the [`Opener`](crate::Opener) of this end.
    pub opening_key: Secret,
    /// The same on both ends and on no other channel. Not secret.
    pub hash: [u8; 32],
}

/// A message was not accepted, and the handshake is where it was.
#[derive(Debug)]
pub struct Rejected<State> {
    /// Goes on waiting for the genuine message.
    pub state: State,
    /// Why the message was not accepted.
    pub error: HandshakeError,
}

/// Why a handshake message was not accepted, or not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum HandshakeError {
    /// It cannot hold the keys and tags that belong into it.
    #[error("the handshake message is too short")]
    TooShort,
    /// It is or would be longer than [`HANDSHAKE_MESSAGE_MAX`].
    #[error("the handshake message is longer than {HANDSHAKE_MESSAGE_MAX} bytes")]
    TooLong,
    /// A public key in it would make a shared secret that everybody knows.
    #[error("the handshake message has a public key of low order")]
    LowOrderKey,
    /// It is not the answer to what this end sent, or was changed on its way.
    #[error("the handshake message is not genuine")]
    NotGenuine,
}

impl From<LowOrderKey> for HandshakeError {
    fn from(_: LowOrderKey) -> Self {
        HandshakeError::LowOrderKey
    }
}

fn check_length(message: &[u8], min: usize) -> Result<(), HandshakeError> {
    match message.len() {
        length if length < min => Err(HandshakeError::TooShort),
        length if length > HANDSHAKE_MESSAGE_MAX => Err(HandshakeError::TooLong),
        _ => Ok(()),
    }
}

/// Chaining key and hash of everything so far. Keys and nonces are with the steps that use them: each key of this
/// pattern seals once or twice.
#[derive(Clone)]
struct Symmetric {
    chain: Zeroizing<[u8; 32]>,
    hash: [u8; 32],
}

impl Symmetric {
    /// A name of 32 bytes is the first chaining key and, being as long as a hash, would be the first hash too; the
    /// empty prologue is mixed into that.
    fn new(name: &Name) -> Self {
        Symmetric { chain: Zeroizing::new(*name), hash: Sha256::digest(name).into() }
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = Sha256::new().chain_update(self.hash).chain_update(data).finalize().into();
    }

    fn mix_key(&mut self, shared: &[u8; 32]) -> Key {
        let (chain, key) = hkdf(&self.chain, shared);
        self.chain = chain;
        Key::new(&key)
    }

    /// Appends the sealed text to `message`.
    fn seal(&mut self, key: &Key, nonce: u64, text: &[u8], message: &mut Vec<u8>) {
        let start = message.len();
        message.extend_from_slice(text);
        let tag = key.seal(&aead::nonce(nonce), &self.hash, &mut message[start..]);
        message.extend_from_slice(&tag);
        self.mix_hash(&message[start..]);
    }

    fn open(&mut self, key: &Key, nonce: u64, sealed: &[u8]) -> Result<Vec<u8>, HandshakeError> {
        let (text, tag) = sealed.split_last_chunk().expect("the length was checked");
        let mut text = text.to_vec();
        key.open(&aead::nonce(nonce), &self.hash, &mut text, tag).map_err(|_| HandshakeError::NotGenuine)?;
        self.mix_hash(sealed);
        Ok(text)
    }

    fn open_key(&mut self, key: &Key, nonce: u64, sealed: &[u8]) -> Result<[u8; 32], HandshakeError> {
        Ok(self.open(key, nonce, sealed)?.try_into().expect("a sealed key is a key and a tag"))
    }

    fn split(&self) -> (Secret, Secret) {
        let (mut first, mut second) = hkdf(&self.chain, &[]);
        (Secret::take(&mut first), Secret::take(&mut second))
    }
}

/// HKDF with SHA-256 and empty info, 64 bytes in two halves.
fn hkdf(salt: &[u8; 32], input: &[u8]) -> (Zeroizing<[u8; 32]>, Zeroizing<[u8; 32]>) {
    let mut output = Zeroizing::new([0; 64]);
    Hkdf::<Sha256>::new(Some(salt), input).expand(&[], output.as_mut_slice()).expect("64 bytes are two blocks");
    let (mut first, mut second) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 32]));
    first.copy_from_slice(&output[..32]);
    second.copy_from_slice(&output[32..]);
    (first, second)
}

macro_rules! redacted {
    ($($secrets:ty)*) => {$(impl fmt::Debug for $secrets {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("[redacted]")
        }
    })*};
}

redacted!(Symmetric Message2Secrets Message3Secrets ResponderSecrets);

#[cfg(test)]
mod tests;
