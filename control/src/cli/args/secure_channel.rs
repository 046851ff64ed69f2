//! `ockam secure-channel`.

use super::shared::{At, Confirmed, Trust};
use crate::cli::stdin::RouteArg;
use crate::cli::values::{self, Duration, NodeRef};
use clap::{Args, Subcommand};

/// `ockam secure-channel ...`
#[derive(Subcommand, Debug)]
pub enum SecureChannelCommand {
    /// Open a secure channel and print its address, to which messages are sent
    #[command(after_help = "Examples:\n  \
        ockam secure-channel create --from n1 --to /node/n2/node/n3/service/api\n  \
        ockam secure-channel create --from n1 \\\n    \
        --to /ip4/127.0.0.1/tcp/6002/ip4/127.0.0.1/tcp/6003/service/api |\n    \
        ockam message send hello --from n1 --to -/service/uppercase\n  \
        ockam message send hello --from n1 \\\n    \
        --to \"$(ockam secure-channel create --from n1 --to /node/n3/service/api)/service/uppercase\"")]
    Create(SecureChannelCreate),
    /// List the secure channels of a node: those it opened and those it accepted
    #[command(after_help = "Examples:\n  ockam secure-channel list\n  ockam secure-channel list --at n1 --output json")]
    List(At),
    /// Show one secure channel
    #[command(after_help = "Examples:\n  \
        ockam secure-channel show /service/0123456789abcdef0123456789abcdef --at n1\n  \
        ockam secure-channel show 0123456789abcdef0123456789abcdef --output json")]
    Show(SecureChannelArg),
    /// Close a secure channel, at both ends
    #[command(after_help = "Examples:\n  \
        ockam secure-channel delete /service/0123456789abcdef0123456789abcdef --at n1 --yes\n  \
        ockam secure-channel delete 0123456789abcdef0123456789abcdef --yes")]
    Delete(Confirmed<SecureChannelArg>),
}

/// Arguments of `secure-channel create`.
#[derive(Args, Debug)]
pub struct SecureChannelCreate {
    /// The node that opens it, as n1 or /node/n1; the default node when left out
    #[arg(short, long, visible_alias = "at", value_name = "NODE", value_parser = values::node_ref)]
    pub from: Option<NodeRef>,
    /// The route to a listener of secure channels, such as /node/n3/service/api; `-` in it stands for one line of stdin
    #[arg(short, long, value_name = "ROUTE", allow_hyphen_values = true)]
    pub to: RouteArg,
    #[command(flatten)]
    pub trust: Trust,
    /// How long to wait for the other end, such as 500ms, 10s or 2m
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::timeout)]
    pub timeout: Duration,
}

/// A command about one secure channel.
#[derive(Args, Debug)]
pub struct SecureChannelArg {
    /// Its address, as `secure-channel list` shows it
    #[arg(value_name = "CHANNEL", value_parser = values::channel_address)]
    pub channel: String,
    #[command(flatten)]
    pub at: At,
}
