//! An installation over several hosts: controllers, members of etcd, agents.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::Value;
use stories::lab::Lab;
use stories::pipeline;
use stories::poll::until;
use stories::process::Process;
use stories::program::{Outcome, built, run};
use stories::several::read_nodes;

use crate::host::{HERE, Host};

/// How long a loaded machine may take for what takes a second or two.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// Limits of silence, short enough for a story, in seconds.
pub(crate) const SUSPECT_AFTER: u64 = 2;
pub(crate) const LOST_AFTER: u64 = 6;
pub(crate) const FENCE_MARGIN: u64 = 3;

/// A host and the one daemon that it is there for.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) host: Host,
    pub(crate) daemon: Daemon,
}

/// A program that is started again as it was.
#[derive(Debug)]
pub(crate) struct Daemon {
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    child: Option<Child>,
    log: PathBuf,
}

/// What an installation is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// 1 with a file of its own, or more with an etcd.
    pub(crate) controllers: u8,
    /// Members of etcd; 0 = the controller remembers in a file.
    pub(crate) etcd: u8,
    /// Agents of two processor slots each.
    pub(crate) agents: u8,
}

/// A running installation.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) controllers: Vec<Place>,
    pub(crate) etcd: Vec<Place>,
    pub(crate) agents: Vec<Place>,
    pub(crate) lab: Lab,
    plan: Plan,
    digest: String,
}

impl Site {
    /// One controller with a file, and agents.
    pub(crate) fn alone(agents: u8) -> Self {
        Self::start(Plan { controllers: 1, etcd: 0, agents })
    }

    /// Three controllers on an etcd of three members, and agents.
    pub(crate) fn three(agents: u8) -> Self {
        Self::start(Plan { controllers: 3, etcd: 3, agents })
    }

    /// Everything up, and all agents ready.
    pub(crate) fn start(plan: Plan) -> Self {
        let mut site = Self::prepare(plan);
        site.bring_up();
        site
    }

    /// Starts everything, and waits for it.
    pub(crate) fn bring_up(&mut self) {
        self.etcd.iter_mut().for_each(Place::start);
        self.controllers.iter_mut().for_each(Place::start);
        self.login();
        (0..self.agents.len()).for_each(|at| self.join(at));
        self.ready(self.agents.len());
    }

    /// Hosts and certificates; nothing runs.
    pub(crate) fn prepare(plan: Plan) -> Self {
        let lab = Lab::idle();
        let root = lab.root().to_owned();
        let hosts = |prefix: &str, count: u8, from: u8| -> Vec<Host> {
            (1..=count).map(|number| Host::new(&root, &format!("{prefix}{number}"), from + number)).collect()
        };
        let (controllers, etcd, agents) =
            (hosts("c", plan.controllers, 10), hosts("e", plan.etcd, 20), hosts("a", plan.agents, 30));
        let mut init = Command::new(built("qctl-controller"));
        init.args(["init", "--state-dir"]).arg(root.join("made"));
        for host in controllers.iter().chain(&etcd) {
            init.args(["--san", &host.address]);
        }
        let digest = run(init.args(["--san", HERE]), LONG).ok().trim().to_owned();
        let mut site = Self { controllers: Vec::new(), etcd: Vec::new(), agents: Vec::new(), lab, plan, digest };
        site.etcd = members(&site, etcd);
        site.controllers = controllers.into_iter().map(|host| site.controller(host)).collect();
        site.agents = agents.into_iter().map(|host| site.agent(host)).collect();
        site
    }

    /// A file of the certificates: ca.pem, controller/, users/admin/.
    pub(crate) fn pki(&self, name: &str) -> String {
        self.lab.root().join("made/pki").join(name).to_string_lossy().into_owned()
    }

    fn controller(&self, host: Host) -> Place {
        let listen = format!("{}:7400", host.address);
        let (state, pki) = (host.own("state"), self.pki(""));
        let mut args = words(&["run", "--state-dir", &state, "--pki", &pki, "--listen", &listen]);
        let silence =
            [("--suspect-after", SUSPECT_AFTER), ("--lost-after", LOST_AFTER), ("--fence-margin", FENCE_MARGIN)];
        args.extend(silence.iter().flat_map(|(flag, seconds)| [(*flag).to_owned(), seconds.to_string()]));
        if self.plan.etcd > 0 {
            args.extend(words(&["--store", "etcd"]));
            args.extend(self.etcd_flags());
        }
        Place::new(host, built("qctl-controller"), args)
    }

