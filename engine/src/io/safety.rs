//! Why the `unsafe` in this folder holds. Documentation only.
//!
//! There is no `unsafe` elsewhere in the engine. What is here falls into seven kinds; each block names its reason in a
//! `SAFETY` comment, and this is what those comments rely on.
//!
//! # Slots as slices (`pool`)
//! A slot's memory is mapped once and never unmapped, so no pointer to it dangles: not the kernel's, not another core's.
//! What remains is aliasing. A [`Slot`](super::pool::Slot) is neither `Clone` nor `Copy`, so there is one handle, and a
//! `&mut` to it is the only way to a `&mut [u8]`. A [`Segment`](super::pool::Segment) reads a range that ended at or
//! before `frozen` when it was made; `bytes_mut` refuses ranges that begin before `frozen`, for as long as the handle
//! lives. The slot is not handed out again, with `frozen` at zero, before its count of references is zero, and each
//! segment is one reference. Dropping a segment without releasing it loses the slot, but never frees it early.
//!
//! # Slots in the kernel (`uring`, `epoll`)
//! `provide` takes the handle by value, and refuses large slots and slots of which a part was ever shared, so that when
//! the kernel writes to a slot no reference to it exists. The handle comes back out of the driver with the completion
//! that filled the slot, when the kernel is done with it. It may write the body only: address and length of the buffer
//! are those of the geometry, and the slot is checked to be as large.
//!
//! A slot that is given for one receive comes by value as well, and stays in the driver's socket until the completion.
//! Segments may refer to its beginning: the room that is lent begins behind them (`room_to_lend`), as `bytes_mut` would
//! demand of the core, and they are only read.
//!
//! # Entries of the submission queue (`uring`)
//! An entry may hold pointers: to a message header and its parts, to a socket address, to a waker's descriptor number.
//! Header and parts are boxed, and the box stays in the socket until the completion that ends the send; so does the
//! address of a connect. The parts point to segments, which the core keeps until `Done::Sent`. If the core drops them
//! nevertheless, their memory is still mapped, and worse than wrong bytes on a socket cannot happen. A socket's place
//! is not used again while one of its operations is in flight, and the driver's `drop` waits until none is: not for a
//! time, but until the kernel has said so for each.
//!
//! `user_data` is a number and never becomes a pointer. It is checked against the socket's generation, so that even a
//! completion which comes twice or late can only be dropped.
//!
//! # The ring of provided buffers (`uring`)
//! One producer, this driver; one consumer, the kernel. An entry is written before the tail that covers it is stored
//! with release order. The ring has as many entries as slots may be lent, each lent slot is in it at most once, and a
//! slot is published again only after a completion named it; so an entry is never overwritten before it was read.
//!
//! # Descriptors out of completions (`uring`)
//! The number in the completion of an accept was made for that completion. It becomes an `OwnedFd` at once, in the one
//! place that handles it, also when nobody wants it any more.
//!
//! # Mapped counters (`counters`)
//! The file is sealed against shrinking before it is mapped, so no access to the mapping can fault, whoever else has the
//! descriptor. Words are accessed as atomics only, and the engine never reads what others might have written there to
//! decide anything about memory.
//!
//! # Code that is given back (`code`)
//! What `give_back` drops are private pages that are executable and cannot be written, so the kernel maps the same bytes of
//! the same file again at their next use. Data of the program is left alone: its loader has written addresses into it.
