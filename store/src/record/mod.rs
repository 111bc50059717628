//! The one door between the model and stored records.
//!
//! Keys: `nodes/<node>`, `jobs/<job>` (the plan, written once),
//! `jobs/<job>/head`, `jobs/<job>/tasks/<stage>/<chunk>`,
//! `jobs/<job>/checkpoints/<stage>`, `events/<job>/<seq>`, `tokens/<digest>`,
//! `certificates/<serial>`, `revoked/<name>`. Task states are
//! packed 64 to a record, so that a large stage needs few keys and nothing
//! that is written often grows with the job.

mod access;
mod decode;
mod encode;
mod wire;

pub use access::{
    certificate, certificate_key, load_certificates, load_revoked_names, load_tokens, revoked_name, token, token_key,
};
pub use decode::{load_events, load_jobs, load_nodes};
pub use encode::{checkpoints, event, job_head, job_plan, node, tasks};

/// Task states in one record.
pub const CHUNK: u32 = 64;

/// The keys of all records of a job, events aside, start with this.
#[must_use]
pub fn job_prefix(job: &model::JobId) -> String {
    format!("jobs/{job}")
}

#[cfg(test)]
mod tests;
