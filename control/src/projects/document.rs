//! A project as JSON: what `ockam project import` takes, real nodes' and ours (`cli.md` 1.6).

use super::{Project, checked_name};
use crate::error::Error;
use crate::text::escape;
use ockam_crypto::ChangeHistory;
use ockam_wire::MultiAddr;
use serde::{Deserialize, Serialize};

/// Longest id of a project in bytes: that of a scope.
const ID_BYTES_MAX: usize = 255;

/// What a real node requires to read is always written.
#[derive(Serialize, Deserialize)]
pub(super) struct Document {
    id: String,
    name: String,
    #[serde(default)]
    space_name: String,
    #[serde(default)]
    access_route: String,
    #[serde(skip_deserializing, default)]
    users: [(); 0],
    #[serde(default)]
    space_id: String,
    #[serde(default)]
    identity: Option<String>,
    #[serde(default)]
    authority_access_route: Option<String>,
    #[serde(default)]
    authority_identity: Option<String>,
    #[serde(skip_deserializing, default)]
    version: Option<String>,
    #[serde(skip_deserializing, default)]
    running: Option<bool>,
    #[serde(skip_deserializing, default)]
    operation_id: Option<String>,
    #[serde(skip_deserializing, default)]
    user_roles: [(); 0],
    #[serde(default)]
    project_change_history: Option<String>,
}

pub(super) fn bad(why: impl Into<String>) -> Error {
    Error::BadData {
        what: "the project".into(),
        why: why.into(),
        fix: "Use what `ockam authority show --output json` or `ockam project show --output json` prints.".into(),
    }
}

pub(super) fn read(json: &str) -> Result<Project, Error> {
    serde_json::from_str::<Document>(json).map_err(|error| bad(format!("it is not its JSON: {error}")))?.project()
}

pub(super) fn write(project: &Project) -> serde_json::Value {
    serde_json::to_value(Document::of(project)).expect("a document has string keys")
}

pub(super) fn history(hex: &str, whose: &str) -> Result<ChangeHistory, Error> {
    ChangeHistory::from_hex(hex.trim()).map_err(|error| bad(format!("the identity of {whose} is none: {error}")))
}

pub(super) fn route(text: &str, whose: &str) -> Result<MultiAddr, Error> {
    text.parse()
        .map_err(|error| bad(format!("the route to {whose}, {:?}, is none: {error}", escape(text.as_bytes(), 200))))
}

impl Document {
    pub(super) fn of(project: &Project) -> Document {
        let node = project.node.as_ref().unwrap_or(&project.authority);
        Document {
            id: project.id.clone(),
            name: project.name.clone(),
            space_name: project.space_name.clone(),
            access_route: project.node_route.as_ref().unwrap_or(&project.authority_route).to_string(),
            users: [],
            space_id: project.space_id.clone(),
            identity: Some(node.identifier().to_string()),
            authority_access_route: Some(project.authority_route.to_string()),
            authority_identity: Some(project.authority.to_hex()),
            version: None,
            running: None,
            operation_id: None,
            user_roles: [],
            project_change_history: Some(node.to_hex()),
        }
    }

    pub(super) fn project(self) -> Result<Project, Error> {
        let authority = self.authority_identity.ok_or_else(|| bad("it has no `authority_identity`"))?;
        let authority_route = self.authority_access_route.ok_or_else(|| bad("it has no `authority_access_route`"))?;
        let node = self.project_change_history.filter(|history| !history.is_empty());
        let node_route = (!self.access_route.is_empty()).then_some(self.access_route);
        let node = node.map(|hex| history(&hex, "the project's node")).transpose()?;
        // Who the project's node is without its history does not help anybody.
        if let (Some(identity), Some(node)) = (&self.identity, &node)
            && node.identifier().to_string() != *identity
        {
            return Err(bad("its `identity` is not that of its `project_change_history`"));
        }
        checked(Project {
            id: self.id,
            name: self.name,
            authority: history(&authority, "the authority")?,
            authority_route: route(&authority_route, "the authority")?,
            node_route: node_route.map(|text| route(&text, "the project's node")).transpose()?,
            node,
            space_name: self.space_name,
            space_id: self.space_id,
        })
    }
}

