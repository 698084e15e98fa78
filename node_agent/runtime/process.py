"""Ranks as processes of this machine or in containers, each under a supervisor that outlives the agent.

Theory of operation. A start sends one end of a socket pair to the fork server, and the order
through the other end; the supervisor forked there answers on it. The agent then holds the write
end of the rank's control FIFO: stops are written to it, and the kernel reports an error on it the
moment the supervisor is gone. Then `exit.json` says how the rank ended; where there is none, the
supervisor was killed, and what is left of the rank is ended before it is called lost.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import structlog

from node_agent.core.leases import Rank, State
from node_agent.runtime import cgroups, orphans, remains
from node_agent.runtime.contact import Contact
from node_agent.runtime.folder import CONTROL, EXIT
from node_agent.runtime.forkpool import ForkPool
from node_agent.runtime.protocol import CannotStart, RankOrder
from node_agent.runtime.rules import ProcessRules
from node_agent.runtime.supervisor import HEADER

START_TRIES = 3
STARTED_POLL_S = 0.005
STARTED_WAIT_S = 5.0
INSIST_S = 0.5
INSIST_MAX_S = 60.0

log = structlog.get_logger()


def _group(parent: str, order: RankOrder) -> dict[str, Any] | None:
    """The control group of a rank, for its supervisor."""
    if not parent:
        return None
    name = hashlib.sha256(str(order.path).encode()).hexdigest()[:24]
    return {"path": f"{parent}/{name}", **asdict(order.limits)}


class ContainersProtocol(Protocol):
    """What is needed of `Containers`, whose library an agent without containers need not have."""

    async def image_sizes(self) -> dict[str, int]:
        """Bytes of the images that are there, by their names."""

    async def digest(self, name: str) -> str:
        """What an image's name stands for, which is there from now on; "" where no registry knows it.

        May be cancelled. CannotStart.
        """

    async def fetch(self, name: str, *, on_pull: Callable[[], None]) -> Mapping[str, Any]:
        """Has an image there; calls `on_pull` where that takes long. May be cancelled. CannotStart."""

    async def create(
        self, order: RankOrder, env: Mapping[str, str], *, image: Mapping[str, Any]
    ) -> dict[str, str]:
        """Makes a rank's container; returns what its supervisor has to know. CannotStart."""

    async def remove(self, path: Path) -> bool:
        """Ends and removes the container of a rank's folder, if there is one; False where that failed."""

    async def end_strays(self, known: Callable[[], Collection[Path]]) -> bool:
        """Ends and removes this node's containers of folders that are not `known`; False where that failed."""

    async def close(self) -> None:
        """Lets go of the engine; containers stay."""


