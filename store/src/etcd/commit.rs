//! Making a batch durable, in one transaction or in several.

use super::client::{Told, may_pass, trouble};
use super::layout::{Marker, Meta, decode, pack, split, unpack};
use super::wire::{self, KeyValue, RangeRequest, RequestOp, TxnRequest, TxnResponse};
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
            self.lead = Some(self.mark(lead, &marker, groups.pop().unwrap_or_default()).await?);
            return Ok(());
        }
        let marker = Marker::new(epoch, seq, groups.len());
        let lead = match self.lay_down(lead, &marker, &groups).await {
            Ok(lead) => lead,
            Err(error) => {
                self.clear_up(lead, &marker, &error).await;
                return Err(error);
            }
        };
        self.lead = Some(lead);
        // It is true already; but until all is worked in, nothing may follow.
        self.work_in(lead, &marker).await.map_err(|error| {
            self.lead = None;
            Error::new(Kind::Unknown, "etcd did not work in all of a batch").caused(error)
        })
    }

    /// Lays all chunks of a batch down, then marks it.
    pub(super) async fn lay_down(&self, lead: Lead, marker: &Marker, groups: &[Vec<RequestOp>]) -> Result<Lead, Error> {
        for (at, group) in groups.iter().enumerate() {
            // Until the marker is there, nobody looks at it.
            self.fenced_txn(lead, vec![wire::put(&self.layout.chunk(marker, at), pack(group))]).await?;
        }
        self.mark(lead, marker, Vec::new()).await
    }

    /// Removes the chunks of a batch that was refused: a full etcd has no room for them until the next leader comes.
    async fn clear_up(&self, lead: Lead, marker: &Marker, refused: &Error) {
        if !matches!(refused.kind(), Kind::Full | Kind::Io) {
            return;
        }
        let chunks = self.layout.chunks_of(marker);
        let delete = wire::delete_range(chunks.clone(), wire::prefix_end(&chunks));
        if let Err(error) = self.fenced_txn(lead, vec![delete]).await {
            tracing::debug!(%error, "chunks of a refused batch stay until another leads");
        }
    }

    /// Marks a batch, and makes `operations` with it.
    ///
    /// May be sent twice: the second finds its own mark.
    async fn mark(&self, lead: Lead, marker: &Marker, mut operations: Vec<RequestOp>) -> Result<Lead, Error> {
        operations.push(wire::put(&self.layout.marker(), marker.encode_to_vec()));
        if lead.moved {
            operations.push(wire::put(&self.layout.meta(), Meta::of(lead.epoch, false).encode_to_vec()));
        }
        let compare = vec![
            wire::unchanged(&self.layout.leader(), lead.revision),
            wire::unchanged(&self.layout.marker(), lead.marked),
        ];
        let failure = vec![wire::get(&self.layout.leader()), wire::get(&self.layout.marker())];
        let (mut answer, doubtful) = self.txn(lead, TxnRequest { compare, success: operations, failure }).await?;
        if answer.succeeded {
            let marked = answer.header.map_or(0, |header| header.revision);
            return Ok(Lead { marked, moved: false, ..lead });
        }
        let found = wire::found(&mut answer);
        if let Some(Some(entry)) = found.get(1) {
            let there: Marker = decode("the marker of the newest batch", &entry.value)?;
            if there.is(lead.epoch, marker.seq) {
                return Ok(Lead { marked: entry.mod_revision, moved: false, ..lead });
            }
        }
        let leader = found.into_iter().next().flatten();
        if doubtful {
            // It may have been made the first time, and another batch since, by whoever leads now.
            let error = refused(lead, leader.as_ref());
            return Err(unknown(lead.epoch).caused(error));
        }
        Err(refused(lead, leader.as_ref()))
    }

    /// Makes the operations of every chunk that is there still, in order.
    pub(super) async fn work_in(&self, lead: Lead, marker: &Marker) -> Result<(), Error> {
        let (from, end) = self.layout.marked_chunks(marker);
        loop {
            let range = RangeRequest {
                key: from.clone().into(),
                range_end: end.clone().into(),
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
                let (mut answer, _) = self.txn(lead, TxnRequest { compare, success: operations, failure }).await?;
                let leader = wire::found(&mut answer).into_iter().next().flatten();
                // Else it was worked in by a call that came through twice.
                if !answer.succeeded && !is_of(lead, leader.as_ref()) {
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
        let (mut answer, _) = self.txn(lead, TxnRequest { compare, success, failure }).await?;
        if answer.succeeded {
            return Ok(());
        }
        Err(refused(lead, wire::found(&mut answer).into_iter().next().flatten().as_ref()))
    }

    /// Sends a leader's transaction; once its lease is over there is nothing to wait for.
    ///
    /// Returns with the answer whether the transaction may have been sent before, too.
    async fn txn(&self, lead: Lead, request: TxnRequest) -> Result<(TxnResponse, bool), Error> {
        let over = || Status::deadline_exceeded("the lease of the lead has run out meanwhile");
        let Told { what, doubtful } = tokio::select! {
            biased; // an answer that is here counts
            told = self.client.txn_told(request) => told,
            () = self.shared.over() => Told { what: Err(over()), doubtful: true },
        };
        match what {
            Ok(answer) => Ok((answer, doubtful)),
            // Whoever refuses knows nothing of what a silent member has sent on, or will.
            Err(status) if doubtful || may_pass(&status) => Err(unknown(lead.epoch).caused(status)),
            Err(status) => Err(trouble("save a batch", status)),
        }
    }
}

/// Whether the leader's key is the one that `lead` has written.
fn is_of(lead: Lead, leader: Option<&KeyValue>) -> bool {
    leader.is_some_and(|entry| entry.mod_revision == lead.revision)
}

/// Why a transaction was not made, where the leader's key is `leader`.
fn refused(lead: Lead, leader: Option<&KeyValue>) -> Error {
    if is_of(lead, leader) {
        let text = format!("a batch of epoch {} that was given up has come through after all", lead.epoch);
        return Error::new(Kind::Unknown, text);
    }
    Etcd::deposed(lead.epoch, leader)
}

/// What a transaction without an answer means: etcd may have made it, or may yet.
fn unknown(epoch: Epoch) -> Error {
    Error::new(Kind::Unknown, format!("etcd did not say whether it saved a batch of epoch {epoch}"))
        .hinted("check that a majority of the members of --etcd runs and can be reached: qctl doctor")
}
