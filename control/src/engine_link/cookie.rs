//! Cookies: what control notes beside an entry of the engine, for the control that comes after it.
//!
//! A cookie is 32 bytes of HMAC-SHA256 with a key of the node, then JSON. The engine gives it back in a dump; one whose
//! code is wrong is as good as none, and its entry is treated like one that nobody asked for.

use hmac::{Hmac, KeyInit, Mac};
use ockam_engine_abi::COOKIE_BYTES_MAX;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

const CODE_BYTES: usize = 32;

/// What an entry of the engine is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "for", rename_all = "snake_case", deny_unknown_fields)]
pub enum Cookie {
    /// A listener, and the links that it accepts.
    Listener {
        /// Its flow control.
        flow_control: String,
    },
    /// A service of the node.
    Service,
    /// The address to which the reply of a message comes. It ends with the control that made it.
    Reply,
    /// A link made by `tcp-connection create`.
    Connection,
    /// A link made for one message. It ends with the control that made it.
    Message,
    /// A listener for secure channels.
    ChannelListener {
        /// Its flow control.
        flow_control: String,
    },
    /// The receiving side of a channel that is being made. It ends with the control that makes it.
    Handshake,
    /// A link made for a secure channel.
    ChannelLink {
        /// The address of the channel.
        channel: String,
    },
    /// A link at the beginning of a way without secure channels that shall be open (`sessions/`).
    SessionLink {
        /// The name of the session.
        session: String,
    },
    /// An outlet.
    Outlet {
        /// Its number, which no other outlet of the node has had.
        number: u32,
    },
    /// An inlet.
    Inlet {
        /// The name of the session that keeps its way open.
        session: String,
    },
    /// A service where relays are registered.
    RelayService,
    /// A service of an authority.
    AuthorityService,
    /// A relay that was registered here.
    Relay {
        /// Its name.
        name: String,
        /// Whose it is, when it came through a secure channel.
        peer: Option<String>,
        /// What its way begins with; nothing when it leads to this node.
        source: String,
        /// When it was registered, in Unix time.
        since: u64,
    },
    /// Where a relay at another node may send what comes for this one. It says that the relay is registered.
    RelayEnd {
        /// The name of the session that keeps the way there open.
        session: String,
        /// The address of the relay there.
        address: String,
    },
    /// A secure channel.
    Channel {
        /// Who is at its other end.
        peer: String,
        /// Who this end said it is.
        own: String,
        /// The last second for which both vouch for their keys, in Unix time.
        expires_at: u64,
        /// What it is for.
        purpose: Purpose,
    },
}

/// What a secure channel is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Purpose {
    /// A peer opened it at the listener with this flow control.
    Listener(String),
    /// It shall be: its address is the name of its session (`sessions/`).
    Desired,
    /// That of the session with this name goes through it.
    Way(String),
    /// A message goes through it. It ends with the control that made it.
    Message,
}

/// The key that authenticates the cookies of a node.
#[derive(Clone)]
pub struct CookieKey([u8; 32]);

impl CookieKey {
    /// The key kept in `node.db`.
    pub fn new(key: [u8; 32]) -> CookieKey {
        CookieKey(key)
    }

    /// As given to the engine.
    pub fn seal(&self, cookie: &Cookie) -> Vec<u8> {
        let body = serde_json::to_vec(cookie).expect("a cookie has string keys only");
        let mut sealed = self.code(&body).finalize().into_bytes().to_vec();
        sealed.extend_from_slice(&body);
        assert!(sealed.len() <= COOKIE_BYTES_MAX, "a cookie of {} bytes", sealed.len());
        sealed
    }

    /// As the engine gave it back; `None` when this node did not make it.
    pub fn open(&self, sealed: &[u8]) -> Option<Cookie> {
        let (code, body) = sealed.split_at_checked(CODE_BYTES)?;
        self.code(body).verify_slice(code).ok()?;
        serde_json::from_slice(body).ok()
    }

    fn code(&self, body: &[u8]) -> Hmac<Sha256> {
        let mut code = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        code.update(body);
        code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_come_back_and_changed_ones_do_not() {
        let key = CookieKey::new([1; 32]);
        let all = [
            Cookie::Listener { flow_control: "0".repeat(32) },
            Cookie::Service,
            Cookie::Reply,
            Cookie::Connection,
            Cookie::Message,
            Cookie::ChannelListener { flow_control: "0".repeat(32) },
            Cookie::Handshake,
            Cookie::ChannelLink { channel: "0".repeat(32) },
            Cookie::SessionLink { session: "0".repeat(32) },
            Cookie::Outlet { number: u32::MAX },
            Cookie::Inlet { session: "0".repeat(32) },
            Cookie::RelayService,
            Cookie::Relay {
                name: "\u{e9}".repeat(64),
                peer: Some(format!("I{}", "0".repeat(64))),
                source: "0".repeat(32),
                since: u64::MAX,
            },
            Cookie::RelayEnd { session: "0".repeat(32), address: "x".repeat(160) },
            Cookie::Channel {
                peer: format!("I{}", "0".repeat(64)),
                own: format!("I{}", "f".repeat(64)),
                expires_at: u64::MAX,
                purpose: Purpose::Listener("0".repeat(32)),
            },
        ];
        for cookie in all {
            let sealed = key.seal(&cookie);
            assert_eq!(key.open(&sealed), Some(cookie));
            for at in 0..sealed.len() {
                let mut changed = sealed.clone();
                changed[at] ^= 1;
                assert_eq!(key.open(&changed), None);
                assert_eq!(key.open(&sealed[..at]), None);
            }
            assert_eq!(CookieKey::new([2; 32]).open(&sealed), None);
        }
    }
}
