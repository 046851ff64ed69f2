//! What must hold for any policy, with a slow reader and evaluator beside the real ones. Property tests and the fuzz
//! target run the same functions on inputs of their own making.

// Each program that includes it uses some of it.
#![allow(dead_code)]

use ockam_policy::{ENCODED_MAX, Environment, EvalError, Explanation, Outcome, Policy, Problem, TEXT_MAX, Value};
use std::collections::BTreeMap;

/// What is known, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known(pub BTreeMap<String, Tree>);

/// An expression as CBOR has it: no operators, only lists that begin with a name.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    Str(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    Name(String),
    Seq(Vec<Tree>),
    List(Vec<Tree>),
}

impl Environment for Known {
    fn value(&self, name: &str) -> Option<Value<'_>> {
        fn value(tree: &Tree) -> Value<'_> {
            match tree {
                Tree::Str(text) => Value::Str(text),
                Tree::Int(number) => Value::Int(*number),
                Tree::Float(number) => Value::Float(*number),
                Tree::Bool(truth) => Value::Bool(*truth),
                Tree::Seq(items) => Value::Seq(items.iter().map(value).collect()),
                Tree::Name(_) | Tree::List(_) => unreachable!("nothing that is known"),
            }
        }
        self.0.get(name).map(value)
    }
}

// ---- the reference: what an expression is worth, or nothing

/// Straight from `wire.md` H.4, without limits and without a reason for what has no value.
pub fn worth(tree: &Tree, known: &Known) -> Option<Tree> {
    let truth = |tree: &Tree| match worth(tree, known) {
        Some(Tree::Bool(truth)) => Some(truth),
        _ => None,
    };
    let all = |trees: &[Tree]| trees.iter().map(|tree| worth(tree, known)).collect::<Option<Vec<Tree>>>();
    let list = match tree {
        Tree::Name(name) => return known.0.get(name).cloned(),
        Tree::Seq(items) => {
            let items = all(items)?;
            let same = |item: &Tree| std::mem::discriminant(item) == std::mem::discriminant(&items[0]);
            return items.iter().all(same).then_some(Tree::Seq(items));
        }
        Tree::List(list) => list,
        value => return Some(value.clone()),
    };
    let (Tree::Name(operator), arguments) = list.split_first()? else { return None };
    let chained = |holds: fn(i8) -> bool| {
        let values = all(arguments)?;
        let orders =
            values.iter().zip(&values[1..]).map(|(left, right)| order(left, right)).collect::<Option<Vec<i8>>>()?;
        Some(orders.into_iter().all(holds))
    };
    Some(Tree::Bool(match (operator.as_str(), arguments) {
        ("and", arguments) => {
            for argument in arguments {
                if !truth(argument)? {
                    return Some(Tree::Bool(false));
                }
            }
            true
        }
        ("or", arguments) => {
            for argument in arguments {
                if truth(argument)? {
                    return Some(Tree::Bool(true));
                }
            }
            false
        }
        ("not", [one]) => !truth(one)?,
        ("if", [test, then, otherwise]) => return worth(if truth(test)? { then } else { otherwise }, known),
        ("=", [_, _, ..]) => chained(|order| order == 0)?,
        ("!=", [_, _, ..]) => !chained(|order| order == 0)?,
        ("<", [_, _, ..]) => chained(|order| order < 0)?,
        (">", [_, _, ..]) => chained(|order| order > 0)?,
        ("member?", [value, sequence]) => {
            let value = worth(value, known)?;
            let Tree::Seq(items) = worth(sequence, known)? else { return None };
            items.iter().map(|item| order(&value, item)).collect::<Option<Vec<i8>>>()?.contains(&0)
        }
        ("exists?", names) => names.iter().all(|it| matches!(it, Tree::Name(name) if known.0.contains_key(name))),
        _ => return None,
    }))
}

