//! Tunnels: what takes the connections of one program at its near end and makes them to another at its far end, as two
//! processes or two nodes. Ours, and those of others that are installed.

use crate::cleanup::Cleanup;
use crate::engine::Engine;
use crate::system::{Failed, Home, Owner, Setup, System, kill};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a tunnel may take to accept connections.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Connections that a HAProxy is asked to have at once: two descriptors each, of the 20,000 of a process.
pub const HAPROXY_CONNECTIONS: usize = 9800;

/// Loopback addresses that the far end of a HAProxy pair listens on.
const HOSTS: [&str; 4] = ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"];

/// Where the connections of a tunnel go.
#[derive(Debug, Clone, Copy)]
pub struct Targets {
    /// Something that takes streams, or sends them.
    pub sink: SocketAddr,
    /// Something that echoes.
    pub echo: SocketAddr,
}

/// A running tunnel; [`System::address`] leads to the sink.
pub struct Tunnel {
    /// Both ends.
    pub system: System,
    /// Leads to the echo.
    pub echo: SocketAddr,
}

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Two nodes with a secure channel, on this driver.
    Sealed(&'static str),
    /// Two nodes with a link.
    Plain(&'static str),
    /// Two HAProxies, `mode tcp`.
    HaproxyTcp,
    /// The same with TLS 1.3 between them, both authenticated.
    HaproxyTls,
    /// Two stunnels, TLS 1.3, both authenticated.
    Stunnel,
}

impl Kind {
    /// For tables and for what is left out.
    pub fn name(self) -> String {
        match self {
            Kind::Sealed(driver) => format!("ockam, sealed, {driver}"),
            Kind::Plain(driver) => format!("ockam, plain, {driver}"),
            Kind::HaproxyTcp => "HAProxy, TCP".into(),
            Kind::HaproxyTls => "HAProxy, TLS 1.3".into(),
            Kind::Stunnel => "stunnel, TLS 1.3".into(),
        }
    }

    /// Whether it is what this bench is for.
    pub fn is_ours(self) -> bool {
        matches!(self, Kind::Sealed(_) | Kind::Plain(_))
    }

    /// Starts it. `line` goes between its ends, if there is one: ours only.
    ///
    /// # Errors
    /// The first line says what is missing, if something is.
    pub fn start(self, setup: &Setup, targets: Targets, line: Option<Line<'_>>) -> Result<Tunnel, Failed> {
        let tunnel = match self {
            Kind::Sealed(driver) if setup.bare => Engine::tunnel(setup, driver, true, targets, line),
            Kind::Plain(driver) if setup.bare => Engine::tunnel(setup, driver, false, targets, line),
            Kind::Sealed(driver) => nodes(setup, driver, "/secure/api", targets, line),
            Kind::Plain(driver) => nodes(setup, driver, "", targets, line),
            Kind::HaproxyTcp => haproxy(setup, None, targets),
            Kind::HaproxyTls => haproxy(setup, Some(&Certificate::new()?), targets),
            Kind::Stunnel => stunnel(setup, &Certificate::new()?, targets),
        };
        let mut tunnel = tunnel?;
        tunnel.system.name = self.name();
        Ok(tunnel)
    }
}

/// Starts a line to an address, and says where it begins.
pub type Line<'a> = &'a dyn Fn(SocketAddr) -> Result<SocketAddr, Failed>;

/// Two nodes of the binary under test.
fn nodes(
    setup: &Setup,
    driver: &str,
    secure: &str,
    targets: Targets,
    line: Option<Line<'_>>,
) -> Result<Tunnel, Failed> {
    let home = Home::new(&setup.ockam)?;
    let (mut pids, mut facts) = (Vec::new(), Vec::new());
    let mut listener = None;
    for name in ["near", "far"] {
        let create = ["node", "create", name, "--tcp-listener-address", "127.0.0.1:0", "--threads", "1"];
        let made = setup.on_system_cpus(1, || {
            home.json(&[&create[..], &["--driver", driver]].concat()).map_err(std::io::Error::other)
        })?;
        let missing = |what: &str| Failed::new(format!("`node create` said no {what}: {made}"));
        for pid in [&made["engine"]["pid"], &made["pid"]] {
            let pid = pid.as_u64().and_then(|pid| u32::try_from(pid).ok());
            pids.push(pid.ok_or_else(|| missing("pid"))?);
        }
        let address = made["transports"][0]["socket_addr"].as_str().and_then(|text| text.parse::<SocketAddr>().ok());
        listener = Some(address.ok_or_else(|| missing("transports[0].socket_addr"))?);
        if name == "near" {
            let running = made["engine"]["driver"].as_str().unwrap_or("?").to_owned();
            facts = vec![
                ("driver", running),
                ("driver_reason", made["engine"]["driver_reason"].as_str().unwrap_or("?").to_owned()),
            ];
        }
    }
    let far = listener.ok_or(Failed::new("two nodes were started"))?;
    let far = line.map_or(Ok(far), |line| line(far))?;
    let way = format!("/ip4/{}/tcp/{}{secure}/service", far.ip(), far.port());
    let mut inlets = Vec::new();
    for (name, target) in [("to-sink", targets.sink), ("to-echo", targets.echo)] {
        home.run(&["tcp-outlet", "create", "--at", "far", "--to", &target.to_string(), "--from", name])?;
        let inlet = ["tcp-inlet", "create", "--at", "near", "--from", "127.0.0.1:0", "--to", &format!("{way}/{name}")];
        let said = home.run(&inlet)?;
        let address = said.trim().parse().map_err(|_| Failed::new(format!("`tcp-inlet create` said {said:?}")))?;
        inlets.push(address);
    }
    let [sink, echo] = inlets[..] else { return Err(Failed::new("two inlets were created")) };
    Ok(Tunnel {
        system: System { name: String::new(), address: sink, pids, facts, owner: Owner::Nodes { _home: home } },
        echo,
    })
}

/// A key and a certificate that vouches for itself, for both ends of a TLS tunnel.
struct Certificate {
    dir: tempfile::TempDir,
}

impl Certificate {
    fn new() -> Result<Certificate, Failed> {
        let dir = tempfile::tempdir()?;
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "cert.pem"])
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .output()
            .map_err(|error| Failed::new(format!("openssl: {error}")))?;
        if !made.status.success() {
            return Err(Failed::new(format!("openssl: {}", String::from_utf8_lossy(&made.stderr).trim())));
        }
        let (key, certificate) = (dir.path().join("key.pem"), dir.path().join("cert.pem"));
        std::fs::write(dir.path().join("both.pem"), [std::fs::read(certificate)?, std::fs::read(key)?].concat())?;
        Ok(Certificate { dir })
    }

    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }
}

