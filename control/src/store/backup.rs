//! Backups: the keys of a vault and the identities that they belong to, in one file.
//!
//! Content of a file as in [`sealed`](super::sealed): how many bytes of keys there are, big-endian 4 · the keys as in a
//! [`vault`](super::vault) · what is not secret, CBOR:
//!
//! ```text
//!   [ vault, whether it was encrypted, when it was made, [ identity, ... ] ]
//!   identity = [ name, whether it was the default, history, key for channels, key for credentials ]
//!   key = null | [ public, attestation ]
//! ```

use super::identity::{Purpose, PurposeKeyRow};
use super::sealed::{Format, Put, Seal, lock, remove_drafts, write_file};
use super::vault::{KEYS_BYTES_MAX, Vault};
use crate::error::Error;
use minicbor::{Decode, Encode};
use ockam_crypto::ChangeHistory;
use rustix::io::Errno;
use std::path::Path;
use zeroize::Zeroizing;

const FORMAT: Format = Format {
    magic: b"ockam backup v1\n",
    name: "backup",
    // Four thousand identities with the longest history, or half a million that never changed their key.
    content_bytes_max: 4 + KEYS_BYTES_MAX + 64 * 1024 * 1024,
};

/// A backup in memory.
#[derive(Debug)]
pub(crate) struct Backup {
    /// The keys.
    pub(crate) keys: Vault,
    /// The name of the vault.
    pub(crate) vault: String,
    /// Whether the vault's file was encrypted.
    pub(crate) was_encrypted: bool,
    /// When it was made, in seconds of Unix time.
    pub(crate) made_at: u64,
    /// The identities whose keys these are.
    pub(crate) identities: Vec<BackedUp>,
}

/// An identity in a backup.
#[derive(Debug)]
pub(crate) struct BackedUp {
    /// Its name.
    pub(crate) name: String,
    /// Whether commands meant it when they named none.
    pub(crate) is_default: bool,
    /// Its history.
    pub(crate) history: ChangeHistory,
    /// Its purpose keys, in the order of [`Purpose::ALL`]. Not verified.
    pub(crate) purpose_keys: [Option<PurposeKeyRow>; 2],
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct Description<'a> {
    #[b(0)]
    vault: &'a str,
    #[n(1)]
    was_encrypted: bool,
    #[n(2)]
    made_at: u64,
    #[b(3)]
    identities: Vec<Identity<'a>>,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct Identity<'a> {
    #[b(0)]
    name: &'a str,
    #[n(1)]
    is_default: bool,
    #[cbor(b(2), with = "minicbor::bytes")]
    history: &'a [u8],
    #[b(3)]
    for_channels: Option<PurposeKey<'a>>,
    #[b(4)]
    for_credentials: Option<PurposeKey<'a>>,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct PurposeKey<'a> {
    #[cbor(n(0), with = "minicbor::bytes")]
    public: [u8; 32],
    #[cbor(b(1), with = "minicbor::bytes")]
    attestation: &'a [u8],
}

impl Backup {
    /// Reads a backup.
    ///
    /// # Errors
    /// As [`Vault::open`](super::vault::Vault::open).
    pub(crate) fn read(path: &Path, passphrase_file: Option<&Path>) -> Result<Backup, Error> {
        let (content, _) = FORMAT.open(&FORMAT.read(path)?, path, passphrase_file)?;
        let parsed = Backup::parse(&content);
        parsed.ok_or_else(|| FORMAT.damaged(path, "it does not hold what a backup holds"))
    }

    /// Writes a backup where no file is.
    ///
    /// # Errors
    /// [`Error::NameTaken`], [`Error::Storage`], and those of the passphrase file.
    pub(crate) fn write(&self, path: &Path, passphrase_file: Option<&Path>) -> Result<(), Error> {
        let seal = passphrase_file.map(|file| Seal::new(file, &FORMAT, path)).transpose()?;
        let _lock = lock(path)?;
        remove_drafts(path)?;
        match write_file(path, &FORMAT.close(&self.to_bytes(), seal.as_ref()), Put::New) {
            Err(Error::Storage { errno, .. }) if errno == Errno::EXIST.raw_os_error() => {
                Err(Error::NameTaken { what: "a file", name: path.display().to_string() })
            }
            written => written,
        }
    }

    fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let keys = self.keys.keys_to_bytes();
        let identities = self.identities.iter().map(|identity| {
            let [for_channels, for_credentials] = identity
                .purpose_keys
                .each_ref()
                .map(|key| key.as_ref().map(|key| PurposeKey { public: key.public, attestation: &key.attestation }));
            let BackedUp { name, is_default, history, .. } = identity;
            Identity { name, is_default: *is_default, history: history.encoded(), for_channels, for_credentials }
        });
        let description = minicbor::to_vec(Description {
            vault: &self.vault,
            was_encrypted: self.was_encrypted,
            made_at: self.made_at,
            identities: identities.collect(),
        })
        .expect("writing into a vector does not fail");
        // Large enough from the start: growing would leave copies of secrets behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(4 + keys.len() + description.len()));
        bytes.extend_from_slice(&(keys.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&keys);
        bytes.extend_from_slice(&description);
        bytes
    }

    fn parse(content: &[u8]) -> Option<Backup> {
        let (length, rest) = content.split_first_chunk()?;
        let (keys, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        let mut input = minicbor::Decoder::new(rest);
        let description: Description = input.decode().ok().filter(|_| input.position() == rest.len())?;
        let row = |key: PurposeKey| PurposeKeyRow { public: key.public, attestation: key.attestation.to_vec() };
        let identities = description.identities.into_iter().map(|identity| {
            Some(BackedUp {
                name: identity.name.to_owned(),
                is_default: identity.is_default,
                history: ChangeHistory::verify(identity.history).ok()?,
                purpose_keys: [identity.for_channels.map(row), identity.for_credentials.map(row)],
            })
        });
        Some(Backup {
            keys: Vault::from_keys(keys, None)?,
            vault: description.vault.to_owned(),
            was_encrypted: description.was_encrypted,
            made_at: description.made_at,
            identities: identities.collect::<Option<_>>()?,
        })
    }
}

impl BackedUp {
    /// The public halves of all keys that it has or had.
    pub(crate) fn publics(&self) -> Vec<[u8; 32]> {
        let own = self.history.changes().iter().filter_map(|change| match change.key {
            ockam_crypto::PublicKey::Ed25519(key) => Some(key),
            ockam_crypto::PublicKey::P256(_) => None,
        });
        own.chain(self.purpose_keys.iter().flatten().map(|key| key.public)).collect()
    }

    /// Its purpose keys.
    pub(crate) fn each_purpose_key(&self) -> impl Iterator<Item = (Purpose, &PurposeKeyRow)> {
        Purpose::ALL.into_iter().zip(&self.purpose_keys).filter_map(|(purpose, key)| Some((purpose, key.as_ref()?)))
    }
}
