//! Decide, save, act: one commit for many, and what a failing store may do.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use controller::changes::Changes;
use controller::driver::{Config, Driver, Error, Handle};
use controller::sessions::Registry;
use model::{Epoch, JobId};
use planner::{Input, Reply};
use runtime::Tasks;
use store::{Batch, Kind, Memory, Store};
use tokio::sync::watch;

use crate::support::{job, within};

/// What happens to a commit.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Another took the lead just before.
    Fenced,
    /// It happened, but nobody heard.
    Applied,
    /// It did not happen, and nobody heard.
    Lost,
    /// There was no room.
    Full,
    /// It took longer than the lead lasted.
    Slow,
    /// It was refused, and comes through just before the next one.
    Late(Kind),
}

#[derive(Clone)]
struct Faulty {
    inner: Memory,
    late: Arc<Mutex<Option<(Epoch, Batch)>>>,
    over: Arc<AtomicBool>,
    faults: Arc<Mutex<VecDeque<Fault>>>,
    commits: Arc<Mutex<Vec<usize>>>,
}

impl Faulty {
    fn new(faults: impl IntoIterator<Item = Fault>) -> Self {
        Self {
            inner: Memory::new(),
            late: Arc::default(),
            over: Arc::default(),
            faults: Arc::new(Mutex::new(faults.into_iter().collect())),
            commits: Arc::default(),
        }
    }
}

impl Store for Faulty {
    async fn campaign(&mut self) -> Result<Epoch, store::Error> {
        self.over.store(false, Relaxed);
        self.inner.campaign().await
    }

    async fn begin(&mut self, incarnation: u64) -> Result<Epoch, store::Error> {
        self.inner.begin(incarnation).await
    }

