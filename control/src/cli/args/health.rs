//! `ockam health`.

use super::node::NodeArg;
use crate::cli::values::{self, Duration};
use clap::Args;

/// Arguments of `health`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    ockam health\n  ockam health n1 --output json\n  ockam health n1 --live --timeout 500ms")]
pub struct Health {
    #[command(flatten)]
    pub of: NodeArg,
    /// Be content when control and engine answer, whatever listeners, inlets and relays are up
    #[arg(long)]
    pub live: bool,
    /// How long to wait for an answer, such as 500ms or 2s
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = values::timeout)]
    pub timeout: Duration,
}
