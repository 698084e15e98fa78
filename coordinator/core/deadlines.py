"""When something is due: one heap, with lazy deletion.

What is wanted is a dict; the heap only finds the earliest of it. An entry whose wish moved to later
stays where it is and is put right when it comes up, so a node that is heard every second costs one
entry of the dict and, once in a while, one push.
"""

from __future__ import annotations

import heapq
from enum import IntEnum


class Due(IntEnum):
    """What a deadline is about."""

    START = 0  # job: start_after
    BACKOFF = 1  # job: not_before
    TIME_LIMIT = 2  # job: max_runtime
    DRAIN = 3  # node: drain deadline
    SILENCE = 4  # node: not heard for too long
    FORGET = 5  # request: no longer remembered
    FENCED = 6  # node: silent for so long that it must have stopped what may run elsewhere
    ASK = 7  # job: the checkpoint that was asked for
    CLAIM = 8  # job: what is set aside for it is expected to be free, or awaited no longer
    WINDOW = 9  # node: its maintenance begins, or is over
    HEALTH = 10  # node: something of what was seen is forgotten, or a rest is over
    AGE = 11  # of all that wait: somebody has waited for long


Key = tuple[Due, str]


class Deadlines:
    """One deadline per (what, id), in milliseconds."""

    def __init__(self) -> None:
        self.wanted: dict[Key, int] = {}
        self._armed: dict[Key, int] = {}
        self._heap: list[tuple[int, Due, str]] = []

    def set(self, due: Due, id: str, *, at_ms: int) -> None:
        """Wants `due` of `id` at `at_ms`; 0 is never."""
        key = (due, id)
        if not at_ms:
            self.wanted.pop(key, None)
            return
        self.wanted[key] = at_ms
        armed = self._armed.get(key)
        if armed is None or at_ms < armed:
            self._arm(key, at_ms)

    def next_ms(self) -> int | None:
        """The earliest deadline; None for none."""
        while self._heap:
            at_ms, due, id = self._heap[0]
            key = (due, id)
            if self._armed.get(key) == at_ms:
                if self.wanted.get(key) == at_ms:
                    return at_ms
                self._disarm(key)
            else:
                heapq.heappop(self._heap)
        return None

    def due(self, now_ms: int, *, limit: int) -> list[Key]:
        """At most `limit` of what is due, earliest first. They stay due until they are set anew."""
        found: list[Key] = []
        while len(found) < limit:
            at_ms = self.next_ms()
            if at_ms is None or at_ms > now_ms:
                break
            _, due, id = heapq.heappop(self._heap)
            del self._armed[due, id]
            found.append((due, id))
        for key in found:
            self._arm(key, self.wanted[key])
        return found

    def _arm(self, key: Key, at_ms: int) -> None:
        self._armed[key] = at_ms
        heapq.heappush(self._heap, (at_ms, *key))

    def _disarm(self, key: Key) -> None:
        heapq.heappop(self._heap)
        del self._armed[key]
        wanted = self.wanted.get(key)
        if wanted is not None:
            self._arm(key, wanted)
