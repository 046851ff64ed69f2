//! Tickets: a project, and the code by which an authority takes in whoever redeems it.
//!
//! ```text
//!   ours, and a real node's   hex of JSON {one_time_code, project_route: {id, route}, project_identifier, project_name, ...}
//!   a real node's             hex of `route,identifier,name,code,history,authority's history,authority's route`
//!   an older one's            hex of JSON {one_time_code, project: {as `ockam project import` takes it}}
//! ```
//!
//! Each is read with and without the hexadecimal digits around it. Whoever reads a ticket can use it: its text is kept
//! in memory that is wiped, and never shown.

use super::Project;
use super::document::{self, Document};
use crate::authority::bodies::OneTimeCode;
use crate::error::Error;
use crate::text::{from_hex, to_hex};
use ockam_wire::{MultiAddr, Protocol};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use zeroize::{Zeroize, Zeroizing};

/// Longest text of a ticket in bytes: histories of 64 keys each, as digits of digits.
pub const TICKET_BYTES_MAX: usize = 256 * 1024;

/// A ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The secret.
    pub code: OneTimeCode,
    /// Of which project.
    pub project: Project,
}

impl Ticket {
    /// Reads a ticket in any of its forms.
    ///
    /// # Errors
    /// [`Error::BadData`], which shows nothing of it.
    pub fn decode(text: &str) -> Result<Ticket, Error> {
        let text = text.trim();
        if text.len() > TICKET_BYTES_MAX {
            return Err(bad(format!("it is longer than {TICKET_BYTES_MAX} bytes")));
        }
        let decoded = from_hex(text).map(Zeroizing::new);
        let text = match &decoded {
            Some(bytes) => str::from_utf8(bytes).map_err(|_| bad("it stands for something that is no text"))?,
            None => text,
        };
        let ticket = if text.starts_with('{') { Ticket::from_json(text) } else { Ticket::from_fields(text) };
        ticket.map_err(|error| match error {
            Error::BadData { why, .. } => bad(why),
            Error::BadArgument { argument, why, .. } => bad(format!("{argument} {why}")),
            other => other,
        })
    }

    fn from_json(text: &str) -> Result<Ticket, Error> {
        // What serde says of a text may show parts of it.
        let read = serde_json::from_str::<Form>(text).map_err(|error| {
            bad(format!("its JSON is not that of a ticket (line {}, column {})", error.line(), error.column()))
        })?;
        match read {
            Form { one_time_code: Code(code), project: Some(project), .. } => {
                Ok(Ticket { code, project: project.project()? })
            }
            Form {
                one_time_code: Code(code),
                project_route: Some(route),
                project_name: Some(name),
                project_change_history,
                authority_change_history: Some(authority),
                authority_route: Some(authority_route),
                ..
            } => {
                let project =
                    project(route.id, name, &route.route, project_change_history, &authority, &authority_route)?;
                Ok(Ticket { code, project })
            }
            _ => Err(bad("it does not say where the authority is, who that is, or for which project")),
        }
    }

    fn from_fields(text: &str) -> Result<Ticket, Error> {
        let fields: Vec<&str> = text.split(',').collect();
        let [route, _, name, code, history, authority, authority_route, ..] = fields.as_slice() else {
            return Err(bad("it is neither of the forms that tickets have"));
        };
        let code = code_of(code).ok_or_else(|| bad("its code is none"))?;
        // A route to a project's node names its id first: /dnsaddr/host/tcp/443/service/ID/service/api.
        let parsed: MultiAddr = document::route(route, "the project's node")?;
        let id = parsed.protocols().iter().find_map(|part| match part {
            Protocol::Service(id) => Some(id.clone()),
            _ => None,
        });
        let id = id.ok_or_else(|| bad("its route to the project's node has no id of the project"))?;
        let history = Some((*history).to_owned());
        let project = project(id, (*name).to_owned(), route, history, authority, authority_route)?;
        Ok(Ticket { code, project })
    }

