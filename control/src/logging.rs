//! The log of a control process: lines on its standard error, which is a file in the background.

use crate::process::LogOptions;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Begins to log. A second call changes nothing.
pub(crate) fn start(options: &LogOptions) {
    let level = match options.verbosity {
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let chosen = std::env::var("RUST_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let targets = chosen.unwrap_or_else(|| Targets::new().with_target("ockam", level).with_default(LevelFilter::WARN));
    let registry = tracing_subscriber::registry().with(targets);
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false).with_target(false);
    let started = if options.json { registry.with(lines.json()).try_init() } else { registry.with(lines).try_init() };
    // There is a subscriber already: tests in one process.
    let _ = started;
}
