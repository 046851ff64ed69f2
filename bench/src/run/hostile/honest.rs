//! The honest flow: echoes at a steady pace whose every byte is verified. What could not be sent in time is given up, not
//! sent later, so that a pause of the system shows as a lower rate.

use crate::load;
use crate::opener::Opener;
use hdrhistogram::Histogram;
use ockam_bench::channel::{Channel, Identity, SealedChecker, Sending, echo_texts};
use ockam_bench::flow::{Checker, Flow};
use ockam_wire::Address;
use rustix::event::{PollFd, PollFlags, poll};
use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Payloads of the two flows: small messages, and the stream.
pub const PAYLOADS: [usize; 2] = [64, 64 * 1024];
/// Requests in flight when the maximum is measured.
const MAXIMUM_WINDOWS: [u64; 2] = [4096, 16];
/// A paced flow may have as many requests in flight as it sends in this time.
const PATIENCE: Duration = Duration::from_millis(50);
/// How often a paced flow sends.
const TICK: Duration = Duration::from_millis(1);
/// Longest round trip that is told apart.
const ROUND_TRIP_MAX_NS: u64 = 60_000_000_000;
/// An honest link whose answer does not come for this long is broken.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// How fast a flow goes.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// So many requests in flight, always.
    Maximum(u64),
    /// So many requests per second, if the system keeps up.
    Steady(f64),
}

/// Where honest messages go.
#[derive(Debug, Clone)]
pub struct Route {
    /// Connected to.
    pub node: SocketAddr,
    /// Onward route of every request.
    pub onward: Vec<Address>,
    /// Whether they go through a secure channel with the node, one per flow.
    pub is_sealed: bool,
}

/// A flow of each payload, on a link each.
pub struct Honest {
    flows: Vec<Flowing>,
    stop: Arc<AtomicBool>,
}

struct Flowing {
    progress: Arc<Progress>,
    thread: JoinHandle<io::Result<()>>,
}

/// What a flow says of itself while it goes on.
struct Progress {
    frames: AtomicU64,
    /// Round trips in nanoseconds, since they were taken last.
    round_trips: Mutex<Histogram<u64>>,
}

impl Progress {
    fn round_trips(&self) -> std::sync::MutexGuard<'_, Histogram<u64>> {
        self.round_trips.lock().expect("no holder panics")
    }
}

/// Values per flow, in the order of [`PAYLOADS`].
pub type Each<T> = [T; PAYLOADS.len()];

impl Honest {
    /// As fast as it goes.
    pub fn at_maximum(route: &Route) -> io::Result<Honest> {
        Honest::start(route, MAXIMUM_WINDOWS.map(Pace::Maximum))
    }

    /// Connects and starts.
    pub fn start(route: &Route, paces: Each<Pace>) -> io::Result<Honest> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut flows = Vec::new();
        for (payload_len, pace) in PAYLOADS.into_iter().zip(paces) {
            let end = End::open(route, payload_len)?;
            let histogram = Histogram::new_with_bounds(1, ROUND_TRIP_MAX_NS, 3).map_err(io::Error::other)?;
            let progress = Arc::new(Progress { frames: AtomicU64::new(0), round_trips: Mutex::new(histogram) });
            let (told, over) = (progress.clone(), stop.clone());
            let thread = std::thread::spawn(move || run(end, pace, &told, &over));
            flows.push(Flowing { progress, thread });
        }
        Ok(Honest { flows, stop })
    }

    /// Frames verified so far.
    pub fn frames(&self) -> Each<u64> {
        std::array::from_fn(|place| self.flows[place].progress.frames.load(Ordering::Relaxed))
    }

    /// The 99th percentiles of the round trips since this was asked last, in milliseconds.
    pub fn take_p99_ms(&self) -> Each<f64> {
        std::array::from_fn(|place| {
            let mut round_trips = self.flows[place].progress.round_trips();
            let p99 = round_trips.value_at_quantile(0.99) as f64 / 1e6;
            round_trips.reset();
            p99
        })
    }

    /// Ends it; everything that was sent must come back.
    ///
    /// # Errors
    /// What went wrong on an honest link: it was closed, something was lost, changed or doubled, or nothing came.
    pub fn finish(self) -> Result<(), String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut wrong = Vec::new();
        for (payload_len, flow) in PAYLOADS.iter().zip(self.flows) {
            match flow.thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => wrong.push(format!("the honest link of {payload_len} B: {error}")),
                Err(_) => wrong.push(format!("the thread of {payload_len} B panicked")),
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }
}

