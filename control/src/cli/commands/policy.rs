//! `ockam policy`.

use super::Session;
use super::credential::attribute_lines;
use crate::api::{
    CheckPolicy, CreatePolicy, PolicyDecision, PolicyInfo, PolicySource, ResourceType, ServiceInfo, TcpInletInfo,
    TcpOutletInfo, path,
};
use crate::cli::args::policy::{PolicyArg, PolicyCheck, PolicyCommand, PolicyCreate, PolicyFor};
use crate::cli::args::shared::Confirmed;
use crate::cli::client::{Control, query};
use crate::cli::show::{Output, table};
use crate::error::Error;
use crate::identities::Identities;
use ockam_policy::Policy;
use std::collections::BTreeMap;

/// Runs a command.
///
/// # Errors
/// What the command says.
pub fn run(command: PolicyCommand, session: &mut Session) -> Result<(), Error> {
    match command {
        PolicyCommand::Create(arguments) => create(arguments, session),
        PolicyCommand::Show(PolicyArg { of, at }) => {
            let node = session.existing(at.at)?;
            let info = show(&mut session.control(&node)?, &of)?;
            let info = info.ok_or_else(|| no_such_policy(node.as_str(), &of))?;
            session.terminal.print(Output::new(&info, || describe(&info)).machine(info.expression.clone()))
        }
        PolicyCommand::List(at) => {
            let node = session.existing(at.at)?;
            let policies: Vec<PolicyInfo> = session.control(&node)?.get(path::POLICIES)?;
            let plain =
                || policies_table(&policies, &format!("The node {node} has no policies: everybody may use all."));
            session.terminal.print(Output::new(&policies, plain))
        }
        PolicyCommand::Delete(arguments) => delete(arguments, session),
        PolicyCommand::Check(arguments) => check(arguments, session),
    }
}

fn create(arguments: PolicyCreate, session: &mut Session) -> Result<(), Error> {
    warn_of_names(&arguments.allow, session);
    let node = session.existing_or_created(arguments.at.at)?;
    let request = request(arguments.of, arguments.allow);
    let made: PolicyInfo = session.control(&node)?.post(path::POLICIES, &request)?;
    let plain = || format!("At the node {node}, {} is for: {}", about(&made), made.expression);
    session.terminal.print(Output::new(&made, plain).machine(made.expression.clone()))
}

/// What is asked of the node.
pub fn request(of: PolicyFor, expression: String) -> CreatePolicy {
    CreatePolicy { resource_type: of.resource_type, resource: of.resource, expression }
}

/// Says what a policy permits nobody for, although it can be read.
fn warn_of_names(expression: &str, session: &Session) {
    let Ok(policy) = Policy::parse(expression) else { return };
    for name in policy.names() {
        let attribute = name.strip_prefix("subject.").unwrap_or_default();
        if attribute == "true" || attribute == "false" || attribute.starts_with("subject.") {
            session.terminal.warn(format_args!(
                "this asks for an attribute named {attribute:?}; `true` is (= 1 1), and an attribute is named without \
                 `subject.` in this form"
            ));
        }
    }
}

fn show(control: &mut Control, of: &PolicyFor) -> Result<Option<PolicyInfo>, Error> {
    let (resource_type, resource) = (of.resource_type.map(ResourceType::name), of.resource.as_deref());
    let parts = [("resource_type", resource_type), ("resource", resource)];
    let found: Vec<PolicyInfo> = control.get(&query(path::POLICIES, &parts))?;
    // That for all of a type is another one than those for some of it.
    Ok(found.into_iter().find(|info| info.resource.is_some() == of.resource.is_some()))
}

fn no_such_policy(node: &str, of: &PolicyFor) -> Error {
    let resource_type = of.resource_type.map(ResourceType::name).unwrap_or_default();
    Error::NoSuchThing {
        node: node.into(),
        what: "policy for",
        id: of.resource.clone().unwrap_or_else(|| resource_type.into()),
        list: "ockam policy list",
    }
}

