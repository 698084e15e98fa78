"""How forecasts have compared with what came: what makes "nine times in ten" true.

A forecast is one number, made with the likeliest durations. What is said of it comes from the quotients of
past waits and their forecasts. What is learnt of those is a hazard, as it is of durations
(core/estimate.py): of the forecasts that came to a quotient, which part started in the next step. So one
that is waited for counts for as far as it has come (the estimator of Kaplan and Meier), and a queue that
slows down is learnt of before it is over. Forecasts of one magnitude lean on those of all, and these on
what holds where nothing is known: as many start before as after the time that was foretold, and of those
that are late half wait twice as long.

Tomorrow is not as yesterday was, so which part may be late is learnt as well: it becomes less with each
job that starts later than it was told, and more with the others, in the proportion of nine to one
(adaptive conformal inference: Gibbs, Candes 2021). One that still waits is late at the moment at which it
was to have started, not when it starts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import accumulate

OPEN_MAX = 1_000  # forecasts that are waited for
KEPT = 100.0  # outcomes of a magnitude; beyond them all count half
LEANS_ON = 20.0  # outcomes that are borrowed from what is known of all, in each step
LEAST_MS = 1_000
STEP = math.log(1.25)  # steps of quotients, by their logarithm
LOWEST = -12  # the first one ends there
STEPS = 40  # up to four hundred times the forecast
MAGNITUDE_BITS = 4  # forecasts within sixteen times of each other are of one magnitude
MISSES = 0.1  # part of the jobs that may start later than they were told
PACE = 0.05  # by which one that is not late moves the level; one that is, nine times as much
LEVELS = 1.0  # how far, on the scale of logits


def _not_started(quotient: float) -> float:
    """Which part has not started by then, where nothing is known."""
    return 1.0 - quotient / 2 if quotient < 1.0 else 0.5 / quotient


BOUNDS = tuple(math.exp(STEP * (LOWEST + step)) for step in range(STEPS))
UNKNOWN = tuple(
    1.0 - _not_started(high) / _not_started(low)
    for low, high in zip((0.0, *BOUNDS), BOUNDS, strict=False)
)


@dataclass(slots=True)
class _Open:
    """A forecast that is waited for."""

    told_ms: int
    wait_ms: int
    late_ms: int  # from when on it is late
    missed: bool = False

    def step(self, now_ms: int) -> int:
        """The step of the quotient to which it has come."""
        return _step(now_ms - self.told_ms, self.wait_ms)


@dataclass(slots=True)
class _Outcomes:
    """How many came to each step of the quotient, and started in it."""

    reached: list[float] = field(default_factory=lambda: [0.0] * STEPS)
    started: list[float] = field(default_factory=lambda: [0.0] * STEPS)

    def add(self, step: int) -> None:
        """One more has started."""
        if self.reached[0] >= KEPT:
            self.reached = [count / 2 for count in self.reached]
            self.started = [count / 2 for count in self.started]
        for one in range(step + 1):
            self.reached[one] += 1
        self.started[step] += 1

    def hazards(self, waiting: list[int], wider: tuple[float, ...]) -> tuple[float, ...]:
        """The part that starts in each step, leaning on what is known of more; `waiting` tells how many
        others have come through each step."""
        rows = zip(self.reached, self.started, waiting, wider, strict=True)
        return tuple([(e + LEANS_ON * h) / (r + w + LEANS_ON) for r, e, w, h in rows])


class Calibration:
    """Forecasts of single jobs and what came of them, by magnitude and all together."""

    def __init__(self) -> None:
        self._all = _Outcomes()
        self._of: dict[int, _Outcomes] = {}
        self._open: dict[str, _Open] = {}  # by job
        self._level = 0.0  # added to the logit of what is not to be late
        self._memo: dict[int, tuple[float, float]] = {}  # by magnitude, at one time
        self._memo_ms = -1
        self._swept_ms = -1

    def tell(self, job_id: str, now_ms: int, *, wait_ms: int) -> None:
        """A job was forecast to start so much later; the first forecast of a job is the one that counts."""
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
        step = told.step(now_ms)
        self._all.add(step)
        self._of.setdefault(_magnitude(told.wait_ms), _Outcomes()).add(step)

    def forget(self, job_id: str) -> None:
        """A job will not start, or not for having been waited for."""
        if self._open.pop(job_id, None):
            self._memo_ms = -1

    def range_ms(self, wait_ms: int, now_ms: int) -> tuple[int, int]:
        """(the wait that is as likely longer as shorter, the one that is exceeded once in ten times)."""
        if self._memo_ms != now_ms:
            self._memo_ms = now_ms
            self._memo = self._factors(now_ms)
        magnitude = _magnitude(wait_ms)
        median, late = self._memo.get(magnitude) or self._memo[-1]
        return round(wait_ms * median), round(wait_ms * late)

    def _sweep(self, now_ms: int) -> None:
        """Counts who has not started by the time that was told, once for all forecasts of a moment."""
        if now_ms == self._swept_ms:
            return
        self._swept_ms = now_ms
        for one in self._open.values():
            if not one.missed and now_ms > one.late_ms:
                one.missed = True
                self._adapt(missed=True)

    def _adapt(self, *, missed: bool) -> None:
        moved = self._level + PACE * (missed / MISSES - 1.0)
        self._level = min(LEVELS, max(-LEVELS, moved))

    def _factors(self, now_ms: int) -> dict[int, tuple[float, float]]:
        """By what a forecast of each magnitude is multiplied; of others under -1."""
        at: dict[int, list[int]] = {-1: [0] * STEPS}  # how many have come to each step
        for told in self._open.values():
            step = told.step(now_ms)
            for magnitude in (-1, _magnitude(told.wait_ms)):
                at.setdefault(magnitude, [0] * STEPS)[step] += 1
        through = {magnitude: _through(counts) for magnitude, counts in at.items()}
        of_all = self._all.hazards(through[-1], UNKNOWN)
        late = 1.0 - MISSES / (MISSES + (1.0 - MISSES) * math.exp(self._level))
        found = {-1: (_quantile(of_all, 0.5), _quantile(of_all, late))}
        for magnitude in self._of.keys() | through.keys() - {-1}:
            known = self._of.get(magnitude) or _Outcomes()
            hazards = known.hazards(through.get(magnitude, [0] * STEPS), of_all)
            found[magnitude] = _quantile(hazards, 0.5), _quantile(hazards, late)
        return found


def _through(counts: list[int]) -> list[int]:
    """How many have come beyond each step."""
    beyond = [*accumulate(reversed(counts))][::-1]
    return [*beyond[1:], 0]


def _step(actual_ms: int, forecast_ms: int) -> int:
    quotient = max(actual_ms, LEAST_MS) / max(forecast_ms, LEAST_MS)
    return min(STEPS - 1, max(0, math.ceil(math.log(quotient) / STEP - 1e-9) - LOWEST))


def _quantile(hazards: tuple[float, ...], part: float) -> float:
    """The quotient by which such a part has started; beyond the last step as if nothing were known."""
    left, low = 1.0, 0.0
    for hazard, high in zip(hazards, BOUNDS, strict=True):
        after = left * (1.0 - hazard)
        if after <= 1.0 - part:
            return low + (high - low) * (left - (1.0 - part)) / (left - after)
        left, low = after, high
    return low * left / (1.0 - part)


def _magnitude(forecast_ms: int) -> int:
    return max(forecast_ms, LEAST_MS).bit_length() // MAGNITUDE_BITS
