//! `ockam identity`.

use super::Session;
use crate::cli::args::identity::{Encoding, IdentityCommand};
use crate::cli::show::{Output, table};
use crate::cli::values::HistoryArg;
use crate::error::Error;
use crate::identities::{Identities, IdentityRow, KnownIdentity};
use crate::text::to_hex;
use ockam_crypto::{Change, ChangeHistory, PublicKey};
use serde::Serialize;

/// Runs a command.
///
/// # Errors
/// What the command says.
pub fn run(command: IdentityCommand, session: &mut Session) -> Result<(), Error> {
    match command {
        IdentityCommand::Create(arguments) => {
            let mut identities = Identities::open(session.home()?)?;
            let made = identities.create(arguments.name.as_deref(), arguments.vault.as_deref())?;
            let view = IdentityView::ours(&made);
            let plain = || {
                let default = if made.is_default { ", the default one" } else { "" };
                format!(
                    "Created the identity {}{default}, with its key in the vault {}.\n{}",
                    made.name, made.vault, made.identifier
                )
            };
            session.terminal.print(Output::new(&view, plain).machine(made.identifier.to_string()))
        }
        IdentityCommand::Import(arguments) => {
            let mut identities = Identities::open(session.home()?)?;
            let (name, vault) = (arguments.name.as_deref(), arguments.vault.as_deref());
            let history = match arguments.history {
                HistoryArg::Given(history) => history,
                HistoryArg::Stdin => history_of_stdin()?,
            };
            let known = identities.import(&history, name, vault)?;
            let plain = || match (&known.name, &known.vault) {
                (Some(name), Some(vault)) => {
                    format!("The identity {name} has its key in the vault {vault}.\n{}", known.identifier)
                }
                (Some(name), None) => format!("{} is known as {name}.", known.identifier),
                (None, _) => format!("{} is known.", known.identifier),
            };
            session.terminal.print(Output::new(&IdentityView::of(&known), plain).machine(known.identifier.to_string()))
        }
        IdentityCommand::Export(argument) => {
            let (known, history) = find(session, argument.name.as_deref())?;
            let view = Exported { identifier: known.identifier.to_string(), change_history: history.to_hex() };
            let plain = || view.change_history.clone();
            session.terminal.print(Output::new(&view, plain).machine(view.change_history.clone()))
        }
        IdentityCommand::List => list(session),
        IdentityCommand::Show(arguments) => {
            show(session, arguments.of.name.as_deref(), arguments.full, arguments.encoding)
        }
        IdentityCommand::Default(argument) => {
            let row = match argument.name.as_deref() {
                Some(name) => existing(session, Some(name))?.set_default(name)?,
                None => existing(session, None)?.named(None)?,
            };
            let plain = || match &argument.name {
                Some(_) => format!("The default identity is now {}.", row.name),
                None => row.name.clone(),
            };
            session.terminal.print(Output::new(&IdentityView::ours(&row), plain).machine(row.name.clone()))
        }
        IdentityCommand::Rotate(argument) => {
            let (row, history) = existing(session, argument.name.as_deref())?.rotate(argument.name.as_deref())?;
            let view = FullView::of(IdentityView::ours(&row), &history);
            let plain = || {
                let count = history.changes().len();
                format!(
                    "The identity {} has its {} key now. Those who know it accept it: {}",
                    row.name,
                    ordinal(count),
                    row.identifier
                )
            };
            session.terminal.print(Output::new(&view, plain).machine(row.identifier.to_string()))
        }
        IdentityCommand::Delete(arguments) => {
            let names = if arguments.all {
                let identities = Identities::open_existing(session.home()?)?;
                let all = identities.map_or(Ok(Vec::new()), |it| it.list())?;
                all.iter().map(shown_name).collect()
            } else {
                vec![shown_name(&find(session, arguments.name.as_deref())?.0)]
            };
            let question = format!("Delete {}, with its keys?", names.join(", "));
            if !names.is_empty() && !session.terminal.confirm(arguments.yes, &question)? {
                return Ok(());
            }
            for name in &names {
                existing(session, Some(name))?.delete(Some(name))?;
            }
            print_deleted(session, &names, arguments.all, "There are no identities.")
        }
    }
}

