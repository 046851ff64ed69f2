//! `ockam project` and `ockam enroll`.

use super::identity::{date_time, print_deleted};
use super::{Session, ticket};
use crate::authority::{ENROLLER, ROLE};
use crate::cli::args::project::{Enroll, ProjectCommand, ProjectDelete, ProjectImport};
use crate::cli::args::shared::{Asking, MemberAttributes};
use crate::cli::input;
use crate::cli::show::{Output, table};
use crate::cli::values::Duration;
use crate::error::Error;
use crate::identities::{Identities, IdentityRow};
use crate::messenger::Party;
use crate::projects::client::AuthorityClient;
use crate::projects::{DOCUMENT_BYTES_MAX, KnownProject, Project, Projects, Ticket};
use crate::text::to_hex;
use ockam_crypto::{Comparison, Credential};
use serde::Serialize;
use std::collections::BTreeMap;

/// The attribute with the name of the relay that a member may register (`wire.md` D.5).
const RELAY_ATTRIBUTE: &str = "ockam-relay";

/// Runs a command.
///
/// # Errors
/// What the command says.
pub fn run(command: ProjectCommand, session: &mut Session) -> Result<(), Error> {
    match command {
        ProjectCommand::Import(arguments) => import(&arguments, session),
        ProjectCommand::List => list(session),
        ProjectCommand::Show(argument) => {
            let known = known(argument.project.as_deref(), session)?;
            let json = known.project.to_json();
            session.terminal.print(Output::new(&json, || describe(&known).join("\n")))
        }
        ProjectCommand::Default(argument) => {
            let chosen = match &argument.project {
                Some(name) => Projects::open(session.home()?)?.set_default(name)?,
                None => known(None, session)?,
            };
            let name = chosen.project.name.clone();
            let plain = || match &argument.project {
                Some(_) => format!("The default project is now {name}."),
                None => name.clone(),
            };
            session.terminal.print(Output::new(&ProjectView::of(&chosen), plain).machine(name.clone()))
        }
        ProjectCommand::Delete(arguments) => delete(arguments, session),
        ProjectCommand::Ticket(arguments) => ticket::create(arguments, session),
        ProjectCommand::Enroll(arguments) => run_enroll(arguments, session),
    }
}

fn import(arguments: &ProjectImport, session: &mut Session) -> Result<(), Error> {
    let bytes = input::read(&arguments.project_file, "a project", DOCUMENT_BYTES_MAX)?;
    let text = str::from_utf8(&bytes).map_err(|_| Error::BadData {
        what: "the project".into(),
        why: "it is not text".into(),
        fix: "Use what `ockam authority show --output json` prints.".into(),
    })?;
    let text = match &arguments.name {
        Some(name) => named(text, name),
        None => text.to_owned(),
    };
    let project = Project::from_json(&text)?;
    let known = Projects::open(session.home()?)?.put(&project)?;
    let name = known.project.name.clone();
    let plain = || {
        let default = if known.is_default { ", the default one" } else { "" };
        format!(
            "This home knows the project {name}{default}. Its authority is {}.",
            known.project.authority.identifier()
        )
    };
    session.terminal.print(Output::new(&known.project.to_json(), plain).machine(name.clone()))
}

/// The JSON of a project with another name in it. What is no JSON stays as it is, for its reader to complain.
fn named(json: &str, name: &str) -> String {
    match serde_json::from_str::<serde_json::Value>(json) {
        Ok(serde_json::Value::Object(mut object)) => {
            object.insert("name".into(), name.into());
            serde_json::Value::Object(object).to_string()
        }
        _ => json.to_owned(),
    }
}

#[derive(Serialize)]
struct ProjectView {
    name: String,
    id: String,
    is_default: bool,
    authority: String,
    authority_route: String,
}

impl ProjectView {
    fn of(known: &KnownProject) -> ProjectView {
        ProjectView {
            name: known.project.name.clone(),
            id: known.project.id.clone(),
            is_default: known.is_default,
            authority: known.project.authority.identifier().to_string(),
            authority_route: known.project.authority_route.to_string(),
        }
    }
}

fn list(session: &mut Session) -> Result<(), Error> {
    let all = Projects::open_existing(session.home()?)?.map_or(Ok(Vec::new()), |projects| projects.list())?;
    let views: Vec<ProjectView> = all.iter().map(ProjectView::of).collect();
    let plain = || {
        let rows = views.iter().map(|it| {
            let default = if it.is_default { "yes" } else { "" };
            [it.name.clone(), it.id.clone(), default.into(), it.authority_route.clone()]
        });
        let none =
            "This home knows no projects. Enroll with `ockam enroll TICKET`, or see `ockam project import --help`.";
        table(["NAME", "ID", "DEFAULT", "AUTHORITY"], rows, none)
    };
    session.terminal.print(Output::new(&views, plain))
}

