//! Does what a file says ([`crate::node_file`]): through the same calls as the commands. What is there already, with the
//! same arguments, is left alone; what is there with others is an error before anything is changed, or is made anew if that
//! was asked for. When something fails, what was made is taken away again: nodes that are new are deleted, those that were
//! stopped are stopped, and of those that ran all goes that was added. Vaults and identities stay, and what was made anew.

use super::credential::history_of;
use super::{Session, authority, policy, project, relay, tcp_inlet, tcp_outlet, ticket};
use crate::api::{
    CreatePolicy, CreateRelay, CreateTcpInlet, CreateTcpOutlet, NodeInfo, NodeStatus, PolicyInfo, PolicySource,
    RelayInfo, ResourceType, TcpInletInfo, TcpOutletInfo, path,
};
use crate::cli::args::LogFormat;
use crate::cli::args::node::{Believed, NodeCreate};
use crate::cli::args::policy::PolicyCreate;
use crate::cli::args::relay::RelayCreate;
use crate::cli::args::tcp_inlet::TcpInletCreate;
use crate::cli::args::tcp_outlet::TcpOutletCreate;
use crate::cli::client::{Control, item};
use crate::cli::values::{NodeRef, NodeSource, Variable};
use crate::error::Error;
use crate::home::NodeName;
use crate::identities::{Identities, IdentityRow};
use crate::node_file::{self, Kind, Plan, Step, TEXT_BYTES_MAX};
use crate::process::{NodeOptions, TrustOptions, stop};
use crate::projects::{Project, Projects, acquaint};
use crate::transit;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::net::ToSocketAddrs;
use std::path::Path;
use std::time::Duration;

/// What credentials are filed under when neither a project nor anything else says so.
const SCOPE_DEFAULT: &str = "project";

/// A text, and what it is called in errors.
pub struct Text {
    /// As `the file node.yaml`.
    pub what: String,
    /// What it says.
    pub text: String,
}

impl Text {
    /// The text of an argument.
    pub fn of_argument(argument: &str, text: String) -> Text {
        Text { what: format!("the text of {argument}"), text }
    }

    /// The text of a file or of standard input.
    ///
    /// # Errors
    /// It cannot be read, is longer than 1 MiB, or no UTF-8.
    pub fn read(source: &NodeSource) -> Result<Text, Error> {
        match source {
            NodeSource::File(path) => Text::of_file(path),
            NodeSource::Stdin | NodeSource::Name(_) => {
                Text::of_reader("standard input".into(), std::io::stdin().lock())
            }
        }
    }

    fn of_file(path: &Path) -> Result<Text, Error> {
        let what = format!("the file {}", path.display());
        let file = File::open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::InputMissing {
                what: what.clone(),
                fix: "Check its name; a node is created from what a file of this name says.".into(),
            },
            _ => Error::Io { what: format!("cannot read {what}"), errno: error.raw_os_error().unwrap_or(0) },
        })?;
        Text::of_reader(what, file)
    }

    fn of_reader(what: String, reader: impl Read) -> Result<Text, Error> {
        let mut bytes = Vec::new();
        let read = reader.take(TEXT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|error| Error::Io {
            what: format!("cannot read {what}"),
            errno: error.raw_os_error().unwrap_or(0),
        })?;
        let text = String::from_utf8(bytes).map_err(|error| Error::BadData {
            what: what.clone(),
            why: format!("it is not text: byte {} is not UTF-8", error.utf8_error().valid_up_to() + 1),
            fix: "Save it as UTF-8.".into(),
        })?;
        Ok(Text { what, text })
    }

    /// What it asks for, with the variables that were typed and those of the environment.
    ///
    /// # Errors
    /// What is wrong with it, and where; a variable that was typed twice.
    pub fn plan(&self, kind: Kind, variables: &[Variable]) -> Result<Plan, Error> {
        for (index, variable) in variables.iter().enumerate() {
            if variables[..index].iter().any(|before| before.name == variable.name) {
                return Err(Error::BadArgument {
                    argument: "--variable".into(),
                    value: variable.name.clone(),
                    why: "is given twice".into(),
                    fix: "Give each variable one value.".into(),
                });
            }
        }
        let environment = |name: &str| match std::env::var(name) {
            Ok(value) => Ok(Some(value)),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => Err("of the environment is not UTF-8".to_owned()),
        };
        node_file::read(&self.text, kind, variables, &environment).map_err(|fault| fault.error(&self.what))
    }
}

