//! `ockam vault`.

use crate::cli::values;
use clap::{Args, Subcommand, ValueHint};
use std::path::PathBuf;

/// `ockam vault ...`
#[derive(Subcommand, Debug)]
pub enum VaultCommand {
    /// Make a vault, or take up the one that a file holds
    #[command(after_help = "Examples:\n  \
        ockam vault create\n  ockam vault create work --path /media/key/work.vault\n  \
        ockam vault create safe --passphrase-file ~/.safe-passphrase")]
    Create(VaultCreate),
    /// List the vaults of this home
    #[command(after_help = "Examples:\n  ockam vault list\n  ockam vault list --output json")]
    List,
    /// Show one vault
    #[command(after_help = "Examples:\n  ockam vault show\n  ockam vault show work --output json")]
    Show(VaultArg),
    /// Move the file of a vault, or say where its passphrase is now
    #[command(after_help = "Examples:\n  \
        ockam vault move work --path /media/key/work.vault\n  \
        ockam vault move safe --passphrase-file /media/key/passphrase")]
    Move(VaultMove),
    /// Encrypt a vault with another passphrase, for the first time, or no longer
    #[command(after_help = "Examples:\n  \
        ockam vault passphrase safe --new-passphrase-file ~/.new-passphrase\n  \
        ockam vault passphrase safe --plain\n\n\
        The file with the passphrase so far must still be in its place.")]
    Passphrase(VaultPassphrase),
    /// Write a vault, with the identities whose keys it has, into an encrypted file
    #[command(after_help = "Examples:\n  \
        ockam vault backup --to /media/backup/vault.backup --passphrase-file ~/.backup-passphrase\n  \
        ockam vault backup safe --to safe-2026-11-23.backup\n\n\
        After `ockam identity rotate` make another one: the key that the identity had before is worth nothing.")]
    Backup(VaultBackup),
    /// Bring back what a backup has and this home has not; nothing is replaced
    #[command(after_help = "Examples:\n  \
        ockam vault restore /media/backup/vault.backup --passphrase-file ~/.backup-passphrase\n  \
        ockam vault restore safe.backup --passphrase-file ~/.p --name safe2\n\n\
        An identity that has changed its key since the backup was made, as far as this home knows, keeps the new one.")]
    Restore(VaultRestore),
    /// Delete a vault that no identity uses
    #[command(after_help = "Examples:\n  ockam vault delete work --yes\n  ockam vault delete --all --yes")]
    Delete(VaultDelete),
}

/// Arguments of `vault create`.
#[derive(Args, Debug)]
pub struct VaultCreate {
    /// Name: letters, digits, `_` and `-`; `default` for the first one, then two random words, when left out
    #[arg(value_parser = values::name)]
    pub name: Option<String>,
    /// Its file; one in the home when left out
    #[arg(long, value_name = "FILE")]
    pub path: Option<PathBuf>,
    /// Encrypt it with the passphrase in this file, which is read again whenever a key is needed
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

/// A command about one vault.
#[derive(Args, Debug)]
pub struct VaultArg {
    /// Its name; the default vault when left out
    #[arg(value_name = "VAULT", value_parser = values::name)]
    pub name: Option<String>,
}

/// Arguments of `vault move`.
#[derive(Args, Debug)]
pub struct VaultMove {
    /// Its name
    #[arg(value_name = "VAULT", value_parser = values::name)]
    pub name: String,
    /// Its new file
    #[arg(long, value_name = "FILE", required_unless_present = "passphrase_file")]
    pub path: Option<PathBuf>,
    /// The file that holds its passphrase from now on
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

/// Arguments of `vault passphrase`.
#[derive(Args, Debug)]
pub struct VaultPassphrase {
    /// Its name; the default vault when left out
    #[arg(value_name = "VAULT", value_parser = values::name)]
    pub name: Option<String>,
    /// The file that holds the new passphrase, which is read again whenever a key is needed
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub new_passphrase_file: Option<PathBuf>,
    /// Leave the keys in the clear
    #[arg(long, conflicts_with = "new_passphrase_file", required_unless_present = "new_passphrase_file")]
    pub plain: bool,
}

/// Arguments of `vault backup`.
#[derive(Args, Debug)]
pub struct VaultBackup {
    /// Its name; the default vault when left out
    #[arg(value_name = "VAULT", value_parser = values::name)]
    pub name: Option<String>,
    /// The file to write, which must not exist
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub to: PathBuf,
    /// The file that holds the passphrase of the backup; that of the vault when left out
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub passphrase_file: Option<PathBuf>,
    /// Do not encrypt the backup: whoever has it has the keys
    #[arg(long, conflicts_with = "passphrase_file")]
    pub plain: bool,
}

/// Arguments of `vault restore`.
#[derive(Args, Debug)]
pub struct VaultRestore {
    /// The backup
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub from: PathBuf,
    /// The file that holds the passphrase of the backup
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub passphrase_file: Option<PathBuf>,
    /// The name of the restored vault; the one it had when left out
    #[arg(long, value_name = "VAULT", value_parser = values::name)]
    pub name: Option<String>,
    /// The file of the restored vault; one in the home when left out
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub path: Option<PathBuf>,
    /// The file that holds the passphrase for the restored vault; that of the backup, if the vault was encrypted, when left
    /// out
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub vault_passphrase_file: Option<PathBuf>,
}

/// Arguments of `vault delete`.
#[derive(Args, Debug)]
pub struct VaultDelete {
    /// Its name; the default vault when left out
    #[arg(value_name = "VAULT", value_parser = values::name, conflicts_with = "all")]
    pub name: Option<String>,
    /// All vaults of this home
    #[arg(long)]
    pub all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}
