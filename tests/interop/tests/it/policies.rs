//! Policies as text, as CBOR and as decisions, read by the real library and by ours (`wire.md` H.3 to H.5).
//!
//! Ours may refuse what a real node accepts, and deny what one permits. Each such difference is meant, and has its place
//! in a list here. The other way round there is none.

use ockam::abac::{Env, Expr, PolicyExpression, eval, expr};
use ockam_policy::{Environment, Policy, Value};
use std::collections::BTreeMap;

/// What both must read as the same policy.
const SAME: &[&str] = &[
    // The boolean form.
    "admin",
    "_a",
    "-a",
    "a.b-c_d.9",
    "admin and cluster=prod",
    "admin or guest",
    "not admin",
    "not not admin",
    "not (not admin)",
    "(admin)",
    "((admin))",
    "(not admin)",
    "a and b and c",
    "a or b or c",
    "a or b and c",
    "a and b or c",
    "(a or b) and c",
    "not a and b",
    "not (a and b)",
    "not a or not b",
    "a and (b or (c and not d))",
    "role=admin",
    "role=\"admin\"",
    "role=\"data base admin\"",
    "role=admin and not cluster=\"pre prod\"",
    "true",
    "false",
    "subject.role",
    "component.db=7",
    "I0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "I0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef or admin",
    "ockam-relay=web",
    "a  and  b",
    // The full form.
    "(= subject.has_credential true)",
    "(= subject.trust_context_id \"a994262c-4d59-4756-a158-19db6994feed\")",
    "(and (= resource.trust_context_id subject.trust_context_id) (= subject.ockam-role \"enroller\"))",
    "(= subject.identifier \"I0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\")",
    "(and (= 1 1))",
    "(and (= 1 1) (and))",
    "(or (= 1 2) (or))",
    "(or (= 1 2) (= 1 1))",
    "(and (= 1 2) (= subject.nobody 1))",
    "(or (= 1 1) (= subject.nobody 1))",
    "(and (= 1 1) (= subject.nobody 1))",
    "(or (= 1 2) (= subject.nobody 1))",
    "(not (= subject.role \"admin\"))",
    "(not (= subject.nobody \"admin\"))",
    "(if (= subject.role \"admin\") (= 1 1) (= 1 2))",
    "(if (= subject.role \"guest\") (= subject.nobody 1) (= 1 1))",
    "(if true true false)",
    "(= true true)",
    "(= true false)",
    "(= 1 1)",
    "(= 1 1 1)",
    "(= 1 1 2)",
    "(= 1 2)",
    "(= -7 -7)",
    "(= +7 7)",
    "(= 0x1f 31)",
    "(= 1_000 1000)",
    "(= 1.5 1.5)",
    "(= 1.5 2.5)",
    "(< 1 2)",
    "(< 1 2 3)",
    "(< 1 3 2)",
    "(< 2 1)",
    "(< 1 1)",
    "(> 2 1)",
    "(> 3 2 1)",
    "(> 1 1)",
    "(< \"a\" \"b\")",
    "(> \"b\" \"a\")",
    "(< \"a\" \"ab\")",
    "(< 1.5 2.5)",
    "(< false true)",
    "(< [1 2] [1 3])",
    "(< [1] [1 0])",
    "(= [1 2] [1 2])",
    "(= [1 2] [2 1])",
    "(= [] [])",
    "(!= 1 2)",
    "(!= 1 1)",
    "(!= subject.role \"admin\")",
    "(!= subject.nobody \"admin\")",
    "(member? subject.role [\"admin\" \"dba\"])",
    "(member? subject.role [])",
    "(member? 3 [1 2 3])",
    "(member? [1] [[1] [2]])",
    "(member? subject.nobody [\"a\"])",
    "(exists? subject.role)",
    "(exists? subject.nobody)",
    "(exists? subject.role subject.nobody)",
    "(and (exists? subject.nobody) (= subject.nobody \"x\"))",
    "(or (not (exists? subject.nobody)) (= subject.nobody \"x\"))",
    "(= subject.role admin)",
    "(= resource.id \"db\")",
    "(= action.id \"handle_message\")",
    "(member? resource.id [\"db\" \"cache\"])",
    "(= subject.role \"a\\tb\\n\\\"\\\\\")",
    "(= subject.role \"\\u{1F600}\")",
    "(= subject.role \"\\41\")",
    "(= subject.role \"grün\")",
    ";; a comment\n(= 1 1)",
    "(= 1 (; a comment (; in one ;) ;) 1)",
    "(=\n  1\t1\r\n)",
    "(and (and (and (and (= 1 1)))))",
    "(= 1 \"1\")",
    "(= 1 1.0)",
    "(< 1 \"2\")",
    "(< true 1)",
    "(and true)",
    "(and subject.has_credential)",
    "(or false subject.has_credential)",
    "(not subject.has_credential)",
    "= subject.role \"admin\"",
    "and (= 1 1) (= 2 2)",
    "or b",
];