    /// What a program is told to reach etcd.
    pub(crate) fn etcd_flags(&self) -> Vec<String> {
        let urls: Vec<String> = self.etcd.iter().map(|place| format!("https://{}:2379", place.host.address)).collect();
        let (ca, cert, key) = (self.pki("ca.pem"), self.pki("controller/cert.pem"), self.pki("controller/key.pem"));
        words(&["--etcd", &urls.join(","), "--etcd-ca", &ca, "--etcd-cert", &cert, "--etcd-key", &key])
    }

    fn agent(&self, host: Host) -> Place {
        let (pki, state, addresses) = (host.own("pki"), host.own("state"), self.addresses());
        let mut args = words(&["run", "--node", &host.name, "--controller", &addresses]);
        args.extend(words(&["--pki", &pki, "--state-dir", &state, "--address", &host.address]));
        args.extend(words(&["--device", "cpu", "--slots", "2"]));
        Place::new(host, built("qctl-agent"), args)
    }

    /// An agent's first start: it joins with a token.
    pub(crate) fn join(&mut self, at: usize) {
        let agent = &mut self.agents[at];
        let wish = ["token", "create", "--role", "agent", "--name", &agent.host.name, "-o", "name"];
        let token = until("a token is made", LONG, || {
            let made = self.lab.qctl_for(LONG, wish);
            (made.code == 0).then(|| made.stdout.trim().to_owned())
        });
        let kept = agent.daemon.args.clone();
        agent.daemon.args.extend(words(&["--join-token", &token, "--ca-digest", &self.digest]));
        agent.start();
        agent.daemon.args = kept;
    }

    /// Addresses of all controllers, as agents and users are given them.
    fn addresses(&self) -> String {
        let urls = self.controllers.iter().map(|place| format!("https://{}:7400", place.host.address));
        urls.collect::<Vec<_>>().join(",")
    }

    /// Tells `qctl` of all controllers, once one leads.
    pub(crate) fn login(&self) {
        let (addresses, identity) = (self.addresses(), self.pki("users/admin"));
        let words = ["login", "--controller", &addresses, "--identity", &identity];
        until("a controller leads", LONG, || (self.lab.qctl_for(LONG, words).code == 0).then_some(()));
    }

    /// Runs `qctl` against one controller alone.
    pub(crate) fn ask(&self, at: usize, words: &[&str]) -> Outcome {
        let state = self.lab.root().join(format!("only-{at}"));
        std::fs::create_dir_all(&state).unwrap();
        let endpoint = format!("https://{}:7400", self.controllers[at].host.address);
        let context = serde_json::json!({"endpoint": endpoint, "identity": self.pki("users/admin")});
        std::fs::write(state.join("context.json"), context.to_string()).unwrap();
        let mut alone = Command::new(built("qctl"));
        alone.arg("--state-dir").arg(&state).args(words).current_dir(self.lab.root());
        run(&mut alone, LONG)
    }

    /// Which controller leads, by its own word.
    pub(crate) fn leader(&self) -> usize {
        until("a controller leads", LONG, || {
            let mut up = (0..self.controllers.len()).filter(|at| self.controllers[*at].daemon.child.is_some());
            up.find(|at| self.ask(*at, &["ps"]).code == 0)
        })
    }

    /// Waits until this many nodes are ready.
    pub(crate) fn ready(&self, count: usize) {
        until("all agents are there", LONG, || {
            let ready = self.nodes().iter().filter(|node| node["phase"] == "ready").count();
            (ready == count).then_some(())
        });
    }

    /// The nodes, as `qctl nodes` shows them; none while nobody leads.
    pub(crate) fn nodes(&self) -> Vec<Value> {
        let said = self.lab.qctl_for(LONG, ["nodes", "-o", "json"]);
        read_nodes(&said.stdout)
    }

    /// One node.
    pub(crate) fn node(&self, name: &str) -> Option<Value> {
        self.nodes().into_iter().find(|node| node["id"] == name)
    }

