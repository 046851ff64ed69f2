//! What the control process of a node says over `nodes/NAME/control.sock`: HTTP/1.1, JSON bodies.
//!
//! `curl --unix-socket ~/.ockam/nodes/n1/control.sock http://node/node` works. Every answer that is not 2xx carries an
//! [`ErrorBody`]. Requests are at most [`BODY_BYTES_MAX`] long, except for [`path::MESSAGES`]
//! ([`MESSAGE_BODY_BYTES_MAX`]). A request with an unknown field is refused.
//!
//! | method and path | body | answer |
//! |---|---|---|
//! | `GET /node` | | [`NodeInfo`] |
//! | `GET /health` | | [`HealthInfo`] |
//! | `POST /node/stop` | | [`Stopped`]; the process exits after it |
//! | `GET /tcp-listeners` | | array of [`TcpListenerInfo`] |
//! | `POST /tcp-listeners` | [`CreateTcpListener`] | [`TcpListenerInfo`] |
//! | `GET /tcp-listeners/{id}` | | [`TcpListenerInfo`] |
//! | `DELETE /tcp-listeners/{id}` | | [`TcpListenerInfo`] as it was |
//! | `GET /tcp-connections` | | array of [`TcpConnectionInfo`] |
//! | `POST /tcp-connections` | [`CreateTcpConnection`] | [`TcpConnectionInfo`] |
//! | `GET /tcp-connections/{id}` | | [`TcpConnectionInfo`] |
//! | `DELETE /tcp-connections/{id}` | | [`TcpConnectionInfo`] as it was |
//! | `GET /services` | | array of [`ServiceInfo`] |
//! | `POST /services` | [`StartService`] | [`ServiceInfo`] |
//! | `GET /workers` | | array of [`WorkerInfo`] |
//! | `GET /flow-controls` | | array of [`FlowControlInfo`] |
//! | `POST /flow-controls/consumers` | [`AddConsumer`] | [`AddConsumer`], as now in force |
//! | `GET /secure-channels` | | array of [`SecureChannelInfo`] |
//! | `POST /secure-channels` | [`CreateSecureChannel`] | [`SecureChannelInfo`] |
//! | `GET /secure-channels/{address}` | | [`SecureChannelInfo`] |
//! | `DELETE /secure-channels/{address}` | | [`SecureChannelInfo`] as it was |
//! | `GET /secure-channel-listeners` | | array of [`SecureChannelListenerInfo`] |
//! | `POST /secure-channel-listeners` | [`CreateSecureChannelListener`] | [`SecureChannelListenerInfo`] |
//! | `GET /secure-channel-listeners/{address}` | | [`SecureChannelListenerInfo`] |
//! | `DELETE /secure-channel-listeners/{address}` | | [`SecureChannelListenerInfo`] as it was |
//! | `GET /tcp-outlets` | | array of [`TcpOutletInfo`] |
//! | `POST /tcp-outlets` | [`CreateTcpOutlet`] | [`TcpOutletInfo`] |
//! | `GET /tcp-outlets/{address}` | | [`TcpOutletInfo`] |
//! | `DELETE /tcp-outlets/{address}` | | [`TcpOutletInfo`] as it was |
//! | `GET /tcp-inlets` | | array of [`TcpInletInfo`] |
//! | `POST /tcp-inlets` | [`CreateTcpInlet`] | [`TcpInletInfo`] |
//! | `GET /tcp-inlets/{alias}` | | [`TcpInletInfo`] |
//! | `DELETE /tcp-inlets/{alias}` | | [`TcpInletInfo`] as it was |
//! | `GET /relays` | | array of [`RelayInfo`] |
//! | `POST /relays` | [`CreateRelay`] | [`RelayInfo`] |
//! | `GET /relays/{name}` | | [`RelayInfo`] |
//! | `DELETE /relays/{name}` | | [`RelayInfo`] as it was |
//! | `GET /relay-services` | | array of [`RelayServiceInfo`]: what others registered here |
//! | `GET /policies[?resource=..][&resource_type=..]` | | array of [`PolicyInfo`]: the user's and those built in |
//! | `POST /policies` | [`CreatePolicy`] | [`PolicyInfo`], as now in force |
//! | `DELETE /policies?resource=..&resource_type=..` | | [`PolicyInfo`] as it was |
//! | `POST /policies/check` | [`CheckPolicy`] | [`PolicyDecision`] |
//! | `GET /credentials` | | array of [`CredentialInfo`]: the node's and those that peers showed |
//! | `POST /credentials` | [`StoreCredential`] | [`CredentialInfo`] |
//! | `DELETE /credentials?scope=..&subject=..` | | array of [`CredentialInfo`]: what was forgotten |
//! | `GET /authority` | | [`AuthorityInfo`]; 404 when the node has none |
//! | `POST /messages` | [`SendMessage`] | [`MessageReply`] |
//! | `GET /engine` | | [`EngineInfo`] |
//! | `GET /engine/stats` | | [`EngineStats`] |
//! | `POST /engine/restart` | | [`EngineInfo`] of the new engine |
//!
//! An `{id}` or `{address}` with characters that a path segment may not have is percent-encoded.

