//! Vaults and identities of a home: made, found, rotated and deleted; and what is known of other people's.
//!
//! `ockam.db` says what there is, vault files hold the secret keys ([`crate::store::vault`]). What changes both happens
//! inside one transaction of the database, so that no other process is in between: first the key is in its vault, then
//! the database speaks of it; first it is no longer spoken of, then it is gone.
//!
//! Everything here blocks, on the disk and for an encrypted vault on the derivation of its key (a tenth of a second).

use crate::error::Error;
use crate::home::{Home, NodeName};
use crate::store::SharedStore;
use crate::store::identity::{Purpose, PurposeKeyRow, Tables};
use crate::store::vault::{self, Becomes, Place, Vault};
use ockam_crypto::{
    Attestation, ChangeHistory, Comparison, Identifier, Issuer, KEY_LIFETIME_SECS, PURPOSE_KEY_LIFETIME_SECS,
    PublicKey, PurposePublicKey, SigningKey, Validity, X25519Key,
};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

mod backup;

pub use crate::store::identity::{KnownIdentity, VaultRow};
pub use backup::{BackupSeal, MadeBackup, Outcome, RestoreAs, Restored, RestoredIdentity};

/// The name of the vault that is made when one is needed and there is none.
pub const DEFAULT_VAULT: &str = "default";

/// How long before its end a key for channels is replaced, in seconds: thirty days.
const RENEW_BEFORE_SECS: u64 = 30 * 86_400;

/// How long before its end a key for credentials is replaced, in seconds: a year, because no credential may outlive the
/// key that signed it.
pub(crate) const RENEW_ISSUING_BEFORE_SECS: u64 = 365 * 86_400;

/// The vaults and identities of a home.
#[derive(Debug)]
pub struct Identities {
    home: Home,
    store: SharedStore,
}

/// An identity of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityRow {
    /// Its name.
    pub name: String,
    /// Its identifier.
    pub identifier: Identifier,
    /// The vault with its key.
    pub vault: String,
    /// Whether commands mean it when they name none.
    pub is_default: bool,
}

/// What an end of a secure channel needs to say who it is.
#[derive(Debug)]
pub struct ChannelKeys {
    /// The identity.
    pub history: ChangeHistory,
    /// Its word that `static_key` is its own.
    pub attestation: Attestation,
    /// The static key of the handshake.
    pub static_key: X25519Key,
    /// The last second for which the attestation holds, in Unix time.
    pub expires_at: u64,
}

/// What an identity of ours needs to issue credentials.
#[derive(Debug)]
pub struct IssuingKeys {
    /// The identity.
    pub history: ChangeHistory,
    /// The key, with the identity's word for it.
    pub issuer: Issuer,
    /// The last second for which the attestation holds, in Unix time, and so the last one of what is issued now.
    pub expires_at: u64,
}

/// What became of a vault that was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletedVault {
    /// The vault as it was.
    pub vault: VaultRow,
    /// Why its file is still there, if it is: as the end of a sentence that begins with the file.
    pub file_left: Option<String>,
}

impl Identities {
    /// Those of a home, which is made if it does not exist.
    ///
    /// # Errors
    /// As [`Home::prepare`] and [`SharedStore::open`].
    pub fn open(home: &Home) -> Result<Identities, Error> {
        home.prepare()?;
        Ok(Identities { home: home.clone(), store: SharedStore::open(home)? })
    }

    /// Those of a home; `None` when it has no database, so that there are none.
    ///
    /// # Errors
    /// As [`SharedStore::open_existing`].
    pub fn open_existing(home: &Home) -> Result<Option<Identities>, Error> {
        Ok(SharedStore::open_existing(home)?.map(|store| Identities { home: home.clone(), store }))
    }

    // ---- vaults

    /// All vaults, by name.
    ///
    /// # Errors
    /// Those of the database; so for all below.
    pub fn vaults(&self) -> Result<Vec<VaultRow>, Error> {
        self.store.identities().vaults()
    }

    /// The vault of this name, or the default one.
    ///
    /// # Errors
    /// [`Error::NoSuchVault`].
    pub fn vault(&self, name: Option<&str>) -> Result<VaultRow, Error> {
        find_vault(&self.store.identities(), name)
    }

