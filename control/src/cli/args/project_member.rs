//! `ockam project-member`.

use super::shared::{Asking, Confirmed, MemberAttributes};
use crate::cli::values;
use clap::{Args, Subcommand};

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
    Revoke(Confirmed<MemberArg>),
}

/// Arguments of `project-member add`.
#[derive(Args, Debug)]
pub struct MemberAdd {
    /// Who: an identifier, or the name of an identity that this home knows
    #[arg(value_name = "IDENTITY", value_parser = values::identity_ref)]
    pub member: String,
    #[command(flatten)]
    pub attributes: MemberAttributes,
    #[command(flatten)]
    pub asking: Asking,
}

/// Arguments of `project-member show`.
#[derive(Args, Debug)]
pub struct MemberShow {
    /// Who: an identifier, or the name of an identity that this home knows; who asks when left out
    #[arg(value_name = "IDENTITY", value_parser = values::identity_ref)]
    pub member: Option<String>,
    #[command(flatten)]
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
    pub asking: Asking,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// A command about one member.
#[derive(Args, Debug)]
pub struct MemberArg {
    /// Who: an identifier, or the name of an identity that this home knows
    #[arg(value_name = "IDENTITY", value_parser = values::identity_ref)]
    pub member: String,
    #[command(flatten)]
    pub asking: Asking,
}
