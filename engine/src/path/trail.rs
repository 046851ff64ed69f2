//! A route while it is being walked. Addresses come off the front and are put on the front; what lies behind stays as it
//! was received.

use ockam_wire::{AddressRef, LOCAL, Route, RouteParts};

/// Most addresses that one visit to a node may put on a route: its link and the local forwarders passed.
pub const FRONT_MAX: usize = 16;

const NOTHING: AddressRef<'static> = AddressRef { kind: LOCAL, name: &[] };

/// See the module.
#[derive(Debug, Clone)]
pub struct Trail<'a> {
    /// Filled from the end, so that putting an address on the front moves nothing.
    front: [AddressRef<'a>; FRONT_MAX],
    start: usize,
    rest: Route<'a>,
}

impl<'a> Trail<'a> {
    /// A route as received.
    pub fn new(rest: Route<'a>) -> Self {
        Trail { front: [NOTHING; FRONT_MAX], start: FRONT_MAX, rest }
    }

    /// Number of addresses.
    pub fn len(&self) -> usize {
        FRONT_MAX - self.start + self.rest.len()
    }

    /// Whether no address is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first address.
    pub fn first(&self) -> Option<AddressRef<'a>> {
        if self.start < FRONT_MAX { Some(self.front[self.start]) } else { self.rest.first() }
    }

    /// Takes the first address off.
    pub fn pop(&mut self) -> Option<AddressRef<'a>> {
        if self.start < FRONT_MAX {
            self.start += 1;
            return Some(self.front[self.start - 1]);
        }
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    /// Puts an address on the front; false when this visit has put on as many as it may.
    #[must_use]
    pub fn push(&mut self, address: AddressRef<'a>) -> bool {
        if self.start == 0 {
            return false;
        }
        self.start -= 1;
        self.front[self.start] = address;
        true
    }

    /// The route, for writing.
    pub fn parts(&self) -> RouteParts<'_> {
        RouteParts { front: &self.front[self.start..], rest: self.rest }
    }
}
