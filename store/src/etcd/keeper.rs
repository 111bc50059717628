//! What goes on beside the store: the lease is kept, members are looked at,
//! history is dropped, and room is made when there is none.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::client::{Client, FULL};
use super::config::Config;
use super::lease::{Moment, Shared};
use super::wire::alarm_request::AlarmAction;
use super::wire::{AlarmRequest, AlarmType};

/// How long one member may take to give space back.
const DEFRAGMENT: Duration = Duration::from_secs(60);

const FULL_OF_HISTORY: &str = "etcd is full: nothing can be saved";
const FULL_OF_LIFE: &str =
    "etcd is full, and was just emptied of its history: what is remembered needs more than its quota";
/// What to do about an etcd that is too small.
const MORE: &str = "start etcd's members with a larger --quota-backend-bytes, or the controllers with a smaller --keep-ended-jobs; \
     saving goes on within five minutes";

/// What was seen of etcd at the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// In the order of the configuration.
    pub members: Vec<Member>,
    /// What an operator should know.
    pub alarms: Vec<Alarm>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its address.
    pub address: String,
    /// Its version; empty where it does not answer.
    pub version: String,
    /// Bytes of its database.
    pub size: u64,
}

/// What an operator should know, and do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// Stable name: `etcd-member-down`, `etcd-no-majority`, `etcd-no-space`, `etcd-corrupt`.
    pub code: &'static str,
    /// One sentence.
    pub message: String,
    /// The next step.
    pub hint: String,
}

/// Runs beside an [`super::Etcd`].
#[derive(Debug)]
pub struct Keeper {
    client: Arc<Client>,
    shared: Arc<Shared>,
    lease: Duration,
    look_every: Duration,
    compact_every: Duration,
    maintain: bool,
    sight: watch::Sender<Sight>,
}

impl Keeper {
    pub(super) fn new(client: Arc<Client>, shared: Arc<Shared>, config: &Config) -> Self {
        let lease = Duration::from_secs(config.lease.as_secs().clamp(2, 60));
        let (look_every, compact_every) = (config.look_every, config.compact_every);
        let sight = watch::Sender::new(Sight::default());
        Self { client, shared, lease, look_every, compact_every, maintain: config.maintain, sight }
    }

    /// What is seen of etcd; changes with it.
    #[must_use]
    pub fn sight(&self) -> watch::Receiver<Sight> {
        self.sight.subscribe()
    }

