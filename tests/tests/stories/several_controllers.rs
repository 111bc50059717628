//! Several controllers on one etcd: one leads, whatever happens to it.

use std::fs;
use std::time::Instant;

use serde_json::Value;
use stories::job::{Event, iterations};
use stories::pipeline;
use stories::poll::until;
use stories::process::Process;
use stories::program::run;
use stories::relay::Relay;
use stories::several::{LONG, Several};

use crate::etcd::Cluster;

/// Three controllers and two agents on an etcd that asks for certificates; none where there is no etcd.
fn cluster(members: usize) -> Option<(Several, Cluster)> {
    let several = Several::prepare(3);
    let args = several.etcd_args();
    let etcd = Cluster::start(members, &args.iter().map(String::as_str).collect::<Vec<_>>())?;
    Some((several, etcd))
}

fn started(several: &mut Several, endpoints: &[Vec<String>; 3]) {
    for (at, endpoints) in endpoints.iter().enumerate() {
        let store = [vec!["--store".to_owned(), "etcd".to_owned()], several.etcd_flags(endpoints)].concat();
        several.start(at, &store);
    }
    several.login();
    several.agent("n1");
    several.agent("n2");
    several.ready(2);
}

/// Training that ends when it is told to; under way.
fn trains(several: &Several) -> (String, Vec<Process>) {
    let lab = &several.lab;
    let job = lab.accepted(&pipeline::training(lab, "train", 30_000, 200, &[]));
    lab.reaches(&job, 5);
    let ranks = lab.ranks();
    assert_eq!(ranks.len(), 4);
    (job, ranks)
}

/// One attempt goes on with the ranks that were there from the beginning, every line came once, and every event stayed;
/// then it obeys whoever leads.
fn did_not_notice(several: &Several, job: &str, ranks: &[Process], shown: &[Event]) {
    let lab = &several.lab;
    let steps = || iterations(&lab.log(job, "train", 3));
    let reached = steps().len();
    until("training goes on", LONG, || (steps().len() >= reached + 5).then_some(()));
    assert!(ranks.iter().all(Process::lives), "no rank died");
    let events = lab.events(job);
    assert_eq!(events.get(..shown.len()), Some(shown), "every event, as it was shown");
    let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..).take(seqs.len()).collect::<Vec<_>>());
    assert_eq!(events.iter().filter(|event| event.kind == "attempt-placed").count(), 1, "{events:#?}");
    let bad = ["attempt-failed", "task-retried", "node-lost"];
    assert!(events.iter().all(|event| !bad.contains(&&*event.kind)), "{events:#?}");
    let cancelled = lab.qctl_for(LONG, ["cancel", job]);
    assert_eq!(cancelled.code, 0, "{cancelled}");
    until("the job ends", LONG, || (lab.phase(job) == "cancelled").then_some(()));
    assert!(!ranks.iter().any(Process::lives), "the ranks have obeyed");
    let steps = steps();
    assert_eq!(steps, (1..).take(steps.len()).collect::<Vec<_>>(), "each line once, none missing");
}

/// Something that is acknowledged only by a leader; returns the job's id.
fn accepted_by_whoever_leads(several: &Several, name: &str) -> String {
    let lab = &several.lab;
    let spec = pipeline::command(lab, name, &["true"], 1);
    until("a leader accepts a job", LONG, || {
        let said = lab.submit(&spec, &["-o", "name", "--id", name]);
        (said.code == 0).then(|| said.stdout.trim().to_owned())
    })
}

