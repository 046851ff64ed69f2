//! `ockam policy`.

use super::shared::{At, Confirmed};
use crate::api::ResourceType;
use crate::cli::values::{self, Attribute};
use clap::{Args, Subcommand};

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
    Delete(Confirmed<PolicyArg>),
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
    pub of: PolicyFor,
    /// Whom it permits
    #[arg(long, visible_alias = "expression", value_name = "EXPRESSION", value_parser = values::policy)]
    pub allow: String,
    #[command(flatten)]
    pub at: At,
}

/// A command about one policy.
#[derive(Args, Debug)]
pub struct PolicyArg {
    #[command(flatten)]
    pub of: PolicyFor,
    #[command(flatten)]
    pub at: At,
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
    pub attributes: Vec<Attribute>,
    #[command(flatten)]
    pub at: At,
}
