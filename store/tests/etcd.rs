//! What a store on etcd keeps when things go wrong around it.

#![allow(clippy::unwrap_used, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, reason = "a test's runtime joins its tasks at its end")]

#[path = "common/etcd.rs"]
mod server;

use std::time::{Duration, Instant};

use model::Epoch;
use server::Cluster;
use store::etcd::{Config, Sight};
use store::{Batch, Error, Etcd, Kind, Store};
use tokio::sync::{oneshot, watch};

/// Far above what anything here takes, and what a loaded machine may add.
const LONG: Duration = Duration::from_secs(60);

/// A store and the task that keeps its lease.
struct Kept {
    store: Etcd,
    sight: watch::Receiver<Sight>,
    /// Dropped, the keeper ends: as if the process had died, or been paused.
    keeping: Option<oneshot::Sender<()>>,
}

impl Kept {
    fn new(cluster: &Cluster, address: &str, set: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(cluster.endpoints(), address.to_owned());
        set(&mut config);
        let (store, keeper) = Etcd::new(config).unwrap();
        let (keeping, dropped) = oneshot::channel::<()>();
        let sight = keeper.sight();
        tokio::spawn(keeper.run(async move { drop(dropped.await) }));
        Self { store, sight, keeping: Some(keeping) }
    }
}

fn put(seq: u64, key: &str, value: &str) -> Batch {
    Batch { seq, puts: vec![(key.into(), value.into())], deletes: Vec::new() }
}

/// A batch that no single transaction takes; each writes all keys of the one before anew, in other sizes.
fn large(seq: u64) -> Batch {
    let value = |at: u64| seq.to_le_bytes().repeat(usize::try_from(1 + (seq * 37 + at * 101) % 900).unwrap());
    let mut puts: Vec<_> = (0..300).map(|at| (format!("many/{at:04}"), value(at))).collect();
    puts.push(("one".to_owned(), seq.to_le_bytes().repeat(250_000)));
    let deletes = vec![format!("gone/{}", seq - 1)];
    puts.push((format!("gone/{seq}"), seq.to_le_bytes().to_vec()));
    Batch { seq, puts, deletes }
}

