"""Jobs that are wanted by a time, or not before one, and what is promised to them.

A deadline is a wish about the order of those that wait, and never a reason to stop; a job does not start
before its time, and at its time it may, also where the coordinator was away then. Few worlds have many of
these jobs. There several want the same, so that only the deadlines tell whose turn it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random

from coordinator.core.decision import Changed, Event
from coordinator.core.known import is_in_line, kept_for
from coordinator.core.reasons import Reason
from coordinator.core.records import Demand, Job, Node, Order, Queue
from tests.sim.clock import DAY, SECOND
from tests.sim.kept import RecordsKept
from tests.sim.plans import Plan
from tests.sim.truth import Checker, JobChecker, SimFailure

WORLDS = 5  # one in so many has any
DEADLINES_S = (0, 1, 30, 120, 600, 2 * DAY // SECOND)
STARTS_S = (0, 0, 0, 5, 60, 300)
TWINS = (2, 4)  # devices of those that want the same
LATE_MS = 5 * SECOND


def with_dates(plans: Mapping[str, Plan], rng: Random) -> dict[str, Plan]:
    """The same jobs, of which some have dates, and of these some want the same."""
    if rng.randrange(WORLDS):
        return dict(plans)
    found = {}
    for name, plan in plans.items():
        if rng.random() < 0.7:
            demand = Demand(device_count=rng.choice(TWINS))
            policy = replace(plan.policy, expected_duration_ms=0)
            plan = replace(plan, demand=demand, policy=policy, priority=5, tenant_id="acme")
        found[name] = replace(
            plan,
            wanted_in_ms=rng.choice(DEADLINES_S) * SECOND,
            after_ms=rng.choice(STARTS_S) * SECOND,
        )
    return found


def wanted_ms(job: Job) -> int:
    """By when it is wanted: its deadline, and no later than a day after it was accepted."""
    latest_ms = job.created_at_ms + DAY
    return max(job.created_at_ms, min(job.policy.deadline_ms or latest_ms, latest_ms))


class EarliestFirst(Checker):
    """Of those that wait and want the same, the one that is wanted earliest goes first."""

    facts = (Job, Queue, Node)

    def __init__(self, seen: Callable[..., None]) -> None:
        self._jobs: dict[str, Job] = {}
        self._waiting: dict[str, Job] = {}
        self._queues: dict[str, Queue] = {}
        self._has_windows = False  # who is over in time may pass then
        self._seen = seen

    def rewound(self, store: RecordsKept) -> None:
        self._jobs.clear()
        self._waiting.clear()
        self._queues.clear()
        for record in store.live.values():
            self._take(record)

    def committed(self, event: Event, number: int) -> None:
        if not isinstance(event, Changed):
            return
        job = event.record
        if isinstance(job, Job) and event.cause is Reason.PLACED:
            self._check(job, self._waiting.get(job.job_id))
        self._take(job)

    def _take(self, record: object) -> None:
        if isinstance(record, Queue):
            self._queues[record.name] = record
        elif isinstance(record, Node):
            self._has_windows = self._has_windows or record.window is not None
        elif isinstance(record, Job):
            self._waiting.pop(record.job_id, None)
            is_new = record.attempt is None and not record.not_before_ms
            if is_in_line(record) and is_new:
                self._waiting[record.job_id] = record

    def _check(self, job: Job, before: Job | None) -> None:
        queue = self._queues.get(job.queue_name)
        by_work = queue is not None and queue.order is Order.SHORTEST
        if before is None or by_work or self._has_windows or _has_place(before):
            return
        if job.attempt is None or job.attempt.lent_by:
            return
        for other in self._waiting.values():
            if other is before or _kind(other) != _kind(before) or _has_place(other):
                continue
            if wanted_ms(other) < wanted_ms(job):
                text = f"{job.job_id} goes before {other.job_id}, which is wanted earlier"
                raise SimFailure(text, job.job_id, other.job_id)
            if other.sequence < job.sequence and wanted_ms(other) > wanted_ms(job):
                self._seen("deadline", "goes before who came earlier")


def _kind(job: Job) -> tuple[object, ...]:
    return job.demand, job.queue_name, job.standing, job.tenant_id, job.user_id


def _has_place(job: Job) -> bool:
    """Whether something is set aside for it: it may come later, and others are lent it meanwhile."""
    return bool(kept_for(job))


class NotBeforeItsTime(JobChecker):
    """A job that is to start after some time waits for it, and no longer."""

    def __init__(self, decides_since_ms: Callable[[], int], seen: Callable[..., None]) -> None:
        super().__init__()
        self._decides_since_ms = decides_since_ms
        self._seen = seen

    def changed(self, event: Changed, job: Job, *, before: Job | None) -> None:
        due_ms = job.policy.start_after_ms
        if job.attempt is None and is_in_line(job) and event.at_ms < due_ms:
            raise SimFailure(f"{job.job_id} may start before its time", job.job_id)
        if event.cause is Reason.PLACED and event.at_ms < due_ms:
            raise SimFailure(f"{job.job_id} starts before its time", job.job_id)
        waited = before is not None and before.reason == Reason.WAITING_FOR_START_TIME
        if not waited or not is_in_line(job):
            return
        since_ms = self._decides_since_ms()
        if event.at_ms - max(due_ms, since_ms) > LATE_MS:
            raise SimFailure(f"the time of {job.job_id} came long ago", job.job_id)
        self._seen("start time", "while nobody led" if since_ms > due_ms else "while somebody led")
