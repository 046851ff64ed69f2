//! What an engine is started with, and its limits. A size is a sum with named terms.

use ockam_wire::FRAME_MAX;
use std::path::PathBuf;
use std::time::Duration;

/// What an engine process is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node's directory; `engine.sock` and `engine.lock` are made there.
    pub node_dir: PathBuf,
    /// Which driver to use.
    pub driver: DriverChoice,
    /// Number of cores (threads); by default what the process may really use, at most [`THREADS_DEFAULT_MAX`].
    pub threads: Option<u8>,
    /// Pin core n to the n-th CPU of the process's affinity mask.
    pub pin: bool,
    /// Bytes by which the windows of all portal connections together may grow above [`PORTAL_WINDOW_MIN`] each; by default
    /// [`PORTAL_MEMORY`]. It is what may wait in this node's memory for applications that stop taking.
    pub portal_memory: Option<u64>,
}

/// Which I/O driver to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DriverChoice {
    /// io_uring, or epoll on any error of the ring.
    #[default]
    Auto,
    /// io_uring or nothing.
    Uring,
    /// epoll.
    Epoll,
}

impl std::str::FromStr for DriverChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "uring" => Ok(Self::Uring),
            "epoll" => Ok(Self::Epoll),
            other => Err(format!("`{other}` is not a driver: use auto, uring or epoll")),
        }
    }
}

impl std::fmt::Display for DriverChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Epoll => "epoll",
        })
    }
}

/// Threads are not chosen above this by default; `--threads` may.
pub const THREADS_DEFAULT_MAX: u8 = 4;
/// Most cores of an engine.
pub const THREADS_MAX: u8 = 64;

/// Room in front of what is received into a slot. The unfinished frame that came before is copied there, so that every
/// frame of up to this many bytes lies in one piece. Stock portals send frames of 128 KiB + 164 bytes (`wire.md` M.1).
pub const SLOT_HEAD: usize = 136 * 1024;
/// Bytes of a slot that one receive can fill.
pub const SLOT_BODY: usize = 128 * 1024;
/// Most that is received of an application at once. With what comes in front of and behind it on a link, it makes two
/// segments of a loopback interface (65,483 bytes each): a few bytes more would be a third one, which costs as much.
pub const STREAM_RECEIVE_MAX: usize = SLOT_BODY - 512;
/// Room behind it, for what grows at the end (padding and tag of a sealed frame, the tracing text).
pub const SLOT_TAIL: usize = 4 * 1024;
/// Address space of a slot.
pub const SLOT_BYTES: usize = SLOT_HEAD + SLOT_BODY + SLOT_TAIL;

/// Slots that the kernel may hold to receive into: it starts with few, so that hot ones stay in the cache (it uses them
/// in turn; with 16 a relay of 64 KiB frames cost a fifth more), and grows when the kernel runs out.
pub const KERNEL_SLOTS_MIN: usize = 4;
/// See [`KERNEL_SLOTS_MIN`]. A power of two: it is also the size of the ring of provided buffers.
pub const KERNEL_SLOTS_MAX: usize = 64;
/// Free slots that are not lent to the kernel, so that what was received can leave.
pub const SENDING_SLOTS_MIN: usize = 16;
/// Unfinished frames that may keep their slot; others are copied out to a buffer of their size.
pub const HELD_PARTIALS_MAX: usize = 64;
/// Slots that wait to be sent, over all links of a core.
pub const EGRESS_SLOTS_MAX: usize = 448;
/// Slots of a core: in the kernel + unfinished frames + waiting to be sent.
pub const SLOTS: usize = KERNEL_SLOTS_MAX + HELD_PARTIALS_MAX + EGRESS_SLOTS_MAX;

/// A large slot holds one frame that does not fit [`SLOT_HEAD`]: address space for the largest, committed as bytes
/// arrive.
pub const LARGE_SLOT_BYTES: usize = 4 + FRAME_MAX + 64 * 1024;
/// Large slots of a core.
pub const LARGE_SLOTS: usize = 32;
/// Bytes of unfinished frames in large slots and copied partials, over all cores. Beyond it the link whose frame has
/// waited longest is closed.
pub const ASSEMBLY_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Frames up to this size are copied into the slot that collects what goes out on a link: below it a copy is cheaper
/// than one more element of a vectored send and a pinned slot.
pub const COPY_MAX: usize = 4096;
/// A link that has this many segments waiting gets larger payloads copied, too, so that frames which came one by one do
/// not each keep a slot.
pub const SEGMENTS_SHARED_MAX: usize = 32;
/// A link that has this many bytes waiting to be sent is full; what feeds it stops reading.
pub const EGRESS_HIGH: usize = 1024 * 1024;
/// A full link takes frames again below this.
pub const EGRESS_LOW: usize = 256 * 1024;
/// A link that sends no more than this at once need not hear when that is done. What is larger keeps slots that others
/// may wait for.
pub const ANSWER_WAITS_BYTES: usize = 64 * 1024;
/// Most elements of one vectored send.
pub const SEND_SEGMENTS_MAX: usize = 64;

