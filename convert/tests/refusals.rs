//! What is refused before anything is written: a sentence, a code, and no output.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::path::Path;

use common::lab::{Lab, program, run, stderr, stdout, succeed, to_mcore};
use common::parts::patch;
use common::{small_shape, tree, write_model};
use convert::shard::args::Plain;

#[test]
fn publishing_refuses_wrong_shards_and_moves_nothing() {
    let lab = Lab::new();
    let whole = lab.convert();
    let at = |rank: &str| whole.join("iter_0000001").join(rank).join("model_optim_rng.pt");
    let copy = |rank: &str, name: &str| {
        fs::copy(at(rank), lab.path(name)).unwrap();
        format!("{}", lab.path(name).display())
    };
    let (a, b, c, d) = (
        copy("mp_rank_00_000", "a"),
        copy("mp_rank_01_000", "b"),
        copy("mp_rank_00_001", "c"),
        copy("mp_rank_01_001", "d"),
    );
    let save = lab.path("published");
    let publish = |files: [&str; 4]| {
        let mut args = vec!["publish".to_owned(), "--save-dir".into(), save.display().to_string()];
        args.extend(["--target-tensor-parallel-size", "2", "--target-pipeline-parallel-size", "2"].map(str::to_owned));
        for (rank, file) in ["0,0", "1,0", "0,1", "1,1"].iter().zip(files) {
            args.extend(["--shard".to_owned(), format!("{rank}={file}")]);
        }
        program().args(args).output().unwrap()
    };
    let damaged = format!("{}", lab.path("damaged").display());
    let mut bytes = fs::read(&d).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&damaged, &bytes).unwrap();
    let cut = format!("{}", lab.path("cut").display());
    fs::write(&cut, &bytes[..bytes.len() - 100]).unwrap();
    let gone = format!("{}", lab.path("gone").display());
    for (files, expected) in [
        ([&a, &b, &d, &damaged], "does not have its checksum"),
        ([&a, &b, &c, &cut], "no intact checkpoint archive"),
        ([&c, &b, &a, &d], "holds no `embedding.word_embeddings.weight`"),
        ([&a, &b, &c, &gone], "cannot open"),
    ] {
        let output = publish(files.map(String::as_str));
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{} lacks {expected}", stderr(&output));
        assert!(!save.exists() && Path::new(&a).exists());
    }
    let output = run(&[
        "publish",
        "--save-dir",
        save.to_str().unwrap(),
        "--target-tensor-parallel-size",
        "2",
        "--target-pipeline-parallel-size",
        "2",
        "--shard",
        &format!("0,0={a}"),
    ]);
    assert_eq!(
        (output.status.code(), stderr(&output).lines().next().map(str::to_owned)),
        (Some(2), Some("error: shard 1,0 is missing".into()))
    );
    // A stage of another run, with virtual stages.
    let virtual_stages = lab.path("virtual");
    let flags = ["--num-layers-per-virtual-pipeline-stage", "1"];
    succeed(&[&to_mcore(&lab.hf(), &virtual_stages, "2", "2")[..], &flags].concat());
    let [e, f] = ["mp_rank_00_001", "mp_rank_01_001"]
        .map(|rank| virtual_stages.join("iter_0000001").join(rank).join("model_optim_rng.pt").display().to_string());
    let output = publish([&a, &b, &e, &f]);
    assert!(stderr(&output).contains("whose stages have different numbers of virtual stages"), "{}", stderr(&output));
    assert!(!save.exists() && Path::new(&e).exists());
    let training = lab.path("training");
    fs::create_dir(&training).unwrap();
    fs::write(training.join("latest_checkpointed_iteration.txt"), "20").unwrap();
    let output = run(&to_mcore(&lab.hf(), &training, "2", "2"));
    assert!(stderr(&output).contains("holds a training run's checkpoints up to iteration 20"));
    assert_eq!(tree(&training).len(), 1);
}

