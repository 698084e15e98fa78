"""A source that was opened: read in pieces, within a number of bytes and a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Protocol

from coordinator.data.terms import MIB, TOO_LONG, Unparseable, Unreachable

PIECE_BYTES = 1 * MIB
LINE_BYTES_MAX = 16 * MIB


class Stream(Protocol):
    """What is read from. A file that can seek has `seekable`."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end. Raises OSError or Unreachable."""

    def close(self) -> None:
        """Ends it."""


class Budget:
    """What is left of a source's bytes and time; shared by the files of a folder."""

    def __init__(self, *, read_bytes: int, seconds: float) -> None:
        self.left_bytes = read_bytes
        self.is_cut = False  # more was there than may be read
        self._ends_at = time.monotonic() + seconds

    def check_time(self) -> None:
        """Raises Unreachable when the time is over."""
        if time.monotonic() > self._ends_at:
            raise Unreachable(TOO_LONG)


class Reading:
    """One opened file. `size_bytes` is None where it is not known before the end."""

    def __init__(self, stream: Stream, budget: Budget, *, size_bytes: int | None) -> None:
        self.stream = stream
        self.budget = budget
        self.size_bytes = size_bytes
        self.read_bytes = 0

    def pieces(self) -> Iterator[bytes]:
        """The content in pieces, up to the budget."""
        while True:
            self.budget.check_time()
            piece = self.stream.read(min(PIECE_BYTES, self.budget.left_bytes + 1))
            if not piece:
                if self.size_bytes is None:
                    self.size_bytes = self.read_bytes
                return
            if len(piece) > self.budget.left_bytes:
                self.budget.is_cut = True
                return
            self.budget.left_bytes -= len(piece)
            self.read_bytes += len(piece)
            yield piece

    def lines(self) -> Iterator[bytes]:
        """Whole lines without their ends; the one that the budget cut is left out.

        Raises:
            Unparseable: a line is longer than 16 MiB.
        """
        rest = b""
        for piece in self.pieces():
            *whole, rest = (rest + piece).split(b"\n") if rest else piece.split(b"\n")
            yield from whole
            if len(rest) > LINE_BYTES_MAX:
                raise Unparseable(f"a line is longer than {LINE_BYTES_MAX // MIB} MiB")
        if rest and not self.budget.is_cut:
            yield rest
