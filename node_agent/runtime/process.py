"""Ranks as processes of this machine, each under a supervisor that outlives the agent.

Theory of operation. A start sends one end of a socket pair to the fork server, and the order
through the other end; the supervisor forked there answers on it. The agent then holds the write
end of the rank's control FIFO: stops are written to it, and the kernel reports an error on it the
moment the supervisor is gone. Then `exit.json` says how the rank ended; where there is none, the
supervisor was killed, and what is left of the rank is ended before it is called lost.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from node_agent.core.leases import Rank, State
from node_agent.runtime import orphans, remains
from node_agent.runtime.contact import Contact
from node_agent.runtime.folder import CONTROL, EXIT
from node_agent.runtime.forkpool import ForkPool
from node_agent.runtime.protocol import RankOrder
from node_agent.runtime.supervisor import HEADER

START_TRIES = 3
STARTED_POLL_S = 0.005
STARTED_WAIT_S = 5.0

log = structlog.get_logger()


@dataclass(slots=True)
class _Held:
    """One rank in memory; `control` is the write end of its FIFO, -1 while there is none."""

    rank: Rank
    control: int = -1
    commands: bytes = b""

    def send(self, command: str = "") -> None:
        """Passes commands on, now or as soon as there is somebody to hear them."""
        if command:
            self.commands += f"{command}\n".encode()
        if self.control >= 0 and self.commands:
            with suppress(OSError):  # the supervisor has gone; its FIFO says so as well
                os.write(self.control, self.commands)
            self.commands = b""

    def release(self) -> None:
        """Closes the FIFO."""
        if self.control >= 0:
            asyncio.get_running_loop().remove_reader(self.control)
            os.close(self.control)
            self.control = -1


class ProcessRuntime:
    """The runtime of plain processes. See `Runtime` for what its methods promise."""

    def __init__(self, tasks: asyncio.TaskGroup, contact: Contact, *, mark: str) -> None:
        """Does its work as tasks of `tasks`; its ranks carry the node's `mark`. Holds nothing yet."""
        self.on_change: Callable[[Path], None] = lambda path: None
        self._tasks = tasks
        self._contact = contact
        self._mark = mark
        self._held: dict[Path, _Held] = {}
        self._pool = ForkPool()
        self._boot = orphans.boot_mark()

    async def open(self) -> None:
        """Starts the fork server."""
        await self._pool.open()

    def start(self, order: RankOrder) -> None:
        """Has the fork server fork a supervisor for the rank."""
        self._held[order.path] = _Held(Rank(order.rank))
        self._tasks.create_task(self._start(order))

    async def _start(self, order: RankOrder) -> None:
        body = json.dumps(
            {
                "path": str(order.path),
                "argv": order.argv,
                "env": {**order.env, orphans.NODE_MARK: self._mark},
                "cwd": str(order.cwd),
                "subject": order.subject,
                "boot": self._boot,
                "fence": {
                    "contact": self._contact.path,
                    "sent_ms": self._contact.sent_ms,
                    "fence_after_ms": order.fence_after_ms,
                },
            }
        ).encode()
        for _ in range(START_TRIES):
            # No answer: the fork server or the supervisor has died. Where nobody has claimed the
            # folder, nobody ever will, because the socket's other end is closed everywhere.
            if await self._send(HEADER.pack(len(body)) + body) or (order.path / CONTROL).exists():
                break
        await self.adopt(order.path, order.rank)

    async def end_strays(self, known: Collection[Path]) -> None:
        """Ends ranks that carry the node's mark and are in none of these folders."""
        count = await asyncio.to_thread(orphans.end_strays, self._mark, known)
        if count:
            log.warning("unknown_ranks_ended", ranks=count, hint="the node's state was lost")

    async def adopt(self, path: Path, rank: int) -> None:
        """Takes hold of a rank's supervisor, or of what it left."""
        held = self._held.setdefault(path, _Held(Rank(rank)))
        control = remains.open_control(path)
        if control is None:
            await self._bury(path, held)
            return
        held.control = control
        held.send()
        await self._wait_until_started(path, held)
        asyncio.get_running_loop().add_reader(control, self._supervisor_gone, path)

    def stop(self, path: Path, grace_ms: int) -> None:
        """Tells the supervisor, now or as soon as there is one."""
        self._held[path].send(f"STOP {max(0, grace_ms)}")

    def save(self, path: Path) -> None:
        """Tells the supervisor, now or as soon as there is one."""
        self._held[path].send("SAVE")

    def fence(self, path: Path, after_ms: int) -> None:
        """Tells the supervisor, now or as soon as there is one."""
        self._held[path].send(f"FENCE {max(0, after_ms)}")

    def observe(self, path: Path) -> Rank:
        """The rank as last seen."""
        return self._held[path].rank

    def forget(self, path: Path) -> None:
        """Drops the rank; it has ended."""
        self._held.pop(path).release()

    async def close(self) -> None:
        """Drops every rank and the fork server."""
        for path in list(self._held):
            self.forget(path)
        await self._pool.close()

    async def _send(self, order: bytes) -> bool:
        """Hands an order to a new supervisor; False where it died before it could answer."""
        own, theirs = socket.socketpair()
        try:
            own.setblocking(False)
            # The socket takes most orders whole before anybody reads: no supervisor waits for it.
            sent = own.send(order)
            await self._pool.fork(theirs)
            theirs.close()
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(own, memoryview(order)[sent:])
            return bool(await loop.sock_recv(own, 1))
        except OSError:
            return False
        finally:
            own.close()
            theirs.close()

    async def _wait_until_started(self, path: Path, held: _Held) -> None:
        """Reads started.json, which comes right after the control FIFO."""
        give_up_s = time.monotonic() + STARTED_WAIT_S
        began_ms = remains.started_at_ms(path)
        while began_ms is None and time.monotonic() < give_up_s:
            if (path / EXIT).exists():
                return
            await asyncio.sleep(STARTED_POLL_S)
            began_ms = remains.started_at_ms(path)
        self._set(path, held, state=State.RUNNING, started_at_ms=began_ms)

    def _supervisor_gone(self, path: Path) -> None:
        held = self._held[path]
        held.release()
        self._tasks.create_task(self._bury(path, held))

    async def _bury(self, path: Path, held: _Held) -> None:
        """Learns how a rank ended whose supervisor is gone, making sure that it has."""
        ended = remains.exit_of(path)
        if ended is None:
            ended = await asyncio.to_thread(remains.lose, path, self._boot)
        began_ms = held.rank.started_at_ms or remains.started_at_ms(path)
        self._set(path, held, state=State.ENDED, started_at_ms=began_ms, **ended)

    def _set(self, path: Path, held: _Held, **changes: Any) -> None:
        held.rank = replace(held.rank, **changes)
        self.on_change(path)
