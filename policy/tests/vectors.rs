//! Published encodings, byte for byte (`wire.md` H.5, K.5).

use ockam_policy::{Expr, Policy, Problem};

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// The text is that policy, in both directions.
#[track_caller]
fn policy(text: &str, hex: &str) {
    let policy = Policy::parse(text).unwrap();
    assert_eq!(policy.encode(), bytes(hex), "{text}");
    assert_eq!(Policy::decode(&bytes(hex)), Ok(policy.clone()), "{text}");
    assert_eq!(policy.to_string(), text);
}

/// The text is that expression, alone and as a policy.
#[track_caller]
fn expr(text: &str, hex: &str) {
    let expr = Expr::decode(&bytes(hex)).unwrap();
    assert_eq!(expr.to_string(), text);
    assert_eq!(expr.encode(), bytes(hex), "{text}");
    policy(text, &format!("820081{hex}"));
}

#[test]
fn h5_has_a_credential() {
    expr(
        "(= subject.has_credential true)",
        "82078183820581613d820581767375626a6563742e6861735f63726564656e7469616c820481f5",
    );
    policy(
        "(= subject.has_credential true)",
        "82008182078183820581613d820581767375626a6563742e6861735f63726564656e7469616c820481f5",
    );
}

#[test]
fn h5_boolean_name() {
    policy("admin", "8201818200816561646d696e");
}

#[test]
fn k5_true() {
    let expr = Expr::decode(&bytes("820481f5")).unwrap();
    assert_eq!(expr, Expr::Bool(true));
    assert_eq!(expr.encode(), bytes("820481f5"));
    // No text can say it: `true` alone is a name of the boolean form.
    assert_eq!(Policy::decode(&bytes("820081820481f5")), Err(Problem::NotAnApplication));
}

#[test]
fn k5_trust_context() {
    expr(
        r#"(= subject.trust_context_id "a994262c-4d59-4756-a158-19db6994feed")"#,
        "82078183820581613d82058178187375626a6563742e74727573745f636f6e746578745f6964820181782461393934323632632d346435392d343735362d613135382d313964623639393466656564",
    );
}

#[test]
fn k5_enroller() {
    expr(
        r#"(and (= resource.trust_context_id subject.trust_context_id) (= subject.ockam-role "enroller"))"#,
        "8207818382058163616e6482078183820581613d82058178197265736f757263652e74727573745f636f6e746578745f696482058178187375626a6563742e74727573745f636f6e746578745f696482078183820581613d820581727375626a6563742e6f636b616d2d726f6c6582018168656e726f6c6c6572",
    );
}

/// What each variant of H.5 is, by hand.
#[test]
fn every_variant() {
    expr(
        r#"(if (exists? subject.a) (member? 1 [1 -1]) (not (< 1.5 2.5)))"#,
        concat!(
            "820781",
            "84",
            "8205816269",
            "66", // (if
            "820781",
            "82",
            "8205816765786973",
            "74733f",
            "820581697375626a6563742e61", // (exists? subject.a)
            "820781",
            "83",
            "820581676d656d6265723f",
            "82028101",
            "82068182",
            "82028101",
            "82028120",
            "820781",
            "82",
            "820581636e6f74", // (not
            "820781",
            "83",
            "820581613c",
            "820381fb3ff8000000000000",
            "820381fb4004000000000000",
        ),
    );
}

#[test]
fn every_boolean_variant() {
    let identifier = "I".to_string() + &"0a".repeat(32);
    policy("a=b", concat!("820181", "820182", "6161", "6162"));
    policy(
        &identifier,
        &format!("820181820281{}{}", "7841", identifier.bytes().map(|it| format!("{it:02x}")).collect::<String>()),
    );
    // Or(Or(a, b), And(c, Not(d)))
    let (a, b, c, d) = ("8200816161", "8200816162", "8200816163", "8200816164");
    policy("a or b or c and not d", &format!("820181{0}{0}{a}{b}820482{c}820581{d}", "820382"));
    policy("a or (b or c)", &format!("820181820382{a}820382{b}{c}"));
    assert_eq!(Policy::decode(&bytes("820181820680")), Err(Problem::Malformed), "Empty");
}
