//! Handlers and options against a plain retelling of the reference's rules.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use common::{plain_pair, read_pair, tiny_tokenizer_json, write_tokenizer};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokenize::{Backend, Handler, Merge, Options, PackMerge, Slice, Source, Tokenizer, merge, merge_groups, run};

/// Instruction, input, output: each may be a null or not there.
type Row = [Option<String>; 3];
/// Ids, attention mask, labels of one row.
type Chat = [Vec<i32>; 3];

struct Plain {
    inner: tokenizers::Tokenizer,
}

impl Plain {
    fn new(directory: &Path) -> Self {
        Self { inner: tokenizers::Tokenizer::from_file(directory.join("tokenizer.json")).unwrap() }
    }

    fn ids(&self, text: &str, additions: bool) -> Vec<i32> {
        let ids = self.inner.encode(text, additions).unwrap().get_ids().to_vec();
        ids.into_iter().map(|id| i32::try_from(id).unwrap()).collect()
    }

    fn id(&self, token: &str) -> i32 {
        i32::try_from(self.inner.token_to_id(token).unwrap()).unwrap()
    }

    /// `AlpacaStyleInstructionHandler --prompt-type qwen`.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    fn chat(&self, row: &Row, eod: bool, limit: Option<usize>) -> Option<Chat> {
        let [instruction, input, output] = row;
        let output = output.as_ref()?;
        let content: Vec<&str> =
            [instruction, input].into_iter().flatten().map(String::as_str).filter(|t| !t.is_empty()).collect();
        let user = format!("<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n", content.join("\n"))
            .replacen("{{idx}}", "0", 1);
        let mut source = self.ids("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n", false);
        source.extend(self.ids(&user, false));
        let mut target = if output.is_empty() { vec![] } else { self.ids(output, false) };
        target.push(self.id("<|im_end|>"));
        let limit = limit.unwrap_or(100_000) as f64;
        let (s, t) = (source.len() as f64, target.len() as f64);
        let most_target = (limit * (t / (s + t))).floor().max(1.0);
        let most_source = limit - most_target.min(t);
        source.truncate(most_source as usize);
        target.truncate(most_target as usize);
        if eod {
            target.push(self.id("<|im_end|>"));
        }
        let ids = [source.clone(), target.clone()].concat();
        let labels = [vec![-100; source.len()], target].concat();
        Some([ids.clone(), vec![1; ids.len()], labels])
    }

    /// `AlpacaPretrainHandler`.
    fn alpaca(&self, [instruction, input, output]: &Row) -> Vec<i32> {
        let none = || "None".to_owned();
        let middle =
            input.clone().filter(|input| !input.is_empty()).map_or_else(none, |input| format!(" Input:\n{input}"));
        let text = format!(
            "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions.USER: Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\n{}\n\n###{middle}\n\n### Response: ASSISTANT: {}",
            instruction.clone().unwrap_or_else(none),
            output.clone().unwrap_or_else(none),
        );
        self.ids(&text, true)
    }
}

/// `--pack`, with sorted lists as in the reference.
fn packed(rows: &[Chat], length: usize, pad: i32, subs: usize) -> [Vec<Vec<i32>>; 3] {
    let mut out = [vec![], vec![], vec![]];
    for part in rows.chunks((rows.len() / subs).max(1)) {
        let fits: Vec<&Chat> = part.iter().filter(|row| row[0].len() < length).collect();
        let mut numbers: Vec<usize> = fits.iter().map(|row| row[0].len()).collect();
        numbers.sort_unstable();
        let mut of_length: Vec<Vec<usize>> = vec![vec![]; length + 1];
        fits.iter().enumerate().for_each(|(index, row)| of_length[row[0].len()].push(index));
        while !numbers.is_empty() {
            let mut room = length - 1;
            let mut sack: Chat = [vec![], vec![], vec![]];
            loop {
                let index = numbers.partition_point(|&number| number <= room);
                if index == 0 {
                    break;
                }
                let number = numbers.remove(index - 1);
                room -= number;
                let chosen = of_length[number].pop().unwrap();
                for (sack, row) in sack.iter_mut().zip(fits[chosen]) {
                    sack.extend(row);
                }
            }
            for ((sack, out), fill) in sack.iter_mut().zip(&mut out).zip([pad, 1, -100]) {
                sack.resize(length, fill);
                out.push(sack.clone());
            }
        }
    }
    out
}

