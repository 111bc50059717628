//! Which checkpoint a command means: a directory here, or a job's.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use proto::v1;

use super::contents::{Contents, Question};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::text::program;

/// A number, or the newest complete one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Iteration {
    Latest,
    Number(u64),
}

impl Iteration {
    pub(super) fn number(self) -> Option<u64> {
        match self {
            Self::Latest => None,
            Self::Number(number) => Some(number),
        }
    }
}

pub(super) fn iteration(text: &str) -> Result<Iteration, String> {
    match text {
        "latest" => Ok(Iteration::Latest),
        digits => digits.parse().map(Iteration::Number).map_err(|_| "neither a number nor `latest`".to_owned()),
    }
}

/// The directory that `word` names: a path, or a directory here that looks like one of checkpoints.
pub(super) fn directory(word: &str) -> Option<PathBuf> {
    let path = Path::new(word);
    let plain = !word.contains('/') && word != "." && word != "..";
    (!plain || holds_checkpoints(path)).then(|| path.to_owned())
}

fn holds_checkpoints(path: &Path) -> bool {
    let starts = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b"iter_");
    path.join("latest_checkpointed_iteration.txt").is_file()
        || path.file_name().is_some_and(starts) && path.is_dir()
        || std::fs::read_dir(path).is_ok_and(|all| all.flatten().any(|entry| starts(&entry.file_name())))
}

/// A job's checkpoint: what the controller knows of it, and the nodes whose ranks wrote it.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) view: v1::CheckpointView,
    pub(super) nodes: Vec<String>,
}

impl Known {
    /// Asks the controller. Without a number the newest complete one is meant.
    pub(super) async fn ask(client: &mut Client, job: &str, wanted: Iteration) -> Result<Self, Failure> {
        let request = v1::ListCheckpointsRequest { job: job.to_owned() };
        let found = client.checkpoints.list(request).await?.into_inner().checkpoints;
        let mut view = choose(job, &found, wanted)?.clone();
        let job = client.jobs.get(v1::GetJobRequest { job: view.job.clone() }).await?.into_inner();
        // Relative paths of a spec are seen from its workdir; its components leave `.` out.
        let directory: PathBuf = Path::new(&job.workdir).join(&view.directory).components().collect();
        view.directory = directory.to_string_lossy().into_owned();
        let stages = job.stages.into_iter().filter(|stage| stage.name == view.stage);
        let nodes =
            stages.flat_map(|stage| stage.task_views).flat_map(|task| writers(task, view.completed_ms)).collect();
        let nodes = BTreeSet::into_iter(nodes).collect();
        Ok(Self { view, nodes })
    }

    /// Looks at its files, if they are here: as many, and as large, as the controller knows.
    pub(super) fn contents(&self, question: Question) -> Result<Option<Contents>, Failure> {
        let Some(save_dir) = self.save_dir().filter(|_| Path::new(&self.view.directory).is_dir()) else {
            return Ok(None);
        };
        let question = Question { iteration: Some(self.view.iteration), ..question };
        let contents = Contents::read(save_dir, question)?;
        let same = contents.bytes == self.view.bytes && contents.shards.len() == self.view.shards as usize;
        Ok(Some(contents).filter(|_| same))
    }

    /// Why nothing can be done with files that are not here.
    pub(super) fn elsewhere(&self, what: &str) -> Failure {
        let nodes: Vec<String> = self.nodes.iter().map(|node| format!("`{node}`")).collect();
        let nodes = if nodes.is_empty() { "a node that is not known".to_owned() } else { nodes.join(", ") };
        let Self { view, .. } = self;
        let message = format!(
            "iteration {} lies on {nodes} as `{}`; its files are not here, or not as the controller knows them, \
             and cannot be {what} over the network yet",
            view.iteration, view.directory
        );
        Failure::new(Exit::Failed, message).hint(format!(
            "log in there and look: {} ckpt verify {}; to have it here, copy it with rsync or scp",
            program(),
            view.directory
        ))
    }

    fn save_dir(&self) -> Option<&Path> {
        Path::new(&self.view.directory).parent().filter(|dir| dir.is_absolute())
    }
}

