"""What a stream store promises. Every implementation passes tests/contract/streams.

A job has two streams, its log and its metrics. An entry gets its position when it is appended; positions
of a stream rise by one without holes, and a position names its entry for ever. Appending is idempotent:
per (job, attempt, rank, channel) the store keeps the offset up to which it has everything, and drops what
comes again. When `append` returns, the entries survive a crash of the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

LOG_BYTES_MAX = 1 << 30  # of one job


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where entries come from. channel: 1 stdout, 2 stderr, 3 events."""

    job_id: str
    attempt: int
    rank: int
    channel: int
    node_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Metrics at one step."""

    step: int
    values: tuple[tuple[str, float], ...]
    epoch: float | None
    at_ms: int
    attempt: int
    progress: float  # 0 to 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """One batch of one source, in columns; ends are offsets, rising. Covers (begin, end]."""

    source: Source
    begin: int
    end: int
    texts: Sequence[str] = ()
    ends: Sequence[int] = ()
    times_ms: Sequence[int] = ()
    levels: Sequence[int] = ()
    points: Sequence[Point] = ()
    point_ends: Sequence[int] = ()
    gap_before: bool = False
    progress: float | None = None
    eta_s: float | None = None


class Line(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One log line; `text` None marks a gap that ends at this position (lines were lost before they came)."""

    position: int
    text: str | None
    level: int
    at_ms: int
    rank: int
    node_id: str
    attempt: int
    channel: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A point with its position in the metrics stream."""

    position: int
    point: Point


@dataclass(frozen=True, slots=True, kw_only=True)
class Latest:
    """The newest figures of a job."""

    point: Point | None = None
    progress: float = 0.0
    eta_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Positions in one stream: first one kept (1 at first) and the newest (0 when empty)."""

    first: int
    last: int


class Streams(Protocol):
    """Where logs and metrics live."""

    async def open(self) -> None:
        """Opens or creates it. Raises StreamsUnavailable."""

    async def close(self) -> None:
        """Closes it; safe to call twice."""

    async def append(self, batches: Sequence[Append]) -> list[int]:
        """Makes batches durable together; answers the offset up to which each source is complete.

        A batch that begins beyond that offset without `gap_before` is not taken: send again from there.
        Raises ValueError for columns that do not fit together, before anything is taken.
        """

    async def lines(
        self, job_id: str, *, after: int, limit: int, rank: int | None = None, min_level: int = 0
    ) -> tuple[list[Line], int]:
        """Lines after a position that match, and the position up to which the stream was looked at.

        That may be short of the end with less than `limit` lines: the work of one call is bounded.
        A gap passes every level. Level 0 of an entry is kept as INFO.
        """

    async def tail_start(
        self, job_id: str, *, count: int, rank: int | None = None, min_level: int = 0
    ) -> int:
        """The position after which at most `count` matching lines stand; 0 is the beginning."""

    async def points(self, job_id: str, *, after: int, limit: int) -> list[Placed]:
        """Metric points after a position."""

    async def sampled(self, job_id: str, *, max_points: int) -> tuple[list[Point], int]:
        """At most max_points over the whole stream, first and last kept, and how many there are."""

    async def log_bounds(self, job_id: str) -> Bounds:
        """Positions of the log."""

    async def metrics_bounds(self, job_id: str) -> Bounds:
        """Positions of the metrics."""

    async def latest(self, job_ids: Sequence[str]) -> dict[str, Latest]:
        """The newest figures of some jobs; those without any are missing."""

    def subscribe(self, job_id: str) -> Subscription:
        """Wakes its holder whenever something was appended to the job's streams."""

    async def drop(self, job_id: str) -> None:
        """Deletes a job's streams."""


class Subscription(Protocol):
    """Bounded: it holds no entries, only the fact that there are new ones."""

    async def wait(self, timeout_s: float) -> bool:
        """True when something came since the last call; False after the timeout."""

    def close(self) -> None:
        """Ends it."""


class StreamsUnavailable(Exception):
    """It is not known whether the call had its effect; append again."""
