//! All seats of this node: who gets which order, and what is live.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use model::AttemptId;
use proto::v1::{Assignment, Ended, LiveAttempt, report};
use runtime::Tasks;
use tokio::sync::mpsc;

use crate::host::Host;
use crate::pool::Pools;
use crate::refusal::Refusal;
use crate::seat::dir::{SeatDir, Wanted};
use crate::seat::{Order, Seat};

/// All seats of this node.
#[derive(Debug)]
pub struct Seats {
    host: Arc<Host>,
    tasks: Tasks,
    seats: BTreeMap<AttemptId, Handle>,
    pools: Pools,
}

#[derive(Debug)]
struct Handle {
    orders: mpsc::UnboundedSender<Order>,
    state: &'static str,
}

impl Seats {
    /// Takes over what an earlier life of this agent left behind.
    ///
    /// # Errors
    ///
    /// Whatever the file system says about the directory of attempts; a single
    /// seat that cannot be read is left alone and logged.
    pub fn adopt(host: Arc<Host>, tasks: Tasks) -> io::Result<Self> {
        std::fs::create_dir_all(&host.attempts)?;
        let pools = Pools::adopt(Arc::clone(&host), tasks.clone())?;
        let mut seats = Self { host, tasks, seats: BTreeMap::new(), pools };
        for dir in SeatDir::all(&seats.host.attempts)? {
            let attempt = dir.attempt().clone();
            if dir.is_untouched() {
                // The earlier life ended before it had saved the order. Listing
                // the attempt would tell the controller that it was accepted.
                dir.remove()?;
                continue;
            }
            let forgotten = dir.note().map(|n| n.forgotten).unwrap_or_default();
            match seats.open(dir) {
                Ok(handle) if !forgotten => {
                    tracing::info!(%attempt, "adopted");
                    seats.seats.insert(attempt, Handle { state: "running", ..handle });
                }
                Ok(_) => {}
                Err(error) => tracing::error!(%attempt, %error, "a seat cannot be adopted"),
            }
        }
        Ok(seats)
    }

    fn open(&self, dir: SeatDir) -> io::Result<Handle> {
        let (orders, inbox) = mpsc::unbounded_channel();
        let seat = Seat::open(Arc::clone(&self.host), dir, inbox, self.tasks.stop_token())?;
        self.tasks.spawn("seat", seat.run());
        Ok(Handle { orders, state: "prepared" })
    }

    /// What this node runs, or holds the results of.
    #[must_use]
    pub fn live(&self) -> Vec<LiveAttempt> {
        let entry = |(attempt, handle): (&AttemptId, &Handle)| LiveAttempt {
            attempt: attempt.to_string(),
            state: handle.state.to_owned(),
        };
        let pooled = self
            .pools
            .live()
            .into_iter()
            .map(|attempt| LiveAttempt { attempt: attempt.to_string(), state: "running".to_owned() });
        let mut live: Vec<LiveAttempt> = self.seats.iter().map(entry).chain(pooled).collect();
        live.sort_by(|a, b| a.attempt.cmp(&b.attempt));
        live
    }

    /// Prepares or starts a seat.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if the attempt has been replaced by a later one.
    pub async fn assign(&mut self, wanted: Wanted, assignment: Assignment) -> Result<(), Refusal> {
        let attempt = parse(&assignment.attempt)?;
        self.check_generation(&attempt)?;
        let pooled = !self.seats.contains_key(&attempt) && wanted == Wanted::Start && Pools::takes(&assignment);
        let state = if wanted == Wanted::Start { "running" } else { "prepared" };
        let ordered = if pooled {
            self.pools.start(&attempt, assignment)
        } else {
            self.order(&attempt, state, Order::Assign(wanted, Box::new(assignment)))
        };
        if let Err(error) = ordered {
            let refusal = Refusal::new(
                format!("the agent's state directory cannot be written: {error}"),
                "check space and permissions of `--state-dir` on this node",
            );
            self.say_ended(&attempt, Some(&refusal)).await;
            return Err(refusal);
        }
        Ok(())
    }

