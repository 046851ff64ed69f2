//! `ockam demo`: three nodes in a temporary home, messages routed through them and sealed end to end by the commands
//! that a user would type, then a measurement over the same nodes: messages in clear text and sealed, and TCP through a
//! sealed portal. Whatever happens (an error, a closed pipe, Ctrl-C), nodes and home are gone at the end.

use crate::cli::args::demo::Demo;
use crate::cli::show::{Output, Terminal, bytes};
use crate::error::{Error, exit};
use crate::messenger::{self, Deadline, Link};
use crate::random;
use crate::route::{Hop, Route};
use ockam_wire::Address;
use serde::Serialize;
use std::io::{IsTerminal, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

/// Ports of the transcript, as every tutorial has them. When one is busy, free ones are taken.
const PORTS: [u16; 3] = [6001, 6002, 6003];

/// Messages under way while throughput is measured, and the bytes that they may have together.
const WINDOW_MESSAGES: usize = 256;
const WINDOW_BYTES: usize = 4 << 20;

/// Round trips, one at a time, whose median is the latency.
const ROUND_TRIPS: usize = 1000;

/// Bytes that are written to a portal at once, and that the program behind it compares at once.
const BLOCK_BYTES: usize = 256 * 1024;

/// Bytes that go through a portal and back in a round trip.
const PING_BYTES: usize = 64;

/// How long the last replies may take.
const LAST_REPLIES: Duration = Duration::from_secs(10);

/// Runs it.
///
/// # Errors
/// A command did not answer what it should, the measurement met a wrong or missing byte, or it was interrupted.
pub fn run(arguments: &Demo, terminal: &Terminal) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| io("cannot start the demo", &error))?;
    runtime.block_on(async {
        let interrupt = Interrupt::watch()?;
        let temporary = tempfile::Builder::new().prefix("ockam-demo-").tempdir();
        let temporary =
            temporary.map_err(|error| Error::storage("create a directory in", std::env::temp_dir(), &error))?;
        let mut stage = Stage {
            terminal: *terminal,
            program: std::env::current_exe().map_err(|error| io("cannot find this program", &error))?,
            home: temporary.path().join("home"),
            interrupt,
            transcript: Vec::new(),
        };
        let played = stage.play(arguments).await;
        stage.progress("");
        if let Err(error) = stage.clear().await {
            let kept = temporary.keep();
            stage
                .terminal
                .warn(format_args!("the nodes of the demo may still run, with OCKAM_HOME={}/home", kept.display()));
            return played.and(Err(error));
        }
        let path = temporary.path().to_owned();
        temporary.close().map_err(|error| Error::storage("remove", path, &error))?;
        stage.finish(&played?)
    })
}

/// One command of the transcript.
#[derive(Debug, Serialize)]
struct Line {
    command: String,
    exit: u8,
    stdout: String,
    stderr: String,
}

/// What came out at the end.
#[derive(Debug, Serialize)]
struct Measured {
    /// Payload of a message in bytes.
    message_bytes: usize,
    /// Messages that came back, each compared byte for byte.
    messages: u64,
    seconds: f64,
    messages_per_second: f64,
    /// Payload in one direction, in bits per second.
    bits_per_second: f64,
    /// Median of a round trip with nothing else under way, in microseconds.
    round_trip_us: f64,
}

/// All that was measured.
#[derive(Debug, Serialize)]
struct Results {
    /// Through n1 and n2 to n3 and back, as everybody on the way can read it.
    measured: Measured,
    /// The same through a secure channel of n1 to n3.
    sealed: Measured,
    /// TCP through a portal of n1 to n3, which is sealed, too.
    portal: Stream,
}

/// What came out of a TCP connection.
#[derive(Debug, Serialize)]
struct Stream {
    /// Bytes that arrived, each compared with what was sent.
    bytes: u64,
    seconds: f64,
    bits_per_second: f64,
    /// Median of a round trip of 64 bytes with nothing else under way, in microseconds.
    round_trip_us: f64,
}

