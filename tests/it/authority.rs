//! An authority that dies at the worst moment.

use ockam_tests::{Home, Project, noise};
use rustix::process::Signal;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

/// Whether this identity is a member after it has come with the ticket, however often it was cut off before.
fn enrolls(home: &Home, identity: &str, ticket: &str) -> bool {
    let tried = home.command(&["enroll", ticket, "--identity", identity]).output().unwrap();
    match tried.status.code() {
        Some(0) => true,
        Some(77) => false,
        _ => panic!("{identity}: {tried:?}"),
    }
}

/// Two come with a ticket for one while the authority is killed: before, while, and after it writes, and before it has
/// answered. Who was told that it is a member is one, exactly one of them is, and it may ask as often as it likes.
#[test]
fn a_ticket_admits_one_whenever_the_authority_dies() {
    let rounds = if std::env::var_os("OCKAM_TEST_LONG").is_some() { 100 } else { 6 };
    let project = Project::new(&[]);
    let home = Home::new();
    let mut members = 1;
    for (round, choice) in noise(rounds, 815).into_iter().enumerate() {
        let ticket = project.ticket(&[]).display().to_string();
        let names = ["a", "b"].map(|name| format!("{name}{round}"));
        names.iter().for_each(|name| drop(home.ok(&["identity", "create", name])));
        let comers = names.each_ref().map(|name| {
            let mut comer = home.command(&["enroll", &ticket, "--identity", name, "--timeout", "2s"]);
            comer.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        });
        // From before anything has come to long after all is over.
        thread::sleep(Duration::from_micros(u64::from(choice) * 1000));
        let control = project.home.show("authority").control;
        control.signal(Signal::KILL);
        control.wait();
        project.home.ok(&["node", "start", "authority"]);
        let told = comers.map(|comer| comer.wait_with_output().unwrap().status.success());

        let admitted = names.each_ref().map(|name| enrolls(&home, name, &ticket));
        assert!(admitted[0] != admitted[1], "round {round}: {admitted:?} after {told:?}");
        assert!(!told[0] || admitted[0], "round {round}: the first was told that it is a member");
        assert!(!told[1] || admitted[1], "round {round}: the second was told that it is a member");
        let again = names.each_ref().map(|name| enrolls(&home, name, &ticket));
        assert_eq!(again, admitted, "round {round}");
        members += 1;
        let listed = project.member(&["list-ids", "--output", "json"]);
        assert_eq!(listed.matches("\"I").count(), members, "round {round}: {listed}");
    }
}