    /// Makes a vault, or takes up the one that is in this place already. Without a path its file is in the home; with a
    /// passphrase file it is encrypted. Both are remembered, the passphrase is not.
    ///
    /// # Errors
    /// [`Error::NameTaken`], [`Error::BadArgument`], and as [`Vault::create`] and [`Vault::open`].
    pub fn create_vault(
        &mut self,
        name: Option<&str>,
        path: Option<&Path>,
        passphrase_file: Option<&Path>,
    ) -> Result<VaultRow, Error> {
        let home = &self.home;
        self.store.change_identities(|tables| {
            let name = match name {
                Some(name) => checked_name("the name of a vault", name)?,
                None if tables.vault(DEFAULT_VAULT)?.is_none() => DEFAULT_VAULT.to_owned(),
                None => unused_name(|name| Ok(tables.vault(name)?.is_some()))?,
            };
            create_vault(tables, home, &name, path, passphrase_file)
        })
    }

    /// Moves the file of a vault, or says where its passphrase is from now on, or both.
    ///
    /// # Errors
    /// [`Error::NoSuchVault`], [`Error::Storage`], and as [`Vault::open`] for a passphrase file that moved.
    pub fn move_vault(
        &mut self,
        name: &str,
        path: Option<&Path>,
        passphrase_file: Option<&Path>,
    ) -> Result<VaultRow, Error> {
        let mut copied = None;
        let moved = self.store.change_identities(|tables| {
            let old = find_vault(tables, Some(name))?;
            let mut new = old.clone();
            if let Some(file) = passphrase_file {
                new.place = Place::new(new.place.path, Some(absolute(file)?));
                Vault::open(&new.place)?;
            }
            // Where it lies already, nothing is to be moved.
            if let Some(path) = path.map(absolute).transpose()?.filter(|path| *path != old.place.path) {
                new.place.path = path;
                free_place(tables, &new.place.path)?;
                Vault::copy(&old.place.path, &new.place.path)?;
                copied = Some(new.place.path.clone());
            }
            tables.place_vault(name, &new.place)?;
            Ok((old, new))
        });
        if moved.is_err()
            && let Some(copied) = copied
        {
            remove_file(&copied)?;
        }
        let (old, new) = moved?;
        if old.place.path != new.place.path {
            remove_file(&old.place.path)?;
        }
        Ok(new)
    }

    /// Encrypts a vault with the passphrase in another file from now on, or no longer. Whoever is ended in the middle of
    /// it leaves a vault that opens; a node that runs keeps its keys in memory and does not notice.
    ///
    /// # Errors
    /// [`Error::NoSuchVault`], and as [`Vault::open`], for the new file, too.
    pub fn change_passphrase(&mut self, name: Option<&str>, passphrase_file: Option<&Path>) -> Result<VaultRow, Error> {
        let becomes = match passphrase_file {
            Some(file) => Becomes::Sealed(absolute(file)?),
            None => Becomes::Plain,
        };
        becomes.passphrase_file().map_or(Ok(()), vault::check_passphrase_file)?;
        loop {
            // First the vault may be either, then it is the other one, then it must be.
            let name = self.store.change_identities(|tables| {
                let mut vault = find_vault(tables, name)?;
                settle(&mut vault.place)?;
                vault.place.becomes = Some(becomes.clone());
                tables.place_vault(&vault.name, &vault.place)?;
                Ok(vault.name)
            })?;
            let changed = self.store.change_identities(|tables| {
                let mut vault = find_vault(tables, Some(&name))?;
                if vault.place.becomes.as_ref() != Some(&becomes) {
                    return Ok(None);
                }
                Vault::reseal(&vault.place, becomes.passphrase_file())?;
                vault.place = Place::new(vault.place.path, becomes.passphrase_file().map(Path::to_owned));
                tables.place_vault(&name, &vault.place)?;
                Ok(Some(vault))
            })?;
            // Another process wants another passphrase at the same moment, and this one comes after it.
            if let Some(changed) = changed {
                return Ok(changed);
            }
        }
    }

