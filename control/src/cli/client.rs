//! Calls the control process of a node over its socket (`api.rs`). The runtime that this needs is made here, so that
//! commands which call nobody do not pay for one.

use crate::api::ErrorBody;
use crate::error::{Error, errno_text};
use crate::home::NodeDir;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long an answer may take. Everything that control does within it has its own, shorter limit.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Longest answer in bytes: a reply of 16 MiB as digits, and as text beside it, escaped.
const ANSWER_BYTES_MAX: usize = 160 * 1024 * 1024;

/// A connection to the control process of a node.
pub struct Control {
    node: String,
    /// Process id of control, as the kernel knows it.
    pid: u32,
    /// How long an answer may take.
    limit: Duration,
    runtime: tokio::runtime::Runtime,
    sender: SendRequest<Full<Bytes>>,
}

impl Control {
    /// Connects to the control of a node; `None` when nothing listens on its socket.
    ///
    /// # Errors
    /// [`Error::ControlSilent`] when something does but cannot be reached.
    pub fn connect(dir: &NodeDir) -> Result<Option<Control>, Error> {
        Control::connect_within(dir, ANSWER_LIMIT)
    }

    /// The same, where neither the connection nor an answer may take longer than `limit`.
    ///
    /// # Errors
    /// As [`Control::connect`].
    pub fn connect_within(dir: &NodeDir, limit: Duration) -> Result<Option<Control>, Error> {
        let node = dir.name().to_string();
        let silent = |why: String| Error::ControlSilent { node: node.clone(), why };
        let system = |error: &std::io::Error| silent(errno_text(error.raw_os_error().unwrap_or(0)));
        let Some(stream) = connect_socket(dir, limit)? else { return Ok(None) };
        let pid = peer_pid(&stream).map_err(|error| system(&error))?;
        stream.set_nonblocking(true).map_err(|error| system(&error))?;

        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| system(&error))?;
        let sender = runtime.block_on(async {
            let stream = tokio::net::UnixStream::from_std(stream).map_err(|error| system(&error))?;
            let (sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(|error| silent(error.to_string()))?;
            // It ends with the runtime. What goes wrong in it shows in the answer that does not come.
            tokio::spawn(connection);
            Ok(sender)
        })?;
        Ok(Some(Control { node, pid, limit, runtime, sender }))
    }

    /// Process id of control.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// `GET path`.
    ///
    /// # Errors
    /// What control reports, or [`Error::ControlSilent`].
    pub fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, Error> {
        self.call(Method::GET, path, Bytes::new(), self.limit)
    }

    /// `DELETE path`.
    ///
    /// # Errors
    /// As [`Control::get`].
    pub fn delete<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, Error> {
        self.call(Method::DELETE, path, Bytes::new(), self.limit)
    }

    /// `POST path` without a body.
    ///
    /// # Errors
    /// As [`Control::get`].
    pub fn post_empty<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, Error> {
        self.call(Method::POST, path, Bytes::new(), self.limit)
    }

    /// `POST path`.
    ///
    /// # Errors
    /// As [`Control::get`].
    pub fn post<T: DeserializeOwned>(&mut self, path: &str, body: &impl Serialize) -> Result<T, Error> {
        self.post_within(path, body, Duration::ZERO)
    }

    /// `POST path`, for what may take `more` than usual.
    ///
    /// # Errors
    /// As [`Control::get`].
    pub fn post_within<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &impl Serialize,
        more: Duration,
    ) -> Result<T, Error> {
        let body = serde_json::to_vec(body).expect("API types have string keys and finite numbers");
        self.call(Method::POST, path, body.into(), self.limit + more)
    }

    fn call<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<T, Error> {
        let node = self.node.clone();
        let silent = |why: String| Error::ControlSilent { node: node.clone(), why };
        let has_body = !body.is_empty();
        let mut request = Request::builder().method(method).uri(path).header(HOST, "node");
        if has_body {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body)).map_err(|error| Error::internal(format!("{path}: {error}")))?;
        let sender = &mut self.sender;
        let answer = async {
            let answer = sender.send_request(request).await.map_err(|error| silent(http_text(&error)))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| silent(error.to_string()))?;
            Ok((status, body.to_bytes()))
        };
        let answered = self.runtime.block_on(async { tokio::time::timeout(limit, answer).await });
        let (status, body) = answered.map_err(|_| silent(format!("no answer within {} ms", limit.as_millis())))??;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|error| silent(format!("its answer is not as agreed: {error}")));
        }
        match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(body) => Err(Error::Reported(body.error)),
            Err(_) => Err(silent(format!("it answers {status} without a reason"))),
        }
    }
}

