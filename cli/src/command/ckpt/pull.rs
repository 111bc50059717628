//! `qctl ckpt pull`: a copy that appears whole or not at all, the tracker last.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;

use super::contents::{Contents, Question};
use super::target::{Iteration, Known};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output::{Format, print_json, print_line, print_yaml, say};
use crate::text::{bytes, one_line, plural, program};
use crate::view::Document;

const TRACKER: &str = "latest_checkpointed_iteration.txt";

/// What lies at the destination.
#[derive(Debug, Serialize)]
pub(super) struct Pulled {
    job: String,
    iteration: u64,
    directory: PathBuf,
    shards: usize,
    bytes: u64,
    /// Whether all of it lay there before.
    already: bool,
    /// What the tracker at the destination names.
    tracker: u64,
}

/// Copies a job's checkpoint.
pub(super) async fn run(
    job: &str,
    iteration: Iteration,
    dest: &Path,
    output: Format,
    mut client: Client,
) -> Result<(), Failure> {
    let known = Known::ask(&mut client, job, iteration).await?;
    let Known { view, .. } = &known;
    if !view.complete {
        let message = format!("the checkpoint of iteration {} is not complete", view.iteration);
        return Err(Failure::new(Exit::Failed, message).hint(format!("see which are: {} ckpt ls {job}", program())));
    }
    let Some(source) = known.contents(Question::default())? else { return Err(known.elsewhere("fetched")) };
    if let Some(fault) = source.fault() {
        return Err(fault);
    }
    let pulled = pull(&view.job, &source, dest)?;
    match output {
        Format::Json => print_json(&Document::new(&pulled)),
        Format::Yaml => print_yaml(&Document::new(&pulled)),
        Format::Name => print_line(&one_line(&pulled.directory.display().to_string())),
        Format::Table | Format::Wide => {
            let what = if pulled.already { "lay there already" } else { "copied and read back" };
            let directory = one_line(&pulled.directory.display().to_string());
            let shards = plural(pulled.shards, "shard");
            print_line(&format!(
                "{directory}: iteration {}, {shards}, {}, {what}",
                pulled.iteration,
                bytes(pulled.bytes)
            ))
        }
    }
}

fn pull(job: &str, source: &Contents, dest: &Path) -> Result<Pulled, Failure> {
    let failed = |what: &'static str, path: &Path| {
        let what = format!("cannot {what} `{}`", path.display());
        move |error: io::Error| Failure::because(what, &error)
    };
    fs::create_dir_all(dest).map_err(failed("create", dest))?;
    let dest = &dest.canonicalize().map_err(failed("find", dest))?;
    if source.directory.canonicalize().is_ok_and(|from| from == *dest) {
        let message = format!("`{}` is where the job itself keeps its checkpoints", dest.display());
        return Err(Failure::new(Exit::Usage, message).hint("name another directory"));
    }
    let name = format!("iter_{:07}", source.iteration);
    let goal = dest.join(&name);
    let already = fs::symlink_metadata(&goal).is_ok();
    if already {
        refuse_other(source, &goal)?;
    } else {
        let staging = Staging::open(dest, &name)?;
        staging.fill(source).map_err(failed("copy into", &staging.path))?;
        let question = Question { verify: true, ..Question::default() };
        let copy = Contents::read(&staging.path.join(&name), question)?;
        if let Some(fault) = copy.fault() {
            return Err(fault);
        }
        fs::rename(staging.path.join(&name), &goal).map_err(failed("create", &goal))?;
        sync(dest).map_err(failed("write", dest))?;
    }
    let tracker = track(dest, source.iteration).map_err(failed("write the tracker in", dest))?;
    if tracker != source.iteration {
        say(&format!("the tracker in `{}` names the later iteration {tracker} and was left so", dest.display()));
    }
    let (shards, bytes) = (source.shards.len(), source.bytes);
    Ok(Pulled { job: job.to_owned(), iteration: source.iteration, directory: goal, shards, bytes, already, tracker })
}

/// What lies at the goal must be what would be copied, to the last byte.
fn refuse_other(source: &Contents, goal: &Path) -> Result<(), Failure> {
    let there = Contents::read(goal, Question { verify: true, ..Question::default() })?;
    let sizes = |all: &Contents| all.shards.iter().map(|one| (one.tp, one.pp, one.size)).collect::<Vec<_>>();
    let equal = there.complete
        && sizes(source) == sizes(&there)
        && source.shards.iter().zip(&there.shards).all(|(a, b)| is_equal(&a.path, &b.path).unwrap_or(false));
    if equal {
        return Ok(());
    }
    let message = format!("`{}` exists and is another checkpoint than the job's", goal.display());
    Err(Failure::new(Exit::Failed, message).hint("name another directory, or move that one away"))
}

