//! Plays a script and writes down what came of each line.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use model::{AttemptId, Cause, Failure, JobId, NodeId, Output, StageName, Timestamp};
use planner::invariants::invariants;
use planner::{AboutCheckpoint, Effect, Input, Keep, Policy, Reply, Report, Step, World, Write, explain, phase, step};

use crate::common;

/// The world that a script ends with.
#[allow(dead_code, reason = "the recorded scripts look at what was said on the way")]
pub(crate) fn world(commands: &str) -> World {
    let mut stage = Stage::default();
    commands.split(';').map(str::trim).for_each(|command| stage.command(command));
    stage.world
}

/// The script's own lines, each followed by its effects.
#[allow(dead_code, reason = "the table of reasons looks at the end alone")]
pub(crate) fn play(text: &str) -> String {
    let mut stage = Stage::default();
    for line in text.lines() {
        match line.strip_prefix("> ") {
            Some(command) => {
                writeln!(stage.out, "{line}").unwrap();
                stage.command(command);
            }
            None if line.starts_with('#') || line.is_empty() => writeln!(stage.out, "{line}").unwrap(),
            None => {}
        }
    }
    stage.out
}

struct Agent {
    session: u64,
    slots: u32,
    boot: String,
    live: BTreeSet<AttemptId>,
}

#[derive(Default)]
struct Stage {
    world: World,
    now: Timestamp,
    sessions: u64,
    agents: BTreeMap<NodeId, Agent>,
    phases: BTreeMap<JobId, String>,
    wake: Option<Timestamp>,
    out: String,
}

impl Stage {
    fn command(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[0] {
            "submit" => self.input(&Input::Submit(Box::new(common::job(line.strip_prefix("submit ").unwrap())))),
            "cancel" => {
                let grace_ms = option(&words, "grace").map_or(5_000, |text| text.parse().unwrap());
                let job = JobId::new(words[1]).unwrap();
                self.input(&Input::Cancel { job, by: "ann".into(), reason: "enough".into(), grace_ms });
            }
            "restart" => self.restart(&words),
            "cordon" => {
                let reason = words[2..].join(" ");
                self.input(&Input::Cordon { node: NodeId::new(words[1]).unwrap(), by: "op".into(), reason });
            }
            "fence" => {
                let reason = words[2..].join(" ");
                self.input(&Input::Fence { node: NodeId::new(words[1]).unwrap(), by: "op".into(), reason });
            }
            "spare" => {
                let (node, spare) = (NodeId::new(words[1]).unwrap(), !words.contains(&"off"));
                self.input(&Input::Spare { node, by: "op".into(), spare });
            }
            "groups" => {
                let (node, groups) = (NodeId::new(words[1]).unwrap(), words[2].split(','));
                let groups = groups.map(|group| group.parse().unwrap()).collect();
                let session = self.agents[&node].session;
                self.input(&Input::Groups { node, session, groups });
            }
            "uncordon" => {
                self.input(&Input::Uncordon { node: NodeId::new(words[1]).unwrap(), by: "op".into() });
            }
            "drain" => {
                let node = NodeId::new(words[1]).unwrap();
                let deadline_ms = option(&words, "within").map(seconds);
                self.input(&Input::Drain { node, by: "op".into(), reason: "fan".into(), deadline_ms });
            }
            "hello" => self.hello(&words),
            "beat" => self.beat(&words),
            "gone" => {
                let node = NodeId::new(words[1]).unwrap();
                let session = self.agents[&node].session;
                self.input(&Input::SessionLost { node, session });
            }
            "unfit" => {
                let node = NodeId::new(words[1]).unwrap();
                let session = self.agents[&node].session;
                let slots = words[2..].iter().map(|slot| slot.parse().unwrap()).collect();
                self.input(&Input::Unfit { node, session, slots });
            }
            "wait" => self.wait(&words),
            "stall" => {
                self.now = self.now.after_ms(seconds(words[1]));
                self.input(&Input::Tick);
            }
            "leader" => self.leader(),
            "explain" => {
                let text = explain(&self.world, &JobId::new(words[1]).unwrap());
                text.lines().for_each(|line| writeln!(self.out, "  {line}").unwrap());
            }
            "checkpoints" => self.checkpoints(words[1]),
            "ckpt" => self.keep(&words),
            "quarantined" => {
                let text =
                    format!("{:?}", self.world.quarantined.iter().map(|(n, a)| format!("{n} {a}")).collect::<Vec<_>>());
                writeln!(self.out, "  {text}").unwrap();
            }
            _ => self.report(&words),
        }
    }