/// A program that is installed, or what to install.
fn program(name: &str, package: &str) -> Result<PathBuf, Failed> {
    let places = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
    let found = places.iter().map(|place| Path::new(place).join(name)).find(|path| path.exists());
    found.ok_or_else(|| Failed::new(format!("{name} is not installed (Debian package {package})")))
}

/// A port that is free now.
fn free() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Near and far ends of the way to the sink, and of that to the echo.
struct Ends {
    sink: [SocketAddr; 2],
    echo: [SocketAddr; 2],
}

impl Ends {
    fn new() -> std::io::Result<Ends> {
        Ok(Ends { sink: [free()?, free()?], echo: [free()?, free()?] })
    }

    /// Starts the far and the near end by their configuration files.
    fn start(
        &self,
        setup: &Setup,
        dir: tempfile::TempDir,
        configurations: [String; 2],
        command: impl Fn(&Path) -> Command,
    ) -> Result<Tunnel, Failed> {
        let mut pids = Vec::new();
        let mut processes = Vec::new();
        let accept = [[self.sink[1], self.echo[1]], [self.sink[0], self.echo[0]]];
        for ((place, configuration), addresses) in configurations.into_iter().enumerate().zip(accept) {
            let file = dir.path().join(format!("{place}.cfg"));
            std::fs::write(&file, configuration)?;
            let log = std::fs::File::create(dir.path().join(format!("{place}.log")))?;
            let mut command = command(&file);
            command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
            let child = setup.on_system_cpus(1, || command.spawn())?;
            pids.push(child.id());
            let child = Arc::new(Mutex::new(child));
            processes.push(Cleanup::new({
                let child = child.clone();
                move || kill(&child)
            }));
            let limit = Instant::now() + START_LIMIT;
            for address in addresses {
                while TcpStream::connect(address).is_err() {
                    let ended = child.lock().expect("no holder panics").try_wait()?;
                    if ended.is_some() || Instant::now() > limit {
                        let log = std::fs::read_to_string(dir.path().join(format!("{place}.log"))).unwrap_or_default();
                        return Err(Failed::new(format!("it does not accept connections: {}", log.trim())));
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
        let owner = Owner::Processes { _processes: processes, _dir: dir };
        let system = System { name: String::new(), address: self.sink[0], pids, facts: Vec::new(), owner };
        Ok(Tunnel { system, echo: self.echo[0] })
    }
}

fn haproxy(setup: &Setup, tls: Option<&Certificate>, targets: Targets) -> Result<Tunnel, Failed> {
    let program = program("haproxy", "haproxy")?;
    let (ends, dir) = (Ends::new()?, tempfile::tempdir()?);
    let (mut bind, mut server, mut global) = (String::new(), String::new(), String::new());
    if let Some(certificate) = tls {
        // Copied: the certificate's directory is gone when this returns.
        for name in ["both.pem", "cert.pem"] {
            std::fs::copy(certificate.file(name), dir.path().join(name))?;
        }
        let (both, cert) = (dir.path().join("both.pem"), dir.path().join("cert.pem"));
        let files = format!("ssl crt {} ca-file {} verify required", both.display(), cert.display());
        (bind, server) = (files.clone(), files);
        global = "  ssl-default-bind-ciphersuites TLS_AES_256_GCM_SHA384\n  \
                  ssl-default-server-ciphersuites TLS_AES_256_GCM_SHA384\n  \
                  ssl-default-bind-options ssl-min-ver TLSv1.3\n  \
                  ssl-default-server-options ssl-min-ver TLSv1.3\n"
            .into();
    }
    let end = |bind: &str, bind_all: Option<[&str; 4]>, server: &str, ways: [(SocketAddr, SocketAddr); 2]| {
        let mut text = format!(
            "global\n  nbthread 1\n  maxconn {}\n  tune.bufsize 65536\n{global}defaults\n  mode tcp\n  \
             timeout connect 10s\n  timeout client 1h\n  timeout server 1h\n",
            HAPROXY_CONNECTIONS + 100
        );
        for (from, to) in ways {
            // What comes from the near end may use the ports of several addresses: more connections come in a second than
            // one has ports.
            let is_near = bind_all.is_none();
            let on =
                bind_all.map_or(from.to_string(), |all| all.map(|host| format!("{host}:{}", from.port())).join(","));
            text += &format!("listen l{}\n  bind {on} {bind}\n", from.port());
            let servers = if is_near { &HOSTS[..] } else { &HOSTS[..1] };
            for (place, host) in servers.iter().enumerate() {
                text += &format!("  server s{place} {host}:{} {server}\n", to.port());
            }
        }
        text
    };
    let near = end("", None, &server, [(ends.sink[0], ends.sink[1]), (ends.echo[0], ends.echo[1])]);
    let far = end(&bind, Some(HOSTS), "", [(ends.sink[1], targets.sink), (ends.echo[1], targets.echo)]);
    ends.start(setup, dir, [far, near], |file| {
        let mut command = Command::new(&program);
        command.arg("-db").arg("-f").arg(file);
        command
    })
}

fn stunnel(setup: &Setup, certificate: &Certificate, targets: Targets) -> Result<Tunnel, Failed> {
    let program = program("stunnel4", "stunnel4")?;
    let (ends, dir) = (Ends::new()?, tempfile::tempdir()?);
    for name in ["key.pem", "cert.pem"] {
        std::fs::copy(certificate.file(name), dir.path().join(name))?;
    }
    let place = dir.path().display();
    let end = |client: &str, ways: [(SocketAddr, SocketAddr); 2]| {
        let mut text = format!(
            "foreground = yes\npid =\nsyslog = no\ndebug = 3\nsslVersion = TLSv1.3\nciphersuites = TLS_AES_256_GCM_SHA384\n\
             cert = {place}/cert.pem\nkey = {place}/key.pem\nCAfile = {place}/cert.pem\nverifyChain = yes\n\
             socket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\nclient = {client}\n"
        );
        for (from, to) in ways {
            text += &format!("[w{}]\naccept = {from}\nconnect = {to}\n", from.port());
        }
        text
    };
    let near = end("yes", [(ends.sink[0], ends.sink[1]), (ends.echo[0], ends.echo[1])]);
    let far = end("no", [(ends.sink[1], targets.sink), (ends.echo[1], targets.echo)]);
    ends.start(setup, dir, [far, near], |file| {
        let mut command = Command::new(&program);
        command.arg(file);
        command
    })
}
