//! One run: check everything, encode, publish.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::encode::Tokenizer;
use crate::error::Error;
use crate::fold::{Fold, GROUP_ROWS};
use crate::index::{Pair, PairWriter, Sealed};
use crate::input::{Format, Reading, Slice, Source};
use crate::output::{OutputFile, directory, sync_directory};
use crate::pack::{Packing, pack};
use crate::pipeline::Pipeline;
use crate::recipe::{Handler, Recipe};

/// More threads than any host has cores help nobody.
const MAX_WORKERS: usize = 512;
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// What to make.
#[derive(Clone, Debug)]
pub struct Options {
    /// `<prefix>_<key>_document.bin/.idx` are written.
    pub output_prefix: PathBuf,
    pub handler: Handler,
    /// The text columns, in order.
    pub keys: Vec<String>,
    /// Encoder threads, 1 to 512.
    pub workers: usize,
    /// End each document with the tokenizer's end token.
    pub append_eod: bool,
    /// Leave out sequences of this many ids or more.
    pub seq_length: Option<u32>,
    /// Fill each document up to a multiple of this; 1 for not at all.
    pub pad_to_multiple_of: u32,
    /// Pack the sequences of an instruction run into rows of `seq_length`.
    pub pack: bool,
    /// Into how many parts the reference would cut the rows first; it matters
    /// to packing, and to a length with several keys.
    pub n_subs: u32,
    pub slice: Slice,
    /// The longest text or line, in bytes.
    pub max_row_bytes: usize,
    /// Hash the files (blake3).
    pub digests: bool,
}

impl Options {
    /// The usual values for one column `text`.
    pub fn new(output_prefix: impl Into<PathBuf>) -> Self {
        Self {
            output_prefix: output_prefix.into(),
            handler: Handler::default(),
            keys: vec!["text".to_owned()],
            workers: 1,
            append_eod: false,
            seq_length: None,
            pad_to_multiple_of: 1,
            pack: false,
            n_subs: 1,
            slice: Slice::All,
            max_row_bytes: 64 << 20,
            digests: false,
        }
    }
}

/// What a run tells while it works.
#[derive(Clone, Debug)]
pub enum Event {
    Warning(String),
    /// The input and the output are open; encoding begins.
    Started,
    /// At most ten a second, and one at the end.
    Progress(Progress),
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub rows: u64,
    /// All rows of the slice; an estimate until the end where only reading can
    /// tell (jsonl), 0 while there is none.
    pub total_rows: u64,
    /// Token ids written, over all keys.
    pub tokens: u64,
    /// Text encoded, in bytes.
    pub text_bytes: u64,
}

/// What a run made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub rows: u64,
    /// Over all keys.
    pub sequences: u64,
    /// Over all keys.
    pub documents: u64,
    /// Token ids, over all keys.
    pub tokens: u64,
    /// Sequences left out as too long, over all keys.
    pub skipped: u64,
    /// Text encoded, in bytes.
    pub text_bytes: u64,
    pub files: Vec<OutputFile>,
}

/// Encodes a slice of `source` and publishes one pair per key.
///
/// # Errors
///
/// Any [`Error`]; then nothing has been published, except that an I/O error
/// between the renames can leave new `.bin` files without an `.idx`.
pub fn run(
    source: &Source,
    tokenizer: &mut Tokenizer,
    options: &Options,
    watch: &mut dyn FnMut(Event),
) -> Result<Summary, Error> {
    check(source, options)?;
    source.check_columns()?;
    let recipe =
        Recipe::new(options.handler, options.append_eod, options.pad_to_multiple_of, options.seq_length, tokenizer)?;
    tokenizer.warnings().iter().for_each(|text| watch(Event::Warning(text.clone())));
    let (writers, skipped, progress) = match encode(source, tokenizer, options, &recipe, watch) {
        Err(Error::Differs { what }) => {
            // The audit met a text that the fast encoder gets wrong: what it
            // has encoded so far counts for nothing.
            tokenizer.refuse_fast(&what)?;
            watch(Event::Warning(tokenizer.warnings().last().cloned().unwrap_or(what)));
            encode(source, tokenizer, options, &recipe, watch)
        }
        outcome => outcome,
    }
    .map_err(|error| source.renumber(error, &options.slice))?;
    let mut summary = Summary {
        rows: progress.rows,
        sequences: writers.iter().map(PairWriter::sequences).sum(),
        documents: writers.iter().map(PairWriter::documents).sum(),
        tokens: progress.tokens,
        skipped,
        text_bytes: progress.text_bytes,
        files: Vec::new(),
    };
    if summary.sequences == 0 && options.slice == Slice::All {
        watch(Event::Warning("no row yielded a sequence: the output is empty".to_owned()));
    }
    let sealed = writers.into_iter().map(PairWriter::seal).collect::<Result<Vec<_>, _>>()?;
    summary.files = publish(sealed, options.digests)?;
    Ok(summary)
}

