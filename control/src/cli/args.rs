//! What can be typed: the tree of commands, their arguments, and the examples under each help page.
//!
//! Values are parsed here, once, into types that cannot hold nonsense, so that a usage error names its argument before
//! anything is touched. What needs the state of this home (does that node exist?) is not decided here.

use crate::api::{ResourceType, Service};
use crate::home::NodeName;
use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};
use ockam_crypto::Identifier;
use ockam_engine::DriverChoice;
use ockam_engine_abi::TransitRule;
use ockam_wire::MultiAddr;
use std::path::PathBuf;

use super::stdin::RouteArg;
use super::values::{
    self, Duration, HistoryArg, HostPort, IdentityOrHistory, InletTo, NodeRef, NodeSource, PortalPlace, TicketArg,
    Variable, Via,
};

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
    #[command(flatten)]
    #[allow(missing_docs)]
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
    Node(NodeCommand),
    /// Send messages along routes
    #[command(subcommand)]
    Message(MessageCommand),
    /// TCP addresses where a node accepts links
    #[command(subcommand)]
    TcpListener(TcpListenerCommand),
    /// Links that a node keeps to other nodes
    #[command(subcommand)]
    TcpConnection(TcpConnectionCommand),
    /// Encrypted channels that a node keeps to other nodes, over routes of any length
    #[command(subcommand)]
    SecureChannel(SecureChannelCommand),
    /// Addresses where a node accepts secure channels, beside its own, `api`
    #[command(subcommand)]
    SecureChannelListener(SecureChannelListenerCommand),
    /// Names under which a node is reached at another one, when nobody can dial it
    #[command(subcommand)]
    Relay(RelayCommand),
    /// Where TCP connections leave portals: services that applications reach through an inlet of another node
    #[command(subcommand)]
    TcpOutlet(TcpOutletCommand),
    /// Where TCP connections enter portals: local ports that lead to an outlet of another node
    #[command(subcommand)]
    TcpInlet(TcpInletCommand),
    /// Services that a node runs
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Everything that has a local address on a node
    #[command(subcommand)]
    Worker(WorkerCommand),
    /// Who may reach which address
    #[command(subcommand)]
    FlowControl(FlowControlCommand),
    /// Who nodes are to each other: identities, their keys and histories
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// What an identity attests about another one
    #[command(subcommand)]
    Credential(CredentialCommand),
    /// Files with secret keys
    #[command(subcommand)]
    Vault(VaultCommand),
    /// Nodes that say who is a member of a project, and with which attributes
    #[command(subcommand)]
    Authority(AuthorityCommand),
    /// Projects: authorities that this home knows, and how they are reached
    #[command(subcommand)]
    Project(ProjectCommand),
    /// Tickets, by which others become members of a project
    #[command(subcommand)]
    Ticket(TicketCommand),
    /// Become a member of a project by a ticket (as `project enroll`)
    #[command(after_help = ENROLL_HELP)]
    Enroll(Enroll),
    /// The members of a project, for those who may say who they are
    #[command(subcommand)]
    ProjectMember(ProjectMemberCommand),
    /// Who may use what of a node: expressions over attributes
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Show what somebody gave you, and whether it is true: identities, credentials, tickets, revocation lists
    #[command(after_help = "Examples:\n  \
        ockam inspect bob.credential\n  ockam inspect bob.credential --verify-with issuer\n  \
        ockam identity export alice | ockam inspect -\n  ockam inspect alice\n\n\
        What cannot be verified is said to be so. With --verify-with it ends with 77 unless it was verified.")]
    Inspect(Inspect),
    /// The data plane of a node: its driver, cores, memory, links and counters
    #[command(subcommand)]
    Engine(EngineCommand),
    /// Say whether a node does what it shall, for probes: exit code 0, or 69 and why
    #[command(after_help = "Examples:\n  \
        ockam health\n  ockam health n1 --output json\n  ockam health n1 --live --timeout 500ms")]
    Health(Health),
    /// Make the nodes of a recipe, with all that they have
    #[command(after_help = "Examples:\n  \
        ockam run\n  ockam run three-nodes.yaml --variable PORT=5432\n  \
        ockam run --inline \"$(cat three-nodes.yaml)\"\n\n\
        A recipe is a file like that of `ockam node create FILE`, for several nodes: `nodes`, and an `at` with each portal.")]
    Run(RunRecipe),
    /// List the environment variables that ockam reads
    #[command(after_help = "Examples:\n  ockam environment\n  ockam environment --output json")]
    Environment,
    /// Print a completion script for a shell
    #[command(after_help = "Examples:\n  \
        ockam completion --shell bash > ~/.local/share/bash-completion/completions/ockam\n  \
        ockam completion --shell fish > ~/.config/fish/completions/ockam.fish")]
    Completion(Completion),
    /// Show routing through three nodes in a temporary home, and how fast it is
    #[command(after_help = "Examples:\n  ockam demo\n  ockam demo --seconds 10 --message-bytes 1024")]
    Demo(Demo),
    /// The control process of a node (started by `ockam node create`)
    #[command(hide = true)]
    ControlProcess(ControlProcess),
    /// The engine process of a node (started by its control process)
    #[command(hide = true)]
    EngineProcess(EngineProcess),
}

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