    fn hello(&mut self, words: &[&str]) {
        let node = NodeId::new(words[1]).unwrap();
        self.sessions += 1;
        let known = self.agents.remove(&node);
        let slots = option(words, "slots").map(|text| text.parse().unwrap());
        let boot = option(words, "boot").map(str::to_owned);
        let mut live = known.as_ref().map(|agent| agent.live.clone()).unwrap_or_default();
        if boot.is_some() {
            live.clear();
        }
        if let Some(text) = option(words, "live") {
            live = ids(text);
        }
        let agent = Agent {
            session: self.sessions,
            slots: slots.or(known.as_ref().map(|agent| agent.slots)).unwrap_or(2),
            boot: boot.or(known.map(|agent| agent.boot)).unwrap_or_else(|| "b1".into()),
            live: live.clone(),
        };
        let mut record = common::node(words[1], agent.slots, &agent.boot);
        record.spare = words.contains(&"spare");
        record.labels = option(words, "labels").map(common::labels).unwrap_or_default();
        record.groups = option(words, "groups")
            .map(|text| text.split(',').map(|group| group.parse().unwrap()).collect())
            .unwrap_or_default();
        self.agents.insert(node, agent);
        self.input(&Input::Hello { node: Box::new(record), session: self.sessions, live });
    }

    fn restart(&mut self, words: &[&str]) {
        let wish = planner::Restart {
            job: JobId::new(words[1]).unwrap(),
            by: "ann".into(),
            reason: String::new(),
            key: option(words, "key").map(str::to_owned),
            from_stage: option(words, "stage").map(|name| StageName::new(name).unwrap()),
            from_checkpoint: option(words, "checkpoint").map(|text| text.parse().unwrap()),
            stop_running: words.contains(&"stop"),
            grace_ms: 3_000,
        };
        self.input(&Input::Restart(Box::new(wish)));
    }

    /// `ckpt pin|unpin|rm|gone|read JOB STAGE ITERATION [force] [written=SECONDS] [NODE=FAULT]`.
    fn keep(&mut self, words: &[&str]) {
        let fault = |word: &&str| {
            let (node, fault) = word.split_once('=')?;
            Some((NodeId::new(node).unwrap(), fault.to_owned()))
        };
        let what = match words[1] {
            "pin" => Keep::Pin,
            "unpin" => Keep::Unpin,
            "rm" => Keep::Remove { force: words.contains(&"force") },
            "gone" => Keep::Removed,
            "read" => Keep::Verified {
                written: option(words, "written").map_or_else(|| self.written(words), |text| Timestamp(seconds(text))),
                faults: words[5..].iter().filter(|word| !word.starts_with("written=")).filter_map(fault).collect(),
            },
            other => panic!("no `ckpt {other}`"),
        };
        let (job, stage) = (JobId::new(words[2]).unwrap(), StageName::new(words[3]).unwrap());
        let iteration = words[4].parse().unwrap();
        self.input(&Input::Checkpoint(Box::new(AboutCheckpoint { job, stage, iteration, by: "ann".into(), what })));
    }

    fn written(&self, words: &[&str]) -> Timestamp {
        let job = JobId::new(words[2]).unwrap();
        let at = self.world.jobs[&job].stages.iter().position(|stage| stage.name.as_str() == words[3]).unwrap();
        planner::written(&self.world, &job, at, words[4].parse().unwrap()).unwrap_or_default()
    }

    fn beat(&mut self, words: &[&str]) {
        let node = NodeId::new(words[1]).unwrap();
        let session = self.agents[&node].session;
        if let Some(text) = option(words, "live") {
            self.agents.get_mut(&node).unwrap().live = ids(text);
        }
        let live = self.agents[&node].live.clone();
        self.input(&Input::Beat { node, session, live });
    }

    /// Lets time pass second by second, ticking when asked for; `n1 n2` beat meanwhile.
    fn wait(&mut self, words: &[&str]) {
        let end = self.now.after_ms(seconds(words[1]));
        let beating: Vec<NodeId> = words.iter().skip(2).map(|node| NodeId::new(*node).unwrap()).collect();
        while self.now < end {
            let second = Timestamp((self.now.0 / 1_000 + 1) * 1_000).min(end);
            let next = self.wake.map_or(second, |wake| wake.max(self.now).min(second));
            self.now = next;
            if next == second {
                for node in &beating {
                    let agent = &self.agents[node];
                    let (session, live) = (agent.session, agent.live.clone());
                    self.input(&Input::Beat { node: node.clone(), session, live });
                }
            }
            if self.wake.is_some_and(|wake| wake <= self.now) {
                self.input(&Input::Tick);
            }
        }
    }

