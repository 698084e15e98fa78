"""What a supervisor keeps: a rank as processes of this machine. Another kind is a container.

Only light modules of the standard library are imported here: every supervisor carries them.
"""

from __future__ import annotations

import errno
import os
import select
import signal
from typing import Any, Protocol

from node_agent.runtime import kernel
from node_agent.runtime.cgroups import RankGroup
from node_agent.runtime.folder import RankFolder
from node_agent.runtime.proc import catches, descendants, now_at_ms, signal_all

RANK_OOM_SCORE = 500  # the kernel takes a rank before its supervisor
MAX_READ_BYTES = 4096
_IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGUSR1)
_DEFAULT_IN_RANK = (*_IGNORED, signal.SIGCHLD, signal.SIGXFSZ, signal.SIGQUIT, signal.SIGUSR2)


OUT_OF_MEMORY = {
    "category": "HOST_OOM",
    "message": "the memory that the rank may use ran out, and the kernel ended a process of it",
}


class NotStarted(Exception):
    """A rank that did not come to run; `ended` is what exit.json says of it."""

    def __init__(self, category: str, message: str, *, exit_code: int | None = None) -> None:
        """Names a category of the protocol, and says why in words for the user."""
        super().__init__(message)
        self.ended = never_started({"category": category, "message": message}, exit_code)


class Body(Protocol):
    """A rank's processes, as its supervisor handles them."""

    pid: int
    """The first process, as this machine numbers it; 0 before there is one."""
    wakeup: int
    """A descriptor that is readable when `look` has something to see."""

    def prepare(self) -> None:
        """Does all that may take long, so that `begin` takes no time. OSError, NotStarted."""

    def begin(self) -> None:
        """Has the rank's program run. OSError, ValueError, NotStarted."""

    def abandon(self) -> None:
        """Takes back what was prepared: `begin` will not be called."""

    def look(self) -> tuple[bool, dict[str, Any] | None]:
        """Whether anything of the rank is left, and, once, how its first process ended."""

    def ask(self) -> None:
        """SIGTERM to the first process alone."""

    def ask_rest(self) -> None:
        """SIGTERM to whatever the first process left."""

    def save(self) -> bool:
        """SIGUSR1 to those that have a handler for it; whether there was one."""

    def kill(self) -> None:
        """SIGKILL to all of it."""


class Processes:
    """A rank whose processes are the supervisor's descendants, however they shed their parents."""

    def __init__(self, order: dict[str, Any], folder: RankFolder) -> None:
        """Takes of an order: argv, env, cwd, subject (what the program is called), user, group.

        `user` is None, or a user's and a group's number; `group` None, or what `RankGroup` takes.
        """
        self._order = order
        self._group = RankGroup(order["group"]) if order["group"] else None
        self._folder = folder
        self.pid = 0
        self.wakeup, signalled = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _ignore)

    def prepare(self) -> None:
        """Makes the rank's group."""
        if self._group is not None:
            try:
                self._group.make()
            except OSError as error:
                text = f"the node cannot limit its processes: {error.strerror}"
                raise NotStarted("NODE_LOST", text) from None

    def abandon(self) -> None:
        """Removes the group."""
        if self._group is not None:
            self._group.remove()

    def begin(self) -> None:
        """Starts the program in a session of its own."""
        if self._group is not None:
            self._group.enter()
        try:
            self._spawn()
        except (OSError, ValueError) as error:
            raise refusal(self._order["subject"], error) from None
        finally:
            if self._group is not None:
                self._group.leave()
                if not self.pid:
                    self._group.remove()

    def _spawn(self) -> None:
        os.chdir(self._order["cwd"])
        streams = (
            os.open(os.devnull, os.O_RDONLY),
            self._folder.open_to_append("stdout"),
            self._folder.open_to_append("stderr"),
        )
        order = self._order
        if order["user"]:
            self._folder.give("events", order["user"])
            self.pid = start_as(tuple(order["user"]), order, streams=streams)
        else:
            self.pid = _start(order, streams)
        for fd in streams:
            os.close(fd)
        _raise_oom_score(self.pid)

    def look(self) -> tuple[bool, dict[str, Any] | None]:
        """Collects ended children."""
        if select.select([self.wakeup], [], [], 0)[0]:
            os.read(self.wakeup, MAX_READ_BYTES)
        ended = None
        while True:
            try:
                child, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False, self._over(ended)
            if child == 0:
                return True, ended
            if child == self.pid:
                ended = ended_with(os.waitstatus_to_exitcode(status))
                if ended["exit_code"] != 0 and self._group and self._group.oom_kills():
                    ended["error"] = OUT_OF_MEMORY

    def _over(self, ended: dict[str, Any] | None) -> dict[str, Any] | None:
        if self._group is not None:
            self._group.remove()
        return ended

    def ask(self) -> None:
        """The id cannot be somebody else's: only this process reaps it."""
        signal_all([self.pid], signal.SIGTERM)
        signal_all([self.pid], signal.SIGCONT)

    def ask_rest(self) -> None:
        """SIGTERM to all that is left."""
        signal_all(descendants(os.getpid()), signal.SIGTERM)

    def save(self) -> bool:
        """SIGUSR1 to listeners."""
        return save_all(descendants(os.getpid()))

    def kill(self) -> None:
        """SIGKILL to all that is left."""
        signal_all(descendants(os.getpid()), signal.SIGKILL)


