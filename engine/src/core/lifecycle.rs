//! Links come up and go down; deadlines.

use super::familiar::Familiar;
use super::link::{Egress, Ingest, Link, Origin, Partial, Receiving, State};
use super::mesh::FromCore;
use super::portals::Portal;
use super::{Core, Listener, Serves};
use crate::config::{
    FRAME_LIMIT, FRAME_RATE_MIN, KERNEL_SLOTS_MIN, LISTENER_SOCKETS, PREAMBLE_LIMIT, SEND_LIMIT, SWEEP_INTERVAL,
};
use crate::io::driver::{Driver, SocketId};
use crate::io::sockets;
use crate::path::tables::{LinkAddress, Replies};
use ockam_engine_abi::notice::Traffic;
use ockam_engine_abi::{CloseReason, Counter, DropReason, LinkId, Notice};
use rustix::io::Errno;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

/// Milliseconds until accepting is tried again after it failed.
const ACCEPT_RETRY_MS: u64 = 500;
/// A link whose peer ended has this long to take what waits for it.
const FLUSH_LIMIT_MS: u64 = 5_000;
/// A link that others wait for must take this many bytes per second.
const SEND_RATE_MIN: u64 = 16 * 1024;
/// Over so many milliseconds.
const SEND_WINDOW_MS: u64 = 5_000;
/// A link that takes nothing for this long, in milliseconds, goes when slots run out.
const STALLED_MS: u64 = 1_000;

impl<D: Driver> Core<D> {
    pub(super) fn add_listener(&mut self, number: u32, socket: OwnedFd, serves: Serves) {
        let place = self.listeners.iter().position(Option::is_none).unwrap_or_else(|| {
            self.listeners.push(None);
            self.listeners.len() - 1
        });
        // Control numbers its listeners upwards: what was said of an earlier socket does not match this one.
        let id = SocketId { index: place as u32, generation: number };
        self.listeners[place] = Some(Listener { socket: id, number: Some(number), serves, retry_ms: None });
        self.driver.adopt(id, socket);
        self.driver.accept(id);
    }

    /// Whether there was such a listener.
    pub(super) fn remove_listener(&mut self, number: u32) -> bool {
        let Some(listener) = self.listeners.iter_mut().flatten().find(|listener| listener.number == Some(number))
        else {
            return false;
        };
        listener.number = None;
        listener.retry_ms = None;
        let socket = listener.socket;
        self.driver.close(socket);
        true
    }

    fn listener(&mut self, socket: SocketId) -> Option<&mut Listener> {
        self.listeners.get_mut(socket.index as usize)?.as_mut().filter(|listener| listener.socket == socket)
    }

    pub(super) fn on_accepted(&mut self, listener: SocketId, socket: OwnedFd) {
        let Some(Listener { number: Some(number), serves, .. }) = self.listener(listener) else { return };
        match (*number, *serves) {
            (number, Serves::Links(flow_control)) => self.distribute(socket, number, flow_control),
            (number, Serves::Inlet) => self.admit_connection(number, socket),
        }
    }

    pub(super) fn on_accept_failed(&mut self, socket: SocketId, _errno: Errno) {
        self.counters.add(Counter::AcceptErrors, 1);
        let retry_ms = self.now_ms + ACCEPT_RETRY_MS;
        if let Some(listener) = self.listener(socket).filter(|listener| listener.number.is_some()) {
            listener.retry_ms = Some(retry_ms);
        }
    }

    pub(super) fn adopt_accepted(&mut self, socket: OwnedFd, listener: u32, flow_control: u8) {
        let addresses = sockets::set_accepted(&socket)
            .and_then(|()| Ok((sockets::peer_addr(&socket)?, sockets::local_addr(&socket)?)));
        // A connection that is gone already has no peer.
        let Ok((peer, local)) = addresses else { return };
        self.counters.add(Counter::LinksAccepted, 1);
        if self.links.is_full() || self.drain_ms.is_some() {
            return self.counters.add(CloseReason::LinkLimit, 1);
        }
        let index = self.add_link(Origin::Accepted { listener }, flow_control, peer);
        let link = &mut self.links[index];
        link.local = local;
        link.adopted = true;
        link.state = State::ExpectPreamble;
        link.deadline_ms = self.now_ms + PREAMBLE_LIMIT.as_millis() as u64;
        self.driver.adopt(self.links[index].socket, socket);
        self.greet(index);
    }

