//! A conversion beside `cp` of the same bytes, measured in one run.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use convert::progress::Report;
use convert::{Error, Result, stage};

use crate::cli::Bench;
use crate::terminal::Terminal;

const HIDDEN: u64 = 1536;
const FFN: u64 = 8960;
const HEADS: u64 = 12;
const GROUPS: u64 = 2;
const VOCAB: u64 = 32_000;
const FILES: usize = 2;

/// The unit of times in `/proc`, whatever the kernel's own clock.
const TICKS_PER_SECOND: u64 = 100;

/// Makes a model, converts and copies it in turn, and prints both sides.
pub(crate) fn run(args: &Bench, terminal: &Terminal) -> Result<()> {
    fs::create_dir_all(&args.dir).map_err(|e| Error::io("create", &args.dir, e))?;
    let home = Home(args.dir.join(format!("qctl-convert-bench-{}", std::process::id())));
    fs::create_dir(&home.0).map_err(|e| Error::io("create", &home.0, e))?;
    let input = home.0.join("hf");
    let bytes = make_model(&input, args.size_mib << 20)?;
    terminal.note(&format!(
        "model: {bytes} bytes in {FILES} safetensors files, bf16, Qwen2-shaped, in {}",
        input.display()
    ));
    let (output, copy) = (home.0.join("mcore"), home.0.join("copy"));
    let converter = std::env::current_exe().map_err(|e| Error::io("find", "qctl-convert", e))?;
    let mut convert = Command::new(converter);
    convert.args(["--load-model-type", "hf", "--save-model-type", "mg", "--params-dtype", "bf16", "--add-qkv-bias"]);
    convert.args(["--target-tensor-parallel-size", "2", "--target-pipeline-parallel-size", "2"]);
    convert.arg("--load-dir").arg(&input).arg("--save-dir").arg(&output);
    let mut cp = Command::new("cp");
    cp.arg("-r").arg(&input).arg(&copy);
    terminal.note(&format!("convert: {convert:?}"));
    terminal.note(&format!("copy:    {cp:?}, then fsync of each file"));
    terminal.note("cache:   input read into the page cache before the first run; file system synced before each run");
    warm(&input)?;
    let (mut ratios, mut raw, mut peak, mut processor) = (Vec::new(), Vec::new(), 0, Duration::ZERO);
    for pair in 0..args.pairs {
        let mut sides = [(Duration::ZERO, 0u64); 2];
        // The order changes from pair to pair, so that neither side always comes second.
        for side in if pair % 2 == 0 { [0, 1] } else { [1, 0] } {
            let target = if side == 0 { &output } else { &copy };
            clear(target, &home.0)?;
            let (time, seen) = if side == 0 { time_convert(&mut convert)? } else { time_copy(&mut cp, &copy)? };
            peak = peak.max(seen.anonymous_kib);
            processor = processor.max(seen.processor);
            sides[side] = (time, tree_bytes(target)?);
        }
        let mapped = time_mapped_copy(&output, &copy, &home.0)?;
        raw.push(mapped.as_secs_f64() / sides[0].0.as_secs_f64());
        let [(convert_time, convert_bytes), (copy_time, copy_bytes)] = sides;
        let ratio = copy_time.as_secs_f64() / convert_time.as_secs_f64();
        ratios.push(ratio);
        terminal.note(&format!(
            "pair {}: convert {:.3} s, {convert_bytes} bytes written; cp+fsync {:.3} s, {copy_bytes} bytes written; ratio {ratio:.2}; the result copied from map to map, not synced: {:.3} s",
            pair + 1,
            convert_time.as_secs_f64(),
            copy_time.as_secs_f64(),
            mapped.as_secs_f64(),
        ));
    }
    ratios.sort_by(f64::total_cmp);
    raw.sort_by(f64::total_cmp);
    terminal.note(&format!(
        "convert/cp+fsync: median {:.2}x of cp's speed over {} pairs (lowest {:.2}, highest {:.2}), page cache warm, fsynced; peak anonymous RSS {:.1} MiB",
        ratios[ratios.len() / 2],
        ratios.len(),
        ratios[0],
        ratios[ratios.len() - 1],
        kib_in_mib(peak),
    ));
    terminal.note(&format!(
        "convert/map to map: median {:.2}x over {} pairs (lowest {:.2}, highest {:.2}); at most {:.2} CPU-seconds a conversion",
        raw[raw.len() / 2],
        raw.len(),
        raw[0],
        raw[raw.len() - 1],
        processor.as_secs_f64(),
    ));
    Ok(())
}

