//! `ockam vault`.

use super::Session;
use crate::cli::args::vault::{VaultBackup, VaultCommand, VaultRestore};
use crate::cli::show::{Output, table};
use crate::error::Error;
use crate::identities::{BackupSeal, DEFAULT_VAULT, Identities, Outcome, RestoreAs, RestoredIdentity, VaultRow};
use serde::Serialize;

/// Runs a command.
///
/// # Errors
/// What the command says.
pub fn run(command: VaultCommand, session: &mut Session) -> Result<(), Error> {
    match command {
        VaultCommand::Create(arguments) => {
            let (path, passphrase_file) = (arguments.path.as_deref(), arguments.passphrase_file.as_deref());
            let name = arguments.name.as_deref();
            let made = Identities::open(session.home()?)?.create_vault(name, path, passphrase_file)?;
            print(session, &made, "There is now")
        }
        VaultCommand::List => {
            let vaults = match Identities::open_existing(session.home()?)? {
                Some(identities) => identities.vaults()?,
                None => Vec::new(),
            };
            let views: Vec<VaultView> = vaults.iter().map(VaultView::of).collect();
            let plain = || {
                let rows = vaults.iter().map(|it| {
                    let default = if it.is_default { "yes" } else { "" };
                    [it.name.clone(), kind(it).into(), default.into(), it.place.path.display().to_string()]
                });
                let none = "There are no vaults. One is made with the first identity, or by `ockam vault create`.";
                table(["NAME", "TYPE", "DEFAULT", "FILE"], rows, none)
            };
            session.terminal.print(Output::new(&views, plain))
        }
        VaultCommand::Show(arguments) => {
            let vault = existing(session, arguments.name.as_deref())?.vault(arguments.name.as_deref())?;
            let plain = || {
                let mut lines = vec![format!("{}{}", vault.name, if vault.is_default { " (default)" } else { "" })];
                lines.push(format!("  type        {}", kind(&vault)));
                lines.push(format!("  file        {}", vault.place.path.display()));
                if let Some(file) = &vault.place.passphrase_file {
                    lines.push(format!("  passphrase  in {}", file.display()));
                }
                lines.join("\n")
            };
            session.terminal.print(Output::new(&VaultView::of(&vault), plain).machine(vault.name.clone()))
        }
        VaultCommand::Move(arguments) => {
            let (path, passphrase_file) = (arguments.path.as_deref(), arguments.passphrase_file.as_deref());
            let mut identities = existing(session, Some(&arguments.name))?;
            let moved = identities.move_vault(&arguments.name, path, passphrase_file)?;
            print(session, &moved, "Moved")
        }
        VaultCommand::Passphrase(arguments) => {
            let mut identities = existing(session, arguments.name.as_deref())?;
            let changed =
                identities.change_passphrase(arguments.name.as_deref(), arguments.new_passphrase_file.as_deref())?;
            if arguments.plain {
                let path = changed.place.path.display();
                session.terminal.warn(format_args!("whoever can read {path} has the keys"));
            }
            print(session, &changed, "There is now")
        }
        VaultCommand::Backup(arguments) => back_up(arguments, session),
        VaultCommand::Restore(arguments) => restore(arguments, session),
        VaultCommand::Delete(arguments) => {
            let names = if arguments.all {
                let identities = Identities::open_existing(session.home()?)?;
                identities.map_or(Ok(Vec::new()), |it| it.vaults())?.into_iter().map(|vault| vault.name).collect()
            } else {
                vec![existing(session, arguments.name.as_deref())?.vault(arguments.name.as_deref())?.name]
            };
            let list = names.join(", ");
            if !names.is_empty() && !session.terminal.confirm(arguments.yes, &format!("Delete {list}?"))? {
                return Ok(());
            }
            for name in &names {
                let deleted = existing(session, Some(name))?.delete_vault(name)?;
                if let Some(why) = deleted.file_left {
                    let path = deleted.vault.place.path.display();
                    session.terminal.warn(format_args!("{path} was left where it is: it {why}"));
                }
            }
            super::identity::print_deleted(session, &names, arguments.all, "There are no vaults.")
        }
    }
}

