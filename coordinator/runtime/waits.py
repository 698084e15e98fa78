"""How long a waiting job will wait: what the forecaster foretold, else what can be said at once.

A look at all that waits takes longer than a job may take to be accepted, and only who reads begins one. So
until the next look a new job is told the time of the nearest before it in line that asks for at least as much;
where that is not known, when it is its turn if the line gets devices one after another, by number.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice

from coordinator.core.known import is_in_line
from coordinator.core.records import WAITING, Job
from coordinator.core.soonest import soonest_ms
from coordinator.runtime.clock import Clock
from coordinator.runtime.driver import Driver
from coordinator.runtime.forecaster import Forecaster
from coordinator.runtime.queues import place_of

LINE = 32  # jobs before a new one that are looked at
GUESSES_MAX = 100_000
TOLD_MAX = 100_000  # jobs


class Waits:
    """Tells waits. What new jobs were told is kept until there is a newer look, for those after them."""

    def __init__(self, driver: Driver, forecaster: Forecaster, clock: Clock) -> None:
        self._driver = driver
        self._view = driver.view
        self._forecaster = forecaster
        self._clock = clock
        self._guesses_ms: dict[str, int] = {}  # by job, when it may start; since the last look
        self._looks = 0  # as of which they are
        self._told_s: dict[str, float | None] = {}  # by job, when it was accepted

    def wait_s(self, job: Job) -> float | None:
        """Seconds until a waiting job is expected to start, as the last look knew, or as was said when it
        was accepted after that; None where neither is known."""
        known_ms = self._forecaster.start_ms(job)
        if known_ms is None:
            known_ms = self._guesses().get(job.job_id)
        return self._left_s(known_ms)

    def first_s(self, job_id: str) -> float | None:
        """The same of a job that was just accepted: 0 where it has its devices already.

        Who asks for the same job again is told the same, for as long as that is remembered.
        """
        if job_id not in self._told_s:
            job = self._view.job(job_id)
            if job is None:
                return None
            self._told_s[job_id] = self._first_s(job)
            self._forget()
        return self._told_s[job_id]

    def first_all_s(self, job_ids: Sequence[str]) -> list[float | None]:
        """The same of jobs that were accepted together; of those that ask for the same that of the
        first."""
        known: dict[tuple[object, ...], float | None] = {}
        told_s, view = self._told_s, self._view
        for job_id in job_ids:
            job = None if job_id in told_s else view.job(job_id)
            if job is None:
                continue
            what = _asked(job)
            if what not in known:
                known[what] = self._first_s(job)
            told_s[job_id] = known[what]
        found = [told_s.get(job_id) for job_id in job_ids]
        self._forget()
        return found

    def _first_s(self, job: Job) -> float | None:
        if job.status not in WAITING:
            return 0.0 if job.attempt is not None else None
        if not is_in_line(job):
            return (
                None if job.policy.depends_on else self._left_s(job.policy.start_after_ms or None)
            )
        known_ms = self._forecaster.known_start_ms(job)
        if known_ms is None and (known_ms := self._guess_ms(job)) is not None:
            self._guesses()[job.job_id] = known_ms
        return self._left_s(known_ms)

    def _forget(self) -> None:
        while len(self._told_s) > TOLD_MAX:
            del self._told_s[next(iter(self._told_s))]

    def _guess_ms(self, job: Job) -> int | None:
        """When a job may start of which the last look did not know."""
        queue, guesses = self._view.queues.of(job.queue_name), self._guesses()
        if len(queue.waiting) <= LINE:
            guesses = {}  # it is told more closely by counting
        line = [job.job_id]
        for turn in islice(queue.waiting.before(place_of(job, queue.order)), LINE):
            other = self._view.jobs[turn[-1]]
            if _asks_as_much(other, job):
                known_ms = self._forecaster.known_start_ms(other) or guesses.get(other.job_id)
                if known_ms is not None:
                    return known_ms
            line.append(other.job_id)
        if len(line) > LINE:
            return None
        return self._driver.look(partial(soonest_ms, line=line[::-1]))

    def _guesses(self) -> dict[str, int]:
        looks = self._forecaster.looks
        if looks != self._looks or len(self._guesses_ms) >= GUESSES_MAX:
            self._looks, self._guesses_ms = looks, {}
        return self._guesses_ms

    def _left_s(self, at_ms: int | None) -> float | None:
        return None if at_ms is None else max(0.0, (at_ms - self._clock.now_ms()) / 1000)


def _asked(job: Job) -> tuple[object, ...]:
    """What the wait of a job follows from that has just been accepted."""
    shared = id(job.demand), id(job.policy)  # by jobs of one call
    return shared, job.status, job.attempt is None, job.queue_name, job.standing


def _asks_as_much(one: Job, job: Job) -> bool:
    demand, least = one.demand, job.demand
    return demand.size >= least.size and demand.device_type == least.device_type
