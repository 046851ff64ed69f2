//! Nodes with portals and relays, and what goes through them.

use crate::{Home, Kind, ManagedNode, Middle, OurNode, PATIENCE, noise};
use ockam::identity::Identifier;
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long a node may take to find out that its way is broken, and to repair it: a real one needs 40 s for the first
/// (`wire.md` N.2) and up to 30 s for each attempt.
pub const RECOVERY: Duration = Duration::from_secs(150);

/// A node of either kind that has portals and relays.
#[expect(clippy::large_enum_variant, reason = "a test holds a handful of them")]
pub enum PortalNode {
    /// The real library's.
    Real(ManagedNode),
    /// This project's.
    Ours(OurNode),
}

impl PortalNode {
    /// Whose node it is.
    pub fn kind(&self) -> Kind {
        match self {
            PortalNode::Real(_) => Kind::Real,
            PortalNode::Ours(_) => Kind::Ours,
        }
    }

    /// Starts a node.
    pub fn start(kind: Kind) -> PortalNode {
        match kind {
            Kind::Real => PortalNode::Real(ManagedNode::start()),
            Kind::Ours => PortalNode::Ours(OurNode::start()),
        }
    }

    /// Starts a node that believes the authority with this history, and guards its services by its policies. It has no
    /// credential of its own.
    #[track_caller]
    pub fn believing(kind: Kind, authority: &[u8]) -> PortalNode {
        match kind {
            Kind::Real => {
                let mut node = ManagedNode::start();
                node.believe(authority);
                PortalNode::Real(node)
            }
            Kind::Ours => {
                let authority = hex::encode(authority);
                PortalNode::Ours(Home::new().node_with("ours", &["--authority-identity", &authority]))
            }
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        match self {
            PortalNode::Real(node) => node.address(),
            PortalNode::Ours(node) => node.address(),
        }
    }

    /// Creates an outlet at an address of the node.
    #[track_caller]
    pub fn outlet(&self, address: &str, to: SocketAddr) {
        self.outlet_for(address, to, None);
    }

    /// Creates an outlet for whom `policy` admits.
    #[track_caller]
    pub fn outlet_for(&self, address: &str, to: SocketAddr, policy: Option<&str>) {
        match self {
            PortalNode::Real(node) => node.outlet_for(address, to, policy),
            PortalNode::Ours(node) => {
                let to = to.to_string();
                let mut create = vec!["tcp-outlet", "create", "--at", node.name(), "--from", address, "--to", &to];
                create.extend(policy.into_iter().flat_map(|policy| ["--allow", policy]));
                assert_eq!(node.home().ok(&create).trim_end(), format!("/service/{address}"));
            }
        }
    }

    /// Says who may use a service or an outlet that there is.
    #[track_caller]
    pub fn allow(&self, resource: &str, policy: &str) {
        match self {
            PortalNode::Real(node) => node.allow(resource, policy),
            PortalNode::Ours(node) => {
                let create = ["policy", "create", "--at", node.name(), "--resource", resource, "--allow", policy];
                node.home().ok(&create);
            }
        }
    }

    /// Creates an inlet whose route ends in an outlet's address. Tells where it listens.
    #[track_caller]
    pub fn inlet(&self, alias: &str, to: &str) -> SocketAddr {
        match self {
            PortalNode::Real(node) => node.inlet(alias, to),
            PortalNode::Ours(node) => {
                let from = node.home().free();
                let create =
                    ["tcp-inlet", "create", "--at", node.name(), "--alias", alias, "--from", &from, "--to", to];
                let printed = node.home().ok(&create);
                printed.trim_end().parse().unwrap_or_else(|e| panic!("printed {printed:?}: {e}"))
            }
        }
    }

    /// Registers a relay for itself at the node that `at` leads to.
    #[track_caller]
    pub fn relay(&self, name: &str, at: &str) {
        match self {
            PortalNode::Real(node) => node.relay(name, at),
            PortalNode::Ours(node) => {
                let printed = node.home().ok(&["relay", "create", name, "--at", at, "--to", node.name()]);
                assert_eq!(printed.trim_end(), format!("/service/forward_to_{name}"));
            }
        }
    }

    /// Whether it can register a relay for itself there.
    pub fn tries_relay(&self, name: &str, at: &str) -> bool {
        match self {
            PortalNode::Real(node) => node.tries_relay(name, at),
            PortalNode::Ours(node) => {
                // A relay that cannot be registered in 10 s is there all the same, and is tried again.
                let create = ["relay", "create", name, "--at", at, "--to", node.name()];
                node.home().ockam(&create).code == Some(0) && is_up(node, &["relay", "show", name, "--to", node.name()])
            }
        }
    }

    /// Who it is.
    pub fn identifier(&self) -> Identifier {
        match self {
            PortalNode::Real(node) => node.identifier().clone(),
            PortalNode::Ours(node) => node.identifier().as_str().try_into().expect("an identifier"),
        }
    }

    /// An attribute of somebody, by the word of the authority that it believes.
    #[track_caller]
    pub fn attested(&self, subject: &Identifier, attribute: &str) -> Option<String> {
        match self {
            PortalNode::Real(node) => node.attested(subject)?.attributes.remove(attribute),
            PortalNode::Ours(node) => {
                let known = node.attested(&subject.to_string())?;
                known["attributes"][attribute].as_str().map(str::to_owned)
            }
        }
    }

    /// Gives its identity another key. It goes on as who it was.
    #[track_caller]
    pub fn rotate(&self) {
        match self {
            PortalNode::Real(node) => node.rotate(),
            PortalNode::Ours(node) => drop(node.home().ok(&["identity", "rotate"])),
        }
    }

    /// Until when it believes what the authority says of somebody, in seconds of Unix time.
    #[track_caller]
    pub fn attested_until(&self, subject: &Identifier) -> Option<u64> {
        match self {
            PortalNode::Real(node) => node.attested(subject).map(|attested| attested.expires_at),
            PortalNode::Ours(node) => node.attested(&subject.to_string())?["expires_at"].as_u64(),
        }
    }

    /// Whether it holds the way of an inlet to be up.
    #[track_caller]
    pub fn inlet_is_up(&self, alias: &str) -> bool {
        match self {
            PortalNode::Real(node) => node.inlet_is_up(alias),
            PortalNode::Ours(node) => is_up(node, &["tcp-inlet", "show", alias, "--at", node.name()]),
        }
    }

    /// Whether it holds the way of a relay to be up.
    #[track_caller]
    pub fn relay_is_up(&self, name: &str) -> bool {
        match self {
            PortalNode::Real(node) => node.relay_is_up(name),
            PortalNode::Ours(node) => is_up(node, &["relay", "show", name, "--to", node.name()]),
        }
    }

    /// Ends it.
    #[track_caller]
    pub fn stop(&mut self) {
        match self {
            PortalNode::Real(node) => node.stop(),
            PortalNode::Ours(node) => node.stop(),
        }
    }

    /// Starts it again where it listened. Ours comes back with its inlets, outlets and relays, a real one without.
    #[track_caller]
    pub fn start_again(&mut self) {
        match self {
            PortalNode::Real(node) => node.start_again(),
            PortalNode::Ours(node) => node.start_again(),
        }
    }
}

#[track_caller]
fn is_up(node: &OurNode, show: &[&str]) -> bool {
    let printed = node.home().ok(&[show, &["--output", "json"]].concat());
    let shown: Value = serde_json::from_str(&printed).expect("`show --output json` prints JSON");
    match shown["status"].as_str() {
        Some("up") => true,
        Some("down") => false,
        _ => panic!("no status in {shown:#}"),
    }
}

/// A TCP address as the beginning of a route.
pub fn over_tcp(address: SocketAddr) -> String {
    format!("/ip4/{}/tcp/{}", address.ip(), address.port())
}

/// An inlet on one node, an outlet on another, and a connection between them that a test can see.
pub struct Portal {
    /// Where the inlet is. Its alias is `inlet`.
    pub near: PortalNode,
    /// Where the outlet is. Its address is `outlet`.
    pub far: PortalNode,
    /// Between them; the near node dials.
    pub middle: Middle,
    /// Behind the outlet.
    pub target: Target,
    /// Where the inlet listens.
    pub inlet: SocketAddr,
    /// The route of the inlet, without the outlet's address.
    pub way: String,
}

impl Portal {
    /// A portal between nodes of these kinds, through a secure channel or without.
    #[track_caller]
    pub fn open(near: Kind, far: Kind, sealed: bool) -> Portal {
        let (near, far, target) = (PortalNode::start(near), PortalNode::start(far), Target::start());
        far.outlet("outlet", target.address());
        let middle = Middle::before(far.address());
        let secure = if sealed { "/secure/api" } else { "" };
        let way = format!("{}{secure}", over_tcp(middle.address()));
        let inlet = near.inlet("inlet", &format!("{way}/service/outlet"));
        Portal { near, far, middle, target, inlet, way }
    }
}

/// A server that does what each of its clients ([`Client`]) asks for.
pub struct Target {
    address: SocketAddr,
    ended: Mutex<Receiver<Ended>>,
    connections: Arc<AtomicU64>,
}

/// A connection to a target that has ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ended {
    /// Which one: the number that the client gave. 0 when it ended without having said anything.
    pub number: u64,
    /// Whether everything that had been announced arrived as it was sent, and nothing else.
    pub whole: bool,
}

