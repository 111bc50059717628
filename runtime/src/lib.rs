//! The ground that every daemon stands on: owned tasks and their stop order,
//! TLS, channels, durable files, clocks, traces. Knows no job.

pub mod backoff;
pub mod channel;
pub mod clock;
pub mod files;
mod leader;
pub mod pinned;
pub mod pki;
pub mod shown;
pub mod tasks;
pub mod tls;
pub mod trace;

pub use channel::channel;
pub use tasks::Tasks;
