"""Readers that never read, and what it costs the programs."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import psutil

from tests.support.cluster import MODULE, Cluster

RECEIVE_BYTES = 4096


@contextmanager
def frozen(cluster: Cluster, job_id: str, readers: int) -> Iterator[None]:
    """Readers of a log through the gateway that take next to nothing, and stay."""
    host, port = cluster.http.rsplit(":", 1)
    request = (
        f"GET {MODULE}/jobs/{job_id}/logs?tail=-1 HTTP/1.1\r\nHost: {host}\r\n"
        f"Authorization: Bearer {cluster.key}\r\n\r\n"
    )
    with ExitStack() as stack:
        for _ in range(readers):
            one = stack.enter_context(closing(socket.socket()))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
            one.connect((host, int(port)))
            one.sendall(request.encode())
            assert one.recv(12) == b"HTTP/1.1 200"
        yield


def memory(cluster: Cluster) -> dict[str, int]:
    """Resident bytes of the programs that logs go through."""
    names = ("coordinator", "gateway", "node_agent")
    return {name: psutil.Process(cluster.pid_of(name)).memory_info().rss for name in names}