fn back_up(arguments: VaultBackup, session: &mut Session) -> Result<(), Error> {
    let seal = match arguments.passphrase_file {
        _ if arguments.plain => BackupSeal::Plain,
        Some(file) => BackupSeal::PassphraseFile(file),
        None => BackupSeal::AsVault,
    };
    let name = arguments.name.as_deref();
    let made = existing(session, name)?.back_up(name, &arguments.to, &seal)?;
    let to = arguments.to.display().to_string();
    if arguments.plain {
        session.terminal.warn(format_args!("whoever can read {to} has the keys"));
    }
    let view = BackupView {
        vault: VaultView::of(&made.vault).vault,
        backup: to.clone(),
        is_encrypted: made.passphrase_file.is_some(),
        identities: made.identities,
        keys: made.keys,
    };
    let plain = || {
        let identities = match view.identities.as_slice() {
            [] => "It has no identity.".to_owned(),
            [one] => format!("It has the identity {one}."),
            all => format!("It has the identities {}.", all.join(", ")),
        };
        let passphrase = match &made.passphrase_file {
            Some(file) => format!("\nOnly the passphrase that is now in {} opens it.", file.display()),
            None => String::new(),
        };
        format!("Wrote the vault {} to {to}. {identities}{passphrase}", view.vault.name)
    };
    session.terminal.print(Output::new(&view, plain).machine(to.clone()))
}

fn restore(arguments: VaultRestore, session: &mut Session) -> Result<(), Error> {
    let to = RestoreAs { name: arguments.name, path: arguments.path, passphrase_file: arguments.vault_passphrase_file };
    let mut identities = Identities::open(session.home()?)?;
    let restored = identities.restore(&arguments.from, arguments.passphrase_file.as_deref(), &to)?;
    let view = RestoreView {
        vault: VaultView::of(&restored.vault).vault,
        made_at: restored.made_at,
        keys_added: restored.keys_added,
        identities: restored.identities.iter().map(RestoredIdentityView::of).collect(),
    };
    let plain = || {
        let made = super::identity::date_time(restored.made_at);
        let mut lines = vec![format!("The vault {} is as in the backup of {made}.", restored.vault.name)];
        lines.extend(restored.identities.iter().map(|it| {
            let outcome = match it.outcome {
                Outcome::Restored => "restored",
                Outcome::Present => "was here already",
                Outcome::Outdated => "has changed its key since; the one in the backup was left out",
            };
            format!("  {:<12}{outcome}", it.name)
        }));
        lines.join("\n")
    };
    session.terminal.print(Output::new(&view, plain).machine(restored.vault.name.clone()))
}

/// For commands about a vault that must exist.
fn existing(session: &mut Session, name: Option<&str>) -> Result<Identities, Error> {
    let no_vault = || Error::NoSuchVault { name: name.unwrap_or(DEFAULT_VAULT).into(), near: Vec::new() };
    Identities::open_existing(session.home()?)?.ok_or_else(no_vault)
}

fn kind(vault: &VaultRow) -> &'static str {
    if vault.place.passphrase_file.is_some() { "encrypted" } else { "plain" }
}

fn print(session: &Session, vault: &VaultRow, done: &str) -> Result<(), Error> {
    let plain = || {
        let default = if vault.is_default { ", the default one" } else { "" };
        format!("{done} the {} vault {}{default}, in {}.", kind(vault), vault.name, vault.place.path.display())
    };
    session.terminal.print(Output::new(&VaultView::of(vault), plain).machine(vault.name.clone()))
}

#[derive(Serialize)]
struct BackupView {
    vault: Inner,
    backup: String,
    is_encrypted: bool,
    identities: Vec<String>,
    keys: usize,
}

#[derive(Serialize)]
struct RestoreView {
    vault: Inner,
    /// Seconds of Unix time.
    made_at: u64,
    keys_added: usize,
    identities: Vec<RestoredIdentityView>,
}

#[derive(Serialize)]
struct RestoredIdentityView {
    name: String,
    identifier: String,
    /// `restored`, `present` or `outdated`.
    outcome: &'static str,
}

impl RestoredIdentityView {
    fn of(identity: &RestoredIdentity) -> RestoredIdentityView {
        let outcome = match identity.outcome {
            Outcome::Restored => "restored",
            Outcome::Present => "present",
            Outcome::Outdated => "outdated",
        };
        RestoredIdentityView { name: identity.name.clone(), identifier: identity.identifier.to_string(), outcome }
    }
}

/// The form that scripts know (`cli.md` 1.5), and where the files are.
#[derive(Serialize)]
struct VaultView {
    vault: Inner,
}

#[derive(Serialize)]
struct Inner {
    name: String,
    vault_type: &'static str,
    is_default: bool,
    path: String,
    passphrase_file: Option<String>,
}

impl VaultView {
    fn of(vault: &VaultRow) -> VaultView {
        VaultView {
            vault: Inner {
                name: vault.name.clone(),
                vault_type: kind(vault),
                is_default: vault.is_default,
                path: vault.place.path.display().to_string(),
                passphrase_file: vault.place.passphrase_file.as_ref().map(|file| file.display().to_string()),
            },
        }
    }
}
