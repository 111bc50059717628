//! What needs a hand inside: batches that stopped half-way, and members that say nothing.

#![allow(clippy::disallowed_methods, reason = "a test's runtime joins its tasks at its end")]

#[path = "../../tests/common/etcd.rs"]
mod server;

use std::net::TcpListener;
use std::time::Duration;

use super::layout::{Marker, pack, split};
use super::wire::RangeRequest;
use super::*;
use crate::Kind;
use server::Cluster;

/// Requests beyond this are refused, which is less than a transaction may hold.
const SMALL: [&str; 2] = ["--max-request-bytes", "700000"];

fn kept(config: Config) -> Etcd {
    let (store, keeper) = Etcd::new(config).unwrap();
    tokio::spawn(keeper.run(std::future::pending()));
    store
}

fn config(cluster: &Cluster) -> Config {
    let config = Config::new(cluster.endpoints(), "https://this".to_owned());
    // None of it is about a lead that ends, which a loaded machine may bring about.
    Config { lease: Duration::from_secs(60), ..config }
}

fn batch(keys: &str, count: usize) -> Batch {
    let puts = (0..count).map(|at| (format!("{keys}/{at:04}"), at.to_le_bytes().to_vec())).collect();
    Batch { seq: 1, puts, deletes: Vec::new() }
}

async fn count(store: &Etcd, prefix: Vec<u8>) -> usize {
    let range_end = wire::prefix_end(&prefix).into();
    let range = RangeRequest { key: prefix.into(), range_end, ..RangeRequest::default() };
    store.client.range(range).await.unwrap().kvs.len()
}

#[tokio::test]
async fn a_marked_batch_that_nobody_worked_in_is_there_for_readers_and_the_next_leader() {
    let Some(cluster) = Cluster::start(1, &[]) else { return };
    let (mut first, mut second) = (kept(config(&cluster)), kept(config(&cluster)));
    let epoch = first.campaign().await.unwrap();
    let lead = first.held(epoch).unwrap();
    let whole = batch("a", 250);
    let groups = split(first.layout.operations(whole.clone()).unwrap());
    let marker = Marker::new(epoch, 1, groups.len());
    // Of another batch, behind all that is marked.
    let stray = &split(first.layout.operations(batch("b", 5)).unwrap())[0];
    let behind = first.layout.chunk(&marker, groups.len());
    first.fenced_txn(lead, vec![wire::put(&behind, pack(stray))]).await.unwrap();
    first.lay_down(lead, &marker, &groups).await.unwrap();

    assert_eq!(count(&first, first.layout.entry("")).await, 0, "nothing is worked in");
    assert!(second.load("").await.unwrap() == whole.puts, "a reader sees it whole, and nothing else");
    assert_eq!(second.last_batch().await.unwrap(), Some((epoch, 1)));

    first.resign().await;
    second.campaign().await.unwrap();
    assert_eq!(count(&second, second.layout.entry("")).await, 250, "the next leader works it in");
    assert_eq!(count(&second, second.layout.chunks()).await, 0);
    assert!(second.load("").await.unwrap() == whole.puts);
}

#[tokio::test]
async fn chunks_of_a_refused_batch_do_not_come_with_a_smaller_one() {
    let Some(cluster) = Cluster::start(1, &SMALL) else { return };
    let mut store = kept(config(&cluster));
    let epoch = store.campaign().await.unwrap();
    let mut refused = batch("a", 300);
    refused.puts.extend((0..2).map(|at| (format!("b/{at}"), vec![7; 400_000])));
    assert_eq!(split(store.layout.operations(refused.clone()).unwrap()).len(), 4);
    assert_eq!(store.commit(epoch, refused).await.unwrap_err().kind(), Kind::Io);
    assert_eq!(count(&store, store.layout.chunks()).await, 0, "they take no room");
    let smaller = batch("c", 120);
    store.commit(epoch, smaller.clone()).await.unwrap();
    assert!(store.load("").await.unwrap() == smaller.puts);
}

#[tokio::test]
async fn what_is_refused_after_a_member_was_silent_may_have_been_made() {
    let Some(cluster) = Cluster::start(1, &SMALL) else { return };
    let mut store = kept(config(&cluster));
    let epoch = store.campaign().await.unwrap();
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listening.local_addr().unwrap().to_string();
    // Nobody listens on a port that none but root may take.
    for (member, kind) in [(silent, Kind::Unknown), ("127.0.0.1:1".to_owned(), Kind::Io)] {
        let mut config = config(&cluster);
        config.endpoints.insert(0, format!("http://{member}"));
        // The first one is asked first.
        store.client = Arc::new(Client::new(&config).unwrap());
        let puts = vec![("a".to_owned(), vec![7; 400_000]), ("b".to_owned(), vec![7; 400_000])];
        let refused = store.commit(epoch, Batch { seq: 1, puts, deletes: Vec::new() }).await.unwrap_err();
        assert_eq!(refused.kind(), kind, "{refused:?}");
    }
}

#[tokio::test]
async fn another_batch_of_the_same_lead_is_neither_this_one_nor_the_loss_of_the_lead() {
    let Some(cluster) = Cluster::start(1, &[]) else { return };
    let mut store = kept(config(&cluster));
    let epoch = store.campaign().await.unwrap();
    let before = store.lead;
    store.commit(epoch, batch("a", 1)).await.unwrap();
    // As if that had come through after it was given up.
    store.lead = before;
    let second = Batch { seq: 2, ..batch("b", 1) };
    assert_eq!(store.commit(epoch, second).await.unwrap_err().kind(), Kind::Unknown);
    assert!(store.load("").await.unwrap() == batch("a", 1).puts);
}

#[tokio::test]
async fn who_lost_the_lead_does_not_know_what_became_of_a_batch_that_a_silent_member_took() {
    let Some(cluster) = Cluster::start(1, &[]) else { return };
    let (mut first, mut second) = (kept(config(&cluster)), kept(config(&cluster)));
    let epoch = first.campaign().await.unwrap();
    // It has not heard of that yet.
    let lease = first.shared.lease().unwrap().id;
    second.client.revoke(lease, Duration::from_secs(10)).await.unwrap();
    second.campaign().await.unwrap();
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", listening.local_addr().unwrap());
    for (before, kind) in [(vec![silent], Kind::Unknown), (Vec::new(), Kind::Fenced)] {
        let endpoints = [before, cluster.endpoints()].concat();
        first.client = Arc::new(Client::new(&Config { endpoints, ..config(&cluster) }).unwrap());
        let refused = first.commit(epoch, batch("a", 1)).await.unwrap_err();
        assert_eq!(refused.kind(), kind, "{refused:?}");
    }
}
