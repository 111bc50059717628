//! Where our training command line differs from the tutorial's, and why.

use super::Arguments;
use crate::spec::{Device, Spec, Storage, Train};

/// One entry of the table.
#[derive(Clone, Copy)]
pub struct Correction {
    /// Short name, stable over versions.
    pub id: &'static str,
    /// When it applies, in a sentence.
    pub when: &'static str,
    /// What is changed and why, in a sentence.
    pub reason: &'static str,
    apply: fn(&mut Arguments, &Situation<'_>) -> bool,
}

impl std::fmt::Debug for Correction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Correction").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A correction that changed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its short name.
    pub id: &'static str,
    /// Its reason.
    pub reason: &'static str,
}

/// What decides whether a correction applies.
pub(crate) struct Situation<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) train: &'a Train,
    /// Distinct hosts that agents run on.
    pub(crate) hosts: u32,
}

/// The table, in the order of application.
pub static CORRECTIONS: [Correction; 6] = [
    Correction {
        id: "load-parent",
        when: "`--load` names an `iter_…` directory",
        reason: "Megatron looks for latest_checkpointed_iteration.txt inside --load; given the iteration itself it \
                 finds none and trains from random weights with exit code 0. The directory above is given instead",
        apply: load_parent,
    },
    Correction {
        id: "exit-on-missing-checkpoint",
        when: "a checkpoint is loaded and `exit_on_missing_checkpoint` is not false",
        reason: "without --exit-on-missing-checkpoint a missing checkpoint means random weights and exit code 0",
        apply: exit_on_missing,
    },
    Correction {
        id: "checkpoint-optimizer",
        when: "`checkpoint_optimizer: true`",
        reason: "--no-save-optim and --no-save-rng are left out, or no checkpoint could be resumed exactly; \
                 --no-load-optim and --no-load-rng stay for a first start, since converted weights have neither",
        apply: checkpoint_optimizer,
    },
    Correction {
        id: "no-shared-storage",
        when: "`storage: local`, more than one node and agents on more than one host",
        reason: "only global rank 0 builds the data index unless --no-shared-storage is given; each node gets its \
                 own with --data-cache-path",
        apply: no_shared_storage,
    },
    Correction {
        id: "cpu-kernels",
        when: "`device: cpu`",
        reason: "--use-flash-attn and the --use-fused-… kernels exist on NPUs only",
        apply: cpu_kernels,
    },
    Correction {
        id: "cpu-backend",
        when: "`device: cpu`",
        reason: "--distributed-backend nccl stands for the NPU's collectives; without an NPU it is gloo",
        apply: cpu_backend,
    },
];

/// Applies the table to derived arguments.
pub(crate) fn apply(arguments: &mut Arguments, situation: &Situation<'_>) -> Vec<Applied> {
    CORRECTIONS
        .iter()
        .filter(|correction| (correction.apply)(arguments, situation))
        .map(|correction| Applied { id: correction.id, reason: correction.reason })
        .collect()
}

/// The directory above `iter_NNNNNNN`, if that is what a path ends with.
pub(crate) fn parent_of_iteration(dir: &str) -> Option<String> {
    let trimmed = dir.trim_end_matches('/');
    let (parent, last) = trimmed.rsplit_once('/').unwrap_or((".", trimmed));
    let digits = last.strip_prefix("iter_")?;
    let is_iteration = digits.len() == 7 && digits.bytes().all(|b| b.is_ascii_digit());
    is_iteration.then(|| if parent.is_empty() { "/".to_owned() } else { parent.to_owned() })
}

fn load_parent(arguments: &mut Arguments, _: &Situation<'_>) -> bool {
    let Some(parent) = arguments.get("--load").and_then(parent_of_iteration) else { return false };
    arguments.set("--load", &parent);
    true
}

fn exit_on_missing(arguments: &mut Arguments, situation: &Situation<'_>) -> bool {
    let wanted =
        situation.train.exit_on_missing_checkpoint && arguments.has("--load") && situation.train.derived.is_some();
    if wanted {
        arguments.flag("--exit-on-missing-checkpoint");
    }
    wanted
}

fn checkpoint_optimizer(arguments: &mut Arguments, situation: &Situation<'_>) -> bool {
    if !situation.train.checkpoint_optimizer {
        return false;
    }
    let optim = arguments.remove("--no-save-optim");
    let rng = arguments.remove("--no-save-rng");
    optim || rng
}

fn no_shared_storage(arguments: &mut Arguments, situation: &Situation<'_>) -> bool {
    let apart = situation.spec.storage == Storage::Local && situation.train.nodes > 1 && situation.hosts > 1;
    if !apart || situation.train.derived.is_none() {
        return false;
    }
    arguments.flag("--no-shared-storage");
    if let Some(path) = arguments.get("--data-path").map(str::to_owned) {
        arguments.value("--data-cache-path", format!("{path}/cache"));
    }
    true
}

fn cpu_kernels(arguments: &mut Arguments, situation: &Situation<'_>) -> bool {
    let mut changed = false;
    if situation.spec.runtime.device == Device::Cpu {
        for flag in ["--use-flash-attn", "--use-fused-swiglu", "--use-fused-rmsnorm", "--use-fused-rotary-pos-emb"] {
            changed |= arguments.remove(flag);
        }
    }
    changed
}

fn cpu_backend(arguments: &mut Arguments, situation: &Situation<'_>) -> bool {
    let npu = situation.spec.runtime.device == Device::Cpu && arguments.get("--distributed-backend") == Some("nccl");
    if npu {
        arguments.set("--distributed-backend", "gloo");
    }
    npu
}

#[cfg(test)]
mod tests {
    use super::parent_of_iteration;

    #[test]
    fn only_an_iteration_has_a_parent_to_load() {
        for (dir, want) in [
            ("./w/iter_0000001", Some("./w")),
            ("./w/iter_0000001/", Some("./w")),
            ("/iter_0000020", Some("/")),
            ("iter_0000001", Some(".")),
            ("./w", None),
            ("./w/iter_1", None),
            ("./w/iter_000000x", None),
        ] {
            assert_eq!(parent_of_iteration(dir).as_deref(), want, "{dir}");
        }
    }
}