/// Where the demo plays: the home, how commands are run there, who hears of it.
struct Stage {
    terminal: Terminal,
    program: PathBuf,
    home: PathBuf,
    interrupt: Arc<Interrupt>,
    transcript: Vec<Line>,
}

impl Stage {
    async fn play(&mut self, arguments: &Demo) -> Result<Results, Error> {
        let mut ports = free_ports()?;
        self.say("# Three nodes, each a control process and an engine")?;
        for (number, port) in ports.iter_mut().enumerate() {
            let name = format!("n{}", number + 1);
            let mut line = self.create(&name, *port).await?;
            if line.exit == exit::CANNOT_CREATE {
                // Somebody took the port since: another demo, most likely.
                *port = free_ports()?[number];
                line = self.create(&name, *port).await?;
            }
            self.say(&format!("$ {}\n{}", line.command, line.stdout.trim_end()))?;
            self.keep(line, exit::OK, Some(&name))?;
        }
        let [first, second, third] = ports.map(|port| format!("/ip4/127.0.0.1/tcp/{port}"));
        self.say("\n# A message through n1 and n2 to a service of n3")?;
        let by_address = format!("{second}{third}/service/uppercase");
        let send = ["message", "send", "hello", "--from", "n1", "--to"];
        self.expect(&[&send[..], &[&by_address]].concat(), exit::OK, "HELLO").await?;
        self.say("\n# The same by name")?;
        self.expect(&[&send[..], &["/node/n2/node/n3/service/uppercase"]].concat(), exit::OK, "HELLO").await?;
        self.say("\n# Without a node of its own the command itself dials the first one")?;
        let all_three = "/node/n1/node/n2/node/n3/service/echo";
        self.expect(&["message", "send", "hello", "--to", all_three], exit::OK, "hello").await?;
        self.say("\n# What cannot be delivered fails at once, and says what, where and why")?;
        self.expect(&[&send[..], &["/node/n2/node/n3/service/upercase"]].concat(), exit::UNKNOWN, "").await?;

        self.say("\n# A secure channel: n1 and n3 prove who they are, and what n2 forwards is sealed")?;
        for to in [format!("{second}{third}/service/api"), "/node/n2/node/n3/service/api".into()] {
            let create = ["secure-channel", "create", "--from", "n1", "--to", &to];
            self.expect_of_pipe(&create, &[&send[..], &["-/service/uppercase"]].concat(), "HELLO").await?;
        }
        self.say("\n# A channel for one message, opened on its way")?;
        let on_the_way = "/node/n2/node/n3/secure/api/service/uppercase";
        self.expect(&[&send[..], &[on_the_way]].concat(), exit::OK, "HELLO").await?;

        let bytes = arguments.message_bytes as usize;
        let time = Duration::from_secs(arguments.seconds.into());
        self.say(&format!(
            "\n# Measuring for {} s: messages of {bytes} bytes through n1 and n2 to the echo service of n3 and back",
            arguments.seconds
        ))?;
        let measured = self.measure(&format!("{first}{second}{third}/service/echo"), bytes, time).await?;
        self.progress("");
        self.say(&told(&measured))?;

        self.say(&format!(
            "\n# And for {} s sealed: n1 puts them into a channel to n3, to which `hop` gives the measurement access",
            arguments.seconds
        ))?;
        self.expect(&["service", "start", "hop", "--at", "n1"], exit::OK, "/service/hop").await?;
        let to = format!("{second}{third}/service/api");
        let create = ["secure-channel", "create", "--from", "n1", "--to", &to];
        let channel = self.succeed(&create).await?;
        let sealed = self.measure(&format!("{first}/service/hop{channel}/service/echo"), bytes, time).await?;
        self.progress("");
        self.say(&told(&sealed))?;

        self.say(
            "\n# A portal: who connects to a port of n1 reaches a program behind n3; what n2 forwards of it is sealed",
        )?;
        let program = Program::start()?;
        let port = program.port.to_string();
        self.expect(&["tcp-outlet", "create", "--at", "n3", "--to", &port], exit::OK, "/service/outlet").await?;
        let by_name = "/node/n2/node/n3/secure/api/service/outlet";
        let inlet = self.succeed(&["tcp-inlet", "create", "--at", "n1", "--to", by_name]).await?;
        self.say(&format!(
            "\n# Measuring for {} s: a TCP connection to {inlet} of n1, through the portal, to the program behind n3",
            arguments.seconds
        ))?;
        let portal = self.measure_portal(&inlet, &program, time).await?;
        self.progress("");
        self.say(&told_of_stream(&portal))?;

        self.say("\n# By a relay n3 is reached even where nobody can dial it: it has registered itself at n2")?;
        let relay = ["relay", "create", "far", "--at", "n2", "--to", "n3"];
        self.expect(&relay, exit::OK, "/service/forward_to_far").await?;
        let inlet = self.succeed(&["tcp-inlet", "create", "--at", "n1", "--to", "outlet", "--via", "far@n2"]).await?;
        let address = address_of(&inlet)?;
        let answered = tokio::task::spawn_blocking(move || round_trips(address, Duration::from_secs(1), 1));
        answered.await.map_err(|error| Error::internal(format!("the portal was not tried: {error}")))??;
        self.say("Through it the program answers as well.")?;
        Ok(Results { measured, sealed, portal })
    }

