//! Everything that can go wrong outside the frame path, by culprit.
//!
//! A variant says what happened; [`Error::hint`] says what to do next; [`Error::exit`] is the exit code of the command
//! line; [`Error::code`] is a name that programs can rely on.

use crate::api::{ErrorBody, ErrorReport};
use ockam_crypto::{AttestationError, CredentialError, IssuerError};
use ockam_engine_abi::DropReason;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Exit codes of the command line, the values of `sysexits.h`.
pub mod exit {
    /// Done.
    pub const OK: u8 = 0;
    /// An argument is wrong.
    pub const USAGE: u8 = 64;
    /// The data given is wrong.
    pub const DATA: u8 = 65;
    /// An input is missing.
    pub const NO_INPUT: u8 = 66;
    /// A name is unknown.
    pub const UNKNOWN: u8 = 68;
    /// Something is not available or not reachable.
    pub const UNAVAILABLE: u8 = 69;
    /// A defect of this program.
    pub const INTERNAL: u8 = 70;
    /// It cannot be created: a busy port, an existing name.
    pub const CANNOT_CREATE: u8 = 73;
    /// Reading or writing failed.
    pub const IO: u8 = 74;
    /// It took too long; trying again may help.
    pub const TRY_AGAIN: u8 = 75;
    /// The other side speaks something else.
    pub const PROTOCOL: u8 = 76;
    /// Not permitted.
    pub const DENIED: u8 = 77;
    /// The configuration or the state on disk is not usable.
    pub const CONFIG: u8 = 78;
    /// Ended by Ctrl-C.
    pub const INTERRUPTED: u8 = 130;
}

/// What an authority is asked with a ticket, in [`Error::AuthorityRefused`].
pub const REDEEM: &str = "redeem the ticket";

