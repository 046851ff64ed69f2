//! Vectors of `wire.md` E.9, and what an attacker on the path can do with records: replay, reorder, change, cut.

use super::*;
use crate::aead::Nonce;
use proptest::prelude::*;
use std::collections::BTreeSet;

const K1: &str = "4349aa5f460aca550b37ce55d3f7ad8f2d4747084b6c62e15c523568ebafe860";
const K2: &str = "831124fa3e1606b97f5cda4d81c3aa04c7c0151666f05f49a09cd0faf63a05d8";
const HELLO: &str = "82820081838182004975707065726361736581820058203535353535353535353535353535353535353535353535353535353535353535460568656c6c6f40";
const HELLO_REPLY: &str = "82820081838182005820353535353535353535353535353535353535353535353535353535353535353581820049757070657263617365460548454c4c4f40";
const CLOSE: &str = "8282028040";

fn unhex(text: &str) -> Vec<u8> {
    base16ct::lower::decode_vec(text).unwrap()
}

fn secret(text: &str) -> Secret {
    Secret::new(unhex(text).try_into().unwrap())
}

fn pair() -> (Sealer, Opener) {
    (Sealer::new(Secret::new([7; 32])), Opener::new(Secret::new([7; 32])))
}

fn seal(sealer: &mut Sealer, text: &[u8]) -> Vec<u8> {
    let mut record = vec![0; RECORD_OVERHEAD + text.len()];
    record[NONCE_LEN..][..text.len()].copy_from_slice(text);
    sealer.seal_in_place(&mut record).unwrap();
    record
}

fn open(opener: &mut Opener, record: &[u8]) -> Result<Vec<u8>, OpenError> {
    opener.open_in_place(&mut record.to_vec()).map(|opened| opened.text.to_vec())
}

/// Everything of an opener but its keys, which are told apart by what they encrypt zeros to.
fn state(opener: &Opener) -> (u64, Window, [Option<[u8; TAG_LEN]>; 2]) {
    let print = |key: &Key| key.seal(&Nonce::default(), b"fingerprint", &mut []);
    (opener.block, opener.window.clone(), [Some(print(&opener.current)), opener.previous.as_ref().map(print)])
}

/// `wire.md` E.9 (d), both directions, across the first rekey.
#[test]
fn the_published_records() {
    let expected = [
        (
            0,
            HELLO,
            "0000000000000000730a7fb64a78d6704df6f121ce790238bdf3809af2f3e3dc5a840efceba11a60a0d7dd988ddd83a6f48915ef7fca2b870c7487904aeebe1b1b1c7d373f87d10c143235ffd10ab14d05f55f3df396e5",
        ),
        (1, CLOSE, "000000000000000162c77908c4b022eac02358e72ed42e5e115c41fe3a"),
        (
            31,
            HELLO,
            "000000000000001ff2680f5b42f07a3188e17c20980c850842f70649594afc3cdacd6aa448010605ed1b71dedb5239126495694b034a3da192cb6a029cb3dae0d3b918841958d07d51b672913a8dafae16f60bd1fbf07f",
        ),
        (
            32,
            HELLO,
            "00000000000000202dcf72b05ab1a24b4ccaf98f49d70292781b031ab47e02bc0bfe6f4fb81e8dd385da87650d0d6fb905a10ddda066164784717367598101612a391bbc82e67a4eae576534a510f1fde983b804c48b7f",
        ),
    ];
    let (mut sealer, mut opener) = (Sealer::new(secret(K2)), Opener::new(secret(K2)));
    for nonce in 0..=32 {
        let known = expected.iter().find(|known| known.0 == nonce);
        let text = unhex(known.map_or(HELLO, |known| known.1));
        let record = seal(&mut sealer, &text);
        if let Some((_, _, expected)) = known {
            assert_eq!(base16ct::lower::encode_string(&record), *expected);
        }
        assert_eq!(open(&mut opener, &record), Ok(text));
    }
    let reply = "00000000000000005defa50e8bed5dce67ca80cd928d0fd6760e6050153f57f8062eb038a53dec2c3f8fb9c99d0e9a3df84b0f3a8151349b3473e5b76aae6976025bfa6d2b488fa58d789368c04d3b2f514e1fb37dc725";
    assert_eq!(seal(&mut Sealer::new(secret(K1)), &unhex(HELLO_REPLY)), unhex(reply));
    assert_eq!(open(&mut Opener::new(secret(K1)), &unhex(reply)), Ok(unhex(HELLO_REPLY)));
}

