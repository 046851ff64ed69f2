//! The command under test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::SystemTime;

/// The `ockam` command: the one that `OCKAM_BIN` names, else that of the profile of this test, built if it is missing or
/// older than its sources. Cargo builds the commands of a package for tests of that package only.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("OCKAM_BIN") {
        Some(path) => {
            let path = std::path::absolute(path).expect("there is a current directory");
            assert!(path.is_file(), "OCKAM_BIN names no file: {}", path.display());
            path
        }
        None => beside_this_test(),
    })
}

fn beside_this_test() -> PathBuf {
    // target[/TRIPLE]/PROFILE/deps/it-HASH
    let this = std::env::current_exe().expect("this program has a path");
    let directory = this.ancestors().nth(2).expect("a test lies two directories deep in its target directory");
    let command = directory.join("ockam");
    if is_fresh(&command) {
        return command;
    }
    // Each test may be a process of its own: one builds, the others wait and find it fresh.
    let lock = File::create(directory.join(".ockam-tests.lock")).expect("the target directory can be written");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("a file can be locked");
    if !is_fresh(&command) {
        build(directory);
    }
    assert!(is_fresh(&command), "cargo built something, but not {}", command.display());
    command
}

/// Whether the command is newer than all that cargo says it was built from.
fn is_fresh(command: &Path) -> bool {
    let modified = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    let (Ok(built), Ok(rule)) = (modified(command), fs::read_to_string(command.with_extension("d"))) else {
        return false;
    };
    let sources = rule.split_once(": ").map_or("", |(_, sources)| sources).trim().replace("\\ ", "\0");
    let manifests = ["Cargo.toml", "Cargo.lock"].map(|name| workspace().join(name));
    let mut sources = sources.split(' ').map(|path| PathBuf::from(path.replace('\0', " "))).chain(manifests);
    // A source that is gone was part of another version.
    sources.all(|source| modified(&source).unwrap_or(SystemTime::now()) <= built)
}

fn build(directory: &Path) {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--package", "ockam", "--bin", "ockam"]);
    cargo.arg("--manifest-path").arg(workspace().join("Cargo.toml"));
    let profile = directory.file_name().and_then(|name| name.to_str()).expect("profiles have names of letters");
    cargo.args(["--profile", if profile == "debug" { "dev" } else { profile }]);
    let mut target = directory.parent().expect("a profile lies in a target directory");
    if !target.join("CACHEDIR.TAG").exists() {
        let triple = target.file_name().and_then(|name| name.to_str()).expect("triples are letters");
        cargo.args(["--target", triple]);
        target = target.parent().expect("a triple lies in a target directory");
    }
    let status = cargo.arg("--target-dir").arg(target).stdin(Stdio::null()).status().expect("cargo can be run");
    assert!(status.success(), "the `ockam` command does not build; set OCKAM_BIN to test another one");
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package lies in a workspace")
}
