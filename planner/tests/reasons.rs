//! Every reason that can be given, in the smallest world that gives it.
#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::wildcard_enum_match_arm,
    clippy::disallowed_methods,
    reason = "the bans are for the planner, not for what drives it"
)]

mod common;
mod script;

use std::collections::BTreeSet;

use model::{JobId, Liveness};
use planner::reason::{Away, Lack, Needs, Spot};
use planner::{Reason, World, job_reason, stage_reason, task_reason};

/// Commands of a script, a job, stage or task at their end, and what is said of it.
const TABLE: &[(&str, &str, &str)] = &[
    ("submit j1 | a run", "j1", "stage `a`: needs a node; 0 have joined"),
    ("submit j1 | a run reused=j0 | b run after=a", "j1.a", "taken over from job j0"),
    (
        "hello n1; submit j1 | a run retries=0 | b run after=a; ended n1 j1.a.0.1 exit=3",
        "j1.b",
        "another part of the job failed",
    ),
    ("submit j1 | a run; cancel j1", "j1", "`ann` asked to cancel it: enough"),
    (
        "hello n1; submit j1 | a run retries=0; ended n1 j1.a.0.1 exit=3 says=no_space",
        "j1.a",
        "node `n1`, exit code 3: no space",
    ),
    (
        "hello n1; submit j1 | a run retries=0; started n1 j1.a.0.1; wait 61",
        "j1.a.0",
        "node `n1`, node lost: the node fell silent (hint: is its agent running?)",
    ),
    (
        "hello n1; submit j1 | a run retries=1; ended n1 j1.a.0.1 signal=9; wait 2 n1; ended n1 j1.a.0.2 signal=9",
        "j1.a.0",
        "node `n1`, signal 9; all retries are used: 1 within 24 h",
    ),
    ("submit j1 | a run | b run | c run after=a,b", "j1.c.0", "waits for `a` and `b`"),
    (
        "hello n1; submit j1 | a convert tasks=2 closing",
        "j1.a.2",
        "closes the stage, and waits for its other tasks (2 open)",
    ),
    (
        "hello n1; submit j1 | a run retries=1; ended n1 j1.a.0.1 signal=9",
        "j1.a.0",
        "is tried again in 1 s (retry 1 of 1 within 24 h): node `n1`, signal 9",
    ),
    (
        "hello n1; hello n2; submit j1 | t train retries=3; prepared n1 j1.t.0.1 port=7; started n1 j1.t.0.1; \
         shard n1 j1.t.0.1 at=5; tracker n1 j1.t.0.1 at=5; ended n1 j1.t.0.1 signal=9; cordon n1 fan; wait 2 n1 n2",
        "j1.t.0",
        "its checkpoint of iteration 5 lies on node `n1`, which is cordoned by op: fan",
    ),
    ("submit j1 | p preflight pin=n9", "j1.p.0", "must run on node `n9`, which has not joined"),
    ("hello n1; submit j1 npu | p preflight pin=n1 slots=1", "j1.p.0", "must run on node `n1`, which has no NPUs"),
    (
        "hello n1; gone n1; submit j1 | p preflight pin=n1",
        "j1.p.0",
        "must run on node `n1`, which is between two sessions",
    ),
    (
        "hello n1; leader; submit j1 | p preflight pin=n1",
        "j1.p.0",
        "must run on node `n1`, which has not spoken since this controller took over",
    ),
    ("hello n1; wait 61; submit j1 | p preflight pin=n1", "j1.p.0", "must run on node `n1`, which is lost"),
    (
        "hello n1; wait 6; fence n1 power; submit j1 | p preflight pin=n1",
        "j1.p.0",
        "must run on node `n1`, which is fenced by op: power",
    ),
    ("submit j1 | a run nodes=2", "j1.a.0", "needs 2 nodes; 0 have joined"),
    (
        "hello n1; submit j1 | t train ranks=9",
        "j1.t.0",
        "needs 9 free cpu slots on one node; 0 of 1 joined nodes of this kind are large enough",
    ),
    (
        "submit j1 | t train nodes=2 ranks=2",
        "j1.t.0",
        "needs 2 nodes with 2 free cpu slots each; 0 of 0 joined nodes of this kind are large enough",
    ),
    (
        "hello n1; hello n2; drain n1; submit j1 | t train nodes=2",
        "j1.t.0",
        "needs 2 nodes with a free cpu slot each; 1 of 2 joined nodes has them; node `n1` is being drained by op: fan",
    ),
    (
        "hello n1; wait 6; submit j1 | a run",
        "j1.a.0",
        "needs a node; 0 of 1 joined nodes take work; node `n1` is silent",
    ),
    ("hello n1; submit j1 | a run tasks=3", "j1.a.2", "every node runs 2 such tasks, which is its limit"),
    (
        "hello n1 slots=1; submit j1 | a run slots=1; submit j2 | a run slots=1; submit j3 | a run slots=1",
        "j3.a.0",
        "needs a free cpu slot; job `j2` is ahead in the queue",
    ),
    (
        "hello n1 slots=1; submit j1 | a run slots=1 limit=60000; submit j2 | a run slots=1; wait 20 n1; submit j3 | a run slots=1",
        "j3.a.0",
        "needs a free cpu slot; job `j2` is ahead in the queue, and has room in 40 s at the latest",
    ),
    (
        "hello n1; submit j1 | a run slots=1 limit=1000; started n1 j1.a.0.1; wait 2 n1; ended n1 j1.a.0.1 stopped",
        "j1.a.0",
        "node `n1`, out of time: it did not end within its time limit of 1 s (hint: give the stage a longer `time_limit`)",
    ),
    (
        "hello n1 live=j9.x.0.1; submit j1 | a run slots=1",
        "j1.a.0",
        "needs a free cpu slot; 0 of 1 joined nodes have one; node `n1` runs what was replaced, or is unknown here",
    ),
    (
        "hello n1; unfit n1 0 1; submit j1 | a run slots=1",
        "j1.a.0",
        "needs a free cpu slot; 0 of 1 joined nodes have one; node `n1` has 0 of 2 slots free: slots 0 and 1 are in alarm",
    ),
    (
        "hello n1; submit j1 | a run slots=2; submit j2 | a run slots=1",
        "j2.a.0",
        "needs a free cpu slot; 0 of 1 joined nodes have one; node `n1` has 0 of 2 slots free: job `j1` runs there",
    ),
    (
        "hello n1; hello n2; hello n3; cordon n3 fan; submit j1 | a run slots=1; submit j2 | t train nodes=2 ranks=2",
        "j2.t.0",
        "needs 2 nodes with 2 free cpu slots each; 1 of 3 joined nodes has them; node `n3` is cordoned by op: fan; \
         node `n1` has 1 of 2 slots free: job `j1` runs there",
    ),
    (
        "hello n1 slots=1; hello n2 slots=1; hello n3 slots=1; hello n4 slots=1; hello n5 slots=1; hello n6 slots=1; \
         wait 6; submit j1 | a run slots=1",
        "j1.a.0",
        "needs a free cpu slot; 0 of 6 joined nodes have one; node `n1` is silent; node `n2` is silent; \
         node `n3` is silent; node `n4` is silent; and 2 more",
    ),
    ("hello n1; submit j1 | t train", "j1.t.0", "waits for `n1` to be prepared"),
    (
        "hello n1; submit j1 | a run tasks=5; ended n1 j1.a.0.1 ok ran=1",
        "j1.a.2",
        "is in the queue of `n1`, which runs 2 of its kind at once",
    ),
    ("hello n1; submit j1 | a run", "j1.a.0", "starts on `n1`"),
    ("hello n1; submit j1 | a run; started n1 j1.a.0.1", "j1.a.0", "runs on `n1`"),
    ("hello n1; submit j1 | a run; started n1 j1.a.0.1; wait 6", "j1.a.0", "runs on `n1` (silent)"),
    (
        "hello n1; submit j1 | t train; prepared n1 j1.t.0.1 port=7; started n1 j1.t.0.1; wait 61",
        "j1.t.0",
        "runs on `n1` (lost)",
    ),
    (
        "hello n1; submit j1 | a run; started n1 j1.a.0.1; cancel j1",
        "j1.a.0",
        "`ann` asked to cancel it: enough; waits for `n1` to confirm the stop",
    ),
    (
        "hello n1; submit j1 | a run; started n1 j1.a.0.1; drain n1 within=0",
        "j1.a.0",
        "a node of it is being drained, and it runs again elsewhere; waits for `n1` to confirm the stop",
    ),
    (
        "hello n1; submit j1 | a run; started n1 j1.a.0.1; restart j1 stage=a stop",
        "j1.a.0",
        "`ann` asked to begin it again; waits for `n1` to confirm the stop",
    ),
];

