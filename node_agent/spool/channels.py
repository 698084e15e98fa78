"""From a rank's files to batches.

A channel reads one file from where it stands, and turns what it finds into one batch at a time.
What ends in a batch is named by byte offsets, so a batch may be sent again at will.
"""

from __future__ import annotations

from typing import Protocol

from node_agent import ranks
from node_agent.spool.lines import Cut, cut
from node_agent.spool.tail import Tail
from scaimind.agent.v1 import agent_service_pb2 as pb

CHANNELS = {ranks.STDOUT: pb.STDOUT, ranks.STDERR: pb.STDERR, ranks.EVENTS: pb.EVENTS}


class Reader(Protocol):
    """Makes sense of one kind of file."""

    limit_bytes: int
    """Lines that are longer come in pieces."""

    def fill(self, batch: pb.PushRequest, found: Found) -> None:
        """Puts what was found into the batch, as far as it ends after `batch.begin`."""


class Found:
    """Lines `cut` from the front of `data`, which begins at `offset`, and is read at `now_ms`.

    `continues`: the first line goes on with one that was begun before.
    """

    __slots__ = ("continues", "cut", "data", "now_ms", "offset")

    def __init__(self, data: bytes, cut: Cut, *, offset: int, continues: bool, now_ms: int) -> None:
        self.data = data
        self.cut = cut
        self.offset = offset
        self.continues = continues
        self.now_ms = now_ms

    @property
    def ends(self) -> list[int]:
        """Offset of the end of each line."""
        return [self.offset + end for end in self.cut.ends]


class Channel:
    """One file of a rank on its way to the coordinator.

    Everything before `acked` is durable there (or unwanted); everything before `tail.position`
    was read. `counted` is how many metrics were found in the acknowledged output. `wanted` turns
    False once the coordinator says that it does not know the job.
    """

    def __init__(self, name: str, rank: ranks.RankFiles, *, tail: Tail, reader: Reader) -> None:
        self.name = name
        self.tail = tail
        self.acked = tail.position
        self.wanted = True
        self.ended = False
        self.closed = False
        self.counted = 0
        self.rank = rank
        self._reader = reader

    def next_batch(self, *, now_ms: int) -> pb.PushRequest | None:
        """Reads on; None where no further line is complete.

        A gap with nothing behind it is a batch without lines: it may be the end. The batch still lacks
        `batch_id` and `node_id`. One that ends at or before `acked` was only read to learn from, and
        is not to be sent.
        """
        data = self.tail.read()
        if not data and not self.tail.gap:
            return None
        begin = self.tail.position
        last = self.ended and begin + len(data) >= self.tail.size()
        lines = cut(data, final=last, limit=self._reader.limit_bytes)
        if data and not lines.ends:
            return None
        size = lines.ends[-1] if data else 0
        batch = pb.PushRequest(
            job_id=self.rank.job_id,
            attempt=self.rank.attempt,
            rank=self.rank.rank,
            channel=CHANNELS[self.name],
            begin=max(begin, self.acked),
            end=begin + size,
            gap_before=self.tail.gap,
        )
        if data:
            continues = self.tail.continues
            found = Found(data, lines, offset=begin, continues=continues, now_ms=now_ms)
            self._reader.fill(batch, found)
        self.tail.advance(size, continues=lines.goes_on)
        return batch

    def acknowledge(self, offset: int, *, counted: int) -> None:
        """Everything before `offset` is durable."""
        if offset > self.acked:
            self.acked = offset
            self.counted = counted

    def rewind(self, offset: int) -> None:
        """Reads again from `offset` on, as far as that is still there."""
        self.acked = offset
        self.tail.rewind(offset)

    def is_read(self) -> bool:
        """Whether all that the file holds was read."""
        return self.tail.position >= self.tail.size()

    def is_drained(self) -> bool:
        """Whether all that the file holds was read and acknowledged."""
        acked = not self.wanted or self.acked >= self.tail.position
        return acked and self.is_read()

    def close(self) -> None:
        """Ends reading for good."""
        self.closed = True
        self.tail.close()