    /// Forgets a vault that no identity uses. Its file is removed when no key is in it: keys that are not ours may be
    /// those of another home.
    ///
    /// # Errors
    /// [`Error::NoSuchVault`], [`Error::InUse`], [`Error::Storage`].
    pub fn delete_vault(&mut self, name: &str) -> Result<DeletedVault, Error> {
        let deleted = self.store.change_identities(|tables| {
            let vault = find_vault(tables, Some(name))?;
            if let Some(identity) = tables.user_of_vault(name)? {
                let by = format!("the identity {identity:?}");
                return Err(Error::InUse { what: "vault", name: name.into(), by });
            }
            tables.remove_vault(name)?;
            let file_left = match Vault::open(&vault.place) {
                _ if vault::is_gone(&vault.place.path)? => None,
                Ok(opened) if opened.is_empty() => None,
                Ok(opened) => Some(format!("holds {} keys of identities that this home does not have", opened.len())),
                Err(error) => Some(format!("may hold keys: {error}")),
            };
            Ok(DeletedVault { vault, file_left })
        })?;
        if deleted.file_left.is_none() {
            remove_file(&deleted.vault.place.path)?;
        }
        Ok(deleted)
    }

    // ---- identities

    /// All identities that have a name, ours and others', by name.
    pub fn list(&self) -> Result<Vec<KnownIdentity>, Error> {
        self.store.identities().named_identities()
    }

    /// The identity of ours with this name or identifier, or the default one.
    ///
    /// # Errors
    /// [`Error::NoSuchIdentity`], [`Error::NoIdentities`].
    pub fn named(&self, name: Option<&str>) -> Result<IdentityRow, Error> {
        let tables = self.store.identities();
        let found = find(&tables, name)?;
        own(found).map_or_else(|found| Err(no_such_identity(&tables, found.name.as_deref().unwrap_or_default())), Ok)
    }

    /// The identity with this name or identifier, ours or somebody else's, or our default one.
    ///
    /// # Errors
    /// As [`Identities::named`].
    pub fn find(&self, name: Option<&str>) -> Result<KnownIdentity, Error> {
        find(&self.store.identities(), name)
    }

    /// As [`Identities::named`], but one that does not exist is made, with the default vault if there is none.
    ///
    /// # Errors
    /// As [`Identities::create`].
    pub fn named_or_created(&mut self, name: Option<&str>) -> Result<IdentityRow, Error> {
        match self.named(name) {
            Err(Error::NoIdentities | Error::NoSuchIdentity { .. }) => {}
            found => return found,
        }
        let home = &self.home;
        let created = self.store.change_identities(|tables| match find(tables, name) {
            // Another process was faster.
            Ok(_) => Ok(None),
            Err(Error::NoIdentities | Error::NoSuchIdentity { .. }) => {
                create(tables, home, name, None, now()?).map(Some)
            }
            Err(error) => Err(error),
        })?;
        created.map_or_else(|| self.named(name), Ok)
    }

    /// Makes an identity whose key is in a vault, the default one if none is named. Without a name it gets two random
    /// words.
    ///
    /// # Errors
    /// [`Error::NameTaken`], [`Error::BadArgument`], [`Error::NoSuchVault`], and as [`Vault::update`].
    pub fn create(&mut self, name: Option<&str>, vault: Option<&str>) -> Result<IdentityRow, Error> {
        let home = &self.home;
        self.store.change_identities(|tables| create(tables, home, name, vault, now()?))
    }

    /// Takes in a history: somebody else's, or with a vault that holds its latest key one of ours. A name is given to
    /// it if one is asked for.
    ///
    /// # Errors
    /// [`Error::HistoryRefused`] as [`Identities::remember`], [`Error::NameTaken`], [`Error::NoSuchVault`],
    /// [`Error::IdentityUnusable`] when the vault has not the key.
    pub fn import(
        &mut self,
        history: &ChangeHistory,
        name: Option<&str>,
        in_vault: Option<&str>,
    ) -> Result<KnownIdentity, Error> {
        self.store.change_identities(|tables| {
            let identifier = history.identifier();
            remember(tables, history)?;
            let known = tables.identity(&identifier)?.ok_or_else(|| Error::internal("an identity went away"))?;
            let name = match (name, in_vault, &known.name) {
                (Some(name), _, _) => {
                    let name = checked_name("the name of an identity", name)?;
                    match tables.identity_named(&name)? {
                        Some(other) if other.identifier != identifier => {
                            return Err(Error::NameTaken { what: "an identity", name });
                        }
                        _ => Some(name),
                    }
                }
                (None, Some(_), None) => Some(unused_name(|name| Ok(tables.identity_named(name)?.is_some()))?),
                (None, ..) => None,
            };
            if let Some(name) = &name {
                tables.name_identity(&identifier, name)?;
            }
            if let Some(in_vault) = in_vault {
                let vault = find_vault(tables, Some(in_vault))?;
                if Vault::open(&vault.place)?.signing_key(&history.latest().key).is_none() {
                    return Err(Error::IdentityUnusable {
                        identity: identifier.to_string(),
                        why: format!("its key is not in the vault {in_vault:?}"),
                        fix: "Name the vault that has it, or none for an identity of somebody else.".into(),
                    });
                }
                tables.own_identity(&identifier, in_vault)?;
            }
            tables.identity(&identifier)?.ok_or_else(|| Error::internal("an identity went away"))
        })
    }

