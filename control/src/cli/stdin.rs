//! `-` in a route stands for one line of stdin: `ockam secure-channel create .. | ockam message send hi --to -/service/x`.
//!
//! Only arguments of this type are looked at. A message, a path or a URL that happens to contain `/-` is left alone and
//! never makes a command wait for stdin.

use crate::error::Error;
use crate::text;
use ockam_wire::MultiAddr;
use std::io::{BufRead, Read};
use std::str::FromStr;

/// Longest line that is read in bytes; far above any route and small enough to hold.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// How much of a route that is none is shown, in bytes.
const SHOWN_BYTES_MAX: usize = 200;

/// A route as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteArg {
    /// Complete.
    Whole(MultiAddr),
    /// One of its parts is `-`; this is the text.
    WithStdin(String),
}

impl FromStr for RouteArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split('/').filter(|part| *part == "-").count() {
            0 => Ok(RouteArg::Whole(parse(text)?)),
            1 => Ok(RouteArg::WithStdin(text.to_owned())),
            _ => Err("a route takes one line of stdin, so it may contain only one `-`".to_owned()),
        }
    }
}

impl RouteArg {
    /// The route. Reads one line of stdin if, and only if, a part of it is `-`.
    ///
    /// # Errors
    /// Stdin is at its end, is not text, or the route with the line in it is none (all name `argument`).
    pub fn resolve(self, argument: &str, stdin: impl FnOnce() -> std::io::Result<String>) -> Result<MultiAddr, Error> {
        let text = match self {
            RouteArg::Whole(route) => return Ok(route),
            RouteArg::WithStdin(text) => text,
        };
        let line = stdin().map_err(|error| match error.raw_os_error() {
            Some(errno) => Error::Io { what: format!("cannot read stdin for the `-` in {argument}"), errno },
            None => Error::BadData {
                what: format!("the line of stdin for the `-` in {argument}"),
                why: error.to_string(),
                fix: "Pipe one line with a route into this command.".into(),
            },
        })?;
        let line = line.trim();
        if line.is_empty() {
            return Err(Error::InputMissing {
                what: format!("the line of stdin for the `-` in {argument}"),
                fix: "Pipe one line with a route into this command; did the command before the pipe fail?".into(),
            });
        }
        let whole = substitute(&text, line);
        parse(&whole).map_err(|why| Error::BadArgument {
            argument: argument.to_owned(),
            value: text::escape(whole.as_bytes(), SHOWN_BYTES_MAX),
            why: format!("is no route: {why}"),
            fix: "Pipe one line with a route into this command, such as /node/n1.".into(),
        })
    }
}

fn parse(text: &str) -> Result<MultiAddr, String> {
    MultiAddr::from_str(text).map_err(|error| error.to_string())
}

/// Puts `line`, which may have a slash at either end, in place of the part of `text` that is `-`.
fn substitute(text: &str, line: &str) -> String {
    let inserted = line.split('/').filter(|part| !part.is_empty());
    let mut whole = String::with_capacity(text.len() + line.len());
    for part in text.split('/').filter(|part| !part.is_empty()) {
        if part == "-" {
            inserted.clone().for_each(|part| {
                whole.push('/');
                whole.push_str(part);
            });
        } else {
            whole.push('/');
            whole.push_str(part);
        }
    }
    whole
}

/// Reads one line of stdin, without its end.
///
/// # Errors
/// What the system says; `InvalidData` when the line is longer than 64 KiB or not UTF-8.
pub fn read_line() -> std::io::Result<String> {
    let mut line = String::new();
    let read = std::io::stdin().lock().take(LINE_BYTES_MAX + 1).read_line(&mut line)?;
    if read as u64 > LINE_BYTES_MAX {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "the line is longer than 64 KiB"));
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(text: &str, line: &str) -> Result<String, Error> {
        let line = line.to_owned();
        text.parse::<RouteArg>().unwrap().resolve("--to", || Ok(line)).map(|route| route.to_string())
    }

    #[test]
    fn the_line_takes_the_place_of_the_dash() {
        for (text, line, want) in [
            ("-/service/echo", "/node/n1", "/node/n1/service/echo"),
            ("-/service/echo", "/node/n1\n", "/node/n1/service/echo"),
            ("-/service/echo", "  /node/n1/  \r\n", "/node/n1/service/echo"),
            ("/node/n1/-/service/echo", "/service/hop", "/node/n1/service/hop/service/echo"),
            ("/node/n1/-", "/service/hop\n", "/node/n1/service/hop"),
            ("-", "/node/n1/service/echo", "/node/n1/service/echo"),
            ("/-/service/echo", "/worker/0a", "/worker/0a/service/echo"),
        ] {
            assert_eq!(resolved(text, line).as_deref(), Ok(want), "{text} with {line:?}");
        }
    }

    #[test]
    fn stdin_is_read_only_for_a_part_that_is_a_dash() {
        for text in ["/node/n1/service/echo", "/service/a-b", "/service/-x", "/service/x-"] {
            let route = text.parse::<RouteArg>().unwrap();
            let read = || -> std::io::Result<String> { panic!("{text} made us read stdin") };
            assert_eq!(route.resolve("--to", read).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_route_is_refused() {
        for text in ["", "/", "node/n1", "hello", "/node", "/ip4/300.0.0.1/tcp/1", "-/-", "/-/node/-"] {
            assert!(text.parse::<RouteArg>().is_err(), "{text:?} was taken");
        }
        for line in ["nonsense", "/node", "/tcp/99999", "\u{1b}[2J"] {
            let refused = resolved("-/service/echo", line);
            assert!(matches!(refused, Err(Error::BadArgument { .. })), "{line:?}: {refused:?}");
        }
        for line in ["", "\n", " \t\r\n"] {
            let missing = resolved("-/service/echo", line);
            assert!(matches!(missing, Err(Error::InputMissing { .. })), "{line:?}: {missing:?}");
        }
        let unreadable =
            "-".parse::<RouteArg>().unwrap().resolve("--to", || Err(std::io::ErrorKind::InvalidData.into()));
        assert!(matches!(unreadable, Err(Error::BadData { .. })));
    }
}
