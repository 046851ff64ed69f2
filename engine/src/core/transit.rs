//! Links that a route asked for, and links that control dials: the way from an address to a link that is up.
//!
//! A transit link belongs to the ingress link whose route named it and goes with it; one that the peer of a channel asked
//! for is that peer's alone. Frames wait in its queue; nothing
//! but the version byte is sent before the other side has sent its own, so no byte of a message reaches what is not a
//! node.

use super::Core;
use super::carry::decode_way_back;
use super::link::{Origin, State, Transit, Waiting};
use super::mesh::FromCore;
use crate::config::{DIAL_LIMIT, TRANSIT_LINKS_MAX};
use crate::io::driver::{Driver, SocketId};
use crate::io::sockets;
use crate::path::channel::Channel;
use crate::path::transit::DialTarget;
use ockam_engine_abi::{CloseReason, Counter, DropReason, FLOW_CONTROL_DIALED, LinkId, Notice, Refusal};
use ockam_wire::RouteParts;
use rustix::io::Errno;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// Frames of one transit link whose senders are told when it fails.
const WAITING_MAX: usize = 64;

impl<D: Driver> Core<D> {
    /// The link to a TCP address for what comes in on `ingress`, or out of a channel there; dialed if there is none yet.
    pub(super) fn transit_link(
        &mut self,
        ingress: LinkId,
        channel: Option<&Arc<Channel>>,
        name: &[u8],
        target: DialTarget<'_>,
    ) -> Result<LinkId, DropReason> {
        let mut transit = std::mem::take(&mut self.links[ingress.index()].demands().transit);
        transit.retain(|link| self.open_link(*link).is_some());
        let serial = |channel: Option<&Arc<Channel>>| channel.map(|channel| channel.serial);
        let is_it = |transit: &Transit| *transit.name == *name && serial(transit.channel.as_ref()) == serial(channel);
        let known = transit
            .iter()
            .copied()
            .find(|link| matches!(&self.links[link.index()].origin, Origin::Transit(transit) if is_it(transit)));
        let room = transit.len() < TRANSIT_LINKS_MAX && !self.links.is_full() && self.drain_ms.is_none();
        self.links[ingress.index()].demands().transit = transit;
        if let Some(link) = known {
            // What its name stands for may be denied by now.
            let is_denied = self.let_pass_until(&self.links[link.index()]) <= self.now_ms;
            return if is_denied { Err(DropReason::PolicyDenied) } else { Ok(link) };
        }
        if !room {
            return Err(DropReason::TransitLimit);
        }
        let candidates = match target {
            DialTarget::Address(address) => VecDeque::from([address]),
            DialTarget::Name { .. } => VecDeque::new(),
        };
        let channel = channel.cloned();
        let transit = Transit { ingress, channel, name: name.into(), candidates, undeliverable: Vec::new() };
        let origin = Origin::Transit(Box::new(transit));
        let index = self.add_link(origin, FLOW_CONTROL_DIALED, (Ipv4Addr::UNSPECIFIED, 0).into());
        self.counters.add(Counter::LinksDialed, 1);
        let link = &mut self.links[index];
        link.deadline_ms = self.now_ms + DIAL_LIMIT.as_millis() as u64;
        let id = link.id;
        self.links[ingress.index()].demands().transit.push(id);
        match target {
            DialTarget::Address(_) => self.try_next(index),
            DialTarget::Name { host, port } => {
                self.links[index].state = State::ExpectAddresses;
                self.say(FromCore::Notice(Notice::Resolve { link: id, host: host.to_owned(), port }));
            }
        }
        // Without a descriptor to dial with it is gone already.
        self.open_link(id).map(|_| id).ok_or(DropReason::ConnectFailed)
    }

    /// A frame waits for a transit link; its sender is told when the link fails.
    pub(super) fn expect_notice(&mut self, link: LinkId, waiting: Waiting) {
        let Some(index) = self.open_link(link) else { return };
        let link = &mut self.links[index];
        if link.state != State::Up
            && let Origin::Transit(transit) = &mut link.origin
            && transit.undeliverable.len() < WAITING_MAX
        {
            transit.undeliverable.push(waiting);
        }
    }

    /// Control opens a link.
    pub(super) fn dial(&mut self, request: u64, target: SocketAddr, cookie: Box<[u8]>) {
        if self.links.is_full() || self.drain_ms.is_some() {
            let why = if self.drain_ms.is_some() { Refusal::Draining } else { Refusal::Limit };
            return self.say(FromCore::Notice(Notice::Refused { request, why, errno: 0 }));
        }
        self.counters.add(Counter::LinksDialed, 1);
        let origin = Origin::Dialed { request: Some(request), cookie };
        let index = self.add_link(origin, FLOW_CONTROL_DIALED, target);
        self.links[index].deadline_ms = self.now_ms + DIAL_LIMIT.as_millis() as u64;
        self.connect(index, target);
    }

