//! Stored records: entries as `key NUL length value`, read as nodes, jobs and events.

use store::record::{load_events, load_jobs, load_nodes};

pub(crate) fn run(bytes: &[u8]) {
    let mut entries = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|b| *b == 0) {
        let key = String::from_utf8_lossy(&rest[..at]).into_owned();
        let Some((length, after)) = rest[at + 1..].split_first_chunk::<2>() else { break };
        let length = usize::from(u16::from_le_bytes(*length)).min(after.len());
        entries.push((key, after[..length].to_vec()));
        rest = &after[length..];
    }
    entries.sort();
    let _ = load_nodes(&entries);
    let _ = load_events(&entries);
    if let Ok(jobs) = load_jobs(&entries) {
        for job in &jobs {
            let (_, _) = store::record::job_plan(job);
            let (_, _) = store::record::job_head(job);
        }
    }
}