fn pair(sequences: &[Vec<i32>], ends: Option<&[u64]>) -> (Vec<u8>, Vec<u8>) {
    let all: Vec<u64> = (0..=sequences.len() as u64).collect();
    let words: Vec<Vec<u32>> =
        sequences.iter().map(|ids| ids.iter().map(|id| u32::from_le_bytes(id.to_le_bytes())).collect()).collect();
    plain_pair(&words, ends.unwrap_or(&all))
}

fn chat_tokenizer(directory: &Path) {
    let mut model = tiny_tokenizer_json();
    let added = model["added_tokens"].as_array_mut().unwrap();
    let next = added.iter().map(|token| token["id"].as_u64().unwrap()).max().unwrap() + 1;
    for (id, content) in (next..).zip(["<|im_start|>", "<|im_end|>"]) {
        let mut token = added[0].clone();
        token["id"] = json!(id);
        token["content"] = json!(content);
        added.push(token);
    }
    write_tokenizer(directory, &model);
    let mut config: Value =
        serde_json::from_slice(&fs::read(directory.join("tokenizer_config.json")).unwrap()).unwrap();
    config["pad_token"] = json!("<|pad|>");
    fs::write(directory.join("tokenizer_config.json"), config.to_string()).unwrap();
}

fn write_rows(path: &Path, rows: &[Row]) {
    let lines: Vec<String> = rows
        .iter()
        .enumerate()
        .map(|(number, row)| {
            let mut object = serde_json::Map::new();
            for (key, value) in ["instruction", "input", "output"].iter().zip(row) {
                // A null and a key that is not there mean the same.
                if value.is_some() || number % 2 == 0 {
                    object.insert((*key).to_owned(), json!(value));
                }
            }
            Value::Object(object).to_string()
        })
        .collect();
    fs::write(path, lines.join("\n")).unwrap();
}

