//! Portals over real processes: how they are made, and that not one byte is lost or invented on the way.

use ockam_tests::{
    ClosedPort, Home, Identity, Initiator, Middle, Network, PATIENCE, Pair, Peer, Place, Sequence, Stream, Talk,
    Target, addresses, allow_many_connections, echo, echoes, frame, frame_to, is_root, noise, on_both_drivers, skip,
    wait_until, works,
};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};
use serde_json::json;
use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

// ---- how they are made

#[test]
fn a_portal_is_made_with_two_commands() {
    let home = Home::new();
    home.node("n1", &[]);
    let (two, three) = (home.node("n2", &[]), home.node("n3", &[]));
    let target = Target::echo();
    let port = target.place().address().port();
    // The shortest form: a port of this machine, and the name that the first outlet has.
    assert_eq!(home.ok(&["tcp-outlet", "create", "--at", "n2", "--to", &port.to_string()]), "/service/outlet");
    let at_three =
        ["tcp-outlet", "create", "--at", "/node/n3", "--to", &format!("localhost:{port}"), "--from", "outlet"];
    assert_eq!(home.ok(&at_three), "/service/outlet");
    let by_address = format!("{}{}", two.route(), three.route());
    for to in [
        "/node/n2/service/outlet".to_owned(),
        "/node/n2/secure/api/service/outlet".to_owned(),
        format!("{}/secure/api/service/outlet", two.route()),
        "/node/n2/node/n3/secure/api/service/outlet".to_owned(),
        format!("{by_address}/secure/api/service/outlet"),
        "/node/n2/secure/api/node/n3/service/outlet".to_owned(),
    ] {
        // What comes out of a channel is not taken further by a transit rule.
        if to.contains("/secure/api/node") {
            continue;
        }
        works(&home.inlet("n1", &to, &[]));
    }
    // The port that is asked for, in each form.
    let free = || home.free().port();
    for from in
        [free().to_string(), format!(":{}", free()), format!("127.0.0.1:{}", free()), format!("[::1]:{}", free())]
    {
        let place = home.inlet("n1", "/node/n2/secure/api/service/outlet", &["--from", &from]);
        let wanted = from.rsplit(':').next().unwrap();
        assert_eq!(place.address().port().to_string(), wanted, "{from}");
        assert!(place.address().ip().is_loopback(), "{from}");
        works(&place);
    }
}

#[test]
fn a_portal_goes_through_a_channel_from_a_pipe() {
    let home = Home::new();
    home.node("n1", &[]);
    home.node("n2", &[]);
    home.node("n3", &[]);
    let target = Target::echo();
    home.outlet("n3", target.place(), &[]);
    let script = "ockam secure-channel create --from n1 --to /node/n2/node/n3/service/api |
        ockam tcp-inlet create --at n1 --to -/service/outlet";
    works(&home.bash(script).ok().parse().unwrap());
    let script = "ockam tcp-inlet create --at n1 \
        --to $(ockam secure-channel create --from n1 --to /node/n3/service/api)/service/outlet";
    works(&home.bash(script).ok().parse().unwrap());
}

#[test]
fn one_node_can_be_both_ends() {
    let home = Home::new();
    home.node("n1", &[]);
    let target = Target::echo();
    home.outlet("n1", target.place(), &["--from", "mine"]);
    // A name alone is a service of the same node.
    for to in ["mine", "/service/mine", "/node/n1/service/mine", "/node/n1/secure/api/service/mine"] {
        works(&home.inlet("n1", to, &[]));
    }
}

#[test]
fn both_ends_may_be_unix_sockets() {
    let pair = Pair::new(&[]);
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let at = |name: &str| format!("unix:{}", path(name).display());
    let (tcp, unix) = (Target::echo(), Target::unix(&path("target"), echo));
    let to_tcp = pair.home.outlet("n2", tcp.place(), &["--from", "tcp"]);
    let to_unix = pair.home.outlet("n2", unix.place(), &["--from", "unix"]);
    let inlet = |to: &str, name: &str| {
        let place = pair.home.inlet("n1", &format!("/node/n2/secure/api{to}"), &["--from", &at(name)]);
        assert_eq!(place.to_string(), at(name));
        place
    };
    let (one, two) = (inlet(&to_tcp, "one"), inlet(&to_unix, "two"));
    works(&one);
    works(&two);
    works(&pair.home.inlet("n1", &format!("/node/n2/secure/api{to_unix}"), &[]));
    // Its owner connects, and nobody else.
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path("one")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
    // It goes with its inlet, and the place is free again.
    let alias = pair.home.json(&["tcp-inlet", "list", "--at", "n1"]);
    let alias = alias.as_array().unwrap().iter().find(|it| it["from"] == at("one")).expect("it is listed");
    pair.home.ok(&["tcp-inlet", "delete", alias["alias"].as_str().unwrap(), "--at", "n1", "--yes"]);
    assert!(!path("one").exists());
    works(&inlet(&to_unix, "one"));
    // What lies there already is nobody's to take away.
    std::fs::write(path("file"), "precious").unwrap();
    let to = format!("/node/n2/secure/api{to_tcp}");
    pair.home.fails(73, &["tcp-inlet", "create", "--at", "n1", "--from", &at("file"), "--to", &to]);
    assert_eq!(std::fs::read_to_string(path("file")).unwrap(), "precious");
}