impl NodeCreate {
    /// These arguments, and those of `other` where they say nothing. Neither a file nor variables are among the result.
    pub fn or(self, other: NodeCreate) -> NodeCreate {
        let typed_name = match self.name {
            Some(NodeSource::Name(name)) => Some(NodeSource::Name(name)),
            _ => None,
        };
        let believes = self.project.is_some() || self.authority_identity.is_some();
        NodeCreate {
            name: typed_name.or(other.name),
            configuration: None,
            variable: Vec::new(),
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
            project: if believes { self.project } else { other.project },
            authority_identity: if believes { self.authority_identity } else { other.authority_identity },
            authority_route: if believes { self.authority_route } else { other.authority_route },
            credential_scope: if believes { self.credential_scope } else { other.credential_scope },
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

/// `--at NODE`, for commands that talk to one node.
#[derive(Args, Debug)]
pub struct At {
    /// The node, as n1 or /node/n1; the default node when left out
    #[arg(long, value_name = "NODE", value_parser = values::node_ref)]
    pub at: Option<NodeRef>,
}

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
    Delete(TcpListenerDelete),
}

/// Arguments of `tcp-listener create`.
#[derive(Args, Debug)]
pub struct TcpListenerCreate {
    /// Where to accept links, such as 127.0.0.1:7000; port 0 picks a free port
    #[arg(value_name = "HOST:PORT", value_parser = values::listen_address)]
    pub address: HostPort,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub at: At,
}

/// A command about one listener.
#[derive(Args, Debug)]
pub struct TcpListenerArg {
    /// Its address or its flow control id, as `tcp-listener list` shows them
    #[arg(value_name = "LISTENER", value_parser = values::listener_id)]
    pub listener: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub at: At,
}

/// Arguments of `tcp-listener delete`.
#[derive(Args, Debug)]
pub struct TcpListenerDelete {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub listener: TcpListenerArg,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

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
    Delete(TcpConnectionDelete),
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
    #[allow(missing_docs)]
    pub at: At,
}

/// Arguments of `tcp-connection delete`.
#[derive(Args, Debug)]
pub struct TcpConnectionDelete {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: TcpConnectionArg,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// `ockam secure-channel ...`
#[derive(Subcommand, Debug)]
pub enum SecureChannelCommand {
    /// Open a secure channel and print its address, to which messages are sent
    #[command(after_help = "Examples:\n  \
        ockam secure-channel create --from n1 --to /node/n2/node/n3/service/api\n  \
        ockam secure-channel create --from n1 --to /ip4/127.0.0.1/tcp/6002/ip4/127.0.0.1/tcp/6003/service/api |\n    \
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
    Delete(SecureChannelDelete),
}

/// Whom this end of a channel is, and whom it wants.
#[derive(Args, Debug)]
pub struct Trust {
    /// Identifiers that the peer may have; anyone when left out
    #[arg(short, long, value_name = "IDENTIFIER", num_args = 1.., value_delimiter = ',', value_parser = values::identifier)]
    pub authorized: Vec<Identifier>,
    /// The identity of this end, by name; that of the node when left out
    #[arg(long, value_name = "NAME")]
    pub identity: Option<String>,
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
    #[allow(missing_docs)]
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
    #[allow(missing_docs)]
    pub at: At,
}

/// Arguments of `secure-channel delete`.
#[derive(Args, Debug)]
pub struct SecureChannelDelete {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub channel: SecureChannelArg,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

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
    Delete(SecureChannelListenerDelete),
}

/// Arguments of `secure-channel-listener create`.
#[derive(Args, Debug)]
pub struct SecureChannelListenerCreate {
    /// Its address, such as friends or /service/friends
    #[arg(value_parser = values::local_address)]
    pub address: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub at: At,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub trust: Trust,
}

/// A command about one listener of secure channels.
#[derive(Args, Debug)]
pub struct SecureChannelListenerArg {
    /// Its address, as `secure-channel-listener list` shows it
    #[arg(value_parser = values::local_address)]
    pub address: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub at: At,
}

/// Arguments of `secure-channel-listener delete`.
#[derive(Args, Debug)]
pub struct SecureChannelListenerDelete {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub listener: SecureChannelListenerArg,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

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
    #[allow(missing_docs)]
    pub of: RelayOf,
    /// The name to ask for there, when another than NAME
    #[arg(long, value_name = "NAME")]
    pub relay_address: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
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
    #[allow(missing_docs)]
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
    #[allow(missing_docs)]
    pub of: RelayOf,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

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
    #[allow(missing_docs)]
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
    #[allow(missing_docs)]
    pub at: At,
}

/// Arguments of `tcp-outlet delete`.
#[derive(Args, Debug)]
pub struct TcpOutletDelete {
    /// Its address, as `tcp-outlet list` shows it
    #[arg(value_parser = values::local_address, required_unless_present = "all", conflicts_with = "all")]
    pub address: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub at: At,
    /// All outlets of the node
    #[arg(long)]
    pub all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

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
    #[allow(missing_docs)]
    pub at: At,
    #[command(flatten)]
    #[allow(missing_docs)]
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
    #[allow(missing_docs)]
    pub at: At,
}

/// Arguments of `tcp-inlet delete`.
#[derive(Args, Debug)]
pub struct TcpInletDelete {
    /// Its name, as `tcp-inlet list` shows it
    #[arg(value_parser = values::name, required_unless_present = "all", conflicts_with = "all")]
    pub alias: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub at: At,
    /// All inlets of the node
    #[arg(long)]
    pub all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// Arguments of `run`.
#[derive(Args, Debug)]
pub struct RunRecipe {
    /// The file; ockam.yml or ockam.yaml of this directory when left out, `-` for stdin
    #[arg(value_name = "RECIPE", value_parser = values::recipe, value_hint = ValueHint::FilePath, conflicts_with = "inline")]
    pub recipe: Option<NodeSource>,
    /// The recipe itself
    #[arg(long, value_name = "YAML")]
    pub inline: Option<String>,
    /// A value for `$KEY` in the recipe, before that of the environment and that which the recipe gives; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::variable)]
    pub variable: Vec<Variable>,
}

/// `ockam service ...`
#[derive(Subcommand, Debug)]
pub enum ServiceCommand {
    /// List the services of a node
    #[command(after_help = "Examples:\n  ockam service list\n  ockam service list --at n1 --output json")]
    List(At),
    /// Start a service
    #[command(after_help = "Examples:\n  ockam service start hop --at n1\n  ockam service start echo --addr my-echo")]
    Start(ServiceStart),
}

/// Arguments of `service start`.
#[derive(Args, Debug)]
pub struct ServiceStart {
    /// Which: hop, echo or uppercase
    #[arg(value_parser = values::service_kind)]
    pub service: Service,
    /// Its address; the name of the service when left out
    #[arg(long, value_name = "ADDRESS", value_parser = values::local_address)]
    pub addr: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub at: At,
}

/// `ockam worker ...`
#[derive(Subcommand, Debug)]
pub enum WorkerCommand {
    /// List the local addresses of a node
    #[command(after_help = "Examples:\n  ockam worker list\n  ockam worker list --at n1 --output json")]
    List(At),
}

/// `ockam flow-control ...`
#[derive(Subcommand, Debug)]
pub enum FlowControlCommand {
    /// Let what comes in through a listener reach an address
    #[command(after_help = "Examples:\n  \
        ockam flow-control add-consumer 0123456789abcdef0123456789abcdef hop --at n1\n  \
        ockam tcp-listener list --at n1    # shows the flow control ids")]
    AddConsumer(AddConsumer),
}

/// Arguments of `flow-control add-consumer`.
#[derive(Args, Debug)]
pub struct AddConsumer {
    /// Flow control id of a listener: 32 hexadecimal digits
    #[arg(value_parser = values::flow_control_id)]
    pub flow_control_id: String,
    /// The local address to reach, such as hop or /service/hop
    #[arg(value_parser = values::local_address)]
    pub address: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub at: At,
}

/// `ockam identity ...`
#[derive(Subcommand, Debug)]
pub enum IdentityCommand {
    /// Create an identity and print its identifier
    #[command(after_help = "Examples:\n  ockam identity create\n  ockam identity create alice --vault work")]
    Create(IdentityCreate),
    /// Store the history of an identity: of somebody else's, or with the vault that has its key of one of ours
    #[command(after_help = "Examples:\n  \
        ssh host ockam identity export | ockam identity import - bob\n  \
        cat alice.history | ockam identity import - alice --vault restored")]
    Import(IdentityImport),
    /// Print the history of an identity, for others to import; nothing in it is secret
    #[command(after_help = "Examples:\n  ockam identity export alice\n  ockam identity export > alice.history")]
    Export(IdentityArg),
    /// List the identities that have a name: ours and those of others
    #[command(after_help = "Examples:\n  ockam identity list\n  ockam identity list --output json")]
    List,
    /// Show one identity
    #[command(after_help = "Examples:\n  \
        ockam identity show\n  ockam identity show alice --full\n  \
        ockam identity show alice --full --encoding hex")]
    Show(IdentityShow),
    /// Show or choose the identity that commands use when none is named
    #[command(after_help = "Examples:\n  ockam identity default\n  ockam identity default alice")]
    Default(IdentityArg),
    /// Give an identity a new key, signed by the old one, which is forgotten; its identifier stays
    #[command(after_help = "Examples:\n  ockam identity rotate\n  ockam identity rotate alice --output json\n\n\
        A backup of its vault that was made before does not bring the new key back: make another one. What it issued is \
        refused by whoever knows the new key.")]
    Rotate(IdentityArg),
    /// Delete an identity and its keys; one that a node uses stays
    #[command(after_help = "Examples:\n  ockam identity delete alice --yes\n  ockam identity delete --all --yes")]
    Delete(IdentityDelete),
}

/// Arguments of `identity create`.
#[derive(Args, Debug)]
pub struct IdentityCreate {
    /// Name: letters, digits, `_` and `-`; two random words when left out
    #[arg(value_parser = values::name)]
    pub name: Option<String>,
    /// The vault for its key; the default vault when left out, which is made if there is none
    #[arg(long, value_name = "VAULT", value_parser = values::name)]
    pub vault: Option<String>,
}

/// Arguments of `identity import`.
#[derive(Args, Debug)]
pub struct IdentityImport {
    /// The history, as `identity export` prints it; `-` stands for one line of stdin
    #[arg(value_name = "HISTORY", value_parser = values::history)]
    pub history: HistoryArg,
    /// The name that it gets here
    #[arg(value_parser = values::name)]
    pub name: Option<String>,
    /// The vault that has its key, which makes it ours
    #[arg(long, value_name = "VAULT", value_parser = values::name)]
    pub vault: Option<String>,
}

/// A command about one identity.
#[derive(Args, Debug)]
pub struct IdentityArg {
    /// Its name or identifier; the default one when left out
    #[arg(value_name = "IDENTITY", value_parser = values::identity_ref)]
    pub name: Option<String>,
}

/// Arguments of `identity show`.
#[derive(Args, Debug)]
pub struct IdentityShow {
    /// Its name or identifier; the default one when left out
    #[arg(value_name = "IDENTITY", value_parser = values::identity_ref)]
    pub name: Option<String>,
    /// Show its history, too
    #[arg(short, long)]
    pub full: bool,
    /// How the history is shown
    #[arg(long, value_enum, requires = "full", default_value_t = Encoding::Plain)]
    pub encoding: Encoding,
}

/// How a history is shown.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Its keys and their times
    Plain,
    /// As `identity import` takes it
    Hex,
}

/// Arguments of `identity delete`.
#[derive(Args, Debug)]
pub struct IdentityDelete {
    /// Its name or identifier; the default one when left out
    #[arg(value_name = "IDENTITY", value_parser = values::identity_ref, conflicts_with = "all")]
    pub name: Option<String>,
    /// All identities that have a name
    #[arg(long)]
    pub all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// `ockam credential ...`
#[derive(Subcommand, Debug)]
pub enum CredentialCommand {
    /// Attest attributes of an identity, and print the credential
    #[command(after_help = "Examples:\n  \
        ockam credential issue --as issuer --for I84502ce0d9a0a91bae29026b84e19be69fb4203a6bdd1424c85a43c812772a00\n  \
        ockam credential issue --as issuer --for bob -a cluster=production -a role=reader --ttl 8h > bob.credential")]
    Issue(CredentialIssue),
    /// Say whether a credential is valid now, and if not, why; the exit code says it, too
    #[command(after_help = "Examples:\n  \
        ockam credential verify --issuer issuer --credential-path bob.credential\n  \
        ockam credential issue --as issuer --for bob | ockam credential verify --issuer issuer --for bob --credential-path -\n\n\
        It ends with 0 for a valid credential, 65 for something that is none, 77 for one that must not be believed.")]
    Verify(CredentialVerify),
    /// Give a node a credential about itself, which it shows to others from then on
    #[command(after_help = "Examples:\n  \
        ockam credential store --issuer issuer --credential-path n1.credential --at n1\n  \
        cat n1.credential | ockam credential store --issuer issuer --scope production --credential-path -\n\n\
        A node that is told at its creation who its authority is asks for a credential by itself.")]
    Store(CredentialStore),
    /// List the credentials that a node knows: its own and those of its peers
    #[command(after_help = "Examples:\n  \
        ockam credential list --at n1\n  ockam credential list --at n1 --subject bob --output json")]
    List(CredentialList),
    /// Show what a node knows to be attested of somebody, of itself when nobody is named
    #[command(after_help = "Examples:\n  ockam credential show --at n1\n  ockam credential show bob --at n1")]
    Show(CredentialShow),
    /// Let a node forget credentials
    #[command(after_help = "Examples:\n  \
        ockam credential delete --scope project --at n1 --yes\n  ockam credential delete --subject bob --at n1 --yes\n\n\
        Nothing is revoked by it: a peer that shows its credential again is believed again.")]
    Delete(CredentialDelete),
}

/// Arguments of `credential issue`.
#[derive(Args, Debug)]
pub struct CredentialIssue {
    /// The identity of ours that attests: its name or identifier; the default one when left out
    #[arg(long = "as", value_name = "IDENTITY", value_parser = values::identity_ref)]
    pub issuer: Option<String>,
    /// About whom: an identifier, or the name of an identity that this home knows
    #[arg(long = "for", value_name = "IDENTITY", value_parser = values::identity_ref)]
    pub subject: String,
    /// What is attested; may be repeated
    #[arg(short, long = "attribute", value_name = "NAME=VALUE", value_parser = values::attribute)]
    pub attributes: Vec<values::Attribute>,
    /// The vault that has the issuer's key; checked, since its identity says where it is
    #[arg(long, value_name = "VAULT", value_parser = values::name)]
    pub vault: Option<String>,
    /// How long it is valid: a number with s, m, h or d
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = values::lifetime)]
    pub ttl: Duration,
    /// How the credential is shown on a terminal; in a pipe it is always hexadecimal
    #[arg(long, value_enum, default_value_t = CredentialEncoding::Plain)]
    pub encoding: CredentialEncoding,
}

/// How a credential is shown.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialEncoding {
    /// What it says
    Plain,
    /// As `credential verify` and `credential store` take it
    Hex,
}

/// A credential, and who issued it.
#[derive(Args, Debug)]
pub struct CredentialBy {
    /// Who issued it: the name or identifier of an identity that this home knows, or the history of one
    #[arg(long, value_name = "IDENTITY", value_parser = values::identity_or_history)]
    pub issuer: values::IdentityOrHistory,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub credential: CredentialSource,
}

/// Where a credential is.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct CredentialSource {
    /// The credential, in hexadecimal
    #[arg(long, value_name = "HEX")]
    pub credential: Option<String>,
    /// The file that holds it, in hexadecimal; `-` stands for stdin
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub credential_path: Option<PathBuf>,
}

