//! The name of a link between control and engine.

use std::fmt;

/// A link, unique for the life of an engine: core (8 bits), index in that core's slab (24 bits), generation (32 bits).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u64);

impl LinkId {
    /// Composes an id. `index` must be below 2^24.
    pub fn new(core: u8, index: u32, generation: u32) -> Self {
        assert!(index < 1 << 24, "a core has fewer than 2^24 links");
        LinkId(u64::from(core) << 56 | u64::from(index) << 32 | u64::from(generation))
    }

    /// The core that owns the link.
    pub fn core(self) -> u8 {
        (self.0 >> 56) as u8
    }

    /// The index in the core's slab.
    pub fn index(self) -> u32 {
        (self.0 >> 32) as u32 & 0x00ff_ffff
    }

    /// Which use of that index this is.
    pub fn generation(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Debug for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "link {}.{}.{}", self.core(), self.index(), self.generation())
    }
}

#[cfg(test)]
mod tests {
    use super::LinkId;

    #[test]
    fn parts_come_back() {
        let id = LinkId::new(3, 0x00ab_cdef, 0xffff_fffe);
        assert_eq!((id.core(), id.index(), id.generation()), (3, 0x00ab_cdef, 0xffff_fffe));
    }
}
