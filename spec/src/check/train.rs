//! The checks of a training stage.

use model::Parallel;

use super::context::Context;
use super::stages::{Inputs, Outline, words};
use crate::arguments::train::{DERIVED_FLAGS, OWNED_FLAGS};
use crate::decode::one_of;
use crate::file::{Decimal, RecomputeFile, RecomputeKeys, TrainFile};
use crate::spec::{Derived, Recompute, Resume, Train};
use crate::words::{Granularity, Launcher, Method};

/// Most iterations, batch sizes and intervals: above these a number is a slip.
const ABSURD: u64 = 1_000_000_000;

/// Most ranks of a job.
const MAX_RANKS: u32 = 65_536;

pub(super) fn train(
    file: TrainFile,
    outline: &Outline,
    inputs: &Inputs<'_>,
    context: &mut Context<'_>,
) -> Option<Train> {
    let at = |key: &str| format!("stages.train.{key}");
    let script = context.path(&at("script"), file.script.clone().unwrap_or_else(|| "pretrain_gpt.py".to_owned()));
    let world = world(&file, inputs.parallel, context);
    let derive = file.derive.unwrap_or(true);
    let save_dir = save_dir(&file, derive, outline, context);
    let load_dir = file.load_dir.clone().and_then(|dir| context.path(&at("load_dir"), dir));
    let data_path = file.data_path.clone().and_then(|path| context.path(&at("data_path"), path));
    let derived = if derive {
        if inputs.hf_dir.is_none() {
            context.refuse(
                "model.hf_dir",
                "stage `train` derives its arguments from the model's config.json",
                Some("add `model: { hf_dir: ... }`, or give all arguments in `args` with `derive: false`".to_owned()),
            );
        }
        if data_path.is_none() && !outline.preprocess && !context.is_silent("stages.preprocess") {
            context.refuse(
                &at("data_path"),
                "there are no token files to train on",
                Some("add a `preprocess` stage, or `data_path`".to_owned()),
            );
        }
        Some(derived(&file, data_path, world.map(|world| world.data_parallel), context)?)
    } else {
        None
    };
    let args: Vec<String> = file.args.iter().map(|word| word.0.clone()).collect();
    words(&at("args"), &args, context)?;
    own_flags(&args, derive, context);
    without(&file.without, context);
    let launcher = file.launcher.unwrap_or_default();
    let scheduler = match file.scheduler {
        Some(_) if launcher == Launcher::Msrun => {
            context.refuse(
                &at("scheduler"),
                "msrun runs the training script as its scheduler and no other command",
                Some("remove it, or use `launcher: ranks`".to_owned()),
            );
            Vec::new()
        }
        Some(words) => words.into_iter().map(|word| word.0).collect(),
        None if launcher == Launcher::Msrun => Vec::new(),
        None => vec![
            inputs.python.to_owned(),
            "-c".to_owned(),
            "from mindspore.communication import init; init()".to_owned(),
        ],
    };
    words(&at("scheduler"), &scheduler, context)?;
    let checkpoint_optimizer = file.checkpoint_optimizer.unwrap_or(false);
    let resume = resume(file.resume, checkpoint_optimizer, save_dir.is_some(), derive, &args, context);
    let loads = load_dir.is_some() || outline.convert.is_some();
    let expect_pretrained = file.expect_pretrained.unwrap_or(loads);
    if expect_pretrained && !loads && !context.is_silent("stages.convert") {
        context.refuse(
            &at("expect_pretrained"),
            "no checkpoint is loaded, so training starts from random weights",
            Some("add a `convert` stage or `load_dir`, or say `expect_pretrained: false`".to_owned()),
        );
    }
    let world = world?;
    Some(Train {
        launcher,
        script: script?,
        nodes: world.nodes,
        ranks_per_node: world.ranks_per_node,
        data_parallel: world.data_parallel,
        derived,
        save_dir,
        load_dir,
        checkpoint_optimizer,
        resume: resume?,
        expect_pretrained,
        exit_on_missing_checkpoint: file.exit_on_missing_checkpoint.unwrap_or(true),
        without: file.without,
        args,
        scheduler,
    })
}

#[derive(Clone, Copy)]
struct World {
    nodes: u32,
    ranks_per_node: u32,
    data_parallel: u32,
}

