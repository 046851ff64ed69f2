//! `ockam authority`.

use super::LogFormat;
use crate::cli::values::{self, Duration, HostPort, NodeRef};
use crate::home::NodeName;
use clap::{Args, Subcommand};
use ockam_wire::MultiAddr;

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
