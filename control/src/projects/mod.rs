//! Projects: authorities as those know them who are members, or want to be.
//!
//! A *project* is what the field calls an authority together with the route to its node, under an id that its credentials
//! carry. A home knows any number of them, one is the default. A *ticket* is a project and a code that makes whoever
//! redeems it a member. [`client`] asks an authority's services.

pub mod client;
mod document;
mod ticket;

pub use ticket::{TICKET_BYTES_MAX, Ticket};

use crate::error::Error;
use crate::home::{Home, NodeName};
use crate::identities::Identities;
use crate::process::TrustOptions;
use crate::store::SharedStore;
use crate::store::project::{ProjectRow, Tables};
use ockam_crypto::{ChangeHistory, Comparison, Credential, Identifier};
use ockam_wire::{MultiAddr, Protocol};

/// Longest document of a project in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 128 * 1024;

/// An authority, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// What its credentials are filed under, and carry.
    pub id: String,
    /// Its name, like that of a node.
    pub name: String,
    /// Whose credentials count. Verified; the authority may have a longer history by now.
    pub authority: ChangeHistory,
    /// The route to the authority's listener for secure channels: it ends with `/service/api` or `/secure/api`.
    pub authority_route: MultiAddr,
    /// The route to the project's own node, which relays for its members; that of the authority when absent.
    pub node_route: Option<MultiAddr>,
    /// Who the project's own node is; the authority when absent.
    pub node: Option<ChangeHistory>,
    /// The name of its space, which means nothing here.
    pub space_name: String,
    /// The id of its space, which means nothing here.
    pub space_id: String,
}

impl Project {
    /// Reads what `ockam project show --output json` prints, or a real node's project (`cli.md` 1.6).
    ///
    /// # Errors
    /// [`Error::BadData`]: what is missing or wrong in it.
    pub fn from_json(json: &str) -> Result<Project, Error> {
        document::read(json)
    }

    /// As JSON that real nodes read, too.
    pub fn to_json(&self) -> serde_json::Value {
        document::write(self)
    }

    /// What a node is told that believes the project's authority.
    pub fn trust(&self) -> TrustOptions {
        TrustOptions {
            history: self.authority.to_hex(),
            route: self.authority_route.to_string(),
            scope: self.id.clone(),
        }
    }

    /// The route to a service of the authority, inside a secure channel.
    ///
    /// # Errors
    /// [`Error::BadArgument`]: the way to the authority is no route.
    pub(crate) fn service(&self, service: &str) -> Result<MultiAddr, Error> {
        let bad = |why: String| Error::BadArgument {
            argument: format!("the route to the authority of {}", self.name),
            value: self.authority_route.to_string(),
            why: format!("is no route to a node: {why}"),
            fix: "Write it like /ip4/127.0.0.1/tcp/4000/service/api.".into(),
        };
        let mut parts = self.authority_route.protocols().to_vec();
        match parts.pop() {
            Some(Protocol::Secure(name) | Protocol::Service(name) | Protocol::Worker(name)) => {
                parts.push(Protocol::Secure(name));
            }
            last => parts.extend(last.into_iter().chain([Protocol::Secure("api".into())])),
        }
        parts.push(Protocol::Service(service.into()));
        MultiAddr::try_from(parts).map_err(|error| bad(error.to_string()))
    }
}

/// The projects of a home, and the credentials of its identities.
#[derive(Debug)]
pub struct Projects {
    store: SharedStore,
}

/// A project of a home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownProject {
    /// It.
    pub project: Project,
    /// Whether commands mean it when they name none.
    pub is_default: bool,
}

impl Projects {
    /// Those of a home, which is made if it does not exist.
    ///
    /// # Errors
    /// As [`Home::prepare`] and [`SharedStore::open`].
    pub fn open(home: &Home) -> Result<Projects, Error> {
        home.prepare()?;
        Ok(Projects { store: SharedStore::open(home)? })
    }

    /// Those of a home; `None` when it has no database, so that there are none.
    ///
    /// # Errors
    /// As [`SharedStore::open_existing`].
    pub fn open_existing(home: &Home) -> Result<Option<Projects>, Error> {
        Ok(SharedStore::open_existing(home)?.map(|store| Projects { store }))
    }

    /// All of them, by name.
    ///
    /// # Errors
    /// Those of the database, so for all below; [`Error::BadData`] for one that is damaged.
    pub fn list(&self) -> Result<Vec<KnownProject>, Error> {
        self.store.projects().projects()?.into_iter().map(known).collect()
    }

    /// The project of this name or id.
    ///
    /// # Errors
    /// [`Error::NoSuchProject`], [`Error::BadData`].
    pub fn find(&self, name: &str) -> Result<KnownProject, Error> {
        known(find(&self.store.projects(), name)?)
    }