/// Arguments of `credential verify`.
#[derive(Args, Debug)]
pub struct CredentialVerify {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub credential: CredentialBy,
    /// About whom it must be: an identifier, or the name of an identity that this home knows; whoever it names when left out
    #[arg(long = "for", value_name = "IDENTITY", value_parser = values::identity_ref)]
    pub subject: Option<String>,
}

/// Arguments of `credential store`.
#[derive(Args, Debug)]
pub struct CredentialStore {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub credential: CredentialBy,
    /// What it is filed under: the id of the project, where there is one
    #[arg(long, default_value = "project", value_name = "SCOPE", value_parser = values::scope)]
    pub scope: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub at: At,
}

/// Arguments of `credential list`.
#[derive(Args, Debug)]
pub struct CredentialList {
    /// Only those about this identity: its identifier, or its name here
    #[arg(long, value_name = "IDENTITY", value_parser = values::identity_ref)]
    pub subject: Option<String>,
    /// Only those by this identity: its identifier, or its name here
    #[arg(long, value_name = "IDENTITY", value_parser = values::identity_ref)]
    pub issuer: Option<String>,
    /// Only those filed under this
    #[arg(long, value_name = "SCOPE", value_parser = values::scope)]
    pub scope: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub at: At,
}

/// Arguments of `credential show`.
#[derive(Args, Debug)]
pub struct CredentialShow {
    /// About whom: its identifier, or its name here; the node itself when left out
    #[arg(value_name = "IDENTITY", value_parser = values::identity_ref)]
    pub subject: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub at: At,
}

