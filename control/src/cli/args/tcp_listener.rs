//! `ockam tcp-listener`.

use super::shared::{At, Confirmed};
use crate::cli::values::{self, HostPort};
use clap::{Args, Subcommand};

/// `ockam tcp-listener ...`
#[derive(Subcommand, Debug)]
pub enum TcpListenerCommand {
    /// Accept links at one more address
    #[command(after_help = "Examples:\n  \
        ockam tcp-listener create 127.0.0.1:7000 --at n1\n  ockam tcp-listener create 0.0.0.0:0")]
    Create(TcpListenerCreate),
    /// List the listeners of a node
    #[command(after_help = "Examples:\n  ockam tcp-listener list\n  ockam tcp-listener list --at n1 --output json")]
    List(At),
    /// Show one listener
    #[command(after_help = "Examples:\n  \
        ockam tcp-listener show 127.0.0.1:7000\n  ockam tcp-listener show 127.0.0.1:7000 --at n1 --output json")]
    Show(TcpListenerArg),
    /// Accept no more links at an address; those accepted stay
    #[command(after_help = "Examples:\n  \
        ockam tcp-listener delete 127.0.0.1:7000 --yes\n  ockam tcp-listener delete 127.0.0.1:7000 --at n1 --yes")]
    Delete(Confirmed<TcpListenerArg>),
}

/// Arguments of `tcp-listener create`.
#[derive(Args, Debug)]
pub struct TcpListenerCreate {
    /// Where to accept links, such as 127.0.0.1:7000; port 0 picks a free port
    #[arg(value_name = "HOST:PORT", value_parser = values::listen_address)]
    pub address: HostPort,
    #[command(flatten)]
    pub at: At,
}

/// A command about one listener.
#[derive(Args, Debug)]
pub struct TcpListenerArg {
    /// Its address or its flow control id, as `tcp-listener list` shows them
    #[arg(value_name = "LISTENER", value_parser = values::listener_id)]
    pub listener: String,
    #[command(flatten)]
    pub at: At,
}
