"""What every stream store on a disk has in common: group commit, the newest in memory, waking.

Appends that wait while some are being written are written together, by one fsync. Those who follow a job
read out of memory; only catching up and history reach the disk.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
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

    async def log_bytes(self) -> int:
        """Of the logs of all jobs, before compression."""

    async def log_sizes(self) -> list[tuple[str, int]]:
        """Of each job, the one that began first before the others."""

    async def cut(self, job_id: str, most: int) -> int:
        """Takes a step to bring a job's log down to so many bytes; answers what is left."""

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


class _Group:
    """Writes what waits, one group after the other."""

    def __init__(self, write: Callable[[Sequence[Append]], Awaitable[list[int]]]) -> None:
        self._write = write
        self._waiting: deque[_Waiting] = deque()
        self._flushing: asyncio.Task[None] | None = None

    async def put(self, batches: Sequence[Append]) -> list[int]:
        """The offsets of these batches, once they are written."""
        waiting = _Waiting(batches)
        self._waiting.append(waiting)
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        return await waiting.answer

    async def end(self) -> None:
        """Returns once nothing waits."""
        if self._flushing is not None:
            await asyncio.wait([self._flushing])

    async def _flush(self) -> None:
        try:
            while self._waiting:
                count = min(len(self._waiting), GROUP_MAX)
                group = [self._waiting.popleft() for _ in range(count)]
                try:
                    offsets = await self._write([one for each in group for one in each.batches])
                except Exception as error:
                    for waiting in group:
                        if not waiting.answer.done():
                            waiting.answer.set_exception(error)
                else:
                    _answer(group, offsets)
        finally:
            self._flushing = None


def _answer(group: Sequence[_Waiting], offsets: list[int]) -> None:
    done = 0
    for waiting in group:
        if not waiting.answer.done():
            waiting.answer.set_result(offsets[done : done + len(waiting.batches)])
        done += len(waiting.batches)


class FrontedStreams:
    """Streams on a disk."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._tails = Tails()
        self._bells = Bells()
        self._group = _Group(self._write)

    async def open(self) -> None:
        await self._disk.open()
        self._tails = Tails()  # what was known may have changed while closed

    async def close(self) -> None:
        await self._group.end()
        await self._disk.close()

    async def append(self, batches: Sequence[Append]) -> list[int]:
        for batch in batches:
            check(batch)
        return await self._group.put(batches)

    async def _write(self, batches: Sequence[Append]) -> list[int]:
        try:
            offsets, news = await self._disk.append(batches)
        except Exception:
            # It may have landed all the same, and what is sent again is no news then.
            for job_id in {batch.source.job_id: None for batch in batches}:
                self._tails.forget(job_id)
            raise
        for job_id, one in news.items():
            self._tails.publish(job_id, one)
        for job_id in news:
            self._bells.ring(job_id)
        return offsets

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

    async def prune(self, most: int, is_live: Callable[[str], bool]) -> None:
        """Lets lines go while the logs of all jobs have more bytes than `most`.

        The jobs that began first and have ended lose theirs first, then those that have most of the
        living. Raises StreamsUnavailable.
        """
        excess = await self._disk.log_bytes() - most
        if excess <= 0:
            return
        sizes = await self._disk.log_sizes()
        ended = [one for one in sizes if not is_live(one[0])]
        living = [one for one in sizes if is_live(one[0])]
        for job_id, size in [*ended, *sorted(living, key=lambda one: -one[1])]:
            if excess <= 0:
                return
            least = max(0, size - excess)
            left = await _cut(self._disk, job_id, size=size, most=least, told=self._tails.forget)
            self._bells.ring(job_id)
            excess -= size - left


async def _cut(
    disk: Disk, job_id: str, *, size: int, most: int, told: Callable[[str], None]
) -> int:
    """Brings a job's log down to so many bytes in small steps, each told; answers what is left."""
    while size > most:
        left = await disk.cut(job_id, most)
        told(job_id)
        if left == size:
            break
        size = left
    return size
