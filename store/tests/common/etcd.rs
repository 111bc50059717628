//! etcd members of a test's own, on loopback.

#![allow(clippy::unwrap_used, clippy::print_stdout, dead_code)]

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a machine under load may take to bring them up.
const UP: Duration = Duration::from_secs(60);

/// One etcd of one or three members; gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Cluster {
    members: Vec<Member>,
    /// What all members are told beside who they are.
    more: Vec<String>,
    scheme: &'static str,
    _dir: TempDir,
}

#[derive(Debug)]
struct Member {
    client: u16,
    args: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Cluster {
    /// Starts members and waits until they serve; none where `QCTL_SKIP_ETCD` is set and etcd is not installed.
    pub(crate) fn start(count: usize, more: &[&str]) -> Option<Self> {
        let program = program()?;
        // A port that was free may be taken meanwhile: then its member ends, and all begin anew.
        for _ in 0..10 {
            let mut cluster = Self::prepare(count, more);
            (0..count).for_each(|at| cluster.spawn(&program, at));
            if (0..count).all(|at| cluster.is_up(at)) {
                return Some(cluster);
            }
        }
        panic!("etcd did not start ten times");
    }

    /// Addresses for clients.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| format!("{}://127.0.0.1:{}", self.scheme, member.client)).collect()
    }

    /// What a member has said.
    pub(crate) fn log(&self, at: usize) -> String {
        fs::read_to_string(&self.members[at].log).unwrap()
    }

    /// Ends a member at once.
    pub(crate) fn kill(&mut self, at: usize) {
        if let Some(mut child) = self.members[at].child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts a member that was ended, with what it has on disk.
    pub(crate) fn start_again(&mut self, at: usize) {
        fs::write(&self.members[at].log, "").unwrap();
        self.spawn(&program().unwrap(), at);
        assert!(self.is_up(at), "{}", fs::read_to_string(&self.members[at].log).unwrap());
    }

    /// Sends a member a signal, by its name.
    pub(crate) fn signal(&self, at: usize, name: &str) {
        let pid = self.members[at].child.as_ref().unwrap().id();
        assert!(Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap().success());
    }

    fn prepare(count: usize, more: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("etcd-").tempdir().unwrap();
        let scheme = if more.contains(&"--client-cert-auth") { "https" } else { "http" };
        // All are held until all are known, so that no two are the same.
        let held: Vec<TcpListener> = (0..2 * count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = held.iter().map(|port| port.local_addr().unwrap().port()).collect();
        let peers: Vec<String> = (0..count).map(|at| format!("m{at}=http://127.0.0.1:{}", ports[2 * at + 1])).collect();
        let member = |at: usize| {
            let (client, peer) = (ports[2 * at], ports[2 * at + 1]);
            let (client_url, peer_url) = (format!("{scheme}://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
            let data = dir.path().join(format!("m{at}"));
            let args = [
                ("--name", format!("m{at}")),
                ("--data-dir", data.display().to_string()),
                ("--listen-client-urls", client_url.clone()),
                ("--advertise-client-urls", client_url),
                ("--listen-peer-urls", peer_url.clone()),
                ("--initial-advertise-peer-urls", peer_url),
                ("--initial-cluster", peers.join(",")),
                ("--initial-cluster-token", format!("{:?}", dir.path())),
            ];
            let args = args.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
            Member { client, args, log: dir.path().join(format!("m{at}.log")), child: None }
        };
        let members = (0..count).map(member).collect();
        let more = more.iter().map(|word| (*word).to_owned()).collect();
        Self { members, more, scheme, _dir: dir }
    }

    fn spawn(&mut self, program: &Path, at: usize) {
        let member = &mut self.members[at];
        let log = File::create(&member.log).unwrap();
        let mut command = Command::new(program);
        command.args(&member.args).args(&self.more).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        member.child = Some(command.spawn().unwrap());
    }

    fn is_up(&mut self, at: usize) -> bool {
        let member = &mut self.members[at];
        let begun = Instant::now();
        while begun.elapsed() < UP {
            if member.child.as_mut().unwrap().try_wait().unwrap().is_some() {
                return false;
            }
            if fs::read_to_string(&member.log).unwrap().contains("ready to serve client requests") {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|at| self.kill(at));
    }
}

/// The etcd of this computer: `$QCTL_TEST_ETCD`, or the first of PATH; none where that is said to be well.
fn program() -> Option<PathBuf> {
    let told = std::env::var_os("QCTL_TEST_ETCD").filter(|path| !path.is_empty()).map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).map(|dir| dir.join("etcd"));
    let found = told.into_iter().chain(dirs).find(|program| program.is_file());
    if found.is_none() {
        let skip = std::env::var_os("QCTL_SKIP_ETCD").is_some_and(|value| !value.is_empty());
        assert!(
            skip,
            "etcd is not installed (Debian: etcd-server; or name it in QCTL_TEST_ETCD); QCTL_SKIP_ETCD=1 passes over its tests"
        );
        println!("skipped: etcd is not installed");
    }
    found
}