    /// A new link, not connected yet.
    ///
    /// # Panics
    /// When there is no room for one.
    pub(super) fn add_link(&mut self, origin: Origin, flow_control: u8, peer: SocketAddr) -> u32 {
        let (core, now_ms) = (self.index, self.now_ms);
        let address = random_address();
        let index = self.links.add(|index, generation| Link {
            id: LinkId::new(core, index, generation),
            socket: SocketId { index, generation },
            adopted: false,
            state: State::ExpectConnection,
            deadline_ms: now_ms,
            address,
            peer,
            local: (Ipv4Addr::UNSPECIFIED, 0).into(),
            origin,
            flow_control,
            traffic: Traffic::default(),
            ingest: Ingest {
                receiving: Receiving::Off,
                blocked: false,
                parked: std::collections::VecDeque::new(),
                partial: Partial::None,
                frame_bytes: 0,
                copied: Vec::new(),
                frame_began_ms: 0,
                opened: None,
                familiar: Familiar::None,
                ended: None,
            },
            egress: Egress { progress_ms: now_ms, window_ms: now_ms, ..Egress::default() },
            replies: Replies::new(),
            asked: None,
            attended: false,
        });
        let connection = self.links[index].connection();
        self.tables.add_connection(address, connection);
        self.mesh.cores[usize::from(core)].load.fetch_add(1, Ordering::Relaxed);
        self.attend(index);
        index
    }

    /// Both sides send their version byte at once and then wait for the other's (`wire.md` A.1).
    pub(super) fn greet(&mut self, index: u32) {
        if self.queue_preamble(index) {
            self.receive(index);
        } else {
            self.fail_or_close(index, CloseReason::AssemblyLimit, DropReason::ConnectFailed);
        }
    }

    /// The peer's version byte is right.
    pub(super) fn on_preamble(&mut self, index: u32) {
        let link = &mut self.links[index];
        link.state = State::Up;
        let (id, address, peer, local) = (link.id, link.address, link.peer, link.local);
        if let Origin::Transit(transit) = &link.origin
            && let ingress = transit.ingress
            && self.open_link(ingress).is_none()
        {
            self.unsent.push(index);
            return self.flush_and_close(index, CloseReason::IngressGone);
        }
        let link = &mut self.links[index];
        if let Origin::Dialed { request, .. } = &mut link.origin
            && let Some(request) = request.take()
        {
            let notice = Notice::LinkUp { request, link: id, address: address.to_vec().into(), peer, local };
            self.say(FromCore::Notice(notice));
        }
        self.unsent.push(index);
    }

    /// A link that is not up fails with the reason for what waits for it; one that is up closes.
    pub(super) fn fail_or_close(&mut self, index: u32, close: CloseReason, drop: DropReason) {
        match self.links[index].origin {
            Origin::Accepted { .. } | Origin::Portal(_) => self.close(index, close),
            Origin::Dialed { .. } | Origin::Transit(_) => self.fail(index, drop, None),
        }
    }

    /// The peer sends no more: what waits for it is sent, then the link closes.
    pub(super) fn flush_and_close(&mut self, index: u32, reason: CloseReason) {
        let link = &mut self.links[index];
        if link.egress.bytes == 0 {
            return self.close(index, reason);
        }
        link.state = State::Flushing(reason);
        link.deadline_ms = self.now_ms + FLUSH_LIMIT_MS;
        self.attend(index);
    }

