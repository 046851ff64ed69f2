//! One message in, one verdict out (`wire.md` A.5, A.7, B.1).
//!
//! Tiers, by how often they are met: (1) the first address is a link or a service: one lookup; (2) local forwarders stand
//! between: a bounded walk; (3) a TCP address: the transit rules; (4) everything else is a drop with its reason.

use crate::path::channel::{Channel, Way};
use crate::path::service::Uppercase;
use crate::path::tables::{Access, Name, Place, Replies, ReplyKey, Tables};
use crate::path::trail::Walk;
use crate::path::transit::DialTarget;
use ockam_engine_abi::{DropReason, LinkId, Target};
use ockam_wire::{AddressRef, LOCAL, Message, ROUTE_MAX, TCP};
use std::net::IpAddr;
use std::sync::Arc;

/// Where a message came in.
#[derive(Debug, Clone, Copy)]
pub enum Ingress<'a> {
    /// From inside: what this node sends itself, and what its portals' applications say.
    Inside,
    /// From a peer.
    Link {
        /// The link.
        link: LinkId,
        /// Its address on this node.
        address: &'a [u8],
        /// Its flow control.
        flow_control: u8,
        /// The peer's address.
        peer: IpAddr,
    },
    /// Out of a channel.
    Channel(&'a Arc<Channel>),
}

impl Ingress<'_> {
    /// The link, if it is one.
    pub fn link(&self) -> Option<LinkId> {
        match self {
            Ingress::Inside | Ingress::Channel(_) => None,
            Ingress::Link { link, .. } => Some(*link),
        }
    }

    /// The channel, if it is one.
    fn channel(&self) -> Option<&Arc<Channel>> {
        match self {
            Ingress::Inside | Ingress::Link { .. } => None,
            Ingress::Channel(channel) => Some(channel),
        }
    }

    fn flow_control(&self) -> Option<u8> {
        match self {
            Ingress::Inside => None,
            Ingress::Link { flow_control, .. } => Some(*flow_control),
            Ingress::Channel(channel) => Some(channel.flow_control),
        }
    }
}

/// What the payload of a sent message is.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    /// What came in.
    Same,
    /// The answer of `uppercase`.
    Uppercase(Uppercase<'a>),
}

/// What is to be done with a message. The routes that go with it are in the [`Walk`].
#[derive(Debug, Clone, Copy)]
pub enum Verdict<'a, 't> {
    /// Send it on a link.
    Send {
        /// Which.
        link: LinkId,
        /// The payload.
        body: Body<'a>,
        /// The place that the link may answer to from now on.
        reply: Option<ReplyKey>,
        /// Whether a service of this node answered.
        served: bool,
    },
    /// Seal it and send that along the channel's way.
    Seal {
        /// Which.
        channel: &'t Arc<Channel>,
        /// The payload.
        body: Body<'a>,
        /// The place that the peer may answer to from now on.
        reply: Option<ReplyKey>,
        /// Whether a service of this node answered.
        served: bool,
    },
    /// Send it along a relay's way, in front of what is left of its route.
    Relay {
        /// The way.
        way: &'t Arc<Way>,
        /// The payload.
        body: Body<'a>,
        /// The place that what the way begins with may answer to from now on.
        reply: Option<ReplyKey>,
    },
    /// It says something to a connection of an application.
    Portal {
        /// Which.
        link: LinkId,
    },
    /// It asks an outlet for a connection.
    Outlet {
        /// The outlet's address.
        name: &'a [u8],
    },
    /// Its payload is a record: open it, and decide about the message inside.
    Open {
        /// The channel.
        channel: &'t Arc<Channel>,
    },
    /// It is for a channel that is being made.
    Park {
        /// The local name of that channel's receiving side.
        decryptor: &'a [u8],
    },
    /// Send it on a link to this TCP address, after dialing it if there is none yet.
    Dial {
        /// The address as the route has it: what tells one transit link from another.
        name: &'a [u8],
        /// The address as read.
        target: DialTarget<'a>,
    },
    /// Hand it to control, whose address is still in front of the onward route.
    Punt {
        /// The payload.
        body: Body<'a>,
    },
    /// Nothing: its onward route is empty (`wire.md` A.6).
    Heartbeat,
    /// Nothing: it is refused.
    Drop {
        /// Why.
        reason: DropReason,
        /// How many addresses of the onward route were left, the failing one included; at least 1.
        left: u8,
    },
}

/// Local steps of one visit: forwarders passed and answers turned around.
const STEPS_MAX: usize = crate::path::trail::FRONT_MAX;

