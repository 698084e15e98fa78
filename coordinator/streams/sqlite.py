"""The embedded streams: logs and metrics in one SQLite file of their own, durable at every append.

Appends that wait while one is being written are written together, by one fsync. Those who follow a job
read out of memory; only catching up and history touch the disk.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from coordinator.sqlite.database import Database
from coordinator.sqlite.files import Schema
from coordinator.streams import reading
from coordinator.streams.bell import Bell, Bells
from coordinator.streams.intake import check
from coordinator.streams.protocol import (
    Append,
    Bounds,
    Latest,
    Line,
    Placed,
    Point,
    StreamsUnavailable,
)
from coordinator.streams.tails import Tails
from coordinator.streams.writing import Writer, collect

APPLICATION_ID = 0x4D435354  # "MCST"
LOG_BYTES_MAX = 1 << 30
GROUP_MAX = 256  # appends in one transaction
LINES_MAX = 100_000  # of one answer

SCHEMA = Schema.of(Path(__file__).parent, APPLICATION_ID)


class _Waiting:
    """Batches that wait to be written, and their answer."""

    __slots__ = ("answer", "batches")

    def __init__(self, batches: Sequence[Append]) -> None:
        self.batches = batches
        self.answer: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()


class SqliteStreams:
    """Streams in one file. The directory must exist; the file is created where there is none.

    Args:
        path: the file.
        log_bytes_max: budget of one job's log; beyond it the oldest lines go.
    """

    def __init__(self, path: Path | str, *, log_bytes_max: int = LOG_BYTES_MAX) -> None:
        self._database = Database(Path(path), SCHEMA, trouble=StreamsUnavailable)
        self._log_bytes_max = log_bytes_max
        self._writer = Writer(log_bytes_max)
        self._tails = Tails()
        self._bells = Bells()
        self._waiting: deque[_Waiting] = deque()
        self._flushing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        await self._database.open()
        self._writer = Writer(self._log_bytes_max)  # what was known may have changed while closed
        self._tails = Tails()

    async def close(self) -> None:
        if self._flushing is not None:
            await asyncio.wait([self._flushing])
        await self._database.close()

    async def append(self, batches: Sequence[Append]) -> list[int]:
        for batch in batches:
            check(batch)
        waiting = _Waiting(batches)
        self._waiting.append(waiting)
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        return await waiting.answer

    async def _flush(self) -> None:
        try:
            while self._waiting:
                count = min(len(self._waiting), GROUP_MAX)
                group = [self._waiting.popleft() for _ in range(count)]
                try:
                    await self._write(group)
                except Exception as error:
                    for waiting in group:
                        if not waiting.answer.done():
                            waiting.answer.set_exception(error)
        finally:
            self._flushing = None

    async def _write(self, group: list[_Waiting]) -> None:
        batches = [batch for waiting in group for batch in waiting.batches]
        offsets, news = await self._database.write(
            lambda connection: self._writer.append(connection, batches)
        )
        self._writer.settled()
        for job_id, one in news.items():
            self._tails.publish(job_id, one)
        done = 0
        for waiting in group:
            if not waiting.answer.done():
                waiting.answer.set_result(offsets[done : done + len(waiting.batches)])
            done += len(waiting.batches)
        for job_id in news:
            self._bells.ring(job_id)

    async def lines(
        self, job_id: str, *, after: int, limit: int, rank: int | None = None, min_level: int = 0
    ) -> tuple[list[Line], int]:
        if limit <= 0:
            return [], after
        limit = min(limit, LINES_MAX)
        if (tail := self._tails.get(job_id)) is not None:
            answer = tail.lines(after, limit, rank=rank, min_level=min_level)
            if answer is not None:
                return answer
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

    async def tail_start(
        self, job_id: str, *, count: int, rank: int | None = None, min_level: int = 0
    ) -> int:
        return await self._database.read(
            partial(reading.tail_start, job_id=job_id, count=count, rank=rank, min_level=min_level)
        )

    async def points(self, job_id: str, *, after: int, limit: int) -> list[Placed]:
        limit = max(0, min(limit, LINES_MAX))
        if (tail := self._tails.get(job_id)) is not None:
            answer = tail.points(after, limit)
            if answer is not None:
                return answer
        return await self._database.read(
            partial(reading.points, job_id=job_id, after=after, limit=limit)
        )

    async def sampled(self, job_id: str, *, max_points: int) -> tuple[list[Point], int]:
        return await self._database.read(
            partial(reading.sampled, job_id=job_id, max_points=max_points)
        )

    async def log_bounds(self, job_id: str) -> Bounds:
        if (tail := self._tails.get(job_id)) is not None:
            return tail.log
        return (await self._database.read(partial(reading.bounds, job_id=job_id)))[0]

    async def metrics_bounds(self, job_id: str) -> Bounds:
        if (tail := self._tails.get(job_id)) is not None:
            return tail.metrics
        return (await self._database.read(partial(reading.bounds, job_id=job_id)))[1]

    async def latest(self, job_ids: Sequence[str]) -> dict[str, Latest]:
        found, missing = self._tails.latest(job_ids)
        if missing:
            read = await self._database.read(partial(reading.latest, job_ids=missing))
            for job_id in missing:
                self._tails.learn(job_id, read.get(job_id))
            found |= self._tails.latest(missing)[0]
        return found

    def subscribe(self, job_id: str) -> Bell:
        return self._bells.subscribe(job_id)

    async def drop(self, job_id: str) -> None:
        await self._database.write(partial(self._writer.drop, job_id=job_id))
        self._tails.forget(job_id)
        self._bells.ring(job_id)
        while await self._database.write(collect):
            pass
