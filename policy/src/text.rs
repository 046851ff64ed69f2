//! Reading the full form: the words of the WebAssembly text format (`wire.md` H.4).

use crate::expr::is_invisible;
use crate::problem::{ParseError, Problem};
use crate::{DEPTH_MAX, Expr, NODES_MAX, Operator, TEXT_MAX};

/// What separates words.
pub(crate) const BLANK: [char; 4] = [' ', '\t', '\r', '\n'];

/// Reads a whole text. The parentheses around everything may be missing.
pub(crate) fn parse(text: &str) -> Result<Expr, ParseError> {
    if text.len() > TEXT_MAX {
        return Err(ParseError { at: TEXT_MAX, problem: Problem::TooLong });
    }
    let mut reader = Reader { text, at: 0, nodes: 0 };
    reader.skip_blank()?;
    if reader.rest().starts_with('(') {
        let expr = reader.item(1)?;
        reader.skip_blank()?;
        return if reader.rest().is_empty() { Ok(expr) } else { Err(reader.expected("nothing after the last `)`")) };
    }
    let start = reader.at;
    let operator = reader.operator()?;
    reader.nodes += 1;
    let arguments = reader.items(1, None)?;
    if arguments.is_empty() {
        return Err(ParseError { at: start, problem: Problem::NotAnApplication });
    }
    Expr::apply(operator, arguments).map_err(|problem| ParseError { at: start, problem })
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    nodes: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn fail(&self, problem: Problem) -> ParseError {
        ParseError { at: self.at, problem }
    }

    fn expected(&self, what: &'static str) -> ParseError {
        self.fail(Problem::Expected(what))
    }

    /// Spaces, lines after `;;`, and what is between `(;` and `;)`, which can be inside one another.
    fn skip_blank(&mut self) -> Result<(), ParseError> {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start_matches(BLANK).len();
            if blank > 0 {
                self.at += blank;
            } else if rest.starts_with(";;") {
                self.at += rest.find(['\n', '\r']).unwrap_or(rest.len());
            } else if rest.starts_with("(;") {
                self.at += block_comment(rest).ok_or_else(|| self.expected("`;)` at the end of this comment"))?;
            } else {
                return Ok(());
            }
        }
    }

    /// What follows up to `end` or, without one, the end of the text.
    fn items(&mut self, depth: usize, end: Option<char>) -> Result<Vec<Expr>, ParseError> {
        let mut items = Vec::new();
        loop {
            self.skip_blank()?;
            let next = self.rest().chars().next();
            if next == end {
                self.at += end.map_or(0, char::len_utf8);
                return Ok(items);
            }
            match (next, end) {
                (None, Some(')')) => return Err(self.expected("`)`")),
                (None, _) => return Err(self.expected("`]`")),
                (Some(_), _) => items.push(self.item(depth + 1)?),
            }
        }
    }

    /// One expression, `depth` of them deep if it has others in it.
    fn item(&mut self, depth: usize) -> Result<Expr, ParseError> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(self.fail(Problem::TooManyParts));
        }
        let start = self.at;
        let at_start = |problem| ParseError { at: start, problem };
        match self.rest().chars().next() {
            Some('(' | '[') if depth > DEPTH_MAX => Err(self.fail(Problem::TooDeep)),
            Some('(') => {
                self.at += 1;
                self.skip_blank()?;
                let operator = self.operator()?;
                let arguments = self.items(depth, Some(')'))?;
                Expr::apply(operator, arguments).map_err(at_start)
            }
            Some('[') => {
                self.at += 1;
                let items = self.items(depth, Some(']'))?;
                Expr::sequence(items).map_err(at_start)
            }
            Some('"') => self.string(),
            _ => match self.word()? {
                "" => Err(self.expected("a string, a number, true, false, a name, `(` or `[`")),
                "true" => Ok(Expr::Bool(true)),
                "false" => Ok(Expr::Bool(false)),
                word if is_number(word) => number(word).map_err(at_start),
                word => Expr::name(word).map_err(at_start),
            },
        }
    }

    fn operator(&mut self) -> Result<Operator, ParseError> {
        let start = self.at;
        Operator::named(self.word()?).ok_or(ParseError { at: start, problem: Problem::NotAnOperator })
    }

    /// Everything up to what separates words.
    fn word(&mut self) -> Result<&'a str, ParseError> {
        let rest = self.rest();
        let ends = |char: char| BLANK.contains(&char) || "()[]{}\",;".contains(char);
        let word = &rest[..rest.find(ends).unwrap_or(rest.len())];
        self.at += word.len();
        if !word.is_empty() && self.rest().starts_with('"') {
            return Err(self.expected("a space before a string"));
        }
        Ok(word)
    }

    fn string(&mut self) -> Result<Expr, ParseError> {
        let start = self.at;
        let mut bytes = Vec::new();
        self.at += 1;
        loop {
            let Some(char) = self.rest().chars().next() else {
                return Err(self.expected("`\"` at the end of the string"));
            };
            match char {
                '"' => break,
                '\\' => self.escape(&mut bytes)?,
                _ if is_invisible(char) => return Err(self.fail(Problem::Invisible)),
                _ => {
                    bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                    self.at += char.len_utf8();
                }
            }
        }
        self.at += 1;
        if !self.rest().is_empty()
            && !self.rest().starts_with(BLANK)
            && !self.rest().starts_with(['(', ')', '[', ']', ';'])
        {
            return Err(self.expected("a space after a string"));
        }
        let text = String::from_utf8(bytes).map_err(|_| ParseError { at: start, problem: Problem::NotUtf8 })?;
        Ok(Expr::Str(text))
    }

    /// From `\` to the end of what it says.
    fn escape(&mut self, bytes: &mut Vec<u8>) -> Result<(), ParseError> {
        let wrong = self.fail(Problem::Escape);
        let escape = &self.rest()[1..];
        let (byte, length) = match escape.as_bytes() {
            [b't', ..] => (b'\t', 1),
            [b'n', ..] => (b'\n', 1),
            [b'r', ..] => (b'\r', 1),
            [byte @ (b'"' | b'\'' | b'\\'), ..] => (*byte, 1),
            [b'u', ..] => {
                let (digits, _) = escape[1..].strip_prefix('{').and_then(|rest| rest.split_once('}')).ok_or(wrong)?;
                let valid = digits.len() <= 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                let code = valid.then(|| u32::from_str_radix(digits, 16).ok()).flatten();
                let char = code.and_then(char::from_u32).ok_or(wrong)?;
                bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                self.at += 4 + digits.len();
                return Ok(());
            }
            [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (u8::from_str_radix(&escape[..2], 16).map_err(|_| wrong)?, 2)
            }
            _ => return Err(wrong),
        };
        bytes.push(byte);
        self.at += 1 + length;
        Ok(())
    }
}