/// Arguments of `credential delete`.
#[derive(Args, Debug)]
pub struct CredentialDelete {
    /// Those about this identity: its identifier, or its name here
    #[arg(long, value_name = "IDENTITY", value_parser = values::identity_ref, required_unless_present = "scope")]
    pub subject: Option<String>,
    /// Those filed under this
    #[arg(long, value_name = "SCOPE", value_parser = values::scope)]
    pub scope: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub at: At,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// Arguments of `inspect`.
#[derive(Args, Debug)]
pub struct Inspect {
    /// A file with it, in hexadecimal or as it is; `-` for stdin; the hexadecimal digits; or the name of an identity
    #[arg(value_name = "THING")]
    pub thing: String,
    /// Believe only what this identity signed: its name or identifier here, or its history
    #[arg(long, value_name = "IDENTITY", value_parser = values::identity_or_history)]
    pub verify_with: Option<values::IdentityOrHistory>,
    /// Show the code of a ticket, too, by which whoever sees it can become a member
    #[arg(long)]
    pub show_secret: bool,
}

/// `ockam vault ...`
#[derive(Subcommand, Debug)]
pub enum VaultCommand {
    /// Make a vault, or take up the one that a file holds
    #[command(after_help = "Examples:\n  \
        ockam vault create\n  ockam vault create work --path /media/key/work.vault\n  \
        ockam vault create safe --passphrase-file ~/.safe-passphrase")]
    Create(VaultCreate),
    /// List the vaults of this home
    #[command(after_help = "Examples:\n  ockam vault list\n  ockam vault list --output json")]
    List,
    /// Show one vault
    #[command(after_help = "Examples:\n  ockam vault show\n  ockam vault show work --output json")]
    Show(VaultArg),
    /// Move the file of a vault, or say where its passphrase is now
    #[command(after_help = "Examples:\n  \
        ockam vault move work --path /media/key/work.vault\n  \
        ockam vault move safe --passphrase-file /media/key/passphrase")]
    Move(VaultMove),
    /// Encrypt a vault with another passphrase, for the first time, or no longer
    #[command(after_help = "Examples:\n  \
        ockam vault passphrase safe --new-passphrase-file ~/.new-passphrase\n  \
        ockam vault passphrase safe --plain\n\n\
        The file with the passphrase so far must still be in its place.")]
    Passphrase(VaultPassphrase),
    /// Write a vault, with the identities whose keys it has, into an encrypted file
    #[command(after_help = "Examples:\n  \
        ockam vault backup --to /media/backup/vault.backup --passphrase-file ~/.backup-passphrase\n  \
        ockam vault backup safe --to safe-2026-11-23.backup\n\n\
        After `ockam identity rotate` make another one: the key that the identity had before is worth nothing.")]
    Backup(VaultBackup),
    /// Bring back what a backup has and this home has not; nothing is replaced
    #[command(after_help = "Examples:\n  \
        ockam vault restore /media/backup/vault.backup --passphrase-file ~/.backup-passphrase\n  \
        ockam vault restore safe.backup --passphrase-file ~/.p --name safe2\n\n\
        An identity that has changed its key since the backup was made, as far as this home knows, keeps the new one.")]
    Restore(VaultRestore),
    /// Delete a vault that no identity uses
    #[command(after_help = "Examples:\n  ockam vault delete work --yes\n  ockam vault delete --all --yes")]
    Delete(VaultDelete),
}

/// Arguments of `vault create`.
#[derive(Args, Debug)]
pub struct VaultCreate {
    /// Name: letters, digits, `_` and `-`; `default` for the first one, then two random words, when left out
    #[arg(value_parser = values::name)]
    pub name: Option<String>,
    /// Its file; one in the home when left out
    #[arg(long, value_name = "FILE")]
    pub path: Option<PathBuf>,
    /// Encrypt it with the passphrase in this file, which is read again whenever a key is needed
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

/// A command about one vault.
#[derive(Args, Debug)]
pub struct VaultArg {
    /// Its name; the default vault when left out
    #[arg(value_name = "VAULT", value_parser = values::name)]
    pub name: Option<String>,
}

/// Arguments of `vault move`.
#[derive(Args, Debug)]
pub struct VaultMove {
    /// Its name
    #[arg(value_name = "VAULT", value_parser = values::name)]
    pub name: String,
    /// Its new file
    #[arg(long, value_name = "FILE", required_unless_present = "passphrase_file")]
    pub path: Option<PathBuf>,
    /// The file that holds its passphrase from now on
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

/// Arguments of `vault passphrase`.
#[derive(Args, Debug)]
pub struct VaultPassphrase {
    /// Its name; the default vault when left out
    #[arg(value_name = "VAULT", value_parser = values::name)]
    pub name: Option<String>,
    /// The file that holds the new passphrase, which is read again whenever a key is needed
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub new_passphrase_file: Option<PathBuf>,
    /// Leave the keys in the clear
    #[arg(long, conflicts_with = "new_passphrase_file", required_unless_present = "new_passphrase_file")]
    pub plain: bool,
}

/// Arguments of `vault backup`.
#[derive(Args, Debug)]
pub struct VaultBackup {
    /// Its name; the default vault when left out
    #[arg(value_name = "VAULT", value_parser = values::name)]
    pub name: Option<String>,
    /// The file to write, which must not exist
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub to: PathBuf,
    /// The file that holds the passphrase of the backup; that of the vault when left out
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub passphrase_file: Option<PathBuf>,
    /// Do not encrypt the backup: whoever has it has the keys
    #[arg(long, conflicts_with = "passphrase_file")]
    pub plain: bool,
}

/// Arguments of `vault restore`.
#[derive(Args, Debug)]
pub struct VaultRestore {
    /// The backup
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub from: PathBuf,
    /// The file that holds the passphrase of the backup
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub passphrase_file: Option<PathBuf>,
    /// The name of the restored vault; the one it had when left out
    #[arg(long, value_name = "VAULT", value_parser = values::name)]
    pub name: Option<String>,
    /// The file of the restored vault; one in the home when left out
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub path: Option<PathBuf>,
    /// The file that holds the passphrase for the restored vault; that of the backup, if the vault was encrypted, when left
    /// out
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub vault_passphrase_file: Option<PathBuf>,
}

/// Arguments of `vault delete`.
#[derive(Args, Debug)]
pub struct VaultDelete {
    /// Its name; the default vault when left out
    #[arg(value_name = "VAULT", value_parser = values::name, conflicts_with = "all")]
    pub name: Option<String>,
    /// All vaults of this home
    #[arg(long)]
    pub all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// `ockam authority ...`
#[derive(Subcommand, Debug)]
pub enum AuthorityCommand {
    /// Create a node that is an authority and start it, or start a stopped one with what is given here replaced
    #[command(after_help = "Examples:\n  \
        ockam identity create admin\n  \
        ockam authority create --enroller admin\n  \
        ockam authority create -t 0.0.0.0:4000 --enroller admin \\\n    \
        --authority-route /dnsaddr/authority.example/tcp/4000/service/api --output json > project.json\n  \
        ockam authority create auth --project-identifier p1 --trusted-identities trusted.json\n\n\
        trusted.json is a map of identifiers to maps of attributes: {\"I01..\": {\"ockam-role\": \"enroller\"}}.\n\
        Under --output json the result is the project, for `ockam project import`.")]
    Create(Box<AuthorityCreate>),
    /// Show the project of an authority: what others need to know of it, and nothing secret
    #[command(after_help = "Examples:\n  \
        ockam authority show\n  ockam authority show auth --output json > project.json")]
    Show(AuthorityShow),
}

/// Arguments of `authority create`.
#[derive(Args, Debug)]
pub struct AuthorityCreate {
    /// The name of its node
    #[arg(default_value = "authority", value_parser = values::node_name)]
    pub name: NodeName,
    /// Where to accept links [default: 127.0.0.1:4000]
    #[arg(short, long, value_name = "HOST:PORT", value_parser = values::listen_address)]
    pub tcp_listener_address: Option<HostPort>,
    /// The identity that it is, made if there is none of this name; one that is called as the node when left out
    #[arg(long, value_name = "NAME")]
    pub identity: Option<String>,
    /// The id of its project, which is in each of its credentials; a random one when left out
    #[arg(long, value_name = "ID")]
    pub project_identifier: Option<String>,
    /// Members from the start, which nobody can remove: JSON that maps identifiers to attributes, or a file with it
    #[arg(long, value_name = "JSON|FILE")]
    pub trusted_identities: Option<String>,
    /// An identity that is a member from the start and may add others: its identifier, or its name in this home; may be
    /// repeated
    #[arg(long, value_name = "IDENTITY", value_parser = values::identity_ref)]
    pub enroller: Vec<String>,
    /// Members are neither added, shown nor deleted over the wire
    #[arg(long)]
    pub no_direct_authentication: bool,
    /// There are no tickets
    #[arg(long)]
    pub no_token_enrollment: bool,
    /// Only those who are trusted from the start may make enrollers; otherwise every enroller may
    #[arg(long)]
    pub enforce_admin_checks: bool,
    /// Credentials do not carry the id of the project
    #[arg(long)]
    pub disable_trust_context_id: bool,
    /// For how long credentials are valid: a number with s, m, h or d [default: 30d]
    #[arg(long, value_name = "TIME", env = "CREDENTIAL_TTL_SECS", value_parser = values::lifetime)]
    pub credential_ttl: Option<Duration>,
    /// The route by which others reach it, for its project; that of its first listener when left out
    #[arg(long, value_name = "ROUTE", value_parser = values::way)]
    pub authority_route: Option<MultiAddr>,
    /// The route to the project's own node, for its project; that of the authority when left out
    #[arg(long, value_name = "ROUTE", value_parser = values::way)]
    pub project_access_route: Option<MultiAddr>,
    /// Stay in the foreground until a signal; logs go to stderr
    #[arg(short, long)]
    pub foreground: bool,
    /// Accepted and not needed: a lock tells whether a node runs, also where process numbers repeat
    #[arg(short, long)]
    pub skip_is_running_check: bool,
    /// How log lines are written [default: text]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Refused: members of an account are for the hosted service
    #[arg(long, hide = true, value_parser = values::not_here)]
    pub account_authority: Option<String>,
    /// Refused: Okta is for the hosted service
    #[arg(long, hide = true, value_parser = values::not_here)]
    pub tenant_base_url: Option<String>,
    /// Refused: Okta is for the hosted service
    #[arg(long, hide = true, value_parser = values::not_here)]
    pub certificate: Option<String>,
    /// Refused: Okta is for the hosted service
    #[arg(long, hide = true, value_parser = values::not_here)]
    pub attributes: Option<String>,
}

/// Arguments of `authority show`.
#[derive(Args, Debug)]
pub struct AuthorityShow {
    /// The node, as n1 or /node/n1
    #[arg(value_name = "NODE", default_value = "authority", value_parser = values::node_ref)]
    pub node: NodeRef,
    /// The route by which others reach it; that of its first listener when left out
    #[arg(long, value_name = "ROUTE", value_parser = values::way)]
    pub authority_route: Option<MultiAddr>,
    /// The route to the project's own node; that of the authority when left out
    #[arg(long, value_name = "ROUTE", value_parser = values::way)]
    pub project_access_route: Option<MultiAddr>,
}

/// The help of `project ticket` and `ticket create`.
const TICKET_HELP: &str = "Examples:\n  \
    ockam ticket create --file bob.ticket\n  \
    ockam ticket create -a cluster=production --expires-in 1h --usage-count 20 --file fleet.ticket\n  \
    ockam ticket create --identity admin --enroller | ssh host ockam enroll -\n\n\
    Whoever has a ticket can become a member by it: hand it over in confidence. A file that is made here is for its owner alone.";

/// The help of `project enroll` and `enroll`.
const ENROLL_HELP: &str = "Examples:\n  \
    ockam enroll bob.ticket\n  \
    ockam enroll bob.ticket --identity bob\n  \
    ssh host ockam ticket create | ockam enroll -\n\n\
    The identity becomes a member, and the project known to this home. Doing it again renews the credential.";

/// `ockam project ...`
#[derive(Subcommand, Debug)]
pub enum ProjectCommand {
    /// Take in a project that somebody else has shown: authority, route and id; nothing in it is secret
    #[command(after_help = "Examples:\n  \
        ockam project import --project-file project.json\n  \
        ssh host ockam authority show --output json | ockam project import --project-file - --name production")]
    Import(ProjectImport),
    /// List the projects that this home knows
    #[command(after_help = "Examples:\n  ockam project list\n  ockam project list --output json")]
    List,
    /// Show one project; as JSON it is what `project import` takes
    #[command(after_help = "Examples:\n  \
        ockam project show\n  ockam project show production --output json > project.json")]
    Show(ProjectArg),
    /// Show or choose the project that commands and new nodes use when none is named
    #[command(after_help = "Examples:\n  ockam project default\n  ockam project default production")]
    Default(ProjectArg),
    /// Forget a project; nodes that believe its authority go on
    #[command(after_help = "Examples:\n  ockam project delete production --yes\n  ockam project delete --all --yes")]
    Delete(ProjectDelete),
    /// Make a ticket, by which others become members, and print it
    #[command(after_help = TICKET_HELP)]
    Ticket(TicketCreate),
    /// Become a member of a project by a ticket
    #[command(after_help = ENROLL_HELP)]
    Enroll(Enroll),
}

/// Arguments of `project import`.
#[derive(Args, Debug)]
pub struct ProjectImport {
    /// The file with the project's JSON; `-` stands for stdin
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub project_file: PathBuf,
    /// Its name here; that in the file when left out
    #[arg(long, value_name = "NAME", value_parser = values::name)]
    pub name: Option<String>,
}

/// A command about one project.
#[derive(Args, Debug)]
pub struct ProjectArg {
    /// Its name or id; the default project when left out
    #[arg(value_name = "PROJECT")]
    pub project: Option<String>,
}

/// Arguments of `project delete`.
#[derive(Args, Debug)]
pub struct ProjectDelete {
    /// Its name or id
    #[arg(value_name = "PROJECT", required_unless_present = "all", conflicts_with = "all")]
    pub project: Option<String>,
    /// All projects of this home
    #[arg(long)]
    pub all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// `ockam ticket ...`
#[derive(Subcommand, Debug)]
pub enum TicketCommand {
    /// Make a ticket and print it (as `project ticket`)
    #[command(after_help = TICKET_HELP)]
    Create(TicketCreate),
}

/// Which authority is asked, and as whom.
#[derive(Args, Debug)]
pub struct Asking {
    /// The project, by name or id; the default one when left out
    #[arg(long, visible_alias = "project-name", value_name = "PROJECT")]
    pub project: Option<String>,
    /// Who asks: an identity of this home; the default one when left out
    #[arg(long, value_name = "NAME", value_parser = values::identity_ref)]
    pub identity: Option<String>,
    /// How long to wait for an answer, such as 500ms, 10s or 2m
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::timeout)]
    pub timeout: Duration,
}

/// What a member is to be.
#[derive(Args, Debug)]
pub struct MemberAttributes {
    /// What its credentials will say; may be repeated
    #[arg(short, long = "attribute", value_name = "NAME=VALUE", value_parser = values::attribute)]
    pub attributes: Vec<values::Attribute>,
    /// The name of the relay that it may register at nodes of the project, or `*` for any
    #[arg(long, value_name = "NAME", value_parser = values::relay_name)]
    pub relay: Option<String>,
    /// It may add other members
    #[arg(long)]
    pub enroller: bool,
}

/// Arguments of `project ticket` and `ticket create`.
#[derive(Args, Debug)]
pub struct TicketCreate {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub asking: Asking,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub attributes: MemberAttributes,
    /// It may use the certificate for TLS of the project
    #[arg(long)]
    pub tls: bool,
    /// For how long it can be used: a number with s, m, h or d
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = values::lifetime)]
    pub expires_in: Duration,
    /// By how many it can be used
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub usage_count: u64,
    /// Write it to a new file that only its owner can read
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
}

