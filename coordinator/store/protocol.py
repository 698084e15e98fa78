"""What a store promises. Every implementation passes tests/contract/stores.

A store MUST make a batch atomic: all of its events or none. It MUST be idempotent by batch id, so that
after a time-out the driver can ask again and learn whether the batch landed. It MUST refuse a batch of
an older epoch (Fenced) or on another version (Conflict), and change nothing then. When `commit`
returns, the batch survives a crash of the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from coordinator.core.decision import Changed, Retired
from coordinator.core.records import Job, Record
from coordinator.core.times import Spent

LEASE_TTL_S = 3.0


class StoreError(Exception):
    """Base of the only errors that a store raises."""


class Fenced(StoreError):
    """Another leader has taken over; this one must forget what it holds and step down."""


class Conflict(StoreError):
    """The store is not at the version that the batch was made on."""


class StoreUnavailable(StoreError):
    """It is not known whether the call had its effect; ask again, or reload."""


class StoreLost(StoreUnavailable):
    """What is there is not what was there before: a person must look, and waiting does not help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leader:
    """Who leads, under which epoch, and where it answers (HOST:PORT; "" where that is not known)."""

    epoch: int
    holder: str
    address: str


class Led(StoreError):
    """Another one leads, for some seconds more unless it renews."""

    def __init__(self, leader: Leader, *, for_s: float) -> None:
        super().__init__(f"{leader.holder} leads at {leader.address or 'an unknown address'}")
        self.leader = leader
        self.for_s = for_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Facts that become durable together, in order."""

    id: str
    events: tuple[Changed | Retired, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All live records (without documents), in an order in which they can be applied, and the version."""

    records: tuple[Record, ...]
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs to list. Empty fields do not filter; labels must all match."""

    tenant_id: str
    statuses: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    queue_name: str = ""
    parent_job_id: str = ""
    created_from_ms: int | None = None  # accepted then or later
    created_until_ms: int | None = None  # accepted before
    name_prefix: str = ""
    order_by: str = "created_at"  # created_at, updated_at, name, priority, status
    descending: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """One page; `next_key` is None on the last.

    A page may hold fewer jobs than it could, and none, before others that hold more: where several
    filters meet, a store looks through so many jobs a page and no more.
    """

    jobs: tuple[Job, ...]
    next_key: tuple[str | int, str] | None  # (value of order_by, job_id), after which to go on
    total_count: int  # over all pages
    total_is_least: bool = False  # counting ended early: as many match, or more


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """One line of the audit: what changed, why, by whom. `status` is the record's status, if any."""

    sequence: int
    at_ms: int
    kind: str
    id: str
    cause: str  # a name of Reason; "RETIRED" for a record that left
    actor: str
    status: str
    attempt: int


class UsageBy(StrEnum):
    """By what the ledger is summed; the value is what a store calls it."""

    JOB = "job_id"
    USER = "user_id"
    QUEUE = "queue_name"
    NODE = "node_id"
    TENANT = "tenant_id"
    CAUSE = "cause"  # of what was redone


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageFilter:
    """Which entries of the ledger are summed, and by what. Empty fields do not filter."""

    by: UsageBy
    from_day: int  # counted from 1970, UTC
    until_day: int  # not in it
    until_version: int  # of the store; what is newer is left out
    tenant_id: str = ""
    user_id: str = ""
    queue_name: str = ""
    node_id: str = ""
    job_id: str = ""


@dataclass(frozen=True, slots=True)
class UsageGroup:
    """What was used under one name; `tenant_id` is "" where several may be in it.

    By CAUSE the name is a StopCause, a slash and the id that goes with it; no id where a tenant may not
    know it.
    """

    key: str
    tenant_id: str
    spent: Spent  # device-microseconds


class Store(Protocol):
    """Where the coordinator's authority lives."""

    async def open(self) -> None:
        """Opens or creates it, and migrates. Raises StoreUnavailable with what to do."""

    async def close(self) -> None:
        """Closes it; safe to call twice."""

    async def acquire(self, holder: str, *, address: str = "", ttl_s: float = LEASE_TTL_S) -> int:
        """Takes leadership for some seconds; answers a fencing epoch, higher than every one before.

        Who leads already is given a new epoch. In a store that only one process can open, nobody else
        leads, and leadership has no end. Raises Led, StoreLost.
        """

    async def renew(self, epoch: int, *, ttl_s: float = LEASE_TTL_S) -> None:
        """Leads on for some seconds from now; with 0, lets go. Raises Fenced."""

    async def secret(self) -> bytes:
        """32 random bytes, made with the store and always the same; only coordinators know them."""

    async def load(self) -> Snapshot:
        """All live records."""

    async def commit(self, batch: Batch, *, epoch: int, expected_version: int) -> int:
        """Makes a batch durable; answers the new version. Raises Fenced, Conflict, StoreUnavailable."""

    async def job(self, job_id: str) -> Job | None:
        """A job, live or history."""

    async def document(self, job_id: str) -> bytes | None:
        """What was submitted as this job."""

    async def documents(self, job_ids: Sequence[str]) -> dict[str, bytes]:
        """What was submitted as each of some jobs; those without are missing."""

    async def list_jobs(
        self, where: JobFilter, *, limit: int, after: tuple[str | int, str] | None = None
    ) -> JobPage:
        """A page of jobs, live and history."""

    async def count_jobs(self, tenant_id: str) -> dict[str, int]:
        """A tenant's jobs by status, live and history."""

    async def events(
        self, *, id: str | None = None, after: int = 0, limit: int = 100
    ) -> tuple[StoredEvent, ...]:
        """Audit lines after a sequence, of one record or of all."""

    async def usage(self, where: UsageFilter, *, limit: int) -> tuple[UsageGroup, ...]:
        """Sums of the ledger, of leases that have ended; at most `limit` of them, in no order."""