    async fn create(&self, name: &str, port: u16) -> Result<Line, Error> {
        let address = format!("127.0.0.1:{port}");
        let create = ["node", "create", name, "--tcp-listener-address", &address];
        self.command(&create, typed(&create), "").await
    }

    /// Runs a command as typed and checks how it ends and what it prints.
    async fn expect(&mut self, arguments: &[&str], exit: u8, stdout: &str) -> Result<(), Error> {
        let command = typed(arguments);
        self.say(&format!("$ {command}"))?;
        let line = self.command(arguments, command, "").await?;
        let shown = if line.exit == exit::OK { &line.stdout } else { &line.stderr };
        self.say(shown.trim_end())?;
        self.keep(line, exit, Some(stdout))
    }

    /// Runs two commands as typed, the first one's output into the second one, and checks what that prints.
    async fn expect_of_pipe(&mut self, first: &[&str], second: &[&str], stdout: &str) -> Result<(), Error> {
        self.say(&format!("$ {} |\n    {}", typed(first), typed(second)))?;
        let piped = self.command(first, typed(first), "").await?;
        let input = piped.stdout.clone();
        self.keep(piped, exit::OK, None)?;
        let line = self.command(second, typed(second), &input).await?;
        self.say(line.stdout.trim_end())?;
        self.keep(line, exit::OK, Some(stdout))
    }

    /// Runs a command as typed, which must succeed, and gives what it prints.
    async fn succeed(&mut self, arguments: &[&str]) -> Result<String, Error> {
        let command = typed(arguments);
        self.say(&format!("$ {command}"))?;
        let line = self.command(arguments, command, "").await?;
        let stdout = line.stdout.trim_end().to_owned();
        self.say(&stdout)?;
        self.keep(line, exit::OK, None)?;
        Ok(stdout)
    }

    /// Keeps a command in the transcript, which ends here if it did not end as it should.
    fn keep(&mut self, line: Line, exit: u8, stdout: Option<&str>) -> Result<(), Error> {
        let as_expected = line.exit == exit && (exit != exit::OK || stdout.is_none_or(|stdout| line.stdout == stdout));
        let failure = format!(
            "`{}` ended with {} and printed {:?} instead of {:?} and {exit}; {}",
            line.command,
            line.exit,
            line.stdout,
            stdout.unwrap_or("anything"),
            line.stderr
        );
        self.transcript.push(line);
        if as_expected { Ok(()) } else { Err(Error::internal(failure)) }
    }

