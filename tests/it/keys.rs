//! Keys and what they sign, on the command line: credentials, backups of vaults, passphrases, and what somebody hands over.

use ockam_tests::{Home, Output, finish, wait_until};
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

/// That an answer is no: it is printed, and in the exit code, and why is said. Gives what was said.
#[track_caller]
fn refused(output: Output, code: i32) -> String {
    assert_eq!(output.code, Some(code), "{}\n{}{}", output.command, output.stdout, output.stderr);
    assert!(output.stderr.starts_with("error: ") && output.stderr.lines().count() == 2, "{}", output.stderr);
    output.stderr
}

/// A path beside the home, for what does not belong into it.
fn beside(home: &Home, name: &str) -> String {
    home.path().parent().unwrap().join(name).to_str().unwrap().to_owned()
}

fn passphrase(home: &Home, name: &str) -> String {
    let path = beside(home, name);
    fs::write(&path, format!("the passphrase {name}\n")).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}

/// The secrets of a vault that is not encrypted: behind 17 bytes, 65 for each key, of which the last 32 are secret; a
/// checksum of 32 ends it.
fn secrets(home: &Home) -> Vec<Vec<u8>> {
    let bytes = fs::read(home.path().join("vaults").join("default")).unwrap();
    let keys = &bytes[17..bytes.len() - 32];
    assert!(!keys.is_empty() && keys.len().is_multiple_of(65));
    keys.chunks(65).map(|key| key[33..].to_vec()).collect()
}

fn shows(path: &str, secrets: &[Vec<u8>]) -> bool {
    let bytes = fs::read(path).unwrap();
    secrets.iter().any(|secret| bytes.windows(16).any(|window| window == &secret[..16]))
}

#[test]
fn a_credential_is_verified_or_it_is_said_why_not() {
    let home = Home::new();
    let issuer = home.ok(&["identity", "create", "issuer"]);
    let bob = home.ok(&["identity", "create", "bob"]);
    let credential =
        home.ok(&["credential", "issue", "--as", "issuer", "--for", &bob, "-a", "role=reader", "-a", "a=b=c"]);
    let file = beside(&home, "bob.credential");
    fs::write(&file, format!("{credential}\n")).unwrap();
    let verified = home.json(&["credential", "verify", "--issuer", "issuer", "--credential-path", &file]);
    assert_eq!(
        (&verified["is_valid"], text(&verified, "issuer"), text(&verified, "subject"), &verified["attributes"]),
        (&json!(true), issuer.as_str(), bob.as_str(), &json!({"role": "reader", "a": "b=c"}))
    );
    let (created, expires) = (verified["created_at"].as_u64().unwrap(), verified["expires_at"].as_u64().unwrap());
    assert_eq!(expires - created, 1800);

    // From where it is, by whom it is, in each way to say so.
    let history = home.ok(&["identity", "export", "issuer"]);
    for by in ["issuer", issuer.as_str(), history.as_str()] {
        let verify = ["credential", "verify", "--issuer", by, "--credential", &credential, "--for", "bob"];
        assert_eq!(home.ok(&verify), "true");
        let verify = ["credential", "verify", "--issuer", by, "--for", &bob, "--credential-path", "-"];
        assert_eq!(finish(&mut home.command(&verify), credential.as_bytes()).ok(), "true");
    }
    // Another machine needs the history, and nothing else.
    let other = Home::new();
    let verify = |by| other.run(&["credential", "verify", "--issuer", by, "--credential-path", &file]);
    assert!(verify(&issuer).fails(68).contains("ockam identity import"));
    verify("issuer").fails(68);
    assert_eq!(verify(&history).ok(), "true");
    other.ok(&["identity", "import", &history]);
    assert_eq!(verify(&issuer).ok(), "true");

    // What is wrong is said, and is in the exit code.
    let verify = |more: &[&str]| home.run(&[&["credential", "verify", "--credential-path", &file], more].concat());
    assert!(refused(verify(&["--issuer", "bob"]), 77).contains("no authority here"));
    assert!(refused(verify(&["--issuer", "issuer", "--for", "issuer"]), 77).contains("about another identity"));
    let no = home.run(&["credential", "verify", "--issuer", "bob", "--credential-path", &file, "--output", "json"]);
    let shown: Value = serde_json::from_str(&no.stdout).unwrap();
    assert_eq!(shown["is_valid"], false);
    assert!(text(&shown, "why").contains(&issuer), "{shown}");
    let given =
        |credential: &str| home.run(&["credential", "verify", "--issuer", "issuer", "--credential", credential]);
    for malformed in ["zz", "", "00", &credential[2..], &credential[..credential.len() - 2], &format!("{credential}00")]
    {
        refused(given(malformed), 65);
    }
    let last = u8::from_str_radix(&credential[credential.len() - 2..], 16).unwrap() ^ 1;
    let said = refused(given(&format!("{}{last:02x}", &credential[..credential.len() - 2])), 77);
    assert!(said.contains("not signed"), "{said}");
    fs::write(&file, vec![b'0'; 100_000]).unwrap();
    verify(&["--issuer", "issuer"]).fails(65);
    fs::write(&file, "").unwrap();
    verify(&["--issuer", "issuer"]).fails(66);
    fs::remove_file(&file).unwrap();
    verify(&["--issuer", "issuer"]).fails(66);

    // Its time ends.
    let short = home.ok(&["credential", "issue", "--as", "issuer", "--for", "bob", "--ttl", "1s"]);
    wait_until(|| given(&short).code != Some(0), || "it does not expire".into());
    assert!(refused(given(&short), 77).contains("expired"));

    // What nobody would believe is not issued.
    let issue = |more: &[&str]| home.run(&[&["credential", "issue", "--as", "issuer", "--for", "bob"], more].concat());
    for attribute in ["identifier=I00", "has_credential=true", "=x", "x", &format!("{}=x", "n".repeat(129))] {
        issue(&["-a", attribute]).fails(64);
    }
    issue(&["-a", "a=1", "-a", "a=2"]).fails(64);
    issue(&["--ttl", "0"]).fails(64);
    assert!(issue(&["--ttl", "3650d"]).fails(77).contains("outlives"));
    issue(&["--vault", "other"]).fails(64);
    home.fails(68, &["credential", "issue", "--as", "nobody", "--for", "bob"]);
    other.fails(68, &["credential", "issue", "--for", &bob]);
}

