//! Published credentials, byte for byte, and each rule of `wire.md` D.4 on both sides of its boundary.

use super::*;
use crate::secret::Secret;
use crate::signature::SigningKey;
use crate::vectors::*;

fn unhex(text: &str) -> Vec<u8> {
    base16ct::lower::decode_vec(text).unwrap()
}

/// `wire.md` D.6.
#[test]
fn published() {
    let history = ChangeHistory::from_hex(K1_HISTORIES[4].1).unwrap();
    let client = ChangeHistory::from_hex(C5_HISTORY).unwrap();
    let attestation = Attestation::verify(&unhex(D6_ISSUER_ATTESTATION), &history, 1_750_000_000).unwrap();
    let key = SigningKey::new(Secret::new(std::array::from_fn(|index| 0x80 + index as u8)));
    let issuer = Issuer::new(&history, attestation, key).unwrap();
    let mut attributes = Attributes::new();
    attributes.insert("cluster", "production").unwrap();
    let (created_at, expires_at) = (1_750_000_000, 1_750_000_000 + 30 * 24 * 3600);
    let latest = Some(client.latest().hash);
    let made = Credential::issue(&issuer, client.identifier(), latest, 1, &attributes, created_at, expires_at).unwrap();
    assert_eq!(base16ct::lower::encode_string(made.encoded()), D6_CREDENTIAL);
    assert_eq!(Credential::verify(made.encoded(), &client.identifier(), [&history], created_at), Ok(made));
}
