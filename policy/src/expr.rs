//! Expressions of the full form, and how they are printed (`wire.md` H.4).

use crate::problem::Problem;
use std::fmt::{self, Write};

/// An expression of the full form.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// `"admin"`
    Str(String),
    /// `42`
    Int(i64),
    /// `1.5`, never a NaN.
    Float(f64),
    /// `true`
    Bool(bool),
    /// `subject.role`
    Name(String),
    /// `["a" "b"]`, items of one kind.
    Seq(Vec<Expr>),
    /// `(and …)`: true, unless an argument is false. Stops there.
    And(Vec<Expr>),
    /// `(or …)`: false, unless an argument is true. Stops there.
    Or(Vec<Expr>),
    /// `(not …)`
    Not(Box<Expr>),
    /// `(if test then else)`, of which one is not looked at.
    If(Box<[Expr; 3]>),
    /// `(= …)`: a relation that two or more arguments have, each with the next.
    Compare(Relation, Vec<Expr>),
    /// `(member? value sequence)`
    Member(Box<[Expr; 2]>),
    /// `(exists? subject.role)`: whether all these names are known.
    Exists(Vec<Expr>),
}

/// What two values can be to one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// `=`
    Equal,
    /// `!=`, which is `(not (= …))`: with more than two arguments, that not all are equal.
    NotEqual,
    /// `<`
    Less,
    /// `>`
    Greater,
}

/// What stands after `(`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `and`
    And,
    /// `or`
    Or,
    /// `not`
    Not,
    /// `if`
    If,
    /// `=`, `!=`, `<`, `>`
    Compare(Relation),
    /// `member?`
    Member,
    /// `exists?`
    Exists,
}

const OPERATORS: [Operator; 10] = [
    Operator::And,
    Operator::Or,
    Operator::Not,
    Operator::If,
    Operator::Compare(Relation::Equal),
    Operator::Compare(Relation::NotEqual),
    Operator::Compare(Relation::Less),
    Operator::Compare(Relation::Greater),
    Operator::Member,
    Operator::Exists,
];

impl Operator {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Operator::And => "and",
            Operator::Or => "or",
            Operator::Not => "not",
            Operator::If => "if",
            Operator::Compare(Relation::Equal) => "=",
            Operator::Compare(Relation::NotEqual) => "!=",
            Operator::Compare(Relation::Less) => "<",
            Operator::Compare(Relation::Greater) => ">",
            Operator::Member => "member?",
            Operator::Exists => "exists?",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Operator> {
        OPERATORS.into_iter().find(|operator| operator.name() == name)
    }

