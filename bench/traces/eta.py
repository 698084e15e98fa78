"""How often a job starts within the time that was foretold for nine in ten.

At times that have nothing to do with what happens a look ahead is taken on a copy of the process, as the
forecaster does it live, and some of those that wait, any of them, are told when they will start. What
comes of a look calibrates the later ones. Jobs of which nothing could be foretold are counted apart.

The replay does not wait for its looks, as nothing in it depends on them: some are under way beside it. What
they tell, and the starts meanwhile, are taken in the order in which they were played. Who asks depends on
what was told before, so a look begins with a guess, rests when those have started, and goes on where others
ask.

Which forecasts of a look are learnt from is left to dice: it is played with several of them, side by side.
"""

from __future__ import annotations

import os
import pickle
import selectors
import time
from collections import deque
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from random import Random

from bench.traces.replay import Costs, Replay, Tally, Work
from bench.traces.workload import Workload
from coordinator.core.core import Core
from coordinator.core.forecast import Forecast, Limits
from coordinator.core.records import Queue
from coordinator.forecast.apart import Apart
from coordinator.forecast.calibration import Calibration

LIMITS = Limits(steps=3_000, horizon_ms=365 * 86_400_000)
LIMIT_S = 600.0
ASK = 5  # jobs, when a look is taken
DICE = 8
WARM_UP = 30  # answers that do not count: nothing is known then
AT_ONCE = min(8, 1 + (os.cpu_count() or 1))  # of which some may rest
QUESTION_BYTES = 1 << 16


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


class _Look:
    """A look ahead, on a copy of the process as it is now."""

    def __init__(self, core: Core, now_ms: int, *, guess: Sequence[str]) -> None:
        self.at_ms = now_ms
        self.waiting = [*core.state.queue.group_of]
        self.asking: Sequence[str] = ()  # known once all before it is told
        self.is_over = False
        self.starts_ms: dict[str, int] = {}  # what it foretold
        reading, self._writing = os.pipe()
        work = partial(_starts_ms, core, now_ms, guess, partial(_asking, reading))
        self._one = Apart(work, limit_s=LIMIT_S)
        self.fd = self._one.fd
        os.close(reading)

    def ask(self, asking: Sequence[str]) -> None:
        """Says who is to be told when they will start."""
        self.asking = asking
        with suppress(BrokenPipeError):
            os.write(self._writing, pickle.dumps(asking))
        os.close(self._writing)

    def take(self) -> bool:
        """Takes what it tells; whether that was all."""
        return self._one.take()

    def end(self) -> None:
        """It has told everything."""
        self.starts_ms, self.is_over = self._one.end() or {}, True


class ForetoldReplay(Replay):
    """A replay in which some of the jobs are told when they will start."""

    def __init__(
        self, workload: Workload, *, queue: Queue, costs: Costs, given: bool, samples: int
    ) -> None:
        super().__init__(workload, queue=queue, costs=costs, given=given)
        self.coverage = Coverage()
        self._calibrations = [Calibration(seed) for seed in range(DICE)]
        self._told: dict[str, _Told] = {}
        self._later: deque[_Look | _Started] = deque()  # from the first look on that is not over
        self._under_way = selectors.DefaultSelector()  # looks
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
        if not self._every_ms:
            return
        began_s = time.perf_counter()
        self._hear(most=AT_ONCE)
        if self._now_ms >= self._due_ms and self._may_ask():
            self._due_ms = self._now_ms + self._every_ms
            self._hear(most=AT_ONCE - 1)
            look = _Look(self.core, self._now_ms, guess=self._guess())
            self._under_way.register(look.fd, selectors.EVENT_READ, look)
            self._later.append(look)
            self._catch_up()
        self.coverage.wall_s += time.perf_counter() - began_s

    def _may_ask(self) -> bool:
        """Whether somebody waits who was not told anything."""
        waiting = self.core.state.queue.group_of
        told = ASK * sum(isinstance(one, _Look) for one in self._later)  # at most, of late
        if len(waiting) > told + len(self._told):
            return True
        self._hear(most=0)
        return any(job_id not in self._told for job_id in waiting)

    def _begin(self, work: Work, attempt: int) -> None:
        super()._begin(work, attempt)
        self._later.append(_Started(self._now_ms, work.row.job_id))

    def _hear(self, *, most: int) -> None:
        """Takes what looks tell; waits while more than so many are under way."""
        while looks := self._under_way.get_map():
            is_many = len(looks) > most
            heard = self._under_way.select(None if is_many else 0)
            for key, _ in heard:
                if key.data.take():
                    self._under_way.unregister(key.fd)
                    key.data.end()
            self._catch_up()
            if not heard and not is_many:
                return
        self._catch_up()

    def _catch_up(self) -> None:
        """Takes what was told and who has started, in order, as far as it is known."""
        later = self._later
        while later:
            match later[0]:
                case _Started() as started:
                    self._note_start(started)
                case _Look() as look:
                    if not look.asking:
                        look.ask(_sample(self._dice, look.waiting, self._told))
                    if not look.is_over:
                        return
                    self._answer(look, look.starts_ms)
            later.popleft()

    def _guess(self) -> Sequence[str]:
        """Who would ask now, if all that ask before are told something."""
        dice, told = Random(), dict.fromkeys(self._told)
        dice.setstate(self._dice.getstate())
        for one in self._later:
            match one:
                case _Started():
                    told.pop(one.job_id, None)
                case _Look():
                    told |= dict.fromkeys(one.asking or _sample(dice, one.waiting, told))
        return _sample(dice, [*self.core.state.queue.group_of], told)

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
    came_ms = [job.submit_ms for job in workload.jobs] or [0]
    return max(max(came_ms) - min(came_ms), work_ms // workload.device_count)


def _sample(dice: Random, waiting: Sequence[str], told: Container[str]) -> list[str]:
    """Some of those who were not told anything."""
    untold = [job_id for job_id in waiting if job_id not in told]
    return dice.sample(untold, min(ASK, len(untold)))


def _asking(reading: int) -> Sequence[str]:
    """Who is to be told when they will start; waits until that is known."""
    asking: Sequence[str] = pickle.loads(os.read(reading, QUESTION_BYTES))
    return asking


def _starts_ms(
    core: Core, now_ms: int, guess: Sequence[str], hear: Callable[[], Sequence[str]]
) -> dict[str, int]:
    """When those who wait will start: those who ask, and who does so before them."""
    waiting = dict(core.state.queue.group_of)
    forecast = Forecast(core, now_ms)
    starts_ms = forecast.starts_ms
    asking: Sequence[str] | None = None
    counts = []  # of those that have started, after each step

    def is_enough() -> bool:
        nonlocal asking
        counts.append(len(starts_ms))
        if asking is None and all(job_id in starts_ms for job_id in guess):
            asking = hear()
        return asking is not None and all(job_id in starts_ms for job_id in asking)

    forecast.run(limits=LIMITS, until=is_enough)
    asking = asking or hear()
    places = {job_id: place for place, job_id in enumerate(starts_ms)}
    last = max(places.get(job_id, len(places)) for job_id in asking)
    count = next((count for count in counts if count > last), len(places))
    found = islice(starts_ms.items(), count)
    return {job_id: at_ms for job_id, at_ms in found if job_id in waiting}
