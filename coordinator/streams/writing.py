"""The writing half of the embedded streams: it runs in the writing thread, inside a transaction.

What is known of a job (bounds, offsets) is kept between transactions, so that an append reads nothing.
A transaction that does not report success leaves that knowledge in doubt, and it is read anew.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from coordinator.sqlite.database import insert_rows
from coordinator.streams.chunk import Chunk, pack_point, place, unpack_point
from coordinator.streams.intake import Accepted, take
from coordinator.streams.protocol import Append, Bounds, Latest, Placed, Source
from coordinator.streams.tails import News

JOBS_KNOWN_MAX = 4096
POINTS_MAX = 1_000_000  # of one job
POINTS_SLACK = 1000  # so that the oldest leave in lumps
COLLECTED_CHUNKS = 256  # rows deleted in one transaction, between which others get their turn
COLLECTED_POINTS = 8192

SourceKey = tuple[int, int, int]  # attempt, rank, channel
COLLECTED = (("chunks", "last", COLLECTED_CHUNKS), ("points", "position", COLLECTED_POINTS))


@dataclass(slots=True)
class _Job:
    """What is known of a job's streams."""

    number: int = 0  # 0 before its first entry
    log_first: int = 1
    log_last: int = 0
    log_bytes: int = 0
    metrics_first: int = 1
    metrics_last: int = 0
    newest: Placed | None = None
    progress: float = 0.0
    eta_s: float | None = None
    offsets: dict[SourceKey, int] = field(default_factory=dict)

    def row(self) -> tuple[Any, ...]:
        point = None if self.newest is None else pack_point(self.newest)
        bounds = (self.log_first, self.log_last, self.log_bytes)
        return (*bounds, self.metrics_first, self.metrics_last, point, self.progress, self.eta_s)

    def news(self) -> News:
        return News(
            log=Bounds(first=self.log_first, last=self.log_last),
            metrics=Bounds(first=self.metrics_first, last=self.metrics_last),
            latest=Latest(
                point=self.newest.point if self.newest else None,
                progress=self.progress,
                eta_s=self.eta_s,
            ),
        )


class _Group:
    """The rows of one transaction."""

    def __init__(self) -> None:
        self.chunks: list[tuple[Any, ...]] = []
        self.points: list[tuple[Any, ...]] = []
        self.offsets: dict[tuple[int, SourceKey], int] = {}
        self.jobs: dict[str, _Job] = {}
        self.added: dict[str, tuple[list[tuple[Chunk, int]], list[Placed]]] = {}

    def add(self, batch: Append, job: _Job, accepted: Accepted) -> None:
        """Gives the new entries of a batch their positions."""
        source = batch.source
        self.jobs[source.job_id] = job
        chunks, placed = self.added.setdefault(source.job_id, ([], []))
        if accepted.texts:
            chunk = Chunk.of(source, job.log_last + 1, accepted)
            size, compressed, body = chunk.pack()
            job.log_last = chunk.last
            job.log_bytes += size
            chunks.append((chunk, size))
            self.chunks.append((job.number, *chunk.row(), size, compressed, body))
        if accepted.points:
            new = place(accepted.points, job.metrics_last)
            job.metrics_last = new[-1].position
            job.newest = new[-1]
            placed.extend(new)
            self.points.extend((job.number, one.position, pack_point(one)) for one in new)
        if batch.progress is not None:
            job.progress = batch.progress
        if batch.eta_s is not None or batch.progress is not None:
            job.eta_s = batch.eta_s
        key = _key(source)
        job.offsets[key] = self.offsets[job.number, key] = batch.end

    def news(self) -> dict[str, News]:
        news: dict[str, News] = {}
        for job_id, job in self.jobs.items():
            one = news[job_id] = job.news()
            one.chunks, one.placed = self.added[job_id]
        return news


def _key(source: Source) -> SourceKey:
    return source.attempt, source.rank, source.channel


