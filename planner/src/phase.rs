//! How far tasks, stages and jobs are: derived, never stored.

use model::{AttemptState, Job, Stage, Task, TaskState};

use crate::world::World;

macro_rules! phases {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $variant:ident = $name:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $type {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $type {
            /// All of them, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The stable name that listings and the wire use.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

phases!(
    /// How far a job is.
    JobPhase {
        /// Nothing has been placed yet.
        Pending = "pending",
        /// Some task has been placed.
        Running = "running",
        /// Somebody asked to cancel it, and some task is not over.
        Cancelling = "cancelling",
        /// All its work is done.
        Succeeded = "succeeded",
        /// A task failed for good, and all others are over.
        Failed = "failed",
        /// It ended unfinished because somebody asked for it.
        Cancelled = "cancelled",
    }
);

phases!(
    /// How far a stage is.
    StagePhase {
        /// Nothing has been placed yet.
        Pending = "pending",
        /// Some task has been placed.
        Running = "running",
        /// All its tasks are done.
        Succeeded = "succeeded",
        /// An earlier job's equal stage stands in for it.
        Reused = "reused",
        /// A task of it failed for good.
        Failed = "failed",
        /// It was ended unfinished.
        Cancelled = "cancelled",
        /// It was never started.
        Skipped = "skipped",
    }
);

phases!(
    /// How far a task is.
    TaskPhase {
        /// Waits for other stages, for room, or for its back-off to pass.
        Waiting = "waiting",
        /// Its seats check what they need.
        Preparing = "preparing",
        /// Its seats have been told to start.
        Running = "running",
        /// Its seats have been told to stop.
        Stopping = "stopping",
        /// Done.
        Succeeded = "succeeded",
        /// Failed for good.
        Failed = "failed",
        /// Ended unfinished for a reason that is not its own.
        Cancelled = "cancelled",
        /// Never started.
        Skipped = "skipped",
    }
);

impl JobPhase {
    /// Whether nothing will change any more.
    #[must_use]
    pub fn is_over(self) -> bool {
        match self {
            Self::Pending | Self::Running | Self::Cancelling => false,
            Self::Succeeded | Self::Failed | Self::Cancelled => true,
        }
    }
}

/// How far a job of `world` is.
#[must_use]
pub fn job(world: &World, job: &Job) -> JobPhase {
    let tallies = world.index.tallies(&job.id);
    if job.ended.is_some() {
        return if tallies.iter().any(|tally| tally.failed > 0) {
            JobPhase::Failed
        } else if tallies.iter().any(|tally| tally.cancelled > 0) {
            JobPhase::Cancelled
        } else {
            JobPhase::Succeeded
        };
    }
    let begun = |stage: usize| {
        stage_of(world, job, stage).is_some_and(|phase| match phase {
            StagePhase::Pending | StagePhase::Reused | StagePhase::Skipped => false,
            StagePhase::Running | StagePhase::Succeeded | StagePhase::Failed | StagePhase::Cancelled => true,
        })
    };
    if job.cancel.is_some() {
        JobPhase::Cancelling
    } else if (0..job.stages.len()).any(begun) {
        JobPhase::Running
    } else {
        JobPhase::Pending
    }
}

/// How far the stage at `position` is; `None` if the job has no such stage.
#[must_use]
pub fn stage_of(world: &World, job: &Job, position: usize) -> Option<StagePhase> {
    Some(stage(world, job, job.stages.get(position)?))
}

/// How far `stage`, one of `job`'s, is.
#[must_use]
pub fn stage(world: &World, job: &Job, stage: &Stage) -> StagePhase {
    let position = job.stages.iter().position(|other| other.name == stage.name);
    let Some(tally) = position.and_then(|at| world.index.tally(&job.id, at)) else { return StagePhase::Pending };
    let all = stage.tasks.len();
    let count = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    if tally.failed > 0 {
        StagePhase::Failed
    } else if tally.open() > 0 {
        let begun =
            !tally.active.is_empty() || tally.done > 0 || stage.tasks.iter().any(|task| !task.history.is_empty());
        if begun { StagePhase::Running } else { StagePhase::Pending }
    } else if stage.reused.is_some() {
        StagePhase::Reused
    } else if count(tally.done) == all {
        StagePhase::Succeeded
    } else if tally.cancelled > 0 || tally.done > 0 {
        StagePhase::Cancelled
    } else {
        StagePhase::Skipped
    }
}

/// How far a task is.
#[must_use]
pub fn task(task: &Task) -> TaskPhase {
    match &task.state {
        TaskState::Waiting { .. } => TaskPhase::Waiting,
        TaskState::Active(attempt) => match attempt.state {
            AttemptState::Preparing => TaskPhase::Preparing,
            AttemptState::Running => TaskPhase::Running,
            AttemptState::Draining(_) => TaskPhase::Stopping,
        },
        TaskState::Done { .. } => TaskPhase::Succeeded,
        TaskState::Failed { .. } => TaskPhase::Failed,
        TaskState::Cancelled { .. } => TaskPhase::Cancelled,
        TaskState::Skipped => TaskPhase::Skipped,
    }
}

/// Whether the stages that the one at `position` comes after have succeeded.
pub(crate) fn may_start(world: &World, job: &Job, position: usize) -> bool {
    job.stages.get(position).is_some_and(|stage| stage.after.iter().all(|before| succeeded(world, job, *before)))
}

/// Whether a stage has all its results.
pub(crate) fn succeeded(world: &World, job: &Job, position: usize) -> bool {
    stage_of(world, job, position).is_some_and(|phase| match phase {
        StagePhase::Succeeded | StagePhase::Reused => true,
        StagePhase::Pending
        | StagePhase::Running
        | StagePhase::Failed
        | StagePhase::Cancelled
        | StagePhase::Skipped => false,
    })
}
