//! Backups of vaults, and what comes back from them.
//!
//! A backup has the keys of a vault and the identities that they belong to. Restoring it adds what is missing and
//! replaces nothing: what this home learned since stays, first of all that an identity has changed its key.

use super::{Identities, absolute, checked_name, create_vault, find_vault, now, settle};
use crate::error::Error;
use crate::home::Home;
use crate::store::backup::{BackedUp, Backup};
use crate::store::identity::{Purpose, PurposeKeyRow, Tables, VaultRow};
use crate::store::vault::{self, Vault};
use ockam_crypto::{Comparison, Identifier};
use std::path::{Path, PathBuf};

/// What a backup is encrypted with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupSeal {
    /// With the passphrase of the vault, which must have one.
    AsVault,
    /// With the passphrase in this file.
    PassphraseFile(PathBuf),
    /// With nothing: whoever has the file has the keys.
    Plain,
}

/// A backup that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeBackup {
    /// The vault.
    pub vault: VaultRow,
    /// The names of the identities in it.
    pub identities: Vec<String>,
    /// How many keys it has.
    pub keys: usize,
    /// The file that holds its passphrase.
    pub passphrase_file: Option<PathBuf>,
}

/// What a vault is restored as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreAs {
    /// Its name; the one it had when absent.
    pub name: Option<String>,
    /// Its file; one in the home when absent.
    pub path: Option<PathBuf>,
    /// The file with the passphrase to encrypt it; when absent that of the backup, if it was encrypted before.
    pub passphrase_file: Option<PathBuf>,
}

/// A vault that was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The vault.
    pub vault: VaultRow,
    /// When the backup was made, in seconds of Unix time.
    pub made_at: u64,
    /// How many keys were missing.
    pub keys_added: usize,
    /// What became of each identity.
    pub identities: Vec<RestoredIdentity>,
}

/// What became of an identity of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredIdentity {
    /// Its name here.
    pub name: String,
    /// Who it is.
    pub identifier: Identifier,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of an identity of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is ours now, with its key in the restored vault.
    Restored,
    /// It was ours already, and its key is where it was.
    Present,
    /// It has changed its key since the backup was made: that one is worth nothing and was left out.
    Outdated,
}

impl Identities {
    /// Writes a vault, the default one if none is named, and its identities into a file that does not exist yet.
    ///
    /// # Errors
    /// [`Error::NoSuchVault`]; [`Error::InputMissing`] for the passphrase of a vault that has none; [`Error::NameTaken`] for
    /// a file that is there; as [`Vault::open`]; [`Error::Storage`].
    pub fn back_up(&mut self, name: Option<&str>, to: &Path, seal: &BackupSeal) -> Result<MadeBackup, Error> {
        let to = absolute(to)?;
        // While nobody else changes anything: keys and histories belong together.
        let (vault, backup) = self.store.change_identities(|tables| {
            let mut vault = find_vault(tables, name)?;
            let keys = settle(&mut vault.place)?;
            let backup = Backup {
                keys,
                vault: vault.name.clone(),
                was_encrypted: vault.place.passphrase_file.is_some(),
                made_at: now()?,
                identities: identities_of(tables, &vault.name)?,
            };
            Ok((vault, backup))
        })?;
        let passphrase_file = match (seal, &vault.place.passphrase_file) {
            (BackupSeal::Plain, _) => None,
            (BackupSeal::PassphraseFile(file), _) => Some(absolute(file)?),
            (BackupSeal::AsVault, Some(file)) => Some(file.clone()),
            (BackupSeal::AsVault, None) => {
                return Err(Error::InputMissing {
                    what: "the passphrase of the backup".into(),
                    fix:
                        "Name the file that holds it with --passphrase-file, or add --plain to leave the keys readable \
                          for whoever has the backup."
                            .into(),
                });
            }
        };
        backup.write(&to, passphrase_file.as_deref())?;
        let identities = backup.identities.iter().map(|identity| identity.name.clone()).collect();
        Ok(MadeBackup { vault, identities, keys: backup.keys.len(), passphrase_file })
    }

