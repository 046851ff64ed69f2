//! Outlets, inlets and relays, as control set them.

use super::guards::is_guard;
use super::{Address, Attendant, NOBODY};
use crate::config::{ADDRESSES_MAX, INLETS_MAX, RELAY_WAY_MAX};
use crate::core::mesh::ToCore;
use crate::path::channel::{Way, read_way};
use crate::path::tables::{Access, Outlet};
use ockam_engine_abi::record::Bytes;
use ockam_engine_abi::{COOKIE_BYTES_MAX, Command, Guard, Notice, PortalTarget, Refusal, Target, UNIX_PATH_MAX};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// An inlet, with what the next control and the next engine need of it.
pub(super) struct Inlet {
    socket: OwnedFd,
    guard: Option<Guard>,
    cookie: Bytes,
    way: Option<Bytes>,
    connections: Arc<AtomicU32>,
}

/// Most targets of an outlet: addresses of one name.
const TARGETS_MAX: usize = 64;

impl Attendant {
    /// A command about outlets, inlets or relays.
    pub(super) fn obey_about_portals(&mut self, command: Command, descriptor: Option<OwnedFd>) {
        let (request, done) = match command {
            Command::SetOutlet { request, address, targets, reachable, plain, guard, cookie } => {
                (request, self.set_outlet(request, address, targets, plain, Access { reachable, guard }, cookie))
            }
            Command::SetRelay { request, address, way, reachable, cookie } => {
                (request, self.set_relay(request, address, way, reachable, cookie))
            }
            Command::AddInlet { request, inlet, guard, cookie } => {
                (request, self.add_inlet(request, inlet, guard, cookie, descriptor))
            }
            Command::RouteInlet { request, inlet, way, wait_ms } => {
                (request, self.route_inlet(request, inlet, way, wait_ms))
            }
            Command::RemoveInlet { request, inlet } => match self.inlets.remove(&inlet) {
                Some(_) => {
                    self.order_all(request, |request| ToCore::RemoveInlet { request, inlet });
                    (request, Ok(()))
                }
                None => (request, Err((Refusal::Unknown, 0))),
            },
            _ => unreachable!("the caller looked"),
        };
        self.refuse_on_error(request, done);
    }

    /// Whether something of control's may be set at an address.
    pub(super) fn check_address(
        &self,
        address: &Bytes,
        guard: Option<Guard>,
        cookie: &Bytes,
    ) -> Result<(), (Refusal, i32)> {
        let valid = !address.0.is_empty() && address.0.len() <= 255 && cookie.0.len() <= COOKIE_BYTES_MAX;
        if !valid || !guard.is_none_or(is_guard) {
            Err((Refusal::Invalid, 0))
        } else if self.channel_names.contains_key(&*address.0) {
            Err((Refusal::Exists, 0))
        } else if self.addresses.len() >= ADDRESSES_MAX && !self.addresses.contains_key(&address.0) {
            Err((Refusal::Limit, 0))
        } else {
            Ok(())
        }
    }

    fn set_outlet(
        &mut self,
        request: u64,
        address: Bytes,
        targets: Vec<PortalTarget>,
        plain: bool,
        access: Access,
        cookie: Bytes,
    ) -> Result<(), (Refusal, i32)> {
        let Access { reachable, guard } = access;
        self.check_address(&address, guard, &cookie)?;
        let fits = |target: &PortalTarget| match target {
            PortalTarget::Tcp(_) => true,
            PortalTarget::Unix(path) => !path.is_empty() && path.len() <= UNIX_PATH_MAX,
        };
        if targets.len() > TARGETS_MAX || !targets.iter().all(fits) {
            return Err((Refusal::Invalid, 0));
        }
        // One that gets fresh targets stays the one that its connections belong to.
        let serial = match self.addresses.get(&address.0) {
            Some(Address { target: Target::Outlet, serial, .. }) => *serial,
            _ => self.number(),
        };
        self.forget_relay(&address.0);
        self.addresses.insert(address.0.clone(), Address { target: Target::Outlet, access, serial, cookie });
        let name = address.0.into();
        let outlet = Arc::new(Outlet { name, targets, plain, guard, serial, failed_ms: AtomicU64::new(0) });
        self.order_all(request, |request| ToCore::SetOutlet { request, outlet: outlet.clone(), reachable });
        Ok(())
    }

