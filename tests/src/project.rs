//! An authority's node and those who are members of its project, each in a home of its own, as on machines of their own.

use crate::{Home, Node};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// An authority at work. `admin`, an identity of its home, may add members.
pub struct Project {
    /// The home of the authority and of `admin`.
    pub home: Home,
    /// The authority's node, as it was at first.
    pub node: Node,
    directory: tempfile::TempDir,
    tickets: AtomicU32,
}

impl Project {
    /// Creates an authority that listens on a port of its own, also after a stop, unless `more` says otherwise.
    #[track_caller]
    pub fn new(more: &[&str]) -> Project {
        let home = Home::new();
        home.ok(&["identity", "create", "admin"]);
        let address = home.free().to_string();
        let create = ["authority", "create", "--identity", "authority", "--enroller", "admin", "-t", &address];
        home.ok(&[&create, more].concat());
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let node = home.show("authority");
        let project = Project { home, node, directory, tickets: AtomicU32::new(0) };
        let file = project.file();
        project.home.ok(&["project", "import", "--project-file", &file.display().to_string()]);
        project
    }

    /// A new file with what others need to know of the project.
    #[track_caller]
    pub fn file(&self) -> PathBuf {
        let path = self.path("project.json");
        let json = self.home.ok(&["authority", "show", "--output", "json"]);
        std::fs::write(&path, json).expect("the directory is ours");
        path
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A new ticket, in a file.
    #[track_caller]
    pub fn ticket(&self, more: &[&str]) -> PathBuf {
        let path = self.path(&format!("{}.ticket", self.tickets.fetch_add(1, Ordering::Relaxed)));
        let file = path.display().to_string();
        self.home.ok(&[&["ticket", "create", "--identity", "admin", "--file", &file], more].concat());
        path
    }

    /// A command of `admin` about members, and what it prints.
    #[track_caller]
    pub fn member(&self, arguments: &[&str]) -> String {
        self.home.ok(&[&["project-member"], arguments, &["--identity", "admin"]].concat())
    }

    /// A home whose identity `name` is a member with these attributes.
    #[track_caller]
    pub fn join(&self, name: &str, attributes: &[&str]) -> Member {
        let home = Home::new();
        home.ok(&["identity", "create", name]);
        let more: Vec<&str> = attributes.iter().flat_map(|attribute| ["--attribute", attribute]).collect();
        enroll(&home, &self.ticket(&more));
        let identifier = home.ok(&["identity", "show", name]).trim().to_owned();
        Member { home, name: name.to_owned(), identifier }
    }
}

/// Has the default identity of a home redeem a ticket.
#[track_caller]
pub fn enroll(home: &Home, ticket: &Path) {
    home.ok(&["enroll", &ticket.display().to_string()]);
}

/// A home with one identity, which is a member of a project.
pub struct Member {
    /// It.
    pub home: Home,
    /// The name of its identity, and of the node that [`Member::node`] makes.
    pub name: String,
    /// Who it is.
    pub identifier: String,
}

impl Member {
    /// Creates a node, which believes the project's authority since it is the default project.
    #[track_caller]
    pub fn node(&self, more: &[&str]) -> Node {
        self.home.node(&self.name, more)
    }
}
