//! The checks of each kind of stage but training.

use std::collections::BTreeMap;

use model::Parallel;

use super::context::Context;
use super::{env, retries, train};
use crate::file::{
    ConvertFile, ExportFile, IterationFile, PreflightFile, PreprocessFile, RetriesFile, RunStageFile, StageFile, Time,
    Written,
};
use crate::nearest::nearest;
use crate::spec::{Convert, Export, Preflight, Preprocess, Run, Stage, StageBody};
use crate::words::{Convention, Engine, Handler};

/// What stages read from the rest of the file.
pub(super) struct Inputs<'a> {
    pub(super) parallel: Option<Parallel>,
    pub(super) hf_dir: Option<&'a str>,
    pub(super) dataset: &'a [String],
    pub(super) python: &'a str,
}

/// Which stages there are, and where their checkpoints go.
pub(super) struct Outline {
    pub(super) preflight: bool,
    pub(super) convert: Option<Option<String>>,
    pub(super) preprocess: bool,
    pub(super) train: Option<Option<String>>,
}

impl Outline {
    pub(super) fn new(files: &[(String, StageFile)]) -> Self {
        let mut outline = Self { preflight: false, convert: None, preprocess: false, train: None };
        for (_, file) in files {
            match file {
                StageFile::Preflight(_) => outline.preflight = true,
                StageFile::Convert(file) => outline.convert = Some(file.save_dir.clone()),
                StageFile::Preprocess(_) => outline.preprocess = true,
                StageFile::Train(file) => outline.train = Some(file.save_dir.clone()),
                StageFile::Export(_) | StageFile::Run(_) => {}
            }
        }
        outline
    }
}

/// Checks one stage; returns it with what it waits for beside the usual.
pub(super) fn stage(
    name: &str,
    file: StageFile,
    outline: &Outline,
    inputs: &Inputs<'_>,
    context: &mut Context<'_>,
) -> Option<(Stage, Vec<String>)> {
    let first = || if outline.preflight { vec!["preflight".to_owned()] } else { Vec::new() };
    let (body, usual, common) = match file {
        StageFile::Preflight(file) => {
            let common = Common {
                retries: None,
                default_retries: 0,
                limit: None,
                after: file.after.clone(),
                env: file.env.clone(),
            };
            (Some(StageBody::Preflight(preflight(file))), Vec::new(), common)
        }
        StageFile::Convert(mut file) => {
            let common = Common::take(file.retries.take(), 2, &mut file.after, &mut file.env);
            (convert(file, inputs, context).map(StageBody::Convert), first(), common)
        }
        StageFile::Preprocess(mut file) => {
            let common = Common::take(file.retries.take(), 2, &mut file.after, &mut file.env);
            (preprocess(file, inputs, context).map(StageBody::Preprocess), first(), common)
        }
        StageFile::Train(mut file) => {
            let limit = file.time_limit.take();
            let common = Common::take(file.retries.take(), 3, &mut file.after, &mut file.env).within(limit);
            let mut usual = Vec::new();
            if outline.convert.is_some() {
                usual.push("convert".to_owned());
            }
            if outline.preprocess {
                usual.push("preprocess".to_owned());
            }
            if usual.is_empty() {
                usual = first();
            }
            let body = train::train(*file, outline, inputs, context);
            (body.map(|train| StageBody::Train(Box::new(train))), usual, common)
        }
        StageFile::Export(mut file) => {
            let common = Common::take(file.retries.take(), 2, &mut file.after, &mut file.env);
            let export = export(file, outline, inputs, context);
            let usual = export.iter().map(|export| export.from.clone()).collect();
            (export.map(StageBody::Export), usual, common)
        }
        StageFile::Run(mut file) => {
            let limit = file.time_limit.take();
            let common = Common::take(file.retries.take(), 0, &mut file.after, &mut file.env).within(limit);
            (run(name, file, context).map(StageBody::Run), Vec::new(), common)
        }
    };
    let at = format!("stages.{name}");
    let retries = retries::retries(&format!("{at}.retries"), common.retries, common.default_retries, context);
    let limit_ms = retries::limit(&format!("{at}.time_limit"), common.limit, context);
    let env = env(&format!("{at}.env"), common.env, context);
    Some((
        Stage { name: name.to_owned(), after: usual, env, retries: retries?, limit_ms: limit_ms?, body: body? },
        common.after,
    ))
}

/// The keys that every stage has.
struct Common {
    retries: Option<RetriesFile>,
    default_retries: u32,
    limit: Option<Time>,
    after: Vec<String>,
    env: BTreeMap<String, Written>,
}

impl Common {
    fn take(
        retries: Option<RetriesFile>,
        default_retries: u32,
        after: &mut Vec<String>,
        env: &mut BTreeMap<String, Written>,
    ) -> Self {
        Self { retries, default_retries, limit: None, after: std::mem::take(after), env: std::mem::take(env) }
    }

