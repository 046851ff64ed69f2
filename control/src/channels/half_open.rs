//! Handshakes that peers began and that are no channels yet: how many there may be, whose turn it is, when they end.
//!
//! ```text
//!   message 1 ──► Fresh ──take──► (message 2 is written) ──answered──► Waiting
//!   message 3 ──► Ready ──take──► (the claim is judged)  ──finish────► a channel, or none
//! ```
//!
//! What costs public-key work is taken one job at a time, the sources in turn, so that a source that floods waits behind
//! itself. When there are too many handshakes, the oldest of the source that has most gives way. State and times only:
//! who drives this does the work, sends the messages, and clears the addresses of those that are [`Gone`].

use crate::store::ChannelListenerRow;
use ockam_crypto::{ExpectMessage3, ReadyForMessage2};
use ockam_engine_abi::LinkId;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a handshake may take, from message 1 to message 3.
pub(super) const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// Most handshakes under way.
pub(super) const HALF_OPEN_MAX: usize = 1024;

/// Most handshakes under way that came by one link or channel.
pub(super) const PER_SOURCE_MAX: usize = 256;

/// Most bytes of message 3 that wait for their turn.
pub(super) const WAITING_BYTES_MAX: usize = 8 << 20;

/// What a message 3 has at least: two tags and a key.
const MESSAGE_3_MIN: usize = 64;

/// Where a handshake comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Source {
    /// A link of the node.
    Link(LinkId),
    /// Out of a channel.
    Channel(u32),
    /// This node itself.
    Inside,
}

/// Why a handshake did not become a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum End {
    /// It was given up for another.
    Shed,
    /// Message 3 did not come in time.
    Expired,
    /// A message is not what belongs there, or its way back is none.
    Malformed,
    /// A message is not the peer's, or was changed on its way.
    NotGenuine,
    /// The peer is not who it says it is.
    NotAuthentic,
    /// The peer is not among those authorized.
    NotAuthorized,
    /// There are as many channels as there may be, or more came early than is kept.
    Limit,
    /// This end cannot say who it is.
    NoIdentity,
    /// The listener or its identity is gone, or the engine failed.
    Withdrawn,
}

impl End {
    /// The stable name.
    pub(super) fn name(self) -> &'static str {
        match self {
            End::Shed => "shed",
            End::Expired => "expired",
            End::Malformed => "malformed",
            End::NotGenuine => "not_genuine",
            End::NotAuthentic => "not_authentic",
            End::NotAuthorized => "not_authorized",
            End::Limit => "limit",
            End::NoIdentity => "no_identity",
            End::Withdrawn => "withdrawn",
        }
    }
}

/// Public-key work to be done.
pub(super) enum Job {
    /// Write message 2.
    Answer(ReadyForMessage2),
    /// Read message 3, and judge what it claims.
    Judge(ExpectMessage3, Vec<u8>),
}

enum State {
    Fresh(ReadyForMessage2),
    Waiting(ExpectMessage3),
    Ready(ExpectMessage3, Vec<u8>),
    /// Its job was taken.
    AtWork,
}

/// What a handshake is, apart from its state.
#[derive(Debug, Clone)]
pub(super) struct Handshake {
    /// When it began.
    pub(super) since: Instant,
    /// Where it comes from.
    pub(super) source: Source,
    /// Where it was begun.
    pub(super) listener: Arc<ChannelListenerRow>,
    /// The local name of the receiving side of the channel that it may become.
    pub(super) decryptor: String,
    /// The way back, as a message without payload.
    pub(super) way: Vec<u8>,
}

struct Entry {
    handshake: Handshake,
    deadline: Instant,
    state: State,
    /// Whether its decryptor has an address, or is about to get one.
    has_address: bool,
}

/// A handshake that is over, and whose decryptor's address is to be cleared. One that nobody answered has none: that is
/// what nearly all of a flood are, and they shall cost the engine nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gone {
    pub(super) decryptor: String,
}

/// What became of the handshakes of one listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) accepted: u64,
    pub(super) ended: BTreeMap<End, u64>,
}

/// The table. A number names a handshake; higher ones are younger.
#[derive(Default)]
pub(super) struct HalfOpen {
    entries: BTreeMap<u64, Entry>,
    by_decryptor: HashMap<String, u64>,
    by_source: HashMap<Source, BTreeSet<u64>>,
    /// Handshakes with a job, in the order of their turns inside their source.
    jobs: HashMap<Source, VecDeque<u64>>,
    /// Sources with jobs, the next one in front.
    turns: VecDeque<Source>,
    next: u64,
    waiting_bytes: usize,
    counts: HashMap<String, Counts>,
}

