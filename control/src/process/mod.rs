//! The processes of a node: how they are started, stopped and removed, and what the control process does first.

pub mod control_process;
pub mod spawn;
pub mod stop;
pub(crate) mod systemd;
pub mod undumpable;

use crate::api::NodeInfo;
use crate::authority::AuthoritySettings;
use crate::error::Error;
use ockam_engine_abi::TransitRule;
use serde::{Deserialize, Serialize};

/// What a control process is told on its standard input, as one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlStart {
    /// Create the node, or start a stopped one with what is given here replaced. Absent: start it as it is stored.
    pub create: Option<NodeOptions>,
    /// How the log is written.
    pub log: LogOptions,
}

/// What `node create` was told. What is absent is as stored, and for a new node as said here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeOptions {
    /// `ip:port` or `name:port` of the node's own listener; 127.0.0.1:0.
    pub tcp_listener_address: Option<String>,
    /// `auto`, `uring` or `epoll`; `auto`.
    pub driver: Option<String>,
    /// Threads of the engine, 1 to 255; as many as it may use, at most 4.
    pub threads: Option<u8>,
    /// Pin threads to cores; no.
    pub pin: Option<bool>,
    /// Bytes that may wait, over all portals, for applications that stop taking; 256 MiB.
    #[serde(default)]
    pub portal_memory: Option<u64>,
    /// The identity that it has in secure channels, by name, made if there is none of this name; the default one.
    pub identity: Option<String>,
    /// Transit rules as typed ([`crate::transit`]), all of them; none.
    pub allow_transit: Option<Vec<String>>,
    /// What makes it an authority; an ordinary node.
    #[serde(default)]
    pub authority: Option<AuthoritySettings>,
    /// Whose credentials it believes; nobody's.
    #[serde(default)]
    pub trust: Option<TrustOptions>,
}

/// Whose credentials a node believes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustOptions {
    /// The authority's change history in hexadecimal digits.
    pub history: String,
    /// The route to its node, a MultiAddr that ends with the listener for secure channels: `/secure/api`.
    pub route: String,
    /// What its credentials are filed under: the project's id.
    pub scope: String,
}

/// How a log is written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogOptions {
    /// Lines of JSON instead of text.
    pub json: bool,
    /// 0: info, 1: debug, 2 and above: trace. `RUST_LOG` prevails.
    pub verbosity: u8,
}

/// The one line that a control process writes to its standard output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Readiness {
    /// It serves.
    Ready(Box<NodeInfo>),
    /// It ends.
    Error(crate::api::ErrorReport),
}

impl NodeOptions {
    /// Reads the transit rules and checks the rest.
    ///
    /// # Errors
    /// [`Error::BadArgument`].
    pub(crate) fn check(&self) -> Result<Option<Vec<TransitRule>>, Error> {
        if let Some(driver) = &self.driver
            && !["auto", "uring", "epoll"].contains(&driver.as_str())
        {
            return Err(Error::BadArgument {
                argument: "--driver".into(),
                value: driver.clone(),
                why: "is not a driver".into(),
                fix: "Use auto, uring or epoll.".into(),
            });
        }
        if self.threads == Some(0) {
            return Err(Error::BadArgument {
                argument: "--threads".into(),
                value: "0".into(),
                why: "is not a number of threads".into(),
                fix: "Use 1 or more, or leave it out.".into(),
            });
        }
        if self.portal_memory.is_some_and(|bytes| i64::try_from(bytes).is_err()) {
            return Err(Error::BadArgument {
                argument: "--portal-memory".into(),
                value: self.portal_memory.unwrap_or_default().to_string(),
                why: "is more than there can be".into(),
                fix: "Use a number of bytes, such as 256M.".into(),
            });
        }
        if let Some(authority) = &self.authority {
            authority.check()?;
        }
        if let Some(trust) = &self.trust {
            crate::trust::check(trust)?;
        }
        let Some(rules) = &self.allow_transit else { return Ok(None) };
        if rules.len() > crate::store::node::TRANSIT_RULES_MAX {
            return Err(Error::BadArgument {
                argument: "--allow-transit".into(),
                value: format!("{} rules", rules.len()),
                why: "are more than a node can have".into(),
                fix: format!("Use at most {}.", crate::store::node::TRANSIT_RULES_MAX),
            });
        }
        rules.iter().map(|rule| crate::transit::parse(rule)).collect::<Result<Vec<_>, _>>().map(Some)
    }
}