/// An error of control or of the command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    // ---- what the user typed
    /// An argument or field makes no sense.
    #[error("{argument}: {value:?} {why}")]
    BadArgument {
        /// The argument as typed, such as `--timeout`, or the field of a request.
        argument: String,
        /// What was given.
        value: String,
        /// Why it is wrong, as the end of a sentence that begins with the value.
        why: String,
        /// What would be right.
        fix: String,
    },
    /// Data that was read (stdin, a reply) is not what it must be.
    #[error("{what}: {why}")]
    BadData {
        /// Which data.
        what: String,
        /// What is wrong with it.
        why: String,
        /// What would be right.
        fix: String,
    },
    /// An input that was asked for is empty.
    #[error("{what} is missing")]
    InputMissing {
        /// Which.
        what: String,
        /// How to give it.
        fix: String,
    },

    // ---- names
    /// No node has this name.
    #[error("there is no node named {name:?}")]
    NoSuchNode {
        /// The name.
        name: String,
        /// Names that resemble it.
        near: Vec<String>,
    },
    /// There is no node at all.
    #[error("there is no node yet")]
    NoNodes,
    /// The node has no listener, so that it cannot be named in a route.
    #[error("the node {name:?} has no TCP listener that could be dialed")]
    NoListenerOfNode {
        /// The node.
        name: String,
    },
    /// The node runs already.
    #[error("the node {name:?} is already running")]
    NodeRunning {
        /// The node.
        name: String,
    },
    /// The node's processes do not run.
    #[error("the node {name:?} is not running")]
    NodeStopped {
        /// The node.
        name: String,
    },
    /// No identity of ours has this name or identifier.
    #[error("there is no identity {name:?}")]
    NoSuchIdentity {
        /// The name or identifier.
        name: String,
        /// Names that resemble it.
        near: Vec<String>,
    },
    /// There is no identity at all.
    #[error("there is no identity yet")]
    NoIdentities,
    /// Of an identity nothing but its identifier is known.
    #[error("the history of the identity {identifier} is not known here")]
    NoSuchHistory {
        /// Whose.
        identifier: String,
        /// The argument that needs it.
        argument: String,
    },
    /// No vault has this name.
    #[error("there is no vault named {name:?}")]
    NoSuchVault {
        /// The name.
        name: String,
        /// Names that resemble it.
        near: Vec<String>,
    },
    /// No project has this name or id.
    #[error("there is no project named {name:?}")]
    NoSuchProject {
        /// The name or id.
        name: String,
        /// Names that resemble it.
        near: Vec<String>,
    },
    /// There is no project at all.
    #[error("this home knows no project yet")]
    NoProjects,
    /// A project is known with another authority.
    #[error("the project {name:?} is known here with the authority {known}, and not with {shown}")]
    OtherAuthority {
        /// Its name.
        name: String,
        /// The identifier of the authority that is stored.
        known: String,
        /// The other one.
        shown: String,
    },
    /// An authority did not do what it was asked.
    #[error("the authority refused to {what}: {why}")]
    AuthorityRefused {
        /// What was asked.
        what: &'static str,
        /// Its reason, made fit for a terminal.
        why: String,
        /// The number of its answer (`wire.md` I.1); 0 when there was none.
        status: u16,
    },
    /// A policy does not admit who was asked about.
    #[error("the resource {resource:?} of the node {node:?} is closed for {subject}{}{why}", if why.is_empty() { "" } else { ": " })]
    PolicyDenies {
        /// The node.
        node: String,
        /// The resource.
        resource: String,
        /// Who would come.
        subject: String,
        /// Which policy decides, and how.
        why: String,
    },
    /// There is one of this name already.
    #[error("there is already {what} named {name:?}")]
    NameTaken {
        /// What there is, with its article: `an identity`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Something that is to be deleted is needed.
    #[error("the {what} {name:?} is used by {by}")]
    InUse {
        /// What is to be deleted.
        what: &'static str,
        /// Its name.
        name: String,
        /// By what, such as `the node "n1"`.
        by: String,
    },
    /// Another process starts or ends the node at this moment.
    #[error("another process is starting or stopping the node {name:?}")]
    NodeBusy {
        /// The node.
        name: String,
    },
    /// A probe found that the node does not do what it shall.
    #[error("the node {name:?} is {status}: {why}")]
    Unhealthy {
        /// The node.
        name: String,
        /// Its [`crate::api::HealthStatus`].
        status: &'static str,
        /// What is wrong, as the end of a sentence.
        why: String,
    },
    /// The node has no such listener, connection, flow control.
    #[error("the node {node:?} has no {what} {id:?}")]
    NoSuchThing {
        /// The node.
        node: String,
        /// The kind of thing, such as `TCP listener`.
        what: &'static str,
        /// What was asked for.
        id: String,
        /// The command that lists what there is.
        list: &'static str,
    },
    /// There is something already that a file wants otherwise.
    #[error("there is already {what} {name:?}, and it is not as the file says: {why}")]
    DiffersFromFile {
        /// What there is, as the command that makes it is called.
        what: &'static str,
        /// Its name.
        name: String,
        /// How it differs, as a sentence without its end.
        why: String,
        /// The command that shows it.
        see: String,
    },
    /// A node runs that a file wants otherwise.
    #[error("the node {node:?} runs, and is not as the file says: {why}")]
    NodeDiffersFromFile {
        /// The node.
        node: String,
        /// How it differs, as a sentence without its end.
        why: String,
    },
    /// An address of the node is taken.
    #[error("the address {address:?} of the node {node:?} is taken by {by}")]
    AddressTaken {
        /// The node.
        node: String,
        /// The address.
        address: String,
        /// What is there.
        by: String,
    },
    /// The node has as many of something as it may.
    #[error("the node {node:?} already has {limit} {what}")]
    Limit {
        /// The node.
        node: String,
        /// Of what, in the plural.
        what: &'static str,
        /// How many it may have.
        limit: usize,
    },

    // ---- the home directory
    /// Neither `OCKAM_HOME` nor `HOME` says where the state is.
    #[error("neither OCKAM_HOME nor HOME is set, so that there is no place for state")]
    NoHome,
    /// A directory or file is not a directory or file of this user.
    #[error("{} belongs to the user with number {owner}, not to this one ({user})", path.display())]
    NotOurs {
        /// The path.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who runs this program.
        user: u32,
    },
    /// Others can change or read what is not theirs.
    #[error("other users have access to {} (mode {mode:04o})", path.display())]
    OpenToOthers {
        /// The path.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Something else is where a directory or a file of ours must be.
    #[error("{} is {found}, not {wanted}", path.display())]
    WrongKind {
        /// The path.
        path: PathBuf,
        /// What it is.
        found: &'static str,
        /// What it must be.
        wanted: &'static str,
    },
    /// Reading or writing state failed.
    #[error("cannot {what} {}: {}", path.display(), errno_text(*errno))]
    Storage {
        /// What was tried, such as `create`.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's number; 0 when SQLite gave none.
        errno: i32,
    },
    /// A database file belongs to another program.
    #[error("{} is a database of another program (application id {found:#010x})", path.display())]
    ForeignDatabase {
        /// The file.
        path: PathBuf,
        /// Its application id.
        found: u32,
    },
    /// A database file was written by a newer version.
    #[error("{} has format {found}; this version reads formats up to {known}", path.display())]
    NewerDatabase {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// A database file is damaged or refuses.
    #[error("the database {} cannot be used: {why}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        why: String,
    },
    /// Another process holds a database for too long.
    #[error("another process has locked the database {}", path.display())]
    DatabaseBusy {
        /// The file.
        path: PathBuf,
    },

    // ---- keys
    /// A file with keys is damaged, or something else.
    #[error("the {what} {} cannot be used: {why}", path.display())]
    KeyFile {
        /// What it was to be: `vault`, `backup`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong, as a sentence without a full stop.
        why: String,
    },
    /// The passphrase is another one, or the file is damaged.
    #[error("the passphrase in {} does not open the {what} {}", passphrase_file.display(), path.display())]
    WrongPassphrase {
        /// What it was to open: `vault`, `backup`.
        what: &'static str,
        /// That file.
        path: PathBuf,
        /// Where the passphrase is.
        passphrase_file: PathBuf,
    },
    /// An identity of ours cannot sign.
    #[error("the identity {identity:?} cannot be used: {why}")]
    IdentityUnusable {
        /// Its name.
        identity: String,
        /// Why.
        why: String,
        /// What helps.
        fix: String,
    },
    /// A history is not what is known of its identity, nor a continuation of it.
    #[error("the history of {identifier} was refused: {why}")]
    HistoryRefused {
        /// Whose history.
        identifier: String,
        /// Why.
        why: &'static str,
    },

    /// Something that was to be verified is not true, or that it is cannot be told.
    #[error("the {what} is not verified: {why}")]
    NotVerified {
        /// What it is.
        what: &'static str,
        /// Why not.
        why: String,
    },
    /// A credential is not valid, or cannot be issued.
    #[error("{0}")]
    Credential(CredentialError),

    // ---- sockets
    /// Another process listens there.
    #[error("the address {address} is in use by another process")]
    AddressBusy {
        /// The address.
        address: SocketAddr,
    },
    /// The path of a Unix socket is taken.
    #[error("the path {} is taken: {by}", path.display())]
    PathBusy {
        /// The path.
        path: PathBuf,
        /// By what, as a sentence without its end.
        by: &'static str,
    },
    /// This node listens there.
    #[error("the node {node:?} already listens on {address}")]
    ListenerExists {
        /// The node.
        node: String,
        /// The address.
        address: String,
    },
    /// The machine has no such address.
    #[error("this machine has no address {}", address.ip())]
    AddressNotLocal {
        /// The address.
        address: SocketAddr,
    },
    /// This user may not listen there.
    #[error("this user may not listen on {address}")]
    ListenDenied {
        /// The address.
        address: SocketAddr,
    },
    /// Listening failed otherwise.
    #[error("cannot listen on {address}: {}", errno_text(*errno))]
    ListenFailed {
        /// The address.
        address: SocketAddr,
        /// The system's number.
        errno: i32,
    },
    /// A process of another user called.
    #[error("the caller runs as user {user}, and this socket answers only to user {ours} and root")]
    OtherUser {
        /// The caller.
        user: u32,
        /// Who is answered.
        ours: u32,
    },

    // ---- processes
    /// A process could not be started.
    #[error("cannot start {}: {}", path.display(), errno_text(*errno))]
    CannotStart {
        /// The program.
        path: PathBuf,
        /// The system's number.
        errno: i32,
    },
    /// Control ended before it was ready and did not say why.
    #[error("the control process of the node {node:?} ended before it was ready")]
    ControlDied {
        /// The node.
        node: String,
        /// Where it may have said why.
        log: PathBuf,
    },
    /// The engine ended before it was ready.
    #[error("the engine of the node {node:?} ended before it was ready{}{why}", if why.is_empty() { "" } else { ": " })]
    EngineDied {
        /// The node.
        node: String,
        /// The last line of its log, if it wrote one.
        why: String,
        /// Where it may have said why.
        log: PathBuf,
    },
    /// The engine is gone at this moment.
    #[error("the engine of the node {node:?} is being started again")]
    EngineAway {
        /// The node.
        node: String,
    },
    /// The engine speaks another version of the ABI.
    #[error(
        "the engine of the node {node:?} speaks version {engine} of its interface, control speaks version {control}"
    )]
    EngineVersion {
        /// The node.
        node: String,
        /// Its version; 0 when it did not say.
        engine: u32,
        /// Ours.
        control: u32,
    },
    /// The engine refused what control asked.
    #[error("the engine refused to {what}: {why}")]
    EngineRefused {
        /// What was asked.
        what: &'static str,
        /// Its reason.
        why: String,
    },
    /// A process did not end, even when told to.
    #[error("the {process} of the node {node:?} did not end")]
    DoesNotEnd {
        /// The node.
        node: String,
        /// Which process.
        process: &'static str,
    },

    // ---- messages
    /// A name does not resolve.
    #[error("the host name {host:?} does not resolve: {why}")]
    Unresolved {
        /// The name.
        host: String,
        /// What the resolver said.
        why: String,
    },
    /// No address of a target accepts a connection.
    #[error("cannot connect to {target}: {}", attempts_text(target, attempts))]
    ConnectFailed {
        /// As typed.
        target: String,
        /// Each address that was tried.
        attempts: Vec<Attempt>,
    },
    /// A message did not arrive where its route leads.
    #[error("the message was not delivered: {}", undelivered_text(step, place, *reason))]
    Undelivered {
        /// The part of the route that failed, as in the route: `/service/upercase`.
        step: String,
        /// The node at which it failed, as the end of a sentence: `the node at 127.0.0.1:6002`.
        place: String,
        /// Why.
        reason: DropReason,
    },
    /// The link that carried a message closed before the reply came.
    #[error("the connection to {peer} closed before the reply came: {why}")]
    LinkLost {
        /// The peer.
        peer: String,
        /// Why it closed.
        why: String,
    },
    /// The secure channel that carried a message ended before the reply came.
    #[error("the secure channel ended before the reply came: {why}")]
    ChannelLost {
        /// Why it ended.
        why: String,
    },
    /// A way that shall be open has ended.
    #[error("the way is gone: {why}")]
    WayLost {
        /// What ended, and why.
        why: String,
    },
    /// A node did not make a relay of this name.
    #[error("{place} refuses to make the relay {name:?}: somebody else has that name, or there are too many")]
    RelayRefused {
        /// The name that was asked for.
        name: String,
        /// Which node, as the beginning of a sentence.
        place: String,
    },
    /// No reply came in time.
    #[error("no reply came from {route} within {}", milliseconds_text(*timeout_ms))]
    NoReply {
        /// The route.
        route: String,
        /// How long was waited.
        timeout_ms: u64,
    },

    // ---- secure channels
    /// Somebody else is at the end of a channel than may be there.
    #[error("the identity at {listener} is {identifier}, which is not authorized")]
    PeerNotAuthorized {
        /// The listener, as a route.
        listener: String,
        /// Who it is, proved.
        identifier: String,
    },
    /// What is at the end of a channel does not prove to be who it says it is.
    #[error("what answers at {listener} is not who it says it is: {why}")]
    PeerNotAuthentic {
        /// The listener, as a route.
        listener: String,
        /// Why, as a sentence without its end.
        why: String,
    },
    /// Somebody else is at the end of a channel than was there when it was made.
    #[error("the identity at {listener} changed: it was {before}, and now it is {identifier}")]
    IdentityChanged {
        /// The listener, as a route.
        listener: String,
        /// Who it is, proved.
        identifier: String,
        /// Who it was.
        before: String,
    },
    /// The end of a channel does not want this identity.
    #[error("the identity at {listener}, {identifier}, refused the channel to {own}")]
    ChannelRefused {
        /// The listener, as a route.
        listener: String,
        /// Who refused, proved.
        identifier: String,
        /// Whom.
        own: String,
    },
    /// A route names a node that has an identity which may not be met.
    #[error("the node {node:?} has the identity {identifier}, which is not among those authorized")]
    NodeNotAuthorized {
        /// The node.
        node: String,
        /// The identity recorded for it.
        identifier: String,
    },
    /// This machine trusts no certificate at all.
    #[error("this machine has no certificates of authorities, so that no TLS peer can prove who it is")]
    NoCertificates,
    /// The peer does not speak the protocol.
    #[error("{peer} {why}")]
    PeerMisbehaved {
        /// The peer.
        peer: String,
        /// What it did, as the end of the sentence.
        why: String,
    },

    // ---- the rest
    /// An error that control reported.
    #[error("{}", .0.message)]
    Reported(ErrorReport),
    /// Control could not be asked.
    #[error("the control process of the node {node:?} does not answer: {why}")]
    ControlSilent {
        /// The node.
        node: String,
        /// What went wrong.
        why: String,
    },
    /// Standard output, standard input or another file cannot be written or read.
    #[error("{what}: {}", errno_text(*errno))]
    Io {
        /// What was tried.
        what: String,
        /// The system's number.
        errno: i32,
    },
    /// The user ended it.
    #[error("interrupted")]
    Interrupted,
    /// A defect of this program.
    #[error("internal error: {what}")]
    Internal {
        /// What happened.
        what: String,
    },
}

