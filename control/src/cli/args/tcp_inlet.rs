//! `ockam tcp-inlet`.

use super::shared::{At, Trust};
use crate::cli::values::{self, Duration, InletTo, PortalPlace, Via};
use clap::{Args, Subcommand};

/// `ockam tcp-inlet ...`
#[derive(Subcommand, Debug)]
pub enum TcpInletCommand {
    /// Open a local port that leads to an outlet, and print where it listens
    #[command(after_help = "Examples:\n  \
        ockam tcp-inlet create --from 5432 --to /node/n3/secure/api/service/outlet\n  \
        ockam tcp-inlet create --at n1 --from unix:/run/web.sock \\\n    \
        --to /dnsaddr/web.example/tcp/4000/secure/api/service/web \\\n    \
        --authorized I0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n  \
        ockam tcp-inlet create --from 5432 --via far@n2 --to outlet\n  \
        ockam secure-channel create --from n1 --to /node/n3/service/api |\n    \
        ockam tcp-inlet create --at n1 --to -/service/outlet")]
    Create(Box<TcpInletCreate>),
    /// List the inlets of a node
    #[command(after_help = "Examples:\n  ockam tcp-inlet list\n  ockam tcp-inlet list --at n1 --output json")]
    List(At),
    /// Show one inlet
    #[command(after_help = "Examples:\n  \
        ockam tcp-inlet show web\n  ockam tcp-inlet show web --at n1 --output json")]
    Show(TcpInletArg),
    /// Close the port of an inlet, and end its connections
    #[command(after_help = "Examples:\n  \
        ockam tcp-inlet delete web --at n1 --yes\n  ockam tcp-inlet delete --all --at n1 --yes")]
    Delete(TcpInletDelete),
}

/// Arguments of `tcp-inlet create`.
#[derive(Args, Debug)]
pub struct TcpInletCreate {
    /// Where to listen, such as 5432, 127.0.0.1:5432, localhost:5432 or unix:/run/db.sock; a free port of 127.0.0.1 when
    /// left out
    #[arg(long, value_name = "PLACE", value_parser = values::listen_place)]
    pub from: Option<PortalPlace>,
    /// The route to the outlet, such as /node/n3/secure/api/service/outlet, or the name of a service: of this node, or of the
    /// one behind `--via`; `-` in a route stands for one line of stdin
    #[arg(long, value_name = "ROUTE|SERVICE", allow_hyphen_values = true, value_parser = values::inlet_to)]
    pub to: InletTo,
    /// The relay by which the node of the service is reached, and where that relay is: at this node when `@` is left out
    #[arg(long, value_name = "RELAY[@NODE|@ROUTE]", value_parser = values::via)]
    pub via: Option<Via>,
    #[command(flatten)]
    pub at: At,
    #[command(flatten)]
    pub trust: Trust,
    /// Its name; a random one when left out
    #[arg(long, value_name = "NAME", value_parser = values::name)]
    pub alias: Option<String>,
    /// How long a new connection waits while the outlet cannot be reached; 0 closes it at once
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = values::pause)]
    pub connection_wait: Duration,
    /// Longest pause before the outlet is looked for again; 0 gives up where it is not reached at once
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = values::pause)]
    pub retry_wait: Duration,
    /// How long this command waits until the outlet is reached, such as 500ms, 10s or 2m
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::timeout)]
    pub timeout: Duration,
    /// Do not wait until the outlet is reached
    #[arg(long)]
    pub no_connection_wait: bool,
    /// From whom to take what comes back: a policy for this inlet, in place of the one that there may be (see `policy create`)
    #[arg(long, visible_alias = "expression", value_name = "EXPRESSION", value_parser = values::policy)]
    pub allow: Option<String>,
}

/// A command about one inlet.
#[derive(Args, Debug)]
pub struct TcpInletArg {
    /// Its name, as `tcp-inlet list` shows it
    #[arg(value_parser = values::name)]
    pub alias: String,
    #[command(flatten)]
    pub at: At,
}

/// Arguments of `tcp-inlet delete`.
#[derive(Args, Debug)]
pub struct TcpInletDelete {
    /// Its name, as `tcp-inlet list` shows it
    #[arg(value_parser = values::name, required_unless_present = "all", conflicts_with = "all")]
    pub alias: Option<String>,
    #[command(flatten)]
    pub at: At,
    /// All inlets of the node
    #[arg(long)]
    pub all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}
