//! Stages, tasks and digests.

use std::collections::BTreeMap;

use model::Retries;
use spec::plan::{Body, Kind, Pipeline, Survey, TrainBody, compile, outline, wanted};
use spec::{Problem, Spec};

use crate::support::{Set, TUTORIAL, parse_with, survey, tutorial, with};

/// What is different about a survey.
type Change = fn(&mut Survey);

fn compiled(spec: &Spec) -> Pipeline {
    compile(spec, &survey()).unwrap_or_else(|problems| panic!("{}", spec::render(&problems)))
}

fn digests(pipeline: &Pipeline) -> BTreeMap<String, Option<[u8; 32]>> {
    pipeline.stages.iter().map(|stage| (stage.name.clone(), stage.digest)).collect()
}

fn messages(problems: &[Problem]) -> Vec<String> {
    problems
        .iter()
        .map(|p| {
            format!(
                "{}: {}: {}{}",
                p.line,
                p.path,
                p.message,
                p.hint.as_ref().map(|h| format!(" | {h}")).unwrap_or_default()
            )
        })
        .collect()
}

fn train_body(pipeline: &Pipeline) -> &TrainBody {
    let stage = pipeline.stages.iter().find(|stage| stage.kind == Kind::Train).unwrap();
    let Body::Train(body) = &stage.tasks[0].body else { panic!("no training") };
    body
}

#[test]
fn the_tutorial_becomes_five_stages() {
    let pipeline = compiled(&tutorial());
    let seen: Vec<(&str, Kind, Vec<&str>, usize, bool)> = pipeline
        .stages
        .iter()
        .map(|s| {
            (s.name.as_str(), s.kind, s.after.iter().map(String::as_str).collect(), s.tasks.len(), s.closing.is_some())
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("preflight", Kind::Preflight, vec![], 1, false),
            ("convert", Kind::Convert, vec!["preflight"], 4, true),
            ("preprocess", Kind::Preprocess, vec!["preflight"], 2, true),
            ("train", Kind::Train, vec!["convert", "preprocess"], 1, false),
            ("export", Kind::Export, vec!["train"], 1, false),
        ]
    );
    let convert = &pipeline.stages[1];
    let labels: Vec<&str> = convert.tasks.iter().map(|task| task.label.as_str()).collect();
    assert_eq!(labels, ["pp 0, tp 0", "pp 0, tp 1", "pp 1, tp 0", "pp 1, tp 1"]);
    assert!(convert.tasks.iter().all(|task| task.slots_per_rank == 0 && task.weight_bytes > 3_000_000_000));
    let shards: Vec<&str> = pipeline.stages[2].tasks.iter().map(|task| task.label.as_str()).collect();
    assert_eq!(
        shards,
        [
            "shard 1 of 2: train-00000-of-00001-a09b74b3ef9c3b56.parquet rows 0..500",
            "shard 2 of 2: train-00000-of-00001-a09b74b3ef9c3b56.parquet rows 500..1000",
        ]
    );
    let train = &pipeline.stages[3].tasks[0];
    assert_eq!((train.nodes, train.ranks_per_node, train.slots_per_rank, train.retries), (1, 4, 1, Retries::new(3)));
    let body = train_body(&pipeline);
    assert_eq!(body.load_dir.as_deref(), Some("./model_weights/qwen2.5_mcore"));
    assert_eq!(body.expect_pretrained, Some(152_064));
    assert_eq!(body.scheduler[0], "/data/venvs/ms271/bin/python");
    assert_eq!(body.scheduler[2], "from mindspore.communication import init; init()");
    assert!(pipeline.stages[0].tasks[0].per_node);
    let Body::Preflight(checks) = &pipeline.stages[0].tasks[0].body else { panic!("no checks") };
    assert_eq!(checks.ranks_per_node, 4);
    assert!(checks.needs_mindspore);
    assert_eq!(checks.inputs, ["./dataset/train-00000-of-00001-a09b74b3ef9c3b56.parquet", "./qwen2.5_7b_hf"]);
}

