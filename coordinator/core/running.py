"""An index of the attempts that could be preempted: by queue, standing and the work that is left.

Theory of operation. What an attempt has left to do changes while it runs, so it is filed by level
(steps of a quarter), with the time at which it should be looked at again; that is a few dozen times in the
life of an attempt, however long it is. An attempt that has just begun is young: it has a time to be looked
at, and no level yet.

The level is that of the moment at which the attempt was filed: a memo, as good as what was known then.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

Rank = tuple[str, int]  # queue, standing


@dataclass(frozen=True, slots=True)
class Filed:
    """Where an attempt is found; level None while it is young."""

    rank: Rank
    level: int | None
    again_at_ms: int
    device_count: int = 0


class Running:
    """Attempts by what they have left to do."""

    def __init__(self) -> None:
        self.filed: dict[str, Filed] = {}  # by job
        self.levels: dict[Rank, dict[int, dict[str, None]]] = {}
        self.devices: Counter[str] = Counter()  # that the attempts of a queue hold
        self._heap: list[tuple[int, str]] = []
        self._devices: dict[Rank, Counter[int]] = {}  # that the attempts of a level hold

    def put(self, job_id: str, filed: Filed) -> None:
        """Files an attempt, anew where it was filed before."""
        self.remove(job_id)
        self.filed[job_id] = filed
        heapq.heappush(self._heap, (filed.again_at_ms, job_id))
        if filed.level is not None:
            levels = self.levels.setdefault(filed.rank, {})
            levels.setdefault(filed.level, {})[job_id] = None
            self._devices.setdefault(filed.rank, Counter())[filed.level] += filed.device_count
            self.devices[filed.rank[0]] += filed.device_count

    def remove(self, job_id: str) -> None:
        """Takes an attempt out, if it is there."""
        filed = self.filed.pop(job_id, None)
        if filed is None or filed.level is None:
            return
        levels = self.levels[filed.rank]
        del levels[filed.level][job_id]
        self._devices[filed.rank][filed.level] -= filed.device_count
        self.devices[filed.rank[0]] -= filed.device_count
        if not self.devices[filed.rank[0]]:
            del self.devices[filed.rank[0]]
        if not levels[filed.level]:
            del levels[filed.level], self._devices[filed.rank][filed.level]
            if not levels:
                del self.levels[filed.rank], self._devices[filed.rank]

    def next_ms(self) -> int | None:
        """When the next attempt is to be looked at again."""
        while self._heap:
            at_ms, job_id = self._heap[0]
            filed = self.filed.get(job_id)
            if filed is not None and filed.again_at_ms == at_ms:
                return at_ms
            heapq.heappop(self._heap)
        return None

    def due(self, now_ms: int) -> Iterator[str]:
        """Jobs whose attempts are to be looked at again; each must be filed anew or removed."""
        while (at_ms := self.next_ms()) is not None and at_ms <= now_ms:
            yield heapq.heappop(self._heap)[1]

    def most(self, rank: Rank) -> int:
        """The highest level of a rank; -1 where there is none."""
        return max(self.levels.get(rank, ()), default=-1)

    def device_count(self, rank: Rank, least: int) -> int:
        """Devices that the attempts of a rank hold, from a level on."""
        known = self._devices.get(rank)
        return sum(count for level, count in known.items() if level >= least) if known else 0

    def worst(self, rank: Rank, least: int) -> Iterator[str]:
        """Jobs of a rank from a level on, those with most to do first."""
        levels = self.levels.get(rank, {})
        for level in sorted(levels, reverse=True):
            if level < least:
                return
            yield from levels[level]