    /// Runs until `stop` resolves.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) {
        tokio::select! {
            biased; // stop wins: a lease that is not kept ends by itself
            () = stop => {}
            () = self.keep_lease() => {}
            () = self.look_after() => {}
        }
    }

    /// Prolongs whatever lease is held, three times in its span.
    async fn keep_lease(&self) {
        let mut leases = self.shared.leases();
        loop {
            let Some(lease) = self.shared.lease() else {
                // The sender lives in `self`.
                let _ = leases.changed().await;
                continue;
            };
            let asked = Moment::now();
            match self.client.keep_alive(lease.id, self.lease / 4).await {
                Ok(Some(lasts)) => {
                    self.shared.prolonged(lease.id, asked, lasts);
                    sleep(self.lease / 3).await;
                }
                Ok(None) => {
                    tracing::warn!("etcd has ended the lease of the lead");
                    self.shared.ended(lease.id);
                }
                Err(status) => {
                    tracing::warn!(%status, "the lease of the lead could not be prolonged");
                    sleep(Duration::from_millis(20)).await;
                }
            }
            leases.mark_unchanged();
        }
    }

    async fn look_after(&self) {
        let mut looks = interval(self.look_every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut compacted = (Instant::now(), 0);
        let mut emptied = None::<Instant>;
        loop {
            looks.tick().await;
            let in_vain = emptied.is_some_and(|at| at.elapsed() < self.compact_every);
            let revision = self.look(in_vain).await;
            // One controller is enough: the leader, or anyone while nobody can lead.
            if !self.maintain || (self.shared.lease().is_none() && self.shared.leader().borrow().is_some()) {
                continue;
            }
            let full = self.sight.borrow().alarms.iter().any(|alarm| alarm.code == "etcd-no-space");
            // Members answer nothing while they give space back; and what is alive has none to give.
            if full && !in_vain {
                if self.make_room(revision).await {
                    emptied = Some(Instant::now());
                }
            } else if compacted.0.elapsed() >= self.compact_every {
                if compacted.1 > 0
                    && let Err(status) = self.client.compact(compacted.1).await
                {
                    tracing::warn!(%status, "etcd's history could not be dropped");
                }
                compacted = (Instant::now(), revision);
            }
        }
    }

    /// Looks at all members; returns the newest revision that one knows.
    ///
    /// `in_vain`: of its history it was emptied a short while ago.
    async fn look(&self, in_vain: bool) -> i64 {
        let mut sight = Sight::default();
        let mut newest = 0;
        let addresses: Vec<&str> = self.client.members().collect();
        for (at, address) in addresses.iter().enumerate() {
            let mut member = Member { address: (*address).to_owned(), version: String::new(), size: 0 };
            match self.client.status(at).await {
                Ok(status) => {
                    newest = newest.max(status.header.map_or(0, |header| header.revision));
                    member.version = status.version;
                    member.size = u64::try_from(status.db_size).unwrap_or(0);
                }
                Err(status) => sight.alarms.push(Alarm {
                    code: "etcd-member-down",
                    message: format!("the etcd member `{address}` does not answer: {}", status.message()),
                    hint: "start it again, or replace it: a majority of the members must run".to_owned(),
                }),
            }
            sight.members.push(member);
        }
        let get = AlarmRequest { action: AlarmAction::Get.into(), ..AlarmRequest::default() };
        match self.client.alarm(get).await {
            Ok(answer) => {
                let raised: Vec<AlarmType> = answer.alarms.iter().map(|one| one.alarm()).collect();
                if raised.contains(&AlarmType::Nospace) {
                    let (message, hint) = if in_vain { (FULL_OF_LIFE, MORE) } else { (FULL_OF_HISTORY, FULL) };
                    let (message, hint) = (message.to_owned(), hint.to_owned());
                    sight.alarms.push(Alarm { code: "etcd-no-space", message, hint });
                }
                if raised.contains(&AlarmType::Corrupt) {
                    sight.alarms.push(Alarm {
                        code: "etcd-corrupt",
                        message: "etcd says that the data of a member is damaged".to_owned(),
                        hint: "replace that member; where all are damaged, restore a backup: qctl-controller restore"
                            .to_owned(),
                    });
                }
            }
            Err(status) => sight.alarms.push(Alarm {
                code: "etcd-no-majority",
                message: format!("etcd does not answer as a whole: {}", status.message()),
                hint: "start members until a majority runs; what runs on the hosts goes on meanwhile".to_owned(),
            }),
        }
        self.tell(sight);
        newest
    }

    fn tell(&self, sight: Sight) {
        let before = self.sight.borrow().alarms.clone();
        for alarm in sight.alarms.iter().filter(|alarm| !before.iter().any(|old| old.code == alarm.code)) {
            tracing::warn!(code = alarm.code, "{}", alarm.message);
        }
        for alarm in before.iter().filter(|alarm| !sight.alarms.iter().any(|new| new.code == alarm.code)) {
            tracing::info!(code = alarm.code, "an alarm is over");
        }
        self.sight.send_replace(sight);
    }

    /// Drops history, gives its space back member by member, and takes the alarm away; returns whether that was done.
    async fn make_room(&self, revision: i64) -> bool {
        tracing::warn!(revision, "etcd is full; history is dropped and its space given back");
        if let Err(status) = self.client.compact(revision).await {
            tracing::warn!(%status, "etcd's history could not be dropped");
            return false;
        }
        for at in 0..self.client.members().count() {
            if let Err(status) = self.client.defragment(at, DEFRAGMENT).await {
                tracing::warn!(%status, "a member could not give its space back");
            }
        }
        let disarmed = self.disarm().await;
        self.look(disarmed).await;
        disarmed
    }

    /// Takes the alarm away from each member that has raised it.
    async fn disarm(&self) -> bool {
        let get = AlarmRequest { action: AlarmAction::Get.into(), ..AlarmRequest::default() };
        let raised = match self.client.alarm(get).await {
            Ok(answer) => answer.alarms,
            Err(status) => {
                tracing::warn!(%status, "etcd's alarms could not be read");
                return false;
            }
        };
        let mut disarmed = true;
        for one in raised.iter().filter(|one| one.alarm() == AlarmType::Nospace) {
            let (action, alarm) = (AlarmAction::Deactivate.into(), AlarmType::Nospace.into());
            let disarm = AlarmRequest { action, member_id: one.member_id, alarm };
            if let Err(status) = self.client.alarm(disarm).await {
                tracing::warn!(%status, "etcd's alarm could not be taken away");
                disarmed = false;
            }
        }
        disarmed
    }
}