/// What is done of a plan.
#[derive(Default)]
pub struct Done {
    /// The nodes of the plan, as they were.
    nodes: Vec<(NodeName, Before)>,
    /// What was added, in order: the node, and the path of its API.
    added: Vec<(NodeName, String)>,
    /// What is made anew, likewise.
    replaced: Vec<(NodeName, String)>,
}

/// What a node was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// There was none of the name.
    New,
    /// It did not run.
    Stopped,
    /// It ran.
    Running,
}

impl Done {
    /// What was added, as the paths of the API have it.
    pub fn added(&self) -> impl Iterator<Item = (&NodeName, &str)> {
        self.added.iter().map(|(node, path)| (node, path.as_str()))
    }

    /// What was made anew, as the paths of the API have it.
    pub fn replaced(&self) -> impl Iterator<Item = (&NodeName, &str)> {
        self.replaced.iter().map(|(node, path)| (node, path.as_str()))
    }

    /// The nodes, as they were before.
    pub fn nodes(&self) -> &[(NodeName, Before)] {
        &self.nodes
    }

    /// Takes everything away again. That it cannot be is said, and is not the error that matters.
    fn undo(self, session: &mut Session) {
        for (node, path) in self.added.iter().rev() {
            let deleted = session.control(node).and_then(|mut control| control.delete::<serde_json::Value>(path));
            warn_left(session, deleted, &format!("{path} of {node}"));
        }
        for (node, before) in self.nodes.iter().rev() {
            let undone = match before {
                Before::New => session.home().cloned().and_then(|home| stop::delete(&home, node)),
                Before::Stopped => {
                    session.home().map(|home| home.node(node)).and_then(|dir| stop::stop(&dir)).map(drop)
                }
                Before::Running => Ok(()),
            };
            warn_left(session, undone, &format!("the node {node}"));
        }
    }
}

fn warn_left<T>(session: &Session, undone: Result<T, Error>, what: &str) {
    if let Err(error) = undone {
        session.terminal.warn(format_args!("{what} is left as it was made: {error}"));
    }
}

/// Does all of it.
///
/// # Errors
/// Those of the commands; what is there with other arguments. Nothing is left of it then.
pub fn apply(mut plan: Plan, differing: Differing, session: &mut Session) -> Result<Done, Error> {
    vaults_and_identities(&mut plan, session)?;
    let mut done = Done::default();
    let applied =
        nodes(&mut plan, differing, &mut done, session).and_then(|()| things(plan, differing, &mut done, session));
    match applied {
        Ok(()) => Ok(done),
        Err(error) => {
            done.undo(session);
            Err(error)
        }
    }
}

/// Adds what is of one node, which runs.
///
/// # Errors
/// As [`apply`].
pub fn add(node: NodeName, plan: Plan, differing: Differing, session: &mut Session) -> Result<(), Error> {
    let mut done = Done { nodes: vec![(node, Before::Running)], ..Done::default() };
    let added = things(plan, differing, &mut done, session);
    if added.is_err() {
        done.undo(session);
    }
    added
}

/// Makes the vaults and identities that are not there.
///
/// # Errors
/// Those of `vault create` and `identity create`; an identity that is in another vault.
pub fn vaults_and_identities(plan: &mut Plan, session: &mut Session) -> Result<(), Error> {
    if plan.vaults.is_empty() && plan.identities.is_empty() {
        return Ok(());
    }
    let mut identities = Identities::open(session.home()?)?;
    for step in plan.vaults.drain(..) {
        let wanted = step.arguments;
        let there = identities.vaults()?.into_iter().find(|it| Some(&it.name) == wanted.name.as_ref());
        match there {
            Some(there) if wanted.path.as_ref().is_some_and(|path| *path != there.place.path) => {
                return Err(differs("vault", &there.name, "its file is another one", "ockam vault show"));
            }
            Some(_) => {}
            None => {
                let (path, passphrase) = (wanted.path.as_deref(), wanted.passphrase_file.as_deref());
                identities.create_vault(wanted.name.as_deref(), path, passphrase)?;
            }
        }
    }
    for step in plan.identities.drain(..) {
        let wanted = step.arguments;
        let there = identities.list()?.into_iter().find(|it| it.name.is_some() && it.name == wanted.name);
        match there {
            Some(there) if wanted.vault.is_some() && wanted.vault != there.vault => {
                let name = there.name.unwrap_or_default();
                return Err(differs("identity", &name, "its key is in another vault", "ockam identity show"));
            }
            Some(there) if there.vault.is_none() => {
                let name = there.name.unwrap_or_default();
                return Err(differs("identity", &name, "it is somebody else's", "ockam identity show"));
            }
            Some(_) => {}
            None => drop(identities.create(wanted.name.as_deref(), wanted.vault.as_deref())?),
        }
    }
    Ok(())
}

