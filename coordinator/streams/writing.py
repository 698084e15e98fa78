"""The writing half of the embedded streams: it runs in the writing thread, inside a transaction."""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from coordinator.sqlite.database import insert_rows
from coordinator.streams.chunk import pack_point, unpack_point
from coordinator.streams.growth import JOBS_KNOWN_MAX, Growth, JobState, key_of
from coordinator.streams.intake import take
from coordinator.streams.protocol import Append
from coordinator.streams.tails import News

COLLECTED_CHUNKS = 256  # rows deleted in one transaction, between which others get their turn
COLLECTED_POINTS = 8192
COLLECTED = (("chunks", "last", COLLECTED_CHUNKS), ("points", "position", COLLECTED_POINTS))


def _row(job: JobState) -> tuple[Any, ...]:
    point = None if job.newest is None else pack_point(job.newest)
    bounds = (job.log_first, job.log_last, job.log_bytes, job.metrics_first, job.metrics_last)
    return (*bounds, point, job.progress, job.eta_s)


class Writer:
    """Appends and drops.

    Args:
        log_bytes_max: budget of one job's log; beyond it the oldest chunks go.
    """

    def __init__(self, log_bytes_max: int) -> None:
        self._log_bytes_max = log_bytes_max
        self._known: OrderedDict[str, JobState] = OrderedDict()
        self._in_doubt = False

    def settled(self) -> None:
        """The last transaction of `append` is durable: what was learnt in it is true."""
        self._in_doubt = False

    def append(
        self, connection: sqlite3.Connection, batches: Sequence[Append]
    ) -> tuple[list[int], dict[str, News]]:
        """Takes what is new; answers each source's offset, and what each job got."""
        if self._in_doubt:
            self._known.clear()
        self._in_doubt = True
        group = Growth()
        offsets: list[int] = []
        for batch in batches:
            job = self._job(connection, batch.source.job_id)
            key = key_of(batch.source)
            accepted = take(batch, job.offsets.get(key, 0))
            if accepted is not None:
                if not job.number:
                    job.number = _enter(connection, batch.source.job_id)
                group.add(batch, job, accepted)
            offsets.append(job.offsets.get(key, 0))
        for job in group.jobs.values():
            self._trim(connection, job)
        self._write(connection, group)
        while len(self._known) > JOBS_KNOWN_MAX:
            self._known.popitem(last=False)
        return offsets, group.news()

    def _job(self, connection: sqlite3.Connection, job_id: str) -> JobState:
        job = self._known.get(job_id)
        if job is None:
            job = self._known[job_id] = _read_job(connection, job_id)
        self._known.move_to_end(job_id)
        return job

    def _write(self, connection: sqlite3.Connection, group: Growth) -> None:
        added = [(group.jobs[job_id].number, one) for job_id, one in group.added.items()]
        insert_rows(
            connection,
            "INSERT INTO chunks (job, first, last, attempt, rank, channel, node_id, max_level,"
            " min_level, bytes, compressed, body)",
            [(job, *chunk.row(), *packed) for job, one in added for chunk, *packed in one.chunks],
        )
        insert_rows(
            connection,
            "INSERT INTO points",
            [(job, new.position, pack_point(new)) for job, one in added for new in one.placed],
        )
        insert_rows(
            connection,
            "INSERT INTO sources",
            [(job, *key, taken) for job, one in added for key, taken in one.offsets.items()],
            tail="ON CONFLICT DO UPDATE SET taken = excluded.taken",
        )
        insert_rows(
            connection,
            "INSERT INTO jobs (number, job_id, log_first, log_last, log_bytes, metrics_first,"
            " metrics_last, point, progress, eta_s)",
            [(job.number, job_id, *_row(job)) for job_id, job in group.jobs.items()],
            tail="ON CONFLICT (number) DO UPDATE SET log_first = excluded.log_first,"
            " log_last = excluded.log_last, log_bytes = excluded.log_bytes,"
            " metrics_first = excluded.metrics_first, metrics_last = excluded.metrics_last,"
            " point = excluded.point, progress = excluded.progress, eta_s = excluded.eta_s",
        )

    def _trim(self, connection: sqlite3.Connection, job: JobState) -> None:
        """Lets the oldest go beyond the job's budgets. What is newest always stays."""
        if job.trim_points():
            connection.execute(
                "DELETE FROM points WHERE job = ? AND position < ?", (job.number, job.metrics_first)
            )
        _cut(connection, job, self._log_bytes_max)

    def cut(self, connection: sqlite3.Connection, job_id: str, *, most: int) -> int:
        """Lets some of the oldest lines of a job go, down to so many bytes; answers what is left."""
        if self._in_doubt:
            self._known.clear()
        self._in_doubt = True
        job = self._job(connection, job_id)
        _cut(connection, job, most)
        connection.execute(
            "UPDATE jobs SET log_first = ?, log_bytes = ? WHERE number = ?",
            (job.log_first, job.log_bytes, job.number),
        )
        return job.log_bytes

    def drop(self, connection: sqlite3.Connection, job_id: str) -> None:
        """Forgets a job; its rows are deleted by `collect`."""
        self._known.pop(job_id, None)
        connection.execute(
            "INSERT OR IGNORE INTO dropped SELECT number FROM jobs WHERE job_id = ?", (job_id,)
        )
        connection.execute("DELETE FROM jobs WHERE job_id = ?", (job_id,))


