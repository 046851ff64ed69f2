//! Networks of their own: two machines and a cable between them, made of network namespaces (as root).

use crate::{Home, Output, finish};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Two network namespaces, `left` and `right`, with a cable between them and a loopback each.
///
/// | | left | right |
/// |---|---|---|
/// | cable | 10.77.0.1/24, 10.88.0.1/24, fd77::1/64 | 10.77.0.2/24, 10.88.0.2/24, fd77::2/64 |
pub struct Network {
    left: String,
    right: String,
}

impl Network {
    /// Makes the network, or says why that is not possible here.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn new() -> Result<Network, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("ockam{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let network = Network { left: format!("{unique}l"), right: format!("{unique}r") };
        let (left, right) = (&network.left, &network.right);
        ip(&format!("netns add {left}"))?;
        ip(&format!("netns add {right}"))?;
        ip(&format!("-n {left} link add cable type veth peer name cable netns {right}"))?;
        for (side, number) in [(left, 1), (right, 2)] {
            for address in [format!("10.77.0.{number}/24"), format!("10.88.0.{number}/24")] {
                ip(&format!("-n {side} addr add {address} dev cable"))?;
            }
            ip(&format!("-n {side} addr add fd77::{number}/64 dev cable nodad"))?;
            ip(&format!("-n {side} link set lo up"))?;
            ip(&format!("-n {side} link set cable up"))?;
        }
        Ok(network)
    }

    /// The name of the namespace on this side.
    pub fn left(&self) -> &str {
        &self.left
    }

    /// The name of the namespace on the other side.
    pub fn right(&self) -> &str {
        &self.right
    }

    /// Runs `ockam` in a namespace.
    #[track_caller]
    pub fn ockam(&self, side: &str, home: &Home, arguments: &[&str]) -> Output {
        let enter = format!("--net=/run/netns/{side}");
        finish(&mut home.around("nsenter", &[&[enter.as_str(), "ockam"], arguments].concat()), b"")
    }

    /// Does something in a namespace: sockets that are made there belong to it.
    #[track_caller]
    pub fn within<T: Send>(&self, side: &str, act: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{side}")).expect("the namespace exists");
        std::thread::scope(|scope| {
            // A thread of its own, since the namespace is that of a thread and stays with it.
            let thread = scope.spawn(|| {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(namespace.as_fd(), kind).expect("root may enter namespaces");
                act()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for side in [&self.left, &self.right] {
            // The second half of a network that could not be made does not exist.
            let _ = ip(&format!("netns del {side}"));
        }
    }
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("ip: {error}")),
    }
}
