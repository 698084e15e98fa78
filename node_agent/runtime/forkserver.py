"""The fork server: takes a socket, forks a supervisor for it, and knows nothing else.

Forking a process that runs gRPC's threads is unsafe, and starting a Python takes 20 ms. This
process never loads gRPC or asyncio, has one thread, and has everything that a supervisor needs in
memory already, so that a start costs one fork. It is the agent's child over a socket pair: when
the agent goes away in whatever manner, the socket ends and so does the server. Supervisors stay.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys

from node_agent.runtime import supervisor


def serve(server: socket.socket) -> None:
    """Forks one supervisor for every socket that arrives; returns when the agent is gone."""
    supervisor.prepare()
    # Ended supervisors are nobody's concern: their exit is seen in the files that they leave.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.freeze()  # keeps the collector from touching, and so copying, the pages that are shared
    while True:
        data, fds, _, _ = socket.recv_fds(server, 1, 1)
        if not data:
            return
        for fd in fds:
            _fork(server, fd)


def _fork(server: socket.socket, fd: int) -> None:
    try:
        child = os.fork()
    except OSError:  # out of processes: the agent sees the socket end without an answer
        child = -1
    if child == 0:
        server.close()
        supervisor.main(socket.socket(fileno=fd))
    os.close(fd)


def main() -> None:
    """Serves the socket whose number is the only argument."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