    /// Gives an identity of ours a new key, signed by the old one, which is forgotten. Its purpose keys end with it and
    /// are made anew: what it issued with the old one is refused by whoever knows its new key.
    ///
    /// # Errors
    /// As [`Identities::named`]; [`Error::IdentityUnusable`] when the old key is gone or may no longer sign.
    pub fn rotate(&mut self, name: Option<&str>) -> Result<(IdentityRow, ChangeHistory), Error> {
        self.rotate_at(name, now()?)
    }

    fn rotate_at(&mut self, name: Option<&str>, now: u64) -> Result<(IdentityRow, ChangeHistory), Error> {
        let row = self.named(name)?;
        let (old, new) = self.store.change_identities(|tables| {
            let place = find_vault(tables, Some(&row.vault))?.place;
            let old = own_history(tables, &row)?;
            let new = Vault::update(&place, |vault| {
                let old_key = vault.signing_key(&old.latest().key).ok_or_else(|| key_is_gone(&row))?;
                let new_key = vault.make_signing_key(&place.path)?;
                old.rotate(&old_key, &new_key, validity(now)).map_err(|error| unusable(&row, error))
            })?;
            tables.put_history(&new)?;
            // What the old key vouched for is worth nothing to those who know the new one.
            make_channel_keys(tables, &row, &new, &place, now)?;
            if tables.purpose_key(&row.identifier, Purpose::Issuing)?.is_some() {
                make_issuing_keys(tables, &row, &new, &place, now)?;
            }
            Ok((old, new))
        })?;
        let olds: Vec<_> = old.changes().iter().filter_map(|change| bytes(&change.key)).collect();
        self.store.change_identities(|tables| {
            Vault::update(&find_vault(tables, Some(&row.vault))?.place, |vault| {
                vault.remove(&olds);
                Ok(())
            })
        })?;
        Ok((row, new))
    }

    /// Makes an identity of ours the default.
    ///
    /// # Errors
    /// As [`Identities::named`].
    pub fn set_default(&mut self, name: &str) -> Result<IdentityRow, Error> {
        let row = self.named(Some(name))?;
        self.store.change_identities(|tables| tables.set_default_identity(&row.identifier))?;
        Ok(IdentityRow { is_default: true, ..row })
    }

    /// Forgets an identity, and the keys of one of ours.
    ///
    /// # Errors
    /// [`Error::InUse`] by a node; as [`Identities::find`] and [`Vault::update`]. That the vault's file is gone is none.
    pub fn delete(&mut self, name: Option<&str>) -> Result<KnownIdentity, Error> {
        self.store.change_identities(|tables| {
            let found = find(tables, name)?;
            if let Some(node) = tables.node_of_identity(&found.identifier)? {
                let name = found.name.clone().unwrap_or_else(|| found.identifier.to_string());
                return Err(Error::InUse { what: "identity", name, by: format!("the node {node:?}") });
            }
            if let Some(vault_name) = &found.vault {
                let mut publics = Vec::new();
                for purpose in Purpose::ALL {
                    publics.extend(tables.purpose_key(&found.identifier, purpose)?.map(|key| key.public));
                }
                let history = tables.history(&found.identifier)?;
                publics.extend(history.iter().flat_map(ChangeHistory::changes).filter_map(|change| bytes(&change.key)));
                let place = find_vault(tables, Some(vault_name))?.place;
                if !vault::is_gone(&place.path)? {
                    Vault::update(&place, |vault| {
                        vault.remove(&publics);
                        Ok(())
                    })?;
                }
            }
            tables.remove_identity(&found.identifier)?;
            Ok(found)
        })
    }

