//! `ockam relay`.

use super::shared::Trust;
use crate::cli::stdin::RouteArg;
use crate::cli::values::{self, Duration, NodeRef};
use clap::{Args, Subcommand};

/// `ockam relay ...`
#[derive(Subcommand, Debug)]
pub enum RelayCommand {
    /// Register a node at another one, and print the address at which it is reached there
    #[command(after_help = "Examples:\n  \
        ockam relay create blue --at n2 --to n3\n  \
        ockam relay create blue --at /dnsaddr/relay.example.org/tcp/4000/secure/api --to n3\n  \
        ockam message send hello --to /node/n2/service/forward_to_blue/secure/api/service/uppercase")]
    Create(RelayCreate),
    /// List the relays of a node
    #[command(after_help = "Examples:\n  ockam relay list\n  ockam relay list --to n3 --output json")]
    List(RelayOf),
    /// Show one relay
    #[command(after_help = "Examples:\n  ockam relay show blue --to n3\n  ockam relay show --output json")]
    Show(RelayArg),
    /// End relays, and the connections that they were registered by
    #[command(after_help = "Examples:\n  \
        ockam relay delete blue --to n3 --yes\n  ockam relay delete --all --to n3 --yes")]
    Delete(RelayDelete),
}

/// The node that is reached by a relay.
#[derive(Args, Debug)]
pub struct RelayOf {
    /// The node that is reached by it, as n1 or /node/n1; the default node when left out
    #[arg(long, visible_alias = "from", value_name = "NODE", value_parser = values::node_ref)]
    pub to: Option<NodeRef>,
}

/// Arguments of `relay create`.
#[derive(Args, Debug)]
pub struct RelayCreate {
    /// Its name
    #[arg(default_value = "default")]
    pub name: String,
    /// Where it is made: a node as n2 or /node/n2, or a route to one, such as /ip4/10.0.0.1/tcp/4000/secure/api; `-` in it
    /// stands for one line of stdin
    #[arg(long, value_name = "NODE|ROUTE", value_parser = values::node_or_route, allow_hyphen_values = true)]
    pub at: RouteArg,
    #[command(flatten)]
    pub of: RelayOf,
    /// The name to ask for there, when another than NAME
    #[arg(long, value_name = "NAME")]
    pub relay_address: Option<String>,
    #[command(flatten)]
    pub trust: Trust,
    /// How long to wait until it is registered, such as 500ms, 10s or 2m
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::timeout)]
    pub timeout: Duration,
    /// Do not wait: it is registered when the other node can be reached
    #[arg(long)]
    pub no_connection_wait: bool,
}

/// A command about one relay.
#[derive(Args, Debug)]
pub struct RelayArg {
    /// Its name
    #[arg(default_value = "default")]
    pub name: String,
    #[command(flatten)]
    pub of: RelayOf,
}

/// Arguments of `relay delete`.
#[derive(Args, Debug)]
pub struct RelayDelete {
    /// Its name
    #[arg(default_value = "default", conflicts_with = "all")]
    pub name: String,
    /// All relays of the node
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub of: RelayOf,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}
