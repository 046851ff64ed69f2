//! Entries by index, with a generation that tells one use of an index from the next.

/// See the module.
#[derive(Debug)]
pub struct Slab<T> {
    entries: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
    first: u32,
    limit: usize,
}

impl<T> Slab<T> {
    /// At most `limit` entries, whose indices begin at `first`. Room for all is reserved, which takes no memory until it is
    /// used: growing by and by would leave behind, and copy, as much again.
    pub fn new(first: u32, limit: usize) -> Self {
        Slab { entries: Vec::with_capacity(limit), free: Vec::new(), first, limit }
    }

    /// Where the entry of an index is; beyond all for an index below the first.
    fn place(&self, index: u32) -> usize {
        index.wrapping_sub(self.first) as usize
    }

    /// Entries in use.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Whether no entry is in use.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether no entry can be added.
    pub fn is_full(&self) -> bool {
        self.len() == self.limit
    }

    /// Adds an entry made from its index and generation.
    ///
    /// # Panics
    /// When the slab is full.
    pub fn add(&mut self, make: impl FnOnce(u32, u32) -> T) -> u32 {
        assert!(!self.is_full(), "the slab is full");
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push((0, None));
            self.first + self.entries.len() as u32 - 1
        });
        let place = self.place(index);
        let (generation, value) = &mut self.entries[place];
        *generation = generation.wrapping_add(1);
        *value = Some(make(index, *generation));
        index
    }

    /// Removes an entry; its generation ends.
    pub fn remove(&mut self, index: u32) -> Option<T> {
        let place = self.place(index);
        let value = self.entries.get_mut(place)?.1.take()?;
        self.free.push(index);
        Some(value)
    }

    /// The entry of this index and generation.
    pub fn get(&self, index: u32, generation: u32) -> Option<&T> {
        match self.entries.get(self.place(index)) {
            Some((current, value)) if *current == generation => value.as_ref(),
            _ => None,
        }
    }

    /// The entry of this index and generation.
    pub fn get_mut(&mut self, index: u32, generation: u32) -> Option<&mut T> {
        let place = self.place(index);
        match self.entries.get_mut(place) {
            Some((current, value)) if *current == generation => value.as_mut(),
            _ => None,
        }
    }

    /// The entry of this index, whatever its generation.
    pub fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        let place = self.place(index);
        self.entries.get_mut(place)?.1.as_mut()
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().filter_map(|(_, value)| value.as_ref())
    }

    /// All entries, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.iter_mut().filter_map(|(_, value)| value.as_mut())
    }
}

impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = T;
    fn index(&self, index: u32) -> &T {
        self.entries[self.place(index)].1.as_ref().expect("the entry is in use")
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        let place = self.place(index);
        self.entries[place].1.as_mut().expect("the entry is in use")
    }
}

#[cfg(test)]
mod tests {
    use super::Slab;

    #[test]
    fn a_late_generation_finds_nothing() {
        let mut slab = Slab::new(5, 2);
        let first = slab.add(|index, generation| (index, generation));
        assert_eq!(first, 5);
        let (index, generation) = slab[first];
        assert_eq!(slab.get(index, generation), Some(&(index, generation)));
        assert_eq!(slab.remove(first), Some((index, generation)));
        assert_eq!(slab.remove(first), None);
        let second = slab.add(|index, generation| (index, generation));
        assert_eq!(second, first);
        assert_eq!(slab.get(index, generation), None);
        assert_eq!(slab.get(4, generation), None, "nothing is below the first");
        slab.add(|index, generation| (index, generation));
        assert!(slab.is_full());
        assert_eq!(slab.iter().count(), 2);
    }
}