    async fn load(&mut self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, store::Error> {
        self.inner.load(prefix).await
    }

    async fn commit(&mut self, epoch: Epoch, batch: Batch) -> Result<(), store::Error> {
        let fault = self.faults.lock().unwrap().pop_front();
        match fault {
            None => {}
            Some(Fault::Fenced) => {
                self.inner.campaign().await?;
            }
            Some(Fault::Applied) => {
                self.inner.commit(epoch, batch).await?;
                return Err(store::Error::new(Kind::Unknown, "the answer was lost"));
            }
            Some(Fault::Lost) => return Err(store::Error::new(Kind::Unknown, "the question was lost")),
            Some(Fault::Full) => return Err(store::Error::new(Kind::Full, "no room")),
            Some(Fault::Slow) => self.over.store(true, Relaxed),
            Some(Fault::Late(kind)) => {
                *self.late.lock().unwrap() = Some((epoch, batch));
                return Err(store::Error::new(kind, "a member was silent, the next one refused"));
            }
        }
        let late = self.late.lock().unwrap().take();
        if let Some((epoch, late)) = late
            && self.inner.commit(epoch, late).await.is_ok()
        {
            // As etcd's marker tells it: a batch of this number is there.
            if self.inner.last_batch().await? == Some((epoch, batch.seq)) {
                return Ok(());
            }
            return Err(store::Error::new(Kind::Unknown, "another batch has come through"));
        }
        let size = batch.puts.len();
        self.inner.commit(epoch, batch).await?;
        self.commits.lock().unwrap().push(size);
        Ok(())
    }

    async fn last_batch(&mut self) -> Result<Option<(Epoch, u64)>, store::Error> {
        self.inner.last_batch().await
    }

    fn still_leads(&self) -> bool {
        !self.over.load(Relaxed)
    }
}

async fn open(store: impl Store, config: Config) -> (Driver<impl Store>, Handle) {
    Driver::open(config, store, Arc::new(Registry::default()), Arc::new(Changes::default())).await.unwrap()
}

async fn running(store: impl Store) -> (Tasks, Handle) {
    let (driver, handle) = open(store, Config::default()).await;
    let tasks = Tasks::new();
    tasks.spawn("driver", driver.run(tasks.stop_token()));
    (tasks, handle)
}

fn submit(name: &str) -> Input {
    Input::Submit(Box::new(job(name, false)))
}

async fn accepted(handle: &Handle, name: &str) -> JobId {
    match within(handle.step(submit(name))).await.unwrap().reply {
        Some(Reply::Accepted(id)) => id,
        other => panic!("not accepted but {other:?}"),
    }
}

async fn job_ids(handle: &Handle) -> BTreeSet<JobId> {
    job_ids_or_not(handle).await.unwrap()
}

async fn job_ids_or_not(handle: &Handle) -> Result<BTreeSet<JobId>, Error> {
    handle.read(|world| world.jobs.keys().cloned().collect()).await
}

#[tokio::test]
async fn what_waits_together_is_saved_together() {
    let store = Faulty::new([]);
    let commits = store.commits.clone();
    let (driver, handle) = open(store, Config::default()).await;
    let mut pending = Vec::new();
    for n in 0..50 {
        pending.push(handle.send(submit(&format!("job-{n}"))).await.unwrap());
    }
    let tasks = Tasks::new();
    tasks.spawn("driver", driver.run(tasks.stop_token()));
    let mut ids = BTreeSet::new();
    for outcome in pending {
        let Some(Reply::Accepted(id)) = within(outcome.outcome()).await.unwrap().reply else { panic!("refused") };
        ids.insert(id);
    }
    assert_eq!(ids.len(), 50);
    assert_eq!(commits.lock().unwrap().len(), 1, "one commit for all");
    assert!(tasks.shutdown(crate::support::LIMIT).await);
}

#[tokio::test]
async fn a_large_turn_is_cut_between_inputs() {
    let store = Faulty::new([]);
    let commits = store.commits.clone();
    let (driver, handle) = open(store, Config { most_writes: 9, ..Config::default() }).await;
    let mut pending = Vec::new();
    for n in 0..12 {
        pending.push(handle.send(submit(&format!("job-{n}"))).await.unwrap());
    }
    let tasks = Tasks::new();
    tasks.spawn("driver", driver.run(tasks.stop_token()));
    for outcome in pending {
        within(outcome.outcome()).await.unwrap();
    }
    let commits = commits.lock().unwrap().clone();
    assert!(commits.len() > 1 && commits.iter().all(|size| *size < 9 + 4), "{commits:?}");
}

#[tokio::test]
async fn an_unknown_outcome_that_was_applied_is_answered_once() {
    let store = Faulty::new([Fault::Applied]);
    let (_tasks, handle) = running(store).await;
    let before = handle.epoch();
    let id = accepted(&handle, "one").await;
    assert_eq!(job_ids(&handle).await, BTreeSet::from([id]));
    assert!(handle.epoch() > before);
}

#[tokio::test]
async fn an_unknown_outcome_that_was_lost_is_stepped_again() {
    let store = Faulty::new([Fault::Lost, Fault::Lost]);
    let (_tasks, handle) = running(store).await;
    let id = accepted(&handle, "one").await;
    assert_eq!(job_ids(&handle).await, BTreeSet::from([id.clone()]));
    let events = handle.events(id, 0).await.unwrap();
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [1]);
}

#[tokio::test]
async fn a_refused_batch_that_comes_through_late_is_not_taken_for_the_next_one() {
    for kind in [Kind::Io, Kind::Full, Kind::Unknown] {
        let store = Faulty::new([Fault::Late(kind)]);
        let (tasks, handle) = running(store.clone()).await;
        // Where the first is not known to be refused it is stepped again.
        let first = within(handle.step(submit("one"))).await;
        assert_eq!(first.is_err(), kind != Kind::Unknown, "{kind:?}: {first:?}");
        let id = accepted(&handle, "two").await;
        assert!(tasks.shutdown(crate::support::LIMIT).await);
        let (_tasks, handle) = running(store.inner).await;
        assert!(job_ids(&handle).await.contains(&id), "{kind:?}: what was accepted is remembered");
    }
}

