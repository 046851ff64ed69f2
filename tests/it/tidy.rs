//! What holds for the repository itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Every file with this extension that is ours, with its path in the repository.
fn files(extension: &str) -> BTreeMap<PathBuf, String> {
    fn walk(directory: &Path, extension: &str, found: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !["target", ".git", "corpus", "artifacts", "results"].contains(&name.as_str()) {
                    walk(&path, extension, found);
                }
            } else if name.ends_with(extension) {
                let text = fs::read_to_string(&path).unwrap();
                found.insert(path.strip_prefix(workspace()).unwrap().to_owned(), text);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(workspace(), extension, &mut found);
    assert!(!found.is_empty());
    found
}

/// A source without its comments and strings, line by line. Enough of a reader for the code of this repository.
fn code(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut kept = String::new();
        let (mut in_string, mut escaped) = (false, false);
        let mut chars = line.chars().peekable();
        while let Some(char) = chars.next() {
            match char {
                _ if escaped => escaped = false,
                '\\' if in_string => escaped = true,
                '"' => in_string = !in_string,
                '/' if !in_string && chars.peek() == Some(&'/') => break,
                _ if !in_string => kept.push(char),
                _ => {}
            }
        }
        lines.push(kept);
    }
    lines
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|char: char| !char.is_alphanumeric() && char != '_').any(|part| part == word)
}

/// `unsafe` has an address: the engine's input and output, and the allocator of the bench that counts.
#[test]
fn unsafe_code_has_one_place() {
    let mut in_place = 0;
    for (path, text) in files(".rs") {
        let allowed = path.starts_with("engine/src/io") || path.ends_with("bench/src/bin/ockam-bench-engine.rs");
        let uses: Vec<usize> = code(&text)
            .iter()
            .enumerate()
            .filter(|(_, line)| has_word(line, "unsafe"))
            .map(|(number, _)| number + 1)
            .collect();
        in_place += if allowed { uses.len() } else { 0 };
        assert!(allowed || uses.is_empty(), "{}: unsafe in lines {uses:?}", path.display());
    }
    assert!(in_place > 0, "this test sees no unsafe code, not even where it is");
    // Elsewhere the compiler sees to it, too: every crate and every program says so, or inherits it from one that does.
    for (path, text) in files(".rs") {
        let is_root = path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
        let exempt =
            path.starts_with("engine/src") || path.starts_with("bench/src") || path.starts_with("tests/interop");
        let forbids = text.contains("#![forbid(unsafe_code)]");
        assert!(!is_root || exempt || forbids, "{} does not forbid unsafe code", path.display());
    }
}

/// The crates that are linked into a package as it is built alone, itself excluded.
fn linked(package: &str) -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "tree",
        "--package",
        package,
        "--edges",
        "normal,no-proc-macro",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]);
    cargo.args(["--target", "x86_64-unknown-linux-gnu", "--locked", "--offline"]);
    let output = cargo.arg("--manifest-path").arg(workspace().join("Cargo.toml")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let names = lines.lines().filter_map(|line| line.split(' ').next()).filter(|name| !name.is_empty());
    names.filter(|name| *name != package).map(str::to_owned).collect()
}

/// The engine parses frames and nothing else, and is small enough to be read.
#[test]
fn the_engine_links_little() {
    let linked = linked("ockam-engine");
    assert!(linked.contains("ockam-wire") && linked.contains("rustix"), "{linked:?}");
    let never = [
        "tokio",
        "mio",
        "async-std",
        "smol",
        "futures",
        "serde",
        "serde_json",
        "minicbor",
        "ciborium",
        "rusqlite",
        "libsqlite3-sys",
        "hyper",
        "axum",
        "rustls",
        "native-tls",
        "openssl",
        "hickory-resolver",
        "trust-dns-resolver",
        "ed25519-dalek",
        "x25519-dalek",
        "etcd-client",
        "clap",
        "tracing",
        "regex",
        "ockam",
    ];
    for name in never {
        assert!(!linked.contains(name), "the engine links {name}");
    }
    assert!(linked.len() <= 25, "the engine links {} crates: {linked:?}", linked.len());
}

