//! Files made to mislead: each is refused with a sentence, a next step and no output, or read as what it is.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{Words, small_shape, tree, write_model};
use convert::safetensors::HfModel;
use convert::shard::Shard;
use proptest::prelude::*;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The program on a model directory; the output would be beside it.
fn convert(hf: &Path, out: &Path) -> Output {
    let words = "--load-model-type hf --save-model-type mg --params-dtype bf16 --target-tensor-parallel-size 1 \
                 --target-pipeline-parallel-size 1 --add-qkv-bias";
    let mut program = Command::new(env!("CARGO_BIN_EXE_qctl-convert"));
    program.args(words.split_whitespace()).arg("--load-dir").arg(hf).arg("--save-dir").arg(out).output().unwrap()
}

/// What is wrong with a refusal; `None` if it is one in two lines that say what, where and what to do.
fn fault(output: &Output, says: &[&str]) -> Option<String> {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines: Vec<&str> = said.split_terminator('\n').collect();
    let in_form = matches!(lines[..], [error, hint] if error.starts_with("error: ") && hint.starts_with("hint: "));
    let wrong = if output.status.code() != Some(1) {
        format!("ended with {:?}", output.status)
    } else if !in_form {
        "is not one error and one hint".to_owned()
    } else if let Some(c) = said.chars().find(|c| c.is_control() && *c != '\n') {
        format!("holds the control character {c:?}")
    } else if let Some(missing) = says.iter().find(|words| !said.contains(**words)) {
        format!("lacks `{missing}`")
    } else if said.len() > 10_000 {
        format!("is {} bytes long", said.len())
    } else {
        return None;
    };
    Some(format!("{wrong}: {}", said.chars().take(2000).collect::<String>()))
}

/// Each file by itself in a sound model's directory: the sentence that must be said of it.
fn refused(file: &str, table: &[(&str, Vec<u8>, &[&str])]) {
    let dir = tempfile::tempdir().unwrap();
    let (hf, out) = (dir.path().join("hf"), dir.path().join("out"));
    let mut wrong = Vec::new();
    for (what, content, says) in table {
        let _ = fs::remove_dir_all(&hf);
        write_model(&hf, &small_shape(), 3, if file == SINGLE { 1 } else { 2 });
        fs::write(hf.join(file), content).unwrap();
        let says: Vec<&str> = says.iter().copied().chain([file]).collect();
        let before = tree(&hf);
        wrong.extend(fault(&convert(&hf, &out), &says).map(|fault| format!("{what}: {fault}")));
        if out.exists() || tree(&hf) != before {
            wrong.push(format!("{what}: left {:?} and {:?}", tree(&out), tree(&hf)));
            let _ = fs::remove_dir_all(&out);
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), table.len(), wrong.join("\n"));
}

/// A file with this header and so many bytes of data.
fn header(json: &str, data: usize) -> Vec<u8> {
    [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &vec![0; data]].concat()
}

fn tensor(name: &str, dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#"{{"{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
}

