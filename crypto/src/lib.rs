//! Cryptography of the Ockam protocol: state and bytes. No I/O, no clock, no randomness of its own: what arrives, the
//! time in seconds and fresh random bytes are arguments.
//!
//! ```text
//!   Plaintext          plaintext.rs    what a record says
//!   Sealer, Opener     record.rs       one direction of a secure channel; what the engine holds
//!     window, rekey                    which nonces are accepted, which key a nonce has
//!       aead                           AES-256-GCM, one name in front of two backends
//! ```
//!
//! With the feature `identity`, which control has and the engine has not:
//!
//! ```text
//!   initiate, accept   noise.rs         the handshake that ends in two keys
//!   Claim, Peer        peer.rs          who is at its other end
//!     ChangeHistory    identity.rs      who somebody is
//!     Attestation      purpose_key.rs   which keys are theirs
//!   Issuer             issuer.rs        who states something about others
//!     Credential       credential.rs    what it attests
//!     RevocationList   revocation.rs    what it has taken back
//! ```
//!
//! Keys are expanded once and wiped when they are dropped; no type that holds one can be cloned or printed.

#![forbid(unsafe_code)]

mod aead;
#[cfg(feature = "identity")]
mod credential;
#[cfg(feature = "identity")]
mod ed25519;
#[cfg(feature = "identity")]
mod identity;
#[cfg(feature = "identity")]
mod issuer;
#[cfg(feature = "identity")]
mod noise;
#[cfg(feature = "identity")]
mod peer;
mod plaintext;
#[cfg(feature = "identity")]
mod purpose_key;
mod record;
mod rekey;
#[cfg(feature = "identity")]
mod revocation;
mod secret;
mod self_test;
#[cfg(feature = "identity")]
mod signature;
#[cfg(all(test, feature = "identity"))]
mod vectors;
mod window;
#[cfg(feature = "identity")]
mod x25519;

pub use aead::{TAG_LEN, backend, cpu_features};
#[cfg(feature = "identity")]
pub use credential::{
    ATTRIBUTE_NAME_MAX, ATTRIBUTE_VALUE_MAX, ATTRIBUTES_MAX, AttributeError, Attributes, CREDENTIAL_MAX, Credential,
    CredentialError, PROJECT_MEMBER_SCHEMA, UnverifiedCredential,
};
#[cfg(feature = "identity")]
pub use identity::{
    CHANGES_MAX, Change, ChangeError, ChangeHistory, Comparison, HistoryError, Identifier, InvalidIdentifier,
    KEY_LIFETIME_SECS, Validity,
};
#[cfg(feature = "identity")]
pub use issuer::{Issuer, IssuerError};
#[cfg(feature = "identity")]
pub use noise::{
    Claimed, Established, ExpectMessage2, ExpectMessage3, HANDSHAKE_MESSAGE_MAX, HandshakeError, PAYLOAD_2_MAX,
    PAYLOAD_3_MAX, ReadyForMessage2, ReadyForMessage3, Rejected, accept, initiate,
};
#[cfg(feature = "identity")]
pub use peer::{
    AuthenticationError, CREDENTIALS_MAX, Claim, Credentials, MalformedClaim, Peer, encode_payload, encode_refresh,
    parse_refresh,
};
pub use plaintext::{CLOSE, MalformedPlaintext, NO_PADDING, OutgoingPlaintext, PAYLOAD_HEAD, Plaintext, PlaintextKind};
#[cfg(feature = "identity")]
pub use purpose_key::{
    Attestation, AttestationError, CLOCK_SKEW_SECS, PURPOSE_KEY_LIFETIME_SECS, PurposePublicKey, UnverifiedAttestation,
};
pub use record::{Exhausted, NONCE_LEN, OpenError, Opened, Opener, RECORD_OVERHEAD, Sealer};
pub use rekey::REKEY_INTERVAL;
#[cfg(feature = "identity")]
pub use revocation::{REVOCATION_LIST_MAX, RevocationError, RevocationList, UnverifiedRevocationList};
pub use secret::Secret;
pub use self_test::{SelfTestFailed, self_test};
#[cfg(feature = "identity")]
pub use signature::{PublicKey, SigningKey};
pub use window::WINDOW;
#[cfg(feature = "identity")]
pub use x25519::X25519Key;