/// Checks names, and leaves out what says no more than the authority does.
pub(super) fn checked(project: Project) -> Result<Project, Error> {
    let is_text = |text: &str, bytes_max: usize| text.len() <= bytes_max && !text.chars().any(char::is_control);
    if project.id.is_empty() || !is_text(&project.id, ID_BYTES_MAX) {
        return Err(bad(format!("its id is empty, longer than {ID_BYTES_MAX} bytes, or has control characters in it")));
    }
    if !is_text(&project.space_name, ID_BYTES_MAX) || !is_text(&project.space_id, ID_BYTES_MAX) {
        return Err(bad("the name or id of its space is too long, or has control characters in it"));
    }
    let name = checked_name(&project.name)?;
    let node = project.node.filter(|node| *node != project.authority);
    let node_route = project.node_route.filter(|route| node.is_some() || *route != project.authority_route);
    Ok(Project { name, node, node_route, ..project })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{history, project};
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let plain = project("p1", "default", 1);
        let full = Project {
            node: Some(history(2)),
            node_route: Some("/dnsaddr/p.example/tcp/443/service/p1/service/api".parse().unwrap()),
            space_name: "space".into(),
            space_id: "s1".into(),
            ..plain.clone()
        };
        for project in [plain, full] {
            assert_eq!(Project::from_json(&project.to_json().to_string()).unwrap(), project);
        }
    }

    /// Those that a real node cannot read a project without (`cli.md` 1.6).
    #[test]
    fn real_nodes_find_all_that_they_need() {
        let json = project("p1", "default", 1).to_json();
        for key in ["id", "name", "space_name", "access_route", "space_id", "identity", "authority_access_route"] {
            assert!(json[key].is_string(), "{key}");
        }
        assert!(json["users"].as_array().unwrap().is_empty() && json["user_roles"].as_array().unwrap().is_empty());
        assert_eq!(json["project_change_history"], json["authority_identity"]);
        assert_eq!(json["identity"], history(1).identifier().to_string());
        assert_eq!(json["access_route"], json["authority_access_route"]);
    }

    /// As in the hand-written files of real Ockam's own tests: with users and what else there is.
    #[test]
    fn a_real_project_is_read() {
        let authority = history(1).to_hex();
        let text = format!(
            r#"{{"id":"1","name":"default","space_name":"together-honeybee","access_route":"/dnsaddr/127.0.0.1/tcp/4000/service/api",
                "users":["a@b.example"],"space_id":"1","identity":"I6c20e814b56579306f55c64e8747e6c1b4a53d9a3f4ca83c252cc2fbfc72fa94",
                "authority_access_route":"/dnsaddr/127.0.0.1/tcp/4000/service/api","authority_identity":"{authority}",
                "okta_config":null,"version":"605c4632ded93eb17edeef31fa3860db225b3ab4-2023-12-05","running":false,
                "operation_id":null,"user_roles":[{{"email":"a@b.example","id":1,"role":"Admin","scope":"Project"}}],"more":[1]}}"#
        );
        let read = Project::from_json(&text).unwrap();
        assert_eq!((read.id.as_str(), read.name.as_str()), ("1", "default"));
        assert_eq!((read.node, read.node_route), (None, None));
        assert_eq!(read.authority, history(1));
    }

    #[test]
    fn what_is_no_project_is_refused() {
        let good = project("p1", "default", 1).to_json();
        let with = |key: &str, value: serde_json::Value| {
            let mut json = good.clone();
            json[key] = value;
            json.to_string()
        };
        let other = history(2);
        for (text, about) in [
            ("nonsense".to_owned(), "JSON"),
            ("[]".to_owned(), "JSON"),
            ("[".repeat(100_000), "JSON"),
            (with("id", "".into()), "id"),
            (with("id", "x".repeat(256).into()), "id"),
            (with("name", "a b".into()), "name"),
            (with("name", "\u{1b}[m".into()), "name"),
            (with("authority_identity", serde_json::Value::Null), "authority_identity"),
            (with("authority_identity", "00".into()), "authority"),
            (with("authority_access_route", "nowhere".into()), "authority"),
            (with("identity", other.identifier().to_string().into()), "identity"),
            (with("project_change_history", other.to_hex().into()), "identity"),
        ] {
            let error = Project::from_json(&text).unwrap_err();
            assert!(error.to_string().contains(about), "{about}: {error}");
            assert!(matches!(error.exit(), 64 | 65));
        }
    }
}
