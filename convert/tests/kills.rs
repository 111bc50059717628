//! Killed at any moment: nothing under a final name is half written, and running again ends equal.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::Words;
use model::ModelShape;

/// Kills of one run of the test; `QCTL_KILLS` overrules it.
const KILLS: u64 = 40;

/// A model of about 12 MB: large enough to be killed while it is written.
fn shape() -> ModelShape {
    ModelShape {
        hidden_size: 256,
        ffn_hidden_size: 1024,
        num_attention_heads: 8,
        num_query_groups: 2,
        kv_channels: 32,
        vocab_size: 4003,
        ..common::small_shape()
    }
}

/// Content of all files below a directory, by path; hidden ones are partial and left out.
fn contents(dir: &Path) -> BTreeMap<PathBuf, blake3::Hash> {
    let hidden = |path: &Path| path.iter().any(|part| part.to_string_lossy().starts_with('.'));
    let files = common::tree(dir).into_iter().filter(|path| !hidden(path) && dir.join(path).is_file());
    files.map(|path| (path.clone(), blake3::hash(&fs::read(dir.join(&path)).unwrap()))).collect()
}

/// One way to use the program: its arguments, its directory, and what it ends with.
struct Way {
    name: &'static str,
    args: Vec<String>,
    dir: PathBuf,
    /// Puts what the command needs into place.
    prepare: Box<dyn Fn()>,
    /// Names whose files appear together or not at all.
    whole: Option<&'static str>,
    result: BTreeMap<PathBuf, blake3::Hash>,
    takes: Duration,
}

impl Way {
    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qctl-convert"));
        command.args(&self.args).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Runs undisturbed; gives how long that took.
    fn run(&self) -> Duration {
        let start = Instant::now();
        assert!(self.command().status().unwrap().success(), "{}", self.name);
        start.elapsed()
    }

    /// Every file under a final name must be that of an undisturbed run.
    fn check(&self) {
        let found = contents(&self.dir);
        for (path, hash) in &found {
            assert_eq!(self.result.get(path), Some(hash), "{}: {} is not whole", self.name, path.display());
        }
        let tracker = Path::new("latest_checkpointed_iteration.txt");
        if found.contains_key(tracker) {
            assert_eq!(found.len(), self.result.len(), "{}: the tracker is there before all files", self.name);
        }
        if let Some(whole) = self.whole {
            let below = |files: &BTreeMap<PathBuf, blake3::Hash>| files.keys().filter(|p| p.starts_with(whole)).count();
            assert!([0, below(&self.result)].contains(&below(&found)), "{}: a part of `{whole}`", self.name);
        }
    }
}