use ockam_engine_abi::Target;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Longest request body in bytes, [`path::MESSAGES`] excepted.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Longest body of a [`SendMessage`] in bytes: the largest frame (16 MiB) as hex digits, and its route.
pub const MESSAGE_BODY_BYTES_MAX: usize = 33 * 1024 * 1024;

/// The paths of the API.
pub mod path {
    /// [`super::NodeInfo`].
    pub const NODE: &str = "/node";
    /// [`super::HealthInfo`].
    pub const HEALTH: &str = "/health";
    /// Ends the node.
    pub const NODE_STOP: &str = "/node/stop";
    /// Listeners; `/{id}` below it.
    pub const TCP_LISTENERS: &str = "/tcp-listeners";
    /// Connections; `/{id}` below it.
    pub const TCP_CONNECTIONS: &str = "/tcp-connections";
    /// Services.
    pub const SERVICES: &str = "/services";
    /// Everything that has an address.
    pub const WORKERS: &str = "/workers";
    /// Classes of links.
    pub const FLOW_CONTROLS: &str = "/flow-controls";
    /// Who may reach what.
    pub const CONSUMERS: &str = "/flow-controls/consumers";
    /// Secure channels; `/{address}` below it.
    pub const SECURE_CHANNELS: &str = "/secure-channels";
    /// Where peers open secure channels; `/{address}` below it.
    pub const SECURE_CHANNEL_LISTENERS: &str = "/secure-channel-listeners";
    /// Where portals end; `/{address}` below it.
    pub const TCP_OUTLETS: &str = "/tcp-outlets";
    /// Where portals begin; `/{alias}` below it.
    pub const TCP_INLETS: &str = "/tcp-inlets";
    /// Relays by which this node is reached; `/{name}` below it.
    pub const RELAYS: &str = "/relays";
    /// Relays that others have registered here.
    pub const RELAY_SERVICES: &str = "/relay-services";
    /// Who may pass where.
    pub const POLICIES: &str = "/policies";
    /// Who would pass, and why.
    pub const POLICIES_CHECK: &str = "/policies/check";
    /// What was attested of this node and of its peers.
    pub const CREDENTIALS: &str = "/credentials";
    /// Whose credentials the node believes.
    pub const AUTHORITY: &str = "/authority";
    /// Send a message, wait for the reply.
    pub const MESSAGES: &str = "/messages";
    /// The engine.
    pub const ENGINE: &str = "/engine";
    /// Its counters.
    pub const ENGINE_STATS: &str = "/engine/stats";
    /// Replace it by a new process.
    pub const ENGINE_RESTART: &str = "/engine/restart";
}

/// Whether a node's processes live, by the locks they hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeStatus {
    /// Control and engine run.
    Running,
    /// The engine runs without a control: frames flow, nothing can be changed until a control is started.
    Headless,
    /// Neither runs.
    Stopped,
}

impl NodeStatus {
    /// The name that people and JSON see.
    pub fn name(self) -> &'static str {
        match self {
            NodeStatus::Running => "running",
            NodeStatus::Headless => "headless",
            NodeStatus::Stopped => "stopped",
        }
    }
}

