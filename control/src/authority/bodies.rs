//! What is in the requests and responses of an authority's services (`wire.md` D.5).
//!
//! Memory follows what was received: an element is read before there is room for the next one. Who asks a real authority
//! reads what that one sends, so names and values of attributes are bytes there.

use minicbor::bytes::ByteArray;
use minicbor::data::Type;
use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};
use ockam_crypto::{ATTRIBUTES_MAX, Identifier};
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// Most members that one request of a page may ask for.
pub const PAGE_MAX: u64 = 1000;

/// The bytes are not what was to be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the body is malformed: {0}")]
pub struct MalformedBody(String);

/// Reads a body. Bytes behind it are ignored, as real nodes do.
///
/// # Errors
/// It is something else.
pub fn read<'a, T: Decode<'a, ()>>(body: &'a [u8]) -> Result<T, MalformedBody> {
    minicbor::decode(body).map_err(|error| MalformedBody(error.to_string()))
}

/// A body as bytes.
pub fn write(body: &impl Encode<()>) -> Vec<u8> {
    super::envelope::encode(body)
}

/// Adds a member, or replaces its attributes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AddMember {
    /// Who.
    #[cbor(n(1), with = "identifier")]
    pub member: Identifier,
    /// What its credentials will say, beside the project.
    #[cbor(n(2), with = "texts")]
    pub attributes: BTreeMap<String, String>,
}

/// Makes a ticket's code.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct CreateToken {
    /// What the credentials of those will say who redeem it.
    #[cbor(n(1), with = "texts")]
    pub attributes: BTreeMap<String, String>,
    /// For how long, in seconds; ten minutes when absent.
    #[n(2)]
    pub ttl_secs: Option<u64>,
    /// For how many; one when absent.
    #[n(3)]
    pub ttl_count: Option<u64>,
}

/// A ticket's code: who has it becomes a member.
#[derive(Clone, PartialEq, Eq)]
pub struct OneTimeCode(pub Zeroizing<[u8; 32]>);

impl std::fmt::Debug for OneTimeCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The field of a [`OneTimeCode`].
#[derive(Encode, Decode)]
#[cbor(map)]
struct Code {
    #[n(1)]
    code: ByteArray<32>,
}

impl<C> Encode<C> for OneTimeCode {
    fn encode<W: Write>(&self, output: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        output.map(1)?.u8(1)?.bytes(&*self.0)?.ok()
    }
}

impl<'a, C> Decode<'a, C> for OneTimeCode {
    fn decode(input: &mut Decoder<'a>, context: &mut C) -> Result<Self, DecodeError> {
        let mut read = Code::decode(input, context)?;
        let code = Zeroizing::new(*read.code);
        zeroize::Zeroize::zeroize(&mut *read.code);
        Ok(OneTimeCode(code))
    }
}

/// What an authority knows of a member.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AttributesEntry {
    /// What its credentials say, beside the project.
    #[cbor(n(1), with = "small_integers")]
    pub attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    /// When it was added, or its attributes were replaced, in seconds of Unix time.
    #[n(2)]
    pub added_at: u64,
    /// Its last second.
    #[n(3)]
    pub expires_at: Option<u64>,
    /// Who added it.
    #[cbor(n(4), with = "optional_identifier", has_nil)]
    pub attested_by: Option<Identifier>,
}

/// Members, in the order of their identifiers as far as we write it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberList(pub Vec<(Identifier, AttributesEntry)>);

impl<C> Encode<C> for MemberList {
    fn encode<W: Write>(&self, output: &mut Encoder<W>, context: &mut C) -> Result<(), EncodeError<W::Error>> {
        output.map(self.0.len() as u64)?;
        self.0.iter().try_for_each(|(member, entry)| {
            output.bytes(&member.0)?;
            entry.encode(output, context)
        })
    }
}

impl<'a, C> Decode<'a, C> for MemberList {
    fn decode(input: &mut Decoder<'a>, context: &mut C) -> Result<Self, DecodeError> {
        let claimed = input.map()?;
        let mut members = Vec::new();
        while !at_end(input, claimed, members.len())? {
            members.push((identifier::decode(input, context)?, AttributesEntry::decode(input, context)?));
        }
        Ok(MemberList(members))
    }
}

/// Identifiers, in their order as far as we write it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdentifierList(pub Vec<Identifier>);

impl<C> Encode<C> for IdentifierList {
    fn encode<W: Write>(&self, output: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        output.array(self.0.len() as u64)?;
        self.0.iter().try_for_each(|member| output.bytes(&member.0).map(drop))
    }
}