/// Arguments of `project enroll` and `enroll`.
#[derive(Args, Debug)]
pub struct Enroll {
    /// A file with the ticket, or `-` for stdin; what ENROLLMENT_TICKET says when left out, a file or the ticket itself
    #[arg(value_name = "TICKET", value_parser = values::ticket, value_hint = ValueHint::FilePath)]
    pub ticket: Option<TicketArg>,
    /// Who becomes a member: an identity of this home, made if there is none of this name; the default one when left out
    #[arg(long, value_name = "NAME", value_parser = values::identity_ref)]
    pub identity: Option<String>,
    /// The name of the project here; that in the ticket when left out
    #[arg(long, value_name = "NAME", value_parser = values::name)]
    pub name: Option<String>,
    /// How long to wait for each answer of the authority, such as 500ms, 10s or 2m
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = values::timeout)]
    pub timeout: Duration,
}

/// `ockam project-member ...`
#[derive(Subcommand, Debug)]
pub enum ProjectMemberCommand {
    /// Add a member, or replace its attributes
    #[command(after_help = "Examples:\n  \
        ockam project-member add I0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef -a role=web\n  \
        ockam project-member add bob --relay blue --identity admin")]
    Add(MemberAdd),
    /// List the members with their attributes
    #[command(after_help = "Examples:\n  \
        ockam project-member list\n  ockam project-member list --identity admin --output json")]
    List(Asking),
    /// List the identifiers of the members
    #[command(after_help = "Examples:\n  \
        ockam project-member list-ids\n  ockam project-member list-ids --project production")]
    ListIds(Asking),
    /// Show one member
    #[command(after_help = "Examples:\n  \
        ockam project-member show bob\n  ockam project-member show --output json")]
    Show(MemberShow),
    /// Delete a member, and revoke the credentials that it has
    #[command(after_help = "Examples:\n  \
        ockam project-member delete bob --yes\n  ockam project-member delete --all --yes")]
    Delete(MemberDelete),
    /// Revoke the credentials that a member has; it stays one and gets new ones
    #[command(after_help = "Examples:\n  \
        ockam project-member revoke bob --yes\n  ockam project-member revoke bob --identity admin --yes")]
    Revoke(MemberRevoke),
}