fn describe(known: &KnownProject) -> Vec<String> {
    let project = &known.project;
    let default = if known.is_default { " (default)" } else { "" };
    let mut lines = vec![format!("{}{default}", project.name)];
    lines.push(format!("  id               {}", project.id));
    lines.push(format!("  authority        {}", project.authority.identifier()));
    lines.push(format!("  its route        {}", project.authority_route));
    if let Some(node) = &project.node {
        lines.push(format!("  project's node   {}", node.identifier()));
    }
    if let Some(route) = &project.node_route {
        lines.push(format!("  its route        {route}"));
    }
    lines
}

fn delete(arguments: ProjectDelete, session: &mut Session) -> Result<(), Error> {
    let names = match &arguments.project {
        Some(name) => vec![name.clone()],
        None => {
            let all = Projects::open_existing(session.home()?)?.map_or(Ok(Vec::new()), |projects| projects.list())?;
            all.into_iter().map(|known| known.project.name).collect()
        }
    };
    let question = format!("Forget {}?", names.join(", "));
    if !names.is_empty() && !session.terminal.confirm(arguments.yes, &question)? {
        return Ok(());
    }
    let mut gone = Vec::with_capacity(names.len());
    for name in &names {
        let projects = Projects::open_existing(session.home()?)?;
        let missing = || Error::NoSuchProject { name: name.clone(), near: Vec::new() };
        gone.push(projects.ok_or_else(missing)?.delete(name)?);
    }
    print_deleted(session, &gone, arguments.all, "This home knows no projects.")
}

/// The project of this name or id, or the default one.
///
/// # Errors
/// [`Error::NoSuchProject`], [`Error::NoProjects`].
pub(super) fn known(name: Option<&str>, session: &mut Session) -> Result<KnownProject, Error> {
    match (Projects::open_existing(session.home()?)?, name) {
        (Some(projects), Some(name)) => projects.find(name),
        (Some(projects), None) => projects.default_project()?.ok_or(Error::NoProjects),
        (None, Some(name)) => Err(Error::NoSuchProject { name: name.into(), near: Vec::new() }),
        (None, None) => Err(Error::NoProjects),
    }
}

/// Of which project which identity asks the authority, and how long it waits.
///
/// # Errors
/// As [`known`] and [`Session::party`].
pub(super) fn asked(asking: Asking, session: &mut Session) -> Result<(Project, Party, Duration), Error> {
    let mut project = known(asking.project.as_deref(), session)?.project;
    let party = session.party(asking.identity.as_deref(), Vec::new())?;
    project.authority_route = resolved(&project, session)?;
    Ok((project, party, asking.timeout))
}

/// The route to the authority, in which names of nodes of this home may stand.
fn resolved(project: &Project, session: &mut Session) -> Result<ockam_wire::MultiAddr, Error> {
    let names_nodes = |part: &ockam_wire::Protocol| matches!(part, ockam_wire::Protocol::Node(_));
    match project.authority_route.protocols().iter().any(names_nodes) {
        true => super::authority::without_names(&project.authority_route, session),
        false => Ok(project.authority_route.clone()),
    }
}

/// What a member is to have.
///
/// # Errors
/// [`Error::BadArgument`]: an attribute is given twice.
pub(super) fn attributes_of(given: MemberAttributes) -> Result<BTreeMap<String, String>, Error> {
    let mut attributes = BTreeMap::new();
    let own = given.attributes.into_iter().map(|it| (it.name, it.value));
    let role = given.enroller.then(|| (ROLE.to_owned(), ENROLLER.to_owned()));
    let relay = given.relay.map(|name| (RELAY_ATTRIBUTE.to_owned(), name));
    for (name, value) in own.chain(role).chain(relay) {
        if attributes.insert(name.clone(), value).is_some() {
            return Err(Error::BadArgument {
                argument: "--attribute".into(),
                value: name,
                why: "is given twice".into(),
                fix: "Give each attribute one value.".into(),
            });
        }
    }
    Ok(attributes)
}

// ---- enrolment

/// Runs `project enroll`.
///
/// # Errors
/// What is wrong with the ticket, the way to the authority, or what that says.
pub fn run_enroll(arguments: Enroll, session: &mut Session) -> Result<(), Error> {
    let ticket = ticket::given(arguments.ticket.as_ref(), session)?.ok_or_else(|| Error::InputMissing {
        what: "the ticket".into(),
        fix: format!("Give the file that holds it, `-` for stdin, or set {}.", ticket::VARIABLE),
    })?;
    let identity = Identities::open(session.home()?)?.named_or_created(arguments.identity.as_deref())?;
    let enrolled = enroll(&ticket, &identity, arguments.name, arguments.timeout, session)?;
    let view = EnrolledView {
        identity: &identity.name,
        identifier: identity.identifier.to_string(),
        project: &enrolled.project.name,
        project_id: &enrolled.project.id,
        was_member: enrolled.was_member,
        attributes: super::credential::shown_attributes(enrolled.credential.attributes().iter()),
        expires_at: enrolled.credential.expires_at(),
        credential: to_hex(enrolled.credential.encoded()),
    };
    let plain = || {
        let how = if view.was_member { "was a member already" } else { "is a member" };
        let mut lines = vec![format!("The identity {} {how} of the project {}.", view.identity, view.project)];
        lines.push(format!("  identifier  {}", view.identifier));
        lines.push(format!("  credential  until {}", date_time(view.expires_at)));
        lines.extend(super::credential::attribute_lines(&view.attributes));
        lines.join("\n")
    };
    if view.was_member {
        session.terminal.note("The identity was a member before; its attributes are as they were.");
    }
    session.terminal.print(Output::new(&view, plain).machine(view.identifier.clone()))
}

