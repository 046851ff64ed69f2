//! What a core asks of the kernel, and what comes back.
//!
//! The contract, which both drivers and the fake one of the tests keep:
//!
//! * A socket is named by a [`SocketId`] that the core chose. An index is used again only after [`Done::Closed`], which
//!   is the last thing said about an id: afterwards nothing in the kernel refers to it.
//! * Bytes arrive in slots that the core provided. Such a slot comes back by [`Done::Received`] and in no other way; one
//!   that was given for a single receive ([`Driver::receive_into`]) by [`Done::Filled`].
//! * At most one send per socket is in flight. Its segments stay with the core, untouched, until [`Done::Sent`].
//! * A call never fails: what goes wrong comes back as a `Done`.
//! * After [`Driver::close`] or [`Driver::abort`] only the [`Done::Sent`] of a send in flight, an empty [`Done::Filled`]
//!   and [`Done::Closed`] follow: bytes and connections that arrived meanwhile are dropped, their slots stay provided.
//! * Links and listeners are adopted by [`Driver::adopt`], the connections of applications (portals) by
//!   [`Driver::adopt_stream`]. A stream that ends in any way but [`Driver::close`] ends with a reset, also when the
//!   process is killed: its application must never take a truncated stream for a whole one.
//! * Whether a descriptor is in non-blocking mode is the driver's affair; it sets what it needs when it adopts one.

use super::pool::{Segment, Slot};
use ockam_engine_abi::notice::Driver as DriverKind;
use rustix::io::Errno;
use rustix::net::SocketAddrAny;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::OwnedFd;

/// A socket of a core: index in the core's slab and which use of it this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SocketId {
    /// Below [`crate::config::SOCKETS_MAX`].
    pub index: u32,
    /// Wraps at 2^24 in a driver's `user_data`.
    pub generation: u32,
}

/// Why receiving stopped. It starts again only by [`Driver::receive`] or [`Driver::receive_once`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiveEnd {
    /// The peer will send no more.
    Eof,
    /// The connection failed.
    Failed(Errno),
    /// No slot was left to receive into. Nothing is lost: the bytes wait in the socket.
    NoSlots,
    /// [`Driver::pause`] asked for it.
    Paused,
}

/// Something happened.
#[derive(Debug)]
pub enum Done {
    /// A listener has a new connection. It goes on accepting.
    Accepted {
        /// Which listener.
        listener: SocketId,
        /// Close-on-exec.
        socket: OwnedFd,
    },
    /// Accepting failed and stopped; [`Driver::accept`] starts it again. `ECANCELED`: [`Driver::pause`] asked for it.
    AcceptFailed {
        /// Which listener.
        listener: SocketId,
        /// Why.
        errno: Errno,
    },
    /// The answer to [`Driver::connect`].
    Connected {
        /// Which socket.
        socket: SocketId,
        /// The address of this side as [`super::sockets::local_addr`] gives it. It is read here because a connected
        /// socket may be out of the process's reach: the ring holds it.
        result: Result<SocketAddr, Errno>,
    },
    /// Bytes: the first `length` of the slot's body, at least one. After [`Driver::receive`] more may follow without
    /// being asked for, after [`Driver::receive_once`] not.
    Received {
        /// Which socket.
        socket: SocketId,
        /// Now the core's; [`super::pool::Pool::returned`] must be told.
        slot: Slot,
        /// How many bytes.
        length: usize,
    },
    /// The answer to [`Driver::receive_into`].
    Filled {
        /// Which socket.
        socket: SocketId,
        /// The core's again.
        slot: Slot,
        /// How many bytes of the room are filled. When none, [`Done::ReceiveEnded`] says why, unless the socket is being
        /// closed.
        length: usize,
    },
    /// Receiving stopped.
    ReceiveEnded {
        /// Which socket.
        socket: SocketId,
        /// Why.
        end: ReceiveEnd,
    },
    /// A send ended. Fewer bytes than asked for, without an error, may be sent: the core sends the rest.
    Sent {
        /// Which socket.
        socket: SocketId,
        /// Bytes taken by the kernel.
        result: Result<usize, Errno>,
    },
    /// The socket is closed and its index may be used again.
    Closed {
        /// Which socket.
        socket: SocketId,
    },
    /// Another thread used the core's [`super::waker::Waker`].
    Woken,
}

/// When [`Driver::wait`] gives the answer to a send.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Answer {
    /// When the send has ended.
    #[default]
    AtOnce,
    /// If all of it could be sent at once, with whatever happens next: no wait ends for that alone, which spares every
    /// request and every response one of two calls. If not, as [`Answer::AtOnce`].
    WithTheNext,
}

