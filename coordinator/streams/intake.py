"""What of a batch is new: the one rule by which every stream store takes entries once and only once."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coordinator.streams.protocol import Append, Point

INFO, CRITICAL = 2, 5
GAP_LEVEL = CRITICAL  # so that a gap passes every filter
_LEVELS = bytes([INFO, 1, 2, 3, 4, 5]) + bytes([CRITICAL]) * 250


@dataclass(frozen=True, slots=True)
class Accepted:
    """The new entries of a batch, in columns. A text None is a gap."""

    texts: list[str | None]
    levels: bytes
    times_ms: array[int]
    points: Sequence[Point]


def check(batch: Append) -> None:
    """Raises ValueError when the columns of a batch do not fit together."""
    lines = len(batch.texts)
    if not lines == len(batch.ends) == len(batch.times_ms) == len(batch.levels):
        raise ValueError("texts, ends, times and levels differ in length")
    if len(batch.points) != len(batch.point_ends):
        raise ValueError("points and their ends differ in length")
    if not 0 <= batch.begin <= batch.end:
        raise ValueError("a batch must begin at 0 or later, and before its end")
    for ends in (batch.ends, batch.point_ends):
        rising = list(ends)
        if rising and (
            rising[0] < batch.begin or rising[-1] > batch.end or rising != sorted(rising)
        ):
            raise ValueError("offsets must rise from the begin to the end of the batch")


def take(batch: Append, known: int) -> Accepted | None:
    """What is new after the offset `known`; None when nothing can be taken.

    Nothing can when all of it is known, or when it begins beyond and does not say that the part
    between is lost.
    """
    if batch.end <= known or (batch.begin > known and not batch.gap_before):
        return None
    start = bisect_right(batch.ends, known)
    texts: list[str | None] = list(batch.texts[start:])
    levels = severities(batch.levels[start:])
    times_ms = array("q", batch.times_ms[start:])
    points = batch.points[bisect_right(batch.point_ends, known) :]
    if batch.begin > known:
        at_ms = times_ms[0] if times_ms else points[0].at_ms if points else 0
        texts.insert(0, None)
        levels = bytes([GAP_LEVEL]) + levels
        times_ms.insert(0, at_ms)
    return Accepted(texts, levels, times_ms, points)


def severities(levels: Iterable[int]) -> bytes:
    """Levels from 1 to 5: 0 becomes INFO, what is not known CRITICAL."""
    try:
        return bytes(levels).translate(_LEVELS)
    except ValueError:  # beyond a byte
        return bytes(min(max(level, 0), CRITICAL) for level in levels).translate(_LEVELS)


def spread(first: int, last: int, most: int) -> list[int]:
    """At most so many positions spread evenly, the first and the last among them."""
    count = last - first + 1
    if count <= most:
        return list(range(first, last + 1))
    if most == 1:
        return [last]
    return [first + index * (count - 1) // (most - 1) for index in range(most)]
