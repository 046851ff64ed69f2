//! `ockam tcp-connection`.

use super::shared::{At, Confirmed};
use crate::cli::values::{self, HostPort, NodeRef};
use clap::{Args, Subcommand};

/// `ockam tcp-connection ...`
#[derive(Subcommand, Debug)]
pub enum TcpConnectionCommand {
    /// Open a link to another node and print its local address
    #[command(after_help = "Examples:\n  \
        ockam tcp-connection create --from n1 --to 127.0.0.1:6002\n  \
        ockam message send hello --from n1 \\\n    \
        --to \"$(ockam tcp-connection create --from n1 --to 127.0.0.1:6002)/service/echo\"")]
    Create(TcpConnectionCreate),
    /// List the links that a node opened
    #[command(after_help = "Examples:\n  ockam tcp-connection list\n  ockam tcp-connection list --at n1 --output json")]
    List(At),
    /// Show one link
    #[command(after_help = "Examples:\n  \
        ockam tcp-connection show 127.0.0.1:6002 --at n1\n  \
        ockam tcp-connection show /worker/0123456789abcdef0123456789abcdef --output json")]
    Show(TcpConnectionArg),
    /// Close a link
    #[command(after_help = "Examples:\n  \
        ockam tcp-connection delete 127.0.0.1:6002 --at n1 --yes\n  \
        ockam tcp-connection delete /worker/0123456789abcdef0123456789abcdef --yes")]
    Delete(Confirmed<TcpConnectionArg>),
}

/// Arguments of `tcp-connection create`.
#[derive(Args, Debug)]
pub struct TcpConnectionCreate {
    /// The node that dials, as n1 or /node/n1; the default node when left out
    #[arg(long, visible_alias = "at", value_name = "NODE", value_parser = values::node_ref)]
    pub from: Option<NodeRef>,
    /// Where the other node listens, such as 127.0.0.1:6002
    #[arg(long, value_name = "HOST:PORT", value_parser = values::dial_address)]
    pub to: HostPort,
}

/// A command about one link.
#[derive(Args, Debug)]
pub struct TcpConnectionArg {
    /// Its local address or that of its peer, as `tcp-connection list` shows them
    #[arg(value_name = "CONNECTION", value_parser = values::connection_id)]
    pub connection: String,
    #[command(flatten)]
    pub at: At,
}
