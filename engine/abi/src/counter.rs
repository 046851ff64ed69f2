//! Counters: one sealed memfd, one block of `u64` per core. The engine maps and writes it, everybody else reads it with
//! `pread` and never maps it, so a reader can neither be torn down by a shrinking file nor disturb a writer.

use crate::reason::{CloseReason, DropReason};
use std::os::fd::AsFd;

macro_rules! counters {
    ($($(#[$meta:meta])* $variant:ident $name:literal $kind:ident,)*) => {
        /// One counter of a core. Values only grow, except where [`Counter::is_gauge`] says that they are levels.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Counter { $($(#[$meta])* $variant,)* }

        impl Counter {
            /// All counters, in the order of their place in a block.
            pub const ALL: &'static [Counter] = &[$(Counter::$variant,)*];

            /// The stable name.
            pub fn name(self) -> &'static str {
                match self { $(Counter::$variant => $name,)* }
            }

            /// Whether the value is a level rather than a sum.
            pub fn is_gauge(self) -> bool {
                match self { $(Counter::$variant => counters!(@ $kind),)* }
            }
        }
    };
    (@ sum) => { false };
    (@ gauge) => { true };
}

counters! {
    /// Links that peers opened.
    LinksAccepted "links_accepted" sum,
    /// Links that this node opened.
    LinksDialed "links_dialed" sum,
    /// Links now open.
    LinksOpen "links_open" gauge,
    /// `accept` failed (descriptors, memory).
    AcceptErrors "accept_errors" sum,
    /// Frames received whole.
    FramesIn "frames_in" sum,
    /// Frames queued for sending.
    FramesOut "frames_out" sum,
    /// Bytes received on links.
    BytesIn "bytes_in" sum,
    /// Bytes sent on links.
    BytesOut "bytes_out" sum,
    /// Frames passed from one link to another.
    FramesRelayed "frames_relayed" sum,
    /// Frames answered by a built-in service.
    FramesServed "frames_served" sum,
    /// Messages sealed for channels.
    RecordsSealed "records_sealed" sum,
    /// Messages opened that came through channels.
    RecordsOpened "records_opened" sum,
    /// Messages that waited for the install of their channel.
    RecordsParked "records_parked" sum,
    /// New credentials that came through channels and were handed to control.
    RefreshesPassed "refreshes_passed" sum,
    /// Connections of applications that inlets accepted.
    PortalsAccepted "portals_accepted" sum,
    /// Connections that outlets opened to their targets.
    PortalsDialed "portals_dialed" sum,
    /// Portal connections now open, also those that are not established yet.
    PortalsOpen "portals_open" gauge,
    /// Bytes received from applications.
    PortalBytesIn "portal_bytes_in" sum,
    /// Bytes sent to applications.
    PortalBytesOut "portal_bytes_out" sum,
    /// Times a portal connection was not read because its other end had no credit for it.
    PortalsWaited "portals_waited" sum,
    /// Bytes that wait for applications outside of slots, because these do not take them.
    PortalBytesKept "portal_bytes_kept" gauge,
    /// Frames with an empty onward route (`wire.md` A.6).
    Heartbeats "heartbeats" sum,
    /// Frames handed to control.
    Punts "punts" sum,
    /// Frames handed to a link of another core.
    CrossCoreFrames "cross_core_frames" sum,
    /// Undeliverable notices sent to peers.
    NoticesSent "notices_sent" sum,
    /// Undeliverable notices not sent, because of their rate or size.
    NoticesWithheld "notices_withheld" sum,
    /// Times a link's reading was stopped because what it feeds was full.
    Pauses "pauses" sum,
    /// Times the kernel found no slot to receive into.
    NoBuffers "no_buffers" sum,
    /// Bytes of frames copied: small payloads on their way out, unfinished frames, large frames being assembled.
    BytesCopied "bytes_copied" sum,
    /// Passes through the core's loop.
    Ticks "ticks" sum,
    /// Slots on the free list.
    SlotsFree "slots_free" gauge,
    /// Slots that the kernel receives into.
    SlotsKernel "slots_kernel" gauge,
    /// Slots that hold frames.
    SlotsCore "slots_core" gauge,
    /// Large slots in use, each assembling or sending one frame above the size of a slot.
    LargeSlotsUsed "large_slots_used" gauge,
    /// Bytes committed to large slots and copied partial frames.
    AssemblyBytes "assembly_bytes" gauge,
}

/// Number of `u64` in the block of one core.
pub const BLOCK_WORDS: usize = Counter::ALL.len() + 2 * REASONS_MAX;

/// Room for reasons of each kind; the reason's number is its place.
const REASONS_MAX: usize = 32;

/// Where in a block a counter is.
pub trait Place: Copy {
    /// Index of the `u64` in the block.
    fn place(self) -> usize;
}

impl Place for Counter {
    fn place(self) -> usize {
        self as usize
    }
}

impl Place for DropReason {
    fn place(self) -> usize {
        Counter::ALL.len() + self as usize
    }
}

impl Place for CloseReason {
    fn place(self) -> usize {
        Counter::ALL.len() + REASONS_MAX + self as usize
    }
}

const _: () = assert!(DropReason::ALL.len() <= REASONS_MAX && CloseReason::ALL.len() < REASONS_MAX);

/// A reading of all counters at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters {
    words: Vec<u64>,
}

impl Counters {
    /// Reads the blocks of `cores` cores.
    ///
    /// # Errors
    /// What `pread` says; `UnexpectedEof` when the file is shorter than `cores` blocks.
    pub fn read(memfd: impl AsFd, cores: usize) -> std::io::Result<Counters> {
        let mut bytes = vec![0; cores * BLOCK_WORDS * 8];
        let mut filled = 0;
        while filled < bytes.len() {
            match rustix::io::pread(&memfd, &mut bytes[filled..], filled as u64)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
        }
        let words = bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes"))).collect();
        Ok(Counters { words })
    }

    /// How many cores were read.
    pub fn cores(&self) -> usize {
        self.words.len() / BLOCK_WORDS
    }

    /// The value on one core.
    pub fn of_core(&self, core: usize, place: impl Place) -> u64 {
        self.words[core * BLOCK_WORDS + place.place()]
    }

    /// The sum over all cores.
    pub fn total(&self, place: impl Place) -> u64 {
        (0..self.cores()).map(|core| self.of_core(core, place)).sum()
    }
}
