//! What holds for every policy, tried on generated ones. The oracle is shared with the fuzz target.

mod oracle;

use ockam_policy::{DEPTH_MAX, Policy, Problem};
use oracle::{Known, Source, Tree, accepted, write};
use proptest::collection::vec;
use proptest::prelude::*;

/// The boolean form, one operand or two.
#[derive(Clone, Debug)]
enum Boolean {
    Name(String),
    NameValue(String, String),
    Identifier(String),
    Or(Box<Boolean>, Box<Boolean>),
    And(Box<Boolean>, Box<Boolean>),
    Not(Box<Boolean>),
}

impl Boolean {
    /// How tight it binds: `or` 0, `and` 1, everything else 2.
    fn binds(&self) -> u8 {
        match self {
            Boolean::Or(..) => 0,
            Boolean::And(..) => 1,
            _ => 2,
        }
    }

    fn write(&self, least: u8, extra: &mut impl Iterator<Item = bool>, out: &mut String) {
        let parentheses = self.binds() < least || extra.next() == Some(true);
        out.push_str(if parentheses { "(" } else { "" });
        match self {
            Boolean::Name(name) | Boolean::Identifier(name) => out.push_str(name),
            Boolean::NameValue(name, value) => {
                let plain = value.chars().all(|it| it.is_ascii_alphanumeric() || "._-".contains(it));
                let quote = if plain && extra.next() == Some(true) { "" } else { "\"" };
                out.push_str(&format!("{name}={quote}{value}{quote}"));
            }
            Boolean::Or(left, right) => {
                left.write(0, extra, out);
                out.push_str(" or ");
                right.write(1, extra, out);
            }
            Boolean::And(left, right) => {
                left.write(1, extra, out);
                out.push_str("\n and\t");
                right.write(2, extra, out);
            }
            Boolean::Not(one) => {
                out.push_str("not ");
                one.write(2, extra, out);
            }
        }
        out.push_str(if parentheses { " )" } else { "" });
    }

    fn tree(&self) -> Tree {
        let list = |name: &str, arguments: Vec<Tree>| {
            Tree::List([Tree::Name(name.into())].into_iter().chain(arguments).collect())
        };
        let equal =
            |name: &str, value: &str| list("=", vec![Tree::Name(format!("subject.{name}")), Tree::Str(value.into())]);
        match self {
            Boolean::Name(name) => equal(name, "true"),
            Boolean::NameValue(name, value) => equal(name, value),
            Boolean::Identifier(identifier) => equal("identifier", identifier),
            Boolean::Or(left, right) => list("or", vec![left.tree(), right.tree()]),
            Boolean::And(left, right) => list("and", vec![left.tree(), right.tree()]),
            Boolean::Not(one) => list("not", vec![one.tree()]),
        }
    }
}

