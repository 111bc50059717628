//! `bench`: the engine end to end against its encoder alone, side by side.

mod corpus;
mod python;
mod words;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};
use tokenize::{Backend, Encoder, Options, Source, Summary, Tokenizer, run as encode};

use crate::flags::BenchFlags;
use crate::report::{Failure, Report, as_f64};

pub(crate) use corpus::Kind;

const SEED: u64 = 20_240_501;
/// The text held in memory for the encoder alone, in bytes.
const MAX_TEXT: u64 = 1 << 30;
/// Texts that one thread takes at a time.
const TAKE: usize = 64;
/// Of the kinds that no corpus consists of, this part is enough.
const PART_OF_ODD: u64 = 10;
/// The smaller of the inputs whose memory is compared, in bytes; the larger is ten times that.
const SMALL: u64 = 200_000_000;

pub(crate) fn run(flags: &BenchFlags, report: &mut Report) -> Result<(), Failure> {
    let Some(directory) = &flags.tokenizer else {
        return Err(Failure::new("a benchmark needs a tokenizer", "give its directory with `--tokenizer DIR`"));
    };
    let place = Place::create(flags.directory.as_deref())?;
    let loading = Instant::now();
    let mut tokenizer = Tokenizer::load(directory, Backend::Auto)?;
    let load = loading.elapsed().as_secs_f64();
    report.talk(&format!("tokenizer: {} ({load:.2} s to load and check, outside both sides)", directory.display()));
    let build = if cfg!(debug_assertions) { "debug: these figures mean little" } else { "release" };
    report.talk(&format!("build: {build}; threads: {}; pairs: {}; output: fsynced", flags.threads, flags.pairs));
    for input in &flags.input {
        let name = input.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        measure(input, &name, &mut tokenizer, flags, &place, report)?;
    }
    for &kind in flags.kinds.iter().filter(|_| flags.input.is_empty()) {
        let path = place.path.join("made.parquet");
        let odd = matches!(kind, Kind::Emoji | Kind::Unicode);
        let bytes = flags.megabytes * 1_000_000 / if odd { PART_OF_ODD } else { 1 };
        corpus::write(&path, kind, bytes.max(1), 1, SEED).map_err(|error| place.fault(&error))?;
        measure(&path, kind.name(), &mut tokenizer, flags, &place, report)?;
        fs::remove_file(&path).map_err(|error| place.fault(&error))?;
    }
    if flags.memory {
        memory(flags, directory, &place, report)?;
    }
    Ok(())
}

/// One input: pairs of engine and encoder alone, and the engine with one worker beside them.
fn measure(
    input: &Path,
    name: &str,
    tokenizer: &mut Tokenizer,
    flags: &BenchFlags,
    place: &Place,
    report: &mut Report,
) -> Result<(), Failure> {
    let source = Source::open(input)?;
    let texts = read(&source, &flags.json_key)?;
    let bytes: u64 = texts.iter().map(|text| text.len() as u64).sum();
    let threads = usize::from(flags.threads);
    report.talk(&format!("{name}: {} texts, {bytes} bytes of text, read once before: in the page cache", texts.len()));

    let (mut engine, mut alone, mut single) = (Side::default(), Side::default(), Side::default());
    let mut tokens = 0;
    for round in 1..=flags.pairs {
        let summary = engine.time(bytes, || engine_run(&source, tokenizer, flags, threads, place))??;
        place.clear(&summary)?;
        let alone_tokens = alone.time(bytes, || encode_all(bare(tokenizer), &texts, threads))?;
        if alone_tokens != summary.tokens {
            let what = format!("the engine wrote {} ids, the encoder alone gave {alone_tokens}", summary.tokens);
            return Err(Failure::new(what, "the two sides must do the same work"));
        }
        tokens = summary.tokens;
        if threads > 1 {
            let summary = single.time(bytes, || engine_run(&source, tokenizer, flags, 1, place))??;
            place.clear(&summary)?;
        }
        report.talk(&format!(
            "{name}, pair {round}: engine {:.1} MB/s, encoder alone {:.1} MB/s, engine with one worker {:.1} MB/s",
            engine.last(),
            alone.last(),
            single.last()
        ));
    }
    let child = child(input, tokenizer.directory(), &flags.json_key, threads, place)?;
    let python = match &flags.python {
        Some(python) => python::measure(python, tokenizer.directory(), &texts, threads, place)?,
        None => Value::Null,
    };
    report.data(&json!({
        "input": name, "bytes": bytes, "texts": texts.len(), "tokens": tokens, "threads": threads,
        "encoder": tokenizer.encoder().name(),
        "build": if cfg!(debug_assertions) { "debug" } else { "release" },
        "engine_mb_per_s": engine.median(), "engine_mb_per_cpu_s": engine.per_cpu_second(bytes),
        "encoder_mb_per_s": alone.median(), "encoder_mb_per_cpu_s": alone.per_cpu_second(bytes),
        "median_ratio": engine.median_ratio(&alone), "target_ratio": 0.6,
        // For machines that others use too: CPU time does not see them.
        "cpu_ratio": engine.per_cpu_second(bytes) / alone.per_cpu_second(bytes).max(f64::MIN_POSITIVE),
        "over_one_worker": (threads > 1).then(|| engine.median_ratio(&single)),
        "cpu_over_one_worker": (threads > 1).then(|| engine.cores() / single.cores().max(f64::MIN_POSITIVE)),
        "peak_rss_bytes": child["peak_rss_bytes"], "python": python, "load_average": load_average(),
    }));
    Ok(())
}

