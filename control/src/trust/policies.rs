//! Policies that people make, and what they want to know about them.

use super::rules::{ACTION, RELAY_SERVICE, Subject};
use crate::api::{CheckPolicy, CreatePolicy, PolicyDecision, PolicyInfo, PolicySource, ResourceType};
use crate::error::Error;
use crate::node::Node;
use crate::store::PolicyRow;
use crate::store::trust::POLICIES_MAX;
use crate::transit;
use ockam_crypto::{Attributes, Identifier};
use ockam_policy::Policy;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Longest name of a resource in bytes: that of the longest address.
const RESOURCE_BYTES_MAX: usize = 255;

/// Makes a policy, or replaces the one for the same resources. It is in force when this returns, for channels that live, too.
///
/// # Errors
/// [`Error::BadArgument`], [`Error::Limit`], those of the store and the engine.
pub(crate) async fn create(node: &Arc<Node>, request: CreatePolicy) -> Result<PolicyInfo, Error> {
    let policy = Policy::parse(&request.expression).map_err(|error| Error::BadArgument {
        argument: "expression".into(),
        value: crate::text::escape(request.expression.as_bytes(), 300),
        why: format!("is no policy: {error}"),
        fix: "Write an attribute, such as 'admin and not guest', or an expression, such as '(= subject.role \"dba\")'."
            .into(),
    })?;
    let (resource_type, resource) = about(request.resource_type, request.resource)?;
    let engine = node.engine().await?;
    let mut store = node.store().await;
    let desired = node.desired();
    let resource_type = match (&resource_type, &resource) {
        (None, Some(name)) => replaced(node, &desired.policies, name)?,
        _ => resource_type,
    };
    let row = PolicyRow { resource_type, resource, expression: policy.to_string() };
    let before = desired.policies.iter().find(|it| is_about(it, &row)).cloned();
    if before.is_none() && desired.policies.len() >= POLICIES_MAX {
        return Err(Error::Limit { node: node.name(), what: "policies", limit: POLICIES_MAX });
    }
    // Nothing is dialed by a rule whose guard nobody has been granted yet.
    let set = || async {
        match row.resource_type {
            Some(ResourceType::Transit) => node.set_transit(&engine.link, &desired).await,
            _ => Ok(()),
        }
    };
    node.change(&mut store, "set a policy", |store| store.set_policy(&row), set(), set()).await?;
    let (resource_type, resource) = (resource_type.map(ResourceType::name), row.resource.as_deref());
    tracing::info!(resource_type, resource, expression = row.expression, "a policy is in force");
    Ok(info(&row))
}

/// Removes a policy: what was under it is under the next one, or open.
///
/// # Errors
/// [`Error::BadArgument`], [`Error::NoSuchThing`], those of the store and the engine.
pub(crate) async fn delete(
    node: &Arc<Node>,
    resource_type: Option<ResourceType>,
    resource: Option<String>,
) -> Result<PolicyInfo, Error> {
    let (resource_type, resource) = about(resource_type, resource)?;
    let engine = node.engine().await?;
    let mut store = node.store().await;
    let desired = node.desired();
    let mut wanted = PolicyRow { resource_type, resource, expression: String::new() };
    if let (None, Some(name)) = (resource_type, &wanted.resource)
        && !desired.policies.iter().any(|it| is_about(it, &wanted))
    {
        wanted.resource_type = replaced(node, &desired.policies, name)?;
    }
    let Some(row) = desired.policies.iter().find(|it| is_about(it, &wanted)).cloned() else {
        let name = wanted.resource.as_deref().or(resource_type.map(ResourceType::name)).unwrap_or_default();
        return Err(node.no_such("policy of a user's about", name, "ockam policy list"));
    };
    let set = || async {
        match row.resource_type {
            Some(ResourceType::Transit) => node.set_transit(&engine.link, &desired).await,
            _ => Ok(()),
        }
    };
    let remove = |store: &mut crate::store::NodeStore| store.remove_policy(row.resource_type, row.resource.as_deref());
    node.change(&mut store, "remove a policy", remove, set(), set()).await?;
    let (resource_type, resource) = (resource_type.map(ResourceType::name), row.resource.as_deref());
    tracing::info!(resource_type, resource, "a policy is removed");
    Ok(info(&row))
}

/// The type of the policy that a name alone means: that of the policy for this name that has one, since it would outrank
/// what is said of the name alone.
///
/// # Errors
/// [`Error::BadArgument`] when that is not clear.
fn replaced(node: &Node, policies: &[PolicyRow], name: &str) -> Result<Option<ResourceType>, Error> {
    let typed: BTreeSet<ResourceType> =
        policies.iter().filter(|it| it.resource.as_deref() == Some(name)).filter_map(|it| it.resource_type).collect();
    let named: BTreeSet<ResourceType> = node.trust.rules().types_of(name).into_iter().chain(typed.clone()).collect();
    match (typed.first(), named.len()) {
        (None, _) => Ok(None),
        (Some(only), 1) => Ok(Some(*only)),
        _ => Err(unclear(name, "is the name of more than one resource, or of more than one policy")),
    }
}

/// The policies that are in force; only those about a resource, or about a type, where that is asked for.
pub(crate) fn list(node: &Node, resource_type: Option<ResourceType>, resource: Option<&str>) -> Vec<PolicyInfo> {
    let mut infos = node.trust.rules().infos();
    let resource = resource.map(|name| name_of(resource_type, name));
    infos.retain(|info| {
        (resource_type.is_none() || info.resource_type == resource_type)
            && (resource.is_none() || info.resource == resource)
    });
    infos
}

