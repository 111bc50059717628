"""Starts a scheduler and ranks the way a launcher does: by MindSpore's environment variables alone."""

import os
import signal
import socket
import subprocess
import sys
import time

TRAINER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "pretrain_gpt.py")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def read(path):
    with open(path, errors="replace") as f:
        return f.read()


class Run:
    """Output per rank and exit codes of one run."""

    def __init__(self, codes, logs):
        self.codes, self.logs = codes, logs

    def losses(self):
        """Iteration -> the printed loss, as text: equal text is asked for, not closeness."""
        out = {}
        for line in self.logs[-1].splitlines():
            if " iteration " in line and "lm loss: " in line:
                out[int(line.split("iteration")[1].split("/")[0])] = line.split("lm loss: ")[1].split(" |")[0]
        return out


def run(folder, ranks, flags, timeout=300, env=None, term_after=None):
    """Runs to the end (or kills at `timeout`); `term_after` is text of the last rank upon which all get SIGTERM.

    Ranks that never met are started again, twice at most: the free port may be taken before the scheduler has it.
    """
    for _ in range(3):
        done = run_once(folder, ranks, flags, timeout, env, term_after)
        if not any("Failed to initialize cluster" in log for log in done.logs):
            break
    return done


def run_once(folder, ranks, flags, timeout, env, term_after):
    os.makedirs(folder, exist_ok=True)
    base = dict(os.environ, OMP_NUM_THREADS="1", PYTHONUNBUFFERED="1", GLOG_v="3", MS_NODE_TIMEOUT="30", MS_TOPO_TIMEOUT="120", **(env or {}))
    for name in ("MS_ROLE", "QCTL_ATTEMPT_NUMBER"):
        if not (env and name in env):
            base.pop(name, None)
    if ranks > 1:
        base.update(MS_WORKER_NUM=str(ranks), MS_SCHED_HOST="127.0.0.1", MS_SCHED_PORT=str(free_port()))
    logs = [os.path.join(folder, f"worker_{r}.log") for r in range(ranks)]
    files, scheduler = [open(p, "wb") for p in logs], None
    if ranks > 1:
        log = open(os.path.join(folder, "scheduler.log"), "wb")
        files.append(log)
        scheduler = subprocess.Popen([sys.executable, "-c", "from mindspore.communication import init; init()"],
                                     env=dict(base, MS_ROLE="MS_SCHED"), stdout=log, stderr=log)
    children = []
    for r in range(ranks):
        own = dict(base, MS_ROLE="MS_WORKER", MS_NODE_ID=str(r)) if ranks > 1 else base
        children.append(subprocess.Popen([sys.executable, TRAINER, *flags], env=own, stdout=files[r], stderr=subprocess.STDOUT))
    deadline, told = time.monotonic() + timeout, False
    try:
        while any(c.poll() is None for c in children) and time.monotonic() < deadline:
            if any(c.poll() not in (None, 0) for c in children):
                break  # a rank failed: the others would wait for it
            if term_after and not told and term_after in read(logs[-1]):
                told = True
                for c in children:
                    c.send_signal(signal.SIGTERM)
            time.sleep(0.1)
        ended = [c.poll() for c in children]
        if scheduler and all(code == 0 for code in ended):
            scheduler.wait(30)
    finally:
        for c in [*children, *([scheduler] if scheduler else [])]:
            if c.poll() is None:
                c.kill()
            c.wait()
        for f in files:
            f.close()
    return Run(ended, [read(p) for p in logs])
