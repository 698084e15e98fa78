"""How often a job starts within the time that was foretold for nine in ten.

At times that have nothing to do with what happens a look ahead is taken on a copy of the process, as the
forecaster does it live, and some of those that wait, any of them, are told when they will start; each is
asked about once for each time that it waits. What comes of a look calibrates the later ones. Jobs of which
nothing could be foretold are counted apart.

The replay does not wait for its looks, as nothing in it depends on them: as many are under way as there are
processors. What they tell, and the starts meanwhile, are taken in the order in which they were played.

Which forecasts of a look are learnt from is left to dice: it is played with several of them, side by side.
"""

from __future__ import annotations

import os
import selectors
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

from bench.traces.replay import Costs, Replay, Tally, Work
from bench.traces.workload import Workload
from coordinator.core.core import Core
from coordinator.core.forecast import Forecast, Limits
from coordinator.core.records import Queue
from coordinator.forecast.apart import Apart
from coordinator.forecast.calibration import Calibration

LIMITS = Limits(steps=3_000, horizon_ms=365 * 86_400_000)
LIMIT_S = 60.0
ASK = 5  # jobs, when a look is taken
DICE = 8
WARM_UP = 30  # answers that do not count: nothing is known then
AT_ONCE = min(8, os.cpu_count() or 1)


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


@dataclass(slots=True)
class _Started:
    """A job that has begun to run."""

    at_ms: int
    job_id: str


@dataclass(slots=True)
class _Look:
    """A look ahead, and what it foretold once that is known."""

    at_ms: int
    asking: Sequence[str]
    is_over: bool = False
    starts_ms: dict[str, int] | None = None


class _Looks:
    """The looks that are under way."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def begin(self, core: Core, look: _Look) -> None:
        """Begins one, on a copy of the process as it is now."""
        one = Apart(partial(_starts_ms, core, look.at_ms, look.asking), limit_s=LIMIT_S)
        self._selector.register(one.fd, selectors.EVENT_READ, (look, one))

    def hear(self, *, most: int) -> None:
        """Takes what they tell; waits while more than so many are under way."""
        while self._selector.get_map():
            is_many = len(self._selector.get_map()) > most
            heard = self._selector.select(None if is_many else 0)
            if not heard:
                return
            for key, _ in heard:
                look, one = key.data
                if one.take():
                    self._selector.unregister(one.fd)
                    look.starts_ms, look.is_over = one.end(), True


class ForetoldReplay(Replay):
    """A replay in which some of the jobs are told when they will start."""

    def __init__(
        self, workload: Workload, *, queue: Queue, costs: Costs, given: bool, samples: int
    ) -> None:
        super().__init__(workload, queue=queue, costs=costs, given=given)
        self.coverage = Coverage()
        self._calibrations = [Calibration(seed) for seed in range(DICE)]
        self._told: dict[str, _Told] = {}
        self._looks = _Looks()
        self._asked: dict[str, None] = {}  # jobs that wait, and were asked about
        self._later: deque[_Look | _Started] = deque()  # from the first look on that is not over
        self._dice = Random(1)
        self._every_ms = _least_span_ms(workload) * ASK // samples if samples else 0
        self._due_ms = 0  # the next look, or the next moment after it at which somebody waits

    def run(self) -> Tally:
        """Plays everything; the time that forecasts took is not the scheduler's."""
        tally = super().run()
        tally.wall_s -= self.coverage.wall_s
        self._hear(most=0)
        return tally

    def _settle(self) -> None:
        super()._settle()
        if not self._every_ms or self._now_ms < self._due_ms:
            return
        waiting = [x for x in self.core.state.queue.group_of if x not in self._asked]
        if waiting:
            self._due_ms = self._now_ms + self._every_ms
            began_s = time.perf_counter()
            self._look(self._dice.sample(waiting, min(ASK, len(waiting))))
            self.coverage.wall_s += time.perf_counter() - began_s

    def _begin(self, work: Work, attempt: int) -> None:
        super()._begin(work, attempt)
        job_id = work.row.job_id
        self._asked.pop(job_id, None)
        self._later.append(_Started(self._now_ms, job_id))

    def _look(self, asking: Sequence[str]) -> None:
        self._asked.update(dict.fromkeys(asking))
        self._hear(most=AT_ONCE - 1)
        look = _Look(self._now_ms, asking)
        self._looks.begin(self.core, look)
        self._later.append(look)

    def _hear(self, *, most: int) -> None:
        """Takes what looks tell and who has started, in order, as far as it is known."""
        self._looks.hear(most=most)
        later = self._later
        while later and not (isinstance(later[0], _Look) and not later[0].is_over):
            match later.popleft():
                case _Look() as look:
                    self._answer(look, look.starts_ms or {})
                case _Started() as started:
                    self._note_start(started)

    def _note_start(self, started: _Started) -> None:
        for one in self._calibrations:
            one.start(started.job_id, started.at_ms)
        told = self._told.pop(started.job_id, None)
        if told is not None and told.counts:
            self.coverage.counted += 1
            self.coverage.covered += sum(started.at_ms <= one for one in told.late_ms) / DICE

    def _answer(self, look: _Look, starts_ms: dict[str, int]) -> None:
        """Tells those who ask, and remembers what was foretold of all."""
        for job_id in look.asking:
            if job_id not in starts_ms:
                self.coverage.unknown += 1
                continue
            wait_ms = starts_ms[job_id] - look.at_ms
            late_ms = [
                look.at_ms + one.range_ms(wait_ms, look.at_ms)[1] for one in self._calibrations
            ]
            counts = self.coverage.counted + len(self._told) >= WARM_UP
            self._told[job_id] = _Told(late_ms, counts)
        waits_ms = {job_id: at_ms - look.at_ms for job_id, at_ms in starts_ms.items()}
        for one in self._calibrations:
            one.look(waits_ms, look.at_ms)


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
