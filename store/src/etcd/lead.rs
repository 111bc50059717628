//! Becoming the leader, and handing over.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::client::trouble;
use super::layout::{FORMAT, Leader, Marker, Meta, damaged, decode};
use super::lease::Moment;
use super::wire::{self, KeyValue, TxnRequest};
use super::{Etcd, Lead};
use crate::{Error, Kind};
use model::Epoch;
use prost::Message as _;

/// How often a follower looks whether the lead is free.
const LOOK: Duration = Duration::from_millis(100);
/// How long a hand-over may hold up the end of a process.
const RESIGN: Duration = Duration::from_secs(1);

/// What a candidate sees.
struct Seen {
    leader: Option<KeyValue>,
    meta: Option<KeyValue>,
}

impl Etcd {
    /// With a smallest incarnation also where what is remembered was taken over elsewhere: something else is to be put
    /// in its place.
    pub(super) async fn campaign_now(&mut self, incarnation: Option<u64>) -> Result<Epoch, Error> {
        self.lead = None;
        loop {
            let seen = self.look().await?;
            if self.is_free(&seen)? {
                if let Some(lead) = self.try_lead(seen, incarnation).await? {
                    self.lead = Some(lead);
                    return Ok(lead.epoch);
                }
            } else {
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    /// Gives the lead up, so that another may have it at once. What goes wrong ends with the lease.
    pub(super) async fn resign_now(&mut self) {
        self.lead = None;
        if let Some(lease) = self.shared.lease() {
            self.shared.ended(lease.id);
            // The leader's key goes with its lease.
            if let Err(status) = self.client.revoke(lease.id, RESIGN).await {
                tracing::warn!(%status, "the lead could not be handed over; it ends with its lease");
            }
        }
    }

    async fn look(&self) -> Result<Seen, Error> {
        let success = vec![wire::get(&self.layout.leader()), wire::get(&self.layout.meta())];
        let asked = self.client.txn(TxnRequest { success, ..TxnRequest::default() }).await;
        let mut answer = asked.map_err(|status| trouble("say who leads", status))?;
        let mut found = wire::found(&mut answer).into_iter();
        Ok(Seen { leader: found.next().flatten(), meta: found.next().flatten() })
    }

    /// Whether nobody leads, or this controller does.
    fn is_free(&self, seen: &Seen) -> Result<bool, Error> {
        let Some(entry) = &seen.leader else {
            self.shared.leads(None);
            return Ok(true);
        };
        let leader: Leader = decode("the leader's key", &entry.value)?;
        if self.shared.lease().is_some_and(|lease| lease.id == entry.lease) {
            return Ok(true);
        }
        self.shared.leads(Some(&leader.address));
        Ok(false)
    }

    /// Takes the lead, if nobody was faster.
    async fn try_lead(&mut self, seen: Seen, incarnation: Option<u64>) -> Result<Option<Lead>, Error> {
        let meta = match &seen.meta {
            Some(entry) => decode("the epoch's key", &entry.value)?,
            None => Meta::of(Epoch { incarnation: 1, term: 0 }, false),
        };
        if meta.format > FORMAT {
            let text = format!("the store in etcd was written by a newer version (format {})", meta.format);
            return Err(Error::new(Kind::Newer, text).hinted("run that version, or restore a backup from before it"));
        }
        if meta.moved && incarnation.is_none() {
            return Err(Error::new(Kind::Moved, "what this etcd remembers was taken over into a controller's file")
                .hinted(
                    "start the controller of that file, or bring it back: qctl-controller migrate --to etcd --replace",
                ));
        }
        let lease = self.lease().await?;
        // As for a file: counting from the clock puts a store begun anew above whatever led before it.
        let incarnation = meta.incarnation.max(incarnation.unwrap_or(0));
        let meta = Meta { term: clock().max(meta.term + 1), incarnation, ..meta };
        let leader = Leader { address: self.address.clone(), incarnation: meta.incarnation, term: meta.term };
        let revision = |entry: &Option<KeyValue>| entry.as_ref().map_or(0, |entry| entry.mod_revision);
        let compare = vec![
            wire::unchanged(&self.layout.leader(), revision(&seen.leader)),
            wire::unchanged(&self.layout.meta(), revision(&seen.meta)),
        ];
        let success = vec![
            wire::put_leased(&self.layout.leader(), leader.encode_to_vec(), lease),
            wire::put(&self.layout.meta(), meta.encode_to_vec()),
        ];
        let answer = match self.client.txn(TxnRequest { compare, success, failure: Vec::new() }).await {
            Ok(answer) => answer,
            // The lease is gone: the next look takes another.
            Err(status) if status.code() == tonic::Code::NotFound => {
                self.shared.ended(lease);
                return Ok(None);
            }
            Err(status) => return Err(trouble("take the lead", status)),
        };
        if !answer.succeeded {
            return Ok(None);
        }
        let revision = answer.header.map_or(0, |header| header.revision);
        let lead = Lead { epoch: meta.epoch(), revision, marked: 0, moved: meta.moved };
        let lead = self.finish_batch(lead).await?;
        self.shared.leads(Some(&self.address));
        Ok(Some(lead))
    }

    /// The lease that is held, or a new one.
    async fn lease(&self) -> Result<i64, Error> {
        if let Some(lease) = self.shared.lease() {
            return Ok(lease.id);
        }
        let asked = Moment::now();
        let granted = self.client.grant(self.lease).await.map_err(|status| trouble("grant a lease", status))?;
        let lasts = u64::try_from(granted.ttl).unwrap_or(0);
        self.shared.granted(granted.id, asked, Duration::from_secs(lasts));
        Ok(granted.id)
    }

    /// Works in what an earlier leader has marked, and removes what it has not.
    async fn finish_batch(&self, mut lead: Lead) -> Result<Lead, Error> {
        let success = vec![wire::get(&self.layout.marker())];
        let asked = self.client.txn(TxnRequest { success, ..TxnRequest::default() }).await;
        let mut answer = asked.map_err(|status| trouble("say what was saved last", status))?;
        if let Some(entry) = wire::found(&mut answer).into_iter().next().flatten() {
            lead.marked = entry.mod_revision;
            let marker: Marker = decode("the marker of the newest batch", &entry.value)?;
            if marker.chunks > 0 {
                self.work_in(lead, &marker).await?;
            }
        }
        let chunks = self.layout.chunks();
        let success = vec![wire::delete_range(chunks.clone(), wire::prefix_end(&chunks))];
        self.fenced_txn(lead, success).await?;
        Ok(lead)
    }

    pub(super) async fn last_now(&mut self) -> Result<Option<(Epoch, u64)>, Error> {
        let success = vec![wire::get(&self.layout.marker())];
        let asked = self.client.txn(TxnRequest { success, ..TxnRequest::default() }).await;
        let mut answer = asked.map_err(|status| trouble("say what was saved last", status))?;
        let Some(entry) = wire::found(&mut answer).into_iter().next().flatten() else { return Ok(None) };
        let marker: Marker = decode("the marker of the newest batch", &entry.value)?;
        Ok(Some((marker.epoch(), marker.seq)))
    }

    /// Leaves a mark that what is remembered was taken over elsewhere; the first batch of a later incarnation takes it
    /// away.
    ///
    /// # Errors
    ///
    /// [`Error`] if it cannot be written, or `epoch` does not lead.
    pub async fn move_away(&mut self, epoch: Epoch) -> Result<(), Error> {
        let lead = self.held(epoch)?;
        self.fenced_txn(lead, vec![wire::put(&self.layout.meta(), Meta::of(epoch, true).encode_to_vec())]).await?;
        self.lead = Some(Lead { moved: true, ..lead });
        Ok(())
    }

    /// Who took the lead from `epoch`.
    pub(super) fn deposed(epoch: Epoch, entry: Option<&KeyValue>) -> Error {
        let leader: Result<Option<Leader>, Error> =
            entry.map(|entry| decode("the leader's key", &entry.value)).transpose();
        match leader {
            Ok(Some(leader)) => crate::fenced(epoch, leader.epoch()),
            Ok(None) => run_out(epoch),
            Err(_) => damaged("the leader's key"),
        }
    }
}

/// Nobody has the lead that `epoch` had.
pub(super) fn run_out(epoch: Epoch) -> Error {
    Error::new(Kind::Fenced, format!("epoch {epoch} does not lead any more; its lease has run out"))
}

/// Milliseconds since 1970.
fn clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
