//! `ockam demo` shows the way and leaves nothing behind, however it ends.

use ockam_tests::{Home, PATIENCE, Process, finish, wait_for, wait_until};
use rustix::process::Signal;
use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// `ockam demo`, and the directory in which it may put what is temporary.
fn demo(home: &Home, seconds: &str) -> (Command, PathBuf) {
    let temporary = home.path().with_extension("tmp");
    fs::create_dir(&temporary).unwrap();
    let mut command = home.command(&["demo", "--seconds", seconds]);
    // Its own home is elsewhere: the user's is none of its business.
    command.env("TMPDIR", &temporary).env("OCKAM_DEMO_TEST", &temporary);
    (command, temporary)
}

/// Everything that this demo started and that still lives.
fn left(temporary: &std::path::Path) -> Vec<Process> {
    Process::with_variable("OCKAM_DEMO_TEST", temporary.as_os_str())
}

#[test]
fn it_routes_messages_and_measures() {
    let home = Home::new();
    let (mut command, temporary) = demo(&home, "1");
    let output = finish(&mut command, b"");
    assert_eq!(output.code, Some(0), "{output:?}");
    let shown = format!("{}{}", output.stdout, output.stderr);
    for part in [
        "ockam node create",
        "ockam message send",
        "/ip4/127.0.0.1/tcp/",
        "/node/n2/node/n3/service/uppercase",
        "HELLO",
        "ockam secure-channel create",
        "--to -/service/uppercase",
        "/secure/api",
        "And for 1 s sealed",
        "ockam tcp-outlet create --at n3",
        "ockam tcp-inlet create --at n1",
        "Gbit/s",
        "ockam relay create far",
        "Through it the program answers as well.",
        "/s",
    ] {
        assert!(shown.contains(part), "the demo does not show {part:?}:\n{shown}");
    }
    assert_eq!(shown.matches("every byte as it was sent").count(), 3, "{shown}");
    assert!(!shown.contains('\x1b'), "colours in a pipe");
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "it leaves files behind");
    assert_eq!(left(&temporary), []);
    assert!(!home.path().exists(), "it touches the user's home");
}

#[test]
fn it_can_be_interrupted_at_any_time() {
    // Before, between and after the nodes are made, and while it measures.
    for nodes in [0, 2, 6] {
        let home = Home::new();
        let (mut command, temporary) = demo(&home, "60");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let demo = Process(child.id());
        wait_until(
            || left(&temporary).len() > nodes || !demo.is_alive(),
            || format!("the demo does not start {nodes} processes"),
        );
        // At its very start it may not have asked for signals yet, and what starts the tests in the background may have
        // had SIGINT ignored until somebody does.
        let signal = if nodes == 0 { Signal::TERM } else { Signal::INT };
        demo.signal(signal);
        let status = wait_for(|| child.try_wait().unwrap(), || format!("it goes on after {PATIENCE:?}"));
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        // Before it has anything to tidy up it may just end by the signal, which a shell calls 130 as well.
        let by_signal = nodes == 0 && status.signal() == Some(signal.as_raw());
        assert!(by_signal || status.code() == Some(130), "{status}: {said}");
        assert!(!said.contains("panicked"), "{said}");
        wait_until(|| left(&temporary).is_empty(), || format!("still there: {:?}", left(&temporary)));
        assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "it leaves files behind");
    }
}