    /// Runs this program. It has a process group of its own, so that Ctrl-C reaches the demo alone; a message that is
    /// under way then is ended, while a command that changes nodes is waited for: `clear` must find what it made.
    async fn command(&self, arguments: &[&str], command: String, stdin: &str) -> Result<Line, Error> {
        let child = tokio::process::Command::new(&self.program)
            .args(arguments)
            .env("OCKAM_HOME", &self.home)
            .env_remove("QUIET")
            .stdin(if stdin.is_empty() { Stdio::null() } else { Stdio::piped() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let mut child = child.map_err(|error| Error::CannotStart {
            path: self.program.clone(),
            errno: error.raw_os_error().unwrap_or(0),
        })?;
        if let Some(mut pipe) = child.stdin.take() {
            // It fits into the pipe; a command that ended before it read has its say below.
            let _ = pipe.write_all(stdin.as_bytes()).await;
        }
        let ended = child.wait_with_output();
        let output = if arguments[0] == "message" {
            tokio::select! {
                output = ended => output,
                () = self.interrupt.wait() => return Err(Error::Interrupted),
            }
        } else {
            ended.await
        };
        let output = output.map_err(|error| io("cannot read what a command prints", &error))?;
        Ok(Line {
            command,
            exit: output.status.code().map_or(exit::INTERNAL, |code| code as u8),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    async fn measure(&self, route: &str, message_bytes: usize, time: Duration) -> Result<Measured, Error> {
        let multiaddr = route.parse().map_err(|error| Error::internal(format!("{route}: {error}")))?;
        let route = Route::new(&multiaddr, "demo")?;
        let interrupt = Arc::clone(&self.interrupt);
        let received = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&received);
        let mut measuring =
            tokio::task::spawn_blocking(move || measure(&route, message_bytes, time, &interrupt, &counted));
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        seconds.tick().await;
        let mut before = received.load(Relaxed);
        loop {
            tokio::select! {
                measured = &mut measuring => {
                    return measured.map_err(|error| Error::internal(format!("the measurement ended: {error}")))?;
                }
                _ = seconds.tick() => {
                    let now = received.load(Relaxed);
                    let per_second = now - before;
                    let bits = per_second as f64 * message_bytes as f64 * 8.0;
                    self.progress(&format!("{per_second} messages/s, {:.2} Gbit/s", bits / 1e9));
                    before = now;
                }
            }
        }
    }

    async fn measure_portal(&self, inlet: &str, program: &Program, time: Duration) -> Result<Stream, Error> {
        let address = address_of(inlet)?;
        let interrupt = Arc::clone(&self.interrupt);
        let compared = Arc::clone(&program.compared);
        let mut measuring = tokio::task::spawn_blocking(move || stream(address, time, &interrupt, &compared));
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        seconds.tick().await;
        let mut before = program.compared.load(Relaxed);
        loop {
            tokio::select! {
                measured = &mut measuring => {
                    return measured.map_err(|error| Error::internal(format!("the measurement ended: {error}")))?;
                }
                _ = seconds.tick() => {
                    let now = program.compared.load(Relaxed);
                    self.progress(&format!("{:.2} Gbit/s", (now - before) as f64 * 8.0 / 1e9));
                    before = now;
                }
            }
        }
    }

    /// A line of the transcript: on stdout, unless JSON goes there. Ctrl-C and a closed stdout end the demo here.
    fn say(&self, line: &str) -> Result<(), Error> {
        if self.interrupt.happened() {
            return Err(Error::Interrupted);
        }
        if self.terminal.is_json() {
            self.terminal.note(line);
            return Ok(());
        }
        let mut stdout = std::io::stdout().lock();
        let written = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
        written.map_err(|error| io("cannot write to stdout", &error))
    }

    /// How the measurement goes: one line that replaces itself on a terminal, one line each in a log.
    fn progress(&self, line: &str) {
        if self.terminal.quiet {
            return;
        }
        let mut stderr = std::io::stderr();
        // Nothing can be done for a person whose stderr is closed.
        let _ = match (stderr.is_terminal(), line.is_empty()) {
            (true, _) => write!(stderr, "\r\x1b[K{line}").and_then(|()| stderr.flush()),
            (false, false) => writeln!(stderr, "{line}"),
            (false, true) => Ok(()),
        };
    }

    /// Ends the nodes and removes their home.
    async fn clear(&self) -> Result<(), Error> {
        if !Path::new(&self.home).exists() {
            return Ok(());
        }
        let delete = ["node", "delete", "--all", "--yes"];
        let line = self.command(&delete, typed(&delete), "").await?;
        match line.exit {
            exit::OK => Ok(()),
            exit => Err(Error::internal(format!("`{}` ended with {exit}: {}", line.command, line.stderr.trim()))),
        }
    }

    fn finish(&self, results: &Results) -> Result<(), Error> {
        #[derive(Serialize)]
        struct Played<'a> {
            transcript: &'a [Line],
            #[serde(flatten)]
            results: &'a Results,
        }
        if self.terminal.is_json() {
            let played = Played { transcript: &self.transcript, results };
            return self.terminal.print(Output::new(&played, String::new));
        }
        self.say("\nThe nodes and their home are gone.")
    }
}

/// A command as it is typed.
fn typed(arguments: &[&str]) -> String {
    format!("ockam {}", arguments.join(" "))
}

/// What was measured, for people.
fn told(measured: &Measured) -> String {
    format!(
        "{} messages ({} of payload each way) came back in {:.1} s, every byte as it was sent:\n  \
         {:.0} messages/s, {:.2} Gbit/s in each direction, {:.0} us for a single round trip",
        measured.messages,
        bytes(measured.messages * measured.message_bytes as u64),
        measured.seconds,
        measured.messages_per_second,
        measured.bits_per_second / 1e9,
        measured.round_trip_us
    )
}

/// What was measured of a connection, for people.
fn told_of_stream(stream: &Stream) -> String {
    format!(
        "{} arrived in {:.1} s, every byte as it was sent:\n  {:.2} Gbit/s, {:.0} us for a round trip of {PING_BYTES} bytes",
        bytes(stream.bytes),
        stream.seconds,
        stream.bits_per_second / 1e9,
        stream.round_trip_us
    )
}

fn address_of(inlet: &str) -> Result<SocketAddr, Error> {
    inlet.parse().map_err(|_| Error::internal(format!("an inlet listens on {inlet}")))
}

/// The program behind the portal, which knows nothing of it. The first byte of a connection says what it wants: `e` to
/// get everything back, `c` to have it compared with the blocks of a [`Pattern`], and how much that was at the end.
struct Program {
    port: u16,
    /// Bytes that were compared.
    compared: Arc<AtomicU64>,
}

impl Program {
    fn start() -> Result<Program, Error> {
        let failed = |error: std::io::Error| io("cannot start the program behind the portal", &error);
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let compared = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&compared);
        // It ends with the demo.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counted = Arc::clone(&counted);
                // Who went away wants no answer.
                std::thread::spawn(move || drop(serve(stream, &counted)));
            }
        });
        Ok(Program { port, compared })
    }
}