/// Encodes the slice into files that have no name yet.
fn encode(
    source: &Source,
    tokenizer: &Tokenizer,
    options: &Options,
    recipe: &Recipe,
    watch: &mut dyn FnMut(Event),
) -> Result<(Vec<PairWriter>, u64, Progress), Error> {
    let outputs = options.handler.outputs(&options.keys);
    let create = || -> Result<Vec<PairWriter>, Error> {
        let pairs = outputs.iter().map(|key| Pair::of_key(&options.output_prefix, key));
        pairs.map(|pair| PairWriter::create(&pair, options.digests)).collect()
    };
    let limit = options.seq_length.map(|limit| i32::try_from(limit).unwrap_or(i32::MAX));
    // Packing itself leaves out what is too long.
    let mut fold = Fold::new(create()?, limit.filter(|_| !options.pack), stretch(source, options)?);
    let known_rows = source.known_rows(&options.slice)?;
    let mut progress = Progress { total_rows: known_rows.unwrap_or(0), ..Progress::default() };
    let (mut input_bytes, mut present) = (0, 0);
    let inputs = options.handler.inputs(&options.keys);
    let pipeline = Pipeline {
        source,
        slice: &options.slice,
        reading: Reading { keys: &inputs, max_row: options.max_row_bytes, absent: options.handler.absent() },
        encoder: tokenizer.encoder(),
        recipe,
        outputs: outputs.len(),
        workers: options.workers,
    };
    watch(Event::Started);
    let mut told = Instant::now();
    pipeline.run(&mut |encoded| {
        fold.take(&encoded)?;
        progress.rows += encoded.rows;
        progress.text_bytes += encoded.text_bytes;
        progress.tokens = fold.ids();
        input_bytes += encoded.input_bytes;
        present |= encoded.present;
        if known_rows.is_none() {
            progress.total_rows = estimate(progress.rows, input_bytes, source.bytes_of(&options.slice));
        }
        if told.elapsed() >= PROGRESS_EVERY {
            told = Instant::now();
            watch(Event::Progress(progress));
        }
        Ok(())
    })?;
    source.check_unchanged()?;
    if progress.rows == 0 && options.slice == Slice::All {
        return Err(Error::NoRows { path: source.given().to_owned() });
    }
    if options.slice == Slice::All && options.handler != Handler::Pretrain {
        let mut missing = inputs.iter().enumerate().filter(|(position, _)| present & 1 << position == 0);
        // Without inputs an instruction is still one.
        if let Some((_, key)) = missing.find(|(_, key)| *key != "input") {
            return Err(Error::NeverThere { path: source.given().to_owned(), key: key.clone() });
        }
    }
    let (mut writers, mut skipped) = fold.finish()?;
    if options.pack {
        let packing = Packing {
            seq_length: options.seq_length.unwrap_or(1),
            pad_id: tokenizer.packing_pad_id()?,
            parts: options.n_subs,
        };
        (writers, skipped) = pack(writers, create()?, packing)?;
    }
    progress.tokens = writers.iter().map(PairWriter::ids).sum();
    progress.total_rows = progress.rows;
    watch(Event::Progress(progress));
    Ok((writers, skipped, progress))
}

