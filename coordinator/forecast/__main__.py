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
from coordinator.forecast.replica import Replica
from coordinator.forecast.terms import (
    LENGTH,
    Answer,
    Ask,
    Empty,
    Explain,
    Feed,
    Foresee,
    Foreseen,
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

    def run(self) -> None:
        """Works until stdin ends."""
        while True:
            for key, _ in self._selector.select():
                if key.data is not None:
                    ask, one = key.data
                    self._hear_copy(ask, one)
                elif not self._hear():
                    return
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
            case Feed():
                assert self._replica is not None
                self._replica.feed(message.events)
            case Ask():
                self._asked.append(message)

    def _begin(self) -> None:
        while self._asked and self._running < AT_ONCE:
            ask = self._asked.popleft()
            assert self._replica is not None
            self._replica.settle()
            work: Callable[[], Found | None]
            match ask.question:
                case Explain() as question:
                    work = partial(self._replica.explain, question)
                case Empty() as question:
                    work = partial(self._replica.empty, question)
                case Simulate() as question:
                    work = partial(self._replica.simulate, question)
                case Foresee(now_ms=now_ms):
                    work = partial(self._replica.foresee, now_ms)
            gc.freeze()  # what is old stays shared with the copies
            one = Apart(work, limit_s=LIMIT_S)
            self._selector.register(one.fd, selectors.EVENT_READ, (ask, one))
            self._running += 1

    def _hear_copy(self, ask: Ask, one: Apart) -> None:
        if not one.take():
            return
        self._selector.unregister(one.fd)
        self._running -= 1
        found = one.end()
        if isinstance(found, Foreseen) and self._replica is not None:
            found = self._replica.note(found, ask.question.now_ms)
        sys.stdout.buffer.write(frame(Answer(ask.number, found)))
        sys.stdout.buffer.flush()


def main() -> None:
    """Serves until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's ^C is the coordinator's to act on
    with suppress(OSError):
        os.nice(NICE)
    Forecaster().run()


if __name__ == "__main__":
    main()
