//! What an expression is worth where some things are known (`wire.md` H.3, H.4).

use crate::expr::{write_float, write_sequence, write_string};
use crate::{Expr, Operator, Relation};
use std::cmp::Ordering;
use std::fmt;

/// What is known while a decision is made.
pub trait Environment {
    /// What a name stands for: `subject.identifier`, `subject.role`, `resource.id`.
    fn value(&self, name: &str) -> Option<Value<'_>>;
}

/// What a name or an expression stands for.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// Text, as every attribute of a credential is.
    Str(&'a str),
    /// An integer.
    Int(i64),
    /// A number with a fraction.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// Several, of one kind.
    Seq(Vec<Value<'a>>),
}

/// What values are compared within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`Value::Str`]
    Str,
    /// [`Value::Int`]
    Int,
    /// [`Value::Float`]
    Float,
    /// [`Value::Bool`]
    Bool,
    /// [`Value::Seq`]
    Seq,
}

impl Value<'_> {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Value::Str(_) => Kind::Str,
            Value::Int(_) => Kind::Int,
            Value::Float(_) => Kind::Float,
            Value::Bool(_) => Kind::Bool,
            Value::Seq(_) => Kind::Seq,
        }
    }

    /// Strings by their bytes, false before true, sequences by their lengths and then by the first items that differ.
    /// Items are looked at behind the first difference, too: what makes no sense is an error wherever it stands.
    fn compare(&self, other: &Value<'_>) -> Result<Ordering, EvalError> {
        match (self, other) {
            (Value::Str(left), Value::Str(right)) => Ok(left.cmp(right)),
            (Value::Int(left), Value::Int(right)) => Ok(left.cmp(right)),
            (Value::Float(left), Value::Float(right)) => left.partial_cmp(right).ok_or(EvalError::NotANumber),
            (Value::Bool(left), Value::Bool(right)) => Ok(left.cmp(right)),
            (Value::Seq(left), Value::Seq(right)) => {
                let mut order = left.len().cmp(&right.len());
                for (left, right) in left.iter().zip(right) {
                    order = order.then(left.compare(right)?);
                }
                Ok(order)
            }
            _ => Err(EvalError::TypeMismatch { left: self.kind(), right: other.kind() }),
        }
    }
}

/// As it would be written in an expression.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Str(text) => write_string(text, f),
            Value::Int(value) => value.fmt(f),
            Value::Float(value) => write_float(*value, f),
            Value::Bool(value) => value.fmt(f),
            Value::Seq(items) => write_sequence(items, f),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Str => "a string",
            Kind::Int => "an integer",
            Kind::Float => "a floating-point number",
            Kind::Bool => "true or false",
            Kind::Seq => "a sequence",
        })
    }
}

/// Why an expression has no value, and its policy permits nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// The environment does not know a name.
    #[error("{name} is not known")]
    Unbound {
        /// The name.
        name: String,
    },
    /// Two values that cannot be compared.
    #[error("{left} cannot be compared with {right}")]
    TypeMismatch {
        /// The first one's kind.
        left: Kind,
        /// The second one's kind.
        right: Kind,
    },
    /// Something else where true or false is needed.
    #[error("`{operator}` needs true or false, not {found}")]
    NotABoolean {
        /// What needs it.
        operator: Operator,
        /// What is there.
        found: Kind,
    },
    /// The policy as a whole is neither true nor false.
    #[error("the answer is {found}, neither true nor false")]
    NoAnswer {
        /// What it is.
        found: Kind,
    },
    /// `member?` looks for something in what is no sequence.
    #[error("`member?` needs a sequence, not {found}")]
    NotASequence {
        /// What is there.
        found: Kind,
    },
    /// A sequence of names or applications that turned out to be of different kinds.
    #[error("a sequence has {first} and {other} in it")]
    MixedSequence {
        /// The kind of its first item.
        first: Kind,
        /// Another one.
        other: Kind,
    },
    /// A NaN, which has no place among numbers.
    #[error("a value is not a number and cannot be compared")]
    NotANumber,
}

