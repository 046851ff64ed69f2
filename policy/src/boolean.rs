//! The boolean form: attributes of the subject, `and`, `or`, `not` and parentheses (`wire.md` H.4).

use crate::expr::is_invisible;
use crate::problem::{ParseError, Problem};
use crate::text::BLANK;
use crate::{DEPTH_MAX, Expr, Operator, Relation, TEXT_MAX};
use std::fmt;

/// An expression of the boolean form. `or` and `and` are from left to right, `(a or b) or c`, which is kept as one list.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Boolean {
    /// `admin`: the attribute is `true`.
    Name(String),
    /// `role=admin`
    NameValue(String, String),
    /// `I…`: the identifier of the subject.
    Identifier(String),
    /// Two or more, of which the first is no `Or`.
    Or(Vec<Boolean>),
    /// Two or more, of which the first is no `And`.
    And(Vec<Boolean>),
    Not(Box<Boolean>),
}

impl Boolean {
    /// A name that stands alone.
    pub(crate) fn name(name: &str) -> Result<Boolean, Problem> {
        let identifier =
            name.strip_prefix('I').is_some_and(|it| it.len() == 64 && it.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if identifier {
            // As environments have it.
            return Ok(Boolean::Identifier(format!("I{}", name[1..].to_ascii_lowercase())));
        }
        let starts = name.starts_with(|char: char| char.is_ascii_alphabetic() || "_-".contains(char));
        if !starts || !name.bytes().all(is_name_byte) || ["and", "or", "not"].contains(&name) {
            return Err(Problem::Name);
        }
        Ok(Boolean::Name(name.into()))
    }

    /// A name and what follows its `=`.
    pub(crate) fn name_value(name: &str, value: &str) -> Result<Boolean, Problem> {
        let Boolean::Name(name) = Boolean::name(name)? else { return Err(Problem::Name) };
        if value.is_empty() || value.contains('"') {
            return Err(Problem::BooleanValue);
        }
        if value.contains(is_invisible) {
            return Err(Problem::Invisible);
        }
        Ok(Boolean::NameValue(name, value.into()))
    }

    /// Left operand first, as `or` groups.
    pub(crate) fn or(self, right: Boolean) -> Boolean {
        match self {
            Boolean::Or(mut items) => {
                items.push(right);
                Boolean::Or(items)
            }
            left => Boolean::Or(vec![left, right]),
        }
    }

    /// Left operand first, as `and` groups.
    pub(crate) fn and(self, right: Boolean) -> Boolean {
        match self {
            Boolean::And(mut items) => {
                items.push(right);
                Boolean::And(items)
            }
            left => Boolean::And(vec![left, right]),
        }
    }

    /// How many `or`, `and` and `not` are inside one another.
    pub(crate) fn depth(&self) -> usize {
        match self {
            Boolean::Name(_) | Boolean::NameValue(..) | Boolean::Identifier(_) => 0,
            Boolean::Or(items) | Boolean::And(items) => 1 + items.iter().map(Boolean::depth).max().unwrap_or(0),
            Boolean::Not(item) => 1 + item.depth(),
        }
    }

    /// What it means.
    pub(crate) fn expr(&self) -> Expr {
        let equal = |name: &str, value: &str| {
            Expr::Compare(Relation::Equal, vec![Expr::Name(format!("subject.{name}")), Expr::Str(value.into())])
        };
        match self {
            Boolean::Name(name) => equal(name, "true"),
            Boolean::NameValue(name, value) => equal(name, value),
            Boolean::Identifier(identifier) => equal("identifier", identifier),
            Boolean::Or(items) => Expr::Or(items.iter().map(Boolean::expr).collect()),
            Boolean::And(items) => Expr::And(items.iter().map(Boolean::expr).collect()),
            Boolean::Not(item) => Expr::Not(Box::new(item.expr())),
        }
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

/// With the parentheses that it needs and no others.
impl fmt::Display for Boolean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chain = |items: &[Boolean], word: &str, f: &mut fmt::Formatter<'_>| {
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    f.write_str(word)?;
                }
                // `and` binds stronger than `or`. What is left is not the first, or it would be part of this chain.
                match item {
                    Boolean::And(_) if matches!(self, Boolean::Or(_)) => item.fmt(f)?,
                    Boolean::And(_) | Boolean::Or(_) => write!(f, "({item})")?,
                    _ => item.fmt(f)?,
                }
            }
            Ok(())
        };
        match self {
            Boolean::Name(name) | Boolean::Identifier(name) => f.write_str(name),
            Boolean::NameValue(name, value) if value.bytes().all(is_name_byte) => write!(f, "{name}={value}"),
            Boolean::NameValue(name, value) => write!(f, "{name}=\"{value}\""),
            Boolean::Or(items) => chain(items, " or ", f),
            Boolean::And(items) => chain(items, " and ", f),
            Boolean::Not(item) => match **item {
                Boolean::And(_) | Boolean::Or(_) => write!(f, "not ({item})"),
                _ => write!(f, "not {item}"),
            },
        }
    }
}

