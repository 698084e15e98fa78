"""How forecasts have compared with what came: what makes "nine times in ten" true.

A forecast is one number, made with the likeliest durations. What is said of it comes from the quotients of
past waits and their forecasts, of the same magnitude (powers of four) where enough are known: their
median and their ninth decile (split conformal prediction: Vovk, Gammerman, Shafer 2005). Before that, a
wide margin stands in.

Tomorrow is not as yesterday was, so which decile is the ninth in ten is learnt as well: it rises with
each job that starts later than it was told, and falls with the others, in the proportion of one to nine
(adaptive conformal inference: Gibbs, Candes 2021). Above the highest quotient that is known it goes on.

A job that still waits though it was to have started says something too: its quotient is at least what it
has come to. Without those, a queue that slows down would be learnt of only when it is over.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

KEPT = 200  # per magnitude; older ones say less about today
OPEN_MAX = 1_000  # forecasts that are waited for
ENOUGH = 20
LEAST_MS = 1_000
FIRST_MEDIAN, FIRST_LATE = 1.0, 2.5
MISSES = 0.1  # part of the jobs that may start later than they were told
PACE = 0.05  # by which one that is late moves the level
LEVELS = (0.5, 2.0)  # 1 is the highest quotient that is known, 2 is eight times it


@dataclass(slots=True)
class _Open:
    """A forecast that is waited for."""

    told_ms: int
    wait_ms: int
    late_ms: int  # from when on it is late
    missed: bool = False


class _Quotients:
    """The newest ones, and the same in order."""

    def __init__(self) -> None:
        self.ordered: list[float] = []
        self._kept: deque[float] = deque()

    def add(self, quotient: float) -> None:
        """Takes one more; the oldest goes when there are too many."""
        self._kept.append(quotient)
        insort(self.ordered, quotient)
        if len(self._kept) > KEPT:
            del self.ordered[bisect_left(self.ordered, self._kept.popleft())]


class Calibration:
    """Forecasts of single jobs and what came of them, by magnitude and all together."""

    def __init__(self) -> None:
        self._all = _Quotients()
        self._of: dict[int, _Quotients] = {}
        self._open: dict[str, _Open] = {}  # by job
        self._level = 1.0 - MISSES
        self._memo: dict[int, tuple[float, float]] = {}  # by magnitude, at one time
        self._memo_ms = -1
        self._swept_ms = -1

    def tell(self, job_id: str, now_ms: int, *, wait_ms: int) -> None:
        """A job was forecast to start so much later; the first forecast of a job is the one that counts."""
        if now_ms != self._swept_ms:
            self._sweep(now_ms)
        if len(self._open) < OPEN_MAX and job_id not in self._open:
            late_ms = now_ms + self.range_ms(wait_ms, now_ms)[1]
            self._open[job_id] = _Open(now_ms, wait_ms, late_ms)

    def start(self, job_id: str, now_ms: int) -> None:
        """A job has started."""
        told = self._open.pop(job_id, None)
        if told is None:
            return
        self._memo_ms = -1
        if not told.missed:
            self._adapt(missed=now_ms > told.late_ms)
        quotient = _quotient(now_ms - told.told_ms, told.wait_ms)
        self._all.add(quotient)
        self._of.setdefault(_magnitude(told.wait_ms), _Quotients()).add(quotient)

    def forget(self, job_id: str) -> None:
        """A job will not start, or not for having been waited for."""
        if self._open.pop(job_id, None):
            self._memo_ms = -1

    def range_ms(self, wait_ms: int, now_ms: int) -> tuple[int, int]:
        """(the wait that is as likely longer as shorter, the one that is exceeded once in ten times)."""
        if self._memo_ms != now_ms:
            self._memo_ms = now_ms
            self._memo.clear()
        magnitude = _magnitude(wait_ms)
        factors = self._memo.get(magnitude)
        if factors is None:
            factors = self._memo[magnitude] = self._factors(magnitude, now_ms)
        return round(wait_ms * factors[0]), round(wait_ms * factors[1])

    def _sweep(self, now_ms: int) -> None:
        """Counts who has not started by the time that was told, once for all forecasts of a moment."""
        self._swept_ms = now_ms
        for one in self._open.values():
            if not one.missed and now_ms > one.late_ms:
                one.missed = True
                self._adapt(missed=True)

    def _adapt(self, *, missed: bool) -> None:
        moved = self._level + PACE * (missed - MISSES)
        self._level = min(LEVELS[1], max(LEVELS[0], moved))

    def _factors(self, magnitude: int, now_ms: int) -> tuple[float, float]:
        known = self._known(magnitude, now_ms)
        if len(known) < ENOUGH:
            return FIRST_MEDIAN, FIRST_LATE
        beyond = 8.0 ** max(0.0, self._level - 1.0)
        return _quantile(known, 0.5), beyond * _quantile(known, min(1.0, self._level))

    def _known(self, magnitude: int, now_ms: int) -> Sequence[float]:
        late = [
            (_magnitude(one.wait_ms), quotient)
            for one in self._open.values()
            if (quotient := _quotient(now_ms - one.told_ms, one.wait_ms)) > 1
        ]
        own = list(self._of[magnitude].ordered) if magnitude in self._of else []
        own += [quotient for one, quotient in late if one == magnitude]
        if len(own) < ENOUGH:
            own = self._all.ordered + [quotient for _, quotient in late]
        return sorted(own)


def _quotient(actual_ms: int, forecast_ms: int) -> float:
    return max(actual_ms, LEAST_MS) / max(forecast_ms, LEAST_MS)


def _quantile(ordered: Sequence[float], part: float) -> float:
    # the next higher one: (n + 1) x part, as split conformal prediction has it
    return ordered[min(len(ordered) - 1, int((len(ordered) + 1) * part))]


def _magnitude(forecast_ms: int) -> int:
    return max(forecast_ms, LEAST_MS).bit_length() // 2