/// One address that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The address.
    pub address: SocketAddr,
    /// What went wrong.
    pub failure: AttemptFailure,
}

/// Why one address did not become a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptFailure {
    /// The system's number of the error.
    Errno(i32),
    /// No answer within the dial limit.
    TimedOut,
    /// What listens there is not a node.
    NotANode,
}

impl Error {
    /// A defect of this program.
    pub fn internal(what: impl Into<String>) -> Error {
        Error::Internal { what: what.into() }
    }

    /// A failed operation on a path under the home directory.
    pub fn storage(what: &'static str, path: impl AsRef<Path>, error: &std::io::Error) -> Error {
        Error::Storage { what, path: path.as_ref().to_owned(), errno: error.raw_os_error().unwrap_or(0) }
    }

    /// The stable name.
    pub fn code(&self) -> &str {
        match self {
            Error::BadArgument { .. } => "E_BAD_ARGUMENT",
            Error::BadData { .. } => "E_BAD_DATA",
            Error::InputMissing { .. } => "E_INPUT_MISSING",
            Error::NoSuchNode { .. } => "E_NO_SUCH_NODE",
            Error::NoNodes => "E_NO_NODES",
            Error::NoListenerOfNode { .. } => "E_NO_LISTENER_OF_NODE",
            Error::NoSuchIdentity { .. } => "E_NO_SUCH_IDENTITY",
            Error::NoIdentities => "E_NO_IDENTITIES",
            Error::NoSuchHistory { .. } => "E_NO_SUCH_HISTORY",
            Error::NoSuchVault { .. } => "E_NO_SUCH_VAULT",
            Error::NoSuchProject { .. } => "E_NO_SUCH_PROJECT",
            Error::NoProjects => "E_NO_PROJECTS",
            Error::OtherAuthority { .. } => "E_OTHER_AUTHORITY",
            Error::AuthorityRefused { .. } => "E_AUTHORITY_REFUSED",
            Error::PolicyDenies { .. } => "E_POLICY_DENIES",
            Error::NameTaken { .. } => "E_NAME_TAKEN",
            Error::InUse { .. } => "E_IN_USE",
            Error::KeyFile { .. } => "E_VAULT",
            Error::WrongPassphrase { .. } => "E_WRONG_PASSPHRASE",
            Error::IdentityUnusable { .. } => "E_IDENTITY_UNUSABLE",
            Error::HistoryRefused { .. } => "E_HISTORY_REFUSED",
            Error::Credential(_) => "E_CREDENTIAL",
            Error::NotVerified { .. } => "E_NOT_VERIFIED",
            Error::NodeRunning { .. } => "E_NODE_RUNNING",
            Error::NodeStopped { .. } => "E_NODE_STOPPED",
            Error::NodeBusy { .. } => "E_NODE_BUSY",
            Error::Unhealthy { .. } => "E_UNHEALTHY",
            Error::NoSuchThing { .. } => "E_NOT_FOUND",
            Error::DiffersFromFile { .. } | Error::NodeDiffersFromFile { .. } => "E_DIFFERS_FROM_FILE",
            Error::AddressTaken { .. } => "E_ADDRESS_TAKEN",
            Error::Limit { .. } => "E_LIMIT",
            Error::NoHome => "E_NO_HOME",
            Error::NotOurs { .. } => "E_NOT_OURS",
            Error::OpenToOthers { .. } => "E_OPEN_TO_OTHERS",
            Error::WrongKind { .. } => "E_WRONG_KIND",
            Error::Storage { .. } => "E_STORAGE",
            Error::ForeignDatabase { .. } => "E_FOREIGN_DATABASE",
            Error::NewerDatabase { .. } => "E_NEWER_DATABASE",
            Error::Database { .. } => "E_DATABASE",
            Error::DatabaseBusy { .. } => "E_DATABASE_BUSY",
            Error::AddressBusy { .. } => "E_ADDRESS_BUSY",
            Error::PathBusy { .. } => "E_PATH_BUSY",
            Error::ListenerExists { .. } => "E_LISTENER_EXISTS",
            Error::AddressNotLocal { .. } => "E_ADDRESS_NOT_LOCAL",
            Error::ListenDenied { .. } => "E_LISTEN_DENIED",
            Error::ListenFailed { .. } => "E_LISTEN_FAILED",
            Error::OtherUser { .. } => "E_OTHER_USER",
            Error::CannotStart { .. } => "E_CANNOT_START",
            Error::ControlDied { .. } => "E_CONTROL_DIED",
            Error::EngineDied { .. } => "E_ENGINE_DIED",
            Error::EngineAway { .. } => "E_ENGINE_AWAY",
            Error::EngineVersion { .. } => "E_ENGINE_VERSION",
            Error::EngineRefused { .. } => "E_ENGINE_REFUSED",
            Error::DoesNotEnd { .. } => "E_DOES_NOT_END",
            Error::Unresolved { .. } => "E_UNRESOLVED",
            Error::ConnectFailed { .. } => "E_CONNECT_FAILED",
            Error::Undelivered { .. } => "E_UNDELIVERED",
            Error::LinkLost { .. } => "E_LINK_LOST",
            Error::ChannelLost { .. } => "E_CHANNEL_LOST",
            Error::WayLost { .. } => "E_WAY_LOST",
            Error::RelayRefused { .. } => "E_RELAY_REFUSED",
            Error::NoReply { .. } => "E_NO_REPLY",
            Error::PeerNotAuthorized { .. } => "E_PEER_NOT_AUTHORIZED",
            Error::PeerNotAuthentic { .. } => "E_PEER_NOT_AUTHENTIC",
            Error::ChannelRefused { .. } => "E_CHANNEL_REFUSED",
            Error::NodeNotAuthorized { .. } => "E_NODE_NOT_AUTHORIZED",
            Error::IdentityChanged { .. } => "E_IDENTITY_CHANGED",
            Error::NoCertificates => "E_NO_CERTIFICATES",
            Error::PeerMisbehaved { .. } => "E_PEER_MISBEHAVED",
            Error::Reported(report) => &report.code,
            Error::ControlSilent { .. } => "E_CONTROL_SILENT",
            Error::Io { .. } => "E_IO",
            Error::Interrupted => "E_INTERRUPTED",
            Error::Internal { .. } => "E_INTERNAL",
        }
    }