/// `wire.md` E.9 (a): Rekey(k2) and Rekey^2(k2).
#[test]
fn the_published_keys() {
    let same = |key: &Key, bytes: &str| {
        let print = |key: &Key| key.seal(&Nonce::default(), &[], &mut []);
        assert_eq!(print(key), print(&Key::new(secret(bytes).expose())));
    };
    let once = rekey::next(&Key::new(secret(K2).expose()));
    same(&once, "4699ba00b29842a236c781ce67c044de2bc43eaaaf35f6bfa4353581ada3d044");
    same(&rekey::next(&once), "b9aa3e02c32dce978ce7ab97d51f360f7902cdaaedd6c0ae237219616d45e77c");
}

/// P1: 10,000 records, each again at once, all again at the end; in the other direction; on another channel.
#[test]
fn replay() {
    let (mut sealer, mut opener) = pair();
    let mut other = Opener::new(Secret::new([8; 32]));
    let mut trace = Vec::new();
    for number in 0..10_000u32 {
        let record = seal(&mut sealer, &number.to_be_bytes());
        assert_eq!(open(&mut opener, &record), Ok(number.to_be_bytes().to_vec()));
        assert_eq!(open(&mut opener, &record), Err(OpenError::Replayed));
        assert!(matches!(open(&mut other, &record), Err(OpenError::BadTag | OpenError::OutsideWindow)));
        trace.push(record);
    }
    for record in &trace {
        assert!(matches!(open(&mut opener, record), Err(OpenError::Replayed | OpenError::OutsideWindow)));
    }
    assert_eq!(sealer.sealed(), 10_000);
}

/// P3: every bit of records of 64 bytes, early and across a rekey. Nothing is accepted, nothing moves, no text is left
/// behind, and the genuine record still opens.
#[test]
fn tamper() {
    let (mut sealer, mut opener) = pair();
    for number in 0..70 {
        let record = seal(&mut sealer, &[number; 64 - RECORD_OVERHEAD]);
        let before = state(&opener);
        for bit in 0..record.len() * 8 {
            let mut changed = record.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let refused = opener.open_in_place(&mut changed).unwrap_err();
            if refused == OpenError::BadTag {
                assert!(changed[NONCE_LEN..64 - TAG_LEN].iter().all(|byte| *byte == 0), "record {number} bit {bit}");
            }
            assert!(bit < 64 || refused == OpenError::BadTag, "record {number} bit {bit}: {refused}");
            assert_eq!(state(&opener), before, "record {number} bit {bit}");
        }
        assert_eq!(open(&mut opener, &record), Ok(vec![number; 64 - RECORD_OVERHEAD]));
    }
}

/// P4: cut at every byte, and longer by one.
#[test]
fn truncate_and_extend() {
    let (mut sealer, mut opener) = pair();
    let record = seal(&mut sealer, b"a text that is longer than a block of the cipher");
    for length in 0..record.len() {
        let refused = if length < RECORD_OVERHEAD { OpenError::TooShort } else { OpenError::BadTag };
        assert_eq!(open(&mut opener, &record[..length]), Err(refused), "{length}");
    }
    assert_eq!(open(&mut opener, &[&record[..], &[0]].concat()), Err(OpenError::BadTag));
    assert!(open(&mut opener, &record).is_ok());
}

