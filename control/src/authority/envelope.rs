//! The envelope of requests and responses between nodes (`wire.md` I.1).
//!
//! ```text
//!   payload  = uleb(length of the rest) || header || body
//!   request  = {1: id, 2: path, 3: method, 4: has a body}
//!   response = {1: id, 2: id of the request, 3: status, 4: has a body}        the body of an error: {1: path, 2: method, 3: message}
//! ```
//!
//! A body is bytes to the envelope ([`super::bodies`]).

use minicbor::{Decode, Decoder, Encode};
use ockam_wire::bare;

/// Longest path in bytes.
pub const PATH_MAX: usize = 256;

/// Longest message of an error that is read, in bytes; the rest is cut off.
const MESSAGE_MAX: usize = 1024;

/// What a request wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Read.
    Get,
    /// Add, or do.
    Post,
    /// Replace.
    Put,
    /// Remove.
    Delete,
    /// Change.
    Patch,
}

impl Method {
    /// All of them, in the order of their numbers.
    const ALL: [Method; 5] = [Method::Get, Method::Post, Method::Put, Method::Delete, Method::Patch];

    fn from_number(number: u64) -> Option<Method> {
        Method::ALL.get(usize::try_from(number).ok()?).copied()
    }
}

/// What became of a request: numbers as HTTP has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Status(pub u16);

impl Status {
    /// Done.
    pub const OK: Status = Status(200);
    /// The request makes no sense.
    pub const BAD_REQUEST: Status = Status(400);
    /// Not for this caller.
    pub const FORBIDDEN: Status = Status(403);
    /// There is nothing of this name.
    pub const NOT_FOUND: Status = Status(404);
    /// It contradicts what there is.
    pub const CONFLICT: Status = Status(409);
    /// The other side failed.
    pub const INTERNAL: Status = Status(500);
}

/// A request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// Chosen by who asks; the response repeats it.
    pub id: u32,
    /// What for; real nodes panic without one.
    pub method: Option<Method>,
    /// Of what, with or without a slash in front.
    pub path: &'a str,
    /// With what.
    pub body: Option<&'a [u8]>,
}

/// A response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response<'a> {
    /// Chosen by who answers.
    pub id: u32,
    /// The id of the request; 0 when it could not be read.
    pub re: u32,
    /// What became of it; none when the number is unknown to who reads it.
    pub status: Option<Status>,
    /// The result, or the error.
    pub body: Option<&'a [u8]>,
}

/// Why a request was refused, as the other side says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (status {})", status.map_or_else(|| "unknown".to_owned(), |status| status.0.to_string()))]
pub struct Refusal {
    /// Its number.
    pub status: Option<Status>,
    /// Its words, which are somebody else's: made fit for a terminal, at most 1 KiB.
    pub message: String,
}

/// The bytes are no envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no envelope of a request or a response, or is cut off")]
pub struct MalformedEnvelope;

#[derive(Encode, Decode)]
#[cbor(map)]
struct RequestHeader<'a> {
    #[n(1)]
    id: u32,
    #[b(2)]
    path: &'a str,
    /// A number, so that one from later times can be read.
    #[n(3)]
    method: Option<u64>,
    #[n(4)]
    has_body: bool,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct ResponseHeader {
    #[n(1)]
    id: u32,
    #[n(2)]
    re: u32,
    #[n(3)]
    status: Option<u16>,
    #[n(4)]
    has_body: bool,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct ErrorBody<'a> {
    #[b(1)]
    path: Option<&'a str>,
    #[n(2)]
    method: Option<u64>,
    #[b(3)]
    message: Option<&'a str>,
}

