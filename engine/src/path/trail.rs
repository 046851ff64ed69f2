//! Routes while they are being walked. Addresses come off the front and are put on the front; what lies behind stays as
//! it was received.

use arrayvec::ArrayVec;
use ockam_wire::{AddressRef, Message, Route, RouteParts};

/// Most addresses that one visit to a node may put on a route: its link and the local forwarders passed.
pub const FRONT_MAX: usize = 16;

/// A route while it is being walked.
#[derive(Debug, Clone)]
pub struct Trail<'a> {
    front: ArrayVec<AddressRef<'a>, FRONT_MAX>,
    rest: Route<'a>,
}

impl<'a> Trail<'a> {
    /// A route as received.
    pub fn new(rest: Route<'a>) -> Self {
        Trail { front: ArrayVec::new(), rest }
    }

    /// Number of addresses.
    pub fn len(&self) -> usize {
        self.front.len() + self.rest.len()
    }

    /// Whether no address is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first address.
    pub fn first(&self) -> Option<AddressRef<'a>> {
        self.front.first().copied().or_else(|| self.rest.first())
    }

    /// Takes the first address off.
    pub fn pop(&mut self) -> Option<AddressRef<'a>> {
        if let Some(first) = self.front.pop_at(0) {
            return Some(first);
        }
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    /// Puts an address on the front; false when this visit has put on as many as it may.
    #[must_use]
    pub fn push(&mut self, address: AddressRef<'a>) -> bool {
        self.front.try_insert(0, address).is_ok()
    }

    /// The route, for writing.
    pub fn parts(&self) -> RouteParts<'_> {
        RouteParts { front: &self.front, rest: self.rest }
    }
}

/// The two routes of a message on its way through this node.
#[derive(Debug, Clone)]
pub struct Walk<'a> {
    /// Where it still has to go.
    pub onward: Trail<'a>,
    /// Where an answer goes.
    pub back: Trail<'a>,
}

impl<'a> Walk<'a> {
    /// The routes as received.
    pub fn of(message: &Message<'a>) -> Self {
        Walk { onward: Trail::new(message.onward), back: Trail::new(message.return_route) }
    }

    /// A service at `own` answers: what was the way back is the way onward.
    pub(super) fn turn_around(&mut self, own: AddressRef<'a>) {
        let Walk { onward, back } = self;
        onward.rest = std::mem::replace(&mut back.rest, Route::EMPTY);
        onward.front.clear();
        onward.front.extend(back.front.drain(..));
        back.front.push(own);
    }

    /// Number of onward addresses left, as notices say it: at least 1.
    pub fn left(&self) -> u8 {
        self.onward.len().clamp(1, 255) as u8
    }
}
