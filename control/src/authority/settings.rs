//! What an authority is told when it is made.

use crate::error::Error;
use ockam_crypto::{Attributes, Identifier};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The attribute that says what a member may do at the authority.
pub const ROLE: &str = "ockam-role";

/// The value of [`ROLE`] that lets a member add others.
pub const ENROLLER: &str = "enroller";

/// The attribute with the id of the project that every credential has, unless the authority is told otherwise.
pub const TRUST_CONTEXT_ID: &str = "trust_context_id";

/// For how long a credential is valid unless something else is said: 30 days, in seconds.
pub const CREDENTIAL_TTL_SECS: u64 = 30 * 86_400;

/// The longest that a credential may be valid: as long as a purpose key, five years, in seconds.
pub const CREDENTIAL_TTL_SECS_MAX: u64 = ockam_crypto::PURPOSE_KEY_LIFETIME_SECS;

/// Most identities that are members from the start.
pub const TRUSTED_MAX: usize = 1024;

/// How many bytes the attributes of a member may have, names and values together: a credential has more in it.
pub const ATTRIBUTES_BYTES_MAX: usize = 12 * 1024;

/// Most bytes in the id of a project.
const PROJECT_BYTES_MAX: usize = 256;

/// What makes a node an authority (`wire.md` D.5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthoritySettings {
    /// The id of the project, which is in every credential as [`TRUST_CONTEXT_ID`].
    pub project_identifier: String,
    /// Members from the start, which nobody can remove: their attributes, by identifier.
    #[serde(default)]
    pub trusted_identities: BTreeMap<String, BTreeMap<String, String>>,
    /// Members can be neither added, nor shown, nor removed by others.
    #[serde(default)]
    pub no_direct_authentication: bool,
    /// There are no tickets.
    #[serde(default)]
    pub no_token_enrollment: bool,
    /// Only trusted identities may add, change or remove enrollers; otherwise every enroller may.
    #[serde(default)]
    pub enforce_admin_checks: bool,
    /// Credentials do not say the id of the project.
    #[serde(default)]
    pub disable_trust_context_id: bool,
    /// For how long a credential is valid, in seconds; at least 1.
    #[serde(default = "default_ttl")]
    pub credential_ttl_secs: u64,
}

fn default_ttl() -> u64 {
    CREDENTIAL_TTL_SECS
}

impl AuthoritySettings {
    /// Those of a project, with nobody in it.
    pub fn new(project_identifier: impl Into<String>) -> AuthoritySettings {
        AuthoritySettings {
            project_identifier: project_identifier.into(),
            trusted_identities: BTreeMap::new(),
            no_direct_authentication: false,
            no_token_enrollment: false,
            enforce_admin_checks: false,
            disable_trust_context_id: false,
            credential_ttl_secs: CREDENTIAL_TTL_SECS,
        }
    }

    /// Reads the trusted identities and checks the rest.
    ///
    /// # Errors
    /// [`Error::BadArgument`], which names the option of `authority create`.
    pub fn check(&self) -> Result<BTreeMap<Identifier, BTreeMap<String, String>>, Error> {
        let bad = |argument: &str, value: &str, why: String, fix: &str| Error::BadArgument {
            argument: argument.into(),
            value: crate::text::escape(value.as_bytes(), 100),
            why,
            fix: fix.into(),
        };
        let project = &self.project_identifier;
        if project.is_empty() || project.len() > PROJECT_BYTES_MAX || project.chars().any(char::is_control) {
            let why = "is no id of a project".to_owned();
            let fix = format!("Use 1 to {PROJECT_BYTES_MAX} bytes without control characters.");
            return Err(bad("--project-identifier", project, why, &fix));
        }
        if !(1..=CREDENTIAL_TTL_SECS_MAX).contains(&self.credential_ttl_secs) {
            let why = "is no time for which a credential can be valid".to_owned();
            let fix = format!("Use 1 to {CREDENTIAL_TTL_SECS_MAX} seconds.");
            return Err(bad("CREDENTIAL_TTL_SECS", &self.credential_ttl_secs.to_string(), why, &fix));
        }
        let trusted = "--trusted-identities";
        if self.trusted_identities.len() > TRUSTED_MAX {
            let why = "are too many".to_owned();
            let fix = format!("Trust at most {TRUSTED_MAX} from the start, and add the others as members.");
            return Err(bad(trusted, &format!("{} identities", self.trusted_identities.len()), why, &fix));
        }
        let read = |(identifier, attributes): (&String, &BTreeMap<String, String>)| {
            let parsed = identifier.parse::<Identifier>().map_err(|error| {
                let fix = "`ockam identity show` prints identifiers.";
                bad(trusted, identifier, format!("is no identifier: {error}"), fix)
            })?;
            let fix = "Give each identity a map of names to values, such as {\"ockam-role\":\"enroller\"}.";
            self.attributes(attributes).map_err(|why| bad(trusted, identifier, why, fix))?;
            Ok((parsed, attributes.clone()))
        };
        self.trusted_identities.iter().map(read).collect()
    }

