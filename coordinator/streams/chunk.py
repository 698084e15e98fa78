"""The form in which entries are kept: lines in columns, many in a chunk; a point as a JSON array."""

from __future__ import annotations

import math
import zlib
from array import array
from collections.abc import Sequence

import msgspec

from coordinator.streams.intake import Accepted
from coordinator.streams.protocol import Line, Placed, Point, Source

COMPRESS_FROM_BYTES = 4096
LINE_BYTES = 200  # what a decoded line costs beside its text


class _Columns(msgspec.Struct, array_like=True, gc=False):
    texts: list[str | None]
    levels: bytes
    times_ms: bytes


_columns_encoder = msgspec.msgpack.Encoder()
_columns_decoder = msgspec.msgpack.Decoder(_Columns)


class Chunk:
    """Lines of one source at positions that follow one another; its lines are made when first asked for."""

    __slots__ = (
        "_lines",
        "attempt",
        "channel",
        "first",
        "levels",
        "max_level",
        "node_id",
        "rank",
        "texts",
        "times_ms",
    )

    def __init__(
        self,
        source: tuple[int, int, int, str],
        first: int,
        *,
        texts: list[str | None],
        levels: bytes,
        times_ms: array[int],
    ) -> None:
        self.attempt, self.rank, self.channel, self.node_id = source
        self.first = first
        self.texts = texts
        self.levels = levels
        self.times_ms = times_ms
        self.max_level = max(levels)
        self._lines: list[Line] | None = None

    @classmethod
    def of(cls, source: Source, first: int, accepted: Accepted) -> Chunk:
        """New lines, at positions from `first`."""
        return cls(
            (source.attempt, source.rank, source.channel, source.node_id),
            first,
            texts=accepted.texts,
            levels=accepted.levels,
            times_ms=accepted.times_ms,
        )

    @property
    def last(self) -> int:
        return self.first + len(self.texts) - 1

    def row(self) -> tuple[int | str, ...]:
        """What is asked of a chunk without opening it: first, last, source, highest and least level."""
        source = (self.attempt, self.rank, self.channel, self.node_id)
        return (self.first, self.last, *source, self.max_level, min(self.levels))

    def pack(self) -> tuple[int, bool, bytes]:
        """Bytes before compression, whether it is compressed, and the body."""
        body = _columns_encoder.encode(_Columns(self.texts, self.levels, self.times_ms.tobytes()))
        size = len(body)
        if size > COMPRESS_FROM_BYTES:
            smaller = zlib.compress(body, 1)
            if len(smaller) < size:
                return size, True, smaller
        return size, False, body

    @classmethod
    def unpack(
        cls, source: tuple[int, int, int, str], first: int, *, compressed: bool, body: bytes
    ) -> Chunk:
        """The reverse of `pack`."""
        columns = _columns_decoder.decode(zlib.decompress(body) if compressed else body)
        times_ms = array("q", columns.times_ms)
        return cls(source, first, texts=columns.texts, levels=columns.levels, times_ms=times_ms)

    def lines(self) -> list[Line]:
        """All lines; shared by all who ask."""
        if self._lines is None:
            attempt, rank, channel, node_id = self.attempt, self.rank, self.channel, self.node_id
            self._lines = [
                Line(
                    position=position,
                    text=text,
                    level=level,
                    at_ms=at_ms,
                    rank=rank,
                    node_id=node_id,
                    attempt=attempt,
                    channel=channel,
                )
                for position, (text, level, at_ms) in enumerate(
                    zip(self.texts, self.levels, self.times_ms, strict=True), self.first
                )
            ]
        return self._lines

    def matching(self, after: int, *, rank: int | None, min_level: int) -> list[Line]:
        """Lines after a position that pass."""
        if rank not in (None, self.rank) or self.max_level < min_level:
            return []
        lines = self.lines()
        if after >= self.first:
            lines = lines[after - self.first + 1 :]
        if min_level > 1:
            lines = [line for line in lines if line.level >= min_level]
        return lines


class _Row(msgspec.Struct, array_like=True):
    position: int
    step: int
    epoch: float | str | None
    at_ms: int
    attempt: int
    progress: float | str
    values: list[tuple[str, float | str]]


_row_decoder = msgspec.json.Decoder(_Row)
_rows_decoder = msgspec.json.Decoder(list[_Row])


def _plain(number: float) -> float | str:
    """JSON has no NaN and no infinity; losses do."""
    return number if math.isfinite(number) else repr(number)


def pack_point(placed: Placed) -> str:
    """A point with its position, as JSON."""
    point = placed.point
    row = _Row(
        placed.position,
        point.step,
        None if point.epoch is None else _plain(point.epoch),
        point.at_ms,
        point.attempt,
        _plain(point.progress),
        [(name, _plain(value)) for name, value in point.values],
    )
    return msgspec.json.encode(row).decode()


def unpack_point(body: str) -> Placed:
    """The reverse of `pack_point`."""
    return _placed(_row_decoder.decode(body))


def unpack_points(bodies: str) -> list[Placed]:
    """Points from the inside of a JSON array, by position."""
    rows = _rows_decoder.decode(f"[{bodies}]")
    return [_placed(row) for row in sorted(rows, key=lambda row: row.position)]


def _placed(row: _Row) -> Placed:
    return Placed(
        position=row.position,
        point=Point(
            step=row.step,
            values=tuple((name, float(value)) for name, value in row.values),
            epoch=None if row.epoch is None else float(row.epoch),
            at_ms=row.at_ms,
            attempt=row.attempt,
            progress=float(row.progress),
        ),
    )


def place(points: Sequence[Point], after: int) -> list[Placed]:
    """Points at the positions after one."""
    return [
        Placed(position=position, point=point) for position, point in enumerate(points, after + 1)
    ]
