//! From the file as written to a spec whose promises hold.

mod context;
mod graph;
mod retries;
mod stages;
mod train;

use std::collections::BTreeMap;

use model::{Deal, Labels, Parallel};

use crate::decode::{self, Decoded, list};
use crate::file::{KNOWN_STAGES, ParallelFile, PlacementFile, RuntimeFile, SpecFile, StageFile, StagesFile, Written};
use crate::nearest::nearest;
use crate::origin::Origin;
use crate::problem::Problem;
use crate::spec::{Runtime, Spec, Stage};
use crate::tree::Value;
use context::Context;

/// Most stages of a pipeline.
const MAX_STAGES: usize = 64;

/// Most input files.
const MAX_FILES: usize = 10_000;

/// Variables that are set for each process and would be lost or do harm here.
const RESERVED: [&str; 13] = [
    "MS_ROLE",
    "MS_WORKER_NUM",
    "MS_SCHED_HOST",
    "MS_SCHED_PORT",
    "MS_NODE_ID",
    "MS_NODE_RANK",
    "RANK_ID",
    "RANK_SIZE",
    "DEVICE_ID",
    "ASCEND_RT_VISIBLE_DEVICES",
    "ASCEND_VISIBLE_DEVICES",
    "MS_ENABLE_RECOVERY",
    "HCCL_IF_BASE_PORT",
];

/// Checks a tree.
///
/// # Errors
///
/// All problems that could be found in one pass, at most twenty, in the order of the file.
pub(crate) fn check(origin: Origin) -> Result<Spec, Vec<Problem>> {
    if origin.tree().value == Value::Null {
        let hint = "start with `name:` and `stages:`".to_owned();
        return Err(vec![origin.problem("", "the file is empty".to_owned(), Some(hint))]);
    }
    if !matches!(origin.tree().value, Value::Map(_)) {
        let hint = "is this the right file? a job's begins with `name:` and `stages:`".to_owned();
        let found = format!("expected a mapping of keys, found {}", origin.tree().describe());
        return Err(vec![origin.problem("", found, Some(hint))]);
    }
    let mut context = Context::new(&origin);
    mistyped_stages(&origin, &mut context);
    let Decoded { value, errors, refused } = decode::decode::<SpecFile>(origin.tree());
    context.decoded(errors, refused);
    let spec = value.and_then(|file| whole(file, &origin, &mut context));
    let (mut problems, warnings) = context.finish();
    problems.sort_by_key(|problem| (problem.line == 0, problem.line, problem.column));
    problems.truncate(decode::MAX_PROBLEMS);
    match spec {
        Some(mut spec) if problems.is_empty() => {
            spec.warnings = warnings;
            Ok(spec)
        }
        Some(_) | None if !problems.is_empty() => Err(problems),
        // A check that gave up without a word is this crate's mistake; the file must not pass for it.
        Some(_) | None => Err(vec![origin.problem("", "the file could not be checked".to_owned(), None)]),
    }
}

/// A known stage's name with a typing error would be read as a stage with `run`.
fn mistyped_stages(origin: &Origin, context: &mut Context<'_>) {
    let Some(stages) = origin.tree().at(["stages"]) else { return };
    let Value::Map(entries) = &stages.value else { return };
    for entry in entries {
        let has_run = entry.node.at(["run"]).is_some();
        let near = nearest(&entry.key, KNOWN_STAGES);
        if let Some(near) = near.filter(|near| !has_run && *near != entry.key) {
            let path = format!("stages.{}", entry.key);
            context.refuse(
                &path,
                format!("unknown stage `{}`", entry.key),
                Some(format!("did you mean `{near}`? a stage of your own needs `run: {{ argv: [...] }}`")),
            );
            // It is not missing either.
            context.silence(&format!("stages.{near}"));
        }
    }
}

