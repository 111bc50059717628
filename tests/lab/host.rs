//! Hosts: what one shares with another is the cable, and the shared part of the file system.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use stories::poll::until;
use stories::process::Process;
use stories::program::{Outcome, run};

/// The laboratory's own address, from which `qctl` is run.
pub(crate) const HERE: &str = "10.77.0.254";

/// How long a small command on a host may take.
const SHORT: Duration = Duration::from_secs(30);

/// Made by a new host's first process. `$1` root of the laboratory, `$2` name.
///
/// Below `own` lies what is this host's alone; that of the others does not exist here.
const BIRTH: &str = r#"
set -e
hostname "$2"
cat /proc/sys/kernel/random/uuid > "$1/hosts/$2/boot_id"
mount --bind "$1/hosts/$2" "$1/own"
mount -t tmpfs -o size=4k tmpfs "$1/hosts"
mount --bind "$1/own/boot_id" /proc/sys/kernel/random/boot_id
ip link set lo up
touch "$1/own/born"
exec sleep infinity
"#;

/// One host.
#[derive(Debug)]
pub(crate) struct Host {
    /// Name, also as the host itself has it.
    pub(crate) name: String,
    /// Its address.
    pub(crate) address: String,
    root: PathBuf,
    cable: String,
    holder: Child,
}

/// Lays the bridge that all hosts are plugged into.
pub(crate) fn bridge() {
    for words in ["link set lo up", "link add lab0 type bridge", "link set lab0 up", "addr add 10.77.0.254/24 dev lab0"]
    {
        ip(&words.split(' ').collect::<Vec<_>>());
    }
}

impl Host {
    /// Makes a host with the address 10.77.0.`number`, in the laboratory of `root`.
    pub(crate) fn new(root: &Path, name: &str, number: u8) -> Self {
        static CABLES: AtomicU32 = AtomicU32::new(0);
        let cable = format!("v{}", CABLES.fetch_add(1, Ordering::Relaxed));
        let own = root.join("hosts").join(name);
        fs::create_dir_all(&own).unwrap();
        fs::create_dir_all(root.join("own")).unwrap();
        let mut holder = Command::new("unshare");
        holder.args(["-num", "--propagation", "private", "sh", "-c", BIRTH, "sh"]);
        let holder = holder.arg(root).arg(name).current_dir(root).stdin(Stdio::null()).spawn().unwrap();
        until("a host is born", SHORT, || own.join("born").exists().then_some(()));
        let host =
            Self { name: name.to_owned(), address: format!("10.77.0.{number}"), root: root.to_owned(), cable, holder };
        let pid = host.holder.id().to_string();
        ip(&["link", "add", &host.cable, "type", "veth", "peer", "name", "eth0", "netns", &pid]);
        ip(&["link", "set", &host.cable, "master", "lab0", "up"]);
        let address = format!("{}/24", host.address);
        host.run("ip", &["addr", "add", &address, "dev", "eth0"]);
        host.run("ip", &["link", "set", "eth0", "up"]);
        host
    }

