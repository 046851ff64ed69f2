//! Room for the portal connections of a core, and who has how much of it.
//!
//! A holder may have three times as many as there is room for more: three quarters of all when it is alone, less the more
//! others have. So whoever takes what it can leaves a quarter to those who have come later, or are modest.

use super::{Carrier, End};
use foldhash::{HashMap, HashMapExt};
use ockam_engine_abi::LinkId;

/// How many times what is left a holder may have.
const TIMES_LEFT: usize = 3;

/// Whose a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::core) enum Holder {
    /// The clients of an inlet, by control's number.
    Inlet(u32),
    /// The peer of a channel, by control's number, which came to an outlet.
    Channel(u32),
    /// The same of a link.
    Link(LinkId),
    /// This node, which came to its own outlet.
    Inside,
}

impl Holder {
    pub(super) fn of(end: &End, carrier: &Carrier) -> Holder {
        match (end, carrier) {
            (End::Inlet { number, .. }, _) => Holder::Inlet(*number),
            (End::Outlet { .. }, Carrier::Channel(channel)) => Holder::Channel(channel.number),
            (End::Outlet { .. }, Carrier::Link(link)) => Holder::Link(*link),
            (End::Outlet { .. }, Carrier::Inside) => Holder::Inside,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(in crate::core) struct Room {
    limit: usize,
    taken: usize,
    /// Those who have any.
    held: HashMap<Holder, usize>,
}

impl Room {
    /// Room for `limit` connections.
    pub(in crate::core) fn new(limit: usize) -> Room {
        Room { limit, taken: 0, held: HashMap::new() }
    }

    /// Connections that there are.
    pub(in crate::core) fn taken(&self) -> usize {
        self.taken
    }

    /// One more for a holder. False when it may not have one now.
    pub(super) fn take(&mut self, holder: Holder) -> bool {
        let has = self.held.get(&holder).copied().unwrap_or(0);
        if has >= TIMES_LEFT * (self.limit - self.taken) {
            return false;
        }
        self.held.insert(holder, has + 1);
        self.taken += 1;
        true
    }

    /// A holder has one less.
    ///
    /// # Panics
    /// When it had none.
    pub(super) fn give_back(&mut self, holder: Holder) {
        let has = self.held.get_mut(&holder).expect("what is given back was taken");
        *has -= 1;
        if *has == 0 {
            self.held.remove(&holder);
        }
        self.taken -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::{Holder, Room};

    fn take_all(room: &mut Room, holder: Holder) -> usize {
        std::iter::from_fn(|| room.take(holder).then_some(())).count()
    }

    #[test]
    fn whoever_takes_all_leaves_room_for_others() {
        let mut room = Room::new(16);
        assert_eq!(take_all(&mut room, Holder::Channel(1)), 12);
        assert_eq!(take_all(&mut room, Holder::Channel(2)), 3);
        assert_eq!(take_all(&mut room, Holder::Inlet(1)), 1);
        assert_eq!(room.taken(), 16);
        assert!(!room.take(Holder::Inside));
        // What the first gives back is for those who have less.
        room.give_back(Holder::Channel(1));
        assert!(!room.take(Holder::Channel(1)));
        assert!(room.take(Holder::Inside));
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let mut room = Room::new(4);
        for _ in 0..3 {
            assert_eq!(take_all(&mut room, Holder::Inside), 3);
            (0..3).for_each(|_| room.give_back(Holder::Inside));
            assert_eq!((room.taken(), room.held.len()), (0, 0));
        }
    }
}
