//! `ockam engine`.

use super::shared::At;
use clap::{Args, Subcommand};

/// `ockam engine ...`
#[derive(Subcommand, Debug)]
pub enum EngineCommand {
    /// Show the engine of a node: process, driver and why that one, cores, memory, links
    #[command(after_help = "Examples:\n  ockam engine show\n  ockam engine show --at n1 --output json")]
    Show(At),
    /// Show what the engine has counted, per core and in all
    #[command(after_help = "Examples:\n  ockam engine stats --at n1\n  ockam engine stats --watch")]
    Stats(EngineStats),
    /// Replace the engine process; listeners stay open, links are closed
    #[command(after_help = "Examples:\n  ockam engine restart\n  ockam engine restart --at n1")]
    Restart(At),
}

/// Arguments of `engine stats`.
#[derive(Args, Debug)]
pub struct EngineStats {
    #[command(flatten)]
    pub at: At,
    /// Show again every second until interrupted
    #[arg(short, long)]
    pub watch: bool,
    /// Show counters that are zero, too
    #[arg(long)]
    pub all: bool,
}