    /// Closes a link, and the transit links that were opened for it.
    pub(super) fn close(&mut self, index: u32, reason: CloseReason) {
        let mut closing = vec![(index, reason)];
        while let Some((index, reason)) = closing.pop() {
            let Some(link) = self.links.at_mut(index).filter(|link| link.is_open()) else { continue };
            self.counters.add(reason, 1);
            let (id, address, socket, adopted) = (link.id, link.address, link.socket, link.adopted);
            let state = std::mem::replace(&mut link.state, State::Closing);
            let between_addresses = state == State::ExpectNextAddress;
            // The other end of a portal is told while there is still something to tell it with.
            let orderly = link.portal().is_some().then(|| self.close_stream(index, state, reason));
            let link = &mut self.links[index];
            if let Origin::Dialed { request: None, .. } = link.origin {
                self.outbox.push_back(FromCore::Notice(Notice::LinkDown { link: id, reason }));
            }
            // Who waits for it finds its address gone.
            self.resume.extend(link.egress.waiters.drain(..));
            self.mesh.set_full(self.index, index, false);
            let partial = std::mem::take(&mut link.ingest.partial);
            let parked = std::mem::take(&mut link.ingest.parked);
            let copied = std::mem::take(&mut link.ingest.copied);
            link.ingest.opened = None;
            let transit = link.asked.as_mut().map_or(Vec::new(), |asked| std::mem::take(&mut asked.transit));
            parked.into_iter().for_each(|(slot, _)| self.pool.put(slot));
            let assembled = match partial {
                Partial::None => 0,
                Partial::Copied => copied.len(),
                Partial::Held(slot, _) => {
                    self.held_partials -= 1;
                    self.pool.put(slot);
                    0
                }
                Partial::Large { slot, filled, .. } => {
                    self.pool.put(slot);
                    filled
                }
                // The driver gives the slot back.
                Partial::Lent { kept, large: Some(_) } => kept.len(),
                Partial::Lent { large: None, .. } => {
                    self.held_partials -= 1;
                    0
                }
            };
            self.mesh.assembly_bytes.fetch_sub(assembled as u64, Ordering::Relaxed);
            let connection = self.links[index].connection();
            self.tables.remove_connection(&address, connection);
            if orderly.is_none() {
                self.mesh.link_closed();
                self.carrier_link_gone(id);
            }
            // What they were given is still sent; those that are not up yet see to it when they are.
            for child in transit.into_iter().filter_map(|link| self.open_link(link)).collect::<Vec<_>>() {
                if self.links[child].egress.queue.is_empty() || reason == CloseReason::Drained {
                    closing.push((child, CloseReason::IngressGone));
                } else if self.links[child].state == State::Up {
                    self.flush_and_close(child, CloseReason::IngressGone);
                }
            }
            if adopted && orderly == Some(false) {
                self.driver.abort(socket);
            } else if adopted {
                self.driver.close(socket);
            } else if !between_addresses {
                self.on_closed(socket);
            }
        }
    }

    /// Nothing in the kernel refers to the socket any longer.
    pub(super) fn on_closed(&mut self, socket: SocketId) {
        if (socket.index as usize) < LISTENER_SOCKETS {
            if self.listener(socket).is_some() {
                self.listeners[socket.index as usize] = None;
            }
            return;
        }
        match self.links.get(socket.index, socket.generation) {
            None => return,
            Some(link) if link.state == State::ExpectNextAddress && link.portal().is_some() => {
                return self.try_next_target(socket.index, 0);
            }
            Some(link) if link.state == State::ExpectNextAddress => return self.try_next(socket.index),
            Some(_) => {}
        }
        let link = self.links.remove(socket.index).expect("it was just found");
        debug_assert!(!link.is_open(), "the driver closes what the core closed");
        link.egress.queue.into_iter().for_each(|segment| self.release(segment));
        self.mesh.cores[usize::from(self.index)].load.fetch_sub(1, Ordering::Relaxed);
    }

    /// Looks at every deadline, and gives back memory that was not used for a while.
    pub(super) fn sweep(&mut self) {
        self.rewind_scribe();
        if self.now_ms < self.sweep_ms {
            return;
        }
        self.sweep_ms = self.now_ms + SWEEP_INTERVAL.as_millis() as u64;
        for index in std::mem::take(&mut self.attended) {
            if let Some(link) = self.links.at_mut(index) {
                link.attended = false;
                self.sweep_link(index);
            }
            if self.links.at_mut(index).is_some_and(|link| link.needs_attention()) {
                self.attend(index);
            }
        }
        self.sweep_inlets();
        for place in 0..self.listeners.len() {
            if let Some(listener) = &mut self.listeners[place]
                && listener.retry_ms.is_some_and(|at| at <= self.now_ms)
            {
                listener.retry_ms = None;
                let socket = listener.socket;
                self.driver.accept(socket);
            }
        }
        if self.drain_ms.is_some() {
            self.drain_links();
        }
        if !std::mem::take(&mut self.slots_ran_out) {
            self.kernel_slots = KERNEL_SLOTS_MIN.max(self.kernel_slots / 2);
            self.withdraw_slots(self.kernel_slots);
        }
        if self.warm > 0 {
            self.warm -= 1;
            if self.warm == 0 {
                self.withdraw_slots(0);
                if self.scribe.end == 0
                    && let Some(slot) = self.scribe.slot.take()
                {
                    self.pool.put(slot);
                }
                self.pool.give_back_idle();
            }
        }
        self.pool.give_back_unused();
        let assembly = self.mesh.assembly_bytes.load(Ordering::Relaxed);
        let kept = self.mesh.portal_bytes_kept.load(Ordering::Relaxed);
        self.counters.set(Counter::PortalBytesKept, if self.index == 0 { kept } else { 0 });
        self.counters.set(Counter::AssemblyBytes, if self.index == 0 { assembly } else { 0 });
    }