fn delete(Confirmed { what, yes }: Confirmed<PolicyArg>, session: &mut Session) -> Result<(), Error> {
    let node = session.existing(what.at.at)?;
    let of = &what.of;
    let info = show(&mut session.control(&node)?, of)?.filter(|info| info.source == PolicySource::User);
    let info = info.ok_or_else(|| no_such_policy(node.as_str(), of))?;
    if !session.terminal.confirm(yes, &format!("Delete the policy for {} of {node}?", about(&info)))? {
        return Ok(());
    }
    let gone: PolicyInfo = session.control(&node)?.delete(&path_of(info.resource_type, info.resource.as_deref()))?;
    let plain = || format!("The node {node} has no policy of yours for {} now.", about(&gone));
    session.terminal.print(Output::new(&gone, plain).machine(gone.expression.clone()))
}

/// The path of the API by which a policy is deleted.
pub fn path_of(resource_type: Option<ResourceType>, resource: Option<&str>) -> String {
    let parts = [("resource_type", resource_type.map(ResourceType::name)), ("resource", resource)];
    query(path::POLICIES, &parts)
}

fn check(arguments: PolicyCheck, session: &mut Session) -> Result<(), Error> {
    let node = session.existing(arguments.at.at)?;
    let subject = match &arguments.subject {
        Some(name) => Some(match name.parse::<ockam_crypto::Identifier>() {
            Ok(identifier) => identifier.to_string(),
            Err(_) => {
                let unknown = || Error::NoSuchIdentity { name: name.clone(), near: Vec::new() };
                let identities = Identities::open_existing(session.home()?)?.ok_or_else(unknown)?;
                identities.find(Some(name))?.identifier.to_string()
            }
        }),
        None => None,
    };
    let attributes: BTreeMap<String, String> =
        arguments.attributes.into_iter().map(|attribute| (attribute.name, attribute.value)).collect();
    let request = CheckPolicy {
        resource: arguments.resource.clone(),
        resource_type: arguments.resource_type,
        subject: subject.clone(),
        attributes: (!attributes.is_empty()).then_some(attributes),
    };
    let decision: PolicyDecision = session.control(&node)?.post(path::POLICIES_CHECK, &request)?;
    let who = match (&subject, &request.attributes) {
        (Some(subject), None) => subject.clone(),
        (Some(subject), Some(_)) => format!("{subject} with these attributes"),
        (None, Some(_)) => "somebody with these attributes".into(),
        (None, None) => "somebody without an identity".into(),
    };
    let word = if decision.allowed { "allowed" } else { "denied" };
    let plain = || {
        let mut lines = vec![format!("{word}: {who} at {} of {node}", arguments.resource)];
        if let Some(policy) = &decision.policy {
            lines.push(format!(
                "  policy      {} ({}, for {})",
                policy.expression,
                policy.source.name(),
                about(policy)
            ));
        }
        lines.extend(attribute_lines(&decision.attributes));
        let why = decision.why.iter().enumerate();
        lines.extend(why.map(|(index, line)| format!("  {:<12}{line}", if index == 0 { "why" } else { "" })));
        lines.push(format!("  channels    {} are granted it now", decision.channels));
        lines.join("\n")
    };
    session.terminal.print(Output::new(&decision, plain).machine(word))?;
    match decision.allowed {
        true => Ok(()),
        false => Err(Error::PolicyDenies {
            node: node.to_string(),
            resource: arguments.resource.clone(),
            subject: who.clone(),
            why: decision.why.iter().map(|line| line.trim()).collect::<Vec<_>>().join("; "),
        }),
    }
}

/// What a policy is for, in words.
fn about(info: &PolicyInfo) -> String {
    match (info.resource_type, &info.resource) {
        (Some(resource_type), Some(resource)) => format!("the {} {resource}", resource_type.name()),
        (None, Some(resource)) => format!("the resource {resource}"),
        (Some(resource_type), None) => format!("every {}", resource_type.name()),
        (None, None) => "everything".into(),
    }
}

fn policies_table(policies: &[PolicyInfo], none: &str) -> String {
    let rows = policies.iter().map(|it| {
        let resource_type = it.resource_type.map_or("(any)", ResourceType::name).to_owned();
        let resource = it.resource.clone().unwrap_or_else(|| "(all)".into());
        [resource_type, resource, it.source.name().into(), it.expression.clone()]
    });
    table(["TYPE", "RESOURCE", "SOURCE", "ALLOW"], rows, none)
}

fn describe(info: &PolicyInfo) -> String {
    let lines = [
        about(info),
        format!("  action      {}", info.action),
        format!("  allow       {}", info.expression),
        format!("  source      {}", info.source.name()),
    ];
    lines.join("\n")
}