fn whole(file: SpecFile, origin: &Origin, context: &mut Context<'_>) -> Option<Spec> {
    let name = context.required("name", file.name, "give the job a name, as in `name: qwen25-7b`");
    let name = name.filter(|name| context.identifier("name", name, 63));
    let stages = file.stages.unwrap_or_default();
    let needs_workdir = stages.0.iter().any(|(_, stage)| match stage {
        StageFile::Convert(_) | StageFile::Preprocess(_) | StageFile::Train(_) | StageFile::Export(_) => true,
        StageFile::Preflight(_) | StageFile::Run(_) => false,
    });
    let workdir = workdir(file.workdir, needs_workdir, context);
    let mut layout = file.parallel.unwrap_or_default();
    let parallel = parallel(&layout, context);
    let deal = parallel.and_then(|parallel| deal(&mut layout, parallel, context));
    let hf_dir = model_dir(file.model, context);
    let dataset = dataset(file.dataset.map(|d| d.files).unwrap_or_default(), context);
    let runtime = runtime(file.runtime.unwrap_or_default(), context);
    let priority = file.priority.unwrap_or(0);
    if !(-1000..=1000).contains(&priority) {
        context.refuse("priority", format!("{priority} is not between -1000 and 1000"), None);
    }
    let labels = labels(file.placement.unwrap_or_default(), context);
    let inputs = stages::Inputs { parallel, hf_dir: hf_dir.as_deref(), dataset: &dataset, python: &runtime.python };
    let stages = all_stages(stages, &inputs, context);
    Some(Spec {
        name: name?,
        workdir,
        parallel: parallel?,
        deal: deal?,
        hf_dir,
        dataset,
        runtime,
        storage: file.storage.unwrap_or_default(),
        priority,
        labels: labels?,
        stages: stages?,
        warnings: Vec::new(),
        origin: origin.clone(),
    })
}

fn labels(placement: PlacementFile, context: &mut Context<'_>) -> Option<Labels> {
    let wanted = placement.labels.into_iter().map(|(name, value)| (name, value.0)).collect();
    let checked = Labels::new(wanted);
    if let Err(error) = &checked {
        let hint = "`qctl nodes -o json` shows the labels of every node".to_owned();
        context.refuse("placement.labels", error.to_string(), Some(hint));
    }
    checked.ok()
}

fn workdir(workdir: Option<String>, needed: bool, context: &mut Context<'_>) -> Option<String> {
    let workdir = if needed {
        context.required("workdir", workdir, "name the directory that relative paths are seen from")?
    } else {
        workdir?
    };
    let workdir = context.path("workdir", workdir)?;
    if !workdir.starts_with('/') {
        context.refuse(
            "workdir",
            format!("`{workdir}` is not absolute, and agents run elsewhere"),
            Some("write the whole path, from `/`".to_owned()),
        );
        return None;
    }
    Some(workdir)
}

fn parallel(file: &ParallelFile, context: &mut Context<'_>) -> Option<Parallel> {
    let tp = context.number("parallel.tp", file.tp.unwrap_or(1), 1, 1024);
    let pp = context.number("parallel.pp", file.pp.unwrap_or(1), 1, 1024);
    if context.is_silent("parallel.tp") || context.is_silent("parallel.pp") || context.is_silent("parallel") {
        return None;
    }
    Parallel::new(tp?, pp?).ok()
}

/// What can be said without the model; [`Deal::check`] says the rest once it is seen.
fn deal(file: &mut ParallelFile, parallel: Parallel, context: &mut Context<'_>) -> Option<Deal> {
    let at = "parallel.num_layers_per_virtual_pipeline_stage";
    let per_chunk = match file.num_layers_per_virtual_pipeline_stage {
        Some(n) => Some(context.number(at, n, 1, 4096)?),
        None => None,
    };
    let deal = Deal { list: file.num_layer_list.take(), per_chunk, noop: std::mem::take(&mut file.noop_layers) };
    let lengths = [("num_layer_list", deal.list.as_ref().map(Vec::len), 1), ("noop_layers", Some(deal.noop.len()), 0)];
    for (key, length, least) in lengths {
        if let Some(length) = length.filter(|length| !(least..=1024).contains(length)) {
            let message = format!("{length} numbers, expected at least {least} and at most 1024");
            context.refuse(&format!("parallel.{key}"), message, None);
            return None;
        }
    }
    // With as many layers as the list has, all that is left to be wrong is the file's own.
    let layers = deal.list.as_ref().map(|list| list.iter().fold(0_u64, |sum, n| sum.saturating_add(*n)));
    if let Some(Err(error)) = layers.map(|layers| deal.check(parallel.pp(), layers)) {
        context.refuse("parallel.num_layer_list", error.to_string(), error.hint());
        return None;
    }
    if deal.per_chunk.is_some() && parallel.pp() == 1 {
        context.refuse(
            at,
            "virtual pipeline stages need more than one pipeline stage",
            Some("leave it out".to_owned()),
        );
        return None;
    }
    Some(deal)
}