    /// The exit code of the command line (`cli.md`, decision 4).
    pub fn exit(&self) -> u8 {
        match self {
            Error::BadArgument { .. } => exit::USAGE,
            Error::BadData { .. } => exit::DATA,
            // A backup is an argument, a vault is state.
            Error::KeyFile { what: "backup", .. } => exit::DATA,
            Error::Credential(why) => credential_exit(why),
            Error::InputMissing { .. } => exit::NO_INPUT,
            Error::NoSuchNode { .. }
            | Error::NoNodes
            | Error::NoListenerOfNode { .. }
            | Error::NoSuchIdentity { .. }
            | Error::NoIdentities
            | Error::NoSuchHistory { .. }
            | Error::NoSuchVault { .. }
            | Error::NoSuchProject { .. }
            | Error::NoProjects
            | Error::NoSuchThing { .. }
            | Error::Unresolved { .. } => exit::UNKNOWN,
            Error::NodeStopped { .. }
            | Error::EngineAway { .. }
            | Error::ControlSilent { .. }
            | Error::Unhealthy { .. }
            | Error::LinkLost { .. }
            | Error::ChannelLost { .. }
            | Error::WayLost { .. } => exit::UNAVAILABLE,
            Error::ConnectFailed { attempts, .. } => {
                let all_not_nodes = attempts.iter().all(|attempt| attempt.failure == AttemptFailure::NotANode);
                if all_not_nodes && !attempts.is_empty() { exit::PROTOCOL } else { exit::UNAVAILABLE }
            }
            Error::NodeRunning { .. }
            | Error::NameTaken { .. }
            | Error::DiffersFromFile { .. }
            | Error::NodeDiffersFromFile { .. }
            | Error::AddressTaken { .. }
            | Error::Limit { .. }
            | Error::AddressBusy { .. }
            | Error::PathBusy { .. }
            | Error::ListenerExists { .. }
            | Error::AddressNotLocal { .. }
            | Error::ListenFailed { .. } => exit::CANNOT_CREATE,
            Error::Storage { errno, .. } if is_permission(*errno) => exit::DENIED,
            Error::Storage { .. } | Error::Database { .. } | Error::KeyFile { .. } | Error::Io { .. } => exit::IO,
            Error::NotOurs { .. }
            | Error::InUse { .. }
            | Error::WrongPassphrase { .. }
            | Error::HistoryRefused { .. }
            | Error::NotVerified { .. }
            | Error::OpenToOthers { .. }
            | Error::ListenDenied { .. }
            | Error::OtherUser { .. }
            | Error::PeerNotAuthorized { .. }
            | Error::PeerNotAuthentic { .. }
            | Error::IdentityChanged { .. }
            | Error::ChannelRefused { .. }
            | Error::RelayRefused { .. }
            | Error::OtherAuthority { .. }
            | Error::PolicyDenies { .. }
            | Error::NodeNotAuthorized { .. } => exit::DENIED,
            Error::AuthorityRefused { status, .. } => match status {
                401 | 403 => exit::DENIED,
                404 => exit::UNKNOWN,
                409 => exit::CANNOT_CREATE,
                400..=499 => exit::PROTOCOL,
                _ => exit::UNAVAILABLE,
            },
            Error::NoHome
            | Error::NoCertificates
            | Error::IdentityUnusable { .. }
            | Error::WrongKind { .. }
            | Error::ForeignDatabase { .. }
            | Error::NewerDatabase { .. }
            | Error::EngineVersion { .. } => exit::CONFIG,
            Error::NodeBusy { .. } | Error::DatabaseBusy { .. } | Error::NoReply { .. } => exit::TRY_AGAIN,
            Error::PeerMisbehaved { .. } => exit::PROTOCOL,
            Error::Undelivered { reason, .. } => undelivered_exit(*reason),
            Error::CannotStart { .. }
            | Error::ControlDied { .. }
            | Error::EngineDied { .. }
            | Error::EngineRefused { .. }
            | Error::DoesNotEnd { .. }
            | Error::Internal { .. } => exit::INTERNAL,
            Error::Reported(report) => report.exit,
            Error::Interrupted => exit::INTERRUPTED,
        }
    }

