"""The streams in memory: for tests, and for trying things out. Nothing survives the process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from coordinator.streams.bell import Bell, Bells
from coordinator.streams.chunk import Chunk, place
from coordinator.streams.intake import Accepted, check, spread, take
from coordinator.streams.protocol import (
    Append,
    Bounds,
    Latest,
    Line,
    Placed,
    Point,
    StreamsUnavailable,
)

LOG_BYTES_MAX = 64 << 20
LINES_MAX = 100_000

NOTHING = Bounds(first=1, last=0)
NO_FIGURES = Latest()


@dataclass(slots=True)
class _Job:
    """A job's streams."""

    lines: list[Line] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)  # lines and bytes of each batch
    placed: list[Placed] = field(default_factory=list)
    offsets: dict[tuple[int, int, int], int] = field(default_factory=dict)
    log: Bounds = NOTHING
    latest: Latest = NO_FIGURES

    @property
    def metrics(self) -> Bounds:
        return Bounds(first=1, last=len(self.placed))


class MemoryStreams:
    """Streams in lists; what they hold stays when they are closed and opened again.

    Args:
        log_bytes_max: budget of one job's log; beyond it the oldest lines go.
    """

    def __init__(self, *, log_bytes_max: int = LOG_BYTES_MAX) -> None:
        self._log_bytes_max = log_bytes_max
        self._jobs: dict[str, _Job] = {}
        self._bells = Bells()
        self._is_open = False

    async def open(self) -> None:
        self._is_open = True

    async def close(self) -> None:
        self._is_open = False

    async def append(self, batches: Sequence[Append]) -> list[int]:
        for batch in batches:
            check(batch)
        self._check_open()
        offsets = [self._append(batch) for batch in batches]
        for batch in batches:
            self._bells.ring(batch.source.job_id)
        return offsets

    def _append(self, batch: Append) -> int:
        source = batch.source
        job = self._jobs.get(source.job_id, _Job())
        key = (source.attempt, source.rank, source.channel)
        known = job.offsets.get(key, 0)
        accepted = take(batch, known)
        if accepted is None:
            return known
        self._jobs[source.job_id] = job
        job.offsets[key] = batch.end
        if accepted.texts:
            self._add_lines(batch, job, accepted)
        job.placed.extend(place(accepted.points, len(job.placed)))
        told = batch.progress is not None
        job.latest = Latest(
            point=job.placed[-1].point if job.placed else None,
            progress=job.latest.progress if batch.progress is None else batch.progress,
            eta_s=batch.eta_s if told or batch.eta_s is not None else job.latest.eta_s,
        )
        return batch.end

    def _add_lines(self, batch: Append, job: _Job, accepted: Accepted) -> None:
        chunk = Chunk.of(batch.source, job.log.last + 1, accepted)
        job.lines.extend(chunk.lines())
        job.sizes.append((len(chunk.texts), chunk.pack()[0]))
        first = job.log.first
        while sum(size for _, size in job.sizes) > self._log_bytes_max:
            count, _ = job.sizes.pop(0)
            del job.lines[:count]
            first += count
        job.log = Bounds(first=first, last=chunk.last)

    async def lines(
        self, job_id: str, *, after: int, limit: int, rank: int | None = None, min_level: int = 0
    ) -> tuple[list[Line], int]:
        job = self._job(job_id)
        if limit <= 0:
            return [], after
        found: list[Line] = []
        for line in job.lines[max(0, after + 1 - job.log.first) :]:
            if line.level >= min_level and rank in (None, line.rank):
                found.append(line)
                if len(found) == min(limit, LINES_MAX):
                    return found, line.position
        return found, max(after, job.log.last)

    async def tail_start(
        self, job_id: str, *, count: int, rank: int | None = None, min_level: int = 0
    ) -> int:
        job = self._job(job_id)
        if count <= 0:
            return job.log.last
        for line in reversed(job.lines):
            if line.level >= min_level and rank in (None, line.rank):
                count -= 1
                if not count:
                    return line.position - 1
        return job.log.first - 1

    async def points(self, job_id: str, *, after: int, limit: int) -> list[Placed]:
        start = max(0, after)
        return self._job(job_id).placed[start : start + max(0, min(limit, LINES_MAX))]

    async def sampled(self, job_id: str, *, max_points: int) -> tuple[list[Point], int]:
        placed = self._job(job_id).placed
        wanted = spread(1, len(placed), max(1, max_points))
        return [placed[position - 1].point for position in wanted], len(placed)

    async def log_bounds(self, job_id: str) -> Bounds:
        return self._job(job_id).log

    async def metrics_bounds(self, job_id: str) -> Bounds:
        return self._job(job_id).metrics

    async def latest(self, job_ids: Sequence[str]) -> dict[str, Latest]:
        self._check_open()
        return {job_id: self._jobs[job_id].latest for job_id in job_ids if job_id in self._jobs}

    def subscribe(self, job_id: str) -> Bell:
        return self._bells.subscribe(job_id)

    async def drop(self, job_id: str) -> None:
        self._check_open()
        self._jobs.pop(job_id, None)
        self._bells.ring(job_id)

    def _job(self, job_id: str) -> _Job:
        self._check_open()
        return self._jobs.get(job_id, _Job())

    def _check_open(self) -> None:
        if not self._is_open:
            raise StreamsUnavailable("the streams are not open")
