"""How often a job starts within the time that was foretold for nine in ten.

At times that have nothing to do with what happens a look ahead is taken on a copy of the process, as the
forecaster does it live, and some of those that wait, any of them, are told when they will start. What
comes of a look calibrates the later ones. Jobs of which nothing could be foretold are counted apart.

Which forecasts of a look are learnt from is left to dice: it is played with several of them, side by side.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

from bench.traces.replay import Costs, Replay, Tally, Work
from bench.traces.workload import Workload
from coordinator.core.core import Core
from coordinator.core.forecast import Forecast, Limits
from coordinator.core.records import Queue
from coordinator.forecast.apart import apart
from coordinator.forecast.calibration import Calibration

LIMITS = Limits(steps=3_000, horizon_ms=365 * 86_400_000)
LIMIT_S = 60.0
ASK = 5  # jobs, when a look is taken
DICE = 8
WARM_UP = 30  # answers that do not count: nothing is known then


@dataclass(slots=True)
class Coverage:
    """How the forecasts came out."""

    covered: float = 0.0
    counted: int = 0
    unknown: int = 0
    wall_s: float = 0.0

    @property
    def percent(self) -> float | None:
        """Starts within what was told, in per cent; None where nothing was foretold."""
        return round(100 * self.covered / self.counted, 2) if self.counted else None


@dataclass(slots=True)
class _Told:
    late_ms: list[int]
    counts: bool


class ForetoldReplay(Replay):
    """A replay in which some of the jobs are told when they will start."""

    def __init__(
        self, workload: Workload, *, queue: Queue, costs: Costs, given: bool, samples: int
    ) -> None:
        super().__init__(workload, queue=queue, costs=costs, given=given)
        self.coverage = Coverage()
        self._calibrations = [Calibration(seed) for seed in range(DICE)]
        self._told: dict[str, _Told] = {}
        self._dice = Random(1)
        self._every_ms = _least_span_ms(workload) * ASK // samples if samples else 0
        self._due_ms = 0  # the next look, or the next moment after it at which somebody waits

    def run(self) -> Tally:
        """Plays everything; the time that forecasts took is not the scheduler's."""
        tally = super().run()
        tally.wall_s -= self.coverage.wall_s
        return tally

    def _settle(self) -> None:
        super()._settle()
        if not self._every_ms or self._now_ms < self._due_ms:
            return
        waiting = [x for x in self.core.state.queue.group_of if x not in self._told]
        if waiting:
            self._due_ms = self._now_ms + self._every_ms
            self._look(self._dice.sample(waiting, min(ASK, len(waiting))))

    def _begin(self, work: Work, attempt: int) -> None:
        super()._begin(work, attempt)
        job_id = work.row.job_id
        for one in self._calibrations:
            one.start(job_id, self._now_ms)
        told = self._told.pop(job_id, None)
        if told is not None and told.counts:
            self.coverage.counted += 1
            self.coverage.covered += sum(self._now_ms <= one for one in told.late_ms) / DICE

    def _look(self, asking: Sequence[str]) -> None:
        began_s = time.perf_counter()
        look = partial(_starts_ms, self.core, self._now_ms, asking)
        (starts_ms,) = apart([look], at_once=1, limit_s=LIMIT_S)
        self.coverage.wall_s += time.perf_counter() - began_s
        self._answer(asking, starts_ms or {})

    def _answer(self, asking: Sequence[str], starts_ms: dict[str, int]) -> None:
        """Tells those who ask, and remembers what was foretold of all."""
        for job_id in asking:
            if job_id not in starts_ms:
                self.coverage.unknown += 1
                continue
            wait_ms = starts_ms[job_id] - self._now_ms
            late_ms = [
                self._now_ms + one.range_ms(wait_ms, self._now_ms)[1] for one in self._calibrations
            ]
            counts = self.coverage.counted + len(self._told) >= WARM_UP
            self._told[job_id] = _Told(late_ms, counts)
        waits_ms = {job_id: at_ms - self._now_ms for job_id, at_ms in starts_ms.items()}
        for one in self._calibrations:
            one.look(waits_ms, self._now_ms)


def _least_span_ms(workload: Workload) -> int:
    """How long a replay takes at least: until the last job comes, and until all work is done."""
    work_ms = sum(job.duration_ms * job.demand.device_count for job in workload.jobs)
    last_ms = max((job.submit_ms for job in workload.jobs), default=0)
    return max(last_ms, work_ms // max(1, workload.device_count))


def _starts_ms(core: Core, now_ms: int, asking: Sequence[str]) -> dict[str, int]:
    """When those who wait will start: those who ask, and who does so before them."""
    waiting = dict(core.state.queue.group_of)
    forecast = Forecast(core, now_ms)
    starts_ms = forecast.starts_ms
    forecast.run(limits=LIMITS, until=lambda: all(job_id in starts_ms for job_id in asking))
    return {job_id: at_ms for job_id, at_ms in starts_ms.items() if job_id in waiting}
