//! Engine -> control. Same decades as the commands.

use crate::command::Target;
use crate::guard::Guard;
use crate::link_id::LinkId;
use crate::reason::{CloseReason, DropReason};
use crate::record::Bytes;
use std::net::SocketAddr;

crate::numbered! {
    /// The I/O driver of an engine.
    Driver "driver" {
        /// io_uring: multishot accept and receive, provided buffers, direct descriptors.
        1 Uring "uring",
        /// epoll and ordinary system calls.
        2 Epoll "epoll",
    }
}

crate::numbered! {
    /// Why a request was refused.
    Refusal "refusal" {
        /// No such listener, link or address.
        1 Unknown "unknown",
        /// The number or address is taken.
        2 Exists "exists",
        /// A limit of the engine is reached.
        3 Limit "limit",
        /// A field makes no sense (a long cookie, a message that does not parse, a missing descriptor).
        4 Invalid "invalid",
        /// The target refused the connection or is unreachable; `errno` says how.
        5 ConnectFailed "connect_failed",
        /// The target did not answer within the dial limit.
        6 ConnectTimedOut "connect_timed_out",
        /// What listens at the target is not a node.
        7 NotANode "not_a_node",
        /// The engine drains.
        8 Draining "draining",
        /// A system call failed; `errno` says how.
        9 System "system",
    }
}

crate::numbered! {
    /// How a link came to be.
    LinkOrigin "link origin" {
        /// A peer opened it.
        1 Accepted "accepted",
        /// Control asked for it.
        2 Dialed "dialed",
        /// A route asked for it under a transit rule.
        3 Transit "transit",
    }
}

crate::numbered! {
    /// Why a channel ended.
    ChannelEnd "channel end" {
        /// The peer closed it (`wire.md` E.7).
        1 ByPeer "by_peer",
        /// Control asked for it.
        2 ByControl "by_control",
        /// Its time is over.
        3 Expired "expired",
        /// The link that its way begins with is gone; a responder waited for the peer to come by another.
        4 LinkGone "link_gone",
        /// It has sealed as many messages as it can.
        5 Exhausted "exhausted",
        /// Too many records that were not genuine.
        6 TooManyForged "too_many_forged",
    }
}