/// A node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its name.
    pub name: String,
    /// Whether it lives; an answer of the API always says `running`.
    pub status: NodeStatus,
    /// Process id of control.
    pub pid: u32,
    /// Version of the binary that control runs.
    pub version: String,
    /// Seconds since control started.
    pub uptime_s: u64,
    /// The engine.
    pub engine: EngineBrief,
    /// In the order of their creation; the first one is the node's own.
    pub tcp_listeners: Vec<TcpListenerInfo>,
    /// Links that this node opened and links that peers opened.
    pub tcp_connections: Vec<TcpConnectionInfo>,
    /// Built-in services.
    pub services: Vec<ServiceInfo>,
    /// The identifier of the node's identity; absent before it is needed for the first time.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub identifier: Option<String>,
    /// Where peers open secure channels.
    pub secure_channel_listeners: Vec<SecureChannelListenerInfo>,
    /// Secure channels made by `secure-channel create`.
    pub secure_channels: Vec<SecureChannelInfo>,
    /// How many secure channels peers have open here.
    pub secure_channels_accepted: u64,
    /// Where portals end.
    #[serde(default)]
    pub outlets: Vec<TcpOutletInfo>,
    /// Where portals begin.
    #[serde(default)]
    pub inlets: Vec<TcpInletInfo>,
    /// Relays by which this node is reached.
    #[serde(default)]
    pub relays: Vec<RelayInfo>,
    /// Transit rules beside the default, as `FROM=TO[:PORT]`.
    pub transit_rules: Vec<String>,
    /// Whose credentials it believes; absent when nobody's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub authority: Option<AuthorityInfo>,
    /// Log of control.
    pub control_log: String,
    /// Log of the engine.
    pub engine_log: String,
}

/// What a probe wants to know of a node, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Control and engine answer, and every listener, inlet and relay is up.
    Ready,
    /// Control and engine answer, and something is down or not there yet. That is being repaired; a restart would not help.
    Degraded,
    /// Control or the engine is there and does not answer.
    Silent,
    /// The engine runs without a control.
    Headless,
    /// Neither runs.
    Stopped,
}

impl HealthStatus {
    /// The name that people and JSON see.
    pub fn name(self) -> &'static str {
        match self {
            HealthStatus::Ready => "ready",
            HealthStatus::Degraded => "degraded",
            HealthStatus::Silent => "silent",
            HealthStatus::Headless => "headless",
            HealthStatus::Stopped => "stopped",
        }
    }

    /// Whether control and engine answer.
    pub fn is_live(self) -> bool {
        matches!(self, HealthStatus::Ready | HealthStatus::Degraded)
    }
}

/// Whether a node does what it shall.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HealthInfo {
    /// Its name.
    pub node: String,
    /// The sum of the rest.
    pub status: HealthStatus,
    /// Whether control answers; an answer of the API always says true.
    pub control: bool,
    /// The engine; absent when nobody could be asked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub engine: Option<EngineHealth>,
    /// Where it accepts links.
    pub listeners: Vec<TcpListenerInfo>,
    /// Its inlets.
    pub inlets: Vec<TcpInletInfo>,
    /// Its outlets. That a target does not answer is said there and counts for nothing here: it is another program.
    pub outlets: Vec<TcpOutletInfo>,
    /// Relays by which it is reached.
    pub relays: Vec<RelayInfo>,
    /// Whose credentials it believes; absent when nobody's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub authority: Option<AuthorityInfo>,
    /// What is wrong, as sentences without a full stop; empty when it is ready.
    pub problems: Vec<String>,
}

/// The engine in [`HealthInfo`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EngineHealth {
    /// Whether every core answered in time.
    pub answers: bool,
    /// What [`NodeInfo`] says, too.
    #[serde(flatten)]
    pub brief: EngineBrief,
}

/// The answer to `POST /node/stop`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// The node.
    pub name: String,
    /// Whether the engine had to be killed because it did not drain in time.
    pub engine_killed: bool,
}

/// A TCP listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpListenerInfo {
    /// The bound address, `ip:port`.
    pub address: String,
    /// The flow control of links that it accepts, 32 hexadecimal digits.
    pub flow_control_id: String,
    /// False while the address cannot be bound again; control goes on trying.
    pub up: bool,
    /// Why it is not up.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

/// Makes a listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateTcpListener {
    /// `ip:port` or `name:port`; port 0 takes a free one and keeps it.
    pub address: String,
}

