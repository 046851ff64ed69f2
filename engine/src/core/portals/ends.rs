//! Inlets and outlets: how connections of applications come to be.
//!
//! ```text
//!   inlet    accept ──► a way? ──► Ping ──► Pong ──► bytes
//!                         └─ none: wait for one
//!   outlet   Ping ──► connect to a target, or the next ──► Pong ──► bytes
//!                                           └─ none left: Pong, Disconnect
//! ```

use super::{Carrier, End, Flow, Holder, Portal};
use crate::config::{DIAL_LIMIT, INLET_WAITING_MAX, PONG_LIMIT, PORTAL_HEAD_MAX, PORTAL_WINDOW_MIN};
use crate::core::Core;
use crate::core::carry::{Arrival, Layer};
use crate::core::link::{Origin, State};
use crate::core::mesh::{Cross, FromCore};
use crate::io::driver::Driver;
use crate::io::sockets;
use crate::path::channel::Way;
use crate::path::tables::{LinkAddress, Place};
use ockam_engine_abi::{CloseReason, Counter, DropReason, Guard, LinkId, Notice};
use ockam_wire::portal::PortalMessage;
use ockam_wire::undeliverable::Offer;
use ockam_wire::{AddressRef, FixedHead, Outgoing, RouteParts};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// How often control hears of the same trouble, in milliseconds.
const TROUBLE_MS: u64 = 1_000;

/// How long a connection waits in an inlet of which control has not said yet how long, in milliseconds. It says so right
/// after it adds one, and some wait already in the backlog of a socket that is older than this engine.
const WAIT_MS_UNTOLD: u32 = 5_000;

/// An inlet, as every core knows it.
#[derive(Debug)]
pub struct Inlet {
    guard: Option<Guard>,
    connections: Arc<AtomicU32>,
    way: Option<Arc<Way>>,
    /// Milliseconds that a connection waits for a way.
    wait_ms: u32,
    /// Connections that wait for a way, and since when.
    waiting: VecDeque<(OwnedFd, u64)>,
    /// When control was last told that an outlet did not answer.
    unanswered_ms: u64,
}

impl Inlet {
    /// Who must be at the other end of its connections.
    pub(super) fn guard(&self) -> Option<Guard> {
        self.guard
    }
}

impl<D: Driver> Core<D> {
    pub(in crate::core) fn add_inlet(&mut self, number: u32, guard: Option<Guard>, connections: Arc<AtomicU32>) {
        let waiting = VecDeque::new();
        let inlet = Inlet { guard, connections, way: None, wait_ms: WAIT_MS_UNTOLD, waiting, unanswered_ms: 0 };
        self.inlets.insert(number, inlet);
    }

    pub(in crate::core) fn route_inlet(&mut self, number: u32, way: Option<Arc<Way>>, wait_ms: u32) {
        let Some(inlet) = self.inlets.get_mut(&number) else { return };
        (inlet.way, inlet.wait_ms) = (way, wait_ms);
        if inlet.way.is_some() {
            let waiting = std::mem::take(&mut inlet.waiting);
            self.connections_waiting -= waiting.len();
            for (socket, _) in waiting {
                self.admit_connection(number, socket);
            }
        }
    }

    pub(in crate::core) fn remove_inlet(&mut self, number: u32) {
        if let Some(inlet) = self.inlets.remove(&number) {
            self.connections_waiting -= inlet.waiting.len();
        }
        self.close_portals(
            CloseReason::PortalRemoved,
            |portal| matches!(portal.end, End::Inlet { number: of, .. } if of == number),
        );
    }

    /// An outlet is no longer, nor are its connections.
    pub(in crate::core) fn remove_outlet(&mut self, serial: u64) {
        self.close_portals(
            CloseReason::PortalRemoved,
            |portal| matches!(&portal.end, End::Outlet { outlet, .. } if outlet.serial == serial),
        );
    }

