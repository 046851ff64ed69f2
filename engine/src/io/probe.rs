//! Which driver runs, and why. Not by the kernel's version: containers, security modules, sysctls and limits decide as
//! well, so the ring that the cores would use is made and used. Any error whatsoever means epoll.

use super::driver::{Answer, Done, Driver, ReceiveEnd, SocketId};
use super::pool::{Geometry, Pool};
use super::sockets;
use super::uring::UringDriver;
use super::waker::Waker;
use crate::config::{DriverChoice, SOCKETS_MAX};
use ockam_engine_abi::notice::Driver as DriverKind;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// The driver that was asked for does not work here.
#[derive(Debug, thiserror::Error)]
#[error(
    "io_uring was asked for but does not work here: {reason}. Use the driver `auto` or `epoll`, or allow io_uring: \
     sysctl kernel.io_uring_disabled, the container's seccomp profile, `ulimit -l`"
)]
pub struct RingUnusable {
    /// What failed, and the system's words for it.
    pub reason: String,
}

/// Chooses the driver and says why in words. Makes a ring and uses it over the loopback interface unless `choice` is
/// epoll; takes a few milliseconds at most.
///
/// # Errors
/// When the choice is [`DriverChoice::Uring`] and the ring does not work.
pub fn choose(choice: DriverChoice) -> Result<(DriverKind, String), RingUnusable> {
    if choice == DriverChoice::Epoll {
        return Ok((DriverKind::Epoll, "epoll was asked for".into()));
    }
    match self_test() {
        Ok(what) => Ok((DriverKind::Uring, what)),
        Err(error) if choice == DriverChoice::Auto => Ok((DriverKind::Epoll, format!("no io_uring: {error}"))),
        Err(error) => Err(RingUnusable { reason: error.to_string() }),
    }
}

/// One wait of the self-test takes no longer than this; it takes microseconds when the ring works.
const STEP_LIMIT_MS: u64 = 500;

/// Accepts and connects, sends two parts to a socket that has no slot to receive into, gives it slots, compares, closes.
fn self_test() -> io::Result<String> {
    let geometry = Geometry { head: 0, body: 4096, tail: 0, count: 4 };
    let mut pool = Pool::new(0, geometry, Geometry { count: 1, ..geometry })?;
    let driver = UringDriver::new(Arc::new(Waker::new()?), SOCKETS_MAX, geometry)?;
    let mut test = Test { driver, burst: Vec::new() };

    let listening = TcpListener::bind(("127.0.0.1", 0))?;
    let target = listening.local_addr()?;
    let [listener, client, server] = [0, 1, 2].map(|index| SocketId { index, generation: 1 });
    test.driver.adopt(listener, OwnedFd::from(listening));
    test.driver.accept(listener);
    test.driver.adopt(client, sockets::to_dial(target)?);
    test.driver.connect(client, target);
    match test.until("connecting", |done| matches!(done, Done::Connected { .. }))? {
        Done::Connected { result, .. } => result?,
        _ => unreachable!("asked for"),
    };
    match test.until("accepting", |done| matches!(done, Done::Accepted { .. } | Done::AcceptFailed { .. }))? {
        Done::Accepted { socket, .. } => test.driver.adopt(server, socket),
        other => return Err(wrong("accepting", &other)),
    }

    let mut slot = pool.take().ok_or(io::ErrorKind::OutOfMemory)?;
    slot.bytes_mut(0..1000).fill(b'a');
    slot.bytes_mut(1000..2000).fill(b'b');
    let parts = [pool.share(&mut slot, 0..500), pool.share(&mut slot, 1500..2000)];
    test.driver.receive(server);
    test.driver.send(client, parts.iter(), Answer::AtOnce);
    match test.until("sending", |done| matches!(done, Done::Sent { .. }))? {
        Done::Sent { result: Ok(1000), .. } => {}
        other => return Err(wrong("sending", &other)),
    }
    match test.until("receiving without a slot", |done| matches!(done, Done::ReceiveEnded { .. }))? {
        Done::ReceiveEnded { end: ReceiveEnd::NoSlots, .. } => {}
        other => return Err(wrong("receiving without a slot", &other)),
    }
    for _ in 0..2 {
        test.driver.provide(pool.lend().ok_or(io::ErrorKind::OutOfMemory)?);
    }
    test.driver.receive(server);
    match test.until("receiving", |done| matches!(done, Done::Received { .. } | Done::ReceiveEnded { .. }))? {
        Done::Received { slot, length: 1000, .. }
            if slot.bytes(0..500).iter().all(|&b| b == b'a') && slot.bytes(500..1000).iter().all(|&b| b == b'b') => {}
        other => return Err(wrong("receiving", &other)),
    }
    test_short_send(&mut test, &mut pool)?;
    for id in [server, client, listener] {
        test.driver.close(id);
    }
    for _ in 0..3 {
        test.until("closing", |done| matches!(done, Done::Closed { .. }))?;
    }
    let (entries, completions) = test.driver.queues();
    let table = test.driver.table();
    Ok(format!("io_uring passed its test: queues {entries}/{completions}, {table} direct descriptors"))
}