/// How long the comment is that this begins with, if it ends.
fn block_comment(text: &str) -> Option<usize> {
    let mut open = 0;
    let mut at = 0;
    loop {
        match text.as_bytes().get(at..at + 2)? {
            b"(;" => open += 1,
            b";)" => open -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if open == 0 {
            return Some(at);
        }
    }
}

fn unsigned(word: &str) -> &str {
    word.strip_prefix(['+', '-']).unwrap_or(word)
}

/// Whether it can be nothing else; it may still be none.
fn is_number(word: &str) -> bool {
    let digits = unsigned(word);
    digits.starts_with(|char: char| char.is_ascii_digit())
        || digits == "inf"
        || digits == "nan"
        || digits.starts_with("nan:")
}

fn number(word: &str) -> Result<Expr, Problem> {
    let digits = unsigned(word);
    let sign = if word.starts_with('-') { "-" } else { "" };
    if digits == "inf" {
        return Ok(Expr::Float(if sign.is_empty() { f64::INFINITY } else { f64::NEG_INFINITY }));
    }
    if digits.starts_with("nan") {
        return Err(Problem::NotANumber);
    }
    let (digits, radix) = digits.strip_prefix("0x").map_or((digits, 10), |digits| (digits, 16));
    // One `_` may stand between two digits of an integer.
    if digits.split('_').all(|group| !group.is_empty() && group.bytes().all(|byte| char::from(byte).is_digit(radix))) {
        let text = format!("{sign}{}", digits.replace('_', ""));
        return i64::from_str_radix(&text, radix).map(Expr::Int).map_err(|_| Problem::Number);
    }
    match word.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(Expr::Float(value)),
        _ => Err(Problem::Number),
    }
}
