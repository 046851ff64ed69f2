//! Slots: the memory of frames, from the completion that received one to the submission that sends it.
//!
//! ```text
//!   small   | head room 136 KiB | body 128 KiB | tail 4 KiB |     one receive fills the body
//!   large   | one frame of up to 16 MiB, written as it arrives   |
//!
//!                      provide                 received
//!        free list ───────────────► kernel ───────────────► core
//!            ▲                                               │  put: the core is done with the slot
//!            └───────────────────────────────────────────────┘  release: the last segment of it was sent
//! ```
//!
//! A slot has exactly one owner: the kernel, the core, or the free list; [`Pool::assert_conserved`] adds them up. Inside
//! the core a slot may be referred to by its one [`Slot`] handle and by any number of [`Segment`]s, ranges of it that
//! wait to be sent. A range that a segment covers is frozen: the handle can no longer write there, so a segment can be
//! read by the kernel, or by another core, while the handle fills the rest.
//!
//! Address space is reserved at start and committed when first written; [`Pool::give_back_unused`] and [`Pool::give_back_idle`] return it.

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
use std::io;
use std::ops::Range;
use std::ptr::NonNull;

/// Size and number of the slots of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes in front of the body.
    pub head: usize,
    /// Bytes that a receive may fill.
    pub body: usize,
    /// Bytes behind it.
    pub tail: usize,
    /// How many.
    pub count: usize,
}

impl Geometry {
    fn stride(&self) -> usize {
        (self.head + self.body + self.tail).next_multiple_of(4096)
    }
}

/// Names a slot among all pools of the process: core, kind, index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SlotId {
    /// The core whose pool it belongs to.
    pub core: u8,
    /// Whether it is a large slot.
    pub large: bool,
    /// Its index in that pool.
    pub index: u16,
}

/// The one handle of a slot that a core owns: who has it may write where no segment is.
#[derive(Debug)]
#[must_use = "a slot goes back by `Pool::put`, or to the kernel by `Driver::provide`"]
pub struct Slot {
    base: NonNull<u8>,
    size: u32,
    /// End of the last range that became a segment.
    frozen: u32,
    id: SlotId,
}

// SAFETY: a `Slot` is the only handle that writes to its memory; the memory is never unmapped.
unsafe impl Send for Slot {}

impl Slot {
    /// Which slot it is.
    pub fn id(&self) -> SlotId {
        self.id
    }

    /// The bytes of a range.
    ///
    /// # Panics
    /// When the range is outside the slot.
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.size as usize, "range outside the slot");
        // SAFETY: in bounds by the assertion, mapped and initialised (anonymous memory is zero). Nobody else writes:
        // writing needs `&mut` of this handle, and the kernel writes only to slots it owns.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(range.start), range.len()) }
    }

    /// The bytes of a range, to write.
    ///
    /// # Panics
    /// When the range is outside the slot, or begins before the end of a range that is shared as a segment.
    pub fn bytes_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        assert!(range.start <= range.end && range.end <= self.size as usize, "range outside the slot");
        assert!(range.start >= self.frozen as usize, "range is shared");
        // SAFETY: in bounds and not shared by the assertions; `&mut self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(range.start), range.len()) }
    }

    /// Bytes of the slot.
    pub fn size(&self) -> usize {
        self.size as usize
    }

    /// Where a range of it lies, for the kernel.
    ///
    /// # Panics
    /// When the kernel must not write there: the range is empty or outside the slot, or segments may refer to it.
    pub(super) fn room_to_lend(&self, room: Range<usize>) -> NonNull<u8> {
        assert!(room.start < room.end && room.end <= self.size as usize, "room outside the slot");
        assert!(room.start >= self.frozen as usize, "room is shared");
        // SAFETY: in bounds by the assertion.
        unsafe { self.base.add(room.start) }
    }

    /// Where its memory begins, for the kernel.
    ///
    /// # Panics
    /// When the kernel must not write to it: it is large, or segments may refer to it.
    pub(super) fn base_to_lend(&self) -> NonNull<u8> {
        assert!(!self.id.large && self.frozen == 0, "only a small slot that was not shared is lent");
        self.base
    }
}

/// A range of a slot that waits to be sent. It keeps the slot from being reused until [`Pool::release`].
#[derive(Debug)]
#[must_use = "a segment goes back by `Pool::release` of the pool that its slot belongs to"]
pub struct Segment {
    start: NonNull<u8>,
    length: u32,
    slot: SlotId,
}

// SAFETY: a segment only reads memory that nobody writes while the segment exists (`Slot::frozen`).
unsafe impl Send for Segment {}

impl Segment {
    /// Bytes left in it.
    pub fn len(&self) -> usize {
        self.length as usize
    }

