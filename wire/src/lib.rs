//! The bytes of the Ockam wire protocol, and nothing else: no sockets, no clock, no state beyond a buffer.
//!
//! ```text
//!   connection   01 | frame | frame | ...                         one preamble byte per direction
//!   frame        u32 big-endian length | body                     frame.rs
//!   body         [ onward, return, payload, tracing? ]            message.rs, CBOR
//!   route        [ address, address, ... ]                        route.rs
//!   address      [ transport type, name ]                         address.rs
//! ```
//!
//! Routes stand in front and payload and tracing behind, so forwarding a message means to write a new prefix
//! ([`Outgoing::write_prefix`]) and to leave the payload where it is. Reading allocates nothing: a [`Message`] borrows
//! from the frame, and its routes stay encoded.
//!
//! Rules of reading are lenient where real peers are, rules of writing are strict: the shortest form, always (`wire.md`
//! 0.1). What arrives is hostile until [`Message::parse`] accepted it; every loop here is bounded by bytes received.

#![forbid(unsafe_code)]

mod address;
pub mod bare;
mod cbor;
mod frame;
mod malformed;
mod message;
mod multiaddr;
pub mod portal;
mod route;
pub mod undeliverable;

pub use address::{Address, AddressError, AddressRef, LOCAL, TCP, UDP};
pub use frame::{FRAME_MAX, FrameError, Framer, PREAMBLE, frame_length};
pub use malformed::Malformed;
pub use message::{FixedHead, Measured, Message, Outgoing};
pub use multiaddr::{MULTIADDR_MAX, MultiAddr, MultiAddrError, Protocol};
pub use route::{Addresses, ROUTE_MAX, Route, RouteParts};
