"""Properties of what queues and tenants hold, counted anew from all that is live."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from coordinator.core.decision import Changed, Event, Retired
from coordinator.core.reasons import Reason
from coordinator.core.records import ROOT, WHOLE, Job, JobStatus, Kind, Lease, Queue, Record
from tests.sim.kept import RecordsKept
from tests.sim.truth import Checker, SimFailure, Truth


def path_of(queues: Mapping[str, Queue], name: str) -> list[str]:
    """A queue and all above it."""
    path = [name]
    while path[-1] != ROOT:
        path.append(queues[path[-1]].parent if path[-1] in queues else ROOT)
    return path


class LimitsHold(Checker):
    """Nothing starts that brings a queue or a tenant over its limit, or in a queue that starts none, and
    nothing is let in that would; nobody is preempted for another queue so that less than a guarantee is
    left."""

    facts = (Job, Lease, Queue, Retired)

    def __init__(self, seen: Callable[[str, str], None]) -> None:
        self._seen = seen
        self._jobs: dict[str, Job] = {}
        self._leases: dict[str, Lease] = {}
        self._queues: dict[str, Queue] = {}

    def rewound(self, store: RecordsKept) -> None:
        self._jobs.clear()
        self._leases.clear()
        self._queues.clear()
        for record in store.live.values():
            self._take(record)

    def committed(self, event: Event, number: int) -> None:
        if isinstance(event, Retired) and event.kind is Kind.QUEUE:
            del self._queues[event.id]
        if not isinstance(event, Changed):
            return
        if isinstance(event.record, Job):
            self._check_let_in(event.record)
        self._take(event.record)
        if isinstance(event.record, Lease) and event.cause is Reason.LEASE_GRANTED:
            job = self._jobs[event.record.job_id]
            self._check(job, need_milli=0, what="starts")
        if isinstance(event.record, Job) and event.cause is Reason.PREEMPTED:
            self._check_left(event.record)

    def _take(self, record: Record) -> None:
        match record:
            case Job():
                self._jobs[record.job_id] = record
            case Lease():
                self._leases[record.lease_id] = record
            case Queue():
                self._queues[record.name] = record

    def _check_let_in(self, job: Job) -> None:
        """Who waits for devices for the first time finds room for itself below every limit."""
        before = self._jobs.get(job.job_id)
        waits = job.reason == Reason.WAITING_FOR_QUOTA
        if waits and (before is None or before.reason != job.reason):
            after = "after others or a time" if before is not None else "from the beginning"
            self._seen("quota", after)
        pending = before is None or before.status is JobStatus.PENDING
        if job.status is JobStatus.QUEUED and pending:
            need_milli = job.demand.thousandths * job.demand.device_count
            self._check(job, need_milli=need_milli, what="is let in", places=True)
            if before is not None and before.reason == Reason.WAITING_FOR_QUOTA:
                self._seen("quota", "is let in")

    def _check(self, job: Job, *, need_milli: int, what: str, places: bool = False) -> None:
        for name in path_of(self._queues, job.queue_name):
            queue = self._queues.get(name)
            if queue is None:
                continue
            limits = dict(queue.tenant_limits)
            most = limits.get(job.tenant_id, limits.get("*"))
            room = WHOLE * queue.max_devices - self._held(name) if queue.max_devices else need_milli
            if most is not None:
                room = min(room, WHOLE * most - self._held(name, job.tenant_id))
            if room < need_milli or not (queue.places or places):
                raise SimFailure(f"{job.job_id} {what} over a limit of queue {name}", job.job_id)

    def _check_left(self, job: Job) -> None:
        attempt = job.attempt
        if attempt is None or not attempt.makes_room_for or attempt.stop or attempt.ended_at_ms:
            return
        mine = path_of(self._queues, self._jobs[attempt.makes_room_for].queue_name)
        for name in path_of(self._queues, job.queue_name):
            if name in mine:
                return
            queue = self._queues.get(name)
            if queue is not None and self._stays(name) < WHOLE * queue.guaranteed_devices:
                raise SimFailure(f"{job.job_id} gives up what {name} is guaranteed", job.job_id)

    def _stays(self, name: str) -> int:
        """Thousandths of devices that a queue holds and nobody has asked back."""

        def goes(job: Job) -> bool:
            return job.attempt is not None and bool(job.attempt.stop or job.attempt.makes_room_for)

        jobs = (self._jobs[lease.job_id] for lease in self._leases.values() if not lease.is_ended)
        names = {job.job_id for job in jobs if not goes(job)}
        return sum(
            lease.thousandths * len(lease.device_ids)
            for lease in self._leases.values()
            if not lease.is_ended
            and lease.job_id in names
            and name in path_of(self._queues, self._jobs[lease.job_id].queue_name)
        )

    def _held(self, name: str, tenant_id: str = "") -> int:
        def counts(job_id: str) -> bool:
            job = self._jobs[job_id]
            of_tenant = tenant_id in ("", job.tenant_id)
            return of_tenant and name in path_of(self._queues, job.queue_name)

        return sum(
            lease.thousandths * len(lease.device_ids)
            for lease in self._leases.values()
            if not lease.is_ended and counts(lease.job_id)
        )


class QueuesAsSet(Checker):
    """Queues are as somebody set them, below queues that are there; one that is closed takes no new jobs."""

    facts = (Job, Queue, Retired)

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._queues: dict[str, Queue] = {}
        self._jobs: dict[str, str] = {}  # the queue that each is in

    def rewound(self, store: RecordsKept) -> None:
        records = list(store.live.values())
        self._queues = {x.name: x for x in records if isinstance(x, Queue)}
        self._jobs = {x.job_id: x.queue_name for x in records if isinstance(x, Job)}

    def committed(self, event: Event, number: int) -> None:
        if isinstance(event, Retired) and event.kind is Kind.QUEUE:
            del self._queues[event.id]
            below = [x.name for x in self._queues.values() if x.parent == event.id != ROOT]
            if below or event.id not in self._truth.asked.queues_removed:
                raise SimFailure(f"queue {event.id} is removed, and {below} are below it", event.id)
        if not isinstance(event, Changed):
            return
        if isinstance(event.record, Queue):
            self._set(event.record)
        elif isinstance(event.record, Job):
            self._enters(event.record)

    def _set(self, queue: Queue) -> None:
        before = self._queues.get(queue.name)
        self._queues[queue.name] = queue
        plain = replace(queue, version=1, updated_at_ms=0)
        if plain not in self._truth.asked.queues:
            raise SimFailure(f"queue {queue.name} is set as nobody asked", queue.name)
        if queue.version != (before.version + 1 if before is not None else 1):
            raise SimFailure(f"queue {queue.name} has version {queue.version}", queue.name)
        if queue.parent != ROOT and queue.parent not in self._queues:
            raise SimFailure(f"queue {queue.name} is below one that is not there", queue.name)

    def _enters(self, job: Job) -> None:
        before = self._jobs.get(job.job_id)
        self._jobs[job.job_id] = job.queue_name
        if before == job.queue_name:
            return
        path = path_of(self._queues, job.queue_name)
        if not all(self._queues[name].accepts for name in path if name in self._queues):
            raise SimFailure(f"{job.job_id} comes into a closed queue", job.job_id)
