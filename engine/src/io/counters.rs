//! The counters of all cores in one sealed memfd (`ockam_engine_abi::counter`). The engine maps it and writes; everybody
//! else reads the file.

use ockam_engine_abi::counter::{BLOCK_WORDS, Place};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};
use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The file of counters, mapped.
#[derive(Debug)]
pub struct CounterPage {
    mapping: Arc<Mapping>,
    /// Cores whose writer was not given away yet.
    writers: Vec<bool>,
}

#[derive(Debug)]
struct Mapping {
    words: NonNull<AtomicU64>,
    bytes: usize,
}

// SAFETY: the mapping is only accessed as `AtomicU64`.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl CounterPage {
    /// Creates the file for `cores` cores, all counters zero, and seals its size: a reader cannot make the engine fault
    /// by cutting it. Returns the page and the descriptor to hand out.
    ///
    /// # Errors
    /// What the system says to `memfd_create`, `ftruncate`, `mmap` or sealing.
    pub fn create(cores: usize) -> io::Result<(CounterPage, OwnedFd)> {
        let bytes = (cores * BLOCK_WORDS * size_of::<u64>()).next_multiple_of(4096);
        let file = rustix::fs::memfd_create("ockam-counters", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&file, bytes as u64)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        // SAFETY: a new shared mapping of a file that can no longer shrink, so every access to it is backed.
        let base = unsafe {
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            rustix::mm::mmap(std::ptr::null_mut(), bytes, protection, MapFlags::SHARED, &file, 0)?
        };
        let words = NonNull::new(base.cast()).expect("mmap does not return null");
        Ok((CounterPage { mapping: Arc::new(Mapping { words, bytes }), writers: vec![true; cores] }, file))
    }

    /// The counters of one core, for its thread.
    ///
    /// # Panics
    /// When there is no such core or its counters were given away: a counter has one writer.
    pub fn core(&mut self, core: usize) -> CoreCounters {
        assert!(std::mem::take(&mut self.writers[core]), "a counter has one writer");
        CoreCounters { mapping: Arc::clone(&self.mapping), first: core * BLOCK_WORDS }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `create` with this length; the last handle is gone.
        let _ = unsafe { rustix::mm::munmap(self.words.as_ptr().cast(), self.bytes) };
    }
}

/// The counters of one core; the only handle that writes them.
#[derive(Debug)]
pub struct CoreCounters {
    mapping: Arc<Mapping>,
    first: usize,
}

impl CoreCounters {
    fn word(&self, place: impl Place) -> &AtomicU64 {
        let place = place.place();
        assert!(place < BLOCK_WORDS, "a counter outside its block");
        // SAFETY: `first` is that of a block in the mapping and `place` is inside the block; aligned, since the mapping
        // is a page's and words are 8 bytes.
        unsafe { self.mapping.words.add(self.first + place).as_ref() }
    }

    /// Adds to a counter. Load and store, not an atomic addition: there is no other writer.
    pub fn add(&mut self, place: impl Place, count: u64) {
        let value = self.get(place).wrapping_add(count);
        self.set(place, value);
    }

    /// Sets a level.
    pub fn set(&mut self, place: impl Place, value: u64) {
        // The ABI's words are little-endian.
        self.word(place).store(value.to_le(), Ordering::Relaxed);
    }

    /// Reads a counter of this core.
    pub fn get(&self, place: impl Place) -> u64 {
        u64::from_le(self.word(place).load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::CounterPage;
    use ockam_engine_abi::{CloseReason, Counter, Counters, DropReason};

    #[test]
    fn a_reader_of_the_file_sees_what_the_cores_wrote() {
        let (mut page, file) = CounterPage::create(3).unwrap();
        let (mut first, mut last) = (page.core(0), page.core(2));
        first.add(Counter::FramesIn, 5);
        first.add(Counter::FramesIn, 2);
        last.add(Counter::FramesIn, 100);
        last.set(Counter::SlotsFree, 9);
        last.set(Counter::SlotsFree, 4);
        last.add(DropReason::RouteEnded, 1);
        last.add(CloseReason::Reset, 3);
        let read = Counters::read(&file, 3).unwrap();
        assert_eq!((read.of_core(0, Counter::FramesIn), read.of_core(2, Counter::FramesIn)), (7, 100));
        assert_eq!(read.total(Counter::FramesIn), 107);
        assert_eq!(read.of_core(2, Counter::SlotsFree), 4);
        assert_eq!(read.of_core(2, DropReason::RouteEnded), 1);
        assert_eq!(read.of_core(2, CloseReason::Reset), 3);
        let sum = |core| Counter::ALL.iter().map(|&counter| read.of_core(core, counter)).sum::<u64>();
        assert_eq!((sum(0), sum(1), sum(2)), (7, 0, 104));
        assert_eq!(first.get(Counter::FramesIn), 7);
    }

    #[test]
    fn nobody_can_change_the_size_of_the_file() {
        let (_page, file) = CounterPage::create(1).unwrap();
        for size in [0, 4096 * 16] {
            assert_eq!(rustix::fs::ftruncate(&file, size), Err(rustix::io::Errno::PERM));
        }
        let unseal = rustix::fs::fcntl_add_seals(&file, rustix::fs::SealFlags::WRITE);
        assert_eq!(unseal, Err(rustix::io::Errno::PERM));
    }

    #[test]
    #[should_panic(expected = "one writer")]
    fn a_core_has_one_writer() {
        let (mut page, _file) = CounterPage::create(1).unwrap();
        let _first = page.core(0);
        let _second = page.core(0);
    }
}