    /// What to do next; never empty.
    pub fn hint(&self) -> String {
        match self {
            Error::BadArgument { fix, .. } | Error::BadData { fix, .. } | Error::InputMissing { fix, .. } => fix.clone(),
            Error::NoSuchNode { near, .. } if near.is_empty() => {
                "See all nodes with `ockam node list`, or make one with `ockam node create NAME`.".into()
            }
            Error::NoSuchNode { near, .. } => format!("Did you mean {}? See `ockam node list`.", near.join(" or ")),
            Error::NoNodes => "Make one with `ockam node create`.".into(),
            Error::NoSuchIdentity { near, .. } if near.is_empty() => {
                "See all with `ockam identity list`, or make one with `ockam identity create NAME`.".into()
            }
            Error::NoSuchIdentity { near, .. } => {
                format!("Did you mean {}? See `ockam identity list`.", near.join(" or "))
            }
            Error::NoSuchHistory { argument, .. } => format!(
                "Give the history itself to {argument}, or import it first: `ockam identity export` prints it where the \
                 identity is, and `ockam identity import` stores it here."
            ),
            Error::NoIdentities => "Make one with `ockam identity create`.".into(),
            Error::NoSuchVault { near, .. } if near.is_empty() => {
                "See all with `ockam vault list`, or make one with `ockam vault create NAME`.".into()
            }
            Error::NoSuchVault { near, .. } => format!("Did you mean {}? See `ockam vault list`.", near.join(" or ")),
            Error::NameTaken { .. } => "Choose another name, or delete that one first.".into(),
            Error::InUse { .. } => "Delete what uses it first.".into(),
            Error::DiffersFromFile { what: "vault" | "identity", see, .. } => {
                format!("See `{see}`; have the file say another name. It may hold keys: no file replaces it.")
            }
            Error::DiffersFromFile { see, .. } => {
                format!("See `{see}`; give --replace to make it anew, or change the file. Nothing was changed.")
            }
            Error::NodeDiffersFromFile { node, .. } => {
                format!("Give --replace to have `{node}` stopped and started so, or change the file. Nothing was changed.")
            }
            Error::KeyFile { what: "backup", .. } => "Use another backup; nothing was changed.".into(),
            Error::KeyFile { .. } => {
                "Restore it with `ockam vault restore`, if there is a backup; it was left as it is.".into()
            }
            Error::WrongPassphrase { what, .. } => {
                format!("Check what is in that file; if it is right, the {what} is damaged.")
            }
            Error::IdentityUnusable { fix, .. } => fix.clone(),
            Error::HistoryRefused { .. } => {
                "Ask its owner for the latest history; an older or another one can come from a stolen key.".into()
            }
            Error::Credential(why) => credential_hint(why).into(),
            Error::NotVerified { .. } => "Do not believe it; ask its owner for what is valid now.".into(),
            Error::NoListenerOfNode { name } => {
                format!("Give it one with `ockam tcp-listener create 127.0.0.1:0 --at {name}`.")
            }
            Error::NodeRunning { name } => {
                format!("Choose another name, or stop it first with `ockam node stop {name}`.")
            }
            Error::NodeStopped { name } => format!("Start it with `ockam node start {name}`."),
            Error::NodeBusy { name } => format!("Try again; `ockam node show {name}` says how it is."),
            Error::Unhealthy { name, status: "stopped" | "headless", .. } => {
                format!("Start it with `ockam node start {name}`.")
            }
            Error::Unhealthy { name, .. } => format!("`ockam node show {name}` says more, and where its logs are."),
            Error::NoSuchThing { list, node, .. } => format!("See what there is with `{list} --at {node}`."),
            Error::AddressTaken { .. } => "Choose another address.".into(),
            Error::Limit { .. } => "Delete one of them first.".into(),
            Error::NoHome => "Set OCKAM_HOME to a directory of yours.".into(),
            Error::NotOurs { path, .. } => {
                format!("Run this as its owner, or set OCKAM_HOME to a directory of yours instead of {}.", path.display())
            }
            Error::OpenToOthers { path, .. } => format!("Close it with `chmod go-rwx {}`.", path.display()),
            Error::WrongKind { path, .. } => {
                format!("Move {} away, or set OCKAM_HOME to another directory.", path.display())
            }
            Error::Storage { errno, .. } => storage_hint(*errno).into(),
            Error::ForeignDatabase { .. } => "Set OCKAM_HOME to another directory; the file was left as it is.".into(),
            Error::NewerDatabase { .. } => "Use the newer version of ockam, or set OCKAM_HOME to another directory.".into(),
            Error::Database { .. } => {
                "Restore the file from a backup, or set OCKAM_HOME to another directory; it was left as it is.".into()
            }
            Error::DatabaseBusy { .. } => "Try again; if it persists, look for a process that keeps it open.".into(),
            Error::AddressBusy { address } => format!(
                "Choose another port, or 0 for a free one; `ss -ltnp 'sport = :{}'` shows who listens.",
                address.port()
            ),
            Error::PathBusy { .. } => "Choose another path; what is there was left as it is.".into(),
            Error::NoCertificates => {
                "Install the package ca-certificates, or name a file with them in SSL_CERT_FILE.".into()
            }
            Error::ListenerExists { node, .. } => format!("See `ockam node show {node}`."),
            Error::AddressNotLocal { .. } => "Choose one that `ip address` shows, 127.0.0.1, or 0.0.0.0 for all.".into(),
            Error::ListenDenied { .. } => "Choose a port from 1024 upwards.".into(),
            Error::ListenFailed { .. } => "Choose another address.".into(),
            Error::OtherUser { .. } => "Run the command as the owner of the node.".into(),
            Error::CannotStart { .. } => "Check that the ockam binary is still in its place and may be executed.".into(),
            Error::ControlDied { log, .. } | Error::EngineDied { log, .. } => {
                format!("The end of {} may say why.", log.display())
            }
            Error::EngineAway { .. } => "Try again in a moment; `ockam engine show` says how it is.".into(),
            Error::EngineVersion { node, .. } => {
                format!("Restart the whole node: `ockam node stop {node}` and `ockam node start {node}`.")
            }
            Error::EngineRefused { .. } => "See `ockam engine show` for its limits and use.".into(),
            Error::DoesNotEnd { .. } => "It may wait inside the kernel; `ps` shows its state.".into(),
            Error::Unresolved { .. } => "Check the spelling, or give an address with /ip4/ or /ip6/.".into(),
            Error::ConnectFailed { .. } => {
                "Check that a node listens there: `ockam node list` and `ockam tcp-listener list` on that machine.".into()
            }
            Error::Undelivered { reason, .. } => undelivered_hint(*reason).into(),
            Error::LinkLost { .. } | Error::ChannelLost { .. } => "Check that the peer runs, then send again.".into(),
            Error::WayLost { .. } => "It is opened again as soon as the far end answers; check that it runs.".into(),
            Error::NoSuchProject { near, .. } if near.is_empty() => {
                "See all with `ockam project list`; `ockam project import` and `ockam enroll` add one.".into()
            }
            Error::NoSuchProject { near, .. } => format!("Did you mean {}? See `ockam project list`.", near.join(" or ")),
            Error::NoProjects => "Enroll with a ticket: `ockam enroll TICKET`; or take one in: `ockam project import`.".into(),
            Error::OtherAuthority { name, .. } => {
                format!("If that is meant, forget the old one first: `ockam project delete {name}`.")
            }
            Error::AuthorityRefused { status: 401 | 403, what: REDEEM, .. } => {
                "Ask for another ticket: an enroller makes one with `ockam ticket create`.".into()
            }
            Error::AuthorityRefused { status: 401 | 403, .. } => {
                "Name an identity that may do it with --identity; its attributes at the authority say what it may.".into()
            }
            Error::AuthorityRefused { .. } => "Check the request, and the log of the authority's node.".into(),
            Error::PolicyDenies { .. } => {
                "`ockam policy list` shows all policies of the node; `ockam policy create` sets another one.".into()
            }
            Error::RelayRefused { .. } => "Choose another name, or ask the owner of that node who has this one.".into(),
            Error::NoReply { .. } => {
                "Check the route, or wait longer with --timeout; nodes of other makes drop silently what they cannot deliver."
                    .into()
            }
            Error::PeerNotAuthorized { identifier, .. } => {
                format!("Check who that is; if it is whom you want, add `--authorized {identifier}`.")
            }
            Error::PeerNotAuthentic { .. } => {
                "Do not trust what is there; check the route, and the clocks of both machines.".into()
            }
            Error::ChannelRefused { own, .. } => {
                format!("The owner of that listener can admit you with `--authorized {own}`.")
            }
            Error::NodeNotAuthorized { .. } => "Check --authorized, or name the node by its address.".into(),
            Error::IdentityChanged { .. } => {
                "If the peer was replaced on purpose, delete the secure channel, inlet or relay and create it again.".into()
            }
            Error::PeerMisbehaved { .. } => "Check that a node listens there, and not another program.".into(),
            Error::Reported(report) => report.hint.clone(),
            Error::ControlSilent { node, .. } => {
                format!("Try again; if it persists: `ockam node stop {node}` and `ockam node start {node}`.")
            }
            Error::Io { .. } => "Check where input and output of the command lead.".into(),
            Error::Interrupted => "Nothing is left to do.".into(),
            Error::Internal { .. } => "This is a defect: please report it with the log of the node.".into(),
        }
    }

