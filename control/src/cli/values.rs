//! Values of arguments, parsed once. Every refusal says what would be right.

use super::stdin::RouteArg;
use crate::api::{ResourceType, Service};
use crate::error::Error;
use crate::home::NodeName;
use crate::text::is_hex_id;
use crate::transit;
use ockam_crypto::{Attributes, ChangeHistory, Identifier};
use ockam_engine::DriverChoice;
use ockam_engine_abi::TransitRule;
use ockam_policy::Policy;
use ockam_wire::MultiAddr;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use zeroize::Zeroizing;

pub use std::time::Duration;

/// Longest local address in bytes (`engine/abi`, `SetAddress`).
const LOCAL_ADDRESS_BYTES_MAX: usize = 255;

/// Longest path of a Unix socket in bytes, without the zero at its end.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// Longest scope of credentials in bytes.
const SCOPE_BYTES_MAX: usize = 255;

/// A node as arguments name it: `n1` or `/node/n1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRef(pub NodeName);

/// Parses a node as arguments name it.
///
/// # Errors
/// The text is no name, with what a name looks like.
pub fn node_ref(text: &str) -> Result<NodeRef, String> {
    node_name(text.strip_prefix("/node/").unwrap_or(text)).map(NodeRef)
}

/// Parses a route to a node, or a node as arguments name it: `n1` is `/node/n1`.
///
/// # Errors
/// The text is neither.
pub fn node_or_route(text: &str) -> Result<RouteArg, String> {
    match text {
        "-" => text.parse(),
        name if !name.contains('/') => format!("/node/{}", node_name(name)?).parse(),
        route => route.parse(),
    }
}

/// Parses the name of a node.
///
/// # Errors
/// The text is no name, with what a name looks like.
pub fn node_name(text: &str) -> Result<NodeName, String> {
    NodeName::from_str(text).map_err(sentence)
}

/// Parses the name of a vault or an identity.
///
/// # Errors
/// The text is no name, with what a name looks like.
pub fn name(text: &str) -> Result<String, String> {
    node_name(text).map(|name| name.as_str().to_owned())
}

/// Parses the name or the identifier of an identity.
///
/// # Errors
/// The text is neither.
pub fn identity_ref(text: &str) -> Result<String, String> {
    match text.parse::<Identifier>() {
        Ok(identifier) => Ok(identifier.to_string()),
        Err(_) => name(text),
    }
}

/// An exported history as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HistoryArg {
    /// Complete.
    Given(ChangeHistory),
    /// The next line of stdin is it.
    Stdin,
}

/// Parses and verifies an exported history; `-` stands for one line of stdin.
///
/// # Errors
/// What is wrong with it.
pub fn history(text: &str) -> Result<HistoryArg, String> {
    if text == "-" {
        return Ok(HistoryArg::Stdin);
    }
    let history = ChangeHistory::from_hex(text);
    history
        .map(HistoryArg::Given)
        .map_err(|error| format!("{error}; `ockam identity export` prints one, and `- < FILE` takes it from a file"))
}

/// An identity as it was typed, whose history is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityOrHistory {
    /// Its name or identifier: its history must be known here.
    Known(String),
    /// Its history.
    Given(ChangeHistory),
}

/// Parses the name, the identifier or the exported history of an identity.
///
/// # Errors
/// The text is none of these.
pub fn identity_or_history(text: &str) -> Result<IdentityOrHistory, String> {
    match identity_ref(text) {
        Ok(known) => Ok(IdentityOrHistory::Known(known)),
        Err(why) => ChangeHistory::from_hex(text).map(IdentityOrHistory::Given).map_err(|error| match error {
            ockam_crypto::HistoryError::NotHexadecimal => why,
            error => error.to_string(),
        }),
    }
}

/// What a credential or a ticket says of somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Parses `NAME=VALUE`. The name ends at the first `=`.
///
/// # Errors
/// The text is something else, or credentials cannot have such an attribute.
pub fn attribute(text: &str) -> Result<Attribute, String> {
    let (name, value) = text.split_once('=').ok_or("an attribute is NAME=VALUE; for example cluster=production")?;
    Attributes::new().insert(name, value).map_err(|error| error.to_string())?;
    Ok(Attribute { name: name.to_owned(), value: value.to_owned() })
}

