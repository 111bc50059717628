//! What every make of the store keeps.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "common/etcd.rs"]
mod server;

use model::Epoch;
use store::{Batch, Embedded, Etcd, Kind, Memory, Store};

fn put(seq: u64, key: &str, value: &str) -> Batch {
    Batch { seq, puts: vec![(key.into(), value.into())], deletes: Vec::new() }
}

async fn a_commit_is_read_back_by_prefix_in_order(mut store: impl Store) {
    let epoch = store.campaign().await.unwrap();
    for (seq, key) in [(1, "b/2"), (2, "b/10"), (3, "a/1"), (4, "b0"), (5, "b/1")] {
        store.commit(epoch, put(seq, key, key)).await.unwrap();
    }
    let keys: Vec<_> = store.load("b/").await.unwrap().into_iter().map(|(k, _)| k).collect();
    assert_eq!(keys, ["b/1", "b/10", "b/2"]);
    assert_eq!(store.load("").await.unwrap().len(), 5);
    assert!(store.load("c").await.unwrap().is_empty());
}

async fn a_batch_puts_and_deletes_together(mut store: impl Store) {
    let epoch = store.campaign().await.unwrap();
    store.commit(epoch, put(1, "x", "1")).await.unwrap();
    let batch = Batch { seq: 2, puts: vec![("y".into(), b"2".to_vec())], deletes: vec!["x".into(), "none".into()] };
    store.commit(epoch, batch).await.unwrap();
    assert_eq!(store.load("").await.unwrap(), [("y".to_owned(), b"2".to_vec())]);
    assert_eq!(store.last_batch().await.unwrap(), Some((epoch, 2)));
}

/// More, and more of it, than one transaction of etcd's takes.
async fn a_large_batch_is_one_batch(mut store: impl Store) {
    let epoch = store.campaign().await.unwrap();
    let mut puts: Vec<_> = (0..400_u32).map(|at| (format!("k{at:04}"), at.to_le_bytes().repeat(1500))).collect();
    puts.push(("l".to_owned(), b"large".repeat(500_000)));
    store.commit(epoch, Batch { seq: 1, puts: puts.clone(), deletes: Vec::new() }).await.unwrap();
    assert!(store.load("").await.unwrap() == puts);
    assert_eq!(store.last_batch().await.unwrap(), Some((epoch, 1)));
    // Shorter than before, removed, and removed but written anew.
    let deletes = puts.iter().map(|(key, _)| key.clone()).filter(|key| key.as_str() >= "k0300").collect();
    let small = vec![("k0399".to_owned(), vec![1]), ("l".to_owned(), b"small".repeat(120_000))];
    store.commit(epoch, Batch { seq: 2, puts: small.clone()[1..].to_vec(), deletes }).await.unwrap();
    store.commit(epoch, Batch { seq: 3, puts: small.clone(), deletes: Vec::new() }).await.unwrap();
    let left: Vec<_> = puts.into_iter().take(300).chain(small).collect();
    assert!(store.load("").await.unwrap() == left);
    assert_eq!(store.load("k03").await.unwrap().len(), 1);
}

async fn an_older_leader_writes_nothing(mut store: impl Store) {
    let old = store.campaign().await.unwrap();
    store.commit(old, put(1, "x", "old")).await.unwrap();
    let new = store.campaign().await.unwrap();
    assert!(new > old);
    let refused = store.commit(old, put(2, "x", "late")).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Fenced);
    let future = Epoch { term: new.term + 1, ..new };
    assert_eq!(store.commit(future, put(1, "x", "early")).await.unwrap_err().kind(), Kind::Fenced);
    assert_eq!(store.load("x").await.unwrap(), [("x".to_owned(), b"old".to_vec())]);
    assert_eq!(store.last_batch().await.unwrap(), Some((old, 1)));
}

async fn a_later_incarnation_stands_above_every_term_before_it(mut store: impl Store) {
    let old = store.campaign().await.unwrap();
    store.commit(old, put(1, "x", "1")).await.unwrap();
    let begun = store.begin(old.incarnation + 3).await.unwrap();
    assert!(begun.incarnation == old.incarnation + 3 && begun > old);
    assert_eq!(store.commit(old, put(2, "x", "late")).await.unwrap_err().kind(), Kind::Fenced);
    store.commit(begun, put(1, "x", "2")).await.unwrap();
    let next = store.campaign().await.unwrap();
    assert!(next > begun && next.incarnation == begun.incarnation);
    assert_eq!(store.begin(1).await.unwrap().incarnation, begun.incarnation, "never back");
}

macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test] async fn $name() { super::$name(store::Memory::new()).await; })*
        }
        mod embedded {
            $(#[tokio::test] async fn $name() {
                let dir = tempfile::tempdir().unwrap();
                super::$name(store::Embedded::open(&dir.path().join("store")).unwrap()).await;
            })*
        }
        /// All of it on one etcd, in a place of its own each.
        async fn keeps_the_contract(members: usize) {
            let Some(cluster) = server::Cluster::start(members, &[]) else { return };
            $(
                println!(stringify!($name));
                kept(&cluster, concat!("/", stringify!($name)), $name).await;
            )*
        }
    };
}

contract!(
    a_commit_is_read_back_by_prefix_in_order,
    a_batch_puts_and_deletes_together,
    a_large_batch_is_one_batch,
    an_older_leader_writes_nothing,
    a_later_incarnation_stands_above_every_term_before_it,
);

async fn kept<F: Future<Output = ()>>(cluster: &server::Cluster, prefix: &str, test: impl FnOnce(Etcd) -> F) {
    let mut config = store::etcd::Config::new(cluster.endpoints(), "https://this".to_owned());
    config.prefix = prefix.to_owned();
    let (store, keeper) = Etcd::new(config).unwrap();
    tokio::select! {
        () = keeper.run(std::future::pending()) => unreachable!(),
        () = test(store) => {}
    }
}

#[tokio::test]
async fn etcd_with_one_member_keeps_the_contract() {
    keeps_the_contract(1).await;
}

#[tokio::test]
async fn etcd_with_three_members_keeps_the_contract() {
    keeps_the_contract(3).await;
}

#[tokio::test]
async fn what_an_embedded_store_committed_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let mut store = Embedded::open(&path).unwrap();
    let first = store.campaign().await.unwrap();
    store.commit(first, put(7, "x", "1")).await.unwrap();
    drop(store);
    let mut store = Embedded::open(&path).unwrap();
    assert_eq!(store.last_batch().await.unwrap(), Some((first, 7)));
    assert!(store.campaign().await.unwrap() > first);
    assert_eq!(store.load("").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_store_file_has_one_user_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let _held = Embedded::open(&path).unwrap();
    let refused = Embedded::open(&path).unwrap_err();
    assert_eq!(refused.kind(), Kind::InUse);
    assert!(refused.hint().unwrap().contains("another controller"));
}

#[test]
fn a_damaged_file_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    std::fs::write(&path, vec![0x5a; 1 << 16]).unwrap();
    let refused = Embedded::open(&path).unwrap_err();
    assert_eq!(refused.kind(), Kind::Corrupt, "{refused:?}");
    assert!(refused.hint().unwrap().contains("restore a backup"));
}

#[tokio::test]
async fn controllers_that_share_a_memory_store_fence_each_other() {
    let mut one = Memory::new();
    let mut two = one.clone();
    let first = one.campaign().await.unwrap();
    let second = two.campaign().await.unwrap();
    assert!(one.commit(first, put(1, "x", "1")).await.is_err());
    two.commit(second, put(1, "x", "2")).await.unwrap();
}