/// Removes what the benchmark made, also when it fails.
struct Home(PathBuf);

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[expect(clippy::cast_precision_loss, reason = "memory sizes are far below 2^53")]
fn kib_in_mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// What was seen of a process while it ran.
#[derive(Clone, Copy, Default)]
struct Seen {
    /// Most anonymous memory.
    anonymous_kib: u64,
    /// Processor time, user and system.
    processor: Duration,
}

fn time_convert(command: &mut Command) -> Result<(Duration, Seen)> {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::null()).spawn().map_err(|e| Error::io("start", command.get_program(), e))?;
    let peak = watch(&mut child)?;
    let time = start.elapsed();
    succeed(&mut child, command)?;
    Ok((time, peak))
}

fn time_copy(command: &mut Command, copy: &Path) -> Result<(Duration, Seen)> {
    let start = Instant::now();
    let mut child = command.spawn().map_err(|e| Error::io("start", command.get_program(), e))?;
    succeed(&mut child, command)?;
    for file in files(copy)? {
        File::open(&file).and_then(|f| f.sync_all()).map_err(|e| Error::io("sync", &file, e))?;
    }
    stage::sync_directory(copy)?;
    Ok((start.elapsed(), Seen::default()))
}

/// Copies the files of a result from map to map: the least that laying tensors out costs.
fn time_mapped_copy(from: &Path, to: &Path, home: &Path) -> Result<Duration> {
    clear(to, home)?;
    fs::create_dir(to).map_err(|e| Error::io("create", to, e))?;
    warm(from)?;
    let start = Instant::now();
    for (i, file) in files(from)?.iter().enumerate() {
        let target = to.join(i.to_string());
        let source = convert::mapped::Mapped::open(file)?;
        let io = |e| Error::io("write", &target, e);
        let copy = File::options().read(true).write(true).create_new(true).open(&target).map_err(io)?;
        copy.set_len(source.bytes().len() as u64).map_err(io)?;
        // SAFETY: the file was made just now, below a directory of this process alone.
        #[expect(unsafe_code, reason = "mapping a file has no safe interface")]
        let mut map = unsafe { memmap2::MmapMut::map_mut(&copy) }.map_err(io)?;
        map.copy_from_slice(source.bytes());
    }
    Ok(start.elapsed())
}

fn succeed(child: &mut Child, command: &Command) -> Result<()> {
    let status = child.wait().map_err(|e| Error::io("wait for", command.get_program(), e))?;
    if status.success() { Ok(()) } else { Err(Error::bad(command.get_program(), format!("ended with {status}"))) }
}

/// Samples the child until it ends.
fn watch(child: &mut Child) -> Result<Seen> {
    let process = PathBuf::from(format!("/proc/{}", child.id()));
    let mut seen = Seen::default();
    while child.try_wait().map_err(|e| Error::io("wait for", &process, e))?.is_none() {
        let status = fs::read_to_string(process.join("status")).unwrap_or_default();
        let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = anonymous.and_then(|rest| rest.trim().split(' ').next()?.parse().ok()).unwrap_or(0);
        seen.anonymous_kib = seen.anonymous_kib.max(kib);
        let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
        // Behind the name in parentheses: user and system time are the 12th and 13th field.
        let times = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
        let ticks: u64 = times.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        seen.processor = seen.processor.max(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND));
        // The sampling interval: finer than any allocation that matters lives.
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(seen)
}

