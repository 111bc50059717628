//! Texts of several kinds from a seed, for measuring.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use super::words::{CHINESE, COMMON, NAMES, SYLLABLES};

const RARE: u64 = 20_000;
/// Text of a row group, in bytes.
const GROUP: usize = 8 << 20;

/// What a made text is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    English,
    Chinese,
    Code,
    /// English with emoji, also joined ones.
    Emoji,
    /// Characters from anywhere in Unicode.
    Unicode,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::English => "english",
            Self::Chinese => "chinese",
            Self::Code => "code",
            Self::Emoji => "emoji",
            Self::Unicode => "unicode",
        }
    }

    fn document(self, random: &mut Random) -> String {
        match self {
            Self::English => paragraphs(random, "\n\n", english),
            Self::Chinese => paragraphs(random, "\n", chinese),
            Self::Code => code(random),
            Self::Emoji => paragraphs(random, "\n", emoji),
            Self::Unicode => (0..random.below(400) + 20).map(|_| anything(random)).collect(),
        }
    }
}

/// Writes about `bytes` of text as parquet, the same again `times` times.
pub(super) fn write(path: &Path, kind: Kind, bytes: u64, times: u64, seed: u64) -> io::Result<()> {
    let mut random = Random(seed);
    let mut written = 0;
    let mut groups = Vec::new();
    while written < bytes {
        let (mut texts, mut size) = (Vec::new(), 0);
        while size < GROUP && written < bytes {
            let text = kind.document(&mut random);
            size += text.len();
            written += text.len() as u64;
            texts.push(text);
        }
        let column: ArrayRef = Arc::new(StringArray::from(texts));
        groups.push(RecordBatch::try_from_iter([("text", column)]).map_err(io::Error::other)?);
    }
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let Some(first) = groups.first() else { return Ok(()) };
    let mut writer =
        ArrowWriter::try_new(File::create_new(path)?, first.schema(), Some(properties)).map_err(io::Error::other)?;
    for _ in 0..times {
        for group in &groups {
            writer.write(group).and_then(|()| writer.flush()).map_err(io::Error::other)?;
        }
    }
    writer.into_inner().map_err(io::Error::other)?.sync_all()
}

fn paragraphs(random: &mut Random, gap: &str, sentence: fn(&mut Random, &mut String)) -> String {
    let mut text = String::new();
    for _ in 0..random.below(12) + 1 {
        for _ in 0..random.below(6) + 1 {
            sentence(random, &mut text);
        }
        text.push_str(gap);
    }
    text
}

fn english(random: &mut Random, text: &mut String) {
    let words = random.below(22) + 4;
    for position in 0..words {
        let word = word(random);
        if position == 0 {
            let mut letters = word.chars();
            text.extend(letters.next().map(|first| first.to_ascii_uppercase()));
            text.push_str(letters.as_str());
        } else {
            text.push_str(&word);
        }
        let last = position + 1 == words;
        text.push_str(match random.below(40) {
            _ if last => ". ",
            0..=2 => ", ",
            3 => "; ",
            4 => " (",
            5 => ") ",
            _ => " ",
        });
    }
}

fn word(random: &mut Random) -> String {
    match random.below(100) {
        0..=69 => common(COMMON, random).to_owned(),
        70..=71 => random.below(3000).to_string(),
        _ => rare(random),
    }
}

fn rare(random: &mut Random) -> String {
    let mut form = Random(random.below(RARE).min(random.below(RARE)));
    (0..form.below(3) + 2).map(|_| pick(SYLLABLES, form.next())).collect()
}

fn chinese(random: &mut Random, text: &mut String) {
    for _ in 0..random.below(3) + 1 {
        for _ in 0..random.below(10) + 3 {
            match random.below(20) {
                0 => text.push_str(&random.below(3000).to_string()),
                1 => text.push_str(pick(NAMES, random.next())),
                2..=4 => {
                    let code = 0x4e00 + random.below(0x5000).min(random.below(0x5000));
                    text.extend(u32::try_from(code).ok().and_then(char::from_u32));
                }
                _ => text.push_str(common(CHINESE, random)),
            }
        }
        text.push_str(if random.below(8) == 0 { "、" } else { "，" });
    }
    text.pop();
    text.push_str(if random.below(10) == 0 { "？" } else { "。" });
}