/// Parses what credentials are filed under.
///
/// # Errors
/// It is empty, too long, or cannot be shown.
pub fn scope(text: &str) -> Result<String, String> {
    if (1..=SCOPE_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err(format!("a scope is the id of a project, 1 to {SCOPE_BYTES_MAX} bytes of text"))
    }
}

/// A ticket as it was given: where it is, or itself.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketArg {
    /// The text.
    pub text: Zeroizing<String>,
    /// It stands on the command line, for everybody on this machine to see.
    pub is_typed: bool,
}

impl fmt::Debug for TicketArg {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

/// Takes a ticket as it is: whether it is the name of a file shows when it is read.
///
/// # Errors
/// The text is empty.
pub fn ticket(text: &str) -> Result<TicketArg, String> {
    match text.trim() {
        "" => Err("a ticket is missing here: give the file that holds it, or `-` for stdin".to_owned()),
        text => Ok(TicketArg { text: Zeroizing::new(text.to_owned()), is_typed: true }),
    }
}

/// Parses a route to a node, in which names may stand.
///
/// # Errors
/// The text is none.
pub fn way(text: &str) -> Result<MultiAddr, String> {
    text.parse::<MultiAddr>()
        .map_err(|error| format!("{error}; a route looks like /dnsaddr/authority.example/tcp/4000/service/api"))
}

/// Parses a policy, in either form.
///
/// # Errors
/// Where it stops being one, and why.
pub fn policy(text: &str) -> Result<String, String> {
    let refused = |error: ockam_policy::ParseError| {
        let end = error.at.min(text.len());
        let rest = text.get(end..).filter(|rest| !rest.is_empty());
        let rest = rest.map_or("its end".to_owned(), |rest| format!("`{}`", crate::text::escape(rest.as_bytes(), 40)));
        format!("{}, at {rest}; `ockam policy create --help` shows how policies look", error.problem)
    };
    Policy::parse(text).map(|policy| policy.to_string()).map_err(refused)
}

/// Parses the type of a resource.
///
/// # Errors
/// The text names none.
pub fn resource_type(text: &str) -> Result<ResourceType, String> {
    ResourceType::from_name(text).ok_or_else(|| {
        let names: Vec<&str> = ResourceType::ALL.into_iter().map(ResourceType::name).collect();
        format!("`{text}` is no type of a resource; there are {}", names.join(", "))
    })
}

/// Parses the name of a resource: an address with or without `/service/` in front, an alias, or where transit leads.
///
/// # Errors
/// The text is empty, too long, or has characters that no name has.
pub fn resource(text: &str) -> Result<String, String> {
    let name = ["/service/", "/worker/", "0#"].iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
    let is_one = (1..=LOCAL_ADDRESS_BYTES_MAX).contains(&name.len())
        && !name.chars().any(|char| char.is_control() || char.is_whitespace());
    is_one.then(|| name.to_owned()).ok_or_else(|| {
        "a resource has a name of 1 to 255 bytes without white space; for example outlet or echo".to_owned()
    })
}

/// Parses the name of a relay that somebody may register: `*` for any.
///
/// # Errors
/// The text is none.
pub fn relay_name(text: &str) -> Result<String, String> {
    let name = if text == "*" { text.to_owned() } else { local_address(text)? };
    Ok(name.strip_prefix("forward_to_").unwrap_or(&name).to_owned())
}

/// Refuses what only the hosted service has.
///
/// # Errors
/// Always.
pub fn not_here(_: &str) -> Result<String, String> {
    Err("this is for the hosted service, which this program does not know; leave it out, and name members with \
         --trusted-identities, --enroller or tickets"
        .to_owned())
}

/// An error of a parser as clap shows it, behind the argument and its value.
fn sentence(error: Error) -> String {
    match error {
        Error::BadArgument { why, fix, .. } => format!("it {why}. {fix}"),
        other => other.to_string(),
    }
}

/// A host and a port. The host is not resolved yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// An address or a name; never empty.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.parse::<IpAddr>() {
            Ok(address) => SocketAddr::new(address, self.port).fmt(formatter),
            Err(_) => write!(formatter, "{}:{}", self.host, self.port),
        }
    }
}

