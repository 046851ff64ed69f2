//! A secure channel as the engine sees it: keys, a window, two addresses, a way. Who is at its other end, only control
//! knows.
//!
//! Every core may open records (they are numbered, and the window takes them in any order within 32). Sealing gives out
//! the numbers, so it happens where the records leave: on the core of the link that the way begins with.

use crate::path::bucket::Bucket;
use crate::path::guard::Granted;
use crate::path::tables::{Name, Replies, ReplyKey};
use ockam_crypto::{Opener, Sealer};
use ockam_engine_abi::LinkId;
use ockam_wire::{AddressRef, FixedHead, LOCAL, Message, Route, RouteParts};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

/// See the module.
#[derive(Debug)]
pub struct Channel {
    /// Control's number for it.
    pub number: u32,
    /// The local name of its sending side: what the return routes of its messages begin with.
    pub encryptor: Box<[u8]>,
    /// The same, to compare; what control names has up to 32 bytes.
    pub name: Name,
    /// The local name of its receiving side.
    pub decryptor: Box<[u8]>,
    /// Stands for the encryptor among the places that a link may answer to.
    pub serial: u64,
    /// The flow control of what comes out of it.
    pub flow_control: u8,
    /// Whether its way follows the peer (`wire.md` E.5).
    pub follows_peer: bool,
    /// The guards that let pass what comes out of it.
    pub granted: Granted,
    sealing: Mutex<Sealing>,
    opening: Mutex<Opening>,
    /// The link that the way begins with, or [`NO_LINK`]: what other cores look at.
    egress: AtomicU64,
    ended: AtomicBool,
}

/// No link of this engine has this name: indices are below 2^24.
const NO_LINK: u64 = u64::MAX;

/// The sending half.
#[derive(Debug)]
pub struct Sealing {
    /// Numbers and seals.
    pub sealer: Sealer,
    /// Where sealed messages go.
    pub way: Way,
}

/// Where sealed messages go.
#[derive(Debug)]
pub struct Way {
    /// The name of the local address that it begins with: a link's, most often.
    pub first: Box<[u8]>,
    /// What is left of it on the wire.
    pub rest: FixedHead,
}

impl Way {
    /// The way along `onward`; `None` when it does not begin inside this node.
    pub fn new(onward: Route<'_>) -> Option<Way> {
        let (first, rest) = onward.split_first()?;
        (first.kind == LOCAL)
            .then(|| Way { first: first.name.into(), rest: FixedHead::new(rest.into(), RouteParts::EMPTY) })
    }

    /// All of it as a message that goes nowhere, as the ABI has it.
    pub fn to_message(&self) -> Vec<u8> {
        let rest = self.rest.onward();
        let onward = RouteParts { front: &[AddressRef::local(&self.first)], rest };
        let none = RouteParts::EMPTY;
        let message = ockam_wire::Outgoing { onward, return_route: none, payload_len: 0, tracing: None };
        message.to_frame(&[]).split_off(4)
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct Opening {
    /// Keys and window.
    pub opener: Opener,
    /// The places that the peer may answer to.
    pub replies: Replies,
    /// What the peer may have control do, and be told.
    pub punts: Bucket,
    /// See `punts`.
    pub notices: Bucket,
    /// Messages opened.
    pub opened: u64,
    /// Records dropped.
    pub refused: u64,
    /// Records that were not genuine.
    pub forged: u64,
    /// The highest nonce of a message that the way followed (`wire.md` E.5).
    followed: u64,
    /// By which link, and with which return route, that message came.
    seen: Option<(LinkId, Box<[u8]>)>,
}

impl Channel {
    /// A channel that has sealed and opened nothing.
    #[allow(clippy::too_many_arguments, reason = "each is a field, and there is one caller")]
    pub fn new(
        number: u32,
        (encryptor, decryptor): (Box<[u8]>, Box<[u8]>),
        serial: u64,
        flow_control: u8,
        follows_peer: bool,
        granted: Granted,
        (sealer, opener): (Sealer, Opener),
        way: Way,
        egress: Option<LinkId>,
        buckets: Bucket,
    ) -> Self {
        let replies = Replies::new();
        Channel {
            number,
            name: Name::of(&encryptor).expect("whoever installs a channel looked"),
            encryptor,
            decryptor,
            serial,
            flow_control,
            follows_peer,
            granted,
            sealing: Mutex::new(Sealing { sealer, way }),
            opening: Mutex::new(Opening {
                opener,
                replies,
                punts: buckets,
                notices: buckets,
                opened: 0,
                refused: 0,
                forged: 0,
                followed: 0,
                seen: None,
            }),
            egress: AtomicU64::new(egress.map_or(NO_LINK, |link| link.0)),
            ended: AtomicBool::new(false),
        }
    }

    /// The sending half. One core uses it at a time: the one that owns [`Self::egress`].
    pub fn sealing(&self) -> MutexGuard<'_, Sealing> {
        self.sealing.lock().expect("no holder panics")
    }

    /// The receiving half.
    pub fn opening(&self) -> MutexGuard<'_, Opening> {
        self.opening.lock().expect("no holder panics")
    }