class Writer:
    """Appends and drops.

    Args:
        log_bytes_max: budget of one job's log; beyond it the oldest chunks go.
    """

    def __init__(self, log_bytes_max: int) -> None:
        self._log_bytes_max = log_bytes_max
        self._known: OrderedDict[str, _Job] = OrderedDict()
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
        group = _Group()
        offsets: list[int] = []
        for batch in batches:
            job = self._job(connection, batch.source.job_id)
            key = _key(batch.source)
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

    def _job(self, connection: sqlite3.Connection, job_id: str) -> _Job:
        job = self._known.get(job_id)
        if job is None:
            job = self._known[job_id] = _read_job(connection, job_id)
        self._known.move_to_end(job_id)
        return job

    def _write(self, connection: sqlite3.Connection, group: _Group) -> None:
        insert_rows(
            connection,
            "INSERT INTO chunks (job, first, last, attempt, rank, channel, node_id, max_level,"
            " min_level, bytes, compressed, body)",
            group.chunks,
        )
        insert_rows(connection, "INSERT INTO points", group.points)
        insert_rows(
            connection,
            "INSERT INTO sources",
            [(number, *key, taken) for (number, key), taken in group.offsets.items()],
            tail="ON CONFLICT DO UPDATE SET taken = excluded.taken",
        )
        insert_rows(
            connection,
            "INSERT INTO jobs (number, job_id, log_first, log_last, log_bytes, metrics_first,"
            " metrics_last, point, progress, eta_s)",
            [(job.number, job_id, *job.row()) for job_id, job in group.jobs.items()],
            tail="ON CONFLICT (number) DO UPDATE SET log_first = excluded.log_first,"
            " log_last = excluded.log_last, log_bytes = excluded.log_bytes,"
            " metrics_first = excluded.metrics_first, metrics_last = excluded.metrics_last,"
            " point = excluded.point, progress = excluded.progress, eta_s = excluded.eta_s",
        )

    def _trim(self, connection: sqlite3.Connection, job: _Job) -> None:
        """Lets the oldest go beyond the budgets. What is newest always stays."""
        excess = job.metrics_last - job.metrics_first + 1 - POINTS_MAX
        if excess > POINTS_SLACK:
            job.metrics_first += excess
            connection.execute(
                "DELETE FROM points WHERE job = ? AND position < ?", (job.number, job.metrics_first)
            )
        if job.log_bytes <= self._log_bytes_max:
            return
        for number, last, size in connection.execute(
            "SELECT number, last, bytes FROM chunks WHERE job = ? ORDER BY last LIMIT ?",
            (job.number, COLLECTED_CHUNKS),
        ).fetchall():
            if job.log_bytes <= self._log_bytes_max:
                break
            connection.execute("DELETE FROM chunks WHERE number = ?", (number,))
            job.log_first = last + 1
            job.log_bytes -= size

    def drop(self, connection: sqlite3.Connection, job_id: str) -> None:
        """Forgets a job; its rows are deleted by `collect`."""
        self._known.pop(job_id, None)
        connection.execute(
            "INSERT OR IGNORE INTO dropped SELECT number FROM jobs WHERE job_id = ?", (job_id,)
        )
        connection.execute("DELETE FROM jobs WHERE job_id = ?", (job_id,))


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


def _read_job(connection: sqlite3.Connection, job_id: str) -> _Job:
    """What the file holds of a job."""
    row = connection.execute(
        "SELECT number, log_first, log_last, log_bytes, metrics_first, metrics_last, point,"
        " progress, eta_s FROM jobs WHERE job_id = ?",
        (job_id,),
    ).fetchone()
    if row is None:
        return _Job()
    number, log_first, log_last, log_bytes, metrics_first, metrics_last, point, progress, eta_s = (
        row
    )
    offsets = connection.execute(
        "SELECT attempt, rank, channel, taken FROM sources WHERE job = ?", (number,)
    )
    return _Job(
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
