//! A core: one thread, one driver, one pool, its links. [`Core::run`] is the table of contents.
//!
//! * [`ingest`]: bytes of a link become frames.
//! * [`carry`]: frames meet the path, verdicts are carried out.
//! * [`channels`]: records are opened, messages are sealed.
//! * [`repeat`]: frames that look like the one before.
//! * [`familiar`]: records for the connection that the one before was for.
//! * [`egress`]: frames become segments, segments are sent.
//! * [`guards`]: what was let pass ends when it is no longer.
//! * [`portals`]: bytes of applications become messages, and the other way round.
//! * [`lifecycle`]: links come up and go down; deadlines.
//! * [`transit`]: links that a route asked for.
//! * [`commands`]: what control asked for.
//! * [`mesh`]: what the threads of an engine share.
//! * [`link`], [`slab`]: the data.

mod carry;
mod channels;
mod commands;
mod egress;
mod familiar;
mod guards;
mod ingest;
mod lifecycle;
pub(crate) mod link;
pub(crate) mod mesh;
mod portals;
mod repeat;
#[cfg(test)]
mod simulation;
pub(crate) mod slab;
mod transit;

use crate::config::{
    CROSS_QUEUE, GRANTS_INTERVAL, KERNEL_SLOTS_MAX, KERNEL_SLOTS_MIN, LARGE_SLOT_BYTES, LARGE_SLOTS, LINKS_MAX,
    LISTENER_SOCKETS, PORTALS_MAX, SENDING_SLOTS_MIN, SLOT_BODY, SLOT_HEAD, SLOT_TAIL, SLOTS,
};
use crate::io::counters::CoreCounters;
use crate::io::driver::{Done, Driver, FOREVER, SocketId};
use crate::io::pool::{Geometry, Pool, Slot};
use crate::path::tables::{Replies, Tables};
use foldhash::{HashMap, HashMapExt};
use link::Link;
use mesh::{Cross, FromCore, Mesh, take};
use ockam_engine_abi::{Counter, LinkId, Notice};
use portals::{Inlet, Portal, Room};
use slab::Slab;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Small slots of a core.
pub(crate) const SMALL: Geometry = Geometry { head: SLOT_HEAD, body: SLOT_BODY, tail: SLOT_TAIL, count: SLOTS };
/// Large slots of a core.
pub(crate) const LARGE: Geometry = Geometry { head: 0, body: LARGE_SLOT_BYTES, tail: 0, count: LARGE_SLOTS };

/// See [`Core::warm`].
const WARM_SWEEPS: u8 = 2;

/// Why a link has to stop reading for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blocker {
    /// A link of this core is full; it keeps a list of whom to resume.
    Egress(LinkId),
    /// A link of another core, or the way there, is full.
    Elsewhere,
    /// No slot is free.
    Slots,
}

/// A listening socket.
#[derive(Debug)]
struct Listener {
    socket: SocketId,
    /// Control's number; a retired listener waits for the driver's last word.
    number: Option<u32>,
    serves: Serves,
    /// When to try again after accepting failed, in milliseconds of the clock.
    retry_ms: Option<u64>,
}

/// What a listening socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Serves {
    /// Links, of this flow control.
    Links(u8),
    /// An inlet.
    Inlet,
}

/// The slot into which heads and small frames are written, one after the other, for whatever link.
#[derive(Debug, Default)]
struct Scribe {
    slot: Option<Slot>,
    end: usize,
}