impl HalfOpen {
    /// Message 1 came. Gives who had to give way.
    pub(super) fn begin(&mut self, now: Instant, handshake: Handshake, ready: ReadyForMessage2) -> Vec<Gone> {
        let mut gone = Vec::new();
        let mine = self.by_source.get(&handshake.source).map_or(0, BTreeSet::len);
        let oldest = if mine >= PER_SOURCE_MAX {
            self.by_source[&handshake.source].first().copied()
        } else if self.entries.len() >= HALF_OPEN_MAX {
            let biggest =
                self.by_source.values().max_by_key(|numbers| (numbers.len(), std::cmp::Reverse(numbers.first())));
            biggest.and_then(|numbers| numbers.first().copied())
        } else {
            None
        };
        gone.extend(oldest.and_then(|number| self.end(number, End::Shed)));
        let number = self.next;
        self.next += 1;
        let source = handshake.source;
        self.by_decryptor.insert(handshake.decryptor.clone(), number);
        self.by_source.entry(source).or_default().insert(number);
        let entry =
            Entry { handshake, deadline: now + HANDSHAKE_LIMIT, state: State::Fresh(ready), has_address: false };
        self.entries.insert(number, entry);
        self.queue(source, number);
        gone
    }

    /// Whether `decryptor` is one of a handshake's.
    pub(super) fn has(&self, decryptor: &str) -> bool {
        self.by_decryptor.contains_key(decryptor)
    }

    /// A message came for the decryptor of a handshake: message 3, or garbage, which ends it. One that comes while the
    /// handshake waits for nothing is dropped.
    pub(super) fn message_3(&mut self, decryptor: &str, message: &[u8]) -> Option<Gone> {
        let number = *self.by_decryptor.get(decryptor)?;
        let entry = self.entries.get_mut(&number)?;
        if !matches!(entry.state, State::Waiting(_)) {
            return None;
        }
        if message.len() < MESSAGE_3_MIN || message.len() > ockam_crypto::HANDSHAKE_MESSAGE_MAX {
            return self.end(number, End::Malformed);
        }
        if self.waiting_bytes + message.len() > WAITING_BYTES_MAX {
            return self.end(number, End::Shed);
        }
        let State::Waiting(expect) = std::mem::replace(&mut entry.state, State::AtWork) else {
            unreachable!("it was just looked at");
        };
        entry.state = State::Ready(expect, message.to_vec());
        let source = entry.handshake.source;
        self.waiting_bytes += message.len();
        self.queue(source, number);
        None
    }

    /// The next job: the sources take turns.
    pub(super) fn take(&mut self) -> Option<(u64, Handshake, Job)> {
        loop {
            let source = self.turns.pop_front()?;
            let numbers = self.jobs.get_mut(&source)?;
            let number = numbers.pop_front();
            if numbers.is_empty() {
                self.jobs.remove(&source);
            } else {
                self.turns.push_back(source);
            }
            let Some(entry) = number.and_then(|number| self.entries.get_mut(&number)) else { continue };
            let job = match std::mem::replace(&mut entry.state, State::AtWork) {
                State::Fresh(ready) => Job::Answer(ready),
                State::Ready(expect, message) => {
                    self.waiting_bytes -= message.len();
                    Job::Judge(expect, message)
                }
                State::Waiting(_) | State::AtWork => unreachable!("only what has a job is queued"),
            };
            return Some((number.expect("it was found"), entry.handshake.clone(), job));
        }
    }

    /// Message 2 is written. Says whether it is still wanted.
    pub(super) fn answered(&mut self, number: u64, expect: ExpectMessage3) -> bool {
        let Some(entry) = self.entries.get_mut(&number) else { return false };
        (entry.state, entry.has_address) = (State::Waiting(expect), true);
        true
    }

    /// The handshake is judged and becomes a channel. Says whether it is still wanted.
    pub(super) fn finish(&mut self, number: u64) -> bool {
        let Some((handshake, _)) = self.remove(number) else { return false };
        self.counts(&handshake.listener).accepted += 1;
        true
    }

    /// What was finished could not be kept after all.
    pub(super) fn unfinish(&mut self, listener: &ChannelListenerRow, why: End) {
        let counts = self.counts(listener);
        counts.accepted -= 1;
        *counts.ended.entry(why).or_default() += 1;
    }

    /// A handshake is over. Gives what is to be cleared of it.
    pub(super) fn end(&mut self, number: u64, why: End) -> Option<Gone> {
        let (handshake, has_address) = self.remove(number)?;
        self.count(&handshake.listener, why);
        has_address.then_some(Gone { decryptor: handshake.decryptor })
    }

    /// Counts what did not even become a handshake.
    pub(super) fn count(&mut self, listener: &ChannelListenerRow, why: End) {
        *self.counts(listener).ended.entry(why).or_default() += 1;
    }

