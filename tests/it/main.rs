//! End to end: the real command, real processes, real sockets.

mod api;
mod authority;
mod channel_floods;
mod channel_lifecycle;
mod channels;
mod cli;
mod demo;
mod enroll;
mod hostile;
mod identity;
mod keys;
mod lifecycle;
mod node_file;
mod packaging;
mod portal_lifecycle;
mod portals;
mod programs;
mod relays;
mod seed;
mod tidy;
mod transit;
mod trust;
mod trust_attacks;
mod trust_docs;
mod undeliverable;