    /// An application connected to an inlet: the connection goes to the core whose link will carry it.
    pub(in crate::core) fn admit_connection(&mut self, number: u32, socket: OwnedFd) {
        let Some(inlet) = self.inlets.get_mut(&number) else { return };
        let Some(way) = inlet.way.clone() else {
            if inlet.wait_ms > 0 && inlet.waiting.len() < INLET_WAITING_MAX {
                inlet.waiting.push_back((socket, self.now_ms));
                self.connections_waiting += 1;
            }
            return;
        };
        let home = self.home_of(&way.first);
        if home == self.index {
            self.open_connection(number, &way, socket);
        } else {
            self.cross(home, Cross::AdoptStream { socket, inlet: number });
        }
    }

    /// The core whose link a way begins with, through whatever channel.
    fn home_of(&self, first: &[u8]) -> u8 {
        let link = match self.tables.find(first) {
            Some(Place::Link(link)) => Some(link),
            Some(Place::Encryptor(channel)) => self.last_egress(&channel.clone()),
            Some(Place::Relay { way: Some(way), .. }) => match self.tables.find(&way.first) {
                Some(Place::Link(link)) => Some(link),
                _ => None,
            },
            _ => None,
        };
        link.map_or_else(|| self.mesh.least_loaded(), LinkId::core)
    }

    /// A connection of an inlet comes from the core that accepted it.
    pub(in crate::core) fn adopt_connection(&mut self, number: u32, socket: OwnedFd) {
        match self.inlets.get(&number).map(|inlet| inlet.way.clone()) {
            Some(Some(way)) => self.open_connection(number, &way, socket),
            // The way was lost on the way.
            Some(None) => self.admit_connection(number, socket),
            None => {}
        }
    }

    fn open_connection(&mut self, number: u32, way: &Way, socket: OwnedFd) {
        let peer = sockets::set_accepted_stream(&socket).and_then(|()| sockets::peer_addr(&socket));
        // A connection that is gone already has no peer.
        let Ok(peer) = peer else { return };
        self.counters.add(Counter::PortalsAccepted, 1);
        let connections = self.inlets[&number].connections.clone();
        connections.fetch_add(1, Ordering::Relaxed);
        let carrier = self.carrier(&way.first);
        let end = End::Inlet { number, connections };
        let onward = RouteParts { front: &[AddressRef::local(&way.first)], rest: way.rest.onward() };
        let Some(index) = self.add_portal(end, carrier, onward, peer) else { return };
        let link = &mut self.links[index];
        link.adopted = true;
        link.state = State::ExpectPong;
        link.deadline_ms = self.now_ms + PONG_LIMIT.as_millis() as u64;
        let id = link.socket;
        self.driver.adopt_stream(id, socket);
        if self.let_pass_until(&self.links[index]) <= self.now_ms {
            return self.close(index, CloseReason::PortalDenied);
        }
        // Nodes of ours on the way say at once when there is no such outlet.
        let address = self.links[index].address;
        let own = [AddressRef::local(&address)];
        let ping = PortalMessage::Ping { credit: Some(PORTAL_WINDOW_MIN) }.encode();
        let offer = Offer { token: token_of(&address) }.text();
        let onward = RouteParts { front: &[AddressRef::local(&way.first)], rest: way.rest.onward() };
        let return_route = RouteParts::new(&own);
        let message = Outgoing { onward, return_route, payload_len: ping.len(), tracing: Some(&offer) };
        if self.carry_copy(&message.to_frame(&ping)[4..]) != Some(true) {
            self.close(index, CloseReason::CarrierGone);
        }
    }

    /// A Ping or a Pong was not delivered: nobody is at the other end.
    pub(in crate::core) fn on_undelivered(&mut self, index: u32, token: [u8; 16]) {
        let link = &self.links[index];
        if token != token_of(&link.address) {
            return;
        }
        if link.state == State::ExpectPong {
            self.on_unanswered(index);
        } else if let End::Outlet { .. } = self.portal(index).end {
            self.on_disconnect(index, true);
        }
    }