/// What a client asks for, first thing.
#[derive(Clone, Copy)]
struct Wish {
    number: u64,
    /// How many bytes the client sends.
    up: u64,
    /// How many it wants.
    down: u64,
    /// Whether the target ends the connection when it has sent them.
    hang_up: bool,
}

impl Wish {
    const LEN: usize = 25;

    fn encode(self) -> Vec<u8> {
        let numbers = [self.number, self.up, self.down].map(u64::to_be_bytes);
        [&numbers.concat()[..], &[u8::from(self.hang_up)]].concat()
    }

    fn decode(bytes: [u8; Wish::LEN]) -> Wish {
        let number = |i: usize| u64::from_be_bytes(bytes[8 * i..][..8].try_into().expect("eight bytes"));
        Wish { number: number(0), up: number(1), down: number(2), hang_up: bytes[24] != 0 }
    }

    fn bytes_up(self) -> Vec<u8> {
        noise(self.up as usize, 2 * self.number)
    }

    fn bytes_down(self) -> Vec<u8> {
        noise(self.down as usize, 2 * self.number + 1)
    }
}

impl Target {
    /// On a free port of 127.0.0.1.
    pub fn start() -> Target {
        // Both ends of real nodes are in this process, too.
        ockam_tests::allow_many_connections();
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (ends, ended) = mpsc::channel();
        let connections = Arc::new(AtomicU64::new(0));
        let count = connections.clone();
        // Ends with the process of the test.
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                count.fetch_add(1, Ordering::Relaxed);
                let ends = ends.clone();
                thread::spawn(move || ends.send(serve(stream)));
            }
        });
        Target { address, ended: Mutex::new(ended), connections }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it had.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Waits until one of its connections has ended.
    #[track_caller]
    pub fn ended(&self) -> Ended {
        let ended = self.ended.lock().expect("no test thread died with this lock");
        ended.recv_timeout(PATIENCE).expect("a connection to the target ends")
    }
}