#[derive(Serialize)]
struct EnrolledView<'a> {
    identity: &'a str,
    identifier: String,
    project: &'a str,
    project_id: &'a str,
    /// It was one before, so that the ticket was not needed.
    was_member: bool,
    attributes: BTreeMap<String, String>,
    /// The last second of the credential, in Unix time.
    expires_at: u64,
    credential: String,
}

/// What came of a ticket.
pub(super) struct Enrolled {
    pub(super) project: Project,
    pub(super) credential: Credential,
    pub(super) was_member: bool,
}

/// Has an identity become a member, unless it is one, and stores the project, as `name` or as the ticket calls it, and the
/// credential.
///
/// # Errors
/// What the authority says to who is no member and cannot become one; those of the way and of the database.
pub(super) fn enroll(
    ticket: &Ticket,
    identity: &IdentityRow,
    name: Option<String>,
    timeout: Duration,
    session: &mut Session,
) -> Result<Enrolled, Error> {
    let mut project = ticket.project.clone();
    let mut projects = Projects::open(session.home()?)?;
    let before = projects.list()?.into_iter().find(|known| known.project.id == project.id);
    if let Some(name) = name.or_else(|| before.map(|known| known.project.name)) {
        project.name = name;
    }
    // That it cannot be stored shows before the ticket is used.
    projects.check(&project)?;
    let party = session.party(Some(&identity.identifier.to_string()), Vec::new())?;
    let mut reached = project.clone();
    reached.authority_route = resolved(&project, session)?;
    let mut client = AuthorityClient::new(reached, party, timeout)?;
    let (credential, was_member) = match client.redeem(&ticket.code) {
        Ok(()) => (client.credential()?, false),
        // A ticket that was used by whom it was for has done its work; real authorities refuse it to a member.
        Err(refused @ Error::AuthorityRefused { .. }) => match client.credential() {
            Ok(credential) => (credential, true),
            Err(Error::AuthorityRefused { .. }) => return Err(refused),
            Err(error) => return Err(error),
        },
        Err(error) => return Err(error),
    };
    let project = projects.put(&project)?.project;
    projects.keep(&credential, &project)?;
    Ok(Enrolled { project, credential, was_member })
}

/// The same for a node that is started again and again with the same ticket: what was done is not done again, so that it
/// starts while the authority cannot be reached. The node itself renews its credential.
///
/// # Errors
/// As [`enroll`].
pub(super) fn enroll_once(ticket: &Ticket, identity: &IdentityRow, session: &mut Session) -> Result<Project, Error> {
    let projects = Projects::open(session.home()?)?;
    for known in projects.list()? {
        let is_it = known.project.id == ticket.project.id
            && known.project.authority.compared_to(&ticket.project.authority) != Comparison::Diverged;
        if is_it && projects.credential(&identity.identifier, &known.project)?.is_some() {
            return Ok(known.project);
        }
    }
    let enrolled = enroll(ticket, identity, None, ENROLL_LIMIT, session)?;
    session
        .terminal
        .note(format_args!("The identity {} is a member of the project {}.", identity.name, enrolled.project.name));
    Ok(enrolled.project)
}

/// How long each answer of the authority may take when a node is created.
const ENROLL_LIMIT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::values::attribute;

    #[test]
    fn attributes_of_a_member_are_each_given_once() {
        let given = |attributes: &[&str], relay: Option<&str>, enroller| {
            let attributes = attributes.iter().map(|it| attribute(it).unwrap()).collect();
            attributes_of(MemberAttributes { attributes, relay: relay.map(str::to_owned), enroller })
        };
        let all = given(&["a=b=c", "role=web"], Some("*"), true).unwrap();
        let all: Vec<(&str, &str)> = all.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(all, [("a", "b=c"), ("ockam-relay", "*"), ("ockam-role", "enroller"), ("role", "web")]);
        assert!(given(&["a=b", "a=c"], None, false).is_err());
        assert!(given(&["ockam-role=x"], None, true).is_err());
        assert!(given(&["ockam-relay=x"], Some("y"), false).is_err());
    }

    #[test]
    fn a_project_gets_another_name() {
        assert_eq!(named(r#"{"id":"1","name":"a"}"#, "b"), r#"{"id":"1","name":"b"}"#);
        assert_eq!(named("nonsense", "b"), "nonsense");
    }
}
