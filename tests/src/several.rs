//! Several controllers on one etcd, and agents that know all of them.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::lab::Lab;
use crate::poll::until;
use crate::process::Process;
use crate::program::{Outcome, built, run};

/// How long a loaded machine may take for what takes a second or two.
pub const LONG: Duration = Duration::from_secs(90);

/// Several controllers and agents in one laboratory, which ends them.
#[derive(Debug)]
pub struct Several {
    /// Directories, `qctl`, and what is seen of processes.
    pub lab: Lab,
    controllers: Vec<Controller>,
    agents: Vec<Child>,
    digest: String,
}

#[derive(Debug)]
struct Controller {
    port: u16,
    args: Vec<String>,
    child: Option<Child>,
}

impl Several {
    /// The certificates, and ports for `count` controllers; nothing runs yet.
    #[must_use]
    pub fn prepare(count: usize) -> Self {
        let lab = Lab::idle();
        let init = ["init", "--state-dir", &path(&lab, "c0")];
        let digest = run(Command::new(built("qctl-controller")).args(init), LONG).ok().trim().to_owned();
        // All are held until all are known, so that no two are the same.
        let held: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let port = |held: &TcpListener| held.local_addr().unwrap().port();
        let controllers =
            held.iter().map(|held| Controller { port: port(held), args: Vec::new(), child: None }).collect();
        Self { lab, controllers, agents: Vec::new(), digest }
    }

    /// Directory of the certificates: ca.pem, controller/, users/admin/.
    #[must_use]
    pub fn pki(&self) -> PathBuf {
        self.lab.root().join("c0/pki")
    }

    /// What etcd is told to ask for certificates, of the same CA.
    #[must_use]
    pub fn etcd_args(&self) -> Vec<String> {
        let file = |name: &str| self.pki().join(name).to_string_lossy().into_owned();
        let flags = [
            ("--cert-file", "controller/cert.pem"),
            ("--key-file", "controller/key.pem"),
            ("--trusted-ca-file", "ca.pem"),
        ];
        let told = flags.into_iter().flat_map(|(flag, name)| [flag.to_owned(), file(name)]);
        std::iter::once("--client-cert-auth".to_owned()).chain(told).collect()
    }

    /// What a controller is told to reach etcd.
    #[must_use]
    pub fn etcd_flags(&self, endpoints: &[String]) -> Vec<String> {
        let file = |name: &str| self.pki().join(name).to_string_lossy().into_owned();
        let flags = [
            ("--etcd", endpoints.join(",")),
            ("--etcd-ca", file("ca.pem")),
            ("--etcd-cert", file("controller/cert.pem")),
            ("--etcd-key", file("controller/key.pem")),
        ];
        flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
    }

    /// Address of one controller.
    #[must_use]
    pub fn address(&self, at: usize) -> String {
        format!("https://127.0.0.1:{}", self.controllers[at].port)
    }

    /// Addresses of all, as agents and users are given them.
    #[must_use]
    pub fn addresses(&self) -> String {
        (0..self.controllers.len()).map(|at| self.address(at)).collect::<Vec<_>>().join(",")
    }

    /// State directory of one controller.
    #[must_use]
    pub fn state(&self, at: usize) -> String {
        path(&self.lab, &format!("c{at}"))
    }

    /// Starts a controller with `store` flags.
    pub fn start(&mut self, at: usize, store: &[String]) {
        let (listen, state) = (format!("127.0.0.1:{}", self.controllers[at].port), self.state(at));
        let pki = self.pki().to_string_lossy().into_owned();
        let own = ["run", "--state-dir", &state, "--pki", &pki, "--listen", &listen];
        self.controllers[at].args = own.iter().map(|word| (*word).to_owned()).chain(store.iter().cloned()).collect();
        self.start_again(at);
    }

    /// Starts a controller as it was started before.
    pub fn start_again(&mut self, at: usize) {
        let log = self.log(&format!("controller-{at}.log"));
        let controller = &mut self.controllers[at];
        assert!(controller.child.is_none(), "controller {at} runs");
        let mut command = Command::new(built("qctl-controller"));
        command.args(&controller.args).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        controller.child = Some(command.spawn().unwrap());
    }