/// -1, 0 or 1. Nothing for what cannot be compared.
fn order(left: &Tree, right: &Tree) -> Option<i8> {
    let sign = |less: bool, equal: bool| if less { -1 } else { i8::from(!equal) };
    match (left, right) {
        (Tree::Str(left), Tree::Str(right)) => Some(sign(left.as_bytes() < right.as_bytes(), left == right)),
        (Tree::Int(left), Tree::Int(right)) => Some(sign(left < right, left == right)),
        (Tree::Bool(left), Tree::Bool(right)) => Some(sign(!left & right, left == right)),
        (Tree::Float(left), Tree::Float(right)) if left.is_nan() || right.is_nan() => None,
        (Tree::Float(left), Tree::Float(right)) => Some(sign(left < right, left == right)),
        (Tree::Seq(left), Tree::Seq(right)) => {
            let orders = left.iter().zip(right).map(|(left, right)| order(left, right)).collect::<Option<Vec<i8>>>()?;
            let first = orders.into_iter().find(|order| *order != 0).unwrap_or(0);
            let (left, right) = (left.len(), right.len());
            Some(if left == right { first } else { sign(left < right, false) })
        }
        _ => None,
    }
}

// ---- reading what the real encoder wrote

/// The meaning of a policy, from its CBOR.
pub fn tree(encoded: &[u8]) -> Tree {
    let mut input = encoded;
    let tree = match head(&mut input) {
        0 => full(&mut input),
        1 => boolean(&mut input),
        other => panic!("form {other}"),
    };
    assert!(input.is_empty());
    tree
}

fn full(input: &mut &[u8]) -> Tree {
    match head(input) {
        1 => Tree::Str(text(input)),
        2 => match number(input) {
            (0, value) => Tree::Int(value as i64),
            (1, value) => Tree::Int(-1 - value as i64),
            other => panic!("integer {other:?}"),
        },
        3 => match take(input, 9) {
            [0xfb, bits @ ..] => Tree::Float(f64::from_be_bytes(bits.try_into().unwrap())),
            other => panic!("float {other:?}"),
        },
        4 => Tree::Bool(take(input, 1) == [0xf5]),
        5 => Tree::Name(text(input)),
        6 => Tree::Seq((0..array(input)).map(|_| full(input)).collect()),
        7 => Tree::List((0..array(input)).map(|_| full(input)).collect()),
        other => panic!("expression {other}"),
    }
}

fn boolean(input: &mut &[u8]) -> Tree {
    let equal = |name: String, value: String| {
        Tree::List(vec![Tree::Name("=".into()), Tree::Name(format!("subject.{name}")), Tree::Str(value)])
    };
    let operator =
        |name: &str, arguments: Vec<Tree>| Tree::List([Tree::Name(name.into())].into_iter().chain(arguments).collect());
    match head(input) {
        0 => equal(text(input), "true".into()),
        1 => equal(text(input), text(input)),
        2 => equal("identifier".into(), text(input)),
        3 => operator("or", vec![boolean(input), boolean(input)]),
        4 => operator("and", vec![boolean(input), boolean(input)]),
        5 => operator("not", vec![boolean(input)]),
        other => panic!("boolean expression {other}"),
    }
}

fn take<'a>(input: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(length);
    *input = rest;
    taken
}

/// The major type, and the number or length.
fn number(input: &mut &[u8]) -> (u8, u64) {
    let first = take(input, 1)[0];
    let value = match first & 0x1f {
        small @ 0..24 => u64::from(small),
        long @ 24..28 => take(input, 1 << (long - 24)).iter().fold(0, |value, byte| value << 8 | u64::from(*byte)),
        other => panic!("length {other}"),
    };
    (first >> 5, value)
}

fn array(input: &mut &[u8]) -> u64 {
    let (major, length) = number(input);
    assert_eq!(major, 4, "an array");
    length
}

fn text(input: &mut &[u8]) -> String {
    let (major, length) = number(input);
    assert_eq!(major, 3, "a text");
    String::from_utf8(take(input, length as usize).to_vec()).unwrap()
}

