"""How forecasts have compared with what came: what makes "nine times in ten" true.

A forecast is one number, made with the likeliest durations. What is said of it comes from the quotients of
past waits and their forecasts. What is learnt of those is a hazard, as it is of durations
(core/estimate.py): of the forecasts that came to a quotient, which part started in the next step. A step
counts when it is left, by a start or by waiting on. So one that is waited for counts for as far as it has
come (the estimator of Kaplan and Meier), a queue that slows down is learnt of before it is over, and what was
learnt long ago is forgotten, of those that wait still as of the others. Forecasts of one magnitude lean on
those of all, and these on what holds where nothing is known: as many start before as after the time that
was foretold, and of those that are late half wait twice as long.

Who waits long is forecast again and again, and is asked about at any time of its wait. So of every look
ahead some forecasts count, any of them, also of jobs of which others do; but looks count only so often that
there are not too many to wait for.

Tomorrow is not as yesterday was, so which part may be late is learnt as well: it becomes less with each
job that starts later than it was told, and more with the others, in the proportion of nine to one
(adaptive conformal inference: Gibbs, Candes 2021). One that still waits is late at the moment at which it
was to have started, not when it starts. What comes now is about what was told long ago, and much of it may
come, all to one effect, before what is told now shows its own. So there is a bound: it is never told less
than what is as likely too short as too long, and as far beyond nine in ten at most.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import count
from random import Random

OPEN_MAX = 1_000  # forecasts that are waited for
OF_A_LOOK = 20  # forecasts that count
REST = 30  # a look counts once this part of the mean wait foretold by the last that did is over
KEPT = 100.0  # forecasts of a magnitude; beyond them all that is known counts half
LEANS_ON = 20.0  # outcomes that are borrowed from what is known of all, in each step
LEAST_MS = 1_000
RATIO = 1.25  # of the ends of two steps of quotients
LOWEST, HIGHEST = -12, 27  # of these ends, as powers: up to four hundred times the forecast
NEAR = (1.005, 1.01, 1.02, 1.04, 1.08, 1.15)  # steps are finer where forecasts are nearly right
NEVER_MS = 1 << 62
MAGNITUDE_BITS = 4  # forecasts within sixteen times of each other are of one magnitude
MISSES = 0.1  # part of the jobs that may start later than they were told
PACE = 0.03  # by which one that is not late moves the level; one that is, nine times as much
LEVELS = math.log(1.0 / MISSES - 1.0)  # how far, on the scale of logits: to the median


def _not_started(quotient: float) -> float:
    """Which part has not started by then, where nothing is known."""
    return 1.0 - quotient / 2 if quotient < 1.0 else 0.5 / quotient


BOUNDS = (
    *(RATIO**power for power in range(LOWEST, 0)),
    *(1 / near for near in reversed(NEAR)),
    1.0,
    *NEAR,
    *(RATIO**power for power in range(1, HIGHEST + 1)),
)
STEPS = len(BOUNDS)
UNKNOWN = tuple(
    1.0 - _not_started(high) / _not_started(low)
    for low, high in zip((0.0, *BOUNDS), BOUNDS, strict=False)
)


@dataclass(slots=True)
class _Open:
    """A forecast that is waited for."""

    job_id: str
    told_ms: int
    wait_ms: int
    late_ms: int  # from then on it is late
    step: int = 0  # of the quotient, to which it has come
    missed: bool = False

    def leaves_ms(self) -> int:
        """Until when it is in its step; the last one is never left by waiting on."""
        if self.step == STEPS - 1:
            return NEVER_MS
        return self.told_ms + int(BOUNDS[self.step] * max(self.wait_ms, LEAST_MS))

    def next_ms(self) -> int:
        """Until when nothing is to be said of it."""
        leaves_ms = self.leaves_ms()
        return leaves_ms if self.missed else min(self.late_ms, leaves_ms)


@dataclass(slots=True)
class _Outcomes:
    """How many left each step of the quotient, and which of them by a start."""

    left: list[float] = field(default_factory=lambda: [0.0] * STEPS)
    started: list[float] = field(default_factory=lambda: [0.0] * STEPS)

    def leave(self, step: int, *, started: bool) -> None:
        """One more has left a step."""
        if self.left[0] >= KEPT:
            self.left = [count / 2 for count in self.left]
            self.started = [count / 2 for count in self.started]
        self.left[step] += 1
        self.started[step] += started

    def hazards(self, wider: tuple[float, ...]) -> tuple[float, ...]:
        """The part that starts in each step, leaning on what is known of more."""
        rows = zip(self.left, self.started, wider, strict=True)
        return tuple([(e + LEANS_ON * h) / (r + LEANS_ON) for r, e, h in rows])


class Calibration:
    """Forecasts of single jobs and what came of them, by magnitude and all together."""

    def __init__(self, seed: int = 0) -> None:
        self._all = _Outcomes()
        self._of: dict[int, _Outcomes] = {}
        self._open: dict[int, _Open] = {}  # by serial
        self._of_job: dict[str, list[int]] = {}  # serials
        self._serials = count()
        self._next: list[tuple[int, int]] = []  # heap: when more is to be said, and of which
        self._look_ms = 0  # looks count from then on
        self._dice = Random(seed)  # which forecasts of a look count
        self._level = 0.0  # added to the logit of what is not to be late
        self._memo: dict[int, tuple[float, float]] = {}  # by magnitude, as things are

    def look(self, waits_ms: Mapping[str, int], now_ms: int) -> None:
        """So many jobs were forecast to start, each so much later."""
        if now_ms < self._look_ms or not waits_ms:
            return
        self._look_ms = now_ms + sum(waits_ms.values()) // (len(waits_ms) * REST)
        for job_id in self._dice.sample([*waits_ms], min(OF_A_LOOK, len(waits_ms))):
            self.tell(job_id, now_ms, wait_ms=waits_ms[job_id])

    def tell(self, job_id: str, now_ms: int, *, wait_ms: int) -> None:
        """A job was forecast to start so much later, and that counts."""
        self._go_on(now_ms)
        if len(self._open) < OPEN_MAX:
            late_ms = now_ms + self.range_ms(wait_ms, now_ms)[1]
            serial = next(self._serials)
            self._open[serial] = _Open(job_id, now_ms, wait_ms, late_ms)
            self._of_job.setdefault(job_id, []).append(serial)
            self._await(serial)

    def start(self, job_id: str, now_ms: int) -> None:
        """A job has started."""
        self._go_on(now_ms)
        for serial in self._of_job.pop(job_id, ()):
            told = self._open.pop(serial)
            for row in self._rows(told):
                row.leave(told.step, started=True)
            if not told.missed:
                self._adapt(missed=False)

    def forget(self, job_id: str) -> None:
        """A job will not start, or not for having been waited for."""
        for serial in self._of_job.pop(job_id, ()):
            del self._open[serial]

    def range_ms(self, wait_ms: int, now_ms: int) -> tuple[int, int]:
        """(the wait that is as likely longer as shorter, the one that is exceeded once in ten times)."""
        self._go_on(now_ms)
        magnitude = _magnitude(wait_ms)
        factors = self._memo.get(magnitude)
        if factors is None:
            factors = self._memo[magnitude] = self._factors(magnitude)
        median, late = factors
        return round(wait_ms * median), round(wait_ms * late)

    def _go_on(self, now_ms: int) -> None:
        """Counts how far those have come that wait, and who is late."""
        while self._next and self._next[0][0] < now_ms:
            _, serial = heappop(self._next)
            told = self._open.get(serial)
            if told is None:
                continue
            if not told.missed and told.late_ms < now_ms:
                told.missed = True
                self._adapt(missed=True)
            if told.leaves_ms() < now_ms:
                for row in self._rows(told):
                    row.leave(told.step, started=False)
                told.step += 1
            self._await(serial)

    def _await(self, serial: int) -> None:
        next_ms = self._open[serial].next_ms()
        if next_ms < NEVER_MS:
            heappush(self._next, (next_ms, serial))
        if len(self._next) > 2 * OPEN_MAX:  # of most of them nothing is to be said any more
            self._next = [(one.next_ms(), key) for key, one in self._open.items()]
            heapify(self._next)

    def _rows(self, told: _Open) -> tuple[_Outcomes, _Outcomes]:
        """Where it counts; what is known is about to change."""
        self._memo.clear()
        return self._all, self._of.setdefault(_magnitude(told.wait_ms), _Outcomes())

    def _adapt(self, *, missed: bool) -> None:
        self._memo.clear()
        moved = self._level + PACE * (missed / MISSES - 1.0)
        self._level = min(LEVELS, max(-LEVELS, moved))

    def _factors(self, magnitude: int) -> tuple[float, float]:
        """By what a forecast of a magnitude is multiplied."""
        hazards = self._all.hazards(UNKNOWN)
        if magnitude in self._of:
            hazards = self._of[magnitude].hazards(hazards)
        late = 1.0 - MISSES / (MISSES + (1.0 - MISSES) * math.exp(self._level))
        return _quantile(hazards, 0.5), _quantile(hazards, late)


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