/// Arguments of `project-member add`.
#[derive(Args, Debug)]
pub struct MemberAdd {
    /// Who: an identifier, or the name of an identity that this home knows
    #[arg(value_name = "IDENTITY", value_parser = values::identity_ref)]
    pub member: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub attributes: MemberAttributes,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub asking: Asking,
}

/// Arguments of `project-member show`.
#[derive(Args, Debug)]
pub struct MemberShow {
    /// Who: an identifier, or the name of an identity that this home knows; who asks when left out
    #[arg(value_name = "IDENTITY", value_parser = values::identity_ref)]
    pub member: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub asking: Asking,
}

/// Arguments of `project-member delete`.
#[derive(Args, Debug)]
pub struct MemberDelete {
    /// Who: an identifier, or the name of an identity that this home knows
    #[arg(
        value_name = "IDENTITY", value_parser = values::identity_ref, required_unless_present = "all",
        conflicts_with = "all"
    )]
    pub member: Option<String>,
    /// All members but those that the authority trusts from the start
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub asking: Asking,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// Arguments of `project-member revoke`.
#[derive(Args, Debug)]
pub struct MemberRevoke {
    /// Who: an identifier, or the name of an identity that this home knows
    #[arg(value_name = "IDENTITY", value_parser = values::identity_ref)]
    pub member: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub asking: Asking,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// `ockam policy ...`
#[derive(Subcommand, Debug)]
pub enum PolicyCommand {
    /// Say who may use a resource, or all resources of a type; it replaces the policy that there was for them
    #[command(after_help = "Examples:\n  \
        ockam policy create --resource outlet --allow '(= subject.cluster \"production\")'\n  \
        ockam policy create --at n3 --resource-type tcp-outlet --allow 'admin or cluster=production'\n  \
        ockam policy create --resource-type transit --resource 10.1.0.0/16:4000 --allow subject.has_credential=true\n\n\
        A resource is named as the node does: an outlet by its address, an inlet by its alias, a service by its address, a \
        relay's service as forwarding_service.\n\
        One form has `and`, `or`, `not`, NAME (for NAME=true), NAME=VALUE and identifiers; the other one is \
        (= subject.NAME \"VALUE\"), (and ..), (or ..), (not ..), (member? ..), (exists? ..), (if ..), < and >.")]
    Create(PolicyCreate),
    /// Show the policy for a resource, or for all of a type
    #[command(after_help = "Examples:\n  \
        ockam policy show --resource outlet\n  ockam policy show --at n3 --resource-type tcp-outlet --output json")]
    Show(PolicyArg),
    /// List the policies of a node, those that are built in, too
    #[command(after_help = "Examples:\n  ockam policy list\n  ockam policy list --at n3 --output json")]
    List(At),
    /// Delete a policy; what was before it holds again
    #[command(after_help = "Examples:\n  \
        ockam policy delete --resource outlet --yes\n  ockam policy delete --at n3 --resource-type tcp-outlet --yes")]
    Delete(PolicyDelete),
    /// Say whether somebody may use a resource, which policy decides, and why
    #[command(after_help = "Examples:\n  \
        ockam policy check outlet --subject I0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n  \
        ockam policy check outlet --at n3 -a cluster=production -a role=web\n  \
        ockam policy check echo --output json\n\n\
        It ends with 0 for yes and 77 for no.")]
    Check(PolicyCheck),
}

/// What a policy is for.
#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
pub struct PolicyFor {
    /// All resources of this type: tcp-inlet, tcp-outlet, relay, echoer, transit or service
    #[arg(long, value_name = "TYPE", value_parser = values::resource_type)]
    pub resource_type: Option<ResourceType>,
    /// The resource of this name, which need not be there yet
    #[arg(long, value_name = "NAME", value_parser = values::resource)]
    pub resource: Option<String>,
}

/// Arguments of `policy create`.
#[derive(Args, Debug)]
pub struct PolicyCreate {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub of: PolicyFor,
    /// Whom it permits
    #[arg(long, visible_alias = "expression", value_name = "EXPRESSION", value_parser = values::policy)]
    pub allow: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub at: At,
}

/// A command about one policy.
#[derive(Args, Debug)]
pub struct PolicyArg {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub of: PolicyFor,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub at: At,
}

/// Arguments of `policy delete`.
#[derive(Args, Debug)]
pub struct PolicyDelete {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub of: PolicyFor,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub at: At,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// Arguments of `policy check`.
#[derive(Args, Debug)]
pub struct PolicyCheck {
    /// The name of the resource
    #[arg(value_parser = values::resource)]
    pub resource: String,
    /// Its type, where that does not follow from the name
    #[arg(long, value_name = "TYPE", value_parser = values::resource_type)]
    pub resource_type: Option<ResourceType>,
    /// Who comes: an identifier, or the name of an identity that this home knows; somebody without an identity when left out
    #[arg(long, value_name = "IDENTITY", value_parser = values::identity_ref)]
    pub subject: Option<String>,
    /// As if it had a credential with this attribute, instead of what the node knows; may be repeated
    #[arg(short, long = "attribute", value_name = "NAME=VALUE", value_parser = values::attribute)]
    pub attributes: Vec<values::Attribute>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub at: At,
}

/// `ockam engine ...`
#[derive(Subcommand, Debug)]
pub enum EngineCommand {
    /// Show the engine of a node: process, driver and why that one, cores, memory, links
    #[command(after_help = "Examples:\n  ockam engine show\n  ockam engine show --at n1 --output json")]
    Show(At),
    /// Show what the engine has counted, per core and in all
    #[command(after_help = "Examples:\n  ockam engine stats --at n1\n  ockam engine stats --watch")]
    Stats(EngineStats),
    /// Replace the engine process; listeners stay open, links are closed
    #[command(after_help = "Examples:\n  ockam engine restart\n  ockam engine restart --at n1")]
    Restart(At),
}

/// Arguments of `engine stats`.
#[derive(Args, Debug)]
pub struct EngineStats {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub at: At,
    /// Show again every second until interrupted
    #[arg(short, long)]
    pub watch: bool,
    /// Show counters that are zero, too
    #[arg(long)]
    pub all: bool,
}

/// Arguments of `health`.
#[derive(Args, Debug)]
pub struct Health {
    /// The node, as n1 or /node/n1; the default node when left out
    #[arg(value_name = "NODE", value_parser = values::node_ref)]
    pub node: Option<NodeRef>,
    /// Be content when control and engine answer, whatever listeners, inlets and relays are up
    #[arg(long)]
    pub live: bool,
    /// How long to wait for an answer, such as 500ms or 2s
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = values::timeout)]
    pub timeout: Duration,
}