/// `[index, [`
fn head(input: &mut &[u8]) -> u64 {
    assert_eq!(array(input), 2);
    let (_, index) = number(input);
    array(input);
    index
}

// ---- writing what the real parser reads

/// The tree as text, in one of many ways to write it, which the bytes of `ways` choose.
pub fn write(tree: &Tree, ways: &mut impl Iterator<Item = u8>, out: &mut String) {
    match tree {
        Tree::Str(text) => {
            out.push('"');
            for char in text.chars() {
                match ways.next().unwrap_or(0) % 4 {
                    0 => out.push_str(&format!("\\u{{{:X}}}", u32::from(char))),
                    1 => char.to_string().bytes().for_each(|byte| out.push_str(&format!("\\{byte:02x}"))),
                    _ if char.is_alphanumeric() || " .:/'é{[(;)]}".contains(char) => out.push(char),
                    _ => out.push_str(&format!("\\u{{{:06x}}}", u32::from(char))),
                }
            }
            out.push('"');
        }
        Tree::Int(value) => match ways.next().unwrap_or(0) % 4 {
            0 if *value >= 0 => out.push_str(&format!("+{value}")),
            1 if *value >= 0 => out.push_str(&format!("0x{value:x}")),
            1 => out.push_str(&format!("-0x{:X}", value.unsigned_abs())),
            2 if *value >= 1000 => out.push_str(&format!("{}_{:03}", value / 1000, value % 1000)),
            _ => out.push_str(&value.to_string()),
        },
        Tree::Float(value) if value.is_infinite() => out.push_str(if *value > 0.0 { "+inf" } else { "-inf" }),
        Tree::Float(value) => match ways.next().unwrap_or(0) % 2 {
            0 => out.push_str(&format!("{value:e}")),
            _ => out.push_str(&format!("{value:?}")),
        },
        Tree::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Tree::Name(name) => out.push_str(name),
        Tree::Seq(items) | Tree::List(items) => {
            let (open, close) = if matches!(tree, Tree::Seq(_)) { ('[', ']') } else { ('(', ')') };
            out.push(open);
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(match ways.next().unwrap_or(0) % 8 {
                        0..4 => " ",
                        4 => "\n\t",
                        5 => " (; or (; \" ;) ] ;)",
                        6 => " ;; not ) this\n",
                        _ => "\r\n",
                    });
                }
                write(item, ways, out);
            }
            out.push(close);
        }
    }
}

// ---- what must hold

/// A policy that was accepted: it keeps its meaning, and the reference agrees with it wherever something is known.
pub fn accepted(policy: &Policy, known: &Known) {
    let text = policy.to_string();
    assert!(text.len() <= TEXT_MAX, "{} bytes", text.len());
    assert!(!text.contains(char::is_control), "{text:?}");
    assert_eq!(Policy::parse(&text).as_ref(), Ok(policy), "{text}");
    let encoded = policy.encode();
    assert!(encoded.len() <= ENCODED_MAX, "{} bytes", encoded.len());
    assert_eq!(Policy::decode(&encoded).as_ref(), Ok(policy), "{text}");

    let tree = tree(&encoded);
    let worth = worth(&tree, known);
    let answer = policy.evaluate(known);
    match worth {
        Some(Tree::Bool(truth)) => assert_eq!(answer, Ok(truth), "{text}"),
        Some(_) => assert!(matches!(answer, Err(EvalError::NoAnswer { .. })), "{text}: {answer:?}"),
        None => assert!(!matches!(answer, Ok(_) | Err(EvalError::NoAnswer { .. })), "{text}: {answer:?}"),
    }
    assert_eq!(policy.permits(known), answer == Ok(true));
    explained(&policy.explain(known), &answer);
    removing_never_grants(policy, &tree, known, &answer);
}

