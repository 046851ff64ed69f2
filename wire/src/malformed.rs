//! Why bytes are not a transport message.

/// Why the body of a frame is not a transport message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// It ends inside the message.
    #[error("the frame ends inside the message")]
    Truncated,
    /// It does not begin with an array.
    #[error("the frame is not a CBOR array")]
    NotAnArray,
    /// The array has fewer than three elements.
    #[error("the message lacks a route or the payload")]
    TooFewElements,
    /// A route is something else.
    #[error("a route is not an array")]
    RouteNotAnArray,
    /// A route claims or has more than 255 addresses.
    #[error("a route has more than 255 addresses")]
    RouteTooLong,
    /// An address is not an array of exactly two elements.
    #[error("an address is not a pair of transport type and name")]
    AddressNotAPair,
    /// A transport type is not an integer from 0 to 255.
    #[error("a transport type is not a number from 0 to 255")]
    BadTransportType,
    /// A name is something else.
    #[error("the name in an address is not a byte string")]
    NameNotBytes,
    /// The payload is something else.
    #[error("the payload is not a byte string")]
    PayloadNotBytes,
    /// The tracing field is neither null nor text in UTF-8.
    #[error("the tracing field is not text")]
    TracingNotText,
    /// A byte or text string of indefinite length, which real decoders refuse too.
    #[error("a string does not say its length")]
    IndefiniteString,
    /// A head that CBOR reserves, or an integer of indefinite length.
    #[error("a CBOR head has a reserved value")]
    ReservedHead,
}
