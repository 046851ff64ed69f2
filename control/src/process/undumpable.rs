//! Keeping memory out of files and debuggers: every process of ours may hold keys.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// From now on this process leaves no core dump, and other processes of its user cannot read its memory. Programs that
/// it starts can be read again until they do the same; they inherit that they leave no core file.
pub fn make_undumpable() {
    // Both can only fail in a sandbox that forbids the calls. To refuse to run there would protect nobody.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{dumpable_behavior, getrlimit};

    #[test]
    fn memory_stays_where_it_is() {
        make_undumpable();
        assert_eq!(dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
        assert_eq!(getrlimit(Resource::Core), Rlimit { current: Some(0), maximum: Some(0) });
    }
}