    /// What is known of an identity.
    pub fn known(&self, identifier: &Identifier) -> Result<Option<ChangeHistory>, Error> {
        self.store.identities().history(identifier)
    }

    /// Whether exactly this is known of an identity: costs less than to read and verify what is.
    pub fn is_known(&self, history: &ChangeHistory) -> Result<bool, Error> {
        self.store.identities().has_history(history)
    }

    /// A number that is another one as soon as another process, or another [`Identities`], has changed anything: who
    /// keeps what it read asks this before it relies on it. Costs microseconds. Numbers of two [`Identities`] say nothing
    /// about each other.
    pub fn generation(&self) -> Result<u32, Error> {
        self.store.identities().generation()
    }

    /// Stores what was learned of an identity (`wire.md` C.3): a history that is known changes nothing, a longer one
    /// replaces it.
    ///
    /// # Errors
    /// [`Error::HistoryRefused`] for one that is older than the one that is known, or contradicts it.
    pub fn remember(&mut self, history: &ChangeHistory) -> Result<(), Error> {
        if history.changes().len() > 1 {
            return self.store.change_identities(|tables| remember(tables, history));
        }
        // Of an identity with one key the identifier alone says as much as the history, and anybody can make up new ones
        // as fast as they can shake hands: the disk is not waited for.
        self.store.note_identities(|tables| remember(tables, history))
    }

    /// Stores several in one transaction, without waiting for the disk, as [`Identities::remember`] does with one that has
    /// one key. Those that it would refuse are left out.
    pub fn remember_strangers(&mut self, histories: &[ChangeHistory]) -> Result<(), Error> {
        self.store.note_identities(|tables| {
            histories.iter().try_for_each(|history| match remember(tables, history) {
                Err(Error::HistoryRefused { .. }) => Ok(()),
                remembered => remembered,
            })
        })
    }

    /// The static key for secure channels of an identity of ours, and what proves it. It is made on first use, and anew
    /// when the identity's key has changed or it is near its end. `now` is in seconds of Unix time.
    ///
    /// # Errors
    /// As [`Identities::named`] and [`Vault::open`]; [`Error::IdentityUnusable`] when the identity's key is gone,
    /// expired, or not valid yet.
    pub fn channel_keys(&mut self, identifier: &Identifier, now: u64) -> Result<ChannelKeys, Error> {
        self.purpose_keys(identifier, now, stored_channel_keys, make_channel_keys)
    }

    /// The key with which an identity of ours signs credentials and revocation lists, and what proves it. It is made on
    /// first use, and anew when the identity's key has changed or a year before its end: what an older one signed stays
    /// valid, since it carries its own proof. `now` is in seconds of Unix time.
    ///
    /// # Errors
    /// As [`Identities::channel_keys`].
    pub fn issuing_keys(&mut self, identifier: &Identifier, now: u64) -> Result<IssuingKeys, Error> {
        self.purpose_keys(identifier, now, stored_issuing_keys, make_issuing_keys)
    }

    fn purpose_keys<T>(
        &mut self,
        identifier: &Identifier,
        now: u64,
        stored: impl Fn(&Tables, &IdentityRow, u64) -> Result<Option<T>, Error>,
        make: impl FnOnce(&Tables, &IdentityRow, &ChangeHistory, &Place, u64) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let row = self.named(Some(&identifier.to_string()))?;
        if let Some(keys) = stored(&self.store.identities(), &row, now)? {
            return Ok(keys);
        }
        self.store.change_identities(|tables| match stored(tables, &row, now)? {
            // Another process was faster.
            Some(keys) => Ok(keys),
            None => {
                let place = find_vault(tables, Some(&row.vault))?.place;
                make(tables, &row, &own_history(tables, &row)?, &place, now)
            }
        })
    }
}

