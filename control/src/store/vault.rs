//! Vault files: secret keys, and the only place where they are.
//!
//! ```text
//!   16   "ockam vault v1\n\0"
//!    1   0: the keys are in the clear, 1: sealed with a passphrase
//!  (40)  sealed only: salt 16 · memory in KiB 4 · passes 4 · lanes 4 · nonce 12      of argon2id; big-endian
//!  65 n  keys: kind 1 (0 Ed25519, 1 X25519) · public 32 · secret 32
//! 16|32  tag of AES-256-GCM over all before it, or its SHA-256
//! ```
//!
//! A file is replaced whole or not at all, by one process at a time. Its mode is 0600 under any umask; one that others
//! have access to is refused. Who wants a key from a vault knows its public half.

use crate::error::Error;
use crate::home::open_private_file;
use crate::text::is_hex_id;
use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use ockam_crypto::{PublicKey, Secret, SigningKey, X25519Key};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const MAGIC: &[u8; 16] = b"ockam vault v1\n\0";
const KEY_BYTES: usize = 65;
const COSTS_BYTES: usize = 12;
const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const DIGEST_BYTES: usize = 32;

/// How many keys a vault may have; reading it takes memory for as many.
const KEYS_MAX: usize = 16_384;

const FILE_BYTES_MAX: usize =
    MAGIC.len() + 1 + SALT_BYTES + COSTS_BYTES + NONCE_BYTES + KEYS_MAX * KEY_BYTES + DIGEST_BYTES;

/// Longest passphrase in bytes.
const PASSPHRASE_BYTES_MAX: usize = 1024;

/// What deriving a key from a passphrase costs, and so every guess: RFC 9106, section 4, second choice, with one lane,
/// since nothing here runs in parallel.
const COSTS: Costs = Costs { memory_kib: 64 * 1024, passes: 3, lanes: 1 };

/// What a file may ask for before anything in it is known to be true.
const COSTS_MAX: Costs = Costs { memory_kib: 256 * 1024, passes: 16, lanes: 16 };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Costs {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// Where a vault is and what opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, absolute.
    pub path: PathBuf,
    /// The file that holds the passphrase, absolute; `None` when the keys are in the clear.
    pub passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ed25519 = 0,
    X25519 = 1,
}

#[derive(Debug)]
struct Key {
    kind: Kind,
    public: [u8; 32],
    secret: Secret,
}

/// What a vault holds, in memory.
#[derive(Debug)]
pub struct Vault {
    keys: Vec<Key>,
    seal: Option<Seal>,
}

/// What encrypts a vault.
#[derive(Debug)]
struct Seal {
    salt: [u8; SALT_BYTES],
    costs: Costs,
    key: Secret,
}

impl Vault {
    /// Makes an empty vault, encrypted if a passphrase file is named.
    ///
    /// # Errors
    /// [`Error::Storage`] with `EEXIST` when there is a file already, and as [`open_private_file`]; those of the
    /// passphrase file.
    pub fn create(place: &Place) -> Result<(), Error> {
        let seal = place.passphrase_file.as_deref().map(|file| {
            let salt = crate::random::bytes();
            derive(&read_passphrase(file)?, salt, COSTS, &place.path)
        });
        Vault { keys: Vec::new(), seal: seal.transpose()? }.write(&place.path, Put::New)
    }

    /// Reads a vault.
    ///
    /// # Errors
    /// [`Error::Vault`], [`Error::WrongPassphrase`], [`Error::InputMissing`] when a file is gone, or the vault is
    /// encrypted and no passphrase file is named, [`Error::OpenToOthers`], [`Error::NotOurs`], [`Error::WrongKind`],
    /// [`Error::Storage`].
    pub fn open(place: &Place) -> Result<Vault, Error> {
        Vault::from_bytes(&read_private_file(&place.path)?, place)
    }