    /// Whether no byte is left.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the range was in bounds when the segment was made, is frozen since, and `advance` only shrinks it.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length as usize) }
    }

    /// The slot that it keeps.
    pub fn slot(&self) -> SlotId {
        self.slot
    }

    /// Drops the first `count` bytes, which were sent.
    ///
    /// # Panics
    /// When fewer are left.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.len(), "more sent than there was");
        // SAFETY: stays within, or one past, the range of the segment by the assertion.
        self.start = unsafe { self.start.add(count) };
        self.length -= count as u32;
    }

    /// Extends this segment by `next` when that lies directly behind it in the same slot. Then `next` is left empty; it
    /// goes back like any other.
    pub fn take_in(&mut self, next: &mut Segment) -> bool {
        // SAFETY: one past the end of the segment's range, within or at the end of its slot.
        let end = unsafe { self.start.add(self.len()) };
        let behind = self.slot == next.slot && end == next.start;
        if behind {
            self.length += std::mem::take(&mut next.length);
        }
        behind
    }
}

/// The slots of one core.
#[derive(Debug)]
pub struct Pool {
    core: u8,
    small: Class,
    large: Class,
}

#[derive(Debug)]
struct Class {
    base: NonNull<u8>,
    geometry: Geometry,
    /// Free slots; the last one used is the first one taken, since it is still in the cache.
    free: Vec<u16>,
    /// Per slot: handle and segments that refer to it.
    refs: Box<[u32]>,
    /// Per slot: whether pages may be committed.
    touched: Box<[bool]>,
    in_kernel: usize,
    /// The shortest that the free list was since memory was last given back: what lies below was not used since.
    unused: usize,
}

// SAFETY: `base` is only used to make handles, and a pool is used by one core at a time.
unsafe impl Send for Class {}

impl Class {
    fn new(geometry: Geometry) -> io::Result<Self> {
        let length = geometry.stride() * geometry.count;
        // SAFETY: a new anonymous mapping aliases nothing. It is never unmapped: slots are in the kernel's hands and
        // in other cores', and the end of the process is the one moment when nobody refers to them.
        let base = unsafe {
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
            let base = mmap_anonymous(std::ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, flags)?;
            // One touched byte must not commit 2 MiB.
            let _ = madvise(base, length, Advice::LinuxNoHugepage);
            base
        };
        Ok(Class {
            base: NonNull::new(base.cast()).expect("mmap does not return null"),
            geometry,
            free: (0..geometry.count as u16).rev().collect(),
            refs: vec![0; geometry.count].into(),
            touched: vec![false; geometry.count].into(),
            in_kernel: 0,
            unused: 0,
        })
    }

    fn slot_base(&self, index: u16) -> NonNull<u8> {
        // SAFETY: `index` is below the count, so the result lies inside the mapping.
        unsafe { self.base.add(self.geometry.stride() * usize::from(index)) }
    }

    fn drop_ref(&mut self, index: u16) {
        let refs = &mut self.refs[usize::from(index)];
        *refs = refs.checked_sub(1).expect("a slot is released once per reference");
        if *refs == 0 {
            self.free.push(index);
        }
    }

    /// See [`Pool::give_back_unused`].
    fn give_back(&mut self, unused: usize) {
        self.unused = self.free.len();
        for &index in &self.free[..unused] {
            if std::mem::take(&mut self.touched[usize::from(index)]) {
                let base = self.slot_base(index).as_ptr().cast();
                // SAFETY: the slot is on the free list: no handle, no segment, not the kernel's.
                let _ = unsafe { madvise(base, self.geometry.stride(), Advice::LinuxDontNeed) };
            }
        }
    }
}

impl Pool {
    /// Reserves address space for the slots of core `core`.
    ///
    /// # Errors
    /// What `mmap` says.
    pub fn new(core: u8, small: Geometry, large: Geometry) -> io::Result<Self> {
        Ok(Pool { core, small: Class::new(small)?, large: Class::new(large)? })
    }

    /// Geometry of the small slots.
    pub fn small(&self) -> Geometry {
        self.small.geometry
    }

    /// Takes a small slot off the free list.
    pub fn take(&mut self) -> Option<Slot> {
        self.take_of(false)
    }

    /// Takes a large slot off the free list.
    pub fn take_large(&mut self) -> Option<Slot> {
        self.take_of(true)
    }

    fn class(&mut self, large: bool) -> &mut Class {
        if large { &mut self.large } else { &mut self.small }
    }

    fn take_of(&mut self, large: bool) -> Option<Slot> {
        let core = self.core;
        let class = self.class(large);
        let index = class.free.pop()?;
        class.unused = class.unused.min(class.free.len());
        debug_assert_eq!(class.refs[usize::from(index)], 0);
        class.refs[usize::from(index)] = 1;
        class.touched[usize::from(index)] = true;
        let size = class.geometry.stride() as u32;
        Some(Slot { base: class.slot_base(index), size, frozen: 0, id: SlotId { core, large, index } })
    }

