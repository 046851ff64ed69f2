//! Private files whose content may be sealed with a passphrase: vaults and their backups.
//!
//! ```text
//!   16   what it is and which version of it
//!    1   0: the content is in the clear, 1: sealed with a passphrase
//!  (40)  sealed only: salt 16 · memory in KiB 4 · passes 4 · lanes 4 · nonce 12      of argon2id; big-endian
//!    n   content
//! 16|32  tag of AES-256-GCM over all before it, or its SHA-256
//! ```
//!
//! A file is written whole or not at all. Its mode is 0600 under any umask; one that others have access to is refused.

use crate::error::Error;
use crate::home::open_private_file;
use crate::text::is_hex_id;
use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use ockam_crypto::Secret;
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use zeroize::Zeroizing;

const MAGIC_BYTES: usize = 16;
const COSTS_BYTES: usize = 12;
pub(super) const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const DIGEST_BYTES: usize = 32;

/// How many bytes of a file are not content, at most.
const AROUND_BYTES_MAX: usize = MAGIC_BYTES + 1 + SALT_BYTES + COSTS_BYTES + NONCE_BYTES + DIGEST_BYTES;

/// Longest passphrase in bytes.
pub(super) const PASSPHRASE_BYTES_MAX: usize = 1024;

/// What deriving a key from a passphrase costs, and so every guess: RFC 9106, section 4, second choice, with one lane,
/// since nothing here runs in parallel. Unit tests seal hundreds of files and guess nothing.
const COSTS: Costs = Costs { memory_kib: if cfg!(test) { 64 } else { 64 * 1024 }, passes: 3, lanes: 1 };

/// What a file may ask for before anything in it is known to be true.
const COSTS_MAX: Costs = Costs { memory_kib: 256 * 1024, passes: 16, lanes: 16 };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Costs {
    pub(super) memory_kib: u32,
    pub(super) passes: u32,
    pub(super) lanes: u32,
}

/// A kind of file.
#[derive(Debug)]
pub(super) struct Format {
    /// At its front.
    pub(super) magic: &'static [u8; MAGIC_BYTES],
    /// How messages call it.
    pub(super) name: &'static str,
    /// How many bytes its content may have; reading it takes memory for as many.
    pub(super) content_bytes_max: usize,
}

/// What encrypts a file.
#[derive(Debug)]
pub(super) struct Seal {
    salt: [u8; SALT_BYTES],
    costs: Costs,
    key: Secret,
}

impl Seal {
    /// A seal with the passphrase in a file, for the file at `path`.
    ///
    /// # Errors
    /// Those of the passphrase file, as [`Format::open`].
    pub(super) fn new(passphrase_file: &Path, format: &Format, path: &Path) -> Result<Seal, Error> {
        format.derive(&read_passphrase(passphrase_file)?, crate::random::bytes(), COSTS, path)
    }
}

impl Format {
    /// Reads a file that nobody else may have access to.
    ///
    /// # Errors
    /// [`Error::InputMissing`], [`Error::OpenToOthers`], [`Error::NotOurs`], [`Error::WrongKind`], [`Error::KeyFile`] when
    /// it is too large, [`Error::Storage`].
    pub(super) fn read(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Error::InputMissing {
                    what: format!("the {}'s file {}", self.name, path.display()),
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
        match read_at_most(&file, AROUND_BYTES_MAX + self.content_bytes_max) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(self.damaged(path, format!("it is too large to be a {}", self.name))),
            Err(error) => Err(Error::storage("read", path, &error)),
        }
    }