/// Decides about one message, whose routes are in `walk` and are what is to be written afterwards. `replies` are those of
/// the ingress link; a channel has its own. `now_ms` is the time of the clock, by which grants end.
pub fn route<'a: 't, 't>(
    tables: &'t Tables,
    ingress: Ingress<'a>,
    replies: &Replies,
    message: &Message<'a>,
    walk: &mut Walk<'a>,
    now_ms: u64,
) -> Verdict<'a, 't> {
    let refuse = |reason, walk: &Walk<'_>| Verdict::Drop { reason, left: walk.left() };

    if walk.onward.is_empty() {
        return Verdict::Heartbeat;
    }
    if walk.onward.len() > ROUTE_MAX || walk.back.len() >= ROUTE_MAX {
        return refuse(DropReason::RouteTooLong, walk);
    }
    // The place that the front of the way back stands for.
    let mut reply = None;
    if let Ingress::Link { link, address, peer, .. } = ingress {
        if !peer.is_loopback() && !tables.transit_ahead_is_admitted(peer, message) {
            return refuse(DropReason::TransitRefused, walk);
        }
        let pushed = walk.back.push(AddressRef { kind: LOCAL, name: address });
        debug_assert!(pushed, "the first push has room");
        reply = Some(ReplyKey::Link(link));
    } else if let Ingress::Channel(channel) = ingress {
        let pushed = walk.back.push(AddressRef::local(&channel.encryptor));
        debug_assert!(pushed, "the first push has room");
        reply = Some(channel.reply_key());
    } else if let Some(first) = walk.back.first()
        && first.kind == LOCAL
    {
        reply = tables.find(first.name).map(|place| place.reply_key());
    }

    let mut body = Body::Same;
    let mut served = false;
    // Once a local forwarder or service has it, the message is this node's own: it goes anywhere but to TCP addresses.
    // Guards look at who sent it, whatever has it now.
    let is_inside = matches!(ingress, Ingress::Inside);
    let mut from_outside = !is_inside;
    for _ in 0..STEPS_MAX {
        let Some(next) = walk.onward.first() else {
            return refuse(DropReason::RouteEnded, walk);
        };
        match next.kind {
            LOCAL => {}
            TCP if from_outside => return dial(tables, ingress, next.name, walk, now_ms),
            // Out of a forwarder; or from control, which resolves and dials by itself.
            TCP => return refuse(DropReason::TransitRefused, walk),
            _ => return refuse(DropReason::UnsupportedTransport, walk),
        }
        // An answer goes back over the link, or through the channel, that the question came by: no need to look for it.
        let name = Name::of(next.name);
        let place = match ingress {
            Ingress::Link { link, address, .. } if name == Name::of(address) => Place::Link(link),
            Ingress::Channel(channel) if name == Some(channel.name) => Place::Encryptor(channel),
            _ => match tables.find_as(name, next.name) {
                Some(place) => place,
                None => return refuse(DropReason::NoSuchAddress, walk),
            },
        };
        // A connection of an application hears only whom it spoke to, by whatever local way it comes.
        let is_checked = from_outside || (matches!(place, Place::Portal(_)) && !is_inside);
        if is_checked && !admitted(place, ingress, replies) {
            return refuse(DropReason::NotAdmitted, walk);
        }
        if let Place::Set { access: Access { guard: Some(guard), .. }, .. } = place
            && !is_inside
            && !tables.lets_pass(guard, ingress.channel().map(Arc::as_ref), now_ms)
        {
            return refuse(DropReason::PolicyDenied, walk);
        }
        let target = match place {
            Place::Link(link) => {
                walk.onward.pop();
                // Over the link that it came in on, the peer reaches what it just reached.
                let reply = reply.filter(|_| ingress.link() != Some(link));
                return Verdict::Send { link, body, reply, served };
            }
            Place::Encryptor(channel) => {
                walk.onward.pop();
                // Through the channel that it came out of, the peer reaches what it just reached.
                let reply =
                    reply.filter(|_| !matches!(ingress, Ingress::Channel(from) if from.serial == channel.serial));
                return Verdict::Seal { channel, body, reply, served };
            }
            Place::Portal(link) => {
                walk.onward.pop();
                if served || !walk.onward.is_empty() {
                    return refuse(DropReason::BadAddress, walk);
                }
                return Verdict::Portal { link };
            }
            Place::Relay { way: Some(way), .. } => {
                walk.onward.pop();
                return Verdict::Relay { way, body, reply };
            }
            Place::Relay { way: None, .. } if walk.onward.len() == 1 => return Verdict::Punt { body },
            // What is behind it must be within reach of whoever sent this.
            Place::Relay { way: None, .. } => {
                walk.onward.pop();
                continue;
            }
            // A service's answer is no record.
            Place::Decryptor { .. } if served => return refuse(DropReason::NotGenuine, walk),
            Place::Decryptor { channel, .. } => return Verdict::Open { channel },
            Place::Set { target, .. } => target,
        };
        match target {
            Target::Control => return Verdict::Punt { body },
            Target::Outlet if served || walk.onward.len() > 1 => return refuse(DropReason::BadAddress, walk),
            Target::Outlet => return Verdict::Outlet { name: next.name },
            // Set by a command of its own.
            Target::Relay => return refuse(DropReason::NoSuchAddress, walk),
            Target::Handshake => return Verdict::Park { decryptor: next.name },
            Target::Hop => {
                walk.onward.pop();
                if walk.back.len() >= ROUTE_MAX || !walk.back.push(next) {
                    return refuse(DropReason::RouteTooLong, walk);
                }
            }
            Target::Echo | Target::Uppercase => {
                if target == Target::Uppercase {
                    match (body, Uppercase::read(message.payload)) {
                        (Body::Same, Some(upper)) => body = Body::Uppercase(upper),
                        // An answer that is asked again stays what it is: it is in upper case already.
                        (Body::Uppercase(_), _) => {}
                        (Body::Same, None) => return refuse(DropReason::BadPayload, walk),
                    }
                }
                walk.turn_around(next);
                served = true;
                if walk.onward.is_empty() {
                    return refuse(DropReason::RouteEnded, walk);
                }
            }
        }
        reply = Some(place.reply_key());
        from_outside = false;
    }
    refuse(DropReason::RouteTooLong, walk)
}

