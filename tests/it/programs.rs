//! Programs as they are, which know nothing of portals, through two nodes of ours and a relay between them.

use ockam_tests::{Home, Place, Server, finish, give_to_unprivileged, is_root, noise, program, unprivileged};
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `n1` has an inlet; `n3` an outlet, and is reached by way of `n2`.
struct Way {
    home: Home,
    directory: tempfile::TempDir,
}

impl Way {
    #[track_caller]
    fn new() -> Way {
        let home = Home::new();
        ["n1", "n2", "n3"].iter().for_each(|name| drop(home.node(name, &[])));
        home.ok(&["relay", "create", "far", "--at", "/node/n2", "--to", "n3"]);
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        // Servers that run as somebody else find their files there.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("it is ours");
        Way { home, directory }
    }

    /// Where a program finds the server, as if it were on this machine.
    #[track_caller]
    fn to(&self, server: SocketAddr) -> SocketAddr {
        let outlet = self.home.outlet("n3", &Place::Tcp(server), &[]);
        let route = format!("/node/n2/service/forward_to_far/secure/api{outlet}");
        self.home.inlet("n1", &route, &[]).address()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    #[track_caller]
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("the directory is ours");
        path
    }
}

/// Whether somebody listens.
fn listens(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_ok()
}

#[track_caller]
fn run(command: &mut Command) -> String {
    finish(command, b"").ok()
}

fn command(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Writes a file that is the same nowhere: numbered blocks of noise.
fn large_file(path: &Path, bytes: u64) {
    const BLOCK: usize = 1 << 20;
    let mut block = noise(BLOCK, 1);
    let mut file = File::create(path).expect("the directory is ours");
    for number in 0..bytes / BLOCK as u64 {
        // In front and in the middle, so that no two halves are alike.
        for at in [0, BLOCK / 2] {
            block[at..at + 8].copy_from_slice(&(number * 2 + at as u64 / 8).to_be_bytes());
        }
        file.write_all(&block).expect("there is room for a large file");
    }
}

/// The hash of a file, by a program that is not ours.
#[track_caller]
fn hash(path: &Path) -> String {
    let said = run(Command::new("sha256sum").arg(path));
    said.split(' ').next().expect("a hash").to_owned()
}

#[test]
fn curl_gets_a_gibibyte_from_a_web_server() {
    const BYTES: u64 = 1 << 30;
    let (Some(nginx), Some(curl)) = (program("nginx"), program("curl")) else { return };
    let way = Way::new();
    large_file(&way.path("body"), BYTES);
    fs::write(way.path("small"), "hello").unwrap();
    let (address, root) = (way.home.free(), way.directory.path().display().to_string());
    let temporary =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|it| format!("{it}_temp_path {root}/{it};"));
    let configuration = format!(
        "daemon off; master_process off; pid {root}/pid; error_log {root}/error;
         events {{ worker_connections 64; }}
         http {{ access_log off; {}
                 server {{ listen {address}; root {root}; client_max_body_size 0;
                           location /up {{ root {root}; dav_methods PUT; }} }} }}",
        temporary.join(" ")
    );
    let configuration = way.write("nginx.conf", &configuration);
    let arguments = ["-p", &root, "-e", &format!("{root}/error"), "-c", configuration.to_str().unwrap()];
    let mut server = Server::start(&mut command(&nginx, &arguments));
    server.wait_until(|| listens(address));
    let at = way.to(address);
    let url = |name: &str| format!("http://{at}/{name}");
    assert_eq!(run(&mut command(&curl, &["-sSf", &url("small")])), "hello");
    let script = format!("curl -sSf {} | sha256sum", url("body"));
    let came = run(&mut command(Path::new("bash"), &["-euo", "pipefail", "-c", &script]));
    assert_eq!(came.split(' ').next(), Some(hash(&way.path("body")).as_str()));
    // Several at once, and by ranges; each its own connections.
    let range = |from: u64, to: u64| {
        let header = format!("Range: bytes={from}-{to}");
        run(&mut command(&curl, &["-sSf", "-H", &header, "-o", &format!("{root}/{from}"), &url("body")]));
        assert_eq!(fs::metadata(way.path(&from.to_string())).unwrap().len(), to - from + 1);
    };
    std::thread::scope(|scope| {
        for part in 0..4 {
            scope.spawn(move || range(part << 24, ((part + 1) << 24) - 1));
        }
    });
    // What is not there is said by the server, not by the portal.
    let missing = finish(&mut command(&curl, &["-sS", "-o", "/dev/null", "-w", "%{http_code}", &url("missing")]), b"");
    assert_eq!(missing.ok(), "404");
}

