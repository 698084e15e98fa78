"""How often a job starts within the time that was foretold for nine in ten.

Every so often one of the jobs that wait, any of them, is asked about on a copy of the process, as
the forecaster does it live; what comes of the forecasts calibrates the later ones. Jobs about which
nothing could be foretold are counted apart.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from random import Random

from bench.traces.replay import Costs, Replay, Tally, Work
from bench.traces.workload import TraceJob, Workload
from coordinator.core.core import Core
from coordinator.core.forecast import Forecast, Limits
from coordinator.core.records import Queue
from coordinator.forecast.apart import apart
from coordinator.forecast.calibration import Calibration

LIMITS = Limits(steps=3_000, horizon_ms=365 * 86_400_000)
LIMIT_S = 60.0
WARM_UP = 30  # forecasts that only calibrate


@dataclass(slots=True)
class Coverage:
    """How the forecasts came out."""

    covered: int = 0
    counted: int = 0
    unknown: int = 0
    wall_s: float = 0.0

    @property
    def percent(self) -> float | None:
        """Starts within what was told, in per cent; None where nothing was foretold."""
        return round(100 * self.covered / self.counted, 2) if self.counted else None


@dataclass(slots=True)
class _Told:
    at_ms: int
    late_ms: int
    counts: bool


class ForetoldReplay(Replay):
    """A replay in which some of the jobs are told when they will start."""

    def __init__(
        self, workload: Workload, *, queue: Queue, costs: Costs, given: bool, samples: int
    ) -> None:
        super().__init__(workload, queue=queue, costs=costs, given=given)
        self.coverage = Coverage()
        self._calibration = Calibration()
        self._told: dict[str, _Told] = {}
        self._dice = Random(1)
        self._ask = False
        self._stride = max(1, len(workload.jobs) // samples) if samples else 0  # 0: nobody asks
        self._submitted = 0

    def run(self) -> Tally:
        """Plays everything; the time that forecasts took is not the scheduler's."""
        tally = super().run()
        tally.wall_s -= self.coverage.wall_s
        return tally

    def _submit(self, row: TraceJob) -> None:
        super()._submit(row)
        self._submitted += 1
        self._ask = bool(self._stride) and self._submitted % self._stride == 0

    def _settle(self) -> None:
        super()._settle()
        waiting = [*self.core.state.queue.group_of] if self._ask else []
        self._ask = False
        if waiting:
            job_id = self._dice.choice(waiting)
            if job_id not in self._told:
                self._foretell(job_id)

    def _begin(self, work: Work, attempt: int) -> None:
        super()._begin(work, attempt)
        told = self._told.pop(work.row.job_id, None)
        if told is None:
            return
        waited_ms = self._now_ms - told.at_ms
        self._calibration.start(work.row.job_id, self._now_ms)
        if told.counts:
            self.coverage.counted += 1
            self.coverage.covered += waited_ms <= told.late_ms

    def _foretell(self, job_id: str) -> None:
        began_s = time.perf_counter()
        forecast = partial(_look, self.core, self._now_ms, job_id)
        (at_ms,) = apart([forecast], at_once=1, limit_s=LIMIT_S)
        self.coverage.wall_s += time.perf_counter() - began_s
        if at_ms is None:
            self.coverage.unknown += 1
            return
        wait_ms = at_ms - self._now_ms
        known = self.coverage.counted + len(self._told) >= WARM_UP
        _, late_ms = self._calibration.range_ms(wait_ms, self._now_ms)
        self._calibration.tell(job_id, self._now_ms, wait_ms=wait_ms)
        self._told[job_id] = _Told(self._now_ms, late_ms, known)


def _look(core: Core, now_ms: int, job_id: str) -> int | None:
    return Forecast(core, now_ms).run(limits=LIMITS, wanted=job_id)
