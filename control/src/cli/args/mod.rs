//! What can be typed: the tree of commands, their arguments, and the examples under each help page; a file per noun, called as
//! the one in [`commands`](super::commands) that does it.
//!
//! Values are parsed here, once, into types that cannot hold nonsense, so that a usage error names its argument before
//! anything is touched. What needs the state of this home (does that node exist?) is not decided here.

pub mod authority;
pub mod completion;
pub mod credential;
pub mod demo;
pub mod engine;
pub mod health;
pub mod identity;
pub mod inspect;
pub mod message;
pub mod node;
pub mod policy;
pub mod process;
pub mod project;
pub mod project_member;
pub mod relay;
pub mod run;
pub mod secure_channel;
pub mod secure_channel_listener;
pub mod service;
pub mod shared;
pub mod tcp_connection;
pub mod tcp_inlet;
pub mod tcp_listener;
pub mod tcp_outlet;
pub mod ticket;
pub mod vault;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

/// The whole command line.
#[derive(Parser, Debug)]
#[command(
    name = "ockam",
    bin_name = "ockam",
    version,
    about = "Route messages and TCP between nodes, end to end",
    long_about = "Route messages and TCP between nodes, end to end.\n\n\
        A node is two processes on this machine: an engine that moves frames and a control process that this command \
        talks to. Messages travel from node to node along routes; services answer them.",
    after_help = "Examples:\n  \
        ockam demo\n  \
        ockam node create n1 --tcp-listener-address 127.0.0.1:6001\n  \
        ockam message send hello --to /node/n1/service/uppercase",
    arg_required_else_help = true,
    subcommand_required = true,
    propagate_version = false,
    disable_help_subcommand = false
)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub globals: Globals,
    /// The noun.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command has.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// Format of the result; plain unless said otherwise
    #[arg(long, global = true, value_enum, value_name = "FORMAT", hide_possible_values = false)]
    pub output: Option<OutputFormat>,
    /// Write JSON on one line (implies `--output json` unless plain is asked for)
    #[arg(long, global = true)]
    pub compact_output: bool,
    /// Write nothing to stderr but errors
    #[arg(short, long, global = true, env = "QUIET", hide_env = true, value_parser = FalseyValueParser::new())]
    pub quiet: bool,
    /// Let a node that the command starts log more: -v debug, -vv trace
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// No colours
    #[arg(long, global = true, env = "NO_COLOR", hide_env = true, value_parser = FalseyValueParser::new())]
    pub no_color: bool,
    /// Never ask: what would need an answer is an error
    #[arg(long, global = true, env = "NO_INPUT", hide_env = true, value_parser = FalseyValueParser::new())]
    pub no_input: bool,
}

/// How a result is written.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputFormat {
    /// For people on a terminal, one bare value in a pipe
    Plain,
    /// JSON, everywhere
    Json,
}

/// How log lines are written.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text per event
    Text,
    /// One JSON object per event
    Json,
}

/// The nouns.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Create, list, show, start, stop and delete nodes
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Send messages along routes
    #[command(subcommand)]
    Message(message::MessageCommand),
    /// TCP addresses where a node accepts links
    #[command(subcommand)]
    TcpListener(tcp_listener::TcpListenerCommand),
    /// Links that a node keeps to other nodes
    #[command(subcommand)]
    TcpConnection(tcp_connection::TcpConnectionCommand),
    /// Encrypted channels that a node keeps to other nodes, over routes of any length
    #[command(subcommand)]
    SecureChannel(secure_channel::SecureChannelCommand),
    /// Addresses where a node accepts secure channels, beside its own, `api`
    #[command(subcommand)]
    SecureChannelListener(secure_channel_listener::SecureChannelListenerCommand),
    /// Names under which a node is reached at another one, when nobody can dial it
    #[command(subcommand)]
    Relay(relay::RelayCommand),
    /// Where TCP connections leave portals: services that applications reach through an inlet of another node
    #[command(subcommand)]
    TcpOutlet(tcp_outlet::TcpOutletCommand),
    /// Where TCP connections enter portals: local ports that lead to an outlet of another node
    #[command(subcommand)]
    TcpInlet(tcp_inlet::TcpInletCommand),
    /// Services that a node runs
    #[command(subcommand)]
    Service(service::ServiceCommand),
    /// Everything that has a local address on a node
    #[command(subcommand)]
    Worker(service::WorkerCommand),
    /// Who may reach which address
    #[command(subcommand)]
    FlowControl(service::FlowControlCommand),
    /// Who nodes are to each other: identities, their keys and histories
    #[command(subcommand)]
    Identity(identity::IdentityCommand),
    /// What an identity attests about another one
    #[command(subcommand)]
    Credential(credential::CredentialCommand),
    /// Files with secret keys
    #[command(subcommand)]
    Vault(vault::VaultCommand),
    /// Nodes that say who is a member of a project, and with which attributes
    #[command(subcommand)]
    Authority(authority::AuthorityCommand),
    /// Projects: authorities that this home knows, and how they are reached
    #[command(subcommand)]
    Project(project::ProjectCommand),
    /// Tickets, by which others become members of a project
    #[command(subcommand)]
    Ticket(ticket::TicketCommand),
    /// Become a member of a project by a ticket (as `project enroll`)
    Enroll(project::Enroll),
    /// The members of a project, for those who may say who they are
    #[command(subcommand)]
    ProjectMember(project_member::ProjectMemberCommand),
    /// Who may use what of a node: expressions over attributes
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Show what somebody gave you, and whether it is true: identities, credentials, tickets, revocation lists
    Inspect(inspect::Inspect),
    /// The data plane of a node: its driver, cores, memory, links and counters
    #[command(subcommand)]
    Engine(engine::EngineCommand),
    /// Say whether a node does what it shall, for probes: exit code 0, or 69 and why
    Health(health::Health),
    /// Make the nodes of a recipe, with all that they have
    Run(run::RunRecipe),
    /// List the environment variables that ockam reads
    #[command(after_help = "Examples:\n  ockam environment\n  ockam environment --output json")]
    Environment,
    /// Print a completion script for a shell
    Completion(completion::Completion),
    /// Show routing through three nodes in a temporary home, and how fast it is
    Demo(demo::Demo),
    /// The control process of a node (started by `ockam node create`)
    #[command(hide = true)]
    ControlProcess(process::ControlProcess),
    /// The engine process of a node (started by its control process)
    #[command(hide = true)]
    EngineProcess(process::EngineProcess),
}