/// How a connection came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConnectionOrigin {
    /// A peer opened it.
    Accepted,
    /// `tcp-connection create`, or a message that is under way.
    Dialed,
    /// A route asked for it.
    Transit,
}

/// A TCP connection to another node (a link).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpConnectionInfo {
    /// The name of this node.
    pub from: String,
    /// The peer, `ip:port`.
    pub to: String,
    /// Where to send what shall go over it: `/worker/<32 hexadecimal digits>`.
    pub address: String,
    /// This side, `ip:port`.
    pub local: String,
    /// How it came to be.
    pub origin: ConnectionOrigin,
    /// The flow control that it belongs to.
    pub flow_control_id: String,
    /// The engine's name for it, `core.index.generation`.
    pub link: String,
    /// Frames received.
    pub frames_in: u64,
    /// Frames queued for sending.
    pub frames_out: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Bytes that wait to be sent.
    pub queued_bytes: u64,
}

/// Opens a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateTcpConnection {
    /// `ip:port` or `name:port`.
    pub to: String,
}

/// A built-in service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// Answers with the payload it got.
    Echo,
    /// Answers with the text it got in upper case.
    Uppercase,
    /// Forwards to the next address of the route.
    Hop,
}

impl Service {
    /// All of them.
    pub const ALL: [Service; 3] = [Service::Echo, Service::Uppercase, Service::Hop];

    /// The name, which is also the default address.
    pub fn name(self) -> &'static str {
        self.target().name()
    }

    /// What the engine puts at the address.
    pub fn target(self) -> Target {
        match self {
            Service::Echo => Target::Echo,
            Service::Uppercase => Target::Uppercase,
            Service::Hop => Target::Hop,
        }
    }

    /// The service of this name.
    pub fn from_name(name: &str) -> Option<Service> {
        Service::ALL.into_iter().find(|service| service.name() == name)
    }
}

/// A service that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceInfo {
    /// Which.
    #[serde(rename = "type")]
    pub service: Service,
    /// Its address, without `/service/`.
    #[serde(rename = "addr")]
    pub address: String,
}

/// Starts a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartService {
    /// Which.
    pub service: Service,
    /// Its address; the name of the service when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// Something that has a local address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// The address; bytes that are not printable text are shown as `\xNN`.
    pub address: String,
    /// `echo`, `uppercase`, `hop`, `control`, `handshake`, `outlet`, `relay`, `link` or `channel`.
    pub kind: String,
    /// Flow controls whose links may reach it.
    pub reachable_from: Vec<String>,
}

/// A class of links (`wire.md` A.7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowControlInfo {
    /// 32 hexadecimal digits.
    pub flow_control_id: String,
    /// `dialed`, `secure channels` for those that this node opens, or the address of the listener.
    pub producer: String,
    /// Addresses that its links may reach, by default or by `flow-control add-consumer`.
    pub consumers: Vec<String>,
}

/// Lets the links of a flow control reach an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddConsumer {
    /// 32 hexadecimal digits.
    pub flow_control_id: String,
    /// A local address, without `/service/`; nothing needs to be there yet.
    pub address: String,
}

/// Which end of a secure channel this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelRole {
    /// This node opened it.
    Initiator,
    /// A peer opened it.
    Responder,
}

/// How a secure channel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelStatus {
    /// Messages go through.
    Open,
    /// It ended, and is being opened again.
    Opening,
    /// It ended, and is not opened again.
    Stopped,
}

/// A secure channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecureChannelInfo {
    /// Where to send what shall go through it: 32 hexadecimal digits, without `/service/`. It stays the same when the
    /// channel is opened again.
    pub address: String,
    /// Which end this node is.
    pub role: ChannelRole,
    /// Whether it is up.
    pub status: ChannelStatus,
    /// The route that it was made with; only for the initiator.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub route: Option<String>,
    /// The address of the listener where the peer opened it; only for the responder.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub listener: Option<String>,
    /// The peer's identifier, authenticated.
    pub identifier: String,
    /// The identifier that this node showed.
    pub my_identifier: String,
    /// Identifiers of which the peer must have one; anyone's when empty. Only for the initiator.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub authorized: Vec<String>,
    /// The flow control of what comes out of it, 32 hexadecimal digits.
    pub flow_control_id: String,
    /// When it ends for want of a valid key, in seconds of Unix time; 0 while it is not open.
    pub expires_at: u64,
    /// How often it was opened again by this control.
    pub reopened: u64,
    /// Why it is not open.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// Messages sealed since it was opened.
    pub sealed: u64,
    /// Messages opened since it was opened.
    pub opened: u64,
    /// Records dropped since it was opened: not genuine, not new, too far away.
    pub refused: u64,
}