fn differs(what: &'static str, name: &str, why: &str, see: &str) -> Error {
    Error::DiffersFromFile { what, name: name.to_owned(), why: why.to_owned(), see: see.to_owned() }
}

/// What a node is now.
///
/// # Errors
/// Those of the database and of locks.
pub fn before(name: &NodeName, session: &mut Session) -> Result<Before, Error> {
    let known = session.store()?.map_or(Ok(Vec::new()), |store| store.nodes())?;
    if known.iter().all(|node| node.name != *name) {
        return Ok(Before::New);
    }
    match session.home()?.node(name).status()? {
        NodeStatus::Stopped => Ok(Before::Stopped),
        NodeStatus::Running | NodeStatus::Headless => Ok(Before::Running),
    }
}

/// What `node create` tells the control process. A ticket is redeemed first, so that nothing is made for who is refused.
///
/// # Errors
/// Those of enrolment; a project or an identity that is not known.
pub fn options(name: &NodeName, arguments: &NodeCreate, session: &mut Session) -> Result<NodeOptions, Error> {
    let enrolled = match ticket::given(arguments.enrollment_ticket.as_ref(), session)? {
        Some(ticket) => Some(project::enroll_once(&ticket, &identity(name, arguments, session)?, session)?),
        None => None,
    };
    Ok(NodeOptions {
        tcp_listener_address: arguments.tcp_listener_address.as_ref().map(ToString::to_string),
        driver: arguments.driver.map(|driver| driver.to_string()),
        threads: arguments.threads,
        pin: arguments.pin.then_some(true),
        portal_memory: arguments.portal_memory,
        identity: arguments.identity.clone(),
        allow_transit: (!arguments.allow_transit.is_empty())
            .then(|| arguments.allow_transit.iter().map(transit::text).collect()),
        authority: None,
        trust: trust(name, &arguments.believed, enrolled, session)?,
    })
}

/// Who a node is that is about to be made or started.
fn identity(name: &NodeName, arguments: &NodeCreate, session: &mut Session) -> Result<IdentityRow, Error> {
    let recorded = match (&arguments.identity, session.store()?) {
        (None, Some(store)) if before(name, session)? != Before::New => store.node_identity(name)?,
        _ => None,
    };
    let recorded = recorded.map(|identifier| identifier.to_string());
    let wanted = arguments.identity.as_deref().or(recorded.as_deref());
    Identities::open(session.home()?)?.named_or_created(wanted)
}

/// Whom a node is to believe: who is named, the ticket's authority, for a new node that of the default project. `None`
/// leaves it as it is.
fn trust(
    name: &NodeName,
    believed: &Believed,
    enrolled: Option<Project>,
    session: &mut Session,
) -> Result<Option<TrustOptions>, Error> {
    if let Some(identity) = &believed.authority_identity {
        // Without a route nobody is asked for a credential.
        let route = believed.authority_route.as_ref().map(|route| authority::without_names(route, session));
        return Ok(Some(TrustOptions {
            history: history_of(identity, "--authority-identity", session)?.to_hex(),
            route: route.transpose()?.map_or_else(String::new, |route| route.to_string()),
            scope: believed.credential_scope.clone().unwrap_or_else(|| SCOPE_DEFAULT.to_owned()),
        }));
    }
    let project = match (&believed.project, enrolled) {
        (Some(named), _) => Some(project::known(Some(named), session)?.project),
        (None, Some(enrolled)) => Some(enrolled),
        (None, None) if before(name, session)? == Before::New => {
            let projects = Projects::open_existing(session.home()?)?;
            projects.map_or(Ok(None), |projects| projects.default_project())?.map(|known| known.project)
        }
        (None, None) => None,
    };
    let Some(mut project) = project else { return Ok(None) };
    project.authority = acquaint(&mut Identities::open(session.home()?)?, &project)?;
    project.authority_route = authority::without_names(&project.authority_route, session)?;
    Ok(Some(project.trust()))
}