#[test]
fn a_safetensors_file_that_lies_is_refused() {
    let one = |shape: &str, offsets: &str, data: usize| header(&tensor("a", "BF16", shape, offsets), data);
    let two = |first: &str, second: &str| {
        let entry =
            |name: &str, offsets: &str| format!(r#""{name}":{{"dtype":"U8","shape":[4],"data_offsets":{offsets}}}"#);
        header(&format!("{{{},{}}}", entry("a", first), entry("b", second)), 8)
    };
    let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let long = "n".repeat(1 << 20);
    refused(
        SINGLE,
        &[
            ("nothing", vec![], &["is no safetensors file: 0 bytes", "fetch the file again"]),
            ("seven bytes", vec![0; 7], &["7 bytes"]),
            ("a length of 2^64-1", vec![0xff; 4096], &["at most 104857600"]),
            ("a length of 2^63", header("", 0).into_iter().take(7).chain([0x80]).collect(), &["at most 104857600"]),
            ("a header beyond the file", [&[9, 1, 0, 0, 0, 0, 0, 0][..], b"{}"].concat(), &["is truncated"]),
            ("no header", header("", 0), &["malformed header"]),
            ("a list", header("[1]", 0), &["malformed header"]),
            ("not UTF-8", [&3_u64.to_le_bytes()[..], b"{\"\xff"].concat(), &["malformed header"]),
            ("HTML", b"<!DOCTYPE html><html><head>".to_vec(), &["at most 104857600"]),
            ("a Git LFS pointer", b"version https://git-lfs.github.com/spec/v1\n".to_vec(), &["at most 104857600"]),
            ("too deep", header(&deep, 0), &["malformed header"]),
            ("offsets in reverse", one("[2]", "[4,0]", 4), &["the offsets 4 to 0"]),
            ("a negative offset", one("[2]", "[-4,0]", 4), &["malformed header", "-4"]),
            ("an offset with a fraction", one("[2]", "[0.5,4]", 4), &["malformed header"]),
            ("one offset", one("[2]", "[0]", 4), &["malformed header"]),
            ("three offsets", one("[2]", "[0,2,4]", 4), &["malformed header"]),
            ("offsets beyond 64 bits", one("[2]", "[0,18446744073709551616]", 4), &["malformed header"]),
            ("offsets at the end of 64 bits", one("[2]", "[18446744073709551612,18446744073709551615]", 4), &["`a`"]),
            ("an end beyond the file", one("[4]", "[0,8]", 4), &["is truncated", "ends at byte 8"]),
            ("a shape that overflows", one("[4294967296,4294967296]", "[0,4]", 4), &["product overflows"]),
            ("a shape that overflows as bytes", one("[9223372036854775808]", "[0,4]", 4), &["product overflows"]),
            ("a negative shape", one("[-1]", "[0,4]", 4), &["malformed header", "-1"]),
            ("nine dimensions", one("[1,1,1,1,1,1,1,1,2]", "[0,4]", 4), &["at most 8 dimensions"]),
            ("a shape that is too small", one("[1]", "[0,4]", 4), &["4 bytes", "needs 2"]),
            ("no shape", header(r#"{"a":{"dtype":"BF16","data_offsets":[0,4]}}"#, 4), &["malformed", "shape"]),
            ("an unknown field", header(r#"{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":1}}"#, 0), &["`x`"]),
            ("a number for a type", header(r#"{"a":{"dtype":7,"shape":[0],"data_offsets":[0,0]}}"#, 0), &["malformed"]),
            ("overlapping tensors", two("[0,4]", "[2,6]"), &["overlapping tensors"]),
            ("one tensor in another", two("[0,4]", "[0,4]"), &["overlapping tensors"]),
            ("a hole", two("[0,4]", "[6,10]"), &["only 8 bytes are there"]),
            ("a hole at the beginning", one("[2]", "[4,8]", 8), &["hole of 4 bytes"]),
            ("data behind the last tensor", one("[2]", "[0,4]", 9), &["5 bytes after its last tensor"]),
            ("one name twice", header(r#"{"a":1,"a":2}"#, 0), &["malformed header"]),
            (
                "escapes in a name",
                header(&tensor(r"\u001b[2J\nx\u202e", "BF16", "[1]", "[0,9]"), 9),
                &["u{1b}[2J", "u{202e}"],
            ),
            ("a name of a megabyte", header(&tensor(&long, "BF16", "[1]", "[0,9]"), 9), &[]),
            (
                "an unknown type",
                header(&tensor("a", r"Q\u001b[0m4", "[1]", "[0,1]"), 1),
                &["Q\\u{1b}[0m4", "not supported yet"],
            ),
        ],
    );
}

#[test]
fn a_configuration_that_lies_is_refused() {
    let sound = common::config_json(&small_shape());
    let with = |from: &str, to: &str| {
        assert!(sound.contains(from), "{from}");
        sound.replacen(from, to, 1).into_bytes()
    };
    let without = |key: &str| {
        let kept = sound.lines().filter(|line| !line.contains(&format!("\"{key}\"")));
        kept.collect::<Vec<_>>().join("\n").into_bytes()
    };
    let hidden = |value: &str| with("\"hidden_size\": 16", &format!("\"hidden_size\": {value}"));
    let mut table: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("nothing", vec![], &["is no valid JSON object"]),
        ("a list", b"[]".to_vec(), &["is no valid JSON object"]),
        ("HTML", b"<!DOCTYPE html>".to_vec(), &["is no valid JSON object"]),
        ("not UTF-8", b"{\"model_type\": \"\xff\"}".to_vec(), &["is no valid JSON object"]),
        ("too deep", [vec![b'['; 100_000], vec![b']'; 100_000]].concat(), &["is no valid JSON object"]),
        ("five megabytes", vec![b' '; 5 << 20], &["longer than 4194304 bytes"]),
        ("a negative size", hidden("-16"), &["hidden_size = -16"]),
        ("nothing in it", hidden("0"), &["hidden_size = 0"]),
        ("a fraction", hidden("16.5"), &["hidden_size = 16.5"]),
        ("a text", hidden("\"16\""), &["hidden_size = \"16\""]),
        ("a list for a size", hidden("[16]"), &["hidden_size = [16]"]),
        ("2^64 - 1", hidden("18446744073709551615"), &["hidden_size = 18446744073709551615", "2^31"]),
        ("beyond 64 bits", hidden("184467440737095516160"), &["hidden_size = 1.844674407370955"]),
        ("beyond any number", hidden("1e999"), &["is no valid JSON object"]),
        ("not a number", hidden("NaN"), &["is no valid JSON object"]),
        (
            "2^31 in all directions",
            String::from_utf8(hidden("2147483648")).unwrap().replace(": 24", ": 2147483648").into_bytes(),
            &["config.json"],
        ),
        (
            "heads that do not divide",
            with("\"num_attention_heads\": 4", "\"num_attention_heads\": 5"),
            &["no multiple"],
        ),
        ("a million layers", with("\"num_hidden_layers\": 4", "\"num_hidden_layers\": 1000000"), &["more than 4096"]),
        ("a negative epsilon", with("1e-06", "-1"), &["rms_norm_eps = -1"]),
        ("a text for a flag", with("false", "\"no\""), &["tie_word_embeddings = \"no\""]),
        ("a number for the type", with("\"qwen2\"", "7"), &["model_type = 7"]),
        ("escapes in the type", with("\"qwen2\"", r#""q\u001b[2J\n""#), &["q\\u{1b}[2J\\n"]),
        ("escapes in the activation", with("\"silu\"", r#""\u001b[2J""#), &["hidden_act"]),
        ("escapes in the element type", with("\"bfloat16\"", r#""\u001b[2J""#), &["torch_dtype"]),
        ("an unknown element type", with("\"bfloat16\"", "\"int4\""), &["int4", "bfloat16, float16"]),
    ];
    for key in
        ["model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"]
    {
        table.push((key, without(key), &["has no `"]));
    }
    // What says `not supported yet` names the thing, not the file.
    let (named, unnamed): (Vec<_>, Vec<_>) =
        table.into_iter().partition(|(what, ..)| !what.contains(" in the ") && *what != "an unknown element type");
    refused("config.json", &named);
    let dir = tempfile::tempdir().unwrap();
    for (what, content, says) in unnamed {
        write_model(&dir.path().join("hf"), &small_shape(), 3, 1);
        fs::write(dir.path().join("hf/config.json"), content).unwrap();
        let output = convert(&dir.path().join("hf"), &dir.path().join("out"));
        assert_eq!(fault(&output, says), None, "{what}");
    }
}

#[test]
fn an_index_that_lies_is_refused() {
    let map = |tensor: &str, file: &str| format!(r#"{{"weight_map":{{"{tensor}":"{file}"}}}}"#).into_bytes();
    refused(
        INDEX,
        &[
            ("nothing", vec![], &["is no valid index"]),
            ("a list", b"[]".to_vec(), &["is no valid index"]),
            ("no map", b"{}".to_vec(), &["is no valid index", "weight_map"]),
            ("an empty map", br#"{"weight_map":{}}"#.to_vec(), &["names no file"]),
            ("a number for a file", br#"{"weight_map":{"a":1}}"#.to_vec(), &["is no valid index"]),
            ("a file above", map("a", "../x.safetensors"), &["`../x.safetensors`", "no plain file name"]),
            ("a file elsewhere", map("a", "/etc/x.safetensors"), &["no plain file name"]),
            ("a file of another kind", map("a", "pytorch_model.bin"), &["no plain file name"]),
            ("escapes in a file's name", map("a", r"\u001b[2J.safetensors"), &["\\u{1b}[2J", "is missing"]),
            ("a file that is not there", map("a", "b.safetensors"), &["`b.safetensors`, which is missing"]),
            (
                "a tensor that is not there",
                map(r"\u001b[2J\nx", "model-00001-of-00002.safetensors"),
                &["\\u{1b}[2J\\nx"],
            ),
        ],
    );
}

/// One change of a file's bytes.
#[derive(Clone, Debug)]
enum Change {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Drop(prop::sample::Index, usize),
    Insert(prop::sample::Index, Vec<u8>),
    /// A number of the text becomes another one.
    Number(prop::sample::Index, &'static str),
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<prop::sample::Index>;
    let numbers = ["-1", "0", "1", "255", "65536", "4294967296", "9223372036854775807", "18446744073709551615", "1e9"];
    prop_oneof![
        4 => (index(), any::<u8>()).prop_map(|(at, to)| Change::Flip(at, to)),
        1 => index().prop_map(Change::Cut),
        1 => (index(), 1_usize..40).prop_map(|(at, count)| Change::Drop(at, count)),
        1 => (index(), prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        4 => (index(), prop::sample::select(numbers.to_vec())).prop_map(|(at, to)| Change::Number(at, to)),
    ]
}

/// Changes the first `span` bytes, where a file says what it is; the rest are elements.
fn apply(bytes: &mut Vec<u8>, change: &Change, span: usize) {
    let span = span.min(bytes.len());
    if span == 0 {
        return;
    }
    match change {
        Change::Flip(at, to) => bytes[at.index(span)] = *to,
        Change::Cut(at) => bytes.truncate(at.index(bytes.len())),
        Change::Drop(at, count) => {
            let from = at.index(span);
            bytes.drain(from..(from + count).min(bytes.len()));
        }
        Change::Insert(at, more) => drop(bytes.splice(at.index(span)..at.index(span), more.iter().copied())),
        Change::Number(at, to) => {
            let starts: Vec<usize> = (0..span)
                .filter(|i| bytes[*i].is_ascii_digit() && (*i == 0 || !bytes[*i - 1].is_ascii_digit()))
                .collect();
            if starts.is_empty() {
                return;
            }
            let from = starts[at.index(starts.len())];
            let end = from + bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            drop(bytes.splice(from..end, to.bytes()));
        }
    }
}

/// Sound files, made once.
struct Sound {
    _dir: tempfile::TempDir,
    hf: PathBuf,
    /// Name, bytes, and how many of them say what the file is.
    files: Vec<(String, Vec<u8>, usize)>,
    shard: Vec<u8>,
}

thread_local! {
    static SOUND: Sound = {
        let dir = tempfile::tempdir().unwrap();
        let (hf, out) = (dir.path().join("hf"), dir.path().join("out"));
        write_model(&hf, &small_shape(), 5, 2);
        assert!(convert(&hf, &out).status.success());
        let names = ["config.json", INDEX, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        let read = |name: &str| {
            let bytes = fs::read(hf.join(name)).unwrap();
            let header = bytes.first_chunk::<8>().map(|length| u64::from_le_bytes(*length));
            let span = if name.ends_with(".json") { bytes.len() } else { 8 + usize::try_from(header.unwrap()).unwrap() };
            (name.to_owned(), bytes, span)
        };
        let files = names.map(read).to_vec();
        let shard = fs::read(out.join("iter_0000001/mp_rank_00/model_optim_rng.pt")).unwrap();
        Sound { _dir: dir, hf, files, shard }
    };
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_model_is_refused_or_every_tensor_can_be_read(which in 0..4_usize, changes in prop::collection::vec(change(), 1..4)) {
        SOUND.with(|sound| {
            let (name, bytes, span) = &sound.files[which];
            let mut changed = bytes.clone();
            changes.iter().for_each(|change| apply(&mut changed, change, *span));
            fs::write(sound.hf.join(name), &changed).unwrap();
            let opened = HfModel::open(&sound.hf);
            let verdict = match &opened {
                Ok(model) => {
                    let names = convert::plan::hf::tensors(model.shape());
                    names.iter().try_for_each(|(name, _)| model.matrix(name).map(drop)).map_err(|e| e.chain())
                }
                Err(error) if error.hint().is_none() => Err(format!("no next step: {}", error.chain())),
                Err(_) => Ok(()),
            };
            fs::write(sound.hf.join(name), bytes).unwrap();
            prop_assert_eq!(verdict, Ok(()), "{} {:?}", name, changes);
            Ok(())
        })?;
    }

    #[test]
    fn a_changed_shard_is_refused_or_every_tensor_can_be_read(end in any::<bool>(), changes in prop::collection::vec(change(), 1..4)) {
        SOUND.with(|sound| {
            let mut changed = sound.shard.clone();
            // The pickle is at the beginning, the archive's directory at the end.
            if end {
                changed.reverse();
            }
            changes.iter().for_each(|change| apply(&mut changed, change, 3000));
            if end {
                changed.reverse();
            }
            let path = sound.hf.join("model_optim_rng.pt");
            fs::write(&path, &changed).unwrap();
            match Shard::open(&path) {
                Ok(shard) => {
                    for (name, tensor) in shard.tensors().flatten() {
                        let _ = shard.matrix(name, tensor).map(|matrix| matrix.same(&matrix));
                    }
                }
                Err(error) => prop_assert!(error.hint().is_some(), "no next step: {}", error.chain()),
            }
            Ok(())
        })?;
    }
}

/// The archive has a checksum of each entry.
#[test]
fn a_shard_with_any_one_byte_of_its_pickle_flipped_is_refused() {
    SOUND.with(|sound| {
        let archive = convert::zip::Archive::parse(&sound.hf, &sound.shard).unwrap();
        let pickle = archive.entries().iter().find(|entry| entry.name.ends_with("data.pkl")).unwrap().range.clone();
        let path = sound.hf.join("flipped.pt");
        let mut words = Words(7);
        for at in pickle.step_by(37) {
            let mut changed = sound.shard.clone();
            changed[at] ^= 1 << words.below(8);
            fs::write(&path, &changed).unwrap();
            let error = Shard::open(&path).map(drop).unwrap_err();
            assert!(error.chain().contains("checksum"), "byte {at}: {}", error.chain());
        }
    });
}