    /// Adds what a backup has and this home has not: the vault, its keys, its identities. `passphrase_file` opens the
    /// backup. Doing it again changes nothing, and completes what was interrupted.
    ///
    /// # Errors
    /// Nothing was changed then: [`Error::KeyFile`] and [`Error::WrongPassphrase`] for the backup or the vault;
    /// [`Error::HistoryRefused`] for an identity that contradicts what is known of it; [`Error::NameTaken`] for the name
    /// of another identity; [`Error::InputMissing`] when the keys of an encrypted vault would come to be in the clear;
    /// [`Error::Storage`].
    pub fn restore(&mut self, from: &Path, passphrase_file: Option<&Path>, to: &RestoreAs) -> Result<Restored, Error> {
        let backup = Backup::read(&absolute(from)?, passphrase_file)?;
        let name = checked_name("the name of a vault", to.name.as_deref().unwrap_or(&backup.vault))?;
        let home = &self.home;
        self.store.change_identities(|tables| {
            // What can be refused is, before any file changes.
            let mut plans = Vec::new();
            for identity in &backup.identities {
                plans.push(plan(tables, identity, &name)?);
            }
            let had_default = tables.default_identity()?.is_some();
            let vault = restored_vault(tables, home, &backup, &name, passphrase_file, to)?;
            let left_out: Vec<[u8; 32]> = backup
                .identities
                .iter()
                .zip(&plans)
                .filter(|(_, plan)| **plan != Outcome::Restored)
                .flat_map(|(identity, _)| identity.publics())
                .collect();
            let keys_added = Vault::update(&vault.place, |vault_keys| {
                vault_keys.add_missing(&backup.keys, |public| !left_out.contains(public), &vault.place.path)
            })?;
            let mut identities = Vec::new();
            for (identity, outcome) in backup.identities.iter().zip(plans) {
                if outcome == Outcome::Restored {
                    put_identity(tables, identity, &vault)?;
                }
                let identifier = identity.history.identifier();
                let known = tables.identity(&identifier)?.and_then(|known| known.name);
                let name = known.unwrap_or_else(|| identity.name.clone());
                identities.push(RestoredIdentity { name, identifier, outcome });
            }
            let default = backup
                .identities
                .iter()
                .zip(&identities)
                .find(|(it, row)| it.is_default && row.outcome == Outcome::Restored);
            if let (false, Some((_, row))) = (had_default, default) {
                tables.set_default_identity(&row.identifier)?;
            }
            Ok(Restored { vault: find_vault(tables, Some(&name))?, made_at: backup.made_at, keys_added, identities })
        })
    }
}

fn identities_of(tables: &Tables, vault: &str) -> Result<Vec<BackedUp>, Error> {
    let mut identities = Vec::new();
    for known in tables.named_identities()? {
        let (Some(name), Some(in_vault)) = (known.name, known.vault) else { continue };
        if in_vault != vault {
            continue;
        }
        let history = tables.history(&known.identifier)?;
        let history = history.ok_or_else(|| Error::internal("an identity went away"))?;
        let purpose_key = |purpose| tables.purpose_key(&known.identifier, purpose);
        let purpose_keys = [purpose_key(Purpose::ALL[0])?, purpose_key(Purpose::ALL[1])?];
        identities.push(BackedUp { name, is_default: known.is_default, history, purpose_keys });
    }
    Ok(identities)
}

/// What shall become of an identity that is restored into the vault of this name.
fn plan(tables: &Tables, identity: &BackedUp, vault: &str) -> Result<Outcome, Error> {
    let identifier = identity.history.identifier();
    let known = tables.identity(&identifier)?;
    let history = tables.history(&identifier)?;
    match history.map(|known| identity.history.compared_to(&known)) {
        None | Some(Comparison::Same | Comparison::Newer) => {}
        Some(Comparison::Older) => return Ok(Outcome::Outdated),
        Some(Comparison::Diverged) => {
            let why = "the one in the backup contradicts the one that is known";
            return Err(Error::HistoryRefused { identifier: identifier.to_string(), why });
        }
    }
    // Its key may be in a vault that was not lost.
    if let Some(elsewhere) = known.as_ref().and_then(|known| known.vault.as_deref()).filter(|other| *other != vault)
        && let Some(row) = tables.vault(elsewhere)?
        && Vault::open(&row.place).is_ok_and(|keys| keys.signing_key(&identity.history.latest().key).is_some())
    {
        return Ok(Outcome::Present);
    }
    if known.is_none_or(|known| known.name.is_none()) {
        let name = checked_name("the name of an identity", &identity.name)?;
        if tables.identity_named(&name)?.is_some() {
            return Err(Error::NameTaken { what: "another identity", name });
        }
    }
    Ok(Outcome::Restored)
}