impl<'a> Request<'a> {
    /// One with a random id.
    pub fn new(method: Method, path: &'a str, body: Option<&'a [u8]>) -> Request<'a> {
        Request { id: fresh_id(), method: Some(method), path, body }
    }

    /// As the payload of a message.
    pub fn to_payload(&self) -> Vec<u8> {
        let has_body = self.body.is_some();
        let method = self.method.map(|method| method as u64);
        let header = RequestHeader { id: self.id, path: self.path, method, has_body };
        seal(&header, self.body)
    }

    /// Reads the payload of a message. Bytes behind the envelope are ignored, as real nodes do.
    ///
    /// # Errors
    /// It is none, or its path is longer than [`PATH_MAX`].
    pub fn parse(payload: &'a [u8]) -> Result<Request<'a>, MalformedEnvelope> {
        let (header, body) = open::<RequestHeader<'a>>(payload)?;
        if header.path.len() > PATH_MAX {
            return Err(MalformedEnvelope);
        }
        let body = header.has_body.then_some(body);
        Ok(Request { id: header.id, method: header.method.and_then(Method::from_number), path: header.path, body })
    }

    /// The parts of the path: at most five, the last of which may have slashes.
    pub fn segments(&self) -> Vec<&'a str> {
        self.path.trim_start_matches('/').splitn(5, '/').collect()
    }

    /// That it was done, with what came of it.
    pub fn done(&self, body: Option<&[u8]>) -> Vec<u8> {
        respond(self.id, Status::OK, body)
    }

    /// That it was refused, and why.
    pub fn refused(&self, status: Status, message: &str) -> Vec<u8> {
        let method = self.method.map(|method| method as u64);
        let error = ErrorBody { path: Some(self.path), method, message: Some(message) };
        respond(self.id, status, Some(&encode(&error)))
    }
}

/// That what came is no request.
pub fn not_a_request(message: &str) -> Vec<u8> {
    let error = ErrorBody { path: None, method: None, message: Some(message) };
    respond(0, Status::BAD_REQUEST, Some(&encode(&error)))
}

fn respond(re: u32, status: Status, body: Option<&[u8]>) -> Vec<u8> {
    seal(&ResponseHeader { id: fresh_id(), re, status: Some(status.0), has_body: body.is_some() }, body)
}

impl<'a> Response<'a> {
    /// Reads the payload of a message. Bytes behind the envelope are ignored, as real nodes do.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(payload: &'a [u8]) -> Result<Response<'a>, MalformedEnvelope> {
        let (header, body) = open::<ResponseHeader>(payload)?;
        let body = header.has_body.then_some(body);
        Ok(Response { id: header.id, re: header.re, status: header.status.map(Status), body })
    }

    /// The result, which is empty when there is none to speak of.
    ///
    /// # Errors
    /// What the other side says, when it did not do it.
    pub fn success(&self) -> Result<&'a [u8], Refusal> {
        let body = self.body.unwrap_or_default();
        match self.status {
            Some(Status::OK) => Ok(body),
            status => Err(Refusal { status, message: message(body) }),
        }
    }
}

/// What an error says: a map, a text or a byte string.
fn message(body: &[u8]) -> String {
    let mut decoder = Decoder::new(body);
    let said = match decoder.decode::<ErrorBody<'_>>() {
        Ok(error) => error.message.map(str::as_bytes),
        Err(_) => Decoder::new(body).str().map(str::as_bytes).or_else(|_| Decoder::new(body).bytes()).ok(),
    };
    match said {
        Some(said) if !said.is_empty() => crate::text::escape(said, MESSAGE_MAX),
        _ => "it does not say why".to_owned(),
    }
}

fn fresh_id() -> u32 {
    u32::from_ne_bytes(crate::random::bytes()).max(1)
}

pub(super) fn encode(value: &impl Encode<()>) -> Vec<u8> {
    minicbor::to_vec(value).expect("encoding to memory does not fail")
}

fn seal(header: &impl Encode<()>, body: Option<&[u8]>) -> Vec<u8> {
    let header = encode(header);
    let length = header.len() + body.map_or(0, <[u8]>::len);
    let mut payload = Vec::with_capacity(bare::uleb_len(length as u64) + length);
    bare::write_uleb(length as u64, &mut payload);
    payload.extend_from_slice(&header);
    payload.extend_from_slice(body.unwrap_or_default());
    payload
}

