"""A stand-in for MindSpore's msrun: the same flags, files, variables and habits, without MindSpore.

For tests of what holds a launcher, on machines without MindSpore. Like the real one it starts a scheduler where
`ip -j addr` shows the master's address, starts ranks with whatever `python` is in PATH, each in a session of its own,
kills them when one fails, then waits for the scheduler without end, and leaves them all behind when it is terminated.
Only `--join True` with `--node_rank` is there: what an agent asks for.
"""

import argparse
import ast
import json
import os
import signal
import subprocess
import sys
import time

POLL = 0.005  # Seconds; the real one polls without a pause.


def options():
    parser = argparse.ArgumentParser()
    for flag in ("--worker_num", "--local_worker_num", "--master_port", "--node_rank", "--cluster_time_out"):
        parser.add_argument(flag, type=int, required=True)
    parser.add_argument("--master_addr", required=True)
    parser.add_argument("--log_dir", required=True)
    parser.add_argument("--join", type=ast.literal_eval, choices=[True], required=True)
    parser.add_argument("--tail_worker_log", required=True)
    parser.add_argument("task_script")
    parser.add_argument("task_script_args", nargs=argparse.REMAINDER)
    return parser.parse_args()


def is_master(address):
    said = subprocess.run(["ip", "-j", "addr"], stdout=subprocess.PIPE, check=False).stdout if on_path("ip") else b""
    if not said:
        return True  # A host without `ip`: the real one compares with the address of its own route.
    return any(one.get("local") == address for link in json.loads(said) for one in link.get("addr_info", []))


def on_path(program):
    return any(os.access(os.path.join(entry, program), os.X_OK) for entry in os.environ["PATH"].split(os.pathsep))


def start(given, name, own_session, **variables):
    """One process; the variables stay in this process's own environment, as the real one leaves them."""
    os.environ.update(MS_WORKER_NUM=str(given.worker_num), RANK_SIZE=str(given.worker_num),
                      MS_SCHED_HOST=given.master_addr, MS_SCHED_PORT=str(given.master_port),
                      MS_TOPO_TIMEOUT=str(given.cluster_time_out), **variables)
    with open(os.path.join(given.log_dir, name + ".log"), "w") as log:
        return subprocess.Popen(["python", given.task_script] + given.task_script_args, stdout=log,
                                stderr=subprocess.STDOUT, start_new_session=own_session)


def failed(workers):
    """The first worker that failed, once one has; none when all have returned 0."""
    while True:
        codes = [worker.poll() for worker in workers]
        for worker, code in zip(workers, codes):
            if code:
                print("Worker process %d exit with exception. Error code: %d." % (worker.pid, code), flush=True)
                return worker
        if all(code == 0 for code in codes):
            return None
        time.sleep(POLL)


def main():
    given = options()
    os.makedirs(given.log_dir, mode=0o700, exist_ok=True)
    scheduler = None
    if is_master(given.master_addr):
        scheduler = start(given, "scheduler", False, MS_ROLE="MS_SCHED", RANK_ID="0")
    workers = []
    for local in range(given.local_worker_num):
        rank = str(given.node_rank * given.local_worker_num + local)
        workers.append(start(given, "worker_" + rank, True, MS_ROLE="MS_WORKER", MS_NODE_ID=rank, RANK_ID=rank,
                             MS_NODE_RANK=str(given.node_rank), DEVICE_ID=str(local)))
    bad = failed(workers) is not None
    for worker in workers if bad else []:
        if worker.poll() is None:
            os.killpg(os.getpgid(worker.pid), signal.SIGKILL)
    if scheduler is not None:
        bad |= scheduler.wait() != 0
    if bad:
        raise RuntimeError("Distributed job exited with exception. Please check logs in directory: %s." % given.log_dir)


if __name__ == "__main__":
    sys.exit(main())
