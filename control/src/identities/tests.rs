use super::*;
use crate::home::NodeName;
use ockam_crypto::{Attributes, AuthenticationError, Claim, Credential, Secret, SigningKey, encode_payload};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

const NOW: u64 = 1_750_000_000;

struct Fixture {
    _directory: tempfile::TempDir,
    home: Home,
}

fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    Fixture { home: Home::at(directory.path().join("home")), _directory: directory }
}

impl Fixture {
    fn open(&self) -> Identities {
        Identities::open(&self.home).unwrap()
    }

    fn passphrase(&self) -> PathBuf {
        let file = self._directory.path().join("passphrase");
        fs::write(&file, "correct horse").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        file
    }
}

/// An identity that was made at a given time, for what depends on time.
fn made_at(identities: &mut Identities, name: &str, now: u64) -> IdentityRow {
    let home = identities.home.clone();
    identities.store.change_identities(|tables| create(tables, &home, Some(name), None, now)).unwrap()
}

fn key(number: u8) -> SigningKey {
    SigningKey::new(Secret::new([number; 32]))
}

fn stranger(number: u8) -> ChangeHistory {
    ChangeHistory::create(&key(number), validity(NOW)).unwrap()
}

fn rotated(history: &ChangeHistory, old: u8, new: u8) -> ChangeHistory {
    history.rotate(&key(old), &key(new), validity(NOW + 1)).unwrap()
}

