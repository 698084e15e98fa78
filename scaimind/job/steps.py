"""Progress that reports itself: an iterator over training steps with an estimate of the rest."""

import time
from collections.abc import Callable, Iterator

REPORT_INTERVAL_S = 1.0


class Steps:
    """Iterates `start + 1 ... total`, reporting the fraction done and the seconds left.

    A step counts as done when the next is asked for. At most one report a second, and always one
    for the first and for the last step.
    """

    def __init__(
        self,
        report: Callable[[float, float | None], None],
        total: int,
        *,
        start: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if total < 1 or start < 0:
            raise ValueError(f"total must be 1 or more and start 0 or more: {total}, {start}")
        self.total = total
        self.start = start
        self.done = start
        self._report = report
        self._clock = clock
        self._started_s = clock()

    @property
    def eta_seconds(self) -> float | None:
        """Seconds left at the mean pace so far; None before the first step is done."""
        fresh = self.done - self.start
        if fresh <= 0:
            return None
        return (self._clock() - self._started_s) / fresh * (self.total - self.done)

    def __iter__(self) -> Iterator[int]:
        self._started_s = self._clock()
        next_report_s = self._started_s
        for step in range(self.start + 1, self.total + 1):
            yield step
            self.done = step
            now_s = self._clock()
            if now_s >= next_report_s or step == self.total:
                next_report_s = now_s + REPORT_INTERVAL_S
                self._report(step / self.total, self.eta_seconds)
