"""The supervisor of one rank: starts it, outlives the agent, writes down how it ended.

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

import errno
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
from node_agent.runtime.fence import FENCED, Fence
from node_agent.runtime.folder import RankFolder

STARTED_REPLY = b"S"
HEADER = struct.Struct("!I")

LEFTOVER_GRACE_MS = 2_000  # for what a rank leaves behind when it ends by itself
SWEEP_MS = 50  # between SIGKILLs of processes that keep forking
MAX_COMMAND_BYTES = 4096
SAVE_RETRY_MS = 500
SAVE_TRIES = 1200  # ten minutes; a rank that has no handler by then has none at all
MAX_GRACE_MS = 1_000_000_000
RANK_OOM_SCORE = 500  # the kernel takes a rank before its supervisor

_IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGUSR1)
_DEFAULT_IN_RANK = (*_IGNORED, signal.SIGCHLD, signal.SIGXFSZ, signal.SIGQUIT, signal.SIGUSR2)


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
        """Takes an order: path, argv, env, cwd, subject (what the program is called), boot, fence."""
        self._order = order
        self._folder = RankFolder(order["path"])
        self._fence = Fence(order["fence"])
        self._fenced = False
        self._control = -1
        self._rank = 0
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
        wakeup, signalled = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _ignore)
        self._start()
        with suppress(OSError):  # the agent may have gone; its successor finds started.json
            agent.sendall(STARTED_REPLY)
        agent.close()
        os.close(spare)
        self._wait(wakeup)
        self._folder.write_exit(self._ended)
        os.close(self._control)  # tells the agent, who need not wait for the disk
        self._folder.sync_exit()

    def _start(self) -> None:
        try:
            self._folder.reserve()
            if self._fence.is_due():  # it was ordered long ago, by an agent that was frozen
                self._ended = _never_started(FENCED)
            else:
                self._rank = self._spawn()
        except (OSError, ValueError) as error:
            self._ended = _refusal(self._order["subject"], error)
        if self._ended:
            return
        self._folder.write_started(
            {
                "pid": self._rank,
                "supervisor_pid": os.getpid(),
                "started_at_ms": now_at_ms(),
                "start_ticks": start_ticks(self._rank),
                "boot": self._order["boot"],
            }
        )

    def _spawn(self) -> int:
        os.chdir(self._order["cwd"])
        streams = (
            os.open(os.devnull, os.O_RDONLY),
            self._folder.open_to_append("stdout"),
            self._folder.open_to_append("stderr"),
        )
        argv = self._order["argv"]
        child = os.posix_spawn(
            argv[0],
            argv,
            self._order["env"],
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(streams)],
            setsid=True,
            setsigmask=(),
            setsigdef=_DEFAULT_IN_RANK,
        )
        for fd in streams:
            os.close(fd)
        _raise_oom_score(child)
        return child

    def _wait(self, wakeup: int) -> None:
        """Reaps, obeys and enforces deadlines until no child is left."""
        poll = select.poll()
        poll.register(wakeup, select.POLLIN)
        poll.register(self._control, select.POLLIN)
        poll.register(self._fence.fd, select.POLLIN)
        while self._reap():
            if self._sweep_due:
                self._sweep_due = False
                _signal_all(descendants(os.getpid()), signal.SIGTERM)
            for fd, _ in poll.poll(self._timeout_ms()):
                if fd == self._fence.fd:
                    self._watch_fence()
                    continue
                data = os.read(fd, MAX_COMMAND_BYTES)
                if fd == self._control:
                    self._obey(data)
            self._save()
            if self._deadline_ms is not None and _now_ms() >= self._deadline_ms:
                _signal_all(descendants(os.getpid()), signal.SIGKILL)

    def _timeout_ms(self) -> int | None:
        waits = [SAVE_RETRY_MS] if self._save_tries else []
        if self._deadline_ms is not None:
            waits.append(max(SWEEP_MS, self._deadline_ms - _now_ms()))
        return min(waits, default=None)

    def _reap(self) -> bool:
        """Collects ended children; False when none is left."""
        while True:
            try:
                child, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if child == 0:
                return True
            if child == self._rank:
                self._rank_ended(os.waitstatus_to_exitcode(status))

    def _rank_ended(self, code: int) -> None:
        self._ended = {
            "exit_code": code if code >= 0 else None,
            "signal": -code if code < 0 else None,
            "ended_at_ms": now_at_ms(),
            "stopped": self._stopped,
            "last_line": self._folder.last_line() if code else "",
        }
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
        listeners = [p for p in descendants(os.getpid()) if _catches(p, signal.SIGUSR1)]
        _signal_all(listeners, signal.SIGUSR1)
        is_over = listeners or self._stopped or self._ended
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
            # The id cannot be somebody else's: only this process reaps it.
            _signal_all([self._rank], signal.SIGTERM)
            _signal_all([self._rank], signal.SIGCONT)


def descendants(root: int) -> list[int]:
    """Every living descendant of the process `root`, parents before children."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := stat_fields(int(name))) and fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(int(name))
    found = [root]
    for parent in found:  # grows while it is walked
        found.extend(children.get(parent, ()))
    return found[1:]


def stat_fields(pid: int) -> list[str]:
    """Fields of /proc/<pid>/stat from the third (state) on; empty where there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].decode().split()
    except OSError:
        return []


def start_ticks(pid: int) -> int:
    """When the process started, in clock ticks since the boot; 0 where there is no such process."""
    fields = stat_fields(pid)
    return int(fields[19]) if fields else 0


def _catches(pid: int, number: int) -> bool:
    """Whether the process has a handler: a signal without one would end it."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"SigCgt:"):
                    return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    except OSError:
        pass
    return False


def _signal_all(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError:
            continue  # it has just ended, or has become another user's


def _refusal(subject: str, error: OSError | ValueError) -> dict[str, Any]:
    """How a program ended that could not be started, with the shells' exit codes 126 and 127."""
    number = error.errno if isinstance(error, OSError) else None
    reasons = {
        errno.ENOENT: "the program, or the interpreter that its first line names, does not exist",
        errno.ENOEXEC: "not a program: neither a binary of this machine nor a script with #!",
        errno.EACCES: "not executable, or its interpreter is not",
        errno.E2BIG: "its arguments and environment are too large together",
    }
    full = number in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
    reason = reasons.get(number or 0, f"cannot be started: {error}")
    finding = {
        "category": "STORAGE" if full else "CONFIG",
        "message": reason if full else f"{subject}: {reason}",
    }
    return _never_started(finding, exit_code=127 if number == errno.ENOENT else 126)


def _never_started(error: dict[str, str], exit_code: int | None = None) -> dict[str, Any]:
    return {"exit_code": exit_code, "signal": None, "ended_at_ms": now_at_ms(), "error": error}


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


def _raise_oom_score(pid: int) -> None:
    try:
        with open(f"/proc/{pid}/oom_score_adj", "w") as file:
            file.write(str(RANK_OOM_SCORE))
    except OSError:
        pass  # it has ended already, or the machine forbids it; both are harmless


def _last_words(order: dict[str, Any] | None) -> None:
    if order is not None:
        import traceback  # heavy, and hardly ever needed

        with open(os.path.join(order["path"], "supervisor.log"), "a") as file:
            traceback.print_exc(file=file)


def _ignore(number: int, frame: object) -> None:
    """A handler that only exists so that the signal wakes the poll."""


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def now_at_ms() -> int:
    """Milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000
