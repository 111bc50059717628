//! What a checkpoint holds, as the engine finds it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::command::beside;
use crate::failure::{Exit, Failure};

/// One iteration, as `qctl-convert inspect` describes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Contents {
    pub(super) directory: PathBuf,
    pub(super) tracker: Option<u64>,
    pub(super) iteration: u64,
    pub(super) tp: u32,
    pub(super) pp: u32,
    pub(super) virtual_stages: Option<u32>,
    pub(super) layers: Vec<u64>,
    pub(super) complete: bool,
    pub(super) verified: bool,
    pub(super) missing: Vec<String>,
    pub(super) problems: Vec<Problem>,
    pub(super) parameters: Option<u64>,
    pub(super) dtypes: Vec<String>,
    pub(super) bytes: u64,
    pub(super) shards: Vec<Shard>,
    pub(super) load: Option<Load>,
}

/// A file and what is wrong with it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Problem {
    pub(super) path: PathBuf,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

/// One rank's file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Shard {
    pub(super) tp: u32,
    pub(super) pp: u32,
    pub(super) path: PathBuf,
    pub(super) size: u64,
    pub(super) iteration: Option<u64>,
    pub(super) elements: u64,
    pub(super) intact: bool,
}

/// Whether a layout can load it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Load {
    pub(super) tp: u32,
    pub(super) pp: u32,
    pub(super) possible: bool,
    pub(super) reason: Option<String>,
    pub(super) hint: Option<String>,
}

/// What to ask the engine.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Question {
    pub(super) iteration: Option<u64>,
    pub(super) verify: bool,
    pub(super) load_as: Option<(u32, u32)>,
}

impl Contents {
    /// Lets the engine look; it tells its own errors.
    pub(super) fn read(dir: &Path, question: Question) -> Result<Self, Failure> {
        let program = beside("qctl-convert")?;
        let mut args: Vec<OsString> = vec!["inspect".into(), "--mcore-dir".into(), dir.into()];
        let mut give = |flag: &str, number: u64| args.extend([flag.into(), number.to_string().into()]);
        if let Some(iteration) = question.iteration {
            give("--iteration", iteration);
        }
        if let Some((tp, pp)) = question.load_as {
            give("--tp", tp.into());
            give("--pp", pp.into());
        }
        if question.verify {
            args.push("--verify".into());
        }
        let started = Command::new(&program).args(&args).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        let said =
            started.map_err(|error| Failure::because(format!("`{}` could not be run", program.display()), &error))?;
        if !said.status.success() {
            return Err(Failure::Said(if said.status.code() == Some(2) { Exit::Usage } else { Exit::Failed }));
        }
        serde_json::from_slice(&said.stdout).map_err(|error| {
            Failure::because(format!("`{}` said what is not understood", program.display()), &error)
                .hint("are all programs of qctl of one version? see `qctl version`")
        })
    }

    /// `iter_NNNNNNN` below the directory.
    pub(super) fn path(&self) -> PathBuf {
        self.directory.join(format!("iter_{:07}", self.iteration))
    }

    /// Why it is not whole: the first file that is broken, or the first that is missing.
    pub(super) fn fault(&self) -> Option<Failure> {
        if let Some(first) = self.problems.first() {
            let failure = Failure::new(Exit::Failed, first.message.clone());
            return Some(match &first.hint {
                Some(hint) => failure.hint(hint.clone()),
                None => failure,
            });
        }
        let first = self.missing.first()?;
        let more = match self.missing.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let failure = format!("`{}` lacks the shard `{first}`{more}", self.path().display());
        Some(
            Failure::new(Exit::Failed, failure)
                .hint("bring all shards into this directory, or choose another iteration"),
        )
    }
}

#[cfg(test)]
pub(super) fn example() -> Contents {
    let found = Shard { tp: 0, pp: 0, path: "s".into(), size: 1, iteration: Some(1), elements: 1, intact: true };
    Contents {
        directory: "d".into(),
        tracker: Some(1),
        iteration: 1,
        tp: 1,
        pp: 1,
        virtual_stages: Some(1),
        layers: vec![1],
        complete: false,
        verified: true,
        missing: vec!["mp_rank_01".into()],
        problems: vec![Problem { path: "s".into(), message: "`s` is damaged".into(), hint: None }],
        parameters: Some(1),
        dtypes: vec!["bf16".into()],
        bytes: 1,
        shards: vec![found],
        load: Some(Load { tp: 1, pp: 1, possible: false, reason: Some("no".into()), hint: None }),
    }
}