#[test]
fn the_first_need_makes_a_vault_and_an_identity_and_the_second_finds_them() {
    let fixture = fixture();
    assert!(Identities::open_existing(&fixture.home).unwrap().is_none());
    let mut identities = fixture.open();
    assert_eq!(identities.named(None), Err(Error::NoIdentities));
    let first = identities.named_or_created(None).unwrap();
    assert!(first.is_default && first.vault == DEFAULT_VAULT && first.name.contains('-'), "{first:?}");
    assert_eq!(identities.named_or_created(None), Ok(first.clone()));
    assert_eq!(fixture.open().named(Some(&first.identifier.to_string())), Ok(first.clone()));
    let alice = identities.named_or_created(Some("alice")).unwrap();
    assert!(!alice.is_default && alice.identifier != first.identifier);
    assert_eq!(identities.named_or_created(Some("alice")), Ok(alice.clone()));
    assert!(matches!(identities.named(Some("alise")), Err(Error::NoSuchIdentity { near, .. }) if near == ["alice"]));
    // An identifier is never made up.
    let nobody = stranger(1).identifier().to_string();
    assert!(matches!(identities.named_or_created(Some(&nobody)), Err(Error::BadArgument { .. })));
    let vaults = fixture.home.path().join("vaults");
    assert_eq!(fs::metadata(&vaults).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(fs::metadata(vaults.join(DEFAULT_VAULT)).unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn many_processes_agree_on_the_first_identity() {
    let fixture = fixture();
    drop(fixture.open());
    let rows: Vec<IdentityRow> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| fixture.open().named_or_created(None).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(rows.iter().all(|row| *row == rows[0]), "{rows:?}");
    assert_eq!(fixture.open().list().unwrap().len(), 1);
    // And on its purpose key.
    let keys: Vec<[u8; 32]> = std::thread::scope(|scope| {
        let make = || *fixture.open().channel_keys(&rows[0].identifier, now().unwrap()).unwrap().static_key.public();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(keys.iter().all(|key| *key == keys[0]));
}

#[test]
fn defaults_are_the_first_and_then_the_oldest() {
    let fixture = fixture();
    let mut identities = fixture.open();
    for name in ["b", "a", "c"] {
        identities.create(Some(name), None).unwrap();
    }
    let default = |identities: &Identities| identities.named(None).unwrap().name;
    assert_eq!(default(&identities), "b");
    assert!(identities.set_default("c").unwrap().is_default);
    assert_eq!(default(&identities), "c");
    // Somebody else's is never the default.
    identities.import(&stranger(1), Some("aa"), None).unwrap();
    assert!(matches!(identities.set_default("aa"), Err(Error::NoSuchIdentity { .. })));
    identities.delete(None).unwrap();
    assert_eq!(default(&identities), "b");
    identities.delete(Some("b")).unwrap();
    assert_eq!(default(&identities), "a");
    identities.delete(None).unwrap();
    assert_eq!(identities.named(None), Err(Error::NoIdentities));
    assert_eq!(identities.list().unwrap().len(), 1);

    for name in ["work2", "work1"] {
        identities.create_vault(Some(name), None, None).unwrap();
    }
    assert_eq!(identities.vault(None).unwrap().name, DEFAULT_VAULT);
    identities.delete_vault(DEFAULT_VAULT).unwrap();
    assert_eq!(identities.vault(None).unwrap().name, "work2");
    assert!(matches!(identities.vault(Some("work3")), Err(Error::NoSuchVault { near, .. }) if near.len() == 2));
    assert_eq!(identities.vaults().unwrap().iter().filter(|vault| vault.is_default).count(), 1);
}

#[test]
fn names_are_checked_and_taken_once() {
    let fixture = fixture();
    let mut identities = fixture.open();
    for bad in ["", "../x", "a/b", "a b", "-a", ".", &"x".repeat(65)] {
        assert!(matches!(identities.create(Some(bad), None), Err(Error::BadArgument { .. })), "{bad:?}");
        assert!(matches!(identities.create_vault(Some(bad), None, None), Err(Error::BadArgument { .. })), "{bad:?}");
    }
    identities.create(Some("alice"), None).unwrap();
    assert!(matches!(identities.create(Some("alice"), None), Err(Error::NameTaken { .. })));
    assert!(matches!(identities.import(&stranger(1), Some("alice"), None), Err(Error::NameTaken { .. })));
    assert!(matches!(identities.create_vault(Some(DEFAULT_VAULT), None, None), Err(Error::NameTaken { .. })));
    let place = identities.vault(None).unwrap().place.path;
    assert!(matches!(identities.create_vault(Some("x"), Some(&place), None), Err(Error::NameTaken { .. })));
    assert!(matches!(identities.create(Some("bob"), Some("nowhere")), Err(Error::NoSuchVault { .. })));
    // What failed left nothing behind.
    assert_eq!((identities.list().unwrap().len(), identities.vaults().unwrap().len()), (1, 1));
    assert_eq!(identities.known(&stranger(1).identifier()), Ok(None));
}

#[test]
fn a_purpose_key_is_made_once_and_verifies() {
    let fixture = fixture();
    let mut identities = fixture.open();
    let row = made_at(&mut identities, "alice", NOW);
    let first = identities.channel_keys(&row.identifier, NOW).unwrap();
    assert_eq!(first.expires_at, NOW + PURPOSE_KEY_LIFETIME_SECS);
    assert_eq!(first.history.identifier(), row.identifier);
    assert_eq!(*first.attestation.key(), PurposePublicKey::SecureChannel(*first.static_key.public()));
    assert_eq!(Attestation::verify(first.attestation.encoded(), &first.history, NOW), Ok(first.attestation.clone()));
    // Another process, later.
    let later = first.expires_at - RENEW_BEFORE_SECS;
    let second = fixture.open().channel_keys(&row.identifier, later).unwrap();
    assert_eq!(second.attestation, first.attestation);
    assert_eq!(second.static_key.secret().expose(), first.static_key.secret().expose());
    assert!(!format!("{second:?}").contains(&format!("{:?}", second.static_key.secret().expose())));
    // Nobody else's.
    let stranger = stranger(1);
    identities.remember(&stranger).unwrap();
    assert!(matches!(identities.channel_keys(&stranger.identifier(), NOW), Err(Error::NoSuchIdentity { .. })));
}

#[test]
fn a_purpose_key_is_replaced_near_its_end_but_not_past_that_of_its_identity() {
    let fixture = fixture();
    let mut identities = fixture.open();
    let row = made_at(&mut identities, "alice", NOW);
    let end = NOW + KEY_LIFETIME_SECS;
    let keys = |now: u64| fixture.open().channel_keys(&row.identifier, now).unwrap();
    let first = keys(NOW);
    let near = first.expires_at - RENEW_BEFORE_SECS + 1;
    let second = keys(near);
    assert_ne!(second.static_key.public(), first.static_key.public());
    assert_eq!(second.expires_at, (near + PURPOSE_KEY_LIFETIME_SECS).min(end));
    // The old one is gone from the vault.
    let opened = Vault::open(&identities.vault(None).unwrap().place).unwrap();
    assert!(opened.channel_key(first.static_key.public()).is_none() && opened.len() == 2);
    let last = keys(second.expires_at - 5);
    assert_eq!(last.expires_at, end);
    assert_eq!(keys(end - 5).attestation, last.attestation);
    assert_eq!(keys(end).attestation, last.attestation);
    let expired = identities.channel_keys(&row.identifier, end + 1).unwrap_err();
    assert!(matches!(expired, Error::IdentityUnusable { .. }) && expired.exit() == 78, "{expired}");
    // A clock that is years behind.
    let behind = identities.channel_keys(&row.identifier, NOW - 1).unwrap_err();
    assert!(matches!(behind, Error::IdentityUnusable { .. }), "{behind}");
}

/// Issued at a time for ten minutes; nobody in particular is its subject.
fn issued(keys: &IssuingKeys, now: u64) -> Credential {
    let subject = stranger(1).identifier();
    Credential::issue(&keys.issuer, subject, None, 1, &Attributes::new(), now, now + 600).unwrap()
}

fn verifies(credential: &Credential, issuer: &ChangeHistory, now: u64) -> bool {
    Credential::verify(credential.encoded(), &stranger(1).identifier(), [issuer], now).is_ok()
}

#[test]
fn a_key_for_credentials_is_made_once_and_belongs_to_nobody_else() {
    let fixture = fixture();
    let mut identities = fixture.open();
    let row = made_at(&mut identities, "alice", NOW);
    let first = identities.issuing_keys(&row.identifier, NOW).unwrap();
    assert_eq!((first.history.identifier(), first.issuer.identifier()), (row.identifier, row.identifier));
    assert_eq!(first.expires_at, NOW + PURPOSE_KEY_LIFETIME_SECS);
    // Another process, later.
    let later = first.expires_at - RENEW_ISSUING_BEFORE_SECS;
    let second = fixture.open().issuing_keys(&row.identifier, later).unwrap();
    assert_eq!(second.issuer.attestation(), first.issuer.attestation());
    assert!(verifies(&issued(&second, later), &first.history, later));
    // Neither key stands for the other.
    let channel = identities.channel_keys(&row.identifier, NOW).unwrap();
    assert_eq!(identities.channel_keys(&row.identifier, NOW).unwrap().attestation, channel.attestation);
    assert_eq!(Vault::open(&identities.vault(None).unwrap().place).unwrap().len(), 3);
    let stranger = stranger(1);
    identities.remember(&stranger).unwrap();
    assert!(matches!(identities.issuing_keys(&stranger.identifier(), NOW), Err(Error::NoSuchIdentity { .. })));
    // With the identity all its keys go.
    identities.delete(Some("alice")).unwrap();
    assert!(Vault::open(&identities.vault(None).unwrap().place).unwrap().is_empty());
}

/// What the key before signed stays valid until its own end, which no one who verifies needs to be told.
#[test]
fn a_key_for_credentials_is_replaced_a_year_before_its_end() {
    let fixture = fixture();
    let mut identities = fixture.open();
    let row = made_at(&mut identities, "alice", NOW);
    let first = identities.issuing_keys(&row.identifier, NOW).unwrap();
    let near = first.expires_at - RENEW_ISSUING_BEFORE_SECS + 1;
    let old = issued(&first, near - 300);
    let second = fixture.open().issuing_keys(&row.identifier, near).unwrap();
    assert_ne!(second.issuer.attestation(), first.issuer.attestation());
    assert!(verifies(&old, &second.history, near) && verifies(&issued(&second, near), &first.history, near));
    // Its secret is not kept.
    let vault = Vault::open(&identities.vault(None).unwrap().place).unwrap();
    let PurposePublicKey::CredentialSigning(gone) = first.issuer.attestation().key() else { panic!("of another kind") };
    assert!(vault.signing_key(gone).is_none() && vault.len() == 2);
    // The last one ends with the identity's key and is not replaced.
    let end = NOW + KEY_LIFETIME_SECS;
    let last = fixture.open().issuing_keys(&row.identifier, end - 10 * 86_400).unwrap();
    assert_eq!(last.expires_at, end);
    let same = fixture.open().issuing_keys(&row.identifier, end).unwrap();
    assert_eq!(same.issuer.attestation(), last.issuer.attestation());
    assert!(matches!(identities.issuing_keys(&row.identifier, end + 1), Err(Error::IdentityUnusable { .. })));
}

/// Who still knows the old history refuses what the new key vouches for, and the other way round: `wire.md` D.2.
#[test]
fn a_rotated_issuer_issues_with_a_new_key() {
    let fixture = fixture();
    let mut identities = fixture.open();
    let row = made_at(&mut identities, "alice", NOW);
    let before = identities.issuing_keys(&row.identifier, NOW).unwrap();
    let old = issued(&before, NOW);
    let (_, history) = identities.rotate_at(None, NOW + 100).unwrap();
    // Made in the same transaction as the rotation.
    let stored = stored_issuing_keys(&identities.store.identities(), &row, NOW + 100).unwrap().unwrap();
    let after = identities.issuing_keys(&row.identifier, NOW + 100).unwrap();
    assert_eq!(stored.issuer.attestation(), after.issuer.attestation());
    let new = issued(&after, NOW + 100);
    assert!(verifies(&new, &history, NOW + 100) && !verifies(&new, &before.history, NOW + 100));
    assert!(verifies(&old, &before.history, NOW + 100) && !verifies(&old, &history, NOW + 100));
    assert_eq!(Vault::open(&identities.vault(None).unwrap().place).unwrap().len(), 3);
}

/// A peer that knows the old history accepts the new one, and then no longer the old one.
#[test]
fn after_a_rotation_peers_that_know_the_old_history_accept_the_new_one() {
    let (ours, theirs) = (fixture(), fixture());
    let (mut identities, mut peer) = (ours.open(), theirs.open());
    let row = made_at(&mut identities, "alice", NOW);
    let before = identities.channel_keys(&row.identifier, NOW).unwrap();
    let shown = |keys: &ChannelKeys, peer: &mut Identities, now: u64| {
        let payload = encode_payload(&keys.history, &keys.attestation, &[]);
        let claim = Claim::parse(&payload).unwrap();
        let known = peer.known(&claim.identifier()).unwrap();
        let met = claim.authenticate(keys.static_key.public(), known.as_ref(), now)?;
        peer.remember(&met.history).unwrap();
        Ok::<_, AuthenticationError>(met)
    };
    assert!(shown(&before, &mut peer, NOW).unwrap().is_news);
    assert!(!shown(&before, &mut peer, NOW).unwrap().is_news);

    let (same, history) = identities.rotate_at(Some("alice"), NOW + 100).unwrap();
    assert_eq!((same.identifier, history.changes().len()), (row.identifier, 2));
    let after = identities.channel_keys(&row.identifier, NOW + 100).unwrap();
    assert_eq!(after.history, history);
    assert_ne!(after.static_key.public(), before.static_key.public());
    let met = shown(&after, &mut peer, NOW + 100).unwrap();
    assert!(met.is_news && met.identifier() == row.identifier);
    assert_eq!(shown(&before, &mut peer, NOW + 100), Err(AuthenticationError::OlderHistory));
    // And again, and after all that one signing key and one purpose key are left.
    identities.rotate_at(None, NOW + 200).unwrap();
    assert!(shown(&fixture_keys(&ours, &row, NOW + 200), &mut peer, NOW + 200).unwrap().is_news);
    let vault = Vault::open(&identities.vault(None).unwrap().place).unwrap();
    assert_eq!(vault.len(), 2);
    assert!(vault.signing_key(&history.latest().key).is_none());
}

fn fixture_keys(fixture: &Fixture, row: &IdentityRow, now: u64) -> ChannelKeys {
    fixture.open().channel_keys(&row.identifier, now).unwrap()
}

#[test]
fn a_rotation_that_fails_changes_nothing() {
    let fixture = fixture();
    let mut identities = fixture.open();
    let row = made_at(&mut identities, "alice", NOW);
    let before = fixture_keys(&fixture, &row, NOW);
    let place = identities.vault(None).unwrap().place;
    let file = fs::read(&place.path).unwrap();
    for now in [NOW - 1, NOW + KEY_LIFETIME_SECS + 1] {
        assert!(matches!(identities.rotate_at(None, now), Err(Error::IdentityUnusable { .. })));
    }
    fs::set_permissions(&place.path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(identities.rotate_at(None, NOW), Err(Error::OpenToOthers { .. })));
    fs::set_permissions(&place.path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(fs::read(&place.path).unwrap(), file);
    assert_eq!(fixture_keys(&fixture, &row, NOW).attestation, before.attestation);
    // Without its key it can do nothing, and says so.
    Vault::update(&place, |vault| {
        let PublicKey::Ed25519(public) = before.history.latest().key else { panic!("made here") };
        vault.remove(&[public]);
        Ok(())
    })
    .unwrap();
    let error = identities.rotate_at(None, NOW + 1).unwrap_err();
    assert!(matches!(&error, Error::IdentityUnusable { why, .. } if why.contains("not in the vault")), "{error}");
}

#[test]
fn what_is_known_is_only_ever_continued() {
    let fixture = fixture();
    let mut identities = fixture.open();
    let one = stranger(1);
    let two = rotated(&one, 1, 2);
    let three = rotated(&two, 2, 3);
    let other = rotated(&one, 1, 9);
    assert_eq!(identities.known(&one.identifier()), Ok(None));
    for history in [&one, &one, &three, &three] {
        identities.remember(history).unwrap();
        assert_eq!(identities.known(&one.identifier()), Ok(Some(history.clone())));
    }
    for refused in [&one, &two, &other] {
        let error = identities.remember(refused).unwrap_err();
        assert!(matches!(error, Error::HistoryRefused { .. }) && error.exit() == 77, "{error}");
        assert!(matches!(identities.import(refused, Some("x"), None), Err(Error::HistoryRefused { .. })));
        assert_eq!(fixture.open().known(&one.identifier()), Ok(Some(three.clone())));
    }
}

#[test]
fn histories_go_from_home_to_home_as_hexadecimal() {
    let (here, there) = (fixture(), fixture());
    let (mut ours, mut theirs) = (here.open(), there.open());
    let alice = ours.create(Some("alice"), None).unwrap();
    let hex = ours.known(&alice.identifier).unwrap().unwrap().to_hex();
    let history = ChangeHistory::from_hex(&hex).unwrap();
    let known = theirs.import(&history, Some("friend"), None).unwrap();
    assert_eq!((known.identifier, known.vault.as_deref()), (alice.identifier, None));
    assert_eq!(theirs.find(Some("friend")), Ok(known));
    assert!(matches!(theirs.named(Some("friend")), Err(Error::NoSuchIdentity { .. })));
    assert!(matches!(theirs.named_or_created(Some("friend")), Err(Error::NoSuchIdentity { .. })));

    // With a copy of the vault it is ours there, too; without its key it is not.
    theirs.create_vault(Some("empty"), None, None).unwrap();
    let without = theirs.import(&history, None, Some("empty")).unwrap_err();
    assert!(matches!(without, Error::IdentityUnusable { .. }), "{without}");
    let copy = there.home.path().join("copy");
    Vault::copy(&ours.vault(None).unwrap().place.path, &copy).unwrap();
    theirs.create_vault(Some("copy"), Some(&copy), None).unwrap();
    let own = theirs.import(&history, Some("alice"), Some("copy")).unwrap();
    assert_eq!((own.name.as_deref(), own.vault.as_deref()), (Some("alice"), Some("copy")));
    let keys = theirs.channel_keys(&alice.identifier, now().unwrap()).unwrap();
    assert_eq!(keys.history, history);
}

#[test]
fn the_keys_of_another_home_stay_in_the_file_of_a_deleted_vault() {
    let (here, there) = (fixture(), fixture());
    let (mut ours, mut theirs) = (here.open(), there.open());
    let alice = ours.create(Some("alice"), None).unwrap();
    let shared = ours.vault(None).unwrap().place.path;
    theirs.create_vault(Some("shared"), Some(&shared), None).unwrap();
    let deleted = theirs.delete_vault("shared").unwrap();
    assert!(deleted.file_left.unwrap().contains("1 keys"));
    ours.channel_keys(&alice.identifier, now().unwrap()).unwrap();
    // Where no key is left, no file is left.
    ours.delete(Some("alice")).unwrap();
    assert_eq!(ours.delete_vault(DEFAULT_VAULT).unwrap().file_left, None);
    assert!(!shared.exists());
}

#[test]
fn what_is_used_is_not_deleted() {
    let fixture = fixture();
    let mut identities = fixture.open();
    let alice = identities.create(Some("alice"), None).unwrap();
    let error = identities.delete_vault(DEFAULT_VAULT).unwrap_err();
    assert!(matches!(&error, Error::InUse { by, .. } if by.contains("alice")) && error.exit() == 77, "{error}");
    let node: NodeName = "n1".parse().unwrap();
    let mut store = SharedStore::open(&fixture.home).unwrap();
    assert!(matches!(store.set_node_identity(&node, &alice.identifier), Err(Error::NoSuchNode { .. })));
    assert!(matches!(store.node_identity(&node), Err(Error::NoSuchNode { .. })));
    store.add(&node).unwrap();
    assert_eq!(store.node_identity(&node), Ok(None));
    store.set_node_identity(&node, &alice.identifier).unwrap();
    assert_eq!(store.node_identity(&node), Ok(Some(alice.identifier)));
    assert!(matches!(store.set_node_identity(&node, &stranger(1).identifier()), Err(Error::Database { .. })));
    let error = identities.delete(Some("alice")).unwrap_err();
    assert!(matches!(&error, Error::InUse { by, .. } if by.contains("n1")), "{error}");
    identities.channel_keys(&alice.identifier, now().unwrap()).unwrap();
    store.remove(&node).unwrap();
    assert_eq!(identities.delete(Some("alice")).unwrap().identifier, alice.identifier);
    assert!(Vault::open(&identities.vault(None).unwrap().place).unwrap().is_empty());
    // An identity whose vault is lost can still be forgotten.
    identities.create(Some("bob"), None).unwrap();
    fs::remove_file(identities.vault(None).unwrap().place.path).unwrap();
    identities.delete(Some("bob")).unwrap();
    identities.delete_vault(DEFAULT_VAULT).unwrap();
}

#[test]
fn an_encrypted_vault_works_like_another_and_needs_its_passphrase() {
    let fixture = fixture();
    let mut identities = fixture.open();
    let file = fixture.passphrase();
    identities.create_vault(Some("safe"), None, Some(&file)).unwrap();
    let alice = identities.create(Some("alice"), Some("safe")).unwrap();
    let keys = identities.channel_keys(&alice.identifier, now().unwrap()).unwrap();
    // The passphrase moves, with the vault.
    let moved = file.with_extension("moved");
    fs::rename(&file, &moved).unwrap();
    assert!(matches!(identities.channel_keys(&alice.identifier, now().unwrap()), Err(Error::InputMissing { .. })));
    let old = identities.vault(Some("safe")).unwrap().place.path;
    let new = fixture.home.path().join("new.vault");
    let place = identities.move_vault("safe", Some(&new), Some(&moved)).unwrap().place;
    assert_eq!((place.path, place.passphrase_file), (new.clone(), Some(moved.clone())));
    assert!(!old.exists() && fs::metadata(&new).unwrap().mode() & 0o7777 == 0o600);
    identities.move_vault("safe", Some(&new), None).expect("it is there already");
    let again = identities.channel_keys(&alice.identifier, now().unwrap()).unwrap();
    assert_eq!(again.attestation, keys.attestation);
    // A wrong one is not taken.
    let wrong = file.with_extension("wrong");
    fs::write(&wrong, "x").unwrap();
    fs::set_permissions(&wrong, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(identities.move_vault("safe", None, Some(&wrong)), Err(Error::WrongPassphrase { .. })));
    assert_eq!(identities.vault(Some("safe")).unwrap().place.passphrase_file, Some(moved));
    // Nor is a place that is taken.
    identities.create_vault(Some("other"), None, None).unwrap();
    let taken = identities.vault(Some("other")).unwrap().place.path;
    assert!(matches!(identities.move_vault("safe", Some(&taken), None), Err(Error::NameTaken { .. })));
    fs::write(file.with_extension("x"), "").unwrap();
    let exists = identities.move_vault("safe", Some(&file.with_extension("x")), None).unwrap_err();
    assert!(matches!(exists, Error::Storage { .. }), "{exists}");
    assert!(new.exists());
}

/// Who shows a new identity in each handshake fills no disk, and does not push out what protects somebody.
#[test]
fn strangers_make_room_for_strangers() {
    let fixture = fixture();
    let mut identities = fixture.open();
    let rotated_once = rotated(&stranger(1), 1, 2);
    identities.remember(&rotated_once).unwrap();
    let friend = stranger(3);
    identities.import(&friend, Some("friend"), None).unwrap();
    let own = identities.create(Some("alice"), None).unwrap();
    // Rows as `put_history` writes them, without the signatures of ten thousand identities.
    let path = fixture.home.database();
    let filler = rusqlite::Connection::open(&path).unwrap();
    // The next row is one at which strangers are counted.
    let sql =
        "WITH RECURSIVE n(i) AS (SELECT max(rowid) + 1 FROM identity UNION ALL SELECT i + 1 FROM n WHERE i < 10239)
               INSERT INTO identity SELECT randomblob(32), x'00', 1, NULL, NULL, i, 0 FROM n";
    filler.execute_batch(sql).unwrap();
    let newest = stranger(4);
    identities.remember(&newest).unwrap();
    let count = |sql: &str| filler.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM identity WHERE name IS NULL"), 10_000);
    assert_eq!(count("SELECT count(*) FROM identity WHERE stored_ms <= 230"), 0, "the oldest go first");
    for known in [&rotated_once, &friend, &newest] {
        assert_eq!(identities.known(&known.identifier()), Ok(Some(known.clone())));
    }
    identities.channel_keys(&own.identifier, now().unwrap()).unwrap();
}

/// What is noted without waiting for the disk leaves everything else as durable as before.
#[test]
fn only_strangers_with_one_key_are_noted_lightly() {
    let fixture = fixture();
    let mut identities = fixture.open();
    let synchronous = |identities: &Identities| identities.store.synchronous();
    let full = synchronous(&identities);
    identities.remember(&stranger(1)).unwrap();
    assert_eq!(synchronous(&identities), full);
    let refused = rotated(&stranger(1), 1, 2);
    identities.remember(&refused).unwrap();
    assert!(identities.remember(&stranger(1)).is_err());
    assert_eq!(synchronous(&identities), full);
    assert_eq!(full, 2, "FULL");
}

#[test]
fn strangers_are_noted_together_but_for_those_of_whom_more_is_known() {
    let fixture = fixture();
    let (mut identities, mut other_process) = (fixture.open(), fixture.open());
    let later = rotated(&stranger(2), 2, 3);
    other_process.remember(&later).unwrap();
    identities.remember_strangers(&[stranger(1), stranger(2), stranger(1), stranger(4)]).unwrap();
    for known in [stranger(1), later, stranger(4)] {
        assert_eq!(other_process.known(&known.identifier()), Ok(Some(known.clone())));
        assert_eq!(other_process.is_known(&known), Ok(true));
    }
    assert_eq!(identities.is_known(&stranger(2)), Ok(false), "it is older than what is known");
    assert_eq!(identities.is_known(&stranger(5)), Ok(false));
    assert_eq!(identities.store.synchronous(), 2, "FULL");
}

#[test]
fn a_database_of_the_version_before_is_migrated() {
    let fixture = fixture();
    fixture.home.prepare().unwrap();
    drop(SharedStore::open(&fixture.home).unwrap());
    let path = fixture.home.database();
    let old = rusqlite::Connection::open(&path).unwrap();
    // Whatever came since, the first version did not have it.
    let tables = "SELECT group_concat('DROP TABLE ' || name, '; ') FROM sqlite_schema WHERE type = 'table'";
    let drop_all: String = old.query_row(tables, [], |row| row.get(0)).unwrap();
    old.execute_batch(&drop_all).unwrap();
    old.execute_batch(
        "CREATE TABLE node (name TEXT NOT NULL PRIMARY KEY, created_ms INTEGER NOT NULL,
            is_default INTEGER NOT NULL CHECK (is_default IN (0, 1))) STRICT, WITHOUT ROWID;
         CREATE UNIQUE INDEX one_default ON node (is_default) WHERE is_default = 1;
         INSERT INTO node VALUES ('n1', 5, 1);
         PRAGMA user_version = 1;",
    )
    .unwrap();
    drop(old);
    let store = SharedStore::open(&fixture.home).unwrap();
    assert_eq!(store.node_identity(&"n1".parse().unwrap()), Ok(None));
    fixture.open().named_or_created(None).unwrap();
}

#[test]
fn a_change_elsewhere_shows_in_the_generation() {
    let fixture = fixture();
    let (mut here, mut there) = (fixture.open(), fixture.open());
    let alice = here.create(Some("alice"), None).unwrap();
    let before = there.generation().unwrap();
    assert_eq!(there.generation(), Ok(before));
    here.rotate(Some("alice")).unwrap();
    let after = there.generation().unwrap();
    assert_ne!(after, before);
    assert_eq!(there.known(&alice.identifier).unwrap().unwrap().changes().len(), 2);
    assert_eq!(there.generation(), Ok(after), "reading changes nothing");
    let before = here.generation().unwrap();
    there.remember(&stranger(1)).unwrap();
    assert_ne!(here.generation().unwrap(), before);
}