/// Parses an address to listen at: `6001`, `:6001`, `127.0.0.1:6001`, `[::1]:6001` or `localhost:6001`. Without a host
/// it is loopback.
///
/// # Errors
/// The text is none of these.
pub fn listen_address(text: &str) -> Result<HostPort, String> {
    host_port(text, "127.0.0.1:6001")
}

/// Parses an address to dial, in the same forms. Port 0 is refused.
///
/// # Errors
/// The text is none of these.
pub fn dial_address(text: &str) -> Result<HostPort, String> {
    let address = host_port(text, "127.0.0.1:6002")?;
    match address.port {
        0 => Err("port 0 cannot be dialed; give the port where the node listens".to_owned()),
        _ => Ok(address),
    }
}

fn host_port(text: &str, example: &str) -> Result<HostPort, String> {
    let bad_port = |port: &str| format!("`{port}` is no port: a port is a number from 0 to 65535");
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(HostPort { host: address.ip().to_string(), port: address.port() });
    }
    let loopback = || Ipv4Addr::LOCALHOST.to_string();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(HostPort { host: loopback(), port: text.parse().map_err(|_| bad_port(text))? });
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(format!("`{text}` has no port; write it as in {example}"));
    };
    let number = || port.parse().map_err(|_| bad_port(port));
    if host.contains(':') || host.contains(['[', ']']) {
        return Err(format!("`{host}` is no host; an IPv6 address with a port looks like [::1]:6001"));
    }
    if host.is_empty() {
        return Ok(HostPort { host: loopback(), port: number()? });
    }
    if host.parse::<Ipv4Addr>().is_ok() {
        return Ok(HostPort { host: host.to_owned(), port: number()? });
    }
    let looks_like_ip4 = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let is_name = host.len() <= 253 && host.split('.').all(is_label);
    if looks_like_ip4 || !is_name {
        return Err(format!("`{host}` is neither an IP address nor a host name; write the address as in {example}"));
    }
    Ok(HostPort { host: host.to_owned(), port: number()? })
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// Parses `N[d|h|m|s|ms]`; a bare number is seconds. Zero and more than a day are refused.
///
/// # Errors
/// The text is none of these.
pub fn timeout(text: &str) -> Result<Duration, String> {
    let day = Duration::from_secs(86_400);
    match duration(text) {
        Some(duration) if !duration.is_zero() && duration <= day => Ok(duration),
        _ => Err("a time to wait is a number with ms, s, m, h or d, from 1ms to 1d; for example 10s".to_owned()),
    }
}

/// Parses how long something is valid, as [`timeout`] does: whole seconds, up to ten years.
///
/// # Errors
/// The text is none of these.
pub fn lifetime(text: &str) -> Result<Duration, String> {
    match duration(text) {
        Some(duration) if duration.subsec_millis() == 0 && (1..=3650 * 86_400).contains(&duration.as_secs()) => {
            Ok(duration)
        }
        _ => Err("how long it is valid is a number with s, m, h or d, from 1s to 3650d; for example 30m".to_owned()),
    }
}

fn duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(milliseconds).map(Duration::from_millis)
}

/// Parses a number of bytes: a number with K, M or G for powers of 1024.
///
/// # Errors
/// The text is none, or above 1 TiB.
pub fn bytes(text: &str) -> Result<u64, String> {
    let unit_at = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let unit: Option<u64> = match unit {
        "" => Some(1),
        "K" => Some(1 << 10),
        "M" => Some(1 << 20),
        "G" => Some(1 << 30),
        _ => None,
    };
    let bytes = number.parse::<u64>().ok().zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    bytes.filter(|bytes| *bytes <= 1 << 40).ok_or_else(|| {
        "a number of bytes is a number with nothing, K, M or G, up to 1024G; for example 256M".to_owned()
    })
}

/// Parses a time as [`timeout`] does; 0 is one, too.
///
/// # Errors
/// The text is none of these.
pub fn pause(text: &str) -> Result<Duration, String> {
    if ["0", "0s", "0ms"].contains(&text) { Ok(Duration::ZERO) } else { timeout(text) }
}

/// An end of a portal that is no node: where an application connects, or what it reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortalPlace {
    /// A TCP port.
    Tcp(HostPort),
    /// A Unix socket, by its absolute path.
    Unix(String),
}