/// Whether somebody who wrote this meant the boolean form: behind what both forms can begin with comes a name, and no
/// operator.
pub(crate) fn looks_like(text: &str) -> bool {
    let ends = |char: char| BLANK.contains(&char) || "()".contains(char);
    let word = text.split(ends).find(|word| !word.is_empty() && *word != "not");
    word.is_none_or(|word| Operator::named(word).is_none() && is_name_byte(word.as_bytes()[0]))
}

/// Reads a whole text. One that is not too long has never too many parts: each takes four bytes or more.
pub(crate) fn parse(text: &str) -> Result<Boolean, ParseError> {
    if text.len() > TEXT_MAX {
        return Err(ParseError { at: TEXT_MAX, problem: Problem::TooLong });
    }
    let mut reader = Reader { text, at: 0 };
    let boolean = reader.any(0)?;
    match reader.peek() {
        "" => Ok(boolean),
        _ => Err(reader.fail(Problem::Expected("`and` or `or`"))),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn fail(&self, problem: Problem) -> ParseError {
        ParseError { at: self.at, problem }
    }

    /// The next token: a whole word, or one character. Empty at the end of the text. Spaces before it are gone.
    fn peek(&mut self) -> &'a str {
        let rest = self.text[self.at..].trim_start_matches(BLANK);
        self.at = self.text.len() - rest.len();
        let word = rest.bytes().take_while(|byte| is_name_byte(*byte)).count();
        &rest[..if word > 0 { word } else { rest.chars().next().map_or(0, char::len_utf8) }]
    }

    /// Takes this token, if it is the next one.
    fn takes(&mut self, token: &str) -> bool {
        let taken = self.peek() == token;
        self.at += if taken { token.len() } else { 0 };
        taken
    }

    fn any(&mut self, depth: usize) -> Result<Boolean, ParseError> {
        let mut left = self.all(depth)?;
        while self.takes("or") {
            left = left.or(self.all(depth)?);
        }
        Ok(left)
    }

    fn all(&mut self, depth: usize) -> Result<Boolean, ParseError> {
        let mut left = self.one(depth)?;
        while self.takes("and") {
            left = left.and(self.one(depth)?);
        }
        Ok(left)
    }

    /// `depth` is how many `not` and parentheses are around it.
    fn one(&mut self, depth: usize) -> Result<Boolean, ParseError> {
        match self.peek() {
            "not" | "(" if depth == DEPTH_MAX => Err(self.fail(Problem::TooDeep)),
            "not" => {
                self.at += 3;
                Ok(Boolean::Not(Box::new(self.one(depth + 1)?)))
            }
            "(" => {
                self.at += 1;
                let inner = self.any(depth + 1)?;
                if self.takes(")") { Ok(inner) } else { Err(self.fail(Problem::Expected("`and`, `or` or `)`"))) }
            }
            token if !token.is_empty() && token.bytes().all(is_name_byte) => self.named(token),
            _ => Err(self.fail(Problem::Expected("a name, `not` or `(`"))),
        }
    }

    fn named(&mut self, name: &'a str) -> Result<Boolean, ParseError> {
        let alone = Boolean::name(name).map_err(|problem| self.fail(problem))?;
        self.at += name.len();
        let Some(rest) = self.text[self.at..].strip_prefix('=') else { return Ok(alone) };
        let (value, length) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let end = quoted.find('"').ok_or(self.fail(Problem::Expected("`\"` at the end of the value")))?;
                (&quoted[..end], end + 3)
            }
            None => {
                let end = rest.bytes().take_while(|byte| is_name_byte(*byte)).count();
                (&rest[..end], end + 1)
            }
        };
        let both = Boolean::name_value(name, value).map_err(|problem| self.fail(problem))?;
        self.at += length;
        // Otherwise `a="b"or` would be three things.
        if self.text[self.at..].bytes().next().is_some_and(|byte| is_name_byte(byte) || b"=\"".contains(&byte)) {
            return Err(self.fail(Problem::Expected("a space after a value")));
        }
        Ok(both)
    }
}
