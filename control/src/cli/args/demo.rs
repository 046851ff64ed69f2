//! `ockam demo`.

use clap::Args;

/// Arguments of `demo`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ockam demo\n  ockam demo --seconds 10 --message-bytes 1024")]
pub struct Demo {
    /// How long to measure
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=600))]
    pub seconds: u16,
    /// Payload of each measured message in bytes
    #[arg(long, value_name = "N", default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(16..=1_048_576))]
    pub message_bytes: u32,
}
