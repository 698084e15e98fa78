"""Ranks as processes of this machine, each under a supervisor that outlives the agent.

Theory of operation. A start sends one end of a socket pair to the fork server, and the order
through the other end; the supervisor forked there answers on it. The agent then holds the write
end of the rank's control FIFO: stops are written to it, and the kernel reports an error on it the
moment the supervisor is gone. Then `exit.json` says how the rank ended; where there is none, the
supervisor was killed, and what is left of the rank is ended before it is called lost.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from node_agent.core.leases import Category, Fault, Rank, State
from node_agent.runtime import orphans
from node_agent.runtime.forkpool import ForkPool
from node_agent.runtime.protocol import RankOrder
from node_agent.runtime.supervisor import CONTROL, EXIT, HEADER, STARTED, now_at_ms

START_TRIES = 3
STARTED_POLL_S = 0.005
STARTED_WAIT_S = 5.0
MAX_FILE_BYTES = 64 * 1024


@dataclass(slots=True)
class _Held:
    """One rank in memory; `control` is the write end of its FIFO, -1 while there is none."""

    rank: Rank
    control: int = -1
    stop: bytes = b""


class ProcessRuntime:
    """The runtime of plain processes. See `Runtime` for what its methods promise."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        """Does its work as tasks of `tasks`; holds nothing yet."""
        self.on_change: Callable[[], None] = lambda: None
        self._tasks = tasks
        self._held: dict[Path, _Held] = {}
        self._pool = ForkPool()
        self._boot = orphans.boot_mark()

    @property
    def fork_server_pid(self) -> int | None:
        """Process id of the fork server, while there is one."""
        return self._pool.pid

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
                "env": dict(order.env),
                "cwd": str(order.cwd),
                "subject": order.subject,
                "boot": self._boot,
            }
        ).encode()
        for _ in range(START_TRIES):
            # No answer: the fork server or the supervisor has died. Where nobody has claimed the
            # folder, nobody ever will, because the socket's other end is closed everywhere.
            if await self._send(HEADER.pack(len(body)) + body) or self._claimed(order.path):
                break
        await self.adopt(order.path, order.rank)

    async def adopt(self, path: Path, rank: int) -> None:
        """Takes hold of a rank's supervisor, or of what it left."""
        held = self._held.setdefault(path, _Held(Rank(rank)))
        while held.rank.state is not State.ENDED and held.control < 0:
            try:
                held.control = os.open(path / CONTROL, os.O_WRONLY | os.O_NONBLOCK)
            except FileNotFoundError:
                self._claim(path)  # so that no supervisor comes late
                continue
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                await self._bury(path, held)
                return
            self._command(held, held.stop)
            await self._wait_until_started(path, held)
            asyncio.get_running_loop().add_reader(held.control, self._supervisor_gone, path)

    def stop(self, path: Path, grace_ms: int) -> None:
        """Tells the supervisor, now or as soon as there is one."""
        held = self._held[path]
        held.stop = f"STOP {max(0, grace_ms)}\n".encode()
        self._command(held, held.stop)

    def observe(self, path: Path) -> Rank:
        """The rank as last seen."""
        return self._held[path].rank

    def forget(self, path: Path) -> None:
        """Drops the rank; it has ended."""
        self._release(self._held.pop(path, None))

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

    def _claimed(self, path: Path) -> bool:
        return (path / CONTROL).exists()

    def _claim(self, path: Path) -> None:
        with suppress(FileExistsError):
            os.mkfifo(path / CONTROL, 0o600)

    async def _wait_until_started(self, path: Path, held: _Held) -> None:
        """Reads started.json, which comes right after the control FIFO."""
        give_up_s = time.monotonic() + STARTED_WAIT_S
        while not (started := _read(path / STARTED)) and time.monotonic() < give_up_s:
            if (path / EXIT).exists():
                return
            await asyncio.sleep(STARTED_POLL_S)
        began = _number(started.get("started_at_ms"))
        self._set(held, state=State.RUNNING, started_at_ms=began)

    def _command(self, held: _Held, lines: bytes) -> None:
        if held.control >= 0 and lines:
            held.stop = b""
            with suppress(OSError):  # the supervisor has gone; its FIFO says so as well
                os.write(held.control, lines)

    def _supervisor_gone(self, path: Path) -> None:
        held = self._held[path]
        self._release(held)
        self._tasks.create_task(self._bury(path, held))

    async def _bury(self, path: Path, held: _Held) -> None:
        """Learns how a rank ended whose supervisor is gone, making sure that it has."""
        ended = _exit_of(path)
        if ended is None:
            ended = await asyncio.to_thread(_lose, path, self._boot)
        began = _number(_read(path / STARTED).get("started_at_ms"))
        self._set(held, state=State.ENDED, started_at_ms=began, **ended)

    def _set(self, held: _Held, **changes: Any) -> None:
        held.rank = replace(held.rank, **changes)
        self.on_change()

    def _release(self, held: _Held | None) -> None:
        if held is not None and held.control >= 0:
            asyncio.get_running_loop().remove_reader(held.control)
            os.close(held.control)
            held.control = -1


def _exit_of(path: Path) -> dict[str, Any] | None:
    """What exit.json says, as fields of `Rank`; None where it is missing or damaged.

    The rank's user can write to it as well: nothing in it is trusted to have the right type.
    """
    content = _read(path / EXIT)
    if not {"exit_code", "signal", "ended_at_ms"} <= content.keys():
        return None
    error = content.get("error")
    fault = None
    if isinstance(error, dict):
        names = {category.value: category for category in Category}
        category = names.get(str(error.get("category")), Category.USER_CODE)
        fault = Fault(category, str(error.get("message", "")))
    return {
        "exit_code": _number(content["exit_code"]),
        "signal": _number(content["signal"]),
        "ended_at_ms": _number(content["ended_at_ms"]),
        "stopped": content.get("stopped") is True,
        "last_line": str(content.get("stderr_tail", "")),
        "fault": fault,
    }


def _lose(path: Path, boot: str) -> dict[str, Any]:
    """Ends what a lost supervisor left, and writes down that it was lost."""
    started = _read(path / STARTED)
    same_boot = started.get("boot") == boot
    if same_boot or not started:
        pid, ticks = _number(started.get("pid")), _number(started.get("start_ticks"))
        orphans.end(path, pid=pid or 0, start_ticks=ticks or 0)
    if not started:
        message = "the agent or the supervisor stopped before the rank was started"
    elif same_boot:
        message = "the rank's supervisor was lost"
    else:
        message = "the node was restarted while the rank ran"
    ended = {"exit_code": None, "signal": 9 if started else None, "ended_at_ms": now_at_ms()}
    error = {"category": Category.NODE_LOST, "message": message}
    with suppress(OSError):  # on a full disk it is found out again after the next restart
        draft = path / f"{EXIT}.lost"
        draft.write_text(json.dumps({**ended, "error": error}))
        draft.rename(path / EXIT)
    return {**ended, "fault": Fault(Category.NODE_LOST, message)}


def _number(value: object) -> int | None:
    return value if type(value) is int and abs(value) < 2**63 else None


def _read(path: Path) -> dict[str, Any]:
    """A JSON object from a small file; empty where there is none or it is damaged."""
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(MAX_FILE_BYTES))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
