//! `ockam tcp-outlet`.

use super::shared::At;
use crate::cli::values::{self, PortalPlace};
use clap::{Args, Subcommand};

/// `ockam tcp-outlet ...`
#[derive(Subcommand, Debug)]
pub enum TcpOutletCommand {
    /// Let inlets of other nodes reach a service, and print the address for their routes
    #[command(after_help = "Examples:\n  \
        ockam tcp-outlet create --to 5432\n  \
        ockam tcp-outlet create --at n3 --from web --to intranet.example:443 --tls\n  \
        ockam tcp-outlet create --from docker --to unix:/run/docker.sock\n\n\
        Peers reach it from this machine, and through secure channels; others only with --allow-plain.")]
    Create(TcpOutletCreate),
    /// List the outlets of a node
    #[command(after_help = "Examples:\n  ockam tcp-outlet list\n  ockam tcp-outlet list --at n3 --output json")]
    List(At),
    /// Show one outlet
    #[command(after_help = "Examples:\n  \
        ockam tcp-outlet show outlet\n  ockam tcp-outlet show /service/web --at n3 --output json")]
    Show(TcpOutletArg),
    /// Remove an outlet, and end its connections
    #[command(after_help = "Examples:\n  \
        ockam tcp-outlet delete web --at n3 --yes\n  ockam tcp-outlet delete --all --at n3 --yes")]
    Delete(TcpOutletDelete),
}

/// Arguments of `tcp-outlet create`.
#[derive(Args, Debug)]
pub struct TcpOutletCreate {
    /// Where connections go, such as 5432, 10.0.0.7:5432, db.example:5432 or unix:/run/db.sock
    #[arg(long, value_name = "TARGET", value_parser = values::target)]
    pub to: PortalPlace,
    /// Its address; `outlet` for the first one of the node, a random one for others, when left out
    #[arg(long, value_name = "ADDRESS", value_parser = values::local_address)]
    pub from: Option<String>,
    #[command(flatten)]
    pub at: At,
    /// Connect with TLS; the target's certificate must be valid for its host
    #[arg(long)]
    pub tls: bool,
    /// Let anyone use it who reaches the node, without a secure channel
    #[arg(long)]
    pub allow_plain: bool,
    /// Whom to let use it: a policy for this outlet, in place of the one that there may be (see `policy create`)
    #[arg(long, visible_alias = "expression", value_name = "EXPRESSION", value_parser = values::policy)]
    pub allow: Option<String>,
}

/// A command about one outlet.
#[derive(Args, Debug)]
pub struct TcpOutletArg {
    /// Its address, as `tcp-outlet list` shows it
    #[arg(value_parser = values::local_address)]
    pub address: String,
    #[command(flatten)]
    pub at: At,
}

/// Arguments of `tcp-outlet delete`.
#[derive(Args, Debug)]
pub struct TcpOutletDelete {
    /// Its address, as `tcp-outlet list` shows it
    #[arg(value_parser = values::local_address, required_unless_present = "all", conflicts_with = "all")]
    pub address: Option<String>,
    #[command(flatten)]
    pub at: At,
    /// All outlets of the node
    #[arg(long)]
    pub all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}
