//! What the commands around projects, tickets and policies promise to a person: exit codes, files, and that nothing is left
//! half made.

use ockam_tests::{ClosedPort, Home, Project, finish};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn a_project_is_known_under_one_name_with_one_authority() {
    let (project, other) =
        (Project::new(&["--project-identifier", "p1"]), Project::new(&["--project-identifier", "p1"]));
    let home = Home::new();
    home.run(&["project", "show"]).fails(68);
    home.run(&["project", "import", "--project-file", "/nowhere.json"]).fails(66);
    let file = text(&project.file());
    assert_eq!(home.ok(&["project", "import", "--project-file", &file, "--name", "production"]), "production");
    let shown = home.json(&["project", "show", "production"]);
    assert_eq!((shown["id"].as_str(), shown["name"].as_str()), (Some("p1"), Some("production")));
    assert_eq!(home.json(&["project", "list"])[0]["is_default"], true);

    // Whoever says that it is p1 is not taken for it, and nothing changes.
    home.run(&["project", "import", "--project-file", &text(&other.file())]).fails(77);
    let ticket = other.ticket(&[]);
    home.run(&["enroll", &text(&ticket)]).fails(77);
    assert_eq!(home.json(&["project", "show", "p1"]), shown);
    // The ticket was not used.
    home.ok(&["project", "delete", "p1", "--yes"]);
    home.ok(&["enroll", &text(&ticket)]);

    // What it is exported as is what is imported, by stdin, too.
    let json = home.ok(&["project", "show", "--output", "json"]);
    let third = Home::new();
    finish(&mut third.command(&["project", "import", "--project-file", "-"]), json.as_bytes()).ok();
    assert_eq!(third.json(&["project", "show"]), serde_json::from_str::<Value>(&json).unwrap());
}

#[test]
fn a_ticket_is_a_secret_in_a_file_of_its_owner() {
    let project = Project::new(&[]);
    let path = project.ticket(&["-a", "role=web"]);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    let content = fs::read_to_string(&path).unwrap();
    let again = ["ticket", "create", "--identity", "admin", "--file", &text(&path)];
    project.home.run(&again).fails(73);
    assert_eq!(fs::read_to_string(&path).unwrap(), content);

    let home = Home::new();
    for (ticket, code) in [("nowhere.ticket", 66), (&content[2..], 65), ("", 64), ("/", 74)] {
        let said = home.run(&["enroll", ticket]).fails(code);
        assert!(!said.contains(&content[40..80]), "{said}");
    }
    home.run(&["enroll"]).fails(66);
    let shown = finish(home.command(&["environment"]).env("ENROLLMENT_TICKET", &content), b"");
    assert!(!shown.stdout.contains(&content[40..80]));

    // On the command line it works, and is warned of; again it is no longer needed.
    let literal = home.run(&["enroll", &content]);
    assert!(literal.stderr.contains("command line"), "{}", literal.stderr);
    literal.ok();
    let again = home.json(&["enroll", &text(&path)]);
    assert_eq!((&again["was_member"], &again["attributes"]["role"]), (&Value::from(false), &Value::from("web")));
    // Somebody else cannot use it.
    home.run(&["enroll", &text(&path), "--identity", "another"]).fails(77);
    // Its members alone may not make tickets.
    home.run(&["ticket", "create"]).fails(77);
    home.run(&["project-member", "list"]).fails(77);
}

#[test]
fn who_is_refused_gets_no_node() {
    let project = Project::new(&[]);
    let ticket = text(&project.ticket(&[]));
    let home = Home::new();
    home.ok(&["enroll", &ticket, "--identity", "first"]);
    home.run(&["node", "create", "n1", "--identity", "second", "--ticket", &ticket]).fails(77);
    assert_eq!(home.json(&["node", "list"]), Value::Array(Vec::new()));
    // Who is a member needs neither the ticket's use nor the authority.
    project.home.ok(&["node", "stop", "authority"]);
    home.ok(&["node", "create", "n1", "--identity", "first", "--ticket", &ticket]);
    home.run(&["enroll", &ticket, "--identity", "first"]).fails(69);
    home.run(&["node", "create", "n2", "--project", "nope"]).fails(68);
}