fn find_vault(tables: &Tables, name: Option<&str>) -> Result<VaultRow, Error> {
    let found = match name {
        Some(name) => tables.vault(name)?,
        None => tables.default_vault()?,
    };
    match found {
        Some(vault) => Ok(vault),
        None => {
            let name = name.unwrap_or(DEFAULT_VAULT);
            let vaults = tables.vaults()?;
            let near = crate::store::shared::near(name, vaults.iter().map(|vault| vault.name.as_str()));
            Err(Error::NoSuchVault { name: name.into(), near })
        }
    }
}

/// Finds out what a vault is whose passphrase is being changed, or was when a process was ended.
fn settle(place: &mut Place) -> Result<Vault, Error> {
    let Some(becomes) = &place.becomes else { return Vault::open(place) };
    let before = Place::new(place.path.clone(), place.passphrase_file.clone());
    let after = Place::new(place.path.clone(), becomes.passphrase_file().map(Path::to_owned));
    let (settled, vault) = match Vault::open(&after) {
        Ok(vault) => (after, vault),
        Err(_) => Vault::open(&before).map(|vault| (before, vault))?,
    };
    *place = settled;
    Ok(vault)
}

fn create_vault(
    tables: &Tables,
    home: &Home,
    name: &str,
    path: Option<&Path>,
    passphrase_file: Option<&Path>,
) -> Result<VaultRow, Error> {
    if tables.vault(name)?.is_some() {
        return Err(Error::NameTaken { what: "a vault", name: name.into() });
    }
    let path = match path {
        Some(path) => absolute(path)?,
        None => {
            home.prepare_vaults()?;
            home.vault(name)
        }
    };
    free_place(tables, &path)?;
    let place = Place::new(path, passphrase_file.map(absolute).transpose()?);
    match Vault::create(&place) {
        Err(Error::Storage { errno, .. }) if errno == rustix::io::Errno::EXIST.raw_os_error() => {
            Vault::open(&place)?;
        }
        created => created?,
    }
    tables.add_vault(name, &place)?;
    find_vault(tables, Some(name))
}

/// A file is one vault.
fn free_place(tables: &Tables, path: &Path) -> Result<(), Error> {
    match tables.vaults()?.into_iter().find(|vault| vault.place.path == path) {
        Some(vault) => Err(Error::NameTaken { what: "a vault in this file,", name: vault.name }),
        None => Ok(()),
    }
}

fn find(tables: &Tables, name: Option<&str>) -> Result<KnownIdentity, Error> {
    let Some(name) = name else { return tables.default_identity()?.ok_or(Error::NoIdentities) };
    let found = match name.parse() {
        Ok(identifier) => tables.identity(&identifier)?,
        Err(_) => tables.identity_named(name)?,
    };
    found.map_or_else(|| Err(no_such_identity(tables, name)), Ok)
}

fn own(identity: KnownIdentity) -> Result<IdentityRow, KnownIdentity> {
    match identity {
        KnownIdentity { identifier, name: Some(name), vault: Some(vault), is_default } => {
            Ok(IdentityRow { name, identifier, vault, is_default })
        }
        other => Err(other),
    }
}

fn no_such_identity(tables: &Tables, name: &str) -> Error {
    // The error is the same without suggestions.
    let identities = tables.named_identities().unwrap_or_default();
    let names = identities.iter().filter_map(|identity| identity.name.as_deref());
    Error::NoSuchIdentity { name: name.into(), near: crate::store::shared::near(name, names) }
}

fn create(
    tables: &Tables,
    home: &Home,
    name: Option<&str>,
    in_vault: Option<&str>,
    now: u64,
) -> Result<IdentityRow, Error> {
    let name = match name {
        Some(name) => checked_name("the name of an identity", name)?,
        None => unused_name(|name| Ok(tables.identity_named(name)?.is_some()))?,
    };
    if tables.identity_named(&name)?.is_some() {
        return Err(Error::NameTaken { what: "an identity", name });
    }
    let vault = match (in_vault, tables.default_vault()?) {
        (None, None) => create_vault(tables, home, DEFAULT_VAULT, None, None)?,
        (None, Some(vault)) => vault,
        (Some(in_vault), _) => find_vault(tables, Some(in_vault))?,
    };
    let history = Vault::update(&vault.place, |keys| {
        let key = keys.make_signing_key(&vault.place.path)?;
        ChangeHistory::create(&key, validity(now)).map_err(|error| Error::internal(error.to_string()))
    })?;
    let identifier = history.identifier();
    tables.put_history(&history)?;
    tables.name_identity(&identifier, &name)?;
    tables.own_identity(&identifier, &vault.name)?;
    own(find(tables, Some(&name))?).map_err(|_| Error::internal("a new identity is not ours"))
}

