//! No wake is lost, whatever the two threads do at the same time; the loop is that of a core.

use ockam_engine::io::waker::Waker;
use rustix::event::{PollFd, PollFlags, poll};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// How many writes of the eventfd wait to be read.
fn written(waker: &Waker) -> u64 {
    let mut count = [0; 8];
    match rustix::io::read(waker.fd(), &mut count) {
        Ok(_) => u64::from_ne_bytes(count),
        Err(rustix::io::Errno::AGAIN) => 0,
        Err(errno) => panic!("{errno}"),
    }
}

#[test]
fn only_a_sleeper_is_woken_and_only_once() {
    let waker = Waker::new().unwrap();
    waker.wake();
    assert_eq!(written(&waker), 0, "it was awake");
    waker.about_to_sleep();
    waker.wake();
    waker.wake();
    assert_eq!(written(&waker), 1);
    waker.about_to_sleep();
    waker.awake();
    waker.wake();
    assert_eq!(written(&waker), 0, "it was awake again");
    waker.about_to_sleep();
    waker.wake();
    waker.drain();
    assert_eq!(written(&waker), 0);
}

#[test]
fn no_wake_is_lost() {
    const ROUNDS: u64 = 50_000;
    let waker = Arc::new(Waker::new().unwrap());
    // Stands for a queue: how much was put in by each of two others.
    let queue = Arc::new(AtomicU64::new(0));
    let others: Vec<_> = (0..2)
        .map(|_| {
            let (waker, queue) = (Arc::clone(&waker), Arc::clone(&queue));
            thread::spawn(move || {
                for round in 0..ROUNDS {
                    queue.fetch_add(1, Ordering::Relaxed);
                    waker.wake();
                    if round % 64 == 0 {
                        thread::yield_now();
                    }
                }
            })
        })
        .collect();
    let mut seen = 0;
    while seen < 2 * ROUNDS {
        waker.about_to_sleep();
        let there = queue.load(Ordering::Relaxed);
        if there == seen {
            // A lost wake is a wait without end; the limit only makes it a failure instead.
            let limit = rustix::event::Timespec { tv_sec: 120, tv_nsec: 0 };
            let events = poll(&mut [PollFd::from_borrowed_fd(waker.fd(), PollFlags::IN)], Some(&limit)).unwrap();
            assert_eq!(events, 1, "nobody woke it after {seen}");
            waker.drain();
        }
        waker.awake();
        seen = queue.load(Ordering::Relaxed);
    }
    for other in others {
        other.join().unwrap();
    }
    assert_eq!(seen, 2 * ROUNDS);
}
