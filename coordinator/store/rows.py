"""What a batch leaves behind, worked out once for every store: the last value of each record, and
the lines of the audit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from coordinator.core.decision import Changed, Retired
from coordinator.core.records import (
    Documents,
    Entry,
    History,
    Job,
    Key,
    Kind,
    Lease,
    Mix,
    Node,
    Queue,
    Record,
    Request,
    RollingDrain,
    Ruling,
    Usage,
)
from coordinator.store.protocol import JobFilter, StoredEvent

# The other kinds are bookkeeping beside a job; its own line tells the same.
AUDITED = frozenset({Kind.JOB, Kind.LEASE, Kind.NODE, Kind.KEY, Kind.QUEUE, Kind.ROLLING_DRAIN})

EVENTS_KEPT = 1_000_000  # lines of the audit; beyond, the oldest go
ENTRIES_KEPT = 1_000_000  # of the ledger; a lease has one for each day

# What `load` answers before the jobs, in this order; leases come after: each may refer to those before.
BEFORE_JOBS: tuple[Kind, ...] = (
    Kind.QUEUE,
    Kind.USAGE,
    Kind.HISTORY,
    Kind.MIX,
    Kind.NODE,
    Kind.KEY,
    Kind.REQUEST,
    Kind.ROLLING_DRAIN,
    Kind.RULING,
)

ORDERS: Mapping[str, Callable[[Job], str | int]] = {
    "created_at": lambda job: job.created_at_ms,
    "updated_at": lambda job: job.updated_at_ms,
    "name": lambda job: job.name,
    "priority": lambda job: job.priority,
    "status": lambda job: str(job.status),
}

Label = tuple[str, str]
ALL: Label = ("", "")  # every job has it
# No label of a user's may have these names: theirs are not empty, and hold no "=".
QUEUE, PARENT = "=queue", "=parent"

Small = (
    Lease | Node | Key | Request | Queue | Usage | History | Mix | RollingDrain | Ruling
)  # records that are deleted when they retire


@dataclass(slots=True)
class Outcome:
    """The state after a batch, where the batch touched it. Deletions come before what is kept."""

    jobs: dict[str, Job] = field(default_factory=dict)
    jobs_retired: dict[str, None] = field(default_factory=dict)
    records: dict[tuple[Kind, str], Small] = field(default_factory=dict)
    records_deleted: dict[tuple[Kind, str], None] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)  # kept only where there is none
    documents_deleted: dict[str, None] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)  # never changed, never retired

    def add(self, record: Record) -> None:
        if isinstance(record, Job):
            self.jobs[record.job_id] = record
            self.jobs_retired.pop(record.job_id, None)
        elif isinstance(record, Documents):
            for job_id, body in record.bodies:
                self.documents.setdefault(job_id, body)
        elif isinstance(record, Entry):
            self.entries.append(record)
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


def labels_of(job: Job) -> dict[str, str]:
    """What a job is filed under, beside ALL: its labels, its queue, its parent if it has one."""
    labels = dict(job.labels)
    labels[QUEUE] = job.queue_name
    if job.parent_job_id:
        labels[PARENT] = job.parent_job_id
    return labels


def asked_labels(where: JobFilter) -> tuple[Label, ...]:
    """The labels that a job must be filed under to match."""
    asked = dict.fromkeys(where.labels)
    asked |= {(QUEUE, where.queue_name): None} if where.queue_name else {}
    asked |= {(PARENT, where.parent_job_id): None} if where.parent_job_id else {}
    return tuple(asked)


def matches(job: Job, where: JobFilter) -> bool:
    """Whether a job is one of those that are asked for."""
    labels = labels_of(job)
    return (
        job.tenant_id == where.tenant_id
        and (not where.statuses or str(job.status) in where.statuses)
        and all(labels.get(key) == value for key, value in asked_labels(where))
        and (where.created_from_ms is None or job.created_at_ms >= where.created_from_ms)
        and (where.created_until_ms is None or job.created_at_ms < where.created_until_ms)
        and job.name.startswith(where.name_prefix)
    )


def outcome(events: Sequence[Changed | Retired]) -> Outcome:
    """What a batch comes to."""
    result = Outcome()
    for event in events:
        if isinstance(event, Changed):
            result.add(event.record)
        else:
            result.retire(event.kind, event.id)
    return result


AuditRow = tuple[int, str, str, str, str, str, int]  # at, kind, id, cause, actor, status, attempt


def audit_rows(events: Sequence[Changed | Retired]) -> list[AuditRow]:
    """The lines of a batch, in the order of the fields of StoredEvent, without their numbers."""
    rows: list[AuditRow] = []
    for event in events:
        if isinstance(event, Changed):
            record = event.record
            kind = record.kind
            if kind in AUDITED:
                status, attempt = _standing(record)
                line = (event.at_ms, str(kind), record.id, str(event.cause), event.actor)
                rows.append((*line, status, attempt))
        elif event.kind in AUDITED:
            line = (event.at_ms, event.kind.value, event.id, "RETIRED", event.actor)
            rows.append((*line, "", 0))
    return rows


def audit(events: Sequence[Changed | Retired], after: int) -> list[StoredEvent]:
    """The lines of a batch, numbered from `after` + 1."""
    return [
        stored_event(sequence, *row) for sequence, row in enumerate(audit_rows(events), after + 1)
    ]


def stored_event(sequence: int, *row: *AuditRow) -> StoredEvent:
    """A line with its number."""
    at_ms, kind, id, cause, actor, status, attempt = row
    return StoredEvent(
        sequence=sequence,
        at_ms=at_ms,
        kind=kind,
        id=id,
        cause=cause,
        actor=actor,
        status=status,
        attempt=attempt,
    )


def _standing(record: Record) -> tuple[str, int]:
    """Status and attempt of a record, where it has them."""
    if isinstance(record, Job):
        return str(record.status), record.attempt.number if record.attempt else 0
    if isinstance(record, Lease):
        return record.state.name, record.attempt
    return "", 0