#[test]
fn what_is_not_said_has_a_default() {
    let home = Home::new();
    home.node("n1", &[]);
    let target = Target::echo();
    let names: Vec<String> = (0..3).map(|_| home.outlet("n1", target.place(), &[])).collect();
    assert_eq!(names[0], "/service/outlet");
    assert!(names[1] != names[2] && names[1..].iter().all(|name| name != &names[0]), "{names:?}");
    let inlet = |name: &String| home.ok(&["tcp-inlet", "create", "--at", "n1", "--to", name]).parse().unwrap();
    let places: Vec<Place> = names.iter().map(inlet).collect();
    assert!(places.iter().all(|place| place.address().ip().is_loopback()), "{places:?}");
    places.iter().for_each(works);
    let inlets = home.json(&["tcp-inlet", "list"]);
    let aliases: Vec<&str> = inlets.as_array().unwrap().iter().map(|it| it["alias"].as_str().unwrap()).collect();
    assert!(aliases.len() == 3 && aliases[0] != aliases[1] && !aliases[0].is_empty(), "{aliases:?}");
}

#[test]
fn portals_are_listed_shown_and_deleted() {
    let pair = Pair::new(&[]);
    let home = &pair.home;
    let target = Target::echo();
    let to = target.place().to_string();
    let outlet = home.json(&["tcp-outlet", "create", "--at", "n2", "--to", &to, "--from", "web"]);
    assert_eq!((&outlet["address"], &outlet["to"]), (&json!("web"), &json!(to)), "{outlet}");
    let route = "/node/n2/secure/api/service/web";
    let from = home.free().to_string();
    let create = ["tcp-inlet", "create", "--at", "n1", "--from", &from, "--to", route, "--alias", "site"];
    let inlet = home.json(&create);
    let place: Place = inlet["from"].as_str().unwrap_or_else(|| panic!("{inlet}")).parse().unwrap();
    assert_eq!((&inlet["alias"], &inlet["status"]), (&json!("site"), &json!("up")), "{inlet}");
    // Who is there is who was met.
    let far = home.json(&["identity", "show"])["identifier"].clone();
    assert_eq!(inlet["identifier"], far, "{inlet}");
    let shown = |what: &[&str]| home.json(what);
    assert_eq!(shown(&["tcp-outlet", "list", "--at", "n2"]), json!([outlet]));
    for name in ["web", "/service/web"] {
        assert_eq!(shown(&["tcp-outlet", "show", name, "--at", "n2"]), outlet);
    }
    assert_eq!(shown(&["tcp-inlet", "show", "site", "--at", "n1"]), inlet);
    assert_eq!(shown(&["tcp-inlet", "list", "--at", "n1"]), json!([inlet]));
    let (near, far) = (shown(&["node", "show", "n1"]), shown(&["node", "show", "n2"]));
    assert_eq!(near["inlets"].as_array().map(Vec::len), Some(1), "{near}");
    assert_eq!(far["outlets"].as_array().map(Vec::len), Some(1), "{far}");
    let stream = place.connect();
    echoes(&stream, &mut Sequence::new(1), 10).unwrap();
    assert_eq!(shown(&["tcp-inlet", "show", "site", "--at", "n1"])["connections"], 1);

    // Names that are taken, and what is not there.
    let said = home.fails(73, &["tcp-outlet", "create", "--at", "n2", "--to", &to, "--from", "web"]);
    assert!(said.contains("web"), "{said}");
    let said = home.fails(73, &create);
    assert!(said.contains("site"), "{said}");
    home.fails(68, &["tcp-outlet", "show", "nothing", "--at", "n2"]);
    home.fails(68, &["tcp-inlet", "show", "nothing", "--at", "n1"]);
    home.fails(68, &["tcp-outlet", "delete", "nothing", "--at", "n2", "--yes"]);
    home.fails(68, &["tcp-inlet", "delete", "nothing", "--at", "n1", "--yes"]);
    home.fails(66, &["tcp-inlet", "delete", "site", "--at", "n1"]);

    // An outlet that is deleted ends its connections, and the inlet its own and its port.
    home.ok(&["tcp-outlet", "delete", "web", "--at", "n2", "--yes"]);
    assert!(!stream.is_at_end().unwrap(), "what an outlet breaks off ends with a reset");
    assert_eq!(shown(&["tcp-outlet", "list", "--at", "n2"]), json!([]));
    home.outlet("n2", target.place(), &["--from", "web"]);
    let stream = place.connect();
    echoes(&stream, &mut Sequence::new(1), 10).unwrap();
    home.ok(&["tcp-inlet", "delete", "site", "--at", "n1", "--yes"]);
    assert!(!stream.is_at_end().unwrap(), "what an inlet breaks off ends with a reset");
    assert_eq!(place.try_connect().map(drop).map_err(|error| error.kind()), Err(ErrorKind::ConnectionRefused));
    assert_eq!(shown(&["tcp-inlet", "list", "--at", "n1"]), json!([]));
    home.ok(&create);
    home.ok(&["tcp-inlet", "delete", "--all", "--at", "n1", "--yes"]);
    home.ok(&["tcp-outlet", "delete", "--all", "--at", "n2", "--yes"]);
    for node in ["n1", "n2"] {
        assert_eq!(shown(&["tcp-inlet", "list", "--at", node]), json!([]));
        assert_eq!(shown(&["tcp-outlet", "list", "--at", node]), json!([]));
    }
    // Nothing of it is kept open.
    wait_until(
        || home.json(&["tcp-connection", "list", "--at", "n1"]) == json!([]),
        || "the inlet left its link behind".into(),
    );
}