impl fmt::Display for PortalPlace {
    /// As the API has it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortalPlace::Tcp(address) => address.fmt(formatter),
            PortalPlace::Unix(path) => write!(formatter, "unix:{path}"),
        }
    }
}

/// Parses what an outlet connects to: an address to dial as in [`dial_address`], or `unix:` and an absolute path.
///
/// # Errors
/// The text is neither.
pub fn target(text: &str) -> Result<PortalPlace, String> {
    match text.strip_prefix("unix:") {
        Some(path) => unix_path(path),
        None => match host_port(text, "127.0.0.1:5432 or unix:/run/db.sock")? {
            HostPort { port: 0, .. } => Err("port 0 cannot be dialed; give the port where the service listens".into()),
            address => Ok(PortalPlace::Tcp(address)),
        },
    }
}

/// Parses where an inlet listens: an address as in [`listen_address`], or `unix:` and an absolute path.
///
/// # Errors
/// The text is neither.
pub fn listen_place(text: &str) -> Result<PortalPlace, String> {
    match text.strip_prefix("unix:") {
        Some(path) => unix_path(path),
        None => host_port(text, "127.0.0.1:5432 or unix:/run/db.sock").map(PortalPlace::Tcp),
    }
}

fn unix_path(path: &str) -> Result<PortalPlace, String> {
    let fault = if !path.starts_with('/') || path.ends_with('/') {
        "is not an absolute path of a socket"
    } else if path.len() > UNIX_PATH_BYTES_MAX {
        "is longer than the 107 bytes that a socket's path may have"
    } else if path.chars().any(char::is_control) {
        "has a control character in it"
    } else {
        return Ok(PortalPlace::Unix(path.to_owned()));
    };
    Err(format!("what follows `unix:` {fault}; write it as in unix:/run/db.sock"))
}

/// Where an inlet leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InletTo {
    /// A route to an outlet.
    Route(RouteArg),
    /// The address of an outlet: of the same node, or of the one behind a relay.
    Service(String),
}

/// Parses where an inlet leads: a route, or the name of a service.
///
/// # Errors
/// The text is neither.
pub fn inlet_to(text: &str) -> Result<InletTo, String> {
    if text == "-" || text.contains('/') {
        return text.parse().map(InletTo::Route);
    }
    local_address(text).map(InletTo::Service)
}

/// A relay, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Via {
    /// Its name, without `forward_to_`.
    pub relay: String,
    /// The route to the relay's node; the node that is asking when absent.
    pub at: Option<MultiAddr>,
}

/// Parses `RELAY`, `RELAY@NODE` or `RELAY@ROUTE`.
///
/// # Errors
/// The text is none of these.
pub fn via(text: &str) -> Result<Via, String> {
    let (relay, at) = match text.split_once('@') {
        Some((relay, at)) => match node_or_route(at)? {
            RouteArg::Whole(at) => (relay, Some(at)),
            RouteArg::WithStdin(_) => return Err("the place of a relay is not read from stdin; write it out".into()),
        },
        None => (text, None),
    };
    let relay = local_address(relay)?;
    Ok(Via { relay: relay.strip_prefix("forward_to_").unwrap_or(&relay).to_owned(), at })
}

/// A node by its name, or what says how to make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeSource {
    /// The name.
    Name(NodeName),
    /// A file.
    File(PathBuf),
    /// Standard input.
    Stdin,
}

/// Parses the name of a node or of a file. What can be the name of a node is one, whatever files there are.
///
/// # Errors
/// The text is neither.
pub fn node_source(text: &str) -> Result<NodeSource, String> {
    if text == "-" {
        return Ok(NodeSource::Stdin);
    }
    if text.contains("://") {
        return Err("a file is not fetched from elsewhere; download it first, look at it, and give its path".into());
    }
    let path = PathBuf::from(text);
    let is_yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    match node_name(text) {
        Ok(name) => Ok(NodeSource::Name(name)),
        Err(_) if is_yaml || path.is_file() => Ok(NodeSource::File(path)),
        Err(error) => Err(error),
    }
}

