//! Control -> engine. Numbers in decades per subject; whoever adds a command gives it the next number of its decade.

use crate::guard::{ChannelGrants, Grants, Guard, GuardSet};
use crate::key::Key;
use crate::link_id::LinkId;
use crate::record::{Bytes, DecodeError, Field};
use std::net::{IpAddr, SocketAddr};

crate::numbered! {
    /// What is at a local address.
    Target "target" {
        /// Answers with the payload it got.
        1 Echo "echo",
        /// Answers with the text it got in upper case.
        2 Uppercase "uppercase",
        /// Forwards to the next address of the route.
        3 Hop "hop",
        /// Handed to control as [`crate::Notice::Punt`].
        4 Control "control",
        /// The decryptor of a channel that is being made: the first message is handed to control, what follows waits for
        /// [`Command::InstallChannel`].
        5 Handshake "handshake",
        /// A portal's outlet: a Ping opens a connection to one of its targets ([`Command::SetOutlet`]).
        6 Outlet "outlet",
        /// Forwards along a stored way ([`Command::SetRelay`]).
        7 Relay "relay",
    }
}

/// Where an outlet connects to, after resolution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortalTarget {
    /// A TCP address.
    Tcp(SocketAddr),
    /// The path of a Unix socket, at most [`UNIX_PATH_MAX`] bytes.
    Unix(Box<[u8]>),
}

/// Longest path of a Unix socket, without the byte that ends it (`sun_path`).
pub const UNIX_PATH_MAX: usize = 107;

impl Field for PortalTarget {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            PortalTarget::Tcp(address) => {
                0u8.put(out);
                address.put(out);
            }
            PortalTarget::Unix(path) => {
                1u8.put(out);
                Bytes(path.to_vec()).put(out);
            }
        }
    }
    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(match u8::take(input)? {
            0 => PortalTarget::Tcp(SocketAddr::take(input)?),
            1 => PortalTarget::Unix(Bytes::take(input)?.0.into()),
            other => return Err(DecodeError::Unknown { what: "portal target", number: other.into() }),
        })
    }
}

/// Who has TCP addresses dialed by a [`TransitRule`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransitFrom {
    /// Links of peers in this network: address and prefix length in bits.
    Network((IpAddr, u8)),
    /// Peers of channels that this guard lets pass. What is dialed for one is for that one, and ends when the guard no longer
    /// lets it pass. Addresses of loopback and of one wire alone (link-local) are dialed only if `to` names nothing else.
    Guard(Guard),
}

impl Field for TransitFrom {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            TransitFrom::Network((address, length)) => {
                0u8.put(out);
                address.put(out);
                length.put(out);
            }
            TransitFrom::Guard(guard) => {
                1u8.put(out);
                guard.put(out);
            }
        }
    }
    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(match u8::take(input)? {
            0 => TransitFrom::Network((IpAddr::take(input)?, u8::take(input)?)),
            1 => TransitFrom::Guard(Guard::take(input)?),
            other => return Err(DecodeError::Unknown { what: "transit rule", number: other.into() }),
        })
    }
}

/// Admits peers to have TCP addresses in `to` dialed for them (`architecture.md`, Transit).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransitRule {
    /// The peers.
    pub from: TransitFrom,
    /// Network of the target, after resolution.
    pub to: (IpAddr, u8),
    /// The target's port; any when absent.
    pub port: Option<u16>,
}

impl Field for TransitRule {
    fn put(&self, out: &mut Vec<u8>) {
        self.from.put(out);
        self.to.0.put(out);
        self.to.1.put(out);
        self.port.put(out);
    }
    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(TransitRule {
            from: TransitFrom::take(input)?,
            to: (IpAddr::take(input)?, u8::take(input)?),
            port: Field::take(input)?,
        })
    }
}

