//! What the end-to-end tests share: homes with real nodes in them, peers that speak the wire, networks of namespaces, and
//! a look at processes from outside.
//!
//! Nothing here is decided by time. What must happen is waited for with [`wait_until`]; [`PATIENCE`] only ends what hangs.

#![forbid(unsafe_code)]

mod application;
mod binary;
mod channel;
mod home;
mod middle;
mod namespace;
mod pair;
mod peer;
mod port;
mod process;
mod program;
mod project;
mod trust;

pub use application::{Place, Sequence, Stream, Talk, Target, echo, echoes, try_works, works};
pub use binary::binary;
pub use channel::{Carrier, Channel, Identity, Initiator, Inner, Manner, Responder, Served, Through, now, random_name};
pub use home::{Home, Node, Output, finish};
pub use middle::{Direction, Middle, flipped, payload_of};
pub use namespace::Network;
pub use pair::Pair;
pub use peer::{ClosedPort, Peer, Received, Traffic, addresses, frame, frame_to, noise, text};
pub use port::Port;
pub use process::{Process, allow_many_connections};
pub use program::{Server, give_to_unprivileged, program, unprivileged};
pub use project::{Member, Project, enroll};
pub use trust::{Authority, Statement, Vouching};

use std::io::Write;
use std::time::{Duration, Instant};

/// Long enough for a loaded machine, short enough to notice what hangs. No test is decided by it.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `ready` gives something.
///
/// # Panics
/// After [`PATIENCE`], with what `describe` says.
#[track_caller]
pub fn wait_for<T>(mut ready: impl FnMut() -> Option<T>, describe: impl FnOnce() -> String) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ready() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain: {}", describe());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until `ready` is true.
///
/// # Panics
/// After [`PATIENCE`], with what `describe` says.
#[track_caller]
pub fn wait_until(mut ready: impl FnMut() -> bool, describe: impl FnOnce() -> String) {
    wait_for(|| ready().then_some(()), describe);
}

/// Says that this test was not run. The caller returns afterwards.
///
/// In continuous integration `OCKAM_SKIPS_FILE` names a file that collects these lines; what `.ci/skips` does not list
/// fails the run. A skip is never silent: elsewhere it is on stderr.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let line = format!("{}: {reason}\n", thread.name().unwrap_or("a test without a name"));
    eprint!("SKIPPED {line}");
    if let Some(path) = std::env::var_os("OCKAM_SKIPS_FILE") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("the file of skips can be written");
    }
}

/// Whether this runs as root, which namespaces, mounts and other users need.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The same test for both drivers. Where the machine forbids io_uring, that half is skipped with the engine's reason.
#[macro_export]
macro_rules! on_both_drivers {
    ($($(#[$meta:meta])* $name:ident($driver:ident) $body:block)*) => {$(
        mod $name {
            #[allow(unused_imports, reason = "not every test needs everything of its module")]
            use super::*;
            $(#[$meta])*
            fn run($driver: &str) $body
            #[test]
            fn uring() {
                match $crate::uring_refusal() {
                    None => run("uring"),
                    Some(reason) => $crate::skip(&reason),
                }
            }
            #[test]
            fn epoll() { run("epoll") }
        }
    )*};
}

/// Why the engine does not use io_uring on this machine, if it does not.
pub fn uring_refusal() -> Option<String> {
    static REFUSAL: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    REFUSAL
        .get_or_init(|| {
            let home = Home::new();
            home.ok(&["node", "create", "probe"]);
            let engine = home.json(&["engine", "show", "--at", "probe"]);
            (engine["driver"] != "uring").then(|| format!("no io_uring here: {}", engine["driver_reason"]))
        })
        .clone()
}
