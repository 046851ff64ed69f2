//! The two ends of portals.

use crate::{Home, Node, Place, wait_until};
use serde_json::Value;

/// Two nodes of ours: `n1` for the inlets, `n2` for the outlets.
pub struct Pair {
    /// Where both are.
    pub home: Home,
    /// The one for inlets, as it was at first.
    pub near: Node,
    /// The one for outlets, as it was at first.
    pub far: Node,
}

impl Pair {
    /// Creates both nodes in the same way.
    #[track_caller]
    pub fn new(more: &[&str]) -> Pair {
        let home = Home::new();
        Pair { near: home.node("n1", more), far: home.node("n2", more), home }
    }

    /// A portal through a secure channel to who serves there.
    #[track_caller]
    pub fn portal(&self, to: &Place, more: &[&str]) -> Place {
        let outlet = self.home.outlet("n2", to, &[]);
        self.home.inlet("n1", &format!("/node/n2/secure/api{outlet}"), more)
    }

    /// What `tcp-inlet show` says now.
    #[track_caller]
    pub fn inlet(&self, alias: &str) -> Value {
        self.home.json(&["tcp-inlet", "show", alias, "--at", "n1"])
    }

    /// Waits until an inlet says that its way is `up` or `down`.
    #[track_caller]
    pub fn wait_for_status(&self, alias: &str, status: &str) {
        wait_until(
            || self.inlet(alias)["status"] == status,
            || format!("it does not become {status}: {}", self.inlet(alias)),
        );
    }

    /// Waits until no connection is left in any portal of the near node.
    #[track_caller]
    pub fn comes_to_rest(&self) {
        let open = || {
            let inlets = self.home.json(&["tcp-inlet", "list", "--at", "n1"]);
            let counts = inlets.as_array().expect("an array").iter().map(|it| it["connections"].as_u64());
            counts.map(|count| count.expect("a number")).sum::<u64>()
        };
        wait_until(|| open() == 0, || format!("{} connections are left", open()));
    }
}