/// The explanation has the same answer, and what its first line says.
fn explained(explanation: &Explanation<'_>, answer: &Result<bool, EvalError>) {
    assert_eq!(explanation.result(), answer);
    assert_eq!(explanation.permits(), *answer == Ok(true));
    let first = explanation.steps().first().expect("the whole");
    match (&first.outcome, answer) {
        (Outcome::Value(Value::Bool(value)), Ok(answer)) => assert_eq!(value, answer),
        (Outcome::Value(value), Err(EvalError::NoAnswer { found })) => assert_eq!(value.kind(), *found),
        (Outcome::Failed(error), Err(answer)) => assert_eq!(error, answer),
        other => panic!("{other:?}"),
    }
    let text = explanation.to_string();
    assert_eq!(text.lines().count(), 1 + explanation.steps().len(), "one line for each step: {text}");
    assert!(text.starts_with(if *answer == Ok(true) { "permitted: " } else { "denied: " }));
    assert!(text.lines().all(|line| line.chars().count() < 500 && !line.contains(char::is_control)), "{text:?}");
}

/// Who knows less gets the same answer or none, unless the policy asks what is known: `not`, `!=` and `if` included.
fn removing_never_grants(policy: &Policy, tree: &Tree, known: &Known, answer: &Result<bool, EvalError>) {
    if asks_what_is_known(tree) {
        return;
    }
    for name in known.0.keys() {
        let mut less = known.clone();
        less.0.remove(name);
        match policy.evaluate(&less) {
            Err(EvalError::Unbound { name: missing }) if missing == *name => {}
            same => assert_eq!(same, *answer, "without {name}: {policy}"),
        }
    }
}

fn asks_what_is_known(tree: &Tree) -> bool {
    match tree {
        Tree::Seq(items) => items.iter().any(asks_what_is_known),
        Tree::List(items) => tree_is(tree, "exists?") || items.iter().any(asks_what_is_known),
        _ => false,
    }
}

/// Any bytes: as CBOR, as text and, with what a tree of their choosing is, as text that must be accepted.
pub fn policy(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    let mut source = Source(rest);
    let known = source.known();
    match kind % 3 {
        0 => {
            if let Ok(policy) = Policy::decode(source.0) {
                accepted(&policy, &known);
            }
            if let Ok(expr) = ockam_policy::Expr::decode(source.0) {
                assert_eq!(ockam_policy::Expr::decode(&expr.encode()), Ok(expr));
            }
        }
        1 => {
            let text = String::from_utf8_lossy(source.0);
            match Policy::parse(&text) {
                Ok(policy) => accepted(&policy, &known),
                Err(error) => assert!(error.at <= text.len() && text.is_char_boundary(error.at), "{error:?}"),
            }
        }
        _ => {
            let tree = source.list(4);
            let mut text = String::new();
            write(&tree, &mut source.0.iter().copied().cycle().take(4096), &mut text);
            // `(not resource.id)` is of the boolean form, whose names are others, or has comments and is neither.
            let either = is_either_form(&tree);
            match Policy::parse(&text) {
                Ok(policy) => {
                    accepted(&policy, &known);
                    assert!(either || self::tree(&policy.encode()) == tree, "{text}");
                }
                Err(error) => assert!(either && error.problem == Problem::ReadsAsBoolean, "{error}: {text}"),
            }
        }
    }
}

/// `(and)`, `(or)`, a name, a value that begins like one, and negations of these.
fn is_either_form(tree: &Tree) -> bool {
    match tree {
        Tree::List(list) if tree_is(tree, "not") => is_either_form(&list[1]),
        Tree::List(list) => list.len() == 1,
        Tree::Str(_) | Tree::Seq(_) => false,
        Tree::Int(_) | Tree::Float(_) | Tree::Bool(_) | Tree::Name(_) => true,
    }
}

fn tree_is(tree: &Tree, operator: &str) -> bool {
    matches!(tree, Tree::List(list) if list[0] == Tree::Name(operator.into()))
}

/// Choices.
pub struct Source<'a>(pub &'a [u8]);