    /// Reads a vault, changes it, and writes it back, while no other process does. Nothing is written when `change`
    /// fails.
    ///
    /// # Errors
    /// As [`Vault::open`], and those of `change`.
    pub fn update<T>(place: &Place, change: impl FnOnce(&mut Vault) -> Result<T, Error>) -> Result<T, Error> {
        let _lock = lock(&place.path)?;
        remove_drafts(&place.path)?;
        let mut vault = Vault::open(place)?;
        let changed = change(&mut vault)?;
        vault.write(&place.path, Put::Over)?;
        Ok(changed)
    }

    /// Copies the file as it is, encrypted or not.
    ///
    /// # Errors
    /// [`Error::Storage`] with `EEXIST` when there is a file already.
    pub fn copy(from: &Path, to: &Path) -> Result<(), Error> {
        let _lock = lock(from)?;
        write_file(to, &read_private_file(from)?, Put::New)
    }

    /// How many keys it has.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key that signs for `public`, if it is here.
    pub fn signing_key(&self, public: &PublicKey) -> Option<SigningKey> {
        let PublicKey::Ed25519(bytes) = public else { return None };
        let key = SigningKey::new(self.secret(Kind::Ed25519, bytes)?);
        (key.public() == *public).then_some(key)
    }

    /// The static key of secure channels whose public half is `public`, if it is here.
    pub fn channel_key(&self, public: &[u8; 32]) -> Option<X25519Key> {
        let key = X25519Key::new(self.secret(Kind::X25519, public)?);
        (key.public() == public).then_some(key)
    }

    /// Makes an Ed25519 key.
    ///
    /// # Errors
    /// [`Error::Vault`] when it is full.
    pub fn make_signing_key(&mut self, path: &Path) -> Result<SigningKey, Error> {
        let key = SigningKey::new(fresh_secret());
        let PublicKey::Ed25519(public) = key.public() else { unreachable!("made just now") };
        self.add(Kind::Ed25519, public, key.seed(), path)?;
        Ok(key)
    }

    /// Makes an X25519 key.
    ///
    /// # Errors
    /// [`Error::Vault`] when it is full.
    pub fn make_channel_key(&mut self, path: &Path) -> Result<X25519Key, Error> {
        let key = X25519Key::new(fresh_secret());
        self.add(Kind::X25519, *key.public(), key.secret(), path)?;
        Ok(key)
    }

    /// Forgets the keys with these public halves.
    pub fn remove(&mut self, publics: &[[u8; 32]]) {
        self.keys.retain(|key| !publics.contains(&key.public));
    }

    fn secret(&self, kind: Kind, public: &[u8; 32]) -> Option<Secret> {
        let key = self.keys.iter().find(|key| key.kind == kind && key.public == *public)?;
        Some(secret_of(key.secret.expose()))
    }

    fn add(&mut self, kind: Kind, public: [u8; 32], secret: &Secret, path: &Path) -> Result<(), Error> {
        if self.keys.len() == KEYS_MAX {
            return Err(damaged(path, format!("it already has {KEYS_MAX} keys")));
        }
        self.keys.push(Key { kind, public, secret: secret_of(secret.expose()) });
        Ok(())
    }