/// See the module.
pub(crate) struct Core<D: Driver> {
    index: u8,
    driver: D,
    mesh: Arc<Mesh>,
    counters: CoreCounters,
    pool: Pool,
    tables: Tables,
    links: Slab<Link>,
    listeners: Vec<Option<Listener>>,
    scribe: Scribe,
    /// What is written around a payload that is sealed where it lies.
    scratch: Box<[u8]>,
    /// What control and channels may answer to is not kept by a link.
    no_replies: Replies,
    /// What was done about the frame that was carried out last, if the next may be like it.
    repeatable: Option<repeat::Repeat>,
    /// The inlets, by control's number.
    inlets: HashMap<u32, Inlet>,
    /// Connections of applications that wait until their inlet has a way.
    connections_waiting: usize,
    /// Portal connections of this core.
    portals: Room,
    /// What found no slot: frames that say something short to the other ends of portal connections ...
    unsaid: VecDeque<Box<[u8]>>,
    /// ... and portal connections of which something is kept.
    unfilled: Vec<u32>,
    /// Channels around the message that is being carried, each sealed for the next.
    layers: usize,
    now_ms: u64,
    /// Links that have something to send and no send in flight.
    unsent: Vec<u32>,
    /// Links that may go on reading.
    resume: VecDeque<LinkId>,
    /// Links that wait to receive large frames again, and how many bytes each received last ...
    resting: VecDeque<(LinkId, usize)>,
    /// ... and how many of them waited while what they had received was sent.
    rested: usize,
    /// Links that wait for another core, or for a slot.
    blocked: Vec<LinkId>,
    /// Links whose receiving stopped because the kernel had no slot.
    unarmed: VecDeque<u32>,
    /// Slots that the kernel should have.
    kernel_slots: usize,
    /// The kernel had no slot since the last sweep.
    slots_ran_out: bool,
    /// Unfinished frames that keep their slot.
    held_partials: usize,
    /// Links that have a deadline.
    attended: Vec<u32>,
    sweep_ms: u64,
    /// When some guard may deny next what it let pass, in milliseconds of the clock; `u64::MAX` for never.
    denial_ms: u64,
    /// Sweeps without anything received until idle memory is given back.
    warm: u8,
    /// For the attendant, when its queue is full.
    outbox: VecDeque<FromCore>,
    /// For other cores, when their queue is full: releases and connections, which are bounded by slots and descriptors.
    overflow: VecDeque<(u8, Cross)>,
    /// When the core must be done, once it drains.
    drain_ms: Option<u64>,
}

impl<D: Driver> Core<D> {
    /// A core with nothing in it.
    ///
    /// # Errors
    /// What reserving memory says.
    pub(crate) fn new(index: u8, driver: D, mesh: Arc<Mesh>, counters: CoreCounters) -> io::Result<Self> {
        let (directory, has_other_cores) = (mesh.directory.clone(), mesh.cores.len() > 1);
        Ok(Core {
            index,
            driver,
            mesh,
            counters,
            pool: Pool::new(index, SMALL, LARGE)?,
            tables: Tables::new(directory, has_other_cores),
            links: Slab::new(LISTENER_SOCKETS as u32, LINKS_MAX),
            listeners: Vec::new(),
            scribe: Scribe::default(),
            scratch: Box::new([0; channels::SCRATCH_BYTES]),
            no_replies: Replies::new(),
            repeatable: None,
            inlets: HashMap::new(),
            connections_waiting: 0,
            portals: Room::new(PORTALS_MAX),
            unsaid: VecDeque::new(),
            unfilled: Vec::new(),
            layers: 0,
            now_ms: crate::clock::now_ms(),
            unsent: Vec::new(),
            resume: VecDeque::new(),
            resting: VecDeque::new(),
            rested: 0,
            blocked: Vec::new(),
            unarmed: VecDeque::new(),
            kernel_slots: KERNEL_SLOTS_MIN,
            slots_ran_out: false,
            held_partials: 0,
            attended: Vec::new(),
            sweep_ms: 0,
            denial_ms: u64::MAX,
            warm: 0,
            outbox: VecDeque::new(),
            overflow: VecDeque::new(),
            drain_ms: None,
        })
    }