/// Spoils a fresh model, converts it, and expects one sentence, exit code 1 and no output.
fn spoilt(expected: &str, spoil: impl Fn(&Path)) {
    let lab = Lab::new();
    spoil(&lab.hf());
    let save = lab.path("out");
    let output = run(&to_mcore(&lab.hf(), &save, "2", "2"));
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.starts_with("error: ") && text.contains(expected), "{text} lacks {expected}");
    assert!(!save.exists(), "{expected}: {:?}", tree(&save));
}

fn rewrite(path: &Path, change: impl Fn(Vec<u8>) -> Vec<u8>) {
    let bytes = fs::read(path).unwrap();
    let changed = change(bytes.clone());
    assert_ne!(bytes, changed);
    fs::write(path, changed).unwrap();
}

fn replace(path: &Path, from: &str, to: &str) {
    rewrite(path, |bytes| String::from_utf8_lossy(&bytes).replacen(from, to, 1).into_bytes());
}

const FIRST: &str = "model-00001-of-00002.safetensors";

#[test]
fn bad_models_are_refused_with_a_sentence_and_nothing_is_written() {
    spoilt("is truncated: tensor `", |hf| rewrite(&hf.join(FIRST), |b| b[..b.len() - 1].to_vec()));
    spoilt("is truncated: its header of", |hf| rewrite(&hf.join(FIRST), |b| b[..100].to_vec()));
    spoilt("is no safetensors file: 0 bytes", |hf| fs::write(hf.join(FIRST), b"").unwrap());
    spoilt("at most 104857600 are allowed", |hf| fs::write(hf.join(FIRST), [0xff; 64]).unwrap());
    spoilt(&format!("names `{FIRST}`, which is missing"), |hf| fs::remove_file(hf.join(FIRST)).unwrap());
    spoilt("which is no plain file name", |hf| {
        replace(&hf.join("model.safetensors.index.json"), FIRST, "../x.safetensors")
    });
    spoilt("is no valid index", |hf| fs::write(hf.join("model.safetensors.index.json"), "<html>").unwrap());
    spoilt("which does not hold it", |hf| {
        replace(&hf.join("model.safetensors.index.json"), "model.norm.weight", "model.other.weight");
    });
    spoilt("has neither `model.safetensors` nor", |hf| {
        fs::remove_file(hf.join("model.safetensors.index.json")).unwrap()
    });
    spoilt("config.json calls for [40, 16]", |hf| {
        replace(&hf.join("config.json"), "\"vocab_size\": 37", "\"vocab_size\": 40")
    });
    spoilt("has no tensor `model.layers.4.", |hf| {
        replace(&hf.join("config.json"), "\"num_hidden_layers\": 4", "\"num_hidden_layers\": 6")
    });
    spoilt("which model_type `qwen2` does not have", |hf| {
        replace(&hf.join("config.json"), "\"num_hidden_layers\": 4", "\"num_hidden_layers\": 2")
    });
    spoilt("cannot open", |hf| fs::remove_file(hf.join("config.json")).unwrap());
    spoilt("is no valid JSON object", |hf| fs::write(hf.join("config.json"), "{").unwrap());
    spoilt("model_type `qwen3_moe` (mixture of experts) is not supported yet", |hf| {
        replace(&hf.join("config.json"), "qwen2", "qwen3_moe")
    });
    spoilt("model_type `mixtral` (mixture of experts)", |hf| replace(&hf.join("config.json"), "qwen2", "mixtral"));
    spoilt("element type `F64`", |hf| {
        rewrite(&hf.join(FIRST), |b| {
            let length = usize::try_from(u64::from_le_bytes(b[..8].try_into().unwrap())).unwrap();
            let header = String::from_utf8(b[8..8 + length].to_vec()).unwrap();
            // The narrowest tensor of the file keeps its bytes: 16 halves become 4 doubles.
            let at = header.find("\"model.layers.0.input_layernorm.weight\"").unwrap();
            let (before, after) = header.split_at(at);
            let after = after.replacen("BF16", "F64", 1).replacen("[16]", "[4]", 1);
            let header = format!("{before}{after}");
            [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &b[8 + length..]].concat()
        });
    });
    spoilt("has overlapping tensors", |hf| {
        let json = r#"{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"BF16","shape":[2],"data_offsets":[2,6]}}"#;
        fs::write(hf.join(FIRST), [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &[0; 6]].concat()).unwrap();
    });
}