fn history_of_stdin() -> Result<ChangeHistory, Error> {
    let what = || "the line of stdin for the history".to_owned();
    let fix = || "Pipe what `ockam identity export` prints into this command.".to_owned();
    let line = crate::cli::stdin::read_line().map_err(|error| match error.raw_os_error() {
        Some(errno) => Error::Io { what: "cannot read the history from stdin".into(), errno },
        None => Error::BadData { what: what(), why: error.to_string(), fix: fix() },
    })?;
    if line.trim().is_empty() {
        return Err(Error::InputMissing { what: what(), fix: fix() });
    }
    ChangeHistory::from_hex(&line).map_err(|error| Error::BadData { what: what(), why: error.to_string(), fix: fix() })
}

/// Says what was deleted: an object for one, an array for all.
pub(super) fn print_deleted(session: &Session, names: &[String], all: bool, none: &str) -> Result<(), Error> {
    #[derive(Serialize)]
    struct Deleted<'a> {
        name: &'a str,
    }
    let plain = || if names.is_empty() { none.to_owned() } else { format!("Deleted {}.", names.join(", ")) };
    let views: Vec<Deleted> = names.iter().map(|name| Deleted { name }).collect();
    let machine = names.join("\n");
    match (all, views.as_slice()) {
        (false, [view]) => session.terminal.print(Output::new(view, plain).machine(machine)),
        (_, views) => session.terminal.print(Output::new(&views, plain).machine(machine)),
    }
}

/// For commands about an identity that must exist.
fn existing(session: &mut Session, name: Option<&str>) -> Result<Identities, Error> {
    Identities::open_existing(session.home()?)?.ok_or_else(|| match name {
        Some(name) => Error::NoSuchIdentity { name: name.into(), near: Vec::new() },
        None => Error::NoIdentities,
    })
}

fn find(session: &mut Session, name: Option<&str>) -> Result<(KnownIdentity, ChangeHistory), Error> {
    let identities = existing(session, name)?;
    let known = identities.find(name)?;
    let history = identities.known(&known.identifier)?;
    let gone = || Error::NoSuchIdentity { name: shown_name(&known), near: Vec::new() };
    Ok((known.clone(), history.ok_or_else(gone)?))
}

fn shown_name(known: &KnownIdentity) -> String {
    known.name.clone().unwrap_or_else(|| known.identifier.to_string())
}

fn list(session: &mut Session) -> Result<(), Error> {
    let all = match Identities::open_existing(session.home()?)? {
        Some(identities) => identities.list()?,
        None => Vec::new(),
    };
    let views: Vec<IdentityView> = all.iter().map(IdentityView::of).collect();
    let plain = || {
        let rows = views.iter().map(|it| {
            let default = if it.is_default { "yes" } else { "" };
            let vault = it.vault_name.clone().unwrap_or_else(|| "(somebody else's)".into());
            [it.name.clone().unwrap_or_default(), vault, default.into(), it.identifier.clone()]
        });
        let none = "There are no identities. Make one with `ockam identity create`.";
        table(["NAME", "VAULT", "DEFAULT", "IDENTIFIER"], rows, none)
    };
    session.terminal.print(Output::new(&views, plain))
}

fn show(session: &mut Session, name: Option<&str>, full: bool, encoding: Encoding) -> Result<(), Error> {
    let (known, history) = find(session, name)?;
    let view = IdentityView::of(&known);
    if !full {
        let plain = || describe(&known).join("\n");
        return session.terminal.print(Output::new(&view, plain).machine(known.identifier.to_string()));
    }
    let full = FullView::of(view, &history);
    let plain = || match encoding {
        Encoding::Hex => full.change_history.clone(),
        Encoding::Plain => {
            let mut lines = describe(&known);
            for (number, change) in history.changes().iter().enumerate() {
                lines.extend(ChangeView::of(change).lines(&format!("{} key", ordinal(number + 1))));
            }
            lines.join("\n")
        }
    };
    let output = Output::new(&full, plain);
    session.terminal.print(match encoding {
        Encoding::Hex => output.machine(full.change_history.clone()),
        Encoding::Plain => output,
    })
}