fn nodes(plan: &mut Plan, differing: Differing, done: &mut Done, session: &mut Session) -> Result<(), Error> {
    for step in plan.nodes.drain(..) {
        let wanted = step.arguments;
        let name = match &wanted.name {
            Some(NodeSource::Name(name)) => name.clone(),
            _ => session.unused_name()?,
        };
        let mut was = before(&name, session)?;
        if was == Before::Running {
            match same_node(&name, &wanted, session) {
                Err(Error::NodeDiffersFromFile { .. }) if differing == Differing::Replaced => {
                    stop::stop(&session.home()?.node(&name))?;
                    was = Before::Stopped;
                }
                same => same?,
            }
        }
        if was != Before::Running {
            session.log.json = wanted.log_format == Some(LogFormat::Json);
            let options = options(&name, &wanted, session)?;
            session.create(&name, options)?;
        }
        done.nodes.push((name, was));
    }
    Ok(())
}

/// Whether a node that runs is what is wanted, as far as that shows and matters to others: where it listens, who it is,
/// what it dials. How its engine runs is looked at when it is started the next time.
fn same_node(name: &NodeName, wanted: &NodeCreate, session: &mut Session) -> Result<(), Error> {
    let info: NodeInfo = session.control(name)?.get(path::NODE)?;
    let why = match (&wanted.tcp_listener_address, info.tcp_listeners.first()) {
        (Some(address), Some(listener)) if !is_at(&address.to_string(), &listener.address) => {
            Some(format!("it listens on {}", listener.address))
        }
        _ => None,
    };
    let rules: Vec<String> = wanted.allow_transit.iter().map(transit::text).collect();
    let why = why.or_else(|| {
        (!rules.is_empty() && rules != info.transit_rules).then(|| "its transit rules are others".to_owned())
    });
    let identity = match &wanted.identity {
        Some(identity) => session.identity_of(name)?.filter(|it| it.name.as_ref() != Some(identity)),
        None => None,
    };
    let why = why.or_else(|| identity.map(|it| format!("its identity is {}", it.name.unwrap_or(it.identifier))));
    let why = match why {
        Some(why) => Some(why),
        None => other_authority(&wanted.believed, &info, session)?,
    };
    match why {
        Some(why) => Err(Error::NodeDiffersFromFile { node: name.to_string(), why }),
        None => Ok(()),
    }
}

/// How the authority that a node believes differs from the one that is named for it, as the end of a sentence.
fn other_authority(wanted: &Believed, info: &NodeInfo, session: &mut Session) -> Result<Option<String>, Error> {
    let named = match (&wanted.project, &wanted.authority_identity) {
        (Some(name), _) => project::known(Some(name), session)?.project.authority.identifier(),
        (None, Some(identity)) => history_of(identity, "authority-identity", session)?.identifier(),
        (None, None) => return Ok(None),
    };
    let believed = info.authority.as_ref().map(|authority| authority.identifier.as_str());
    Ok((believed != Some(&named.to_string())).then(|| match believed {
        Some(believed) => format!("it believes the authority {believed}"),
        None => "it believes no authority".to_owned(),
    }))
}

/// Whether `found`, which is bound, is what `wanted` asks for: port 0 is any port.
fn is_at(wanted: &str, found: &str) -> bool {
    let Ok(mut resolved) = wanted.to_socket_addrs() else { return wanted == found };
    let Ok(found) = found.parse::<std::net::SocketAddr>() else { return false };
    resolved.any(|wanted| wanted.ip() == found.ip() && (wanted.port() == 0 || wanted.port() == found.port()))
}

/// What one node shall get.
#[derive(Default)]
struct Wanted {
    policies: Vec<CreatePolicy>,
    /// Policies that are given with an outlet or inlet, by its name.
    allowed: Vec<(ResourceType, String, String)>,
    relays: Vec<(CreateRelay, Duration)>,
    outlets: Vec<CreateTcpOutlet>,
    inlets: Vec<(CreateTcpInlet, Duration)>,
    /// The paths of the policies in whose place others come.
    overwritten: Vec<String>,
}