    fn leader(&mut self) {
        let old = std::mem::replace(&mut self.world, World::new(Policy::default(), self.now));
        old.nodes.into_values().for_each(|view| self.world.restore_node(view.record));
        old.jobs.into_values().for_each(|job| self.world.restore_job(job));
        self.input(&Input::Tick);
    }

    fn checkpoints(&mut self, job: &str) {
        let job = &self.world.jobs[&JobId::new(job).unwrap()];
        for stage in &job.stages {
            for (iteration, seen) in &stage.checkpoints {
                let (shards, whole) = (seen.shards.len(), seen.complete.is_some());
                let notes = [(seen.pinned, ", pinned"), (seen.broken, ", broken"), (seen.removing, ", being removed")];
                let notes: String = notes.iter().filter(|(so, _)| *so).map(|(_, note)| *note).collect();
                writeln!(self.out, "  {} {iteration}: {shards} shards, complete {whole}{notes}", stage.name).unwrap();
            }
        }
    }

    fn report(&mut self, words: &[&str]) {
        let node = NodeId::new(words[1]).unwrap();
        let attempt: AttemptId = words[2].parse().unwrap();
        let number = |key: &str| option(words, key).map(|text| text.parse::<u64>().unwrap());
        let rank = |key: &str| number(key).map_or(0, |n| u32::try_from(n).unwrap());
        let failure = || Failure {
            node: node.clone(),
            rank: option(words, "rank").map(|text| text.parse().unwrap()),
            cause: match (option(words, "exit"), option(words, "signal")) {
                (Some(code), _) => Cause::Exit(code.parse().unwrap()),
                (None, Some(signal)) => Cause::Signal(signal.parse().unwrap()),
                (None, None) => Cause::Refused,
            },
            at: self.now,
            message: option(words, "says").unwrap_or("").replace('_', " "),
            hint: String::new(),
            evidence: option(words, "proof").map(|text| text.replace('_', " ")).into_iter().collect(),
        };
        let what = match words[0] {
            "prepared" => Report::Prepared { port: u16::try_from(number("port").unwrap_or(0)).unwrap() },
            "started" => Report::Started,
            "failed" => Report::Failed(failure()),
            "ended" => Report::Ended {
                ok: words.contains(&"ok"),
                output: Output { path: option(words, "path").unwrap_or("").into(), ..Output::default() },
                failure: (!words.contains(&"ok") && !words.contains(&"stopped")).then(failure),
                ran_ms: number("ran"),
            },
            "shard" => Report::Shard {
                iteration: number("at").unwrap(),
                tp: rank("tp"),
                pp: 0,
                path: format!(
                    "{}/iter_{:07}/mp_rank_{:02}/model_optim_rng.pt",
                    option(words, "dir").unwrap_or("/ckpt"),
                    number("at").unwrap(),
                    rank("tp")
                ),
                size: 7,
            },
            "returned" => Report::Returned,
            "tracker" => Report::Tracker { iteration: number("at").unwrap() },
            "warn" => Report::Warning { message: "disk is nearly full".into() },
            other => panic!("no command `{other}`"),
        };
        let session = number("session").unwrap_or(self.agents[&node].session);
        self.input(&Input::Report { node, session, attempt, what });
    }

    fn input(&mut self, input: &Input) {
        let step = step(&mut self.world, input, self.now);
        self.wake = step.wake_at.map(|(at, _)| at);
        let broken = invariants(&self.world);
        assert!(broken.is_empty(), "after {input:?}: {broken:?}\n{}", self.out);
        for effect in &step.effects {
            match effect {
                Effect::Prepare { node, attempt, .. } | Effect::Start { node, attempt, .. } => {
                    self.agents.get_mut(node).unwrap().live.insert(attempt.clone());
                }
                Effect::Forget { node, attempt } => {
                    self.agents.get_mut(node).unwrap().live.remove(attempt);
                }
                Effect::Stop { .. } | Effect::Recall { .. } => {}
            }
        }
        self.write_down(&step);
    }

