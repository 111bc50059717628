//! etcd loses a member, is full, or forgets its history.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use stories::poll::until;
use stories::program::{Outcome, run};

use crate::rounds::Turn;
use crate::site::{LONG, Plan, Site};
use crate::train::Training;

/// One member dies, be it etcd's own leader or not: an alarm names it, everything goes on, and the alarm ends.
pub(crate) fn member_killed(turn: &mut Turn) {
    let mut site = Site::three(2);
    let training = Training::start(&site, turn, "led", &[]);
    let victim = turn.one(&[0, 1, 2]);
    turn.note(format!("e{}", victim + 1));
    site.etcd[victim].end("KILL");
    let took = site.somebody_leads("without-a-member");
    turn.measured("a leader accepts", took, Duration::from_secs(5));
    let begun = Instant::now();
    until("doctor names the member that is down", LONG, || alarmed(&site, "etcd-member-down").then_some(()));
    turn.measured("the alarm is told", begun.elapsed(), Duration::from_secs(15));
    turn.moment("its absence", Duration::from_secs(3));
    site.etcd[victim].start();
    until("the alarm is over", LONG, || (!alarmed(&site, "etcd-member-down")).then_some(()));
    training.did_not_notice(&site);
}

/// The majority is gone and comes back: nobody leads meanwhile, jobs go on, and what was acknowledged is there.
pub(crate) fn majority_killed(turn: &mut Turn) {
    let mut site = Site::three(2);
    let training = Training::start(&site, turn, "led", &[]);
    let stays = turn.one(&[0, 1, 2]);
    turn.note(format!("only e{} stays", stays + 1));
    let gone: Vec<usize> = (0..3).filter(|at| *at != stays).collect();
    gone.iter().for_each(|at| site.etcd[*at].end("KILL"));
    let nobody = |site: &Site| (0..3).all(|at| site.ask(at, &["ps"]).code == 6);
    until("nobody says that it leads", LONG, || nobody(&site).then_some(()));
    turn.moment("nobody's lead", Duration::from_secs(4));
    training.goes_on();
    gone.iter().for_each(|at| site.etcd[*at].start());
    let took = site.somebody_leads("with-a-majority");
    turn.measured("a leader accepts again", took, Duration::from_secs(15));
    site.ready(2);
    training.did_not_notice(&site);
}

/// Somebody fills it to its quota: the leader frees it, goes on, and leaves no alarm behind.
pub(crate) fn full(turn: &mut Turn) {
    let mut site = Site::prepare(Plan { controllers: 3, etcd: 3, agents: 2 });
    site.etcd.iter_mut().for_each(|place| place.tell(&["--quota-backend-bytes", "16000000"]));
    site.bring_up();
    let training = Training::start(&site, turn, "led", &[]);
    let value = "x".repeat(500_000);
    let begun = Instant::now();
    // One key, so that all but the newest is history.
    until("the quota is reached", LONG, || {
        put(&site, "/filler", &value).stdout.contains("space exceeded").then_some(())
    });
    until("a leader accepts, once it has been freed", LONG, || {
        let spec = stories::pipeline::command(&site.lab, "freed", &["true"], 1);
        (site.lab.submit(&spec, &["-o", "name", "--id", "freed"]).code == 0).then_some(())
    });
    turn.measured("filled, freed and saving", begun.elapsed(), Duration::from_secs(30));
    until("no alarm is left", LONG, || (!alarmed(&site, "etcd-no-space")).then_some(()));
    training.did_not_notice(&site);
}

/// Its whole history is compacted under everybody's feet, and a new leader begins right behind.
pub(crate) fn compacted(turn: &mut Turn) {
    let mut site = Site::three(2);
    let training = Training::start(&site, turn, "led", &[]);
    for nth in 0..3 {
        let said = put(&site, "/mark", "x").stdout;
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let revision = said["header"]["revision"].as_str().unwrap().to_owned();
        let body = format!("{{\"revision\":\"{revision}\",\"physical\":true}}");
        let said = call(&site, "kv/compaction", &body);
        assert!(said.stdout.contains("header"), "{said}");
        turn.moment("the compaction", Duration::from_secs(1));
        let leader = site.leader();
        site.controllers[leader].end("KILL");
        let took = site.somebody_leads(&format!("compacted-{nth}"));
        turn.measured("another leader accepts", took, Duration::from_secs(5));
        site.controllers[leader].start();
    }
    training.did_not_notice(&site);
}

fn alarmed(site: &Site, code: &str) -> bool {
    site.lab.qctl_for(LONG, ["doctor"]).stdout.contains(code)
}

/// Writes one key past the controllers.
fn put(site: &Site, key: &str, value: &str) -> Outcome {
    let body = format!("{{\"key\":\"{}\",\"value\":\"{}\"}}", base64(key), base64(value));
    call(site, "kv/put", &body)
}

/// A call of etcd's JSON gateway, with a client's certificate.
fn call(site: &Site, method: &str, body: &str) -> Outcome {
    const CALL: &str = "import ssl,sys,urllib.request as u\n\
        url,ca,cert,key,body=sys.argv[1:6]\n\
        c=ssl.create_default_context(cafile=ca);c.load_cert_chain(cert,key)\n\
        try: print(u.urlopen(u.Request(url,open(body,'rb').read()),context=c,timeout=10).read().decode())\n\
        except u.HTTPError as e: print(e.read().decode())";
    let file = site.lab.root().join("body");
    std::fs::write(&file, body).unwrap();
    let url = format!("https://{}:2379/v3/{method}", site.etcd[0].host.address);
    let mut command = Command::new(stories::program::python());
    command.args(["-c", CALL, &url, &site.pki("ca.pem"), &site.pki("controller/cert.pem")]);
    command.arg(site.pki("controller/key.pem")).arg(Path::new(&file));
    run(&mut command, LONG)
}

fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = text.as_bytes().chunks(3).flat_map(|group| {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | u32::from(group.get(at).copied().unwrap_or(0)));
        (0..4).map(move |at| match at <= group.len() {
            true => char::from(DIGITS[(bits >> (18 - 6 * at) & 63) as usize]),
            false => '=',
        })
    });
    groups.collect()
}
