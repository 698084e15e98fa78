"""What batches add to the streams of jobs, worked out once for every store that keeps them on a disk.

What is known of a job (bounds, offsets) is kept between appends, so that an append reads nothing. An
append of unknown outcome leaves that knowledge in doubt, and it is read anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from coordinator.streams.chunk import Chunk, place
from coordinator.streams.intake import Accepted
from coordinator.streams.protocol import Append, Bounds, Latest, Placed, Source
from coordinator.streams.tails import News

JOBS_KNOWN_MAX = 4096
POINTS_MAX = 1_000_000  # of one job
POINTS_SLACK = 1000  # so that the oldest leave in lumps

SourceKey = tuple[int, int, int]  # attempt, rank, channel


def key_of(source: Source) -> SourceKey:
    """A source among those of its job."""
    return source.attempt, source.rank, source.channel


@dataclass(slots=True)
class JobState:
    """What is known of a job's streams."""

    number: int = 0  # what the store knows it by, or its revision; 0 before its first entry
    log_first: int = 1
    log_last: int = 0
    log_bytes: int = 0
    metrics_first: int = 1
    metrics_last: int = 0
    newest: Placed | None = None
    progress: float = 0.0
    eta_s: float | None = None
    offsets: dict[SourceKey, int] = field(default_factory=dict)

    def trim_points(self) -> bool:
        """Lets the oldest points go beyond the budget; answers whether any do."""
        excess = self.metrics_last - self.metrics_first + 1 - POINTS_MAX
        if excess <= POINTS_SLACK:
            return False
        self.metrics_first += excess
        return True

    def news(self) -> News:
        """As those who follow are told."""
        return News(
            log=Bounds(first=self.log_first, last=self.log_last),
            metrics=Bounds(first=self.metrics_first, last=self.metrics_last),
            latest=Latest(
                point=self.newest.point if self.newest else None,
                progress=self.progress,
                eta_s=self.eta_s,
            ),
        )


@dataclass(slots=True)
class Added:
    """What one group adds to a job."""

    chunks: list[tuple[Chunk, int, bool, bytes]] = field(default_factory=list)  # with `pack()`
    placed: list[Placed] = field(default_factory=list)
    offsets: dict[SourceKey, int] = field(default_factory=dict)


class Growth:
    """What one group of batches adds, by job."""

    def __init__(self) -> None:
        self.jobs: dict[str, JobState] = {}
        self.added: dict[str, Added] = {}

    def add(self, batch: Append, job: JobState, accepted: Accepted) -> None:
        """Gives the new entries of a batch their positions."""
        source = batch.source
        self.jobs[source.job_id] = job
        added = self.added.setdefault(source.job_id, Added())
        if accepted.texts:
            chunk = Chunk.of(source, job.log_last + 1, accepted)
            packed = chunk.pack()
            job.log_last = chunk.last
            job.log_bytes += packed[0]
            added.chunks.append((chunk, *packed))
        if accepted.points:
            new = place(accepted.points, job.metrics_last)
            job.metrics_last = new[-1].position
            job.newest = new[-1]
            added.placed += new
        if batch.progress is not None:
            job.progress = batch.progress
        if batch.eta_s is not None or batch.progress is not None:
            job.eta_s = batch.eta_s
        key = key_of(source)
        job.offsets[key] = added.offsets[key] = batch.end

    def news(self) -> dict[str, News]:
        """As those who follow each job are told."""
        news: dict[str, News] = {}
        for job_id, job in self.jobs.items():
            one, added = job.news(), self.added[job_id]
            one.chunks = [(chunk, size) for chunk, size, _, _ in added.chunks]
            one.placed = added.placed
            news[job_id] = one
        return news