fn serve(mut stream: TcpStream, compared: &AtomicU64) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut wish = [0];
    stream.read_exact(&mut wish)?;
    if wish == *b"e" {
        let mut block = [0; PING_BYTES];
        loop {
            match stream.read(&mut block)? {
                0 => return Ok(()),
                read => stream.write_all(&block[..read])?,
            }
        }
    }
    let mut seed = [0; 8];
    stream.read_exact(&mut seed)?;
    let pattern = Pattern::of(u64::from_le_bytes(seed), BLOCK_BYTES);
    let mut block = vec![0; BLOCK_BYTES];
    let mut number = 0;
    loop {
        let mut filled = 0;
        while filled < BLOCK_BYTES {
            match stream.read(&mut block[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        match filled {
            0 => break,
            BLOCK_BYTES if pattern.is(number, &block) => {}
            // Another byte than was sent, or a part of a block: no answer says so.
            _ => return Ok(()),
        }
        number += 1;
        compared.fetch_add(BLOCK_BYTES as u64, Relaxed);
    }
    stream.write_all(&(number * BLOCK_BYTES as u64).to_le_bytes())
}

/// The times that `count` round trips take, sorted; fewer when `limit` is over before.
fn round_trips(address: SocketAddr, limit: Duration, count: usize) -> Result<Vec<Duration>, Error> {
    let failed = |error: std::io::Error| io("the portal does not carry what is sent", &error);
    let mut stream = TcpStream::connect(address).map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    stream.set_read_timeout(Some(LAST_REPLIES)).map_err(failed)?;
    stream.write_all(b"e").map_err(failed)?;
    let pattern = Pattern::of(u64::from_le_bytes(random::bytes()), PING_BYTES);
    let (mut ping, mut pong) = ([0; PING_BYTES], [0; PING_BYTES]);
    let ends = Instant::now() + limit;
    let mut times = Vec::with_capacity(count);
    while times.len() < count && (times.is_empty() || Instant::now() < ends) {
        pattern.write(times.len() as u64, &mut ping);
        let sent = Instant::now();
        stream.write_all(&ping).and_then(|()| stream.read_exact(&mut pong)).map_err(failed)?;
        times.push(sent.elapsed());
        if ping != pong {
            return Err(other_bytes(address));
        }
    }
    times.sort_unstable();
    Ok(times)
}

fn other_bytes(address: SocketAddr) -> Error {
    Error::PeerMisbehaved {
        peer: format!("the portal at {address}"),
        why: "carried other bytes than were sent, or not all of them".into(),
    }
}

/// Sends blocks through a portal for `time`, and has them compared at the other end. Blocking.
fn stream(address: SocketAddr, time: Duration, interrupt: &Interrupt, compared: &AtomicU64) -> Result<Stream, Error> {
    let failed = |error: std::io::Error| io("the portal does not carry what is sent", &error);
    let times = round_trips(address, time / 3, ROUND_TRIPS)?;
    let mut stream = TcpStream::connect(address).map_err(failed)?;
    stream.set_read_timeout(Some(LAST_REPLIES)).map_err(failed)?;
    stream.set_write_timeout(Some(LAST_REPLIES)).map_err(failed)?;
    let seed: [u8; 8] = random::bytes();
    stream.write_all(&[&b"c"[..], &seed].concat()).map_err(failed)?;
    let pattern = Pattern::of(u64::from_le_bytes(seed), BLOCK_BYTES);
    let mut block = vec![0; BLOCK_BYTES];
    let (began, mut number) = (Instant::now(), 0);
    while began.elapsed() < time && !interrupt.happened() {
        pattern.write(number, &mut block);
        match stream.write_all(&block) {
            Ok(()) => number += 1,
            // The program goes away at the first byte that is not the one that was sent.
            Err(_) if compared.load(Relaxed) > 0 => return Err(other_bytes(address)),
            Err(error) => return Err(failed(error)),
        }
    }
    let mut answer = [0; 8];
    let answered = stream.shutdown(Shutdown::Write).and_then(|()| stream.read_exact(&mut answer));
    let seconds = began.elapsed().as_secs_f64();
    if interrupt.happened() {
        return Err(Error::Interrupted);
    }
    let sent = number * BLOCK_BYTES as u64;
    if answered.is_err() || u64::from_le_bytes(answer) != sent {
        return Err(other_bytes(address));
    }
    Ok(Stream {
        bytes: sent,
        seconds,
        bits_per_second: sent as f64 * 8.0 / seconds,
        round_trip_us: times.get(times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e6),
    })
}

/// The ports of the tutorials, or three free ones.
fn free_ports() -> Result<[u16; 3], Error> {
    let bind = |port| TcpListener::bind(("127.0.0.1", port));
    if PORTS.map(bind).iter().all(Result::is_ok) {
        return Ok(PORTS);
    }
    // All three are held at once, so that they differ.
    let listeners = [bind(0), bind(0), bind(0)];
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(listeners) {
        let address = listener.and_then(|listener| listener.local_addr());
        *port = address.map_err(|error| io("cannot find free ports", &error))?.port();
    }
    Ok(ports)
}

/// Ctrl-C and its relatives, heard once and for all.
struct Interrupt {
    happened: AtomicBool,
    heard: Notify,
}

impl Interrupt {
    /// Begins to listen, in place of what these signals would do.
    fn watch() -> Result<Arc<Interrupt>, Error> {
        let interrupt = Arc::new(Interrupt { happened: AtomicBool::new(false), heard: Notify::new() });
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            let mut signals = signal(kind).map_err(|error| io("cannot wait for signals", &error))?;
            let interrupt = Arc::clone(&interrupt);
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    interrupt.happened.store(true, Relaxed);
                    interrupt.heard.notify_waiters();
                }
            });
        }
        Ok(interrupt)
    }

    fn happened(&self) -> bool {
        self.happened.load(Relaxed)
    }

    async fn wait(&self) {
        let heard = self.heard.notified();
        if !self.happened() {
            heard.await;
        }
    }
}

