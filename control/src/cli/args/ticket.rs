//! `ockam ticket`.

use super::shared::{Asking, MemberAttributes};
use crate::cli::values::{self, Duration};
use clap::{Args, Subcommand, ValueHint};
use std::path::PathBuf;

/// `ockam ticket ...`
#[derive(Subcommand, Debug)]
pub enum TicketCommand {
    /// Make a ticket and print it (as `project ticket`)
    Create(TicketCreate),
}

/// Arguments of `project ticket` and `ticket create`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    ockam ticket create --file bob.ticket\n  \
    ockam ticket create -a cluster=production --expires-in 1h --usage-count 20 --file fleet.ticket\n  \
    ockam ticket create --identity admin --enroller | ssh host ockam enroll -\n\n\
    Whoever has a ticket can become a member by it: hand it over in confidence. A file that is made here is for its owner alone.")]
pub struct TicketCreate {
    #[command(flatten)]
    pub asking: Asking,
    #[command(flatten)]
    pub attributes: MemberAttributes,
    /// It may use the certificate for TLS of the project
    #[arg(long)]
    pub tls: bool,
    /// For how long it can be used: a number with s, m, h or d
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = values::lifetime)]
    pub expires_in: Duration,
    /// By how many it can be used
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub usage_count: u64,
    /// Write it to a new file that only its owner can read
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
}
