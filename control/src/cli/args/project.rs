//! `ockam project` and `ockam enroll`.

use super::ticket::TicketCreate;
use crate::cli::values::{self, Duration, TicketArg};
use clap::{Args, Subcommand, ValueHint};
use std::path::PathBuf;

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
    Ticket(TicketCreate),
    /// Become a member of a project by a ticket
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

/// Arguments of `project enroll` and `enroll`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    ockam enroll bob.ticket\n  \
    ockam enroll bob.ticket --identity bob\n  \
    ssh host ockam ticket create | ockam enroll -\n\n\
    The identity becomes a member, and the project known to this home. Doing it again renews the credential.")]
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
