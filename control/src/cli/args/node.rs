//! `ockam node`.

use super::LogFormat;
use crate::cli::values::{self, HostPort, IdentityOrHistory, NodeRef, NodeSource, TicketArg, Variable};
use clap::{Args, Subcommand, ValueHint};
use ockam_engine::DriverChoice;
use ockam_engine_abi::TransitRule;
use ockam_wire::MultiAddr;

/// `ockam node ...`
#[derive(Subcommand, Debug)]
pub enum NodeCommand {
    /// Create a node and start it, or start a stopped one with what is given here replaced
    #[command(after_help = "Examples:\n  \
        ockam node create\n  \
        ockam node create n1 --tcp-listener-address 127.0.0.1:6001\n  \
        ockam node create n1 --foreground --exit-on-eof\n  \
        ockam node create gateway --tcp-listener-address 0.0.0.0:4000 \\\n    \
        --allow-transit 10.0.0.0/8=10.1.0.0/16:4000\n  \
        ockam node create sidecar.yaml --variable PORT=5432 --foreground\n\n\
        A file says what the node shall have:\n  \
        name: sidecar\n  \
        tcp-outlet:\n    \
        to: 127.0.0.1:$PORT\n  \
        tcp-inlet:\n    \
        web: { from: 127.0.0.1:8080, to: /dnsaddr/web.example/tcp/4000/secure/api/service/outlet }\n\
        Saying it again changes nothing.")]
    Create(Box<NodeCreate>),
    /// List the nodes of this home
    #[command(after_help = "Examples:\n  ockam node list\n  ockam node list --output json")]
    List,
    /// Show one node in full
    #[command(after_help = "Examples:\n  ockam node show\n  ockam node show n1 --output json")]
    Show(NodeArg),
    /// Start a stopped node again, as it was
    #[command(after_help = "Examples:\n  ockam node start\n  ockam node start n1")]
    Start(NodeArg),
    /// Stop a node; it can be started again
    #[command(after_help = "Examples:\n  ockam node stop\n  ockam node stop n1")]
    Stop(NodeArg),
    /// Stop a node and remove everything it stored
    #[command(after_help = "Examples:\n  ockam node delete n1 --yes\n  ockam node delete --all --yes")]
    Delete(NodeDelete),
    /// Print the path of a node's log
    #[command(after_help = "Examples:\n  ockam node logs n1\n  tail -f \"$(ockam node logs n1)\"")]
    Logs(NodeArg),
    /// Show or choose the node that commands use when none is named
    #[command(after_help = "Examples:\n  ockam node default\n  ockam node default n2")]
    Default(NodeArg),
}

/// Arguments of `node create`.
#[derive(Args, Debug)]
pub struct NodeCreate {
    /// Name: letters, digits, `_` and `-`; two random words when left out. Or a file that says what the node shall be (its
    /// name ends in .yaml or .yml, or is no name of a node); `-` stands for stdin
    #[arg(value_name = "NAME|FILE", value_parser = values::node_source, value_hint = ValueHint::FilePath)]
    pub name: Option<NodeSource>,
    /// What the node shall be, as a file would say it
    #[arg(long, value_name = "YAML", visible_alias = "node-config")]
    pub configuration: Option<String>,
    /// A value for `$KEY` in the file, before that of the environment and that which the file gives; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::variable)]
    pub variable: Vec<Variable>,
    /// Make anew what is there and differs from the file; its connections end. Without this it is an error
    #[arg(long)]
    pub replace: bool,
    /// Where to accept links [default: 127.0.0.1:0]; port 0 picks a free port, which is kept from then on
    #[arg(short, long, value_name = "HOST:PORT", value_parser = values::listen_address)]
    pub tcp_listener_address: Option<HostPort>,
    /// The identity that it has in secure channels, made if there is none of this name; the default one when left out
    #[arg(long, value_name = "NAME")]
    pub identity: Option<String>,
    /// Stay in the foreground until a signal; logs go to stderr
    #[arg(short, long)]
    pub foreground: bool,
    /// Stop when stdin ends
    #[arg(short, long, requires = "foreground")]
    pub exit_on_eof: bool,
    /// Accepted and not needed: a lock tells whether a node runs, also where process numbers repeat
    #[arg(short, long)]
    pub skip_is_running_check: bool,
    /// I/O driver of the engine: auto, uring or epoll [default: auto]
    #[arg(long, value_parser = values::driver)]
    pub driver: Option<DriverChoice>,
    /// Threads of the engine; as many as the process may use, at most 4, when left out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub threads: Option<u8>,
    /// Pin each thread of the engine to a core (for a host of its own)
    #[arg(long)]
    pub pin: bool,
    /// What may wait in memory, over all portals, for applications that stop taking [default: 256M]
    #[arg(long, value_name = "BYTES[K|M|G]", value_parser = values::bytes)]
    pub portal_memory: Option<u64>,
    /// Dial TCP addresses in TO for routes that come from FROM (loopback to loopback is always allowed)
    #[arg(long, value_name = "FROM=TO[:PORT]", value_parser = values::transit_rule)]
    pub allow_transit: Vec<TransitRule>,
    /// How log lines are written [default: text]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Become a member of the ticket's project first, unless the node's identity is one already: a file with the ticket, or
    /// `-` for stdin; ENROLLMENT_TICKET when left out
    #[arg(long, visible_alias = "ticket", value_name = "FILE", value_parser = values::ticket)]
    pub enrollment_ticket: Option<TicketArg>,
    #[command(flatten)]
    pub believed: Believed,
}