/// Opens a secure channel that is opened again whenever it ends, until it is deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateSecureChannel {
    /// A MultiAddr in which names are resolved, as in [`SendMessage::route`]. Its last part is the peer's listener:
    /// `/service/api`.
    pub route: String,
    /// Identifiers of which the peer must have one; anyone's when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorized: Vec<String>,
    /// The same for each `/secure` part of the route, in order. Anyone's when empty or missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorized_on_the_way: Vec<Vec<String>>,
    /// The name of the identity to show; the node's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// How long everything together may take, in milliseconds; at most [`TIMEOUT_MS_MAX`].
    pub timeout_ms: u64,
}

/// Where peers open secure channels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecureChannelListenerInfo {
    /// Its address, without `/service/`.
    pub address: String,
    /// The flow control of what comes out of its channels, 32 hexadecimal digits.
    pub flow_control_id: String,
    /// The identifier that it shows; absent when it is the node's and that is not needed yet.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub identifier: Option<String>,
    /// Identifiers of which a peer must have one; anyone's when empty.
    pub authorized: Vec<String>,
    /// Channels open now.
    pub channels: u64,
    /// Handshakes that are under way.
    pub half_open: u64,
    /// Handshakes that became channels since this control started.
    pub accepted: u64,
    /// Handshakes given up for others, because there were too many, since this control started.
    pub shed: u64,
    /// Handshakes refused since this control started, by reason.
    pub refused: BTreeMap<String, u64>,
}

/// Makes a listener for secure channels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateSecureChannelListener {
    /// Its address, without `/service/`.
    pub address: String,
    /// Identifiers of which a peer must have one; anyone's when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorized: Vec<String>,
    /// The name of the identity to show; the node's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
}

/// A portal's outlet: where connections leave for their target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpOutletInfo {
    /// Its address, without `/service/`.
    pub address: String,
    /// The target as given: `HOST:PORT` or `unix:/path`.
    pub to: String,
    /// Whether connections to the target are made with TLS.
    pub tls: bool,
    /// Whether peers that are neither on loopback nor behind a secure channel may use it.
    pub allow_plain: bool,
    /// What the target stands for now, in the order in which it is tried; empty while its name does not resolve.
    pub targets: Vec<String>,
    /// Why connections fail, as far as it is known: the name does not resolve, the target did not answer last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

/// Makes an outlet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateTcpOutlet {
    /// The target: `HOST:PORT` or `unix:/path`. A name is resolved now and again whenever that may have changed.
    pub to: String,
    /// Its address, without `/service/`; `outlet` for the first one when absent, a random one for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Connect with TLS; the target's certificate must be valid for its host.
    #[serde(default)]
    pub tls: bool,
    /// Let peers use it that are neither on loopback nor behind a secure channel.
    #[serde(default)]
    pub allow_plain: bool,
}

/// Whether a way that shall be is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WayStatus {
    /// The far end answers.
    Up,
    /// It does not; it is tried again unless the error says otherwise.
    Down,
}

impl WayStatus {
    /// The name that people and JSON see.
    pub fn name(self) -> &'static str {
        match self {
            WayStatus::Up => "up",
            WayStatus::Down => "down",
        }
    }
}

/// A portal's inlet: where applications connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpInletInfo {
    /// Its name.
    pub alias: String,
    /// Where it listens: `IP:PORT` or `unix:/path`.
    pub from: String,
    /// The route to the outlet.
    pub to: String,
    /// Whether the node of the outlet answers.
    pub status: WayStatus,
    /// Why it is down.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// Who is at the end of the last secure channel on the way, authenticated; absent without one or before it was met.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub identifier: Option<String>,
    /// Identifiers of which the peer must have one; anyone's when empty.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub authorized: Vec<String>,
    /// How long a new connection waits while the way is down, in milliseconds.
    pub connection_wait_ms: u64,
    /// Connections that it has now.
    pub connections: u64,
    /// How often the way was repaired by this control.
    pub repaired: u64,
}