/// The pid of a node's control, without talking to it; `None` when nothing listens on its socket.
///
/// # Errors
/// As [`Control::connect`].
pub fn control_pid(dir: &NodeDir) -> Result<Option<u32>, Error> {
    let Some(stream) = connect_socket(dir, ANSWER_LIMIT)? else { return Ok(None) };
    peer_pid(&stream).map(Some).map_err(|error| Error::ControlSilent {
        node: dir.name().to_string(),
        why: errno_text(error.raw_os_error().unwrap_or(0)),
    })
}

fn connect_socket(dir: &NodeDir, limit: Duration) -> Result<Option<UnixStream>, Error> {
    let path = match dir.control_socket() {
        Err(Error::Storage { errno, .. }) if errno == rustix::io::Errno::NOENT.raw_os_error() => return Ok(None),
        path => path?,
    };
    let connected = || {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // A control that hangs lets callers wait once its backlog is full.
        set_socket_timeout(&socket, Timeout::Send, Some(limit))?;
        connect(&socket, &SocketAddrUnix::new(path.as_path())?)?;
        set_socket_timeout(&socket, Timeout::Send, None)?;
        Ok(UnixStream::from(socket))
    };
    match connected().map_err(|errno: rustix::io::Errno| std::io::Error::from(errno)) {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => Ok(None),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(Error::ControlSilent {
            node: dir.name().to_string(),
            why: format!("it took no connection within {} ms", limit.as_millis()),
        }),
        Err(error) => Err(Error::ControlSilent {
            node: dir.name().to_string(),
            why: errno_text(error.raw_os_error().unwrap_or(0)),
        }),
    }
}

/// Who called `listen` on the other side.
fn peer_pid(stream: &UnixStream) -> std::io::Result<u32> {
    Ok(rustix::net::sockopt::socket_peercred(stream)?.pid.as_raw_pid().unsigned_abs())
}

/// Why no answer came. A control that ends or is killed shows as a connection that is closed or reset.
fn http_text(error: &hyper::Error) -> String {
    let source = std::error::Error::source(error);
    match source.and_then(|source| source.downcast_ref::<std::io::Error>()).and_then(std::io::Error::raw_os_error) {
        Some(errno) => errno_text(errno),
        None if error.is_incomplete_message() || error.is_closed() || error.is_canceled() => {
            "it closed the connection".into()
        }
        None => source.map_or_else(|| error.to_string(), ToString::to_string),
    }
}

/// `path/id`, with the characters of `id` that a path segment may not have percent-encoded.
pub fn item(path: &str, id: &str) -> String {
    let mut uri = format!("{path}/");
    encode(&mut uri, id);
    uri
}

/// `path?name=value&..`, with those that have a value.
pub fn query(path: &str, parts: &[(&str, Option<&str>)]) -> String {
    let mut uri = path.to_owned();
    let given = parts.iter().filter_map(|(name, value)| Some((name, (*value)?)));
    for (index, (name, value)) in given.enumerate() {
        uri.push(if index == 0 { '?' } else { '&' });
        uri.push_str(name);
        uri.push('=');
        encode(&mut uri, value);
    }
    uri
}

fn encode(uri: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => uri.push(char::from(byte)),
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_one_segment_of_a_path() {
        assert_eq!(item("/tcp-listeners", "127.0.0.1:6001"), "/tcp-listeners/127.0.0.1:6001");
        assert_eq!(item("/tcp-listeners", "[::1]:6001"), "/tcp-listeners/%5B::1%5D:6001");
        assert_eq!(item("/x", "a/../b?c#d e\u{e9}"), "/x/a%2F..%2Fb%3Fc%23d%20e%C3%A9");
    }

    #[test]
    fn a_query_has_what_is_given() {
        assert_eq!(query("/x", &[("a", None), ("b", None)]), "/x");
        assert_eq!(query("/x", &[("a", None), ("b", Some("1&c=2+3"))]), "/x?b=1%26c%3D2%2B3");
        assert_eq!(query("/x", &[("a", Some("")), ("b", Some("y"))]), "/x?a=&b=y");
    }
}