/// The rates of one side, and the processor time of all its rounds.
#[derive(Default)]
struct Side {
    /// MB a second.
    rates: Vec<f64>,
    seconds: f64,
    cpu_seconds: f64,
}

impl Side {
    fn time<T>(&mut self, bytes: u64, work: impl FnOnce() -> T) -> Result<T, Failure> {
        let (begin, cpu) = (Instant::now(), cpu_seconds()?);
        let made = work();
        let seconds = begin.elapsed().as_secs_f64();
        self.cpu_seconds += cpu_seconds()? - cpu;
        self.seconds += seconds;
        self.rates.push(as_f64(bytes) / seconds / 1e6);
        Ok(made)
    }

    fn last(&self) -> f64 {
        self.rates.last().copied().unwrap_or(0.0)
    }

    fn median(&self) -> f64 {
        median(self.rates.iter().copied())
    }

    fn median_ratio(&self, other: &Self) -> f64 {
        median(self.rates.iter().zip(&other.rates).map(|(one, two)| one / two))
    }

    fn per_cpu_second(&self, bytes: u64) -> f64 {
        as_f64(bytes * self.rates.len() as u64) / self.cpu_seconds.max(0.001) / 1e6
    }

    /// How many cores it kept busy.
    fn cores(&self) -> f64 {
        self.cpu_seconds / self.seconds.max(f64::MIN_POSITIVE)
    }
}

fn engine_run(
    source: &Source,
    tokenizer: &mut Tokenizer,
    flags: &BenchFlags,
    workers: usize,
    place: &Place,
) -> Result<Summary, Failure> {
    // A new name each time: taking away an older result is not the work.
    let output = place.path.join(format!("out{}", place.next.fetch_add(1, Ordering::Relaxed)));
    let options = Options { keys: vec![flags.json_key.clone()], workers, ..Options::new(output) };
    Ok(encode(source, tokenizer, &options, &mut |_| {})?)
}

/// The memory of a run over little and over much.
fn memory(flags: &BenchFlags, tokenizer: &Path, place: &Place, report: &mut Report) -> Result<(), Failure> {
    let mut peaks = Vec::new();
    for times in [1, 10] {
        let path = place.path.join("made.parquet");
        corpus::write(&path, Kind::English, SMALL, times, SEED).map_err(|error| place.fault(&error))?;
        let said = child(&path, tokenizer, "text", usize::from(flags.threads), place)?;
        report.talk(&format!("{} MB: peak of {} bytes", SMALL * times / 1_000_000, said["peak_rss_bytes"]));
        peaks.push(json!({"bytes": SMALL * times, "peak_rss_bytes": said["peak_rss_bytes"]}));
        fs::remove_file(&path).map_err(|error| place.fault(&error))?;
    }
    report.data(&json!({"input": "memory", "runs": peaks}));
    Ok(())
}

