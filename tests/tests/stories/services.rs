//! The programs as a host's service manager runs them, by the files in `deploy/`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use stories::job::iterations;
use stories::lab::Lab;
use stories::pipeline;
use stories::poll::until;
use stories::process::Process;
use stories::program::{built, run, workspace};

/// The values of one service file by key, those of a repeated key in turn.
fn unit(name: &str) -> BTreeMap<String, Vec<String>> {
    let text = fs::read_to_string(workspace().join("deploy/systemd").join(name)).unwrap();
    let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some((key, value)) = line.split_once('=') {
            keys.entry(key.to_owned()).or_default().push(value.to_owned());
        }
    }
    keys
}

#[test]
fn the_service_files_are_sound() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        println!("skipped: systemd-analyze is not here");
        return;
    }
    // The programs are not installed on this computer: the files are checked with those of this build in their place.
    let directory = tempfile::tempdir().unwrap();
    for name in ["qctl-controller.service", "qctl-agent.service"] {
        let text = fs::read_to_string(workspace().join("deploy/systemd").join(name)).unwrap();
        let bin = built("qctl").parent().unwrap().to_owned();
        let file = directory.path().join(name);
        fs::write(&file, text.replace("/usr/bin/", &format!("{}/", bin.display()))).unwrap();
        let mut verify = Command::new("systemd-analyze");
        let outcome = run(verify.arg("verify").arg("--man=no").arg(&file), Duration::from_secs(60)).code(0);
        assert_eq!(outcome.stderr, "", "{outcome}");
    }
}

#[test]
fn nothing_in_the_agents_service_keeps_devices_from_ranks_or_ends_them_with_it() {
    let agent = unit("qctl-agent.service");
    let says = |key: &str| agent.get(key).and_then(|values| values.last()).map(String::as_str);
    assert_eq!(says("KillMode"), Some("process"));
    assert_eq!(says("Delegate"), Some("yes"));
    assert_eq!(says("OOMPolicy"), Some("continue"));
    assert_eq!(says("Restart"), Some("always"));
    for closing in ["DeviceAllow", "ProtectClock", "PrivateUsers", "ProtectSystem", "SystemCallFilter", "PAMName"] {
        assert_eq!(says(closing), None, "{closing} would be inherited by every rank");
    }
    for open in ["PrivateDevices", "PrivateTmp"] {
        assert_eq!(says(open), Some("no"));
    }
}

/// A service: started by the line of its file, stopped as its file says.
struct Service {
    line: Vec<String>,
    kill_mode: String,
    log: PathBuf,
    main: Child,
}

impl Service {
    fn start(name: &str, replaced: &[(&str, &str)], log: &Path) -> Self {
        let unit = unit(name);
        let mut line = unit["ExecStart"][0].clone();
        for (installed, here) in replaced {
            assert!(line.contains(installed), "{line} has no {installed}");
            line = line.replace(installed, here);
        }
        let line: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let main = spawn(&line, log);
        let kill_mode = unit.get("KillMode").map_or("control-group", |values| values[0].as_str()).to_owned();
        Self { line, kill_mode, log: log.to_owned(), main }
    }

    /// SIGTERM to whom the file says, as at an upgrade, and the line again.
    fn restart(&mut self) {
        assert_eq!(self.kill_mode, "process", "all that it has started would be ended too");
        self.end();
        self.main = spawn(&self.line, &self.log);
    }

    fn end(&mut self) {
        kill_process(Pid::from_child(&self.main), Signal::TERM).unwrap();
        let status = until("the service ends when told", Duration::from_secs(30), || self.main.try_wait().unwrap());
        assert!(status.success(), "{status}: {}", fs::read_to_string(&self.log).unwrap());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        let _ = self.main.kill();
        let _ = self.main.wait();
    }
}

fn spawn(line: &[String], log: &Path) -> Child {
    let file = File::options().create(true).append(true).open(log).unwrap();
    let mut command = Command::new(&line[0]);
    command.args(&line[1..]).stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
    command.spawn().unwrap()
}

#[test]
fn an_installation_by_hand_trains_through_restarts_of_its_agent_service() {
    let lab = Lab::idle();
    let root = lab.root().to_string_lossy().into_owned();
    let bin = built("qctl").parent().unwrap().to_string_lossy().into_owned() + "/";
    let program = |name: &str| Command::new(built(name));
    let ask = Duration::from_secs(30);

    let controller_state = format!("{root}/controller");
    let mut init = program("qctl-controller");
    let digest = run(init.args(["init", "--state-dir", &controller_state, "--user", "ada"]), ask).ok();
    let port_file = format!("{root}/port");
    let listen = format!("127.0.0.1:0 --port-file {port_file}");
    let _controller = Service::start(
        "qctl-controller.service",
        &[("/usr/bin/", &bin), ("/var/lib/qctl-controller", &controller_state), ("${QCTL_LISTEN}", &listen)],
        &lab.root().join("controller.log"),
    );
    let address = until("the controller serves", ask, || fs::read_to_string(&port_file).ok());
    let url = format!("https://{}", address.trim());

    let identity = format!("{controller_state}/pki/users/ada");
    let wrong = lab.qctl(["login", "--controller", "10.0.0.1:7400", "--identity", &identity]).code(2);
    assert!(wrong.stderr.contains("https://HOST:PORT"), "{wrong}");
    let said = lab.qctl(["login", "--controller", &url, "--identity", &identity]).code(0);
    assert!(said.stderr.contains("answers"), "{said}");
    let token = lab.qctl(["token", "create", "--role", "agent", "--name", "node-1"]).code(0);
    assert!(token.stderr.contains(digest.trim()), "{token}");
    let token = token.stdout;
    let config = fs::read_to_string(workspace().join("deploy/etc/agent.toml")).unwrap();
    let config = config
        .replace("https://10.0.0.1:7400", &url)
        .replace("10.0.0.11", "127.0.0.1")
        .replace("/var/lib/qctl-agent", &format!("{root}/agent"))
        .replace("\"ascend\"", "\"cpu\"")
        .replace("slots = 8", "slots = 4");
    let joins = format!("join_token = \"{}\"\nca_digest = \"{}\"\n", token.trim(), digest.trim());
    let file = format!("{root}/agent.toml");
    fs::write(&file, format!("{joins}{config}")).unwrap();
    let mut agent = Service::start(
        "qctl-agent.service",
        &[("/usr/bin/", &bin), ("/etc/qctl/agent.toml", &file)],
        &lab.root().join("agent.log"),
    );

    until("the node has joined", ask, || lab.qctl(["nodes"]).stdout.contains("node-1").then_some(()));

    let mut spec = pipeline::training(&lab, "upgraded", 40, 100, &[]);
    spec["stages"]["train"]["nodes"] = 1.into();
    spec["stages"]["train"]["ranks_per_node"] = 4.into();
    let job = lab.accepted(&spec);
    lab.reaches(&job, 3);
    let ranks = lab.ranks();
    assert_eq!(ranks.iter().filter_map(Process::rank).collect::<Vec<_>>(), [0, 1, 2, 3]);
    for _ in 0..2 {
        agent.restart();
        let seen = iterations(&lab.log(&job, "train", 3)).last().copied().unwrap_or(0);
        lab.reaches(&job, seen + 5);
        assert!(ranks.iter().all(Process::lives), "a rank died with its agent's service");
    }
    lab.succeeds(&job, Duration::from_secs(60));
    assert_eq!(iterations(&lab.log(&job, "train", 3)), (1..=40).collect::<Vec<_>>(), "each line once, none missing");
    agent.end();
}
