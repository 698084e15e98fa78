"""The live records once more, and the questions that copies of them answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from coordinator.core.core import Core
from coordinator.core.decision import Changed, Event, Retired
from coordinator.core.forecast import settings_for
from coordinator.core.known import is_in_line
from coordinator.core.outlook import outlook
from coordinator.core.reasons import Reason
from coordinator.core.records import Job, JobStatus
from coordinator.core.settings import CoreSettings
from coordinator.core.whatif import emptying
from coordinator.forecast.apart import apart
from coordinator.forecast.calibration import Calibration
from coordinator.forecast.terms import Emptied, Empty, Foreseen, Simulate, Simulated

AT_ONCE = 2
EMPTY_S = 4.0
SIMULATE_S = 9.0
WAITING = (JobStatus.QUEUED, JobStatus.PENDING)


class Replica:
    """Follows the live state; every question is to be asked on a copy, but for `note`."""

    def __init__(self, settings: CoreSettings) -> None:
        self.core = Core(settings_for(settings))
        self.calibration = Calibration()

    def feed(self, events: Iterable[Event]) -> None:
        """Takes over what has changed."""
        for event in events:
            self.core.state.apply(event)
            if isinstance(event, Retired):
                self.calibration.forget(event.id)
            elif (
                isinstance(event, Changed)
                and isinstance(event.record, Job)
                and event.record.status is not JobStatus.QUEUED
            ):
                self._learn(event.record, event)

    def settle(self) -> None:
        """Takes what waits to have been looked at: the scheduler that lives has done so."""
        self.core.follow()

    def note(self, starts_ms: Mapping[str, int], now_ms: int) -> Foreseen:
        """Remembers what was foretold of those who wait, to learn from what comes, and corrects it by
        what was learnt."""
        jobs = self.core.state.jobs
        waits_ms = {
            job_id: at_ms - now_ms
            for job_id, at_ms in starts_ms.items()
            # others have started since, or run and would be preempted before they start then
            if job_id in jobs and jobs[job_id].status in WAITING
        }
        unsure = {key: x for key, x in waits_ms.items() if not _sure_ms(jobs[key], x, now_ms)}
        self.calibration.look(unsure, now_ms)
        return Foreseen(
            {
                job_id: now_ms + self.range_ms(jobs[job_id], wait_ms, now_ms=now_ms)[0]
                for job_id, wait_ms in waits_ms.items()
            }
        )

    def range_ms(self, job: Job, wait_ms: int, *, now_ms: int) -> tuple[int, int]:
        """A forecast corrected by what was learnt: (the wait that is as likely longer as shorter, the one
        that is exceeded once in ten times). Until the job's own time comes nothing is unsure."""
        sure_ms = _sure_ms(job, wait_ms, now_ms)
        median_ms, late_ms = self.calibration.range_ms(wait_ms - sure_ms, now_ms)
        return sure_ms + median_ms, sure_ms + late_ms

    def empty(self, question: Empty) -> Emptied | None:
        """How nodes are emptied; None where it took too long to tell. Uses the state up."""
        one = partial(
            emptying,
            self.core,
            question.now_ms,
            node_ids=question.node_ids,
            wish=question.wish,
        )
        works = [partial(one, lucky=True), partial(one, lucky=False)]
        likely, late = apart(works, at_once=AT_ONCE, limit_s=EMPTY_S)
        if likely is None or late is None:
            return None
        return Emptied(likely, late)

    def simulate(self, question: Simulate) -> Simulated | None:
        """What changes come to; None where it took too long to tell. Uses the state up."""
        one = partial(outlook, self.core, question.now_ms, horizon_ms=question.horizon_ms)
        works = [partial(one, changes=()), partial(one, changes=question.changes)]
        before, after = apart(works, at_once=AT_ONCE, limit_s=SIMULATE_S)
        return None if before is None or after is None else Simulated(before, after)

    def _learn(self, job: Job, event: Changed) -> None:
        if event.cause is Reason.PLACED:
            self.calibration.start(job.job_id, event.at_ms)
        elif job.status in (JobStatus.PAUSED, JobStatus.PENDING) and not is_in_line(job):
            self.calibration.forget(job.job_id)


def _sure_ms(job: Job, wait_ms: int, now_ms: int) -> int:
    """How much of a wait is for the time from which on the job may start."""
    return max(0, min(wait_ms, job.policy.start_after_ms - now_ms))
