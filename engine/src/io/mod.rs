//! The only place with `unsafe`: memory that the kernel reads and writes, rings, mapped counters and code.
//!
//! * [`pool`]: slots and who owns them.
//! * [`driver`]: what a core asks of the kernel and what comes back; the one trait with two implementations,
//!   [`uring`] and [`epoll`].
//! * [`probe`]: which of the two runs, and why.
//! * [`sockets`]: making, accepting and connecting sockets.
//! * [`counters`]: the mapped memfd of counters.
//! * [`code`]: the pages of this program's code.
//! * [`safety`]: why the `unsafe` here holds, in prose.

pub mod code;
pub mod counters;
pub mod driver;
pub mod epoll;
pub mod pool;
pub mod probe;
pub mod safety;
pub mod sockets;
pub mod uring;
pub mod waker;