    fn within(self, limit: Option<Time>) -> Self {
        Self { limit, ..self }
    }
}

fn preflight(file: PreflightFile) -> Preflight {
    let text = |written: Option<Written>| written.map(|written| written.0);
    Preflight {
        cann: text(file.require.cann),
        driver: text(file.require.driver),
        mindspore: text(file.require.mindspore),
        python: text(file.require.python),
    }
}

fn convert(file: ConvertFile, inputs: &Inputs<'_>, context: &mut Context<'_>) -> Option<Convert> {
    engine("stages.convert.engine", file.engine, context);
    needs_model("stages.convert", inputs, context);
    let at = "stages.convert.save_dir";
    let save_dir = context.required(at, file.save_dir, "name the directory of the converted checkpoint");
    let save_dir = save_dir.and_then(|dir| context.path(at, dir));
    let at = "stages.convert.make_vocab_size_divisible_by";
    let vocab_divisor = context.number(at, file.make_vocab_size_divisible_by.unwrap_or(1), 1, 65536);
    let convention = file.convention.unwrap_or_default();
    if convention == Convention::V2 && vocab_divisor.is_some_and(|divisor| divisor != 1) {
        context.refuse(
            at,
            "convention v2 does not pad the vocabulary",
            Some("leave it out, or say `convention: v1`".to_owned()),
        );
        return None;
    }
    let dtype = file.dtype.map(Into::into);
    Some(Convert { save_dir: save_dir?, dtype, vocab_divisor: vocab_divisor?, convention })
}

fn preprocess(file: PreprocessFile, inputs: &Inputs<'_>, context: &mut Context<'_>) -> Option<Preprocess> {
    engine("stages.preprocess.engine", file.engine, context);
    needs_model("stages.preprocess", inputs, context);
    if inputs.dataset.is_empty() {
        context.refuse(
            "dataset.files",
            "stage `preprocess` has no input",
            Some("add `dataset: { files: [...] }`".to_owned()),
        );
    }
    let at = "stages.preprocess.output_prefix";
    let prefix = context.required(at, file.output_prefix, "name the output, as in `./dataset/alpaca`");
    let prefix = prefix.and_then(|prefix| context.path(at, prefix));
    if prefix.as_deref().is_some_and(|prefix| prefix.ends_with('/')) {
        context.refuse(
            at,
            "a prefix is the beginning of a file's name, not a directory",
            Some("add a name behind the `/`".to_owned()),
        );
        return None;
    }
    let json_keys = json_keys(file.json_keys, context);
    let workers = context.number("stages.preprocess.workers", file.workers.unwrap_or(4), 1, 1024);
    let mut sound = true;
    if let Some(length) = file.seq_length {
        sound &= context.number("stages.preprocess.seq_length", length, 1, 1 << 24).is_some();
    }
    if let Some(shards) = file.shards {
        sound &= context.number("stages.preprocess.shards", shards, 1, 4096).is_some();
    }
    let multiple = file.pad_to_multiple_of.unwrap_or(1);
    sound &= context.number("stages.preprocess.pad_to_multiple_of", multiple, 1, 1 << 24).is_some();
    let handler = file.handler.unwrap_or_default();
    let pack = file.pack.unwrap_or(false);
    if pack && (handler != Handler::AlpacaInstruction || file.seq_length.is_none()) {
        context.refuse(
            "stages.preprocess.pack",
            "only the chats of `handler: alpaca_instruction` are packed, into rows of `seq_length`",
            Some("give both keys, or remove `pack`".to_owned()),
        );
        sound = false;
    }
    if handler != Handler::Pretrain && json_keys.as_deref().is_some_and(|keys| keys != ["text"]) {
        let what = "this handler reads the columns instruction, input and output";
        context.refuse("stages.preprocess.json_keys", what, Some("remove `json_keys`".to_owned()));
        sound = false;
    }
    if handler != Handler::Pretrain && multiple > 1 {
        let what = "this handler does not fill up documents, in the reference either";
        context.refuse("stages.preprocess.pad_to_multiple_of", what, Some("remove it".to_owned()));
        sound = false;
    }
    sound.then_some(())?;
    Some(Preprocess {
        handler,
        pad_to_multiple_of: multiple,
        pack,
        output_prefix: prefix?,
        workers: workers?,
        json_keys: json_keys?,
        append_eod: file.append_eod.unwrap_or(false),
        seq_length: file.seq_length,
        shards: file.shards,
    })
}