/// Sends messages for `time` and compares what comes back. Blocking; counts replies in `received`.
fn measure(
    route: &Route,
    message_bytes: usize,
    time: Duration,
    interrupt: &Interrupt,
    received: &AtomicU64,
) -> Result<Measured, Error> {
    let whole = Deadline::after(time + LAST_REPLIES);
    let hop =
        route.first_hop().cloned().ok_or_else(|| Error::internal("the route of the demo begins inside a node"))?;
    let mut link = Link::open(&hop, whole)?;
    let pattern = Pattern::new(message_bytes);
    let reply_to = Address::local(random::hex_id());
    let mut frame = messenger::frame(&route.addresses(1), &[reply_to.as_ref()], &vec![0; message_bytes], None)?;
    let payload_at = frame.len() - message_bytes;
    let mut next = 0;

    let mut round_trips = Vec::with_capacity(ROUND_TRIPS);
    let latency_ends = Instant::now() + time / 3;
    while round_trips.len() < ROUND_TRIPS && Instant::now() < latency_ends && !interrupt.happened() {
        pattern.write(next, &mut frame[payload_at..]);
        let sent = Instant::now();
        link.send(&frame, whole)?.ok_or_else(|| silent(&hop))?;
        check(&mut link, whole, &pattern, next, &hop)?;
        round_trips.push(sent.elapsed());
        next += 1;
        received.store(next, Relaxed);
    }
    round_trips.sort_unstable();
    let first = next;

    let window = (WINDOW_BYTES / message_bytes).clamp(1, WINDOW_MESSAGES);
    let (under_way, arrived): (SyncSender<()>, Receiver<()>) = sync_channel(window);
    let mut sender = link.sender()?;
    let began = Instant::now();
    let stop = AtomicBool::new(false);
    let last = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut number = first;
            while began.elapsed() < time && !interrupt.happened() && !stop.load(Relaxed) {
                pattern.write(number, &mut frame[payload_at..]);
                // The place in the window is taken before the message leaves; nobody waits for it any more after an error.
                if under_way.send(()).is_err() || sender.write_all(&frame).is_err() {
                    break;
                }
                number += 1;
            }
            drop(under_way);
            number
        });
        // The reply to each message that was announced: the channel ends when the sender has.
        let mut compared = Ok(());
        while compared.is_ok() && arrived.recv().is_ok() {
            compared = check(&mut link, whole, &pattern, next, &hop);
            next += 1;
            received.store(next, Relaxed);
        }
        stop.store(true, Relaxed);
        drop(arrived);
        let last = sending.join().map_err(|_| Error::internal("the sender of the demo ended"))?;
        compared.map(|()| last)
    })?;
    let seconds = began.elapsed().as_secs_f64();
    if interrupt.happened() {
        return Err(Error::Interrupted);
    }
    let messages = last - first;
    Ok(Measured {
        message_bytes,
        messages,
        seconds,
        messages_per_second: messages as f64 / seconds,
        bits_per_second: messages as f64 * message_bytes as f64 * 8.0 / seconds,
        round_trip_us: round_trips.get(round_trips.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e6),
    })
}

