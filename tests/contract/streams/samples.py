"""Batches for the tests of streams."""

from collections.abc import Iterable, Sequence
from typing import Any

from coordinator.streams.protocol import Append, Line, Point, Source, Streams

JOB = "job_1"


def source(job_id: str = JOB, *, attempt: int = 1, rank: int = 0, channel: int = 1) -> Source:
    return Source(
        job_id=job_id, attempt=attempt, rank=rank, channel=channel, node_id=f"node-{rank}"
    )


def batch(
    begin: int,
    texts: Sequence[str] = (),
    *,
    levels: Sequence[int] | None = None,
    of: Source | None = None,
    **fields: Any,
) -> Append:
    """Lines that each take their length and one byte, from an offset on."""
    ends, end = [], begin
    for text in texts:
        end += len(text.encode()) + 1
        ends.append(end)
    values: dict[str, Any] = {
        "source": of or source(),
        "begin": begin,
        "end": end,
        "texts": list(texts),
        "ends": ends,
        "times_ms": [1000 + one for one in ends],
        "levels": [2] * len(texts) if levels is None else list(levels),
    }
    return Append(**(values | fields))


def point(step: int, value: float = 0.5, **fields: Any) -> Point:
    values: dict[str, Any] = {
        "step": step,
        "values": (("loss", value), ("lr", 1e-3)),
        "epoch": step / 10,
        "at_ms": 1000 + step,
        "attempt": 1,
        "progress": 1.0,
    }
    return Point(**(values | fields))


def points(begin: int, steps: Iterable[int], *, of: Source | None = None, **fields: Any) -> Append:
    """Points that each take 10 bytes, from an offset on."""
    some = [point(step) for step in steps]
    end = begin + 10 * len(some)
    values: dict[str, Any] = {
        "source": of or source(channel=3),
        "begin": begin,
        "end": end,
        "points": some,
        "point_ends": list(range(begin + 10, end + 1, 10)),
    }
    return Append(**(values | fields))


async def all_lines(streams: Streams, job_id: str = JOB, limit: int = 1000) -> list[Line]:
    """The whole log, by pages."""
    found: list[Line] = []
    after = 0
    while True:
        some, after_some = await streams.lines(job_id, after=after, limit=limit)
        found.extend(some)
        if after_some == after:
            return found
        after = after_some


async def texts(streams: Streams, job_id: str = JOB) -> list[str | None]:
    return [line.text for line in await all_lines(streams, job_id)]
