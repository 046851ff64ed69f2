//! `ockam identity`.

use crate::cli::values::{self, HistoryArg};
use clap::{Args, Subcommand, ValueEnum};

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
    #[command(flatten)]
    pub of: IdentityArg,
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
