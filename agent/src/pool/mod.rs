//! One-rank commands: many small tasks of a job behind one shim.
//!
//! A seat has a directory and a shim of its own, which suits a training. A
//! command that takes a millisecond must not cost a dozen files: here an
//! attempt is a few records in its job's pool.

mod attempt;
mod environment;
mod keeper;
mod orphans;
mod place;
mod shim;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::{AttemptId, JobId};
use proto::v1::{Assignment, assignment::Body};
use runtime::Tasks;
use tokio::sync::mpsc;

use self::keeper::Keeper;
use self::place::Place;
use crate::host::Host;

/// Attempts after which a pool is replaced, so that no journal grows without end; once nothing is open
/// in it, because each pool keeps the node's limit for itself alone.
const TAKES: u64 = 20_000;
/// Attempts after which it is replaced whatever is open.
const MOST: u64 = 2 * TAKES;

/// What the controller wants of an attempt.
#[derive(Debug)]
enum Wish {
    Start(Box<Assignment>),
    Stop { attempt: AttemptId, grace: Duration },
    Recall(AttemptId),
    Forget(AttemptId),
}

/// All pools of this node.
#[derive(Debug)]
pub struct Pools {
    host: Arc<Host>,
    tasks: Tasks,
    root: PathBuf,
    ledger: Ledger,
    newest: BTreeMap<JobId, Newest>,
    routes: BTreeMap<AttemptId, mpsc::UnboundedSender<Wish>>,
}

#[derive(Debug)]
struct Newest {
    generation: u64,
    taken: u64,
    over: Over,
    wishes: mpsc::UnboundedSender<Wish>,
}

impl Newest {
    /// Whether the job's next attempt goes to another one.
    fn is_full(&self) -> bool {
        let open = self.taken > self.over.count();
        self.taken >= MOST || (self.taken >= TAKES && !open)
    }
}

/// How many of a pool's attempts are over, as its keeper counts them.
#[derive(Clone, Debug, Default)]
struct Over(Arc<AtomicU64>);