fn is_equal(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (io::BufReader::new(File::open(one)?), io::BufReader::new(File::open(other)?));
    loop {
        let (a, b) = (io::BufRead::fill_buf(&mut one)?, io::BufRead::fill_buf(&mut other)?);
        let common = a.len().min(b.len());
        if common == 0 {
            return Ok(a.is_empty() && b.is_empty());
        }
        if a[..common] != b[..common] {
            return Ok(false);
        }
        io::BufRead::consume(&mut one, common);
        io::BufRead::consume(&mut other, common);
    }
}

/// Where a copy grows; one at a time, and gone when it is dropped.
#[derive(Debug)]
struct Staging {
    path: PathBuf,
    name: String,
    /// Its lock ends with the process, however that ends.
    _lock: File,
}

impl Staging {
    fn open(dest: &Path, name: &str) -> Result<Self, Failure> {
        let path = dest.join(format!(".pull-{name}"));
        let cannot = |error: io::Error| Failure::because(format!("cannot create `{}`", path.display()), &error);
        let lock = File::open(dest).map_err(cannot)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let message = format!("another pull into `{}` is at work", dest.display());
            return Err(Failure::new(Exit::Failed, message).hint("wait until it has ended"));
        }
        // What a killed pull left behind.
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(cannot(error)),
            Ok(()) | Err(_) => {}
        }
        fs::create_dir(&path).map_err(cannot)?;
        Ok(Self { path, name: name.to_owned(), _lock: lock })
    }

    fn fill(&self, source: &Contents) -> io::Result<()> {
        let iteration = self.path.join(&self.name);
        fs::create_dir(&iteration)?;
        for shard in &source.shards {
            let rank = shard.path.parent().and_then(Path::file_name);
            let (Some(rank), Some(file)) = (rank, shard.path.file_name()) else {
                return Err(io::Error::other(format!("`{}` has no rank's directory", shard.path.display())));
            };
            let rank = iteration.join(rank);
            fs::create_dir(&rank)?;
            let mut copy = File::create_new(rank.join(file))?;
            let copied = io::copy(&mut File::open(&shard.path)?, &mut copy)?;
            if copied != shard.size {
                let message = format!("`{}` changed while it was copied", shard.path.display());
                return Err(io::Error::other(message));
            }
            copy.sync_all()?;
            sync(&rank)?;
        }
        sync(&iteration)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed is in nobody's way: the next pull begins with it.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Names `iteration` in the tracker, unless it names a later one that is there; says what it names then.
fn track(dest: &Path, iteration: u64) -> io::Result<u64> {
    let path = dest.join(TRACKER);
    let named = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    if let Some(later) = named
        && (later == iteration || later > iteration && dest.join(format!("iter_{later:07}")).is_dir())
    {
        return Ok(later);
    }
    let draft = dest.join(format!(".{TRACKER}.partial"));
    let mut file = File::create(&draft)?;
    write!(file, "{iteration}")?;
    file.sync_all()?;
    fs::rename(&draft, &path)?;
    sync(dest)?;
    Ok(iteration)
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
pub(super) fn example() -> (&'static str, serde_json::Value) {
    let directory = PathBuf::from("d");
    let pulled = Pulled { job: "j".into(), iteration: 1, directory, shards: 1, bytes: 1, already: false, tracker: 1 };
    ("qctl ckpt pull", serde_json::to_value(Document::new(pulled)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_tracker_never_goes_back_behind_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let named = || fs::read_to_string(dir.path().join(TRACKER)).unwrap();
        assert_eq!((track(dir.path(), 5).unwrap(), named().as_str()), (5, "5"));
        assert_eq!((track(dir.path(), 20).unwrap(), named().as_str()), (20, "20"));
        assert_eq!((track(dir.path(), 10).unwrap(), named().as_str()), (10, "10"), "iteration 20 is not there");
        fs::create_dir(dir.path().join("iter_0000020")).unwrap();
        fs::write(dir.path().join(TRACKER), "20\n").unwrap();
        assert_eq!((track(dir.path(), 10).unwrap(), named().as_str()), (20, "20\n"));
        fs::write(dir.path().join(TRACKER), "junk").unwrap();
        assert_eq!(track(dir.path(), 10).unwrap(), 10);
    }

    #[test]
    fn two_pulls_into_one_directory_do_not_meet_and_a_killed_one_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(".pull-iter_0000005/iter_0000005/old")).unwrap();
        let first = Staging::open(dir.path(), "iter_0000005").unwrap();
        assert_eq!(fs::read_dir(&first.path).unwrap().count(), 0);
        let Failure::Told { message, .. } = Staging::open(dir.path(), "iter_0000010").unwrap_err() else { panic!() };
        assert!(message.contains("is at work"), "{message}");
        drop(first);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn files_are_equal_to_their_last_byte() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, content).unwrap();
            path
        };
        let (one, same) = (file("one", &[7; 20_000]), file("same", &[7; 20_000]));
        let (shorter, empty) = (file("shorter", &[7; 19_999]), file("empty", b""));
        assert!(is_equal(&one, &same).unwrap() && is_equal(&empty, &empty).unwrap());
        assert!(!is_equal(&one, &shorter).unwrap() && !is_equal(&empty, &one).unwrap());
    }
}
