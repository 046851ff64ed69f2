//! A policy: one of two forms, whose meaning is an expression.

use crate::boolean::{self, Boolean};
use crate::evaluate::answer;
use crate::problem::{ParseError, Problem};
use crate::{DEPTH_MAX, Environment, EvalError, Explanation, Expr, TEXT_MAX, text};
use std::collections::BTreeSet;
use std::fmt::{self, Write};

/// Who may, in the boolean or in the full form; what `wire.md` H.5 calls a `PolicyExpression`.
///
/// Every policy can be printed and parsed, encoded and decoded, and is the same then.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// As it was written, unless that was in the full form.
    boolean: Option<Boolean>,
    expr: Expr,
}

impl Policy {
    /// Reads a text. What could be either form is the boolean one: `(not admin)`.
    ///
    /// # Errors
    /// Of the form that its beginning looks like.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let policy = match boolean::parse(text) {
            Ok(boolean) => Policy::from_boolean(boolean),
            Err(error) => match text::parse(text) {
                Ok(expr) => Policy::from_expr(expr),
                Err(other) => return Err(if boolean::looks_like(text) { error } else { other }),
            },
        };
        policy.map_err(|problem| ParseError { at: 0, problem })
    }

    /// Reads CBOR (`wire.md` H.5). Stricter than real nodes: nothing may be behind it, and it must be something that a text
    /// could say.
    ///
    /// # Errors
    /// Malformed, too large, or nothing that [`Policy::parse`] could have read.
    pub fn decode(encoded: &[u8]) -> Result<Self, Problem> {
        crate::cbor::decode_policy(encoded)
    }

    pub(crate) fn from_boolean(boolean: Boolean) -> Result<Self, Problem> {
        if boolean.depth() > DEPTH_MAX {
            return Err(Problem::TooDeep);
        }
        let expr = boolean.expr();
        Policy { boolean: Some(boolean), expr }.checked()
    }

    pub(crate) fn from_expr(expr: Expr) -> Result<Self, Problem> {
        if expr.operator().is_none() {
            return Err(Problem::NotAnApplication);
        }
        if reads_as_boolean(&expr) {
            return Err(Problem::ReadsAsBoolean);
        }
        Policy { boolean: None, expr }.checked()
    }

    /// What is printed can be longer than what was read: `1e15`, `"\7f"`.
    fn checked(self) -> Result<Self, Problem> {
        write!(Room(TEXT_MAX), "{self}").map_err(|_| Problem::TooLong)?;
        Ok(self)
    }

    /// CBOR (`wire.md` H.5).
    pub fn encode(&self) -> Vec<u8> {
        crate::cbor::encode_policy(self.boolean.as_ref(), &self.expr)
    }

    /// What it means, in full form.
    pub fn expr(&self) -> &Expr {
        &self.expr
    }

    /// Whether it is true. Total, and bounded by the size of the policy and of what the environment knows.
    pub fn permits(&self, env: &(impl Environment + ?Sized)) -> bool {
        self.evaluate(env) == Ok(true)
    }

    /// The answer.
    ///
    /// # Errors
    /// Why there is none: the policy does not permit.
    pub fn evaluate(&self, env: &(impl Environment + ?Sized)) -> Result<bool, EvalError> {
        answer(&self.expr, env, &mut ())
    }

    /// The answer, and the way to it.
    pub fn explain<'a>(&'a self, env: &'a (impl Environment + ?Sized)) -> Explanation<'a> {
        let mut steps = Vec::new();
        let result = answer(&self.expr, env, &mut steps);
        Explanation { result, steps }
    }

    /// The names in it, each once, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let mut names = BTreeSet::new();
        let mut left = vec![&self.expr];
        while let Some(expr) = left.pop() {
            if let Expr::Name(name) = expr {
                names.insert(name.as_str());
            }
            left.extend(expr.children());
        }
        names.into_iter()
    }
}

/// Whether, as it is printed, we or real nodes take it for the boolean form. For them `and` and `or` can be names, too.
fn reads_as_boolean(expr: &Expr) -> bool {
    match expr {
        Expr::Not(argument) => reads_as_boolean(argument),
        Expr::And(arguments) | Expr::Or(arguments) => arguments.is_empty(),
        _ => expr.operator().is_none() && boolean::parse(&expr.to_string()).is_ok(),
    }
}

/// As it is parsed: one space between things, no comment, no parentheses that change nothing.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.boolean {
            Some(boolean) => boolean.fmt(f),
            None => self.expr.fmt(f),
        }
    }
}

/// Takes so many bytes of text and keeps none.
struct Room(usize);

impl Write for Room {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.checked_sub(text.len()).ok_or(fmt::Error)?;
        Ok(())
    }
}
