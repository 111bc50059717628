//! How long this controller may believe that it leads, by its own clock.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// A lease of etcd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) id: i64,
    /// From when on etcd may have ended it: counted from before the request that prolonged it.
    pub(super) until: Instant,
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
        self.lease.borrow().filter(|lease| Instant::now() < lease.until)
    }

    pub(super) fn leases(&self) -> watch::Receiver<Option<Lease>> {
        self.lease.subscribe()
    }

    /// A lease was granted at the request of the moment `asked`.
    pub(super) fn granted(&self, id: i64, asked: Instant, lasts: Duration) {
        self.lease.send_replace(Some(Lease { id, until: until(asked, lasts) }));
    }

    /// A lease was prolonged; one that was given up meanwhile stays so.
    pub(super) fn prolonged(&self, id: i64, asked: Instant, lasts: Duration) {
        self.lease.send_if_modified(|lease| match lease {
            // Once it was over it is over: whoever looked has stepped down.
            Some(lease) if lease.id == id && Instant::now() < lease.until => {
                lease.until = lease.until.max(until(asked, lasts));
                true
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
                let Some(lease) = *leases.borrow_and_update() else { return };
                tokio::select! {
                    changed = leases.changed() => if changed.is_err() { return },
                    () = sleep_until(lease.until) => return,
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

/// A tenth of the time is left to the difference between two clocks' speeds.
fn until(asked: Instant, lasts: Duration) -> Instant {
    asked + lasts.mul_f64(0.9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lease_ends_by_its_own_clock_and_never_comes_back() {
        let shared = Shared::new();
        let begun = Instant::now();
        shared.granted(7, begun, Duration::from_secs(10));
        let over = shared.over();
        tokio::time::advance(Duration::from_secs(8)).await;
        shared.prolonged(7, Instant::now(), Duration::from_secs(10));
        assert!(shared.lease().is_some());
        over.await;
        assert_eq!(begun.elapsed().as_secs(), 17);
        assert!(shared.lease().is_none());
        shared.prolonged(7, Instant::now(), Duration::from_secs(10));
        assert!(shared.lease().is_none(), "an answer that comes late prolongs nothing");
    }

    #[tokio::test]
    async fn another_lease_is_not_ended_or_prolonged_in_its_place() {
        let shared = Shared::new();
        shared.granted(8, Instant::now(), Duration::from_secs(1000));
        shared.ended(7);
        shared.prolonged(7, Instant::now(), Duration::from_secs(5000));
        assert!(
            shared
                .lease()
                .is_some_and(|lease| lease.id == 8 && lease.until < Instant::now() + Duration::from_secs(1000))
        );
        let over = shared.over();
        shared.ended(8);
        over.await;
    }
}