/// Arrows between our crates point one way: from control to the engine and its interface, never back.
#[test]
fn crates_depend_in_one_direction() {
    let ours = |package: &str| -> Vec<String> {
        let linked = linked(package);
        linked.into_iter().filter(|name| name == "ockam" || name.starts_with("ockam-")).collect()
    };
    assert_eq!(ours("ockam-wire"), Vec::<String>::new());
    assert_eq!(ours("ockam-policy"), Vec::<String>::new());
    assert!(ours("ockam-engine-abi").iter().all(|name| name == "ockam-wire"));
    assert!(
        ours("ockam-engine")
            .iter()
            .all(|name| ["ockam-wire", "ockam-engine-abi", "ockam-crypto"].contains(&name.as_str()))
    );
    for package in ["ockam", "ockam-engine"] {
        for tool in ["ockam-bench", "ockam-tests"] {
            assert!(!ours(package).iter().any(|name| name == tool), "{package} links {tool}");
        }
    }
}

/// What the engine's README names as `file::function` is there.
#[test]
fn functions_named_in_the_readme_exist() {
    let readme = fs::read_to_string(workspace().join("engine/README.md")).expect("engine/README.md exists");
    let sources: BTreeMap<PathBuf, String> =
        files(".rs").into_iter().filter(|(path, _)| path.starts_with("engine/src")).collect();
    let mut checked = 0;
    let names = readme.split('`').skip(1).step_by(2).filter(|name| name.contains("::") && !name.contains(' '));
    // This one says how they are written.
    for name in names.filter(|name| *name != "file::function") {
        let name = name.trim_end_matches("()");
        let (place, function) = name.rsplit_once("::").unwrap();
        // `core/ingest::on_data`, `core/ingest.rs::on_data` or `path/route::Verdict::decide`.
        let file = place.split("::").next().unwrap().trim_end_matches(".rs");
        let in_file = |path: &Path| {
            let path = path.strip_prefix("engine/src").unwrap().with_extension("");
            path.ends_with(file) || path.ends_with(Path::new(file).join("mod"))
        };
        let found = sources.iter().filter(|(path, _)| in_file(path)).any(|(_, text)| {
            let text = code(text).join("\n");
            [format!("fn {function}("), format!("fn {function}<")].iter().any(|it| text.contains(it))
        });
        assert!(found, "engine/README.md names `{name}`, which does not exist");
        checked += 1;
    }
    assert!(checked >= 10, "engine/README.md names only {checked} functions of its paths");
}

/// Every test that the threat model names is there.
#[test]
fn claims_of_the_threat_model_have_their_tests() {
    let model = fs::read_to_string(workspace().join("docs/threat-model.md")).expect("docs/threat-model.md exists");
    let sources = files(".rs");
    let mut checked = BTreeSet::new();
    for line in model.lines().filter(|line| line.starts_with("| ") && line.matches('|').count() == 3) {
        let (_, held_by) = line.trim_matches('|').split_once('|').expect("two columns");
        let names: Vec<&str> = held_by.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty() || held_by.trim() == "held by", "a claim without a test: {line}");
        for name in names {
            let (file, test) = name.split_once("::").unwrap_or_else(|| panic!("`{name}` is not file::test"));
            let text = sources.get(Path::new(file)).unwrap_or_else(|| panic!("`{name}`: there is no such file"));
            // A function, or the body of one that a macro writes for each driver.
            let found = code(text).iter().any(|line| {
                let line = line.trim_start();
                let rest = line.strip_prefix("fn ").unwrap_or(line).strip_prefix(test);
                rest.is_some_and(|rest| rest.starts_with('(') && (line.starts_with("fn ") || rest.ends_with(") {")))
            });
            assert!(found, "docs/threat-model.md names `{name}`, which does not exist");
            checked.insert(name);
        }
    }
    assert!(checked.len() >= 40, "docs/threat-model.md names only {} tests", checked.len());
}

/// Every Markdown link to a file of the repository leads somewhere.
#[test]
fn links_in_the_documentation_lead_somewhere() {
    for (path, text) in files(".md") {
        let directory = workspace().join(path.parent().unwrap());
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = target.split('#').next().unwrap();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            assert!(directory.join(target).exists(), "{} links to {target}, which does not exist", path.display());
        }
    }
}

/// Time is read in one place of the engine, so that everything else can be given any time.
#[test]
fn the_engine_reads_time_in_one_place() {
    for (path, text) in files(".rs") {
        if !path.starts_with("engine/src") || path.ends_with("clock.rs") {
            continue;
        }
        // What follows is tests.
        let text = text.split("#[cfg(test)]").next().unwrap();
        for (number, line) in code(text).iter().enumerate() {
            for clock in ["Instant::now", "SystemTime::now", "clock_gettime"] {
                assert!(!line.contains(clock), "{}:{} reads the time", path.display(), number + 1);
            }
        }
    }
}
