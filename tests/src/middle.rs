//! A man in the middle that knows frames: he sees all of them, and may change, keep, repeat and exchange them.

use crate::{Peer, wait_for};
use ockam_wire::{Framer, Message};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

/// Which way a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// To the address that he stands in front of.
    Onward,
    /// From there.
    Back,
}

/// What he does with a frame, given whole: the frames that go on instead of it.
type Rule = Box<dyn FnMut(Direction, Vec<u8>) -> Vec<Vec<u8>> + Send>;

/// Stands in front of a node. Who connects to him believes to be connected to that one.
pub struct Middle {
    /// Where he waits.
    pub address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    rule: Rule,
    captured: Vec<(Direction, Vec<u8>)>,
    /// Both sides of each connection: that of who connected, and that of the node.
    streams: Vec<(Side, Side)>,
}

/// A side of a connection; locked while a frame is written to it, so that frames stay whole.
type Side = Arc<Mutex<TcpStream>>;

impl Middle {
    /// Waits at a free port of 127.0.0.1 and passes everything on, until he is told otherwise.
    pub fn before(target: SocketAddr) -> Middle {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let rule: Rule = Box::new(|_, frame| vec![frame]);
        let shared = Arc::new(Mutex::new(Shared { rule, captured: Vec::new(), streams: Vec::new() }));
        let of_thread = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(near) = stream else { return };
                let Ok(far) = TcpStream::connect(target) else { continue };
                let clone = |stream: &TcpStream| {
                    stream.set_nodelay(true).expect("delays can be switched off");
                    stream.try_clone().expect("a descriptor")
                };
                let (from_near, from_far) = (clone(&near), clone(&far));
                let (near, far) = (Arc::new(Mutex::new(near)), Arc::new(Mutex::new(far)));
                lock(&of_thread).streams.push((near.clone(), far.clone()));
                for (direction, from, to) in [(Direction::Onward, from_near, far), (Direction::Back, from_far, near)] {
                    let shared = of_thread.clone();
                    std::thread::spawn(move || pass(direction, from, &to, &shared));
                }
            }
        });
        Middle { address, shared }
    }

    /// The route to the node behind him, by way of him.
    pub fn route(&self) -> String {
        format!("/ip4/127.0.0.1/tcp/{}", self.address.port())
    }

    /// From now on he does this with each frame: what it gives goes on instead. A frame comes with its length in front.
    pub fn rule(&self, rule: impl FnMut(Direction, Vec<u8>) -> Vec<Vec<u8>> + Send + 'static) {
        lock(&self.shared).rule = Box::new(rule);
    }

    /// From now on he passes everything on.
    pub fn pass_on(&self) {
        self.rule(|_, frame| vec![frame]);
    }

    /// All frames that he got so far, as he got them.
    pub fn captured(&self) -> Vec<(Direction, Vec<u8>)> {
        lock(&self.shared).captured.clone()
    }

    /// Forgets what he got so far.
    pub fn forget(&self) {
        lock(&self.shared).captured.clear();
    }

    /// Waits until he got that many frames in all.
    #[track_caller]
    pub fn wait_for_frames(&self, count: usize) -> Vec<(Direction, Vec<u8>)> {
        wait_for(
            || Some(self.captured()).filter(|captured| captured.len() >= count),
            || format!("{} frames came by, not {count}", self.captured().len()),
        )
    }

    /// Says something of his own, on the connection that was made last.
    #[track_caller]
    pub fn inject(&self, direction: Direction, bytes: &[u8]) {
        let (near, far) = lock(&self.shared).streams.last().expect("somebody is connected").clone();
        let to = if direction == Direction::Onward { far } else { near };
        lock(&to).write_all(bytes).expect("the other side reads");
    }

    /// Ends all connections that go through him. New ones can be made.
    pub fn cut(&self) {
        let streams = std::mem::take(&mut lock(&self.shared).streams);
        for (near, far) in streams {
            // One that is closed already is as good.
            let _ = (lock(&near).shutdown(Shutdown::Both), lock(&far).shutdown(Shutdown::Both));
        }
    }

    /// Whether what he got contains these bytes, in any frame.
    pub fn saw(&self, bytes: &[u8]) -> bool {
        self.captured().iter().any(|(_, frame)| frame.windows(bytes.len()).any(|window| window == bytes))
    }

    /// A connection of a test through him.
    #[track_caller]
    pub fn connect(&self) -> Peer {
        Peer::connect(self.address)
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("a rule of a test does not panic")
}

/// Passes one direction of a connection on, until one side ends it.
fn pass(direction: Direction, mut from: TcpStream, to: &Mutex<TcpStream>, shared: &Mutex<Shared>) {
    let mut chunk = vec![0; 64 * 1024];
    let mut framer = Framer::new();
    let mut preamble = true;
    'reading: while let Ok(count @ 1..) = from.read(&mut chunk) {
        let mut bytes = &chunk[..count];
        if std::mem::take(&mut preamble) {
            if lock(to).write_all(&bytes[..1]).is_err() {
                break;
            }
            bytes = &bytes[1..];
        }
        framer.push(bytes);
        while let Ok(Some(body)) = framer.next() {
            let frame = [&(body.len() as u32).to_be_bytes(), body].concat();
            let on = {
                let mut shared = lock(shared);
                shared.captured.push((direction, frame.clone()));
                (shared.rule)(direction, frame).concat()
            };
            if lock(to).write_all(&on).is_err() {
                break 'reading;
            }
        }
    }
    // One that is closed already is as good.
    let _ = (from.shutdown(Shutdown::Both), lock(to).shutdown(Shutdown::Both));
}

/// Where in a frame its payload is: the record, in a frame of a channel.
///
/// # Panics
/// It is no frame.
#[track_caller]
pub fn payload_of(frame: &[u8]) -> Range<usize> {
    let body = &frame[4..];
    let payload = Message::parse(body).expect("a frame of a node").payload;
    let start = payload.as_ptr().addr() - frame.as_ptr().addr();
    start..start + payload.len()
}

/// The frame with one bit of its payload changed, counted from the payload's first.
#[track_caller]
pub fn flipped(mut frame: Vec<u8>, bit: usize) -> Vec<u8> {
    let payload = payload_of(&frame);
    frame[payload][bit / 8] ^= 1 << (bit % 8);
    frame
}