    /// As text that real nodes read, too.
    pub fn encode(&self) -> Zeroizing<String> {
        let project = &self.project;
        let node = project.node.as_ref().unwrap_or(&project.authority);
        let form = Form {
            one_time_code: Code(self.code.clone()),
            project_route: Some(NodeRoute {
                id: project.id.clone(),
                route: project.node_route.as_ref().unwrap_or(&project.authority_route).to_string(),
            }),
            project_identifier: Some(node.identifier().to_string()),
            project_name: Some(project.name.clone()),
            project_change_history: Some(node.to_hex()),
            authority_change_history: Some(project.authority.to_hex()),
            authority_route: Some(project.authority_route.to_string()),
            project: None,
        };
        let json = Zeroizing::new(serde_json::to_vec(&form).expect("a ticket has string keys"));
        Zeroizing::new(to_hex(&json))
    }
}

fn bad(why: impl Into<String>) -> Error {
    Error::BadData {
        what: "the ticket".into(),
        why: why.into(),
        fix: "Use all of what `ockam ticket create` prints, on one line.".into(),
    }
}

fn project(
    id: String,
    name: String,
    route: &str,
    history: Option<String>,
    authority: &str,
    authority_route: &str,
) -> Result<Project, Error> {
    document::checked(Project {
        id,
        name,
        authority: document::history(authority, "the authority")?,
        authority_route: document::route(authority_route, "the authority")?,
        node_route: Some(document::route(route, "the project's node")?),
        node: history.map(|hex| document::history(&hex, "the project's node")).transpose()?,
        space_name: String::new(),
        space_id: String::new(),
    })
}

/// Both forms of JSON at once.
#[derive(Serialize, Deserialize)]
struct Form {
    one_time_code: Code,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    project_route: Option<NodeRoute>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    project_identifier: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    project_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    project_change_history: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    authority_change_history: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    authority_route: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    project: Option<Document>,
}

#[derive(Serialize, Deserialize)]
struct NodeRoute {
    id: String,
    route: String,
}

/// A code as 64 hexadecimal digits.
struct Code(OneTimeCode);