    /// Makes a range of the slot a segment. From now on the handle cannot write before the end of that range.
    ///
    /// # Panics
    /// When the range is outside the slot or the slot is another core's.
    pub fn share(&mut self, slot: &mut Slot, range: Range<usize>) -> Segment {
        assert!(slot.id.core == self.core, "a slot is shared by its own pool");
        assert!(range.start <= range.end && range.end <= slot.size(), "range outside the slot");
        slot.frozen = slot.frozen.max(range.end as u32);
        self.class(slot.id.large).refs[usize::from(slot.id.index)] += 1;
        // SAFETY: in bounds by the assertion.
        let start = unsafe { slot.base.add(range.start) };
        Segment { start, length: range.len() as u32, slot: slot.id }
    }

    /// The core is done with the handle. The slot is free once no segment of it is left.
    pub fn put(&mut self, slot: Slot) {
        assert!(slot.id.core == self.core, "a slot goes back to its own pool");
        self.class(slot.id.large).drop_ref(slot.id.index);
    }

    /// If no segment of the slot is left, all of it can be written again. Says whether that is so.
    pub fn thaw(&mut self, slot: &mut Slot) -> bool {
        assert!(slot.id.core == self.core, "a slot belongs to its own pool");
        let sole = self.class(slot.id.large).refs[usize::from(slot.id.index)] == 1;
        if sole {
            slot.frozen = 0;
        }
        sole
    }

    /// A segment was sent or dropped.
    pub fn release(&mut self, segment: Segment) {
        assert!(segment.slot.core == self.core, "a segment goes back to its own pool");
        self.class(segment.slot.large).drop_ref(segment.slot.index);
    }

    /// A free slot for the kernel to receive into, if there is one.
    pub fn lend(&mut self) -> Option<Slot> {
        let slot = self.take()?;
        self.small.in_kernel += 1;
        Some(slot)
    }

    /// The kernel gave a lent slot back.
    pub fn returned(&mut self, slot: &Slot) {
        assert!(slot.id.core == self.core && !slot.id.large, "the kernel returns what it was lent");
        self.small.in_kernel = self.small.in_kernel.checked_sub(1).expect("the kernel returns a slot once");
    }

    /// Small slots: on the free list, in the kernel, with the core.
    pub fn census(&self) -> (usize, usize, usize) {
        let (free, kernel) = (self.small.free.len(), self.small.in_kernel);
        (free, kernel, self.small.geometry.count - free - kernel)
    }

    /// Large slots with the core.
    pub fn large_used(&self) -> usize {
        self.large.geometry.count - self.large.free.len()
    }

    /// Returns the memory of free slots that were not used since this was last called to the system. Later reads of them
    /// give zeros.
    pub fn give_back_unused(&mut self) {
        self.small.give_back(self.small.unused);
        self.large.give_back(self.large.unused);
    }

    /// Returns the memory of all free slots to the system.
    pub fn give_back_idle(&mut self) {
        self.small.give_back(self.small.free.len());
        self.large.give_back(self.large.free.len());
    }

    /// Asserts that every slot has exactly one owner, given how many the driver says the kernel has.
    pub fn assert_conserved(&self, in_kernel: usize) {
        assert!(
            self.small.in_kernel == in_kernel,
            "the kernel has {in_kernel}, the pool lent {}",
            self.small.in_kernel
        );
        let referenced = self.small.refs.iter().filter(|&&refs| refs > 0).count();
        assert!(referenced + self.small.free.len() == self.small.geometry.count, "a slot has no owner or two");
    }
}

/// Segments in the form that `sendmsg` takes. The driver boxes it, so that its address holds while a send is in flight.
#[derive(Debug)]
pub(super) struct Vector {
    parts: Box<[libc::iovec]>,
    header: libc::msghdr,
}

impl Vector {
    pub(super) fn new(capacity: usize) -> Self {
        let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: `msghdr` is plain data for which all zeros is a value: no name, no parts, no control data.
        let header = unsafe { std::mem::zeroed() };
        Vector { parts: vec![empty; capacity].into(), header }
    }

    /// Fills it from the front with as many segments as fit.
    ///
    /// # Panics
    /// When they hold no byte: a send of nothing is a mistake of the core.
    pub(super) fn fill<'a>(&mut self, segments: impl Iterator<Item = &'a Segment>) {
        let (mut used, mut total) = (0, 0);
        for (part, segment) in self.parts.iter_mut().zip(segments) {
            *part = libc::iovec { iov_base: segment.start.as_ptr().cast(), iov_len: segment.len() };
            total += segment.len();
            used += 1;
        }
        assert!(total > 0, "a send without bytes");
        self.header.msg_iov = self.parts.as_mut_ptr();
        self.header.msg_iovlen = used;
    }

    /// What `sendmsg` takes. It points into this vector and to the segments.
    pub(super) fn header(&self) -> &libc::msghdr {
        &self.header
    }

    /// The part, when there is only one.
    pub(super) fn single(&self) -> Option<libc::iovec> {
        (self.header.msg_iovlen == 1).then(|| self.parts[0])
    }
}