/// The vault of this name, made if it or its file is not there.
fn restored_vault(
    tables: &Tables,
    home: &Home,
    backup: &Backup,
    name: &str,
    passphrase_file: Option<&Path>,
    to: &RestoreAs,
) -> Result<VaultRow, Error> {
    let in_the_clear = || {
        Error::InputMissing {
        what: "the passphrase of the restored vault, which was encrypted when the backup was made".to_owned(),
        fix: "Name the file that holds it with --vault-passphrase-file; for a vault that exists in the clear give another \
              name with --name."
            .into(),
    }
    };
    let Some(vault) = tables.vault(name)? else {
        let sealed_with = match (&to.passphrase_file, passphrase_file) {
            (Some(file), _) => Some(file.as_path()),
            (None, Some(file)) if backup.was_encrypted => Some(file),
            (None, None) if backup.was_encrypted => return Err(in_the_clear()),
            (None, _) => None,
        };
        return create_vault(tables, home, name, to.path.as_deref(), sealed_with);
    };
    if to.path.is_some() || to.passphrase_file.is_some() {
        return Err(Error::NameTaken { what: "a vault", name: name.into() });
    }
    if backup.was_encrypted && vault.place.passphrase_file.is_none() {
        return Err(in_the_clear());
    }
    if vault::is_gone(&vault.place.path)? {
        Vault::create(&vault.place)?;
    }
    Ok(vault)
}

fn put_identity(tables: &Tables, identity: &BackedUp, vault: &VaultRow) -> Result<(), Error> {
    let identifier = identity.history.identifier();
    let known = tables.identity(&identifier)?;
    if tables.history(&identifier)?.as_ref() != Some(&identity.history) {
        tables.put_history(&identity.history)?;
    }
    if known.as_ref().is_none_or(|known| known.name.is_none()) {
        tables.name_identity(&identifier, &identity.name)?;
    }
    match known.and_then(|known| known.vault) {
        Some(before) if before == vault.name => {}
        Some(_) => tables.move_identity(&identifier, &vault.name)?,
        None => tables.own_identity(&identifier, &vault.name)?,
    }
    for (purpose, key) in identity.each_purpose_key() {
        if !is_there(tables.purpose_key(&identifier, purpose)?, vault)? {
            tables.put_purpose_key(&identifier, purpose, key)?;
        }
    }
    Ok(())
}