fn code_of(digits: &str) -> Option<OneTimeCode> {
    let mut code = Zeroizing::new([0; 32]);
    let mut bytes = from_hex(digits)?;
    let is_one = bytes.len() == code.len();
    if is_one {
        code.copy_from_slice(&bytes);
    }
    bytes.zeroize();
    is_one.then_some(OneTimeCode(code))
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(to_hex(&*self.0.0)))
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Code, D::Error> {
        struct Digits;
        impl serde::de::Visitor<'_> for Digits {
            type Value = Code;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("64 hexadecimal digits")
            }

            fn visit_str<E: serde::de::Error>(self, digits: &str) -> Result<Code, E> {
                // The digits are not shown.
                code_of(digits).map(Code).ok_or_else(|| E::custom("the code is not 64 hexadecimal digits"))
            }
        }
        deserializer.deserialize_str(Digits)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{history, project};
    use super::*;
    use proptest::prelude::*;

    fn ticket() -> Ticket {
        Ticket { code: OneTimeCode(Zeroizing::new([0xcd; 32])), project: project("p1", "default", 1) }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let plain = ticket();
        let mut full = ticket();
        full.project.node = Some(history(2));
        full.project.node_route = Some("/dnsaddr/p.example/tcp/443/service/p1/service/api".parse().unwrap());
        for ticket in [plain, full] {
            let text = ticket.encode();
            assert!(text.bytes().all(|byte| byte.is_ascii_hexdigit()) && text.len() < TICKET_BYTES_MAX);
            assert_eq!(Ticket::decode(&text).unwrap(), ticket);
            assert_eq!(Ticket::decode(&format!(" {}\n", text.to_uppercase())).unwrap(), ticket);
            // Without the digits around it.
            let json = String::from_utf8(from_hex(&text).unwrap()).unwrap();
            assert_eq!(Ticket::decode(&json).unwrap(), ticket);
        }
        assert!(!format!("{:?}", ticket()).contains(&"cd".repeat(4)));
        assert!(!format!("{:?}", ticket()).contains("205"));
    }

    /// The text of a test of real Ockam, with the histories of its own.
    #[test]
    fn real_tickets_are_read() {
        let of_project = "81825837830101583285f68200815820245ba33c7729dce1c94d8c1a00fcf89a7af33689d4563176f9dffbdd147d4488f41a66e2ee7b1a79aef17b820081584070856bb8da621154a39c894a2fedded55257715b00940b9cffe54b51d87889aff2c077124ee6e0e1c2e711688470affbc65d909c87acf4e41d38bdfb03e2000d";
        let of_authority = "81825837830101583285f6820081582045d9dac79f226762025fc82e7407aee4a4c8e7068dc04edd44f1c777b8f0cf6bf41a66e2ee7b1a79aef17b8200815840c65ce655fd57cf2ea0b0679066a24bc99e2b223341186b5eaec951101f291e96c5fc8343291a23cbd8dc063ad1f9a9554f036e8f34ab5388e444977e7e29ab0b";
        let route = "/dnsaddr/x.projects.orchestrator.ockam.io/tcp/443/service/x/service/api";
        let authority_route =
            "/dnsaddr/x.projects.orchestrator.ockam.io/tcp/443/service/x/service/authority/service/api";
        let identifier = "I5cf1bc8d300018d9a0fa6a177c073347abe35f95e55837b23e22a5f6857a1e0c";
        let code = "cd".repeat(32);
        let fields = format!("{route},{identifier},name,{code},{of_project},{of_authority},{authority_route}");
        let json = format!(
            r#"{{"one_time_code":"{code}","project_route":{{"id":"x","route":"{route}"}},"project_identifier":"{identifier}",
                "project_name":"name","project_change_history":"{of_project}","authority_change_history":"{of_authority}",
                "authority_route":"{authority_route}"}}"#
        );
        let older = format!(
            r#"{{"one_time_code":"{code}","project":{{"id":"x","name":"name","space_name":"","access_route":"{route}","users":[],
                "space_id":"","identity":null,"authority_access_route":"{authority_route}","authority_identity":"{of_authority}",
                "version":null,"running":null,"operation_id":null,"user_roles":[],"project_change_history":"{of_project}"}}}}"#
        );
        for text in [fields, json, older] {
            for text in [to_hex(text.as_bytes()), text] {
                let ticket = Ticket::decode(&text).unwrap();
                assert_eq!(*ticket.code.0, [0xcd; 32]);
                assert_eq!((ticket.project.id.as_str(), ticket.project.name.as_str()), ("x", "name"));
                assert_eq!(ticket.project.node_route.as_ref().unwrap().to_string(), route);
                assert_eq!(ticket.project.authority_route.to_string(), authority_route);
                assert_eq!(ticket.project.authority.to_hex(), of_authority);
                assert_eq!(Ticket::decode(&ticket.encode()).unwrap(), ticket);
            }
        }
    }

    #[test]
    fn what_is_no_ticket_is_refused_without_showing_it() {
        let text = ticket().encode();
        let json = String::from_utf8(from_hex(&text).unwrap()).unwrap();
        let code = "cd".repeat(32);
        for text in [
            String::new(),
            "x".repeat(TICKET_BYTES_MAX + 1),
            "00ff".into(),
            text[..text.len() - 1].into(),
            text[..text.len() - 2].into(),
            json.replace(&code, &code[2..]),
            json.replace(&code, &format!("{}zz", &code[2..])),
            json.replace("authority_route", "somewhere"),
            json.replace("\"default\"", "\"a b\""),
            json.replace("\"p1\"", "\"\""),
            format!("a,b,c,{code},e,f"),
            format!("/service/x,b,c,{code},e,f,g"),
            format!("{{\"one_time_code\":\"{code}\"}}"),
            format!("[\"{code}\"]"),
        ] {
            let error = Ticket::decode(&text).unwrap_err();
            assert_eq!(error.exit(), 65, "{error}");
            assert!(!error.to_string().contains("cdcdcd"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,300}", bytes: Vec<u8>, at: usize, with: u8) {
            let _ = Ticket::decode(&text);
            let _ = Ticket::decode(&to_hex(&bytes));
            // A ticket with one other byte is another ticket or none, whichever form it looks like.
            let mut json = from_hex(&ticket().encode()).unwrap();
            let at = at % json.len();
            json[at] = with;
            if let Ok(read) = Ticket::decode(&to_hex(&json)) {
                prop_assert_eq!(Ticket::decode(&read.encode()).unwrap(), read);
            }
        }
    }
}
