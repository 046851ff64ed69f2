//! What several commands are told in the same words.

use crate::cli::values::{self, Attribute, Duration, NodeRef};
use clap::Args;
use ockam_crypto::Identifier;

/// `--at NODE`, for commands that talk to one node.
#[derive(Args, Debug)]
pub struct At {
    /// The node, as n1 or /node/n1; the default node when left out
    #[arg(long, value_name = "NODE", value_parser = values::node_ref)]
    pub at: Option<NodeRef>,
}

/// A command that asks before it does what cannot be undone.
#[derive(Args, Debug)]
pub struct Confirmed<What: Args> {
    #[command(flatten)]
    pub what: What,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
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
    pub attributes: Vec<Attribute>,
    /// The name of the relay that it may register at nodes of the project, or `*` for any
    #[arg(long, value_name = "NAME", value_parser = values::relay_name)]
    pub relay: Option<String>,
    /// It may add other members
    #[arg(long)]
    pub enroller: bool,
}