/// Whom a node believes.
#[derive(Args, Debug)]
pub struct Believed {
    /// The project whose authority the node believes; the default project when left out, if there is one
    #[arg(long, value_name = "PROJECT", conflicts_with = "authority_identity")]
    pub project: Option<String>,
    /// The authority that the node believes, when it is of no project: the name or identifier of an identity that this home
    /// knows, or the history of one
    #[arg(long, value_name = "IDENTITY", value_parser = values::identity_or_history)]
    pub authority_identity: Option<IdentityOrHistory>,
    /// The route to the authority's node, such as /dnsaddr/authority.example/tcp/4000/secure/api; without it the node asks
    /// nobody for a credential, and checks those of others
    #[arg(long, value_name = "ROUTE", value_parser = values::way, requires = "authority_identity")]
    pub authority_route: Option<MultiAddr>,
    /// What the authority's credentials are filed under [default: project]
    #[arg(long, value_name = "TEXT", requires = "authority_identity")]
    pub credential_scope: Option<String>,
}

impl Believed {
    /// Whether an authority is named here, by its project or by itself.
    pub fn is_named(&self) -> bool {
        self.project.is_some() || self.authority_identity.is_some()
    }
}

impl NodeCreate {
    /// These arguments, and those of `other` where they say nothing. Neither a file nor variables are among the result.
    pub fn or(self, other: NodeCreate) -> NodeCreate {
        let typed_name = match self.name {
            Some(NodeSource::Name(name)) => Some(NodeSource::Name(name)),
            _ => None,
        };
        NodeCreate {
            name: typed_name.or(other.name),
            configuration: None,
            variable: Vec::new(),
            replace: self.replace || other.replace,
            tcp_listener_address: self.tcp_listener_address.or(other.tcp_listener_address),
            identity: self.identity.or(other.identity),
            foreground: self.foreground || other.foreground,
            exit_on_eof: self.exit_on_eof || other.exit_on_eof,
            skip_is_running_check: self.skip_is_running_check || other.skip_is_running_check,
            driver: self.driver.or(other.driver),
            threads: self.threads.or(other.threads),
            pin: self.pin || other.pin,
            portal_memory: self.portal_memory.or(other.portal_memory),
            allow_transit: if self.allow_transit.is_empty() { other.allow_transit } else { self.allow_transit },
            log_format: self.log_format.or(other.log_format),
            enrollment_ticket: self.enrollment_ticket.or(other.enrollment_ticket),
            // Whom a node believes is said in one place.
            believed: if self.believed.is_named() { self.believed } else { other.believed },
        }
    }
}

/// A command about one node.
#[derive(Args, Debug)]
pub struct NodeArg {
    /// The node, as n1 or /node/n1; the default node when left out
    #[arg(value_name = "NODE", value_parser = values::node_ref)]
    pub node: Option<NodeRef>,
}

/// Arguments of `node delete`.
#[derive(Args, Debug)]
pub struct NodeDelete {
    /// The node, as n1 or /node/n1; the default node when left out
    #[arg(value_name = "NODE", value_parser = values::node_ref, conflicts_with = "all")]
    pub node: Option<NodeRef>,
    /// All nodes of this home
    #[arg(long)]
    pub all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}