/// What neither takes for a policy.
const NEITHER: &[&str] = &[
    "",
    " ",
    "()",
    "(",
    ")",
    "(admin",
    "admin)",
    "1",
    "\"text\"",
    "[1 2]",
    "(= 1 1",
    "(= 1 \"unfinished)",
    "(= 1 99999999999999999999)",
    "a and",
    "9a",
    ".a",
    "a b",
    "a=",
    "=a",
    "a &&& b",
];

/// What a real node takes for a policy, and ours refuses: what is behind its end, and keywords as names of the boolean
/// form, so that `(and)` is about an attribute of that name and not an `and` of nothing.
const REFUSED_BY_OURS: &[&str] =
    &["(= 1 1))", "and", "not or", "and=or", "(and)", "(or)", "((and))", "(not (or))", "not (and)", "(not (not (or)))"];

/// What ours takes for a policy, and a real node refuses.
const READ_BY_OURS: &[&str] = &["  admin", "\tadmin or guest"];

/// What ours denies where a real node permits: every comparison of a chain must make sense, also behind one that is
/// false.
const DENIED_BY_OURS: &[&str] = &["(not (= 1 2 \"3\"))", "(!= 1 2 \"3\")"];

/// What is known of somebody, by what stands for it.
struct Known(BTreeMap<String, Expr>);

impl Known {
    fn all() -> Vec<Known> {
        let someone = |credential: Option<bool>, attributes: &[(&str, &str)]| {
            let identifier = format!("I{}", "0123456789abcdef".repeat(4));
            let mut known: BTreeMap<String, Expr> = BTreeMap::from([
                ("resource.id".into(), expr::str("db")),
                ("action.id".into(), expr::str("handle_message")),
                ("subject.identifier".into(), expr::str(identifier)),
            ]);
            known.extend(credential.map(|has| ("subject.has_credential".into(), Expr::Bool(has))));
            known.extend(attributes.iter().map(|(name, value)| (format!("subject.{name}"), expr::str(*value))));
            Known(known)
        };
        vec![
            Known(BTreeMap::new()),
            someone(None, &[]),
            someone(Some(false), &[]),
            someone(Some(true), &[]),
            someone(Some(true), &[("admin", "true")]),
            someone(Some(true), &[("admin", "false"), ("guest", "true"), ("cluster", "prod")]),
            someone(Some(true), &[("role", "admin"), ("cluster", "pre prod"), ("true", "true")]),
            someone(Some(true), &[("role", "dba"), ("a", "true"), ("b", "true"), ("ockam-relay", "web")]),
            someone(Some(true), &[("c", "true"), ("d", "true"), ("a", "false"), ("component.db", "7")]),
            someone(Some(true), &[("role", "A"), ("false", "true"), ("subject.role", "true"), ("_a", "true")]),
            someone(Some(true), &[("role", "a\tb\n\"\\"), ("-a", "true"), ("a.b-c_d.9", "true")]),
            someone(Some(true), &[("trust_context_id", "a994262c-4d59-4756-a158-19db6994feed"), ("c", "true")]),
        ]
    }

    fn permits_really(&self, policy: &PolicyExpression) -> bool {
        let mut env = Env::new();
        for (name, value) in &self.0 {
            env.put(name.clone(), value.clone());
        }
        matches!(eval(&policy.to_expression(), &env), Ok(Expr::Bool(true)))
    }
}

impl Environment for Known {
    fn value(&self, name: &str) -> Option<Value<'_>> {
        match self.0.get(name)? {
            Expr::Str(text) => Some(Value::Str(text)),
            Expr::Bool(value) => Some(Value::Bool(*value)),
            other => unreachable!("nothing else is put there: {other}"),
        }
    }
}

fn real(text: &str) -> Option<PolicyExpression> {
    text.parse().ok()
}

