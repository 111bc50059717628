//! Which job a word means.

use std::collections::BTreeMap;

use model::{Job, JobId};
use planner::World;
use tonic::{Code, Status};

use super::nearest::did_you_mean;
use super::refuse;

/// Candidates of an ambiguous word that are listed.
const CANDIDATES: usize = 5;

/// The job that `word` means: an id, `last`, a name (the newest of it), a prefix of
/// one id only, or else of one name only.
pub(super) fn resolve(world: &World, word: &str) -> Result<JobId, Status> {
    let newest = |jobs: &mut dyn Iterator<Item = &Job>| {
        jobs.max_by_key(|job| (job.submitted, job.id.clone())).map(|job| job.id.clone())
    };
    if let Some(job) = JobId::new(word).ok().and_then(|id| world.jobs.get(&id)) {
        return Ok(job.id.clone());
    }
    if word == "last" {
        return newest(&mut world.jobs.values()).ok_or_else(|| {
            refuse(Code::NotFound, "no job was submitted yet", Some("submit one: qctl submit -f FILE".to_owned()))
        });
    }
    if let Some(id) = newest(&mut world.jobs.values().filter(|job| job.name.as_str() == word)) {
        return Ok(id);
    }
    if !word.is_empty() {
        let ids: Vec<&Job> = world.jobs.values().filter(|job| job.id.as_str().starts_with(word)).collect();
        if let Some(found) = only("job ids", word, &ids, |job| job.id.as_str())? {
            return Ok(found.id.clone());
        }
        // Of each name the newest job, as for a whole name.
        let mut named: BTreeMap<&str, &Job> = BTreeMap::new();
        for job in world.jobs.values().filter(|job| job.name.as_str().starts_with(word)) {
            let kept = named.entry(job.name.as_str()).or_insert(job);
            if (job.submitted, &job.id) > (kept.submitted, &kept.id) {
                *kept = job;
            }
        }
        let named: Vec<&Job> = named.into_values().collect();
        if let Some(found) = only("names", word, &named, |job| job.name.as_str())? {
            return Ok(found.id.clone());
        }
    }
    let shown: String = word.chars().take(64).collect();
    let hint = did_you_mean(
        word,
        world.jobs.values().map(|job| job.name.as_str()).chain(["last"]),
        "list all jobs: qctl ps -a",
    );
    Err(refuse(Code::NotFound, format!("there is no job `{}`", shown.escape_debug()), Some(hint)))
}

/// The one job of `found`, `None` of none; several are listed, the newest first.
fn only<'w>(
    what: &str,
    word: &str,
    found: &[&'w Job],
    called: impl Fn(&'w Job) -> &'w str,
) -> Result<Option<&'w Job>, Status> {
    if found.len() < 2 {
        return Ok(found.first().copied());
    }
    let mut newest = found.to_vec();
    newest.sort_by_key(|job| std::cmp::Reverse((job.submitted, &job.id)));
    let shown = newest.iter().take(CANDIDATES).map(|job| {
        let other = if called(job) == job.id.as_str() { job.name.as_str() } else { job.id.as_str() };
        format!("`{}` ({other})", called(job))
    });
    let shown = shown.collect::<Vec<_>>().join(", ");
    let rest = newest.len().saturating_sub(CANDIDATES);
    let rest = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    Err(refuse(
        Code::InvalidArgument,
        format!("`{}` begins several {what}: {shown}{rest}", word.escape_debug()),
        Some("give more of it".to_owned()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::job;
    use model::Timestamp;
    use planner::Policy;

    fn world() -> World {
        let mut world = World::new(Policy::default(), Timestamp(0));
        for (id, name, at) in [("jaa1", "train", 1), ("jab2", "train", 3), ("jb3", "convert", 2)] {
            world.restore_job(job(id, name, at));
        }
        world
    }

    #[test]
    fn words_mean_ids_names_prefixes_and_the_last() {
        let world = world();
        for (word, id) in [
            ("jaa1", "jaa1"),
            ("train", "jab2"),
            ("jb", "jb3"),
            ("jaa", "jaa1"),
            ("last", "jab2"),
            ("conv", "jb3"),
            ("tr", "jab2"),
        ] {
            assert_eq!(resolve(&world, word).unwrap().as_str(), id, "{word}");
        }
    }

    #[test]
    fn what_means_nothing_is_refused_with_the_nearest_names() {
        let world = world();
        let several = resolve(&world, "ja").unwrap_err();
        let said = "`ja` begins several job ids: `jab2` (train), `jaa1` (train)";
        assert_eq!((several.code(), several.message()), (Code::InvalidArgument, said));
        let missing = resolve(&world, "trian").unwrap_err();
        assert_eq!((missing.code(), missing.message()), (Code::NotFound, "there is no job `trian`"));
        let hint = |status: &Status| status.metadata().get("qctl-hint").unwrap().to_str().unwrap().to_owned();
        assert_eq!(hint(&missing), "did you mean `train`?");
        assert_eq!(hint(&resolve(&world, "").unwrap_err()), "list all jobs: qctl ps -a");
        assert_eq!(resolve(&World::default(), "last").unwrap_err().code(), Code::NotFound);
    }
}