/// Makes an inlet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateTcpInlet {
    /// Where to listen: `IP:PORT`, `name:PORT` or `unix:/path`. Port 0 takes a free one and keeps it.
    pub from: String,
    /// The route to the outlet: a MultiAddr in which names are resolved, as in [`SendMessage::route`]. Its last part is the
    /// outlet: `/service/outlet`.
    pub to: String,
    /// Its name; a random one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// Identifiers of which the peer at the last `/secure` part must have one; anyone's when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorized: Vec<String>,
    /// The same for each `/secure` part before the last one, in order. Anyone's when empty or missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorized_on_the_way: Vec<Vec<String>>,
    /// The name of the identity to show; the node's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// How long a new connection waits while the way is down, in milliseconds; at most [`TIMEOUT_MS_MAX`].
    #[serde(default = "connection_wait_ms")]
    pub connection_wait_ms: u64,
    /// Longest pause between two tries to open the way, in milliseconds. 0: an inlet whose way cannot be opened at once is
    /// not made.
    #[serde(default = "retry_wait_ms")]
    pub retry_wait_ms: u64,
    /// Wait until the way is open. If that takes longer than `timeout_ms`, the answer says so and the inlet stays.
    #[serde(default)]
    pub wait: bool,
    /// How long to wait, in milliseconds; at most [`TIMEOUT_MS_MAX`].
    pub timeout_ms: u64,
}

/// What [`CreateTcpInlet::connection_wait_ms`] is when absent.
pub fn connection_wait_ms() -> u64 {
    5_000
}

/// What [`CreateTcpInlet::retry_wait_ms`] is when absent.
pub fn retry_wait_ms() -> u64 {
    20_000
}

/// What a policy can be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResourceType {
    /// Inlets, by alias: whose outlets are connected to.
    TcpInlet,
    /// Outlets, by address.
    TcpOutlet,
    /// The service that makes relays for others, `forwarding_service`.
    Relay,
    /// Echo services, by address.
    Echoer,
    /// TCP addresses that peers have dialed, by `NETWORK[:PORT]`. A policy for one is the rule that opens it, for whom it permits.
    Transit,
    /// Other services, by address.
    Service,
}

impl ResourceType {
    /// All of them.
    pub const ALL: [ResourceType; 6] = [
        ResourceType::TcpInlet,
        ResourceType::TcpOutlet,
        ResourceType::Relay,
        ResourceType::Echoer,
        ResourceType::Transit,
        ResourceType::Service,
    ];

    /// The name that people and JSON see.
    pub fn name(self) -> &'static str {
        match self {
            ResourceType::TcpInlet => "tcp-inlet",
            ResourceType::TcpOutlet => "tcp-outlet",
            ResourceType::Relay => "relay",
            ResourceType::Echoer => "echoer",
            ResourceType::Transit => "transit",
            ResourceType::Service => "service",
        }
    }

    /// The type of this name.
    pub fn from_name(name: &str) -> Option<ResourceType> {
        ResourceType::ALL.into_iter().find(|it| it.name() == name)
    }
}

/// Where a policy comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicySource {
    /// Somebody made it.
    User,
    /// It holds where nobody made one, because the node has an authority.
    BuiltIn,
}

impl PolicySource {
    /// The name that people and JSON see.
    pub fn name(self) -> &'static str {
        match self {
            PolicySource::User => "user",
            PolicySource::BuiltIn => "built-in",
        }
    }
}

/// Who may pass where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyInfo {
    /// The type of the resources that it is for; any that has the name when absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub resource_type: Option<ResourceType>,
    /// The name of the resource that it is for; all of the type when absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub resource: Option<String>,
    /// What it permits: always `handle_message`.
    pub action: String,
    /// Whom.
    pub expression: String,
    /// Where it comes from.
    pub source: PolicySource,
}