#[test]
fn what_makes_no_sense_is_refused() {
    let home = Home::new();
    home.node("n1", &[]);
    home.node("n2", &[]);
    let target = Target::echo();
    let busy = target.place().to_string();
    home.outlet("n2", target.place(), &[]);
    let route = "/node/n2/secure/api/service/outlet";
    let long = format!("unix:/{}", "x".repeat(200));
    for (code, arguments) in [
        (64, vec!["tcp-outlet", "create", "--at", "n1"]),
        (64, vec!["tcp-outlet", "create", "--at", "n1", "--to", "nonsense"]),
        (64, vec!["tcp-outlet", "create", "--at", "n1", "--to", "127.0.0.1:70000"]),
        (64, vec!["tcp-outlet", "create", "--at", "n1", "--to", "127.0.0.1:0"]),
        (64, vec!["tcp-outlet", "create", "--at", "n1", "--to", &long]),
        (64, vec!["tcp-outlet", "create", "--at", "n1", "--to", "127.0.0.1:80", "--from", "a/b"]),
        (68, vec!["tcp-outlet", "create", "--at", "n9", "--to", "127.0.0.1:80"]),
        (64, vec!["tcp-inlet", "create", "--at", "n1"]),
        (64, vec!["tcp-inlet", "create", "--at", "n1", "--to", "/nonsense/x"]),
        (64, vec!["tcp-inlet", "create", "--at", "n1", "--to", "/node/n2"]),
        (68, vec!["tcp-inlet", "create", "--at", "n1", "--to", "/node/n9/service/outlet"]),
        (68, vec!["tcp-inlet", "create", "--at", "n9", "--to", route]),
        (64, vec!["tcp-inlet", "create", "--at", "n1", "--to", route, "--from", "nonsense"]),
        (64, vec!["tcp-inlet", "create", "--at", "n1", "--to", route, "--from", &long]),
        (64, vec!["tcp-inlet", "create", "--at", "n1", "--to", route, "--connection-wait", "soon"]),
        (64, vec!["tcp-inlet", "create", "--at", "n1", "--to", route, "--authorized", "Inobody"]),
        (64, vec!["tcp-inlet", "create", "--at", "n1", "--to", route, "--via", "r", "--alias", "x"]),
        (64, vec!["tcp-inlet", "create", "--at", "n1", "--to", route, "--alias", "a:b"]),
        (68, vec!["tcp-inlet", "create", "--at", "n1", "--to", route, "--identity", "nobody"]),
        (73, vec!["tcp-inlet", "create", "--at", "n1", "--to", route, "--from", &busy]),
    ] {
        home.fails(code, &arguments);
    }
    // None of it left anything behind.
    assert_eq!(home.json(&["tcp-inlet", "list", "--at", "n1"]), json!([]));
    assert_eq!(home.json(&["tcp-outlet", "list", "--at", "n1"]), json!([]));
}

/// It stays, since an outlet may come later than its inlet.
#[test]
fn an_inlet_to_an_outlet_that_is_not_there_says_so() {
    let pair = Pair::new(&[]);
    let target = Target::echo();
    pair.home.outlet("n2", target.place(), &[]);
    for (name, route) in ["/node/n2/secure/api/service", "/node/n2/service", "/service"].iter().enumerate() {
        let name = format!("i{name}");
        let to = format!("{route}/outlett");
        let made = pair.home.run(&["tcp-inlet", "create", "--at", "n1", "--alias", &name, "--to", &to]);
        assert_eq!(made.code, Some(0), "{made:?}");
        assert!(made.stderr.contains("nothing has the address /service/outlett"), "{made:?}");
        let shown = pair.home.json(&["tcp-inlet", "show", &name, "--at", "n1"]);
        assert!(shown["error"].as_str().unwrap().contains("/service/outlett"), "{shown}");
    }
    pair.home.outlet("n2", target.place(), &["--from", "outlett"]);
    let shown = pair.home.json(&["tcp-inlet", "show", "i0", "--at", "n1"]);
    let from = shown["from"].as_str().unwrap();
    works(&from.parse().unwrap());
    assert_eq!(target.accepted(), 1, "who asks whether an outlet is there connects to nothing");
    let again = pair.home.fails(73, &["tcp-inlet", "create", "--at", "n1", "--to", "outlet", "--from", from]);
    assert!(again.contains("\"n1\" already listens"), "{again}");
    let made = pair.home.run(&["tcp-inlet", "create", "--at", "n1", "--to", "/node/n2/secure/api/service/outlet"]);
    assert_eq!((made.code, made.stderr.as_str()), (Some(0), ""));
}

/// Who must be there is checked before anything goes to who is there.
#[test]
fn an_inlet_says_who_must_be_at_the_other_end() {
    let pair = Pair::new(&[]);
    let target = Target::echo();
    pair.home.outlet("n2", target.place(), &[]);
    let route = format!("{}/secure/api/service/outlet", pair.far.route());
    let far = pair.home.json(&["identity", "show"])["identifier"].as_str().unwrap().to_owned();
    let nobody = Identity::new().identifier();
    let said = pair.home.fails(77, &["tcp-inlet", "create", "--at", "n1", "--to", &route, "--authorized", &nobody]);
    assert!(said.contains(&far), "it does not say who was met: {said}");
    works(&pair.home.inlet("n1", &route, &["--authorized", &nobody, "--authorized", &far]));
    assert_eq!(target.accepted(), 1);
}

