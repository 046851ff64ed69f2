//! An authority, who enrolls at it, and its members, of either kind.

use crate::{Anchor, Home, Kind, ManagedNode, OurNode, PortalNode, RealAuthority};
use ockam::identity::Identifier;
use serde_json::Value;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

/// An authority of either kind.
#[expect(clippy::large_enum_variant, reason = "a test holds one of them")]
pub enum Authority {
    /// The real library's.
    Real(RealAuthority),
    /// This project's.
    Ours(OurAuthority),
}

/// The node of an authority of ours.
pub struct OurAuthority {
    /// As a node.
    pub node: OurNode,
    anchor: Anchor,
}

impl Authority {
    /// Starts one, of which these may enroll others. Its credentials live so long.
    #[track_caller]
    pub fn start(kind: Kind, enrollers: &[Identifier], lifetime: Duration) -> Authority {
        match kind {
            Kind::Real => Authority::Real(RealAuthority::start(enrollers, lifetime)),
            Kind::Ours => Authority::Ours(OurAuthority::start(enrollers, lifetime)),
        }
    }

    /// Gives it another key to issue credentials with. One of ours gets it with another key of its identity.
    #[track_caller]
    pub fn renew_keys(&mut self) {
        match self {
            Authority::Real(authority) => authority.renew_issuing_key(),
            Authority::Ours(authority) => {
                // Its identity has the name of its node.
                authority.node.home().ok(&["identity", "rotate", authority.node.name()]);
                authority.anchor.history = authority.node.home().history(authority.node.name());
            }
        }
    }

    /// What there is to know of it.
    pub fn anchor(&self) -> &Anchor {
        match self {
            Authority::Real(authority) => authority.anchor(),
            Authority::Ours(authority) => &authority.anchor,
        }
    }
}

impl OurAuthority {
    #[track_caller]
    fn start(enrollers: &[Identifier], lifetime: Duration) -> OurAuthority {
        let role = serde_json::json!({ "ockam-role": "enroller" });
        let trusted: serde_json::Map<_, _> =
            enrollers.iter().map(|enroller| (enroller.to_string(), role.clone())).collect();
        let (trusted, lifetime) = (Value::Object(trusted).to_string(), format!("{}s", lifetime.as_secs()));
        let more = [
            "--project-identifier",
            RealAuthority::PROJECT,
            "--trusted-identities",
            &trusted,
            "--credential-ttl",
            &lifetime,
        ];
        let home = Home::new();
        let node = home.create("authority", "authority", &home.free(), &more);
        let history = node.home().history(node.name());
        let identifier = node.identifier().as_str().try_into().expect("an identifier");
        let anchor = Anchor::at(identifier, history, node.address());
        OurAuthority { node, anchor }
    }
}

/// An authority with somebody who may enroll others.
pub struct Fleet {
    /// The authority.
    pub authority: Authority,
    /// A real node: that it can talk to an authority of ours is checked by all that it does there.
    pub enroller: ManagedNode,
}

impl Fleet {
    /// An authority of this kind, whose credentials live so long.
    #[track_caller]
    pub fn start(kind: Kind, lifetime: Duration) -> Fleet {
        let enroller = ManagedNode::start();
        let authority = Authority::start(kind, &[enroller.identifier().clone()], lifetime);
        Fleet { authority, enroller }
    }

    /// What there is to know of the authority.
    pub fn anchor(&self) -> &Anchor {
        self.authority.anchor()
    }

    /// A ticket for somebody who becomes a member with these attributes, once.
    #[track_caller]
    pub fn ticket(&self, attributes: &[(&str, &str)]) -> String {
        let code = self.enroller.create_code(self.anchor(), attributes, None, None).expect("a code");
        self.anchor().ticket(&code)
    }

    /// Starts a node that enrolls with a ticket. It shows its credential, and believes the authority.
    #[track_caller]
    pub fn member(&self, kind: Kind, attributes: &[(&str, &str)]) -> PortalNode {
        let ticket = self.ticket(attributes);
        match kind {
            Kind::Real => PortalNode::Real(ManagedNode::enrolled(&ticket)),
            Kind::Ours => {
                let home = Home::new();
                home.enroll(&ticket);
                PortalNode::Ours(home.node("ours"))
            }
        }
    }

    /// Starts a node that believes the authority and is not known there.
    #[track_caller]
    pub fn stranger(&self, kind: Kind) -> PortalNode {
        PortalNode::believing(kind, &self.anchor().history)
    }
}

impl Home {
    /// Keeps a project, given as JSON.
    #[track_caller]
    pub fn import(&self, project: &str) {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(project.as_bytes()).expect("write a file");
        self.ok(&["project", "import", "--project-file", file.path().to_str().expect("its name is UTF-8")]);
    }

    /// The history of an identity, encoded.
    #[track_caller]
    pub fn history(&self, identity: &str) -> Vec<u8> {
        hex::decode(self.ok(&["identity", "export", identity]).trim_end()).expect("hexadecimal")
    }

    /// Enrolls the identity of this home with a ticket, and keeps what it says of the project.
    #[track_caller]
    pub fn enroll(self: &Arc<Home>, ticket: &str) -> String {
        let output = self.ockam_with(&["project", "enroll", "-"], ticket);
        assert_eq!(output.code, Some(0), "`ockam project enroll -`: {}", output.stderr);
        output.stdout
    }
}