/// Receives the next message and compares it with what was sent as number `number`.
fn check(link: &mut Link, deadline: Deadline, pattern: &Pattern, number: u64, hop: &Hop) -> Result<(), Error> {
    let message = link.receive(deadline)?.ok_or_else(|| silent(hop))?;
    if pattern.is(number, message.payload) {
        return Ok(());
    }
    Err(Error::PeerMisbehaved {
        peer: format!("the node at {hop}"),
        why: format!("gave back other bytes than were sent in message {number}"),
    })
}

fn silent(hop: &Hop) -> Error {
    Error::NoReply { route: format!("the nodes of the demo ({hop})"), timeout_ms: LAST_REPLIES.as_millis() as u64 }
}

/// Payloads that differ from one another in every place: a number, then bytes of a random table from a place that
/// depends on it.
struct Pattern {
    table: Vec<u8>,
    length: usize,
}

impl Pattern {
    /// More than any shift, so that neighbours differ.
    const SHIFTS: usize = 251;

    fn new(length: usize) -> Pattern {
        Pattern::of(u64::from_le_bytes(random::bytes()), length)
    }

    /// The one of a seed, so that two can have the same.
    fn of(seed: u64, length: usize) -> Pattern {
        // A generator of Marsaglia: bytes that neither repeat nor compress, at no cost.
        let mut state = seed | 1;
        let table = (0..length + Self::SHIFTS)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            })
            .collect();
        Pattern { table, length }
    }

    fn tail(&self, number: u64) -> &[u8] {
        let shift = (number % Self::SHIFTS as u64) as usize;
        &self.table[shift..shift + self.length - 8]
    }

    fn write(&self, number: u64, payload: &mut [u8]) {
        let (head, tail) = payload.split_at_mut(8);
        head.copy_from_slice(&number.to_le_bytes());
        tail.copy_from_slice(self.tail(number));
    }

    fn is(&self, number: u64, payload: &[u8]) -> bool {
        payload.len() == self.length && payload[..8] == number.to_le_bytes() && payload[8..] == *self.tail(number)
    }
}