impl Over {
    fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Which attempts the pools hold, and whether their orders are saved.
#[derive(Clone, Debug, Default)]
struct Ledger(Arc<Mutex<BTreeMap<AttemptId, bool>>>);

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<AttemptId, bool>> {
        // No holder leaves the map half changed, so a poisoned one is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pools {
    /// Takes over what an earlier life of this agent left behind.
    ///
    /// # Errors
    ///
    /// Whatever the file system says about the directory of pools; a single
    /// pool that cannot be read is left alone and logged.
    pub fn adopt(host: Arc<Host>, tasks: Tasks) -> io::Result<Self> {
        let root = host.attempts.with_file_name("pools");
        std::fs::create_dir_all(&root)?;
        let (ledger, newest, routes) = (Ledger::default(), BTreeMap::new(), BTreeMap::new());
        let mut pools = Self { host, tasks, root, ledger, newest, routes };
        for place in Place::all(&pools.root)? {
            if let Err(error) = pools.open(&place) {
                tracing::error!(pool = %place.path().display(), %error, "a pool cannot be adopted");
            }
        }
        Ok(pools)
    }

    /// Whether an assignment is one for a pool.
    #[must_use]
    pub fn takes(assignment: &Assignment) -> bool {
        let alone = assignment.ranks <= 1 && assignment.world_size <= 1 && assignment.nodes <= 1;
        alone && matches!(assignment.body, Some(Body::Run(_)))
    }

    /// Whether a pool holds the attempt.
    #[must_use]
    pub fn holds(&self, attempt: &AttemptId) -> bool {
        self.ledger.lock().contains_key(attempt)
    }

    /// Attempts whose orders are saved, until they are forgotten.
    #[must_use]
    pub fn live(&self) -> Vec<AttemptId> {
        self.ledger.lock().iter().filter(|(_, saved)| **saved).map(|(attempt, _)| attempt.clone()).collect()
    }

    /// Whether a later attempt of the same task is here.
    #[must_use]
    pub fn later(&self, attempt: &AttemptId) -> Option<AttemptId> {
        let held = self.ledger.lock();
        held.keys().find(|other| other.task == attempt.task && other.number > attempt.number).cloned()
    }

    /// Starts an attempt. One that is here is not started again.
    ///
    /// # Errors
    ///
    /// Whatever the file system says about a new pool.
    pub fn start(&mut self, attempt: &AttemptId, assignment: Assignment) -> io::Result<()> {
        self.sweep();
        if self.holds(attempt) {
            self.wish(attempt, Wish::Start(Box::new(assignment)));
            return Ok(());
        }
        // Before it is sent, so that a stop that follows finds it here.
        self.ledger.lock().insert(attempt.clone(), false);
        let mut wish = Wish::Start(Box::new(assignment));
        loop {
            let wishes = match self.room(&attempt.task.job) {
                Ok(wishes) => wishes,
                Err(error) => {
                    self.ledger.lock().remove(attempt);
                    return Err(error);
                }
            };
            match wishes.send(wish) {
                Ok(()) => {
                    self.routes.insert(attempt.clone(), wishes);
                    return Ok(());
                }
                // It has just ended: another one takes it.
                Err(unsent) => wish = unsent.0,
            }
        }
    }

    /// The job's newest pool, or another one if that is full or has ended.
    fn room(&mut self, job: &JobId) -> io::Result<mpsc::UnboundedSender<Wish>> {
        let full = self.newest.get(job).is_none_or(|n| n.is_full() || n.wishes.is_closed());
        if full {
            let generation = self.newest.get(job).map_or(0, |n| n.generation + 1);
            let place = Place::unused(&self.root, job, generation);
            place.create()?;
            self.open(&place)?;
        }
        let newest = self.newest.get_mut(job).ok_or_else(|| io::Error::other("a pool could not be opened"))?;
        newest.taken += 1;
        Ok(newest.wishes.clone())
    }

    /// Ends an attempt that is here.
    pub fn stop(&self, attempt: &AttemptId, grace: Duration) {
        self.wish(attempt, Wish::Stop { attempt: attempt.clone(), grace });
    }

    /// Gives an attempt back that is here and has not begun.
    pub fn recall(&self, attempt: &AttemptId) {
        self.wish(attempt, Wish::Recall(attempt.clone()));
    }

    /// Forgets an attempt that is here and has ended.
    pub fn forget(&self, attempt: &AttemptId) {
        self.wish(attempt, Wish::Forget(attempt.clone()));
    }

    fn wish(&self, attempt: &AttemptId, wish: Wish) {
        if let Some(wishes) = self.routes.get(attempt) {
            // A pool that has just ended holds nothing: the controller asks again.
            let _ = wishes.send(wish);
        }
    }

    /// Drops the routes to what was forgotten.
    pub fn sweep(&mut self) {
        let held = self.ledger.lock();
        if self.routes.len() > held.len() {
            self.routes.retain(|attempt, _| held.contains_key(attempt));
        }
        drop(held);
        self.newest.retain(|_, newest| !newest.wishes.is_closed());
    }

    fn open(&mut self, place: &Place) -> io::Result<()> {
        let (wishes, inbox) = mpsc::unbounded_channel();
        let keeper = Keeper::open(Arc::clone(&self.host), place.clone(), self.ledger.clone(), inbox)?;
        let (held, over) = (keeper.held(), keeper.over());
        let taken = u64::try_from(keeper.taken()).unwrap_or(u64::MAX);
        self.tasks.spawn("pool", keeper.run(self.tasks.stop_token()));
        for attempt in held {
            tracing::info!(%attempt, "adopted");
            self.routes.insert(attempt.clone(), wishes.clone());
            self.ledger.lock().insert(attempt, true);
        }
        let (job, generation) = (place.job().clone(), place.generation());
        let newer = self.newest.get(&job).is_none_or(|known| known.generation < generation);
        if newer {
            // What an earlier boot or version wrote is only wound up.
            let taken = if place.is_of_this_boot() { taken } else { MOST };
            self.newest.insert(job, Newest { generation, taken, over, wishes });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_replaced_once_nothing_is_open_in_it() {
        let is_full = |taken, over| {
            let over = Over(Arc::new(AtomicU64::new(over)));
            Newest { generation: 0, taken, over, wishes: mpsc::unbounded_channel().0 }.is_full()
        };
        assert!(!is_full(TAKES - 1, TAKES - 1));
        assert!(!is_full(TAKES, TAKES - 1) && is_full(TAKES, TAKES));
        assert!(!is_full(MOST - 1, MOST - 2) && is_full(MOST, 0), "no journal grows without end");
    }
}
