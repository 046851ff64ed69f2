//! Vault files: secret keys, and the only place where they are but for backups.
//!
//! Content of a file as in [`sealed`](super::sealed), 65 bytes for each key: kind 1 (0 Ed25519, 1 X25519) · public 32 ·
//! secret 32.
//!
//! A file is changed by one process at a time. Who wants a key from a vault knows its public half.

use super::sealed::{Format, Put, Seal, lock, read_passphrase, remove_drafts, write_file};
use crate::error::Error;
use ockam_crypto::{PublicKey, Secret, SigningKey, X25519Key};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const KEY_BYTES: usize = 65;

/// How many keys a vault may have.
const KEYS_MAX: usize = 16_384;

/// How many bytes they take.
pub(super) const KEYS_BYTES_MAX: usize = KEYS_MAX * KEY_BYTES;

const FORMAT: Format = Format { magic: b"ockam vault v1\n\0", name: "vault", content_bytes_max: KEYS_BYTES_MAX };

/// Where a vault is and what opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, absolute.
    pub path: PathBuf,
    /// The file that holds the passphrase, absolute; `None` when the keys are in the clear.
    pub passphrase_file: Option<PathBuf>,
    /// What is made of it at this moment, or was to be made of it by a process that was ended: whether it has become that
    /// already, only the file shows.
    pub becomes: Option<Becomes>,
}

impl Place {
    /// A vault that stays as it is.
    pub fn new(path: PathBuf, passphrase_file: Option<PathBuf>) -> Place {
        Place { path, passphrase_file, becomes: None }
    }
}

/// What the change of its passphrase makes of a vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Becomes {
    /// Its keys are in the clear.
    Plain,
    /// It is sealed with the passphrase in this file, absolute.
    Sealed(PathBuf),
}

impl Becomes {
    /// As [`Place::passphrase_file`].
    pub fn passphrase_file(&self) -> Option<&Path> {
        match self {
            Becomes::Plain => None,
            Becomes::Sealed(file) => Some(file),
        }
    }
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

impl Vault {
    /// Makes an empty vault, encrypted if a passphrase file is named.
    ///
    /// # Errors
    /// [`Error::Storage`] with `EEXIST` when there is a file already, and as [`Vault::open`].
    pub fn create(place: &Place) -> Result<(), Error> {
        let seal = place.passphrase_file.as_deref().map(|file| Seal::new(file, &FORMAT, &place.path));
        Vault { keys: Vec::new(), seal: seal.transpose()? }.write(&place.path, Put::New)
    }

    /// Reads a vault.
    ///
    /// # Errors
    /// [`Error::KeyFile`], [`Error::WrongPassphrase`], [`Error::InputMissing`] when a file is gone, or the vault is
    /// encrypted and no passphrase file is named, [`Error::OpenToOthers`], [`Error::NotOurs`], [`Error::WrongKind`],
    /// [`Error::Storage`].
    pub fn open(place: &Place) -> Result<Vault, Error> {
        Vault::from_bytes(&FORMAT.read(&place.path)?, place)
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
        write_file(to, &FORMAT.read(from)?, Put::New)
    }

    /// Encrypts it with the passphrase in another file, or no longer. Any process finds it whole and as one or the other:
    /// `place` says both.
    ///
    /// # Errors
    /// As [`Vault::open`], for both files.
    pub fn reseal(place: &Place, passphrase_file: Option<&Path>) -> Result<(), Error> {
        let seal = passphrase_file.map(|file| Seal::new(file, &FORMAT, &place.path)).transpose()?;
        Vault::update(place, |vault| {
            vault.seal = seal;
            Ok(())
        })
    }

    /// Adds those keys of another one that are not here; `wanted` says which, by their public halves. Says how many.
    ///
    /// # Errors
    /// [`Error::KeyFile`] when it is full.
    pub fn add_missing(
        &mut self,
        other: &Vault,
        wanted: impl Fn(&[u8; 32]) -> bool,
        path: &Path,
    ) -> Result<usize, Error> {
        let before = self.keys.len();
        for key in other.keys.iter().filter(|key| wanted(&key.public)) {
            if self.secret(key.kind, &key.public).is_none() {
                self.add(key.kind, key.public, &key.secret, path)?;
            }
        }
        Ok(self.keys.len() - before)
    }