/// The other half of that: an outlet behind a listener that admits only some.
#[test]
fn a_listener_says_who_reaches_an_outlet() {
    let pair = Pair::new(&[]);
    let target = Target::echo();
    pair.home.outlet("n2", target.place(), &[]);
    // The first identity is that of the nodes.
    let friend = pair.home.ok(&["identity", "create", "friend"]);
    let listener = ["secure-channel-listener", "create", "door", "--at", "n2", "--authorized", &friend];
    pair.home.ok(&listener);
    let route = "/node/n2/secure/door/service/outlet";
    pair.home.fails(77, &["tcp-inlet", "create", "--at", "n1", "--to", route]);
    works(&pair.home.inlet("n1", route, &["--identity", "friend"]));
}

#[test]
fn nobody_on_the_way_sees_what_goes_through() {
    let pair = Pair::new(&[]);
    let middle = Middle::before(pair.far.address);
    let (said, target) = (b"nobody else is told this", Target::echo());
    let outlet = pair.home.outlet("n2", target.place(), &[]);
    let say = |inlet: &Place| {
        let stream = inlet.connect();
        (&stream).write_all(said).unwrap();
        let mut back = [0; 24];
        (&stream).read_exact(&mut back).unwrap();
        assert_eq!(&back, said);
    };
    say(&pair.home.inlet("n1", &format!("{}/secure/api{outlet}", middle.route()), &[]));
    assert!(!middle.saw(said), "it is not sealed");
    // That he would see it is shown without a channel.
    say(&pair.home.inlet("n1", &format!("{}{outlet}", middle.route()), &[]));
    assert!(middle.saw(said));
}

// ---- not one byte

/// How a connection comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// The client says all, ends its side, and gets the whole answer after that.
    Asks,
    /// The server says all and ends its side first, and gets everything after that.
    IsTold,
    /// Both talk at once; the client closes when it has everything.
    Talks,
    /// Both talk at once; the server closes when it has everything.
    IsLeft,
    /// The client resets in the middle.
    Resets,
    /// The server resets in the middle.
    IsReset,
    /// The client goes away without a word.
    Leaves,
    /// The client resets without a word.
    Slams,
}

const MANNERS: [Manner; 8] = [
    Manner::Asks,
    Manner::IsTold,
    Manner::Talks,
    Manner::IsLeft,
    Manner::Resets,
    Manner::IsReset,
    Manner::Leaves,
    Manner::Slams,
];

/// One connection, as both ends know it from its number.
#[derive(Debug, Clone, Copy)]
struct Cycle {
    number: u64,
    manner: Manner,
    up: u64,
    down: u64,
}

impl Cycle {
    fn new(seed: u64, number: u64) -> Cycle {
        let random = noise(12, (seed << 32 | number) * 2 + 1);
        let length = |bytes: &[u8]| {
            let any = u64::from(u32::from_be_bytes(bytes.try_into().unwrap()));
            // Mostly little, sometimes more than all buffers on the way hold.
            match any % 16 {
                0 => any % 3,
                1 => any % 1_500_000,
                2..6 => any % 100_000,
                _ => any % 3_000,
            }
        };
        let manner = MANNERS[usize::from(random[8]) % MANNERS.len()];
        Cycle { number, manner, up: length(&random[..4]), down: length(&random[4..8]) }
    }

    fn sequences(&self) -> (Sequence, Sequence) {
        (Sequence::new(self.number * 2), Sequence::new(self.number * 2 + 1))
    }

    /// The client's part.
    fn client(&self, inlet: &Place) -> io::Result<()> {
        let stream = inlet.try_connect()?;
        let (mut up, mut down) = self.sequences();
        if self.manner == Manner::Leaves {
            return Ok(());
        }
        if self.manner == Manner::Slams {
            stream.reset();
            return Ok(());
        }
        (&stream).write_all(&self.number.to_be_bytes())?;
        match self.manner {
            Manner::Asks => {
                up.send(&stream, self.up)?;
                stream.end()?;
                down.receive(&stream, self.down)?;
                end(&stream)
            }
            Manner::IsTold => {
                down.receive(&stream, self.down)?;
                end(&stream)?;
                up.send(&stream, self.up)
            }
            Manner::Talks => {
                both(&stream, &mut up, self.up, &mut down, self.down)?;
                Ok(())
            }
            Manner::IsLeft => {
                both(&stream, &mut up, self.up, &mut down, self.down)?;
                end(&stream)
            }
            Manner::Resets => {
                // A reset may overtake everything, so the server must know with whom it has to do.
                (&stream).read_exact(&mut [0])?;
                up.send(&stream, self.up)?;
                down.receive(&stream, self.down / 2)?;
                stream.reset();
                Ok(())
            }
            Manner::IsReset => {
                up.send(&stream, self.up)?;
                is_reset(&stream, &mut down, self.down)
            }
            Manner::Leaves | Manner::Slams => unreachable!("they are gone"),
        }
    }

