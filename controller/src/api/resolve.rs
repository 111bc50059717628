//! Which job a word means.

use model::{Job, JobId};
use planner::World;
use tonic::{Code, Status};

use super::refuse;

/// The job that `word` means: an id, `last`, a name (the newest of it), or a
/// prefix of one id only.
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
    let mut begun = world.jobs.keys().filter(|id| !word.is_empty() && id.as_str().starts_with(word));
    match (begun.next(), begun.next()) {
        (Some(one), None) => Ok(one.clone()),
        (Some(one), Some(other)) => Err(refuse(
            Code::InvalidArgument,
            format!("`{}` begins several job ids: `{one}`, `{other}`, …", word.escape_debug()),
            Some("give more of the id".to_owned()),
        )),
        (None, _) => Err(unknown(world, word)),
    }
}

fn unknown(world: &World, word: &str) -> Status {
    let mut near: Vec<(usize, &str)> = world
        .jobs
        .values()
        .map(|job| (distance(word, job.name.as_str()), job.name.as_str()))
        .filter(|(far, name)| *far <= 2 + word.chars().count() / 4 || (!word.is_empty() && name.contains(word)))
        .collect();
    near.sort_unstable();
    near.dedup();
    let names: Vec<String> = near.iter().take(3).map(|(_, name)| format!("`{name}`")).collect();
    let hint = if names.is_empty() {
        "list all jobs: qctl ps -a".to_owned()
    } else {
        format!("did you mean {}?", names.join(" or "))
    };
    let shown: String = word.chars().take(64).collect();
    refuse(Code::NotFound, format!("there is no job `{}`", shown.escape_debug()), Some(hint))
}

/// Levenshtein distance of the first 64 characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
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
        for (word, id) in [("jaa1", "jaa1"), ("train", "jab2"), ("jb", "jb3"), ("jaa", "jaa1"), ("last", "jab2")] {
            assert_eq!(resolve(&world, word).unwrap().as_str(), id, "{word}");
        }
    }

    #[test]
    fn what_means_nothing_is_refused_with_the_nearest_names() {
        let world = world();
        assert_eq!(resolve(&world, "ja").unwrap_err().code(), Code::InvalidArgument);
        let missing = resolve(&world, "trian").unwrap_err();
        assert_eq!((missing.code(), missing.message()), (Code::NotFound, "there is no job `trian`"));
        let hint = |status: &Status| status.metadata().get("qctl-hint").unwrap().to_str().unwrap().to_owned();
        assert_eq!(hint(&missing), "did you mean `train`?");
        assert_eq!(hint(&resolve(&world, "").unwrap_err()), "list all jobs: qctl ps -a");
        assert_eq!(resolve(&World::default(), "last").unwrap_err().code(), Code::NotFound);
    }
}
