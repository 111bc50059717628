//! Command lines, argument for argument.

use std::path::PathBuf;

use spec::arguments::{convert, export, msrun, preprocess, train};

use crate::support::{qwen7b, tutorial, with, words};

/// The tutorial's first scenario behind `pretrain_gpt.py`.
const NO_RECOMPUTE: &str = "
    --use-mcore-models --tensor-model-parallel-size 2 --pipeline-model-parallel-size 2 --sequence-parallel
    --num-layers 28 --hidden-size 3584 --ffn-hidden-size 18944 --num-attention-heads 28
    --max-position-embeddings 10240 --seq-length 10240 --disable-bias-linear --add-qkv-bias
    --group-query-attention --num-query-groups 4 --use-flash-attn --swiglu --use-fused-swiglu
    --normalization RMSNorm --norm-epsilon 1e-6 --use-fused-rmsnorm --position-embedding-type rope
    --rotary-base 1000000 --use-fused-rotary-pos-emb --untie-embeddings-and-output-weights
    --micro-batch-size 1 --global-batch-size 64 --make-vocab-size-divisible-by 1 --padded-vocab-size 152064
    --tokenizer-type PretrainedFromHF --tokenizer-name-or-path ./qwen2.5_7b_hf
    --attention-dropout 0.0 --hidden-dropout 0.0 --train-iters 3 @RECOMPUTE@
    --lr 1.25e-6 --lr-decay-style cosine --min-lr 1.25e-7 --lr-warmup-fraction 0.01 --init-method-std 0.01
    --weight-decay 1e-1 --clip-grad 1.0 --adam-beta1 0.9 --adam-beta2 0.95 --initial-loss-scale 4096
    --no-gradient-accumulation-fusion --no-masked-softmax-fusion --attention-softmax-in-fp32 --bf16
    --data-path ./dataset/alpaca_text_document --split 100,0,0
    --no-load-optim --no-load-rng --no-save-optim --no-save-rng --seed 1234
    --log-interval 1 --save-interval 2000 --eval-interval 2000 --eval-iters 0 --log-throughput
    --distributed-backend nccl --load ./model_weights/qwen2.5_mcore/iter_0000001 --save @SAVE@
    --ai-framework mindspore";

const RECOMPUTE: &str = "--recompute-granularity full --recompute-method uniform --recompute-num-layers 1";

fn scenario(recompute: bool) -> spec::Spec {
    if recompute {
        with(&[
            ("stages.train.recompute", "{ granularity: full, method: uniform, num_layers: 1 }"),
            ("stages.train.save_dir", "./pretrain_ckpt/compute"),
        ])
    } else {
        tutorial()
    }
}

pub(crate) fn reference(recompute: bool) -> Vec<String> {
    let spec = scenario(recompute);
    train::reference_arguments(&spec, spec.train().unwrap(), &qwen7b())
}

#[test]
fn both_scenarios_are_the_tutorials_word_for_word() {
    let plain = NO_RECOMPUTE.replace("@RECOMPUTE@", "").replace("@SAVE@", "./pretrain_ckpt/nonrecompute");
    assert_eq!(reference(false), words(&plain));
    let recompute = NO_RECOMPUTE.replace("@RECOMPUTE@", RECOMPUTE).replace("@SAVE@", "./pretrain_ckpt/compute");
    assert_eq!(reference(true), words(&recompute));
}

pub(crate) fn reference_data() -> PathBuf {
    std::env::var_os("QCTL_REFERENCE_DATA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"), PathBuf::from)
}

#[test]
fn both_scenarios_equal_the_recorded_command_lines() {
    let dir = reference_data().join("golden/argv");
    if !dir.is_dir() {
        println!("skipped: no recorded command lines in {}", dir.display());
        return;
    }
    let mut compared = 0;
    for (file, recompute) in [("scenario1_no_recompute.txt", false), ("scenario2_recompute.txt", true)] {
        let recorded = std::fs::read_to_string(dir.join(file)).unwrap();
        let recorded: Vec<String> = recorded.lines().map(str::to_owned).collect();
        let script = recorded.iter().position(|word| word == "pretrain_gpt.py").unwrap();
        assert_eq!(msrun::msrun_arguments(&seat()), recorded[..script], "{file}");
        assert_eq!(reference(recompute), recorded[script + 1..], "{file}");
        compared += 1;
    }
    println!("compared {compared} recorded command lines");
    assert_eq!(compared, 2);
}