    /// The server's part, behind the number.
    fn server(&self, stream: Stream) -> io::Result<()> {
        let (mut up, mut down) = self.sequences();
        match self.manner {
            Manner::Asks => {
                up.receive(&stream, self.up)?;
                end(&stream)?;
                down.send(&stream, self.down)
            }
            Manner::IsTold => {
                down.send(&stream, self.down)?;
                stream.end()?;
                up.receive(&stream, self.up)?;
                end(&stream)
            }
            Manner::Talks => {
                both(&stream, &mut down, self.down, &mut up, self.up)?;
                end(&stream)
            }
            Manner::IsLeft => both(&stream, &mut down, self.down, &mut up, self.up),
            Manner::Resets => {
                (&stream).write_all(&[1])?;
                // It may hit while this one still talks, which is told of it once.
                match down.send(&stream, self.down) {
                    Ok(()) => is_reset(&stream, &mut up, self.up),
                    Err(error) if broken(&error) => Ok(()),
                    Err(error) => Err(error),
                }
            }
            Manner::IsReset => {
                up.receive(&stream, self.up)?;
                down.send(&stream, self.down / 2)?;
                stream.reset();
                Ok(())
            }
            Manner::Leaves | Manner::Slams => unreachable!("they say no number"),
        }
    }
}

/// Sends and receives at the same time.
fn both(stream: &Stream, out: &mut Sequence, sent: u64, back: &mut Sequence, received: u64) -> io::Result<()> {
    thread::scope(|scope| {
        let sending = scope.spawn(|| out.send(stream, sent));
        let received = back.receive(stream, received);
        let sent = sending.join().expect("sending does not panic");
        received.and(sent)
    })
}

/// The other side ended in good order, and said nothing more.
fn end(stream: &Stream) -> io::Result<()> {
    match stream.is_at_end()? {
        true => Ok(()),
        false => Err(io::Error::new(ErrorKind::ConnectionReset, "a reset instead of the end")),
    }
}