/// Whether a purpose key that is stored has its secret, so that nothing needs to take its place.
fn is_there(stored: Option<PurposeKeyRow>, vault: &VaultRow) -> Result<bool, Error> {
    match stored {
        Some(stored) => Ok(Vault::open(&vault.place)?.has(&stored.public)),
        None => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identities::IdentityRow;
    use crate::store::vault::Place;
    use ockam_crypto::{ChangeHistory, Secret, SigningKey, Validity};
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    struct Fixture {
        directory: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Fixture {
            Fixture { directory: tempfile::tempdir().unwrap() }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn home(&self, name: &str) -> Identities {
            Identities::open(&Home::at(self.path(name))).unwrap()
        }

        fn passphrase(&self, name: &str, text: &str) -> PathBuf {
            let file = self.path(name);
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            file
        }
    }

    fn restore(identities: &mut Identities, from: &Path, passphrase_file: Option<&Path>) -> Result<Restored, Error> {
        identities.restore(from, passphrase_file, &RestoreAs::default())
    }

    fn outcomes(restored: &Restored) -> Vec<(&str, Outcome)> {
        restored.identities.iter().map(|it| (it.name.as_str(), it.outcome)).collect()
    }

    /// What a home has, secrets included.
    fn state(identities: &Identities) -> impl PartialEq + std::fmt::Debug + use<> {
        let vaults = identities.vaults().unwrap();
        let files: Vec<Vec<u8>> = vaults.iter().map(|vault| fs::read(&vault.place.path).unwrap_or_default()).collect();
        let rows = identities.list().unwrap();
        let histories: Vec<_> = rows.iter().map(|row| identities.known(&row.identifier).unwrap()).collect();
        (vaults, files, rows, histories)
    }

    fn vault_of(identities: &Identities, name: &str) -> Vault {
        Vault::open(&identities.vault(Some(name)).unwrap().place).unwrap()
    }

    fn time() -> u64 {
        now().unwrap()
    }

    #[test]
    fn a_fresh_home_gets_the_same_identities_with_all_their_keys() {
        let fixture = Fixture::new();
        let mut old = fixture.home("old");
        let [first, second]: [IdentityRow; 2] = ["first", "second"].map(|name| old.create(Some(name), None).unwrap());
        old.set_default("second").unwrap();
        old.rotate(Some("first")).unwrap();
        let channel = old.channel_keys(&first.identifier, time()).unwrap();
        let issuing = old.issuing_keys(&first.identifier, time()).unwrap();
        // In another vault, which is not asked for.
        old.create_vault(Some("other"), None, None).unwrap();
        old.create(Some("third"), Some("other")).unwrap();
        let to = fixture.path("backup");
        let passphrase = fixture.passphrase("passphrase", "correct horse");
        let made = old.back_up(None, &to, &BackupSeal::PassphraseFile(passphrase.clone())).unwrap();
        assert_eq!((made.identities, made.keys), (vec!["first".to_owned(), "second".to_owned()], 4));
        assert_eq!(fs::metadata(&to).unwrap().mode() & 0o7777, 0o600);

        let mut new = fixture.home("new");
        let restored = restore(&mut new, &to, Some(&passphrase)).unwrap();
        assert_eq!(outcomes(&restored), [("first", Outcome::Restored), ("second", Outcome::Restored)]);
        // It was not encrypted, and is not now.
        assert_eq!((restored.keys_added, restored.vault.place.passphrase_file), (4, None));
        assert_eq!(new.named(None).unwrap().identifier, second.identifier);
        let got = new.channel_keys(&first.identifier, time()).unwrap();
        assert_eq!((got.history, &got.attestation), (channel.history, &channel.attestation));
        assert_eq!(got.static_key.secret().expose(), channel.static_key.secret().expose());
        let got = new.issuing_keys(&first.identifier, time()).unwrap();
        assert_eq!(got.issuer.attestation(), issuing.issuer.attestation());
        new.channel_keys(&second.identifier, time()).unwrap();
        new.rotate(Some("second")).unwrap();
        // Again it changes nothing, and what came since stays.
        let before = state(&new);
        let again = restore(&mut new, &to, Some(&passphrase)).unwrap();
        assert_eq!(outcomes(&again), [("first", Outcome::Restored), ("second", Outcome::Outdated)]);
        assert_eq!(again.keys_added, 0);
        assert_eq!(state(&new), before);
        assert_eq!(new.known(&second.identifier).unwrap().unwrap().changes().len(), 2);
    }

    #[test]
    fn a_lost_vault_comes_back_into_its_home() {
        let fixture = Fixture::new();
        let mut home = fixture.home("home");
        let alice = home.create(Some("alice"), None).unwrap();
        let keys = home.channel_keys(&alice.identifier, time()).unwrap();
        let to = fixture.path("backup");
        home.back_up(None, &to, &BackupSeal::Plain).unwrap();
        let place = home.vault(None).unwrap().place;
        fs::remove_file(&place.path).unwrap();
        assert!(matches!(home.channel_keys(&alice.identifier, time()), Err(Error::InputMissing { .. })));
        let restored = restore(&mut home, &to, None).unwrap();
        assert_eq!((restored.keys_added, outcomes(&restored)), (2, vec![("alice", Outcome::Restored)]));
        assert_eq!(home.channel_keys(&alice.identifier, time()).unwrap().attestation, keys.attestation);
        assert!(home.named(None).unwrap().is_default);
        // One that cannot be read is not touched.
        fs::write(&place.path, "x").unwrap();
        assert!(matches!(restore(&mut home, &to, None), Err(Error::KeyFile { what: "vault", .. })));
        assert_eq!(fs::read(&place.path).unwrap(), b"x");
        // Under another name it is another vault, and the identity moves there, since its key is lost where it was.
        let other = RestoreAs { name: Some("saved".into()), ..RestoreAs::default() };
        let restored = home.restore(&to, None, &other).unwrap();
        assert_eq!(outcomes(&restored), [("alice", Outcome::Restored)]);
        let row = home.named(None).unwrap();
        assert_eq!((row.vault.as_str(), row.is_default), ("saved", true));
        assert_eq!(home.channel_keys(&alice.identifier, time()).unwrap().attestation, keys.attestation);
    }

    /// The identity lives on where its key is, and the restored vault does not get a second copy of it.
    #[test]
    fn what_is_here_stays_where_it_is() {
        let fixture = Fixture::new();
        let mut home = fixture.home("home");
        home.create(Some("alice"), None).unwrap();
        let to = fixture.path("backup");
        home.back_up(None, &to, &BackupSeal::Plain).unwrap();
        let other = RestoreAs { name: Some("copy".into()), ..RestoreAs::default() };
        let restored = home.restore(&to, None, &other).unwrap();
        assert_eq!((outcomes(&restored), restored.keys_added), (vec![("alice", Outcome::Present)], 0));
        assert_eq!(home.named(None).unwrap().vault, "default");
        assert!(vault_of(&home, "copy").is_empty());
    }

    /// Neither the history nor a key that the identity had before comes back.
    #[test]
    fn a_backup_does_not_undo_a_rotation() {
        let fixture = Fixture::new();
        let (mut ours, mut theirs) = (fixture.home("ours"), fixture.home("theirs"));
        let alice = ours.create(Some("alice"), None).unwrap();
        ours.create(Some("bob"), None).unwrap();
        let old = ours.channel_keys(&alice.identifier, time()).unwrap();
        ours.issuing_keys(&alice.identifier, time()).unwrap();
        let to = fixture.path("backup");
        ours.back_up(None, &to, &BackupSeal::Plain).unwrap();
        let (_, history) = ours.rotate(Some("alice")).unwrap();
        let before = vault_of(&ours, "default").len();
        let restored = restore(&mut ours, &to, None).unwrap();
        assert_eq!(outcomes(&restored), [("alice", Outcome::Outdated), ("bob", Outcome::Restored)]);
        assert_eq!((restored.keys_added, vault_of(&ours, "default").len()), (0, before));
        assert_eq!(ours.known(&alice.identifier).unwrap(), Some(history.clone()));
        assert_eq!(ours.channel_keys(&alice.identifier, time()).unwrap().history, history);
        // Nor where the identity is known as somebody else's.
        theirs.import(&history, Some("alice"), None).unwrap();
        let restored = restore(&mut theirs, &to, None).unwrap();
        assert_eq!(outcomes(&restored), [("alice", Outcome::Outdated), ("bob", Outcome::Restored)]);
        let keys = vault_of(&theirs, "default");
        assert!(!keys.has(old.static_key.public()) && keys.signing_key(&old.history.latest().key).is_none());
        assert_eq!((restored.keys_added, keys.len()), (1, 1));
        assert!(matches!(theirs.named(Some("alice")), Err(Error::NoSuchIdentity { .. })));
    }

    /// It knows less than the backup: the longer history is a continuation.
    #[test]
    fn a_home_that_knows_less_learns_what_the_backup_knows() {
        let fixture = Fixture::new();
        let (mut ours, mut theirs) = (fixture.home("ours"), fixture.home("theirs"));
        let alice = ours.create(Some("alice"), None).unwrap();
        theirs.import(&ours.known(&alice.identifier).unwrap().unwrap(), Some("friend"), None).unwrap();
        let (_, history) = ours.rotate(None).unwrap();
        let to = fixture.path("backup");
        ours.back_up(None, &to, &BackupSeal::Plain).unwrap();
        let restored = restore(&mut theirs, &to, None).unwrap();
        // It keeps the name that it has here.
        assert_eq!(outcomes(&restored), [("friend", Outcome::Restored)]);
        assert_eq!(theirs.known(&alice.identifier).unwrap(), Some(history));
        theirs.channel_keys(&alice.identifier, time()).unwrap();
    }

    #[test]
    fn what_is_refused_changes_nothing() {
        let fixture = Fixture::new();
        let mut old = fixture.home("old");
        let passphrase = fixture.passphrase("passphrase", "correct horse");
        old.create_vault(None, None, Some(&passphrase)).unwrap();
        let alice = old.create(Some("alice"), None).unwrap();
        let before = state(&old);
        // An encrypted vault makes an encrypted backup.
        let to = fixture.path("backup");
        let made = old.back_up(None, &to, &BackupSeal::AsVault).unwrap();
        assert_eq!(made.passphrase_file, Some(passphrase.clone()));
        let taken = old.back_up(None, &to, &BackupSeal::AsVault).unwrap_err();
        assert!(matches!(&taken, Error::NameTaken { what: "a file", .. }) && taken.exit() == 73, "{taken}");
        let plain = fixture.path("plain");
        old.back_up(None, &plain, &BackupSeal::Plain).unwrap();
        let key = vault_of(&old, "default").signing_key(&old.known(&alice.identifier).unwrap().unwrap().latest().key);
        let seed = *key.unwrap().seed().expose();
        let shows = |path: &Path| fs::read(path).unwrap().windows(32).any(|window| window == seed);
        assert!(shows(&plain) && !shows(&to));
        assert_eq!(state(&old), before);

        let mut new = fixture.home("new");
        let empty = state(&new);
        let wrong = fixture.passphrase("wrong", "x");
        let refused = restore(&mut new, &to, Some(&wrong)).unwrap_err();
        assert!(matches!(&refused, Error::WrongPassphrase { what: "backup", .. }) && refused.exit() == 77, "{refused}");
        assert!(matches!(restore(&mut new, &to, None), Err(Error::InputMissing { .. })));
        // Keys that were encrypted do not come to be in the clear by themselves.
        let bare = restore(&mut new, &plain, None).unwrap_err();
        assert!(
            matches!(&bare, Error::InputMissing { .. }) && bare.hint().contains("--vault-passphrase-file"),
            "{bare}"
        );
        // Nor from a vault, or anything else.
        let vault = old.vault(None).unwrap().place.path;
        assert!(matches!(restore(&mut new, &vault, Some(&passphrase)), Err(Error::KeyFile { what: "backup", .. })));
        fs::set_permissions(&to, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(restore(&mut new, &to, Some(&passphrase)), Err(Error::OpenToOthers { .. })));
        fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(restore(&mut new, &fixture.path("none"), None), Err(Error::InputMissing { .. })));
        assert_eq!(state(&new), empty);
        // Somebody else's name is not taken away.
        let other = SigningKey::new(Secret::new([1; 32]));
        let validity = Validity { from: 1, until: u64::MAX };
        let stranger = ChangeHistory::create(&other, validity).unwrap();
        new.import(&stranger, Some("alice"), None).unwrap();
        let with_name = state(&new);
        assert!(matches!(restore(&mut new, &to, Some(&passphrase)), Err(Error::NameTaken { .. })));
        assert_eq!(state(&new), with_name);
        // A history that contradicts what is known comes from a stolen key.
        let mut third = fixture.home("third");
        let history = old.known(&alice.identifier).unwrap().unwrap();
        let rotate_to = |byte| {
            let key = vault_of(&old, "default").signing_key(&history.latest().key).unwrap();
            let new = SigningKey::new(Secret::new([byte; 32]));
            history.rotate(&key, &new, Validity { from: time(), until: u64::MAX }).unwrap()
        };
        third.remember(&rotate_to(7)).unwrap();
        old.rotate(None).unwrap();
        let later = fixture.path("later");
        old.back_up(None, &later, &BackupSeal::AsVault).unwrap();
        let known = state(&third);
        assert!(matches!(restore(&mut third, &later, Some(&passphrase)), Err(Error::HistoryRefused { .. })));
        assert_eq!(state(&third), known);
        assert!(!fixture.path("third").join("vaults").join("default").exists());
        // And after all that it works.
        let other = RestoreAs { passphrase_file: Some(wrong.clone()), ..RestoreAs::default() };
        let mut fourth = fixture.home("fourth");
        let restored = fourth.restore(&to, Some(&passphrase), &other).unwrap();
        assert_eq!(restored.vault.place.passphrase_file, Some(wrong));
        fourth.channel_keys(&alice.identifier, time()).unwrap();
    }

    #[test]
    fn a_backup_that_was_cut_off_or_changed_is_refused() {
        let fixture = Fixture::new();
        let mut old = fixture.home("old");
        old.create(Some("alice"), None).unwrap();
        let passphrase = fixture.passphrase("passphrase", "correct horse");
        let (plain, sealed) = (fixture.path("plain"), fixture.path("sealed"));
        old.back_up(None, &plain, &BackupSeal::Plain).unwrap();
        old.back_up(None, &sealed, &BackupSeal::PassphraseFile(passphrase.clone())).unwrap();
        let mut new = fixture.home("new");
        let good = fs::read(&plain).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&plain, &bad).unwrap();
            assert!(Backup::read(&plain, None).is_err(), "byte {at} flipped");
            fs::write(&plain, &good[..at]).unwrap();
            assert!(Backup::read(&plain, None).is_err(), "cut off after {at}");
        }
        let good = fs::read(&sealed).unwrap();
        // What it is, its costs, its salt, the nonce, the keys, the identities, the tag: each costs a derivation.
        for at in [0, 16, 17, 36, 45, 50, 61, 65, 150, good.len() - 17, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&sealed, &bad).unwrap();
            assert!(restore(&mut new, &sealed, Some(&passphrase)).is_err(), "byte {at} flipped");
        }
        assert!(new.list().unwrap().is_empty() && new.vaults().unwrap().is_empty());
        fs::write(&sealed, &good).unwrap();
        restore(&mut new, &sealed, Some(&passphrase)).unwrap();
    }

    #[test]
    fn passphrases_change_and_the_keys_stay() {
        let fixture = Fixture::new();
        let mut home = fixture.home("home");
        let alice = home.create(Some("alice"), None).unwrap();
        let keys = home.channel_keys(&alice.identifier, time()).unwrap();
        let [one, two] = ["one", "two"].map(|text| fixture.passphrase(text, text));
        let path = home.vault(None).unwrap().place.path;
        for (before, after) in [(None, Some(&one)), (Some(&one), Some(&two)), (Some(&two), None)] {
            let changed = home.change_passphrase(None, after.map(PathBuf::as_path)).unwrap();
            assert_eq!(changed.place, Place::new(path.clone(), after.cloned()));
            assert_eq!(home.vault(None).unwrap().place, changed.place);
            assert_eq!(home.channel_keys(&alice.identifier, time()).unwrap().attestation, keys.attestation);
            assert!(Vault::open(&Place::new(path.clone(), before.cloned())).is_err());
        }
        // One that cannot be the passphrase is refused before anything changes.
        let empty = fixture.passphrase("empty", "");
        let before = state(&home);
        assert!(matches!(home.change_passphrase(None, Some(&empty)), Err(Error::BadData { .. })));
        assert!(matches!(home.change_passphrase(None, Some(&fixture.path("no"))), Err(Error::InputMissing { .. })));
        assert!(matches!(home.change_passphrase(Some("no"), Some(&one)), Err(Error::NoSuchVault { .. })));
        assert_eq!(state(&home), before);
    }

    /// As a process leaves it that was ended before or after the file was replaced: whoever needs a key gets it, and the
    /// next change begins from what the file is.
    #[test]
    fn a_change_of_passphrase_that_was_interrupted_locks_nobody_out() {
        let fixture = Fixture::new();
        let files = ["one", "two", "three"].map(|text| fixture.passphrase(text, text));
        let [one, two, three] = files.each_ref().map(|file| Some(file.as_path()));
        for (index, (before, after)) in [(None, one), (one, two), (two, None)].into_iter().enumerate() {
            for replaced in [false, true] {
                let mut home = fixture.home(&format!("home{index}{replaced}"));
                home.create_vault(None, None, before).unwrap();
                let alice = home.create(Some("alice"), None).unwrap();
                let keys = home.channel_keys(&alice.identifier, time()).unwrap();
                let path = home.vault(None).unwrap().place.path;
                let mut place = Place::new(path.clone(), before.map(Path::to_owned));
                place.becomes = Some(match after {
                    Some(file) => crate::store::vault::Becomes::Sealed(file.to_owned()),
                    None => crate::store::vault::Becomes::Plain,
                });
                home.store.change_identities(|tables| tables.place_vault("default", &place)).unwrap();
                if replaced {
                    Vault::reseal(&place, after).unwrap();
                }
                assert_eq!(home.channel_keys(&alice.identifier, time()).unwrap().attestation, keys.attestation);
                // What changes the vault leaves it as it is.
                home.rotate(None).unwrap();
                let keys = home.channel_keys(&alice.identifier, time()).unwrap();
                home.back_up(None, &fixture.path(&format!("backup{index}{replaced}")), &BackupSeal::Plain).unwrap();
                assert_eq!(
                    home.change_passphrase(None, three).unwrap().place,
                    Place::new(path, three.map(Path::to_owned))
                );
                assert_eq!(home.channel_keys(&alice.identifier, time()).unwrap().attestation, keys.attestation);
            }
        }
    }
}