/// Honest strangers who come one after the other while the rest goes on: each connects, opens a secure channel and gets
/// an answer through it.
pub struct Newcomers {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<()>>,
    /// Seconds that each took, since they were taken last; without end for one that was given up.
    took: Arc<Mutex<Vec<f64>>>,
}

/// How many come per second.
const NEWCOMERS_PER_S: f64 = 20.0;
/// And how long each of them waits.
pub const NEWCOMER_WAITS: Duration = Duration::from_secs(5);

impl Newcomers {
    /// The first one comes now. They come when it is time, whatever became of those before.
    pub fn start(node: SocketAddr) -> Newcomers {
        let (stop, took) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (end, told) = (stop.clone(), took.clone());
        let thread = std::thread::spawn(move || {
            let (start, mut under_way) = (Instant::now(), Vec::new());
            for number in 0_u32.. {
                let due = start + Duration::from_secs_f64(f64::from(number) / NEWCOMERS_PER_S);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                if end.load(Ordering::Relaxed) {
                    break;
                }
                let identity = Identity::new()?;
                let told = told.clone();
                under_way.push(std::thread::spawn(move || {
                    let opened = open_channel(node, identity);
                    let seconds = opened.map_or(f64::INFINITY, |()| due.elapsed().as_secs_f64());
                    told.lock().expect("no holder panics").push(seconds);
                }));
            }
            under_way.into_iter().try_for_each(|one| one.join().map_err(|_| io::Error::other("a newcomer panicked")))
        });
        Newcomers { stop, thread, took }
    }

    /// Seconds that each of those took who were done since this was asked last.
    pub fn take(&self) -> Vec<f64> {
        std::mem::take(&mut *self.took.lock().expect("no holder panics"))
    }

    /// Nobody comes any more; waits for those who are under way, and gives as [`Newcomers::take`].
    ///
    /// # Errors
    /// What the system's random numbers say.
    pub fn finish(self) -> io::Result<Vec<f64>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| io::Error::other("the newcomers panicked"))??;
        Ok(std::mem::take(&mut *self.took.lock().expect("no holder panics")))
    }
}

fn open_channel(node: SocketAddr, identity: Identity) -> io::Result<()> {
    let stream = load::link(node)?;
    stream.set_read_timeout(Some(NEWCOMER_WAITS))?;
    let mut opener = Opener::new(stream, vec![identity]);
    for (_, channel) in opener.open(1, 1)? {
        opener.close(channel);
    }
    opener.flush()
}

/// Frames per second of each flow over a while, and how long that was.
pub fn rates_over(honest: &Honest, duration: Duration) -> Each<f64> {
    let (before, start) = (honest.frames(), Instant::now());
    std::thread::sleep(duration);
    let (after, elapsed) = (honest.frames(), start.elapsed().as_secs_f64());
    std::array::from_fn(|place| (after[place] - before[place]) as f64 / elapsed)
}

/// The end of a flow that sends and verifies.
struct End {
    stream: TcpStream,
    requests: Flow,
    way: Way,
}

enum Way {
    /// The first answer tells the routes of all.
    Plain(Box<Checker>),
    Sealed(Box<Sending>, Box<SealedChecker>),
}

impl End {
    fn open(route: &Route, payload_len: usize) -> io::Result<End> {
        let stream = load::link(route.node)?;
        if !route.is_sealed {
            let back = [Address::local("0123456789abcdef0123456789abcdef")];
            let requests = Flow::new(&route.onward, &back, payload_len);
            return Ok(End { stream, requests, way: Way::Plain(Box::new(Checker::of_any())) });
        }
        let mut opener = Opener::new(stream, vec![Identity::new()?]);
        let open = opener.open(1, 1)?.pop();
        let (_, Channel { sending, receiving, .. }) = open.ok_or(io::ErrorKind::UnexpectedEof)?;
        let (requests, answers) = echo_texts(payload_len);
        let checker = SealedChecker::of(answers, receiving);
        Ok(End { stream: opener.into_link(), requests, way: Way::Sealed(Box::new(sending), Box::new(checker)) })
    }