fn describe(known: &KnownIdentity) -> Vec<String> {
    let default = if known.is_default { " (default)" } else { "" };
    let mut lines = vec![format!("{}{default}", known.name.as_deref().unwrap_or("an identity without a name"))];
    lines.push(format!("  identifier  {}", known.identifier));
    lines.push(format!(
        "  key         {}",
        match &known.vault {
            Some(vault) => format!("in the vault {vault}"),
            None => "somebody else's".into(),
        }
    ));
    lines
}

/// An identity as scripts know it (`cli.md` 1.5).
#[derive(Serialize)]
struct IdentityView {
    identifier: String,
    name: Option<String>,
    vault_name: Option<String>,
    is_default: bool,
}

impl IdentityView {
    fn ours(row: &IdentityRow) -> IdentityView {
        IdentityView {
            identifier: row.identifier.to_string(),
            name: Some(row.name.clone()),
            vault_name: Some(row.vault.clone()),
            is_default: row.is_default,
        }
    }

    fn of(known: &KnownIdentity) -> IdentityView {
        IdentityView {
            identifier: known.identifier.to_string(),
            name: known.name.clone(),
            vault_name: known.vault.clone(),
            is_default: known.is_default,
        }
    }
}

#[derive(Serialize)]
struct FullView {
    #[serde(flatten)]
    identity: IdentityView,
    change_history: String,
    changes: Vec<ChangeView>,
}

impl FullView {
    fn of(identity: IdentityView, history: &ChangeHistory) -> FullView {
        let changes = history.changes().iter().map(ChangeView::of).collect();
        FullView { identity, change_history: history.to_hex(), changes }
    }
}

#[derive(Serialize)]
pub(super) struct ChangeView {
    hash: String,
    key_type: &'static str,
    key: String,
    /// Seconds of Unix time, as the next.
    valid_from: u64,
    valid_until: u64,
}

impl ChangeView {
    pub(super) fn of(change: &Change) -> ChangeView {
        let (key_type, key) = match &change.key {
            PublicKey::Ed25519(key) => ("Ed25519", to_hex(key)),
            PublicKey::P256(key) => ("P-256", to_hex(key)),
        };
        let (valid_from, valid_until) = (change.validity.from, change.validity.until);
        ChangeView { hash: to_hex(&change.hash), key_type, key, valid_from, valid_until }
    }

    pub(super) fn lines(&self, label: &str) -> [String; 2] {
        [
            format!("  {label:<12}{} {}", self.key_type, self.key),
            format!("  {:<12}from {} to {}", "", date(self.valid_from), date(self.valid_until)),
        ]
    }
}

#[derive(Serialize)]
struct Exported {
    identifier: String,
    change_history: String,
}

pub(super) fn ordinal(number: usize) -> String {
    let suffix = match (number % 10, number % 100) {
        (1, rest) if rest != 11 => "st",
        (2, rest) if rest != 12 => "nd",
        (3, rest) if rest != 13 => "rd",
        _ => "th",
    };
    format!("{number}{suffix}")
}

/// The day in UTC, as `2026-11-22`.
fn date(seconds: u64) -> String {
    // Eras of 400 years have 146,097 days; years begin in March, so that the leap day is the last one.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year)
}

/// The second in UTC, as `2026-11-22 09:30:05 UTC`.
pub(super) fn date_time(seconds: u64) -> String {
    let second = seconds % 86_400;
    format!("{} {:02}:{:02}:{:02} UTC", date(seconds), second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, want) in [
            (0, "1970-01-01"),
            (86_399, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (1_709_251_199, "2024-02-29"),
            (1_735_689_599, "2024-12-31"),
            (1_750_000_000, "2025-06-15"),
            (4_107_542_400, "2100-03-01"),
        ] {
            assert_eq!(date(seconds), want);
        }
        assert_eq!(date_time(1_750_000_000), "2025-06-15 15:06:40 UTC");
        // A time from a stranger may be any.
        assert!(date_time(u64::MAX).ends_with("UTC"));
    }

    #[test]
    fn keys_are_counted_in_words() {
        let words: Vec<String> = [1, 2, 3, 4, 11, 12, 13, 21, 22, 63].into_iter().map(ordinal).collect();
        assert_eq!(words, ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "63rd"]);
    }
}
