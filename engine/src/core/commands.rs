//! What control asked for, as the attendant hands it on.

use super::link::Origin;
use super::mesh::{FromCore, LinkDump, ToCore, take};
use super::{Core, Serves};
use crate::io::driver::Driver;
use crate::path::tables::ReplyKey;
use crate::path::transit::TransitRules;
use ockam_engine_abi::{CloseReason, LinkOrigin, Notice, Refusal};

/// Commands that one tick carries out, so that frames do not wait for many.
const COMMANDS_PER_TICK: usize = 64;

impl<D: Driver> Core<D> {
    pub(super) fn take_commands(&mut self) {
        for _ in 0..COMMANDS_PER_TICK {
            let Some(command) = take(&self.mesh.cores[usize::from(self.index)].commands) else { break };
            self.on_command(command);
        }
    }

    fn on_command(&mut self, command: ToCore) {
        match command {
            ToCore::Listen { request, listener, socket, flow_control } => {
                self.add_listener(listener, socket, Serves::Links(flow_control));
                self.say(FromCore::Applied { request });
            }
            ToCore::AddInlet { request, inlet, guard, socket, connections } => {
                self.add_inlet(inlet, guard, connections);
                if let Some(socket) = socket {
                    self.add_listener(inlet, socket, Serves::Inlet);
                }
                self.say(FromCore::Applied { request });
            }
            ToCore::RouteInlet { request, inlet, way, wait_ms } => {
                self.route_inlet(inlet, way, wait_ms);
                self.say(FromCore::Applied { request });
            }
            ToCore::RemoveInlet { request, inlet } => {
                self.remove_listener(inlet);
                self.remove_inlet(inlet);
                self.say(FromCore::Applied { request });
            }
            ToCore::SetOutlet { request, outlet, reachable } => {
                self.tables.set_outlet(outlet, reachable);
                self.guards_changed();
                self.say(FromCore::Applied { request });
            }
            ToCore::SetRelay { request, address, way, reachable, serial } => {
                self.tables.set_relay(&address, way, reachable, serial);
                self.say(FromCore::Applied { request });
            }
            ToCore::Unlisten { request, listener } => {
                let known = self.remove_listener(listener);
                self.answer(request, known);
            }
            ToCore::Dial { request, target, cookie } => self.dial(request, target, cookie),
            ToCore::Close { request, link } => {
                let index = self.open_link(link);
                if let Some(index) = index {
                    self.close(index, CloseReason::ByControl);
                }
                self.answer(request, index.is_some());
            }
            ToCore::Resolved { link, addresses } => self.on_resolved(link, addresses),
            ToCore::Set { request, address, target, access, serial, handshake } => {
                self.tables.set(&address, target, access, serial);
                match handshake {
                    Some(handshake) => drop(self.tables.handshakes.insert((*address).into(), handshake)),
                    None => drop(self.tables.handshakes.remove(&*address)),
                }
                self.say(FromCore::Applied { request });
            }
            ToCore::Clear { request, address, serial } => {
                if let Some(handshake) = self.tables.clear(&address) {
                    // Nobody will have it.
                    let _ = handshake.take(self.index, &self.mesh.parked_bytes);
                }
                self.links.iter_mut().for_each(|link| link.replies.forget(ReplyKey::Set(serial)));
                self.remove_outlet(serial);
                self.say(FromCore::Applied { request });
            }
            ToCore::Install { request, channel, reachable, serial } => {
                if self.install(&channel, reachable, serial) {
                    self.say(FromCore::Applied { request });
                } else {
                    self.say(FromCore::Notice(Notice::Refused { request, why: Refusal::Limit, errno: 0 }));
                }
            }
            ToCore::Guards { request, open } => {
                self.tables.open = *open;
                self.guards_changed();
                self.say(FromCore::Applied { request });
            }
            ToCore::Granted { request } => {
                self.guards_changed();
                self.say(FromCore::Applied { request });
            }
            ToCore::ShowCredentials { request, channel, text } => {
                let shown = self.show_credentials(&channel, &text);
                self.say(match shown {
                    Ok(()) => FromCore::Applied { request },
                    Err(why) => FromCore::Notice(Notice::Refused { request, why, errno: 0 }),
                });
            }
            ToCore::SealClose { channel } => self.seal_close(&channel),
            ToCore::Uninstall { request, channel, serial } => {
                channel.end();
                self.guards_changed();
                self.carrier_channel_gone(&channel);
                self.tables.clear(&channel.decryptor);
                self.tables.clear(&channel.encryptor);
                for link in self.links.iter_mut() {
                    link.replies.forget(channel.reply_key());
                    link.replies.forget(ReplyKey::Set(serial));
                    link.ingest.familiar.forget(&channel);
                }
                self.say(FromCore::Applied { request });
            }
            ToCore::Transit { request, rules } => {
                self.tables.transit = TransitRules(rules.to_vec());
                self.guards_changed();
                self.say(FromCore::Applied { request });
            }
            ToCore::Transmit { request, message } => self.on_transmit(request, &message),
            ToCore::Dump { request } => {
                let links = self.links.iter().filter_map(|link| describe(request, link)).collect();
                self.say(FromCore::Links { request, links });
            }
            ToCore::Drain { limit_ms } => {
                self.drain_ms = Some(self.now_ms + u64::from(limit_ms));
                self.sweep_ms = self.now_ms;
                let numbers: Vec<u32> =
                    self.listeners.iter().flatten().filter_map(|listener| listener.number).collect();
                for number in numbers {
                    self.remove_listener(number);
                }
            }
        }
    }

    fn answer(&mut self, request: u64, known: bool) {
        self.say(if known {
            FromCore::Applied { request }
        } else {
            FromCore::Notice(Notice::Refused { request, why: Refusal::Unknown, errno: 0 })
        });
    }
}

fn describe(request: u64, link: &super::link::Link) -> Option<LinkDump> {
    let (origin, cookie, listener) = match &link.origin {
        Origin::Accepted { listener } => (LinkOrigin::Accepted, Vec::new(), Some(*listener)),
        Origin::Dialed { cookie, .. } => (LinkOrigin::Dialed, cookie.to_vec(), None),
        Origin::Transit(_) => (LinkOrigin::Transit, Vec::new(), None),
        Origin::Portal(_) => return None,
    };
    let notice = Notice::Link {
        request,
        link: link.id,
        address: link.address.to_vec().into(),
        peer: link.peer,
        local: link.local,
        origin,
        flow_control: link.flow_control,
        traffic: link.traffic,
        queued_bytes: link.egress.bytes as u64,
        cookie: cookie.into(),
    };
    Some(LinkDump { notice, listener })
}