fn read(source: &Source, key: &str) -> Result<Vec<String>, Failure> {
    let mut texts = Vec::new();
    let mut bytes = 0;
    source.each_text(key, &mut |text| {
        bytes += text.len() as u64;
        texts.push(text.to_owned());
        bytes <= MAX_TEXT
    })?;
    if bytes > MAX_TEXT {
        return Err(Failure::new("the input holds more than 1 GiB of text", "measure on a part of it"));
    }
    Ok(texts)
}

/// The crate's own encoder, or what takes its place.
fn bare(tokenizer: &Tokenizer) -> &dyn Encoder {
    tokenizer.bare_fast().unwrap_or_else(|| tokenizer.encoder())
}

/// Encodes texts in memory; the ids go nowhere. Returns their number.
fn encode_all(encoder: &dyn Encoder, texts: &[String], threads: usize) -> u64 {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let work = || {
            let mut session = encoder.session(true);
            let mut count = 0;
            loop {
                let begin = next.fetch_add(TAKE, Ordering::Relaxed);
                let Some(some) = texts.get(begin..) else {
                    return count;
                };
                for text in some.iter().take(TAKE).filter(|text| !text.is_empty()) {
                    count += session.encode(text).map_or(0, |ids| ids.len() as u64);
                }
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or(0)).sum()
    })
}

/// The last word of a process that does the job and nothing else.
fn child(input: &Path, tokenizer: &Path, key: &str, threads: usize, place: &Place) -> Result<Value, Failure> {
    let program = std::env::current_exe().map_err(|error| place.fault(&error))?;
    let output = Command::new(program)
        .args(["--progress", "json", "--workers", &threads.to_string(), "--json-keys", key])
        .arg("--input")
        .arg(input)
        .arg("--tokenizer-name-or-path")
        .arg(tokenizer)
        .arg("--output-prefix")
        .arg(place.path.join("child"))
        .stderr(Stdio::null())
        .output()
        .map_err(|error| place.fault(&error))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let last: Option<Value> = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
    let said = last.filter(|last| last["type"] == "result");
    said.ok_or_else(|| Failure::new(format!("a run of its own failed: {text}"), "see what it says"))
}

/// CPU time of this process so far, user and system.
fn cpu_seconds() -> Result<f64, Failure> {
    let own = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name before the bracket may hold spaces; times are fields 14 and 15.
    let fields = own.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: Vec<u64> = fields.skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    match ticks.as_slice() {
        // Linux counts a hundred ticks a second for user programs, on every platform.
        [user, system] => Ok(as_f64(user + system) / 100.0),
        _ => Err(Failure::new("`/proc/self/stat` tells no processor time", "mount /proc")),
    }
}

fn load_average() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// A directory that goes away with its content.
struct Place {
    path: PathBuf,
    /// The number of the next output.
    next: AtomicUsize,
}

impl Place {
    fn create(parent: Option<&Path>) -> Result<Self, Failure> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let place = Self {
            path: parent.join(format!("qctl-tokenize-bench-{}", std::process::id())),
            next: AtomicUsize::new(0),
        };
        fs::create_dir(&place.path).map_err(|error| place.fault(&error))?;
        Ok(place)
    }

    fn clear(&self, made: &Summary) -> Result<(), Failure> {
        made.files.iter().try_for_each(|file| fs::remove_file(&file.path)).map_err(|error| self.fault(&error))
    }

    fn fault(&self, error: &std::io::Error) -> Failure {
        let what = format!("the benchmark could not use `{}`: {error}", self.path.display());
        Failure::new(what, "choose another place with `--directory`")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Best effort: it lies in a directory for temporary things.
        let _ = fs::remove_dir_all(&self.path);
    }
}
