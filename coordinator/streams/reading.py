"""The reading half of the embedded streams: it runs in reading threads, each answer out of one state
of the file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from coordinator.sqlite.database import transaction
from coordinator.streams.chunk import Chunk, unpack_point, unpack_points
from coordinator.streams.intake import spread
from coordinator.streams.protocol import Bounds, Latest, Line, Placed, Point

SCANNED_BYTES = 16 << 20  # of chunks that one call of `lines` looks at
SAMPLED_MAX = 100_000

NOTHING = Bounds(first=1, last=0)


def lines(
    connection: sqlite3.Connection,
    job_id: str,
    *,
    after: int,
    limit: int,
    rank: int | None,
    min_level: int,
) -> tuple[list[Line], int]:
    """As Streams.lines."""
    found: list[Line] = []
    scanned = 0
    with transaction(connection):
        number, log, _ = _bounds(connection, job_id)
        for chunk, size in _chunks(connection, number, after, rank=rank, min_level=min_level):
            found.extend(chunk.matching(after, rank=rank, min_level=min_level))
            scanned += size
            if len(found) >= limit:
                return found[:limit], found[limit - 1].position
            if scanned >= SCANNED_BYTES:
                return found, chunk.last
    return found, max(after, log.last)


def tail_start(
    connection: sqlite3.Connection, job_id: str, *, count: int, rank: int | None, min_level: int
) -> int:
    """As Streams.tail_start."""
    with transaction(connection):
        number, log, _ = _bounds(connection, job_id)
        if count <= 0:
            return log.last
        if rank is None and min_level <= 1:
            return max(log.first - 1, log.last - count)
        left = count
        for first, last, least in connection.execute(
            "SELECT first, last, min_level FROM chunks WHERE job = ?1 AND (?2 IS NULL OR rank = ?2)"
            " AND max_level >= ?3 ORDER BY last DESC",
            (number, rank, min_level),
        ):
            if min_level <= least:
                matching: Sequence[int] = range(first, last + 1)
            else:
                (chunk,) = (one for one, _ in _chunks(connection, number, last - 1, most=1))
                passing = chunk.matching(0, rank=rank, min_level=min_level)
                matching = [line.position for line in passing]
            if len(matching) >= left:
                return matching[-left] - 1
            left -= len(matching)
    return log.first - 1


def points(connection: sqlite3.Connection, job_id: str, *, after: int, limit: int) -> list[Placed]:
    """As Streams.points."""
    (bodies,) = connection.execute(
        "SELECT group_concat(body, ',') FROM (SELECT body FROM points WHERE position > ?2 AND"
        " job = (SELECT number FROM jobs WHERE job_id = ?1) ORDER BY position LIMIT ?3)",
        (job_id, after, max(0, limit)),
    ).fetchone()
    return unpack_points(bodies or "")


def sampled(
    connection: sqlite3.Connection, job_id: str, *, max_points: int
) -> tuple[list[Point], int]:
    """As Streams.sampled."""
    with transaction(connection):
        number, _, metrics = _bounds(connection, job_id)
        count = metrics.last - metrics.first + 1
        most = max(1, min(max_points, SAMPLED_MAX))
        wanted = spread(metrics.first, metrics.last, most)
        (bodies,) = connection.execute(
            "SELECT group_concat(body, ',') FROM points WHERE job = ? AND position IN"
            " (SELECT value FROM json_each(?))",
            (number, msgspec.json.encode(wanted).decode()),
        ).fetchone()
    return [placed.point for placed in unpack_points(bodies or "")], count


def all_log_bytes(connection: sqlite3.Connection) -> int:
    """Of all jobs together."""
    return int(connection.execute("SELECT total(log_bytes) FROM jobs").fetchone()[0])


def log_sizes(connection: sqlite3.Connection) -> list[tuple[str, int]]:
    """Jobs that have lines, with their bytes, those that began first in front."""
    return connection.execute(
        "SELECT job_id, log_bytes FROM jobs WHERE log_bytes > 0 ORDER BY number"
    ).fetchall()


def bounds(connection: sqlite3.Connection, job_id: str) -> tuple[Bounds, Bounds]:
    """Positions of the log, and of the metrics."""
    _, log, metrics = _bounds(connection, job_id)
    return log, metrics


def latest(connection: sqlite3.Connection, job_ids: Sequence[str]) -> dict[str, Latest]:
    """As Streams.latest."""
    rows = connection.execute(
        "SELECT job_id, point, progress, eta_s FROM jobs"
        " WHERE job_id IN (SELECT value FROM json_each(?))",
        (msgspec.json.encode(list(job_ids)).decode(),),
    )
    return {
        job_id: Latest(
            point=None if point is None else unpack_point(point).point,
            progress=progress,
            eta_s=eta_s,
        )
        for job_id, point, progress, eta_s in rows
    }


def _bounds(connection: sqlite3.Connection, job_id: str) -> tuple[int, Bounds, Bounds]:
    row = connection.execute(
        "SELECT number, log_first, log_last, metrics_first, metrics_last FROM jobs"
        " WHERE job_id = ?",
        (job_id,),
    ).fetchone()
    if row is None:
        return 0, NOTHING, NOTHING
    number, log_first, log_last, metrics_first, metrics_last = row
    return (
        number,
        Bounds(first=log_first, last=log_last),
        Bounds(first=metrics_first, last=metrics_last),
    )


def _chunks(
    connection: sqlite3.Connection,
    number: int,
    after: int,
    *,
    rank: int | None = None,
    min_level: int = 0,
    most: int = -1,
) -> Iterator[tuple[Chunk, int]]:
    """Chunks that end after a position and may match, with their bytes."""
    rows: Iterator[Any] = connection.execute(
        "SELECT attempt, rank, channel, node_id, first, compressed, body, bytes FROM chunks"
        " WHERE job = ?1 AND last > ?2 AND (?3 IS NULL OR rank = ?3) AND max_level >= ?4"
        " ORDER BY last LIMIT ?5",
        (number, after, rank, min_level, most),
    )
    for attempt, rank_, channel, node_id, first, compressed, body, size in rows:
        source = (attempt, rank_, channel, node_id)
        yield Chunk.unpack(source, first, compressed=bool(compressed), body=body), size
