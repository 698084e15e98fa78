"""Which nodes have at hand what jobs name: a hint for placement, and now and then a reason to wait (delay.py).

Agents tell hashes of the data and the images that they hold, and how large these are; jobs carry the hashes
of what they name. The nearest node is that which has the least to fetch: the most bytes are there. What many
nodes hold is no reason to prefer one of them, and is not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

MOST_HOLDERS = 256
MOST_NODES = 32  # that are preferred


class Near:
    """The holders of each hash."""

    def __init__(self) -> None:
        self.held: dict[str, Mapping[str, int]] = {}  # by node
        self._holders: dict[str, dict[str, int]] = {}

    def put(self, node_id: str, held: Mapping[str, int]) -> None:
        """Sets what a node holds, with its bytes; nothing takes it off."""
        for key in self.held.pop(node_id, ()):
            del self._holders[key][node_id]
            if not self._holders[key]:
                del self._holders[key]
        if held:
            self.held[node_id] = held
            for key, size_bytes in held.items():
                self._holders.setdefault(key, {})[node_id] = size_bytes

    def of(self, wants: Sequence[str]) -> tuple[str, ...]:
        """The nodes that hold any of it, who holds the most bytes and then the most things first."""
        found: dict[str, tuple[int, int]] = {}
        for key in wants:
            holders = self._holders.get(key, {})
            for node_id, size_bytes in holders.items() if len(holders) <= MOST_HOLDERS else ():
                total_bytes, count = found.get(node_id, (0, 0))
                found[node_id] = total_bytes + size_bytes, count + 1
        best = sorted(found, key=lambda one: (-found[one][0], -found[one][1], one))
        return tuple(best[:MOST_NODES])

    def left_bytes(self, wants: Sequence[str], node_id: str) -> int:
        """How much of it a node lacks, of what others hold; what many hold, or nobody, is not counted."""
        own = self.held.get(node_id, {})
        lacks = (self._holders.get(key, {}) for key in wants if key not in own)
        return sum(min(one.values()) for one in lacks if 0 < len(one) <= MOST_HOLDERS)


def count_of(wants: Sequence[str], holds: Sequence[str]) -> int:
    """How many of the things that a job names a node holds."""
    known = set(holds)
    return sum(key in known for key in wants)
