//! Making a batch durable, in one transaction or in several.

use super::client::{may_pass, trouble};
use super::layout::{Marker, decode, pack, split, unpack};
use super::wire::{self, RangeRequest, RequestOp, TxnRequest, TxnResponse};
use super::{Etcd, Lead};
use crate::{Batch, Error, Kind};
use model::Epoch;
use prost::Message as _;
use tonic::Status;

/// Chunks read at once: each is about as large as an answer should be.
const PAGE: i64 = 4;

impl Etcd {
    pub(super) async fn commit_now(&mut self, epoch: Epoch, batch: Batch) -> Result<(), Error> {
        let lead = self.held(epoch)?;
        let seq = batch.seq;
        let mut groups = split(self.layout.operations(batch)?);
        if groups.len() == 1 {
            let marker = Marker::new(epoch, seq, 0);
            let marked = self.mark(lead, &marker, groups.pop().unwrap_or_default()).await?;
            self.lead = Some(Lead { marked, ..lead });
            return Ok(());
        }
        let marker = Marker::new(epoch, seq, groups.len());
        for (at, group) in groups.iter().enumerate() {
            // Until the marker is there, nobody looks at it.
            self.fenced_txn(lead, vec![wire::put(&self.layout.chunk(&marker, at), pack(group))]).await?;
        }
        let marked = self.mark(lead, &marker, Vec::new()).await?;
        let lead = Lead { marked, ..lead };
        self.lead = Some(lead);
        // It is true already; but until all is worked in, nothing may follow.
        self.work_in(lead, &marker).await.map_err(|error| {
            self.lead = None;
            let kind = if error.kind() == Kind::Fenced { Kind::Fenced } else { Kind::Unknown };
            Error::new(kind, "etcd did not work in all of a batch").caused(error)
        })
    }

    /// Marks a batch, and makes `operations` with it; returns the revision of that.
    ///
    /// May be sent twice: the second finds its own mark.
    async fn mark(&self, lead: Lead, marker: &Marker, mut operations: Vec<RequestOp>) -> Result<i64, Error> {
        operations.push(wire::put(&self.layout.marker(), marker.encode_to_vec()));
        let compare = vec![
            wire::unchanged(&self.layout.leader(), lead.revision),
            wire::unchanged(&self.layout.marker(), lead.marked),
        ];
        let failure = vec![wire::get(&self.layout.leader()), wire::get(&self.layout.marker())];
        let mut answer = self.txn(lead, TxnRequest { compare, success: operations, failure }).await?;
        if answer.succeeded {
            return Ok(answer.header.map_or(0, |header| header.revision));
        }
        let found = wire::found(&mut answer);
        if let Some(Some(entry)) = found.get(1) {
            let there: Marker = decode("the marker of the newest batch", &entry.value)?;
            if there.is(lead.epoch, marker.seq) {
                return Ok(entry.mod_revision);
            }
        }
        Err(Self::deposed(lead.epoch, found.into_iter().next().flatten().as_ref()))
    }

    /// Makes the operations of every chunk that is there still, in order.
    pub(super) async fn work_in(&self, lead: Lead, marker: &Marker) -> Result<(), Error> {
        let from = self.layout.chunks_of(marker);
        loop {
            let range = RangeRequest {
                key: from.clone().into(),
                range_end: wire::prefix_end(&from).into(),
                limit: PAGE,
                ..RangeRequest::default()
            };
            let page = self.client.range(range).await.map_err(|status| trouble("read a batch's chunks", status))?;
            if page.kvs.is_empty() {
                return Ok(());
            }
            for chunk in page.kvs {
                let mut operations = unpack(&chunk.value)?;
                operations.push(wire::delete(&chunk.key));
                let compare = vec![
                    wire::unchanged(&self.layout.leader(), lead.revision),
                    wire::unchanged(&chunk.key, chunk.mod_revision),
                ];
                let failure = vec![wire::get(&self.layout.leader())];
                let mut answer = self.txn(lead, TxnRequest { compare, success: operations, failure }).await?;
                let leader = wire::found(&mut answer).into_iter().next().flatten();
                // Else it was worked in by a call that came through twice.
                if !answer.succeeded && leader.as_ref().map(|entry| entry.mod_revision) != Some(lead.revision) {
                    return Err(Self::deposed(lead.epoch, leader.as_ref()));
                }
            }
        }
    }

    /// Makes operations that may be made twice, while `lead` holds and its newest batch is the same.
    pub(super) async fn fenced_txn(&self, lead: Lead, success: Vec<RequestOp>) -> Result<(), Error> {
        let compare = vec![
            wire::unchanged(&self.layout.leader(), lead.revision),
            wire::unchanged(&self.layout.marker(), lead.marked),
        ];
        let failure = vec![wire::get(&self.layout.leader())];
        let mut answer = self.txn(lead, TxnRequest { compare, success, failure }).await?;
        if answer.succeeded {
            return Ok(());
        }
        Err(Self::deposed(lead.epoch, wire::found(&mut answer).into_iter().next().flatten().as_ref()))
    }

    /// Sends a leader's transaction; once its lease is over there is nothing to wait for.
    async fn txn(&self, lead: Lead, request: TxnRequest) -> Result<TxnResponse, Error> {
        let sent = tokio::select! {
            biased; // an answer that is here counts
            sent = self.client.txn(request) => sent,
            () = self.shared.over() => Err(Status::deadline_exceeded("the lease of the lead has run out meanwhile")),
        };
        sent.map_err(|status| in_doubt(status, lead.epoch))
    }
}

/// What a transaction without an answer means: etcd may have made it, or may yet.
fn in_doubt(status: Status, epoch: Epoch) -> Error {
    if !may_pass(&status) {
        return trouble("save a batch", status);
    }
    Error::new(Kind::Unknown, format!("etcd did not say whether it saved a batch of epoch {epoch}"))
        .hinted("check that a majority of the members of --etcd runs and can be reached: qctl doctor")
        .caused(status)
}