    /// The process of a controller.
    #[must_use]
    pub fn process(&self, at: usize) -> Process {
        Process::read(self.controllers[at].child.as_ref().unwrap().id()).unwrap()
    }

    /// Sends a controller a signal, by its name.
    pub fn signal(&self, at: usize, name: &str) {
        let pid = self.controllers[at].child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Ends a controller by a signal, and waits for that.
    pub fn end(&mut self, at: usize, signal: &str) {
        self.signal(at, signal);
        let mut child = self.controllers[at].child.take().unwrap();
        until("the controller has ended", LONG, || child.try_wait().unwrap());
    }

    /// Starts an agent of two processor slots, which joins.
    pub fn agent(&mut self, node: &str) {
        self.login();
        let words = ["token", "create", "--role", "agent", "--name", node, "-o", "name"];
        let token = until("a token is made", LONG, || {
            let made = self.lab.qctl_for(LONG, words);
            (made.code == 0).then(|| made.stdout.trim().to_owned())
        });
        let log = self.log(&format!("{node}.log"));
        let (pki, state) = (path(&self.lab, &format!("{node}/pki")), path(&self.lab, &format!("{node}/state")));
        let mut command = Command::new(built("qctl-agent"));
        command.args(["run", "--node", node, "--controller", &self.addresses(), "--pki", &pki, "--state-dir", &state]);
        command.args(["--address", "127.0.0.1", "--device", "cpu", "--slots", "2"]);
        command.args(["--join-token", &token, "--ca-digest", &self.digest]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.agents.push(command.spawn().unwrap());
    }

    /// Tells `qctl` of all controllers, once one leads.
    pub fn login(&self) {
        let identity = self.pki().join("users/admin").to_string_lossy().into_owned();
        let addresses = self.addresses();
        let words = ["login", "--controller", &addresses, "--identity", &identity];
        until("a controller leads", LONG, || (self.lab.qctl_for(LONG, words).code == 0).then_some(()));
    }

    /// Runs `qctl` against one controller alone.
    #[must_use]
    pub fn ask(&self, at: usize, words: &[&str]) -> Outcome {
        let state = self.lab.root().join(format!("only-{at}"));
        fs::create_dir_all(&state).unwrap();
        let identity = self.pki().join("users/admin");
        let context = serde_json::json!({"endpoint": self.address(at), "identity": identity});
        fs::write(state.join("context.json"), context.to_string()).unwrap();
        let mut alone = Command::new(built("qctl"));
        alone.arg("--state-dir").arg(&state).args(words).current_dir(self.lab.root());
        run(&mut alone, LONG)
    }

    /// Which controller leads, by its own word.
    #[must_use]
    pub fn leader(&self) -> usize {
        until("a controller leads", LONG, || {
            let up = (0..self.controllers.len()).filter(|at| self.controllers[*at].child.is_some());
            up.into_iter().find(|at| self.ask(*at, &["ps"]).code == 0)
        })
    }

    /// Waits until this many nodes are ready.
    pub fn ready(&self, count: usize) {
        until("all agents are there", LONG, || {
            let nodes = self.nodes();
            let ready = nodes.iter().filter(|node| node["phase"] == "ready").count();
            (ready == count).then_some(())
        });
    }

    /// The nodes, as `qctl nodes` shows them; none while nobody leads.
    #[must_use]
    pub fn nodes(&self) -> Vec<Value> {
        let said = self.lab.qctl_for(LONG, ["nodes", "-o", "json"]);
        read_nodes(&said.stdout)
    }

    fn log(&self, name: &str) -> File {
        File::options().create(true).append(true).open(self.lab.root().join(name)).unwrap()
    }
}

impl Drop for Several {
    fn drop(&mut self) {
        let controllers = self.controllers.iter_mut().filter_map(|one| one.child.take());
        for mut child in controllers.chain(self.agents.drain(..)) {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The nodes that `qctl nodes -o json` has said.
#[must_use]
pub fn read_nodes(said: &str) -> Vec<Value> {
    match serde_json::from_str(said.trim()) {
        Ok(Value::Array(nodes)) => nodes,
        Ok(other) => other["nodes"].as_array().cloned().unwrap_or_else(|| vec![other]),
        Err(_) => said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect(),
    }
}

fn path(lab: &Lab, name: &str) -> String {
    lab.root().join(name).to_string_lossy().into_owned()
}