def _cut(connection: sqlite3.Connection, job: JobState, most: int) -> None:
    """Deletes the oldest chunks of a job down to so many bytes, a bounded number of them."""
    if job.log_bytes <= most:
        return
    for number, last, size in connection.execute(
        "SELECT number, last, bytes FROM chunks WHERE job = ? ORDER BY last LIMIT ?",
        (job.number, COLLECTED_CHUNKS),
    ).fetchall():
        if job.log_bytes <= most:
            break
        connection.execute("DELETE FROM chunks WHERE number = ?", (number,))
        job.log_first = last + 1
        job.log_bytes -= size


def collect(connection: sqlite3.Connection) -> bool:
    """Deletes some rows of dropped jobs; answers whether there may be more."""
    row = connection.execute("SELECT job FROM dropped LIMIT 1").fetchone()
    if row is None:
        return False
    deleted = 0
    for table, key, most in COLLECTED:
        deleted += connection.execute(
            f"DELETE FROM {table} WHERE job = ?1 AND {key} IN"
            f" (SELECT {key} FROM {table} WHERE job = ?1 ORDER BY {key} LIMIT ?2)",
            (row[0], most),
        ).rowcount
    if not deleted:
        connection.execute("DELETE FROM sources WHERE job = ?", row)
        connection.execute("DELETE FROM dropped WHERE job = ?", row)
    return True


def _enter(connection: sqlite3.Connection, job_id: str) -> int:
    """Gives a new job its number."""
    rows = connection.execute(
        "INSERT INTO jobs (job_id) VALUES (?) RETURNING number", (job_id,)
    ).fetchall()
    return int(rows[0][0])


def _read_job(connection: sqlite3.Connection, job_id: str) -> JobState:
    """What the file holds of a job."""
    row = connection.execute(
        "SELECT number, log_first, log_last, log_bytes, metrics_first, metrics_last, point,"
        " progress, eta_s FROM jobs WHERE job_id = ?",
        (job_id,),
    ).fetchone()
    if row is None:
        return JobState()
    number, log_first, log_last, log_bytes, metrics_first, metrics_last, point, progress, eta_s = (
        row
    )
    offsets = connection.execute(
        "SELECT attempt, rank, channel, taken FROM sources WHERE job = ?", (number,)
    )
    return JobState(
        number=number,
        log_first=log_first,
        log_last=log_last,
        log_bytes=log_bytes,
        metrics_first=metrics_first,
        metrics_last=metrics_last,
        newest=None if point is None else unpack_point(point),
        progress=progress,
        eta_s=eta_s,
        offsets={(attempt, rank, channel): taken for attempt, rank, channel, taken in offsets},
    )