/// Does what a client wishes, and waits for its end.
fn serve(mut stream: TcpStream) -> Ended {
    stream.set_nodelay(true).expect("set TCP_NODELAY");
    let mut wish = [0; Wish::LEN];
    if stream.read_exact(&mut wish[..1]).is_err() {
        return Ended { number: 0, whole: true };
    }
    if stream.read_exact(&mut wish[1..]).is_err() {
        return Ended { number: 0, whole: false };
    }
    let wish = Wish::decode(wish);
    let mut writer = stream.try_clone().expect("duplicate a socket");
    let writing = thread::spawn(move || {
        // What the client gets is for the client to judge.
        let _ = writer.write_all(&wish.bytes_down());
        if wish.hang_up {
            let _ = writer.shutdown(Shutdown::Both);
        }
    });
    let mut received = Vec::new();
    let ended = stream.read_to_end(&mut received);
    writing.join().expect("the writer does not panic");
    Ended { number: wish.number, whole: ended.is_ok() && received == wish.bytes_up() }
}

static NUMBER: AtomicU64 = AtomicU64::new(1);

/// A client of a [`Target`], at an inlet.
pub struct Client {
    stream: TcpStream,
    wish: Wish,
}

impl Client {
    /// Connects, and has said nothing yet. A real inlet whose first try to reach its outlet took too long listens only when
    /// it tried again, five seconds later.
    pub fn connect(inlet: SocketAddr) -> TcpStream {
        let since = Instant::now();
        let stream = loop {
            match TcpStream::connect(inlet) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused && since.elapsed() < RECOVERY => {
                    thread::sleep(Duration::from_millis(20));
                }
                connected => break connected.expect("connect to an inlet"),
            }
        };
        stream.set_nodelay(true).expect("set TCP_NODELAY");
        stream.set_read_timeout(Some(PATIENCE)).expect("set a read timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("set a write timeout");
        stream
    }