#[test]
fn redis_is_used_by_many_clients_at_once() {
    let (Some(redis), Some(benchmark)) = (program("redis-server"), program("redis-benchmark")) else { return };
    let way = Way::new();
    let address = way.home.free();
    let (port, directory) = (address.port().to_string(), way.directory.path().display().to_string());
    let mut server = Server::start(&mut command(
        &redis,
        &["--port", &port, "--bind", "127.0.0.1", "--dir", &directory, "--save", "", "--appendonly", "no"],
    ));
    server.wait_until(|| listens(address));
    let port = way.to(address).port().to_string();
    for (clients, more) in [("50", &[][..]), ("50", &["-P", "16"]), ("4", &["-d", "100000"])] {
        let arguments = ["-p", &port, "-t", "set,get", "-n", "10000", "-c", clients, "--csv"];
        let said = run(&mut command(&benchmark, &[&arguments[..], more].concat()));
        let rates: Vec<f64> = said.lines().skip(1).filter_map(|it| it.split('"').nth(3)?.parse().ok()).collect();
        assert!(rates.len() == 2 && rates.iter().all(|rate| *rate > 0.0), "{said}");
    }
}

#[test]
fn postgresql_does_its_transactions() {
    let tools = ["initdb", "postgres", "psql", "pgbench"].map(program);
    let [Some(initdb), Some(postgres), Some(psql), Some(pgbench)] = tools else { return };
    let way = Way::new();
    let (address, directory) = (way.home.free(), way.path("database"));
    fs::create_dir(&directory).unwrap();
    give_to_unprivileged(&directory);
    let data = directory.join("data");
    let arguments = ["--username", "postgres", "--auth", "trust", "--no-sync", "--no-locale", "--pgdata"];
    run(unprivileged(&initdb, &directory).args(arguments).arg(&data));
    let mut command = unprivileged(&postgres, &directory);
    command.arg("-D").arg(&data).arg("-p").arg(address.port().to_string());
    let sockets = format!("unix_socket_directories={}", directory.display());
    let mut server =
        Server::start(command.args(["-c", &sockets, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]));
    let port = way.to(address).port().to_string();
    let here = |program: &Path, more: &[&str]| {
        let mut command = self::command(program, &["-h", "127.0.0.1", "-p", &port, "-U", "postgres"]);
        command.args(more).env("PGDATABASE", "postgres");
        command
    };
    let sql = |text: &str| finish(&mut here(&psql, &["-Atc", text]), b"");
    server.wait_until(|| sql("select 1").code == Some(0));
    run(&mut here(&pgbench, &["--initialize", "--quiet"]));
    let said = run(&mut here(&pgbench, &["--client", "8", "--transactions", "100"]));
    assert!(said.contains("actually processed: 800/800"), "{said}");
    let sums = "select count(*), sum(delta) = (select sum(abalance) from pgbench_accounts) from pgbench_history";
    assert_eq!(sql(sums).ok().trim(), "800|t");
}

