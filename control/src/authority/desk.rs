//! The thread that answers requests, and what waits for it.
//!
//! ```text
//!   a punt ──► Queue: those of each caller in their order, the callers in turn ──► Services ──► an answer
//!                                                                                    └──► waits for a revocation
//! ```
//!
//! One thread, because there is one file; its own, because it waits for the disk and signs. A caller that floods waits
//! behind itself, and all of them together get half of one core.

use super::envelope::Request;
use super::services::{Answer, Service, Services};
use crate::channels::cpu_time;
use crate::engine_link::EngineLink;
use ockam_crypto::Identifier;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{Semaphore, mpsc};

/// Most requests that wait for their turn, those of one caller among them, and the bytes of all.
const WAITING_MAX: usize = 4096;
const WAITING_PER_CALLER_MAX: usize = 32;
const WAITING_BYTES_MAX: usize = 16 << 20;

/// How long a request for a newer list of revocations waits before it is told that there is none.
const AWAIT_LIMIT: Duration = Duration::from_secs(20);

/// Most requests that wait so: one of each channel, and half as many as there may be channels.
const AWAITING_MAX: usize = 16_384;

/// After so much processor time the thread rests for as long. Waiting for the disk is no work.
const WORK: Duration = Duration::from_millis(10);

/// How often it is looked whether a ticket is over when nothing else happens: the clock may have been set.
const LOOK_PAUSE: Duration = Duration::from_secs(60);

/// How often it is looked, while somebody waits for news, whether the identity has another key.
const KEYS_PAUSE: Duration = Duration::from_secs(2);

/// How often the log says that requests are dropped.
const TELL_PAUSE: Duration = Duration::from_secs(1);

/// Answers that are on their way to the engine.
const SENDING_MAX: usize = 64;

/// A request, and where its answer goes.
pub(super) struct Asked {
    pub(super) service: Service,
    pub(super) caller: Identifier,
    /// The channel that it came through.
    pub(super) channel: u32,
    pub(super) payload: Vec<u8>,
    pub(super) back: Back,
}

impl Asked {
    fn bytes(&self) -> usize {
        self.payload.len() + self.back.way.len()
    }
}

/// Where an answer goes.
#[derive(Clone)]
pub(super) struct Back {
    pub(super) engine: EngineLink,
    /// The way back, as a message without payload.
    pub(super) way: Vec<u8>,
    /// Whose answer it is.
    pub(super) service: Service,
}

/// An answer on its way.
pub(super) struct Outgoing {
    engine: EngineLink,
    message: Vec<u8>,
}

/// What waits for its turn.
#[derive(Default)]
struct Queue {
    callers: BTreeMap<Identifier, VecDeque<Asked>>,
    waits: usize,
    bytes: usize,
    /// Whose turn it was last.
    last: Option<Identifier>,
    dropped: u64,
    told: Option<Instant>,
    is_closed: bool,
}

impl Queue {
    fn put(&mut self, asked: Asked) {
        let mine = self.callers.get(&asked.caller).map_or(0, VecDeque::len);
        let is_full = self.waits >= WAITING_MAX || self.bytes + asked.bytes() > WAITING_BYTES_MAX;
        if mine >= WAITING_PER_CALLER_MAX || (is_full && !self.shed(mine)) {
            return self.drop_one();
        }
        self.bytes += asked.bytes();
        self.waits += 1;
        self.callers.entry(asked.caller).or_default().push_back(asked);
    }

    /// Of all callers the one with most gives way to one that has fewer.
    fn shed(&mut self, mine: usize) -> bool {
        let longest = self.callers.values_mut().max_by_key(|queue| queue.len());
        let shed = longest.filter(|queue| queue.len() > mine + 1).and_then(VecDeque::pop_back);
        if let Some(shed) = &shed {
            self.waits -= 1;
            self.bytes -= shed.bytes();
            self.drop_one();
        }
        shed.is_some()
    }

