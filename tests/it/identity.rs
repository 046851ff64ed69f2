//! Vaults and identities on the command line: what is printed, what is refused, and that no secret leaves its vault.

use ockam_tests::{Home, Output, Process, finish, is_root, skip, wait_until};
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

/// Every file below a directory, and every directory.
fn walk(directory: &Path) -> Vec<PathBuf> {
    let mut found = vec![directory.to_owned()];
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        // What SQLite keeps beside its database comes and goes with who has that open.
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => found.extend(walk(&path)),
            Ok(_) => found.push(path),
            Err(_) => {}
        }
    }
    found
}

/// The secrets of a vault that is not encrypted: behind 17 bytes, 65 for each key, of which the last 32 are secret; a
/// checksum of 32 ends it.
fn secrets(vault: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(vault).unwrap();
    let keys = &bytes[17..bytes.len() - 32];
    assert_eq!(keys.len() % 65, 0);
    keys.chunks(65).map(|key| key[33..].to_vec()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn passphrase(home: &Home, content: &str) -> String {
    let path = home.path().parent().unwrap().join("passphrase");
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn an_identity_from_its_first_day_to_its_last() {
    let home = Home::new();
    // To look makes nothing.
    assert_eq!(home.json(&["identity", "list"]), json!([]));
    assert_eq!(home.json(&["vault", "list"]), json!([]));
    home.fails(68, &["identity", "show"]);
    home.fails(68, &["identity", "show", "alice"]);
    home.fails(68, &["vault", "show"]);
    assert!(!home.path().exists());

    let identifier = home.ok(&["identity", "create", "alice"]);
    assert!(identifier.len() == 65 && identifier.starts_with('I'), "{identifier}");
    let alice = json!({"identifier": identifier, "name": "alice", "vault_name": "default", "is_default": true});
    assert_eq!(home.json(&["identity", "list"]), json!([alice]));
    assert_eq!(home.json(&["identity", "show"]), alice);
    for name in ["alice", identifier.as_str(), &identifier.to_uppercase()] {
        assert_eq!(home.json(&["identity", "show", name]), alice);
        assert_eq!(home.ok(&["identity", "show", name]), identifier);
    }
    let vault = home.json(&["vault", "show"]);
    assert_eq!(
        (text(&vault["vault"], "name"), text(&vault["vault"], "vault_type"), &vault["vault"]["is_default"]),
        ("default", "plain", &json!(true))
    );
    assert_eq!(home.json(&["vault", "list"]), json!([vault]));

    // A second one, named by chance.
    let second = home.json(&["identity", "create"]);
    assert!(text(&second, "name").contains('-') && second["is_default"] == false, "{second}");
    assert_eq!(home.ok(&["identity", "default"]), "alice");
    assert_eq!(home.ok(&["identity", "default", text(&second, "name")]), text(&second, "name"));
    assert_eq!(home.json(&["identity", "default"])["identifier"], second["identifier"]);
    home.fails(73, &["identity", "create", "alice"]);
    let said = home.fails(68, &["identity", "rotate", "alcie"]);
    assert!(said.contains("alice"), "{said}");

    // Its history, in the two forms and by the two commands.
    let history = home.ok(&["identity", "export", "alice"]);
    assert_eq!(history.len(), 256);
    assert_eq!(home.ok(&["identity", "show", "alice", "--full", "--encoding", "hex"]), history);
    let full = home.json(&["identity", "show", "alice", "--full"]);
    assert_eq!((text(&full, "change_history"), full["changes"].as_array().unwrap().len()), (history.as_str(), 1));
    let rotated = home.json(&["identity", "rotate", "alice"]);
    assert_eq!((text(&rotated, "identifier"), rotated["changes"].as_array().unwrap().len()), (identifier.as_str(), 2));
    let longer = home.ok(&["identity", "export", &identifier]);
    assert!(longer.len() == 256 + 2 * 229 && longer[4..].starts_with(&history[4..]), "{longer}");

    // Somebody else's home knows the old one, takes the new one, and never again the old one.
    let other = Home::new();
    let known = other.json(&["identity", "import", &history, "friend"]);
    assert_eq!(known, json!({"identifier": identifier, "name": "friend", "vault_name": null, "is_default": false}));
    let line = format!("{longer}\n");
    let imported = finish(&mut other.command(&["identity", "import", "-"]), line.as_bytes()).ok();
    assert_eq!(imported, identifier);
    finish(&mut other.command(&["identity", "import", "-"]), b"").fails(66);
    finish(&mut other.command(&["identity", "import", "-"]), b"00\n").fails(65);
    assert_eq!(other.ok(&["identity", "export", "friend"]), longer);
    let said = other.fails(77, &["identity", "import", &history]);
    assert!(said.contains("older"), "{said}");
    other.fails(64, &["identity", "import", &history[2..]]);
    // One bit of the signature; whatever it was by chance, it is another one now.
    let last = u8::from_str_radix(&history[254..], 16).unwrap() ^ 1;
    other.fails(64, &["identity", "import", &format!("{}{last:02x}", &history[..254]), "friend"]);
    other.fails(64, &["identity", "import", "zz"]);
    // It is not an identity of that home.
    other.fails(68, &["identity", "rotate", "friend"]);
    other.fails(68, &["identity", "default", "friend"]);

    let said = home.fails(66, &["identity", "delete", "alice"]);
    assert!(said.contains("--yes"), "{said}");
    assert_eq!(home.json(&["identity", "delete", "alice", "--yes"]), json!({"name": "alice"}));
    home.fails(68, &["identity", "delete", "alice", "--yes"]);
    home.fails(77, &["vault", "delete", "--yes"]);
    assert_eq!(home.ok(&["identity", "delete", "--all", "--yes"]), text(&second, "name"));
    assert_eq!(home.ok(&["vault", "delete", "--yes"]), "default");
    assert_eq!(fs::read_dir(home.path().join("vaults")).unwrap().count(), 0);
    assert_eq!((home.json(&["identity", "list"]), home.json(&["vault", "list"])), (json!([]), json!([])));
}

#[test]
fn vaults_are_made_moved_and_deleted() {
    let home = Home::new();
    let outside = home.path().parent().unwrap().to_owned();
    let path = |name: &str| outside.join(name).to_str().unwrap().to_owned();
    assert_eq!(home.ok(&["vault", "create"]), "default");
    let work = home.json(&["vault", "create", "work", "--path", &path("work.vault")]);
    assert_eq!(
        (text(&work["vault"], "path"), &work["vault"]["is_default"]),
        (path("work.vault").as_str(), &json!(false))
    );
    home.fails(73, &["vault", "create", "work"]);
    home.fails(73, &["vault", "create", "again", "--path", &path("work.vault")]);
    home.fails(74, &["vault", "create", "lost", "--path", &path("no/such/directory")]);
    home.fails(64, &["vault", "create", "../x"]);
    let identifier = home.ok(&["identity", "create", "bob", "--vault", "work"]);
    assert_eq!(home.json(&["identity", "show", "bob"])["vault_name"], "work");
    home.fails(68, &["identity", "create", "eve", "--vault", "wrok"]);

    home.fails(64, &["vault", "move", "work"]);
    fs::write(outside.join("taken"), "something else").unwrap();
    home.fails(74, &["vault", "move", "work", "--path", &path("taken")]);
    assert_eq!(fs::read_to_string(outside.join("taken")).unwrap(), "something else");
    home.ok(&["vault", "move", "work", "--path", &path("moved.vault")]);
    assert!(!outside.join("work.vault").exists());
    assert_eq!(fs::metadata(outside.join("moved.vault")).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(home.ok(&["identity", "rotate", "bob"]), identifier);

    let said = home.fails(77, &["vault", "delete", "work", "--yes"]);
    assert!(said.contains("bob"), "{said}");
    // A file that is no vault is not made into one.
    fs::set_permissions(outside.join("taken"), Permissions::from_mode(0o600)).unwrap();
    home.fails(74, &["vault", "create", "odd", "--path", &path("taken")]);
    assert_eq!(fs::read_to_string(outside.join("taken")).unwrap(), "something else");
    // What is already there is taken up: another home, the same file.
    let other = Home::new();
    other.ok(&["vault", "create", "shared", "--path", &path("moved.vault")]);
    let history = home.ok(&["identity", "export", "bob"]);
    assert_eq!(other.ok(&["identity", "import", &history, "bob", "--vault", "shared"]), identifier);
    assert_eq!(other.json(&["identity", "show", "bob"])["vault_name"], "shared");
    home.ok(&["identity", "create", "carol", "--vault", "default"]);
    let carol = home.ok(&["identity", "export", "carol"]);
    let said = other.fails(78, &["identity", "import", &carol, "--vault", "shared"]);
    assert!(said.contains("shared"), "{said}");
}

#[test]
fn an_encrypted_vault_opens_with_its_passphrase_alone() {
    let home = Home::new();
    let file = passphrase(&home, "correct horse battery staple\n");
    let made = home.json(&["vault", "create", "safe", "--passphrase-file", &file]);
    assert_eq!(
        (text(&made["vault"], "vault_type"), text(&made["vault"], "passphrase_file")),
        ("encrypted", file.as_str())
    );
    let identifier = home.ok(&["identity", "create", "alice", "--vault", "safe"]);
    assert_eq!(home.ok(&["identity", "rotate"]), identifier);
    passphrase(&home, "correct horse battery stapler\n");
    let said = home.fails(77, &["identity", "rotate"]);
    assert!(said.contains("passphrase") && !said.contains("horse"), "{said}");
    passphrase(&home, "correct horse battery staple");
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let said = home.fails(77, &["identity", "rotate"]);
    assert!(said.contains("chmod go-rwx"), "{said}");
    fs::remove_file(&file).unwrap();
    let said = home.fails(66, &["identity", "rotate"]);
    assert!(said.contains("vault move") && said.contains(&file), "{said}");
    // What is public needs none.
    home.ok(&["identity", "export"]);
    assert_eq!(home.json(&["identity", "list"])[0]["name"], "alice");
    // Nor does a copy open without it.
    let copy = home.path().join("copy");
    fs::copy(home.path().join("vaults/safe"), &copy).unwrap();
    let said = home.fails(66, &["vault", "create", "copy", "--path", copy.to_str().unwrap()]);
    assert!(said.contains("--passphrase-file"), "{said}");
}

/// Modes are right from the moment that a file exists, whatever the umask is.
#[test]
fn nothing_of_it_is_open_to_others() {
    let home = Home::new();
    let script = "umask 000
        ockam identity create alice
        ockam vault create other
        ockam identity create bob --vault other
        ockam vault move other --path \"$OCKAM_HOME/moved\"
        ockam identity rotate bob
        ockam identity delete bob --yes";
    home.bash(script).ok();
    for path in walk(home.path()) {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        let want = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(metadata.mode() & 0o7777, want, "{}", path.display());
    }
    // What was opened afterwards is not used, and not closed silently.
    let vault = home.path().join("vaults/default");
    fs::set_permissions(&vault, Permissions::from_mode(0o644)).unwrap();
    let said = home.fails(77, &["identity", "rotate", "alice"]);
    assert!(said.contains("chmod go-rwx") && said.contains("vaults/default"), "{said}");
    assert_eq!(fs::metadata(&vault).unwrap().mode() & 0o7777, 0o644);
}

/// Everything that is printed, stored, logged or shown of processes is searched for every secret that ever was.
#[test]
fn no_secret_leaves_its_vault() {
    let home = Home::new();
    let vault = home.path().join("vaults/default");
    let mut printed = String::new();
    let mut say = |arguments: &[&str]| {
        let Output { stdout, stderr, .. } = home.run(arguments);
        printed.push_str(&stdout);
        printed.push_str(&stderr);
    };
    say(&["identity", "create", "alice", "-vv"]);
    let mut all = secrets(&vault);
    say(&["identity", "rotate", "alice", "--output", "json"]);
    all.extend(secrets(&vault));
    for arguments in [
        &["node", "create", "n1", "-vv"][..],
        &["node", "create", "n2", "-vv"],
        &["secure-channel", "create", "--from", "n1", "--to", "/node/n2/service/api"],
        &["node", "show", "n1", "--output", "json"],
        &["identity", "show", "--full", "--output", "json"],
        &["identity", "list"],
        &["identity", "export"],
        &["vault", "show", "--output", "json"],
        &["vault", "list"],
        &["environment"],
    ] {
        say(arguments);
    }
    all.extend(secrets(&vault));
    all.sort();
    all.dedup();
    assert!(printed.contains("/service/"), "no channel was opened: {printed}");
    assert!(all.len() >= 3, "{} keys", all.len());

    let mut haystacks = vec![(PathBuf::from("output"), printed.into_bytes())];
    for process in Process::of_home(home.path()) {
        for name in ["cmdline", "environ"] {
            let path = PathBuf::from(format!("/proc/{}/{name}", process.0));
            haystacks.push((path.clone(), fs::read(&path).unwrap_or_default()));
        }
    }
    for path in walk(home.path()) {
        if path.is_file() && path != vault {
            haystacks.push((path.clone(), fs::read(&path).unwrap_or_default()));
        }
    }
    let has = |haystack: &[u8], needle: &[u8]| haystack.windows(needle.len()).any(|window| window == needle);
    for (place, bytes) in &haystacks {
        for secret in &all {
            let shown = hex(secret);
            // Half of it would be enough to find the rest.
            let halves = [&secret[..16], &secret[16..], &shown.as_bytes()[..32], &shown.as_bytes()[32..]];
            assert!(!halves.iter().any(|half| has(bytes, half)), "a secret is in {}", place.display());
        }
    }
    // The search finds what is there.
    assert!(has(&fs::read(&vault).unwrap(), &secrets(&vault)[0]));
}

/// Whoever ends a command at whatever moment: the next one finds identities that have their keys.
#[test]
fn a_command_that_is_killed_leaves_no_identity_without_its_key() {
    let home = Home::new();
    home.ok(&["identity", "create", "first"]);
    for round in 0..40u64 {
        let name = format!("i{round}");
        let command =
            if round % 2 == 0 { vec!["identity", "create", &name] } else { vec!["identity", "rotate", "first"] };
        let mut child = home.command(&command).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(round * 700));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let list = home.json(&["identity", "list"]);
    let names: Vec<&str> = list.as_array().unwrap().iter().map(|identity| text(identity, "name")).collect();
    assert!(names.contains(&"first"));
    for name in names {
        home.ok(&["identity", "rotate", name]);
        home.ok(&["identity", "delete", name, "--yes"]);
    }
    home.ok(&["identity", "create"]);
}

/// What another process of the same user may do to one that is not dumpable shows in who owns its files in /proc.
#[test]
fn processes_of_a_node_are_not_dumpable() {
    if !is_root() {
        return skip("to be another user needs root");
    }
    let home = Home::new();
    fs::create_dir(home.path()).unwrap();
    fs::set_permissions(home.path().parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(home.path(), Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(home.path(), Some(65534), Some(65534)).unwrap();
    let nobody = |arguments: &[&str]| {
        let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        finish(&mut home.around("setpriv", &[&user, arguments].concat()), b"")
    };
    nobody(&["ockam", "node", "create", "n1"]).ok();
    let processes = Process::of_home(home.path());
    assert_eq!(processes.len(), 2, "control and engine");
    for process in &processes {
        let status = fs::read_to_string(format!("/proc/{}/status", process.0)).unwrap();
        assert!(status.contains("Uid:\t65534\t"), "{status}");
        assert_eq!(
            fs::metadata(format!("/proc/{}/environ", process.0)).unwrap().uid(),
            0,
            "{}",
            process.command_line()
        );
        let limits = fs::read_to_string(format!("/proc/{}/limits", process.0)).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    }
    // And it works like any other.
    assert_eq!(nobody(&["ockam", "message", "send", "hi", "--to", "/node/n1/service/uppercase"]).ok(), "HI");
    nobody(&["ockam", "node", "delete", "n1", "--yes"]).ok();
    wait_until(|| Process::of_home(home.path()).is_empty(), || "processes are left".into());
}

/// Two homes, as two machines: the other one knows the old key, meets the new one, and takes the old one for nobody.
#[test]
fn a_node_keeps_its_identity_and_is_known_after_a_rotation() {
    let (here, there) = (Home::new(), Home::new());
    let identifier = here.ok(&["identity", "create", "alice"]);
    here.ok(&["identity", "create", "spare"]);
    let node = here.node("n1", &["--identity", "alice"]);
    there.node("m1", &[]);
    let to = format!("/ip4/127.0.0.1/tcp/{}/service/api", node.address.port());
    let open = || there.run(&["secure-channel", "create", "--from", "m1", "--to", &to, "--authorized", &identifier]);
    let channel = open().ok();
    let old = there.ok(&["identity", "export", &identifier]);
    assert_eq!(old, here.ok(&["identity", "export", "alice"]));

    let said = here.fails(77, &["identity", "delete", "alice", "--yes"]);
    assert!(said.contains("n1"), "{said}");
    here.fails(77, &["vault", "delete", "--yes"]);
    here.ok(&["identity", "delete", "spare", "--yes"]);

    here.ok(&["identity", "rotate", "alice"]);
    let new = here.ok(&["identity", "export", "alice"]);
    // What is open stays open; from the next handshakes on the new key is shown, and remembered.
    assert_eq!(there.send("hi", &format!("{channel}/service/uppercase"), &["--from", "m1"]), "HI");
    wait_until(
        || {
            open().ok();
            there.ok(&["identity", "export", &identifier]) == new
        },
        || "the new key is not shown".into(),
    );
    there.fails(77, &["identity", "import", &old]);
    // A node that is gone needs nobody.
    here.ok(&["node", "delete", "n1", "--yes"]);
    here.ok(&["identity", "delete", "alice", "--yes"]);
}

/// The controller of real Ockam has a key of P-256 (`wire.md` K.1): it is verified, kept and shown like any other.
#[test]
fn a_history_with_a_key_of_p_256_is_verified() {
    let home = Home::new();
    let history = concat!(
        "81825858830101585385f6820181584104ebf9d78281a04f180029c12a74e994386c7c9fee24903f3bfe351497a99527",
        "58ee5f4b57d7ed6236ab5082ed85e1ae8c07d5600e0587f652d36727904b3e310df41a656a365d1a7836395d82018158",
        "4050bf79071ecaf08a966228c712295a17da53994dc781a22103602afe656276ef83ba83a1004845b1e979e0944abff3",
        "cd8c7ceef834a8f5eeeca0e8f720fa38f4",
    );
    let identifier = "I84502ce0d9a0a91bae29026b84e19be69fb4203a6bdd1424c85a43c812772a00";
    assert_eq!(home.ok(&["identity", "import", history, "controller"]), identifier);
    assert_eq!(home.ok(&["identity", "export", "controller"]), history);
    let full = home.json(&["identity", "show", "controller", "--full"]);
    assert_eq!(text(&full["changes"][0], "key_type"), "P-256");
    // Any bit of its signature counts.
    let mut forged = history.to_owned();
    let last = if forged.pop() == Some('0') { "1" } else { "0" };
    home.fails(64, &["identity", "import", &(forged + last)]);
    // Its key is in no vault of ours.
    home.ok(&["vault", "create"]);
    home.fails(78, &["identity", "import", history, "--vault", "default"]);
}
