use super::super::settings::{ENROLLER, ROLE};
use super::*;
use std::sync::Barrier;

const NOW: u64 = 1_750_000_000;
const TTL: u64 = 30 * 86_400;
const ADMIN: Identifier = Identifier([1; 32]);

fn of(pairs: &[(&str, &str)]) -> Texts {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// One trusted enroller.
fn trusted() -> BTreeMap<Identifier, Texts> {
    BTreeMap::from([(ADMIN, of(&[(ROLE, ENROLLER)]))])
}

struct File {
    _temporary: tempfile::TempDir,
    path: PathBuf,
}

impl File {
    fn new() -> File {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("authority.db");
        File { _temporary: temporary, path }
    }

    fn open(&self, now: u64) -> Store {
        Store::open(&self.path, &trusted(), TTL, now).unwrap()
    }
}

fn new_member(number: u8, pairs: &[(&str, &str)]) -> Member {
    let identifier = Identifier([number; 32]);
    Member { identifier, attributes: of(pairs), added_at: NOW, added_by: Some(ADMIN), is_trusted: false }
}

fn new_token(number: u8, uses: u64) -> Token {
    Token {
        hash: [number; 32],
        reference: "r".into(),
        attributes: of(&[("a", "b")]),
        created_by: ADMIN,
        created_at: NOW,
        expires_at: NOW + 600,
        uses,
    }
}

fn all(store: &Store) -> Vec<u8> {
    store.identifiers(None, 100).unwrap().iter().map(|it| it.0[0]).collect()
}

/// A start reads neither all members nor their number out of them, however many there are.
#[test]
fn an_authority_with_many_members_starts_without_reading_them() {
    let file = File::new();
    let mut store = file.open(NOW);
    store.fill((2..=200).map(|number| new_member(number, &[])));
    let plan = |sql: &str| {
        let mut statement = store.connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        statement.query_map([], |row| row.get::<_, String>(3)).unwrap().map(Result::unwrap).collect::<Vec<_>>()
    };
    assert!(plan(TRUSTED_MEMBERS)[0].contains("trusted_member"), "{:?}", plan(TRUSTED_MEMBERS));
    // What is kept is believed: to count them would find another number.
    store.connection.execute("UPDATE state SET members = members + 1000", []).unwrap();
    drop(store);
    assert_eq!(file.open(NOW + 1).members().unwrap(), 1200);
}

/// Whatever becomes of members, of those who are trusted from the start, too, their number is right; and a file of the
/// version before gets it.
#[test]
fn the_number_of_members_is_kept_with_them() {
    let file = File::new();
    let counted = |store: &Store| {
        let count = store.query("SELECT count(*) FROM member", [], |row| unsigned(row, 0)).unwrap();
        assert_eq!(Some(store.members().unwrap()), count);
        count
    };
    let mut store = file.open(NOW);
    store.fill((2..=9).map(|number| new_member(number, &[])));
    assert_eq!(counted(&store), Some(9));
    drop(store);
    // One who was a member is trusted now, and who was trusted is nobody.
    let other = BTreeMap::from([(Identifier([2; 32]), of(&[(ROLE, ENROLLER)]))]);
    let store = Store::open(&file.path, &other, TTL, NOW).unwrap();
    assert_eq!((counted(&store), all(&store)), (Some(8), (2..=9).collect()));
    let before = "DROP TRIGGER member_added; DROP TRIGGER member_removed; DROP INDEX trusted_member;
                  ALTER TABLE state DROP COLUMN members; PRAGMA user_version = 1;";
    store.connection.execute_batch(before).unwrap();
    drop(store);
    let mut store = Store::open(&file.path, &other, TTL, NOW).unwrap();
    assert_eq!(counted(&store), Some(8));
    store.remove(&Which::AllBut { caller: &ADMIN, enrollers_too: true }, NOW).unwrap();
    assert_eq!((counted(&store), all(&store)), (Some(1), vec![2]));
}

#[test]
fn members_come_go_and_are_listed_in_their_order() {
    let file = File::new();
    let mut store = file.open(NOW);
    for number in [9, 3, 7] {
        assert!(store.add(&new_member(number, &[("n", &number.to_string())])).unwrap());
    }
    assert_eq!((all(&store), store.members().unwrap()), (vec![1, 3, 7, 9], 4));
    let behind = store.page(Some(Identifier([3; 32])), 1).unwrap();
    assert_eq!(behind, [new_member(7, &[("n", "7")])]);
    assert!(store.page(Some(Identifier([9; 32])), 5).unwrap().is_empty());

    // Replaced, not added.
    assert!(store.add(&new_member(3, &[("n", "x")])).unwrap());
    assert_eq!(store.members().unwrap(), 4);
    assert_eq!(store.member(&Identifier([3; 32])).unwrap().unwrap().attributes, of(&[("n", "x")]));

    assert_eq!(store.remove(&Which::One(&Identifier([3; 32])), NOW).unwrap(), Some(1));
    assert_eq!(store.remove(&Which::One(&Identifier([3; 32])), NOW).unwrap(), Some(0));
    drop(store);
    let store = file.open(NOW + 1);
    assert_eq!((all(&store), store.members().unwrap()), (vec![1, 7, 9], 3));
    assert_eq!(store.revocations().unwrap(), [(Identifier([3; 32]), NOW)]);
}

#[test]
fn all_are_removed_but_the_caller_the_trusted_and_enrollers_unless_asked_for() {
    for (enrollers_too, left) in [(false, vec![1, 4, 5]), (true, vec![1, 4])] {
        let mut store = File::new().open(NOW);
        for member in [new_member(3, &[]), new_member(4, &[]), new_member(5, &[(ROLE, ENROLLER)])] {
            store.add(&member).unwrap();
        }
        let caller = &Identifier([4; 32]);
        let removed = store.remove(&Which::AllBut { caller, enrollers_too }, NOW).unwrap();
        assert_eq!(
            (all(&store), removed, store.members().unwrap()),
            (left.clone(), Some(4 - left.len() as u64), left.len() as u64)
        );
        assert_eq!(store.revocations().unwrap().len(), 4 - left.len());
    }
}

#[test]
fn the_trusted_are_as_they_were_said_to_be_at_the_last_start() {
    let file = File::new();
    let mut store = file.open(NOW);
    let admin = store.member(&ADMIN).unwrap().unwrap();
    assert_eq!((admin.is_trusted, admin.added_by), (true, None));
    // Nobody changes or removes them in between.
    store.add(&Member { identifier: ADMIN, ..new_member(1, &[("x", "y")]) }).unwrap();
    assert_eq!(store.remove(&Which::One(&ADMIN), NOW).unwrap(), Some(0));
    assert_eq!(store.member(&ADMIN).unwrap().unwrap(), admin);
    store.add(&new_member(2, &[("x", "y")])).unwrap();
    let number = store.list_number();
    drop(store);

    // The same again: nothing to say.
    assert_eq!(file.open(NOW + 5).list_number(), number);
    // A member becomes trusted, and who was is no member any more.
    let now = BTreeMap::from([(Identifier([2; 32]), of(&[("z", "1")]))]);
    let store = Store::open(&file.path, &now, TTL, NOW + 9).unwrap();
    let second = store.member(&Identifier([2; 32])).unwrap().unwrap();
    assert_eq!((second.is_trusted, second.attributes), (true, of(&[("z", "1")])));
    assert_eq!((all(&store), store.members().unwrap()), (vec![2], 1));
    assert_eq!(store.revocations().unwrap(), [(ADMIN, NOW + 9)]);
    assert!(store.list_number() > number);
}

#[test]
fn of_a_hundred_at_once_as_many_redeem_a_code_as_it_has_uses() {
    for uses in [1_usize, 10] {
        let file = File::new();
        let mut first = file.open(NOW);
        first.add_token(&new_token(7, uses as u64)).unwrap();
        let barrier = Barrier::new(100);
        let outcomes: Vec<Redeemed> = std::thread::scope(|scope| {
            let redeem = |number: u8| {
                let (file, barrier) = (&file, &barrier);
                scope.spawn(move || {
                    let mut store = file.open(NOW);
                    barrier.wait();
                    store.redeem(&[7; 32], &Identifier([number; 32]), NOW + 1).unwrap()
                })
            };
            let all: Vec<_> = (100..200).map(redeem).collect();
            all.into_iter().map(|it| it.join().unwrap()).collect()
        });
        let won = outcomes.iter().filter(|it| matches!(it, Redeemed::Now(_))).count();
        let lost = outcomes.iter().filter(|it| matches!(it, Redeemed::UsedUp)).count();
        assert_eq!((won, lost), (uses, 100 - uses));
        assert_eq!(all(&first).len(), 1 + uses);
    }
}

#[test]
fn who_did_not_hear_the_answer_asks_again_and_nobody_else_does() {
    let file = File::new();
    let mut store = file.open(NOW);
    store.add_token(&new_token(7, 1)).unwrap();
    let (one, other) = (Identifier([50; 32]), Identifier([51; 32]));
    assert_eq!(store.redeem(&[7; 32], &one, NOW).unwrap(), Redeemed::Now("r".into()));
    // The authority ends before it has answered.
    drop(store);
    let mut store = file.open(NOW + 1);
    assert_eq!(store.redeem(&[7; 32], &one, NOW + 1).unwrap(), Redeemed::Before);
    assert_eq!(store.redeem(&[7; 32], &other, NOW + 1).unwrap(), Redeemed::UsedUp);
    assert_eq!(store.redeem(&[8; 32], &other, NOW + 1).unwrap(), Redeemed::Unknown);
    assert_eq!(store.member(&one).unwrap().unwrap().attributes, of(&[("a", "b")]));
    // Also when its time is over.
    assert_eq!(store.redeem(&[7; 32], &one, NOW + 601).unwrap(), Redeemed::Before);
    // Who was removed does not come back with it, whatever it has left.
    store.add_token(&Token { created_at: NOW + 700, expires_at: NOW + 900, ..new_token(9, 5) }).unwrap();
    assert!(matches!(store.redeem(&[9; 32], &other, NOW + 700).unwrap(), Redeemed::Now(_)));
    store.remove(&Which::One(&other), NOW + 701).unwrap();
    assert_eq!(store.redeem(&[9; 32], &other, NOW + 702).unwrap(), Redeemed::Removed);
    // A member has no use for one.
    assert_eq!(store.redeem(&[9; 32], &one, NOW + 702).unwrap(), Redeemed::Member);
    assert!(matches!(store.redeem(&[9; 32], &Identifier([52; 32]), NOW + 702).unwrap(), Redeemed::Now(_)));
}

#[test]
fn a_code_ends_with_the_rights_of_who_made_it() {
    let mut store = File::new().open(NOW);
    let enroller = new_member(3, &[(ROLE, ENROLLER)]);
    let made = |number: u8| Token { created_by: enroller.identifier, ..new_token(number, 5) };
    for change in [0_u8, 1] {
        store.add(&enroller).unwrap();
        store.add_token(&made(20 + change)).unwrap();
        let mut come = |number: u8| store.redeem(&[20 + change; 32], &Identifier([number; 32]), NOW).unwrap();
        assert!(matches!(come(100 + 2 * change), Redeemed::Now(_)));
        match change {
            0 => drop(store.remove(&Which::One(&enroller.identifier), NOW).unwrap()),
            _ => drop(store.add(&new_member(3, &[(ROLE, "web")])).unwrap()),
        }
        let came = store.redeem(&[20 + change; 32], &Identifier([101 + 2 * change; 32]), NOW).unwrap();
        assert_eq!(came, Redeemed::Withdrawn);
    }
}

/// T8: the end of a code, on both sides of each boundary, whatever the clock does then.
#[test]
fn a_code_that_was_over_once_is_over() {
    let who = |number: u8| Identifier([number; 32]);
    let mut store = File::new().open(NOW);
    store.add_token(&new_token(7, 99)).unwrap();
    // Its first second, and how much earlier another clock may be.
    assert!(matches!(store.redeem(&[7; 32], &who(10), NOW - 60).unwrap(), Redeemed::Now(_)));
    assert_eq!(store.redeem(&[7; 32], &who(11), NOW - 61).unwrap(), Redeemed::NotYet);
    assert_eq!(store.redeem(&[7; 32], &who(11), 0).unwrap(), Redeemed::NotYet);
    // Its last second, and the one behind it.
    assert!(matches!(store.redeem(&[7; 32], &who(12), NOW + 599).unwrap(), Redeemed::Now(_)));
    assert_eq!(store.expire(NOW + 599).unwrap(), Some(NOW + 600));
    assert_eq!(store.redeem(&[7; 32], &who(13), NOW + 600).unwrap(), Redeemed::Expired);
    // The clock goes back.
    for now in [NOW + 599, NOW, NOW - 1, 0] {
        assert_eq!(store.redeem(&[7; 32], &who(13), now).unwrap(), Redeemed::Expired);
    }
    // Nobody came with this one before the clock went back, but somebody looked at the clock.
    store.add_token(&Token { created_at: NOW + 1000, expires_at: NOW + 1100, ..new_token(8, 99) }).unwrap();
    assert_eq!(store.expire(NOW + 1100).unwrap(), None);
    assert_eq!(store.redeem(&[8; 32], &who(13), NOW + 1001).unwrap(), Redeemed::Expired);
    // The clock is ten years ahead, and right again: what is made then is as good as ever.
    store.expire(NOW + 315_360_000).unwrap();
    assert_eq!(store.redeem(&[7; 32], &who(13), NOW).unwrap(), Redeemed::Unknown);
    store.add_token(&new_token(9, 1)).unwrap();
    assert!(matches!(store.redeem(&[9; 32], &who(13), NOW).unwrap(), Redeemed::Now(_)));
    assert_eq!(store.expire(u64::MAX).unwrap(), None);
}

#[test]
fn the_number_of_the_list_grows_with_each_change_and_over_starts() {
    let file = File::new();
    let mut store = file.open(NOW);
    assert_eq!((store.list_number(), store.revocations().unwrap()), (NOW, Vec::new()));
    let mut numbers = vec![store.list_number()];
    for now in [NOW, NOW, NOW + 10, NOW - 1000] {
        assert!(store.revoke(&Identifier([3; 32]), now).unwrap());
        numbers.push(store.list_number());
    }
    store.add(&new_member(3, &[])).unwrap();
    assert_eq!(store.list_number(), *numbers.last().unwrap());
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    assert_eq!(store.revocations().unwrap(), [(Identifier([3; 32]), NOW + 10)]);
    drop(store);
    let mut store = file.open(NOW - 5000);
    assert_eq!(store.list_number(), *numbers.last().unwrap());
    store.revoke(&Identifier([4; 32]), NOW + 100).unwrap();
    assert_eq!(store.list_number(), NOW + 100);
}

#[test]
fn what_was_issued_before_the_clock_was_set_back_is_revoked_all_the_same() {
    let file = File::new();
    let mut store = file.open(NOW);
    store.issued(NOW + 100).unwrap();
    store.issued(NOW + 90).unwrap();
    store.revoke(&Identifier([3; 32]), NOW - 3600).unwrap();
    assert_eq!(store.revoked_at(&Identifier([3; 32])).unwrap(), Some(NOW + 100));
    // These are not noted yet.
    store.issued(NOW + 159).unwrap();
    drop(store);
    let mut store = file.open(NOW);
    store.revoke(&Identifier([4; 32]), NOW).unwrap();
    assert!(store.revoked_at(&Identifier([4; 32])).unwrap().unwrap() >= NOW + 159);
}

#[test]
fn revocations_are_forgotten_when_there_are_many_and_both_clocks_agree() {
    let mut store = File::new().open(NOW);
    let subject = |number: u64| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        Identifier(bytes)
    };
    let count = REVOCATIONS_KEPT;
    store
        .write(|it| {
            (0..count).try_for_each(|number| revoke(it, &subject(number), NOW + u64::from(number >= 10) * 1000))
        })
        .unwrap();
    // No credential from before can be valid any more, but nothing was issued since.
    let later = NOW + TTL + SKEW_SECS + 500;
    store.revoke(&subject(count), later).unwrap();
    assert_eq!(store.revocations().unwrap().len() as u64, count + 1);
    store.issued(later).unwrap();
    store.revoke(&subject(count + 1), NOW).unwrap();
    assert_eq!(store.revocations().unwrap().len() as u64, count + 2);
    store.revoke(&subject(count + 2), later).unwrap();
    assert_eq!(store.revocations().unwrap().len() as u64, count + 3 - 10);
}
