"""The fork server: keeps a few supervisors forked and waiting, and knows nothing else.

Forking a process that runs gRPC's threads is unsafe, and starting a Python takes 20 ms. This
process never loads gRPC or asyncio, has one thread, and has everything that a supervisor needs in
memory already. Its spare children wait on the agent's socket themselves, so that a start costs no
fork of a Python at all: whichever takes the order becomes that rank's supervisor, and the server
forks another.

It is the agent's child over a socket pair: when the agent goes away in whatever manner, the socket
ends, and so do the server and its spares. Supervisors stay.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import time

from node_agent.runtime import kernel, supervisor

SPARES = 3
FORK_RETRY_S = 0.02


def serve(server: socket.socket) -> None:
    """Keeps `SPARES` supervisors waiting on `server`; returns when the agent is gone."""
    kernel.prepare()
    # Ended supervisors are nobody's concern: their exit is seen in the files that they leave.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.freeze()  # keeps the collector from touching, and so copying, the pages that are shared
    poll = select.poll()
    poll.register(server, 0)  # only its end: what arrives on it is for the spares
    spares = 0
    while True:
        while spares < SPARES:
            poll.register(_fork(server), 0)
            spares += 1
        for fd, _ in poll.poll():
            if fd == server.fileno():
                return
            poll.unregister(fd)
            os.close(fd)
            spares -= 1


def _fork(server: socket.socket) -> int:
    """Forks a spare; the pipe returned ends when it is taken, or dies."""
    end, spare = os.pipe()
    while True:
        try:
            child = os.fork()
            break
        except OSError:  # out of processes: orders wait in the socket meanwhile
            time.sleep(FORK_RETRY_S)
    if child == 0:
        os.close(end)
        supervisor.main(server, spare)
    os.close(spare)
    return end


def main() -> None:
    """Serves the socket whose number is the only argument."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
