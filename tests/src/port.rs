//! Ports that stay with a test also while nobody listens there.
//!
//! A port that the kernel chose is anybody's again as soon as its listener is gone: a node that is stopped for a moment may
//! find another test's client there when it comes back. So a test that goes away from a port and comes back takes one that
//! the kernel chooses for nobody.

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with, sockopt};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// A port of 127.0.0.1 that no other test takes as long as this lives, and that the kernel gives to no connection.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// Its name says that the port is taken, to all tests of all processes. It goes with the process, however that ends.
    _claim: OwnedFd,
}

impl Default for Port {
    fn default() -> Port {
        Port::take()
    }
}

impl Port {
    /// Takes one at which nobody listens.
    ///
    /// # Panics
    /// There is none.
    #[track_caller]
    pub fn take() -> Port {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let range = unchosen();
        let count = u32::from(range.end - range.start);
        // Processes that run at the same time begin at places of their own, so that they seldom meet.
        let begin = std::process::id().wrapping_mul(0x9e37_79b9) >> 8;
        for _ in 0..count {
            let place = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % count;
            let number = range.start + u16::try_from(place).expect("it is below the count");
            if let Some(claim) = claim(number).filter(|_| is_free(number)) {
                return Port { number, _claim: claim };
            }
        }
        panic!("all ports from {} to {} are taken", range.start, range.end - 1);
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}

/// Ports that need no privilege, and of which the kernel chooses none where any will do.
fn unchosen() -> Range<u16> {
    static UNCHOSEN: OnceLock<Range<u16>> = OnceLock::new();
    let look = || {
        let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        let mut ends = text.split_whitespace().filter_map(|end| end.parse::<u16>().ok());
        let (low, high) = (ends.next().unwrap_or(32768), ends.next().unwrap_or(60999));
        // Above what servers usually listen at.
        let (below, above) = (10_000.min(low)..low, high.saturating_add(1).max(10_000)..u16::MAX);
        // On a machine that may choose any port, one is as good as another.
        let longer = [below, above].into_iter().max_by_key(ExactSizeIterator::len);
        longer.filter(|it| it.len() > 1000).unwrap_or(10_000..u16::MAX)
    };
    UNCHOSEN.get_or_init(look).clone()
}

/// Takes the name of the port, unless another test has it.
fn claim(number: u16) -> Option<OwnedFd> {
    let claim = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).expect("a socket");
    let name = format!("ockam-tests/port/{number}");
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).expect("a short name");
    match bind(&claim, &address) {
        Ok(()) => Some(claim),
        Err(Errno::ADDRINUSE) => None,
        Err(errno) => panic!("the name of a port cannot be taken: {errno}"),
    }
}

/// Whether nobody listens there. The socket that tries it does not listen: one that did would be in the way for as long as
/// a process that is being started has a copy of it.
fn is_free(number: u16) -> bool {
    let probe = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a socket");
    sockopt::set_socket_reuseaddr(&probe, true).expect("an address may be used again");
    bind(&probe, &SocketAddr::from((Ipv4Addr::LOCALHOST, number))).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::net::TcpListener;

    #[test]
    fn a_port_is_nobody_elses() {
        let ports: Vec<Port> = (0..50).map(|_| Port::take()).collect();
        let numbers: BTreeSet<u16> = ports.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), 50);
        assert!(ports.iter().all(|port| claim(port.number()).is_none() && is_free(port.number())));
        let first = ports[0].number();
        let listener = TcpListener::bind(ports[0].address()).expect("nobody listens there");
        assert!(!is_free(first));
        drop((ports, listener));
        assert!(claim(first).is_some(), "it is not given back");
    }
}