    /// The default project, if there is one.
    ///
    /// # Errors
    /// [`Error::BadData`].
    pub fn default_project(&self) -> Result<Option<KnownProject>, Error> {
        self.store.projects().default_project()?.map(known).transpose()
    }

    /// Whether a project could be taken in under its name.
    ///
    /// # Errors
    /// [`Error::NameTaken`] by another project; [`Error::OtherAuthority`] when this one is known with another authority.
    pub fn check(&self, project: &Project) -> Result<(), Error> {
        check(&self.store.projects(), project).map(drop)
    }

    /// Takes a project in, or replaces what is known of it. The longer of two histories of its authority stays.
    ///
    /// # Errors
    /// As [`Projects::check`].
    pub fn put(&mut self, project: &Project) -> Result<KnownProject, Error> {
        let row = self.store.change_projects(|tables| {
            let mut project = project.clone();
            if let Some(known) = check(tables, &project)?
                && known.authority.compared_to(&project.authority) == Comparison::Newer
            {
                project.authority = known.authority;
            }
            tables.put_project(&project.name, &project.id, &project.to_json().to_string())?;
            find(tables, &project.name)
        })?;
        known(row)
    }

    /// Makes a project the default.
    ///
    /// # Errors
    /// As [`Projects::find`].
    pub fn set_default(&mut self, name: &str) -> Result<KnownProject, Error> {
        let row = self.store.change_projects(|tables| {
            let row = find(tables, name)?;
            tables.set_default_project(&row.name)?;
            find(tables, &row.name)
        })?;
        known(row)
    }

    /// Forgets a project, even one that is damaged. The credentials of its authority stay where they are. Gives its name.
    ///
    /// # Errors
    /// [`Error::NoSuchProject`].
    pub fn delete(&mut self, name: &str) -> Result<String, Error> {
        self.store.change_projects(|tables| {
            let row = find(tables, name)?;
            tables.remove_project(&row.name)?;
            Ok(row.name)
        })
    }

    /// The credential that an identity of this home got from a project's authority last, encoded and not verified.
    pub fn credential(&self, subject: &Identifier, project: &Project) -> Result<Option<Vec<u8>>, Error> {
        self.store.projects().credential(subject, &project.authority.identifier(), &project.id)
    }

    /// Keeps a credential of an identity of this home in the place of the one before.
    pub fn keep(&mut self, credential: &Credential, project: &Project) -> Result<(), Error> {
        let (subject, issuer) = (credential.subject(), credential.issuer());
        self.store.change_projects(|tables| {
            tables.put_credential(&subject, &issuer, &project.id, credential.encoded(), credential.expires_at())
        })
    }
}

/// Has a home know the authority of a project, so that it is recognised when it is met. Gives its longest history.
///
/// # Errors
/// [`Error::HistoryRefused`] when it contradicts what is known; those of the database.
pub fn acquaint(identities: &mut Identities, project: &Project) -> Result<ChangeHistory, Error> {
    match identities.known(&project.authority.identifier())? {
        Some(known) if known.compared_to(&project.authority) == Comparison::Newer => Ok(known),
        _ => {
            identities.remember(&project.authority)?;
            Ok(project.authority.clone())
        }
    }
}

fn find(tables: &Tables<'_>, name: &str) -> Result<ProjectRow, Error> {
    let found = match tables.project_named(name)? {
        Some(row) => Some(row),
        None => tables.project_with(name)?,
    };
    match found {
        Some(row) => Ok(row),
        None => {
            let all = tables.projects()?;
            let near = crate::store::shared::near(name, all.iter().map(|row| row.name.as_str()));
            Err(Error::NoSuchProject { name: name.into(), near })
        }
    }
}

/// What is known of a project that is to be stored.
fn check(tables: &Tables<'_>, project: &Project) -> Result<Option<Project>, Error> {
    if tables.project_named(&project.name)?.is_some_and(|row| row.id != project.id) {
        return Err(Error::NameTaken { what: "a project", name: project.name.clone() });
    }
    let Some(row) = tables.project_with(&project.id)? else { return Ok(None) };
    let before = known(row)?.project;
    if before.authority.compared_to(&project.authority) == Comparison::Diverged {
        return Err(Error::OtherAuthority {
            name: before.name,
            known: before.authority.identifier().to_string(),
            shown: project.authority.identifier().to_string(),
        });
    }
    Ok(Some(before))
}

fn known(row: ProjectRow) -> Result<KnownProject, Error> {
    let mut project = Project::from_json(&row.document).map_err(|error| match error {
        Error::BadData { why, .. } => Error::BadData {
            what: format!("what is stored of the project {}", row.name),
            why,
            fix: format!("Delete it with `ockam project delete {}`, and take it in again.", row.name),
        },
        other => other,
    })?;
    project.name = row.name;
    Ok(KnownProject { project, is_default: row.is_default })
}