/// Makes policies, relays, outlets and inlets, those of all nodes in this order.
fn things(plan: Plan, differing: Differing, done: &mut Done, session: &mut Session) -> Result<(), Error> {
    // Of a file of one node all is of this node, whatever its name came to be.
    let only = match done.nodes.as_slice() {
        [(name, _)] => Some(name.clone()),
        _ => None,
    };
    let mut of: BTreeMap<NodeName, Wanted> = BTreeMap::new();
    let Plan { policies, relays, mut outlets, inlets, .. } = plan;
    // The first without a name is called as the command calls it, unless another one is called so.
    outlets.sort_by_key(|step| step.arguments.from.is_none());
    for Step { arguments: PolicyCreate { of: about, allow, at }, .. } in policies {
        let node = whose(at.at, only.as_ref(), session)?;
        of.entry(node).or_default().policies.push(policy::request(about, allow));
    }
    for Step { arguments, .. } in relays {
        let RelayCreate { timeout, .. } = arguments;
        let node = whose(arguments.of.to.clone(), only.as_ref(), session)?;
        let request = relay::request(arguments, session)?;
        of.entry(node).or_default().relays.push((request, timeout));
    }
    for Step { arguments, .. } in outlets {
        let TcpOutletCreate { at, allow, .. } = &arguments;
        let (node, allow) = (whose(at.at.clone(), only.as_ref(), session)?, allow.clone());
        let wanted = of.entry(node).or_default();
        let mut request = tcp_outlet::request(arguments);
        let is_first = || wanted.outlets.iter().all(|it| it.address.as_deref() != Some(tcp_outlet::FIRST));
        if request.address.is_none() && is_first() {
            request.address = Some(tcp_outlet::FIRST.to_owned());
        }
        if let Some(allow) = allow {
            let address = request.address.clone().ok_or_else(|| nameless("outlet", "from"))?;
            wanted.allowed.push((ResourceType::TcpOutlet, address, allow));
        }
        wanted.outlets.push(request);
    }
    for Step { arguments, .. } in inlets {
        let TcpInletCreate { timeout, .. } = arguments;
        let (node, allow) = (whose(arguments.at.at.clone(), only.as_ref(), session)?, arguments.allow.clone());
        let request = tcp_inlet::request(arguments, session)?;
        let wanted = of.entry(node).or_default();
        if let Some(allow) = allow {
            let alias = request.alias.as_deref().ok_or_else(|| nameless("inlet", "alias"))?;
            wanted.allowed.push((ResourceType::TcpInlet, alias.to_owned(), allow));
        }
        wanted.inlets.push((request, timeout));
    }
    // What is there already is looked at everywhere before anything is changed anywhere.
    let mut stale = Vec::new();
    for (node, wanted) in &mut of {
        let mut control = session.control(node)?;
        stale.push((node.clone(), wanted.without_what_is_there(node, &mut control, differing)?));
    }
    for (node, wanted) in &of {
        done.replaced.extend(wanted.overwritten.iter().map(|path| (node.clone(), path.clone())));
    }
    for (node, paths) in stale {
        for path in paths {
            let _: serde_json::Value = session.control(&node)?.delete(&path)?;
            done.replaced.push((node.clone(), path));
        }
    }
    let mut add = |node: &NodeName, path: String| {
        let made = (node.clone(), path);
        if !done.replaced.contains(&made) {
            done.added.push(made);
        }
    };
    for (node, wanted) in &of {
        for request in &wanted.policies {
            let made: PolicyInfo = session.control(node)?.post(path::POLICIES, request)?;
            add(node, policy::path_of(made.resource_type, made.resource.as_deref()));
        }
    }
    for (node, wanted) in &of {
        for (request, timeout) in &wanted.relays {
            let made: RelayInfo = session.control(node)?.post_within(path::RELAYS, request, *timeout)?;
            add(node, item(path::RELAYS, &made.name));
            relay::note_down(&made, request.wait, session);
        }
    }
    for (node, wanted) in &of {
        for request in &wanted.outlets {
            let made: TcpOutletInfo = session.control(node)?.post(path::TCP_OUTLETS, request)?;
            add(node, item(path::TCP_OUTLETS, &made.address));
            tcp_outlet::note_unresolved(&made, session);
        }
    }
    for (node, wanted) in &of {
        for (request, timeout) in &wanted.inlets {
            let made: TcpInletInfo = session.control(node)?.post_within(path::TCP_INLETS, request, *timeout)?;
            add(node, item(path::TCP_INLETS, &made.alias));
            tcp_inlet::note_down(&made, request.wait, session);
        }
    }
    Ok(())
}

