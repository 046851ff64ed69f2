//! Routes, still encoded: what a frame carries, and what is written into the next one (`wire.md` A.3, B.1).

use crate::address::AddressRef;
use crate::cbor::{self, Number, Reader, Writer};
use crate::malformed::Malformed;
use std::fmt;

/// How many addresses a node of ours lets a route have. It is the loop guard of the forwarding path and not a rule of
/// the wire: reading accepts up to 255.
pub const ROUTE_MAX: usize = 32;

/// What reading accepts, so that the work spent on a route is bounded whatever its frame's size.
const COUNT_MAX: u64 = 255;

/// A route as it was received: known to be well-formed, each address still in the bytes it came in.
///
/// Two routes are equal when their addresses are, whatever their encoding.
#[derive(Clone, Copy)]
pub struct Route<'a> {
    count: usize,
    bytes: &'a [u8],
}

impl<'a> Route<'a> {
    /// The route without addresses.
    pub const EMPTY: Route<'static> = Route { count: 0, bytes: &[] };

    /// How many addresses, at most 255.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no address.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The address where the message goes next.
    #[inline]
    pub fn first(&self) -> Option<AddressRef<'a>> {
        self.split_first().map(|(first, _)| first)
    }

    /// The first address, and the route behind it.
    #[inline(always)]
    pub fn split_first(&self) -> Option<(AddressRef<'a>, Route<'a>)> {
        let count = self.count.checked_sub(1)?;
        let mut input = Reader { rest: self.bytes };
        let first = AddressRef::decode(&mut input).expect("a route is validated when it is made");
        Some((first, Route { count, bytes: input.rest }))
    }

    /// The addresses, first to last.
    pub fn iter(&self) -> Addresses<'a> {
        Addresses(*self)
    }

    /// The encoded addresses, verbatim, without the head of the array around them.
    pub const fn encoded(&self) -> &'a [u8] {
        self.bytes
    }

    #[inline(always)]
    pub(crate) fn decode(input: &mut Reader<'a>) -> Result<Self, Malformed> {
        let claimed = input.head(cbor::ARRAY, Malformed::RouteNotAnArray)?;
        if let Number::Definite(claimed) = claimed
            && claimed > COUNT_MAX
        {
            return Err(Malformed::RouteTooLong);
        }
        let start = input.rest;
        let mut count = 0;
        loop {
            match claimed {
                Number::Definite(claimed) if count == claimed => break,
                Number::Indefinite if input.peek()? == cbor::BREAK => break,
                _ if count == COUNT_MAX => return Err(Malformed::RouteTooLong),
                _ => AddressRef::decode(input)?,
            };
            count += 1;
        }
        let bytes = &start[..start.len() - input.rest.len()];
        if let Number::Indefinite = claimed {
            input.take(1)?;
        }
        Ok(Route { count: count as usize, bytes })
    }
}

impl<'a> IntoIterator for Route<'a> {
    type Item = AddressRef<'a>;
    type IntoIter = Addresses<'a>;

    fn into_iter(self) -> Addresses<'a> {
        self.iter()
    }
}

impl PartialEq for Route<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes || self.iter().eq(other.iter())
    }
}

impl Eq for Route<'_> {}

impl fmt::Debug for Route<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

impl fmt::Display for Route<'_> {
    /// `0#hop => 0#echo`; nothing for an empty route.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, address) in self.iter().enumerate() {
            let separator = if index == 0 { "" } else { " => " };
            write!(f, "{separator}{address}")?;
        }
        Ok(())
    }
}

/// The addresses of a [`Route`].
#[derive(Clone, Debug)]
pub struct Addresses<'a>(Route<'a>);

impl<'a> Iterator for Addresses<'a> {
    type Item = AddressRef<'a>;

    fn next(&mut self) -> Option<AddressRef<'a>> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0.count, Some(self.0.count))
    }
}

impl ExactSizeIterator for Addresses<'_> {}

/// A route to be written: new addresses in front of (the rest of) a received one.
#[derive(Clone, Copy, Debug)]
pub struct RouteParts<'a> {
    /// Written first, in shortest form.
    pub front: &'a [AddressRef<'a>],
    /// Written behind, in the bytes it came in.
    pub rest: Route<'a>,
}

impl<'a> RouteParts<'a> {
    /// The route without addresses.
    pub const EMPTY: RouteParts<'static> = RouteParts { front: &[], rest: Route::EMPTY };

    /// A route made of new addresses only.
    pub const fn new(front: &'a [AddressRef<'a>]) -> Self {
        RouteParts { front, rest: Route::EMPTY }
    }

    /// How many addresses.
    pub const fn len(&self) -> usize {
        self.front.len() + self.rest.len()
    }

    /// Whether there is no address.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes in a message, the head of the array included.
    #[inline]
    pub fn encoded_len(&self) -> usize {
        let front: usize = self.front.iter().map(|address| address.encoded_len()).sum();
        cbor::head_len(self.len()) + front + self.rest.encoded().len()
    }

    /// The addresses, first to last.
    pub fn iter(&self) -> impl Iterator<Item = AddressRef<'a>> {
        self.front.iter().copied().chain(self.rest.iter())
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        out.head(cbor::ARRAY, self.len());
        for address in self.front {
            address.encode(out);
        }
        out.bytes(self.rest.encoded());
    }
}

impl<'a> From<Route<'a>> for RouteParts<'a> {
    fn from(rest: Route<'a>) -> Self {
        RouteParts { front: &[], rest }
    }
}