/// Makes a policy, or replaces the one for the same resources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreatePolicy {
    /// The type of the resources that it is for. Needed where there is no name, and for one transit target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_type: Option<ResourceType>,
    /// The name of the resource that it is for, which need not be there yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Whom it permits, in either form (`wire.md` H.4).
    pub expression: String,
}

/// Asks who would pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckPolicy {
    /// The name of the resource.
    pub resource: String,
    /// Its type; that of the resource that has the name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_type: Option<ResourceType>,
    /// Who comes, by identifier, with the attributes that the node knows of it. Somebody without an identity when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The attributes of a credential that it is supposed to have, instead of those that the node knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<BTreeMap<String, String>>,
}

/// Whether somebody would pass, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyDecision {
    /// Whether.
    pub allowed: bool,
    /// What decides; nothing where everybody passes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub policy: Option<PolicyInfo>,
    /// Why, as lines.
    pub why: Vec<String>,
    /// What the policy knows of who comes.
    pub attributes: BTreeMap<String, String>,
    /// How many secure channels are granted the resource now.
    pub channels: u64,
}

/// What an authority attests of somebody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialInfo {
    /// Of whom, an identifier.
    pub subject: String,
    /// Who says so, an identifier.
    pub issuer: String,
    /// What it is filed under.
    pub scope: String,
    /// What; bytes that are not printable text are shown as `\xNN`.
    pub attributes: BTreeMap<String, String>,
    /// Since when, in seconds of Unix time.
    pub created_at: u64,
    /// Its last second.
    pub expires_at: u64,
    /// Whether it is one that this node shows, and not one that a peer showed.
    pub own: bool,
    /// Whether the authority has revoked it.
    pub revoked: bool,
}

/// Stores a credential of one of this home's identities at the node, which shows it from then on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreCredential {
    /// The issuer's change history in hexadecimal digits; the node's authority when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// What to file it under.
    pub scope: String,
    /// The credential with the attestation of the key that signed it, in hexadecimal digits.
    pub credential: String,
}

/// Whose credentials a node believes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityInfo {
    /// Its identifier.
    pub identifier: String,
    /// The route to its node.
    pub route: String,
    /// What its credentials are filed under.
    pub scope: String,
    /// Whether its node answers.
    pub reachable: bool,
    /// The list of those whose credentials it has revoked, if it has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub revocations: Option<RevocationsInfo>,
    /// The last second of the credential that the node shows, in Unix time; absent while it has none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub credential_expires_at: Option<u64>,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

/// What a node knows of an authority's revocations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationsInfo {
    /// Which list it is; 0 as long as there is none.
    pub number: u64,
    /// Whose credentials it revokes: how many.
    pub revoked: u64,
    /// When the authority last said that there is no later one, in seconds of Unix time.
    pub checked_at: u64,
}

/// A relay by which this node is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayInfo {
    /// Its name.
    pub name: String,
    /// The address at the relay's node, without `/service/`: `forward_to_NAME`.
    pub address: String,
    /// The route to the relay's node; empty for this node.
    pub at: String,
    /// Whether it is registered and the relay's node answers.
    pub status: WayStatus,
    /// Why it is down.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// Who is at the end of the last secure channel on the way, authenticated; absent without one or before it was met.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub identifier: Option<String>,
}

/// Registers a relay at another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateRelay {
    /// Its name.
    pub name: String,
    /// The route to the relay's node: a MultiAddr in which names are resolved, which ends at a node: a TCP address or
    /// `/secure/NAME`. Empty for this node.
    pub at: String,
    /// The name to ask for at the relay's node, when another than `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay_address: Option<String>,
    /// Identifiers of which the peer at the last `/secure` part must have one; anyone's when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorized: Vec<String>,
    /// The same for each `/secure` part before the last one, in order. Anyone's when empty or missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorized_on_the_way: Vec<Vec<String>>,
    /// The name of the identity to show; the node's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Wait until it is registered. If that takes longer than `timeout_ms`, the answer says so and the relay stays.
    #[serde(default)]
    pub wait: bool,
    /// How long to wait, in milliseconds; at most [`TIMEOUT_MS_MAX`].
    pub timeout_ms: u64,
}

