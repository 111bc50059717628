//! Traces to stderr.

use tracing_subscriber::EnvFilter;

/// Sends traces to stderr, as text or JSON lines.
///
/// `QCTL_LOG` chooses what is shown (the syntax of `RUST_LOG`); `info` without
/// it. A second call changes nothing.
pub fn init(service: &'static str, json: bool) {
    let filter = EnvFilter::try_from_env("QCTL_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    let set = if json { builder.json().try_init() } else { builder.try_init() };
    if set.is_ok() {
        tracing::debug!(service, "traces start");
    }
}