#[test]
fn a_leader_is_killed_paused_and_asked_to_go_while_a_job_trains() {
    let Some((mut several, etcd)) = cluster(1) else { return };
    let endpoints = etcd.endpoints();
    started(&mut several, &[endpoints.clone(), endpoints.clone(), endpoints]);
    let (job, ranks) = trains(&several);
    let mut follow = several.lab.command(["logs", &job, "--stage", "train", "--rank", "3", "-f", "-o", "raw"]);
    let followed = several.lab.root().join("followed");
    let said = std::fs::File::create(several.lab.root().join("followed.err")).unwrap();
    let mut follower = follow.stdout(std::fs::File::create(&followed).unwrap()).stderr(said).spawn().unwrap();
    let shown = several.lab.events(&job);

    // Killed.
    let first = several.leader();
    several.end(first, "KILL");
    let begun = Instant::now();
    let second = accepted_by_whoever_leads(&several, "after-kill");
    println!("another leader had accepted a job {:?} after the kill", begun.elapsed());
    several.start_again(first);

    // Paused: it wakes with a full inbox, and believes in nothing that it knew.
    let paused = several.leader();
    several.signal(paused, "STOP");
    let begun = Instant::now();
    let third = accepted_by_whoever_leads(&several, "after-pause");
    println!("another leader had accepted a job {:?} after the pause", begun.elapsed());
    let cancelled = several.lab.qctl_for(LONG, ["cancel", &third, "--reason", "seen by the new leader only"]);
    several.signal(paused, "CONT");
    assert!(cancelled.code == 0 || cancelled.stderr.contains("ended"), "{cancelled}");
    let refused = several.ask(paused, &["ps", "-a", "-o", "json"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (6, ""), "{refused}");
    let leads = several.address(several.leader());
    until("it tells who leads", LONG, || several.ask(paused, &["ps"]).stderr.contains(&leads).then_some(()));

    // Asked to go.
    let going = several.leader();
    several.signal(going, "TERM");
    let begun = Instant::now();
    let fourth = accepted_by_whoever_leads(&several, "after-term");
    println!("another leader had accepted a job {:?} after the hand-over", begun.elapsed());
    several.end(going, "KILL");

    for one in [&second, &fourth] {
        several.lab.succeeds(one, LONG);
    }
    did_not_notice(&several, &job, &ranks, &shown);
    let ended = until("the follower has seen the end", LONG, || follower.try_wait().unwrap());
    let (seen, log) = (fs::read_to_string(&followed).unwrap(), several.lab.log(&job, "train", 3));
    assert!(seen == log, "the follower ended with {ended} and saw {} bytes of {}", seen.len(), log.len());
    let names = |said: &str| said.lines().map(str::to_owned).collect::<Vec<_>>();
    let all = names(&several.lab.qctl(["ps", "-a", "-o", "name"]).ok());
    assert_eq!(all.len(), 4, "each submission is one job, however often it was sent: {all:?}");
}

#[test]
fn members_of_etcd_die_and_the_leader_is_cut_from_etcd_while_a_job_trains() {
    let Some((mut several, mut etcd)) = cluster(3) else { return };
    let port = |url: &String| url.rsplit(':').next().unwrap().parse().unwrap();
    let relays: Vec<Vec<Relay>> =
        (0..3).map(|_| etcd.endpoints().iter().map(|url| Relay::to(port(url))).collect()).collect();
    let through = |at: usize| relays[at].iter().map(|relay| format!("https://127.0.0.1:{}", relay.port())).collect();
    started(&mut several, &[through(0), through(1), through(2)]);
    let (job, ranks) = trains(&several);
    let shown = several.lab.events(&job);

    for at in 0..3 {
        etcd.kill(at);
        accepted_by_whoever_leads(&several, &format!("without-{at}"));
        until("doctor names the member that is down", LONG, || {
            several.lab.qctl_for(LONG, ["doctor"]).stdout.contains("etcd-member-down").then_some(())
        });
        etcd.start_again(at);
        until("the alarm is over", LONG, || {
            (!several.lab.qctl_for(LONG, ["doctor"]).stdout.contains("etcd-member-down")).then_some(())
        });
    }

    let cut = several.leader();
    relays[cut].iter().for_each(Relay::cut);
    let begun = Instant::now();
    let later = accepted_by_whoever_leads(&several, "after-cut");
    println!("another leader had accepted a job {:?} after the cut", begun.elapsed());
    let refused = several.ask(cut, &["describe", &later]);
    assert_eq!(refused.code, 6, "it does not answer what it cannot know: {refused}");
    relays[cut].iter().for_each(Relay::heal);
    let leads = several.address(several.leader());
    until("it follows again", LONG, || several.ask(cut, &["ps"]).stderr.contains(&leads).then_some(()));
    several.lab.succeeds(&later, LONG);
    did_not_notice(&several, &job, &ranks, &shown);
}

#[test]
fn a_store_is_migrated_and_an_older_backup_restored_while_jobs_run() {
    let Some((mut several, etcd)) = cluster(1) else { return };
    let control =
        |words: &[&str]| run(std::process::Command::new(stories::program::built("qctl-controller")).args(words), LONG);
    several.start(0, &[]);
    several.login();
    several.agent("n1");
    several.agent("n2");
    several.ready(2);
    let (job, ranks) = trains(&several);
    let shown = several.lab.events(&job);
    let state = several.state(0);
    let etcd_flags = several.etcd_flags(&etcd.endpoints());
    let place = |more: &[&str]| {
        let words = more.iter().map(|word| (*word).to_owned());
        words.chain(["--state-dir".to_owned(), state.clone()]).chain(etcd_flags.clone()).collect::<Vec<_>>()
    };
    let words = |all: &Vec<String>| control(&all.iter().map(String::as_str).collect::<Vec<_>>());

    let running = words(&place(&["migrate", "--to", "etcd"]));
    assert!(running.code == 1 && running.stderr.contains("another controller runs"), "{running}");
    several.end(0, "TERM");
    let migrated = words(&place(&["migrate", "--to", "etcd"]));
    assert!(migrated.code == 0 && migrated.stdout.contains("incarnation 2"), "{migrated}");
    let again = words(&place(&["migrate", "--to", "etcd"]));
    assert!(again.code == 1 && again.stderr.contains("there is no store"), "{again}");
    let store = [vec!["--store".to_owned(), "etcd".to_owned()], etcd_flags.clone()].concat();
    several.start(0, &store);
    several.ready(2);
    until("doctor tells where it is remembered", LONG, || {
        several.lab.qctl_for(LONG, ["doctor"]).stdout.contains("etcd, 1 of 1 members answer").then_some(())
    });

    // A backup of a moment while a controller leads, and a job that it does not know.
    let file = several.lab.root().join("backup");
    let file = file.to_str().unwrap();
    let backup = words(&place(&["backup", "--store", "etcd", file]));
    assert_eq!(backup.code, 0, "{backup}");
    let unknown = several.lab.accepted(&pipeline::command(&several.lab, "unknown", &["sleep", "600"], 1));
    let sleeper = until("it runs", LONG, || several.lab.called("sleep").into_iter().next());
    until("it is known to run", LONG, || (several.lab.phase(&unknown) == "running").then_some(()));
    let leads = words(&place(&["restore", "--store", "etcd", file]));
    assert!(leads.code == 1 && leads.stderr.contains("remembers something already"), "{leads}");
    several.end(0, "KILL");
    let restored = words(&place(&["restore", "--store", "etcd", "--replace", file]));
    assert!(restored.code == 0 && restored.stdout.contains("incarnation 3"), "{restored}");
    several.start_again(0);
    several.ready(2);
    assert_eq!(several.lab.qctl(["describe", &unknown]).code, 5, "the backup is older than the job");
    let told = until("what the controller does not know is shown", LONG, || {
        let shown = |node: &Value| node["quarantined"].as_array().into_iter().flatten().cloned().collect::<Vec<_>>();
        several.nodes().iter().flat_map(shown).next()
    });
    assert!(told.as_str().unwrap().starts_with(&unknown), "{told}");
    assert!(sleeper.lives(), "and not stopped");

    // And back into a file.
    several.end(0, "TERM");
    let back = words(&place(&["migrate", "--to", "embedded"]));
    assert!(back.code == 0 && back.stdout.contains("incarnation 4"), "{back}");
    let (other, pki) = (several.state(1), several.pki().display().to_string());
    let start = ["run", "--state-dir", &other, "--pki", &pki, "--listen", "127.0.0.1:0"].map(str::to_owned);
    let led = words(&start.into_iter().chain(store.clone()).collect());
    assert!(led.code == 1 && led.stderr.contains("was taken over") && led.stderr.contains("hint: start"), "{led}");
    several.start(0, &[]);
    several.ready(2);
    assert!(sleeper.lives(), "nobody has stopped it");
    did_not_notice(&several, &job, &ranks, &shown);
}