/// A relay that another node has registered here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayServiceInfo {
    /// The name that was asked for.
    pub name: String,
    /// Its address, without `/service/`.
    pub address: String,
    /// When it was registered, in seconds of Unix time.
    pub since: u64,
    /// Who registered it, when that came through a secure channel.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub identifier: Option<String>,
}

/// The body of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum MessageBody {
    /// Sent as a string of the wire (`wire.md` 0.2: length, then UTF-8).
    Text(String),
    /// Hexadecimal digits, sent as the bytes they stand for.
    Hex(String),
}

/// Sends a message and waits for its reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendMessage {
    /// A MultiAddr in which names are resolved: `/ip4`, `/ip6`, `/dnsaddr` with `/tcp`, `/service`, `/worker`, and
    /// `/secure`, where a secure channel is opened for this message.
    pub route: String,
    /// For each `/secure` part of the route, in order: identifiers of which the peer there must have one. Anyone's when
    /// empty or missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorized: Vec<Vec<String>>,
    /// The name of the identity to show at `/secure` parts; the node's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// What to send: `{"text": ".."}` or `{"hex": ".."}`.
    pub message: MessageBody,
    /// How long to wait for everything together, in milliseconds; at most [`TIMEOUT_MS_MAX`].
    pub timeout_ms: u64,
}

/// Longest [`SendMessage::timeout_ms`]: a day.
pub const TIMEOUT_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageReply {
    /// The payload in hexadecimal digits.
    pub hex: String,
    /// The payload as text, when it is exactly one string of the wire (`wire.md` 0.2).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub text: Option<String>,
}

/// What is said of the engine in [`NodeInfo`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EngineBrief {
    /// False while it is being started again.
    pub running: bool,
    /// Process id; 0 while it does not run.
    pub pid: u32,
    /// Version of the binary that it runs.
    pub version: String,
    /// `uring` or `epoll`.
    pub driver: String,
    /// Why that one.
    pub driver_reason: String,
    /// Threads.
    pub cores: u8,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// How often this control started it again after it had died.
    pub restarts: u32,
}

/// The answer to `GET /engine`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EngineInfo {
    /// What [`NodeInfo`] says, too.
    #[serde(flatten)]
    pub brief: EngineBrief,
    /// The library that seals and opens.
    pub aead: String,
    /// Features of the processor that matter for sealing and opening.
    pub cpu_features: Vec<String>,
    /// Links open now.
    pub links_open: u64,
    /// Most links per core.
    pub links_max_per_core: u32,
    /// The slots that frames live in.
    pub pool: PoolInfo,
    /// Frames dropped since the engine started, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Links closed since the engine started, by reason.
    pub closes: BTreeMap<String, u64>,
    /// Every link.
    pub links: Vec<TcpConnectionInfo>,
}

/// Use of the pool, all cores together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolInfo {
    /// Bytes of a slot that a receive can fill.
    pub slot_bytes: u32,
    /// Slots in all.
    pub slots: u64,
    /// Slots nobody uses.
    pub free: u64,
    /// Slots that the kernel receives into.
    pub kernel: u64,
    /// Slots that hold frames.
    pub core: u64,
    /// Slots for frames that are larger than a slot.
    pub large_used: u64,
    /// Bytes committed to frames that are larger than a slot.
    pub assembly_bytes: u64,
}

/// The answer to `GET /engine/stats`: values since the engine started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineStats {
    /// Process id of the engine: another number means that all values began again.
    pub pid: u32,
    /// When they were read, in milliseconds since 1970.
    pub time_ms: u64,
    /// Sums over all cores, by name.
    pub counters: BTreeMap<String, u64>,
    /// Names in `counters` that are levels instead of sums over time.
    pub gauges: Vec<String>,
    /// Frames dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Links closed, by reason.
    pub closes: BTreeMap<String, u64>,
    /// `counters` of each core.
    pub cores: Vec<BTreeMap<String, u64>>,
}

/// The body of every answer that is not 2xx, and of errors under `--output json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorReport,
}

/// An error as a person and a program need it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// A stable name, `E_...`.
    pub code: String,
    /// What went wrong, where and why.
    pub message: String,
    /// What to do next.
    pub hint: String,
    /// The exit code of the command line (`cli.md`, decision 4).
    pub exit: u8,
}
