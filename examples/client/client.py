"""Submits a file to a qctl controller, follows it to its end, and exits as `qctl run` does."""

import argparse
import json
import sys
import threading
import time
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
    """Opens a channel with mutual TLS to the first controller of a context that leads.

    Where several controllers share their memory, the health service of each says whether it leads.
    """
    context = json.loads(Path(context_file).read_text(encoding="utf-8"))
    identity = Path(context["identity"])
    credentials = grpc.ssl_channel_credentials(
        root_certificates=(identity / "ca.pem").read_bytes(),
        private_key=(identity / "key.pem").read_bytes(),
        certificate_chain=(identity / "cert.pem").read_bytes(),
    )
    options = [("grpc.ssl_target_name_override", SERVER_NAME), ("grpc.service_config", RETRIED)]
    endpoints = context["endpoint"].split(",")
    for endpoint in endpoints:
        channel = grpc.secure_channel(endpoint.strip().removeprefix("https://"), credentials, options=options)
        if len(endpoints) == 1 or leads(channel):
            return channel
        channel.close()
    raise ConnectionError(f"none of {', '.join(endpoints)} leads")


def leads(channel):
    """Asks grpc.health.v1 about the service that only a leader serves."""
    service = b"qctl.v1.Jobs"
    try:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        # HealthCheckRequest{service = 1}, HealthCheckResponse{status = 1}; 1 is SERVING.
        return check(b"\x0a" + bytes([len(service)]) + service, timeout=5) == b"\x08\x01"
    except grpc.RpcError:
        return False


def print_logs(context_file, job):
    """Prints the job's log as it grows; ends with the job. After a break it goes on where each source broke off."""
    seen = {}
    for channel in channels(context_file):
        try:
            for batch in jobs_pb2_grpc.JobsStub(channel).Logs(jobs_pb2.LogsRequest(job=job, follow=True)):
                source = (batch.attempt, batch.source)
                known = max(seen.get(source, 0) - batch.offset, 0)
                sys.stdout.write(batch.data[known:].decode("utf-8", "replace"))
                sys.stdout.flush()
                seen[source] = max(seen.get(source, 0), batch.offset + len(batch.data))
            return
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                print(f"the log broke off: {error.details()}", file=sys.stderr)
                return


def watch(context_file, job):
    """The job as it is, again at each change, until it has ended; a controller that restarts is asked again."""
    for channel in channels(context_file):
        try:
            for view in jobs_pb2_grpc.JobsStub(channel).Watch(jobs_pb2.GetJobRequest(job=job)):
                yield view
                if view.phase in EXIT_CODES:
                    return
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                raise


def channels(context_file):
    """A channel, and another one each time the last has broken off, with a second between them."""
    while True:
        try:
            with connect(context_file) as channel:
                yield channel
        except ConnectionError as error:
            print(error, file=sys.stderr)
        time.sleep(1)


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
        spec = Path(spec_file).read_text(encoding="utf-8")
        request = jobs_pb2.SubmitRequest(spec=spec, source_name=str(spec_file), idempotency_key=str(uuid.uuid4()))
        accepted = jobs_pb2_grpc.JobsStub(channel).Submit(request)
    print(f"submitted {accepted.name} ({accepted.id})", file=sys.stderr)
    logs = threading.Thread(target=print_logs, args=(context_file, accepted.id), daemon=True)
    logs.start()
    said, view = "", None
    for view in watch(context_file, accepted.id):
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
    except ConnectionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 6
    except grpc.RpcError as error:
        print(f"error: {error.details()}", file=sys.stderr)
        return 6 if error.code() == grpc.StatusCode.UNAVAILABLE else 1


if __name__ == "__main__":
    sys.exit(main())
