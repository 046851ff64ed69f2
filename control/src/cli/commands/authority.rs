//! `ockam authority`.

use super::Session;
use super::apply::{Before, before};
use crate::authority::{AuthoritySettings, ENROLLER, ROLE};
use crate::cli::args::LogFormat;
use crate::cli::args::authority::{AuthorityCommand, AuthorityCreate, AuthorityShow};
use crate::cli::input;
use crate::cli::plan::{self, dialable};
use crate::cli::show::Output;
use crate::error::Error;
use crate::home::NodeName;
use crate::identities::Identities;
use crate::process::{ControlStart, NodeOptions, control_process};
use crate::projects::Project;
use crate::store::NodeStore;
use ockam_wire::{MultiAddr, Protocol};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// Where a new authority listens when nothing else is said.
const LISTENER_DEFAULT: &str = "127.0.0.1:4000";

/// The name of its project as others see it, until they give it another one.
const PROJECT_NAME: &str = "default";

/// Longest JSON of trusted identities in bytes.
const TRUSTED_BYTES_MAX: usize = 1 << 20;

/// Runs a command.
///
/// # Errors
/// What the command says.
pub fn run(command: AuthorityCommand, session: &mut Session) -> Result<(), Error> {
    match command {
        AuthorityCommand::Create(arguments) => create(*arguments, session),
        AuthorityCommand::Show(AuthorityShow { node, authority_route, project_access_route }) => {
            let project = project(&node.0, authority_route, project_access_route, session)?;
            print(&node.0, &project, session, "Its project, for `ockam project import`, is under --output json.")
        }
    }
}

fn create(arguments: AuthorityCreate, session: &mut Session) -> Result<(), Error> {
    let name = arguments.name.clone();
    let was = before(&name, session)?;
    let stored = match was {
        Before::Running => return Err(Error::NodeRunning { name: name.to_string() }),
        Before::Stopped => Some(settings_of(&name, session)?),
        Before::New => None,
    };
    let settings = settings(&arguments, stored, session)?;
    let is_new = was == Before::New;
    let identity = match (&arguments.identity, is_new) {
        (Some(identity), _) => Some(identity.clone()),
        // Not the default one, which is whoever sits here: who may be anybody's authority has a key for nothing else.
        (None, true) => Some(name.to_string()),
        (None, false) => None,
    };
    let address = arguments.tcp_listener_address.as_ref().map(ToString::to_string);
    let options = NodeOptions {
        tcp_listener_address: address.or_else(|| is_new.then(|| LISTENER_DEFAULT.to_owned())),
        identity,
        authority: Some(settings),
        ..NodeOptions::default()
    };
    session.log.json = arguments.log_format == Some(LogFormat::Json);
    if arguments.foreground {
        let start = ControlStart { create: Some(options), log: session.log.clone() };
        return control_process::run_in_foreground(session.home()?, &name, start, false, None);
    }
    session.create(&name, options)?;
    let project = project(&name, arguments.authority_route, arguments.project_access_route, session)?;
    let next = format!("Try: ockam authority show {name} --output json > project.json");
    print(&name, &project, session, &next)
}

fn print(name: &NodeName, project: &Project, session: &Session, next: &str) -> Result<(), Error> {
    let json = project.to_json();
    let plain = || {
        format!(
            "The node {name} is the authority of the project {}.\n  identifier  {}\n  route       {}\n{next}",
            project.id,
            project.authority.identifier(),
            project.authority_route
        )
    };
    session.terminal.print(Output::new(&json, plain).machine(name.to_string()))
}