fn seat() -> msrun::Seat {
    msrun::Seat {
        worker_num: 4,
        local_worker_num: 4,
        master_addr: "localhost".into(),
        master_port: "6000".into(),
        node_rank: "0".into(),
    }
}

#[test]
fn msrun_gets_the_tutorials_words() {
    let want =
        "--worker_num 4 --local_worker_num 4 --master_addr localhost --master_port 6000 --node_rank 0 --join=False";
    assert_eq!(msrun::msrun_arguments(&seat()), words(want));
}

#[test]
fn the_converter_gets_the_tutorials_words() {
    let spec =
        with(&[("model.hf_dir", "./qwen2.5_7b_hf/"), ("stages.convert.save_dir", "./model_weights/qwen2.5_mcore/")]);
    let convert = spec.convert().unwrap();
    let want = "--use-mcore-models --model-type GPT --load-model-type hf --save-model-type mg
        --target-tensor-parallel-size 2 --target-pipeline-parallel-size 2 --add-qkv-bias
        --load-dir ./qwen2.5_7b_hf/ --save-dir ./model_weights/qwen2.5_mcore/
        --tokenizer-model ./qwen2.5_7b_hf/tokenizer.json --model-type-hf llama2 --params-dtype bf16";
    assert_eq!(convert::arguments(&spec, convert, &qwen7b()), words(want));
    let shard = convert::shard_arguments(&spec, convert, &qwen7b(), 1, 0);
    assert_eq!(shard, words(&format!("{want} --only-shard 1,0 --progress json")));
    assert_eq!(
        convert::publish_arguments(&spec, convert),
        words(
            "publish --save-dir ./model_weights/qwen2.5_mcore/ --target-tensor-parallel-size 2
             --target-pipeline-parallel-size 2 --progress json"
        )
    );
}

#[test]
fn the_preprocessor_gets_the_tutorials_words() {
    let spec = with(&[("model.hf_dir", "./qwen2.5_7b_hf/")]);
    let preprocess = spec.preprocess().unwrap();
    let input = &spec.dataset[0];
    let want = "--input ./dataset/train-00000-of-00001-a09b74b3ef9c3b56.parquet
        --tokenizer-name-or-path ./qwen2.5_7b_hf/ --output-prefix ./dataset/alpaca
        --tokenizer-type PretrainedFromHF --workers 4 --log-interval 1000";
    assert_eq!(preprocess::arguments(&spec, preprocess, input), words(want));
    let rows = preprocess::Part::Rows { start: 10, end: 20 };
    let shard = preprocess::shard_arguments(&spec, preprocess, &[input], rows);
    let want = want.replace("--output-prefix ./dataset/alpaca", "");
    assert_eq!(shard, words(&format!("{want} --rows 10..20 --progress json")));
}

#[test]
fn the_preprocessors_other_keys_become_flags() {
    let spec = with(&[
        ("stages.preprocess.json_keys", "[text, output]"),
        ("stages.preprocess.append_eod", "true"),
        ("stages.preprocess.seq_length", "128"),
        ("stages.preprocess.workers", "2"),
    ]);
    let preprocess = spec.preprocess().unwrap();
    let line = preprocess::arguments(&spec, preprocess, "x").join(" ");
    assert!(
        line.ends_with("--workers 2 --log-interval 1000 --json-keys text output --append-eod --seq-length 128"),
        "{line}"
    );
    assert_eq!(
        preprocess::merge_arguments(&spec, preprocess),
        words("merge --output-prefix ./dataset/alpaca --json-keys text output --remove-parts --progress json")
    );
    assert_eq!(train::data_path(&spec, spec.train().unwrap()).unwrap(), "./dataset/alpaca_text_document");
}