/// What a portal connection between our nodes may be sent before its application has taken anything, in bytes. One
/// payload may end beyond it, so that it keeps at most twice this.
pub const PORTAL_WINDOW_MIN: u32 = 128 * 1024;
/// The most by which what it is sent may be ahead of what its application has taken.
pub const PORTAL_WINDOW_MAX: u32 = 16 * 1024 * 1024;
/// See [`Config::portal_memory`].
pub const PORTAL_MEMORY: u64 = 256 * 1024 * 1024;
/// A portal connection that has this much waiting in slots gets the rest copied to memory of its own.
pub const PORTAL_QUEUE_MAX: usize = 512 * 1024;
/// The same in segments.
pub const PORTAL_QUEUE_SEGMENTS: usize = 8;
/// How much of that memory is sent at once; [`COPY_MAX`] while slots are short, so that a thousand applications that take
/// nothing hold few.
pub const PORTAL_PIECE_MAX: usize = 64 * 1024;

/// Links of one core.
pub const LINKS_MAX: usize = 16 * 1024;
/// Listeners of a node.
pub const LISTENERS_MAX: usize = 63;
/// Inlets of a node.
pub const INLETS_MAX: usize = 1024;
/// Sockets of one core that listen. Their indices come first: a driver's table reaches to the highest that was in use.
pub const LISTENER_SOCKETS: usize = LISTENERS_MAX + INLETS_MAX + 1;
/// Sockets of one core: those, and its links behind them.
pub const SOCKETS_MAX: usize = LISTENER_SOCKETS + LINKS_MAX;
/// Portal connections of one core; the rest of [`LINKS_MAX`] is for links.
pub const PORTALS_MAX: usize = LINKS_MAX - 2048;
/// Connections of one inlet that wait for a way.
pub const INLET_WAITING_MAX: usize = 1024;
/// Bytes of the routes that a portal connection keeps.
pub const PORTAL_HEAD_MAX: usize = 4096;
/// Addresses of a relay's way.
pub const RELAY_WAY_MAX: usize = 32;
/// Local addresses that control may set.
pub const ADDRESSES_MAX: usize = 64 * 1024;
/// Channels of a node.
pub const CHANNELS_MAX: usize = 64 * 1024;
/// Bytes that wait for the install of one channel.
pub const PARKED_BYTES: usize = 256 * 1024;
/// Bytes that wait for installs, over all channels and cores.
pub const PARKED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Channels that one message may come out of, or go into, on its way through this node.
pub const LAYERS_MAX: usize = 8;
/// A channel that got so many records which were not genuine is ended.
pub const FORGED_RECORDS_MAX: u64 = 1 << 20;
/// A responder whose link is gone waits so long for the peer to come by another one.
pub const ORPHAN_LIMIT: Duration = Duration::from_secs(30);
/// Transit links that one ingress link may hold (`architecture.md`, Transit).
pub const TRANSIT_LINKS_MAX: usize = 64;
/// Frames in flight between two cores.
pub const CROSS_QUEUE: usize = 1024;
/// Answers and punts in flight from one core to the attendant.
pub const NOTICE_QUEUE: usize = 1024;
/// Longest head (length, routes, payload head) of a frame that goes out.
pub const HEAD_BYTES_MAX: usize = 32 * 1024;

/// The preamble of an accepted link must arrive within this.
pub const PREAMBLE_LIMIT: Duration = Duration::from_secs(10);
/// A dialed address must be a node within this: resolution, connection and preamble.
pub const DIAL_LIMIT: Duration = Duration::from_secs(5);
/// An outlet must answer a new connection within this: it dials its targets, [`DIAL_LIMIT`] for each.
pub const PONG_LIMIT: Duration = Duration::from_secs(20);
/// A frame must be complete within this and one second per [`FRAME_RATE_MIN`] bytes of its length.
pub const FRAME_LIMIT: Duration = Duration::from_secs(10);
/// Bytes per second, see [`FRAME_LIMIT`].
pub const FRAME_RATE_MIN: u64 = 64 * 1024;
/// A link that takes nothing of what waits for it is closed after this.
pub const SEND_LIMIT: Duration = Duration::from_secs(30);
/// A core that waits for grants to expire looks at the time this often: what it waits by may stand still while the machine
/// sleeps.
pub const GRANTS_INTERVAL: Duration = Duration::from_secs(5);
/// How often deadlines are looked at and idle memory is given back.
pub const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

/// Punts that one link may cause at once, and per second.
pub const PUNT_BURST: u32 = 256;
/// See [`PUNT_BURST`].
pub const PUNTS_PER_SECOND: u32 = 512;
/// Punts of all links that wait for control to read them.
pub const PUNTS_WAITING_MAX: usize = 256;
/// A punt of so many bytes is taken even when many wait, if it is its link's only one: a handshake's message.
pub const PUNT_SMALL: usize = 4096;
/// Bytes of new credentials that the peer of a channel shows, or control: a history and a few credentials.
pub const CREDENTIALS_BYTES_MAX: usize = 64 * 1024;
/// Undeliverable notices that one link may cause at once, and per second.
pub const NOTICE_BURST: u32 = 64;
/// See [`NOTICE_BURST`].
pub const NOTICES_PER_SECOND: u32 = 64;

const _: () = assert!(KERNEL_SLOTS_MAX.is_power_of_two() && KERNEL_SLOTS_MIN <= KERNEL_SLOTS_MAX);
const _: () = assert!(SLOT_BYTES.is_multiple_of(4096) && SLOT_HEAD > 128 * 1024 + 164);
const _: () = assert!(PORTAL_WINDOW_MIN as usize == SLOT_BODY && PORTAL_PIECE_MAX <= SLOT_BODY);
const _: () = assert!(COPY_MAX + HEAD_BYTES_MAX <= SLOT_BODY);