#[test]
fn ssh_and_rsync_reach_another_machine() {
    let [Some(sshd), Some(ssh), Some(keygen), Some(rsync)] = ["sshd", "ssh", "ssh-keygen", "rsync"].map(program) else {
        return;
    };
    let way = Way::new();
    let (address, at) = (way.home.free(), |name: &str| way.path(name).display().to_string());
    for key in ["host", "user"] {
        run(&mut command(&keygen, &["-q", "-t", "ed25519", "-N", "", "-f", &at(key)]));
    }
    if is_root() {
        // Where it keeps who is not logged in yet; the system makes it when the service starts.
        fs::create_dir_all("/run/sshd").expect("root may make directories");
    }
    let configuration = format!(
        "ListenAddress 127.0.0.1\nPort {}\nHostKey {}\nPidFile none\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
         PasswordAuthentication no\nPermitRootLogin prohibit-password\n",
        address.port(),
        at("host"),
        at("user.pub"),
    );
    let configuration = way.write("sshd_config", &configuration);
    let mut server = Server::start(&mut command(&sshd, &["-D", "-e", "-f", configuration.to_str().unwrap()]));
    server.wait_until(|| listens(address));
    let port = way.to(address).port().to_string();
    let user = run(Command::new("id").arg("-un"));
    let there = format!("{}@127.0.0.1", user.trim());
    let (known, key) = (format!("UserKnownHostsFile={}", at("known")), at("user"));
    let options = ["-F", "none", "-p", &port, "-i", &key, "-o", "IdentitiesOnly=yes", "-o", &known];
    let options = [&options[..], &["-o", "StrictHostKeyChecking=accept-new", "-o", "BatchMode=yes"]].concat();
    let shell = [&options[..], &[&there]].concat();
    assert_eq!(run(command(&ssh, &shell).arg("echo hello")), "hello\n");
    // What is said to it comes back, and its exit code is its own.
    let said = finish(command(&ssh, &shell).arg("tr a-z A-Z; exit 7"), b"hello");
    assert_eq!((said.code, said.stdout.as_str()), (Some(7), "HELLO"), "{said:?}");

    fs::create_dir(way.path("tree")).unwrap();
    for number in 0..50_u64 {
        fs::write(way.path(&format!("tree/{number}")), noise(number as usize * 4000, number)).unwrap();
    }
    large_file(&way.path("tree/large"), 64 << 20);
    let remote_shell = format!("{} {}", ssh.display(), options.join(" "));
    let sync = |from: &str, to: &str| run(&mut command(&rsync, &["-a", "-e", &remote_shell, from, to]));
    sync(&format!("{}/", at("tree")), &format!("{there}:{}/", at("there")));
    sync(&format!("{there}:{}/", at("there")), &format!("{}/", at("back")));
    run(&mut command(Path::new("diff"), &["-r", &at("tree"), &at("back")]));
    // The second time next to nothing goes through, which takes a conversation in both directions.
    fs::write(way.path("tree/0"), "changed").unwrap();
    sync(&format!("{}/", at("tree")), &format!("{there}:{}/", at("there")));
    assert_eq!(fs::read_to_string(way.path("there/0")).unwrap(), "changed");
}

#[test]
fn iperf3_measures_both_directions() {
    const BYTES: u64 = 256 << 20;
    let Some(iperf) = program("iperf3") else { return };
    let way = Way::new();
    let address = way.home.free();
    let port = address.port().to_string();
    // A connection that says nothing would count as a test to it, so nobody looks whether it is ready.
    let _server = Server::start(&mut command(&iperf, &["--server", "--port", &port, "--bind", "127.0.0.1"]));
    let port = way.to(address).port().to_string();
    for direction in [&[][..], &["--reverse"], &["--bidir"], &["--parallel", "8"]] {
        let bytes = BYTES.to_string();
        let arguments = ["--client", "127.0.0.1", "--port", &port, "--json", "--bytes", &bytes];
        let mut last = None;
        // It takes one test at a time, and is a little late to be ready and to be free again.
        ockam_tests::wait_until(
            || {
                let output = finish(&mut command(&iperf, &[&arguments[..], direction].concat()), b"");
                let free =
                    !["server is busy", "unable to", "control socket"].iter().any(|it| output.stdout.contains(it));
                last = Some(output);
                free
            },
            || "the server is busy".into(),
        );
        let report: serde_json::Value = serde_json::from_str(&last.unwrap().ok()).unwrap();
        // Those of the other direction are there when both are tried at once.
        let bytes = |sum: &str| {
            let both = [sum.to_owned(), format!("{sum}_bidir_reverse")];
            both.iter().filter_map(|sum| report["end"][sum]["bytes"].as_f64()).sum::<f64>()
        };
        // It ends when one is through, and does not count what is under way then.
        let (sent, received) = (bytes("sum_sent"), bytes("sum_received"));
        assert!(sent >= BYTES as f64 && received > 0.0 && received <= sent, "{direction:?}: {}", report["end"]);
    }
}