    /// A connection, not established yet. `None` when there is no room for one.
    fn add_portal(&mut self, end: End, carrier: Carrier, onward: RouteParts<'_>, peer: SocketAddr) -> Option<u32> {
        let holder = Holder::of(&end, &carrier);
        if self.links.is_full() || self.drain_ms.is_some() || !self.portals.take(holder) {
            self.counters.add(CloseReason::LinkLimit, 1);
            if let End::Inlet { connections, .. } = &end {
                connections.fetch_sub(1, Ordering::Relaxed);
            }
            return None;
        }
        let portal = Portal {
            end,
            head: FixedHead::default(),
            carrier: Carrier::Inside,
            is_sealed: false,
            flow: None,
            counted: 0,
            over: false,
            broken: false,
            sent_all: false,
            got_all: false,
            shut: false,
            held: None,
            kept: None,
            active_ms: self.now_ms,
        };
        let index = self.add_link(Origin::Portal(Box::new(portal)), 0, peer);
        self.set_way(index, onward, carrier);
        self.mesh.portals.fetch_add(1, Ordering::Relaxed);
        Some(index)
    }

    /// A message at an outlet's address, which its guard let pass. `back` is the way to the inlet's connection.
    pub(in crate::core) fn on_outlet(
        &mut self,
        arrival: &Arrival<'_>,
        layer: &Layer,
        name: &[u8],
        payload: &[u8],
        back: RouteParts<'_>,
    ) -> Result<(), DropReason> {
        let outlet = self.tables.outlets.get(name).cloned().ok_or(DropReason::NoSuchAddress)?;
        if layer.channel.is_none() && !outlet.plain && arrival.source.is_some_and(|source| !source.is_local()) {
            return Err(DropReason::NotAdmitted);
        }
        // A message of nothing asks whether it is here, and would come back if it were not.
        if payload.is_empty() {
            return Ok(());
        }
        let Some(PortalMessage::Ping { credit }) = PortalMessage::parse(payload) else {
            return Err(DropReason::BadPayload);
        };
        if back.is_empty() {
            return Err(DropReason::RouteEnded);
        }
        // It is kept for as long as the connection.
        if FixedHead::new(back, RouteParts::EMPTY).prefix_len(0) > PORTAL_HEAD_MAX {
            return Err(DropReason::RouteTooLong);
        }
        let end = End::Outlet { outlet, next: 0, offer: credit };
        let carrier = arrival.carrier(layer);
        let index = self.add_portal(end, carrier, back, sockets::UNIX).ok_or(DropReason::TransitLimit)?;
        self.watch(index);
        self.counters.add(Counter::PortalsDialed, 1);
        self.try_next_target(index, 0);
        Ok(())
    }

    /// Connects to the next target of an outlet; `errno` is what the system said of the last one.
    pub(in crate::core) fn try_next_target(&mut self, index: u32, errno: i32) {
        let deadline_ms = self.now_ms + DIAL_LIMIT.as_millis() as u64;
        let link = &mut self.links[index];
        link.state = State::ExpectConnection;
        link.deadline_ms = deadline_ms;
        let id = link.socket;
        let Some(Portal { end: End::Outlet { outlet, next, .. }, .. }) = link.portal_mut() else { return };
        let Some(target) = outlet.targets.get(usize::from(*next)).cloned() else {
            return self.no_target(index, errno);
        };
        *next += 1;
        let dialed = sockets::address_of(&target).and_then(|to| Ok((sockets::to_dial(to.clone())?, to)));
        match dialed {
            Ok((socket, to)) => {
                link.adopted = true;
                if let ockam_engine_abi::PortalTarget::Tcp(address) = target {
                    link.peer = address;
                }
                self.driver.adopt_stream(id, socket);
                self.driver.connect(id, to);
            }
            Err(errno) => self.try_next_target(index, errno.raw_os_error()),
        }
    }

