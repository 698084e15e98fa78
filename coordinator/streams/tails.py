"""The newest entries of the jobs that were appended to lately, in memory: those who follow a job read
here and never touch the disk, and a chunk is made into lines once for all of them."""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from coordinator.streams.chunk import LINE_BYTES, Chunk
from coordinator.streams.protocol import Bounds, Latest, Line, Placed, Point

JOB_BYTES = 1 << 20  # of lines, and as much of points
ALL_BYTES = 64 << 20
LATEST_BYTES = 64 << 20
POINTS = 1000
JOBS_MAX = 10_000
POINT_BYTES = 400  # what a point costs beside its values
VALUE_BYTES = 130  # what a value costs beside its name

T = TypeVar("T")


@dataclass(slots=True)
class News:
    """What one durable group of batches added to a job's streams."""

    log: Bounds
    metrics: Bounds
    latest: Latest
    chunks: list[tuple[Chunk, int]] = field(default_factory=list)  # with their bytes
    placed: list[Placed] = field(default_factory=list)


class _End(Generic[T]):
    """The last entries of a stream; the newest stays however large it is."""

    __slots__ = ("bytes", "entries", "sizes")

    def __init__(self) -> None:
        self.entries: list[T] = []
        self.sizes: list[int] = []
        self.bytes = 0

    def add(self, entry: T, size: int) -> None:
        self.entries.append(entry)
        self.sizes.append(size)
        self.bytes += size

    def drop_while(self, is_too_old: Callable[[T, int], bool]) -> None:
        """Lets the oldest go, as long as it is said of them and of how many are left."""
        drop = 0
        while (left := len(self.entries) - drop) and (
            is_too_old(self.entries[drop], left) or (self.bytes > JOB_BYTES and left > 1)
        ):
            self.bytes -= self.sizes[drop]
            drop += 1
        del self.entries[:drop]
        del self.sizes[:drop]


class Tail:
    """The end of a job's streams, without holes."""

    __slots__ = ("chunks", "latest", "log", "metrics", "placed")

    def __init__(self, news: News) -> None:
        self.log = news.log
        self.metrics = news.metrics
        self.latest = news.latest
        self.chunks: _End[Chunk] = _End()
        self.placed: _End[Placed] = _End()

    @property
    def bytes(self) -> int:
        """What it takes, about."""
        return self.chunks.bytes + self.placed.bytes

    def is_followed_by(self, news: News) -> bool:
        """Whether the news begin where this ends: an append of unknown outcome may stand between."""
        log = news.chunks[0][0].first - 1 if news.chunks else news.log.last
        metrics = news.placed[0].position - 1 if news.placed else news.metrics.last
        return (log, metrics) == (self.log.last, self.metrics.last)

    def add(self, news: News) -> int:
        """Answers by how many bytes it has grown."""
        before = self.bytes
        self.log, self.metrics, self.latest = news.log, news.metrics, news.latest
        for chunk, size in news.chunks:
            self.chunks.add(chunk, size + LINE_BYTES * len(chunk.texts))
        self.chunks.drop_while(lambda chunk, left: chunk.first < self.log.first)
        for placed in news.placed:
            self.placed.add(placed, _size(placed.point))
        self.placed.drop_while(lambda placed, left: left > POINTS)
        return self.bytes - before

    def lines(
        self, after: int, limit: int, *, rank: int | None, min_level: int
    ) -> tuple[list[Line], int] | None:
        """As Streams.lines; None when the disk must be asked."""
        if after >= self.log.last:
            return [], after
        chunks = self.chunks.entries
        if not chunks or after + 1 < chunks[0].first:
            return None
        found: list[Line] = []
        for chunk in chunks[bisect_left(chunks, after + 1, key=lambda c: c.last) :]:
            found.extend(chunk.matching(after, rank=rank, min_level=min_level))
            if len(found) >= limit:
                return found[:limit], found[limit - 1].position
        return found, self.log.last

    def points(self, after: int, limit: int) -> list[Placed] | None:
        """As Streams.points; None when the disk must be asked."""
        if after >= self.metrics.last:
            return []
        points = self.placed.entries
        if not points or after + 1 < points[0].position:
            return None
        start = after + 1 - points[0].position
        return points[start : start + limit]


def _size(point: Point | None) -> int:
    """What a point takes in memory, about, in bytes."""
    values = point.values if point else ()
    return POINT_BYTES + sum(VALUE_BYTES + len(name) for name, _ in values)


class Tails:
    """Tails by job, the least lately used forgotten first; bounded by jobs and by bytes."""

    def __init__(self) -> None:
        self._tails: OrderedDict[str, Tail] = OrderedDict()
        self._latest: OrderedDict[str, Latest | None] = OrderedDict()
        self._bytes = 0
        self._latest_bytes = 0

    def publish(self, job_id: str, news: News) -> None:
        """Takes in what has become durable."""
        tail = self._tails.get(job_id)
        if tail is not None and not tail.is_followed_by(news):
            self.forget(job_id)
            tail = None
        if tail is None:
            tail = self._tails[job_id] = Tail(news)
        self._tails.move_to_end(job_id)
        self._bytes += tail.add(news)
        while self._bytes > ALL_BYTES or len(self._tails) > JOBS_MAX:
            _, old = self._tails.popitem(last=False)
            self._bytes -= old.bytes
        self._remember(job_id, news.latest)

    def get(self, job_id: str) -> Tail | None:
        """A job's tail, if it is known here."""
        tail = self._tails.get(job_id)
        if tail is not None:
            self._tails.move_to_end(job_id)
        return tail

    def forget(self, job_id: str) -> None:
        """Nothing of this job is known any more."""
        tail = self._tails.pop(job_id, None)
        self._bytes -= tail.bytes if tail else 0
        self._forget_latest(job_id)

    def latest(self, job_ids: Iterable[str]) -> tuple[dict[str, Latest], list[str]]:
        """The newest figures that are known here, and the jobs of which nothing is known."""
        found: dict[str, Latest] = {}
        missing: list[str] = []
        for job_id in job_ids:
            if job_id not in self._latest:
                missing.append(job_id)
            elif (latest := self._latest[job_id]) is not None:
                found[job_id] = latest
        return found, missing

    def learn(self, job_id: str, latest: Latest | None) -> None:
        """Takes in what was read; what was published meanwhile is newer and stays."""
        if job_id not in self._latest:
            self._remember(job_id, latest)

    def _remember(self, job_id: str, latest: Latest | None) -> None:
        self._forget_latest(job_id)
        self._latest[job_id] = latest
        self._latest_bytes += _latest_size(latest)
        while self._latest_bytes > LATEST_BYTES:
            self._forget_latest(next(iter(self._latest)))

    def _forget_latest(self, job_id: str) -> None:
        if job_id in self._latest:
            self._latest_bytes -= _latest_size(self._latest.pop(job_id))


def _latest_size(latest: Latest | None) -> int:
    return _size(latest.point if latest else None)
