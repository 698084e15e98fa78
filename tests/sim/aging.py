"""Worlds in which a short wait is long, and what must come of it. Few worlds are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from coordinator.core.decision import Changed
from coordinator.core.known import is_in_line
from coordinator.core.reasons import Reason
from coordinator.core.records import Job
from coordinator.core.settings import CoreSettings
from coordinator.core.tables import RUNNING
from tests.sim.clock import SECOND
from tests.sim.coordinator import SETTINGS
from tests.sim.truth import JobChecker, SimFailure

WORLDS = 6  # one in so many is
AGING_MS = 25 * SECOND
PATIENCE_MS = 30 * SECOND  # for a look, and for ticks of few deadlines each


def ages(rng: Random) -> CoreSettings:
    """The settings of a world."""
    return SETTINGS if rng.randrange(WORLDS) else replace(SETTINGS, aging_ms=AGING_MS)


class RaisedInTime(JobChecker):
    """Who is raised has waited for so long behind somebody above it; who has is passed by nobody for long
    that is above it."""

    def __init__(
        self, aging_ms: int, decides_since_ms: Callable[[], int], seen: Callable[[str, str], None]
    ) -> None:
        super().__init__()
        self._aging_ms = aging_ms
        self._seen = seen
        self._decides_since_ms = decides_since_ms
        self._queued_ms: dict[str, int] = {}

    def changed(self, event: Changed, job: Job, *, before: Job | None) -> None:
        if is_in_line(job) and (before is None or not is_in_line(before)):
            self._queued_ms[job.job_id] = event.at_ms
        if before is not None and job.aged != before.aged:
            self._check_raised(event, job, before=before)
        if event.cause is Reason.PLACED:
            if job.aged:
                self._seen("raised", "placed")
            self._check_passed(job, at_ms=event.at_ms)

    def _check_raised(self, event: Changed, job: Job, *, before: Job) -> None:
        if event.cause is Reason.CHANGED_BY_USER and not job.aged:
            return
        waited_ms = event.at_ms - self._since_ms(job)
        rivals = [x for x in self._jobs.values() if x.job_id != job.job_id and not x.is_final]
        wrong = (
            event.cause is not Reason.AGED
            or job.aged <= before.aged
            or not is_in_line(job)
            or waited_ms < self._aging_ms * job.aged
            or not any(x.standing >= job.standing for x in rivals)
        )
        if wrong:
            raise SimFailure(f"{job.job_id} is raised to {job.standing}", job.job_id)
        self._seen("raised", "waits")

    def _check_passed(self, job: Job, *, at_ms: int) -> None:
        """Nobody in the queue should have been raised long ago."""
        mates = [
            x for x in self._jobs.values() if x.queue_name == job.queue_name and not x.is_final
        ]
        known_ms = at_ms - PATIENCE_MS
        above = max((x.standing for x in mates if _has_run(x, known_ms)), default=0)
        for one in mates:
            if not is_in_line(one) or one.attempt is not None:
                continue  # one that has run may have to wait for other reasons
            due_ms = self._since_ms(one) + self._aging_ms * (one.aged + 1)
            queued_ms = self._queued_ms.get(one.job_id, at_ms)
            late = max(due_ms, queued_ms, self._decides_since_ms()) < known_ms
            if late and one.standing < min(above, job.standing):
                text = f"{job.job_id} passes {one.job_id}, which has waited for long"
                raise SimFailure(text, job.job_id, one.job_id)

    def _since_ms(self, job: Job) -> int:
        ended_ms = job.attempt.ended_at_ms if job.attempt else 0
        return max(job.created_at_ms, job.policy.start_after_ms, ended_ms)


def _has_run(job: Job, at_ms: int) -> bool:
    """Whether it runs since then."""
    attempt = job.attempt
    return job.status in RUNNING and attempt is not None and attempt.granted_at_ms < at_ms
