//! `ockam project-member`.

use super::Session;
use super::credential::{attribute_lines, shown_attributes};
use super::identity::{date_time, print_deleted};
use super::project::{asked, attributes_of};
use crate::authority::bodies::AttributesEntry;
use crate::cli::args::project_member::{MemberAdd, MemberArg, MemberDelete, MemberShow, ProjectMemberCommand};
use crate::cli::args::shared::{Asking, Confirmed};
use crate::cli::show::{Output, table};
use crate::error::Error;
use crate::identities::Identities;
use crate::projects::Project;
use crate::projects::client::AuthorityClient;
use ockam_crypto::Identifier;
use serde::Serialize;
use std::collections::BTreeMap;

/// Runs a command.
///
/// # Errors
/// What the command says.
pub fn run(command: ProjectMemberCommand, session: &mut Session) -> Result<(), Error> {
    match command {
        ProjectMemberCommand::Add(arguments) => add(arguments, session),
        ProjectMemberCommand::List(asking) => list(asking, session),
        ProjectMemberCommand::ListIds(asking) => list_ids(asking, session),
        ProjectMemberCommand::Show(arguments) => show(arguments, session),
        ProjectMemberCommand::Delete(arguments) => delete(arguments, session),
        ProjectMemberCommand::Revoke(arguments) => revoke(arguments, session),
    }
}

/// A member as people and JSON get it.
#[derive(Serialize)]
struct MemberView {
    identifier: String,
    attributes: BTreeMap<String, String>,
    /// Seconds of Unix time, as the next.
    added_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    added_by: Option<String>,
}

impl MemberView {
    fn of(identifier: &Identifier, entry: &AttributesEntry) -> MemberView {
        let attributes = entry.attributes.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
        MemberView {
            identifier: identifier.to_string(),
            attributes: shown_attributes(attributes),
            added_at: entry.added_at,
            expires_at: entry.expires_at,
            added_by: entry.attested_by.map(|by| by.to_string()),
        }
    }
}

/// Does something at the authority, as the identity that asks.
fn with<T>(
    asking: Asking,
    session: &mut Session,
    act: impl FnOnce(&mut AuthorityClient) -> Result<T, Error>,
) -> Result<(T, Project), Error> {
    let (project, party, timeout) = asked(asking, session)?;
    let done = act(&mut AuthorityClient::new(project.clone(), party, timeout)?)?;
    Ok((done, project))
}

/// Who is meant: an identifier, or an identity that this home knows.
fn member(name: &str, session: &mut Session) -> Result<Identifier, Error> {
    if let Ok(identifier) = name.parse() {
        return Ok(identifier);
    }
    let unknown = || Error::NoSuchIdentity { name: name.into(), near: Vec::new() };
    Ok(Identities::open_existing(session.home()?)?.ok_or_else(unknown)?.find(Some(name))?.identifier)
}

fn add(arguments: MemberAdd, session: &mut Session) -> Result<(), Error> {
    let member = member(&arguments.member, session)?;
    let attributes = attributes_of(arguments.attributes)?;
    let view = Added { identifier: member.to_string(), attributes: attributes.clone() };
    let ((), project) = with(arguments.asking, session, |client| client.add_member(member, attributes))?;
    let plain = || {
        let mut lines = vec![format!("{} is a member of the project {}.", view.identifier, project.name)];
        lines.extend(attribute_lines(&view.attributes));
        lines.join("\n")
    };
    session.terminal.print(Output::new(&view, plain).machine(view.identifier.clone()))
}

#[derive(Serialize)]
struct Added {
    identifier: String,
    attributes: BTreeMap<String, String>,
}

fn list(asking: Asking, session: &mut Session) -> Result<(), Error> {
    let (members, project) = with(asking, session, AuthorityClient::members)?;
    let views: Vec<MemberView> = members.iter().map(|(member, entry)| MemberView::of(member, entry)).collect();
    let plain = || {
        let rows = views.iter().map(|it| {
            let attributes: Vec<String> = it.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
            [it.identifier.clone(), date_time(it.added_at), attributes.join(" ")]
        });
        table(["MEMBER", "ADDED", "ATTRIBUTES"], rows, &format!("The project {} has no members.", project.name))
    };
    session.terminal.print(Output::new(&views, plain))
}

fn list_ids(asking: Asking, session: &mut Session) -> Result<(), Error> {
    let (members, _) = with(asking, session, AuthorityClient::member_ids)?;
    let views: Vec<String> = members.iter().map(ToString::to_string).collect();
    session.terminal.print(Output::new(&views, || views.join("\n")).machine(views.join("\n")))
}

fn show(arguments: MemberShow, session: &mut Session) -> Result<(), Error> {
    let named = arguments.member.as_deref().map(|name| member(name, session)).transpose()?;
    let ((member, entry), _) = with(arguments.asking, session, |client| {
        let member = named.unwrap_or_else(|| client.identifier());
        client.member(&member).map(|entry| (member, entry))
    })?;
    let view = MemberView::of(&member, &entry);
    let plain = || {
        let mut lines = vec![view.identifier.clone(), format!("  added       {}", date_time(view.added_at))];
        lines.extend(view.expires_at.map(|at| format!("  until       {}", date_time(at))));
        lines.extend(view.added_by.iter().map(|by| format!("  by          {by}")));
        lines.extend(attribute_lines(&view.attributes));
        lines.join("\n")
    };
    session.terminal.print(Output::new(&view, plain))
}

fn delete(arguments: MemberDelete, session: &mut Session) -> Result<(), Error> {
    let Some(name) = &arguments.member else {
        let question = "Delete all members but those that the authority trusts from the start?";
        if !session.terminal.confirm(arguments.yes, question)? {
            return Ok(());
        }
        let ((), project) = with(arguments.asking, session, AuthorityClient::delete_all_members)?;
        let view = AllDeleted { project: &project.name };
        let plain = || format!("The project {} has only the members that it trusts from the start.", view.project);
        return session.terminal.print(Output::new(&view, plain).machine(""));
    };
    let member = member(name, session)?;
    if !session.terminal.confirm(arguments.yes, &format!("Delete {member}, and revoke its credentials?"))? {
        return Ok(());
    }
    with(arguments.asking, session, |client| client.delete_member(&member))?;
    print_deleted(session, &[member.to_string()], false, "")
}

#[derive(Serialize)]
struct AllDeleted<'a> {
    project: &'a str,
}

fn revoke(Confirmed { what, yes }: Confirmed<MemberArg>, session: &mut Session) -> Result<(), Error> {
    #[derive(Serialize)]
    struct Revoked {
        identifier: String,
    }
    let member = member(&what.member, session)?;
    if !session.terminal.confirm(yes, &format!("Revoke the credentials of {member}?"))? {
        return Ok(());
    }
    with(what.asking, session, |client| client.revoke_member(&member))?;
    let view = Revoked { identifier: member.to_string() };
    let plain = || format!("The credentials that {} has are void.", view.identifier);
    session.terminal.print(Output::new(&view, plain).machine(view.identifier.clone()))
}
