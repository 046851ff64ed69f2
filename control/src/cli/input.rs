//! What commands read as a whole: a file, or stdin for `-`.

use crate::error::Error;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

/// Reads a file, a pipe, or for `-` stdin, to its end. `what` says what it is to hold, with its article.
///
/// # Errors
/// [`Error::InputMissing`] when there is none or it is empty, [`Error::BadData`] above `bytes_max` bytes, [`Error::Io`].
pub fn read(from: &Path, what: &str, bytes_max: usize) -> Result<Vec<u8>, Error> {
    let is_stdin = from == Path::new("-");
    let place = if is_stdin { "stdin".to_owned() } else { from.display().to_string() };
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => {
            Error::InputMissing { what: format!("the file {place} with {what}"), fix: "Check its path.".into() }
        }
        _ => Error::Io { what: format!("cannot read {what} from {place}"), errno: error.raw_os_error().unwrap_or(0) },
    };
    let source: Box<dyn Read> =
        if is_stdin { Box::new(std::io::stdin().lock()) } else { Box::new(File::open(from).map_err(failed)?) };
    let mut bytes = Vec::new();
    source.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > bytes_max {
        return Err(Error::BadData {
            what: format!("{what} in {place}"),
            why: format!("it has more than {bytes_max} bytes"),
            fix: "Check that it is the right file.".into(),
        });
    }
    if bytes.trim_ascii().is_empty() {
        let fix = if is_stdin {
            "Pipe it into this command; did the command before the pipe fail?"
        } else {
            "Check that it is the right file."
        };
        return Err(Error::InputMissing { what: format!("{what} in {place}"), fix: fix.into() });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_bounded_and_not_empty() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        assert!(matches!(read(&path, "a thing", 4), Err(Error::InputMissing { .. })));
        for (content, good) in [(&b""[..], false), (b" \n", false), (b"abcd", true), (b"abcde", false)] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(read(&path, "a thing", 4).is_ok(), good, "{content:?}");
        }
        assert!(matches!(read(&path, "a thing", 4), Err(Error::BadData { .. })));
        assert!(matches!(read(directory.path(), "a thing", 4), Err(Error::Io { .. })));
        // A file that has no end is not read to it.
        assert!(matches!(read(Path::new("/dev/zero"), "a thing", 4096), Err(Error::BadData { .. })));
    }
}