/// A policy is for a name.
fn nameless(what: &str, key: &str) -> Error {
    Error::BadData {
        what: format!("an {what} with `allow`"),
        why: "it has no name, so that no policy can be made for it".into(),
        fix: format!("Give it one with `{key}`."),
    }
}

fn whose(at: Option<NodeRef>, only: Option<&NodeName>, session: &mut Session) -> Result<NodeName, Error> {
    match (at, only) {
        (None, Some(only)) => Ok(only.clone()),
        (at, _) => session.existing_or_created(at),
    }
}

/// What becomes of what is there and differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Differing {
    /// It is an error, before anything is changed.
    Refused,
    /// It is made anew; its connections end.
    Replaced,
}

impl Differing {
    /// What `--replace` asks for.
    pub fn of(replace: bool) -> Differing {
        if replace { Differing::Replaced } else { Differing::Refused }
    }
}

impl Wanted {
    /// Leaves out what is there as it is wanted. Gives the paths, in the API, of what goes first because it differs.
    ///
    /// # Errors
    /// Something is there that has the name and differs, if that is refused.
    fn without_what_is_there(
        &mut self,
        node: &NodeName,
        control: &mut Control,
        differing: Differing,
    ) -> Result<Vec<String>, Error> {
        self.policies_without_those_there(node, control, differing)?;
        let mut stale = Vec::new();
        let mut differ = |what: &'static str, path: &str, name: &str, why: String| match differing {
            Differing::Replaced => {
                stale.push(item(path, name));
                Ok(())
            }
            Differing::Refused => {
                let at = if what == "relay" { "to" } else { "at" };
                Err(differs(what, name, &why, &format!("ockam {what} show {name} --{at} {node}")))
            }
        };
        if !self.relays.is_empty() {
            let there: Vec<RelayInfo> = control.get(path::RELAYS)?;
            self.relays = missing(std::mem::take(&mut self.relays), there, |(wanted, _), found| {
                (wanted.name == found.name).then(|| match other_relay(wanted, found) {
                    Some(why) => differ("relay", path::RELAYS, &found.name, why).map(|()| true),
                    None => Ok(false),
                })
            })?;
        }
        if !self.outlets.is_empty() {
            let there: Vec<TcpOutletInfo> = control.get(path::TCP_OUTLETS)?;
            self.outlets = missing(std::mem::take(&mut self.outlets), there, |wanted, found| {
                let other = other_outlet(wanted, found);
                let is_it = wanted.address.as_ref().map_or(other.is_none(), |address| *address == found.address);
                is_it.then(|| match other {
                    Some(why) => differ("tcp-outlet", path::TCP_OUTLETS, &found.address, why).map(|()| true),
                    None => Ok(false),
                })
            })?;
        }
        if !self.inlets.is_empty() {
            let there: Vec<TcpInletInfo> = control.get(path::TCP_INLETS)?;
            self.inlets = missing(std::mem::take(&mut self.inlets), there, |(wanted, _), found| {
                let other = other_inlet(wanted, found);
                // One without a name is known by where it listens.
                let is_there = || other.is_none() || wanted.from == found.from;
                let is_it = wanted.alias.as_ref().map_or_else(is_there, |alias| *alias == found.alias);
                is_it.then(|| match other {
                    Some(why) => differ("tcp-inlet", path::TCP_INLETS, &found.alias, why).map(|()| true),
                    None => Ok(false),
                })
            })?;
        }
        Ok(stale)
    }

    /// As [`Wanted::without_what_is_there`], of policies, also those that are given with a portal. One takes the place of
    /// another without a moment between.
    fn policies_without_those_there(
        &mut self,
        node: &NodeName,
        control: &mut Control,
        differing: Differing,
    ) -> Result<(), Error> {
        let is_of = |name: &str| self.outlets.iter().any(|it| it.address.as_deref() == Some(name));
        let has_inlet = |name: &str| self.inlets.iter().any(|(it, _)| it.alias.as_deref() == Some(name));
        for (resource_type, name, expression) in &self.allowed {
            let mut of = policy::for_one(control, *resource_type, name)?;
            if is_of(name) && has_inlet(name) {
                of.resource_type = Some(*resource_type);
            }
            self.policies.push(policy::request(of, expression.clone()));
        }
        if self.policies.is_empty() {
            return Ok(());
        }
        let there: Vec<PolicyInfo> = control.get(path::POLICIES)?;
        let mut missing: Vec<CreatePolicy> = Vec::new();
        for wanted in self.policies.drain(..) {
            let same = |expression: &str| policy::is_same(expression, &wanted.expression);
            let refused = |found: &str| {
                let name = wanted.resource.as_deref().or(wanted.resource_type.map(ResourceType::name));
                let (why, see) = (format!("it is for {found}"), format!("ockam policy list --at {node}"));
                Err(differs("policy", name.unwrap_or_default(), &why, &see))
            };
            let twice = missing.iter().find(|it| {
                it.resource == wanted.resource
                    && (it.resource_type == wanted.resource_type || wanted.resource_type.is_none())
            });
            let found = there.iter().find(|it| is_policy_for(it, &wanted));
            match (found, twice) {
                (_, Some(twice)) if !same(&twice.expression) => return refused(&twice.expression),
                (_, Some(_)) => {}
                (Some(found), None) if same(&found.expression) => {}
                (Some(found), None) if differing == Differing::Refused => return refused(&found.expression),
                (found, None) => {
                    let path = |it: &PolicyInfo| policy::path_of(it.resource_type, it.resource.as_deref());
                    self.overwritten.extend(found.map(path));
                    missing.push(wanted);
                }
            }
        }
        self.policies = missing;
        Ok(())
    }
}