fn boolean() -> impl Strategy<Value = Boolean> {
    // Words that begin or end with a keyword, most of all.
    let name = || {
        "[abnt]|(and|or|not)[a-z0-9._-]{1,3}|[A-Za-z_-][a-z]{0,2}(and|or|not)|[A-Za-z_-][A-Za-z0-9._-]{0,9}"
            .prop_filter("a keyword is no name", |name| !["and", "or", "not"].contains(&name.as_str()))
    };
    let value = prop_oneof!["[A-Za-z0-9._-]{1,6}", "[ -!#-~é(]{1,8}", "or"];
    let leaf = prop_oneof![
        name().prop_map(Boolean::Name),
        (name(), value).prop_map(|(name, value)| Boolean::NameValue(name, value)),
        "I[0-9a-f]{64}".prop_map(Boolean::Identifier),
    ];
    leaf.prop_recursive(8, 64, 2, |inner| {
        let two = (inner.clone(), inner.clone()).prop_map(|(left, right)| (Box::new(left), Box::new(right)));
        prop_oneof![
            two.clone().prop_map(|(left, right)| Boolean::Or(left, right)),
            two.prop_map(|(left, right)| Boolean::And(left, right)),
            inner.prop_map(|one| Boolean::Not(Box::new(one))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// What is written in any way is read as what it is, and has the worth that the reference says.
    #[test]
    fn full_expressions_are_worth_what_the_reference_says(choices in vec(any::<u8>(), 0..400)) {
        oracle::policy(&[&[2], &choices[..]].concat());
    }

    /// Where `or` and `and` stand in names and values, too.
    #[test]
    fn boolean_expressions_mean_what_they_say(
        boolean in boolean(),
        extra in vec(any::<bool>(), 0..40),
        known in vec(any::<u8>(), 0..40),
    ) {
        let mut text = String::new();
        boolean.write(0, &mut extra.into_iter(), &mut text);
        let policy = Policy::parse(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        prop_assert_eq!(oracle::tree(&policy.encode()), boolean.tree(), "{}", text);
        accepted(&policy, &Source(&known).known());
    }

    /// Nothing that is read as text or as CBOR is trouble.
    #[test]
    fn anything_is_read_or_refused(kind in 0..2u8, bytes in vec(any::<u8>(), 0..200)) {
        oracle::policy(&[&[kind], &bytes[..]].concat());
    }

    /// Nor is what is nearly a policy.
    #[test]
    fn edited_texts_are_read_or_refused(
        choices in vec(any::<u8>(), 10..200),
        edits in vec((any::<prop::sample::Index>(), "[()\\[\\]\"\\\\;a0 =-]{0,2}"), 1..4),
        known in vec(any::<u8>(), 0..40),
    ) {
        let mut text = String::new();
        write(&Source(&choices).list(3), &mut std::iter::empty(), &mut text);
        for (at, new) in edits {
            let at = text.floor_char_boundary(at.index(text.len() + 1));
            let end = text.ceil_char_boundary((at + 1).min(text.len()));
            text.replace_range(at..end, &new);
        }
        if let Ok(policy) = Policy::parse(&text) {
            accepted(&policy, &Source(&known).known());
        }
    }

    /// Nor is CBOR that is nearly one.
    #[test]
    fn edited_encodings_are_read_or_refused(
        boolean in boolean(),
        choices in vec(any::<u8>(), 10..200),
        full in any::<bool>(),
        edits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..3),
        known in vec(any::<u8>(), 0..40),
    ) {
        let mut text = String::new();
        if full {
            write(&Source(&choices).list(3), &mut std::iter::empty(), &mut text);
        } else {
            boolean.write(0, &mut std::iter::empty(), &mut text);
        }
        let Ok(policy) = Policy::parse(&text) else { return Ok(()) };
        let mut encoded = policy.encode();
        for (at, new) in edits {
            let at = at.index(encoded.len());
            encoded[at] = new;
        }
        if let Ok(policy) = Policy::decode(&encoded) {
            accepted(&policy, &Source(&known).known());
        }
    }
}

/// The tests above are worth something: what they generate is permitted, denied and an error often enough.
#[test]
fn generated_policies_have_every_answer() {
    let (mut permitted, mut denied, mut failed) = (0, 0, 0);
    let mut state = 1u64;
    for _ in 0..3000 {
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        })
        .take(200)
        .collect();
        let mut source = Source(&bytes);
        let known = source.known();
        let mut text = String::new();
        write(&source.list(4), &mut std::iter::empty(), &mut text);
        match Policy::parse(&text).map(|policy| policy.evaluate(&known)) {
            Ok(Ok(true)) => permitted += 1,
            Ok(Ok(false)) => denied += 1,
            _ => failed += 1,
        }
    }
    assert!(permitted > 500 && denied > 500 && failed > 500, "{permitted} {denied} {failed}");
}

#[test]
fn depth_is_that_of_the_tree_in_both_forms() {
    // `not` and a chain inside one another, as deep as allowed: 32 of each.
    let nested = |levels: usize| {
        let mut text = "a".to_string();
        for _ in 0..levels {
            text = format!("not (a and {text})");
        }
        text
    };
    accepted(&Policy::parse(&nested(DEPTH_MAX / 2)).unwrap(), &Known::default());
    assert_eq!(Policy::parse(&nested(DEPTH_MAX / 2 + 1)).unwrap_err().problem, Problem::TooDeep);
    // `or` and `and` inside one another, with half as many parentheses.
    let chains = |levels: usize| "a or b and (".repeat(levels) + "a or b" + &")".repeat(levels);
    accepted(&Policy::parse(&chains(DEPTH_MAX / 2 - 1)).unwrap(), &Known::default());
    assert_eq!(Policy::parse(&chains(DEPTH_MAX / 2)).unwrap_err().problem, Problem::TooDeep);
    // The same with `not`, three of the tree for two of the text.
    let negated = |levels: usize| "a or b and not (".repeat(levels) + "a or b" + &")".repeat(levels);
    accepted(&Policy::parse(&negated(DEPTH_MAX / 3)).unwrap(), &Known::default());
    assert_eq!(Policy::parse(&negated(DEPTH_MAX / 3 + 1)).unwrap_err().problem, Problem::TooDeep);
}