/// Whether a message from outside may reach `place` (`wire.md` A.7).
fn admitted(place: Place<'_>, ingress: Ingress<'_>, replies: &Replies) -> bool {
    let Some(flow_control) = ingress.flow_control() else { return true };
    let by_flow_control = match place {
        Place::Link(_) | Place::Portal(_) | Place::Encryptor(_) => false,
        Place::Set { access: Access { reachable, .. }, .. }
        | Place::Relay { reachable, .. }
        | Place::Decryptor { reachable, .. } => reachable & (1 << flow_control) != 0,
    };
    by_flow_control
        || match ingress {
            Ingress::Channel(channel) => channel.opening().replies.admits(place.reply_key()),
            _ => replies.admits(place.reply_key()),
        }
}

fn dial<'a>(
    tables: &Tables,
    ingress: Ingress<'a>,
    name: &'a [u8],
    walk: &mut Walk<'a>,
    now_ms: u64,
) -> Verdict<'a, 'static> {
    let refuse = |reason, walk: &Walk<'_>| Verdict::Drop { reason, left: walk.left() };
    let Some(target) = DialTarget::parse(name) else { return refuse(DropReason::BadAddress, walk) };
    let admitted = match (ingress, target) {
        (Ingress::Inside, _) => Err(DropReason::TransitRefused),
        // A name is tested once it is resolved.
        (Ingress::Link { .. }, DialTarget::Name { .. }) => Ok(()),
        (Ingress::Link { peer, .. }, DialTarget::Address(address)) => {
            tables.transit.admit(peer, address).then_some(()).ok_or(DropReason::TransitRefused)
        }
        (Ingress::Channel(channel), target) => {
            let passes = |guard| tables.lets_pass(guard, Some(channel), now_ms);
            let first = match target {
                DialTarget::Address(address) => tables.transit.admit_guarded(address, passes),
                DialTarget::Name { port, .. } => tables.transit.concern_guarded(port, passes),
            };
            // Where it is dialed, this node is the one that asks for the next.
            let ahead = |address: AddressRef<'_>| match DialTarget::parse(address.name) {
                Some(DialTarget::Address(address)) => tables.transit.admit_guarded(address, passes),
                _ => Err(DropReason::TransitRefused),
            };
            first.and_then(|()| {
                walk.onward.parts().iter().skip(1).filter(|address| address.kind == TCP).try_for_each(ahead)
            })
        }
    };
    match admitted {
        Ok(()) => {
            walk.onward.pop();
            Verdict::Dial { name, target }
        }
        Err(reason) => refuse(reason, walk),
    }
}

impl Tables {
    /// A peer that is not loopback may have no TCP address anywhere in its route that the rules do not admit, so that
    /// it cannot launder itself into loopback through a chain of nodes.
    fn transit_ahead_is_admitted(&self, peer: IpAddr, message: &Message<'_>) -> bool {
        message.onward.iter().enumerate().filter(|(_, address)| address.kind == TCP).all(|(position, address)| {
            match DialTarget::parse(address.name) {
                Some(DialTarget::Address(target)) => self.transit.admit(peer, target),
                // This node will resolve and test the first one itself.
                Some(DialTarget::Name { .. }) if position == 0 => self.transit.concern(peer),
                Some(DialTarget::Name { port, .. }) => self.transit.admit_unresolved(peer, port),
                None => false,
            }
        })
    }
}

#[cfg(test)]
mod tests;
