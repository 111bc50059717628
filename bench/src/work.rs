//! What the tasks of a measurement run: this program under another first word.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;

use crate::sim::bare;

/// Writes the moment of its start into a file named like its attempt.
pub(crate) const STAMP: &str = "stamp";
/// Writes lines that carry their moment.
pub(crate) const TALK: &str = "talk";
/// Starts and collects processes, two at a time.
pub(crate) const LOOP: &str = "loop";
/// A rank that waits until it is told to stop.
pub(crate) const RANK: &str = "standin-rank";
/// A scheduler that does the same.
pub(crate) const SCHEDULER: &str = "standin-scheduler";
/// The rank that dies when it is told to.
pub(crate) const VICTIM: &str = "17";

/// Nanoseconds since the Unix epoch.
pub(crate) fn now_ns() -> u64 {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX)
}

/// Does a task's work, if the first word asks for some.
pub(crate) fn perform() -> Option<anyhow::Result<()>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // A training script is named by its path.
    let first = Path::new(words.first()?).file_name()?.to_str()?.to_owned();
    let word = |at: usize| words.get(at).cloned().context("a word is missing");
    match first.as_str() {
        STAMP => Some(word(1).and_then(|dir| stamp(Path::new(&dir)))),
        TALK => Some(word(1).and_then(|count| talk(count.parse()?))),
        LOOP => Some(word(1).and_then(|count| spawn_all(count.parse()?, &words[2..]))),
        RANK => Some(rank(Path::new(words.first()?).parent()?)),
        SCHEDULER => Some(wait_for_term()),
        bare::SERVER => Some(word(1).and_then(|dir| bare::serve(Path::new(&dir), Path::new(&word(2)?)))),
        _ => None,
    }
}

fn stamp(dir: &Path) -> anyhow::Result<()> {
    let now = now_ns();
    let name = std::env::var("QCTL_ATTEMPT")?;
    write(&dir.join(name), now)
}

/// A rename, so that whoever looks finds the whole number.
fn write(path: &Path, number: u64) -> anyhow::Result<()> {
    let temporary = path.with_extension("part");
    fs::write(&temporary, number.to_string())?;
    Ok(fs::rename(temporary, path)?)
}

fn talk(count: u32) -> anyhow::Result<()> {
    for _ in 0..count {
        let mut out = std::io::stdout();
        writeln!(out, "{}", now_ns())?;
        out.flush()?;
        std::thread::sleep(Duration::from_millis(37));
    }
    Ok(())
}

/// The floor: two threads that start and collect `count` processes. Prints the
/// nanoseconds that it took.
fn spawn_all(count: u32, argv: &[String]) -> anyhow::Result<()> {
    let (program, args) = argv.split_first().context("no program given")?;
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let half = |share: u32| {
            for _ in 0..share {
                let spawned = Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).spawn();
                spawned.and_then(|mut child| child.wait())?;
            }
            Ok::<(), std::io::Error>(())
        };
        let threads = [scope.spawn(move || half(count / 2)), scope.spawn(move || half(count - count / 2))];
        for thread in threads {
            thread.join().map_err(|_| anyhow::anyhow!("a thread failed"))??;
        }
        anyhow::Ok(())
    })?;
    writeln!(std::io::stdout(), "{}", begun.elapsed().as_nanos())?;
    Ok(())
}

fn rank(dir: &Path) -> anyhow::Result<()> {
    let number = std::env::var("RANK")?;
    let mut signals = Signals::new([SIGTERM])?;
    write(&dir.join(format!("up-{number}")), now_ns())?;
    if number == VICTIM {
        while !dir.join("die").exists() {
            std::thread::sleep(Duration::from_millis(2));
        }
        write(&dir.join("died"), now_ns())?;
        anyhow::bail!("told to die");
    }
    signals.forever().next();
    write(&dir.join(format!("told-{number}")), now_ns())
}

fn wait_for_term() -> anyhow::Result<()> {
    Signals::new([SIGTERM])?.forever().next();
    Ok(())
}