impl<'a, C> Decode<'a, C> for IdentifierList {
    fn decode(input: &mut Decoder<'a>, context: &mut C) -> Result<Self, DecodeError> {
        let claimed = input.array()?;
        let mut members = Vec::new();
        while !at_end(input, claimed, members.len())? {
            members.push(identifier::decode(input, context)?);
        }
        Ok(IdentifierList(members))
    }
}

/// Which members are asked for, in the order of their identifiers. Ours alone: a real authority does not read it, and
/// gives all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Page {
    /// Those behind this one; from the first on when absent.
    #[cbor(n(1), with = "optional_identifier", has_nil)]
    pub after: Option<Identifier>,
    /// At most so many; no more than [`PAGE_MAX`] are given.
    #[n(2)]
    pub count: u64,
}

/// Asks for the list of revocations when there is a newer one. Ours alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AwaitRevocations {
    /// The number of the list that is known; 0 for none.
    #[n(1)]
    pub number: u64,
}

fn at_end(input: &mut Decoder<'_>, claimed: Option<u64>, read: usize) -> Result<bool, DecodeError> {
    match claimed {
        Some(claimed) => Ok(read as u64 == claimed),
        None if input.datatype()? == Type::Break => input.skip().map(|()| true),
        None => Ok(false),
    }
}

mod identifier {
    use super::*;

    pub(super) fn encode<C, W: Write>(
        value: &Identifier,
        output: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        output.bytes(&value.0)?.ok()
    }

    pub(super) fn decode<C>(input: &mut Decoder<'_>, _: &mut C) -> Result<Identifier, DecodeError> {
        let bytes = input.bytes()?.try_into().map_err(|_| DecodeError::message("an identifier has 32 bytes"))?;
        Ok(Identifier(bytes))
    }
}

mod optional_identifier {
    use super::*;

    pub(super) fn encode<C, W: Write>(
        value: &Option<Identifier>,
        output: &mut Encoder<W>,
        context: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        match value {
            Some(value) => identifier::encode(value, output, context),
            None => output.null()?.ok(),
        }
    }

    pub(super) fn decode<C>(input: &mut Decoder<'_>, context: &mut C) -> Result<Option<Identifier>, DecodeError> {
        match input.datatype()? {
            Type::Null => input.null().map(|()| None),
            _ => identifier::decode(input, context).map(Some),
        }
    }

    pub(super) fn is_nil(value: &Option<Identifier>) -> bool {
        value.is_none()
    }

    #[expect(clippy::unnecessary_wraps, reason = "this is how a missing field is asked for")]
    pub(super) fn nil() -> Option<Option<Identifier>> {
        Some(None)
    }
}

/// Attributes as who adds a member gives them.
mod texts {
    use super::*;

    pub(super) fn encode<C, W: Write>(
        value: &BTreeMap<String, String>,
        output: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        output.map(value.len() as u64)?;
        value.iter().try_for_each(|(name, value)| output.str(name)?.str(value).map(drop))
    }

    pub(super) fn decode<C>(input: &mut Decoder<'_>, _: &mut C) -> Result<BTreeMap<String, String>, DecodeError> {
        let claimed = input.map()?;
        let mut texts = BTreeMap::new();
        while !at_end(input, claimed, texts.len())? {
            if texts.len() > ATTRIBUTES_MAX {
                return Err(DecodeError::message("too many attributes"));
            }
            if texts.insert(input.str()?.to_owned(), input.str()?.to_owned()).is_some() {
                return Err(DecodeError::message("two attributes have the same name"));
            }
        }
        Ok(texts)
    }
}

/// Attributes as an authority shows them: names and values are arrays of small integers, as real ones write them.
mod small_integers {
    use super::*;

    pub(super) fn encode<C, W: Write>(
        value: &BTreeMap<Vec<u8>, Vec<u8>>,
        output: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        output.map(value.len() as u64)?;
        for bytes in value.iter().flat_map(|(name, value)| [name, value]) {
            output.array(bytes.len() as u64)?;
            bytes.iter().try_for_each(|byte| output.u8(*byte).map(drop))?;
        }
        Ok(())
    }

    pub(super) fn decode<C>(input: &mut Decoder<'_>, _: &mut C) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, DecodeError> {
        let claimed = input.map()?;
        let mut pairs = BTreeMap::new();
        while !at_end(input, claimed, pairs.len())? {
            if pairs.insert(bytes(input)?, bytes(input)?).is_some() {
                return Err(DecodeError::message("two attributes have the same name"));
            }
        }
        Ok(pairs)
    }