    fn from_bytes(bytes: &[u8], place: &Place) -> Result<Vault, Error> {
        let bad = |why: &str| damaged(&place.path, why);
        let body = bytes.strip_prefix(MAGIC).ok_or_else(|| bad("it is not a vault"))?;
        let cut_off = || bad("it is cut off");
        match (body.first(), &place.passphrase_file) {
            (Some(0), None) => {
                let end = bytes.len().checked_sub(DIGEST_BYTES).filter(|end| *end > MAGIC.len()).ok_or_else(cut_off)?;
                if Sha256::digest(&bytes[..end])[..] != bytes[end..] {
                    return Err(bad("its checksum is wrong"));
                }
                Ok(Vault { keys: parse_keys(&bytes[MAGIC.len() + 1..end]).ok_or_else(cut_off)?, seal: None })
            }
            // Who replaced an encrypted vault by one that is not knows its keys.
            (Some(0), Some(_)) => Err(bad("it is not encrypted, but a passphrase file belongs to it")),
            (Some(1), None) => Err(Error::InputMissing {
                what: format!("the passphrase of the vault {}", place.path.display()),
                fix: "Name the file that holds it with --passphrase-file.".into(),
            }),
            (Some(1), Some(passphrase_file)) => {
                let mut rest = &body[1..];
                let mut take = |count| rest.split_off(..count).ok_or_else(cut_off);
                let salt: [u8; SALT_BYTES] = take(SALT_BYTES)?.try_into().expect("as many as asked for");
                let mut number = || -> Result<u32, Error> {
                    Ok(u32::from_be_bytes(take(4)?.try_into().expect("as many as asked for")))
                };
                let costs = Costs { memory_kib: number()?, passes: number()?, lanes: number()? };
                let nonce: [u8; NONCE_BYTES] = take(NONCE_BYTES)?.try_into().expect("as many as asked for");
                let head = bytes.len() - rest.len();
                let Some((sealed, tag)) = rest.split_last_chunk::<TAG_BYTES>() else { return Err(cut_off()) };
                let seal = derive(&read_passphrase(passphrase_file)?, salt, costs, &place.path)?;
                let mut keys = Zeroizing::new(sealed.to_vec());
                let opened = cipher(&seal).decrypt_inout_detached(
                    &nonce.into(),
                    &bytes[..head],
                    keys.as_mut_slice().into(),
                    tag.into(),
                );
                opened.map_err(|_| Error::WrongPassphrase {
                    path: place.path.clone(),
                    passphrase_file: passphrase_file.clone(),
                })?;
                Ok(Vault { keys: parse_keys(&keys).ok_or_else(cut_off)?, seal: Some(seal) })
            }
            (Some(_), _) => Err(bad("a newer version wrote it")),
            (None, _) => Err(cut_off()),
        }
    }

    fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        // Large enough from the start: growing would leave copies of secrets behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(
            MAGIC.len() + 1 + SALT_BYTES + COSTS_BYTES + NONCE_BYTES + self.keys.len() * KEY_BYTES + DIGEST_BYTES,
        ));
        bytes.extend_from_slice(MAGIC);
        bytes.push(u8::from(self.seal.is_some()));
        // A nonce of 96 random bits for each time that a person changes something: they do not repeat.
        let nonce: [u8; NONCE_BYTES] = crate::random::bytes();
        if let Some(seal) = &self.seal {
            bytes.extend_from_slice(&seal.salt);
            for number in [seal.costs.memory_kib, seal.costs.passes, seal.costs.lanes] {
                bytes.extend_from_slice(&number.to_be_bytes());
            }
            bytes.extend_from_slice(&nonce);
        }
        let head = bytes.len();
        for key in &self.keys {
            bytes.push(key.kind as u8);
            bytes.extend_from_slice(&key.public);
            bytes.extend_from_slice(key.secret.expose());
        }
        match &self.seal {
            Some(seal) => {
                let (head, keys) = bytes.split_at_mut(head);
                let tag = cipher(seal).encrypt_inout_detached(&nonce.into(), head, keys.into());
                let tag: [u8; TAG_BYTES] = tag.expect("a vault is below the 64 GiB of AES-GCM").into();
                bytes.extend_from_slice(&tag);
            }
            None => {
                let digest = Sha256::digest(&bytes[..]);
                bytes.extend_from_slice(&digest);
            }
        }
        bytes
    }

    fn write(&self, path: &Path, put: Put) -> Result<(), Error> {
        write_file(path, &self.to_bytes(), put)
    }
}

/// Where a new file comes to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Put {
    /// Where none is.
    New,
    /// In place of the one that is there.
    Over,
}

