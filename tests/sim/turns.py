"""Properties of preemption by the scheduler: for whom, of whom, and what becomes of the devices."""

from __future__ import annotations

from coordinator.core.decision import Changed, Event
from coordinator.core.known import is_moving
from coordinator.core.reasons import Reason
from coordinator.core.records import Job, JobStatus, Lease, Node, Queue, Record, StopCause
from tests.sim.coordinator import SETTINGS
from tests.sim.kept import RecordsKept
from tests.sim.quotas import path_of
from tests.sim.truth import Checker, SimFailure

WAIVES = (Reason.CANCELLED_BY_USER, Reason.PAUSED_BY_USER)


class RoomForOne(Checker):
    """Devices that are set aside go to nobody else, nobody is preempted without them, and for nobody who
    was cancelled or paused before."""

    facts = (Job, Lease, Queue, Node)

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._queues: dict[str, Queue] = {}
        self._kept: dict[str, str] = {}  # device → job
        self._forced: set[str] = set()  # nodes that are emptied by force
        self._waived: dict[str, set[str]] = {}  # by job that waits no more: nodes it was to have

    def rewound(self, store: RecordsKept) -> None:
        self._jobs.clear()
        self._queues.clear()
        self._kept.clear()
        self._forced.clear()
        self._waived.clear()
        for record in store.live.values():
            self._take(record)

    def committed(self, event: Event, number: int) -> None:
        if not isinstance(event, Changed):
            return
        record = event.record
        if isinstance(record, Lease) and event.cause is Reason.LEASE_GRANTED:
            for device_id in record.device_ids:
                waits = self._kept.get(device_id)
                if waits is not None:
                    text = f"{device_id} is set aside for {waits} and granted to {record.job_id}"
                    raise SimFailure(text, record.job_id, waits)
        if isinstance(record, Job) and event.cause is Reason.PREEMPTED:
            self._check_victim(record, event.at_ms)
        if isinstance(record, Job):
            self._check_waived(record, event.cause)
        self._take(record)

    def _check_victim(self, job: Job, at_ms: int) -> None:
        attempt = job.attempt
        if attempt is None or not attempt.makes_room_for or attempt.stop or attempt.ended_at_ms:
            return
        winner = self._jobs[attempt.makes_room_for]
        queue = self._queues.get(job.queue_name)
        since_ms = attempt.started_at_ms or attempt.granted_at_ms
        held = {share.node_id for share in attempt.shares}  # devices, or only CPUs and memory
        rooms = [
            x.room
            for x in self._jobs.values()
            if is_moving(x) and x.attempt and x.attempt.makes_room_for == winner.job_id
        ]
        wanted = {share.node_id for room in (winner.room, *rooms) for share in room}
        own = (
            queue is not None
            and queue.preempts
            and winner.queue_name == job.queue_name
            and winner.standing >= job.standing
        )
        if attempt.lent_by == winner.job_id and winner.claim:  # it was told before it began
            due_ms = winner.claim.from_ms
            wanted = {share.node_id for share in winner.claim.shares}
            own, since_ms = at_ms >= due_ms, -SETTINGS.min_run_ms
        wrong = (
            not (own or self._gives_back(job, winner))
            or not job.policy.preemptible
            or winner.status is not JobStatus.QUEUED
            or held.isdisjoint(wanted)
            or at_ms - since_ms < SETTINGS.min_run_ms
            or len(job.preempted_at_ms) > SETTINGS.max_preemptions_per_day
        )
        if wrong:
            raise SimFailure(f"{job.job_id} is preempted for {winner.job_id}", job.job_id)

    def _check_waived(self, job: Job, cause: Reason) -> None:
        """Who is asked to give way to one that waits no more goes on."""
        before = self._jobs.get(job.job_id)
        if job.status is JobStatus.QUEUED:
            self._waived.pop(job.job_id, None)
        elif before is not None and before.status is JobStatus.QUEUED and cause in WAIVES:
            shares = before.room or (before.claim.shares if before.claim else ())
            self._waived[job.job_id] = {share.node_id for share in shares}
        was, attempt = before.attempt if before else None, job.attempt
        if (
            was is None
            or attempt is None
            or was.stop
            or was.hold
            or was.ask is None
            or is_moving(job)
        ):
            return
        nodes = {share.node_id for share in attempt.shares}
        asked = was.ask.cause is StopCause.PREEMPTED is attempt.stop
        there = nodes & self._waived.get(attempt.makes_room_for, set())
        if asked and there and not nodes & self._forced:
            text = f"{job.job_id} is stopped for {attempt.makes_room_for}, which waits no more"
            raise SimFailure(text, job.job_id)

    def _gives_back(self, job: Job, winner: Job) -> bool:
        """Whether a queue above the winner is guaranteed devices that one above the victim borrows."""
        mine, theirs = self._path(winner), self._path(job)
        owed = any(self._queues[x].guaranteed_devices for x in mine if x in self._queues)
        return owed and mine != theirs

    def _path(self, job: Job) -> list[str]:
        return path_of(self._queues, job.queue_name)

    def _take(self, record: Record) -> None:
        if isinstance(record, Queue):
            self._queues[record.name] = record
        if isinstance(record, Node):
            is_forced = record.drain is not None and record.drain.force
            (self._forced.add if is_forced else self._forced.discard)(record.node_id)
        if not isinstance(record, Job):
            return
        before = self._jobs.get(record.job_id)
        self._jobs[record.job_id] = record
        for share in before.reserved if before is not None else ():
            for device_id in share.device_ids:
                self._kept.pop(device_id, None)
        for share in record.reserved:
            self._kept.update(dict.fromkeys(share.device_ids, record.job_id))

    def settled(self) -> None:
        if self._kept:
            raise SimFailure(f"devices stay set aside: {self._kept}", *self._kept.values())


def is_for_another(job: Job) -> bool:
    """Whether the scheduler preempted the job's attempt."""
    attempt = job.attempt
    return (
        attempt is not None and bool(attempt.makes_room_for) and attempt.stop is StopCause.PREEMPTED
    )
