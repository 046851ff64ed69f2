//! What reaches stdout (`cli.md` 1.1): on a terminal the text for people, in a pipe one bare value without a newline,
//! JSON wherever it is asked for. Progress, warnings and hints go to stderr.

use crate::cli::args::{Globals, OutputFormat};
use crate::error::Error;
use serde::Serialize;
use std::fmt::Display;
use std::io::{ErrorKind, IsTerminal, Write};

/// The result of a command, in the forms it has. Only the one that is written is made.
pub struct Output<'a> {
    plain: Box<dyn FnOnce() -> String + 'a>,
    machine: Option<String>,
    /// The argument says whether it shall be on one line.
    json: Box<dyn FnOnce(bool) -> String + 'a>,
}

impl<'a> Output<'a> {
    /// A result with a JSON form and a text for people.
    pub fn new(json: &'a impl Serialize, plain: impl FnOnce() -> String + 'a) -> Output<'a> {
        let json = |compact| {
            let text = if compact { serde_json::to_string(json) } else { serde_json::to_string_pretty(json) };
            text.expect("API types have string keys and finite numbers")
        };
        Output { plain: Box::new(plain), machine: None, json: Box::new(json) }
    }

    /// Adds the one bare value that a script wants.
    pub fn machine(mut self, value: impl Into<String>) -> Output<'a> {
        self.machine = Some(value.into());
        self
    }
}

/// Which form of a result is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    Machine,
    Json,
}

fn choose(format: OutputFormat, is_terminal: bool, has_machine: bool) -> Form {
    match (format, is_terminal, has_machine) {
        (OutputFormat::Json, ..) => Form::Json,
        (OutputFormat::Plain, true, _) => Form::Plain,
        (OutputFormat::Plain, false, true) => Form::Machine,
        (OutputFormat::Plain, false, false) => Form::Json,
    }
}

/// Where a command writes, and how.
#[derive(Debug, Clone, Copy)]
pub struct Terminal {
    /// The format asked for.
    pub format: OutputFormat,
    /// JSON on one line.
    pub compact: bool,
    /// Nothing on stderr but errors.
    pub quiet: bool,
    /// Questions may be asked.
    pub interactive: bool,
    /// Stderr shows colours.
    pub colour: bool,
    /// Stdout is a terminal.
    pub stdout_is_terminal: bool,
}

impl Terminal {
    /// From the global options and what the standard streams are.
    pub fn new(globals: &Globals) -> Terminal {
        let stdout_is_terminal = std::io::stdout().is_terminal();
        let implied = if globals.compact_output { OutputFormat::Json } else { OutputFormat::Plain };
        Terminal {
            format: globals.output.unwrap_or(implied),
            compact: globals.compact_output,
            quiet: globals.quiet,
            interactive: !globals.no_input && stdout_is_terminal && std::io::stdin().is_terminal(),
            colour: !globals.no_color && std::io::stderr().is_terminal(),
            stdout_is_terminal,
        }
    }

    /// Whether results and errors are JSON.
    pub fn is_json(&self) -> bool {
        self.format == OutputFormat::Json
    }

    /// Writes a result to stdout.
    ///
    /// # Errors
    /// Stdout took not all of it. A reader that went away is no error.
    pub fn print(&self, output: Output<'_>) -> Result<(), Error> {
        let text = match choose(self.format, self.stdout_is_terminal, output.machine.is_some()) {
            Form::Plain => (output.plain)(),
            Form::Machine => output.machine.unwrap_or_default(),
            Form::Json => (output.json)(self.compact),
        };
        self.print_text(&text)
    }

    /// Writes text to stdout, with a newline on a terminal only.
    ///
    /// # Errors
    /// As [`Terminal::print`].
    pub fn print_text(&self, text: &str) -> Result<(), Error> {
        let end = if self.stdout_is_terminal { "\n" } else { "" };
        write_stdout(&[text.as_bytes(), end.as_bytes()])
    }

    /// Tells a person something beside the result.
    pub fn note(&self, text: impl Display) {
        if !self.quiet {
            // Nothing can be done for a person whose stderr is closed.
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// Tells a person that something is risky or odd.
    pub fn warn(&self, text: impl Display) {
        let (on, off) = if self.colour { ("\x1b[33m", "\x1b[0m") } else { ("", "") };
        self.note(format_args!("{on}warning:{off} {text}"));
    }

    /// Asks before something is destroyed, unless `yes` was given. `false` is a no.
    ///
    /// # Errors
    /// Nobody can be asked.
    pub fn confirm(&self, yes: bool, question: &str) -> Result<bool, Error> {
        if yes {
            return Ok(true);
        }
        if !self.interactive {
            return Err(Error::InputMissing {
                what: format!("the answer to \"{question}\""),
                fix: "Nobody can be asked here: add --yes.".into(),
            });
        }
        // A question that cannot be shown gets no answer, which is a no.
        let _ = write!(std::io::stderr(), "{question} [y/N] ");
        let answer = super::stdin::read_line().unwrap_or_default();
        let agreed = matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes");
        if !agreed {
            self.note("Nothing was changed.");
        }
        Ok(agreed)
    }
}

/// Writes parts to stdout and flushes.
///
/// # Errors
/// Stdout took not all of it. A reader that went away (`EPIPE`) is no error: it has what it wanted.
pub fn write_stdout(parts: &[&[u8]]) -> Result<(), Error> {
    let mut stdout = std::io::stdout().lock();
    let written = parts.iter().try_for_each(|part| stdout.write_all(part)).and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::Io { what: "cannot write to stdout".into(), errno: error.raw_os_error().unwrap_or(0) })
        }
        _ => Ok(()),
    }
}

/// A table for people: no borders, two spaces between columns, `none` instead of an empty one.
pub fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>, none: &str) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_header(header);
    table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    rows.into_iter().for_each(|row| {
        table.add_row(row);
    });
    if table.is_empty() {
        return none.to_owned();
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Bytes as people say them.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_follows_the_format_and_the_stream() {
        use OutputFormat::{Json, Plain};
        for (format, is_terminal, has_machine, want) in [
            (Plain, true, true, Form::Plain),
            (Plain, true, false, Form::Plain),
            (Plain, false, true, Form::Machine),
            (Plain, false, false, Form::Json),
            (Json, true, true, Form::Json),
            (Json, false, true, Form::Json),
            (Json, false, false, Form::Json),
        ] {
            assert_eq!(choose(format, is_terminal, has_machine), want, "{format:?} {is_terminal} {has_machine}");
        }
    }

    #[test]
    fn tables_have_no_trailing_space_and_say_when_they_are_empty() {
        let rows = [["n1".to_owned(), "running".to_owned()], ["long-name".to_owned(), "stopped".to_owned()]];
        assert_eq!(
            table(["NODE", "STATUS"], rows, "none"),
            "NODE       STATUS\nn1         running\nlong-name  stopped"
        );
        assert_eq!(table(["NODE"], [], "there are none"), "there are none");
    }

    #[test]
    fn bytes_are_rounded_to_units() {
        for (count, want) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (16 * 1024 * 1024, "16.0 MiB"), (u64::MAX, "16384.0 PiB")]
        {
            assert_eq!(bytes(count), want);
        }
    }
}
