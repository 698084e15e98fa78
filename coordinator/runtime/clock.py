"""The only place of the coordinator that reads the time for decisions."""

from __future__ import annotations

import time
from collections.abc import Callable

SLEW_RATIO = 0.1  # how much faster or slower than real time it may go to meet the wall clock


def _wall_ms() -> float:
    return time.time_ns() / 1e6


def _elapsed_ms() -> float:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) / 1e6  # goes on while a laptop sleeps


class Clock:
    """UTC in integer milliseconds that never goes back and never jumps.

    A wall clock that is set forward by a day would otherwise end every job with a time limit, and one
    that is set back would stop time. The clock follows real elapsed time from where the wall clock stood
    at the start, and meets a wall clock that was set since by going up to a tenth faster or slower.
    """

    def __init__(
        self,
        wall_ms: Callable[[], float] = _wall_ms,
        elapsed_ms: Callable[[], float] = _elapsed_ms,
    ) -> None:
        self._wall_ms = wall_ms
        self._elapsed_ms = elapsed_ms
        self._now_ms = wall_ms()
        self._read_at_ms = elapsed_ms()

    def now_ms(self) -> int:
        """The present."""
        read_at_ms = self._elapsed_ms()
        passed_ms = max(0.0, read_at_ms - self._read_at_ms)
        self._read_at_ms = read_at_ms
        wanted_ms = self._wall_ms() - self._now_ms
        least_ms, most_ms = passed_ms * (1 - SLEW_RATIO), passed_ms * (1 + SLEW_RATIO)
        self._now_ms += min(max(wanted_ms, least_ms), most_ms)
        return int(self._now_ms)
