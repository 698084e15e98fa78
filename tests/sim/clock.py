"""Virtual time: one heap of what happens next, and the clocks of those who live in it."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
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
        self._tie = rng.random
        self._heap: list[tuple[int, float, int, Callable[[], None]]] = []

    def after(self, delay_ms: int, act: Callable[[], None]) -> None:
        """Does `act` in `delay_ms`."""
        self.count += 1
        at_ms = self.now_ms + delay_ms if delay_ms > 0 else self.now_ms
        heappush(self._heap, (at_ms, self._tie(), self.count, act))

    def run(self, until_ms: int, stop: Callable[[], bool] | None = None) -> bool:
        """Runs until a time, or until `stop`; answers whether it was stopped."""
        heap = self._heap
        while heap and heap[0][0] <= until_ms:
            self.now_ms, _, _, act = heappop(heap)
            act()
            if stop is not None and stop():
                return True
        self.now_ms = until_ms
        return stop is not None and stop()


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
