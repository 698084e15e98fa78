"""Running attempts by when they are expected to end.

Theory of operation. What is expected changes while an attempt runs, and mostly to later: who has outlived
the usual is expected to live longer. So each is filed with what was expected when it began, and looked
at again only when it comes up in a walk; then it is filed where it belongs now.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from itertools import islice


class Ends:
    """Jobs whose attempt holds devices, soonest end first."""

    def __init__(self) -> None:
        self.filed: dict[str, int] = {}  # by job, when its attempt was last expected to end
        self._order: list[tuple[int, str]] = []

    def put(self, job_id: str, at_ms: int) -> None:
        """Files an attempt, anew where it was filed before."""
        self.remove(job_id)
        self.filed[job_id] = at_ms
        insort(self._order, (at_ms, job_id))

    def remove(self, job_id: str) -> None:
        """Takes an attempt out, if it is there."""
        at_ms = self.filed.pop(job_id, None)
        if at_ms is not None:
            del self._order[bisect_left(self._order, (at_ms, job_id))]

    def first(self, limit: int) -> Iterator[str]:
        """Those that were expected to end first when they were filed."""
        return (job_id for _, job_id in islice(self._order, limit))

    def soonest(self, expected_ms: Callable[[str], int]) -> Iterator[tuple[str, int]]:
        """(job, when it is expected to end), in this order; `expected_ms` says it as of now.

        Nothing else may be filed or removed meanwhile.
        """
        number = 0
        while number < len(self._order):
            filed_ms, job_id = self._order[number]
            now_ms = expected_ms(job_id)
            if now_ms > filed_ms:
                self.put(job_id, now_ms)
                if self._order[number] != (now_ms, job_id):
                    continue
            yield job_id, max(now_ms, filed_ms)
            number += 1