    /// Sends `up` bytes and receives `down` bytes, both at once, and checks what it receives. The connection stays open.
    #[track_caller]
    pub fn talk(inlet: SocketAddr, up: usize, down: usize) -> Client {
        let mut client = Client::ask(inlet, up, down);
        client.send_and_receive();
        client
    }

    /// Announces `up` bytes and wants `down`, which [`Client::send_and_receive`] sends and receives.
    #[track_caller]
    pub fn ask(inlet: SocketAddr, up: usize, down: usize) -> Client {
        Client::wish(inlet, up, down, false)
    }

    /// Sends and receives what was asked for, both at once, and checks what it receives.
    #[track_caller]
    pub fn send_and_receive(&mut self) {
        let (mut writer, wish) = (self.stream.try_clone().expect("duplicate a socket"), self.wish);
        let writing = thread::spawn(move || writer.write_all(&wish.bytes_up()));
        let mut received = vec![0; wish.down as usize];
        if let Err(e) = self.stream.read_exact(&mut received) {
            panic!("{} bytes expected from the target: {e}", wish.down);
        }
        assert!(received == wish.bytes_down(), "what comes from the target is what it sent");
        writing.join().expect("the writer does not panic").expect("write to an inlet");
    }

    /// Its number, under which the target reports its end.
    pub fn number(&self) -> u64 {
        self.wish.number
    }

    /// Sends `up` bytes and ends the connection at once. Gives the number.
    #[track_caller]
    pub fn send_and_leave(inlet: SocketAddr, up: usize) -> u64 {
        let mut client = Client::wish(inlet, up, 0, false);
        client.stream.write_all(&client.wish.bytes_up()).expect("write to an inlet");
        client.number()
    }

    /// Wants `down` bytes from a target that ends the connection right behind them. Checks that they come, and the end.
    #[track_caller]
    pub fn receive_to_the_end(inlet: SocketAddr, down: usize) -> u64 {
        let mut client = Client::wish(inlet, 0, down, true);
        let mut received = Vec::new();
        let ended = client.stream.read_to_end(&mut received);
        assert!(received == client.wish.bytes_down(), "{} of {down} bytes before the end: {ended:?}", received.len());
        ended.expect("an orderly end");
        client.number()
    }

    /// Asks for something where nothing may come through: ours ends such a connection, maybe at once.
    pub fn knock(inlet: SocketAddr) -> TcpStream {
        let mut stream = Client::connect(inlet);
        let wish = Wish { number: NUMBER.fetch_add(1, Ordering::Relaxed), up: 0, down: 100, hang_up: false };
        let _ = stream.write_all(&wish.encode());
        stream
    }

    /// Whether a few bytes come back through an inlet, soon.
    pub fn gets_through(inlet: SocketAddr) -> bool {
        let Ok(mut stream) = TcpStream::connect(inlet) else { return false };
        stream.set_read_timeout(Some(Duration::from_secs(2))).expect("set a read timeout");
        let wish = Wish { number: NUMBER.fetch_add(1, Ordering::Relaxed), up: 0, down: 100, hang_up: false };
        let mut received = [0; 100];
        stream.write_all(&wish.encode()).is_ok()
            && stream.read_exact(&mut received).is_ok()
            && received[..] == wish.bytes_down()
    }

    /// Waits until connections through an inlet work again.
    #[track_caller]
    pub fn until_it_gets_through(inlet: SocketAddr) -> Duration {
        let since = Instant::now();
        while !Client::gets_through(inlet) {
            assert!(since.elapsed() < RECOVERY, "nothing gets through the inlet again");
            thread::sleep(Duration::from_millis(100));
        }
        since.elapsed()
    }

    #[track_caller]
    fn wish(inlet: SocketAddr, up: usize, down: usize, hang_up: bool) -> Client {
        let mut stream = Client::connect(inlet);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let wish = Wish { number, up: up as u64, down: down as u64, hang_up };
        stream.write_all(&wish.encode()).expect("write to an inlet");
        Client { stream, wish }
    }
}