/// What makes it an authority: as it was, with what is given in its place.
fn settings(
    arguments: &AuthorityCreate,
    stored: Option<AuthoritySettings>,
    session: &mut Session,
) -> Result<AuthoritySettings, Error> {
    let is_new = stored.is_none();
    let mut settings = stored.unwrap_or_else(|| AuthoritySettings::new(crate::random::hex_id()));
    if let Some(id) = &arguments.project_identifier {
        settings.project_identifier.clone_from(id);
    }
    let mut trusted = match &arguments.trusted_identities {
        Some(given) => trusted_identities(given)?,
        None => BTreeMap::new(),
    };
    for name in &arguments.enroller {
        let attributes: &mut BTreeMap<String, String> = trusted.entry(identifier(name, session)?).or_default();
        attributes.insert(ROLE.into(), ENROLLER.into());
    }
    if !trusted.is_empty() {
        settings.trusted_identities = trusted;
    } else if is_new {
        return Err(Error::InputMissing {
            what: "who may add members to the new authority".into(),
            fix: "Give --enroller and an identity, such as one that `ockam identity create admin` makes; or --trusted-identities."
                .into(),
        });
    }
    settings.no_direct_authentication |= arguments.no_direct_authentication;
    settings.no_token_enrollment |= arguments.no_token_enrollment;
    settings.enforce_admin_checks |= arguments.enforce_admin_checks;
    settings.disable_trust_context_id |= arguments.disable_trust_context_id;
    if let Some(ttl) = arguments.credential_ttl {
        settings.credential_ttl_secs = ttl.as_secs();
    }
    settings.check()?;
    Ok(settings)
}

/// Reads what `--trusted-identities` says, or the file that it names.
fn trusted_identities(given: &str) -> Result<BTreeMap<String, BTreeMap<String, String>>, Error> {
    let argument = "--trusted-identities";
    let bad = |why: String| Error::BadData {
        what: format!("the JSON of {argument}"),
        why,
        fix: r#"Write a map of identifiers to maps of attributes: {"I01..": {"ockam-role": "enroller"}}."#.into(),
    };
    let bytes = match given.trim_start().starts_with('{') {
        true => given.as_bytes().to_vec(),
        false => input::read(Path::new(given), "trusted identities", TRUSTED_BYTES_MAX)?,
    };
    let read: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
    match read.is_empty() {
        true => Err(bad("nobody is in it".into())),
        false => Ok(read),
    }
}

fn identifier(name: &str, session: &mut Session) -> Result<String, Error> {
    if name.parse::<ockam_crypto::Identifier>().is_ok() {
        return Ok(name.to_owned());
    }
    let unknown = || Error::NoSuchIdentity { name: name.into(), near: Vec::new() };
    let identities = Identities::open_existing(session.home()?)?.ok_or_else(unknown)?;
    Ok(identities.find(Some(name))?.identifier.to_string())
}

/// What makes a node that exists an authority.
fn settings_of(name: &NodeName, session: &mut Session) -> Result<AuthoritySettings, Error> {
    let store = NodeStore::open(&session.required(name)?)?;
    store.authority_settings()?.ok_or_else(|| Error::BadArgument {
        argument: "the name of the node".into(),
        value: name.to_string(),
        why: "is that of a node that is no authority".into(),
        fix: "Choose another name, or see `ockam node show` for what this node is.".into(),
    })
}

/// The project of an authority of this home. Routes that are not given are those of its first listener.
fn project(
    name: &NodeName,
    authority_route: Option<MultiAddr>,
    node_route: Option<MultiAddr>,
    session: &mut Session,
) -> Result<Project, Error> {
    let settings = settings_of(name, session)?;
    let no_identity = || Error::internal("an authority without an identity");
    let identifier = session.store()?.map_or(Ok(None), |store| store.node_identity(name))?.ok_or_else(no_identity)?;
    let identities = Identities::open(session.home()?)?;
    let authority = identities.known(&identifier)?.ok_or_else(no_identity)?;
    let authority_route = match authority_route {
        Some(route) => without_names(&route, session)?,
        None => {
            let listeners = NodeStore::open(&session.required(name)?)?.listeners()?;
            let first = listeners.first().ok_or_else(|| Error::NoListenerOfNode { name: name.to_string() })?;
            if first.address.ip().is_unspecified() {
                session.terminal.warn(
                    "its project has a route that leads to it from this machine only; say with --authority-route how others \
                     reach it",
                );
            }
            route_to(first.address)?
        }
    };
    Project::from_json(
        &Project {
            id: settings.project_identifier,
            name: PROJECT_NAME.into(),
            authority,
            authority_route,
            node_route,
            node: None,
            space_name: String::new(),
            space_id: String::new(),
        }
        .to_json()
        .to_string(),
    )
}