    /// The status of an HTTP answer that carries it.
    pub fn http_status(&self) -> u16 {
        match self.exit() {
            exit::USAGE | exit::DATA | exit::NO_INPUT => 400,
            exit::DENIED => 403,
            exit::UNKNOWN => 404,
            exit::CANNOT_CREATE => 409,
            exit::PROTOCOL => 502,
            exit::UNAVAILABLE => 503,
            exit::TRY_AGAIN => 504,
            _ => 500,
        }
    }

    /// As it travels.
    pub fn report(&self) -> ErrorReport {
        match self {
            Error::Reported(report) => report.clone(),
            other => ErrorReport {
                code: other.code().into(),
                message: other.to_string(),
                hint: other.hint(),
                exit: other.exit(),
            },
        }
    }

    /// The body of an HTTP answer, or of standard error under `--output json`.
    pub fn body(&self) -> ErrorBody {
        ErrorBody { error: self.report() }
    }
}

/// The text of a number of the system, without its number.
pub fn errno_text(errno: i32) -> String {
    if errno == 0 {
        return "the reason is not known".into();
    }
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

fn is_permission(errno: i32) -> bool {
    errno == rustix::io::Errno::ACCESS.raw_os_error() || errno == rustix::io::Errno::PERM.raw_os_error()
}

fn storage_hint(errno: i32) -> &'static str {
    use rustix::io::Errno;
    match Errno::from_raw_os_error(errno) {
        Errno::NOSPC | Errno::DQUOT => "Free some space there, or set OCKAM_HOME to a directory on another disk.",
        Errno::ROFS => "Set OCKAM_HOME to a directory that can be written.",
        Errno::ACCESS | Errno::PERM => "Set OCKAM_HOME to a directory of yours.",
        Errno::MFILE | Errno::NFILE => "Raise the limit of open files (`ulimit -n`).",
        _ => "Check the directory, or set OCKAM_HOME to another one.",
    }
}