    fn write(&mut self, sequence: u64, out: &mut Vec<u8>) {
        match &mut self.way {
            Way::Plain(_) => self.requests.write(sequence, out),
            Way::Sealed(sending, _) => sending.write(&self.requests, sequence, out),
        }
    }

    fn verified(&self) -> u64 {
        match &self.way {
            Way::Plain(checker) => checker.verified(),
            Way::Sealed(_, checker) => checker.verified(),
        }
    }

    fn receive(&mut self) -> io::Result<Option<u64>> {
        match &mut self.way {
            Way::Plain(checker) => checker.receive(&self.stream),
            Way::Sealed(_, checker) => checker.receive(&self.stream),
        }
    }
}

fn run(mut end: End, pace: Pace, progress: &Progress, stop: &AtomicBool) -> io::Result<()> {
    let start = Instant::now();
    let window = match pace {
        Pace::Maximum(window) => window,
        Pace::Steady(per_s) => (per_s * PATIENCE.as_secs_f64()).ceil() as u64,
    };
    let (mut sent, mut offered) = (0, 0);
    let mut under_way: VecDeque<(u64, Instant)> = VecDeque::new();
    let mut unsent = Vec::new();
    let mut unsent_from = 0;
    loop {
        let now = Instant::now();
        let stopping = stop.load(Ordering::Relaxed);
        if !stopping {
            let due = match pace {
                Pace::Maximum(_) => window,
                Pace::Steady(per_s) => {
                    let due = ((now - start).as_secs_f64() * per_s) as u64;
                    due - std::mem::replace(&mut offered, due)
                }
            };
            let wanted = sent + due.min(window - (sent - end.verified()));
            let before = sent;
            while sent < wanted {
                end.write(sent, &mut unsent);
                sent += 1;
            }
            if sent > before {
                under_way.push_back((sent, now));
            }
        } else if sent == end.verified() {
            return Ok(());
        }
        load::send_what_fits(&end.stream, &mut unsent, &mut unsent_from)?;
        if readable(&end.stream, !unsent.is_empty(), (now + TICK).saturating_duration_since(Instant::now()))? {
            let before = end.verified();
            let Some(count) = end.receive()? else {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the node closed it"));
            };
            progress.frames.fetch_add(count, Ordering::Relaxed);
            record(&mut under_way, before, end.verified(), &mut progress.round_trips());
        } else if under_way.front().is_some_and(|(_, since)| since.elapsed() > ANSWER_LIMIT) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "an answer did not come"));
        }
    }
}

/// Waits for something to read, or for room to write if there is something to write, no longer than `limit`.
fn readable(stream: &TcpStream, writing: bool, limit: Duration) -> io::Result<bool> {
    let flags = if writing { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
    let mut sockets = [PollFd::new(stream, flags)];
    let limit = rustix::event::Timespec { tv_sec: 0, tv_nsec: limit.as_nanos() as _ };
    poll(&mut sockets, Some(&limit))?;
    Ok(sockets[0].revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR))
}

/// Frames `from..to` came back now.
fn record(under_way: &mut VecDeque<(u64, Instant)>, mut from: u64, to: u64, round_trips: &mut Histogram<u64>) {
    let now = Instant::now();
    while from < to
        && let Some(&(end, since)) = under_way.front()
    {
        let until = end.min(to);
        round_trips.saturating_record_n((now - since).as_nanos() as u64, until - from);
        from = until;
        if until == end {
            under_way.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_counts_with_the_round_trip_of_its_batch() {
        let now = Instant::now();
        let before = |seconds| now.checked_sub(Duration::from_secs(seconds)).expect("the machine is up for longer");
        let mut under_way = VecDeque::from([(10, before(20)), (40, before(10))]);
        let mut round_trips = Histogram::new_with_bounds(1, ROUND_TRIP_MAX_NS, 3).unwrap();
        record(&mut under_way, 0, 25, &mut round_trips);
        assert_eq!(round_trips.len(), 25);
        let of_the_first = round_trips.count_between(19_000_000_000, 40_000_000_000);
        assert_eq!((of_the_first, under_way.len()), (10, 1));
        record(&mut under_way, 25, 40, &mut round_trips);
        assert_eq!((round_trips.len(), under_way.len()), (40, 0));
    }
}