fn clear(target: &Path, home: &Path) -> Result<()> {
    if target.exists() {
        fs::remove_dir_all(target).map_err(|e| Error::io("remove", target, e))?;
    }
    let dir = File::open(home).map_err(|e| Error::io("open", home, e))?;
    rustix::fs::syncfs(&dir).map_err(|e| Error::io("sync", home, e.into()))
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(&next).map_err(|e| Error::io("read", &next, e))? {
            let path = entry.map_err(|e| Error::io("read", &next, e))?.path();
            if path.is_dir() { dirs.push(path) } else { found.push(path) }
        }
    }
    Ok(found)
}

fn tree_bytes(dir: &Path) -> Result<u64> {
    files(dir)?.iter().map(|f| fs::metadata(f).map(|m| m.len()).map_err(|e| Error::io("read", f, e))).sum()
}

fn warm(dir: &Path) -> Result<()> {
    for file in files(dir)? {
        let mut source = File::open(&file).map_err(|e| Error::io("open", &file, e))?;
        std::io::copy(&mut source, &mut std::io::sink()).map_err(|e| Error::io("read", &file, e))?;
    }
    Ok(())
}

/// Writes a model of about `bytes`; gives its exact size.
fn make_model(dir: &Path, bytes: u64) -> Result<u64> {
    fs::create_dir(dir).map_err(|e| Error::io("create", dir, e))?;
    let attention = HIDDEN * HIDDEN * 2 + 2 * HIDDEN * (HIDDEN / HEADS * GROUPS);
    let layer = 2 * (attention + 3 * FFN * HIDDEN);
    let rest = 2 * 2 * VOCAB * HIDDEN;
    let layers = (bytes.saturating_sub(rest) / layer / 2 * 2).max(2);
    let config = format!(
        r#"{{"model_type":"qwen2","hidden_size":{HIDDEN},"intermediate_size":{FFN},"num_hidden_layers":{layers},"num_attention_heads":{HEADS},"num_key_value_heads":{GROUPS},"vocab_size":{VOCAB},"torch_dtype":"bfloat16","tie_word_embeddings":false}}"#
    );
    let path = dir.join("config.json");
    fs::write(&path, &config).map_err(|e| Error::io("write", &path, e))?;
    let shape = convert::config::Config::read(dir)?.shape;
    let tensors = convert::plan::hf::tensors(&shape);
    let mut map = Vec::new();
    for (i, part) in tensors.chunks(tensors.len().div_ceil(FILES)).enumerate() {
        let name = format!("model-{:05}-of-{FILES:05}.safetensors", i + 1);
        write_weights(&dir.join(&name), part, i as u64)?;
        map.extend(part.iter().map(|(tensor, _)| format!("\"{tensor}\":\"{name}\"")));
    }
    let index = dir.join("model.safetensors.index.json");
    fs::write(&index, format!("{{\"weight_map\":{{{}}}}}", map.join(",")))
        .map_err(|e| Error::io("write", &index, e))?;
    tree_bytes(dir)
}

fn write_weights(path: &Path, tensors: &[(String, Vec<u64>)], seed: u64) -> Result<()> {
    let mut entries = Vec::new();
    let mut at = 0;
    for (name, shape) in tensors {
        let end = at + shape.iter().product::<u64>() * 2;
        entries.push(format!(r#""{name}":{{"dtype":"BF16","shape":{shape:?},"data_offsets":[{at},{end}]}}"#));
        at = end;
    }
    let header = format!("{{{}}}", entries.join(","));
    let io = |e| Error::io("write", path, e);
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).map_err(io)?);
    file.write_all(&(header.len() as u64).to_le_bytes()).map_err(io)?;
    file.write_all(header.as_bytes()).map_err(io)?;
    let mut word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut left = at;
    while left > 0 {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        // Four small finite values: exponents below 1 and random mantissas.
        let bytes = (word & 0x80ff_80ff_80ff_80ff | 0x3c00_3c00_3c00_3c00).to_le_bytes();
        let take = left.min(8);
        file.write_all(&bytes[..usize::try_from(take).unwrap_or(8)]).map_err(io)?;
        left -= take;
    }
    file.into_inner().map_err(|e| io(e.into_error()))?.sync_all().map_err(io)
}