/// What is no credential at all is bad data; what must not be believed is denied.
fn credential_exit(why: &CredentialError) -> u8 {
    match why {
        CredentialError::TooLarge
        | CredentialError::Malformed
        | CredentialError::NotACredential
        | CredentialError::NoSubject
        | CredentialError::Attribute(_)
        | CredentialError::Issuer(IssuerError::Attestation(
            AttestationError::Malformed | AttestationError::NotAnAttestation,
        )) => exit::DATA,
        CredentialError::UnknownIssuer(_)
        | CredentialError::Issuer(_)
        | CredentialError::AnotherSubject(_)
        | CredentialError::OlderThanItsKey
        | CredentialError::OutlivesItsKey
        | CredentialError::FromTheFuture
        | CredentialError::Expired => exit::DENIED,
    }
}

fn credential_hint(why: &CredentialError) -> &'static str {
    match why {
        CredentialError::Expired | CredentialError::AnotherSubject(_) => "Ask its issuer for another one.",
        CredentialError::UnknownIssuer(_) => "Check who is to be believed: `ockam inspect` shows who issued it.",
        CredentialError::FromTheFuture => "Check the clocks of this machine and of the issuer's.",
        CredentialError::Issuer(IssuerError::Attestation(AttestationError::NotByTheLatestKey)) => {
            "Its issuer changed its key: ask it for another one, or import its latest history with `ockam identity import`."
        }
        CredentialError::OutlivesItsKey => "Ask for a shorter time.",
        CredentialError::Attribute(_) => "Leave that attribute out.",
        CredentialError::TooLarge
        | CredentialError::Malformed
        | CredentialError::NotACredential
        | CredentialError::NoSubject => "A credential is what `ockam credential issue` prints, whole.",
        CredentialError::Issuer(_) | CredentialError::OlderThanItsKey => "Do not believe it; ask its issuer for one.",
    }
}

fn milliseconds_text(milliseconds: u64) -> String {
    if milliseconds.is_multiple_of(1000) { format!("{} s", milliseconds / 1000) } else { format!("{milliseconds} ms") }
}

fn attempts_text(target: &str, attempts: &[Attempt]) -> String {
    if attempts.is_empty() {
        return "it has no address".into();
    }
    let texts: Vec<String> = attempts
        .iter()
        .map(|attempt| {
            let why = match attempt.failure {
                AttemptFailure::Errno(errno) => errno_text(errno),
                AttemptFailure::TimedOut => "no answer".into(),
                AttemptFailure::NotANode => "what listens there is not a node".into(),
            };
            if attempt.address.to_string() == target { why } else { format!("{}: {why}", attempt.address) }
        })
        .collect();
    texts.join("; ")
}

fn undelivered_text(step: &str, place: &str, reason: DropReason) -> String {
    match reason {
        DropReason::NotDelivered => format!("{place} could not deliver it to {step}, and does not tell strangers why"),
        DropReason::NoSuchAddress => format!("nothing has the address {step} at {place}"),
        DropReason::NotAdmitted => format!("{place} does not let this connection reach {step}"),
        DropReason::RouteTooLong => format!("the route is too long for {place}"),
        DropReason::GrewTooLarge => format!("with the route that it gathered it is larger than 16 MiB at {place}"),
        DropReason::RouteEnded => format!("the route ends with {step} at {place}, which only forwards"),
        DropReason::TransitRefused => format!("{place} may not dial {step} for this sender"),
        DropReason::TransitLimit => {
            format!("{place} already dialed as many addresses for this connection as it may, so not {step}")
        }
        DropReason::Unresolved => format!("the host name in {step} does not resolve at {place}"),
        DropReason::ConnectFailed => format!("{place} cannot connect to {step}: refused or unreachable"),
        DropReason::ConnectTimedOut => format!("{place} cannot connect to {step}: no answer"),
        DropReason::NotANode => format!("{place} connected to {step}, but what listens there is not a node"),
        DropReason::BadPayload => format!("{step} at {place} cannot read its payload"),
        DropReason::PuntLimit => format!("{place} has no capacity for {step} now"),
        DropReason::LinkClosed => format!("the connection of {place} to {step} closed"),
        DropReason::UnsupportedTransport => format!("{place} does not serve the transport of {step}"),
        DropReason::BadAddress => format!("{step} is not host:port for {place}"),
        DropReason::NotGenuine => format!("what came for the secure channel at {step} of {place} is not from its peer"),
        DropReason::Replayed => format!("what came for the secure channel at {step} of {place} had come before"),
        DropReason::OutsideWindow => {
            format!("what came for the secure channel at {step} of {place} is too old or too far ahead")
        }
        DropReason::BadPlaintext => {
            format!("what came out of the secure channel at {step} of {place} is no message")
        }
        DropReason::ChannelClosed => format!("the secure channel at {step} of {place} has ended"),
        DropReason::ParkedLimit => {
            format!("too much came for the secure channel at {step} of {place} before it was open")
        }
        DropReason::PolicyDenied => format!("no policy of {place} lets this sender reach {step}"),
    }
}

