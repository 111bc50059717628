//! What a conversion prints, makes and leaves behind.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::lab::{Lab, program, run, stderr, stdout, succeed, to_mcore};
use common::{small_shape, tree};

#[test]
fn a_conversion_prints_the_reference_s_success_lines_and_comes_back() {
    let lab = Lab::new();
    let save = lab.path("mcore");
    let output = run(&to_mcore(&lab.hf(), &save, "2", "2"));
    let line = format!("  successfully saved checkpoint from iteration       1 to {}", save.display());
    assert_eq!(stdout(&output).lines().filter(|l| *l == line).count(), 4, "once a shard");
    assert_eq!(stdout(&output).lines().last(), Some("INFO:root:Done!"));
    assert_eq!(stderr(&output), "");
    let (load, hf) = (save.to_str().unwrap().to_owned(), lab.hf());
    let output = run(&[
        "--load-model-type",
        "mg",
        "--save-model-type",
        "hf",
        "--load-dir",
        &load,
        "--save-dir",
        hf.to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    let written = tree(&hf.join("mg2hf"));
    assert_eq!(
        written,
        ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"].map(PathBuf::from)
    );
    let model = convert::safetensors::HfModel::open(&hf).unwrap();
    let back = convert::safetensors::HfModel::open(&hf.join("mg2hf")).unwrap();
    for (name, _) in common::tensor_shapes(&small_shape()) {
        assert!(model.matrix(&name).unwrap().same(&back.matrix(&name).unwrap()), "{name}");
    }
    let output = run(&[
        "--load-model-type",
        "mg",
        "--save-model-type",
        "hf",
        "--load-dir",
        &load,
        "--hf-dir",
        hf.to_str().unwrap(),
        "--iteration",
        "latest",
        "--out",
        lab.path("export").to_str().unwrap(),
        "--progress",
        "json",
    ]);
    let last: serde_json::Value = serde_json::from_str(stdout(&output).lines().last().unwrap()).unwrap();
    assert_eq!(last["type"], "result");
    assert_eq!(last["files"].as_array().unwrap().len(), 4);
}

#[test]
fn without_a_dtype_the_result_is_fp16_with_a_warning() {
    let lab = Lab::new();
    let save = lab.path("mcore");
    let args: Vec<&str> = to_mcore(&lab.hf(), &save, "1", "1")
        .iter()
        .copied()
        .filter(|a| !["--params-dtype", "bf16"].contains(a))
        .map(|a| a.to_owned().leak() as &str)
        .collect();
    let output = run(&args);
    assert!(output.status.success());
    assert!(stderr(&output).starts_with("warning: without --params-dtype the tensors are cast to fp16"));
    let shard = convert::shard::Shard::open(&save.join("iter_0000001/mp_rank_00/model_optim_rng.pt")).unwrap();
    assert!(shard.tensors().flatten().all(|(_, t)| t.storage == "HalfStorage"));
}

#[test]
fn shards_made_one_by_one_and_published_equal_the_whole_run() {
    let lab = Lab::new();
    let whole = lab.convert();
    let save = lab.path("sharded");
    let base: Vec<String> = to_mcore(&lab.hf(), &save, "2", "2").iter().map(|a| (*a).to_owned()).collect();
    let mut manifest = Vec::new();
    for (tp, pp) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
        let out = lab.path(&format!("shard-{tp}-{pp}-attempt-1"));
        let output = program()
            .args(&base)
            .arg("--only-shard")
            .arg(format!("{tp},{pp}"))
            .arg("--out")
            .arg(&out)
            .args(["--progress", "json"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let lines: Vec<serde_json::Value> = stdout(&output).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let result = lines.last().unwrap();
        assert_eq!((result["type"].as_str(), result["files"][0]["path"].as_str()), (Some("result"), out.to_str()));
        assert_eq!(result["files"][0]["digest"].as_str().unwrap(), convert::digest::of_file(&out).unwrap());
        let progress = &lines[lines.len() - 2];
        assert_eq!(progress["done"], progress["total"]);
        assert!(progress["bytes_per_s"].as_f64().is_some_and(|speed| speed > 0.0), "{progress}");
        manifest.push(serde_json::json!({ "task": format!("{tp},{pp}"), "path": out }));
    }
    assert!(!save.exists(), "a single shard leaves the checkpoint directory alone");
    let list = lab.path("manifest.json");
    fs::write(&list, serde_json::Value::from(manifest.clone()).to_string()).unwrap();
    let publish = |extra: &[&str]| {
        let mut args = vec![
            "publish",
            "--save-dir",
            save.to_str().unwrap(),
            "--target-tensor-parallel-size",
            "2",
            "--target-pipeline-parallel-size",
            "2",
        ];
        args.extend(extra);
        run(&args)
    };
    let output = publish(&["--manifest", list.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(tree(&save), tree(&whole));
    for file in tree(&whole).iter().filter(|p| whole.join(p).is_file()) {
        assert!(fs::read(whole.join(file)).unwrap() == fs::read(save.join(file)).unwrap(), "{}", file.display());
    }
    // Again, with all sources gone; then again, with one source made anew.
    assert!(publish(&["--manifest", list.to_str().unwrap()]).status.success());
    fs::copy(whole.join("iter_0000001/mp_rank_00_000/model_optim_rng.pt"), lab.path("shard-0-0-attempt-1")).unwrap();
    assert!(publish(&["--manifest", list.to_str().unwrap()]).status.success());
    assert!(!lab.path("shard-0-0-attempt-1").exists());
    // An interrupted publication: the tracker is not there yet.
    fs::remove_file(save.join("latest_checkpointed_iteration.txt")).unwrap();
    assert!(publish(&["--manifest", list.to_str().unwrap()]).status.success());
    assert_eq!(tree(&save), tree(&whole));
}

#[test]
fn an_output_that_cannot_be_written_is_named() {
    let lab = Lab::new();
    let file = lab.path("file");
    fs::write(&file, "").unwrap();
    for (save, expected) in [
        (file.clone(), "is not a directory"),
        (file.join("below"), "cannot create"),
        (PathBuf::from("/proc/none"), "cannot create"),
    ] {
        let output = run(&to_mcore(&lab.hf(), &save, "2", "2"));
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
    let save = lab.path("limited");
    let line: Vec<String> = to_mcore(&lab.hf(), &save, "2", "2").iter().map(|a| format!("'{a}'")).collect();
    let script = format!("ulimit -f 8; exec '{}' {}", env!("CARGO_BIN_EXE_qctl-convert"), line.join(" "));
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("beyond this process's limit of 8192") && stderr(&output).contains("ulimit -f"),
        "{}",
        stderr(&output)
    );
    assert_eq!(tree(&save), Vec::<PathBuf>::new(), "nothing half written");
}

/// A file system of 64 KiB that the kernel lets this user make, where it does.
#[test]
fn a_full_disk_leaves_nothing_behind() {
    let lab = Lab::new();
    let mount = lab.path("small");
    fs::create_dir(&mount).unwrap();
    let line: Vec<String> =
        to_mcore(&lab.hf(), &mount.join("out"), "2", "2").iter().map(|a| format!("'{a}'")).collect();
    let script = format!(
        "mount -t tmpfs -o size=16k none '{m}' || exit 99; '{p}' {line}; code=$?; find '{m}' -mindepth 2 | sed 's/^/left: /'; exit $code",
        m = mount.display(),
        p = env!("CARGO_BIN_EXE_qctl-convert"),
        line = line.join(" ")
    );
    let output = match Command::new("unshare").args(["-Urm", "bash", "-c", &script]).output() {
        Ok(output) if ![Some(99), None].contains(&output.status.code()) && !stderr(&output).starts_with("unshare") => {
            output
        }
        _ => {
            println!("skipped: no private mount is permitted here");
            return;
        }
    };
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("No space left on device") && stderr(&output).contains("hint: free space"),
        "{}",
        stderr(&output)
    );
    assert!(!stdout(&output).contains("left: ") && !stdout(&output).contains("successfully"), "{}", stdout(&output));
}

#[test]
fn all_three_ways_verify_what_they_wrote() {
    let lab = Lab::new();
    let (hf, first, second) = (lab.hf(), lab.path("first"), lab.path("second"));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (hf, first, second, back) = (text(&hf), text(&first), text(&second), text(&lab.path("back")));
    let way = |from: &'static str, to: &'static str| ["--load-model-type", from, "--save-model-type", to, "--verify"];
    let layout = ["--target-tensor-parallel-size", "2", "--target-pipeline-parallel-size", "2"];
    let dirs = ["--load-dir", &hf, "--save-dir", &first, "--params-dtype", "bf16"];
    let virtual_stages = ["--num-layers-per-virtual-pipeline-stage", "1"];
    let args = [&way("hf", "mg")[..], &layout, &dirs, &virtual_stages].concat();
    let said = "verified: 51 tensors, 18272 bytes, equal on both sides";
    let stated = |output: &Output| stdout(output) + &stderr(output);
    assert!(stated(&succeed(&args)).contains(said), "{}", stated(&succeed(&args)));
    let dirs = ["--load-dir", &first, "--save-dir", &second, "--target-pipeline-parallel-size", "3"];
    let args = [&way("mg", "mg")[..], &dirs, &["--num-layer-list", "2,1,1"]].concat();
    assert!(stated(&succeed(&args)).contains(said));
    let dirs = ["--load-dir", &second, "--hf-dir", &hf, "--out", &back, "--max-shard-size", "4000"];
    assert!(stated(&succeed(&[&way("mg", "hf")[..], &dirs].concat())).contains(said));
    let model = convert::safetensors::HfModel::open(Path::new(&back)).unwrap();
    assert!(model.files().count() > 2, "split, with an index");
    // The same directory as source and goal is refused before anything is replaced.
    let same = ["--load-dir", &second, "--save-dir", &second];
    let refused = run(&[&way("mg", "mg")[..], &same].concat());
    assert!(stderr(&refused).contains("would be replaced while it is read"), "{}", stderr(&refused));
    assert!(stated(&succeed(&[&way("mg", "hf")[..], &dirs].concat())).contains(said));
}