#[test]
fn impossible_layouts_say_which_would_be_possible() {
    let lab = Lab::new();
    let save = lab.path("out");
    for (tp, pp, sentence, hint) in [
        ("4", "1", "tp 4 does not divide num_key_value_heads = 2", "hint: tp may be 1, 2"),
        ("2", "3", "pp 3 does not divide num_hidden_layers = 4", "hint: pp may be 1, 2, 4"),
    ] {
        let output = run(&to_mcore(&lab.hf(), &save, tp, pp));
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(stderr(&output).lines().collect::<Vec<_>>(), [format!("error: {sentence}").as_str(), hint]);
        assert!(!save.exists());
    }
}

#[test]
fn wrong_command_lines_end_with_code_2_and_name_the_nearest() {
    let lab = Lab::new();
    let (hf, save) = (lab.hf(), lab.path("out"));
    let base: Vec<String> = to_mcore(&hf, &save, "2", "2").iter().map(|a| (*a).to_owned()).collect();
    let table: &[(&[&str], &str)] = &[
        (&["--num-layer-list", "2,3"], "num_layer_list 2,3 does not deal 4 layers to 2 stages"),
        (&["--num-layer-list", "2,x"], "not of the form N,N,…"),
        (&["--noop-layers=1"], "pp 2 does not divide num_hidden_layers + no-op layers = 5"),
        (&["--noop-layers", "1,9"], "noop_layers names slot 9; there are slots 0 to 5"),
        (
            &["--num-layers-per-virtual-pipeline-stage", "2"],
            "num_layers_per_virtual_pipeline_stage 2 does not cut a stage's 2 layers into several chunks",
        ),
        (&["--emulate-fp16"], "`--emulate-fp16` only has a meaning with `--save-model-type hf`"),
        (&["--max-shard-size", "9"], "`--max-shard-size` only has a meaning with `--save-model-type hf`"),
        (&["--verify", "--only-shard", "0,0", "--out", "x"], "`--verify` compares a whole checkpoint"),
        (&["--convention", "v2", "--make-vocab-size-divisible-by", "8"], "and convention v2 does not pad"),
        (&["--target-expert-parallel-size", "2"], "`--target-expert-parallel-size` is not supported yet"),
        (&["--spec", "a", "b"], "`--spec` is not supported yet"),
        (&["--param-dtype", "bf16"], "a similar argument exists: '--params-dtype'"),
        (&["--model-type-hf", "chatglm3"], "`--model-type-hf chatglm3` is not supported yet"),
        (&["--model-type", "BERT"], "`--model-type BERT` is not supported yet"),
        (&["--only-shard", "2,0", "--out", "x"], "shard 2,0 lies outside tp x pp = 2 x 2"),
        (&["--only-shard", "1"], "not of the form TP,PP"),
        (&["--iteration", "3"], "`--iteration` only has a meaning with `--load-model-type mg`"),
    ];
    for (extra, expected) in table {
        let output = program().args(&base).args(*extra).output().unwrap();
        assert!(matches!(output.status.code(), Some(1 | 2)), "{extra:?}");
        assert!(stderr(&output).contains(expected), "{} lacks {expected}", stderr(&output));
        assert!(!save.exists());
    }
    let llama = lab.path("llama");
    write_model(&llama, &model::ModelShape { model_type: "llama".into(), qkv_bias: false, ..small_shape() }, 1, 1);
    let output = run(&to_mcore(&llama, &save, "2", "2"));
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("`--add-qkv-bias` contradicts"), "{}", stderr(&output));
    let output = program().args(&base).args(["--spec", "x", "--progress", "json"]).output().unwrap();
    let record: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((output.status.code(), record["type"].as_str()), (Some(2), Some("error")));
}