def _start(order: dict[str, Any], streams: tuple[int, ...]) -> int:
    argv = order["argv"]
    return os.posix_spawn(
        argv[0],
        argv,
        order["env"],
        file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(streams)],
        setsid=True,
        setsigmask=(),
        setsigdef=_DEFAULT_IN_RANK,
    )


def start_as(user: tuple[int, int], order: dict[str, Any], *, streams: tuple[int, ...]) -> int:
    """Starts the program as another user, who gains nothing by what it executes. OSError."""
    told, tells = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            _become(user, order, streams=streams)
        except BaseException as error:
            os.write(tells, str(getattr(error, "errno", None) or errno.EINVAL).encode())
        os._exit(127)
    os.close(tells)
    failed = os.read(told, 16)
    os.close(told)
    if failed:
        os.waitpid(child, 0)
        raise OSError(int(failed), os.strerror(int(failed)))
    return child


def _become(user: tuple[int, int], order: dict[str, Any], *, streams: tuple[int, ...]) -> None:
    """Turns this process into the rank's program."""
    os.setsid()
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
    for number in _DEFAULT_IN_RANK:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.setgroups([])
    os.setgid(user[1])
    os.setuid(user[0])
    kernel.forbid_privileges()
    os.execve(order["argv"][0], order["argv"], order["env"])


def save_all(processes: list[int]) -> bool:
    """SIGUSR1 to those that have a handler for it; whether there was one."""
    listeners = [pid for pid in processes if catches(pid, signal.SIGUSR1)]
    signal_all(listeners, signal.SIGUSR1)
    return bool(listeners)


def ended_with(code: int) -> dict[str, Any]:
    """How a process ended, in the words of exit.json; a negative code is a signal."""
    return {
        "exit_code": code if code >= 0 else None,
        "signal": -code if code < 0 else None,
        "ended_at_ms": now_at_ms(),
    }


def never_started(error: dict[str, str], exit_code: int | None = None) -> dict[str, Any]:
    """What exit.json says of a rank that did not come to run."""
    return {"exit_code": exit_code, "signal": None, "ended_at_ms": now_at_ms(), "error": error}


def refusal(subject: str, error: OSError | ValueError) -> NotStarted:
    """How a program ended that could not be started, with the shells' exit codes 126 and 127."""
    number = error.errno if isinstance(error, OSError) else None
    reasons = {
        errno.ENOENT: "the program, or the interpreter that its first line names, does not exist",
        errno.ENOEXEC: "not a program: neither a binary of this machine nor a script with #!",
        errno.EACCES: "not executable, or its interpreter is not",
        errno.E2BIG: TOO_LARGE,
    }
    reason = reasons.get(number or 0, f"cannot be started: {error}")
    code = 127 if number == errno.ENOENT else 126
    if number in FULL:
        return NotStarted("STORAGE", reason, exit_code=code)
    return NotStarted("CONFIG", f"{subject}: {reason}", exit_code=code)


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
TOO_LARGE = "its arguments and environment are too large together"


def _raise_oom_score(pid: int) -> None:
    try:
        with open(f"/proc/{pid}/oom_score_adj", "w") as file:
            file.write(str(RANK_OOM_SCORE))
    except OSError:
        pass  # it has ended already, or the machine forbids it; both are harmless


def _ignore(number: int, frame: object) -> None:
    """A handler that only exists so that the signal wakes the poll."""