crate::records! {
    /// What control asks of the engine. `request` is chosen by control and comes back in the answer.
    Command "command" {
        /// First record of a connection. Answered by `Ready` or `VersionMismatch`.
        10 Hello {
            /// [`crate::ABI_VERSION`] of control.
            abi_version: u32,
        },
        /// Accept links on the listening socket that comes beside this record (one descriptor).
        20 AddListener {
            /// Answer to this.
            request: u64,
            /// Control's number for it.
            listener: u32,
            /// The flow control of links that it accepts: a bit of `Command::SetAddress::reachable`.
            flow_control: u8,
            /// Opaque, at most [`crate::COOKIE_BYTES_MAX`] bytes.
            cookie: Bytes,
        },
        /// Accept no more; links already accepted stay.
        21 RemoveListener {
            /// Answer to this.
            request: u64,
            /// The listener.
            listener: u32,
        },
        /// Open a link. Answered by `LinkUp` or `Refused` within the dial limit.
        30 Dial {
            /// Answer to this.
            request: u64,
            /// Where to, after resolution.
            target: SocketAddr,
            /// Opaque, at most [`crate::COOKIE_BYTES_MAX`] bytes.
            cookie: Bytes,
        },
        /// Close a link.
        31 CloseLink {
            /// Answer to this.
            request: u64,
            /// The link.
            link: LinkId,
        },
        /// The answer to [`crate::Notice::Resolve`]; no address means that the name does not resolve.
        32 Resolved {
            /// The link that waits.
            link: LinkId,
            /// What the name stands for, best first.
            addresses: Vec<SocketAddr>,
        },
        /// Put something at a local address, or replace what is there.
        40 SetAddress {
            /// Answer to this.
            request: u64,
            /// The name (transport type 0), at most 255 bytes.
            address: Bytes,
            /// What is there.
            target: Target,
            /// Which flow controls may reach it, as a bit mask.
            reachable: u64,
            /// Lets pass whoever is granted it ([`Command::SetGuards`]), besides what `reachable` says. Not for
            /// [`Target::Handshake`]: a channel has no guard of its own.
            guard: Option<Guard>,
            /// Opaque, at most [`crate::COOKIE_BYTES_MAX`] bytes.
            cookie: Bytes,
        },
        /// Remove what is at a local address.
        41 ClearAddress {
            /// Answer to this.
            request: u64,
            /// The name.
            address: Bytes,
        },
        /// Replace all transit rules. The default (loopback to loopback) always holds beside them.
        42 SetTransit {
            /// Answer to this.
            request: u64,
            /// The rules.
            rules: Vec<TransitRule>,
        },
        /// Put an outlet at a local address, or give the one that is there fresh targets (its connections stay).
        /// [`Command::ClearAddress`] ends it and its connections.
        43 SetOutlet {
            /// Answer to this.
            request: u64,
            /// The name.
            address: Bytes,
            /// Tried in this order for each new connection; none when the name does not resolve for now.
            targets: Vec<PortalTarget>,
            /// Which flow controls may reach it, as a bit mask.
            reachable: u64,
            /// Whether links of peers that are not on loopback may reach it without a channel.
            plain: bool,
            /// As for [`Command::SetAddress`]; its connections end when the peer of their channel is no longer granted it.
            guard: Option<Guard>,
            /// Opaque, at most [`crate::COOKIE_BYTES_MAX`] bytes.
            cookie: Bytes,
        },
        /// Put a relay at a local address, or replace it: what reaches it goes on along `way`, then along the rest of its
        /// route; its return route stays (`wire.md` G.1). Without a way it goes on along the rest of its route; when nothing is
        /// left of that, it is handed to control.
        44 SetRelay {
            /// Answer to this.
            request: u64,
            /// The name.
            address: Bytes,
            /// The way: an encoded TransportMessage (`wire.md` A.3), without its length, of which only the onward route is
            /// read. It begins with the address of a link or of a channel's encryptor, whose end is the relay's
            /// ([`crate::Notice::RelayGone`]).
            way: Option<Bytes>,
            /// Which flow controls may reach it, as a bit mask.
            reachable: u64,
            /// Opaque, at most [`crate::COOKIE_BYTES_MAX`] bytes.
            cookie: Bytes,
        },
        /// Which guards let everybody pass from now on; the others let nobody pass who is not granted them. An engine begins
        /// with none open. What this node sends itself passes all of them.
        45 SetGuards {
            /// Answer to this.
            request: u64,
            /// Those that are open.
            open: GuardSet,
        },
        /// Send a message as if it came from inside this node: its first onward address is a link's or a service's.
        /// Its return route begins with an address that control set; replies over that link are admitted to it.
        50 Transmit {
            /// Answer to this, and named by `Undelivered`.
            request: u64,
            /// An encoded TransportMessage (`wire.md` A.3) without the length.
            message: Bytes,
        },
        /// A handshake is complete: what is sealed for it is opened at `decryptor`, what reaches `encryptor` is sealed.
        /// Refused as `Limit` when more came before this than waits for a handshake; nothing is set then.
        60 InstallChannel {
            /// Answer to this.
            request: u64,
            /// Control's number for it, which no living channel has.
            channel: u32,
            /// The local name of the receiving side, at most 32 bytes: set by control before, as
            /// [`Target::Handshake`].
            decryptor: Bytes,
            /// The local name of the sending side, at most 32 bytes.
            encryptor: Bytes,
            /// Seals what is sent, from nonce 0 on.
            sealing_key: Key,
            /// Opens what is received, from nonce 0 on.
            opening_key: Key,
            /// The way to the peer: an encoded TransportMessage (`wire.md` A.3), without its length, of which only the
            /// onward route is read. Its last address is the peer's decryptor.
            way: Bytes,
            /// Whether the way changes to the one that the peer's messages come by (`wire.md` E.5: the responder's).
            follows_peer: bool,
            /// Which flow controls may reach the decryptor, as a bit mask.
            reachable: u64,
            /// The flow control of what comes out of the channel.
            flow_control: u8,
            /// Milliseconds after which the channel ends, whatever control does.
            expires_in_ms: Option<u64>,
            /// What its peer is granted.
            grants: Grants,
            /// Opaque, at most [`crate::COOKIE_BYTES_MAX`] bytes.
            cookie: Bytes,
        },
        /// End a channel, and forget its keys.
        61 RetireChannel {
            /// Answer to this.
            request: u64,
            /// Which.
            channel: u32,
            /// Whether the peer is told (`wire.md` E.7).
            close: bool,
        },
        /// What the peers of channels are granted from now on, instead of what they were. In force when it is answered; portal
        /// connections that are no longer granted end within a second. Channels that are gone are passed over.
        62 SetGrants {
            /// Answer to this.
            request: u64,
            /// For each of these channels, at most [`crate::record::LIST_MAX`]; others stay as they are.
            channels: Vec<ChannelGrants>,
        },
        /// Show new credentials to the peer of a channel (`wire.md` E.7). Refused as `ConnectFailed` while nothing carries the
        /// channel, as `Limit` when no memory is free for it, as `Invalid` when the text is another one or beyond 64 KiB.
        63 ShowCredentials {
            /// Answer to this.
            request: u64,
            /// Which.
            channel: u32,
            /// The text of the record: a RefreshCredentials message.
            text: Bytes,
        },
        /// A portal's inlet: accept connections of applications on the listening socket that comes beside this record (one
        /// descriptor, TCP or Unix). They wait until [`Command::RouteInlet`] says where to.
        70 AddInlet {
            /// Answer to this.
            request: u64,
            /// Control's number for it, which no listener and no other inlet has.
            inlet: u32,
            /// Only outlets behind channels whose peer is granted this are connected to, and only for as long as it is.
            guard: Option<Guard>,
            /// Opaque, at most [`crate::COOKIE_BYTES_MAX`] bytes.
            cookie: Bytes,
        },
        /// Where the new connections of an inlet go from now on; those that are established stay where they are.
        71 RouteInlet {
            /// Answer to this.
            request: u64,
            /// Which.
            inlet: u32,
            /// The way to the outlet: an encoded TransportMessage, without its length, of which only the onward route is
            /// read. It begins with the address of a link, of a channel's encryptor or of an outlet of this node. Without one
            /// new connections wait for it.
            way: Option<Bytes>,
            /// Milliseconds that a new connection waits for a way, then it is closed.
            wait_ms: u32,
        },
        /// Accept no more, and end the inlet's connections.
        72 RemoveInlet {
            /// Answer to this.
            request: u64,
            /// Which.
            inlet: u32,
        },
        /// Answer with every listener, inlet, link, address and channel, then the sockets, then `DumpEnd`.
        90 Dump {
            /// Answer to this.
            request: u64,
        },
        /// Accept and dial no more, close links as they fall silent, all of them after `limit_ms`, then exit.
        91 Drain {
            /// Answer to this.
            request: u64,
            /// Milliseconds.
            limit_ms: u32,
            /// Free the listeners' ports at once, also for whoever else has a duplicate of their sockets: for a node that
            /// stops without a control. A control that stops sees to its own.
            release_ports: bool,
        },
    }
}

impl Field for LinkId {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        u64::take(input).map(LinkId)
    }
}