/// Whoever knows the new key takes nothing from the old one, and a credential by the new one is not one by the old one.
#[test]
fn a_credential_ends_with_the_key_of_its_issuer() {
    let home = Home::new();
    home.ok(&["identity", "create", "issuer"]);
    home.ok(&["identity", "create", "bob"]);
    let before = home.ok(&["identity", "export", "issuer"]);
    let issue = || home.ok(&["credential", "issue", "--as", "issuer", "--for", "bob"]);
    let verify =
        |by: &str, credential: &str| home.run(&["credential", "verify", "--issuer", by, "--credential", credential]);
    let old = issue();
    // The subject's key does not matter.
    home.ok(&["identity", "rotate", "bob"]);
    verify("issuer", &old).ok();
    home.ok(&["identity", "rotate", "issuer"]);
    let new = issue();
    verify("issuer", &new).ok();
    verify(&before, &old).ok();
    let said = refused(verify("issuer", &old), 77);
    assert!(said.contains("latest key") && said.contains("ask it for another one"), "{said}");
    refused(verify(&before, &new), 77);
}

#[test]
fn a_backup_brings_an_identity_to_another_machine() {
    let (here, there) = (Home::new(), Home::new());
    let alice = here.ok(&["identity", "create", "alice"]);
    here.ok(&["identity", "create", "bob"]);
    let node = here.node("n1", &["--identity", "alice"]);
    // A peer that knows her.
    there.node("m1", &[]);
    let route = |port: u16| format!("/ip4/127.0.0.1/tcp/{port}/service/api");
    let meets = |port: u16| {
        let open = ["secure-channel", "create", "--from", "m1", "--to", &route(port), "--authorized", &alice];
        let channel = there.ok(&open);
        assert_eq!(there.send("hi", &format!("{channel}/service/uppercase"), &["--from", "m1"]), "HI");
    };
    meets(node.address.port());
    let credential = here.ok(&["credential", "issue", "--as", "alice", "--for", "bob"]);
    let secrets = secrets(&here);

    let (to, file) = (beside(&here, "backup"), passphrase(&here, "one"));
    let said = here.fails(66, &["vault", "backup", "--to", &to]);
    assert!(said.contains("--passphrase-file") && said.contains("--plain") && !Path::new(&to).exists(), "{said}");
    let made = here.json(&["vault", "backup", "--to", &to, "--passphrase-file", &file]);
    assert_eq!((&made["identities"], &made["is_encrypted"]), (&json!(["alice", "bob"]), &json!(true)));
    here.fails(73, &["vault", "backup", "--to", &to, "--passphrase-file", &file]);
    assert_eq!(fs::metadata(&to).unwrap().mode() & 0o7777, 0o600);
    let plain = beside(&here, "plain");
    let warned = here.run(&["vault", "backup", "--to", &plain, "--plain"]);
    assert!(warned.stderr.contains("has the keys"), "{}", warned.stderr);
    assert!(shows(&plain, &secrets) && !shows(&to, &secrets));
    // What a guess costs: 64 MiB, three times.
    let head = fs::read(&to).unwrap();
    assert_eq!(
        (&head[..17], &head[33..45]),
        (&b"ockam backup v1\n\x01"[..], &[0, 1, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1][..])
    );

    // The machine is lost.
    here.ok(&["node", "delete", "n1", "--yes"]);
    let new = Home::new();
    let wrong = passphrase(&new, "two");
    let said = new.fails(77, &["vault", "restore", &to, "--passphrase-file", &wrong]);
    assert!(said.contains("does not open the backup"), "{said}");
    new.fails(66, &["vault", "restore", &to]);
    new.fails(66, &["vault", "restore", &beside(&new, "none")]);
    new.fails(65, &["vault", "restore", &wrong]);
    assert_eq!(new.json(&["vault", "list"]), json!([]));
    let restored = new.json(&["vault", "restore", &to, "--passphrase-file", &file]);
    let outcomes = restored["identities"].as_array().unwrap().iter().map(|it| (text(it, "name"), text(it, "outcome")));
    assert_eq!(outcomes.collect::<Vec<_>>(), [("alice", "restored"), ("bob", "restored")]);
    assert_eq!(new.json(&["identity", "list"]), here.json(&["identity", "list"]));
    let node = new.node("n1", &["--identity", "alice"]);
    meets(node.address.port());
    // It issues with the same key, too.
    let again = new.ok(&["credential", "issue", "--as", "alice", "--for", "bob"]);
    let attestation = |credential: &str| credential[credential.len() - 2 * 195..].to_owned();
    assert_eq!(attestation(&again), attestation(&credential));

    // What happens from now on is not undone by the same backup.
    new.ok(&["identity", "rotate", "alice"]);
    let history = new.ok(&["identity", "export", "alice"]);
    let restored = new.json(&["vault", "restore", &to, "--passphrase-file", &file]);
    assert_eq!((text(&restored["identities"][0], "outcome"), &restored["keys_added"]), ("outdated", &json!(0)));
    assert_eq!(new.ok(&["identity", "export", "alice"]), history);
    meets(node.address.port());
}