/// Kinds of reasons, of nodes that are away, of needs, of seats, of nodes without room.
const KINDS: [usize; 5] = [23, 7, 6, 3, 3];

#[test]
fn every_reason_is_reached_and_is_said_as_promised() {
    let mut reached: [BTreeSet<usize>; 5] = Default::default();
    let mut wrong = Vec::new();
    for (commands, subject, sentence) in TABLE {
        let world = script::world(commands);
        let reason = reason_of(&world, subject);
        let said = reason.as_ref().map(Reason::to_string).unwrap_or_default();
        if said != *sentence {
            wrong.push(format!("{commands}: {subject} {said}"));
        }
        reason.iter().for_each(|reason| note(reason, &mut reached));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for (reached, kinds) in reached.iter().zip(KINDS) {
        assert_eq!(*reached, (0..kinds).collect(), "some are never given");
    }
}

fn reason_of(world: &World, subject: &str) -> Option<Reason> {
    let mut words = subject.split('.');
    let job = &world.jobs[&JobId::new(words.next().unwrap()).unwrap()];
    let Some(stage) = words.next() else { return job_reason(world, job) };
    let stage = job.stages.iter().find(|known| known.name.as_str() == stage).unwrap();
    let Some(task) = words.next() else { return stage_reason(world, job, stage) };
    task_reason(world, job, stage, &stage.tasks[task.parse::<usize>().unwrap()])
}

/// Counts a reason and all within it. A new kind does not compile until it has
/// a number here, and then fails until the table reaches it.
fn note(reason: &Reason, reached: &mut [BTreeSet<usize>; 5]) {
    let [reasons, aways, needing, spots, lacking] = reached;
    let mut away = |away: &Away| {
        aways.insert(match away {
            Away::Cordoned(_) => 0,
            Away::Drained(_) => 1,
            Away::Unheard => 2,
            Away::BetweenSessions => 3,
            Away::Silent => 4,
            Away::Lost => 5,
            Away::Fenced(_) => 6,
        });
    };
    let mut lack = |lack: &Lack| match lack {
        Lack::Away(is) => away(is),
        Lack::Strangers => _ = lacking.insert(0),
        Lack::Taken { jobs, alarmed, .. } => {
            lacking.extend((!jobs.is_empty()).then_some(1).into_iter().chain((!alarmed.is_empty()).then_some(2)));
        }
    };
    let mut needs = |needs: &Needs| {
        needing.insert(match (needs.nodes, needs.per_node) {
            (1, 0) => 0,
            (_, 0) => 1,
            (1, 1) => 2,
            (1, _) => 3,
            (_, 1) => 4,
            (_, _) => 5,
        });
    };
    let mut on = |seats: &[Spot]| {
        spots.extend(seats.iter().map(|spot| match spot.liveness {
            Some(Liveness::Ready) => 0,
            Some(Liveness::Unheard | Liveness::Suspect) => 1,
            Some(Liveness::Lost) | None => 2,
        }));
    };
    let within = match reason {
        Reason::InStage { why, .. } => Some((0, why)),
        Reason::Stopping { why, waits } => {
            on(waits);
            Some((1, why))
        }
        _ => None,
    };
    if let Some((kind, why)) = within {
        reasons.insert(kind);
        return note(why, reached);
    }
    reasons.insert(match reason {
        Reason::InStage { .. } => 0,
        Reason::Stopping { .. } => 1,
        Reason::TakenOver(_) => 2,
        Reason::FailedElsewhere => 3,
        Reason::Cancelled(_) => 4,
        Reason::Failed { .. } => 5,
        Reason::Stages(_) => 6,
        Reason::Closing(_) => 7,
        Reason::Backoff { .. } => 8,
        Reason::Checkpoint { lack: is, .. } => {
            lack(is);
            9
        }
        Reason::PinnedAbsent(_) => 10,
        Reason::PinnedKind(..) => 11,
        Reason::PinnedAway(_, is) => {
            away(is);
            12
        }
        Reason::TooFew { needs: what, .. } => {
            needs(what);
            13
        }
        Reason::Short { needs: what, lacks, .. } => {
            needs(what);
            lacks.iter().for_each(|(_, is)| lack(is));
            14
        }
        Reason::Full(_) => 15,
        Reason::Behind { needs: what, .. } => {
            needs(what);
            16
        }
        Reason::Preparing(seats) => {
            on(seats);
            17
        }
        Reason::Queued(seat, _) => {
            on(std::slice::from_ref(seat));
            18
        }
        Reason::Starting(seats) => {
            on(seats);
            19
        }
        Reason::Running(seats) => {
            on(seats);
            20
        }
        Reason::Moved => 21,
        Reason::Restarted(_) => 22,
    });
}