/// Where texts of several keys decide about each other: the rows that the
/// reference looks at in one go.
fn stretch(source: &Source, options: &Options) -> Result<Option<u64>, Error> {
    if !is_grouped(options) {
        return Ok(None);
    }
    if options.n_subs == 1 {
        return Ok(Some(u64::MAX));
    }
    let rows = source.count_rows(options.max_row_bytes)?;
    match rows / u64::from(options.n_subs) {
        0 => {
            let what = format!("`--n-subs {}` asks for more parts than the {rows} rows", options.n_subs);
            Err(Error::Options { what })
        }
        step => Ok(Some(step)),
    }
}

fn is_grouped(options: &Options) -> bool {
    options.handler == Handler::Pretrain && options.seq_length.is_some() && options.keys.len() > 1
}

/// How many rows there will be if the rest is like what was read.
fn estimate(rows: u64, read: u64, all: Option<u64>) -> u64 {
    let all = all.unwrap_or(0);
    let total = u128::from(rows) * u128::from(all) / u128::from(read.max(1));
    u64::try_from(total).unwrap_or(u64::MAX).max(if all == 0 { 0 } else { rows })
}

/// Names the files: every `.bin`, then every `.idx`, the mark of completion.
pub(crate) fn publish(mut sealed: Vec<Sealed>, digests: bool) -> Result<Vec<OutputFile>, Error> {
    let mut folder = None;
    for pair in &mut sealed {
        pair.retire_older()?;
        pair.publish_bin()?;
        folder.get_or_insert_with(|| directory(pair.path()));
    }
    if let Some(folder) = &folder {
        sync_directory(folder)?;
    }
    for pair in &mut sealed {
        pair.publish_idx()?;
    }
    if let Some(folder) = &folder {
        sync_directory(folder)?;
    }
    let mut files = Vec::new();
    for pair in &sealed {
        files.extend(pair.files(digests)?);
    }
    Ok(files)
}

/// Refuses what could only fail later.
fn check(source: &Source, options: &Options) -> Result<(), Error> {
    check_output(&options.output_prefix, &options.handler.outputs(&options.keys))?;
    let fault = |what: &str| Err(Error::Options { what: what.to_owned() });
    if options.handler == Handler::AlpacaPretrain && options.keys != ["text"] {
        return fault("`AlpacaPretrainHandler` makes a `text` of each row: it takes no other `--json-keys`");
    }
    if options.pack && (options.handler != Handler::AlpacaInstruction || options.seq_length.is_none()) {
        return fault("`--pack` needs an instruction handler and `--seq-length`");
    }
    if options.pack && options.slice != Slice::All {
        return fault("`--pack` packs a whole input: pack slices when they are merged");
    }
    if options.n_subs == 0 || options.pad_to_multiple_of == 0 {
        return fault("`--n-subs` and `--pad-to-multiple-of` must be at least 1");
    }
    if options.workers == 0 || options.workers > MAX_WORKERS {
        return fault("`--workers` must be 1 to 512");
    }
    if options.seq_length == Some(0) {
        return fault("`--seq-length` must be at least 1");
    }
    if options.max_row_bytes == 0 {
        return fault("`--max-row-bytes` must be at least 1");
    }
    source.check_slice(&options.slice)?;
    if !is_grouped(options) {
        return Ok(());
    }
    if options.n_subs > 1 && options.slice != Slice::All {
        return fault(
            "with `--n-subs`, `--seq-length` and several keys, a slice of the input cannot be told its parts",
        );
    }
    // What is left out depends on the group of 50 rows around a row.
    match &options.slice {
        Slice::All => Ok(()),
        Slice::Rows(rows) => {
            let group = GROUP_ROWS as u64;
            let whole = source.format() == Format::Parquet && source.known_rows(&Slice::All)? == Some(rows.end);
            if rows.start.is_multiple_of(group) && (rows.end.is_multiple_of(group) || whole) {
                return Ok(());
            }
            fault("with `--seq-length` and several keys, slices must begin and end at multiples of 50 rows")
        }
        Slice::Bytes(_) => fault("with `--seq-length` and several keys, cut by `--rows`, not by `--byte-range`"),
    }
}

