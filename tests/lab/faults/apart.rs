//! The laboratory itself: what hosts share, and what they do not.

use std::time::Duration;

use stories::lab::Lab;
use stories::poll::until;

use crate::host::Host;
use crate::rounds::Turn;

/// How long a connection is tried: its first packet is sent again after a second.
const TRIED: &str = "2.5";

pub(crate) fn hosts(_turn: &mut Turn) {
    let lab = Lab::idle();
    let hosts: Vec<Host> = (1..=3).map(|at| Host::new(lab.root(), &format!("h{at}"), 100 + at)).collect();
    let [one, two, three] = &hosts[..] else { unreachable!("three hosts") };
    for host in &hosts {
        assert_eq!(host.run("cat", &["/proc/sys/kernel/hostname"]).trim(), host.name);
        host.run("sh", &["-c", "echo $0 > $1", &host.name, &host.own("mine")]);
    }
    for host in &hosts {
        assert_eq!(host.run("cat", &[&host.own("mine")]).trim(), host.name, "one path, a file of each host's own");
        assert_eq!(std::fs::read_to_string(host.seen("mine")).unwrap().trim(), host.name);
        assert_eq!(
            host.run("ls", &[&lab.root().join("hosts").to_string_lossy()]),
            "",
            "nothing of the others is there"
        );
    }
    let boot = |host: &Host| host.run("cat", &["/proc/sys/kernel/random/boot_id"]);
    assert!(boot(one) != boot(two) && boot(one) == boot(one));
    let before = boot(one);
    one.reboot();
    assert_ne!(boot(one), before);

    let _listens: Vec<_> = hosts.iter().map(listen).collect();
    let reaches = |from: &Host, to: &Host| connect(from, to, "30").is_empty();
    assert!(reaches(one, two) && reaches(two, three) && reaches(three, one));
    one.cut();
    // Nobody is told that a host is gone: a connection just does not come about.
    assert!(["timed out", "No route"].iter().any(|said| connect(two, one, TRIED).contains(said)));
    assert!(reaches(two, three));
    one.heal();
    assert!(reaches(two, one));
    one.cut_from(two);
    assert!(connect(one, two, TRIED).contains("timed out") && connect(two, one, TRIED).contains("timed out"));
    assert!(reaches(one, three) && reaches(three, two));
    one.heal_to(two);
    assert!(reaches(one, two) && reaches(two, one));

    two.disk("small", "1m");
    let full = two.tried("sh", &["-c", "head -c 2000000 /dev/zero > $0", &two.own("small/file")]);
    assert!(full.code != 0 && full.stderr.contains("No space left"), "{full}");
    let listeners = three.processes().len();
    assert_eq!(listeners, 1);
    three.kill_all();
    assert!(three.processes().is_empty() && two.processes().len() == 1, "the others' are left alone");
}

/// Takes connections on a host, in the background.
fn listen(host: &Host) -> std::process::Child {
    const LISTEN: &str = "import socket\ns=socket.create_server((\"\",7000))\nwhile 1: s.accept()[0].close()";
    let mut command = host.command(std::path::Path::new(stories::program::python()));
    let child = command.args(["-c", LISTEN]).spawn().unwrap();
    until("it listens", Duration::from_secs(30), || connect(host, host, "30").is_empty().then_some(()));
    child
}

/// Tries a connection; what went wrong.
fn connect(from: &Host, to: &Host, seconds: &str) -> String {
    const CONNECT: &str = "import socket,sys\n\
        try: socket.create_connection((sys.argv[1],7000),float(sys.argv[2]))\n\
        except OSError as error: print(error)";
    from.run(stories::program::python(), &["-c", CONNECT, &to.address, seconds]).trim().to_owned()
}
