"""The forecaster's process: messages on stdin, answers on stdout, each with its length first.

One loop waits for both: what the coordinator says, and what the copies answer that it has forked. It ends
when its stdin does, and on whatever it does not understand: the coordinator starts another.
"""

from __future__ import annotations

import gc
import os
import pickle
import selectors
import signal
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from coordinator.forecast.apart import Apart
from coordinator.forecast.explainer import Explainer
from coordinator.forecast.replica import Replica
from coordinator.forecast.terms import (
    LENGTH,
    Answer,
    Ask,
    Empty,
    Explain,
    Feed,
    Foresee,
    Found,
    Load,
    Message,
    Simulate,
    frame,
)

AT_ONCE = 2
LIMIT_S = 20.0
NICE = 10  # decisions and dispatch come first
CHUNK_BYTES = 1 << 20


class Forecaster:
    """Reads, follows, forks, answers."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._selector.register(0, selectors.EVENT_READ, None)
        self._buffer = bytearray()
        self._replica: Replica | None = None
        self._asked: deque[Ask] = deque()
        self._running = 0
        self._explainer = Explainer(self._answer, self._watch)

    def run(self) -> None:
        """Works until stdin ends."""
        while True:
            for key, _ in self._selector.select(self._explainer.due_s()):
                if key.data is not None:
                    key.data()
                elif not self._hear():
                    return
            if self._replica is not None:
                self._explainer.hear(self._replica)
            self._begin()

    def _hear(self) -> bool:
        part = os.read(0, CHUNK_BYTES)
        self._buffer += part
        while len(self._buffer) >= LENGTH.size:
            end = LENGTH.size + LENGTH.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                break
            self._take(pickle.loads(memoryview(self._buffer)[LENGTH.size : end].tobytes()))
            del self._buffer[:end]
        return bool(part)

    def _take(self, message: Message) -> None:
        match message:
            case Load():
                if message.settings is not None:
                    self._replica = Replica(message.settings)
                assert self._replica is not None
                self._replica.core.load(message.records)
                self._explainer.changed()
            case Feed():
                assert self._replica is not None
                self._replica.feed(message.events)
                self._explainer.changed()
            case Ask():
                self._asked.append(message)

    def _begin(self) -> None:
        while self._asked and self._running < AT_ONCE:
            ask, replica = self._asked.popleft(), self._replica
            assert replica is not None
            replica.settle()
            gc.freeze()  # what is old stays shared with the copies
            match ask.question:
                case Explain() as question:
                    self._explainer.explain(replica, ask.number, question=question)
                case Foresee() as question:
                    self._explainer.foresee(replica, ask.number, question=question)
                case Empty() as question:
                    self._apart(ask.number, partial(replica.empty, question))
                case Simulate() as question:
                    self._apart(ask.number, partial(replica.simulate, question))

    def _apart(self, number: int, work: Callable[[], Found | None]) -> None:
        one = Apart(work, limit_s=LIMIT_S)
        hear = partial(self._hear_copy, number, one)
        self._selector.register(one.fd, selectors.EVENT_READ, hear)
        self._running += 1

    def _hear_copy(self, number: int, one: Apart) -> None:
        if one.take():
            self._selector.unregister(one.fd)
            self._running -= 1
            self._answer(number, one.end())

    def _watch(self, fd: int, on: bool) -> None:
        if on:
            self._selector.register(fd, selectors.EVENT_READ, lambda: None)  # hear takes it
        else:
            self._selector.unregister(fd)

    def _answer(self, number: int, found: Found | None) -> None:
        sys.stdout.buffer.write(frame(Answer(number, found)))
        sys.stdout.buffer.flush()


def main() -> None:
    """Serves until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's ^C is the coordinator's to act on
    with suppress(OSError):
        os.nice(NICE)
    Forecaster().run()


if __name__ == "__main__":
    main()
