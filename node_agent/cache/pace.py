"""How fast a node fetches what jobs name: bytes that came, over the time in which any were coming.

Fetches at once share the wire, so the time in which several are under way counts once. What came in little
pieces says more of how long it takes to begin than of the wire, and does not count; nor does the time that a
fetch which failed has waited in vain. Old fetches fade as new ones come.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec

from node_agent.cache.terms import MIB
from node_agent.files import replace_file

LEAST_BYTES = 8 * MIB  # of what comes without a pause; less than that does not count
MOST_BYTES = 1 << 50
FADE_S = 600.0  # of fetching: once there is more of it, all of it counts half
LEAST_S = 0.001
BITS = 3  # of what is told: steps of a quarter at most
FELL, ROSE = 3 / 4, 3 / 2  # what is told stays while it is that near


class Amount(msgspec.Struct, frozen=True):
    """So many bytes in so much time; also what is written down for the next agent."""

    size_bytes: Annotated[int, msgspec.Meta(ge=0, le=MOST_BYTES)] = 0
    time_s: Annotated[float, msgspec.Meta(ge=0, le=FADE_S)] = 0.0

    @property
    def bytes_per_s(self) -> int:
        """What that makes; 0 where it is too little to say."""
        if self.size_bytes < LEAST_BYTES:
            return 0
        return int(self.size_bytes / max(self.time_s, LEAST_S))


NOTHING = Amount()


class Pace:
    """The pace of one node. Times are of one clock that never goes back, and come in its order."""

    def __init__(self) -> None:
        """Knows of no fetch yet."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when what is told has changed."""
        self.told_bytes_per_s = 0
        """The pace as others are told: in steps, and not anew with each fetch; 0 for not known."""
        self.total = NOTHING
        self._coming = 0  # fetches whose bytes are coming
        self._counted_to_s = 0.0
        self._stretch_bytes = 0  # since when bytes have been coming without a pause
        self._new = NOTHING  # of it: what is not in the total

    def take_over(self, total: Amount) -> None:
        """Begins with what an earlier agent has seen."""
        self.total = total
        self._tell()

    def begin(self, now_s: float) -> None:
        """The bytes of a fetch begin to come."""
        if not self._coming:
            self._counted_to_s, self._stretch_bytes, self._new = now_s, 0, NOTHING
        self._coming += 1

    def come(self, size_bytes: int, now_s: float) -> None:
        """So many bytes more have come by a fetch that has begun and not ended."""
        self._stretch_bytes += size_bytes
        self._new = _sum(self._new, Amount(size_bytes, now_s - self._counted_to_s))
        self._counted_to_s = now_s
        if self._stretch_bytes >= LEAST_BYTES:
            self.total, self._new = _sum(self.total, self._new), NOTHING
            self._tell()

    def end(self) -> None:
        """A fetch that had begun is over; what it has brought was said before."""
        self._coming -= 1

    def _tell(self) -> None:
        now, told = self.total.bytes_per_s, self.told_bytes_per_s
        if told * FELL <= now < told * ROSE or now == told:
            return
        self.told_bytes_per_s = step(now)
        self.on_change()


def step(bytes_per_s: int) -> int:
    """The nearest number below that has few digits."""
    dropped = max(0, bytes_per_s.bit_length() - BITS)
    return bytes_per_s >> dropped << dropped


def read_pace(path: Path) -> Amount:
    """What an earlier agent has written down; nothing where that cannot be read."""
    with suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(path.read_bytes(), type=Amount)
    return NOTHING


def write_pace(path: Path, amount: Amount) -> None:
    """Writes it down for the next agent. OSError."""
    replace_file(path, msgspec.json.encode(amount))


def _sum(one: Amount, other: Amount) -> Amount:
    size_bytes, time_s = one.size_bytes + other.size_bytes, one.time_s + other.time_s
    while time_s > FADE_S:
        size_bytes, time_s = size_bytes // 2, time_s / 2
    return Amount(min(size_bytes, MOST_BYTES), time_s)