#[test]
fn instructions_are_encoded_by_shards_and_packed_by_the_closing_task() {
    let spec = with(&[
        ("stages.preprocess.handler", "alpaca_instruction"),
        ("stages.preprocess.seq_length", "4096"),
        ("stages.preprocess.pack", "true"),
        ("model.hf_dir", "./hf"),
    ]);
    let preprocess = spec.preprocess().unwrap();
    let handler = "--handler-name AlpacaStyleInstructionHandler --prompt-type qwen --seq-length 4096";
    let line = preprocess::arguments(&spec, preprocess, "x").join(" ");
    assert!(line.ends_with(&format!("{handler} --pack")), "{line}");
    let part = preprocess::Part::Bytes { start: 0, end: 9 };
    let line = preprocess::shard_arguments(&spec, preprocess, &["x"], part).join(" ");
    assert!(line.ends_with(&format!("{handler} --byte-range 0..9 --progress json")), "{line}");
    assert_eq!(
        preprocess::merge_arguments(&spec, preprocess),
        words(
            "merge --output-prefix ./dataset/alpaca --json-keys packed_input_ids packed_attention_mask packed_labels
             --pack --seq-length 4096 --tokenizer-name-or-path ./hf --remove-parts --progress json"
        )
    );
    // The trainer appends the rest of the names.
    assert_eq!(train::data_path(&spec, spec.train().unwrap()).unwrap(), "./dataset/alpaca");
}

#[test]
fn the_way_back_reads_what_training_saved() {
    let spec = tutorial();
    let spec::spec::StageBody::Export(body) = &spec.stage("export").unwrap().body else { panic!("no export") };
    assert_eq!(
        export::arguments(&spec, body),
        words(
            "--load-model-type mg --save-model-type hf --load-dir ./pretrain_ckpt/nonrecompute --iteration latest
             --hf-dir ./qwen2.5_7b_hf --out ./qwen2.5_7b_hf/mg2hf --progress json"
        )
    );
    let spec = with(&[("stages.export", "{ from: convert, iteration: 1, save_dir: ./out }")]);
    let spec::spec::StageBody::Export(body) = &spec.stage("export").unwrap().body else { panic!("no export") };
    let line = export::arguments(&spec, body).join(" ");
    assert!(line.contains("--load-dir ./model_weights/qwen2.5_mcore --iteration 1 "), "{line}");
    assert!(line.contains("--out ./out/mg2hf "), "{line}");
}

#[test]
fn what_differs_in_a_model_differs_in_its_flags() {
    let spec = with(&[("stages.convert.make_vocab_size_divisible_by", "128"), ("stages.convert.dtype", "fp16")]);
    let shape = model::ModelShape {
        tied: true,
        qkv_bias: false,
        qk_norm: true,
        num_query_groups: 28,
        kv_channels: 64,
        vocab_size: 1003,
        rms_norm_eps: 1e-5,
        rope_theta: 10000.0,
        ..qwen7b()
    };
    let line = train::reference_arguments(&spec, spec.train().unwrap(), &shape).join(" ");
    for present in [
        "--qk-layernorm",
        "--kv-channels 64",
        "--make-vocab-size-divisible-by 128 --padded-vocab-size 1024",
        "--norm-epsilon 1e-5",
        "--rotary-base 10000",
        "--fp16",
    ] {
        assert!(line.contains(present), "{present} is not in {line}");
    }
    for absent in ["--untie", "--add-qkv-bias", "--group-query-attention", "--num-query-groups", "--bf16"] {
        assert!(!line.contains(absent), "{absent} is in {line}");
    }
    let convert = convert::arguments(&spec, spec.convert().unwrap(), &shape).join(" ");
    assert!(convert.ends_with("--params-dtype fp16 --make-vocab-size-divisible-by 128"), "{convert}");
    assert!(!convert.contains("--add-qkv-bias"), "{convert}");
}

#[test]
fn layers_are_dealt_alike_in_conversion_and_training() {
    let lines = |overrides: &[(&str, &str)]| {
        let spec = with(overrides);
        let (convert, train) = (spec.convert().unwrap(), spec.train().unwrap());
        [
            convert::arguments(&spec, convert, &qwen7b()).join(" "),
            train::reference_arguments(&spec, train, &qwen7b()).join(" "),
        ]
    };
    for line in lines(&[("parallel.num_layer_list", "[13, 15]")]) {
        assert!(line.contains("--num-layer-list 13,15 "), "{line}");
    }
    let [convert, train] =
        lines(&[("parallel.num_layers_per_virtual_pipeline_stage", "5"), ("parallel.noop_layers", "[28, 29]")]);
    for line in [&convert, &train] {
        assert!(line.contains("--num-layers-per-virtual-pipeline-stage 5 --noop-layers 28,29 "), "{line}");
    }
    assert!(train.contains(" --num-layers 30 ") && !convert.contains("--num-layers 30"), "{train}");
    let [convert, _] = lines(&[("stages.convert.convention", "v2")]);
    assert!(convert.ends_with(" --convention v2"), "{convert}");
}