    fn set_relay(
        &mut self,
        request: u64,
        address: Bytes,
        way: Option<Bytes>,
        reachable: u64,
        cookie: Bytes,
    ) -> Result<(), (Refusal, i32)> {
        self.check_address(&address, None, &cookie)?;
        let way = way.map(|way| read_relay_way(&way.0)).transpose()?.map(Arc::new);
        let serial = self.number();
        self.forget_relay(&address.0);
        if let Some(way) = &way {
            self.relays.insert(address.0.clone(), way.first.clone());
            self.mesh.carried.fetch_add(1, Ordering::SeqCst);
            // What its way begins with may have gone before anybody looked for this relay: a link leaves the directory
            // before it says that it closed.
            if !self.relay_leads_on(&way.first) {
                self.mesh.link_closed();
            }
        }
        let access = Access { reachable, guard: None };
        self.addresses.insert(address.0.clone(), Address { target: Target::Relay, access, serial, cookie });
        let address: Arc<[u8]> = address.0.into();
        self.order_all(request, |request| {
            let (address, way) = (address.clone(), way.clone());
            ToCore::SetRelay { request, address, way, reachable, serial }
        });
        Ok(())
    }

    /// What is at this address is no longer a relay, if it was one.
    pub(super) fn forget_relay(&mut self, address: &[u8]) {
        if self.relays.remove(address).is_some() {
            self.mesh.carried.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn relay_leads_on(&self, first: &[u8]) -> bool {
        self.link_at(first).is_some() || self.channel_names.contains_key(first)
    }

    /// Ends the relays whose link or channel is gone.
    pub(super) fn end_relays(&mut self) {
        let gone: Vec<Vec<u8>> = self
            .relays
            .iter()
            .filter(|(_, first)| !self.relay_leads_on(first))
            .map(|(address, _)| address.clone())
            .collect();
        for address in gone {
            self.forget_relay(&address);
            if let Some(Address { serial, .. }) = self.addresses.remove(&address) {
                let name: Arc<[u8]> = address.as_slice().into();
                self.order_all(NOBODY, |request| ToCore::Clear { request, address: name.clone(), serial });
            }
            self.tell(&Notice::RelayGone { address: address.into() }, None);
        }
    }

    fn add_inlet(
        &mut self,
        request: u64,
        number: u32,
        guard: Option<Guard>,
        cookie: Bytes,
        descriptor: Option<OwnedFd>,
    ) -> Result<(), (Refusal, i32)> {
        let socket = descriptor.ok_or((Refusal::Invalid, 0))?;
        if cookie.0.len() > COOKIE_BYTES_MAX || !guard.is_none_or(is_guard) {
            return Err((Refusal::Invalid, 0));
        }
        if self.inlets.contains_key(&number) || self.listeners.contains_key(&number) {
            return Err((Refusal::Exists, 0));
        }
        if self.inlets.len() >= INLETS_MAX {
            return Err((Refusal::Limit, 0));
        }
        let kept = socket.try_clone().map_err(|error| (Refusal::System, error.raw_os_error().unwrap_or(0)))?;
        let connections = Arc::new(AtomicU32::new(0));
        let inlet = Inlet { socket: kept, guard, cookie, way: None, connections: connections.clone() };
        self.inlets.insert(number, inlet);
        let home = self.core_of_listener(number);
        let request = self.expect(request, self.mesh.cores.len());
        let mut socket = Some(socket);
        for core in 0..self.mesh.cores.len() as u8 {
            let socket = if core == home { socket.take() } else { None };
            let connections = connections.clone();
            self.order(core, ToCore::AddInlet { request, inlet: number, guard, socket, connections });
        }
        Ok(())
    }

    fn route_inlet(
        &mut self,
        request: u64,
        number: u32,
        way: Option<Bytes>,
        wait_ms: u32,
    ) -> Result<(), (Refusal, i32)> {
        let read = way.as_ref().map(|way| read_way(&way.0).ok_or((Refusal::Invalid, 0))).transpose()?.map(Arc::new);
        self.inlets.get_mut(&number).ok_or((Refusal::Unknown, 0))?.way = way;
        self.order_all(request, |request| ToCore::RouteInlet { request, inlet: number, way: read.clone(), wait_ms });
        Ok(())
    }

    pub(super) fn dump_inlets(&mut self, request: u64) {
        let inlets: Vec<_> = self
            .inlets
            .iter()
            .map(|(&inlet, it)| {
                let connections = it.connections.load(Ordering::Relaxed);
                let (way, cookie) = (it.way.clone(), it.cookie.clone());
                let guard = it.guard;
                (Notice::Inlet { request, inlet, way, connections, guard, cookie }, it.socket.try_clone().ok())
            })
            .collect();
        for (notice, socket) in inlets {
            self.tell(&notice, socket);
        }
    }

    /// Frees the ports of inlets at once, also for whoever else has a duplicate of their sockets.
    pub(super) fn release_inlet_ports(&self) {
        for inlet in self.inlets.values() {
            let _ = rustix::net::shutdown(&inlet.socket, rustix::net::Shutdown::Both);
        }
    }
}

fn read_relay_way(way: &[u8]) -> Result<Way, (Refusal, i32)> {
    read_way(way).filter(|way| way.rest.onward().len() <= RELAY_WAY_MAX).ok_or((Refusal::Invalid, 0))
}
