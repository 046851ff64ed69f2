//! `docs/trust.md` does what it says: its commands are run as they are written there.

use ockam_tests::{Home, Network, Output, Server, finish, give_to_unprivileged, program, unprivileged, wait_until};
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// What is cut off within seconds is cut off before this, also on a busy machine; what it took is printed.
const LIMIT: Duration = Duration::from_secs(25);

/// The blocks of commands, each with whose they are: what follows `sh` behind the three accents.
fn blocks() -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/trust.md");
    let text = fs::read_to_string(path).expect("docs/trust.md exists");
    let fenced = text.split("\n```").skip(1).step_by(2);
    let blocks = fenced.filter_map(|block| {
        let (head, commands) = block.split_once('\n')?;
        Some((head.strip_prefix("sh ")?.to_owned(), commands.to_owned()))
    });
    blocks.collect()
}

/// The two machines, and the users who do something on them.
struct Machines {
    network: Network,
    homes: BTreeMap<&'static str, Home>,
    directory: tempfile::TempDir,
}

impl Machines {
    fn new() -> Option<Machines> {
        let network = Network::new().map_err(|why| ockam_tests::skip(&why)).ok()?;
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        // The database finds its files as somebody else.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("it is ours");
        let users = ["authority", "db", "app"];
        users.iter().for_each(|user| fs::create_dir(directory.path().join(user)).expect("the directory is ours"));
        let machines = Machines { network, homes: users.map(|user| (user, Home::new())).into(), directory };
        // There is no ssh between them.
        let scp = machines.path("bin/scp");
        fs::create_dir(machines.path("bin")).expect("the directory is ours");
        fs::write(&scp, "#!/bin/sh\nset -eu\ncp -- \"$1\" \"$MACHINES/${2%@*}/\"\n").expect("the directory is ours");
        fs::set_permissions(&scp, Permissions::from_mode(0o755)).expect("it is ours");
        Some(machines)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The namespace of a user's machine.
    fn side(&self, user: &str) -> &str {
        if user == "app" { self.network.left() } else { self.network.right() }
    }

    /// Runs commands as a user, who is where its files are.
    #[track_caller]
    fn run(&self, user: &str, commands: &str) -> Output {
        let home = self.homes.get(user).unwrap_or_else(|| panic!("docs/trust.md has a block for {user:?}"));
        let enter = format!("--net=/run/netns/{}", self.side(user));
        let script = format!("PATH={}:$PATH\n{commands}", self.path("bin").display());
        let mut command = home.around("nsenter", &[&enter, "bash", "-euo", "pipefail", "-c", &script]);
        finish(command.current_dir(self.path(user)).env("MACHINES", self.directory.path()), b"")
    }

    /// Whether the database answers the application.
    fn answers(&self) -> bool {
        let psql = "psql --host 127.0.0.1 --port 15432 --username postgres --tuples-only --command 'select 6 * 7'";
        let output = self.run("app", psql);
        assert!(output.code != Some(0) || output.stdout.trim() == "42", "{output:?}");
        output.code == Some(0)
    }

    /// A connection of an application that says nothing yet.
    #[track_caller]
    fn connection(&self) -> TcpStream {
        self.network.within(self.side("app"), || TcpStream::connect("127.0.0.1:15432")).expect("the inlet listens")
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        // While the namespaces are there.
        self.homes.clear();
    }
}

/// Waits until a connection is cut off, which it must be within [`LIMIT`].
#[track_caller]
fn is_cut(mut connection: TcpStream, why: &str) {
    let since = Instant::now();
    connection.set_read_timeout(Some(LIMIT)).expect("a timeout can be set");
    let read = connection.read(&mut [0; 64]);
    eprintln!("{why}: cut off after {:?}", since.elapsed());
    match read {
        Ok(0) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        other => panic!("{why}: the connection goes on: {other:?}"),
    }
}

#[test]
fn a_database_is_guarded_as_the_document_says() {
    let tools = ["initdb", "postgres", "psql", "jq"].map(program);
    let [Some(initdb), Some(postgres), Some(_), Some(_)] = tools else { return };
    let Some(machines) = Machines::new() else { return };
    let directory = machines.path("database");
    fs::create_dir(&directory).unwrap();
    give_to_unprivileged(&directory);
    let data = directory.join("data");
    let arguments = ["--username", "postgres", "--auth", "trust", "--no-sync", "--no-locale", "--pgdata"];
    finish(unprivileged(&initdb, &directory).args(arguments).arg(&data), b"").ok();
    let sockets = format!("unix_socket_directories={}", directory.display());
    let server = unprivileged(&postgres, &directory);
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", machines.side("db"))).arg(server.get_program()).args(server.get_args());
    command.arg("-D").arg(&data).args([
        "-p",
        "5432",
        "-c",
        &sockets,
        "-c",
        "listen_addresses=127.0.0.1",
        "-c",
        "fsync=off",
    ]);
    let mut server = Server::start(command.current_dir(&directory));
    let local = "psql --host 127.0.0.1 --port 5432 --username postgres --command 'select 1'";
    server.wait_until(|| machines.run("db", local).code == Some(0));
    // What the document promises to protect from: nobody reaches the database from the other machine.
    assert_ne!(machines.run("app", &local.replace("127.0.0.1", "10.77.0.2")).code, Some(0));

    let blocks = blocks();
    let users: Vec<&str> = blocks.iter().map(|(user, _)| user.as_str()).collect();
    let expected = ["authority", "authority", "db", "app", "db", "db", "db", "authority", "authority"];
    assert_eq!(users, expected, "what is checked between the blocks has to be changed with them");
    let mut blocks = blocks.iter();
    let mut next = |count: usize| {
        for (user, commands) in blocks.by_ref().take(count) {
            eprintln!("{user}:\n{commands}{}", machines.run(user, commands).ok());
        }
    };
    // The last command of these four is `psql`.
    next(4);
    assert!(machines.answers());
    next(1);
    let connection = machines.connection();
    assert!(machines.answers());
    next(1);
    is_cut(connection, "another policy");
    assert!(!machines.answers(), "who is not admitted any more is answered");
    next(1);
    wait_until(|| machines.answers(), || "who is admitted again is not answered".into());
    let connection = machines.connection();
    assert!(machines.answers());
    next(1);
    is_cut(connection, "a member was taken out");
    assert!(!machines.answers(), "who is no member any more is answered");
    next(1);
    wait_until(|| machines.answers(), || "who is a member again is not answered".into());
}