/// Flags of a second cut, which would otherwise go unheard.
#[test]
fn what_contradicts_the_shards_is_refused() {
    let lab = Lab::new();
    let llama = lab.path("llama");
    write_model(&llama, &model::ModelShape { model_type: "llama".into(), qkv_bias: false, ..small_shape() }, 1, 1);
    let (plain, biased, save) = (lab.path("plain"), lab.convert(), lab.path("out"));
    let first = to_mcore(&llama, &plain, "2", "1");
    succeed(&first.into_iter().filter(|word| *word != "--add-qkv-bias").collect::<Vec<_>>());
    let hf = lab.hf();
    let hf = hf.to_str().unwrap();
    let table: [(&Path, &[&str], i32, &str, &str); 5] = [
        (&plain, &["--add-qkv-bias"], 2, "its shards have no biases on q, k and v", "leave the flag out"),
        (&biased, &["--max-shard-size", "9"], 2, "`--max-shard-size` only has a meaning with", ""),
        (&biased, &["--emulate-fp16"], 2, "`--emulate-fp16` only has a meaning with", ""),
        (&biased, &["--true-vocab-size", "39"], 1, "holds 38 rows of the embedding", "give at most 38"),
        (
            &biased,
            &["--true-vocab-size", "37", "--hf-dir", hf],
            2,
            "`--hf-dir` states the vocabulary",
            "one of the two",
        ),
    ];
    for (load, extra, code, sentence, hint) in table {
        let way = ["--load-model-type", "mg", "--save-model-type", "mg", "--save-dir", save.to_str().unwrap()];
        let output = run(&[&way[..], &["--load-dir", load.to_str().unwrap()], extra].concat());
        assert_eq!(output.status.code(), Some(code), "{extra:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(sentence) && stderr(&output).contains(hint), "{}", stderr(&output));
        assert!(!save.exists());
    }
}

#[test]
fn what_training_saved_is_not_replaced_by_another_cut_of_its_iteration() {
    let lab = Lab::new();
    let trained = |name: &str, batch: bool| {
        let save = lab.path(name);
        succeed(&to_mcore(&lab.hf(), &save, "1", "1"));
        patch(&save.join("iter_0000001/mp_rank_00/model_optim_rng.pt"), |parts| {
            parts.iteration = 7;
            if batch {
                parts.set("micro_batch_size", Plain::Int(1));
            }
        });
        fs::rename(save.join("iter_0000001"), save.join("iter_0000007")).unwrap();
        fs::write(save.join("latest_checkpointed_iteration.txt"), "7").unwrap();
        save
    };
    let (source, other) = (trained("source", true), trained("other", true));
    let cut = |save: &Path| {
        let way = ["--load-model-type", "mg", "--save-model-type", "mg", "--target-tensor-parallel-size", "2"];
        run(&[&way[..], &["--load-dir", source.to_str().unwrap(), "--save-dir", save.to_str().unwrap()]].concat())
    };
    let before = fs::read(other.join("iter_0000007/mp_rank_00/model_optim_rng.pt")).unwrap();
    for tracked in [true, false] {
        let output = cut(&other);
        assert_eq!(output.status.code(), Some(1), "tracked: {tracked}");
        assert!(stderr(&output).contains("may hold what a training run saved"), "{}", stderr(&output));
        assert!(before == fs::read(other.join("iter_0000007/mp_rank_00/model_optim_rng.pt")).unwrap());
        let _ = fs::remove_file(other.join("latest_checkpointed_iteration.txt"));
    }
    // A conversion's own result is, as after one that was killed before its tracker.
    let own = lab.path("own");
    for _ in 0..2 {
        let output = cut(&own);
        assert!(output.status.success(), "{}", stderr(&output));
        fs::remove_file(own.join("latest_checkpointed_iteration.txt")).unwrap();
    }
    assert!(cut(&trained("converted", false)).status.success());
}

#[test]
fn checkpoints_that_are_not_whole_are_refused_with_the_reason() {
    let lab = Lab::new();
    let mcore = lab.convert();
    let out = lab.path("export");
    let (hf, out_text) = (lab.hf(), out.display().to_string());
    let export = |load: &Path| {
        run(&[
            "--load-model-type",
            "mg",
            "--save-model-type",
            "hf",
            "--load-dir",
            load.to_str().unwrap(),
            "--hf-dir",
            hf.to_str().unwrap(),
            "--out",
            &out_text,
        ])
    };
    let check = |load: &Path, sentence: &str, hint: &str| {
        let output = export(load);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(sentence) && stderr(&output).contains(hint), "{}", stderr(&output));
        assert!(!out.exists());
    };
    check(
        &mcore.join("iter_0000001"),
        "has no `latest_checkpointed_iteration.txt`",
        "the directory that holds `iter_…`",
    );
    let shard = mcore.join("iter_0000001/mp_rank_01_001/model_optim_rng.pt");
    let whole = fs::read(&shard).unwrap();
    fs::remove_file(&shard).unwrap();
    let missing = "is incomplete: `mp_rank_01_001/model_optim_rng.pt` is missing";
    check(&mcore, missing, "its tracker is there, so whoever wrote it was interrupted");
    // The reference writes stage by stage: where it was interrupted, no name tells of the last stage.
    let stage =
        ["mp_rank_00_001", "mp_rank_01_001"].map(|rank| (mcore.join("iter_0000001").join(rank), lab.path(rank)));
    for (from, to) in &stage {
        fs::rename(from, to).unwrap();
    }
    check(&mcore, "is incomplete: `mp_rank_00_001/model_optim_rng.pt` is missing", "write or fetch it again");
    let tracker = mcore.join("latest_checkpointed_iteration.txt");
    fs::write(&tracker, "2").unwrap();
    check(&mcore, "iter_0000002", "");
    fs::write(&tracker, "1").unwrap();
    for (to, from) in &stage {
        fs::rename(from, to).unwrap();
    }
    // A rank of another iteration among those of this one.
    fs::create_dir(mcore.join("iter_0000003")).unwrap();
    for rank in fs::read_dir(mcore.join("iter_0000001")).unwrap().flatten() {
        let to = mcore.join("iter_0000003").join(rank.file_name());
        fs::create_dir(&to).unwrap();
        fs::write(to.join("model_optim_rng.pt"), &whole).unwrap();
    }
    fs::write(&tracker, "3").unwrap();
    check(&mcore, "is of iteration 1, but lies below iteration 3", "from the node that wrote it");
    fs::remove_dir_all(mcore.join("iter_0000003")).unwrap();
    fs::write(&tracker, "1").unwrap();
    for cut in [0, 10, whole.len() / 2, whole.len() - 1] {
        fs::write(&shard, &whole[..cut]).unwrap();
        check(&mcore, "is no intact checkpoint archive", "half written");
    }
    let describe = run(&["describe", "--mcore-dir", mcore.to_str().unwrap()]);
    let facts: serde_json::Value = serde_json::from_str(&stdout(&describe)).unwrap();
    assert_eq!((facts["usable"].as_bool(), facts["tracker"].as_u64()), (Some(false), Some(1)));
    assert!(facts["iterations"][0]["why"].as_str().unwrap().contains("no intact checkpoint archive"));
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 0x10;
    fs::write(&shard, &damaged).unwrap();
    check(&mcore, "is damaged", "make or fetch the file again");
    fs::write(&shard, &whole).unwrap();
    fs::write(mcore.join("latest_checkpointed_iteration.txt"), "x").unwrap();
    check(&mcore, "holds no iteration number", "");
    fs::write(mcore.join("latest_checkpointed_iteration.txt"), "5").unwrap();
    check(&mcore, "iter_0000005", "");
    fs::write(mcore.join("latest_checkpointed_iteration.txt"), "1").unwrap();
    assert!(export(&mcore).status.success());
}