@dataclass(slots=True)
class _Held:
    """One rank in memory; `control` is the write end of its FIFO, -1 while there is none."""

    rank: Rank
    control: int = -1
    commands: bytes = b""
    fetch: asyncio.Future[Mapping[str, Any]] | None = None  # of its image, while that goes on
    gives_up: bool = False  # it was stopped meanwhile

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

    def __init__(
        self,
        tasks: asyncio.TaskGroup,
        contact: Contact,
        *,
        mark: str,
        rules: ProcessRules = ProcessRules(),  # noqa: B008 it is frozen
        containers: ContainersProtocol | None = None,
    ) -> None:
        """Does its work as tasks of `tasks`; its ranks carry the node's `mark`. Holds nothing yet.

        Without `containers` no order may ask for one.
        """
        self.on_change: Callable[[Path], None] = lambda path: None
        self._tasks = tasks
        self._contact = contact
        self._mark = mark
        self._rules = rules
        self._containers = containers
        self._held: dict[Path, _Held] = {}
        self._pool = ForkPool()
        self._boot = orphans.boot_mark()
        self._closing = asyncio.Event()

    async def open(self) -> None:
        """Starts the fork server."""
        await self._pool.open()

    def start(self, order: RankOrder) -> None:
        """Has the fork server fork a supervisor for the rank."""
        self._held[order.path] = _Held(Rank(order.rank))
        self._tasks.create_task(self._start(order))

    async def _start(self, order: RankOrder) -> None:
        try:
            body = json.dumps(await self._order(order)).encode()
        except CannotStart as refused:
            await asyncio.to_thread(remains.refuse, order.path, refused.fault)
        except asyncio.CancelledError:
            if not self._held[order.path].gives_up:
                raise  # the agent ends
            await asyncio.to_thread(remains.refuse, order.path, None)
        else:
            await self._supervise(order.path, body)
        await self.adopt(order.path, order.rank)

    async def _order(self, order: RankOrder) -> dict[str, Any]:
        """What a supervisor is told."""
        env = {**order.env, orphans.NODE_MARK: self._mark}
        told = {
            "path": str(order.path),
            "subject": order.subject,
            "boot": self._boot,
            "fence": {
                "contact": self._contact.path,
                "sent_ms": self._contact.sent_ms,
                "fence_after_ms": order.fence_after_ms,
            },
        }
        if order.container is None:
            rules = self._rules
            what = {"argv": order.argv, "env": env, "cwd": str(order.cwd)}
            return {**told, **what, "user": rules.user, "group": _group(rules.group, order)}
        assert self._containers is not None, "nobody orders a container where there are none"
        image = await self._fetch(order.path, order.container.image)
        return {**told, "container": await self._containers.create(order, env, image=image)}

    async def _fetch(self, path: Path, name: str) -> Mapping[str, Any]:
        """Has the image there; cancelled where the rank is stopped meanwhile."""
        assert self._containers is not None, "nobody orders a container where there are none"
        held = self._held[path]
        fetch = self._containers.fetch(
            name, on_pull=lambda: self._set(path, held, state=State.PREPARING)
        )
        held.fetch = asyncio.ensure_future(fetch)
        try:
            return await held.fetch
        finally:
            held.fetch = None

    async def _supervise(self, path: Path, body: bytes) -> None:
        for _ in range(START_TRIES):
            # No answer: the fork server or the supervisor has died. Where nobody has claimed the
            # folder, nobody ever will, because the socket's other end is closed everywhere.
            if await self._send(HEADER.pack(len(body)) + body) or (path / CONTROL).exists():
                break

    async def end_strays(self, known: Collection[Path]) -> None:
        """Ends ranks that carry the node's mark and are in none of these folders."""
        count = await asyncio.to_thread(orphans.end_strays, self._mark, known)
        if count:
            log.warning("unknown_ranks_ended", ranks=count, hint="the node's state was lost")
        if self._rules.group:
            await asyncio.to_thread(cgroups.sweep, self._rules.group)
        if (containers := self._containers) is None:
            return
        if not await containers.end_strays(lambda: known):
            self._tasks.create_task(
                self._insist(lambda: containers.end_strays(lambda: [*known, *self._held]))
            )

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
        held = self._held[path]
        held.send(f"STOP {max(0, grace_ms)}")
        if held.fetch is not None:
            held.gives_up = True
            held.fetch.cancel()

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
        self._closing.set()
        for path in list(self._held):
            self.forget(path)
        await self._pool.close()
        if self._containers:
            await self._containers.close()

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
        if (containers := self._containers) and remains.has_container(path):
            self._tasks.create_task(self._insist(lambda: containers.remove(path)))
        began_ms = held.rank.started_at_ms or remains.started_at_ms(path)
        self._set(path, held, state=State.ENDED, started_at_ms=began_ms, **ended)

    async def _insist(self, work: Callable[[], Awaitable[bool]]) -> None:
        """Asks for work until it is done, or the agent ends: engines fail, and come back."""
        wait_s = INSIST_S
        while not await work() and not self._closing.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), wait_s)
            wait_s = min(INSIST_MAX_S, 2 * wait_s)

    def _set(self, path: Path, held: _Held, **changes: Any) -> None:
        held.rank = replace(held.rank, **changes)
        self.on_change(path)
