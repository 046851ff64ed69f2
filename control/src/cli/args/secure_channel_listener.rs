//! `ockam secure-channel-listener`.

use super::shared::{At, Confirmed, Trust};
use crate::cli::values;
use clap::{Args, Subcommand};

/// `ockam secure-channel-listener ...`
#[derive(Subcommand, Debug)]
pub enum SecureChannelListenerCommand {
    /// Accept secure channels at one more address
    #[command(after_help = "Examples:\n  \
        ockam secure-channel-listener create friends --at n1 \\\n    \
        --authorized I0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n  \
        ockam secure-channel-listener create api2 --identity alice")]
    Create(SecureChannelListenerCreate),
    /// List the listeners of secure channels of a node
    #[command(after_help = "Examples:\n  \
        ockam secure-channel-listener list\n  ockam secure-channel-listener list --at n1 --output json")]
    List(At),
    /// Show one listener
    #[command(after_help = "Examples:\n  \
        ockam secure-channel-listener show api\n  ockam secure-channel-listener show api --at n1 --output json")]
    Show(SecureChannelListenerArg),
    /// Accept no more channels at an address, and close those accepted there
    #[command(after_help = "Examples:\n  \
        ockam secure-channel-listener delete friends --yes\n  \
        ockam secure-channel-listener delete friends --at n1 --yes")]
    Delete(Confirmed<SecureChannelListenerArg>),
}

/// Arguments of `secure-channel-listener create`.
#[derive(Args, Debug)]
pub struct SecureChannelListenerCreate {
    /// Its address, such as friends or /service/friends
    #[arg(value_parser = values::local_address)]
    pub address: String,
    #[command(flatten)]
    pub at: At,
    #[command(flatten)]
    pub trust: Trust,
}

/// A command about one listener of secure channels.
#[derive(Args, Debug)]
pub struct SecureChannelListenerArg {
    /// Its address, as `secure-channel-listener list` shows it
    #[arg(value_parser = values::local_address)]
    pub address: String,
    #[command(flatten)]
    pub at: At,
}