crate::records! {
    /// What the engine tells control.
    Notice "notice" {
        /// The answer to `Hello`. Beside it: the memfd of the counters (one descriptor).
        10 Ready {
            /// [`crate::ABI_VERSION`] of the engine.
            abi_version: u32,
            /// Process id.
            pid: u32,
            /// The version of the binary that the engine runs.
            version: String,
            /// Which driver runs.
            driver: Driver,
            /// Why that one.
            driver_reason: String,
            /// The library that seals and opens.
            aead: String,
            /// Features of the processor that matter for sealing and opening.
            cpu_features: Vec<String>,
            /// Threads, which are cores to the engine.
            cores: u8,
            /// Bytes of a slot that a receive can fill.
            slot_bytes: u32,
            /// Slots per core.
            slots: u32,
            /// Most links per core.
            links_max: u32,
            /// Seconds since the engine started.
            uptime_s: u64,
        },
        /// The answer to a `Hello` with another version. The engine goes on; the connection ends.
        11 VersionMismatch {
            /// The engine's.
            ours: u32,
            /// Control's.
            theirs: u32,
        },
        /// Done, and in force on every core.
        12 Applied {
            /// Which.
            request: u64,
        },
        /// Not done.
        13 Refused {
            /// Which.
            request: u64,
            /// Why.
            why: Refusal,
            /// The system's number, or 0.
            errno: i32,
        },
        /// A listener, in a dump. Beside it: a duplicate of its socket (one descriptor).
        20 Listener {
            /// The dump.
            request: u64,
            /// Control's number for it.
            listener: u32,
            /// Bound address.
            local: SocketAddr,
            /// The flow control of its links.
            flow_control: u8,
            /// As given.
            cookie: Bytes,
        },
        /// A dialed link is up: answer to `Dial`.
        30 LinkUp {
            /// Which.
            request: u64,
            /// Its name.
            link: LinkId,
            /// The local address to send to (32 hexadecimal digits, `wire.md` A.4).
            address: Bytes,
            /// The peer.
            peer: SocketAddr,
            /// This side.
            local: SocketAddr,
        },
        /// A link that control dialed is gone.
        31 LinkDown {
            /// Its name.
            link: LinkId,
            /// Why.
            reason: CloseReason,
        },
        /// A route names a TCP address by a host name. Answer with `Resolved` in 5 s.
        32 Resolve {
            /// The link that waits.
            link: LinkId,
            /// The name.
            host: String,
            /// The port.
            port: u16,
        },
        /// A link, in a dump.
        33 Link {
            /// The dump.
            request: u64,
            /// Its name.
            link: LinkId,
            /// Its local address.
            address: Bytes,
            /// The peer.
            peer: SocketAddr,
            /// This side.
            local: SocketAddr,
            /// How it came to be.
            origin: LinkOrigin,
            /// Its flow control.
            flow_control: u8,
            /// Frames received, frames sent, bytes received, bytes sent.
            traffic: Traffic,
            /// Bytes that wait to be sent.
            queued_bytes: u64,
            /// As given to `Dial`, or that of its listener.
            cookie: Bytes,
        },
        /// A local address, in a dump.
        40 Address {
            /// The dump.
            request: u64,
            /// The name.
            address: Bytes,
            /// What is there.
            target: Target,
            /// Which flow controls may reach it.
            reachable: u64,
            /// Its guard.
            guard: Option<Guard>,
            /// As given.
            cookie: Bytes,
        },
        /// A relay is gone: the link or the channel that its way began with has ended.
        41 RelayGone {
            /// The name.
            address: Bytes,
        },
        /// None of an outlet's targets could be reached: control should look again at what their name stands for. At most
        /// one a second and outlet.
        42 OutletFailed {
            /// The name.
            address: Bytes,
            /// What the system said of the last target, or 0: none was left or it did not answer in time.
            errno: i32,
        },
        /// A message for an address whose target is control.
        50 Punt {
            /// The link it came in on; absent when control itself sent it, or when it waited for an install.
            link: Option<LinkId>,
            /// The channel that it came out of: its peer is the sender.
            channel: Option<u32>,
            /// An encoded TransportMessage; the address of the link, or the channel's encryptor, is in front of its return
            /// route already.
            message: Bytes,
        },
        /// A message of control did not leave this node.
        51 Undelivered {
            /// The `Transmit`.
            request: u64,
            /// Why.
            reason: DropReason,
            /// How many addresses of its onward route were left, the failing one included.
            left: u8,
        },
        /// A channel, in a dump. Never its keys.
        60 Channel {
            /// The dump.
            request: u64,
            /// Control's number for it.
            channel: u32,
            /// The local name of its receiving side.
            decryptor: Bytes,
            /// The local name of its sending side.
            encryptor: Bytes,
            /// The way to the peer, as in `InstallChannel`, as it is now.
            way: Bytes,
            /// The flow control of what comes out of it.
            flow_control: u8,
            /// Milliseconds until it ends.
            expires_in_ms: Option<u64>,
            /// What it carried.
            traffic: ChannelTraffic,
            /// As given.
            cookie: Bytes,
        },
        /// A channel is gone, with its addresses.
        61 ChannelClosed {
            /// Which.
            channel: u32,
            /// Why.
            reason: ChannelEnd,
        },
        /// The peer of a channel showed new credentials (`wire.md` E.7). Bounded like punts.
        62 CredentialsShown {
            /// Which.
            channel: u32,
            /// The text of the record.
            text: Bytes,
        },
        /// An inlet, in a dump. Beside it: a duplicate of its socket (one descriptor).
        70 Inlet {
            /// The dump.
            request: u64,
            /// Control's number for it.
            inlet: u32,
            /// Where its new connections go.
            way: Option<Bytes>,
            /// Connections that it has now.
            connections: u32,
            /// Its guard.
            guard: Option<Guard>,
            /// As given.
            cookie: Bytes,
        },
        /// A new connection of an inlet got no answer from its outlet in time. At most one a second and inlet.
        71 InletUnanswered {
            /// Which.
            inlet: u32,
        },
        /// The last answer to a dump.
        90 DumpEnd {
            /// The dump.
            request: u64,
        },
    }
}

/// What a channel carried since it was installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChannelTraffic {
    /// Messages sealed.
    pub sealed: u64,
    /// Messages opened.
    pub opened: u64,
    /// Records that were dropped: not genuine, not new, too far away.
    pub refused: u64,
}

impl crate::record::Field for ChannelTraffic {
    fn put(&self, out: &mut Vec<u8>) {
        for value in [self.sealed, self.opened, self.refused] {
            value.put(out);
        }
    }
    fn take(input: &mut &[u8]) -> Result<Self, crate::record::DecodeError> {
        Ok(ChannelTraffic { sealed: u64::take(input)?, opened: u64::take(input)?, refused: u64::take(input)? })
    }
}

/// What a link carried since it came up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Frames received.
    pub frames_in: u64,
    /// Frames queued for sending.
    pub frames_out: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
}

impl crate::record::Field for Traffic {
    fn put(&self, out: &mut Vec<u8>) {
        for value in [self.frames_in, self.frames_out, self.bytes_in, self.bytes_out] {
            value.put(out);
        }
    }
    fn take(input: &mut &[u8]) -> Result<Self, crate::record::DecodeError> {
        Ok(Traffic {
            frames_in: u64::take(input)?,
            frames_out: u64::take(input)?,
            bytes_in: u64::take(input)?,
            bytes_out: u64::take(input)?,
        })
    }
}
