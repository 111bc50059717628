//! Jobs and nodes in one line each.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::BTreeMap;

use model::{
    Body, DeviceKind, EngineBody, History, Job, JobId, JobName, Labels, Launcher, Node, NodeId, Parallel, Placement,
    PreflightBody, Retries, Runtime, Stage, StageKind, StageName, Task, TaskShape, TaskState, Timestamp, Tool,
    TrainBody,
};

/// Reads `j1 name=demo prio=5 key=k owner=o on=zone:a shared npu | pre preflight pin=n1,n2 | c convert tasks=2 closing after=pre`.
///
/// Stage options: `tasks=N`, `closing`, `pin=a,b` (one task each), `nodes=N`,
/// `ranks=N`, `slots=N` (of a rank), `retries=N`, `limit=MS`, `window=MS`, `backoff=MS` (of retries), `tp=N`, `pp=N`, `fresh` (no resume),
/// `dir=PATH` (of checkpoints), `reused=JOB`, `after=a,b`.
pub(crate) fn job(text: &str) -> Job {
    let mut parts = text.split('|').map(str::trim);
    let head: Vec<&str> = parts.next().unwrap().split_whitespace().collect();
    let options = options(&head[1..]);
    let get = |key: &str| options.get(key).cloned();
    let mut stages: Vec<Stage> = Vec::new();
    for part in parts {
        let stage = stage(part, &stages);
        stages.push(stage);
    }
    Job {
        id: JobId::new(head[0]).unwrap(),
        name: JobName::new(get("name").unwrap_or_else(|| head[0].to_owned())).unwrap(),
        owner: get("owner").unwrap_or_else(|| "ann".to_owned()),
        priority: get("prio").map_or(0, |text| text.parse().unwrap()),
        submitted: Timestamp(0),
        ended: None,
        idempotency_key: get("key"),
        spec_text: String::new(),
        runtime: Runtime {
            device: if get("npu").is_some() { DeviceKind::Ascend } else { DeviceKind::Cpu },
            shared_storage: get("shared").is_some(),
            ..Runtime::default()
        },
        placement: Placement { labels: get("on").map(|text| labels(&text)).unwrap_or_default() },
        stages,
        cancel: None,
        restarts: Vec::new(),
        last_event: 0,
    }
}

/// Reads `zone:a,rack:r1`.
pub(crate) fn labels(text: &str) -> Labels {
    let pairs = text.split(',').map(|pair| pair.split_once(':').unwrap());
    Labels::new(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()).unwrap()
}

fn options(words: &[&str]) -> BTreeMap<String, String> {
    words
        .iter()
        .map(|word| word.split_once('=').unwrap_or((word, "")))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn stage(text: &str, before: &[Stage]) -> Stage {
    let words: Vec<&str> = text.split_whitespace().collect();
    let options = options(&words[2..]);
    let number = |key: &str, default: u32| options.get(key).map_or(default, |text| text.parse().unwrap());
    let kind = match words[1] {
        "preflight" => StageKind::Preflight,
        "convert" => StageKind::Convert,
        "preprocess" => StageKind::Preprocess,
        "train" => StageKind::Train,
        "export" => StageKind::Export,
        "run" => StageKind::Run,
        other => panic!("no stage kind `{other}`"),
    };
    let pins: Vec<NodeId> = options
        .get("pin")
        .map(|text| text.split(',').map(|node| NodeId::new(node).unwrap()).collect())
        .unwrap_or_default();
    let closing = options.contains_key("closing");
    let count =
        if pins.is_empty() { number("tasks", 1) + u32::from(closing) } else { u32::try_from(pins.len()).unwrap() };
    let train = kind == StageKind::Train;
    let reused = options.get("reused").map(|from| JobId::new(from.as_str()).unwrap());
    let task = |index: u32| Task {
        label: String::new(),
        closing: closing && index + 1 == count,
        shape: TaskShape {
            nodes: number("nodes", 1),
            ranks_per_node: number("ranks", 1),
            slots_per_rank: number("slots", u32::from(train)),
            pinned: pins.get(index as usize).cloned(),
        },
        body: body(kind, (number("tp", 1), number("pp", 1)), options.contains_key("fresh"), options.get("dir")),
        limit_ms: options.get("limit").map(|text| text.parse().unwrap()),
        retries: Retries {
            max: number("retries", 2),
            window_ms: u64::from(number("window", 86_400_000)),
            backoff_ms: u64::from(number("backoff", 1_000)),
        },
        state: if reused.is_some() { TaskState::Skipped } else { TaskState::Waiting { not_before: None } },
        history: History::default(),
    };
    Stage {
        name: StageName::new(words[0]).unwrap(),
        kind,
        after: options
            .get("after")
            .map(|text| {
                text.split(',').map(|name| before.iter().position(|s| s.name.as_str() == name).unwrap()).collect()
            })
            .unwrap_or_default(),
        digest: None,
        reused: reused.clone(),
        tasks: (0..count).map(task).collect(),
        checkpoints: BTreeMap::new(),
    }
}

fn body(kind: StageKind, (tp, pp): (u32, u32), fresh: bool, dir: Option<&String>) -> Body {
    let engine = |tool| {
        Body::Engine(EngineBody {
            tool,
            args: Vec::new(),
            out: Some(("--out".to_owned(), "/out".to_owned())),
            manifest: false,
        })
    };
    match kind {
        StageKind::Preflight => Body::Preflight(PreflightBody::default()),
        StageKind::Convert | StageKind::Export => engine(Tool::Convert),
        StageKind::Preprocess => engine(Tool::Tokenize),
        StageKind::Run => Body::Run { argv: vec!["true".to_owned()] },
        StageKind::Train => Body::Train(TrainBody {
            launcher: Launcher::Ranks,
            script: "pretrain_gpt.py".to_owned(),
            args: Vec::new(),
            resume_args: if fresh { Vec::new() } else { vec!["--load".to_owned()] },
            scheduler: Vec::new(),
            parallel: Parallel::new(tp, pp).unwrap(),
            save_dir: dir.map_or("/ckpt", String::as_str).to_owned(),
            train_iters: 1_000,
            vocab_size: 0,
            grace_ms: 20_000,
        }),
    }
}

pub(crate) fn node(id: &str, slots: u32, boot: &str) -> Node {
    Node {
        id: NodeId::new(id).unwrap(),
        boot_id: boot.to_owned(),
        hostname: id.to_owned(),
        address: "127.0.0.1".to_owned(),
        version: "0.1.0".to_owned(),
        device: DeviceKind::Cpu,
        slots,
        labels: Labels::default(),
        groups: Vec::new(),
        spare: false,
        spare_word: None,
        cpus: 2,
        memory: 1 << 30,
        joined: Timestamp(0),
        cordon: None,
        fence: None,
    }
}
