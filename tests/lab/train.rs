//! A job under way, and that it did not notice.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stories::job::{Event, iterations};
use stories::pipeline;
use stories::poll::until;
use stories::process::Process;

use crate::record::Record;
use crate::rounds::Turn;
use crate::site::{LONG, Site};

/// Ranks of a gang: two on each of two hosts.
pub(crate) const RANKS: u32 = 4;

/// Training that runs until it is told to end.
#[derive(Debug)]
pub(crate) struct Training {
    pub(crate) job: String,
    pub(crate) ranks: Vec<Process>,
    pub(crate) record: Record,
    /// What a user was shown before the fault.
    shown: Vec<Event>,
}

/// The spec of a training run that keeps a record.
pub(crate) fn spec(site: &Site, name: &str, more: &[&str]) -> (Value, Record) {
    let record = Record::new(&site.lab.work(), name);
    let path = record.path();
    let words = ["--record", &path].into_iter().chain(more.iter().copied()).collect::<Vec<_>>();
    let mut spec = pipeline::training(&site.lab, name, 30_000, 100, &words);
    spec["stages"]["train"]["save_dir"] = json!(format!("./{name}"));
    (spec, record)
}

impl Training {
    /// Submits one, waits until it trains, and then for a drawn moment.
    pub(crate) fn start(site: &Site, turn: &mut Turn, name: &str, more: &[&str]) -> Self {
        let (spec, record) = spec(site, name, more);
        Self::of(site, turn, &spec, record)
    }

    pub(crate) fn of(site: &Site, turn: &mut Turn, spec: &Value, record: Record) -> Self {
        let job = site.lab.accepted(spec);
        until("it trains", LONG, || (record.last() >= 3).then_some(()));
        turn.moment("train", Duration::from_secs(3));
        Self::seen(site, job, record)
    }

    /// One that trains.
    pub(crate) fn seen(site: &Site, job: String, record: Record) -> Self {
        let ranks = site.lab.ranks();
        assert_eq!(ranks.iter().filter_map(Process::rank).collect::<Vec<_>>(), (0..RANKS).collect::<Vec<_>>());
        let shown = site.lab.events(&job);
        Self { job, ranks, record, shown }
    }

    /// Iterations go on being completed.
    pub(crate) fn goes_on(&self) {
        let reached = self.record.last();
        until("training goes on", LONG, || (self.record.last() >= reached + 5).then_some(()));
    }

    /// One attempt goes on with the ranks that were there from the beginning, every line came once, every event stayed,
    /// and no node was called lost; then it obeys.
    pub(crate) fn did_not_notice(&self, site: &Site) {
        let lost = |site: &Site| site.lab.events(&self.job).iter().any(|event| event.kind == "node-lost");
        assert!(!lost(site), "{:#?}", site.lab.events(&self.job));
        self.was_left_alone(site);
    }

    /// The same, whatever was thought of its nodes.
    pub(crate) fn was_left_alone(&self, site: &Site) {
        let lab = &site.lab;
        let log = || iterations(&lab.log(&self.job, "train", RANKS - 1));
        let reached = self.record.last();
        until("training goes on, and its log comes", LONG, || {
            log().last().is_some_and(|last| *last >= reached + 5).then_some(())
        });
        assert!(self.ranks.iter().all(Process::lives), "no rank died");
        let events = lab.events(&self.job);
        self.kept(&events);
        assert_eq!(events.iter().filter(|event| event.kind == "attempt-placed").count(), 1, "{events:#?}");
        let bad = ["attempt-failed", "task-retried"];
        assert!(events.iter().all(|event| !bad.contains(&&*event.kind)), "{events:#?}");
        self.cancel(site);
        let log = log();
        assert_eq!(log, (1..).take(log.len()).collect::<Vec<_>>(), "each line once, none missing");
        self.record.is_one_attempt(RANKS);
        // The last iteration may have ended between being done and being logged.
        let (logged, trained) = (log.len() as u64, self.record.last());
        assert!(logged + 1 >= trained, "what was trained is in the log: {logged} of {trained}");
    }

    /// Every event that was shown is still there, and there is no gap.
    pub(crate) fn kept(&self, events: &[Event]) {
        assert_eq!(events.get(..self.shown.len()), Some(&self.shown[..]), "every event, as it was shown");
        let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, (1..).take(seqs.len()).collect::<Vec<_>>());
    }

    /// It ends when it is told to.
    pub(crate) fn cancel(&self, site: &Site) {
        let cancelled = site.lab.qctl_for(LONG, ["cancel", &self.job]);
        assert_eq!(cancelled.code, 0, "{cancelled}");
        until("the job ends", LONG, || (site.lab.phase(&self.job) == "cancelled").then_some(()));
        until("the ranks have obeyed", LONG, || (!self.ranks.iter().any(Process::lives)).then_some(()));
    }
}

/// Waits until an event of a kind is shown; the first of them, and how long that took.
pub(crate) fn event(site: &Site, job: &str, kind: &str, nth: usize) -> (Event, Duration) {
    let begun = Instant::now();
    let seen = until(&format!("event {nth} of `{kind}`"), LONG, || {
        // Nobody may lead at this moment.
        let said = site.lab.qctl_for(LONG, ["events", job, "-o", "json"]);
        let events = said.stdout.lines().map(|line| Event::read(&serde_json::from_str(line).unwrap()));
        events.filter(|event| event.kind == kind).nth(nth)
    });
    (seen, begun.elapsed())
}
