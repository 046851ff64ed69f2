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
    /// Free slots; the last one used is the first one taken, since it is still in the cache. What the kernel receives into
    /// is kept apart from what a core has written to: a flood has many slots go through the kernel, a little in each,
    /// and would otherwise come to use all the memory of all of them.
    free: [FreeList; 2],
    /// Per slot: where it goes when it is free.
    purpose: Box<[Purpose]>,
    /// Per slot: handle and segments that refer to it.
    refs: Box<[u32]>,
    /// Per slot: whether pages may be committed.
    touched: Box<[bool]>,
    in_kernel: usize,
}

#[derive(Debug, Default)]
struct FreeList {
    slots: Vec<u16>,
    /// The shortest that it was since memory was last given back: what lies below was not used since.
    unused: usize,
}

/// What a slot was last taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// The kernel fills the body, or some of it.
    Receive = 0,
    /// The core fills all of it.
    Write = 1,
}

// SAFETY: `base` is only used to make handles, and a pool is used by one core at a time.
unsafe impl Send for Class {}

impl Class {
    fn new(geometry: Geometry) -> io::Result<Self> {
        let base = memory::reserve(geometry.stride() * geometry.count)?;
        Ok(Class {
            base,
            geometry,
            free: [FreeList { slots: (0..geometry.count as u16).rev().collect(), unused: 0 }, FreeList::default()],
            purpose: vec![Purpose::Receive; geometry.count].into(),
            refs: vec![0; geometry.count].into(),
            touched: vec![false; geometry.count].into(),
            in_kernel: 0,
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
            self.free[self.purpose[usize::from(index)] as usize].slots.push(index);
        }
    }

    fn free_count(&self) -> usize {
        self.free.iter().map(|list| list.slots.len()).sum()
    }

    /// One that was last used for the same, if there is one.
    fn take(&mut self, purpose: Purpose) -> Option<u16> {
        let other = 1 - purpose as usize;
        let from = if self.free[purpose as usize].slots.is_empty() { other } else { purpose as usize };
        let list = &mut self.free[from];
        let index = list.slots.pop()?;
        list.unused = list.unused.min(list.slots.len());
        self.purpose[usize::from(index)] = purpose;
        Some(index)
    }

    /// See [`Pool::give_back_unused`] and [`Pool::give_back_idle`].
    fn give_back(&mut self, idle: bool) {
        for place in 0..self.free.len() {
            let list = &mut self.free[place];
            let unused = if idle { list.slots.len() } else { list.unused };
            list.unused = list.slots.len();
            for &index in &self.free[place].slots[..unused] {
                if std::mem::take(&mut self.touched[usize::from(index)]) {
                    // SAFETY: the slot is on a free list: no handle, no segment, not the kernel's.
                    unsafe { memory::give_back(self.slot_base(index), self.geometry.stride()) };
                }
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
        self.take_of(false, Purpose::Write)
    }

    /// Takes a large slot off the free list.
    pub fn take_large(&mut self) -> Option<Slot> {
        self.take_of(true, Purpose::Write)
    }

    fn class(&mut self, large: bool) -> &mut Class {
        if large { &mut self.large } else { &mut self.small }
    }

    fn take_of(&mut self, large: bool, purpose: Purpose) -> Option<Slot> {
        let core = self.core;
        let class = self.class(large);
        let index = class.take(purpose)?;
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
        let slot = self.take_of(false, Purpose::Receive)?;
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
        let (free, kernel) = (self.small.free_count(), self.small.in_kernel);
        (free, kernel, self.small.geometry.count - free - kernel)
    }

    /// Large slots with the core.
    pub fn large_used(&self) -> usize {
        self.large.geometry.count - self.large.free_count()
    }

    /// Returns the memory of free slots that were not used since this was last called to the system. Later reads of them
    /// give zeros.
    pub fn give_back_unused(&mut self) {
        self.small.give_back(false);
        self.large.give_back(false);
    }

    /// Returns the memory of all free slots to the system.
    pub fn give_back_idle(&mut self) {
        self.small.give_back(true);
        self.large.give_back(true);
    }

    /// Asserts that every slot has exactly one owner, given how many the driver says the kernel has.
    pub fn assert_conserved(&self, in_kernel: usize) {
        assert!(
            self.small.in_kernel == in_kernel,
            "the kernel has {in_kernel}, the pool lent {}",
            self.small.in_kernel
        );
        let referenced = self.small.refs.iter().filter(|&&refs| refs > 0).count();
        assert!(referenced + self.small.free_count() == self.small.geometry.count, "a slot has no owner or two");
    }
}

/// Segments in the form that `sendmsg` takes. The driver boxes it, so that its address holds while a send is in flight.
#[derive(Debug)]
pub(super) struct Vector {
    parts: Box<[libc::iovec]>,
    header: libc::msghdr,
    total: usize,
}

impl Vector {
    pub(super) fn new(capacity: usize) -> Self {
        let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: `msghdr` is plain data for which all zeros is a value: no name, no parts, no control data.
        let header = unsafe { std::mem::zeroed() };
        Vector { parts: vec![empty; capacity].into(), header, total: 0 }
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
        self.total = total;
    }

    /// Bytes in all its parts.
    pub(super) fn total(&self) -> usize {
        self.total
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

/// Memory as the kernel gives it: zeros, committed when they are first written.
#[cfg(not(miri))]
mod memory {
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
    use std::io;
    use std::ptr::NonNull;

    /// Address space that is never unmapped: slots are in the kernel's hands and in other cores', and the end of the
    /// process is the one moment when nobody refers to them.
    pub(super) fn reserve(length: usize) -> io::Result<NonNull<u8>> {
        // SAFETY: a new anonymous mapping aliases nothing.
        let base = unsafe {
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
            let base = mmap_anonymous(std::ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, flags)?;
            // One touched byte must not commit 2 MiB.
            let _ = madvise(base, length, Advice::LinuxNoHugepage);
            base
        };
        Ok(NonNull::new(base.cast()).expect("mmap does not return null"))
    }

    /// Returns pages of it to the system; they read as zeros from then on.
    ///
    /// # Safety
    /// Nobody refers to them.
    pub(super) unsafe fn give_back(base: NonNull<u8>, length: usize) {
        // SAFETY: the pages are of a mapping of `reserve`, and nobody's, as the caller says.
        let _ = unsafe { madvise(base.as_ptr().cast(), length, Advice::LinuxDontNeed) };
    }
}

/// The same for Miri, which knows no `madvise`, and sees every access to what it allocated itself.
#[cfg(miri)]
mod memory {
    use std::alloc::{Layout, alloc_zeroed};
    use std::io;
    use std::ptr::NonNull;

    pub(super) fn reserve(length: usize) -> io::Result<NonNull<u8>> {
        let layout = Layout::from_size_align(length, 4096).expect("slots fit into the address space");
        assert!(length > 0, "there are slots");
        // SAFETY: the length is not zero.
        NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(io::ErrorKind::OutOfMemory.into())
    }

    pub(super) unsafe fn give_back(base: NonNull<u8>, length: usize) {
        // SAFETY: memory of `reserve`, and nobody's, as the caller says.
        unsafe { base.as_ptr().write_bytes(0, length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SMALL: Geometry = Geometry { head: 512, body: 3000, tail: 100, count: 4 };
    const LARGE: Geometry = Geometry { head: 0, body: 9000, tail: 0, count: 2 };

    /// Somebody's slot, what must be in it, and from where on it may be written.
    struct Held {
        slot: Slot,
        bytes: Vec<u8>,
        frozen: usize,
    }

    /// A segment, what must be in it, and where it begins in its slot.
    struct Sent {
        segment: Segment,
        bytes: Vec<u8>,
        start: usize,
    }

    struct World {
        pool: Pool,
        held: Vec<Held>,
        sent: Vec<Sent>,
        kernel: Vec<Slot>,
    }

    impl World {
        /// Slots of one kind that somebody refers to.
        fn used(&self, large: bool) -> usize {
            let ids = self.held.iter().map(|held| held.slot.id());
            let ids = ids.chain(self.sent.iter().map(|sent| sent.segment.slot()));
            let ids = ids.chain(self.kernel.iter().map(Slot::id));
            ids.filter(|id| id.large == large).collect::<std::collections::HashSet<_>>().len()
        }

        /// One of the things that a core, a driver or the kernel does with slots; `a` and `b` say with which and where.
        fn step(&mut self, what: u8, a: usize, b: usize) {
            let World { pool, held, sent, kernel } = self;
            match what {
                0 | 1 => {
                    let large = what == 1;
                    let room = if large { LARGE.count } else { SMALL.count } - self.used(large);
                    let slot = if large { self.pool.take_large() } else { self.pool.take() };
                    assert_eq!(slot.is_some(), room > 0);
                    self.held.extend(slot.map(|slot| Held {
                        bytes: slot.bytes(0..slot.size()).to_vec(),
                        slot,
                        frozen: 0,
                    }));
                }
                2 if !held.is_empty() => {
                    let index = a % held.len();
                    let Held { slot, bytes, frozen } = &mut held[index];
                    let start = *frozen + b % (bytes.len() - *frozen + 1);
                    let end = (start + a % 600).min(bytes.len());
                    slot.bytes_mut(start..end).fill(b as u8);
                    bytes[start..end].fill(b as u8);
                }
                // A range that is shared already may be shared again: both are only read.
                3 if !held.is_empty() && sent.len() < 12 => {
                    let index = a % held.len();
                    let Held { slot, bytes, frozen } = &mut held[index];
                    // Often right behind the one before, so that they can be joined.
                    let start = if b.is_multiple_of(2) { *frozen } else { b % bytes.len() };
                    let end = (start + a % 300).min(bytes.len());
                    let segment = pool.share(slot, start..end);
                    *frozen = (*frozen).max(end);
                    sent.push(Sent { segment, bytes: bytes[start..end].to_vec(), start });
                }
                4 if !held.is_empty() => pool.put(held.swap_remove(a % held.len()).slot),
                5 if !held.is_empty() => {
                    let index = a % held.len();
                    let Held { slot, frozen, .. } = &mut held[index];
                    let sole = sent.iter().all(|sent| sent.segment.slot() != slot.id());
                    assert_eq!(pool.thaw(slot), sole);
                    *frozen = if sole { 0 } else { *frozen };
                }
                6 if !sent.is_empty() => pool.release(sent.swap_remove(a % sent.len()).segment),
                7 if !sent.is_empty() => {
                    let index = a % sent.len();
                    let Sent { segment, bytes, start } = &mut sent[index];
                    let count = b % (bytes.len() + 1);
                    segment.advance(count);
                    bytes.drain(..count);
                    *start += count;
                }
                8 if sent.len() > 1 => {
                    let mut next = sent.swap_remove(a % sent.len());
                    let index = b % sent.len();
                    let first = &mut sent[index];
                    let behind =
                        first.segment.slot() == next.segment.slot() && first.start + first.bytes.len() == next.start;
                    assert_eq!(first.segment.take_in(&mut next.segment), behind);
                    if behind {
                        first.bytes.append(&mut next.bytes);
                    }
                    sent.push(next);
                }
                9 => kernel.extend(pool.lend()),
                10 if !kernel.is_empty() => {
                    let mut slot = kernel.swap_remove(a % kernel.len());
                    // It has written what a peer sent.
                    let _ = slot.base_to_lend();
                    slot.bytes_mut(SMALL.head..SMALL.head + SMALL.body).fill(a as u8);
                    pool.returned(&slot);
                    held.push(Held { bytes: slot.bytes(0..slot.size()).to_vec(), slot, frozen: 0 });
                }
                11 => pool.give_back_unused(),
                12 => pool.give_back_idle(),
                _ => {}
            }
        }

        fn check(&self) {
            self.pool.assert_conserved(self.kernel.len());
            let used = self.used(false);
            let expected = (SMALL.count - used, self.kernel.len(), used - self.kernel.len());
            assert_eq!((self.pool.census(), self.pool.large_used()), (expected, self.used(true)));
            for Held { slot, bytes, .. } in &self.held {
                assert!(slot.bytes(0..slot.size()) == bytes, "somebody wrote into {:?}", slot.id());
            }
            for Sent { segment, bytes, .. } in &self.sent {
                assert!(segment.bytes() == bytes, "somebody wrote what waits to be sent of {:?}", segment.slot());
                assert_eq!((segment.len(), segment.is_empty()), (bytes.len(), bytes.is_empty()));
            }
        }
    }

    proptest! {
        /// Whatever is done in whatever order: nobody writes what another one reads, and every slot comes back.
        #[test]
        fn a_slot_has_one_owner(steps in prop::collection::vec((0..13_u8, any::<u16>(), any::<u16>()), 0..120)) {
            let pool = Pool::new(3, SMALL, LARGE).unwrap();
            let mut world = World { pool, held: vec![], sent: vec![], kernel: vec![] };
            for (what, a, b) in steps {
                world.step(what, a.into(), b.into());
                world.check();
            }
            for what in [4, 6, 10, 4].into_iter().flat_map(|what| [what; 16]) {
                world.step(what, 0, 0);
            }
            world.check();
            assert_eq!((world.used(false), world.used(true)), (0, 0));
            // What is given back to the system was not kept for the next owner.
            world.pool.give_back_idle();
            let mut slots: Vec<Slot> = std::iter::from_fn(|| world.pool.take()).collect();
            slots.extend(std::iter::from_fn(|| world.pool.take_large()));
            assert_eq!(slots.len(), SMALL.count + LARGE.count);
            for slot in slots {
                assert!(slot.bytes(0..slot.size()).iter().all(|&byte| byte == 0));
            }
        }
    }
}