    fn drop_one(&mut self) {
        self.dropped += 1;
        if self.told.is_none_or(|told| told.elapsed() >= TELL_PAUSE) {
            self.told = Some(Instant::now());
            tracing::warn!(so_far = self.dropped, "requests to the authority are dropped: there are too many");
        }
    }

    fn take(&mut self) -> Option<Asked> {
        let first = self.callers.first_key_value().map(|(caller, _)| *caller);
        let behind = |last: Identifier| {
            let range = (std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded);
            self.callers.range(range).next().map(|(caller, _)| *caller)
        };
        let caller = self.last.and_then(behind).or(first)?;
        let queue = self.callers.get_mut(&caller)?;
        let asked = queue.pop_front();
        if queue.is_empty() {
            self.callers.remove(&caller);
        }
        self.waits -= usize::from(asked.is_some());
        self.bytes -= asked.as_ref().map_or(0, Asked::bytes);
        self.last = Some(caller);
        asked
    }
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Something was put there.
    bell: Condvar,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where requests are handed in. The thread ends with it.
pub(super) struct Desk(Arc<Shared>);

impl Desk {
    /// Starts the thread, and what carries its answers to the engine, on this runtime.
    ///
    /// # Errors
    /// The system has no more threads.
    pub(super) fn open(services: Services) -> std::io::Result<Desk> {
        let shared = Arc::new(Shared::default());
        let (out, answers) = mpsc::channel(SENDING_MAX);
        tokio::spawn(send(answers));
        let clerk = Clerk {
            shared: shared.clone(),
            number: services.list_number(),
            services,
            out,
            awaiting: Awaiting::default(),
            looked: Instant::now(),
            work: Duration::ZERO,
        };
        std::thread::Builder::new().name("authority".into()).spawn(move || clerk.work())?;
        Ok(Desk(shared))
    }

    /// Hands in a request.
    pub(super) fn put(&self, asked: Asked) {
        self.0.queue().put(asked);
        self.0.bell.notify_one();
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.0.queue().is_closed = true;
        self.0.bell.notify_one();
    }
}

/// Carries answers to the engine until nobody makes any more.
async fn send(mut answers: mpsc::Receiver<Outgoing>) {
    let sending = Arc::new(Semaphore::new(SENDING_MAX));
    while let Some(Outgoing { engine, message }) = answers.recv().await {
        let Ok(permit) = sending.clone().acquire_owned().await else { return };
        tokio::spawn(async move {
            if let Err(error) = engine.transmit(engine.new_request(), message).await {
                tracing::debug!(%error, "an answer of the authority cannot be sent");
            }
            drop(permit);
        });
    }
}

/// Requests for a newer list, by when they came.
#[derive(Default)]
struct Awaiting {
    by_serial: BTreeMap<u64, Await>,
    by_channel: HashMap<u32, u64>,
    serial: u64,
}

struct Await {
    /// The id of the request.
    id: u32,
    until: Instant,
    channel: u32,
    back: Back,
}

impl Awaiting {
    /// Adds one, and gives the one of the same channel before it.
    fn add(&mut self, new: Await) -> Option<Await> {
        self.serial += 1;
        let before = self.by_channel.insert(new.channel, self.serial).and_then(|it| self.by_serial.remove(&it));
        self.by_serial.insert(self.serial, new);
        before
    }

    /// The one that waits for the longest, if it does until now.
    fn over(&mut self, now: Instant) -> Option<Await> {
        let first = self.by_serial.first_entry().filter(|first| first.get().until <= now)?.remove();
        self.by_channel.remove(&first.channel);
        Some(first)
    }

    fn all(&mut self) -> Vec<Await> {
        self.by_channel.clear();
        std::mem::take(&mut self.by_serial).into_values().collect()
    }

