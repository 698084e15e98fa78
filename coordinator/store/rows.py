"""What a batch leaves behind, worked out once for every store: the last value of each record, and
the lines of the audit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from coordinator.core.decision import Changed, Retired
from coordinator.core.records import Document, Job, Key, Kind, Lease, Node, Record, Request
from coordinator.store.protocol import StoredEvent

# Requests and documents are bookkeeping beside a job; the job's own line tells the same.
AUDITED = frozenset({Kind.JOB, Kind.LEASE, Kind.NODE, Kind.KEY})

EVENTS_KEPT = 1_000_000  # lines of the audit; beyond, the oldest go

# What `load` answers before the jobs, in this order; leases come after: each may refer to those before.
BEFORE_JOBS: tuple[Kind, ...] = (Kind.NODE, Kind.KEY, Kind.REQUEST)

ORDERS: Mapping[str, Callable[[Job], str | int]] = {
    "created_at": lambda job: job.created_at_ms,
    "updated_at": lambda job: job.updated_at_ms,
    "name": lambda job: job.name,
    "priority": lambda job: job.priority,
    "status": lambda job: str(job.status),
}

Small = Lease | Node | Key | Request  # records that are deleted when they retire


@dataclass(slots=True)
class Outcome:
    """The state after a batch, where the batch touched it. Deletions come before what is kept."""

    jobs: dict[str, Job] = field(default_factory=dict)
    jobs_retired: dict[str, None] = field(default_factory=dict)
    records: dict[tuple[Kind, str], Small] = field(default_factory=dict)
    records_deleted: dict[tuple[Kind, str], None] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)  # kept only where there is none
    documents_deleted: dict[str, None] = field(default_factory=dict)

    def add(self, record: Record) -> None:
        if isinstance(record, Job):
            self.jobs[record.job_id] = record
            self.jobs_retired.pop(record.job_id, None)
        elif isinstance(record, Document):
            self.documents.setdefault(record.job_id, record.body)
        else:
            self.records[record.kind, record.id] = record

    def retire(self, kind: Kind, id: str) -> None:
        if kind is Kind.JOB:
            self.jobs_retired[id] = None
        elif kind is Kind.DOCUMENT:
            self.documents.pop(id, None)
            self.documents_deleted[id] = None
        else:
            self.records.pop((kind, id), None)
            self.records_deleted[kind, id] = None


def outcome(events: Sequence[Changed | Retired]) -> Outcome:
    """What a batch comes to."""
    result = Outcome()
    for event in events:
        if isinstance(event, Changed):
            result.add(event.record)
        else:
            result.retire(event.kind, event.id)
    return result


def audit(events: Sequence[Changed | Retired], after: int) -> list[StoredEvent]:
    """The lines of a batch, numbered from `after` + 1."""
    lines: list[StoredEvent] = []
    for event in events:
        record = event.record if isinstance(event, Changed) else None
        kind, id = (record.kind, record.id) if record else (event.kind, event.id)  # type: ignore[union-attr]
        if kind not in AUDITED:
            continue
        status, attempt = _standing(record)
        lines.append(
            StoredEvent(
                sequence=after + len(lines) + 1,
                at_ms=event.at_ms,
                kind=str(kind),
                id=id,
                cause=str(event.cause) if isinstance(event, Changed) else "RETIRED",
                actor=event.actor if isinstance(event, Changed) else "core",
                status=status,
                attempt=attempt,
            )
        )
    return lines


def _standing(record: Record | None) -> tuple[str, int]:
    """Status and attempt of a record, where it has them."""
    if isinstance(record, Job):
        return str(record.status), record.attempt.number if record.attempt else 0
    if isinstance(record, Lease):
        return record.state.name, record.attempt
    return "", 0