/// A send that finds room for a part says how much that was, though one that finds room for all says nothing: on that
/// depends that no byte is lost or sent twice.
fn test_short_send(test: &mut Test, pool: &mut Pool) -> io::Result<()> {
    let mut slot = pool.take().ok_or(io::ErrorKind::OutOfMemory)?;
    let size = slot.size();
    let parts: [_; 16] = std::array::from_fn(|_| pool.share(&mut slot, 0..size));
    let (socket, peer) = UnixStream::pair()?;
    rustix::net::sockopt::set_socket_send_buffer_size(&socket, 1)?;
    let id = SocketId { index: 3, generation: 1 };
    test.driver.adopt(id, socket.into());
    test.driver.send(id, parts.iter(), Answer::WithTheNext);
    let sent = match test.until("sending a part", |done| matches!(done, Done::Sent { .. }))? {
        Done::Sent { result: Ok(sent), .. } if sent < parts.len() * size => sent,
        other => return Err(wrong("sending a part", &other)),
    };
    test.driver.close(id);
    test.until("closing", |done| matches!(done, Done::Closed { .. }))?;
    let arrived = io::copy(&mut &peer, &mut io::sink())?;
    if arrived == sent as u64 { Ok(()) } else { Err(io::Error::other(format!("{arrived} bytes of {sent} arrived"))) }
}

fn wrong(step: &str, done: &Done) -> io::Error {
    io::Error::other(format!("{step} ended with {done:?}"))
}

struct Test {
    driver: UringDriver,
    /// What came and was not asked for yet.
    burst: Vec<Done>,
}

impl Test {
    /// Waits for the first thing that is `wanted` and takes it out.
    fn until(&mut self, step: &str, wanted: impl Fn(&Done) -> bool) -> io::Result<Done> {
        // A wait may be interrupted by a signal, but not for ever.
        for _ in 0..10 {
            if let Some(place) = self.burst.iter().position(&wanted) {
                return Ok(self.burst.remove(place));
            }
            self.driver.wait(0, STEP_LIMIT_MS, &mut self.burst)?;
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("{step} did not end")))
    }
}

#[cfg(test)]
mod tests {
    use super::choose;
    use crate::config::DriverChoice;
    use ockam_engine_abi::notice::Driver as DriverKind;

    #[test]
    fn epoll_is_taken_at_its_word() {
        let (kind, why) = choose(DriverChoice::Epoll).unwrap();
        assert_eq!((kind, why.as_str()), (DriverKind::Epoll, "epoll was asked for"));
    }

    #[test]
    fn auto_and_uring_agree_whether_the_ring_works() {
        let (kind, why) = choose(DriverChoice::Auto).unwrap();
        match choose(DriverChoice::Uring) {
            Ok((forced, _)) => assert_eq!((forced, kind), (DriverKind::Uring, DriverKind::Uring), "{why}"),
            Err(error) => {
                assert_eq!(kind, DriverKind::Epoll);
                assert_eq!(why, format!("no io_uring: {}", error.reason));
            }
        }
    }
}