    fn sweep_link(&mut self, index: u32) {
        let now_ms = self.now_ms;
        let slots_are_short = self.pool.census().0 == 0;
        let link = &mut self.links[index];
        match link.state {
            State::ExpectAddresses => {
                if now_ms >= link.deadline_ms {
                    self.fail(index, DropReason::Unresolved, None);
                }
            }
            State::ExpectConnection if link.portal().is_some() => {
                if now_ms >= link.deadline_ms {
                    self.target_failed(index, None);
                }
            }
            State::ExpectPong => {
                if now_ms >= link.deadline_ms {
                    self.on_unanswered(index);
                }
            }
            State::ExpectConnection | State::ExpectNextAddress => {
                if now_ms >= link.deadline_ms && link.portal().is_none() {
                    self.fail(index, DropReason::ConnectTimedOut, None);
                }
            }
            State::ExpectPreamble => {
                if now_ms >= link.deadline_ms {
                    self.fail_or_close(index, CloseReason::PreambleTimeout, DropReason::NotANode);
                }
            }
            State::Flushing(_) if link.portal().is_some() => {
                // An application may take its time with what came before the end.
                if now_ms.saturating_sub(link.egress.progress_ms) >= SEND_LIMIT.as_millis() as u64 {
                    self.close(index, CloseReason::SlowPeer);
                }
            }
            State::Flushing(reason) => {
                if now_ms >= link.deadline_ms {
                    self.close(index, reason);
                }
            }
            State::Closing => {}
            State::Up => {
                let late = link.ingest.is_late(now_ms, FRAME_LIMIT.as_millis() as u64, FRAME_RATE_MIN);
                if late && !link.ingest.blocked {
                    return self.close(index, CloseReason::SlowFrame);
                }
                self.stop_waiting_with_a_slot(index);
                let link = &mut self.links[index];
                let egress = &mut link.egress;
                if egress.bytes == 0 {
                    egress.window_ms = now_ms;
                    egress.window_bytes = 0;
                    // Thousands may be at rest.
                    egress.queue.shrink_to_fit();
                    if link.ingest.copied.is_empty() {
                        link.ingest.copied.shrink_to(0);
                    }
                    return;
                }
                let silent_ms = now_ms.saturating_sub(egress.progress_ms);
                if link.portal().is_some_and(Portal::is_patient) {
                    return self.sweep_stream(index, silent_ms);
                }
                let id = link.id;
                // Applications that wait for what carries them are not helped by its end.
                let others_wait = self.links[index].egress.waiters.iter().any(|waiter| {
                    let waiting = self.links.get(waiter.index(), waiter.generation());
                    *waiter != id && waiting.is_some_and(|link| link.portal().is_none())
                });
                let egress = &mut self.links[index].egress;
                let window_ms = now_ms.saturating_sub(egress.window_ms);
                let mut too_slow = false;
                if window_ms >= SEND_WINDOW_MS {
                    too_slow = others_wait && egress.window_bytes < SEND_RATE_MIN * window_ms / 1000;
                    egress.window_ms = now_ms;
                    egress.window_bytes = 0;
                }
                let stalled = silent_ms >= SEND_LIMIT.as_millis() as u64;
                if stalled || too_slow || (slots_are_short && silent_ms >= STALLED_MS) {
                    self.close(index, CloseReason::SlowPeer);
                }
            }
        }
    }

    /// While the node drains, links close as they fall silent, and all of them at the end.
    fn drain_links(&mut self) {
        let over = self.drain_ms.is_some_and(|limit| self.now_ms >= limit);
        // What carries portals stays until these are at rest.
        let portals = self.mesh.portals.load(Ordering::Relaxed) > 0;
        let silent = |link: &&Link| {
            let may_go = if link.portal().is_some() { self.is_at_rest(link) } else { !portals };
            over || may_go && link.egress.bytes == 0 && link.ingest.parked.is_empty() && !link.ingest.blocked
        };
        let done: Vec<u32> = self.links.iter().filter(silent).map(|link| link.socket.index).collect();
        for index in done {
            self.close(index, CloseReason::Drained);
        }
    }
}

/// 16 random bytes in lower-case hexadecimal (`wire.md` A.4).
fn random_address() -> LinkAddress {
    let mut random = [0; 16];
    let filled = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    assert!(filled == Ok(random.len()), "the system gives random bytes");
    let mut address = [0; 32];
    for (digits, byte) in address.chunks_exact_mut(2).zip(random) {
        digits[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
        digits[1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
    address
}