fn broken(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// Right bytes come, fewer than all or all, and then a reset: never an end in good order.
fn is_reset(stream: &Stream, sequence: &mut Sequence, most: u64) -> io::Result<()> {
    match sequence.receive(stream, most) {
        Ok(()) => match stream.is_at_end() {
            Ok(true) => Err(io::Error::other("the end in good order instead of a reset")),
            Ok(false) => Ok(()),
            Err(error) if broken(&error) => Ok(()),
            Err(error) => Err(error),
        },
        Err(error) if broken(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What servers say of the cycles, by their numbers.
#[derive(Default)]
struct Verdicts {
    said: Mutex<HashMap<u64, Result<(), String>>>,
    news: Condvar,
}

impl Verdicts {
    fn say(&self, number: u64, verdict: io::Result<()>) {
        self.said.lock().unwrap().insert(number, verdict.map_err(|error| error.to_string()));
        self.news.notify_all();
    }

    fn of(&self, number: u64) -> Result<(), String> {
        let said = self.said.lock().unwrap();
        let (mut said, _) = self.news.wait_timeout_while(said, PATIENCE, |said| !said.contains_key(&number)).unwrap();
        said.remove(&number).unwrap_or_else(|| Err("it did not come to its end".into()))
    }
}

/// A thousand connections, some at the same time, each of which ends as its number says.
fn cycles(driver: &str, threads: &str, seed: u64) {
    const CYCLES: u64 = 1000;
    const AT_ONCE: usize = 12;
    let pair = Pair::new(&["--driver", driver, "--threads", threads]);
    let verdicts = Arc::new(Verdicts::default());
    let at_target = verdicts.clone();
    let target = Target::tcp(move |stream| {
        let mut number = [0; 8];
        // Those who leave without a word have no number.
        if let Ok(()) = (&stream).read_exact(&mut number) {
            let number = u64::from_be_bytes(number);
            at_target.say(number, Cycle::new(seed, number).server(stream));
        }
    });
    let inlet = pair.portal(target.place(), &[]);
    works_with(&inlet, &verdicts, seed, CYCLES);
    pair.comes_to_rest();
    let descriptors = || (pair.near.engine.descriptors(), pair.far.engine.descriptors());
    let before = descriptors();
    let next = AtomicU64::new(0);
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let number = next.fetch_add(1, Ordering::Relaxed)
                    && number < CYCLES
                {
                    let cycle = Cycle::new(seed, number);
                    let client = cycle.client(&inlet).map_err(|error| error.to_string());
                    let silent = matches!(cycle.manner, Manner::Leaves | Manner::Slams);
                    let server = if silent { Ok(()) } else { verdicts.of(number) };
                    if client.is_err() || server.is_err() {
                        failed.lock().unwrap().push((cycle, client, server));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(
        failed.is_empty(),
        "{} of {CYCLES} (seed {seed}), such as {:#?}",
        failed.len(),
        &failed[..failed.len().min(5)]
    );
    pair.comes_to_rest();
    wait_until(|| descriptors() <= before, || format!("{:?} descriptors are open, {before:?} before", descriptors()));
    works_with(&inlet, &verdicts, seed, CYCLES + 1);
    assert_eq!((pair.home.show("n1"), pair.home.show("n2")), (pair.near, pair.far), "they are the same processes");
}

/// A cycle of which nothing can go wrong, so that a portal is warm, and as good as before.
#[track_caller]
fn works_with(inlet: &Place, verdicts: &Verdicts, seed: u64, from: u64) {
    let asks = (from..).map(|number| Cycle::new(seed, number)).find(|cycle| cycle.manner == Manner::Asks);
    let cycle = asks.expect("numbers do not end");
    cycle.client(inlet).unwrap_or_else(|error| panic!("{cycle:?}: {error}"));
    verdicts.of(cycle.number).unwrap_or_else(|error| panic!("{cycle:?}: {error}"));
}

/// That cycles find what goes wrong is shown where nothing does: without a portal.
#[test]
fn cycles_agree_with_the_kernel() {
    let verdicts = Arc::new(Verdicts::default());
    let at_target = verdicts.clone();
    let target = Target::tcp(move |stream| {
        let mut number = [0; 8];
        if let Ok(()) = (&stream).read_exact(&mut number) {
            let number = u64::from_be_bytes(number);
            at_target.say(number, Cycle::new(0, number).server(stream));
        }
    });
    let mut seen: HashMap<String, u32> = HashMap::new();
    for number in 0..300 {
        let cycle = Cycle::new(0, number);
        *seen.entry(format!("{:?}", cycle.manner)).or_default() += 1;
        let client = cycle.client(target.place());
        let silent = matches!(cycle.manner, Manner::Leaves | Manner::Slams);
        let server = if silent { Ok(()) } else { verdicts.of(number) };
        assert!(client.is_ok() && server.is_ok(), "{cycle:?}: {client:?}, {server:?}");
    }
    assert_eq!(seen.len(), MANNERS.len(), "{seen:?}");
    // An end in good order where a reset must be is not taken for one.
    let ends = Target::tcp(|stream| drop(Sequence::new(1).send(&stream, 1000)));
    assert!(is_reset(&ends.place().connect(), &mut Sequence::new(1), 2000).is_err());
}

on_both_drivers! {
    a_thousand_cycles_on_one_thread(driver) {
        cycles(driver, "1", 1);
    }

    a_thousand_cycles_on_three_threads(driver) {
        cycles(driver, "3", 2);
    }

    // The end comes right behind the last byte, and nothing overtakes anything.
    an_end_delivers_everything_before_it(driver) {
        const BYTES: u64 = 10_000_000;
        let pair = Pair::new(&["--driver", driver]);
        // The target says everything and is gone.
        let told = Target::tcp(|stream| Sequence::new(1).send(&stream, BYTES).unwrap());
        // The target takes everything, slowly at first, and says whether that was all.
        let (say, heard) = std::sync::mpsc::channel();
        let takes = Target::tcp(move |stream| {
            thread::sleep(Duration::from_millis(200));
            let all = Sequence::new(2).receive(&stream, BYTES).and_then(|()| stream.is_at_end());
            say.send(all).unwrap();
        });
        let plain = pair.home.outlet("n2", told.place(), &["--from", "plain"]);
        for inlet in [pair.portal(told.place(), &[]), pair.home.inlet("n1", &format!("/node/n2{plain}"), &[])] {
            for slowly in [false, true] {
                let stream = inlet.connect();
                if slowly {
                    // The end has come to the outlet long before this one reads.
                    thread::sleep(Duration::from_millis(200));
                }
                Sequence::new(1).receive(&stream, BYTES).unwrap();
                assert!(stream.is_at_end().unwrap());
            }
        }
        let inlet = pair.portal(takes.place(), &[]);
        for _ in 0..3 {
            let stream = inlet.connect();
            Sequence::new(2).send(&stream, BYTES).unwrap();
            // It is closed, not only ended: nothing can be said to it any more.
            drop(stream);
            assert!(heard.recv_timeout(PATIENCE).expect("the target gets its end").unwrap());
        }
    }

    // Each side ends by itself, and the other goes on for as long as it likes.
    each_direction_has_an_end_of_its_own(driver) {
        let pair = Pair::new(&["--driver", driver]);
        let target = Target::tcp(|stream| {
            let mut question = Vec::new();
            // Until its end: without half-close, this never comes, or the answer never arrives.
            (&stream).read_to_end(&mut question).unwrap();
            Sequence::new(question.len() as u64).send(&stream, 3_000_000).unwrap();
        });
        let inlet = pair.portal(target.place(), &[]);
        for length in [0, 1, 100_000_u64] {
            let stream = inlet.connect();
            Sequence::new(0).send(&stream, length).unwrap();
            stream.end().unwrap();
            Sequence::new(length).receive(&stream, 3_000_000).unwrap();
            assert!(stream.is_at_end().unwrap());
        }
        let (say, heard) = std::sync::mpsc::channel();
        let ends_first = Target::tcp(move |stream| {
            (&stream).write_all(b"go on").unwrap();
            stream.end().unwrap();
            say.send(Sequence::new(5).receive(&stream, 3_000_000).and_then(|()| stream.is_at_end())).unwrap();
        });
        let stream = pair.portal(ends_first.place(), &[]).connect();
        let mut said = String::new();
        (&stream).read_to_string(&mut said).unwrap();
        assert_eq!(said, "go on");
        Sequence::new(5).send(&stream, 3_000_000).unwrap();
        drop(stream);
        assert!(heard.recv_timeout(PATIENCE).expect("the target gets its end").unwrap());
    }

    // Who cannot be reached is said at once, and not when somebody's patience ends.
    a_target_that_cannot_be_reached_ends_its_client(driver) {
        let pair = Pair::new(&["--driver", driver]);
        let closed = ClosedPort::new();
        let directory = tempfile::tempdir().unwrap();
        let nowhere = Place::Unix(directory.path().join("nobody"));
        let target = Target::echo();
        let good = pair.portal(target.place(), &[]);
        for to in [Place::Tcp(closed.address()), nowhere] {
            let outlet = pair.home.outlet("n2", &to, &[]);
            let inlet =
                pair.home.inlet("n1", &format!("/node/n2/secure/api{outlet}"), &["--connection-wait", "60s"]);
            for _ in 0..20 {
                let stream = inlet.connect();
                // It may have said something already.
                let _ = (&stream).write(b"is anybody there?");
                ended_promptly(&stream, &to);
            }
        }
        // So is an outlet that is not there.
        let inlet = pair.home.inlet("n1", "/node/n2/secure/api/service/nothing", &["--connection-wait", "60s"]);
        ended_promptly(&inlet.connect(), &inlet);
        works(&good);
        pair.comes_to_rest();
    }

    // One that does not read stops itself: the others feel nothing of it, and it gets everything when it reads again.
    one_that_does_not_read_stops_nobody_else(driver) {
        let pair = Pair::new(&["--driver", driver, "--threads", "2"]);
        allow_many_connections();
        let sleepy = Sleepy::new();
        let inlet = pair.portal(sleepy.target.place(), &[]);
        let others: Vec<Stream> = (0..1000).map(|_| asking(&inlet, ECHO)).collect();
        let one_round = |length: u64| {
            let next = AtomicU64::new(0);
            thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        while let Some(stream) = others.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                            echoes(stream, &mut Sequence::new(length), length).expect("the others go on");
                        }
                    });
                }
            });
        };
        one_round(2_000);
        let mut stalled = [(asking(&inlet, STALL), Sequence::new(1))];
        let sent = fill(&mut stalled, 32 << 20);
        let (near, far) = (pair.near.engine.resident_bytes(), pair.far.engine.resident_bytes());
        let began = Instant::now();
        for length in [1, 2_000, 30_000] {
            one_round(length);
        }
        let took = began.elapsed();
        for (engine, before) in [(pair.near.engine, near), (pair.far.engine, far)] {
            let now = engine.resident_bytes();
            let said = format!("{now} bytes, {before} before; {sent} wait, and three rounds took {took:?}");
            assert!(now <= before + (64 << 20), "{said}");
        }
        sleepy.wake();
        reads_on(&stalled[0]);
        one_round(2_000);
        drop((others, stalled));
        pair.comes_to_rest();
    }

    // Many of them are bounded, each by what one stream may hold. A thousand of them have the kernel short of memory for
    // sockets, which tests beside this one feel.
    many_that_do_not_read_are_bounded(driver) {
        const EACH: u64 = 256 << 10;
        let count = if std::env::var_os("OCKAM_TEST_LONG").is_some() { 1000 } else { 200 };
        // By that much windows may grow while the kernel takes what applications do not.
        let pair = Pair::new(&["--driver", driver, "--threads", "2", "--portal-memory", "32M"]);
        allow_many_connections();
        let (sleepy, other) = (Sleepy::new(), Target::echo());
        let inlet = pair.portal(sleepy.target.place(), &[]);
        let others = pair.portal(other.place(), &[]);
        let talk = Talk::start(&others, 3);
        let engines = [pair.near.engine, pair.far.engine];
        let before = engines.map(|engine| engine.resident_bytes());
        let mut stalled: Vec<_> = (0..count).map(|number| (asking(&inlet, STALL), Sequence::new(number))).collect();
        for (stream, _) in &stalled {
            // It is not the kernel on this side that takes it.
            set_socket_send_buffer_size(stream, SMALL).unwrap();
        }
        // More than a gigabyte in all would have the kernel drop what the nodes say to each other, for want of memory.
        let sent = fill(&mut stalled, (2 << 20).min((1 << 30) / count));
        for (engine, before) in engines.iter().zip(before) {
            let more = engine.resident_bytes().saturating_sub(before);
            assert!(more <= count * EACH + (96 << 20), "{more} bytes more for {sent} that were taken");
        }
        talk.flows();
        works(&others);
        sleepy.wake();
        // Some of them get what is theirs, the others are given up.
        stalled.iter().step_by(20).for_each(reads_on);
        drop(stalled);
        assert!(talk.stop() > 0);
        pair.comes_to_rest();
    }
}

