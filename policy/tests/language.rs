//! The language of policies case by case: what is read, what it is worth, what is refused and where (`wire.md` H.4).

mod oracle;

use ockam_policy::{
    DEPTH_MAX, ENCODED_MAX, EvalError, Expr, Kind, NODES_MAX, Operator, Outcome, Policy, Problem, TEXT_MAX,
};
use oracle::{Known, Tree, accepted};

/// A subject of the tests.
fn known() -> Known {
    let text = |text: &str| Tree::Str(text.into());
    Known(
        [
            ("subject.identifier", text("I0000000000000000000000000000000000000000000000000000000000000001")),
            ("subject.has_credential", Tree::Bool(true)),
            ("subject.role", text("dba")),
            ("subject.nothing", text("true")),
            ("subject.orb", text("true")),
            ("subject.android", text("true")),
            ("subject.guest", text("false")),
            ("subject.level", Tree::Int(3)),
            ("subject.nan", Tree::Float(f64::NAN)),
            ("subject.teams", Tree::Seq(vec![text("db"), text("web")])),
            ("resource.id", text("db-1")),
        ]
        .map(|(name, value)| (name.to_string(), value))
        .into(),
    )
}

#[track_caller]
fn evaluate(text: &str) -> Result<bool, EvalError> {
    let policy = Policy::parse(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    accepted(&policy, &known());
    policy.evaluate(&known())
}

#[track_caller]
fn all(answer: bool, texts: &[&str]) {
    for text in texts {
        assert_eq!(evaluate(text), Ok(answer), "{text}");
    }
}

#[track_caller]
fn refused(text: &str, at: usize, problem: Problem) {
    let error = Policy::parse(text).expect_err(text);
    assert_eq!((error.at, error.problem), (at, problem), "{text}: {error}");
    assert!(!error.to_string().contains('\n'));
}

#[track_caller]
fn prints(text: &str, canonical: &str) {
    let policy = Policy::parse(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(policy.to_string(), canonical, "{text}");
    assert_eq!(Policy::parse(canonical), Ok(policy));
}

fn unbound(name: &str) -> Result<bool, EvalError> {
    Err(EvalError::Unbound { name: name.into() })
}

#[test]
fn operators() {
    all(
        true,
        &[
            "(= (and) true)",
            "(and true true)",
            "(or false true)",
            "(not (= 1 2))",
            "(if true true false)",
            "(if false 1 true)",
            "(= (if (= subject.role \"dba\") 1 2) 1)",
            "(< 1 2 3)",
            "(> 3 2 1)",
            "(> 1.5 -inf)",
            "(= 1 1 1)",
            "(!= 1 1 2)",
            "(!= \"a\" \"b\")",
            "(= 0.0 -0.0)",
            "(< false true)",
            "(< \"a\" \"b\" \"ba\")",
            "(= [1 2] [1 2])",
            "(< [2] [1 1])",
            "(< [1 1] [1 2])",
            "(= [] [])",
            "(member? subject.role [\"dba\" \"admin\"])",
            "(member? \"web\" subject.teams)",
            "(member? [1] [[1] [2]])",
            "(exists? subject.role subject.level)",
            "(= subject.has_credential true)",
            "and (= subject.role \"dba\") (> subject.level 2)",
            "= 1 1",
        ],
    );
    all(
        false,
        &[
            "(= (or) true)",
            "(and true false)",
            "(or false false)",
            "(and (not (and)))",
            "(< 1 1)",
            "(> 1 1)",
            "(< 1 3 2)",
            "(= 1 1 2)",
            "(!= 2 2 2)",
            "(= [1] [1 2])",
            "(member? \"x\" [])",
            "(member? \"x\" subject.teams)",
            "(exists? subject.role subject.unknown)",
            "(if true false true)",
        ],
    );
}

/// What is decided already is not looked at; what is looked at must make sense.
#[test]
fn errors_deny_unless_they_are_not_looked_at() {
    all(true, &["(or true subject.unknown)", "(if true true subject.unknown)", "(if false 7 true)"]);
    all(false, &["(and false subject.unknown)", "(and false 7)"]);
    for (text, name) in [
        ("(or subject.unknown true)", "subject.unknown"),
        ("(and true subject.unknown)", "subject.unknown"),
        ("(not (= subject.unknown 1))", "subject.unknown"),
        ("(!= subject.unknown 1)", "subject.unknown"),
        ("(if subject.unknown true true)", "subject.unknown"),
        ("(member? subject.unknown [])", "subject.unknown"),
        ("(member? \"x\" subject.unknown)", "subject.unknown"),
        ("(or (= subject.a 1) (= subject.b 1))", "subject.a"),
        ("not admin", "subject.admin"),
        ("admin or role=dba", "subject.admin"),
    ] {
        assert_eq!(evaluate(text), unbound(name), "{text}");
    }
    all(true, &["role=dba or admin"]);
    let mismatch = |left, right| Err(EvalError::TypeMismatch { left, right });
    for (text, error) in [
        ("(= 1 1.0)", mismatch(Kind::Int, Kind::Float)),
        ("(= subject.has_credential \"true\")", mismatch(Kind::Bool, Kind::Str)),
        ("(!= 1 \"1\")", mismatch(Kind::Int, Kind::Str)),
        // Behind what is false already, too.
        ("(= 1 2 \"2\")", mismatch(Kind::Int, Kind::Str)),
        ("(!= 1 2 \"2\")", mismatch(Kind::Int, Kind::Str)),
        ("(< [[2] [1]] [[1] [true]])", mismatch(Kind::Int, Kind::Bool)),
        ("(= [1] [\"1\" \"2\"])", mismatch(Kind::Int, Kind::Str)),
        ("(member? 1 [\"1\"])", mismatch(Kind::Int, Kind::Str)),
        ("(member? 1 subject.role)", Err(EvalError::NotASequence { found: Kind::Str })),
        (
            "(= [subject.role subject.level] [\"dba\" \"dba\"])",
            Err(EvalError::MixedSequence { first: Kind::Str, other: Kind::Int }),
        ),
        ("(and 1)", Err(EvalError::NotABoolean { operator: Operator::And, found: Kind::Int })),
        ("(or false subject.role)", Err(EvalError::NotABoolean { operator: Operator::Or, found: Kind::Str })),
        ("(if 1 true true)", Err(EvalError::NotABoolean { operator: Operator::If, found: Kind::Int })),
        ("(not \"a\")", Err(EvalError::NotABoolean { operator: Operator::Not, found: Kind::Str })),
        ("(not (if true 1 1))", Err(EvalError::NotABoolean { operator: Operator::Not, found: Kind::Int })),
        ("(if true \"yes\" true)", Err(EvalError::NoAnswer { found: Kind::Str })),
        ("(= subject.nan subject.nan)", Err(EvalError::NotANumber)),
        ("(!= subject.nan 1.0)", Err(EvalError::NotANumber)),
        ("(> subject.nan 1.0)", Err(EvalError::NotANumber)),
        ("(member? subject.nan [1.0])", Err(EvalError::NotANumber)),
    ] {
        assert_eq!(evaluate(text), error, "{text}");
    }
}

#[test]
fn the_boolean_form() {
    all(true, &["nothing", "orb", "android", "role=dba", "role=\"dba\"", "not guest", "nothing and orb or admin"]);
    all(true, &["(((nothing)))", "not not orb", "guest or role=dba and android", "not(guest)and(orb)", " orb\r\n"]);
    all(true, &["I0000000000000000000000000000000000000000000000000000000000000001"]);
    all(false, &["role=DBA", "role=or", "guest", "not orb", "orb and guest", "(orb or guest) and guest"]);
    // `not` binds more than `and`, `and` more than `or`.
    all(true, &["orb or orb and guest", "not guest and orb", "not guest or guest"]);
    all(false, &["(orb or orb) and guest", "not (guest or orb)"]);
    // A name is what follows `subject.`, whatever it is.
    assert_eq!(evaluate("true"), unbound("subject.true"));
    assert_eq!(evaluate("subject.role"), unbound("subject.subject.role"));
    assert_eq!(evaluate("(not subject.has_credential)"), unbound("subject.subject.has_credential"));
    assert_eq!(evaluate("--"), unbound("subject.--"));
}

#[test]
fn keywords_are_whole_words() {
    for (text, tokens) in [
        ("nothing", "nothing"),
        ("a orb", ""),
        ("aorb", "aorb"),
        ("notguest", "notguest"),
        ("not-guest", "not-guest"),
        ("android and orb", "android and orb"),
        ("a and.b", ""),
        ("or-a or _and", "or-a or _and"),
        ("a=or or or=a", ""),
        ("a=and and not_=b", "a=and and not_=b"),
        ("a=\"b\"or c", ""),
        ("And or OR", "And or OR"),
    ] {
        match Policy::parse(text) {
            Ok(policy) => assert_eq!(policy.to_string(), tokens),
            Err(error) => assert_eq!(tokens, "", "{error}"),
        }
    }
}

#[test]
fn what_is_printed() {
    prints("( a  or\tb )", "a or b");
    prints("(a or b) or c", "a or b or c");
    prints("a or (b or c)", "a or (b or c)");
    prints("(a and b) and (c and d)", "a and b and (c and d)");
    prints("(a and b) or (c and d)", "a and b or c and d");
    prints("a or (b and c or d)", "a or (b and c or d)");
    prints("not (a) and not (b or c)", "not a and not (b or c)");
    prints("a=\"b\"", "a=b");
    prints("a=\"b c\" and d=\"\\\"", "a=\"b c\" and d=\"\\\"");
    let upper = "I".to_string() + &"AB".repeat(32);
    prints(&upper, &("I".to_string() + &"ab".repeat(32)));
    prints("= subject.a\n 1", "(= subject.a 1)");
    prints("(= 0xff +1_000 -0x1_0)", "(= 255 1000 -16)");
    prints("(= 1. 1e3 -1.5E-7 1e300 inf -inf)", "(= 1.0 1000.0 -1.5e-7 1e300 inf -inf)");
    prints("(= \"\\t\\n\\r\\\"\\'\\\\\\41\\u{42}\\c3\\a9\\u{0}\" \"é\")", "(= \"\\t\\n\\r\\\"'\\\\ABé\\u{0}\" \"é\")");
    prints("(;a(;b;);)(or;;c\n;;d\r(=[][\"\"]));;e", "(or (= [] [\"\"]))");
    // Nothing that reorders or hides is shown as it is.
    prints("(= \"\\u{202e}\\u{200b}\\u{85}\" \"\")", "(= \"\\u{202e}\\u{200b}\\u{85}\" \"\")");
}

#[test]
fn what_is_refused() {
    use Problem::*;
    let operand = Expected("a name, `not` or `(`");
    refused("", 0, operand);
    refused("   ", 3, operand);
    refused("a and", 5, operand);
    refused("and", 0, NotAnApplication);
    refused("=", 0, NotAnApplication);
    refused("()", 1, operand);
    refused("not (", 5, operand);
    refused("(foo subject.a)", 5, Expected("`and`, `or` or `)`"));
    refused("(= subject.a \"x\"", 16, Expected("`)`"));
    refused("(= 1 1) (= 1 1)", 8, Expected("nothing after the last `)`"));
    refused("(= 1 1))", 7, Expected("nothing after the last `)`"));
    refused("(= [1 1)", 7, Expected("a string, a number, true, false, a name, `(` or `[`"));
    refused("(= [1 1", 7, Expected("`]`"));
    refused("a = b", 2, Expected("`and` or `or`"));
    refused("a b", 2, Expected("`and` or `or`"));
    refused("na*me", 2, Expected("`and` or `or`"));
    refused("1a", 0, Name);
    refused(".a", 0, Name);
    refused("(== 1 1)", 1, NotAnOperator);
    refused("a=", 1, BooleanValue);
    refused("a=\"\"", 1, BooleanValue);
    refused("a=\"b", 1, Expected("`\"` at the end of the value"));
    refused("a=b=c", 3, Expected("a space after a value"));
    refused("a=\"\u{202e}\"", 1, Invisible);
    refused(&("I".to_string() + &"0".repeat(64) + "=a"), 65, Name);
    // Numbers of arguments and their kinds.
    refused("(not (= 1 1) 2)", 0, Arguments(Operator::Not));
    refused("(if 1 2)", 0, Arguments(Operator::If));
    refused("(or (member? 1))", 4, Arguments(Operator::Member));
    refused("(= 1)", 0, Arguments(Operator::Compare(ockam_policy::Relation::Equal)));
    refused("(exists?)", 0, Arguments(Operator::Exists));
    refused("(exists? \"a\")", 0, Arguments(Operator::Exists));
    refused("(= [1 \"a\"] [])", 3, MixedSequence);
    refused("(= [1 1.0] [])", 3, MixedSequence);
    for item in ["\"a\"", "1", "1.0", "true", "subject.a", "[]"] {
        refused(&format!("(= [{item} (and)] [])"), 3, MixedSequence);
    }
    refused("(= subject.a = 1)", 13, OperatorAsValue);
    // Words.
    refused("(= 9223372036854775808 1)", 3, Number);
    refused("(= -9223372036854775809 1)", 3, Number);
    refused("(= 1__0 1)", 3, Number);
    refused("(= 1_ 1)", 3, Number);
    refused("(= 0x 1)", 3, Number);
    refused("(= 0x1.8p1 1)", 3, Number);
    refused("(= 1e999 1)", 3, Number);
    refused("(= 12ab 1)", 3, Number);
    refused("(= nan 1.0)", 3, NotANumber);
    refused("(= -nan:0x1 1.0)", 3, NotANumber);
    refused("(= $a 1)", 3, Name);
    refused("(= é 1)", 3, Name);
    refused("(= subject.a,subject.b 1)", 12, Expected("a string, a number, true, false, a name, `(` or `[`"));
    // Strings.
    refused("(= \"a", 5, Expected("`\"` at the end of the string"));
    refused("(= a\"b\" 1)", 4, Expected("a space before a string"));
    refused("(= \"a\"\"b\")", 6, Expected("a space after a string"));
    refused("(= \"a\"b)", 6, Expected("a space after a string"));
    refused("(= \"a\nb\" 1)", 5, Invisible);
    refused("(= \"\u{202e}\" 1)", 4, Invisible);
    for escape in [
        "\\x",
        "\\",
        "\\u{}",
        "\\u{d800}",
        "\\u{110000}",
        "\\u{000000041}",
        "\\u41",
        "\\+4",
        "\\4é",
        "\\u{+41}",
        "\\4",
        "\\4g",
    ] {
        let text = format!("(= \"{escape}\" 1)");
        let error = Policy::parse(&text).unwrap_err();
        assert!(error.problem == Escape && error.at == 4 || escape == "\\", "{text}: {error}");
    }
    refused("(= \"\\ff\" 1)", 3, NotUtf8);
    refused("(or (; (; ;) )", 4, Expected("`;)` at the end of this comment"));
    refused("(or ; )", 4, Expected("a string, a number, true, false, a name, `(` or `[`"));
    // What is of neither form as it is printed, or of another one for real nodes.
    refused("(not (;;) subject.a)", 0, ReadsAsBoolean);
    for text in
        ["(and)", "(or)", "(not (or))", "not (and)", "(not (not (and)))", "(; ;) (and (;;) )", "(not (;;) -1.5)"]
    {
        refused(text, 0, ReadsAsBoolean);
    }
}

#[test]
fn what_people_read() {
    let error = |text: &str| Policy::parse(text).unwrap_err().to_string();
    assert_eq!(
        error("(or (== 1 1))"),
        "expected an operator: and, or, not, if, <, >, =, !=, member? or exists? (at byte 5)"
    );
    assert_eq!(error("(not (= 1))"), "`=` takes two arguments or more (at byte 5)");
    assert_eq!(error("admin and"), "expected a name, `not` or `(` (at byte 9)");
    assert_eq!(
        evaluate("(= 1 1.5)").unwrap_err().to_string(),
        "an integer cannot be compared with a floating-point number"
    );
    assert_eq!(evaluate("admin").unwrap_err().to_string(), "subject.admin is not known");
    assert_eq!(evaluate("(and 1)").unwrap_err().to_string(), "`and` needs true or false, not an integer");
}

// ---- limits

#[test]
fn deep_policies_are_refused_and_deepest_are_not() {
    let lists = |depth: usize| "(or ".repeat(depth - 1) + "(or true)" + &")".repeat(depth - 1);
    let sequences = |depth: usize| format!("(= [] {}{})", "[".repeat(depth - 1), "]".repeat(depth - 1));
    let nots = |depth: usize| "not ".repeat(depth) + "a";
    let parentheses = |depth: usize| "(".repeat(depth) + "a" + &")".repeat(depth);
    for text in [lists(DEPTH_MAX), sequences(DEPTH_MAX), nots(DEPTH_MAX), parentheses(DEPTH_MAX)] {
        accepted(&Policy::parse(&text).unwrap(), &known());
    }
    let full = [lists(DEPTH_MAX + 1), sequences(DEPTH_MAX + 1), lists(1600), "(or ".repeat(4000), "[".repeat(TEXT_MAX)];
    for text in full {
        let error = Policy::parse(&text).unwrap_err();
        assert!(matches!(error.problem, Problem::TooDeep | Problem::NotAnOperator), "{error}");
    }
    for text in [nots(DEPTH_MAX + 1), parentheses(DEPTH_MAX + 1), nots(4000), "(".repeat(TEXT_MAX)] {
        let error = Policy::parse(&text).unwrap_err();
        assert_eq!(error.problem, Problem::TooDeep);
    }
}

#[test]
fn deep_encodings_are_refused_and_deepest_are_not() {
    // [6, [[ … ]]] and [7, [["or", … ]]]
    let sequence = |depth: usize| [&[0x82, 6, 0x81, 0x81].repeat(depth - 1)[..], &[0x82, 6, 0x81, 0x80]].concat();
    let or = [0x82, 5, 0x81, 0x62, b'o', b'r'];
    let one = [&[0x82, 7, 0x81, 0x82][..], &or].concat();
    let list = |depth: usize| [&one.repeat(depth - 1)[..], &[0x82, 7, 0x81, 0x81], &or].concat();
    let policy = |expr: Vec<u8>| Policy::decode(&[&[0x82, 0, 0x81][..], &expr].concat());
    for depth in [2, 3, DEPTH_MAX] {
        assert_eq!(Expr::decode(&sequence(depth)).unwrap().encode(), sequence(depth));
        accepted(&policy(list(depth)).unwrap(), &known());
    }
    for depth in [DEPTH_MAX + 1, 1000, 6000] {
        assert_eq!(Expr::decode(&sequence(depth)), Err(Problem::TooDeep));
        assert_eq!(policy(list(depth)), Err(Problem::TooDeep));
    }
    // [5, [ … ]], and [3, [a, … ]], whose right side is what nests.
    let not =
        |depth: usize| [&[0x82, 1, 0x81][..], &[0x82, 5, 0x81].repeat(depth), &[0x82, 0, 0x81, 0x61, b'a']].concat();
    let right = |depth: usize| {
        let a = [0x82, 0, 0x81, 0x61, b'a'];
        [&[0x82, 1, 0x81][..], &[&[0x82, 3, 0x82][..], &a].concat().repeat(depth), &a].concat()
    };
    for make in [&not as &dyn Fn(usize) -> Vec<u8>, &right] {
        accepted(&Policy::decode(&make(DEPTH_MAX)).unwrap(), &known());
        assert_eq!(Policy::decode(&make(DEPTH_MAX + 1)), Err(Problem::TooDeep));
        assert_eq!(Policy::decode(&make(5000)), Err(Problem::TooDeep));
    }
}

/// Many alternatives are no depth: `a or b or …` is as deep in CBOR as it is long.
#[test]
fn long_chains_are_not_deep() {
    let identifiers: Vec<String> = (0..230).map(|number| format!("I{number:064x}")).collect();
    let policy = Policy::parse(&identifiers.join(" or ")).unwrap();
    accepted(&policy, &known());
    assert!(policy.permits(&known()), "the second one");
    let policy = Policy::parse(&["a"; 3000].join(" or ")).unwrap();
    assert_eq!(policy.evaluate(&Known([("subject.a".to_string(), Tree::Str("false".into()))].into())), Ok(false));
    assert_eq!(Policy::decode(&policy.encode()), Ok(policy));
    // Left sides of the one in the other are deep.
    let left = |depth: usize| {
        let kinds = [3, 4].into_iter().cycle().take(depth);
        let heads: Vec<u8> = kinds.flat_map(|kind| [0x82, kind, 0x82]).collect();
        [&[0x82, 1, 0x81][..], &heads, &[0x82, 0, 0x81, 0x61, b'a'].repeat(depth + 1)].concat()
    };
    accepted(&Policy::decode(&left(DEPTH_MAX)).unwrap(), &known());
    assert_eq!(Policy::decode(&left(DEPTH_MAX + 1)), Err(Problem::TooDeep));
    assert_eq!(Policy::decode(&left(8000)), Err(Problem::TooDeep));
    // Left sides without an end, and without their right ones.
    let heads = |count: usize| [&[0x82, 1, 0x81][..], &[0x82, 3, 0x82].repeat(count)].concat();
    assert_eq!(Policy::decode(&heads(20_000)), Err(Problem::Malformed));
}

#[test]
fn large_policies_are_refused_and_largest_are_not() {
    // As many parts as there may be, the application included.
    let ones = |count: usize| format!("(= {})", vec!["1"; count].join(" "));
    accepted(&Policy::parse(&ones(NODES_MAX - 1)).unwrap(), &known());
    let error = Policy::parse(&ones(NODES_MAX)).unwrap_err();
    assert_eq!((error.problem, error.at), (Problem::TooManyParts, 3 + 2 * (NODES_MAX - 1)));
    // The same without parentheses.
    assert!(Policy::parse(&format!("= {}", vec!["1"; NODES_MAX - 1].join(" "))).is_ok());
    assert!(Policy::parse(&format!("= {}", vec!["1"; NODES_MAX].join(" "))).is_err());
    // As many bytes of text.
    let string = |bytes: usize| format!("(= \"{}\" \"\")", "x".repeat(bytes - 9));
    accepted(&Policy::parse(&string(TEXT_MAX)).unwrap(), &known());
    let error = Policy::parse(&string(TEXT_MAX + 1)).unwrap_err();
    assert_eq!((error.problem, error.at), (Problem::TooLong, TEXT_MAX));
    let name = format!("a{}", "a".repeat(TEXT_MAX));
    assert_eq!(Policy::parse(&name).unwrap_err().problem, Problem::TooLong);
    // What is longer as it is printed.
    let controls = format!("(= \"{}\" \"\")", "\\01".repeat(4000));
    assert_eq!(Policy::parse(&controls).unwrap_err().problem, Problem::TooLong);
}

#[test]
fn large_encodings_are_refused_and_largest_are_not() {
    let equal = [0x82, 5, 0x81, 0x61, b'='];
    let list = |count: usize, item: &[u8]| {
        let head = [&[0x82, 0, 0x81, 0x82, 7, 0x81, 0x99][..], &(count as u16 + 1).to_be_bytes(), &equal].concat();
        [head, item.repeat(count)].concat()
    };
    let float = [&[0x82, 3, 0x81, 0xfb][..], &1.0f64.to_be_bytes()].concat();
    let largest = Policy::decode(&list(NODES_MAX - 1, &float)).unwrap();
    accepted(&largest, &known());
    assert_eq!(Policy::decode(&list(NODES_MAX, &float)), Err(Problem::TooManyParts));
    // `1.0` and a space are four bytes each; the longest numbers do not fit.
    let long = [&[0x82, 3, 0x81, 0xfb][..], &(-1.234_567_890_123_456_7e-300f64).to_be_bytes()].concat();
    assert_eq!(Policy::decode(&list(NODES_MAX - 1, &long)), Err(Problem::TooLong));
    assert_eq!(Policy::decode(&vec![0; ENCODED_MAX + 1]), Err(Problem::Malformed));
    // Lengths that are claimed and not there.
    for claim in ["9bffffffffffffffff", "9affffffff", "9f"] {
        let claim: Vec<u8> =
            (0..claim.len()).step_by(2).map(|at| u8::from_str_radix(&claim[at..at + 2], 16).unwrap()).collect();
        assert_eq!(Expr::decode(&[&[0x82, 6, 0x81][..], &claim].concat()), Err(Problem::Malformed));
        assert!(Expr::decode(&[&[0x82, 7, 0x81][..], &claim].concat()).is_err());
        assert!(Policy::decode(&[&[0x82][..], &claim].concat()).is_err());
    }
}

/// What no text could say is no policy.
#[test]
fn encodings_that_no_text_could_say_are_refused() {
    let text = |text: &str| [&[0x78, text.len() as u8][..], text.as_bytes()].concat();
    let ident = |name: &str| [&[0x82, 5, 0x81][..], &text(name)].concat();
    for (name, problem) in [
        ("", Problem::Name),
        ("a b", Problem::Name),
        ("true", Problem::Name),
        ("inf", Problem::Name),
        ("nan", Problem::NotANumber),
        ("nan:0x1", Problem::NotANumber),
        ("1", Problem::Name),
        ("-a", Problem::Name),
        ("a\"", Problem::Name),
        ("é", Problem::Name),
        ("and", Problem::OperatorAsValue),
    ] {
        assert_eq!(Expr::decode(&ident(name)), Err(problem), "{name}");
    }
    for name in ["a", "subject.a-b_c@d:e$f", "member", "nano", "!%&*/<=>?~_^"] {
        assert_eq!(Expr::decode(&ident(name)), Ok(Expr::Name(name.into())));
    }
    let nan = [&[0x82, 3, 0x81, 0xfb][..], &f64::NAN.to_be_bytes()].concat();
    assert_eq!(Expr::decode(&nan), Err(Problem::NotANumber));
    let list = |items: &[Vec<u8>]| [&[0x82, 7, 0x81, 0x80 + items.len() as u8][..], &items.concat()].concat();
    assert_eq!(Expr::decode(&list(&[])), Err(Problem::NotAnOperator));
    assert_eq!(Expr::decode(&list(&[ident("foo")])), Err(Problem::NotAnOperator));
    assert_eq!(Expr::decode(&list(&[list(&[ident("and")])])), Err(Problem::NotAnOperator));
    assert_eq!(Expr::decode(&list(&[ident("not")])), Err(Problem::Arguments(Operator::Not)));
    // Behind it, before its end, and with a field too many.
    let fine = list(&[ident("and")]);
    assert!(Expr::decode(&fine).is_ok());
    assert_eq!(Expr::decode(&[&fine[..], &[0]].concat()), Err(Problem::Malformed));
    for end in 0..fine.len() {
        assert!(Expr::decode(&fine[..end]).is_err());
    }
    assert_eq!(Expr::decode(&[0x82, 4, 0x82, 0xf5, 0xf5]), Err(Problem::Malformed));
    assert_eq!(Expr::decode(&[0x83, 4, 0x81, 0xf5, 0xf5]), Err(Problem::Malformed));
    // A negation of a name would be read as the boolean form.
    let policy = |form: u8, inner: Vec<u8>| Policy::decode(&[&[0x82, form, 0x81][..], &inner].concat());
    assert_eq!(policy(0, list(&[ident("not"), ident("subject.a")])), Err(Problem::ReadsAsBoolean));
    assert_eq!(policy(0, list(&[ident("not"), fine.clone()])), Err(Problem::ReadsAsBoolean));
    assert_eq!(policy(0, fine.clone()), Err(Problem::ReadsAsBoolean));
    assert!(policy(0, list(&[ident("not"), list(&[ident("and"), fine.clone()])])).is_ok());
    assert_eq!(policy(2, fine.clone()), Err(Problem::Malformed));
    // The boolean form.
    let identifier = "I".to_string() + &"0".repeat(64);
    let name = |variant: u8, name: &str| [&[0x82, variant, 0x81][..], &text(name)].concat();
    let pair = |name: &str, value: &str| [&[0x82, 1, 0x82][..], &text(name), &text(value)].concat();
    for refused in ["", "and", "or", "not", "1a", ".a", "a b", "a=b", &identifier] {
        assert_eq!(policy(1, name(0, refused)), Err(Problem::Name), "{refused}");
        assert_eq!(policy(1, pair(refused, "x")), Err(Problem::Name), "{refused}");
    }
    assert!(policy(1, name(2, &identifier)).is_ok());
    for refused in ["I00", "a", &identifier[1..], &identifier.replace('0', "g")] {
        assert!(policy(1, name(2, refused)).is_err(), "{refused}");
    }
    assert!(policy(1, pair("a", "b c")).is_ok());
    assert_eq!(policy(1, pair("a", "")), Err(Problem::BooleanValue));
    assert_eq!(policy(1, pair("a", "b\"c")), Err(Problem::BooleanValue));
    assert_eq!(policy(1, pair("a", "b\nc")), Err(Problem::Invisible));
    assert_eq!(policy(1, vec![0x82, 6, 0x80]), Err(Problem::Malformed), "Empty");
}

// ---- explanations

#[track_caller]
fn explains(text: &str, lines: &[&str]) {
    let policy = Policy::parse(text).unwrap();
    let known = known();
    let explanation = policy.explain(&known);
    assert_eq!(explanation.to_string().lines().collect::<Vec<_>>(), lines);
}

#[test]
fn explanations() {
    explains(
        "(or (and (= subject.role \"dba\") (> subject.level 5)) (member? resource.id [\"db-1\"]) subject.admin)",
        &[
            "permitted: the policy is true",
            "  (or (and (= subject.role \"dba\") (> subject.level 5)) (member? resource.id [\"db-1\"]) subject.admin) is true",
            "    (and (= subject.role \"dba\") (> subject.level 5)) is false",
            "      (= subject.role \"dba\") is true",
            "        subject.role is \"dba\"",
            "      (> subject.level 5) is false",
            "        subject.level is 3",
            "    (member? resource.id [\"db-1\"]) is true",
            "      resource.id is \"db-1\"",
            "    subject.admin was not needed",
        ],
    );
    explains(
        "admin or orb",
        &[
            "denied: subject.admin is not known",
            "  (or (= subject.admin \"true\") (= subject.orb \"true\")) has no value",
            "    (= subject.admin \"true\") has no value",
            "      subject.admin is not known",
            "    (= subject.orb \"true\") was not needed",
        ],
    );
    explains(
        "(if (exists? subject.a subject.b) (= 1 1) (= subject.teams [subject.role subject.level]))",
        &[
            "denied: a sequence has a string and an integer in it",
            "  (if (exists? subject.a subject.b) (= 1 1) (= subject.teams [subject.role subject.level])) has no value",
            "    (exists? subject.a subject.b) is false",
            "      subject.a is not known",
            "      subject.b was not needed",
            "    (= 1 1) was not needed",
            "    (= subject.teams [subject.role subject.level]) has no value: a sequence has a string and an integer in it",
            "      subject.teams is [\"db\" \"web\"]",
            "        subject.role is \"dba\"",
            "        subject.level is 3",
        ],
    );
    explains("(and (= 1 2))", &["denied: the policy is false", "  (and (= 1 2)) is false", "    (= 1 2) is false"]);
    explains("(if true 1 1)", &["denied: the answer is an integer, neither true nor false", "  (if true 1 1) is 1"]);
}

/// What others wrote cannot end a line, reach a terminal or fill it.
#[test]
fn explanations_show_values_safely() {
    let known = Known([("subject.a".to_string(), Tree::Str("\u{1b}[2J\n".to_string() + &"x".repeat(1000)))].into());
    let policy = Policy::parse(&format!("(= subject.a \"{}\")", "é".repeat(1000))).unwrap();
    let explanation = policy.explain(&known);
    let text = explanation.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[1], format!("  (= subject.a \"{}… is false", "é".repeat(100 - 14)));
    assert_eq!(lines[2], format!("    subject.a is \"\\u{{1b}}[2J\\n{}…", "x".repeat(100 - 12)));
    let long = Policy::parse(&"y".repeat(1000)).unwrap();
    let denied = format!("denied: subject.{}… is not known", "y".repeat(100 - 8));
    assert_eq!(long.explain(&known).to_string().lines().next(), Some(denied.as_str()));
    // A program gets all of it.
    let Outcome::Value(value) = &explanation.steps()[1].outcome else { panic!() };
    assert!(value.to_string().len() > 1000);
}

#[test]
fn names_are_those_that_are_used() {
    let names = |text: &str| Policy::parse(text).unwrap().names().collect::<Vec<_>>().join(" ");
    assert_eq!(
        names("(or (= resource.id subject.a) (exists? subject.b) (member? subject.a [action.id]))"),
        "action.id resource.id subject.a subject.b"
    );
    assert_eq!(names("a and not b=c"), "subject.a subject.b");
    assert_eq!(names(&("I".to_string() + &"0".repeat(64))), "subject.identifier");
    assert_eq!(names("(= 1 1)"), "");
}

#[test]
fn the_meaning_is_in_full_form() {
    let policy =
        Policy::parse("a and b=\"c d\" or not I0000000000000000000000000000000000000000000000000000000000000001")
            .unwrap();
    assert_eq!(
        policy.expr().to_string(),
        "(or (and (= subject.a \"true\") (= subject.b \"c d\")) (not (= subject.identifier \"I0000000000000000000000000000000000000000000000000000000000000001\")))"
    );
}
