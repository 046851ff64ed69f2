//! What a guard let pass lasts: connections of applications, links that were dialed for the peers of channels. Messages ask
//! the guard one by one; these are looked at when something was changed, and when grants expire.

use super::Core;
use super::link::{Link, Origin, State};
use super::portals::Carrier;
use crate::io::driver::Driver;
use ockam_engine_abi::{CloseReason, DropReason};
use std::net::SocketAddr;

impl<D: Driver> Core<D> {
    /// Looks at everything before anything else happens.
    pub(super) fn guards_changed(&mut self) {
        self.denial_ms = 0;
    }

    /// Looks at a link, at the latest when it may be denied next.
    pub(super) fn watch(&mut self, index: u32) {
        self.denial_ms = self.denial_ms.min(self.let_pass_until(&self.links[index]));
    }

    /// Ends what is no longer let pass, if it is time to look.
    pub(super) fn end_denied(&mut self) {
        if self.now_ms < self.denial_ms {
            return;
        }
        self.denial_ms = u64::MAX;
        let mut denied = Vec::new();
        for link in self.links.iter().filter(|link| link.is_open()) {
            let until = self.let_pass_until(link);
            if until <= self.now_ms {
                denied.push(link.socket.index);
            } else {
                self.denial_ms = self.denial_ms.min(until);
            }
        }
        for index in denied {
            match &self.links[index].origin {
                Origin::Portal(_) => self.close(index, CloseReason::PortalDenied),
                _ if self.links[index].state == State::Up => self.close(index, CloseReason::IngressGone),
                _ => self.fail(index, DropReason::PolicyDenied, None),
            }
        }
    }

    /// Until when a link is let pass, in milliseconds of the clock: now or earlier if it is not, `u64::MAX` if nothing is
    /// known that would change it.
    pub(super) fn let_pass_until(&self, link: &Link) -> u64 {
        let now_ms = self.now_ms;
        match &link.origin {
            Origin::Portal(portal) => match (self.guard_of(portal), portal.carrier()) {
                (None, _) | (Some(_), Carrier::Inside) => u64::MAX,
                (Some(guard), _) if self.tables.open.contains(guard) => u64::MAX,
                (Some(guard), Carrier::Channel(channel)) if channel.granted.has(guard, now_ms) => {
                    channel.granted.expires_ms()
                }
                (Some(_), Carrier::Channel(_) | Carrier::Link(_)) => 0,
            },
            Origin::Transit(transit) => {
                let Some(channel) = &transit.channel else { return u64::MAX };
                let passes = |to: SocketAddr| {
                    let passes = |guard| self.tables.lets_pass(guard, Some(channel), now_ms);
                    self.tables.transit.admit_guarded(to, passes).is_ok()
                };
                // While its name is being resolved there is nothing to look at.
                let is_known = link.peer.port() != 0;
                if channel.has_ended() || is_known && !passes(link.peer) {
                    return 0;
                }
                // An open guard lets it pass longer.
                Some(channel.granted.expires_ms()).filter(|at| *at > now_ms).unwrap_or(u64::MAX)
            }
            Origin::Accepted { .. } | Origin::Dialed { .. } => u64::MAX,
        }
    }
}
