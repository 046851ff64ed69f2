//! A man in the middle of a TCP connection, who understands frames and reads no more of them than anybody could.

use crate::{PATIENCE, RECOVERY, RawPeer};
use ockam_wire::Message;
use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// The direction in which a frame goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// From who dialed to the target.
    ToTarget,
    /// From the target to who dialed.
    ToDialer,
}

/// What becomes of a frame.
enum Rule {
    Pass,
    /// Records are kept, other frames pass.
    Hold,
    /// These bodies are sent instead of its own, in this order.
    Change(Box<dyn FnMut(Vec<u8>) -> Vec<Vec<u8>> + Send>),
}

/// One direction.
struct Lane {
    rule: Rule,
    /// Every frame that came, before the rule.
    seen: Vec<Vec<u8>>,
    /// Frames that were kept back.
    held: VecDeque<Vec<u8>>,
    /// Towards the receiver, over the newest connection.
    writer: Option<RawPeer>,
    /// Connections that ended.
    ended: usize,
}

impl Lane {
    fn new() -> Mutex<Lane> {
        Mutex::new(Lane { rule: Rule::Pass, seen: Vec::new(), held: VecDeque::new(), writer: None, ended: 0 })
    }
}

struct Shared {
    lanes: [Mutex<Lane>; 2],
    /// Tells whoever waits for a lane that a frame came.
    came: [Condvar; 2],
}

/// Accepts connections, dials the target for each of them, and passes on what comes, as it is told. A connection whose
/// target does not answer is ended.
pub struct Middle {
    address: SocketAddr,
    shared: Arc<Shared>,
    connections: Arc<AtomicUsize>,
}

impl Middle {
    /// In front of `target`.
    pub fn before(target: SocketAddr) -> Middle {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared { lanes: [Lane::new(), Lane::new()], came: [Condvar::new(), Condvar::new()] });
        let connections = Arc::new(AtomicUsize::new(0));
        let (accepting, counting) = (shared.clone(), connections.clone());
        // Ends with the process of the test: nobody connects after its nodes are gone.
        thread::spawn(move || {
            while let Ok((dialer, _)) = listener.accept() {
                let Ok(target) = TcpStream::connect(target) else { continue };
                counting.fetch_add(1, Ordering::Relaxed);
                let (dialer, target) = (RawPeer::over(dialer), RawPeer::over(target));
                pass(&accepting, Way::ToTarget, dialer.writer(), &target);
                pass(&accepting, Way::ToDialer, target, &dialer);
            }
        });
        Middle { address, shared, connections }
    }

    /// Where to dial it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections came through so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// From now on, frames that go this way become what `rule` makes of them. It sees all of them, not only records.
    pub fn rule(&self, way: Way, rule: impl FnMut(Vec<u8>) -> Vec<Vec<u8>> + Send + 'static) {
        self.lane(way).rule = Rule::Change(Box::new(rule));
    }

    /// From now on, records that go this way become what `rule` makes of them; other frames pass.
    pub fn rule_for_records(&self, way: Way, mut rule: impl FnMut(Vec<u8>) -> Vec<Vec<u8>> + Send + 'static) {
        self.rule(way, move |body| if nonce(&body).is_some() { rule(body) } else { vec![body] });
    }

    /// From now on, frames that go this way pass.
    pub fn pass(&self, way: Way) {
        self.lane(way).rule = Rule::Pass;
    }

    /// From now on, records that go this way are kept; other frames pass.
    pub fn hold(&self, way: Way) {
        let mut lane = self.lane(way);
        lane.held.clear();
        lane.rule = Rule::Hold;
    }

    /// Waits for as many records as this to be kept, and takes them, in the order in which they came.
    #[track_caller]
    pub fn held(&self, way: Way, count: usize) -> Vec<Vec<u8>> {
        let mut lane = self.wait(way, |lane| lane.held.len() >= count, "records to hold");
        lane.held.drain(..count).collect()
    }

    /// Sends a frame over the newest connection.
    #[track_caller]
    pub fn send(&self, way: Way, body: &[u8]) {
        self.lane(way).writer.as_mut().expect("a connection").send(body);
    }

    /// Every frame that came this way so far, as it came.
    pub fn seen(&self, way: Way) -> Vec<Vec<u8>> {
        self.lane(way).seen.clone()
    }

    /// Waits for as many frames as this to have come, and gives all that came.
    #[track_caller]
    pub fn seen_at_least(&self, way: Way, count: usize) -> Vec<Vec<u8>> {
        self.wait(way, |lane| lane.seen.len() >= count, "frames to see").seen.clone()
    }

    /// Waits until as many frames as this came this way that are `wanted`, for as long as nodes need who ask every few seconds.
    #[track_caller]
    pub fn seen_of(&self, way: Way, count: usize, wanted: impl Fn(&[u8]) -> bool) {
        let enough = |lane: &Lane| lane.seen.iter().filter(|body| wanted(body)).count() >= count;
        drop(self.wait_for(way, RECOVERY, enough, "frames of that kind"));
    }

    /// Waits until a connection has ended in both directions.
    #[track_caller]
    pub fn wait_for_end(&self) {
        for way in [Way::ToTarget, Way::ToDialer] {
            drop(self.wait(way, |lane| lane.ended > 0, "end of a connection"));
        }
    }

    /// The record with this nonce that came this way last.
    #[track_caller]
    pub fn record(&self, way: Way, wanted: u64) -> Vec<u8> {
        let seen = self.seen(way);
        let record = seen.into_iter().rev().find(|body| nonce(body) == Some(wanted));
        record.unwrap_or_else(|| panic!("no record {wanted} came {way:?}"))
    }

    fn lane(&self, way: Way) -> MutexGuard<'_, Lane> {
        lock(&self.shared.lanes[way as usize])
    }

    #[track_caller]
    fn wait(&self, way: Way, ready: impl Fn(&Lane) -> bool, what: &str) -> MutexGuard<'_, Lane> {
        self.wait_for(way, PATIENCE, ready, what)
    }

    #[track_caller]
    fn wait_for(&self, way: Way, limit: Duration, ready: impl Fn(&Lane) -> bool, what: &str) -> MutexGuard<'_, Lane> {
        let came = &self.shared.came[way as usize];
        let waiting = came.wait_timeout_while(self.lane(way), limit, |lane| !ready(lane));
        let (lane, limit) = waiting.expect("no test thread died with this lock");
        assert!(!limit.timed_out(), "no more {what} {way:?}; {} frames came", lane.seen.len());
        lane
    }
}

