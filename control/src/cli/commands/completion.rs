//! `ockam completion`.

use crate::cli::args::Cli;
use crate::cli::args::completion::Completion;
use crate::cli::show::write_stdout;
use crate::error::Error;
use clap::CommandFactory;

/// Writes the script. It ends with a newline wherever it goes: it is a file, not a value.
///
/// # Errors
/// Stdout cannot be written.
pub fn run(arguments: &Completion) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "ockam", &mut script);
    write_stdout(&[&script])
}
