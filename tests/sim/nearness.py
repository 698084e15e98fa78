"""Nodes that tell how fast they fetch, and what must hold of who waits for one that holds its data.

In some of the worlds with images fetching one takes minutes, by what nodes tell. So who finds room where it is
not may wait for where it is.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from coordinator.core.decision import Changed, Event
from coordinator.core.reasons import Reason
from coordinator.core.records import Await, Job, JobStatus, Lease, Node, Record, Share
from tests.sim.clock import MINUTE
from tests.sim.coordinator import SETTINGS
from tests.sim.kept import RecordsKept
from tests.sim.truth import Checker, SimFailure

WORLDS = 2  # of those with images one in so many has slow nodes
RATES = (0, 15_000_000, 25_000_000, 70_000_000)  # bytes per second; 0 is never told
LATE_MS = 2 * MINUTE  # by which a deadline may pass while nobody leads


def rate_of(rng: Random) -> int:
    """How fast one node tells to fetch."""
    return rng.choice(RATES)


class DataIsNear(Checker):
    """Who waits for its data waits once, for nodes that hold some, no longer than it may; it gets what it
    waits for, or stands in line again."""

    facts = (Job, Lease, Node)

    def __init__(self, seen: Callable[..., None]) -> None:
        self._seen = seen
        self._jobs: dict[str, Job] = {}
        self._held: dict[str, set[str]] = {}  # by node
        self._leases: dict[str, Lease] = {}
        self._waits: dict[str, Await] = {}

    def rewound(self, store: RecordsKept) -> None:
        for table in (self._jobs, self._held, self._leases, self._waits):
            table.clear()
        for record in store.live.values():
            self._take(record)

    def committed(self, event: Event, number: int) -> None:
        if not isinstance(event, Changed):
            return
        for job_id, waits in self._waits.items():
            if event.at_ms > waits.until_ms + LATE_MS and event.cause is Reason.PLACED:
                raise SimFailure(f"{job_id} waits for its data for too long", job_id)
        record = event.record
        if isinstance(record, Job):
            before = self._jobs.get(record.job_id)
            if event.cause is Reason.DATA_AWAITED:
                self._check_begun(before, record, event.at_ms)
            elif before is not None and record.job_id in self._waits:
                self._check_over(before, record, event.cause)
        self._take(record)

    def _check_begun(self, before: Job | None, job: Job, at_ms: int) -> None:
        waits = job.awaits
        self._seen("data", "is awaited")
        wrong = (
            before is None
            or waits is None
            or before.awaits is not None
            or job.status is not JobStatus.QUEUED
            or not at_ms < waits.until_ms <= at_ms + SETTINGS.near_data_ms
            or not all(
                self._held.get(x.node_id, set()).intersection(job.wants) for x in waits.shares
            )
            or not any(self._is_held(share) for share in waits.shares)
        )
        if wrong:
            raise SimFailure(f"{job.job_id} waits for its data: {waits}", job.job_id)

    def _check_over(self, before: Job, job: Job, cause: Reason) -> None:
        waits = self._waits[job.job_id]
        if cause is Reason.PLACED:
            self._seen("data", "comes free")
            if job.attempt is None or job.attempt.shares != waits.shares or job.awaits is not None:
                raise SimFailure(f"{job.job_id} gets something else", job.job_id)
        elif cause is Reason.ROOM_LOST:
            self._seen("data", "does not come free")
            if job.awaits is None or job.awaits.shares:
                raise SimFailure(f"{job.job_id} waits on, or anew", job.job_id)
        elif job.status is JobStatus.QUEUED and job.awaits != before.awaits:
            raise SimFailure(f"{job.job_id} waits otherwise by {cause}", job.job_id)

    def _is_held(self, share: Share) -> bool:
        return any(
            lease.node_id == share.node_id and not lease.is_ended for lease in self._leases.values()
        )

    def _take(self, record: Record) -> None:
        match record:
            case Node():
                self._held[record.node_id] = set(record.offer.holds)
            case Lease():
                self._leases[record.lease_id] = record
            case Job():
                self._jobs[record.job_id] = record
                self._waits.pop(record.job_id, None)
                if record.awaits is not None and record.awaits.shares:
                    self._waits[record.job_id] = record.awaits

    def settled(self) -> None:
        if self._waits:
            raise SimFailure(f"somebody waits for its data still: {self._waits}", *self._waits)
