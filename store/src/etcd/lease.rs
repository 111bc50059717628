//! How long this controller may believe that it leads, by its own clock.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// A moment by two clocks: the one that timers go by stands still while the computer sleeps, the other goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    timer: Instant,
    /// Since the computer was started.
    awake_or_not: Duration,
}

/// A lease of etcd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) id: i64,
    /// From when on etcd may have ended it: counted from before the request that prolonged it.
    until: Moment,
}

impl Moment {
    pub(super) fn now() -> Self {
        let since = clock_gettime(ClockId::Boottime);
        let (seconds, nanos) = (u64::try_from(since.tv_sec).unwrap_or(0), u32::try_from(since.tv_nsec).unwrap_or(0));
        Self { timer: Instant::now(), awake_or_not: Duration::new(seconds, nanos) }
    }

    fn after(self, span: Duration) -> Self {
        Self { timer: self.timer + span, awake_or_not: self.awake_or_not + span }
    }
}

impl Lease {
    /// Lasts from `asked` on; a tenth of the time is left to the difference between two clocks' speeds.
    fn new(id: i64, asked: Moment, lasts: Duration) -> Self {
        Self { id, until: asked.after(lasts.mul_f64(0.9)) }
    }

    /// Whether it may be believed in at `now`: by both clocks.
    fn lasts(&self, now: Moment) -> bool {
        now.timer < self.until.timer && now.awake_or_not < self.until.awake_or_not
    }
}

/// What store and keeper share.
#[derive(Debug)]
pub(super) struct Shared {
    lease: watch::Sender<Option<Lease>>,
    leader: watch::Sender<Option<String>>,
}

impl Shared {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { lease: watch::Sender::new(None), leader: watch::Sender::new(None) })
    }

    /// The lease, while it lasts.
    pub(super) fn lease(&self) -> Option<Lease> {
        self.lease.borrow().filter(|lease| lease.lasts(Moment::now()))
    }

    pub(super) fn leases(&self) -> watch::Receiver<Option<Lease>> {
        self.lease.subscribe()
    }

    /// A lease was granted at the request of the moment `asked`.
    pub(super) fn granted(&self, id: i64, asked: Moment, lasts: Duration) {
        self.lease.send_replace(Some(Lease::new(id, asked, lasts)));
    }

    /// A lease was prolonged; one that was given up meanwhile stays so.
    pub(super) fn prolonged(&self, id: i64, asked: Moment, lasts: Duration) {
        self.lease.send_if_modified(|lease| match lease {
            // Once it was over it is over: whoever looked has stepped down.
            Some(lease) if lease.id == id && lease.lasts(Moment::now()) => {
                let longer = Lease::new(id, asked, lasts);
                let changes = longer.until.timer > lease.until.timer;
                if changes {
                    *lease = longer;
                }
                changes
            }
            Some(_) | None => false,
        });
    }

    /// The lease is over, if it still is the one of this id.
    pub(super) fn ended(&self, id: i64) {
        self.lease.send_if_modified(|lease| lease.take_if(|lease| lease.id == id).is_some());
    }

    /// Resolves once no lease is held.
    pub(super) fn over(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut leases = self.leases();
        async move {
            loop {
                let Some(lease) = leases.borrow_and_update().filter(|lease| lease.lasts(Moment::now())) else { return };
                // Of a process that was held up both are true at once: the newest lease counts.
                tokio::select! {
                    changed = leases.changed() => if changed.is_err() { return },
                    () = sleep_until(lease.until.timer) => {}
                }
            }
        }
    }

    pub(super) fn leads(&self, address: Option<&str>) {
        self.leader.send_if_modified(|leader| {
            let changes = leader.as_deref() != address;
            if changes {
                *leader = address.map(str::to_owned);
            }
            changes
        });
    }

    /// Who leads, as far as this controller has seen.
    pub(super) fn leader(&self) -> watch::Receiver<Option<String>> {
        self.leader.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::Poll;

    use super::*;

    async fn is_pending(future: &mut (impl Future<Output = ()> + Unpin)) -> bool {
        std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context).is_pending())).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_ends_by_its_own_clock_and_never_comes_back() {
        let shared = Shared::new();
        let begun = Moment::now();
        shared.granted(7, begun, Duration::from_secs(10));
        let over = shared.over();
        tokio::time::advance(Duration::from_secs(8)).await;
        shared.prolonged(7, Moment::now(), Duration::from_secs(10));
        assert!(shared.lease().is_some());
        over.await;
        assert_eq!(begun.timer.elapsed().as_secs(), 17);
        assert!(shared.lease().is_none());
        shared.prolonged(7, Moment::now(), Duration::from_secs(10));
        assert!(shared.lease().is_none(), "an answer that comes late prolongs nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_was_prolonged_in_time_is_not_over_for_whoever_wakes_at_its_old_end() {
        // Which of two things that happened meanwhile is seen first is left to chance.
        for _ in 0..64 {
            let shared = Shared::new();
            shared.granted(7, Moment::now(), Duration::from_secs(10));
            let mut over = Box::pin(shared.over());
            assert!(is_pending(&mut over).await);
            tokio::time::advance(Duration::from_secs(8)).await;
            shared.prolonged(7, Moment::now(), Duration::from_secs(10));
            tokio::time::advance(Duration::from_secs(2)).await;
            assert!(is_pending(&mut over).await, "it lasts for seven seconds more");
        }
    }

    #[tokio::test]
    async fn a_lease_ends_while_the_computer_sleeps() {
        let asked = Moment::now();
        let lease = Lease::new(7, asked, Duration::from_secs(10));
        let slept = |seconds| Moment { awake_or_not: asked.awake_or_not + Duration::from_secs(seconds), ..asked };
        assert!(lease.lasts(slept(8)));
        assert!(!lease.lasts(slept(9)));
    }

    #[tokio::test]
    async fn another_lease_is_not_ended_or_prolonged_in_its_place() {
        let shared = Shared::new();
        shared.granted(8, Moment::now(), Duration::from_secs(1000));
        let granted = shared.lease().unwrap();
        shared.ended(7);
        shared.prolonged(7, Moment::now(), Duration::from_secs(5000));
        assert_eq!(shared.lease(), Some(granted));
        let over = shared.over();
        shared.ended(8);
        over.await;
    }
}
