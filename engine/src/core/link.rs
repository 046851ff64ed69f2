//! A link: one TCP connection to another node, after (or on the way to) its preamble; or one of an application, whose
//! bytes are what a portal's messages say.

use super::familiar::Familiar;
use super::portals::Portal;
use crate::config::{EGRESS_HIGH, EGRESS_LOW, NOTICE_BURST, PUNT_BURST};
use crate::io::driver::SocketId;
use crate::io::pool::{Segment, Slot};
use crate::path::bucket::Bucket;
use crate::path::channel::Channel;
use crate::path::tables::{LinkAddress, Replies};
use ockam_engine_abi::notice::Traffic;
use ockam_engine_abi::{CloseReason, LinkId};
use ockam_wire::undeliverable::Offer;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

/// What a link waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Control resolves its name.
    ExpectAddresses,
    /// The kernel connects it.
    ExpectConnection,
    /// The driver's last word on a socket that did not connect; another address is tried then.
    ExpectNextAddress,
    /// A portal's outlet answers.
    ExpectPong,
    /// The peer's version byte (`wire.md` A.1). Nothing but ours is sent before it.
    ExpectPreamble,
    /// Frames.
    Up,
    /// The peer sends no more; what waits for it is still sent.
    Flushing(CloseReason),
    /// The driver's last word.
    Closing,
}

/// How a link came to be, and whom that concerns.
#[derive(Debug)]
pub enum Origin {
    /// A peer opened it.
    Accepted {
        /// Control's number of the listener.
        listener: u32,
    },
    /// Control asked for it.
    Dialed {
        /// Answered when it is up or failed.
        request: Option<u64>,
        /// As given.
        cookie: Box<[u8]>,
    },
    /// A route asked for it.
    Transit(Box<Transit>),
    /// It is the connection of an application.
    Portal(Box<Portal>),
}

/// A link that a route asked for.
#[derive(Debug)]
pub struct Transit {
    /// The link that the route came in on.
    pub ingress: LinkId,
    /// The channel that it came out of.
    pub channel: Option<Arc<Channel>>,
    /// The TCP address as routes have it.
    pub name: Box<[u8]>,
    /// Resolved addresses still to try.
    pub candidates: VecDeque<SocketAddr>,
    /// Whom to tell when it fails: frames that wait for it and offered to be told.
    pub undeliverable: Vec<Waiting>,
}

/// What the peer of a link had this node do for it.
#[derive(Debug)]
pub struct Demands {
    /// Transit links that were opened for it.
    pub transit: Vec<LinkId>,
    /// What it may punt.
    pub punts: Bucket,
    /// What it punted and control has not been given yet.
    pub punts_waiting: u32,
    /// What it may be told.
    pub notices: Bucket,
}

impl Default for Demands {
    fn default() -> Self {
        let (punts, notices) = (Bucket::new(PUNT_BURST, 0), Bucket::new(NOTICE_BURST, 0));
        Demands { transit: Vec::new(), punts, punts_waiting: 0, notices }
    }
}

/// A frame that waits for a transit link and offered to be told if it does not leave.
#[derive(Debug)]
pub struct Waiting {
    /// The offer.
    pub offer: Offer,
    /// How many onward addresses were left.
    pub left: u8,
    /// The encoded addresses of the way back from the ingress link: a message of its own, with only an onward route.
    pub way_back: Box<[u8]>,
}

/// Bytes of a frame that is not complete.
#[derive(Debug, Default)]
pub enum Partial {
    /// None.
    #[default]
    None,
    /// In the slot that they were received in.
    Held(Slot, Range<usize>),
    /// In [`Ingest::copied`].
    Copied,
    /// In a large slot, from its beginning.
    Large {
        /// The slot.
        slot: Slot,
        /// Bytes so far.
        filled: usize,
        /// Bytes when complete.
        total: usize,
    },
    /// In a slot that the driver receives into.
    Lent {
        /// Where in it. Empty when the next frame has not begun.
        kept: Range<usize>,
        /// In a large slot, how many bytes when complete.
        large: Option<usize>,
    },
}

/// Whether the driver receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receiving {
    /// No.
    Off,
    /// Yes.
    On,
    /// Until it says that it stopped.
    Stopping,
}