    fn write_down(&mut self, step: &Step) {
        let out = &mut self.out;
        let at = format!("{}.{:03}", self.now.0 / 1_000, self.now.0 % 1_000);
        if let Some(reply) = &step.reply {
            match reply {
                Reply::Accepted(job) => writeln!(out, "  reply accepted {job}").unwrap(),
                Reply::NameInUse { holder } => writeln!(out, "  reply name in use by {holder}").unwrap(),
                Reply::Cancelling => writeln!(out, "  reply cancelling").unwrap(),
                Reply::AlreadyEnded => writeln!(out, "  reply already ended").unwrap(),
                Reply::NoSuchJob => writeln!(out, "  reply no such job").unwrap(),
                Reply::Taken => {}
                Reply::Restarted(stages) => {
                    let names: Vec<&str> = stages.iter().map(StageName::as_str).collect();
                    writeln!(out, "  reply restarted: {}", names.join(", ")).unwrap();
                }
                Reply::RestartedBefore => writeln!(out, "  reply restarted before").unwrap(),
                Reply::NothingToRestart => writeln!(out, "  reply nothing to restart").unwrap(),
                Reply::RestartRefused(refusal) => writeln!(out, "  reply refused: {refusal:?}").unwrap(),
                Reply::NodeChanged | Reply::CheckpointChanged => {}
                Reply::CheckpointRefused(refusal) => writeln!(out, "  reply refused: {refusal:?}").unwrap(),
                Reply::NodeUnchanged | Reply::CheckpointUnchanged => writeln!(out, "  reply unchanged").unwrap(),
                Reply::NotSilent { heard, silent_ms } => {
                    writeln!(out, "  reply not silent: heard {heard}, for {silent_ms} ms").unwrap();
                }
                Reply::NoSuchNode => writeln!(out, "  reply no such node").unwrap(),
            }
        }
        let writes: Vec<String> = step
            .writes
            .iter()
            .map(|write| match write {
                Write::Node(node) => format!("node {node}"),
                Write::Plan(job) => format!("plan {job}"),
                Write::Job(job) => format!("job {job}"),
                Write::Tasks { job, stage, chunk } => format!("tasks {job}.{stage}/{chunk}"),
                Write::Checkpoints { job, stage } => format!("checkpoints {job}.{stage}"),
            })
            .collect();
        if !writes.is_empty() {
            writeln!(out, "  {at} saves {}", writes.join(", ")).unwrap();
        }
        for event in &step.events {
            let proof = if event.evidence.is_empty() { String::new() } else { format!(" {:?}", event.evidence) };
            writeln!(out, "  {at} {}#{} {}: {}{proof}", event.job, event.seq, event.kind.name(), event.message)
                .unwrap();
        }
        for effect in &step.effects {
            match effect {
                Effect::Prepare { node, attempt, seat } => {
                    writeln!(out, "  {at} -> {node} prepare {attempt} seat {seat}").unwrap();
                }
                Effect::Start { node, attempt, seat } => {
                    writeln!(out, "  {at} -> {node} start {attempt} seat {seat}").unwrap();
                }
                Effect::Stop { node, attempt, grace_ms } => {
                    writeln!(out, "  {at} -> {node} stop {attempt} within {grace_ms} ms").unwrap();
                }
                Effect::Recall { node, attempt } => writeln!(out, "  {at} -> {node} recall {attempt}").unwrap(),
                Effect::Forget { node, attempt } => writeln!(out, "  {at} -> {node} forget {attempt}").unwrap(),
            }
        }
        for job in self.world.jobs.values() {
            let stages: Vec<String> = job
                .stages
                .iter()
                .map(|stage| format!("{} {}", stage.name, phase::stage(&self.world, job, stage).name()))
                .collect();
            let phase = format!("{} is {}: {}", job.id, phase::job(&self.world, job).name(), stages.join(", "));
            if self.phases.insert(job.id.clone(), phase.clone()).as_ref() != Some(&phase) {
                writeln!(self.out, "  {phase}").unwrap();
            }
        }
    }
}

fn option<'a>(words: &[&'a str], key: &str) -> Option<&'a str> {
    words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

fn ids(text: &str) -> BTreeSet<AttemptId> {
    text.split(',').filter(|id| !id.is_empty()).map(|id| id.parse().unwrap()).collect()
}

fn seconds(text: &str) -> u64 {
    text.parse::<u64>().unwrap() * 1_000
}