    /// Ends what took too long.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Gone> {
        let late = self.entries.iter().take_while(|(_, entry)| entry.deadline <= now);
        let late: Vec<u64> = late.map(|(number, _)| *number).collect();
        late.into_iter().filter_map(|number| self.end(number, End::Expired)).collect()
    }

    /// When the next one takes too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.entries.first_key_value().map(|(_, entry)| entry.deadline)
    }

    /// Ends those of listeners that `stays` does not want any more.
    pub(super) fn withdraw(&mut self, stays: impl Fn(&ChannelListenerRow) -> bool) -> Vec<Gone> {
        let ending = self.entries.iter().filter(|(_, entry)| !stays(&entry.handshake.listener));
        let ending: Vec<u64> = ending.map(|(number, _)| *number).collect();
        ending.into_iter().filter_map(|number| self.end(number, End::Withdrawn)).collect()
    }

    /// What became of the handshakes at a listener, and how many are under way.
    pub(super) fn of_listener(&self, listener: &ChannelListenerRow) -> (Counts, u64) {
        let counts = self.counts.get(&listener.flow_control).cloned().unwrap_or_default();
        let under_way =
            self.entries.values().filter(|entry| entry.handshake.listener.flow_control == listener.flow_control);
        (counts, under_way.count() as u64)
    }

    /// Forgets the numbers of listeners that are gone.
    pub(super) fn keep_counts(&mut self, stays: impl Fn(&str) -> bool) {
        self.counts.retain(|flow_control, _| stays(flow_control));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn queue(&mut self, source: Source, number: u64) {
        let numbers = self.jobs.entry(source).or_default();
        if numbers.is_empty() {
            self.turns.push_back(source);
        }
        numbers.push_back(number);
    }

    fn remove(&mut self, number: u64) -> Option<(Handshake, bool)> {
        let Entry { handshake, state, has_address, .. } = self.entries.remove(&number)?;
        if let State::Ready(_, message) = state {
            self.waiting_bytes -= message.len();
        }
        self.by_decryptor.remove(&handshake.decryptor);
        if let Some(numbers) = self.by_source.get_mut(&handshake.source) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_source.remove(&handshake.source);
            }
        }
        if let Some(numbers) = self.jobs.get_mut(&handshake.source) {
            numbers.retain(|queued| *queued != number);
            if numbers.is_empty() {
                self.jobs.remove(&handshake.source);
                self.turns.retain(|source| *source != handshake.source);
            }
        }
        Some((handshake, has_address))
    }

    fn counts(&mut self, listener: &ChannelListenerRow) -> &mut Counts {
        self.counts.entry(listener.flow_control.clone()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ockam_crypto::{Secret, X25519Key, accept, initiate};

    fn listener() -> Arc<ChannelListenerRow> {
        let flow_control = "0".repeat(32);
        Arc::new(ChannelListenerRow {
            bit: 32,
            address: "api".into(),
            flow_control,
            identity: None,
            authorized: vec![],
        })
    }

    fn link(index: u32) -> Source {
        Source::Link(LinkId::new(0, index, 1))
    }

    struct World {
        table: HalfOpen,
        listener: Arc<ChannelListenerRow>,
        now: Instant,
        made: u32,
    }

    impl World {
        fn new() -> World {
            World { table: HalfOpen::default(), listener: listener(), now: Instant::now(), made: 0 }
        }

        fn begin(&mut self, source: Source) -> (String, Vec<Gone>) {
            self.made += 1;
            let decryptor = format!("d{}", self.made);
            let handshake = Handshake {
                since: Instant::now(),
                source,
                listener: self.listener.clone(),
                decryptor: decryptor.clone(),
                way: Vec::new(),
            };
            let ready = accept(&initiate(Secret::new([7; 32])).0).unwrap();
            (decryptor, self.table.begin(self.now, handshake, ready))
        }

        /// Does the next job, if it is an answer. Says for whom.
        fn answer(&mut self) -> String {
            let (number, handshake, job) = self.table.take().unwrap();
            let Job::Answer(ready) = job else { panic!("another job") };
            let key = X25519Key::new(Secret::new([8; 32]));
            let (_, expect) = ready.write(&key, Secret::new([9; 32]), b"").unwrap();
            assert!(self.table.answered(number, expect));
            handshake.decryptor
        }

        fn ended(&self, why: End) -> u64 {
            self.table.of_listener(&self.listener).0.ended.get(&why).copied().unwrap_or(0)
        }
    }

    #[test]
    fn sources_take_turns_whatever_one_of_them_asks_for() {
        let mut world = World::new();
        let flood: Vec<String> = (0..20).map(|_| world.begin(link(1)).0).collect();
        let honest = world.begin(link(2)).0;
        assert_eq!(world.answer(), flood[0]);
        assert_eq!(world.answer(), honest);
        assert_eq!(world.answer(), flood[1]);
        // Message 3 waits for its turn in the same way.
        assert_eq!(world.table.message_3(&honest, &[0; 387]), None);
        assert_eq!(world.answer(), flood[2]);
        let (number, handshake, job) = world.table.take().unwrap();
        assert!(matches!(job, Job::Judge(_, message) if message.len() == 387));
        assert_eq!((handshake.decryptor.as_str(), world.table.waiting_bytes), (honest.as_str(), 0));
        assert!(world.table.finish(number) && !world.table.has(&honest));
        assert_eq!(world.table.of_listener(&world.listener).0.accepted, 1);
        assert!(!world.table.finish(number));
    }

    #[test]
    fn the_oldest_of_the_biggest_source_gives_way() {
        let mut world = World::new();
        let first = world.begin(link(1)).0;
        for _ in 1..PER_SOURCE_MAX {
            assert_eq!(world.begin(link(1)).1, []);
        }
        // One source has its own limit. What was answered has an address to be cleared, the others have none.
        assert_eq!(world.answer(), first);
        assert_eq!(world.begin(link(1)).1, [Gone { decryptor: first }]);
        assert_eq!((world.begin(link(1)).1, world.ended(End::Shed)), (Vec::new(), 2));
        let honest = world.begin(link(2)).0;
        for index in 0..2 * HALF_OPEN_MAX as u32 {
            world.begin(link(3 + index % 8));
            assert!(world.table.len() <= HALF_OPEN_MAX && world.table.has(&honest));
        }
        assert_eq!(world.table.len(), HALF_OPEN_MAX);
        assert_eq!(world.ended(End::Shed), world.made as u64 - HALF_OPEN_MAX as u64);
        assert_eq!(world.table.of_listener(&world.listener).1, HALF_OPEN_MAX as u64);
        // What was shed has no job any more.
        let mut jobs = 0;
        while world.table.take().is_some() {
            jobs += 1;
        }
        assert_eq!(jobs, HALF_OPEN_MAX);
        assert!(world.table.has(&honest));
    }

    #[test]
    fn garbage_ends_a_handshake_and_so_does_time() {
        let mut world = World::new();
        let [short, early, late, slow] = std::array::from_fn(|_| world.begin(link(1)).0);
        assert_eq!(world.answer(), short);
        assert_eq!(world.table.message_3(&short, &[0; MESSAGE_3_MIN - 1]), Some(Gone { decryptor: short }));
        // Before it was asked for, and again while it waits for its turn.
        assert_eq!(world.table.message_3(&early, &[0; 387]), None);
        assert_eq!(world.answer(), early);
        assert_eq!(world.table.message_3(&early, &[0; 387]), None);
        assert_eq!(world.table.message_3(&early, b"garbage"), None);
        assert_eq!(world.answer(), late);
        assert_eq!(world.table.message_3("nobody", &[0; 387]), None);
        assert_eq!(world.table.message_3(&late, &[0; 65_536]), Some(Gone { decryptor: late }));
        assert_eq!(world.ended(End::Malformed), 2);
        assert_eq!(world.table.deadline(), Some(world.now + HANDSHAKE_LIMIT));
        let late = world.now + HANDSHAKE_LIMIT;
        assert_eq!(world.table.expire(late - Duration::from_nanos(1)), []);
        assert_eq!(world.table.expire(late), [Gone { decryptor: early }]);
        assert!(!world.table.has(&slow), "it had no address yet");
        assert_eq!((world.ended(End::Expired), world.table.deadline()), (2, None));
        assert!(world.table.is_empty() && world.table.take().is_none());
    }

    #[test]
    fn what_waits_for_its_turn_is_bounded_in_bytes() {
        let mut world = World::new();
        let each = ockam_crypto::HANDSHAKE_MESSAGE_MAX;
        let fit = WAITING_BYTES_MAX / each;
        let all: Vec<String> = (0..=fit).map(|_| world.begin(link(1)).0).collect();
        all.iter().for_each(|_| drop(world.answer()));
        for decryptor in &all[..fit] {
            assert_eq!(world.table.message_3(decryptor, &vec![0; each]), None);
        }
        let last = all[fit].clone();
        assert_eq!(world.table.message_3(&last, &vec![0; each]), Some(Gone { decryptor: last }));
        // The room comes back, also from those that end before their turn.
        assert_eq!(world.table.withdraw(|_| false).len(), fit);
        assert_eq!(world.table.waiting_bytes, 0);
        assert!(world.table.by_source.is_empty() && world.table.jobs.is_empty() && world.table.turns.is_empty());
    }
}