/// Whether somebody would pass, and why.
///
/// # Errors
/// [`Error::BadArgument`].
pub(crate) fn check(node: &Node, request: CheckPolicy) -> Result<PolicyDecision, Error> {
    let rules = node.trust.rules();
    let resource_type = match request.resource_type {
        Some(resource_type) => resource_type,
        None => match rules.types_of(&request.resource)[..] {
            [resource_type] => resource_type,
            [] => return Err(no_resource(&rules.names(), &request.resource)),
            _ => return Err(unclear(&request.resource, "is the name of more than one resource")),
        },
    };
    let resource = name_of(Some(resource_type), &request.resource);
    let mut subject = match &request.subject {
        Some(text) => {
            let identifier: Identifier =
                text.parse().map_err(|error: ockam_crypto::InvalidIdentifier| Error::BadArgument {
                    argument: "subject".into(),
                    value: crate::text::escape(text.as_bytes(), 100),
                    why: format!("is no identifier: {error}"),
                    fix: "`ockam identity show` prints identifiers.".into(),
                })?;
            node.trust.subject(&identifier)
        }
        None => Subject::default(),
    };
    if let Some(attributes) = request.attributes {
        let mut supposed = Attributes::new();
        for (name, value) in attributes {
            supposed.insert(name.as_str(), value).map_err(|error| Error::BadArgument {
                argument: "attributes".into(),
                value: crate::text::escape(name.as_bytes(), 100),
                why: format!("cannot be attested: {error}"),
                fix: "Give what a credential could have: NAME=VALUE.".into(),
            })?;
        }
        subject.attributes = Some(Arc::new(supposed));
    }
    let decision = rules.explain(resource_type, &resource, &subject);
    let guard = rules.guard(resource_type, &resource);
    let granted = node.channels.granted();
    let has_it = |granted: &super::Granted| granted.guards.contains(guard);
    let attributes = subject.attributes.iter().flat_map(|it| {
        it.texts().map(|(name, value)| {
            (crate::text::escape(name.as_bytes(), 300), crate::text::escape(value.as_bytes(), 300))
        })
    });
    Ok(PolicyDecision {
        allowed: decision.allowed,
        policy: decision.policy,
        why: decision.why,
        attributes: attributes.collect(),
        channels: granted.iter().filter(|(.., granted)| granted.as_ref().is_some_and(has_it)).count() as u64,
    })
}

fn no_resource(names: &[&str], resource: &str) -> Error {
    let near = crate::store::shared::near(resource, names.iter().copied());
    let fix = match near.is_empty() {
        true => {
            "Say its type, too, if it is to be made: tcp-inlet, tcp-outlet, relay, echoer, transit or service.".into()
        }
        false => format!("Did you mean {}? Or say its type, too, if it is to be made.", near.join(" or ")),
    };
    let value = crate::text::escape(resource.as_bytes(), 300);
    Error::BadArgument { argument: "resource".into(), value, why: "is no resource of this node".into(), fix }
}

fn unclear(resource: &str, why: &str) -> Error {
    Error::BadArgument {
        argument: "resource".into(),
        value: crate::text::escape(resource.as_bytes(), 300),
        why: why.into(),
        fix: "Say its type, too: tcp-inlet, tcp-outlet, relay, echoer, transit or service.".into(),
    }
}

fn is_about(row: &PolicyRow, other: &PolicyRow) -> bool {
    (row.resource_type, &row.resource) == (other.resource_type, &other.resource)
}

/// Names as they are stored: networks are written in one way.
fn name_of(resource_type: Option<ResourceType>, name: &str) -> String {
    let target = match resource_type {
        Some(ResourceType::Transit) => transit::target(name).ok(),
        _ => None,
    };
    target.map_or_else(|| name.to_owned(), transit::target_text)
}

/// What a policy is about.
fn about(
    resource_type: Option<ResourceType>,
    resource: Option<String>,
) -> Result<(Option<ResourceType>, Option<String>), Error> {
    let Some(name) = resource else {
        return match resource_type {
            Some(_) => Ok((resource_type, None)),
            None => Err(Error::InputMissing {
                what: "what the policy is about".into(),
                fix:
                    "Give a resource type, or the name of a resource: --resource-type tcp-outlet or --resource outlet."
                        .into(),
            }),
        };
    };
    let bad = |why: String, fix: &str| Error::BadArgument {
        argument: "resource".into(),
        value: crate::text::escape(name.as_bytes(), 300),
        why,
        fix: fix.into(),
    };
    if name.is_empty() || name.len() > RESOURCE_BYTES_MAX || name.chars().any(char::is_control) {
        let why = format!("is empty, or longer than {RESOURCE_BYTES_MAX} bytes, or has characters that no name has");
        return Err(bad(why, "Use the address of a service or an outlet, or the alias of an inlet."));
    }
    match resource_type {
        Some(ResourceType::Transit) => {
            let target = transit::target(&name)?;
            Ok((resource_type, Some(transit::target_text(target))))
        }
        Some(ResourceType::Relay) if name != RELAY_SERVICE => {
            let fix = format!("Leave the name out, or use {RELAY_SERVICE}.");
            Err(bad("is not where relays are registered".into(), &fix))
        }
        _ => Ok((resource_type, Some(name))),
    }
}

fn info(row: &PolicyRow) -> PolicyInfo {
    PolicyInfo {
        resource_type: row.resource_type,
        resource: row.resource.clone(),
        action: ACTION.into(),
        expression: row.expression.clone(),
        source: PolicySource::User,
    }
}
