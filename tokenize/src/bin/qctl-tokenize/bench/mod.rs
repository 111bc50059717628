//! `bench`: the engine end to end against its encoder alone, side by side.

mod corpus;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};
use tokenize::{Backend, Encoder, Options, Source, Tokenizer, run as encode};

use crate::flags::BenchFlags;
use crate::report::{Failure, Report, as_f64};

/// The text made when no input is given, in bytes.
const MADE_BYTES: u64 = 50_000_000;
const SEED: u64 = 20_240_501;
/// The text held in memory for the encoder alone, in bytes.
const MAX_TEXT: u64 = 1 << 30;
/// Texts that one thread takes at a time.
const TAKE: usize = 64;

pub(crate) fn run(flags: &BenchFlags, report: &mut Report) -> Result<(), Failure> {
    let Some(directory) = &flags.tokenizer else {
        return Err(Failure::new("a benchmark needs a tokenizer", "give its directory with `--tokenizer DIR`"));
    };
    let place = Place::create(flags.directory.as_deref())?;
    let input = match &flags.input {
        Some(input) => input.clone(),
        None => {
            let path = place.path.join("made.jsonl");
            corpus::write(&path, MADE_BYTES, SEED).map_err(|error| place.fault(&error))?;
            path
        }
    };
    let source = Source::open(&input)?;
    let texts = read(&source, &flags.json_key)?;
    let bytes: u64 = texts.iter().map(|text| text.len() as u64).sum();
    let threads = usize::from(flags.threads);
    let options =
        Options { keys: vec![flags.json_key.clone()], workers: threads, ..Options::new(place.path.join("out")) };
    let loading = Instant::now();
    let mut tokenizer = Tokenizer::load(directory, Backend::Auto)?;
    let load = loading.elapsed().as_secs_f64();
    report.talk(&format!(
        "input: {} ({} texts, {bytes} bytes of text), read once before: warm in the page cache; output: fsynced",
        input.display(),
        texts.len()
    ));
    report.talk(&format!("tokenizer: {} ({load:.2} s to load and check, outside both sides)", directory.display()));
    let profile = if cfg!(debug_assertions) { "debug: these figures mean little" } else { "release" };
    report.talk(&format!("build: {profile}; threads: {threads}; pairs: {}", flags.pairs));

    let mut rounds = Vec::new();
    let (mut engine_ticks, mut alone_ticks) = (0, 0);
    let mut tokens = 0;
    for round in 1..=flags.pairs {
        // A new name each time: taking away an older result is not the work.
        let options = Options { output_prefix: place.path.join(format!("out{round}")), ..options.clone() };
        let (begin, cpu) = (Instant::now(), cpu_ticks());
        let summary = encode(&source, &mut tokenizer, &options, &mut |_| {})?;
        let engine = as_f64(bytes) / begin.elapsed().as_secs_f64() / 1e6;
        engine_ticks += cpu_ticks() - cpu;
        let (begin, cpu) = (Instant::now(), cpu_ticks());
        let alone_tokens = encode_all(bare(&tokenizer), &texts, threads);
        let alone = as_f64(bytes) / begin.elapsed().as_secs_f64() / 1e6;
        alone_ticks += cpu_ticks() - cpu;
        if alone_tokens != summary.tokens {
            let what = format!("the engine wrote {} ids, the encoder alone gave {alone_tokens}", summary.tokens);
            return Err(Failure::new(what, "the two sides must do the same work"));
        }
        tokens = summary.tokens;
        report.talk(&format!(
            "pair {round}: engine {engine:.1} MB/s, encoder alone {alone:.1} MB/s, ratio {:.2}",
            engine / alone
        ));
        rounds.push((engine, alone));
        for file in &summary.files {
            fs::remove_file(&file.path).map_err(|error| place.fault(&error))?;
        }
    }
    let name = tokenizer.encoder().name();
    let peak = peak_of_child(&input, directory, flags, &place)?;
    report.data(&json!({
        "bytes": bytes, "texts": texts.len(), "tokens": tokens, "threads": threads, "encoder": name,
        "build": if cfg!(debug_assertions) { "debug" } else { "release" },
        "load_seconds": load,
        "engine_mb_per_s": median(rounds.iter().map(|pair| pair.0)),
        "encoder_mb_per_s": median(rounds.iter().map(|pair| pair.1)),
        "median_ratio": median(rounds.iter().map(|pair| pair.0 / pair.1)), "target_ratio": 0.5,
        // For machines that others use too: CPU time does not see them.
        "cpu_ratio": as_f64(alone_ticks) / as_f64(engine_ticks.max(1)),
        "load_average": load_average(),
        "peak_rss_bytes": peak,
        "command": std::env::args().collect::<Vec<_>>().join(" "),
    }));
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

/// The peak memory of a process that does the job and nothing else.
fn peak_of_child(input: &Path, tokenizer: &Path, flags: &BenchFlags, place: &Place) -> Result<Value, Failure> {
    let program = std::env::current_exe().map_err(|error| place.fault(&error))?;
    let output = Command::new(program)
        .args(["--progress", "json", "--workers", &flags.threads.to_string(), "--json-keys", &flags.json_key])
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
    let last: Value = text.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    Ok(last["peak_rss_bytes"].clone())
}

/// CPU time of this process, user and system, in clock ticks.
fn cpu_ticks() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name before the bracket may hold spaces; times are fields 14 and 15.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
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
}

impl Place {
    fn create(parent: Option<&Path>) -> Result<Self, Failure> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let place = Self { path: parent.join(format!("qctl-tokenize-bench-{}", std::process::id())) };
        fs::create_dir(&place.path).map_err(|error| place.fault(&error))?;
        Ok(place)
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