/// Everything of a [`large`] batch is there, and nothing else.
fn is_whole(entries: &[(String, Vec<u8>)]) -> Option<u64> {
    let seq = u64::from_le_bytes(entries.last()?.1[..8].try_into().unwrap());
    let mut expected = large(seq).puts;
    expected.sort();
    assert!(
        entries == expected,
        "half of a batch: {:?}",
        entries.iter().map(|(key, value)| (key, value.len(), value.first())).collect::<Vec<_>>()
    );
    Some(seq)
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_a_large_batch_whole_or_not_at_all_also_while_history_is_dropped() {
    let Some(cluster) = Cluster::start(1, &[]) else { return };
    let busy =
        |config: &mut Config| (config.look_every, config.compact_every) = (Duration::from_millis(20), Duration::ZERO);
    let mut writer = Kept::new(&cluster, "https://a", busy);
    let mut reader = Kept::new(&cluster, "https://b", |_| ()).store;
    let epoch = writer.store.campaign().await.unwrap();
    let (done, mut over) = watch::channel(false);
    let reading = tokio::spawn(async move {
        let mut seen = Vec::new();
        while !*over.borrow_and_update() {
            seen.extend(is_whole(&reader.load("").await.unwrap()));
        }
        seen.extend(is_whole(&reader.load("").await.unwrap()));
        seen
    });
    for seq in 1..=12 {
        writer.store.commit(epoch, large(seq)).await.unwrap();
        assert_eq!(writer.store.last_batch().await.unwrap(), Some((epoch, seq)));
    }
    done.send(true).unwrap();
    let seen = reading.await.unwrap();
    assert!(seen.is_sorted() && seen.last() == Some(&12), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_its_leader_did_not_finish_is_whole_or_absent_for_the_next() {
    let Some(cluster) = Cluster::start(1, &[]) else { return };
    let mut leader = Kept::new(&cluster, "https://a", |_| ());
    let mut epoch = leader.store.campaign().await.unwrap();
    let begun = Instant::now();
    leader.store.commit(epoch, large(1)).await.unwrap();
    let took = begun.elapsed();
    let (mut newest, mut absent, mut whole) = (1, 0, 0);
    for step in 0..24 {
        let seq = newest + 1;
        // Dropped on the way: what was sent is sent, nothing more follows.
        let cut =
            tokio::time::timeout(took.mul_f64(f64::from(step) / 20.0), leader.store.commit(epoch, large(seq))).await;
        let mut next = Kept::new(&cluster, "https://b", |_| ());
        leader.store.resign().await;
        epoch = next.store.campaign().await.unwrap();
        let there = is_whole(&next.store.load("").await.unwrap()).unwrap();
        let (_, last) = next.store.last_batch().await.unwrap().unwrap();
        assert_eq!(there, last, "the marker tells what is there");
        assert!(there == newest || there == seq, "{there} after {seq}");
        assert!(there == seq || cut.is_err(), "what was acknowledged is there");
        (absent, whole) = if there == seq { (absent, whole + 1) } else { (absent + 1, whole) };
        newest = there;
        leader = next;
    }
    println!("{absent} absent, {whole} whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_and_whoever_lost_the_lead_writes_nothing() {
    let Some(cluster) = Cluster::start(1, &[]) else { return };
    let mut first = Kept::new(&cluster, "https://first", |_| ());
    let mut second = Kept::new(&cluster, "https://second", |_| ());
    let old = first.store.campaign().await.unwrap();
    first.store.commit(old, put(1, "x", "old")).await.unwrap();
    assert!(first.store.still_leads());

    let mut leader = second.store.leader();
    let waiting = tokio::spawn(async move { (second.store.campaign().await.unwrap(), second) });
    tokio::time::timeout(LONG, leader.wait_for(|leader| leader.as_deref() == Some("https://first")))
        .await
        .unwrap()
        .unwrap();
    // Longer than a lease: it is kept.
    let over = first.store.lead_over();
    assert!(tokio::time::timeout(Duration::from_secs(5), over).await.is_err(), "the lease is kept");
    assert!(!waiting.is_finished());

    // As if the process were paused.
    drop(first.keeping.take());
    let over = first.store.lead_over();
    let (new, mut second) = tokio::time::timeout(LONG, waiting).await.unwrap().unwrap();
    assert!(new > old);
    tokio::time::timeout(Duration::ZERO, over).await.expect("it stepped down before another could lead");
    assert!(!first.store.still_leads());
    assert_eq!(first.store.commit(old, put(2, "x", "late")).await.unwrap_err().kind(), Kind::Fenced);
    second.store.commit(new, put(1, "x", "new")).await.unwrap();
    assert_eq!(second.store.load("").await.unwrap(), [("x".to_owned(), b"new".to_vec())]);

    // A planned hand-over does not wait for the lease.
    let mut third = Kept::new(&cluster, "https://third", |_| ());
    let mut leader = third.store.leader();
    let waiting = tokio::spawn(async move { third.store.campaign().await.unwrap() });
    tokio::time::timeout(LONG, leader.wait_for(|leader| leader.as_deref() == Some("https://second")))
        .await
        .unwrap()
        .unwrap();
    second.store.resign().await;
    let begun = Instant::now();
    assert!(tokio::time::timeout(LONG, waiting).await.unwrap().unwrap() > new);
    println!("handed over in {:?}", begun.elapsed());
    assert_eq!(second.store.commit(new, put(2, "x", "late")).await.unwrap_err().kind(), Kind::Fenced);
}

/// Commits again and again, as a driver does: after a failure it leads anew.
async fn commits(store: &mut Etcd, epoch: &mut Epoch, seq: &mut u64) {
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < LONG, "nothing is saved any more");
        match store.commit(*epoch, put(*seq, "seq", &seq.to_string())).await {
            Ok(()) => return *seq += 1,
            Err(error) => println!("{error}: {:?}", error.kind()),
        }
        if let Ok(led) = store.campaign().await {
            (*epoch, *seq) = (led, 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_may_die_or_stand_still_and_a_majority_may_come_back() {
    let Some(mut cluster) = Cluster::start(3, &[]) else { return };
    let mut kept = Kept::new(&cluster, "https://a", |config| config.look_every = Duration::from_millis(100));
    let mut epoch = kept.store.campaign().await.unwrap();
    let mut seq = 1;
    commits(&mut kept.store, &mut epoch, &mut seq).await;
    for at in 0..3 {
        cluster.signal(at, "STOP");
        commits(&mut kept.store, &mut epoch, &mut seq).await;
        cluster.signal(at, "CONT");
        cluster.kill(at);
        commits(&mut kept.store, &mut epoch, &mut seq).await;
        let down = |sight: &Sight| sight.alarms.iter().any(|alarm| alarm.code == "etcd-member-down");
        tokio::time::timeout(LONG, kept.sight.wait_for(down)).await.unwrap().unwrap();
        cluster.start_again(at);
        tokio::time::timeout(LONG, kept.sight.wait_for(|sight| sight.alarms.is_empty())).await.unwrap().unwrap();
    }
    cluster.kill(0);
    cluster.kill(1);
    let refused = kept.store.commit(epoch, put(seq, "seq", "no majority")).await.unwrap_err();
    assert!(matches!(refused.kind(), Kind::Unknown | Kind::Fenced), "{refused:?}");
    tokio::time::timeout(LONG, kept.store.lead_over()).await.expect("without etcd the lead ends");
    cluster.start_again(0);
    cluster.start_again(1);
    commits(&mut kept.store, &mut epoch, &mut seq).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_etcd_is_told_of_and_emptied_of_its_history() {
    // etcd's own floor is what it needs for an empty database.
    let Some(cluster) = Cluster::start(1, &["--quota-backend-bytes", "12000000"]) else { return };
    let shared = |config: &mut Config| (config.maintain, config.look_every) = (false, Duration::from_millis(50));
    let mut kept = Kept::new(&cluster, "https://a", shared);
    let epoch = kept.store.campaign().await.unwrap();
    let mut filled = None::<Error>;
    for seq in 1..200 {
        let batch = Batch { seq, puts: vec![("same".into(), vec![7; 500_000])], deletes: Vec::new() };
        if let Err(error) = kept.store.commit(epoch, batch).await {
            filled = Some(error);
            break;
        }
    }
    let filled = filled.expect("the quota is reached");
    assert_eq!(filled.kind(), Kind::Full, "{filled:?}");
    assert!(filled.hint().unwrap().contains("defrag"));
    let full = |sight: &Sight| sight.alarms.iter().any(|alarm| alarm.code == "etcd-no-space");
    tokio::time::timeout(LONG, kept.sight.wait_for(full)).await.unwrap().unwrap();
    kept.store.resign().await;

    // Another controller, to which this etcd belongs.
    let mut owner = Kept::new(&cluster, "https://b", |config| config.look_every = Duration::from_millis(50));
    let begun = Instant::now();
    let epoch = loop {
        match owner.store.campaign().await {
            Ok(epoch) => break epoch,
            Err(error) => assert!(begun.elapsed() < LONG, "{error:?}"),
        }
    };
    owner.store.commit(epoch, put(1, "x", "there is room")).await.unwrap();
    assert_eq!(owner.store.load("same").await.unwrap()[0].1.len(), 500_000);
    tokio::time::timeout(LONG, owner.sight.wait_for(|sight| sight.alarms.is_empty() && !sight.members.is_empty()))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_is_full_of_what_is_remembered_is_emptied_once_and_says_what_it_needs() {
    let Some(cluster) = Cluster::start(1, &["--quota-backend-bytes", "12000000"]) else { return };
    let often = |config: &mut Config| {
        (config.look_every, config.lease) = (Duration::from_millis(50), Duration::from_secs(60));
    };
    let mut kept = Kept::new(&cluster, "https://a", often);
    let epoch = kept.store.campaign().await.unwrap();
    let told = |sight: &Sight| sight.alarms.iter().any(|alarm| alarm.hint.contains("--quota-backend-bytes"));
    let mut sight = kept.sight.clone();
    let begun = Instant::now();
    let mut seq = 0;
    while !told(&sight.borrow_and_update()) {
        assert!(begun.elapsed() < LONG, "{:?}", sight.borrow());
        seq += 1;
        let batch = Batch { seq, puts: vec![(format!("k{seq}"), vec![7; 500_000])], deletes: Vec::new() };
        if kept.store.commit(epoch, batch).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    // Versions of etcd tell it in different words.
    let emptied = || cluster.log(0).to_lowercase().matches("defrag").count();
    let once = emptied();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(once > 0 && emptied() == once, "{}", cluster.log(0));
    assert!(told(&sight.borrow_and_update()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_over_elsewhere_is_led_by_nobody_until_something_takes_its_place() {
    let Some(cluster) = Cluster::start(1, &[]) else { return };
    let long = |config: &mut Config| config.lease = Duration::from_secs(60);
    let (mut store, mut other) = (Kept::new(&cluster, "https://a", long), Kept::new(&cluster, "https://b", long));
    let (store, other) = (&mut store.store, &mut other.store);
    let epoch = store.campaign().await.unwrap();
    store.commit(epoch, put(1, "x", "old")).await.unwrap();
    store.move_away(epoch).await.unwrap();
    store.resign().await;
    let refused = async |store: &mut Etcd| {
        let refused = store.campaign().await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Moved, "{refused:?}");
        assert!(refused.hint().unwrap().contains("migrate --to etcd"));
    };
    refused(other).await;
    // Whoever wants to put something in its place, and did not come to that.
    let begun = other.begin(0).await.unwrap();
    assert!(begun > epoch);
    other.resign().await;
    refused(store).await;
    let begun = store.begin(epoch.incarnation + 1).await.unwrap();
    store.commit(begun, put(1, "x", "new")).await.unwrap();
    store.resign().await;
    assert!(other.campaign().await.unwrap() > begun);
    assert_eq!(other.load("").await.unwrap(), [("x".to_owned(), b"new".to_vec())]);
}
