//! `ockam environment`: every variable that is read.

use super::{Session, ticket};
use crate::cli::show::{Output, table};
use crate::error::Error;
use serde::Serialize;

#[derive(Serialize)]
struct Variable {
    name: &'static str,
    /// What holds when it is not set.
    default: &'static str,
    description: &'static str,
    /// What it is set to.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
}

const VARIABLES: &[(&str, &str, &str)] = &[
    ("OCKAM_HOME", "~/.ockam", "Where nodes and their state live"),
    ("HOME", "", "Parent of the default OCKAM_HOME"),
    ("QUIET", "", "Write nothing to stderr but errors, as --quiet"),
    ("NO_COLOR", "", "No colours, as --no-color"),
    ("NO_INPUT", "", "Never ask, as --no-input"),
    ("RUST_LOG", "", "Which events nodes log, such as info or ockam=debug; prevails over -v"),
    ("NOTIFY_SOCKET", "", "Where a node in the foreground tells a service manager how it is, set by that"),
    ("WATCHDOG_USEC", "", "How often it has to say that it lives, set by a service manager"),
    (
        "LISTEN_FDS",
        "",
        "Listening sockets for it: of the node, `listener`, and of inlets, by alias; set by a service manager",
    ),
    (
        "ENROLLMENT_TICKET",
        "",
        "The ticket by which `ockam enroll` and new nodes become members: a file, or the ticket itself",
    ),
    ("CREDENTIAL_TTL_SECS", "30d", "For how long credentials of a new authority are valid, as --credential-ttl"),
    ("TMPDIR", "/tmp", "Where `ockam demo` makes its temporary home"),
];

/// Lists them.
///
/// # Errors
/// Stdout cannot be written.
pub fn run(session: &mut Session) -> Result<(), Error> {
    let variables: Vec<Variable> = VARIABLES
        .iter()
        .map(|&(name, default, description)| {
            let value = std::env::var_os(name).map(|value| match name {
                // Whoever reads a ticket can use it.
                ticket::VARIABLE => "(set)".to_owned(),
                _ => value.to_string_lossy().into_owned(),
            });
            Variable { name, default, description, value }
        })
        .collect();
    let plain = || {
        let rows = variables.iter().map(|it| {
            let now = it.value.as_deref().unwrap_or(it.default);
            [it.name.into(), crate::text::escape(now.as_bytes(), 60), it.description.into()]
        });
        table(["VARIABLE", "VALUE", "MEANING"], rows, "")
    };
    session.terminal.print(Output::new(&variables, plain))
}