fn open<'a, T: Decode<'a, ()>>(payload: &'a [u8]) -> Result<(T, &'a [u8]), MalformedEnvelope> {
    let (length, rest) = bare::read_uleb(payload).map_err(|_| MalformedEnvelope)?;
    let length = usize::try_from(length).map_err(|_| MalformedEnvelope)?;
    let inner = rest.get(..length).ok_or(MalformedEnvelope)?;
    let mut decoder = Decoder::new(inner);
    let header = decoder.decode().map_err(|_| MalformedEnvelope)?;
    Ok((header, &inner[decoder.position()..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::from_hex;
    use proptest::prelude::*;

    /// The requests and the response of `wire.md` I.5.
    #[test]
    fn envelopes_are_as_real_nodes_make_them() {
        let get = from_hex("12a4011a0102030402652f6e6f6465030004f4").unwrap();
        let request = Request::parse(&get).unwrap();
        assert_eq!(request, Request { id: 0x0102_0304, method: Some(Method::Get), path: "/node", body: None });
        assert_eq!(request.to_payload(), get);
        assert_eq!(request.segments(), ["node"]);

        let post = "30a4011a0102030402722f6e6f64652f7463702f6c697374656e6572030104f5a1016e3132372e302e302e313a34303030";
        let post = from_hex(post).unwrap();
        let request = Request::parse(&post).unwrap();
        assert_eq!((request.method, request.body.map(<[u8]>::len)), (Some(Method::Post), Some(17)));
        assert_eq!(request.to_payload(), post);
        assert_eq!(request.segments(), ["node", "tcp", "listener"]);

        let answer = "41a4011a0a0b0c0d021a010203040318c804f5a301626e31025820e70dc5545d64724880257acb32b8851e7dd1dd57076838991bc343165df71bfe038200811904d2";
        let answer = from_hex(answer).unwrap();
        let response = Response::parse(&answer).unwrap();
        assert_eq!((response.id, response.re, response.status), (0x0a0b_0c0d, 0x0102_0304, Some(Status::OK)));
        assert_eq!(response.success().unwrap().len(), 47);
        assert_eq!(
            seal(
                &ResponseHeader { id: response.id, re: response.re, status: Some(200), has_body: true },
                response.body
            ),
            answer
        );
    }

    #[test]
    fn a_refusal_says_why_in_each_of_its_forms() {
        let request = Request::new(Method::Post, "/members", None);
        let refused = request.refused(Status::FORBIDDEN, "only enrollers may\u{1b}[m");
        let response = Response::parse(&refused).unwrap();
        assert_eq!(response.re, request.id);
        let refusal = response.success().unwrap_err();
        assert_eq!(refusal.to_string(), "only enrollers may\\x1b[m (status 403)");
        let said = |body: &[u8]| {
            let payload = respond(7, Status(500), Some(body));
            Response::parse(&payload).unwrap().success().unwrap_err().message
        };
        assert_eq!(said(&encode(&"text")), "text");
        assert_eq!(said(&[0x42, b'a', b'b']), "ab");
        assert_eq!(said(&[0xa0]), "it does not say why");
        assert_eq!(said(&[0xff, 0xff]), "it does not say why");
        assert_eq!(said(&encode(&"x".repeat(5000).as_str())).len(), MESSAGE_MAX + 3);
        assert!(Response::parse(&request.done(None)).unwrap().success().unwrap().is_empty());
        assert_eq!(Response::parse(&not_a_request("x")).unwrap().status, Some(Status::BAD_REQUEST));
    }

    #[test]
    fn methods_and_statuses_from_later_times_are_none() {
        // {1: 1, 2: "/", 3: 9, 4: false}
        let request = from_hex("0aa4010102612f030904f4").unwrap();
        assert_eq!(Request::parse(&request).unwrap().method, None);
        // Without a method at all.
        let request = from_hex("08a3010102612f04f4").unwrap();
        assert_eq!(Request::parse(&request).unwrap().method, None);
        let long = Request::new(Method::Get, &"x".repeat(PATH_MAX + 1), None).to_payload();
        assert_eq!(Request::parse(&long), Err(MalformedEnvelope));
    }

    fn any_method() -> impl Strategy<Value = Option<Method>> {
        prop_oneof![Just(None), proptest::sample::select(Method::ALL.to_vec()).prop_map(Some)]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            id: u32, method in any_method(), path in "[ -~]{0,60}", body: Option<Vec<u8>>, behind: Vec<u8>
        ) {
            let request = Request { id, method, path: &path, body: body.as_deref() };
            let mut payload = request.to_payload();
            payload.extend_from_slice(&behind);
            prop_assert_eq!(Request::parse(&payload), Ok(request));
            for cut in 0..payload.len() - behind.len() {
                prop_assert!(Request::parse(&payload[..cut]).is_err());
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            if let Ok(request) = Request::parse(&bytes) {
                prop_assert!(request.path.len() <= PATH_MAX && request.segments().len() <= 5);
                prop_assert!(request.body.is_none_or(|body| body.len() < bytes.len()));
                let again = request.to_payload();
                prop_assert_eq!(Request::parse(&again), Ok(request));
            }
            if let Ok(response) = Response::parse(&bytes)
                && let Err(refusal) = response.success()
            {
                prop_assert!(refusal.message.len() <= 8 * MESSAGE_MAX);
            }
        }
    }
}
