"""Ranks in step, through the scheduler: nobody runs ahead of a peer that is dead or hangs.

One line per meeting: `at LABEL WISH`, answered with `go WISH` when every rank is there; the answer's
wish is 1 when anyone's was, so that all ranks agree on it (Megatron agrees on a stop the same way).
"""

import os
import socket
import time

RETRY = 0.05  # Seconds between attempts to reach a scheduler that is not up yet.


class PeerLost(Exception):
    """The others did not come in time."""


class SchedulerLost(Exception):
    """The scheduler closed the connection, or never opened one."""


class Alone:
    """A world of one rank."""

    def meet(self, _label, wish=False):
        return wish

    def leave(self):
        pass


class Collective:
    def __init__(self, rank, world, timeout):
        self.timeout = timeout
        self.rest = b""
        gather = float(os.environ.get("MS_TOPO_TIMEOUT", "600"))
        self.socket = self.reach(time.monotonic() + gather)
        self.socket.settimeout(gather)
        self.ask("join %d %d" % (rank, world), "the start")
        self.socket.settimeout(timeout)

    @staticmethod
    def reach(deadline):
        where = (os.environ.get("MS_SCHED_HOST", "127.0.0.1"), int(os.environ.get("MS_SCHED_PORT", "8118")))
        while True:
            try:
                return socket.create_connection(where, timeout=5)
            except OSError as error:
                if time.monotonic() > deadline:
                    raise SchedulerLost("no scheduler at %s:%d: %s" % (where + (error,))) from None
                time.sleep(RETRY)

    def meet(self, label, wish=False):
        """Waits until every rank is at `label`; whether any of them wished."""
        return self.ask("at %s %d" % (label, wish), label) == b"go 1"

    def ask(self, line, label):
        try:
            self.socket.sendall(line.encode() + b"\n")
            while b"\n" not in self.rest:
                data = self.socket.recv(4096)
                if not data:
                    raise SchedulerLost("it closed the connection at %s" % label)
                self.rest += data
        except (TimeoutError, socket.timeout):
            raise PeerLost("not every rank reached %s within %g s" % (label, self.socket.gettimeout())) from None
        except OSError as error:
            raise SchedulerLost("%s at %s" % (error, label)) from None
        answer, _, self.rest = self.rest.partition(b"\n")
        if not answer.startswith(b"go "):
            raise SchedulerLost("it answered `%s`" % answer.decode("utf-8", "replace"))
        return answer

    def leave(self):
        try:
            self.socket.sendall(b"bye\n")
        except OSError:
            pass  # The scheduler went first; this rank's work is done all the same.
        self.socket.close()