/// Refuses keys and prefixes that cannot name files.
pub(crate) fn check_output(prefix: &std::path::Path, keys: &[String]) -> Result<(), Error> {
    let fault = |what: String| Err(Error::Options { what });
    if prefix.file_name().is_none() || prefix.as_os_str().to_string_lossy().ends_with('/') {
        return fault(format!("`{}` names no file to begin the output's names with", prefix.display()));
    }
    let folder = directory(prefix);
    if !folder.is_dir() {
        return Err(Error::NoOutputDirectory { path: folder });
    }
    if keys.is_empty() {
        return fault("there is no key to read".to_owned());
    }
    for (position, key) in keys.iter().enumerate() {
        if key.is_empty() || key.contains(['/', '\0']) || key.len() > 200 {
            return fault(format!("the key `{key}` cannot be part of a file name"));
        }
        if keys[..position].contains(key) {
            return fault(format!("the key `{key}` is named twice"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{Event, Options, run};
    use crate::encode::{Backend, Encoder, Fault, Session, Tokenizer};
    use crate::error::Error;
    use crate::index::Pair;
    use crate::input::Source;

    /// One id a byte; a liar gets one text wrong.
    #[derive(Clone, Copy)]
    struct Bytes {
        lie: Option<&'static str>,
    }

    struct BytesSession(Bytes, Vec<u32>);

    impl Encoder for Bytes {
        fn session(&self, _: bool) -> Box<dyn Session + '_> {
            Box::new(BytesSession(*self, Vec::new()))
        }

        fn name(&self) -> &'static str {
            if self.lie.is_some() { "liar" } else { "honest" }
        }
    }

    impl Session for BytesSession {
        fn encode(&mut self, text: &str) -> Result<&[u32], Fault> {
            let shift = u32::from(self.0.lie == Some(text));
            self.1 = text.bytes().map(|byte| u32::from(byte) + shift).collect();
            Ok(&self.1)
        }
    }

    fn attempt(lie: &'static str, backend: Backend) -> (Result<Vec<u8>, Error>, Vec<String>) {
        let place = tempfile::tempdir().unwrap();
        let input = place.path().join("in.jsonl");
        let lines: Vec<String> =
            ["one", "two", "1 \u{17f}", "four"].iter().map(|text| format!("{{\"text\": \"{text}\"}}")).collect();
        std::fs::write(&input, lines.join("\n")).unwrap();
        let mut tokenizer = Tokenizer::of(Box::new(Bytes { lie: Some(lie) }), Box::new(Bytes { lie: None }), backend);
        let options = Options::new(place.path().join("x"));
        let mut warnings = Vec::new();
        let outcome = run(&Source::open(&input).unwrap(), &mut tokenizer, &options, &mut |event| {
            if let Event::Warning(text) = event {
                warnings.push(text);
            }
        });
        let bin = Pair::of_key(&options.output_prefix, "text").bin;
        (outcome.map(|_| std::fs::read(bin).unwrap()), warnings)
    }

    #[test]
    fn an_encoder_caught_lying_is_replaced_and_the_work_done_again() {
        let expected: Vec<u8> = "onetwo1 \u{17f}four".bytes().flat_map(|byte| u32::from(byte).to_le_bytes()).collect();
        let (found, warnings) = attempt("four", Backend::Auto);
        assert_eq!(found.unwrap(), expected);
        assert!(warnings.len() == 1 && warnings[0].contains("\"four\""), "{warnings:?}");
        let (refused, _) = attempt("four", Backend::Fast);
        assert!(matches!(refused, Err(Error::Differs { .. })));
    }

    #[test]
    fn a_disputed_text_never_reaches_the_fast_encoder() {
        let (found, warnings) = attempt("1 \u{17f}", Backend::Auto);
        assert_eq!(found.unwrap().len(), 4 * "onetwo1 \u{17f}four".len());
        assert_eq!(warnings, Vec::<String>::new());
    }
}
