"""The store in memory: for tests, and for trying things out. Nothing survives the process, and the
history grows with every job."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Sequence
from itertools import islice

from coordinator.core.records import Entry, Job, Kind, Record
from coordinator.store.protocol import (
    LEASE_TTL_S,
    Batch,
    Conflict,
    Fenced,
    JobFilter,
    JobPage,
    Snapshot,
    StoredEvent,
    StoreUnavailable,
    UsageFilter,
    UsageGroup,
)
from coordinator.store.rows import (
    BEFORE_JOBS,
    ENTRIES_KEPT,
    EVENTS_KEPT,
    ORDERS,
    Outcome,
    Small,
    audit,
    matches,
    outcome,
)
from coordinator.store.usage import Sums

BATCHES_KEPT = 1000
EVENTS_MAX = 10_000
LIMIT_MAX = 1000


class MemoryStore:
    """A Store in dictionaries; what it holds stays when it is closed and opened again."""

    def __init__(self, *, events_kept: int = EVENTS_KEPT) -> None:
        self._is_open = False
        self._secret = secrets.token_bytes(32)
        self._epoch = 0
        self._version = 0
        self._batches: dict[str, int] = {}
        self._jobs: dict[str, Job] = {}
        self._live: dict[str, None] = {}
        self._records: dict[tuple[Kind, str], Small] = {}
        self._documents: dict[str, bytes] = {}
        self._events: deque[StoredEvent] = deque(maxlen=events_kept)
        self._entries: deque[tuple[int, Entry]] = deque(maxlen=ENTRIES_KEPT)  # with versions

    async def open(self) -> None:
        self._is_open = True

    async def close(self) -> None:
        self._is_open = False

    async def acquire(self, holder: str, *, address: str = "", ttl_s: float = LEASE_TTL_S) -> int:
        self._check_open()
        self._epoch += 1
        return self._epoch

    async def renew(self, epoch: int, *, ttl_s: float = LEASE_TTL_S) -> None:
        self._check_open()
        if epoch != self._epoch:
            raise Fenced(f"epoch {epoch} is over; the leader's is {self._epoch}")

    async def secret(self) -> bytes:
        self._check_open()
        return self._secret

    async def load(self) -> Snapshot:
        self._check_open()
        records = sorted(self._records.values(), key=lambda record: record.id)
        jobs = sorted(
            (self._jobs[job_id] for job_id in self._live),
            key=lambda job: (job.sequence, job.job_id),
        )
        ordered: list[Record] = []
        for kind in BEFORE_JOBS:
            ordered.extend(record for record in records if record.kind is kind)
        ordered.extend(jobs)
        ordered.extend(record for record in records if record.kind is Kind.LEASE)
        return Snapshot(records=tuple(ordered), version=self._version)

    async def commit(self, batch: Batch, *, epoch: int, expected_version: int) -> int:
        self._check_open()
        if epoch != self._epoch:
            raise Fenced(f"epoch {epoch} is over; the leader's is {self._epoch}")
        if batch.id in self._batches:
            return self._batches[batch.id]
        if expected_version != self._version:
            raise Conflict(
                f"the store is at version {self._version}, the batch was made on {expected_version}"
            )
        self._apply(outcome(batch.events))
        self._events.extend(audit(batch.events, self._events[-1].sequence if self._events else 0))
        self._version += 1
        self._batches[batch.id] = self._version
        if len(self._batches) > BATCHES_KEPT:
            del self._batches[next(iter(self._batches))]
        return self._version

    def _apply(self, what: Outcome) -> None:
        self._jobs.update(what.jobs)
        self._live.update(dict.fromkeys(what.jobs))
        for job_id in what.jobs_retired:
            self._live.pop(job_id, None)
        for key in what.records_deleted:
            self._records.pop(key, None)
        self._records.update(what.records)
        for job_id in what.documents_deleted:
            self._documents.pop(job_id, None)
        for job_id, body in what.documents.items():
            self._documents.setdefault(job_id, body)
        self._entries.extend((self._version + 1, entry) for entry in what.entries)

    async def job(self, job_id: str) -> Job | None:
        self._check_open()
        return self._jobs.get(job_id)

    async def document(self, job_id: str) -> bytes | None:
        self._check_open()
        return self._documents.get(job_id)

    async def documents(self, job_ids: Sequence[str]) -> dict[str, bytes]:
        self._check_open()
        return {id: self._documents[id] for id in job_ids if id in self._documents}

    async def list_jobs(
        self, where: JobFilter, *, limit: int, after: tuple[str | int, str] | None = None
    ) -> JobPage:
        self._check_open()
        if where.order_by not in ORDERS:
            raise ValueError(f"jobs cannot be ordered by {where.order_by}")
        value = ORDERS[where.order_by]
        found = sorted(
            ((value(job), job.job_id, job) for job in self._jobs.values() if matches(job, where)),
            key=lambda entry: entry[:2],
            reverse=where.descending,
        )
        rest = found
        if after is not None and where.descending:
            rest = [entry for entry in found if entry[:2] < after]
        elif after is not None:
            rest = [entry for entry in found if entry[:2] > after]
        page = rest[: max(1, min(limit, LIMIT_MAX))]
        return JobPage(
            jobs=tuple(job for _, _, job in page),
            next_key=page[-1][:2] if len(page) < len(rest) else None,
            total_count=len(found),
        )

    async def count_jobs(self, tenant_id: str) -> dict[str, int]:
        self._check_open()
        counts: dict[str, int] = {}
        for job in self._jobs.values():
            if job.tenant_id == tenant_id:
                counts[str(job.status)] = counts.get(str(job.status), 0) + 1
        return counts

    async def events(
        self, *, id: str | None = None, after: int = 0, limit: int = 100
    ) -> tuple[StoredEvent, ...]:
        self._check_open()
        found = (line for line in self._events if line.sequence > after and id in (None, line.id))
        return tuple(islice(found, max(0, min(limit, EVENTS_MAX))))

    async def usage(self, where: UsageFilter, *, limit: int) -> tuple[UsageGroup, ...]:
        self._check_open()
        sums = Sums(where)
        for version, entry in self._entries:
            if version <= where.until_version:
                sums.add(entry)
        return sums.groups(limit)

    def _check_open(self) -> None:
        if not self._is_open:
            raise StoreUnavailable("the store is not open")