/// Reads the name of a project: it is like that of a node, since routes and commands have it.
///
/// # Errors
/// [`Error::BadArgument`].
pub(crate) fn checked_name(name: &str) -> Result<String, Error> {
    match name.parse::<NodeName>() {
        Ok(name) => Ok(name.as_str().to_owned()),
        Err(Error::BadArgument { value, why, .. }) => Err(Error::BadArgument {
            argument: "the name of the project".into(),
            value,
            why,
            fix: "Give it another one with --name: letters, digits, `_` and `-`.".into(),
        }),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use ockam_crypto::{KEY_LIFETIME_SECS, Secret, SigningKey, Validity};

    pub(crate) fn history(seed: u8) -> ChangeHistory {
        let key = SigningKey::new(Secret::new([seed; 32]));
        ChangeHistory::create(&key, validity()).unwrap()
    }

    fn validity() -> Validity {
        Validity { from: 1_750_000_000, until: 1_750_000_000 + KEY_LIFETIME_SECS }
    }

    pub(crate) fn project(id: &str, name: &str, seed: u8) -> Project {
        Project {
            id: id.into(),
            name: name.into(),
            authority: history(seed),
            authority_route: "/dnsaddr/authority.example/tcp/4000/service/api".parse().unwrap(),
            node_route: None,
            node: None,
            space_name: String::new(),
            space_id: String::new(),
        }
    }

    #[test]
    fn a_home_knows_projects_and_one_is_the_default() {
        let temporary = tempfile::tempdir().unwrap();
        let home = Home::at(temporary.path().join("home"));
        assert!(Projects::open_existing(&home).unwrap().is_none());
        let mut projects = Projects::open(&home).unwrap();
        assert_eq!(projects.default_project().unwrap(), None);
        let (one, two) = (project("1", "one", 1), project("2", "two", 2));
        assert!(projects.put(&one).unwrap().is_default);
        assert!(!projects.put(&two).unwrap().is_default);
        assert_eq!(projects.find("2").unwrap().project, two);
        assert!(projects.set_default("two").unwrap().is_default);
        assert_eq!(projects.default_project().unwrap().unwrap().project, two);
        assert!(matches!(projects.find("twoo"), Err(Error::NoSuchProject { near, .. }) if near == ["two"]));

        // The same again, and elsewhere, under another name.
        let moved = Project { authority_route: "/ip4/10.0.0.1/tcp/1/service/api".parse().unwrap(), ..two.clone() };
        assert_eq!(projects.put(&Project { name: "second".into(), ..moved }).unwrap().project.name, "second");
        assert_eq!(projects.list().unwrap().len(), 2);

        assert!(matches!(projects.put(&Project { id: "3".into(), ..one.clone() }), Err(Error::NameTaken { .. })));
        let other = Project { authority: history(9), ..one.clone() };
        assert!(matches!(projects.put(&other), Err(Error::OtherAuthority { .. })));
        assert_eq!(projects.check(&other).unwrap_err().exit(), 77);
        assert_eq!(projects.find("one").unwrap().project, one);

        assert_eq!(projects.delete("second").unwrap(), "second");
        assert!(projects.find("one").unwrap().is_default);
        assert!(projects.delete("second").is_err());
    }

    #[test]
    fn an_older_history_of_the_authority_does_not_replace_a_newer_one() {
        let temporary = tempfile::tempdir().unwrap();
        let home = Home::at(temporary.path().join("home"));
        let mut projects = Projects::open(&home).unwrap();
        let old = project("1", "one", 1);
        let keys = [1, 2].map(|seed| SigningKey::new(Secret::new([seed; 32])));
        let new = Project { authority: old.authority.rotate(&keys[0], &keys[1], validity()).unwrap(), ..old.clone() };
        projects.put(&new).unwrap();
        assert_eq!(projects.put(&old).unwrap().project, new);

        let mut identities = Identities::open(&home).unwrap();
        assert_eq!(acquaint(&mut identities, &new).unwrap(), new.authority);
        assert_eq!(acquaint(&mut identities, &old).unwrap(), new.authority);
    }

    #[test]
    fn services_of_an_authority_are_behind_its_listener() {
        let mut project = project("1", "one", 1);
        for (route, want) in [
            ("/dnsaddr/a/tcp/1/service/api", "/dnsaddr/a/tcp/1/secure/api/service/credential_issuer"),
            ("/dnsaddr/a/tcp/1/secure/door", "/dnsaddr/a/tcp/1/secure/door/service/credential_issuer"),
            ("/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1/secure/api/service/credential_issuer"),
        ] {
            project.authority_route = route.parse().unwrap();
            assert_eq!(project.service("credential_issuer").unwrap().to_string(), want);
        }
    }
}