/// Nodes of the attempt that ran at that time; else of the present one, else of all.
fn writers(task: v1::TaskView, completed_ms: u64) -> Vec<String> {
    let ran = |one: &v1::AttemptView| one.placed_ms <= completed_ms && completed_ms <= one.ended_ms;
    let (within, others): (Vec<_>, Vec<_>) = task.history.into_iter().partition(ran);
    let nodes = |attempts: Vec<v1::AttemptView>| attempts.into_iter().flat_map(|one| one.nodes).collect();
    match (within.is_empty(), task.seats.is_empty()) {
        (false, _) => nodes(within),
        (true, false) => task.seats.into_iter().map(|seat| seat.node).collect(),
        (true, true) => nodes(others),
    }
}

fn choose<'a>(
    job: &str,
    found: &'a [v1::CheckpointView],
    wanted: Iteration,
) -> Result<&'a v1::CheckpointView, Failure> {
    let complete = || found.iter().filter(|one| one.complete);
    let chosen = match wanted {
        Iteration::Latest => complete().max_by_key(|one| (one.completed_ms, one.iteration)),
        Iteration::Number(number) => found.iter().rev().find(|one| one.iteration == number),
    };
    chosen.ok_or_else(|| {
        let what = match wanted {
            Iteration::Latest => "no complete checkpoint".to_owned(),
            Iteration::Number(number) => format!("no checkpoint of iteration {number}"),
        };
        let held: Vec<String> = complete().rev().take(8).map(|one| one.iteration.to_string()).collect();
        let hint = if held.is_empty() {
            format!("see what was written so far: {} ckpt ls {job}", program())
        } else {
            format!("complete are {}: {} ckpt ls {job}", held.join(", "), program())
        };
        Failure::new(Exit::NotFound, format!("job `{job}` has {what}")).hint(hint)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn view(iteration: u64, complete: bool) -> v1::CheckpointView {
        v1::CheckpointView { iteration, complete, completed_ms: iteration, ..v1::CheckpointView::default() }
    }

    #[test]
    fn the_newest_complete_one_is_meant_unless_a_number_is_given() {
        let all = [view(5, true), view(10, true), view(15, false)];
        let number = |wanted| choose("j", &all, wanted).unwrap().iteration;
        assert_eq!((number(Iteration::Latest), number(Iteration::Number(15))), (10, 15));
        let Failure::Told { exit, message, hint } = choose("j", &all, Iteration::Number(7)).unwrap_err() else {
            panic!()
        };
        assert_eq!((exit, message.as_str()), (Exit::NotFound, "job `j` has no checkpoint of iteration 7"));
        assert!(hint.unwrap().contains("complete are 10, 5"));
        assert!(choose("j", &all[2..], Iteration::Latest).is_err());
    }

    #[test]
    fn the_nodes_are_those_of_the_attempt_that_wrote_it() {
        let attempt = |number, placed_ms, ended_ms, node: &str| v1::AttemptView {
            number,
            placed_ms,
            ended_ms,
            nodes: vec![node.to_owned()],
            ..v1::AttemptView::default()
        };
        let seats = vec![v1::SeatView { node: "n3".into(), ..v1::SeatView::default() }];
        let history = vec![attempt(1, 10, 20, "n1"), attempt(2, 30, 40, "n2")];
        let running = v1::TaskView { history, seats, ..v1::TaskView::default() };
        let over = v1::TaskView { seats: Vec::new(), ..running.clone() };
        for (at, of_running, of_over) in [(15, vec!["n1"], vec!["n1"]), (50, vec!["n3"], vec!["n1", "n2"])] {
            assert_eq!(writers(running.clone(), at), of_running);
            assert_eq!(writers(over.clone(), at), of_over);
        }
    }

    #[test]
    fn a_word_is_a_directory_only_where_it_looks_like_one() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(directory("last"), None);
        assert_eq!(directory("./last"), Some("./last".into()));
        assert!(!holds_checkpoints(dir.path()));
        std::fs::create_dir(dir.path().join("iter_0000005")).unwrap();
        assert!(holds_checkpoints(dir.path()) && holds_checkpoints(&dir.path().join("iter_0000005")));
        assert_eq!(iteration("latest"), Ok(Iteration::Latest));
        assert!(iteration("-1").is_err() && iteration("newest").is_err());
    }
}
