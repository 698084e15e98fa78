"""The agent's end of the fork server: keeps one alive, and hands sockets to it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import node_agent

FULL_WAIT_S = 0.001
EXIT_WAIT_S = 5.0
_MODULE = "node_agent.runtime.forkserver"


class ForkPool:
    """One fork server, started again when it is found dead. Supervisors do not depend on it."""

    def __init__(self) -> None:
        """Holds no server yet."""
        self._server: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        """Starts the server where none is alive."""
        async with self._lock:
            if self._server is None:
                server, self._process = await asyncio.to_thread(_start)
                asyncio.get_running_loop().add_reader(server, self._gone, server)
                self._server = server

    async def fork(self, channel: socket.socket) -> None:
        """Has a supervisor forked that holds `channel`. OSError where the server has just died."""
        await self.open()
        server = self._server
        while server is not None:
            try:
                socket.send_fds(server, [b"F"], [channel.fileno()])
            except BlockingIOError:
                await asyncio.sleep(FULL_WAIT_S)
            else:
                return
        raise BrokenPipeError

    async def close(self) -> None:
        """Ends the server."""
        if self._server is not None:
            self._gone(self._server)
        if self._process is not None:
            await asyncio.to_thread(self._process.wait, EXIT_WAIT_S)

    def _gone(self, server: socket.socket) -> None:
        """The server says nothing ever, so its socket is only readable at its end."""
        asyncio.get_running_loop().remove_reader(server)
        server.close()
        self._server = None
        if self._process is not None:
            self._process.poll()


def _start() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    own, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        root = Path(node_agent.__file__).parent.parent
        process = subprocess.Popen(
            # Without site: no third-party start-up files, nothing but the standard library.
            [sys.executable, "-S", "-s", "-m", _MODULE, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # supervisors must not hold the agent's own output open
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={"PYTHONPATH": str(root), "PATH": os.defpath},
            cwd="/",
        )
    own.setblocking(False)
    return own, process