fn ways(home: &Path, s: &ModelShape) -> Vec<Way> {
    let hf = home.join("hf");
    common::write_model(&hf, s, 3, 2);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<String>>();
    let base = |from, to| words(&format!("--load-model-type {from} --save-model-type {to} --params-dtype bf16"));
    let cut = words("--target-tensor-parallel-size 2 --target-pipeline-parallel-size 2");
    let pair = |a: &str, b: String| vec![a.to_owned(), b];
    let load = |dir: &Path| pair("--load-dir", text(dir));
    let way = |name, dir: &Path, args: Vec<String>, whole, prepare| Way {
        name,
        args,
        dir: dir.to_owned(),
        prepare,
        whole,
        result: BTreeMap::new(),
        takes: Duration::ZERO,
    };
    let nothing = || Box::new(|| ()) as Box<dyn Fn()>;
    let (whole, single, published) = (home.join("whole"), home.join("single"), home.join("published"));
    let (back, again) = (home.join("back"), home.join("again"));
    fs::create_dir(&single).unwrap();
    let shard = [
        base("hf", "mg"),
        cut.clone(),
        load(&hf),
        words("--only-shard 1,0"),
        pair("--out", text(&single.join("s.pt"))),
    ];
    let mut publish = [words("publish"), pair("--save-dir", text(&published)), cut.clone()].concat();
    let parts = home.join("parts");
    fs::create_dir(&parts).unwrap();
    for (tp, pp) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
        publish.extend(pair("--shard", format!("{tp},{pp}={}", text(&parts.join(format!("{tp}-{pp}"))))));
    }
    let spread = {
        let (whole, parts, published) = (whole.clone(), parts.clone(), published.clone());
        Box::new(move || {
            for (tp, pp) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                let (part, rank) = (
                    parts.join(format!("{tp}-{pp}")),
                    format!("iter_0000001/mp_rank_{tp:02}_{pp:03}/model_optim_rng.pt"),
                );
                // What an earlier run moved is not given again.
                if !part.exists() && !published.join(&rank).exists() {
                    fs::copy(whole.join(&rank), &part).unwrap();
                }
            }
        }) as Box<dyn Fn()>
    };
    let to_hf = [base("mg", "hf"), load(&whole), pair("--hf-dir", text(&hf)), pair("--out", text(&back.join("m")))];
    let to_other = [
        base("mg", "mg"),
        load(&whole),
        pair("--save-dir", text(&again)),
        words("--num-layer-list 1,3 --target-pipeline-parallel-size 2"),
    ];
    let mut ways = vec![
        way(
            "hf to mg",
            &whole,
            [base("hf", "mg"), cut, load(&hf), pair("--save-dir", text(&whole))].concat(),
            Some("iter_0000001"),
            nothing(),
        ),
        way("one shard", &single, shard.concat(), None, nothing()),
        way("publish", &published, publish, None, spread),
        way("mg to hf", &back, to_hf.concat(), Some("m"), nothing()),
        way("mg to mg", &again, to_other.concat(), Some("iter_0000001"), nothing()),
    ];
    for way in &mut ways {
        (way.prepare)();
        way.takes = way.run();
        way.result = contents(&way.dir);
        assert!(!way.result.is_empty(), "{}", way.name);
    }
    ways
}

#[test]
fn killed_at_any_moment_it_leaves_whole_files_and_ends_equal_when_run_again() {
    let kills = std::env::var("QCTL_KILLS").map_or(KILLS, |text| text.parse().unwrap());
    let memory = Path::new("/dev/shm");
    let home = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let ways = ways(home.path(), &shape());
    let seed = std::env::var("QCTL_KILL_SEED").map_or(1, |text| text.parse().unwrap());
    let mut words = Words(seed);
    let mut struck = 0;
    // The first way is every other's source: while it is cut down, no other runs.
    for (number, way) in ways.iter().enumerate().rev() {
        let rounds = kills / ways.len() as u64 + u64::from((number as u64) < kills % ways.len() as u64);
        for round in 0..rounds {
            if round % 3 == 0 {
                // From nothing; else over whatever the last kill left, or over a whole result.
                for entry in fs::read_dir(&way.dir).into_iter().flatten().flatten() {
                    let path = entry.path();
                    if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }.unwrap();
                }
            }
            (way.prepare)();
            let mut child = way.command().spawn().unwrap();
            let micros = u64::try_from(way.takes.as_micros()).unwrap();
            // The moment of the kill: it has no condition, any will do.
            std::thread::sleep(Duration::from_micros(words.below(micros + micros / 8)));
            child.kill().unwrap();
            struck += u64::from(!child.wait().unwrap().success());
            way.check();
            if round % 2 == 1 || round + 1 == rounds {
                (way.prepare)();
                way.run();
                assert_eq!(contents(&way.dir), way.result, "{} after kill {round}", way.name);
                let hidden =
                    common::tree(&way.dir).into_iter().find(|path| path.to_string_lossy().contains(".partial-"));
                assert_eq!(hidden, None, "{}: left over", way.name);
            }
        }
    }
    println!("{struck} of {kills} kills struck a run (seed {seed})");
    assert!(struck > 0, "every kill came too late");
}