/// A node that runs needs its vault again for each new channel of an identity that changed.
#[test]
fn a_passphrase_changes_under_a_node_that_runs() {
    let home = Home::new();
    let node = home.node("n1", &[]);
    home.node("n2", &[]);
    let to = format!("/ip4/127.0.0.1/tcp/{}/service/api", node.address.port());
    let (one, two) = (passphrase(&home, "one"), passphrase(&home, "two"));
    let keys = secrets(&home);
    let vault = home.path().join("vaults").join("default");
    let vault = vault.to_str().unwrap();
    assert!(shows(vault, &keys));
    for (arguments, kind) in [
        (["--new-passphrase-file", one.as_str()].as_slice(), "encrypted"),
        (&["--new-passphrase-file", &two], "encrypted"),
        (&["--plain"], "plain"),
    ] {
        let changed = home.json(&[&["vault", "passphrase"], arguments].concat());
        assert_eq!(text(&changed["vault"], "vault_type"), kind);
        assert!(!shows(vault, &keys) || kind == "plain");
        home.ok(&["identity", "rotate"]);
        let channel = home.ok(&["secure-channel", "create", "--from", "n2", "--to", &to]);
        assert_eq!(home.send("hi", &format!("{channel}/service/uppercase"), &["--from", "n2"]), "HI");
    }
    // They are in the clear again, one for the identity and one for channels.
    assert_eq!(secrets(&home).len(), 2);
    home.fails(64, &["vault", "passphrase"]);
    home.fails(66, &["vault", "passphrase", "--new-passphrase-file", &beside(&home, "none")]);
    home.fails(68, &["vault", "passphrase", "other", "--plain"]);
}

