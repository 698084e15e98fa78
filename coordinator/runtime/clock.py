"""The only place of the coordinator that reads the time for decisions."""

from __future__ import annotations

import time


class Clock:
    """UTC in integer milliseconds that never goes back, whatever is done to the wall clock."""

    def __init__(self) -> None:
        self._latest_ms = 0

    def now_ms(self) -> int:
        """The present, or the latest present there was."""
        self._latest_ms = max(self._latest_ms, time.time_ns() // 1_000_000)
        return self._latest_ms

    def elapsed_s(self) -> float:
        """Seconds since some moment; for measuring."""
        return time.perf_counter()