fn lock(lane: &Mutex<Lane>) -> MutexGuard<'_, Lane> {
    lane.lock().expect("no test thread died with this lock")
}

/// Passes frames on in one direction until either side ends the connection.
fn pass(shared: &Arc<Shared>, way: Way, mut from: RawPeer, to: &RawPeer) {
    let (shared, mut to) = (shared.clone(), to.writer());
    thread::spawn(move || {
        let Some(preamble) = from.read_or_end(1) else { return to.no_more() };
        if !to.write_or_end(&preamble) {
            return;
        }
        lock(&shared.lanes[way as usize]).writer = Some(to.writer());
        while let Some(body) = from.receive_or_end() {
            let mut lane = lock(&shared.lanes[way as usize]);
            lane.seen.push(body.clone());
            let bodies = match &mut lane.rule {
                Rule::Hold if nonce(&body).is_some() => {
                    lane.held.push_back(body);
                    Vec::new()
                }
                Rule::Change(rule) => rule(body),
                Rule::Pass | Rule::Hold => vec![body],
            };
            shared.came[way as usize].notify_all();
            // With the lane locked, so that what a test sends does not get into the middle of a frame.
            if !bodies.iter().all(|body| to.write_or_end(&frame(body))) {
                break;
            }
        }
        // The other direction ends when the receiver has seen this and ends it.
        to.no_more();
        lock(&shared.lanes[way as usize]).ended += 1;
        shared.came[way as usize].notify_all();
    });
}

fn frame(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a body of less than 4 GiB");
    [&length.to_be_bytes(), body].concat()
}

/// The nonce of a record (`wire.md` E.5), as far as an outsider can tell: 24 bytes or more that begin like a small
/// number. A handshake message begins with a random key, everything else in these tests with text.
pub fn nonce(body: &[u8]) -> Option<u64> {
    let payload = Message::parse(body).ok()?.payload;
    let nonce = u64::from_be_bytes(*payload.first_chunk()?);
    (payload.len() >= 24 && nonce < 1 << 32).then_some(nonce)
}

/// The frame with another payload.
pub fn with_payload(body: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let message = Message::parse(body).expect("nodes send messages that parse");
    let onward: Vec<_> = message.onward.iter().collect();
    let return_route: Vec<_> = message.return_route.iter().collect();
    let mut payload = message.payload.to_vec();
    change(&mut payload);
    crate::body(&onward, &return_route, &payload, message.tracing)
}