#[test]
fn an_authority_is_what_it_was_when_it_is_started_again() {
    let home = Home::new();
    home.run(&["authority", "create", "-t", "127.0.0.1:0"]).fails(66);
    home.ok(&["identity", "create", "admin"]);
    home.ok(&["authority", "create", "-t", "127.0.0.1:0", "--enroller", "admin"]);
    let before = home.json(&["authority", "show"]);
    home.run(&["authority", "create"]).fails(73);
    home.ok(&["node", "stop", "authority"]);
    let after = home.json(&["authority", "create"]);
    assert_eq!(before, after);
    // Who may add members is as it was.
    let file = home.path().join("project.json");
    fs::write(&file, after.to_string()).unwrap();
    home.ok(&["project", "import", "--project-file", &text(&file)]);
    home.ok(&["project-member", "list", "--identity", "admin"]);
    // A node that is none does not become one by its name.
    home.ok(&["node", "create", "plain"]);
    home.ok(&["node", "stop", "plain"]);
    home.run(&["authority", "create", "plain", "--enroller", "admin"]).fails(64);
    home.run(&["authority", "show", "plain"]).fails(64);
}

#[test]
fn a_policy_is_there_before_its_portal_and_goes_with_what_was_not_made() {
    let home = Home::new();
    home.node("n1", &[]);
    let policies = || home.json(&["policy", "list", "--at", "n1"]);
    let port = ClosedPort::new();
    let to = format!("127.0.0.1:{}", port.address().port());
    home.ok(&["tcp-outlet", "create", "--at", "n1", "--to", &to, "--allow", "role=web"]);
    let before = policies();
    assert_eq!((&before[0]["resource"], &before[0]["expression"]), (&"outlet".into(), &"role=web".into()));
    // The newest word holds: it replaces the policy that was given with the outlet.
    home.ok(&["policy", "create", "--at", "n1", "--resource", "outlet", "--allow", "role=db"]);
    let changed = policies();
    assert_eq!((changed.as_array().unwrap().len(), &changed[0]["expression"]), (1, &"role=db".into()));
    let denied = home.run(&["policy", "check", "--at", "n1", "outlet", "-a", "role=web"]);
    assert_eq!((denied.code, denied.stdout.as_str()), (Some(77), "denied"), "{}", denied.stderr);
    assert!(denied.stderr.contains("role=db") && denied.stderr.contains("these attributes"), "{}", denied.stderr);
    home.ok(&["policy", "check", "--at", "n1", "outlet", "-a", "role=db"]);
    home.ok(&["policy", "create", "--at", "n1", "--resource", "outlet", "--allow", "role=web"]);
    assert_eq!(policies(), before);
    // An inlet of the same name has a policy of its own.
    let inlet =
        ["tcp-inlet", "create", "--at", "n1", "--alias", "outlet", "--to", "/service/outlet", "--no-connection-wait"];
    home.ok(&[&inlet[..], &["--allow", "role=app"]].concat());
    for (resource_type, role) in [("tcp-inlet", "role=app"), ("tcp-outlet", "role=web")] {
        home.ok(&["policy", "check", "--at", "n1", "outlet", "--resource-type", resource_type, "-a", role]);
    }
    home.ok(&["tcp-inlet", "delete", "outlet", "--at", "n1", "--yes"]);
    home.ok(&["policy", "delete", "--at", "n1", "--resource-type", "tcp-inlet", "--resource", "outlet", "--yes"]);
    assert_eq!(policies(), before);

    // What is there keeps its policy; what cannot be made leaves none.
    let taken = ["tcp-outlet", "create", "--at", "n1", "--to", &to, "--from", "outlet", "--allow", "anybody"];
    home.run(&taken).fails(73);
    let taken = ["tcp-outlet", "create", "--at", "n1", "--to", &to, "--from", "echo", "--allow", "anybody"];
    home.run(&taken).fails(73);
    assert_eq!(policies(), before);

    // The same by a file: twice is once, and what differs is an error before anything is changed.
    let file = |allow: &str| format!("name: n1\ntcp-outlet: {{ from: outlet, to: '{to}', allow: {allow} }}\n");
    let apply = |allow: &str| finish(&mut home.command(&["node", "create", "-"]), file(allow).as_bytes());
    apply("role=web").ok();
    apply("'role = web'").fails(65);
    apply("role=db").fails(73);
    assert_eq!(policies(), before);
    let policy = |allow: &str| format!("name: n1\npolicies: {{ echo: {{ resource-type: echoer, allow: {allow} }} }}\n");
    let apply = |allow: &str| finish(&mut home.command(&["node", "create", "-"]), policy(allow).as_bytes());
    apply("admin").ok();
    apply("admin").ok();
    apply("(= subject.admin \"true\")").fails(73);
    home.ok(&["policy", "delete", "--resource", "echo", "--at", "n1", "--yes"]);
    assert_eq!(policies(), before);
    home.run(&["policy", "delete", "--resource", "echo", "--at", "n1", "--yes"]).fails(68);
}
