"""A decision while it is being made.

A handler judges first and changes afterwards: it refuses before its first `put`, or not at all. Each
fact is applied as it is noted, so the next line of a handler reads the state as it has become.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from coordinator.core import ledger
from coordinator.core.decision import (
    Changed,
    Decision,
    Effect,
    Event,
    Heard,
    Rejected,
    Reply,
    Retired,
    WakeAgent,
)
from coordinator.core.invariants import ensure
from coordinator.core.known import is_in_line, is_moving
from coordinator.core.reasons import Reason
from coordinator.core.records import (
    FINAL,
    Documents,
    Entry,
    Job,
    JobStatus,
    Kind,
    Lease,
    Node,
    Record,
    StopCause,
)
from coordinator.core.replacing import replace
from coordinator.core.state import ClusterState
from coordinator.core.tables import check_node, next_status

CORE = "core"


class Turn:
    """One step's facts and hints, noted in order."""

    def __init__(self, state: ClusterState, now_ms: int, *, epoch: int, actor: str = CORE) -> None:
        self.state = state
        self.now_ms = now_ms
        self.epoch = epoch
        self.actor = actor
        self.finished: deque[str] = deque()  # jobs that became final and are not yet settled
        self._events: list[Event] = []
        self._like: Changed | None = None  # the newest
        self._woken: dict[str, None] = {}
        self._foreseen: dict[str, tuple[str, ...]] = {}

    def put(self, record: Record, cause: Reason) -> None:
        """Notes that a record is new or changed."""
        self._note(self._changed(record, cause))

    def put_like(self, job: Job, cause: Reason, *, first: Job) -> None:
        """The same of a new job that only its id, age, name and labels tell from one that was put before."""
        event = self._changed(job, cause)
        self.state.apply_like(event, job, first=first)
        self._events.append(event)

    def keep(self, record: Documents | Entry, cause: Reason) -> None:
        """Notes what only the store keeps."""
        self._events.append(self._changed(record, cause))

    def _changed(self, record: Record, cause: Reason) -> Changed:
        like = self._like
        if like is not None and like.cause is cause:  # as most of many
            return replace(like, record=record)
        like = Changed(record=record, cause=cause, actor=self.actor, at_ms=self.now_ms)
        self._like = like
        return like

    def retire(self, kind: Kind, id: str) -> None:
        """Notes that a record leaves the live state."""
        self._note(Retired(kind=kind, id=id, at_ms=self.now_ms, actor=self.actor))

    def hear(
        self,
        node_id: str,
        incarnation: str,
        *,
        sequence: int,
        renewed: bool = False,
        unknown: tuple[str, ...] = (),
    ) -> None:
        """Notes that a node was heard, or could not have been."""
        self._note(
            Heard(
                node_id=node_id,
                incarnation=incarnation,
                sequence=sequence,
                at_ms=self.now_ms,
                renewed=renewed,
                unknown=unknown,
            )
        )

    def wake(self, node_id: str) -> None:
        """Hints that what is desired of a node has changed."""
        self._woken[node_id] = None

    def foresee(self, job_id: str, node_ids: tuple[str, ...]) -> None:
        """Hints where a job that waits will fit first."""
        self._foreseen[job_id] = node_ids

    def move(self, job: Job, cause: Reason, **changes: Any) -> Job:
        """Takes a job along an edge of the table; `changes` are of its other fields."""
        status = next_status(job.status, cause)
        changes = {"reason": cause.value, "message": "", "status": status, **changes}
        if status in FINAL:
            changes["completed_at_ms"] = self.now_ms
            self.finished.append(job.job_id)
        return self.edit(job, cause, **changes)

    def born(self, job: Job) -> Job:
        """A new job, with its place among those that wait."""
        return replace(job, work_ms=self.state.work_ms(job, now_ms=self.now_ms))

    def edit(self, job: Job, cause: Reason, **changes: Any) -> Job:
        """Changes a job; its status stays, unless `move` says otherwise."""
        ensure(not job.is_final, "a final job never changes", job.job_id)
        ensure(self.state.jobs.get(job.job_id) is job, "the job is the newest one", job.job_id)
        closed = self._count(job, changes)
        after = replace(job, version=job.version + 1, updated_at_ms=self.now_ms, **changes)
        if (after.room or after.claim or after.awaits) and not _keeps(job, after):
            after = replace(after, room=(), claim=None, awaits=None)
        if is_in_line(after) and not is_in_line(job):
            after = replace(after, work_ms=self.state.work_ms(after, now_ms=self.now_ms))
        for entry in closed.entries if closed else ():
            self.keep(entry, Reason.BOOKED)
        self.put(after, cause)
        for lease in closed.outliving if closed else ():
            self.put(lease, Reason.BOOKED)
        return after

    def _count(self, job: Job, changes: dict[str, Any]) -> ledger.Closed | None:
        """Adds to the changes of a job what its attempt's time was used for, and closes what ends."""
        if not ledger.is_open(job):
            return None
        attempt = ledger.followed(job, changes, now_ms=self.now_ms)
        if attempt is not None:
            changes["attempt"] = attempt
        attempt, to = changes.get("attempt", job.attempt), changes.get("status", job.status)
        if attempt is None or ledger.may_get_on(to, attempt):
            return None
        rival = self.state.jobs.get(attempt.makes_room_for)
        gives_way = attempt.stop is StopCause.PREEMPTED and bool(attempt.stopped_by)
        closed = ledger.closed(
            job,
            self.state.attempt_leases(job),
            to=to,
            attempt=attempt,
            is_foreign=gives_way and (rival is None or rival.tenant_id != job.tenant_id),
            now_ms=self.now_ms,
        )
        changes |= closed.changes
        return closed

    def edit_lease(self, lease: Lease, cause: Reason, **changes: Any) -> Lease:
        """Changes a lease. One that outlives its attempt is booked when it ends."""
        leaves = ledger.leaves(lease, changes)
        if leaves:
            job = self.state.jobs[lease.job_id]
            changes["days"] = ledger.days_of(job, lease, now_ms=self.now_ms)
        after = replace(lease, **changes)
        self.put(after, cause)
        if leaves and after.days and ledger.is_booked(job, after):
            entry = ledger.entry(job, after, losses=job.losses, now_ms=self.now_ms)
            self.keep(entry, Reason.BOOKED)
            # also of a job that is final: of what it was, nothing else ever changes
            spent = ledger.with_entries(job.spent, (entry,))
            self.put(replace(job, spent=spent, version=job.version + 1), Reason.BOOKED)
        return after

    def edit_node(self, node: Node, cause: Reason, **changes: Any) -> Node:
        """Changes a node."""
        after = replace(node, version=node.version + 1, updated_at_ms=self.now_ms, **changes)
        check_node(node, after, cause=cause)
        self.put(after, cause)
        return after

    def decision(self, reply: Reply | Rejected | None = None) -> Decision:
        """All that was noted."""
        if not isinstance(reply, Rejected):
            self._note_shares()
        effects: tuple[Effect, ...] = tuple(WakeAgent(node_id=key) for key in self._woken)
        ensure(
            not (isinstance(reply, Rejected) and self._events), "a refusal changes nothing", reply
        )
        return Decision(
            reply=reply,
            events=tuple(self._events),
            effects=effects,
            foreseen=tuple(self._foreseen.items()),
        )

    def _note_shares(self) -> None:
        """What is compared of what queues and users hold."""
        shares, most = self.state.shares, self.state.settings.max_usages
        for usage in shares.renewed(self.now_ms):
            if usage.account not in shares.usages and len(shares.usages) >= most:
                stale = shares.stalest()
                if stale is not None:
                    self.retire(Kind.USAGE, stale)
            self.put(usage, Reason.SHARE_NOTED)

    def _note(self, event: Event) -> None:
        self.state.apply(event)
        self._events.append(event)


def _keeps(before: Job, after: Job) -> bool:
    """Whether what is set aside for a job stays so: while it waits, or is on its way to it."""
    if after.status is not JobStatus.QUEUED:
        return is_moving(after)
    return before.status in (JobStatus.QUEUED, JobStatus.PREEMPTED)
