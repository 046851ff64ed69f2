//! `$NAME` and `${NAME:-default}` in the text of a file. What takes their place may be any YAML; places in the text that
//! comes of it are known as places of the text as it was written.

use super::{Fault, Place, TEXT_BYTES_MAX};
use crate::cli::values::is_variable_name;

/// Where the value of a variable comes from; an error is the end of a sentence that begins with its name.
pub type Lookup<'a> = dyn Fn(&str) -> Result<Option<String>, String> + 'a;

/// A text with values in the place of variables.
#[derive(Debug)]
pub struct Expanded<'a> {
    /// The result.
    pub text: String,
    written: &'a str,
    /// The character at which each line of the text as written begins.
    lines: Vec<usize>,
    /// In the order of the text.
    swaps: Vec<Swap>,
}

/// A value in the place of a variable. All in characters.
#[derive(Debug, Clone, Copy)]
struct Swap {
    /// Where the value begins in the result, and how long it is.
    at: usize,
    length: usize,
    /// Where the variable begins in the text as written, and how long it is.
    from: usize,
    written: usize,
}

impl<'a> Expanded<'a> {
    /// The text as it is.
    pub fn plain(text: &'a str) -> Expanded<'a> {
        Expanded { text: text.to_owned(), ..Expanded::of(text) }
    }

    fn of(written: &'a str) -> Expanded<'a> {
        let ends = written.chars().enumerate().filter(|(_, character)| *character == '\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(ends).collect();
        Expanded { text: String::new(), written, lines, swaps: Vec::new() }
    }

    /// Where the character with number `index` of the result is in the text as written. What stands for a variable is
    /// where that is.
    pub fn place(&self, index: usize) -> Place {
        let before = self.swaps.partition_point(|swap| swap.at <= index);
        let index = match before.checked_sub(1).map(|last| self.swaps[last]) {
            Some(swap) if index < swap.at + swap.length => swap.from,
            Some(swap) => swap.from + swap.written + (index - swap.at - swap.length),
            None => index,
        };
        self.written_place(index)
    }

    fn written_place(&self, index: usize) -> Place {
        let line = self.lines.partition_point(|begin| *begin <= index);
        Place { line: line as u32, column: (index - self.lines[line - 1]) as u32 + 1 }
    }
}

/// Puts values in the place of variables. `$$` becomes `$`; what is no variable stays; lines that are comments are left
/// alone.
///
/// # Errors
/// A variable without a value, or a `${` that does not end.
pub fn expand<'a>(written: &'a str, lookup: &Lookup<'_>) -> Result<Expanded<'a>, Fault> {
    let mut expanded = Expanded::of(written);
    let (mut at, mut from) = (0, 0);
    for line in expanded.written.split_inclusive('\n') {
        let mut rest = if line.trim_start().starts_with('#') { "" } else { line };
        if rest.is_empty() {
            expanded.text.push_str(line);
            let length = line.chars().count();
            (at, from) = (at + length, from + length);
        }
        while let Some(dollar) = rest.find('$') {
            let kept = &rest[..dollar];
            expanded.text.push_str(kept);
            let length = kept.chars().count();
            (at, from) = (at + length, from + length);
            rest = &rest[dollar..];
            let place = expanded.written_place(from);
            let fault = |why: String| Fault::new(place, why);
            let (value, written_bytes) = match variable(rest).map_err(fault)? {
                None => ("$".to_owned(), if rest.starts_with("$$") { 2 } else { 1 }),
                Some(found) => {
                    let given =
                        lookup(found.name).map_err(|why| fault(format!("the variable {} {why}", found.name)))?;
                    let value = given.or(found.default.map(str::to_owned)).ok_or_else(|| {
                        let mut fault = fault(format!("the variable {} has no value", found.name));
                        let name = found.name;
                        fault.fix = Some(format!(
                            "Give it with `--variable {name}=VALUE`, in the environment or under `variables:`, or write ${{{name}:-DEFAULT}}."
                        ));
                        fault
                    })?;
                    (value, found.bytes)
                }
            };
            if expanded.text.len() + value.len() > TEXT_BYTES_MAX {
                return Err(fault("with this value the text is longer than 1 MiB".into()));
            }
            let (length, characters) = (value.chars().count(), rest[..written_bytes].chars().count());
            expanded.swaps.push(Swap { at, length, from, written: characters });
            expanded.text.push_str(&value);
            (at, from) = (at + length, from + characters);
            rest = &rest[written_bytes..];
        }
        expanded.text.push_str(rest);
        let length = rest.chars().count();
        (at, from) = (at + length, from + length);
    }
    Ok(expanded)
}

struct Found<'a> {
    name: &'a str,
    default: Option<&'a str>,
    /// How long it is as written.
    bytes: usize,
}

/// The variable at the `$` that `text` begins with; `None` when it is just that character.
fn variable(text: &str) -> Result<Option<Found<'_>>, String> {
    let Some(inner) = text.strip_prefix("${") else {
        let end = text[1..].find(|char: char| !char.is_ascii_alphanumeric() && char != '_');
        let name = &text[1..end.map_or(text.len(), |end| end + 1)];
        let is_name = is_variable_name(name);
        return Ok(is_name.then_some(Found { name, default: None, bytes: 1 + name.len() }));
    };
    let end = inner.find(['}', '\n']).filter(|end| inner[*end..].starts_with('}'));
    let end = end.ok_or("a variable that begins with ${ ends with } in the same line")?;
    let (name, default) = match inner[..end].split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (&inner[..end], None),
    };
    if !is_variable_name(name) {
        return Err("between ${ and } stands a name of letters, digits and `_`, and `:-DEFAULT` where wanted".into());
    }
    Ok(Some(Found { name, default, bytes: "${".len() + end + "}".len() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_a(text: &str) -> Result<Expanded<'_>, Fault> {
        expand(text, &|name| match name {
            "A" => Ok(Some("one\ntwo".into())),
            "B" => Ok(Some("b".into())),
            "BAD" => Err("is not UTF-8".into()),
            _ => Ok(None),
        })
    }

    #[test]
    fn values_take_the_place_of_variables() {
        for (text, want) in [
            ("x: $B", "x: b"),
            ("x: ${B}y", "x: by"),
            ("x: $B-$B", "x: b-b"),
            ("x: ${C:-d e}", "x: d e"),
            ("x: ${C:-}", "x: "),
            ("x: ${B:-d}", "x: b"),
            ("x: $$B $ $5 a$", "x: $B $ $5 a$"),
            ("# $C\n  # ${\nx: $B", "# $C\n  # ${\nx: b"),
            ("no variable", "no variable"),
            ("", ""),
        ] {
            assert_eq!(with_a(text).map(|it| it.text).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn places_are_those_of_the_text_as_written() {
        let expanded = with_a("a: $A\nb: ${B}x\nc").unwrap();
        assert_eq!(expanded.text, "a: one\ntwo\nb: bx\nc");
        for (index, line, column) in
            [(0, 1, 1), (3, 1, 4), (8, 1, 4), (10, 1, 6), (11, 2, 1), (14, 2, 4), (15, 2, 8), (17, 3, 1)]
        {
            assert_eq!(expanded.place(index), Place { line, column }, "{index}");
        }
    }

    #[test]
    fn what_has_no_value_is_named_with_its_place() {
        for (text, line, column, about) in [
            ("x: $C", 1, 4, "C has no value"),
            ("x: $A\ny: ${C}", 2, 4, "C has no value"),
            ("x: ${C", 1, 4, "ends with }"),
            ("x: ${C\n}", 1, 4, "ends with }"),
            ("x: ${}", 1, 4, "name"),
            ("x: ${1:-a}", 1, 4, "name"),
            ("x: $BAD", 1, 4, "is not UTF-8"),
        ] {
            let fault = with_a(text).unwrap_err();
            assert_eq!(fault.place, Place { line, column }, "{text}");
            assert!(fault.why.contains(about), "{text}: {}", fault.why);
        }
        let large = "$A".repeat(TEXT_BYTES_MAX / 2);
        assert!(with_a(&large).unwrap_err().why.contains("1 MiB"));
    }
}