#[tokio::test]
async fn a_store_that_never_answers_is_told_to_the_caller() {
    let store = Faulty::new([Fault::Lost; 3]);
    let (_tasks, handle) = running(store).await;
    let refused = within(handle.step(submit("one"))).await.unwrap_err();
    assert!(matches!(refused, Error::Store(_)), "{refused:?}");
    assert!(job_ids(&handle).await.is_empty());
    accepted(&handle, "one").await;
}

#[tokio::test]
async fn a_fenced_driver_leads_again_where_it_may() {
    let store = Faulty::new([Fault::Fenced]);
    let (_tasks, handle) = running(store).await;
    let before = handle.epoch();
    let id = accepted(&handle, "one").await;
    assert_eq!(job_ids(&handle).await, BTreeSet::from([id]));
    assert_eq!(handle.epoch().term, before.term + 2, "the other's term lies between");
}

#[tokio::test]
async fn a_fenced_driver_that_shares_its_store_steps_down_and_refuses_until_it_leads_again() {
    let store = Faulty::new([Fault::Fenced]);
    let (told, leader) = watch::channel(Some("https://other".to_owned()));
    let (driver, handle) = open(store, Config { leader: Some(leader), ..Config::default() }).await;
    let tasks = Tasks::new();
    let mut epochs = handle.epochs();
    tasks.spawn("driver", driver.run(tasks.stop_token()));
    let led = *within(epochs.wait_for(|epoch| epoch.term > 0)).await.unwrap();
    let refused = within(handle.step(submit("one"))).await.unwrap_err();
    assert!(matches!(&refused, Error::Elsewhere { leader: Some(leader) } if leader == "https://other"), "{refused:?}");
    within(epochs.wait_for(|epoch| *epoch > led)).await.unwrap();
    assert!(job_ids(&handle).await.is_empty(), "what was refused was not done");
    accepted(&handle, "one").await;
    drop(told);
}

#[tokio::test]
async fn all_that_was_asked_in_the_turn_that_lost_the_lead_are_told_so() {
    let store = Faulty::new([Fault::Fenced]);
    let (_told, leader) = watch::channel(Some("https://other".to_owned()));
    let config = Config { leader: Some(leader), most_writes: 1, ..Config::default() };
    let (driver, handle) = open(store, config).await;
    let tasks = Tasks::new();
    let mut epochs = handle.epochs();
    // One thread: all of it is asked before the driver looks.
    tasks.spawn("driver", driver.run(tasks.stop_token()));
    within(epochs.wait_for(|epoch| epoch.term > 0)).await.unwrap();
    let mut pending = Vec::new();
    for n in 0..5 {
        pending.push(handle.send(submit(&format!("job-{n}"))).await.unwrap());
    }
    let read = handle.read(|world| world.jobs.len());
    let (read, told) = tokio::join!(read, async {
        let mut told = Vec::new();
        for outcome in pending {
            told.push(within(outcome.outcome()).await.map(drop));
        }
        told
    });
    for told in told.into_iter().chain([read.map(drop)]) {
        assert!(matches!(&told, Err(Error::Elsewhere { leader: Some(_) })), "{told:?}");
    }
}

#[tokio::test]
async fn what_outlasts_the_lead_is_saved_but_nothing_is_read_any_more() {
    let store = Faulty::new([Fault::Slow]);
    let (_told, leader) = watch::channel(Some("https://other".to_owned()));
    let (driver, handle) = open(store, Config { leader: Some(leader), ..Config::default() }).await;
    let tasks = Tasks::new();
    let mut epochs = handle.epochs();
    tasks.spawn("driver", driver.run(tasks.stop_token()));
    within(epochs.wait_for(|epoch| epoch.term > 0)).await.unwrap();
    // One turn: both are asked before the driver looks.
    let (saved, read) = within(async { tokio::join!(handle.step(submit("one")), job_ids_or_not(&handle)) }).await;
    saved.unwrap();
    assert!(matches!(&read, Err(Error::Elsewhere { leader: Some(_) })), "{read:?}");
    let mut reads = within(job_ids_or_not(&handle)).await;
    if reads.is_err() {
        // What was asked before it led again.
        within(epochs.wait_for(|epoch| epoch.term > 1)).await.unwrap();
        reads = within(job_ids_or_not(&handle)).await;
    }
    assert_eq!(reads.unwrap().len(), 1);
}

