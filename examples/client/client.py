"""Submits a file to a qctl controller, follows it to its end, and exits as `qctl run` does."""

import argparse
import json
import sys
import threading
import uuid
from pathlib import Path

import grpc

from qctl.v1 import jobs_pb2, jobs_pb2_grpc

# The name in the controller's certificate, whatever address it is reached at.
SERVER_NAME = "qctl-controller"
EXIT_CODES = {"succeeded": 0, "failed": 3, "cancelled": 4}
# A controller that restarts is back within seconds; a submission is sent again under its key.
RETRIED = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": "qctl.v1.Jobs"}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.2s",
                    "maxBackoff": "5s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)


def connect(context_file):
    """Opens a channel with mutual TLS, as a context says."""
    context = json.loads(Path(context_file).read_text(encoding="utf-8"))
    identity = Path(context["identity"])
    credentials = grpc.ssl_channel_credentials(
        root_certificates=(identity / "ca.pem").read_bytes(),
        private_key=(identity / "key.pem").read_bytes(),
        certificate_chain=(identity / "cert.pem").read_bytes(),
    )
    options = [("grpc.ssl_target_name_override", SERVER_NAME), ("grpc.service_config", RETRIED)]
    return grpc.secure_channel(context["endpoint"].removeprefix("https://"), credentials, options=options)


def print_logs(jobs, job):
    """Prints the job's log as it grows; ends with the job."""
    try:
        for batch in jobs.Logs(jobs_pb2.LogsRequest(job=job, follow=True)):
            sys.stdout.write(batch.data.decode("utf-8", "replace"))
            sys.stdout.flush()
    except grpc.RpcError as error:
        print(f"the log broke off: {error.details()}", file=sys.stderr)


def progress(view):
    """Says in one line how far a job is."""
    parts = []
    for stage in view.stages:
        if stage.HasField("train"):
            parts.append(f"{stage.name} {stage.train.iteration}/{stage.train.iterations} loss {stage.train.loss:.4f}")
        else:
            parts.append(f"{stage.name} {stage.phase} {stage.tasks_done}/{stage.tasks}")
    return f"{view.phase}: {', '.join(parts)}"


def run(context_file, spec_file):
    """Submits, follows, and returns the exit code."""
    with connect(context_file) as channel:
        jobs = jobs_pb2_grpc.JobsStub(channel)
        spec = Path(spec_file).read_text(encoding="utf-8")
        request = jobs_pb2.SubmitRequest(spec=spec, source_name=str(spec_file), idempotency_key=str(uuid.uuid4()))
        accepted = jobs.Submit(request)
        print(f"submitted {accepted.name} ({accepted.id})", file=sys.stderr)
        logs = threading.Thread(target=print_logs, args=(jobs, accepted.id))
        logs.start()
        said, view = "", None
        for view in jobs.Watch(jobs_pb2.GetJobRequest(job=accepted.id)):
            line = progress(view)
            if line != said:
                print(line, file=sys.stderr)
            said = line
        logs.join()
    if view.phase == "failed":
        print(f"failed: {view.reason}", file=sys.stderr)
    return EXIT_CODES[view.phase]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--context", required=True, help="context.json of a state directory, as `qctl login` writes it")
    parser.add_argument("spec", help="the job's file")
    args = parser.parse_args()
    try:
        return run(args.context, args.spec)
    except grpc.RpcError as error:
        print(f"error: {error.details()}", file=sys.stderr)
        return 6 if error.code() == grpc.StatusCode.UNAVAILABLE else 1


if __name__ == "__main__":
    sys.exit(main())