/// What of `wanted` is not there. `is_stale` says of what may be it whether it has to go first, `None` if it is another one.
fn missing<W, F>(
    wanted: Vec<W>,
    mut there: Vec<F>,
    mut is_stale: impl FnMut(&W, &F) -> Option<Result<bool, Error>>,
) -> Result<Vec<W>, Error> {
    let mut missing = Vec::new();
    for wanted in wanted {
        let found = there.iter().enumerate().find_map(|(at, found)| Some((at, is_stale(&wanted, found)?)));
        match found {
            Some((at, is_stale)) => {
                there.swap_remove(at);
                if is_stale? {
                    missing.push(wanted);
                }
            }
            None => missing.push(wanted),
        }
    }
    Ok(missing)
}

/// Whether a policy that somebody made is for the same resources.
fn is_policy_for(found: &PolicyInfo, wanted: &CreatePolicy) -> bool {
    found.source == PolicySource::User
        && found.resource == wanted.resource
        && (wanted.resource_type.is_none() || found.resource_type == wanted.resource_type)
}

/// How what is there differs from what is wanted, as the end of a sentence.
fn other_relay(wanted: &CreateRelay, found: &RelayInfo) -> Option<String> {
    let address = format!("forward_to_{}", wanted.relay_address.as_ref().unwrap_or(&wanted.name));
    if found.at != wanted.at {
        return Some(format!("it is at {}, not at {}", found.at, wanted.at));
    }
    (found.address != address).then(|| format!("it is called {} there, not {address}", found.address))
}

fn other_outlet(wanted: &CreateTcpOutlet, found: &TcpOutletInfo) -> Option<String> {
    if found.to != wanted.to {
        return Some(format!("it leads to {}, not to {}", found.to, wanted.to));
    }
    let is = |on: bool| if on { "with" } else { "without" };
    if found.tls != wanted.tls {
        return Some(format!("it is {} TLS", is(found.tls)));
    }
    (found.allow_plain != wanted.allow_plain).then(|| format!("it is {} `allow-plain`", is(found.allow_plain)))
}

