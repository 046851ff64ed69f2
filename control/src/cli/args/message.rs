//! `ockam message`.

use crate::cli::stdin::RouteArg;
use crate::cli::values::{self, Duration, NodeRef};
use clap::{Args, Subcommand};

/// `ockam message ...`
#[derive(Subcommand, Debug)]
pub enum MessageCommand {
    /// Send a message along a route and print the reply
    #[command(after_help = "Examples:\n  \
        ockam message send hello --to /node/n1/service/uppercase\n  \
        ockam message send hello --from n1 \\\n    \
        --to /ip4/127.0.0.1/tcp/6002/ip4/127.0.0.1/tcp/6003/service/uppercase\n  \
        ockam message send hello --to /node/n1/secure/api/service/uppercase\n  \
        ockam message send 00ff --hex --to /dnsaddr/localhost/tcp/6001/service/echo\n  \
        echo /node/n1 | ockam message send hello --to -/service/uppercase")]
    Send(MessageSend),
}

/// Arguments of `message send`.
#[derive(Args, Debug)]
pub struct MessageSend {
    /// The text to send, or bytes in hexadecimal with `--hex`
    #[arg(allow_hyphen_values = true)]
    pub message: String,
    /// The route, such as /node/n2/service/uppercase; /secure/api in it opens a secure channel on the way, and `-` stands
    /// for one line of stdin
    #[arg(short, long, value_name = "ROUTE", allow_hyphen_values = true)]
    pub to: RouteArg,
    /// The node that sends, as n1 or /node/n1; this command itself when left out
    #[arg(short, long, value_name = "NODE", value_parser = values::node_ref)]
    pub from: Option<NodeRef>,
    /// The identity to show to the other ends of secure channels on the way, by name; that of the node, or the default one
    #[arg(long, value_name = "NAME")]
    pub identity: Option<String>,
    /// The message is hexadecimal, and so is the reply
    #[arg(long)]
    pub hex: bool,
    /// How long to wait for the reply, such as 500ms, 10s or 2m
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::timeout)]
    pub timeout: Duration,
}