/// Nodes and ranks that fit the layout; a tensor-parallel group stays on its node.
fn world(file: &TrainFile, parallel: Option<Parallel>, context: &mut Context<'_>) -> Option<World> {
    let at = "stages.train.ranks_per_node";
    let nodes = context.number("stages.train.nodes", file.nodes.unwrap_or(1), 1, 4096)?;
    let parallel = parallel?;
    let cell = u32::try_from(parallel.shards()).ok()?;
    let ranks_per_node = match file.ranks_per_node {
        Some(ranks) => ranks,
        None if nodes == 1 => cell,
        None if cell % nodes == 0 => cell / nodes,
        None => {
            let hint = "say how many devices of each node are used";
            return context.required(at, None, hint);
        }
    };
    let ranks_per_node = context.number(at, ranks_per_node, 1, 256)?;
    if context.is_silent(at) || context.is_silent("stages.train.nodes") {
        return None;
    }
    let ranks = nodes.checked_mul(ranks_per_node).filter(|ranks| *ranks <= MAX_RANKS);
    let Some(ranks) = ranks else {
        context.refuse(at, format!("{nodes} nodes x {ranks_per_node} ranks are more than {MAX_RANKS}"), None);
        return None;
    };
    let data_parallel = match parallel.dp(ranks) {
        Ok(data_parallel) => data_parallel,
        Err(error) => {
            let message =
                if nodes == 1 { error.to_string() } else { format!("{nodes} nodes x {ranks_per_node}: {error}") };
            context.refuse(at, message, error.hint());
            return None;
        }
    };
    if ranks_per_node % parallel.tp() != 0 {
        context.refuse(
            at,
            format!("{ranks_per_node} ranks a node are no multiple of tp = {}, so a tensor-parallel group would leave its node", parallel.tp()),
            Some(format!("use a multiple of {}", parallel.tp())),
        );
        return None;
    }
    Some(World { nodes, ranks_per_node, data_parallel })
}

fn save_dir(file: &TrainFile, derive: bool, outline: &Outline, context: &mut Context<'_>) -> Option<String> {
    let at = "stages.train.save_dir";
    let dir = if derive {
        context.required(at, file.save_dir.clone(), "name the directory of checkpoints")?
    } else {
        file.save_dir.clone()?
    };
    let dir = context.path(at, dir)?;
    let plain = |dir: &str| dir.trim_start_matches("./").trim_end_matches('/').to_owned();
    if let Some(Some(converted)) = &outline.convert
        && plain(converted) == plain(&dir)
    {
        context.refuse(
            at,
            "training would write over the converted checkpoint",
            Some("use a directory of its own".to_owned()),
        );
        return None;
    }
    Some(dir)
}

fn derived(
    file: &TrainFile,
    data_path: Option<String>,
    data_parallel: Option<u32>,
    context: &mut Context<'_>,
) -> Option<Derived> {
    let at = |key: &str| format!("stages.train.{key}");
    let mut needed = |key: &str, value: Option<u64>, most: u64, hint: &str| {
        let value = context.required(&at(key), value, hint)?;
        context.number(&at(key), value, 1, most)
    };
    let seq_length = needed("seq_length", file.seq_length, 1 << 24, "say how many tokens a sample has");
    let micro_batch_size = needed("micro_batch_size", file.micro_batch_size.or(Some(1)), 1 << 24, "");
    let global_batch_size =
        needed("global_batch_size", file.global_batch_size, 1 << 24, "say how many samples an iteration has");
    let train_iters = needed("train_iters", file.train_iters, ABSURD, "say which iteration is the last");
    let save_interval = needed("save_interval", file.save_interval.or(Some(2000)), ABSURD, "");
    let log_interval = needed("log_interval", file.log_interval.or(Some(1)), ABSURD, "");
    let eval_interval = needed("eval_interval", file.eval_interval.or(Some(2000)), ABSURD, "");
    // numpy takes seeds of 32 bits.
    let seed = context.number(&at("seed"), file.seed.unwrap_or(1234), 0, u64::from(u32::MAX));
    if let (Some(micro), Some(global), Some(dp)) = (micro_batch_size, global_batch_size, data_parallel) {
        batches(micro, global, u64::from(dp), context);
    }
    let lr = rate("lr", file.lr.as_ref(), "1.25e-6", context);
    let min_lr = rate("min_lr", file.min_lr.as_ref(), "1.25e-7", context);
    if let (Some((lr_text, lr)), Some((min_text, min))) = (&lr, &min_lr)
        && min > lr
    {
        context.refuse(
            &at(if file.min_lr.is_some() { "min_lr" } else { "lr" }),
            format!("min_lr {min_text} is above lr {lr_text}"),
            Some("set min_lr to at most lr".to_owned()),
        );
    }
    let recompute = match &file.recompute {
        None | Some(RecomputeFile::None) => None,
        Some(RecomputeFile::Keys(keys)) => Some(recompute(keys, context)?),
    };
    Some(Derived {
        seq_length: seq_length?,
        micro_batch_size: micro_batch_size?,
        global_batch_size: global_batch_size?,
        train_iters: train_iters?,
        recompute,
        data_path,
        lr: lr?.0,
        min_lr: min_lr?.0,
        save_interval: save_interval?,
        log_interval: log_interval?,
        eval_interval: eval_interval?,
        seed: seed?,
    })
}