fn other_inlet(wanted: &CreateTcpInlet, found: &TcpInletInfo) -> Option<String> {
    if wanted.from != found.from && !is_at(&wanted.from, &found.from) {
        return Some(format!("it listens on {}, not on {}", found.from, wanted.from));
    }
    if found.to != wanted.to {
        return Some(format!("it leads to {}, not to {}", found.to, wanted.to));
    }
    if found.connection_wait_ms != wanted.connection_wait_ms {
        return Some(format!("connections wait {} ms, not {} ms", found.connection_wait_ms, wanted.connection_wait_ms));
    }
    let sorted = |identifiers: &[String]| {
        let mut sorted = identifiers.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        sorted
    };
    (sorted(&found.authorized) != sorted(&wanted.authorized)).then(|| "others are authorized".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::WayStatus;

    fn inlet() -> (CreateTcpInlet, TcpInletInfo) {
        let wanted = CreateTcpInlet {
            from: "localhost:0".into(),
            to: "/ip4/127.0.0.1/tcp/1/secure/api/service/outlet".into(),
            alias: None,
            authorized: vec!["Ib".into(), "Ia".into()],
            authorized_on_the_way: vec![],
            identity: None,
            connection_wait_ms: 5000,
            retry_wait_ms: 20_000,
            wait: true,
            timeout_ms: 10_000,
        };
        let found = TcpInletInfo {
            alias: "x".into(),
            from: "127.0.0.1:7000".into(),
            to: wanted.to.clone(),
            status: WayStatus::Up,
            error: None,
            identifier: None,
            authorized: vec!["Ia".into(), "Ib".into()],
            connection_wait_ms: 5000,
            connections: 3,
            repaired: 1,
        };
        (wanted, found)
    }

    #[test]
    fn what_differs_is_told() {
        let (wanted, found) = inlet();
        assert_eq!(other_inlet(&wanted, &found), None);
        for (change, about) in [
            ((|it: &mut TcpInletInfo| it.from = "10.0.0.1:7000".into()) as fn(&mut TcpInletInfo), "10.0.0.1:7000"),
            (|it| it.from = "unix:/run/x".into(), "unix:/run/x"),
            (|it| it.to = "/service/outlet".into(), "/service/outlet"),
            (|it| it.connection_wait_ms = 1, "1 ms"),
            (|it| it.authorized = vec![], "authorized"),
        ] {
            let mut changed = found.clone();
            change(&mut changed);
            assert!(other_inlet(&wanted, &changed).is_some_and(|why| why.contains(about)), "{about}");
        }
        let wanted = CreateTcpOutlet { to: "127.0.0.1:80".into(), address: None, tls: false, allow_plain: false };
        let found = TcpOutletInfo {
            address: "outlet".into(),
            to: "127.0.0.1:80".into(),
            tls: false,
            allow_plain: false,
            targets: vec![],
            error: None,
        };
        assert_eq!(other_outlet(&wanted, &found), None);
        for changed in [
            TcpOutletInfo { to: "127.0.0.1:81".into(), ..found.clone() },
            TcpOutletInfo { tls: true, ..found.clone() },
            TcpOutletInfo { allow_plain: true, ..found },
        ] {
            assert!(other_outlet(&wanted, &changed).is_some(), "{changed:?}");
        }
    }

    #[test]
    fn a_bound_address_is_what_was_asked_for() {
        for (wanted, found, is) in [
            ("127.0.0.1:0", "127.0.0.1:7", true),
            ("127.0.0.1:7", "127.0.0.1:7", true),
            ("127.0.0.1:8", "127.0.0.1:7", false),
            ("0.0.0.0:7", "127.0.0.1:7", false),
            ("[::1]:0", "127.0.0.1:7", false),
            ("unix:/a", "unix:/a", true),
            ("unix:/a", "unix:/b", false),
        ] {
            assert_eq!(is_at(wanted, found), is, "{wanted} {found}");
        }
    }

    #[test]
    fn a_text_is_read_whole_or_refused() {
        let long = vec![b'x'; TEXT_BYTES_MAX + 10];
        let text = Text::of_reader("it".into(), long.as_slice()).unwrap();
        assert_eq!(text.plan(Kind::Node, &[]).unwrap_err().exit(), 65);
        assert_eq!(Text::of_reader("it".into(), &b"a\xff"[..]).map(|it| it.text).unwrap_err().exit(), 65);
        assert_eq!(Text::of_file(Path::new("/nonexistent.yaml")).map(|it| it.text).unwrap_err().exit(), 66);
        assert_eq!(Text::of_file(Path::new("/")).map(|it| it.text).unwrap_err().exit(), 74);
        let variable = Variable { name: "A".into(), value: "b".into() };
        let text = Text::of_argument("--inline", "node: n1".into());
        assert_eq!(text.plan(Kind::Recipe, &[variable.clone(), variable]).unwrap_err().exit(), 64);
    }
}