fn model_dir(file: Option<crate::file::ModelFile>, context: &mut Context<'_>) -> Option<String> {
    let file = file?;
    if let Some(download) = file.download {
        let hint = match (download.modelscope, download.huggingface) {
            (Some(repository), _) => {
                format!("run `modelscope download --model {repository} --local_dir DIR` first and remove this key")
            }
            (None, _) => "fetch the model first and remove this key".to_owned(),
        };
        context.refuse("model.download", "downloading is not supported yet", Some(hint));
    }
    context.path("model.hf_dir", file.hf_dir?)
}

fn dataset(files: Vec<String>, context: &mut Context<'_>) -> Vec<String> {
    if files.len() > MAX_FILES {
        context.refuse("dataset.files", format!("there are {} files; at most {MAX_FILES}", files.len()), None);
        return Vec::new();
    }
    let paths: Vec<String> = files
        .into_iter()
        .enumerate()
        .filter_map(|(index, file)| context.path(&format!("dataset.files.{index}"), file))
        .collect();
    for (index, path) in paths.iter().enumerate() {
        if paths[..index].contains(path) {
            context.warn(
                &format!("dataset.files.{index}"),
                format!("`{path}` is given twice, so its text counts twice"),
                None,
            );
        }
    }
    paths
}

fn runtime(file: RuntimeFile, context: &mut Context<'_>) -> Runtime {
    let python = file.python.and_then(|python| context.path("runtime.python", python));
    let source = file
        .source
        .into_iter()
        .enumerate()
        .filter_map(|(index, path)| context.path(&format!("runtime.source.{index}"), path))
        .collect();
    Runtime {
        python: python.unwrap_or_else(|| "python3".to_owned()),
        source,
        mindspeed_root: file.mindspeed_root.and_then(|root| context.path("runtime.mindspeed_root", root)),
        env: env("runtime.env", file.env, context),
        device: file.device.unwrap_or_default(),
    }
}

/// Checks variables: names as POSIX has them, none that a launcher sets.
fn env(path: &str, file: BTreeMap<String, Written>, context: &mut Context<'_>) -> BTreeMap<String, String> {
    if file.len() > 256 {
        context.refuse(path, format!("there are {} variables; at most 256", file.len()), None);
    }
    file.into_iter()
        .filter_map(|(name, value)| {
            let path = format!("{path}.{name}");
            let mut chars = name.chars();
            let valid = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
                && chars.all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !valid {
                context.refuse(&path, format!("`{name}` is no name of a variable"), None);
                return None;
            }
            if RESERVED.contains(&name.as_str()) {
                context.refuse(
                    &path,
                    format!("`{name}` is set for each process by its launcher"),
                    Some("remove it".to_owned()),
                );
                return None;
            }
            let upper = name.to_uppercase();
            if ["SECRET", "PASSWORD", "TOKEN", "API_KEY"].iter().any(|word| upper.contains(word)) {
                context.warn(
                    &path,
                    format!("`{name}` looks like a secret; specs are stored and shown"),
                    Some("put it in a file named in `runtime.source`, readable by its owner alone".to_owned()),
                );
            }
            Some((name, value.0))
        })
        .collect()
}

fn all_stages(
    StagesFile(files): StagesFile,
    inputs: &stages::Inputs<'_>,
    context: &mut Context<'_>,
) -> Option<Vec<Stage>> {
    if files.is_empty() {
        context.refuse(
            "stages",
            "there is no stage",
            Some(format!("add one of {}, or one of your own with `run`", list(&KNOWN_STAGES))),
        );
        return None;
    }
    if files.len() > MAX_STAGES {
        context.refuse("stages", format!("there are {} stages; at most {MAX_STAGES}", files.len()), None);
        return None;
    }
    let mut named: Vec<(Stage, Vec<String>)> = Vec::new();
    let mut complete = true;
    let outline = stages::Outline::new(&files);
    for (name, file) in files {
        if !context.identifier(&format!("stages.{name}"), &name, 31) {
            complete = false;
            continue;
        }
        match stages::stage(&name, file, &outline, inputs, context) {
            Some(checked) => named.push(checked),
            None => complete = false,
        }
    }
    let stages = graph::order(named, complete, context);
    complete.then_some(stages).flatten()
}
