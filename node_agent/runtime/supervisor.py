"""The supervisor of one rank: starts it, outlives the agent, writes down how it ended.

What it keeps is a `Body`: processes of this machine, or a container.

Theory of operation. A fork of the fork server, it waits for one order, makes the rank's files,
starts the rank in a session of its own, says so, and drops the socket. From then on it belongs to
nobody: the agent may be killed, upgraded and started again.

`control` is a FIFO in the rank's folder, and three things at once. It appears already open for
reading, by a link that cannot replace another: so there is one supervisor per rank folder for
ever. It has a reader as long as the supervisor lives and not a moment longer: whoever holds its
write end learns of the death from the kernel, without a process id that might be somebody else's.
And short lines written to it are commands:
    STOP <grace_ms>   SIGTERM to the rank, and SIGKILL to all that is left of it after the grace
    SAVE              SIGUSR1 to those processes of the rank that have a handler for it, as soon as one
                      has: the default action would end it, and it may still be loading its libraries
    FENCE <after_ms>  moves the deadline of `fence`, at which the rank is stopped in any case

The supervisor is a subreaper, so whatever the rank leaves behind, daemons with sessions of their
own included, becomes its child. `exit.json` is written when no child is left, and means that
nothing of the rank runs any more. SIGTERM goes to the rank's first process alone: its helpers
(data loaders) must live for it to save; when it has gone they get SIGTERM and what is left of the
grace.

Only light modules of the standard library are imported here: every supervisor carries them.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import time
from contextlib import suppress
from typing import Any, NoReturn

from node_agent.runtime import kernel
from node_agent.runtime.body import Body, NotStarted, Processes, never_started, refusal
from node_agent.runtime.container_body import ContainerBody
from node_agent.runtime.fence import FENCED, Fence
from node_agent.runtime.folder import RankFolder
from node_agent.runtime.proc import now_at_ms, start_ticks

STARTED_REPLY = b"S"
HEADER = struct.Struct("!I")

LEFTOVER_GRACE_MS = 2_000  # for what a rank leaves behind when it ends by itself
SWEEP_MS = 50  # between SIGKILLs of processes that keep forking
MAX_COMMAND_BYTES = 4096
SAVE_RETRY_MS = 500
SAVE_TRIES = 1200  # ten minutes; a rank that has no handler by then has none at all
MAX_GRACE_MS = 1_000_000_000
_IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGUSR1)


def main(server: socket.socket, spare: int) -> NoReturn:
    """Waits on `server` for the socket of one start, and supervises that rank; never returns.

    `spare` is a descriptor that is held until the rank runs: the fork server forks the next spare
    then, and not while every microsecond counts.
    """
    order = None
    code = 0
    try:
        os.setsid()
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        kernel.become_supervisor(b"mind-supervisor")
        _, fds, _, _ = socket.recv_fds(server, 1, 1)
        server.close()
        if fds:
            agent = socket.socket(fileno=fds[0])
            agent.set_inheritable(False)  # what comes over a socket is not so by itself
            order = _read_order(agent)
            if order is not None:
                Supervisor(order).run(agent, spare)
    except BaseException:  # the last words of a process that has no other place to say them
        _last_words(order)
        code = 70
    os._exit(code)


class Supervisor:
    """One rank's keeper. Times are monotonic milliseconds unless a name ends in `_at_ms`."""

    def __init__(self, order: dict[str, Any]) -> None:
        """Takes an order: path, boot, fence, and what its body needs: a container has one, or argv."""
        self._order = order
        self._folder = RankFolder(order["path"])
        self._fence = Fence(order["fence"])
        self._fenced = False
        self._control = -1
        kind = ContainerBody if "container" in order else Processes
        self._body: Body = kind(order, self._folder)
        self._ended: dict[str, Any] = {}  # how the rank's first process did
        self._stopped = False
        self._deadline_ms: int | None = None
        self._sweep_due = False
        self._commands = b""
        self._save_tries = 0  # left; 0 while no save is asked for

    def run(self, agent: socket.socket, spare: int) -> None:
        """Starts the rank, tells `agent`, and returns when nothing of the rank is left."""
        try:
            self._control = self._folder.claim()
        except FileExistsError:
            return
        self._start()
        with suppress(OSError):  # the agent may have gone; its successor finds started.json
            agent.sendall(STARTED_REPLY)
        agent.close()
        os.close(spare)
        if not self._ended:
            self._wait()
        self._folder.write_exit(self._ended)
        os.close(self._control)  # tells the agent, who need not wait for the disk
        self._folder.sync_exit()

    def _start(self) -> None:
        try:
            self._folder.reserve()
            self._body.prepare()
            if self._fence.is_due():  # it was ordered long ago, or preparing it took too long
                self._body.abandon()
                self._ended = never_started(FENCED)
                return
            self._body.begin()
        except NotStarted as refused:
            self._ended = refused.ended
        except OSError as error:
            self._ended = refusal(self._order["subject"], error).ended
        if self._ended:
            return
        self._folder.write_started(
            {
                "pid": self._body.pid,
                "supervisor_pid": os.getpid(),
                "started_at_ms": now_at_ms(),
                "start_ticks": start_ticks(self._body.pid),
                "boot": self._order["boot"],
            }
        )

    def _wait(self) -> None:
        """Reaps, obeys and enforces deadlines until nothing of the rank is left."""
        poll = select.poll()
        for fd in (self._body.wakeup, self._control, self._fence.fd):
            poll.register(fd, select.POLLIN)
        while self._look():
            if self._sweep_due:
                self._sweep_due = False
                self._body.ask_rest()
            for fd, _ in poll.poll(self._timeout_ms()):
                if fd == self._fence.fd:
                    self._watch_fence()
                elif fd == self._control:
                    self._obey(os.read(fd, MAX_COMMAND_BYTES))
            self._save()
            if self._deadline_ms is not None and _now_ms() >= self._deadline_ms:
                self._body.kill()

    def _timeout_ms(self) -> int | None:
        waits = [SAVE_RETRY_MS] if self._save_tries else []
        if self._deadline_ms is not None:
            waits.append(max(SWEEP_MS, self._deadline_ms - _now_ms()))
        return min(waits, default=None)

    def _look(self) -> bool:
        """Sees what has ended; False when nothing is left."""
        is_left, ended = self._body.look()
        if ended is not None:
            self._first_ended(ended)
        return is_left

    def _first_ended(self, ended: dict[str, Any]) -> None:
        lines = [] if ended["exit_code"] == 0 else self._folder.last_lines()
        self._ended = {**ended, "stopped": self._stopped, "last_lines": lines}
        if self._stopped:
            self._ended.pop("error", None)  # however it went: it was asked to end
        if self._fenced:  # whatever its exit code: it was not finished
            self._ended["error"] = FENCED
        if self._deadline_ms is None:
            self._deadline_ms = _now_ms() + LEFTOVER_GRACE_MS
        self._sweep_due = True

    def _obey(self, data: bytes) -> None:
        *lines, self._commands = (self._commands + data).split(b"\n")
        self._commands = self._commands[-MAX_COMMAND_BYTES:]
        for line in lines:
            word, _, argument = line.partition(b" ")
            if word == b"STOP" and argument.isdigit():
                self._stop(min(int(argument), MAX_GRACE_MS))
            elif word == b"FENCE" and argument.isdigit():
                self._fence.set(min(int(argument), MAX_GRACE_MS))
                self._watch_fence()
            elif word == b"SAVE":
                self._save_tries = SAVE_TRIES

    def _save(self) -> None:
        """Passes an ask for a checkpoint on, if anybody listens already."""
        if not self._save_tries:
            return
        is_over = self._body.save() or self._stopped or self._ended
        self._save_tries = 0 if is_over else self._save_tries - 1

    def _watch_fence(self) -> None:
        if self._fence.is_due():
            self._fenced = self._fenced or not (self._stopped or self._ended)
            self._stop(self._fence.grace_left_ms())

    def _stop(self, grace_ms: int) -> None:
        """Asks once; asked again it only ever shortens the grace."""
        deadline_ms = _now_ms() + grace_ms
        if self._deadline_ms is None or deadline_ms < self._deadline_ms:
            self._deadline_ms = deadline_ms
        if not self._stopped and not self._ended:
            self._stopped = True
            self._body.ask()


def _read_order(agent: socket.socket) -> dict[str, Any] | None:
    """One JSON object after its length; None where the agent died in the middle of it."""
    size = _read_exactly(agent, HEADER.size)
    body = size and _read_exactly(agent, HEADER.unpack(size)[0])
    return json.loads(body) if body else None


def _read_exactly(agent: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = agent.recv(size - len(data))
        if not part:
            return b""
        data += part
    return bytes(data)


def _last_words(order: dict[str, Any] | None) -> None:
    if order is not None:
        import traceback  # heavy, and hardly ever needed

        with open(os.path.join(order["path"], "supervisor.log"), "a") as file:
            traceback.print_exc(file=file)


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