    /// Takes the content out of the bytes of a file, with what sealed it.
    ///
    /// # Errors
    /// [`Error::KeyFile`], [`Error::WrongPassphrase`], [`Error::InputMissing`] when it is sealed and no passphrase file is
    /// named or that is gone, [`Error::BadData`] for what is in it, and as [`Format::read`] for who has access to it.
    pub(super) fn open(
        &self,
        bytes: &[u8],
        path: &Path,
        passphrase_file: Option<&Path>,
    ) -> Result<(Zeroizing<Vec<u8>>, Option<Seal>), Error> {
        let bad = |why: &str| self.damaged(path, why);
        let body = bytes.strip_prefix(self.magic).ok_or_else(|| bad(&format!("it is not a {}", self.name)))?;
        let cut_off = || bad("it is cut off");
        match (body.first(), passphrase_file) {
            (Some(0), None) => {
                let end = bytes.len().checked_sub(DIGEST_BYTES).filter(|end| *end > MAGIC_BYTES).ok_or_else(cut_off)?;
                if Sha256::digest(&bytes[..end])[..] != bytes[end..] {
                    return Err(bad("its checksum is wrong"));
                }
                Ok((Zeroizing::new(bytes[MAGIC_BYTES + 1..end].to_vec()), None))
            }
            // Who replaced a sealed file by one that is not knows its keys.
            (Some(0), Some(_)) => Err(bad("it is not encrypted, but a passphrase file belongs to it")),
            (Some(1), None) => Err(Error::InputMissing {
                what: format!("the passphrase of the {} {}", self.name, path.display()),
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
                let seal = self.derive(&read_passphrase(passphrase_file)?, salt, costs, path)?;
                let mut content = Zeroizing::new(sealed.to_vec());
                let opened = cipher(&seal).decrypt_inout_detached(
                    &nonce.into(),
                    &bytes[..head],
                    content.as_mut_slice().into(),
                    tag.into(),
                );
                opened.map_err(|_| Error::WrongPassphrase {
                    what: self.name,
                    path: path.into(),
                    passphrase_file: passphrase_file.into(),
                })?;
                Ok((content, Some(seal)))
            }
            (Some(_), _) => Err(bad("a newer version wrote it")),
            (None, _) => Err(cut_off()),
        }
    }

    /// The bytes of a file with this content.
    pub(super) fn close(&self, content: &[u8], seal: Option<&Seal>) -> Zeroizing<Vec<u8>> {
        // Large enough from the start: growing would leave copies of secrets behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(AROUND_BYTES_MAX + content.len()));
        bytes.extend_from_slice(self.magic);
        bytes.push(u8::from(seal.is_some()));
        // A nonce of 96 random bits for each time that a person changes something: they do not repeat.
        let nonce: [u8; NONCE_BYTES] = crate::random::bytes();
        if let Some(seal) = seal {
            bytes.extend_from_slice(&seal.salt);
            for number in [seal.costs.memory_kib, seal.costs.passes, seal.costs.lanes] {
                bytes.extend_from_slice(&number.to_be_bytes());
            }
            bytes.extend_from_slice(&nonce);
        }
        let head = bytes.len();
        bytes.extend_from_slice(content);
        match seal {
            Some(seal) => {
                let (head, content) = bytes.split_at_mut(head);
                let tag = cipher(seal).encrypt_inout_detached(&nonce.into(), head, content.into());
                let tag: [u8; TAG_BYTES] = tag.expect("a file is below the 64 GiB of AES-GCM").into();
                bytes.extend_from_slice(&tag);
            }
            None => {
                let digest = Sha256::digest(&bytes[..]);
                bytes.extend_from_slice(&digest);
            }
        }
        bytes
    }

    /// The error for a file that is not what it must be.
    pub(super) fn damaged(&self, path: &Path, why: impl Into<String>) -> Error {
        Error::KeyFile { what: self.name, path: path.into(), why: why.into() }
    }

    pub(super) fn derive(
        &self,
        passphrase: &[u8],
        salt: [u8; SALT_BYTES],
        costs: Costs,
        path: &Path,
    ) -> Result<Seal, Error> {
        let Costs { memory_kib, passes, lanes } = costs;
        if memory_kib > COSTS_MAX.memory_kib || passes > COSTS_MAX.passes || lanes > COSTS_MAX.lanes {
            return Err(self.damaged(path, "its passphrase would cost too much to check"));
        }
        let key = derive_key(passphrase, &salt, costs).map_err(|error| self.damaged(path, error.to_string()))?;
        Ok(Seal { salt, costs, key })
    }
}

/// Where a new file comes to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// Where none is.
    New,
    /// In place of the one that is there.
    Over,
}

/// Writes a file under another name, then gives it its own.
///
/// # Errors
/// [`Error::Storage`], with `EEXIST` when a new one is there already; as [`open_private_file`].
pub(super) fn write_file(path: &Path, bytes: &[u8], put: Put) -> Result<(), Error> {
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

/// Removes what a process left that was ended while it wrote: keys that the file may have forgotten since. Whoever calls
/// holds the lock.
///
/// # Errors
/// [`Error::Storage`].
pub(super) fn remove_drafts(path: &Path) -> Result<(), Error> {
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

/// Keeps other processes from changing a file until it is dropped. What is locked is the directory: the file itself is
/// replaced, and a file for the lock would be litter beside it.
///
/// # Errors
/// [`Error::Storage`].
pub(super) fn lock(path: &Path) -> Result<File, Error> {
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

/// The passphrase in a file: its first line. The file may be a symbolic link and may belong to root, as secrets do that
/// a container is given; nobody but its owner may have access to it.
pub(super) fn read_passphrase(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    // Non-blocking, so that a named pipe does not hang the command.
    let opened = OpenOptions::new().read(true).custom_flags(nix::libc::O_CLOEXEC | nix::libc::O_NONBLOCK).open(path);
    let file = opened.map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::InputMissing {
            what: format!("the file {} with a passphrase", path.display()),
            fix:
                "Put it back, or say where that of a vault is now with `ockam vault move VAULT --passphrase-file FILE`."
                    .into(),
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

fn derive_key(passphrase: &[u8], salt: &[u8], costs: Costs) -> Result<Secret, argon2::Error> {
    let params = Params::new(costs.memory_kib, costs.passes, costs.lanes, Some(32))?;
    let mut key = Zeroizing::new([0; 32]);
    // The key follows from the last of the memory.
    let mut memory = Zeroizing::new(vec![Block::default(); params.block_count()]);
    let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    hasher.hash_password_into_with_memory(passphrase, salt, &mut key[..], &mut memory[..])?;
    Ok(Secret::take(&mut key))
}

fn cipher(seal: &Seal) -> Box<Aes256Gcm> {
    Box::new(Aes256Gcm::new(seal.key.expose().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A vector of the reference implementation (`test.c`, Argon2id, version 0x13).
    #[test]
    fn keys_are_derived_as_everywhere() {
        let costs = Costs { memory_kib: 65_536, passes: 2, lanes: 1 };
        let key = derive_key(b"password", b"somesalt", costs).unwrap();
        let want = "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7";
        assert_eq!(crate::text::to_hex(key.expose()), want);
    }
}