    /// How many keys it has.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether it has the key of either kind whose public half is `public`.
    pub fn has(&self, public: &[u8; 32]) -> bool {
        self.keys.iter().any(|key| key.public == *public)
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
    /// [`Error::KeyFile`] when it is full.
    pub fn make_signing_key(&mut self, path: &Path) -> Result<SigningKey, Error> {
        let key = SigningKey::new(fresh_secret());
        let PublicKey::Ed25519(public) = key.public() else { unreachable!("made just now") };
        self.add(Kind::Ed25519, public, key.seed(), path)?;
        Ok(key)
    }

    /// Makes an X25519 key.
    ///
    /// # Errors
    /// [`Error::KeyFile`] when it is full.
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
            return Err(FORMAT.damaged(path, format!("it already has {KEYS_MAX} keys")));
        }
        self.keys.push(Key { kind, public, secret: secret_of(secret.expose()) });
        Ok(())
    }

    fn from_bytes(bytes: &[u8], place: &Place) -> Result<Vault, Error> {
        let open = |passphrase_file: Option<&Path>| {
            let (content, seal) = FORMAT.open(bytes, &place.path, passphrase_file)?;
            Vault::from_keys(&content, seal).ok_or_else(|| FORMAT.damaged(&place.path, "it is cut off"))
        };
        let opened = open(place.passphrase_file.as_deref());
        match &place.becomes {
            Some(becomes) if opened.is_err() => open(becomes.passphrase_file()).or(opened),
            _ => opened,
        }
    }

    /// A vault with keys as [`Vault::keys_to_bytes`] gives them.
    pub(super) fn from_keys(keys: &[u8], seal: Option<Seal>) -> Option<Vault> {
        Some(Vault { keys: parse_keys(keys)?, seal })
    }

    /// Its keys: the content of its file.
    pub(super) fn keys_to_bytes(&self) -> Zeroizing<Vec<u8>> {
        // Large enough from the start: growing would leave copies of secrets behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.keys.len() * KEY_BYTES));
        for key in &self.keys {
            bytes.push(key.kind as u8);
            bytes.extend_from_slice(&key.public);
            bytes.extend_from_slice(key.secret.expose());
        }
        bytes
    }

    fn write(&self, path: &Path, put: Put) -> Result<(), Error> {
        write_file(path, &FORMAT.close(&self.keys_to_bytes(), self.seal.as_ref()), put)
    }
}

/// Looks at a file that shall hold the passphrase of a vault.
///
/// # Errors
/// What is wrong with it.
pub fn check_passphrase_file(path: &Path) -> Result<(), Error> {
    read_passphrase(path).map(drop)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sealed::{Costs, PASSPHRASE_BYTES_MAX, SALT_BYTES};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::sync::Mutex;

    fn plain(directory: &tempfile::TempDir) -> Place {
        Place::new(directory.path().join("a.vault"), None)
    }

    fn sealed(directory: &tempfile::TempDir) -> Place {
        let file = directory.path().join("passphrase");
        put(&file, b"correct horse\n", 0o600);
        Place::new(directory.path().join("s.vault"), Some(file))
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
        let seal = FORMAT.derive(&passphrase, [7; SALT_BYTES], CHEAP, &place.path).unwrap();
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
        let link = Place::new(directory.path().join("link"), None);
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
        let downgraded = Place::new(plain(&directory).path, Some(file));
        assert!(matches!(Vault::open(&downgraded), Err(Error::KeyFile { .. })));
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
            assert!(
                matches!(FORMAT.derive(b"x", [0; SALT_BYTES], costs, path), Err(Error::KeyFile { .. })),
                "{costs:?}"
            );
        }
        let directory = tempfile::tempdir().unwrap();
        let place = plain(&directory);
        put(&place.path, &vec![0; FORMAT.content_bytes_max + 1024], 0o600);
        assert!(matches!(Vault::open(&place), Err(Error::KeyFile { .. })));
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
