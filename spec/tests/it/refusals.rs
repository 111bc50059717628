//! Each refusal: its line, its message and its hint.

use crate::support::{TUTORIAL, parse_with};

/// Replaces one piece of the tutorial's file.
fn changed(from: &str, to: &str) -> String {
    assert!(TUTORIAL.contains(from), "`{from}` is not in the file");
    TUTORIAL.replacen(from, to, 1)
}

/// What is said about a file: `line: path: message | hint`.
fn said(text: &str) -> Vec<String> {
    match spec::parse(text, "pipeline.yaml") {
        Ok(_) => Vec::new(),
        Err(problems) => problems
            .iter()
            .map(|p| {
                let hint = p.hint.as_ref().map(|hint| format!(" | {hint}")).unwrap_or_default();
                format!("{}: {}: {}{hint}", p.line, p.path, p.message)
            })
            .collect(),
    }
}

#[test]
fn the_tutorials_file_is_accepted_without_a_warning() {
    let spec = parse_with(TUTORIAL, &[]).unwrap();
    assert_eq!(spec.warnings, []);
    assert!(spec.expect_pretrained());
}

#[test]
fn one_wrong_value_is_told_with_line_reason_and_hint() {
    let cases: &[(&str, &str, &str)] = &[
        // Keys.
        (
            "    lr: 1.25e-6",
            "    learning_rate: 1",
            "24: stages.train.learning_rate: unknown key `learning_rate` | the key may be",
        ),
        (
            "    seq_length: 10240",
            "    seq_lenght: 10240",
            "18: stages.train.seq_lenght: unknown key `seq_lenght` | did you mean `seq_length`?",
        ),
        ("workdir:", "work_dir:", "2: work_dir: unknown key `work_dir` | did you mean `workdir`?"),
        (
            "  train:\n",
            "  trian:\n",
            "13: stages.trian: unknown stage `trian` | did you mean `train`? a stage of your own needs `run: { argv: [...] }`",
        ),
        ("    lr: 1.25e-6", "    lr: 1\n    lr: 2", "25: : the key `lr` is given twice | keep one of them"),
        // Types.
        (
            "seq_length: 10240",
            "seq_length: ten",
            "18: stages.train.seq_length: expected a whole number, 0 or more, found the text `ten`",
        ),
        (
            "seq_length: 10240",
            "seq_length: -1",
            "18: stages.train.seq_length: expected a whole number, 0 or more, found the number `-1`",
        ),
        (
            "seq_length: 10240",
            "seq_length: 1.5",
            "18: stages.train.seq_length: expected a whole number, 0 or more, found the number `1.5`",
        ),
        (
            "tp: 2",
            "tp: 5000000000",
            "3: parallel.tp: expected a whole number from 0 to 4294967295, found the number `5000000000`",
        ),
        (
            "seq_length: 10240",
            "seq_length: 99999999999999999999",
            "18: stages.train.seq_length: expected a whole number, 0 or more, found the number `99999999999999999999`",
        ),
        ("lr: 1.25e-6", "lr: \"1e-6\"", "24: stages.train.lr: expected a number, found the text `1e-6`"),
        (
            "name: qwen25-7b-pretrain",
            "name: 7",
            "1: name: expected text, found the number `7` | put it in quotes: \"7\"",
        ),
        ("name: qwen25-7b-pretrain", "name: [a]", "1: name: expected text, found a list"),
        ("args: []", "args: --x", "26: stages.train.args: expected a list, found the text `--x`"),
        ("parallel: { tp: 2, pp: 2 }", "parallel: 4", "3: parallel: expected a mapping of keys, found the number `4`"),
        (
            "launcher: ranks",
            "launcher: torchrun",
            "14: stages.train.launcher: `torchrun` is no value for this key | the value may be `ranks` or `msrun`",
        ),
        (
            "launcher: ranks",
            "launcher: rank",
            "14: stages.train.launcher: `rank` is no value for this key | did you mean `ranks`?",
        ),
        (
            "launcher: ranks",
            "launcher: 3",
            "14: stages.train.launcher: expected `ranks` or `msrun`, found the number `3`",
        ),
        (
            "launcher: ranks",
            "launcher: msrun\n    scheduler: [python, -c, pass]",
            "15: stages.train.scheduler: msrun runs the training script as its scheduler and no other command | remove it, or use `launcher: ranks`",
        ),
        (
            "recompute: none",
            "recompute: all",
            "22: stages.train.recompute: expected `none` or { granularity: full, method: uniform, num_layers: 1 }, found the text `all`",
        ),
        (
            "recompute: none",
            "recompute: { granulariti: full }",
            "22: stages.train.recompute.granulariti: unknown key `granulariti` | did you mean `granularity`?",
        ),
        (
            "recompute: none",
            "recompute: { granularity: selective, method: block }",
            "22: stages.train.recompute.method: `method` goes with `granularity: full` only | remove it",
        ),
        ("recompute: none", "recompute: {}", "22: stages.train.recompute.granularity: this key is missing"),
        (
            "iteration: latest",
            "iteration: 0",
            "27: stages.export.iteration: expected `latest` or a number of at least 1, found the number `0`",
        ),
        (
            "iteration: latest",
            "iteration: newest",
            "27: stages.export.iteration: expected `latest` or a number of at least 1, found the text `newest`",
        ),
        // Names and paths.
        (
            "name: qwen25-7b-pretrain",
            "name: Qwen_7B",
            "1: name: `Qwen_7B` is no valid name: lower-case letters, digits and hyphens, at most 63 | try `qwen-7b`",
        ),
        ("name: qwen25-7b-pretrain\n", "", "1: name: this key is missing | give the job a name"),
        (
            "workdir: /data/MindSpeed-LLM",
            "workdir: ./data",
            "2: workdir: `./data` is not absolute, and agents run elsewhere | write the whole path, from `/`",
        ),
        ("workdir: /data/MindSpeed-LLM\n", "", "1: workdir: this key is missing"),
        (
            "./qwen2.5_7b_hf",
            "../../etc",
            "4: model.hf_dir: `../../etc` leaves the working directory | write an absolute path",
        ),
        ("./qwen2.5_7b_hf", "~/model", "4: model.hf_dir: `~/model` is not expanded"),
        ("./qwen2.5_7b_hf", "\"a\\nb\"", "4: model.hf_dir: the path holds a control character"),
        ("./qwen2.5_7b_hf", "\"\"", "4: model.hf_dir: the path is empty"),
        ("./qwen2.5_7b_hf", "-x", "4: model.hf_dir: `-x` would be read as an option | write `./-x`"),
        (
            "./dataset/alpaca",
            "./dataset/",
            "12: stages.preprocess.output_prefix: a prefix is the beginning of a file's name, not a directory",
        ),
        // What is not there or not supported.
        (
            "model: { hf_dir: ./qwen2.5_7b_hf }\n",
            "",
            "1: model.hf_dir: stage `convert` needs the model's directory | add `model: { hf_dir: ... }`",
        ),
        (
            "hf_dir: ./qwen2.5_7b_hf",
            "hf_dir: ./m, download: { modelscope: Qwen/Q }",
            "4: model.download: downloading is not supported yet | run `modelscope download --model Qwen/Q",
        ),
        (
            "convert: { engine: native",
            "convert: { engine: mindspeed",
            "11: stages.convert.engine: `mindspeed` is not supported yet | use `native`",
        ),
        (
            "dataset: { files: [./dataset/train-00000-of-00001-a09b74b3ef9c3b56.parquet] }\n",
            "",
            "1: dataset.files: stage `preprocess` has no input",
        ),
        (
            ", dtype: bf16 }",
            ", dtype: int8 }",
            "11: stages.convert.dtype: `int8` is no value for this key | the value may be `bf16`, `fp16` or `fp32`",
        ),
        ("save_dir: ./model_weights/qwen2.5_mcore, ", "", "11: stages.convert.save_dir: this key is missing"),
        (
            "    train_iters: 3\n",
            "",
            "13: stages.train.train_iters: this key is missing | say which iteration is the last",
        ),
        // Numbers.
        ("tp: 2", "tp: 0", "3: parallel.tp: 0 is out of range: at least 1"),
        (
            "pp: 2 }",
            "pp: 2, num_layer_list: [9, 9, 10] }",
            "3: parallel.num_layer_list: num_layer_list 9,9,10 does not deal 28 layers to 2 stages | give 2 numbers of at least 1 that add up to 28, such as 14,14",
        ),
        (
            "pp: 2 }",
            "pp: 2, num_layer_list: [14, 14], noop_layers: [0] }",
            "3: parallel.num_layer_list: num_layer_list and noop_layers exclude each other | leave it out",
        ),
        (
            "pp: 2 }",
            "num_layers_per_virtual_pipeline_stage: 2 }",
            "3: parallel.num_layers_per_virtual_pipeline_stage: virtual pipeline stages need more than one pipeline stage | leave it out",
        ),
        ("nodes: 1", "nodes: 100000", "16: stages.train.nodes: 100000 is out of range: at most 4096"),
        ("seq_length: 10240", "seq_length: 0", "18: stages.train.seq_length: 0 is out of range: at least 1"),
        (
            "train_iters: 3",
            "train_iters: 99999999999",
            "21: stages.train.train_iters: 99999999999 is out of range: at most 1000000000",
        ),
        (
            "ranks_per_node: 4",
            "ranks_per_node: 6",
            "17: stages.train.ranks_per_node: 6 ranks are no multiple of tp x pp = 2 x 2 | use a multiple of 4 ranks",
        ),
        (
            "global_batch_size: 64",
            "global_batch_size: 63\n    seed: 5000000000",
            "21: stages.train.seed: 5000000000 is out of range: at most 4294967295",
        ),
        ("lr: 1.25e-6", "lr: 0", "24: stages.train.lr: `0` is no learning rate"),
        ("lr: 1.25e-6", "lr: 1e-9", "24: stages.train.lr: min_lr 1.25e-7 is above lr 1e-9"),
        ("workers: 4", "workers: 0", "12: stages.preprocess.workers: 0 is out of range: at least 1"),
        // Contradictions.
        (
            "resume: weights",
            "resume: exact",
            "25: stages.train.resume: `exact` is impossible beside the tutorial's --no-save-optim | add `checkpoint_optimizer: true`, or use `resume: weights`",
        ),
        (
            "./pretrain_ckpt/nonrecompute",
            "model_weights/qwen2.5_mcore/",
            "23: stages.train.save_dir: training would write over the converted checkpoint",
        ),
        (
            "args: []",
            "args: [--save, x]",
            "26: stages.train.args.0: `--save` is decided by `stages.train.save_dir`; two values would disagree | set `stages.train.save_dir` instead",
        ),
        (
            "args: []",
            "args: [--tensor-model-parallel-size=4]",
            "26: stages.train.args.0: `--tensor-model-parallel-size` is decided by `parallel.tp`",
        ),
        (
            "args: []",
            "without: [--num-layer]",
            "26: stages.train.without.0: `--num-layer` is not among the derived flags | did you mean `--num-layers`?",
        ),
        (
            "from: train",
            "from: trian",
            "27: stages.export.from: no stage `trian` writes a checkpoint | did you mean `train`?",
        ),
        ("from: train", "from: preprocess", "27: stages.export.from: no stage `preprocess` writes a checkpoint"),
        (
            "CUDA_DEVICE_MAX_CONNECTIONS",
            "RANK_ID",
            "8: runtime.env.RANK_ID: `RANK_ID` is set for each process by its launcher | remove it",
        ),
        ("CUDA_DEVICE_MAX_CONNECTIONS", "\"A B\"", "8: runtime.env.A B: `A B` is no name of a variable"),
        ("workers: 4", "json_keys: [a/b]", "12: stages.preprocess.json_keys.0: `a/b` cannot be part of a file's name"),
        ("workers: 4", "json_keys: [a, a]", "12: stages.preprocess.json_keys.1: the column `a` is given twice"),
        ("workers: 4", "json_keys: []", "12: stages.preprocess.json_keys: 0 columns; between 1 and 16 can be read"),
        // The order of stages.
        (
            "workers: 4",
            "after: [convrt]",
            "12: stages.preprocess.after.0: there is no stage `convrt` | did you mean `convert`?",
        ),
        ("workers: 4", "after: [preprocess]", "12: stages.preprocess.after.0: stage `preprocess` waits for itself"),
        (
            "workers: 4",
            "after: [export]",
            "12: stages.preprocess: stages wait for each other in a circle: preprocess -> export -> train -> preprocess",
        ),
        // Stages of one's own.
        (
            "  export: { from: train, iteration: latest }",
            "  Say_It: { run: { argv: [x] } }",
            "27: stages.Say_It: `Say_It` is no valid name: lower-case letters, digits and hyphens, at most 31 | try `say-it`",
        ),
        (
            "  export: { from: train, iteration: latest }",
            "  hello: { run: { argv: [] } }",
            "27: stages.hello.run.argv: there is no program to run | as in `argv: [echo, hello]`",
        ),
        (
            "  export: { from: train, iteration: latest }",
            "  hello: {}",
            "27: stages.hello.run: this key is missing | say what is run",
        ),
        (
            "  export: { from: train, iteration: latest }",
            "  hello: { run: { argv: [x], count: 2000000 } }",
            "27: stages.hello.run.count: 2000000 is out of range: at most 1000000",
        ),
        (
            "  export: { from: train, iteration: latest }",
            "  hello: { run: { argv: [x] }, retries: 1000 }",
            "27: stages.hello.retries: 1000 is out of range: at most 100",
        ),
        (
            "recompute: none",
            "retries: many",
            "22: stages.train.retries: expected a whole number, 0 or more, or { max: 3, window: 24h, backoff: 1s }, found the text `many`",
        ),
        (
            "recompute: none",
            "retries: { max: 3, windw: 1h }",
            "22: stages.train.retries.windw: unknown key `windw` | did you mean `window`?",
        ),
        ("recompute: none", "retries: { max: 101 }", "22: stages.train.retries.max: 101 is out of range: at most 100"),
        (
            "recompute: none",
            "retries: { window: 90 }",
            "22: stages.train.retries.window: `90` is no time: a whole number with the unit ms, s, m, h or d | add the unit, as in `90s`",
        ),
        (
            "recompute: none",
            "retries: { window: 1h30m }",
            "22: stages.train.retries.window: `1h30m` is no time: a whole number with the unit ms, s, m, h or d | as in `500ms`",
        ),
        (
            "recompute: none",
            "retries: { window: 31d }",
            "22: stages.train.retries.window: `31d` is out of range: at most 30d",
        ),
        (
            "recompute: none",
            "retries: { backoff: 50ms }",
            "22: stages.train.retries.backoff: `50ms` is out of range: at least 100ms",
        ),
        (
            "recompute: none",
            "retries: { max: 5, window: 30s }",
            "22: stages.train.retries: a crash loop would never end: the pauses of 5 tries take 31s, and by then the first failures are forgotten | take a longer `window`",
        ),
    ];
    let mut failures = Vec::new();
    for (from, to, want) in cases {
        let said = said(&changed(from, to));
        // One mistake, one message.
        if said.len() != 1 || !said[0].starts_with(want) {
            failures.push(format!("{from} -> {to}\nwant {want}\nsaid {said:#?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn batch_sizes_that_do_not_divide_name_their_neighbours() {
    let text =
        changed("global_batch_size: 64", "global_batch_size: 65").replace("ranks_per_node: 4", "ranks_per_node: 8");
    assert_eq!(
        said(&text),
        ["20: stages.train.global_batch_size: 65 is no multiple of micro_batch_size x dp = 1 x 2 | use 64 or 66"]
    );
}

#[test]
fn a_tensor_parallel_group_stays_on_its_node() {
    let text = changed("nodes: 1\n    ranks_per_node: 4", "nodes: 4\n    ranks_per_node: 1");
    assert_eq!(
        said(&text),
        [
            "17: stages.train.ranks_per_node: 1 ranks a node are no multiple of tp = 2, so a tensor-parallel group would leave its node | use a multiple of 2"
        ]
    );
}

#[test]
fn all_mistakes_are_told_at_once_in_the_files_order() {
    let text = changed("tp: 2", "tp: two")
        .replace("workers: 4", "wrokers: 4")
        .replace("seq_length: 10240", "seq_length: 0")
        .replace("train_iters: 3", "train_iters: x")
        .replace("name: qwen25-7b-pretrain", "name: A");
    assert_eq!(
        said(&text),
        [
            "1: name: `A` is no valid name: lower-case letters, digits and hyphens, at most 63 | try `a`",
            "3: parallel.tp: expected a whole number from 0 to 4294967295, found the text `two`",
            "12: stages.preprocess.wrokers: unknown key `wrokers` | did you mean `workers`?",
            "18: stages.train.seq_length: 0 is out of range: at least 1",
            "21: stages.train.train_iters: expected a whole number, 0 or more, found the text `x`",
        ]
    );
}

#[test]
fn many_mistakes_are_told_up_to_a_bound() {
    let text: String = (0..5000).map(|i| format!("key{i}: 1\n")).collect();
    assert_eq!(said(&text).len(), 20);
}

#[test]
fn files_without_work_are_refused() {
    assert_eq!(said(""), ["1: : the file is empty | start with `name:` and `stages:`"]);
    assert!(said("[1, 2]")[0].starts_with("1: : expected a mapping of keys, found a list"), "{:?}", said("[1, 2]"));
    assert!(said("name: x")[0].starts_with("1: stages: there is no stage"), "{:?}", said("name: x"));
    assert_eq!(said("name: x\nstages: 3"), ["2: stages: expected a mapping of stages, found the number `3`"]);
    assert!(said("name: x\nstages: {}")[0].starts_with("2: stages: there is no stage"));
}

#[test]
fn training_needs_something_to_read() {
    let bare = "name: x\nworkdir: /w\nmodel: { hf_dir: m }\nstages:\n  train: { seq_length: 8, global_batch_size: 1, train_iters: 1, save_dir: c, expect_pretrained: true }\n";
    assert_eq!(
        said(bare),
        [
            "5: stages.train.data_path: there are no token files to train on | add a `preprocess` stage, or `data_path`",
            "5: stages.train.expect_pretrained: no checkpoint is loaded, so training starts from random weights | add a `convert` stage or `load_dir`, or say `expect_pretrained: false`",
        ]
    );
}

#[test]
fn doubtful_values_are_warnings() {
    let spec = parse_with(
        TUTORIAL,
        &[
            ("stages.train.args", "[--weight-decay, 0.2]"),
            ("runtime.env.HF_TOKEN", "x"),
            ("dataset.files", "[a.jsonl, a.jsonl]"),
        ],
    )
    .unwrap();
    let warnings: Vec<&str> = spec.warnings.iter().map(|warning| warning.message.as_str()).collect();
    assert_eq!(
        warnings,
        [
            "`a.jsonl` is given twice, so its text counts twice",
            "`HF_TOKEN` looks like a secret; specs are stored and shown",
            "`--weight-decay` is derived too; this one comes later and counts",
        ]
    );
}

#[test]
fn json_is_read_by_the_same_reader() {
    let json = r#"{
        "name": "hello",
        "stages": {
            "say": {"run": {"argv": ["echo", 1.50, true], "count": 3}},
            "again": {"run": {"argv": ["echo"]}, "after": ["say"]}
        }
    }"#;
    let spec = spec::parse(json, "p.json").unwrap();
    let names: Vec<&str> = spec.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["say", "again"]);
    let spec::spec::StageBody::Run(run) = &spec.stages[0].body else { panic!("no run stage") };
    assert_eq!((run.argv.join(" "), run.count, run.ranks), ("echo 1.50 true".to_owned(), 3, 1));
    let problems = spec::parse(&json.replace("count", "cuont"), "p.json").unwrap_err();
    assert_eq!(
        spec::render(&problems),
        "p.json:4: stages.say.run.cuont: unknown key `cuont`\n  hint: did you mean `count`?"
    );
}