    /// Something that is acknowledged only by a leader, and how long that took.
    pub(crate) fn somebody_leads(&self, name: &str) -> Duration {
        let spec = pipeline::command(&self.lab, name, &["true"], 1);
        let begun = Instant::now();
        until("a leader accepts a job", LONG, || {
            (self.lab.submit(&spec, &["-o", "name", "--id", name]).code == 0).then_some(())
        });
        begun.elapsed()
    }

    /// Ranks of one agent's host.
    pub(crate) fn ranks_on(&self, at: usize) -> Vec<Process> {
        let mut ranks = self.agents[at].host.processes();
        ranks.retain(|process| process.rank().is_some());
        ranks
    }

    /// Agents whose host has ranks.
    pub(crate) fn training(&self) -> Vec<usize> {
        (0..self.agents.len()).filter(|at| !self.ranks_on(*at).is_empty()).collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let places = self.controllers.iter_mut().chain(&mut self.agents).chain(&mut self.etcd);
        places.for_each(|place| place.daemon.reap());
    }
}

impl Place {
    pub(crate) fn new(host: Host, program: PathBuf, args: Vec<String>) -> Self {
        let log = host.seen("daemon.log");
        Self { host, daemon: Daemon { program, args, env: Vec::new(), child: None, log } }
    }

    /// Starts the daemon as it was started before.
    pub(crate) fn start(&mut self) {
        assert!(self.daemon.child.is_none(), "the daemon of `{}` runs", self.host.name);
        let log = File::options().create(true).append(true).open(&self.daemon.log).unwrap();
        let mut command = self.host.command(&self.daemon.program);
        command
            .args(&self.daemon.args)
            .envs(self.daemon.env.iter().cloned())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.daemon.child = Some(command.spawn().unwrap());
    }

    /// Another program takes the daemon's place at its next start.
    pub(crate) fn upgrade(&mut self, program: &Path) {
        program.clone_into(&mut self.daemon.program);
    }

    /// More words for the next start.
    pub(crate) fn tell(&mut self, more: &[&str]) {
        self.daemon.args.extend(words(more));
    }

    /// Another value of a flag for the next start; returns the one it had.
    pub(crate) fn retell(&mut self, flag: &str, value: &str) -> String {
        let at = self.daemon.args.iter().position(|word| word == flag).unwrap();
        std::mem::replace(&mut self.daemon.args[at + 1], value.to_owned())
    }

    /// A variable for the next start.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.daemon.env.push((name.to_owned(), value.to_owned()));
    }

    /// Sends the daemon a signal, by its name.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.daemon.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Ends the daemon by a signal, and waits for that.
    pub(crate) fn end(&mut self, signal: &str) {
        self.signal(signal);
        self.ended();
    }

    /// Waits until the daemon has ended by itself; its exit code.
    pub(crate) fn ended(&mut self) -> i32 {
        let mut child = self.daemon.child.take().unwrap();
        until("the daemon has ended", LONG, || child.try_wait().unwrap()).code().unwrap_or(-1)
    }
}

impl Daemon {
    fn reap(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Members of one etcd that asks for certificates.
fn members(site: &Site, hosts: Vec<Host>) -> Vec<Place> {
    let peers: Vec<String> = hosts.iter().map(|host| format!("{}=http://{}:2380", host.name, host.address)).collect();
    let member = |host: Host| {
        let (client, peer) = (format!("https://{}:2379", host.address), format!("http://{}:2380", host.address));
        let (data, peers) = (host.own("etcd"), peers.join(","));
        let (ca, cert, key) = (site.pki("ca.pem"), site.pki("controller/cert.pem"), site.pki("controller/key.pem"));
        let args = words(&[
            "--name",
            &host.name,
            "--data-dir",
            &data,
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
            "--initial-cluster",
            &peers,
            "--client-cert-auth",
            "--cert-file",
            &cert,
            "--key-file",
            &key,
            "--trusted-ca-file",
            &ca,
        ]);
        Place::new(host, program().unwrap_or_default(), args)
    };
    hosts.into_iter().map(member).collect()
}

/// The etcd of this computer: `$QCTL_TEST_ETCD`, or the first of PATH.
pub(crate) fn program() -> Option<PathBuf> {
    let told = std::env::var_os("QCTL_TEST_ETCD").filter(|path| !path.is_empty()).map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).map(|dir| dir.join("etcd"));
    told.into_iter().chain(dirs.collect::<Vec<_>>()).find(|program| program.is_file())
}

/// Words of a command line.
pub(crate) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