/// Writes a file under another name, then gives it its own.
fn write_file(path: &Path, bytes: &[u8], put: Put) -> Result<(), Error> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::WrongKind { path: path.into(), found: "a directory", wanted: "a file" });
    };
    let draft = directory.join(format!("{}{}", draft_prefix(name), crate::random::hex_id()));
    let write = || {
        let mut file = open_private_file(&draft, OpenOptions::new().write(true).create_new(true))
            .map_err(|error| at_path(error, path))?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        written.map_err(|error| Error::storage("write", path, &error))?;
        let put = match put {
            Put::New => fs::hard_link(&draft, path).and_then(|()| fs::remove_file(&draft)),
            Put::Over => fs::rename(&draft, path),
        };
        put.map_err(|error| Error::storage("create", path, &error))?;
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(|error| Error::storage("write", directory, &error))
    };
    write().inspect_err(|_| {
        // Most often it was not even made, or has its own name by now.
        let _ = fs::remove_file(&draft);
    })
}

fn draft_prefix(name: &OsStr) -> String {
    format!(".{}.", name.to_string_lossy())
}

/// Removes what a process left that was ended while it wrote: keys that the vault may have forgotten since. Whoever
/// calls holds the lock.
fn remove_drafts(path: &Path) -> Result<(), Error> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let prefix = draft_prefix(name);
    let entries = fs::read_dir(directory).map_err(|error| Error::storage("read", directory, &error))?;
    for entry in entries.flatten() {
        if entry.file_name().to_str().and_then(|name| name.strip_prefix(&prefix)).is_some_and(is_hex_id) {
            fs::remove_file(entry.path()).map_err(|error| Error::storage("remove", entry.path(), &error))?;
        }
    }
    Ok(())
}

/// An error about a draft names the file that was asked for.
fn at_path(error: Error, path: &Path) -> Error {
    match error {
        Error::Storage { errno, .. } => Error::Storage { what: "create", path: path.into(), errno },
        other => other,
    }
}

/// Keeps other processes from changing a vault until it is dropped. What is locked is the directory: the file itself
/// is replaced, and a file for the lock would be litter beside it.
fn lock(path: &Path) -> Result<File, Error> {
    let directory = path.parent().unwrap_or(path);
    let opened = File::open(directory).map_err(|error| Error::storage("open", directory, &error))?;
    loop {
        match flock(&opened, FlockOperation::LockExclusive) {
            Ok(()) => return Ok(opened),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Error::storage("lock", directory, &errno.into())),
        }
    }
}

/// Whether a vault's file does not exist.
///
/// # Errors
/// [`Error::Storage`] when that cannot be found out.
pub fn is_gone(path: &Path) -> Result<bool, Error> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(Error::storage("examine", path, &error)),
    }
}

/// Reads a file that nobody else may have access to.
fn read_private_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Error::InputMissing {
                what: format!("the vault's file {}", path.display()),
                fix: "Put it back, or restore it from a backup.".into(),
            });
        }
        Err(error) => return Err(Error::storage("open", path, &error)),
        Ok(metadata) if metadata.is_file() && metadata.mode() & 0o077 != 0 => {
            return Err(Error::OpenToOthers { path: path.into(), mode: metadata.mode() & 0o7777 });
        }
        Ok(_) => {}
    }
    let file = open_private_file(path, OpenOptions::new().read(true))?;
    match read_at_most(&file, FILE_BYTES_MAX) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(damaged(path, "it is too large to be a vault")),
        Err(error) => Err(Error::storage("read", path, &error)),
    }
}