/// Column names become parts of file names.
fn json_keys(keys: Option<Vec<String>>, context: &mut Context<'_>) -> Option<Vec<String>> {
    let at = "stages.preprocess.json_keys";
    let keys = keys.unwrap_or_else(|| vec!["text".to_owned()]);
    if keys.is_empty() || keys.len() > 16 {
        context.refuse(
            at,
            format!("{} columns; between 1 and 16 can be read", keys.len()),
            Some("the usual one is [text]".to_owned()),
        );
        return None;
    }
    for (index, key) in keys.iter().enumerate() {
        let at = format!("{at}.{index}");
        let bad = key.is_empty()
            || key.len() > 128
            || key.starts_with('-')
            || key.contains('/')
            || key.chars().any(char::is_control);
        if bad {
            context.refuse(&at, format!("`{}` cannot be part of a file's name", crate::tree::excerpt(key)), None);
            return None;
        }
        if keys[..index].contains(key) {
            context.refuse(&at, format!("the column `{key}` is given twice"), Some("remove one".to_owned()));
            return None;
        }
    }
    Some(keys)
}

fn export(file: ExportFile, outline: &Outline, inputs: &Inputs<'_>, context: &mut Context<'_>) -> Option<Export> {
    engine("stages.export.engine", file.engine, context);
    needs_model("stages.export", inputs, context);
    let from = match file.from {
        Some(from) => from,
        None if outline.train.is_some() => "train".to_owned(),
        None => "convert".to_owned(),
    };
    let source = match from.as_str() {
        "train" => outline.train.as_ref(),
        "convert" => outline.convert.as_ref(),
        _ => None,
    };
    let Some(source) = source else {
        if context.is_silent("stages.train") || context.is_silent("stages.convert") {
            return None;
        }
        let hint = match nearest(&from, ["train", "convert"]) {
            Some(near) if near != from => format!("did you mean `{near}`?"),
            Some(_) | None => "take the checkpoint of a `train` or `convert` stage of this file".to_owned(),
        };
        context.refuse(
            "stages.export.from",
            format!("no stage `{}` writes a checkpoint", crate::tree::excerpt(&from)),
            Some(hint),
        );
        return None;
    };
    if source.is_none() {
        context.refuse(
            "stages.export.from",
            format!("stage `{from}` has no `save_dir`"),
            Some(format!("add `save_dir` to stage `{from}`")),
        );
    }
    let save_dir = match file.save_dir {
        Some(dir) => context.path("stages.export.save_dir", dir),
        None => inputs.hf_dir.map(str::to_owned),
    };
    let iteration = match file.iteration.unwrap_or(IterationFile::Latest) {
        IterationFile::Latest => None,
        IterationFile::Number(number) => Some(context.number("stages.export.iteration", number, 1, 9_999_999)?),
    };
    Some(Export { from, load_dir: source.clone()?, iteration, save_dir: save_dir? })
}

fn run(name: &str, file: RunStageFile, context: &mut Context<'_>) -> Option<Run> {
    let at = format!("stages.{name}.run");
    let run = context.required(&at, file.run, "say what is run, as in `run: { argv: [echo, hello] }`")?;
    let argv_at = format!("{at}.argv");
    let argv: Vec<String> = run.argv.into_iter().map(|word| word.0).collect();
    if argv.first().is_none_or(String::is_empty) {
        context.refuse(&argv_at, "there is no program to run", Some("as in `argv: [echo, hello]`".to_owned()));
        return None;
    }
    words(&argv_at, &argv, context)?;
    let count = context.number(&format!("{at}.count"), run.count.unwrap_or(1), 1, 1_000_000);
    let ranks = context.number(&format!("{at}.ranks"), run.ranks.unwrap_or(1), 1, 4096);
    let slots = context.number(&format!("{at}.slots"), run.slots.unwrap_or(0), 0, 64);
    Some(Run { argv, count: count?, ranks: ranks?, slots: slots? })
}

/// Bounds of an argument list, well below what the kernel takes.
pub(super) fn words(path: &str, words: &[String], context: &mut Context<'_>) -> Option<()> {
    if words.len() > 4096 {
        context.refuse(path, format!("there are {} arguments; at most 4096", words.len()), None);
        return None;
    }
    if let Some(index) = words.iter().position(|word| word.len() > 65_536) {
        context.refuse(&format!("{path}.{index}"), "the argument is longer than 65536 bytes", None);
        return None;
    }
    Some(())
}

fn engine(path: &str, engine: Option<Engine>, context: &mut Context<'_>) {
    match engine.unwrap_or_default() {
        Engine::Native => {}
        Engine::Mindspeed => context.refuse(
            path,
            "`mindspeed` is not supported yet",
            Some("use `native`: its results equal the reference's".to_owned()),
        ),
    }
}

fn needs_model(stage: &str, inputs: &Inputs<'_>, context: &mut Context<'_>) {
    if inputs.hf_dir.is_none() {
        let stage = stage.trim_start_matches("stages.");
        context.refuse(
            "model.hf_dir",
            format!("stage `{stage}` needs the model's directory"),
            Some("add `model: { hf_dir: ... }`".to_owned()),
        );
    }
}