/// Parses the name of a file.
///
/// # Errors
/// The text is empty or a URL.
pub fn recipe(text: &str) -> Result<NodeSource, String> {
    match text {
        "" => Err("the name of a file is missing".into()),
        text if text.contains("://") => node_source(text),
        "-" => Ok(NodeSource::Stdin),
        text => Ok(NodeSource::File(text.into())),
    }
}

/// A variable and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Parses `KEY=VALUE`.
///
/// # Errors
/// The text is something else.
pub fn variable(text: &str) -> Result<Variable, String> {
    let form = "a variable is given as KEY=VALUE, with a KEY of letters, digits and `_`; for example PORT=5432";
    let (name, value) = text.split_once('=').ok_or(form)?;
    if !is_variable_name(name) {
        return Err(form.into());
    }
    if value.is_empty() {
        return Err(format!("the variable {name} has no value; leave it out, and give a default in the file"));
    }
    Ok(Variable { name: name.to_owned(), value: value.to_owned() })
}

/// Whether text can be the name of a variable: letters, digits and `_`, no digit first.
pub fn is_variable_name(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && text.bytes().next().is_some_and(|byte| !byte.is_ascii_digit())
}

/// Parses the name of an I/O driver.
///
/// # Errors
/// The text names none.
pub fn driver(text: &str) -> Result<DriverChoice, String> {
    DriverChoice::from_str(text)
}

/// Parses the name of a service that can be started.
///
/// # Errors
/// The text names none.
pub fn service_kind(text: &str) -> Result<Service, String> {
    Service::from_name(text).ok_or_else(|| format!("`{text}` is no service; there are hop, echo and uppercase"))
}

/// Parses `FROM=TO[:PORT]`, both networks in CIDR notation or single addresses.
///
/// # Errors
/// Which half is wrong, and how it should look.
pub fn transit_rule(text: &str) -> Result<TransitRule, String> {
    transit::parse(text).map_err(sentence)
}

/// Parses a local address: `hop`, `/service/hop` or `/worker/hop`.
///
/// # Errors
/// The text is empty, too long, a route, or holds characters that cannot be in a route.
pub fn local_address(text: &str) -> Result<String, String> {
    let name = ["/service/", "/worker/", "0#"].iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
    let fault = if name.is_empty() {
        "is empty"
    } else if name.len() > LOCAL_ADDRESS_BYTES_MAX {
        "is longer than 255 bytes"
    } else if name.contains('/') {
        "is a route; give one address of one node"
    } else if name.contains('#') || name.chars().any(|char| char.is_control() || char.is_whitespace()) {
        "has a space, a `#` or a control character in it"
    } else {
        return Ok(name.to_owned());
    };
    Err(format!("the address {fault}; an address looks like hop or /service/hop"))
}

/// Parses the id of a flow control: 32 hexadecimal digits.
///
/// # Errors
/// The text is something else.
pub fn flow_control_id(text: &str) -> Result<String, String> {
    if is_hex_id(text) {
        return Ok(text.to_ascii_lowercase());
    }
    Err("a flow control id is 32 hexadecimal digits; `ockam tcp-listener list` shows those of a node".to_owned())
}

/// Parses what names a listener: its address or its flow control id.
///
/// # Errors
/// The text is neither.
pub fn listener_id(text: &str) -> Result<String, String> {
    if is_hex_id(text) {
        return Ok(text.to_ascii_lowercase());
    }
    match listen_address(text) {
        Ok(address) => Ok(address.to_string()),
        Err(why) => Err(format!("{why}, or give the flow control id of the listener (32 hexadecimal digits)")),
    }
}

/// Parses what names a link: its local address or the address of its peer.
///
/// # Errors
/// The text is neither.
pub fn connection_id(text: &str) -> Result<String, String> {
    let name = ["/worker/", "/service/", "0#"].iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
    if is_hex_id(name) {
        return Ok(name.to_ascii_lowercase());
    }
    match dial_address(text) {
        Ok(address) => Ok(address.to_string()),
        Err(why) => Err(format!("{why}, or give the address of the link (/worker/ and 32 hexadecimal digits)")),
    }
}

/// Parses the identifier of an identity.
///
/// # Errors
/// The text is something else.
pub fn identifier(text: &str) -> Result<Identifier, String> {
    Identifier::from_str(text).map_err(|_| {
        "an identifier is `I` and 64 hexadecimal digits; `ockam identity show` and `ockam node show` print it"
            .to_owned()
    })
}

