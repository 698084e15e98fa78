"""The newest entries of the jobs that were appended to lately, in memory: those who follow a job read
here and never touch the disk, and a chunk is made into lines once for all of them."""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from coordinator.streams.chunk import LINE_BYTES, Chunk
from coordinator.streams.protocol import Bounds, Latest, Line, Placed

JOB_BYTES = 1 << 20
ALL_BYTES = 64 << 20
POINTS = 1000
JOBS_MAX = 10_000
LATEST_MAX = 100_000


@dataclass(slots=True)
class News:
    """What one durable group of batches added to a job's streams."""

    log: Bounds
    metrics: Bounds
    latest: Latest
    chunks: list[tuple[Chunk, int]] = field(default_factory=list)  # with their bytes
    placed: list[Placed] = field(default_factory=list)


class Tail:
    """The end of a job's streams, without holes."""

    __slots__ = ("bytes", "chunks", "latest", "log", "metrics", "placed", "sizes")

    def __init__(self, news: News) -> None:
        self.log = news.log
        self.metrics = news.metrics
        self.latest = news.latest
        self.chunks: list[Chunk] = []
        self.sizes: list[int] = []
        self.placed: list[Placed] = []
        self.bytes = 0

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
            self.chunks.append(chunk)
            self.sizes.append(size + LINE_BYTES * len(chunk.texts))
            self.bytes += self.sizes[-1]
        drop = 0
        while drop < len(self.chunks) and (
            self.chunks[drop].first < self.log.first
            or (self.bytes > JOB_BYTES and drop < len(self.chunks) - 1)
        ):
            self.bytes -= self.sizes[drop]
            drop += 1
        del self.chunks[:drop]
        del self.sizes[:drop]
        self.placed = (self.placed + news.placed)[-POINTS:]
        return self.bytes - before

    def lines(
        self, after: int, limit: int, *, rank: int | None, min_level: int
    ) -> tuple[list[Line], int] | None:
        """As Streams.lines; None when the disk must be asked."""
        if after >= self.log.last:
            return [], after
        if not self.chunks or after + 1 < self.chunks[0].first:
            return None
        found: list[Line] = []
        for chunk in self.chunks[bisect_left(self.chunks, after + 1, key=lambda c: c.last) :]:
            found.extend(chunk.matching(after, rank=rank, min_level=min_level))
            if len(found) >= limit:
                return found[:limit], found[limit - 1].position
        return found, self.log.last

    def points(self, after: int, limit: int) -> list[Placed] | None:
        """As Streams.points; None when the disk must be asked."""
        if after >= self.metrics.last:
            return []
        if not self.placed or after + 1 < self.placed[0].position:
            return None
        start = after + 1 - self.placed[0].position
        return self.placed[start : start + limit]


class Tails:
    """Tails by job, the least lately used forgotten first; bounded by jobs and by bytes."""

    def __init__(self) -> None:
        self._tails: OrderedDict[str, Tail] = OrderedDict()
        self._latest: OrderedDict[str, Latest | None] = OrderedDict()
        self._bytes = 0

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
        self._latest.pop(job_id, None)

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
        self._latest[job_id] = latest
        self._latest.move_to_end(job_id)
        if len(self._latest) > LATEST_MAX:
            self._latest.popitem(last=False)