    /// Runs until the node has drained.
    ///
    /// # Errors
    /// What makes the driver useless.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut burst = Vec::with_capacity(1024);
        while !self.tick(crate::clock::now_ms, &mut burst)? {}
        Ok(())
    }

    /// One pass: what others want, what is due, one submission, what happened. True when the node has drained.
    fn tick(&mut self, clock: impl Fn() -> u64, burst: &mut Vec<Done>) -> io::Result<bool> {
        self.take_commands();
        self.end_denied();
        self.take_crossing();
        self.resume_links();
        self.sweep();
        self.lend_slots();
        self.send_queued();
        self.receive_rested();
        if self.publish() {
            return Ok(true);
        }
        let until_ms = self.until();
        self.driver.wait(self.now_ms, until_ms, burst)?;
        // The wait may have been long: what happened, happened now.
        self.now_ms = clock();
        self.end_denied();
        self.mesh.cores[usize::from(self.index)].waker.awake();
        for done in burst.drain(..) {
            self.on_done(done);
        }
        Ok(false)
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Received { socket, slot, length } => {
                self.pool.returned(&slot);
                self.warm = WARM_SWEEPS;
                match self.links.get(socket.index, socket.generation) {
                    Some(link) if link.is_open() => self.on_received(socket.index, slot, length),
                    _ => self.pool.put(slot),
                }
            }
            Done::Filled { socket, slot, length } => {
                self.warm = WARM_SWEEPS;
                match self.links.get(socket.index, socket.generation) {
                    Some(link) if link.is_open() => self.on_filled(socket.index, slot, length),
                    _ => self.pool.put(slot),
                }
            }
            Done::Sent { socket, result } => self.on_sent(socket, result),
            Done::ReceiveEnded { socket, end } => self.on_receive_ended(socket, end),
            Done::Accepted { listener, socket } => self.on_accepted(listener, socket),
            Done::AcceptFailed { listener, errno } => self.on_accept_failed(listener, errno),
            Done::Connected { socket, result } => self.on_connected(socket, result),
            Done::Closed { socket } => self.on_closed(socket),
            Done::Woken => {}
        }
    }

    /// Frames and connections from other cores.
    fn take_crossing(&mut self) {
        for from in 0..self.mesh.cores.len() {
            let mut taken = 0;
            while taken < CROSS_QUEUE
                && let Some(item) = take(&self.mesh.cores[usize::from(self.index)].crossing[from])
            {
                taken += 1;
                match item {
                    Cross::Frame { link, reply, segments } => self.queue(link, reply, segments),
                    Cross::Seal { channel, segments } => self.seal_crossed(&channel, segments),
                    Cross::Release(segment) => self.pool.release(segment),
                    Cross::AdoptStream { socket, inlet } => self.adopt_connection(inlet, socket),
                    Cross::Said { link, said } => self.hear(link, said),
                    Cross::Adopt { socket, listener, flow_control } => {
                        self.adopt_accepted(socket, listener, flow_control);
                    }
                }
            }
            if taken > 0 {
                self.mesh.made_room(from, usize::from(self.index));
            }
        }
        while let Some((to, item)) = self.overflow.pop_front() {
            if let Err(item) = self.mesh.cross(self.index, to, item) {
                self.overflow.push_front((to, item));
                break;
            }
        }
    }

    /// Puts something in front of another core that must not be lost.
    fn cross(&mut self, to: u8, item: Cross) {
        if !self.overflow.is_empty() {
            self.overflow.push_back((to, item));
        } else if let Err(item) = self.mesh.cross(self.index, to, item) {
            self.overflow.push_back((to, item));
        }
    }

    /// Lends the kernel slots to receive into, and starts what stopped for want of them.
    fn lend_slots(&mut self) {
        let (free, _, _) = self.pool.census();
        // Some are kept for sending, so that what was received can leave.
        let mut spare = free.saturating_sub(SENDING_SLOTS_MIN);
        while self.driver.provided() < self.kernel_slots && (spare > 0 || self.driver.provided() == 0) {
            let Some(slot) = self.pool.lend() else { break };
            self.driver.provide(slot);
            spare = spare.saturating_sub(1);
        }
        // Not more at once than there are slots, or most of them would find none and stop again.
        for _ in 0..self.driver.provided() {
            let Some(index) = self.unarmed.pop_front() else { break };
            self.receive(index);
        }
    }

    /// Takes back what the kernel has above `count` slots.
    fn withdraw_slots(&mut self, count: usize) {
        while self.driver.provided() > count
            && let Some(slot) = self.driver.withdraw()
        {
            self.pool.returned(&slot);
            self.pool.put(slot);
        }
    }

    /// The kernel had no slot: it gets more of them.
    fn on_no_slots(&mut self, index: u32) {
        self.counters.add(Counter::NoBuffers, 1);
        self.slots_ran_out = true;
        self.kernel_slots = (self.kernel_slots * 2).min(KERNEL_SLOTS_MAX);
        self.unarmed.push_back(index);
    }

    /// Says what is to be said to the attendant and in counters; true when the core has drained.
    fn publish(&mut self) -> bool {
        let (free, kernel, core) = self.pool.census();
        self.counters.add(Counter::Ticks, 1);
        self.counters.set(Counter::SlotsFree, free as u64);
        self.counters.set(Counter::SlotsKernel, kernel as u64);
        self.counters.set(Counter::SlotsCore, core as u64);
        self.counters.set(Counter::LargeSlotsUsed, self.pool.large_used() as u64);
        self.counters.set(Counter::LinksOpen, self.links.len().saturating_sub(self.portals.taken()) as u64);
        self.counters.set(Counter::PortalsOpen, self.portals.taken() as u64);

        let drained = self.drain_ms.is_some() && self.links.is_empty();
        if drained {
            self.outbox.push_back(FromCore::Drained);
        }
        let mut said = false;
        while let Some(notice) = self.outbox.pop_front() {
            let punted_by = match &notice {
                FromCore::Notice(Notice::Punt { link, .. }) => *link,
                _ => None,
            };
            if let Err(notice) = self.mesh.notices.push(notice) {
                self.outbox.push_front(notice);
                break;
            }
            if let Some(link) = punted_by.and_then(|link| self.links.get_mut(link.index(), link.generation())) {
                link.demands().punts_waiting -= 1;
            }
            said = true;
        }
        if said {
            self.mesh.attendant.wake();
        }
        drained && self.outbox.is_empty()
    }

    fn say(&mut self, notice: FromCore) {
        self.outbox.push_back(notice);
    }

    /// Until when the driver may wait: not at all while there is something to do.
    fn until(&mut self) -> u64 {
        let mailbox = &self.mesh.cores[usize::from(self.index)];
        mailbox.waker.about_to_sleep();
        let idle = self.resume.is_empty()
            && self.resting.is_empty()
            && self.unsent.is_empty()
            && (self.unarmed.is_empty() || self.driver.provided() == 0)
            && mailbox.commands.is_empty()
            && mailbox.crossing.iter().all(|queue| queue.is_empty());
        if !idle {
            return 0;
        }
        let has_deadline = !self.attended.is_empty()
            || !self.blocked.is_empty()
            || !self.unarmed.is_empty()
            || !self.outbox.is_empty()
            || !self.overflow.is_empty()
            || !self.unsaid.is_empty()
            || !self.unfilled.is_empty()
            || self.connections_waiting > 0
            || self.warm > 0
            || self.drain_ms.is_some()
            || self.listeners.iter().flatten().any(|listener| listener.retry_ms.is_some());
        // Expiry is looked at now and then in any case: clocks are changed.
        let denial_ms = match self.denial_ms {
            u64::MAX => FOREVER,
            due_ms => due_ms.min(self.now_ms + GRANTS_INTERVAL.as_millis() as u64),
        };
        let sweep_ms = if has_deadline { self.sweep_ms } else { FOREVER };
        sweep_ms.min(denial_ms).max(self.now_ms + 1)
    }

    /// The index of an open link of this core.
    fn open_link(&self, link: LinkId) -> Option<u32> {
        debug_assert_eq!(link.core(), self.index);
        let found = self.links.get(link.index(), link.generation())?;
        found.is_open().then_some(link.index())
    }

    /// The link has a deadline from now on.
    fn attend(&mut self, index: u32) {
        let link = &mut self.links[index];
        if !link.attended {
            link.attended = true;
            self.attended.push(index);
        }
    }

    /// Starts receiving on a link, unless it must not or does already.
    fn receive(&mut self, index: u32) {
        use link::{Receiving, State};
        let Some(link) = self.links.at_mut(index) else { return };
        let is_stream = link.portal().is_some();
        let wanted = matches!(link.state, State::ExpectPreamble | State::Up)
            && link.portal().is_none_or(Portal::may_read)
            && !link.ingest.blocked
            && link.ingest.ended.is_none();
        if wanted && link.ingest.receiving == Receiving::Off {
            link.ingest.receiving = Receiving::On;
            let socket = link.socket;
            if is_stream {
                self.driver.receive_once(socket);
            } else if !self.receive_whole(index) {
                self.driver.receive(socket);
            }
        }
    }

    /// Hands an accepted connection to the core with the fewest links.
    fn distribute(&mut self, socket: OwnedFd, listener: u32, flow_control: u8) {
        let to = self.mesh.least_loaded();
        if to == self.index {
            self.adopt_accepted(socket, listener, flow_control);
        } else {
            self.cross(to, Cross::Adopt { socket, listener, flow_control });
        }
    }
}
