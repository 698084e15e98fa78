"""One look ahead from one moment, kept: when all that wait will start, and when a changed job would.

Theory of operation. A process is forked that makes a Forecast of the replica and stays as it is: the
keeper. A fork of it goes on to where the forecast ends, and tells on the way who starts, and with whose
ends. Whoever asks about a changed job has the keeper fork again: the fork lets the job wait as the changed
one, and goes on until that one starts. So what all questions have in common is done once.

All of them tell by one socket, in packets. They end when the other end of it is closed.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice

from coordinator.core.core import Core
from coordinator.core.explain import Change, alter
from coordinator.core.forecast import Forecast, Limits
from coordinator.core.records import JobStatus
from coordinator.forecast.apart import live

ALL = Limits(steps=5_000)  # for all that wait
ALL_S = 10.0
CHANGED = Limits(steps=150)  # for one changed job
CHANGED_S = 1.0  # of processor time, as above
NICER = 2  # than who answers
TELL_S = 0.1  # between two packets of starts
PACKET_BYTES = 1 << 17
TOLD_AT_ONCE = 400  # starts in a packet
MOST_AFTER = 8

_closed: list[int] = []  # keepers that end
_asking: set[int] = set()  # descriptors of those who ask; a keeper ends once nobody has its own
Start = tuple[int, tuple[str, ...]]  # when, and the jobs with whose ends


@dataclass(frozen=True, slots=True)
class _Wish:
    number: int
    change: Change


@dataclass(frozen=True, slots=True)
class _Came:
    """What a wish came to; None where that was not to be seen in time."""

    number: int
    start: Start | None


@dataclass(frozen=True, slots=True)
class _Starts:
    """Jobs that start, in this order; with the last of them what it took in processor time."""

    starts: dict[str, Start]
    cost_s: float | None = None


class Ahead:
    """The end of the socket that asks. Must be closed."""

    def __init__(self, core: Core, now_ms: int, *, limits: Limits = ALL) -> None:
        _closed[:] = [pid for pid in _closed if not reap(pid)]
        self.now_ms = now_ms
        self.starts: dict[str, Start] = {}
        self.cost_s: float | None = None  # None: it goes on still
        self.gone = False
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        self.fd = ours.fileno()
        _asking.add(self.fd)
        self._pid = os.fork()
        if not self._pid:
            live(lambda: _keep(core, now_ms, sock=theirs, limits=limits))
        theirs.close()
        ours.setblocking(False)

    @property
    def is_done(self) -> bool:
        """Whether nothing more comes of it but what changed jobs come to."""
        return self.gone or self.cost_s is not None

    def ask(self, number: int, change: Change) -> None:
        """Asks when a changed job would start; `take` answers with the number."""
        with suppress(OSError):
            self._socket.send(pickle.dumps(_Wish(number, change)))

    def take(self) -> dict[int, Start | None]:
        """Takes what was told; answers what was asked, by number."""
        found: dict[int, Start | None] = {}
        while True:
            try:
                packet = self._socket.recv(PACKET_BYTES)
            except BlockingIOError:
                return found
            except OSError:
                packet = b""
            if not packet:
                self.gone = True
                return found
            told: _Came | _Starts = pickle.loads(packet)
            match told:
                case _Came():
                    found[told.number] = told.start
                case _Starts():
                    self.starts.update(told.starts)
                    self.cost_s = told.cost_s

    def close(self) -> None:
        """Ends the processes."""
        _asking.discard(self.fd)
        self._socket.close()
        _closed.append(self._pid)


def reap(pid: int) -> bool:
    """Lets go of children that have ended: of one, or with -1 of all; whether there was one."""
    found = False
    with suppress(ChildProcessError):
        while os.waitpid(pid, os.WNOHANG)[0]:
            found = True
    return found


class _Late(Exception):
    """It has had its processor time."""


def _keep(core: Core, now_ms: int, *, sock: socket.socket, limits: Limits) -> None:
    """The keeper's life. It lets go of what would keep others from ending."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(nothing, fd)
    for fd in _asking:
        os.close(fd)
    began_s = time.process_time()
    forecast = Forecast(core, now_ms)
    gc.freeze()  # what is old stays shared with the forks
    cost_s = time.process_time() - began_s
    if not os.fork():
        os.nice(NICER)
        _go_on(_Teller(sock, forecast, cost_s=cost_s), limits=limits)
        return
    while packet := sock.recv(PACKET_BYTES):
        wish: _Wish = pickle.loads(packet)
        if not os.fork():
            os.nice(NICER)
            sock.send(pickle.dumps(_Came(wish.number, _start_of(forecast, wish.change))))
            return
        reap(-1)


@dataclass(slots=True)
class _Teller:
    """Tells who starts, now and then."""

    sock: socket.socket
    forecast: Forecast
    cost_s: float
    told: int = 0
    starts: dict[str, Start] = field(default_factory=dict)
    due_s: float = 0.0

    def note(self) -> bool:
        """Takes down who has started in the newest step; for the forecast to go on."""
        forecast = self.forecast
        fresh = len(forecast.starts_ms) - self.told
        for job_id in list(islice(reversed(forecast.starts_ms), fresh))[::-1]:
            after = forecast.after(job_id)[:MOST_AFTER]
            self.starts[job_id] = forecast.starts_ms[job_id], after
        self.told += fresh
        if time.monotonic() >= self.due_s or len(self.starts) >= TOLD_AT_ONCE:
            self.tell()
        return False

    def tell(self, *, is_last: bool = False) -> None:
        """Sends what is new."""
        self.due_s = time.monotonic() + TELL_S
        left, self.starts = list(self.starts.items()), {}
        while left or is_last:
            part, left = dict(left[:TOLD_AT_ONCE]), left[TOLD_AT_ONCE:]
            done = is_last and not left
            spent_s = self.cost_s + time.process_time() if done else None
            self.sock.send(pickle.dumps(_Starts(part, spent_s)))
            if done:
                return


def _go_on(teller: _Teller, *, limits: Limits) -> None:
    """Looks at all that wait, for as long as it may."""
    with _within(ALL_S):
        teller.forecast.run(limits=limits, until=teller.note)
        teller.note()
    teller.tell(is_last=True)


def _start_of(forecast: Forecast, change: Change) -> Start | None:
    """When a changed job starts; None where that is not to be seen in time."""
    job, state = change.job, forecast.core.state
    before = state.jobs.get(job.job_id)
    if before is not None and before.status not in (JobStatus.QUEUED, JobStatus.PENDING):
        return None  # it ran when this look ahead began
    start: Start | None = None
    with _within(CHANGED_S):
        alter(state, change, now_ms=forecast.now_ms)
        at_ms = forecast.run(limits=CHANGED, wanted=job.job_id)
        if at_ms is not None:
            start = at_ms, forecast.after(job.job_id)[:MOST_AFTER]
    return start


@contextmanager
def _within(limit_s: float) -> Iterator[None]:
    """Ends what it holds after so much processor time; what that used up is not to be used again."""
    is_late = False

    def late(*_: object) -> None:
        nonlocal is_late
        is_late = True
        raise _Late

    signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, limit_s)
    try:
        yield
        signal.setitimer(signal.ITIMER_PROF, 0.0)
    except Exception:  # what was cut short may stumble over itself on its way out
        if not is_late:
            raise
