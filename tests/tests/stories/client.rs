//! A client that is not ours: plain gRPC from Python, with stubs generated from the `.proto` files.

use std::process::Command;
use std::time::Duration;

use stories::lab::Lab;
use stories::pipeline;
use stories::poll::until;
use stories::program::{Outcome, mindspore_python, run, workspace};

/// The services that a client finds, asked for by reflection and by a health check.
const LOOK: &str = "
import sys
import grpc
from client import connect

with connect(sys.argv[1]) as channel:
    # grpc.health.v1.HealthCheckRequest{service}: an empty message asks for the server as a whole.
    health = channel.unary_unary('/grpc.health.v1.Health/Check')(b'', timeout=20)
    assert health == b'\\x08\\x01', health  # status: SERVING
    ask = channel.stream_stream('/grpc.reflection.v1.ServerReflection/ServerReflectionInfo')
    for answer in ask(iter([b'\\x3a\\x01*']), timeout=20):  # list_services: '*'
        print(answer.decode('utf-8', 'replace'))
        break
";

#[test]
fn a_python_client_submits_follows_and_ends_with_the_jobs_code() {
    let Some(python) = mindspore_python() else {
        println!("skipped: QCTL_TEST_PYTHON names no interpreter");
        return;
    };
    if Command::new(&python).args(["-c", "import grpc_tools"]).status().is_ok_and(|status| !status.success()) {
        println!("skipped: {python} has no grpcio-tools");
        return;
    }
    let lab = Lab::start();
    let stubs = lab.root().join("stubs");
    std::fs::create_dir(&stubs).unwrap();
    let mut generate = Command::new(&python);
    generate.args(["-m", "grpc_tools.protoc", "-I"]).arg(workspace().join("proto"));
    generate.arg(format!("--python_out={0}", stubs.display())).arg(format!("--grpc_python_out={}", stubs.display()));
    let _ = run(generate.args(["qctl/v1/agents.proto", "qctl/v1/jobs.proto"]), Duration::from_secs(120)).ok();

    let examples = workspace().join("examples/client");
    let paths = std::env::join_paths([&stubs, &examples]).unwrap();
    let context = lab.state().join("context.json");
    let client = |file: &str| -> Outcome {
        let mut client = Command::new(&python);
        client.env("PYTHONPATH", &paths).env("PYTHONDONTWRITEBYTECODE", "1").arg(examples.join("client.py"));
        run(client.arg("--context").arg(&context).arg(file), Duration::from_secs(180))
    };

    let good = client(&lab.write(&pipeline::training(&lab, "foreign", 20, 20, &[]))).code(0);
    for iteration in 1..=20 {
        let line = format!("iteration {iteration:8}/");
        assert_eq!(good.stdout.matches(&line).count(), 1, "each line once: {good}");
    }
    assert!(good.stderr.contains("submitted foreign (j"), "{good}");
    assert!(good.stderr.contains("succeeded: train 20/20 loss "), "{good}");

    let bad = client(&lab.write(&pipeline::command(&lab, "bad", &["false"], 1))).code(3);
    assert!(bad.stderr.contains("failed: "), "{bad}");

    // A controller that is started again in the middle is asked again; nothing is missed and nothing comes twice.
    let spec = lab.write(&pipeline::training(&lab, "broken", 60, 100, &[]));
    let broken = std::thread::scope(|scope| {
        let follower = scope.spawn(|| client(&spec));
        until("it trains", Duration::from_secs(60), || (lab.ranks().len() == 4).then_some(()));
        lab.controller().unwrap().kill9();
        follower.join().unwrap()
    });
    let broken = broken.code(0);
    for iteration in 1..=60 {
        let line = format!("iteration {iteration:8}/");
        assert_eq!(broken.stdout.matches(&line).count(), 1, "each line once: {broken}");
    }

    let mut look = Command::new(&python);
    look.env("PYTHONPATH", &paths).args(["-c", LOOK]).arg(&context);
    let services = run(&mut look, Duration::from_secs(60)).ok();
    for service in ["qctl.v1.Jobs", "qctl.v1.Nodes", "qctl.v1.Checkpoints", "qctl.v1.Cluster"] {
        assert!(services.contains(service), "{services}");
    }
}