/// Whether two texts mean the same policy.
pub fn is_same(one: &str, other: &str) -> bool {
    one == other || matches!((Policy::parse(one), Policy::parse(other)), (Ok(one), Ok(other)) if one == other)
}

/// A policy that was set for something that is about to be made, so that nobody uses it before.
pub struct Guarding {
    set: CreatePolicy,
    before: Option<PolicyInfo>,
}

/// Sets the policy for one resource, in place of the one that there may be.
///
/// # Errors
/// What the node reports.
pub fn guard(
    control: &mut Control,
    resource_type: ResourceType,
    resource: &str,
    expression: String,
) -> Result<Guarding, Error> {
    let of = for_one(control, resource_type, resource)?;
    let before = show(control, &of)?.filter(|info| info.source == PolicySource::User);
    let set = request(of, expression);
    let _: PolicyInfo = control.post(path::POLICIES, &set)?;
    Ok(Guarding { set, before })
}

/// What a policy is for that is given with one resource: its name alone, as `policy create --resource` has it. With the type,
/// too, where one of another type has the name, or such a policy is there and would go first.
///
/// # Errors
/// What the node reports.
pub fn for_one(control: &mut Control, resource_type: ResourceType, resource: &str) -> Result<PolicyFor, Error> {
    let of_type = PolicyFor { resource_type: Some(resource_type), resource: Some(resource.to_owned()) };
    let is_typed = show(control, &of_type)?.is_some_and(|info| info.resource_type.is_some());
    // Addresses are one space of names, aliases of inlets another.
    let has_other = match resource_type {
        ResourceType::TcpInlet => {
            let outlets: Vec<TcpOutletInfo> = control.get(path::TCP_OUTLETS)?;
            let services: Vec<ServiceInfo> = control.get(path::SERVICES)?;
            outlets.iter().any(|it| it.address == resource) || services.iter().any(|it| it.address == resource)
        }
        _ => {
            let inlets: Vec<TcpInletInfo> = control.get(path::TCP_INLETS)?;
            inlets.iter().any(|it| it.alias == resource)
        }
    };
    let by_name = PolicyFor { resource_type: None, resource: Some(resource.to_owned()) };
    Ok(if is_typed || has_other { of_type } else { by_name })
}

impl Guarding {
    /// Takes the policy away again, or puts back the one before: what it was for was not made.
    ///
    /// # Errors
    /// What the node reports.
    pub fn undo(self, control: &mut Control) -> Result<(), Error> {
        match self.before {
            Some(before) => {
                let request = CreatePolicy { expression: before.expression, ..self.set };
                control.post::<PolicyInfo>(path::POLICIES, &request).map(drop)
            }
            None => {
                let path = path_of(self.set.resource_type, self.set.resource.as_deref());
                control.delete::<PolicyInfo>(&path).map(drop)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(resource_type: Option<ResourceType>, resource: Option<&str>) -> PolicyInfo {
        PolicyInfo {
            resource_type,
            resource: resource.map(str::to_owned),
            action: "handle_message".into(),
            expression: "admin".into(),
            source: PolicySource::User,
        }
    }

    #[test]
    fn what_a_policy_is_for_is_said_in_words() {
        let outlet = Some(ResourceType::TcpOutlet);
        for (info, want) in [
            (info(outlet, Some("db")), "the tcp-outlet db"),
            (info(None, Some("db")), "the resource db"),
            (info(outlet, None), "every tcp-outlet"),
        ] {
            assert_eq!(about(&info), want);
            assert!(describe(&info).contains("admin") && policies_table(&[info], "").contains("user"));
        }
        assert_eq!(policies_table(&[], "none"), "none");
    }

    #[test]
    fn policies_are_addressed_as_the_api_does() {
        assert_eq!(
            path_of(Some(ResourceType::Transit), Some("10.0.0.0/8:1")),
            "/policies?resource_type=transit&resource=10.0.0.0%2F8:1"
        );
        assert_eq!(path_of(None, Some("a b")), "/policies?resource=a%20b");
    }

    #[test]
    fn policies_are_compared_by_what_they_are_and_not_by_their_spaces() {
        assert!(is_same("(= subject.a  \"b\")", "(= subject.a \"b\")"));
        assert!(is_same("a  and b", "a and b"));
        assert!(!is_same("a and b", "a or b"));
        assert!(!is_same("(", "a"));
    }
}
