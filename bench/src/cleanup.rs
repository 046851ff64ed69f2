//! What must be undone however the run ends: processes, temporary homes, the machine's congestion control.

use std::collections::BTreeMap;
use std::sync::Mutex;

type Action = Box<dyn FnOnce() + Send>;

static PENDING: Mutex<BTreeMap<u64, Action>> = Mutex::new(BTreeMap::new());

/// Undoes something when it is dropped, or when a signal ends the run.
#[must_use]
pub struct Cleanup(u64);

impl Cleanup {
    /// Later ones are undone first.
    pub fn new(action: impl FnOnce() + Send + 'static) -> Cleanup {
        let mut pending = PENDING.lock().expect("no action panics");
        let key = pending.last_key_value().map_or(0, |(key, _)| key + 1);
        pending.insert(key, Box::new(action));
        Cleanup(key)
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        let action = PENDING.lock().expect("no action panics").remove(&self.0);
        if let Some(action) = action {
            action();
        }
    }
}

/// Undoes everything on SIGINT, SIGTERM and SIGHUP, and ends the process; undoes everything after a panic, which in a
/// release build ends the process without unwinding.
///
/// # Errors
/// What the system says.
pub fn on_signals() -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        undo_all();
    }));
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            eprintln!("\nockam-bench: signal {signal}, cleaning up");
            undo_all();
            std::process::exit(128 + signal);
        }
    })?;
    Ok(())
}

fn undo_all() {
    // Not held while an action runs. Not waited for: a panic may come from whoever holds it.
    while let Some((_, action)) = PENDING.try_lock().ok().and_then(|mut pending| pending.pop_last()) {
        action();
    }
}
