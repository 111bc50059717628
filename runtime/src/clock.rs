//! The clocks, read here and nowhere in the core.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch by the wall clock; 0 before 1970.
#[must_use]
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// Milliseconds that look like wall-clock time but never go backwards.
///
/// The wall clock is read once, at the first call; from then on the monotonic
/// clock is added, so that a step of the wall clock moves no deadline.
#[must_use]
pub fn steady_ms() -> u64 {
    static START: OnceLock<(u64, Instant)> = OnceLock::new();
    let (wall, instant) = START.get_or_init(|| (now_ms(), Instant::now()));
    wall.saturating_add(u64::try_from(instant.elapsed().as_millis()).unwrap_or(u64::MAX))
}