fn batches(micro: u64, global: u64, dp: u64, context: &mut Context<'_>) {
    let unit = micro * dp;
    if !global.is_multiple_of(unit) {
        let below = global / unit * unit;
        let hint = if below == 0 { format!("use {unit}") } else { format!("use {below} or {}", below + unit) };
        context.refuse(
            "stages.train.global_batch_size",
            format!("{global} is no multiple of micro_batch_size x dp = {micro} x {dp}"),
            Some(hint),
        );
    }
}

/// A learning rate as spelled, and its value.
fn rate(key: &str, given: Option<&Decimal>, default: &str, context: &mut Context<'_>) -> Option<(String, f64)> {
    let spelled = given.map_or(default, |decimal| decimal.0.as_str());
    let at = format!("stages.train.{key}");
    match spelled.parse::<f64>() {
        Ok(value) if value.is_finite() && (0.0..=1000.0).contains(&value) && (value > 0.0 || key == "min_lr") => {
            Some((spelled.to_owned(), value))
        }
        Ok(_) | Err(_) => {
            context.refuse(
                &at,
                format!("`{spelled}` is no learning rate"),
                Some(format!("the tutorial uses {default}")),
            );
            None
        }
    }
}

fn recompute(keys: &RecomputeKeys, context: &mut Context<'_>) -> Option<Recompute> {
    let at = "stages.train.recompute";
    let granularity = context.required(
        &format!("{at}.granularity"),
        keys.granularity,
        "`full` or `selective`, or `recompute: none`",
    )?;
    match granularity {
        Granularity::Full => {
            let num_layers = context.number(&format!("{at}.num_layers"), keys.num_layers.unwrap_or(1), 1, 10_000)?;
            Some(Recompute::Full { method: keys.method.unwrap_or(Method::Uniform), num_layers })
        }
        Granularity::Selective => {
            for (key, given) in [("method", keys.method.is_some()), ("num_layers", keys.num_layers.is_some())] {
                if given {
                    context.refuse(
                        &format!("{at}.{key}"),
                        format!("`{key}` goes with `granularity: full` only"),
                        Some("remove it".to_owned()),
                    );
                }
            }
            Some(Recompute::Selective)
        }
    }
}

/// Flags that would contradict another key of the file, and flags given twice.
fn own_flags(args: &[String], derive: bool, context: &mut Context<'_>) {
    for (index, word) in args.iter().enumerate() {
        let flag = word.split_once('=').map_or(word.as_str(), |(flag, _)| flag);
        let at = format!("stages.train.args.{index}");
        let owner = OWNED_FLAGS.iter().find(|(owned, _, derived_only)| *owned == flag && (derive || !derived_only));
        if let Some((_, key, _)) = owner {
            context.refuse(
                &at,
                format!("`{flag}` is decided by `{key}`; two values would disagree"),
                Some(format!("set `{key}` instead")),
            );
        } else if derive && DERIVED_FLAGS.contains(&flag) {
            context.warn(
                &at,
                format!("`{flag}` is derived too; this one comes later and counts"),
                Some(format!("add it to `without` to give it once: without: [{flag}]")),
            );
        }
    }
}

fn without(flags: &[String], context: &mut Context<'_>) {
    for (index, flag) in flags.iter().enumerate() {
        if !DERIVED_FLAGS.contains(&flag.as_str()) {
            context.refuse(
                &format!("stages.train.without.{index}"),
                format!("`{}` is not among the derived flags", crate::tree::excerpt(flag)),
                crate::nearest::nearest(flag, DERIVED_FLAGS).map(|_| one_of("the flag", flag, &DERIVED_FLAGS)),
            );
        }
    }
}

fn resume(
    given: Option<Resume>,
    checkpoint_optimizer: bool,
    saves: bool,
    derive: bool,
    args: &[String],
    context: &mut Context<'_>,
) -> Option<Resume> {
    let at = "stages.train.resume";
    let resume = match given {
        Some(resume) => resume,
        None if !saves => Resume::Never,
        None if checkpoint_optimizer => Resume::Exact,
        None => Resume::Weights,
    };
    if resume != Resume::Never && !saves {
        if context.is_silent("stages.train.save_dir") {
            return None;
        }
        context.refuse(at, "nothing is saved, so nothing can be resumed", Some("add `save_dir`".to_owned()));
        return None;
    }
    if resume == Resume::Exact {
        let dropped = args.iter().find(|word| matches!(word.as_str(), "--no-save-optim" | "--no-save-rng"));
        if let Some(flag) = dropped {
            context.refuse(
                at,
                format!("`exact` is impossible beside `{flag}`"),
                Some(format!("take `{flag}` out of `args`, or use `resume: weights`")),
            );
            return None;
        }
        if derive && !checkpoint_optimizer {
            context.refuse(
                at,
                "`exact` is impossible beside the tutorial's --no-save-optim",
                Some("add `checkpoint_optimizer: true`, or use `resume: weights`".to_owned()),
            );
            return None;
        }
    }
    Some(resume)
}
