"""Runs a function on a copy of this process, and gives back what it answers."""

from __future__ import annotations

import os
import pickle
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

CHUNK_BYTES = 1 << 16
MOMENT_S = 0.001  # a timer of 0 would never end anything


class Apart:
    """One function that runs in a forked child; its answer comes through a pipe."""

    def __init__(self, work: Callable[[], Any], *, limit_s: float) -> None:
        reading, writing = os.pipe()
        self.fd = reading
        self._read: list[bytes] = []
        self._pid = os.fork()
        if not self._pid:
            os.close(reading)
            live(lambda: _answer(work, writing, limit_s))
        os.close(writing)

    def take(self) -> bool:
        """Reads what is there; answers whether that was all."""
        part = os.read(self.fd, CHUNK_BYTES)
        self._read.append(part)
        return not part

    def end(self) -> Any:
        """What the function answered; None where it failed or took too long."""
        os.close(self.fd)
        os.waitpid(self._pid, 0)
        body = b"".join(self._read)
        try:
            return pickle.loads(body) if body else None
        except (pickle.UnpicklingError, EOFError):  # it was stopped while it wrote
            return None


def apart(works: Sequence[Callable[[], Any]], *, at_once: int, limit_s: float) -> list[Any]:
    """Runs functions on copies, some at once; their answers in order.

    `limit_s` is for all together: those that it leaves no time for have no answer.
    """
    end_s = time.monotonic() + limit_s
    answers: list[Any] = [None] * len(works)
    waiting = list(enumerate(works))[::-1]
    with selectors.DefaultSelector() as selector:
        while True:
            while waiting and len(selector.get_map()) < at_once and time.monotonic() < end_s:
                index, work = waiting.pop()
                one = Apart(work, limit_s=max(MOMENT_S, end_s - time.monotonic()))
                selector.register(one.fd, selectors.EVENT_READ, (index, one))
            if not selector.get_map():
                return answers
            for key, _ in selector.select():
                index, one = key.data
                if one.take():
                    selector.unregister(one.fd)
                    answers[index] = one.end()


def live(work: Callable[[], None]) -> NoReturn:
    """The life of a forked child; what it stumbles over is told, and nothing of its parent's is cleaned up."""
    status = 1
    try:
        work()
        status = 0
    except BrokenPipeError:
        pass  # nobody wants to know any more
    except Exception:
        traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(status)


def _answer(work: Callable[[], Any], writing: int, limit_s: float) -> None:
    """Writes what the function answers."""
    signal.setitimer(signal.ITIMER_REAL, limit_s)  # SIGALRM ends it
    body = pickle.dumps(work(), protocol=pickle.HIGHEST_PROTOCOL)
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(body)