/// What both read is the same bytes, each reads the other's, and what ours prints means the same to both. Ours permits
/// nothing that a real node would not. Says whether they always agree.
#[track_caller]
fn assert_same(text: &str) -> bool {
    let real = real(text).unwrap_or_else(|| panic!("a real node refuses {text:?}"));
    let ours = Policy::parse(text).unwrap_or_else(|e| panic!("ours refuses {text:?}: {e}"));
    let bytes = minicbor::to_vec(&real).expect("it is encoded into memory");
    assert_eq!(hex::encode(ours.encode()), hex::encode(&bytes), "{text:?}");
    assert_eq!(Policy::decode(&bytes).as_ref(), Ok(&ours), "{text:?}");
    let back: PolicyExpression = minicbor::decode(&ours.encode()).expect("a real node decodes it");
    assert_eq!(back, real, "{text:?}");
    let printed = ours.to_string();
    assert_eq!(self::real(&printed), Some(real.clone()), "{text:?} is printed as {printed:?}");
    let mut agree = true;
    for known in Known::all() {
        let (really, by_ours) = (known.permits_really(&real), ours.permits(&known));
        assert!(really || !by_ours, "{text:?}: ours permits what a real node denies, knowing {:?}", known.0);
        agree &= really == by_ours;
    }
    agree
}

#[test]
fn both_read_and_decide_the_same() {
    let disagreed: Vec<_> = SAME.iter().filter(|text| !assert_same(text)).collect();
    assert_eq!(disagreed, [""; 0].iter().collect::<Vec<_>>());
}

#[test]
fn ours_denies_more() {
    for text in DENIED_BY_OURS {
        assert!(!assert_same(text), "{text:?}: they agree");
    }
}

#[test]
fn neither_takes_it() {
    for text in NEITHER {
        assert_eq!(real(text), None, "a real node reads {text:?}");
        assert!(Policy::parse(text).is_err(), "ours reads {text:?}");
    }
}

#[test]
fn ours_refuses_more() {
    for text in REFUSED_BY_OURS {
        assert!(real(text).is_some(), "a real node refuses {text:?}");
        assert!(Policy::parse(text).is_err(), "ours reads {text:?}");
    }
}

/// What it prints is a policy to both.
#[test]
fn ours_reads_more() {
    for text in READ_BY_OURS {
        assert_eq!(real(text), None, "a real node reads {text:?}");
        assert_same(&Policy::parse(text).expect("ours reads it").to_string());
    }
}

/// Expressions of both forms that nobody thought of.
#[test]
fn made_up_ones() {
    let mut dice = Dice(1);
    for _ in 0..2000 {
        let depth = dice.below(5);
        let text = if dice.below(3) == 0 { dice.boolean(depth) } else { dice.full(depth) };
        assert_same(&text);
    }
}

/// Numbers that nobody chose, the same ones each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len() as u64) as usize]
    }

    fn boolean(&mut self, depth: u64) -> String {
        let names = ["admin", "guest", "role=admin", "cluster=\"pre prod\"", "a", "b", "c", "d", "ockam-relay=web"];
        if depth == 0 {
            return self.of(&names).to_owned();
        }
        let kind = self.below(4);
        let left = self.boolean(depth - 1);
        match kind {
            0 => format!("({left})"),
            1 => format!("not {left}"),
            2 => format!("({left}) and {}", self.boolean(depth - 1)),
            _ => format!("{left} or ({})", self.boolean(depth - 1)),
        }
    }

    fn full(&mut self, depth: u64) -> String {
        const NAMES: [&str; 4] = ["subject.role", "subject.a", "subject.nobody", "resource.id"];
        const TEXTS: [&str; 3] = ["\"admin\"", "\"true\"", "\"db\""];
        const NUMBERS: [&str; 6] = ["0", "1", "-2", "3", "0x10", "65536"];
        if depth == 0 {
            let [name, text, number] = [self.of(&NAMES), self.of(&TEXTS), self.of(&NUMBERS)];
            return match self.below(8) {
                0 => format!("({} {name} {text})", self.of(&["=", "!=", "<", ">"])),
                1 => format!("({} {text} {name} {})", self.of(&["=", "<", ">"]), self.of(&TEXTS)),
                2 => format!("({} {number} {} {})", self.of(&["=", "<", ">"]), self.of(&NUMBERS), self.of(&NUMBERS)),
                3 => format!("(= {name} {number})"),
                4 => format!("(member? {name} [{text} {}])", self.of(&TEXTS)),
                5 => format!("(member? {text} [{name} {}])", self.of(&NAMES)),
                6 => format!("(exists? {name} subject.b)"),
                _ => self
                    .of(&["(= subject.has_credential true)", "(= true true)", "(and false)", "(or false)"])
                    .to_owned(),
            };
        }
        let kind = self.below(5);
        let first = self.full(depth - 1);
        match kind {
            0 => format!("(not {first})"),
            1 => format!("(and {first} {} {})", self.full(depth - 1), self.full(0)),
            2 => format!("(or {first} {})", self.full(depth - 1)),
            3 => format!("(if {first} {} {})", self.full(depth - 1), self.full(0)),
            _ => format!("({} {first} ({}))", self.of(&["and", "or"]), self.of(&["and", "or"])),
        }
    }
}