    /// A command on this host.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.holder.id().to_string(), "-n", "-u", "-m"]);
        command.arg(format!("--wd={}", self.root.display())).arg(program).current_dir(&self.root);
        command.stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("QCTL_") {
                command.env_remove(name);
            }
        }
        command
    }

    /// Runs a command on this host; it ends well.
    pub(crate) fn run(&self, program: &str, words: &[&str]) -> String {
        self.tried(program, words).ok()
    }

    /// Runs a command on this host.
    pub(crate) fn tried(&self, program: &str, words: &[&str]) -> Outcome {
        run(self.command(Path::new(program)).args(words), SHORT)
    }

    /// A directory that is this host's alone, as the host names it.
    pub(crate) fn own(&self, name: &str) -> String {
        self.root.join("own").join(name).to_string_lossy().into_owned()
    }

    /// The same, as it is reached from here.
    pub(crate) fn seen(&self, name: &str) -> PathBuf {
        let inside = self.own(name);
        PathBuf::from(format!("/proc/{}/root", self.holder.id())).join(inside.trim_start_matches('/'))
    }

    /// Gives a directory of this host a disk of its own.
    pub(crate) fn disk(&self, name: &str, size: &str) {
        let dir = self.own(name);
        self.run("mkdir", &["-p", &dir]);
        self.run("mount", &["-t", "tmpfs", "-o", &format!("size={size},mode=0700"), "tmpfs", &dir]);
    }

    /// All processes of this host.
    pub(crate) fn processes(&self) -> Vec<Process> {
        let net = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let Some(own) = net(self.holder.id()) else { return Vec::new() };
        let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let others = pids.filter(|pid| *pid != self.holder.id() && net(*pid).as_ref() == Some(&own));
        others.filter_map(Process::read).collect()
    }

    /// SIGKILL for everything that runs here, until nothing does; without `reboot` it is the same boot afterwards.
    pub(crate) fn kill_all(&self) {
        until("nothing runs on the host", SHORT, || {
            let left = self.processes();
            left.iter().for_each(Process::kill9);
            left.is_empty().then_some(())
        });
    }

    /// As if its power had gone: nothing runs, and the next boot is another one.
    pub(crate) fn reboot(&self) {
        self.kill_all();
        let other = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap();
        fs::write(self.seen("boot_id"), other).unwrap();
    }

    /// Pulls the cable.
    pub(crate) fn cut(&self) {
        ip(&["link", "set", &self.cable, "down"]);
    }

    /// Plugs it in again.
    pub(crate) fn heal(&self) {
        ip(&["link", "set", &self.cable, "up"]);
    }

    /// A narrow cable: so many kilobits a second come out of it at this host.
    pub(crate) fn narrow(&self, kilobits: u32) {
        let rate = format!("{kilobits}kbit");
        let _ = run(
            Command::new("tc")
                .args(["qdisc", "replace", "dev", &self.cable, "root", "tbf", "rate", &rate])
                .args(["burst", "4kb", "latency", "200ms"]),
            SHORT,
        )
        .ok();
    }

    /// As wide as it was.
    pub(crate) fn widen(&self) {
        let _ = run(Command::new("tc").args(["qdisc", "del", "dev", &self.cable, "root"]), SHORT).ok();
    }

    /// Loses so many of a hundred packets that leave this host; false where there is no `nft`.
    pub(crate) fn lossy(&self, percent: u32) -> bool {
        let rules = format!(
            "table inet lab {{\n chain out {{\n type filter hook output priority 0\n oifname eth0 numgen random mod 100 < {percent} drop\n }}\n}}\n"
        );
        let file = self.seen("rules.nft");
        fs::write(&file, rules).unwrap();
        self.tried("sh", &["-c", "nft -f \"$0\"", &self.own("rules.nft")]).code == 0
    }

    /// Loses nothing any more.
    pub(crate) fn lossless(&self) {
        self.run("nft", &["delete", "table", "inet", "lab"]);
    }

    /// Nothing passes between this host and another, and nobody is told.
    pub(crate) fn cut_from(&self, other: &Self) {
        for (one, far) in [(self, &other.address), (other, &self.address)] {
            // An address that no card has: frames to it get lost.
            one.run("ip", &["neigh", "replace", far, "lladdr", "02:00:00:00:00:01", "dev", "eth0", "nud", "permanent"]);
        }
    }

    /// What [`Self::cut_from`] cut passes again.
    pub(crate) fn heal_to(&self, other: &Self) {
        for (one, far) in [(self, &other.address), (other, &self.address)] {
            one.run("ip", &["neigh", "del", far, "dev", "eth0"]);
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // First: what TCP still has to say keeps a network alive, and with it this address.
        let _ = Command::new("ip").args(["link", "del", &self.cable]).output();
        let left = self.processes();
        left.iter().for_each(Process::kill9);
        // It may have been killed with the others.
        let _ = self.holder.kill();
        let _ = self.holder.wait().map(|status| status.signal());
    }
}

fn ip(words: &[&str]) {
    let _ = run(Command::new("ip").args(words), SHORT).ok();
}