/// P7: the last nonces. 2^64 - 1 is neither sealed nor opened, and nothing wraps.
#[test]
fn the_nonces_end() {
    let last = REKEY_NONCE - 1;
    let key = || Key::new(&[7; 32]);
    let mut sealer = Sealer { key: key(), next: last - 1 };
    let mut opener = Opener {
        block: rekey::block(last),
        current: key(),
        previous: Some(key()),
        next: None,
        window: Window::at(last - 2),
    };
    for nonce in [last - 1, last] {
        let record = seal(&mut sealer, b"text");
        assert_eq!(record[..8], nonce.to_be_bytes());
        assert_eq!(open(&mut opener, &record), Ok(b"text".to_vec()));
    }
    let mut room = [0xa5; RECORD_OVERHEAD + 4];
    for _ in 0..3 {
        assert_eq!(sealer.seal_in_place(&mut room), Err(Exhausted));
    }
    assert_eq!((room, sealer.sealed()), ([0xa5; RECORD_OVERHEAD + 4], REKEY_NONCE));

    let mut forged = [&REKEY_NONCE.to_be_bytes()[..], b"text", &[0; TAG_LEN]].concat();
    let (text, tag) = forged[NONCE_LEN..].split_at_mut(4);
    tag.copy_from_slice(&key().seal(&aead::nonce(REKEY_NONCE), &[], text));
    assert_eq!(open(&mut opener, &forged), Err(OpenError::ReservedNonce));
}

/// P8: a record sealed with the key of any other block than the one its nonce names is refused.
#[test]
fn only_the_named_block_is_tried() {
    let (mut sealer, mut opener) = pair();
    let mut keys = vec![Key::new(&[7; 32])];
    for block in 0..4 {
        keys.push(rekey::next(&keys[block]));
    }
    for _ in 0..64 + 8 {
        let record = seal(&mut sealer, b"genuine");
        open(&mut opener, &record).unwrap();
    }
    // The highest nonce is 71. Its window is 39 ..= 103, and everything up to 71 was seen.
    for nonce in 72..=103u64 {
        for (block, key) in keys.iter().enumerate() {
            let mut forged = [&nonce.to_be_bytes()[..], b"text", &[0; TAG_LEN]].concat();
            let (text, tag) = forged[NONCE_LEN..].split_at_mut(4);
            tag.copy_from_slice(&key.seal(&aead::nonce(nonce), &[], text));
            if block as u64 != nonce / 32 {
                assert_eq!(open(&mut opener, &forged), Err(OpenError::BadTag), "nonce {nonce}, key of block {block}");
            }
        }
    }
    assert_eq!(opener.block, 2);
}

/// More than 32 records lost end the direction (`wire.md` E.6); 32 do not, not even across a rekey.
#[test]
fn losses() {
    for (lost, expected) in [(31, Ok(b"text".to_vec())), (32, Err(OpenError::OutsideWindow))] {
        for start in [1, 20, 31, 32, 33, 63] {
            let (mut sealer, mut opener) = pair();
            for _ in 0..start {
                open(&mut opener, &seal(&mut sealer, b"text")).unwrap();
            }
            for _ in 0..lost {
                seal(&mut sealer, b"lost");
            }
            assert_eq!(open(&mut opener, &seal(&mut sealer, b"text")), expected, "{lost} lost after {start}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// P2 and F3: genuine records in any order and number, with garbage between them. Accepted is exactly what is
    /// genuine, unseen and within 32 of the highest accepted; garbage moves nothing.
    #[test]
    fn any_order(
        order in prop::collection::vec((0u64..200, -34i64..=34, any::<bool>(), any::<prop::sample::Index>()), 0..400),
    ) {
        let (mut sealer, mut opener) = pair();
        let records: Vec<_> = (0..200u64).map(|number| seal(&mut sealer, &number.to_be_bytes())).collect();
        let mut accepted = BTreeSet::new();
        for (anywhere, step, garble, flipped) in order {
            let highest = accepted.last().copied().unwrap_or(0u64);
            // Mostly near the highest, so that the run gets anywhere at all.
            let number = highest.checked_add_signed(step).filter(|number| *number < 200).unwrap_or(anywhere);
            let mut record = records[number as usize].clone();
            if garble {
                let before = state(&opener);
                let bit = 64 + flipped.index((record.len() - NONCE_LEN) * 8);
                record[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(open(&mut opener, &record).is_err());
                prop_assert_eq!(state(&opener), before);
                continue;
            }
            let expected = if number.abs_diff(highest) > 32 {
                Err(OpenError::OutsideWindow)
            } else if !accepted.insert(number) {
                Err(OpenError::Replayed)
            } else {
                Ok(number.to_be_bytes().to_vec())
            };
            prop_assert_eq!(open(&mut opener, &record), expected);
        }
    }
}
