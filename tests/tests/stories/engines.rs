//! The engines here and now, with no controller, under the reference tools' own flags.

use std::fs;

use stories::input::{self, Shape, tensors};
use stories::lab::Lab;

const CONVERT: [&str; 20] = [
    "convert",
    "--use-mcore-models",
    "--model-type",
    "GPT",
    "--load-model-type",
    "hf",
    "--save-model-type",
    "mg",
    "--target-tensor-parallel-size",
    "2",
    "--target-pipeline-parallel-size",
    "2",
    "--add-qkv-bias",
    "--load-dir",
    "./work/model/",
    "--save-dir",
    "./work/mcore/",
    "--tokenizer-model",
    "./work/model/tokenizer.json",
    "--model-type-hf",
];

const PREPROCESS: [&str; 13] = [
    "preprocess",
    "--input",
    "./work/text.jsonl",
    "--tokenizer-name-or-path",
    "./work/model/",
    "--output-prefix",
    "./work/alpaca",
    "--tokenizer-type",
    "PretrainedFromHF",
    "--workers",
    "4",
    "--log-interval",
    "1000",
];

#[test]
fn the_tutorial_s_conversion_there_and_back_gives_the_same_tensors() {
    let lab = Lab::idle();
    input::model(&lab.work().join("model"), Shape::SMALL);
    let before = tensors(&lab.work().join("model"));
    let words = CONVERT.into_iter().chain(["llama2", "--params-dtype", "bf16"]);
    let _ = lab.qctl(words).ok();
    assert_eq!(fs::read_to_string(lab.work().join("mcore/latest_checkpointed_iteration.txt")).unwrap().trim(), "1");

    let back = ["convert", "--use-mcore-models", "--model-type", "GPT", "--load-model-type", "mg"];
    let back = back.into_iter().chain(["--save-model-type", "hf", "--target-tensor-parallel-size", "1"]);
    let back = back.chain(["--target-pipeline-parallel-size", "1", "--add-qkv-bias"]);
    let back = back.chain(["--load-dir", "./work/mcore/", "--save-dir", "./work/model/", "--model-type-hf", "llama2"]);
    let _ = lab.qctl(back).ok();
    let after = tensors(&lab.work().join("model/mg2hf"));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for (name, content) in &before {
        assert!(after[name] == *content, "{name}");
    }

    let refused = lab.qctl(CONVERT.into_iter().chain(["llama2", "--moe-grouped-gemm"]));
    assert!(refused.code != 0 && refused.stderr.contains("--moe-grouped-gemm"), "{refused}");
}

#[test]
fn the_tutorial_s_preprocessing_gives_each_text_s_tokens() {
    let lab = Lab::idle();
    fs::create_dir(lab.work().join("model")).unwrap();
    input::tokenizer(&lab.work().join("model"));
    input::rows(&lab.work().join("text.jsonl"), 300);
    let _ = lab.qctl(PREPROCESS).ok();
    let wanted = input::tokens(&lab.work().join("text.jsonl"));
    let made = fs::read(lab.work().join("alpaca_text_document.bin")).unwrap();
    assert!(made == wanted, "{} bytes instead of {}", made.len(), wanted.len());
    assert!(fs::read(lab.work().join("alpaca_text_document.idx")).unwrap().starts_with(b"MMIDIDX\0\0"));

    let refused = lab.qctl(PREPROCESS.into_iter().chain(["--merge-group-keys", "text"]));
    assert!(refused.code != 0 && refused.stderr.contains("--merge-group-keys"), "{refused}");
}
