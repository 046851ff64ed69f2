//! `ockam inspect`.

use crate::cli::values::{self, IdentityOrHistory};
use clap::Args;

/// Arguments of `inspect`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    ockam inspect bob.credential\n  ockam inspect bob.credential --verify-with issuer\n  \
    ockam identity export alice | ockam inspect -\n  ockam inspect alice\n\n\
    What cannot be verified is said to be so. With --verify-with it ends with 77 unless it was verified.")]
pub struct Inspect {
    /// A file with it, in hexadecimal or as it is; `-` for stdin; the hexadecimal digits; or the name of an identity
    #[arg(value_name = "THING")]
    pub thing: String,
    /// Believe only what this identity signed: its name or identifier here, or its history
    #[arg(long, value_name = "IDENTITY", value_parser = values::identity_or_history)]
    pub verify_with: Option<IdentityOrHistory>,
    /// Show the code of a ticket, too, by which whoever sees it can become a member
    #[arg(long)]
    pub show_secret: bool,
}
