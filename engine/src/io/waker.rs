//! Waking a core that sleeps in its driver: an eventfd, written only when the core says that it sleeps.

use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// One per core, shared with everyone who puts something into its queues.
#[derive(Debug)]
pub struct Waker {
    eventfd: OwnedFd,
    sleeping: AtomicBool,
}

impl Waker {
    /// A waker of a core that is awake.
    ///
    /// # Errors
    /// What `eventfd` says.
    pub fn new() -> io::Result<Self> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Waker { eventfd, sleeping: AtomicBool::new(false) })
    }

    /// Called after something was put into a queue of the core.
    pub fn wake(&self) {
        // Pairs with the fence in `about_to_sleep`: either this load sees that the core sleeps, or the core sees what
        // was put into its queue.
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed) {
            let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        }
    }

    /// The core is about to sleep; it must look at its queues after this and before it does.
    pub fn about_to_sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The core is awake and will look at its queues.
    pub fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// Takes the eventfd's count, so that it can be waited for again.
    pub fn drain(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.eventfd, &mut count);
    }

    /// What a driver watches.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}
