//! The Python library on a part of the same text.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::Place;
use crate::report::Failure;

/// The text that it gets, in bytes: it takes some fifty times as long.
const MOST: usize = 8 << 20;

/// Reads the texts first, and measures the encoding alone.
const SCRIPT: &str = r#"
import json, sys, time
import tokenizers
tokenizer = tokenizers.Tokenizer.from_file(sys.argv[1])
texts = [json.loads(line) for line in open(sys.argv[2], encoding="utf-8")]
size = sum(len(text.encode()) for text in texts)
cpu, begin = time.process_time(), time.perf_counter()
tokens = 0
for at in range(0, len(texts), 1000):
    tokens += sum(len(one.ids) for one in tokenizer.encode_batch(texts[at:at + 1000]))
wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
# Not getrusage: that counts what the starting process held.
peak = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"version": tokenizers.__version__, "bytes": size, "tokens": tokens, "mb_per_s": size / wall / 1e6,
                  "mb_per_cpu_s": size / cpu / 1e6, "peak_rss_bytes": peak}))
"#;

/// What it reaches with `threads` threads.
pub(super) fn measure(
    python: &Path,
    tokenizer: &Path,
    texts: &[String],
    threads: usize,
    place: &Place,
) -> Result<Value, Failure> {
    let path = place.path.join("part.jsonl");
    let mut part = Vec::new();
    for text in texts.iter().filter(|text| !text.is_empty()) {
        writeln!(part, "{}", json!(text)).map_err(|error| place.fault(&error))?;
        if part.len() > MOST {
            break;
        }
    }
    fs::write(&path, part).map_err(|error| place.fault(&error))?;
    let hint = "name a Python that has the `tokenizers` package";
    let output = Command::new(python)
        .args(["-c", SCRIPT])
        .args([&tokenizer.join("tokenizer.json"), &path])
        .envs([("RAYON_NUM_THREADS", threads.to_string()), ("TOKENIZERS_PARALLELISM", "true".to_owned())])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure::new(format!("`{}` could not be started: {error}", python.display()), hint))?;
    let said = serde_json::from_slice(&output.stdout).ok().filter(|_| output.status.success());
    said.ok_or_else(|| Failure::new(format!("`{}` did not measure its library", python.display()), hint))
}