fn remember(tables: &Tables, history: &ChangeHistory) -> Result<(), Error> {
    let refused = |why| Error::HistoryRefused { identifier: history.identifier().to_string(), why };
    if tables.has_history(history)? {
        return Ok(());
    }
    match tables.history(&history.identifier())?.map(|known| history.compared_to(&known)) {
        Some(Comparison::Same) => Ok(()),
        None | Some(Comparison::Newer) => tables.put_history(history),
        Some(Comparison::Older) => Err(refused("it is older than the one that is known")),
        Some(Comparison::Diverged) => Err(refused("it contradicts the one that is known")),
    }
}

fn own_history(tables: &Tables, row: &IdentityRow) -> Result<ChangeHistory, Error> {
    tables.history(&row.identifier)?.ok_or_else(|| no_such_identity(tables, &row.name))
}

/// What is stored of a purpose key, unless it ends in less than `renew_before` seconds or no longer verifies.
fn stored_attestation(
    tables: &Tables,
    row: &IdentityRow,
    purpose: Purpose,
    renew_before: u64,
    now: u64,
) -> Result<Option<(ChangeHistory, Attestation)>, Error> {
    let Some(stored) = tables.purpose_key(&row.identifier, purpose)? else { return Ok(None) };
    let history = own_history(tables, row)?;
    let Ok(attestation) = Attestation::verify(&stored.attestation, &history, now) else { return Ok(None) };
    // A new one would end with the identity's key, too.
    let can_be_longer = attestation.expires_at() < history.latest().validity.until;
    let ends_soon = attestation.expires_at() < now.saturating_add(renew_before) && can_be_longer;
    Ok((!ends_soon).then_some((history, attestation)))
}

fn stored_channel_keys(tables: &Tables, row: &IdentityRow, now: u64) -> Result<Option<ChannelKeys>, Error> {
    let stored = stored_attestation(tables, row, Purpose::Channels, RENEW_BEFORE_SECS, now)?;
    let Some((history, attestation)) = stored else { return Ok(None) };
    let PurposePublicKey::SecureChannel(public) = attestation.key() else { return Ok(None) };
    let vault = Vault::open(&find_vault(tables, Some(&row.vault))?.place)?;
    let keys = vault.channel_key(public);
    let expires_at = attestation.expires_at();
    Ok(keys.map(|static_key| ChannelKeys { history, attestation, static_key, expires_at }))
}

fn stored_issuing_keys(tables: &Tables, row: &IdentityRow, now: u64) -> Result<Option<IssuingKeys>, Error> {
    let stored = stored_attestation(tables, row, Purpose::Issuing, RENEW_ISSUING_BEFORE_SECS, now)?;
    let Some((history, attestation)) = stored else { return Ok(None) };
    let PurposePublicKey::CredentialSigning(public) = attestation.key() else { return Ok(None) };
    let vault = Vault::open(&find_vault(tables, Some(&row.vault))?.place)?;
    let Some(key) = vault.signing_key(public) else { return Ok(None) };
    issuing_keys(row, history, attestation, key).map(Some)
}

fn make_channel_keys(
    tables: &Tables,
    row: &IdentityRow,
    history: &ChangeHistory,
    place: &Place,
    now: u64,
) -> Result<ChannelKeys, Error> {
    let (attestation, static_key) = make_purpose_key(tables, row, history, place, now, Purpose::Channels, |vault| {
        let key = vault.make_channel_key(&place.path)?;
        Ok((*key.public(), PurposePublicKey::SecureChannel(*key.public()), key))
    })?;
    Ok(ChannelKeys { history: history.clone(), expires_at: attestation.expires_at(), attestation, static_key })
}

