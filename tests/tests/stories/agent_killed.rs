//! Ranks outlive their agent.

use std::time::Duration;

use stories::job::iterations;
use stories::lab::Lab;
use stories::pipeline;
use stories::poll::until;
use stories::process::Process;

#[test]
fn ranks_go_on_while_their_agent_is_dead_and_the_next_agent_adopts_them() {
    let lab = Lab::start();
    let job = lab.accepted(&pipeline::training(&lab, "orphans", 60, 100, &[]));
    lab.reaches(&job, 3);
    let ranks = lab.ranks();
    assert_eq!(ranks.iter().filter_map(Process::rank).collect::<Vec<_>>(), [0, 1, 2, 3]);

    // Each agent in turn: one holds the scheduler and the first ranks, one the rank that prints.
    for agent in lab.agents() {
        agent.kill9();
        until("the killed agent is gone", Duration::from_secs(5), || (!agent.lives()).then_some(()));
        until("another agent takes its place", Duration::from_secs(15), || {
            let now = lab.agents();
            (now.len() == 2 && now.iter().all(|one| one.pid != agent.pid)).then_some(())
        });
        let seen = iterations(&lab.log(&job, "train", 3)).last().copied().unwrap_or(0);
        lab.reaches(&job, seen + 5);
        assert!(ranks.iter().all(Process::lives), "no rank died with its agent");
    }
    lab.succeeds(&job, Duration::from_secs(60));
    let log = lab.log(&job, "train", 3);
    assert_eq!(iterations(&log), (1..=60).collect::<Vec<_>>(), "each line once, none missing");
    let events = lab.events(&job);
    assert!(events.iter().all(|event| event.kind != "attempt-failed" && event.kind != "task-retried"), "{events:#?}");
    let placed = events.iter().filter(|event| event.kind == "attempt-placed").count();
    assert_eq!(placed, 1, "one attempt did it all");
    let adopted = events.iter().filter(|event| event.kind == "attempt-adopted").count();
    assert_eq!(adopted, 2, "both adoptions are told: {events:#?}");
}
