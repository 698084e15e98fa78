"""Properties of what people change of live jobs."""

from __future__ import annotations

from dataclasses import replace

from coordinator.core.commands import UpdateJob
from coordinator.core.decision import Changed, Event
from coordinator.core.reasons import Reason
from coordinator.core.records import Job
from tests.sim.kept import RecordsKept
from tests.sim.truth import Checker, SimFailure, Truth


class ChangedAsAsked(Checker):
    """Priority, queue and time limits change as somebody asked, of that job, and by nothing else."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._jobs: dict[str, Job] = {}

    def rewound(self, store: RecordsKept) -> None:
        self._jobs = {one.job_id: one for one in store.live.values() if isinstance(one, Job)}

    def committed(self, event: Event, number: int) -> None:
        if not isinstance(event, Changed) or not isinstance(event.record, Job):
            return
        job, before = event.record, self._jobs.get(event.record.job_id)
        self._jobs[job.job_id] = job
        if before is None:
            return
        if event.cause is not Reason.CHANGED_BY_USER:
            if _asked_of(before) != _asked_of(job):
                raise SimFailure(f"{job.job_id} is changed by {event.cause}", job.job_id)
            return
        asks = self._truth.asked.changes.get(job.job_id, [])
        if before.is_final or not any(_after(before, ask) == _asked_of(job) for ask in asks):
            raise SimFailure(f"{job.job_id} is changed, and not as asked", job.job_id)


def _asked_of(job: Job) -> tuple[object, ...]:
    return job.priority, job.queue_name, job.policy


def _after(job: Job, ask: UpdateJob) -> tuple[object, ...]:
    policy = job.policy
    if ask.max_runtime_ms is not None:
        policy = replace(policy, max_runtime_ms=ask.max_runtime_ms)
    if ask.expected_duration_ms is not None:
        policy = replace(policy, expected_duration_ms=ask.expected_duration_ms)
    priority = job.priority if ask.priority is None else ask.priority
    return priority, ask.queue_name or job.queue_name, policy
