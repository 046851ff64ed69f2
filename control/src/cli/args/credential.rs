//! `ockam credential`.

use super::shared::At;
use crate::cli::values::{self, Attribute, Duration, IdentityOrHistory};
use clap::{Args, Subcommand, ValueEnum, ValueHint};
use std::path::PathBuf;

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
    pub attributes: Vec<Attribute>,
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
    pub issuer: IdentityOrHistory,
    #[command(flatten)]
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
    pub credential: CredentialBy,
    /// About whom it must be: an identifier, or the name of an identity that this home knows; whoever it names when left out
    #[arg(long = "for", value_name = "IDENTITY", value_parser = values::identity_ref)]
    pub subject: Option<String>,
}

/// Arguments of `credential store`.
#[derive(Args, Debug)]
pub struct CredentialStore {
    #[command(flatten)]
    pub credential: CredentialBy,
    /// What it is filed under: the id of the project, where there is one
    #[arg(long, default_value = "project", value_name = "SCOPE", value_parser = values::scope)]
    pub scope: String,
    #[command(flatten)]
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
    pub at: At,
}

/// Arguments of `credential show`.
#[derive(Args, Debug)]
pub struct CredentialShow {
    /// About whom: its identifier, or its name here; the node itself when left out
    #[arg(value_name = "IDENTITY", value_parser = values::identity_ref)]
    pub subject: Option<String>,
    #[command(flatten)]
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
    pub at: At,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}
