//! Why a policy said what it said.

use crate::evaluate::Watch;
use crate::{EvalError, Expr, Value};
use std::fmt;

/// Longest expression or value that a line shows, in characters.
const SHOWN_MAX: usize = 100;

/// A decision, and the way to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation<'a> {
    pub(crate) result: Result<bool, EvalError>,
    pub(crate) steps: Vec<Step<'a>>,
}

/// An application or a name, and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Step<'a> {
    /// How many others it is inside of.
    pub depth: usize,
    /// The expression, in full form.
    pub expression: &'a Expr,
    /// What it came to.
    pub outcome: Outcome<'a>,
}

/// What a part of a policy came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome<'a> {
    /// It has a value.
    Value(Value<'a>),
    /// It has none.
    Failed(EvalError),
    /// What was before it had decided already.
    NotNeeded,
}

impl<'a> Explanation<'a> {
    /// Whether the policy permits.
    pub fn permits(&self) -> bool {
        self.result == Ok(true)
    }

    /// The answer, or why there is none.
    pub fn result(&self) -> &Result<bool, EvalError> {
        &self.result
    }

    /// The expression as a whole first, then what is inside of it in order. Values that stand in the policy have none.
    pub fn steps(&self) -> &[Step<'a>] {
        &self.steps
    }

    fn inside(&self, index: usize) -> impl Iterator<Item = &Step<'a>> {
        let depth = self.steps[index].depth;
        self.steps[index + 1..].iter().take_while(move |step| step.depth > depth)
    }
}

/// One line for the decision, and one for each step, with two spaces for each level.
impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.result {
            Ok(true) => write!(f, "permitted: the policy is true")?,
            Ok(false) => write!(f, "denied: the policy is false")?,
            Err(error) => write!(f, "denied: {}", why(error))?,
        }
        for (index, step) in self.steps.iter().enumerate() {
            let expression = shortened(step.expression);
            write!(f, "\n{:width$}{expression} ", "", width = 2 * step.depth + 2)?;
            match &step.outcome {
                Outcome::Value(value) => write!(f, "is {}", shortened(value))?,
                Outcome::Failed(EvalError::Unbound { .. }) if matches!(step.expression, Expr::Name(_)) => {
                    f.write_str("is not known")?;
                }
                // What is inside says why.
                Outcome::Failed(_) if self.inside(index).any(|it| matches!(it.outcome, Outcome::Failed(_))) => {
                    f.write_str("has no value")?;
                }
                Outcome::Failed(error) => write!(f, "has no value: {}", why(error))?,
                Outcome::NotNeeded => f.write_str("was not needed")?,
            }
        }
        Ok(())
    }
}

fn why(error: &EvalError) -> String {
    match error {
        EvalError::Unbound { name } => format!("{} is not known", shortened(name)),
        other => other.to_string(),
    }
}

fn shortened(thing: &impl fmt::Display) -> String {
    let mut text = thing.to_string();
    if let Some((end, _)) = text.char_indices().nth(SHOWN_MAX) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Writes down the steps. What stands in the policy itself explains nothing.
impl<'a> Watch<'a> for Vec<Step<'a>> {
    fn enter(&mut self, depth: usize, expression: &'a Expr) -> Option<usize> {
        let shown = expression.operator().is_some() || matches!(expression, Expr::Name(_));
        shown.then(|| self.push(Step { depth, expression, outcome: Outcome::NotNeeded }))?;
        Some(self.len() - 1)
    }

    fn leave(&mut self, step: Option<usize>, result: &Result<Value<'a>, EvalError>) {
        if let Some(step) = step {
            self[step].outcome = match result {
                Ok(value) => Outcome::Value(value.clone()),
                Err(error) => Outcome::Failed(error.clone()),
            };
        }
    }
}
