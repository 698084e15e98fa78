"""Properties of what people change of live jobs."""

from __future__ import annotations

from dataclasses import replace

from coordinator.core.commands import UpdateJob
from coordinator.core.decision import Changed, Event
from coordinator.core.reasons import Reason
from coordinator.core.records import Job, JobStatus
from tests.sim.kept import RecordsKept
from tests.sim.truth import Checker, JobChecker, SimFailure, Truth


class ChangedAsAsked(JobChecker):
    """Priority, queue and time limits change as somebody asked, of that job, and by nothing else."""

    def __init__(self, truth: Truth) -> None:
        super().__init__()
        self._truth = truth

    def changed(self, event: Changed, job: Job, *, before: Job | None) -> None:
        if before is None:
            return
        if event.cause is not Reason.CHANGED_BY_USER:
            if _asked_of(before) != _asked_of(job):
                raise SimFailure(f"{job.job_id} is changed by {event.cause}", job.job_id)
            return
        asks = self._truth.asked.changes.get(job.job_id, [])
        if before.is_final or not any(_after(before, ask) == _asked_of(job) for ask in asks):
            raise SimFailure(f"{job.job_id} is changed, and not as asked", job.job_id)


class HeldUntilResumed(JobChecker):
    """A job that somebody wants held does not run again by itself."""

    def changed(self, event: Changed, job: Job, *, before: Job | None) -> None:
        if before is None or before.attempt is None or not before.attempt.hold:
            return
        if job.status in (JobStatus.QUEUED, JobStatus.PREEMPTED):
            raise SimFailure(f"{job.job_id} was to be held and is {job.status}", job.job_id)


class OneChildPerRequest(Checker):
    """A retry that is asked for again gives no second child; a child belongs to its lineage."""

    facts = (Job,)

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._children: dict[str, set[str]] = {}

    def rewound(self, store: RecordsKept) -> None:
        kept = [x for x in store.live.values() if isinstance(x, Job)]
        self._children = {}
        for job in (*kept, *store.history.values()):
            self._children.setdefault(job.parent_job_id, set()).add(job.job_id)

    def committed(self, event: Event, number: int) -> None:
        if not isinstance(event, Changed) or event.cause is not Reason.ACCEPTED:
            return
        job = event.record
        if not isinstance(job, Job) or not job.parent_job_id:
            return
        children = self._children.setdefault(job.parent_job_id, set())
        children.add(job.job_id)
        if len(children) > self._truth.asked.retries.get(job.parent_job_id, 0):
            raise SimFailure(f"one request gave two children of {job.parent_job_id}", *children)


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