/// The passphrase in a file: its first line. The file may be a symbolic link and may belong to root, as secrets do that
/// a container is given; nobody but its owner may have access to it.
fn read_passphrase(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    // Non-blocking, so that a named pipe does not hang the command.
    let opened = OpenOptions::new().read(true).custom_flags(nix::libc::O_CLOEXEC | nix::libc::O_NONBLOCK).open(path);
    let file = opened.map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::InputMissing {
            what: format!("the file {} with the passphrase of a vault", path.display()),
            fix: "Put it back, or say where it is now with `ockam vault move VAULT --passphrase-file FILE`.".into(),
        },
        _ => Error::storage("open", path, &error),
    })?;
    let metadata = file.metadata().map_err(|error| Error::storage("examine", path, &error))?;
    if !metadata.is_file() {
        return Err(Error::WrongKind {
            path: path.into(),
            found: if metadata.is_dir() { "a directory" } else { "a special file" },
            wanted: "a file that is still there when the passphrase is needed again",
        });
    }
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user && metadata.uid() != 0 {
        return Err(Error::NotOurs { path: path.into(), owner: metadata.uid(), user });
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(Error::OpenToOthers { path: path.into(), mode: metadata.mode() & 0o7777 });
    }
    let bad = |why: &str| Error::BadData {
        what: format!("the passphrase in {}", path.display()),
        why: why.into(),
        fix: format!("Put one line of 1 to {PASSPHRASE_BYTES_MAX} bytes there."),
    };
    let bytes = read_at_most(&file, PASSPHRASE_BYTES_MAX + 2).map_err(|error| Error::storage("read", path, &error))?;
    let bytes = bytes.ok_or_else(|| bad("is too long"))?;
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        Err(bad("is empty"))
    } else if line.contains(&b'\n') {
        Err(bad("has more than one line"))
    } else if line.len() > PASSPHRASE_BYTES_MAX {
        Err(bad("is too long"))
    } else {
        Ok(Zeroizing::new(line.to_vec()))
    }
}

/// All of a file, unless it is larger. The memory is taken once, so that no copy of a secret is left behind.
fn read_at_most(mut file: &File, bytes_max: usize) -> std::io::Result<Option<Zeroizing<Vec<u8>>>> {
    let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if size > bytes_max {
        return Ok(None);
    }
    let mut bytes = Zeroizing::new(vec![0; size]);
    match file.read_exact(&mut bytes) {
        // Somebody wrote into it, which we never do.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
        read => read.map(|()| Some(bytes)),
    }
}

fn derive(passphrase: &[u8], salt: [u8; SALT_BYTES], costs: Costs, path: &Path) -> Result<Seal, Error> {
    Ok(Seal { salt, costs, key: derive_key(passphrase, &salt, costs, path)? })
}

fn derive_key(passphrase: &[u8], salt: &[u8], costs: Costs, path: &Path) -> Result<Secret, Error> {
    let Costs { memory_kib, passes, lanes } = costs;
    if memory_kib > COSTS_MAX.memory_kib || passes > COSTS_MAX.passes || lanes > COSTS_MAX.lanes {
        return Err(damaged(path, "its passphrase would cost too much to check"));
    }
    let params = Params::new(memory_kib, passes, lanes, Some(32)).map_err(|error| damaged(path, error.to_string()))?;
    let mut key = Zeroizing::new([0; 32]);
    // The key follows from the last of the memory.
    let mut memory = Zeroizing::new(vec![Block::default(); params.block_count()]);
    let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hashed = hasher.hash_password_into_with_memory(passphrase, salt, &mut key[..], &mut memory[..]);
    hashed.map_err(|error| damaged(path, error.to_string()))?;
    Ok(Secret::take(&mut key))
}

fn cipher(seal: &Seal) -> Box<Aes256Gcm> {
    Box::new(Aes256Gcm::new(seal.key.expose().into()))
}

fn parse_keys(bytes: &[u8]) -> Option<Vec<Key>> {
    let (keys, rest) = bytes.as_chunks::<KEY_BYTES>();
    if !rest.is_empty() || keys.len() > KEYS_MAX {
        return None;
    }
    let parse = |key: &[u8; KEY_BYTES]| {
        let kind = match key[0] {
            0 => Kind::Ed25519,
            1 => Kind::X25519,
            _ => return None,
        };
        let public = key[1..33].try_into().expect("32 bytes");
        Some(Key { kind, public, secret: secret_of(key[33..].try_into().expect("32 bytes")) })
    };
    keys.iter().map(parse).collect()
}

fn fresh_secret() -> Secret {
    Secret::take(&mut Zeroizing::new(crate::random::bytes()))
}

fn secret_of(secret: &[u8; 32]) -> Secret {
    Secret::take(&mut Zeroizing::new(*secret))
}

