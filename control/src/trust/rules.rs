//! Policies as they are in force: which guard lets everybody pass, which guards somebody is granted, and why. Pure.
//!
//! ```text
//!   a resource ──► the policy for it: by type and name, by name, by type, built in (with an authority), none
//!                  none: its guard is open      else: granted to those whom the policy permits
//! ```
//!
//! Guards with the same policy are looked at together, unless the policy asks for the resource's name: deciding about a
//! peer takes as many evaluations as there are policies, however many places they guard.

use crate::api::{PolicyInfo, PolicySource, ResourceType, Service};
use crate::node::Desired;
use crate::store::trust::GUARD_CLOSED;
use crate::store::{GuardRow, PolicyRow};
use crate::transit;
use ockam_crypto::Attributes;
use ockam_engine_abi::{Guard, GuardSet, TransitFrom, TransitRule};
use ockam_policy::{Environment, Policy, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// What everybody needs at a node with an authority, where nobody said anything else.
const BUILT_IN: &str = "(= subject.has_credential true)";

/// The only action that there is (`wire.md` H.3).
pub(super) const ACTION: &str = "handle_message";

/// The name of the resource that relays are registered at.
pub(crate) const RELAY_SERVICE: &str = "forwarding_service";

/// Who comes, as policies see it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Subject {
    /// Its identifier, proved by the channel that it comes through.
    pub(crate) identifier: Option<String>,
    /// What the node's authority attests of it, for as long as that holds.
    pub(crate) attributes: Option<Arc<Attributes>>,
}

/// What a policy is asked about.
struct Question<'a> {
    resource: &'a str,
    subject: &'a Subject,
    has_authority: bool,
}

impl Environment for Question<'_> {
    fn value(&self, name: &str) -> Option<Value<'_>> {
        match name {
            "resource.id" => Some(Value::Str(self.resource)),
            "action.id" => Some(Value::Str(ACTION)),
            "subject.identifier" => self.subject.identifier.as_deref().map(Value::Str),
            "subject.has_credential" if self.has_authority => Some(Value::Bool(self.subject.attributes.is_some())),
            _ => {
                let attribute = name.strip_prefix("subject.")?;
                let value = self.subject.attributes.as_ref()?.get(attribute.as_bytes())?;
                str::from_utf8(value).ok().map(Value::Str)
            }
        }
    }
}

/// A policy, read.
#[derive(Debug)]
struct Read {
    row: PolicyRow,
    /// None: a later version of this program wrote it. It permits nobody.
    policy: Option<Policy>,
    source: PolicySource,
}

impl Read {
    fn permits(&self, question: &Question<'_>) -> bool {
        self.policy.as_ref().is_some_and(|policy| policy.permits(question))
    }

    fn info(&self) -> PolicyInfo {
        PolicyInfo {
            resource_type: self.row.resource_type,
            resource: self.row.resource.clone(),
            action: ACTION.into(),
            expression: self.row.expression.clone(),
            source: self.source,
        }
    }
}

/// Guards that one policy decides about.
#[derive(Debug)]
struct Class {
    policy: Arc<Read>,
    guards: GuardSet,
    /// When the policy asks for the name: that of each.
    named: Vec<(Guard, String)>,
}

/// What decides about a resource, and what it says.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) allowed: bool,
    /// None: everybody passes.
    pub(super) policy: Option<PolicyInfo>,
    pub(super) why: Vec<String>,
}

/// The policies that are in force.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    has_authority: bool,
    policies: Vec<Arc<Read>>,
    built_in: Vec<Arc<Read>>,
    rows: Vec<GuardRow>,
    by_resource: BTreeMap<(ResourceType, String), Guard>,
    open: GuardSet,
    classes: Vec<Class>,
    transit: Vec<TransitRule>,
}

/// Whether they say the same.
impl PartialEq for Rules {
    fn eq(&self, other: &Self) -> bool {
        self.has_authority == other.has_authority
            && self.rows == other.rows
            && self.policies.iter().map(|it| &it.row).eq(other.policies.iter().map(|it| &it.row))
    }
}

