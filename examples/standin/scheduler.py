"""The stand-in's scheduler: gathers the ranks, and lets them go on only together.

It ends with 0 when every rank has said `bye`, and, like MindSpore's, with 1 only MS_NODE_TIMEOUT
seconds (30 unless told) after a rank was lost, or when the ranks have not gathered within
MS_TOPO_TIMEOUT seconds (600 unless told).
"""

import os
import selectors
import socket
import sys
import time

LONGEST_LINE = 256


def say(text):
    print("scheduler: " + text, flush=True)


class Peer:
    def __init__(self, connection):
        self.connection = connection
        self.rest = b""
        self.rank = None
        self.waiting = None  # The label this rank waits at.
        self.wish = False


class Scheduler:
    def __init__(self, world):
        self.world = world
        self.ranks = {}
        self.done = set()
        self.gathered = False
        self.lost_at = None

    def hear(self, peer, line):
        """Takes one line; whether the peer may stay."""
        words = line.decode("utf-8", "replace").split()
        if len(words) == 3 and words[0] == "join" and words[1].isdigit() and words[2].isdigit() and peer.rank is None:
            rank, world = int(words[1]), int(words[2])
            if world != self.world or rank >= world or rank in self.ranks or rank in self.done:
                return self.refuse(peer, "rank %d of %d has no place in a world of %d" % (rank, world, self.world))
            peer.rank, peer.waiting, peer.wish = rank, "join", False
            self.ranks[rank] = peer
        elif len(words) == 3 and words[0] == "at" and peer.rank is not None and peer.waiting is None:
            peer.waiting, peer.wish = words[1], words[2] == "1"
        elif words == ["bye"] and peer.rank is not None:
            self.done.add(peer.rank)
            return False
        else:
            return self.refuse(peer, "a line out of turn")
        self.release()
        return True

    @staticmethod
    def refuse(peer, why):
        say("refused: " + why)
        peer.connection.sendall(b"no " + why.encode() + b"\n")
        return False

    def release(self):
        """Lets everybody go when all are at one place."""
        peers = list(self.ranks.values())
        if len(peers) < self.world or any(p.waiting is None for p in peers):
            return
        labels = {p.waiting for p in peers}
        if len(labels) > 1:
            say("the ranks are at different places: %s" % ", ".join(sorted(labels)))
            sys.exit(1)
        if not self.gathered:
            self.gathered = True
            say("all %d ranks have joined" % self.world)
        answer = b"go %d\n" % any(p.wish for p in peers)
        for peer in peers:
            peer.waiting = None
        for peer in peers:
            try:
                peer.connection.sendall(answer)
            except OSError:
                pass  # Its end is seen when it is read.

    def gone(self, peer):
        if peer.rank is not None and self.ranks.pop(peer.rank, None) and peer.rank not in self.done:
            say("rank %d was lost" % peer.rank)
            self.lost_at = self.lost_at or time.monotonic()


def read(scheduler, selector, peer):
    try:
        data = peer.connection.recv(4096)
    except OSError:
        data = b""
    peer.rest += data
    stays = bool(data) and len(peer.rest) <= LONGEST_LINE
    while stays and b"\n" in peer.rest:
        line, _, peer.rest = peer.rest.partition(b"\n")
        stays = scheduler.hear(peer, line)
    if not stays:
        selector.unregister(peer.connection)
        scheduler.gone(peer)
        peer.connection.close()


def main():
    world = int(os.environ.get("MS_WORKER_NUM", "1"))
    where = (os.environ.get("MS_SCHED_HOST", "127.0.0.1"), int(os.environ.get("MS_SCHED_PORT", "8118")))
    gather = time.monotonic() + float(os.environ.get("MS_TOPO_TIMEOUT", "600"))
    grace = float(os.environ.get("MS_NODE_TIMEOUT", "30"))
    try:
        listener = socket.create_server(where, backlog=max(16, world))
    except OSError as error:
        print("RuntimeError: Failed to init the tcp server at %s:%d: %s" % (where + (error,)), file=sys.stderr, flush=True)
        return 1
    say("waiting for %d ranks at %s:%d" % ((world,) + where))
    scheduler = Scheduler(world)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ, None)
    while len(scheduler.done) < world:
        for key, _ in selector.select(timeout=0.25):
            if key.data is None:
                connection, _ = listener.accept()
                connection.settimeout(5)
                selector.register(connection, selectors.EVENT_READ, Peer(connection))
            else:
                read(scheduler, selector, key.data)
        if scheduler.lost_at and time.monotonic() > scheduler.lost_at + grace:
            say("a rank timed out; ending")
            return 1
        if not scheduler.gathered and time.monotonic() > gather:
            missing = sorted(set(range(world)) - set(scheduler.ranks))
            say("some processes in the cluster are not successfully spawned: ranks %s" % missing)
            return 1
    say("all ranks have left")
    return 0


if __name__ == "__main__":
    sys.exit(main())