/// Whoever ends a command at whatever moment: the vault opens with what is stored of it, a backup is whole or not there,
/// and what was restored in part is restored by the next one.
#[test]
fn a_command_that_is_killed_locks_nobody_out() {
    const MOMENTS: u32 = 6;
    let home = Home::new();
    let alice = home.ok(&["identity", "create", "alice"]);
    let files = ["one", "two"].map(|name| passphrase(&home, name));
    let change = |to: &'static str| match to {
        "plain" => vec!["vault", "passphrase", "--plain"],
        "one" => vec!["vault", "passphrase", "--new-passphrase-file", &files[0]],
        _ => vec!["vault", "passphrase", "--new-passphrase-file", &files[1]],
    };
    let vault_is = |kind| assert_eq!(text(&home.json(&["vault", "show"])["vault"], "vault_type"), kind);
    // How long it takes decides when it is killed, and nothing else.
    let begun = Instant::now();
    home.ok(&change("one"));
    let all = begun.elapsed();
    let kill = |home: &Home, command: &[&str], moment: u32| {
        let mut child = home.command(command).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(all * moment / (MOMENTS - 1));
        // It may have ended by itself.
        let _ = child.kill();
        child.wait().unwrap();
    };
    for moment in 0..MOMENTS {
        for to in ["two", "plain", "one"] {
            kill(&home, &change(to), moment);
            home.ok(&["identity", "rotate", "alice"]);
            // From whatever it is now to something that is known.
            home.ok(&change(if to == "plain" { "two" } else { to }));
            vault_is("encrypted");
        }
        let to = beside(&home, &format!("backup{moment}"));
        let back_up = ["vault", "backup", "--to", &to, "--passphrase-file", &files[0]];
        kill(&home, &back_up, moment);
        if !Path::new(&to).exists() {
            home.ok(&back_up);
        }
        let other = Home::new();
        let restore = ["vault", "restore", &to, "--passphrase-file", &files[0]];
        kill(&other, &restore, moment);
        other.ok(&restore);
        assert_eq!(other.ok(&["identity", "show", "alice"]), alice);
        other.ok(&["identity", "rotate", "alice"]);
        let drafts = fs::read_dir(other.path().join("vaults")).unwrap().count() - 1;
        assert_eq!(drafts, 0, "what a killed process left is still there");
    }
    home.ok(&change("plain"));
    vault_is("plain");
    assert_eq!(home.ok(&["identity", "show", "alice"]), alice);
    let vaults: Vec<_> =
        fs::read_dir(home.path().join("vaults")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(vaults, ["default"]);
}

#[test]
fn what_somebody_hands_over_is_shown_and_judged() {
    let home = Home::new();
    let issuer = home.ok(&["identity", "create", "issuer"]);
    let bob = home.ok(&["identity", "create", "bob"]);
    home.ok(&["identity", "rotate", "bob"]);
    let credential = home.ok(&["credential", "issue", "--as", "issuer", "--for", "bob", "-a", "role=reader"]);
    let shown = home.json(&["inspect", &credential]);
    assert_eq!(
        (text(&shown, "kind"), text(&shown, "subject"), text(&shown, "issuer"), text(&shown["verification"], "result")),
        ("credential", bob.as_str(), issuer.as_str(), "verified")
    );
    assert_eq!(shown["attributes"], json!({"role": "reader"}));
    let history = home.ok(&["identity", "export", "bob"]);
    for given in ["bob", bob.as_str(), history.as_str()] {
        let shown = home.json(&["inspect", given]);
        assert_eq!((text(&shown, "identifier"), shown["changes"].as_array().unwrap().len()), (bob.as_str(), 2));
        assert!(text(&shown, "known_here").contains("bob"), "{shown}");
    }
    let piped = finish(&mut home.command(&["inspect", "-"]), history.as_bytes()).ok();
    assert!(piped.contains(&bob), "{piped}");
    let file = beside(&home, "credential.bin");
    let bytes: Vec<u8> =
        (0..credential.len()).step_by(2).map(|at| u8::from_str_radix(&credential[at..at + 2], 16).unwrap()).collect();
    fs::write(&file, bytes).unwrap();
    home.ok(&["inspect", &file, "--verify-with", "issuer"]);
    assert!(refused(home.run(&["inspect", &file, "--verify-with", "bob"]), 77).contains(&issuer));
    // Where nothing is known it is shown, and said to be unverified; whoever wants it verified hears no.
    let other = Home::new();
    assert_eq!(text(&other.json(&["inspect", &file])["verification"], "result"), "not_verified");
    assert!(!other.path().exists(), "to look made something");
    let said = refused(other.run(&["inspect", &file, "--verify-with", &history]), 77);
    assert!(said.contains("not verified"), "{said}");
    home.fails(66, &["inspect", "nonsense"]);
    home.fails(65, &["inspect", "/proc/self/status"]);
    home.fails(65, &["inspect", "/dev/zero"]);
    home.fails(65, &["inspect", "8201"]);
}
