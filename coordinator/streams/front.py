"""What every stream store on a disk has in common: group commit, the newest in memory, waking.

Appends that wait while some are being written are written together, by one fsync. Those who follow a job
read out of memory; only catching up and history reach the disk.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from coordinator.streams.bell import Bell, Bells
from coordinator.streams.intake import check
from coordinator.streams.protocol import Append, Bounds, Latest, Line, Placed, Point
from coordinator.streams.tails import News, Tails

GROUP_MAX = 256  # appends in one write
LINES_MAX = 100_000  # of one answer


class Disk(Protocol):
    """Where the entries are. Everything is as in Streams, but for what is said here."""

    async def open(self) -> None:
        """Opens or creates it, and forgets what was known before."""

    async def close(self) -> None:
        """Closes it; safe to call twice."""

    async def append(self, batches: Sequence[Append]) -> tuple[list[int], dict[str, News]]:
        """Answers each source's offset, and what each job got. Never called twice at a time."""

    async def lines(
        self, job_id: str, *, after: int, limit: int, rank: int | None, min_level: int
    ) -> tuple[list[Line], int]:
        """As Streams.lines."""

    async def tail_start(self, job_id: str, *, count: int, rank: int | None, min_level: int) -> int:
        """As Streams.tail_start."""

    async def points(self, job_id: str, *, after: int, limit: int) -> list[Placed]:
        """As Streams.points."""

    async def sampled(self, job_id: str, *, max_points: int) -> tuple[list[Point], int]:
        """As Streams.sampled."""

    async def bounds(self, job_id: str) -> tuple[Bounds, Bounds]:
        """Positions of the log, and of the metrics."""

    async def latest(self, job_ids: Sequence[str]) -> dict[str, Latest]:
        """As Streams.latest."""

    async def forget(self, job_id: str) -> None:
        """From now on the job has no streams."""

    async def collect(self) -> None:
        """Makes room of what was forgotten."""


class _Waiting:
    """Batches that wait to be written, and their answer."""

    __slots__ = ("answer", "batches")

    def __init__(self, batches: Sequence[Append]) -> None:
        self.batches = batches
        self.answer: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()


class FrontedStreams:
    """Streams on a disk."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._tails = Tails()
        self._bells = Bells()
        self._waiting: deque[_Waiting] = deque()
        self._flushing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        await self._disk.open()
        self._tails = Tails()  # what was known may have changed while closed

    async def close(self) -> None:
        if self._flushing is not None:
            await asyncio.wait([self._flushing])
        await self._disk.close()

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
        offsets, news = await self._disk.append(batches)
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
        return await self._disk.lines(
            job_id, after=after, limit=limit, rank=rank, min_level=min_level
        )

    async def tail_start(
        self, job_id: str, *, count: int, rank: int | None = None, min_level: int = 0
    ) -> int:
        return await self._disk.tail_start(job_id, count=count, rank=rank, min_level=min_level)

    async def points(self, job_id: str, *, after: int, limit: int) -> list[Placed]:
        limit = max(0, min(limit, LINES_MAX))
        if (tail := self._tails.get(job_id)) is not None:
            answer = tail.points(after, limit)
            if answer is not None:
                return answer
        return await self._disk.points(job_id, after=after, limit=limit)

    async def sampled(self, job_id: str, *, max_points: int) -> tuple[list[Point], int]:
        return await self._disk.sampled(job_id, max_points=max_points)

    async def log_bounds(self, job_id: str) -> Bounds:
        if (tail := self._tails.get(job_id)) is not None:
            return tail.log
        return (await self._disk.bounds(job_id))[0]

    async def metrics_bounds(self, job_id: str) -> Bounds:
        if (tail := self._tails.get(job_id)) is not None:
            return tail.metrics
        return (await self._disk.bounds(job_id))[1]

    async def latest(self, job_ids: Sequence[str]) -> dict[str, Latest]:
        found, missing = self._tails.latest(job_ids)
        if missing:
            read = await self._disk.latest(missing)
            for job_id in missing:
                self._tails.learn(job_id, read.get(job_id))
            found |= self._tails.latest(missing)[0]
        return found

    def subscribe(self, job_id: str) -> Bell:
        return self._bells.subscribe(job_id)

    async def drop(self, job_id: str) -> None:
        await self._disk.forget(job_id)
        self._tails.forget(job_id)
        self._bells.ring(job_id)
        await self._disk.collect()
