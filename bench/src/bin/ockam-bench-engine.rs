//! The engine of the shipped binary with a counting allocator: `ockam-bench-engine DIR DRIVER THREADS`, control on
//! standard input as always. Whoever connects to `DIR/allocations.sock` is told how often the process has allocated.
//!
//! Not part of what is shipped; the shipped engine's code runs in it unchanged.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, counted. Growing in place counts: it, too, asks the allocator.
struct Counting;

// SAFETY: every call goes to `System` with the arguments it came with; counting touches no memory but one atomic.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `realloc`, and every block is `System`'s.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, and every block is `System`'s.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, driver, threads] = &arguments[..] else {
        return Err("usage: ockam-bench-engine DIR DRIVER THREADS".into());
    };
    let node_dir = PathBuf::from(dir);
    let door = UnixListener::bind(node_dir.join("allocations.sock"))?;
    std::thread::Builder::new().name("allocations".into()).spawn(move || {
        for mut asker in door.incoming().flatten() {
            let _ = asker.write_all(&ALLOCATIONS.load(Ordering::Relaxed).to_le_bytes());
        }
    })?;
    let config = ockam_engine::Config {
        node_dir,
        driver: driver.parse()?,
        threads: Some(threads.parse()?),
        pin: false,
        portal_memory: None,
    };
    Ok(ockam_engine::run(config)?)
}