    /// Stops a seat; one that was never heard of is confirmed all the same.
    ///
    /// # Errors
    ///
    /// [`Refusal`] for a malformed attempt.
    pub async fn stop(&mut self, attempt: &str, grace: Duration) -> Result<(), Refusal> {
        let attempt = parse(attempt)?;
        if self.pools.holds(&attempt) {
            self.pools.stop(&attempt, grace);
            return Ok(());
        }
        if let Err(error) = self.order(&attempt, "running", Order::Stop { grace }) {
            // No directory could be made, so nothing of it can run.
            tracing::warn!(%attempt, %error, "a stop of an unknown attempt cannot be kept");
            self.say_ended(&attempt, None).await;
        }
        Ok(())
    }

    /// Gives a seat back that has not begun. Only pools keep a queue: what a
    /// seat of its own is started for has begun.
    ///
    /// # Errors
    ///
    /// [`Refusal`] for a malformed attempt.
    pub fn recall(&mut self, attempt: &str) -> Result<(), Refusal> {
        self.pools.recall(&parse(attempt)?);
        Ok(())
    }

    /// Forgets a seat that has ended.
    ///
    /// # Errors
    ///
    /// [`Refusal`] for a malformed attempt.
    pub fn forget(&mut self, attempt: &str) -> Result<(), Refusal> {
        let attempt = parse(attempt)?;
        self.pools.forget(&attempt);
        if let Some(handle) = self.seats.get(&attempt) {
            // One whose task has ended is swept below.
            let _ = handle.orders.send(Order::Forget);
        }
        Ok(())
    }

    /// Drops the seats whose task takes no orders any more.
    pub fn sweep(&mut self) {
        self.seats.retain(|_, handle| !handle.orders.is_closed());
        self.pools.sweep();
    }

    fn order(&mut self, attempt: &AttemptId, state: &'static str, order: Order) -> io::Result<()> {
        self.sweep();
        if !self.seats.contains_key(attempt) {
            let handle = self.open(SeatDir::new(&self.host.attempts, attempt))?;
            self.seats.insert(attempt.clone(), handle);
        }
        if let Some(handle) = self.seats.get_mut(attempt) {
            handle.state = state;
            // Between the sweep and here the seat may have been forgotten: then
            // the controller asks again at the next beat.
            let _ = handle.orders.send(order);
        }
        Ok(())
    }

    fn check_generation(&self, attempt: &AttemptId) -> Result<(), Refusal> {
        let here = self.seats.contains_key(attempt) || self.pools.holds(attempt);
        let seat = self.seats.keys().find(|other| other.task == attempt.task && other.number > attempt.number);
        let later = seat.cloned().or_else(|| self.pools.later(attempt));
        match later {
            Some(later) if !here => {
                Err(Refusal::new(format!("attempt `{attempt}` has been replaced by `{later}`"), ""))
            }
            Some(_) | None => Ok(()),
        }
    }

    async fn say_ended(&self, attempt: &AttemptId, refusal: Option<&Refusal>) {
        let failure = refusal.map(|r| proto::v1::Failure {
            node: self.host.node.clone(),
            cause: "refused".into(),
            at_ms: runtime::clock::now_ms(),
            message: r.message.clone(),
            hint: r.hint.clone(),
            ..proto::v1::Failure::default()
        });
        let ended = Ended { failure, ..Ended::default() };
        // The spool stops only when the agent ends: then the question comes again.
        let _ = self.host.spool.add(&attempt.to_string(), report::What::Ended(ended)).await;
    }

    /// Attempts by id, for tests and sweeps.
    #[must_use]
    pub fn ids(&self) -> BTreeSet<String> {
        self.seats.keys().map(ToString::to_string).collect()
    }
}

fn parse(attempt: &str) -> Result<AttemptId, Refusal> {
    attempt.parse().map_err(|error: model::NameError| Refusal::new(error.to_string(), "update the controller"))
}