/// Everything of a node that has a guard.
pub(super) fn places(desired: &Desired) -> BTreeSet<(ResourceType, String)> {
    let services = desired.services.iter().map(|(address, service)| (service_type(*service), address.clone()));
    let outlets = desired.outlets.iter().map(|row| (ResourceType::TcpOutlet, row.address.clone()));
    let inlets = desired.inlets.iter().map(|row| (ResourceType::TcpInlet, row.alias.clone()));
    let transit = desired.policies.iter().filter(|row| row.resource_type == Some(ResourceType::Transit));
    let transit = transit.map(|row| (ResourceType::Transit, row.resource.clone().unwrap_or_default()));
    services.chain(outlets).chain(inlets).chain(transit).collect()
}

/// The type of resource that a service is.
pub(crate) fn service_type(service: Service) -> ResourceType {
    match service {
        Service::Echo => ResourceType::Echoer,
        Service::Uppercase | Service::Hop => ResourceType::Service,
    }
}

impl Rules {
    /// Those of a node that shall be so.
    pub(crate) fn new(desired: &Desired) -> Rules {
        let has_authority = desired.authority.is_some();
        let read = |row: &PolicyRow, source| {
            let policy = Policy::parse(&row.expression);
            if let Err(error) = &policy {
                tracing::error!(policy = row.expression, %error, "a stored policy cannot be read: it permits nobody");
            }
            Arc::new(Read { row: row.clone(), policy: policy.ok(), source })
        };
        let policies = desired.policies.iter().map(|row| read(row, PolicySource::User)).collect();
        // Nobody has anything dialed by having a credential alone.
        let types = ResourceType::ALL.into_iter().filter(|it| has_authority && *it != ResourceType::Transit);
        let built_in = types.map(|it| {
            let row = PolicyRow { resource_type: Some(it), resource: None, expression: BUILT_IN.into() };
            read(&row, PolicySource::BuiltIn)
        });
        let mut rules = Rules {
            has_authority,
            policies,
            built_in: built_in.collect(),
            rows: desired.guards.clone(),
            ..Rules::default()
        };
        rules.compile();
        rules
    }

    fn compile(&mut self) {
        let mut classes: Vec<Class> = Vec::new();
        for row in &self.rows {
            self.by_resource.insert((row.resource_type, row.resource.clone()), row.number);
            let Some(policy) = self.policy(row.resource_type, &row.resource) else {
                if row.resource_type != ResourceType::Transit {
                    self.open.insert(row.number);
                }
                continue;
            };
            // Those that are built in say the same of every type.
            let is_same = |class: &Class| {
                Arc::ptr_eq(&class.policy, policy)
                    || (class.policy.source, policy.source) == (PolicySource::BuiltIn, PolicySource::BuiltIn)
            };
            let index = classes.iter().position(is_same).unwrap_or_else(|| {
                classes.push(Class { policy: policy.clone(), guards: GuardSet::NONE, named: Vec::new() });
                classes.len() - 1
            });
            let class = &mut classes[index];
            let asks_for_name =
                policy.policy.as_ref().is_some_and(|it| it.names().any(|name| name.starts_with("resource.")));
            if asks_for_name {
                class.named.push((row.number, row.resource.clone()));
            } else {
                class.guards.insert(row.number);
            }
        }
        self.classes = classes;
        let transit = self.policies.iter().filter(|it| it.row.resource_type == Some(ResourceType::Transit));
        for read in transit {
            let name = read.row.resource.as_deref().unwrap_or_default();
            let from = TransitFrom::Guard(self.guard(ResourceType::Transit, name));
            let targets = match name {
                "" => {
                    vec![((IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0), None), ((IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0), None)]
                }
                // It was read when it was stored.
                name => transit::target(name).into_iter().collect(),
            };
            self.transit.extend(targets.into_iter().map(|(to, port)| TransitRule { from, to, port }));
        }
    }