#[test]
fn restarts_go_on_from_the_save_directory() {
    let spec = with(&[("stages.train.checkpoint_optimizer", "true"), ("stages.train.resume", "")]);
    let body = train_body(&compiled(&spec)).clone();
    let line = body.resume_arguments(15).join(" ");
    assert!(line.contains("--load ./pretrain_ckpt/nonrecompute --save ./pretrain_ckpt/nonrecompute"), "{line}");
    assert!(line.contains("--ckpt-step 15") && !line.contains("--no-load-optim"), "{line}");
    let body = train_body(&compiled(&tutorial())).clone();
    assert!(body.resume_arguments(15).join(" ").contains("--no-load-optim"));
    let body = train_body(&compiled(&with(&[("stages.train.resume", "never")]))).clone();
    assert_eq!(body.resume_arguments(15), body.arguments);
}

#[test]
fn stages_of_ones_own_run_beside_and_between() {
    let text = "name: x\nstages:\n  last: { run: { argv: [echo, b] }, after: [first] }\n  first: { run: { argv: [echo, a], count: 100000, ranks: 2, slots: 1 }, retries: 1, env: { A: 1 } }\n";
    let pipeline = compile(&parse_with(text, &[]).unwrap(), &Survey::default()).unwrap();
    let names: Vec<&str> = pipeline.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["first", "last"]);
    let task = &pipeline.stages[0].tasks[0];
    assert_eq!((task.copies, task.ranks_per_node, task.slots_per_rank, task.retries), (100_000, 2, 1, Retries::new(1)));
    assert_eq!(pipeline.stages[0].env["A"], "1");
    assert_eq!(pipeline.stages[0].digest, None);
    // What comes after a command of the user's own may depend on it.
    let spec = with(&[("stages.fetch", "{ run: { argv: [x] } }"), ("stages.convert.after", "[fetch]")]);
    let digests = digests(&compiled(&spec));
    assert_eq!((digests["convert"], digests["train"]), (None, None));
    assert!(digests["preprocess"].is_some());
}

#[test]
fn digests_do_not_depend_on_the_order_of_keys() {
    let base = digests(&compiled(&tutorial()));
    let mut lines: Vec<&str> = TUTORIAL.lines().collect();
    let last = lines.len() - 2;
    lines[15..last].reverse();
    lines.swap(0, 3);
    let shuffled = lines.join("\n");
    assert_ne!(shuffled, TUTORIAL);
    assert_eq!(digests(&compiled(&parse_with(&shuffled, &[]).unwrap())), base);
    for stage in ["convert", "preprocess", "train", "export"] {
        assert!(base[stage].is_some(), "{stage}");
    }
    assert_eq!(base["preflight"], None);
}

#[test]
fn a_digest_changes_with_what_decides_the_result_and_with_nothing_else() {
    let base = digests(&compiled(&tutorial()));
    let all = ["convert", "preprocess", "train", "export"];
    let cases: &[(&str, &str, &[&str])] = &[
        ("name", "other", &[]),
        ("priority", "5", &[]),
        ("stages.train.retries", "1", &[]),
        ("stages.preprocess.workers", "1", &[]),
        ("stages.preprocess.shards", "4", &[]),
        ("stages.convert.dtype", "fp16", &["convert", "train", "export"]),
        ("stages.convert.save_dir", "./w2", &["convert", "train", "export"]),
        ("stages.preprocess.append_eod", "true", &["preprocess", "train", "export"]),
        ("stages.train.lr", "2e-6", &["train", "export"]),
        ("stages.train.log_interval", "5", &["train", "export"]),
        ("stages.train.env.X", "1", &["train", "export"]),
        ("runtime.env.X", "1", &["train", "export"]),
        ("runtime.python", "python3.11", &["train", "export"]),
        ("stages.export.save_dir", "./out", &["export"]),
        ("workdir", "/elsewhere", &all),
    ];
    for (path, value, want) in cases {
        let now = digests(&compiled(&with(&[(path, value)])));
        for stage in all {
            assert_eq!(now[stage] != base[stage], want.contains(&stage), "{path}={value}: {stage}");
        }
    }
    let surveys: &[(&str, Change, &[&str])] = &[
        ("model", |s| s.model.as_mut().unwrap().digest.push('x'), &["convert", "train", "export"]),
        ("text", |s| s.dataset[0].digest.push('x'), &["preprocess", "train", "export"]),
        ("tokenizer", |s| s.tokenizer.as_mut().unwrap().digest.push('x'), &["preprocess", "train", "export"]),
        ("script", |s| s.script.as_mut().unwrap().digest.push('x'), &["train", "export"]),
        ("agents", |s| s.agents = 9, &[]),
    ];
    for (what, change, want) in surveys {
        let mut survey = survey();
        change(&mut survey);
        let now = digests(&compile(&tutorial(), &survey).unwrap());
        for stage in all {
            assert_eq!(now[stage] != base[stage], want.contains(&stage), "{what}: {stage}");
        }
    }
}