    /// A target was not reached, for `errno` or for time.
    pub(in crate::core) fn target_failed(&mut self, index: u32, errno: Option<Errno>) {
        let link = &mut self.links[index];
        link.state = State::ExpectNextAddress;
        link.adopted = false;
        let socket = link.socket;
        if let Some(Portal { end: End::Outlet { outlet, next, .. }, .. }) = link.portal_mut()
            && usize::from(*next) >= outlet.targets.len()
        {
            link.adopted = true;
            return self.no_target(index, errno.map_or(0, Errno::raw_os_error));
        }
        self.driver.abort(socket);
    }

    /// None of an outlet's targets could be reached: the inlet learns that by an answer and the end right behind it.
    fn no_target(&mut self, index: u32, errno: i32) {
        let now_ms = self.now_ms;
        if let End::Outlet { outlet, .. } = &self.portal(index).end {
            let told_ms = outlet.failed_ms.load(Ordering::Relaxed);
            if now_ms >= told_ms + TROUBLE_MS {
                outlet.failed_ms.store(now_ms, Ordering::Relaxed);
                let address = outlet.name.to_vec().into();
                self.say(FromCore::Notice(Notice::OutletFailed { address, errno }));
            }
        }
        self.answer_ping(index);
        self.close(index, CloseReason::TargetFailed);
    }

    fn answer_ping(&mut self, index: u32) -> bool {
        let now_ms = self.now_ms;
        let portal = self.portal(index);
        let End::Outlet { offer, .. } = &mut portal.end else { return false };
        let offer = offer.take();
        portal.flow = offer.map(|limit| Flow::new(limit, now_ms));
        let pong = PortalMessage::Pong { credit: offer.map(|_| PORTAL_WINDOW_MIN) }.encode();
        // The inlet's connection may be gone by now, and nodes of ours say so.
        let offer = Offer { token: token_of(&self.links[index].address) }.text();
        let frame = self.frame_for_other_end(index, &pong, Some(&offer));
        self.say_frame(frame)
    }

    /// A target is reached.
    pub(in crate::core) fn on_target_connected(&mut self, index: u32, result: Result<SocketAddr, Errno>) {
        match result {
            Ok(local) => {
                let link = &mut self.links[index];
                link.local = local;
                link.state = State::Up;
                if self.answer_ping(index) {
                    self.receive(index);
                } else {
                    self.close(index, CloseReason::CarrierGone);
                }
            }
            Err(errno) => self.target_failed(index, Some(errno)),
        }
    }

    /// An outlet did not answer in time.
    pub(in crate::core) fn on_unanswered(&mut self, index: u32) {
        let now_ms = self.now_ms;
        if let End::Inlet { number, .. } = self.portal(index).end
            && let Some(inlet) = self.inlets.get_mut(&number)
            && now_ms >= inlet.unanswered_ms + TROUBLE_MS
        {
            inlet.unanswered_ms = now_ms;
            self.say(FromCore::Notice(Notice::InletUnanswered { inlet: number }));
        }
        self.close(index, CloseReason::PortalUnanswered);
    }

    /// Connections that waited long enough for a way are closed.
    pub(in crate::core) fn sweep_inlets(&mut self) {
        for inlet in self.inlets.values_mut() {
            let wait_ms = u64::from(inlet.wait_ms);
            while inlet.waiting.front().is_some_and(|(_, since)| since + wait_ms <= self.now_ms) {
                inlet.waiting.pop_front();
                self.connections_waiting -= 1;
                self.counters.add(CloseReason::PortalUnanswered, 1);
            }
        }
    }
}

/// The 16 random bytes that an address says in hexadecimal: they tell notices about a connection's Ping from others.
fn token_of(address: &LinkAddress) -> [u8; 16] {
    let value = |digit: u8| char::from(digit).to_digit(16).expect("addresses are hexadecimal") as u8;
    std::array::from_fn(|place| value(address[2 * place]) << 4 | value(address[2 * place + 1]))
}
