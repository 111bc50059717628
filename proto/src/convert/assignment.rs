//! What a seat needs to run, on its way to an agent.

use model::{EngineBody, Launcher, PreflightBody, Runtime, Tool};

use crate::v1;

impl From<&Runtime> for v1::Runtime {
    fn from(runtime: &Runtime) -> Self {
        Self {
            workdir: runtime.workdir.clone(),
            python: runtime.python.clone(),
            source: runtime.source.clone(),
            env: runtime.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            mindspeed_root: runtime.mindspeed_root.clone().unwrap_or_default(),
            device: v1::DeviceKind::from(runtime.device).into(),
            shared_storage: runtime.shared_storage,
        }
    }
}

impl From<&PreflightBody> for v1::PreflightBody {
    fn from(body: &PreflightBody) -> Self {
        Self {
            require: body.require.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            readable: body.readable.clone(),
            writable: body.writable.clone(),
            free_bytes: body.free_bytes,
            train_script: body.train_script.clone().unwrap_or_default(),
            needs_mindspore: body.needs_mindspore,
        }
    }
}

impl From<&EngineBody> for v1::EngineBody {
    fn from(body: &EngineBody) -> Self {
        let tool = match body.tool {
            Tool::Convert => "convert",
            Tool::Tokenize => "tokenize",
        };
        let (out_flag, out_prefix) = body.out.clone().unwrap_or_default();
        Self { tool: tool.to_owned(), args: body.args.clone(), out_flag, out_prefix, manifest: body.manifest }
    }
}

impl v1::TrainBody {
    /// The body of one start: `args` are those of this start, chosen and complete.
    #[must_use]
    pub fn of_start(body: &model::TrainBody, args: Vec<String>) -> Self {
        let launcher = match body.launcher {
            Launcher::Ranks => "ranks",
            Launcher::Msrun => "msrun",
        };
        Self {
            launcher: launcher.to_owned(),
            script: body.script.clone(),
            args,
            scheduler: body.scheduler.clone(),
            tp: body.parallel.tp(),
            pp: body.parallel.pp(),
            save_dir: body.save_dir.clone(),
            train_iters: body.train_iters,
            vocab_size: body.vocab_size,
            grace_ms: body.grace_ms,
        }
    }
}