#[test]
fn what_is_not_known_by_content_is_never_taken_over() {
    let mut unseen = survey();
    unseen.script = None;
    let now = digests(&compile(&tutorial(), &unseen).unwrap());
    assert!(now["convert"].is_some() && now["train"].is_none() && now["export"].is_none());
    let now = digests(&compiled(&with(&[("stages.train.load_dir", "./elsewhere")])));
    assert_eq!(now["train"], None);
}

#[test]
fn what_contradicts_the_survey_is_refused_at_its_line() {
    let cases: &[(&[Set<'_>], Change, &str)] = &[
        (
            &[],
            |s| s.model.as_mut().unwrap().shape.num_query_groups = 1,
            "3: parallel.tp: tp 2 does not divide num_key_value_heads = 1 | tp may be 1",
        ),
        (
            &[],
            |s| s.model.as_mut().unwrap().shape.num_layers = 27,
            "3: parallel.pp: pp 2 does not divide num_hidden_layers = 27 | pp may be 1, 3, 9, 27",
        ),
        (
            &[("parallel.num_layer_list", "[13, 14]")],
            |_| {},
            "0: parallel.num_layer_list: num_layer_list 13,14 does not deal 28 layers to 2 stages | give 2 numbers of at least 1 that add up to 28, such as 14,14",
        ),
        (
            &[("parallel.num_layers_per_virtual_pipeline_stage", "4")],
            |_| {},
            "0: parallel.num_layers_per_virtual_pipeline_stage: num_layers_per_virtual_pipeline_stage 4 does not cut a stage's 14 layers into several chunks | num_layers_per_virtual_pipeline_stage may be 1, 2, 7",
        ),
        (
            &[("parallel.noop_layers", "[28, 40]")],
            |_| {},
            "0: parallel.noop_layers: noop_layers names slot 40; there are slots 0 to 29",
        ),
        (
            &[("stages.convert.convention", "v2")],
            |s| s.model.as_mut().unwrap().shape.vocab_size = 152_063,
            "0: stages.convert.convention: tp 2 does not divide vocab_size = 152063, and v2 does not pad it | say `convention: v1`",
        ),
        (
            &[],
            |s| s.dataset[0].columns[3] = "texts".into(),
            "5: dataset.files.0: `./dataset/train-00000-of-00001-a09b74b3ef9c3b56.parquet` has no column `text` | did you mean `texts`?",
        ),
        (
            &[("stages.preprocess.handler", "alpaca_instruction")],
            |s| s.dataset[0].columns[2] = "outputs".into(),
            "5: dataset.files.0: `./dataset/train-00000-of-00001-a09b74b3ef9c3b56.parquet` has no column `output` | rename the column `outputs`, or choose another stages.preprocess.handler",
        ),
        (
            &[("stages.preprocess.handler", "alpaca_instruction")],
            |s| s.dataset[0].columns = vec!["text".into(), "output".into()],
            "5: dataset.files.0: `./dataset/train-00000-of-00001-a09b74b3ef9c3b56.parquet` has no column `instruction` | choose another stages.preprocess.handler: this one reads instruction, input and output",
        ),
        (&[], |s| s.dataset.clear(), "5: dataset.files.0: no agent could read `./dataset/"),
        (&[], |s| s.dataset[0].rows = Some(0), "5: dataset.files: the input has no rows"),
        (
            &[],
            |s| s.tokenizer = None,
            "4: model.hf_dir: no agent could read a tokenizer in `./qwen2.5_7b_hf` | the directory needs tokenizer.json",
        ),
        (
            &[],
            |s| s.tokenizer.as_mut().unwrap().vocab_size = Some(200_000),
            "4: model.hf_dir: the tokenizer has 200000 ids, the model's embedding 152064 rows",
        ),
        (
            &[("stages.preprocess.append_eod", "true")],
            |s| s.tokenizer.as_mut().unwrap().eos = None,
            "0: stages.preprocess.append_eod: the tokenizer in `./qwen2.5_7b_hf` has no end-of-text token",
        ),
        (
            &[("stages.train.recompute", "{ granularity: full, num_layers: 15 }")],
            |_| {},
            "0: stages.train.recompute.num_layers: 15 layers are recomputed, but a pipeline stage has 14 | use at most 14",
        ),
        (
            &[],
            |s| s.model = None,
            "4: model.hf_dir: no agent could read a model in `./qwen2.5_7b_hf`, which stage `convert` needs",
        ),
    ];
    for (overrides, change, want) in cases {
        let mut survey = survey();
        change(&mut survey);
        let said = messages(&compile(&with(overrides), &survey).unwrap_err());
        assert!(said.iter().any(|line| line.starts_with(want)), "want {want}\nsaid {said:#?}");
    }
}

#[test]
fn instructions_need_no_inputs() {
    let mut survey = survey();
    survey.dataset[0].columns = vec!["instruction".into(), "output".into()];
    for handler in ["alpaca_instruction", "alpaca_pretrain"] {
        let spec = with(&[("stages.preprocess.handler", handler)]);
        let planned = compile(&spec, &survey);
        assert!(planned.is_ok(), "{handler}: {:#?}", messages(&planned.unwrap_err()));
    }
}

#[test]
fn doubts_about_training_are_warnings_of_its_stage() {
    let spec = with(&[
        ("stages.train.seq_length", "40000"),
        ("stages.train.checkpoint_optimizer", "true"),
        ("stages.convert.dtype", "bf16"),
    ]);
    let pipeline = compiled(&spec);
    let said: Vec<&str> = pipeline.stages[3].warnings.iter().map(|warning| warning.message.as_str()).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("max_position_embeddings = 32768") && said[1].contains("--use-distributed-optimizer"));
}

#[test]
fn agents_are_asked_for_what_stages_need() {
    let all = wanted(&tutorial());
    assert_eq!(all.model.as_deref(), Some("./qwen2.5_7b_hf"));
    assert_eq!((all.dataset.len(), all.script.as_deref()), (1, Some("pretrain_gpt.py")));
    let rooted = wanted(&with(&[("runtime.mindspeed_root", "/r")]));
    assert_eq!(rooted.script.as_deref(), Some("/r/MindSpeed-LLM/pretrain_gpt.py"));
    let none = wanted(&parse_with("name: x\nstages: { a: { run: { argv: [x] } } }", &[]).unwrap());
    assert_eq!(none, spec::plan::Wanted::default());
}

#[test]
fn an_outline_says_what_it_could_not_see() {
    let outline = outline(&tutorial(), &Survey::default()).unwrap();
    assert_eq!(outline.unseen.len(), 4, "{:#?}", outline.unseen);
    let names: Vec<&str> = outline.pipeline.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["preflight", "convert", "preprocess", "train", "export"]);
    assert!(outline.pipeline.stages.iter().all(|stage| stage.digest.is_none()));
    let line = train_body(&outline.pipeline).arguments.join(" ");
    assert!(line.contains("--num-layers <num_hidden_layers> --hidden-size <hidden_size>"), "{line}");
    assert!(line.contains("--seq-length 10240") && !line.contains("18944") && !line.contains("152064"), "{line}");
    assert!(!line.contains("--kv-channels"), "{line}");
    let full = spec::plan::outline(&tutorial(), &survey()).unwrap();
    assert_eq!((full.unseen.len(), full.pipeline), (0, compiled(&tutorial())));
}