/// A file with functions, in something like Rust or Python.
fn code(random: &mut Random) -> String {
    let rust = random.below(2) == 0;
    let mut text = String::new();
    for _ in 0..random.below(12) + 1 {
        let (name, argument) = (name(random), name(random));
        text.push_str(if rust { "/// " } else { "# " });
        english(random, &mut text);
        text.push_str(&if rust {
            format!("\nfn {name}({argument}: &[u8]) -> Result<usize, Error> {{\n")
        } else {
            format!("\ndef {name}({argument}, *, {}=None):\n", self::name(random))
        });
        for _ in 0..random.below(15) + 2 {
            statement(random, rust, &mut text);
        }
        text.push_str(&if rust {
            format!("    Ok({argument}.len())\n}}\n\n")
        } else {
            format!("    return {argument}\n\n\n")
        });
    }
    text
}

fn statement(random: &mut Random, rust: bool, text: &mut String) {
    let [one, two, three] = [name(random), name(random), name(random)];
    let digits = random.below(12);
    let number = random.below(1 << digits);
    text.push_str(&"    ".repeat(usize::try_from(random.below(4)).unwrap_or(0) + 1));
    text.push_str(&match (random.below(5), rust) {
        (0, true) => format!("let mut {one} = self.{two}.{three}({number})?;\n"),
        (1, true) => {
            format!("if {one} >= {number} && !{two}.is_empty() {{ return Err(Error::{three}(\"{one}\")); }}\n")
        }
        (2, true) => format!("for ({one}, {two}) in {three}.iter().enumerate() {{\n"),
        (3, true) => format!("}} // {one} {two}\n"),
        (_, true) => format!("assert_eq!({one}[{number}], {two}.{three}, \"{{{one}:?}}\");\n"),
        (0, false) => format!("self.{one} = {two}[{number}:] + {three}\n"),
        (1, false) => format!("if {one} is not None and len({two}) > {number}:\n"),
        (2, false) => format!("for {one}, {two} in enumerate({three}):\n"),
        (3, false) => format!("raise ValueError(f\"{one}: {{{two}}}\")\n"),
        (_, false) => format!("{one} = {two}.{three}({one}={number}, {three}=\"{two}\")\n"),
    });
}

fn name(random: &mut Random) -> String {
    let mut name = common(NAMES, random).to_owned();
    for _ in 0..random.below(3) {
        name.push('_');
        name.push_str(&if random.below(2) == 0 { rare(random) } else { pick(NAMES, random.next()).to_owned() });
    }
    name
}

fn emoji(random: &mut Random, text: &mut String) {
    english(random, text);
    for _ in 0..random.below(4) + 1 {
        text.push_str(match random.below(8) {
            0 => "👩\u{200d}👩\u{200d}👧",
            1 => "👍🏽",
            2 => "❤\u{fe0f}",
            3 => "🇩🇪",
            _ => "",
        });
        let code = if random.below(2) == 0 { 0x1f300 + random.below(0x350) } else { 0x1f900 + random.below(0x100) };
        text.extend(u32::try_from(code).ok().and_then(char::from_u32));
    }
    text.push(' ');
}

fn anything(random: &mut Random) -> char {
    loop {
        // Half of it from the first plane's alphabets, where most assigned ones are.
        let code = if random.below(2) == 0 { 0x20 + random.below(0xfe0) } else { 0x1000 + random.below(0x3_1000) };
        if let Some(character) = u32::try_from(code).ok().and_then(char::from_u32) {
            return character;
        }
    }
}

/// Frequency falls with rank, as in real text.
fn common(list: &'static [&'static str], random: &mut Random) -> &'static str {
    let count = list.len() as u64;
    pick(list, random.below(count).min(random.below(count)))
}

fn pick(list: &'static [&'static str], at: u64) -> &'static str {
    list[usize::try_from(at % list.len() as u64).unwrap_or(0)]
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
