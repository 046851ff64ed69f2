//! The fuzz targets as property tests, and the inputs that fuzzing found.

mod oracle;

use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn record_open(input in prop::collection::vec(any::<u8>(), 0..400)) {
        oracle::record_open(&input);
    }

    /// Mostly steps ahead by a few, so that the run crosses key blocks.
    #[test]
    fn record_open_in_time(steps in prop::collection::vec((-5i8..20, 0u8..3), 0..200)) {
        let input: Vec<u8> = steps.into_iter().flat_map(|(step, edits)| [step as u8, edits / 2]).collect();
        oracle::record_open(&input);
    }

    #[test]
    fn channel_records(input in prop::collection::vec(any::<u8>(), 0..300)) {
        oracle::channel_records(&input);
    }

    /// Long runs of honest traffic with a little loss and reordering, so that they cross many key blocks.
    #[test]
    fn channel_records_that_get_through(steps in prop::collection::vec((0u8..2, 1u8..9, 3u8..8), 0..120)) {
        let input: Vec<u8> = steps
            .into_iter()
            .flat_map(|(direction, count, action)| {
                let from = direction << 7;
                [from, count, 20, from | action, count, 0, 0, from | 2, count]
            })
            .collect();
        oracle::channel_records(&input);
    }

    #[test]
    fn change_history(chosen: u8, input in prop::collection::vec(any::<u8>(), 0..60)) {
        oracle::change_history(&[&[chosen], &input[..]].concat());
    }

    #[test]
    fn attestation(chosen: u8, moment: u8, input in prop::collection::vec(any::<u8>(), 0..60)) {
        oracle::attestation(&[&[chosen, moment], &input[..]].concat());
    }

    /// At every time that the oracle knows.
    #[test]
    fn attestation_untouched(chosen in 0u8..2, moment: u8) {
        oracle::attestation(&[chosen, moment, 0]);
    }

    #[test]
    fn credential(chosen in 0u8..6, moment: u8, input in prop::collection::vec(any::<u8>(), 0..200)) {
        oracle::credential(&[&[chosen, moment], &input[..]].concat());
    }

    /// Genuine ones at every time that the oracle knows.
    #[test]
    fn credential_untouched(chosen in 0u8..4, moment: u8) {
        oracle::credential(&[chosen, moment, 0]);
    }

    #[test]
    fn channel_plaintext(chosen: u8, input in prop::collection::vec(any::<u8>(), 0..60)) {
        oracle::channel_plaintext(&[&[chosen], &input[..]].concat());
    }

    #[test]
    fn handshake_xx(input in prop::collection::vec(any::<u8>(), 0..60)) {
        oracle::handshake_xx(&input);
    }

    #[test]
    fn cbor_identity(kind in 0u8..4, input in prop::collection::vec(any::<u8>(), 0..60)) {
        oracle::cbor_identity(&[&[kind], &input[..]].concat());
    }
}

type Case = (&'static str, &'static [u8]);

const CBOR_IDENTITY: &[Case] = &[
    ("nothing changed in a history", b"\x00"),
    ("nothing changed in an attestation", b"\x01"),
    ("nothing changed in a payload", b"\x02"),
    ("a count that no memory can hold", b"\x03\x9b\xff\xff\xff\xff\xff\xff\xff\xff"),
    ("a length that no slice can hold", b"\x03\x81\x82\x5b\xff\xff\xff\xff\xff\xff\xff\xff"),
    ("arrays in arrays in arrays as a credential", b"\x03\x83\x80\x80\x81\x81\x81\x81\x81\x81\x81\x81\x81\x81\x81"),
    ("indefinite arrays without an end", b"\x03\x9f\x9f\x9f\x9f\x9f\x9f\x9f\x9f"),
];

#[test]
fn cbor_identity_cases() {
    for (sentence, input) in CBOR_IDENTITY {
        println!("{sentence}");
        oracle::cbor_identity(input);
    }
}

const CREDENTIAL: &[Case] = &[
    ("an array around it in two bytes instead of one", b"\x00\x90\x01\x00\x00\x01\x02\x98\x02"),
    ("an array around it without an end", b"\x01\x30\x01\x00\x00\x01\x01\x9f"),
    ("a list of three instead of two", b"\x02\x90\x01\x00\x00\x01\x01\x83"),
    ("attributes of reserved names", b"\x05\x00\xfe\x01x\xff\x01x\x01a\xfe"),
    ("two attributes of the same name", b"\x05\x00\x01x\x01y\x01x\x00"),
    ("a map that no memory can hold", b"\x04\x80\x82\x82\x4e\x83\x01\x03\x4a\x85\xf6\xf6\x82\x01\xbb\xff\xff\xff\xff"),
    ("nothing", b"\x04"),
];

#[test]
fn credential_cases() {
    for (sentence, input) in CREDENTIAL {
        println!("{sentence}");
        oracle::credential(input);
    }
}

/// Every published history, untouched, is accepted by the oracle's own account, and so is every text.
#[test]
fn genuine_seeds() {
    for chosen in 0..=255 {
        oracle::change_history(&[chosen, 0]);
        oracle::channel_plaintext(&[chosen, 0]);
    }
}

/// A credential that is nested as deep as a handshake message is long: neither the stack nor much memory is used.
#[test]
fn deep_nesting() {
    for nested in [0x81, 0x9f, 0xbf, 0xc1] {
        let mut input = vec![3, 0x83, 0x80, 0x80, 0x81];
        input.resize(ockam_crypto::HANDSHAKE_MESSAGE_MAX, nested);
        oracle::cbor_identity(&input);
    }
}