fn make_issuing_keys(
    tables: &Tables,
    row: &IdentityRow,
    history: &ChangeHistory,
    place: &Place,
    now: u64,
) -> Result<IssuingKeys, Error> {
    let (attestation, key) = make_purpose_key(tables, row, history, place, now, Purpose::Issuing, |vault| {
        let key = vault.make_signing_key(&place.path)?;
        let public = bytes(&key.public()).ok_or_else(|| Error::internal("a key of another kind was made"))?;
        Ok((public, PurposePublicKey::CredentialSigning(key.public()), key))
    })?;
    issuing_keys(row, history.clone(), attestation, key)
}

fn issuing_keys(
    row: &IdentityRow,
    history: ChangeHistory,
    attestation: Attestation,
    key: SigningKey,
) -> Result<IssuingKeys, Error> {
    let expires_at = attestation.expires_at();
    let issuer = Issuer::new(&history, attestation, key).map_err(|error| unusable(row, error))?;
    Ok(IssuingKeys { history, issuer, expires_at })
}

/// Makes a purpose key, with what `make` gives: its public half, the same as the identity signs it, and the key. It takes
/// the place of the one before, which is forgotten.
fn make_purpose_key<K>(
    tables: &Tables,
    row: &IdentityRow,
    history: &ChangeHistory,
    place: &Place,
    now: u64,
    purpose: Purpose,
    make: impl FnOnce(&mut Vault) -> Result<([u8; 32], PurposePublicKey, K), Error>,
) -> Result<(Attestation, K), Error> {
    let expires_at = now.saturating_add(PURPOSE_KEY_LIFETIME_SECS).min(history.latest().validity.until);
    let old = tables.purpose_key(&row.identifier, purpose)?;
    let (public, attestation, key) = Vault::update(place, |vault| {
        let identity_key = vault.signing_key(&history.latest().key).ok_or_else(|| key_is_gone(row))?;
        let (public, purpose_public, key) = make(vault)?;
        let attestation = Attestation::create(history, &identity_key, purpose_public, now, expires_at)
            .map_err(|error| unusable(row, error))?;
        vault.remove(&old.iter().map(|old| old.public).collect::<Vec<_>>());
        Ok((public, attestation, key))
    })?;
    let made = PurposeKeyRow { public, attestation: attestation.encoded().to_vec() };
    tables.put_purpose_key(&history.identifier(), purpose, &made)?;
    Ok((attestation, key))
}

fn unusable(row: &IdentityRow, why: impl std::fmt::Display) -> Error {
    Error::IdentityUnusable {
        identity: row.name.clone(),
        why: why.to_string(),
        fix: "Check the clock; if it is right, make another identity with `ockam identity create`.".into(),
    }
}

fn key_is_gone(row: &IdentityRow) -> Error {
    Error::IdentityUnusable {
        identity: row.name.clone(),
        why: format!("its key is not in the vault {:?}", row.vault),
        fix: "Restore the vault from a backup, or make another identity with `ockam identity create`.".into(),
    }
}

fn validity(now: u64) -> Validity {
    Validity { from: now, until: now.saturating_add(KEY_LIFETIME_SECS) }
}

/// Of keys that a vault can have.
fn bytes(key: &PublicKey) -> Option<[u8; 32]> {
    match key {
        PublicKey::Ed25519(bytes) => Some(*bytes),
        PublicKey::P256(_) => None,
    }
}

/// Names of vaults and identities are like those of nodes.
fn checked_name(argument: &str, name: &str) -> Result<String, Error> {
    match name.parse::<NodeName>() {
        Ok(name) => Ok(name.as_str().to_owned()),
        Err(Error::BadArgument { value, why, fix, .. }) => {
            Err(Error::BadArgument { argument: argument.into(), value, why, fix })
        }
        Err(error) => Err(error),
    }
}

/// Two random words, and more when those are taken.
fn unused_name(mut is_taken: impl FnMut(&str) -> Result<bool, Error>) -> Result<String, Error> {
    let mut name = NodeName::random().as_str().to_owned();
    while is_taken(&name)? {
        name = format!("{}-{}", NodeName::random().as_str(), &crate::random::hex_id()[..8]);
    }
    Ok(name)
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|error| Error::storage("find", path, &error))
}

fn remove_file(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::storage("remove", path, &error)),
        _ => Ok(()),
    }
}

fn now() -> Result<u64, Error> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok(since.map_err(|_| Error::internal("the clock is before 1970"))?.as_secs())
}

#[cfg(test)]
mod tests;