    /// Control resolved the name of a transit link. Only now the rules can be asked.
    pub(super) fn on_resolved(&mut self, link: LinkId, addresses: Vec<SocketAddr>) {
        let Some(index) = self.open_link(link).filter(|&index| self.links[index].state == State::ExpectAddresses)
        else {
            return;
        };
        let Origin::Transit(transit) = &self.links[index].origin else { return };
        let (ingress, channel) = (transit.ingress, transit.channel.as_ref());
        let Some(from) = self.open_link(ingress).map(|ingress| self.links[ingress].peer.ip()) else { return };
        let mut reason = DropReason::Unresolved;
        let mut admitted = VecDeque::new();
        let passes = |guard| self.tables.lets_pass(guard, channel.map(Arc::as_ref), self.now_ms);
        for to in addresses.into_iter().map(sockets::unmapped) {
            let outcome = match channel {
                Some(_) => self.tables.transit.admit_guarded(to, passes),
                None => self.tables.transit.admit(from, to).then_some(()).ok_or(DropReason::TransitRefused),
            };
            match outcome {
                Ok(()) => admitted.push_back(to),
                Err(refused) => reason = refused,
            }
        }
        if admitted.is_empty() {
            return self.fail(index, reason, None);
        }
        if let Origin::Transit(transit) = &mut self.links[index].origin {
            transit.candidates = admitted;
        }
        self.try_next(index);
    }

    /// Connects a transit link to the next of its addresses.
    pub(super) fn try_next(&mut self, index: u32) {
        let next = match &mut self.links[index].origin {
            Origin::Transit(transit) => transit.candidates.pop_front(),
            _ => None,
        };
        match next {
            Some(target) => self.connect(index, target),
            None => self.fail(index, DropReason::ConnectFailed, None),
        }
    }

    fn connect(&mut self, index: u32, target: SocketAddr) {
        let link = &mut self.links[index];
        link.peer = target;
        link.state = State::ExpectConnection;
        self.watch(index);
        let link = &mut self.links[index];
        match sockets::to_dial(target) {
            Ok(socket) => {
                link.adopted = true;
                self.driver.adopt(link.socket, socket);
                self.driver.connect(link.socket, target);
            }
            Err(errno) => self.fail(index, DropReason::ConnectFailed, Some(errno)),
        }
    }

    pub(super) fn on_connected(&mut self, socket: SocketId, result: Result<SocketAddr, Errno>) {
        let index = socket.index;
        let Some(link) = self.links.get_mut(index, socket.generation) else { return };
        if link.state != State::ExpectConnection {
            return;
        }
        if link.portal().is_some() {
            return self.on_target_connected(index, result);
        }
        match result {
            Ok(local) => {
                link.local = local;
                link.state = State::ExpectPreamble;
                self.greet(index);
            }
            Err(errno) => match &link.origin {
                Origin::Transit(transit) if !transit.candidates.is_empty() => {
                    link.state = State::ExpectNextAddress;
                    link.adopted = false;
                    self.driver.close(socket);
                }
                _ => self.fail(index, DropReason::ConnectFailed, Some(errno)),
            },
        }
    }

    /// A link that never came up: whoever waits for it is told why.
    pub(super) fn fail(&mut self, index: u32, reason: DropReason, errno: Option<Errno>) {
        let link = &mut self.links[index];
        let frames = link.traffic.frames_out;
        let errno = errno.map_or(0, Errno::raw_os_error);
        match &mut link.origin {
            Origin::Accepted { .. } | Origin::Portal(_) => {}
            Origin::Dialed { request, .. } => {
                if let Some(request) = request.take() {
                    let why = match reason {
                        DropReason::ConnectTimedOut => Refusal::ConnectTimedOut,
                        DropReason::NotANode => Refusal::NotANode,
                        _ => Refusal::ConnectFailed,
                    };
                    self.say(FromCore::Notice(Notice::Refused { request, why, errno }));
                }
            }
            Origin::Transit(transit) => {
                let (ingress, channel) = (transit.ingress, transit.channel.clone());
                let undeliverable = std::mem::take(&mut transit.undeliverable);
                self.counters.add(reason, frames);
                for Waiting { offer, left, way_back } in undeliverable {
                    let onward = RouteParts { front: &[], rest: decode_way_back(&way_back) };
                    match &channel {
                        Some(channel) => self.notify_through(channel.clone(), offer, onward, reason, left),
                        None => self.notify(ingress, offer, onward, reason, left),
                    }
                }
            }
        }
        self.close(index, CloseReason::DialFailed);
    }
}
