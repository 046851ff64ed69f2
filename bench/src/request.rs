//! What is asked of an authority's services, and what they answer (`wire.md` D.5, I.1), as bytes: the load speaks the wire
//! by itself.

use minicbor::{Decoder, Encoder};
use ockam_crypto::Identifier;
use ockam_wire::bare;
use std::io;

/// The service that adds and lists members.
pub const MEMBERS: &str = "direct_authenticator";
/// The service that issues credentials.
pub const ISSUER: &str = "credential_issuer";

/// The numbers of methods and of success.
const GET: u8 = 0;
const POST: u8 = 1;
const OK: u16 = 200;

type Encoding = Encoder<Vec<u8>>;
type Encoded = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

/// CBOR in memory.
fn cbor(write: impl FnOnce(&mut Encoding) -> Encoded) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    write(&mut encoder).expect("encoding to memory does not fail");
    encoder.into_writer()
}

fn request(id: u32, method: u8, path: &str, body: Option<&[u8]>) -> Vec<u8> {
    let header = cbor(|it| {
        it.map(4)?.u8(1)?.u32(id)?.u8(2)?.str(path)?.u8(3)?.u8(method)?.u8(4)?.bool(body.is_some())?;
        Ok(())
    });
    let rest = [&header, body.unwrap_or_default()].concat();
    let mut payload = Vec::with_capacity(rest.len() + 4);
    bare::write_uleb(rest.len() as u64, &mut payload);
    payload.extend_from_slice(&rest);
    payload
}

/// Asks [`MEMBERS`] to add one.
pub fn add_member(id: u32, member: &Identifier, attributes: &[(&str, &str)]) -> Vec<u8> {
    let body = cbor(|it| {
        it.map(2)?.u8(1)?.bytes(&member.0)?.u8(2)?.map(attributes.len() as u64)?;
        attributes.iter().try_for_each(|(name, value)| it.str(name)?.str(value).map(drop))
    });
    request(id, POST, "/members", Some(&body))
}

/// Asks [`MEMBERS`] for the identifiers behind one, in their order.
pub fn member_ids(id: u32, after: Option<&Identifier>, count: u64) -> Vec<u8> {
    let body = cbor(|it| {
        it.map(1 + u64::from(after.is_some()))?;
        if let Some(after) = after {
            it.u8(1)?.bytes(&after.0)?;
        }
        it.u8(2)?.u64(count).map(drop)
    });
    request(id, GET, "/member_ids", Some(&body))
}

/// Asks [`ISSUER`] for a credential of who asks.
pub fn issue(id: u32) -> Vec<u8> {
    request(id, POST, "/credential", None)
}

/// The id of the request that an answer is for, and its body.
///
/// # Errors
/// `InvalidData`: it is no answer, or a refusal.
pub fn answer(payload: &[u8]) -> io::Result<(u32, &[u8])> {
    let (length, rest) = bare::read_uleb(payload).map_err(invalid)?;
    let inner = usize::try_from(length).ok().and_then(|length| rest.get(..length));
    let inner = inner.ok_or_else(|| invalid("an answer is cut off"))?;
    let mut decoder = Decoder::new(inner);
    let (mut to, mut status) = (None, None);
    for _ in 0..decoder.map().map_err(invalid)?.unwrap_or(0) {
        match decoder.u8().map_err(invalid)? {
            2 => to = Some(decoder.u32().map_err(invalid)?),
            3 => status = Some(decoder.u16().map_err(invalid)?),
            _ => decoder.skip().map_err(invalid)?,
        }
    }
    let body = &inner[decoder.position()..];
    match (to, status) {
        (Some(to), Some(OK)) => Ok((to, body)),
        (Some(to), Some(status)) => {
            Err(invalid(format!("request {to} was refused with status {status}: {}", body.escape_ascii())))
        }
        _ => Err(invalid("an answer does not say to what, or with which status")),
    }
}

/// What [`member_ids`] is answered.
///
/// # Errors
/// `InvalidData`: something else.
pub fn identifiers(body: &[u8]) -> io::Result<Vec<Identifier>> {
    let mut decoder = Decoder::new(body);
    let count = decoder.array().map_err(invalid)?.ok_or_else(|| invalid("a list without a length"))?;
    (0..count)
        .map(|_| {
            let bytes = decoder.bytes().map_err(invalid)?;
            bytes.try_into().map(Identifier).map_err(|_| invalid("an identifier has 32 bytes"))
        })
        .collect()
}

fn invalid(why: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|it| !it.is_ascii_whitespace()).collect();
        let value = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(value).collect()
    }

    /// The request of `wire.md` I.5, and the bodies of D.5.
    #[test]
    fn requests_are_as_real_nodes_make_them() {
        let get = hex("12a4011a0102030402652f6e6f6465030004f4");
        assert_eq!(request(0x0102_0304, GET, "/node", None), get);
        let member = Identifier([0xab; 32]);
        let body = hex(&format!("a2015820{}02a164726f6c6563776562", "ab".repeat(32)));
        assert!(add_member(7, &member, &[("role", "web")]).ends_with(&body));
        assert!(member_ids(7, None, 7).ends_with(&hex("04f5 a10207")));
        assert!(member_ids(7, Some(&member), 7).ends_with(&hex(&format!("04f5 a2015820{}0207", "ab".repeat(32)))));
    }

    #[test]
    fn answers_are_read_and_refusals_are_not_taken_for_them() {
        let payload = hex(
            "41a4011a0a0b0c0d021a010203040318c804f5a301626e31025820e70dc5545d64724880257acb32b8851e7dd1dd57076838991bc343165df71bfe038200811904d2",
        );
        let (to, body) = answer(&payload).unwrap();
        assert_eq!((to, body.len()), (0x0102_0304, 47));
        assert!(answer(&payload[..20]).is_err());
        // {1: 9, 2: 7, 3: 403, 4: true}, "no"
        let error = answer(&hex("0e a4 0109 0207 03190193 04f5 626e6f")).unwrap_err().to_string();
        assert!(error.contains("403") && error.contains("no"), "{error}");
        let list = hex(&format!("825820{}5820{}", "01".repeat(32), "02".repeat(32)));
        assert_eq!(identifiers(&list).unwrap(), [Identifier([1; 32]), Identifier([2; 32])]);
        assert!(identifiers(&list[..40]).is_err());
    }
}