fn io(what: &str, error: &std::io::Error) -> Error {
    Error::Io { what: what.into(), errno: error.raw_os_error().unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_its_own_and_nothing_else() {
        let pattern = Pattern::new(64);
        let mut payload = [0; 64];
        for number in [0, 1, 250, 251, u64::MAX] {
            pattern.write(number, &mut payload);
            assert!(pattern.is(number, &payload));
            assert!(!pattern.is(number.wrapping_add(1), &payload));
            assert!(!pattern.is(number, &payload[..63]));
            payload[63] ^= 1;
            assert!(!pattern.is(number, &payload));
        }
    }

    #[test]
    fn the_program_compares_every_byte() {
        let program = Program::start().unwrap();
        let seed = 7_u64.to_le_bytes();
        for changed in [None, Some(0), Some(BLOCK_BYTES), Some(2 * BLOCK_BYTES - 1)] {
            let pattern = Pattern::of(7, BLOCK_BYTES);
            let mut sent = vec![0; 2 * BLOCK_BYTES];
            pattern.write(0, &mut sent[..BLOCK_BYTES]);
            pattern.write(1, &mut sent[BLOCK_BYTES..]);
            if let Some(at) = changed {
                sent[at] ^= 1;
            }
            let mut stream = TcpStream::connect(("127.0.0.1", program.port)).unwrap();
            // It may go away before it has everything.
            let _ = stream.write_all(&[&b"c"[..], &seed, &sent].concat());
            let _ = stream.shutdown(Shutdown::Write);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            let all = (2 * BLOCK_BYTES as u64).to_le_bytes().to_vec();
            assert_eq!(answer, if changed.is_none() { all } else { Vec::new() }, "{changed:?}");
        }
        let address = SocketAddr::from(([127, 0, 0, 1], program.port));
        assert_eq!(round_trips(address, LAST_REPLIES, 3).unwrap().len(), 3);
        let interrupt = Interrupt { happened: AtomicBool::new(false), heard: Notify::new() };
        let measured = stream(address, Duration::from_millis(10), &interrupt, &program.compared).unwrap();
        assert!(measured.bytes > 0 && measured.bits_per_second > 0.0, "{measured:?}");
    }

    #[test]
    fn ports_of_the_demo_differ() {
        let _busy = TcpListener::bind(("127.0.0.1", PORTS[1]));
        let ports = free_ports().unwrap();
        assert!(ports[0] != ports[1] && ports[1] != ports[2] && ports[0] != ports[2]);
        assert_ne!(ports, PORTS);
    }
}