/// It is over before anybody's patience: that of the inlet of these tests is a minute.
#[track_caller]
fn ended_promptly(stream: &Stream, to: &Place) {
    let began = Instant::now();
    let end = stream.is_at_end();
    assert!(end.is_ok() && began.elapsed() < Duration::from_secs(15), "{to}: {end:?} after {:?}", began.elapsed());
}

/// What a client of [`Sleepy`] asks for, by its first byte.
const ECHO: u8 = b'e';
const STALL: u8 = b's';

/// Room of a socket whose owner does not read, so that it is not the kernel that takes everything.
const SMALL: usize = 16 << 10;

/// A target that sends back what comes, and to those who ask for it does so only after it was woken.
struct Sleepy {
    target: Target,
    awake: Arc<AtomicBool>,
}

impl Sleepy {
    fn new() -> Sleepy {
        let awake = Arc::new(AtomicBool::new(false));
        let told = awake.clone();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // Those that it accepts have no more. Later it would be too late: they have room from the beginning.
        set_socket_recv_buffer_size(&listener, SMALL).unwrap();
        let target = Target::at(listener, move |stream| {
            let mut kind = [0];
            if (&stream).read_exact(&mut kind).is_err() {
                return;
            }
            if kind[0] == STALL {
                // So that the client knows that this one does not read from now on.
                (&stream).write_all(&kind).unwrap();
                let end = Instant::now() + 4 * PATIENCE;
                while !told.load(Ordering::Relaxed) && Instant::now() < end {
                    thread::sleep(Duration::from_millis(50));
                }
                // With little room it would be slow, too, in what it takes now.
                set_socket_recv_buffer_size(&stream, 1 << 20).unwrap();
            }
            echo(stream);
        });
        Sleepy { target, awake }
    }