/// Sees every step of an evaluation.
pub(crate) trait Watch<'a> {
    /// It comes to an expression, so many levels below the whole. If that is all, it was not needed.
    fn enter(&mut self, depth: usize, expr: &'a Expr) -> Option<usize>;
    /// What it is worth; `step` is what [`Watch::enter`] gave for it.
    fn leave(&mut self, step: Option<usize>, result: &Result<Value<'a>, EvalError>);
}

/// Sees nothing.
impl<'a> Watch<'a> for () {
    fn enter(&mut self, _: usize, _: &'a Expr) -> Option<usize> {
        None
    }
    fn leave(&mut self, _: Option<usize>, _: &Result<Value<'a>, EvalError>) {}
}

/// The answer of a whole policy.
pub(crate) fn answer<'a>(
    expr: &'a Expr,
    env: &'a (impl Environment + ?Sized),
    watch: &mut impl Watch<'a>,
) -> Result<bool, EvalError> {
    match (Evaluation { env, watch }).value(expr, 0)? {
        Value::Bool(answer) => Ok(answer),
        other => Err(EvalError::NoAnswer { found: other.kind() }),
    }
}

struct Evaluation<'a, 'w, E: ?Sized, W> {
    env: &'a E,
    watch: &'w mut W,
}

impl<'a, E: Environment + ?Sized, W: Watch<'a>> Evaluation<'a, '_, E, W> {
    /// As deep as policies are, and not deeper.
    fn value(&mut self, expr: &'a Expr, depth: usize) -> Result<Value<'a>, EvalError> {
        let step = self.watch.enter(depth, expr);
        let result = self.unwatched(expr, depth);
        self.watch.leave(step, &result);
        result
    }

    fn skip(&mut self, depth: usize, exprs: &'a [Expr]) {
        for expr in exprs {
            self.watch.enter(depth, expr);
        }
    }

    fn unwatched(&mut self, expr: &'a Expr, depth: usize) -> Result<Value<'a>, EvalError> {
        let depth = depth + 1;
        Ok(match expr {
            Expr::Str(text) => Value::Str(text),
            Expr::Int(value) => Value::Int(*value),
            Expr::Float(value) => Value::Float(*value),
            Expr::Bool(value) => Value::Bool(*value),
            Expr::Name(name) => self.env.value(name).ok_or_else(|| EvalError::Unbound { name: name.clone() })?,
            Expr::Seq(items) => {
                let values = self.values(items, depth)?;
                if let Some(other) = values.iter().find(|value| value.kind() != values[0].kind()) {
                    return Err(EvalError::MixedSequence { first: values[0].kind(), other: other.kind() });
                }
                Value::Seq(values)
            }
            Expr::And(arguments) => Value::Bool(!self.any(false, Operator::And, arguments, depth)?),
            Expr::Or(arguments) => Value::Bool(self.any(true, Operator::Or, arguments, depth)?),
            Expr::Not(argument) => Value::Bool(!self.boolean(Operator::Not, argument, depth)?),
            Expr::If(arguments) => {
                let [test, then, otherwise] = &**arguments;
                let test = self.boolean(Operator::If, test, depth).inspect_err(|_| {
                    self.skip(depth, &arguments[1..]);
                })?;
                if test {
                    let value = self.value(then, depth)?;
                    self.skip(depth, &arguments[2..]);
                    value
                } else {
                    self.skip(depth, &arguments[1..2]);
                    self.value(otherwise, depth)?
                }
            }
            Expr::Compare(relation, arguments) => {
                let values = self.values(arguments, depth)?;
                let mut every = true;
                for pair in values.windows(2) {
                    let order = pair[0].compare(&pair[1])?;
                    every &= match relation {
                        Relation::Equal | Relation::NotEqual => order.is_eq(),
                        Relation::Less => order.is_lt(),
                        Relation::Greater => order.is_gt(),
                    };
                }
                Value::Bool(every != (*relation == Relation::NotEqual))
            }
            Expr::Member(arguments) => {
                let [value, sequence] = &**arguments;
                let value = self.value(value, depth).inspect_err(|_| self.skip(depth, &arguments[1..]))?;
                let items = match self.value(sequence, depth)? {
                    Value::Seq(items) => items,
                    other => return Err(EvalError::NotASequence { found: other.kind() }),
                };
                let mut found = false;
                for item in &items {
                    found |= value.compare(item)?.is_eq();
                }
                Value::Bool(found)
            }
            Expr::Exists(names) => {
                let mut all = true;
                for (index, name) in names.iter().enumerate() {
                    all = self.value(name, depth).is_ok();
                    if !all {
                        self.skip(depth, &names[index + 1..]);
                        break;
                    }
                }
                Value::Bool(all)
            }
        })
    }

    /// Whether an argument is `wanted`, looking no further than the first.
    fn any(
        &mut self,
        wanted: bool,
        operator: Operator,
        arguments: &'a [Expr],
        depth: usize,
    ) -> Result<bool, EvalError> {
        for (index, argument) in arguments.iter().enumerate() {
            let result = self.boolean(operator, argument, depth);
            if result != Ok(!wanted) {
                self.skip(depth, &arguments[index + 1..]);
                return result.map(|_| true);
            }
        }
        Ok(false)
    }

    fn boolean(&mut self, operator: Operator, expr: &'a Expr, depth: usize) -> Result<bool, EvalError> {
        match self.value(expr, depth)? {
            Value::Bool(value) => Ok(value),
            other => Err(EvalError::NotABoolean { operator, found: other.kind() }),
        }
    }

    /// All of them, or the first error.
    fn values(&mut self, exprs: &'a [Expr], depth: usize) -> Result<Vec<Value<'a>>, EvalError> {
        let mut values = Vec::with_capacity(exprs.len());
        for (index, expr) in exprs.iter().enumerate() {
            let value = self.value(expr, depth).inspect_err(|_| self.skip(depth, &exprs[index + 1..]))?;
            values.push(value);
        }
        Ok(values)
    }
}