    /// What decides about a resource; nothing where everybody passes, and for transit, where nobody does.
    fn policy(&self, resource_type: ResourceType, resource: &str) -> Option<&Arc<Read>> {
        let find = |of_type: Option<ResourceType>, name: Option<&str>| {
            self.policies.iter().find(|it| it.row.resource_type == of_type && it.row.resource.as_deref() == name)
        };
        let by_name = || find(None, Some(resource)).filter(|_| resource_type != ResourceType::Transit);
        find(Some(resource_type), Some(resource))
            .or_else(by_name)
            .or_else(|| find(Some(resource_type), None))
            .or_else(|| self.built_in.iter().find(|it| it.row.resource_type == Some(resource_type)))
    }

    /// The guard of a resource; one that nobody passes when it has none.
    pub(super) fn guard(&self, resource_type: ResourceType, resource: &str) -> Guard {
        // Few have so many that looking for the name without a copy of it would matter.
        self.by_resource.get(&(resource_type, resource.to_owned())).copied().unwrap_or(GUARD_CLOSED)
    }

    /// The guards that let everybody pass.
    pub(super) fn open(&self) -> GuardSet {
        self.open
    }

    /// What policies let peers have dialed.
    pub(super) fn transit(&self) -> &[TransitRule] {
        &self.transit
    }

    /// The guards that somebody is granted: those that are open are not among them.
    pub(super) fn grants(&self, subject: &Subject) -> GuardSet {
        let mut granted = GuardSet::NONE;
        for class in &self.classes {
            let question = |resource| Question { resource, subject, has_authority: self.has_authority };
            let is_empty = class.guards == GuardSet::NONE;
            if !is_empty && class.policy.permits(&question("")) {
                granted = union(&granted, &class.guards);
            }
            for (guard, name) in &class.named {
                if class.policy.permits(&question(name)) {
                    granted.insert(*guard);
                }
            }
        }
        granted
    }

    /// Whether somebody may use what control itself serves. Without a subject nobody is known to be there.
    pub(super) fn admits(&self, resource_type: ResourceType, resource: &str, subject: Option<&Subject>) -> bool {
        match (self.policy(resource_type, resource), subject) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(policy), Some(subject)) => {
                policy.permits(&Question { resource, subject, has_authority: self.has_authority })
            }
        }
    }

    /// Whether a peer may register a relay: beside what the policy says, it takes the attribute `ockam-relay` where there is an
    /// authority.
    pub(super) fn admits_relay(&self, name: &str, subject: Option<&Subject>) -> bool {
        let attested = |subject: &Subject| {
            let value = subject.attributes.as_ref().and_then(|it| it.get(b"ockam-relay"));
            value.is_some_and(|value| value == b"*" || value == name.as_bytes())
        };
        self.admits(ResourceType::Relay, RELAY_SERVICE, subject)
            && (!self.has_authority || subject.is_some_and(attested))
    }

    /// Whether somebody would pass, and why.
    pub(super) fn explain(&self, resource_type: ResourceType, resource: &str, subject: &Subject) -> Decision {
        let about = format!("the {} {resource:?}", resource_type.name());
        let Some(read) = self.policy(resource_type, resource) else {
            let (allowed, why) = match resource_type {
                ResourceType::Transit => (false, format!("denied: no policy opens {about}")),
                _ => (true, format!("permitted: no policy is about {about}, and the node has no authority")),
            };
            return Decision { allowed, policy: None, why: vec![why] };
        };
        let because = match (read.source, &read.row.resource, read.row.resource_type) {
            (PolicySource::BuiltIn, ..) => "the built-in policy of a node with an authority".to_owned(),
            (_, Some(name), Some(of_type)) => format!("the policy for the {} {name:?}", of_type.name()),
            (_, Some(name), None) => format!("the policy for what is named {name:?}"),
            (_, None, of_type) => format!("the policy for every {}", of_type.map_or("resource", ResourceType::name)),
        };
        let mut why = vec![format!("{about} is guarded by {because}: {}", read.row.expression)];
        let question = Question { resource, subject, has_authority: self.has_authority };
        let allowed = match (&read.policy, &subject.identifier, &subject.attributes) {
            (_, None, None) => {
                why.push("denied: who comes by no secure channel has no identity".into());
                false
            }
            (None, ..) => {
                why.push("denied: this version cannot read the policy".into());
                false
            }
            (Some(policy), ..) => {
                let explained = policy.explain(&question);
                why.extend(explained.to_string().lines().map(str::to_owned));
                explained.permits()
            }
        };
        Decision { allowed, policy: Some(read.info()), why }
    }

    /// Every policy: the user's in the order of their creation, then those that are built in and not replaced.
    pub(super) fn infos(&self) -> Vec<PolicyInfo> {
        let replaced = |it: &&Arc<Read>| {
            let mut others = self.policies.iter().map(|other| &other.row);
            others.any(|other| other.resource.is_none() && other.resource_type == it.row.resource_type)
        };
        let built_in = self.built_in.iter().filter(|it| !replaced(it));
        self.policies.iter().chain(built_in).map(|it| it.info()).collect()
    }

    /// The names of the guarded resources.
    pub(super) fn names(&self) -> Vec<&str> {
        self.rows
            .iter()
            .map(|row| row.resource.as_str())
            .filter(|name| !name.is_empty())
            .chain([RELAY_SERVICE])
            .collect()
    }

    /// The types of the guarded resources that have this name.
    pub(super) fn types_of(&self, resource: &str) -> Vec<ResourceType> {
        let mut types: Vec<_> =
            self.rows.iter().filter(|row| row.resource == resource).map(|row| row.resource_type).collect();
        if resource == RELAY_SERVICE {
            types.push(ResourceType::Relay);
        }
        types
    }
}