/// As real nodes write it.
fn route_to(listener: SocketAddr) -> Result<MultiAddr, Error> {
    let address = dialable(listener);
    let host = match address.ip() {
        IpAddr::V4(ip) => Protocol::Ip4(ip),
        IpAddr::V6(ip) => Protocol::Ip6(ip),
    };
    let parts = vec![host, Protocol::Tcp(address.port()), Protocol::Service("api".into())];
    MultiAddr::try_from(parts).map_err(|error| Error::internal(error.to_string()))
}

/// The route to a listener for secure channels, `/service/api` where none is said, with addresses in the place of the
/// names of nodes of this home.
///
/// # Errors
/// As [`plan::resolve`].
pub(super) fn without_names(route: &MultiAddr, session: &mut Session) -> Result<MultiAddr, Error> {
    let mut parts = route.protocols().to_vec();
    match parts.pop() {
        Some(Protocol::Secure(name) | Protocol::Service(name) | Protocol::Worker(name)) => {
            parts.push(Protocol::Service(name));
        }
        last => parts.extend(last.into_iter().chain([Protocol::Service("api".into())])),
    }
    let argument = "--authority-route";
    let whole = MultiAddr::try_from(parts).map_err(|error| Error::BadArgument {
        argument: argument.into(),
        value: route.to_string(),
        why: format!("is no route: {error}"),
        fix: "Write it like /dnsaddr/authority.example/tcp/4000/service/api.".into(),
    })?;
    Ok(plan::resolve(&whole, argument, |name| session.listener_of(name))?.multiaddr)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::show::Terminal;
    use crate::process::LogOptions;

    fn session() -> Session {
        let terminal = Terminal {
            format: crate::cli::args::OutputFormat::Plain,
            compact: false,
            quiet: true,
            interactive: false,
            colour: false,
            stdout_is_terminal: false,
        };
        Session::new(terminal, LogOptions::default())
    }

    #[test]
    fn trusted_identities_are_json_or_a_file_with_it() {
        let id = format!("I{}", "01".repeat(32));
        let json = format!(r#"{{"{id}": {{"ockam-role": "enroller", "name": "admin"}}}}"#);
        let read = trusted_identities(&json).unwrap();
        assert_eq!(read[&id]["ockam-role"], "enroller");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trusted.json");
        std::fs::write(&path, &json).unwrap();
        assert_eq!(trusted_identities(path.to_str().unwrap()).unwrap(), read);
        for (bad, exit) in [("{}", 65), ("{", 65), (r#"{"a": 1}"#, 65), (r#"{"a": {"b": 1}}"#, 65), ("/nowhere", 66)] {
            assert_eq!(trusted_identities(bad).unwrap_err().exit(), exit, "{bad}");
        }
    }

    #[test]
    fn a_route_to_an_authority_ends_with_its_listener() {
        let mut session = session();
        for (typed, want) in [
            ("/ip4/10.0.0.1/tcp/4000", "/ip4/10.0.0.1/tcp/4000/service/api"),
            ("/ip4/10.0.0.1/tcp/4000/secure/api", "/ip4/10.0.0.1/tcp/4000/service/api"),
            ("/dnsaddr/a/tcp/1/service/x", "/dnsaddr/a/tcp/1/service/x"),
        ] {
            assert_eq!(without_names(&typed.parse().unwrap(), &mut session).unwrap().to_string(), want);
        }
        assert_eq!(without_names(&"/tcp/1".parse().unwrap(), &mut session).unwrap_err().exit(), 64);
        let route = |listener: &str| route_to(listener.parse().unwrap()).unwrap().to_string();
        assert_eq!(route("0.0.0.0:4000"), "/ip4/127.0.0.1/tcp/4000/service/api");
        assert_eq!(route("[::1]:4000"), "/ip6/::1/tcp/4000/service/api");
    }
}
