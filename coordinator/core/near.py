"""Which nodes have at hand what jobs name: a hint for placement, and never a reason to wait.

Agents tell hashes of the data and the images that they hold; jobs carry those of what they name. What many
nodes hold is no reason to prefer one of them, and is not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

MOST_HOLDERS = 256
MOST_NODES = 32  # that are preferred


class Near:
    """The holders of each hash."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[str, ...]] = {}  # by node
        self._holders: dict[str, dict[str, None]] = {}

    def put(self, node_id: str, holds: Sequence[str]) -> None:
        """Sets what a node holds; nothing takes it off."""
        for key in dict.fromkeys(self.held.pop(node_id, ())):
            del self._holders[key][node_id]
            if not self._holders[key]:
                del self._holders[key]
        if holds:
            self.held[node_id] = tuple(holds)
            for key in holds:
                self._holders.setdefault(key, {})[node_id] = None

    def of(self, wants: Sequence[str]) -> tuple[str, ...]:
        """The nodes that hold any of it, who holds the most first."""
        counts: dict[str, int] = {}
        for key in wants:
            holders = self._holders.get(key, {})
            for node_id in holders if len(holders) <= MOST_HOLDERS else ():
                counts[node_id] = counts.get(node_id, 0) + 1
        return tuple(sorted(counts, key=lambda one: (-counts[one], one))[:MOST_NODES])


def count_of(wants: Sequence[str], holds: Sequence[str]) -> int:
    """How many of the things that a job names a node holds."""
    known = set(holds)
    return sum(key in known for key in wants)