fn damaged(path: &Path, why: impl Into<String>) -> Error {
    Error::Vault { path: path.into(), why: why.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Mutex;

    fn plain(directory: &tempfile::TempDir) -> Place {
        Place { path: directory.path().join("a.vault"), passphrase_file: None }
    }

    fn sealed(directory: &tempfile::TempDir) -> Place {
        let file = directory.path().join("passphrase");
        put(&file, b"correct horse\n", 0o600);
        Place { path: directory.path().join("s.vault"), passphrase_file: Some(file) }
    }

    fn put(path: &Path, bytes: &[u8], mode: u32) {
        let _ = fs::remove_file(path);
        fs::write(path, bytes).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Costs little, so that a test can derive a key often.
    const CHEAP: Costs = Costs { memory_kib: 8, passes: 1, lanes: 1 };

    fn make_cheap(place: &Place) {
        let passphrase = read_passphrase(place.passphrase_file.as_ref().unwrap()).unwrap();
        let seal = derive(&passphrase, [7; SALT_BYTES], CHEAP, &place.path).unwrap();
        Vault { keys: Vec::new(), seal: Some(seal) }.write(&place.path, Put::New).unwrap();
    }

    fn add_keys(place: &Place) -> (PublicKey, [u8; 32]) {
        let add = |vault: &mut Vault| {
            let signing = vault.make_signing_key(&place.path)?;
            Ok((signing.public(), *vault.make_channel_key(&place.path)?.public()))
        };
        Vault::update(place, add).unwrap()
    }

    #[test]
    fn keys_come_back_by_their_public_half() {
        let directory = tempfile::tempdir().unwrap();
        for place in [plain(&directory), sealed(&directory)] {
            Vault::create(&place).unwrap();
            let (signing, channel) = add_keys(&place);
            let (second, _) = add_keys(&place);
            let vault = Vault::open(&place).unwrap();
            assert_eq!(vault.signing_key(&signing).unwrap().public(), signing);
            assert_eq!(vault.channel_key(&channel).unwrap().public(), &channel);
            // A key is of one kind, and one that is not there is not there.
            let PublicKey::Ed25519(bytes) = signing else { panic!("of another kind") };
            assert!(vault.channel_key(&bytes).is_none());
            assert!(vault.signing_key(&PublicKey::Ed25519(channel)).is_none());
            assert!(vault.signing_key(&PublicKey::P256([4; 65])).is_none());
            Vault::update(&place, |vault| {
                vault.remove(&[bytes, channel]);
                Ok(())
            })
            .unwrap();
            let vault = Vault::open(&place).unwrap();
            assert!(vault.signing_key(&signing).is_none() && vault.channel_key(&channel).is_none());
            assert_eq!((vault.len(), vault.signing_key(&second).unwrap().public()), (2, second));
            // There is one vault in a place.
            let again = Vault::create(&place).unwrap_err();
            assert!(matches!(again, Error::Storage { errno, .. } if errno == rustix::io::Errno::EXIST.raw_os_error()));
        }
    }

    /// The secrets of a sealed vault are in none of its bytes, those of a plain one are: so the search finds them.
    #[test]
    fn a_sealed_file_shows_no_secret() {
        let directory = tempfile::tempdir().unwrap();
        for (place, shown) in [(plain(&directory), true), (sealed(&directory), false)] {
            Vault::create(&place).unwrap();
            let (signing, channel) = add_keys(&place);
            let vault = Vault::open(&place).unwrap();
            let file = fs::read(&place.path).unwrap();
            let has = |secret: &[u8; 32]| file.windows(32).any(|window| window == secret);
            let (seed, secret) = (vault.signing_key(&signing).unwrap(), vault.channel_key(&channel).unwrap());
            assert_eq!((has(seed.seed().expose()), has(secret.secret().expose())), (shown, shown));
            assert!(!format!("{vault:?}").contains(&format!("{:?}", &seed.seed().expose()[..4])[1..9]));
        }
    }

    /// One process after another, since the umask is the process's.
    #[test]
    fn modes_hold_under_any_umask() {
        static UMASK: Mutex<()> = Mutex::new(());
        let _lock = UMASK.lock().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let place = plain(&directory);
        let before = rustix::process::umask(rustix::fs::Mode::empty());
        let done = Vault::create(&place).and_then(|()| {
            let made = fs::metadata(&place.path).unwrap().mode() & 0o7777;
            let moved = directory.path().join("moved");
            Vault::copy(&place.path, &moved)?;
            Vault::update(&place, |vault| vault.make_channel_key(&place.path).map(drop))?;
            let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
            Ok((made, mode(&place.path), mode(&moved)))
        });
        rustix::process::umask(before);
        assert_eq!(done.unwrap(), (0o600, 0o600, 0o600));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "a draft was left");
    }

    #[test]
    fn what_others_may_read_is_refused_and_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        for place in [plain(&directory), sealed(&directory)] {
            Vault::create(&place).unwrap();
            for path in [Some(&place.path), place.passphrase_file.as_ref()].into_iter().flatten() {
                for open in [0o640, 0o604, 0o620, 0o610] {
                    fs::set_permissions(path, fs::Permissions::from_mode(open)).unwrap();
                    let refused = Vault::open(&place).unwrap_err();
                    assert!(matches!(&refused, Error::OpenToOthers { path: at, mode } if at == path && *mode == open));
                    assert!(refused.hint().contains("chmod go-rwx"), "{}", refused.hint());
                    assert!(matches!(add(&place), Err(Error::OpenToOthers { .. })));
                    assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, open);
                }
                fs::set_permissions(path, fs::Permissions::from_mode(0o400)).unwrap();
                Vault::open(&place).unwrap();
            }
        }
        let link = Place { path: directory.path().join("link"), passphrase_file: None };
        std::os::unix::fs::symlink(directory.path().join("a.vault"), &link.path).unwrap();
        assert!(matches!(Vault::open(&link), Err(Error::WrongKind { found: "a symbolic link", .. })));
    }

    fn add(place: &Place) -> Result<(), Error> {
        Vault::update(place, |vault| vault.make_channel_key(&place.path).map(drop))
    }

    #[test]
    fn passphrases_are_checked() {
        let directory = tempfile::tempdir().unwrap();
        let place = sealed(&directory);
        let file = place.passphrase_file.clone().unwrap();
        make_cheap(&place);
        let (signing, _) = add_keys(&place);
        // The end of the line is not part of it.
        for same in [&b"correct horse"[..], b"correct horse\n", b"correct horse\r\n"] {
            put(&file, same, 0o600);
            assert!(Vault::open(&place).unwrap().signing_key(&signing).is_some());
        }
        let before = fs::read(&place.path).unwrap();
        for wrong in [&b"correct horse "[..], b"Correct horse", b"x", &[b'x'; PASSPHRASE_BYTES_MAX]] {
            put(&file, wrong, 0o600);
            let error = Vault::open(&place).unwrap_err();
            assert!(matches!(error, Error::WrongPassphrase { .. }), "{error}");
            assert!(matches!(add(&place), Err(Error::WrongPassphrase { .. })));
        }
        for bad in [&b""[..], b"\n", b"a\nb\n", &[b'x'; PASSPHRASE_BYTES_MAX + 1], &[b'x'; 100_000]] {
            put(&file, bad, 0o600);
            assert!(matches!(Vault::open(&place), Err(Error::BadData { .. })));
        }
        fs::remove_file(&file).unwrap();
        assert!(matches!(Vault::open(&place), Err(Error::InputMissing { .. })));
        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let piped = Place { passphrase_file: Some(pipe), ..place.clone() };
        assert!(matches!(Vault::open(&piped), Err(Error::WrongKind { found: "a special file", .. })));
        // Without any the vault says what it needs, and one that is not sealed takes none.
        let none = Place { passphrase_file: None, ..place.clone() };
        assert!(matches!(Vault::open(&none), Err(Error::InputMissing { .. })));
        assert_eq!(fs::read(&place.path).unwrap(), before);
        put(&file, b"correct horse", 0o600);
        Vault::create(&plain(&directory)).unwrap();
        let downgraded = Place { path: plain(&directory).path, passphrase_file: Some(file) };
        assert!(matches!(Vault::open(&downgraded), Err(Error::Vault { .. })));
    }

    /// Whatever was cut off or flipped, no key comes out of it.
    #[test]
    fn torn_and_flipped_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        for place in [plain(&directory), sealed(&directory)] {
            if place.passphrase_file.is_some() {
                make_cheap(&place)
            } else {
                Vault::create(&place).unwrap()
            }
            add_keys(&place);
            let good = fs::read(&place.path).unwrap();
            for length in 0..good.len() {
                assert!(Vault::from_bytes(&good[..length], &place).is_err(), "cut off after {length}");
            }
            let mut longer = good.clone();
            longer.push(0);
            assert!(Vault::from_bytes(&longer, &place).is_err());
            for at in 0..good.len() {
                let mut bad = good.clone();
                bad[at] ^= 1;
                assert!(Vault::from_bytes(&bad, &place).is_err(), "byte {at} flipped");
            }
            assert!(Vault::from_bytes(&good, &place).is_ok());
        }
    }

    #[test]
    fn a_file_cannot_ask_for_any_cost() {
        let path = Path::new("/x");
        for costs in [
            Costs { memory_kib: u32::MAX, ..CHEAP },
            Costs { passes: u32::MAX, ..CHEAP },
            Costs { lanes: u32::MAX, ..CHEAP },
            Costs { memory_kib: 0, ..CHEAP },
            Costs { passes: 0, ..CHEAP },
            Costs { lanes: 0, ..CHEAP },
        ] {
            assert!(matches!(derive(b"x", [0; SALT_BYTES], costs, path), Err(Error::Vault { .. })), "{costs:?}");
        }
        let directory = tempfile::tempdir().unwrap();
        let place = plain(&directory);
        put(&place.path, &vec![0; FILE_BYTES_MAX + 1], 0o600);
        assert!(matches!(Vault::open(&place), Err(Error::Vault { .. })));
    }

    /// A vector of the reference implementation (`test.c`, Argon2id, version 0x13).
    #[test]
    fn keys_are_derived_as_everywhere() {
        let costs = Costs { memory_kib: 65_536, passes: 2, lanes: 1 };
        let key = derive_key(b"password", b"somesalt", costs, Path::new("/x")).unwrap();
        let want = "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7";
        assert_eq!(crate::text::to_hex(key.expose()), want);
    }

    #[test]
    fn many_writers_lose_no_key() {
        let directory = tempfile::tempdir().unwrap();
        let place = plain(&directory);
        Vault::create(&place).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..8).for_each(|_| add(&place).unwrap()));
            }
        });
        assert_eq!(Vault::open(&place).unwrap().len(), 64);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "a draft was left");
    }

    #[test]
    fn what_a_killed_process_left_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let place = plain(&directory);
        Vault::create(&place).unwrap();
        let id = "0123456789abcdef0123456789abcdef";
        let [left, other, odd] = [format!(".a.vault.{id}"), format!(".b.vault.{id}"), ".a.vault.mine".into()]
            .map(|name| directory.path().join(name));
        for path in [&left, &other, &odd] {
            put(path, b"keys", 0o600);
        }
        add(&place).unwrap();
        assert_eq!((left.exists(), other.exists(), odd.exists()), (false, true, true));
    }

    #[test]
    fn a_change_that_fails_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let place = plain(&directory);
        Vault::create(&place).unwrap();
        let before = fs::read(&place.path).unwrap();
        let failed: Result<(), Error> = Vault::update(&place, |vault| {
            vault.make_signing_key(&place.path)?;
            Err(Error::Interrupted)
        });
        assert_eq!(failed, Err(Error::Interrupted));
        assert_eq!(fs::read(&place.path).unwrap(), before);
        // Nor does one whose file cannot be written.
        let nowhere = directory.path().join("no/where");
        assert!(matches!(Vault::copy(&place.path, &nowhere), Err(Error::Storage { path, .. }) if path == nowhere));
        assert!(matches!(Vault::copy(&place.path, &place.path), Err(Error::Storage { .. })));
        assert_eq!(fs::read(&place.path).unwrap(), before);
    }
}