/// Each with what it mostly is: 0 a string, 1 true or false, 2 an integer, 3 a float.
const NAMES: [(&str, usize); 6] =
    [("subject.a", 0), ("subject.b", 0), ("resource.id", 0), ("subject.t", 1), ("subject.n", 2), ("subject.f", 3)];
const STRINGS: [&str; 5] = ["true", "a", "db-1", "\u{202e}\"\\\n", "é"];
const INTS: [i64; 5] = [0, 1, 1234, i64::MAX, i64::MIN];
const FLOATS: [f64; 5] = [0.0, -0.0, 1.5, f64::INFINITY, -1e300];
const OPERATORS: [&str; 10] = ["and", "or", "not", "if", "<", ">", "=", "!=", "member?", "exists?"];

impl Source<'_> {
    fn below(&mut self, limit: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first) % limit
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// Some names, with values of some kind.
    pub fn known(&mut self) -> Known {
        let mut known = Known::default();
        for (name, kind) in NAMES {
            let value = match self.below(16) {
                0 => continue,
                1 => Tree::Float(f64::NAN),
                2 => Tree::Seq(vec![]),
                3 => Tree::Seq(vec![self.value(kind), self.value(kind)]),
                4 => Tree::Seq(vec![Tree::Seq(vec![self.value(kind)])]),
                5 => {
                    let kind = self.below(4);
                    self.value(kind)
                }
                _ => self.value(kind),
            };
            known.0.insert(name.into(), value);
        }
        known
    }

    fn value(&mut self, kind: usize) -> Tree {
        match kind {
            0 => Tree::Str(self.of(&STRINGS).into()),
            1 => Tree::Bool(self.below(2) == 1),
            2 => Tree::Int(self.of(&INTS)),
            _ => Tree::Float(self.of(&FLOATS)),
        }
    }

    fn name(&mut self, kind: usize) -> Tree {
        let names: Vec<&str> = NAMES.iter().filter(|name| name.1 == kind).map(|name| name.0).collect();
        Tree::Name(self.of(&names).into())
    }

    /// Items of one kind, all of them values or all of them names, or sequences of these.
    fn seq(&mut self, depth: usize, kind: usize) -> Tree {
        let way = self.below(8);
        let item = |source: &mut Self| match way {
            5 => source.name(kind),
            6 => Tree::Name(source.of(&NAMES).0.into()),
            7 if depth > 0 => source.seq(depth - 1, kind),
            _ => source.value(kind),
        };
        Tree::Seq((0..self.below(4)).map(|_| item(self)).collect())
    }

    /// Something of this kind, mostly.
    fn expr(&mut self, depth: usize, kind: usize) -> Tree {
        match self.below(32) {
            0 => self.seq(2, kind),
            1 => Tree::Name(self.of(&NAMES).0.into()),
            2 if depth > 0 => self.list(depth - 1),
            3..12 => self.value(kind),
            12..16 if depth > 0 => {
                let test = self.list(depth - 1);
                Tree::List(vec![Tree::Name("if".into()), test, self.expr(depth - 1, kind), self.expr(depth - 1, kind)])
            }
            _ => self.name(kind),
        }
    }

    /// An application with arguments of the right number.
    pub fn list(&mut self, depth: usize) -> Tree {
        let operator = self.of(&OPERATORS);
        let kind = self.below(4);
        let mut list = vec![Tree::Name(operator.into())];
        let arguments = match operator {
            "and" | "or" => self.below(4),
            "not" => 1,
            "if" => 3,
            "exists?" => 1 + self.below(2),
            "member?" => 2,
            _ => 2 + self.below(2),
        };
        for index in 0..arguments {
            list.push(match operator {
                "exists?" => Tree::Name(self.of(&NAMES).0.into()),
                "and" | "or" | "not" | "if" if depth > 0 => self.list(depth - 1),
                "and" | "or" | "not" | "if" => self.expr(0, 1),
                "member?" if index == 1 && self.below(16) > 0 => self.seq(2, kind),
                _ => self.expr(depth, kind),
            });
        }
        Tree::List(list)
    }
}