/// No limit for [`Driver::wait`].
pub const FOREVER: u64 = u64::MAX;

/// The kernel, as a core sees it.
pub trait Driver {
    /// Which one it is.
    fn kind(&self) -> DriverKind;

    /// Takes a socket: listening, connected, or about to be connected. Its options are set.
    fn adopt(&mut self, id: SocketId, socket: OwnedFd);

    /// Takes a socket that belongs to an application, TCP or Unix: connected, or about to be connected. Besides what
    /// [`Driver::adopt`] does, whatever ends it but [`Driver::close`] resets it from now on, also the end of the process.
    /// Unix sockets know no reset: their peer sees the end, and a failure only when it had sent what was not received.
    fn adopt_stream(&mut self, id: SocketId, socket: OwnedFd);

    /// Starts accepting on a listening socket. Does nothing if it is on; revokes a pause that has not ended.
    fn accept(&mut self, id: SocketId);

    /// Connects; answered by [`Done::Connected`]. A Unix socket whose backlog is full gives `EAGAIN` at once, for there
    /// is nothing that could be waited for.
    fn connect(&mut self, id: SocketId, target: impl Into<SocketAddrAny>);

    /// Starts receiving. Does nothing if it is on; revokes a pause that has not ended, which then never does.
    fn receive(&mut self, id: SocketId);

    /// Receives once, as much as the body of one slot holds: answered by exactly one [`Done::Received`] or
    /// [`Done::ReceiveEnded`], and then over. [`Driver::pause`] before the answer makes it
    /// [`ReceiveEnd::Paused`] unless bytes were faster; asked for again before that, it goes on. Never while
    /// [`Driver::receive`] is on, nor the other way round.
    fn receive_once(&mut self, id: SocketId);

    /// Stops receiving. [`Done::Received`] may still come before the [`Done::ReceiveEnded`] that ends it. A listener
    /// stops accepting: connections wait in its backlog. Does nothing if neither is on.
    fn pause(&mut self, id: SocketId);

    /// Sends from the front of `segments` as many as one vectored send takes; answered by [`Done::Sent`], when `answer`
    /// says.
    fn send<'a>(&mut self, id: SocketId, segments: impl Iterator<Item = &'a Segment>, answer: Answer);

    /// As [`Driver::receive_once`], but into `room` of this slot, which is answered by [`Done::Filled`] in any case and
    /// never ends for want of slots. Not asked again before it has ended.
    ///
    /// # Panics
    /// When the room is empty or outside the slot, or begins before the end of a range that is shared as a segment.
    fn receive_into(&mut self, id: SocketId, slot: Slot, room: Range<usize>);

    /// Says to the peer of a stream ([`Driver::adopt_stream`]) that no more will be sent. Only when no send is in flight.
    /// There is no answer: on a connection that failed, receiving tells.
    fn shutdown(&mut self, id: SocketId);

    /// Ends whatever is under way on the socket and closes it; answered by [`Done::Closed`], possibly after other
    /// answers about the same socket. The kernel still delivers what was sent and then the end. (TCP makes that a reset
    /// when the peer had sent what was not received.)
    fn close(&mut self, id: SocketId);

    /// As [`Driver::close`], but the peer of the stream ([`Driver::adopt_stream`]) sees a reset, and what it has not
    /// received yet is lost.
    fn abort(&mut self, id: SocketId);

    /// Lends the kernel a slot to receive into; at most [`crate::config::KERNEL_SLOTS_MAX`] at a time.
    ///
    /// # Panics
    /// When the slot is large, when part of it was shared as a segment (such a slot goes back by
    /// [`super::pool::Pool::put`] first), or when the driver has too many.
    fn provide(&mut self, slot: Slot);

    /// Takes back a slot that was provided and not used. `None` when there is none, or none that can be taken back now.
    fn withdraw(&mut self) -> Option<Slot>;

    /// Slots that the kernel has.
    fn provided(&self) -> usize;

    /// Submits what was asked, waits until something happens, or for nothing and no longer than `until_ms`, and appends it
    /// all. Both times are in milliseconds of [`crate::clock`]: now, which need not be read anew, and when to be back. One
    /// that is not later than now only looks, [`FOREVER`] is no limit.
    ///
    /// # Errors
    /// Only what makes the driver useless; the core stops.
    fn wait(&mut self, now_ms: u64, until_ms: u64, burst: &mut Vec<Done>) -> io::Result<()>;
}
