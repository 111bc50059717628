//! Stages of many tasks: what a step saves and how it places them.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use model::{AttemptId, NodeId, Output, Timestamp};
use planner::invariants::invariants;
use planner::{Effect, Input, JobPhase, Policy, Report, World, Write, phase, step};

/// Plays a job of `tasks` tasks through, saying at once that what starts has ended.
fn play(tasks: u32) -> (World, usize, usize) {
    let mut world = World::new(Policy::default(), Timestamp(0));
    let at = Timestamp(0);
    for name in ["n1", "n2", "n3"] {
        let node = Box::new(common::node(name, 4, "b1"));
        _ = step(&mut world, &Input::Hello { node, session: 1, live: BTreeSet::new() }, at);
    }
    let job = common::job(&format!("j1 | a run tasks={tasks} closing slots=1 | b run after=a"));
    let mut starts: Vec<(NodeId, AttemptId)> = Vec::new();
    let mut ended = 0;
    let mut most = 0;
    let mut answer = step(&mut world, &Input::Submit(Box::new(job)), at);
    let written = answer.writes.iter().filter(|write| matches!(write, Write::Tasks { stage: 0, .. })).count();
    loop {
        starts.extend(answer.effects.iter().filter_map(|effect| match effect {
            Effect::Start { node, attempt, .. } => Some((node.clone(), attempt.clone())),
            Effect::Prepare { .. } | Effect::Stop { .. } | Effect::Recall { .. } | Effect::Forget { .. } => None,
        }));
        most = most.max(starts.len());
        let Some((node, attempt)) = starts.pop() else { break };
        ended += 1;
        let what = Report::Ended { ok: true, output: Output::default(), failure: None, ran_ms: None };
        answer = step(&mut world, &Input::Report { node, session: 1, attempt, what }, at);
        let chunks = answer.writes.iter().filter(|write| matches!(write, Write::Tasks { .. })).count();
        assert!(chunks <= 3, "one end changed {chunks} records");
    }
    assert_eq!(ended, tasks as usize + 2);
    assert_eq!(most, 12, "twelve slots, so twelve at once");
    (world, ended, written)
}

#[test]
fn every_slot_is_used_and_the_closing_task_comes_last() {
    let (world, _, written) = play(200);
    assert_eq!(written, 4, "201 tasks are four records of 64");
    let job = world.jobs.values().next().unwrap();
    assert_eq!(phase::job(&world, job), JobPhase::Succeeded);
    assert_eq!(invariants(&world), Vec::<String>::new());
    let ends: BTreeMap<u32, u32> = job.stages[0].tasks.iter().zip(0..).map(|(t, i)| (i, t.history[0].number)).collect();
    assert!(ends.values().all(|number| *number == 1));
}

#[test]
fn a_longer_stage_adds_its_placements_to_the_history_and_nothing_else() {
    let (small, ended_small, _) = play(300);
    let (large, ended_large, _) = play(3_000);
    assert_eq!(ended_large - ended_small, 2_700);
    let events = |world: &World| world.jobs.values().next().unwrap().last_event;
    assert_eq!(events(&large) - events(&small), 2_700);
}