/// Parses what names a secure channel: its address.
///
/// # Errors
/// The text is something else.
pub fn channel_address(text: &str) -> Result<String, String> {
    let name = ["/service/", "/worker/", "0#"].iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
    if is_hex_id(name) {
        return Ok(name.to_ascii_lowercase());
    }
    Err("a secure channel is named by its address, /service/ and 32 hexadecimal digits; \
         `ockam secure-channel list` shows those of a node"
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        for (text, want) in [
            ("6001", "127.0.0.1:6001"),
            (":6001", "127.0.0.1:6001"),
            ("0", "127.0.0.1:0"),
            ("0.0.0.0:4000", "0.0.0.0:4000"),
            ("[::1]:6001", "[::1]:6001"),
            ("localhost:6001", "localhost:6001"),
            ("my_host.example.org:65535", "my_host.example.org:65535"),
        ] {
            assert_eq!(listen_address(text).map(|address| address.to_string()).as_deref(), Ok(want));
        }
        for text in [
            "",
            ":",
            "n1",
            "host:",
            "host:http",
            "host:70000",
            "99999",
            "127.0.0.1:99999",
            "-1",
            "127.0.0.1",
            "127.0.0.1:",
            "300.0.0.1:1",
            "1.2.3:1",
            "::1:6001",
            "[::1:6001",
            "a b:1",
            "a/b:1",
            "a..b:1",
            "host:-1",
            "host:+1x",
            "\u{e9}:1",
        ] {
            assert!(listen_address(text).is_err(), "{text:?} was taken");
        }
        assert!(dial_address("127.0.0.1:0").is_err());
    }

    #[test]
    fn a_bad_port_is_what_is_named() {
        for text in ["127.0.0.1:99999", "localhost:99999", ":99999", "99999", "127.0.0.1:-1"] {
            let error = listen_address(text).unwrap_err();
            assert!(error.contains("is no port"), "{text}: {error}");
        }
    }

    #[test]
    fn times() {
        for (text, want) in
            [("10", 10_000), ("10s", 10_000), ("250ms", 250), ("2m", 120_000), ("1h", 3_600_000), ("1d", 86_400_000)]
        {
            assert_eq!(timeout(text), Ok(Duration::from_millis(want)));
        }
        for text in
            ["", "s", "0", "0ms", "-1s", "1.5s", "10 s", "1w", "2d", "99999999999999999999", "18446744073709551615d"]
        {
            assert!(timeout(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn places_of_applications() {
        for (text, want) in [
            ("5432", "127.0.0.1:5432"),
            ("db.example:5432", "db.example:5432"),
            ("[::1]:5432", "[::1]:5432"),
            ("unix:/run/db.sock", "unix:/run/db.sock"),
        ] {
            assert_eq!(target(text).map(|it| it.to_string()).as_deref(), Ok(want));
            assert_eq!(listen_place(text).map(|it| it.to_string()).as_deref(), Ok(want));
        }
        assert_eq!(listen_place("127.0.0.1:0").map(|it| it.to_string()).as_deref(), Ok("127.0.0.1:0"));
        let long = format!("unix:/{}", "x".repeat(107));
        for bad in ["", "0", "127.0.0.1:0", "db", "unix:", "unix:db.sock", "unix:/run/", "unix:/a\nb", &long] {
            assert!(target(bad).is_err(), "{bad:?} was taken");
        }
        assert!(target(&long[..long.len() - 1]).is_ok());
    }

    #[test]
    fn relays_and_where_they_are() {
        let node = |route: &str| Some(route.parse().unwrap());
        for (text, relay, at) in [
            ("far", "far", None),
            ("forward_to_far", "far", None),
            ("far@n2", "far", node("/node/n2")),
            ("far@/ip4/10.0.0.1/tcp/1/secure/api", "far", node("/ip4/10.0.0.1/tcp/1/secure/api")),
        ] {
            assert_eq!(via(text), Ok(Via { relay: relay.into(), at }), "{text}");
        }
        for bad in ["", "@n2", "far@", "far@n 2", "far@-", "a/b", "far@/nonsense/x"] {
            assert!(via(bad).is_err(), "{bad:?} was taken");
        }
        for (text, is_route) in [("outlet", false), ("/service/outlet", true), ("-/service/x", true), ("-", true)] {
            assert_eq!(inlet_to(text).map(|to| matches!(to, InletTo::Route(_))), Ok(is_route), "{text}");
        }
        assert!(inlet_to("").is_err() && inlet_to("a b").is_err() && inlet_to("a/b").is_err());
    }

    #[test]
    fn files_and_names_of_nodes() {
        let name = |text: &str| NodeSource::Name(text.parse().unwrap());
        let file = |text: &str| NodeSource::File(text.into());
        for (text, want) in [
            ("n1", name("n1")),
            ("-", NodeSource::Stdin),
            ("missing.yaml", file("missing.yaml")),
            ("a/b.yml", file("a/b.yml")),
            ("/etc/passwd", file("/etc/passwd")),
        ] {
            assert_eq!(node_source(text), Ok(want));
        }
        for bad in ["", ".", "..", "/etc", "a/b", "n.1", "https://example.org/node.yaml", "-n"] {
            assert!(node_source(bad).is_err(), "{bad:?} was taken");
        }
        assert_eq!(recipe("n1"), Ok(file("n1")));
        assert!(recipe("").is_err() && recipe("http://x/y.yaml").is_err());
    }

    #[test]
    fn variables_have_names_and_values() {
        assert_eq!(variable("A_1=b=c"), Ok(Variable { name: "A_1".into(), value: "b=c".into() }));
        for bad in ["", "A", "=b", "A=", "1A=b", "A-B=c", " A=b"] {
            assert!(variable(bad).is_err(), "{bad:?} was taken");
        }
        assert_eq!([pause("0"), pause("0ms"), pause("5s")].map(|it| it.unwrap().as_secs()), [0, 0, 5]);
        assert!(pause("soon").is_err() && pause("2d").is_err());
    }

    #[test]
    fn local_addresses() {
        for text in ["hop", "/service/hop", "/worker/hop", "0#hop"] {
            assert_eq!(local_address(text).as_deref(), Ok("hop"));
        }
        let long = "x".repeat(256);
        for text in ["", "/service/", "/service/a/service/b", "a b", "a\n", "1#a", "a\u{7f}", &long] {
            assert!(local_address(text).is_err(), "{text:?} was taken");
        }
        assert!(local_address(&long[1..]).is_ok());
    }

    #[test]
    fn identifiers() {
        let id = "0123456789ABCDEF0123456789abcdef";
        assert_eq!(flow_control_id(id), Ok(id.to_lowercase()));
        assert!(flow_control_id(&id[1..]).is_err());
        assert!(flow_control_id(&id.replace('A', "g")).is_err());
        assert_eq!(listener_id("6001").as_deref(), Ok("127.0.0.1:6001"));
        assert_eq!(listener_id(id), Ok(id.to_lowercase()));
        assert_eq!(connection_id(&format!("/worker/{id}")), Ok(id.to_lowercase()));
        assert_eq!(connection_id("localhost:1").as_deref(), Ok("localhost:1"));
        assert!(connection_id("/worker/xyz").is_err());
    }

    #[test]
    fn identities_and_channels() {
        let text = format!("I{}", "0a".repeat(32));
        assert_eq!(identifier(&text).map(|it| it.to_string()).as_deref(), Ok(text.as_str()));
        for bad in ["", "I", "alice", &text[1..], &text[..64], &text.replace('I', "P"), &format!("{text}0")] {
            assert!(identifier(bad).is_err(), "{bad:?} was taken");
        }
        let id = "0123456789abcdef0123456789abcdef";
        for text in [id.to_owned(), format!("/service/{id}"), format!("/worker/{id}"), id.to_uppercase()] {
            assert_eq!(channel_address(&text).as_deref(), Ok(id));
        }
        for bad in ["", "api", "/service/api", &id[1..], "/service/a/service/b"] {
            assert!(channel_address(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn nodes_with_and_without_prefix() {
        assert_eq!(node_ref("/node/n1"), node_ref("n1"));
        for text in ["", "/node/", "/node/n1/", "n 1", "../n1", "n1/n2", "/service/n1", ".", "\u{e9}"] {
            assert!(node_ref(text).is_err(), "{text:?} was taken");
        }
    }
}
