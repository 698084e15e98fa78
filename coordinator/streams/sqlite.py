"""The embedded streams: logs and metrics in one SQLite file of their own, durable at every append."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from coordinator.sqlite.database import Database
from coordinator.sqlite.files import Schema
from coordinator.streams import reading
from coordinator.streams.front import FrontedStreams
from coordinator.streams.protocol import (
    LOG_BYTES_MAX,
    Append,
    Bounds,
    Latest,
    Line,
    Placed,
    Point,
    StreamsUnavailable,
)
from coordinator.streams.tails import News
from coordinator.streams.writing import Writer, collect

APPLICATION_ID = 0x4D435354  # "MCST"

SCHEMA = Schema.of(Path(__file__).parent, APPLICATION_ID)


class SqliteStreams(FrontedStreams):
    """Streams in one file. The directory must exist; the file is created where there is none.

    Args:
        path: the file.
        log_bytes_max: budget of one job's log; beyond it the oldest lines go.
    """

    def __init__(self, path: Path | str, *, log_bytes_max: int = LOG_BYTES_MAX) -> None:
        database = Database(Path(path), SCHEMA, trouble=StreamsUnavailable)
        super().__init__(SqliteDisk(database, log_bytes_max))


class SqliteDisk:
    """A Disk: the writing half in the writing thread, the reading half in reading threads."""

    def __init__(self, database: Database, log_bytes_max: int) -> None:
        self._database = database
        self._log_bytes_max = log_bytes_max
        self._writer = Writer(log_bytes_max)

    async def open(self) -> None:
        await self._database.open()
        self._writer = Writer(self._log_bytes_max)

    async def close(self) -> None:
        await self._database.close()

    async def append(self, batches: Sequence[Append]) -> tuple[list[int], dict[str, News]]:
        answer = await self._database.write(
            lambda connection: self._writer.append(connection, batches)
        )
        self._writer.settled()
        return answer

    async def lines(
        self, job_id: str, *, after: int, limit: int, rank: int | None, min_level: int
    ) -> tuple[list[Line], int]:
        return await self._database.read(
            partial(
                reading.lines,
                job_id=job_id,
                after=after,
                limit=limit,
                rank=rank,
                min_level=min_level,
            )
        )

    async def tail_start(self, job_id: str, *, count: int, rank: int | None, min_level: int) -> int:
        return await self._database.read(
            partial(reading.tail_start, job_id=job_id, count=count, rank=rank, min_level=min_level)
        )

    async def points(self, job_id: str, *, after: int, limit: int) -> list[Placed]:
        return await self._database.read(
            partial(reading.points, job_id=job_id, after=after, limit=limit)
        )

    async def sampled(self, job_id: str, *, max_points: int) -> tuple[list[Point], int]:
        return await self._database.read(
            partial(reading.sampled, job_id=job_id, max_points=max_points)
        )

    async def bounds(self, job_id: str) -> tuple[Bounds, Bounds]:
        return await self._database.read(partial(reading.bounds, job_id=job_id))

    async def latest(self, job_ids: Sequence[str]) -> dict[str, Latest]:
        return await self._database.read(partial(reading.latest, job_ids=job_ids))

    async def log_bytes(self) -> int:
        return await self._database.read(reading.all_log_bytes)

    async def log_sizes(self) -> list[tuple[str, int]]:
        return await self._database.read(reading.log_sizes)

    async def cut(self, job_id: str, most: int) -> int:
        left = await self._database.write(partial(self._writer.cut, job_id=job_id, most=most))
        self._writer.settled()
        return left

    async def forget(self, job_id: str) -> None:
        await self._database.write(partial(self._writer.drop, job_id=job_id))

    async def collect(self) -> None:
        while await self._database.write(collect):
            pass
