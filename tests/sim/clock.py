"""Virtual time: one heap of what happens next, and the clocks of those who live in it."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from random import Random

START_MS = 1_700_000_000_000
SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR


class Loop:
    """Runs acts in the order of their times; ties are broken by the seed."""

    def __init__(self, rng: Random) -> None:
        self.now_ms = START_MS
        self.count = 0
        self._rng = rng
        self._heap: list[tuple[int, float, int, Callable[[], None]]] = []

    def after(self, delay_ms: int, act: Callable[[], None]) -> None:
        """Does `act` in `delay_ms`."""
        self.count += 1
        at_ms = self.now_ms + max(0, delay_ms)
        heapq.heappush(self._heap, (at_ms, self._rng.random(), self.count, act))

    def run(self, until_ms: int, stop: Callable[[], bool] = lambda: False) -> bool:
        """Runs until a time, or until `stop`; answers whether it was stopped."""
        while self._heap and self._heap[0][0] <= until_ms:
            at_ms, _, _, act = heapq.heappop(self._heap)
            self.now_ms = at_ms
            act()
            if stop():
                return True
        self.now_ms = until_ms
        return stop()


class LocalClock:
    """What one machine takes the time to be: an offset, a rate, and now and then a jump."""

    def __init__(self, loop: Loop, *, offset_ms: int = 0, rate: float = 1.0) -> None:
        self.offset_ms = offset_ms
        self._loop = loop
        self._rate = rate

    def elapsed_ms(self) -> float:
        """Time since the world began; never jumps."""
        return (self._loop.now_ms - START_MS) * self._rate

    def wall_ms(self) -> float:
        """The wall clock."""
        return START_MS + self.elapsed_ms() + self.offset_ms

    def world_ms(self, local_ms: float) -> int:
        """How long a local delay takes in the world."""
        return int(local_ms / self._rate)