fn undelivered_exit(reason: DropReason) -> u8 {
    match reason {
        DropReason::NoSuchAddress | DropReason::Unresolved => exit::UNKNOWN,
        DropReason::NotAdmitted | DropReason::TransitRefused | DropReason::PolicyDenied => exit::DENIED,
        DropReason::TransitLimit | DropReason::PuntLimit | DropReason::ParkedLimit => exit::TRY_AGAIN,
        DropReason::NotANode
        | DropReason::NotGenuine
        | DropReason::Replayed
        | DropReason::OutsideWindow
        | DropReason::BadPlaintext => exit::PROTOCOL,
        DropReason::RouteTooLong
        | DropReason::GrewTooLarge
        | DropReason::RouteEnded
        | DropReason::BadPayload
        | DropReason::UnsupportedTransport
        | DropReason::BadAddress => exit::DATA,
        DropReason::NotDelivered
        | DropReason::ConnectFailed
        | DropReason::ConnectTimedOut
        | DropReason::LinkClosed
        | DropReason::ChannelClosed => exit::UNAVAILABLE,
    }
}

fn undelivered_hint(reason: DropReason) -> &'static str {
    match reason {
        DropReason::NotDelivered => {
            "Check the rest of the route from that node on; its owner can see the reason in `ockam engine stats`."
        }
        DropReason::NoSuchAddress => "See what that node has with `ockam worker list --at NODE`.",
        DropReason::NotAdmitted => "The owner of that node can admit it with `ockam flow-control add-consumer`.",
        DropReason::RouteTooLong => "Use fewer addresses: a route has at most 32, those of the way back included.",
        DropReason::GrewTooLarge => "Send less at once.",
        DropReason::RouteEnded => "Let the route end with a service, such as /service/echo.",
        DropReason::TransitRefused => {
            "The owner of that node can admit it with `ockam node create --allow-transit FROM=TO[:PORT]`."
        }
        DropReason::TransitLimit => "Close the connection and send again, or use fewer targets over one connection.",
        DropReason::Unresolved => "Check the spelling of the name as that node sees it.",
        DropReason::ConnectFailed | DropReason::ConnectTimedOut => {
            "Check that a node listens there, as seen from that node."
        }
        DropReason::NotANode => "Check the port: another program listens there.",
        DropReason::BadPayload => "Send a text without --hex: this service reads a string.",
        DropReason::PuntLimit => "Try again in a moment.",
        DropReason::LinkClosed => "Check that the peer runs, then send again.",
        DropReason::UnsupportedTransport => "Use /tcp/ in the route.",
        DropReason::NotGenuine | DropReason::Replayed | DropReason::OutsideWindow | DropReason::BadPlaintext => {
            "Something on the way changes, repeats or loses messages; open the secure channel anew."
        }
        DropReason::ChannelClosed => "See `ockam secure-channel list`, or open it anew.",
        DropReason::ParkedLimit => "Wait until the secure channel is open before sending much through it.",
        DropReason::PolicyDenied => {
            "See `ockam policy check` at that node; to show a credential, enroll with `ockam enroll TICKET`."
        }
        DropReason::BadAddress => "Write TCP hops as /ip4/A/tcp/PORT, /ip6/A/tcp/PORT or /dnsaddr/NAME/tcp/PORT.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drop_reason_is_said_with_place_and_next_step() {
        let mut texts = std::collections::BTreeSet::new();
        for &reason in DropReason::ALL {
            let error = Error::Undelivered { step: "/service/x".into(), place: "the node y".into(), reason };
            let text = error.to_string();
            assert!(text.contains("the node y"), "{text}");
            assert!(!error.hint().is_empty() && texts.insert(text));
            assert!(matches!(error.exit(), 65 | 68 | 69 | 75 | 76 | 77), "{reason:?}");
        }
    }

    #[test]
    fn exit_codes_follow_the_table() {
        let path = || PathBuf::from("/x");
        let address = || SocketAddr::from(([127, 0, 0, 1], 1));
        let storage = |errno: rustix::io::Errno| Error::storage("write", path(), &errno.into());
        let attempt = |failure| Error::ConnectFailed {
            target: "127.0.0.1:1".into(),
            attempts: vec![Attempt { address: address(), failure }],
        };
        for (error, exit, status) in [
            (Error::NoSuchNode { name: "x".into(), near: vec!["y".into()] }, 68, 404),
            (Error::NodeStopped { name: "x".into() }, 69, 503),
            (Error::Unhealthy { name: "x".into(), status: "degraded", why: "y".into() }, 69, 503),
            (Error::NodeRunning { name: "x".into() }, 73, 409),
            (Error::AddressBusy { address: address() }, 73, 409),
            (Error::NotOurs { path: path(), owner: 1, user: 2 }, 77, 403),
            (storage(rustix::io::Errno::NOSPC), 74, 500),
            (storage(rustix::io::Errno::ROFS), 74, 500),
            (storage(rustix::io::Errno::ACCESS), 77, 403),
            (Error::ForeignDatabase { path: path(), found: 7 }, 78, 500),
            (attempt(AttemptFailure::NotANode), 76, 502),
            (attempt(AttemptFailure::TimedOut), 69, 503),
            (Error::NoReply { route: "/service/x".into(), timeout_ms: 1500 }, 75, 504),
            (Error::PeerNotAuthorized { listener: "/service/api".into(), identifier: "I00".into() }, 77, 403),
            (Error::PeerNotAuthentic { listener: "/service/api".into(), why: "it is not".into() }, 77, 403),
            (
                Error::ChannelRefused { listener: "/service/api".into(), identifier: "I00".into(), own: "I01".into() },
                77,
                403,
            ),
            (Error::NodeNotAuthorized { node: "n3".into(), identifier: "I00".into() }, 77, 403),
            (Error::RelayRefused { name: "blue".into(), place: "the node n3".into() }, 77, 403),
            (Error::NoSuchProject { name: "x".into(), near: vec![] }, 68, 404),
            (Error::AuthorityRefused { what: "redeem the ticket", why: "x".into(), status: 403 }, 77, 403),
            (Error::AuthorityRefused { what: "add the member", why: "x".into(), status: 400 }, 76, 502),
            (Error::AuthorityRefused { what: "add the member", why: "x".into(), status: 500 }, 69, 503),
            (Error::Interrupted, 130, 500),
        ] {
            assert_eq!((error.exit(), error.http_status()), (exit, status), "{error}");
            assert!(error.code().starts_with("E_") && !error.hint().is_empty());
            // What travels says the same on the other side.
            let reported = Error::Reported(error.report());
            assert_eq!((reported.to_string(), reported.report()), (error.to_string(), error.report()));
        }
        assert_eq!(
            attempt(AttemptFailure::Errno(rustix::io::Errno::CONNREFUSED.raw_os_error())).to_string(),
            "cannot connect to 127.0.0.1:1: connection refused"
        );
    }
}