    fn wake(&self) {
        self.awake.store(true, Ordering::Relaxed);
    }
}

/// A connection to a [`Sleepy`].
#[track_caller]
fn asking(inlet: &Place, kind: u8) -> Stream {
    let stream = inlet.connect();
    (&stream).write_all(&[kind]).unwrap();
    if kind == STALL {
        (&stream).read_exact(&mut [0]).expect("the target says that it will not read");
        stream.set_nonblocking(true);
    }
    stream
}

/// Sends on each of them until none takes anything more for half a second, or has taken `most`. Gives how much that was.
fn fill(stalled: &mut [(Stream, Sequence)], most: u64) -> u64 {
    let mut idle = 0;
    while idle < 10 {
        let open = stalled.iter_mut().filter(|(_, sequence)| sequence.count() < most);
        let taken: u64 = open.map(|(stream, sequence)| sequence.send_some(stream).unwrap()).sum();
        idle = if taken == 0 { idle + 1 } else { 0 };
        thread::sleep(Duration::from_millis(if taken == 0 { 50 } else { 1 }));
    }
    stalled.iter().map(|(_, sequence)| sequence.count()).sum()
}

/// Everything that was sent comes back, now that the target is awake.
#[track_caller]
fn reads_on((stream, sequence): &(Stream, Sequence)) {
    stream.set_nonblocking(false);
    stream.end().unwrap();
    let mut back = sequence.from_the_beginning();
    back.receive(stream, sequence.count()).expect("nothing of it is lost");
    assert!(stream.is_at_end().unwrap());
}

// ---- who comes without a channel

/// A portal as a peer of a test speaks it.
#[track_caller]
fn ping(peer: &mut Peer) {
    peer.send(&frame(&["outlet"], &["me"], &[0]));
}

/// Who is not on this machine and does not prove who it is reaches an outlet only where its owner said so.
#[test]
fn strangers_without_a_channel_reach_no_outlet() {
    if !is_root() {
        return skip("network namespaces need root");
    }
    let network = match Network::new() {
        Ok(network) => network,
        Err(reason) => return skip(&reason),
    };
    let home = Home::new();
    let ockam = |side: &str, arguments: &[&str]| network.ockam(side, &home, arguments);
    let (left, right) = (network.left(), network.right());
    ockam(right, &["node", "create", "far", "--tcp-listener-address", "0.0.0.0:4000"]).ok();
    ockam(left, &["node", "create", "near"]).ok();
    let listener = network.within(right, || TcpListener::bind("127.0.0.1:5000").unwrap());
    let target = Target::at(listener, echo);
    ockam(right, &["tcp-outlet", "create", "--at", "far", "--to", "5000"]).ok();
    let connect = |side: &str, to: &str| {
        let to: SocketAddr = to.parse().unwrap();
        network.within(side, || Peer::on(TcpStream::connect(to).expect("the node listens")))
    };

    // By each of its addresses, and by that of loopback from the machine itself.
    let refused = || home.counter("far", "drops", "not_admitted");
    for to in ["10.77.0.2:4000", "10.88.0.2:4000"] {
        let before = refused();
        let mut stranger = connect(left, to);
        ping(&mut stranger);
        stranger.echoes(b"nothing else comes");
        assert_eq!(refused(), before + 1, "{to}");
    }
    assert_eq!(target.accepted(), 0);
    let mut local = connect(right, "127.0.0.1:4000");
    ping(&mut local);
    assert_eq!(local.receive().payload[0], 1, "who is on this machine gets its Pong");
    wait_until(|| target.accepted() == 1, || "nothing was dialed for it".into());

    // With a channel everybody gets there whom its listener admits.
    let mut stranger = connect(left, "10.77.0.2:4000");
    let mut channel = Initiator::open(&mut stranger, &["api"], &Identity::new());
    stranger.send(&channel.frame_with(&["outlet"], &["me"], &[0]));
    let pong = channel.receive_message(&mut stranger);
    assert_eq!(pong.payload[0], 1);
    // So does an inlet; without a channel its connections end.
    let inlet = |route: &str| -> Place {
        let printed = ockam(left, &["tcp-inlet", "create", "--at", "near", "--to", route, "--no-connection-wait"]);
        printed.ok().parse().unwrap()
    };
    let sealed = inlet("/ip4/10.77.0.2/tcp/4000/secure/api/service/outlet");
    network.within(left, || works(&sealed));
    let accepted = target.accepted();
    let plain = inlet("/ip4/10.77.0.2/tcp/4000/service/outlet");
    let end = network.within(left, || {
        let stream = plain.connect();
        // It may be over before that is said.
        let _ = (&stream).write(b"is anybody there?");
        stream.is_at_end()
    });
    assert!(end.is_ok(), "{end:?}");
    assert_eq!(target.accepted(), accepted);

    // Its owner may say that it is for everybody.
    ockam(right, &["tcp-outlet", "delete", "outlet", "--at", "far", "--yes"]).ok();
    ockam(right, &["tcp-outlet", "create", "--at", "far", "--to", "5000", "--allow-plain"]).ok();
    let mut stranger = connect(left, "10.77.0.2:4000");
    ping(&mut stranger);
    let pong = stranger.receive();
    assert_eq!(pong.payload[0], 1);
    stranger.send(&frame_to(&pong.back, &addresses(&["me"]), b"\x03\x05hello"));
    assert_eq!(stranger.receive().payload, b"\x03\x05hello");
    network.within(left, || works(&plain));
}