#[tokio::test]
async fn a_full_store_refuses_and_keeps_nothing_of_it() {
    let store = Faulty::new([Fault::Full]);
    let (_tasks, handle) = running(store).await;
    let first = within(handle.step(submit("one"))).await.unwrap_err();
    assert!(matches!(&first, Error::Store(error) if error.kind() == Kind::Full), "{first:?}");
    assert!(job_ids(&handle).await.is_empty());
    accepted(&handle, "one").await;
}

#[tokio::test]
async fn a_store_that_stays_full_says_so_to_everybody_and_can_be_looked_at() {
    const FULL: usize = 4;
    let store = Faulty::new([Fault::Full; FULL]);
    let commits = Arc::clone(&store.commits);
    let (_tasks, handle) = running(store).await;
    let refused = |told: Result<_, Error>| match told {
        // Never `it has just taken over`: whoever asks learns what to mend.
        Err(Error::Store(error)) if error.kind() == Kind::Full => true,
        Err(other) => panic!("{other:?}"),
        Ok(_) => false,
    };
    let begun = std::time::Instant::now();
    let one = async { while refused(handle.step(submit("one")).await.map(drop)) {} };
    let other = async {
        let mut count = 0;
        while commits.lock().unwrap().is_empty() {
            // Behind the first, so that it comes while the store is left in peace.
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            count += usize::from(refused(handle.step(submit("other")).await.map(drop)));
            handle.read(|world| world.jobs.len()).await.unwrap();
        }
        count
    };
    let ((), count) = within(async { tokio::join!(one, other) }).await;
    assert!(count > FULL, "more were refused than reached the store: {count}");
    assert!(begun.elapsed().as_millis() >= 750, "pauses of at least 50, 100, 200 and 400 ms");
}

#[tokio::test]
async fn a_new_driver_knows_what_the_old_one_answered() {
    let store = Memory::new();
    let (tasks, handle) = running(store.clone()).await;
    let id = accepted(&handle, "one").await;
    let wanted = id.clone();
    let job = handle.read(move |world| world.jobs[&wanted].clone()).await.unwrap();
    assert!(tasks.shutdown(crate::support::LIMIT).await);
    let (_tasks, handle) = running(store).await;
    let wanted = id.clone();
    assert_eq!(handle.read(move |world| world.jobs[&wanted].clone()).await.unwrap(), job);
    assert_eq!(handle.events(id, 0).await.unwrap().len(), 1, "events are read from the store");
}

#[tokio::test]
async fn only_the_newest_ended_jobs_are_kept() {
    let store = Memory::new();
    let mut config = Config::default();
    config.policy.keep_ended_jobs = 2;
    let (driver, handle) = open(store.clone(), config).await;
    let tasks = Tasks::new();
    tasks.spawn("driver", driver.run(tasks.stop_token()));
    let waiting = accepted(&handle, "waiting").await;
    let mut ended = Vec::new();
    for n in 0..5 {
        let input = Input::Submit(Box::new(job(&format!("ended-{n}"), true)));
        let Some(Reply::Accepted(id)) = within(handle.step(input)).await.unwrap().reply else { panic!("refused") };
        ended.push(id);
    }
    let kept = job_ids(&handle).await;
    assert_eq!(kept.len(), 3);
    assert!(kept.contains(&waiting));
    let mut left = store.clone();
    for id in ended.iter().filter(|id| !kept.contains(id)) {
        for prefix in [format!("jobs/{id}"), format!("events/{id}/")] {
            assert!(left.load(&prefix).await.unwrap().is_empty(), "{prefix} is left");
        }
    }
    assert!(tasks.shutdown(crate::support::LIMIT).await);
    let (_tasks, handle) = running(store).await;
    assert_eq!(job_ids(&handle).await, kept);
}