    fn next(&self) -> Option<Instant> {
        self.by_serial.first_key_value().map(|(_, first)| first.until)
    }
}

/// The thread.
struct Clerk {
    shared: Arc<Shared>,
    services: Services,
    out: mpsc::Sender<Outgoing>,
    awaiting: Awaiting,
    /// The number of the list that all who wait know.
    number: u64,
    /// When it was looked at the keys.
    looked: Instant,
    /// Processor time since it rested.
    work: Duration,
}

/// Nobody takes answers any more.
struct Over;

impl Clerk {
    fn work(mut self) {
        while let Some(asked) = self.next() {
            let before = cpu_time();
            if self.turn(asked).is_err() {
                return;
            }
            self.work += cpu_time().saturating_sub(before);
            if self.work >= WORK {
                std::thread::sleep(std::mem::take(&mut self.work));
            }
        }
    }

    /// The next request, or nothing when it is time to look after those who wait. `None`: it is over.
    fn next(&mut self) -> Option<Option<Asked>> {
        let look = self.until_expiry();
        let now = Instant::now();
        let awaited = self.awaiting.next().map(|next| next.saturating_duration_since(now).min(KEYS_PAUSE));
        let pause = awaited.unwrap_or(LOOK_PAUSE).min(look);
        let mut queue = self.shared.queue();
        if queue.waits == 0 && !queue.is_closed {
            queue = self.shared.bell.wait_timeout(queue, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
        (!queue.is_closed).then(|| queue.take())
    }

    /// How long until a ticket is over.
    fn until_expiry(&mut self) -> Duration {
        let now = unix_now();
        match self.services.expire(now) {
            Ok(Some(next)) => Duration::from_secs(next.saturating_sub(now)).min(LOOK_PAUSE),
            Ok(None) => LOOK_PAUSE,
            Err(error) => {
                tracing::error!(%error, "cannot note which tickets are over");
                LOOK_PAUSE
            }
        }
    }

    fn turn(&mut self, asked: Option<Asked>) -> Result<(), Over> {
        if let Some(asked) = asked {
            let Asked { service, caller, channel, payload, back } = asked;
            let answer = self.services.answer(service, &caller, &payload, unix_now());
            let payload = zeroize::Zeroizing::new(payload);
            drop(payload);
            match answer {
                Answer::Now(answer) => self.send(&back, &answer)?,
                Answer::Await { id, number } => self.wait(id, number, channel, back)?,
            }
        }
        if self.awaiting.next().is_some() && self.looked.elapsed() >= KEYS_PAUSE {
            self.looked = Instant::now();
            if let Err(error) = self.services.look(unix_now()) {
                tracing::warn!(%error, "the authority cannot read its keys");
            }
        }
        let number = self.services.list_number();
        if number != self.number {
            self.number = number;
            for Await { id, back, .. } in self.awaiting.all() {
                let answer = self.services.list_answer(id, unix_now());
                self.send(&back, &answer)?;
            }
        }
        while let Some(over) = self.awaiting.over(Instant::now()) {
            self.send(&over.back, &nothing_new(over.id))?;
        }
        Ok(())
    }

    fn wait(&mut self, id: u32, number: u64, channel: u32, back: Back) -> Result<(), Over> {
        if number < self.services.list_number() {
            let answer = self.services.list_answer(id, unix_now());
            return self.send(&back, &answer);
        }
        let until = Instant::now() + AWAIT_LIMIT;
        if let Some(before) = self.awaiting.add(Await { id, until, channel, back }) {
            self.send(&before.back, &nothing_new(before.id))?;
        }
        if self.awaiting.by_serial.len() > AWAITING_MAX {
            // The one that has waited for the longest asks again soonest anyway.
            if let Some(first) = self.awaiting.over(Instant::now() + AWAIT_LIMIT) {
                self.send(&first.back, &nothing_new(first.id))?;
            }
        }
        Ok(())
    }

    fn send(&self, back: &Back, payload: &[u8]) -> Result<(), Over> {
        let message = super::along(&back.way, back.service.address(), payload);
        self.out.blocking_send(Outgoing { engine: back.engine.clone(), message }).map_err(|_| Over)
    }
}

fn nothing_new(id: u32) -> Vec<u8> {
    Request { id, method: None, path: "/", body: None }.done(None)
}

/// Seconds since 1970.
fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeEngine;

    async fn engine() -> EngineLink {
        EngineLink::open(FakeEngine::start().connect(), |_| ()).await.unwrap().0
    }

    fn asked(engine: &EngineLink, caller: u8, number: u8) -> Asked {
        let (service, caller) = (Service::Issuer, Identifier([caller; 32]));
        let back = Back { engine: engine.clone(), way: Vec::new(), service };
        Asked { service, caller, channel: 1, payload: vec![number], back }
    }

    #[test]
    fn callers_take_turns_and_who_floods_waits_behind_itself() {
        crate::testing::run(async {
            let engine = engine().await;
            let mut queue = Queue::default();
            (0..100).for_each(|number| queue.put(asked(&engine, 1, number)));
            assert_eq!((queue.waits, queue.dropped), (WAITING_PER_CALLER_MAX, 100 - WAITING_PER_CALLER_MAX as u64));
            (0..3).for_each(|number| queue.put(asked(&engine, 2, number)));
            queue.put(asked(&engine, 3, 0));
            let order: Vec<(u8, u8)> =
                std::iter::from_fn(|| queue.take()).map(|it| (it.caller.0[0], it.payload[0])).collect();
            assert_eq!(order[..8], [(1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (1, 2), (2, 2), (1, 3)]);
            assert_eq!((order.len(), queue.waits, queue.bytes, queue.callers.len()), (36, 0, 0, 0));
        });
    }

    #[test]
    fn a_full_queue_sheds_who_has_most() {
        crate::testing::run(async {
            let engine = engine().await;
            let mut queue = Queue::default();
            let callers = WAITING_MAX / WAITING_PER_CALLER_MAX;
            for caller in 0..callers {
                (0..WAITING_PER_CALLER_MAX).for_each(|_| queue.put(asked(&engine, caller as u8, 0)));
            }
            assert_eq!((queue.waits, queue.dropped), (WAITING_MAX, 0));
            queue.put(asked(&engine, 200, 7));
            assert_eq!((queue.waits, queue.dropped), (WAITING_MAX, 1));
            assert!(queue.callers.contains_key(&Identifier([200; 32])));

            // Few that are large.
            let mut queue = Queue::default();
            let large = |caller| Asked { payload: vec![0; WAITING_BYTES_MAX / 4], ..asked(&engine, caller, 0) };
            (0..4).for_each(|_| queue.put(large(1)));
            queue.put(large(2));
            assert_eq!((queue.waits, queue.bytes, queue.dropped), (4, WAITING_BYTES_MAX, 1));
            queue.put(large(3));
            assert_eq!((queue.callers[&Identifier([1; 32])].len(), queue.bytes), (2, WAITING_BYTES_MAX));
        });
    }

    #[test]
    fn one_request_of_each_channel_waits_for_a_newer_list() {
        crate::testing::run(async {
            let engine = engine().await;
            let back = Back { engine, way: Vec::new(), service: Service::Revocations };
            let start = Instant::now();
            let new = |id, channel| Await { id, until: start + AWAIT_LIMIT, channel, back: back.clone() };
            let mut awaiting = Awaiting::default();
            assert!(awaiting.add(new(1, 1)).is_none());
            assert!(awaiting.add(new(2, 2)).is_none());
            assert_eq!(awaiting.add(new(3, 1)).unwrap().id, 1);
            assert!(awaiting.over(start).is_none());
            assert_eq!(awaiting.over(start + AWAIT_LIMIT).unwrap().id, 2);
            assert_eq!(awaiting.all().into_iter().map(|it| it.id).collect::<Vec<_>>(), [3]);
            assert!(awaiting.next().is_none() && awaiting.by_channel.is_empty());
        });
    }
}