fn word() -> impl Strategy<Value = Option<String>> {
    prop_oneof![
        1 => Just(None),
        1 => Just(Some(String::new())),
        6 => "(the |and |on\n|é|\\{\\{idx\\}\\}|<\\|im_end\\|>|[a-z]{1,3} |你|12){1,12}".prop_map(Some),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn instruction_runs_packed_or_not_equal_the_plain_way(
        mut rows in prop::collection::vec([word(), word(), word()], 1..70),
        eod in any::<bool>(),
        limit in prop::option::of(60_u32..140),
        subs in 1_u32..4,
        cut in any::<prop::sample::Index>(),
    ) {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("tokenizer");
        chat_tokenizer(&directory);
        let plain = Plain::new(&directory);
        // The columns must have a value somewhere.
        rows[0] = [Some("say".to_owned()), rows[0][1].clone(), Some("on".to_owned())];
        let input = place.path().join("in.jsonl");
        write_rows(&input, &rows);
        let source = Source::open(&input).unwrap();
        let mut tokenizer = Tokenizer::load(&directory, Backend::Auto).unwrap();
        let chats: Vec<Chat> = rows.iter().filter_map(|row| plain.chat(row, eod, limit.map(|l| l as usize))).collect();
        let keys = Handler::AlpacaInstruction.outputs(&[]);
        let options = |name: &str| Options {
            handler: Handler::AlpacaInstruction, append_eod: eod, seq_length: limit, workers: 2,
            ..Options::new(place.path().join(name))
        };

        run(&source, &mut tokenizer, &options("whole"), &mut |_| {}).unwrap();
        let mut ends = vec![0_u64];
        let mut kept = 0;
        for chat in &chats {
            kept += u64::from(limit.is_none_or(|limit| chat[0].len() < limit as usize));
            ends.push(kept);
        }
        for (at, key) in keys.iter().enumerate() {
            let sequences: Vec<Vec<i32>> = chats.iter().filter(|chat| limit.is_none_or(|limit| chat[0].len() < limit as usize))
                .map(|chat| chat[at].clone()).collect();
            prop_assert!(read_pair(&place.path().join("whole"), key) == pair(&sequences, Some(&ends)), "{}", key);
        }

        let (Some(limit), true) = (limit, chats.len() >= subs as usize) else { return Ok(()); };
        let expected = packed(&chats, limit as usize, plain.id("<|pad|>"), subs as usize);
        run(&source, &mut tokenizer, &Options { pack: true, n_subs: subs, ..options("packed") }, &mut |_| {}).unwrap();
        for (at, key) in keys.iter().enumerate() {
            prop_assert!(read_pair(&place.path().join("packed"), key) == pair(&expected[at], None), "packed {}", key);
        }

        // The same from slices that are packed when they are merged.
        if subs > 1 {
            return Ok(());
        }
        let middle = cut.index(rows.len() + 1) as u64;
        let mut parts = Vec::new();
        for (number, slice) in [0..middle, middle..rows.len() as u64].into_iter().enumerate() {
            let name = format!("part{number}");
            let options = Options { slice: Slice::Rows(slice), ..options(&name) };
            run(&source, &mut tokenizer, &options, &mut |_| {}).unwrap();
            parts.push(place.path().join(name));
        }
        let pack = Some(PackMerge { seq_length: limit, pad_id: tokenizer.packing_pad_id().unwrap() });
        let job = Merge { output_prefix: place.path().join("merged"), keys: keys.clone(), parts, remove_parts: true, pack, digests: false };
        merge(&job, &mut |_, _| {}).unwrap();
        for (at, key) in keys.iter().enumerate() {
            prop_assert!(read_pair(&place.path().join("merged"), key) == pair(&expected[at], None), "merged {}", key);
        }
    }

    #[test]
    fn alpaca_texts_and_padding_equal_the_plain_way(
        rows in prop::collection::vec([word(), word(), word()], 1..30),
        multiple in 1_u32..9,
        eod in any::<bool>(),
    ) {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("tokenizer");
        chat_tokenizer(&directory);
        let plain = Plain::new(&directory);
        let mut rows = rows;
        rows[0] = ["a", "b", "c"].map(|text| Some(text.to_owned()));
        let input = place.path().join("in.jsonl");
        write_rows(&input, &rows);
        let mut tokenizer = Tokenizer::load(&directory, Backend::Auto).unwrap();
        let end: Vec<i32> = eod.then(|| plain.id(common::EOS)).into_iter().collect();
        let options = Options { append_eod: eod, pad_to_multiple_of: multiple, ..Options::new(place.path().join("x")) };
        let alpaca = Options { handler: Handler::AlpacaPretrain, ..options.clone() };
        run(&Source::open(&input).unwrap(), &mut tokenizer, &alpaca, &mut |_| {}).unwrap();
        // The handler does not pad.
        let expected: Vec<Vec<i32>> = rows.iter().map(|row| [plain.alpaca(row), end.clone()].concat()).collect();
        prop_assert!(read_pair(&place.path().join("x"), "text") == pair(&expected, None));

        let texts: Vec<String> = rows.iter().map(|row| row[0].clone().unwrap_or_default()).collect();
        let lines: Vec<String> = texts.iter().map(|text| json!({"text": text}).to_string()).collect();
        fs::write(&input, lines.join("\n")).unwrap();
        run(&Source::open(&input).unwrap(), &mut tokenizer, &options, &mut |_| {}).unwrap();
        let size = i32::try_from(plain.inner.get_vocab_size(true)).unwrap();
        let expected: Vec<Vec<i32>> = texts.iter().filter(|text| !text.is_empty()).map(|text| {
            let mut ids = plain.ids(text, true);
            if multiple > 1 {
                let multiple = multiple as usize;
                let pad = (ids.len() / multiple + 1) * multiple - ids.len() - usize::from(eod);
                ids.extend(vec![size; pad]);
            }
            ids.extend(&end);
            ids
        }).collect();
        prop_assert!(read_pair(&place.path().join("x"), "text") == pair(&expected, None));
    }
}

#[test]
fn parts_of_the_reference_begin_new_groups() {
    let place = tempfile::tempdir().unwrap();
    let directory = common::tiny_tokenizer(&place.path().join("tokenizer"));
    let mut tokenizer = Tokenizer::load(&directory, Backend::Auto).unwrap();
    // Empty texts move the positions of those behind them, within a group.
    let text = |row: usize| if row % 7 == 3 { String::new() } else { "the ".repeat(row % 11) + "x" };
    let output = |row: usize| if row % 5 == 1 { String::new() } else { "and ".repeat(row % 13) + "y" };
    let rows: Vec<(String, String)> = (0..205).map(|row| (text(row), output(row))).collect();
    let input = place.path().join("in.jsonl");
    common::write_jsonl(&input, &rows);
    let keys = ["text", "output"].map(str::to_owned).to_vec();
    let options =
        Options { keys: keys.clone(), seq_length: Some(8), n_subs: 3, ..Options::new(place.path().join("x")) };
    run(&Source::open(&input).unwrap(), &mut tokenizer, &options, &mut |_| {}).unwrap();
    let mut parts = Vec::new();
    for (number, chunk) in rows.chunks(205 / 3).enumerate() {
        let columns =
            [chunk.iter().map(|row| row.0.clone()).collect(), chunk.iter().map(|row| row.1.clone()).collect()];
        for (key, (bin, idx)) in keys.iter().zip(common::plain_run(&columns, &directory, false, Some(8))) {
            let pair = tokenize::Pair::of_key(&place.path().join(format!("part{number}")), key);
            fs::write(pair.bin, bin).unwrap();
            fs::write(pair.idx, idx).unwrap();
        }
        parts.push(place.path().join(format!("part{number}")));
    }
    assert_eq!(parts.len(), 4);
    let job =
        Merge { output_prefix: place.path().join("y"), keys, parts, remove_parts: false, pack: None, digests: false };
    merge(&job, &mut |_, _| {}).unwrap();
    for key in ["text", "output"] {
        assert!(read_pair(&place.path().join("x"), key) == read_pair(&place.path().join("y"), key), "{key}");
    }

    // `--merge-group-keys` finds the same pairs by their names.
    let group = place.path().join("z");
    for number in 0..4 {
        let _ = fs::remove_file(place.path().join(format!("part{number}_output_document.bin")));
        let _ = fs::remove_file(place.path().join(format!("part{number}_output_document.idx")));
    }
    fs::remove_file(place.path().join("x_text_document.idx")).unwrap();
    fs::remove_file(place.path().join("x_text_document.bin")).unwrap();
    merge_groups(place.path(), &["part".to_owned()], &group, false, &mut |_, _| {}).unwrap();
    let bin = fs::read(place.path().join("z_part.bin")).unwrap();
    assert!(bin == fs::read(place.path().join("y_text_document.bin")).unwrap());
    assert!(
        fs::read(place.path().join("z_part.idx")).unwrap()
            == fs::read(place.path().join("y_text_document.idx")).unwrap()
    );
    assert!(merge_groups(place.path(), &["nothing".to_owned()], &group, false, &mut |_, _| {}).is_err());
}

#[test]
fn the_pair_of_a_slow_tokenizer_gives_the_same_ids() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("fast");
    chat_tokenizer(&directory);
    let recorded = common::reference_data().map(|root| root.join("golden/tokenizer"));
    for fast in [Some(directory), recorded].into_iter().flatten() {
        let slow = place.path().join("slow");
        fs::create_dir_all(&slow).unwrap();
        let json: Value = serde_json::from_slice(&fs::read(fast.join("tokenizer.json")).unwrap()).unwrap();
        let mut config: Value = serde_json::from_slice(&fs::read(fast.join("tokenizer_config.json")).unwrap()).unwrap();
        fs::write(slow.join("vocab.json"), json["model"]["vocab"].to_string()).unwrap();
        let word = |pair: &Value| {
            let split = || format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
            pair.as_str().map_or_else(split, str::to_owned)
        };
        let merges: Vec<String> = json["model"]["merges"].as_array().unwrap().iter().map(word).collect();
        fs::write(slow.join("merges.txt"), format!("#version: 0.2\n{}\n", merges.join("\n"))).unwrap();
        if config.get("added_tokens_decoder").is_none() {
            let tokens = json["added_tokens"].as_array().unwrap();
            let listed = tokens.iter().map(|token| (token["id"].to_string(), token.clone()));
            config["added_tokens_decoder"] = Value::Object(listed.collect());
        }
        fs::write(slow.join("tokenizer_config.json"), config.to_string()).unwrap();
        let (fast, slow) =
            (Tokenizer::load(&fast, Backend::Auto).unwrap(), Tokenizer::load(&slow, Backend::Auto).unwrap());
        assert_eq!((slow.encoder().name(), slow.vocab_size()), ("fast", fast.vocab_size()), "{:?}", slow.warnings());
        let (mut one, mut other) = (fast.encoder().session(true), slow.encoder().session(true));
        for text in ["the café e\u{301} and 12\n\n  on", "<|im_start|>user\n你好<|im_end|> 😀", "x<|endoftext|>y don't"]
        {
            assert_eq!(one.encode(text).unwrap(), other.encode(text).unwrap(), "{text:?}");
        }
    }
    fs::remove_file(place.path().join("slow/merges.txt")).unwrap();
    let error = Tokenizer::load(&place.path().join("slow"), Backend::Auto).unwrap_err();
    assert!(error.to_string().contains("without `merges.txt`"), "{error}");
}