    /// Its arguments, for a person.
    pub(crate) fn takes(self) -> &'static str {
        match self {
            Operator::And | Operator::Or => "any number of arguments",
            Operator::Not => "one argument",
            Operator::If => "three arguments: a test, and a value for each answer",
            Operator::Compare(_) => "two arguments or more",
            Operator::Member => "two arguments: a value and a sequence",
            Operator::Exists => "one name or more",
        }
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Expr {
    pub(crate) fn apply(operator: Operator, arguments: Vec<Expr>) -> Result<Expr, Problem> {
        let wrong = |_| Problem::Arguments(operator);
        Ok(match operator {
            Operator::And => Expr::And(arguments),
            Operator::Or => Expr::Or(arguments),
            Operator::Not => {
                let [argument] = <[Expr; 1]>::try_from(arguments).map_err(wrong)?;
                Expr::Not(Box::new(argument))
            }
            Operator::If => Expr::If(Box::new(arguments.try_into().map_err(wrong)?)),
            Operator::Compare(relation) if arguments.len() >= 2 => Expr::Compare(relation, arguments),
            Operator::Member => Expr::Member(Box::new(arguments.try_into().map_err(wrong)?)),
            Operator::Exists if !arguments.is_empty() && arguments.iter().all(|it| matches!(it, Expr::Name(_))) => {
                Expr::Exists(arguments)
            }
            Operator::Compare(_) | Operator::Exists => return Err(wrong(arguments)),
        })
    }

    pub(crate) fn sequence(items: Vec<Expr>) -> Result<Expr, Problem> {
        // What an application comes to is not known yet. It is looked at when it is.
        let kind = |item: &Expr| item.operator().is_none().then(|| std::mem::discriminant(item));
        if items.windows(2).any(|pair| kind(&pair[0]) != kind(&pair[1])) {
            return Err(Problem::MixedSequence);
        }
        Ok(Expr::Seq(items))
    }

    pub(crate) fn float(value: f64) -> Result<Expr, Problem> {
        if value.is_nan() { Err(Problem::NotANumber) } else { Ok(Expr::Float(value)) }
    }

    /// A word that is not a number and not an operator.
    pub(crate) fn name(name: &str) -> Result<Expr, Problem> {
        let first = |byte: u8| byte.is_ascii_alphabetic() || b"!%&*/<=>?~_^".contains(&byte);
        let later = |byte: u8| first(byte) || byte.is_ascii_digit() || b"$.+-:@".contains(&byte);
        let bytes = name.as_bytes();
        if !bytes.first().is_some_and(|byte| first(*byte)) || !bytes.iter().all(|byte| later(*byte)) {
            return Err(Problem::Name);
        }
        match name {
            // In text these are values.
            "true" | "false" | "inf" => Err(Problem::Name),
            _ if name == "nan" || name.starts_with("nan:") => Err(Problem::NotANumber),
            _ if Operator::named(name).is_some() => Err(Problem::OperatorAsValue),
            _ => Ok(Expr::Name(name.into())),
        }
    }

    /// The operator, when it is an application of one.
    pub fn operator(&self) -> Option<Operator> {
        Some(match self {
            Expr::And(_) => Operator::And,
            Expr::Or(_) => Operator::Or,
            Expr::Not(_) => Operator::Not,
            Expr::If(_) => Operator::If,
            Expr::Compare(relation, _) => Operator::Compare(*relation),
            Expr::Member(_) => Operator::Member,
            Expr::Exists(_) => Operator::Exists,
            Expr::Str(_) | Expr::Int(_) | Expr::Float(_) | Expr::Bool(_) | Expr::Name(_) | Expr::Seq(_) => return None,
        })
    }

    /// The arguments of an application, the items of a sequence.
    pub fn children(&self) -> &[Expr] {
        match self {
            Expr::Seq(children)
            | Expr::And(children)
            | Expr::Or(children)
            | Expr::Compare(_, children)
            | Expr::Exists(children) => children,
            Expr::Not(child) => std::slice::from_ref(child),
            Expr::If(children) => &children[..],
            Expr::Member(children) => &children[..],
            Expr::Str(_) | Expr::Int(_) | Expr::Float(_) | Expr::Bool(_) | Expr::Name(_) => &[],
        }
    }
}

/// As it is parsed, with one space between things.
impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expr::Str(text) => write_string(text, f),
            Expr::Int(value) => value.fmt(f),
            Expr::Float(value) => write_float(*value, f),
            Expr::Bool(value) => value.fmt(f),
            Expr::Name(name) => f.write_str(name),
            Expr::Seq(items) => write_sequence(items, f),
            // What is no value is an application.
            _ => {
                f.write_char('(')?;
                f.write_str(self.operator().map_or("", Operator::name))?;
                for argument in self.children() {
                    f.write_char(' ')?;
                    argument.fmt(f)?;
                }
                f.write_char(')')
            }
        }
    }
}

/// A string in quotes, with escapes for what could not be seen or would end it.
pub(crate) fn write_string(text: &str, out: &mut impl Write) -> fmt::Result {
    out.write_char('"')?;
    for char in text.chars() {
        match char {
            '"' => out.write_str("\\\"")?,
            '\\' => out.write_str("\\\\")?,
            '\t' => out.write_str("\\t")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            _ if is_invisible(char) => write!(out, "\\u{{{:x}}}", u32::from(char))?,
            _ => out.write_char(char)?,
        }
    }
    out.write_char('"')
}

/// Items in brackets, with a space between two.
pub(crate) fn write_sequence(items: &[impl fmt::Display], out: &mut impl Write) -> fmt::Result {
    out.write_char('[')?;
    for (index, item) in items.iter().enumerate() {
        let space = if index == 0 { "" } else { " " };
        write!(out, "{space}{item}")?;
    }
    out.write_char(']')
}

/// Always with a point or an exponent, so that it is not read as an integer.
pub(crate) fn write_float(value: f64, out: &mut impl Write) -> fmt::Result {
    write!(out, "{value:?}")
}

/// What a reviewer would not see in a text, or would see somewhere else than where it is: control characters, those of
/// bidirectional text, those without a width.
pub(crate) fn is_invisible(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(char, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}
