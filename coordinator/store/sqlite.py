"""The embedded store: one SQLite file, durable at every commit (WAL, synchronous=FULL).

A batch is one transaction of few statements: each takes all rows of one table, because every step of a
statement may have to win the interpreter lock back from a busy event loop.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from coordinator.core.records import Job, Kind, Record
from coordinator.sqlite.database import Database, Work, insert_rows, transaction
from coordinator.sqlite.files import Schema
from coordinator.store.codec import CODECS, CodecError, decode, decode_job, encode
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
    Outcome,
    audit_rows,
    labels_of,
    outcome,
    stored_event,
)
from coordinator.store.sqlite_index import Filed, counts, filed, read, refile
from coordinator.store.sqlite_usage import PUT_ENTRIES, TRIM_ENTRIES, entry_rows, usage

T = TypeVar("T")

_encode_job = CODECS[Kind.JOB].encode

APPLICATION_ID = 0x4D434F53  # "MCOS"
EVENTS_MAX = 10_000  # of one answer
EVENTS_SLACK = (
    16  # more lines that a commit deletes than it writes, so that a smaller budget is met
)

SCHEMA = Schema.of(Path(__file__).parent, APPLICATION_ID)

PUT_JOBS = """INSERT INTO jobs (job_id, tenant_id, status, priority, name, created_at, updated_at,
    sequence, live, labels, body)"""
ON_KNOWN_JOB = """ON CONFLICT (job_id) DO UPDATE SET tenant_id = excluded.tenant_id,
    status = excluded.status, priority = excluded.priority, name = excluded.name,
    created_at = excluded.created_at, updated_at = excluded.updated_at,
    sequence = excluded.sequence, live = excluded.live, labels = excluded.labels,
    body = excluded.body"""
# Sequences have no holes, so what goes is a range at the beginning.
TRIM_EVENTS = """DELETE FROM events WHERE sequence <= (SELECT max(sequence) FROM events) - ?1
    AND sequence < (SELECT min(sequence) FROM events) + ?2"""
LEADER = "SELECT epoch FROM leadership"
ON_KNOWN_RECORD = "ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body"


class SqliteStore:
    """A Store in one file. The directory must exist; the file is created where there is none.

    Args:
        path: the file.
        events_kept: lines of the audit; beyond, the oldest go, a few with each commit.
        entries_kept: of the ledger, likewise.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        events_kept: int = EVENTS_KEPT,
        entries_kept: int = ENTRIES_KEPT,
    ) -> None:
        self._events_kept = events_kept
        self._entries_kept = entries_kept
        self._database = Database(Path(path), SCHEMA, trouble=StoreUnavailable)

    async def open(self) -> None:
        await self._database.open()

    async def close(self) -> None:
        await self._database.close()

    async def acquire(self, holder: str, *, address: str = "", ttl_s: float = LEASE_TTL_S) -> int:
        def work(connection: sqlite3.Connection) -> int:
            rows = connection.execute(
                "UPDATE leadership SET epoch = epoch + 1, holder = ? RETURNING epoch", (holder,)
            ).fetchall()
            return int(rows[0][0])

        epoch = await self._database.write(work)
        await self._database.fold()  # whatever becomes of the log, no epoch is ever given twice
        return epoch

    async def renew(self, epoch: int, *, ttl_s: float = LEASE_TTL_S) -> None:
        """The lock on the file is the leadership; here is only looked whether the epoch is the last."""
        (leader,) = await self._read(lambda one: one.execute(LEADER).fetchone())
        if epoch != leader:
            raise Fenced(f"epoch {epoch} is over; the leader's is {leader}")

    async def secret(self) -> bytes:
        def work(connection: sqlite3.Connection) -> bytes:
            (secret,) = connection.execute("SELECT secret FROM secret").fetchone()
            return bytes(secret)

        return await self._read(work)

    async def load(self) -> Snapshot:
        """All live records. After a write that failed, only once writing works again."""
        if self._database.in_doubt:
            await self._database.write(_touch)
        return await self._read(_load)

    async def commit(self, batch: Batch, *, epoch: int, expected_version: int) -> int:
        prepared = _Prepared(batch)

        def work(connection: sqlite3.Connection) -> int:
            known = _guard(connection, batch.id, epoch, expected_version=expected_version)
            if known is not None:
                return known
            prepared.write(connection, expected_version + 1)
            prepared.trim(connection, self._events_kept, entries_kept=self._entries_kept)
            return expected_version + 1

        return await self._database.write(work)

    async def job(self, job_id: str) -> Job | None:
        def work(connection: sqlite3.Connection) -> Job | None:
            row = connection.execute("SELECT body FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
            return None if row is None else decode_job(row[0].encode())

        return await self._read(work)

    async def document(self, job_id: str) -> bytes | None:
        return (await self.documents((job_id,))).get(job_id)

    async def documents(self, job_ids: Sequence[str]) -> dict[str, bytes]:
        """What was submitted as each of some jobs; those without are missing."""
        wanted = _json(list(job_ids))

        def work(connection: sqlite3.Connection) -> dict[str, bytes]:
            return dict(
                connection.execute(
                    "SELECT job_id, body FROM documents"
                    " WHERE job_id IN (SELECT value FROM json_each(?))",
                    (wanted,),
                ).fetchall()
            )

        return await self._read(work)

    async def list_jobs(
        self, where: JobFilter, *, limit: int, after: tuple[str | int, str] | None = None
    ) -> JobPage:
        return await self._read(
            lambda connection: read(connection, where, limit=limit, after=after)
        )

    async def count_jobs(self, tenant_id: str) -> dict[str, int]:
        return await self._read(lambda connection: counts(connection, tenant_id))

    async def events(
        self, *, id: str | None = None, after: int = 0, limit: int = 100
    ) -> tuple[StoredEvent, ...]:
        which, arguments = ("id = ? AND", [id]) if id is not None else ("", [])

        def work(connection: sqlite3.Connection) -> tuple[StoredEvent, ...]:
            rows = connection.execute(
                "SELECT sequence, at, kind, id, cause, actor, status, attempt FROM events"
                f" WHERE {which} sequence > ? ORDER BY sequence LIMIT ?",
                [*arguments, after, max(0, min(limit, EVENTS_MAX))],
            )
            return tuple(stored_event(*row) for row in rows)

        return await self._read(work)

    async def usage(self, where: UsageFilter, *, limit: int) -> tuple[UsageGroup, ...]:
        return await self._read(lambda connection: usage(connection, where, limit=limit))

    async def _read(self, work: Work[T]) -> T:
        try:
            return await self._database.read(work)
        except CodecError as error:
            raise StoreUnavailable(
                f"{self._database.path}: {error}; use the version that wrote it, or restore a backup"
            ) from error


class _Prepared:
    """The rows of a batch, encoded before the writing thread is asked."""

    def __init__(self, batch: Batch) -> None:
        self._id = batch.id
        self._outcome = outcome(batch.events)
        self._jobs = _Jobs(
            (job, job_id not in self._outcome.jobs_retired)
            for job_id, job in self._outcome.jobs.items()
        )
        self._records = [
            (str(kind), id, encode(record).decode())
            for (kind, id), record in self._outcome.records.items()
        ]
        self._events = audit_rows(batch.events)
        self._entries = entry_rows(self._outcome.entries)

    def write(self, connection: sqlite3.Connection, version: int) -> None:
        """Writes them, as the batch of a version. Deletions come first."""
        _delete(connection, self._outcome)
        self._jobs.write(connection)
        insert_rows(
            connection,
            "INSERT INTO records (kind, id, body)",
            self._records,
            tail=ON_KNOWN_RECORD,
        )
        insert_rows(
            connection,
            "INSERT INTO documents (job_id, body)",
            list(self._outcome.documents.items()),
            tail="ON CONFLICT (job_id) DO NOTHING",
        )
        insert_rows(
            connection,
            "INSERT INTO events (version, at, kind, id, cause, actor, status, attempt)",
            [(version, *row) for row in self._events],
        )
        insert_rows(connection, PUT_ENTRIES, [(version, *row) for row in self._entries])
        connection.execute("INSERT INTO batches VALUES (?, ?)", (self._id, version))

    def trim(self, connection: sqlite3.Connection, events_kept: int, *, entries_kept: int) -> None:
        """Lets the oldest lines of audit and ledger go, hardly more than were written."""
        connection.execute(TRIM_EVENTS, (events_kept, len(self._events) + EVENTS_SLACK))
        if self._entries:
            connection.execute(TRIM_ENTRIES, (entries_kept, len(self._entries) + EVENTS_SLACK))


class _Jobs:
    """Rows of jobs, each live or not, encoded."""

    def __init__(self, jobs: Iterable[tuple[Job, bool]]) -> None:
        # jobs of one batch mostly share what they are filed under
        texts: dict[tuple[object, ...], str] = {}
        self._rows = [_job_row(job, live=live, texts=texts) for job, live in jobs]
        self._filed: dict[str, Filed] = {
            job_id: (tenant_id, status, created_at, labels)
            for job_id, tenant_id, status, _, _, created_at, _, _, _, labels, _ in self._rows
        }

    def write(self, connection: sqlite3.Connection) -> None:
        """Writes them, and files them under their labels."""
        before = filed(connection, self._filed) if self._filed else {}
        insert_rows(connection, PUT_JOBS, self._rows, tail=ON_KNOWN_JOB)
        refile(connection, before, self._filed)


def put_jobs(connection: sqlite3.Connection, jobs: Iterable[tuple[Job, bool]]) -> None:
    """Writes jobs, each live or not, as they are."""
    _Jobs(jobs).write(connection)


def _job_row(job: Job, *, live: bool, texts: dict[tuple[object, ...], str]) -> tuple[Any, ...]:
    filed_under = job.labels, job.queue_name, job.parent_job_id
    labels = texts.get(filed_under)
    if labels is None:
        labels = texts[filed_under] = _json(labels_of(job))
    return (
        job.job_id,
        job.tenant_id,
        str(job.status),
        job.priority,
        job.name,
        job.created_at_ms,
        job.updated_at_ms,
        job.sequence,
        int(live),
        labels,
        _encode_job(job).decode(),
    )


def _delete(connection: sqlite3.Connection, what: Outcome) -> None:
    retired = [job_id for job_id in what.jobs_retired if job_id not in what.jobs]
    for statement, ids in (
        ("UPDATE jobs SET live = 0 WHERE job_id IN", retired),
        ("DELETE FROM documents WHERE job_id IN", list(what.documents_deleted)),
    ):
        if ids:
            connection.execute(f"{statement} (SELECT value FROM json_each(?))", (_json(ids),))
    if what.records_deleted:
        connection.execute(
            "DELETE FROM records WHERE (kind, id) IN (SELECT json_extract(value, '$[0]'),"
            " json_extract(value, '$[1]') FROM json_each(?))",
            (_json(list(what.records_deleted)),),
        )


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _guard(
    connection: sqlite3.Connection, batch_id: str, epoch: int, *, expected_version: int
) -> int | None:
    """The version of a batch that is known already. Raises Fenced, Conflict."""
    leader, version, known = connection.execute(
        "SELECT epoch, version, (SELECT version FROM batches WHERE id = ?) FROM leadership",
        (batch_id,),
    ).fetchone()
    if epoch != leader:
        raise Fenced(f"epoch {epoch} is over; the leader's is {leader}")
    if known is not None:
        return int(known)
    if version != expected_version:
        raise Conflict(
            f"the store is at version {version}, the batch was made on {expected_version}"
        )
    return None


def _touch(connection: sqlite3.Connection) -> None:
    """Writes, and changes nothing."""
    connection.execute("UPDATE leadership SET holder = holder")


def _load(connection: sqlite3.Connection) -> Snapshot:
    with transaction(connection):
        (version,) = connection.execute("SELECT version FROM leadership").fetchone()
        records: dict[Kind, list[Record]] = {}
        for name, body in connection.execute("SELECT kind, body FROM records ORDER BY id"):
            kind = Kind(name)
            records.setdefault(kind, []).append(decode(kind, body.encode()))
        jobs = [
            decode(Kind.JOB, body.encode())
            for (body,) in connection.execute(
                "SELECT body FROM jobs WHERE live ORDER BY sequence, job_id"
            )
        ]
    before = [record for kind in BEFORE_JOBS for record in records.get(kind, ())]
    return Snapshot(records=(*before, *jobs, *records.get(Kind.LEASE, ())), version=version)