    /// The link that the way begins with, if it begins with one.
    pub fn egress(&self) -> Option<LinkId> {
        let link = self.egress.load(Ordering::Acquire);
        (link != NO_LINK).then_some(LinkId(link))
    }

    /// What stands for the encryptor among the replies that a link admits.
    pub fn reply_key(&self) -> ReplyKey {
        ReplyKey::Set(self.serial)
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Ends it; true for the first who does.
    pub fn end(&self) -> bool {
        !self.ended.swap(true, Ordering::AcqRel)
    }

    /// A genuine message that is news came by `link`, whose local address is `address`; the outer message had the return
    /// route `back`. From now on the way is that one.
    pub fn follow(&self, opening: &mut Opening, link: LinkId, address: &[u8], back: Route<'_>) {
        opening.seen = Some((link, back.encoded().into()));
        let mut sealing = self.sealing();
        let Some(last) = sealing.way.rest.onward().iter().last() else { return };
        let addresses: Vec<AddressRef<'_>> = back.iter().chain([last]).collect();
        if addresses.len() < ockam_wire::ROUTE_MAX {
            let rest = FixedHead::new(RouteParts::new(&addresses), RouteParts::EMPTY);
            sealing.way = Way { first: address.into(), rest };
            self.egress.store(link.0, Ordering::Release);
        }
    }
}

impl Opening {
    /// Whether a genuine message with number `nonce` is newer than what the way followed before, and came by another way:
    /// by `link`, with a return route of these encoded addresses (`wire.md` E.5).
    pub fn is_news(&mut self, nonce: u64, link: LinkId, back: &[u8]) -> bool {
        let newer = nonce > self.followed;
        self.followed = self.followed.max(nonce);
        // Most have no return route at all. Comparing nothing with a library's comparison is slow: it loads, under a mask,
        // from where an empty slice points to.
        let is_same = |route: &[u8]| route.len() == back.len() && (back.is_empty() || *route == *back);
        newer && self.seen.as_ref().is_none_or(|(seen, route)| *seen != link || !is_same(route))
    }
}

/// More came before a channel was installed than waits for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMuch;

/// Messages that came for a channel which is not installed yet, on whatever core.
#[derive(Debug, Default)]
pub struct Handshake(Mutex<Waiting>);

/// A message that waits.
#[derive(Debug)]
pub struct Parked {
    /// The link that it came on.
    pub link: Option<LinkId>,
    /// The message, without its length.
    pub message: Box<[u8]>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// The message of the handshake came already.
    begun: bool,
    /// Too much came: the handshake is void.
    void: bool,
    /// What came behind it, in order, with the core on which it came.
    parked: Vec<(u8, Parked)>,
    /// Bytes of that.
    bytes: usize,
}

impl Handshake {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().expect("no holder panics")
    }

    /// Whether this is the first message that came: the handshake's own.
    pub fn begins(&self) -> bool {
        !std::mem::replace(&mut self.waiting().begun, true)
    }

    /// Keeps a message that came on `core`. `all` counts the bytes that wait for all channels.
    ///
    /// # Errors
    /// [`TooMuch`], when there are more than `limit` bytes of this channel, or than `limit_of_all`; nothing is kept from
    /// then on.
    pub fn park(
        &self,
        core: u8,
        parked: Parked,
        limit: usize,
        all: &AtomicUsize,
        limit_of_all: usize,
    ) -> Result<(), TooMuch> {
        let mut waiting = self.waiting();
        let length = parked.message.len();
        let fits = waiting.bytes + length <= limit && all.load(Ordering::Relaxed) + length <= limit_of_all;
        if waiting.void || !fits {
            waiting.void = true;
            waiting.parked.clear();
            all.fetch_sub(std::mem::take(&mut waiting.bytes), Ordering::Relaxed);
            return Err(TooMuch);
        }
        waiting.bytes += length;
        all.fetch_add(length, Ordering::Relaxed);
        waiting.parked.push((core, parked));
        Ok(())
    }

    /// Gives what came on `core` and keeps it no longer. What came on another core is that one's to carry: it alone knows
    /// what comes next over the same link, and keeps the order.
    ///
    /// # Errors
    /// [`TooMuch`], when too much had come.
    pub fn take(&self, core: u8, all: &AtomicUsize) -> Result<Vec<Parked>, TooMuch> {
        let mut waiting = self.waiting();
        let parked: Vec<_> = waiting.parked.extract_if(.., |(on, _)| *on == core).map(|(_, parked)| parked).collect();
        let bytes = parked.iter().map(|parked| parked.message.len()).sum();
        waiting.bytes -= bytes;
        all.fetch_sub(bytes, Ordering::Relaxed);
        if waiting.void { Err(TooMuch) } else { Ok(parked) }
    }

    /// Bytes that wait.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.waiting().bytes
    }
}

/// The way in a message of the ABI.
pub fn read_way(message: &[u8]) -> Option<Way> {
    let onward = Message::parse(message).ok()?.onward;
    (onward.len() <= ockam_wire::ROUTE_MAX).then(|| Way::new(onward)).flatten()
}