    fn bytes(input: &mut Decoder<'_>) -> Result<Vec<u8>, DecodeError> {
        let claimed = input.array()?;
        let mut bytes = Vec::new();
        while !at_end(input, claimed, bytes.len())? {
            bytes.push(input.u8()?);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::to_hex;
    use proptest::prelude::*;

    fn of(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn bodies_are_as_real_nodes_make_them() {
        let add = AddMember { member: Identifier([0xab; 32]), attributes: of(&[("role", "web")]) };
        let bytes = write(&add);
        assert_eq!(to_hex(&bytes), format!("a2015820{}02a164726f6c6563776562", "ab".repeat(32)));
        assert_eq!(read::<AddMember>(&bytes).unwrap(), add);

        let create = CreateToken { attributes: of(&[("a", "b")]), ttl_secs: Some(600), ttl_count: None };
        assert_eq!(to_hex(&write(&create)), "a201a1616161620219 0258".replace(' ', ""));
        assert_eq!(read::<CreateToken>(&write(&create)).unwrap(), create);
        assert_eq!(read::<CreateToken>(&[0xa1, 1, 0xa0]).unwrap(), CreateToken::default());

        let code = OneTimeCode(Zeroizing::new([0xcd; 32]));
        assert_eq!(to_hex(&write(&code)), format!("a1015820{}", "cd".repeat(32)));
        assert_eq!(read::<OneTimeCode>(&write(&code)).unwrap(), code);
        assert_eq!(format!("{code:?}"), "[redacted]");

        let attributes = BTreeMap::from([(b"k".to_vec(), vec![1, 200])]);
        let entry =
            AttributesEntry { attributes, added_at: 5, expires_at: None, attested_by: Some(Identifier([1; 32])) };
        let list = MemberList(vec![(Identifier([2; 32]), entry)]);
        let bytes = write(&list);
        let expected = format!("a15820{}a301a1 81186b 820118c8 0205 045820{}", "02".repeat(32), "01".repeat(32));
        assert_eq!(to_hex(&bytes), expected.replace(' ', ""));
        assert_eq!(read::<MemberList>(&bytes).unwrap(), list);

        let ids = IdentifierList(vec![Identifier([3; 32])]);
        assert_eq!(to_hex(&write(&ids)), format!("815820{}", "03".repeat(32)));
        assert_eq!(read::<IdentifierList>(&write(&ids)).unwrap(), ids);

        for page in [Page { after: None, count: 7 }, Page { after: Some(Identifier([9; 32])), count: 7 }] {
            assert_eq!(read::<Page>(&write(&page)).unwrap(), page);
        }
        assert_eq!(to_hex(&write(&Page { after: None, count: 7 })), "a10207");
        assert_eq!(to_hex(&write(&AwaitRevocations { number: 300 })), "a10119012c");
    }

    #[test]
    fn what_no_node_of_ours_would_send_is_refused() {
        let id = format!("5820{}", "ab".repeat(32));
        let refused = [
            // Two attributes of one name.
            format!("a201{id}02a2616161626161 6163"),
            // An identifier of 31 bytes.
            format!("a201581f{}02a0", "ab".repeat(31)),
            // A map that claims four thousand million attributes.
            format!("a201{id}02baffffffff61616162"),
            // No attributes, no member.
            format!("a101{id}"),
            "a102a0".to_owned(),
            // Bytes for text.
            format!("a201{id}02a141614162"),
        ];
        for hex in refused {
            let bytes = crate::text::from_hex(&hex.replace(' ', "")).unwrap();
            assert!(read::<AddMember>(&bytes).is_err(), "{hex}");
        }
        let many: BTreeMap<String, String> = (0..1000).map(|n| (n.to_string(), String::new())).collect();
        let many = AddMember { member: Identifier([1; 32]), attributes: many };
        assert!(read::<AddMember>(&write(&many)).is_err());
        assert!(read::<OneTimeCode>(&crate::text::from_hex(&format!("a101581f{}", "cd".repeat(31))).unwrap()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            if let Ok(add) = read::<AddMember>(&bytes) {
                prop_assert!(add.attributes.len() <= ATTRIBUTES_MAX + 1);
                prop_assert_eq!(read::<AddMember>(&write(&add)), Ok(add));
            }
            if let Ok(list) = read::<MemberList>(&bytes) {
                prop_assert!(list.0.len() <= bytes.len());
            }
            let _ = read::<CreateToken>(&bytes);
            let _ = read::<OneTimeCode>(&bytes);
            let _ = read::<IdentifierList>(&bytes);
            let _ = read::<Page>(&bytes);
            let _ = read::<AwaitRevocations>(&bytes);
        }
    }
}