    /// What the credential of a member says who has these attributes.
    ///
    /// # Errors
    /// Why a member may not have them, as the end of a sentence that begins with the member.
    pub fn attributes(&self, own: &BTreeMap<String, String>) -> Result<Attributes, String> {
        let bytes: usize = own.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > ATTRIBUTES_BYTES_MAX {
            return Err(format!("has attributes of more than {ATTRIBUTES_BYTES_MAX} bytes"));
        }
        let mut attributes = Attributes::new();
        if !self.disable_trust_context_id {
            if own.contains_key(TRUST_CONTEXT_ID) {
                return Err(format!("has an attribute {TRUST_CONTEXT_ID:?}, which the authority itself sets"));
            }
            let context = attributes.insert(TRUST_CONTEXT_ID, self.project_identifier.as_str());
            context.map_err(|error| format!("cannot have the id of the project: {error}"))?;
        }
        for (name, value) in own {
            let inserted = attributes.insert(name.as_str(), value.as_str());
            inserted.map_err(|error| {
                let name = crate::text::escape(name.as_bytes(), 100);
                format!("cannot have the attribute {name:?}: {error}")
            })?;
        }
        Ok(attributes)
    }
}

/// Whether a member with these attributes may add others.
pub fn is_enroller(attributes: &BTreeMap<String, String>) -> bool {
    attributes.get(ROLE).is_some_and(|role| role == ENROLLER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn settings_are_checked_as_typed() {
        let good = AuthoritySettings::new("p1");
        assert!(good.check().unwrap().is_empty());
        let bad = |change: &dyn Fn(&mut AuthoritySettings)| {
            let mut settings = good.clone();
            change(&mut settings);
            let Err(Error::BadArgument { argument, .. }) = settings.check() else { panic!("{settings:?}") };
            argument
        };
        assert_eq!(bad(&|it| it.project_identifier = String::new()), "--project-identifier");
        assert_eq!(bad(&|it| it.project_identifier = "a\u{1b}[m".into()), "--project-identifier");
        assert_eq!(bad(&|it| it.project_identifier = "x".repeat(257)), "--project-identifier");
        assert_eq!(bad(&|it| it.credential_ttl_secs = 0), "CREDENTIAL_TTL_SECS");
        assert_eq!(bad(&|it| it.credential_ttl_secs = u64::MAX), "CREDENTIAL_TTL_SECS");
        let trusted = |id: &str, attributes: &[(&str, &str)]| {
            let (id, attributes) = (id.to_owned(), of(attributes));
            bad(&move |it| drop(it.trusted_identities.insert(id.clone(), attributes.clone())))
        };
        let id = Identifier([7; 32]).to_string();
        assert_eq!(trusted("I12", &[]), "--trusted-identities");
        assert_eq!(trusted(&id, &[("identifier", "x")]), "--trusted-identities");
        assert_eq!(trusted(&id, &[("has_credential", "true")]), "--trusted-identities");
        assert_eq!(trusted(&id, &[("trust_context_id", "p2")]), "--trusted-identities");
        assert_eq!(trusted(&id, &[("", "x")]), "--trusted-identities");
        assert_eq!(trusted(&id, &[("a", &"x".repeat(4097))]), "--trusted-identities");

        let mut settings = good.clone();
        settings.trusted_identities.insert(id, of(&[(ROLE, ENROLLER)]));
        let read = settings.check().unwrap();
        assert!(is_enroller(&read[&Identifier([7; 32])]));
        let text = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<AuthoritySettings>(&text).unwrap(), settings);
        let least: AuthoritySettings = serde_json::from_str(r#"{"project_identifier":"p1"}"#).unwrap();
        assert_eq!(least, good);
    }

    #[test]
    fn every_credential_says_the_project_unless_told_otherwise() {
        let mut settings = AuthoritySettings::new("p1");
        let own = of(&[("role", "web"), (TRUST_CONTEXT_ID, "p2")]);
        assert!(settings.attributes(&own).is_err());
        let attributes = settings.attributes(&of(&[("role", "web")])).unwrap();
        let texts: Vec<_> = attributes.texts().collect();
        assert_eq!(texts, [("role", "web"), (TRUST_CONTEXT_ID, "p1")]);
        settings.disable_trust_context_id = true;
        let attributes = settings.attributes(&own).unwrap();
        assert_eq!(attributes.get(b"trust_context_id"), Some(&b"p2"[..]));
        let many: BTreeMap<String, String> = (0..65).map(|n| (n.to_string(), String::new())).collect();
        assert!(settings.attributes(&many).is_err());
        let large: BTreeMap<String, String> = (0..4).map(|n| (n.to_string(), "x".repeat(4000))).collect();
        assert!(settings.attributes(&large).is_err());
    }
}