/// The receiving side.
#[derive(Debug)]
pub struct Ingest {
    /// Whether the driver receives.
    pub receiving: Receiving,
    /// Whether what this link feeds is full, so that nothing is read.
    pub blocked: bool,
    /// Received and not looked at yet, in order.
    pub parked: VecDeque<(Slot, Range<usize>)>,
    /// Bytes of a frame that is not complete.
    pub partial: Partial,
    /// Where [`Partial::Copied`] bytes are; its room is kept for the next.
    pub copied: Vec<u8>,
    /// Bytes of the largest frame, its length included, among those that came last; of an unfinished one what has come.
    pub frame_bytes: usize,
    /// When the frame that is not complete began, in milliseconds of the clock.
    pub frame_began_ms: u64,
    /// The frame that is read again when nothing blocks any more was opened already: the channel that it came through, and
    /// where in its slot the message inside is.
    pub opened: Option<Box<(Arc<Channel>, Range<usize>)>>,
    /// The connection that the latest records were for.
    pub(super) familiar: Familiar,
    /// The peer sends no more; acted upon when everything parked was looked at.
    pub ended: Option<CloseReason>,
}

impl Ingest {
    /// Bytes of the frame that is not complete.
    pub fn partial_len(&self) -> usize {
        match &self.partial {
            Partial::None => 0,
            Partial::Held(_, range) => range.len(),
            Partial::Copied => self.copied.len(),
            Partial::Large { filled, .. } => *filled,
            Partial::Lent { kept, .. } => kept.len(),
        }
    }

    /// Whether less of the frame has come than at `rate` bytes per second since it began, but for the first `grace_ms`.
    pub fn is_late(&self, now_ms: u64, grace_ms: u64, rate: u64) -> bool {
        let due_ms = grace_ms + self.partial_len() as u64 * 1000 / rate;
        self.partial_len() > 0 && now_ms >= self.frame_began_ms + due_ms
    }

    /// At how many bytes per second the frame that is not complete has come.
    pub fn rate(&self, now_ms: u64) -> u64 {
        self.partial_len() as u64 * 1000 / now_ms.saturating_sub(self.frame_began_ms).max(1)
    }
}

/// The sending side.
#[derive(Debug, Default)]
pub struct Egress {
    /// What waits to be sent, in order; a send in flight covers the front.
    pub queue: VecDeque<Segment>,
    /// Bytes in the queue.
    pub bytes: usize,
    /// A send is in flight.
    pub sending: bool,
    /// The version byte has not been sent.
    pub preamble_unsent: bool,
    /// When the kernel last took something, or had nothing to take.
    pub progress_ms: u64,
    /// Bytes taken since `window_ms`, to know the rate.
    pub window_bytes: u64,
    /// See `window_bytes`.
    pub window_ms: u64,
    /// Links of this core that stopped reading because this one is full.
    pub waiters: Vec<LinkId>,
    /// Whether it was declared full.
    pub full: bool,
}

impl Egress {
    /// Whether it is time to say that it is full, or to take that back.
    pub fn turned_full(&mut self) -> Option<bool> {
        let turned = if self.full { self.bytes < EGRESS_LOW } else { self.bytes > EGRESS_HIGH };
        turned.then(|| {
            self.full = !self.full;
            self.full
        })
    }
}

/// See the module.
#[derive(Debug)]
pub struct Link {
    /// Its name towards control and the other cores.
    pub id: LinkId,
    /// Its name towards the driver.
    pub socket: SocketId,
    /// Whether the driver has its socket.
    pub adopted: bool,
    /// What it waits for.
    pub state: State,
    /// When it must have stopped waiting, in milliseconds of the clock.
    pub deadline_ms: u64,
    /// Its local address.
    pub address: LinkAddress,
    /// The peer.
    pub peer: SocketAddr,
    /// This side.
    pub local: SocketAddr,
    /// How it came to be.
    pub origin: Origin,
    /// Its flow control.
    pub flow_control: u8,
    /// What it carried.
    pub traffic: Traffic,
    /// The receiving side.
    pub ingest: Ingest,
    /// The sending side.
    pub egress: Egress,
    /// The places it may answer to.
    pub replies: Replies,
    /// What it had this node do for it; nothing is kept for the many that never do.
    pub asked: Option<Box<Demands>>,
    /// Whether it is on the list of links that have a deadline.
    pub attended: bool,
}

impl Link {
    /// What its peer had this node do for it.
    pub fn demands(&mut self) -> &mut Demands {
        self.asked.get_or_insert_default()
    }

    /// Whether frames come and go, or still go.
    pub fn is_open(&self) -> bool {
        self.state != State::Closing
    }

    /// Whether something about it must happen within some time.
    pub fn needs_attention(&self) -> bool {
        self.state != State::Up || self.egress.bytes > 0 || !matches!(self.ingest.partial, Partial::None)
    }
}