/// Arguments of `completion`.
#[derive(Args, Debug)]
pub struct Completion {
    /// Which shell
    #[arg(long, value_enum)]
    pub shell: clap_complete::Shell,
}

/// Arguments of `demo`.
#[derive(Args, Debug)]
pub struct Demo {
    /// How long to measure
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=600))]
    pub seconds: u16,
    /// Payload of each measured message in bytes
    #[arg(long, value_name = "N", default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(16..=1_048_576))]
    pub message_bytes: u32,
}

/// Arguments of the control process.
#[derive(Args, Debug)]
pub struct ControlProcess {
    /// The directory of all state, here so that a list of processes shows whose they are
    #[arg(long)]
    pub home: PathBuf,
    /// The node
    #[arg(long, value_parser = values::node_name)]
    pub node: NodeName,
}

/// Arguments of the engine process.
#[derive(Args, Debug)]
pub struct EngineProcess {
    /// The directory of the node
    #[arg(long)]
    pub node_dir: PathBuf,
    /// I/O driver
    #[arg(long, default_value = "auto", value_parser = values::driver)]
    pub driver: DriverChoice,
    /// Threads
    #[arg(long)]
    pub threads: Option<u8>,
    /// Pin threads to cores
    #[arg(long)]
    pub pin: bool,
    /// Bytes that may wait for applications
    #[arg(long)]
    pub portal_memory: Option<u64>,
}
