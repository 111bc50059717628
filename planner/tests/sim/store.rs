//! What is saved: exactly the records that steps name.

use std::collections::BTreeMap;

use model::{Event, Job, JobId, Node, NodeId};
use planner::{World, Write};

#[derive(Clone, Default)]
pub(crate) struct Saved {
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) jobs: BTreeMap<JobId, Job>,
    pub(crate) events: BTreeMap<JobId, Vec<Event>>,
}

impl Saved {
    /// Takes over the named records and no others.
    pub(crate) fn apply<'a>(&mut self, world: &World, writes: impl Iterator<Item = &'a Write>, events: &[Event]) {
        for write in writes {
            match write {
                Write::Node(node) => _ = self.nodes.insert(node.clone(), world.nodes[node].record.clone()),
                Write::Plan(id) => self.plan(&world.jobs[id]),
                Write::Job(id) => {
                    let (from, head) = (&world.jobs[id], self.jobs.get_mut(id).unwrap());
                    (head.ended, head.last_event) = (from.ended, from.last_event);
                    head.cancel.clone_from(&from.cancel);
                    head.restarts.clone_from(&from.restarts);
                }
                Write::Tasks { job, stage, chunk } => {
                    let from = &world.jobs[job].stages[*stage].tasks;
                    let range = *chunk as usize * 64..from.len().min((*chunk as usize + 1) * 64);
                    let tasks = &mut self.jobs.get_mut(job).unwrap().stages[*stage].tasks;
                    tasks.truncate(tasks.len().max(range.start));
                    for at in range {
                        if at < tasks.len() { tasks[at] = from[at].clone() } else { tasks.push(from[at].clone()) }
                    }
                }
                Write::Checkpoints { job, stage } => {
                    let from = world.jobs[job].stages[*stage].checkpoints.clone();
                    self.jobs.get_mut(job).unwrap().stages[*stage].checkpoints = from;
                }
            }
        }
        for event in events {
            self.events.entry(event.job.clone()).or_default().push(event.clone());
        }
    }

    fn plan(&mut self, job: &Job) {
        let mut plan = Job { ended: None, cancel: None, restarts: Vec::new(), last_event: 0, ..job.clone() };
        for stage in &mut plan.stages {
            stage.tasks.clear();
            stage.checkpoints.clear();
        }
        assert!(self.jobs.insert(job.id.clone(), plan).is_none(), "a plan is written once");
    }
}