/// The guards of both.
pub(super) fn union(a: &GuardSet, b: &GuardSet) -> GuardSet {
    let both = a.words().iter().zip(b.words()).enumerate();
    both.flat_map(|(index, (a, b))| bits(a | b).map(move |bit| (index * 64) as Guard + bit)).collect()
}

fn bits(word: u64) -> impl Iterator<Item = Guard> {
    (0..64).filter(move |bit| word >> bit & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::AuthorityRow;
    use ockam_crypto::{ChangeHistory, Secret, SigningKey, Validity};

    fn authority() -> Arc<AuthorityRow> {
        let key = SigningKey::new(Secret::new([7; 32]));
        let history = ChangeHistory::create(&key, Validity { from: 1, until: 1 << 33 }).unwrap();
        Arc::new(AuthorityRow { history, route: "/secure/api".into(), scope: "p".into(), session: "0".repeat(32) })
    }

    fn policy(resource_type: Option<ResourceType>, resource: Option<&str>, expression: &str) -> PolicyRow {
        PolicyRow { resource_type, resource: resource.map(str::to_owned), expression: expression.into() }
    }

    /// Two outlets, `db` with guard 1 and `web` with guard 2, and `echo` with guard 3.
    fn rules(has_authority: bool, policies: Vec<PolicyRow>) -> Rules {
        let guard =
            |number, resource_type, resource: &str| GuardRow { number, resource_type, resource: resource.into() };
        Rules::new(&Desired {
            policies,
            guards: vec![
                guard(1, ResourceType::TcpOutlet, "db"),
                guard(2, ResourceType::TcpOutlet, "web"),
                guard(3, ResourceType::Echoer, "echo"),
            ],
            authority: has_authority.then(authority),
            ..Desired::default()
        })
    }

    fn somebody(attributes: Option<&[(&str, &str)]>) -> Subject {
        let attested = |pairs: &[(&str, &str)]| {
            let mut attributes = Attributes::new();
            pairs.iter().for_each(|(name, value)| attributes.insert(*name, *value).unwrap());
            Arc::new(attributes)
        };
        Subject { identifier: Some(format!("I{}", "0".repeat(64))), attributes: attributes.map(attested) }
    }

    fn set(guards: &[Guard]) -> GuardSet {
        guards.iter().copied().collect()
    }

    #[test]
    fn who_passes_follows_from_authority_policies_and_credential() {
        let (outlet, echoer) = (ResourceType::TcpOutlet, ResourceType::Echoer);
        let nobody = somebody(None);
        let dba = somebody(Some(&[("role", "dba")]));
        let plain = somebody(Some(&[]));
        let by_name = || policy(None, Some("db"), "role=dba");
        let by_both = || policy(Some(outlet), Some("db"), "(= subject.role \"none\")");
        let by_type = || policy(Some(outlet), None, "(exists? subject.role)");
        // Which is open, and what is granted to who has no credential, one without attributes, and one of a dba.
        for (has_authority, policies, open, granted) in [
            (false, vec![], set(&[1, 2, 3]), [set(&[]), set(&[]), set(&[])]),
            (false, vec![by_name()], set(&[2, 3]), [set(&[]), set(&[]), set(&[1])]),
            (false, vec![by_type()], set(&[3]), [set(&[]), set(&[]), set(&[1, 2])]),
            (false, vec![by_type(), by_both()], set(&[3]), [set(&[]), set(&[]), set(&[2])]),
            (true, vec![], set(&[]), [set(&[]), set(&[1, 2, 3]), set(&[1, 2, 3])]),
            (true, vec![by_name()], set(&[]), [set(&[]), set(&[2, 3]), set(&[1, 2, 3])]),
            (true, vec![by_type()], set(&[]), [set(&[]), set(&[3]), set(&[1, 2, 3])]),
            // The name prevails over the type, and both together over the name alone.
            (true, vec![by_type(), by_name()], set(&[]), [set(&[]), set(&[3]), set(&[1, 2, 3])]),
            (true, vec![by_name(), by_both()], set(&[]), [set(&[]), set(&[2, 3]), set(&[2, 3])]),
            // Of another type.
            (
                true,
                vec![policy(Some(echoer), Some("db"), "role=dba")],
                set(&[]),
                [set(&[]), set(&[1, 2, 3]), set(&[1, 2, 3])],
            ),
            // What asks for the name is asked about each.
            (
                true,
                vec![policy(Some(outlet), None, "(= resource.id \"web\")")],
                set(&[]),
                [set(&[2]), set(&[2, 3]), set(&[2, 3])],
            ),
            // `has_credential` is known only where there is an authority.
            (
                false,
                vec![policy(Some(outlet), None, "(not (= subject.has_credential true))")],
                set(&[3]),
                [set(&[]), set(&[]), set(&[])],
            ),
            // What cannot be read permits nobody.
            (false, vec![policy(Some(outlet), None, "(later 1)")], set(&[3]), [set(&[]), set(&[]), set(&[])]),
        ] {
            let case = format!("{has_authority} {policies:?}");
            let rules = rules(has_authority, policies);
            assert_eq!(rules.open(), open, "{case}");
            for (subject, granted) in [&nobody, &plain, &dba].into_iter().zip(granted) {
                assert_eq!(rules.grants(subject), granted, "{case} {subject:?}");
                // What is explained is what is granted.
                for (guard, of_type, name) in [(1, outlet, "db"), (2, outlet, "web"), (3, echoer, "echo")] {
                    let passes = granted.contains(guard) || open.contains(guard);
                    let decision = rules.explain(of_type, name, subject);
                    assert_eq!(decision.allowed, passes, "{case} {name} {subject:?} {:?}", decision.why);
                    assert_eq!(rules.admits(of_type, name, Some(subject)), passes, "{case} {name} {subject:?}");
                    assert_eq!(rules.admits(of_type, name, None), open.contains(guard), "{case} {name}");
                }
            }
        }
    }

    #[test]
    fn identifiers_are_known_without_any_authority() {
        let me = somebody(None);
        let name = me.identifier.clone().unwrap();
        let rules = rules(false, vec![policy(None, Some("db"), &name)]);
        assert_eq!(rules.grants(&me), set(&[1]));
        let other = Subject { identifier: Some(format!("I{}", "1".repeat(64))), attributes: None };
        assert_eq!(rules.grants(&other), GuardSet::NONE);
        let decision = rules.explain(ResourceType::TcpOutlet, "db", &Subject::default());
        assert!(!decision.allowed && decision.why[1].contains("no identity"), "{:?}", decision.why);
    }

    #[test]
    fn relays_take_an_attribute_where_there_is_an_authority() {
        let star = somebody(Some(&[("ockam-relay", "*")]));
        let blue = somebody(Some(&[("ockam-relay", "blue")]));
        let plain = somebody(Some(&[]));
        let guarded = policy(Some(ResourceType::Relay), None, "(= subject.identifier \"I1\")");
        for (has_authority, policies, may) in [
            (false, vec![], [true, true, true, true, true]),
            (false, vec![guarded.clone()], [false; 5]),
            (true, vec![], [false, false, true, true, false]),
            (true, vec![guarded], [false; 5]),
        ] {
            let rules = rules(has_authority, policies);
            let asks = [
                rules.admits_relay("blue", None),
                rules.admits_relay("blue", Some(&plain)),
                rules.admits_relay("blue", Some(&star)),
                rules.admits_relay("blue", Some(&blue)),
                rules.admits_relay("green", Some(&blue)),
            ];
            // Without an authority nobody is asked for attributes.
            assert_eq!(asks, may, "{has_authority}");
        }
    }

    #[test]
    fn transit_is_closed_until_a_policy_opens_it_and_no_credential_does() {
        let transit = ResourceType::Transit;
        let mut desired = Desired {
            policies: vec![
                policy(Some(transit), Some("10.0.0.0/8:80"), "role=dba"),
                policy(Some(transit), None, "role=admin"),
                policy(None, Some("10.9.0.0/16"), "role=dba"),
            ],
            authority: Some(authority()),
            ..Desired::default()
        };
        let places = places(&desired);
        assert_eq!(places.len(), 2, "{places:?}");
        desired.guards = places
            .into_iter()
            .zip(5..)
            .map(|((resource_type, resource), number)| GuardRow { number, resource_type, resource })
            .collect();
        let rules = Rules::new(&desired);
        assert_eq!(rules.open(), GuardSet::NONE);
        // The first is that for all of them: its name is empty.
        let texts: Vec<String> = rules.transit().iter().map(transit::text).collect();
        assert_eq!(texts, ["guard 6=10.0.0.0/8:80", "guard 5=0.0.0.0/0", "guard 5=::/0"]);
        assert_eq!(rules.grants(&somebody(Some(&[("role", "dba")]))), set(&[6]));
        assert_eq!(rules.grants(&somebody(Some(&[("role", "admin")]))), set(&[5]));
        assert!(!rules.admits(transit, "10.9.0.0/16", Some(&somebody(Some(&[("role", "dba")])))));
        let without = Rules::new(&Desired { policies: vec![], ..desired });
        assert_eq!((without.transit(), without.open()), (&[][..], GuardSet::NONE));
        assert!(!without.explain(transit, "10.0.0.0/8", &somebody(Some(&[]))).allowed);
    }

    #[test]
    fn built_in_policies_are_shown_until_the_user_has_others() {
        let names = |rules: &Rules| -> Vec<_> {
            rules.infos().iter().map(|it| (it.resource_type.map(ResourceType::name), it.source)).collect()
        };
        assert_eq!(rules(false, vec![]).infos(), []);
        let (user, built_in) = (PolicySource::User, PolicySource::BuiltIn);
        let all = rules(true, vec![policy(Some(ResourceType::Relay), None, "admin"), policy(None, Some("db"), "dba")]);
        assert_eq!(
            names(&all),
            [
                (Some("relay"), user),
                (None, user),
                (Some("tcp-inlet"), built_in),
                (Some("tcp-outlet"), built_in),
                (Some("echoer"), built_in),
                (Some("service"), built_in)
            ]
        );
        assert_eq!(all.types_of("db"), [ResourceType::TcpOutlet]);
    }
}
