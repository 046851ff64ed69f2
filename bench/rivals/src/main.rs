//! The relay of the bench on other ways to do I/O, so that the choice of the engine's drivers can be measured again by
//! anyone. What is done to a frame is the bench's (`ockam_bench::relay`), the same for all; only the I/O differs. The one with blocking
//! sockets is the bench's own floor, `ockam-bench floor frames`.
//!
//! `ockam-bench-rivals relay RUNTIME --to SINK` prints the address it listens on and serves until it is killed.
#![forbid(unsafe_code)]

mod glommio_relay;
mod tokio_relay;
mod tokio_uring_relay;

use clap::{Parser, Subcommand, ValueEnum};
use std::io;
use std::net::SocketAddr;

/// Relays of frames on other ways to do I/O
#[derive(Parser, Debug)]
#[command(name = "ockam-bench-rivals", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand, Debug)]
enum Task {
    /// Relay frames from whoever connects to one target, in one thread where the runtime has threads to choose
    Relay {
        /// On what
        runtime: Runtime,
        /// Where to
        #[arg(long)]
        to: SocketAddr,
    },
    /// Print nanoseconds per NOP of a ring, through tokio-uring: alone, and 32 at once
    Nop,
}

#[derive(ValueEnum, Debug, Clone, Copy)]
enum Runtime {
    Tokio,
    TokioUring,
    Glommio,
}

fn main() -> io::Result<()> {
    match Arguments::parse().task {
        Task::Relay { runtime: Runtime::Tokio, to } => tokio_relay::serve(to),
        Task::Relay { runtime: Runtime::TokioUring, to } => tokio_uring_relay::serve(to),
        Task::Relay { runtime: Runtime::Glommio, to } => glommio_relay::serve(to),
        Task::Nop => tokio_uring_relay::nops(),
    }
}

/// A free loopback port.
const ANY: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0));

/// Says how a connection ended, if not well.
fn report(result: io::Result<()>) {
    if let Err(error) = result {
        eprintln!("ockam-bench-rivals: {error}");
    }
}
